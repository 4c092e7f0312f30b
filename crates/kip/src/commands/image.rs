//! `kip image`: the images of the container engine that a server uses.

use std::time::Duration;

use kip_spec::people;
use kip_wire::{ImageInfo, ImageList, ImageName, PullInfo};
use serde::Serialize;

use crate::arguments::{Image, ImageArgument};
use crate::client::Client;
use crate::output::{Output, table};
use crate::progress::Progress;

/// Characters of an id that are shown.
const SHORT: usize = 12;
/// Between two looks at a pull.
const EVERY: Duration = Duration::from_millis(500);

pub(crate) async fn run(client: &Client, command: &Image, output: Output) -> anyhow::Result<()> {
    match command {
        Image::Ls => list(client, output).await,
        Image::Du => usage(client, output).await,
        Image::Pull(named) => {
            let (patient, name) = (client.pulling(), name(named));
            let pulled: ImageName = pulling(client, patient.post("/api/v1/images", &name), output).await?;
            output.result(&pulled, |pulled| format!("Pulled    {}\n", pulled.image))
        }
        Image::Rm(named) => {
            let removed: ImageName = client.post("/api/v1/images/remove", &name(named)).await?;
            output.result(&removed, |removed| format!("Removed   {}\n", removed.image))
        }
    }
}

fn name(named: &ImageArgument) -> ImageName {
    ImageName { image: named.image.clone() }
}

/// Waits for a call that may pull images, and shows how far the pulls have come.
pub(crate) async fn pulling<T>(
    client: &Client,
    call: impl Future<Output = anyhow::Result<T>>,
    output: Output,
) -> anyhow::Result<T> {
    let mut call = std::pin::pin!(call);
    let mut progress = Progress::new(output);
    loop {
        tokio::select! {
            done = &mut call => return done,
            () = tokio::time::sleep(EVERY) => {
                // A server without an engine, or a key that may not look, shows no pulls.
                let pulls: Vec<PullInfo> = client.get("/api/v1/images/pulls").await.unwrap_or_default();
                if let Some(pull) = pulls.first() {
                    progress.say(&described(pull));
                }
            }
        }
    }
}

fn described(pull: &PullInfo) -> String {
    match pull.total {
        0 => format!("pulling {}", pull.image),
        total => format!("pulling {}: {} of {}", pull.image, people::size(pull.received), people::size(total)),
    }
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let list: ImageList = client.get("/api/v1/images").await?;
    output.result(&list, |list| {
        let cells = |image: &ImageInfo| {
            let id = image.id.trim_start_matches("sha256:");
            vec![
                if image.tags.is_empty() { "-".to_owned() } else { image.tags.join(", ") },
                id.chars().take(SHORT).collect(),
                people::size(image.size),
                if image.functions.is_empty() { "-".to_owned() } else { image.functions.join(", ") },
                why_it_stays(image).to_owned(),
            ]
        };
        table(&["IMAGE", "ID", "#SIZE", "FUNCTIONS", "STAYS"], &list.images.iter().map(cells).collect::<Vec<_>>())
    })
}

/// Why an image is not removed by itself.
fn why_it_stays(image: &ImageInfo) -> &'static str {
    match (image.needed, image.kept, image.pulled) {
        (true, _, _) => "a version needs it",
        (false, true, _) => "declared",
        (false, false, true) => "until a limit",
        (false, false, false) => "not ours",
    }
}

/// Bytes and number of images by why they stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct ImageRoom {
    why: &'static str,
    images: usize,
    bytes: u64,
}

async fn usage(client: &Client, output: Output) -> anyhow::Result<()> {
    let list: ImageList = client.get("/api/v1/images").await?;
    let room = room_of(&list.images);
    output.result(&room, |room| {
        let cells = |room: &ImageRoom| vec![room.why.to_owned(), room.images.to_string(), people::size(room.bytes)];
        table(&["STAYS", "#IMAGES", "#SIZE"], &room.iter().map(cells).collect::<Vec<_>>())
    })
}

fn room_of(images: &[ImageInfo]) -> Vec<ImageRoom> {
    let mut rooms: Vec<ImageRoom> = Vec::new();
    for image in images {
        let why = why_it_stays(image);
        match rooms.iter_mut().find(|room| room.why == why) {
            Some(room) => (room.images, room.bytes) = (room.images + 1, room.bytes.saturating_add(image.size)),
            None => rooms.push(ImageRoom { why, images: 1, bytes: image.size }),
        }
    }
    rooms.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.why.cmp(b.why)));
    rooms
}
