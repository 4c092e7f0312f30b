//! What the instances of a row would be billed by a price book, and the power that they would draw.

use std::collections::BTreeMap;
use std::path::Path;

use kip_fleet::State;
use kip_records::cost::{PriceBook, bill};
use kip_sim::replay::Outcome;
use kip_spec::function::Resources;
use kip_spec::{Problem, code};
use kip_wire::VersionUsage;

use super::policies;
use crate::arguments::Simulate;

/// What an instance reserves and draws, and what that costs. Nothing of it has to be given.
#[derive(Debug, Default)]
pub(super) struct Tariff {
    prices: Option<(PriceBook, Resources)>,
    /// Watts of an instance that is awake, and of one asleep.
    watts: Option<(f64, f64)>,
}

impl Tariff {
    pub(super) fn of(options: &Simulate) -> anyhow::Result<Self> {
        let book = match &options.prices {
            Some(file) => read(file)?,
            None => PriceBook::function_compute(),
        };
        let resources = options.resources.as_deref().map(policies::resources).transpose()?;
        let unpriced = |it: &Resources| bill(&book, it, true, &usage(0, &BTreeMap::new())).unpriced;
        if let Some(kind) = resources.as_ref().and_then(unpriced) {
            let message = format!("{} has no price for a device of type {kind}", book.name);
            return Err(Problem::new(code::COMMAND_INPUT, message)
                .hint("`kip cost book` prints a price book to change: --prices FILE")
                .into());
        }
        let watts = options.watts.as_deref().map(watts).transpose()?;
        Ok(Self { prices: resources.map(|resources| (book, resources)), watts })
    }

    /// The currency of what is billed.
    pub(super) fn currency(&self) -> Option<&str> {
        self.prices.as_ref().map(|(book, _)| book.currency.as_str())
    }

    /// What a number of requests and the time by state are billed.
    pub(super) fn billed(&self, served: u64, times: &BTreeMap<String, u64>) -> Option<String> {
        let (book, resources) = self.prices.as_ref()?;
        Some(book.price(bill(book, resources, true, &usage(served, times)).units).rounded(4))
    }

    /// The mean power over a time, watts.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of any trace fit into 52 bits")]
    pub(super) fn watts(&self, awake: u64, asleep: u64, span: u64) -> Option<f64> {
        let (on, off) = self.watts?;
        Some((awake as f64 * on + asleep as f64 * off) / span.max(1) as f64)
    }
}

fn usage(served: u64, times: &BTreeMap<String, u64>) -> VersionUsage {
    let total_ms = times.values().sum();
    let times = BTreeMap::from([("on-demand".to_owned(), times.clone())]);
    let (version, label) = (kip_spec::VersionId(0), String::new());
    VersionUsage { version, label, instances: 0, living: 0, served, total_ms, times }
}

/// The time of all instances by state, without states that nobody was in.
pub(super) fn by_state(outcome: &Outcome) -> BTreeMap<String, u64> {
    let times = State::LIVING.into_iter().map(|state| (state.name().to_owned(), outcome.times[state.index()]));
    times.filter(|(_, time)| *time > 0).collect()
}

fn read(file: &Path) -> anyhow::Result<PriceBook> {
    let wrong = |why: String| {
        Problem::new(code::COMMAND_INPUT, format!("{} is no price book", file.display()))
            .cause(why)
            .hint("`kip cost book` prints one to start from")
    };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    Ok(crate::commands::cost::read_book(&text).map_err(wrong)?)
}

/// `350`, or `350,60`.
fn watts(text: &str) -> anyhow::Result<(f64, f64)> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|watts| watts.is_finite() && *watts >= 0.0);
    let parsed = match text.split_once(',') {
        Some((on, off)) => number(on).zip(number(off)),
        None => number(text).map(|on| (on, 0.0)),
    };
    parsed.ok_or_else(|| {
        Problem::new(code::COMMAND_INPUT, format!("--watts {text} is no power"))
            .hint("watts of an instance that is awake, and of one asleep: --watts 350,60")
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_billed_as_its_instance_would_be() {
        let resources = policies::resources("{cpu: 1, memory: 1GiB}").unwrap();
        let tariff = Tariff { prices: Some((PriceBook::function_compute(), resources)), watts: Some((350.0, 50.0)) };
        let times = |state: &str| BTreeMap::from([(state.to_owned(), 3_600_000)]);
        let (busy, asleep) = (tariff.billed(0, &times("busy")).unwrap(), tariff.billed(0, &times("paused")).unwrap());
        assert!(busy.parse::<f64>().unwrap() > asleep.parse::<f64>().unwrap(), "{busy} {asleep}");
        assert_eq!(tariff.watts(1_000, 1_000, 2_000), Some(200.0));
        assert_eq!((watts("350").unwrap(), watts("350, 60").unwrap()), ((350.0, 0.0), (350.0, 60.0)));
        assert!(watts("much").is_err() && watts("-1").is_err() && policies::resources("{cpu: many}").is_err());
    }
}
