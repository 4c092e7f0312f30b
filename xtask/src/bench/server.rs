//! A server to measure.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{command, root, show};

/// No measured step takes this long.
const LIMIT: u64 = 300_000;

pub(super) struct Server {
    folder: tempfile::TempDir,
    child: Child,
    pub(super) gateway: SocketAddr,
    pub(super) api: SocketAddr,
    key: String,
    pub(super) pid: u32,
    /// Starts the server by way of this command line.
    prefix: Vec<String>,
    /// The program that serves.
    program: PathBuf,
}

/// The `kip` that is measured, where it is not the usual one.
static KIP: OnceLock<PathBuf> = OnceLock::new();

/// Measures this program, somebody's earlier build perhaps.
pub(super) fn use_program(program: &str) -> Result<()> {
    let program = std::fs::canonicalize(program).with_context(|| format!("there is no program {program}"))?;
    KIP.get_or_init(|| program);
    Ok(())
}

/// Has `kip` built by this profile, without the model server, and uses that one.
pub(super) fn build_by(profile: &'static str) -> Result<()> {
    let arguments = ["build", "--quiet", "--profile", profile, "-p", "kip", "--bin", "kip", "--no-default-features"];
    show(command("cargo", &arguments))?;
    KIP.get_or_init(|| target().join(profile).join("kip"));
    Ok(())
}

fn target() -> PathBuf {
    kip_host::environment::read("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

pub(super) fn binary(name: &str) -> PathBuf {
    let other = KIP.get().filter(|_| name == "kip").cloned();
    other.unwrap_or_else(|| target().join("release").join(name))
}

/// Asks again and again until something is so.
pub(super) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let end = kip_host::clock::boot_millis() + LIMIT;
    while kip_host::clock::boot_millis() < end {
        if let Some(found) = look() {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    bail!("waited in vain until {what}")
}

impl Server {
    /// One with these lines of `kipwake.toml`.
    pub(super) fn start_with(settings: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("data"))?;
        std::fs::write(folder.path().join("data/kipwake.toml"), settings)?;
        Self::start_in(folder, &[], binary("kip"))
    }

    pub(super) fn start(prefix: &[&str]) -> Result<Self> {
        Self::start_in(tempfile::tempdir()?, prefix, binary("kip"))
    }

    /// One with a fail point of the test build.
    pub(crate) fn start_at(fail_point: &str) -> Result<Self> {
        let variable = format!("KIPWAKE_FAIL_POINT={fail_point}");
        Self::start(&["env", &variable])
    }

    /// One of another build, with two threads.
    pub(super) fn of(program: PathBuf) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("data"))?;
        std::fs::write(folder.path().join("data/kipwake.toml"), "[server]\nthreads = 2\n")?;
        Self::start_in(folder, &[], program)
    }

    fn start_in(folder: tempfile::TempDir, prefix: &[&str], program: PathBuf) -> Result<Self> {
        let prefix: Vec<String> = prefix.iter().map(|word| (*word).to_owned()).collect();
        let nobody = SocketAddr::from(([127, 0, 0, 1], 0));
        let child = spawn(&prefix, &program, &folder, nobody)?;
        let mut server =
            Self { folder, child, gateway: nobody, api: nobody, key: String::new(), pid: 0, prefix, program };
        server.wait_ready()?;
        Ok(server)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let mut line = String::new();
        BufReader::new(self.child.stdout.take().context("it has a standard output")?).read_line(&mut line)?;
        let ready: Value = serde_json::from_str(&line).context("the server did not start")?;
        let address = |name: &str| ready[name].as_str().unwrap_or_default().trim_start_matches("http://").parse();
        (self.gateway, self.api) = (address("gateway")?, address("api")?);
        self.key = ready["key"].as_str().unwrap_or_default().to_owned();
        self.pid = u32::try_from(ready["pid"].as_u64().unwrap_or_default())?;
        Ok(())
    }

    /// Kills it and starts the next one on the same port; does not wait until that is ready.
    pub(super) fn replace(&mut self) -> Result<()> {
        self.replace_after(|_| Ok(()))
    }

    /// The same, with something done to its data folder while there is no server.
    pub(super) fn replace_after(&mut self, work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        work(&self.folder.path().join("data"))?;
        self.child = spawn(&self.prefix, &self.program, &self.folder, self.gateway)?;
        Ok(())
    }

    /// What the server logged since its last start, the lines with this word.
    pub(super) fn logged(&self, word: &str) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains(word)).collect::<Vec<_>>().join("\n")
    }

    /// A folder that goes with it.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its administrator's key.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn settle(&mut self) -> Result<()> {
        self.wait_ready()
    }

    pub(super) fn deploy(&self, functions: &str) -> Result<()> {
        let text = format!("api: kip/v1\nfunctions:\n{functions}");
        let body = serde_json::json!({"file": "kip.yaml", "text": text, "directory": self.folder.path()}).to_string();
        let (status, answer) = exchange(self.api, "POST", "/api/v1/deployments", &self.key, body.as_bytes())?;
        if status != 200 {
            bail!("the deployment was refused: {answer}");
        }
        Ok(())
    }

    pub(super) fn ask(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&exchange(self.api, "GET", path, &self.key, b"")?.1)?)
    }

    /// Calls a function on a connection of its own; microseconds to the whole answer.
    pub(super) fn call(&self, target: &str) -> Result<u64> {
        let begin = kip_host::clock::monotonic_micros();
        let (status, answer) = exchange(self.gateway, "GET", target, "", b"")?;
        if status != 200 {
            bail!("{target}: {status} {answer}");
        }
        Ok(kip_host::clock::monotonic_micros() - begin)
    }

    /// Runs a command of its program.
    pub(super) fn kip(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.arg("--data-dir").arg(self.folder.path().join("data")).args(arguments);
        let output = command.output()?;
        if !output.status.success() {
            bail!("kip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(super) fn states(&self, state: &str) -> Result<usize> {
        let all = self.ask("/api/v1/instances")?;
        Ok(all.as_array().map_or(0, |all| all.iter().filter(|one| one["state"] == state).count()))
    }

    /// The server's resident memory in bytes.
    pub(super) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1_024
    }

    /// The server's CPU time in milliseconds.
    pub(super) fn cpu(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        (ticks(11) + ticks(12)) * 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stop = exchange(self.api, "POST", "/api/v1/stop", &self.key, b"{}");
        if stop.is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        let _ = self.kip(&["stop"]);
    }
}

