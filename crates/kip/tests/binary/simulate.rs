//! `kip simulate`, which needs no server.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{CommandOutput, Server, kip, run, until};

fn simulate(folder: &Path, arguments: &[&str]) -> CommandOutput {
    let mut command = kip(folder);
    run(command.current_dir(folder).arg("simulate").args(arguments))
}

#[test]
fn a_trace_under_policies_with_all_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let rows: String = (0..300).map(|row| format!("{}.5,f{},2\n", row * 7, row % 2)).collect();
    fs::write(folder.path().join("trace.csv"), format!("t_s,function,service_s\n{rows}")).unwrap();
    fs::write(folder.path().join("cold.csv"), "quantile,s\n0,5\n1,15\n").unwrap();
    let usual = ["trace.csv", "--cold", "cold.csv", "--wake", "1s", "-o", "json"];
    let report = simulate(folder.path(), &usual).ok().json();
    assert_eq!((&report["form"], &report["requests"]), (&Value::from("csv"), &Value::from(300)));
    let names: Vec<&str> =
        report["policies"].as_array().unwrap().iter().map(|row| row["policy"].as_str().unwrap()).collect();
    assert_eq!(names, ["auto", "fixed", "kpa", "peak", "oracle"]);
    let of = |report: &Value, name: &str, key: &str| {
        let rows = report["policies"].as_array().unwrap();
        rows.iter().find(|row| row["policy"] == name).unwrap()[key].clone()
    };
    assert_eq!(of(&report, "peak", "cost_of_peak"), 1.0);
    assert_eq!(of(&report, "oracle", "cost_of_oracle"), 1.0);
    assert_eq!(of(&report, "auto", "hash"), of(&simulate(folder.path(), &usual).ok().json(), "auto", "hash"));

    let files =
        [&usual[..], &["--html", "page.html", "--series", "series.csv", "--explain", "70s", "--policy", "auto"]];
    let report = simulate(folder.path(), &files.concat()).ok().json();
    let explained = &report["policies"][0]["explanations"][0];
    assert!(explained["scaling"]["figures"]["class"] == "balanced", "{explained}");
    assert!(explained["text"].as_str().is_some_and(|text| text.contains("policy auto wants")), "{explained}");
    let series = fs::read_to_string(folder.path().join("series.csv")).unwrap();
    assert!(series.starts_with("policy,t_s,arrivals,hot,") && series.contains("\nauto,60,"), "{series}");
    let page = fs::read_to_string(folder.path().join("page.html")).unwrap();
    assert!(page.contains("</svg>") && page.ends_with("</html>\n"));

    let functions = [&usual[..], &["--functions", "--devices", "1", "--policy", "auto"]].concat();
    let report = simulate(folder.path(), &functions).ok().json();
    assert_eq!((&report["functions"], of(&report, "auto", "peak_awake")), (&Value::from(2), Value::from(1)));
}

#[test]
fn what_cannot_be_replayed_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |text: &str| fs::write(folder.path().join("trace.csv"), text).unwrap();
    let fails = |arguments: &[&str], parts: &[&str]| simulate(folder.path(), arguments).failed(parts);
    write("t_s,service_s\n5,1\n4,1\n");
    fails(&["trace.csv"], &["KW-1026", "line 3", "sort"]);
    write("t_s,service_s\n-5,1\n");
    fails(&["trace.csv"], &["KW-1026", "line 2", "`-5`"]);
    write("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,1,2\n");
    fails(&["trace.csv"], &["KW-1026", "azure-llm", "--service"]);
    write("t_s,service_s\n5,1\n");
    fails(&["trace.csv", "--cold", "nowhere.csv"], &["KW-1026", "nowhere.csv"]);
    fails(&["trace.csv", "--devices", "0"], &["--devices 0"]);
    fails(&["trace.csv", "--sample", "2"], &["--sample 2"]);
    fails(&["trace.csv", "--functions", "model"], &["no column `model`"]);
    fails(&["trace.csv", "--warm-up", "1m"], &["warm-up"]);
    fails(&["nowhere.csv"], &["KW-1026", "nowhere.csv"]);
}

#[test]
fn the_traffic_of_a_server_is_replayed() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    (0..5).for_each(|_| assert_eq!(server.get("/pid").status(), 200));
    let replayed = || {
        let report = server.kip(&["simulate", "--last", "1h", "--of", "f", "--policy", "auto", "-o", "json"]);
        (report.code == Some(0)).then(|| report.json()).filter(|report| report["requests"] == 5)
    };
    let report = until("the records are written", replayed);
    assert_eq!((&report["form"], &report["policies"][0]["policy"]), (&Value::from("requests"), &Value::from("auto")));
    server.kip(&["simulate", "--last", "1h", "--of", "nobody"]).failed(&["KW-1026", "served no request"]);
}
