//! Who reaches an instance past its server: programs can refuse whoever does not know their token, or listen on a socket that no other
//! user can reach.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use serde_json::Value;

use crate::guard::is_root;
use crate::support::{LIMIT, Server, call, function, manifest, run, until, until_true};

const ASK: &str =
    "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: a2V5\r\n";
/// All that a server asks an instance by itself.
const ASKED: &str = "probes: {ready: /ready, live: /live}\nlifecycle: {initialize: /initialize, pre_stop: /pre-stop}\n\
    canary: {path: /pid, status: 200}\nidle: {pause: 300ms}\ninstances: {max: 1}";

/// A program that refuses whoever does not know its token, with everything that a server asks of it.
fn deploy_closed(server: &Server, settings: &str) {
    let env = format!("env: {{LEDGER: {0}/ledger, PRE_STOP_FILE: {0}/stopped}}", server.folder().display());
    server.deploy_subject(&["--closed"], &format!("{ASKED}\n{settings}\n{env}"));
}

/// Requests of each kind come through: plain ones with bodies, streams, a WebSocket, tasks of both kinds, and those after a pause and
/// after a restart of the server.
fn serves_in_each_way(server: &mut Server) {
    assert_eq!(server.get("/pid").status(), 200, "{}", server.kip(&["why", "f"]).stdout);
    assert_eq!(server.call_with("POST", "/tee", "", &[7; 200_000]).body.len(), 200_000);
    assert_eq!(server.get("/stream/5/10").status(), 200);
    let mut socket = TcpStream::connect(server.gateway).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    write!(socket, "GET /f/f/websocket HTTP/1.1\r\nhost: a\r\n{ASK}\r\n").unwrap();
    let mut head = [0; 12];
    socket.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
    drop(socket);
    let key = format!("authorization: Bearer {}\r\n", server.key);
    for stateful in [false, true] {
        let target = format!("/api/v1/functions/f/tasks?stateful={stateful}");
        let made = call(server.api, "POST", &target, &key, b"answer well");
        assert_eq!(made.status(), 202, "{made:?}");
        let id = made.json()["taskId"].as_str().unwrap().to_owned();
        let path = format!("/api/v1/functions/f/tasks/{id}?includePayload=true");
        let task = until("the task is over", || {
            Some(server.api_get(&path).json()).filter(|task| {
                !["Enqueued", "Dequeued", "Running"].contains(&task["status"].as_str().unwrap_or_default())
            })
        });
        assert_eq!((&task["status"], &task["returnPayload"]), (&"Succeeded".into(), &"well".into()), "{task}");
    }
    let process = server.get("/pid").text();
    server.until_state("paused");
    assert_eq!(server.get("/pid").text(), process);
    server.terminate();
    server.start_again();
    assert_eq!(server.get("/pid").text(), process, "it was adopted");
    server.until_state("paused");
    server.crash();
    server.start_again();
    assert_eq!(server.get("/pid").text(), process, "it was adopted asleep");
}

fn only_instance(server: &Server) -> Value {
    server.instances().into_iter().next().unwrap()
}

