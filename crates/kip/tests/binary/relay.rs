//! The exchange with an instance as callers meet it: streams, timeouts, callers that leave, instances that misbehave.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::http::{Answer, Caller};
use crate::support::{self, Server, apart, call, until_true};

const MIB: u64 = 1 << 20;

/// A server with function `f` of one instance that takes one request at a time.
fn single(arguments: &[&str], settings: &str) -> Server {
    let server = Server::start();
    server.deploy_subject(arguments, &format!("instances: {{max: 1}}\nidle: {{pause: never}}\n{settings}"));
    server
}

/// The same with room for several requests at once.
fn shared(settings: &str) -> Server {
    let server = Server::start();
    server.deploy_subject(&[], &format!("instances: {{max: 1, concurrency: 16}}\nidle: {{pause: never}}\n{settings}"));
    server
}

/// Waits until an instance answers: short timeouts may well be over before a cold start is.
fn warm_up(server: &Server) {
    until_true("an instance answers", || server.get("/pid").status() == 200);
}

/// A caller whose request takes the only place there is.
fn holder(server: &Server) -> Caller {
    let mut caller = server.connect();
    caller.send("GET", "/f/f/hang", "");
    until_true("the place is taken", || server.function()["in_flight"] == 1);
    caller
}

/// A field of a process's status, in bytes.
fn memory(process: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the kernel counts memory");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The headers that an instance saw.
fn seen(answer: &Answer) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pairs = answer.json()["headers"].as_array().expect("a list").clone();
    pairs.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}

fn value<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut all = headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let first = all.next();
    assert_eq!(all.next(), None, "`{name}` comes once");
    first
}

#[test]
fn both_directions_stream() {
    let server = shared("request_body: stream");
    let mut events = server.connect();
    // Far longer than this test waits: the first pieces must come before the last one is sent.
    events.send("GET", "/f/f/stream/1000000/5", "");
    let head = events.head();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    for number in 0..3 {
        let piece = events.piece().expect("a piece");
        assert!(String::from_utf8(piece).unwrap().contains(&format!("data: {number}\n\n")));
    }
    events.leave();

    let mut both = server.connect();
    both.send("POST", "/f/f/tee", "transfer-encoding: chunked\r\n");
    both.chunk(b"first");
    assert_eq!(both.head().status, 200);
    assert_eq!(both.piece().unwrap(), b"first");
    both.chunk(b"second");
    assert_eq!(both.piece().unwrap(), b"second");
    both.chunk(b"");
    assert_eq!(both.piece().unwrap(), b"");
    // The connection lives on.
    both.send("GET", "/f/f/pid", "");
    assert_eq!(both.answer("GET").status(), 200);
    server.until_quiet();
}

#[test]
fn large_bodies_take_no_memory() {
    let server = single(&[], "");
    server.get("/pid");
    let before = memory(server.pid, "VmRSS");
    let target = format!("/f/f/big/{}", 64 * MIB);
    let mut down = server.connect();
    down.send("GET", &target, "");
    let head = down.head();
    assert_eq!(head.header("content-length"), Some((64 * MIB).to_string().as_str()));
    let mut waiting = server.connect();
    waiting.send("POST", "/f/f/echo", &format!("content-length: {}\r\n", 64 * MIB));
    // It waits while the other one is under way, and the other one's caller reads nothing for now.
    until_true("the upload waits", || server.function()["queued"] == 1);
    let upload = apart(move || {
        let piece = vec![7u8; 1 << 20];
        for _ in 0..64 {
            waiting.write(&piece);
        }
        waiting.answer("POST")
    });
    assert_eq!(down.forget(64 * MIB), 64 * MIB);
    let uploaded = upload.join().unwrap();
    assert_eq!((uploaded.status(), uploaded.json()["length"].as_u64()), (200, Some(64 * MIB)));
    let peak = memory(server.pid, "VmHWM");
    assert!(peak < before + 32 * MIB, "memory grew from {before} to {peak} bytes");
    server.until_quiet();
}

