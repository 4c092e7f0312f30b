//! Where a model comes from, as people write it: `hf:org/model@revision`, `modelscope:owner/model`, an address, a folder. Pure.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A hub that models are downloaded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hub {
    /// Hugging Face, or a server with its protocol.
    HuggingFace,
    /// ModelScope, or a server with its protocol.
    ModelScope,
}

impl Hub {
    /// As it begins a source.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::HuggingFace => "hf",
            Self::ModelScope => "modelscope",
        }
    }

    /// Where it is, unless a setting names another server.
    pub fn endpoint(self) -> &'static str {
        match self {
            Self::HuggingFace => "https://huggingface.co",
            Self::ModelScope => "https://www.modelscope.cn",
        }
    }

    /// The revision that is meant where none is named.
    pub fn default_revision(self) -> &'static str {
        match self {
            Self::HuggingFace => "main",
            Self::ModelScope => "master",
        }
    }
}

/// A source with the revision that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// A repository of a hub.
    Hub {
        /// The hub.
        hub: Hub,
        /// `org/model`; on Hugging Face also `model` alone.
        repository: String,
        /// Branch, tag or commit; the hub's default branch without one.
        revision: Option<String>,
    },
    /// One file at an address.
    Url(String),
    /// A folder or a file of this host, absolute.
    Path(PathBuf),
    /// Objects of a bucket.
    Bucket {
        /// `s3` or `oss`.
        scheme: &'static str,
        /// The bucket.
        bucket: String,
        /// One object, or a prefix that ends in `/`; all of the bucket if empty.
        key: String,
    },
    /// A model of another program, which only adoption brings: `ollama:name:tag`.
    Adopted(String),
}

/// Text that is no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no model: {reason}")]
pub struct SourceError {
    text: String,
    reason: &'static str,
}

const LONGEST: usize = 1024;
const FORMS: &str = "write hf:org/model[@revision], modelscope:owner/model[@revision], an http address, or a path that begins with ./ or /";

impl Source {
    /// The source without its revision, by which records are found.
    pub fn name(&self) -> String {
        match self {
            Self::Hub { hub, repository, .. } => format!("{}:{repository}", hub.prefix()),
            Self::Url(url) => url.clone(),
            Self::Path(path) => path.display().to_string(),
            Self::Adopted(name) => name.clone(),
            Self::Bucket { scheme, bucket, key } => format!("{scheme}://{bucket}/{key}"),
        }
    }

    /// The revision that was asked for, or the hub's default one.
    pub fn revision(&self) -> Option<&str> {
        match self {
            Self::Hub { hub, revision, .. } => Some(revision.as_deref().unwrap_or_else(|| hub.default_revision())),
            Self::Url(_) | Self::Path(_) | Self::Bucket { .. } | Self::Adopted(_) => None,
        }
    }

    /// The same source at this revision, if one is given.
    ///
    /// # Errors
    /// Where the source has no revisions, or the text is none.
    pub fn at(self, asked: Option<&str>) -> Result<Self, SourceError> {
        let Some(asked) = asked else { return Ok(self) };
        let fail = |reason| Err(SourceError { text: asked.to_owned(), reason });
        match self {
            Self::Hub { .. } if !is_revision(asked) => fail("a revision has letters, digits, `.`, `_`, `-` and `/`"),
            Self::Hub { hub, repository, .. } => Ok(Self::Hub { hub, repository, revision: Some(asked.to_owned()) }),
            Self::Url(_) | Self::Path(_) | Self::Bucket { .. } | Self::Adopted(_) => {
                fail("only models of a hub have revisions")
            }
        }
    }
}

/// Whether a text can be one part of the name of a model.
pub(crate) fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !text.is_empty()
        && text.len() <= 96
        && text.bytes().all(plain)
        && !text.starts_with(['.', '-'])
        && !text.contains("..")
}

