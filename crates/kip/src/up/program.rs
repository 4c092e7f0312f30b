//! `kip up -- PROGRAM` and `kip up --image IMAGE`: a program or a container becomes a function without a file.

use std::path::Path;

use kip_spec::{FunctionName, Problem, code};
use kip_wire::{Deployment, DeploymentResult, Status};
use serde_json::{Map, Value, json};

use super::Summary;
use crate::arguments::Up;
use crate::client::Client;
use crate::commands::{deploy, image, variables};
use crate::output::Output;
use crate::problem::warning;

/// Words after which a program expects its port.
const PORT_OPTIONS: [&str; 4] = ["--port", "-p", "--http-port", "--bind"];
/// Letters of a name that is made of a program's.
const LONGEST: usize = 40;

/// Whether this is asked for.
pub(crate) fn is_asked(options: &Up) -> bool {
    options.image.is_some() || !options.program.is_empty()
}

/// What speaks against the command line, before a server is started for it.
pub(crate) fn check(options: &Up) -> anyhow::Result<()> {
    name(options)?;
    variables::given(&options.env, "kip up")?;
    let empty = options.program.iter().position(String::is_empty);
    if let Some(at) = empty {
        let before = at.checked_sub(1).and_then(|at| options.program.get(at)).map_or("", String::as_str);
        let message = match PORT_OPTIONS.contains(&before) {
            true => format!("nothing is after `{before}`: the shell replaced ${{PORT}}, which is not set here"),
            false => format!("word {} of the program is empty", at + 1),
        };
        let problem = Problem::new(code::COMMAND_INPUT, message);
        return Err(problem.hint(format!("write {before} '${{PORT}}' with single quotes").trim_start()).into());
    }
    Ok(())
}

/// Deploys it, waits until it is ready, and says how to call it.
pub(crate) async fn run(client: &Client, options: &Up, output: Output) -> anyhow::Result<Summary> {
    let function = name(options)?;
    let status: Status = client.status().await?;
    let has_device = !status.host.devices.is_empty();
    let text = manifest(&function, options, has_device)?;
    let needs = kip_manifest::needs(&text);
    let deployment = Deployment {
        file: "kip up".to_owned(),
        variables: deploy::variables(&needs),
        env_files: std::collections::BTreeMap::new(),
        directory: std::env::current_dir()?.to_string_lossy().into_owned(),
        text,
        only: Vec::new(),
        start: true,
        once: false,
        keep_unchanged: true,
        no_traffic: false,
    };
    let patient = client.pulling();
    let made: DeploymentResult =
        image::pulling(client, patient.post("/api/v1/deployments", &deployment), output).await?;
    made.warnings.iter().for_each(|one| output.remark(&warning(one)));
    deploy::wait(client, &made, true, output).await?;
    let about = client.about().await?;
    let gateway = about.gateway;
    for one in &made.deployed {
        output.say(&format!("Deployed  {} {}", one.function, one.label));
    }
    for one in &made.unchanged {
        output.say(&format!("Unchanged {} {}: instances stay as they are", one.function, one.label));
    }
    let host = function.as_str().to_ascii_lowercase();
    output.say(&format!("URL       http://{gateway}/f/{function}/  and  http://{host}.localhost:{}/", gateway.port()));
    output.say(&format!("curl      curl -s http://{gateway}/f/{function}/"));
    output.say(&format!("Next      kip ps · kip logs -f {function} · kip why {function} · kip rm {function}"));
    Ok(Summary {
        gateway: format!("http://{gateway}"),
        api: format!("http://{}", about.api),
        deployed: made.deployed.into_iter().chain(made.unchanged.iter().cloned()).collect(),
        unchanged: made.unchanged,
        tried: None,
        burst: Vec::new(),
    })
}

/// The name that was given, or one made of the program's or the image's.
fn name(options: &Up) -> anyhow::Result<FunctionName> {
    let made = || {
        let source =
            options.image.as_deref().or_else(|| options.program.first().map(String::as_str)).unwrap_or_default();
        // Of an image neither its registry nor its tag.
        let last = source.rsplit('/').next().unwrap_or(source);
        let last = last.split(['@', ':']).next().unwrap_or(last);
        let last =
            Path::new(last).file_stem().map_or_else(|| last.to_owned(), |stem| stem.to_string_lossy().into_owned());
        let fit: String =
            last.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).take(LONGEST).collect();
        fit.trim_matches('-').to_owned()
    };
    let name = options.model.name.clone().unwrap_or_else(made);
    Ok(name.parse::<FunctionName>().map_err(|error| {
        Problem::new(code::COMMAND_INPUT, format!("`{name}` cannot be a function's name"))
            .cause(error.to_string())
            .hint("use 1 to 64 letters, digits, `-` or `_`, beginning with a letter or `_`: --name NAME")
    })?)
}

