//! What two servers could read in two ways is refused, each case by its line in docs/protocols.md.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::http::Caller;
use crate::support::{LIMIT, Server, until, until_true};

/// Sends bytes and gives everything that comes back until the server closes the connection.
fn exchange(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.gateway).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // A server that has refused already may have closed its side.
    let _ = stream.write_all(bytes);
    let mut all = Vec::new();
    if let Err(error) = stream.read_to_end(&mut all) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "after {bytes:?} came {all:?}");
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn long(length: usize) -> String {
    "x".repeat(length)
}

/// Each case with the line it has in the table of the docs, the bytes, the status and the code.
fn refused() -> Vec<(&'static str, Vec<u8>, u16, &'static str)> {
    let smuggled = "0\r\n\r\nGET /f/f/smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let post =
        |headers: &str, body: &str| format!("POST /f/f/echo HTTP/1.1\r\nhost: a\r\n{headers}\r\n{body}").into_bytes();
    let get = |headers: &str| format!("GET /f/f/echo HTTP/1.1\r\nhost: a\r\n{headers}\r\n").into_bytes();
    let line = |line: &str| format!("{line}\r\nhost: a\r\n\r\n").into_bytes();
    vec![
        (
            "Content-Length with Transfer-Encoding",
            post("content-length: 4\r\ntransfer-encoding: chunked\r\n", smuggled),
            400,
            "KW-2020",
        ),
        (
            "Content-Length with Transfer-Encoding",
            post("transfer-encoding: chunked\r\ncontent-length: 4\r\n", smuggled),
            400,
            "KW-2020",
        ),
        ("Content-Length twice", post("content-length: 3\r\ncontent-length: 3\r\n", "abc"), 400, "KW-2020"),
        ("Content-Length twice", post("content-length: 3, 3\r\n", "abc"), 400, "KW-2020"),
        ("Content-Length that is not a number", post("content-length: +3\r\n", "abc"), 400, "KW-2020"),
        ("Content-Length that is not a number", post("content-length: 0x3\r\n", "abc"), 400, "KW-2020"),
        (
            "Transfer-Encoding other than `chunked`",
            post("transfer-encoding: gzip, chunked\r\n", smuggled),
            400,
            "KW-2020",
        ),
        ("Transfer-Encoding other than `chunked`", post("transfer-encoding: xchunked\r\n", smuggled), 400, "KW-2020"),
        (
            "Transfer-Encoding other than `chunked`",
            post("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", smuggled),
            400,
            "KW-2020",
        ),
        (
            "Transfer-Encoding in HTTP/1.0",
            b"POST /f/f/echo HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
            400,
            "KW-2020",
        ),
        ("chunks that are none", post("transfer-encoding: chunked\r\n", "zz\r\nabc\r\n0\r\n\r\n"), 400, "KW-2020"),
        ("chunks that are none", post("transfer-encoding: chunked\r\n", "3\nabc\r\n0\r\n\r\n"), 400, "KW-2020"),
        ("chunks that are none", post("transfer-encoding: chunked\r\n", "3\r\nabcd\r\n0\r\n\r\n"), 400, "KW-2020"),
        (
            "chunk extensions over 256 bytes",
            post("transfer-encoding: chunked\r\n", &format!("3;{}\r\nabc\r\n0\r\n\r\n", long(300))),
            400,
            "KW-2020",
        ),
        ("no Host", b"GET /f/f/echo HTTP/1.1\r\n\r\n".to_vec(), 400, "KW-2011"),
        ("two Hosts", get("host: b\r\n"), 400, "KW-2011"),
        ("Host that is not a host", b"GET /f/f/echo HTTP/1.1\r\nhost: a/b\r\n\r\n".to_vec(), 400, "KW-2011"),
        ("Host that is not a host", b"GET /f/f/echo HTTP/1.1\r\nhost: user@a\r\n\r\n".to_vec(), 400, "KW-2011"),
        ("bare line feed", b"GET /f/f/echo HTTP/1.1\nhost: a\n\n".to_vec(), 400, "KW-2011"),
        ("bare line feed", b"GET /f/f/echo HTTP/1.1\r\nhost: a\r\nx: 1\ny: 2\r\n\r\n".to_vec(), 400, "KW-2011"),
        ("folded header", get("x: 1\r\n 2\r\n"), 400, "KW-2011"),
        ("header name that is not a token", get("x : 1\r\n"), 400, "KW-2011"),
        ("header name that is not a token", get("x y: 1\r\n"), 400, "KW-2011"),
        ("header name that is not a token", get("nothing\r\n"), 400, "KW-2011"),
        ("control character in a header", get("x: a\0b\r\n"), 400, "KW-2011"),
        ("control character in a header", get("x: a\rb\r\n"), 400, "KW-2011"),
        ("request line that is not three words", line("GET /f/f/echo"), 400, "KW-2011"),
        ("request line that is not three words", line("GET /f/f/a b HTTP/1.1"), 400, "KW-2011"),
        ("target that is not a path or an http address", line("GET f/f/echo HTTP/1.1"), 400, "KW-2011"),
        ("target that is not a path or an http address", line("GET a:80 HTTP/1.1"), 400, "KW-2011"),
        ("target that is not a path or an http address", line("GET http://u@a/f/f/ HTTP/1.1"), 400, "KW-2011"),
        ("target that is not a path or an http address", line("GET /f/f/#x HTTP/1.1"), 400, "KW-2011"),
        ("CONNECT", line("CONNECT a:80 HTTP/1.1"), 400, "KW-2011"),
        ("version other than 1.0, 1.1 and 2", line("GET / HTTP/1.2"), 505, "KW-2024"),
        ("version other than 1.0, 1.1 and 2", line("GET / HTTP/3.0"), 505, "KW-2024"),
        ("head too large", get(&format!("x: {}\r\n", long(70_000))), 431, "KW-2021"),
        ("too many headers", get(&(0..101).map(|n| format!("x-{n}: 1\r\n")).collect::<String>()), 431, "KW-2021"),
        ("target too long", line(&format!("GET /f/f/{} HTTP/1.1", long(17_000))), 414, "KW-2022"),
        ("the gateway's own method", line("KIP-REFUSED / HTTP/1.1"), 400, "KW-2011"),
    ]
}

