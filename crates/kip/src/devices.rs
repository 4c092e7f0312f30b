//! `[[device]]` of `kipwake.toml`: the devices of this host as their owner declares them.

use kip_fleet::DeviceKind;
use kip_spec::{Bytes, Problem, code};
use serde::Serialize;

/// As many as a place has bits for.
const MOST: usize = 64;
/// Characters of a name or a type.
const LONGEST_NAME: usize = 64;
/// The keys of one.
const KEYS: [&str; 4] = ["name", "memory", "type", "cdi"];

/// A declared device. Its place in the list is its number in `CUDA_VISIBLE_DEVICES`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Device {
    /// Its name, for people and logs.
    pub(crate) name: String,
    /// Its memory for instances.
    pub(crate) memory: Bytes,
    /// What functions may ask for.
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// Its name in device specifications (CDI), for containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cdi: Option<String>,
}

impl Device {
    /// In a line.
    pub(crate) fn described(&self) -> String {
        let kind = self.kind.as_deref().map(|kind| format!(", type {kind}")).unwrap_or_default();
        let cdi = self.cdi.as_deref().map(|cdi| format!(", {cdi} in containers")).unwrap_or_default();
        format!("{}{kind}{cdi}", self.memory)
    }
}

impl From<&Device> for kip_fleet::Device {
    fn from(device: &Device) -> Self {
        // One without a type is for those who ask for any.
        let kind = device.kind.as_deref().map_or(DeviceKind::ANY, DeviceKind::named);
        Self { name: device.name.clone(), kind, memory: device.memory.0 }
    }
}

/// Reads the list.
pub(crate) fn read(value: &toml::Value) -> Result<Vec<Device>, Problem> {
    let toml::Value::Array(entries) = value else {
        return Err(refused("`device` must be a list of tables").hint("write [[device]] above each one"));
    };
    let mut devices: Vec<Device> = Vec::with_capacity(entries.len());
    for (number, entry) in entries.iter().enumerate() {
        let toml::Value::Table(table) = entry else {
            return Err(refused("`device` must be a list of tables").hint("write [[device]] above each one"));
        };
        let device = one(number, table)?;
        if devices.iter().any(|other| other.name == device.name) {
            return Err(refused(format!("two devices are called `{}`", device.name)).hint("give each its own name"));
        }
        devices.push(device);
    }
    if devices.len() > MOST {
        return Err(refused(format!("{} devices are declared; {MOST} are the most", devices.len())));
    }
    Ok(devices)
}

fn one(number: usize, table: &toml::Table) -> Result<Device, Problem> {
    if let Some(unknown) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let problem = refused(format!("device {}: there is no key `{unknown}`", number + 1));
        return Err(problem.hint("a device has `name`, `memory`, `type` and `cdi`"));
    }
    let text = |key: &str| match table.get(key) {
        None => Ok(None),
        Some(toml::Value::String(text)) => Ok(Some(text.as_str())),
        Some(other) => {
            let message = format!("device {}: {key} must be text, not {}", number + 1, other.type_str());
            Err(refused(message).hint("for example name = \"gpu0\", memory = \"24GiB\", type = \"L4\""))
        }
    };
    let named = |key: &str, text: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b" ._-".contains(&byte);
        if text.trim().is_empty() || text.len() > LONGEST_NAME || !text.bytes().all(fits) {
            let message = format!("device {}: {key} `{text}` is not a name", number + 1);
            let hint = format!("at most {LONGEST_NAME} letters, digits, spaces, `.`, `_` and `-`");
            return Err(refused(message).hint(hint));
        }
        Ok(text.to_owned())
    };
    let Some(name) = text("name")? else {
        return Err(refused(format!("device {}: `name` is missing", number + 1)).hint("for example name = \"gpu0\""));
    };
    let name = named("name", name)?;
    let Some(memory) = text("memory")? else {
        return Err(refused(format!("device `{name}`: `memory` is missing")).hint("for example memory = \"24GiB\""));
    };
    let memory: Bytes = memory.parse().map_err(|error: kip_spec::units::UnitError| {
        refused(format!("device `{name}`: memory: `{memory}` is not a size such as 24GiB")).cause(error.to_string())
    })?;
    if memory == Bytes(0) {
        return Err(refused(format!("device `{name}` has no memory")));
    }
    let kind = text("type")?.map(|kind| named("type", kind)).transpose()?;
    if kind.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("any")) {
        return Err(refused(format!("device `{name}`: `any` is what functions ask for, not a type"))
            .hint("leave `type` out, or name it"));
    }
    let cdi = text("cdi")?;
    if let Some(cdi) = cdi.filter(|cdi| !is_cdi(cdi)) {
        return Err(refused(format!("device `{name}`: cdi `{cdi}` is not vendor/class=name"))
            .hint("for example cdi = \"nvidia.com/gpu=0\", which is the default of the first device"));
    }
    Ok(Device { name, memory, kind, cdi: cdi.map(str::to_owned) })
}

