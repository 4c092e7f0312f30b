//! What a command shows while it waits, and what it says when Ctrl-C ends the wait.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kip_host::clock::boot_millis;
use kip_spec::people;

use crate::output::Output;
use crate::problem::Exit;

/// Nothing is shown of a wait that is over so soon.
const QUIET: u64 = 1_000;
/// Without a terminal, a line comes so often at most.
const LINES_APART: u64 = 10_000;

/// A line of progress: redrawn on a terminal, else a line of standard error now and then.
#[derive(Debug)]
pub(crate) struct Progress {
    output: Output,
    begun: u64,
    bar: Option<ProgressBar>,
    last: Option<(u64, String)>,
}

impl Progress {
    pub(crate) fn new(output: Output) -> Self {
        Self { output, begun: boot_millis(), bar: None, last: None }
    }

    /// Says what is waited for.
    pub(crate) fn say(&mut self, what: &str) {
        let now = boot_millis();
        let waited = now.saturating_sub(self.begun);
        if waited < QUIET || self.output.is_json() {
            return;
        }
        if self.output.shows_progress() {
            let bar = self.bar.get_or_insert_with(spinner);
            bar.set_message(format!("{what} ({})", people::duration(waited)));
            return;
        }
        let again = self.last.as_ref().is_none_or(|(at, said)| *said != what || now >= at + LINES_APART);
        let soon = self.last.as_ref().is_some_and(|(at, _)| now < at + QUIET);
        if again && !soon {
            self.output.remark(&format!("{what} ({})", people::duration(waited)));
            self.last = Some((now, what.to_owned()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Waits for the work, or for Ctrl-C: then `goes_on` says what is not ended by it.
pub(crate) async fn interruptible<T>(
    output: Output,
    goes_on: impl FnOnce() -> String,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        Ok(()) = tokio::signal::ctrl_c() => {
            output.remark(&format!("interrupted: {}", goes_on()));
            Err(Exit::INTERRUPTED.into())
        }
    }
}
