//! The rows that could harm the driver: each is expected to fail in a certain way, and what came instead is written down.
//! None of them kills a process that is alive and was restored.

use std::time::Duration;

use anyhow::{Context, Result};
use kip_freezer::driver::Call;
use kip_freezer::journal::NullJournal;
use kip_freezer::probe::Probe;
use kip_freezer::tree::{self, FreezeOutcome, RetireOutcome};
use kip_freezer::{Answer, Ask};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::group::Group;
use crate::world::{PROBE_LIMIT, World};

/// A restore of a process that gets no CPU, stopped by a signal and frozen by its cgroup: it must hang, and come to its end
/// when the process runs again.
pub(crate) async fn order(world: &World) -> Result<()> {
    for halt in ["stopped", "cgroup"] {
        let probe = world.probe(world.size(1)).await?;
        let process = probe.pid();
        if halt == "stopped" {
            let halted =
                PauseMethod { halt: || signal(process, Signal::STOP), go_on: || signal(process, Signal::CONT) };
            restored_halted(world, halt, probe, halted).await?;
            continue;
        }
        match Group::around(process) {
            Ok(group) => {
                let halted = PauseMethod { halt: || Ok(group.freeze()?), go_on: || Ok(group.thaw()?) };
                restored_halted(world, halt, probe, halted).await?;
            }
            Err(why) => {
                world.note(halt, &json!({"skipped": why}));
                world.end(probe, false).await?;
            }
        }
    }
    Ok(())
}

/// A way to take the CPU from a process and to give it back.
struct PauseMethod<H, G> {
    halt: H,
    go_on: G,
}

async fn restored_halted<H, G>(world: &World, case: &str, mut probe: Probe, way: PauseMethod<H, G>) -> Result<()>
where
    H: Fn() -> Result<()>,
    G: Fn() -> Result<()>,
{
    let order = world.order(&[probe.pid()]).await?;
    let sum = probe.tell("sum", PROBE_LIMIT).await?.sum;
    world.freeze(&world.desk, &order).await?;
    (way.halt)()?;
    // The driver is asked directly, for the freezer itself refuses such a restore.
    let seen = comes_to_rest(probe.pid()).await;
    let watchdog = if world.settings.dry { Duration::from_millis(300) } else { Duration::from_secs(10) };
    let ask = Ask::Act { call: Call::Restore, pid: probe.pid(), timeout_ms: 0 };
    let asked = world.desk.ask(ask, watchdog).await;
    (way.go_on)()?;
    // The helper was killed; whether the process was restored by its own thread all the same is the question.
    let state = world.desk.state(probe.pid(), Duration::from_secs(10)).await;
    let figures = json!({"seen": seen, "hung": asked.is_err(), "state_after": format!("{state:?}")});
    world.note(case, &figures);
    if asked.is_err() && matches!(state, Ok(kip_freezer::driver::State::Checkpointed)) {
        world.wake(&world.desk, &order).await?;
        let same = probe.tell("sum", PROBE_LIMIT).await?.sum == sum;
        world.note(&format!("{case}, restored after it"), &json!({"same": same}));
    }
    world.end(probe, true).await
}

/// Whether it is seen to get no CPU. A signal takes a moment to stop it.
async fn comes_to_rest(process: u32) -> bool {
    for _ in 0..1_000 {
        if kip_freezer::halt::is_halted(process) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    false
}

/// A process with managed memory: its checkpoint must be refused.
pub(crate) async fn managed(world: &World) -> Result<()> {
    let mut probe = world.probe(world.size(1)).await?;
    probe.tell("managed", PROBE_LIMIT).await?;
    let order = world.order(&[probe.pid()]).await?;
    let frozen = tree::freeze(&world.desk, &order, &NullJournal).await;
    world.note("1 MiB managed", &json!({"came": said(&frozen)}));
    world.end(probe, false).await
}

/// A checkpointed process is killed: nothing of it may be left.
pub(crate) async fn killed(world: &World) -> Result<()> {
    let before = world.used().await?;
    let probe = world.probe(world.size(4)).await?;
    let order = world.order(&[probe.pid()]).await?;
    world.freeze(&world.desk, &order).await?;
    let frozen = world.used().await?;
    probe.kill(PROBE_LIMIT).await?;
    world.note(
        "checkpointed",
        &json!({"used_before": before, "used_frozen": frozen, "used_after": world.used().await?}),
    );
    Ok(())
}

/// A restored process is emptied and then killed.
pub(crate) async fn retire(world: &World) -> Result<()> {
    let before = world.used().await?;
    let probe = world.probe(world.size(4)).await?;
    let mut order = world.order(&[probe.pid()]).await?;
    world.freeze(&world.desk, &order).await?;
    world.wake(&world.desk, &order).await?;
    order.was_restored = true;
    let retired = tree::retire(&world.desk, &order, &NullJournal).await;
    let empty = matches!(retired, RetireOutcome::Empty);
    probe.kill(PROBE_LIMIT).await?;
    world.note("restored", &json!({"emptied": empty, "used_before": before, "used_after": world.used().await?}));
    Ok(())
}

/// A restore without room: expected are 2 at first and 304 ever after. The instance is lost by it, which is why nobody
/// else ever asks for that.
pub(crate) async fn full(world: &World) -> Result<()> {
    let bytes = world.size(4);
    let probe = world.probe(bytes).await?;
    let order = world.order(&[probe.pid()]).await?;
    world.freeze(&world.desk, &order).await?;
    let report = world.desk.report().await?;
    let device = report.devices.iter().find(|device| device.uuid == world.device.uuid).context("the device is gone")?;
    // So much that half of it is left, and what the filler's own context takes.
    let filler = world.probe(device.memory.free.saturating_sub(bytes / 2 + world.size(1) / 2)).await?;
    for case in ["first", "again"] {
        let ask = Ask::Act { call: Call::Restore, pid: probe.pid(), timeout_ms: 0 };
        let answer = world.desk.ask(ask, Duration::from_secs(30)).await;
        let came = match answer {
            Ok((Answer::Failed(failed), _)) => failed.to_string(),
            other => format!("{other:?}"),
        };
        world.note(case, &json!({"came": came}));
    }
    filler.kill(PROBE_LIMIT).await?;
    Ok(probe.kill(PROBE_LIMIT).await?)
}

fn said(frozen: &FreezeOutcome) -> String {
    match frozen {
        FreezeOutcome::Parked { .. } => "frozen".to_owned(),
        FreezeOutcome::Unlocked(error) => format!("unlocked: {}", chain(error)),
        FreezeOutcome::MustDie(error) => format!("must die: {}", chain(error)),
    }
}

fn chain(error: &kip_freezer::Error) -> String {
    let problem = error.problem();
    problem.cause.unwrap_or(problem.message)
}

fn signal(process: u32, signal: Signal) -> Result<()> {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).context("it has ended")?;
    Ok(kill_process(process, signal)?)
}
