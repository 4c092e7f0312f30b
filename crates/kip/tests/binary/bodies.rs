//! What runs the subject of a test: processes, or containers of an engine. The same tests run on all of them.

use std::cell::RefCell;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use kip_host::http_client;
use serde_json::Value;

use crate::http::Answer;
use crate::support::{Server, call, until};

/// The image of the subject: the program at the path that it has on this host. The test command makes it.
pub(crate) const IMAGE: &str = "kip-subject:test";

/// A container engine that the test command has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Docker,
    Podman,
}

impl Engine {
    /// Its socket, where one was started.
    pub(crate) fn socket(self) -> Option<PathBuf> {
        let variable = match self {
            Self::Docker => "KIP_TEST_DOCKER",
            Self::Podman => "KIP_TEST_PODMAN",
        };
        kip_host::environment::read(variable).map(PathBuf::from)
    }

    /// A call of its API.
    pub(crate) fn ask(self, method: &str, path: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
        ask_engine(&self.socket().expect("an engine"), method, path, body)
    }

    /// The containers of a server, as the engine lists them.
    pub(crate) fn containers(self, server: &str) -> Vec<Value> {
        let filters = format!("{{\"label\":[\"dev.kipwake.server={server}\"]}}");
        let filters =
            filters.replace('{', "%7B").replace('}', "%7D").replace('"', "%22").replace('[', "%5B").replace(']', "%5D");
        let (status, body) = self.ask("GET", &format!("/v1.41/containers/json?all=true&filters={filters}"), Vec::new());
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice::<Vec<Value>>(&body).unwrap()
    }
}

/// What the test of this thread runs on.
#[derive(Debug, Clone)]
struct Bench {
    engine: Engine,
    /// The socket of an engine of its own, in place of the common one.
    socket: Option<PathBuf>,
    /// The folder of its newest server.
    folder: PathBuf,
    /// Where that one's API is, and its key.
    api: Option<(SocketAddr, String)>,
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

/// Runs a test with containers in the place of processes.
#[expect(clippy::print_stdout, reason = "the test command counts what is skipped")]
pub(crate) fn on(engine: Engine, test: fn()) {
    if engine.socket().is_none() {
        println!(
            "skipped: no {engine:?} was started for tests of containers; `cargo xtask test containers` as root does"
        );
        return;
    }
    BENCH.with(|bench| *bench.borrow_mut() = Some(Bench { engine, socket: None, folder: PathBuf::new(), api: None }));
    test();
    BENCH.with(|bench| *bench.borrow_mut() = None);
}

fn bench() -> Option<Bench> {
    BENCH.with(|bench| bench.borrow().clone())
}

/// The engine of this thread's test; none where it runs processes.
pub(crate) fn engine() -> Option<Engine> {
    bench().map(|bench| bench.engine)
}

/// Further settings of a server in this folder.
pub(crate) fn settings(folder: &Path) -> String {
    let Some(Bench { engine, socket, .. }) = bench() else { return String::new() };
    BENCH.with(|bench| bench.borrow_mut().as_mut().expect("a bench").folder = folder.to_owned());
    let socket = socket.or_else(|| engine.socket()).expect("an engine");
    format!("[containers]\nengine = \"{}\"\nmounts = \"{}\"\n", socket.display(), folder.display())
}

/// Servers of this thread's test use the engine behind this socket from now on.
pub(crate) fn use_socket(socket: &Path) {
    BENCH.with(|bench| bench.borrow_mut().as_mut().expect("a bench").socket = Some(socket.to_owned()));
}

/// Whether an engine answers.
pub(crate) fn answers(socket: &Path) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let request = http::Request::get("/v1.41/version").body(Full::default()).unwrap();
    let answer = runtime.block_on(http_client::call_socket(socket, request, Duration::from_secs(10)));
    answer.is_ok_and(|answer| answer.status == 200)
}

/// A call of the API of an engine.
pub(crate) fn ask_engine(socket: &Path, method: &str, path: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
    let request = http::Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(http_client::call_socket(socket, request, Duration::from_secs(60))).unwrap();
    (answer.status, answer.body.to_vec())
}

/// Notes where the newest server is.
pub(crate) fn serves(server: &Server) {
    BENCH.with(|bench| {
        if let Some(bench) = bench.borrow_mut().as_mut() {
            bench.api = Some((server.api, server.key.clone()));
        }
    });
}

/// Lines of a function that runs the subject.
pub(crate) fn lines() -> String {
    match bench() {
        Some(Bench { folder, .. }) => {
            let folder = folder.display();
            format!("    image: {IMAGE}\n    dir: {folder}\n    container: {{mounts: ['{folder}:{folder}:rw']}}\n")
        }
        None => "    code: live\n".to_owned(),
    }
}

/// The process on this host whose answer this is. Inside a container every program has the number 1.
pub(crate) fn pid(answer: &Answer) -> u32 {
    assert_eq!(answer.status(), 200, "{answer:?}");
    let Some(Bench { api: Some((api, key)), .. }) = bench() else {
        return answer.text().parse().expect("a process id");
    };
    let instance = answer.header("x-kip-instance").expect("the instance is named");
    let header = format!("authorization: Bearer {key}\r\n");
    let info = call(api, "GET", &format!("/api/v1/instances/{instance}"), &header, b"").json();
    u32::try_from(info["process"].as_u64().unwrap_or_else(|| panic!("no process: {info}"))).unwrap()
}

/// The folder below the data directory in which instances have theirs, and the name of their journal.
pub(crate) fn journals() -> (&'static str, &'static str) {
    if bench().is_some() { ("containers", "container.json") } else { ("instances", "journal.json") }
}

/// The id of a server, which its containers carry.
pub(crate) fn id_of(server: &Server) -> String {
    let process = until("an instance runs", || server.known().first().copied());
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap();
    let is_id = |part: &&str| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = groups.split(['/', '\n', '-', '.']).find(is_id).expect("a cgroup of its container").to_owned();
    let (_, body) = engine().expect("an engine").ask("GET", &format!("/v1.41/containers/{id}/json"), Vec::new());
    let found: Value = serde_json::from_slice(&body).unwrap();
    found["Config"]["Labels"]["dev.kipwake.server"].as_str().expect("it names its server").to_owned()
}
