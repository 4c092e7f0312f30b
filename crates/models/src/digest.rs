//! Digests of files: SHA-256, and git's of a blob, both computed while a file streams by. Pure.

use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// The content that a hub promises.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// SHA-256 of the content, hexadecimal.
    Sha256(String),
    /// SHA-1 of git's header and the content, hexadecimal.
    GitBlob(String),
}

impl Digest {
    /// A SHA-256, if the text is one.
    pub fn sha256(text: &str) -> Option<Self> {
        is_hex(text, 64).then(|| Self::Sha256(text.to_ascii_lowercase()))
    }

    /// A git blob, if the text is one.
    pub fn git_blob(text: &str) -> Option<Self> {
        is_hex(text, 40).then(|| Self::GitBlob(text.to_ascii_lowercase()))
    }

    /// A name for files: the kind and the value.
    pub(crate) fn file_name(&self) -> String {
        match self {
            Self::Sha256(hex) => format!("sha256-{hex}"),
            Self::GitBlob(hex) => format!("git-{hex}"),
        }
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Computes both digests of a content of known size.
pub(crate) struct Hasher {
    sha256: Context,
    git: Context,
}

/// Both digests of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) sha256: String,
    pub(crate) git: String,
}

impl Hasher {
    /// For a content of this size, which git's header has.
    pub(crate) fn new(size: u64) -> Self {
        let mut git = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        git.update(format!("blob {size}\0").as_bytes());
        Self { sha256: Context::new(&SHA256), git }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.git.update(bytes);
    }

    pub(crate) fn finish(self) -> Sums {
        Sums {
            sha256: HEXLOWER.encode(self.sha256.finish().as_ref()),
            git: HEXLOWER.encode(self.git.finish().as_ref()),
        }
    }
}

impl Sums {
    /// Whether the content is the promised one.
    pub(crate) fn fits(&self, digest: &Digest) -> bool {
        match digest {
            Digest::Sha256(hex) => *hex == self.sha256,
            Digest::GitBlob(hex) => *hex == self.git,
        }
    }
}

/// SHA-256 of bytes, hexadecimal.
pub(crate) fn sha256_of(bytes: &[u8]) -> String {
    HEXLOWER.encode(ring::digest::digest(&SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_digests_are_those_of_git_and_of_sha256sum() {
        let mut hasher = Hasher::new(6);
        hasher.update(b"hel");
        hasher.update(b"lo\n");
        let sums = hasher.finish();
        assert_eq!(sums.git, "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(sums.sha256, "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
        assert!(sums.fits(&Digest::git_blob("CE013625030BA8DBA906F756967F9E9CA394464A").unwrap()));
        assert!(!sums.fits(&Digest::sha256(&"0".repeat(64)).unwrap()));
        assert_eq!(Digest::sha256("../../x"), None);
    }
}
