//! `kip key` and `kip audit`.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a key and print its secret, once.
    #[command(alias = "add")]
    Create(Create),
    /// List keys.
    #[command(alias = "list")]
    Ls,
    /// Show everything about a key but its secret.
    Show {
        /// The key.
        name: String,
    },
    /// Change what a key may do; what is not given stays.
    Set {
        /// The key.
        name: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Give a key a new secret and print it, once.
    Rotate {
        /// The key.
        name: String,
        /// How long the present secret is taken too, such as 1h.
        #[arg(long, value_name = "DURATION")]
        overlap: Option<String>,
    },
    /// Do not take keys until they are enabled again.
    Disable(Names),
    /// Take keys again.
    Enable(Names),
    /// Remove keys.
    #[command(alias = "remove")]
    Rm(Names),
}

#[derive(Debug, Args)]
pub(crate) struct Names {
    /// The keys.
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The key's name.
    pub(crate) name: String,
    /// Make an access-key pair, with which clients of Function Compute sign, in place of a bearer key.
    #[arg(long)]
    pub(crate) access_key: bool,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// What it may do: invoke, operate, deploy or admin; each includes those before it. A new key gets invoke.
    #[arg(long)]
    pub(crate) role: Option<String>,
    /// The only functions it is for, such as a,b; all for every one, none for no function.
    #[arg(long, value_name = "NAMES")]
    pub(crate) functions: Option<String>,
    /// How many requests it may send, such as 10/s or 1000/h; none for no limit.
    #[arg(long)]
    pub(crate) rate: Option<String>,
    /// How many of them at once; a second's worth otherwise.
    #[arg(long, value_name = "COUNT")]
    pub(crate) burst: Option<String>,
    /// How many it may have in flight; none for no limit.
    #[arg(long, value_name = "COUNT")]
    pub(crate) concurrency: Option<String>,
    /// When it ends: a duration such as 30d, a time such as 2027-01-01T00:00:00Z, or never.
    #[arg(long, value_name = "WHEN")]
    pub(crate) expires: Option<String>,
    /// Whose it is: a label that requests and tasks carry.
    #[arg(long)]
    pub(crate) tenant: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// Set the value of a secret: from standard input, or from a file.
    #[command(alias = "put")]
    Set {
        /// The secret.
        name: String,
        /// The file that holds the value; one line end at its end is left out.
        #[arg(long, value_name = "FILE")]
        from_file: Option<std::path::PathBuf>,
    },
    /// List secrets, without their values.
    #[command(alias = "list")]
    Ls,
    /// Remove secrets.
    #[command(alias = "remove")]
    Rm(Names),
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// How many.
    #[arg(short = 'n', long, default_value_t = 20)]
    pub(crate) limit: u32,
    /// Asked for by this key.
    #[arg(long = "by", value_name = "KEY")]
    pub(crate) by: Option<String>,
    /// Of this kind: key.create, or key for all about keys.
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// About this function, key or file.
    #[arg(long)]
    pub(crate) object: Option<String>,
    /// With this result: done, unknown, or an error code such as KW-7008.
    #[arg(long)]
    pub(crate) result: Option<String>,
    /// Not older than this: a duration such as 10m, or a time such as 2026-11-22T10:00:00Z.
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Older than the record with this number, which -o json shows as `id`.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) before: Option<i64>,
}
