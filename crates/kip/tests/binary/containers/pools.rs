//! Pools: a second engine by its socket, and one across an ssh link that is cut and healed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::bodies::{Engine, IMAGE, engine, id_of};
use crate::support::{ChildGuard, Server, apart, call, manifest, subject, until_true, until_within};

super::each_engine!(
    pools_are_filled_in_order_up_to_their_maxima,
    a_pool_whose_engine_is_away_gets_nothing_new,
    an_engine_behind_ssh_is_cut_off_and_comes_back,
    what_no_pool_can_run_is_refused,
    a_local_host_may_be_several_pools,
);

fn other(engine: Engine) -> Engine {
    match engine {
        Engine::Docker => Engine::Podman,
        Engine::Podman => Engine::Docker,
    }
}

/// A function without folders of this host, so that it can be anywhere.
fn anywhere(settings: &str) -> String {
    manifest(&[format!("  f:\n    image: {IMAGE}\n    run: [{}]\n    {settings}\n", subject().display())])
}

/// The pools of the instances, sorted.
fn pools_of(server: &Server) -> Vec<String> {
    let pool = |info: &Value| info["pool"].as_str().unwrap_or_default().to_owned();
    let mut pools: Vec<String> = server.instances().iter().map(pool).collect();
    pools.sort();
    pools
}

fn reachable(server: &Server, name: &str) -> bool {
    let pools = server.ask(&["pool", "ls"]);
    let pools = pools.as_array().expect("a list").iter().find(|pool| pool["name"] == name).cloned();
    pools.expect("the pool")["reachable"] == true
}