#[test]
fn callers_that_leave_free_their_place() {
    let server = single(&[], "request_body: stream");
    let holding = holder(&server);
    let mut queued = Vec::new();
    // More than is read of a body that waits, and no more than the socket takes.
    let large = "x".repeat(100_000);
    for (method, headers, body) in [
        ("GET", "", ""),
        ("POST", "content-length: 4\r\n", "all\n"),
        ("POST", "content-length: 40000\r\n", "a part of it"),
        ("POST", "transfer-encoding: chunked\r\n", "5\r\nhello\r\n"),
        ("POST", "content-length: 100000\r\n", &large),
        ("POST", "content-length: 400000\r\n", &large),
    ] {
        let mut caller = server.connect();
        caller.send(method, "/f/f/echo", headers);
        caller.write(body);
        queued.push(caller);
        let waiting = queued.len();
        until_true("it waits", || server.function()["queued"] == waiting);
    }
    while let Some(caller) = queued.pop() {
        caller.leave();
        let waiting = queued.len();
        until_true("its place in the queue is free", || server.function()["queued"] == waiting);
    }
    holding.leave();
    server.until_quiet();
    let left = server.until_record("the leaving is recorded", |record| record["path"] == "/hang");
    assert_eq!((&left["outcome"], &left["status"]), (&"left".into(), &0.into()));

    for target in ["/stream/1000000/5", "/stall"] {
        let mut caller = server.connect();
        caller.send("GET", &format!("/f/f{target}"), "");
        assert_eq!(caller.head().status, 200);
        assert_eq!(server.function()["in_flight"], 1);
        caller.leave();
        server.until_quiet();
        let left = server.until_record("the leaving is recorded", |record| record["path"] == target);
        assert_eq!((&left["outcome"], &left["status"]), (&"left".into(), &200.into()));
    }
    let mut caller = server.connect();
    caller.send("POST", "/f/f/echo", "content-length: 1000000000\r\n");
    caller.write(vec![0; 1 << 20]);
    until_true("it is under way", || server.function()["in_flight"] == 1);
    caller.leave();
    server.until_quiet();
    let uploads = |record: &Value| record["path"] == "/echo" && record["instance"] != Value::Null;
    let left = server.until_record("the leaving is recorded", uploads);
    assert_eq!((&left["outcome"], &left["code"]), (&"left".into(), &Value::Null), "no instance is to blame: {left}");
    assert_eq!(server.get("/pid").status(), 200, "the place is free for others");
}

#[test]
fn callers_that_leave_during_a_start() {
    let server = single(&["--ready-after", "1500"], "probes: {ready: /ready}");
    for method in ["GET", "POST"] {
        let mut caller = server.connect();
        caller.send(method, "/f/f/pid", "content-length: 3\r\n");
        caller.write("abc");
        until_true("it waits", || server.function()["queued"] == 1);
        caller.leave();
        until_true("it waits no more", || server.function()["queued"] == 0);
    }
    server.until_state("ready");
    assert_eq!(server.function()["in_flight"], 0);
    let answer = server.get("/count");
    assert_eq!(answer.json()["most"], 0, "nothing was sent for callers that had left");
}

#[test]
fn a_caller_that_does_not_read_cannot_keep_its_place() {
    let server = single(&[], "timeouts: {total: 3s}");
    warm_up(&server);
    let mut caller = server.connect();
    caller.send("GET", &format!("/f/f/big/{}", 64 * MIB), "");
    assert_eq!(caller.head().status, 200);
    server.until_quiet();
    warm_up(&server);
    let record = server.until_record("it is recorded", |record| record["path"].as_str().unwrap().starts_with("/big"));
    assert_eq!((&record["outcome"], &record["code"]), (&"broken".into(), &"KW-2008".into()));
    assert!(caller.forget(64 * MIB) < 64 * MIB, "the answer does not look whole");
}

