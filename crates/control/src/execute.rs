//! Effects carried out: on the engine, the router, the timers, the store and the decision log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kip_engine::{Body, InstanceEnd, LogFile, Order, StartError, StartProblem, StopOrder, Termination};
use kip_fleet::{
    Change, Effect, Event, FunctionCore, Operate, OperationNumber, OperationOutcome, Place, ProgramExit, StartFailure,
    State,
};
use kip_spec::function::{FunctionSpec, Lifecycle};
use kip_spec::named_secret::{SecretName, SecretText};
use kip_spec::scaling::Scaling;
use kip_spec::{Bytes, FunctionName, InstanceId, Millis, VersionId, code};
use kip_store::{DecisionRecord, Proposal, Record};

use crate::cell::Cell;
use crate::devices;
use crate::exec_table::ExecEnd;
use crate::link::Link;
use crate::rungs::Descent;
use crate::shared::Shared;
use kip_records::decision::{Decision, Outcome};

/// Lines of a program that are shown with its failure.
const LAST_LINES: usize = 12;
/// How long the look at an instance that is to be ended may take.
const AUTOPSY_LIMIT: Duration = Duration::from_secs(2);

impl Shared {
    /// Carries out one effect; what takes time goes on as a task of the control runtime.
    pub(crate) fn execute(self: &Arc<Self>, cell: &Arc<Cell>, effect: Effect) {
        match effect {
            // Done by the cell, under its lock.
            Effect::Dispatch { .. }
            | Effect::Offer { .. }
            | Effect::Refuse { .. }
            | Effect::Tell(_)
            | Effect::Changed(_)
            | Effect::Scaled { .. }
            | Effect::Provisioned { .. } => {}
            Effect::Operate { instance, version, operation, what } => {
                let (shared, cell) = (self.clone(), cell.clone());
                if matches!(what, Operate::Start { .. }) {
                    cell.lock().starting.push(instance);
                }
                kip_host::tasks::spawn_on(&self.runtime, "operate instance", async move {
                    shared.operate(&cell, instance, version, operation, what).await;
                });
            }
            Effect::AskProgress { instance } => {
                let last = {
                    let inner = cell.lock();
                    let exchanges = cell.look(&inner, |core| core.instance(instance).map_or(0, |i| i.in_flight));
                    inner.links.get(&instance).map(|link| link.last_sign(exchanges.unwrap_or(0)))
                };
                if let Some(last) = last {
                    cell.step(Event::Progress { instance, last });
                }
            }
            Effect::Ended(usage) => {
                self.price(cell, usage.version);
                self.used(cell.name(), &usage);
            }
            Effect::CrashLoop { version, failures, failure } => {
                let why = format!("{failures} starts in a row came to nothing: {failure}");
                self.version_decided(cell, version, Outcome::CrashLoop, why);
            }
            Effect::RungsDisabled { version } => {
                let why = "giving memory back, or taking it again, failed 3 times in a row: its instances only pause, \
                           and end when another instance needs what they hold";
                self.version_decided(cell, version, Outcome::RungsDisabled, why.to_owned());
            }
            Effect::WakeAt(at) => self.timers.set(cell.number, at),
            Effect::Promoted { version } => {
                let proven = cell.lock().links.values().any(|link| link.version.id == version);
                let serving = cell.serving();
                let kpa = matches!(&serving.policy().scaling, Scaling::Kpa(kpa) if kpa.initial_scale > 0);
                let by_itself = kpa || cell.wants_by_itself();
                let why = match () {
                    () if proven => "it is ready",
                    () if by_itself => "nothing of the function runs yet; instances are started for it",
                    () => "nothing of the function runs; its first request starts it",
                };
                self.version_decided(cell, version, Outcome::Serving, why.to_owned());
                let change = kip_store::Change::Serve { function: cell.name().clone(), revision: version };
                let changes = self.changes.clone();
                kip_host::tasks::spawn_on(&self.runtime, "store serving version", async move {
                    let stored = changes.unit(|turn| async move { turn.commit(Proposal::own(change)).await });
                    if let Err(error) = stored.await {
                        tracing::error!(%error, "the serving version is not stored");
                    }
                });
            }
            Effect::VersionFailed { version, failure } => {
                self.version_decided(cell, version, Outcome::Failed, failure.to_string());
            }
        }
    }

