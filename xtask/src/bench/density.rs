//! Many functions that nobody calls, and many instances that sleep: what the server costs meanwhile.

use std::time::Duration;

use anyhow::Result;

use super::server::{Server, until};

/// How long after the deployment memory is looked at, and how long CPU is measured for.
const LATER: Duration = Duration::from_secs(60);
/// Functions in one document.
const AT_ONCE: usize = 1_000;

pub(super) fn run(functions: usize, paused: usize) -> Result<()> {
    let upstream = std::env::current_exe()?;
    let server = Server::start(&[])?;
    // What the first deployment allocates once is no cost of a function.
    server.deploy(&format!("  first:\n    run: [{}, upstream]\n", upstream.display()))?;
    std::thread::sleep(Duration::from_secs(5));
    let empty = server.resident();
    let names: Vec<usize> = (0..functions).collect();
    for some in names.chunks(AT_ONCE) {
        let one = |number: &usize| {
            let min = if *number < paused { "    instances: {min: 1}\n    idle: {pause: 1s}\n" } else { "" };
            format!("  f{number}:\n    run: [{}, upstream]\n{min}", upstream.display())
        };
        server.deploy(&some.iter().map(one).collect::<String>())?;
    }
    until("they sleep", || (server.states("paused").ok()? == paused).then_some(()))?;
    std::thread::sleep(LATER);
    let full = server.resident();
    let before = server.cpu();
    std::thread::sleep(LATER);
    let used = server.cpu() - before;
    let grown = full.saturating_sub(empty);
    println!(
        "{functions} functions, {paused} of them paused: {} MiB more than {} MiB, {} bytes a function",
        grown >> 20,
        empty >> 20,
        grown / u64::try_from(functions.max(1))?
    );
    println!(
        "idle CPU: {used} ms in {} s, {:.2} % of a core",
        LATER.as_secs(),
        used as f64 / LATER.as_secs_f64() / 10.0
    );
    Ok(())
}
