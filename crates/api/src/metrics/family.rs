//! The families: name, unit, meaning, and where each takes its numbers from. The page docs/metrics.md is held together with
//! this table by a test.

use std::fmt::Error;

use kip_control::Figures;
use kip_host::usage::Usage;
use kip_records::metrics::{BOUNDS, CounterSnapshot, FunctionCounters, Histogram, Latencies, OTHER};
use kip_tasks::{FunctionTasks, Summary};
use kip_wire::{DeviceStatus, ScalingInfo};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::device;
use super::model::ModelFigures;

/// Everything that one scrape shows.
#[derive(Debug)]
pub(super) struct Scrape {
    pub(super) version: String,
    pub(super) functions: Vec<Figures>,
    /// What is now of all functions without series of their own.
    pub(super) other: Option<Figures>,
    pub(super) counted: CounterSnapshot,
    pub(super) records_dropped: u64,
    pub(super) lines_dropped: u64,
    pub(super) traces_dropped: u64,
    pub(super) usage: Usage,
    pub(super) gateway_cpu: f64,
    pub(super) tasks: Summary,
    pub(super) devices: Vec<DeviceStatus>,
    pub(super) budgets: Vec<kip_wire::Budget>,
    pub(super) models: ModelFigures,
}

/// One family. Names are without the unit and without `_total`, which the encoder adds.
pub(super) struct Family {
    name: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    /// The names of its labels, for the page about it.
    #[cfg_attr(not(test), expect(dead_code, reason = "read where the table is compared with the page about it"))]
    labels: &'static str,
    help: &'static str,
    write: fn(&Scrape, &mut MetricEncoder<'_>) -> Result<(), Error>,
}

/// All families, in the order in which they are shown.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "kip_build",
        unit: None,
        kind: MetricType::Gauge,
        labels: "version",
        help: "Always 1; the label is the version of Kipwake.",
        write: |scrape, out| out.encode_family(&[("version", scrape.version.as_str())])?.encode_gauge(&1i64),
    },
    Family {
        name: "kip_requests",
        unit: None,
        kind: MetricType::Counter,
        labels: "function, version, code, start",
        help: "Requests that are over. code: 2xx and so on, left if the caller left before the answer. start: warm, woken, cold, or none if no instance was given.",
        write: requests,
    },
    Family {
        name: "kip_qualifier_requests",
        unit: None,
        kind: MetricType::Counter,
        labels: "function, qualifier, code",
        help: "Requests that named a version or an alias, by what they named.",
        write: qualifiers,
    },
    Family {
        name: "kip_request_queue",
        unit: Some(Unit::Seconds),
        kind: MetricType::Histogram,
        labels: "function",
        help: "Time from arrival to the instance, a start or wake included.",
        write: |scrape, out| histograms(scrape, out, |latencies| &latencies.queue),
    },
    Family {
        name: "kip_request_first_byte",
        unit: Some(Unit::Seconds),
        kind: MetricType::Histogram,
        labels: "function",
        help: "Time from sending a request on to the head of the answer.",
        write: |scrape, out| histograms(scrape, out, |latencies| &latencies.first_byte),
    },
    Family {
        name: "kip_request_duration",
        unit: Some(Unit::Seconds),
        kind: MetricType::Histogram,
        labels: "function",
        help: "Time from arrival to the end of the answer.",
        write: |scrape, out| histograms(scrape, out, |latencies| &latencies.total),
    },
    Family {
        name: "kip_request_body",
        unit: Some(Unit::Bytes),
        kind: MetricType::Counter,
        labels: "function",
        help: "Bytes of request bodies that were sent on.",
        write: |scrape, out| sheets(scrape, out, |sheet| sheet.bytes_in),
    },
    Family {
        name: "kip_response_body",
        unit: Some(Unit::Bytes),
        kind: MetricType::Counter,
        labels: "function",
        help: "Bytes of answer bodies.",
        write: |scrape, out| sheets(scrape, out, |sheet| sheet.bytes_out),
    },
    Family {
        name: "kip_refusals",
        unit: None,
        kind: MetricType::Counter,
        labels: "code",
        help: "Requests that ended with an error of Kipwake's own, by its code.",
        write: |scrape, out| {
            for (code, count) in &scrape.counted.refusals {
                let code = code.to_string();
                out.encode_family(&[("code", code.as_str())])?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
            Ok(())
        },
    },
    Family {
        name: "kip_key_refusals",
        unit: None,
        kind: MetricType::Counter,
        labels: "key, limit",
        help: "Requests that a key's limit refused. limit: rate or concurrency.",
        write: |scrape, out| {
            for ((key, limit), count) in &scrape.counted.keys {
                let labels = [("key", key.as_ref()), ("limit", *limit)];
                out.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
            Ok(())
        },
    },
    Family {
        name: "kip_requests_in_flight",
        unit: None,
        kind: MetricType::Gauge,
        labels: "function",
        help: "Requests that instances have now.",
        write: |scrape, out| gauges(scrape, out, |figures| figures.in_flight),
    },
    Family {
        name: "kip_queue_length",
        unit: None,
        kind: MetricType::Gauge,
        labels: "function",
        help: "Requests that wait now.",
        write: |scrape, out| gauges(scrape, out, |figures| figures.queued),
    },
    Family {
        name: "kip_queue_oldest_age",
        unit: Some(Unit::Seconds),
        kind: MetricType::Gauge,
        labels: "function",
        help: "How long the request that waits longest has waited; 0 if none does.",
        write: |scrape, out| {
            for (label, figures) in scrape.figures() {
                let age = std::time::Duration::from_millis(figures.oldest.unwrap_or_default()).as_secs_f64();
                out.encode_family(&[("function", label)])?.encode_gauge(&age)?;
            }
            Ok(())
        },
    },
    Family {
        name: "kip_instances",
        unit: None,
        kind: MetricType::Gauge,
        labels: "function, state",
        help: "Instances there are, by state.",
        write: |scrape, out| {
            for (label, figures) in scrape.figures() {
                for (state, count) in &figures.states {
                    let labels = [("function", label), ("state", *state)];
                    out.encode_family(&labels)?.encode_gauge(&signed(*count))?;
                }
            }
            Ok(())
        },
    },
    Family {
        name: "kip_scaling_desired",
        unit: None,
        kind: MetricType::Gauge,
        labels: "function, policy",
        help: "Instances that a scaling policy wants in the end.",
        write: |scrape, out| {
            for (label, policy) in scrape.policies() {
                let labels = [("function", label), ("policy", policy.whom.as_str())];
                out.encode_family(&labels)?.encode_gauge(&i64::from(policy.target))?;
            }
            Ok(())
        },
    },
    Family {
        name: "kip_scaling_actual",
        unit: None,
        kind: MetricType::Gauge,
        labels: "function, policy",
        help: "Instances there are for a scaling policy.",
        write: |scrape, out| {
            for (label, policy) in scrape.policies() {
                let labels = [("function", label), ("policy", policy.whom.as_str())];
                out.encode_family(&labels)?.encode_gauge(&i64::from(policy.current))?;
            }
            Ok(())
        },
    },
    Family {
        name: "kip_scaling_panic",
        unit: None,
        kind: MetricType::Gauge,
        labels: "function, policy",
        help: "Whether a scaling policy panics: 1 or 0.",
        write: |scrape, out| {
            for (label, policy) in scrape.policies() {
                let labels = [("function", label), ("policy", policy.whom.as_str())];
                out.encode_family(&labels)?.encode_gauge(&i64::from(policy.panic))?;
            }
            Ok(())
        },
    },
    Family {
        name: "kip_scaling_average",
        unit: None,
        kind: MetricType::Gauge,
        labels: "function, policy, of",
        help: "What a scaling policy goes by: the averages of its windows, or the metrics of its period.",
        write: |scrape, out| {
            for (label, policy) in scrape.policies() {
                for (of, average) in &policy.averages {
                    let labels = [("function", label), ("policy", policy.whom.as_str()), ("of", of.as_str())];
                    out.encode_family(&labels)?.encode_gauge(average)?;
                }
            }
            Ok(())
        },
    },
    Family {
        name: "kip_instance_starts",
        unit: None,
        kind: MetricType::Counter,
        labels: "function",
        help: "Programs that were started.",
        write: |scrape, out| tallies(scrape, out, |figures| figures.starts),
    },
    Family {
        name: "kip_instance_start_failures",
        unit: None,
        kind: MetricType::Counter,
        labels: "function",
        help: "Starts that failed.",
        write: |scrape, out| tallies(scrape, out, |figures| figures.failed),
    },
    Family {
        name: "kip_instance_wakes",
        unit: None,
        kind: MetricType::Counter,
        labels: "function",
        help: "Instances that were woken.",
        write: |scrape, out| tallies(scrape, out, |figures| figures.wakes),
    },
    Family {
        name: "kip_instance_evictions",
        unit: None,
        kind: MetricType::Counter,
        labels: "function",
        help: "Instances that gave way to others.",
        write: |scrape, out| tallies(scrape, out, |figures| figures.evictions),
    },
    Family {
        name: "kip_tasks_waiting",
        unit: None,
        kind: MetricType::Gauge,
        labels: "function",
        help: "Tasks that wait: for their turn, for their time, or for another one.",
        write: |scrape, out| tasks(scrape, out, |of| of.ready + of.later + of.held),
    },
    Family {
        name: "kip_tasks_running",
        unit: None,
        kind: MetricType::Gauge,
        labels: "function",
        help: "Tasks that run now.",
        write: |scrape, out| tasks(scrape, out, |of| of.running),
    },
    Family {
        name: "kip_tasks_oldest_age",
        unit: Some(Unit::Seconds),
        kind: MetricType::Gauge,
        labels: "function",
        help: "How long the task that is ready longest has waited; 0 if none is.",
        write: |scrape, out| tasks(scrape, out, |of| of.oldest_ms.unwrap_or(0) / 1_000),
    },
    Family {
        name: "kip_tasks_accepted",
        unit: None,
        kind: MetricType::Counter,
        labels: "function",
        help: "Tasks that were taken.",
        write: |scrape, out| {
            for of in &scrape.tasks.functions {
                let labels = [("function", of.function.as_str())];
                out.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&of.counted.accepted, None)?;
            }
            Ok(())
        },
    },
    Family {
        name: "kip_tasks_ended",
        unit: None,
        kind: MetricType::Counter,
        labels: "function, status",
        help: "Tasks that are over, by how, and runs that are tried again.",
        write: ends_of_tasks,
    },
    Family {
        name: "kip_tasks_deliveries_waiting",
        unit: None,
        kind: MetricType::Gauge,
        labels: "",
        help: "Words about tasks that are still to be delivered.",
        write: |scrape, out| out.encode_gauge(&signed(scrape.tasks.deliveries)),
    },
    Family {
        name: "kip_tasks_commit",
        unit: Some(Unit::Seconds),
        kind: MetricType::Gauge,
        labels: "",
        help: "What a commit of the task store takes with its sync, on average of late.",
        write: |scrape, out| {
            let time = std::time::Duration::from_micros(scrape.tasks.sync.recent_us);
            out.encode_gauge(&time.as_secs_f64())
        },
    },
    Family {
        name: "kip_tasks_writable",
        unit: None,
        kind: MetricType::Gauge,
        labels: "",
        help: "1 while the task store takes changes, else 0.",
        write: |scrape, out| out.encode_gauge(&i64::from(scrape.tasks.store == "writable")),
    },
    Family {
        name: "kip_device_memory",
        unit: Some(Unit::Bytes),
        kind: MetricType::Gauge,
        labels: "device",
        help: "Memory of a device for instances.",
        write: |scrape, out| device::each(&scrape.devices, out, |device| Some(device.memory)),
    },
    Family {
        name: "kip_device_memory_granted",
        unit: Some(Unit::Bytes),
        kind: MetricType::Gauge,
        labels: "device",
        help: "What instances have reserved of it, or were seen to use beyond that.",
        write: |scrape, out| device::each(&scrape.devices, out, |device| Some(device.granted)),
    },
    Family {
        name: "kip_device_memory_used",
        unit: Some(Unit::Bytes),
        kind: MetricType::Gauge,
        labels: "device",
        help: "What is used of its memory, as its driver shows.",
        write: |scrape, out| device::each(&scrape.devices, out, device::used),
    },
    Family {
        name: "kip_device_utilization",
        unit: Some(Unit::Ratios),
        kind: MetricType::Gauge,
        labels: "device",
        help: "The part of the last second or less in which it computed.",
        write: |scrape, out| device::each_part(&scrape.devices, out, device::utilization),
    },
    Family {
        name: "kip_device_power_watts",
        unit: None,
        kind: MetricType::Gauge,
        labels: "device",
        help: "What it draws.",
        write: |scrape, out| device::each_part(&scrape.devices, out, device::watts),
    },
    Family {
        name: "kip_device_temperature",
        unit: Some(Unit::Celsius),
        kind: MetricType::Gauge,
        labels: "device",
        help: "The temperature of its chip.",
        write: |scrape, out| device::each_part(&scrape.devices, out, device::celsius),
    },
    Family {
        name: "kip_device_yielded",
        unit: None,
        kind: MetricType::Gauge,
        labels: "device",
        help: "1 while it is out of use, else 0.",
        write: |scrape, out| device::each(&scrape.devices, out, |device| Some(device.yielded.into())),
    },
    Family {
        name: "kip_device_held",
        unit: Some(Unit::Bytes),
        kind: MetricType::Gauge,
        labels: "device, function",
        help: "What instances of a function were last seen to hold of a device.",
        write: |scrape, out| device::held(&scrape.devices, out),
    },
    Family {
        name: "kip_budget_used",
        unit: Some(Unit::Ratios),
        kind: MetricType::Gauge,
        labels: "kind, name",
        help: "What was spent of a budget in its present period, as a part of the budget; 1 and more is exceeded.",
        write: |scrape, out| {
            for budget in &scrape.budgets {
                let number = |text: &str| text.parse::<f64>().unwrap_or(0.0);
                let used = number(&budget.spent) / number(&budget.amount).max(f64::MIN_POSITIVE);
                let labels = [("kind", budget.kind.name()), ("name", budget.name.as_str())];
                out.encode_family(&labels)?.encode_gauge(&used)?;
            }
            Ok(())
        },
    },
    Family {
        name: "kip_model_starts",
        unit: None,
        kind: MetricType::Counter,
        labels: "model, tier",
        help: "Starts of instances from a model of the cache, by where its files were: memory (the page cache), disk, or remote (they were pulled again).",
        write: |scrape, out| {
            scrape
                .models
                .each_tier(out, |figures, family| family.encode_counter::<NoLabelSet, _, u64>(&figures.starts, None))
        },
    },
    Family {
        name: "kip_model_load",
        unit: Some(Unit::Seconds),
        kind: MetricType::Counter,
        labels: "model, tier",
        help: "Time of these starts until their programs were ready.",
        write: |scrape, out| {
            scrape.models.each_tier(out, |figures, family| {
                family.encode_counter::<NoLabelSet, _, u64>(&(figures.total_ms as f64 / 1_000.0), None)
            })
        },
    },
    Family {
        name: "kip_model_evictions",
        unit: None,
        kind: MetricType::Counter,
        labels: "",
        help: "Models whose files were removed from the disk since the server started.",
        write: |scrape, out| out.encode_counter::<NoLabelSet, _, u64>(&scrape.models.evictions, None),
    },
    Family {
        name: "kip_model_cache",
        unit: Some(Unit::Bytes),
        kind: MetricType::Gauge,
        labels: "",
        help: "What the model cache takes on the disk.",
        write: |scrape, out| out.encode_gauge(&signed(scrape.models.taken)),
    },
    Family {
        name: "kip_model_cache_quota",
        unit: Some(Unit::Bytes),
        kind: MetricType::Gauge,
        labels: "",
        help: "What it may take, if there is a limit; else 0.",
        write: |scrape, out| out.encode_gauge(&signed(scrape.models.quota)),
    },
    Family {
        name: "kip_records_dropped",
        unit: None,
        kind: MetricType::Counter,
        labels: "",
        help: "Records left out because there were enough of their kind, or the disk did not take them.",
        write: |scrape, out| out.encode_counter::<NoLabelSet, _, u64>(&scrape.records_dropped, None),
    },
    Family {
        name: "kip_access_log_lines_dropped",
        unit: None,
        kind: MetricType::Counter,
        labels: "",
        help: "Lines of the access log that were not written.",
        write: |scrape, out| out.encode_counter::<NoLabelSet, _, u64>(&scrape.lines_dropped, None),
    },
    Family {
        name: "kip_traces_dropped",
        unit: None,
        kind: MetricType::Counter,
        labels: "",
        help: "Requests whose traces did not reach the collector.",
        write: |scrape, out| out.encode_counter::<NoLabelSet, _, u64>(&scrape.traces_dropped, None),
    },
    Family {
        name: "kip_gateway_cpu",
        unit: Some(Unit::Seconds),
        kind: MetricType::Counter,
        labels: "",
        help: "CPU time of the gateway's threads.",
        write: |scrape, out| out.encode_counter::<NoLabelSet, _, u64>(&scrape.gateway_cpu, None),
    },
    Family {
        name: "process_cpu",
        unit: Some(Unit::Seconds),
        kind: MetricType::Counter,
        labels: "",
        help: "CPU time of the server, its instances not included.",
        write: |scrape, out| out.encode_counter::<NoLabelSet, _, u64>(&scrape.usage.cpu, None),
    },
    Family {
        name: "process_resident_memory",
        unit: Some(Unit::Bytes),
        kind: MetricType::Gauge,
        labels: "",
        help: "Memory of the server that is resident, its instances not included.",
        write: |scrape, out| out.encode_gauge(&signed(scrape.usage.resident)),
    },
    Family {
        name: "process_open_fds",
        unit: None,
        kind: MetricType::Gauge,
        labels: "",
        help: "Files and sockets that the server has open.",
        write: |scrape, out| out.encode_gauge(&signed(scrape.usage.files)),
    },
];

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        for family in FAMILIES {
            let mut out = encoder.encode_descriptor(family.name, family.help, family.unit.as_ref(), family.kind)?;
            (family.write)(self, &mut out)?;
        }
        Ok(())
    }
}

