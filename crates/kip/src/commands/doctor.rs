//! `kip doctor`: what this host offers, what the server says, and what is amiss.

use std::os::unix::fs::MetadataExt;

use kip_host::directory::DataDirectory;
use kip_host::disk::Kind;
use kip_spec::people;
use kip_wire::{HostInfo, InstanceInfo, ServerInfo};
use serde::Serialize;

use super::survival::{HostRisk, dangers};
use super::{containers, gpu};
use crate::arguments::Connection;
use crate::client::{Client, data_directory};
use crate::config::{Config, FILE, Flags};
use crate::output::{Output, clock};
use crate::problem::AlreadyPrinted;
use crate::serve::FEW_FILES;
use crate::start;

/// How long the server may take to answer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// One finding.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) what: &'static str,
    pub(super) state: State,
    pub(super) detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    Note,
    Bad,
}

pub(crate) async fn run(connection: &Connection, output: Output) -> anyhow::Result<()> {
    let mut findings = vec![data(connection), settings(connection), files()];
    findings.extend(file_system(connection));
    findings.extend(server(connection).await);
    findings.extend(containers::finding(connection).await.map(|report| Finding {
        what: "containers",
        state: if report.usable { State::Ok } else { State::Note },
        detail: report.detail,
        hint: report.hint,
    }));
    findings.extend(gpu::findings(connection).await);
    output.result(&findings, |findings| {
        let line = |finding: &Finding| {
            let mark = match finding.state {
                State::Ok => "ok  ",
                State::Note => "note",
                State::Bad => "BAD ",
            };
            let hint = finding.hint.as_deref().map(|hint| format!("\n      try: {hint}")).unwrap_or_default();
            format!("{mark}  {:<16} {}{hint}\n", finding.what, finding.detail)
        };
        findings.iter().map(line).collect()
    })?;
    // Notes are no fault.
    match findings.iter().any(|finding| finding.state == State::Bad) {
        true => Err(AlreadyPrinted.into()),
        false => Ok(()),
    }
}

fn data(connection: &Connection) -> Finding {
    let what = "data directory";
    match data_directory(connection) {
        Ok(path) if path.is_dir() => match tempfile::tempfile_in(&path) {
            Ok(_) => Finding { what, state: State::Ok, detail: path.display().to_string(), hint: None },
            Err(error) => Finding {
                what,
                state: State::Bad,
                detail: format!("{}: {error}", path.display()),
                hint: Some("name a directory that you may write to: --data-dir DIR".to_owned()),
            },
        },
        Ok(path) => {
            Finding { what, state: State::Note, detail: format!("{} will be made", path.display()), hint: None }
        }
        Err(error) => Finding { what, state: State::Bad, detail: error.to_string(), hint: None },
    }
}

/// Whether a server that starts now would take its settings.
fn settings(connection: &Connection) -> Finding {
    let (what, bad) = ("settings", State::Bad);
    let read = data_directory(connection).map_err(|error| (error.to_string(), None)).and_then(|path| {
        let config = Config::read(&path, None, &Flags::default()).map_err(|problem| (problem.message, problem.hint))?;
        let tls = config
            .tls
            .as_ref()
            .map(|tls| kip_host::tls::Certificate::open(tls.files.clone(), kip_host::tls::NamedCertificates::default()))
            .transpose();
        tls.map_err(|error| (error.to_string(), Some("tls.certificate and tls.key name its files".to_owned())))?;
        Ok(config)
    });
    match read {
        Ok(config) => {
            let tls = config.tls.map(|tls| format!(", over TLS on {}", tls.listen)).unwrap_or_default();
            let detail = format!(
                "usable: a server that starts listens on {} (gateway){tls} and {} (API)",
                config.gateway, config.api
            );
            Finding { what, state: State::Ok, detail, hint: None }
        }
        Err((detail, hint)) => Finding { what, state: bad, detail, hint },
    }
}

/// A warning about the kind of file system that state is on.
fn file_system(connection: &Connection) -> Option<Finding> {
    let path = data_directory(connection).ok()?;
    let (state, detail) = match kip_host::disk::kind(&path).ok()? {
        Kind::Local => return None,
        Kind::Network(name) => (State::Bad, format!("the data directory is on a network file system ({name})")),
        Kind::Memory(name) => {
            (State::Bad, format!("the data directory is in memory ({name}): all state is gone with the power"))
        }
    };
    let hint = Some("choose a local disk: --data-dir DIR".to_owned());
    Some(Finding { what: "file system", state, detail, hint })
}

