//! The API of Function Compute: the official client, and requests that it would not send.

use std::path::{Path, PathBuf};
use std::process::Command;

use ring::hmac;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::http::Answer;
use crate::support::{Server, call, function, manifest, run, until_true};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The Python of the tests' environment, if it has the client.
pub(crate) fn python() -> Option<PathBuf> {
    let python = root().join(".venv/bin/python");
    let has = Command::new(&python).args(["-c", "import alibabacloud_fc20230330"]).output();
    if has.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    eprintln!("skipped: no Python with alibabacloud_fc20230330 in .venv; `cargo xtask test` installs it");
    None
}

/// The packages of Node of the tests' environment, if there is a Node.
pub(crate) fn node_packages() -> Option<PathBuf> {
    crate::clients::program("node")?;
    let packages = root().join(".node/node_modules");
    if packages.join("@alicloud/fc20230330").is_dir() {
        return Some(packages);
    }
    eprintln!("skipped: no @alicloud/fc20230330 in .node; `cargo xtask test` installs it");
    None
}

/// An access-key pair: its id and its secret.
pub(crate) struct Pair(pub(crate) String, pub(crate) String);

impl Server {
    pub(crate) fn make_pair(&self, arguments: &[&str]) -> Pair {
        let made = self.kip(&[&["key", "create"], arguments, &["--access-key"]].concat()).ok();
        let value = |name: &str| {
            let line = made.stdout.lines().find_map(|line| line.strip_prefix(name)).expect("both are printed");
            line.trim_start_matches('=').to_owned()
        };
        Pair(value("ALIBABA_CLOUD_ACCESS_KEY_ID"), value("ALIBABA_CLOUD_ACCESS_KEY_SECRET"))
    }

    /// A signed request; `change` may spoil it before or after it is signed.
    pub(crate) fn signed(&self, pair: &Pair, request: &SignedRequest<'_>) -> Answer {
        let headers = request.headers(pair, &self.api.to_string());
        call(self.api, request.method, request.target, &headers, request.body)
    }
}

#[derive(Clone)]
pub(crate) struct SignedRequest<'a> {
    method: &'a str,
    target: &'a str,
    body: &'a [u8],
    date: String,
    nonce: String,
    signed_body: Option<&'a [u8]>,
    signed_headers: &'a str,
}

const SIGNED: &str = "host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce";

impl<'a> SignedRequest<'a> {
    pub(crate) fn new(method: &'a str, target: &'a str, body: &'a [u8]) -> Self {
        let now = jiff::Timestamp::now();
        Self {
            method,
            target,
            body,
            date: format!("{now:.0}"),
            nonce: format!("{:032x}", kip_host::random::bits()),
            signed_body: None,
            signed_headers: SIGNED,
        }
    }

    fn headers(&self, Pair(id, secret): &Pair, _host: &str) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let content = hex(&Sha256::digest(self.signed_body.unwrap_or(self.body)));
        let all = [
            ("host", "gateway"),
            ("x-acs-action", "Any"),
            ("x-acs-content-sha256", content.as_str()),
            ("x-acs-date", self.date.as_str()),
            ("x-acs-signature-nonce", self.nonce.as_str()),
        ];
        let names: Vec<&str> = self.signed_headers.split(';').collect();
        let lines: String = all
            .iter()
            .filter(|(name, _)| names.contains(name))
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        let (path, query) = self.target.split_once('?').unwrap_or((self.target, ""));
        let text = format!("{}\n{path}\n{query}\n{lines}\n{}\n{content}", self.method, self.signed_headers);
        let to_sign = format!("ACS3-HMAC-SHA256\n{}", hex(&Sha256::digest(text.as_bytes())));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), to_sign.as_bytes());
        let authorization = format!(
            "ACS3-HMAC-SHA256 Credential={id},SignedHeaders={},Signature={}",
            self.signed_headers,
            hex(tag.as_ref())
        );
        let sent: String = all[1..].iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{sent}authorization: {authorization}\r\n")
    }
}

/// The vendor's code of an error, which has ours in a header and an id.
fn code(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    assert!(body["RequestId"].as_str().is_some_and(|id| !id.is_empty()), "{answer:?}");
    assert!(body["Message"].as_str().is_some_and(|said| !said.is_empty()), "{answer:?}");
    assert!(answer.header("x-kip-error").is_some_and(|code| code.starts_with("KW-")), "{answer:?}");
    (answer.status(), body["Code"].as_str().unwrap().to_owned())
}

