//! Load by what is free against round robin: three instances that take one request at a time, under bursts of requests of very
//! different lengths.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use kip_host::clock::monotonic_micros;

use super::super::percentile;
use super::super::server::{exchange, until};
use super::proxies::Choice;
use super::{prepared, proxies};

const THREE: &str = "    instances: {min: 3, max: 3, concurrency: 1}\n    queue: {depth: 10000}\n    idle: {pause: never}\n    dispatch: balanced\n";
const BURSTS: usize = 250;
/// Requests of a burst.
const REQUESTS: usize = 10;
/// What they take on the instance, in microseconds.
const SHORT: u64 = 4_000;
/// The same for one of them, whose place changes from burst to burst.
const LONG: u64 = 40_000;
const BETWEEN: Duration = Duration::from_millis(60);

pub(super) fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    proxies::certificate(folder.path())?;
    let (server, _, _) = prepared(folder.path(), THREE)?;
    until("three instances serve", || (server.states("ready").ok()? + server.states("busy").ok()? == 3).then_some(()))?;
    let listed = server.ask("/api/v1/instances")?;
    let addresses = |list: &serde_json::Value| -> Option<Vec<SocketAddr>> {
        list.as_array()?.iter().map(|one| one["address"].as_str()?.parse().ok()).collect()
    };
    let instances = addresses(&listed).context("instances have addresses")?;
    let round_robin = proxies::haproxy(folder.path(), &instances, Choice::RoundRobin)?;
    let least = proxies::haproxy(folder.path(), &instances, Choice::LeastOfOne)?;
    println!(
        "{BURSTS} bursts of {} requests, {} ms apart, one of them 40 ms and the others 4 ms long; an instance works on one at a time",
        REQUESTS,
        BETWEEN.as_millis()
    );
    println!("\n| dispatch | busy shares of the three | requests of the three | p50 | p99 |");
    println!("|---|---|---|---|---|");
    for round in 0..3 {
        let mut all = [
            ("kip balanced", server.gateway, "f.localhost"),
            ("haproxy roundrobin", round_robin.address, "x"),
            ("haproxy leastconn, maxconn 1", least.address, "x"),
        ];
        all.rotate_left(round);
        for (name, to, host) in all {
            let before = busy(&instances)?;
            let mut times = bursts(to, host)?;
            let after = busy(&instances)?;
            let spent: Vec<(u64, u64)> =
                before.iter().zip(&after).map(|(before, after)| (after.0 - before.0, after.1 - before.1)).collect();
            let total: u64 = spent.iter().map(|(micros, _)| micros).sum();
            let shares: Vec<String> =
                spent.iter().map(|(micros, _)| format!("{:.1} %", *micros as f64 * 100.0 / total as f64)).collect();
            let counts: Vec<String> = spent.iter().map(|(_, requests)| requests.to_string()).collect();
            println!(
                "| {name} | {} | {} | {} | {} |",
                shares.join(", "),
                counts.join(", "),
                super::super::millis(percentile(&mut times, 50)),
                super::super::millis(percentile(&mut times, 99)),
            );
        }
    }
    Ok(())
}

/// Microseconds of work and requests of each instance so far.
fn busy(instances: &[SocketAddr]) -> Result<Vec<(u64, u64)>> {
    let one = |at: &SocketAddr| {
        let (_, text) = exchange(*at, "GET", "/busy", "", b"")?;
        let mut numbers = text.split(' ').filter_map(|word| word.parse::<u64>().ok());
        Ok((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)))
    };
    instances.iter().map(one).collect()
}

/// Sends the bursts; microseconds of each request over what its work takes.
fn bursts(to: SocketAddr, host: &str) -> Result<Vec<u64>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut calls = Vec::new();
        for burst in 0..BURSTS {
            for place in 0..REQUESTS {
                let length = if place == (burst * burst + 3 * burst) % REQUESTS { LONG } else { SHORT };
                let host = host.to_owned();
                calls.push(kip_host::tasks::spawn_local("call", async move { call(to, &host, length).await }));
            }
            tokio::time::sleep(BETWEEN).await;
        }
        let mut times = Vec::with_capacity(calls.len());
        for call in calls {
            times.push(call.await??);
        }
        Ok(times)
    })
}

async fn call(to: SocketAddr, host: &str, length: u64) -> Result<u64> {
    let stream = tokio::net::TcpStream::connect(to).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
    drop(kip_host::tasks::spawn_local("connection", async move { drop(connection.await) }));
    let request = hyper::Request::get(format!("/serial/{length}"))
        .header("host", host)
        .body(http_body_util::Empty::<bytes::Bytes>::new())?;
    let begin = monotonic_micros();
    let answer = sender.send_request(request).await?;
    anyhow::ensure!(answer.status() == 200, "{}", answer.status());
    http_body_util::BodyExt::collect(answer.into_body()).await?;
    Ok((monotonic_micros() - begin).saturating_sub(length))
}
