//! The client commands, one file each but for the smallest.

pub(crate) mod backup;
pub(crate) mod bench;
mod budget;
pub(crate) mod config;
pub(crate) mod containers;
pub(crate) mod cost;
pub(crate) mod deploy;
pub(crate) mod device;
mod device_use;
pub(crate) mod doctor;
mod domain;
mod eject;
mod exec;
pub(crate) mod files;
mod fit;
mod fun;
mod gpu;
pub(crate) mod image;
#[cfg(feature = "infer")]
pub(crate) mod infer;
pub(crate) mod inspect;
mod install;
pub(crate) mod invoke;
pub(crate) mod job_runner;
pub(crate) mod jobs;
pub(crate) mod key;
pub(crate) mod knative;
pub(crate) mod layer;
mod list;
mod local;
pub(crate) mod logs;
pub(crate) mod model;
mod nas;
mod pool;
mod preset;
pub(crate) mod provision;
mod quota;
mod requests;
pub(crate) mod rollout;
pub(crate) mod run;
pub(crate) mod s;
pub(crate) mod scaler;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod simulate;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod survival;
pub(crate) mod tasks;
pub(crate) mod top;
pub(crate) mod usage;
pub(crate) mod variables;
mod versions;

use crate::arguments::{Command, Connection, Scaler, VersionArguments};
use crate::client::Client;
use crate::output::Output;

