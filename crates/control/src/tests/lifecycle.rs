//! Starts, sleeps, wakes and ends as operations on a body.

use std::time::Duration;

use kip_engine::fake::{Call, Script};
use kip_fleet::{Event, Refusal, StartFailure, StartKind};
use kip_spec::Millis;
use kip_spec::function::Hook;

use super::{assert_about, place, states, timed, until, warm};
use crate::Cell;
use crate::testing::Room;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn the_first_request_waits_for_the_start_and_no_longer() {
    let room = Room::open(|_| {}).await;
    room.body.script(Call::Start, &[Script::After(3 * SECOND)]);
    let (permit, took) = timed(place(&room)).await;
    let permit = permit.unwrap();
    assert_eq!(permit.start(), StartKind::Cold);
    assert_about(took, 3_000);
    drop(permit);
    let (permit, took) = timed(place(&room)).await;
    assert_eq!((permit.unwrap().start(), took), (StartKind::Warm, 0));
}

#[tokio::test]
async fn a_start_that_fails_is_said_and_tried_again_later() {
    let room = Room::open(|_| {}).await;
    room.body.script(Call::Start, &[Script::Fail, Script::Fail]);
    for _ in 0..2 {
        let refused = place(&room).await.unwrap_err();
        assert_eq!(refused.refusal, Refusal::StartFailed(StartFailure::SpawnFailed));
        assert_eq!(refused.detail.as_deref(), Some("the test says so"));
    }
    let refused = place(&room).await.unwrap_err();
    let Refusal::Backoff { retry_in, .. } = refused.refusal else { panic!("{refused:?}") };
    tokio::time::sleep(Duration::from_millis(retry_in)).await;
    assert_eq!(place(&room).await.unwrap().start(), StartKind::Cold);
}

#[tokio::test]
async fn a_caller_that_leaves_takes_its_place_in_the_queue_along() {
    let room = Room::open(|spec| spec.instances.max = 1).await;
    room.body.script(Call::Start, &[Script::After(5 * SECOND)]);
    let gone = tokio::time::timeout(SECOND, place(&room)).await;
    assert!(gone.is_err());
    assert_eq!(room.cell().info().queued, 0);
    // The start goes on, and serves who comes next.
    let (permit, took) = timed(place(&room)).await;
    assert!(permit.is_ok());
    assert_about(took, 4_000);
}

#[tokio::test]
async fn a_request_waits_as_long_as_it_may() {
    let room = Room::open(|spec| {
        spec.instances.max = 1;
        spec.timeouts.queue = Millis::from_secs(7);
    })
    .await;
    let _busy = place(&room).await.unwrap();
    let (refused, took) = timed(place(&room)).await;
    let refusal = refused.unwrap_err().refusal;
    let Refusal::QueueTimeout { waited } = refusal else { panic!("{refusal:?}") };
    assert_about(waited, 7_000);
    assert_about(took, 7_000);
}

#[tokio::test]
async fn an_idle_instance_sleeps_and_wakes_for_a_request() {
    let room = Room::open(|spec| spec.idle.pause = Some(Millis::from_secs(5))).await;
    let instance = warm(&room).await;
    let ((), took) = timed(until("it sleeps", || room.body.is_paused(instance))).await;
    assert_about(took, 5_000);
    room.body.script(Call::Resume, &[Script::After(SECOND)]);
    let (permit, took) = timed(place(&room)).await;
    let permit = permit.unwrap();
    assert_eq!((permit.start(), permit.link().instance), (StartKind::Woken, instance));
    assert_about(took, 1_000);
    assert!(!room.body.is_paused(instance));
}

#[tokio::test]
async fn a_wake_that_fails_or_hangs_costs_the_instance_and_not_the_request() {
    for course in [Script::Fail, Script::Hang] {
        let room = Room::open(|spec| spec.idle.pause = Some(Millis::from_secs(5))).await;
        let instance = warm(&room).await;
        until("it sleeps", || room.body.is_paused(instance)).await;
        room.body.script(Call::Resume, &[course]);
        let permit = place(&room).await.unwrap();
        assert_ne!(permit.link().instance, instance, "{course:?}");
        assert_eq!(room.body.calls(Call::Kill), [instance]);
    }
}

#[tokio::test]
async fn an_initialize_hook_that_fails_is_a_start_that_failed() {
    let hook = Hook { path: "/initialize".to_owned(), timeout: Millis::from_secs(9) };
    let room = Room::open(|spec| spec.lifecycle.initialize = Some(hook)).await;
    room.body.script(Call::Initialize, &[Script::Fail]);
    let refused = place(&room).await.unwrap_err();
    assert_eq!(refused.refusal, Refusal::StartFailed(StartFailure::InitializeFailed { status: 0 }));
    assert!(place(&room).await.is_ok());
}

