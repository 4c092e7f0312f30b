//! What the command line of Function Compute does: code by way of a temporary place, the calls of a deployment in their order, and the
//! command line itself where a component is given.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use serde_json::{Value, json};

use crate::fc::{Pair, node_packages};
use crate::http::Answer;
use crate::support::{Server, call, run, until_true};

const PROGRAM: &str = "
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get('content-length') or 0))
        answer = b'got ' + body
        print('handled', flush=True)
        self.send_response(200)
        self.send_header('content-length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    do_GET = do_POST
    def log_message(self, *_): pass
HTTPServer(('127.0.0.1', int(os.environ['FC_SERVER_PORT'])), Handler).serve_forever()
";

/// A ZIP archive of stored files.
pub(crate) fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in files {
        let mut crc = flate2::Crc::new();
        crc.update(data);
        let length = u32::try_from(data.len()).unwrap().to_le_bytes();
        let mut common = Vec::from([20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0]);
        common.extend(crc.sum().to_le_bytes());
        common.extend(length.iter().chain(&length));
        common.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        common.extend([0, 0]);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(u32::try_from(out.len()).unwrap().to_le_bytes());
        directory.extend(name.as_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(name.as_bytes());
        out.extend(*data);
    }
    let (count, at) = (u16::try_from(files.len()).unwrap().to_le_bytes(), u32::try_from(out.len()).unwrap());
    let size = u32::try_from(directory.len()).unwrap();
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.iter().chain(&count));
    out.extend(size.to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0, 0]);
    out
}

fn date(hours: i64) -> String {
    let at = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC) + jiff::SignedDuration::from_hours(hours);
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn tag(algorithm: hmac::Algorithm, secret: &str, text: &str) -> String {
    BASE64_STANDARD.encode(hmac::sign(&hmac::Key::new(algorithm, secret.as_bytes()), text.as_bytes()))
}

const TOKEN: &str = "/2016-08-15/tempBucketToken";

fn token(server: &Server, Pair(id, secret): &Pair, date: &str) -> Answer {
    let signature = tag(hmac::HMAC_SHA256, secret, &format!("GET\n\napplication/json\n{date}\n{TOKEN}"));
    let headers = format!("content-type: application/json\r\ndate: {date}\r\nauthorization: FC {id}:{signature}\r\n");
    call(server.api, "GET", TOKEN, &headers, b"")
}

/// Sends an object as a client of buckets does.
fn put_object(server: &Server, token: &Value, path: &str, body: &[u8], date: &str) -> Answer {
    let text = |name: &str| token["credentials"][name].as_str().unwrap().to_owned();
    let (security, bucket) = (text("SecurityToken"), token["ossBucket"].as_str().unwrap());
    let signed =
        format!("PUT\n\napplication/zip\n{date}\nx-oss-date:{date}\nx-oss-security-token:{security}\n/{bucket}{path}");
    let signature = tag(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &text("AccessKeySecret"), &signed);
    let headers = format!(
        "content-type: application/zip\r\nx-oss-date: {date}\r\nx-oss-security-token: {security}\r\nauthorization: OSS {}:{signature}\r\n",
        text("AccessKeyId")
    );
    call(server.api, "PUT", path, &headers, body)
}

/// Uploads an archive and gives the code that names it.
pub(crate) fn upload(server: &Server, pair: &Pair, archive: &[u8]) -> Value {
    let token = token(server, pair, &date(0));
    assert_eq!(token.status(), 200, "{token:?}");
    let token = token.json();
    let object = format!("123456/{}", token["objectName"].as_str().unwrap());
    let sent = put_object(server, &token, &format!("/{object}"), archive, &date(0));
    assert_eq!(sent.status(), 200, "{sent:?}");
    json!({"ossBucketName": token["ossBucket"], "ossObjectName": object})
}

/// Calls of the API with a bearer key.
pub(crate) struct FcCaller<'a>(pub(crate) &'a Server);

