//! Every door asks who may: all paths of the API as its document lists them, with every field of their queries, and all doors of the
//! gateway, crossed with kinds of keys. Nothing foreign may be told or changed, and a foreign name must be answered as one that is not
//! there. A path that is added to the route table is tried here without a word about it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::http::Answer;
use crate::support::{Server, call, function, manifest, until, until_true};

/// What belongs to a function that the keys under test are not for: each name and each text of it has this word in it.
const FOREIGN: &str = "zebra";
/// What belongs to another tenant, of a function that they are for.
const OTHER_TENANT: &str = "okapi";
/// A word that nothing has.
const NOBODY: &str = "hyena";
/// Methods that only show something.
const SHOWING: &str = "get";

/// A server with two functions, two tenants, and something of everything.
pub(crate) struct Zoo {
    pub(crate) server: Server,
    /// The API that is asked.
    pub(crate) api: SocketAddr,
    /// Names that only the server gives: instances and tasks of what is foreign.
    foreign: Vec<String>,
    own_instance: String,
}

/// A key of tenant `red`, by its role and the functions that it is for.
pub(crate) struct Visitor {
    name: String,
    secret: String,
}

impl Visitor {
    fn header(&self) -> String {
        format!("authorization: Bearer {}\r\n", self.secret)
    }
}

/// A request that names something foreign where `@` is.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) body: String,
    /// What `@` stands for: something that exists, and something like it that does not.
    pub(crate) names: Option<(String, String)>,
}

impl Probe {
    fn with(&self, name: &str) -> (String, String) {
        (self.target.replace('@', name), self.body.replace('@', name))
    }
}

impl Zoo {
    pub(crate) fn open() -> Self {
        let server = Server::with("[records]\ncount = 100000");
        let ledger = server.folder().join("ledger");
        let env = |more: &str| format!("env: {{LEDGER: {}{more}}}\n", ledger.display());
        let foreign = env(", GREETING: zebra-greeting, API_TOKEN: zebra-token");
        let functions = [
            function("mine", &[], &env("")),
            function("zebrafn", &[], &format!("{foreign}trigger: {{http: {{auth: key}}}}")),
        ];
        let jobs = "jobs:\n  zebrajob:\n    run: [\"true\"]\n    schedule: \"0 0 1 1 *\"\n";
        server.deploy(&(manifest(&functions) + jobs));
        let api = server.api;
        let mut zoo = Self { server, api, foreign: Vec::new(), own_instance: String::new() };
        let zebra = zoo.key("zebrakey", &["--tenant", "zebratenant", "--functions", "zebrafn"]);
        let okapi = zoo.key("okapikey", &["--tenant", "okapitenant", "--functions", "mine"]);
        for (key, name, word) in [(&zebra, "zebrafn", FOREIGN), (&okapi, "mine", OTHER_TENANT)] {
            let target = format!("/f/{name}/echo?{word}=1");
            let headers = format!("{}x-request-id: {word}-request\r\n", key.header());
            assert_eq!(call(zoo.server.gateway, "GET", &target, &headers, b"").status(), 200);
            for chosen in [true, false] {
                let id = if chosen { format!("x-fc-async-task-id: {word}-task\r\n") } else { String::new() };
                let headers = format!("{}{id}x-fc-invocation-type: Async\r\n", key.header());
                let target = format!("/f/{name}/task");
                let script = format!("answer {word}-result");
                let answer = call(zoo.server.gateway, "POST", &target, &headers, script.as_bytes());
                assert_eq!(answer.status(), 202, "{answer:?}");
                zoo.foreign.push(answer.header("x-fc-async-task-id").unwrap().to_owned());
            }
            let tasks = format!("/api/v1/functions/{name}/tasks");
            until_true("its tasks are over", || {
                let all = zoo.server.api_get(&tasks).json();
                all["tasks"].as_array().unwrap().iter().filter(|task| task["status"] == "Succeeded").count() == 2
            });
        }
        let config =
            json!({"destinationConfig": {"onFailure": {"destination": "http://zebra.test/", "secret": "zebra-hook"}}});
        zoo.admin("PUT", "/api/v1/functions/zebrafn/async-invoke-config", &config.to_string());
        let instances = zoo.server.instances();
        let of = |name: &str| {
            let found = instances.iter().find(|instance| instance["function"] == name).unwrap();
            found["id"].as_str().unwrap().to_owned()
        };
        zoo.foreign.push(of("zebrafn"));
        zoo.own_instance = of("mine");
        zoo
    }

