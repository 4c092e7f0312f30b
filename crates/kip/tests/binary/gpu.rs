//! `kip doctor` and `kip device` without a driver, with an old one, and with the stand-in for development.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::{ChildGuard, CommandOutput, KIP, Server, kip, run, until, until_true};

/// The stand-in, built once: no crate depends on it, so cargo does not do it by itself.
pub(crate) fn standin() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = Path::new(KIP).parent().and_then(Path::parent).unwrap().to_owned();
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--release", "--quiet", "-p", "kip-cuda-standin", "--lib", "--examples"]);
        let status = command.arg("--target-dir").arg(&target).current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(status.unwrap().success(), "the stand-in cannot be built");
        target.join("release/libkip_cuda_standin.so")
    })
}

/// A data directory and a driver.
struct Host {
    folder: tempfile::TempDir,
    cuda: PathBuf,
    nvml: PathBuf,
}

impl Host {
    fn with(cuda: PathBuf, nvml: PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        fs::create_dir(folder.path().join("driver")).unwrap();
        Self { folder, cuda, nvml }
    }

    fn standin() -> Self {
        let host = Self::with(standin().to_owned(), standin().to_owned());
        host.knobs("");
        host
    }

    fn knobs(&self, text: &str) {
        fs::write(self.folder.path().join("driver/knobs"), format!("capacity = 536870912\n{text}\n")).unwrap();
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn set(&self, command: &mut Command) {
        command.env("KIPWAKE_CUDA_LIBRARY", &self.cuda).env("KIPWAKE_NVML_LIBRARY", &self.nvml);
        command.env("KIPWAKE_STANDIN_DIR", self.folder.path().join("driver"));
    }

    fn kip(&self, arguments: &[&str]) -> CommandOutput {
        let mut command = kip(&self.data());
        self.set(command.args(arguments));
        run(&mut command)
    }

    /// Details of what `kip doctor` found under a heading.
    fn doctor(&self, what: &str) -> Vec<String> {
        let findings = self.kip(&["doctor", "-o", "json"]).json();
        let of = findings.as_array().unwrap().iter().filter(|finding| finding["what"] == what);
        of.map(|finding| finding["detail"].as_str().unwrap().to_owned()).collect()
    }

    fn devices(&self) -> Value {
        self.kip(&["device", "ls", "-o", "json"]).ok().json()
    }

    /// A process that holds memory of the device until it is dropped.
    fn holder(&self) -> ChildGuard {
        let mut command = kip(&self.data());
        self.set(command.args(["gpu-probe", "1048576"]).stdin(Stdio::piped()).stdout(Stdio::null()));
        let child = ChildGuard::spawn(&mut command);
        until("it holds memory", || {
            let held = &self.devices()[0]["device"]["holders"];
            held.as_array().unwrap().iter().any(|holder| holder["bytes"].as_u64() > Some(1 << 20)).then_some(())
        });
        child
    }
}

#[test]
fn without_a_driver() {
    let nowhere = PathBuf::from("/nowhere/lib.so");
    let host = Host::with(nowhere.clone(), nowhere);
    let driver = host.doctor("gpu driver");
    assert!(driver[0].starts_with("none; functions run on the CPU"), "{driver:?}");
    assert_eq!(host.doctor("rung"), Vec::<String>::new());
    assert_eq!(host.devices(), serde_json::json!([]));
    host.kip(&["device", "qualify", "gpu0"]).failed(&["KW-4011", "no GPU driver", "kip doctor"]);
}

#[test]
fn with_an_old_driver() {
    let old = standin().with_file_name("examples").join("libunsafe_old_driver.so");
    let host = Host::with(old, standin().to_owned());
    host.knobs("driver = 535.1");
    let driver = host.doctor("gpu driver").join("\n");
    for part in ["535.1", "CUDA 12.2", "1 device", "lacks cuCheckpointProcessGetState", "570 or newer"] {
        assert!(driver.contains(part), "{part}: {driver}");
    }
    let rungs = host.doctor("rung").join("\n");
    assert!(rungs.contains("paused: possible") && rungs.contains("parked by the driver: not possible"), "{rungs}");
    assert_eq!(host.devices()[0]["qualified"], "no");
    host.kip(&["device", "qualify", "gpu0"]).failed(&["KW-4012", "535.1 is too old"]);
}

#[test]
fn with_the_stand_in_a_device_qualifies_for_its_driver_only() {
    let host = Host::standin();
    let rung = |host: &Host| host.doctor("rung").pop().unwrap();
    assert!(rung(&host).contains("not qualified on this driver: `kip device qualify gpu0`"), "{}", rung(&host));
    let ran = host.kip(&["device", "qualify", "gpu0"]).ok();
    assert!(ran.stdout.contains("is qualified with driver 580.159.00-standin"), "{ran:?}");
    for part in ["can hang the device or the host", "cycle 3 of 3", "emptied, killed"] {
        assert!(ran.stderr.contains(part), "{part}: {ran:?}");
    }
    assert_eq!(rung(&host), "gpu0: parked by the driver: possible");
    let devices = host.devices();
    assert_eq!((&devices[0]["qualified"], &devices[0]["device"]["holders"]), (&"yes".into(), &serde_json::json!([])));
    host.knobs("driver = 590.1");
    assert!(rung(&host).contains("not qualified"), "{}", rung(&host));
}

#[test]
fn a_device_that_fails_is_told_and_stays_off() {
    let host = Host::standin();
    host.knobs("inject.cuCheckpointProcessRestore = corrupt");
    host.kip(&["device", "qualify", "gpu0"]).failed(&["KW-4020", "content has changed"]);
    assert!(host.doctor("qualification")[0].contains("content has changed"));
    assert_eq!(host.devices()[0]["qualified"], "failed");
    assert!(host.doctor("rung").pop().unwrap().contains("not possible"));
    // A good one later takes its place.
    host.knobs("");
    host.kip(&["device", "qualify", "gpu0"]).ok();
    assert_eq!(host.doctor("qualification"), Vec::<String>::new());
}

#[test]
fn who_holds_memory_is_told_and_a_device_in_use_is_not_qualified() {
    let host = Host::standin();
    let holder = host.holder();
    let told = host.doctor("device").join("\n");
    assert!(told.contains(&format!("held by kip (process {}): 65 MiB", holder.pid())), "{told}");
    assert!(host.kip(&["device", "ls"]).ok().stdout.contains(&format!("process {}", holder.pid())));
    host.kip(&["device", "qualify", "gpu0"]).failed(&["KW-4019", "other programs use gpu0", "--force"]);
    host.kip(&["device", "qualify", "gpu0", "--force"]).ok();
    host.kip(&["device", "qualify", "gpu7"]).failed(&["KW-4018", "`gpu7`", "is gpu0"]);
}

#[test]
fn a_driver_that_breaks_down_is_a_finding() {
    let host = Host::standin();
    host.knobs("inject.cuInit = die");
    let found = host.doctor("gpu helper").join("\n");
    assert!(found.contains("ended in the midst of its start"), "{found}");
    host.kip(&["device", "ls"]).failed(&["KW-4014"]);
}

#[test]
fn instances_of_a_server_leave_the_device_while_it_is_qualified() {
    let server = Server::with("[[device]]\nname = \"big one\"\nmemory = \"1GiB\"\n");
    server.deploy_subject(&[], "resources: {gpu: {memory: 1MiB}}");
    server.get("/pid");
    until_true("it is on the device", || server.ask(&["ps"]).to_string().contains("big one"));
    let host = Host::standin();
    let qualify = |device: &str| {
        let mut command = kip(&server.data());
        host.set(command.args(["device", "qualify", device]));
        run(&mut command)
    };
    for device in ["big one", "gpu0"] {
        assert_eq!(server.get("/pid").status(), 200);
        qualify(device).ok();
    }
    assert_eq!(server.get("/pid").status(), 200, "it is in use again");
    let why = server.kip(&["why", "f"]).ok().stdout;
    assert_eq!(why.matches("its device is yielded (kip device yield)").count(), 2, "{why}");
}

#[test]
fn the_driver_is_loaded_by_the_helper_only() {
    let host = Host::standin();
    host.knobs("inject.nvmlInit_v2 = hang");
    let mut command = kip(&host.data());
    host.set(command.arg("doctor").stdout(Stdio::null()).stderr(Stdio::null()));
    let doctor = ChildGuard::spawn(&mut command);
    let has_driver = |process: u32| {
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
        maps.contains("libkip_cuda_standin.so")
    };
    let helper = until("the helper has the driver", || {
        let file = format!("/proc/{0}/task/{0}/children", doctor.pid());
        let children = fs::read_to_string(file).unwrap_or_default();
        children.split_whitespace().filter_map(|child| child.parse().ok()).find(|child| has_driver(*child))
    });
    assert!(!has_driver(doctor.pid()));
    // It hangs, and yet it ends when its server is killed.
    drop(doctor);
    until_true("the helper has ended", || !has_driver(helper));
}
