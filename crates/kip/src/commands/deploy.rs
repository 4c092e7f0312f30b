//! `kip deploy`: a manifest's text to the server, then the wait until its versions serve.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kip_api::wire::{Deployment, DeploymentMade, VersionMade};
use kip_control::{FunctionInfo, VersionStatus};
use kip_manifest::Needs;
use kip_spec::{Problem, code};

use crate::arguments::Deploy;
use crate::client::Client;
use crate::output::Output;
use crate::problem::{Problems, warning};
use crate::progress::{Progress, interruptible};

pub(crate) async fn run(client: &Client, options: &Deploy, output: Output) -> anyhow::Result<()> {
    let made = deploy(client, &options.path, options.only.clone(), false, output).await?;
    if !options.no_wait {
        wait(client, &made.deployed, output).await?;
    }
    let gateway = client.about().await?.gateway;
    output.result(&made.deployed, |deployed| {
        let line = |made: &VersionMade| {
            if made.job {
                return format!("{0} {1} is a job: kip job show {0}\n", made.function, made.version);
            }
            let state = if options.no_wait { "" } else { " serves" };
            format!("{} {}{state}  http://{gateway}/f/{}/\n", made.function, made.version, made.function)
        };
        deployed.iter().map(line).collect()
    })
}

/// Sends a manifest to the server.
pub(crate) async fn deploy(
    client: &Client,
    path: &Path,
    only: Vec<String>,
    keep_unchanged: bool,
    output: Output,
) -> anyhow::Result<DeploymentMade> {
    let (file, directory) = manifest_file(path)?;
    let text = read_text(&file)?;
    let needs = kip_manifest::needs(&text);
    let deployment = Deployment {
        file: file.display().to_string(),
        variables: variables(&needs),
        env_files: env_files(&needs, &directory)?,
        directory: directory.to_string_lossy().into_owned(),
        text,
        only,
        once: false,
        keep_unchanged,
    };
    let made: DeploymentMade = client.post("/api/v1/deployments", &deployment).await?;
    made.warnings.iter().for_each(|one| output.remark(&warning(one)));
    Ok(made)
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
    Ok(std::fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?)
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

/// Waits until each new version serves; the first that fails is the error.
pub(crate) async fn wait(client: &Client, deployed: &[VersionMade], output: Output) -> anyhow::Result<()> {
    let names: Vec<&str> = deployed.iter().map(|made| made.function.as_str()).collect();
    let goes_on = || format!("the deployment goes on; `kip why {}` shows how it stands", names.join("`, `kip why "));
    interruptible(output, goes_on, wait_for(client, deployed, output)).await
}

async fn wait_for(client: &Client, deployed: &[VersionMade], output: Output) -> anyhow::Result<()> {
    let mut progress = Progress::new(output);
    for made in deployed {
        loop {
            let info: FunctionInfo = client.get(&format!("/api/v1/functions/{}", made.function)).await?;
            let outcome =
                info.outcomes.iter().find(|(version, _)| *version == made.version).map(|(_, outcome)| outcome);
            match outcome {
                // Forgotten means that many later deployments were made meanwhile.
                Some(VersionStatus::Serving) | None => break,
                Some(VersionStatus::Failed { code, why, detail }) => {
                    let message = format!(
                        "{} {} did not become ready: {why}; {} goes on serving",
                        made.function, made.version, info.version
                    );
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
                    let waits = info.waits.iter().find(|wait| wait.version == made.version);
                    let why = waits.map_or_else(|| "its first instance starts".to_owned(), |wait| wait.why.clone());
                    progress.say(&format!("{} {}: {why}", made.function, made.version));
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
    Ok(())
}