    fn key(&self, name: &str, arguments: &[&str]) -> Visitor {
        let made = self.server.kip(&[&["key", "create", name], arguments].concat()).ok();
        Visitor { name: name.to_owned(), secret: made.stdout.trim_end().to_owned() }
    }

    pub(crate) fn visitors(&self) -> Vec<Visitor> {
        let of = |role: &str, functions: &str| {
            let name = format!("red-{role}-{functions}");
            self.key(&name, &["--tenant", "red", "--role", role, "--functions", functions])
        };
        vec![
            of("invoke", "mine"),
            of("operate", "mine"),
            of("deploy", "mine"),
            of("operate", "none"),
            of("deploy", "none"),
        ]
    }

    fn admin(&self, method: &str, path: &str, body: &str) -> Answer {
        let headers = format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", self.server.key);
        call(self.server.api, method, path, &headers, body.as_bytes())
    }

    /// Every way to ask that the document of the API knows.
    pub(crate) fn probes(&self) -> Vec<Probe> {
        let key = format!("authorization: Bearer {}\r\n", self.server.key);
        let document = call(self.api, "GET", "/api/v1/openapi.json", &key, b"").json();
        let mut probes = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                // The server is to live on.
                if path == "/api/v1/stop" {
                    continue;
                }
                let fields: Vec<&str> = operation["parameters"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|field| field["in"] == "query" && field["name"] != "follow")
                    .map(|field| field["name"].as_str().unwrap())
                    .collect();
                let mut add = |target: String, names: Option<(&str, &str)>, body: String| {
                    let names = names.map(|(there, not)| (there.to_owned(), not.to_owned()));
                    probes.push(Probe { method: method.to_uppercase(), target, body, names });
                };
                for (target, names) in self.targets(path) {
                    let bodies: Vec<String> = if method == SHOWING { vec![String::new()] } else { bodies() };
                    let touches_own = method != SHOWING && names.is_none() && path.contains("{name}");
                    for body in bodies {
                        // What is the caller's own may be changed, so only what names something foreign is tried there, and a payload
                        // names nothing.
                        if touches_own && (method == "delete" || path.ends_with("/tasks") || !body.contains('@')) {
                            continue;
                        }
                        let named = names.or_else(|| body.contains('@').then_some(("zebrafn", "hyenafn")));
                        add(target.clone(), named, body.clone());
                    }
                    if method != SHOWING || names.is_some() {
                        continue;
                    }
                    for field in &fields {
                        add(format!("{target}?{field}=true"), None, String::new());
                        add(format!("{target}?{field}=1"), None, String::new());
                        for (there, not) in self.words() {
                            add(format!("{target}?{field}=@"), Some((&there, &not)), String::new());
                        }
                    }
                }
            }
        }
        probes
    }

    /// A path with everything that can stand in it.
    fn targets(&self, path: &str) -> Vec<(String, Option<(&'static str, &'static str)>)> {
        let fill = |name: &str, id: &str| path.replacen("{name}", name, 1).replace("{id}", id).replace("{number}", "1");
        let fill = |name: &str, id: &str| fill(name, id).replace("{epoch}", "1").replace("{token}", "x");
        let ids: Vec<String> =
            [self.own_instance.clone(), "1".to_owned()].into_iter().chain(self.foreign.clone()).collect();
        let mut targets = BTreeSet::new();
        for id in &ids {
            targets.insert((fill("mine", id), None));
            if path.contains("{name}") && !path.contains("/keys/") {
                targets.insert((fill("@", id), Some(("zebrafn", "hyenafn"))));
                targets.insert((fill("@", id), Some(("zebrajob", "hyenajob"))));
            }
        }
        targets.into_iter().collect()
    }

    /// Foreign words for the fields of a query, each with one like it that nothing has.
    pub(crate) fn words(&self) -> Vec<(String, String)> {
        let pairs = ["fn", "key", "tenant", "-task", "-request"]
            .map(|end| (format!("{FOREIGN}{end}"), format!("{NOBODY}{end}")));
        let tenant = ["key", "tenant", "-task", "-request"]
            .map(|end| (format!("{OTHER_TENANT}{end}"), format!("{NOBODY}{end}")));
        let given = self.foreign.iter().filter(|id| !id.contains('-') || id.starts_with("i-"));
        let given =
            given.map(|id| (id.clone(), if id.starts_with('t') { "t0".to_owned() } else { "i-9-9-9".to_owned() }));
        pairs.into_iter().chain(tenant).chain(given).collect()
    }

    /// All names that a probe can have in it, the longest first.
    fn tokens(&self) -> Vec<String> {
        let words = self.words().into_iter().flat_map(|(there, not)| [there, not]);
        let more = ["zebrajob", "hyenajob", "okapi-task", "zebra-task"].map(str::to_owned);
        let mut all: Vec<String> = words.chain(more).chain(self.foreign.clone()).collect();
        all.sort_by_key(|token| std::cmp::Reverse(token.len()));
        all
    }

    /// Asks, and compares what is answered for something foreign and for something that is not there.
    fn ask(&self, visitor: &Visitor, probe: &Probe, faults: &mut Vec<String>) {
        let headers = format!("{}content-type: application/json\r\n", visitor.header());
        let ask = |(target, body): (String, String)| call(self.api, &probe.method, &target, &headers, body.as_bytes());
        let (there, not) = probe.names.clone().unwrap_or_default();
        let (target, body) = probe.with(&there);
        let answer = ask((target.clone(), body.clone()));
        // What the caller named itself is nothing that it is told.
        let named = self.tokens().into_iter().filter(|token| target.contains(token) || body.contains(token));
        let told = named.fold(answer.text(), |text, token| text.replace(&token, ""));
        for word in [FOREIGN, OTHER_TENANT] {
            if told.contains(word) {
                faults.push(format!("{} is told of `{word}` by {probe:?}: {answer:?}", visitor.name));
            }
        }
        if probe.names.is_some() {
            let other = ask(probe.with(&not));
            let plain = |text: String| self.tokens().into_iter().fold(text, |text, token| text.replace(&token, "@"));
            let outcome = |answer: &Answer| (answer.status(), code(answer), plain(answer.text()).len());
            if outcome(&answer) != outcome(&other) {
                faults.push(format!("{} can tell by {probe:?}: {answer:?} and {other:?}", visitor.name));
            }
        }
    }

    /// What is wrong with the answers to these, for all visitors.
    pub(crate) fn faults(&self, visitors: &[Visitor], probes: &[Probe]) -> Vec<String> {
        let mut faults = Vec::new();
        for visitor in visitors {
            probes.iter().for_each(|probe| self.ask(visitor, probe, &mut faults));
        }
        faults
    }

    /// Everything that nobody but its owner may change.
    pub(crate) fn state(&self) -> Value {
        let of = |path: &str| self.admin("GET", path, "").json();
        let tasks = |name: &str| {
            let all = of(&format!("/api/v1/functions/{name}/tasks?limit=1000"));
            let foreign = all["tasks"].as_array().unwrap().iter().filter(|task| task["tenant"] != "red");
            foreign.map(|task| (task["taskId"].clone(), task["status"].clone())).collect::<Vec<_>>()
        };
        json!([
            of("/api/v1/functions/zebrafn/versions"),
            of("/api/v1/functions/zebrajob/versions"),
            of("/api/v1/functions/zebrafn/async-invoke-config"),
            of("/api/v1/functions/zebrajob/job")["schedule"]["paused"],
            of("/api/v1/provisions"),
            of("/api/v1/keys").as_array().unwrap().iter().map(|key| key["name"].clone()).collect::<Vec<_>>(),
            tasks("zebrafn"),
            tasks("zebrajob"),
            tasks("mine"),
        ])
    }
}

