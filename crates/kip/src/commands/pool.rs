//! `kip pool`: where instances can be.

use kip_spec::people;
use kip_wire::PoolStatus;

use crate::arguments::PoolCommand;
use crate::client::Client;
use crate::output::{Output, table};

pub(crate) async fn run(client: &Client, command: &PoolCommand, output: Output) -> anyhow::Result<()> {
    let PoolCommand::Ls = command;
    let pools: Vec<PoolStatus> = client.get("/api/v1/pools").await?;
    output.result(&pools, |pools| {
        let cells = |pool: &PoolStatus| {
            let (cpu, memory) = pool.hosts.iter().fold((0u64, 0u64), |(cpu, memory), host| {
                (cpu.saturating_add(host.cpu), memory.saturating_add(host.memory))
            });
            let devices: Vec<&str> = pool.hosts.iter().flat_map(|host| &host.devices).map(String::as_str).collect();
            let most = pool.max.map_or_else(|| "-".to_owned(), |most| most.to_string());
            let cores = |cpu: u64| format!("{:.1}", cpu as f64 / 1_000.0);
            vec![
                pool.name.clone(),
                if pool.reachable { "answers" } else { "unreachable" }.to_owned(),
                pool.priority.to_string(),
                pool.price.map_or_else(|| "-".to_owned(), |price| price.to_string()),
                pool.instances.to_string(),
                most,
                format!("{} of {}", cores(pool.reserved_cpu), cores(cpu)),
                people::size_of(pool.reserved_memory, memory),
                if devices.is_empty() { "-".to_owned() } else { devices.join(", ") },
                pool.engine.clone(),
            ]
        };
        let header =
            ["POOL", "STATE", "#PRIORITY", "#PRICE", "#INSTANCES", "#MAXIMUM", "CPU", "MEMORY", "DEVICES", "ENGINE"];
        table(&header, &pools.iter().map(cells).collect::<Vec<_>>())
    })
}