    /// Writes down that an instance changed its state. Called under the cell's lock, so that the log has the order of
    /// steps; it only hands values to channels.
    pub(crate) fn note_change(
        &self,
        function: &FunctionName,
        change: Change,
        place: Option<Place>,
        detail: Option<&Arc<str>>,
    ) {
        let from = change.from.map(State::name);
        let why = self.reason(change.why, place);
        tracing::info!(
            %function, instance = %change.instance, from = from.unwrap_or("nothing"), to = %change.to, why,
            "instance changed"
        );
        self.recorder.record(Record::Decision(DecisionRecord {
            at: kip_host::clock::wall_millis(),
            function: function.to_string(),
            version: change.version.0,
            label: None,
            instance: Some(change.instance.to_string()),
            from: from.map(str::to_owned),
            to: change.to.name().to_owned(),
            why,
            detail: detail.map(|detail| detail.trim_start_matches('\n').to_owned()),
            decision: Decision::Instance { from: change.from, to: change.to, why: change.why }.value(),
        }));
        if matches!(change.to, State::Gone(_)) {
            self.changed.notify_waiters();
        }
    }

    fn version_decided(&self, cell: &Arc<Cell>, version: VersionId, outcome: Outcome, why: String) {
        tracing::info!(function = %cell.name(), %version, to = outcome.name(), why, "version changed");
        self.recorder.record(Record::Decision(DecisionRecord {
            at: kip_host::clock::wall_millis(),
            function: cell.name().to_string(),
            version: version.0,
            label: Some(cell.label(version)),
            instance: None,
            from: None,
            to: outcome.name().to_owned(),
            why,
            detail: None,
            decision: Decision::Version { outcome }.value(),
        }));
        self.changed.notify_waiters();
    }

    async fn operate(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        instance: InstanceId,
        version: VersionId,
        operation: OperationNumber,
        what: Operate,
    ) {
        let Some(version) = cell.lock().versions.get(&version).cloned() else { return };
        let spec = &version.spec;
        let body = match what {
            Operate::Start { place } => self.bodies.at(place),
            _ => self.bodies.at(cell.place_of(instance)),
        };
        let place = cell.place_of(instance);
        let descent = |body| Descent { shared: self, cell, instance, spec, body, place };
        let result = match what {
            Operate::Start { place } => {
                let devices = devices::of_instance(&self.options, &version, instance, place);
                let order = version.order(instance, &self.options, devices);
                let ordered = kip_host::clock::boot_millis();
                let models = match self.is_local(place.pool) {
                    true => self.provide_models(instance, spec).await,
                    false => Ok(Vec::new()),
                };
                let taken = self.taken_by_others(place, version.policy().need.gpu).await;
                let began = kip_host::clock::boot_millis();
                // It may have been ended while its model came.
                let given_up = !models.as_ref().is_ok_and(Vec::is_empty) && !self.starts(cell, instance);
                let started = match (&models, self.revealed(&version.spec)) {
                    _ if given_up => {
                        cell.lock().starting.retain(|starting| *starting != instance);
                        return;
                    }
                    _ if taken.is_some() => Err(StartError {
                        problem: StartProblem::DeviceTaken,
                        detail: taken.unwrap_or_default(),
                        last_lines: Vec::new(),
                    }),
                    (Ok(_), Ok(secrets)) => {
                        body.start(Order { memo: self.memo(cell, instance).to_string(), secrets, ..order }).await
                    }
                    (Err(error), _) => Err(error.clone()),
                    (_, Err(error)) => Err(error),
                };
                let started = match started {
                    Ok(running) => crate::ready::by_program(&**body, instance, spec, began).await.map(|()| running),
                    failed => failed,
                };
                if let (Ok(_), Ok(loads), Some(cache)) = (&started, &models, &self.options.models) {
                    cache.loaded(loads, kip_host::clock::boot_millis().saturating_sub(ordered));
                }
                // Which engine it was that refused.
                let started =
                    started.map_err(|error| match self.pool_name(place.pool).filter(|_| !self.is_local(place.pool)) {
                        Some(pool) => StartError { detail: format!("in the pool `{pool}`: {}", error.detail), ..error },
                        None => error,
                    });
                let (early, wanted) = {
                    let mut inner = cell.lock();
                    inner.starting.retain(|starting| *starting != instance);
                    let early = inner.ended_early.iter().position(|ended| ended.instance == instance);
                    let early = early.map(|place| inner.ended_early.swap_remove(place));
                    // One that was ended meanwhile is gone or on its way: nothing may find it any more.
                    let wanted = cell.look(&inner, |core| is_starting(core, instance)).unwrap_or(false);
                    if let (Ok(running), None, true) = (&started, early, wanted) {
                        let link = Link::new(
                            instance,
                            version.clone(),
                            running.endpoint.clone(),
                            running.life.clone(),
                            running.token.clone(),
                        );
                        inner.links.insert(instance, Arc::new(link));
                    }
                    (early, wanted)
                };
                if !wanted {
                    // The core has ended it, and this says nothing of why.
                    return;
                }
                match (started, early) {
                    (Ok(_), Some(InstanceEnd { code, signal, .. })) => {
                        let (problem, detail) = (StartProblem::Exited { code, signal }, String::new());
                        let last_lines = self.last_lines(cell, instance).await;
                        let error = StartError { problem, detail, last_lines };
                        cell.note_failure(&error);
                        Ok(OperationOutcome::StartFailed(failure_of(&error)))
                    }
                    (Ok(_), None) if spec.lifecycle.initialize.is_none() => {
                        Ok(self.proven(cell, instance, spec, &**body, OperationOutcome::Started).await)
                    }
                    (Ok(_), None) => Ok(OperationOutcome::Started),
                    (Err(error), _) => {
                        cell.note_failure(&error);
                        Ok(OperationOutcome::StartFailed(failure_of(&error)))
                    }
                }
            }
            Operate::Initialize => {
                let hook = spec.lifecycle.initialize.as_ref();
                let called = match hook {
                    Some(hook) => body.initialize(instance, hook).await,
                    None => Ok(()),
                };
                Ok(match called {
                    Ok(()) => self.proven(cell, instance, spec, &**body, OperationOutcome::Initialized).await,
                    Err(error) => self.initialize_failed(cell, instance, &error).await,
                })
            }
            Operate::Pause => match self.works(cell, instance, spec).await {
                Some(work) => Ok(OperationOutcome::Working(work)),
                None => {
                    self.execs.end_of(instance, ExecEnd::Sleep).await;
                    end_epoch(cell, instance);
                    body.pause(instance)
                        .await
                        .map(|()| OperationOutcome::Paused)
                        .or_else(|error| failed(&error, OperationOutcome::PauseFailed))
                }
            },
            Operate::Park => Ok(descent(&**body).park().await),
            Operate::Spill => Ok(descent(&**body).spill().await),
            Operate::Resume { .. } => Ok(descent(&**body).wake().await),
            Operate::Stop { grace } => {
                self.execs.end_of(instance, ExecEnd::Instance).await;
                end_epoch(cell, instance);
                let Lifecycle { pre_stop, stop, .. } = spec.lifecycle.clone();
                let order = StopOrder { pre_stop, grace: Millis(grace), stop };
                body.stop(instance, order).await.map(|ended| match ended {
                    Termination::Graceful => OperationOutcome::Stopped,
                    Termination::Killed => OperationOutcome::Killed,
                })
            }
            Operate::Kill { autopsy } => {
                if autopsy {
                    self.autopsy(cell, instance).await;
                }
                end_epoch(cell, instance);
                descent(&**body).retire().await;
                let (killed, ()) = tokio::join!(body.kill(instance), self.execs.end_of(instance, ExecEnd::Instance));
                killed.map(|()| OperationOutcome::Stopped)
            }
        };
        match result {
            Ok(seen) => cell.step(Event::Observed { instance, operation, seen }),
            // The core's deadline for the operation brings the next try.
            Err(error) => tracing::error!(%instance, error = %Chain(&error), "an instance is still there"),
        }
    }

