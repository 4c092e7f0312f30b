//! Devices that an operator takes back, sizes that are measured, use beyond the declaration, and the quota.

use serde_json::Value;

use crate::bodies::pid;
use crate::http::Answer;
use crate::ladder::{get, on_the_standin, state_of, steps_of};
use crate::support::{Server, apart, call, function, manifest, until, until_true};

const ONE: &str = "[[device]]\nname = \"gpu0\"\nmemory = \"24GiB\"\ntype = \"L4\"";
const TWO: &str = "[[device]]\nname = \"gpu0\"\nmemory = \"24GiB\"\n[[device]]\nname = \"gpu1\"\nmemory = \"24GiB\"";
const HALF: &str = "resources: {gpu: {memory: 16GiB}}";
const SLEEP: &str = "lifecycle: {sleep: {down: \"/sleep?level=1\", up: /wake_up}}";

fn device(server: &Server, name: &str) -> Value {
    let devices = server.api_get("/api/v1/devices").json();
    let found = devices.as_array().expect("a list").iter().find(|device| device["name"] == name).cloned();
    found.unwrap_or_else(|| panic!("{name} in {devices}"))
}

fn devices_of(server: &Server, name: &str) -> Vec<String> {
    let own = server.instances().into_iter().filter(|one| one["function"] == name);
    own.filter_map(|one| Some(one["devices"].as_array()?.first()?.as_str()?.to_owned())).collect()
}

fn refusal(answer: &Answer) -> (u16, Option<&str>, Option<u64>) {
    let after = answer.header("retry-after").and_then(|text| text.parse().ok());
    (answer.status(), answer.header("x-kip-error"), after)
}

#[test]
fn a_yielded_device_is_left_and_its_callers_are_told_until_when() {
    let mut server = Server::with(ONE);
    server.deploy(&manifest(&[function("f", &[], &format!("{HALF}\n{SLEEP}")), function("g", &[], "")]));
    let first = pid(&get(&server, "f", "/pid"));
    let told = server.kip(&["device", "yield", "gpu0", "--for", "8h"]).ok().stdout;
    assert!(told.contains("gpu0 is yielded until"), "{told}");
    assert_eq!(state_of(&server, "f"), ["parked"]);
    let check = |server: &Server| {
        let answer = get(server, "f", "/pid");
        let (status, code, after) = refusal(&answer);
        assert_eq!((status, code), (503, Some("KW-3036")));
        assert!(after.is_some_and(|after| (28_000..=28_801).contains(&after)), "{after:?}");
        assert_eq!(get(server, "g", "/pid").status(), 200, "who needs no device is not concerned");
    };
    check(&server);
    let list = server.kip(&["device", "ls", "-v"]).ok().stdout;
    assert!(list.contains("yielded until") && list.contains("parked"), "{list}");
    // It is so after a restart as well.
    server.terminate();
    server.start_again();
    assert_eq!(device(&server, "gpu0")["yielded"], true);
    check(&server);
    server.kip(&["device", "use", "gpu0"]).ok();
    let answer = get(&server, "f", "/pid");
    assert_eq!((answer.status(), answer.header("x-kip-start")), (200, Some("woken")), "{answer:?}");
    assert_eq!(pid(&answer), first, "{:#?}", steps_of(&server, "f"));
    server.kip(&["device", "yield", "gpu7"]).failed(&["KW-4018", "the server uses gpu0"]);
}

#[test]
fn instances_of_a_yielded_device_go_on_on_another_one() {
    let server = Server::with(TWO);
    server.deploy(&manifest(&[function("f", &[], &format!("{HALF}\n{SLEEP}")), function("g", &[], HALF)]));
    let first = pid(&get(&server, "f", "/pid"));
    let before = devices_of(&server, "f")[0].clone();
    server.kip(&["device", "yield", &before]).ok();
    let answer = get(&server, "f", "/pid");
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_ne!(pid(&answer), first);
    until_true("only the new one is left", || state_of(&server, "f").len() == 1);
    assert_ne!(devices_of(&server, "f"), [before.as_str()]);
    let why = server.kip(&["why", "f"]).ok().stdout;
    assert!(why.contains("its device is yielded (kip device yield)"), "{why}");
}

