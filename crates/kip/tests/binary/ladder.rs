//! The freeze ladder with real processes: engines that give their device memory back, pages that go out, the canary, and the server
//! killed at each step.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use kip_host::environment::FAIL_POINT;
use serde_json::Value;

use crate::bodies::pid;
use crate::http::Answer;
use crate::support::{Server, apart, call, function, kip, manifest, run, until, until_true};

/// One device that has room for one of our functions.
const DEVICE: &str = "[[device]]\nname = \"gpu0\"\nmemory = \"24GiB\"\ntype = \"L4\"";
const HALF: &str = "resources: {gpu: {memory: 16GiB}}";
const SLEEP: &str = "lifecycle: {sleep: {down: \"/sleep?level=1\", up: /wake_up}}";
/// Down the ladder by time.
const SINKS: &str = "instances: {max: 1}\nidle: {pause: 50ms, park: 100ms}";

pub(crate) fn get(server: &Server, name: &str, path: &str) -> Answer {
    call(server.gateway, "GET", &format!("/f/{name}{path}"), "", b"")
}

pub(crate) fn state_of(server: &Server, name: &str) -> Vec<String> {
    let own = server.instances().into_iter().filter(|one| one["function"] == name);
    own.map(|one| one["state"].as_str().unwrap_or_default().to_owned()).collect()
}

pub(crate) fn steps_of(server: &Server, name: &str) -> Vec<String> {
    let records = server.api_get(&format!("/api/v1/functions/{name}/decisions?limit=1000")).json();
    let text = |record: &Value, key: &str| record[key].as_str().unwrap_or_default().to_owned();
    let line = |record: &Value| format!("{}>{}: {}", text(record, "from"), text(record, "to"), text(record, "why"));
    records.as_array().expect("a list").iter().rev().map(line).collect()
}

#[test]
fn functions_take_turns_on_a_device_and_none_is_stopped() {
    let server = Server::with(DEVICE);
    let settings = format!("{HALF}\n{SLEEP}");
    server.deploy(&manifest(&[function("f", &[], &settings), function("g", &[], &settings)]));
    let (f, g) = (pid(&get(&server, "f", "/pid")), pid(&get(&server, "g", "/pid")));
    assert_eq!(state_of(&server, "f"), ["parked"]);
    for _ in 0..2 {
        for (name, process) in [("f", f), ("g", g)] {
            let answer = get(&server, name, "/generate");
            assert_eq!((answer.status(), answer.header("x-kip-start")), (200, Some("woken")), "{answer:?}");
            assert_eq!(pid(&get(&server, name, "/pid")), process, "{name} is the same process");
        }
    }
    let steps = steps_of(&server, "f");
    let evicted = "paused>parking: evicted for `g`, which waits for device memory of gpu0";
    assert!(steps.iter().any(|line| line == evicted), "{steps:#?}");
    assert!(!steps.iter().any(|line| line.contains("stopping")), "{steps:#?}");
    let why = server.kip(&["why", "f"]).ok().stdout;
    assert!(why.contains("parked"), "{why}");
    let ps = server.kip(&["ps"]).ok().stdout;
    assert!(ps.contains("parked"), "{ps}");
}

#[test]
pub(crate) fn an_idle_engine_is_asked_to_sleep_and_wakes_before_the_next_request() {
    let server = Server::start();
    server.deploy_subject(&[], &format!("{SLEEP}\n{SINKS}"));
    let first = pid(&server.get("/pid"));
    server.until_state("parked");
    let answer = server.get("/generate");
    assert_eq!((answer.status(), answer.header("x-kip-start")), (200, Some("woken")), "{answer:?}");
    assert_eq!(pid(&server.get("/pid")), first);
    // Nobody else may send it to sleep.
    for path in ["/sleep?level=1", "//sleep", "/%77ake_up"] {
        assert_eq!(server.call("POST", path).status(), 404, "{path}");
    }
    let slept = server.get("/slept").json();
    assert!(slept["slept"].as_u64() >= Some(1) && slept["asleep"] == false, "{slept}");
}