    fn starts(&self, cell: &Cell, instance: InstanceId) -> bool {
        let inner = cell.lock();
        cell.look(&inner, |core| is_starting(core, instance)).unwrap_or(false)
    }

    /// How a start ended, once the canary was asked.
    async fn proven(
        &self,
        cell: &Arc<Cell>,
        instance: InstanceId,
        spec: &FunctionSpec,
        body: &dyn Body,
        well: OperationOutcome,
    ) -> OperationOutcome {
        match self.ask_canary(instance, spec, body).await {
            Ok(()) => well,
            Err(why) => {
                self.note_canary(cell, instance, &why);
                OperationOutcome::StartFailed(StartFailure::CanaryFailed)
            }
        }
    }

    /// The values of the secrets that an instance gets. They exist from here to its start only.
    fn revealed(&self, spec: &FunctionSpec) -> Result<BTreeMap<String, SecretText>, StartError> {
        let reveal = |(variable, name): (&String, &SecretName)| {
            let value = self.options.secrets.reveal(name);
            let value = value.map_err(|problem| StartError {
                problem: StartProblem::SecretMissing,
                detail: format!("secret `{name}` for the variable {variable}: {problem} (kip secret set {name})"),
                last_lines: Vec::new(),
            })?;
            Ok((variable.clone(), value))
        };
        spec.secrets.iter().map(reveal).collect()
    }

    async fn initialize_failed(
        &self,
        cell: &Arc<Cell>,
        instance: InstanceId,
        error: &kip_engine::Error,
    ) -> OperationOutcome {
        let status = match error {
            kip_engine::Error::Hook { status, .. } => *status,
            _ => 0,
        };
        let last_lines = self.last_lines(cell, instance).await;
        cell.note_failure(&StartError { problem: StartProblem::NeverReady, detail: error.to_string(), last_lines });
        OperationOutcome::StartFailed(StartFailure::InitializeFailed { status })
    }

