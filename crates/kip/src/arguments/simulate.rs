//! Arguments of `kip simulate`.

use std::path::PathBuf;

use clap::Args;
use kip_spec::Millis;

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// The trace: CSV with a head, a request a line, sorted by arrival; .gz is unpacked, - is standard input.
    pub(crate) trace: PathBuf,
    /// A policy, or NAME=SETTINGS with keys of a function of kip.yaml, such as 'frozen={idle: {pause: 3s, stop: 10m}}'. May be
    /// repeated; auto, fixed and kpa without it.
    #[arg(long = "policy", value_name = "NAME[=SETTINGS]")]
    pub(crate) policies: Vec<String>,
    /// How long a request is worked on: a duration, or a formula of columns in seconds, such as
    /// '0.05 + context_tokens/8000 + 0.02*generated_tokens'. The column service_s, exec_s, service_ms or exec_ms without it.
    #[arg(long, value_name = "DURATION|FORMULA")]
    pub(crate) service: Option<String>,
    /// How long an instance takes to start.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub(crate) cold: Millis,
    /// How long a sleeping instance takes to wake.
    #[arg(long, value_name = "DURATION", default_value = "3s")]
    pub(crate) wake: Millis,
    /// Simulate the beginning without counting it.
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    pub(crate) warm_up: Millis,
    /// The price of a sleeping instance as a share of an active one, 0 to 1; 0.238 without it, Function Compute's idle GPU.
    #[arg(long, value_name = "SHARE")]
    pub(crate) idle_price: Option<f64>,
}
