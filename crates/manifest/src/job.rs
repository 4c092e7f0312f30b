//! One job: a program that runs to its end, as the function that it is made of.

use std::collections::BTreeSet;
use std::path::Path;

use kip_spec::function::{FunctionSpec, HttpAuth, HttpTrigger, Idle, Instances, Program, defaults};
use kip_spec::job::{ExitCodes, Job, MissedRuns, Overlap, Timer, times};
use kip_spec::scaling::zone;
use kip_spec::{FunctionName, Millis, code};

use crate::environment::Variables;
use crate::limits::MOST_INSTANCES;
use crate::report::{Report, shown};
use crate::section::{Field, Section};
use crate::tree::{Kind, Node, Position};
use crate::value::{count, duration, flag, refuse, word, wrong_type};
use crate::{environment, keys, limits, program};

/// Instances of a job end so soon after their work.
const IDLE: Idle = Idle { pause: None, stop: Some(Millis::from_secs(1)), ..defaults::IDLE };
/// A run may take at most this long, as a task may.
const LONGEST: Millis = Millis::from_secs(30 * 24 * 3_600);

/// Reads one job. `None` if anything in it is wrong, which is then in the report.
pub(crate) fn read(
    name: FunctionName,
    key_at: Position,
    node: &Node,
    directory: &Path,
    report: &mut Report<'_>,
) -> Option<FunctionSpec> {
    let before = report.count();
    let owner = format!("jobs.{name}");
    let own = Section::layer(node, &owner, report)?;
    let section = Section::open(vec![own], key_at, &keys::JOB, report);
    let program = program::of_job(&section, key_at, directory, report);
    let Variables { env, secrets } = environment::read(&section, report);
    let resources = limits::resources(&section, report);
    let (retries, exits) = retries(&section, report);
    let timeout = section.field("timeout").and_then(|field| run_time(&field, report)).unwrap_or(Job::TIMEOUT);
    let grace = section.field("grace").and_then(|field| duration(&field, true, report));
    let timer = timer(&section, report);
    let parallel = section.field("parallel").and_then(|field| count(&field, 1..=MOST_INSTANCES, report));
    let complete = report.count() == before;
    let overlaps = timer.as_ref().is_some_and(|timer| timer.overlap == Overlap::Allow);
    let usual = if overlaps && resources.gpu.is_none() { defaults::INSTANCES.max } else { 1 };
    let job = Job { retries, exits, timeout, timer, once: false };
    program.filter(|_| complete).map(|program| of(name, program, job, parallel.unwrap_or(usual))).map(|spec| {
        let timeouts = kip_spec::function::Timeouts { grace, ..spec.timeouts };
        FunctionSpec { env, secrets, resources, timeouts, ..spec }
    })
}

/// The function of a job, with all that no job may choose.
fn of(name: FunctionName, program: Program, job: Job, parallel: u32) -> FunctionSpec {
    let spec = FunctionSpec::new(name, program);
    let mut timeouts = spec.timeouts;
    // One that is replaced may finish what it does.
    timeouts.total = timeouts.total.max(job.timeout);
    FunctionSpec {
        instances: Instances { max: parallel, ..defaults::INSTANCES },
        idle: IDLE,
        timeouts,
        // Whoever reaches the gateway must not be able to run it.
        http: HttpTrigger {
            auth: HttpAuth::Key,
            methods: vec!["POST".to_owned()],
            exempt: Vec::new(),
            cors: None,
            open_tasks: false,
        },
        job: Some(job),
        ..spec
    }
}

fn run_time(field: &Field<'_>, report: &mut Report<'_>) -> Option<Millis> {
    let time = duration(field, false, report)?;
    if time < Millis::from_secs(1) || time > LONGEST {
        let message = format!("{time} is not from 1s to {LONGEST}");
        report.add(field.node.at, refuse(field, code::MANIFEST_BAD_VALUE, message));
        return None;
    }
    Some(time)
}