/// The disk and the state on it, as the server sees them.
fn disk(host: &HostInfo) -> Vec<Finding> {
    let disk = &host.disk;
    let detail = format!("{} free, {}", people::size_of(disk.free, disk.total), disk.level);
    let (state, hint) = match disk.level.as_str() {
        "ok" => (State::Ok, None),
        "low" => (State::Note, Some("make room: records and logs are left out".to_owned())),
        _ => (State::Bad, Some("make room: only state is written, and only while its reserve lasts".to_owned())),
    };
    let mut findings = vec![Finding { what: "disk", state, detail, hint }];
    if !disk.reserve_held {
        let hint = Some("make room; it is made again by itself".to_owned());
        findings.push(Finding { what: "reserve", state: State::Note, detail: "not held".to_owned(), hint });
    }
    if !disk.takes_changes() {
        let detail = match &disk.state_detail {
            Some(detail) => format!("not durable ({detail}): deployments and removals are refused"),
            None => "no room: deployments and removals are refused".to_owned(),
        };
        let hint = match disk.state.as_str() {
            "full" => "make room; changes are taken again by themselves (KW-8011)",
            _ => "look at the disk (dmesg), then start the server again (KW-8012)",
        };
        findings.push(Finding { what: "state", state: State::Bad, detail, hint: Some(hint.to_owned()) });
    }
    findings
}

/// What keeps functions from the server. A server of root without that is a fault.
fn isolation(about: &ServerInfo) -> Finding {
    let missing = about.isolation_missing.as_deref();
    let root = std::fs::metadata(format!("/proc/{}", about.pid)).is_ok_and(|server| server.uid() == 0);
    let (state, hint) = match (about.isolated, missing) {
        (true, None) => (State::Ok, None),
        (true, Some(_)) => (State::Note, Some("docs/hardening.md says what it means")),
        (false, _) if root => (State::Bad, Some("set functions.user = \"own\", or run the server as an ordinary user")),
        (false, _) => {
            (State::Note, Some("a key with the role deploy is the server's user; docs/hardening.md says what helps"))
        }
    };
    let detail = missing.map_or_else(|| about.isolation.clone(), |missing| format!("{}; {missing}", about.isolation));
    Finding { what: "isolation", state, detail, hint: hint.map(str::to_owned) }
}

fn files() -> Finding {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let (state, hint) = if limit < FEW_FILES {
        (State::Note, Some(format!("raise it before `kip serve`: ulimit -n {}", FEW_FILES * 4)))
    } else {
        (State::Ok, None)
    };
    Finding { what: "open files", state, detail: format!("{limit} allowed for a process"), hint }
}

/// A server that holds the data directory and does not answer.
fn silent_server(connection: &Connection) -> Option<Finding> {
    let data = data_directory(connection).ok()?;
    let found = crate::client::found(&data)?;
    let holds = matches!(DataDirectory::lock(&data), Err(kip_host::directory::Error::InUse { .. }));
    holds.then(|| Finding {
        what: "server",
        state: State::Bad,
        detail: format!("process {} holds the data directory and does not answer on {}", found.pid, found.api),
        hint: Some(format!(
            "look at the end of {}; `kill {}` ends it and keeps its instances, `kip serve` adopts them",
            data.join("server.log").display(),
            found.pid
        )),
    })
}

/// A server reads its settings once, when it starts.
fn settings_changed(connection: &Connection) -> Option<Finding> {
    let data = data_directory(connection).ok().filter(|_| connection.api.is_none())?;
    let modified = |name: &str| std::fs::metadata(data.join(name)).and_then(|file| file.modified()).ok();
    let newer = modified(FILE)? > modified(crate::client::FOUND)?;
    newer.then(|| Finding {
        what: "settings",
        state: State::Note,
        detail: format!("{FILE} changed after the server started; the server still uses the earlier settings"),
        hint: Some(
            "restart the server: `kill` its process (instances stay) or `kip stop`, then `kip serve`".to_owned(),
        ),
    })
}

