//! Images of the engine: what one is, which one a reference means, pulls with their progress.

use std::collections::HashMap;
use std::sync::Arc;

use bollard::Docker;
use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder};
use futures_util::StreamExt as _;
use kip_spec::container::{Container, PullPolicy};
use parking_lot::Mutex;

use super::credentials;
use super::failure::{Failure, failure};
use crate::containers::{EngineError, ImageInfo, PullProgress};

/// What a container is made from an image with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageFacts {
    /// `sha256:…`.
    pub(super) id: String,
    /// As a registry knows it.
    pub(super) digests: Vec<String>,
    /// `NAME=value`.
    pub(super) env: Vec<String>,
    /// The one TCP port that it exposes.
    pub(super) port: Option<u16>,
    /// Its architecture, where it says so.
    pub(super) architecture: Option<String>,
    /// Whether it says what to run.
    pub(super) has_command: bool,
}

impl From<ImageInspect> for ImageFacts {
    fn from(found: ImageInspect) -> Self {
        let config = found.config.unwrap_or_default();
        let ports: Vec<u16> = config
            .exposed_ports
            .iter()
            .flatten()
            .filter_map(|port| port.strip_suffix("/tcp").unwrap_or(port).parse().ok())
            .collect();
        let any = |words: &Option<Vec<String>>| words.as_ref().is_some_and(|words| !words.is_empty());
        let id = found.id.unwrap_or_default();
        Self {
            // Podman leaves the algorithm out.
            id: if id.starts_with("sha256:") { id } else { format!("sha256:{id}") },
            digests: found.repo_digests.unwrap_or_default(),
            has_command: any(&config.cmd) || any(&config.entrypoint),
            env: config.env.unwrap_or_default(),
            port: match ports.as_slice() {
                [only] => Some(*only),
                _ => None,
            },
            architecture: found.architecture.filter(|name| !name.is_empty()),
        }
    }
}

/// The pulls that are under way, by image.
pub(super) type Pulls = Arc<PullTable>;

/// Pulls under way, and those that went well and were not asked for yet.
#[derive(Debug, Default)]
pub(super) struct PullTable {
    pub(super) under_way: Mutex<HashMap<String, PullProgress>>,
    pub(super) done: Mutex<Vec<String>>,
}

/// Further tries of a list that failed.
const MOST_LISTS: usize = 3;
/// Pulls that went well and that nobody asked for, at most.
const MOST_DONE: usize = 1_000;

/// What an image is; none if the engine does not have it.
pub(super) async fn inspect(docker: &Docker, image: &str) -> Result<Option<ImageFacts>, EngineError> {
    match docker.inspect_image(image).await {
        Ok(found) => Ok(Some(found.into())),
        Err(error) => match failure(&error) {
            Failure::Missing(_) => Ok(None),
            other => Err(EngineError::Refused(other.to_string())),
        },
    }
}

/// The image that a reference means now, pulled if the policy asks for it.
pub(super) async fn find(
    docker: &Docker,
    pulls: &Pulls,
    container: &Container,
    wanted: &str,
) -> Result<ImageFacts, EngineError> {
    let image = &container.image;
    let here = match container.pull {
        PullPolicy::Always => None,
        PullPolicy::Missing | PullPolicy::Never => inspect(docker, image).await?,
    };
    let facts = match here {
        Some(facts) => facts,
        None if container.pull == PullPolicy::Never => return Err(EngineError::Missing(image.clone())),
        None => {
            pull(docker, pulls, image).await?;
            inspect(docker, image).await?.ok_or_else(|| EngineError::Missing(image.clone()))?
        }
    };
    check_platform(image, &facts, wanted)?;
    Ok(facts)
}

