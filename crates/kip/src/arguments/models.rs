//! `kip model`, `kip preset`, and what `kip up` takes for a model.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    /// List the models of the cache, and the pulls.
    #[command(alias = "list")]
    Ls {
        /// Show as well how much of each model is in the page cache, and how its starts went.
        #[arg(short, long)]
        verbose: bool,
    },
    /// Show a model with its files.
    Show(Name),
    /// Pull a model into the cache. A pull that broke off goes on where it was.
    Pull(Pull),
    /// Use the models of another program where they are: the cache of huggingface_hub or ModelScope, the folder of Ollama, or a folder with a model.
    Adopt {
        /// The folder, on the server's host: ~/.cache/huggingface, ~/.cache/modelscope, ~/.ollama, or any other.
        folder: std::path::PathBuf,
    },
    /// Cancel a pull; what it has brought stays for the next one.
    Cancel {
        /// Its number, as `kip model ls` shows it.
        pull: u64,
    },
    /// Compare all files of a model with their digests.
    Verify(Name),
    /// Read a model into the page cache, so that the next start finds it in memory.
    Prefetch(Name),
    /// Remove the files of a model from the disk; the next start of an instance pulls them again.
    Evict(Name),
    /// Show what the cache takes on its disk.
    Du,
    /// Keep a model from removal and from eviction.
    Pin(Name),
    /// Take the pin of a model away.
    Unpin(Name),
    /// Remove a model that nothing uses.
    #[command(alias = "remove")]
    Rm(Name),
    /// Write the app of a function that a preset made, with a kip.yaml that runs it.
    Eject {
        /// The function.
        function: String,
        /// The folder; it must be empty, or not there yet.
        folder: std::path::PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The model: hf:org/model, or with a revision or the beginning of a commit behind an @.
    pub(crate) model: String,
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// hf:org/model or hf:org/model@revision, modelscope:owner/model, an http address, or a folder of the server's host.
    pub(crate) source: String,
    #[command(flatten)]
    pub(crate) from: From,
    /// Only files with such a name; * stands for any characters. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) include: Vec<String>,
    /// Do not wait until it is there.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// Where a model comes from.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct From {
    /// Branch, tag or commit.
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<String>,
    /// The hub's address; HF_ENDPOINT or MODELSCOPE_ENDPOINT, else the server's setting.
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// The server's secret with the token for the hub. Without it, HF_TOKEN or MODELSCOPE_API_TOKEN is sent along, if it is set.
    #[arg(long, value_name = "NAME")]
    pub(crate) token_secret: Option<String>,
}

/// What `kip up` takes for a model.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Models")]
pub(crate) struct UpModel {
    #[command(flatten)]
    pub(crate) from: From,
    /// The function's name, in place of one made of the model's.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The preset, in place of the one that fits the files.
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
    /// The file that the engine is given, where there are several.
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<String>,
    /// Keep so many instances.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) provisioned: Option<u32>,
    /// Type of the device that an instance needs.
    #[arg(long, value_name = "TYPE")]
    pub(crate) gpu: Option<String>,
    /// Device memory that an instance reserves, such as 6GiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) gpu_memory: Option<String>,
    /// Install the engine of the preset if it is missing.
    #[arg(long)]
    pub(crate) install_engine: bool,
    /// Download without asking.
    #[arg(short = 'y', long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Preset {
    /// List the presets, with the engines that are installed.
    #[command(alias = "list")]
    Ls,
    /// Show a preset with all its fields.
    Show {
        /// Its name.
        preset: String,
    },
    /// Install the engine of a preset into an environment of its own.
    Install {
        /// Its name.
        preset: String,
    },
    /// Deploy a model with a preset under a name of its own, ask it a question, and remove it.
    Test(Test),
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// The preset.
    pub(crate) preset: String,
    /// The model, as `kip up` takes it.
    pub(crate) model: String,
    /// Install the engine if it is missing.
    #[arg(long)]
    pub(crate) install_engine: bool,
    #[command(flatten)]
    pub(crate) from: From,
}