#[test]
fn one_that_is_pinned_keeps_the_device_and_the_other_is_told() {
    let server = Server::with(DEVICE);
    let pinned = format!("{HALF}\n{SLEEP}\ninstances: {{pin: true}}");
    let other = format!("{HALF}\ntimeouts: {{queue: 1s}}");
    server.deploy(&manifest(&[function("f", &[], &pinned), function("g", &[], &other)]));
    let first = pid(&get(&server, "f", "/pid"));
    let refused = get(&server, "g", "/pid");
    assert_eq!(refused.status(), 503, "{refused:?}");
    assert_eq!(pid(&get(&server, "f", "/pid")), first);
    assert!(!state_of(&server, "f").is_empty());
}

#[test]
fn one_that_must_be_back_soon_is_not_parked_if_that_takes_longer() {
    let server = Server::with(DEVICE);
    // Nothing was measured yet: a wake from this rung counts as 1 s, and a start as well.
    let soon = format!("{HALF}\n{SLEEP}\nlatency: {{wake: 100ms}}");
    let other = format!("{HALF}\ntimeouts: {{queue: 1s}}");
    server.deploy(&manifest(&[function("f", &[], &soon), function("g", &[], &other)]));
    let first = pid(&get(&server, "f", "/pid"));
    assert_eq!(get(&server, "g", "/pid").status(), 503);
    assert_eq!(pid(&get(&server, "f", "/pid")), first);
}

