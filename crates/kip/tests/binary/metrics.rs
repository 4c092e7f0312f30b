//! Metrics as a scraper sees them, read by somebody else's strict parsers, and the access log.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::{Server, call, function, manifest, run, until, until_true};

/// Reads an exposition and prints it as JSON: families with their type, and each sample by name and labels.
const PARSE: &str = r#"
import json, sys
kind, file = sys.argv[1:]
if kind == "openmetrics":
    from prometheus_client.openmetrics.parser import text_string_to_metric_families
else:
    from prometheus_client.parser import text_string_to_metric_families
families, samples = {}, {}
for family in text_string_to_metric_families(open(file).read()):
    if family.name in families:
        sys.exit(f"{family.name} is there twice")
    families[family.name] = family.type
    for sample in family.samples:
        labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
        key = f"{sample.name}{{{labels}}}"
        if key in samples:
            sys.exit(f"{key} is there twice")
        samples[key] = sample.value
print(json.dumps({"families": families, "samples": samples}))
"#;

/// The Python of the tests' environment, which `cargo xtask test` makes.
fn python() -> Option<PathBuf> {
    let python = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/python");
    let works = Command::new(&python).args(["-c", "import prometheus_client.openmetrics.parser"]).output();
    if works.is_ok_and(|ran| ran.status.success()) {
        return Some(python);
    }
    eprintln!("skipped: no Python with prometheus_client in .venv; `cargo xtask test` installs it");
    None
}

impl Server {
    fn scrape(&self, accept: &str) -> crate::http::Answer {
        let headers = format!("authorization: Bearer {}\r\naccept: {accept}\r\n", self.key);
        call(self.api, "GET", "/metrics", &headers, b"")
    }

    /// The samples of the plain form, by name and labels as they are written.
    fn samples(&self) -> BTreeMap<String, f64> {
        let answer = self.scrape("text/plain");
        assert_eq!(answer.status(), 200, "{answer:?}");
        let text = answer.text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
        lines.map(|line| sample(line).unwrap()).collect()
    }
}

#[test]
fn strict_parsers_of_both_forms_read_the_same() {
    let server = Server::start();
    server.deploy(&manifest(&[function("f", &[], ""), function("g", &["--exit-now", "3"], "")]));
    assert_eq!(server.call_with("POST", "/echo", "", b"12345").status(), 200);
    assert_eq!(call(server.gateway, "GET", "/f/g/", "", b"").status(), 502);
    assert_eq!(call(server.gateway, "GET", "/f/nobody/", "", b"").status(), 404);
    server.until_quiet();
    let Some(python) = python() else { return };
    let parse = |kind: &str, accept: &str, content_type: &str| -> Value {
        let answer = server.scrape(accept);
        assert!(answer.header("content-type").unwrap().starts_with(content_type), "{:?}", answer.head);
        let file = server.folder().join(kind);
        std::fs::write(&file, &answer.body).unwrap();
        run(Command::new(&python).args(["-c", PARSE, kind]).arg(&file)).ok().json()
    };
    // What Prometheus itself sends.
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    let open = parse("openmetrics", accept, "application/openmetrics-text; version=1.0.0");
    let plain = parse("text", "*/*", "text/plain; version=0.0.4");
    for parsed in [&open, &plain] {
        let sample = |name: &str| parsed["samples"][name].as_f64().unwrap_or(-1.0);
        assert_eq!(sample("kip_requests_total{code=2xx,function=f,start=cold,version=v1}"), 1.0, "{parsed}");
        assert_eq!(sample("kip_request_body_bytes_total{function=f}"), 5.0);
        assert_eq!(sample("kip_request_duration_seconds_count{function=f}"), 1.0);
        assert_eq!(sample("kip_request_duration_seconds_bucket{function=f,le=+Inf}"), 1.0);
        assert_eq!(sample("kip_instance_start_failures_total{function=g}"), 1.0, "{parsed}");
        assert_eq!(sample("kip_refusals_total{code=KW-4003}"), 1.0);
        assert_eq!(sample("kip_refusals_total{code=KW-2001}"), 1.0);
    }
    let names = |parsed: &Value| parsed["families"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert!(names(&open).len() >= 20, "{:?}", names(&open));
    assert_eq!(names(&open), names(&plain));
    let keys = |parsed: &Value| parsed["samples"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&open), keys(&plain));
}

