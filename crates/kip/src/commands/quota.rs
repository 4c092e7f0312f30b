//! `kip quota`: what all functions together may take.

use kip_wire::{QuotaInfo, QuotaSettings};

use crate::arguments::{QuotaCommand, QuotaName};
use crate::client::Client;
use crate::output::Output;

pub(crate) async fn run(client: &Client, command: &QuotaCommand, output: Output) -> anyhow::Result<()> {
    match command {
        QuotaCommand::Show => {}
        QuotaCommand::Set { what, most } => put(client, *what, Some(*most)).await?,
        QuotaCommand::Rm { what } => put(client, *what, None).await?,
    }
    let host = client.status().await?.host;
    output.result(&host.quota, |quota: &QuotaInfo| {
        let of = |most: Option<u32>| most.map_or_else(|| "no limit".to_owned(), |most| most.to_string());
        format!("cards      {}\ninstances  {}\n", of(quota.cards), of(quota.instances))
    })
}

async fn put(client: &Client, what: QuotaName, most: Option<u32>) -> anyhow::Result<()> {
    let mut settings: QuotaSettings = client.get("/api/v1/quota").await?;
    match what {
        QuotaName::Cards => settings.cards = most,
        QuotaName::Instances => settings.instances = most,
    }
    let _: QuotaSettings = client.put("/api/v1/quota", &settings).await?;
    Ok(())
}
