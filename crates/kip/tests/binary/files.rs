//! Files of Function Compute: deployed as they are, shown, changed, removed, with the lines that people have in their fingers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::support::{Server, call, subject, until_true};

/// The file of a published guide with a command in the place of its image.
const GUIDE: &str = "edition: 3.0.0
name: container-demo
access: default
vars:
  region: cn-shanghai
resources:
  gpu-best-practive:
    component: fc3
    props:
      region: ${vars.region}
      description: This is the demo function deployment
      handler: not-used
      timeout: 60
      memorySize: 512
      diskSize: 512
      instanceConcurrency: 1
      runtime: custom
      code: ./code
      customRuntimeConfig:
        command: [sh, ./run.sh]
        port: 9000
      environmentVariables:
        MODE: ${env('KIPWAKE_TEST_MODE', 'first')}
      internetAccess: true
      logConfig:
        enableRequestMetrics: true
        enableInstanceMetrics: true
        logBeginRule: DefaultRegex
        project: z****
        logstore: log****
      functionName: web
      triggers:
        - triggerName: httpTrigger
          triggerType: http
          triggerConfig:
            authType: anonymous
            methods: [GET, POST]
";

const PROVISION: &str = r#"{"targetTrackingPolicies": [{"name": "scaling-policy-demo", "startTime": "2024-07-01T16:00:00.000Z",
"endTime": "2024-07-30T16:00:00.000Z", "metricType": "ProvisionedConcurrencyUtilization", "metricTarget": 0.3, "minCapacity": 2, "maxCapacity": 30}]}"#;

/// A project folder with a program.
fn project(server: &Server, name: &str, text: &str) {
    let folder = server.folder().join("app");
    fs::create_dir_all(folder.join("code")).unwrap();
    fs::write(folder.join(name), text).unwrap();
    let program = format!("exec {}\n", subject().display());
    fs::write(folder.join("code/run.sh"), &program).unwrap();
    let bootstrap = folder.join("code/bootstrap");
    fs::write(&bootstrap, format!("#!/bin/sh\n{program}")).unwrap();
    fs::set_permissions(&bootstrap, fs::Permissions::from_mode(0o755)).unwrap();
}