/// A name in a device specification: `vendor/class=name`.
fn is_cdi(text: &str) -> bool {
    let plain = |part: &str, more: &[u8]| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    let parts = text.split_once('=').and_then(|(kind, name)| Some((kind.split_once('/')?, name)));
    parts.is_some_and(|((vendor, class), name)| plain(vendor, b".-_") && plain(class, b"-_") && plain(name, b".-_:"))
        && text.len() <= LONGEST_NAME * 2
}

fn refused(message: impl Into<String>) -> Problem {
    Problem::new(code::CONFIG_INVALID, message)
}

/// One entry in the schema of `kipwake.toml`.
pub(crate) fn schema() -> serde_json::Value {
    let name = |description: &str| {
        serde_json::json!({
            "type": "string", "pattern": "^[A-Za-z0-9 ._-]+$", "maxLength": LONGEST_NAME, "description": description,
        })
    };
    serde_json::json!({
        "type": "array",
        "maxItems": MOST,
        "description": "the devices of this host, in the order of their CUDA numbers; without any, those that the driver shows (host.devices)",
        "items": {
            "type": "object",
            "additionalProperties": false,
            "required": ["name", "memory"],
            "properties": {
                "name": name("what it is called, such as gpu0"),
                "memory": {"type": "string", "description": "its memory for instances, such as 24GiB"},
                "type": name("what functions may ask for, such as L4"),
                "cdi": {
                    "type": "string",
                    "pattern": "^[A-Za-z0-9._-]+/[A-Za-z0-9_-]+=[A-Za-z0-9._:-]+$",
                    "description": "its name in device specifications for containers; nvidia.com/gpu= and its number if left out",
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Device>, Problem> {
        let table: toml::Table = text.parse().unwrap();
        read(&table["device"])
    }

    #[test]
    fn devices_are_read_in_order() {
        let text = "[[device]]\nname = \"gpu0\"\nmemory = \"24GiB\"\ntype = \"L4\"\n[[device]]\nname = \"gpu1\"\nmemory = \"8GiB\"\n";
        let devices = parsed(text).unwrap();
        let shown: Vec<String> = devices.iter().map(|d| format!("{} {}", d.name, d.described())).collect();
        assert_eq!(shown, ["gpu0 24GiB, type L4", "gpu1 8GiB"]);
        let kinds: Vec<DeviceKind> = devices.iter().map(|device| kip_fleet::Device::from(device).kind).collect();
        assert!(DeviceKind::named("l4").accepts(kinds[0]) && !DeviceKind::named("l4").accepts(kinds[1]));
        assert!(DeviceKind::ANY.accepts(kinds[1]));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, said) in [
            ("device = 5", "list of tables"),
            ("device = [5]", "list of tables"),
            ("[[device]]\nmemory = \"1GiB\"", "`name` is missing"),
            ("[[device]]\nname = \"a\"", "`memory` is missing"),
            ("[[device]]\nname = \"a\"\nmemory = \"5\"", "not a size"),
            ("[[device]]\nname = \"a\"\nmemory = \"0GiB\"", "no memory"),
            ("[[device]]\nname = \"a\"\nmemory = 5", "must be text"),
            ("[[device]]\nname = \"a,b\"\nmemory = \"1GiB\"", "not a name"),
            ("[[device]]\nname = \"a\"\nmemory = \"1GiB\"\ntype = \"any\"", "not a type"),
            ("[[device]]\nname = \"a\"\nmemry = \"1GiB\"", "no key `memry`"),
            ("[[device]]\nname = \"a\"\nmemory = \"1GiB\"\n[[device]]\nname = \"a\"\nmemory = \"1GiB\"", "two devices"),
        ] {
            let problem = parsed(text).unwrap_err();
            assert!(problem.to_string().contains(said), "{text}: {problem}");
        }
    }
}
