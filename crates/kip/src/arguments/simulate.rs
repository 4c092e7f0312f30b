//! Arguments of `kip simulate`.

use std::path::PathBuf;

use clap::Args;
use kip_spec::Millis;

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// The trace: CSV with a head, a request a line, sorted by arrival, or a published form (--form); .gz is unpacked, - is
    /// standard input.
    #[arg(required_unless_present_any = ["last", "replay"], conflicts_with = "last")]
    pub(crate) trace: Option<PathBuf>,
    /// Decide a recording of `kip scaler recording` again, and compare every decision; - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trace", "last"])]
    pub(crate) replay: Option<PathBuf>,
    /// Replay the requests that the server recorded in this time, with the starts and wakes that it measured.
    #[arg(long, value_name = "DURATION")]
    pub(crate) last: Option<Millis>,
    /// With --last: only the requests of this function.
    #[arg(long, value_name = "FUNCTION", requires = "last")]
    pub(crate) of: Option<String>,
    /// Policies with commas between them. A policy is a name, or NAME=SETTINGS with keys of a function of kip.yaml, such as
    /// 'frozen={idle: {pause: 3s, stop: 10m}}'. May be repeated; auto, fixed, kpa, peak and oracle without it.
    #[arg(long = "policy", value_name = "NAME[=SETTINGS],…")]
    pub(crate) policies: Vec<String>,
    /// The form of the trace, if its first line does not tell: csv, azure-llm, azure-functions, azure-minutes, burstgpt, mooncake,
    /// servegen, requests or tasks.
    #[arg(long)]
    pub(crate) form: Option<kip_sim::replay::trace::Form>,
    /// How long a request is worked on: a duration, a distribution such as lognormal:3s:0.5 (mean and coefficient of variation), or a
    /// formula of columns in seconds, such as '0.05 + context_tokens/8000 + 0.02*generated_tokens'. The column service_s, exec_s,
    /// service_ms or exec_ms without it.
    #[arg(long, value_name = "DURATION|FORMULA")]
    pub(crate) service: Option<String>,
    /// For traces of counts by minute: a file with the quantiles of each function's duration.
    #[arg(long, value_name = "FILE")]
    pub(crate) durations: Option<PathBuf>,
    /// Keep this share of the requests, drawn one by one.
    #[arg(long, value_name = "SHARE")]
    pub(crate) sample: Option<f64>,
    /// For what is drawn: equal seeds give equal results.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Replay each function of the trace by itself, by the column of this name: function, func, fn, model or client without one.
    #[arg(long, value_name = "COLUMN", num_args = 0..=1)]
    pub(crate) functions: Option<Option<String>>,
    /// The number of devices that all instances share, one for each that is not asleep; unlimited without it.
    #[arg(long, value_name = "N")]
    pub(crate) devices: Option<u32>,
    /// How long an instance takes to start: a duration, or a CSV file with the columns quantile and ms or s, or with one column ms or s of
    /// samples. 30s without it.
    #[arg(long, value_name = "DURATION|FILE")]
    pub(crate) cold: Option<String>,
    /// How long a sleeping instance takes to wake, likewise. 3s without it.
    #[arg(long, value_name = "DURATION|FILE")]
    pub(crate) wake: Option<String>,
    /// Simulate the beginning without counting it.
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    pub(crate) warm_up: Millis,
    /// The price of a sleeping instance as a share of an active one, 0 to 1; 0.238 without it, Function Compute's idle GPU.
    #[arg(long, value_name = "SHARE")]
    pub(crate) idle_price: Option<f64>,
    /// What an instance reserves, in the words of kip.yaml, such as '{cpu: 1, memory: 16GiB, gpu: {memory: 16GiB, type: T4}}': adds what
    /// each policy would be billed.
    #[arg(long, value_name = "RESOURCES")]
    pub(crate) resources: Option<String>,
    /// The price book; Function Compute's without it (`kip cost book` prints it).
    #[arg(long, value_name = "FILE", requires = "resources")]
    pub(crate) prices: Option<PathBuf>,
    /// Watts that an instance draws awake, and asleep (0 if it is left out): adds the mean power.
    #[arg(long, value_name = "AWAKE[,ASLEEP]")]
    pub(crate) watts: Option<String>,
    /// Explain what each policy wants at this time of the trace, and why.
    #[arg(long, value_name = "DURATION")]
    pub(crate) explain: Option<Millis>,
    /// Write instances and requests over time into this CSV file.
    #[arg(long, value_name = "FILE")]
    pub(crate) series: Option<PathBuf>,
    /// Write a page with charts into this file; it needs no other file.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}