#[test]
fn what_happens_is_counted_and_what_is_gone_is_not_shown() {
    let server = Server::start();
    let sleepy = "instances: {max: 1, concurrency: 1}\nidle: {pause: 100ms}";
    server.deploy(&manifest(&[function("f", &[], sleepy), function("g", &[], "trigger: {http: {auth: key}}")]));
    let get = |name: &str| server.samples().get(name).copied();
    assert_eq!(get("kip_instance_starts_total{function=\"f\"}"), Some(0.0));
    server.get("/pid");
    server.until_state("paused");
    assert_eq!(get("kip_instances{function=\"f\",state=\"paused\"}"), Some(1.0));
    let slow = server.later("GET", "/delay/1500");
    until_true("it is under way", || get("kip_requests_in_flight{function=\"f\"}") == Some(1.0));
    let waits = server.later("GET", "/pid");
    until_true("one waits, and grows older", || get("kip_queue_oldest_age_seconds{function=\"f\"}") > Some(0.0));
    assert_eq!(get("kip_queue_length{function=\"f\"}"), Some(1.0));
    slow.join().unwrap();
    waits.join().unwrap();
    server.until_quiet();
    let samples = server.samples();
    let count = |name: &str| samples.get(name).copied().unwrap_or(-1.0);
    assert_eq!(count("kip_instance_wakes_total{function=\"f\"}"), 1.0);
    assert_eq!(count("kip_instance_starts_total{function=\"f\"}"), 1.0);
    for (start, times) in [("cold", 1.0), ("woken", 1.0), ("warm", 1.0)] {
        let name = format!("kip_requests_total{{function=\"f\",version=\"v1\",code=\"2xx\",start=\"{start}\"}}");
        assert_eq!(count(&name), times, "{samples:#?}");
    }
    assert_eq!(count("kip_request_duration_seconds_count{function=\"f\"}"), 3.0);
    assert!(count("kip_request_duration_seconds_sum{function=\"f\"}") > 1.5);
    assert!(count("kip_gateway_cpu_seconds_total") > 0.0 && count("process_open_fds") > 10.0);
    assert!(count("process_resident_memory_bytes") > 1_000_000.0);

    let key = server.ask(&["key", "create", "k", "--rate", "1/d"])["secret"].as_str().unwrap().to_owned();
    let with_key = || call(server.gateway, "GET", "/f/g/", &format!("x-api-key: {key}\r\n"), b"").status();
    assert_eq!([with_key(), with_key(), with_key()], [200, 429, 429]);
    assert_eq!(get("kip_key_refusals_total{key=\"k\",limit=\"rate\"}"), Some(2.0));
    assert_eq!(get("kip_refusals_total{code=\"KW-7012\"}"), Some(2.0));
    server.kip(&["key", "rm", "k"]).ok();
    server.kip(&["rm", "f"]).ok();
    let left = server.samples();
    assert!(!left.keys().any(|name| name.contains("\"f\"") || name.contains("\"k\"")), "{left:#?}");
    assert!(left.keys().any(|name| name.contains("\"g\"")));
}

#[test]
fn functions_beyond_the_bound_share_one_label() {
    let server = Server::with("[metrics]\nfunctions = 2");
    let names = ["a", "b", "c", "d"];
    server.deploy(&manifest(&names.map(|name| function(name, &[], ""))));
    for name in names {
        assert_eq!(call(server.gateway, "GET", &format!("/f/{name}/pid"), "", b"").status(), 200);
    }
    let samples = server.samples();
    let counts: Vec<(&String, &f64)> =
        samples.iter().filter(|(name, _)| name.starts_with("kip_request_duration_seconds_count")).collect();
    let counts: Vec<(&str, f64)> = counts.into_iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(counts.len(), 3, "{counts:?}");
    assert!(counts.contains(&("kip_request_duration_seconds_count{function=\"other\"}", 2.0)), "{counts:?}");
    let ready: f64 =
        samples.iter().filter(|(name, _)| name.starts_with("kip_instances{")).map(|(_, count)| count).sum();
    assert_eq!(ready, 4.0, "all are there, under some name");
}

