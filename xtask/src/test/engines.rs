//! The container engines of the tests: Docker and Podman with stores, sockets and bridges of their own, started by hand because a host
//! of tests may have no service manager. What they change of the host's network is put back.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::{command, read, root, works};
use crate::install::{Package, debian, is_root};

/// What they need. The programs in the image of the tests are those of this host.
const PACKAGES: [Package; 4] = [
    Package { name: "docker.io", program: "dockerd", arguments: &["--version"] },
    Package { name: "podman", program: "podman", arguments: &["--version"] },
    // What Debian's Podman starts by itself does not run beside cgroups of version 1.
    Package { name: "runc", program: "runc", arguments: &["--version"] },
    Package { name: "iptables", program: "iptables", arguments: &["--version"] },
];
/// For the engine that is reached by ssh. A service manager would start it for everybody, so it is installed only where none runs.
const SSH: [Package; 1] = [Package { name: "openssh-server", program: "test", arguments: &["-x", "/usr/sbin/sshd"] }];
/// How long an engine may take until it answers.
const START: Duration = Duration::from_secs(30);
/// Networks of their own, so that they disturb no engine of the host. The bridges have names of their own as well: an engine takes
/// a bridge that it finds under its name, whatever address an earlier run gave that.
const DOCKER_BRIDGE: &str = "kip-docker0";
const DOCKER_ADDRESS: &str = "172.29.81.1/24";
const PODMAN_BRIDGE: &str = "kip-podman0";
const PODMAN_NETWORK: &str = "10.98.81.0/24";
/// The registry of the tests that Podman may speak with without TLS.
const REGISTRY: &str = "127.0.0.1:39291";
/// Where the tests are told about them.
const VARIABLES: [&str; 2] = ["KIP_TEST_DOCKER", "KIP_TEST_PODMAN"];
const NAMES: [&str; 2] = ["docker", "podman"];
/// The image of the program that tests run as an instance.
pub(crate) const IMAGE: &str = "kip-subject:test";

/// A root file system with a program at the path that it has here, a shell and a few commands, and their libraries: made without a
/// registry.
fn image_of(subject: &Path) -> Result<Vec<u8>> {
    let find = |name: &str| {
        ["/bin", "/usr/bin"].map(|folder| Path::new(folder).join(name)).into_iter().find(|file| file.exists())
    };
    let commands = ["sh", "sleep", "setsid", "cat", "tty", "stty"].into_iter().filter_map(find);
    let programs: Vec<String> = commands.chain([subject.to_owned()]).map(|file| file.display().to_string()).collect();
    let mut files = programs.clone();
    for program in &programs {
        let libraries = read(command("ldd", &[program])).unwrap_or_default();
        files.extend(libraries.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned));
    }
    files.sort();
    files.dedup();
    let relative: Vec<&str> = files.iter().map(|file| file.trim_start_matches('/')).collect();
    let words = [&["--create", "--dereference", "--file=-", "--directory=/"], relative.as_slice()].concat();
    let packed = command("tar", &words).output().context("tar cannot be executed")?;
    if !packed.status.success() {
        bail!("the image of the tests cannot be packed: {}", String::from_utf8_lossy(&packed.stderr));
    }
    Ok(packed.stdout)
}

/// Engines that run until this is dropped.
#[derive(Debug)]
pub(crate) struct Engines {
    folder: tempfile::TempDir,
    running: Vec<Child>,
    /// Rules of the packet filter and the forwarding of packets, as they were.
    rules: String,
    forwarding: String,
}

impl Engines {
    /// Starts both. None where this is not root; then the tests that need them say so and are skipped.
    pub(crate) fn start() -> Result<Option<Self>> {
        if !is_root() {
            println!("note: tests of containers are skipped: only root can start engines for them");
            return Ok(None);
        }
        if !debian(&PACKAGES)? {
            bail!("the container engines that tests need cannot be installed");
        }
        if !Path::new("/run/systemd/system").exists() && !debian(&SSH)? {
            bail!("the ssh server that tests need cannot be installed");
        }
        let folder = tempfile::Builder::new().prefix("kip-engines-").tempdir().context("no temporary folder")?;
        let rules = read(command("iptables-save", &[])).unwrap_or_default();
        let forwarding = std::fs::read_to_string(FORWARDING).unwrap_or_default();
        // Those of a run that was killed.
        delete_bridges();
        let mut engines = Self { folder, running: Vec::new(), rules, forwarding };
        engines.docker().context("Docker cannot be started for tests of containers")?;
        engines.podman().context("Podman cannot be started for tests of containers")?;
        let image = image_of(&root().join("target/release/examples/subject"))?;
        for name in NAMES {
            engines.import(name, &image).with_context(|| format!("{name} does not take the image of the tests"))?;
        }
        Ok(Some(engines))
    }

