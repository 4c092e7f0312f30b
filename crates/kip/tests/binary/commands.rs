//! The command line as people and programs meet it: names, numbers, zones, exit codes, and one form of JSON.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Server, function, kip, manifest, run, until, until_true};

#[test]
fn plurals_and_earlier_verbs_are_aliases() {
    let server = Server::start();
    server.deploy("api: kip/v1\njobs:\n  j: {run: 'true'}\nfunctions:\n  f: {run: 'true'}\n");
    for words in [
        ["task ls", "tasks ls"],
        ["job ls", "jobs list"],
        ["key ls", "keys list"],
        ["device ls", "devices ls"],
        ["provision ls", "provision list"],
        ["ls", "list"],
        ["requests", "request"],
    ] {
        let [new, old] = words.map(|words| server.ask(&words.split(' ').collect::<Vec<_>>()));
        assert_eq!(new.is_array(), old.is_array(), "{words:?}");
    }
    let version = server.kip(&["version"]).ok().stdout;
    assert_eq!(version, server.kip(&["--version"]).ok().stdout);
    assert!(version.starts_with("kip 0."), "{version}");
    assert!(server.ask(&["version"])["version"].is_string());
    let help = server.kip(&["--help"]).ok().stdout;
    for part in ["Functions:\n", "The server:\n", "Exit codes:", "  task ", "  completion "] {
        assert!(help.contains(part), "{part}: {help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = server.kip(&["completion", shell]).ok().stdout;
        assert!(script.contains("kip") && script.contains("deploy") && script.contains("provision"), "{shell}");
    }
    let wrong = server.kip(&["ls", "--wait"]);
    assert!(wrong.code == Some(2) && !wrong.stderr.contains("--api"), "{wrong:?}");
    // A job has no URL.
    let list = server.kip(&["ls"]).ok().stdout;
    let line = |name: &str| list.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(line("f").contains("http://") && !line("j").contains("http://"), "{list}");
}

/// Names that are not in snake_case yet, by the commands that show them: the table of docs/decisions/0010-wire.md.
const CAMEL_CASE: [&str; 2] = ["task", "job"];

fn check(command: &str, path: &str, value: &Value) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let path = format!("{path}.{name}");
                let free =
                    ["env", "labels", "times", "headers", "spec", "counted"].iter().any(|part| path.contains(part));
                let snake = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
                let excepted = CAMEL_CASE.contains(&command.split(' ').next().unwrap());
                assert!(free || snake || excepted, "`kip {command}`: {path} is not in snake_case");
                // A quantity is a number, and a moment is milliseconds since 1970.
                let measured = ["_ms", "_us", "_bytes", "_mille"].iter().any(|unit| name.ends_with(unit));
                let moment = ["at", "created", "expires", "since", "last_use", "rotated"].contains(&name.as_str());
                if measured || moment {
                    assert!(
                        value.is_number() || value.is_null() || value.is_object(),
                        "`kip {command}`: {path} is {value}"
                    );
                }
                check(command, &path, value);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| check(command, path, item)),
        _ => {}
    }
}

