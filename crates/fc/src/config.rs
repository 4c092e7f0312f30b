//! A function's configuration in the vendor's words: its limits, checked before anything is stored.
//! Source of names and limits: the shared reference on the FC 3.0 API, section 2.3.

use serde_json::{Map, Value};

use crate::error::{FcError, FcResult};
use crate::request::{required, text};

/// The runtimes of the interface.
pub(crate) const RUNTIMES: [&str; 28] = [
    "custom",
    "custom.debian10",
    "custom.debian11",
    "custom.debian12",
    "custom-container",
    "python2.7",
    "python3",
    "python3.6",
    "python3.9",
    "python3.10",
    "python3.11",
    "python3.12",
    "python3.13",
    "nodejs8",
    "nodejs10",
    "nodejs12",
    "nodejs14",
    "nodejs16",
    "nodejs18",
    "nodejs20",
    "nodejs22",
    "java8",
    "java11",
    "go1",
    "php7.2",
    "dotnetcore2.1",
    "dotnetcore3.1",
    "micro-sandbox",
];

/// Bytes of all variables together.
const MOST_ENVIRONMENT: usize = 4 << 10;

/// Checks the fields that are there. A new function needs some of them.
pub(crate) fn check(config: &Map<String, Value>, is_new: bool) -> FcResult<()> {
    if is_new {
        check_name(required(config, "functionName")?)?;
        let runtime = required(config, "runtime")?;
        if !runtime.starts_with("custom") {
            required(config, "handler")?;
        }
    }
    if let Some(runtime) = text(config, "runtime")?
        && !RUNTIMES.contains(&runtime)
    {
        return Err(FcError::invalid(format!("runtime is set to an invalid value `{runtime}`")));
    }
    for (name, longest) in [("handler", 128), ("description", 256), ("role", 256)] {
        if text(config, name)?.is_some_and(|text| text.chars().count() > longest) {
            return Err(FcError::invalid(format!("{name} has at most {longest} characters")));
        }
    }
    for (name, least, most) in [("timeout", 1, 86_400), ("instanceConcurrency", 1, 200), ("idleTimeout", 0, 86_400)] {
        number(config, name, least, most)?;
    }
    if let Some(memory) = number(config, "memorySize", 128, most_memory(config)?)?
        && memory % 64 != 0
    {
        return Err(FcError::invalid("memorySize is a multiple of 64 MB"));
    }
    if let Some(disk) = number(config, "diskSize", 512, 102_400)?
        && disk != 512
        && disk % 10_240 != 0
    {
        return Err(FcError::invalid("diskSize is 512 MB or a multiple of 10240 MB"));
    }
    cpu(config)?;
    environment(config)?;
    for name in ["customRuntimeConfig", "customContainerConfig", "gpuConfig", "instanceLifecycleConfig", "nasConfig"] {
        object(config, name)?;
    }
    crate::shares::check(config)?;
    if let Some(runtime) = object(config, "customRuntimeConfig")? {
        words(runtime, "command")?;
        words(runtime, "args")?;
        number(runtime, "port", 0, 65_535)?;
        health(runtime)?;
    }
    if let Some(container) = object(config, "customContainerConfig")? {
        text(container, "image")?;
        words(container, "command")?;
        words(container, "entrypoint")?;
        number(container, "port", 0, 65_535)?;
        health(container)?;
    }
    gpu(config)?;
    if let Some(lifecycle) = object(config, "instanceLifecycleConfig")? {
        for (name, longest) in [("initializer", 300), ("preStop", 90)] {
            let Some(hook) = object(lifecycle, name)? else { continue };
            number(hook, "timeout", 1, longest)?;
            if text(hook, "handler")?.is_some_and(|handler| !handler.is_empty()) && !words(hook, "command")?.is_empty()
            {
                return Err(FcError::invalid(format!("{name} has a handler or a command, not both")));
            }
        }
    }
    Ok(())
}

fn check_name(name: &str) -> FcResult<()> {
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if begins && rest && name.len() <= 64 {
        return Ok(());
    }
    Err(FcError::invalid(
        "functionName has 1 to 64 letters, digits, `_` or `-`, and does not begin with a digit or `-`",
    ))
}

fn has_gpu(config: &Map<String, Value>) -> FcResult<bool> {
    Ok(object(config, "gpuConfig")?.is_some_and(|gpu| gpu.get("gpuMemorySize").is_some()))
}

/// The largest `memorySize`, MB.
fn most_memory(config: &Map<String, Value>) -> FcResult<u64> {
    Ok(if has_gpu(config)? { 131_072 } else { 32_768 })
}

/// How the types of devices of the vendor begin. Which card one is here is said by the settings of the server.
const GPU_TYPES: [&str; 2] = ["fc.gpu.", "fc.xpu."];
/// The type that comes in slices, of which memory and CPU follow.
const SLICED: &str = "fc.gpu.tesla.1";