/// What finds the stand-in of the driver.
pub(crate) struct StandinHost {
    variables: [(&'static str, PathBuf); 3],
    /// The same for a shell.
    words: String,
}

impl StandinHost {
    /// Starts the server, perhaps so that it kills itself at a point.
    pub(crate) fn start(&self, server: &mut Server, point: Option<&str>) {
        let mut command = server.serve_command();
        command.envs(self.variables.iter().map(|(name, path)| (*name, path)));
        if let Some(point) = point {
            command.env(FAIL_POINT, point);
        }
        server.start_by(command);
    }
}

impl StandinHost {
    /// A program that holds so many bytes of the device, and is none of the server's.
    pub(crate) fn program(&self, holds: u64) -> crate::support::ChildGuard {
        let mut command = std::process::Command::new(crate::support::subject());
        command.args(["--device-memory", &holds.to_string()]).env("PORT", "0");
        command.envs(self.variables.iter().map(|(name, path)| (*name, path)));
        crate::support::ChildGuard::spawn(&mut command)
    }

    /// A function whose engine holds so many bytes of the device, and declares `memory`. Variables of Kipwake's own are none that a
    /// declaration may set.
    pub(crate) fn holder(&self, name: &str, holds: u64, memory: &str, settings: &str) -> String {
        let (variables, subject) = (&self.words, crate::support::subject());
        let script = format!("{variables} exec {} --device-memory {holds}", subject.display());
        format!(
            "  {name}:\n    code: live\n    run: [sh, -c, '{script}']\n    resources: {{gpu: {{memory: {memory}}}}}\n    {settings}\n"
        )
    }
}

/// A server whose one device is the stand-in's, with 512 MiB: two that hold 300 MiB each, and 64 MiB for a context, do not fit beside
/// each other.
pub(crate) fn on_the_standin(qualified: bool) -> (Server, StandinHost) {
    let mut server = Server::with("[[device]]\nname = \"gpu0\"\nmemory = \"512MiB\"\n");
    let driver = server.folder().join("driver");
    fs::create_dir(&driver).unwrap();
    fs::write(driver.join("knobs"), "capacity = 536870912\n").unwrap();
    // Instances, which may be users of their own, keep what they hold in it.
    fs::set_permissions(&driver, fs::Permissions::from_mode(0o777)).unwrap();
    let library = crate::gpu::standin().to_owned();
    let variables: [(&str, PathBuf); 3] =
        [("KIPWAKE_CUDA_LIBRARY", library.clone()), ("KIPWAKE_NVML_LIBRARY", library), ("KIPWAKE_STANDIN_DIR", driver)];
    server.terminate();
    if qualified {
        let mut command = kip(&server.data());
        command.args(["device", "qualify", "gpu0"]).envs(variables.iter().map(|(name, path)| (*name, path)));
        run(&mut command).ok();
    }
    let words: String = variables.iter().map(|(name, path)| format!("{name}={} ", path.display())).collect();
    let host = StandinHost { variables, words };
    host.start(&mut server, None);
    (server, host)
}

/// A function whose engine holds 300 MiB of the device.
fn holder(name: &str, host: &StandinHost, settings: &str) -> String {
    host.holder(name, 300 << 20, "400MiB", settings)
}

#[test]
fn the_driver_sees_that_the_memory_is_free() {
    let (server, host) = on_the_standin(false);
    server.deploy(&manifest(&[holder("f", &host, SLEEP), holder("g", &host, SLEEP)]));
    let first = get(&server, "f", "/generate").json();
    assert_ne!(first["sum"], "0", "{first}");
    assert_eq!(get(&server, "g", "/generate").json()["sum"], first["sum"]);
    assert_eq!(state_of(&server, "f"), ["parked"]);
    assert_eq!(get(&server, "f", "/generate").json(), first, "its memory came back as it was");
    let steps = steps_of(&server, "g");
    assert!(steps.iter().any(|line| line.starts_with("parking>parked")), "{steps:#?}");
}

#[test]
fn a_program_that_says_yes_and_keeps_its_memory_is_stopped_for_the_other() {
    let (server, host) = on_the_standin(false);
    let liar = "lifecycle: {sleep: {down: /sleep-nothing, up: /wake_up}}";
    server.deploy(&manifest(&[holder("f", &host, liar), holder("g", &host, SLEEP)]));
    assert_eq!(get(&server, "f", "/generate").status(), 200);
    assert_eq!(get(&server, "g", "/generate").status(), 200);
    let steps = steps_of(&server, "f");
    assert!(
        steps.iter().any(|line| line == "parking>paused: giving memory back failed, it stays paused"),
        "{steps:#?}"
    );
    assert!(steps.iter().any(|line| line.contains(">stopping: evicted for `g`")), "{steps:#?}");
    assert!(server.log().contains("it still holds"), "{}", server.log());
}

#[test]
fn the_driver_freezes_what_cannot_sleep_by_itself() {
    let (mut server, host) = on_the_standin(true);
    let settings = "instances: {max: 1}";
    server.deploy(&manifest(&[holder("f", &host, settings), holder("g", &host, settings)]));
    let first = get(&server, "f", "/generate").json();
    assert_eq!(get(&server, "g", "/generate").json()["sum"], first["sum"]);
    assert_eq!(state_of(&server, "f"), ["parked"]);
    let process = pid(&get(&server, "f", "/pid"));
    assert_eq!(get(&server, "f", "/generate").json(), first, "its memory came back as it was");
    assert_eq!(state_of(&server, "g"), ["parked"]);

    // The next server finds it as it is, at whichever step this one ended.
    let points = ["park: thawed", "park: frozen", "park: done", "wake: noted", "wake: restored", "wake: done"];
    for point in points {
        server.terminate();
        host.start(&mut server, Some(point));
        for name in ["g", "f", "g", "f"] {
            let gateway = server.gateway;
            // The server may be gone already.
            let called = apart(move || call(gateway, "GET", &format!("/f/{name}/generate"), "", b"").status());
            let _ = called.join();
        }
        assert!(!server.wait().success(), "the server killed itself at `{point}`");
        host.start(&mut server, None);
        for name in ["f", "g"] {
            let answer = get(&server, name, "/generate");
            assert_eq!(answer.status(), 200, "`{point}`, {name}: {answer:?}");
            assert_eq!(answer.json()["sum"], first["sum"], "`{point}`, {name}");
        }
        assert_eq!(
            pid(&get(&server, "f", "/pid")),
            process,
            "after a crash at `{point}`: {:#?}",
            steps_of(&server, "f")
        );
    }
}

#[test]
fn only_the_canary_notices_a_wake_that_changed_the_answers() {
    let server = Server::start();
    let wrong = format!("lifecycle: {{sleep: {{down: /sleep, up: /wake-wrong}}}}\n{SINKS}");
    let canary = format!("{wrong}\ncanary: {{path: /generate, json: {{/text: right}}, timeout: 5s}}");
    server.deploy(&manifest(&[function("f", &[], &wrong), function("g", &[], &canary)]));
    for name in ["f", "g"] {
        assert_eq!(get(&server, name, "/generate").json()["text"], "right");
        until_true("it is parked", || state_of(&server, name) == ["parked"]);
    }
    assert_eq!(get(&server, "f", "/generate").json()["text"], "wrong");
    let answer = get(&server, "g", "/generate");
    assert_eq!((answer.json()["text"].as_str(), answer.header("x-kip-start")), (Some("right"), Some("cold")));
    let why = server.kip(&["why", "g"]).ok().stdout;
    assert!(why.contains("it did not answer the canary as expected, it is replaced"), "{why}");
    assert!(why.contains("`/text` is \"wrong\" in place of \"right\""), "{why}");
}

#[test]
fn a_version_that_answers_its_canary_wrongly_never_serves() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    assert_eq!(server.get("/pid").status(), 200);
    let failed = server.try_deploy(&manifest(&[function("f", &[], "canary: {path: /generate, json: {/text: left}}")]));
    failed.failed(&["KW-4030", "`/text` is \"right\" in place of \"left\"", "goes on serving"]);
    assert_eq!(server.get("/pid").status(), 200);
}

#[test]
pub(crate) fn a_server_killed_at_each_step_of_the_ladder_goes_on() {
    let mut server = Server::start();
    server.deploy_subject(&[], &format!("{SLEEP}\n{SINKS}"));
    let first = pid(&server.get("/pid"));
    let down = ["park: begun", "park: noted", "park: thawed", "park: down", "park: paused", "park: done"];
    let up = ["wake: noted", "wake: thawed", "wake: up", "wake: done"];
    for point in down.into_iter().chain(up) {
        server.terminate();
        let mut command = server.serve_command();
        command.env(FAIL_POINT, point);
        server.start_by(command);
        if point.starts_with("park") {
            // It may be parked already: it wakes for this and goes down again.
            let _ = server.get("/pid");
        } else {
            server.until_state("parked");
            let _ = server.later("GET", "/pid").join();
        }
        assert!(!server.wait().success(), "the server killed itself at `{point}`");
        server.start_again();
        let answer = server.get("/generate");
        assert_eq!(answer.status(), 200, "after a crash at `{point}`: {answer:?}");
        assert_eq!(pid(&server.get("/pid")), first, "after a crash at `{point}`: {:#?}", server.decisions());
    }
    // One that is parked is adopted so.
    server.until_state("parked");
    server.crash();
    server.start_again();
    assert_eq!(state_of(&server, "f"), ["parked"]);
    assert_eq!(server.get("/generate").header("x-kip-start"), Some("woken"));
}

#[test]
fn pages_of_an_idle_program_go_out_and_come_back() {
    if let Err(why) = kip_freezer::spill::is_possible() {
        println!("skipped: {why}");
        return;
    }
    let server = Server::start();
    let weights = server.folder().join("weights");
    fs::write(&weights, vec![7u8; 64 << 20]).unwrap();
    fs::set_permissions(&weights, fs::Permissions::from_mode(0o644)).unwrap();
    fs::File::open(&weights).unwrap().sync_all().unwrap();
    let program = server.folder().join("mapped.py");
    fs::write(
        &program,
        "import http.server, mmap, os\n\
         file = open('weights', 'rb')\n\
         data = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)\n\
         class Handler(http.server.BaseHTTPRequestHandler):\n\
         \x20   def do_GET(self):\n\
         \x20       said = str(sum(data[at] for at in range(0, len(data), 4096))).encode()\n\
         \x20       self.send_response(200); self.send_header('content-length', str(len(said))); self.end_headers()\n\
         \x20       self.wfile.write(said)\n\
         http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()\n",
    )
    .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).unwrap();
    server.deploy(
        "api: kip/v1\nfunctions:\n  f:\n    run: python3 mapped.py\n    instances: {max: 1}\n    idle: {pause: 50ms, park: 50ms, spill: 100ms}\n",
    );
    let sum = (7u64 * (64 << 20) / 4096).to_string();
    assert_eq!(server.get("/").text(), sum);
    let process = server.known()[0];
    let held = || {
        let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
    };
    let rest = until("its pages are out", || (state_of(&server, "f") == ["spilled"]).then(held));
    assert!(rest < 32 << 20, "{rest} bytes are still in memory");
    let answer = server.get("/");
    assert_eq!((answer.text(), answer.header("x-kip-start")), (sum, Some("woken")));
    assert_eq!(server.known(), [process]);
}

