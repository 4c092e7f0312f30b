//! `kip device ls -v`, `yield` and `use`: who is on a device, and whether it is in use.

use std::time::Duration;

use kip_spec::{Millis, Problem, code};
use kip_wire::{DeviceReading, DeviceStatus, DeviceUser, DeviceYield};

use super::gpu;
use crate::client::{Client, segment};
use crate::output::{Output, clock, millis, table};

/// Between two looks at a device that is being left.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

pub(crate) async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let devices: Vec<DeviceStatus> = client.get("/api/v1/devices").await?;
    if devices.is_empty() {
        output.remark("the server uses no device: `kip device ls` shows those of the host");
    }
    output.result(&devices, |devices| devices.iter().map(described).collect::<Vec<_>>().join("\n"))
}

/// A device in lines: what it is like, and its instances, the next one to be evicted first.
fn described(device: &DeviceStatus) -> String {
    let mut text = format!("{}  {} of {} granted", device.name, gpu::size(device.granted), gpu::size(device.memory));
    if let Some(state) = yielded(device) {
        text.push_str(&format!("; {state}"));
    }
    text.push('\n');
    if let Some(seen) = &device.seen {
        text.push_str(&format!("  {}\n", load(seen)));
        for other in &seen.others {
            let held = other.held.map_or_else(|| "an unknown amount".to_owned(), gpu::size);
            text.push_str(&format!("  not of this server: {} holds {held}\n", gpu::process(other.process)));
        }
    }
    if device.instances.is_empty() {
        text.push_str("  no instance\n");
        return text;
    }
    let next = device.instances.iter().position(|user| user.evictable);
    let row = |(at, user): (usize, &DeviceUser)| {
        let evicted = match user.evictable {
            true if next == Some(at) => "next",
            true => "later",
            false => "no",
        };
        vec![
            format!("  {}", user.function),
            user.instance.to_string(),
            user.state.clone(),
            gpu::size(user.charged),
            user.held.map_or_else(|| "-".to_owned(), gpu::size),
            evicted.to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = device.instances.iter().enumerate().map(row).collect();
    text.push_str(&table(&["  FUNCTION", "INSTANCE", "STATE", "#CHARGED", "#HOLDS", "EVICTED"], &rows));
    text
}

/// Whether it is out of use, and until when.
pub(crate) fn yielded(device: &DeviceStatus) -> Option<String> {
    device.yielded.then(|| match device.yielded_until {
        Some(until) => format!("yielded until {}", clock(until)),
        None => format!("yielded until `kip device use {}`", device.name),
    })
}

/// What the driver shows, in a line.
pub(crate) fn load(seen: &DeviceReading) -> String {
    let mut parts = vec![format!("{} of {} free", gpu::size(seen.free), gpu::size(seen.total))];
    parts.extend(seen.utilization.map(|percent| format!("{percent} % busy")));
    parts.extend(seen.milliwatts.map(|milliwatts| format!("{} W", milliwatts.div_ceil(1_000))));
    parts.extend(seen.celsius.map(|degrees| format!("{degrees} °C")));
    parts.join(", ")
}

pub(crate) async fn yield_device(
    client: &Client,
    device: &str,
    time: Option<Millis>,
    wait: bool,
    output: Output,
) -> anyhow::Result<()> {
    order(client, device, time).await?;
    if wait {
        until_empty(client, device, output).await?;
    }
    let status = status(client, device).await?;
    output.result(&status, |status| {
        let state = yielded(status).unwrap_or_else(|| "in use".to_owned());
        let left = users(status).count();
        let left = if left > 0 { format!("; {left} instances have not left it yet") } else { String::new() };
        format!("{} is {state}{left}\n", status.name)
    })
}

pub(crate) async fn regain(client: &Client, device: &str, output: Output) -> anyhow::Result<()> {
    give_back(client, device).await?;
    output.result(&serde_json::json!({ "device": device, "yielded": false }), |_| format!("{device} is in use\n"))
}

async fn order(client: &Client, device: &str, time: Option<Millis>) -> anyhow::Result<()> {
    let order = DeviceYield { for_ms: time.map(|time| time.0) };
    client.post_for_nothing(&path(device), &order).await
}

pub(crate) async fn give_back(client: &Client, device: &str) -> anyhow::Result<()> {
    client.remove(&path(device)).await
}

/// Takes a device out of use for a while, where a server runs that uses it. Gives the server that is to have it back.
pub(crate) async fn take(server: Option<Client>, device: &str, output: Output) -> anyhow::Result<Option<Client>> {
    let Some(client) = server else { return Ok(None) };
    let devices: Vec<DeviceStatus> = client.get("/api/v1/devices").await?;
    match devices.iter().find(|known| known.name == device) {
        Some(known) if !known.yielded => {
            order(&client, device, None).await?;
            if let Err(error) = until_empty(&client, device, output).await {
                give_back(&client, device).await?;
                return Err(error);
            }
            Ok(Some(client))
        }
        Some(_) => {
            until_empty(&client, device, output).await?;
            Ok(None)
        }
        None => Ok(None),
    }
}

async fn until_empty(client: &Client, device: &str, output: Output) -> anyhow::Result<()> {
    let mut told = String::new();
    let began = kip_host::clock::boot_millis();
    loop {
        let status = status(client, device).await?;
        let left: Vec<String> = users(&status).map(|user| format!("{} {}", user.function, user.state)).collect();
        if left.is_empty() {
            return Ok(());
        }
        let text = format!("waiting for {}", left.join(", "));
        if text != told {
            output.remark(&format!("{text} ({})", millis(kip_host::clock::boot_millis().saturating_sub(began))));
            told = text;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn users(status: &DeviceStatus) -> impl Iterator<Item = &DeviceUser> {
    status.instances.iter().filter(|user| user.charged > 0)
}

async fn status(client: &Client, device: &str) -> anyhow::Result<DeviceStatus> {
    let devices: Vec<DeviceStatus> = client.get("/api/v1/devices").await?;
    let found = devices.into_iter().find(|known| known.name == device);
    found.ok_or_else(|| Problem::new(code::DEVICE_UNKNOWN, format!("there is no device `{device}`")).into())
}

fn path(device: &str) -> String {
    format!("/api/v1/devices/{}/yield", segment(device))
}
