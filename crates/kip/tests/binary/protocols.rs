//! WebSocket, trailers, TLS, routes by model and listeners that outlive the server, on the wire. Other people's clients are in
//! `clients`.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::http::Caller;
use crate::support::{self, LIMIT, Server, call, function, manifest, until, until_true};

const ASK: &str =
    "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: a2V5\r\n";

/// A raw connection after its upgrade.
fn upgraded(server: &Server, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.gateway).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET /f/f{path} HTTP/1.1\r\nhost: a\r\n{ASK}\r\n").unwrap();
    let head = head_of(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("sec-websocket-accept: of a2V5"), "{head}");
    assert!(head.to_lowercase().contains("upgrade: websocket"), "{head}");
    stream
}

fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap() == 0 {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn echoed(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, bytes);
}

#[test]
fn a_websocket_starts_an_instance_counts_as_load_and_is_recorded() {
    let server = Server::start();
    server.deploy_subject(&[], "instances: {max: 1}\nidle: {pause: 200ms}\ntimeouts: {total: 2s}");
    let mut first = upgraded(&server, "/websocket");
    echoed(&mut first, b"one");
    // Longer than a request may take in all, and than an idle instance stays awake.
    until_true("total has passed", || {
        let records = server.api_get("/api/v1/functions/f/decisions?limit=10").json();
        let started = records.as_array().unwrap().last().unwrap()["at"].as_i64().unwrap();
        kip_host::clock::wall_millis() - started > 3_000
    });
    assert_eq!(server.function()["in_flight"], 1);
    echoed(&mut first, &[7; 100_000]);
    // One at a time: the next one waits for the end of this one.
    let second = server.later("GET", "/pid");
    until_true("it waits", || server.function()["queued"] == 1);
    drop(first);
    assert_eq!(second.join().unwrap().status(), 200);
    let record = server.until_record("the socket is recorded", |record| record["path"] == "/websocket");
    assert_eq!((&record["status"], &record["start"]), (&101.into(), &"cold".into()), "{record}");
    assert_eq!((&record["bytes"], &record["bytes_in"]), (&100_003.into(), &100_003.into()), "{record}");
    until_true("the program saw the end", || server.kip(&["logs", "f"]).stdout.contains("websocket over"));
    server.until_state("paused");
}

#[test]
fn the_death_of_an_instance_and_silence_end_a_websocket() {
    let server = Server::start();
    server.deploy_subject(&[], "timeouts: {idle: 700ms}");
    let mut socket = upgraded(&server, "/websocket");
    socket.write_all(b"die").unwrap();
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest);
    assert_eq!(rest, b"die");
    let mut quiet = upgraded(&server, "/websocket/quiet");
    assert_eq!(quiet.read(&mut [0]).unwrap_or(0), 0, "it is closed");
    let record = server.until_record("that is recorded", |record| record["path"] == "/websocket/quiet");
    assert_eq!((&record["code"], &record["outcome"]), (&"KW-2007".into(), &"broken".into()));
    server.until_quiet();
}

