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
