//! Functions back into the text of a manifest, with every value spelled out.

use std::collections::BTreeMap;

use kip_spec::ModelName;
use kip_spec::container::{Container, Mount, Network, PullPolicy};
use kip_spec::function::{
    self, Dispatch, FunctionPriority, FunctionSpec, GpuIsolation, GpuNeed, HttpAuth, Listen, ModelRuntime, Program,
    Protocol, RequestBody, Strategy,
};
use kip_spec::job::{MissedRuns, Overlap};
use kip_spec::model_name::NameRewrite;
use kip_spec::named_secret::SecretName;
use kip_spec::scaling;
use kip_spec::sleep::RungUse;
use kip_spec::snapshot::CodeMode;

use crate::wire::{
    Api, Auth, Call, ClassKeyword, CodeKeyword, Concurrency, Cors, DataEntry, DataMap, Deploy, DispatchKeyword,
    Document, Function, Gpu, GpuIsolationKeyword, Hook, Http, Idle, Instances, Lifecycle, Limits, ListenKeyword,
    NameEntry, NameMap, NameText, PriorityKeyword, ProtocolKeyword, ProvisionInput, Queue, RequestBodyKeyword,
    Resources, Rotation, Run, Scaling, ScalingMode, Stop, StopSignalKeyword, StopTargetKeyword, StrategyKeyword,
    Timeouts, Trigger, Watchdog,
};
use crate::wire_image::{ContainerInput, NetworkKeyword, PullKeyword};
use crate::wire_job::{Job, MissedKeyword, OverlapKeyword, Retries, RetriesByCode, Schedule, Timer};
use crate::wire_probes;
use crate::wire_sleep::{Canary, Latency, Sleep};
use crate::wire_text::{Duration, DurationOrNever, Method, PathOnInstance, Scalar, Size, SizeOrAuto, Variable};

/// Functions as a `kip.yaml` that reads back to the same.
pub fn write(functions: &[FunctionSpec]) -> String {
    let named = |spec: &FunctionSpec| spec.name.to_string();
    let jobs = functions.iter().filter_map(|spec| Some((named(spec), job(spec, spec.job.as_ref()?)))).collect();
    let functions = functions.iter().filter(|spec| spec.job.is_none());
    let functions = functions.map(|spec| (named(spec), Function::from(spec))).collect();
    let document = Document { api: Api::KipV1, defaults: None, functions, jobs };
    // Maps, text and numbers alone: there is nothing that could not be written.
    serde_saphyr::to_string(&document).unwrap_or_default()
}