/// What a caller sends behind its request for a WebSocket is the instance's if that takes it, and a request if not.
#[test]
fn nothing_is_smuggled_behind_an_upgrade() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    let hidden = "GET /f/f/smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut caller = server.connect();
    caller.write(format!("GET /f/f/websocket HTTP/1.1\r\nhost: a\r\n{ASK}\r\n{hidden}"));
    assert_eq!(caller.head().status, 101);
    let mut back = vec![0; hidden.len()];
    caller.read_exact(&mut back);
    assert_eq!(String::from_utf8_lossy(&back), hidden);
    drop(caller);

    let mut caller = server.connect();
    caller.write(format!(
        "GET /f/f/websocket/refuse HTTP/1.1\r\nhost: a\r\n{ASK}\r\nGET /f/f/pid HTTP/1.1\r\nhost: a\r\n\r\n"
    ));
    assert_eq!(caller.answer("GET").status(), 426);
    assert_eq!(caller.answer("GET").status(), 200, "it was a request then");
    // Without being named by Connection, or for another protocol, nothing is asked for.
    for headers in ["upgrade: websocket\r\n", "connection: upgrade\r\nupgrade: h2c\r\n", "connection: upgrade\r\n"] {
        assert_eq!(server.call_with("GET", "/websocket", headers, b"").status(), 426, "{headers}");
    }
    // Nor by anything that asks while answers are due.
    let mut early = server.connect();
    early.write(format!(
        "GET /f/f/delay/300 HTTP/1.1\r\nhost: a\r\n\r\nGET /f/f/websocket HTTP/1.1\r\nhost: a\r\n{ASK}\r\n"
    ));
    assert_eq!(early.answer("GET").status(), 200);
    let refused = early.answer("GET");
    assert_eq!((refused.status(), refused.code().as_str()), (400, "KW-2011"), "{refused:?}");
    server.until_quiet();
    let records = server.api_get("/api/v1/functions/f/requests?limit=1000").json();
    assert!(!records.to_string().contains("smuggled"), "{records}");
}

#[test]
fn trailers_and_interim_answers() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    let mut caller = server.connect();
    caller.send("GET", "/f/f/trailers", "te: trailers\r\nconnection: close, te\r\n");
    let all = caller.everything();
    assert!(all.contains("2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"), "{all}");
    let mut caller = server.connect();
    caller.send("POST", "/f/f/echo", "expect: 100-continue\r\ncontent-length: 3\r\n");
    assert_eq!(caller.head().status, 100);
    caller.write("abc");
    let answer = caller.answer("POST");
    assert_eq!(answer.json()["length"], 3);
    assert!(!answer.text().contains("100-continue"), "the gateway has answered that: {answer:?}");
}

#[test]
fn models_are_found_by_name() {
    let server = Server::start();
    server.deploy(&manifest(&[function("qwen", &[], ""), function("other", &[], "")]));
    let ask =
        |method: &str, target: &str, headers: &str, body: &[u8]| call(server.gateway, method, target, headers, body);
    let listed = ask("GET", "/v1/models", "", b"").json();
    let names: Vec<&str> = listed["data"].as_array().unwrap().iter().filter_map(|model| model["id"].as_str()).collect();
    assert_eq!(names, ["other", "qwen"]);
    assert_eq!(ask("GET", "/v1/models/qwen", "", b"").json()["id"], "qwen");
    assert!(server.instances().is_empty(), "lists wake nobody");

    // The model comes behind 300 kB, and all of it arrives.
    let body = format!(
        "{{\"messages\": [{{\"model\": \"no\", \"content\": \"{}\"}}], \"model\": \"qwen\", \"stream\": true}}",
        "x".repeat(300_000)
    );
    let answer = ask("POST", "/v1/echo", "content-type: application/json\r\n", body.as_bytes());
    assert_eq!((answer.status(), &answer.json()["length"]), (200, &body.len().into()), "{answer:?}");
    assert_eq!((answer.json()["target"].as_str(), server.instances().len()), (Some("/v1/echo"), 1));
    let form = "--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nother\r\n--b--\r\n";
    let answer = ask("POST", "/v1/echo", "content-type: multipart/form-data; boundary=b\r\n", form.as_bytes());
    assert_eq!((answer.status(), &answer.json()["length"]), (200, &form.len().into()), "{answer:?}");

    let unknown = ask("POST", "/v1/echo", "", b"{\"model\": \"qwem\"}");
    assert_eq!((unknown.status(), unknown.header("x-kip-error")), (404, Some("KW-2028")), "{unknown:?}");
    let error = &unknown.json()["error"];
    assert_eq!(error["code"], "model_not_found", "{unknown:?}");
    assert!(error["message"].as_str().is_some_and(|m| m.contains("did you mean `qwen`")), "{unknown:?}");
    for body in [&b"{}"[..], b"", b"[1]", b"{\"model\": 1}"] {
        let answer = ask("POST", "/v1/echo", "", body);
        assert_eq!((answer.status(), answer.code().as_str()), (400, "KW-2027"), "{answer:?}");
    }

    let answer = ask("POST", "/v2/models/qwen/infer?x=1", "", b"{}");
    assert_eq!(answer.text(), "subject\n");
    let unknown = ask("GET", "/v2/models/nobody/ready", "", b"");
    assert_eq!((unknown.status(), unknown.header("x-kip-error")), (404, Some("KW-2028")), "{unknown:?}");
    let said = unknown.json()["error"].as_str().unwrap_or_default().to_owned();
    assert!(said.starts_with("[KW-2028] ") && said.contains("kip ls"), "KServe's clients want one text: {said}");
    assert_eq!(ask("GET", "/v2", "", b"").json()["name"], "kipwake");
    assert_eq!(ask("GET", "/v2/health/ready", "", b"").status(), 200);
    let index = ask("POST", "/v2/repository/index", "", b"").json();
    assert_eq!(index.as_array().unwrap().len(), 2, "{index}");
}