fn code(answer: &Answer) -> String {
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    // The second is the form of Function Compute.
    json["error"]["code"].as_str().or_else(|| json["Code"].as_str()).unwrap_or_default().to_owned()
}

/// Bodies that name something foreign, and one that names nothing.
fn bodies() -> Vec<String> {
    let manifest = "api: kip/v1\nfunctions:\n  @:\n    run: [\"true\"]\n";
    vec![
        "{}".to_owned(),
        json!({"function": "@"}).to_string(),
        json!({"tenant": "zebratenant"}).to_string(),
        json!({"destinationConfig": {"onSuccess": {"destination": "function:@"}}}).to_string(),
        json!({"file": "kip.yaml", "text": manifest, "directory": "/tmp"}).to_string(),
        json!({"file": "kip.yaml", "text": manifest, "directory": "/tmp", "only": ["@"]}).to_string(),
    ]
}

#[test]
fn no_path_with_any_field_tells_or_changes_what_is_foreign() {
    let zoo = Zoo::open();
    let visitors = zoo.visitors();
    let (probes, before) = (zoo.probes(), zoo.state());
    assert!(probes.len() > 500, "{}", probes.len());
    let faults = zoo.faults(&visitors, &probes);
    assert!(faults.is_empty(), "{} faults, of which:\n{}", faults.len(), faults[..faults.len().min(12)].join("\n"));
    assert_eq!(zoo.state(), before);
}

