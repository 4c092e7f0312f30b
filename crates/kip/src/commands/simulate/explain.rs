//! Why a version has as many instances as it has, in sentences.

use kip_fleet::ScalingExplanation;
use kip_sim::replay::FunctionExplanation;

use crate::output::millis;

/// What was asked for with `--explain`.
pub(super) fn text(it: &FunctionExplanation) -> String {
    let mut text = scaling(&it.scaling);
    for (at, change) in &it.changes {
        text.push_str(&format!(
            "  at {}: instance {} to {}: {}\n",
            millis(*at),
            change.instance.sequence,
            change.to,
            change.why
        ));
    }
    text
}

/// What a scaler sees, wants, and what holds it back.
pub(crate) fn scaling(it: &ScalingExplanation) -> String {
    let waited = it.waited.map(|waited| format!(", the first for {}", millis(waited))).unwrap_or_default();
    let mut lines = vec![
        format!("{} in flight, {} waiting{waited}", it.in_flight, it.queued),
        format!(
            "{} busy, {} idle, {} asleep, {} on the way; {} to {} allowed",
            it.busy,
            it.idle.len(),
            it.asleep.len(),
            it.starting,
            it.minimum,
            it.maximum
        ),
        format!("policy {} wants {} hot and {} asleep: {}", it.mode, it.wants_hot, it.wants_asleep, it.reason),
    ];
    if let Some(figures) = &it.figures {
        lines.push(format!(
            "load {:.2} over 6 s and {:.2} over 60 s; {:.2} requests a second of {}; a start takes {}, a wake {}",
            figures.load_short,
            figures.load_long,
            figures.arrivals,
            millis(whole(figures.service)),
            millis(figures.start),
            millis(figures.wake)
        ));
        lines.push(format!(
            "hot: {} for the requests, {} spare (class {}), at most {} that are worth having; {} are there or start{}",
            figures.demand,
            figures.spare,
            class(figures.class),
            figures.enough,
            figures.alive,
            if figures.overdue { "; a request has waited for as long as a start takes" } else { "" }
        ));
        let pause = figures.pause.map_or_else(|| "never".to_owned(), |pause| format!("after {}", millis(pause)));
        lines.push(format!("an idle instance is paused {pause}; {} are worth keeping, asleep or not", figures.kept));
    }
    if let Some(held) = it.held_by {
        lines.push(format!("more do not start: {held}"));
    }
    if let Some(next) = it.next_in {
        lines.push(format!("it decides again in {} if nothing happens before", millis(next)));
    }
    lines.iter().map(|line| format!("  {line}\n")).collect()
}

fn class(class: kip_spec::scaling::Class) -> &'static str {
    match class {
        kip_spec::scaling::Class::Economy => "economy",
        kip_spec::scaling::Class::Balanced => "balanced",
        kip_spec::scaling::Class::Latency => "latency",
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean time of not below 0")]
fn whole(number: f64) -> u64 {
    number.round() as u64
}
