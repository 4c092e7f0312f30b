//! The one binary: server, client and model server. See `kip --help`.

mod arguments;
mod body;
mod client;
mod commands;
mod config;
mod devices;
mod disk;
mod found_devices;
mod listeners;
mod output;
mod problem;
mod progress;
mod serve;
mod start;
mod unsafe_allocator;
mod up;

use std::process::ExitCode;

use crate::arguments::Command;
use crate::output::Output;

/// Exit codes: 0 done, 1 failed with a problem, 2 the command line was not understood (by clap); others by [`problem::Exit`].
fn main() -> ExitCode {
    let arguments = arguments::parse();
    let output = Output::new(arguments.output);
    output::set_utc(arguments.utc);
    let done = match arguments.command {
        // These build their own runtimes.
        #[cfg(feature = "infer")]
        Command::Infer(options) => commands::infer::run(options),
        Command::JobRunner { image, ref program } => commands::job_runner::serve(image, program),
        Command::TaskHolder { ref folder } => kip_tasks::holder::serve(folder).map_err(Into::into),
        Command::GpuHelper => kip_freezer::helper::serve().map_err(Into::into),
        Command::GpuProbe { bytes } => kip_freezer::probe::serve(bytes).map_err(Into::into),
        Command::Up(ref options) => up::run(&arguments.connection, options, output),
        Command::Serve(ref options) => serve::run(&arguments.connection, options, output),
        command => {
            client_runtime().and_then(|runtime| runtime.block_on(commands::run(&arguments.connection, command, output)))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            problem::show(&error, output);
            problem::exit_code(&error)
        }
    }
}

fn client_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
