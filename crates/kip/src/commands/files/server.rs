//! What a server has of a function, through its API of Function Compute.

use kip_spec::Problem;
use serde_json::{Map, Value};

use crate::client::{Client, segment};

/// Where the operations are.
pub(crate) const API: &str = "/2023-03-30";

/// The path of a function, with more behind it.
pub(crate) fn path(function: &str, rest: &str) -> String {
    format!("{API}/functions/{}{rest}", segment(function))
}

/// An object; none if there is none of this name.
pub(crate) async fn find(client: &Client, path: &str) -> anyhow::Result<Option<Map<String, Value>>> {
    match client.get::<Map<String, Value>>(path).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.downcast_ref::<Problem>().is_some_and(|problem| problem.code.status() == 404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A function as it is; none if there is none.
pub(crate) async fn function(client: &Client, name: &str) -> anyhow::Result<Option<Map<String, Value>>> {
    find(client, &path(name, "")).await
}

/// The triggers of a function.
pub(crate) async fn triggers(client: &Client, name: &str) -> anyhow::Result<Vec<Map<String, Value>>> {
    let listed: Value = client.get(&path(name, "/triggers?limit=100")).await?;
    Ok(list(&listed, "triggers"))
}

/// The items of a list.
pub(crate) fn list(listed: &Value, name: &str) -> Vec<Map<String, Value>> {
    listed[name].as_array().into_iter().flatten().filter_map(|item| item.as_object().cloned()).collect()
}