impl Scrape {
    /// Functions as they are now, by label.
    fn figures(&self) -> impl Iterator<Item = (&str, &Figures)> {
        let own = self.functions.iter().map(|figures| (figures.name.as_str(), figures));
        own.chain(self.other.iter().map(|other| (OTHER, other)))
    }

    /// Scaling policies, with their functions' labels.
    fn policies(&self) -> impl Iterator<Item = (&str, &ScalingInfo)> {
        self.functions.iter().flat_map(|figures| figures.scaling.iter().map(|policy| (figures.name.as_str(), policy)))
    }

    /// The functions' counters by label, those without series of their own last.
    fn sheets(&self) -> impl Iterator<Item = (&str, &FunctionCounters)> {
        let own = self.counted.functions.iter().map(|(name, sheet)| (name.as_str(), sheet));
        let other = Some((OTHER, &self.counted.other)).filter(|(_, sheet)| !sheet.requests.is_empty());
        own.chain(other)
    }
}

fn requests(scrape: &Scrape, out: &mut MetricEncoder<'_>) -> Result<(), Error> {
    for (function, sheet) in scrape.sheets() {
        for (labels, count) in &sheet.requests {
            let version = labels.version.map(|version| format!("v{version}")).unwrap_or_default();
            let code = code_of(labels.class);
            let start = labels.start.map_or("none", |start| start.name());
            let labels = [("function", function), ("version", &version), ("code", &code), ("start", start)];
            out.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
    }
    Ok(())
}

fn qualifiers(scrape: &Scrape, out: &mut MetricEncoder<'_>) -> Result<(), Error> {
    for (function, sheet) in scrape.sheets() {
        for (labels, count) in &sheet.qualifiers {
            let qualifier = labels.qualifier.as_ref().map_or_else(|| OTHER.to_owned(), ToString::to_string);
            let code = code_of(labels.class);
            let labels = [("function", function), ("qualifier", &qualifier), ("code", &code)];
            out.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
    }
    Ok(())
}

fn code_of(class: u16) -> String {
    match class {
        0 => "left".to_owned(),
        class => format!("{class}xx"),
    }
}

fn tasks(scrape: &Scrape, out: &mut MetricEncoder<'_>, of: fn(&FunctionTasks) -> u64) -> Result<(), Error> {
    for function in &scrape.tasks.functions {
        out.encode_family(&[("function", function.function.as_str())])?.encode_gauge(&signed(of(function)))?;
    }
    Ok(())
}

fn ends_of_tasks(scrape: &Scrape, out: &mut MetricEncoder<'_>) -> Result<(), Error> {
    for of in &scrape.tasks.functions {
        let counted = &of.counted;
        for (status, count) in [
            ("Succeeded", counted.succeeded),
            ("Failed", counted.failed),
            ("Stopped", counted.stopped),
            ("Expired", counted.expired),
            ("Invalid", counted.invalid),
            ("Retrying", counted.retried),
        ] {
            let labels = [("function", of.function.as_str()), ("status", status)];
            out.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
    }
    Ok(())
}

fn histograms(scrape: &Scrape, out: &mut MetricEncoder<'_>, of: fn(&Latencies) -> &Histogram) -> Result<(), Error> {
    let seconds = |micros: u64| std::time::Duration::from_micros(micros).as_secs_f64();
    let bounds: Vec<f64> = BOUNDS.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]).collect();
    for (function, sheet) in scrape.sheets() {
        let latencies = sheet.latencies();
        let histogram = of(&latencies);
        let buckets: Vec<(f64, u64)> = bounds.iter().copied().zip(histogram.buckets).collect();
        out.encode_family(&[("function", function)])?.encode_histogram::<NoLabelSet>(
            seconds(histogram.sum),
            histogram.count(),
            &buckets,
            None,
        )?;
    }
    Ok(())
}

fn sheets(scrape: &Scrape, out: &mut MetricEncoder<'_>, of: fn(&FunctionCounters) -> u64) -> Result<(), Error> {
    for (function, sheet) in scrape.sheets() {
        out.encode_family(&[("function", function)])?.encode_counter::<NoLabelSet, _, u64>(&of(sheet), None)?;
    }
    Ok(())
}

fn tallies(scrape: &Scrape, out: &mut MetricEncoder<'_>, of: fn(&Figures) -> u64) -> Result<(), Error> {
    for figures in &scrape.functions {
        let labels = [("function", figures.name.as_str())];
        out.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&of(figures), None)?;
    }
    Ok(())
}

