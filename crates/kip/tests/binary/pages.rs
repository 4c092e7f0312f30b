//! What callers meet at the door: pages of browsers, names, forms, compressed bodies, and bodies of unknown length.

use std::io::Write as _;

use crate::http::Caller;
use crate::support::{Server, call, function, manifest};

const PAGE: &str = "origin: https://chat.example\r\n";
const PREFLIGHT: &str = "origin: http://localhost:3000\r\naccess-control-request-method: POST\r\naccess-control-request-headers: authorization\r\n";

/// A chunked body gets the same form whether its instance sleeps, runs, or is not there yet.
#[test]
fn the_form_of_a_body_does_not_depend_on_temperature() {
    let server = Server::start();
    server.deploy_subject(&[], "idle: {pause: 10ms}\ninstances: {max: 1, concurrency: 4}");
    let chunked = |path: &str, body: &[u8]| {
        let mut caller = Caller::connect(server.gateway);
        caller.send("POST", path, "transfer-encoding: chunked\r\nconnection: close\r\n");
        body.chunks(7_000).for_each(|piece| caller.chunk(piece));
        caller.write("0\r\n\r\n");
        caller.answer("POST").json()["headers"].to_string()
    };
    let small = br#"{"model": "f"}"#;
    let length = format!("[\"content-length\",\"{}\"]", small.len());
    for temperature in ["cold", "warm", "warm", "asleep"] {
        if temperature == "asleep" {
            server.until_state("paused");
        }
        let seen = chunked("/f/f/echo", small).to_lowercase();
        assert!(seen.contains(&length) && !seen.contains("transfer-encoding"), "{temperature}: {seen}");
    }
    let seen = chunked("/v1/echo", small).to_lowercase();
    assert!(seen.contains(&length), "{seen}");
    let seen = chunked("/f/f/echo", &vec![b'x'; 200_000]).to_lowercase();
    assert!(seen.contains("transfer-encoding"), "longer than what is read ahead: {seen}");
    server.deploy_subject(&[], "request_body: stream");
    let seen = chunked("/f/f/echo", small).to_lowercase();
    assert!(seen.contains("transfer-encoding"), "as declared: {seen}");
}

#[test]
fn a_model_is_found_in_compressed_bodies_and_in_forms() {
    let server = Server::start();
    server.deploy(&manifest(&[function("whisper", &[], ""), function("other", &[], "")]));
    let ask = |headers: &str, body: &[u8]| call(server.gateway, "POST", "/v1/name", headers, body);
    let json = br#"{"messages": [], "model": "whisper"}"#;
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(json).unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(ask("content-encoding: gzip\r\n", &gzip).status(), 200);
    let unknown = ask("content-encoding: compress\r\n", json);
    assert_eq!((unknown.status(), unknown.header("x-kip-error")), (400, Some("KW-2027")));
    let form = "content-type: multipart/form-data; boundary=b\r\n";
    let part = |head: &str, value: &[u8]| {
        [format!("--b\r\ncontent-disposition: form-data; {head}\r\n\r\n").as_bytes(), value, b"\r\n"].concat()
    };
    let file = part("name=\"file\"; filename=\"a.mp3\"", &vec![7; 20 << 20]);
    let prompt = part("name=prompt", b"the form has name=\"model\"\r\n\r\nother\r\n");
    for before in [Vec::new(), file, prompt] {
        let body = [before, part("name=model", b"whisper"), b"--b--\r\n".to_vec()].concat();
        let answer = ask(form, &body);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert!(
            answer.header("x-kip-instance").is_some_and(|id| id.starts_with("i-1-1-")),
            "it went to another function"
        );
    }
}

