//! The server: opens the rooms in order, waits for the word to end, closes them in reverse.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use kip_api::Api;
use kip_auth::{Keys, Seal, Secrets};
use kip_control::Control;
use kip_events::Events;
use kip_fc::Fc;
use kip_gateway::Gateway;
use kip_host::directory::DataDirectory;
use kip_host::disk::Pressure;
use kip_host::log_file::TurningLog;
use kip_host::tasks::Supervisor;
use kip_records::metrics::Metrics;
use kip_spec::{Problem, code};
use kip_store::{Changes, ControlStore, SqliteControl};
use kip_tasks::Tasks;
use kip_wire::ServerInfo;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::arguments::{Connection, Serve};
use crate::client::{FOUND, ServerFile, data_directory};
use crate::config::{Config, Flags};
use crate::disk::Stores;
use crate::output::Output;
use crate::start::LOG_FILE;

/// The API of Function Compute beside ours.
#[derive(Debug)]
struct FunctionCompute(kip_fc::Fc);

impl kip_api::Facade for FunctionCompute {
    fn restored(&self) -> BoxFuture<'static, Result<(), Problem>> {
        let fc = self.0.clone();
        Box::pin(async move { fc.hold_stored().await })
    }
}

/// The folder of the data directory in which versions keep their code.
pub(crate) const SNAPSHOTS: &str = "snapshots";
/// Ends of instances that may wait to be looked at.
const ENDS: usize = 1_024;
/// With fewer open files than this a server meets the limit soon.
pub(crate) const FEW_FILES: u64 = 4_096;
/// The API may have this part of the open files as connections, so that callers of it leave room for functions.
const API_PART: u64 = 8;
/// The gateway may have this part of them: an exchange needs two.
const GATEWAY_PART: u64 = 2;
/// Between two times that freed memory is given back.
const FREED_APART: Duration = Duration::from_secs(30);
/// How often it is written down when keys were last used; what a crash forgets at most.
const USES_APART: Duration = Duration::from_secs(60);
/// How long the last lines of the log may take to be written.
pub(crate) const LAST_LINES: Duration = Duration::from_secs(1);
/// How long callers may take to read the rest of their answers when the server ends.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The line that `kip serve -o json` prints once it is ready.
#[derive(Debug, Clone, Serialize, serde::Deserialize)]
pub(crate) struct Ready {
    pub(crate) gateway: String,
    pub(crate) api: String,
    pub(crate) key: String,
    pub(crate) pid: u32,
}

/// `kip serve`.
pub(crate) fn run(connection: &Connection, options: &Serve, output: Output) -> anyhow::Result<()> {
    let data = data_directory(connection)?;
    let flags = Flags { gateway: options.gateway, api: connection.api.clone() };
    let config = Config::read(&data, options.config.as_deref(), &flags)?;
    start_logging(&config, &data);
    kip_host::tasks::log_panics();
    pretend()?;
    let runtime = runtime()?;
    let served = runtime.block_on(serve(&data, config, |ready| announce(ready, output)));
    // Callers that still read an answer must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    kip_host::log::flush(LAST_LINES);
    served.map(|left| left.say(output))
}

/// A server may be told what time it is, so that schedules can be tried.
fn pretend() -> anyhow::Result<()> {
    let Some(text) = kip_host::environment::read(kip_host::environment::CLOCK) else { return Ok(()) };
    let zone = kip_spec::scaling::zone::utc();
    let wall = kip_spec::scaling::zone::moment(&text, &zone)?;
    kip_host::clock::pretend(wall);
    tracing::warn!(clock = text, "{} says what time it is", kip_host::environment::CLOCK);
    Ok(())
}

/// The runtime of everything but the data plane.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("control").enable_all().build()?)
}

/// Log lines go to standard error, which may be the log file of a data directory.
pub(crate) fn start_logging(config: &Config, data: &Path) {
    let filter = tracing_subscriber::EnvFilter::new(&config.filter);
    // Without a thread for it there is no log, and the server is none the worse for that.
    let _ = kip_host::log::start(TurningLog::of_standard_error(data.join(LOG_FILE)));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(kip_host::log::line).with_ansi(false);
    let _ = log.log_internal_errors(false).try_init();
}

fn announce(ready: &Ready, output: Output) {
    let text =
        |ready: &Ready| format!("kipwake serves {} and its API {} (process {})", ready.gateway, ready.api, ready.pid);
    let _ = output.line(ready, text);
}