fn pools_are_filled_in_order_up_to_their_maxima() {
    let second = other(engine().unwrap());
    let server = Server::with(&format!(
        "[[pool]]\nname = \"local\"\nengine = \"local\"\nmax = 1\n[[pool]]\nname = \"second\"\nengine = \"{}\"\ncpu = \"4\"\nmemory = \"4GiB\"\nmax = 2\nprice = 0.8\n",
        second.socket().unwrap().display()
    ));
    server.deploy(&anywhere("instances: {min: 0, max: 4}\n    idle: {pause: never, stop: 1s}"));
    assert_eq!(server.get("/pid").status(), 200);
    assert_eq!(pools_of(&server), ["local"]);
    let id = id_of(&server);
    let calls: Vec<_> = (0..4).map(|_| server.later("GET", "/delay/4000")).collect();
    until_within(Duration::from_secs(60), "three run", || {
        (pools_of(&server) == ["", "local", "second", "second"]).then_some(())
    });
    until_within(Duration::from_secs(60), "the image was copied from one engine to the other", || {
        (second.containers(&id).len() == 2).then_some(())
    });
    let waits = server.instances().into_iter().find(|info| info["state"] == "requested").expect("the fourth waits");
    assert_eq!(waits["waits_for"], "quota", "{waits}");
    let shown = server.kip(&["ps"]).ok().stdout;
    assert!(shown.contains("POOL") && shown.contains("second"), "{shown}");
    let shown = server.kip(&["pool", "ls"]).ok().stdout;
    assert!(shown.contains("0.8") && shown.contains("answers"), "{shown}");
    for answer in calls {
        let answer = answer.join().unwrap();
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
    server.until_no_instance();
    assert!(second.containers(&id).is_empty());
    // Released in reverse: with work for one, it is the one in the first pool that stays.
    let calls: Vec<_> = (0..2).map(|_| server.later("GET", "/delay/1000")).collect();
    for answer in calls {
        assert_eq!(answer.join().unwrap().status(), 200);
    }
    assert_eq!(server.get("/pid").status(), 200);
    until_true("the one that costs extra has gone first", || {
        let _ = server.get("/pid");
        pools_of(&server) == ["local"]
    });
}

/// A socket before an engine's own that can be cut.
struct Cut {
    path: PathBuf,
    open: Arc<AtomicBool>,
}

impl Cut {
    fn before(engine: Engine, folder: &Path) -> Self {
        let path = folder.join("cut.sock");
        let open = Arc::new(AtomicBool::new(true));
        let (listener, to, is_open) = (UnixListener::bind(&path).unwrap(), engine.socket().unwrap(), open.clone());
        apart(move || {
            for stream in listener.incoming().flatten() {
                if !is_open.load(Ordering::SeqCst) {
                    continue;
                }
                let there = UnixStream::connect(&to).unwrap();
                for (mut from, mut into) in [(stream.try_clone().unwrap(), there.try_clone().unwrap()), (there, stream)]
                {
                    let is_open = is_open.clone();
                    from.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                    apart(move || {
                        let mut piece = [0; 65_536];
                        while is_open.load(Ordering::SeqCst) {
                            match from.read(&mut piece) {
                                Ok(0) => break,
                                Ok(read) if into.write_all(&piece[..read]).is_err() => break,
                                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break,
                                _ => {}
                            }
                        }
                        let _ = into.shutdown(std::net::Shutdown::Both);
                        let _ = from.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        Self { path, open }
    }
}

fn a_pool_whose_engine_is_away_gets_nothing_new() {
    let folder = tempfile::tempdir().unwrap();
    let cut = Cut::before(other(engine().unwrap()), folder.path());
    let server = Server::with(&format!(
        "[[pool]]\nname = \"first\"\nengine = \"{}\"\ncpu = \"4\"\nmemory = \"4GiB\"\npriority = 5\n",
        cut.path.display()
    ));
    server.deploy(&anywhere("instances: {max: 3}\n    idle: {pause: never}"));
    assert_eq!(server.get("/pid").status(), 200);
    assert_eq!(pools_of(&server), ["first"]);
    cut.open.store(false, Ordering::SeqCst);
    until_true("it is seen to be away", || !reachable(&server, "first"));
    let calls: Vec<_> = (0..2).map(|_| server.later("GET", "/delay/3000")).collect();
    for answer in calls {
        assert_eq!(answer.join().unwrap().status(), 200);
    }
    assert_eq!(pools_of(&server), ["first", "local"], "what runs there goes on, and nothing new is started there");
    cut.open.store(true, Ordering::SeqCst);
    until_true("it answers again", || reachable(&server, "first"));
    let calls: Vec<_> = (0..3).map(|_| server.later("GET", "/delay/3000")).collect();
    for answer in calls {
        assert_eq!(answer.join().unwrap().status(), 200);
    }
    assert_eq!(pools_of(&server), ["first", "first", "local"]);
}

/// An sshd in a network of its own, which a link joins to that of this host.
struct Far {
    folder: tempfile::TempDir,
    name: String,
    number: u32,
    _sshd: ChildGuard,
}

fn done(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Far {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let number = std::process::id() % 200 + u32::from(engine() == Some(Engine::Podman));
        let name = format!("kipfar{number}");
        let link = format!("kipl{number}");
        let _ = Command::new("ip").args(["netns", "delete", &name]).stderr(Stdio::null()).status();
        done(&["ip", "netns", "add", &name]);
        done(&["ip", "link", "add", &link, "type", "veth", "peer", "name", "far0", "netns", &name]);
        let (here, there) = (format!("10.77.{number}.1"), format!("10.77.{number}.2"));
        done(&["ip", "address", "add", &format!("{here}/24"), "dev", &link]);
        done(&["ip", "link", "set", &link, "up"]);
        for words in [
            vec!["address", "add", &format!("{there}/24"), "dev", "far0"],
            vec!["link", "set", "far0", "up"],
            vec!["link", "set", "lo", "up"],
            vec!["route", "add", "default", "via", &here],
        ] {
            done(&[&["ip", "-n", name.as_str()], words.as_slice()].concat());
        }
        // Docker lets nothing be forwarded by default.
        for side in ["-i", "-o"] {
            done(&["iptables", "-I", "FORWARD", side, &link, "-j", "ACCEPT"]);
        }
        let at = |file: &str| folder.path().join(file).display().to_string();
        for key in ["host", "user"] {
            done(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &at(key)]);
        }
        fs::copy(at("user.pub"), at("authorized")).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        let text = format!(
            "ListenAddress {there}\nPort 22\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin prohibit-password\nAllowStreamLocalForwarding yes\n",
            at("host"),
            at("authorized")
        );
        fs::write(at("sshd_config"), text).unwrap();
        let text = format!(
            "Host far\n  HostName {there}\n  User root\n  IdentityFile {}\n  IdentitiesOnly yes\n  UserKnownHostsFile {}\n  StrictHostKeyChecking accept-new\n",
            at("user"),
            at("known")
        );
        fs::write(at("ssh_config"), text).unwrap();
        let log = fs::File::create(at("sshd.log")).unwrap();
        let mut sshd = Command::new("ip");
        sshd.args(["netns", "exec", &name, "/usr/sbin/sshd", "-D", "-e", "-f", &at("sshd_config")]);
        sshd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let sshd = ChildGuard::spawn(&mut sshd);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        Self { folder, name, number, _sshd: sshd }
    }

    fn link(&self, state: &str) {
        done(&["ip", "link", "set", &format!("kipl{}", self.number), state]);
        if state == "up" {
            // Going down has taken the route along.
            let words = ["route", "replace", "default", "via", &format!("10.77.{}.1", self.number)];
            done(&[&["ip", "-n", self.name.as_str()], words.as_slice()].concat());
        }
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let listed = Command::new("ip").args(["netns", "pids", &self.name]).output().unwrap();
        for process in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
            let _ = Command::new("kill").args(["-9", process]).status();
        }
        let link = format!("kipl{}", self.number);
        for side in ["-i", "-o"] {
            let _ = Command::new("iptables").args(["-D", "FORWARD", side, &link, "-j", "ACCEPT"]).status();
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
        let _ = Command::new("ip").args(["link", "delete", &link]).stderr(Stdio::null()).status();
    }
}

#[expect(clippy::print_stdout, reason = "the test command counts what is skipped")]
fn an_engine_behind_ssh_is_cut_off_and_comes_back() {
    if !Path::new("/usr/sbin/sshd").exists() {
        println!("skipped: no sshd is installed: `cargo xtask test containers` installs openssh-server");
        return;
    }
    let far = Far::start();
    let second = other(engine().unwrap());
    let pool = |lost_after: &str| {
        format!(
            "[[pool]]\nname = \"far\"\nengine = \"ssh://far{}\"\nssh_config = \"{}\"\ncpu = \"4\"\nmemory = \"4GiB\"\npriority = 5\nlost_after = \"{lost_after}\"\n",
            second.socket().unwrap().display(),
            far.folder.path().join("ssh_config").display(),
        )
    };
    let mut server = Server::with(&pool("10m"));
    let patient = Duration::from_secs(60);
    until_within(patient, "the far engine answers", || reachable(&server, "far").then_some(()));
    server.deploy(&anywhere("instances: {max: 1}\n    idle: {pause: never, stop: never}"));
    let answer = server.get("/pid");
    assert_eq!(answer.status(), 200, "{answer:?}");
    let first = answer.header("x-kip-instance").unwrap().to_owned();
    assert_eq!(pools_of(&server), ["far"]);
    let address = server.instances()[0]["address"].as_str().unwrap().to_owned();
    assert!(address.starts_with("127.0.0.1:"), "ssh carries its port: {address}");
    let container = server.kip(&["exec", "f", "--", "/bin/cat", "/etc/hostname"]).ok().stdout.trim().to_owned();
    let logs = server.kip(&["logs", "f"]).ok();
    assert!(!logs.stdout.is_empty() || logs.stderr.is_empty(), "{logs:?}");
    let said = server.kip(&["exec", "f", "--", "/bin/cat", "/proc/self/status"]).ok().stdout;
    assert!(said.contains("Name:"), "{said}");

    // Another server takes it over, by another ssh.
    server.terminate();
    server.start_again();
    let answer = server.get("/pid");
    assert_eq!(answer.header("x-kip-instance"), Some(first.as_str()), "{answer:?}");

    far.link("down");
    until_within(patient, "it is seen to be away", || (!reachable(&server, "far")).then_some(()));
    until_true("its instance is out of reach, and not ended", || {
        server.instances().iter().any(|info| info["id"] == first.as_str() && info["lost"] == true)
    });
    let shown = server.kip(&["ps"]).ok().stdout;
    assert!(shown.contains("unreachable"), "{shown}");
    let answer = server.get("/pid");
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_ne!(answer.header("x-kip-instance"), Some(first.as_str()), "requests go elsewhere");
    let why = server.kip(&["why", "f"]).ok().stdout;
    assert!(why.contains("the engine of the pool `far` does not answer"), "{why}");

    far.link("up");
    until_within(patient, "it answers again", || reachable(&server, "far").then_some(()));
    until_true("its instance is back", || {
        server.instances().iter().any(|info| info["id"] == first.as_str() && info["lost"] == false)
    });
    until_true("and serves", || server.get("/pid").header("x-kip-instance") == Some(first.as_str()));

    // With a limit, what is away for longer counts as ended, and is removed when its engine is back.
    server.terminate();
    let file = server.data().join("kipwake.toml");
    let text = fs::read_to_string(&file).unwrap().replace("\"10m\"", "\"1s\"");
    fs::write(&file, text).unwrap();
    server.start_again();
    until_within(patient, "the far engine answers", || reachable(&server, "far").then_some(()));
    far.link("down");
    until_within(patient, "it counts as ended", || {
        server.instances().iter().all(|info| info["id"] != first.as_str()).then_some(())
    });
    let has = |id: &str| second.ask("GET", &format!("/v1.41/containers/{id}/json"), Vec::new()).0 == 200;
    assert!(has(&container), "its container is there as long as nobody can reach it");
    far.link("up");
    until_within(patient, "its container is removed", || (!has(&container)).then_some(()));
}

fn what_no_pool_can_run_is_refused() {
    let second = other(engine().unwrap());
    let there = tempfile::tempdir().unwrap();
    fs::write(there.path().join("model"), "weights").unwrap();
    let server = Server::with(&format!(
        "[[pool]]\nname = \"second\"\nengine = \"{}\"\ncpu = \"4\"\nmemory = \"4GiB\"\npriority = 5\nmounts = \"{}\"\n",
        second.socket().unwrap().display(),
        there.path().display()
    ));
    let text = |mount: &str| anywhere(&format!("container: {{mounts: ['{mount}']}}"));
    let refused = server.try_deploy(&text("/srv/nowhere:/models"));
    refused.failed(&["KW-4060", "pool `second`", "pool `local`", "/srv/nowhere"]);
    // A process of this host is not for a named engine, and a folder of this host's list keeps a container here.
    server.deploy(&format!(
        "{}  p:\n    code: live\n    dir: {}\n    run: [{}]\n",
        text(&format!("{0}:{0}", server.folder().display())),
        server.folder().display(),
        subject().display()
    ));
    assert_eq!(server.get("/pid").status(), 200);
    assert_eq!(call(server.gateway, "GET", "/f/p/pid", "", b"").status(), 200);
    assert_eq!(pools_of(&server), ["local", "local"]);
    // A folder that only that pool allows keeps a container there; a start that fails names the pool.
    server.kip(&["rm", "f"]).ok();
    let mounted = text(&format!("{}:/models", there.path().display()));
    server.deploy(&mounted);
    assert_eq!(server.get("/pid").status(), 200);
    until_true("it is in that pool", || pools_of(&server) == ["local", "second"]);
    assert_eq!(server.kip(&["exec", "f", "--", "/bin/cat", "/models/model"]).ok().stdout, "weights");
    server.kip(&["rm", "f"]).ok();
    server.deploy_without_wait(&mounted.replace(&subject().display().to_string(), "/no/such/program"));
    let answer = server.get("/pid");
    assert_eq!(answer.status(), 502, "{answer:?}");
    let why = server.kip(&["why", "f"]).ok().stdout;
    assert!(why.contains("in the pool `second`"), "{why}");
}

fn a_local_host_may_be_several_pools() {
    let mut server = Server::with(
        "[[pool]]\nname = \"kept\"\nengine = \"local\"\ncpu = \"1\"\nmemory = \"1GiB\"\nmax = 1\n[[pool]]\nname = \"spare\"\nengine = \"local\"\ncpu = \"1\"\nmemory = \"1GiB\"\n",
    );
    server.deploy(&anywhere("instances: {min: 2, max: 2}\n    idle: {pause: never}"));
    until_true("both run", || server.function()["hot"] == 2);
    assert_eq!(pools_of(&server), ["kept", "spare"]);
    server.terminate();
    server.start_again();
    assert_eq!(server.function()["hot"], 2);
    assert_eq!(pools_of(&server), ["kept", "spare"], "each is found in its pool again");
}