fn is_revision(text: &str) -> bool {
    text.len() <= 255 && text.split('/').all(is_word)
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let fail = |reason| Err(SourceError { text: text.chars().take(200).collect(), reason });
        if text.len() > LONGEST || text.bytes().any(|byte| byte.is_ascii_control()) {
            return fail("it is too long, or has a control character");
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            let authority = text.parse::<http::Uri>().ok().and_then(|uri| uri.authority().cloned());
            return match authority {
                Some(authority) if authority.as_str().contains('@') => fail("an address must not hold credentials"),
                Some(_) => Ok(Self::Url(text.to_owned())),
                None => fail("the address cannot be read"),
            };
        }
        for (prefix, scheme) in [("s3://", "s3"), ("oss://", "oss")] {
            let Some(rest) = text.strip_prefix(prefix) else { continue };
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            let plain =
                key.split('/').all(|part| part != "." && part != "..") && !key.contains("//") && !key.starts_with('/');
            return match is_word(bucket) && plain {
                true => Ok(Self::Bucket { scheme, bucket: bucket.to_owned(), key: key.to_owned() }),
                false => fail("a bucket is s3://BUCKET/PREFIX/ or s3://BUCKET/KEY"),
            };
        }
        if text.starts_with('/') {
            return Ok(Self::Path(PathBuf::from(text)));
        }
        let Some((prefix, rest)) = text.split_once(':') else { return fail(FORMS) };
        if prefix == "ollama" {
            // The tag that is meant where none is named.
            let whole = if rest.contains(':') { rest.to_owned() } else { format!("{rest}:latest") };
            let is_name = whole.len() <= 255 && whole.split(['/', ':']).all(is_word);
            return match is_name {
                true => Ok(Self::Adopted(format!("ollama:{whole}"))),
                false => fail("a model of Ollama is `ollama:name:tag`"),
            };
        }
        let hub = match prefix {
            "hf" | "huggingface" => Hub::HuggingFace,
            "modelscope" | "ms" => Hub::ModelScope,
            _ => return fail(FORMS),
        };
        let (repository, revision) = match rest.split_once('@') {
            Some((repository, revision)) if is_revision(revision) => (repository, Some(revision.to_owned())),
            Some(_) => return fail("a revision has letters, digits, `.`, `_`, `-` and `/`"),
            None => (rest, None),
        };
        let parts: Vec<&str> = repository.split('/').collect();
        let complete = parts.len() == 2 || (parts.len() == 1 && hub == Hub::HuggingFace);
        if !complete || !parts.iter().all(|part| is_word(part)) {
            return fail("a repository is `org/model`, of letters, digits, `.`, `_` and `-`");
        }
        Ok(Self::Hub { hub, repository: repository.to_owned(), revision })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        match self {
            Self::Hub { revision: Some(revision), .. } => write!(f, "@{revision}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_as_people_write_them() {
        for text in ["hf:org/model", "hf:gpt2", "modelscope:Qwen/Qwen3-8B@v1.0", "hf:a/b@refs/pr/1", "/srv/m.onnx"] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        assert_eq!("huggingface:a/b".parse::<Source>().unwrap().name(), "hf:a/b");
        assert_eq!("ms:a/b".parse::<Source>().unwrap().revision(), Some("master"));
        for text in ["s3://models/llm/", "oss://b/a/model.gguf"] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        assert_eq!("ollama:qwen2.5".parse::<Source>().unwrap().name(), "ollama:qwen2.5:latest");
        assert_eq!("ollama:me/qwen:7b".parse::<Source>().unwrap().to_string(), "ollama:me/qwen:7b");
        assert!(matches!("https://example.com/m.gguf".parse(), Ok(Source::Url(_))));
        let pinned = "hf:a/b@x".parse::<Source>().unwrap().at(Some("main")).unwrap();
        assert_eq!(pinned.to_string(), "hf:a/b@main");
    }

    #[test]
    fn tricks_are_refused() {
        for text in [
            "",
            "org/model",
            "hf:",
            "hf:a/../b",
            "hf:../b",
            "hf:a/b/c",
            "modelscope:b",
            "hf:a/b@",
            "hf:a/b@../x",
            "s3:a/b",
            "hf:a b/c",
            "hf:a/b@a//b",
            "https://user:word@example.com/x",
            "hf:a/b\n",
            "hf:a/.b",
            "hf:-a/b",
            "ollama:",
            "s3://",
            "s3://a b/c",
            "oss://b/../c",
            "s3://b//c",
            "ollama:../a:b",
            "ollama:a:b/../c",
        ] {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
    }
}
