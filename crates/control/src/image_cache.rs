//! The image cache: declared images are kept and fetched before they are needed, and what this server pulled goes again when nothing
//! needs it and a limit says so. An image that a stored version needs is never removed, nor is one that somebody else brought.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kip_engine::{EngineError, ImageInfo};
use kip_spec::function::{FunctionSpec, Program};
use kip_spec::{Millis, Problem, code};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::control::Control;
use crate::shared::Shared;

/// The file in the data directory.
const FILE: &str = "images.json";
/// The largest file that is read, bytes.
const LARGEST: u64 = 4 << 20;
/// How long a deployment may take from its pull to its stored version, milliseconds.
const DEPLOYMENT: u64 = 600_000;
/// How often the images are looked through, beside each pull.
const BETWEEN: Duration = Duration::from_secs(600);

/// What is kept, and how much.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// Images that are kept, and pulled before anybody asks for them.
    pub keep: Vec<String>,
    /// Bytes of images that this server pulled, at most; those used longest ago go first.
    pub size: Option<u64>,
    /// How long an image that this server pulled stays after its last use.
    pub age: Option<Millis>,
}

/// An image that this server pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct PulledImage {
    /// When a version last needed it, or when it was pulled; milliseconds since 1970.
    used: i64,
}

/// What this server pulled, by the name that it was pulled by.
#[derive(Debug, Default)]
pub(crate) struct ImageCache {
    file: Option<PathBuf>,
    pulled: Mutex<BTreeMap<String, PulledImage>>,
    /// Images of deployments that are under way: by name, since when in boot time. Their versions are not stored yet.
    deployed: Mutex<BTreeMap<String, u64>>,
    changed: Notify,
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

    fn write(&self) {
        let Some(file) = &self.file else { return };
        let text = serde_json::to_vec(&*self.pulled.lock()).unwrap_or_default();
        if let Err(error) = kip_host::directory::write_unsynced(file, &text) {
            tracing::warn!(%error, "which images were pulled is not written down; they stay");
        }
    }
}

/// Whether a name means an image with these names: engines write more of a name than people do.
fn is_named(image: &ImageInfo, name: &str) -> bool {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let whole = if name.contains('@') || name[last..].contains(':') { name.to_owned() } else { format!("{name}:latest") };
    let ends = |tag: &String| *tag == whole || tag.strip_suffix(&whole).is_some_and(|rest| rest.ends_with('/'));
    image.id == name || image.id.strip_prefix("sha256:") == Some(name) || image.tags.iter().any(ends)
}

