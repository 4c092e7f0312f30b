//! A project as an `s.yaml` of edition 3 that reads back to the same.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::project::{ActionKind, DeclaredFunction, Project, RemoteCode};

/// The text of a file in `directory`, which paths are relative to.
pub fn write(project: &Project, directory: &Path) -> String {
    let mut resources = Map::new();
    for function in &project.functions {
        let mut resource = json!({"component": "fc3", "props": props(function, directory)});
        let actions = actions(&function.actions, directory);
        if !actions.is_empty() {
            resource["actions"] = actions.into();
        }
        resources.insert(function.name.to_string(), resource);
    }
    let mut document = json!({
        "edition": "3.0.0",
        "name": if project.name.is_empty() { "app" } else { &project.name },
        "access": "default",
        "resources": resources,
    });
    // Without it, maps of JSON would give an order by name.
    let order: Vec<&str> = project.functions.iter().map(|function| function.name.as_str()).collect();
    document["flow"] = json!({"deploy": order.iter().map(|name| json!([name])).collect::<Vec<_>>()});
    let of_all = actions(&project.actions, directory);
    if !of_all.is_empty() {
        document["actions"] = of_all.into();
    }
    // Maps, text and numbers alone: there is nothing that could not be written.
    serde_saphyr::to_string(&document).unwrap_or_default()
}

fn props(function: &DeclaredFunction, directory: &Path) -> Value {
    let mut props = function.config.clone();
    props.insert("region".to_owned(), "local".into());
    if let Some(code) = &function.code {
        let written = match &code.from {
            Some(RemoteCode::Address(address)) => address.as_str().into(),
            Some(RemoteCode::Bucket { bucket, object }) => json!({"ossBucketName": bucket, "ossObjectName": object}),
            None => {
                let path = code.path.strip_prefix(directory);
                path.map_or_else(|_| code.path.display().to_string(), |path| format!("./{}", path.display())).into()
            }
        };
        props.insert("code".to_owned(), written);
    }
    let triggers: Vec<Value> = function
        .triggers
        .iter()
        .map(|trigger| {
            let mut made = trigger.other.clone();
            made.insert("triggerName".to_owned(), trigger.name.as_str().into());
            made.insert("triggerType".to_owned(), trigger.kind.as_str().into());
            made.insert("qualifier".to_owned(), trigger.qualifier.as_str().into());
            made.insert("triggerConfig".to_owned(), trigger.config.clone());
            Value::from(made)
        })
        .collect();
    if !triggers.is_empty() {
        props.insert("triggers".to_owned(), triggers.into());
    }
    if let Some((qualifier, config)) = &function.asynchronous {
        let mut config = config.clone();
        config["qualifier"] = qualifier.as_str().into();
        props.insert("asyncInvokeConfig".to_owned(), config);
    }
    if let Some(provision) = function.provisions.get("LATEST") {
        props.insert("provisionConfig".to_owned(), provision.clone());
    }
    if let Some(scaling) = &function.scaling {
        props.insert("scalingConfig".to_owned(), scaling.clone());
    }
    match function.domains.as_slice() {
        [] => {}
        [one] => drop(props.insert("customDomain".to_owned(), one.clone().into())),
        several => drop(props.insert("customDomain".to_owned(), several.iter().cloned().map(Value::from).collect())),
    }
    if let Some(most) = function.concurrency {
        props.insert("concurrencyConfig".to_owned(), json!({"reservedConcurrency": most}));
    }
    if !function.networks.is_empty() {
        props.insert("vpcBinding".to_owned(), json!({"vpcIds": function.networks}));
    }
    if !function.tags.is_empty() {
        let tags: Vec<Value> = function.tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        props.insert("tags".to_owned(), tags.into());
    }
    props.into()
}

fn actions(all: &[crate::Action], directory: &Path) -> Map<String, Value> {
    let mut made: Map<String, Value> = Map::new();
    for action in all {
        let kind = match action.kind {
            ActionKind::Run => "run",
            ActionKind::Component => "component",
            ActionKind::Plugin => "plugin",
        };
        let path = action.directory.strip_prefix(directory).unwrap_or(&action.directory);
        let mut step = json!({kind: action.text});
        if !path.as_os_str().is_empty() {
            step["path"] = path.display().to_string().into();
        }
        if let Value::Array(steps) = made.entry(action.when.clone()).or_insert_with(|| json!([])) {
            steps.push(step);
        }
    }
    made
}
