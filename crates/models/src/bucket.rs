//! Buckets of an object store by the protocol of S3: lists, and addresses that carry a signature. Object stores of other makers have the same protocol.

use std::time::Duration;

use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle};
use url::Url;

use crate::client::{Client, CompleteAnswer, Endpoint, shown};
use crate::digest::sha256_of;
use crate::error::Error;
use crate::hub::{ListedFile, Listing, MOST_FILES};
use crate::path::FilePath;
use crate::source::Source;

/// How long a signed address can be used: a large file may take so long, with its waits.
const SIGNED: Duration = Duration::from_secs(86_400);
/// Pages of a list at most.
const MOST_PAGES: usize = 1_000;

/// A bucket as it is asked.
struct Access {
    bucket: Bucket,
    credentials: Option<Credentials>,
}

/// The region that a host names; what has none takes this one.
fn region_of(host: &str) -> String {
    let parts: Vec<&str> = host.split('.').collect();
    let named = match parts.as_slice() {
        // s3.REGION.amazonaws.com
        ["s3", region, "amazonaws", ..] => Some((*region).to_owned()),
        // s3.oss-REGION.aliyuncs.com, oss-REGION.aliyuncs.com
        [.., region, "aliyuncs", "com"] => {
            region.strip_prefix("oss-").map(|region| region.trim_end_matches("-internal").to_owned())
        }
        _ => None,
    };
    named.unwrap_or_else(|| "us-east-1".to_owned())
}

/// Stores whose buckets are a part of the host's name.
fn style_of(host: &str) -> UrlStyle {
    match host.ends_with(".amazonaws.com") || host.ends_with(".aliyuncs.com") {
        true => UrlStyle::VirtualHost,
        false => UrlStyle::Path,
    }
}

impl Access {
    /// The credentials are `ID:SECRET`, or `ID:SECRET:TOKEN` of a session. Without any, the bucket is read as anybody reads it.
    fn of(name: &str, endpoint: &Endpoint) -> Result<Self, Error> {
        let unusable = |reason: String| Error::Answer { address: shown(&endpoint.base), reason };
        let url: Url = endpoint.base.parse().map_err(|error| unusable(format!("{error}")))?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let bucket = Bucket::new(url, style_of(&host), name.to_owned(), region_of(&host));
        let bucket = bucket.map_err(|error| unusable(error.to_string()))?;
        let credentials = endpoint.token.as_ref().map(|token| {
            let mut parts = token.reveal().trim().splitn(3, ':').map(str::to_owned);
            match (parts.next(), parts.next(), parts.next()) {
                (Some(id), Some(secret), Some(session)) => Ok(Credentials::new_with_token(id, secret, session)),
                (Some(id), Some(secret), None) => Ok(Credentials::new(id, secret)),
                _ => Err(unusable("the secret for a bucket is ID:SECRET, or ID:SECRET:TOKEN".to_owned())),
            }
        });
        Ok(Self { bucket, credentials: credentials.transpose()? })
    }

    fn list(&self, prefix: &str, after: Option<&str>) -> String {
        let mut list = self.bucket.list_objects_v2(self.credentials.as_ref());
        list.with_prefix(prefix.to_owned());
        if let Some(after) = after {
            list.with_continuation_token(after.to_owned());
        }
        list.sign(SIGNED).to_string()
    }
}

/// What is asked without a token of ours: the address has the signature.
pub(crate) fn bare(endpoint: &Endpoint) -> Endpoint {
    Endpoint { base: endpoint.base.clone(), token: None }
}

/// The address of an object, signed where there are credentials.
pub(crate) fn address(source: &Source, endpoint: &Endpoint, path: &FilePath) -> Option<String> {
    let Source::Bucket { bucket, key, .. } = source else { return None };
    let access = Access::of(bucket, endpoint).ok()?;
    let object = object_of(key, path);
    Some(access.bucket.get_object(access.credentials.as_ref(), &object).sign(SIGNED).to_string())
}

/// The key of a file: below the prefix, or the object that the source names itself.
fn object_of(key: &str, path: &FilePath) -> String {
    match key.is_empty() || key.ends_with('/') {
        true => format!("{key}{path}"),
        false => key.to_owned(),
    }
}

