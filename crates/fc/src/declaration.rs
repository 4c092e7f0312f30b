//! The vendor's configuration as a declaration of Kipwake, and a declaration in the vendor's words.

use std::path::Path;

use kip_spec::container::Container;
use kip_spec::function::{
    Concurrency, FunctionSpec, GpuNeed, GpuResources, Hook, HttpAuth, Program, Strategy, defaults,
};
use kip_spec::reference;
use kip_spec::scaling::{Fc as Policies, IdleLimit, Provision, Scaling};
use kip_spec::{Bytes, FunctionName, MilliCpu, Millis};
use serde_json::{Map, Value};

use crate::config::{number, object, real, words};
use crate::error::{FcError, FcResult};
use crate::rendering::{CODE, CODE_REFERENCE, shown_hook, shown_value};
use crate::request::text;

/// The variable that sets the size of `/dev/shm` of a container, bytes.
const SHARED_MEMORY: &str = "FCGPU_RUNTIME_SHMSIZE";
/// The variable that says that a program listens on its configured port whatever it is told.
const FIXED_PORT: &str = "KIPWAKE_FIXED_PORT";
/// The vendor's own default, seconds.
const TIMEOUT: u64 = 3;
/// Of an initializer and a pre-stop hook without one, seconds.
const HOOK_TIMEOUT: u64 = 3;

/// What a function runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// A program of its own.
    Custom,
    /// A container of an image.
    Container,
    /// Handlers in Python, by our bootstrap.
    Python,
    /// Handlers in Node, by our bootstrap.
    Node,
}

/// The kind of a runtime.
pub(crate) fn runtime(name: &str) -> FcResult<Runtime> {
    match name {
        "custom" | "custom.debian10" | "custom.debian11" | "custom.debian12" => Ok(Runtime::Custom),
        "custom-container" => Ok(Runtime::Container),
        "python2.7" | "nodejs8" => {
            Err(FcError::refused(format!("{name} is not run here: use python3 or nodejs20, or a custom runtime")))
        }
        name if name.starts_with("python3") => Ok(Runtime::Python),
        name if name.starts_with("nodejs") => Ok(Runtime::Node),
        name => Err(FcError::refused(format!(
            "{name} is not run here: build a program with a web server and use custom.debian12 with customRuntimeConfig.command"
        ))),
    }
}

/// A declaration with the vendor's defaults.
pub(crate) fn fresh(name: FunctionName, config: &Map<String, Value>, tree: &Path) -> FcResult<FunctionSpec> {
    let mut spec = FunctionSpec::new(name, program(config, tree)?);
    // Without an HTTP trigger nobody calls it without a key.
    spec.http.auth = HttpAuth::Key;
    set_timeout(&mut spec, TIMEOUT);
    apply(config, &mut spec)?;
    set_port(config, &mut spec, true)?;
    Ok(spec)
}

/// The port on which a program is expected.
pub(crate) fn configured_port(config: &Map<String, Value>) -> FcResult<u64> {
    let port = object(config, "customRuntimeConfig")?.map(|of| number(of, "port", 0, 65_535)).transpose()?.flatten();
    Ok(port.filter(|port| *port > 0).unwrap_or(CONTAINER_PORT))
}

/// Settles the port of a program that listens on the configured one whatever it is told. Others get a port for each instance. `reads` says
/// whether the program may learn its port; a variable of the configuration says it better.
pub(crate) fn set_port(config: &Map<String, Value>, spec: &mut FunctionSpec, reads: bool) -> FcResult<()> {
    let variable = config.get("environmentVariables").and_then(|all| all[FIXED_PORT].as_str());
    let fixed = match variable {
        None | Some("") => !reads,
        Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(FcError::invalid(format!("{FIXED_PORT} is true or false, not `{other}`"))),
    };
    let was = spec.resources.port.take();
    let is_program = matches!(spec.program, Program::Command { .. });
    if fixed && is_program {
        spec.resources.port = u16::try_from(configured_port(config)?).ok();
        (spec.instances.max, spec.deploy.strategy) = (1, Strategy::Recreate);
    } else if was.is_some() {
        spec.instances.max = defaults::INSTANCES.max;
        spec.deploy.strategy = Strategy::default();
    }
    Ok(())
}

/// The command of a configuration over a tree of code.
pub(crate) fn program(config: &Map<String, Value>, tree: &Path) -> FcResult<Program> {
    let name = text(config, "runtime")?.unwrap_or_default();
    let argv = match runtime(name)? {
        Runtime::Container => return container(config),
        Runtime::Custom => {
            let empty = Map::new();
            let own = object(config, "customRuntimeConfig")?.unwrap_or(&empty);
            let mut argv = words(own, "command")?;
            if argv.is_empty() {
                argv.push("./bootstrap".to_owned());
            }
            argv.extend(words(own, "args")?);
            argv.into_iter().map(|word| placed(&word, tree)).collect()
        }
        kind => crate::bootstrap::command(&kind, config)?,
    };
    Ok(Program::Command { argv, dir: tree.to_owned() })
}