/// Serves until it is told to end: by Ctrl-C or the API with everything that runs, by SIGTERM without its instances.
pub(crate) async fn serve(
    data: &Path,
    mut config: Config,
    announce: impl FnOnce(&Ready),
) -> anyhow::Result<ShutdownSummary> {
    // Both before anything is started: a signal during the start must end it in order.
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let open_files = kip_host::limits::raise_open_files();
    if open_files < FEW_FILES {
        tracing::warn!(
            allowed = open_files,
            "few open files are allowed: each instance and each connection needs some; raise it before the start: ulimit -n {}",
            FEW_FILES * 4
        );
    }
    let directory = DataDirectory::lock(data).map_err(directory_problem)?;
    let data = directory.path();
    if let Some(mode) = directory.was_open() {
        tracing::warn!(
            directory = %data.display(),
            mode = format!("{mode:o}"),
            "others could enter the data directory; it is closed to them now. What they may have put into it is not followed, but look: ls -la"
        );
    }
    // An earlier server's word would lead commands to whoever has its port now.
    let _ = std::fs::remove_file(data.join(FOUND));
    let certificates = kip_host::tls::NamedCertificates::default();
    let listeners = crate::listeners::open(&config, &certificates)?;
    crate::found_devices::add(&mut config, own_program()).await;

    let supervisor = Supervisor::default();
    let disk = crate::disk::prepare(data, &config)?;
    let Stores { control: store, records, tasks } = crate::disk::open(data, &disk).map_err(store_problem)?;
    let identity = store.begin_boot().await.map_err(store_problem)?;
    let changes = Changes::of_file(store);
    let seal = Seal::open(data).map_err(keys_problem)?;
    let (keys, key) = Keys::open(changes.clone(), data, seal.clone()).await.map_err(keys_problem)?;
    let secrets = Secrets::open(changes.clone(), seal).await.map_err(keys_problem)?;
    let unreadable = secrets.unreadable();
    if !unreadable.is_empty() {
        tracing::warn!(secrets = unreadable.join(", "), "sealed with another key than this server has: set them again");
    }

    let (report, events) = mpsc::channel(ENDS);
    let body_options = body_options(data, &identity.server, disk.pressure.clone(), config.isolation.clone());
    let (bodies, capabilities) =
        crate::body::open(body_options, data, &config, report).map_err(|error| unusable(data, &error))?;
    warn_of_isolation(&capabilities);
    let holders = kip_tasks::config::Holders {
        program: own_program(),
        command: "task-holder".to_owned(),
        folder: data.join("held"),
    };
    let held = kip_tasks::held_instances(tasks.as_ref(), &holders).await.map_err(store_problem)?;
    let metrics = Metrics::new(config.metrics.functions);
    let foreign_ids = capabilities.isolated && rustix::process::geteuid().is_root();
    let models = open_models(kip_models::Options { foreign_ids, ..config.models.clone() }).await?;
    let options = kip_control::Options {
        models: Some(models.clone()),
        boot: identity.boot,
        inventory: config.inventory.clone(),
        pools: crate::body::pools(&config),
        images: config.images.clone(),
        kip: own_program(),
        logs: data.join("logs"),
        results: data.join("jobs"),
        storage: config.storage.clone(),
        code: kip_control::CodeOptions {
            snapshots: kip_snapshot::Snapshots::new(data.join(SNAPSHOTS)),
            limits: config.code,
            mounts: capabilities.mounts,
            inside: !capabilities.isolated,
            reads_more: rustix::process::geteuid().is_root(),
            data: data.to_owned(),
        },
        held,
        driver: kip_control::DriverRung::find(data, own_program(), config.devices.len()).await,
        devices: Some(data.to_owned()),
        over_use: config.over_use,
        limiter: config.limiter.clone(),
        spill: kip_freezer::spill::is_possible().is_ok(),
        disk,
        retention: config.retention,
        exec: config.exec,
        access_log: config.access_log.clone(),
        traces: config.traces.clone(),
        metrics: metrics.clone(),
        prices: Arc::new(config.prices.clone()),
        secrets: Arc::new(secrets.clone()),
        supervisor: supervisor.clone(),
    };
    let files = kip_control::Files { records: records.clone(), tasks: tasks.clone() };
    let stores = kip_control::Stores { changes, records, files: Some(files) };
    let control = Control::open(options, stores, bodies, events).await.map_err(Problem::from)?;

    let options = kip_tasks::config::Options {
        secret: task_secret(data)?,
        holders: Some(holders),
        server: identity.server.clone(),
        ..config.tasks.clone()
    };
    let tasks = Tasks::open(tasks, control.clone(), metrics.clone(), options).await.map_err(Problem::from)?;
    let events =
        Events::open(control.clone(), tasks.clone(), config.deliveries.clone()).await.map_err(Problem::from)?;
    let signatures = kip_fc::Signatures::new(keys.clone());
    let first = listeners.doors.first().ok_or_else(|| anyhow::anyhow!("the gateway has no listener"))?;
    let gateway_address = first.listener.local_addr()?;
    let options = kip_fc::Options {
        code: data.join("code"),
        gateway: gateway_address,
        mounts: capabilities.mounts,
        gpu_types: config.gpu_types.clone(),
        metrics: metrics.clone(),
        certificates,
        signatures: signatures.clone(),
    };
    // Before the gateway: what triggers and domains ask of callers holds for the first request.
    let fc = Fc::open(control.clone(), keys.clone(), tasks.clone(), options).await?;
    let options = kip_gateway::Options {
        doors: listeners.doors,
        threads: config.threads,
        limits: kip_gateway::Limits {
            connections: config
                .limits
                .connections
                .min(usize::try_from(open_files / GATEWAY_PART).unwrap_or(usize::MAX)),
            ..config.limits.clone()
        },
        proxies: config.proxies.clone(),
        names: config.names.clone(),
        signatures: Arc::new(signatures),
        metrics: metrics.clone(),
        tasks: tasks.clone(),
        supervisor: supervisor.clone(),
    };
    let gateway = Gateway::start(options, &control, &keys)?;
    let api_listener = listeners.api;
    let pause_method = capabilities.pause_method();
    let about = ServerInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        data_directory: data.display().to_string(),
        gateway: gateway.address(),
        api: api_listener.local_addr()?,
        boot: identity.boot,
        pause_method: pause_method.to_owned(),
        cgroup_missing: capabilities.cgroup_missing,
        limits_missing: capabilities.limits_missing,
        isolation: capabilities.isolation,
        isolation_missing: capabilities.isolation_missing,
        isolated: capabilities.isolated,
        mounts: capabilities.mounts,
        gpu_types: config.gpu_types.clone(),
    };
    let ready = Ready {
        gateway: format!("http://{}", about.gateway),
        api: format!("http://{}", about.api),
        key,
        pid: about.pid,
    };
    let (stop, mut stopped) = watch::channel(false);
    let closing = watch::Sender::new(false);
    let uses = keys.clone();
    let noting = kip_host::tasks::spawn("key uses", async move { note_uses(&uses).await });
    let freeing = kip_host::tasks::spawn("freed memory", give_back_freed());
    tasks.reached_at(ready.api.clone());
    let api = Api::new(control.clone(), (keys.clone(), secrets), about, stop, metrics, tasks.clone(), events)
        .with_facade(fc.router(), Arc::new(FunctionCompute(fc.clone())))
        .with_open_metrics(config.metrics.open)
        .with_connections(usize::try_from(open_files / API_PART).unwrap_or(usize::MAX))
        .with_peers(listeners.peers)
        .with_names(config.names.clone())
        .with_prices(config.prices)
        .with_models(model_services(data, models));
    let listener = tokio::net::TcpListener::from_std(api_listener)?;
    let api = supervisor.vital("api", api.serve(listener, closing.subscribe()));

    let found = ServerFile { gateway: ready.gateway.clone(), api: ready.api.clone(), pid: ready.pid };
    let file = data.join(FOUND);
    if let Err(error) = kip_host::directory::write_again(&file, &serde_json::to_vec(&found)?) {
        // It serves all the same: whoever looks for it has to be told where, by --api. An old word would lead astray.
        let _ = std::fs::remove_file(&file);
        tracing::warn!(%error, file = %file.display(), "where the server is to be found cannot be written down");
    }
    let tls = config.tls.as_ref().map(|tls| format!("https://{}", tls.listen));
    tracing::info!(gateway = ready.gateway, tls, api = ready.api, pause = pause_method, "serving");
    announce(&ready);

    let mut failed = None;
    let (why, keep) = tokio::select! {
        _ = interrupted.recv() => ("interrupted", false),
        _ = terminated.recv() => ("terminated", true),
        _ = stopped.wait_for(|stopped| *stopped) => ("stopped through the API", false),
        failure = supervisor.failed() => {
            failed = Some(failure);
            ("a task ended that the server cannot do without", true)
        }
    };
    supervisor.close();
    let then = if keep { "the instances stay" } else { "all instances end" };
    tracing::info!(why, patience = %config.patience, "stopping: requests in flight may end, then {then}");
    let _ = std::fs::remove_file(&file);
    gateway.close();
    tasks.close();
    let end = async |patience: Duration| match keep {
        true => Some(control.leave(patience).await),
        false => {
            control.shutdown(patience).await;
            None
        }
    };
    let ended = async {
        let kept = end(config.patience.to_std()).await;
        tasks.closed().await;
        closing.send_replace(true);
        let _ = tokio::time::timeout(LAST_WORDS, api).await;
        kept
    };
    let kept = tokio::select! {
        kept = ended => kept,
        // A second signal means now.
        _ = interrupted.recv() => end(Duration::ZERO).await,
        _ = terminated.recv() => end(Duration::ZERO).await,
    };
    noting.abort();
    freeing.abort();
    write_uses(&keys).await;
    drop(keys);
    let joined = tokio::task::spawn_blocking(move || gateway.join());
    let _ = tokio::time::timeout(LAST_WORDS, joined).await;
    match kept {
        Some(kept) => {
            tracing::info!(kept, "stopped; the next start adopts the instances that stay, `kip stop` ends them")
        }
        None => tracing::info!("stopped"),
    }
    if let Some(failure) = failed {
        // Last in the log, so that it is what is found there.
        tracing::error!(%failure, "the server ended because of this; its instances go on, and the next start adopts them");
        let problem = Problem::new(
            code::VITAL_TASK_ENDED,
            "the server ended, because a task ended that it cannot do without",
        )
        .cause(failure.to_string())
        .hint("start it again: `kip serve`; it adopts the instances. Please report this with the end of server.log");
        return Err(problem.into());
    }
    Ok(ShutdownSummary { kept, data: data.to_owned() })
}