#[test]
fn the_json_of_all_commands_follows_one_convention() {
    let server = Server::with("[[device]]\nname = \"gpu0\"\nmemory = \"24GiB\"");
    server.deploy(
        &(manifest(&[function("f", &[], "instances: {min: 0, max: 2}")])
            + "jobs:\n  j: {run: 'true', schedule: '0 3 * * *'}\n"),
    );
    server.get("/pid");
    let id = server.ask(&["invoke", "f", "/task", "-X", "POST", "-d", "answer x", "--async"])["task"]
        .as_str()
        .unwrap()
        .to_owned();
    until_true("the task is over", || server.ask(&["task", "show", "f", &id])["status"] == "Succeeded");
    let instance = server.instances()[0]["id"].as_str().unwrap().to_owned();
    let commands = [
        "ls",
        "ps",
        "top --once",
        "inspect f",
        &format!("inspect {instance}"),
        "requests",
        "why f",
        "usage f",
        "invoke f /pid",
        "doctor",
        "version",
        "key ls",
        "audit",
        "device ls",
        "config show",
        "provision ls",
        "advise f",
        "task ls",
        "task stat",
        &format!("task show f {id}"),
        "task config show f",
        "job ls",
        "job show j",
        "rotate f",
        "start",
    ];
    for command in commands {
        let words: Vec<&str> = command.split(' ').chain(["-o", "json"]).collect();
        let ran = server.kip(&words);
        // A doctor may find something on this machine.
        assert!(ran.code == Some(0) || command == "doctor", "`kip {command}`: {ran:?}");
        let value: Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("`kip {command}`: {error}: {ran:?}"));
        if command != "config show" {
            check(command, "", &value);
        }
    }
    let lines = server.ask_lines(&["logs", "f"]);
    assert!(!lines.is_empty());
    lines.iter().for_each(|line| check("logs f", "", line));
    // An error too, in the same form for each command.
    for command in
        ["inspect nothing", "why nothing", "logs nothing", "invoke nothing", "task show nothing t1", "job show nothing"]
    {
        let words: Vec<&str> = command.split(' ').chain(["-o", "json"]).collect();
        let ran = server.kip(&words);
        let error = &ran.json()["error"];
        assert!(ran.code == Some(1) && error["code"].is_string() && error["message"].is_string(), "{command}: {ran:?}");
    }
}

#[test]
fn times_are_in_the_callers_zone_and_labelled() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    server.get("/pid");
    let asked = |zone: &str, words: &[&str]| {
        let mut command = kip(&server.data());
        run(command.env("TZ", zone).args(words)).ok().stdout
    };
    for words in [&["why", "f"][..], &["requests", "f"], &["logs", "f"], &["usage", "f"], &["key", "ls"]] {
        let (local, utc) = (asked("Asia/Tokyo", words), asked("Asia/Tokyo", &[words, &["--utc"]].concat()));
        assert!(local.contains(" JST"), "{words:?}: {local}");
        assert!(utc.contains(" UTC") && !utc.contains("JST"), "{words:?}: {utc}");
    }
}

#[test]
fn numbers_are_for_people_and_exact_in_json() {
    let server = Server::with("[[device]]\nname = \"gpu0\"\nmemory = \"22748453640B\"");
    server.deploy_subject(&[], "");
    server.get("/pid");
    let shown = server.kip(&["ps"]).ok().stdout;
    assert!(shown.contains("0 of 21.2 GiB reserved") && !shown.contains("22748453640"), "{shown}");
    assert!(shown.contains(" GiB reserved\n") && !shown.contains("KiB"), "{shown}");
    let status = server.api_get("/api/v1/status").json();
    assert_eq!(status["host"]["devices"][0]["memory"], json!(22_748_453_640u64));
    let doctor = server.kip(&["doctor"]).stdout;
    assert!(doctor.contains("gpu0 (number 0): 0 of 21.2 GiB reserved"), "{doctor}");
    assert!(doctor.contains(&format!("gateway on {}, API on {}", server.gateway, server.api)), "{doctor}");
}

#[test]
fn invoke_takes_files_and_says_by_its_exit_code_how_it_went() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    let file = server.folder().join("body");
    fs::write(&file, "answer from-file").unwrap();
    let at = format!("@{}", file.display());
    assert_eq!(server.kip(&["invoke", "f", "/task", "-d", &at]).ok().stdout, "from-file");
    server.kip(&["invoke", "f", "/task", "-d", "@/no/such/file"]).failed(&["/no/such/file cannot be read"]);
    for (status, code) in [("404", 4), ("503", 5), ("200", 0)] {
        let path = format!("/status/{status}");
        assert_eq!(server.kip(&["invoke", "f", &path]).code, Some(0), "an answer is an answer");
        assert_eq!(server.kip(&["invoke", "f", &path, "--fail"]).code, Some(code), "{status}");
    }
    assert_eq!(server.kip(&["invoke", "nothing", "--fail"]).code, Some(1), "that is an error of ours");
}

#[test]
fn a_server_starts_in_the_background_and_a_second_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let ask = |words: &[&str]| run(kip(&data).args(words).args(["-o", "json"]));
    let started = ask(&["start", "--gateway", "127.0.0.1:0", "--api", "127.0.0.1:0"]).ok().json();
    assert_eq!(started["started"], true, "{started}");
    let again = ask(&["start"]).ok().json();
    assert_eq!((&again["started"], &again["pid"]), (&json!(false), &started["pid"]));
    let text = run(kip(&data).args(["start"])).ok().stdout;
    assert!(text.contains("runs already") && text.contains("gateway"), "{text}");
    ask(&["stop"]).ok();
}