impl FcCaller<'_> {
    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let headers = format!("authorization: Bearer {}\r\n", self.0.key);
        let answer = call(self.0.api, method, &format!("/2023-03-30/{path}"), &headers, &bytes);
        let body = if answer.body.is_empty() { Value::Null } else { answer.json() };
        (answer.status(), body)
    }

    pub(crate) fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(method, path, body);
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }

    pub(crate) fn refused(&self, method: &str, path: &str, body: &Value) -> (u16, String) {
        let (status, answer) = self.ask(method, path, body);
        assert!(status >= 400, "{method} {path}: {answer}");
        (status, answer["Code"].as_str().unwrap_or_default().to_owned())
    }
}

#[test]
fn the_calls_of_a_deployment_in_their_order() {
    let server = Server::start();
    let pair = server.make_pair(&["deployer", "--role", "deploy"]);
    let bearer = format!("authorization: Bearer {}\r\n", server.key);
    let ask = |method: &str, path: &str, body: &Value| {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        call(server.api, method, &format!("/2023-03-30/functions{path}"), &bearer, &bytes)
    };
    let missing = |path: &str, expected: &str| {
        let answer = ask("GET", path, &Value::Null);
        assert_eq!((answer.status(), answer.json()["Code"].as_str()), (404, Some(expected)), "{path}: {answer:?}");
    };
    // What is there already.
    missing("/web", "FunctionNotFound");
    missing("/web/triggers/http", "FunctionNotFound");
    for path in
        ["/web/async-invoke-config?qualifier=LATEST", "/web/vpc-bindings", "/web/provision-config?qualifier=LATEST"]
    {
        missing(path, "FunctionNotFound");
    }
    missing("/web/concurrency", "FunctionNotFound");
    // The code, and the function with explicit empties.
    let mut uploaded = upload(&server, &pair, &zip(&[("app.py", PROGRAM.as_bytes())]));
    let config = json!({
        "functionName": "web", "runtime": "custom.debian12", "handler": "index.handler", "timeout": 3, "memorySize": 512,
        "cpu": 0.35, "diskSize": 512, "internetAccess": true, "instanceConcurrency": 1, "environmentVariables": {}, "layers": [],
        "vpcConfig": {"securityGroupId": "", "vSwitchIds": [], "vpcId": ""},
        "nasConfig": {"userId": 0, "groupId": 0, "mountPoints": []}, "ossMountConfig": {"mountPoints": []}, "tracingConfig": {},
        "instanceIsolationMode": "SHARE", "sessionAffinity": "NONE",
        "logConfig": {"project": "", "logstore": "", "logBeginRule": "None", "enableRequestMetrics": false},
        "customRuntimeConfig": {"command": ["python3", "app.py"], "port": 9000},
        "code": uploaded,
    });
    // Another key cannot use what this one sent.
    let stranger = server.make_pair(&["stranger", "--role", "deploy"]);
    let foreign = upload(&server, &stranger, &zip(&[("app.py", b"")]));
    let mut wrong = config.clone();
    wrong["code"] = foreign;
    assert_eq!(ask("POST", "", &wrong).status(), 400);
    wrong["code"] = json!({"ossBucketName": "mine", "ossObjectName": "x.zip"});
    let refused = ask("POST", "", &wrong);
    assert_eq!((refused.status(), refused.json()["Code"].as_str()), (400, Some("InvalidArgument")));
    // With the pair that uploaded it.
    let signed = crate::fc::SignedRequest::new("POST", "/2023-03-30/functions", config.to_string().leak().as_bytes());
    let made = server.signed(&pair, &signed);
    assert_eq!(made.status(), 200, "{made:?}");
    let shown = ask("GET", "/web", &Value::Null).json();
    assert_eq!((&shown["state"], &shown["lastUpdateStatus"]), (&json!("Active"), &json!("Successful")));
    let settings = json!({"authType": "anonymous", "methods": ["GET", "POST"]}).to_string();
    let trigger =
        json!({"triggerName": "http", "triggerType": "http", "qualifier": "LATEST", "triggerConfig": settings});
    let trigger = ask("POST", "/web/triggers", &trigger);
    assert_eq!(trigger.json()["triggerConfig"], json!(settings), "a text in both directions");
    assert_eq!(
        ask("PUT", "/web/async-invoke-config?qualifier=LATEST", &json!({"maxAsyncRetryAttempts": 1})).status(),
        200
    );
    assert_eq!(ask("PUT", "/web/concurrency", &json!({"reservedConcurrency": 4})).status(), 200);
    assert_eq!(
        ask("GET", "/web/provision-config?qualifier=LATEST", &Value::Null).status(),
        200,
        "an object where nothing is put"
    );
    assert_eq!(ask("GET", "/web/scaling-config?qualifier=LATEST", &Value::Null).status(), 404);
    let answer = ask("POST", "/web/invocations", &json!("x"));
    assert_eq!((answer.status(), answer.body.as_slice()), (200, b"got \"x\"".as_slice()));
    // Once more, with other code: always the whole configuration.
    uploaded = upload(&server, &pair, &zip(&[("app.py", PROGRAM.replace("got ", "had ").as_bytes())]));
    let mut changed = config;
    changed["code"] = uploaded;
    let signed =
        crate::fc::SignedRequest::new("PUT", "/2023-03-30/functions/web", changed.to_string().leak().as_bytes());
    assert_eq!(server.signed(&pair, &signed).status(), 200);
    until_true("the new code answers", || call(server.gateway, "GET", "/f/web/", "", b"").body == b"had ");
}

