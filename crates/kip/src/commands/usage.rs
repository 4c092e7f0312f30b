//! `kip usage` and `kip rotate`.

use crate::arguments::{Names, Usage};
use crate::client::{Client, segment};
use crate::output::{Output, clock, millis, table};
use kip_wire::{FunctionUsage, Rotation};

pub(crate) async fn usage(client: &Client, options: &Usage, output: Output) -> anyhow::Result<()> {
    let usage: FunctionUsage = client.get(&format!("/api/v1/functions/{}/usage", segment(&options.function))).await?;
    output.result(&usage, shown)
}

/// A row for each version, kind and state.
fn shown(usage: &FunctionUsage) -> String {
    let Some(since) = usage.since else { return format!("{} has had no instance yet\n", usage.function) };
    let mut rows = Vec::new();
    for version in &usage.versions {
        for (kind, states) in &version.times {
            for (state, time) in states {
                rows.push(vec![version.label.clone(), kind.clone(), state.clone(), millis(*time)]);
            }
        }
        let all = format!("{} of {} live, {} served", version.living, version.instances, version.served);
        rows.push(vec![version.label.clone(), "all".to_owned(), all, millis(version.total_ms)]);
    }
    format!("since {}\n{}", clock(since), table(&["VERSION", "KIND", "STATE", "#TIME"], &rows))
}

pub(crate) async fn rotate(client: &Client, names: &Names, output: Output) -> anyhow::Result<()> {
    for name in &names.functions {
        let path = format!("/api/v1/functions/{}/rotate", segment(name));
        let rotation: Rotation = client.post(&path, &serde_json::json!({})).await?;
        output.line(&rotation, |rotation| match rotation.replacing {
            0 => format!("{name} has no instances to replace"),
            1 => format!("{name}: 1 instance is being replaced; `kip why {name}` tells how it goes"),
            count => format!("{name}: {count} instances are being replaced; `kip why {name}` tells how it goes"),
        })?;
    }
    Ok(())
}
