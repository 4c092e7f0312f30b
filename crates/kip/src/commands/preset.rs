//! `kip preset`: the engines that serve models.

use kip_wire::PresetInfo;

use crate::arguments::models::{Preset, Test, UpModel};
use crate::client::{Client, segment};
use crate::output::{Output, table};
use crate::up::model;

pub(crate) async fn run(client: &Client, command: &Preset, output: Output) -> anyhow::Result<()> {
    match command {
        Preset::Ls => {
            let all: Vec<PresetInfo> = client.get("/api/v1/presets").await?;
            output.result(&all, |all| {
                table(&["PRESET", "SERVES", "ENGINE", "TRIED", "ABOUT"], &all.iter().map(cells).collect::<Vec<_>>())
            })
        }
        Preset::Show { preset } => {
            let info: PresetInfo = client.get(&format!("/api/v1/presets/{}", segment(preset))).await?;
            output.result(&info, |info| toml::to_string_pretty(&without_nulls(&info.fields)).unwrap_or_default())
        }
        Preset::Install { preset } => {
            let path = format!("/api/v1/presets/{}/engine", segment(preset));
            let info: PresetInfo = client.pulling().post(&path, &serde_json::json!({})).await?;
            output.result(&info, |info| format!("Installed {}\n", info.installed.as_deref().unwrap_or(&info.name)))
        }
        Preset::Test(options) => test(client, options, output).await,
    }
}

fn cells(preset: &PresetInfo) -> Vec<String> {
    let engine = match (&preset.engine, &preset.installed) {
        (None, _) => "built in".to_owned(),
        (Some(_), Some(program)) => program.clone(),
        (Some(engine), None) => format!("{engine} is not installed"),
    };
    let serves = if preset.formats.is_empty() { "-".to_owned() } else { preset.formats.join(", ") };
    let name = if preset.own { format!("{} (own)", preset.name) } else { preset.name.clone() };
    vec![name, serves, engine, preset.evidence.clone(), preset.about.clone()]
}

/// TOML has no null: what is not set is left out.
fn without_nulls(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// The function that a test deploys.
const TRIAL: &str = "preset-test";

async fn test(client: &Client, options: &Test, output: Output) -> anyhow::Result<()> {
    let wanted = UpModel {
        from: options.from.clone(),
        name: Some(TRIAL.to_owned()),
        preset: Some(options.preset.clone()),
        install_engine: options.install_engine,
        yes: true,
        ..UpModel::default()
    };
    let tried = model::deploy(client, &options.model, &wanted, output).await;
    let removed: anyhow::Result<serde_json::Value> = client.delete(&format!("/api/v1/functions/{TRIAL}")).await;
    let tried = tried?;
    removed?;
    output.result(&tried, |tried| match &tried.answer {
        Some(answer) => format!("Answer    {answer}\n"),
        None => "Ready     it was ready; the preset has no question\n".to_owned(),
    })
}
