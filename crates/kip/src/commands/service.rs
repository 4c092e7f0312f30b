//! `kip service`: a systemd unit whose restart keeps instances, sockets whose callers wait for it, and a slice whose stop ends
//! them all.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use kip_engine::InstanceUser;
use kip_host::environment::read;
use kip_spec::{Problem, code};
use serde::Serialize;

use super::survival::is_systemd_running;
use crate::arguments::{Connection, Install, Service};
use crate::client::data_directory;
use crate::config::{Config, Flags};
use crate::output::Output;

const SERVER: &str = "kipwake.service";
const INSTANCES: &str = "kipwake-instances.service";
const SLICE: &str = "kipwake.slice";
/// Sockets, each with the name that the server knows it by.
const SOCKETS: [(&str, &str); 3] =
    [("kipwake-gateway.socket", "gateway"), ("kipwake-api.socket", "api"), ("kipwake-tls.socket", "tls")];

/// A file of the service manager.
#[derive(Debug, Serialize)]
struct Unit {
    path: PathBuf,
    text: String,
}

impl Unit {
    /// Its name, if it is a socket's.
    fn socket(&self) -> Option<String> {
        let name = self.path.file_name()?.to_str()?;
        name.ends_with(".socket").then(|| name.to_owned())
    }
}

/// What was done, or what there is.
#[derive(Debug, Serialize)]
struct Report {
    units: Vec<PathBuf>,
    /// What the service manager says of the server; none where systemd does not run.
    state: Option<String>,
    note: Option<&'static str>,
}

const NO_SYSTEMD: &str = "systemd does not run here: the units take effect where it does";

