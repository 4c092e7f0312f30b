//! From a preset and a model to the text of a kip.yaml with one function.

use std::path::{Path, PathBuf};

use kip_spec::function::defaults;
use kip_spec::{FunctionName, Millis, ModelName};
use serde_json::{Map, Value, json};

use super::fields::{Call, NAMES, Preset};
use crate::digest::sha256_of;

/// What a preset is expanded for.
#[derive(Debug, Clone)]
pub struct Expansion<'a> {
    /// The function.
    pub function: &'a FunctionName,
    /// Further names of the model; the first is the one that the engine is told.
    pub names: &'a [ModelName],
    /// The folder with the model's files.
    pub folder: &'a Path,
    /// The file that the engine is given; the folder without one.
    pub entry: Option<&'a str>,
    /// The engine's program, where it is not in `PATH`.
    pub program: Option<PathBuf>,
    /// The file of the preset's app, if it has one.
    pub app: Option<PathBuf>,
    /// The model's task, if it is known.
    pub task: Option<&'a str>,
    /// The model, for the comment on top.
    pub model: &'a str,
    /// Instances that are kept.
    pub provisioned: Option<u32>,
    /// Values of `resources`, as a declaration has them.
    pub resources: Map<String, Value>,
}

/// The text of a declaration. Its first lines say which preset and which model it was made of.
pub fn expand(preset: &Preset, what: &Expansion<'_>) -> String {
    let mut function = Map::new();
    let mut put = |key: &str, value: Value| drop(function.insert(key.to_owned(), value));
    let entry = what.entry.map_or_else(|| what.folder.to_owned(), |entry| what.folder.join(entry));
    let name = what.names.first().map_or(what.function.as_str(), ModelName::as_str);
    let module = what.entry.unwrap_or("app.py").trim_end_matches(".py").replace('/', ".");
    let fill = |text: &String| {
        let app = what.app.as_deref().map(|app| app.display().to_string()).unwrap_or_default();
        let task = what.task.unwrap_or("auto").to_owned();
        let model = entry.display().to_string();
        let values = [model, name.to_owned(), what.function.to_string(), module.clone(), app, task];
        let pairs = NAMES.iter().zip(values);
        pairs.fold(text.clone(), |text, (name, value)| text.replace(&format!("${{{name}}}"), &value))
    };
    match &preset.engine {
        None => put("model", json!(entry.display().to_string())),
        Some(engine) => {
            // What is measured takes as much as it wants at first.
            let share = what.resources.get("gpu").and_then(|gpu| gpu.get("memory"));
            let shares = share.is_some_and(|share| share != "auto");
            let caps = preset.cap.iter().filter(|_| shares);
            let mut command: Vec<String> = preset.command.iter().chain(caps).map(fill).collect();
            if let (Some(program), Some(first)) = (&what.program, command.first_mut())
                && *first == engine.program
            {
                *first = program.display().to_string();
            }
            put("run", json!(command));
            put("dir", json!(what.folder.display().to_string()));
        }
    }
    if !what.names.is_empty() {
        put("names", json!(what.names.iter().map(ModelName::as_str).collect::<Vec<_>>()));
    }
    let env: Map<String, Value> = preset.env.iter().map(|(name, value)| (name.clone(), json!(fill(value)))).collect();
    for (key, map) in [("env", env), ("resources", what.resources.clone())] {
        if !map.is_empty() {
            put(key, Value::Object(map));
        }
    }
    let mut instances = Map::new();
    instances.insert("concurrency".to_owned(), json!(preset.concurrency));
    // The usual maximum stays, unless more are kept than it allows.
    let usual =
        if what.resources.contains_key("gpu") { defaults::INSTANCES_ON_A_DEVICE } else { defaults::INSTANCES.max };
    let kept = what.provisioned.filter(|kept| *kept > preset.max.unwrap_or(usual));
    for (key, count) in [("min", what.provisioned), ("max", kept.or(preset.max))] {
        if let Some(count) = count {
            instances.insert(key.to_owned(), json!(count));
        }
    }
    put("instances", Value::Object(instances));
    let probes: Map<String, Value> = [("ready", &preset.ready), ("live", &preset.live)]
        .into_iter()
        .filter_map(|(key, path)| Some((key.to_owned(), json!(path.as_ref()?))))
        .collect();
    if !probes.is_empty() && preset.engine.is_some() {
        put("probes", Value::Object(probes));
    }
    if !preset.timeouts.is_empty() {
        let times: Map<String, Value> =
            preset.timeouts.iter().map(|(key, time)| (key.clone(), json!(time.to_string()))).collect();
        put("timeouts", Value::Object(times));
    }
    let mut lifecycle = Map::new();
    if !preset.stop.is_empty() {
        lifecycle.insert("stop".to_owned(), json!(preset.stop));
    }
    if let Some(sleep) = &preset.sleep {
        let list = |calls: &[Call]| calls.iter().map(request).collect::<Vec<_>>();
        lifecycle.insert("sleep".to_owned(), json!({"down": list(&sleep.down), "up": list(&sleep.up)}));
    }
    if !lifecycle.is_empty() {
        put("lifecycle", Value::Object(lifecycle));
    }
    if let Some(stall) = preset.stall {
        put("watchdog", json!({"stall": Millis::to_string(&stall)}));
    }
    if !preset.exempt.is_empty() {
        put("trigger", json!({"http": {"exempt": preset.exempt}}));
    }
    if !preset.ports.is_empty() {
        put("ports", json!(preset.ports));
    }
    let mut functions = Map::new();
    functions.insert(what.function.to_string(), Value::Object(function));
    let document = json!({"api": "kip/v1", "functions": functions});
    let digest = toml::to_string(preset).map(|text| sha256_of(text.as_bytes())).unwrap_or_default();
    let digest = digest.get(..12).unwrap_or_default();
    // JSON is YAML; one key a line reads well enough in `kip inspect`.
    let text = serde_json::to_string_pretty(&document).unwrap_or_default();
    format!("# Made by preset {} ({digest}) for {}\n{text}\n", preset.name, what.model)
}