fn gpu(config: &Map<String, Value>) -> FcResult<()> {
    let Some(gpu) = object(config, "gpuConfig")? else { return Ok(()) };
    let kind = text(gpu, "gpuType")?.filter(|kind| !kind.is_empty());
    if let Some(kind) = kind.filter(|kind| !GPU_TYPES.iter().any(|known| kind.starts_with(known))) {
        return Err(FcError::invalid(format!(
            "gpuConfig.gpuType is set to an invalid value `{kind}`: types look like fc.gpu.tesla.1, fc.gpu.ampere.1 or fc.gpu.ada.1"
        )));
    }
    let Some(memory) = number(gpu, "gpuMemorySize", 1_024, 1 << 20)? else { return Ok(()) };
    if memory % 1_024 != 0 {
        return Err(FcError::invalid("gpuConfig.gpuMemorySize is a multiple of 1024 MB"));
    }
    if kind != Some(SLICED) {
        return Ok(());
    }
    let slices = memory / 1_024;
    if slices > 16 {
        return Err(FcError::invalid(format!("gpuConfig.gpuMemorySize is at most 16384 MB with {SLICED}")));
    }
    let most = slices * 2_048;
    if number(config, "memorySize", 128, most_memory(config)?)?.is_some_and(|memory| memory > most) {
        return Err(FcError::invalid(format!(
            "memorySize is at most {most} MB with {memory} MB of {SLICED}: 2048 MB for each GB"
        )));
    }
    let half = f64::from(u32::try_from(slices).unwrap_or(u32::MAX)) / 2.0;
    if real(config, "cpu")?.is_some_and(|cpu| cpu > half) {
        return Err(FcError::invalid(format!(
            "cpu is at most {half} vCPU with {memory} MB of {SLICED}: half a vCPU for each GB"
        )));
    }
    Ok(())
}

fn cpu(config: &Map<String, Value>) -> FcResult<()> {
    let Some(cpu) = real(config, "cpu")? else { return Ok(()) };
    let steps = cpu / 0.05;
    if !(0.05..=16.0).contains(&cpu) || (steps - steps.round()).abs() > 1e-6 {
        return Err(FcError::invalid("cpu is 0.05 to 16 vCPU in steps of 0.05"));
    }
    // A GPU has ratios of its own.
    let has_gpu = has_gpu(config)?;
    match number(config, "memorySize", 128, most_memory(config)?)?.and_then(|memory| u32::try_from(memory).ok()) {
        Some(memory) if !has_gpu => {
            let ratio = f64::from(memory) / 1_024.0 / cpu;
            if (0.99..=4.01).contains(&ratio) {
                return Ok(());
            }
            Err(FcError::invalid("the ratio of cpu (vCPU) to memorySize (GB) is from 1:1 to 1:4"))
        }
        _ => Ok(()),
    }
}

fn environment(config: &Map<String, Value>) -> FcResult<()> {
    let Some(variables) = object(config, "environmentVariables")? else { return Ok(()) };
    let mut bytes = 0;
    for (name, value) in variables {
        let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if !begins || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(FcError::invalid(format!("`{name}` cannot be the name of an environment variable")));
        }
        let Some(value) = value.as_str().filter(|value| !value.contains('\0')) else {
            return Err(FcError::invalid(format!("the environment variable {name} is text")));
        };
        bytes += name.len() + value.len();
    }
    if bytes > MOST_ENVIRONMENT {
        return Err(FcError::invalid(format!("environmentVariables have at most {MOST_ENVIRONMENT} bytes together")));
    }
    Ok(())
}

fn health(of: &Map<String, Value>) -> FcResult<()> {
    let Some(health) = object(of, "healthCheckConfig")? else { return Ok(()) };
    if text(health, "httpGetUrl")?.is_some_and(|url| url.len() > 2_048 || !(url.is_empty() || url.starts_with('/'))) {
        return Err(FcError::invalid("httpGetUrl is a path with at most 2048 characters"));
    }
    for (name, least, most) in [
        ("initialDelaySeconds", 0, 120),
        ("periodSeconds", 1, 120),
        ("timeoutSeconds", 1, 3),
        ("failureThreshold", 1, 120),
        ("successThreshold", 1, 120),
    ] {
        number(health, name, least, most)?;
    }
    Ok(())
}

/// An object field.
pub(crate) fn object<'a>(config: &'a Map<String, Value>, name: &str) -> FcResult<Option<&'a Map<String, Value>>> {
    match config.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(FcError::invalid(format!("{name} is an object"))),
    }
}

/// A whole number within a range.
pub(crate) fn number(config: &Map<String, Value>, name: &str, least: u64, most: u64) -> FcResult<Option<u64>> {
    match config.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().filter(|value| (least..=most).contains(value)) {
            Some(value) => Ok(Some(value)),
            None => Err(FcError::invalid(format!("{name} is a whole number from {least} to {most}"))),
        },
    }
}

/// A number that need not be whole.
pub(crate) fn real(config: &Map<String, Value>, name: &str) -> FcResult<Option<f64>> {
    match config.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| FcError::invalid(format!("{name} is a number"))),
    }
}

