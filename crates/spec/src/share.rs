//! Names of shared storage as files of Function Compute have them: paths of NAS servers and of buckets. Each has a folder on this machine.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The server of the share that Fun makes by itself (`NasConfig: Auto`); its paths are the names of services.
pub const AUTO: &str = "auto-default";
/// Where that share is mounted.
pub const AUTO_TARGET: &str = "/mnt/auto";
/// Where a project keeps its own copy of what belongs on shares, as Fun does.
const TWINS: &str = ".fun/nas";
/// The longest name, characters.
const LONGEST: usize = 512;
/// Paths at which nothing is mounted, with all that is below them.
const RESERVED: [&str; 8] = ["/proc", "/sys", "/dev", "/tmp", "/code", "/opt", "/etc", "/run"];

/// What kind of storage it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShareKind {
    /// A path of a NAS server.
    Nas,
    /// A path of a bucket.
    Bucket,
}

/// A path of a NAS server, written `SERVER:/PATH`, or of a bucket, written `oss://BUCKET/PATH`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareName {
    kind: ShareKind,
    /// The server or the bucket, then the parts of the path.
    parts: Vec<String>,
}

/// Why a text names no share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no share: {why}")]
pub struct ShareNameError {
    text: String,
    why: &'static str,
}

impl ShareName {
    /// A path of a NAS server: `1a2b.cn-beijing.nas.aliyuncs.com:/models`.
    ///
    /// # Errors
    /// Where no folder can have the name.
    pub fn nas(address: &str) -> Result<Self, ShareNameError> {
        let (server, path) = address.split_once(':').unwrap_or((address, ""));
        Self::new(ShareKind::Nas, server, path, address)
    }

    /// A path of a bucket; an empty one or `/` is all of it.
    ///
    /// # Errors
    /// As [`ShareName::nas`].
    pub fn bucket(name: &str, path: &str) -> Result<Self, ShareNameError> {
        Self::new(ShareKind::Bucket, name, path, name)
    }

    fn new(kind: ShareKind, first: &str, path: &str, text: &str) -> Result<Self, ShareNameError> {
        let wrong = |why| ShareNameError { text: text.to_owned(), why };
        if first.is_empty() {
            return Err(wrong("write SERVER:/PATH or oss://BUCKET/PATH"));
        }
        let path = path.split('/').filter(|part| !part.is_empty());
        let parts: Vec<String> = std::iter::once(first).chain(path).map(str::to_owned).collect();
        let is_bad =
            |part: &String| part == "." || part == ".." || part.contains('/') || part.contains(char::is_control);
        if parts.iter().any(is_bad) {
            return Err(wrong("a part of its path cannot be a folder"));
        }
        if parts.iter().map(|part| part.len() + 1).sum::<usize>() > LONGEST {
            return Err(wrong("it is longer than 512 characters"));
        }
        Ok(Self { kind, parts })
    }

    /// What kind of storage it is.
    pub fn kind(&self) -> ShareKind {
        self.kind
    }

    /// The server or the bucket.
    pub fn server(&self) -> &str {
        self.parts.first().map(String::as_str).unwrap_or_default()
    }

    /// Its folder, below the storage root of this machine.
    pub fn folder(&self) -> PathBuf {
        let kind = match self.kind {
            ShareKind::Nas => "nas",
            ShareKind::Bucket => "oss",
        };
        std::iter::once(kind).chain(self.parts.iter().map(String::as_str)).collect()
    }

    /// The copy of a project, below the folder of its file.
    pub fn twin(&self) -> PathBuf {
        match self.kind {
            ShareKind::Nas => std::iter::once(TWINS).chain(self.parts.iter().map(String::as_str)).collect(),
            ShareKind::Bucket => [".fun", "oss"].into_iter().chain(self.parts.iter().map(String::as_str)).collect(),
        }
    }

    /// The share itself and those above it, each with the path from there to this one.
    pub fn upwards(&self) -> impl Iterator<Item = (Self, PathBuf)> + '_ {
        (1..=self.parts.len()).rev().map(|length| {
            let (above, rest) = self.parts.split_at(length);
            (Self { kind: self.kind, parts: above.to_vec() }, rest.iter().collect())
        })
    }
}

impl fmt::Display for ShareName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (server, path) = (self.server(), self.parts.get(1..).unwrap_or_default().join("/"));
        match (self.kind, path.is_empty()) {
            (ShareKind::Nas, _) => write!(f, "{server}:/{path}"),
            (ShareKind::Bucket, true) => write!(f, "oss://{server}"),
            (ShareKind::Bucket, false) => write!(f, "oss://{server}/{path}"),
        }
    }
}

impl FromStr for ShareName {
    type Err = ShareNameError;

    fn from_str(text: &str) -> Result<Self, ShareNameError> {
        match text.strip_prefix("oss://") {
            Some(rest) => {
                let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
                Self::new(ShareKind::Bucket, bucket, path, text)
            }
            None if text.contains(":/") => Self::nas(text),
            None => Err(ShareNameError { text: text.to_owned(), why: "write SERVER:/PATH or oss://BUCKET/PATH" }),
        }
    }
}

/// Why nothing can be mounted at a path of an instance; `None` where it can.
pub fn refused_target(target: &str, in_container: bool) -> Option<String> {
    let path = std::path::Path::new(target);
    let is_plain = target.starts_with('/')
        && target.len() > 1
        && !target.contains(char::is_control)
        && !target.split('/').any(|part| part == ".." || part == ".");
    if !is_plain {
        return Some(format!("`{target}` is no absolute path below `/`"));
    }
    // An image has its own folders of code and programs.
    let own = if in_container { &RESERVED[..3] } else { &RESERVED[..] };
    let reserved = own.iter().find(|reserved| path.starts_with(reserved));
    reserved.map(|reserved| format!("{target} is in {reserved}, which instances need themselves"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_and_read() {
        for (written, folder, twin) in [
            ("auto-default:/classify", "nas/auto-default/classify", ".fun/nas/auto-default/classify"),
            ("a.nas.example.com:/", "nas/a.nas.example.com", ".fun/nas/a.nas.example.com"),
            ("oss://models/a/b", "oss/models/a/b", ".fun/oss/models/a/b"),
            ("oss://models", "oss/models", ".fun/oss/models"),
        ] {
            let name: ShareName = written.parse().unwrap();
            assert_eq!((name.to_string().as_str(), name.folder().to_str()), (written, Some(folder)));
            assert_eq!(name.twin().to_str(), Some(twin));
        }
        assert_eq!(ShareName::nas("host:/a//b/").unwrap().to_string(), "host:/a/b");
        assert_eq!(ShareName::bucket("b", "/").unwrap().to_string(), "oss://b");
        for wrong in ["", "host", ":/a", "host:/../x", "oss://", "oss://b/..", "h/x:/a", "..:/a", "h:/a\n"] {
            assert!(wrong.parse::<ShareName>().is_err(), "{wrong}");
        }
        let above: Vec<String> = ShareName::nas("h:/a/b")
            .unwrap()
            .upwards()
            .map(|(name, rest)| format!("{name} {}", rest.display()))
            .collect();
        assert_eq!(above, ["h:/a/b ", "h:/a b", "h:/ a/b"]);
    }

    #[test]
    fn some_paths_are_the_instances_own() {
        assert_eq!((refused_target("/mnt/auto", false), refused_target("/opt/models", true)), (None, None));
        for wrong in ["", "/", "mnt", "/mnt/../etc", "/proc/x", "/tmp", "/code", "/opt/x", "/dev/shm"] {
            assert!(refused_target(wrong, false).is_some(), "{wrong}");
        }
    }
}