/// A certificate for localhost, made by openssl. Its name tells it from another.
fn certificate(folder: &std::path::Path, name: &str) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=DNS:localhost"])
        .arg("-keyout")
        .arg(folder.join("key.new"))
        .arg("-out")
        .arg(folder.join("cert.new"))
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::rename(folder.join("key.new"), folder.join("key.pem")).unwrap();
    std::fs::rename(folder.join("cert.new"), folder.join("cert.pem")).unwrap();
}

fn curl(server: &Server, arguments: &[&str]) -> support::CommandOutput {
    support::run(Command::new("curl").args(["-sS", "--max-time", "30"]).args(arguments).current_dir(server.folder()))
}

#[test]
fn tls_is_spoken_and_its_certificate_renewed() {
    let mut server = Server::with("");
    certificate(server.folder(), "first");
    // A port that nobody has now; whoever takes it meanwhile makes the start fail with a clear word.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    server.terminate();
    let folder = server.folder().display().to_string();
    let settings = format!(
        "[limits]\nidle = \"1s\"\n[server]\nthreads = 2\npatience = \"5s\"\n[tls]\nlisten = \"{free}\"\ncertificate = \"{folder}/cert.pem\"\nkey = \"{folder}/key.pem\"\n"
    );
    std::fs::write(server.data().join("kipwake.toml"), settings).unwrap();
    let key = server.folder().join("key.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o604)).unwrap();
    server.start_again();
    assert!(server.log().contains("can read the TLS key"), "{}", server.log());
    server.deploy_subject(&[], "");
    let url = format!("https://localhost:{}/f/f/echo", free.port());
    let ask = |version: &str| {
        curl(&server, &["--cacert", "cert.pem", "-w", "%{http_version} %{ssl_verify_result}", version, &url])
    };
    let answer = ask("--http2").ok().stdout;
    assert!(answer.ends_with("2 0") && answer.contains("[\"x-forwarded-proto\",\"https\"]"), "{answer}");
    assert!(ask("--http1.1").ok().stdout.ends_with("1.1 0"));
    let plain = curl(&server, &[&format!("http://localhost:{}/", free.port())]);
    assert!(plain.stdout.contains("KW-2011") && plain.stdout.contains("https://"), "{plain:?}");

    // Agreed on HTTP/2, and then silent: it is closed like any other, and holds no place.
    let mut silent = Command::new("openssl");
    silent.args(["s_client", "-quiet", "-alpn", "h2", "-connect", &free.to_string()]);
    silent.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut silent = support::ChildGuard::spawn(&mut silent);
    until("it is closed", || silent.ended());

    certificate(server.folder(), "second");
    until_true("the new certificate is used", || ask("--http2").code == Some(0));
    std::fs::write(server.folder().join("cert.pem"), "no certificate").unwrap();
    until_true("a bad one is named", || server.log().contains("the certificate was not renewed"));
    certificate(server.folder(), "third");
    until_true("and mended", || ask("--http2").code == Some(0));

    std::fs::write(server.folder().join("key.pem"), "no key").unwrap();
    server.terminate();
    let refused = support::run(&mut server.serve_command());
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for part in ["KW-8020", "key.pem", "kip config show"] {
        assert!(refused.stdout.contains(part), "{refused:?}");
    }
}

#[test]
fn beyond_loopback_there_is_tls_or_a_named_proxy_and_always_a_key() {
    let server = Server::start();
    let refused = support::run(support::kip(&server.folder().join("other")).args([
        "serve",
        "--gateway",
        "0.0.0.0:0",
        "--api",
        "127.0.0.1:0",
    ]));
    refused.failed(&["KW-8007", "tls.listen", "server.proxies"]);

    // A proxy on this machine brings callers of elsewhere to a loopback port.
    let server = Server::with("proxies = \"127.0.0.1\"\n");
    server.deploy_subject(&[], "");
    assert_eq!(server.get("/echo").code(), "KW-7001");

    let server = Server::with("proxies = \"127.0.0.1\"\n[gateway]\nrequire_keys = false\n");
    server.deploy_subject(&[], "");
    let told = |headers: &str| {
        let answer = server.call_with("GET", "/echo", headers, b"").json();
        let headers = answer["headers"].as_array().unwrap().clone();
        let find = |name: &str| {
            headers.iter().find(|pair| pair[0] == name).map_or("", |pair| pair[1].as_str().unwrap()).to_owned()
        };
        (find("x-forwarded-for"), find("x-forwarded-proto"))
    };
    let forged = told("x-forwarded-for: 1.1.1.1, 203.0.113.7\r\nx-forwarded-proto: https\r\n");
    assert_eq!(forged, ("203.0.113.7".to_owned(), "https".to_owned()));
    assert_eq!(told(""), ("127.0.0.1".to_owned(), "http".to_owned()));
}

/// An address of this machine that is not loopback.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent: the system chooses the address from which it would.
    socket.connect("192.0.2.1:9").ok()?;
    let own = socket.local_addr().unwrap().ip();
    (!own.is_loopback() && !own.is_unspecified()).then_some(own)
}

