//! What only containers can show: labels, removal by hand, two servers on one engine, refusals, an engine that goes away.

use std::fs;

use serde_json::json;

use crate::bodies::{self, IMAGE, engine, id_of, pid};
use crate::support::{Server, call, function, manifest, subject, until_true};

super::each_engine!(
    a_container_bears_our_labels_and_limits,
    a_container_removed_by_hand_is_noticed,
    two_servers_share_an_engine,
    starts_that_fail_say_why,
    what_nobody_owns_is_removed,
    the_port_and_the_command_of_the_image,
    in_the_network_of_the_host,
    a_device_by_its_specification_and_none_without,
    thirty_containers_start_serve_and_end,
    a_container_under_a_name_of_ours_is_replaced,
    a_program_says_when_an_instance_is_ready,
);

fn a_container_bears_our_labels_and_limits() {
    let engine = engine().unwrap();
    let server = Server::start();
    server.deploy_subject(&[], "resources: {memory: 64MiB, cpu: 500m}\nidle: {pause: never}");
    assert_eq!(server.get("/pid").status(), 200);
    let ours = engine.containers(&id_of(&server));
    assert_eq!(ours.len(), 1);
    assert_eq!(ours[0]["Labels"]["dev.kipwake.function"], "f");
    assert_eq!(ours[0]["Labels"]["dev.kipwake.instance"], server.instances()[0]["id"]);
    let (_, body) =
        engine.ask("GET", &format!("/v1.41/containers/{}/json", ours[0]["Id"].as_str().unwrap()), Vec::new());
    let found: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let host = &found["HostConfig"];
    assert_eq!((host["Memory"].clone(), host["NanoCpus"].clone()), (json!(64 << 20), json!(500_000_000)), "{host}");
    assert!(matches!(host["RestartPolicy"]["Name"].as_str(), Some("no" | "")), "{host}");
    assert_eq!(host["Privileged"], false);
    let process = server.known()[0];
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    assert!(status.lines().any(|line| line.split_whitespace().eq(["NoNewPrivs:", "1"])), "{status}");
    let doctor = server.doctor();
    let line = doctor.as_array().unwrap().iter().find(|line| line["what"] == "containers").expect("a line").clone();
    let detail = line["detail"].as_str().unwrap();
    assert!(line["state"] == "ok" && detail.contains(&format!("{engine:?}")) && detail.contains("cgroup v"), "{line}");
    let shown = server.kip(&["inspect", "f"]).ok().stdout;
    assert!(shown.contains(IMAGE) && shown.contains("sha256:"), "{shown}");
}

fn a_container_removed_by_hand_is_noticed() {
    let engine = engine().unwrap();
    let server = Server::start();
    server.deploy_subject(&[], "instances: {max: 1}\nidle: {pause: never}");
    assert_eq!(server.get("/pid").status(), 200);
    let first = server.instances()[0]["id"].clone();
    let container = engine.containers(&id_of(&server))[0]["Id"].as_str().unwrap().to_owned();
    let (status, _) = engine.ask("DELETE", &format!("/v1.41/containers/{container}?force=true"), Vec::new());
    assert!((200..300).contains(&status), "{status}");
    until_true("its end is seen", || server.instances().iter().all(|one| one["id"] != first));
    assert_eq!(server.get("/pid").status(), 200, "another one serves");
}

fn two_servers_share_an_engine() {
    let engine = engine().unwrap();
    let (one, two) = (Server::start(), Server::start());
    // The folder of the second one is what this thread's functions see.
    two.deploy_subject(&[], "idle: {pause: never}");
    assert_eq!(two.get("/pid").status(), 200);
    let id = id_of(&two);
    assert_eq!(one.instances().len(), 0);
    one.kip(&["stop"]).ok();
    assert_eq!(engine.containers(&id).len(), 1, "the other server's are left alone");
    assert_eq!(two.get("/pid").header("x-kip-start"), Some("warm"));
    two.kip(&["rm", "f"]).ok();
    until_true("nothing is left", || engine.containers(&id).is_empty());
}

