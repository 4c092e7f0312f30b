//! Programs that people run in a container, by the engine's own interface. The engine does not end them when nobody listens any more:
//! where the container's processes are processes of this host, they are found by the mark in their environment and ended.

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters::ResizeExecOptionsBuilder;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use kip_spec::InstanceId;
use parking_lot::Mutex as ShortMutex;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Mutex, watch};

use super::DockerBody;
use super::cgroups::Cgroups;
use super::failure::{Failure, failure};
use crate::exec::{ExecError, ExecExit, ExecOrder, ExecProcess, ExecStream, PIECE, SESSION, TerminalSize};
use crate::process::exec::{end_of_any, is_of_session, kill};

/// Between two looks at whether a program has ended, where its end cannot be watched: quick at first.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_secs(1);
/// How long the end of a session may take.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Sent to a terminal in the place of the end of the input.
const END_OF_INPUT: u8 = 4;

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

impl DockerBody {
    /// See [`crate::Body::exec`].
    pub(super) async fn run_inside(
        &self,
        instance: InstanceId,
        order: &ExecOrder,
    ) -> Result<Box<dyn ExecProcess>, ExecError> {
        let known = self.shared.roster.known(instance).map_err(|_| ExecError::Unknown(instance))?;
        let engine = self.shared.engine().await.map_err(ExecError::Failed)?;
        let program = order.argv.first().cloned().unwrap_or_default();
        let refused = |error: &bollard::errors::Error| explain(failure(error), &program, order.directory.as_deref());
        let mut env: Vec<String> = order.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        env.push(format!("{SESSION}={}", order.session));
        let terminal = order.terminal.is_some();
        let created = CreateExecOptions {
            attach_stdin: Some(order.input),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(terminal),
            env: Some(env),
            cmd: Some(order.argv.clone()),
            working_dir: order.directory.clone(),
            ..CreateExecOptions::default()
        };
        let id = engine.docker.create_exec(&known.container, created).await.map_err(|error| refused(&error))?.id;
        let options = StartExecOptions { detach: false, tty: terminal, output_capacity: Some(PIECE) };
        let started = engine.docker.start_exec(&id, Some(options)).await.map_err(|error| refused(&error))?;
        let StartExecResults::Attached { output, input } = started else {
            return Err(ExecError::Failed("the container engine started it without its input and output".to_owned()));
        };
        let cgroups = known.process.lock().as_ref().map(|(_, cgroups)| cgroups.clone());
        let exec = Running {
            docker: engine.docker.clone(),
            id,
            session: order.session.clone(),
            terminal,
            cgroups,
            output: Mutex::new(Some(output)),
            input: Mutex::new(order.input.then_some(input)),
            exit: ShortMutex::new(None),
        };
        if let Some(size) = order.terminal {
            exec.resize(size).await;
        }
        exec.watch(&known.container);
        Ok(Box::new(exec))
    }
}

/// Both engines say it in the words of the runtime below them.
fn explain(failure: Failure, program: &str, directory: Option<&str>) -> ExecError {
    let text = failure.to_string();
    let says = |words: &[&str]| words.iter().any(|words| text.contains(words));
    match () {
        () if says(&["chdir to cwd", "Cwd must be", "chdir to"]) => {
            ExecError::Directory(format!("{}: {text}", directory.unwrap_or_default()))
        }
        () if says(&["executable file not found", "no such file or directory"]) => {
            ExecError::NoProgram(program.to_owned())
        }
        () if says(&["permission denied"]) => ExecError::NotExecutable { program: program.to_owned(), detail: text },
        () => ExecError::Failed(text),
    }
}

