//! Lists: functions and instances.

use kip_control::{FunctionInfo, InstanceInfo};

use crate::client::Client;
use crate::output::{Output, millis, table};

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
