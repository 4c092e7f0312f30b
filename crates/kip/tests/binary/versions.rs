//! Versions and aliases: what a user holds, how they are called, and what becomes of callers while they move.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::http::Answer;
use crate::support::{Server, apart, call, function, manifest, until_true};

/// A declaration of `f` whose instances know which release they are.
fn release(number: u32, settings: &str) -> String {
    manifest(&[function("f", &[], &format!("env: {{RELEASE: \"{number}\"}}\n{settings}"))])
}

/// Two published versions of `f`: 1 is release 1, 2 is release 2 and serves.
fn two_versions(settings: &str) -> Server {
    let server = Server::start();
    for number in 1..=2 {
        server.deploy(&release(number, settings));
        let published = server.ask(&["version", "publish", "f", "-m", &format!("release {number}")]);
        assert_eq!((&published["version"]["number"], &published["fresh"]), (&number.into(), &true.into()));
    }
    server
}

/// Calls `f` by a qualifier. Where it was answered, the header and the program say the same.
fn release_of(server: &Server, qualifier: &str) -> (u32, String) {
    let answer = call(server.gateway, "GET", &format!("/f/f{qualifier}/env"), "", b"");
    assert_eq!(answer.status(), 200, "{qualifier}: {answer:?}");
    (answer.json()["RELEASE"].as_str().unwrap().parse().unwrap(), answer.header("x-kip-version").unwrap().to_owned())
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status(), answer.code())
}

#[test]
fn a_version_is_published_shown_compared_and_removed() {
    let server = two_versions("");
    let again = server.kip(&["version", "publish", "f"]).ok();
    assert_eq!(again.stdout, "f r2 is version 2 already; nothing was changed\n");
    let list = server.ask(&["version", "ls", "f"]);
    let rows: Vec<(u64, &str, bool, &str)> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap();
            (row["ordinal"].as_u64().unwrap(), text("label"), row["serves"] == true, text("description"))
        })
        .collect();
    assert_eq!(rows, [(1, "1", false, "release 1"), (2, "2", true, "release 2")]);
    let diff = server.ask(&["version", "diff", "f", "1", "2"]);
    assert_eq!(diff["fields"], serde_json::json!([{"field": "env.RELEASE", "before": "1", "after": "2"}]));
    assert!(server.kip(&["version", "show", "f", "1"]).ok().stdout.contains("RELEASE: \"1\""));

    server.kip(&["alias", "set", "f", "prod", "1=50,r2=50"]).ok();
    server.kip(&["version", "rm", "f", "1"]).failed(&["KW-3021", "alias prod", "kip alias set f"]);
    server.kip(&["alias", "set", "f", "prod", "2"]).ok();
    assert_eq!(release_of(&server, "@1").0, 1);
    server.kip(&["version", "rm", "f", "1"]).ok();
    assert_eq!(code(&call(server.gateway, "GET", "/f/f@1/env", "", b"")), (404, "KW-3007".to_owned()));
    assert_eq!(release_of(&server, "@r1"), (1, "r1".to_owned()), "its revision is still there");
    let published = server.ask(&["version", "publish", "f", "--revision", "r1"]);
    assert_eq!(published["version"]["number"], 3, "a number is never given again");

    // The program's own version is still one word away.
    assert!(server.kip(&["version"]).ok().stdout.starts_with("kip "));
    let audit = server.ask(&["audit"]).to_string();
    for action in ["version.publish", "version.remove", "alias.put"] {
        assert!(audit.contains(action), "{action} is not in {audit}");
    }
}