/// Runs a client command.
pub(crate) async fn run(connection: &Connection, command: Command, output: Output) -> anyhow::Result<()> {
    match command {
        Command::Deploy(mut options) => {
            options.path = options.filename.take().unwrap_or(options.path);
            match files::wanted(&options.path, &options.file) {
                Some(file) => files::deploy(&Client::find(connection)?, &file, &options, output).await,
                None => {
                    options.path = options.file.template.take().unwrap_or(options.path);
                    deploy::run(&Client::find(connection)?, &options, output).await
                }
            }
        }
        Command::Info(options) => files::info(&Client::find(connection)?, &options, output).await,
        Command::S { line } => s::run(connection, &line, output).await,
        Command::Fun { line } => fun::run(connection, &line, output).await,
        Command::Install(options) => install::run(&options, output),
        Command::Local(command) => local::run(&command, output).await,
        Command::Nas(command) => nas::run(connection, &command, output).await,
        Command::Import(options) => files::import(connection, &options, output).await,
        Command::Ls => list::functions(&Client::find(connection)?, output).await,
        Command::Ps(options) => list::instances(&Client::find(connection)?, &options, output).await,
        Command::Top(options) => top::run(&Client::find(connection)?, &options, output).await,
        Command::Start(options) => start::run(connection, &options, output).await,
        Command::Version(VersionArguments { command: Some(command) }) => {
            versions::run(&Client::find(connection)?, &command, output).await
        }
        Command::Plan(mut options) => {
            options.path = options.filename.take().unwrap_or(options.path);
            match files::wanted(&options.path, &options.file) {
                Some(file) => files::plan(&Client::find(connection)?, &file, &options, output).await,
                None => {
                    options.path = options.file.template.take().unwrap_or(options.path);
                    versions::plan(&Client::find(connection)?, &options, output).await
                }
            }
        }
        Command::Rollback(options) => versions::rollback(&Client::find(connection)?, &options, output).await,
        Command::Rollout(command) => rollout::run(&Client::find(connection)?, &command, output).await,
        Command::Alias(command) => versions::alias(&Client::find(connection)?, &command, output).await,
        Command::Version(VersionArguments { command: None }) => output
            .result(&serde_json::json!({ "version": env!("CARGO_PKG_VERSION") }), |_| {
                format!("kip {}\n", env!("CARGO_PKG_VERSION"))
            }),
        Command::Completion(options) => completion(options.shell, output),
        Command::Requests(options) => requests::run(&Client::find(connection)?, &options, output).await,
        Command::Why(options) => inspect::why(&Client::find(connection)?, &options, output).await,
        Command::Inspect(options) => inspect::inspect(&Client::find(connection)?, &options, output).await,
        Command::Invoke(options) => invoke::run(&Client::find(connection)?, &options, output).await,
        Command::Exec(options) => exec::run(&Client::find(connection)?, &options, output).await,
        Command::Run(options) => run::run(&Client::find(connection)?, &options, output).await,
        Command::Job(command) => jobs::run(&Client::find(connection)?, &command, output).await,
        Command::Task(command) => tasks::run(&Client::find(connection)?, &command, output).await,
        Command::Logs(options) => logs::run(&Client::find(connection)?, &options, output).await,
        Command::Rotate(options) => usage::rotate(&Client::find(connection)?, &options, output).await,
        Command::Cost(options) => cost::run(connection, &options, output).await,
        Command::Usage(options) => usage::usage(&Client::find(connection)?, &options, output).await,
        Command::Rm(options) => match &options.file.template {
            Some(file) => files::remove(&Client::find(connection)?, file, &options, output).await,
            None => stop::remove(&Client::find(connection)?, &options, output).await,
        },
        Command::Key(command) => key::run(&Client::find(connection)?, &command, output).await,
        Command::Layer(command) => layer::run(&Client::find(connection)?, &command, output).await,
        Command::Domain(command) => domain::run(&Client::find(connection)?, &command, output).await,
        Command::Secret(command) => secret::run(&Client::find(connection)?, &command, output).await,
        Command::Audit(options) => key::audit(&Client::find(connection)?, &options, output).await,
        Command::Stop => stop::stop(connection, output).await,
        Command::Backup(options) => backup::backup(connection, &options, output).await,
        Command::Restore(options) => backup::restore(connection, &options, output).await,
        Command::Service(command) => service::run(connection, &command, output),
        Command::Doctor => doctor::run(connection, output).await,
        Command::Config(command) => config::run(connection, &command, output),
        Command::Provision(command) => provision::run(&Client::find(connection)?, &command, output).await,
        Command::Advise(options) => provision::advise(&Client::find(connection)?, &options, output).await,
        Command::Scaler(Scaler::History(options)) => {
            scaler::history(&Client::find(connection)?, &options, output).await
        }
        Command::Scaler(Scaler::Record(options)) => scaler::record(&Client::find(connection)?, &options, output).await,
        Command::Scaler(Scaler::Recording { function }) => {
            scaler::recording(&Client::find(connection)?, &function, output).await
        }
        Command::Scaler(command) => scaler::run(&command, output),
        Command::Bench(options) => bench::run(&options, output).await,
        Command::Simulate(options) => simulate::run(connection, &options, output).await,
        Command::Schema => output.data((serde_json::to_string_pretty(&kip_manifest::schema())? + "\n").as_bytes()),
        Command::Pool(command) => pool::run(&Client::find(connection)?, &command, output).await,
        Command::Image(command) => image::run(&Client::find(connection)?, &command, output).await,
        Command::Model(command) => model::run(&Client::find(connection)?, &command, output).await,
        Command::Preset(command) => preset::run(&Client::find(connection)?, &command, output).await,
        Command::Fit => fit::run(&Client::find(connection)?, output).await,
        Command::Budget(command) => budget::run(&Client::find(connection)?, &command, output).await,
        Command::Quota(command) => quota::run(&Client::find(connection)?, &command, output).await,
        Command::Device(command) => device::run(connection, &command, output).await,
        // Run by `main` with runtimes of their own, or with none.
        Command::Up(_) | Command::Serve(_) | Command::GpuHelper | Command::GpuProbe { .. } => Ok(()),
        Command::TaskHolder { .. } | Command::JobRunner { .. } => Ok(()),
        #[cfg(feature = "infer")]
        Command::Infer(_) => Ok(()),
    }
}

/// The script by which a shell completes command lines.
fn completion(shell: clap_complete::Shell, output: Output) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::arguments::command(), "kip", &mut script);
    output.data(&script)
}
