//! What copies between host and device could be at best here, by the kind of memory on the host.

use anyhow::Result;
use kip_freezer::driver::{Buffer, Context, HostBuffer};
use kip_host::clock::monotonic_micros;
use serde_json::json;

use crate::unsafe_mapping::Mapping;
use crate::world::World;

pub(crate) fn run(world: &World) -> Result<()> {
    let bytes = usize::try_from(world.size(4))?;
    let context = Context::create()?;
    let device = context.allocate(bytes)?;
    let mut pageable = vec![1u8; bytes];
    for round in 0..3 {
        copies(world, "pageable", round, &device, &mut pageable)?;
    }
    let (registered, pin_us) = timed(|| {
        context.while_registered(&mut pageable, |memory| {
            (0..3).try_for_each(|round| copies(world, "registered", round, &device, memory))
        })
    });
    registered??;
    world.note("registered", &json!({"bytes": bytes, "with_copies_us": pin_us}));
    let (pinned, allocate_us) = timed(|| context.pinned(bytes));
    let mut pinned = pinned?;
    world.note("pinned", &json!({"bytes": bytes, "allocate_us": allocate_us}));
    for round in 0..3 {
        copies(world, "pinned", round, &device, pinned.bytes())?;
    }
    duplex(world, &context, &device, &mut pinned)?;
    let mapping = Mapping::of_file(&world.settings.out.join("mapped.bin"), &pageable)?;
    for round in 0..3 {
        let (done, to_device_us) = timed(|| device.write(0, mapping.bytes()));
        done?;
        world.note("mapped file", &json!({"round": round, "bytes": bytes, "to_device_us": to_device_us}));
    }
    drop(mapping);
    std::fs::remove_file(world.settings.out.join("mapped.bin"))?;
    Ok(())
}

/// Both directions at once: whether a victim could go while its successor comes.
fn duplex(world: &World, context: &Context, device: &Buffer, pinned: &mut HostBuffer) -> Result<()> {
    let bytes = device.bytes;
    let other_device = context.allocate(bytes)?;
    let mut other = context.pinned(bytes)?;
    let streams = context.duplex()?;
    for round in 0..3 {
        let (done, both_us) = timed(|| streams.copy(device, pinned.bytes(), &other_device, other.bytes()));
        done?;
        world.note("pinned, both ways at once", &json!({"round": round, "bytes_each_way": bytes, "both_us": both_us}));
    }
    Ok(())
}

fn copies(world: &World, case: &str, round: u32, device: &Buffer, memory: &mut [u8]) -> Result<()> {
    let (done, to_device_us) = timed(|| device.write(0, memory));
    done?;
    let (done, to_host_us) = timed(|| device.read(0, memory));
    done?;
    let bytes = memory.len();
    world.note(case, &json!({"round": round, "bytes": bytes, "to_device_us": to_device_us, "to_host_us": to_host_us}));
    Ok(())
}

pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let begun = monotonic_micros();
    let result = work();
    (result, monotonic_micros() - begun)
}
