//! One ssh for an engine on another host: it carries the socket of the engine and the ports of the instances, so that nothing of that
//! host has to be open but its ssh. The program `ssh` of this host is used, with the keys and settings of the server's user.
//!
//! The program on the other side is `cat`: it ends when its input does, so no ssh outlives its server.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

/// From the end of an ssh to the next one; twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// One that lasted so long begins with the first pause again.
const LASTED: Duration = Duration::from_secs(10);
/// How long a port may take to be forwarded.
const FORWARD_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of its last words that are kept.
const LAST_WORDS: usize = 4_096;

/// An engine that is reached by ssh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshTarget {
    /// `host` or `user@host`, or a name that the settings of ssh know.
    pub host: String,
    /// Its port, if it is not the usual one.
    pub port: Option<u16>,
    /// The socket of the engine there.
    pub socket: String,
    /// A file of settings for ssh, instead of the user's.
    pub settings: Option<PathBuf>,
    /// A folder of the server for the sockets of the connection.
    pub folder: PathBuf,
}

/// The connection, kept up for as long as this is there.
#[derive(Debug)]
pub(super) struct Tunnel {
    target: SshTarget,
    /// What the last ssh said before it ended.
    last_words: Arc<Mutex<String>>,
    task: Mutex<Option<tokio::task::AbortHandle>>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl SshTarget {
    /// The socket of this host that leads to the engine.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("engine.sock")
    }

    fn control(&self) -> PathBuf {
        self.folder.join("ssh.sock")
    }

    /// What every ssh of this connection is given.
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(settings) = &self.settings {
            words.extend(["-F".to_owned(), settings.display().to_string()]);
        }
        if let Some(port) = self.port {
            words.extend(["-p".to_owned(), port.to_string()]);
        }
        words
    }

    /// The arguments of the ssh that is kept up.
    fn keeping(&self) -> Vec<String> {
        let mut words = self.words();
        // Nobody is there to answer a question; a peer that is silent for 9 seconds is away.
        for option in [
            "BatchMode=yes".to_owned(),
            "ConnectTimeout=10".to_owned(),
            "ServerAliveInterval=3".to_owned(),
            "ServerAliveCountMax=3".to_owned(),
            "ExitOnForwardFailure=yes".to_owned(),
            "StreamLocalBindUnlink=yes".to_owned(),
            "StreamLocalBindMask=0177".to_owned(),
            "ControlMaster=yes".to_owned(),
            "ControlPersist=no".to_owned(),
            "RequestTTY=no".to_owned(),
            format!("ControlPath={}", self.control().display()),
        ] {
            words.extend(["-o".to_owned(), option]);
        }
        words.extend(["-L".to_owned(), format!("{}:{}", self.socket().display(), self.socket)]);
        words.extend(["--".to_owned(), self.host.clone(), "cat".to_owned()]);
        words
    }

    /// The arguments that ask the ssh that is kept up for one port more or less.
    fn asking(&self, what: &str, local: SocketAddr, to: &str) -> Vec<String> {
        let mut words = self.words();
        words.extend(["-S".to_owned(), self.control().display().to_string()]);
        words.extend(["-O".to_owned(), what.to_owned(), "-L".to_owned(), format!("{local}:{to}")]);
        words.extend(["--".to_owned(), self.host.clone()]);
        words
    }
}

impl Tunnel {
    /// Begins to keep it up.
    pub(super) fn open(target: SshTarget) -> io::Result<Self> {
        kip_host::directory::create_private(&target.folder)?;
        let last_words = Arc::new(Mutex::new("ssh has not connected yet".to_owned()));
        let kept = keep(target.clone(), last_words.clone());
        let task = kip_host::tasks::spawn("ssh to an engine", kept).abort_handle();
        Ok(Self { target, last_words, task: Mutex::new(Some(task)) })
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.target.socket()
    }

    /// What ssh said last, for an error.
    pub(super) fn why(&self) -> String {
        format!("ssh {}: {}", self.target.host, self.last_words.lock())
    }

    /// Lets a port of this host lead to an address of the other one.
    pub(super) async fn forward(&self, local: SocketAddr, to: &str) -> Result<(), String> {
        self.ask("forward", local, to).await
    }

    /// The port leads nowhere any more.
    pub(super) async fn cancel(&self, local: SocketAddr, to: &str) {
        let _ = self.ask("cancel", local, to).await;
    }

    async fn ask(&self, what: &str, local: SocketAddr, to: &str) -> Result<(), String> {
        let mut command = Command::new("ssh");
        command.args(self.target.asking(what, local, to)).stdin(Stdio::null()).kill_on_drop(true);
        let asked = tokio::time::timeout(FORWARD_LIMIT, command.output()).await;
        match asked {
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                Err(format!("ssh does not forward a port to {to} on {}: {said}", self.target.host))
            }
            Ok(Err(error)) => Err(format!("ssh cannot be executed: {error}")),
            Err(_) => Err(format!("ssh to {} does not answer", self.target.host)),
        }
    }
}

/// Starts one ssh after the other.
async fn keep(target: SshTarget, last_words: Arc<Mutex<String>>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = kip_host::clock::boot_millis();
        let said = once(&target).await;
        tracing::warn!(host = target.host, said, "the ssh to an engine has ended; it is started again");
        *last_words.lock() = said;
        let lasted = Duration::from_millis(kip_host::clock::boot_millis().saturating_sub(began));
        pause = if lasted >= LASTED { FIRST_PAUSE } else { pause };
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One ssh, from its start to its end. Gives its last words.
async fn once(target: &SshTarget) -> String {
    remove(&target.control());
    remove(&target.socket());
    let mut command = Command::new("ssh");
    command.args(target.keeping()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return format!("ssh cannot be executed: {error}"),
    };
    // Held until here: when the server ends, this closes, and so does the connection.
    let _input = child.stdin.take();
    let mut said = Vec::new();
    if let Some(mut errors) = child.stderr.take() {
        let mut piece = [0; 1_024];
        while let Ok(read @ 1..) = errors.read(&mut piece).await {
            said.extend_from_slice(&piece[..read]);
            let more = said.len().saturating_sub(LAST_WORDS);
            said.drain(..more);
        }
    }
    let ended = child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
    let text = String::from_utf8_lossy(&said);
    let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    last.map_or(ended, str::to_owned)
}

fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_is_asked_without_a_question_and_without_a_shell_of_ours() {
        let target = SshTarget {
            host: "kip@rack".to_owned(),
            port: Some(2222),
            socket: "/run/podman/podman.sock".to_owned(),
            settings: Some("/etc/kip/ssh".into()),
            folder: "/d/pools/rack".into(),
        };
        let words = target.keeping().join(" ");
        for part in ["-F /etc/kip/ssh", "-p 2222", "BatchMode=yes", "ControlPath=/d/pools/rack/ssh.sock"] {
            assert!(words.contains(part), "{words}");
        }
        assert!(words.ends_with("-L /d/pools/rack/engine.sock:/run/podman/podman.sock -- kip@rack cat"), "{words}");
        let asked = target.asking("forward", SocketAddr::from(([127, 0, 0, 1], 4000)), "10.88.0.2:8080").join(" ");
        assert!(asked.ends_with("-O forward -L 127.0.0.1:4000:10.88.0.2:8080 -- kip@rack"), "{asked}");
    }
}
