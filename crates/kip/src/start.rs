//! A server in the background: found if there is one, started if not.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use kip_spec::{Problem, code};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::client::{Client, administrator_key, found};
use crate::problem::Problems;
use crate::serve::Ready;

/// How long a server may take to be ready.
const LIMIT: Duration = Duration::from_secs(30);

/// The log of a server in the background, in its data directory.
pub(crate) const LOG_FILE: &str = "server.log";

/// Where a server that is started should listen.
#[derive(Debug, Default, Clone)]
pub(crate) struct Listen {
    pub(crate) gateway: Option<SocketAddr>,
    pub(crate) api: Option<String>,
}

/// The server of a data directory, if one answers.
pub(crate) async fn running(data: &Path) -> Option<Client> {
    let found = found(data)?;
    let key = administrator_key(data).ok()?;
    let client = Client::new(&found.api, &key);
    client.status().await.ok().filter(|status| status.about.pid == found.pid)?;
    Some(client)
}

/// Starts a server in the background and waits until it is ready. Its log goes to `server.log` in the data directory.
pub(crate) async fn background(data: &Path, listen: &Listen) -> anyhow::Result<Client> {
    kip_host::directory::create_private(data).map_err(|error| {
        Problem::new(code::DATA_DIRECTORY_UNUSABLE, format!("cannot make the data directory {}", data.display()))
            .cause(error.to_string())
    })?;
    let log_file = data.join(LOG_FILE);
    let log = kip_host::log_file::open(&log_file)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["serve", "-o", "json", "--data-dir"]).arg(data);
    if let Some(address) = listen.gateway {
        command.args(["--gateway", &address.to_string()]);
    }
    // Our own --api may come from the environment, where it names a server to talk to.
    command.env_remove(kip_host::environment::API);
    if let Some(address) = &listen.api {
        command.args(["--api", address]);
    }
    // Its own process group: Ctrl-C in the terminal is not for it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).process_group(0);
    let mut child = tokio::process::Command::from(command).spawn()?;
    let Some(stdout) = child.stdout.take() else { anyhow::bail!("the server has no standard output") };
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    let ready = tokio::time::timeout(LIMIT, stdout.read_line(&mut line)).await;
    if let (Ok(Ok(_)), Ok(ready)) = (&ready, serde_json::from_str::<Ready>(&line)) {
        return Ok(Client::new(&ready.api, &ready.key));
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), stdout.read_to_string(&mut line)).await;
    if let Ok(errors) = serde_json::from_str::<kip_wire::Errors>(&line) {
        return Err(Problems(if errors.errors.is_empty() { vec![errors.error] } else { errors.errors }).into());
    }
    let text = std::fs::read_to_string(&log_file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(8)..].join("\n");
    Err(Problem::new(code::SERVER_DID_NOT_START, "the server did not start")
        .cause(last)
        .hint(format!("its log is {}; `kip serve` runs it in the foreground", log_file.display()))
        .into())
}

/// The running server, or a new one in the background. Also says whether it is new.
pub(crate) async fn ensure(data: &Path, listen: &Listen) -> anyhow::Result<(Client, bool)> {
    if let Some(client) = running(data).await {
        return Ok((client, false));
    }
    match background(data, listen).await {
        Ok(client) => Ok((client, true)),
        Err(error) => {
            // Somebody else may have started it in the same moment.
            let taken = crate::problem::of(&error).iter().any(|problem| problem.code == code::DATA_DIRECTORY_IN_USE);
            for _ in 0..if taken { 50 } else { 0 } {
                if let Some(client) = running(data).await {
                    return Ok((client, false));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error)
        }
    }
}
