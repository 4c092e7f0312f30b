//! The rounds of the image cache: declared images are fetched, what nothing needs is removed, and images are brought to pools.

use std::collections::BTreeSet;
use std::time::Duration;

use kip_engine::{EngineError, ImageInfo};
use kip_spec::function::{FunctionSpec, Program};
use kip_spec::{Problem, code};

use crate::control::Control;
use crate::image_cache::{PulledImage, excess, is_named};
use crate::shared::Shared;

/// How long a deployment may take from its pull to its stored version, milliseconds.
const DEPLOYMENT: u64 = 600_000;
/// How often the images are looked through, beside each pull.
const BETWEEN: Duration = Duration::from_secs(600);

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
            let stored = |name: &String| images.iter().any(|image| needed.contains(&image.id) && is_named(image, name));
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
