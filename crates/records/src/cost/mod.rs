//! Prices of time: the price book, what instances cost by it, and how much to reserve for a demand.

mod bill;
mod book;
mod card;
mod days;
mod money;
mod plan;

pub use bill::{Priced, bill};
pub use book::{BookError, PriceBook, Rate, Tier};
pub use card::{Card, CardError};
pub use days::{cost_of_days, date, first_of_month};
pub use money::{Money, MoneyError};
pub use plan::{Comparison, Demand, PlanError, PlanPrices, Purchase, Row, compare, purchase};
