//! Where the dependencies of a function go: beside its code, or on a share if its variables say so.

use std::path::{Path, PathBuf};

use kip_serverless::DeclaredFunction;
use kip_spec::{Problem, code};

use crate::commands::files;

/// The folders of a function's dependencies.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// What `PYTHONUSERBASE` names.
    pub(super) python: PathBuf,
    /// Packages of the system.
    pub(super) root: PathBuf,
}

impl Places {
    /// Those of a function: `.fun/python` beside its code, or the project's own copy of what `PYTHONUSERBASE` names.
    pub(super) fn of(function: &DeclaredFunction, directory: &Path, code_folder: &Path) -> Result<Self, Problem> {
        let variables = function.config.get("environmentVariables");
        let base = variables.and_then(|all| all["PYTHONUSERBASE"].as_str()).filter(|base| !base.is_empty());
        let Some(base) = base else {
            let own = code_folder.join(".fun");
            return Ok(Self { python: own.join("python"), root: own.join("root") });
        };
        let path = Path::new(base);
        let of_share = files::of_function(function, directory)?
            .into_iter()
            .find_map(|mount| path.strip_prefix(&mount.target).ok().map(|rest| mount.twin.join(rest)));
        let python = match (of_share, path.strip_prefix("/code")) {
            (Some(place), _) => place,
            (None, Ok(rest)) => code_folder.join(rest),
            (None, Err(_)) => {
                let message = format!(
                    "PYTHONUSERBASE of {} is {base}, which is neither in /code nor on a share of it",
                    function.name
                );
                return Err(Problem::new(code::INSTALL_FAILED, message)
                    .hint("write PYTHONUSERBASE: /code/.fun/python, or a path below the mountDir of its NasConfig"));
            }
        };
        let root = python.parent().unwrap_or(&python).join("root");
        Ok(Self { python, root })
    }

    /// A folder beside it in which packages are put together.
    pub(super) fn fresh(&self) -> PathBuf {
        let name = self.python.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        self.python.with_file_name(format!(".{name}.kip-new"))
    }

    /// Puts the folder that was put together in the place of the one before.
    pub(super) fn take(&self, fresh: &Path) -> std::io::Result<()> {
        let old = fresh.with_extension("kip-old");
        let _ = std::fs::remove_dir_all(&old);
        if self.python.exists() {
            std::fs::rename(&self.python, &old)?;
        }
        std::fs::rename(fresh, &self.python)?;
        let _ = std::fs::remove_dir_all(&old);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::files::dependencies::tests::function;

    #[test]
    fn packages_go_beside_the_code_or_where_the_variable_says() {
        let folder = tempfile::tempdir().unwrap();
        let code_folder = folder.path().join("code");
        let places = |variables: &str| Places::of(&function(folder.path(), variables), folder.path(), &code_folder);
        assert_eq!(places("").unwrap().python, code_folder.join(".fun/python"));
        let share = folder.path().join(".fun/nas/auto-default/s");
        let of_share = places("PYTHONUSERBASE: /mnt/auto/python").unwrap();
        assert_eq!((of_share.python, of_share.root), (share.join("python"), share.join("root")));
        assert_eq!(places("PYTHONUSERBASE: /code/.own").unwrap().python, code_folder.join(".own"));
        assert_eq!(places("PYTHONUSERBASE: /srv/x").unwrap_err().code, code::INSTALL_FAILED);
    }
}