#[test]
fn the_official_python_client() {
    let Some(python) = python() else { return };
    let server = Server::with("[containers]\nengine = \"off\"\n");
    server.deploy(&manifest(&[function("digest", &[], "env: {A: b}")]));
    let Pair(id, secret) = server.make_pair(&["sdk", "--role", "deploy"]);
    let mut command = Command::new(&python);
    command.arg(root().join("tests/clients/fc_sdk.py")).arg(server.api.to_string()).args([&id, &secret]).arg(&python);
    let ran = run(&mut command);
    assert_eq!((ran.code, ran.stdout.trim()), (Some(0), "ok"), "{}", ran.stderr);
    let audited = server.ask(&["audit", "--action", "fc.CreateFunction", "-n", "100"]);
    let objects: Vec<&str> =
        audited.as_array().unwrap().iter().map(|record| record["object"].as_str().unwrap()).collect();
    assert!(objects.contains(&"sdk") && objects.contains(&"page-2"), "{audited}");
    let names: Vec<Value> = server.ask(&["ls"]).as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, ["digest"]);
}

#[test]
fn the_official_node_client() {
    let (Some(python), Some(packages)) = (python(), node_packages()) else { return };
    let server = Server::with("[containers]\nengine = \"off\"\n");
    let Pair(id, secret) = server.make_pair(&["sdk", "--role", "deploy"]);
    let mut command = Command::new("node");
    command.env("NODE_PATH", packages).arg(root().join("tests/clients/fc_sdk.js"));
    command.arg(server.api.to_string()).args([&id, &secret]).arg(&python);
    let ran = run(&mut command);
    assert_eq!((ran.code, ran.stdout.trim()), (Some(0), "ok"), "{}", ran.stderr);
}

#[test]
fn handlers_of_python_and_node() {
    let Some(python) = python() else { return };
    let server = Server::start();
    let Pair(id, secret) = server.make_pair(&["sdk", "--role", "deploy"]);
    let mut command = Command::new(&python);
    command.arg(root().join("tests/clients/fc_runtimes.py")).arg(server.api.to_string()).args([&id, &secret]);
    command.args(crate::clients::program("node"));
    let ran = run(&mut command);
    assert_eq!((ran.code, ran.stdout.trim()), (Some(0), "ok"), "{}", ran.stderr);
}

#[test]
fn signatures_that_are_wrong_late_or_sent_twice_are_refused() {
    let server = Server::start();
    let pair = server.make_pair(&["reader", "--role", "operate"]);
    let list = "/2023-03-30/functions?limit=1&prefix=a%20b";
    let good = SignedRequest::new("GET", list, b"");
    let answer = server.signed(&pair, &good);
    assert_eq!((answer.status(), answer.json()), (200, json!({"functions": []})), "{answer:?}");
    assert_eq!(code(&server.signed(&pair, &good)), (403, "AccessDenied".to_owned()), "it was sent before");
    let fresh = || SignedRequest::new("GET", list, b"");
    let hour = |hours: i64| format!("{:.0}", jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours));
    let denied = (403, "AccessDenied".to_owned());
    let mismatch = (403, "SignatureNotMatch".to_owned());
    for hours in [-1, 1] {
        assert_eq!(code(&server.signed(&pair, &SignedRequest { date: hour(hours), ..fresh() })), denied);
    }
    let started = format!("{:.0}", jiff::Timestamp::now() - jiff::SignedDuration::from_secs(300));
    let before = server.signed(&pair, &SignedRequest { date: started, ..fresh() });
    assert_eq!(code(&before), denied, "its nonce may have been seen by the server before this one");
    assert!(before.json()["Message"].as_str().unwrap().contains("before the server started"));
    assert_eq!(code(&server.signed(&Pair(pair.0.clone(), "wrong".to_owned()), &fresh())), mismatch);
    let unknown = server.signed(&Pair("KWAKnobody".to_owned(), pair.1.clone()), &fresh());
    assert_eq!(code(&unknown), (403, "InvalidAccessKeyID".to_owned()));
    let without_nonce = SignedRequest { signed_headers: "host;x-acs-content-sha256;x-acs-date", ..fresh() };
    assert_eq!(code(&server.signed(&pair, &without_nonce)), mismatch);
    let body = br#"{"functionName":"f"}"#;
    let create =
        |signed_body| SignedRequest { signed_body, ..SignedRequest::new("POST", "/2023-03-30/functions", body) };
    let operator = server.make_pair(&["maker", "--role", "deploy"]);
    assert_eq!(code(&server.signed(&operator, &create(Some(b"{}")))), mismatch, "another body than was signed");
    assert_eq!(code(&server.signed(&operator, &create(None))), (400, "InvalidArgument".to_owned()));
    assert_eq!(code(&server.signed(&pair, &create(None))), denied, "its role is too low");
    assert_eq!(code(&call(server.api, "GET", list, "", b"")), denied, "without any");
    assert_eq!(code(&call(server.api, "GET", list, "authorization: Bearer kw_x\r\n", b"")), denied);
    let bearer = format!("authorization: Bearer {}\r\n", server.key);
    assert_eq!(call(server.api, "GET", list, &bearer, b"").status(), 200, "our own keys work too");
    // A pair is no bearer key, and is worth nothing when it is disabled or replaced.
    assert_eq!(
        call(server.api, "GET", "/api/v1/status", &format!("authorization: Bearer {}\r\n", pair.1), b"").status(),
        401
    );
    server.kip(&["key", "disable", "reader"]).ok();
    assert_eq!(code(&server.signed(&pair, &fresh())), denied);
    server.kip(&["key", "enable", "reader"]).ok();
    server.kip(&["key", "rotate", "reader", "--overlap", "1h"]).failed(&["KW-7017"]);
    server.kip(&["key", "rotate", "reader"]).ok();
    assert_eq!(code(&server.signed(&pair, &fresh())), mismatch);
    let shown = server.ask(&["key", "show", "maker"]);
    assert_eq!(shown["access_key_id"], operator.0.as_str());
    assert!(!shown.to_string().contains(&operator.1));
}

