//! Mistakes that people make, and whether they are told what happened, why, and what to do.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::http::Caller;
use crate::support::{
    ChildGuard, Server, apart, call, function, is_alive, kip, manifest, run, subject, until, until_true,
};

/// A data directory without a server, and a command on it.
struct OfflineDirectory(tempfile::TempDir);

impl OfflineDirectory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn serve(&self, arguments: &[&str]) -> crate::support::CommandOutput {
        let mut command = kip(self.0.path());
        command.arg("serve").args(arguments);
        for address in ["--gateway", "--api"] {
            if !arguments.contains(&address) {
                command.args([address, "127.0.0.1:0"]);
            }
        }
        run(&mut command)
    }
}

#[test]
fn manifests_with_mistakes() {
    let server = Server::start();
    let program = subject();
    let program = program.to_str().unwrap();
    for (body, code, place, said) in [
        ("    idel: {pause: 5s}", "KW-1002", "kip.yaml:5:5", "did you mean `idle`?"),
        ("    idle: {pause: 5}", "KW-1004", "kip.yaml:5:19", "5s"),
        ("    instances: {max: lots}", "KW-1003", "kip.yaml:5:22", "instances.max"),
        ("    timeouts: [1s]", "KW-1003", "kip.yaml:5:15", "timeouts"),
        ("    resources: {disk: 1GiB}", "KW-1007", "kip.yaml:5:17", "today:"),
        ("    resources: {gpu: 1}", "KW-1003", "kip.yaml:5:22", "must be a map"),
        ("    instances: {min: 5, max: 2}", "KW-1009", "kip.yaml:5:22", "max: 5"),
        ("    dir: ./nowhere", "KW-1004", "kip.yaml:5:10", "does not exist"),
        ("    env: {A: [}", "KW-1001", "kip.yaml:5:14", "mismatched"),
    ] {
        let ran = server.try_deploy(&format!("api: kip/v1\nfunctions:\n  f:\n    run: {program}\n{body}\n"));
        ran.failed(&[&format!("error[{code}]"), &format!("--> {place}"), said]);
    }
    let several = server.try_deploy(&format!("functions:\n  f:\n    run: {program}\n    a: 1\n    b: 2\n"));
    several.failed(&["`functions.f.a`", "`functions.f.b`", "api"]);
    let json = server.kip(&["deploy", "kip.yaml", "-o", "json"]).json();
    assert!(json["errors"].as_array().unwrap().len() >= 3, "{json}");
    assert!(server.ask(&["ls"]).as_array().unwrap().is_empty(), "nothing of a bad manifest is deployed");

    server.kip(&["deploy", "nowhere"]).failed(&["KW-1006", "nowhere"]);
    let empty = server.folder().join("empty");
    fs::create_dir(&empty).unwrap();
    server.kip(&["deploy", "empty"]).failed(&["KW-1006", "there is no kip.yaml in", "try: "]);
    server.deploy_subject(&[], "");
    server.kip(&["deploy", "--only", "g", "kip.yaml"]).failed(&["KW-3001", "it declares f"]);
}

#[test]
fn manifests_that_attack() {
    let server = Server::start();
    let file = fs::File::create(server.folder().join("kip.yaml")).unwrap();
    file.set_len(100 << 20).unwrap();
    server.kip(&["deploy", "."]).failed(&["KW-1005", "104857600 bytes", "try: "]);
    let mut laughs = "api: kip/v1\na0: &a0 [x]\n".to_owned();
    for level in 1..40 {
        let before = format!("*a{}", level - 1);
        laughs += &format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(","));
    }
    let ran = server.try_deploy(&laughs);
    ran.failed(&["error[KW-100", "--> kip.yaml:"]);
    let ran = server.try_deploy(&format!("api: {}kip{}\n", "[".repeat(5_000), "]".repeat(5_000)));
    ran.failed(&["error[KW-1005]", "--> kip.yaml:1:"]);
    // Past the client's own check, the API bounds what it reads, and answers before it has read all.
    let mut caller = Caller::connect(server.api);
    let headers = format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", server.key);
    caller.send("POST", "/api/v1/deployments", &format!("{headers}content-length: {}\r\n", 9 << 20));
    let _ = caller.try_write(vec![b'x'; 9 << 20]);
    let answer = caller.answer("POST");
    assert_eq!((answer.status(), &answer.json()["error"]["code"]), (400, &"KW-7003".into()), "{answer:?}");
    assert!(is_alive(server.pid));
}

