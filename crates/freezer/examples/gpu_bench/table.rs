//! Lines into a table: for each case of each row the middle, the worst and the number of every figure.

use std::collections::BTreeMap;

use serde_json::Value;

/// Of a line, what is not a figure.
const LABELS: [&str; 4] = ["row", "case", "cycle", "round"];

/// Figures and words of one case.
#[derive(Debug, Default)]
struct Case {
    figures: BTreeMap<String, Vec<u64>>,
    words: Vec<String>,
}

pub(crate) fn render(head: &Value, lines: &[Value]) -> String {
    let mut text = String::from("# GPU benchmark\n\n");
    if head["is_gpu"] != Value::Bool(true) {
        text.push_str(
            "**Not a GPU: this is a dry run, and no figure below means anything, but those of row `cpu`.**\n\n",
        );
    }
    let devices = head["devices"].as_array().map(|all| all.iter().filter_map(Value::as_str).collect::<Vec<_>>());
    text.push_str(&format!(
        "Driver {}, {}, Linux {}, load {}\n\n| row | case | figure | median | p99 | spread | n |\n|---|---|---|---|---|---|---|\n",
        head["driver"].as_str().unwrap_or("unknown"),
        devices.unwrap_or_default().join(", "),
        head["kernel"].as_str().unwrap_or_default(),
        head["load"].as_str().unwrap_or_default(),
    ));
    let mut cases: Vec<((String, String), Case)> = Vec::new();
    for line in lines {
        let name = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let key = (name("row"), name("case"));
        let at = cases.iter().position(|(known, _)| *known == key).unwrap_or(cases.len());
        if at == cases.len() {
            cases.push((key, Case::default()));
        }
        let Some((_, case)) = cases.get_mut(at) else { continue };
        for (name, value) in line.as_object().into_iter().flatten().filter(|(name, _)| !LABELS.contains(&name.as_str()))
        {
            match value.as_u64() {
                Some(figure) => case.figures.entry(name.clone()).or_default().push(figure),
                None => case
                    .words
                    .push(format!("{name} = {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))),
            }
        }
    }
    for ((row, name), case) in &mut cases {
        for (figure, values) in &mut case.figures {
            values.sort_unstable();
            let part = |percent: usize| values[(values.len() * percent).div_ceil(100).max(1) - 1];
            let spread = part(100) - part(0);
            text.push_str(&format!(
                "| {row} | {name} | {figure} | {} | {} | {spread} | {} |\n",
                part(50),
                part(99),
                values.len()
            ));
        }
        case.words.dedup();
        for words in &case.words {
            text.push_str(&format!("| {row} | {name} | {} | | | | |\n", words.replace('|', "/")));
        }
    }
    text
}