#[test]
fn places_for_code_belong_to_who_asked() {
    let server = Server::start();
    let pair = server.make_pair(&["deployer", "--role", "deploy"]);
    let refused = |answer: &Answer, expected: &str| {
        assert_eq!((answer.status(), answer.json()["ErrorCode"].as_str()), (403, Some(expected)), "{answer:?}");
    };
    for hours in [-1, 1] {
        refused(&token(&server, &pair, &date(hours)), "AccessDenied");
    }
    refused(&token(&server, &Pair(pair.0.clone(), "wrong".to_owned()), &date(0)), "SignatureNotMatch");
    refused(&token(&server, &Pair("nobody".to_owned(), pair.1.clone()), &date(0)), "InvalidAccessKeyID");
    let reader = server.make_pair(&["reader", "--role", "operate"]);
    refused(&token(&server, &reader, &date(0)), "AccessDenied");
    refused(&call(server.api, "GET", TOKEN, "", b""), "AccessDenied");
    let place = token(&server, &pair, &date(0)).json();
    let path = format!("/1/{}", place["objectName"].as_str().unwrap());
    let mut foreign = place.clone();
    foreign["credentials"]["AccessKeySecret"] = "x".into();
    let xml = |answer: &Answer| (answer.status(), String::from_utf8_lossy(&answer.body).into_owned());
    let (status, text) = xml(&put_object(&server, &foreign, &path, b"x", &date(0)));
    assert!(status == 403 && text.contains("<Code>SignatureDoesNotMatch</Code>"), "{text}");
    assert_eq!(put_object(&server, &place, &path, b"x", &date(1)).status(), 403, "of another time");
    assert_eq!(put_object(&server, &place, "/1/kipwake-uploads/00", b"x", &date(0)).status(), 403, "no such place");
    let code = json!({"ossBucketName": place["ossBucket"], "ossObjectName": path[1..]});
    let body = json!({"functionName": "f", "runtime": "custom", "handler": "h", "code": code}).to_string();
    let create = || crate::fc::SignedRequest::new("POST", "/2023-03-30/functions", body.as_bytes());
    let empty = server.signed(&pair, &create());
    assert!(empty.status() == 400 && empty.json()["Message"].as_str().unwrap().contains("no object"), "{empty:?}");
    assert_eq!(put_object(&server, &place, &path, b"no archive", &date(0)).status(), 200);
    let damaged = server.signed(&pair, &create());
    assert_eq!((damaged.status(), damaged.header("x-kip-error")), (400, Some("KW-7025")), "{damaged:?}");
}

/// A folder with the component `fc3`, as the page of this project's tests says.
fn component() -> Option<PathBuf> {
    let folder = kip_host::environment::read("KIPWAKE_TEST_FC3").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: KIPWAKE_TEST_FC3 names no folder with the component fc3");
    }
    folder
}