#[test]
fn an_unknown_model_is_404_as_clients_of_openai_know_it() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    for (method, path, body) in [
        ("GET", "/v1/models/nobody", &b""[..]),
        ("GET", "/v1/models/Qwen/Qwen3-8B", b""),
        ("POST", "/v1/chat/completions", br#"{"model": "nobody"}"#),
    ] {
        let answer = call(server.gateway, method, path, "", body);
        let error = &answer.json()["error"];
        assert_eq!((answer.status(), error["code"].as_str()), (404, Some("model_not_found")), "{path}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    let v2 = call(server.gateway, "TRACE", "/v2/health/live", "", b"");
    assert_eq!((v2.status(), v2.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn preflights_need_no_key_and_tell_nothing_to_pages_of_elsewhere() {
    let server = Server::start();
    let cors = "trigger: {http: {auth: key, cors: {origins: [\"https://chat.example\"]}}}";
    server.deploy(&manifest(&[
        function("open", &[], ""),
        function("locked", &[], "trigger: {http: {auth: key}}"),
        function("shared", &[], cors),
    ]));
    for path in ["/f/locked/x", "/v1/chat/completions", "/v1/models", "/v2/models/open/infer"] {
        let answer = call(server.gateway, "OPTIONS", path, PREFLIGHT, b"");
        assert_eq!(answer.status(), 204, "{path}: {}", answer.text());
        assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:3000"), "{path}");
        assert_eq!(answer.header("access-control-allow-headers"), Some("authorization"));
        let elsewhere = PREFLIGHT.replace("http://localhost:3000", "https://evil.example");
        let answer = call(server.gateway, "OPTIONS", path, &elsewhere, b"");
        assert_eq!((answer.status(), answer.header("access-control-allow-origin")), (204, None), "{path}");
    }
    assert!(server.instances().is_empty(), "a preflight starts nothing");
    let chat = PREFLIGHT.replace("http://localhost:3000", "https://chat.example");
    let answer = call(server.gateway, "OPTIONS", "/f/shared/x", &chat, b"");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://chat.example"));
    let key = format!("{PAGE}authorization: Bearer {}\r\n", server.key);
    let answer = call(server.gateway, "GET", "/f/shared/pid", &key, b"");
    assert_eq!((answer.status(), answer.header("access-control-allow-origin")), (200, Some("https://chat.example")));
    let answer = call(server.gateway, "GET", "/v1/models", "origin: http://localhost:3000\r\n", b"");
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:3000"));
}

#[test]
fn no_page_of_elsewhere_calls_a_local_model() {
    let server = Server::with("[gateway]\nhosts = \"ai.example.com\"\norigins = \"https://ok.example\"");
    server.deploy_subject(&[], "");
    let status = |path: &str, headers: &str| {
        let mut caller = Caller::connect(server.gateway);
        caller.write(format!("GET {path} HTTP/1.1\r\n{headers}connection: close\r\n\r\n"));
        let answer = caller.answer("GET");
        (answer.status(), answer.header("x-kip-error").map(str::to_owned))
    };
    let ok = (200, None);
    let (host, origin) = ((403, Some("KW-2030".to_owned())), (403, Some("KW-2031".to_owned())));
    for path in ["/f/f/pid", "/v1/models", "/v2"] {
        assert_eq!(status(path, "host: evil.example:5470\r\n"), host, "{path}: a name that was made to mean us");
        assert_eq!(status(path, "host: localhost\r\norigin: https://evil.example\r\n"), origin, "{path}");
        assert_eq!(status(path, "host: localhost\r\norigin: null\r\n"), origin, "{path}");
        for headers in [
            "host: 127.0.0.1:5470\r\n",
            "host: ai.example.com\r\n",
            "host: gpu-box\r\norigin: http://gpu-box\r\n",
            "host: localhost\r\norigin: http://127.0.0.1:8080\r\n",
            "host: localhost\r\norigin: https://ok.example\r\n",
        ] {
            assert_eq!(status(path, headers), ok, "{path} with {headers}");
        }
        let keyed =
            format!("host: evil.example\r\norigin: https://evil.example\r\nauthorization: Bearer {}\r\n", server.key);
        assert_eq!(status(path, &keyed), ok, "a caller with a key is no page of elsewhere");
    }
}

#[test]
fn no_page_of_elsewhere_reads_what_the_api_shows_without_a_key() {
    let server = Server::with("[gateway]\nhosts = \"ai.example.com\"\n[metrics]\nopen = true");
    let key = format!("authorization: Bearer {}\r\n", server.key);
    let status = |path: &str, headers: &str| {
        let mut caller = Caller::connect(server.api);
        caller.write(format!("GET {path} HTTP/1.1\r\n{headers}connection: close\r\n\r\n"));
        let answer = caller.answer("GET");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        (answer.status(), body["error"]["code"].as_str().map(str::to_owned))
    };
    let (host, origin) = ((403, Some("KW-2030".to_owned())), (403, Some("KW-2031".to_owned())));
    let own = server.api.to_string();
    for path in ["/metrics", "/healthz", "/readyz"] {
        for name in ["evil.example:5471", "http://evil.example", "127.0.0.1.nip.io:1"] {
            assert_eq!(status(path, &format!("host: {name}\r\n")), host, "{path}: {name} was made to mean us");
            let wrong = format!("host: {name}\r\nauthorization: Bearer kw_{:064x}\r\n", 7);
            assert_eq!(status(path, &wrong), host, "{path}: a key that a page makes up");
        }
        for name in [own.as_str(), "localhost", "ai.example.com", "gpu-box:5471"] {
            assert_eq!(status(path, &format!("host: {name}\r\n")).0, 200, "{path} by {name}");
            assert_eq!(status(path, &format!("host: http://{name}\r\n")).0, 200, "{path} by {name} with its scheme");
        }
    }
    // What brings a key comes by any name, as clients with a scheme in it do, but from no page of elsewhere.
    for name in ["evil.example", "http://evil.example", "https://fc.example.com:443"] {
        assert_eq!(status("/api/v1/status", &format!("host: {name}\r\n{key}")).0, 200, "{name}");
    }
    for path in ["/metrics", "/healthz", "/api/v1/status", "/2023-03-30/functions", "/no/such/path"] {
        for page in ["https://evil.example", "null", "http://127.0.0.1.evil.example"] {
            let headers = format!("host: http://{own}\r\norigin: {page}\r\n{key}");
            assert_eq!(status(path, &headers), origin, "{path} from {page}");
        }
    }
    for (name, page) in [("http://gpu-box:1", "http://gpu-box:1"), (own.as_str(), "http://localhost:3000")] {
        let headers = format!("host: {name}\r\norigin: {page}\r\n{key}");
        for path in ["/metrics", "/api/v1/status", "/2023-03-30/functions"] {
            assert_eq!(status(path, &headers).0, 200, "{path}: {page} of {name}");
        }
    }
}

#[test]
fn an_answer_may_have_more_than_a_hundred_headers() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    for count in [100, 120, 150] {
        let answer = server.get(&format!("/many-headers/{count}"));
        assert_eq!(answer.status(), 200, "{count} headers: {}", answer.text());
        assert_eq!(answer.header(&format!("x-{}", count - 1)), Some("y"));
    }
}