#[tokio::test]
async fn a_start_that_ends_after_its_instance_was_ended_leaves_nothing() {
    for course in [Script::After(10 * SECOND), Script::FailAfter(10 * SECOND)] {
        let room = Room::open(|_| {}).await;
        room.body.script(Call::Start, &[course]);
        let cell = room.cell();
        let waiting = tokio::time::timeout(SECOND, place(&room)).await;
        assert!(waiting.is_err());
        // As a removal does once it is stored; waiting for the store would let the paused time run.
        room.control.forget(cell.name(), Event::Remove);
        until("it is ended", || !room.body.calls(Call::Kill).is_empty()).await;
        tokio::time::sleep(20 * SECOND).await;
        assert!(cell.lock().links.is_empty(), "a link of an instance that is gone");
        assert!(cell.lock().starting.is_empty());
        assert_eq!(Cell::last_failure(&cell.lock()), None, "it was ended, and did not fail by itself");
    }
}

#[tokio::test]
async fn a_place_on_an_instance_that_is_not_known_is_refused_and_given_back() {
    let room = Room::open(|spec| spec.instances.max = 1).await;
    let instance = warm(&room).await;
    room.cell().lock().links.clear();
    let refused = tokio::time::timeout(SECOND, place(&room)).await.expect("an answer").unwrap_err();
    assert_eq!(refused.refusal.code().status(), 503, "{refused:?}");
    let permit = tokio::time::timeout(SECOND, place(&room)).await.expect("an answer").unwrap();
    assert_ne!(permit.link().instance, instance);
    assert_eq!(room.cell().info().in_flight, 1, "the other place is free again");
}

#[tokio::test]
async fn a_request_ends_the_look_at_an_idle_instance_at_once() {
    let room = Room::open(|spec| spec.idle.pause = Some(Millis(1_000))).await;
    room.body.uses_cpu(0);
    warm(&room).await;
    until("it is looked at", || states(&room) == ["pausing"]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (permit, took) = timed(place(&room)).await;
    assert!(permit.is_ok() && took <= 3, "{took} ms");
    assert_eq!(room.body.calls(Call::Pause), [], "it is not paused at all");
}

#[tokio::test]
async fn the_end_of_an_instance_is_known_before_its_request_is_sent_again() {
    let room = Room::open(|spec| spec.instances.max = 1).await;
    let permit = place(&room).await.unwrap();
    let instance = permit.link().instance;
    let body = room.body.clone();
    // Its connections close at once; its end is reported a moment later.
    drop(kip_host::tasks::spawn("death", async move { body.die(instance, Duration::from_millis(20)).await }));
    let ((), took) = timed(permit.instance_ended()).await;
    assert_about(took, 20);
    drop(permit);
    assert_ne!(place(&room).await.unwrap().link().instance, instance);
}

#[tokio::test]
async fn a_living_instance_is_not_waited_for_long() {
    let room = Room::open(|_| {}).await;
    let permit = place(&room).await.unwrap();
    let ((), took) = timed(permit.instance_ended()).await;
    assert!(took <= 50, "{took} ms");
}

#[tokio::test]
async fn an_instance_that_refuses_connections_is_replaced_at_once() {
    let room = Room::open(|spec| spec.instances.max = 1).await;
    let permit = place(&room).await.unwrap();
    let instance = permit.link().instance;
    permit.connection_refused().await;
    drop(permit);
    let (permit, took) = timed(place(&room)).await;
    assert_ne!(permit.unwrap().link().instance, instance);
    assert!(took < 1_000, "{took} ms");
    assert_eq!(room.body.calls(Call::Kill), [instance]);
}

#[tokio::test]
async fn requests_go_elsewhere_while_a_body_is_out_of_touch_with_an_instance() {
    let room = Room::open(|spec| spec.instances.max = 2).await;
    let first = warm(&room).await;
    room.body.reach(first, false).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let second = place(&room).await.unwrap();
    assert_ne!(second.link().instance, first);
    assert_eq!(states(&room).len(), 2, "unreachable is not ended");
    room.body.reach(first, true).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(place(&room).await.unwrap().link().instance, first);
}

#[tokio::test]
async fn a_pause_that_hangs_ends_in_a_definite_state() {
    let room = Room::open(|spec| spec.idle.pause = Some(Millis::from_secs(5))).await;
    warm(&room).await;
    room.body.script(Call::Pause, &[Script::Hang]);
    until("it is asked to sleep", || !room.body.calls(Call::Pause).is_empty()).await;
    let (permit, took) = timed(place(&room)).await;
    assert!(permit.is_ok());
    assert!(took < 60_000, "{took} ms");
}

#[tokio::test]
async fn a_stop_that_fails_is_tried_again_until_nothing_is_left() {
    let room = Room::open(|spec| spec.idle.stop = Some(Millis::from_secs(5))).await;
    warm(&room).await;
    room.body.script(Call::Stop, &[Script::Fail]);
    room.body.script(Call::Kill, &[Script::Fail, Script::Hang]);
    until("nothing is left", || room.body.living().is_empty() && room.control.instances().is_empty()).await;
    assert!(room.body.calls(Call::Kill).len() >= 3);
}
