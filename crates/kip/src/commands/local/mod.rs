//! `kip local`: functions of a project on a server of their own, which lives as long as the command. The contract is that of a deployment,
//! because the same server deploys them.

mod invoke;
mod reload;

use std::net::SocketAddr;
use std::path::Path;

use kip_serverless::DeclaredFunction;
use kip_spec::{Problem, code};
use kip_wire::{LogLine, ShareInfo, ShareSettings};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::{Local, ProjectArgument};
use crate::client::{Client, segment};
use crate::commands::{files, nas, stop};
use crate::output::Output;
use crate::start::{self, Listen};

pub(crate) async fn run(command: &Local, output: Output) -> anyhow::Result<()> {
    match command {
        Local::Start { functions, port, project } => {
            let session = Session::open(project, functions, *port).await?;
            let done = tokio::select! {
                done = serve(&session, output) => done,
                () = ended() => Ok(()),
            };
            session.close(output).await;
            done
        }
        Local::Invoke { function, event, event_file, project } => {
            let event = invoke::event(event.as_deref(), event_file.as_deref())?;
            let named: Vec<String> = function.iter().cloned().collect();
            let session = Session::open(project, &named, 0).await?;
            let done = tokio::select! {
                done = invoke::run(&session, event, output) => done,
                () = ended() => Err(crate::problem::Exit::INTERRUPTED.into()),
            };
            session.close(output).await;
            done
        }
    }
}

/// Ends with Ctrl-C or SIGTERM.
async fn ended() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminated) => drop(terminated.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

/// A server with its data directory, both gone at its end, and the project that it serves.
struct Session<'a> {
    data: tempfile::TempDir,
    client: Client,
    project: &'a ProjectArgument,
    only: &'a [String],
}

impl<'a> Session<'a> {
    async fn open(project: &'a ProjectArgument, only: &'a [String], port: u16) -> anyhow::Result<Self> {
        // A fault of the file is said before anything is started.
        chosen(&nas::open(project)?, only)?;
        let data = tempfile::Builder::new().prefix("kip-local-").tempdir()?;
        let gateway = Some(SocketAddr::from(([127, 0, 0, 1], port)));
        let client = start::background(data.path(), &Listen { gateway, api: Some("127.0.0.1:0".to_owned()) }).await?;
        Ok(Self { data, client, project, only })
    }

    async fn close(self, output: Output) {
        if stop::stop_and_wait(&self.client, output.quiet()).await.is_err() {
            output.remark(&format!("the server in {} may go on: kip --data-dir {0} stop", self.data.path().display()));
            // Its directory is what it is found by.
            let _ = self.data.keep();
        }
    }
}

/// The functions of a file as they run here: without aliases, timers and provisioned instances.
fn chosen(file: &files::ProjectFile, only: &[String]) -> anyhow::Result<Vec<DeclaredFunction>> {
    let chosen = file.functions(only)?.into_iter().cloned().map(|mut function| {
        function.triggers.retain(|trigger| trigger.kind == "http");
        function.triggers.iter_mut().for_each(|trigger| trigger.qualifier = "LATEST".to_owned());
        function.aliases.clear();
        function.provisions.clear();
        function.domains.clear();
        (function.scaling, function.concurrency) = (None, None);
        function
    });
    Ok(chosen.collect())
}

/// A function that is served.
#[derive(Debug, Serialize)]
struct LocalFunction {
    function: String,
    url: String,
    call: String,
}

/// Deploys the project as it is now. Shares are the project's own copies of them.
async fn deploy(session: &Session<'_>, output: Output) -> anyhow::Result<(files::ProjectFile, Vec<DeclaredFunction>)> {
    let client = &session.client;
    let gateway = client.gateway().await?;
    let read = nas::open(session.project)?;
    let mut file = files::ProjectFile { gateway, ..read };
    files::bring(client, &mut file.project, &mut file.fetched, output).await?;
    let functions = chosen(&file, session.only)?;
    for function in &functions {
        for mount in files::of_function(function, &file.directory)? {
            std::fs::create_dir_all(&mount.twin).map_err(|error| {
                Problem::new(code::SHARE_COPY, format!("{} cannot be made", mount.twin.display()))
                    .cause(error.to_string())
            })?;
            let path = format!("/api/v1/shares/{}", segment(&mount.share.to_string()));
            let settings = ShareSettings { folder: mount.twin.display().to_string() };
            let _set: ShareInfo = client.put(&path, &settings).await?;
        }
        files::deploy_one(client, function, output).await?;
    }
    Ok((file, functions))
}

/// Serves until the command ends.
async fn serve(session: &Session<'_>, output: Output) -> anyhow::Result<()> {
    let (file, functions) = deploy(session, output).await?;
    let served: Vec<LocalFunction> = functions
        .iter()
        .map(|function| {
            let (url, call) = files::address(&file, function);
            LocalFunction { function: function.name.to_string(), url, call }
        })
        .collect();
    output.result(&served, |served| {
        let line = |one: &LocalFunction| format!("{}  {}\n  {}\n", one.function, one.url, one.call);
        served.iter().map(line).collect()
    })?;
    output.remark("a change of a file is a new version; Ctrl-C ends it");
    let names: Vec<String> = functions.iter().map(|function| function.name.to_string()).collect();
    let logs = futures_util::future::try_join_all(names.iter().map(|name| follow(&session.client, name, output)));
    tokio::select! {
        done = logs => done.map(drop),
        done = reload::changes(session, &file, functions, output) => done,
    }
}

/// Shows the output of a function as it comes.
async fn follow(client: &Client, name: &str, output: Output) -> anyhow::Result<()> {
    let path = format!("/api/v1/functions/{}/logs?follow=true&tail=0", segment(name));
    let show = |line: LogLine| output.line(&line, |line| format!("{name} | {}", line.line));
    client.lines(&path, show).await
}

/// The folder or file of a function's code.
fn code_of(function: &DeclaredFunction) -> Option<&Path> {
    function.code.as_ref().map(|code| code.path.as_path())
}