#[test]
fn a_request_in_flight_ends_before_its_device_is_left() {
    let server = Server::with(ONE);
    server.deploy(&manifest(&[function("f", &[], &format!("{HALF}\ninstances: {{min: 1, pin: true}}"))]));
    let gateway = server.gateway;
    let slow = apart(move || call(gateway, "GET", "/f/f/delay/1500", "", b""));
    server.until_state("busy");
    let data = server.data();
    let yielding = apart(move || {
        crate::support::run(crate::support::kip(&data).args(["device", "yield", "gpu0", "--for", "1h"])).ok()
    });
    assert_eq!(slow.join().unwrap().status(), 200);
    yielding.join().unwrap();
    let steps = steps_of(&server, "f");
    let left = steps.iter().position(|line| line == "busy>draining: its device is yielded (kip device yield)");
    assert!(left.is_some(), "it finished its request first: {steps:#?}");
    // A minimum waits for the device, and is back with it.
    until_true("nothing is on it", || device(&server, "gpu0")["granted"] == 0);
    assert_eq!(refusal(&get(&server, "f", "/pid")).1, Some("KW-3036"));
    server.kip(&["device", "use", "gpu0"]).ok();
    server.until_state("ready");
}

#[test]
fn a_time_that_is_over_puts_the_device_into_use_again() {
    let server = Server::with(ONE);
    server.deploy(&manifest(&[function("f", &[], HALF)]));
    server.kip(&["device", "yield", "gpu0", "--for", "2s"]).ok();
    assert_eq!(refusal(&get(&server, "f", "/pid")).1, Some("KW-3036"));
    until_true("it is in use", || device(&server, "gpu0")["yielded"] == false);
    assert_eq!(get(&server, "f", "/pid").status(), 200);
}

#[test]
fn memory_that_nobody_declared_is_measured_and_charged_from_then_on() {
    let (mut server, host) = on_the_standin(false);
    let settings = "instances: {max: 1}";
    let holds = 100 << 20;
    let all = [host.holder("f", holds, "auto", settings), host.holder("g", holds, "auto", settings)];
    server.deploy(&manifest(&all));
    assert_eq!(get(&server, "f", "/generate").status(), 200);
    // 100 MiB and a context of 64 MiB, a sixteenth more, in steps of 64 MiB.
    let charged = |server: &Server, name: &str| {
        let device = device(server, "gpu0");
        let users = device["instances"].as_array().cloned().unwrap_or_default();
        users.into_iter().find(|user| user["function"] == name).and_then(|user| user["charged"].as_u64())
    };
    until_true("it was measured", || charged(&server, "f") == Some(192 << 20));
    assert_eq!(get(&server, "g", "/generate").status(), 200);
    // Before it was measured, the second had the device alone.
    let steps = steps_of(&server, "f");
    assert!(steps.iter().any(|line| line.contains("evicted for `g`")), "{steps:#?}");
    let both = |server: &Server| [state_of(server, "f").len(), state_of(server, "g").len()];
    until_true("the second was measured as well", || charged(&server, "g") == Some(192 << 20));
    assert_eq!(get(&server, "f", "/generate").status(), 200);
    let why = server.kip(&["why", "f"]).ok().stdout;
    assert!(why.contains("are reserved from now on"), "{why}");
    // Known to the next server before any instance is there.
    server.terminate();
    host.start(&mut server, None);
    for name in ["f", "g"] {
        server.kip(&["rotate", name]).ok();
        assert_eq!(get(&server, name, "/generate").status(), 200);
    }
    until_true("both are there", || both(&server) == [1, 1]);
    assert_eq!((charged(&server, "f"), charged(&server, "g")), (Some(192 << 20), Some(192 << 20)));
}

