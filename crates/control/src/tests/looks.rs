//! What is asked of instances while they are hot.

use std::time::Duration;

use kip_engine::fake::{Call, Script};
use kip_spec::Bytes;
use kip_spec::function::{LiveProbe, ReadyProbe};

use super::{place, states, until, warm};
use crate::testing::Room;

#[tokio::test]
async fn an_instance_that_is_not_ready_gets_no_request_until_it_is() {
    let room = Room::open(|spec| {
        spec.ready = ReadyProbe::Http { path: "/ready".to_owned() };
        spec.instances.max = 2;
        spec.idle.pause = None;
    })
    .await;
    let first = warm(&room).await;
    room.body.script(Call::Probe, &[Script::Fail; 3]);
    until("it is not ready", || room.control.instances().iter().any(|instance| instance.unready)).await;
    assert_ne!(place(&room).await.unwrap().link().instance, first);
    until("it is ready", || room.control.instances().iter().all(|instance| !instance.unready)).await;
}

#[tokio::test]
async fn an_instance_that_fails_its_live_probe_three_times_is_replaced() {
    let room = Room::open(|spec| {
        spec.live = Some(LiveProbe { path: "/live".to_owned() });
        spec.idle.pause = None;
    })
    .await;
    let first = warm(&room).await;
    // Twice is not enough; a success undoes it.
    room.body
        .script(Call::Probe, &[Script::Fail, Script::Fail, Script::Well, Script::Fail, Script::Hang, Script::Fail]);
    until("six probes", || room.body.calls(Call::Probe).len() >= 5).await;
    assert!(room.body.calls(Call::Kill).is_empty());
    until("it is replaced", || room.body.calls(Call::Kill) == [first]).await;
    assert_eq!(room.body.calls(Call::Probe).len(), 6);
}

#[tokio::test]
async fn nothing_is_asked_of_a_sleeper() {
    let room = Room::open(|spec| spec.ready = ReadyProbe::Http { path: "/ready".to_owned() }).await;
    let instance = warm(&room).await;
    until("it sleeps", || room.body.is_paused(instance)).await;
    let before = room.body.calls(Call::Probe).len();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(room.body.calls(Call::Probe).len(), before);
}

#[tokio::test]
async fn an_instance_that_outgrows_its_limit_is_replaced() {
    let room = Room::open(|spec| {
        spec.rotation.max_memory = Some(Bytes(1_000));
        spec.idle.pause = None;
        spec.instances.min = 1;
    })
    .await;
    let first = place(&room).await.unwrap().link().instance;
    room.body.uses(first, 1_001);
    until("another one is there", || !room.body.living().contains(&first) && states(&room) == ["ready"]).await;
}