fn spawn(prefix: &[String], kip: &Path, folder: &tempfile::TempDir, gateway: SocketAddr) -> Result<Child> {
    let mut command = match prefix.split_first() {
        Some((program, rest)) => {
            let mut command = Command::new(program);
            command.args(rest).arg(kip);
            command
        }
        None => Command::new(kip),
    };
    command.arg("--data-dir").arg(folder.path().join("data"));
    command.args(["serve", "-o", "json", "--api", "127.0.0.1:0", "--gateway", &gateway.to_string()]);
    let log = std::fs::File::create(folder.path().join("log"))?;
    command.env("KIPWAKE_LOG", "info").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    command.spawn().context("the server cannot be started")
}

/// One request on a connection of its own: the status and the body.
pub(super) fn exchange(to: SocketAddr, method: &str, target: &str, key: &str, body: &[u8]) -> Result<(u16, String)> {
    let (status, _, answer) = exchange_whole(to, method, target, key, body)?;
    Ok((status, answer))
}

/// A status, headers by their names in lower case, and a body.
type Answer = (u16, BTreeMap<String, String>, String);

/// The same, with the headers of the answer.
pub(super) fn exchange_whole(to: SocketAddr, method: &str, target: &str, key: &str, body: &[u8]) -> Result<Answer> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(LIMIT)))?;
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no answer")?;
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse::<u64>().ok());
    let mut answer = Vec::new();
    match length {
        Some(length) => reader.take(length).read_to_end(&mut answer)?,
        None => reader.read_to_end(&mut answer)?,
    };
    Ok((status, headers, String::from_utf8_lossy(&answer).into_owned()))
}
