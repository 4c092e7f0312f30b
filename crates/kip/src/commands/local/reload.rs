//! A change of a file of the project is a new version.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kip_serverless::DeclaredFunction;

use super::{Session, code_of, deploy};
use crate::commands::files::ProjectFile;
use crate::output::Output;
use crate::problem;

/// Between two looks at the files.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What the watched files and folders were like.
type WatchedFiles = BTreeMap<PathBuf, Option<String>>;

/// Deploys again whenever a file changes. An error is shown, and the next change is another attempt.
pub(super) async fn changes(
    session: &Session<'_>,
    file: &ProjectFile,
    functions: Vec<DeclaredFunction>,
    output: Output,
) -> anyhow::Result<()> {
    let mut functions = functions;
    let mut known = look(watched(file, &functions)).await;
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let now = look(watched(file, &functions)).await;
        if now == known {
            continue;
        }
        // An editor may write several files: the last of them counts.
        tokio::time::sleep(LOOK_AGAIN / 2).await;
        known = look(watched(file, &functions)).await;
        match deploy(session, output).await {
            Ok((_, deployed)) => {
                functions = deployed;
                let names: Vec<&str> = functions.iter().map(|function| function.name.as_str()).collect();
                output.remark(&format!("reloaded {}", names.join(", ")));
            }
            Err(error) => problem::show(&error, output),
        }
    }
}

/// The file of the project, its variables, and the code of its functions.
fn watched(file: &ProjectFile, functions: &[DeclaredFunction]) -> Vec<PathBuf> {
    let own = [PathBuf::from(&file.file), file.directory.join(".env")];
    own.into_iter().chain(functions.iter().filter_map(code_of).map(PathBuf::from)).collect()
}

async fn look(paths: Vec<PathBuf>) -> WatchedFiles {
    let look = move || {
        let seen = paths.into_iter().map(|path| {
            let seen = match path.is_dir() {
                true => kip_snapshot::fingerprint(&path, &[]).ok(),
                false => std::fs::read(&path).ok().map(|bytes| kip_fc::code_checksum(&bytes)),
            };
            (path, seen)
        });
        seen.collect()
    };
    kip_host::tasks::blocking("look for changes", look).await.unwrap_or_default()
}