#[test]
fn one_that_uses_more_than_it_declares_is_charged_and_named() {
    let (server, host) = on_the_standin(false);
    let settings = "instances: {max: 1}";
    server.deploy(&manifest(&[
        host.holder("greedy", 200 << 20, "100MiB", settings),
        host.holder("modest", 100 << 20, "170MiB", settings),
        host.holder("third", 100 << 20, "170MiB", settings),
    ]));
    assert_eq!(get(&server, "greedy", "/generate").status(), 200);
    let why = until("it is named", || {
        let why = server.kip(&["why", "greedy"]).ok().stdout;
        why.contains("of its device and declares 100MiB").then_some(why)
    });
    assert!(why.contains("it holds 264MiB"), "{why}");
    // It takes the room of one neighbour, and the other one is not evicted for it.
    let modest = pid(&get(&server, "modest", "/pid"));
    let list = server.kip(&["device", "ls", "-v"]).ok().stdout;
    assert!(list.contains("264 MiB") && list.contains("42 % busy") && list.contains("72 W"), "{list}");
    assert_eq!(get(&server, "third", "/pid").status(), 200, "the offender gives its place");
    assert_eq!(pid(&get(&server, "modest", "/pid")), modest);
    assert!(state_of(&server, "greedy").iter().all(|state| state == "stopping"), "{:?}", state_of(&server, "greedy"));
}

#[test]
fn one_that_uses_more_than_it_declares_is_replaced_where_that_is_asked_for() {
    let (mut server, host) = on_the_standin(false);
    server.terminate();
    let file = server.data().join("kipwake.toml");
    let settings = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{settings}\n[sharing]\nover_use = \"replace\"\n")).unwrap();
    host.start(&mut server, None);
    server.deploy(&manifest(&[host.holder("greedy", 200 << 20, "100MiB", "instances: {max: 1}")]));
    let first = pid(&get(&server, "greedy", "/pid"));
    until_true("it is replaced", || pid(&get(&server, "greedy", "/pid")) != first);
    let why = server.kip(&["why", "greedy"]).ok().stdout;
    assert!(why.contains("it uses more of its device than resources.gpu.memory"), "{why}");
}