fn starts_that_fail_say_why() {
    let server = Server::start();
    let answer = |name: &str, arguments: &[&str], settings: &str| {
        server.deploy_without_wait(&manifest(&[function(name, arguments, settings)]));
        // What a program wrote is for operators.
        let headers = format!("authorization: Bearer {}\r\n", server.key);
        call(server.gateway, "GET", &format!("/f/{name}/pid"), &headers, b"")
    };
    let ended = answer("a", &["--exit-now", "5"], "");
    assert_eq!((ended.code().as_str(), ended.status()), ("KW-4003", 502), "{ended:?}");
    assert!(ended.said().contains("exit code 5") && ended.said().contains("told to give up at once"), "{ended:?}");
    let elsewhere = answer("b", &["--wrong-port"], "timeouts: {startup: 1s}");
    assert_eq!(elsewhere.code(), "KW-4005", "{elsewhere:?}");
    let nowhere = answer("c", &["--never-listen"], "timeouts: {startup: 1s}");
    assert_eq!(nowhere.code(), "KW-4004", "{nowhere:?}");
    // The fault that people meet most: the program is not reachable from outside of its container.
    // Its beginning counts as part of that time, and a busy engine needs a second for it.
    let inside = answer("d", &[], "timeouts: {startup: 5s}\nenv: {SUBJECT_ANY: ''}");
    assert_eq!(inside.code(), "KW-4004", "{inside:?}");
    assert!(inside.said().contains("inside its container") && inside.said().contains("0.0.0.0"), "{inside:?}");
    let text = format!("  f:\n    image: {IMAGE}\n    run: [/no/such/program]\n");
    server.deploy_without_wait(&manifest(&[text]));
    assert_eq!(server.get("/pid").code(), "KW-4001");
    server.until_no_instance();
}

fn what_nobody_owns_is_removed() {
    let engine = engine().unwrap();
    let mut server = Server::start();
    server.deploy_subject(&[], "idle: {pause: never}");
    assert_eq!(server.get("/pid").status(), 200);
    let id = id_of(&server);
    // As a server leaves it that is killed between the making of a container and its start.
    let body = json!({"Image": IMAGE, "Cmd": ["/bin/sleep", "1000"], "Labels": {
        "dev.kipwake.server": id, "dev.kipwake.instance": "i-9-9-9",
    }});
    let (status, _) = engine.ask("POST", "/v1.41/containers/create", body.to_string().into_bytes());
    assert_eq!(status, 201);
    assert_eq!(engine.containers(&id).len(), 2);
    server.crash();
    server.start_again();
    until_true("it is removed", || engine.containers(&id).len() == 1);
    assert_eq!(server.get("/pid").header("x-kip-start"), Some("warm"), "the other one serves on");
}

fn the_port_and_the_command_of_the_image() {
    let engine = engine().unwrap();
    let server = Server::start();
    let name = "kip-whole:test";
    // The image says what to run and where that listens, and the function says nothing.
    let body = json!({"Image": IMAGE, "Cmd": [subject()]});
    let (status, made) = engine.ask("POST", "/v1.41/containers/create", body.to_string().into_bytes());
    assert_eq!(status, 201);
    let made: serde_json::Value = serde_json::from_slice(&made).unwrap();
    let container = made["Id"].as_str().unwrap();
    let changes = format!("changes=EXPOSE%203456&changes=CMD%20%5B%22{}%22%5D", subject().display());
    let path = format!("/v1.41/commit?container={container}&repo=kip-whole&tag=test&{changes}");
    let (status, said) = engine.ask("POST", &path, b"{}".to_vec());
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&said));
    engine.ask("DELETE", &format!("/v1.41/containers/{container}?force=true"), Vec::new());
    server.deploy(&manifest(&[format!("  f:\n    image: {name}\n")]));
    let env = server.get("/env").json();
    assert_eq!(env["PORT"], "3456", "{env}");
    assert_eq!(env["KIPWAKE_FUNCTION"], "f");
    server.deploy(&manifest(&[format!("  f:\n    image: {name}\n    container: {{port: 9000}}\n")]));
    assert_eq!(server.get("/env").json()["FC_SERVER_PORT"], "9000");
}

fn in_the_network_of_the_host() {
    let server = Server::start();
    let program = subject().display().to_string();
    let text = format!(
        "  f:\n    image: {IMAGE}\n    run: [{program}]\n    container: {{network: host}}\n    env: {{SUBJECT_ANY: ''}}\n    instances: {{min: 2, max: 2}}\n"
    );
    server.deploy(&manifest(&[text]));
    until_true("both are there", || server.function()["hot"] == 2);
    let port = server.get("/env").json()["PORT"].clone();
    assert!(port.as_str().is_some_and(|port| port.parse::<u16>().unwrap() > 1_024), "{port}");
}