#[test]
fn the_command_line_itself() {
    let (Some(component), Some(packages)) = (component(), node_packages()) else { return };
    let server = Server::with("[containers]\nengine = \"off\"\n");
    let Pair(id, secret) = server.make_pair(&["deployer", "--role", "deploy"]);
    let home = server.folder().join("home");
    stub_domains(&home);
    let project = server.folder().join("project");
    fs::create_dir_all(project.join("code")).unwrap();
    fs::write(project.join("code/app.py"), PROGRAM).unwrap();
    let file = format!(
        "edition: 3.0.0\nname: demo\naccess: default\nresources:\n  web:\n    component: {}\n    props:\n      region: cn-hangzhou
      functionName: web\n      runtime: custom.debian12\n      handler: index.handler\n      timeout: 60\n      memorySize: 512\n      cpu: 0.5
      diskSize: 512\n      code: ./code\n      customRuntimeConfig: {{command: [python3, app.py], port: 9000}}\n      triggers:
        - {{triggerName: web, triggerType: http, triggerConfig: {{authType: anonymous, methods: [GET, POST]}}}}\n",
        component.display()
    );
    fs::write(project.join("s.yaml"), file).unwrap();
    let api = format!("http://{}", server.api);
    let s = |words: &[&str]| {
        let mut command = Command::new("node");
        command.arg(packages.join("@serverless-devs/s/bin/s")).args(words).current_dir(&project);
        command
            .env("HOME", &home)
            .env("CI", "1")
            .env("FC_CLIENT_CUSTOM_ENDPOINT", &api)
            .env("FC_CODE_TEMP_OSS_ENDPOINT", &api);
        let ran = run(&mut command);
        assert_eq!(ran.code, Some(0), "s {words:?}: {}{}", ran.stdout, ran.stderr);
        ran.stdout
    };
    s(&[
        "config",
        "add",
        "--AccountID",
        "123456",
        "--AccessKeyID",
        &id,
        "--AccessKeySecret",
        &secret,
        "-a",
        "default",
        "-f",
    ]);
    assert!(s(&["deploy", "-y"]).contains("system_url"));
    assert_eq!(call(server.gateway, "GET", "/f/web/", "", b"").body, b"got ");
    s(&["plan"]);
    assert!(s(&["info"]).contains("acs:fc:local:kipwake:functions/web"));
    assert!(s(&["invoke", "-e", "hello"]).contains("got hello"));
    s(&["invoke", "-e", "later", "--invocation-type", "Async", "--async-task-id", "later-1"]);
    let task = FcCaller(&server).done("GET", "functions/web/async-tasks/later-1", &Value::Null);
    assert_eq!(task["taskId"], "later-1");
    s(&["version", "publish", "--description", "first"]);
    assert!(s(&["version", "list"]).contains("first"));
    s(&["alias", "publish", "--alias-name", "prod", "--version-id", "1"]);
    assert!(s(&["alias", "list"]).contains("prod"));
    s(&["provision", "put", "--qualifier", "prod", "--target", "1"]);
    assert!(s(&["provision", "list"]).contains("functions/web/prod"));
    s(&["provision", "remove", "--qualifier", "prod", "-y"]);
    s(&["concurrency", "put", "--reserved-concurrency", "3"]);
    assert!(s(&["concurrency", "get"]).contains("reservedConcurrency: 3"));
    assert!(s(&["instance", "list"]).contains("instances"));
    s(&["layer", "publish", "--layer-name", "shared", "--code", "./code", "--compatible-runtime", "python3.10"]);
    assert!(s(&["layer", "list"]).contains("layers/shared/versions/1"));
    s(&["layer", "remove", "--layer-name", "shared", "-y"]);
    s(&["alias", "remove", "--alias-name", "prod", "-y"]);
    s(&["version", "remove", "--version-id", "1", "-y"]);
    s(&["remove", "-y"]);
    assert_eq!(FcCaller(&server).refused("GET", "functions/web", &Value::Null), (404, "FunctionNotFound".to_owned()));
}

/// The tool asks for a component of domains though none is wanted, from a registry that tests do not call.
fn stub_domains(home: &Path) {
    let folder = home.join(".s/components/devsapp.cn/v3/fc3-domain");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("package.json"), r#"{"name":"fc3-domain","version":"1.0.0","main":"index.js"}"#).unwrap();
    fs::write(folder.join("index.js"), "exports.default=class{async info(){return{}}async deploy(){return{}}async plan(){return{}}async remove(){return{}}};").unwrap();
    fs::write(folder.join(".s.lock"), r#"{"version":"1.0.0","currentVersion":"1.0.0","publishedAt":"2030-01-01"}"#)
        .unwrap();
}
