//! The model cache, hubs and downloads.

use std::collections::BTreeMap;
use std::path::Path;

use kip_models::{Behaviour, Hub, Options};
use kip_spec::{Bytes, Millis, Problem};

use super::value::{Value, invalid, parse};

pub(super) fn options(data: &Path, values: &BTreeMap<&'static str, Value>) -> Result<Options, Problem> {
    let text = |key: &'static str| values[key].value.as_str();
    let mut endpoints = BTreeMap::new();
    for (hub, key) in [(Hub::HuggingFace, "models.huggingface"), (Hub::ModelScope, "models.modelscope")] {
        let address = text(key);
        if !address.starts_with("https://") && !address.starts_with("http://") {
            return Err(invalid(format!("{key}: `{address}` is not an address such as {}", hub.endpoint())));
        }
        endpoints.insert(hub, address.trim_end_matches('/').to_owned());
    }
    let connections = parse::<usize>(values, "models.connections", "a number such as 8")?;
    if connections == 0 {
        return Err(invalid("models.connections is at least 1".to_owned()));
    }
    let patience = parse::<Millis>(values, "models.patience", "a duration such as 10m")?.to_std();
    Ok(Options {
        folder: data.join(text("models.folder")),
        endpoints,
        reserve: parse::<Bytes>(values, "models.reserve", "a size such as 1GiB")?.0,
        certificates: Some(text("models.certificates")).filter(|file| *file != "none").map(|file| data.join(file)),
        behaviour: Behaviour { connections, patience, ..Behaviour::default() },
    })
}
