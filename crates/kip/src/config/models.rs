//! The model cache, hubs and downloads.

use std::collections::BTreeMap;
use std::path::Path;

use kip_models::{Behaviour, CacheLimits, Hub, Options};
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
    let percent = |key| parse::<u64>(values, key, "percent, from 1 to 100");
    let (high, low) = (percent("models.high")?, percent("models.low")?);
    if high > 100 || low == 0 || low > high {
        return Err(invalid(format!(
            "models.low ({low}) is from 1 to models.high, and models.high ({high}) at most 100"
        )));
    }
    let quota = match text("models.quota") {
        "none" => None,
        _ => Some(parse::<Bytes>(values, "models.quota", "a size such as 200GiB, or none")?.0),
    };
    let mut buckets = BTreeMap::new();
    for (scheme, key) in [("s3", "models.s3"), ("oss", "models.oss")] {
        let address = text(key);
        if address == "none" {
            continue;
        }
        if !address.starts_with("https://") && !address.starts_with("http://") {
            return Err(invalid(format!(
                "{key}: `{address}` is not an address such as https://s3.eu-central-1.amazonaws.com"
            )));
        }
        buckets.insert(scheme.to_owned(), address.trim_end_matches('/').to_owned());
    }
    Ok(Options {
        buckets,
        limits: CacheLimits { quota, high, low },
        // Known when the bodies are open.
        foreign_ids: false,
        prefetch: parse(values, "models.prefetch", "true or false")?,
        folder: data.join(text("models.folder")),
        endpoints,
        reserve: parse::<Bytes>(values, "models.reserve", "a size such as 1GiB")?.0,
        certificates: Some(text("models.certificates")).filter(|file| *file != "none").map(|file| data.join(file)),
        behaviour: Behaviour { connections, patience, ..Behaviour::default() },
    })
}
