//! `kip fit`: what fits on the devices of the host, and what wait each function can promise.

use kip_spec::people;
use kip_wire::{FitReport, FunctionFit};

use crate::client::Client;
use crate::output::{Output, millis, table};

pub(crate) async fn run(client: &Client, output: Output) -> anyhow::Result<()> {
    let report: FitReport = client.get("/api/v1/fit").await?;
    if report.functions.is_empty() {
        output.remark("no function needs a device: `resources.gpu` of kip.yaml asks for one");
    }
    output.result(&report, text)
}

fn text(report: &FitReport) -> String {
    let devices: Vec<String> = report.devices.iter().map(|bytes| people::size(*bytes)).collect();
    let devices = if devices.is_empty() { "no device".to_owned() } else { devices.join(" + ") };
    let mut text = format!("devices: {devices}; memory for instances: {}\n", people::size(report.memory));
    if report.functions.is_empty() {
        return text;
    }
    let row = |one: &FunctionFit| {
        let late = one.limit_ms.zip(one.wait_ms).is_some_and(|(limit, wait)| wait > limit);
        vec![
            one.function.to_string(),
            people::size(one.device_memory),
            one.known_by.clone(),
            people::size(one.memory),
            one.rung.clone(),
            one.wait_ms.map_or_else(|| "not measured".to_owned(), millis),
            match one.limit_ms {
                None => "-".to_owned(),
                Some(limit) if late => format!("{} (missed)", millis(limit)),
                Some(limit) => millis(limit),
            },
        ]
    };
    let header = ["FUNCTION", "#DEVICE MEMORY", "KNOWN BY", "#MEMORY", "IDLE", "#NEXT REQUEST WAITS", "#MAY WAIT"];
    text.push('\n');
    text.push_str(&table(&header, &report.functions.iter().map(row).collect::<Vec<_>>()));
    text.push('\n');
    let more: Vec<String> = report.one_more_device.iter().map(ToString::to_string).collect();
    text.push_str(&match more.is_empty() {
        true => "one more device would change nothing\n".to_owned(),
        false => format!("one more device like the largest: {} would stay on it\n", more.join(", ")),
    });
    if report.missing_memory > 0 {
        text.push_str(&format!(
            "{} more memory for instances: functions that end now could be parked\n",
            people::size(report.missing_memory)
        ));
    }
    text
}
