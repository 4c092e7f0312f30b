//! The shares of a deployment: folders that `--mount` names, and where the files of each are.

use kip_serverless::DeclaredFunction;
use kip_serverless::plan::{FieldChange, Step};
use kip_spec::share::ShareName;
use kip_spec::{Problem, code};
use kip_wire::{ShareInfo, ShareSettings};

use super::compare::FunctionPlan;
use super::project_file::ProjectFile;
use super::project_mounts::{ProjectMount, mounts, of_function};
use crate::arguments::MountMap;
use crate::client::{Client, segment};
use crate::output::Output;

/// A share whose folder is another one now.
#[derive(Debug)]
pub(super) struct Moved {
    share: ShareName,
    from: String,
    to: String,
}

fn path_of(share: &ShareName) -> String {
    format!("/api/v1/shares/{}", segment(&share.to_string()))
}

/// A share of the server.
pub(crate) async fn share_of(client: &Client, mount: &ProjectMount) -> anyhow::Result<ShareInfo> {
    client.get(&format!("/api/v1/shares/{}", segment(&mount.share.to_string()))).await
}

/// The folders that a command line names, where they are others than now.
pub(super) async fn moved(client: &Client, file: &ProjectFile, maps: &[MountMap]) -> anyhow::Result<Vec<Moved>> {
    let mut moved = Vec::new();
    for map in maps {
        let share = named(file, &map.share)?;
        let before: ShareInfo = client.get(&path_of(&share)).await?;
        let to = map.folder.display().to_string();
        if before.folder != to {
            moved.push(Moved { share, from: before.folder, to });
        }
    }
    Ok(moved)
}

/// Sets them.
pub(super) async fn set(client: &Client, moved: &[Moved]) -> anyhow::Result<()> {
    for Moved { share, to, .. } in moved {
        let _set: ShareInfo = client.put(&path_of(share), &ShareSettings { folder: to.clone() }).await?;
    }
    Ok(())
}

/// The folders as they were before.
pub(super) async fn put_back(client: &Client, moved: &[Moved]) -> anyhow::Result<()> {
    for Moved { share, from, .. } in moved {
        let _set: ShareInfo = client.put(&path_of(share), &ShareSettings { folder: from.clone() }).await?;
    }
    Ok(())
}

/// The share that a word means: a whole name, or the server or bucket of a mount of the file.
fn named(file: &ProjectFile, word: &str) -> anyhow::Result<ShareName> {
    if let Ok(share) = word.parse() {
        return Ok(share);
    }
    let all = mounts(file)?;
    let found = all.iter().find(|mount| mount.share.server() == word);
    let whole = found.and_then(|mount| mount.share.upwards().last()).map(|(share, _)| share);
    whole.ok_or_else(|| {
        let mut known: Vec<String> = all.iter().map(|mount| mount.share.to_string()).collect();
        known.dedup();
        let problem = Problem::new(code::SHARE_UNKNOWN, format!("{} mounts no share of the name `{word}`", file.file));
        let hint =
            if known.is_empty() { "it has no shares".to_owned() } else { format!("its shares: {}", known.join(", ")) };
        problem.hint(hint).into()
    })
}

/// A function that mounts a share whose folder is another one is deployed again.
pub(super) fn note(
    plan: &mut FunctionPlan,
    file: &ProjectFile,
    function: &DeclaredFunction,
    moved: &[Moved],
) -> anyhow::Result<()> {
    for mount in of_function(function, &file.directory)? {
        let Some(moved) = moved.iter().find(|moved| mount.share.upwards().any(|(above, _)| above == moved.share))
        else {
            continue;
        };
        let change = FieldChange {
            path: format!("folder of {} at {}", moved.share, mount.target),
            from: moved.from.as_str().into(),
            to: moved.to.as_str().into(),
        };
        match &mut plan.configuration {
            Step::Change(changes) => changes.push(change),
            step if step.is_nothing() => *step = Step::Change(vec![change]),
            _ => {}
        }
    }
    Ok(())
}

/// Says where the files of shares are, when a function is deployed with them for the first time or its mounts changed.
pub(super) async fn show(
    client: &Client,
    file: &ProjectFile,
    function: &DeclaredFunction,
    plan: &FunctionPlan,
    output: Output,
) -> anyhow::Result<()> {
    let is_news = match &plan.configuration {
        Step::Create => true,
        Step::Change(changes) => changes.iter().any(|change| {
            ["nasConfig", "ossMountConfig", "folder of"].iter().any(|begin| change.path.starts_with(begin))
        }),
        Step::Keep | Step::Remove => false,
    };
    if !is_news {
        return Ok(());
    }
    for mount in of_function(function, &file.directory)? {
        let there = share_of(client, &mount).await?;
        let how = if mount.read_only { " (read-only)" } else { "" };
        output.remark(&format!("{} sees {}{how}: {} of {}", function.name, mount.target, there.folder, mount.share));
    }
    Ok(())
}
