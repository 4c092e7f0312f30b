//! Folders of functions at a deployment: captured where that is possible, else said to be live.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kip_snapshot::{CaptureError, Captured, FileChange, FileChangeKind, Request};
use kip_spec::function::{FunctionSpec, Program};
use kip_spec::snapshot::{Code, CodeMode};
use kip_spec::{Problem, code};
use kip_wire::FieldChange;

use crate::Control;
use crate::error::Error;
use crate::shared::Shared;

/// Programs that change an environment in the folder before they run what they are told to, and the folder that it is in.
const MANAGERS: [(&str, &str); 8] = [
    ("uv", ".venv"),
    ("poetry", ".venv"),
    ("pdm", ".venv"),
    ("pipenv", ".venv"),
    ("hatch", ".venv"),
    ("npm", "node_modules"),
    ("pnpm", "node_modules"),
    ("yarn", "node_modules"),
];
/// How often snapshots are looked through.
const BETWEEN_COLLECTIONS: Duration = Duration::from_secs(3_600);
/// Files of a change that are named; of the rest, how many.
const MOST_NAMED: usize = 20;

/// What came of capturing the folder of a function.
#[derive(Debug, Default)]
pub struct Capture {
    /// What the deployer is to know.
    pub told: Vec<Problem>,
    /// The files that differ from those of the version that serves.
    pub files: Vec<FieldChange>,
}

impl Control {
    /// Captures the folder of a function, as far as its declaration asks for that. `beside` are files
    /// of the folder that make no version, such as the manifest. Without `keep`, nothing is written: it is only compared with what serves.
    ///
    /// # Errors
    /// Where a capture was asked for and is not possible.
    pub async fn capture(&self, spec: &mut FunctionSpec, beside: &[PathBuf], keep: bool) -> Result<Capture, Problem> {
        let Program::Command { argv, dir } = &spec.program else { return Ok(Capture::default()) };
        let name = spec.name.to_string();
        if spec.code.mode == CodeMode::Live || spec.job.is_some() {
            return Ok(Capture::default());
        }
        let before = self.cell(&name).map(|cell| cell.serving().spec.code.clone());
        let options = &self.shared.options.code;
        let folder = dir.clone();
        let below = |path: &PathBuf| path.strip_prefix(&folder).ok()?.to_str().map(str::to_owned);
        let request = Request {
            writable: spec.code.writable.clone(),
            beside: beside.iter().filter_map(below).collect(),
            without: vec![options.data.clone()],
            // Instances of a server of root are somebody else, and read less than it does.
            open: spec.owns_directory || !options.reads_more,
            moved: !options.mounts,
            limits: options.limits,
            keep,
            before: before.as_ref().and_then(|before| Some(before.snapshot.as_ref()?.digest.clone())),
            folder,
        };
        let (snapshots, words) = (options.snapshots.clone(), argv.clone());
        let nowhere = !options.mounts && !options.inside;
        let may_make = spec.owns_directory;
        let done = kip_host::tasks::blocking("capture code", move || {
            make_writable(&request, may_make)?;
            let why = match nowhere {
                true => Some(
                    "it gives the server no mount namespaces, and functions are other users than their server"
                        .to_owned(),
                ),
                false => bound(&request, &words),
            };
            if let Some(why) = why {
                return Err(CaptureError::Bound { path: request.folder, why });
            }
            snapshots.capture(&request)
        })
        .await;
        let Some(done) = done else { return Err(Problem::from(Error::ShuttingDown)) };
        let strict = spec.code.mode == CodeMode::Snapshot;
        let done = done.and_then(|captured| match captured.skipped.is_empty() || !strict {
            true => Ok(captured),
            false => Err(CaptureError::Partial { folder: dir.clone(), paths: captured.skipped }),
        });
        match done {
            Ok(captured) => {
                let mut told = Vec::new();
                told.extend(self.protected(&name, before.as_ref()));
                told.extend(shared(&name, &captured));
                spec.code.snapshot = Some(captured.snapshot);
                Ok(Capture { told, files: fields(captured.changes) })
            }
            Err(error) if spec.code.mode == CodeMode::Auto && !matches!(error, CaptureError::Writable { .. }) => {
                let message = format!(
                    "`{name}`: its versions do not hold its code; an instance runs what is in the folder when it starts"
                );
                let told = Problem::new(code::CODE_LIVE, message).cause(cause(&error)).hint(way_out(&error));
                Ok(Capture { told: vec![told], files: Vec::new() })
            }
            Err(error) => {
                let kind = match &error {
                    CaptureError::TooLarge { .. } | CaptureError::TooManyLive { .. } => code::CODE_TOO_LARGE,
                    _ => code::CODE_NOT_CAPTURED,
                };
                Err(Problem::new(kind, format!("the code of `{name}` cannot be captured"))
                    .cause(cause(&error))
                    .hint(way_out(&error)))
            }
        }
    }

