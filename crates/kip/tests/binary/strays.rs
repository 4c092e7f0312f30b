//! Processes that leave their instance: by their group, session, environment and cgroup. They are paused and ended with it all the same.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::guard::{STRANGER, as_stranger, give, is_root};
use crate::support::{Server, subject, until, until_true};

/// What has left its group, its session and its environment is paused and ended with its instance.
#[test]
fn a_child_that_hides_is_paused_and_ended_with_its_instance() {
    if !is_root() {
        println!("skipped: another user is needed to have a server without cgroups");
        return;
    }
    let mut server = Server::start();
    as_stranger(&mut server);
    if server.api_get("/api/v1/status").json()["isolated"] != true || server.has_cgroup() {
        println!("skipped: it takes namespaces and no cgroup");
        return;
    }
    let hides = "setsid env -i /bin/sleep 98765 >/dev/null 2>&1 &";
    let script = serde_json::to_string(&format!("{hides} exec {}", subject().display())).unwrap();
    server.deploy(&format!(
        "api: kip/v1\nfunctions:\n  f:\n    code: live\n    run: [sh, -c, {script}]\n    idle: {{pause: 300ms}}\n"
    ));
    assert_eq!(server.get("/pid").status(), 200);
    let hidden = || {
        let is_it = |process: &u32| {
            let command = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            let owner = fs::metadata(format!("/proc/{process}")).map(|about| about.uid()).unwrap_or_default();
            command.starts_with(b"/bin/sleep\x0098765") && owner == STRANGER
        };
        kip_host::sockets::all_processes().into_iter().find(is_it)
    };
    let process = until("it is there", hidden);
    let state = || fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    server.until_state("paused");
    until_true("it is stopped too", || state().contains(") T"));
    assert_eq!(server.get("/pid").status(), 200);
    until_true("it goes on", || state().contains(") S"));
    server.kip(&["rm", "f"]).ok();
    until_true("it has ended", || hidden().is_none());
}

/// A cgroup of a test, with what is made in it.
struct Delegated(PathBuf);

impl Delegated {
    /// One that belongs to the stranger, as a user's own session does; none where this host has no cgroups that tests can make.
    fn make() -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let made = Self(tree()?.join(format!("kipwake-test-{}-{number}", std::process::id())));
        for folder in [made.0.clone(), made.0.join("server"), made.0.join("elsewhere")] {
            fs::create_dir(&folder).ok()?;
            give(&folder);
        }
        Some(made)
    }

    fn move_in(&self, process: u32) {
        fs::write(self.0.join("elsewhere/cgroup.procs"), process.to_string()).unwrap();
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// What has processes stays.
fn remove(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_dir()).for_each(|entry| remove(&entry.path()));
    let _ = fs::remove_dir(folder);
}

/// Where cgroups of version 2 are.
fn tree() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    line.split(' ').nth(1).map(PathBuf::from)
}

/// The process with this command line.
fn sleeper(seconds: &str) -> Option<u32> {
    let wanted = format!("/bin/sleep\0{seconds}\0");
    let is_it = |process: &u32| fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default() == wanted.as_bytes();
    kip_host::sockets::all_processes().into_iter().find(is_it)
}

/// Its state is paused, goes on and ends with that of its instance.
fn shares_the_fate_of_its_instance(server: &Server, seconds: &str) {
    let process = sleeper(seconds).expect("it is there");
    let state = || fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let frozen = || {
        let of = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
        let path = of.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let events = tree().map(|tree| fs::read_to_string(tree.join(path).join("cgroup.events")).unwrap_or_default());
        events.unwrap_or_default().contains("frozen 1")
    };
    server.until_state("paused");
    until_true("it is paused too", || frozen() || state().contains(") T"));
    assert_eq!(server.get("/pid").status(), 200);
    until_true("it goes on", || !frozen() && state().contains(") S"));
    server.kip(&["rm", "f"]).ok();
    until_true("it has ended", || sleeper(seconds).is_none());
}

/// The subject, with a child that hides.
fn with_child(child: &str) -> String {
    let script = serde_json::to_string(&format!("{child} >/dev/null 2>&1 & exec {}", subject().display())).unwrap();
    format!("api: kip/v1\nfunctions:\n  f:\n    code: live\n    run: [sh, -c, {script}]\n    idle: {{pause: 300ms}}\n")
}

/// An ordinary user's cgroups are its own: whatever runs as it may write them.
#[test]
fn a_child_that_leaves_its_cgroup_is_paused_and_ended_with_its_instance() {
    let Some(delegated) = Some(()).filter(|()| is_root()).and_then(|()| Delegated::make()) else {
        println!("skipped: it takes root and cgroups of version 2");
        return;
    };
    let mut server = Server::start();
    server.terminate();
    give(server.folder());
    let enter = format!("echo $$ > {}/server/cgroup.procs && exec setpriv \"$@\"", delegated.0.display());
    let mut command = Command::new("sh");
    command.args(["-c", &enter, "-", "--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    let serve = server.serve_command();
    command.arg(serve.get_program()).args(serve.get_args());
    for (name, value) in serve.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("HOME", server.folder());
    server.start_by(command);
    assert!(server.has_cgroup(), "{}", server.api_get("/api/v1/status").text());
    let elsewhere = delegated.0.join("elsewhere/cgroup.procs");
    let leaves =
        |seconds: &str| format!("setsid sh -c 'echo $$ > {}; exec env -i /bin/sleep {seconds}'", elsewhere.display());
    server.deploy(&with_child(&leaves("98766")));
    assert_eq!(server.get("/pid").status(), 200);
    let process = until("it is there", || sleeper("98766"));
    let isolated = server.api_get("/api/v1/status").json()["isolated"] == true;
    if isolated {
        let cgroup = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap();
        assert!(!cgroup.contains("elsewhere"), "cgroups cannot be written there: {cgroup}");
    }
    shares_the_fate_of_its_instance(&server, "98766");
    if isolated {
        // However it got out: it is found by its namespace.
        server.deploy(&with_child(&leaves("98767")));
        assert_eq!(server.get("/pid").status(), 200);
        delegated.move_in(until("it is there", || sleeper("98767")));
        shares_the_fate_of_its_instance(&server, "98767");
    }
    server.terminate();
}

/// Nothing keeps the programs of such a server from its cgroups.
#[test]
fn a_child_of_the_servers_own_user_that_leaves_its_cgroup_is_found_by_its_mark() {
    let server = Server::with("[functions]\nuser = \"server\"");
    if !is_root() || !server.has_cgroup() {
        println!("skipped: it takes root and cgroups of version 2");
        return;
    }
    let Some(delegated) = Delegated::make() else { panic!("cgroups can be made") };
    let elsewhere = delegated.0.join("elsewhere/cgroup.procs");
    server.deploy(&with_child(&format!("setsid sh -c 'echo $$ > {}; exec /bin/sleep 98768'", elsewhere.display())));
    assert_eq!(server.get("/pid").status(), 200);
    let process = until("it is there", || sleeper("98768"));
    assert!(fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap().contains("elsewhere"));
    shares_the_fate_of_its_instance(&server, "98768");
}
