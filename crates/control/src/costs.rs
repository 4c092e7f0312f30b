//! What functions cost by a price book.

use kip_records::cost::{Money, PriceBook, Priced, bill, cost_of_days, date};
use kip_spec::function::Resources;
use kip_wire::{Cost, CostBy, CostReport, CostTable, FunctionCost, VersionCost};

use crate::accounts::DAY;
use crate::cell::now;
use crate::control::Control;
use crate::error::Error;

impl Control {
    /// What these functions cost, as far back as records are kept.
    ///
    /// # Errors
    /// [`Error::NoFunction`] or [`Error::Store`].
    pub async fn costs(&self, book: &PriceBook, functions: &[String]) -> Result<CostReport, Error> {
        let mut all = Vec::with_capacity(functions.len());
        let mut sum = Priced::default();
        for name in functions {
            let (priced, function) = self.cost(book, name).await?;
            sum.add(&priced);
            all.push((priced, function));
        }
        // The tiers are those of all together; each function has its part of the sum.
        let (total, total_all_active) = (book.price(sum.units), book.price(sum.units_all_active));
        let part = |units: Money, of: Money, price: Money| units.over(of).map_or(Money::ZERO, |part| part.by(price));
        let shown = |priced: &Priced, requests: u64| Cost {
            active_ms: priced.active_ms,
            idle_ms: priced.idle_ms,
            times: priced.times.clone(),
            requests,
            units: priced.units.rounded(2),
            cost: part(priced.units, sum.units, total).rounded(6),
            cost_all_active: part(priced.units_all_active, sum.units_all_active, total_all_active).rounded(6),
        };
        let functions = all
            .into_iter()
            .map(|(priced, (name, since, versions))| FunctionCost {
                function: name,
                since,
                sum: shown(&priced, versions.iter().map(|(_, _, served)| served).sum()),
                versions: versions
                    .iter()
                    .map(|(label, priced, served)| VersionCost { label: label.clone(), cost: shown(priced, *served) })
                    .collect(),
                unpriced: priced.unpriced,
            })
            .collect();
        Ok(CostReport {
            book: book.name.clone(),
            currency: book.currency.clone(),
            functions,
            total: total.rounded(6),
            total_all_active: total_all_active.rounded(6),
        })
    }

    /// What the last days cost by the price book, for the functions that fit. Days are those of UTC, today included.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn cost_table(
        &self,
        book: &PriceBook,
        (by, days): (&[CostBy], u32),
        fits: impl Fn(&str) -> bool,
    ) -> Result<CostTable, Error> {
        self.shared.account();
        self.shared.recorder.flush().await;
        let to = now().wall / DAY;
        let from = to - i64::from(days.max(1)) + 1;
        let spent = self.records().spent(from, to).await?;
        Ok(CostTable { from: date(from), to: date(to), ..cost_of_days(book, &spent, by, fits) })
    }

    async fn cost(&self, book: &PriceBook, name: &str) -> Result<(Priced, PricedFunction), Error> {
        let cell = self.require(name)?;
        let usage = self.usage(name).await?;
        let (mut sum, mut versions) = (Priced::default(), Vec::with_capacity(usage.versions.len()));
        for used in usage.versions {
            // Of a revision that was collected nothing is known but its time.
            let version = self.shared.version_of(&cell, used.version).await?;
            let (resources, pauses) = match &version {
                Some(version) => (version.spec.resources.clone(), version.spec.idle.pause.is_some()),
                None => (Resources::default(), false),
            };
            let priced = bill(book, &resources, pauses, &used);
            sum.add(&priced);
            versions.push((used.label, priced, used.served));
        }
        Ok((sum, (usage.function, usage.since, versions)))
    }
}

/// A function, since when it is counted, and its versions with their labels and requests.
type PricedFunction = (kip_spec::FunctionName, Option<i64>, Vec<(String, Priced, u64)>);
