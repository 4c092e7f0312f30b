//! CPU time of a hot request where it should be the same: in an earlier build, and for each way to name a version. The first target is there
//! twice, so that the difference of a thing to itself is known.

use std::time::Duration;

use anyhow::Result;

use super::proxies::Target;
use super::{ONE, Turn, case, function, turn};
use crate::bench::percentile;
use crate::bench::server::{Server, binary};

/// One turn of a target.
const TURN: Duration = Duration::from_millis(1_000);

/// This build beside an earlier one, and that one beside itself. Earlier builds scale by `fixed` where nothing is said, so this one is
/// measured with that policy as well.
pub(super) fn builds(old: &str, arguments: &[&str]) -> Result<()> {
    let old = std::fs::canonicalize(old)?;
    let servers = [old.clone(), old, binary("kip"), binary("kip")].map(Server::of);
    let servers = servers.into_iter().collect::<Result<Vec<_>>>()?;
    let fixed = format!("{ONE}    scaling: {{mode: fixed}}\n");
    let rows = [("earlier", ONE), ("earlier, again", ONE), ("this build", ONE), ("this build, mode fixed", &fixed)];
    let mut targets = Vec::new();
    for (server, (name, settings)) in servers.iter().zip(rows) {
        server.deploy(&function("f", settings)?)?;
        server.call("/f/f/small")?;
        targets.push(Target::new(name, server.gateway, "f.localhost", vec![server.pid]));
    }
    compare(&targets, rounds(arguments)?)
}

/// A function by its name, by a version, by an alias of one version and by two that divide requests: `drawn` between two names of
/// one version, which is what the draw costs, and `parts` between two versions, which have a process each.
pub(super) fn qualifiers(arguments: &[&str]) -> Result<()> {
    let server = Server::of(binary("kip"))?;
    server.deploy(&function("f", ONE)?)?;
    server.kip(&["version", "publish", "f"])?;
    server.deploy(&function("f", &format!("{ONE}    env: {{SECOND: \"1\"}}\n"))?)?;
    server.kip(&["version", "publish", "f"])?;
    server.kip(&["alias", "set", "f", "whole", "2"])?;
    server.kip(&["alias", "set", "f", "drawn", "2=10,LATEST=90"])?;
    server.kip(&["alias", "set", "f", "parts", "1=10,2=90"])?;
    let host = |host: &'static str| Target::new(host, server.gateway, host, vec![server.pid]);
    let hosts = [
        "f.localhost",
        "f.localhost",
        "f--2.localhost",
        "f--whole.localhost",
        "f--drawn.localhost",
        "f--parts.localhost",
    ];
    let targets = hosts.map(host);
    // Each version has an instance before anything is measured.
    for path in ["/f/f/small", "/f/f@1/small", "/f/f@2/small"] {
        server.call(path)?;
    }
    compare(&targets, rounds(arguments)?)
}

fn rounds(arguments: &[&str]) -> Result<usize> {
    Ok(arguments.first().map_or(Ok(15), |text| text.parse())?)
}

fn compare(targets: &[Target], rounds: usize) -> Result<()> {
    println!("CPU is that of the server, kernel included; the ratio is to the first row in the same round\n");
    println!("| connections | target | CPU a request | ratio: median | quarter to three quarters | range |");
    println!("|---|---|---|---|---|---|");
    for connections in [1, 32] {
        let case = case("1 KiB", "/small", connections);
        let mut turns: Vec<Vec<Turn>> = targets.iter().map(|_| Vec::new()).collect();
        for round in 0..=rounds {
            for place in 0..targets.len() {
                let which = (place + round) % targets.len();
                let one = turn(&case, &targets[which], TURN)?;
                // The first round opens connections.
                if round > 0 {
                    turns[which].push(one);
                }
            }
        }
        for (target, own) in targets.iter().zip(&turns) {
            let mut cpu: Vec<u64> = own.iter().map(|turn| turn.cpu).collect();
            let mut ratios: Vec<u64> =
                own.iter().zip(&turns[0]).map(|(turn, first)| turn.cpu * 1_000 / first.cpu.max(1)).collect();
            let mut at = |percent| format!("{:.3}", percentile(&mut ratios, percent) as f64 / 1_000.0);
            println!(
                "| {connections} | {} | {:.1} µs | {} | {} to {} | {} to {} |",
                target.name,
                percentile(&mut cpu, 50) as f64 / 1_000.0,
                at(50),
                at(25),
                at(75),
                at(0),
                at(100)
            );
        }
    }
    println!("\nload after: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    Ok(())
}