/// The port that the vendor's containers listen on unless they say so.
const CONTAINER_PORT: u64 = 9_000;

/// The container of a configuration.
fn container(config: &Map<String, Value>) -> FcResult<Program> {
    let own = object(config, "customContainerConfig")?;
    let own = own.ok_or_else(|| FcError::invalid("customContainerConfig is required with runtime custom-container"))?;
    let image = text(own, "image")?.unwrap_or_default();
    if image.is_empty() {
        return Err(FcError::invalid("customContainerConfig.image is required"));
    }
    let port = number(own, "port", 1, 65_535)?.unwrap_or(CONTAINER_PORT);
    let declared = Container {
        image: image.to_owned(),
        entrypoint: words(own, "entrypoint")?,
        argv: words(own, "command")?.iter().map(|word| reference::escaped(word)).collect(),
        port: u16::try_from(port).ok(),
        ..Container::default()
    };
    Ok(Program::Image(Box::new(declared)))
}

/// A word of a command whose path begins with the vendor's folder of code.
fn placed(word: &str, tree: &Path) -> String {
    match word.strip_prefix(CODE) {
        Some("" | "/") => tree.display().to_string(),
        Some(rest) if rest.starts_with('/') => format!("{}{rest}", tree.display()),
        _ => word.to_owned(),
    }
}

/// A value of a variable in which paths below the vendor's folder of code lead to the function's own: `/code/lib:/usr/lib`.
fn in_code(value: &str) -> String {
    let path = |part: &str| match part.strip_prefix(CODE) {
        Some("") => CODE_REFERENCE.to_owned(),
        // The variable's value ends with a slash.
        Some(rest) if rest.starts_with('/') => format!("{CODE_REFERENCE}{}", reference::escaped(&rest[1..])),
        _ => reference::escaped(part),
    };
    value.split(':').map(path).collect::<Vec<_>>().join(":")
}

/// Sets what a configuration says, and leaves the rest.
pub(crate) fn apply(config: &Map<String, Value>, spec: &mut FunctionSpec) -> FcResult<()> {
    if let Some(variables) = object(config, "environmentVariables")? {
        // A container has its own folder of code.
        let is_placed = !matches!(spec.program, Program::Image(_));
        let before = std::mem::take(&mut spec.env);
        let literal = |(name, value): (&String, &Value)| {
            let value = value.as_str()?;
            // What reads the same as before stays as it was declared: with its references.
            let declared = before.get(name).filter(|declared| shown_value(declared) == value);
            let made = || if is_placed { in_code(value) } else { reference::escaped(value) };
            Some((name.clone(), declared.cloned().unwrap_or_else(made)))
        };
        spec.env = variables.iter().filter_map(literal).collect();
        if let (Program::Image(container), Some(size)) = (&mut spec.program, variables.get(SHARED_MEMORY)) {
            let bytes = size.as_str().and_then(|text| text.parse::<u64>().ok()).filter(|bytes| *bytes > 0);
            let Some(bytes) = bytes else {
                return Err(FcError::refused(format!("{SHARED_MEMORY} is not a number of bytes")));
            };
            container.shm = Some(Bytes(bytes));
        }
    }
    if let Some(memory) = number(config, "memorySize", 128, 131_072)? {
        spec.resources.memory = Some(Bytes(memory << 20));
    }
    if let Some(cpu) = real(config, "cpu")? {
        spec.resources.cpu = Some(milli(cpu));
    }
    if let Some(gpu) = object(config, "gpuConfig")? {
        let before = spec.resources.gpu.take();
        let had = before.is_some();
        let (kind, isolation) = before.map(|gpu| (gpu.kind, gpu.isolation)).unwrap_or_default();
        spec.resources.gpu = number(gpu, "gpuMemorySize", 1_024, 1 << 20)?.map(|memory| GpuResources {
            need: GpuNeed::Memory(Bytes(memory << 20)),
            kind,
            isolation,
        });
        if spec.resources.gpu.is_some() && !had {
            spec.instances.max = defaults::INSTANCES_ON_A_DEVICE;
        }
    }
    if let Some(timeout) = number(config, "timeout", 1, 86_400)? {
        set_timeout(spec, timeout);
    }
    if let Some(count) = number(config, "instanceConcurrency", 1, 200)? {
        let count = u32::try_from(count).unwrap_or(1);
        // A lower limit at which more instances come stays one.
        let Concurrency { hard, soft } = spec.instances.concurrency;
        spec.instances.concurrency =
            Concurrency { hard: count, soft: if soft < hard { soft.min(count) } else { count } };
    }
    crate::health::apply(config, spec)?;
    if let Some(idle) = number(config, "idleTimeout", 0, 86_400)? {
        set_idle(spec, idle);
    }
    if let Some(disable) = config.get("disableOndemand").filter(|value| !value.is_null()) {
        let disable = disable.as_bool().ok_or_else(|| FcError::invalid("disableOndemand is true or false"))?;
        set_ondemand(spec, disable);
    }
    if let Some(lifecycle) = object(config, "instanceLifecycleConfig")? {
        let hook = |name: &str, path: &str, longest: u64| -> FcResult<Option<Hook>> {
            let Some(hook) = object(lifecycle, name)? else { return Ok(None) };
            if !words(hook, "command")?.is_empty() {
                return Err(FcError::refused(format!("{name} with a command is not run here: use a handler")));
            }
            let handler = text(hook, "handler")?.unwrap_or_default();
            let timeout = number(hook, "timeout", 1, longest)?.unwrap_or(HOOK_TIMEOUT);
            let found = Hook { path: path.to_owned(), timeout: Millis::from_secs(timeout) };
            Ok((!handler.is_empty()).then_some(found))
        };
        let initialize = hook("initializer", "/initialize", 300)?;
        let pre_stop = hook("preStop", "/pre-stop", 90)?;
        // One that reads the same as before stays as it was declared: with its own path.
        let same = |name: &str, before: &Option<Hook>| lifecycle.get(name) == before.as_ref().map(shown_hook).as_ref();
        if !same("initializer", &spec.lifecycle.initialize) {
            spec.lifecycle.initialize = initialize;
        }
        if !same("preStop", &spec.lifecycle.pre_stop) {
            spec.lifecycle.pre_stop = pre_stop;
        }
    }
    Ok(())
}

