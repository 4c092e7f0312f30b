//! The command line.

mod bench;
pub(crate) mod cost;
mod devices;
mod exec;
mod files;
mod fun;
mod help;
mod image;
mod keys;
mod layers;
mod logs;
pub(crate) mod models;
mod pool;
mod provision;
mod rollout;
mod scaler;
mod simulate;
pub(crate) mod tasks;
mod versions;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::bench::{Bench, Load, Phase};
pub(crate) use self::devices::{Device, Qualify, QuotaCommand, QuotaName};
pub(crate) use self::exec::Exec;
pub(crate) use self::files::{ConfirmArguments, FileArguments, Import, Info, Remove};
pub(crate) use self::fun::{Dependencies, Local, MountMap, Nas, ProjectArgument, RoleMap};
pub(crate) use self::help::{command, parse};
pub(crate) use self::image::{Image, ImageArgument};
pub(crate) use self::keys::{Audit, Key, Secret, Settings};
pub(crate) use self::layers::{Domain, Layer};
pub(crate) use self::logs::{Logs, Requests};
pub(crate) use self::pool::PoolCommand;
pub(crate) use self::provision::{Advise, FunctionArgument, Provision, ProvisionPut, json_or_file};
pub(crate) use self::rollout::{Rollout, RolloutOf, RolloutStart};
pub(crate) use self::scaler::{History, Lines, RecordArguments, Scaler};
pub(crate) use self::simulate::Simulate;
pub(crate) use self::versions::{Alias, AliasPut, VersionArguments, Versions};

/// Function compute for AI models on your own machines.
#[derive(Debug, Parser)]
#[command(
    name = "kip",
    version,
    about,
    disable_help_subcommand = true,
    propagate_version = true,
    subcommand_required = true
)]
pub(crate) struct Arguments {
    /// How to print what was asked for.
    #[arg(short = 'o', long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
    /// Show times in UTC instead of the local time zone.
    #[arg(long, global = true)]
    pub(crate) utc: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs: one JSON value, or one a line where results keep coming.
    Json,
}

