use kip_spec::container::{Container, Mount, Network};
use kip_spec::{Bytes, MilliCpu};
use serde_json::{Value, json};

use super::*;
use crate::body::Devices;

fn info(kind: EngineKind) -> EngineInfo {
    EngineInfo {
        kind,
        version: "1".to_owned(),
        api: "1.41".to_owned(),
        socket: "/s".into(),
        storage: "overlay2".to_owned(),
        cgroup: 2,
        rootless: false,
        elsewhere: false,
        architecture: "amd64".to_owned(),
        nvidia: false,
        cdi: Vec::new(),
    }
}

fn image() -> ImageFacts {
    ImageFacts {
        id: "sha256:ab".to_owned(),
        digests: Vec::new(),
        env: vec!["PATH=/bin".to_owned()],
        port: Some(80),
        architecture: None,
        has_command: true,
    }
}

fn order() -> Order {
    Order {
        instance: "i-1-2-3".parse().expect("an id"),
        function: "ocr".parse().expect("a name"),
        owner: 1,
        version: kip_spec::VersionId(7),
        label: "r2".to_owned(),
        program: None,
        argv: vec!["--port=${PORT}".to_owned(), "${OWN}".to_owned()],
        runs: None,
        container: None,
        directory: "/app".into(),
        owns_directory: false,
        code: None,
        folders: Vec::new(),
        reads: Vec::new(),
        writes: None,
        env: [("OWN", "${PATH}:/own")].map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        secrets: std::collections::BTreeMap::new(),
        memory: Some(Bytes(64 << 20)),
        cpu: Some(MilliCpu(1_500)),
        memo: "provisioned".to_owned(),
        ready: kip_spec::function::ReadyProbe::Tcp,
        probing: kip_spec::probe::ProbeTiming::default().as_ready(),
        startup: kip_spec::Millis::from_secs(1),
        ports: Vec::new(),
        port: None,
        listen: kip_spec::function::Listen::Port,
        user: None,
        token: kip_spec::named_secret::SecretText::default(),
        devices: None,
        initialize: None,
        pre_stop: None,
    }
}

fn planned(order: &Order, container: &Container, info: &EngineInfo) -> Plan {
    let image = image();
    let devices = ["kip.test/card=0".to_owned(), "kip.test/card=1".to_owned()];
    let around =
        PlanInput { server: "s1", info, image: &image, ports: &[5_000, 5_001], devices: &devices, publish: None };
    plan(order, container, around).expect("a plan")
}

fn sent(plan: &Plan) -> Value {
    serde_json::to_value(&plan.body).expect("JSON")
}

fn variable(plan: &Plan, name: &str) -> Option<String> {
    let env = plan.body.env.clone().unwrap_or_default();
    env.iter().find_map(|pair| pair.strip_prefix(&format!("{name}=")).map(str::to_owned))
}

#[test]
fn limits_labels_and_what_we_decide_ourselves_are_sent() {
    let container = Container { image: "x".to_owned(), shm: Some(Bytes(1 << 20)), ..Container::default() };
    let plan = planned(&order(), &container, &info(EngineKind::Docker));
    let body = sent(&plan);
    let host = &body["HostConfig"];
    for (key, value) in [
        ("Memory", json!(64 << 20)),
        ("MemorySwap", json!(64 << 20)),
        ("NanoCpus", json!(1_500_000_000)),
        ("ShmSize", json!(1 << 20)),
        ("NetworkMode", json!("bridge")),
        ("SecurityOpt", json!(["no-new-privileges"])),
        ("LogConfig", json!({"Type": "json-file", "Config": {"max-size": "16m", "max-file": "4"}})),
        ("PortBindings", Value::Null),
        ("DeviceRequests", Value::Null),
        ("CapDrop", Value::Null),
        ("Privileged", Value::Null),
    ] {
        assert_eq!(host[key], value, "{key}");
    }
    assert_eq!(host["RestartPolicy"]["Name"], "no");
    assert_eq!(body["Healthcheck"]["Test"], json!(["NONE"]));
    assert_eq!((body["Image"].clone(), body["Cmd"].clone()), (json!("sha256:ab"), json!(["--port=80", "/bin:/own"])));
    assert_eq!(body["Entrypoint"], Value::Null, "the image's own stays");
    assert_eq!((plan.port, plan.published), (80, false));
    assert_eq!(variable(&plan, "PORT").as_deref(), Some("80"));
    assert_eq!(variable(&plan, "HOME"), None, "nothing of the host's environment");
    let read = super::labels::read(&plan.body.labels.clone().expect("labels")).expect("ours");
    assert_eq!((read.version, read.memo.as_str(), read.port), (Some(kip_spec::VersionId(7)), "provisioned", 80));
    assert_eq!(plan.body.labels.expect("labels")[super::labels::SERVER], "s1");
}

