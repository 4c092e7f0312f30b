//! A run of a job whose program is an image: a container of its own, from its making to its exit code.
//!
//! It is run by the job's instance, a small process of this host that outlives a restart of the server. What such a process has left
//! behind when it was killed is removed by the label that names its instance.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
};
use futures_util::StreamExt as _;
use kip_spec::container::{Container, Mount};
use kip_spec::function::{Listen, ReadyProbe};
use kip_spec::named_secret::SecretText;
use kip_spec::{Bytes, FunctionName, InstanceId, MilliCpu, Millis, VersionId};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

use super::connect::{Engine, EngineAddress, connect};
use super::create::{PlanInput, plan};
use super::failure::failure;
use super::images;
use super::{inspect, start, stop};
use crate::body::{Devices, Order};
use crate::containers::EngineError;

/// The variable in which the process of a job finds what to run.
pub const JOB: &str = "KIPWAKE_JOB_CONTAINER";
/// The labels of containers of jobs: the id of the server, and the instance that runs it.
const SERVER: &str = "dev.kipwake.job-server";
const INSTANCE: &str = "dev.kipwake.job";
/// How often the end of a container is looked for, where the engine did not say so.
const LOOK: Duration = Duration::from_secs(2);

/// What a job's process is to run for each request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobContainer {
    /// The socket of the engine.
    pub socket: PathBuf,
    /// The id of the server.
    pub server: String,
    /// The instance that runs it.
    pub instance: InstanceId,
    /// The job.
    pub function: FunctionName,
    /// The number of its revision in the store.
    pub version: VersionId,
    /// How that is shown.
    pub label: String,
    /// The container.
    pub container: Container,
    /// The names of declared variables, whose values are in the environment of the process.
    pub variables: Vec<String>,
    /// Bytes of memory at most.
    pub memory: Option<Bytes>,
    /// CPU at most.
    pub cpu: Option<MilliCpu>,
    /// Its devices, on a host that has any.
    pub devices: Option<Devices>,
    /// The name of each device of the host in device specifications (CDI).
    pub specified: Vec<String>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEnd {
    /// Its exit code; 128 and the signal's number, if a signal ended it.
    pub code: Option<i64>,
    /// It was ended because it reached its memory limit.
    pub out_of_memory: bool,
}

impl JobContainer {
    /// What an order with a container for each request means on an engine.
    pub(crate) fn of(order: &Order, server: &str, socket: PathBuf, specified: &[String]) -> Option<Self> {
        let container = order.runs.as_deref()?.clone();
        Some(Self {
            socket,
            server: server.to_owned(),
            instance: order.instance,
            function: order.function.clone(),
            version: order.version,
            label: order.label.clone(),
            container,
            variables: order.env.keys().chain(order.secrets.keys()).cloned().collect(),
            memory: order.memory,
            cpu: order.cpu,
            // A library of this host is not in the container.
            devices: order.devices.clone().map(|devices| Devices { preload: None, ..devices }),
            specified: specified.to_vec(),
        })
    }

    fn order(&self, env: BTreeMap<String, String>, mounts: Vec<Mount>) -> Order {
        let mut container = self.container.clone();
        container.mounts.extend(mounts);
        Order {
            port: None,
            listen: Listen::Port,
            user: None,
            token: SecretText::default(),
            instance: self.instance,
            function: self.function.clone(),
            owner: 0,
            version: self.version,
            label: self.label.clone(),
            program: None,
            argv: container.argv.clone(),
            container: Some(Box::new(container)),
            runs: None,
            directory: PathBuf::from("/"),
            owns_directory: false,
            folders: Vec::new(),
            code: None,
            reads: Vec::new(),
            writes: None,
            env,
            secrets: BTreeMap::new(),
            memory: self.memory,
            cpu: self.cpu,
            memo: String::new(),
            ready: ReadyProbe::Tcp,
            probing: kip_spec::probe::ProbeTiming::default().as_ready(),
            startup: Millis(0),
            ports: Vec::new(),
            devices: self.devices.clone(),
            initialize: None,
            pre_stop: None,
        }
    }

    /// Runs it to its end. `input` is what it reads; its output goes to `output`. `stop` asks it to end. `out` is a folder of the host
    /// that it may write to, at the same path.
    ///
    /// # Errors
    /// In words, why it was not run.
    pub async fn run(
        &self,
        env: BTreeMap<String, String>,
        out: Option<PathBuf>,
        input: &[u8],
        stop: &Notify,
        mut output: impl FnMut(bool, &[u8]),
    ) -> Result<JobEnd, String> {
        let engine = connect(&EngineAddress::Socket(self.socket.clone()), None).await?;
        let image = self.image(&engine).await.map_err(|error| error.to_string())?;
        let folder = |path: PathBuf| path.to_str().map(str::to_owned);
        let mounts = out.and_then(folder).map(|path| Mount { source: path.clone(), target: path, writable: true });
        let order = self.order(env, mounts.into_iter().collect());
        let Some(container) = &order.container else { return Err("it has no container".to_owned()) };
        let around = PlanInput {
            server: &self.server,
            info: &engine.info,
            image: &image,
            ports: &[0],
            devices: &self.specified,
            publish: None,
        };
        let mut plan = plan(&order, container, around)?;
        // Nobody connects to it.
        plan.published = false;
        if let Some(host) = &mut plan.body.host_config {
            host.port_bindings = None;
        }
        plan.body.exposed_ports = None;
        plan.body.labels = Some(HashMap::from([
            (SERVER.to_owned(), self.server.clone()),
            (INSTANCE.to_owned(), self.instance.to_string()),
            ("dev.kipwake.job-function".to_owned(), self.function.to_string()),
        ]));
        plan.body.open_stdin = Some(true);
        plan.body.stdin_once = Some(true);
        plan.body.attach_stdin = Some(true);
        plan.body.attach_stdout = Some(true);
        plan.body.attach_stderr = Some(true);
        let name = format!("kip-job-{}-{}", self.server, self.instance);
        let made = start::create(&engine, &name, &plan).await.map_err(|failed| failed.to_string())?;
        let ended = self.follow(&engine, &made, input, stop, &mut output).await;
        if let Err(error) = start::remove(&engine, &made).await {
            tracing::warn!(container = made, %error, "the container of a job is still there");
        }
        ended
    }

