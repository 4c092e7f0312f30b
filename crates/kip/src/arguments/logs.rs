//! Arguments about output and requests.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The function; with a version or an alias only the lines of instances of these: ocr@3, ocr@prod.
    pub(crate) function: String,
    /// Go on with what comes, of instances to come too.
    #[arg(short = 'f', long)]
    pub(crate) follow: bool,
    /// How many of the last lines.
    #[arg(short = 'n', long, default_value_t = 100)]
    pub(crate) tail: usize,
    /// Only this instance.
    #[arg(long)]
    pub(crate) instance: Option<String>,
    /// Not older than this: a duration such as 10m, or a time such as 2026-11-22T10:00:00Z.
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Not younger than this, written as --since.
    #[arg(short = 'e', long, value_name = "WHEN", conflicts_with = "follow")]
    pub(crate) until: Option<String>,
    /// Only lines with this text in them.
    #[arg(long, value_name = "TEXT")]
    pub(crate) search: Option<String>,
    /// Only the lines of this request.
    #[arg(long, value_name = "ID", conflicts_with = "task")]
    pub(crate) request: Option<String>,
    /// Only the lines of this task's runs. With --follow, until the task is over.
    #[arg(long, value_name = "ID")]
    pub(crate) task: Option<String>,
    /// Put records of several lines together, such as tracebacks.
    #[arg(long)]
    pub(crate) join: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Requests {
    /// Only this function's.
    pub(crate) function: Option<String>,
    /// How many.
    #[arg(short = 'n', long, default_value_t = 20)]
    pub(crate) limit: u32,
    /// Not older than this: a duration such as 10m, or a time such as 2026-11-22T10:00:00Z.
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Answered so: 404, 5xx, >=500, <400.
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// With this error code, such as KW-2005.
    #[arg(long)]
    pub(crate) code: Option<String>,
    /// By what they waited for: warm, woken or cold.
    #[arg(long)]
    pub(crate) start: Option<String>,
    /// By the kind of instance: provisioned or on-demand.
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Served by this instance.
    #[arg(long, value_name = "ID")]
    pub(crate) instance: Option<String>,
    /// Served by this version: 3, a revision such as r12, or v7 as older records have it.
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Option<String>,
    /// That came with this qualifier, such as prod.
    #[arg(long, value_name = "QUALIFIER")]
    pub(crate) qualifier: Option<String>,
    /// That took longer than this, such as 100ms.
    #[arg(long, value_name = "DURATION")]
    pub(crate) slower_than: Option<String>,
    /// By how they ended: done, refused, broken or left.
    #[arg(long)]
    pub(crate) outcome: Option<String>,
    /// With this request id.
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Called with the key of this name.
    #[arg(long = "by", value_name = "KEY")]
    pub(crate) by: Option<String>,
    /// Called with a key of this tenant.
    #[arg(long)]
    pub(crate) tenant: Option<String>,
}
