//! Doors and evidence, as an attacker would try them: floods of connections, headers that reach over a function's path, links in the place
//! of logs, texts that a terminal obeys, and a server that does not separate its functions.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::unix::fs::symlink;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::guard::is_root;
use crate::hostile::start_with_files;
use crate::http::Caller;
use crate::support::{Server, call, function, is_alive, manifest, until, until_true};

/// A connection from another address of loopback.
fn from(last: u8, to: SocketAddr) -> TcpStream {
    let own = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), 0);
    let made = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&made, &own).unwrap();
    connect(&made, &to).unwrap();
    TcpStream::from(made)
}

/// How many of these the server holds open: it closes one that is too many at once, and one that says nothing after 10 seconds.
fn held(streams: &[TcpStream]) -> usize {
    std::thread::sleep(std::time::Duration::from_millis(500));
    let is_held = |stream: &&TcpStream| {
        stream.set_nonblocking(true).unwrap();
        stream.peek(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    streams.iter().filter(is_held).count()
}

#[test]
fn connections_to_the_api_are_bounded_in_all_and_by_address() {
    let mut server = Server::start();
    // An eighth of the open files, and half of that from one address.
    start_with_files(&mut server, "-n 320");
    let first: Vec<TcpStream> = (0..30).map(|_| from(2, server.api)).collect();
    let own = held(&first);
    assert_eq!(own, 20, "half of 40 from one address");
    let second: Vec<TcpStream> = (0..30).map(|_| from(3, server.api)).collect();
    assert_eq!(held(&second), 20, "40 in all");
    let third: Vec<TcpStream> = (0..5).map(|_| from(4, server.api)).collect();
    assert_eq!(held(&third), 0, "and none beyond");
    // The gateway goes on, and so does the API when they have left.
    server_serves(&server);
    drop((first, second, third));
    until_true("the API takes connections again", || {
        let mut stream = from(1, server.api);
        let sent = std::io::Write::write_all(
            &mut stream,
            b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        );
        let mut text = String::new();
        sent.is_ok() && std::io::Read::read_to_string(&mut stream, &mut text).is_ok() && text.contains(" 200 ")
    });
    assert!(is_alive(server.pid));
}

fn server_serves(server: &Server) {
    let mut caller = Caller::connect(server.gateway);
    caller.send("GET", "/nothing", "connection: close\r\n");
    assert_eq!(caller.answer("GET").status(), 404);
}

#[test]
fn headers_that_reach_over_a_path_are_kept_to_it() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    let answer = server.get("/reach");
    assert_eq!((answer.header("service-worker-allowed"), answer.header("clear-site-data")), (None, None));
    let cookies = |answer: &crate::http::Answer| {
        let set = answer.head.headers.iter().filter(|(name, _)| name == "set-cookie");
        set.map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    assert_eq!(cookies(&answer), ["a=1; HttpOnly; Path=/f/f/", "b=2; Path=/f/f/own", "c=3"]);
    // A host name of its own is an origin of its own.
    let mut caller = server.connect();
    caller.write("GET /reach HTTP/1.1\r\nhost: f.localhost\r\nconnection: close\r\n\r\n");
    let answer = caller.answer("GET");
    assert_eq!(answer.header("service-worker-allowed"), Some("/"));
    assert_eq!(cookies(&answer)[0], "a=1; Path=/; HttpOnly");
    // Programs that make variables of headers take this one for their own setting.
    let echoed = server.call_with("GET", "/echo", "proxy: http://evil.example\r\nx-kept: 1\r\n", b"").text();
    assert!(!echoed.contains("evil.example") && echoed.contains("x-kept"), "{echoed}");
}

#[test]
fn a_secret_in_the_place_of_a_name_is_masked_in_the_audit_record() {
    let server = Server::start();
    let pasted = "hf_0123456789abcdefXYZabc";
    server.kip(&["key", "create", pasted]);
    server.kip(&["key", "rm", &format!("kw_{:060x}", 7)]);
    let records = server.ask(&["audit", "-n", "50"]).to_string();
    assert!(records.contains("***") && !records.contains(pasted) && !records.contains("kw_0000"), "{records}");
    // It is read by page.
    let first = server.ask(&["audit", "-n", "1"]);
    let id = first[0]["id"].as_i64().unwrap().to_string();
    let next = server.ask(&["audit", "-n", "50", "--before", &id]);
    assert!(next.as_array().unwrap().iter().all(|record| record["id"].as_i64() < first[0]["id"].as_i64()), "{next}");
}

#[test]
fn links_in_the_place_of_logs_are_not_followed() {
    let mut server = Server::start();
    let victim = server.folder().join("victim");
    fs::write(&victim, "precious").unwrap();
    server.deploy_subject(&[], "");
    assert_eq!(server.get("/log/1").status(), 200);
    let log = until("there is a log", || {
        fs::read_dir(server.data().join("logs/f")).ok()?.flatten().next().map(|entry| entry.path())
    });
    fs::remove_file(&log).unwrap();
    symlink(&victim, &log).unwrap();
    assert_eq!(server.get("/log/5").status(), 200);
    let shown = server.api_get("/api/v1/functions/f/logs?tail=50");
    assert!(!shown.text().contains("precious"), "{shown:?}");
    server.terminate();
    // A link in the place of the whole folder, and of the log of a server in the background.
    let elsewhere = server.folder().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::remove_dir_all(server.data().join("logs")).unwrap();
    symlink(&elsewhere, server.data().join("logs")).unwrap();
    let command = server.serve_command();
    if server.try_start_by(command).is_none() {
        server.get("/log/5");
        server.terminate();
    }
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "nothing is written behind the link");
    fs::remove_file(server.data().join("logs")).unwrap();
    symlink(&victim, server.data().join("server.log")).unwrap();
    let started = server.kip(&["start", "--gateway", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
    assert_ne!(started.code, Some(0), "its log is a link: {started:?}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    fs::remove_file(server.data().join("server.log")).unwrap();
    // It ends what is left.
    server.start_again();
}

#[test]
fn nothing_that_a_program_says_moves_a_terminal() {
    let server = Server::start();
    let escape = "\\033]0;owned\\007\\033[2J";
    let script = format!("printf '{escape}evil\\n' >&2; exit 3");
    let run = serde_json::to_string(&script).unwrap();
    server.deploy_without_wait(&format!(
        "api: kip/v1\nfunctions:\n  f:\n    run: [sh, -c, {run}]\n  g:\n    run: [{}]\n",
        crate::support::subject().display()
    ));
    server.get("/pid");
    assert_eq!(call(server.gateway, "GET", "/f/g/pid", "", b"").status(), 200);
    // What a caller sends is shown as well.
    let mut caller = server.connect();
    caller.write(b"GET /f/g/\xc2\x9b31m\xe2\x80\xae HTTP/1.1\r\nhost: localhost\r\nuser-agent: \x1b[31m\r\nconnection: close\r\n\r\n");
    let _ = caller.try_head();
    let instance = server.instances()[0]["id"].as_str().unwrap().to_owned();
    for command in [
        &["why", "f"][..],
        &["why", "g"],
        &["logs", "f"],
        &["requests", "g"],
        &["inspect", &instance],
        &["ls"],
        &["ps"],
        &["audit"],
    ] {
        let ran = server.kip(command);
        let moves = |text: &str| {
            text.chars().any(|c| c.is_control() && !"\n\t".contains(c) || ('\u{202a}'..='\u{202e}').contains(&c))
        };
        assert!(!moves(&ran.stdout) && !moves(&ran.stderr), "{command:?}: {ran:?}");
    }
    let why = server.kip(&["why", "f"]).stdout + &server.kip(&["logs", "f"]).stdout;
    assert!(why.contains("evil"), "it is shown all the same: {why}");
}

#[test]
fn a_server_that_separates_nothing_says_so_everywhere() {
    let server = Server::with("[functions]\nuser = \"server\"");
    server.deploy(&manifest(&[function("f", &[], "")]));
    let user = if is_root() { "root" } else { "this user" };
    let log = server.log();
    assert!(log.contains(&format!("functions run as {user}")) && log.contains("docs/hardening.md"), "{log}");
    let found = server.doctor();
    let isolation = found.as_array().unwrap().iter().find(|finding| finding["what"] == "isolation").unwrap();
    assert_eq!(isolation["state"], if is_root() { "bad" } else { "note" }, "{isolation}");
    let made = server.kip(&["key", "create", "ci", "--role", "deploy", "--functions", "f"]).ok();
    assert!(made.stderr.contains("KW-7019") && made.stderr.contains("hardening"), "{made:?}");
    let made = server.kip(&["key", "create", "caller", "--role", "invoke"]).ok();
    assert!(!made.stderr.contains("KW-7019"), "{made:?}");
}
