//! Which folders of the host a container may see. A container runs as its image says, often as root: without a list of the operator's, none.

use std::path::{Path, PathBuf};

use kip_spec::container::Container;

use crate::containers::EngineError;

/// Refuses folders that are not below an allowed one. Links are followed first: what is mounted is what they lead to.
///
/// # Errors
/// [`EngineError::Mount`].
pub fn check(container: &Container, allowed: &[PathBuf]) -> Result<(), EngineError> {
    for mount in &container.mounts {
        let source = Path::new(&mount.source);
        let real = source.canonicalize().unwrap_or_else(|_| source.to_owned());
        let below = |folder: &PathBuf| {
            let folder = folder.canonicalize().unwrap_or_else(|_| folder.clone());
            // One that does not exist could lead out of it by `..`.
            real.starts_with(folder) && !real.components().any(|part| part.as_os_str() == "..")
        };
        if !allowed.iter().any(below) {
            let allowed = allowed.iter().map(|folder| folder.display().to_string()).collect();
            return Err(EngineError::Mount { folder: mount.source.clone(), allowed });
        }
    }
    Ok(())
}

/// The same by the names of the folders alone, which are on another host.
///
/// # Errors
/// [`EngineError::Mount`].
pub fn check_names(container: &Container, allowed: &[PathBuf]) -> Result<(), EngineError> {
    for mount in &container.mounts {
        let source = Path::new(&mount.source);
        let climbs = source.components().any(|part| part.as_os_str() == "..");
        if climbs || !allowed.iter().any(|folder| source.starts_with(folder)) {
            let allowed = allowed.iter().map(|folder| folder.display().to_string()).collect();
            return Err(EngineError::Mount { folder: mount.source.clone(), allowed });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kip_spec::container::Mount;

    use super::*;

    #[test]
    fn only_what_is_really_below_an_allowed_folder_is_mounted() {
        let folder = tempfile::tempdir().expect("a folder");
        let (models, other) = (folder.path().join("models"), folder.path().join("other"));
        std::fs::create_dir_all(models.join("a")).expect("made");
        std::fs::create_dir_all(&other).expect("made");
        std::os::unix::fs::symlink(&other, models.join("link")).expect("a link");
        let refused = |source: PathBuf, allowed: &[PathBuf]| {
            let mount = Mount { source: source.display().to_string(), target: "/m".to_owned(), writable: false };
            check(&Container { mounts: vec![mount], ..Container::default() }, allowed).is_err()
        };
        let allowed = [models.clone()];
        assert!(!refused(models.clone(), &allowed) && !refused(models.join("a"), &allowed));
        for source in [other, models.join("link"), models.join("none/../../other"), "/".into()] {
            assert!(refused(source.clone(), &allowed), "{}", source.display());
        }
        assert!(refused(models, &[]), "nothing is allowed by itself");
    }
}
