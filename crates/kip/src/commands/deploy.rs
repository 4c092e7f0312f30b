//! `kip deploy`: a manifest's text to the server, then the wait until its versions serve.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kip_api::wire::{Deployment, DeploymentMade, VersionMade};
use kip_control::{FunctionInfo, InstanceInfo, VersionStatus};
use kip_host::clock::boot_millis;
use kip_spec::{FunctionName, Millis, Problem, code};
use serde::Serialize;

use crate::arguments::Deploy;
use crate::client::Client;
use crate::output::Output;
use crate::problem::warning;

/// Between two lines of progress, milliseconds.
const PROGRESS: u64 = 2_000;
/// Looks in a row at which nothing of a failed version was left, before it is said what became of the one before.
const SETTLED: u32 = 4;
/// What is kept may take so much longer than a start may, milliseconds.
const LATE: u64 = 10_000;

pub(crate) async fn run(client: &Client, options: &Deploy, output: Output) -> anyhow::Result<()> {
    let how = Deploying { only: options.only.clone(), start: options.wait };
    let made = deploy(client, &options.path, how, output).await?;
    let states = if options.no_wait { BTreeMap::new() } else { wait(client, &made, options.wait, output).await? };
    let gateway = client.about().await?.gateway;
    let outcomes: Vec<Outcome<'_>> = made
        .deployed
        .iter()
        .map(|made| Outcome { made, state: states.get(&made.function).copied().unwrap_or(Reached::Deployed) })
        .collect();
    output.result(&outcomes, |outcomes| outcomes.iter().map(|outcome| outcome.line(gateway)).collect())
}

/// What is asked of a deployment beside its manifest.
#[derive(Debug, Default)]
pub(crate) struct Deploying {
    /// Only these functions of it; all if empty.
    pub(crate) only: Vec<String>,
    /// Start an instance of each, though no request waits.
    pub(crate) start: bool,
}

/// How far a version has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reached {
    /// An instance of it is ready.
    Ready,
    /// It serves, and its first request starts an instance.
    NotStarted,
    /// It is stored; nobody waited for more.
    Deployed,
}

/// A deployed version with how far it has come.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    #[serde(flatten)]
    made: &'a VersionMade,
    state: Reached,
}

impl Outcome<'_> {
    fn line(&self, gateway: SocketAddr) -> String {
        let VersionMade { function, version, job } = self.made;
        if *job {
            return format!("{function} {version} is a job: kip jobs show {function}\n");
        }
        let state = match self.state {
            Reached::Ready => "serves",
            Reached::NotStarted => "is deployed, not started: its first request starts it",
            Reached::Deployed => "is deployed",
        };
        format!("{function} {version} {state}  http://{gateway}/f/{function}/\n")
    }
}

/// Sends a manifest to the server.
pub(crate) async fn deploy(
    client: &Client,
    path: &Path,
    Deploying { only, start }: Deploying,
    output: Output,
) -> anyhow::Result<DeploymentMade> {
    let (file, directory) = manifest_file(path)?;
    let deployment = Deployment {
        text: read_text(&file)?,
        file: file.display().to_string(),
        directory: directory.to_string_lossy().into_owned(),
        only,
        start,
    };
    let made: DeploymentMade = client.post("/api/v1/deployments", &deployment).await?;
    made.warnings.iter().for_each(|one| output.remark(&warning(one)));
    Ok(made)
}

/// The manifest that a path means, and the absolute folder it is in.
pub(crate) fn manifest_file(path: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let unreadable = |message: String| Problem::new(code::MANIFEST_UNREADABLE, message);
    let file = if path.is_dir() {
        let names = ["kip.yaml", "kip.yml"];
        names.iter().map(|name| path.join(name)).find(|file| file.is_file()).ok_or_else(|| {
            unreadable(format!("there is no kip.yaml in {}", path.display()))
                .hint("name the folder of a kip.yaml, or the file itself")
        })?
    } else if path.is_file() {
        path.to_owned()
    } else {
        return Err(unreadable(format!("there is no file or folder {}", path.display())).into());
    };
    let absolute = std::path::absolute(&file)?;
    let directory = absolute.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
    Ok((file, directory))
}

fn read_text(file: &Path) -> anyhow::Result<String> {
    let unreadable = |cause: String| {
        Problem::new(code::MANIFEST_UNREADABLE, format!("{} cannot be read", file.display())).cause(cause)
    };
    let length = std::fs::metadata(file).map_err(|error| unreadable(error.to_string()))?.len();
    if length > kip_manifest::LARGEST as u64 {
        let message =
            format!("{} has {length} bytes; a manifest has at most {}", file.display(), kip_manifest::LARGEST);
        return Err(Problem::new(code::MANIFEST_TOO_LARGE, message)
            .hint("is it the right file? split a manifest that has grown this large")
            .into());
    }
    Ok(std::fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?)
}

