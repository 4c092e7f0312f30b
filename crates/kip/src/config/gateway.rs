//! Settings of the data plane: what callers may do, who is believed, TLS, the access log.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use kip_records::{AccessLogOptions, AccessLogTarget, TraceOptions};
use kip_spec::{Bytes, Millis, Problem};

use super::value::{Value, invalid, parse};

/// Where TLS is spoken, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) listen: SocketAddr,
    pub(crate) files: kip_host::tls::Files,
}

/// What callers of the gateway may do.
pub(super) fn limits(values: &BTreeMap<&'static str, Value>) -> Result<kip_gateway::Limits, Problem> {
    let size = |key: &'static str| -> Result<usize, Problem> {
        let bytes = parse::<Bytes>(values, key, "a size such as 64KiB")?.0;
        Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
    };
    let count = |key: &'static str| parse::<usize>(values, key, "a number such as 100");
    let time =
        |key: &'static str| parse::<Millis>(values, key, "a duration such as 30s").map(|duration| duration.to_std());
    let limits = kip_gateway::Limits {
        connections: count("limits.connections")?,
        head: size("limits.head")?,
        headers: count("limits.headers")?,
        target: size("limits.target")?,
        body: match values["limits.body"].value.as_str() {
            "none" => u64::MAX,
            _ => parse::<Bytes>(values, "limits.body", "a size such as 64MiB, or none")?.0,
        },
        model: size("limits.model")?,
        head_time: time("limits.head_time")?,
        body_idle: time("limits.body_idle")?,
        idle: time("limits.idle")?,
        write_idle: time("limits.write_idle")?,
    };
    if limits.connections == 0 || limits.headers == 0 || limits.head < LEAST_HEAD || limits.target == 0 {
        return Err(invalid("the limits must leave room for a request".to_owned())
            .hint("limits.connections, limits.headers and limits.target are at least 1, limits.head at least 1KiB"));
    }
    // hyper knows no longer targets, and holds heads of a mebibyte at most.
    if limits.target > LONGEST_TARGET || limits.head > LARGEST_HEAD {
        return Err(invalid("limits.target is at most 63KiB and limits.head at most 256KiB".to_owned()));
    }
    Ok(limits)
}

const LEAST_HEAD: usize = 1 << 10;
const LARGEST_HEAD: usize = 256 << 10;
const LONGEST_TARGET: usize = 63 << 10;

pub(super) fn proxies(text: &str) -> Result<Vec<IpAddr>, Problem> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let one = |text: &str| {
        text.trim().parse().map_err(|_| {
            invalid(format!("server.proxies: `{}` is not an address", text.trim()))
                .hint("write the addresses that the proxies connect from, such as \"127.0.0.1, 10.0.0.7\"")
        })
    };
    text.split(',').map(one).collect()
}

/// Names that callers without a key may use, and origins whose pages may call.
pub(super) fn names(hosts: &str, origins: &str) -> Result<kip_gateway::Names, Problem> {
    let list = |text: &str| -> Vec<String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty() && *part != "none");
        parts.map(str::to_ascii_lowercase).collect()
    };
    let names = kip_gateway::Names { hosts: list(hosts), origins: list(origins) };
    if let Some(host) = names.hosts.iter().find(|host| host.contains(['/', ':', '*', ' '])) {
        return Err(invalid(format!("gateway.hosts: `{host}` is not a host name"))
            .hint("write names without scheme and port, such as \"ai.example.com, gpu.example.com\""));
    }
    let is_origin = |origin: &String| {
        let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        origin == "*" || host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ']))
    };
    if let Some(origin) = names.origins.iter().find(|origin| !is_origin(origin)) {
        return Err(invalid(format!("gateway.origins: `{origin}` is not an origin"))
            .hint("write scheme and host without a path, such as \"https://chat.example.com\""));
    }
    Ok(names)
}

pub(super) fn tls(values: &BTreeMap<&'static str, Value>) -> Result<Option<Tls>, Problem> {
    let given = |key: &'static str| Some(values[key].value.as_str()).filter(|value| *value != "none");
    match (given("tls.listen"), given("tls.certificate"), given("tls.key")) {
        (None, None, None) => Ok(None),
        (Some(_), Some(certificate), Some(key)) => {
            let files = kip_host::tls::Files { certificate: certificate.into(), key: key.into() };
            Ok(Some(Tls { listen: parse(values, "tls.listen", "an address such as 0.0.0.0:5443")?, files }))
        }
        _ => Err(invalid("tls.listen, tls.certificate and tls.key are needed together".to_owned())
            .hint("give all three, or none of them")),
    }
}

pub(super) fn access_log(
    data: &Path,
    values: &BTreeMap<&'static str, Value>,
) -> Result<Option<AccessLogOptions>, Problem> {
    let most = parse::<Bytes>(values, "gateway.access_log_size", "a size such as 64MiB")?.0;
    let query = parse(values, "gateway.access_log_query", "true or false")?;
    let target = match values["gateway.access_log"].value.as_str() {
        "off" => return Ok(None),
        "stderr" => AccessLogTarget::Stderr,
        path => AccessLogTarget::File { path: data.join(path), most },
    };
    Ok(Some(AccessLogOptions { target, query }))
}

pub(super) fn traces(values: &BTreeMap<&'static str, Value>) -> Result<Option<TraceOptions>, Problem> {
    let share: f64 = parse(values, "traces.share", "a share such as 0.1, from 0 to 1")?;
    if !(0.0..=1.0).contains(&share) {
        return Err(invalid(format!("traces.share is from 0 to 1, not {share}")));
    }
    let endpoint = match values["traces.endpoint"].value.as_str() {
        "none" => return Ok(None),
        endpoint => endpoint.to_owned(),
    };
    if let Err(error) = kip_host::http_client::authority(&endpoint) {
        return Err(invalid(format!("traces.endpoint: {error}"))
            .hint("write the address of a collector that takes OTLP over HTTP, such as http://127.0.0.1:4318"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from none to a million")]
    let share = (share * 1e6).round() as u32;
    Ok(Some(TraceOptions { endpoint, share }))
}
