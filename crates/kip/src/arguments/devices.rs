//! Arguments of `kip device` and `kip quota`.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// List devices with their memory and who holds it.
    Ls {
        /// Show each instance with what it holds, in the order in which they would be evicted.
        #[arg(short, long)]
        verbose: bool,
    },
    /// Take a device out of use: its instances give its memory back or end, and none starts on it.
    Yield {
        /// The device: gpu0, or its name in kipwake.toml.
        device: String,
        /// For how long, such as 8h; until `kip device use` if left out.
        #[arg(long = "for")]
        time: Option<kip_spec::Millis>,
        /// Do not wait until nothing is left on it.
        #[arg(long)]
        no_wait: bool,
    },
    /// Put a yielded device into use again.
    Use {
        /// The device.
        device: String,
    },
    /// Prove that a device can freeze and wake processes with this driver, so that instances may be parked by it.
    Qualify(Qualify),
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuotaCommand {
    /// Show what all functions together may take.
    Show,
    /// Change a limit while the server runs; it replaces the one of kipwake.toml.
    Set {
        /// Which limit.
        what: QuotaName,
        /// How many; `none` is no limit.
        #[arg(value_parser = quota_limit)]
        most: u32,
    },
    /// Go back to the limit of kipwake.toml.
    Rm {
        /// Which limit.
        what: QuotaName,
    },
}

/// 0 is no limit.
fn quota_limit(text: &str) -> Result<u32, String> {
    match text {
        "none" => Ok(0),
        _ => text.parse().ok().filter(|most| *most > 0).ok_or_else(|| "a number from 1, or none".to_owned()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum QuotaName {
    /// Devices in use, shares added up.
    Cards,
    /// Instances, asleep or awake.
    Instances,
}

#[derive(Debug, Args)]
pub(crate) struct Qualify {
    /// The device: gpu0, its UUID, or its name in kipwake.toml.
    pub(crate) device: String,
    /// Also while other programs use the device.
    #[arg(long)]
    pub(crate) force: bool,
}
