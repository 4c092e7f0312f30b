//! The API of Function Compute 3.0 (version 2023-03-30), for its official clients: signatures, operations, code, invocations.
//!
//! A facade: it reads and writes the functions that `control` holds, as the native API and `kip.yaml` do. What a function's declaration has no
//! word for is kept beside its revision and given back exactly. It decides nothing about instances.
//! Source of the interface: the shared reference on the FC 3.0 API.

mod aliases;
mod arn;
mod asynchronous;
mod bootstrap;
mod code;
mod code_address;
mod config;
mod declaration;
mod domains;
mod error;
mod exec;
mod functions;
mod health;
mod instances;
mod invoke;
mod invoker;
mod layers;
mod legacy;
mod nonces;
pub mod openapi;
mod operations;
mod provision;
mod proxy;
mod query;
mod record;
mod rendering;
mod request;
#[cfg(test)]
mod round_trip_tests;
mod routes;
mod sent_code;
mod serve;
mod settings;
mod shares;
mod sign;
mod sign_fc;
mod signatures;
mod tags;
mod tasks;
mod timers;
mod triggers;
mod uploads;
mod versions;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::routing::{any, get, put};
use kip_auth::Keys;
use kip_control::Control;
use kip_host::tls::NamedCertificates;
use kip_records::metrics::Metrics;
use kip_spec::code::DATA_DIRECTORY_UNUSABLE;
use kip_spec::function::{FunctionSpec, Program};
use kip_spec::{FunctionName, Problem, VersionId};
use kip_tasks::Tasks;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use crate::code::CodeStore;
use crate::invoker::Invoker;
pub use crate::signatures::Signatures;
use crate::timers::TimerSignal;
use crate::uploads::Uploads;

/// Where the operations are on the API's listener.
const PREFIX: &str = "/2023-03-30";
/// Archives of code whose bytes are in memory at once.
const TURNS: usize = 2;

/// The checksum by which the interface names code: CRC-64 of the archive, in decimal digits.
pub fn code_checksum(archive: &[u8]) -> String {
    code::checksum(archive)
}

/// The declaration that a configuration of this interface means, with its code in a folder.
///
/// # Errors
/// What is wrong with the configuration.
pub fn declaration(name: FunctionName, config: &Map<String, Value>, code: &Path) -> Result<FunctionSpec, Problem> {
    let read =
        config::check(config, true).and_then(|()| declaration::fresh(name, config, code)).and_then(|mut spec| {
            let is_custom = request::text(config, "runtime")?.is_some_and(|runtime| runtime.starts_with("custom"));
            if let Program::Command { argv, dir } = &spec.program
                && is_custom
            {
                let reads = code::ports::reads_port(argv, dir, declaration::configured_port(config)?);
                declaration::set_port(config, &mut spec, reads)?;
            }
            Ok(spec)
        });
    read.map_err(|error| Problem::new(error.own, error.message))
}

/// What this room needs of the server around it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of code archives, in the data directory.
    pub code: PathBuf,
    /// The gateway, for the URLs of triggers.
    pub gateway: SocketAddr,
    /// Whether instances of programs can have mounts of their own.
    pub mounts: bool,
    /// Types of devices by the vendor's. Other types are any device with the memory.
    pub gpu_types: BTreeMap<String, String>,
    /// Where requests and refusals are counted.
    pub metrics: Metrics,
    /// The certificates of custom domains, which listeners with TLS use.
    pub certificates: NamedCertificates,
    /// Signatures of callers, which the gateway checks too.
    pub signatures: Signatures,
}

/// The API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fc {
    control: Control,
    keys: Keys,
    tasks: Tasks,
    metrics: Metrics,
    gateway: SocketAddr,
    mounts: bool,
    gpu_types: Arc<BTreeMap<String, String>>,
    codes: CodeStore,
    invoker: Invoker,
    signatures: Signatures,
    turns: Arc<Semaphore>,
    places: Uploads,
    /// One layer gets a number at a time.
    layer_turn: Arc<tokio::sync::Mutex<()>>,
    certificates: NamedCertificates,
    timers: TimerSignal,
    /// Triggers of one function come into force at a time.
    trigger_turn: Arc<tokio::sync::Mutex<()>>,
    /// Of revisions that were invoked.
    checksums: Arc<Mutex<BTreeMap<VersionId, Option<String>>>>,
    /// What addresses of code are signed with, for as long as the server runs.
    address_key: Arc<ring::hmac::Key>,
}

impl Fc {
    /// Opens the room: removes code that no revision names, and starts the thread that invokes.
    ///
    /// # Errors
    /// A problem with code KW-8003 where the folder cannot be used, and what the store says.
    pub async fn open(control: Control, keys: Keys, tasks: Tasks, options: Options) -> Result<Self, Problem> {
        let unusable = |error: std::io::Error| {
            Problem::new(DATA_DIRECTORY_UNUSABLE, "the code of functions cannot be kept").cause(error.to_string())
        };
        let uploads = options.code.join(code::UPLOADS);
        let codes = CodeStore::open(options.code).map_err(unusable)?;
        let places = Uploads::open(uploads).map_err(unusable)?;
        let used: BTreeSet<String> = control.codes().await?.into_iter().collect();
        match codes.collect(&used) {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "code that no version names is removed"),
            Err(error) => tracing::warn!(%error, "code that no version names is not removed"),
        }
        let invoker = Invoker::start(&control, &options.metrics).map_err(unusable)?;
        let mut address_key = [0; 32];
        kip_host::random::fill(&mut address_key);
        let fc = Self {
            control,
            keys,
            tasks,
            metrics: options.metrics,
            gateway: options.gateway,
            mounts: options.mounts,
            gpu_types: Arc::new(options.gpu_types),
            codes,
            invoker,
            signatures: options.signatures,
            turns: Arc::new(Semaphore::new(TURNS)),
            places,
            layer_turn: Arc::default(),
            certificates: options.certificates,
            timers: TimerSignal::default(),
            trigger_turn: Arc::default(),
            checksums: Arc::default(),
            address_key: Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &address_key)),
        };
        fc.hold_stored().await?;
        fc.control.supervisor().critical("fc timers", fc.clone().run_timers());
        Ok(fc)
    }

    /// Lets triggers, domains and disabled functions hold as they are stored: at a start, and after a restore.
    ///
    /// # Errors
    /// What the store says.
    pub async fn hold_stored(&self) -> Result<(), Problem> {
        let unread = |error: error::FcError| Problem::new(error.own, error.message);
        self.hold_http_triggers().await.map_err(unread)?;
        self.hold_disabled().await.map_err(unread)?;
        self.hold_domains().await.map_err(unread)
    }

    /// All paths below `/2023-03-30`, with any method: the table of operations is ours. And what `s` uses to upload code.
    pub fn router(&self) -> Router {
        let paths = [PREFIX.to_owned(), format!("{PREFIX}/"), format!("{PREFIX}/{{*rest}}")];
        let routes = paths.iter().fold(Router::new(), |router, path| router.route(path, any(serve::serve)));
        let routes = routes
            .route("/2016-08-15/tempBucketToken", get(uploads::token))
            .route("/2016-08-15/proxy/{*rest}", any(proxy::pass))
            .route(&format!("/{{account}}/{}/{{id}}", uploads::BUCKET), put(uploads::put));
        routes.with_state(self.clone())
    }
}
