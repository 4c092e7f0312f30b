//! `kip up --watch`: a change of a file is a deployment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kip_spec::function::Program;
use kip_wire::{DeployedVersion, FunctionInfo};

use crate::client::{Client, segment};
use crate::commands::deploy;
use crate::output::Output;
use crate::problem;

/// Between two looks at the files.
const LOOK_AGAIN: Duration = Duration::from_millis(700);

/// The folders that are watched, with what instances write in them, and what they were like.
type Folders = BTreeMap<PathBuf, (BTreeSet<String>, Option<String>)>;

/// Deploys again whenever a file changes. An error is shown, and the next change is another attempt.
pub(crate) async fn changes(
    client: &Client,
    path: &Path,
    deployed: &[DeployedVersion],
    output: Output,
) -> anyhow::Result<()> {
    let (_, directory) = deploy::manifest_file(path)?;
    let mut known = look(folders(client, &directory, deployed).await).await;
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let now = look(known.clone()).await;
        if now == known {
            continue;
        }
        // An editor may write several files: the last of them counts.
        let settled = async {
            let mut last = now;
            loop {
                tokio::time::sleep(LOOK_AGAIN / 2).await;
                let next = look(last.clone()).await;
                if next == last {
                    return last;
                }
                last = next;
            }
        };
        known = settled.await;
        let how = deploy::Deploying { keep_unchanged: true, ..deploy::Deploying::default() };
        let made = async {
            let made = deploy::deploy(client, path, how, output).await?;
            deploy::wait(client, &made, false, output).await?;
            anyhow::Ok(made)
        };
        match made.await {
            Ok(made) => {
                for one in &made.deployed {
                    output.say(&format!("Deployed  {} {}", one.function, one.label));
                }
                let all: Vec<DeployedVersion> = made.deployed.into_iter().chain(made.unchanged).collect();
                // What changed meanwhile is seen by the next look.
                for (folder, (writable, _)) in folders(client, &directory, &all).await {
                    known.entry(folder).or_insert((writable, None));
                }
            }
            Err(error) => problem::show(&error, output),
        }
    }
}

/// The manifest's folder, and those that functions run in.
async fn folders(client: &Client, directory: &Path, deployed: &[DeployedVersion]) -> Folders {
    let mut folders = Folders::from([(directory.to_owned(), (BTreeSet::new(), None))]);
    for made in deployed {
        let path = format!("/api/v1/functions/{}", segment(made.function.as_str()));
        let Ok(info) = client.get::<FunctionInfo>(&path).await else { continue };
        if let Program::Command { dir, .. } = &info.spec.program {
            let (writable, _) = folders.entry(dir.clone()).or_default();
            writable.extend(info.spec.code.writable.iter().cloned());
        }
    }
    folders
}

async fn look(folders: Folders) -> Folders {
    let look = move || {
        let seen = folders.into_iter().map(|(folder, (writable, _))| {
            let listed: Vec<String> = writable.iter().cloned().collect();
            let fingerprint = kip_snapshot::fingerprint(&folder, &listed).ok();
            (folder, (writable, fingerprint))
        });
        seen.collect()
    };
    kip_host::tasks::blocking("look for changes", look).await.unwrap_or_default()
}
