//! Files of other systems whose functions are containers.

use std::fs;

use serde_json::json;

use crate::bodies::{Engine, IMAGE, engine};
use crate::support::{Server, call, subject, until_true};

super::each_engine!(
    a_service_of_knative_is_deployed_as_it_is,
    a_file_with_a_container_on_a_slice_of_a_card_is_deployed
);

fn a_service_of_knative_is_deployed_as_it_is() {
    let server = Server::start();
    let file = server.folder().join("service.yaml");
    let service = |revision: &str, traffic: &str| {
        let program = subject();
        format!(
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: hello, namespace: default}}\nspec:\n  traffic: {traffic}\n\
             \x20 template:\n    metadata: {{name: {revision}, annotations: {{autoscaling.knative.dev/max-scale: \"2\"}}}}\n    spec:\n\
             \x20     containerConcurrency: 4\n      timeoutSeconds: 30\n      containers:\n        - image: {IMAGE}\n          command: [{}]\n\
             \x20         ports: [{{containerPort: 9321}}]\n          env: [{{name: WHO, value: {revision}}}]\n\
             \x20         resources: {{limits: {{cpu: 500m, memory: 128Mi}}}}\n",
            program.display()
        )
    };
    let deploy = |text: &str| {
        fs::write(&file, text).unwrap();
        server.kip(&["deploy", "-f", file.to_str().unwrap(), "--wait"]).ok()
    };
    let told = deploy(&service("hello-v1", "[{latestRevision: true, percent: 100}]"));
    assert!(told.stderr.contains("metadata.namespace has no effect"), "{}", told.stderr);
    let env = |path: &str| call(server.gateway, "GET", path, "", b"").json();
    let first = env("/f/hello/env");
    assert_eq!(
        (&first["WHO"], &first["PORT"], &first["K_SERVICE"], &first["K_REVISION"]),
        (&json!("hello-v1"), &json!("9321"), &json!("hello"), &json!("hello-v1")),
        "{first}"
    );
    // The next revision gets nothing at first, and each is called by the name that its file gave it.
    deploy(&service("hello-v2", "[{revisionName: hello-v1, percent: 100}]"));
    assert_eq!(env("/f/hello/env")["WHO"], "hello-v1");
    assert_eq!(env("/f/hello@hello-v2/env")["WHO"], "hello-v2");
    deploy(&service("hello-v2", "[{revisionName: hello-v2, percent: 100}]"));
    until_true("the second serves", || env("/f/hello/env")["WHO"] == "hello-v2");
    assert_eq!(env("/f/hello@hello-v1/env")["WHO"], "hello-v1");
}

/// The form of the published example: a container on a slice of a card, with an HTTP trigger and a log configuration.
fn a_file_with_a_container_on_a_slice_of_a_card_is_deployed() {
    // Docker of this version knows no specifications of devices.
    let has_card = engine() == Some(Engine::Podman);
    let folder = std::path::Path::new("/etc/cdi");
    fs::create_dir_all(folder).unwrap();
    let text = json!({"cdiVersion": "0.5.0", "kind": "kip.slice/card", "devices": [{"name": "0", "containerEdits": {
        "env": ["KIP_TEST_CARD=0"], "deviceNodes": [{"path": "/dev/kip-slice0", "hostPath": "/dev/null", "type": "c", "major": 1, "minor": 3}],
    }}]});
    fs::write(folder.join("kip-slice.json"), text.to_string()).unwrap();
    let server = Server::with("[[device]]\nname = \"card0\"\nmemory = \"16GiB\"\ncdi = \"kip.slice/card=0\"");
    let card = if has_card {
        "gpuConfig: {gpuMemorySize: 8192, gpuType: fc.gpu.tesla.1}"
    } else {
        "description: without a card"
    };
    let program = subject();
    let file = server.folder().join("s.yaml");
    let text = format!(
        "edition: 3.0.0\nname: container-demo\naccess: default\nvars: {{region: cn-shanghai}}\nresources:\n  demo:\n    component: fc3\n\
         \x20   props:\n      region: ${{vars.region}}\n      functionName: detection\n      handler: not-used\n      timeout: 1200\n\
         \x20     memorySize: 512\n      cpu: 0.5\n      diskSize: 512\n      instanceConcurrency: 1\n      runtime: custom-container\n\
         \x20     environmentVariables: {{FCGPU_RUNTIME_SHMSIZE: '134217728'}}\n\
         \x20     customContainerConfig: {{image: '{IMAGE}', port: 9000, entrypoint: ['{}']}}\n      {card}\n\
         \x20     internetAccess: true\n      logConfig: {{enableRequestMetrics: true, logBeginRule: DefaultRegex, project: p, logstore: l}}\n\
         \x20     triggers:\n        - {{triggerName: http, triggerType: http, triggerConfig: {{authType: anonymous, methods: [GET, POST]}}}}\n",
        program.display()
    );
    fs::write(&file, text).unwrap();
    server.kip(&["deploy", "-t", file.to_str().unwrap(), "--yes"]).ok();
    let env = call(server.gateway, "GET", "/f/detection/env", "", b"");
    assert_eq!(env.status(), 200, "{env:?}");
    let env = env.json();
    assert_eq!(env["FC_SERVER_PORT"], "9000", "{env}");
    let process = server.known()[0];
    let mounts = fs::read_to_string(format!("/proc/{process}/mounts")).unwrap();
    let shm = mounts.lines().find(|line| line.contains(" /dev/shm ")).unwrap_or_default();
    assert!(shm.contains("size=131072k"), "{shm}");
    if has_card {
        assert_eq!((&env["KIP_TEST_CARD"], &env["KIPWAKE_DEVICES"]), (&json!("0"), &json!("card0")), "{env}");
        let devices = server.api_get("/api/v1/devices").json();
        assert_eq!(devices[0]["granted"], json!(8u64 << 30), "{devices}");
    }
    // What is provisioned for it, by the file beside it.
    let policies = server.folder().join("provision.json");
    fs::write(
        &policies,
        json!({ "targetTrackingPolicies": [{
            "name": "p", "startTime": "2024-07-01T10:00:00.000Z", "endTime": "2024-07-30T10:00:00.000Z",
            "metricType": "ProvisionedConcurrencyUtilization", "metricTarget": 0.3, "minCapacity": 1, "maxCapacity": 2,
        }] })
        .to_string(),
    )
    .unwrap();
    let words = ["s", "provision", "put", "--qualifier", "LATEST", "--target", "1", "--targetTrackingPolicies"];
    let words: Vec<&str> =
        words.into_iter().chain([policies.to_str().unwrap(), "-t", file.to_str().unwrap()]).collect();
    server.kip(&words).ok();
    until_true("it is provisioned", || {
        let all = server.instances();
        all.iter().any(|one| one["function"] == "detection" && one["kind"] == "provisioned")
    });
    server.kip(&["remove", "-t", file.to_str().unwrap(), "--yes"]).ok();
    until_true("nothing is left", || server.instances().is_empty());
}