#[test]
fn timeouts_say_which() {
    let server = single(&[], "timeouts: {queue: 300ms}");
    warm_up(&server);
    let holding = holder(&server);
    let late = server.get("/");
    assert_eq!((late.code().as_str(), late.status()), ("KW-2005", 504), "{late:?}");
    assert!(
        late.said().contains("no instance became free within") && late.said().contains("timeouts.queue"),
        "{late:?}"
    );
    holding.leave();

    server.deploy_subject(&[], "instances: {concurrency: 4}\ntimeouts: {first_byte: 300ms, idle: 300ms}");
    for method in ["GET", "POST"] {
        let late = server.call(method, "/hang");
        assert_eq!((late.code().as_str(), late.status()), ("KW-2006", 504), "{late:?}");
        assert!(late.said().contains("timeouts.first_byte, 300ms"), "{late:?}");
    }
    let mut slow = server.connect();
    slow.send("POST", "/f/f/echo", "content-length: 100\r\n");
    slow.write("not all of it");
    assert_eq!(slow.answer("POST").code(), "KW-2006");
    let silent = server.get("/stall");
    assert_eq!((silent.status(), silent.clean, silent.text().as_str()), (200, false, "beginning"));
    let record = server.until_record("the stall is recorded", |record| record["path"] == "/stall");
    assert_eq!((&record["code"], &record["outcome"]), (&"KW-2007".into(), &"broken".into()));

    server.deploy_subject(&[], "instances: {concurrency: 4}\ntimeouts: {total: 500ms}");
    let late = server.get("/hang");
    assert_eq!((late.code().as_str(), late.status()), ("KW-2008", 504), "{late:?}");
    assert!(late.said().contains("timeouts.total, 500ms"), "{late:?}");
    let endless = server.get("/stream/1000000/5");
    assert!(endless.status() == 200 && !endless.clean && endless.text().contains("data: 0"), "{endless:?}");
    let record =
        server.until_record("it is recorded", |record| record["path"].as_str().unwrap().starts_with("/stream"));
    assert_eq!((&record["code"], &record["outcome"]), (&"KW-2008".into(), &"broken".into()));
    server.until_quiet();
}

#[test]
fn broken_answers_do_not_look_whole() {
    let server = shared("");
    let died = server.get("/die");
    assert_eq!((died.status(), died.clean, died.body.len()), (200, false, 500), "{died:?}");
    let record = server.until_record("it is recorded", |record| record["path"] == "/die");
    assert_eq!(
        (&record["code"], &record["outcome"], &record["bytes"]),
        (&"KW-2010".into(), &"broken".into(), &500.into())
    );
    assert_eq!(server.get("/pid").status(), 200, "the next request has a new instance");
    let half = server.get("/half");
    assert_eq!((half.status(), half.clean, half.text().as_str()), (200, false, "half "), "{half:?}");
    for method in ["GET", "POST"] {
        let answer = server.call(method, "/garbage");
        assert_eq!((answer.code().as_str(), answer.status()), ("KW-2010", 502), "{answer:?}");
        assert!(answer.said().contains("kip logs f"), "{answer:?}");
    }
    server.until_quiet();
}

#[test]
fn only_what_is_safe_is_sent_twice() {
    let server = shared("");
    let mut expected = 0;
    for (method, times) in [("GET", 2), ("POST", 1), ("HEAD", 2), ("PUT", 2), ("PATCH", 1), ("DELETE", 2)] {
        let answer = server.call(method, "/drop");
        assert_eq!((answer.status(), answer.header("x-kip-error")), (502, Some("KW-2010")), "{method}: {answer:?}");
        expected += times;
        assert_eq!(server.get("/drops").text(), expected.to_string(), "{method}");
    }
    // A connection that the instance closed between two requests is nobody's failure.
    let mut caller = server.connect();
    for _ in 0..20 {
        caller.send("GET", "/f/f/once", "");
        let answer = caller.answer("GET");
        assert_eq!((answer.status(), answer.text().as_str()), (200, "once\n"), "{answer:?}");
        assert!(answer.header("x-kip-start").is_some(), "{answer:?}");
    }
    let answers: Vec<u16> = (0..20).map(|_| server.call_with("POST", "/once", "", b"body").status()).collect();
    assert_eq!(answers, [200; 20]);
}

