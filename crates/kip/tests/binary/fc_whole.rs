//! Functions of Function Compute as wholes: a create that is all or nothing, fields that come back as they were read, and settings in force.

use std::net::TcpListener;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kip_host::environment::FAIL_POINT;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fc_upload::{FcCaller, zip};
use crate::support::{Server, apart, call, until_true};

/// Listens where its first argument says, or where it is told. `/health` answers 500 while the file that the second argument names is there.
const PROGRAM: &str = "
import os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
where = int(sys.argv[1]) if sys.argv[1] != 'told' else int(os.environ[''.join(['FC_SERVER_', 'P', 'ORT'])])
class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        self.rfile.read(int(self.headers.get('content-length') or 0))
        if self.path == '/slow': time.sleep(1.5)
        sick = self.path == '/health' and len(sys.argv) > 2 and os.path.exists(sys.argv[2])
        answer = str(os.getpid()).encode()
        self.send_response(500 if sick else 200)
        self.send_header('content-length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    do_POST = do_GET
    def log_message(self, *_): pass
ThreadingHTTPServer(('127.0.0.1', where), Handler).serve_forever()
";

fn function(name: &str, arguments: &[&str], more: &Value) -> Value {
    let code = BASE64_STANDARD.encode(zip(&[("app.py", PROGRAM.as_bytes())]));
    let command: Vec<&str> = ["python3", "app.py"].iter().chain(arguments).copied().collect();
    let mut config = json!({
        "functionName": name, "runtime": "custom.debian12", "handler": "h", "timeout": 60,
        "customRuntimeConfig": {"command": command}, "code": {"zipFile": code},
        // The program makes the name of the variable of pieces.
        "environmentVariables": {"KIPWAKE_FIXED_PORT": if arguments.first() == Some(&"told") { "false" } else { "" }},
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn open(caller: &FcCaller<'_>, name: &str) {
    let body = json!({"triggerName": "open", "triggerType": "http", "triggerConfig": "{\"authType\": \"anonymous\"}"});
    caller.done("POST", &format!("functions/{name}/triggers"), &body);
}

/// Starts the server so that it kills itself at a point, asks for something, and starts it again.
fn killed_at(server: &mut Server, point: &str, method: &'static str, path: &str, body: &Value) {
    server.signal(Signal::INT);
    server.wait();
    let mut command = server.serve_command();
    command.env(FAIL_POINT, point);
    server.start_by(command);
    let headers = format!("authorization: Bearer {}\r\n", server.key);
    let (api, target, body) = (server.api, format!("/2023-03-30/{path}"), body.to_string());
    // Its connection breaks off.
    let _ = apart(move || call(api, method, &target, &headers, body.as_bytes())).join();
    assert!(!server.wait().success(), "the server killed itself at `{point}`");
    server.start_again();
}

#[test]
fn a_create_is_all_or_nothing_wherever_the_server_is_killed() {
    let mut server = Server::start();
    let tags = json!([{"Key": "team", "Value": "a"}]);
    for (number, (point, is_there)) in [
        ("fc: code kept", false),
        ("deploy: checked", false),
        ("deploy: committed", true),
        ("deploy: applied", true),
        ("fc: function made", true),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("f{number}");
        let body = function(&name, &["told"], &json!({"tags": tags, "description": "whole"}));
        killed_at(&mut server, point, "POST", "functions", &body);
        let caller = FcCaller(&server);
        let (status, shown) = caller.ask("GET", &format!("functions/{name}"), &Value::Null);
        let listed = server.ask(&["ls"]).to_string().contains(&format!("\"{name}\""));
        if is_there {
            assert_eq!((status, &shown["tags"], &shown["description"]), (200, &tags, &json!("whole")), "{point}");
            assert!(listed && shown["codeSize"].as_u64().is_some_and(|size| size > 0), "{point}: {shown}");
        } else {
            assert_eq!((status, listed), (404, false), "{point}: {shown}");
            caller.done("POST", "functions", &body);
        }
        open(&caller, &name);
        assert_eq!(call(server.gateway, "GET", &format!("/f/{name}/"), "", b"").status(), 200, "{point}");
    }
    // What is provisioned and what the client sent are one commit too.
    let put = json!({"defaultTarget": 2});
    killed_at(&mut server, "provision: committed", "PUT", "functions/f0/provision-config", &put);
    let caller = FcCaller(&server);
    assert_eq!(caller.done("GET", "functions/f0/provision-config", &Value::Null)["defaultTarget"], 2);
    assert!(server.ask(&["provision", "ls"]).to_string().contains("\"f0\""));
    // A bound of instances and the setting that says it likewise.
    let bound = json!({"reservedConcurrency": 3});
    killed_at(&mut server, "deploy: checked", "PUT", "functions/f0/concurrency", &bound);
    assert_eq!(FcCaller(&server).refused("GET", "functions/f0/concurrency", &Value::Null).0, 404);
    killed_at(&mut server, "deploy: committed", "PUT", "functions/f0/concurrency", &bound);
    let caller = FcCaller(&server);
    assert_eq!(caller.done("GET", "functions/f0/concurrency", &Value::Null)["reservedConcurrency"], 3);
}

#[test]
fn who_writes_back_what_they_read_changes_nothing() {
    let server = Server::start();
    let caller = FcCaller(&server);
    server.deploy_subject(
        &[],
        "env: {A: \"${PORT}\", B: \"$${x}\"}\nresources: {memory: 300MiB}\n\
         timeouts: {first_byte: 20s, idle: 7s, total: 90s}\ninstances: {concurrency: {hard: 4, soft: 2}}\n\
         probes: {ready: {path: /ok, period: 4s, failures: 2}}\nidle: {stop: 1h}",
    );
    caller.done(
        "POST",
        "functions",
        &function("sdk", &["told"], &json!({"memorySize": 512, "cpu": 0.35, "tags": [{"Key": "a", "Value": "b"}]})),
    );
    for name in ["f", "sdk"] {
        let path = format!("functions/{name}");
        let before = server.ask(&["inspect", name]);
        let shown = caller.done("GET", &path, &Value::Null);
        let again = caller.done("PUT", &path, &shown);
        assert_eq!(again, shown, "{name}");
        let after = server.ask(&["inspect", name]);
        assert_eq!((&after["spec"], &after["versions"]), (&before["spec"], &before["versions"]), "{name}");
        // One field changes itself alone.
        caller.done("PUT", &path, &json!({"description": "other"}));
        assert_eq!(caller.done("GET", &path, &Value::Null)["description"], "other");
        // A description is none of the declaration's.
        assert_eq!(server.ask(&["inspect", name])["spec"], before["spec"], "{name}");
    }
    assert_eq!(server.function()["spec"]["env"]["A"], "${PORT}");
    // Parts that fit alone and not together.
    assert_eq!(caller.refused("PUT", "functions/sdk", &json!({"cpu": 1})), (400, "InvalidArgument".to_owned()));
    caller.done("PUT", "functions/sdk", &json!({"cpu": 1, "memorySize": 1024}));
}

#[test]
fn programs_that_cannot_learn_their_port_take_turns() {
    let server = Server::start();
    let caller = FcCaller(&server);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let number = port.to_string();
    for name in ["one", "two"] {
        let config = json!({"customRuntimeConfig": {"command": ["python3", "app.py", number], "port": port}});
        caller.done("POST", "functions", &function(name, &[&number], &config));
        open(&caller, name);
    }
    let ask = |name: &str, path: &str| call(server.gateway, "GET", &format!("/f/{name}/{path}"), "", b"").status();
    for name in ["one", "two", "one"] {
        assert_eq!(ask(name, ""), 200, "{name}");
    }
    let gateway = server.gateway;
    let slow = apart(move || call(gateway, "GET", "/f/one/slow", "", b"").status());
    until_true("the first one works", || server.instances().iter().any(|instance| instance["in_flight"] == 1));
    let other = apart(move || call(gateway, "GET", "/f/two/", "", b"").status());
    until_true("why the second one waits is said", || {
        let why = server.kip(&["why", "two"]).ok().stdout;
        why.contains(&number) || why.contains("port")
    });
    assert_eq!((slow.join().unwrap(), other.join().unwrap()), (200, 200));
    // The variable decides it without a search.
    caller.done("PUT", "functions/one", &json!({"environmentVariables": {"KIPWAKE_FIXED_PORT": "false"}}));
    assert!(server.ask(&["inspect", "one"])["spec"]["resources"]["port"].is_null());
}

#[test]
fn health_checks_have_their_times() {
    let server = Server::start();
    let caller = FcCaller(&server);
    let sick = server.folder().join("sick");
    let file = sick.display().to_string();
    let health = json!({"httpGetUrl": "/health", "initialDelaySeconds": 1, "periodSeconds": 1, "failureThreshold": 1});
    let config =
        json!({"customRuntimeConfig": {"command": ["python3", "app.py", "told", file], "healthCheckConfig": health}});
    caller.done("POST", "functions", &function("web", &["told"], &config));
    open(&caller, "web");
    let began = kip_host::clock::boot_millis();
    assert_eq!(call(server.gateway, "GET", "/f/web/", "", b"").status(), 200);
    assert!(kip_host::clock::boot_millis() - began >= 1_000, "the first probe comes after the delay");
    let unready = || server.instances().iter().any(|instance| instance["unready"] == true);
    std::fs::write(&sick, b"").unwrap();
    let broke = kip_host::clock::boot_millis();
    until_true("one failure counts", unready);
    assert!(kip_host::clock::boot_millis() - broke < 5_000, "with the usual times it takes 15 seconds");
    std::fs::remove_file(&sick).unwrap();
    until_true("it is ready again", || !unready());
    let wrong = json!({"customRuntimeConfig": {"command": ["x"], "healthCheckConfig": {"httpGetUrl": "/h", "timeoutSeconds": 9}}});
    assert_eq!(caller.refused("PUT", "functions/web", &wrong).0, 400);
}

#[test]
fn idle_timeouts_and_functions_without_instances_on_demand() {
    let server = Server::start();
    let caller = FcCaller(&server);
    caller.done("POST", "functions", &function("short", &["told"], &json!({"idleTimeout": 1})));
    caller.done("POST", "functions", &function("kept", &["told"], &json!({"disableOndemand": true})));
    open(&caller, "short");
    open(&caller, "kept");
    assert_eq!(call(server.gateway, "GET", "/f/short/", "", b"").status(), 200);
    until_true("its instance is gone", || server.instances().is_empty());
    let gateway = server.gateway;
    let waiting = apart(move || call(gateway, "GET", "/f/kept/", "", b"").status());
    until_true("the request waits", || server.kip(&["why", "kept"]).ok().stdout.contains("disable_ondemand"));
    assert!(server.instances().is_empty());
    caller.done("PUT", "functions/kept/provision-config", &json!({"defaultTarget": 1}));
    assert_eq!(waiting.join().unwrap(), 200);
    let shown = caller.done("GET", "functions/kept", &Value::Null);
    assert_eq!(
        (&shown["disableOndemand"], &caller.done("GET", "functions/short", &Value::Null)["idleTimeout"]),
        (&json!(true), &json!(1))
    );
    // What lived before is listed for its time.
    let listed = caller.done("GET", "functions/short/instances?startTimeMs=1", &Value::Null);
    let row = &listed["instances"][0];
    assert_eq!((&row["status"], row["createdTimeMs"].is_i64()), (&json!("Destroyed"), true), "{listed}");
    assert!(row["destroyedTimeMs"].as_i64() > row["createdTimeMs"].as_i64());
    assert_eq!(
        caller.done("GET", "functions/short/instances?startTimeMs=1&endTimeMs=2", &Value::Null)["instances"],
        json!([])
    );
    let now = caller.done("GET", "functions/kept/instances?withAllActive=true", &Value::Null);
    assert!(now["instances"][0]["createdTimeMs"].is_i64() && now["instances"][0]["destroyedTimeMs"].is_null(), "{now}");
}
