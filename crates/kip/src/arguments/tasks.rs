//! The command line of tasks.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kip_spec::Millis;

/// What is run to its end.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The job's name; otherwise `run-`, the program's name and six hexadecimal digits.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Memory of a device, such as 20GiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) gpu: Option<kip_spec::Bytes>,
    /// Memory of the host, such as 4GiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<kip_spec::Bytes>,
    /// Cores, such as 2 or 500m.
    #[arg(long)]
    pub(crate) cpu: Option<String>,
    /// A variable for it: NAME=VALUE, or NAME for the value that it has here; may be repeated.
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// A file of variables, NAME=VALUE a line; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<String>,
    /// How often it is run again if it fails, 0 to 8.
    #[arg(long, default_value_t = 0)]
    pub(crate) retries: u32,
    /// Run it again only after these exit codes, such as 75,137; a signal is 128 and its number.
    #[arg(long, value_name = "CODES", value_delimiter = ',', requires = "retries")]
    pub(crate) retry_only: Vec<u8>,
    /// Never run it again after these.
    #[arg(long, value_name = "CODES", value_delimiter = ',', requires = "retries")]
    pub(crate) retry_never: Vec<u8>,
    /// How long a run may take, such as 12h; a day otherwise.
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<Millis>,
    /// The time from the stop signal to SIGKILL, such as 2m; 10s otherwise.
    #[arg(long, value_name = "DURATION")]
    pub(crate) grace: Option<Millis>,
    /// Do not wait for its end.
    #[arg(long)]
    pub(crate) detach: bool,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<String>,
}

/// What runs to its end, by a timer or when it is told to.
#[derive(Debug, Subcommand)]
pub(crate) enum Jobs {
    /// List jobs with their next and last runs.
    #[command(alias = "list")]
    Ls,
    /// Show a job with its latest runs.
    Show(Job),
    /// Run a job now, whatever its schedule says.
    Run {
        #[command(flatten)]
        job: Job,
        /// Do not wait for its end.
        #[arg(long)]
        detach: bool,
    },
    /// Pause a job's schedule; runs under way go on.
    Pause(Job),
    /// Resume a job's schedule with the next time that comes.
    Resume(Job),
}

#[derive(Debug, Args)]
pub(crate) struct Job {
    /// The job.
    pub(crate) name: String,
}

/// What an asynchronous invocation may say.
#[derive(Debug, Clone, Args)]
pub(crate) struct AsyncArguments {
    /// Do not wait for the answer: the call is stored and run, and its task can be asked for.
    #[arg(long = "async")]
    pub(crate) later: bool,
    /// An id for the task, taken once for each function.
    #[arg(long, value_name = "ID", requires = "later")]
    pub(crate) task_id: Option<String>,
    /// A key by which a repetition of the same call is known.
    #[arg(long, value_name = "KEY", requires = "later")]
    pub(crate) idempotency_key: Option<String>,
    /// Not before this time has passed, such as 10m.
    #[arg(long, value_name = "DURATION", requires = "later")]
    pub(crate) delay: Option<Millis>,
    /// Who goes first: 0 to 9, lower ones do.
    #[arg(long, requires = "later")]
    pub(crate) priority: Option<u8>,
    /// Tasks of a function with the same key run one after another.
    #[arg(long, value_name = "KEY", requires = "later")]
    pub(crate) order: Option<String>,
    /// How long it may wait to be run, such as 2h.
    #[arg(long, value_name = "DURATION", requires = "later")]
    pub(crate) max_age: Option<Millis>,
    /// How often it is run again after an error of the function, 0 to 8.
    #[arg(long, requires = "later")]
    pub(crate) retries: Option<u32>,
    /// It is a stateful task: its run outlives the server.
    #[arg(long, requires = "later")]
    pub(crate) stateful: bool,
    /// Wait for the end of the task and print what the function answered.
    #[arg(long, requires = "later")]
    pub(crate) wait: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tasks {
    /// Count tasks by function and state.
    Stat,
    /// List tasks, newest first.
    #[command(alias = "list")]
    Ls(List),
    /// Show a task with its steps.
    Show(TaskArgument),
    /// Print the payload of a task.
    Payload(TaskArgument),
    /// Print the answer of the function.
    Result(TaskArgument),
    /// Follow a task's steps until it is over.
    Watch(TaskArgument),
    /// Stop a task, or all that match.
    Stop(TaskFilterArguments),
    /// Run a task again that failed, expired or was stopped, or all that match.
    Retry(TaskFilterArguments),
    /// Remove a task that is over, or all that match.
    #[command(name = "rm", alias = "purge")]
    Purge(TaskFilterArguments),
    /// Show or change the settings of a function's tasks.
    #[command(subcommand)]
    Config(Config),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only this function's.
    pub(crate) function: Option<String>,
    #[command(flatten)]
    pub(crate) which: TaskSelector,
    /// How many, 1 to 1000.
    #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) limit: u32,
    /// The oldest first.
    #[arg(long)]
    pub(crate) oldest: bool,
    /// Go on behind the list that ended with this.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) next: Option<String>,
}

/// Which tasks.
#[derive(Debug, Clone, Args)]
pub(crate) struct TaskSelector {
    /// In this state, such as Enqueued or Failed; several by commas.
    #[arg(long, value_name = "STATE")]
    pub(crate) status: Option<String>,
    /// Whose ids begin so.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prefix: Option<String>,
    /// Of this tenant.
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// Of this kind: invocation, task or job.
    #[arg(long)]
    pub(crate) kind: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TaskArgument {
    /// The function.
    pub(crate) function: String,
    /// The task's id.
    pub(crate) id: String,
    /// The task's tenant, where several tenants have a task of this id.
    #[arg(long)]
    pub(crate) tenant: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TaskFilterArguments {
    /// The function; none with --all is every function.
    pub(crate) function: Option<String>,
    /// The task's id.
    #[arg(conflicts_with = "all")]
    pub(crate) id: Option<String>,
    /// All that fit, after saying how many that are.
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) which: TaskSelector,
    /// Do it to all of them; without this, they are only counted.
    #[arg(long, requires = "all")]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show what is kept for a function.
    Show(ConfigArguments),
    /// Keep this for tasks that come in from now on; what is left out gets its default.
    Set(Set),
    /// Take it away: then the defaults hold.
    Rm(ConfigArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArguments {
    /// The function.
    pub(crate) function: String,
    /// A version or alias of it.
    #[arg(long, default_value = "LATEST")]
    pub(crate) qualifier: String,
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    #[command(flatten)]
    pub(crate) of: ConfigArguments,
    /// Tasks are stateful.
    #[arg(long)]
    pub(crate) stateful: bool,
    /// How often one is run again after an error of the function, 0 to 8.
    #[arg(long)]
    pub(crate) retries: Option<u32>,
    /// How long one may wait to be run, such as 2h.
    #[arg(long, value_name = "DURATION")]
    pub(crate) max_age: Option<Millis>,
    /// How long a run may take, such as 24h.
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<Millis>,
    /// Who is told of success: function:NAME, http://HOST:PORT/PATH, file:/FOLDER, or none.
    #[arg(long, value_name = "DESTINATION")]
    pub(crate) on_success: Option<String>,
    /// Who is told of failure.
    #[arg(long, value_name = "DESTINATION")]
    pub(crate) on_failure: Option<String>,
    /// A file with what the signatures of webhooks are made with.
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
}