    /// An instance's main process ended.
    pub(crate) async fn ended(self: &Arc<Self>, cell: &Arc<Cell>, ended: InstanceEnd) {
        {
            let mut inner = cell.lock();
            if inner.starting.contains(&ended.instance) {
                inner.ended_early.push(ended);
                return;
            }
        }
        let detail = match ended.out_of_memory.filter(|_| matches!(ended.signal, None | Some(9))) {
            Some(limit) => format!(
                "{}: instance {} was killed for memory, at its limit of {} (resources.memory)",
                code::OUT_OF_MEMORY,
                ended.instance,
                Bytes(limit)
            ),
            None => format!("instance {} ended", ended.instance),
        };
        let problem = StartProblem::Exited { code: ended.code, signal: ended.signal };
        let asked_for = cell
            .look(&cell.lock(), |core| core.instance(ended.instance).is_none_or(|i| i.state == State::Stopping))
            .unwrap_or(true);
        if !asked_for {
            let last_lines = self.last_lines(cell, ended.instance).await;
            cell.note_failure(&StartError { problem, detail, last_lines });
        }
        cell.step(Event::Exited {
            instance: ended.instance,
            exit: ProgramExit { code: ended.code, signal: ended.signal },
        });
    }

    /// Keeps what may say why an instance is ended by force, for the decision log.
    async fn autopsy(&self, cell: &Cell, instance: InstanceId) {
        let look = async {
            let mut text = self.last_lines(cell, instance).await.join("\n");
            for line in self.bodies.at(cell.place_of(instance)).stacks(instance).await {
                text.push_str(if text.is_empty() { "" } else { "\n" });
                text.push_str(&line);
            }
            text
        };
        // It must not outlive what it is about: callers wait for the end of the instance.
        match tokio::time::timeout(AUTOPSY_LIMIT, look).await {
            Ok(text) if !text.is_empty() => drop(cell.lock().autopsies.insert(instance, text.into())),
            Ok(_) => {}
            Err(_) => tracing::warn!(%instance, "its stacks and last lines could not be read in time"),
        }
    }

    async fn last_lines(&self, cell: &Cell, instance: InstanceId) -> Vec<String> {
        let function = cell.name().as_str();
        self.bodies.at(cell.place_of(instance)).settle_logs(function, Some(instance)).await;
        let log = LogFile::of(&self.options.logs, function, instance);
        kip_host::tasks::blocking("last lines", move || log.last_lines(LAST_LINES)).await.unwrap_or_default()
    }
}

/// An error with its causes, for the log.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

fn is_starting(core: &FunctionCore, instance: InstanceId) -> bool {
    core.instance(instance).is_some_and(|instance| instance.state == State::Starting)
}

fn failed(error: &kip_engine::Error, seen: OperationOutcome) -> Result<OperationOutcome, kip_engine::Error> {
    tracing::warn!(error = %Chain(error), "an operation failed");
    Ok(seen)
}

fn end_epoch(cell: &Cell, instance: InstanceId) {
    if let Some(link) = cell.lock().links.get(&instance) {
        link.end_epoch();
    }
}

pub(crate) fn failure_of(error: &StartError) -> StartFailure {
    match error.problem {
        StartProblem::CommandNotFound => StartFailure::CommandNotFound,
        StartProblem::CommandNotExecutable => StartFailure::CommandNotExecutable,
        StartProblem::WorkingDirectory => StartFailure::WorkingDirectory,
        StartProblem::CodeChanged => StartFailure::CodeChanged,
        StartProblem::CodeMissing => StartFailure::CodeMissing,
        StartProblem::CodeReadOnly => StartFailure::CodeReadOnly,
        StartProblem::MountImpossible => StartFailure::MountImpossible,
        StartProblem::ShareMissing => StartFailure::ShareMissing,
        StartProblem::SecretMissing => StartFailure::SecretMissing,
        StartProblem::ModelMissing => StartFailure::ModelMissing,
        StartProblem::SpawnFailed => StartFailure::SpawnFailed,
        StartProblem::Exited { code, signal } => StartFailure::Exited(ProgramExit { code, signal }),
        StartProblem::OutOfMemory { limit } => StartFailure::OutOfMemory { limit },
        StartProblem::NeverReady => StartFailure::NeverReady,
        StartProblem::WrongPort { port } => StartFailure::WrongPort { port },
        StartProblem::PortTaken => StartFailure::PortTaken,
        StartProblem::EngineUnavailable => StartFailure::EngineUnavailable,
        StartProblem::ImageMissing => StartFailure::ImageMissing,
        StartProblem::ImagePlatform => StartFailure::ImagePlatform,
        StartProblem::ContainerRefused => StartFailure::ContainerRefused,
        StartProblem::DeviceMissing => StartFailure::DeviceMissing,
        StartProblem::DeviceTaken => StartFailure::DeviceTaken,
    }
}
