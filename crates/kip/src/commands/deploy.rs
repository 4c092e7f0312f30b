//! `kip deploy`: a manifest's text to the server, then the wait until its versions serve.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kip_host::clock::boot_millis;
use kip_manifest::Needs;
use kip_spec::{FunctionName, Millis, Problem, code};
use kip_wire::{DeployedVersion, Deployment, DeploymentResult, FunctionInfo, InstanceInfo, RolloutInfo, VersionStatus};
use serde::Serialize;

use crate::arguments::Deploy;
use crate::client::Client;
use crate::commands::{image, knative, versions};
use crate::output::Output;
use crate::problem::{self, Problems, warning};
use crate::progress::{Progress, interruptible};

/// Looks in a row at which nothing of a failed version was left, before it is said what became of the one before.
const SETTLED: u32 = 4;
/// What is kept may take so much longer than a start may, milliseconds.
const LATE: u64 = 10_000;

pub(crate) async fn run(client: &Client, options: &Deploy, output: Output) -> anyhow::Result<()> {
    let (only, start, no_traffic) = (options.only.clone(), options.wait, options.no_traffic);
    let how = Deploying { only, start, no_traffic, ..Deploying::default() };
    let revisions = knative::tell(&options.path, output)?;
    let made = deploy(client, &options.path, how, output).await?;
    let states = match options.no_wait || no_traffic {
        true => BTreeMap::new(),
        false => wait(client, &made, options.wait, output).await?,
    };
    for deployed in made.deployed.iter().filter(|deployed| !deployed.job) {
        let moves = |rollout: &&RolloutInfo| {
            rollout.function == deployed.function && Some(&rollout.alias) == options.alias.as_ref()
        };
        // What moves in steps is not pointed at once.
        let rolls = made.rollouts.iter().any(|rollout| moves(&rollout));
        versions::name(client, deployed, (options, rolls), output).await?;
        if let Some(revision) = revisions.get(deployed.function.as_str()) {
            versions::point(client, deployed, revision, output).await?;
        }
    }
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
    /// Leave out functions that serve with the same declaration and files already.
    pub(crate) keep_unchanged: bool,
    /// The new revisions do not serve.
    pub(crate) no_traffic: bool,
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
    made: &'a DeployedVersion,
    state: Reached,
}