pub(crate) fn run(connection: &Connection, command: &Service, output: Output) -> anyhow::Result<()> {
    match command {
        Service::Install(options) => install(connection, options, output),
        Service::Uninstall { user } => uninstall(*user, output),
        Service::Status { user } => {
            let folder = folder(*user)?;
            let units: Vec<PathBuf> = names().map(|name| folder.join(name)).filter(|path| path.exists()).collect();
            report(*user, units, output, "there is no unit; `kip service install` writes it")
        }
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    [SERVER, INSTANCES, SLICE].into_iter().chain(SOCKETS.map(|(name, _)| name))
}

/// Where units are kept.
fn folder(user: bool) -> anyhow::Result<PathBuf> {
    if !user {
        return Ok("/etc/systemd/system".into());
    }
    let base =
        read("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(read("HOME")?).join(".config")));
    let base = base.ok_or_else(|| Problem::new(code::SERVICE_FAILED, "there is no home to keep a user's unit in"))?;
    Ok(base.join("systemd/user"))
}

fn install(connection: &Connection, options: &Install, output: Output) -> anyhow::Result<()> {
    let data = data_directory(connection)?;
    let folder = folder(options.user)?;
    let program = std::env::current_exe()?;
    let config = Config::read(&data, None, &Flags::default())?;
    let addresses = [Some(config.gateway), Some(config.api), config.tls.map(|tls| tls.listen)];
    let owner = if options.user { None } else { Some(owner(&data)) };
    let is_root = owner.as_deref() == Some("root");
    if is_root && config.isolation.user == InstanceUser::Server {
        return Err(Problem::new(code::SERVICE_FAILED, "the service would run every function as root")
            .cause("functions.user is \"server\", and the data directory belongs to root")
            .hint("set functions.user = \"own\" in kipwake.toml, or name a data directory of an ordinary user: --data-dir DIR")
            .into());
    }
    if is_root && !options.print {
        output.remark(
            "the server will run as root, which it needs to give each function a user id of its own; `kip doctor` shows whether that works here. \
             For a server of an ordinary user, name a data directory that belongs to this user",
        );
    }
    let units = units(&program, &data, &folder, owner.as_deref(), addresses)?;
    if options.print {
        return output.result(&units, |units| {
            units.iter().map(|unit| format!("# {}\n{}\n", unit.path.display(), unit.text)).collect()
        });
    }
    for unit in &units {
        write(unit).map_err(|error| {
            Problem::new(code::SERVICE_FAILED, format!("{} cannot be written", unit.path.display()))
                .cause(error.to_string())
                .hint("run as root, or install for yourself: kip service install --user")
        })?;
    }
    if is_systemd_running() {
        systemctl(options.user, &["daemon-reload"])?;
        let sockets: Vec<String> = units.iter().filter_map(Unit::socket).collect();
        let sockets = sockets.iter().map(String::as_str);
        systemctl(options.user, &["enable", "--now"].into_iter().chain(sockets).chain([SERVER]).collect::<Vec<_>>())?;
    }
    let paths = units.into_iter().map(|unit| unit.path).collect();
    report(options.user, paths, output, "")
}

fn write(unit: &Unit) -> std::io::Result<()> {
    if let Some(folder) = unit.path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let temporary = unit.path.with_extension("new");
    std::fs::write(&temporary, &unit.text)?;
    std::fs::rename(&temporary, &unit.path)
}

fn uninstall(user: bool, output: Output) -> anyhow::Result<()> {
    let folder = folder(user)?;
    let there: Vec<PathBuf> = names().map(|name| folder.join(name)).filter(|path| path.exists()).collect();
    if is_systemd_running() && !there.is_empty() {
        systemctl(user, &["stop", SLICE])?;
        let there = there.iter().filter_map(|path| path.file_name()?.to_str());
        let enabled = there.filter(|name| *name == SERVER || name.ends_with(".socket"));
        systemctl(user, &["disable"].into_iter().chain(enabled).collect::<Vec<_>>())?;
    }
    for path in &there {
        std::fs::remove_file(path).map_err(|error| {
            Problem::new(code::SERVICE_FAILED, format!("{} cannot be removed", path.display()))
                .cause(error.to_string())
                .hint("run as the one who installed it")
        })?;
    }
    if is_systemd_running() {
        systemctl(user, &["daemon-reload"])?;
    }
    output.result(&serde_json::json!({"removed": there}), |_| match there.len() {
        0 => "there was no unit\n".to_owned(),
        _ => there.iter().map(|path| format!("removed {}\n", path.display())).collect(),
    })
}

fn report(user: bool, units: Vec<PathBuf>, output: Output, none: &str) -> anyhow::Result<()> {
    let running = is_systemd_running();
    let state = running.then(|| ask(user, &["is-active", SERVER]));
    let report = Report { units, state, note: (!running).then_some(NO_SYSTEMD) };
    output.result(&report, |report| {
        let mut text: String = report.units.iter().map(|path| format!("unit  {}\n", path.display())).collect();
        if report.units.is_empty() {
            text.push_str(&format!("{none}\n"));
        }
        if let Some(state) = &report.state {
            text.push_str(&format!("state {state}\n"));
        }
        if let Some(note) = report.note {
            text.push_str(&format!("note  {note}\n"));
        }
        text
    })
}

fn command(user: bool, arguments: &[&str]) -> Command {
    let mut command = Command::new("systemctl");
    if user {
        command.arg("--user");
    }
    command.args(arguments);
    command
}

fn ask(user: bool, arguments: &[&str]) -> String {
    let output = command(user, arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn systemctl(user: bool, arguments: &[&str]) -> Result<(), Problem> {
    let failed = |cause: String| {
        Problem::new(code::SERVICE_FAILED, format!("systemctl {} failed", arguments.join(" ")))
            .cause(cause)
            .hint(format!("look at: systemctl{} status {SERVER}", if user { " --user" } else { "" }))
    };
    let output = command(user, arguments).output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// What neither a server nor a function needs. Functions inherit it; what follows is nothing that a program for AI models could miss.
const HARDENING: &str = "LockPersonality=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
";
/// The same for what only the system's manager can take away.
const SYSTEM_HARDENING: &str = "ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
";

/// As whom a server runs on a data directory: its owner; one that is not there yet is made by who installs.
fn owner(data: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::metadata(data).map_or_else(|_| rustix::process::geteuid().as_raw(), |about| about.uid());
    crate::client::user_name(owner).unwrap_or_else(|| owner.to_string())
}

/// The unit's files. `owner` is the user of a unit of the system; a user's own manager has none. `KillMode=process`: stopping the server's unit ends the server only. The second service is stopped
/// before the first, but not with it: only stopping the slice stops both, and then `kip stop` ends all instances.
fn units(
    program: &Path,
    data: &Path,
    folder: &Path,
    owner: Option<&str>,
    addresses: [Option<SocketAddr>; 3],
) -> Result<Vec<Unit>, Problem> {
    let (kip, data) = (quoted(program)?, quoted(data)?);
    // A port that is to be picked cannot be held open for the next server.
    let held = SOCKETS.into_iter().zip(addresses);
    let held: Vec<_> = held.filter_map(|(socket, at)| Some((socket, at.filter(|at| at.port() > 0)?))).collect();
    let names: Vec<&str> = held.iter().map(|((name, _), _)| *name).collect();
    let sockets = if names.is_empty() { String::new() } else { format!("Sockets={}\n", names.join(" ")) };
    let wanted = if owner.is_some() { "multi-user.target" } else { "default.target" };
    let hardening = match owner {
        Some(owner) => format!("User={owner}\n{HARDENING}{SYSTEM_HARDENING}"),
        None => HARDENING.to_owned(),
    };
    let server = format!(
        "[Unit]
Description=Kipwake, function compute for AI models
Wants={INSTANCES}

[Service]
Type=exec
ExecStart={kip} --data-dir {data} serve
{sockets}Slice={SLICE}
Delegate=yes
KillMode=process
Restart=on-failure
RestartSec=1s
LimitNOFILE=65536
LimitCORE=0
{hardening}
[Install]
WantedBy={wanted}
"
    );
    let instances = format!(
        "[Unit]
Description=The instances of Kipwake, which end with its slice
After={SERVER}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={kip} --version
ExecStop={kip} --data-dir {data} stop
Slice={SLICE}
TimeoutStopSec=10min
"
    );
    let slice = "[Unit]
Description=Kipwake and its instances
"
    .to_owned();
    let socket = |name: &str, address: SocketAddr| {
        format!(
            "[Unit]
Description=Callers of Kipwake, who wait here while it restarts ({name})

[Socket]
ListenStream={address}
FileDescriptorName={name}
Service={SERVER}
Slice={SLICE}
Backlog=4096

[Install]
WantedBy=sockets.target
"
        )
    };
    let sockets = held.into_iter().map(|((unit, name), address)| (unit, socket(name, address)));
    let texts = [(SERVER, server), (INSTANCES, instances), (SLICE, slice)];
    Ok(texts.into_iter().chain(sockets).map(|(name, text)| Unit { path: folder.join(name), text }).collect())
}

/// A path as a word of a unit's command line.
fn quoted(path: &Path) -> Result<String, Problem> {
    let text = path.to_str().filter(|text| !text.chars().any(char::is_control)).ok_or_else(|| {
        Problem::new(code::SERVICE_FAILED, format!("{} cannot be named in a unit", path.display()))
            .hint("move it to a path of printable characters")
    })?;
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    Ok(format!("\"{escaped}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_keeps_instances_and_the_slice_ends_them() {
        let address = |text: &str| Some(text.parse().unwrap());
        let addresses = [address("127.0.0.1:5470"), address("127.0.0.1:0"), None];
        let made =
            units(Path::new("/opt/ki p"), Path::new("/data/50%$"), Path::new("/etc"), Some("ai"), addresses).unwrap();
        let text: Vec<&str> = made.iter().map(|unit| unit.text.as_str()).collect();
        assert!(text[0].contains("KillMode=process\n") && text[0].contains("Delegate=yes\n"), "{}", text[0]);
        assert!(text[0].contains("ExecStart=\"/opt/ki p\" --data-dir \"/data/50%%$$\" serve\n"), "{}", text[0]);
        assert!(text[0].contains("\nUser=ai\nLockPersonality=yes\n") && text[0].contains("ProtectKernelModules=yes\n"));
        let own = units(Path::new("/kip"), Path::new("/data"), Path::new("/home"), None, addresses).unwrap();
        assert!(!own[0].text.contains("User=") && own[0].text.contains("RestrictSUIDSGID=yes\n"), "{}", own[0].text);
        assert!(!own[0].text.contains("ProtectKernel"), "a user's manager cannot: {}", own[0].text);
        assert!(text[0].contains("Slice=kipwake.slice\n") && text[1].contains("Slice=kipwake.slice\n"));
        assert!(text[1].contains("\" stop\n") && !text[1].contains("Requires") && !text[1].contains("PartOf"));
        assert!(text[0].contains("\nSockets=kipwake-gateway.socket\n"), "{}", text[0]);
        assert_eq!(text.len(), 4, "a port that is picked at each start has no socket of its own");
        assert!(text[3].contains("ListenStream=127.0.0.1:5470\nFileDescriptorName=gateway\n"), "{}", text[3]);
        // Or a caller would start the server again after the slice was stopped.
        assert!(text[3].contains("Slice=kipwake.slice\n"), "{}", text[3]);
        assert!(quoted(Path::new("/a\nb")).is_err());
    }
}
