//! Keys as operators make them and callers use them.

use std::net::SocketAddr;

use serde_json::Value;

use crate::http::{Answer, Caller};
use crate::support::{Server, call, function, kip, manifest, run, until, until_true};

impl Server {
    /// Makes a key and gives its secret.
    fn make_key(&self, arguments: &[&str]) -> String {
        let made = self.kip(&[&["key", "create"], arguments].concat()).ok();
        let secret = made.stdout.trim_end().to_owned();
        assert!(secret.starts_with("kw_") && secret.len() == 67, "the secret alone is on standard output: {made:?}");
        assert!(!made.stderr.contains(&secret) && made.stderr.contains(arguments[0]), "{made:?}");
        secret
    }

    fn with_key(&self, method: &str, path: &str, secret: &str) -> Answer {
        call(self.api, method, path, &bearer(secret), b"")
    }

    fn audit(&self, filter: &[&str]) -> Vec<Value> {
        self.ask(&[&["audit"], filter].concat()).as_array().unwrap().clone()
    }
}

fn bearer(secret: &str) -> String {
    format!("authorization: Bearer {secret}\r\n")
}

/// The code of an answer of the API, which names it in the body only.
fn code(answer: &Answer) -> String {
    answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

fn field<'a>(records: &'a [Value], name: &str) -> Vec<&'a str> {
    records.iter().map(|record| record[name].as_str().unwrap_or_default()).collect()
}

/// The table of docs/keys.md: method, path with names filled in, role.
fn documented() -> Vec<(String, String, usize)> {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/keys.md");
    let text = std::fs::read_to_string(page).unwrap();
    let rows = text.lines().filter(|line| line.contains(" `/") && line.starts_with("| ")).map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (method, path) = cells[1].split_once(' ').unwrap();
        let path = path
            .trim_matches('`')
            .replace("keys/{name}", "keys/nobody")
            .replace("{name}", "f")
            .replace("{id}", "i-9-9-9");
        (method.to_owned(), path, ROLES.iter().position(|role| *role == cells[2]).unwrap())
    });
    rows.collect()
}

const ROLES: [&str; 4] = ["invoke", "operate", "deploy", "admin"];

#[test]
fn each_role_may_what_the_table_says_and_nothing_more() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    let secrets = ROLES.map(|role| server.make_key(&[&format!("a-{role}"), "--role", role]));
    let documented = documented();
    assert!(documented.len() > 20);
    for (method, path, needed) in &documented {
        // What would end the test is tried only by those who may not.
        let ends = path.ends_with("/stop") || method == "DELETE" && path.ends_with("/f");
        for (role, secret) in secrets.iter().enumerate().filter(|(role, _)| !ends || role < needed) {
            let answer = server.with_key(method, path, secret);
            let name = ROLES[role];
            if role >= *needed {
                assert!(!matches!(answer.status(), 401 | 403 | 405), "{method} {path} as {name}: {answer:?}");
                continue;
            }
            assert_eq!((answer.status(), code(&answer).as_str()), (403, "KW-7008"), "{method} {path} as {name}");
            let said = answer.said();
            assert!(said.contains(&format!("the role {}", ROLES[*needed])), "the role is named: {said}");
        }
    }
    assert_eq!(server.get("/").status(), 200, "nothing was removed or stopped");
    let refused = server.audit(&["--by", "a-operate", "--action", "server.stop"]);
    assert_eq!(field(&refused, "result"), ["KW-7008"]);
    for (role, secret) in ROLES.iter().zip(&secrets) {
        let shown = run(kip(&server.data()).args(["key", "ls", "--key", secret]));
        assert_eq!(shown.code == Some(0), *role == "admin", "{shown:?}");
    }
    let ran = server.kip(&["rm", "f", "--key", &secrets[1]]);
    ran.failed(&["KW-7008", "role deploy", "role operate", "kip key create"]);
    server.kip(&["rm", "f", "--key", &secrets[2]]).ok();
}

