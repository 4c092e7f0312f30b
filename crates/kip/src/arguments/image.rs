//! `kip image`.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// The images that the engine has, with the functions that use them.
    Ls,
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
