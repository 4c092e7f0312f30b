//! What functions cost. Amounts are decimal numbers as text, so that nothing is rounded on the way.

use std::collections::BTreeMap;

use kip_spec::FunctionName;
use serde::{Deserialize, Serialize};

/// What functions cost by the server's price book, as far back as records are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CostReport {
    /// The price book's name.
    pub book: String,
    /// Its currency.
    pub currency: String,
    /// By function, by name.
    pub functions: Vec<FunctionCost>,
    /// The sum.
    pub total: String,
    /// The sum if instances had cost the active price for all of their time.
    pub total_all_active: String,
}

/// What a function costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FunctionCost {
    /// The function.
    pub function: FunctionName,
    /// When the oldest instance that is counted was made, milliseconds since 1970.
    pub since: Option<i64>,
    /// All of its versions together.
    #[serde(flatten)]
    pub sum: Cost,
    /// By version, oldest first.
    pub versions: Vec<VersionCost>,
    /// A type of device that the price book has no price for, so that the cost is too low.
    pub unpriced: Option<String>,
}

/// What a version costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct VersionCost {
    /// How the version is shown.
    pub label: String,
    /// Its cost.
    #[serde(flatten)]
    pub cost: Cost,
}

/// What costs are taken by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CostBy {
    /// By function.
    Function,
    /// By version of a function.
    Version,
    /// By key; `-` is without one.
    Key,
    /// By state of the instances; `requests` is the price of requests.
    State,
    /// By day, UTC.
    Day,
}

impl CostBy {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Function, Self::Version, Self::Key, Self::State, Self::Day];

    /// Its name as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Version => "version",
            Self::Key => "key",
            Self::State => "state",
            Self::Day => "day",
        }
    }
}

/// What days cost by the server's price book.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CostTable {
    /// The price book's name.
    pub book: String,
    /// Its currency.
    pub currency: String,
    /// The first day, UTC: year, month and day.
    pub from: String,
    /// The last day.
    pub to: String,
    /// What the rows are by.
    pub by: Vec<CostBy>,
    /// The rows, in the order of their names.
    pub rows: Vec<CostRow>,
    /// The sum.
    pub total: String,
    /// The sum if instances had cost the active price for all of their time.
    pub total_all_active: String,
    /// Types of devices that the price book has no price for, so that the cost is too low.
    pub unpriced: Vec<String>,
}

/// A row of a table of costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CostRow {
    /// What it is about, a name for each of the dimensions.
    pub names: Vec<String>,
    /// Milliseconds of instances at the active price.
    pub active_ms: u64,
    /// Milliseconds of instances at the idle price.
    pub idle_ms: u64,
    /// Requests.
    pub requests: u64,
    /// Billing units of the price book.
    pub units: String,
    /// The price.
    pub cost: String,
    /// The price if all of the time had cost the active price.
    pub cost_all_active: String,
}

/// What a budget is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BudgetKind {
    /// A function.
    Function,
    /// A key, over all functions.
    Key,
}

impl BudgetKind {
    /// Its name as users read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Key => "key",
        }
    }
}

/// How long a budget is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BudgetPeriod {
    /// A day, UTC.
    Day,
    /// A calendar month, UTC.
    Month,
}

impl BudgetPeriod {
    /// Its name as users read and write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

/// A budget as it is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetSettings {
    /// How much, in the currency of the price book.
    pub amount: String,
    /// For how long.
    pub per: BudgetPeriod,
}

/// A budget and what is spent of it. Nothing is refused where more is spent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Budget {
    /// What it is for.
    pub kind: BudgetKind,
    /// The function or the key.
    pub name: String,
    /// How much.
    pub amount: String,
    /// The currency.
    pub currency: String,
    /// For how long.
    pub per: BudgetPeriod,
    /// What was spent since the beginning of the period.
    pub spent: String,
    /// The first day of the period, UTC.
    pub since: String,
    /// As much as the amount is spent, or more.
    pub exceeded: bool,
}

/// Time and its price.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Cost {
    /// Milliseconds of instances at the active price.
    pub active_ms: u64,
    /// Milliseconds of instances at the idle price.
    pub idle_ms: u64,
    /// Milliseconds of instances by state.
    pub times: BTreeMap<String, u64>,
    /// Requests.
    pub requests: u64,
    /// Billing units of the price book.
    pub units: String,
    /// The price.
    pub cost: String,
    /// The price if all of the time had cost the active price.
    pub cost_all_active: String,
}