#[test]
fn five_models_take_turns_on_a_device_for_two() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let example = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/overcommit");
    for file in ["kip.yaml", "model.py", "report.py", "run.sh"] {
        fs::copy(example.join(file), folder.path().join(file)).unwrap();
        fs::set_permissions(folder.path().join(file), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = std::process::Command::new("sh");
    let done = command.arg(folder.path().join("run.sh")).env("KIP", env!("CARGO_BIN_EXE_kip")).output().unwrap();
    let (told, wrong) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{told}\n{wrong}");
    let evicted = told.lines().any(|line| line.contains("paused → parking") && line.contains("evicted for `"));
    assert!(evicted && told.contains("parked → waking"), "{told}");
    assert!(told.contains("% saved") && told.contains("one more device like the largest"), "{told}");
}

/// The memory limits of a process's cgroups, where it has any.
fn memory_limits(process: u32) -> Vec<u64> {
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut limits = Vec::new();
    for group in groups.lines() {
        let [_, controllers, path] = group.splitn(3, ':').collect::<Vec<_>>()[..] else { continue };
        let file = match controllers {
            "" => "memory.max",
            "memory" => "memory.limit_in_bytes",
            _ => continue,
        };
        let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| match controllers {
            "" => fields[2] == "cgroup2",
            _ => fields[2] == "cgroup" && fields[3].split(',').any(|option| option == "memory"),
        });
        let folder = PathBuf::from(mount.unwrap()[1]).join(path.trim_start_matches('/'));
        let limit = fs::read_to_string(folder.join(file)).ok().and_then(|text| text.trim().parse::<u64>().ok());
        limits.extend(limit.filter(|limit| *limit < 1 << 60));
    }
    limits
}

#[test]
fn the_memory_limit_has_room_for_what_leaves_the_device() {
    let server = Server::with(DEVICE);
    let settings = format!("resources: {{memory: 64MiB, gpu: {{memory: 16GiB}}}}\n{SLEEP}\n{SINKS}");
    server.deploy_subject(&[], &settings);
    let process = pid(&server.get("/pid"));
    let before = memory_limits(process);
    if before.is_empty() {
        // This host lends no controller of memory: there is no limit.
        return;
    }
    assert_eq!(before, [64 << 20]);
    server.until_state("parked");
    assert_eq!(memory_limits(process), [(64 << 20) + (16 << 30)]);
    assert_eq!(pid(&server.get("/pid")), process);
    assert_eq!(memory_limits(process), [64 << 20]);
}
