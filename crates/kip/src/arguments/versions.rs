//! Arguments of `kip version` and `kip alias`.

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct VersionArguments {
    #[command(subcommand)]
    pub(crate) command: Option<Versions>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Versions {
    /// Give a revision of a function the next version number.
    Publish {
        /// The function.
        function: String,
        /// A note, such as the reason.
        #[arg(short = 'm', long, value_name = "TEXT", default_value = "")]
        message: String,
        /// The revision, such as r12, or LATEST for the one that serves; the one that was deployed last otherwise.
        #[arg(long, value_name = "REVISION")]
        revision: Option<String>,
    },
    /// List the versions and revisions of a function.
    #[command(name = "ls", alias = "list")]
    List {
        /// The function.
        function: String,
    },
    /// Show a version of a function.
    Show {
        /// The function.
        function: String,
        /// The version: 3, a revision such as r12, or LATEST.
        version: String,
    },
    /// Show the fields in which two versions differ.
    Diff {
        /// The function.
        function: String,
        /// The first version.
        from: String,
        /// The second version.
        #[arg(default_value = "LATEST")]
        to: String,
    },
    /// Remove the number of a version that nothing uses.
    #[command(alias = "remove")]
    Rm {
        /// The function.
        function: String,
        /// The number.
        version: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Alias {
    /// Point an alias at a version, or at several with shares.
    #[command(name = "set", alias = "put")]
    Put(AliasPut),
    /// List the aliases of a function.
    #[command(name = "ls", alias = "list")]
    List {
        /// The function.
        function: String,
    },
    /// Show an alias.
    #[command(name = "show", alias = "get")]
    Get {
        /// The function.
        function: String,
        /// The alias.
        alias: String,
    },
    /// Remove an alias that nothing uses.
    #[command(alias = "remove")]
    Rm {
        /// The function.
        function: String,
        /// The alias.
        alias: String,
        /// Only if the alias has this revision, as `kip alias show` prints it.
        #[arg(long, value_name = "REV")]
        if_match: Option<u64>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AliasPut {
    /// The function.
    pub(crate) function: String,
    /// The alias.
    pub(crate) alias: String,
    /// The version, 3, or versions with shares in percent: 3=90,4=10. LATEST is the version that serves.
    pub(crate) targets: String,
    /// A note, such as the reason; that of before stays if it is left out.
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// Keep callers on their version, by header:NAME, cookie:NAME or key; off draws each request by itself. As before if it is left out.
    #[arg(long, value_name = "BY")]
    pub(crate) sticky: Option<String>,
    /// Only if the alias has this revision, as `kip alias show` prints it.
    #[arg(long, value_name = "REV")]
    pub(crate) if_match: Option<u64>,
}
