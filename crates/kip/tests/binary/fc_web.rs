//! Layers, custom domains, tokens, pages of other origins, and the path of earlier clients.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use crate::fc_upload::{FcCaller, upload, zip};
use crate::http::Answer;
use crate::support::{Server, call, kill, run, until_true};

/// Answers with what it sees.
const PROGRAM: &str = "
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
try:
    import shared
    LAYER = shared.NAME
except ImportError:
    LAYER = None
class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        self.rfile.read(int(self.headers.get('content-length') or 0))
        opt = sorted(os.listdir('/opt')) if os.path.isdir('/opt') else []
        code = sorted(os.listdir('/code')) if os.path.isdir('/code') else []
        answer = json.dumps({'path': self.path, 'layer': LAYER, 'opt': opt, 'code': code, 'cwd': os.getcwd(), 'root': sorted(os.listdir('/')),
            'FC_FUNC_CODE_PATH': os.environ['FC_FUNC_CODE_PATH'], 'PATH': os.environ['PATH'],
            'headers': {name.lower(): value for name, value in self.headers.items()}}).encode()
        self.send_response(200)
        self.send_header('content-length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    do_POST = do_GET
    def log_message(self, *_): pass
HTTPServer(('127.0.0.1', int(os.environ['FC_SERVER_PORT'])), Handler).serve_forever()
";

fn function(name: &str, more: &Value) -> Value {
    let code = BASE64_STANDARD.encode(zip(&[("app.py", PROGRAM.as_bytes())]));
    let mut config = json!({
        "functionName": name, "runtime": "custom.debian12", "handler": "h", "timeout": 60,
        "customRuntimeConfig": {"command": ["python3", "app.py"]}, "code": {"zipFile": code},
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn with_host(server: &Server, host: &str, method: &str, target: &str, headers: &str) -> Answer {
    let mut caller = server.connect();
    caller.write(format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n{headers}connection: close\r\n\r\n"));
    caller.answer(method)
}

fn trigger(caller: &FcCaller<'_>, function: &str, name: &str, settings: &Value) -> Value {
    let body = json!({"triggerName": name, "triggerType": "http", "triggerConfig": settings.to_string()});
    caller.done("POST", &format!("functions/{function}/triggers"), &body)
}

#[test]
fn layers_are_numbered_shared_and_seen_by_functions() {
    let server = Server::start();
    let caller = FcCaller(&server);
    let pair = server.make_pair(&["deployer", "--role", "deploy"]);
    let layer =
        |name: &str| zip(&[("python/shared.py", format!("NAME = '{name}'").as_bytes()), ("bin/tool", b"#!/bin/sh\n")]);
    let inline = |name: &str| json!({"code": {"zipFile": BASE64_STANDARD.encode(layer(name))}, "compatibleRuntime": ["python3.10"], "description": name});
    let first = caller.done("POST", "layers/shared/versions", &inline("one"));
    assert_eq!(
        (&first["version"], &first["layerVersionArn"]),
        (&json!(1), &json!("acs:fc:local:kipwake:layers/shared/versions/1"))
    );
    // By way of a temporary place, with the key that asked for it.
    let body = json!({"code": upload(&server, &pair, &layer("two"))}).to_string();
    let second = server
        .signed(&pair, &crate::fc::SignedRequest::new("POST", "/2023-03-30/layers/shared/versions", body.as_bytes()));
    assert_eq!((second.status(), &second.json()["version"]), (200, &json!(2)), "{second:?}");
    caller.done("POST", "layers/other/versions", &inline("other"));
    assert_eq!(caller.refused("POST", "layers/a%20b/versions", &inline("x")), (400, "InvalidArgument".to_owned()));
    assert_eq!(caller.refused("POST", "layers/l/versions", &json!({})), (400, "InvalidArgument".to_owned()));
    let names = |answer: &Value, field: &str| -> Vec<Value> {
        answer["layers"].as_array().unwrap().iter().map(|one| one[field].clone()).collect()
    };
    assert_eq!(names(&caller.done("GET", "layers", &Value::Null), "layerName"), ["other", "shared"]);
    let page = caller.done("GET", "layers?limit=1", &Value::Null);
    assert_eq!(names(&page, "layerName"), ["other"]);
    assert!(page["nextToken"].is_string());
    assert_eq!(
        names(&caller.done("GET", "layers?official=true&public=true", &Value::Null), "layerName"),
        Vec::<Value>::new()
    );
    let page = caller.done("GET", "layers/shared/versions?limit=1", &Value::Null);
    assert_eq!((names(&page, "version"), &page["nextVersion"]), (vec![json!(2)], &json!(1)));
    let arn = first["layerVersionArn"].as_str().unwrap().to_owned();
    let by_arn = caller.done("GET", &format!("layerarn/{}", arn.replace(':', "%3A").replace('/', "%2F")), &Value::Null);
    assert_eq!(by_arn["description"], "one");
    let location = by_arn["code"]["location"].as_str().unwrap();
    let path = location.split_once("/2023").unwrap().1;
    assert_eq!(call(server.api, "GET", &format!("/2023{path}"), "", b"").body, layer("one"));
    caller.done("PUT", "layers/shared/acl?acl=1", &Value::Null);
    assert_eq!(names(&caller.done("GET", "layers?public=true", &Value::Null), "layerName"), ["shared"]);
    // A function that names it.
    let made = caller.done("POST", "functions", &function("web", &json!({"layers": [arn]})));
    assert_eq!(made["layers"][0]["arn"], arn.as_str());
    trigger(&caller, "web", "open", &json!({"authType": "anonymous"}));
    let ask = || call(server.gateway, "GET", "/f/web/", "", b"").json();
    let seen = ask();
    assert_eq!(seen["layer"], "one", "{seen}");
    // Where the host gives mounts, both are at their paths; else on the search paths.
    if seen["code"] == json!([".kipwake", "app.py"]) {
        assert_eq!(
            (&seen["opt"], &seen["cwd"], &seen["FC_FUNC_CODE_PATH"]),
            (&json!(["bin", "python"]), &json!("/code"), &json!("/code/"))
        );
        assert!(seen["PATH"].as_str().unwrap().split(':').any(|folder| folder == "/opt/bin"), "{seen}");
        assert!(seen["root"].as_array().unwrap().contains(&json!("usr")), "the host's folders are there");
    } else {
        eprintln!("note: this host gives no roots of their own: layers are on the search paths");
        assert!(seen["PATH"].as_str().unwrap().contains("layers-"), "{seen}");
    }
    // Its removal does not touch who has it; others cannot name it.
    caller.done("DELETE", "layers/shared/versions/1", &Value::Null);
    assert_eq!(caller.refused("GET", "layers/shared/versions/1", &Value::Null), (404, "LayerNotFound".to_owned()));
    assert_eq!(
        caller.refused("POST", "functions", &function("late", &json!({"layers": [arn]}))),
        (404, "LayerNotFound".to_owned())
    );
    let foreign = json!({"layers": ["acs:fc:cn-hangzhou:official:layers/Python310/versions/3"]});
    assert_eq!(caller.refused("POST", "functions", &function("late", &foreign)).0, 404);
    assert_eq!(ask()["layer"], "one");
    caller.done("PUT", "functions/web", &json!({"layers": ["acs:fc:local:kipwake:layers/shared/versions/2"]}));
    until_true("the other layer is seen", || ask()["layer"] == "two");
    caller.done("PUT", "functions/web", &json!({"layers": []}));
    until_true("no layer is seen", || ask()["layer"].is_null());
    // Numbers are never given again, also over a restart.
    let mut server = server;
    kill(server.pid, rustix::process::Signal::TERM);
    server.wait();
    server.start_again();
    let caller = FcCaller(&server);
    caller.done("DELETE", "layers/shared/versions/2", &Value::Null);
    assert_eq!(caller.done("POST", "layers/shared/versions", &inline("three"))["version"], 3);
    assert_eq!(call(server.gateway, "GET", "/f/web/", "", b"").status(), 200);
}

#[test]
fn domains_route_by_path_rewrite_and_authenticate() {
    let server = Server::start();
    let caller = FcCaller(&server);
    for name in ["web", "admin"] {
        caller.done("POST", "functions", &function(name, &json!({})));
    }
    trigger(&caller, "web", "open", &json!({"authType": "anonymous"}));
    let route = |path: &str, function: &str| json!({"path": path, "functionName": function});
    let mut rewritten = route("/api/*", "web");
    rewritten["rewriteConfig"] = json!({"wildcardRules": [{"match": "/api/*", "replacement": "/v2/$1"}]});
    let domain = json!({"domainName": "Shop.Example.com", "protocol": "HTTP", "routeConfig": {"routes": [
        route("/*", "web"), route("/admin/*", "admin"), rewritten, route("/login", "admin")]}});
    let made = caller.done("POST", "custom-domains", &domain);
    assert_eq!((&made["domainName"], &made["protocol"]), (&json!("shop.example.com"), &json!("HTTP")));
    let ask = |server: &Server, target: &str| with_host(server, "shop.example.com:80", "GET", target, "");
    assert_eq!(ask(&server, "/a?b=c").json()["path"], "/a?b=c");
    assert_eq!(ask(&server, "/api/x/y?q").json()["path"], "/v2/x/y?q");
    assert_eq!(ask(&server, "/admin/x").status(), 401, "the function has no open trigger");
    assert_eq!(ask(&server, "/login").status(), 401);
    assert_eq!(with_host(&server, "other.example.com", "GET", "/a", "").status(), 404);
    // Another one, with an authentication of its own and few routes.
    let keyed = json!({"domainName": "*.example.org", "authConfig": {"authType": "function"},
        "routeConfig": {"routes": [{"path": "/x", "functionName": "web", "methods": ["GET"]}]}});
    caller.done("POST", "custom-domains", &keyed);
    let bearer = format!("authorization: Bearer {}\r\n", server.key);
    assert_eq!(with_host(&server, "a.example.org", "GET", "/x", "").status(), 401);
    assert_eq!(with_host(&server, "a.example.org", "GET", "/x", &bearer).status(), 200);
    assert_eq!(with_host(&server, "a.example.org", "DELETE", "/x", &bearer).status(), 405);
    let missing = with_host(&server, "a.example.org", "GET", "/y", &bearer);
    assert_eq!((missing.status(), missing.header("x-kip-error")), (404, Some("KW-2033")), "{missing:?}");
    // What cannot be.
    assert_eq!(caller.refused("POST", "custom-domains", &domain), (409, "DomainNameAlreadyExists".to_owned()));
    assert_eq!(
        caller.refused("GET", "custom-domains/none.example.com", &Value::Null),
        (404, "DomainNameNotFound".to_owned())
    );
    let mut wrong = json!({"domainName": "a.example.net", "routeConfig": {"routes": [route("/*", "none")]}});
    assert_eq!(caller.refused("POST", "custom-domains", &wrong), (404, "FunctionNotFound".to_owned()));
    wrong["routeConfig"] = json!({"routes": [route("x", "web")]});
    assert_eq!(caller.refused("POST", "custom-domains", &wrong), (400, "InvalidArgument".to_owned()));
    assert_eq!(
        caller.refused("POST", "custom-domains", &json!({"domainName": "web.localhost"})).0,
        400,
        "a function has that name"
    );
    let listed = caller.done("GET", "custom-domains?limit=1", &Value::Null);
    assert_eq!((listed["customDomains"].as_array().unwrap().len(), listed["nextToken"].is_string()), (1, true));
    // A change holds at once, and over a restart.
    caller.done("PUT", "custom-domains/shop.example.com", &json!({"routeConfig": {"routes": [route("/only", "web")]}}));
    assert_eq!((ask(&server, "/a").status(), ask(&server, "/only").status()), (404, 200));
    let mut server = server;
    kill(server.pid, rustix::process::Signal::TERM);
    server.wait();
    server.start_again();
    assert_eq!((ask(&server, "/a").status(), ask(&server, "/only").status()), (404, 200));
    let caller = FcCaller(&server);
    caller.done("DELETE", "custom-domains/shop.example.com", &Value::Null);
    assert_eq!(ask(&server, "/only").status(), 404);
    assert_eq!(caller.refused("GET", "custom-domains/shop.example.com", &Value::Null).0, 404);
}

fn text(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn signer() -> (Ed25519KeyPair, Value) {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key()), "kid": "k", "alg": "EdDSA"});
    (pair, jwk)
}

fn token(pair: &Ed25519KeyPair, seconds: i64) -> String {
    let claims = json!({"sub": "ann", "exp": jiff::Timestamp::now().as_second() + seconds});
    let message = format!("{}.{}", text(r#"{"alg":"EdDSA","kid":"k"}"#), text(claims.to_string()));
    let signature = text(pair.sign(message.as_bytes()));
    format!("{message}.{signature}")
}

#[test]
fn triggers_and_domains_take_tokens_and_pass_claims() {
    let server = Server::start();
    let caller = FcCaller(&server);
    caller.done("POST", "functions", &function("web", &json!({})));
    let (pair, jwk) = signer();
    let settings = json!({"jwks": {"keys": [jwk]}, "tokenLookup": "header:Authorization:Bearer", "claimPassBy": "header:sub:x-user"});
    let jwt = json!({"authType": "jwt", "authConfig": settings.to_string()});
    let made = trigger(&caller, "web", "token", &jwt);
    assert_eq!(made["triggerConfig"], json!(jwt.to_string()), "given back as it was sent");
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    let ask = |headers: &str| call(server.gateway, "GET", "/f/web/p", headers, b"");
    let answer = ask(&format!("{}x-user: eve\r\n", bearer(&token(&pair, 60))));
    assert_eq!((answer.status(), &answer.json()["headers"]["x-user"]), (200, &json!("ann")), "{answer:?}");
    let none = ask("");
    assert_eq!(
        (none.status(), none.header("x-kip-error"), none.header("www-authenticate")),
        (401, Some("KW-2032"), Some("Bearer"))
    );
    assert_eq!(ask(&bearer(&token(&pair, -120))).status(), 401, "it has expired");
    assert_eq!(ask(&bearer(&token(&signer().0, 60))).status(), 401, "of another signer");
    assert_eq!(ask(&bearer(&server.key)).status(), 200, "a key of the server is good too");
    assert_eq!(ask(&bearer("kw_x")).status(), 401);
    let wrong = json!({"authType": "jwt", "authConfig": "{}"}).to_string();
    let body = json!({"triggerName": "bad", "triggerType": "http", "triggerConfig": wrong});
    assert_eq!(caller.refused("POST", "functions/web/triggers", &body), (400, "InvalidArgument".to_owned()));
    // A domain has its own.
    let (other, jwk) = signer();
    let info = json!({"jwks": {"keys": [jwk]}}).to_string();
    caller.done(
        "POST",
        "custom-domains",
        &json!({"domainName": "a.example.com", "authConfig": {"authType": "jwt", "authInfo": info},
        "routeConfig": {"routes": [{"path": "/*", "functionName": "web"}]}}),
    );
    let by_domain = |token: &str| with_host(&server, "a.example.com", "GET", "/", &bearer(token)).status();
    assert_eq!((by_domain(&token(&other, 60)), by_domain(&token(&pair, 60))), (200, 401));
    // Over a restart, and away with the trigger.
    let mut server = server;
    kill(server.pid, rustix::process::Signal::TERM);
    server.wait();
    server.start_again();
    let ask = |token: &str| call(server.gateway, "GET", "/f/web/p", &bearer(token), b"").status();
    assert_eq!((ask(&token(&pair, 60)), ask(&token(&other, 60))), (200, 401));
    FcCaller(&server).done("DELETE", "functions/web/triggers/token", &Value::Null);
    assert_eq!(ask(&token(&pair, 60)), 401);
}

#[test]
fn pages_of_other_origins_ask_without_a_key() {
    let server = Server::start();
    let caller = FcCaller(&server);
    caller.done("POST", "functions", &function("web", &json!({})));
    let cors = json!({"allowOrigins": ["https://app.example.com"], "allowHeaders": ["x-a"], "allowMethods": ["GET"],
        "exposeHeaders": ["x-b"], "allowCredentials": true, "maxAge": 60});
    trigger(&caller, "web", "keyed", &json!({"authType": "function", "methods": ["GET"], "corsConfig": cors}));
    let preflight = |origin: &str| {
        let headers = format!("origin: {origin}\r\naccess-control-request-method: GET\r\n");
        call(server.gateway, "OPTIONS", "/f/web/", &headers, b"")
    };
    let answer = preflight("https://app.example.com");
    assert_eq!(answer.status(), 204, "{answer:?}");
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example.com"),
        ("access-control-allow-headers", "x-a"),
        ("access-control-allow-methods", "GET"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "60"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{answer:?}");
    }
    assert_eq!(preflight("https://evil.example").header("access-control-allow-origin"), None);
    let bearer = format!("authorization: Bearer {}\r\norigin: https://app.example.com\r\n", server.key);
    let answer = call(server.gateway, "GET", "/f/web/", &bearer, b"");
    assert_eq!((answer.status(), answer.header("access-control-expose-headers")), (200, Some("x-b")), "{answer:?}");
    let wrong =
        json!({"authType": "anonymous", "corsConfig": {"allowOrigins": ["*"], "allowCredentials": true}}).to_string();
    let body = json!({"triggerName": "bad", "triggerType": "http", "triggerConfig": wrong});
    assert_eq!(caller.refused("POST", "functions/web/triggers", &body), (400, "InvalidArgument".to_owned()));
}

#[test]
fn the_path_of_earlier_clients_on_both_listeners() {
    let server = Server::start();
    let caller = FcCaller(&server);
    caller.done("POST", "functions", &function("shop-web", &json!({})));
    caller.done("POST", "functions", &function("web", &json!({})));
    trigger(&caller, "shop-web", "open", &json!({"authType": "anonymous"}));
    for address in [server.gateway, server.api] {
        let ask = |method: &str, path: &str, body: &[u8]| {
            call(address, method, &format!("/2016-08-15/proxy/{path}"), "", body)
        };
        assert_eq!(ask("GET", "shop/web/a/b?c=%20d", b"").json()["path"], "/a/b?c=%20d");
        assert_eq!(ask("POST", "shop.LATEST/web/", b"body").json()["path"], "/");
        assert_eq!(ask("GET", "other/web/", b"").status(), 401, "the function of that name alone needs a key");
        assert_eq!(ask("GET", "shop.none/web/", b"").status(), 404);
    }
    // Who comes through a proxy in front of the API is not of this machine.
    let from_outside = |key: &str| {
        let headers = format!("x-forwarded-for: 203.0.113.9\r\n{key}");
        call(server.api, "GET", "/2016-08-15/proxy/shop/web/", &headers, b"").status()
    };
    assert_eq!(from_outside(""), 401);
    assert_eq!(from_outside(&format!("authorization: Bearer {}\r\n", server.key)), 200);
}

/// A certificate for a host with its key, made by openssl into `NAME.pem` and `NAME.key`.
fn certificate(folder: &Path, name: &str, host: &str) -> (String, String) {
    let file = |end: &str| folder.join(format!("{name}.{end}"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName=DNS:{host}")])
        .arg("-keyout")
        .arg(file("key"))
        .arg("-out")
        .arg(file("pem"))
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let read = |end: &str| std::fs::read_to_string(file(end)).unwrap();
    (read("pem"), read("key"))
}

#[test]
fn a_domain_has_a_certificate_of_its_own() {
    let mut server = Server::start();
    let folder = server.folder().to_owned();
    certificate(&folder, "own", "localhost");
    // A port that nobody has now; whoever takes it meanwhile makes the start fail with a clear word.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    server.terminate();
    let file = server.data().join("kipwake.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let path = folder.display();
    let tls = format!("[tls]\nlisten = \"{free}\"\ncertificate = \"{path}/own.pem\"\nkey = \"{path}/own.key\"\n");
    std::fs::write(&file, format!("{before}\n{tls}")).unwrap();
    server.start_again();
    let caller = FcCaller(&server);
    caller.done("POST", "functions", &function("web", &json!({})));
    trigger(&caller, "web", "open", &json!({"authType": "anonymous"}));
    let (chain, key) = certificate(&folder, "first", "shop.example.com");
    let domain = |chain: &str, key: &str| {
        json!({"domainName": "shop.example.com", "protocol": "HTTPS", "routeConfig": {"routes": [{"path": "/*", "functionName": "web"}]},
            "certConfig": {"certName": "c", "certificate": chain, "privateKey": key}})
    };
    let (other, _) = certificate(&folder, "other", "shop.example.com");
    assert_eq!(caller.refused("POST", "custom-domains", &domain(&other, &key)).0, 400, "they do not belong together");
    let made = caller.done("POST", "custom-domains", &domain(&chain, &key));
    assert_eq!(made["certConfig"], json!({"certName": "c", "certificate": chain}), "the key is not given back");
    let port = free.port();
    let ask = |server: &Server, trusted: &str, host: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "30", "--cacert", &format!("{trusted}.pem")]).current_dir(server.folder());
        curl.args(["--resolve", &format!("{host}:{port}:127.0.0.1"), &format!("https://{host}:{port}/x")]);
        run(&mut curl)
    };
    assert!(ask(&server, "first", "shop.example.com").ok().stdout.contains("\"/x\""));
    assert_eq!(ask(&server, "own", "shop.example.com").code, Some(60), "not that of the listener");
    assert!(ask(&server, "own", "localhost").code == Some(0), "others get that of the listener");
    let plain = with_host(&server, "shop.example.com", "GET", "/x", "");
    assert_eq!((plain.status(), plain.header("x-kip-error")), (404, Some("KW-2033")), "not in the clear");
    // Another certificate holds at once; without a key the one that is kept stays.
    let (chain, key) = certificate(&folder, "second", "shop.example.com");
    let change = json!({"certConfig": {"certName": "c", "certificate": chain, "privateKey": key}});
    caller.done("PUT", "custom-domains/shop.example.com", &change);
    assert_eq!(ask(&server, "second", "shop.example.com").code, Some(0));
    assert_eq!(ask(&server, "first", "shop.example.com").code, Some(60));
    let change = json!({"certConfig": {"certName": "d", "certificate": chain}});
    caller.done("PUT", "custom-domains/shop.example.com", &change);
    server.terminate();
    server.start_again();
    assert_eq!(ask(&server, "second", "shop.example.com").code, Some(0), "over a restart");
    let stored = std::fs::read(server.data().join("control.db")).unwrap();
    let line = key.lines().nth(1).unwrap().as_bytes();
    assert!(!stored.windows(line.len()).any(|window| window == line), "the key is sealed on the disk");
}

#[test]
fn a_file_declares_layers_and_a_domain() {
    let server = Server::start();
    let folder = server.folder().join("app");
    std::fs::create_dir_all(folder.join("layer/python")).unwrap();
    std::fs::create_dir_all(folder.join("code")).unwrap();
    std::fs::write(folder.join("layer/python/shared.py"), "NAME = 'file'").unwrap();
    std::fs::write(folder.join("code/app.py"), PROGRAM).unwrap();
    let published = server.kip(&["layer", "publish", "shared", "app/layer", "--runtime", "python3.10"]).ok();
    assert!(published.stdout.contains("layers/shared/versions/1"), "{published:?}");
    server.kip(&["s", "layer", "publish", "--layer-name", "shared", "--code", "app/layer"]).ok();
    assert_eq!(server.ask(&["layer", "ls", "shared"]).as_array().unwrap().len(), 2);
    server.kip(&["s", "layer", "remove", "--layer-name", "shared", "--version-id", "2", "-y"]).ok();
    server.kip(&["layer", "rm", "none"]).failed(&["KW-7027"]);
    let text = "edition: 3.0.0
name: app
access: default
resources:
  web:
    component: fc3
    props:
      region: cn-hangzhou
      functionName: web
      runtime: custom.debian12
      code: ./code
      timeout: 60
      customRuntimeConfig: {command: [python3, app.py]}
      layers: ['acs:fc:cn-hangzhou:1:layers/shared/versions/1']
      triggers: [{triggerName: open, triggerType: http, triggerConfig: {authType: anonymous}}]
      customDomain: {domainName: shop.example.com, protocol: HTTP, route: {path: /*}}
";
    std::fs::write(folder.join("s.yaml"), text).unwrap();
    let plan = server.kip(&["plan", "-t", "app/s.yaml"]).ok();
    assert!(plan.stdout.contains("+ custom domain shop.example.com"), "{plan:?}");
    server.kip(&["deploy", "-t", "app/s.yaml", "-y"]).ok();
    let seen = with_host(&server, "shop.example.com", "GET", "/a", "").json();
    assert_eq!((&seen["path"], &seen["layer"]), (&json!("/a"), &json!("file")));
    let again = server.kip(&["plan", "-t", "app/s.yaml"]).ok();
    assert!(again.stdout.contains("nothing changes"), "{again:?}");
    // Two more functions join the domain in one deployment, each with a path of its own.
    let other = |name: &str| {
        let resource = text.split_once("resources:\n").unwrap().1;
        let resource = resource
            .replace("  web:\n", &format!("  {name}:\n"))
            .replace("functionName: web", &format!("functionName: {name}"));
        resource.replace("path: /*", &format!("path: /{name}"))
    };
    std::fs::write(folder.join("s.yaml"), format!("{text}{}{}", other("one"), other("two"))).unwrap();
    server.kip(&["deploy", "-t", "app/s.yaml", "-y"]).ok();
    assert_eq!(
        with_host(&server, "shop.example.com", "GET", "/two", "").json()["headers"]["x-fc-function-name"],
        "two"
    );
    let listed = server.kip(&["domain", "ls"]).ok();
    assert!(["/one", "/two", "/*"].iter().all(|path| listed.stdout.contains(path)), "{listed:?}");
    // Who is removed leaves it; the last one takes it away.
    server.kip(&["remove", "-t", "app/s.yaml", "-y", "two"]).ok();
    assert_eq!(
        with_host(&server, "shop.example.com", "GET", "/two", "").json()["headers"]["x-fc-function-name"],
        "web"
    );
    server.kip(&["remove", "-t", "app/s.yaml", "-y"]).ok();
    assert_eq!(server.ask(&["domain", "ls"]), json!([]));
    server.kip(&["domain", "rm", "shop.example.com"]).failed(&["KW-7029"]);
}