/// A request as a declaration has it.
fn request(call: &Call) -> Value {
    let mut request = Map::new();
    request.insert("path".to_owned(), json!(call.path));
    request.insert("method".to_owned(), json!(call.method));
    if let Some(body) = &call.json {
        request.insert("body".to_owned(), json!(body.to_string()));
    }
    Value::Object(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset::shipped::Presets;

    #[test]
    fn a_declaration_has_the_model_its_names_and_where_it_comes_from() {
        let presets = Presets::shipped();
        let (function, names) = ("qwen".parse().unwrap(), ["Qwen/Qwen3-8B".parse().unwrap()]);
        let what = Expansion {
            function: &function,
            names: &names,
            folder: Path::new("/data/m"),
            entry: Some("m.gguf"),
            program: Some(PathBuf::from("/engines/llama-server")),
            app: None,
            task: None,
            model: "hf:Qwen/Qwen3-8B@abc",
            provisioned: Some(2),
            resources: Map::new(),
        };
        let text = expand(presets.find("llama-server").unwrap(), &what);
        assert!(text.starts_with("# Made by preset llama-server ("), "{text}");
        let (_, json) = text.split_once('\n').unwrap();
        let document: Value = serde_json::from_str(json).unwrap();
        let made = &document["functions"]["qwen"];
        assert_eq!(made["run"][0], "/engines/llama-server");
        assert!(made["run"].as_array().unwrap().contains(&json!("/data/m/m.gguf")));
        assert!(made["run"].as_array().unwrap().contains(&json!("${PORT}")), "the instance's own names stay");
        assert_eq!((&made["instances"]["min"], &made["names"][0]), (&json!(2), &json!("Qwen/Qwen3-8B")));
        let text = expand(
            presets.find("infer").unwrap(),
            &Expansion { entry: Some("a/model.onnx"), provisioned: None, ..what },
        );
        assert!(text.contains("\"model\": \"/data/m/a/model.onnx\""), "{text}");
    }

    #[test]
    fn an_engine_with_a_share_of_a_device_limits_itself() {
        let presets = Presets::shipped();
        let function = "qwen".parse().unwrap();
        for (name, memory, limit) in [
            ("vllm", "6GiB", Some("--gpu-memory-utilization")),
            ("sglang", "6GiB", Some("--mem-fraction-static")),
            ("vllm", "auto", None),
        ] {
            let resources = Map::from_iter([("gpu".to_owned(), json!({ "memory": memory }))]);
            let (folder, model) = (Path::new("/data/m"), "hf:a/b@c");
            let (names, entry, program, app, task, provisioned) = (&[], None, None, None, None, None);
            let function = &function;
            let what = Expansion { function, names, folder, entry, program, app, task, model, provisioned, resources };
            let text = expand(presets.find(name).unwrap(), &what);
            let document: Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
            let run = document["functions"]["qwen"]["run"].as_array().unwrap();
            let end = [json!(limit.unwrap_or_default()), json!("${KIPWAKE_GPU_MEMORY_FRACTION}")];
            assert_eq!(run.ends_with(&end), limit.is_some(), "{name}: {run:?}");
        }
    }

    #[test]
    fn a_pipeline_gets_its_app_and_its_task() {
        let presets = Presets::shipped();
        let function = "tiny".parse().unwrap();
        let what = Expansion {
            function: &function,
            names: &[],
            folder: Path::new("/data/m"),
            entry: None,
            program: Some(PathBuf::from("/engines/pipeline/bin/python")),
            app: Some(PathBuf::from("/engines/apps/pipeline-0.py")),
            task: Some("fill-mask"),
            model: "hf:a/b@c",
            provisioned: None,
            resources: Map::new(),
        };
        let words = |what: &Expansion<'_>| {
            let text = expand(presets.find("pipeline").unwrap(), what);
            let document: Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
            document["functions"]["tiny"]["run"].as_array().unwrap().clone()
        };
        let run = words(&what);
        assert_eq!(run[..4], ["/engines/pipeline/bin/python", "/engines/apps/pipeline-0.py", "--model", "/data/m"]);
        assert_eq!(run[4..6], ["--task", "fill-mask"]);
        assert_eq!(words(&Expansion { task: None, ..what })[5], "auto");
    }

    #[test]
    fn an_engine_that_can_sleep_is_told_how() {
        let presets = Presets::shipped();
        let function = "qwen".parse().unwrap();
        for (name, down, body, up) in [
            ("vllm", "/sleep?level=1", None, Some("/wake_up")),
            ("sglang", "/release_memory_occupation", Some("{}"), Some("/resume_memory_occupation")),
            ("comfyui", "/free", Some("{\"free_memory\":true,\"unload_models\":true}"), None),
        ] {
            let what = Expansion {
                function: &function,
                names: &[],
                folder: Path::new("/data/m"),
                entry: None,
                program: None,
                app: None,
                task: None,
                model: "hf:a/b@c",
                provisioned: None,
                resources: Map::new(),
            };
            let text = expand(presets.find(name).unwrap(), &what);
            let document: Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
            let sleep = &document["functions"]["qwen"]["lifecycle"]["sleep"];
            assert_eq!((&sleep["down"][0]["path"], sleep["down"][0]["body"].as_str()), (&json!(down), body), "{name}");
            assert_eq!(sleep["up"][0]["path"].as_str(), up, "{name}");
        }
    }
}
