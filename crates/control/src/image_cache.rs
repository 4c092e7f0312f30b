//! What the image cache knows and decides: declared images are kept and fetched before they are needed, and what this server pulled goes again when nothing
//! needs it and a limit says so. An image that a stored version needs is never removed, nor is one that somebody else brought.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kip_engine::ImageInfo;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::options::ImageOptions;

/// The file in the data directory.
const FILE: &str = "images.json";
/// The largest file that is read, bytes.
const LARGEST: u64 = 4 << 20;

/// An image that this server pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PulledImage {
    /// When a version last needed it, or when it was pulled; milliseconds since 1970.
    pub(crate) used: i64,
}

/// What this server pulled, by the name that it was pulled by.
#[derive(Debug, Default)]
pub(crate) struct ImageCache {
    file: Option<PathBuf>,
    pub(crate) pulled: Mutex<BTreeMap<String, PulledImage>>,
    /// Images of deployments that are under way: by name, since when in boot time. Their versions are not stored yet.
    pub(crate) deployed: Mutex<BTreeMap<String, u64>>,
    pub(crate) changed: Notify,
}

impl ImageCache {
    /// The one of a data directory; without one, nothing outlives the server.
    pub(crate) fn open(data: Option<&Path>) -> Self {
        let file = data.map(|data| data.join(FILE));
        let bytes = file.as_ref().and_then(|file| kip_host::directory::read_regular(file, LARGEST).ok());
        let pulled = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { file, pulled: Mutex::new(pulled), deployed: Mutex::default(), changed: Notify::new() }
    }

    /// A deployment is about to need an image.
    pub(crate) fn deploys(&self, name: &str) {
        self.deployed.lock().insert(name.to_owned(), kip_host::clock::boot_millis());
    }

    /// Images may have been pulled.
    pub(crate) fn look(&self) {
        self.changed.notify_one();
    }

    /// Writes down what was pulled.
    pub(crate) fn write(&self) {
        let Some(file) = &self.file else { return };
        let text = serde_json::to_vec(&*self.pulled.lock()).unwrap_or_default();
        if let Err(error) = kip_host::directory::write_unsynced(file, &text) {
            tracing::warn!(%error, "which images were pulled is not written down; they stay");
        }
    }
}

/// Whether a name means an image with these names: engines write more of a name than people do.
pub(crate) fn is_named(image: &ImageInfo, name: &str) -> bool {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let whole =
        if name.contains('@') || name[last..].contains(':') { name.to_owned() } else { format!("{name}:latest") };
    let ends = |tag: &String| *tag == whole || tag.strip_suffix(&whole).is_some_and(|rest| rest.ends_with('/'));
    image.id == name || image.id.strip_prefix("sha256:") == Some(name) || image.tags.iter().any(ends)
}

/// The names of pulled images that go: nothing needs them, nobody declared them, and a limit says so.
pub(crate) fn excess(
    pulled: &BTreeMap<String, PulledImage>,
    images: &[ImageInfo],
    needed: &BTreeSet<String>,
    options: &ImageOptions,
    now: i64,
) -> Vec<String> {
    let of = |name: &str| images.iter().find(|image| is_named(image, name));
    let kept = |image: &ImageInfo| options.keep.iter().any(|name| is_named(image, name));
    let mut free: Vec<(i64, &String, u64)> = Vec::new();
    let mut total = 0u64;
    for (name, one) in pulled {
        let Some(image) = of(name) else { continue };
        total = total.saturating_add(image.size);
        if !needed.contains(&image.id) && !kept(image) {
            free.push((one.used, name, image.size));
        }
    }
    free.sort_unstable();
    let mut gone = Vec::new();
    for (used, name, size) in free {
        let idle = u64::try_from(now.saturating_sub(used)).unwrap_or(0);
        let too_old = options.age.is_some_and(|age| idle > age.0);
        let too_much = options.size.is_some_and(|most| total > most);
        if too_old || too_much {
            total = total.saturating_sub(size);
            gone.push(name.clone());
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use kip_spec::Millis;

    use super::*;

    fn image(id: &str, tag: &str, size: u64) -> ImageInfo {
        ImageInfo { id: format!("sha256:{id}"), tags: vec![tag.to_owned()], size, created: 0 }
    }

    #[test]
    fn names_are_found_in_the_words_of_both_engines() {
        let ubuntu = image("ab", "docker.io/library/ubuntu:latest", 1);
        assert!(is_named(&ubuntu, "ubuntu") && is_named(&ubuntu, "library/ubuntu:latest") && is_named(&ubuntu, "ab"));
        assert!(!is_named(&ubuntu, "buntu") && !is_named(&ubuntu, "ubuntu:24.04"));
        let local = image("cd", "127.0.0.1:5000/team/ocr:3", 1);
        assert!(is_named(&local, "127.0.0.1:5000/team/ocr:3") && !is_named(&local, "127.0.0.1:5000/team/ocr"));
    }

    #[test]
    fn only_what_was_pulled_and_nothing_needs_goes_the_longest_unused_first() {
        let images = [
            image("a", "a:1", 10),
            image("b", "b:1", 10),
            image("c", "c:1", 10),
            image("d", "d:1", 10),
            image("e", "e:1", 99),
        ];
        let pulled: BTreeMap<String, PulledImage> = [("a:1", 1_000), ("b:1", 3_000), ("c:1", 2_000), ("d:1", 0)]
            .map(|(name, used)| (name.to_owned(), PulledImage { used }))
            .into();
        let needed = BTreeSet::from(["sha256:a".to_owned()]);
        let keep = vec!["d:1".to_owned()];
        let gone = |size, age: Option<u64>| {
            let options = ImageOptions { keep: keep.clone(), size, age: age.map(Millis) };
            excess(&pulled, &images, &needed, &options, 4_000)
        };
        assert!(gone(None, None).is_empty(), "without a limit nothing goes");
        assert_eq!(gone(Some(30), None), ["c:1"]);
        assert_eq!(gone(Some(0), None), ["c:1", "b:1"], "what is needed, kept or not ours stays");
        assert_eq!(gone(None, Some(1_500)), ["c:1"]);
        assert!(gone(Some(40), None).is_empty());
    }
}
