//! What instances wrote: the last lines, and on request whatever follows, of instances to come too.

use std::collections::BTreeMap;
use std::io::SeekFrom;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use kip_spec::{FunctionName, InstanceId};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::error::ApiResult;
use crate::extract::{Path, Query};
use crate::wire::LogLine;
use crate::{Api, bad_request};

/// Between two looks for more.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How far back from the end of a file the last lines are looked for.
const TAIL: u64 = 256 << 10;
/// How much of a file is read at once.
const PIECE: u64 = 64 << 10;

#[derive(Debug, Deserialize)]
pub(crate) struct Which {
    #[serde(default)]
    follow: bool,
    tail: Option<usize>,
    instance: Option<String>,
}

pub(crate) async fn logs(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(which): Query<Which>,
) -> ApiResult<Response> {
    let only = match &which.instance {
        Some(id) => Some(id.parse::<InstanceId>().map_err(|error| bad_request(error.to_string()))?),
        None => None,
    };
    // A removed function's logs stay readable while they are kept; a name that never was has none.
    let folder = api.control.body().log_folder(&name);
    if name.parse::<FunctionName>().is_err() || !folder.is_dir() {
        api.control.require(&name)?;
    }
    let reader = Reader {
        folder,
        only,
        files: BTreeMap::new(),
        tail: which.tail.unwrap_or(200),
        follow: which.follow,
        first: true,
    };
    let lines = futures_util::stream::unfold(reader, |mut reader| async move {
        let bytes = reader.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), reader))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// Reads all log files of a function side by side.
struct Reader {
    folder: PathBuf,
    only: Option<InstanceId>,
    files: BTreeMap<(InstanceId, String), Position>,
    tail: usize,
    follow: bool,
    first: bool,
}

/// How far a file has been read, and the beginning of a line whose end is not there yet.
#[derive(Default)]
struct Position {
    offset: u64,
    begun: Vec<u8>,
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.first && !self.follow {
                return None;
            }
            let mut lines = self.read_all().await;
            if self.first {
                let too_many = lines.len().saturating_sub(self.tail);
                lines.drain(..too_many);
                self.first = false;
            }
            if lines.is_empty() && self.follow {
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
            let text = lines
                .iter()
                .filter_map(|line| serde_json::to_string(line).ok())
                .fold(String::new(), |all, line| all + &line + "\n");
            return Some(text.into());
        }
    }

    async fn read_all(&mut self) -> Vec<LogLine> {
        let mut lines = Vec::new();
        for (instance, stream, path) in self.list().await {
            let Ok(mut file) = tokio::fs::File::open(&path).await else { continue };
            let position = self.files.entry((instance, stream.clone())).or_default();
            if self.first {
                let length = file.metadata().await.map_or(0, |metadata| metadata.len());
                position.offset = length.saturating_sub(TAIL);
            }
            loop {
                let mut piece = Vec::new();
                if file.seek(SeekFrom::Start(position.offset)).await.is_err() {
                    break;
                }
                let read = (&mut file).take(PIECE).read_to_end(&mut piece).await.unwrap_or(0);
                position.offset += read as u64;
                position.begun.extend_from_slice(&piece);
                while let Some(end) = position.begun.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = position.begun.drain(..=end).collect();
                    lines.push(log_line(instance, &stream, &line[..end]));
                }
                if read == 0 {
                    break;
                }
            }
            let unfinished = !self.follow || position.begun.len() as u64 > PIECE;
            if unfinished && !position.begun.is_empty() {
                lines.push(log_line(instance, &stream, &std::mem::take(&mut position.begun)));
            }
        }
        lines
    }

    async fn list(&self) -> Vec<(InstanceId, String, PathBuf)> {
        let mut found = Vec::new();
        let Ok(mut entries) = tokio::fs::read_dir(&self.folder).await else { return found };
        while let Ok(Some(entry)) = entries.next_entry().await {
            let path = entry.path();
            let id = path.file_stem().and_then(|stem| stem.to_str()?.parse::<InstanceId>().ok());
            let stream = path.extension().and_then(|extension| extension.to_str()).map(str::to_owned);
            if let (Some(id), Some(stream)) = (id, stream)
                && self.only.is_none_or(|only| only == id)
            {
                found.push((id, stream, path));
            }
        }
        found.sort();
        found
    }
}

fn log_line(instance: InstanceId, stream: &str, bytes: &[u8]) -> LogLine {
    let line = String::from_utf8_lossy(bytes).trim_end_matches('\r').to_owned();
    LogLine { instance: instance.to_string(), stream: stream.to_owned(), line }
}
