//! The rows that should harm nobody.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use kip_freezer::DeviceLocks;
use kip_freezer::probe::{Probe, ProbeOptions};
use serde_json::json;

use crate::world::{PROBE_LIMIT, Settings, World, helper, memory, note};
use crate::{ceilings, cpu, pinning, prefault, risky};

pub(crate) fn run(name: &str, settings: &Settings) -> Result<()> {
    if name == "cpu" {
        if let Err(error) = cpu::run(name, settings) {
            note(name, "-", &json!({"failed": format!("{error:#}")}));
        }
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let world = World::open(name, settings).await?;
        let done = match name {
            "start" => start(&world).await,
            "ceilings" => ceilings::run(&world),
            "pinning" => pinning::run(&world),
            "freeze" => freeze(&world).await,
            "helpers" => helpers(&world).await,
            "prefault" => prefault::run(&world).await,
            "hook" => hook(&world).await,
            "weight" => weight(&world).await,
            "platform" => {
                let why = "a measurement through the server is not written yet";
                world.note("-", &json!({"skipped": why}));
                Ok(())
            }
            "order" => risky::order(&world).await,
            "managed" => risky::managed(&world).await,
            "killed" => risky::killed(&world).await,
            "retire" => risky::retire(&world).await,
            "full" => risky::full(&world).await,
            other => bail!("there is no row {other}"),
        };
        if let Err(error) = done {
            world.note("-", &json!({"failed": format!("{error:#}")}));
        }
        Ok(())
    })
}

/// How long initialising CUDA takes, in the first helper and in later ones.
async fn start(world: &World) -> Result<()> {
    for case in ["first", "again", "again", "again"] {
        let desk = DeviceLocks::single(helper()?).await?;
        let took = desk.started_in().unwrap_or_default();
        world.note(case, &json!({"init_us": u64::try_from(took.as_micros())?}));
    }
    let root = rustix::process::geteuid().is_root();
    world.note("host", &json!({"root": root, "persistence": world.device.persistence}));
    Ok(())
}

/// Freezing and waking by size, each step apart.
async fn freeze(world: &World) -> Result<()> {
    for gib in [0, 1, 4, 16, 32, 48] {
        let bytes = world.size(gib);
        let case = format!("{gib} GiB");
        if bytes + bytes / 8 > world.device.memory.free {
            world.note(&case, &json!({"skipped": "the device is smaller"}));
            continue;
        }
        if !world.has_time(&case, bytes) {
            continue;
        }
        let mut probe = world.probe(bytes).await?;
        let done = cycles(world, &world.desk, &case, &mut probe).await;
        world.end(probe, true).await?;
        done?;
    }
    Ok(())
}

/// Freezes and wakes a probe again and again.
async fn cycles(world: &World, desk: &DeviceLocks, case: &str, probe: &mut Probe) -> Result<()> {
    let order = world.order(&[probe.pid()]).await?;
    let sum = probe.tell("sum", PROBE_LIMIT).await?.sum;
    for cycle in 1..=world.cycles() {
        if cycle > 1 && !world.has_time(case, order.bytes) {
            break;
        }
        let used = world.used().await?;
        let (frozen, residue) = world.freeze(desk, &order).await?;
        let (used_frozen, resident) = (world.used().await?, memory(probe.pid(), "VmRSS:"));
        let woken = world.wake(desk, &order).await?;
        let first = probe.tell("first", PROBE_LIMIT).await?;
        let same = probe.tell("sum", PROBE_LIMIT).await?.sum == sum;
        world.note(
            case,
            &json!({
                "cycle": cycle, "bytes": order.bytes, "lock_us": frozen.lock_us,
                "checkpoint_us": frozen.checkpoint_us, "restore_us": woken.restore_us, "unlock_us": woken.unlock_us,
                "first_us": first.took_us, "same": same, "residue": residue, "used_awake": used,
                "used_frozen": used_frozen, "resident_frozen": resident,
            }),
        );
        if !same {
            bail!("content has changed");
        }
    }
    Ok(())
}

