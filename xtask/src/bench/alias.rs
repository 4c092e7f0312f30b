//! An alias that moves among many functions: the time until requests follow it, and what versions and aliases take of memory.

use std::time::Duration;

use anyhow::{Context, Result};

use super::server::{Server, exchange, exchange_whole};
use super::{millis, percentile};

/// Functions in one document.
const AT_ONCE: usize = 1_000;
/// Moves that are measured.
const MOVES: usize = 50;

pub(super) fn run(functions: usize) -> Result<()> {
    let server = Server::start(&[])?;
    let upstream = std::env::current_exe()?;
    let declared = |name: &str, second: bool| {
        let second = if second { "    env: {SECOND: \"1\"}\n" } else { "" };
        format!("  {name}:\n    run: [{}, upstream]\n    instances: {{max: 1}}\n{second}", upstream.display())
    };
    server.deploy(&declared("f", false))?;
    std::thread::sleep(Duration::from_secs(5));
    let empty = server.resident();
    let names: Vec<String> = (0..functions).map(|number| format!("f{number}")).collect();
    for some in names.chunks(AT_ONCE) {
        server.deploy(&some.iter().map(|name| declared(name, false)).collect::<String>())?;
    }
    let plain = server.resident();
    let put = |name: &str, alias: &str, version: &str| -> Result<()> {
        let body = serde_json::json!({"targets": version}).to_string();
        let path = format!("/api/v1/functions/{name}/aliases/{alias}");
        let (status, answer) = exchange(server.api, "PUT", &path, server.key(), body.as_bytes())?;
        anyhow::ensure!(status < 300, "{path}: {status} {answer}");
        Ok(())
    };
    let publish = |name: &str| -> Result<()> {
        let path = format!("/api/v1/functions/{name}/versions");
        let (status, answer) = exchange(server.api, "POST", &path, server.key(), b"{}")?;
        anyhow::ensure!(status < 300, "{path}: {status} {answer}");
        Ok(())
    };
    for name in &names {
        publish(name)?;
        put(name, "prod", "1")?;
    }
    std::thread::sleep(Duration::from_secs(5));
    let full = server.resident();
    publish("f")?;
    server.deploy(&declared("f", true))?;
    publish("f")?;
    // Both versions run, so that no start is measured.
    server.call("/f/f@1/small")?;
    server.call("/f/f@2/small")?;
    let (mut answered, mut followed) = (Vec::new(), Vec::new());
    for turn in 0..MOVES {
        let version = if turn % 2 == 0 { "2" } else { "1" };
        let begin = kip_host::clock::monotonic_micros();
        put("f", "prod", version)?;
        answered.push(kip_host::clock::monotonic_micros() - begin);
        loop {
            let (_, headers, _) = exchange_whole(server.gateway, "GET", "/f/f@prod/small", "", b"")?;
            let now = headers.get("x-kip-version").context("the answer names its version")?;
            if now == version {
                break;
            }
        }
        followed.push(kip_host::clock::monotonic_micros() - begin);
    }
    let each = |bytes: u64| bytes / u64::try_from(functions.max(1)).unwrap_or(1);
    println!("{functions} functions: {} bytes each", each(plain.saturating_sub(empty)));
    println!("and a version and an alias for each of them: {} bytes more each", each(full.saturating_sub(plain)));
    for (what, mut times) in [("the command is answered", answered), ("a request follows", followed)] {
        let [middle, most] = [50, 99].map(|percent| millis(percentile(&mut times, percent)));
        println!("from an alias change until {what}: p50 {middle}, p99 {most}, of {MOVES}");
    }
    Ok(())
}