/// One request to the gateway by whatever host name it says.
fn knock(zoo: &Zoo, method: &str, (host, target): (&str, &str), headers: &str, body: &str) -> Answer {
    let mut caller = zoo.server.connect();
    let length = body.len();
    caller.write(format!(
        "{method} {target} HTTP/1.1\r\nhost: {host}\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    ));
    caller.answer(method)
}

#[test]
fn no_door_of_the_gateway_tells_a_foreign_function_from_one_that_is_not_there() {
    let zoo = Zoo::open();
    let mut callers: Vec<(String, String)> =
        zoo.visitors().iter().map(|visitor| (visitor.name.clone(), visitor.header())).collect();
    callers.push(("nobody".to_owned(), String::new()));
    callers.push(("a wrong key".to_owned(), format!("authorization: Bearer kw_{}\r\n", "0".repeat(64))));
    callers.push(("a key of somebody else".to_owned(), "authorization: Bearer sk-1\r\n".to_owned()));
    let doors = [
        ("gateway", "/f/@/x", ""),
        ("gateway", "/f/@", ""),
        ("@.localhost", "/x", ""),
        ("gateway", "/v1/chat/completions", "{\"model\": \"@\"}"),
        ("gateway", "/v1/models/@", ""),
        ("gateway", "/v2/models/@/infer", "{}"),
        ("gateway", "/v2/models/@/ready", ""),
    ];
    let preflight = "origin: http://localhost:3000\r\naccess-control-request-method: POST\r\n";
    let ways = [
        ("GET", ""),
        ("POST", ""),
        ("PUT", "x-fc-invocation-type: Async\r\n"),
        ("OPTIONS", preflight),
        ("POST", "origin: https://evil.example\r\n"),
    ];
    for (who, key) in &callers {
        for (host, target, body) in doors {
            for (method, headers) in ways {
                let ask = |name: &str| {
                    let at = (host.replace('@', name), target.replace('@', name));
                    let answer =
                        knock(&zoo, method, (&at.0, &at.1), &format!("{key}{headers}"), &body.replace('@', name));
                    let headers: BTreeSet<String> = answer.head.headers.iter().map(|(name, _)| name.clone()).collect();
                    (answer.status(), code(&answer), headers, answer.text().replace(name, "@").len())
                };
                let (foreign, unknown) = (ask("zebrafn"), ask("hyenafn"));
                assert_eq!(foreign, unknown, "{who}: {method} {host} {target} {headers:?}");
                assert!(foreign.0 >= 300 || method == "OPTIONS", "{who}: {method} {host} {target} {foreign:?}");
            }
        }
        for list in ["/v1/models", "/v2/repository/index", "/v1/model", "/f/zebr/", "/f/zebrafnn/"] {
            let answer = knock(&zoo, "GET", ("gateway", list), key, "");
            assert!(!answer.text().replace("zebrafnn", "").contains("zebrafn"), "{who}: {list}: {answer:?}");
        }
    }
    let own = zoo.key("all", &[]);
    assert_eq!(knock(&zoo, "GET", ("gateway", "/f/zebrafn/x"), &own.header(), "").status(), 200, "it is there");
    assert_eq!(knock(&zoo, "GET", ("gateway", "/f/hyenafn/x"), &own.header(), "").status(), 404);
}

#[test]
fn a_key_has_one_rate_at_all_doors() {
    let zoo = Zoo::open();
    let slow = zoo.key("slow", &["--functions", "mine", "--rate", "1/h", "--burst", "3", "--role", "operate"]);
    let headers = slow.header();
    let at_gateway = |more: &str| call(zoo.server.gateway, "POST", "/f/mine/echo", &format!("{headers}{more}"), b"");
    let api = |method: &str, path: &str| {
        call(zoo.server.api, method, &format!("/api/v1/functions/mine{path}"), &headers, b"")
    };
    assert_eq!(at_gateway("").status(), 200);
    assert_eq!(at_gateway("x-fc-invocation-type: Async\r\n").status(), 202);
    let taken = api("POST", "/tasks");
    assert_eq!(taken.status(), 202, "{taken:?}");
    let task = taken.json()["taskId"].as_str().unwrap().to_owned();
    for refused in [
        at_gateway(""),
        at_gateway("x-fc-invocation-type: Async\r\n"),
        api("POST", "/tasks"),
        api("POST", &format!("/tasks/{task}/retry")),
    ] {
        assert_eq!((refused.status(), code(&refused).as_str()), (429, "KW-7012"), "{refused:?}");
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
    }
    // What became of its work it may ask at any time.
    until("its task is over", || (api("GET", &format!("/tasks/{task}/result")).status() == 200).then_some(()));
    let refusals = zoo.server.api_get("/metrics").text();
    let line = refusals.lines().find(|line| line.contains("key=\"slow\"") && line.contains("rate"));
    assert!(line.is_some_and(|line| line.ends_with(" 4")), "{line:?}");
}

/// The calls that a key may have in flight are counted at the gateway and at the API's path of tasks alike.
#[test]
fn a_key_has_one_number_of_calls_in_flight_at_all_doors() {
    let zoo = Zoo::open();
    let narrow = zoo.key("narrow", &["--functions", "mine", "--concurrency", "1", "--role", "operate"]);
    let submit = || call(zoo.server.api, "POST", "/api/v1/functions/mine/tasks", &narrow.header(), b"answer x");
    assert_eq!(submit().status(), 202);
    let mut busy = crate::http::Caller::connect(zoo.server.gateway);
    busy.send("GET", "/f/mine/hang", &narrow.header());
    until_true("its place is taken", || zoo.server.api_get("/api/v1/functions/mine").json()["in_flight"] == 1);
    let refused = submit();
    assert_eq!((refused.status(), code(&refused).as_str()), (429, "KW-7013"), "{refused:?}");
    drop(busy);
    until_true("its place is free again", || submit().status() == 202);
}

#[test]
fn tasks_without_a_key_are_only_where_the_function_says_so() {
    let server = Server::start();
    let open = function("open", &[], "trigger: {http: {tasks: anonymous}}");
    server.deploy(&format!("api: kip/v1\nfunctions:\n{}{open}", function("usual", &[], "")));
    let key = server.kip(&["key", "create", "ann", "--role", "invoke"]).ok().stdout;
    let key = format!("authorization: Bearer {}\r\n", key.trim_end());
    let ask =
        |name: &str, headers: &str| call(server.gateway, "POST", &format!("/f/{name}/task"), headers, b"answer x");
    let submit = "x-fc-invocation-type: Async\r\n";
    for (name, headers, status) in [
        ("usual", String::new(), 200),
        ("usual", submit.to_owned(), 401),
        ("usual", format!("{submit}authorization: Bearer not-ours\r\n"), 401),
        ("usual", format!("{submit}authorization: Bearer kw_{:064x}\r\n", 7), 401),
        ("usual", format!("{submit}{key}"), 202),
        ("open", submit.to_owned(), 202),
        ("open", format!("{submit}{key}"), 202),
    ] {
        let answer = ask(name, &headers);
        assert_eq!(answer.status(), status, "{name} with {headers:?}: {answer:?}");
    }
    let told = ask("usual", submit).said();
    assert!(told.contains("tasks of `usual` need a key") && told.contains("tasks: anonymous"), "{told}");
    let both = function("f", &[], "trigger: {http: {auth: key, tasks: anonymous}}");
    let both = format!("api: kip/v1\nfunctions:\n{both}");
    server.try_deploy(&both).failed(&["tasks", "auth: anonymous"]);
}

#[test]
fn a_payload_is_shown_to_operators_only() {
    let zoo = Zoo::open();
    let invoke = zoo.key("caller", &["--functions", "mine"]);
    let task = call(zoo.server.api, "POST", "/api/v1/functions/mine/tasks", &invoke.header(), b"own payload");
    let id = task.json()["taskId"].as_str().unwrap().to_owned();
    let show = |key: &Visitor, query: &str| {
        call(zoo.server.api, "GET", &format!("/api/v1/functions/mine/tasks/{id}{query}"), &key.header(), b"")
    };
    let operate = zoo.key("operator", &["--functions", "mine", "--role", "operate"]);
    for query in ["?includePayload=true", "?includePayload=1", "?wait=0&includePayload=true", "?include%50ayload=true"]
    {
        let refused = show(&invoke, query);
        assert_eq!((refused.status(), code(&refused).as_str()), (403, "KW-7008"), "{query}: {refused:?}");
    }
    for query in ["", "?includePayload=false"] {
        let shown = show(&invoke, query);
        assert!(shown.status() == 200 && !shown.text().contains("own payload"), "{shown:?}");
    }
    assert!(show(&operate, "?includePayload=true").text().contains("own payload"));
}

#[test]
fn an_empty_list_of_functions_is_none() {
    let zoo = Zoo::open();
    let ids: Vec<Visitor> = ["", "none"]
        .iter()
        .enumerate()
        .map(|(at, list)| zoo.key(&format!("none{at}"), &["--functions", list, "--role", "operate"]))
        .collect();
    for key in &ids {
        assert_eq!(call(zoo.server.api, "GET", "/api/v1/functions", &key.header(), b"").text(), "[]");
        assert_eq!(call(zoo.server.api, "GET", "/api/v1/requests", &key.header(), b"").text(), "[]");
        let refused = call(zoo.server.api, "POST", "/api/v1/functions/mine/tasks", &key.header(), b"");
        assert_eq!((refused.status(), code(&refused).as_str()), (403, "KW-7009"));
    }
    // Over a restart too, and `null` takes the list away.
    let mut zoo = zoo;
    zoo.server.terminate();
    zoo.server.start_again();
    let names = |zoo: &Zoo| {
        call(zoo.server.api, "GET", "/api/v1/functions", &ids[0].header(), b"").json().as_array().unwrap().len()
    };
    assert_eq!(names(&zoo), 0);
    assert_eq!(zoo.admin("PATCH", "/api/v1/keys/none0", r#"{"functions": null}"#).status(), 200);
    assert_eq!(names(&zoo), 3);
    assert_eq!(zoo.admin("PATCH", "/api/v1/keys/none0", r#"{"functions": []}"#).status(), 200);
    assert_eq!(names(&zoo), 0);
}

#[test]
fn accepted_tasks_of_a_removed_key_run() {
    let zoo = Zoo::open();
    let key = zoo.key("leaving", &["--functions", "mine"]);
    let headers = format!(
        "{}x-fc-invocation-type: Async\r\nx-kip-task-delay: 500ms\r\nx-fc-async-task-id: late\r\n",
        key.header()
    );
    assert_eq!(call(zoo.server.gateway, "POST", "/f/mine/task", &headers, b"answer done").status(), 202);
    assert_eq!(zoo.admin("DELETE", "/api/v1/keys/leaving", "").status(), 200);
    assert_eq!(call(zoo.server.gateway, "POST", "/f/zebrafn/task", &key.header(), b"").status(), 401);
    until_true("its task has run", || {
        zoo.server.api_get("/api/v1/functions/mine/tasks/late").json()["status"] == "Succeeded"
    });
}