#[test]
fn an_engine_without_addresses_publishes_on_loopback_alone() {
    let rootless = EngineInfo { rootless: true, ..info(EngineKind::Podman) };
    let plan = planned(&order(), &Container::default(), &rootless);
    assert!(plan.published);
    assert_eq!(sent(&plan)["HostConfig"]["PortBindings"], json!({"80/tcp": [{"HostIp": "127.0.0.1"}]}));
}

#[test]
fn in_the_network_of_the_host_it_gets_a_port_of_the_host() {
    let container = Container { network: Network::Host, port: Some(9_000), ..Container::default() };
    let plan = planned(&order(), &container, &info(EngineKind::Docker));
    assert_eq!((plan.port, plan.published), (5_000, false));
    assert_eq!(sent(&plan)["HostConfig"]["NetworkMode"], "host");
}

#[test]
fn hardened_and_mounts() {
    let mount = Mount { source: "/m".to_owned(), target: "/model".to_owned(), writable: false };
    let container = Container { hardened: true, mounts: vec![mount], ..Container::default() };
    let host = sent(&planned(&order(), &container, &info(EngineKind::Docker)))["HostConfig"].clone();
    assert_eq!((host["CapDrop"].clone(), host["ReadonlyRootfs"].clone()), (json!(["ALL"]), json!(true)));
    assert_eq!(host["Mounts"][0], json!({"Target": "/model", "Source": "/m", "Type": "bind", "ReadOnly": true}));
}

#[test]
fn devices_by_specification_first_by_request_second_and_else_refused() {
    let devices = Devices { numbers: vec![1], names: vec!["gpu1".to_owned()], ..Devices::default() };
    let order = Order { devices: Some(devices), ..order() };
    let by_name = EngineInfo { cdi: vec!["/etc/cdi".to_owned()], nvidia: true, ..info(EngineKind::Docker) };
    let plan = planned(&order, &Container::default(), &by_name);
    assert_eq!(
        sent(&plan)["HostConfig"]["DeviceRequests"],
        json!([{"Driver": "cdi", "DeviceIDs": ["kip.test/card=1"]}])
    );
    // It sees one device, which is its first.
    assert_eq!(variable(&plan, "CUDA_VISIBLE_DEVICES").as_deref(), Some("0"));
    assert_eq!(variable(&plan, "KIPWAKE_DEVICES").as_deref(), Some("gpu1"));

    let runtime = EngineInfo { nvidia: true, ..info(EngineKind::Docker) };
    let plan = planned(&order, &Container::default(), &runtime);
    assert_eq!(
        sent(&plan)["HostConfig"]["DeviceRequests"],
        json!([{"Driver": "nvidia", "DeviceIDs": ["1"], "Capabilities": [["gpu"]]}])
    );
    assert_eq!(variable(&plan, "NVIDIA_VISIBLE_DEVICES").as_deref(), Some("1"));

    let podman = planned(&order, &Container::default(), &info(EngineKind::Podman));
    assert_eq!(
        (podman.cdi, podman.body.host_config.and_then(|host| host.device_requests)),
        (vec!["kip.test/card=1".to_owned()], None)
    );

    let image = image();
    let none = info(EngineKind::Docker);
    let around = PlanInput { server: "s", info: &none, image: &image, ports: &[], devices: &[], publish: None };
    let error = plan_error(&order, around);
    assert!(error.contains("it needs gpu1") && error.contains("offers no devices"), "{error}");
    // A function without a device on a host that has some sees none.
    let order = Order { devices: Some(Devices::default()), ..order };
    let plan = plan_of(&order, around);
    assert_eq!(variable(&plan, "CUDA_VISIBLE_DEVICES").as_deref(), Some(""));
}

fn plan_error(order: &Order, around: PlanInput<'_>) -> String {
    plan(order, &Container::default(), around).expect_err("refused")
}

fn plan_of(order: &Order, around: PlanInput<'_>) -> Plan {
    plan(order, &Container::default(), around).expect("a plan")
}
