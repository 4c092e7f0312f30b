//! The rollout that each deployment of a function begins. It belongs to the function and makes no revision.

use kip_spec::qualifier::share;
use kip_spec::{AliasName, Problem, code};
use kip_wire::RolloutSettings;

use crate::keys;
use crate::report::Report;
use crate::section::{Field, Section};
use crate::traffic::WHOLE;
use crate::tree::Kind;
use crate::value::{count, duration, flag, refuse, wrong_type};

/// An alias that moves to each new version in steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Which one.
    pub alias: AliasName,
    /// How it moves. The version is the one that is deployed.
    pub settings: RolloutSettings,
}

pub(crate) fn read(function: &Section<'_>, report: &mut Report<'_>) -> Option<Rollout> {
    let whole = function.field("rollout")?;
    let section = function.section("rollout", &keys::ROLLOUT, report)?;
    let alias = match section.field("alias") {
        Some(field) => match field.node.scalar().map(str::parse::<AliasName>) {
            Some(Ok(alias)) => Some(alias),
            Some(Err(error)) => {
                report.add(field.node.at, refuse(&field, code::MANIFEST_BAD_VALUE, error));
                None
            }
            None => {
                wrong_type(&field, "the name of an alias, such as prod", report);
                None
            }
        },
        None => {
            let message = format!("`{}` lacks `alias`: the alias that moves to each new version", whole.path);
            report.add(whole.key_at, Problem::new(code::MANIFEST_MISSING_KEY, message).hint("write `alias: prod`"));
            None
        }
    };
    let mut number = |key, range| section.field(key).and_then(|field| count(&field, range, report));
    let least_requests = number("least", 1..=1_000_000).map(u64::from);
    let max_errors_per_mille = number("max_errors", 0..=1_000);
    let max_slower_percent = number("max_slower", 0..=100_000);
    let max_failed_starts = number("max_failed_starts", 1..=100);
    let mut time = |key, zero| section.field(key).and_then(|field| duration(&field, zero, report)).map(|time| time.0);
    let (every_ms, keep_ms) = (time("every", false), time("keep", true));
    let steps = section.field("steps").and_then(|field| steps(&field, report));
    let park_old = section.field("park_old").is_some_and(|field| flag(&field, report));
    let settings = RolloutSettings {
        to: String::new(),
        steps,
        every_ms,
        keep_ms,
        least_requests,
        max_errors_per_mille,
        max_slower_percent,
        max_failed_starts,
        park_old,
    };
    Some(Rollout { alias: alias?, settings })
}

/// Shares in percent.
fn steps(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    let parts: Vec<&str> = match &field.node.kind {
        Kind::List(items) => items.iter().map(|item| item.scalar().unwrap_or_default()).collect(),
        _ => {
            wrong_type(field, "a list of percentages such as [10, 30, 60, 100]", report);
            return None;
        }
    };
    let shares: Option<Vec<u32>> = parts.iter().map(|part| share(part).filter(|share| *share > 0)).collect();
    let ascend = |shares: &Vec<u32>| shares.is_sorted_by(|one, next| one < next) && shares.last() == Some(&WHOLE);
    if !shares.is_some_and(|shares| ascend(&shares)) {
        let problem = refuse(field, code::MANIFEST_BAD_VALUE, "the steps do not ascend to 100");
        report.add(field.node.at, problem.hint("write percentages such as [10, 30, 60, 100]"));
        return None;
    }
    Some(parts.join(","))
}