/// How a server is found.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connection {
    /// The API's address: of the server to talk to, http://127.0.0.1:5471, or to listen on, 127.0.0.1:0.
    #[arg(long, global = true, env = kip_host::environment::API, value_name = "URL")]
    pub(crate) api: Option<String>,
    /// The bearer key.
    #[arg(long, global = true, env = kip_host::environment::KEY, hide_env_values = true, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// The data directory, where a server keeps its state and a client finds address and key.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a server if none runs, deploy a folder or a model, and show that it works.
    Up(Up),
    /// Deploy the functions of a folder, a kip.yaml, an s.yaml, a template.yml or a service.yaml of Knative.
    Deploy(Deploy),
    /// Show what a deployment would change, and change nothing.
    Plan(Plan),
    /// Return to the version that served before, or an alias to where it pointed before.
    Rollback(RollbackArguments),
    /// Call a function through the gateway.
    Invoke(Invoke),
    /// Run a program in an instance: a shell, for example. Exits as the program does.
    Exec(Exec),
    /// Run a program to its end as a one-off job; its output and exit code are those of this command.
    Run(tasks::Run),
    /// List functions and jobs.
    #[command(alias = "list")]
    Ls,
    /// List instances.
    Ps(Ps),
    /// Show load, CPU and memory of functions and instances, refreshed until Ctrl-C.
    Top(Top),
    /// Show a function or an instance.
    #[command(alias = "show")]
    Inspect(Inspect),
    /// Show the output of a function's instances.
    #[command(alias = "log")]
    Logs(Logs),
    /// List requests with their phases.
    #[command(alias = "request", disable_version_flag = true)]
    Requests(Requests),
    /// Explain the number and the states of a function's instances.
    Why(WhyArguments),
    /// Replace a function's instances; each successor starts first.
    Rotate(Names),
    /// Show the time that a function's instances spent, by version and state.
    #[command(disable_version_flag = true)]
    Usage(Usage),
    /// Show what functions cost, and plan what to reserve.
    Cost(cost::Costs),
    /// Show what the server has of the functions of an s.yaml or a template.yml.
    Info(Info),
    /// Write an s.yaml or a template.yml as a kip.yaml.
    Import(Import),
    /// Carry out a line of the tool `s`: kip s deploy -t s.yaml.
    #[command(disable_help_flag = true)]
    S {
        /// The line, as `s` takes it.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        line: Vec<String>,
    },
    /// Carry out a line of the tool `fun`: kip fun deploy classify.
    #[command(disable_help_flag = true)]
    Fun {
        /// The line, as `fun` takes it.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        line: Vec<String>,
    },
    /// Install the dependencies of a project: a Funfile, requirements.txt or package.json.
    Install(Dependencies),
    /// Run functions of a project in the foreground, or call one once.
    #[command(subcommand)]
    Local(Local),
    /// Manage the shares that functions mount: NAS paths and buckets.
    #[command(subcommand)]
    Nas(Nas),
    /// Remove functions.
    #[command(alias = "remove")]
    Rm(Remove),
    /// Manage tasks: asynchronous invocations.
    #[command(subcommand, alias = "tasks")]
    Task(tasks::Tasks),
    /// Manage jobs: programs that run to their end, by a schedule or on demand.
    #[command(subcommand, alias = "jobs")]
    Job(tasks::Jobs),
    /// Manage provisioned instances: targets, policies and schedules.
    #[command(subcommand, alias = "provisions")]
    Provision(Provision),
    /// Compare a function's settings with measured figures.
    Advise(Advise),
    /// Try scaling policies without running anything.
    #[command(subcommand, alias = "scalers")]
    Scaler(Scaler),
    /// Load a URL in phases, and show rates, latencies and starts.
    Bench(Bench),
    /// Replay a trace of requests under several scaling policies: cost and waits.
    Simulate(Simulate),
    /// Start a server in the background, without a deployment.
    Start(Start),
    /// Run the server in the foreground.
    Serve(Serve),
    /// Stop the server and everything it runs.
    Stop,
    /// Check this host and the server. Exits with 1 if something is wrong.
    Doctor,
    /// Manage keys of callers and operators.
    #[command(subcommand, alias = "keys")]
    Key(Key),
    /// Layers: folders that several functions share.
    #[command(subcommand)]
    Layer(Layer),
    /// Custom domains: host names whose paths lead to functions.
    #[command(subcommand)]
    Domain(Domain),
    /// Manage secrets: values that instances get in their environment.
    #[command(subcommand, alias = "secrets")]
    Secret(Secret),
    /// List changes that were made through the API, and by which key.
    Audit(Audit),
    /// List devices, and qualify them for freezing.
    #[command(subcommand, alias = "devices")]
    Device(Device),
    /// Show which functions fit on the devices, and how long the others take to be back.
    Fit,
    /// Set, list and remove budgets of functions and keys.
    #[command(subcommand, alias = "budgets")]
    Budget(cost::BudgetCommand),
    /// Show and change what all functions together may take.
    #[command(subcommand)]
    Quota(QuotaCommand),
    /// Show the pools: where instances can be.
    #[command(subcommand, alias = "pools")]
    Pool(PoolCommand),
    /// List, pull and remove images of the container engine.
    #[command(subcommand, alias = "images")]
    Image(Image),
    /// Pull, list, check and remove models of the server's cache.
    #[command(subcommand, alias = "models")]
    Model(models::Model),
    /// List and try presets: the engines that serve models.
    #[command(subcommand, alias = "presets")]
    Preset(models::Preset),
    /// Write functions, keys and records into one file.
    Backup(Backup),
    /// Replace the functions by those of a backup.
    Restore(Restore),
    /// Run the server as a systemd service.
    #[command(subcommand, alias = "services")]
    Service(Service),
    /// Show the server's settings and their origins.
    #[command(subcommand, alias = "configs")]
    Config(Config),
    /// Print the JSON schema of kip.yaml.
    Schema,
    /// Print the completion script of a shell.
    Completion(Completion),
    /// Manage the versions of functions; alone, print the program's own version.
    #[command(alias = "versions", args_conflicts_with_subcommands = true)]
    Version(VersionArguments),
    /// Manage aliases: names for versions, with shares of the requests.
    #[command(subcommand, alias = "aliases")]
    Alias(Alias),
    /// Move an alias to another version in steps, and back if that one is worse.
    #[command(subcommand, alias = "rollouts")]
    Rollout(Rollout),
    /// Talk to the GPU driver for a server, over standard input.
    #[command(hide = true)]
    GpuHelper,
    /// Run a program for each request (what an instance of a job runs).
    #[command(hide = true)]
    JobRunner {
        /// Run the container that the environment describes in place of a program.
        #[arg(long)]
        image: bool,
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<String>,
    },
    /// Hold the exchange of one run of a task, so that it outlives the server.
    #[command(hide = true)]
    TaskHolder {
        /// What it is to do, and where it leaves what came of it.
        folder: PathBuf,
    },
    /// Hold memory of a GPU, to be frozen and woken.
    #[command(hide = true)]
    GpuProbe {
        /// How much.
        bytes: u64,
    },
    /// Serve one ONNX model (what `model:` in kip.yaml runs).
    #[cfg(feature = "infer")]
    Infer(Infer),
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// The folder with a kip.yaml, or the file; or a model: hf:org/model@revision, modelscope:owner/model, an http address, an .onnx or
    /// .gguf file, a folder with a model or an app.
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) model: models::UpModel,
    /// Run the server in this process instead of in the background.
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Do it all on a private data directory and free ports, assert that it works, clean up.
    #[arg(long, conflicts_with = "foreground")]
    pub(crate) check: bool,
    /// End when everything was shown, instead of following what happens.
    #[arg(long)]
    pub(crate) no_follow: bool,
    /// Deploy again when a file of the manifest's folder or of a function's folder changes, until Ctrl-C.
    #[arg(long, conflicts_with_all = ["check", "foreground", "no_follow", "image", "program"])]
    pub(crate) watch: bool,
    /// Where a server that is started takes inference requests; port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    pub(crate) gateway: Option<SocketAddr>,
    /// A container image in place of a folder.
    #[arg(long, conflicts_with_all = ["path", "check"])]
    pub(crate) image: Option<String>,
    /// The port on which the program in the image listens; the one that the image exposes if left out, else 8080.
    #[arg(long, requires = "image")]
    pub(crate) port: Option<u16>,
    /// A variable of the program or the image: NAME=VALUE, or NAME for its value here.
    #[arg(short = 'e', long = "env", value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// A program with a web server in place of a folder, or the arguments of the image; '${PORT}' in quotes is its port.
    #[arg(last = true, value_name = "PROGRAM", conflicts_with_all = ["path", "check"])]
    pub(crate) program: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// The folder with a kip.yaml, an s.yaml or a template.yml, or the file.
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    /// The file, such as a service.yaml with Services of Knative.
    #[arg(short = 'f', long, conflicts_with_all = ["path", "template"])]
    pub(crate) filename: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) file: FileArguments,
    #[command(flatten)]
    pub(crate) confirm: ConfirmArguments,
    /// Only these functions of it.
    #[arg(long = "only", value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Start an instance of each function and wait until it is ready. Without this, only a new version of a function that runs and
    /// kept instances (`instances.min`) are waited for.
    #[arg(long, conflicts_with = "no_wait")]
    pub(crate) wait: bool,
    /// Wait for nothing.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// The new revisions do not serve: requests go where they went. Each is called as NAME@rN.
    #[arg(long, conflicts_with = "wait")]
    pub(crate) no_traffic: bool,
    /// Publish each new revision once it serves.
    #[arg(long)]
    pub(crate) publish: bool,
    /// The note of the versions and aliases.
    #[arg(short = 'm', long, value_name = "TEXT", default_value = "")]
    pub(crate) message: String,
    /// Point this alias of each function at its new revision once it serves.
    #[arg(long, value_name = "NAME")]
    pub(crate) alias: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The folder with a kip.yaml, an s.yaml or a template.yml, or the file.
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    /// The file, such as a service.yaml with Services of Knative.
    #[arg(short = 'f', long, conflicts_with_all = ["path", "template"])]
    pub(crate) filename: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) file: FileArguments,
    /// Only these functions of it.
    #[arg(long = "only", value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// For a deployment with --no-traffic.
    #[arg(long)]
    pub(crate) no_traffic: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArguments {
    /// The function.
    pub(crate) function: String,
    /// An alias, which then points where it pointed before; the version that serves otherwise.
    pub(crate) alias: Option<String>,
    /// Do not wait until an instance of it is ready.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Only instances of this function, or of one of its versions or aliases: ocr, ocr@3, ocr@prod.
    pub(crate) function: Option<String>,
    /// Show the list again whenever so much time has passed, until Ctrl-C.
    #[arg(short = 'w', long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "2s", require_equals = true)]
    pub(crate) watch: Option<kip_spec::Millis>,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// The time between two refreshes.
    #[arg(short = 'i', long, value_name = "DURATION", default_value = "2s")]
    pub(crate) interval: kip_spec::Millis,
    /// Print one table and end.
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Where the gateway listens; port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    pub(crate) gateway: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A function's name or an instance's id.
    pub(crate) what: String,
}