/// Calls `f` once and checks how it failed.
fn fails_to_start(server: &Server, code: &str, status: u16, parts: &[&str]) {
    // What the program wrote is for operators.
    let answer = server.call_with("GET", "/", &format!("authorization: Bearer {}\r\n", server.key), b"");
    let said = answer.said();
    assert_eq!((answer.code().as_str(), answer.status()), (code, status), "{said}");
    for part in parts {
        assert!(said.contains(part), "`{part}` is not said: {said}");
    }
    let ran = server.kip(&["why", "f"]).ok();
    assert!(ran.stdout.contains("starts failed in a row") || ran.stdout.contains("stopping"), "{ran:?}");
    let record = server.until_record("the failure is recorded", |record| record["code"] == code);
    assert_eq!(record["outcome"], if status == 502 { "broken" } else { "refused" });
    server.until_no_instance();
    assert!(server.processes().is_empty());
}

#[test]
fn commands_that_cannot_be_started() {
    let server = Server::start();
    let folder = server.folder();
    let run = |command: &str| server.deploy(&manifest(&[format!("  f:\n    run: {command}\n")]));
    run("no-such-program-anywhere");
    fails_to_start(&server, "KW-4001", 502, &["there is no program `no-such-program-anywhere`", "kip logs f"]);
    run("./missing.sh");
    fails_to_start(&server, "KW-4001", 502, &["there is no file", "missing.sh"]);

    let write = |name: &str, text: &str, mode: u32| {
        fs::write(folder.join(name), text).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    write("plain.sh", "#!/bin/sh\n", 0o644);
    run("./plain.sh");
    fails_to_start(&server, "KW-4002", 502, &["plain.sh is not marked executable"]);
    write("bad.sh", "#!/no/such/interpreter\n", 0o755);
    run("./bad.sh");
    fails_to_start(&server, "KW-4002", 502, &["the interpreter in the first line of", "does not exist"]);

    fs::create_dir(folder.join("here")).unwrap();
    server.deploy(&manifest(&["  f:\n    dir: ./here\n    code: live\n    run: sleep 1000\n".to_owned()]));
    fs::remove_dir(folder.join("here")).unwrap();
    fails_to_start(&server, "KW-4008", 502, &["there is no folder", "here"]);
}

#[test]
fn programs_that_do_not_become_ready() {
    let server = Server::start();
    let deploy = |arguments: &[&str], settings: &str| server.deploy_subject(arguments, settings);
    deploy(&["--exit-now", "3"], "");
    fails_to_start(&server, "KW-4003", 502, &["exit code 3", "subject: told to give up at once", "kip logs f"]);
    deploy(&["--wrong-port"], "timeouts: {startup: 1s}");
    fails_to_start(&server, "KW-4005", 504, &["instead of the one in the variable PORT", "was told to listen on port"]);
    deploy(&["--never-listen"], "timeouts: {startup: 1s}");
    fails_to_start(&server, "KW-4004", 504, &["it listened on no port within 1s"]);
    deploy(&["--ready-after", "1000000"], "timeouts: {startup: 1s}\nprobes: {ready: /ready}");
    fails_to_start(&server, "KW-4004", 504, &["GET /ready did not answer 200 to 399 within 1s"]);
    deploy(&[], "lifecycle: {initialize: /status/500}");
    fails_to_start(&server, "KW-4006", 502, &["the initialize hook answered 500"]);
}

#[test]
fn a_stranger_on_the_instances_port_gets_no_requests() {
    let server = Server::start();
    let file = server.folder().join("port");
    server.deploy_subject(&["--port-file", file.to_str().unwrap(), "--never-listen"], "timeouts: {startup: 20s}");
    let request = server.later("GET", "/secret");
    let port: u16 = until("the port is known", || fs::read_to_string(&file).ok()?.parse().ok());
    let _stranger = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let answer = request.join().unwrap();
    assert_eq!(answer.code(), "KW-4007", "{answer:?}");
    assert!(answer.said().contains(&format!("(process {})", std::process::id())), "the owner is named: {answer:?}");
}

#[test]
fn a_program_open_to_the_network_serves_with_a_warning() {
    let server = Server::start();
    server.deploy_subject(&["--any"], "");
    assert_eq!(server.get("/").status(), 200);
    assert!(server.log().contains("the instance listens beyond loopback"), "{}", server.log());
}

#[test]
fn callers_who_ask_for_what_is_not_there() {
    let server = Server::start();
    server.deploy_subject(&[], "trigger: {http: {methods: [GET, HEAD]}}");
    let gateway = |method: &str, target: &str, headers: &str| call(server.gateway, method, target, headers, b"");
    let answer = gateway("GET", "/f/nobody/x", "");
    assert_eq!((answer.code().as_str(), answer.status()), ("KW-2001", 404));
    assert!(answer.said().contains("kip ls"), "{answer:?}");
    assert!(gateway("GET", "/f/F/x", "").said().contains("did you mean `f`?"));
    let answer = gateway("GET", "/elsewhere", "");
    assert_eq!((answer.code().as_str(), answer.status()), ("KW-2002", 404));
    assert!(answer.said().contains("/f/{function}/"), "{answer:?}");
    let answer = gateway("POST", "/f/f/", "");
    assert_eq!((answer.code().as_str(), answer.header("allow")), ("KW-2003", Some("GET, HEAD")), "{answer:?}");
    let moved = gateway("GET", "/f/f?x=1", "");
    assert_eq!((moved.status(), moved.header("location")), (308, Some("/f/f/?x=1")));
    assert!(server.instances().is_empty(), "none of these starts anything");

    let hints =
        [("inspect", "KW-3001"), ("why", "KW-3001"), ("logs", "KW-3001"), ("requests", "KW-3001"), ("rm", "KW-3001")];
    for (command, code) in hints {
        server.kip(&[command, "nobody"]).failed(&[code, "there is no function `nobody`", "kip ls"]);
    }
    server.kip(&["invoke", "nobody"]).failed(&["KW-2001", "kip ls"]);
    server.kip(&["inspect", "i-9-9-9"]).failed(&["KW-3002", "kip ps"]);
    for name in ["no such", "../f", "f/x", "ü", "%2e", ""] {
        let ran = server.kip(&["inspect", name]);
        ran.failed(&["error[KW-", "try: "]);
        let ran = server.kip(&["invoke", name, "-o", "json"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.json()["error"]["code"].as_str().is_some_and(|code| code.starts_with("KW-")), "{name}: {ran:?}");
    }
    server.kip(&["invoke", "f", "/a b"]).failed(&["KW-2011", "`GET /f/f/a b` is not a request", "%20"]);
    server.kip(&["invoke", "f", "-H", "no-colon"]).failed(&["error", "`no-colon` is not a header"]);
    let unknown = server.kip(&["frobnicate"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(2), ""), "{unknown:?}");
}

#[test]
fn keys_are_asked_for() {
    let server = Server::start();
    server.deploy_subject(&[], "trigger: {http: {auth: key}}");
    let api = |headers: &str| call(server.api, "GET", "/api/v1/functions", headers, b"");
    let error = |answer: &crate::http::Answer| answer.json()["error"]["code"].as_str().unwrap().to_owned();
    let missing = api("");
    assert_eq!((missing.status(), error(&missing).as_str()), (401, "KW-7001"));
    assert!(!missing.json()["error"]["hint"].is_null(), "{missing:?}");
    let wrong = api("authorization: Bearer kw_wrong\r\n");
    assert_eq!((wrong.status(), error(&wrong).as_str()), (401, "KW-7002"));
    let stop = call(server.api, "POST", "/api/v1/stop", "", b"");
    assert_eq!(stop.status(), 401);
    assert_eq!(call(server.api, "GET", "/healthz", "", b"").text(), "ok\n");
    let path = server.api_get("/api/v1/nothing");
    assert_eq!((path.status(), error(&path).as_str()), (404, "KW-7004"));
    let method = call(server.api, "PUT", "/api/v1/status", &format!("authorization: Bearer {}\r\n", server.key), b"");
    assert_eq!((method.status(), error(&method).as_str()), (405, "KW-7006"));
    let unreadable = call(
        server.api,
        "POST",
        "/api/v1/deployments",
        &format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", server.key),
        b"{\"file\": 1}",
    );
    assert_eq!((unreadable.status(), error(&unreadable).as_str()), (400, "KW-7003"));

    for path in [
        "/api/v1/requests?limit=many",
        "/api/v1/functions/f/requests?limit=-1",
        "/api/v1/functions/f/decisions?limit=x",
        "/api/v1/functions/f/logs?follow=perhaps",
        "/api/v1/functions/f/logs?instance=x",
        "/api/v1/instances/x",
        "/api/v1/functions/%ff",
        "/api/v1/instances/%ff",
    ] {
        let answer = server.api_get(path);
        assert_eq!((answer.status(), error(&answer).as_str()), (400, "KW-7003"), "{path}: {answer:?}");
    }

    let answer = server.get("/");
    assert_eq!((answer.code().as_str(), answer.header("www-authenticate")), ("KW-7001", Some("Bearer")));
    let answer = server.call_with("GET", "/", "authorization: Bearer kw_wrong\r\n", b"");
    assert_eq!((answer.code().as_str(), answer.status()), ("KW-7002", 401));
    let answer = server.call_with("GET", "/echo", &format!("authorization: Bearer {}\r\n", server.key), b"");
    assert_eq!(answer.status(), 200);
    assert!(!answer.text().contains(&server.key), "the instance does not see our key: {}", answer.text());
    server.kip(&["ls", "--key", "kw_wrong"]).failed(&["KW-7002", "try: "]);

    let stranger = OfflineDirectory::new();
    let api = server.api.to_string();
    run(kip(stranger.0.path()).args(["ls", "--api", &api])).failed(&["KW-7001", "--key", "KIPWAKE_KEY"]);
    run(kip(stranger.0.path()).args(["ls", "--api", &api, "--key", &server.key])).ok();
}

#[test]
fn servers_that_cannot_start() {
    let server = Server::start();
    let nobody = OfflineDirectory::new();
    let taken = server.gateway.to_string();
    let owner = format!("(process {})", server.pid);
    nobody.serve(&["--gateway", &taken]).failed(&["KW-8002", &taken, "kip", &owner, "try: "]);
    nobody.serve(&["--api", &server.api.to_string()]).failed(&["KW-8002", &owner]);
    nobody.serve(&["--gateway", "0.0.0.0:0"]).failed(&["KW-8007", "0.0.0.0:0", "server.proxies"]);
    nobody.serve(&["--api", "[::]:0"]).failed(&["KW-8007", "server.proxies"]);
    nobody.serve(&["--config", "/nowhere.toml"]).failed(&["KW-8006", "/nowhere.toml"]);
    let second = run(&mut server.serve_command());
    assert_eq!(second.json()["error"]["code"], "KW-8001", "{second:?}");
    assert!(second.stdout.contains(&server.pid.to_string()) && second.stdout.contains("kip stop"), "{second:?}");
    for (text, said) in [
        ("[server]\ngatewy = \"127.0.0.1:1\"", "did you mean `server.gateway`"),
        ("[server]\npatience = 30", "server.patience = \"30s\""),
        ("[host]\nmemory = \"12\"", "host.memory"),
        ("[server", "is not valid TOML"),
    ] {
        fs::write(nobody.0.path().join("kipwake.toml"), text).unwrap();
        nobody.serve(&[]).failed(&["KW-8006", said]);
    }
    fs::remove_file(nobody.0.path().join("kipwake.toml")).unwrap();
    assert_eq!(
        fs::read_dir(nobody.0.path()).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != "lock").count(),
        0
    );

    run(kip(nobody.0.path()).args(["ls"])).failed(&["KW-7005", "kip serve"]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    run(kip(nobody.0.path()).args(["ls", "--key", "k", "--api", &free])).failed(&["KW-7005", &free, "kip serve"]);
    run(kip(nobody.0.path()).args(["ls", "--key", "k", "--api", "ftp://x"])).failed(&["KW-7005", "ftp://x"]);
}

#[test]
fn data_directories_that_cannot_be_used() {
    let nobody = OfflineDirectory::new();
    let file = nobody.0.path().join("file");
    fs::write(&file, "").unwrap();
    let serve =
        |data: &std::path::Path| run(kip(data).args(["serve", "--gateway", "127.0.0.1:0", "--api", "127.0.0.1:0"]));
    serve(&file.join("below")).failed(&["KW-8003", "below", "--data-dir"]);
    serve(&file).failed(&["KW-8003", "--data-dir"]);
    if rustix::process::geteuid().is_root() {
        println!("skipped: root may write to folders without write permission");
    } else {
        let locked = nobody.0.path().join("locked");
        fs::create_dir(&locked).unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
        serve(&locked).failed(&["KW-8003", "--data-dir"]);
    }

    let mut server = Server::start();
    server.signal(Signal::INT);
    assert!(server.wait().success());
    let database = server.data().join("control.db");
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let newer = run(&mut server.serve_command());
    assert_eq!((newer.code, &newer.json()["error"]["code"]), (Some(1), &Value::from("KW-8004")), "{newer:?}");
    assert!(newer.stdout.contains("schema 99") && newer.stdout.contains("newer version of kip"), "{newer:?}");
    fs::write(&database, vec![b'x'; 10_000]).unwrap();
    let broken = run(&mut server.serve_command());
    assert_eq!((broken.code, &broken.json()["error"]["code"]), (Some(1), &Value::from("KW-8005")), "{broken:?}");
}

#[test]
fn an_interrupt_during_a_start_leaves_nothing_behind() {
    let mut server = Server::start();
    let text = manifest(&[
        function("f", &["--never-listen", "--fork"], "timeouts: {startup: 10m}"),
        function(
            "g",
            &["--ready-after", "1000000"],
            "timeouts: {startup: 10m}\nprobes: {ready: /ready}\ninstances: {min: 2, max: 2}",
        ),
    ]);
    fs::write(server.folder().join("kip.yaml"), text).unwrap();
    // What is kept never becomes ready.
    server.kip(&["deploy", "--no-wait"]).ok();
    let waiting = server.later("GET", "/");
    until_true("all of them run", || server.processes().len() >= 4);
    server.signal(Signal::INT);
    assert_eq!(waiting.join().unwrap().code(), "KW-2012");
    assert!(server.wait().success(), "{}", server.log());
    assert!(server.processes().is_empty());

    // And before the server is ready itself.
    for _ in 0..3 {
        let mut command = server.serve_command();
        let mut child = ChildGuard::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
        let pid = child.pid();
        until_true("its signals are handled", || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 2 != 0)
        });
        crate::support::kill(pid, Signal::INT);
        until("the server has ended", || child.ended());
        assert!(server.processes().is_empty());
    }
}

