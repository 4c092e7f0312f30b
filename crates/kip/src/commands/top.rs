//! `kip top`: load, CPU and memory of instances, as they are now. CPU and memory are read from `/proc`, so they are known only on the
//! server's machine.

use std::collections::BTreeMap;
use std::time::Duration;

use kip_host::clock::boot_millis;
use kip_spec::people;
use kip_wire::{DeviceStatus, FunctionInfo, InstanceInfo};
use serde::Serialize;

use super::device_use;
use crate::arguments::Top;
use crate::client::Client;
use crate::output::{Output, screen, table};

/// Clock ticks in a second, as `/proc` counts them on every Linux there is.
const TICKS: u64 = 100;
/// Between the two looks of `--once`.
const ONCE: Duration = Duration::from_millis(500);

/// What one look shows.
#[derive(Debug, Serialize)]
struct Loads {
    functions: Vec<FunctionLoad>,
    instances: Vec<InstanceLoad>,
    /// Those that the server uses, with what their driver shows.
    devices: Vec<DeviceStatus>,
}

#[derive(Debug, Serialize)]
struct FunctionLoad {
    function: String,
    hot: u32,
    asleep: u32,
    in_flight: u32,
    queued: u32,
    /// Requests that were begun in a second.
    requests_per_second: f64,
}

#[derive(Debug, Serialize)]
struct InstanceLoad {
    instance: String,
    function: String,
    state: String,
    in_flight: u32,
    requests_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    /// What it was last seen to hold of its device.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_bytes: Option<u64>,
}

/// What was counted of instances at a look.
#[derive(Debug, Default)]
struct Counters {
    at: u64,
    /// By instance: requests served, clock ticks used.
    of: BTreeMap<String, (u64, Option<u64>)>,
}

