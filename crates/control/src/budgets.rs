//! Budgets: an amount for a function or a key and a day or a month. More can be spent: a budget only warns.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use kip_records::cost::{Money, PriceBook, cost_of_days, date, first_of_month};
use kip_records::decision::Decision;
use kip_store::{Author, Change, DecisionRecord, Object, Record, Seq, SpentDays, StoredResource};
use kip_wire::{Budget, BudgetKind, BudgetPeriod, BudgetSettings, CostBy};

use crate::accounts::DAY;
use crate::cell::now;
use crate::control::Control;
use crate::error::Error;
use crate::shared::Shared;

/// Budgets among the resources of the store.
const KIND: &str = "kip.budget";

/// The name of a budget in the store.
fn stored_name(kind: BudgetKind, name: &str) -> String {
    format!("{}:{name}", kind.name())
}

/// A budget of the store.
fn read(resource: &StoredResource) -> Option<(BudgetKind, String, BudgetSettings)> {
    let (kind, name) = resource.name.split_once(':')?;
    let kind = [BudgetKind::Function, BudgetKind::Key].into_iter().find(|known| known.name() == kind)?;
    Some((kind, name.to_owned(), serde_json::from_str(&resource.config).ok()?))
}

/// What was spent of a budget up to today.
fn spent(book: &PriceBook, spent: &SpentDays, kind: BudgetKind, name: &str, from: i64) -> Money {
    let mut of_period = spent.clone();
    of_period.instances.retain(|time| time.day >= from);
    of_period.keys.retain(|time| time.day >= from);
    let money = |text: &str| text.parse::<Money>().unwrap_or_default();
    match kind {
        BudgetKind::Function => money(&cost_of_days(book, &of_period, &[CostBy::Function], |own| own == name).total),
        BudgetKind::Key => {
            let table = cost_of_days(book, &of_period, &[CostBy::Key], |_| true);
            let row = table.rows.iter().find(|row| row.names.first().map(String::as_str) == Some(name));
            row.map_or(Money::ZERO, |row| money(&row.cost))
        }
    }
}

impl Shared {
    /// Checks budgets where there are any.
    pub(crate) async fn watch_budgets(&self) {
        if !self.accounts.has_budgets.load(Ordering::Relaxed) {
            return;
        }
        self.recorder.flush().await;
        if let Err(error) = self.check_budgets().await {
            tracing::warn!(%error, "budgets cannot be checked");
        }
    }

    /// All budgets with what is spent of them, and an alarm for each that is newly exceeded.
    pub(crate) async fn check_budgets(&self) -> Result<Vec<Budget>, Error> {
        let stored = self.changes.read().resources(KIND).await?;
        let stored: Vec<_> = stored.iter().filter_map(read).collect();
        self.accounts.has_budgets.store(!stored.is_empty(), Ordering::Relaxed);
        if stored.is_empty() {
            *self.accounts.budgets.lock() = Vec::new();
            return Ok(Vec::new());
        }
        let today = now().wall / DAY;
        let begin = |per: BudgetPeriod| if per == BudgetPeriod::Day { today } else { first_of_month(today) };
        let from = stored.iter().map(|(_, _, settings)| begin(settings.per)).min().unwrap_or(today);
        let days = self.records.spent(from, today).await?;
        let book = &self.options.prices;
        let budgets: Vec<Budget> = stored
            .into_iter()
            .map(|(kind, name, BudgetSettings { amount, per })| {
                let spent = spent(book, &days, kind, &name, begin(per));
                let exceeded = amount.parse::<Money>().is_ok_and(|amount| spent >= amount);
                let (currency, since) = (book.currency.clone(), date(begin(per)));
                Budget { kind, name, amount, currency, per, spent: spent.rounded(6), since, exceeded }
            })
            .collect();
        let exceeded = |budgets: &[Budget]| -> BTreeSet<(BudgetKind, String, String)> {
            let over = budgets.iter().filter(|budget| budget.exceeded);
            over.map(|budget| (budget.kind, budget.name.clone(), budget.since.clone())).collect()
        };
        let known = exceeded(&std::mem::replace(&mut *self.accounts.budgets.lock(), budgets.clone()));
        for budget in budgets.iter().filter(|budget| budget.exceeded) {
            if !known.contains(&(budget.kind, budget.name.clone(), budget.since.clone())) {
                self.alarm(budget);
            }
        }
        Ok(budgets)
    }

    fn alarm(&self, budget: &Budget) {
        let Budget { kind, name, amount, currency, per, spent, since, .. } = budget;
        let (kind_name, period) = (kind.name(), per.name());
        let why =
            format!("{spent} {currency} spent since {since}, of {amount} a {period} for the {kind_name} `{name}`");
        tracing::warn!(kind = kind_name, name, spent, amount, "a budget is exceeded");
        if *kind == BudgetKind::Function {
            let serving = self.cell_named(name).map(|cell| cell.lock().serving().id.0);
            self.recorder.record(Record::Decision(DecisionRecord {
                at: now().wall,
                function: name.clone(),
                version: serving.unwrap_or(0),
                label: None,
                instance: None,
                from: None,
                to: "over budget".to_owned(),
                why,
                detail: None,
                decision: Decision::OverBudget { spent: spent.clone(), amount: amount.clone() }.value(),
            }));
        }
    }
}

impl Control {
    /// All budgets with what is spent of them up to now.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn budgets(&self) -> Result<Vec<Budget>, Error> {
        self.shared.account();
        self.shared.recorder.flush().await;
        self.shared.check_budgets().await
    }

    /// The same as they were last checked, within a minute.
    pub fn checked_budgets(&self) -> Vec<Budget> {
        self.shared.accounts.budgets.lock().clone()
    }

    /// Sets a budget.
    ///
    /// # Errors
    /// [`Error::BudgetInvalid`], [`Error::NoFunction`] or [`Error::Store`].
    pub async fn set_budget(
        &self,
        kind: BudgetKind,
        name: &str,
        settings: BudgetSettings,
        author: Author,
    ) -> Result<(), Error> {
        let wrong = |detail: String| Error::BudgetInvalid { detail };
        let amount: Money = settings.amount.parse().map_err(|error| wrong(format!("{error}")))?;
        if amount <= Money::ZERO {
            return Err(wrong(format!("a budget of {} is always exceeded", settings.amount)));
        }
        if kind == BudgetKind::Function {
            self.require(name)?;
        }
        let config = serde_json::to_string(&settings).map_err(|error| wrong(error.to_string()))?;
        let stored = stored_name(kind, name);
        let object = Object::Resource(KIND.to_owned(), stored.clone());
        let resource = StoredResource { kind: KIND.to_owned(), name: stored, config, code: None, rev: Seq::default() };
        self.change_resource(object, Change::PutResource(Box::new(resource)), author).await?;
        self.shared.accounts.has_budgets.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Removes a budget.
    ///
    /// # Errors
    /// [`Error::NoBudget`] or [`Error::Store`].
    pub async fn remove_budget(&self, kind: BudgetKind, name: &str, author: Author) -> Result<(), Error> {
        let stored = stored_name(kind, name);
        let object = Object::Resource(KIND.to_owned(), stored.clone());
        let change = Change::RemoveResource { kind: KIND.to_owned(), name: stored };
        match self.change_resource(object, change, author).await? {
            true => Ok(()),
            false => Err(Error::NoBudget { kind: kind.name(), name: name.to_owned() }),
        }
    }
}
