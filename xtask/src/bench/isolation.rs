//! What isolation costs: a start from zero and a hot request, with functions kept from the server and without, one after the other in
//! turns, so that the load of the machine falls on both alike.

use anyhow::Result;

use super::server::{Server, binary, until};
use super::{millis, percentile};

/// Hot requests for each start.
const HOT: usize = 10;

pub(super) fn run(rounds: usize) -> Result<()> {
    let servers = [Server::start_with("")?, Server::start_with("[functions]\nuser = \"server\"\n")?];
    let subject = binary("examples/subject");
    let mut names = Vec::new();
    for server in &servers {
        names.push(server.ask("/api/v1/status")?["isolation"].as_str().unwrap_or_default().to_owned());
        let run = format!("run: [{}]", subject.display());
        server.deploy(&format!(
            "  z:\n    {run}\n    idle: {{stop: 10ms}}\n  f:\n    {run}\n    idle: {{pause: never}}\n"
        ))?;
        server.call("/f/f/pid")?;
    }
    let (mut starts, mut hot) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..rounds {
        for turn in 0..2 {
            // Who comes first changes with each round.
            let which = (round + turn) % 2;
            let server = &servers[which];
            until("nothing of it runs", || {
                let all = server.ask("/api/v1/instances").ok()?;
                all.as_array()?.iter().all(|one| one["function"] != "z").then_some(())
            })?;
            starts[which].push(server.call("/f/z/pid")?);
            for _ in 0..HOT {
                hot[which].push(server.call("/f/f/pid")?);
            }
        }
    }
    for (what, mut figures) in [("from zero", starts), ("hot", hot)] {
        for (figures, name) in figures.iter_mut().zip(&names) {
            let [low, middle, high] = [10, 50, 90].map(|part| percentile(figures, part));
            println!("{what}: p10 {} p50 {} p90 {} ({name})", millis(low), millis(middle), millis(high));
        }
        let [with, without] = figures.each_mut().map(|figures| percentile(figures, 50));
        println!("{what}: isolation adds {} at p50", signed(with, without));
    }
    Ok(())
}

fn signed(with: u64, without: u64) -> String {
    if with < without { format!("-{}", millis(without - with)) } else { millis(with - without) }
}
