//! `kip domain`: host names whose paths lead to functions. Files of Function Compute declare them; here they are listed and removed.

use serde_json::{Map, Value, json};

use crate::arguments::Domain;
use crate::client::{Client, segment};
use crate::commands::files::server;
use crate::output::{Output, table};

pub(crate) async fn run(client: &Client, command: &Domain, output: Output) -> anyhow::Result<()> {
    match command {
        Domain::Ls => list(client, output).await,
        Domain::Rm(given) => {
            for name in &given.names {
                client.remove(&path(name)).await?;
            }
            output.result(&json!({"removed": given.names}), |_| format!("removed {}\n", given.names.join(", ")))
        }
    }
}

/// A domain.
pub(crate) fn path(name: &str) -> String {
    format!("{}/custom-domains/{}", server::API, segment(name))
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let mut found: Vec<Map<String, Value>> = Vec::new();
    let mut from = String::new();
    loop {
        let page: Value = client.get(&format!("{}/custom-domains?limit=100{from}", server::API)).await?;
        found.extend(server::list(&page, "customDomains"));
        match page["nextToken"].as_str().filter(|token| !token.is_empty()) {
            Some(token) => from = format!("&nextToken={}", segment(token)),
            None => break,
        }
    }
    output.result(&found, |found| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rows: Vec<Vec<String>> = found
            .iter()
            .flat_map(|domain| {
                let routes = domain.get("routeConfig").map(|routes| routes["routes"].clone()).unwrap_or_default();
                let name = text(&domain["domainName"]);
                let protocol = domain.get("protocol").map(text).unwrap_or_default();
                let row = |route: &Value| {
                    let at = route["qualifier"].as_str().filter(|at| !at.is_empty()).map(|at| format!("@{at}"));
                    let function = format!("{}{}", text(&route["functionName"]), at.unwrap_or_default());
                    vec![name.clone(), protocol.clone(), text(&route["path"]), function]
                };
                let routes: Vec<Vec<String>> = routes.as_array().into_iter().flatten().map(row).collect();
                if routes.is_empty() { vec![vec![name, protocol, "-".to_owned(), "-".to_owned()]] } else { routes }
            })
            .collect();
        table(&["DOMAIN", "PROTOCOL", "PATH", "FUNCTION"], &rows)
    })
}
