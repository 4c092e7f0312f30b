//! The benchmark's dry run: every row of the plan comes to its end on the stand-in, and the table says that it is no GPU.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Host, program};

#[test]
fn every_row_runs_on_the_stand_in() {
    let host = Host::new();
    host.knobs("capacity = 1073741824\ncontext = 1048576");
    let out = host.folder.path().join("out");
    let mut command = Command::new(program());
    command.args(["run", "--dry-run", "--budget", "300", "--out"]).arg(&out).envs(host.environment());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let raw = fs::read_to_string(out.join("raw.jsonl")).unwrap();
    let lines: Vec<Value> = raw.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["is_gpu"], false);
    for line in &lines {
        assert!(line["failed"].is_null() && line["broke_off"].is_null(), "{line}");
    }
    let skipped: BTreeSet<&str> =
        lines.iter().filter(|line| !line["skipped"].is_null()).map(|line| line["row"].as_str().unwrap()).collect();
    // The rest may lack a cgroup or swap here.
    let may_skip = BTreeSet::from(["cpu", "order", "platform", "prefault", "weight"]);
    assert!(skipped.is_subset(&may_skip), "{skipped:?}");
    let of = |row: &str, key: &str| -> Vec<&Value> {
        lines.iter().filter(|line| line["row"] == row).map(|line| &line[key]).filter(|value| !value.is_null()).collect()
    };
    assert_eq!(of("freeze", "same").len(), 12);
    assert!(of("freeze", "residue").iter().all(|residue| **residue == 0));
    assert_eq!(of("ceilings", "both_us").len(), 3);
    assert_eq!((of("pinning", "allocate_us").len(), of("pinning", "register_us").len() % 3), (6, 0));
    assert!(of("prefault", "restore_us").len() >= 4);
    // These are figures, whatever stands in for a GPU.
    assert!(of("cpu", "first_us").len() >= 10 && of("cpu", "given_back").len() + of("cpu", "refused").len() >= 1);
    // Once by a signal, and once by a cgroup where one can be made.
    let order = of("order", "hung");
    assert_eq!(order.len(), if skipped.contains("order") { 1 } else { 2 });
    assert!(order.iter().chain(&of("order", "seen")).all(|is| **is == true));
    assert!(of("managed", "came")[0].as_str().unwrap().contains("801"));
    assert_eq!(of("killed", "used_after"), [0]);
    assert_eq!(of("retire", "emptied"), [true]);
    let full = of("full", "came");
    assert!(full[0].as_str().unwrap().contains("OUT_OF_MEMORY") && full[1].as_str().unwrap().contains("304"));
    let table = fs::read_to_string(out.join("table.md")).unwrap();
    assert!(table.contains("Not a GPU") && table.contains("| freeze | 48 GiB | restore_us |"), "{table}");
}

#[test]
fn what_is_carried_to_another_machine_is_small() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench");
    let script = fs::read_to_string(folder.join("run.sh")).unwrap();
    assert!(script.len() <= 2_000, "{} characters", script.len());
    let server = fs::read_to_string(folder.join("torch_server.py")).unwrap();
    assert!(server.lines().count() < 150);
}