#[test]
fn a_program_can_refuse_whoever_does_not_know_its_token() {
    let mut server = Server::start();
    deploy_closed(&server, "");
    serves_in_each_way(&mut server);
    let token = server.get("/env").json()["KIPWAKE_INSTANCE_TOKEN"].as_str().unwrap().to_owned();
    assert!(token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
    // Past the gateway, and with what callers make up.
    let address = only_instance(&server)["address"].as_str().unwrap().parse().unwrap();
    assert_eq!(call(address, "GET", "/pid", "", b"").status(), 403);
    assert_eq!(call(address, "GET", "/pid", "x-kip-instance-token: 0\r\n", b"").status(), 403);
    assert_eq!(call(address, "GET", "/pid", &format!("x-kip-instance-token: {token}\r\n"), b"").status(), 200);
    let forged = "x-kip-instance-token: forged\r\nx_kip_instance_token: forged\r\n";
    let echoed = server.call_with("GET", "/echo", forged, b"");
    assert!(echoed.text().contains(&token) && !echoed.text().contains("forged"), "{echoed:?}");
    assert_eq!(echoed.header("x-kip-instance-token"), None, "it is for the instance alone");
    // It is nobody else's, and nothing of ours shows it.
    server.deploy(&manifest(&[function("f", &["--closed"], ASKED), function("g", &[], "")]));
    let other = call(server.gateway, "GET", "/f/g/env", "", b"").json();
    assert_ne!(other["KIPWAKE_INSTANCE_TOKEN"].as_str(), Some(token.as_str()));
    let shown = server.kip(&["ps", "-o", "json"]).ok().stdout + &server.api_get("/api/v1/functions/f").text();
    assert!(!shown.contains(&token) && !server.log().contains(&token));
}

#[test]
fn a_program_can_listen_on_a_socket_that_nobody_else_reaches() {
    let mut server = Server::start();
    deploy_closed(&server, "listen: socket");
    serves_in_each_way(&mut server);
    let instance = only_instance(&server);
    let address = instance["address"].as_str().unwrap();
    let socket = address.strip_prefix("unix:").unwrap_or_else(|| panic!("{address}")).to_owned();
    let process = u32::try_from(instance["process"].as_u64().unwrap()).unwrap();
    let inodes = kip_host::sockets::inodes_of(&[process]);
    let listeners = kip_host::sockets::listeners().unwrap();
    assert!(!listeners.iter().any(|listener| inodes.contains(&listener.inode)), "it has no port");
    assert_eq!(server.get("/env").json()["KIPWAKE_SOCKET"], socket.as_str());
    if is_root() {
        // The folders above it are closed to others, so that nobody else can even name it.
        let is_there = |command: &mut Command| run(command.args(["sh", "-c", "test -e \"$1\"", "-", &socket])).code;
        let stranger = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
        assert_eq!(is_there(Command::new("setpriv").args(stranger)), Some(1));
        assert_eq!(is_there(&mut Command::new("env")), Some(0));
    }
    // It goes with its instance.
    server.kip(&["rm", "f"]).ok();
    server.until_no_instance();
    until_true("its folder is gone", || !fs::exists(&socket).unwrap());
    assert_eq!(fs::read_dir(server.data().join("sockets")).unwrap().count(), 0);
}

#[test]
fn a_program_that_listens_elsewhere_than_on_its_socket_is_told() {
    let server = Server::start();
    let one = function("f", &["--wrong-port"], "listen: socket\ntimeouts: {startup: 2s}");
    server.deploy_without_wait(&manifest(&[one]));
    let answer = server.get("/pid");
    assert!(answer.status() >= 500, "{answer:?}");
    let why = server.kip(&["why", "f"]).ok().stdout;
    assert!(why.contains("KIPWAKE_SOCKET"), "{why}");
    let both = server.try_deploy(&manifest(&[function("f", &[], "listen: socket\nport: 8080")]));
    both.failed(&["KW-1", "listen: socket"]);
}

/// Root chooses the user of a function; nobody else does.
#[test]
fn an_administrator_names_the_user_of_a_function() {
    let server = Server::start();
    let named = |user: &str| manifest(&[function("f", &[], &format!("user: {user}"))]);
    let isolated = server.api_get("/api/v1/status").json()["isolated"] == true;
    if !is_root() || !isolated {
        server.try_deploy(&named("nobody")).failed(&["KW-1080", "nobody"]);
        return;
    }
    server.deploy(&named("nobody"));
    assert_eq!(server.get("/pid").status(), 200, "{}", server.kip(&["why", "f"]).stdout);
    let status = fs::read_to_string(format!("/proc/{}/status", server.known()[0])).unwrap();
    let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert_eq!(uid.split_whitespace().nth(1), Some("65534"), "{uid}");
    let inside = server.kip(&["exec", "f", "--", "id", "-u"]).ok();
    assert_eq!(inside.stdout.trim(), "65534");
    server.try_deploy(&named("no-such-user")).failed(&["KW-1081", "no-such-user"]);
    for root in ["root", "0"] {
        server.try_deploy(&named(root)).failed(&["root"]);
    }
    let key = server.kip(&["key", "create", "ci", "--role", "deploy"]).ok().stdout.trim_end().to_owned();
    fs::write(server.folder().join("kip.yaml"), named("nobody")).unwrap();
    server.kip(&["deploy", "kip.yaml", "--key", &key]).failed(&["KW-1082", "admin"]);
    let mut server = server;
    server.terminate();
    let settings = server.data().join("kipwake.toml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, text + "\n[functions]\nuser = \"server\"\n").unwrap();
    server.start_again();
    server.try_deploy(&named("nobody")).failed(&["KW-1080"]);
}