impl From<&FunctionSpec> for Function {
    fn from(spec: &FunctionSpec) -> Self {
        let words = |words: &[String]| Run::Words(words.iter().cloned().map(Scalar).collect());
        let some = |list: &[String]| (!list.is_empty()).then(|| words(list));
        let (dir, run, model) = match &spec.program {
            Program::Command { argv, dir } => (Some(dir.display().to_string()), Some(words(argv)), None),
            Program::Model { path } => (None, None, Some(path.display().to_string())),
            Program::Image(container) => (container.dir.clone(), some(&container.argv), None),
        };
        let image = match &spec.program {
            Program::Image(container) => Some(container),
            _ => None,
        };
        // What the policy chooses is not written: written, it would hold.
        let written = |limit: fn(&scaling::Auto) -> scaling::IdleLimit| match &spec.scaling {
            scaling::Scaling::Auto(auto) => limit(auto) != scaling::IdleLimit::Chosen,
            _ => true,
        };
        Self {
            dir,
            run,
            model,
            image: image.map(|container| container.image.clone()),
            entrypoint: image.and_then(|container| some(&container.entrypoint)),
            pull: image.map(|container| keyword(container.pull)),
            container: image.map(|container| ContainerInput::from(container.as_ref())),
            code: match spec.code.mode {
                CodeMode::Auto => None,
                CodeMode::Snapshot => Some(CodeKeyword::Snapshot),
                // Only a command has a folder with its code.
                CodeMode::Live => matches!(spec.program, Program::Command { .. }).then_some(CodeKeyword::Live),
            },
            writable: spec.code.writable.clone(),
            env: variables(spec),
            env_file: None,
            resources: resources(&spec.resources),
            instances: Some(Instances {
                min: Some(spec.instances.min),
                max: Some(spec.instances.max),
                concurrency: Some(Concurrency::Both(Limits {
                    hard: spec.instances.concurrency.hard,
                    soft: Some(spec.instances.concurrency.soft),
                })),
                pin: spec.pinned.then_some(true),
                priority: (spec.priority != FunctionPriority::Normal).then_some(match spec.priority {
                    FunctionPriority::Low => PriorityKeyword::Low,
                    FunctionPriority::Normal => PriorityKeyword::Normal,
                    FunctionPriority::High => PriorityKeyword::High,
                }),
            }),
            probes: Some(wire_probes::written(spec, words)),
            lifecycle: lifecycle(spec),
            timeouts: Some(Timeouts {
                startup: Some(Duration(spec.timeouts.startup)),
                queue: Some(Duration(spec.timeouts.queue)),
                first_byte: Some(Duration(spec.timeouts.first_byte)),
                idle: Some(Duration(spec.timeouts.idle)),
                total: Some(Duration(spec.timeouts.total)),
                grace: spec.timeouts.grace.map(Duration),
            }),
            queue: Some(Queue { depth: Some(spec.queue_depth) }),
            idle: Some(Idle {
                pause: written(|auto| auto.pause).then_some(DurationOrNever(spec.idle.pause)),
                park: (spec.idle.park != RungUse::default()).then(|| spec.idle.park.into()),
                spill: (spec.idle.spill != RungUse::default()).then(|| spec.idle.spill.into()),
                stop: written(|auto| auto.stop).then_some(DurationOrNever(spec.idle.stop)),
                cpu: Some(spec.idle_cpu),
            }),
            watchdog: spec.watchdog.stall.map(|stall| Watchdog { stall: Some(DurationOrNever(Some(stall))) }),
            rotation: rotation(spec.rotation),
            latency: spec.wake.map(|wake| Latency { wake: Some(Duration(wake)) }),
            canary: spec.canary.as_deref().map(Canary::from),
            scaling: scaling(&spec.scaling),
            dispatch: Some(match spec.dispatch {
                Dispatch::Packed => DispatchKeyword::Packed,
                Dispatch::Balanced => DispatchKeyword::Balanced,
            }),
            protocol: spec.protocol.map(|protocol| match protocol {
                Protocol::Http1 => ProtocolKeyword::Http1,
                Protocol::Http2 => ProtocolKeyword::H2c,
            }),
            request_body: Some(match spec.request_body {
                RequestBody::Measured => RequestBodyKeyword::Measured,
                RequestBody::Stream => RequestBodyKeyword::Stream,
            }),
            runtime: spec.runtime.as_ref().map(|runtime| match runtime {
                ModelRuntime::Tract => "tract".to_owned(),
                ModelRuntime::OnnxRuntime => "onnxruntime".to_owned(),
                ModelRuntime::Library(path) => path.display().to_string(),
            }),
            data: shares_of(spec).map(data_entry).collect(),
            names: spec.names.iter().map(|name| name_entry(name, spec.rewrites.get(name))).collect(),
            port: spec.resources.port,
            ports: spec.ports.clone(),
            listen: matches!(spec.program, Program::Command { .. }).then_some(match spec.listen {
                Listen::Port => ListenKeyword::Port,
                Listen::Socket => ListenKeyword::Socket,
            }),
            user: spec.user.clone().map(Scalar),
            deploy: (spec.deploy != function::Deploy::default()).then_some(Deploy {
                strategy: Some(match spec.deploy.strategy {
                    Strategy::Rolling => StrategyKeyword::Rolling,
                    Strategy::Recreate => StrategyKeyword::Recreate,
                }),
            }),
            // The traffic is the function's and no part of a declaration of a version.
            traffic: BTreeMap::new(),
            rollout: None,
            trigger: Some(Trigger {
                http: Some(Http {
                    auth: Some(match spec.http.auth {
                        HttpAuth::Anonymous => Auth::Anonymous,
                        // A file has no word for tokens: the trigger stays, and a key is good too.
                        HttpAuth::Key | HttpAuth::Jwt => Auth::Key,
                    }),
                    tasks: spec.http.open_tasks.then_some(Auth::Anonymous),
                    methods: spec.http.methods.iter().cloned().map(Method).collect(),
                    exempt: spec.http.exempt.iter().cloned().map(PathOnInstance).collect(),
                    cors: spec.http.cors.as_ref().map(|cors| Cors {
                        origins: cors.origins.clone(),
                        headers: cors.headers.clone(),
                        expose: cors.expose.clone(),
                        credentials: Some(cors.credentials),
                        max_age: Some(Duration(cors.max_age)),
                    }),
                }),
            }),
        }
    }
}

fn variables(spec: &FunctionSpec) -> BTreeMap<String, Variable> {
    let texts = spec.env.iter().map(|(name, value)| (name.clone(), Variable::Text(Scalar(value.clone()))));
    let secret =
        |(name, secret): (&String, &SecretName)| (name.clone(), Variable::Secret { secret: secret.to_string() });
    texts.chain(spec.secrets.iter().map(secret)).collect()
}

