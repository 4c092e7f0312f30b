//! From an order to a running container.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use kip_host::failpoint::reached;
use kip_spec::container::{Container, Network, PullPolicy};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::cgroups::Cgroups;
use super::connect::Engine;
use super::create::{Plan, PlanInput, plan};
use super::failure::{Failure, failure};
use super::images::{self, ImageFacts};
use super::inspect::{self, Inspected};
use super::instance::Instance;
use super::journal::Journal;
use super::{Shared, gpu, labels, libpod, ready};
use crate::body::{Error, Liveness, Order, ReadyInstance, StartError, StartProblem};
use crate::containers::{EngineError, EngineKind};
use crate::contract;
use crate::logs::LogFile;

/// Lines of a container's output that are shown with its failure.
const LAST_LINES: usize = 12;

type Problem = (StartProblem, String);

impl Shared {
    /// Starts a container and waits until it is ready.
    pub(super) async fn start_instance(self: &Arc<Self>, order: &Order) -> Result<ReadyInstance, StartError> {
        let fail = |(problem, detail): Problem| StartError { problem, detail, last_lines: Vec::new() };
        let Some(container) = &order.container else {
            return Err(fail((StartProblem::SpawnFailed, "it is no container".to_owned())));
        };
        let engine = self.engine().await.map_err(|reason| fail((StartProblem::EngineUnavailable, reason)))?;
        // Before the start begins: a pull may take minutes, and whoever ends the instance need not wait for it.
        let image = self.image(&engine, order, container).await.map_err(fail)?;
        let Some(starting) = self.roster.begin(order.instance) else {
            return Err(fail((StartProblem::SpawnFailed, "the start was cancelled".to_owned())));
        };
        let (instance, published) = self.make(&engine, order, container, &image).await.map_err(|problem| {
            self.roster.fail(order.instance);
            self.options.ports.release(order.instance);
            let _ = std::fs::remove_dir_all(self.folder_of(order.instance));
            fail(problem)
        })?;
        drop(starting);
        let waited = match self.begin(&engine, &instance, order, container, published).await {
            Ok(()) => ready::wait(&instance, order, (container.network, self.proxied(published))).await,
            Err(problem) => Err(problem),
        };
        match waited {
            Ok(running) => {
                reached("start: ready");
                let address = *instance.address.lock();
                instance.note(|journal| (journal.stage, journal.address) = (super::journal::Stage::Ready, address));
                Ok(running)
            }
            Err((problem, detail)) => {
                self.settle(&instance).await;
                let log = LogFile::of(&self.options.logs, order.function.as_str(), order.instance);
                let read = move || log.last_lines(LAST_LINES);
                let last_lines = kip_host::tasks::blocking("last lines", read).await.unwrap_or_default();
                Err(StartError { problem, detail, last_lines })
            }
        }
    }

    /// The image of a version. One that the engine lacks is copied from that of this host, or pulled.
    pub(super) async fn image_of(&self, engine: &Engine, container: &Container) -> Result<ImageFacts, EngineError> {
        let (docker, reference) = (&engine.docker, container.reference());
        let missing = || EngineError::Missing(format!("{} ({reference})", container.image));
        let facts = match images::inspect(docker, reference).await? {
            Some(facts) => facts,
            None if self.copy_image(engine, reference).await? => {
                images::inspect(docker, reference).await?.ok_or_else(missing)?
            }
            None => match container.source().filter(|_| container.pull != PullPolicy::Never) {
                Some(source) => {
                    tracing::info!(image = source, "the engine does not have the image; it is pulled");
                    images::pull(docker, &self.pulls, source).await?;
                    images::inspect(docker, source).await?.ok_or_else(missing)?
                }
                None => return Err(missing()),
            },
        };
        images::check_platform(&container.image, &facts, &engine.info.architecture)?;
        Ok(facts)
    }