#[test]
fn a_key_for_some_functions_sees_and_touches_only_these() {
    let server = Server::start();
    let settings = "trigger: {http: {auth: key}}";
    let all = manifest(&["f", "g", "h"].map(|name| function(name, &[], settings)));
    server.deploy(&all);
    let secret = server.make_key(&["part", "--role", "deploy", "--functions", "f,g"]);
    let as_part = |arguments: &[&str]| run(kip(&server.data()).args(arguments).args(["--key", &secret, "-o", "json"]));
    for name in ["f", "g", "h"] {
        let answer = call(server.gateway, "GET", &format!("/f/{name}/pid"), &bearer(&server.key), b"");
        assert_eq!(answer.status(), 200);
    }
    let names = |ran: crate::support::CommandOutput, field: &str| {
        let json = ran.ok().json();
        let mut names: Vec<String> =
            json.as_array().unwrap().iter().map(|line| line[field].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(as_part(&["ls"]), "name"), ["f", "g"]);
    assert_eq!(names(as_part(&["ps"]), "function"), ["f", "g"]);
    assert_eq!(names(as_part(&["requests"]), "function"), ["f", "g"]);
    let status = server.with_key("GET", "/api/v1/status", &secret).json();
    assert_eq!((&status["functions"], &status["instances"]), (&2.into(), &2.into()));
    let instances = server.instances();
    let of_h = instances.iter().find(|line| line["function"] == "h").unwrap()["id"].as_str().unwrap();
    for (method, path) in [
        ("GET", "/api/v1/functions/h".to_owned()),
        ("GET", "/api/v1/functions/h/logs".to_owned()),
        ("GET", "/api/v1/functions/%68/requests".to_owned()),
        ("POST", "/api/v1/functions/h/rotate".to_owned()),
        ("DELETE", "/api/v1/functions/h".to_owned()),
    ] {
        let answer = server.with_key(method, &path, &secret);
        assert_eq!((answer.status(), code(&answer).as_str()), (403, "KW-7009"), "{method} {path}");
    }
    let foreign = server.with_key("GET", &format!("/api/v1/instances/{of_h}"), &secret);
    assert_eq!((foreign.status(), code(&foreign).as_str()), (404, "KW-3002"), "as one that is not there");
    let deployed = as_part(&["deploy", server.folder().join("kip.yaml").to_str().unwrap()]);
    assert_eq!(deployed.json()["error"]["code"], "KW-7009", "{deployed:?}");
    let some =
        ["deploy", server.folder().join("kip.yaml").to_str().unwrap(), "--only", "f", "--no-wait"].map(str::to_owned);
    as_part(&some.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    assert_eq!(call(server.gateway, "GET", "/f/g/pid", &bearer(&secret), b"").status(), 200);
    let refused = call(server.gateway, "GET", "/f/h/pid", &bearer(&secret), b"");
    assert_eq!((refused.status(), refused.code().as_str()), (403, "KW-7009"));
    assert_eq!(names(as_part(&["ls"]), "name"), ["f", "g"]);
    assert_eq!(server.ask(&["ls"]).as_array().unwrap().len(), 3, "h is still there");
}

#[test]
fn clients_send_keys_in_several_ways_and_functions_see_none_of_them() {
    let server = Server::start();
    server.deploy(&manifest(&[function("f", &[], "trigger: {http: {auth: key}}"), function("open", &[], "")]));
    let secret = server.make_key(&["shop", "--tenant", "sales"]);
    let echo =
        |function: &str, headers: &str| call(server.gateway, "GET", &format!("/f/{function}/echo"), headers, b"");
    for header in ["authorization: Bearer ", "authorization: bearer ", "x-api-key: ", "api-key: "] {
        let answer = echo("f", &format!("{header}{secret}\r\nx-kept: yes\r\n"));
        assert_eq!(answer.status(), 200, "{header}: {answer:?}");
        assert!(!answer.text().contains(&secret) && answer.text().contains("x-kept"), "{header}: {}", answer.text());
    }
    let both = echo("f", &format!("authorization: Bearer of-the-function\r\nx-api-key: {secret}\r\n"));
    assert_eq!(both.status(), 200);
    assert!(both.text().contains("of-the-function") && !both.text().contains(&secret), "{}", both.text());
    for (headers, code) in [
        ("", "KW-7001"),
        ("x-api-key: of-the-function\r\n", "KW-7002"),
        ("api-key: kw_0\r\n", "KW-7002"),
        ("authorization: Basic eDp5\r\n", "KW-7001"),
    ] {
        let answer = echo("f", headers);
        assert_eq!((answer.status(), answer.code().as_str()), (401, code), "{headers}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    // Nor in a form that we do not take for one: as others write the names, or with bytes that are no text.
    for header in ["x_api_key: ", "api_key: ", "authorization: Bearer \u{ff}"] {
        let answer = echo("open", &format!("{header}{secret}\r\n"));
        assert!(answer.status() == 200 && !answer.text().contains(&secret), "{header}: {}", answer.text());
    }
    // Where none is asked for, a good one is noted and any other is the function's.
    let own = echo("open", "x-api-key: of-the-function\r\n");
    assert!(own.text().contains("of-the-function"), "{}", own.text());
    assert_eq!(echo("open", "authorization: Bearer kw_0\r\n").status(), 200);
    assert_eq!(echo("open", &bearer(&secret)).status(), 200);

    let of = |arguments: &[&str]| server.ask(&[&["requests"], arguments].concat()).as_array().unwrap().clone();
    until_true("six requests of the key are recorded", || of(&["--by", "shop"]).len() == 6);
    assert!(of(&["--by", "shop"]).iter().all(|record| record["tenant"] == "sales" && record["status"] == 200));
    assert_eq!(of(&["--tenant", "sales", "--limit", "100"]).len(), 6);
    assert_eq!(of(&["open", "--by", "shop"]).len(), 1);
    assert_eq!(of(&["--by", "admin"]).len(), 0);
    let shown = server.ask(&["key", "show", "shop"]);
    assert!(shown["last_use"].as_i64() > shown["created"].as_i64(), "{shown}");
    assert!(server.kip(&["key", "ls"]).ok().stdout.contains("sales"));
}

#[test]
fn a_gateway_may_ask_for_keys_everywhere() {
    let server = Server::with("[gateway]\nrequire_keys = true");
    server.deploy_subject(&[], "trigger: {http: {auth: anonymous}}");
    let refused = server.get("/");
    assert_eq!((refused.status(), refused.code().as_str()), (401, "KW-7001"));
    assert_eq!(server.call_with("GET", "/", "x-api-key: of-the-function\r\n", b"").code(), "KW-7002");
    assert!(server.instances().is_empty(), "nothing is started for a stranger");
    let secret = server.make_key(&["k"]);
    assert_eq!(server.call_with("GET", "/", &bearer(&secret), b"").status(), 200);
    let shown = server.kip(&["config", "show"]).ok().stdout;
    assert!(shown.lines().any(|line| line.starts_with("gateway.require_keys") && line.contains("true")), "{shown}");
}

#[test]
fn limits_are_kept_over_all_threads_and_places_come_back() {
    let server = Server::start();
    server.deploy_subject(&[], "trigger: {http: {auth: key}}\ninstances: {max: 1, concurrency: 16}");
    let slow = server.make_key(&["slow", "--rate", "6/h", "--burst", "3"]);
    // Each on a connection of its own: the two threads of the gateway take them as they come.
    let answers: Vec<Answer> = (0..8).map(|_| server.call_with("GET", "/", &bearer(&slow), b"")).collect();
    let statuses: Vec<u16> = answers.iter().map(Answer::status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429, 429, 429, 429]);
    let refused = &answers[3];
    assert_eq!(refused.code(), "KW-7012");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((500..=600).contains(&wait), "{wait}");
    assert!(refused.said().contains("6/h"), "{}", refused.said());
    server.kip(&["key", "set", "slow", "--rate", "none"]).ok();
    assert_eq!(server.call_with("GET", "/", &bearer(&slow), b"").status(), 200, "a change holds at once");

    let narrow = server.make_key(&["narrow", "--concurrency", "2"]);
    let open = |address: SocketAddr| {
        let mut caller = Caller::connect(address);
        caller.send("GET", "/f/f/stall", &bearer(&narrow));
        assert_eq!(caller.head().status, 200);
        caller
    };
    let (first, _second) = (open(server.gateway), open(server.gateway));
    let third = server.call_with("GET", "/", &bearer(&narrow), b"");
    assert_eq!((third.status(), third.code().as_str(), third.header("retry-after")), (429, "KW-7013", Some("1")));
    assert_eq!(server.call_with("GET", "/", &bearer(&slow), b"").status(), 200, "another key is not held up");
    first.leave();
    until_true("the place of a caller that left is free", || {
        server.call_with("GET", "/", &bearer(&narrow), b"").status() == 200
    });
}

#[test]
fn keys_are_rotated_disabled_and_run_out() {
    let mut server = Server::start();
    server.deploy_subject(&[], "trigger: {http: {auth: key}}");
    let status = |server: &Server, secret: &str| {
        let answer = server.call_with("GET", "/", &bearer(secret), b"");
        (answer.status(), answer.header("x-kip-error").unwrap_or_default().to_owned())
    };
    let good = (200, String::new());
    let first = server.make_key(&["k", "--expires", "1h"]);
    let rotated = server.kip(&["key", "rotate", "k", "--overlap", "1h"]).ok();
    let second = rotated.stdout.trim_end().to_owned();
    assert!(rotated.stderr.contains("the earlier secret is taken until"), "{rotated:?}");
    assert_eq!((status(&server, &first), status(&server, &second)), (good.clone(), good.clone()));
    let third = server.ask(&["key", "rotate", "k"])["secret"].as_str().unwrap().to_owned();
    assert_eq!(status(&server, &second), (401, "KW-7002".to_owned()));
    server.kip(&["key", "disable", "k"]).ok();
    assert_eq!(status(&server, &third), (401, "KW-7011".to_owned()));
    server.start_over();
    assert_eq!(status(&server, &third), (401, "KW-7011".to_owned()), "over a restart too");
    server.kip(&["key", "enable", "k"]).ok();
    assert_eq!(status(&server, &third), good);
    let used = server.ask(&["key", "show", "k"])["last_use"].as_i64();
    server.start_over();
    let kept = server.ask(&["key", "show", "k"])["last_use"].as_i64();
    assert!(used.is_some() && kept >= used, "the last use is written down at the end: {used:?} {kept:?}");
    server.kip(&["key", "set", "k", "--expires", "50ms"]).ok();
    until_true("it runs out", || status(&server, &third) == (401, "KW-7010".to_owned()));
    assert_eq!(server.ask(&["key", "show", "k"])["state"], "expired");
    server.kip(&["key", "rm", "k"]).ok();
    assert_eq!(status(&server, &third), (401, "KW-7002".to_owned()));

    // The command line goes on finding the administrator key when that is rotated.
    let earlier = server.key.clone();
    server.kip(&["key", "rotate", "admin"]).ok();
    server.kip(&["ls"]).ok();
    server.kip(&["ls", "--key", &earlier]).failed(&["KW-7002"]);
    server.start_over();
    assert_eq!(server.with_key("GET", "/api/v1/keys", &server.key).json().as_array().unwrap().len(), 1);
}

impl Server {
    fn start_over(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        self.wait();
        self.start_again();
    }
}

#[test]
fn what_is_wrong_with_a_key_is_said() {
    let server = Server::start();
    for (arguments, parts) in [
        (["key", "create", "x", "--role", "root"].as_slice(), ["KW-7017", "`root` is not a role", "invoke, operate"]),
        (&["key", "create", "x", "--rate", "10"], ["KW-7017", "`10` is not a rate", "10/s"]),
        (&["key", "create", "x", "--rate", "0/s"], ["KW-7017", "let nothing through", "try:"]),
        (&["key", "create", "x", "--burst", "3"], ["KW-7017", "without a rate", "--rate 10/s"]),
        (&["key", "create", "x", "--concurrency", "-1"], ["error", "", ""]),
        (&["key", "create", "x", "--concurrency", "many"], ["KW-7017", "`many` is not a number", "none"]),
        (&["key", "create", "x", "--expires", "soon"], ["KW-7017", "`soon`", "30d"]),
        (&["key", "create", "x", "--expires", "2020-01-01T00:00:00Z"], ["KW-7017", "expired already", "30d"]),
        (&["key", "create", "x", "--functions", "f*"], ["KW-7017", "`f*`", "no patterns"]),
        (&["key", "create", "x", "--role", "admin", "--functions", "f"], ["KW-7017", "administrator", "deploy"]),
        (&["key", "create", "x y"], ["KW-7017", "`x y`", "letters"]),
        (&["key", "create", "admin"], ["KW-7015", "`admin`", "kip key rotate admin"]),
        (&["key", "set", "admin"], ["KW-7017", "nothing to change", "--help"]),
        (&["key", "show", "nobody"], ["KW-7014", "`nobody`", "kip key ls"]),
        (&["key", "rotate", "nobody"], ["KW-7014", "`nobody`", "kip key ls"]),
        (&["key", "rotate", "admin", "--overlap", "1"], ["KW-7017", "no unit", "1h"]),
        (&["key", "rm", "admin"], ["KW-7016", "last usable administrator", "kip key create"]),
        (&["key", "disable", "admin"], ["KW-7016", "last usable administrator", "kip key create"]),
        (&["key", "set", "admin", "--role", "deploy"], ["KW-7016", "last usable administrator", "kip key create"]),
    ] {
        let ran = server.kip(arguments);
        if arguments.contains(&"-1") {
            assert_eq!(ran.code, Some(2), "{ran:?}");
        } else {
            ran.failed(&parts);
        }
    }
    assert_eq!(server.ask(&["key", "ls"]).as_array().unwrap().len(), 1);
    let warned = server.kip(&["key", "create", "x", "--functions", "digits"]).ok();
    assert!(warned.stderr.contains("KW-7018") && warned.stderr.contains("`digits`"), "{warned:?}");
    let unknown = server.with_key("POST", "/api/v1/keys", &server.key);
    assert_eq!(code(&unknown), "KW-7003");
}

#[test]
fn every_change_is_in_the_audit_record() {
    let mut server = Server::start();
    let other = server.make_key(&["ci", "--role", "deploy"]);
    let yaml = server.folder().join("kip.yaml");
    std::fs::write(&yaml, manifest(&[function("f", &[], ""), function("g", &[], "")])).unwrap();
    server.kip(&["deploy", yaml.to_str().unwrap(), "--key", &other]).ok();
    server.kip(&["rotate", "f", "--key", &other]).ok();
    server.kip(&["rm", "g", "--key", &other]).ok();
    assert_eq!(server.kip(&["rm", "g", "--key", &other]).code, Some(1));
    assert_eq!(server.kip(&["key", "ls", "--key", &other]).code, Some(1));
    for _ in 0..5 {
        assert_eq!(server.kip(&["key", "rm", "admin", "--key", &other]).code, Some(1));
    }
    server.kip(&["backup", "one.backup"]).ok();
    let by_ci = server.audit(&["--by", "ci"]);
    assert_eq!(
        field(&by_ci, "action"),
        ["key.remove", "function.remove", "function.remove", "function.rotate", "function.deploy"]
    );
    assert_eq!(field(&by_ci, "object"), ["admin", "g", "g", "f", "f,g"]);
    assert_eq!(field(&by_ci, "result"), ["KW-7008", "KW-3001", "done", "done", "done"]);
    assert!(by_ci.iter().all(|record| record["peer"] == "127.0.0.1" && record["key_id"] == 2));
    assert_eq!(field(&server.audit(&["--action", "key"]), "object"), ["admin", "ci"]);
    assert_eq!(field(&server.audit(&["--object", "g"]), "key"), ["ci", "ci"]);
    let backup = &server.audit(&["--action", "server.backup", "--since", "1h"])[0];
    assert!(backup["object"].as_str().unwrap().ends_with("/one.backup") && backup["key"] == "admin", "{backup}");
    assert!(server.kip(&["audit", "-n", "1"]).ok().stdout.contains("one.backup"));
    server.kip(&["stop"]).ok();
    server.wait();
    server.start_again();
    let stop = until("the stop is in the record", || server.audit(&["--action", "server.stop"]).first().cloned());
    assert_eq!(stop["result"], "done");
}

/// Who may only call functions can do so by the command line too, and `kip invoke` brings its key along.
#[test]
fn a_key_that_may_only_call_is_enough_for_invoke() {
    let server = Server::start();
    server.deploy_subject(&[], "trigger: {http: {auth: key}}");
    let secret = server.make_key(&["caller", "--role", "invoke"]);
    let called = server.kip(&["--key", &secret, "invoke", "f", "/pid"]).ok();
    assert!(called.stdout.parse::<u32>().is_ok(), "{called:?}");
    server.kip(&["--key", &secret, "ls"]).failed(&["KW-7008"]);
    let record = server.until_record("the call is recorded", |record| record["path"] == "/pid");
    assert_eq!(record["key"], "caller", "{record}");
}

/// `kip up` finds its server by itself, but deploys with the key it was given.
#[test]
fn up_uses_the_key_that_is_given() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    let caller = server.make_key(&["caller", "--role", "invoke"]);
    for (key, code) in [("kw_bogus", "KW-7002"), (caller.as_str(), "KW-7008")] {
        let ran = server.kip(&["--key", key, "up", ".", "--no-follow"]);
        assert!(ran.code == Some(1) && ran.stderr.contains(code), "{ran:?}");
    }
}

/// Lists and hints of the gateway name what a caller may call, and nothing else.
#[test]
fn the_gateway_names_only_what_its_caller_may_call() {
    let server = Server::start();
    let locked = "trigger: {http: {auth: key}}";
    server.deploy(&manifest(&[
        function("open", &[], ""),
        function("secret", &[], locked),
        function("hidden", &[], locked),
    ]));
    let secret = server.make_key(&["one", "--role", "invoke", "--functions", "secret"]);
    let listed = |headers: &str| {
        let all = call(server.gateway, "GET", "/v1/models", headers, b"").json();
        let index = call(server.gateway, "POST", "/v2/repository/index", headers, b"").json();
        let names = |list: &serde_json::Value, field: &str| -> Vec<String> {
            list.as_array().unwrap().iter().map(|one| one[field].as_str().unwrap().to_owned()).collect()
        };
        let models = names(&all["data"], "id");
        assert_eq!(models, names(&index, "name"));
        models
    };
    assert_eq!(listed(""), ["open"]);
    assert_eq!(listed(&bearer(&secret)), ["secret"]);
    assert_eq!(listed(&bearer(&server.key)), ["hidden", "open", "secret"]);
    let unknown = |headers: &str| call(server.gateway, "GET", "/f/hiddem/", headers, b"").said();
    assert!(!unknown("").contains("hidden") && unknown(&bearer(&server.key)).contains("did you mean `hidden`"));
}