    /// Its instances could write the folder before, and cannot any more.
    fn protected(&self, name: &str, before: Option<&Code>) -> Option<Problem> {
        before.filter(|before| before.snapshot.is_none())?;
        let message = format!(
            "`{name}`: from this version on, instances see the files as they are at this deployment and cannot write into the folder"
        );
        Some(Problem::new(code::CODE_NOT_WRITABLE, message).hint(
            "name the folders that they write under `writable:`, such as `writable: [outputs]`; with `code: live` they run in the folder itself",
        ))
    }

    /// The files in which two declarations differ, as fields. Reads lists of files: not for a runtime's thread.
    pub(crate) fn changed_files(&self, from: &Code, to: &Code) -> Vec<FieldChange> {
        let (Some(before), Some(after)) = (&from.snapshot, &to.snapshot) else { return Vec::new() };
        let snapshots = &self.shared.options.code.snapshots;
        snapshots.difference(&before.digest, &after.digest).map(fields).unwrap_or_default()
    }
}

/// Files that changed, as fields of a declaration.
fn fields(changes: Vec<FileChange>) -> Vec<FieldChange> {
    let more = changes.len().saturating_sub(MOST_NAMED);
    let named = changes.into_iter().take(MOST_NAMED).map(|change| {
        let word = |word: &str| Some(word.to_owned());
        let (before, after) = match change.kind {
            FileChangeKind::Added => (None, word("there")),
            FileChangeKind::Removed => (word("there"), None),
            FileChangeKind::Changed => (word("as it was"), word("changed")),
        };
        FieldChange { field: format!("code: {}", change.path), before, after }
    });
    let rest = (more > 0).then(|| FieldChange {
        field: "code: more files".to_owned(),
        before: None,
        after: Some(more.to_string()),
    });
    named.chain(rest).collect()
}

impl Shared {
    /// Removes snapshots that no revision has named for a day, for as long as the server runs.
    pub(crate) async fn collect_snapshots(&self) {
        loop {
            self.collect_unnamed().await;
            tokio::time::sleep(BETWEEN_COLLECTIONS).await;
        }
    }

    async fn collect_unnamed(&self) {
        let used = match self.changes.read().codes().await {
            Ok(used) => used.into_iter().collect(),
            Err(error) => return tracing::warn!(%error, "snapshots of code are not looked through"),
        };
        let snapshots = self.options.code.snapshots.clone();
        match kip_host::tasks::blocking("remove snapshots", move || snapshots.collect(&used)).await {
            Some(Ok(0)) | None => {}
            Some(Ok(removed)) => tracing::info!(removed, "snapshots of code that no version names are removed"),
            Some(Err(error)) => tracing::warn!(%error, "snapshots of code that no version names are not removed"),
        }
    }
}

/// What versions share although the folder is captured, and what could not be read.
fn shared(name: &str, captured: &Captured) -> Option<Problem> {
    let mut said = Vec::new();
    if !captured.snapshot.live.is_empty() {
        said.push(format!("{} stay live: all versions share them", captured.snapshot.live.join(", ")));
    }
    if !captured.skipped.is_empty() {
        let named: Vec<&str> = captured.skipped.iter().take(MOST_NAMED).map(String::as_str).collect();
        said.push(format!("{} cannot be read and are left out", named.join(", ")));
    }
    if said.is_empty() {
        return None;
    }
    let message = format!("`{name}`: a part of its folder is no part of the version");
    let hint = "versions.md, \"The code of a version\", says what is captured";
    Some(Problem::new(code::CODE_LIVE, message).cause(said.join("; ")).hint(hint))
}

/// What instances write has to be there before it can be shown to them. Links are not followed: an instance may have made them.
fn make_writable(request: &Request, may_make: bool) -> Result<(), CaptureError> {
    for path in &request.writable {
        let done = match may_make && request.keep {
            true => kip_snapshot::make_inside(&request.folder, path),
            false => kip_snapshot::open_inside(&request.folder, path),
        };
        let refused = |error: std::io::Error| CaptureError::Writable {
            folder: request.folder.clone(),
            path: path.clone(),
            why: error.to_string(),
        };
        match done {
            Ok(_) => {}
            // It will be made at the deployment.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && may_make => {}
            Err(error) => return Err(refused(error)),
        }
    }
    Ok(())
}

