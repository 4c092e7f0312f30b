//! The helper process: ready before it is needed, replaced when it is lost, gone when its server is.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use kip_freezer::driver::State;
use kip_freezer::{Answer, Ask, DeviceLocks, Error, HelperLoss};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Host, LIMIT, SHORT, program, standin, until};

#[tokio::test]
async fn a_spare_is_ready_and_comes_again_when_one_is_lost() {
    let host = Host::new();
    let desk = host.desk().await;
    until("the spare is there", async || desk.helpers().len() == 2).await;
    let before = desk.helpers();
    let probe = host.probe().await;
    host.knobs("inject.cuCheckpointProcessGetState = hang,0,1");
    let lost = desk.state(probe.pid(), SHORT).await;
    assert!(matches!(lost, Err(Error::Helper(HelperLoss::Hung { .. }))), "{lost:?}");
    assert_eq!(desk.state(probe.pid(), LIMIT).await.unwrap(), State::Running);
    until("there is a spare again", async || desk.helpers().len() == 2).await;
    let after = desk.helpers();
    assert_eq!(before.iter().filter(|helper| after.contains(helper)).count(), 1, "{before:?} {after:?}");
}

#[tokio::test]
async fn helpers_that_were_killed_are_not_asked() {
    let host = Host::new();
    let desk = host.desk().await;
    until("the spare is there", async || desk.helpers().len() == 2).await;
    for helper in desk.helpers() {
        kill_process(Pid::from_raw(i32::try_from(helper).unwrap()).unwrap(), Signal::KILL).unwrap();
        until("it has ended", async || kip_host::processes::look(helper).is_none_or(|it| it.has_ended())).await;
    }
    assert!(desk.report().await.unwrap().cannot_freeze().is_none());
    until("there is a spare again", async || desk.helpers().len() == 2).await;
}

#[tokio::test]
async fn cuda_is_initialised_once_and_takes_no_memory() {
    let host = Host::new();
    host.knobs("inject.cuInit = 0");
    let desk = DeviceLocks::single(host.options()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(desk.report().await.unwrap().devices[0].memory.used, 0);
    }
    assert_eq!(host.calls("cuInit"), 1);
}

#[tokio::test]
async fn a_helper_whose_cuda_does_not_start_says_so() {
    let host = Host::new();
    host.knobs("inject.cuInit = 100");
    let desk = DeviceLocks::single(host.options()).await.unwrap();
    let report = desk.report().await.unwrap();
    assert!(report.cannot_freeze().unwrap().contains("NO_DEVICE"), "{report:?}");
    let state = desk.state(1, LIMIT).await;
    assert!(matches!(state, Err(Error::Driver(_))), "{state:?}");
}

#[tokio::test]
async fn a_helper_that_hangs_at_its_start_is_given_up() {
    let host = Host::new();
    host.knobs("inject.cuInit = hang");
    let mut options = host.options();
    options.start_limit = SHORT;
    let desk = DeviceLocks::single(options).await;
    assert!(matches!(desk, Err(HelperLoss::Hung { .. })), "{desk:?}");
}

#[tokio::test]
async fn without_a_driver_it_says_so() {
    let host = Host::new();
    let mut options = host.options();
    for (_, value) in options.environment.iter_mut().filter(|(name, _)| name.ends_with("_LIBRARY")) {
        *value = "/nowhere/libcuda.so.1".to_owned();
    }
    let desk = DeviceLocks::single(options).await.unwrap();
    let report = desk.report().await.unwrap();
    assert!(report.cannot_freeze().unwrap().starts_with("no driver: "), "{report:?}");
    let state = desk.state(1, LIMIT).await;
    assert!(matches!(state, Err(Error::NoDriver(_))), "{state:?}");
}

