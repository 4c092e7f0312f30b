//! Who may call. Bearer keys are 256 random bits; only their SHA-256 is kept, which is enough for secrets that cannot be
//! guessed. The first start makes an administrator key in a file that only its owner can read.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use kip_spec::{Problem, code};
use kip_store::{ControlStore, StoredKey};
use sha2::{Digest, Sha256};

/// What a key begins with, so that one in a log or a repository is recognised.
const PREFIX: &str = "kw_";
/// The name of the key that the first start makes.
const ADMINISTRATOR: &str = "admin";

/// Why keys could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("the keys cannot be read or stored")]
    Store(#[from] kip_store::Error),
    /// The key's file failed.
    #[error("cannot write the administrator key to {}", path.display())]
    File {
        /// Where it was to be.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// The keys that this server knows. Cheap to clone; asks no disk.
#[derive(Debug, Clone)]
pub struct Keys {
    hashes: Arc<RwLock<HashSet<[u8; 32]>>>,
}

/// Where the administrator key of a data directory is.
pub fn administrator_file(data: &Path) -> PathBuf {
    data.join("admin.key")
}

impl Keys {
    /// Reads the keys; makes the administrator's if its file is missing. Gives it too, for whoever starts the server.
    ///
    /// # Errors
    /// When the store or the file fails.
    pub async fn open(store: &dyn ControlStore, data: &Path) -> Result<(Self, String), Error> {
        let path = administrator_file(data);
        let failed = |source| Error::File { path: path.clone(), source };
        let stored = store.keys().await?;
        let mut hashes: HashSet<[u8; 32]> = stored.iter().map(|key| key.hash).collect();
        let administrator = match std::fs::read_to_string(&path) {
            Ok(key) if hashes.contains(&hash(key.trim())) => key.trim().to_owned(),
            _ => {
                let key = generate();
                let count = stored.iter().filter(|stored| stored.name.starts_with(ADMINISTRATOR)).count();
                let name = if count == 0 { ADMINISTRATOR.to_owned() } else { format!("{ADMINISTRATOR}-{}", count + 1) };
                let entry = StoredKey { name, hash: hash(&key), created: kip_host::clock::wall_millis() };
                hashes.insert(entry.hash);
                store.add_key(entry).await?;
                kip_host::directory::write_whole(&path, format!("{key}\n").as_bytes()).map_err(failed)?;
                key
            }
        };
        Ok((Self { hashes: Arc::new(RwLock::new(hashes)) }, administrator))
    }

    /// Takes keys in that the store got since, by a restore.
    pub fn add(&self, stored: &[StoredKey]) {
        self.hashes.write().unwrap_or_else(PoisonError::into_inner).extend(stored.iter().map(|key| key.hash));
    }

    /// Checks the value of an `Authorization` header.
    ///
    /// # Errors
    /// A problem with code KW-7001 if there is no bearer key, KW-7002 if it is not known.
    pub fn check(&self, authorization: Option<&str>) -> Result<(), Problem> {
        let bearer = authorization.and_then(|value| {
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
        });
        let Some(key) = bearer else {
            return Err(Problem::new(code::KEY_MISSING, "a key is needed and none was sent")
                .hint("send the header `Authorization: Bearer <key>`; the administrator key is in admin.key in the data directory"));
        };
        // Looking up a hash tells a caller nothing about other keys, whatever the time it takes.
        if self.hashes.read().unwrap_or_else(PoisonError::into_inner).contains(&hash(key)) {
            return Ok(());
        }
        Err(Problem::new(code::KEY_WRONG, "the key is not known to this server")
            .hint("the administrator key is in admin.key in the data directory of the server that is asked"))
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn generate() -> String {
    let mut secret = [0u8; 32];
    kip_host::random::fill(&mut secret);
    secret.iter().fold(PREFIX.to_owned(), |key, byte| key + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kip_store::SqliteControl;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn the_administrator_key_is_made_once_kept_private_and_works() {
        let data = tempfile::tempdir().unwrap();
        let store = SqliteControl::open(&data.path().join("control.db")).unwrap();
        let (keys, key) = Keys::open(&store, data.path()).await.unwrap();
        let (_, again) = Keys::open(&store, data.path()).await.unwrap();
        assert_eq!(key, again);
        let mode = std::fs::metadata(administrator_file(data.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(keys.check(Some(&format!("Bearer {key}"))).is_ok());
        assert!(keys.check(Some(&format!("bearer {key}"))).is_ok());
        assert_eq!(keys.check(None).unwrap_err().code, code::KEY_MISSING);
        assert_eq!(keys.check(Some("Basic x")).unwrap_err().code, code::KEY_MISSING);
        assert_eq!(keys.check(Some("Bearer kw_nope")).unwrap_err().code, code::KEY_WRONG);
        let stored = std::fs::read(data.path().join("control.db")).unwrap();
        assert!(!stored.windows(key.len()).any(|window| window == key.as_bytes()), "the key itself is never stored");
    }

    #[tokio::test]
    async fn a_lost_key_file_is_made_anew() {
        let data = tempfile::tempdir().unwrap();
        let store = SqliteControl::open(&data.path().join("control.db")).unwrap();
        let (_, first) = Keys::open(&store, data.path()).await.unwrap();
        std::fs::remove_file(administrator_file(data.path())).unwrap();
        let (keys, second) = Keys::open(&store, data.path()).await.unwrap();
        assert_ne!(first, second);
        assert!(keys.check(Some(&format!("Bearer {second}"))).is_ok());
    }
}
