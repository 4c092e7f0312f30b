//! The systemd units: written, shown, checked by systemd's own tool where it is there, removed.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{CommandOutput, kip, run};

fn service(home: &Path, arguments: &[&str]) -> CommandOutput {
    let mut command = kip(&home.join("da ta"));
    command.env("XDG_CONFIG_HOME", home).arg("service").args(arguments);
    run(&mut command)
}

#[test]
fn units_are_shown_without_being_written() {
    let home = tempfile::tempdir().unwrap();
    let shown = service(home.path(), &["install", "--user", "--print"]).ok();
    for part in ["KillMode=process", "Delegate=yes", "Slice=kipwake.slice", "kipwake.service", "/da ta\" serve"] {
        assert!(shown.stdout.contains(part), "{shown:?}");
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    let json = service(home.path(), &["install", "--print", "-o", "json"]).ok().json();
    assert_eq!(json[0]["path"], "/etc/systemd/system/kipwake.service");
}

#[test]
fn a_users_units_are_installed_and_removed() {
    if Path::new("/run/systemd/system").is_dir() {
        println!("skipped: systemd runs here, and its own units are not for a test to change");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let none = service(home.path(), &["status", "--user"]).ok();
    assert!(none.stdout.contains("kip service install"), "{none:?}");
    let installed = service(home.path(), &["install", "--user"]).ok();
    assert!(installed.stdout.contains("systemd does not run here"), "{installed:?}");
    let folder = home.path().join("systemd/user");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 5);
    let status = service(home.path(), &["status", "--user", "-o", "json"]).ok().json();
    assert_eq!(status["units"].as_array().unwrap().len(), 5, "{status}");
    service(home.path(), &["install", "--user"]).ok();
    service(home.path(), &["uninstall", "--user"]).ok();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    assert!(service(home.path(), &["uninstall", "--user"]).ok().stdout.contains("there was no unit"));
}

#[test]
fn systemd_finds_nothing_wrong_with_them() {
    if Path::new("/run/systemd/system").is_dir() {
        println!("skipped: systemd runs here, and its own units are not for a test to change");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    service(home.path(), &["install", "--user"]).ok();
    let folder = home.path().join("systemd/user");
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]);
    for name in [
        "kipwake.service",
        "kipwake-instances.service",
        "kipwake.slice",
        "kipwake-gateway.socket",
        "kipwake-api.socket",
    ] {
        command.arg(folder.join(name));
    }
    let Ok(output) = command.output() else {
        println!("skipped: there is no systemd-analyze here");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("kipwake")).collect();
    assert!(ours.is_empty(), "{said}");
}
