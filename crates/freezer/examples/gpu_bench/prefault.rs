//! Whether a restore is faster when all memory of its process on the host is there already, or may not leave. The three
//! take turns, so that whatever changes meanwhile meets all of them.

use anyhow::{Result, bail};
use serde_json::json;

use crate::world::{PROBE_LIMIT, World, memory};

pub(crate) async fn run(world: &World) -> Result<()> {
    let mut probe = world.probe(world.size(4)).await?;
    let order = world.order(&[probe.pid()]).await?;
    let sum = probe.tell("sum", PROBE_LIMIT).await?.sum;
    for cycle in 1..=world.cycles().min(5) {
        for (case, word) in [("none", None), ("populated", Some("populate")), ("locked", Some("lock"))] {
            if !world.has_time(case, order.bytes) {
                continue;
            }
            world.freeze(&world.desk, &order).await?;
            let resident_frozen = memory(probe.pid(), "VmRSS:");
            let prepared = match word {
                Some(word) => Some(probe.tell(word, PROBE_LIMIT).await?),
                None => None,
            };
            let refused = prepared.as_ref().is_some_and(|prepared| prepared.sum == 0);
            let resident_ready = memory(probe.pid(), "VmRSS:");
            let woken = world.wake(&world.desk, &order).await?;
            let first = probe.tell("first", PROBE_LIMIT).await?;
            probe.tell("unlock", PROBE_LIMIT).await?;
            if refused {
                world.note(case, &json!({"refused": "not allowed on this host"}));
                continue;
            }
            let figures = json!({
                "cycle": cycle, "bytes": order.bytes, "prepare_us": prepared.map_or(0, |prepared| prepared.took_us),
                "resident_frozen": resident_frozen, "resident_ready": resident_ready, "restore_us": woken.restore_us,
                "unlock_us": woken.unlock_us, "first_us": first.took_us,
            });
            world.note(case, &figures);
        }
    }
    let same = probe.tell("sum", PROBE_LIMIT).await?.sum == sum;
    world.end(probe, true).await?;
    if same { Ok(()) } else { bail!("content has changed") }
}
