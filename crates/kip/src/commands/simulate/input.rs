//! Where requests and times come from: a file, standard input, or a server's records.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, stdin};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use kip_control::RequestRecord;
use kip_sim::replay::trace::{Durations, Form, ReadOptions, Reader, Service, TraceError};
use kip_sim::replay::{InstanceTimes, OperationTime};
use kip_spec::{Millis, Problem, code};

use crate::arguments::Simulate;
use crate::client::{Client, segment};
use crate::output::Output;

/// Records that the server gives at most.
const MOST: usize = 10_000;
/// Where nothing is said or measured, milliseconds.
const COLD: u64 = 30_000;
const WAKE: u64 = 3_000;

/// The requests of a trace.
pub(super) type Source = Reader<Box<dyn BufRead + Send>>;

/// What a server has recorded.
#[derive(Debug)]
pub(super) struct Recorded {
    /// As the command `kip requests -o json` prints it.
    json: Vec<u8>,
    cold: Option<OperationTime>,
    wake: Option<OperationTime>,
}

/// Asks a server for its latest requests.
pub(super) async fn recorded(
    client: &Client,
    last: Millis,
    function: Option<&str>,
    output: Output,
) -> anyhow::Result<Recorded> {
    let base = match function {
        Some(function) => format!("/api/v1/functions/{}/requests", segment(function)),
        None => "/api/v1/requests".to_owned(),
    };
    let path = format!("{base}?limit={MOST}&since={last}");
    let all: Vec<RequestRecord> = client.get(&path).await?;
    if all.len() == MOST {
        output.remark(&format!("only the newest {MOST} requests are replayed; use a shorter time to replay all of it"));
    }
    // What never reached an instance is not work for one.
    let served: Vec<&RequestRecord> = all.iter().filter(|record| record.instance.is_some()).collect();
    if served.is_empty() {
        let problem = Problem::new(code::TRACE_INVALID, format!("the server has served no request in the last {last}"));
        return Err(problem.hint("choose a longer time, or another function with --of").into());
    }
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a wait")]
    let waits = |start: &str| {
        let of = served.iter().filter(|record| record.start.as_deref() == Some(start));
        OperationTime::samples(of.map(|record| record.queue_us as f64 / 1_000.0).collect())
    };
    Ok(Recorded { json: serde_json::to_vec(&served)?, cold: waits("cold"), wake: waits("woken") })
}

/// What was measured, or is given.
pub(super) fn times(options: &Simulate, recorded: Option<&Recorded>) -> anyhow::Result<InstanceTimes> {
    let time = |given: Option<&str>, measured: Option<&OperationTime>, usual: u64| match given {
        Some(text) => match text.parse::<Millis>() {
            Ok(time) => Ok(OperationTime::Constant(time.0)),
            Err(_) => quantiles(Path::new(text)),
        },
        None => Ok(measured.cloned().unwrap_or(OperationTime::Constant(usual))),
    };
    Ok(InstanceTimes {
        cold: time(options.cold.as_deref(), recorded.and_then(|it| it.cold.as_ref()), COLD)?,
        wake: time(options.wake.as_deref(), recorded.and_then(|it| it.wake.as_ref()), WAKE)?,
    })
}

/// A file with the quantiles of a time, or with samples of it.
fn quantiles(path: &Path) -> anyhow::Result<OperationTime> {
    let read = open_file(path).and_then(|input| {
        OperationTime::read(input).map_err(|error| {
            Problem::new(code::TRACE_INVALID, format!("{}: {error}", path.display()))
                .hint("write a duration such as 30s, or a CSV file with the columns quantile and ms, or with a column ms of samples")
        })
    });
    Ok(read?)
}

fn open_file(path: &Path) -> Result<Box<dyn BufRead + Send>, Problem> {
    let file = File::open(path).map_err(|error| {
        Problem::new(code::TRACE_INVALID, format!("{} cannot be read", path.display())).cause(error.to_string())
    })?;
    Ok(match path.extension().is_some_and(|extension| extension == "gz") {
        true => Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))),
        false => Box::new(BufReader::with_capacity(1 << 16, file)),
    })
}

/// Opens what is to be replayed.
pub(super) fn open(options: &Simulate, recorded: Option<Recorded>) -> anyhow::Result<Source> {
    let service = options.service.as_deref().map(Service::formula).transpose().map_err(|error| wrong(&error))?;
    let sample = options.sample;
    if let Some(share) = sample.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
        let problem = Problem::new(code::COMMAND_INPUT, format!("--sample {share} is not above 0 and at most 1"));
        return Err(problem.hint("0.1 keeps a tenth of the requests").into());
    }
    let durations = match &options.durations {
        Some(path) => Some(Durations::read(open_file(path)?).map_err(|error| wrong(&error))?),
        None => None,
    };
    let form = if recorded.is_some() { Some(Form::Requests) } else { options.form };
    let read =
        ReadOptions { service, form, functions: options.functions.clone(), sample, seed: options.seed, durations };
    let input: Box<dyn BufRead + Send> = match (recorded, &options.trace) {
        (Some(recorded), _) => Box::new(Cursor::new(recorded.json)),
        (None, Some(path)) if path.as_os_str() != "-" => open_file(path)?,
        _ => Box::new(BufReader::new(stdin())),
    };
    Ok(Reader::new(input, &read).map_err(|error| wrong(&error))?)
}

pub(super) fn wrong(error: &TraceError) -> Problem {
    let hint = match error {
        TraceError::Unsorted { .. } => "sort the lines by arrival: the trace is read once, from the beginning",
        TraceError::NoColumn { .. } => {
            "--service names another column, a formula or a duration; arrivals are in t_s or at_ms"
        }
        TraceError::NoService { form: "azure-llm", .. } => {
            "give a formula of its columns, such as --service '0.05 + ContextTokens/8000 + 0.02*GeneratedTokens'"
        }
        TraceError::NoService { form: "burstgpt", .. } => {
            "give a formula of its columns, such as --service '0.05 + Request_tokens/8000 + 0.02*Response_tokens'"
        }
        TraceError::NoService { form: "mooncake", .. } => {
            "give a formula of its columns, such as --service '0.05 + input_length/8000 + 0.02*output_length'"
        }
        TraceError::NoService { .. } => "give --service 2s, --service lognormal:2s:0.5, or --durations FILE",
        TraceError::UnknownForm { .. } => {
            "name the form with --form, or write a first line with the names of the columns"
        }
        _ => "docs/simulate.md describes the forms of traces",
    };
    Problem::new(code::TRACE_INVALID, error.to_string()).hint(hint)
}