#[test]
fn what_can_be_read_in_two_ways_is_refused_with_a_code() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    assert_eq!(server.get("/echo").status(), 200);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocols.md")).unwrap();
    for (case, bytes, status, code) in refused() {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        let row = format!("| {case} | {status}, {code} |");
        assert!(page.contains(&row), "docs/protocols.md lacks: {row}");
        let answer = exchange(&server, &bytes);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{case}: {shown:?} was answered with {answer}");
        assert!(answer.to_lowercase().contains(&format!("x-kip-error: {}", code.to_lowercase())), "{case}: {answer}");
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{case}: nothing behind it is taken for a request: {answer}"
        );
    }
    server.until_quiet();
    let records = server.api_get("/api/v1/functions/f/requests?limit=1000").json();
    let smuggled = records.as_array().unwrap().iter().filter(|record| record["path"] == "/smuggled").count();
    assert_eq!(smuggled, 0, "{records}");
}

#[test]
fn what_comes_before_a_refused_request_is_answered_first() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    let good = "GET /f/f/pid HTTP/1.1\r\nhost: a\r\n\r\n";
    let answer = exchange(&server, format!("{good}{good}GET / HTTP/1.1\r\n\r\n{good}").as_bytes());
    let statuses: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).map(|rest| &rest[..3]).collect();
    assert_eq!(statuses, ["200", "200", "400"], "{answer}");
}

/// What is wrong with a later request says nothing about an earlier one.
#[test]
fn each_request_has_its_own_answer() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    let answer = exchange(&server, b"GET /f/f/drop HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\nhost: a\n\n");
    let codes: Vec<&str> = answer.split("x-kip-error: ").skip(1).map(|rest| &rest[..7]).collect();
    assert_eq!(codes, ["KW-2010", "KW-2011"], "{answer}");
}

/// To a caller of HTTP/1.0 the end of the connection is the end of the answer: half of one must not end like a whole one.
#[test]
fn half_an_answer_does_not_end_like_a_whole_one_for_old_callers() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    let mut stream = TcpStream::connect(server.gateway).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"GET /f/f/half HTTP/1.0\r\n\r\n").unwrap();
    let mut all = Vec::new();
    let error = stream.read_to_end(&mut all).expect_err("no clean end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_get_keeps_its_body_whatever_its_length() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    let mut caller = server.connect();
    caller.send("GET", "/f/f/echo", "transfer-encoding: chunked\r\n");
    caller.chunk(b"hello");
    caller.chunk(b"");
    assert_eq!(caller.answer("GET").json()["length"], 5);
}

#[test]
fn heads_may_come_in_any_pieces() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    let mut caller = server.connect();
    let request = "\r\nPOST /f/f/echo HTTP/1.1\r\nhost: gateway\r\ntransfer-encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n0\r\nx-t: 1\r\n\r\n";
    for _ in 0..2 {
        for byte in request.as_bytes() {
            caller.write([*byte]);
        }
        let answer = caller.answer("POST");
        assert_eq!((answer.status(), &answer.json()["length"]), (200, &5.into()), "{answer:?}");
    }
    // Two requests in one piece, the second with a body.
    caller.write(
        "GET /f/f/pid HTTP/1.1\r\nhost: a\r\n\r\nPOST /f/f/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
    );
    assert_eq!(caller.answer("GET").status(), 200);
    assert_eq!(caller.answer("POST").json()["length"], 3);
}