    /// The image to start from.
    async fn image(&self, engine: &Engine, order: &Order, container: &Container) -> Result<ImageFacts, Problem> {
        let refused = |error: EngineError| {
            let problem = match &error {
                EngineError::Platform { .. } => StartProblem::ImagePlatform,
                EngineError::Missing(_) | EngineError::Pull { .. } => StartProblem::ImageMissing,
                _ => StartProblem::ContainerRefused,
            };
            (problem, error.to_string())
        };
        let facts = self.image_of(engine, container).await.map_err(refused)?;
        if !facts.has_command && order.argv.is_empty() && container.entrypoint.is_empty() {
            let detail = format!("the image {} does not say what to run: give `run` or `entrypoint`", container.image);
            return Err((StartProblem::CommandNotFound, detail));
        }
        Ok(facts)
    }

    /// Makes the container. Nothing runs yet.
    async fn make(
        self: &Arc<Self>,
        engine: &Engine,
        order: &Order,
        container: &Container,
        image: &ImageFacts,
    ) -> Result<(Arc<Instance>, bool), Problem> {
        let io =
            |what: &'static str| move |error: std::io::Error| (StartProblem::SpawnFailed, format!("{what}: {error}"));
        self.check_mounts(container).map_err(|error| (StartProblem::ContainerRefused, error.to_string()))?;
        let in_host = container.network == Network::Host;
        let wanted = usize::from(in_host) + order.ports.len();
        let ports = match wanted {
            0 => Vec::new(),
            number => self.options.ports.reserve(order.instance, number, None).map_err(io("no free port"))?,
        };
        let (server, devices) = (self.options.server.as_str(), self.options.devices.as_slice());
        let publish = self.publishes_on();
        let around = PlanInput { server, info: &engine.info, image, ports: &ports, devices, publish };
        let plan = plan(order, container, around).map_err(|reason| (StartProblem::DeviceMissing, reason))?;
        LogFile::of(&self.options.logs, order.function.as_str(), order.instance)
            .prepare()
            .map_err(io("its log cannot be written"))?;
        let folder = self.folder_of(order.instance);
        kip_host::directory::create_own(&folder).map_err(io("its folder cannot be made"))?;
        let name = labels::name(server, order.instance);
        let id = create(engine, &name, &plan).await.map_err(|failed| explain(&failed))?;
        reached("start: container made");
        let headers = contract::headers(order);
        let journal = Journal {
            host_boot: kip_host::clock::boot_id().unwrap_or_default(),
            memory: order.memory.map(|memory| memory.0),
            headers: contract::listed(&headers),
            ..Journal::default()
        };
        let instance = Arc::new(Instance {
            id: order.instance,
            container: id,
            port: plan.port,
            function: order.function.to_string(),
            version: Some(order.version),
            process: Mutex::new(None),
            route: Mutex::new(None),
            given_up: AtomicBool::new(false),
            folder,
            journal: Mutex::new(journal),
            address: Mutex::new(None),
            headers,
            life: watch::Sender::new(Liveness::Alive),
            ended: watch::Sender::new(None),
            output: Mutex::new(None),
            stopping: tokio::sync::Mutex::default(),
        });
        self.roster.add(order.instance, instance.clone());
        instance.note(|_| {});
        Ok((instance, plan.published))
    }

    /// Starts the container, and looks at where it is.
    async fn begin(
        self: &Arc<Self>,
        engine: &Engine,
        instance: &Arc<Instance>,
        order: &Order,
        container: &Container,
        published: bool,
    ) -> Result<(), Problem> {
        let docker = &engine.docker;
        docker.start_container(&instance.container, None).await.map_err(|error| explain(&failure(&error)))?;
        reached("start: container started");
        self.read_output(engine, instance);
        let found = inspect::inspect(engine, &instance.container).await.map_err(|failed| explain(&failed))?;
        self.located(instance, &found);
        self.locate(instance, &found, (container.network, published))
            .await
            .map_err(|reason| (StartProblem::ContainerRefused, reason))?;
        if !found.state.running {
            // Its end may have been reported before anybody knew it.
            self.look_at_end(engine, instance).await;
            return Ok(());
        }
        self.check_devices(engine, instance, order)
    }

