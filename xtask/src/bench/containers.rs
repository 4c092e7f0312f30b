//! Containers: what a start, a wake and a request cost through Kipwake, beside the engine's own command line and beside processes, in
//! one run.

use std::path::Path;

use anyhow::Result;

use super::server::{Server, binary, until};
use super::{millis, percentile};
use crate::command::{command, read};
use crate::test::engines::{Engines, IMAGE};

/// Requests to a hot instance.
const HOT: usize = 300;

pub(super) fn run(arguments: &[&str]) -> Result<()> {
    let rounds = arguments.first().map_or(Ok(20), |text| text.parse())?;
    let Some(engines) = Engines::start()? else { return Ok(()) };
    measure("processes", &Server::start(&[])?, "", rounds)?;
    for (name, socket) in engines.sockets() {
        by_hand(name, &socket, rounds)?;
        let settings = format!("[containers]\nengine = \"{}\"\n", socket.display());
        measure(name, &Server::start_with(&settings)?, &format!("    image: {IMAGE}\n"), rounds)?;
    }
    Ok(())
}

/// Medians of a cold start, a wake and a hot request.
fn measure(name: &str, server: &Server, lines: &str, rounds: usize) -> Result<()> {
    let subject = binary("examples/subject");
    let run = format!("{lines}    run: [{}]\n", subject.display());
    server.deploy(&format!("  f:\n{run}    idle: {{stop: 20ms}}\n  g:\n{run}    idle: {{pause: 30ms}}\n"))?;
    let (mut cold, mut woken, mut hot) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        until("nothing of it runs", || (server.ask("/api/v1/functions/f").ok()?["hot"] == 0).then_some(()))?;
        until("nothing of it ends", || {
            let instances = server.ask("/api/v1/instances").ok()?;
            instances.as_array()?.iter().all(|one| one["function"] != "f").then_some(())
        })?;
        cold.push(server.call("/f/f/pid")?);
    }
    server.call("/f/g/pid")?;
    for _ in 0..rounds {
        until("it sleeps", || (server.states("paused").ok()? == 1).then_some(()))?;
        woken.push(server.call("/f/g/pid")?);
    }
    for _ in 0..HOT {
        hot.push(server.call("/f/g/pid")?);
    }
    println!(
        "{name}: through kip: cold request p50 {} p90 {}, woken p50 {} p90 {}, hot p50 {} p99 {}",
        millis(percentile(&mut cold, 50)),
        millis(percentile(&mut cold, 90)),
        millis(percentile(&mut woken, 50)),
        millis(percentile(&mut woken, 90)),
        millis(percentile(&mut hot, 50)),
        millis(percentile(&mut hot, 99)),
    );
    Ok(())
}

/// Medians of the same steps by the engine's command line.
fn by_hand(name: &str, socket: &Path, rounds: usize) -> Result<()> {
    let host = format!("unix://{}", socket.display());
    let subject = binary("examples/subject").display().to_string();
    let timed = |words: &[&str]| -> Result<u64> {
        let begin = kip_host::clock::monotonic_micros();
        read(command("docker", &[&["--host", &host], words].concat()))?;
        Ok(kip_host::clock::monotonic_micros() - begin)
    };
    let steps: [&[&str]; 5] = [
        &["create", "--name", "by-hand", IMAGE, &subject],
        &["start", "by-hand"],
        &["pause", "by-hand"],
        &["unpause", "by-hand"],
        &["rm", "--force", "by-hand"],
    ];
    let mut all: Vec<Vec<u64>> = vec![Vec::new(); steps.len()];
    for _ in 0..rounds {
        for (step, times) in steps.iter().zip(&mut all) {
            times.push(timed(step)?);
        }
    }
    let shown =
        steps.iter().zip(&mut all).map(|(step, times)| format!("{} {}", step[0], millis(percentile(times, 50))));
    println!("{name}: by its command line, p50: {}", shown.collect::<Vec<_>>().join(", "));
    Ok(())
}