#[test]
fn every_answer_has_the_form_of_the_vendor() {
    let server = Server::start();
    let bearer = format!("authorization: Bearer {}\r\n", server.key);
    let ask = |method: &str, path: &str, body: &[u8]| code(&call(server.api, method, path, &bearer, body));
    let unsupported = |status| (status, "PathNotSupported".to_owned());
    assert_eq!(ask("GET", "/2023-03-30/nothing", b""), unsupported(404));
    assert_eq!(ask("GET", "/2023-03-30/", b""), unsupported(404));
    assert_eq!(ask("PATCH", "/2023-03-30/functions", b"x"), unsupported(405));
    assert_eq!(ask("POST", "/2023-03-30/functions/f/sessions", b"{}"), unsupported(400));
    assert_eq!(ask("GET", "/2023-03-30/functions/a%2Fb", b""), (404, "FunctionNotFound".to_owned()));
    assert_eq!(ask("GET", "/2023-03-30/functions?limit=0", b""), (400, "InvalidArgument".to_owned()));
    assert_eq!(ask("POST", "/2023-03-30/functions", b"no json"), (400, "InvalidArgument".to_owned()));
    assert_eq!(ask("PUT", "/2023-03-30/functions/f", &vec![b' '; 2 << 20]), (404, "FunctionNotFound".to_owned()));
    let large = call(server.api, "PUT", "/2023-03-30/functions/f/concurrency", &bearer, &vec![b' '; 2 << 20]);
    assert_eq!(code(&large), (413, "EntityTooLarge".to_owned()));
    // A key for other functions does not learn which there are.
    server.deploy_subject(&[], "");
    let pair = server.make_pair(&["one", "--role", "deploy", "--functions", "mine"]);
    for name in ["f", "none"] {
        let target = format!("/2023-03-30/functions/{name}");
        let answer = server.signed(&pair, &SignedRequest::new("GET", &target, b""));
        assert_eq!((code(&answer), answer.header("x-kip-error")), ((403, "AccessDenied".to_owned()), Some("KW-7009")));
    }
    let listed = server.signed(&pair, &SignedRequest::new("GET", "/2023-03-30/functions", b""));
    assert_eq!(listed.json(), json!({"functions": []}));
}

#[test]
fn what_one_side_writes_the_other_side_reads() {
    let server = Server::start();
    let bearer = format!("authorization: Bearer {}\r\n", server.key);
    let ask = |method: &str, path: &str, body: &Value| {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = call(server.api, method, &format!("/2023-03-30/{path}"), &bearer, &bytes);
        assert!(answer.status() < 300, "{answer:?}");
        answer.json()
    };
    server.deploy_subject(&[], "env: {A: \"1\"}\nresources: {memory: 256MiB}");
    let shown = ask("GET", "functions/f", &Value::Null);
    assert_eq!((&shown["memorySize"], &shown["environmentVariables"]["A"]), (&256.into(), &"1".into()));
    // A word that kip.yaml does not have stays over its next deployment.
    let odd = json!({"logConfig": {"project": "p"}, "memorySize": 512, "cpu": 0.35});
    ask("PUT", "functions/f", &odd);
    assert_eq!(server.function()["spec"]["resources"]["memory"], "512MiB");
    server.deploy_subject(&[], "env: {A: \"2\"}\nresources: {memory: 384MiB}");
    let shown = ask("GET", "functions/f", &Value::Null);
    assert_eq!(shown["logConfig"], json!({"project": "p"}));
    assert_eq!((&shown["memorySize"], &shown["environmentVariables"]["A"]), (&384.into(), &"2".into()));
    assert_eq!(call(server.gateway, "GET", "/f/f/env", "", b"").json()["A"], "2");
    // The same over a restart.
    let before = ask("GET", "functions/f", &Value::Null);
    let mut server = server;
    crate::support::kill(server.pid, rustix::process::Signal::TERM);
    server.wait();
    server.start_again();
    let bearer = format!("authorization: Bearer {}\r\n", server.key);
    until_true("it is shown as it was", || {
        let answer = call(server.api, "GET", "/2023-03-30/functions/f", &bearer, b"");
        answer.status() == 200 && answer.json() == before
    });
}
