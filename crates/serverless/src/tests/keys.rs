//! Every leaf key is reported exactly once.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Project;

/// The leaves of a document as another reader of YAML sees them.
fn leaves(value: &Value, path: &str, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, inner) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(inner, &path, all);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.as_object().is_some_and(|map| !map.is_empty())) => {
            for (number, item) in items.iter().enumerate() {
                leaves(item, &format!("{path}[{number}]"), all);
            }
        }
        _ => all.push(path.to_owned()),
    }
}

/// Compares the keys of a project with those of its text.
pub(crate) fn check(name: &str, text: &str, project: &Project) {
    let document: Value = serde_saphyr::from_str(text).unwrap();
    let (mut wanted, mut reported) = (Vec::new(), Vec::new());
    leaves(&document, "", &mut wanted);
    reported.extend(project.keys.iter().map(|key| key.path.clone()));
    wanted.sort();
    reported.sort();
    let count = |list: &[String]| {
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        list.iter().for_each(|path| *counts.entry(path.clone()).or_default() += 1);
        counts
    };
    let (wanted, reported) = (count(&wanted), count(&reported));
    for (path, number) in &wanted {
        assert_eq!(reported.get(path), Some(number), "{name}: {path} is in the file");
    }
    for path in reported.keys() {
        assert!(wanted.contains_key(path), "{name}: {path} is reported and not in the file");
    }
    for key in &project.keys {
        let line = usize::try_from(key.line).unwrap();
        let last = key.path.rsplit('.').next().unwrap().split('[').next().unwrap();
        let written = text.lines().nth(line - 1).unwrap_or_default();
        assert!(key.path.contains('[') || written.contains(last), "{name}: {} on line {line}: {written}", key.path);
    }
}

#[test]
fn every_leaf_of_our_own_files_is_reported_once() {
    let text = super::with(
        "timeout: 60
unknown: {deep: {a: 1, b: [1, 2]}, list: [{x: 1}, {y: []}]}
triggers: [{triggerName: t, triggerType: oss, triggerConfig: {events: [a, b], filter: {key: {prefix: p}}}}]
environmentVariables: {}
layers: []",
    ) + "    access: other\n    actions: {pre-deploy: [{run: a}, {run: b, path: c}]}\n  domain:\n    component: fc3-domain\n    props: {domainName: auto, routeConfig: {routes: [{path: /}]}}\n";
    let project = super::read(&text).unwrap();
    check("own", &text, &project);
    let paths: Vec<&str> = project.keys.iter().map(|key| key.path.as_str()).collect();
    assert!(paths.contains(&"resources.web.props.unknown.list[1].y"), "{paths:?}");
    assert!(paths.contains(&"resources.web.actions.pre-deploy[1].path"));
}
