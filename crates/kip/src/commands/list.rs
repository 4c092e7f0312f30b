//! Lists: functions, instances, requests.

use kip_control::{FunctionInfo, InstanceInfo, RequestRecord};

use crate::arguments::Requests;
use crate::client::{Client, segment};
use crate::output::{Output, clock, micros, millis, table};

pub(crate) async fn functions(client: &Client, output: Output) -> anyhow::Result<()> {
    let functions: Vec<FunctionInfo> = client.get("/api/v1/functions").await?;
    let gateway = client.about().await?.gateway;
    output.result(&functions, |functions| {
        let row = |info: &FunctionInfo| {
            vec![
                info.name.to_string(),
                info.version.to_string(),
                info.hot.to_string(),
                info.starting.to_string(),
                info.asleep.to_string(),
                info.in_flight.to_string(),
                info.queued.to_string(),
                format!("http://{gateway}/f/{}/", info.name),
            ]
        };
        let rows: Vec<Vec<String>> = functions.iter().map(row).collect();
        table(&["FUNCTION", "VERSION", "#HOT", "#STARTING", "#ASLEEP", "#IN FLIGHT", "#QUEUED", "URL"], &rows)
    })
}

pub(crate) async fn instances(client: &Client, output: Output) -> anyhow::Result<()> {
    let instances: Vec<InstanceInfo> = client.get("/api/v1/instances").await?;
    output.result(&instances, |instances| {
        let row = |info: &InstanceInfo| {
            vec![
                info.id.to_string(),
                info.function.to_string(),
                info.version.to_string(),
                info.state.clone(),
                millis(info.for_ms),
                info.in_flight.to_string(),
                info.served.to_string(),
                info.process.map_or_else(|| "-".to_owned(), |process| process.to_string()),
            ]
        };
        let rows: Vec<Vec<String>> = instances.iter().map(row).collect();
        table(&["INSTANCE", "FUNCTION", "VERSION", "STATE", "#FOR", "#IN FLIGHT", "#SERVED", "#PROCESS"], &rows)
    })
}

pub(crate) async fn requests(client: &Client, options: &Requests, output: Output) -> anyhow::Result<()> {
    let path = match &options.function {
        Some(function) => {
            // An unknown name should say so rather than list nothing; a removed function's requests stay.
            format!("/api/v1/functions/{}/requests?limit={}", segment(function), options.limit)
        }
        None => format!("/api/v1/requests?limit={}", options.limit),
    };
    let requests: Vec<RequestRecord> = client.get(&path).await?;
    if let (true, Some(function)) = (requests.is_empty(), &options.function) {
        client.get::<FunctionInfo>(&format!("/api/v1/functions/{}", segment(function))).await?;
    }
    output.result(&requests, |requests| request_table(requests))
}

fn request_table(requests: &[RequestRecord]) -> String {
    let row = |record: &RequestRecord| {
        vec![
            clock(record.at),
            record.function.clone(),
            record.method.clone(),
            shorten(&record.path, 32),
            if record.status == 0 { record.outcome.clone() } else { record.status.to_string() },
            record.code.clone().unwrap_or_default(),
            record.start.clone().unwrap_or_default(),
            micros(record.queue_us),
            micros(record.first_byte_us),
            micros(record.total_us),
            record.instance.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = requests.iter().map(row).collect();
    table(
        &[
            "TIME",
            "FUNCTION",
            "METHOD",
            "PATH",
            "STATUS",
            "CODE",
            "START",
            "#WAIT",
            "#FIRST BYTE",
            "#TOTAL",
            "INSTANCE",
        ],
        &rows,
    )
}

fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.to_owned() } else { text.chars().take(most - 1).collect::<String>() + "…" }
}