/// What keeps a folder from being captured: an environment that its start would change, or, where the snapshot is run where it is kept,
/// files that know their path.
fn bound(request: &Request, words: &[String]) -> Option<String> {
    let first = Path::new(words.first()?).file_name()?.to_str()?;
    if let Some((manager, environment)) = MANAGERS.iter().find(|(manager, _)| *manager == first)
        && !request.folder.join(environment).exists()
    {
        return Some(format!(
            "{manager} would make {environment} in the folder at the first start, and nothing can be written there"
        ));
    }
    if !request.moved {
        return None;
    }
    if MANAGERS.iter().any(|(manager, _)| *manager == first) {
        return Some(format!("{first} works in the folder that its project is in"));
    }
    let marks = ["pyvenv.cfg", "bin/activate"];
    let environments = std::fs::read_dir(&request.folder).into_iter().flatten().flatten();
    let mut environments = environments.filter(|entry| marks.iter().any(|mark| entry.path().join(mark).exists()));
    let environment = environments.next()?.file_name().to_string_lossy().into_owned();
    Some(format!("the environment {environment} knows its own path"))
}

fn cause(error: &CaptureError) -> String {
    use std::error::Error as _;
    /// Longer paths tell nobody more.
    const LONGEST: usize = 400;
    let text = match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    if text.chars().count() <= LONGEST { text } else { text.chars().take(LONGEST).chain(['…']).collect() }
}

/// What to do about it.
fn way_out(error: &CaptureError) -> String {
    let live = "`code: live` says that it is meant so";
    match error {
        CaptureError::TooLarge { .. } => format!(
            "leave out what the program does not need by lines in .kipignore, name what it writes under `writable:`, or raise functions.code_size and functions.code_files; {live}"
        ),
        CaptureError::TooManyLive { .. } => {
            format!("leave out what the program does not need by lines in .kipignore; {live}")
        }
        CaptureError::Changing { .. } => {
            format!(
                "name what a running program writes under `writable:`, or leave it out by a line in .kipignore; {live}"
            )
        }
        CaptureError::NotOwn { .. } => {
            format!("put the program into a folder of its own and name that under `dir:`; {live}")
        }
        CaptureError::Bound { .. } => {
            format!(
                "make the environment first (`uv sync`, `npm ci`), or start the program by its path, such as `.venv/bin/python`; {live}"
            )
        }
        CaptureError::Writable { .. } => {
            "name folders below `dir` that are there, or that an administrator's key may make".to_owned()
        }
        CaptureError::Partial { .. } => format!(
            "leave them out by lines in .kipignore, or make them readable; without `code: snapshot` they are left out with a warning; {live}"
        ),
        CaptureError::Io { .. } => format!("make it readable for the server; {live}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_change_its_environment_is_bound_to_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let request = |moved| Request {
            folder: folder.path().to_owned(),
            writable: Vec::new(),
            beside: Vec::new(),
            without: Vec::new(),
            open: true,
            moved,
            limits: kip_snapshot::Limits::default(),
            keep: true,
            before: None,
        };
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for command in ["uv run app.py", "/usr/bin/npm start"] {
            assert!(bound(&request(false), &words(command)).is_some(), "{command}");
        }
        assert_eq!(bound(&request(false), &words("python app.py")), None);
        std::fs::create_dir_all(folder.path().join(".venv/bin")).unwrap();
        std::fs::write(folder.path().join(".venv/pyvenv.cfg"), "").unwrap();
        assert_eq!(bound(&request(false), &words("uv run app.py")), None, "its environment is there");
        for command in ["uv run app.py", ".venv/bin/python app.py"] {
            assert!(bound(&request(true), &words(command)).is_some(), "{command}");
        }
    }

    #[test]
    fn what_is_written_has_to_be_there_and_inside() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let request = |path: &str| Request {
            folder: folder.path().to_owned(),
            writable: vec![path.to_owned()],
            beside: Vec::new(),
            without: Vec::new(),
            open: true,
            moved: false,
            limits: kip_snapshot::Limits::default(),
            keep: true,
            before: None,
        };
        assert!(make_writable(&request("a/b"), false).is_err());
        assert!(make_writable(&request("a/b"), true).is_ok() && folder.path().join("a/b").is_dir());
        assert!(make_writable(&request("a"), false).is_ok());
        std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).unwrap();
        for link in ["link", "link/x"] {
            assert!(make_writable(&request(link), false).is_err() && make_writable(&request(link), true).is_err());
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