#[test]
fn clients_that_send_nonsense_to_the_gateway() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    for nonsense in
        ["\x16\x03\x01\x02\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /f/f/ HTTP/1.1\r\nx y: 1\r\n\r\n"]
    {
        let mut caller = server.connect();
        caller.write(nonsense);
        let answer = caller.answer("GET");
        assert!(matches!(answer.status(), 400 | 505), "{nonsense:?}: {answer:?}");
        assert!(matches!(answer.code().as_str(), "KW-2011" | "KW-2024"), "{nonsense:?}: {answer:?}");
        until_true("the connection is closed", || caller.is_closed());
    }
    let mut caller = server.connect();
    caller.write(format!("GET /f/f/ HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)));
    let answer = caller.answer("GET");
    assert_eq!((answer.status(), answer.code().as_str()), (431, "KW-2021"));
    for target in ["*", "/f/f/%zz", "/f/f/ü"] {
        let mut caller = server.connect();
        caller.write(format!("OPTIONS {target} HTTP/1.1\r\nhost: a\r\n\r\n"));
        let status = caller.try_head().map(|head| head.status);
        assert!(matches!(status, Some(200 | 400 | 404)), "{target}: {status:?}");
    }
    let smuggled =
        "POST /f/f/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let mut caller = server.connect();
    caller.write(smuggled);
    let head = caller.try_head();
    let alone = head.as_ref().is_some_and(|head| head.status == 200);
    if alone {
        let answer = caller.rest("POST", head.unwrap());
        let names: Vec<Value> =
            answer.json()["headers"].as_array().unwrap().iter().map(|pair| pair[0].clone()).collect();
        let lengths = names.iter().filter(|name| *name == "content-length" || *name == "transfer-encoding").count();
        assert_eq!(lengths, 1, "the instance must not have to choose: {names:?}");
    }
    let busy = apart({
        let gateway = server.gateway;
        move || call(gateway, "GET", "/f/f/pid", "", b"")
    });
    assert_eq!(busy.join().unwrap().status(), 200);
}

/// What the settings of the server switch off, and what a preset does not offer, is the caller's to know and no fault of the server.
#[test]
fn what_is_switched_off_or_done_by_hand_is_no_fault_of_the_server() {
    let server = Server::with("[containers]\nengine = \"off\"");
    let api = |method: &str, path: &str, body: &str| {
        let headers = format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", server.key);
        let answer = call(server.api, method, path, &headers, body.as_bytes());
        (answer.status(), answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let off = (409, "KW-4033".to_owned());
    assert_eq!(api("GET", "/api/v1/images", ""), off);
    assert_eq!(api("POST", "/api/v1/images", r#"{"image": "busybox"}"#), off);
    assert_eq!(api("POST", "/api/v1/images/remove", r#"{"image": "busybox"}"#), off);
    server.kip(&["image", "ls"]).failed(&["KW-4033", "containers.engine", "kipwake.toml"]);
    server.try_deploy("api: kip/v1\nfunctions:\n  f:\n    image: busybox\n").failed(&["KW-4033", "`f`"]);
    let presets = server.ask(&["preset", "ls"]);
    let by_hand = presets.as_array().unwrap().iter().find(|preset| preset["engine"] == "llama-server").unwrap();
    let name = by_hand["name"].as_str().unwrap();
    let path = format!("/api/v1/presets/{name}/engine");
    assert_eq!(api("POST", &path, ""), (400, "KW-6014".to_owned()));
    let none = presets.as_array().unwrap().iter().find(|preset| preset["engine"].is_null()).unwrap();
    let path = format!("/api/v1/presets/{}/engine", none["name"].as_str().unwrap());
    assert_eq!(api("POST", &path, ""), (400, "KW-6014".to_owned()));
}
