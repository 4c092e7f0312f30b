use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{Effect, KnativeFile, is_knative, read_knative};

fn read(text: &str) -> KnativeFile {
    read_knative("service.yaml", text).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn problem(text: &str) -> String {
    let problems = read_knative("service.yaml", text).expect_err("it has a fault");
    let first = &problems[0];
    let line = first.place.as_ref().map_or(0, |place| place.line);
    format!("{} {} (line {line})", first.code, first.message)
}

fn service(spec: &str) -> String {
    format!("apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: s}}\nspec: {spec}\n")
}

fn container(container: &str) -> String {
    service(&format!("{{template: {{spec: {{containers: [{container}]}}}}}}"))
}

fn function(text: &str) -> Value {
    Value::Object(read(text).services.remove(0).function)
}

#[test]
fn a_service_becomes_a_function() {
    let text = "apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: gpu-share, namespace: default}
spec:
  template:
    metadata:
      name: gpu-share-v1
      annotations: {autoscaling.knative.dev/window: \"40s\", autoscaling.knative.dev/maxScale: \"3\"}
    spec:
      containerConcurrency: 2
      timeoutSeconds: 12
      containers:
        - name: user-container
          image: registry.example/demo:1
          args: [--model, \"$(MODEL)\", \"$5\"]
          ports: [{containerPort: 6666, name: h2c, protocol: TCP}]
          env:
            - {name: MODEL, value: small}
            - {name: TOKEN, valueFrom: {secretKeyRef: {name: hub, key: token}}}
          resources: {requests: {cpu: 500m}, limits: {memory: 1.5Gi, aliyun.com/gpu-mem: \"3\"}}
          readinessProbe: {httpGet: {path: /ready}, periodSeconds: 3}
          livenessProbe: {httpGet: {port: 6666}}
          startupProbe: {tcpSocket: {port: 6666}, failureThreshold: 30, periodSeconds: 4}
          volumeMounts: [{mountPath: /data, name: data}]
";
    let found = read(text);
    let one = &found.services[0];
    assert_eq!((one.name.as_str(), one.revision.as_deref()), ("gpu-share", Some("gpu-share-v1")));
    let expected = json!({
        "image": "registry.example/demo:1",
        "run": ["--model", "${MODEL}", "$5"],
        "container": { "port": 6666 },
        "protocol": "h2c",
        "env": {
            "MODEL": "small",
            "TOKEN": { "secret": "hub.token" },
            "K_SERVICE": "gpu-share",
            "K_CONFIGURATION": "gpu-share",
            "K_REVISION": "gpu-share-v1",
        },
        "resources": { "cpu": "500m", "memory": "1610612736B", "gpu": { "memory": "3GiB" } },
        "probes": { "ready": { "path": "/ready", "period": "3s" }, "live": "/" },
        "timeouts": { "startup": "120s", "first_byte": "12s" },
        "instances": { "concurrency": 2 },
        "scaling": { "mode": "kpa", "annotations": { "window": "40s", "maxScale": "3" } },
    });
    assert_eq!(Value::Object(one.function.clone()), expected);
    let idle: Vec<&str> = found.without_effect().map(|key| key.path.as_str()).collect();
    let of_container = |rest: &str| format!("spec.template.spec.containers[0].{rest}");
    let expected = [
        "metadata.namespace".to_owned(),
        of_container("name"),
        of_container("startupProbe.tcpSocket.port"),
        of_container("volumeMounts[0].mountPath"),
        of_container("volumeMounts[0].name"),
    ];
    assert_eq!(idle, expected);
    assert_eq!(found.effects.iter().filter(|key| key.line == 0).count(), 0, "each has its place");
    let gpu = found.effects.iter().find(|key| key.path.ends_with("[aliyun.com/gpu-mem]")).unwrap();
    assert_eq!(gpu.effect, Effect::Mapped);
}

#[test]
fn what_a_kip_yaml_makes_of_it_is_valid() {
    let text = container("{image: i, command: [a], args: [b], workingDir: /w, securityContext: {runAsUser: 1000}}");
    let document = read(&text).document();
    let source = kip_manifest::Source {
        file: "kip.yaml",
        text: &document,
        directory: std::path::Path::new("/"),
        deployer: kip_manifest::Deployer { variables: &BTreeMap::new(), env_files: &BTreeMap::new() },
    };
    let manifest = kip_manifest::read(&source).unwrap_or_else(|problems| panic!("{problems:?}\n{document}"));
    assert_eq!(manifest.functions.len(), 1);
    let made = function(&text);
    assert_eq!(made["container"], json!({ "port": 8080, "user": "1000" }));
    assert_eq!((&made["entrypoint"], &made["run"], &made["dir"]), (&json!(["a"]), &json!(["b"]), &json!("/w")));
    assert_eq!(made["instances"]["concurrency"], json!({ "hard": 1000, "soft": 100 }), "no limit");
}

#[test]
fn several_objects_are_read_with_true_places_and_others_are_named() {
    let one = container("{image: a}");
    let text = format!(
        "# first\n---\n{one}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\n--- # last\n{}",
        one.replace("name: s}", "name: t}")
    );
    let found = read(&text);
    let names: Vec<&str> = found.services.iter().map(|one| one.name.as_str()).collect();
    assert_eq!((names, found.others), (vec!["s", "t"], vec!["ConfigMap c".to_owned()]));
    let broken = format!(
        "{one}---\n{}",
        container("{image: b, ports: [{containerPort: many}]}").replace("name: s}", "name: t}")
    );
    assert!(problem(&broken).contains("(line 9)"), "{}", problem(&broken));
    assert!(is_knative(&text) && !is_knative("api: kip/v1\n") && !is_knative("apiVersion: apps/v1\n"));
}

#[test]
fn traffic_goes_to_the_latest_and_to_named_revisions() {
    let with = |traffic: &str| {
        service(&format!(
            "{{traffic: {traffic}, template: {{metadata: {{name: s-v2}}, spec: {{containers: [{{image: i}}]}}}}}}"
        ))
    };
    let shares = |traffic: &str| function(&with(traffic)).get("traffic").cloned();
    assert_eq!(shares("[{latestRevision: true, percent: 100}]"), None);
    assert_eq!(shares("[{revisionName: s-v2, percent: 100}]"), None, "the one of this file");
    let split = "[{revisionName: s-v1, percent: 75, tag: old}, {latestRevision: true, percent: 25}]";
    assert_eq!(shares(split), Some(json!({ "s-v1": 75, "LATEST": 25 })));
    assert!(problem(&with("[{latestRevision: true, percent: 90}]")).contains("add up to 90"));
}

#[test]
fn what_cannot_be_run_is_refused_by_name() {
    let rows = [
        (container("{image: <YOUR-IMAGE>}"), "KW-1033 `<YOUR-IMAGE>` is a placeholder"),
        (container("{image: \"ko://knative.dev/x\"}"), "which `ko` builds"),
        (container("{name: a}"), "the container has no image"),
        (
            container("{image: a, ports: [{containerPort: 1}]}, {image: b, name: proxy}"),
            "KW-1037 Service `s` has 2 containers; one is run. Further ones: proxy",
        ),
        (container("{image: a, ports: [{containerPort: 1, name: grpc}]}"), "a port is called http1 or h2c"),
        (container("{image: a, ports: [{containerPort: 1}, {containerPort: 2}]}"), "a revision has one port"),
        (
            container("{image: a, env: [{name: X, valueFrom: {configMapKeyRef: {name: c, key: k}}}]}"),
            "`X` takes its value from configMapKeyRef",
        ),
        (container("{image: a, envFrom: [{configMapRef: {name: c}}]}"), "envFrom takes variables"),
        (container("{image: a, resources: {limits: {memory: lots}}}"), "`lots` is not an amount of memory"),
        (service("{template: {spec: {containers: []}}}"), "has no container"),
        (service("{}"), "has no spec.template"),
        ("apiVersion: serving.knative.dev/v1\nkind: Route\nmetadata: {name: r}\n".to_owned(), "declares no Service"),
        (
            service("{template: {spec: {timeoutSeconds: soon, containers: [{image: a}]}}}"),
            "`timeoutSeconds` is not a whole number",
        ),
    ];
    for (text, said) in rows {
        assert!(problem(&text).contains(said), "{said}: {}", problem(&text));
    }
}

#[test]
fn amounts_of_memory_are_read_as_kubernetes_reads_them() {
    let bytes = |amount: &str| {
        let text = container(&format!("{{image: a, resources: {{limits: {{memory: {amount}}}}}}}"));
        function(&text)["resources"]["memory"].as_str().unwrap().to_owned()
    };
    let rows = [
        ("128974848", "128974848B"),
        ("129e6", "129000000B"),
        ("129M", "129000000B"),
        ("123Mi", "128974848B"),
        ("2Gi", "2147483648B"),
    ];
    for (amount, expected) in rows {
        assert_eq!(bytes(amount), expected, "{amount}");
    }
}