#[test]
fn bad_input_is_refused_with_the_way_out() {
    let server = two_versions("");
    let set = |arguments: &[&str]| server.kip(&[&["alias", "set", "f"], arguments].concat());
    set(&["prod", "1=90,2=9"]).failed(&["KW-3023", "add up to 99 %", "must add up to 100"]);
    set(&["prod", "1=100,2=0.5"]).failed(&["KW-3023", "100.5 %"]);
    set(&["prod", "1=50,r1=50"]).failed(&["KW-3023", "twice"]);
    set(&["prod", "1=x"]).failed(&["KW-3023", "`x` is no share"]);
    set(&["prod", "other"]).failed(&["KW-3023", "an alias points at versions"]);
    set(&["prod", "7"]).failed(&["KW-3007", "`7`", "kip version ls f"]);
    set(&["prod", "r99"]).failed(&["KW-3007", "`r99`"]);
    for name in ["LATEST", "latest", "3", "r3", "v3", "a.b", "-x"] {
        let refused = server.kip(&["alias", "set", "f", "--", name, "1"]);
        refused.failed(&["KW-3023", name]);
    }
    set(&["prod", "1"]).ok();
    set(&["Prod", "1"]).failed(&["KW-3024", "f@prod"]);
    server.kip(&["alias", "rm", "f", "none"]).failed(&["KW-3022", "kip alias ls f"]);
    server.kip(&["version", "rm", "f", "9"]).failed(&["KW-3007"]);
    server.kip(&["version", "publish", "nobody"]).failed(&["KW-3001"]);

    // One label of a host name is one thing.
    let deploy = |name: &str| server.try_deploy(&manifest(&[function(name, &[], "")]));
    deploy("f--prod").failed(&["KW-3024", "f@prod"]);
    deploy("F--3").failed(&["KW-3024"]);
    deploy("f--canary").ok();
    set(&["canary", "1"]).failed(&["KW-3024", "f--canary"]);

    // Who read an older state is told.
    let rev = server.ask(&["alias", "show", "f", "prod"])["rev"].to_string();
    set(&["prod", "2", "--if-match", &rev]).ok();
    set(&["prod", "1", "--if-match", &rev]).failed(&["KW-8025"]);
    server.kip(&["alias", "rm", "f", "prod", "--if-match", &rev]).failed(&["KW-8025"]);
    assert_eq!(release_of(&server, "@prod").0, 2);
}