/// Waits until each new version serves, and until what it keeps is ready; the first that fails is the error. `start`: an instance
/// was asked for.
pub(crate) async fn wait(
    client: &Client,
    deployment: &DeploymentMade,
    start: bool,
    output: Output,
) -> anyhow::Result<BTreeMap<FunctionName, Reached>> {
    let mut states = BTreeMap::new();
    for made in &deployment.deployed {
        let of_it = |warning: &Problem| warning.message.starts_with(&format!("`{}`:", made.function));
        let displaces = deployment.warnings.iter().any(|warning| warning.code == code::DISPLACES && of_it(warning));
        let state = match made.job {
            true => Reached::Deployed,
            false => wait_for(client, made, (start, displaces), output).await?,
        };
        states.insert(made.function.clone(), state);
    }
    Ok(states)
}

async fn wait_for(
    client: &Client,
    made: &VersionMade,
    (start, displaces): (bool, bool),
    output: Output,
) -> anyhow::Result<Reached> {
    let since = boot_millis();
    let (mut progress, mut settled) = (Progress::default(), 0);
    loop {
        let info: FunctionInfo = client.get(&format!("/api/v1/functions/{}", made.function)).await?;
        let outcome = info.outcomes.iter().find(|(version, _)| *version == made.version).map(|(_, outcome)| outcome);
        match outcome {
            // Forgotten means that many later deployments were made meanwhile.
            Some(VersionStatus::Serving) | None if info.version != made.version => return Ok(Reached::Deployed),
            Some(VersionStatus::Serving) | None => {
                let wanted = info.spec.instances.min.max(u32::from(start));
                let ready = info.hot + info.asleep;
                if ready >= wanted {
                    return Ok(if ready > 0 { Reached::Ready } else { Reached::NotStarted });
                }
                let waited = boot_millis().saturating_sub(since);
                let late = waited > info.spec.timeouts.startup.0.saturating_add(LATE);
                if info.failed_starts > 0 || late {
                    return Err(not_started(made, &info, ready, wanted, waited).into());
                }
                progress.show(made, &format!("{ready} of {wanted} ready, {} starting", info.starting), waited, output);
            }
            Some(VersionStatus::Failed { code, why, detail }) => {
                // What it displaced comes back when nothing of it is left: then it is known what to say.
                let instances: Vec<InstanceInfo> = client.get("/api/v1/instances").await?;
                let mut own = instances.iter().filter(|instance| instance.function == made.function);
                let left = own.any(|instance| instance.version == made.version);
                let nothing = info.hot + info.asleep + info.starting == 0;
                settled = if left { 0 } else { settled + 1 };
                if nothing && settled < SETTLED && boot_millis().saturating_sub(since) < LATE {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                let serving = &info.version;
                let before = match () {
                    () if info.hot + info.asleep > 0 && displaces => {
                        format!("{serving} had stopped for it and serves again")
                    }
                    () if info.hot + info.asleep > 0 => format!("{serving} goes on serving"),
                    () if info.starting > 0 => format!("{serving} had stopped for it and starts again"),
                    () => format!("{serving} serves, and its next request starts an instance"),
                };
                let message = format!("{} {} did not become ready: {why}; {before}", made.function, made.version);
                let hint =
                    format!("`kip logs {}` shows what the program wrote; fix it and deploy again", made.function);
                return Err(Problem::new(*code, message).cause(detail).hint(hint).into());
            }
            Some(VersionStatus::Replaced { by }) => {
                let message = format!("{by} of {} was deployed before {} served", made.function, made.version);
                return Err(Problem::new(code::VERSION_REPLACED, message)
                    .hint(format!("`kip inspect {}` shows which version serves", made.function))
                    .into());
            }
            Some(VersionStatus::Candidate) => {
                progress.show(made, "is starting", boot_millis().saturating_sub(since), output);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// It is deployed, but what it keeps does not start.
fn not_started(made: &VersionMade, info: &FunctionInfo, ready: u32, wanted: u32, waited: u64) -> Problem {
    let (function, version) = (&made.function, made.version);
    let (code, cause) = match (&info.last_failure, info.last_failure_code) {
        (Some(failure), Some(code)) => (code, failure.clone()),
        _ => (code::NEVER_READY, format!("{ready} of {wanted} instances are ready after {}", Millis(waited))),
    };
    let message =
        format!("{function} {version} is deployed, but does not start: {ready} of {wanted} instances are ready");
    Problem::new(code, message)
        .cause(cause)
        .hint(format!("`kip why {function}` says what it waits for, `kip logs {function}` what the program wrote"))
}

/// Lines that say how far it is, not too many.
#[derive(Debug, Default)]
struct Progress {
    shown: Option<u64>,
}

impl Progress {
    fn show(&mut self, made: &VersionMade, text: &str, waited: u64, output: Output) {
        if waited < PROGRESS || self.shown.is_some_and(|at| waited < at.saturating_add(PROGRESS)) {
            return;
        }
        self.shown = Some(waited);
        output.remark(&format!("{} {}: {text} ({} s)", made.function, made.version, waited / 1_000));
    }
}