/// The same process frozen by a helper that is there, and by one that is started for each operation.
async fn helpers(world: &World) -> Result<()> {
    let mut probe = world.probe(world.size(1)).await?;
    let done = cycles(world, &world.desk, "resident", &mut probe).await;
    let order = world.order(&[probe.pid()]).await?;
    for cycle in 1..=3 {
        let begun = kip_host::clock::monotonic_micros();
        world.freeze(&DeviceLocks::single(helper()?).await?, &order).await?;
        let frozen = kip_host::clock::monotonic_micros();
        world.wake(&DeviceLocks::single(helper()?).await?, &order).await?;
        let woken = kip_host::clock::monotonic_micros();
        let figures = json!({"cycle": cycle, "freeze_all_us": frozen - begun, "wake_all_us": woken - frozen});
        world.note("fresh", &figures);
    }
    world.end(probe, true).await?;
    done
}

/// An engine that keeps a pinned copy and gives its device memory back by itself; then the driver for what is left.
async fn hook(world: &World) -> Result<()> {
    for gib in [4, 16, 32] {
        let (bytes, case) = (world.size(gib), format!("{gib} GiB"));
        if bytes + bytes / 8 > world.device.memory.free || !world.has_time(&case, 2 * bytes) {
            continue;
        }
        let mut probe = world.probe(bytes).await?;
        let sum = probe.tell("sum", PROBE_LIMIT).await?.sum;
        for cycle in 1..=world.cycles().min(5) {
            let dropped = probe.tell("drop", PROBE_LIMIT).await?;
            let left = world.used().await?;
            let reloaded = probe.tell("reload", PROBE_LIMIT).await?;
            let figures = json!({
                "cycle": cycle, "bytes": bytes, "drop_us": dropped.took_us, "reload_us": reloaded.took_us,
                "used_dropped": left,
            });
            world.note(&case, &figures);
        }
        probe.tell("drop", PROBE_LIMIT).await?;
        let order = world.order(&[probe.pid()]).await?;
        let (frozen, residue) = world.freeze(&world.desk, &order).await?;
        let woken = world.wake(&world.desk, &order).await?;
        let reloaded = probe.tell("reload", PROBE_LIMIT).await?;
        let same = probe.tell("sum", PROBE_LIMIT).await?.sum == sum;
        world.note(
            &format!("{case}, then driver"),
            &json!({
                "checkpoint_us": frozen.checkpoint_us, "restore_us": woken.restore_us, "residue": residue,
                "reload_us": reloaded.took_us, "same": same,
            }),
        );
        world.end(probe, true).await?;
        if !same {
            bail!("content has changed");
        }
    }
    Ok(())
}

/// What a context costs by what was loaded into it, with a server of PyTorch.
async fn weight(world: &World) -> Result<()> {
    let Some(file) = world.settings.torch.clone().filter(|file| file.is_file() && !world.settings.dry) else {
        world.note("-", &json!({"skipped": "PyTorch is not used here"}));
        return Ok(());
    };
    for weight in ["bare", "cublas", "cudnn", "graphs", "compiled"] {
        if !world.has_time(weight, world.size(1)) {
            continue;
        }
        let bytes = world.size(1).to_string();
        let arguments = vec![file.clone().into(), "--bytes".into(), bytes.into(), "--weight".into(), weight.into()];
        let options =
            ProbeOptions { program: "python3".into(), arguments, environment: Vec::new(), kill_on_drop: false };
        let mut probe = match Probe::start(&options, Some(&world.device.uuid), PROBE_LIMIT).await {
            Ok(probe) => probe,
            Err(error) => {
                world.note(weight, &json!({"failed": format!("{:#}", anyhow!(error))}));
                continue;
            }
        };
        let done = tokio::time::timeout(Duration::from_secs(120), cycles(world, &world.desk, weight, &mut probe)).await;
        world.end(probe, true).await?;
        if let Ok(Err(error)) = done {
            world.note(weight, &json!({"failed": format!("{error:#}")}));
        }
    }
    Ok(())
}
