//! Files of Function Compute as they are: found, read, compared with the server, deployed.

mod actions;
mod apply;
pub(crate) mod archive;
mod compare;
pub(crate) mod dependencies;
mod import;
mod info;
mod mounts;
mod plan;
mod project_file;
mod project_mounts;
mod remote_code;
mod remove;
mod render;
mod roles;
pub(crate) mod server;

pub(crate) use self::actions::ask;
pub(crate) use self::apply::{deploy, deploy_one};
pub(crate) use self::import::import;
pub(crate) use self::info::info;
pub(crate) use self::mounts::share_of;
pub(crate) use self::plan::plan;
pub(crate) use self::project_file::{ProjectFile, address, load, names, read, wanted};
pub(crate) use self::project_mounts::{ProjectMount, find_place, mounts, of_function};
pub(crate) use self::remote_code::bring;
pub(crate) use self::remove::remove;
