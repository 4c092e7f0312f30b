//! `kip requests`.

use kip_control::RequestRecord;
use kip_spec::{Problem, code};
use kip_wire::FunctionInfo;

use crate::arguments::Requests;
use crate::client::{Client, segment};
use crate::output::{Output, clock, micros, table};

pub(crate) async fn run(client: &Client, options: &Requests, output: Output) -> anyhow::Result<()> {
    let base = match &options.function {
        Some(function) => format!("/api/v1/functions/{}/requests", segment(function)),
        None => "/api/v1/requests".to_owned(),
    };
    let requests: Vec<RequestRecord> = client.get(&format!("{base}?{}", query(options)?)).await?;
    if let (true, Some(function)) = (requests.is_empty(), &options.function) {
        // An unknown name should say so rather than list nothing; a removed function's requests stay.
        client.get::<FunctionInfo>(&format!("/api/v1/functions/{}", segment(function))).await?;
    }
    output.result(&requests, |requests| request_table(requests))
}

/// The filters as the API takes them; it says what is wrong with one.
fn query(options: &Requests) -> Result<String, Problem> {
    let since = options.since.as_deref().map(since).transpose()?;
    let mut query = format!("limit={}", options.limit);
    let given = [
        ("since", &since),
        ("status", &options.status),
        ("code", &options.code),
        ("start", &options.start),
        ("kind", &options.kind),
        ("instance", &options.instance),
        ("version", &options.version),
        ("qualifier", &options.qualifier),
        ("slower_than", &options.slower_than),
        ("outcome", &options.outcome),
        ("id", &options.id),
        ("key", &options.by),
        ("tenant", &options.tenant),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            query.push_str(&format!("&{name}={}", segment(value)));
        }
    }
    Ok(query)
}

/// A time as milliseconds since 1970; a duration as it is, for the server's clock to count back from.
pub(crate) fn since(text: &str) -> Result<String, Problem> {
    if text.parse::<kip_spec::Millis>().is_ok() {
        return Ok(text.to_owned());
    }
    let time: jiff::Timestamp = text.parse().map_err(|error: jiff::Error| {
        Problem::new(code::COMMAND_INPUT, format!("--since: `{text}` is neither a duration nor a time"))
            .cause(error.to_string())
            .hint("write 10m, 2h30m or 2026-11-22T10:00:00Z")
    })?;
    Ok(time.as_millisecond().to_string())
}

fn request_table(requests: &[RequestRecord]) -> String {
    let row = |record: &RequestRecord| {
        vec![
            clock(record.at),
            record.function.clone(),
            version(record),
            record.method.clone(),
            shorten(&record.path, 32),
            if record.status == 0 { record.outcome.clone() } else { record.status.to_string() },
            record.code.clone().unwrap_or_default(),
            record.start.clone().unwrap_or_default(),
            record.kind.clone().unwrap_or_default(),
            micros(record.queue_us),
            micros(record.first_byte_us),
            micros(record.total_us),
            record.instance.clone().unwrap_or_default(),
            record.key.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = requests.iter().map(row).collect();
    table(
        &[
            "TIME",
            "FUNCTION",
            "VERSION",
            "METHOD",
            "PATH",
            "STATUS",
            "CODE",
            "START",
            "KIND",
            "#WAIT",
            "#FIRST BYTE",
            "#TOTAL",
            "INSTANCE",
            "KEY",
        ],
        &rows,
    )
}

/// The version that served it, behind the qualifier that it came with.
fn version(record: &RequestRecord) -> String {
    let version = record.label.clone().or_else(|| Some(format!("v{}", record.version?))).unwrap_or_default();
    match &record.qualifier {
        Some(qualifier) if *qualifier != version => format!("{qualifier} {version}").trim_end().to_owned(),
        _ => version,
    }
}

fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.to_owned() } else { text.chars().take(most - 1).collect::<String>() + "…" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations() {
        assert_eq!(since("10m").unwrap(), "10m");
        assert_eq!(since("1970-01-01T00:00:01Z").unwrap(), "1000");
        assert_eq!(since("yesterday").unwrap_err().code, code::COMMAND_INPUT);
    }
}
