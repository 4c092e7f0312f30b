//! A declaration in the vendor's words, as far as there are some, and what a change says that is not shown already.

use kip_spec::MilliCpu;
use kip_spec::function::{FunctionSpec, GpuNeed, GpuResources, Hook, Program, defaults};
use kip_spec::reference::{Piece, pieces};
use kip_spec::scaling::Scaling;
use serde_json::{Map, Value, json};

/// Where code is for functions of the vendor.
pub(crate) const CODE: &str = "/code";
/// What stands for it in the values of variables.
pub(crate) const CODE_REFERENCE: &str = "${FC_FUNC_CODE_PATH}";

/// The value of a variable as clients see it: references stand as they are written.
pub(crate) fn shown_value(declared: &str) -> String {
    let text = |piece| match piece {
        Piece::Text(text) => text.to_owned(),
        Piece::Variable { written, .. } if written == CODE_REFERENCE => format!("{CODE}/"),
        Piece::Variable { written, .. } => written.to_owned(),
    };
    pieces(declared).into_iter().map(text).collect()
}

pub(crate) fn shown_hook(hook: &Hook) -> Value {
    json!({"handler": hook.path, "timeout": hook.timeout.0.div_ceil(1_000)})
}

/// Fields of an answer that no request sets.
const READ_ONLY: [&str; 16] = [
    "functionArn",
    "functionId",
    "functionName",
    "codeSize",
    "codeChecksum",
    "createdTime",
    "lastModifiedTime",
    "state",
    "stateReason",
    "stateReasonCode",
    "lastUpdateStatus",
    "lastUpdateStatusReason",
    "lastUpdateStatusReasonCode",
    "invocationRestriction",
    "lockInfo",
    "accelerationInfo",
];

/// What a change says that is not shown already. Who writes back what they read changes nothing, whatever has no word in this interface.
pub(crate) fn differences(shown: &Value, mut change: Map<String, Value>) -> Map<String, Value> {
    change.retain(|name, value| !READ_ONLY.contains(&name.as_str()) && shown.get(name) != Some(value));
    change
}

/// A declaration in the vendor's words, as far as there are some.
pub(crate) fn render(spec: &FunctionSpec) -> Map<String, Value> {
    let environment: Map<String, Value> =
        spec.env.iter().map(|(name, value)| (name.clone(), shown_value(value).into())).collect();
    let mut config = json!({
        "functionName": spec.name.as_str(),
        "runtime": "custom.debian12",
        "handler": "index.handler",
        "timeout": spec.timeouts.first_byte.0.div_ceil(1_000),
        "instanceConcurrency": spec.instances.concurrency.hard,
        "environmentVariables": environment,
    });
    if let Program::Command { argv, .. } = &spec.program {
        config["customRuntimeConfig"] = json!({"command": argv});
        if let Some(health) = crate::health::render(spec) {
            config["customRuntimeConfig"]["healthCheckConfig"] = health;
        }
    }
    if let Program::Image(container) = &spec.program {
        config["runtime"] = "custom-container".into();
        let mut own = json!({"image": container.image});
        let words = [("entrypoint", &container.entrypoint), ("command", &container.argv)];
        for (name, words) in words.into_iter().filter(|(_, words)| !words.is_empty()) {
            own[name] = words.iter().map(|word| shown_value(word)).collect();
        }
        if let Some(port) = container.port {
            own["port"] = port.into();
        }
        if let Some(health) = crate::health::render(spec) {
            own["healthCheckConfig"] = health;
        }
        config["customContainerConfig"] = own;
    }
    if let Some(memory) = spec.resources.memory {
        config["memorySize"] = (memory.0 >> 20).into();
    }
    if let Some(MilliCpu(cpu)) = spec.resources.cpu {
        config["cpu"] = json!(f64::from(u32::try_from(cpu).unwrap_or(u32::MAX)) / 1_000.0);
    }
    if let Some(GpuResources { need: GpuNeed::Memory(memory), .. }) = &spec.resources.gpu {
        config["gpuConfig"] = json!({"gpuMemorySize": memory.0 >> 20});
    }
    if let Some(stop) = spec.idle.stop.filter(|_| spec.idle.stop != defaults::IDLE.stop) {
        config["idleTimeout"] = stop.0.div_ceil(1_000).into();
    }
    if matches!(&spec.scaling, Scaling::Fc(policy) if policy.disable_ondemand) {
        config["disableOndemand"] = true.into();
    }
    let mut lifecycle = Map::new();
    lifecycle.extend(spec.lifecycle.initialize.as_ref().map(|one| ("initializer".to_owned(), shown_hook(one))));
    lifecycle.extend(spec.lifecycle.pre_stop.as_ref().map(|one| ("preStop".to_owned(), shown_hook(one))));
    if !lifecycle.is_empty() {
        config["instanceLifecycleConfig"] = lifecycle.into();
    }
    match config {
        Value::Object(config) => config,
        _ => Map::new(),
    }
}
