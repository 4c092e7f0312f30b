//! The traces: extracts of published ones. Those whose licence allows it are beside this file, with their sources; the others are
//! where `KIPWAKE_TRACES` says (docs/scaling-auto.md).

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use kip_sim::replay::trace::{Durations, ReadOptions, Reader, Service};
use kip_sim::replay::{InstanceTimes, TraceRequest};

/// A trace and the conditions under which policies are compared on it.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) requests: Vec<TraceRequest>,
    pub(crate) times: InstanceTimes,
    pub(crate) from: u64,
}

/// Where a trace is: in the repository, or in the folder that `KIPWAKE_TRACES` names.
fn path_of(file: &str) -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/economics/traces").join(file);
    let elsewhere = || Some(PathBuf::from(kip_host::environment::read(kip_host::environment::TRACES)?).join(file));
    own.is_file().then_some(own).or_else(elsewhere)
}

/// Opens a trace. Without it, says that the test is skipped.
fn open(file: &str) -> Option<Box<dyn BufRead>> {
    let Some(path) = path_of(file) else {
        eprintln!("skipped: {file} may not be published again, and KIPWAKE_TRACES names no folder that has it");
        return None;
    };
    match File::open(path) {
        Ok(file) => Some(Box::new(BufReader::new(MultiGzDecoder::new(file)))),
        Err(error) => {
            eprintln!("skipped: {file} is not among the traces: {error}");
            None
        }
    }
}

fn read(file: &str, options: &ReadOptions) -> Option<Vec<TraceRequest>> {
    let reader = Reader::new(open(file)?, options).unwrap();
    Some(reader.collect::<Result<_, _>>().unwrap())
}

fn service(text: &str) -> ReadOptions {
    ReadOptions { service: Some(Service::formula(text).unwrap()), seed: 1, ..ReadOptions::default() }
}

const LANGUAGE: &str = "0.05 + context_tokens/8000 + 0.02*generated_tokens";

/// Goal A: the conversation trace.
pub(crate) fn conversation() -> Option<Workload> {
    let requests = read("azure_llm2023_conv.csv.gz", &service(LANGUAGE))?;
    Some(Workload { name: "conversation", requests, times: InstanceTimes::constant(30_000, 3_000), from: 300_000 })
}

/// Goal B: the code trace with its extreme bursts.
pub(crate) fn code() -> Option<Workload> {
    let requests = read("azure_llm2023_code.csv.gz", &service(LANGUAGE))?;
    Some(Workload { name: "code", requests, times: InstanceTimes::constant(30_000, 3_000), from: 300_000 })
}

/// Goal C: image models, all as one function.
pub(crate) fn images() -> Option<Workload> {
    let requests = read("alibaba_genai_requests.csv.gz", &ReadOptions::default())?;
    Some(Workload { name: "images", requests, times: InstanceTimes::constant(30_000, 2_000), from: 0 })
}

/// Goal D: two days of a tide of clients, thinned to two requests a second, of 3 s each.
pub(crate) fn tide() -> Option<Workload> {
    const DAYS: u64 = 2 * 86_400_000;
    let mut options = service("lognormal:3s:0.53");
    let whole = Reader::new(open("servegen_m-large_rates.csv.gz")?, &options).unwrap();
    let count = whole.map(Result::unwrap).take_while(|request| request.at < DAYS).count();
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let scale = 2.0 * (DAYS / 1_000) as f64 / count as f64;
    options.sample = Some(scale);
    let scaled = Reader::new(open("servegen_m-large_rates.csv.gz")?, &options).unwrap();
    let requests = scaled.map(Result::unwrap).take_while(|request| request.at < DAYS).collect();
    Some(Workload { name: "tide", requests, times: InstanceTimes::constant(30_000, 2_000), from: 0 })
}

/// Goal E and F: image models, each a function of its own.
pub(crate) fn models() -> Option<Workload> {
    let options = ReadOptions { functions: Some(Some("model".to_owned())), ..ReadOptions::default() };
    let requests = read("alibaba_genai_requests.csv.gz", &options)?;
    Some(Workload { name: "models", requests, times: InstanceTimes::constant(30_000, 2_000), from: 0 })
}

/// Goal E and F: functions that are called at most once a minute.
pub(crate) fn sparse_functions() -> Option<Workload> {
    let durations = Some(Durations::read(open("azure_functions2019_functions.csv.gz")?).unwrap());
    let options = ReadOptions { functions: Some(None), durations, seed: 1, ..ReadOptions::default() };
    let all = read("azure_functions2019_minutes.csv.gz", &options)?;
    let functions = all.iter().map(|request| request.function as usize).max().unwrap_or(0) + 1;
    let mut calls = vec![0u32; functions];
    all.iter().for_each(|request| calls[request.function as usize] += 1);
    let requests = all.into_iter().filter(|request| calls[request.function as usize] <= 1_440).collect();
    Some(Workload { name: "functions", requests, times: InstanceTimes::constant(10_000, 500), from: 0 })
}

impl Workload {
    /// Its beginning.
    pub(crate) fn until(mut self, end: u64) -> Self {
        self.requests.retain(|request| request.at < end);
        self
    }
}