#[test]
fn the_doctor_exits_by_what_it_finds() {
    let server = Server::start();
    let bad = server.kip(&["doctor", "-o", "json"]);
    let is_bad = bad.json().as_array().unwrap().iter().any(|finding| finding["state"] == "bad");
    assert_eq!(bad.code, Some(i32::from(is_bad)), "{bad:?}");
    let findings = |words: &[&str]| server.kip(words).json().as_array().unwrap().clone();
    let says =
        |findings: &[Value], text: &str| findings.iter().any(|one| one["detail"].as_str().unwrap().contains(text));
    assert!(!says(&findings(&["doctor", "-o", "json"]), "changed after the server started"));
    fs::write(server.data().join("kipwake.toml"), "[server]\nthreads = 3\n").unwrap();
    assert!(says(&findings(&["doctor", "-o", "json"]), "changed after the server started"));

    // A server that is elsewhere is not this data directory's: nothing is advised about a process of this host.
    let elsewhere = server.kip(&["doctor", "--api", "http://127.0.0.1:1", "-o", "json"]);
    let advice = elsewhere.json().to_string();
    assert!(elsewhere.code == Some(1) && advice.contains("none answers at http://127.0.0.1:1"), "{advice}");
    assert!(!advice.contains("kill"), "{advice}");

    // A port that another program holds.
    let other = tempfile::tempdir().unwrap();
    let settings = format!("[server]\ngateway = \"{}\"\napi = \"127.0.0.1:0\"\n", server.gateway);
    fs::write(other.path().join("kipwake.toml"), settings).unwrap();
    let taken = run(kip(other.path()).args(["doctor"]));
    assert!(taken.code == Some(1) && taken.stdout.contains("(server.gateway): "), "{taken:?}");

    fs::write(server.data().join("kipwake.toml"), "[tasks]\npayload = \"many\"\n").unwrap();
    let bad = server.kip(&["doctor"]);
    assert!(bad.code == Some(1) && bad.stdout.contains("BAD   settings"), "{bad:?}");
}

#[test]
fn up_reads_the_manifest_first_and_leaves_what_did_not_change() {
    let folder = tempfile::tempdir().unwrap();
    let (data, app) = (folder.path().join("data"), folder.path().join("app"));
    fs::create_dir(&app).unwrap();
    let up = || {
        let mut command = kip(&data);
        command.args(["up", "--no-follow", "--gateway", "127.0.0.1:0", "--api", "127.0.0.1:0", "-o", "json"]).arg(&app);
        run(&mut command)
    };
    fs::write(app.join("kip.yaml"), "api: kip/v1\nfunctions:\n  f: {run: x, idle: {pause: 5 minutes}}\n").unwrap();
    let wrong = up();
    assert!(wrong.code == Some(1) && wrong.stdout.contains("write `5m`"), "{wrong:?}");
    assert!(!data.join("server.json").exists(), "no server was started for it");
    let text = manifest(&[function("f", &[], "instances: {min: 1}")]);
    fs::write(app.join("kip.yaml"), &text).unwrap();
    fs::write(app.join("code.py"), "1").unwrap();
    let first = up().ok().json();
    assert_eq!(first["deployed"][0]["version"], 1, "{first}");
    let ps = || run(kip(&data).args(["ps", "-o", "json"])).ok().json();
    let process = until("an instance runs", || ps()[0]["process"].as_u64());
    let second = up().ok().json();
    assert_eq!(
        (&second["deployed"][0]["version"], &second["unchanged"][0]["function"]),
        (&json!(1), &json!("f")),
        "{second}"
    );
    assert_eq!(ps()[0]["process"].as_u64(), Some(process), "its instance stays");
    fs::write(app.join("code.py"), "2").unwrap();
    let third = up().ok().json();
    assert_eq!(third["deployed"][0]["version"], 2, "a file of it changed: {third}");
    assert_eq!(third["unchanged"], Value::Null);
    fs::write(app.join("kip.yaml"), text + "    queue: {depth: 7}\n").unwrap();
    assert_eq!(up().ok().json()["deployed"][0]["version"], 3);
    run(kip(&data).arg("stop")).ok();
}