/// How long an instance without a request stays, seconds; 0 is the usual time.
fn set_idle(spec: &mut FunctionSpec, seconds: u64) {
    let stop = Millis::from_secs(seconds);
    spec.idle.stop = if seconds == 0 { defaults::IDLE.stop } else { Some(stop) };
    if let Scaling::Auto(auto) = &mut spec.scaling {
        auto.stop = if seconds == 0 { IdleLimit::Chosen } else { IdleLimit::After(stop) };
    }
}

/// Whether requests start instances, or wait for the provisioned ones.
fn set_ondemand(spec: &mut FunctionSpec, disable: bool) {
    match &mut spec.scaling {
        Scaling::Fc(policy) => {
            policy.disable_ondemand = disable;
            if !disable && **policy == Policies::new(Provision::default()) {
                spec.scaling = Scaling::default();
            }
        }
        // Only the vendor's own policy knows this.
        scaling if disable => {
            let policy = Policies { disable_ondemand: true, ..Policies::new(Provision::default()) };
            *scaling = Scaling::Fc(Box::new(policy));
        }
        _ => {}
    }
}

fn set_timeout(spec: &mut FunctionSpec, seconds: u64) {
    let timeout = Millis::from_secs(seconds);
    spec.timeouts.first_byte = timeout;
    spec.timeouts.idle = timeout;
    // The vendor's limit is for the run alone; ours begins with the wait for an instance.
    spec.timeouts.total = Millis(timeout.0 + spec.timeouts.queue.0);
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be from 0.05 to 16")]
fn milli(cpu: f64) -> MilliCpu {
    MilliCpu((cpu * 1_000.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rendering::render;

    fn spec(config: Value) -> FcResult<FunctionSpec> {
        fresh("f".parse().unwrap(), config.as_object().unwrap(), Path::new("/tree"))
    }

    #[test]
    fn a_configuration_becomes_a_declaration_and_comes_back() {
        let config = json!({
            "functionName": "f", "runtime": "custom.debian10", "handler": "h", "timeout": 60, "instanceConcurrency": 4,
            "environmentVariables": {"A": "${PORT} $$", "B": "$${x}"}, "memorySize": 512, "cpu": 0.35,
            "customRuntimeConfig": {"command": ["/code/run", "--dir", "/code"], "args": ["/codes"], "healthCheckConfig": {"httpGetUrl": "/h"}},
            "gpuConfig": {"gpuMemorySize": 2048},
            "instanceLifecycleConfig": {"initializer": {"handler": "i", "timeout": 20}, "preStop": {"handler": "p"}},
        });
        let made = spec(config).unwrap();
        let Program::Command { argv, dir } = &made.program else { panic!("{made:?}") };
        assert_eq!((argv.join(" ").as_str(), dir.as_path()), ("/tree/run --dir /tree /codes", Path::new("/tree")));
        assert_eq!(made.env["A"], "$${PORT} $$");
        assert_eq!((made.timeouts.first_byte, made.instances.concurrency.hard), (Millis::from_secs(60), 4));
        assert_eq!((made.instances.max, made.http.auth), (1, HttpAuth::Key));
        assert_eq!(made.lifecycle.initialize.as_ref().map(|hook| hook.timeout), Some(Millis::from_secs(20)));
        let back = render(&made);
        assert_eq!(back["environmentVariables"], json!({"A": "${PORT} $$", "B": "$${x}"}));
        assert_eq!((&back["cpu"], &back["memorySize"], &back["timeout"]), (&json!(0.35), &json!(512), &json!(60)));
        let mut again = made.clone();
        apply(&back, &mut again).unwrap();
        assert_eq!(again.env, made.env);
        assert_eq!((again.resources, again.timeouts), (made.resources, made.timeouts));
    }

    #[test]
    fn variables_lead_to_the_code() {
        let environment = json!({"PATH": "/code/bin:/usr/bin:/code", "URL": "http://code/x", "OTHER": "/codes/${x}"});
        let config = json!({"runtime": "custom", "environmentVariables": environment});
        let made = spec(config).unwrap();
        assert_eq!(made.env["PATH"], "${FC_FUNC_CODE_PATH}bin:/usr/bin:${FC_FUNC_CODE_PATH}");
        assert_eq!((made.env["URL"].as_str(), made.env["OTHER"].as_str()), ("http://code/x", "/codes/$${x}"));
        assert_eq!(render(&made)["environmentVariables"]["PATH"], "/code/bin:/usr/bin:/code/");
        let image = json!({"runtime": "custom-container", "customContainerConfig": {"image": "a"}, "environmentVariables": environment});
        assert_eq!(spec(image).unwrap().env["PATH"], "/code/bin:/usr/bin:/code");
    }

    #[test]
    fn a_program_that_insists_on_its_port_has_it_alone() {
        let config = |variable: &str, port: u16| json!({"runtime": "custom", "customRuntimeConfig": {"command": ["x"], "port": port}, "environmentVariables": {FIXED_PORT: variable}});
        let made = spec(config("true", 8_000)).unwrap();
        assert_eq!((made.resources.port, made.instances.max), (Some(8_000), 1));
        assert_eq!(made.deploy.strategy, Strategy::Recreate);
        assert_eq!(spec(config("true", 0)).unwrap().resources.port, Some(9_000));
        let mut other = made;
        set_port(config("false", 8_000).as_object().unwrap(), &mut other, false).unwrap();
        assert_eq!((other.resources.port, other.instances.max), (None, defaults::INSTANCES.max));
        let silent = json!({"runtime": "custom", "customRuntimeConfig": {"port": 8001}});
        let mut made = spec(silent.clone()).unwrap();
        assert_eq!(made.resources.port, None);
        set_port(silent.as_object().unwrap(), &mut made, false).unwrap();
        assert_eq!((made.resources.port, made.instances.max), (Some(8_001), 1), "nothing of it reads a port");
        set_port(silent.as_object().unwrap(), &mut made, true).unwrap();
        assert_eq!((made.resources.port, made.instances.max), (None, defaults::INSTANCES.max));
        assert!(spec(config("yes", 1)).is_err());
    }

    #[test]
    fn an_image_becomes_a_container_and_comes_back() {
        let own = json!({"image": "ocr:3", "entrypoint": ["/run"], "command": ["--port", "${PORT}"], "port": 8080});
        let made = spec(json!({"runtime": "custom-container", "customContainerConfig": own})).unwrap();
        let Program::Image(container) = &made.program else { panic!("{made:?}") };
        assert_eq!((container.image.as_str(), container.port), ("ocr:3", Some(8_080)));
        assert_eq!(container.argv, ["--port", "$${PORT}"], "the vendor replaces nothing in a command");
        let back = render(&made);
        assert_eq!((&back["runtime"], &back["customContainerConfig"]), (&json!("custom-container"), &own));
        let fresh = spec(json!({"runtime": "custom-container", "customContainerConfig": {"image": "ocr"}})).unwrap();
        assert!(matches!(fresh.program, Program::Image(container) if container.port == Some(9_000)));
        for config in [json!({}), json!({"customContainerConfig": {"port": 80}})] {
            let mut config = config;
            config["runtime"] = "custom-container".into();
            assert_eq!(spec(config).unwrap_err().status, 400);
        }
    }

    #[test]
    fn no_command_is_the_bootstrap_and_other_runtimes_are_refused_with_the_remedy() {
        let made = spec(json!({"runtime": "custom"})).unwrap();
        assert!(matches!(made.program, Program::Command { argv, .. } if argv == ["./bootstrap"]));
        for runtime in ["java11", "go1", "php7.2", "dotnetcore3.1", "python2.7", "micro-sandbox"] {
            let refused = spec(json!({"runtime": runtime})).unwrap_err();
            assert!(refused.message.contains("custom") && refused.status == 400, "{refused:?}");
        }
    }
}