#[test]
fn slow_callers_are_told_and_let_off() {
    let server = Server::with("[limits]\nhead_time = \"300ms\"\nbody_idle = \"300ms\"\nidle = \"1s\"\n");
    server.deploy_subject(&[], "");
    assert_eq!(server.get("/echo").status(), 200);
    let late = exchange(&server, b"GET /f/f/echo HTTP/1.1\r\nhost: a\r\nx: ");
    assert!(late.starts_with("HTTP/1.1 408 ") && late.contains("KW-2023"), "{late}");
    let late = exchange(&server, b"POST /f/f/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc");
    assert!(late.starts_with("HTTP/1.1 408 ") && late.contains("KW-2023"), "{late}");
    let record = server.until_record("it is recorded", |record| record["code"] == "KW-2023");
    assert_eq!((&record["outcome"], &record["status"]), (&"refused".into(), &408.into()), "{record}");
    // What is no HTTP at all waits for nothing.
    let tls = exchange(&server, b"\x16\x03\x01\x02");
    assert!(tls.starts_with("HTTP/1.1 400 "), "{tls}");
    let mut idle = server.connect();
    idle.send("GET", "/f/f/pid", "");
    assert_eq!(idle.answer("GET").status(), 200);
    until_true("an idle connection is closed", || idle.is_closed());
    // Who waits for an answer owes nothing.
    let slow = server.call("GET", "/delay/1500");
    assert_eq!(slow.status(), 200, "{slow:?}");
    server.until_quiet();
}

#[test]
fn bodies_and_connections_have_limits_where_they_are_set() {
    let server = Server::with("[limits]\nbody = \"1KiB\"\nconnections = 2\n");
    server.deploy_subject(&[], "");
    let large = server.call_with("POST", "/echo", "", &[b'x'; 2_000]);
    assert_eq!((large.status(), large.code().as_str()), (413, "KW-2025"), "{large:?}");
    assert!(large.text().contains("limits.body is 1KiB"), "{}", large.text());
    let mut chunked = server.connect();
    chunked.send("POST", "/f/f/echo", "transfer-encoding: chunked\r\n");
    chunked.chunk(&[b'x'; 2_000]);
    let large = chunked.answer("POST");
    assert_eq!((large.status(), large.code().as_str()), (413, "KW-2025"), "{large:?}");
    drop(chunked);
    let mut just_fits = server.connect();
    just_fits.send("POST", "/f/f/echo", "transfer-encoding: chunked\r\n");
    just_fits.chunk(&[b'x'; 1_024]);
    just_fits.chunk(b"");
    assert_eq!(just_fits.answer("POST").json()["length"], 1_024);
    drop(just_fits);
    // However it is sent, and however much: the caller is told, and the record does not blame it for leaving.
    if let Some(curl) = crate::clients::program("curl") {
        let file = server.folder().join("large");
        std::fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
        let (upload, url) = (format!("@{}", file.display()), format!("http://{}/f/f/echo", server.gateway));
        let file = file.display().to_string();
        for how in [
            &["--http1.1", "--data-binary", &upload][..],
            &["--http1.1", "-H", "transfer-encoding: chunked", "-H", "expect:", "--data-binary", &upload],
            &["--http2-prior-knowledge", "--data-binary", &upload],
            &["--http2-prior-knowledge", "-H", "content-length:", "-X", "POST", "-T", &file],
        ] {
            let arguments = [&["-sS", "--max-time", "30", "-w", "|%{http_code}"], how, &[&url]].concat();
            let ran = crate::support::run(std::process::Command::new(curl).args(arguments));
            assert!(ran.stdout.contains("KW-2025") && ran.stdout.ends_with("|413"), "{how:?}: {ran:?}");
        }
        let records = server.api_get("/api/v1/functions/f/requests?limit=1000").json();
        let left = records.as_array().unwrap().iter().filter(|record| record["outcome"] == "left").count();
        assert_eq!(left, 0, "{records}");
    }
    let held: Vec<Caller> = (0..2).map(|_| until("there is a place", || answered(&server))).collect();
    let mut third = server.connect();
    let refused = third.answer("GET");
    assert_eq!((refused.status(), refused.code().as_str()), (503, "KW-2026"), "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    drop(held);
    until_true("there is room again", || server.get("/pid").status() == 200);
}

/// A connection that has had an answer and stays open, if there is a place for it.
fn answered(server: &Server) -> Option<Caller> {
    let mut caller = server.connect();
    caller.send("GET", "/f/f/pid", "");
    let head = caller.try_head().filter(|head| head.status == 200)?;
    caller.rest("GET", head);
    Some(caller)
}

/// An instance's answer cannot begin another one, nor say what only the gateway may.
#[test]
fn answers_cannot_be_split() {
    let server = Server::start();
    server.deploy_subject(&[], "instances: {concurrency: 4}");
    for path in
        ["/split/feed", "/split/nul", "/split/fold", "/split/lengths", "/split/both", "/split/list", "/split/coding"]
    {
        let answer = server.get(path);
        assert!(answer.status() == 502 || answer.header("x-injected").is_none(), "{path}: {answer:?}");
        assert_eq!(answer.status(), 502, "{path}: {answer:?}");
        assert_eq!(answer.code(), "KW-2010", "{path}: {answer:?}");
    }
}
