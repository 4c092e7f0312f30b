//! Which room of the workspace may depend on which: the table of the design, kept by the machine.

use anyhow::{Result, bail};
use serde_json::Value;

use crate::tree;

/// A room and the rooms it may know besides [`EVERYBODY`]. Rooms that do not exist yet are here already.
const ROOMS: [(&str, &[&str]); 24] = [
    ("gateway", &["wire", "relay", "auth", "tasks", "control", "records"]),
    ("api", &["wire", "relay", "auth", "manifest", "control", "tasks", "events", "models", "records", "store", "sim"]),
    ("fc", &["wire", "relay", "auth", "manifest", "control", "tasks", "events", "models", "records", "store", "sim"]),
    (
        "knative",
        &["wire", "relay", "auth", "manifest", "control", "tasks", "events", "models", "records", "store", "sim"],
    ),
    ("wire", &[]),
    ("events", &["wire", "tasks", "relay", "control", "records", "queue", "store"]),
    ("tasks", &["wire", "queue", "relay", "control", "records", "store"]),
    ("relay", &["wire", "fleet", "control", "records"]),
    ("control", &["wire", "fleet", "engine", "freezer", "models", "records", "snapshot", "store"]),
    ("records", &["wire", "fleet", "store"]),
    ("engine", &["snapshot"]),
    ("snapshot", &[]),
    ("freezer", &[]),
    ("models", &["wire"]),
    ("auth", &["wire", "store"]),
    ("sim", &["fleet", "queue"]),
    ("store", &[]),
    ("manifest", &["wire"]),
    ("serverless", &["manifest"]),
    ("fleet", &[]),
    ("queue", &[]),
    ("infer", &[]),
    ("host", &[]),
    ("spec", &[]),
];

/// Rooms that all others may know. `spec` itself knows nothing, not even `host`.
const EVERYBODY: [&str; 2] = ["spec", "host"];

/// The binary, which may know every room.
const BINARY: &str = "kip";

/// Tools beside the rooms: they may know these, and no room may know them, not even for its tests. The stand-in of the GPU
/// driver is never shipped and knows nobody.
const TOOLS: [(&str, &[&str]); 2] = [("xtask", &["spec", "host", "manifest", "sim"]), ("kip-cuda-standin", &[])];

/// Fails on any arrow that the table does not have. Dependencies of tests and of build scripts count too.
pub(crate) fn run() -> Result<()> {
    let metadata = tree::metadata(&["--no-deps"])?;
    let faults = faults(&metadata);
    if !faults.is_empty() {
        bail!("arrows that the design does not have:\n  {}", faults.join("\n  "));
    }
    println!("arrows: the rooms know each other as the design says");
    Ok(())
}

fn faults(metadata: &Value) -> Vec<String> {
    let packages: Vec<&Value> = metadata["packages"].as_array().into_iter().flatten().collect();
    let ours: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut faults = Vec::new();
    for package in &packages {
        let Some(name) = package["name"].as_str() else { continue };
        if name != BINARY && room(name).is_none() && !TOOLS.iter().any(|(tool, _)| *tool == name) {
            faults.push(format!("{name}: the design has no such room"));
            continue;
        }
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            // A renamed dependency keeps its package's name here; the new one is under `rename`.
            let Some(other) = dependency["name"].as_str() else { continue };
            if (ours.contains(&other) || other.starts_with("kip-")) && !may_know(name, other) {
                let kind = dependency["kind"].as_str().map_or_else(String::new, |kind| format!(" ({kind}-dependency)"));
                faults.push(format!("{name} -> {other}{kind}"));
            }
        }
    }
    faults
}

fn may_know(name: &str, other: &str) -> bool {
    // A crate may use itself in its own tests, with other features.
    if name == other {
        return true;
    }
    let Some(other) = room(other) else { return false };
    if name == BINARY {
        return true;
    }
    if let Some((_, known)) = TOOLS.iter().find(|(tool, _)| *tool == name) {
        return known.contains(&other);
    }
    match room(name) {
        Some("spec") | None => false,
        Some("host") => other == "spec",
        Some(this) => {
            EVERYBODY.contains(&other) || ROOMS.iter().any(|(room, known)| *room == this && known.contains(&other))
        }
    }
}

/// The room of a package.
fn room(package: &str) -> Option<&'static str> {
    let folder = package.strip_prefix("kip-")?;
    ROOMS.iter().map(|(room, _)| *room).find(|room| *room == folder)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Value {
        let dependencies: Vec<Value> =
            dependencies.iter().map(|(name, kind)| json!({ "name": name, "kind": kind })).collect();
        json!({ "name": name, "dependencies": dependencies })
    }

    fn faults_of(packages: &[Value]) -> Vec<String> {
        faults(&json!({ "packages": packages }))
    }

    #[test]
    fn the_arrows_of_the_design_are_let_through() {
        let packages = [
            package("kip", &[("kip-gateway", None), ("kip-infer", None), ("kip-sim", Some("dev")), ("clap", None)]),
            package("kip-gateway", &[("kip-relay", None), ("kip-spec", None), ("kip-host", Some("dev"))]),
            package("kip-host", &[("kip-spec", None)]),
            package("kip-spec", &[("serde", None), ("kip-spec", Some("dev"))]),
            package("xtask", &[("kip-manifest", None)]),
            package("kip-freezer", &[("kip-spec", None), ("kip-host", None)]),
            package("kip-cuda-standin", &[("tempfile", Some("dev"))]),
        ];
        assert_eq!(faults_of(&packages), Vec::<String>::new());
    }

    #[test]
    fn any_other_arrow_is_caught() {
        let packages = [
            package("kip-fleet", &[("kip-store", None), ("kip-engine", Some("dev"))]),
            package("kip-spec", &[("kip-host", None)]),
            package("kip-host", &[("kip-fleet", None)]),
            package("kip-relay", &[("kip", Some("build")), ("xtask", None)]),
            package("kip", &[("xtask", None)]),
            package("kip-cellar", &[]),
            package("xtask", &[("kip-fleet", None)]),
            package("kip-freezer", &[("kip-fleet", None), ("kip-cuda-standin", Some("dev"))]),
            package("kip-cuda-standin", &[("kip-spec", None)]),
        ];
        assert_eq!(
            faults_of(&packages),
            [
                "kip-fleet -> kip-store",
                "kip-fleet -> kip-engine (dev-dependency)",
                "kip-spec -> kip-host",
                "kip-host -> kip-fleet",
                "kip-relay -> kip (build-dependency)",
                "kip-relay -> xtask",
                "kip -> xtask",
                "kip-cellar: the design has no such room",
                "xtask -> kip-fleet",
                "kip-freezer -> kip-fleet",
                "kip-freezer -> kip-cuda-standin (dev-dependency)",
                "kip-cuda-standin -> kip-spec",
            ]
        );
    }

    #[test]
    fn the_table_names_only_rooms_and_has_no_circle() {
        for (room, known) in ROOMS {
            for other in known {
                assert!(ROOMS.iter().any(|(name, _)| name == other), "{room} may know {other}, which is no room");
                assert!(!reaches(other, room, &mut Vec::new()), "{room} and {other} know each other");
            }
        }
    }

    fn reaches(from: &str, to: &str, seen: &mut Vec<String>) -> bool {
        if seen.iter().any(|room| room == from) {
            return false;
        }
        seen.push(from.to_owned());
        let known = ROOMS.iter().find(|(room, _)| *room == from).map_or([].as_slice(), |(_, known)| known);
        known.iter().any(|next| *next == to || reaches(next, to, seen))
    }
}
