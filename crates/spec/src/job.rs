//! A job as declared: a program that runs to its end, when somebody says so or by a timer.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::Millis;
use crate::scaling::cron::{Cron, CronError};

/// What makes a function a job: its instances run the program once for each of its tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Runs that may fail and be followed by another.
    pub retries: u32,
    /// Which exit codes are worth another run.
    #[serde(default)]
    pub exits: ExitCodes,
    /// How long one run may take.
    pub timeout: Millis,
    /// When it runs by itself; `None` is never.
    #[serde(default)]
    pub timer: Option<Timer>,
}

impl Job {
    /// How long a run may take where nothing is said.
    pub const TIMEOUT: Millis = Millis::from_secs(24 * 3_600);
    /// The most retries.
    pub const MOST_RETRIES: u32 = 8;
}

impl Default for Job {
    fn default() -> Self {
        Self { retries: 0, exits: ExitCodes::default(), timeout: Self::TIMEOUT, timer: None }
    }
}

/// Exit codes that are worth another run. A program that a signal ended has the code 128 and the signal's number, as in shells;
/// one that cannot be started has 126 or 127.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExitCodes {
    /// Only these; `None` is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<BTreeSet<u8>>,
    /// These never, whatever else is said.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub never: BTreeSet<u8>,
}

impl ExitCodes {
    /// Whether a run that ended with this code may be followed by another.
    pub fn retries(&self, code: u8) -> bool {
        !self.never.contains(&code) && self.only.as_ref().is_none_or(|only| only.contains(&code))
    }
}

/// When a job runs by itself, and what becomes of a run that meets another or comes too late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// The times.
    pub cron: Cron,
    /// The time zone in which they are meant, by its name.
    pub zone: String,
    /// What becomes of one that meets a run that is not over.
    #[serde(default)]
    pub overlap: Overlap,
    /// What becomes of those that came while no server ran.
    #[serde(default)]
    pub missed: MissedRuns,
    /// A run that could not begin so long after its time does not begin at all.
    #[serde(default)]
    pub deadline: Option<Millis>,
    /// It does not run by itself for now.
    #[serde(default)]
    pub paused: bool,
}

/// What becomes of a run whose time comes while another of the job is not over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is left out.
    #[default]
    Forbid,
    /// It waits for the end of the other.
    Queue,
    /// The other is stopped.
    Replace,
    /// Both run.
    Allow,
}

impl Overlap {
    /// All, by their words.
    pub const ALL: [(&'static str, Self); 4] =
        [("forbid", Self::Forbid), ("queue", Self::Queue), ("replace", Self::Replace), ("allow", Self::Allow)];

    /// Its word.
    pub fn name(self) -> &'static str {
        name_of(&Self::ALL, self)
    }
}

/// What becomes of runs whose time came while no server ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissedRuns {
    /// They are left out.
    Skip,
    /// The last of them is run.
    #[default]
    Once,
    /// Each is run, up to a hundred.
    Each,
}

impl MissedRuns {
    /// All, by their words.
    pub const ALL: [(&'static str, Self); 3] = [("skip", Self::Skip), ("once", Self::Once), ("each", Self::Each)];

    /// Its word.
    pub fn name(self) -> &'static str {
        name_of(&Self::ALL, self)
    }
}

fn name_of<T: PartialEq>(all: &[(&'static str, T)], one: T) -> &'static str {
    all.iter().find(|(_, value)| *value == one).map_or("", |(name, _)| name)
}

/// The times of a crontab's line: five fields as everybody writes them, six with the second first, or `@daily` and its like.
///
/// # Errors
/// What is wrong with it.
pub fn times(text: &str) -> Result<Cron, CronError> {
    let text = text.trim();
    let long = match text {
        "@hourly" => "0 0 * * * *",
        "@daily" | "@midnight" => "0 0 0 * * *",
        "@weekly" => "0 0 0 * * 0",
        "@monthly" => "0 0 0 1 * *",
        "@yearly" | "@annually" => "0 0 0 1 1 *",
        other if other.split_ascii_whitespace().count() == 5 => return format!("0 {other}").parse(),
        other => other,
    };
    long.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        let set = |codes: &[u8]| codes.iter().copied().collect::<BTreeSet<u8>>();
        assert!(ExitCodes::default().retries(1));
        let only = ExitCodes { only: Some(set(&[75, 137])), never: BTreeSet::new() };
        assert!(only.retries(75) && only.retries(137) && !only.retries(1));
        let never = ExitCodes { only: None, never: set(&[2]) };
        assert!(!never.retries(2) && never.retries(3));
        let both = ExitCodes { only: Some(set(&[2])), never: set(&[2]) };
        assert!(!both.retries(2));
    }

    #[test]
    fn times_are_written_in_five_fields_or_six() {
        for (text, long) in [
            ("30 3 * * 1-5", "0 30 3 * * 1-5"),
            ("15 30 3 * * *", "15 30 3 * * *"),
            (" @daily ", "0 0 0 * * *"),
            ("@weekly", "0 0 0 * * 0"),
        ] {
            assert_eq!(times(text).expect(text).to_string(), long);
        }
        for bad in ["", "3", "* * * *", "60 * * * *", "@often", "0 0 30 2 *"] {
            assert!(times(bad).is_err(), "{bad}");
        }
    }
}