#[test]
fn the_quota_of_cards_changes_while_the_server_runs() {
    let mut server = Server::with(TWO);
    let whole = "resources: {gpu: {cards: 1}}\ninstances: {pin: true}";
    let other = format!("{whole}\ntimeouts: {{queue: 5s}}");
    server.deploy(&manifest(&[function("f", &[], whole), function("g", &[], &other)]));
    let shown = server.kip(&["quota", "set", "cards", "1"]).ok().stdout;
    assert!(shown.contains("cards      1"), "{shown}");
    assert_eq!(get(&server, "f", "/pid").status(), 200);
    assert_eq!(get(&server, "g", "/pid").status(), 503);
    server.terminate();
    server.start_again();
    assert!(server.kip(&["quota", "show"]).ok().stdout.contains("cards      1"));
    assert_eq!(get(&server, "g", "/pid").status(), 503);
    server.kip(&["quota", "rm", "cards"]).ok();
    assert_eq!(get(&server, "g", "/pid").status(), 200);
    let wrong = server.kip(&["quota", "set", "cards", "many"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("a number from 1, or none"), "{}", wrong.stderr);
}

#[test]
fn a_program_that_loads_the_driver_and_asks_for_no_device_is_named() {
    let server = Server::with(ONE);
    let library = server.folder().join("libcuda.so.1");
    std::fs::copy(crate::gpu::standin(), &library).unwrap();
    let settings = format!("env: {{LD_PRELOAD: {}}}\ninstances: {{min: 1}}\nidle: {{pause: never}}", library.display());
    let text = manifest(&[function("f", &[], &settings), function("g", &[], "")]);
    assert!(!server.try_deploy(&text).ok().stderr.contains("KW-1043"), "nothing is known yet");
    assert_eq!(get(&server, "g", "/pid").status(), 200);
    until_true("it is named", || {
        let why = server.kip(&["why", "f"]).ok().stdout;
        why.contains("it has loaded the GPU driver and asks for no device")
    });
    let told = server.try_deploy(&text.replace("min: 1", "min: 1, max: 2")).ok().stderr;
    assert!(told.contains("KW-1043") && told.contains("memory: auto"), "{told}");
    assert!(!server.kip(&["why", "g"]).ok().stdout.contains("GPU driver"));
}

#[test]
fn an_instance_knows_its_share_and_is_kept_to_it_as_declared() {
    // Any library will do for what is tested here.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps.lines().find_map(|line| line.find('/').map(|at| &line[at..]).filter(|path| path.contains(".so")));
    let path = std::path::Path::new(path.expect("a test loads libraries"));
    let server = Server::with(&format!("{ONE}\n[sharing]\nlimiter = \"{}\"", path.display()));
    let share = |isolation: &str| format!("resources: {{gpu: {{memory: 6GiB{isolation}}}}}");
    server.deploy(&manifest(&[
        function("a", &["--share", "${KIPWAKE_GPU_MEMORY_FRACTION}"], &share("")),
        function("f", &[], &share(", isolation: framework")),
        function("p", &[], &format!("env: {{LD_PRELOAD: libm.so.6}}\n{}", share(", isolation: preload"))),
        function("n", &[], ""),
    ]));
    let env = |name: &str, variable: &str| get(&server, name, "/env").json()[variable].as_str().map(str::to_owned);
    for name in ["a", "f", "p"] {
        assert_eq!(env(name, "KIPWAKE_GPU_MEMORY").as_deref(), Some("6442450944"), "{name}");
        assert_eq!(env(name, "KIPWAKE_GPU_MEMORY_FRACTION").as_deref(), Some("0.2500"), "{name}");
    }
    assert_eq!(env("n", "KIPWAKE_GPU_MEMORY"), None);
    assert_eq!((env("a", "XLA_PYTHON_CLIENT_MEM_FRACTION"), env("a", "LD_PRELOAD")), (None, None));
    assert_eq!(env("f", "XLA_PYTHON_CLIENT_MEM_FRACTION").as_deref(), Some("0.2500"));
    assert_eq!(env("p", "LD_PRELOAD"), Some(format!("{}:libm.so.6", path.display())));
    assert_eq!(env("p", "CUDA_DEVICE_MEMORY_LIMIT").as_deref(), Some("6144m"));

    let bare = Server::with(ONE);
    bare.try_deploy(&manifest(&[function("f", &[], &share(", isolation: preload"))]))
        .failed(&["KW-1044", "sharing.limiter"]);
    for (gpu, part) in [("{memory: 6GiB, isolation: mig}", "isolation"), ("{cards: 1, isolation: preload}", "KW-1009")]
    {
        bare.try_deploy(&manifest(&[function("f", &[], &format!("resources: {{gpu: {gpu}}}"))])).failed(&[part]);
    }
}

#[test]
fn a_device_that_programs_of_others_fill_is_left_alone_and_tried_again() {
    let (server, host) = on_the_standin(false);
    let small = host.holder("g", 100 << 20, "100MiB", "idle: {pause: never}");
    server.deploy(&manifest(&[host.holder("f", 200 << 20, "300MiB", "timeouts: {queue: 20s}"), small]));
    assert_eq!(get(&server, "g", "/pid").status(), 200);
    let other = host.program(250 << 20);
    until_true("the driver shows it", || {
        server.kip(&["device", "ls", "-v"]).ok().stdout.contains("not of this server")
    });
    let refused = get(&server, "f", "/pid");
    let text = refused.text();
    assert!(refused.status() == 503 && text.contains("KW-4037"), "{refused:?}");
    assert!(text.contains("34MiB are free, and process") && text.contains("holds 314MiB"), "{text}");
    assert_eq!(state_of(&server, "g"), ["ready"], "nobody is evicted for what would not help");
    drop(other);
    // The stand-in's files are those of whoever wrote them last: whether its engine starts then is not what is tested.
    until_true("it is tried again when the memory is free", || !get(&server, "f", "/pid").text().contains("KW-4037"));
}
