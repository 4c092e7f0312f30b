//! Who may call a function of Function Compute: triggers by qualifier, signed callers, functions that are disabled.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::fc::Pair;
use crate::fc_upload::{FcCaller, zip};
use crate::http::Answer;
use crate::support::{Server, call, kill, open_folder, until_true};

/// Answers with what it got; `/slow` waits until a file is there, whose name is the body.
const PROGRAM: &str = "
import json, os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get('content-length') or 0)).decode()
        if self.path == '/slow':
            open(body + '.begun', 'w').close()
            while not os.path.exists(body): time.sleep(0.02)
        answer = json.dumps({'path': self.path, 'body': body, 'headers': {name.lower(): value for name, value in self.headers.items()}}).encode()
        self.send_response(200)
        self.send_header('content-length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    do_POST = do_PUT = do_DELETE = do_GET
    def log_message(self, *_): pass
ThreadingHTTPServer(('127.0.0.1', int(os.environ['FC_SERVER_PORT'])), Handler).serve_forever()
";

fn create(caller: &FcCaller<'_>, name: &str) {
    let code = BASE64_STANDARD.encode(zip(&[("app.py", PROGRAM.as_bytes())]));
    let config = json!({
        "functionName": name, "runtime": "custom.debian12", "handler": "h", "timeout": 60, "instanceConcurrency": 4,
        "customRuntimeConfig": {"command": ["python3", "app.py"]}, "code": {"zipFile": code},
    });
    caller.done("POST", "functions", &config);
}

fn trigger(caller: &FcCaller<'_>, function: &str, name: &str, qualifier: &str, settings: &Value) -> Value {
    let body = json!({
        "triggerName": name, "triggerType": "http", "qualifier": qualifier, "triggerConfig": settings.to_string(),
    });
    caller.done("POST", &format!("functions/{function}/triggers"), &body)
}

#[test]
fn a_trigger_opens_its_own_qualifier_alone() {
    let mut server = Server::start();
    let caller = FcCaller(&server);
    create(&caller, "web");
    caller.done("POST", "functions/web/versions", &json!({}));
    caller.done("POST", "functions/web/aliases", &json!({"aliasName": "prod", "versionId": "1"}));
    let made = trigger(&caller, "web", "open", "prod", &json!({"authType": "anonymous", "methods": ["GET"]}));
    let url = made["httpTrigger"]["urlInternet"].as_str().unwrap();
    assert!(url.ends_with("/f/web@prod/"), "{url}");
    let ask = |server: &Server, method: &str, target: &str| call(server.gateway, method, target, "", b"").status();
    let check = |server: &Server| {
        assert_eq!(ask(server, "GET", "/f/web@prod/"), 200);
        assert_eq!(ask(server, "POST", "/f/web@prod/"), 405);
        for other in ["/f/web/", "/f/web@LATEST/", "/f/web@1/", "/f/web@r1/", "/2016-08-15/proxy/any/web/"] {
            assert_eq!(ask(server, "GET", other), 401, "{other}");
        }
        assert_eq!(ask(server, "GET", "/2016-08-15/proxy/any.prod/web/"), 200);
    };
    check(&server);
    // A trigger of another qualifier has methods of its own, and takes nothing from the first one.
    trigger(&caller, "web", "closed", "LATEST", &json!({"authType": "function", "methods": ["POST"]}));
    check(&server);
    let bearer = format!("authorization: Bearer {}\r\n", server.key);
    assert_eq!(call(server.gateway, "POST", "/f/web/", &bearer, b"").status(), 200);
    assert_eq!(call(server.gateway, "GET", "/f/web/", &bearer, b"").status(), 405);
    // A second one of the same qualifier opens its own method.
    trigger(&caller, "web", "reader", "LATEST", &json!({"authType": "anonymous", "methods": ["GET"]}));
    assert_eq!((ask(&server, "GET", "/f/web/"), ask(&server, "POST", "/f/web/")), (200, 401));
    caller.done("DELETE", "functions/web/triggers/reader", &Value::Null);
    // A domain asks the trigger of the qualifier that its route names.
    let route = |path: &str, qualifier: &str| json!({"path": path, "functionName": "web", "qualifier": qualifier});
    let domain = json!({"domainName": "a.example.com", "routeConfig": {"routes": [route("/prod/*", "prod"), route("/*", "LATEST")]}});
    caller.done("POST", "custom-domains", &domain);
    let by_domain = |target: &str| {
        let mut caller = server.connect();
        caller.write(format!("GET {target} HTTP/1.1\r\nhost: a.example.com\r\nconnection: close\r\n\r\n"));
        caller.answer("GET").status()
    };
    assert_eq!((by_domain("/prod/x"), by_domain("/x")), (200, 401));
    // The same over a restart, from the first request on.
    kill(server.pid, rustix::process::Signal::TERM);
    server.wait();
    server.start_again();
    check(&server);
    let caller = FcCaller(&server);
    caller.done("DELETE", "functions/web/triggers/open", &Value::Null);
    assert_eq!(ask(&server, "GET", "/f/web@prod/"), 401);
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The headers of a request as the vendor's signing library makes them: the time is signed, and what else is given.
fn acs3(Pair(id, secret): &Pair, method: &str, path: &str, query: &str, more: &[(&str, &str)]) -> String {
    let now = format!("{:.0}", jiff::Timestamp::now());
    let mut signed: Vec<(&str, &str)> = vec![("x-acs-date", now.as_str())];
    signed.extend(more);
    signed.sort_unstable();
    let lines: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let content = signed.iter().find(|(name, _)| *name == "x-acs-content-sha256").map_or("", |(_, value)| *value);
    let text = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{content}");
    let to_sign = format!("ACS3-HMAC-SHA256\n{}", hex(Sha256::digest(text.as_bytes())));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), to_sign.as_bytes());
    let sent: String = signed.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{sent}authorization: ACS3-HMAC-SHA256 Credential={id},SignedHeaders={names},Signature={}\r\n", hex(tag))
}