/// Ports of the settings on which another program listens.
fn taken_ports(connection: &Connection) -> Vec<Finding> {
    let Some(config) =
        data_directory(connection).ok().and_then(|data| Config::read(&data, None, &Flags::default()).ok())
    else {
        return Vec::new();
    };
    let tls = config.tls.as_ref().map(|tls| ("tls.listen", tls.listen));
    let all = [("server.gateway", config.gateway), ("server.api", config.api)].into_iter().chain(tls);
    let taken = all.filter_map(|(key, address)| {
        let error = std::net::TcpListener::bind(address).err()?;
        Some(Finding {
            what: "port",
            state: State::Bad,
            detail: format!("a server cannot listen on {address} ({key}): {error}"),
            hint: Some(format!("`ss -ltnp` shows the program that listens there; or set {key} to another address")),
        })
    });
    taken.collect()
}

async fn server(connection: &Connection) -> Vec<Finding> {
    let find = async {
        let client = match data_directory(connection) {
            Ok(data) if connection.api.is_none() => start::running(&data).await,
            _ => Client::find(connection).ok(),
        }?;
        let status = client.status().await.ok()?;
        Some((client, status))
    };
    // One that hangs takes the connection and never answers.
    let (client, status) = tokio::time::timeout(PATIENCE, find).await.ok().flatten().unzip();
    let Some(status) = status else {
        if let Some(address) = &connection.api {
            let hint = Some("check the address, or start a server there with `kip serve`".to_owned());
            return vec![Finding {
                what: "server",
                state: State::Bad,
                detail: format!("none answers at {address}"),
                hint,
            }];
        }
        if let Some(silent) = silent_server(connection) {
            return vec![silent];
        }
        let hint = Some("`kip serve` or `kip up DIR` starts one".to_owned());
        let mut findings =
            vec![Finding { what: "server", state: State::Note, detail: "none answers".to_owned(), hint }];
        findings.extend(taken_ports(connection));
        return findings;
    };
    let about = &status.about;
    let changed = settings_changed(connection).into_iter();
    let mut findings: Vec<Finding> = changed
        .chain([
            Finding {
                what: "server",
                state: State::Ok,
                detail: format!(
                    "version {}, process {}, {} functions, {} instances",
                    about.version, about.pid, status.functions, status.instances
                ),
                hint: None,
            },
            Finding {
                what: "listens",
                state: State::Ok,
                detail: format!("gateway on {}, API on {}", about.gateway, about.api),
                hint: None,
            },
            Finding { what: "pause", state: State::Ok, detail: about.pause_method.clone(), hint: None },
        ])
        .collect();
    if let Some(reason) = &about.cgroup_missing {
        let hint = Some(
            "run as root or with a delegated cgroup: forks that leave their process group are then ended for sure"
                .to_owned(),
        );
        findings.push(Finding { what: "cgroup", state: State::Note, detail: reason.clone(), hint });
    }
    let limits = match &about.limits_missing {
        Some(missing) => (State::Note, missing.clone()),
        None => (State::Ok, "resources.memory and resources.cpu are enforced".to_owned()),
    };
    findings.push(Finding { what: "limits", state: limits.0, detail: limits.1, hint: None });
    findings.push(isolation(about));
    findings.extend(disk(&status.host));
    if status.host.dropped_log_lines > 0 {
        let detail = format!("{} lines could not be written since the start", status.host.dropped_log_lines);
        let hint = Some("make room on the disk of server.log, or let somebody read standard error".to_owned());
        findings.push(Finding { what: "server log", state: State::Note, detail, hint });
    }
    for event in status.events.iter().rev().take(3).rev() {
        let detail = format!("{} {}", clock(event.at), event.what);
        findings.push(Finding { what: "event", state: State::Note, detail, hint: None });
    }
    if let Some(client) = &client {
        let instances: Vec<InstanceInfo> = client.get("/api/v1/instances").await.unwrap_or_default();
        let processes: Vec<u32> = instances.iter().filter_map(|instance| instance.process).collect();
        for HostRisk { detail, hint } in dangers(about.pid, &processes) {
            findings.push(Finding { what: "survival", state: State::Note, detail, hint: Some(hint) });
        }
    }
    for device in &status.host.devices {
        let detail = format!(
            "{} (number {}): {} reserved",
            device.name,
            device.number,
            people::size_of(device.granted, device.memory)
        );
        findings.push(Finding { what: "declared device", state: State::Ok, detail, hint: None });
    }
    if status.host.waiting_for_room > 0 {
        findings.push(Finding {
            what: "memory",
            state: State::Bad,
            detail: format!(
                "{} instances wait for room; {} of memory reserved",
                status.host.waiting_for_room,
                people::size_of(status.host.reserved_memory, status.host.memory)
            ),
            hint: Some("lower resources.memory, or raise host.memory in kipwake.toml".to_owned()),
        });
    }
    findings
}