/// An image for another architecture would end at once with words that nobody understands.
pub(super) fn check_platform(image: &str, facts: &ImageFacts, wanted: &str) -> Result<(), EngineError> {
    match &facts.architecture {
        Some(found) if !wanted.is_empty() && found != wanted => {
            Err(EngineError::Platform { image: image.to_owned(), found: found.clone(), wanted: wanted.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Pulls an image. Others can look at its progress.
pub(super) async fn pull(docker: &Docker, pulls: &Pulls, image: &str) -> Result<(), EngineError> {
    let guard = PullGuard { pulls: pulls.clone(), image: image.to_owned() };
    pulls.under_way.lock().insert(image.to_owned(), PullProgress::default());
    let (name, tag) = split(image);
    let mut options = CreateImageOptionsBuilder::default().from_image(name);
    if let Some(tag) = tag {
        options = options.tag(tag);
    }
    let credentials = credentials::of(image).await;
    let mut layers: HashMap<String, (u64, u64)> = HashMap::new();
    let mut stream = std::pin::pin!(docker.create_image(Some(options.build()), None, credentials));
    while let Some(said) = stream.next().await {
        let said =
            said.map_err(|error| EngineError::Pull { image: image.to_owned(), reason: failure(&error).to_string() })?;
        if note(&mut layers, &said) {
            let received = layers.values().map(|(received, _)| received).sum();
            let total = layers.values().map(|(_, total)| total).sum();
            guard.pulls.under_way.lock().insert(image.to_owned(), PullProgress { received, total });
        }
    }
    let mut done = pulls.done.lock();
    if done.len() < MOST_DONE && !done.iter().any(|name| name == image) {
        done.push(image.to_owned());
    }
    Ok(())
}

/// The pull is no longer under way, however it ended.
struct PullGuard {
    pulls: Pulls,
    image: String,
}

impl Drop for PullGuard {
    fn drop(&mut self) {
        self.pulls.under_way.lock().remove(&self.image);
    }
}

/// Notes what the engine says of a layer. Answers whether that is a change.
fn note(layers: &mut HashMap<String, (u64, u64)>, said: &CreateImageInfo) -> bool {
    let (Some(layer), Some(status)) = (&said.id, &said.status) else { return false };
    let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    let detail = said.progress_detail.as_ref();
    match status.as_str() {
        "Downloading" => {
            let Some(total) = number(detail.and_then(|detail| detail.total)) else { return false };
            let received = number(detail.and_then(|detail| detail.current)).unwrap_or(0);
            layers.insert(layer.clone(), (received.min(total), total));
            true
        }
        "Download complete" | "Pull complete" => match layers.get_mut(layer) {
            Some((received, total)) => {
                *received = *total;
                true
            }
            None => false,
        },
        _ => false,
    }
}

/// A reference without its tag, and the tag: `latest` if it names none, since the engine would pull all of them. One with a digest
/// stays whole.
pub(super) fn split(image: &str) -> (&str, Option<&str>) {
    if image.contains('@') {
        return (image, None);
    }
    let last = image.rfind('/').map_or(0, |slash| slash + 1);
    match image[last..].rfind(':') {
        Some(colon) => (&image[..last + colon], Some(&image[last + colon + 1..])),
        None => (image, Some("latest")),
    }
}

/// The digest of an image in the registry that a reference names, among all that the engine knows.
pub(super) fn digest_of(image: &str, digests: &[String]) -> Option<String> {
    let name = split(image).0;
    let name = name.split('@').next().unwrap_or(name);
    // `ubuntu` is `docker.io/library/ubuntu` in the words of some engines.
    let same = |repository: &str| {
        repository == name
            || repository.strip_prefix("docker.io/").is_some_and(|rest| rest == name)
            || repository.strip_prefix("docker.io/library/").is_some_and(|rest| rest == name)
    };
    digests.iter().find(|digest| digest.split('@').next().is_some_and(same)).cloned()
}

/// The images that have a name.
pub(super) async fn list(docker: &Docker) -> Result<Vec<ImageInfo>, EngineError> {
    let listed = || docker.list_images(Some(ListImagesOptionsBuilder::default().build()));
    let mut all = listed().await;
    // Podman fails where one of them is removed at the same time.
    for _ in 0..MOST_LISTS {
        match &all {
            Err(error) if matches!(failure(error), Failure::Missing(_) | Failure::Refused(_)) => all = listed().await,
            _ => break,
        }
    }
    let all = all.map_err(|error| EngineError::Refused(failure(&error).to_string()))?;
    let image = |found: bollard::models::ImageSummary| ImageInfo {
        id: if found.id.starts_with("sha256:") { found.id } else { format!("sha256:{}", found.id) },
        tags: found.repo_tags.into_iter().filter(|tag| tag != "<none>:<none>").collect(),
        size: u64::try_from(found.size).unwrap_or(0),
        created: found.created,
    };
    let mut images: Vec<ImageInfo> = all.into_iter().map(image).collect();
    images.sort_by(|a, b| a.tags.cmp(&b.tags).then(a.id.cmp(&b.id)));
    Ok(images)
}

/// Removes an image, or the name of it that is given.
pub(super) async fn remove(docker: &Docker, image: &str) -> Result<(), EngineError> {
    let options = RemoveImageOptionsBuilder::default().build();
    match docker.remove_image(image, Some(options), None).await {
        Ok(_) => Ok(()),
        Err(error) => Err(match failure(&error) {
            Failure::Missing(_) => EngineError::Missing(image.to_owned()),
            Failure::Conflict(reason) => EngineError::InUse { image: image.to_owned(), reason },
            other => EngineError::Refused(other.to_string()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_split_at_the_tag() {
        for (image, expected) in [
            ("ubuntu", ("ubuntu", Some("latest"))),
            ("ubuntu:24.04", ("ubuntu", Some("24.04"))),
            ("localhost:5000/team/ocr", ("localhost:5000/team/ocr", Some("latest"))),
            ("localhost:5000/team/ocr:3", ("localhost:5000/team/ocr", Some("3"))),
            ("a/b@sha256:00", ("a/b@sha256:00", None)),
        ] {
            assert_eq!(split(image), expected, "{image}");
        }
    }

    #[test]
    fn the_digest_is_that_of_the_registry_that_was_named() {
        let digests = ["docker.io/library/ubuntu@sha256:1".to_owned(), "ghcr.io/a/b@sha256:2".to_owned()];
        assert_eq!(digest_of("ubuntu:24.04", &digests).as_deref(), Some("docker.io/library/ubuntu@sha256:1"));
        assert_eq!(digest_of("ghcr.io/a/b", &digests).as_deref(), Some("ghcr.io/a/b@sha256:2"));
        assert_eq!(digest_of("ghcr.io/a/c", &digests), None);
    }

    #[test]
    fn progress_is_the_sum_over_layers() {
        let mut layers = HashMap::new();
        let mut say = |id: &str, status: &str, current: i64, total: i64| {
            let text = format!(
                r#"{{"id":"{id}","status":"{status}","progressDetail":{{"current":{current},"total":{total}}}}}"#
            );
            note(&mut layers, &serde_json::from_str(&text).expect("progress"));
            let sum = |part: fn(&(u64, u64)) -> u64| layers.values().map(part).sum::<u64>();
            (sum(|layer| layer.0), sum(|layer| layer.1))
        };
        assert_eq!(say("a", "Pulling fs layer", 0, 0), (0, 0));
        assert_eq!(say("a", "Downloading", 10, 100), (10, 100));
        assert_eq!(say("b", "Downloading", 5, 50), (15, 150));
        assert_eq!(say("a", "Pull complete", 0, 0), (105, 150));
    }

    #[test]
    fn an_image_says_its_port_only_if_it_exposes_one() {
        let facts = |ports: &str| {
            let text = format!(r#"{{"Id":"ab","Config":{{"ExposedPorts":{ports},"Env":["A=b"],"Cmd":["x"]}}}}"#);
            ImageFacts::from(serde_json::from_str::<ImageInspect>(&text).expect("an image"))
        };
        let one = facts(r#"{"80/tcp":{}}"#);
        assert_eq!((one.id.as_str(), one.port, one.has_command), ("sha256:ab", Some(80), true));
        assert_eq!(facts(r#"{"80/tcp":{},"443/tcp":{}}"#).port, None);
        assert_eq!(facts(r#"{"53/udp":{}}"#).port, None);
    }
}