    /// Each engine with its socket.
    pub(crate) fn sockets(&self) -> Vec<(&'static str, PathBuf)> {
        NAMES.iter().map(|name| (*name, self.at(&format!("{name}.sock")))).collect()
    }

    fn import(&self, name: &str, image: &[u8]) -> Result<()> {
        let file = self.at("image.tar");
        std::fs::write(&file, image).context("no room for it")?;
        let host = format!("unix://{}", self.at(&format!("{name}.sock")).display());
        let changes = ["ENV SUBJECT_ANY=1", "ENV PATH=/bin:/usr/bin"].map(|change| ["--change", change]).concat();
        let file = file.display().to_string();
        let words = [&["--host", &host, "import"], changes.as_slice(), &[&file, IMAGE]].concat();
        read(command("docker", &words)).map(drop)
    }

    /// Tells a test program where they are.
    pub(crate) fn announce(&self, command: &mut Command) {
        for (variable, (_, socket)) in VARIABLES.into_iter().zip(self.sockets()) {
            command.env(variable, socket);
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn docker(&mut self) -> Result<()> {
        let socket = self.at("docker.sock");
        let ip = |words: &[&str]| read(command("ip", words)).context("its bridge cannot be made");
        ip(&["link", "add", DOCKER_BRIDGE, "type", "bridge"])?;
        ip(&["address", "add", DOCKER_ADDRESS, "dev", DOCKER_BRIDGE])?;
        ip(&["link", "set", DOCKER_BRIDGE, "up"])?;
        let mut daemon = Command::new("dockerd");
        daemon
            .arg("--data-root")
            .arg(self.at("docker"))
            .arg("--exec-root")
            .arg(self.at("docker-run"))
            .arg("--pidfile")
            .arg(self.at("docker.pid"))
            .args(["--bridge", DOCKER_BRIDGE, "--host"])
            .arg(format!("unix://{}", socket.display()));
        self.run(daemon, &socket, "docker.log")
    }

    fn podman(&mut self) -> Result<()> {
        let socket = self.at("podman.sock");
        let settings = self.at("containers.conf");
        let text = format!(
            "[engine]\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\nevents_logger = \"file\"\ntmp_dir = \"{}\"\n[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=30000:30000\"]\n[network]\ndefault_subnet = \"{PODMAN_NETWORK}\"\n",
            self.at("podman-tmp").display()
        );
        std::fs::write(&settings, text).context("its settings cannot be written")?;
        let registries = self.at("registries.conf");
        std::fs::write(&registries, format!("[[registry]]\nlocation = \"{REGISTRY}\"\ninsecure = true\n"))
            .context("its registries cannot be written")?;
        let networks = self.at("podman-networks");
        std::fs::create_dir_all(&networks).context("its networks have no folder")?;
        for (file, network) in podman_networks() {
            std::fs::write(networks.join(file), network).context("its network cannot be written")?;
        }
        let mut service = Command::new("podman");
        service
            .env("CONTAINERS_CONF", settings)
            .env("CONTAINERS_REGISTRIES_CONF", registries)
            .arg("--root")
            .arg(self.at("podman"))
            .arg("--runroot")
            .arg(self.at("podman-run"))
            .args(["--storage-driver", "overlay", "--network-config-dir"])
            .arg(self.at("podman-networks"))
            .args(["system", "service", "--time", "0"])
            .arg(format!("unix://{}", socket.display()));
        self.run(service, &socket, "podman.log")
    }

    /// Starts one and waits until it answers.
    fn run(&mut self, mut daemon: Command, socket: &Path, log: &str) -> Result<()> {
        let log = self.at(log);
        let file = std::fs::File::create(&log).context("its log cannot be written")?;
        daemon.stdin(Stdio::null()).stdout(file.try_clone().context("its log")?).stderr(file);
        let mut child = daemon.spawn().context("it cannot be executed")?;
        let pause = Duration::from_millis(50);
        let answers = || {
            let socket = socket.display().to_string();
            let arguments =
                ["--silent", "--fail", "--max-time", "5", "--unix-socket", &socket, "http://localhost/_ping"];
            works("curl", &arguments)
        };
        for _ in 0..START.as_millis() / pause.as_millis() {
            if answers() {
                self.running.push(child);
                return Ok(());
            }
            if child.try_wait().context("it cannot be waited for")?.is_some() {
                break;
            }
            std::thread::sleep(pause);
        }
        let _ = child.kill();
        let _ = child.wait();
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let last: Vec<&str> = text.lines().rev().take(12).collect();
        bail!("it does not answer:\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }
}

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

impl Drop for Engines {
    fn drop(&mut self) {
        for child in &mut self.running {
            // Docker ends its containers and takes its rules away only if it is asked to end.
            let asked = Command::new("kill").arg(child.id().to_string()).status().is_ok_and(|status| status.success());
            let ended = (0..100).any(|_| {
                std::thread::sleep(Duration::from_millis(100));
                child.try_wait().is_ok_and(|status| status.is_some())
            });
            if !asked || !ended {
                let _ = child.kill();
            }
            let _ = child.wait();
        }
        self.restore();
    }
}

impl Engines {
    fn restore(&self) {
        delete_bridges();
        let rules = self.at("rules");
        if std::fs::write(&rules, &self.rules).is_ok() {
            quiet("iptables-restore", &[&rules.display().to_string()]);
        }
        // What is not in the saved text was empty, and reading it back does not empty it.
        for table in ["filter", "nat"] {
            if !self.rules.contains(&format!("*{table}")) {
                quiet("iptables", &["-t", table, "-F"]);
                quiet("iptables", &["-t", table, "-X"]);
            }
        }
        if !self.rules.contains("*filter") {
            quiet("iptables", &["-P", "FORWARD", "ACCEPT"]);
        }
        if !self.forwarding.is_empty() {
            let _ = std::fs::write(FORWARDING, self.forwarding.trim());
        }
        // Stores of containers have mounts of their own below them.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = self.folder.path().display().to_string();
        let below = mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| path.starts_with(&ours));
        for path in below.collect::<Vec<_>>().into_iter().rev() {
            quiet("umount", &["--lazy", path]);
        }
    }
}

/// The network that containers of Podman get by default, in the words of both programs that can make it.
fn podman_networks() -> [(&'static str, String); 2] {
    let gateway = PODMAN_NETWORK.replace("0/24", "1");
    let netavark = serde_json::json!({
        "name": "podman", "id": "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9", "driver": "bridge",
        "network_interface": PODMAN_BRIDGE, "created": "2026-01-01T00:00:00Z",
        "subnets": [{"subnet": PODMAN_NETWORK, "gateway": gateway}], "ipv6_enabled": false, "internal": false,
        "dns_enabled": false, "ipam_options": {"driver": "host-local"},
    });
    let cni = serde_json::json!({
        "cniVersion": "0.4.0", "name": "podman", "plugins": [
            {"type": "bridge", "bridge": PODMAN_BRIDGE, "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": {
                "type": "host-local", "routes": [{"dst": "0.0.0.0/0"}],
                "ranges": [[{"subnet": PODMAN_NETWORK, "gateway": gateway}]],
            }},
            {"type": "portmap", "capabilities": {"portMappings": true}}, {"type": "firewall"}, {"type": "tuning"},
        ],
    });
    [("podman.json", netavark.to_string()), ("87-podman.conflist", cni.to_string())]
}

fn delete_bridges() {
    for bridge in [DOCKER_BRIDGE, PODMAN_BRIDGE] {
        quiet("ip", &["link", "delete", bridge]);
    }
}

/// Runs a command whose failure changes nothing.
fn quiet(program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    let _ = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
}