#[test]
fn what_is_nearly_right_is_told_how_it_was_meant() {
    let server = Server::start();
    let deploy = |keys: &str| server.try_deploy(&format!("api: kip/v1\nfunctions:\n  f: {{run: x, {keys}}}\n"));
    deploy("idle: {pause: 5 minutes}").failed(&["write `5m`"]);
    deploy("idle: {pause: 5min}").failed(&["write `5m`"]);
    deploy("probes: healthz").failed(&["write `probes: {ready: /healthz}`"]);
    deploy("resources: {gpu: 1}").failed(&["write `gpu: {cards: 1}`"]);
    deploy("resources: {gpu: 6GiB}").failed(&["write `gpu: {memory: 6GiB}`"]);
    let cron = server.try_deploy("api: kip/v1\njobs:\n  j:\n    run: x\n    schedule: * * * * *\n");
    cron.failed(&["KW-1001", "cron: '* * * * *'"]);
    let serve = |toml: &str, variables: &[(&str, &str)]| {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("data")).unwrap();
        fs::write(folder.path().join("data/kipwake.toml"), toml).unwrap();
        let mut command = kip(&folder.path().join("data"));
        run(command.args(["serve", "--gateway", "127.0.0.1:0", "--api", "127.0.0.1:0"]).envs(variables.iter().copied()))
    };
    serve("[[devices]]\nname = \"gpu0\"\n", &[]).failed(&["`devices`", "write [[device]]"]);
    serve("", &[("KIPWAKE_LIMITS_HAED", "1")])
        .failed(&["`KIPWAKE_LIMITS_HAED`", "did you mean `KIPWAKE_LIMITS_HEAD`?"]);
}

#[test]
fn inspect_is_for_people_and_json_for_programs() {
    let server = Server::start();
    server.deploy_subject(&[], "idle: {pause: 5s, stop: 12h}");
    server.get("/pid");
    let text = server.kip(&["inspect", "f"]).ok().stdout;
    for part in ["function  ", "serves  ", "url  ", "instances  ", "idle  "] {
        let words: Vec<&str> = part.split_whitespace().collect();
        assert!(text.lines().any(|line| line.split_whitespace().next() == Some(words[0])), "{part}: {text}");
    }
    assert!(!text.contains('{') && !text.contains("_ms"), "{text}");
    let instance = server.instances()[0]["id"].as_str().unwrap().to_owned();
    let text = server.kip(&["inspect", &instance]).ok().stdout;
    assert!(text.contains("process") && text.contains("state") && !text.contains("for_ms"), "{text}");
    assert!(server.ask(&["inspect", "f"])["spec"]["idle"].is_object());
}

#[test]
fn a_removal_goes_on_after_a_name_that_is_not_there() {
    let server = Server::start();
    server.deploy(&manifest(&[function("a", &[], ""), function("b", &[], "")]));
    let removed = server.kip(&["rm", "none", "a", "other", "b"]);
    assert_eq!(removed.code, Some(1), "{removed:?}");
    for part in ["KW-3001", "`none`", "`other`"] {
        assert!(removed.stderr.contains(part), "{removed:?}");
    }
    assert_eq!(removed.stdout, "removed a\nremoved b\n");
    assert_eq!(server.ask(&["ls"]), json!([]));
}

#[test]
fn lines_of_s_that_are_not_carried_out_name_their_twins() {
    let server = Server::start();
    for (line, twin) in [
        (&["s", "build"][..], "kip install"),
        (&["s", "list"], "kip ls"),
        (&["s", "sync"], "kip inspect"),
        (&["s", "session", "list"], "kip exec"),
        (&["s", "layer", "download"], "GetLayerVersion"),
        (&["s", "layer", "acl"], "PutLayerACL"),
    ] {
        server.kip(line).failed(&["is not carried out here", twin]);
    }
    server.kip(&["s", "nothing"]).failed(&["is no command of `s`", "deploy, plan"]);
}
