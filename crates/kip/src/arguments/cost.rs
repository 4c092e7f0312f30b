//! The words of `kip cost`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kip_records::cost::Money;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Costs {
    /// Show one function, by version.
    pub(crate) function: Option<String>,
    /// Show the time by state.
    #[arg(long)]
    pub(crate) states: bool,
    /// Show the life of one of the function's instances: each state with its beginning and its price class.
    #[arg(long, value_name = "INSTANCE", requires = "function")]
    pub(crate) instance: Option<String>,
    /// Show the cost of the last days by these, with commas between them.
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with_all = ["states", "instance"])]
    pub(crate) by: Vec<CostDimension>,
    /// Of so many days, today included: 7d. Without --by, by function.
    #[arg(long, value_name = "DAYS", value_parser = days, conflicts_with_all = ["states", "instance"])]
    pub(crate) last: Option<u32>,
    #[command(subcommand)]
    pub(crate) command: Option<CostCommand>,
}

/// What the cost of days is taken by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CostDimension {
    Function,
    Version,
    Key,
    State,
    Day,
}

fn days(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('d').and_then(|number| number.parse().ok());
    number.filter(|days| (1..=400).contains(days)).ok_or_else(|| "a number of days from 1d to 400d".to_owned())
}

/// The words of `kip budget`.
#[derive(Debug, Subcommand)]
pub(crate) enum BudgetCommand {
    /// Set what a function or a key may cost in a day or a month. A budget warns; it refuses nothing.
    ///
    /// Example: kip budget set ocr 12.50 --per day
    Set(BudgetArguments),
    /// List budgets and what is spent of them.
    #[command(alias = "list")]
    Ls,
    /// Remove a budget.
    Rm {
        /// The function.
        #[arg(required_unless_present = "for_key", conflicts_with = "for_key")]
        function: Option<String>,
        /// The key, in the place of a function.
        #[arg(long, value_name = "KEY")]
        for_key: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct BudgetArguments {
    /// The function, and the amount in the currency of the price book; with --for-key, the amount alone.
    #[arg(required = true, num_args = 1..=2, value_names = ["FUNCTION", "AMOUNT"])]
    pub(crate) what: Vec<String>,
    /// A key, in the place of a function.
    #[arg(long, value_name = "KEY")]
    pub(crate) for_key: Option<String>,
    /// For a day or for a calendar month, UTC.
    #[arg(long, value_enum)]
    pub(crate) per: BudgetTime,
}

/// How long a budget is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BudgetTime {
    Day,
    Month,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CostCommand {
    /// Compare machines that are paid in advance with machines that are paid by use.
    ///
    /// With --curve: how many to pay in advance for a demand. Without: functions beside servers of your own, for a peak and a mean load.
    /// Example: kip cost plan --peak 10 --load 0.3 --burst 0.1 --prepaid 246.27 --on-demand 892.80 --server 219 --balancer 526.52
    Plan(PlanArguments),
    /// Write a price book for cards of your own: their price, life and power.
    ///
    /// Example: kip cost set --card-price 1800 --years 3 --kwh 0.30 --watts 350 --card-memory 24 --currency EUR
    Set(CardArguments),
    /// Print the built-in price book, to change and to name in `cost.prices`.
    Book,
}

#[derive(Debug, Args)]
pub(crate) struct CardArguments {
    /// What a card costs.
    #[arg(long, value_name = "PRICE")]
    pub(crate) card_price: Money,
    /// For how many years it is used.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) years: Money,
    /// The price of a kWh.
    #[arg(long, value_name = "PRICE")]
    pub(crate) kwh: Money,
    /// What a card takes while it works, watts.
    #[arg(long, value_name = "WATTS", default_value = "300")]
    pub(crate) watts: Money,
    /// What the part of a sleeping instance takes, watts.
    #[arg(long, value_name = "WATTS", default_value = "0")]
    pub(crate) idle_watts: Money,
    /// The memory of a card, GiB.
    #[arg(long, value_name = "GIB", default_value = "24")]
    pub(crate) card_memory: Money,
    /// The currency.
    #[arg(long, value_name = "NAME", default_value = "USD")]
    pub(crate) currency: String,
    /// The file; prices.toml in the data directory without it.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Replace a file that is there.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    /// Price of a machine for a month, paid in advance.
    #[arg(long, value_name = "PRICE")]
    pub(crate) prepaid: Money,
    /// Price of a machine for a month of use, paid by use.
    #[arg(long, value_name = "PRICE")]
    pub(crate) on_demand: Money,
    /// A file with the machines that are needed, one number a line, at equal distances in time.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["peak", "load", "burst", "server", "balancer"])]
    pub(crate) curve: Option<PathBuf>,
    /// Machines that the peak needs.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, required_unless_present = "curve")]
    pub(crate) peak: u32,
    /// The mean load, as a part of the peak: 0.3 is 30 %.
    #[arg(long, value_name = "PART", default_value = "0", required_unless_present = "curve")]
    pub(crate) load: Money,
    /// The part of the work that is done on demand: 0.1 is 10 %.
    #[arg(long, value_name = "PART", default_value = "0")]
    pub(crate) burst: Money,
    /// Price of a server of your own for a month.
    #[arg(long, value_name = "PRICE", default_value = "0")]
    pub(crate) server: Money,
    /// Price of a load balancer in front of your own servers for a month.
    #[arg(long, value_name = "PRICE", default_value = "0")]
    pub(crate) balancer: Money,
}
