//! `kip deploy`: a manifest's text to the server, then the wait until its versions serve.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kip_spec::{Problem, code};
use kip_wire::{DeployedVersion, Deployment, DeploymentResult, FunctionInfo, VersionStatus};

use crate::arguments::Deploy;
use crate::client::Client;
use crate::output::Output;
use crate::problem::warning;

pub(crate) async fn run(client: &Client, options: &Deploy, output: Output) -> anyhow::Result<()> {
    let made = deploy(client, &options.path, options.only.clone(), output).await?;
    if !options.no_wait {
        wait(client, &made.deployed).await?;
    }
    let gateway = client.about().await?.gateway;
    output.result(&made.deployed, |deployed| {
        let line = |made: &DeployedVersion| {
            if made.job {
                return format!("{0} {1} is a job: kip jobs show {0}\n", made.function, made.version);
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
    output: Output,
) -> anyhow::Result<DeploymentResult> {
    let (file, directory) = manifest_file(path)?;
    let deployment = Deployment {
        text: read_text(&file)?,
        file: file.display().to_string(),
        directory: directory.to_string_lossy().into_owned(),
        only,
    };
    let made: DeploymentResult = client.post("/api/v1/deployments", &deployment).await?;
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

/// Waits until each new version serves; the first that fails is the error.
pub(crate) async fn wait(client: &Client, deployed: &[DeployedVersion]) -> anyhow::Result<()> {
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
                Some(VersionStatus::Candidate) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
    Ok(())
}
