//! Engines that are killed and started again, under load and under a deployment of the form that published guides have.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use super::own_engine::OwnEngine;
use crate::bodies::{Engine, IMAGE, engine};
use crate::fc::{python, root};
use crate::support::{Server, apart, call, function, manifest, subject, until_true, until_within};

/// One after the other: the engines of these tests share a bridge.
static TURN: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

super::each_engine!(
    an_engine_is_killed_and_started_again_under_load,
    an_engine_that_ends_its_containers_is_no_loss,
    the_published_form_goes_through_both_doors_and_all_restarts,
);

fn an_engine_is_killed_and_started_again_under_load() {
    let _turn = TURN.lock();
    let mut own = OwnEngine::start(true);
    let server = Server::start();
    server.deploy(&manifest(&[function("f", &[], "instances: {min: 1, max: 3}\nidle: {pause: never}")]));
    until_true("it runs", || server.function()["hot"] == 1);
    let (over, served, failed) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let (gateway, over, served, failed) = (server.gateway, over.clone(), served.clone(), failed.clone());
            apart(move || {
                while !over.load(Ordering::SeqCst) {
                    let answer = call(gateway, "GET", "/f/f/delay/20", "", b"");
                    let count = if answer.status() == 200 { &served } else { &failed };
                    count.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let more = |by: usize| {
        let before = served.load(Ordering::SeqCst);
        until_true("requests are served", || served.load(Ordering::SeqCst) >= before + by);
    };
    more(20);
    for _ in 0..2 {
        own.kill();
        more(20);
        own.run();
        more(20);
    }
    over.store(true, Ordering::SeqCst);
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    assert_eq!(failed.load(Ordering::SeqCst), 0, "containers go on while their engine is away");
    // And the server follows the engine again: an end is noticed, a start works.
    let ids: Vec<serde_json::Value> = server.instances().iter().map(|info| info["id"].clone()).collect();
    let _ = server.get("/die");
    until_within(Duration::from_secs(60), "its end is seen", || {
        let now: Vec<serde_json::Value> = server.instances().iter().map(|info| info["id"].clone()).collect();
        ids.iter().any(|id| !now.contains(id)).then_some(())
    });
    server.kip(&["rm", "f"]).ok();
    server.deploy(&manifest(&[function("f", &[], "")]));
    assert_eq!(server.get("/pid").status(), 200, "a start works");
    server.kip(&["stop"]).ok();
}

/// Docker without live-restore ends containers with itself; a host that boots ends those of Podman.
fn an_engine_that_ends_its_containers_is_no_loss() {
    if engine() == Some(Engine::Podman) {
        // Its service keeps nothing and ends nothing: the test above is all there is to see.
        return;
    }
    let _turn = TURN.lock();
    let mut own = OwnEngine::start(false);
    let server = Server::start();
    server.deploy(&manifest(&[function("f", &[], "instances: {max: 1}\nidle: {pause: never}")]));
    let first = server.get("/pid").header("x-kip-instance").unwrap().to_owned();
    own.kill();
    own.run();
    until_within(Duration::from_secs(60), "its end is seen", || {
        server.instances().iter().all(|info| info["id"] != first.as_str()).then_some(())
    });
    let answer = server.get("/pid");
    assert_eq!(answer.status(), 200, "{answer:?}");
    server.kip(&["stop"]).ok();
}

/// The card is declared and not there: its verification is off in this test only.
fn the_published_form_goes_through_both_doors_and_all_restarts() {
    let _turn = TURN.lock();
    let mut own = OwnEngine::start(true);
    let mut server = Server::with("[[device]]\nname = \"card0\"\nmemory = \"32GiB\"\ntype = \"tesla\"");
    let start = |server: &mut Server| {
        let mut command = server.serve_command();
        command.env("KIPWAKE_TEST_CARDS", "pretended");
        server.start_by(command);
    };
    server.terminate();
    start(&mut server);
    let folder = server.folder().join("app");
    fs::create_dir_all(&folder).unwrap();
    let (program, file) = (subject().display().to_string(), folder.join("s.yaml"));
    let text = format!(
        "edition: 3.0.0\nname: shelf-demo\naccess: default\nvars: {{region: cn-hangzhou}}\nresources:\n  shelves:\n    component: fc3\n\
         \x20   props:\n      region: ${{vars.region}}\n      description: counts what is on shelves\n      functionName: shelves\n      handler: none\n\
         \x20     timeout: 600\n      memorySize: 512\n      cpu: 0.5\n      gpuMemorySize: 8192\n      diskSize: 512\n      instanceConcurrency: 1\n\
         \x20     concurrencyConfig: {{reservedConcurrency: 2}}\n      runtime: custom-container\n      environmentVariables: {{FCGPU_RUNTIME_SHMSIZE: '134217728'}}\n\
         \x20     customContainerConfig: {{image: '{IMAGE}', port: 9000, entrypoint: ['{program}']}}\n      internetAccess: true\n\
         \x20     logConfig: {{enableRequestMetrics: true, enableInstanceMetrics: true, logBeginRule: DefaultRegex, project: p, logstore: l}}\n\
         \x20     gpuConfig: {{gpuMemorySize: 8192, gpuType: fc.gpu.tesla.1}}\n\
         \x20     triggers:\n        - {{triggerName: httpTrigger, triggerType: http, triggerConfig: {{authType: anonymous, methods: [GET, POST]}}}}\n"
    );
    fs::write(&file, text).unwrap();
    let policies = folder.join("provision.json");
    let policy = json!({ "targetTrackingPolicies": [{
        "name": "scaling-policy-demo", "startTime": "2024-07-01T16:00:00.000Z", "endTime": "2024-07-30T16:00:00.000Z",
        "metricType": "ProvisionedConcurrencyUtilization", "metricTarget": 0.3, "minCapacity": 2, "maxCapacity": 30,
    }] });
    fs::write(&policies, policy.to_string()).unwrap();
    let (file, policies) = (file.to_str().unwrap(), policies.to_str().unwrap());

    // The first door: the file.
    server.kip(&["deploy", "-t", file, "--yes"]).ok();
    let serves = |server: &Server, name: &str| {
        let answer = call(server.gateway, "POST", &format!("/f/{name}/echo"), "content-type: text/plain\r\n", b"hello");
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer
    };
    assert_eq!(serves(&server, "shelves").header("x-kip-start"), Some("cold"));
    let env = call(server.gateway, "GET", "/f/shelves/env", "", b"").json();
    assert_eq!((&env["FC_SERVER_PORT"], &env["KIPWAKE_DEVICES"]), (&json!("9000"), &json!("card0")), "{env}");
    let put = [
        "s",
        "provision",
        "put",
        "--qualifier",
        "LATEST",
        "--target",
        "2",
        "--targetTrackingPolicies",
        policies,
        "-t",
        file,
        // The idle mode: what is provisioned sleeps while nothing is asked of it.
        "--alwaysAllocateCPU",
        "false",
        "--alwaysAllocateGPU",
        "false",
    ];
    server.kip(&put).ok();
    let provisioned = |server: &Server| {
        let all = server.instances();
        let of = |info: &&serde_json::Value| info["function"] == "shelves" && info["kind"] == "provisioned";
        all.iter().filter(of).map(|info| info["id"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    until_within(Duration::from_secs(60), "two are provisioned", || (provisioned(&server).len() == 2).then_some(()));
    let paused = |server: &Server| server.instances().iter().any(|info| info["state"] == "paused");
    until_within(Duration::from_secs(90), "an idle one is paused", || paused(&server).then_some(()));
    serves(&server, "shelves");

    // The server is restarted, then killed; the engine is killed and started again.
    let before = provisioned(&server);
    server.terminate();
    start(&mut server);
    serves(&server, "shelves");
    server.crash();
    start(&mut server);
    serves(&server, "shelves");
    own.kill();
    serves(&server, "shelves");
    own.run();
    serves(&server, "shelves");
    until_true("all are there as before", || provisioned(&server) == before);

    // The second door: the official client, on the same server.
    if let Some(python) = python() {
        let made = server.make_pair(&["sdk", "--role", "deploy"]);
        let output = Command::new(python)
            .arg(root().join("tests/clients/fc_container.py"))
            .args([&server.api.to_string(), &made.0, &made.1, IMAGE, &program])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serves(&server, "counted");
        server.kip(&["rm", "counted"]).ok();
    }

    let put = ["s", "provision", "put", "--qualifier", "LATEST", "--target", "0", "-t", file];
    server.kip(&put).ok();
    server.kip(&["remove", "-t", file, "--yes"]).ok();
    until_within(Duration::from_secs(60), "nothing is left", || server.instances().is_empty().then_some(()));
    server.kip(&["stop"]).ok();
}
