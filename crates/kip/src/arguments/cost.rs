//! The words of `kip cost`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kip_records::cost::Money;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Costs {
    /// Show one function, by version.
    pub(crate) function: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Option<CostCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CostCommand {
    /// Compare machines that are paid in advance with machines that are paid by use.
    ///
    /// With --curve: how many to pay in advance for a demand. Without: functions beside servers of your own, for a peak and a mean load.
    /// Example: kip cost plan --peak 10 --load 0.3 --burst 0.1 --prepaid 246.27 --on-demand 892.80 --server 219 --balancer 526.52
    Plan(PlanArguments),
    /// Print the built-in price book, to change and to name in `cost.prices`.
    Book,
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
