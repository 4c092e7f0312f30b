//! What pinning memory of the host costs, by how it came to be: an engine's own copy of its weights is pinned once, and that
//! may take longer than all that it is for.

use anyhow::Result;
use kip_freezer::driver::Context;
use kip_host::clock::monotonic_micros;
use serde_json::json;

use crate::ceilings::timed;
use crate::unsafe_mapping::Pages;
use crate::world::World;

/// How pages are made before they are registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AllocationKind {
    /// By the driver, while it registers them.
    Not,
    /// By a write to each.
    Touched,
    /// By the kernel, all at once.
    Populated,
}

const CASES: [(&str, bool, AllocationKind); 5] = [
    ("registered, 4 KiB", false, AllocationKind::Not),
    ("registered, 4 KiB touched", false, AllocationKind::Touched),
    ("registered, 4 KiB populated", false, AllocationKind::Populated),
    ("registered, huge", true, AllocationKind::Not),
    ("registered, huge populated", true, AllocationKind::Populated),
];

pub(crate) fn run(world: &World) -> Result<()> {
    let bytes = usize::try_from(world.size(2))?;
    let context = Context::create()?;
    for round in 0..3 {
        if !world.has_time("-", world.size(2) * 4) {
            break;
        }
        let (pinned, allocate_us) = timed(|| context.pinned(bytes));
        let ((), free_us) = timed(|| drop(pinned));
        let figures = json!({"round": round, "bytes": bytes, "allocate_us": allocate_us, "free_us": free_us});
        world.note("cuMemAllocHost", &figures);
        let (pinned, allocate_us) = timed(|| context.pinned_by_host_alloc(bytes));
        let ((), free_us) = timed(|| drop(pinned));
        let figures = json!({"round": round, "bytes": bytes, "allocate_us": allocate_us, "free_us": free_us});
        world.note("cuMemHostAlloc", &figures);
        for (case, huge, made) in CASES {
            registered(world, &context, (case, huge, made), round, bytes)?;
        }
    }
    Ok(())
}

fn registered(
    world: &World,
    context: &Context,
    how: (&str, bool, AllocationKind),
    round: u32,
    bytes: usize,
) -> Result<()> {
    let (case, huge, made) = how;
    let mut pages = Pages::map(bytes)?;
    let (prepared, prepare_us) = timed(|| {
        pages.huge(huge)?;
        match made {
            AllocationKind::Not => Ok(()),
            AllocationKind::Touched => {
                pages.bytes().iter_mut().step_by(4096).for_each(|byte| *byte = 1);
                Ok(())
            }
            AllocationKind::Populated => pages.populate(),
        }
    });
    // A kernel without huge pages, or older than 5.14, is no reason to break off.
    if let Err(error) = prepared {
        world.note(case, &json!({"refused": error.to_string()}));
        return Ok(());
    }
    let begun = monotonic_micros();
    let registered = context.while_registered(pages.bytes(), |_| monotonic_micros())?;
    let figures = json!({
        "round": round, "bytes": bytes, "prepare_us": prepare_us, "register_us": registered - begun,
        "unregister_us": monotonic_micros() - registered,
    });
    world.note(case, &figures);
    Ok(())
}