/// The objects below a prefix, or the one object that is named.
pub(crate) async fn listing(
    source: &Source,
    endpoint: &Endpoint,
    client: &Client,
    patience: Duration,
) -> Result<Listing, Error> {
    let Source::Bucket { bucket, key, .. } = source else { return Err(Error::NotCached(source.to_string())) };
    let access = Access::of(bucket, endpoint)?;
    let unusable = |reason: String| Error::Answer { address: shown(&endpoint.base), reason };
    let (mut files, mut lines, mut after) = (Vec::new(), String::new(), None);
    for _ in 0..MOST_PAGES {
        let page = client.read(&access.list(key, after.as_deref()), &bare(endpoint), patience).await?;
        let text = checked(&page, source, endpoint)?;
        let read = ListObjectsV2::parse_response(text).map_err(|error| unusable(error.to_string()))?;
        for object in read.contents {
            let below = match key.is_empty() || key.ends_with('/') {
                true => object.key.strip_prefix(key.as_str()),
                // `s3://b/model.gguf` is this object, not all that begin so.
                false if object.key == *key => object.key.rsplit('/').next(),
                false => None,
            };
            // Folders are objects of some programs.
            let Some(below) = below.filter(|below| !below.is_empty() && !below.ends_with('/')) else { continue };
            let size = object.size.ok_or_else(|| unusable(format!("it does not say the size of {}", object.key)))?;
            if files.len() >= MOST_FILES {
                return Err(unusable(format!("more than {MOST_FILES} objects")));
            }
            lines.push_str(&format!("{below} {size} {}\n", object.etag.unwrap_or_default()));
            files.push(ListedFile { path: FilePath::new(below)?, size, digest: None });
        }
        after = read.next_continuation_token;
        if after.is_none() {
            break;
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    // What is there now is what is pinned: names, sizes and the store's tags of contents.
    Ok(Listing { commit: sha256_of(lines.as_bytes())[..40].to_owned(), licence: None, task: None, files })
}

fn checked<'a>(page: &'a CompleteAnswer, source: &Source, endpoint: &Endpoint) -> Result<&'a str, Error> {
    let (hub, repository) = (endpoint.base.clone(), source.name());
    match page.status {
        200 => {}
        401 | 403 => return Err(Error::BucketClosed { bucket: repository, keys: endpoint.token.is_some() }),
        404 => return Err(Error::Unknown { hub, repository }),
        status => return Err(Error::Answer { address: shown(&hub), reason: format!("it answers {status}") }),
    }
    std::str::from_utf8(&page.body).map_err(|error| Error::Answer { address: shown(&hub), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_name_regions_and_styles() {
        for (host, region) in [
            ("s3.eu-central-1.amazonaws.com", "eu-central-1"),
            ("s3.oss-cn-hangzhou.aliyuncs.com", "cn-hangzhou"),
            ("oss-cn-beijing-internal.aliyuncs.com", "cn-beijing"),
            ("minio.example.com", "us-east-1"),
        ] {
            assert_eq!(region_of(host), region);
        }
        assert!(matches!(style_of("127.0.0.1"), UrlStyle::Path));
        assert!(matches!(style_of("s3.us-east-1.amazonaws.com"), UrlStyle::VirtualHost));
    }

    #[test]
    fn an_address_is_signed_where_there_are_credentials_and_does_not_show_them() {
        let source: Source = "s3://models/llm/".parse().unwrap();
        let path = FilePath::new("a b/model.gguf").unwrap();
        let of = |token: Option<&str>| {
            let token = token.map(|token| kip_spec::named_secret::SecretText::new(token.to_owned()));
            address(&source, &Endpoint { base: "http://127.0.0.1:9000".to_owned(), token }, &path).unwrap()
        };
        assert_eq!(of(None), "http://127.0.0.1:9000/models/llm/a%20b/model.gguf");
        let signed = of(Some("ID:s3cr3t"));
        assert!(
            signed.contains("X-Amz-Signature=") && signed.contains("ID%2F") && !signed.contains("s3cr3t"),
            "{signed}"
        );
        assert!(of(Some("ID:s3cr3t:session")).contains("X-Amz-Security-Token=session"));
    }
}