#[test]
fn in_the_clear_only_this_machine_and_the_named_proxies_connect() {
    let Some(own) = own_address() else {
        return eprintln!("skipped: this machine has no address beyond loopback");
    };
    let asked = |server: &Server, from_api: bool| {
        let port = if from_api { server.api.port() } else { server.gateway.port() };
        let mut stream = TcpStream::connect((own, port)).unwrap();
        stream.write_all(b"GET /f/f/pid HTTP/1.1\r\nhost: f\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    };
    let start = |proxies: &str| {
        let mut server = Server::with(&format!("proxies = \"{proxies}\"\n"));
        server.terminate();
        let mut command = support::kip(&server.data());
        command.args(["serve", "--gateway", "0.0.0.0:0", "--api", "0.0.0.0:0", "-o", "json"]);
        server.start_by(command);
        server
    };
    let server = start("192.0.2.7");
    let answer = asked(&server, false);
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("KW-8007"), "{answer}");
    assert_eq!(asked(&server, true), "", "the API says nothing at all");
    assert_eq!(
        call(SocketAddr::from(([127, 0, 0, 1], server.gateway.port())), "GET", "/f/f/pid", "", b"").status(),
        401
    );

    let server = start(&own.to_string());
    let answer = asked(&server, false);
    assert!(answer.starts_with("HTTP/1.1 404") || answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(asked(&server, true).starts_with("HTTP/1.1 401"));
}

/// The socket stays open while the server is away: callers wait instead of being turned off.
#[test]
fn a_passed_listener_outlives_the_server() {
    let gateway = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = gateway.local_addr().unwrap();
    let mut server = Server::with("");
    server.terminate();
    let number = gateway.as_raw_fd();
    let started = |server: &Server| {
        let inner = server.serve_command();
        let words: Vec<String> = inner.get_args().map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let script = format!(
            "exec 3<&{number}; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=gateway exec {} {}",
            support::KIP,
            words.join(" ")
        );
        // A plain `sh` takes descriptors of one digit only.
        let mut command = Command::new("bash");
        command.args(["-c", &script]);
        command
    };
    // Whoever is to inherit it must find it open.
    rustix::io::fcntl_setfd(&gateway, rustix::io::FdFlags::empty()).unwrap();
    let command = started(&server);
    server.start_by(command);
    assert_eq!(server.gateway, address);
    server.deploy_subject(&[], "");
    assert_eq!(server.get("/pid").status(), 200);
    server.terminate();
    let caller = support::apart(move || call(address, "GET", "/f/f/pid", "", b""));
    let command = started(&server);
    server.start_by(command);
    assert_eq!(caller.join().unwrap().status(), 200, "a call that came while nobody served");
    until("nothing waits", || (server.function()["queued"] == 0).then_some(()));
    let mut one = Caller::connect(address);
    one.send("GET", "/f/f/pid", "");
    assert_eq!(one.answer("GET").status(), 200);
}

#[test]
fn exempt_paths_wake_nobody_and_keep_nobody_awake() {
    let server = Server::start();
    server.deploy_subject(
        &[],
        "instances: {max: 1}\nidle: {pause: 300ms}\ntrigger: {http: {exempt: [/count, /stall, /headers*]}}",
    );
    let state = |accept: &str, path: &str| {
        let answer = call(server.gateway, "GET", &format!("/f/f{path}"), accept, b"");
        assert_eq!(answer.status(), 200);
        let state = answer.header("x-kip-state").map(str::to_owned);
        (state, answer.header("content-type").unwrap_or_default().to_owned(), answer.text())
    };
    let json = |state: &str| {
        let body = format!("{{\"function\":\"f\",\"instance\":\"{state}\"}}\n");
        (Some(state.to_owned()), "application/json".to_owned(), body)
    };
    assert_eq!(state("", "/count"), json("none"));
    assert_eq!(server.instances().len(), 0, "nothing was started");

    assert_eq!(server.get("/pid").status(), 200);
    assert_eq!(state("", "/count").0, None, "an instance that is awake answers itself");
    // Asked all the time, it still falls asleep.
    until_true("it sleeps", || {
        let _ = state("", "/headers/x?y");
        server.instances()[0]["state"] == "paused"
    });
    assert_eq!(state("", "/count?q"), json("paused"));
    let scraped = state("accept: text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n", "/count");
    assert_eq!(
        (scraped.1.as_str(), scraped.2.as_str()),
        ("text/plain; version=0.0.4; charset=utf-8", "# function f, instance paused\n")
    );
    let scraped = state("accept: application/openmetrics-text;version=1.0.0,text/plain\r\n", "/count");
    assert_eq!(scraped.2, "# EOF\n");
    assert_eq!(server.instances()[0]["state"], "paused");

    // A stream beside other requests takes no place of the only one there is, and nothing awake is held by it.
    assert_eq!(server.get("/pid").status(), 200);
    let mut stream = server.connect();
    stream.send("GET", "/f/f/stall", "");
    assert_eq!(stream.head().status, 200);
    assert_eq!((server.function()["in_flight"].clone(), server.get("/pid").status()), (0.into(), 200));
    server.until_state("paused");
    until_true("its stream is disconnected", || stream.is_closed());
    assert_eq!(server.get("/pid").status(), 200, "what is not exempt wakes it");
}