#[derive(Debug, Args)]
pub(crate) struct Invoke {
    /// The function, or one of its versions or aliases: ocr, ocr@3, ocr@prod.
    pub(crate) function: String,
    /// Path and query.
    #[arg(default_value = "/")]
    pub(crate) path: String,
    /// The method; POST if there is a body, else GET.
    #[arg(short = 'X', long)]
    pub(crate) method: Option<String>,
    /// The body; @FILE reads it from a file, @- from standard input.
    #[arg(short = 'd', long, conflicts_with = "file")]
    pub(crate) data: Option<String>,
    /// The body from a file; - is standard input.
    #[arg(short = 'f', long)]
    pub(crate) file: Option<PathBuf>,
    /// A header, `Name: value`; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,
    /// Exit with 4 if the function answers 400 to 499, and with 5 from 500 on.
    #[arg(long)]
    pub(crate) fail: bool,
    #[command(flatten)]
    pub(crate) later: tasks::AsyncArguments,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file to write.
    pub(crate) file: PathBuf,
    /// Overwrite a file of this name.
    #[arg(long)]
    pub(crate) force: bool,
    /// Leave out the code of versions, which can be large.
    #[arg(long)]
    pub(crate) no_code: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The file to read.
    pub(crate) file: PathBuf,
    /// Take the backup of another server.
    #[arg(long)]
    pub(crate) force: bool,
    /// Put the records of requests and decisions back too.
    #[arg(long)]
    pub(crate) records: bool,
    /// Put tasks back too, in the place of those there are; only while no server runs.
    #[arg(long)]
    pub(crate) tasks: bool,
    /// Add the keys of the backup that this server does not have, without asking.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Leave out the keys of the backup that this server does not have.
    #[arg(long, conflicts_with = "yes")]
    pub(crate) without_keys: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    /// Write a systemd unit and slice, and start the server by them.
    Install(Install),
    /// Stop the server, end everything it runs, and remove the unit and slice.
    Uninstall {
        /// The user's own service manager instead of the system's.
        #[arg(long)]
        user: bool,
    },
    /// Say what is installed and what runs.
    Status {
        /// The user's own service manager instead of the system's.
        #[arg(long)]
        user: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Install {
    /// The user's own service manager instead of the system's.
    #[arg(long)]
    pub(crate) user: bool,
    /// Print what would be written, and write nothing.
    #[arg(long)]
    pub(crate) print: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArguments {
    /// The function.
    pub(crate) function: String,
    /// How many decisions.
    #[arg(short = 'n', long, default_value_t = 20)]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// The function.
    pub(crate) function: String,
}

#[derive(Debug, Args)]
pub(crate) struct Names {
    /// The functions.
    #[arg(required = true)]
    pub(crate) functions: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where inference requests come in; port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    pub(crate) gateway: Option<SocketAddr>,
    /// The settings file, instead of kipwake.toml in the data directory.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print every setting, its value and where that comes from.
    Show,
    /// Print the JSON schema of kipwake.toml.
    Schema,
}

#[cfg(feature = "infer")]
#[derive(Debug, Args)]
pub(crate) struct Infer {
    /// The .onnx file, or the folder that holds model.onnx.
    #[arg(long)]
    pub(crate) model: PathBuf,
    /// The name it is served under; the folder's or file's name otherwise.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The port on loopback.
    #[arg(long, default_value_t = 9000)]
    pub(crate) port: u16,
    /// Inputs run together at most.
    #[arg(long)]
    pub(crate) max_batch: Option<std::num::NonZeroUsize>,
    /// How long an input may wait for company, such as 2ms.
    #[arg(long)]
    pub(crate) max_delay: Option<kip_spec::Millis>,
    /// Threads that compute; as many as there are cores otherwise, 8 at most.
    #[arg(long)]
    pub(crate) threads: Option<std::num::NonZeroUsize>,
    /// What computes: auto, tract or onnxruntime.
    #[arg(long, default_value = "auto")]
    pub(crate) runtime: kip_infer::Runtime,
    /// The ONNX Runtime library; otherwise the one of KIPWAKE_ONNXRUNTIME, or one in the usual folders.
    #[arg(long, value_name = "FILE")]
    pub(crate) onnxruntime_library: Option<PathBuf>,
    /// The largest request body, such as 64MiB.
    #[arg(long)]
    pub(crate) max_body: Option<kip_spec::Bytes>,
}