impl Outcome<'_> {
    fn line(&self, gateway: SocketAddr) -> String {
        let DeployedVersion { function, label: version, job, .. } = self.made;
        if *job {
            return format!("{function} {version} is a job: kip job show {function}\n");
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
    how: Deploying,
    output: Output,
) -> anyhow::Result<DeploymentResult> {
    let made: DeploymentResult = {
        let (patient, deployment) = (client.pulling(), deployment(path, how)?);
        image::pulling(client, patient.post("/api/v1/deployments", &deployment), output).await?
    };
    made.warnings.iter().for_each(|one| output.remark(&warning(one)));
    made.rollouts.iter().for_each(|one| output.remark(&begun(one)));
    Ok(made)
}

/// A rollout that began with the deployment.
fn begun(rollout: &RolloutInfo) -> String {
    let RolloutInfo { function, alias, to, steps, .. } = rollout;
    let steps = steps.join(", ");
    format!("rollout of {function}@{alias} to {to} in steps of {steps} %: kip rollout status {function} {alias} --wait")
}

/// A manifest with all that the server needs to read it.
pub(crate) fn deployment(
    path: &Path,
    Deploying { only, start, keep_unchanged, no_traffic }: Deploying,
) -> anyhow::Result<Deployment> {
    let (file, directory) = manifest_file(path)?;
    let text = read_text(&file)?;
    let needs = kip_manifest::needs(&text);
    Ok(Deployment {
        file: file.display().to_string(),
        variables: variables(&needs),
        env_files: env_files(&needs, &directory)?,
        directory: directory.to_string_lossy().into_owned(),
        text,
        only,
        start,
        once: false,
        keep_unchanged,
        no_traffic,
    })
}

/// Reads a manifest as the server will, so that what is wrong with it is known before a server is started for it.
pub(crate) fn check(path: &Path) -> anyhow::Result<PathBuf> {
    let (file, directory) = manifest_file(path)?;
    let text = read_text(&file)?;
    let needs = kip_manifest::needs(&text);
    let (variables, env_files) = (variables(&needs), env_files(&needs, &directory)?);
    let deployer = kip_manifest::Deployer { variables: &variables, env_files: &env_files };
    let name = file.display().to_string();
    let source = kip_manifest::Source { file: &name, text: &text, directory: &directory, deployer };
    kip_manifest::read(&source).map_err(Problems)?;
    Ok(file)
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
    let text = std::fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?;
    match kip_serverless::is_knative(&text) {
        true => Ok(knative::read(file, &text)?.document()),
        false => Ok(text),
    }
}

/// The variables of our environment that a manifest names, and no others.
pub(crate) fn variables(needs: &Needs) -> BTreeMap<String, String> {
    kip_host::environment::all().filter(|(name, _)| needs.variables.contains(name)).collect()
}

/// The files of variables that a manifest names. The server names one that is missing, with its place.
pub(crate) fn env_files(needs: &Needs, directory: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for path in &needs.env_files {
        let file = directory.join(path);
        match std::fs::metadata(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Ok(metadata) if metadata.len() > kip_manifest::LARGEST as u64 => {
                let message =
                    format!("{} has {} bytes, and a file of variables 1 MiB at most", file.display(), metadata.len());
                return Err(Problem::new(code::MANIFEST_TOO_LARGE, message).into());
            }
            _ => {}
        }
        let text = std::fs::read_to_string(&file).map_err(|error| {
            Problem::new(code::MANIFEST_UNREADABLE, format!("{} cannot be read", file.display()))
                .cause(error.to_string())
        })?;
        files.insert(path.clone(), text);
    }
    Ok(files)
}

/// Waits until each new version serves, and until what it keeps is ready; those that fail are the error. `start`: an instance was
/// asked for.
pub(crate) async fn wait(
    client: &Client,
    deployment: &DeploymentResult,
    start: bool,
    output: Output,
) -> anyhow::Result<BTreeMap<FunctionName, Reached>> {
    let names: Vec<&str> = deployment.deployed.iter().map(|made| made.function.as_str()).collect();
    let goes_on = || format!("the deployment goes on; `kip why {}` shows how it stands", names.join("`, `kip why "));
    let all = async {
        let (mut states, mut failed) = (BTreeMap::new(), Vec::new());
        for made in &deployment.deployed {
            let of_it = |warning: &Problem| warning.message.starts_with(&format!("`{}`:", made.function));
            let displaces = deployment.warnings.iter().any(|warning| warning.code == code::DISPLACES && of_it(warning));
            let state = match made.job {
                true => Reached::Deployed,
                // Each failure is reported, not only the first.
                false => match wait_for(client, made, (start, displaces), output).await {
                    Ok(state) => state,
                    Err(error) if error.is::<Problem>() => {
                        failed.extend(problem::of(&error));
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            states.insert(made.function.clone(), state);
        }
        if !failed.is_empty() {
            return Err(Problems(failed).into());
        }
        Ok(states)
    };
    interruptible(output, goes_on, all).await
}

async fn wait_for(
    client: &Client,
    made: &DeployedVersion,
    (start, displaces): (bool, bool),
    output: Output,
) -> anyhow::Result<Reached> {
    let since = boot_millis();
    let (mut progress, mut settled) = (Progress::new(output), 0);
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
                let (function, version, starting) = (&made.function, &made.label, info.starting);
                progress.say(&format!("{function} {version}: {ready} of {wanted} ready, {starting} starting"));
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
                let serving = &info.label;
                let before = match () {
                    () if info.hot + info.asleep > 0 && displaces => {
                        format!("{serving} had stopped for it and serves again")
                    }
                    () if info.hot + info.asleep > 0 => format!("{serving} goes on serving"),
                    () if info.starting > 0 => format!("{serving} had stopped for it and starts again"),
                    () => format!("{serving} serves, and its next request starts an instance"),
                };
                let message = format!("{} {} did not become ready: {why}; {before}", made.function, made.label);
                let hint =
                    format!("`kip logs {}` shows what the program wrote; fix it and deploy again", made.function);
                return Err(Problem::new(*code, message).cause(detail).hint(hint).into());
            }
            Some(VersionStatus::Replaced { by }) => {
                let by = info.label_of(*by);
                let message = format!("{by} of {} was deployed before {} served", made.function, made.label);
                return Err(Problem::new(code::VERSION_REPLACED, message)
                    .hint(format!("`kip inspect {}` shows which version serves", made.function))
                    .into());
            }
            Some(VersionStatus::Candidate) => {
                let waits = info.waits.iter().find(|wait| wait.version == made.version);
                let why = waits.map_or_else(|| "its first instance starts".to_owned(), |wait| wait.why.clone());
                progress.say(&format!("{} {}: {why}", made.function, made.label));
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// It is deployed, but what it keeps does not start.
fn not_started(made: &DeployedVersion, info: &FunctionInfo, ready: u32, wanted: u32, waited: u64) -> Problem {
    let (function, version) = (&made.function, &made.label);
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