fn change(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

fn variable(server: &Server, name: &str) -> Value {
    call(server.gateway, "GET", "/f/web/env", "", b"").json()[name].clone()
}

fn revisions(server: &Server) -> usize {
    server.ask(&["version", "ls", "web"]).as_array().unwrap().len()
}

#[test]
fn an_s_yaml_is_deployed_changed_and_removed() {
    let server = Server::start();
    project(&server, "s.yaml", GUIDE);
    let file = server.folder().join("app/s.yaml");
    let plan = server.ask(&["plan", "-t", "app/s.yaml"]);
    let function = &plan["functions"][0];
    assert_eq!(
        (&function["function"], &function["configuration"], &function["code"]),
        (&json!("web"), &json!("create"), &json!(true))
    );
    let effects: Vec<&Value> = plan["keys"].as_array().unwrap().iter().map(|key| &key["effect"]).collect();
    assert!(
        effects.contains(&&json!("mapped"))
            && effects.contains(&&json!("stored"))
            && effects.contains(&&json!("without-effect"))
    );
    let shown = server.kip(&["plan", "-t", "app/s.yaml"]).ok().stdout;
    assert!(shown.contains("+ function web\n") && shown.contains("+ trigger httpTrigger"), "{shown}");
    assert!(shown.contains("project, logstore") || shown.contains("project"), "{shown}");
    assert_eq!(server.ask(&["ls"]), json!([]), "a plan changes nothing");

    let made = server.kip(&["deploy", "--skip-push", "true", "-t", "app/s.yaml", "-a", "default"]).ok();
    let url = format!("http://{}/f/web/", server.gateway);
    assert!(made.stdout.contains(&url) && made.stdout.contains(&format!("curl {url}")), "{made:?}");
    assert!(made.stderr.contains("not in force here"), "{made:?}");
    assert_eq!(variable(&server, "MODE"), "first");
    let listed: Vec<Value> = server.ask(&["ls"]).as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(listed, ["web"]);

    // Nothing changes the second time, also from within the folder and by the folder's name.
    let before = revisions(&server);
    for words in [&["deploy", "-t", "app/s.yaml"][..], &["deploy", "app"], &["deploy", "app/s.yaml", "-y"]] {
        let again = server.kip(words).ok();
        assert!(again.stdout.contains("is as the file has it"), "{again:?}");
    }
    assert_eq!(revisions(&server), before);
    assert!(server.kip(&["plan", "app"]).ok().stdout.contains("nothing changes"));

    change(&file, "timeout: 60", "timeout: 30");
    change(&file, "'first'", "'second'");
    change(&file, "methods: [GET, POST]", "methods: [GET]");
    let shown = server.kip(&["plan", "app"]).ok().stdout;
    for line in ["~ function web", "timeout: 60 → 30", "MODE: first → second", "~ trigger httpTrigger"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert!(!shown.contains("the code is another"), "{shown}");
    server.kip(&["deploy", "app"]).ok();
    assert_eq!(variable(&server, "MODE"), "second");
    assert_eq!(call(server.gateway, "POST", "/f/web/echo", "", b"x").status(), 405);
    // Code alone.
    fs::write(server.folder().join("app/code/more.txt"), "more").unwrap();
    assert!(server.kip(&["plan", "app"]).ok().stdout.contains("the code is another"));
    server.kip(&["deploy", "app"]).ok();
    assert!(server.kip(&["plan", "app"]).ok().stdout.contains("nothing changes"));
    // What goes from the file goes from the function.
    change(&file, "      environmentVariables:\n        MODE: ${env('KIPWAKE_TEST_MODE', 'second')}\n", "");
    assert!(server.kip(&["plan", "app"]).ok().stdout.contains("MODE: second → nothing"));
    server.kip(&["deploy", "app"]).ok();
    assert_eq!(variable(&server, "MODE"), Value::Null);

    let info = server.kip(&["info", "-t", "app/s.yaml"]).ok().stdout;
    assert!(info.contains(&url) && info.contains("httpTrigger (http, LATEST)"), "{info}");
    server.kip(&["remove", "-t", "app/s.yaml", "-y"]).ok();
    assert_eq!(server.ask(&["ls"]), json!([]));
    assert!(server.kip(&["info", "app"]).ok().stdout.contains("web is not deployed"));
    assert!(server.kip(&["remove", "-t", "app/s.yaml"]).ok().stdout.contains("no function"));
}

#[test]
fn what_is_wrong_with_a_file_has_its_place() {
    let server = Server::start();
    project(&server, "s.yaml", &GUIDE.replace("timeout: 60", "timeout: long"));
    server.kip(&["deploy", "app"]).failed(&["KW-1036", "app/s.yaml:13:16", "write a whole number"]);
    project(&server, "s.yaml", &GUIDE.replace("code: ./code", "code: ./none"));
    server.kip(&["deploy", "-t", "app/s.yaml"]).failed(&["KW-1035", "s.yaml:18:13"]);
    project(&server, "s.yaml", &GUIDE.replace("component: fc3", "component: [fc3"));
    server.kip(&["plan", "app/s.yaml"]).failed(&["KW-1001"]);
    project(&server, "s.yaml", &GUIDE.replace("run.sh]", "run.sh, --exit-now, '3']"));
    fs::write(server.folder().join("app/code/run.sh"), format!("exec {} \"$@\"\n", subject().display())).unwrap();
    // A program that ends is found out where an instance is waited for.
    server.kip(&["deploy", "app"]).ok();
    let answer = call(server.gateway, "GET", "/f/web/", "", b"");
    assert!(answer.status() >= 500, "{answer:?}");
    server.kip(&["deploy", "none.yaml"]).failed(&["KW-1006"]);
    server.kip(&["info"]).failed(&["KW-1006"]);
    server.kip(&["deploy", "app", "--publish"]).failed(&["KW-7007", "kip version publish"]);
}

#[test]
fn the_lines_of_the_guide_about_provisioned_instances() {
    let server = Server::start();
    project(&server, "s.yaml", GUIDE);
    fs::write(server.folder().join("app/provision.json"), PROVISION).unwrap();
    server.kip(&["deploy", "app"]).ok();
    for line in [
        "provision put --target 1 --targetTrackingPolicies ./app/provision.json --qualifier LATEST -t app/s.yaml -a ACCESS --wait",
        "provision put --target 1 --target-tracking-policies ./app/provision.json -t app/s.yaml --wait",
        "s provision put --target 1 --targetTrackingPolicies ./app/provision.json --qualifier LATEST -t app/s.yaml -a ACCESS --wait",
    ] {
        server.kip(&line.split(' ').collect::<Vec<_>>()).ok();
        let listed = server.ask(&["provision", "list", "-a", "ACCESS"]);
        let row = &listed[0];
        assert_eq!(
            (&row["function"], &row["target"], &row["current"]),
            (&json!("web"), &json!(1), &json!(1)),
            "{line}"
        );
        assert_eq!(row["policies"][0]["name"], "scaling-policy-demo");
        assert!(row["policies"][0]["why"].as_str().is_some_and(|why| !why.is_empty()), "its time is over: {listed}");
        let own = server.ask(&["s", "provision", "list", "-t", "app/s.yaml"]);
        assert_eq!((&own[0]["target"], &own[0]["current"]), (&json!(1), &json!(1)));
        server
            .kip(&["provision", "put", "--target", "0", "--qualifier", "LATEST", "-t", "app/s.yaml", "-a", "ACCESS"])
            .ok();
        until_true("none is left", || server.ask(&["provision", "list", "-a", "ACCESS"]) == json!([]));
    }
    server.until_no_instance();
}

#[test]
fn lines_of_s_are_carried_out() {
    let server = Server::start();
    project(&server, "s.yaml", &GUIDE.replace("authType: anonymous", "authType: function"));
    let s = |line: &str| {
        let words: Vec<&str> = ["-o", "json", "s"].into_iter().chain(line.split(' ')).collect();
        server.kip(&words)
    };
    s("deploy --skip-push true -t app/s.yaml -y").ok();
    assert_eq!(s("info -t app/s.yaml").ok().json()[0]["function"], "web");
    let plan = s("plan -t app/s.yaml").ok().json();
    assert_eq!(plan["functions"][0]["configuration"], "keep");
    let answer = s("invoke -t app/s.yaml -e {}").ok().json();
    assert!(answer["instance"].as_str().is_some_and(|id| !id.is_empty()), "{answer}");
    let later = s("invoke -t app/s.yaml -e {} --invocation-type Async --async-task-id one").ok().json();
    assert_eq!((&later["status"], &later["task"]), (&json!(202), &json!("one")));
    server.kip(&["s", "invoke", "-t", "app/s.yaml", "--invocation-type", "async"]).failed(&["KW-7007"]);
    assert_eq!(s("version publish -t app/s.yaml --description first").ok().json()["versionId"], "1");
    assert_eq!(s("version list -t app/s.yaml").ok().json()[0]["description"], "first");
    let alias = s("alias publish -t app/s.yaml --alias-name prod --version-id 1").ok().json();
    assert_eq!((&alias["aliasName"], &alias["versionId"]), (&json!("prod"), &json!("1")));
    s("alias publish -t app/s.yaml --alias-name prod --version-id 1 --description again").ok();
    assert_eq!(s("alias list -t app/s.yaml").ok().json()[0]["description"], "again");
    assert_eq!(s("concurrency put -t app/s.yaml --reserved-concurrency 2").ok().json()["reservedConcurrency"], 2);
    assert_eq!(s("concurrency get -t app/s.yaml").ok().json()["reservedConcurrency"], 2);
    s("concurrency remove -t app/s.yaml").ok();
    let put = s("provision put -t app/s.yaml --qualifier prod --target 1 --wait").ok().json();
    assert_eq!((&put["target"], &put["current"]), (&json!(1), &json!(1)));
    let rows = s("instance list -t app/s.yaml").ok().json();
    assert!(rows.as_array().unwrap().iter().any(|row| row["qualifier"] == "1"), "{rows}");
    s("provision remove -t app/s.yaml --qualifier prod").ok();
    assert_eq!(s("provision list -t app/s.yaml").ok().json(), json!([]));
    server.kip(&["s", "logs", "-t", "app/s.yaml"]).ok();
    server.kip(&["s", "build", "-t", "app/s.yaml"]).failed(&["KW-7007"]);
    s("remove -t app/s.yaml -y").ok();
    assert_eq!(server.ask(&["ls"]), json!([]));
}

#[test]
fn a_template_of_fun_with_an_alias_and_provisioned_instances() {
    let server = Server::start();
    let text = "ROSTemplateFormatVersion: '2015-09-01'
Transform: 'Aliyun::Serverless-2018-04-03'
Resources:
  classify:
    Type: 'Aliyun::Serverless::Service'
    Properties: {LogConfig: {Project: p, Logstore: l}}
    web:
      Type: 'Aliyun::Serverless::Function'
      Properties: {Handler: index.handler, Runtime: custom, CodeUri: ./code, Timeout: 20, MemorySize: 256}
      Events:
        http: {Type: HTTP, Properties: {AuthType: ANONYMOUS, Methods: [GET], Qualifier: prod}}
        clock: {Type: Timer, Properties: {CronExpression: '@every 24h', Enable: true}}
        upload: {Type: OSS, Properties: {BucketName: b, Events: ['oss:ObjectCreated:*']}}
  prod:
    Type: 'ALIYUN::FC::Alias'
    Properties: {ServiceName: classify, AliasName: prod}
  warm:
    Type: 'ALIYUN::FC::ProvisionConfig'
    Properties: {ServiceName: classify, FunctionName: web, Qualifier: prod, Target: 1}
";
    project(&server, "template.yml", text);
    server.kip(&["deploy", "app"]).ok();
    let answer = call(server.gateway, "GET", "/f/classify-web@prod/env", "", b"");
    assert_eq!(answer.status(), 200, "{answer:?}");
    let listed = server.ask(&["provision", "ls"]);
    assert_eq!((&listed[0]["qualifier"], &listed[0]["target"]), (&json!("prod"), &json!(1)));
    let info = server.ask(&["info", "app"]);
    assert_eq!(info[0]["triggers"].as_array().unwrap().len(), 3);
    let again = server.kip(&["deploy", "-t", "app/template.yml"]).ok();
    assert!(again.stdout.contains("is as the file has it"), "{again:?}");
    // An old runtime is refused with the whole command, and the map may stand in .env.
    change(&server.folder().join("app/template.yml"), "Runtime: custom", "Runtime: python2.7");
    let refused = server.kip(&["plan", "-t", "app/template.yml"]);
    refused.failed(&["KW-1034", "kip deploy -t app/template.yml --runtime-map python2.7=python3"]);
    let settings = server.folder().join("app/kip.toml");
    fs::write(&settings, "[runtimes]\n\"python2.7\" = \"custom\"\n").unwrap();
    assert!(server.kip(&["plan", "app"]).ok().stdout.contains("nothing changes"));
    fs::write(&settings, "[runtime]\n").unwrap();
    server.kip(&["plan", "app"]).failed(&["KW-1036", "`runtime`", "[runtimes]"]);
    fs::remove_file(&settings).unwrap();
    fs::write(server.folder().join("app/.env"), "KIPWAKE_RUNTIME_MAP=python2.7=custom\n").unwrap();
    assert!(server.kip(&["plan", "app"]).ok().stdout.contains("nothing changes"));
}

#[test]
fn commands_of_a_file_run_only_when_they_are_allowed() {
    let server = Server::start();
    let actions = "    actions:\n      pre-deploy:\n        - run: echo built > made.txt\n          path: ./code\n      post-deploy:\n        - run: exit 3\n    props:\n";
    project(&server, "s.yaml", &GUIDE.replace("    props:\n", actions));
    let made = server.folder().join("app/code/made.txt");
    server.kip(&["deploy", "app"]).failed(&["KW-8032", "echo built", "--allow-actions"]);
    server.kip(&["deploy", "app", "--skip-actions"]).ok();
    assert!(!made.exists() && server.kip(&["plan", "app"]).ok().stdout.contains("command: echo built"));
    server.kip(&["deploy", "app", "--allow-actions"]).failed(&["KW-8031", "exit 3"]);
    assert!(made.exists());
    assert!(server.kip(&["plan", "app"]).ok().stdout.contains("nothing changes"), "what it made was deployed");
}

#[test]
fn an_s_yaml_becomes_a_kip_yaml() {
    let server = Server::start();
    project(&server, "s.yaml", GUIDE);
    server.kip(&["import", "app/s.yaml", "-o", "app/kip.yaml", "--deploy"]).ok();
    let text = fs::read_to_string(server.folder().join("app/kip.yaml")).unwrap();
    assert!(text.contains("dir: ./code") && text.contains("MODE: first"), "{text}");
    assert_eq!(variable(&server, "MODE"), "first");
    server.kip(&["import", "app/s.yaml", "-o", "app/kip.yaml"]).failed(&["KW-8013", "--force"]);
    let written = server.kip(&["import", "app/s.yaml"]).ok().stdout;
    assert_eq!(written.replace("first", "x"), text.replace("first", "x"));
    // An older format becomes the newer one.
    let old = "edition: 1.0.0\nname: a\nservices:\n  web:\n    component: fc\n    props:\n      region: r\n      service: {name: shop}\n      function: {name: web, runtime: custom, codeUri: ./code, caPort: 9000}\n";
    fs::write(server.folder().join("app/old.yaml"), old).unwrap();
    let ran = server.kip(&["import", "app/old.yaml", "-o", "app/s.new.yaml"]).ok();
    assert!(ran.stderr.contains("converted: the function web of the service shop is named shop-web"), "{ran:?}");
    server.kip(&["deploy", "-t", "app/s.new.yaml"]).ok();
    assert!(server.ask(&["ls"]).as_array().unwrap().iter().any(|one| one["name"] == "shop-web"));
}

/// The block of a page that begins with this line.
fn block(page: &str, first: &str) -> String {
    let begin = page.find(&format!("```text\n{first}")).unwrap_or_else(|| panic!("no block begins with {first}"));
    page[begin + 8..].split("```").next().unwrap().to_owned()
}

#[test]
fn the_page_shows_what_the_commands_print() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/fc.md")).unwrap();
    let server = Server::start();
    let guide = server.folder().join("guide");
    fs::create_dir_all(guide.join("code")).unwrap();
    for name in ["s.yaml", "provision.json", "code/app.py"] {
        fs::copy(root.join("examples/guide").join(name), guide.join(name)).unwrap();
    }
    let kip = |words: &[&str], greeting: Option<&str>| {
        let mut command = crate::support::kip(&server.data());
        command.args(words).current_dir(&guide);
        command.envs(greeting.map(|greeting| ("GREETING", greeting)));
        crate::support::run(&mut command).ok().stdout.replace(&server.gateway.to_string(), "127.0.0.1:5470")
    };
    assert_eq!(kip(&["plan"], None), block(&page, "+ function hello"));
    let python = std::process::Command::new("python3").arg("--version").output();
    if !python.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: the rest needs python3");
        return;
    }
    let answer = |printed: String| {
        let answer = call(server.gateway, "GET", "/f/hello/", "", b"");
        assert_eq!(answer.status(), 200, "{answer:?}");
        printed + &String::from_utf8_lossy(&answer.body)
    };
    assert_eq!(answer(kip(&["deploy"], None)), block(&page, "hello is created"));
    assert!(kip(&["deploy"], None).contains("is as the file has it"));
    let changed = kip(&["plan"], Some("Welcome"));
    assert!(changed.starts_with(&block(&page, "~ function hello")), "{changed}");
    let words =
        ["provision", "put", "--target", "1", "--targetTrackingPolicies", "./provision.json", "--qualifier", "LATEST"];
    let put = kip(&[&words[..], &["-t", "s.yaml", "--wait"]].concat(), None);
    for line in block(&page, "hello LATEST").lines() {
        assert!(put.contains(line.trim_end()), "{line}: {put}");
    }
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[test]
fn the_classify_example_knows_digits_and_starts_nothing_cold_while_it_is_provisioned() {
    let python = std::process::Command::new("python3").arg("--version").output();
    if !python.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no python3 is here");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let server = Server::start();
    let folder = server.folder().join("classify");
    copy(&root.join("examples/classify"), &folder);
    // The commands of the page in their order; each block is the output of one of them.
    let guide = fs::read_to_string(root.join("docs/fun.md")).unwrap();
    let kip = |line: &str| {
        assert!(guide.contains(&format!("kip {line}")), "{line}");
        let mut command = crate::support::kip(&server.data());
        command.args(line.split(' ')).current_dir(&folder);
        let printed = crate::support::run(&mut command).ok().stdout;
        let data = server.data().canonicalize().unwrap().display().to_string();
        printed.replace(&server.gateway.to_string(), "127.0.0.1:5470").replace(&data, "DATA")
    };
    assert_eq!(kip("fun install"), block(&guide, "classify-digit is installed"));
    assert_eq!(kip("nas init"), block(&guide, "SHARE"));
    copy(&folder.join("model"), &folder.join(".fun/nas/auto-default/classify/model"));
    assert_eq!(kip("nas sync"), block(&guide, "auto-default:/classify"));
    assert_eq!(kip("nas ls nas://classify:/mnt/auto/model"), block(&guide, "  5.25 KiB"));
    assert_eq!(kip("plan"), block(&guide, "+ function classify-digit"));
    assert_eq!(kip("deploy"), block(&guide, "classify-digit is created"));
    assert!(kip("s digit alias list").contains("prod"));
    let url = format!("http://{}/f/classify-digit@prod/", server.gateway);
    until_true("two instances are provisioned", || {
        let listed = server.ask(&["provision", "ls"]);
        (&listed[0]["target"], &listed[0]["current"]) == (&json!(2), &json!(2))
    });
    let mut caller = server.connect();
    caller.write("GET / HTTP/1.1\r\nhost: classify.example.com\r\nconnection: close\r\n\r\n");
    let of_domain = caller.answer("GET");
    assert!(of_domain.text().contains("Which digit is it?"), "{of_domain:?}");
    let page = call(server.gateway, "GET", "/f/classify-digit@prod/", "", b"");
    assert!(page.text().contains("Which digit is it?"), "{page:?}");
    // Pictures that the weights were not made from.
    let pictures = fs::read_to_string(root.join("examples/digits/held-back.jsonl")).unwrap();
    let (mut right, mut count) = (0, 0);
    for line in pictures.lines().step_by(6) {
        let picture: Value = serde_json::from_str(line).unwrap();
        let body = BASE64_STANDARD.decode(picture["body"].as_str().unwrap()).unwrap();
        let answer =
            call(server.gateway, "POST", "/f/classify-digit@prod/classify", "content-type: image/png\r\n", &body);
        assert_eq!(answer.status(), 200, "{answer:?}");
        count += 1;
        let truth: u64 = picture["truth"].as_str().unwrap().parse().unwrap();
        right += i32::from(answer.json()["digit"] == truth);
    }
    assert!(count == 60 && right >= 55, "{right} of {count}");
    let wrong = call(server.gateway, "POST", "/f/classify-digit@prod/classify", "content-type: image/png\r\n", b"x");
    assert_eq!((wrong.status(), wrong.json()["error"].is_string()), (400, true));
    let page = server.folder().join("bench.html").display().to_string();
    let phases = ["on-demand=10/s@1s@/f/classify-on-demand/", "provisioned=10/s@1s", "beyond=200/s@1s"];
    let phases: Vec<&str> = phases.iter().flat_map(|phase| ["--phase", phase]).collect();
    let figures = server.ask(&[&["bench", &url, "--html", &page], phases.as_slice()].concat());
    let cold = |phase: usize| figures[phase]["cold"].as_u64().unwrap();
    assert!(cold(0) > 0, "the first one is cold: {figures}");
    assert_eq!((cold(1), &figures[1]["errors"]), (0, &json!(0)), "{figures}");
    assert_eq!(figures[2]["errors"], 0, "the overflow waits and is answered: {figures}");
    assert!(figures[2]["instances"].as_u64().unwrap() >= 2 && fs::metadata(&page).unwrap().len() > 1_000, "{figures}");
}

#[test]
fn the_triggers_of_a_restored_function_hold_at_once() {
    let server = Server::start();
    project(&server, "s.yaml", GUIDE);
    server.kip(&["deploy", "-y", "-t", "app/s.yaml"]).ok();
    let status = || call(server.gateway, "GET", "/f/web/pid", "", b"").status();
    assert_eq!(status(), 200);
    let file = server.folder().join("state.backup");
    server.kip(&["backup", file.to_str().unwrap()]).ok();
    server.kip(&["rm", "web"]).ok();
    assert_eq!(status(), 404);
    server.kip(&["restore", file.to_str().unwrap()]).ok();
    assert_eq!(status(), 200, "its anonymous trigger needs no restart");
}
