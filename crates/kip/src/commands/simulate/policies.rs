//! What is compared: policies of the server, and the two bounds.

use std::collections::BTreeMap;
use std::path::Path;

use kip_fleet::Policy;
use kip_manifest::{Deployer, Source};
use kip_spec::function::{FunctionSpec, Resources};
use kip_spec::{Problem, code};
use serde_json::{Map, Value, json};

use crate::problem::Problems;

/// What is compared if nothing is said.
const USUAL: [&str; 5] = ["auto", "fixed", "kpa", "peak", "oracle"];
/// Nobody is refused: a trace says who was served.
const PATIENCE: u64 = 366 * 86_400_000;
/// Requests that may wait.
const ROOM: u32 = u32::MAX;

/// One row of the comparison.
#[derive(Debug)]
pub(super) enum Contestant {
    /// A fleet of the size of the peak, all the time.
    Peak,
    /// The cheapest way without delay, by who knows the future.
    Oracle,
    /// A policy, under a name.
    Policy(String, Box<Policy>),
}

/// What was asked for, or what is usual.
pub(super) fn contestants(names: &[String]) -> anyhow::Result<Vec<Contestant>> {
    let usual = USUAL.map(str::to_owned);
    let names = if names.is_empty() { &usual[..] } else { names };
    names
        .iter()
        .flat_map(|names| listed(names))
        .map(|name| match name {
            "peak" => Ok(Contestant::Peak),
            "oracle" => Ok(Contestant::Oracle),
            text => policy(text).map(|(name, policy)| Contestant::Policy(name, Box::new(policy))),
        })
        .collect()
}

/// The policies of `auto,kpa,frozen={idle: {pause: 3s, stop: 10m}}`. Commas within brackets or quotation marks belong to settings.
fn listed(names: &str) -> impl Iterator<Item = &str> {
    let (mut depth, mut quote) = (0u32, None);
    names
        .split(move |letter: char| {
            match (quote, letter) {
                (Some(open), _) if open == letter => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') => quote = Some(letter),
                (None, '{' | '[') => depth += 1,
                (None, '}' | ']') => depth = depth.saturating_sub(1),
                (None, _) => {}
            }
            letter == ',' && depth == 0 && quote.is_none()
        })
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

/// A policy by its name, or under a name of one's own with keys of a function of kip.yaml.
fn policy(text: &str) -> anyhow::Result<(String, Policy)> {
    let (name, settings) = text.split_once('=').map_or((text, None), |(name, settings)| (name, Some(settings)));
    let mut function = Map::new();
    function.insert("run".to_owned(), json!(["simulated"]));
    function.insert("instances".to_owned(), json!({ "max": 1_000 }));
    if ["auto", "kpa", "fc", "fixed"].contains(&name) {
        function.insert("scaling".to_owned(), json!({ "mode": name }));
    } else if settings.is_none() || name.is_empty() {
        let problem = Problem::new(code::COMMAND_INPUT, format!("there is no policy `{name}`"));
        return Err(problem
            .hint("auto, fixed, fc, kpa, peak, oracle, or NAME={…} with keys of a function of kip.yaml")
            .into());
    }
    if let Some(settings) = settings {
        let given: Map<String, Value> = serde_saphyr::from_str(settings).map_err(|error| {
            Problem::new(code::COMMAND_INPUT, format!("the settings of policy `{name}` are not understood"))
                .cause(error.to_string())
                .hint("write them as in kip.yaml: --policy 'frozen={idle: {pause: 3s, stop: 10m}}'")
        })?;
        for (key, value) in given {
            merge(function.entry(key).or_insert(Value::Null), value);
        }
    }
    let spec = declared(name, function)?;
    let mut policy = Policy::from(&spec);
    (policy.queue_depth, policy.queue_timeout) = (ROOM, PATIENCE);
    // How long an operation takes is given.
    (policy.limits.start, policy.limits.sleep, policy.limits.request) = (PATIENCE, PATIENCE, PATIENCE);
    Ok((name.to_owned(), policy))
}

/// What an instance reserves, in the words of kip.yaml.
pub(super) fn resources(text: &str) -> anyhow::Result<Resources> {
    let given: Value = serde_saphyr::from_str(text).map_err(|error| {
        Problem::new(code::COMMAND_INPUT, "--resources is not understood")
            .cause(error.to_string())
            .hint("write them as in kip.yaml: --resources '{cpu: 1, memory: 16GiB, gpu: {memory: 16GiB, type: T4}}'")
    })?;
    let function = json!({ "run": ["simulated"], "resources": given });
    let Value::Object(function) = function else { return Ok(Resources::default()) };
    Ok(declared("resources", function)?.resources)
}

/// Reads keys of a function as they would stand in kip.yaml.
fn declared(name: &str, function: Map<String, Value>) -> anyhow::Result<FunctionSpec> {
    let text = json!({ "api": "kip/v1", "functions": { "simulated": function } }).to_string();
    let (variables, env_files) = (BTreeMap::new(), BTreeMap::new());
    let deployer = Deployer { variables: &variables, env_files: &env_files };
    let source = Source { file: name, text: &text, directory: Path::new("/"), deployer };
    let manifest = kip_manifest::read(&source).map_err(Problems)?;
    let spec = manifest.functions.into_iter().next();
    spec.ok_or_else(|| Problem::new(code::COMMAND_INPUT, format!("`{name}` declares nothing")).into())
}

/// Maps are merged key by key; anything else replaces.
fn merge(into: &mut Value, value: Value) {
    match (into, value) {
        (Value::Object(into), Value::Object(value)) => {
            for (key, value) in value {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, value) => *into = value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kip_spec::Millis;
    use kip_spec::scaling::Scaling;

    #[test]
    fn policies_are_listed_with_commas() {
        let settings = "frozen={idle: {pause: 3s, stop: 10m}}, named={scaling: {note: 'a, b'}}";
        let names = format!("auto, kpa,{settings},peak,");
        let frozen = ["frozen={idle: {pause: 3s, stop: 10m}}", "named={scaling: {note: 'a, b'}}"];
        assert_eq!(listed(&names).collect::<Vec<_>>(), ["auto", "kpa", frozen[0], frozen[1], "peak"]);
        assert_eq!(contestants(&["auto,kpa".to_owned(), "peak".to_owned()]).unwrap().len(), 3);
    }

    #[test]
    fn policies_are_names_or_settings() {
        assert!(matches!(policy("auto").unwrap().1.scaling, Scaling::Auto(_)));
        assert!(matches!(policy("fixed").unwrap().1.scaling, Scaling::Fixed) && policy("={}").is_err());
        let (name, frozen) = policy("frozen={idle: {pause: 3s, stop: 10m}, instances: {max: 5}}").unwrap();
        assert_eq!((name.as_str(), frozen.max), ("frozen", 5));
        assert_eq!((frozen.idle.pause, frozen.idle.stop), (Some(Millis(3_000)), Some(Millis(600_000))));
        let latency = policy("auto={scaling: {class: latency}}").unwrap().1;
        assert!(matches!(latency.scaling, Scaling::Auto(auto) if auto.class == kip_spec::scaling::Class::Latency));
        assert!(policy("autp").is_err() && policy("x={idle: [1]}").is_err() && policy("x={{").is_err());
    }
}
