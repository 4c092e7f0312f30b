//! `kip image`.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// The images that the engine has, with the functions that use them.
    Ls,
    /// How much room images take, and how much of it could be had back.
    Du,
    /// Pull an image, with its progress.
    Pull(ImageArgument),
    /// Remove an image that nothing uses.
    Rm(ImageArgument),
}

#[derive(Debug, Args)]
pub(crate) struct ImageArgument {
    /// Its name, such as ghcr.io/team/ocr:3.
    pub(crate) image: String,
}
