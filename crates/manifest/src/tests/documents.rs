//! The documents that describe the format say what the reader does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kip_spec::Millis;
use kip_spec::function::{Deploy, Dispatch, FunctionPriority, HttpAuth, ReadyProbe, RequestBody, defaults};
use kip_spec::sleep::RungUse;
use serde_json::Value;

use super::validator::fits;
use super::{folder, one, read_in, render};
use crate::keys;

fn document(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The examples of the pages about the format.
fn examples() -> Vec<String> {
    let text = document("kip-yaml.md") + &document("jobs.md");
    let blocks = text.split("```yaml\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn every_example_is_read_and_fits_the_schema() {
    let folder = folder();
    let schema = crate::schema();
    let examples = examples();
    assert!(examples.len() >= 5);
    for text in examples {
        let manifest = read_in(folder.path(), &text);
        let manifest = manifest.unwrap_or_else(|problems| panic!("{text}\n{}", render(&problems, folder.path())));
        assert_eq!(manifest.warnings, [], "{text}");
        let value: Value = serde_saphyr::from_str(&text).unwrap();
        fits(&schema, &schema, &value, "").unwrap();
        let written: Value = serde_saphyr::from_str(&crate::write(&manifest.functions)).unwrap();
        fits(&schema, &schema, &written, "").unwrap();
    }
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let schema = crate::schema();
    for text in [
        "functions: {f: {run: x}}",
        "{api: kip/v2, functions: {f: {run: x}}}",
        "{api: kip/v1, functions: {f: {run: x, model: ./x}}}",
        "{api: kip/v1, functions: {f: {env: {}}}}",
        "{api: kip/v1, functions: {f: {model: ./x, image: y}}}",
        "{api: kip/v1, functions: {f: {run: x, idle: {pause: 5}}}}",
        "{api: kip/v1, functions: {f: {run: x, env: null}}}",
        "{api: kip/v1, functions: {f: {run: x, instances: {max: 0}}}}",
        "{api: kip/v1, functions: {f: {run: x, instances: {concurrency: {soft: 1}}}}}",
        "{api: kip/v1, functions: {f: {run: x, scaling: {mode: automatic}}}}",
        "{api: kip/v1, functions: {f: {run: x, resources: {gpu: {cards: 65}}}}}",
        "{api: kip/v1, functions: {f: {run: x, resources: {gpu: 1}}}}",
        "{api: kip/v1, functions: {f: {run: x, watchdog: {stall: 60}}}}",
        "{api: kip/v1, functions: {f: {run: x, rotation: {max_memory: 5}}}}",
        "{api: kip/v1, functions: {f: {run: x, trigger: {http: {methods: [get]}}}}}",
        "{api: kip/v1, defaults: {run: x}, functions: {f: {run: x}}}",
        "{api: kip/v1}",
        "{api: kip/v1, jobs: {f: {}}}",
        "{api: kip/v1, jobs: {f: {run: x, retries: 9}}}",
        "{api: kip/v1, jobs: {f: {run: x, schedule: {zone: UTC}}}}",
        "{api: kip/v1, jobs: {f: {run: x, schedule: {cron: '@daily', overlap: maybe}}}}",
    ] {
        let value: Value = serde_saphyr::from_str(text).unwrap();
        assert!(fits(&schema, &schema, &value, "").is_err(), "{text}");
        assert!(read_in(&std::env::temp_dir(), text).is_err(), "{text}");
    }
}

/// `cargo xtask schema --write` brings the file up to date.
#[test]
fn the_committed_schema_is_the_present_one() {
    let committed: Value = serde_json::from_str(&document("schema/kip.schema.json")).unwrap();
    assert_eq!(committed, crate::schema(), "run `cargo xtask schema --write`");
}

#[test]
fn the_reader_and_the_schema_know_the_same_keys() {
    let schema = crate::schema();
    let mut maps: BTreeMap<BTreeSet<String>, &str> = BTreeMap::new();
    let described = schema["$defs"].as_object().unwrap().iter().map(|(name, part)| (name.as_str(), part));
    for (name, part) in described.chain([("Document", &schema)]) {
        if let Some(properties) = part.get("properties").and_then(Value::as_object) {
            maps.insert(properties.keys().cloned().collect(), name);
        }
    }
    assert_eq!(maps.len(), keys::ALL.len(), "{maps:?}");
    for keys in keys::ALL {
        let known: BTreeSet<String> = keys.known.iter().map(|key| (*key).to_owned()).collect();
        assert!(maps.contains_key(&known), "{keys:?}");
        for (later, hint) in keys.later {
            assert!(!keys.known.contains(later) && !hint.is_empty(), "{later}");
        }
    }
}

/// The table's rows, and what they must say.
/// What `auto` keeps where nothing is written.
fn floor(scaling: &kip_spec::scaling::Scaling) -> String {
    match scaling {
        kip_spec::scaling::Scaling::Auto(auto) => auto.keep.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_table_of_defaults_is_true() {
    let text = document("kip-yaml.md");
    let table = text.split("<!-- defaults").nth(1).unwrap().split("<!-- end of defaults").next().unwrap();
    let rows: BTreeMap<String, String> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let mut cells = line.split('|').skip(1).map(|cell| cell.trim().trim_matches('`').to_owned());
            (cells.next().unwrap(), cells.next().unwrap())
        })
        .collect();
    let never = |limit: Option<Millis>| limit.map_or_else(|| "never".to_owned(), |limit| limit.to_string());
    let empty = one("");
    let canary = one("canary: {path: /x}").canary.expect("a canary");
    let expected = [
        ("dir", ".".to_owned()),
        ("instances.min", defaults::INSTANCES.min.to_string()),
        ("instances.max", defaults::INSTANCES.max.to_string()),
        ("instances.concurrency.hard", defaults::CONCURRENCY.hard.to_string()),
        ("instances.concurrency.soft", defaults::CONCURRENCY.soft.to_string()),
        ("probes.ready", if empty.ready == ReadyProbe::Tcp { "tcp" } else { "?" }.to_owned()),
        ("resources.gpu.type", "any".to_owned()),
        ("probes.live", empty.live.map_or_else(|| "none".to_owned(), |live| live.path)),
        ("watchdog.stall", never(empty.watchdog.stall)),
        ("rotation.max_age", never(empty.rotation.max_age)),
        ("rotation.max_memory", empty.rotation.max_memory.map_or_else(|| "none".to_owned(), |most| most.to_string())),
        ("lifecycle.initialize.timeout", defaults::HOOK_TIMEOUT.to_string()),
        ("lifecycle.pre_stop.timeout", defaults::HOOK_TIMEOUT.to_string()),
        ("lifecycle.stop.signal", if empty.lifecycle.stop.signal.is_none() { "term" } else { "?" }.to_owned()),
        ("lifecycle.stop.to", if empty.lifecycle.stop.to.is_none() { "by the main process" } else { "?" }.to_owned()),
        ("request_body", if empty.request_body == RequestBody::Measured { "measured" } else { "stream" }.to_owned()),
        ("ports", if empty.ports.is_empty() { "none" } else { "?" }.to_owned()),
        ("listen", if empty.listen.is_port() { "port" } else { "socket" }.to_owned()),
        ("user", empty.user.unwrap_or_else(|| "by the server".to_owned())),
        ("deploy.strategy", if empty.deploy == Deploy::default() { "rolling" } else { "?" }.to_owned()),
        ("pull", "missing".to_owned()),
        ("code", "snapshot, where possible".to_owned()),
        ("container.port", "that of the image, else 8080".to_owned()),
        ("container.network", "bridge".to_owned()),
        ("container.shm", "64MiB".to_owned()),
        ("container.hardened", "false".to_owned()),
        ("runtime", if empty.runtime.is_none() { "auto" } else { "?" }.to_owned()),
        ("idle.cpu", empty.idle_cpu.to_string()),
        ("idle.park", if empty.idle.park == RungUse::WhenNeeded { "when-needed" } else { "?" }.to_owned()),
        ("idle.spill", if empty.idle.spill == RungUse::WhenNeeded { "when-needed" } else { "?" }.to_owned()),
        ("instances.pin", empty.pinned.to_string()),
        ("instances.priority", if empty.priority == FunctionPriority::Normal { "normal" } else { "?" }.to_owned()),
        ("lifecycle.sleep.down[].timeout", defaults::HOOK_TIMEOUT.to_string()),
        ("canary.status", canary.status.to_string()),
        ("canary.timeout", canary.call.timeout.to_string()),
        ("trigger.http.cors.max_age", defaults::CORS_MAX_AGE.to_string()),
        ("timeouts.startup", defaults::TIMEOUTS.startup.to_string()),
        ("timeouts.queue", defaults::TIMEOUTS.queue.to_string()),
        ("timeouts.first_byte", defaults::TIMEOUTS.first_byte.to_string()),
        ("timeouts.idle", defaults::TIMEOUTS.idle.to_string()),
        ("timeouts.total", defaults::TIMEOUTS.total.to_string()),
        ("timeouts.grace", "follows the longest request".to_owned()),
        ("queue.depth", defaults::QUEUE_DEPTH.to_string()),
        ("idle.pause", never(defaults::IDLE.pause)),
        ("idle.stop", never(defaults::IDLE.stop)),
        ("scaling.mode", empty.scaling.name().to_owned()),
        ("scaling.class", "balanced".to_owned()),
        ("scaling.keep", floor(&empty.scaling)),
        ("dispatch", if defaults::DISPATCH == Dispatch::Packed { "packed" } else { "balanced" }.to_owned()),
        ("protocol", if empty.protocol.is_none() { "http1, for gRPC h2c" } else { "?" }.to_owned()),
        ("trigger.http.auth", if empty.http.auth == HttpAuth::Anonymous { "anonymous" } else { "key" }.to_owned()),
        ("trigger.http.tasks", if empty.http.open_tasks { "anonymous" } else { "key" }.to_owned()),
        ("trigger.http.methods", if empty.http.methods.is_empty() { "all" } else { "?" }.to_owned()),
        ("trigger.http.exempt", if empty.http.exempt.is_empty() { "none" } else { "?" }.to_owned()),
    ];
    let expected: BTreeMap<String, String> = expected.map(|(key, value)| (key.to_owned(), value)).into();
    assert_eq!(rows, expected);
}