/// A list of words.
pub(crate) fn words(config: &Map<String, Value>, name: &str) -> FcResult<Vec<String>> {
    let wrong = || FcError::invalid(format!("{name} is a list of texts"));
    match config.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(change: Value) -> Option<String> {
        let mut config = json!({"functionName": "f", "runtime": "custom.debian10", "handler": "h"});
        let fields = change.as_object().unwrap().clone();
        config.as_object_mut().unwrap().extend(fields);
        check(config.as_object().unwrap(), true).err().map(|error| error.message)
    }

    #[test]
    fn what_clients_send_is_taken_with_their_empty_values_too() {
        assert_eq!(faults(json!({})), None);
        let rest = json!({
            "vpcConfig": {"securityGroupId": "", "vSwitchIds": [], "vpcId": ""},
            "nasConfig": {"userId": 0, "groupId": 0, "mountPoints": []},
            "layers": [], "environmentVariables": {}, "tracingConfig": {}, "instanceIsolationMode": "SHARE",
            "customRuntimeConfig": {"command": ["python3"], "args": ["app.py"], "port": 9000},
            "cpu": 0.35, "memorySize": 512, "diskSize": 512, "timeout": 3, "instanceConcurrency": 1,
            "gpuConfig": {}, "instanceLifecycleConfig": {"initializer": {"handler": "main.init", "timeout": 300}},
        });
        assert_eq!(faults(rest), None);
        let gpu = json!({"gpuConfig": {"gpuMemorySize": 8192, "gpuType": "fc.gpu.tesla.1"}, "cpu": 2, "memorySize": 16_384, "diskSize": 61_440});
        assert_eq!(faults(gpu), None, "a GPU has ratios and sizes of its own");
        let ada =
            json!({"gpuConfig": {"gpuMemorySize": 49_152, "gpuType": "fc.gpu.ada.1"}, "cpu": 8, "memorySize": 65_536});
        assert_eq!(faults(ada), None);
        let container = json!({"customContainerConfig": {"image": "a", "port": 9000, "healthCheckConfig": {"httpGetUrl": "/h", "periodSeconds": 3}}});
        assert_eq!(faults(container), None);
    }

    #[test]
    fn values_beyond_the_limits_are_refused() {
        for wrong in [
            json!({"functionName": "1f"}),
            json!({"functionName": ""}),
            json!({"functionName": "a".repeat(65)}),
            json!({"runtime": "cobol"}),
            json!({"runtime": "python3.10", "handler": ""}),
            json!({"timeout": 0}),
            json!({"timeout": 86_401}),
            json!({"timeout": "60"}),
            json!({"memorySize": 100}),
            json!({"memorySize": 130}),
            json!({"memorySize": 32_832}),
            json!({"diskSize": 1_024}),
            json!({"cpu": 0.04}),
            json!({"cpu": 0.06}),
            json!({"cpu": 1, "memorySize": 512}),
            json!({"cpu": 0.35, "memorySize": 8_192}),
            json!({"instanceConcurrency": 201}),
            json!({"environmentVariables": {"A B": "x"}}),
            json!({"environmentVariables": {"A": 1}}),
            json!({"environmentVariables": {"A": "x".repeat(5_000)}}),
            json!({"environmentVariables": []}),
            json!({"customRuntimeConfig": {"command": "x"}}),
            json!({"customRuntimeConfig": {"port": 65_536}}),
            json!({"customRuntimeConfig": {"healthCheckConfig": {"httpGetUrl": "x"}}}),
            json!({"customRuntimeConfig": {"healthCheckConfig": {"timeoutSeconds": 4}}}),
            json!({"gpuConfig": {"gpuMemorySize": 1_000}}),
            json!({"gpuConfig": {"gpuMemorySize": 1_024, "gpuType": "g1"}}),
            json!({"gpuConfig": {"gpuMemorySize": 17_408, "gpuType": "fc.gpu.tesla.1"}}),
            json!({"gpuConfig": {"gpuMemorySize": 8_192, "gpuType": "fc.gpu.tesla.1"}, "cpu": 4.05}),
            json!({"gpuConfig": {"gpuMemorySize": 8_192, "gpuType": "fc.gpu.tesla.1"}, "memorySize": 16_448}),
            json!({"customContainerConfig": {"image": "a", "healthCheckConfig": {"httpGetUrl": "x"}}}),
            json!({"customContainerConfig": {"image": "a", "healthCheckConfig": {"failureThreshold": 0}}}),
            json!({"customContainerConfig": {"image": "a", "command": "x"}}),
            json!({"instanceLifecycleConfig": {"initializer": {"handler": "h", "timeout": 301}}}),
            json!({"instanceLifecycleConfig": {"initializer": {"handler": "h", "command": ["x"]}}}),
            json!({"description": "x".repeat(257)}),
        ] {
            assert!(faults(wrong.clone()).is_some(), "{wrong}");
        }
    }
}
