//! `kip up`: from a folder to a function that answers, with proof.

mod burst;
mod check;
mod follow;
pub(crate) mod model;
mod program;
mod samples;
mod tryout;
mod watch;

use std::path::Path;
use std::time::Duration;

use kip_spec::Problem;
use kip_wire::DeployedVersion;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::arguments::{Connection, Up};
use crate::client::{Client, data_directory};
use crate::commands::deploy;
use crate::config::{Config, Flags};
use crate::output::Output;
use crate::start::{self, Listen};
use crate::{problem, serve};
use burst::BurstFile;
use samples::TryFile;
use tryout::Report;

/// What `kip up -o json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) gateway: String,
    pub(crate) api: String,
    pub(crate) deployed: Vec<DeployedVersion>,
    /// Those of them that served before, unchanged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unchanged: Vec<DeployedVersion>,
    #[serde(rename = "try")]
    pub(crate) tried: Option<Report>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) burst: Vec<burst::StepObservation>,
}

/// Runs `kip up`. It builds its own runtime, because with `--foreground` the server runs in it.
pub(crate) fn run(connection: &Connection, options: &Up, output: Output) -> anyhow::Result<()> {
    let runtime = serve::runtime()?;
    let done = if options.check {
        runtime.block_on(check::run(options, output))
    } else if options.foreground {
        runtime.block_on(foreground(connection, options, output))
    } else {
        runtime.block_on(background(connection, options, output))
    };
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

async fn background(connection: &Connection, options: &Up, output: Output) -> anyhow::Result<()> {
    // Before a server is started for nothing.
    let is_program = program::is_asked(options);
    let is_model = !is_program && model::is_model(&options.path);
    let file = match (is_program, is_model) {
        (true, _) => {
            program::check(options)?;
            options.path.clone()
        }
        (false, true) => options.path.clone(),
        (false, false) => deploy::check(&options.path)?,
    };
    let named = connection.api.as_deref().is_some_and(|api| api.starts_with("http"));
    let client = if named {
        Client::find(connection)?
    } else {
        let data = data_directory(connection)?;
        let listen = Listen { gateway: options.gateway, api: connection.api.clone() };
        let (client, new) = start::ensure(&data, &listen).await?;
        let about = client.about().await?;
        let state = if new { "started in the background" } else { "was running" };
        output.say(&format!(
            "Server    {state}: gateway http://{}, API http://{}, data {}",
            about.gateway,
            about.api,
            data.display()
        ));
        // Started or found with the administrator's key; what is done with it is done with the key that was given.
        match &connection.key {
            Some(_) => Client::find(connection)?,
            None => client,
        }
    };
    if is_model {
        return model::run(&client, &options.path.to_string_lossy(), &options.model, output).await;
    }
    let summary = match is_program {
        true => program::run(&client, options, output).await?,
        false => show(&client, &options.path, false, output).await?,
    };
    if options.watch {
        return tokio::select! {
            watched = watch::changes(&client, &options.path, &summary.deployed, output) => watched,
            followed = follow::decisions(&client, &summary.deployed, output) => followed,
        };
    }
    if output.is_json() {
        return output.result(&summary, |_| String::new());
    }
    if is_program {
        return match options.no_follow || !output.is_terminal() {
            true => Ok(()),
            false => follow::decisions(&client, &summary.deployed, output).await,
        };
    }
    output.say(&format!(
        "Next      kip ps · kip logs -f NAME · kip why NAME · edit {} and `kip up {}` again · kip stop",
        file.display(),
        options.path.display()
    ));
    if options.no_follow || !output.is_terminal() {
        return Ok(());
    }
    follow::decisions(&client, &summary.deployed, output).await
}

async fn foreground(connection: &Connection, options: &Up, output: Output) -> anyhow::Result<()> {
    let is_program = program::is_asked(options);
    let is_model = !is_program && model::is_model(&options.path);
    match (is_program, is_model) {
        (true, _) => program::check(options)?,
        (false, true) => {}
        (false, false) => drop(deploy::check(&options.path)?),
    }
    let data = data_directory(connection)?;
    let flags = Flags { gateway: options.gateway, api: connection.api.clone() };
    let config = Config::read(&data, None, &flags)?;
    serve::start_logging(&config, &data);
    let (announce, ready) = oneshot::channel();
    let serving = serve::serve(&data, config, |ready| drop(announce.send(ready.clone())));
    let path = options.path.clone();
    let showing = async {
        let Ok(ready) = ready.await else { return };
        output.say(&format!("Server    runs here: gateway {}, API {}; Ctrl-C ends it", ready.gateway, ready.api));
        let client = Client::new(&ready.api, &ready.key);
        // The server goes on: what failed can be mended and deployed again.
        let shown = match is_model {
            _ if is_program => program::run(&client, options, output).await.map(drop),
            true => model::run(&client, &path.to_string_lossy(), &options.model, output).await,
            false => show(&client, &path, false, output).await.map(drop),
        };
        if let Err(error) = shown {
            problem::show(&error, output);
        }
    };
    let (served, ()) = tokio::join!(serving, showing);
    kip_host::log::flush(serve::LAST_LINES);
    served.map(drop)
}

/// Deploys a folder and shows that it works; `prove` as for [`tryout::run`].
pub(crate) async fn show(client: &Client, path: &Path, prove: bool, output: Output) -> anyhow::Result<Summary> {
    let how = deploy::Deploying { keep_unchanged: true, ..deploy::Deploying::default() };
    let mut made = deploy::deploy(client, path, how, output).await?;
    deploy::wait(client, &made, false, output).await?;
    let about = client.about().await?;
    let names: Vec<String> = made.deployed.iter().map(|made| format!("{} {}", made.function, made.label)).collect();
    if !names.is_empty() {
        output.say(&format!("Deployed  {}", names.join(", ")));
    }
    let same: Vec<String> = made.unchanged.iter().map(|made| format!("{} {}", made.function, made.label)).collect();
    if !same.is_empty() {
        output.say(&format!("Unchanged {}: instances stay as they are", same.join(", ")));
    }
    let unchanged = made.unchanged.clone();
    made.deployed.extend(made.unchanged);
    let (_, directory) = deploy::manifest_file(path)?;
    let try_file = TryFile::read(&directory)?;
    let gateway = about.gateway.to_string();
    let tried = match &try_file {
        Some(try_file) => Some(tryout::run(client, &gateway, &directory, try_file, prove, output).await?),
        None => None,
    };
    let burst = match BurstFile::read(&directory)? {
        Some(file) => burst::run(client, &gateway, &directory, &file, output).await?,
        None => Vec::new(),
    };
    output.say("");
    for made in made.deployed.iter().filter(|made| made.job) {
        output.say(&format!("Job       kip job show {0} · kip job run {0}", made.function));
    }
    for made in made.deployed.iter().filter(|made| !made.job) {
        let host = made.function.as_str().to_ascii_lowercase();
        output.say(&format!(
            "URL       http://{gateway}/f/{}/  and  http://{host}.localhost:{}/",
            made.function,
            about.gateway.port()
        ));
        output.say(&format!("curl      {}", curl(&gateway, made, path, try_file.as_ref())));
    }
    Ok(Summary {
        gateway: format!("http://{gateway}"),
        api: format!("http://{}", about.api),
        deployed: made.deployed,
        unchanged,
        tried,
        burst,
    })
}

/// A line to paste into a shell.
fn curl(gateway: &str, made: &DeployedVersion, path: &Path, try_file: Option<&TryFile>) -> String {
    let base = format!("http://{gateway}/f/{}", made.function);
    let example = try_file
        .filter(|try_file| try_file.function == made.function.as_str())
        .and_then(|t| Some((t, t.curl.as_ref()?)));
    match example {
        Some((try_file, curl)) => {
            let folder = if path.is_dir() { path } else { path.parent().unwrap_or_else(|| Path::new(".")) };
            let file = folder.join(&curl.file);
            format!(
                "curl -s --data-binary @{} -H 'content-type: {}' {base}{}",
                file.display(),
                curl.content_type,
                try_file.path
            )
        }
        None => format!("curl -s {base}/"),
    }
}

/// A self-check's finding that makes `--check` fail.
pub(crate) fn failed(message: impl Into<String>) -> Problem {
    Problem::new(kip_spec::code::CHECK_FAILED, message)
}
