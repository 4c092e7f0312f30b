//! Arguments about files of Function Compute: s.yaml and template.yml.

use std::path::PathBuf;

use clap::Args;

/// The file, and how it is read.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FileArguments {
    /// An s.yaml or a template.yml.
    #[arg(short = 't', long, value_name = "FILE")]
    pub(crate) template: Option<PathBuf>,
    /// Runtimes that take the place of others: python2.7=python3,nodejs8=nodejs20.
    #[arg(long, value_name = "MAP")]
    pub(crate) runtime_map: Option<kip_serverless::RuntimeMap>,
    /// Taken and not used: the key of this server counts.
    #[arg(short = 'a', long, hide = true)]
    pub(crate) access: Option<String>,
}

/// What may be done without a question.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfirmArguments {
    /// Change what exists without a question.
    #[arg(short = 'y', long, alias = "assume-yes")]
    pub(crate) yes: bool,
    /// Run the commands under `actions` of an s.yaml.
    #[arg(long)]
    pub(crate) allow_actions: bool,
    /// Leave the commands under `actions` of an s.yaml out.
    #[arg(long, conflicts_with = "allow_actions")]
    pub(crate) skip_actions: bool,
    /// The folder of a NAS path or a bucket: SHARE=FOLDER, such as models=/srv/models. It is kept for later deployments.
    #[arg(long = "mount", value_name = "SHARE=FOLDER")]
    pub(crate) mounts: Vec<super::MountMap>,
    /// The secrets of a role's credentials: ROLE=NAME for NAME.id, NAME.secret and NAME.token. It is kept for later deployments.
    #[arg(long = "role-map", value_name = "ROLE=NAME")]
    pub(crate) roles: Vec<super::RoleMap>,
    /// Taken and not used: images are pulled by the container engine.
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) skip_push: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct Info {
    /// The folder with an s.yaml or a template.yml, or the file.
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) file: FileArguments,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// The functions; with -t, only these of the file.
    #[arg(required_unless_present = "template")]
    pub(crate) functions: Vec<String>,
    #[command(flatten)]
    pub(crate) file: FileArguments,
    /// Remove without a question.
    #[arg(short = 'y', long, alias = "assume-yes")]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The s.yaml or template.yml.
    pub(crate) file: PathBuf,
    /// The file to write: a kip.yaml, or an s.yaml of edition 3 if its name begins with `s`; standard output otherwise.
    #[arg(short = 'w', long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// Overwrite a file of this name.
    #[arg(long)]
    pub(crate) force: bool,
    /// Deploy it as well.
    #[arg(long)]
    pub(crate) deploy: bool,
    /// Runtimes that take the place of others: python2.7=python3,nodejs8=nodejs20.
    #[arg(long, value_name = "MAP")]
    pub(crate) runtime_map: Option<kip_serverless::RuntimeMap>,
}