fn gauges(scrape: &Scrape, out: &mut MetricEncoder<'_>, of: fn(&Figures) -> u64) -> Result<(), Error> {
    for (label, figures) in scrape.figures() {
        out.encode_family(&[("function", label)])?.encode_gauge(&signed(of(figures)))?;
    }
    Ok(())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `| `kip_requests_total` | counter | function | meaning |` for each family.
    #[test]
    fn the_page_about_metrics_lists_each_family_with_its_meaning() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
        let text = std::fs::read_to_string(page).unwrap();
        let listed: Vec<&str> =
            text.lines().filter(|line| ["| `kip_", "| `process_"].iter().any(|b| line.starts_with(b))).collect();
        let lines: Vec<String> = FAMILIES
            .iter()
            .map(|family| {
                let unit = family.unit.as_ref().map(|unit| format!("_{}", unit.as_str())).unwrap_or_default();
                let (total, kind) = match family.kind {
                    MetricType::Counter => ("_total", "counter"),
                    MetricType::Histogram => ("", "histogram"),
                    _ => ("", "gauge"),
                };
                format!("| `{}{unit}{total}` | {kind} | {} | {} |", family.name, family.labels, family.help)
            })
            .collect();
        assert_eq!(listed, lines, "write into docs/metrics.md:\n{}", lines.join("\n"));
    }
}