#[test]
fn who_may_read_metrics() {
    let server = Server::start();
    server.deploy(&manifest(&[function("f", &[], ""), function("g", &[], "")]));
    for name in ["f", "g"] {
        call(server.gateway, "GET", &format!("/f/{name}/pid"), "", b"");
    }
    let with = |server: &Server, headers: &str| call(server.api, "GET", "/metrics", headers, b"");
    assert_eq!(with(&server, "").status(), 401);
    let make = |arguments: &[&str]| {
        let made = server.ask(&[&["key", "create"], arguments].concat());
        format!("authorization: Bearer {}\r\n", made["secret"].as_str().unwrap())
    };
    assert_eq!(with(&server, &make(&["caller"])).status(), 403);
    let part = with(&server, &make(&["part", "--role", "operate", "--functions", "f"]));
    assert_eq!(part.status(), 200);
    assert!(part.text().contains("function=\"f\"") && !part.text().contains("function=\"g\""), "{}", part.text());

    let open = Server::with("[metrics]\nopen = true");
    let answer = with(&open, "");
    assert!(answer.status() == 200 && answer.text().contains("kip_build{"), "{answer:?}");
    assert_eq!(call(open.api, "GET", "/api/v1/status", "", b"").status(), 401, "nothing else is open");
}

#[test]
fn the_access_log_has_a_line_for_each_request() {
    let server = Server::with("[gateway]\naccess_log = \"access.log\"\naccess_log_size = \"4KiB\"");
    server.deploy_subject(&[], "");
    let key = server.ask(&["key", "create", "k", "--tenant", "t"])["secret"].as_str().unwrap().to_owned();
    let headers = format!("x-api-key: {key}\r\nx-request-id: mine\r\n");
    assert_eq!(server.call_with("POST", "/echo?token=secret", &headers, b"12").status(), 200);
    assert_eq!(call(server.gateway, "GET", "/f/nobody/x?token=secret", "", b"").status(), 404);
    let path = server.data().join("access.log");
    let read = || -> Vec<Value> {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(!text.contains("secret"), "{text}");
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let lines = until("both are logged", || Some(read()).filter(|lines| lines.len() == 2));
    let called = &lines[0];
    for (name, expected) in [
        ("id", "mine"),
        ("function", "f"),
        ("instance", "i-1-1-1"),
        ("method", "POST"),
        ("path", "/echo"),
        ("start", "cold"),
        ("key", "k"),
        ("tenant", "t"),
        ("peer", "127.0.0.1"),
        ("outcome", "done"),
    ] {
        assert_eq!(called[name], expected, "{called}");
    }
    assert_eq!((&called["status"], &called["version"], &called["bytes_in"]), (&200.into(), &1.into(), &2.into()));
    assert!(
        called["total_us"].as_u64() >= called["queue_us"].as_u64() && called["time"].as_str().unwrap().ends_with('Z')
    );
    let refused = &lines[1];
    assert_eq!(
        (&refused["status"], &refused["code"], &refused["path"]),
        (&404.into(), &"KW-2001".into(), &"/f/nobody/x".into())
    );

    // All of them, those too that are too many to be recorded; and the file does not grow without end.
    for number in 0..30 {
        assert_eq!(server.get(&format!("/pid?number={number}")).status(), 200);
    }
    until_true("a full file is put aside", || path.with_extension("log.1").exists());
    let size = std::fs::metadata(&path).unwrap().len();
    assert!(size <= 4_096, "{size}");
    assert_eq!(server.samples()["kip_access_log_lines_dropped_total"], 0.0);
}

#[test]
fn evidence_is_kept_by_revision_and_never_sampled() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    (0..20).for_each(|_| assert_eq!(server.get("/pid").status(), 200));
    assert_eq!(server.get("/status/503").status(), 503);
    let evidence = || server.api_get("/api/v1/functions/f/evidence").json();
    let old = evidence()[0].clone();
    assert_eq!((old["requests"].as_u64(), old["failed"].as_u64()), (Some(21), Some(1)), "{old}");
    assert_eq!(old["total"]["count"], 21);
    assert!(old["total"]["p99_us"].as_u64() >= old["total"]["p50_us"].as_u64(), "{old}");
    server.deploy_subject(&[], "env: {A: b}");
    until_true("the new revision serves", || {
        assert_eq!(server.get("/pid").status(), 200);
        evidence()[0]["version"] != old["version"] && evidence()[0]["requests"].as_u64() > Some(0)
    });
    let new = evidence()[0].clone();
    assert_eq!(new["failed"], 0, "{new}");
}
