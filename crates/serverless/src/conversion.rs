//! Props of edition 1 in the words of edition 3.

use kip_manifest::tree::{Kind, Node};

use crate::node::{get, items, map_node, pairs, text, text_node};

/// The name on the server of a function in a service: names are flat there.
pub(crate) fn flat_name(service: &str, function: &str) -> String {
    let fit = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' }).collect()
    };
    // A placeholder is named by another check.
    if service.contains("{{") || function.contains("{{") {
        return function.to_owned();
    }
    match service {
        "" => fit(function),
        service => format!("{}-{}", fit(service), fit(function)),
    }
}

/// Fields of a function with the same name and meaning.
const SAME: [&str; 14] = [
    "description",
    "runtime",
    "handler",
    "timeout",
    "memorySize",
    "cpu",
    "diskSize",
    "instanceConcurrency",
    "environmentVariables",
    "layers",
    "customDNS",
    "internetAccess",
    "customRuntimeConfig",
    "instanceLifecycleConfig",
];
/// Settings of a service that become those of its function.
const OF_SERVICE: [&str; 7] =
    ["logConfig", "nasConfig", "ossMountConfig", "vpcConfig", "tracingConfig", "internetAccess", "vpcBinding"];

/// Props of edition 1 as props of edition 3.
pub(crate) fn convert(props: &Node, changes: &mut Vec<String>) -> Node {
    let empty = Node { at: props.at, kind: Kind::Map(Vec::new()) };
    let (service, function) = (get(props, "service").unwrap_or(&empty), get(props, "function").unwrap_or(&empty));
    let mut made: Vec<(&str, Node)> = Vec::new();
    let (service_name, name) = (text(service, "name").unwrap_or_default(), text(function, "name").unwrap_or_default());
    if !name.is_empty() {
        let flat = flat_name(service_name, name);
        let place = get(function, "name").map_or(function.at, |node| node.at);
        if !service_name.is_empty() {
            changes.push(format!("the function {name} of the service {service_name} is named {flat}"));
        }
        made.push(("functionName", text_node(place, flat)));
    }
    if let Some(region) = get(props, "region") {
        made.push(("region", region.clone()));
    }
    for key in OF_SERVICE {
        if let Some(node) = get(service, key) {
            changes.push(format!("`service.{key}` is `{key}` of {name}"));
            let is_auto = key == "nasConfig" && node.scalar() == Some("auto");
            made.push((key, if is_auto { crate::share::auto(node.at, service_name) } else { node.clone() }));
        }
    }
    let role = get(service, "role").and_then(|role| role.scalar().map(|text| text_node(role.at, text)));
    if let Some(role) = role.filter(|role| role.scalar() != Some("auto")) {
        made.push(("role", role));
    }
    for key in SAME {
        if let Some(node) = get(function, key)
            && !made.iter().any(|(there, _)| *there == key)
        {
            made.push((key, node.clone()));
        }
    }
    if let Some(code) = code(function, changes, name) {
        made.push(("code", code));
    }
    program(function, &mut made, changes, name);
    initializer(function, &mut made, changes, name);
    gpu(function, &mut made, changes, name);
    if let Some(node) = get(function, "asyncConfiguration") {
        changes.push(format!("`asyncConfiguration` is `asyncInvokeConfig` of {name}"));
        made.push(("asyncInvokeConfig", asynchronous(node)));
    }
    if let Some(list) = get(props, "triggers") {
        let all = items(list).iter().map(trigger).collect();
        if !items(list).is_empty() {
            changes.push(format!(
                "`name`, `type` and `config` of triggers are `triggerName`, `triggerType` and `triggerConfig` of {name}"
            ));
        }
        made.push(("triggers", Node { at: list.at, kind: Kind::List(all) }));
    }
    if let Some(list) = get(props, "customDomains") {
        let all: Vec<Node> = items(list).iter().flat_map(domains).collect();
        if !all.is_empty() {
            changes.push(format!("`customDomains` of {name} are `customDomain`, one for each route"));
        }
        made.push(("customDomain", Node { at: list.at, kind: Kind::List(all) }));
    }
    map_node(props.at, made)
}

/// A custom domain with several routes as one for each of them.
fn domains(domain: &Node) -> Vec<Node> {
    let routes = get(domain, "routeConfigs").map(items).unwrap_or_default();
    let one = |route: &Node| {
        let own: Vec<(&str, Node)> = ["path", "methods", "qualifier"]
            .into_iter()
            .filter_map(|name| Some((name, get(route, name)?.clone())))
            .collect();
        let same = ["domainName", "protocol", "certConfig"].into_iter();
        let same = same.filter_map(|name| Some((name, get(domain, name)?.clone())));
        map_node(domain.at, same.chain([("route", map_node(route.at, own))]).collect())
    };
    routes.iter().map(one).collect()
}

fn code(function: &Node, changes: &mut Vec<String>, name: &str) -> Option<Node> {
    if let Some(node) = get(function, "codeUri") {
        changes.push(format!("`codeUri` is `code` of {name}"));
        return Some(node.clone());
    }
    let bucket = get(function, "ossBucket")?;
    Some(map_node(bucket.at, vec![("ossBucketName", bucket.clone())]))
}

/// A list that edition 1 takes as a list or as JSON in a text.
fn words(node: &Node) -> Node {
    match (&node.kind, node.scalar().map(str::trim)) {
        (Kind::List(_), _) => node.clone(),
        (_, Some(json)) if json.starts_with('[') => {
            let read: Vec<String> = serde_json::from_str(json).unwrap_or_default();
            Node { at: node.at, kind: Kind::List(read.into_iter().map(|word| text_node(node.at, word)).collect()) }
        }
        (_, Some("") | None) => Node { at: node.at, kind: Kind::List(Vec::new()) },
        (_, Some(word)) => Node { at: node.at, kind: Kind::List(vec![text_node(node.at, word)]) },
    }
}