fn thirty_containers_start_serve_and_end() {
    let server = Server::start();
    server.deploy_subject(&[], "instances: {min: 30, max: 30}\nidle: {pause: never}");
    let long = std::time::Duration::from_secs(240);
    crate::support::until_within(long, "all are there", || (server.function()["hot"] == 30).then_some(()));
    let calls: Vec<_> = (0..30).map(|_| server.later("GET", "/delay/1500")).collect();
    let mut names: Vec<String> = calls
        .into_iter()
        .map(|call| {
            let answer = call.join().unwrap();
            assert_eq!(answer.status(), 200, "{answer:?}");
            answer.header("x-kip-instance").unwrap().to_owned()
        })
        .collect();
    names.sort();
    names.dedup();
    assert!(names.len() > 20, "requests are spread: {names:?}");
    let id = id_of(&server);
    server.kip(&["rm", "f"]).ok();
    crate::support::until_within(long, "nothing is left", || {
        engine().unwrap().containers(&id).is_empty().then_some(())
    });
}

fn a_program_says_when_an_instance_is_ready() {
    crate::lifecycle::a_program_says_when_an_instance_is_ready();
}

fn a_container_under_a_name_of_ours_is_replaced() {
    let engine = engine().unwrap();
    let server = Server::start();
    server.deploy_subject(&[], "instances: {max: 1}\nidle: {pause: never}");
    assert_eq!(server.get("/pid").status(), 200);
    let first: String = server.instances()[0]["id"].as_str().unwrap().to_owned();
    let (start, number) = first.rsplit_once('-').unwrap();
    let next = format!("{start}-{}", number.parse::<u32>().unwrap() + 1);
    let body = json!({"Image": IMAGE, "Cmd": ["/bin/sleep", "1000"]}).to_string().into_bytes();
    let path = format!("/v1.41/containers/create?name=kipwake-{}-{next}", id_of(&server));
    assert_eq!(engine.ask("POST", &path, body).0, 201);
    let _ = server.get("/die");
    until_true("another one serves", || server.get("/pid").header("x-kip-instance") == Some(next.as_str()));
}

fn a_device_by_its_specification_and_none_without() {
    let engine = engine().unwrap();
    let folder = std::path::Path::new("/etc/cdi");
    fs::create_dir_all(folder).unwrap();
    let specification = folder.join("kip-test.json");
    let text = json!({"cdiVersion": "0.5.0", "kind": "kip.test/card", "devices": [{"name": "0", "containerEdits": {
        "env": ["KIP_TEST_CARD=0"], "deviceNodes": [{"path": "/dev/kip-card0", "hostPath": "/dev/null", "type": "c", "major": 1, "minor": 3}],
    }}]});
    fs::write(&specification, text.to_string()).unwrap();
    let server = Server::with("[[device]]\nname = \"card0\"\nmemory = \"8GiB\"\ncdi = \"kip.test/card=0\"");
    let settings = "resources: {gpu: {cards: 1}}\nidle: {pause: never}";
    server.deploy_without_wait(&manifest(&[function("f", &[], settings)]));
    let answer = server.get("/env");
    match engine {
        bodies::Engine::Podman => {
            let env = answer.json();
            assert_eq!(
                (env["KIP_TEST_CARD"].clone(), env["KIPWAKE_DEVICES"].clone()),
                (json!("0"), json!("card0")),
                "{env}"
            );
            assert_eq!(env["CUDA_VISIBLE_DEVICES"], "0");
            let process = pid(&server.get("/pid"));
            assert!(std::path::Path::new(&format!("/proc/{process}/root/dev/kip-card0")).exists());
        }
        // This version of Docker knows no specifications, and no NVIDIA runtime is installed.
        bodies::Engine::Docker => {
            assert_eq!((answer.code().as_str(), answer.status()), ("KW-4026", 502), "{answer:?}");
            let why = server.kip(&["why", "f"]).ok().stdout;
            assert!(why.contains("card0"), "{why}");
        }
    }
}