#[tokio::test]
async fn an_old_driver_is_named_with_what_it_lacks() {
    let host = Host::new();
    host.knobs("driver = 535.10");
    let mut options = host.options();
    let old = standin().with_file_name("examples").join("libunsafe_old_driver.so");
    options.environment[0].1 = old.display().to_string();
    let desk = DeviceLocks::single(options).await.unwrap();
    let report = desk.report().await.unwrap();
    assert_eq!((report.cuda, report.symbols_missing.len()), (Some(12_020), 6), "{report:?}");
    let why = report.cannot_freeze().unwrap();
    assert!(why.contains("535.10 is too old") && why.contains("cuCheckpointProcessLock"), "{why}");
    let (answer, _) = desk.ask(Ask::State { pid: 1 }, LIMIT).await.unwrap();
    assert!(matches!(&answer, Answer::Failed(failed) if failed.code.is_none()), "{answer:?}");
}

#[tokio::test]
async fn errors_that_nobody_knows_are_named_by_the_driver() {
    let host = Host::new();
    host.knobs("inject.cuCheckpointProcessGetState = 12345");
    let desk = DeviceLocks::single(host.options()).await.unwrap();
    let error = desk.state(1, LIMIT).await.unwrap_err();
    assert!(error.problem().cause.unwrap().contains("12345 (CUDA_ERROR_OF_THE_STANDIN)"));
}

/// A helper as a server starts it, whose server then goes away.
fn orphan(host: &Host) -> (std::process::Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new(program());
    command.arg("helper").envs(host.environment()).stdin(Stdio::from(OwnedFd::from(theirs)));
    (command.spawn().unwrap(), ours)
}

#[tokio::test]
async fn a_helper_ends_with_its_server() {
    let host = Host::new();
    let (mut helper, socket) = orphan(&host);
    assert!(helper.try_wait().unwrap().is_none());
    drop(socket);
    until("it has ended", async || helper.try_wait().unwrap().is_some()).await;
}

#[tokio::test]
async fn a_helper_that_hangs_ends_at_its_deadline_when_its_server_is_gone() {
    use std::io::Write;
    let host = Host::new();
    host.knobs("inject.cuCheckpointProcessGetState = hang");
    let (mut helper, mut socket) = orphan(&host);
    socket.write_all(b"{\"id\":1,\"deadline_ms\":300,\"ask\":{\"state\":{\"pid\":1}}}\n").unwrap();
    until("it hangs", async || host.calls("cuCheckpointProcessGetState") == 1).await;
    drop(socket);
    until("it has ended", async || helper.try_wait().unwrap().is_some()).await;
}

/// Finishing is better for the process that is being frozen than breaking off.
#[tokio::test]
async fn a_helper_finishes_what_it_is_at_when_its_server_is_gone() {
    use std::io::Write;
    let host = Host::new();
    let desk = DeviceLocks::single(host.options()).await.unwrap();
    let probe = host.probe().await;
    let act = |call: &str| {
        format!(
            "{{\"id\":1,\"deadline_ms\":60000,\"ask\":{{\"act\":{{\"call\":\"{call}\",\"pid\":{},\"timeout_ms\":0}}}}}}\n",
            probe.pid()
        )
    };
    let (mut helper, mut socket) = orphan(&host);
    host.knobs("fixed_ms = 300\ninject.cuCheckpointProcessCheckpoint = 0");
    let slow = fs::read_to_string(host.folder.path().join("knobs")).unwrap();
    assert!(slow.contains("300"));
    socket.write_all(act("lock").as_bytes()).unwrap();
    until("it is locked", async || desk.state(probe.pid(), LIMIT).await.unwrap() == State::Locked).await;
    host.knobs("fixed_ms = 300\ninject.cuCheckpointProcessCheckpoint = slow");
    socket.write_all(act("checkpoint").as_bytes()).unwrap();
    until("it is at it", async || host.calls("cuCheckpointProcessCheckpoint") == 1).await;
    drop(socket);
    until("it has ended", async || helper.try_wait().unwrap().is_some()).await;
    assert_eq!(desk.state(probe.pid(), LIMIT).await.unwrap(), State::Checkpointed);
}
