//! The key that seals secrets at rest: AES-256-GCM by `ring`, with what a secret is as associated data, so that no sealed value can stand in
//! the place of another one.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER_PERMISSIVE;
use kip_spec::named_secret::SecretText;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest, Sha256};

use crate::Error;

/// The file of a data directory's own key.
pub const SEAL_KEY: &str = "seal.key";
/// Bytes of a key.
const KEY: usize = 32;
/// Bytes of a key's file at most.
const LARGEST_FILE: u64 = 4 << 10;
/// The form of sealed values: this byte, the mark of the key, the nonce, the ciphertext with its tag.
const FORM: u8 = 1;
/// Bytes by which a key is told from others.
const MARK: usize = 8;

/// Seals and opens values. Cheap to clone.
#[derive(Clone)]
pub struct Seal {
    key: Arc<LessSafeKey>,
    mark: [u8; MARK],
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").field("mark", &self.mark).finish_non_exhaustive()
    }
}

impl Seal {
    /// The key in the file that `KIPWAKE_SEAL_KEY_FILE` names, else the data directory's own one, which is made if it is missing.
    ///
    /// # Errors
    /// [`Error::SealKey`] or [`Error::File`].
    pub fn open(data: &Path) -> Result<Self, Error> {
        match kip_host::environment::read(kip_host::environment::SEAL_KEY_FILE) {
            Some(file) => Self::read(Path::new(&file)),
            None => Self::own(&data.join(SEAL_KEY)),
        }
    }

    fn own(path: &Path) -> Result<Self, Error> {
        if std::fs::symlink_metadata(path).is_err() {
            let mut key = [0; KEY];
            kip_host::random::fill(&mut key);
            let text = format!("{}\n", HEXLOWER_PERMISSIVE.encode(&key));
            kip_host::directory::write_whole(path, text.as_bytes())
                .map_err(|source| Error::File { path: path.to_owned(), source })?;
        }
        Self::read(path)
    }

    /// The key in a file: 32 bytes, or 64 hexadecimal digits. Nobody but its owner may have access to the file.
    ///
    /// # Errors
    /// [`Error::SealKey`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let fault = |detail: String| Error::SealKey { path: path.to_owned(), detail };
        // A file that somebody mounts may be behind a link.
        let whole = path.canonicalize().map_err(|error| fault(error.to_string()))?;
        let mode = std::fs::metadata(&whole).map_err(|error| fault(error.to_string()))?.mode();
        if mode & 0o077 != 0 {
            return Err(fault(format!("its mode is {:o}: others than its owner have access to it", mode & 0o777)));
        }
        let bytes =
            kip_host::directory::read_regular(&whole, LARGEST_FILE).map_err(|error| fault(error.to_string()))?;
        let text = bytes.trim_ascii();
        let decoded = HEXLOWER_PERMISSIVE.decode(text).ok().filter(|key| key.len() == KEY);
        let key = decoded.or_else(|| (bytes.len() == KEY).then(|| bytes.clone()));
        let key = key.ok_or_else(|| fault("it is neither 32 bytes nor 64 hexadecimal digits".to_owned()))?;
        Self::of(&key).ok_or_else(|| fault("it is not a key".to_owned()))
    }

    fn of(key: &[u8]) -> Option<Self> {
        let digest: [u8; 32] = Sha256::digest([b"kipwake seal ".as_slice(), key].concat()).into();
        let mut mark = [0; MARK];
        mark.copy_from_slice(&digest[..MARK]);
        let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
        Some(Self { key: Arc::new(LessSafeKey::new(key)), mark })
    }

    /// Seals a value for what it is: nothing else opens it again.
    ///
    /// # Errors
    /// [`Error::Unsealable`], which only a value of many gigabytes can cause.
    pub(crate) fn seal(&self, what: &str, value: &SecretText) -> Result<Vec<u8>, Error> {
        let mut nonce = [0; NONCE_LEN];
        kip_host::random::fill(&mut nonce);
        let mut sealed = value.reveal().as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(what.as_bytes()), &mut sealed)
            .map_err(|_| Error::Unsealable)?;
        Ok([&[FORM], self.mark.as_slice(), &nonce, &sealed].concat())
    }

    /// Opens a value; none if it was sealed with another key, for something else, or was changed.
    pub(crate) fn reveal(&self, what: &str, sealed: &[u8]) -> Option<SecretText> {
        let rest = sealed.strip_prefix(&[FORM])?.strip_prefix(self.mark.as_slice())?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN)?;
        let mut text = text.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let value = self.key.open_in_place(nonce, Aad::from(what.as_bytes()), &mut text).ok()?;
        Some(SecretText::new(String::from_utf8(value.to_vec()).ok()?))
    }
}

/// Where the key of a data directory is, for those who back it up.
pub fn seal_key_file(data: &Path) -> PathBuf {
    data.join(SEAL_KEY)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn text(text: &str) -> SecretText {
        SecretText::new(text.to_owned())
    }

    #[test]
    fn what_is_sealed_opens_only_as_what_it_is_and_with_its_key() {
        let (one, other) = (Seal::of(&[1; KEY]).unwrap(), Seal::of(&[2; KEY]).unwrap());
        let sealed = one.seal("secret/a/1", &text("hidden")).unwrap();
        assert_eq!(one.reveal("secret/a/1", &sealed), Some(text("hidden")));
        assert!(!sealed.windows(6).any(|six| six == b"hidden"));
        assert_ne!(sealed, one.seal("secret/a/1", &text("hidden")).unwrap(), "no nonce comes twice");
        assert_eq!(one.reveal("secret/a/2", &sealed), None, "another generation");
        assert_eq!(other.reveal("secret/a/1", &sealed), None, "another key");
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert_eq!(one.reveal("secret/a/1", &changed), None, "byte {place}");
        }
        for end in 0..sealed.len() {
            assert_eq!(one.reveal("secret/a/1", &sealed[..end]), None);
        }
        assert!(!format!("{one:?}").contains("key"), "{one:?}");
    }

    #[test]
    fn a_key_is_made_once_and_nobody_else_may_read_it() {
        let data = tempfile::tempdir().unwrap();
        let path = seal_key_file(data.path());
        let first = Seal::own(&path).unwrap();
        assert_eq!(first.mark, Seal::own(&path).unwrap().mark);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Seal::own(&path), Err(Error::SealKey { .. })));
        let given = data.path().join("given");
        std::fs::write(&given, [7; KEY]).unwrap();
        std::fs::set_permissions(&given, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Seal::read(&given).unwrap().mark, Seal::of(&[7; KEY]).unwrap().mark);
        std::fs::write(&given, "short").unwrap();
        assert!(matches!(Seal::read(&given), Err(Error::SealKey { .. })));
        assert!(matches!(Seal::read(&data.path().join("none")), Err(Error::SealKey { .. })));
    }
}