/// The model cache with its engines, and the folder of the user's presets.
async fn open_models(options: kip_models::Options) -> anyhow::Result<kip_models::Models> {
    let opened = kip_host::tasks::blocking("model cache", move || kip_models::Models::open(options)).await;
    Ok(opened.ok_or_else(|| anyhow::anyhow!("the server ends"))?.map_err(Problem::from)?)
}

fn model_services(data: &Path, models: kip_models::Models) -> kip_api::ModelServices {
    let engines = kip_models::engines::Engines::new(data.join("engines"));
    kip_api::ModelServices::new(models, engines, data.join("presets"))
}

/// What addresses for the progress of tasks are made with: made once, so that they outlive a restart.
fn task_secret(data: &Path) -> anyhow::Result<Vec<u8>> {
    let file = data.join("tasks.secret");
    if let Ok(secret) = kip_host::directory::read_regular(&file, 4 << 10)
        && secret.len() >= 32
    {
        return Ok(secret);
    }
    let mut secret = vec![0; 32];
    kip_host::random::fill(&mut secret);
    kip_host::directory::write_whole(&file, &secret).map_err(|error| unusable(data, &error))?;
    Ok(secret)
}

/// What a server leaves when it ends.
#[derive(Debug, Serialize)]
pub(crate) struct ShutdownSummary {
    /// Instances that go on without a server, if it was told to keep them.
    kept: Option<usize>,
    #[serde(rename = "data_directory")]
    data: PathBuf,
}