#[test]
fn an_instance_that_died_while_idle_is_replaced_without_a_failure() {
    let server = single(&[], "");
    // One more would be called a crash loop, and the next start would wait.
    for round in 0..4 {
        let pid: u32 = server.get("/pid").text().parse().unwrap();
        support::kill(pid, Signal::KILL);
        let answer = server.get("/pid");
        assert_eq!(answer.status(), 200, "round {round}: {answer:?}");
        assert_ne!(answer.text(), pid.to_string());
    }
}

#[test]
fn headers_between_caller_and_instance() {
    let server = shared("");
    let sent = "authorization: Bearer mine\r\nconnection: close, x-drop\r\nx-drop: 1\r\nkeep-alive: 1\r\nproxy-connection: x\r\n\
                te: gzip\r\nx-fc-function-name: forged\r\nx-fc-anything: 1\r\nX-Kip-Anything: 1\r\n\
                x-forwarded-for: 8.8.8.8\r\nforwarded: for=8.8.8.8\r\nx-request-id: mine-1\r\nx-twice: 1\r\nx-twice: 2\r\n";
    let mut caller = server.connect();
    caller.send("GET", "/f/f/echo/a%2Fb?c=d%20e", sent);
    let answer = caller.answer("GET");
    assert_eq!(answer.json()["target"], "/echo/a%2Fb?c=d%20e", "the rest of the path keeps its bytes");
    assert_eq!(answer.header("x-kip-request-id"), Some("mine-1"));
    let headers = seen(&answer);
    for gone in
        ["connection", "x-drop", "keep-alive", "proxy-connection", "te", "x-fc-anything", "x-kip-anything", "forwarded"]
    {
        assert_eq!(value(&headers, gone), None, "{headers:?}");
    }
    for (name, expected) in [
        ("authorization", "Bearer mine"),
        ("host", "gateway"),
        ("x-fc-function-name", "f"),
        ("x-fc-qualifier", "LATEST"),
        ("x-fc-request-id", "mine-1"),
        ("x-kip-request-id", "mine-1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "gateway"),
        ("x-forwarded-prefix", "/f/f"),
    ] {
        assert_eq!(value(&headers, name), Some(expected), "{headers:?}");
    }
    assert!(value(&headers, "x-fc-version-id").is_some());
    let twice: Vec<&str> =
        headers.iter().filter(|(name, _)| name == "x-twice").map(|(_, value)| value.as_str()).collect();
    assert_eq!(twice, ["1", "2"]);

    let answer = server.get("/headers");
    assert_eq!((answer.text().as_str(), answer.header("x-kept")), ("ok", Some("1")));
    assert_eq!((answer.header("x-mine"), answer.header("keep-alive")), (None, None), "{answer:?}");
    assert!(answer.header("x-kip-instance").unwrap().starts_with("i-"), "{answer:?}");

    let env = server.get("/env").json();
    for name in ["PORT", "FC_SERVER_PORT", "FC_CUSTOM_LISTEN_PORT"] {
        assert_eq!(env[name], env["PORT"]);
    }
    assert_eq!((&env["FC_FUNCTION_NAME"], &env["KIPWAKE_FUNCTION"]), (&"f".into(), &"f".into()));
}

#[test]
fn requests_in_every_shape() {
    let server = shared("");
    let mut caller = server.connect();
    caller.send("HEAD", "/f/f/echo", "");
    let head = caller.answer("HEAD");
    assert_eq!(head.status(), 200);
    assert!(head.header("content-length").is_some_and(|length| length != "0"), "{head:?}");
    for status in [204, 304] {
        caller.send("GET", &format!("/f/f/status/{status}"), "");
        let answer = caller.answer("GET");
        assert_eq!((answer.status(), answer.header("x-subject")), (status, Some("1")), "{answer:?}");
    }
    caller.send("POST", "/f/f/echo", "expect: 100-continue\r\ncontent-length: 5\r\n");
    assert_eq!(caller.head().status, 100);
    caller.write("hello");
    assert_eq!(caller.answer("POST").json()["length"], 5);
    caller.send("POST", "/f/f/echo", "transfer-encoding: chunked\r\n");
    for piece in [&b"one"[..], b"two", b"three"] {
        caller.chunk(piece);
    }
    caller.chunk(b"");
    let chunked = caller.answer("POST").json();
    let whole = server.call_with("POST", "/echo", "", b"onetwothree").json();
    assert_eq!((&chunked["length"], &chunked["sum"]), (&11.into(), &whole["sum"]));
    caller.write("GET http://F.localhost/echo?x HTTP/1.1\r\nhost: elsewhere\r\n\r\n");
    assert_eq!(caller.answer("GET").json()["target"], "/echo?x");
    caller.write("GET /echo HTTP/1.1\r\nhost: f.localhost:5470\r\n\r\n");
    let by_host = caller.answer("GET");
    assert_eq!(
        (by_host.json()["target"].as_str(), value(&seen(&by_host), "x-forwarded-prefix")),
        (Some("/echo"), None)
    );
    caller.write("GET /f/f/echo/1 HTTP/1.1\r\nhost: a\r\n\r\nGET /f/f/delay/50 HTTP/1.1\r\nhost: a\r\n\r\nGET /f/f/echo/3 HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(caller.answer("GET").json()["target"], "/echo/1");
    assert_eq!(caller.answer("GET").text(), "delayed\n");
    assert_eq!(caller.answer("GET").json()["target"], "/echo/3");
    caller.write("GET /f/f/echo HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n");
    assert_eq!(caller.answer("GET").code(), "KW-2011");

    let mut old = server.connect();
    old.write("GET /f/f/stream/2/1 HTTP/1.0\r\n\r\n");
    let head = old.head();
    assert_eq!((head.status, head.header("transfer-encoding")), (200, None), "{head:?}");
    old.leave();
    let refused = server.connect();
    drop(refused);
    server.until_quiet();
}

#[test]
fn a_refusal_reaches_a_caller_who_is_still_sending() {
    let server = shared("trigger: {http: {methods: [GET]}}");
    for _ in 0..5 {
        let mut caller = server.connect();
        caller.send("POST", "/f/f/echo", &format!("content-length: {}\r\n", 16 * MIB));
        for _ in 0..16 {
            if caller.try_write(vec![1; 1 << 20]).is_err() {
                break;
            }
        }
        assert_eq!(caller.answer("POST").code(), "KW-2003");
    }
}

#[test]
fn the_hard_limit_is_never_passed() {
    let server = Server::start();
    server.deploy_subject(&[], "instances: {max: 2, concurrency: {hard: 3, soft: 2}}\nidle: {pause: never}");
    let gateway = server.gateway;
    let callers: Vec<_> = (0..16)
        .map(|_| {
            apart(move || {
                let mut caller = Caller::connect(gateway);
                (0..8).for_each(|_| {
                    caller.send("GET", "/f/f/delay/10", "");
                    assert_eq!(caller.answer("GET").status(), 200);
                });
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    let instances = server.instances();
    assert_eq!(instances.len(), 2);
    let mut served = 0;
    for instance in instances {
        let address = instance["address"].as_str().unwrap().parse().unwrap();
        let most = call(address, "GET", "/count", "", b"").json()["most"].as_u64().unwrap();
        assert!((1..=3).contains(&most), "{most} at once in {instance}");
        served += instance["served"].as_u64().unwrap();
    }
    assert_eq!(served, 16 * 8);
    server.until_quiet();
}

#[test]
fn a_full_queue_refuses_with_a_time_to_come_back() {
    let server = single(&[], "queue: {depth: 2}");
    let holding = holder(&server);
    let waiting: Vec<_> = (0..2).map(|_| server.later("GET", "/pid")).collect();
    until_true("both wait", || server.function()["queued"] == 2);
    let refused = server.call_with("POST", "/", "", b"body");
    assert_eq!((refused.code().as_str(), refused.status()), ("KW-2004", 429), "{refused:?}");
    assert_eq!(refused.header("x-kip-version"), Some("r1"), "{refused:?}");
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{refused:?}");
    assert!(refused.said().contains("queue.depth") && refused.said().contains("kip why f"), "{refused:?}");
    holding.leave();
    for answer in waiting {
        assert_eq!(answer.join().unwrap().status(), 200);
    }
}
