//! Images from one engine to another, through this server: for named engines that lack an image which no registry has.

use bollard::query_parameters::ImportImageOptionsBuilder;
use futures_util::StreamExt as _;

use super::Shared;
use super::connect::Engine;
use super::failure::failure;
use super::images;
use crate::containers::EngineError;

impl Shared {
    /// Brings an image from the engine of this host, if that has it. Answers whether it has.
    pub(super) async fn copy_image(&self, engine: &Engine, image: &str) -> Result<bool, EngineError> {
        let Some(donor) = &self.donor else { return Ok(false) };
        let Ok(from) = donor.engine().await else { return Ok(false) };
        if images::inspect(&from.docker, image).await?.is_none() {
            return Ok(false);
        }
        tracing::info!(image, "the image is copied to the engine of a pool");
        let refused = |reason: String| EngineError::Pull { image: image.to_owned(), reason };
        let (docker, name) = (from.docker.clone(), image.to_owned());
        let (send, receive) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(8);
        kip_host::tasks::spawn("export image", async move {
            let mut pieces = std::pin::pin!(docker.export_image(&name));
            while let Some(piece) = pieces.next().await {
                let failed = piece.is_err();
                let piece = piece.map_err(|error| std::io::Error::other(failure(&error).to_string()));
                if send.send(piece).await.is_err() || failed {
                    return;
                }
            }
        });
        let pieces = futures_util::stream::unfold(receive, |mut receive| async move {
            let piece = receive.recv().await?;
            Some((piece, receive))
        });
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let mut said = std::pin::pin!(engine.docker.import_image_stream(options, pieces, None));
        while let Some(line) = said.next().await {
            let line = line.map_err(|error| refused(failure(&error).to_string()))?;
            if let Some(error) = line.error_detail.and_then(|detail| detail.message) {
                return Err(refused(error));
            }
        }
        Ok(true)
    }
}
