//! A version as the shell holds it: the declaration, and what the brain and the engine need of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use http::{HeaderName, HeaderValue};
use kip_engine::{CodeView, Devices, LivePath, Order};
use kip_fleet::Policy;
use kip_fleet::policy::RungOffer;
use kip_fleet::room::Gpu;
use kip_snapshot::Snapshots;
use kip_spec::function::{FunctionSpec, GpuNeed, ModelRuntime, Program, ReadyProbe};
use kip_spec::named_secret::SecretText;
use kip_spec::qualifier::label;
use kip_spec::{InstanceId, VersionId};
use kip_store::{FunctionId, StoredRevision};
use parking_lot::RwLock;

use crate::options::Options;

/// Where the built-in model server says whether it is ready.
const MODEL_READY: &str = "/v2/health/ready";

/// The variable by which a job's instance knows the folder in which each run gets a folder of its own.
pub const RESULTS: &str = "KIPWAKE_JOB_RESULTS";

/// An immutable version.
#[derive(Debug)]
pub struct Version {
    /// Its number.
    pub id: VersionId,
    /// Its function: a name that is made again is another one.
    pub function: FunctionId,
    /// Its place among the revisions of its function, from 1; 0 where nobody counts.
    pub ordinal: u64,
    /// The number that its function gave it when it was published; 0 before.
    pub number: AtomicU64,
    /// What was declared.
    pub spec: FunctionSpec,
    /// An instance was seen to load the driver of devices, though none is asked for.
    pub(crate) loads_driver: AtomicBool,
    /// What the brain needs of it.
    policy: RwLock<Arc<Policy>>,
    /// What it is called before it is published, for a header.
    unpublished: OnceLock<Option<HeaderValue>>,
    /// The contract's headers that every forwarded request carries.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Version {
    /// From a declaration.
    pub fn new(id: VersionId, spec: FunctionSpec, offer: RungOffer) -> Self {
        let policy = RwLock::new(Arc::new(Policy::from(&spec).offering(offer)));
        let mut headers = Vec::new();
        let mut add = |name: &'static str, value: &str| {
            headers.extend(HeaderValue::from_str(value).map(|value| (HeaderName::from_static(name), value)));
        };
        add("x-fc-function-name", spec.name.as_str());
        let (function, number, loads_driver) = (FunctionId::default(), AtomicU64::new(0), AtomicBool::new(false));
        let unpublished = OnceLock::new();
        Self { id, function, ordinal: 0, number, spec, loads_driver, policy, unpublished, headers }
    }

    /// From the store. `measured`: what an instance was measured to need of its device, bytes.
    pub fn stored(revision: StoredRevision, offer: RungOffer, measured: Option<u64>) -> Self {
        let (function, ordinal) = (revision.function, revision.ordinal);
        let version = Self { function, ordinal, ..Self::new(revision.id, revision.spec, offer) };
        let gpu = version.spec.resources.gpu.as_ref().map(|gpu| gpu.need);
        if let (Some(GpuNeed::Measured), Some(bytes)) = (gpu, measured) {
            version.needs(Gpu::Slice(bytes));
        }
        version
    }

    /// What the brain needs of it.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.read().clone()
    }

    /// What an instance needs of devices from now on: it was measured.
    pub(crate) fn needs(&self, gpu: Gpu) {
        Arc::make_mut(&mut self.policy.write()).need.gpu = gpu;
    }

    /// The pools in which it cannot run, a bit each.
    pub(crate) fn bars(&self, pools: u64) {
        if pools != 0 {
            Arc::make_mut(&mut self.policy.write()).need.barred = pools;
        }
    }

    /// How it is shown: the number of its version, or its ordinal.
    pub fn label(&self) -> String {
        match (self.number.load(Ordering::Relaxed), self.ordinal) {
            (0, 0) => self.id.to_string(),
            (0, ordinal) => label(None, ordinal),
            (number, _) => number.to_string(),
        }
    }

    /// The same for a header. Each request and answer has it, so a name is formatted once.
    pub fn header(&self) -> Option<HeaderValue> {
        match self.number.load(Ordering::Relaxed) {
            0 => self.unpublished.get_or_init(|| HeaderValue::from_str(&self.label()).ok()).clone(),
            number => Some(HeaderValue::from(number)),
        }
    }

    /// The path that says whether an instance is ready, where there is one.
    pub(crate) fn ready_path(&self) -> Option<&str> {
        match (&self.spec.program, &self.spec.ready) {
            (Program::Model { .. }, _) => Some(MODEL_READY),
            (_, ReadyProbe::Http { path }) => Some(path),
            (_, ReadyProbe::Tcp | ReadyProbe::Exec { .. }) => None,
        }
    }

    /// The folder that it runs in, and the files that it sees there.
    pub(crate) fn code(&self, snapshots: &Snapshots) -> (PathBuf, Option<CodeView>) {
        let (directory, code) = (self.spec.program.working_directory(), &self.spec.code);
        let Some(snapshot) = &code.snapshot else { return (directory, None) };
        let tree = snapshots.tree(&snapshot.digest);
        let live = |path: &String, writable| LivePath { path: path.clone(), writable };
        let shared = snapshot.live.iter().map(|path| live(path, false));
        let view = CodeView {
            tree: tree.clone(),
            live: shared.chain(code.writable.iter().map(|path| live(path, true))).collect(),
            pinned: snapshot.pinned.clone(),
        };
        (if snapshot.moved { tree } else { directory }, Some(view))
    }

    /// What the engine is to start.
    pub(crate) fn order(&self, instance: InstanceId, options: &Options, devices: Option<Devices>) -> Order {
        let (kip, results) = (options.kip.as_path(), options.results.as_path());
        let spec = &self.spec;
        let mut env = spec.env.clone();
        let (mut reads, mut writes) = (Vec::new(), None);
        let (program, argv, ready): (Option<PathBuf>, Vec<String>, ReadyProbe) = match &spec.program {
            Program::Command { argv, .. } if spec.job.is_some() => {
                let folder = results.join(spec.name.as_str());
                env.insert(RESULTS.to_owned(), folder.to_string_lossy().into_owned());
                writes = Some(folder);
                let words = ["kip", "job-runner", "--"].into_iter().map(str::to_owned);
                (Some(kip.to_owned()), words.chain(argv.iter().cloned()).collect(), ReadyProbe::Tcp)
            }
            Program::Image(_) if spec.job.is_some() => {
                let folder = results.join(spec.name.as_str());
                env.insert(RESULTS.to_owned(), folder.to_string_lossy().into_owned());
                writes = Some(folder);
                let words = ["kip", "job-runner", "--image"].into_iter().map(str::to_owned);
                (Some(kip.to_owned()), words.collect(), ReadyProbe::Tcp)
            }
            Program::Command { argv, .. } => {
                // A program of ours that runs in the environment of an engine: it is in the data directory, which instances do not see.
                let apps = options.code.data.join("engines/apps");
                reads.extend(argv.iter().any(|word| Path::new(word).parent() == Some(&apps)).then_some(apps));
                (None, argv.clone(), spec.ready.clone())
            }
            Program::Image(container) => (None, container.argv.clone(), spec.ready.clone()),
            Program::Model { path } => {
                let words = ["kip", "infer", "--port", "${PORT}", "--name", spec.name.as_str(), "--model"];
                let model = path.to_string_lossy().into_owned();
                let folder = path.parent();
                // The tokenizer of a model in a folder `onnx` is in the folder above.
                let above = folder.filter(|folder| folder.ends_with("onnx")).and_then(Path::parent);
                reads.extend(above.or(folder).map(Path::to_owned));
                let runtime = match &spec.runtime {
                    None => Vec::new(),
                    Some(ModelRuntime::Tract) => vec!["--runtime".to_owned(), "tract".to_owned()],
                    Some(ModelRuntime::OnnxRuntime) => vec!["--runtime".to_owned(), "onnxruntime".to_owned()],
                    Some(ModelRuntime::Library(path)) => {
                        reads.extend(path.parent().map(Path::to_owned));
                        vec![
                            "--runtime".to_owned(),
                            "onnxruntime".to_owned(),
                            "--onnxruntime-library".to_owned(),
                            path.to_string_lossy().into_owned(),
                        ]
                    }
                };
                let argv = words.iter().map(|word| (*word).to_owned()).chain([model]).chain(runtime).collect();
                (Some(kip.to_owned()), argv, ReadyProbe::Http { path: MODEL_READY.to_owned() })
            }
        };
        let (directory, code) = self.code(&options.code.snapshots);
        if code.is_some() && argv.first().is_some_and(|word| Path::new(word).file_name() == Some("uv".as_ref())) {
            // It would write its environment, which versions share.
            env.entry("UV_NO_SYNC".to_owned()).or_insert_with(|| "1".to_owned());
        }
        Order {
            instance,
            function: spec.name.clone(),
            owner: self.function.0,
            version: self.id,
            label: self.label(),
            program,
            argv,
            container: match &spec.program {
                Program::Image(container) => Some(container.clone()).filter(|_| spec.job.is_none()),
                Program::Command { .. } | Program::Model { .. } => None,
            },
            runs: match &spec.program {
                Program::Image(container) => Some(container.clone()).filter(|_| spec.job.is_some()),
                Program::Command { .. } | Program::Model { .. } => None,
            },
            directory,
            owns_directory: spec.owns_directory,
            folders: spec.folders.clone(),
            code,
            env,
            secrets: BTreeMap::new(),
            reads,
            writes,
            memory: spec.resources.memory,
            cpu: spec.resources.cpu,
            memo: String::new(),
            ready,
            probing: spec.probes.ready.as_ready(),
            startup: spec.timeouts.startup,
            ports: spec.ports.clone(),
            listen: spec.listen,
            user: spec.user.clone(),
            token: SecretText::new(format!("{:032x}", kip_host::random::bits())),
            port: spec.resources.port,
            devices,
            initialize: spec.lifecycle.initialize.clone(),
            pre_stop: spec.lifecycle.pre_stop.clone(),
        }
    }
}
