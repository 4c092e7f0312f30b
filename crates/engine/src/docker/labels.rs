//! The labels of our containers: whose they are, and what the next server cannot know otherwise. They are written when a container is
//! made and never change.

use std::collections::HashMap;

use kip_spec::{FunctionName, InstanceId, VersionId};

use crate::body::Order;

/// Whose it is: the id of the server.
pub(super) const SERVER: &str = "dev.kipwake.server";
/// Which instance.
const INSTANCE: &str = "dev.kipwake.instance";
const FUNCTION: &str = "dev.kipwake.function";
/// The number of its revision.
const VERSION: &str = "dev.kipwake.revision";
/// The names of its devices, by commas.
const DEVICES: &str = "dev.kipwake.devices";
/// What its order asked to be told again.
const MEMO: &str = "dev.kipwake.memo";
/// Whether it must be initialized before it may serve.
const INITIALIZE: &str = "dev.kipwake.initialize";
/// The port that it listens on.
const PORT: &str = "dev.kipwake.port";

/// What labels say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Labels {
    pub(super) instance: InstanceId,
    pub(super) function: Option<FunctionName>,
    pub(super) version: Option<VersionId>,
    pub(super) devices: Vec<String>,
    pub(super) memo: String,
    pub(super) initialize: bool,
    pub(super) port: u16,
}

/// The labels of an instance's container.
pub(super) fn write(order: &Order, server: &str, port: u16) -> HashMap<String, String> {
    let devices = order.devices.as_ref().map(|devices| devices.names.join(",")).unwrap_or_default();
    [
        (SERVER, server.to_owned()),
        (INSTANCE, order.instance.to_string()),
        (FUNCTION, order.function.to_string()),
        (VERSION, order.version.0.to_string()),
        (DEVICES, devices),
        (MEMO, order.memo.clone()),
        (INITIALIZE, order.initialize.is_some().to_string()),
        (PORT, port.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Reads them; none of a container without an instance's id.
pub(super) fn read(labels: &HashMap<String, String>) -> Option<Labels> {
    let text = |name: &str| labels.get(name).map(String::as_str).unwrap_or_default();
    Some(Labels {
        instance: text(INSTANCE).parse().ok()?,
        function: text(FUNCTION).parse().ok(),
        version: text(VERSION).parse().ok().map(VersionId),
        devices: text(DEVICES).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        memo: text(MEMO).to_owned(),
        initialize: text(INITIALIZE) == "true",
        port: text(PORT).parse().unwrap_or(0),
    })
}

/// The name of an instance's container. It carries the server's id, so that servers can share an engine.
pub(super) fn name(server: &str, instance: InstanceId) -> String {
    format!("kipwake-{server}-{instance}")
}
