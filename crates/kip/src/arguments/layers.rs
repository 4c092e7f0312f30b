//! What belongs to no function: layers and custom domains.

use std::path::PathBuf;

use clap::Subcommand;

use super::keys::Names;

#[derive(Debug, Subcommand)]
pub(crate) enum Layer {
    /// List layers, or the versions of one.
    #[command(alias = "list")]
    Ls {
        /// The layer.
        name: Option<String>,
    },
    /// Make a version of a folder or a ZIP archive. Functions see its files in /opt.
    Publish {
        /// The layer.
        name: String,
        /// The folder or the archive.
        folder: PathBuf,
        /// A runtime that it is for; several times for several.
        #[arg(long = "runtime", value_name = "RUNTIME")]
        runtimes: Vec<String>,
        /// A note.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Remove a version of a layer, or all of them. Functions that have it keep it.
    #[command(alias = "remove")]
    Rm {
        /// The layer.
        name: String,
        /// The version; without it, all.
        version: Option<u64>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Domain {
    /// List custom domains with their routes.
    #[command(alias = "list")]
    Ls,
    /// Remove custom domains.
    #[command(alias = "remove")]
    Rm(Names),
}