/// A number alone, or a map that says for which exit codes.
fn retries(job: &Section<'_>, report: &mut Report<'_>) -> (u32, ExitCodes) {
    let Some(field) = job.field("retries") else { return (0, ExitCodes::default()) };
    let most = |field: &Field<'_>, report: &mut Report<'_>| count(field, 0..=Job::MOST_RETRIES, report).unwrap_or(0);
    if !matches!(field.node.kind, Kind::Map(_)) {
        return (most(&field, report), ExitCodes::default());
    }
    let Some(section) = job.section("retries", &keys::RETRIES, report) else { return (0, ExitCodes::default()) };
    let only = section.field("only").and_then(|field| codes(&field, report));
    let never = section.field("never").and_then(|field| codes(&field, report)).unwrap_or_default();
    let Some(max) = section.field("max") else {
        let problem = refuse(&field, code::MANIFEST_MISSING_KEY, "`max` is missing");
        report.add(field.node.at, problem.hint("write how often it is run again: `max: 3`"));
        return (0, ExitCodes::default());
    };
    (most(&max, report), ExitCodes { only, never })
}

/// Exit codes that can be told apart: success needs no retry.
fn codes(field: &Field<'_>, report: &mut Report<'_>) -> Option<BTreeSet<u8>> {
    const WHAT: &str = "a list of exit codes from 1 to 255, such as [75, 137]";
    let Kind::List(items) = &field.node.kind else {
        wrong_type(field, WHAT, report);
        return None;
    };
    let mut codes = BTreeSet::new();
    for item in items {
        let code = match &item.kind {
            Kind::Number(text) => text.parse::<u8>().ok().filter(|code| *code > 0),
            _ => None,
        };
        match code {
            Some(code) => drop(codes.insert(code)),
            None => {
                let message = format!("`{}` is not an exit code", shown(item.scalar().unwrap_or("a map or list")));
                let hint = "codes are 1 to 255; a program that a signal ended has 128 and the signal's number";
                report.add(item.at, refuse(field, code::MANIFEST_BAD_VALUE, message).hint(hint));
            }
        }
    }
    Some(codes)
}

/// A crontab's line alone, or a map with what it needs.
fn timer(job: &Section<'_>, report: &mut Report<'_>) -> Option<Timer> {
    let field = job.field("schedule")?;
    if matches!(field.node.kind, Kind::Text(_)) {
        let zone = String::new();
        return cron(&field, report).map(|cron| Timer {
            cron,
            zone,
            overlap: Overlap::default(),
            missed: MissedRuns::default(),
            deadline: None,
            paused: false,
        });
    }
    if !matches!(field.node.kind, Kind::Map(_)) {
        wrong_type(&field, "a line of a crontab such as \"30 3 * * *\", or a map with `cron`", report);
        return None;
    }
    let section = job.section("schedule", &keys::SCHEDULE, report)?;
    let overlap = section.field("overlap").and_then(|field| word(&field, &Overlap::ALL, &[], report));
    let missed = section.field("missed").and_then(|field| word(&field, &MissedRuns::ALL, &[], report));
    let deadline = section.field("deadline").and_then(|field| run_time(&field, report));
    let paused = section.field("paused").is_some_and(|field| flag(&field, report));
    let zone = section.field("zone").and_then(|field| zone_name(&field, report)).unwrap_or_default();
    let Some(times) = section.field("cron") else {
        let problem = refuse(&field, code::MANIFEST_MISSING_KEY, "`cron` is missing");
        report.add(field.node.at, problem.hint("write when it runs: `cron: \"30 3 * * *\"`"));
        return None;
    };
    Some(Timer {
        cron: cron(&times, report)?,
        zone,
        overlap: overlap.unwrap_or_default(),
        missed: missed.unwrap_or_default(),
        deadline,
        paused,
    })
}

fn cron(field: &Field<'_>, report: &mut Report<'_>) -> Option<kip_spec::scaling::Cron> {
    let Kind::Text(text) = &field.node.kind else {
        wrong_type(field, "a line of a crontab such as \"30 3 * * *\"", report);
        return None;
    };
    let hint = "five fields, minute hour day-of-month month day-of-week; a sixth before them is the second; or @daily";
    let refused = |error: String| refuse(field, code::MANIFEST_BAD_VALUE, error).hint(hint);
    times(text).map_err(|error| report.add(field.node.at, refused(error.to_string()))).ok()
}

fn zone_name(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    let known = field.node.scalar().filter(|name| zone::find(name).is_some());
    if known.is_none() {
        let message = format!("`{}` is no time zone", shown(field.node.scalar().unwrap_or_default()));
        let problem = refuse(field, code::MANIFEST_BAD_VALUE, message);
        report.add(
            field.node.at,
            problem.hint("write a name such as Europe/Berlin or Asia/Shanghai, or leave it out: UTC"),
        );
    }
    known.map(str::to_owned)
}
