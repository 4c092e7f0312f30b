//! Probes: how readiness and life are found out, when, and how many answers count.

use kip_spec::code;
use kip_spec::function::{LiveProbe, ReadyProbe};
use kip_spec::probe::{ProbeTiming, ProbeTimings};

use crate::keys;
use crate::report::Report;
use crate::section::{Field, Section};
use crate::tree::Kind;
use crate::value::{count, duration, flag, path, refuse, wrong_type};

pub(crate) fn read(function: &Section<'_>, report: &mut Report<'_>) -> (ReadyProbe, Option<LiveProbe>, ProbeTimings) {
    let Some(section) = function.section("probes", &keys::PROBES, report) else {
        return (ReadyProbe::Tcp, None, ProbeTimings::default());
    };
    let (ready, ready_timing) = ready(&section, report);
    let (live, live_timing) = live(&section, report);
    (ready, live, ProbeTimings { ready: ready_timing, live: live_timing })
}

fn ready(section: &Section<'_>, report: &mut Report<'_>) -> (ReadyProbe, ProbeTiming) {
    let usual = (ReadyProbe::Tcp, ProbeTiming::default());
    let Some(field) = section.field("ready") else { return usual };
    if field.node.scalar() == Some("tcp") {
        return usual;
    }
    if matches!(field.node.kind, Kind::Map(_)) {
        let Some(probe) = section.section("ready", &keys::READY, report) else { return usual };
        return (ready_of(&field, &probe, report), timing(&probe, report));
    }
    if !matches!(field.node.kind, Kind::Text(_)) {
        wrong_type(&field, "a path such as /healthz, `tcp`, or a map with `exec`", report);
        return usual;
    }
    (path(&field, report).map_or(ReadyProbe::Tcp, |path| ReadyProbe::Http { path }), ProbeTiming::default())
}

/// A map with one way to probe.
fn ready_of(field: &Field<'_>, probe: &Section<'_>, report: &mut Report<'_>) -> ReadyProbe {
    let ways: Vec<Field<'_>> = ["path", "tcp", "exec"].into_iter().filter_map(|key| probe.field(key)).collect();
    match ways.as_slice() {
        [] if probe.is_partial => ReadyProbe::Tcp,
        [] => {
            let problem = refuse(field, code::MANIFEST_MISSING_KEY, "`path`, `tcp` or `exec` is missing");
            let hint = "write `ready: {path: /healthz, period: 3s}`, `{tcp: true}` or `{exec: [program, argument]}`";
            report.add(field.node.at, problem.hint(hint));
            ReadyProbe::Tcp
        }
        [way] if way.key == "path" => path(way, report).map_or(ReadyProbe::Tcp, |path| ReadyProbe::Http { path }),
        [way] if way.key == "exec" => match crate::program::command(way, report).unwrap_or_default() {
            argv if argv.is_empty() => ReadyProbe::Tcp,
            argv => ReadyProbe::Exec { argv },
        },
        [way] => {
            if !flag(way, report) {
                let problem = refuse(way, code::MANIFEST_BAD_VALUE, "is true or left out");
                report.add(way.node.at, problem.hint("without a probe, the port is probed: leave `ready` out"));
            }
            ReadyProbe::Tcp
        }
        [_, second, ..] => {
            let problem = refuse(second, code::MANIFEST_BAD_VALUE, "a probe has one of `path`, `tcp` and `exec`");
            report.add(second.node.at, problem.hint("keep one of them"));
            ReadyProbe::Tcp
        }
    }
}

fn live(section: &Section<'_>, report: &mut Report<'_>) -> (Option<LiveProbe>, ProbeTiming) {
    let Some(field) = section.field("live") else { return (None, ProbeTiming::default()) };
    if !matches!(field.node.kind, Kind::Map(_)) {
        return (path(&field, report).map(|path| LiveProbe { path }), ProbeTiming::default());
    }
    let Some(probe) = section.section("live", &keys::LIVE, report) else { return (None, ProbeTiming::default()) };
    let found = match probe.field("path") {
        Some(field) => path(&field, report).map(|path| LiveProbe { path }),
        None => {
            if !probe.is_partial {
                let problem = refuse(&field, code::MANIFEST_MISSING_KEY, "`path` is missing");
                report.add(field.node.at, problem.hint("write the path that is asked, such as `path: /healthz`"));
            }
            None
        }
    };
    (found, timing(&probe, report))
}

fn timing(probe: &Section<'_>, report: &mut Report<'_>) -> ProbeTiming {
    let mut time = |key: &'static str, may_be_zero| {
        let field = probe.field(key)?;
        let read = duration(&field, may_be_zero, report)?;
        if read > ProbeTiming::LONGEST {
            let message = format!("{read} is longer than {}", ProbeTiming::LONGEST);
            report.add(field.node.at, refuse(&field, code::MANIFEST_BAD_VALUE, message));
            return None;
        }
        Some(read)
    };
    let (delay, period, timeout) = (time("delay", true), time("period", false), time("timeout", false));
    let mut times = |key: &'static str| count(&probe.field(key)?, 1..=ProbeTiming::MOST, report);
    ProbeTiming { delay, period, timeout, failures: times("failures"), successes: times("successes") }
}