/// The function as a manifest. JSON is YAML too.
fn manifest(name: &FunctionName, options: &Up, has_device: bool) -> anyhow::Result<String> {
    let mut function = Map::new();
    let env = variables::given(&options.env, "kip up")?;
    if !env.is_empty() {
        function.insert("env".to_owned(), Value::Object(env));
    }
    if !options.program.is_empty() {
        function.insert("run".to_owned(), json!(options.program));
        if options.image.is_none() {
            // The folder is where somebody works, not one of a program.
            function.insert("code".to_owned(), json!("live"));
        }
    }
    if let Some(image) = &options.image {
        function.insert("image".to_owned(), json!(image));
    }
    if let Some(port) = options.port {
        function.insert("container".to_owned(), json!({ "port": port }));
    }
    if let Some(min) = options.model.provisioned {
        function.insert("instances".to_owned(), json!({ "min": min }));
    }
    let mut gpu = Map::new();
    if let Some(kind) = &options.model.gpu {
        gpu.insert("type".to_owned(), json!(kind));
    }
    match &options.model.gpu_memory {
        Some(memory) => drop(gpu.insert("memory".to_owned(), json!(memory))),
        // How much it uses is measured.
        None if has_device || !gpu.is_empty() => drop(gpu.insert("memory".to_owned(), json!("auto"))),
        None => {}
    }
    if !gpu.is_empty() {
        function.insert("resources".to_owned(), json!({ "gpu": gpu }));
    }
    Ok(json!({ "api": "kip/v1", "functions": { name.as_str(): function } }).to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn up(words: &[&str]) -> Up {
        let words = ["kip", "up"].iter().chain(words);
        match Arguments::try_parse_from(words).unwrap().command {
            Command::Up(up) => up,
            _ => unreachable!("it is `up`"),
        }
    }

    #[test]
    fn a_function_is_named_by_its_program_or_image() {
        let rows: [(&[&str], &str); 5] = [
            (&["--", "/usr/bin/my-server", "--port", "${PORT}"], "my-server"),
            (&["--", "./serve.py"], "serve"),
            (&["--image", "ghcr.io/team/ocr:3"], "ocr"),
            (&["--image", "ocr@sha256:00"], "ocr"),
            (&["--name", "mine", "--", "x"], "mine"),
        ];
        for (words, expected) in rows {
            assert_eq!(name(&up(words)).unwrap().as_str(), expected, "{words:?}");
        }
        assert!(name(&up(&["--", "123"])).is_err());
    }

    #[test]
    fn a_port_that_the_shell_took_away_is_named_with_the_quoted_form() {
        let error = check(&up(&["--", "my-server", "--port", ""])).unwrap_err();
        let problem = error.downcast_ref::<Problem>().unwrap();
        assert!(problem.message.contains("the shell replaced ${PORT}"), "{problem:?}");
        assert!(problem.hint.as_deref().unwrap().contains("--port '${PORT}'"), "{problem:?}");
        assert!(check(&up(&["--", "my-server", "--port", "${PORT}"])).is_ok());
    }

    #[test]
    fn a_device_is_measured_where_the_host_has_one() {
        let text = |words: &[&str], device| {
            let options = up(words);
            let text = manifest(&name(&options).unwrap(), &options, device).unwrap();
            serde_json::from_str::<Value>(&text).unwrap()["functions"]["x"].clone()
        };
        assert_eq!(text(&["--", "x"], false), json!({ "run": ["x"], "code": "live" }));
        let gpu = |gpu: Value| json!({ "run": ["x"], "code": "live", "resources": { "gpu": gpu } });
        assert_eq!(text(&["--", "x"], true), gpu(json!({ "memory": "auto" })));
        assert_eq!(text(&["--gpu-memory", "6GiB", "--", "x"], false), gpu(json!({ "memory": "6GiB" })));
        assert_eq!(text(&["--gpu", "L4", "--", "x"], false), gpu(json!({ "type": "L4", "memory": "auto" })));
        let image = text(&["--name", "x", "--image", "i", "--port", "80", "-e", "A=b", "--", "serve"], false);
        let expected = json!({ "image": "i", "run": ["serve"], "container": { "port": 80 }, "env": { "A": "b" } });
        assert_eq!(image, expected);
    }
}