impl ShutdownSummary {
    /// Says what goes on, and how to end it.
    fn say(&self, output: Output) {
        let text = |left: &Self| {
            format!(
                "kept {} instances: the next `kip serve` adopts them; `kip --data-dir {} stop` ends them",
                left.kept.unwrap_or(0),
                left.data.display()
            )
        };
        if self.kept.is_some_and(|kept| kept > 0) {
            let _ = output.line(self, text);
        }
    }
}

fn body_options(
    data: &Path,
    server: &str,
    pressure: Pressure,
    isolation: kip_engine::IsolationOptions,
) -> kip_engine::Options {
    let (instances, logs) = (data.join("instances"), data.join("logs"));
    let ports = Arc::default();
    kip_engine::Options {
        server: server.to_owned(),
        data: data.to_owned(),
        isolation,
        ports,
        instances,
        logs,
        pressure,
    }
}

/// Says at each start what functions are not kept from.
fn warn_of_isolation(capabilities: &kip_engine::Capabilities) {
    let Some(missing) = &capabilities.isolation_missing else { return };
    if capabilities.isolated {
        tracing::warn!(missing, isolation = capabilities.isolation, "functions are kept from the server with a gap");
        return;
    }
    let user = if rustix::process::geteuid().is_root() { "root" } else { "this user" };
    tracing::warn!(
        missing,
        "functions run as {user}, as the server does: each of them, and so each key with the role deploy, can read all keys and secrets \
         and change the server; docs/hardening.md says what to do"
    );
}