/// A program of a session in a container.
struct Running {
    docker: Docker,
    /// What the engine calls it.
    id: String,
    session: String,
    terminal: bool,
    /// Those of the container, where its processes are processes of this host.
    cgroups: Option<Cgroups>,
    output: Mutex<Option<Output>>,
    input: Mutex<Option<Input>>,
    exit: ShortMutex<Option<watch::Receiver<Option<ExecExit>>>>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Running {
    /// Waits for its end, in a task of its own.
    fn watch(&self, container: &str) {
        let (tell, exit) = watch::channel(None);
        *self.exit.lock() = Some(exit);
        let (docker, id, container) = (self.docker.clone(), self.id.clone(), container.to_owned());
        kip_host::tasks::spawn("wait for exec session", async move {
            let seen = tokio::select! {
                seen = end_of(&docker, &id, &container) => seen,
                () = tell.closed() => return,
            };
            let _ = tell.send(Some(seen));
        });
    }

    /// Everything that the session has started and that is there still.
    fn processes(&self) -> Vec<u32> {
        let all = self.cgroups.as_ref().map(Cgroups::processes).unwrap_or_default();
        let marked: BTreeSet<u32> =
            all.into_iter().filter(|process| is_of_session(*process, Some(&self.session))).collect();
        marked.into_iter().collect()
    }

    fn exit_seen(&self) -> Option<watch::Receiver<Option<ExecExit>>> {
        self.exit.lock().clone()
    }
}

/// How a program ended, once it has.
async fn end_of(docker: &Docker, id: &str, container: &str) -> ExecExit {
    let (mut pause, mut watched) = (FIRST_LOOK, false);
    loop {
        match docker.inspect_exec(id).await {
            Ok(seen) if seen.running == Some(false) && seen.exit_code.is_some() => {
                let code = seen.exit_code.and_then(|code| i32::try_from(code).ok());
                return ExecExit { code, signal: None };
            }
            Ok(seen) => {
                let process = seen.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
                let own = process.filter(|process| Cgroups::of(*process, container).is_some());
                // The engine needs a moment to notice an end that the kernel has told us of.
                match own {
                    Some(process) if !watched => {
                        watched = true;
                        end_of_any(process).await;
                        pause = FIRST_LOOK;
                    }
                    _ => tokio::time::sleep(pause).await,
                }
            }
            // It was removed with its container, or the engine is gone.
            Err(_) => return ExecExit::default(),
        }
        pause = (pause * 2).min(LAST_LOOK);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.processes().into_iter().for_each(kill);
    }
}

#[async_trait]
impl ExecProcess for Running {
    async fn read(&self) -> io::Result<Option<(ExecStream, Bytes)>> {
        let mut output = self.output.lock().await;
        let Some(stream) = output.as_mut() else { return Ok(None) };
        loop {
            return match stream.next().await {
                Some(Ok(LogOutput::StdErr { message })) => Ok(Some((ExecStream::Error, message))),
                Some(Ok(LogOutput::StdOut { message } | LogOutput::Console { message })) => {
                    Ok(Some((ExecStream::Output, message)))
                }
                Some(Ok(LogOutput::StdIn { .. })) => continue,
                Some(Err(error)) => Err(io::Error::other(failure(&error).to_string())),
                None => {
                    *output = None;
                    Ok(None)
                }
            };
        }
    }

    async fn write(&self, data: &[u8]) -> io::Result<usize> {
        match self.input.lock().await.as_mut() {
            Some(input) => input.write(data).await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    async fn end_input(&self) {
        if self.terminal {
            let _ = self.write(&[END_OF_INPUT]).await;
        } else if let Some(input) = self.input.lock().await.as_mut() {
            let _ = input.shutdown().await;
        }
    }

    async fn resize(&self, size: TerminalSize) {
        let options = ResizeExecOptionsBuilder::new().h(size.rows.into()).w(size.columns.into()).build();
        if let Err(error) = self.docker.resize_exec(&self.id, options).await {
            tracing::debug!(%error, "the terminal of an exec session keeps its size");
        }
    }

    async fn exit(&self) -> ExecExit {
        let Some(mut exit) = self.exit_seen() else { return ExecExit::default() };
        let seen = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        seen.unwrap_or_default()
    }

    async fn end(&self) {
        let ended = async {
            let mut pause = Duration::from_millis(2);
            loop {
                let left = self.processes();
                if left.is_empty() {
                    return;
                }
                left.into_iter().for_each(kill);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
        };
        if tokio::time::timeout(END_LIMIT, ended).await.is_err() {
            tracing::warn!(session = self.session, "something that an exec session has started is still there");
        }
        let over = self.exit_seen().is_none_or(|exit| exit.borrow().is_some());
        if !over && self.cgroups.is_none() {
            tracing::warn!(
                session = self.session,
                "a program of an exec session goes on in its container: the engine cannot end it"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_is_missing() {
        let said = |text: &str| explain(Failure::Refused(text.to_owned()), "x", Some("/d"));
        assert_eq!(
            said("OCI runtime exec failed: exec: \"x\": executable file not found in $PATH: unknown"),
            ExecError::NoProgram("x".to_owned())
        );
        assert!(matches!(said("chdir to cwd (\"/d\") set in config.json failed"), ExecError::Directory(_)));
        assert!(matches!(said("exec: \"x\": permission denied"), ExecError::NotExecutable { .. }));
        assert!(matches!(said("out of memory"), ExecError::Failed(_)));
    }
}