    async fn image(&self, engine: &Engine) -> Result<images::ImageFacts, EngineError> {
        let (container, pulls) = (&self.container, images::Pulls::default());
        if let Some(facts) = images::inspect(&engine.docker, container.reference()).await? {
            return Ok(facts);
        }
        let Some(source) = container.source() else { return Err(EngineError::Missing(container.image.clone())) };
        images::pull(&engine.docker, &pulls, source).await?;
        images::inspect(&engine.docker, source).await?.ok_or_else(|| EngineError::Missing(source.to_owned()))
    }

    async fn follow(
        &self,
        engine: &Engine,
        container: &str,
        input: &[u8],
        stop: &Notify,
        output: &mut impl FnMut(bool, &[u8]),
    ) -> Result<JobEnd, String> {
        let docker = &engine.docker;
        let words = |error: &bollard::errors::Error| failure(error).to_string();
        let options =
            AttachContainerOptionsBuilder::default().stdin(true).stdout(true).stderr(true).stream(true).build();
        let attached = docker.attach_container(container, Some(options)).await.map_err(|error| words(&error))?;
        docker.start_container(container, None).await.map_err(|error| words(&error))?;
        let (mut pieces, mut into) = (attached.output, attached.input);
        let given = async {
            // A program that does not read what it is given is none the worse for it.
            let _ = into.write_all(input).await;
            let _ = into.shutdown().await;
        };
        let read = async {
            while let Some(Ok(piece)) = pieces.next().await {
                match piece {
                    LogOutput::StdErr { message } => output(true, &message),
                    LogOutput::StdOut { message } | LogOutput::Console { message } => output(false, &message),
                    LogOutput::StdIn { .. } => {}
                }
            }
        };
        let both = async { tokio::join!(given, read) };
        let mut both = std::pin::pin!(both);
        let mut asked = false;
        loop {
            tokio::select! {
                _ = &mut both => break,
                () = stop.notified(), if !asked => {
                    asked = true;
                    self.ask_to_end(engine, container).await;
                }
                // The engine was restarted, or the output goes on in a process that outlives the container.
                () = tokio::time::sleep(LOOK) => {
                    if inspect::inspect(engine, container).await.is_ok_and(|found| !found.state.running && found.was_started()) {
                        break;
                    }
                }
            }
        }
        loop {
            match inspect::inspect(engine, container).await {
                Ok(found) if !found.state.running => {
                    return Ok(JobEnd { code: found.state.exit_code, out_of_memory: found.state.oom_killed });
                }
                Err(super::failure::Failure::Missing(_)) => {
                    return Err("its container was removed by somebody before it had ended".to_owned());
                }
                _ => {}
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
                () = stop.notified(), if !asked => {
                    asked = true;
                    self.ask_to_end(engine, container).await;
                }
            }
        }
    }

    /// SIGTERM, or SIGKILL to a program that could not take it: the kernel keeps it from the first process of a namespace.
    async fn ask_to_end(&self, engine: &Engine, container: &str) {
        let found = inspect::inspect(engine, container).await.ok();
        let process = found.map(|found| found.state.pid).filter(|process| *process > 0);
        let signal = match process {
            Some(process) if !stop::takes(process, None) => "SIGKILL",
            _ => "SIGTERM",
        };
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        if let Err(error) = engine.docker.kill_container(container, Some(options)).await {
            tracing::debug!(container, error = %failure(&error), "it takes no signal");
        }
    }
}

/// Removes the containers of jobs of a server whose instances are not among those that live; of one instance only, if it is given.
pub(super) async fn sweep(engine: &Engine, server: &str, only: Option<InstanceId>, alive: &BTreeSet<InstanceId>) {
    let labels = match only {
        Some(instance) => vec![format!("{SERVER}={server}"), format!("{INSTANCE}={instance}")],
        None => vec![format!("{SERVER}={server}")],
    };
    let filters = HashMap::from([("label".to_owned(), labels)]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let Ok(found) = engine.docker.list_containers(Some(options)).await else { return };
    for container in found {
        let instance = container.labels.as_ref().and_then(|labels| labels.get(INSTANCE)?.parse().ok());
        let (Some(id), Some(instance)) = (container.id, instance) else { continue };
        if alive.contains(&instance) {
            continue;
        }
        if let Err(error) = start::remove(engine, &id).await {
            tracing::warn!(%instance, container = id, %error, "the container of a job is still there");
        }
    }
}
