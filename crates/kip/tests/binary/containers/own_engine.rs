//! An engine of a test's own, which it may kill and start again.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::bodies::{Engine, IMAGE, answers, ask_engine, engine, use_socket};
use crate::support::{ChildGuard, kill, until_true, until_within};

/// Its network, which no other engine of the tests has.
const BRIDGE: &str = "kip-own0";
const ADDRESS: &str = "172.29.83.1/24";

/// A daemon that ends with its test, and everything that it runs.
pub(crate) struct OwnEngine {
    kind: Engine,
    folder: tempfile::TempDir,
    daemon: Option<ChildGuard>,
    live_restore: bool,
}

impl OwnEngine {
    /// Of the kind that this thread's test runs on, with the image of the subject. Servers that start from now on use it.
    pub(crate) fn start(live_restore: bool) -> Self {
        let kind = engine().expect("an engine");
        let folder = tempfile::Builder::new().prefix("kip-own-").tempdir().unwrap();
        let mut own = Self { kind, folder, daemon: None, live_restore };
        if kind == Engine::Docker {
            let ip = |words: &[&str]| Command::new("ip").args(words).stderr(Stdio::null()).status().unwrap();
            ip(&["link", "delete", BRIDGE]);
            assert!(ip(&["link", "add", BRIDGE, "type", "bridge"]).success());
            assert!(ip(&["address", "add", ADDRESS, "dev", BRIDGE]).success());
            assert!(ip(&["link", "set", BRIDGE, "up"]).success());
        }
        own.run();
        if kind == Engine::Docker {
            // Its store is its own: the image comes from the common engine.
            let (status, image) = kind.ask("GET", &format!("/v1.41/images/{IMAGE}/get"), Vec::new());
            assert_eq!(status, 200);
            let (status, said) = ask_engine(&own.socket(), "POST", "/v1.41/images/load", image);
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(&said));
        }
        use_socket(&own.socket());
        own
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.at("engine.sock")
    }

    /// Starts the daemon, and waits until it answers.
    pub(crate) fn run(&mut self) {
        let host = format!("unix://{}", self.socket().display());
        let mut command = match self.kind {
            Engine::Docker => {
                let mut command = Command::new("dockerd");
                let at = |name: &str| self.at(name).display().to_string();
                let settings = [
                    ("--data-root", at("docker")),
                    ("--exec-root", at("run")),
                    ("--pidfile", at("docker.pid")),
                    ("--bridge", BRIDGE.to_owned()),
                    ("--host", host),
                ];
                command.args(settings.iter().flat_map(|(name, value)| [(*name).to_owned(), value.clone()]));
                command.arg(format!("--live-restore={}", self.live_restore));
                // One that was killed leaves it.
                let _ = fs::remove_file(self.at("docker.pid"));
                let _ = fs::remove_file(self.at("run/containerd/containerd.pid"));
                command
            }
            // It keeps nothing in memory: another service on the same store is the same engine.
            Engine::Podman => {
                let store = self.kind.socket().unwrap().parent().unwrap().to_owned();
                let at = |name: &str| store.join(name).display().to_string();
                let mut command = Command::new("podman");
                command.env("CONTAINERS_CONF", store.join("containers.conf"));
                command.args(["--root", &at("podman"), "--runroot", &at("podman-run"), "--storage-driver", "overlay"]);
                command.args([
                    "--network-config-dir",
                    &at("podman-networks"),
                    "system",
                    "service",
                    "--time",
                    "0",
                    &host,
                ]);
                command
            }
        };
        let _ = fs::remove_file(self.socket());
        let log = fs::File::options().create(true).append(true).open(self.at("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(ChildGuard::spawn(&mut command));
        until_within(Duration::from_secs(60), "the engine answers", || answers(&self.socket()).then_some(()));
    }

    /// As a crash ends it.
    pub(crate) fn kill(&mut self) {
        self.daemon = None;
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // Docker ends its containers and takes its rules away only if it is asked to end.
            kill(daemon.pid(), rustix::process::Signal::TERM);
            until_true("the engine has ended", || daemon.ended().is_some());
        }
        if self.kind == Engine::Docker {
            let _ = Command::new("ip").args(["link", "delete", BRIDGE]).stderr(Stdio::null()).status();
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = self.folder.path().display().to_string();
        for path in mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| path.starts_with(&ours)) {
            let _ = Command::new("umount").args(["--lazy", path]).stderr(Stdio::null()).status();
        }
    }
}
