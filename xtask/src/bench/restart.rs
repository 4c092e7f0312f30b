//! A killed server and the next one, with many instances: when the first request is answered, and when all are adopted.

use anyhow::{Result, bail};

use super::millis;
use super::server::{Server, binary, until};

pub(super) fn run(instances: usize) -> Result<()> {
    let half = instances / 2;
    let subject = binary("examples/subject");
    let function = |name: &str, count: usize, pause: &str| {
        format!(
            "  {name}:\n    run: [{}]\n    instances: {{min: {count}, max: {count}}}\n    idle: {{pause: {pause}}}\n",
            subject.display()
        )
    };
    let mut server = Server::start(&[])?;
    let asleep = instances - half;
    server.deploy(&(function("hot", half, "never") + &function("asleep", asleep, "500ms")))?;
    until("all are there", || {
        (server.states("paused").ok()? == asleep && server.states("ready").ok()? == half).then_some(())
    })?;
    let processes = |server: &Server| -> Result<Vec<u64>> {
        let all = server.ask("/api/v1/instances")?;
        let mut all: Vec<u64> =
            all.as_array().into_iter().flatten().filter_map(|one| one["process"].as_u64()).collect();
        all.sort_unstable();
        Ok(all)
    };
    let before = processes(&server)?;
    println!("{half} hot and {asleep} paused instances; the server is killed and the next one started");
    for target in ["/f/hot/pid", "/f/asleep/pid"] {
        server.replace()?;
        let begin = kip_host::clock::monotonic_micros();
        until("the first answer", || server.call(target).ok())?;
        let first = kip_host::clock::monotonic_micros() - begin;
        server.settle()?;
        let after = processes(&server)?;
        let all = kip_host::clock::monotonic_micros() - begin;
        println!("{}", server.logged("took_ms"));
        if after != before {
            bail!("{} of {} instances came back", after.iter().filter(|p| before.contains(p)).count(), before.len());
        }
        println!("{target}: first answer {}, all {} listed after {}", millis(first), after.len(), millis(all));
    }
    Ok(())
}