/// Ends the instances that a server left which does not run any more, and says how many there were.
pub(crate) async fn end_left(data: &Path) -> anyhow::Result<usize> {
    if !["instances", "containers", "pools"].iter().any(|folder| data.join(folder).is_dir()) {
        return Ok(0);
    }
    let directory = DataDirectory::lock(data).map_err(directory_problem)?;
    let data = directory.path();
    let store = SqliteControl::open(&data.join("control.db")).map_err(store_problem)?;
    let identity = store.begin_boot().await.map_err(store_problem)?;
    let (ends, _ended) = mpsc::channel(ENDS);
    let options = body_options(data, &identity.server, Pressure::default(), kip_engine::IsolationOptions::default());
    let config = Config::read(data, None, &Flags::default())?;
    let (bodies, _) = crate::body::open(options, data, &config, ends).map_err(|e| unusable(data, &e))?;
    Ok(bodies.end_left().await?)
}

/// Our own program by way of the kernel: it stays the one that runs even if its file is replaced by an upgrade.
fn own_program() -> PathBuf {
    PathBuf::from(format!("/proc/{}/exe", std::process::id()))
}

pub(crate) fn directory_problem(error: kip_host::directory::Error) -> Problem {
    match &error {
        kip_host::directory::Error::InUse { .. } => Problem::new(code::DATA_DIRECTORY_IN_USE, error.to_string())
            .hint("`kip stop` ends that server; --data-dir names another directory"),
        kip_host::directory::Error::Foreign { .. } => Problem::new(code::DATA_DIRECTORY_UNUSABLE, error.to_string())
            .cause("its owner could read all keys, and put files of its own in the place of the server's")
            .hint("name a directory of your own: --data-dir DIR; or give it to yourself: chown"),
        kip_host::directory::Error::Io { source, .. } => Problem::new(code::DATA_DIRECTORY_UNUSABLE, error.to_string())
            .cause(source.to_string())
            .hint("name a directory that you may write to: --data-dir DIR"),
    }
}

fn unusable(data: &Path, error: &std::io::Error) -> Problem {
    Problem::new(code::DATA_DIRECTORY_UNUSABLE, format!("cannot write below {}", data.display()))
        .cause(error.to_string())
}

pub(crate) fn store_problem(error: kip_store::Error) -> Problem {
    match error {
        kip_store::Error::Newer { .. } => Problem::new(code::SCHEMA_NEWER, error.to_string())
            .hint("use that newer version of kip, or restore the copy that it made before it changed the schema"),
        kip_store::Error::Full { .. } => Problem::new(code::STORE_FULL, error.to_string())
            .hint("make room on the disk of the data directory, or name another one: --data-dir DIR"),
        kip_store::Error::NotDurable { .. } => {
            Problem::new(code::STORE_NOT_DURABLE, error.to_string()).hint("look at the disk: dmesg, kip doctor")
        }
        other => Problem::new(code::STORE_FAILED, "the store cannot be used").cause(other.to_string()),
    }
}

/// Keeps when keys were last used, for ever.
/// A deployment of many functions takes much memory for a moment, and so do the accounts of many; the allocator would keep it for the next time.
async fn give_back_freed() {
    loop {
        tokio::time::sleep(FREED_APART).await;
        let _ = kip_host::tasks::blocking("freed memory", crate::unsafe_allocator::give_back).await;
    }
}

async fn note_uses(keys: &Keys) {
    loop {
        tokio::time::sleep(USES_APART).await;
        write_uses(keys).await;
    }
}

async fn write_uses(keys: &Keys) {
    if let Err(error) = keys.write_uses().await {
        tracing::warn!(%error, "when keys were last used is not written down");
    }
}

fn keys_problem(error: kip_auth::Error) -> Problem {
    match error {
        kip_auth::Error::Store(error) => store_problem(error),
        other => other.into(),
    }
}
