//! A host with a driver for each test: its own folder of the stand-in, its own helpers and processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use kip_freezer::driver::State;
use kip_freezer::journal::{Entry, Journal, Step};
use kip_freezer::probe::{Probe, ProbeOptions};
use kip_freezer::tree::{self, Limits, Order};
use kip_freezer::{DeviceLocks, Options};
use kip_host::clock::boot_millis;
use parking_lot::Mutex;

/// Nothing takes this long here, however busy the machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// For calls that are made to hang.
pub(crate) const SHORT: Duration = Duration::from_millis(400);

/// The device of a stand-in that has one.
pub(crate) const DEVICE: &str = "GPU-00000000-0000-0000-0000-000000000000";

/// What every process holds.
pub(crate) const BYTES: u64 = 1 << 20;
/// And its context.
pub(crate) const CONTEXT: u64 = 64 << 20;

/// `target/release`, whatever it is called here.
fn built() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(Path::parent).unwrap().to_owned()
}

/// The program that is helper, probe and benchmark.
pub(crate) fn program() -> PathBuf {
    let program = built().join("examples/gpu_bench");
    assert!(program.is_file(), "{} is not built: cargo builds examples before tests", program.display());
    program
}

/// The stand-in, built once: no crate depends on it, so cargo does not do it by itself.
pub(crate) fn standin() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = built().parent().unwrap().to_owned();
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--release", "--quiet", "-p", "kip-cuda-standin", "--lib", "--examples"]);
        let status = command.arg("--target-dir").arg(&target).current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(status.unwrap().success(), "the stand-in cannot be built");
        target.join("release/libkip_cuda_standin.so")
    })
}

/// A host of its own.
pub(crate) struct Host {
    pub(crate) folder: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Turns knobs, all at once; counts of earlier faults are forgotten.
    pub(crate) fn knobs(&self, text: &str) {
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_string_lossy().starts_with("count.") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        // In one step: a process may be reading it.
        fs::write(self.folder.path().join("knobs.new"), text).unwrap();
        fs::rename(self.folder.path().join("knobs.new"), self.folder.path().join("knobs")).unwrap();
    }

    /// How often a call was made since the knobs were turned; counted only of calls that have one.
    pub(crate) fn calls(&self, call: &str) -> u64 {
        let count = fs::read_to_string(self.folder.path().join(format!("count.{call}")));
        count.map_or(0, |count| count.parse().unwrap())
    }

    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let library = standin().display().to_string();
        vec![
            ("KIPWAKE_CUDA_LIBRARY".to_owned(), library.clone()),
            ("KIPWAKE_NVML_LIBRARY".to_owned(), library),
            ("KIPWAKE_STANDIN_DIR".to_owned(), self.folder.path().display().to_string()),
        ]
    }

    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new(program());
        options.arguments = vec!["helper".to_owned()];
        options.environment = self.environment();
        options.start_limit = LIMIT;
        options
    }

    pub(crate) async fn desk(&self) -> DeviceLocks {
        DeviceLocks::open(self.options()).await.unwrap()
    }

    pub(crate) fn probe_options(&self) -> ProbeOptions {
        ProbeOptions {
            program: program(),
            arguments: vec!["probe".into()],
            environment: self.environment(),
            kill_on_drop: true,
        }
    }

    pub(crate) async fn probe(&self) -> Probe {
        let mut options = self.probe_options();
        options.arguments.push(BYTES.to_string().into());
        Probe::start(&options, None, LIMIT).await.unwrap()
    }

    /// Two processes that are one instance.
    pub(crate) async fn tree(&self) -> [Probe; 2] {
        [self.probe().await, self.probe().await]
    }
}

/// What is to be done with some processes.
pub(crate) async fn order(desk: &DeviceLocks, probes: &[Probe]) -> Order {
    let processes: Vec<u32> = probes.iter().map(Probe::pid).collect();
    let members = tree::find(desk, &processes, LIMIT).await.unwrap();
    assert_eq!(members.len(), probes.len(), "all use CUDA");
    Order {
        instance: "i-1-1-1".parse().unwrap(),
        operation: 1,
        bytes: (BYTES + CONTEXT) * u64::try_from(members.len()).unwrap(),
        members,
        devices: vec![DEVICE.to_owned()],
        was_restored: false,
        limits: patient(),
    }
}

/// Limits that nothing meets unless it hangs.
pub(crate) fn patient() -> Limits {
    let none = Duration::ZERO;
    Limits {
        lock: LIMIT,
        lock_grace: none,
        checkpoint: LIMIT,
        checkpoint_per_gib: none,
        restore: LIMIT,
        restore_per_gib: none,
        unlock: LIMIT,
        look: LIMIT,
        verify: Duration::from_millis(300),
    }
}

/// The states of an order's processes.
pub(crate) async fn states(desk: &DeviceLocks, order: &Order) -> Vec<State> {
    let mut states = Vec::new();
    for member in &order.members {
        states.push(desk.state(member.pid, LIMIT).await.unwrap());
    }
    states
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let end = boot_millis() + u64::try_from(LIMIT.as_millis()).unwrap();
    while !look().await {
        assert!(boot_millis() < end, "waited {LIMIT:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A journal that keeps all entries, and can fail or stop for ever at one of them.
#[derive(Default)]
pub(crate) struct RecordingJournal {
    pub(crate) entries: Mutex<Vec<Entry>>,
    pub(crate) fails_at: Option<Step>,
    pub(crate) stops_at: Option<Step>,
}

impl RecordingJournal {
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.entries.lock().iter().map(|entry| entry.step).collect()
    }

    pub(crate) fn last(&self) -> Entry {
        self.entries.lock().last().unwrap().clone()
    }
}

#[async_trait]
impl Journal for RecordingJournal {
    async fn write(&self, entry: &Entry) -> Result<(), String> {
        // Entries are read back as a later server would read them.
        let entry: Entry = serde_json::from_str(&serde_json::to_string(entry).unwrap()).unwrap();
        let step = entry.step;
        if self.fails_at == Some(step) {
            return Err("no room".to_owned());
        }
        self.entries.lock().push(entry);
        if self.stops_at == Some(step) {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}