/// The same by the scheme of version 2.0.
fn scheme_fc(Pair(id, secret): &Pair, method: &str, path: &str, query: Option<&str>, account: &str) -> String {
    let date =
        jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let query = query.map(|query| format!("\n{query}")).unwrap_or_default();
    let text = format!("{method}\n\n\n{date}\nx-fc-account-id:{account}\n{path}{query}");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes());
    let tag = BASE64_STANDARD.encode(tag);
    format!("x-fc-account-id: {account}\r\ndate: {date}\r\nauthorization: FC {id}:{tag}\r\n")
}

fn refusal(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    assert!(body["Message"].as_str().is_some_and(|said| !said.is_empty()), "{answer:?}");
    assert!(body["RequestId"].as_str().is_some_and(|id| answer.header("x-fc-request-id") == Some(id)), "{answer:?}");
    assert_eq!(answer.header("x-fc-error-type"), Some("FcCommonError"), "{answer:?}");
    (answer.status(), body["Code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn signed_callers_pass_triggers_domains_and_the_path_of_earlier_clients() {
    let server = Server::start();
    let caller = FcCaller(&server);
    create(&caller, "web");
    trigger(&caller, "web", "signed", "LATEST", &json!({"authType": "function"}));
    caller.done(
        "POST",
        "custom-domains",
        &json!({"domainName": "a.example.com", "authConfig": {"authType": "function"},
        "routeConfig": {"routes": [{"path": "/*", "functionName": "web"}]}}),
    );
    let pair = server.make_pair(&["caller", "--role", "invoke"]);
    let ask =
        |method: &str, target: &str, headers: &str, body: &[u8]| call(server.gateway, method, target, headers, body);
    // As the vendor's library signs, with the time alone.
    let headers = acs3(&pair, "GET", "/f/web/a%20b", "x=1%202&y=", &[("x-acs-security-token", "")]);
    let answer = ask("GET", "/f/web/a%20b?y=&x=1+2", &headers, b"");
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert!(answer.json()["headers"]["authorization"].is_null(), "the function does not see the signature");
    assert_eq!(ask("GET", "/f/web/a%20b?y=&x=1+2", &headers, b"").status(), 200, "a GET may be repeated");
    // What changes something is taken once, also without a nonce.
    let post = acs3(&pair, "POST", "/f/web/", "", &[]);
    assert_eq!(ask("POST", "/f/web/", &post, b"x").status(), 200);
    assert_eq!(refusal(&ask("POST", "/f/web/", &post, b"x")), (403, "AccessDenied".to_owned()));
    // With everything signed.
    let content = hex(Sha256::digest(b"body"));
    let all = |nonce: &str| {
        acs3(
            &pair,
            "POST",
            "/f/web/",
            "",
            &[("x-acs-content-sha256", content.as_str()), ("x-acs-signature-nonce", nonce)],
        )
    };
    assert_eq!(ask("POST", "/f/web/", &all("a"), b"body").json()["body"], "body");
    assert_eq!(refusal(&ask("POST", "/f/web/", &all("a"), b"body")), (403, "AccessDenied".to_owned()));
    let mismatch = (403, "SignatureNotMatch".to_owned());
    assert_eq!(refusal(&ask("POST", "/f/web/", &all("b"), b"other")), mismatch, "another body than was signed");
    // Wrong ones.
    let wrong = Pair(pair.0.clone(), "wrong".to_owned());
    assert_eq!(refusal(&ask("GET", "/f/web/", &acs3(&wrong, "GET", "/f/web/", "", &[]), b"")), mismatch);
    assert_eq!(refusal(&ask("GET", "/f/web/", &acs3(&pair, "GET", "/f/other/", "", &[]), b"")), mismatch);
    let unknown = Pair("KWAKnobody".to_owned(), pair.1.clone());
    let unknown = refusal(&ask("GET", "/f/web/", &acs3(&unknown, "GET", "/f/web/", "", &[]), b""));
    assert_eq!(unknown, (403, "InvalidAccessKeyID".to_owned()));
    let other = server.make_pair(&["other", "--role", "invoke", "--functions", "mine"]);
    let denied = refusal(&ask("GET", "/f/web/", &acs3(&other, "GET", "/f/web/", "", &[]), b""));
    assert_eq!(denied, (403, "AccessDenied".to_owned()), "its key is for other functions");
    // A domain, with its host signed.
    let by_domain = |headers: &str| {
        let mut caller = server.connect();
        caller.write(format!("GET /x HTTP/1.1\r\nhost: a.example.com\r\n{headers}connection: close\r\n\r\n"));
        caller.answer("GET")
    };
    assert_eq!(
        by_domain(&acs3(&pair, "GET", "/x", "", &[("host", "a.example.com")]).replace("host: a.example.com\r\n", ""))
            .status(),
        200
    );
    assert_eq!(
        refusal(&by_domain(
            &acs3(&pair, "GET", "/x", "", &[("host", "b.example.com")]).replace("host: b.example.com\r\n", "")
        )),
        mismatch
    );
    // The path of earlier clients, on both listeners, by their scheme.
    let proxy = "/2016-08-15/proxy/any/web/x";
    for at in [server.gateway, server.api] {
        let headers = scheme_fc(&pair, "GET", proxy, Some("a=1\nb=2 3"), "1");
        assert_eq!(call(at, "GET", &format!("{proxy}?b=2%203&a=1"), &headers, b"").status(), 200);
        let changed = call(at, "GET", &format!("{proxy}?b=2%203&a=2"), &headers, b"");
        let body = changed.json();
        assert_eq!((changed.status(), &body["ErrorCode"]), (403, &json!("SignatureNotMatch")), "{changed:?}");
        let post = scheme_fc(&pair, "POST", proxy, Some(""), if at == server.api { "api" } else { "gateway" });
        assert_eq!(call(at, "POST", proxy, &post, b"").status(), 200);
        let again = call(at, "POST", proxy, &post, b"");
        assert_eq!((again.status(), &again.json()["ErrorCode"]), (403, &json!("AccessDenied")), "{again:?}");
    }
    // An open trigger takes no offence at a signature that is not ours.
    caller.done(
        "PUT",
        "functions/web/triggers/signed",
        &json!({"triggerConfig": json!({"authType": "anonymous"}).to_string()}),
    );
    assert_eq!(ask("GET", "/f/web/", &acs3(&wrong, "GET", "/f/web/", "", &[]), b"").status(), 200);
}

#[test]
fn a_disabled_function_is_closed_at_every_door() {
    let server = Server::start();
    let caller = FcCaller(&server);
    create(&caller, "web");
    trigger(&caller, "web", "open", "LATEST", &json!({"authType": "anonymous"}));
    caller.done(
        "POST",
        "custom-domains",
        &json!({"domainName": "a.example.com",
        "routeConfig": {"routes": [{"path": "/*", "functionName": "web"}]}}),
    );
    let host = |host: &str, target: &str, more: &str| {
        let mut caller = server.connect();
        caller.write(format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n{more}connection: close\r\n\r\n"));
        let answer = caller.answer("GET");
        (answer.status(), answer.header("x-kip-error").map(str::to_owned))
    };
    let bearer = format!("authorization: Bearer {}\r\n", server.key);
    let doors = || {
        let invoked = call(server.api, "POST", "/2023-03-30/functions/web/invocations", &bearer, b"x");
        let later = format!("{bearer}x-fc-invocation-type: Async\r\n");
        let later = call(server.api, "POST", "/2023-03-30/functions/web/invocations", &later, b"x");
        let task = call(server.gateway, "POST", "/f/web/x", "x-fc-invocation-type: Async\r\n", b"x");
        [
            host("gateway", "/f/web/", "").0,
            host("web.localhost", "/", "").0,
            host("a.example.com", "/", "").0,
            host("gateway", "/2016-08-15/proxy/any/web/", "").0,
            host("gateway", "/f/web/", &bearer).0,
            call(server.api, "GET", "/2016-08-15/proxy/any/web/", "", b"").status(),
            invoked.status(),
            later.status(),
            task.status(),
        ]
    };
    assert_eq!(doors(), [200, 200, 200, 200, 200, 200, 200, 202, 202]);
    caller.done("POST", "functions/web/invoke/disable", &json!({"reason": "test"}));
    assert_eq!(doors(), [403; 9]);
    assert_eq!(host("gateway", "/f/web/", ""), (403, Some("KW-3031".to_owned())));
    caller.done("POST", "functions/web/invoke/enable", &Value::Null);
    assert_eq!(doors(), [200, 200, 200, 200, 200, 200, 200, 202, 202]);
}

#[test]
fn requests_under_way_end_if_that_is_asked_for() {
    let server = Server::start();
    let caller = FcCaller(&server);
    create(&caller, "web");
    trigger(&caller, "web", "open", "LATEST", &json!({"authType": "anonymous"}));
    let folder = server.folder().join("open");
    open_folder(&folder);
    let file = |name: &str| folder.join(name);
    let slow = |name: &str| {
        let body = file(name).display().to_string();
        let mut caller = server.connect();
        let length = body.len();
        caller.write(format!(
            "POST /f/web/slow HTTP/1.1\r\nhost: gateway\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        ));
        until_true("the function works", || file(&format!("{name}.begun")).exists());
        caller
    };
    // Without it they go on.
    let mut first = slow("first");
    caller.done("POST", "functions/web/invoke/disable", &json!({"abortOngoingRequest": false}));
    std::fs::write(file("first"), b"").unwrap();
    assert_eq!(first.answer("POST").status(), 200);
    caller.done("POST", "functions/web/invoke/enable", &Value::Null);
    let mut second = slow("second");
    caller.done("POST", "functions/web/invoke/disable", &json!({"abortOngoingRequest": true}));
    assert_eq!(second.answer("POST").status(), 502, "its instance was ended");
    let reasons = server.ask(&["why", "web"]).to_string();
    assert!(reasons.contains("was disabled, and its requests were aborted"), "{reasons}");
    caller.done("POST", "functions/web/invoke/enable", &Value::Null);
    assert_eq!(call(server.gateway, "GET", "/f/web/", "", b"").status(), 200, "a new instance serves");
}