/// The port, the image and the health check, which edition 3 has within the configuration of the runtime.
fn program(function: &Node, made: &mut Vec<(&str, Node)>, changes: &mut Vec<String>, name: &str) {
    let port = get(function, "caPort").or_else(|| get(function, "cAPort"));
    let is_image = text(function, "runtime").is_some_and(|runtime| runtime == "custom-container");
    let target = if is_image { "customContainerConfig" } else { "customRuntimeConfig" };
    let mut own: Vec<(Node, Node)> = match (is_image, get(function, target)) {
        (true, Some(config)) => image(config),
        (false, Some(config)) => pairs(config).to_vec(),
        (_, None) => Vec::new(),
    };
    let has = |own: &[(Node, Node)], key: &str| own.iter().any(|(name, _)| name.scalar() == Some(key));
    if let Some(port) = port
        && !has(&own, "port")
    {
        changes.push(format!("`caPort` is `{target}.port` of {name}"));
        own.push((text_node(port.at, "port"), port.clone()));
    }
    if let Some(health) = get(function, "customHealthCheckConfig") {
        changes.push(format!("`customHealthCheckConfig` is `{target}.healthCheckConfig` of {name}"));
        own.push((text_node(health.at, "healthCheckConfig"), health.clone()));
    }
    made.retain(|(key, _)| *key != target);
    if !own.is_empty() {
        made.push((target, Node { at: function.at, kind: Kind::Map(own) }));
    }
}

/// In edition 1 `command` is the entry point and `args` are its words.
fn image(config: &Node) -> Vec<(Node, Node)> {
    let mut own = Vec::new();
    for (key, value) in pairs(config) {
        match key.scalar() {
            Some("command") => own.push((text_node(key.at, "entrypoint"), words(value))),
            Some("args") => own.push((text_node(key.at, "command"), words(value))),
            _ => own.push((key.clone(), value.clone())),
        }
    }
    own
}

fn initializer(function: &Node, made: &mut Vec<(&str, Node)>, changes: &mut Vec<String>, name: &str) {
    let Some(handler) = get(function, "initializer") else { return };
    let mut hook = vec![("handler", handler.clone())];
    if let Some(timeout) = get(function, "initializationTimeout") {
        hook.push(("timeout", timeout.clone()));
    }
    changes.push(format!("`initializer` is `instanceLifecycleConfig.initializer` of {name}"));
    let hook = map_node(handler.at, hook);
    let before = made.iter_mut().find(|(key, _)| *key == "instanceLifecycleConfig");
    match before {
        Some((_, node)) => {
            *node = crate::merge::merge(node, &map_node(handler.at, vec![("initializer", hook)]));
        }
        None => made.push(("instanceLifecycleConfig", map_node(handler.at, vec![("initializer", hook)]))),
    }
}

/// `instanceType: fc.gpu.tesla.1` with `gpuMemorySize` is `gpuConfig`; `e1`, `c1` and `g1` alone are kinds of machines.
fn gpu(function: &Node, made: &mut Vec<(&str, Node)>, changes: &mut Vec<String>, name: &str) {
    let kind = get(function, "instanceType");
    let Some(memory) = get(function, "gpuMemorySize") else {
        if let Some(kind) = kind.and_then(Node::scalar) {
            changes.push(format!("`instanceType: {kind}` of {name} is left out"));
        }
        return;
    };
    changes.push(format!("`gpuMemorySize` is `gpuConfig.gpuMemorySize` of {name}"));
    let mut gpu = vec![("gpuMemorySize", memory.clone())];
    if let Some(kind) = kind {
        // `g1` was the first name of the kind with a T4.
        let text = match kind.scalar() {
            Some("g1") | None => "fc.gpu.tesla.1",
            Some(text) => text,
        };
        gpu.push(("gpuType", text_node(kind.at, text)));
    }
    made.push(("gpuConfig", map_node(memory.at, gpu)));
}

fn asynchronous(node: &Node) -> Node {
    let renamed = pairs(node).iter().filter_map(|(key, value)| {
        let name = match key.scalar()? {
            "statefulInvocation" => "asyncTask",
            "destination" => return Some((text_node(key.at, "destinationConfig"), destinations(value))),
            other => other,
        };
        Some((text_node(key.at, name), value.clone()))
    });
    Node { at: node.at, kind: Kind::Map(renamed.collect()) }
}

fn destinations(node: &Node) -> Node {
    let wrapped = pairs(node).iter().map(|(key, value)| {
        let target = match value.kind {
            Kind::Map(_) => value.clone(),
            _ => map_node(value.at, vec![("destination", value.clone())]),
        };
        (key.clone(), target)
    });
    Node { at: node.at, kind: Kind::Map(wrapped.collect()) }
}

fn trigger(node: &Node) -> Node {
    let renamed = pairs(node).iter().map(|(key, value)| {
        let name = match key.scalar().unwrap_or_default() {
            "name" => "triggerName",
            "type" => "triggerType",
            "config" => "triggerConfig",
            "role" => "invocationRole",
            other => other,
        };
        (text_node(key.at, name), value.clone())
    });
    Node { at: node.at, kind: Kind::Map(renamed.collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_flat() {
        assert_eq!(flat_name("web service", "index.main"), "web-service-index-main");
        assert_eq!(flat_name("", "main"), "main");
    }
}