#[test]
fn every_way_of_calling_reaches_the_version_that_is_meant() {
    let server = two_versions("");
    server.kip(&["alias", "set", "f", "prod", "1"]).ok();
    for (qualifier, expected) in [
        ("", (2, "2")),
        ("@LATEST", (2, "2")),
        ("@1", (1, "1")),
        ("@r1", (1, "1")),
        ("@prod", (1, "1")),
        ("@PROD", (1, "1")),
        ("%40prod", (1, "1")),
        ("@2", (2, "2")),
    ] {
        assert_eq!(release_of(&server, qualifier), (expected.0, expected.1.to_owned()), "{qualifier}");
    }
    let by_host = |host: &str| {
        let mut caller = server.connect();
        caller.write(format!("GET /env HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"));
        caller.answer("GET")
    };
    assert_eq!(by_host("f--prod.localhost").json()["RELEASE"], "1");
    assert_eq!(by_host("F--2.localhost:5470").json()["RELEASE"], "2");
    assert_eq!(by_host("f--none.localhost").code(), "KW-3007");
    for unknown in ["@none", "@9", "@r9", "@v999", "@a.b"] {
        let answer = call(server.gateway, "GET", &format!("/f/f{unknown}/env"), "", b"");
        assert_eq!(code(&answer), (404, "KW-3007".to_owned()), "{unknown}");
    }
    assert_eq!(server.kip(&["invoke", "f@prod", "/env"]).ok().json()["RELEASE"], "1");
    let model =
        call(server.gateway, "POST", "/v1/echo", "content-type: application/json\r\n", br#"{"model": "f@prod"}"#);
    assert_eq!((model.status(), model.header("x-kip-version")), (200, Some("1")), "{model:?}");
    let kserve = call(server.gateway, "GET", "/v2/models/f@1/echo", "", b"");
    assert_eq!(kserve.header("x-kip-version"), Some("1"), "{kserve:?}");

    // The instance is told, and so is the record.
    let echo = call(server.gateway, "GET", "/f/f@prod/echo", "x-fc-qualifier: forged\r\n", b"").json();
    let headers = echo["headers"].to_string();
    assert!(
        headers.contains(r#"["x-fc-qualifier","prod"]"#) && headers.contains(r#"["x-fc-version-id","1"]"#),
        "{headers}"
    );
    let records = server.ask(&["requests", "f", "--qualifier", "prod", "-n", "1000"]);
    let records = records.as_array().unwrap();
    assert!(!records.is_empty() && records.iter().all(|record| record["label"] == "1"), "{records:?}");
    let of_two = server.ask(&["requests", "f", "--version", "2", "-n", "1000"]);
    let id = of_two[0]["version"].to_string();
    let early = server.ask(&["requests", "f", "--version", &format!("v{id}"), "-n", "1000"]);
    assert_eq!((of_two.as_array().unwrap().len() > 2, &of_two), (true, &early), "the earlier name finds the same");
}

#[test]
fn shares_are_exact_also_for_a_function_that_stops_between_requests() {
    let server = two_versions("idle: {pause: never, stop: 10ms}\ninstances: {max: 1}");
    server.kip(&["alias", "set", "f", "prod", "1=75,2=25", "-m", "try 2"]).ok();
    let mut counts = BTreeMap::new();
    for _ in 0..20 {
        *counts.entry(release_of(&server, "@prod").0).or_insert(0) += 1;
        server.until_no_instance();
    }
    assert_eq!(counts, [(1, 15), (2, 5)].into());
    let why = server.kip(&["why", "f", "-n", "1000"]).ok().stdout;
    assert!(why.contains("alias prod is 1 75 %, 2 25 %") && why.contains("try 2"), "{why}");
}

#[test]
fn traffic_without_a_qualifier_is_divided_as_the_manifest_says() {
    let server = two_versions("");
    server.kip(&["alias", "set", "f", "prod", "1"]).ok();
    server.try_deploy(&release(3, "traffic: {prod: 80, none: 20}")).failed(&["KW-3022"]);
    server.try_deploy(&release(3, "traffic: {prod: 80, LATEST: 10}")).failed(&["KW-1009", "90 %"]);
    server.deploy(&release(3, "traffic: {prod: 80, LATEST: 20}"));
    let count = |releases: usize| {
        let mut counts = BTreeMap::new();
        (0..releases).for_each(|_| *counts.entry(release_of(&server, "").0).or_insert(0) += 1);
        counts
    };
    assert_eq!(count(20), [(1, 16), (3, 4)].into());
    assert_eq!(release_of(&server, "@LATEST").0, 3);
    assert!(server.kip(&["inspect", "f"]).ok().stdout.contains("prod 80 %, LATEST 20 %"));
    // The traffic follows the alias.
    server.kip(&["alias", "set", "f", "prod", "2"]).ok();
    assert_eq!(count(20), [(2, 16), (3, 4)].into());
    server.kip(&["alias", "rm", "f", "prod"]).failed(&["KW-3021", "the function's traffic"]);
    server.deploy(&release(4, ""));
    assert_eq!(count(5), [(4, 5)].into());
}

#[test]
fn what_callers_can_name_and_its_instances_outlive_the_server() {
    let mut server = two_versions("idle: {pause: never}");
    server.kip(&["alias", "set", "f", "prod", "1"]).ok();
    let pid = |server: &Server| call(server.gateway, "GET", "/f/f@prod/pid", "", b"").text();
    let before = pid(&server);
    server.crash();
    server.start_again();
    assert_eq!(pid(&server), before, "its instance was adopted");
    assert_eq!(release_of(&server, "@1"), (1, "1".to_owned()));
    assert_eq!(release_of(&server, "@prod"), (1, "1".to_owned()));
    assert_eq!(server.ask(&["version", "publish", "f", "--revision", "r1"])["fresh"], false);
    let file = server.folder().join("copy.backup");
    server.kip(&["backup", &file.to_string_lossy()]).ok();
    server.kip(&["alias", "set", "f", "prod", "2"]).ok();
    server.kip(&["alias", "set", "f", "other", "2"]).ok();
    server.kip(&["restore", &file.to_string_lossy()]).ok();
    assert_eq!(release_of(&server, "@prod").0, 1);
    assert_eq!(call(server.gateway, "GET", "/f/f@other/env", "", b"").code(), "KW-3007");
}

#[test]
fn instances_are_provisioned_for_an_alias_and_move_with_it() {
    let server = two_versions("instances: {max: 5}\nidle: {pause: never}");
    server.kip(&["alias", "set", "f", "prod", "1=50,2=50"]).ok();
    server.kip(&["provision", "set", "f", "--qualifier", "prod", "--target", "4"]).ok();
    let kept = |server: &Server| {
        let mut counts = BTreeMap::new();
        for instance in server.instances().iter().filter(|instance| instance["state"] == "ready") {
            *counts.entry(instance["label"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
        counts
    };
    until_true("two of each", || kept(&server) == [("1".to_owned(), 2), ("2".to_owned(), 2)].into());
    server.kip(&["alias", "set", "f", "prod", "1=25,2=75"]).ok();
    until_true("one and three", || kept(&server) == [("1".to_owned(), 1), ("2".to_owned(), 3)].into());
    server.kip(&["alias", "rm", "f", "prod"]).failed(&["KW-3021", "provisioned instances of prod"]);
    let shown = server.ask(&["provision", "show", "f", "--qualifier", "prod"]);
    assert_eq!((&shown["qualifier"], &shown["target"]), (&"prod".into(), &4.into()));
    server.kip(&["provision", "rm", "f", "--qualifier", "prod"]).ok();
}

#[test]
fn a_deployment_is_planned_held_back_published_and_undone() {
    let server = two_versions("idle: {pause: never}");
    let write = |text: &str| std::fs::write(server.folder().join("kip.yaml"), text).unwrap();
    let kip = |arguments: &[&str]| server.kip(&[arguments, &["kip.yaml"]].concat()).ok();
    server.kip(&["rollback", "f", "prod"]).failed(&["KW-3022"]);
    server.kip(&["alias", "set", "f", "prod", "1"]).ok();
    server.kip(&["rollback", "f", "prod"]).failed(&["KW-3026"]);
    assert_eq!(release_of(&server, "").0, 2);

    // A plan changes nothing.
    write(&release(3, "idle: {pause: never}\ntraffic: {prod: 100}"));
    let plan = kip(&["plan"]).stdout;
    for part in
        ["f: the manifest differs from 2", "env.RELEASE: 2 → 3", "its instance of 2 ends", "LATEST → prod 100 %"]
    {
        assert!(plan.contains(part), "`{part}` is not said: {plan}");
    }
    assert_eq!(server.ask(&["version", "ls", "f"]).as_array().unwrap().len(), 2);

    // Without traffic a revision is there to be called, and nothing else changes.
    write(&release(3, "idle: {pause: never}"));
    kip(&["deploy", "--no-traffic"]);
    assert_eq!((release_of(&server, "").0, release_of(&server, "@r3")), (2, (3, "r3".to_owned())));
    let new = manifest(&[function("g", &[], "")]);
    write(&new);
    server.kip(&["deploy", "--no-traffic", "kip.yaml"]).failed(&["KW-3001", "`g`"]);

    // Published and pointed at when it serves.
    write(&release(4, "idle: {pause: never}"));
    let said = kip(&["deploy", "--publish", "--alias", "prod", "-m", "four"]);
    assert!(said.stderr.contains("f r4 is version 3") && said.stderr.contains("f@prod is 3"), "{said:?}");
    assert_eq!((release_of(&server, "").0, release_of(&server, "@prod")), (4, (4, "3".to_owned())));
    assert_eq!(server.ask(&["alias", "show", "f", "prod"])["description"], "four");

    // Back, for the alias and for the function, and forth again.
    assert_eq!(server.kip(&["rollback", "f", "prod"]).ok().stdout, "f@prod is 1 again\n");
    assert_eq!(release_of(&server, "@prod").0, 1);
    assert_eq!(server.kip(&["rollback", "f"]).ok().stdout, "f serves 2 again\n");
    assert_eq!(release_of(&server, "").0, 2);
    server.kip(&["rollback", "f"]).ok();
    assert_eq!(release_of(&server, "").0, 4);
    assert!(server.kip(&["why", "f", "-n", "1000"]).ok().stdout.contains("rolled back to 2"));

    // A revision that never starts is not published by mistake.
    server.try_deploy(&manifest(&[function("f", &["--exit-now"], "timeouts: {startup: 5s}")]));
    server.kip(&["version", "publish", "f"]).failed(&["KW-3025", "--revision 3"]);
    server.kip(&["rollback", "f"]).ok();
    assert_eq!(release_of(&server, "").0, 2, "what failed never served");
}

/// What callers saw: releases, and everything that must not be.
#[derive(Default)]
struct Ledger {
    answers: usize,
    releases: BTreeSet<u32>,
    wrong: Vec<String>,
}

#[test]
fn updates_and_moves_under_callers_fail_no_request_and_mix_no_versions() {
    const UPDATES: u32 = 50;
    const CALLERS: usize = 32;
    let server = Server::start();
    let settings = "instances: {max: 4, concurrency: 16}\nidle: {pause: never}\nqueue: {depth: 1000}";
    server.deploy(&release(1, settings));
    server.kip(&["alias", "set", "f", "prod", "LATEST"]).ok();
    let over = Arc::new(AtomicBool::new(false));
    let gateway = server.gateway;
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let over = over.clone();
            let path = if caller % 2 == 0 { "/f/f/env" } else { "/f/f@prod/env" };
            apart(move || {
                let mut ledger = Ledger::default();
                while !over.load(Ordering::SeqCst) {
                    let answer = match crate::http::try_call(gateway, path) {
                        Ok(answer) => answer,
                        Err(error) => {
                            ledger.wrong.push(error.to_string());
                            continue;
                        }
                    };
                    ledger.answers += 1;
                    let seen = serde_json::from_str::<Value>(&answer.text()).ok();
                    let release = seen.as_ref().and_then(|env| env["RELEASE"].as_str()?.parse::<u32>().ok());
                    let version = answer.header("x-kip-version").map(str::to_owned);
                    match release {
                        // Every release is a revision: the header and the program must mean the same one.
                        Some(release) if answer.status() == 200 && version == Some(format!("r{release}")) => {
                            ledger.releases.insert(release);
                        }
                        _ => ledger.wrong.push(format!("{version:?} {answer:?}")),
                    }
                }
                ledger
            })
        })
        .collect();
    for number in 2..=UPDATES {
        server.deploy(&release(number, settings));
        if number % 5 == 0 {
            let older = number - 1;
            server.kip(&["alias", "set", "f", "prod", &format!("r{older}=60,LATEST=40")]).ok();
            server.kip(&["alias", "set", "f", "prod", "LATEST"]).ok();
        }
    }
    // The last one too is seen by callers before they end.
    until_true("the last release answers", || release_of(&server, "").0 == UPDATES);
    over.store(true, Ordering::SeqCst);
    let mut all = Ledger::default();
    for caller in callers {
        let ledger = caller.join().unwrap();
        all.answers += ledger.answers;
        all.releases.extend(ledger.releases);
        all.wrong.extend(ledger.wrong);
    }
    assert!(all.wrong.is_empty(), "{} of {} answers: {:?}", all.wrong.len(), all.answers, &all.wrong[..1]);
    let expected: BTreeSet<u32> = (1..=UPDATES).collect();
    assert_eq!(all.releases, expected, "every release has answered, in {} answers", all.answers);
}

#[test]
fn callers_of_a_sticky_alias_stay_on_their_version() {
    let server = two_versions("instances: {max: 4}");
    server.kip(&["alias", "set", "f", "prod", "1=50,2=50", "--sticky", "header:X-User"]).ok();
    let version_of = |header: &str| {
        let answer = call(server.gateway, "GET", "/f/f@prod/env", header, b"");
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer.header("x-kip-version").unwrap().to_owned()
    };
    let of_users = || (0..40).map(|user| version_of(&format!("x-user: u{user}\r\n"))).collect::<Vec<_>>();
    let users = of_users();
    assert!(users.contains(&"1".to_owned()) && users.contains(&"2".to_owned()), "{users:?}");
    assert_eq!(of_users(), users, "each stays");
    let nobody: Vec<String> = (0..4).map(|_| version_of("")).collect();
    assert_eq!(nobody.iter().filter(|version| *version == "1").count(), 2, "others are drawn: {nobody:?}");
    // What is not said stays, and a growing share only takes.
    server.kip(&["alias", "set", "f", "prod", "1=20,2=80"]).ok();
    assert_eq!(server.ask(&["alias", "show", "f", "prod"])["sticky"], "header:x-user");
    let later = of_users();
    assert!(users.iter().zip(&later).all(|(before, after)| before == "1" || after == "2"), "{users:?} {later:?}");
    // Requests without a qualifier, where one alias gets them all.
    server.deploy(&release(2, "instances: {max: 4}\ntraffic: {prod: 100}"));
    let plain = |user: usize| {
        let header = format!("x-user: u{user}\r\n");
        call(server.gateway, "GET", "/f/f/env", &header, b"").header("x-kip-version").unwrap().to_owned()
    };
    assert_eq!((0..40).map(plain).collect::<Vec<_>>(), later);
    server.kip(&["alias", "set", "f", "prod", "1=50,2=50", "--sticky", "off"]).ok();
    assert!(server.ask(&["alias", "show", "f", "prod"])["sticky"].is_null());
    server.kip(&["alias", "set", "f", "prod", "1", "--sticky", "ip"]).failed(&["KW-3023", "header:NAME"]);
}

#[test]
fn instances_are_listed_by_version_and_alias() {
    let server = two_versions("instances: {max: 2}");
    server.kip(&["alias", "set", "f", "old", "1"]).ok();
    for qualifier in ["@1", "@2"] {
        release_of(&server, qualifier);
    }
    let labels = |which: &str| -> Vec<String> {
        let all = server.ask(&["ps", which]);
        all.as_array().unwrap().iter().map(|one| one["label"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((labels("f").len(), labels("f@1"), labels("f@r2")), (2, vec!["1".into()], vec!["2".into()]));
    assert_eq!((labels("f@old"), labels("f@LATEST")), (vec!["1".to_owned()], vec!["2".to_owned()]));
    server.kip(&["ps", "f@7"]).failed(&["KW-3007", "kip version ls f"]);
    server.kip(&["ps", "g"]).failed(&["KW-3001"]);
}

#[test]
fn logs_and_metrics_are_those_of_a_version_or_an_alias() {
    let mut server = two_versions("instances: {max: 2}");
    server.kip(&["alias", "set", "f", "old", "1"]).ok();
    for qualifier in ["@1", "@2", "@old"] {
        // It writes a line about each.
        assert_eq!(call(server.gateway, "GET", &format!("/f/f{qualifier}/json"), "", b"").status(), 200);
    }
    let versions = |server: &Server, which: &str| -> Vec<String> {
        let lines = server.ask_lines(&["logs", which]);
        let of = |line: &Value| line["version"].as_str().unwrap_or("none").to_owned();
        lines.iter().filter(|line| line["level"] == "WARN").map(of).collect()
    };
    let both = vec!["1".to_owned(), "1".to_owned(), "2".to_owned()];
    let all = |server: &Server| {
        let mut all = versions(server, "f");
        all.sort();
        all
    };
    until_true("all lines are there", || all(&server) == both);
    assert_eq!((versions(&server, "f@2"), versions(&server, "f@r1").len()), (vec!["2".to_owned()], 2));
    assert_eq!((versions(&server, "f@old").len(), versions(&server, "f@LATEST").len()), (2, 1));
    let text = server.kip(&["logs", "f@2"]).ok().stdout;
    assert!(text.lines().all(|line| line.contains(" 2   err | ") || line.contains(" 2   out | ")), "{text}");
    server.kip(&["logs", "f@7"]).failed(&["KW-3007", "kip version ls f"]);
    server.kip(&["logs", "f@nope"]).failed(&["nope"]);
    server.kip(&["logs", "f@a b"]).failed(&["a b"]);

    let counted = |qualifier: &str| {
        format!("kip_qualifier_requests_total{{function=\"f\",qualifier=\"{qualifier}\",code=\"2xx\"}} 1")
    };
    let metrics = server.api_get("/metrics").text();
    for qualifier in ["1", "2", "old"] {
        assert!(metrics.contains(&counted(qualifier)), "{qualifier}: {metrics}");
    }

    // Instances of an earlier server write on under their version; logs of instances that are gone keep it.
    server.crash();
    server.start_again();
    assert_eq!(call(server.gateway, "GET", "/f/f@1/json", "", b"").status(), 200);
    until_true("the new line is there", || versions(&server, "f@1").len() == 3);
    assert_eq!(versions(&server, "f@2"), ["2"]);
}