impl From<&Container> for ContainerInput {
    fn from(container: &Container) -> Self {
        let mount = |mount: &Mount| {
            let access = if mount.writable { ":rw" } else { "" };
            format!("{}:{}{access}", mount.source, mount.target)
        };
        Self {
            port: container.port,
            user: container.user.clone().map(Scalar),
            shm: container.shm.map(Size),
            network: Some(match container.network {
                Network::Bridge => NetworkKeyword::Bridge,
                Network::Host => NetworkKeyword::Host,
            }),
            hardened: Some(container.hardened),
            hosts: container.hosts.clone(),
            mounts: container.mounts.iter().filter(|mount| mount.source.starts_with('/')).map(mount).collect(),
        }
    }
}

fn keyword(policy: PullPolicy) -> PullKeyword {
    match policy {
        PullPolicy::Missing => PullKeyword::Missing,
        PullPolicy::Always => PullKeyword::Always,
        PullPolicy::Never => PullKeyword::Never,
    }
}

/// A job is made of fewer keys than its function has.
fn job(spec: &FunctionSpec, job: &kip_spec::job::Job) -> Job {
    let words = |words: &[String]| Run::Words(words.iter().cloned().map(Scalar).collect());
    let some = |list: &[String]| (!list.is_empty()).then(|| words(list));
    let (run, dir) = match &spec.program {
        Program::Command { argv, dir } => (Some(words(argv)), Some(dir.display().to_string())),
        Program::Image(container) => (some(&container.argv), container.dir.clone()),
        // No job serves a model.
        Program::Model { .. } => (None, None),
    };
    let image = match &spec.program {
        Program::Image(container) => Some(container),
        _ => None,
    };
    Job {
        dir,
        run,
        image: image.map(|container| container.image.clone()),
        entrypoint: image.and_then(|container| some(&container.entrypoint)),
        pull: image.map(|container| keyword(container.pull)),
        container: image.map(|container| ContainerInput::from(container.as_ref())),
        env: variables(spec),
        env_file: None,
        resources: resources(&spec.resources),
        parallel: Some(spec.instances.max),
        retries: Some(Retries::ByCode(RetriesByCode {
            max: job.retries,
            only: job.exits.only.as_ref().map(|codes| codes.iter().copied().collect()),
            never: job.exits.never.iter().copied().collect(),
        })),
        timeout: Some(Duration(job.timeout)),
        grace: spec.timeouts.grace.map(Duration),
        schedule: job.timer.as_ref().map(|timer| {
            Schedule::Full(Timer {
                cron: timer.cron.to_string(),
                zone: timer.zone.clone(),
                overlap: Some(match timer.overlap {
                    Overlap::Forbid => OverlapKeyword::Forbid,
                    Overlap::Queue => OverlapKeyword::Queue,
                    Overlap::Replace => OverlapKeyword::Replace,
                    Overlap::Allow => OverlapKeyword::Allow,
                }),
                missed: Some(match timer.missed {
                    MissedRuns::Skip => MissedKeyword::Skip,
                    MissedRuns::Once => MissedKeyword::Once,
                    MissedRuns::Each => MissedKeyword::Each,
                }),
                deadline: timer.deadline.map(Duration),
                paused: Some(timer.paused),
            })
        }),
    }
}

fn resources(resources: &function::Resources) -> Option<Resources> {
    if *resources == (function::Resources { port: resources.port, ..function::Resources::default() }) {
        return None;
    }
    let gpu = resources.gpu.as_ref().map(|gpu| {
        let (memory, cards) = match gpu.need {
            GpuNeed::Memory(memory) => (Some(SizeOrAuto::Size(Size(memory))), None),
            GpuNeed::Measured => (Some(SizeOrAuto::Auto("auto")), None),
            GpuNeed::Cards(cards) => (None, Some(cards)),
        };
        let isolation = match gpu.isolation {
            GpuIsolation::Account => GpuIsolationKeyword::Account,
            GpuIsolation::Framework => GpuIsolationKeyword::Framework,
            GpuIsolation::Preload => GpuIsolationKeyword::Preload,
        };
        let isolation = (!gpu.isolation.is_account()).then_some(isolation);
        Gpu { memory, cards, kind: gpu.kind.clone().map(Scalar), isolation }
    });
    Some(Resources { cpu: resources.cpu, memory: resources.memory.map(Size), gpu })
}

