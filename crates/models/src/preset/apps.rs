//! Programs that come with Kipwake and run in the environment of an engine. A version keeps the one that it was made with: the name of the
//! file has a digest of its content.

use std::path::{Path, PathBuf};

use crate::digest::sha256_of;

/// Characters of the digest in a file's name.
const DIGEST: usize = 12;

/// A program that comes with Kipwake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct App {
    /// Its name.
    pub name: &'static str,
    /// Its content.
    pub text: &'static str,
}

const ALL: [App; 1] = [App { name: "pipeline", text: include_str!("../../apps/pipeline.py") }];

impl App {
    /// One by its name.
    pub fn find(name: &str) -> Option<Self> {
        ALL.into_iter().find(|app| app.name == name)
    }

    /// All names.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        ALL.iter().map(|app| app.name)
    }

    /// The name of its file, `NAME-DIGEST.py`.
    pub fn file_name(&self) -> String {
        let digest = sha256_of(self.text.as_bytes());
        format!("{}-{}.py", self.name, digest.get(..DIGEST).unwrap_or_default())
    }

    /// The app whose file this is, of this release or an earlier one: its name, and the present content if it is the same.
    pub fn of_file(path: &Path) -> Option<(&'static str, Option<Self>)> {
        let file = path.file_name()?.to_str()?;
        let (name, digest) = file.strip_suffix(".py")?.rsplit_once('-')?;
        let app = Self::find(name).filter(|_| digest.len() == DIGEST)?;
        Some((app.name, Some(app).filter(|app| app.file_name() == file)))
    }

    /// Writes it into a folder, unless it is there. Blocks.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn place(&self, folder: &Path) -> std::io::Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let file = folder.join(self.file_name());
        if std::fs::read(&file).is_ok_and(|content| content == self.text.as_bytes()) {
            return Ok(file);
        }
        kip_host::directory::create_private(folder)?;
        kip_host::directory::write_whole(&file, self.text.as_bytes())?;
        // Instances of other users read it, but not by way of the data directory.
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644))?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_an_app_is_known_by_its_name_and_digest() {
        let app = App::find("pipeline").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = app.place(&folder.path().join("apps")).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), app.text);
        assert_eq!(app.place(&folder.path().join("apps")).unwrap(), file);
        assert_eq!(App::of_file(&file), Some(("pipeline", Some(app))));
        assert_eq!(App::of_file(Path::new("/x/pipeline-0123456789ab.py")), Some(("pipeline", None)));
        assert_eq!(App::of_file(Path::new("/x/server-0123456789ab.py")), None);
        assert_eq!(App::of_file(Path::new("/x/app.py")), None);
        assert_eq!(App::find("nothing"), None);
    }
}
