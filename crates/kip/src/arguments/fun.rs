//! Arguments of the workflow of Fun: shared storage, dependencies, functions in the foreground.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kip_spec::share::ShareName;

/// The file of a project.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ProjectArgument {
    /// A template.yml or an s.yaml; the one in this folder otherwise.
    #[arg(short = 't', long, value_name = "FILE")]
    pub(crate) template: Option<PathBuf>,
    /// Runtimes that take the place of others: python2.7=python3,nodejs8=nodejs20.
    #[arg(long, value_name = "MAP")]
    pub(crate) runtime_map: Option<kip_serverless::RuntimeMap>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Nas {
    /// Make the folders of a project's shares, here and on the server.
    Init {
        #[command(flatten)]
        project: ProjectArgument,
    },
    /// Show the shares of a project: where functions see them, and their folders.
    Info {
        #[command(flatten)]
        project: ProjectArgument,
    },
    /// Copy files of the project to its shares. Files with the same content are left out; a copy that was interrupted goes on.
    Sync {
        /// Only this place, such as nas://classify:/mnt/auto/ or nas:///mnt/auto/.
        place: Option<String>,
        /// Only the shares of this service.
        #[arg(short = 's', long)]
        service: Option<String>,
        /// Only the shares that are mounted at these paths.
        #[arg(short = 'm', long = "mount-dir", value_delimiter = ',')]
        mount_dirs: Vec<String>,
        #[command(flatten)]
        project: ProjectArgument,
    },
    /// List files of a share: nas://classify:/mnt/auto/ or nas:///mnt/auto/.
    #[command(alias = "list")]
    Ls {
        /// The place.
        place: String,
        /// Names that begin with a dot too.
        #[arg(short = 'a', long)]
        all: bool,
        #[command(flatten)]
        project: ProjectArgument,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Dependencies {
    /// The functions; all of the file otherwise.
    pub(crate) functions: Vec<String>,
    #[command(flatten)]
    pub(crate) project: ProjectArgument,
    /// Install again what is installed already.
    #[arg(long)]
    pub(crate) force: bool,
    /// Run the commands of a Funfile without a question.
    #[arg(short = 'y', long, alias = "assume-yes")]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Local {
    /// Serve the functions of a project in the foreground, with their output; a change of a file is a new version.
    Start {
        /// The functions; all of the file otherwise.
        functions: Vec<String>,
        /// The port on loopback; 0 picks a free one.
        #[arg(short = 'p', long, default_value_t = 8000)]
        port: u16,
        #[command(flatten)]
        project: ProjectArgument,
    },
    /// Call a function of a project once, on a server of its own.
    Invoke {
        /// The function; the only one of the file otherwise.
        function: Option<String>,
        /// The event.
        #[arg(short = 'e', long, conflicts_with = "event_file")]
        event: Option<String>,
        /// A file with the event.
        #[arg(short = 'f', long, value_name = "FILE")]
        event_file: Option<PathBuf>,
        #[command(flatten)]
        project: ProjectArgument,
    },
}

/// A share and its folder: `SHARE=FOLDER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountMap {
    /// `SERVER:/PATH`, `oss://BUCKET/PATH`, or the name of a server or bucket of the file.
    pub(crate) share: String,
    pub(crate) folder: PathBuf,
}

impl std::str::FromStr for MountMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (share, folder) = text.split_once('=').ok_or("write SHARE=FOLDER, such as models=/srv/models")?;
        if share.contains(':') {
            share.parse::<ShareName>().map_err(|error| error.to_string())?;
        }
        if share.is_empty() || folder.is_empty() {
            return Err("write SHARE=FOLDER, such as models=/srv/models".to_owned());
        }
        let folder = std::path::absolute(folder).map_err(|error| error.to_string())?;
        Ok(Self { share: share.to_owned(), folder })
    }
}

/// A role and what the secrets of its credentials begin with: `ROLE=NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleMap {
    pub(crate) role: String,
    pub(crate) secret: String,
}

impl std::str::FromStr for RoleMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = text.rsplit_once('=').filter(|(role, secret)| !role.is_empty() && !secret.is_empty());
        let (role, secret) = pair.ok_or("write ROLE=NAME, such as acs:ram::1:role/reader=reader")?;
        Ok(Self { role: role.to_owned(), secret: secret.to_owned() })
    }
}