    /// Notes which process it is on this host, if it is one.
    pub(super) fn located(&self, instance: &Instance, found: &Inspected) {
        let process = Some(found.state.pid).filter(|process| *process > 0 && !self.is_elsewhere());
        *instance.process.lock() =
            process.and_then(|process| Some((process, Cgroups::of(process, &instance.container)?)));
    }

    /// An instance whose devices are not there must not fall back to the CPU in silence.
    fn check_devices(&self, engine: &Engine, instance: &Instance, order: &Order) -> Result<(), Problem> {
        let Some(devices) = order.devices.as_ref().filter(|devices| !devices.numbers.is_empty()) else { return Ok(()) };
        if kip_host::failpoint::cards_are_pretended() {
            return Ok(());
        }
        let process = instance.process.lock().as_ref().map(|(process, _)| *process);
        let Some(process) = process else {
            tracing::warn!(instance = %instance.id, "its devices are not verified: it is no process of this host");
            return Ok(());
        };
        let given = gpu::given(Some(devices), &engine.info, &self.options.devices)
            .map_err(|reason| (StartProblem::DeviceMissing, reason))?;
        let lacking = gpu::lacking(process, &given, devices.numbers.len(), &engine.info.cdi);
        if lacking.is_empty() {
            return Ok(());
        }
        let detail =
            format!("it was to have {}, and its container lacks {}", devices.names.join(" and "), lacking.join(", "));
        Err((StartProblem::DeviceMissing, detail))
    }

    /// Removes a container with everything that is its own, running or not.
    pub(super) async fn remove_container(&self, engine: &Engine, instance: &Instance) -> Result<(), Error> {
        match remove(engine, &instance.container).await {
            Ok(()) => Ok(()),
            Err(failed) => Err(Error::Engine { what: "remove", instance: instance.id, reason: failed.to_string() }),
        }
    }
}

/// Makes a container. One that an unfinished start left under the same name is replaced.
pub(super) async fn create(engine: &Engine, name: &str, plan: &Plan) -> Result<String, Failure> {
    match create_once(engine, name, plan).await {
        Err(Failure::Conflict(_)) => {}
        Err(Failure::Refused(reason)) if reason.contains("already in use") => {}
        other => return other,
    }
    remove(engine, name).await?;
    create_once(engine, name, plan).await
}

async fn create_once(engine: &Engine, name: &str, plan: &Plan) -> Result<String, Failure> {
    if engine.info.kind == EngineKind::Podman && !plan.cdi.is_empty() {
        return libpod::create(&engine.info.socket, name, plan).await;
    }
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    let created = engine.docker.create_container(Some(options), plan.body.clone()).await;
    created.map(|created| created.id).map_err(|error| failure(&error))
}

/// Removes a container by force; one that is not there is removed.
pub(super) async fn remove(engine: &Engine, container: &str) -> Result<(), Failure> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    match engine.docker.remove_container(container, Some(options)).await.map_err(|error| failure(&error)) {
        Ok(()) | Err(Failure::Missing(_)) => Ok(()),
        // Docker says so while another call removes it.
        Err(Failure::Conflict(reason)) if reason.contains("already in progress") => Ok(()),
        Err(failed) => Err(failed),
    }
}

/// What a refusal means, by the words that both engines take from their runtimes.
fn explain(failed: &Failure) -> Problem {
    let text = failed.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let problem = match failed {
        Failure::Unreachable(_) => StartProblem::EngineUnavailable,
        Failure::Missing(_) if says(&["image"]) => StartProblem::ImageMissing,
        _ if says(&["CDI device", "could not select device driver", "nvidia-container-cli"]) => {
            StartProblem::DeviceMissing
        }
        _ if says(&["exec format error"]) => StartProblem::ImagePlatform,
        _ if says(&["executable file not found", "no such file or directory: unknown", "stat /"]) => {
            StartProblem::CommandNotFound
        }
        _ if says(&["permission denied"]) => StartProblem::CommandNotExecutable,
        _ => StartProblem::ContainerRefused,
    };
    (problem, text)
}