/// The names of pulled images that go: nothing needs them, nobody declared them, and a limit says so.
fn excess(
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

impl Shared {
    /// Keeps the images as declared, for as long as the server runs.
    pub(crate) async fn keep_images(&self) {
        loop {
            self.prefetch().await;
            self.collect_images().await;
            let _ = tokio::time::timeout(BETWEEN, self.images.changed.notified()).await;
        }
    }

    /// Pulls declared images that the engine lacks.
    async fn prefetch(&self) {
        let Some(engine) = self.bodies.engine().filter(|_| !self.options.images.keep.is_empty()) else { return };
        let Ok(images) = engine.images().await else { return };
        for name in &self.options.images.keep {
            if images.iter().any(|image| is_named(image, name)) {
                continue;
            }
            match engine.pull(name).await {
                Ok(()) => tracing::info!(image = name, "a declared image is there now"),
                Err(error) => tracing::warn!(image = name, %error, "a declared image is not there (images.keep)"),
            }
        }
    }

    /// Removes what was pulled, is not needed and is too much or too old.
    async fn collect_images(&self) {
        let Some(engine) = self.bodies.engine() else { return };
        let now = kip_host::clock::wall_millis();
        let fresh = engine.take_pulled();
        let mut changed = !fresh.is_empty();
        self.images.pulled.lock().extend(fresh.into_iter().map(|name| (name, PulledImage { used: now })));
        if self.images.pulled.lock().is_empty() {
            return;
        }
        // In this order: what is not under way any more is stored, or never will be.
        let under_way: Vec<String> = self.images.deployed.lock().keys().cloned().collect();
        let (Ok(images), Ok(mut needed)) = (engine.images().await, self.needed_images().await) else { return };
        {
            let boot = kip_host::clock::boot_millis();
            let stored =
                |name: &String| images.iter().any(|image| needed.contains(&image.id) && is_named(image, name));
            self.images.deployed.lock().retain(|name, since| boot.saturating_sub(*since) < DEPLOYMENT && !stored(name));
        }
        let of_deployments = images.iter().filter(|image| under_way.iter().any(|name| is_named(image, name)));
        needed.extend(of_deployments.map(|image| image.id.clone()).collect::<Vec<_>>());
        {
            let mut pulled = self.images.pulled.lock();
            let before = pulled.len();
            // What others removed is no business of this server any more.
            pulled.retain(|name, _| images.iter().any(|image| is_named(image, name)));
            changed |= pulled.len() != before;
            for (name, one) in pulled.iter_mut() {
                if images.iter().any(|image| needed.contains(&image.id) && is_named(image, name)) {
                    one.used = now;
                    changed = true;
                }
            }
        }
        let gone = excess(&self.images.pulled.lock(), &images, &needed, &self.options.images, now);
        for name in gone {
            match engine.remove(&name).await {
                Ok(()) | Err(EngineError::Missing(_)) => {
                    tracing::info!(image = name, "an image that nothing needs is removed (images.size, images.age)");
                    self.images.pulled.lock().remove(&name);
                    changed = true;
                }
                Err(error) => tracing::warn!(image = name, %error, "an image that nothing needs stays"),
            }
        }
        if changed {
            self.images.write();
        }
    }

    /// The ids of the images that stored versions need.
    async fn needed_images(&self) -> Result<BTreeSet<String>, kip_store::Error> {
        Ok(self.changes.read().images().await?.into_iter().collect())
    }

    /// Brings the image of a version to the pools in which it may be, before anything of it starts there.
    pub(crate) async fn bring_image(&self, spec: &FunctionSpec) {
        let Program::Image(container) = &spec.program else { return };
        if spec.job.is_some() {
            return;
        }
        let barred = self.barred(spec);
        let lost = self.with_placer(|placer| placer.lost().clone());
        let there = self.bodies.engines().filter(|(pool, _)| barred >> pool & 1 == 0 && !lost.contains(pool));
        let bringing = there.map(|(pool, engine)| async move {
            if let Err(error) = engine.ensure(container).await {
                let pool = self.pool_name(pool).unwrap_or_default();
                tracing::warn!(function = %spec.name, pool, %error, "the image is not in the pool yet; a start there brings it");
            }
        });
        futures_util::future::join_all(bringing).await;
    }
}

/// What is known of an image beside what its engine says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageUse {
    /// A stored version needs it.
    pub needed: bool,
    /// It is declared (`images.keep`).
    pub kept: bool,
    /// This server pulled it.
    pub pulled: bool,
}

impl Control {
    /// What is known of images, in their order.
    pub async fn image_uses(&self, images: &[ImageInfo]) -> Vec<ImageUse> {
        let shared = &self.shared;
        let needed = shared.needed_images().await.unwrap_or_default();
        let fresh = shared.bodies.engine().map(|engine| engine.take_pulled()).unwrap_or_default();
        let now = kip_host::clock::wall_millis();
        let mut pulled = shared.images.pulled.lock();
        pulled.extend(fresh.into_iter().map(|name| (name, PulledImage { used: now })));
        let of = |image: &ImageInfo| ImageUse {
            needed: needed.contains(&image.id),
            kept: shared.options.images.keep.iter().any(|name| is_named(image, name)),
            pulled: pulled.keys().any(|name| is_named(image, name)),
        };
        images.iter().map(of).collect()
    }

    /// Images may have been pulled: they are looked through.
    pub fn images_changed(&self) {
        self.shared.images.look();
    }

    /// Removes an image, or the name of it that is given. The last name of one that a version needs stays.
    ///
    /// # Errors
    /// `KW-4061`, or what the engine says.
    pub async fn remove_image(&self, name: &str) -> Result<(), Problem> {
        let engine = self.engine()?;
        let refused = |error: EngineError| crate::containers::engine_problem(&error);
        let images = engine.images().await.map_err(refused)?;
        let image = images.iter().find(|image| is_named(image, name));
        if let Some(image) = image.filter(|image| image.tags.len() < 2) {
            let needed = self.shared.needed_images().await.unwrap_or_default();
            if needed.contains(&image.id) {
                let message = format!("the image {name} is needed by a version of a function");
                return Err(Problem::new(code::IMAGE_NEEDED, message)
                    .hint("`kip image ls` names the functions; remove them (`kip rm`) or their old versions first"));
            }
        }
        engine.remove(name).await.map_err(refused)
    }
}

#[cfg(test)]
mod tests {
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
        let images =
            [image("a", "a:1", 10), image("b", "b:1", 10), image("c", "c:1", 10), image("d", "d:1", 10), image("e", "e:1", 99)];
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