fn scaling(policy: &scaling::Scaling) -> Option<Scaling> {
    let empty = Scaling {
        mode: None,
        annotations: BTreeMap::new(),
        config: BTreeMap::new(),
        provision: None,
        period: None,
        hold: None,
        coefficient: None,
        disable_ondemand: None,
        class: None,
        keep: None,
    };
    let texts = |map: &BTreeMap<String, String>| {
        map.iter().map(|(key, value)| (key.clone(), Scalar(value.clone()))).collect::<BTreeMap<String, Scalar>>()
    };
    match policy {
        scaling::Scaling::Fixed => Some(Scaling { mode: Some(ScalingMode::Fixed), ..empty }),
        scaling::Scaling::Fc(fc) => Some(Scaling {
            mode: Some(ScalingMode::Fc),
            provision: Some(ProvisionInput(crate::provision::write(&fc.provision))),
            period: Some(Duration(fc.period)),
            hold: Some(fc.hold),
            coefficient: Some(fc.coefficient.get()),
            disable_ondemand: Some(fc.disable_ondemand),
            ..empty
        }),
        scaling::Scaling::Auto(auto) => {
            let class = match auto.class {
                scaling::Class::Economy => ClassKeyword::Economy,
                scaling::Class::Balanced => ClassKeyword::Balanced,
                scaling::Class::Latency => ClassKeyword::Latency,
            };
            let keep = Some(Duration(auto.keep));
            Some(Scaling { mode: Some(ScalingMode::Auto), class: Some(class), keep, ..empty })
        }
        scaling::Scaling::Kpa(kpa) => {
            let (annotations, config) = (texts(&kpa.declared.annotations), texts(&kpa.declared.config));
            Some(Scaling { mode: Some(ScalingMode::Kpa), annotations, config, ..empty })
        }
    }
}

fn rotation(rotation: function::Rotation) -> Option<Rotation> {
    (rotation != function::Rotation::default()).then(|| Rotation {
        max_age: rotation.max_age.map(|age| DurationOrNever(Some(age))),
        max_memory: rotation.max_memory.map(Size),
    })
}

fn lifecycle(spec: &FunctionSpec) -> Option<Lifecycle> {
    let hook = |hook: &Option<kip_spec::function::Hook>| {
        hook.as_ref().map(|hook| {
            Hook::Full(Call { path: PathOnInstance(hook.path.clone()), timeout: Some(Duration(hook.timeout)) })
        })
    };
    let function::Lifecycle { initialize, pre_stop, stop, sleep } = &spec.lifecycle;
    let lifecycle = Lifecycle {
        initialize: hook(initialize),
        pre_stop: hook(pre_stop),
        stop: write_stop(*stop),
        sleep: sleep.as_ref().map(Sleep::from),
    };
    (spec.lifecycle != function::Lifecycle::default()).then_some(lifecycle)
}

fn write_stop(stop: function::Stop) -> Option<Stop> {
    let signal = |signal| match signal {
        function::StopSignal::Term => StopSignalKeyword::Term,
        function::StopSignal::Int => StopSignalKeyword::Int,
        function::StopSignal::Quit => StopSignalKeyword::Quit,
        function::StopSignal::Hup => StopSignalKeyword::Hup,
        function::StopSignal::Usr1 => StopSignalKeyword::Usr1,
        function::StopSignal::Usr2 => StopSignalKeyword::Usr2,
    };
    let target = |target| match target {
        function::StopTarget::Main => StopTargetKeyword::Main,
        function::StopTarget::Group => StopTargetKeyword::Group,
    };
    (stop != function::Stop::default()).then(|| Stop { signal: stop.signal.map(signal), to: stop.to.map(target) })
}

/// Mounts whose sources are still names of shares: a deployment makes folders of them.
fn shares_of(spec: &FunctionSpec) -> impl Iterator<Item = &Mount> {
    let mounts = match &spec.program {
        Program::Image(container) => &container.mounts,
        _ => &spec.folders,
    };
    mounts.iter().filter(|mount| !mount.source.starts_with('/'))
}

fn data_entry(mount: &Mount) -> (String, DataEntry) {
    let share = mount.source.clone();
    let entry = match mount.writable {
        true => DataEntry::Map(DataMap { share, writable: true }),
        false => DataEntry::Name(share),
    };
    (mount.target.clone(), entry)
}

fn name_entry(name: &ModelName, rewrite: Option<&NameRewrite>) -> NameEntry {
    let text = NameText(name.to_string());
    match rewrite.cloned() {
        None => NameEntry::Plain(text),
        Some(NameRewrite { model, set, strip }) => {
            NameEntry::Rewrite(NameMap { name: text, model, set, strip: strip.into_iter().collect() })
        }
    }
}
