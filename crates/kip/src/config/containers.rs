//! The container engine, and what containers may see of the host.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kip_spec::Problem;

use super::value::{Value, invalid};

/// Where the engine is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EngineSetting {
    /// `DOCKER_HOST` and the usual sockets.
    Auto,
    /// This socket.
    Socket(PathBuf),
    /// Nowhere.
    Off,
}

/// What is set about images.
pub(super) fn images(values: &BTreeMap<&'static str, Value>) -> Result<kip_control::ImageOptions, Problem> {
    let given = |key: &'static str| Some(values[key].value.as_str()).filter(|text| *text != "none");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    let mut keep = Vec::new();
    for name in given("images.keep").unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if !name.bytes().all(plain) {
            let problem = invalid(format!("images.keep: `{name}` is not the name of an image"));
            return Err(problem.hint("write names such as \"ghcr.io/team/ocr:3, ubuntu:24.04\", or none"));
        }
        keep.push(name.to_owned());
    }
    let size = given("images.size").map(str::parse::<kip_spec::Bytes>).transpose();
    let size = size.map_err(|error| invalid(format!("images.size: {error}")).hint("for example 100GiB, or none"))?;
    let age = given("images.age").map(str::parse::<kip_spec::Millis>).transpose();
    let age = age.map_err(|error| invalid(format!("images.age: {error}")).hint("for example 30d, or none"))?;
    Ok(kip_control::ImageOptions { keep, size: size.map(|size| size.0), age })
}

/// What is set about containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Containers {
    pub(crate) engine: EngineSetting,
    /// Folders below which folders may be mounted.
    pub(crate) mounts: Vec<PathBuf>,
}

pub(super) fn read(values: &BTreeMap<&'static str, Value>) -> Result<Containers, Problem> {
    let engine = match values["containers.engine"].value.as_str() {
        "auto" => EngineSetting::Auto,
        "off" => EngineSetting::Off,
        text => {
            let path = PathBuf::from(text.strip_prefix("unix://").unwrap_or(text));
            if !path.is_absolute() {
                let problem = invalid(format!("containers.engine: `{text}` is not the path of a socket"));
                return Err(problem.hint("write a path such as /run/podman/podman.sock, auto, or off"));
            }
            EngineSetting::Socket(path)
        }
    };
    let mut mounts = Vec::new();
    let text = values["containers.mounts"].value.as_str();
    for folder in text.split(',').map(str::trim).filter(|folder| !folder.is_empty() && text != "none") {
        let path = PathBuf::from(folder);
        if !path.is_absolute() || path.parent().is_none() {
            let problem = invalid(format!("containers.mounts: `{folder}` is not an absolute folder below /"));
            return Err(problem.hint("write folders such as \"/srv/models, /srv/data\", or none"));
        }
        mounts.push(path);
    }
    Ok(Containers { engine, mounts })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Origin;

    fn parsed(engine: &str, mounts: &str) -> Result<Containers, Problem> {
        let value = |text: &str| Value { value: text.to_owned(), origin: Origin::Default };
        read(&BTreeMap::from([("containers.engine", value(engine)), ("containers.mounts", value(mounts))]))
    }

    #[test]
    fn sockets_and_folders_are_absolute() {
        let all = parsed("unix:///run/podman/podman.sock", "/srv/a, /srv/b").unwrap();
        assert_eq!(all.engine, EngineSetting::Socket("/run/podman/podman.sock".into()));
        assert_eq!(all.mounts, [PathBuf::from("/srv/a"), "/srv/b".into()]);
        assert_eq!(parsed("auto", "none").unwrap(), Containers { engine: EngineSetting::Auto, mounts: Vec::new() });
        assert!(parsed("tcp://a:1", "none").is_err() && parsed("off", "srv").is_err() && parsed("off", "/").is_err());
    }
}