pub(crate) async fn run(client: &Client, options: &Top, output: Output) -> anyhow::Result<()> {
    let interval = options.interval.to_std().max(Duration::from_millis(100));
    let once = options.once || !output.is_terminal() && !output.is_json();
    let mut before = Counters::default();
    // A rate needs two looks.
    look(client, &mut before).await?;
    tokio::time::sleep(if once { ONCE } else { interval.min(ONCE) }).await;
    loop {
        let shown = look(client, &mut before).await?;
        if once {
            return output.result(&shown, text);
        }
        match output.is_json() {
            true => output.line(&shown, |_| String::new())?,
            false => screen(output, &text(&shown))?,
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            Ok(()) = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

async fn look(client: &Client, before: &mut Counters) -> anyhow::Result<Loads> {
    let functions: Vec<FunctionInfo> = client.get("/api/v1/functions").await?;
    let instances: Vec<InstanceInfo> = client.get("/api/v1/instances").await?;
    let devices: Vec<DeviceStatus> = client.get("/api/v1/devices").await?;
    let held: BTreeMap<String, u64> = devices
        .iter()
        .flat_map(|device| &device.instances)
        .filter_map(|user| Some((user.instance.to_string(), user.held?)))
        .collect();
    let groups = if client.is_on_this_machine().await { processes() } else { BTreeMap::new() };
    let now = Counters {
        at: boot_millis(),
        of: instances
            .iter()
            .map(|info| {
                let used = info.process.and_then(|process| groups.get(&process)).map(|group| group.ticks);
                (info.id.to_string(), (info.served, used))
            })
            .collect(),
    };
    let millis = now.at.saturating_sub(before.at).max(1);
    let load = |info: &InstanceInfo| {
        let id = info.id.to_string();
        let earlier = before.of.get(&id).copied();
        let served = info.served.saturating_sub(earlier.map_or(0, |(served, _)| served));
        let group = info.process.and_then(|process| groups.get(&process));
        let ticks =
            group.zip(earlier.and_then(|(_, ticks)| ticks)).map(|(group, ticks)| group.ticks.saturating_sub(ticks));
        InstanceLoad {
            function: info.function.to_string(),
            state: info.state.clone(),
            in_flight: info.in_flight,
            requests_per_second: rate(served, millis),
            cpu_percent: ticks.map(|ticks| rate(ticks * 100 / TICKS, millis)),
            memory_bytes: group.map(|group| group.memory),
            device_bytes: held.get(&id).copied(),
            instance: id,
        }
    };
    let loads: Vec<InstanceLoad> = instances.iter().map(load).collect();
    let of_function = |info: &FunctionInfo| FunctionLoad {
        function: info.name.to_string(),
        hot: info.hot,
        asleep: info.asleep,
        in_flight: info.in_flight,
        queued: info.queued,
        requests_per_second: loads
            .iter()
            .filter(|load| load.function == info.name.as_str())
            .map(|load| load.requests_per_second)
            .sum(),
    };
    let functions = functions.iter().filter(|info| info.spec.job.is_none()).map(of_function).collect();
    *before = now;
    Ok(Loads { functions, instances: loads, devices })
}

/// A count in a time as a number in a second, to a tenth.
fn rate(count: u64, millis: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for people, to a tenth")]
    let tenths = (count.saturating_mul(10_000) / millis) as f64;
    tenths / 10.0
}

/// What the processes of a group use together.
#[derive(Debug, Default, Clone, Copy)]
struct Group {
    ticks: u64,
    memory: u64,
}

/// The processes of this machine by their process group: an instance leads one.
fn processes() -> BTreeMap<u32, Group> {
    let page = rustix::param::page_size() as u64;
    let mut groups: BTreeMap<u32, Group> = BTreeMap::new();
    for process in kip_host::sockets::all_processes() {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        let Some((group, ticks, pages)) = usage(&stat) else { continue };
        let sum = groups.entry(group).or_default();
        sum.ticks += ticks;
        sum.memory += pages * page;
    }
    groups
}

/// Process group, user and system time in ticks, resident pages: fields 5, 14, 15 and 24 of `/proc/PID/stat`.
fn usage(stat: &str) -> Option<(u32, u64, u64)> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
    Some((number(5)?.try_into().ok()?, number(14)? + number(15)?, number(24)?))
}

fn text(shown: &Loads) -> String {
    let per_second = |rate: f64| format!("{rate:.1}");
    let rows: Vec<Vec<String>> = shown
        .functions
        .iter()
        .map(|load| {
            vec![
                load.function.clone(),
                load.hot.to_string(),
                load.asleep.to_string(),
                load.in_flight.to_string(),
                load.queued.to_string(),
                per_second(load.requests_per_second),
            ]
        })
        .collect();
    let mut text = table(&["FUNCTION", "#HOT", "#ASLEEP", "#IN FLIGHT", "#QUEUED", "#REQUESTS/S"], &rows);
    let rows: Vec<Vec<String>> = shown
        .instances
        .iter()
        .map(|load| {
            vec![
                load.instance.clone(),
                load.function.clone(),
                load.state.clone(),
                load.in_flight.to_string(),
                per_second(load.requests_per_second),
                load.cpu_percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.0} %")),
                load.memory_bytes.map_or_else(|| "-".to_owned(), people::size),
                load.device_bytes.map_or_else(|| "-".to_owned(), people::size),
            ]
        })
        .collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(
            &["INSTANCE", "FUNCTION", "STATE", "#IN FLIGHT", "#REQUESTS/S", "#CPU", "#MEMORY", "#OF DEVICE"],
            &rows,
        ));
    }
    if !shown.devices.is_empty() {
        text.push('\n');
        text.push_str(&device_table(&shown.devices));
    }
    text
}

fn device_table(devices: &[DeviceStatus]) -> String {
    let none = || "-".to_owned();
    let row = |device: &DeviceStatus| {
        let seen = device.seen.as_ref();
        let awake = device.instances.iter().filter(|user| user.charged > 0).count();
        vec![
            device.name.clone(),
            people::size(device.granted),
            seen.map_or_else(none, |seen| people::size(seen.total.saturating_sub(seen.free))),
            people::size(device.memory),
            seen.and_then(|seen| seen.utilization).map_or_else(none, |percent| format!("{percent} %")),
            seen.and_then(|seen| seen.milliwatts).map_or_else(none, |watts| format!("{} W", watts.div_ceil(1_000))),
            seen.and_then(|seen| seen.celsius).map_or_else(none, |degrees| format!("{degrees} °C")),
            awake.to_string(),
            device.instances.len().saturating_sub(awake).to_string(),
            device_use::yielded(device).unwrap_or_else(|| "in use".to_owned()),
        ]
    };
    let header =
        ["DEVICE", "#GRANTED", "#USED", "#MEMORY", "#BUSY", "#POWER", "#TEMPERATURE", "#ON IT", "#PARKED", "STATE"];
    table(&header, &devices.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_by_its_fields() {
        let stat =
            "81 (a b) c) S 1 80 80 0 -1 4194560 100 0 0 0 7 5 0 0 20 0 3 0 9999 1000000 250 18446744073709551615";
        assert_eq!(usage(stat), Some((80, 12, 250)));
        assert_eq!(usage("81 (x"), None);
        assert!((rate(25, 2_000) - 12.5).abs() < 0.01);
    }
}
