//! Rungs below paused and the canary, as operations on a body.

use std::time::Duration;

use kip_engine::fake::{Call, Script};
use kip_fleet::{Refusal, StartFailure, StartKind};
use kip_spec::function::FunctionSpec;
use kip_spec::sleep::{CallMethod, Canary, CanaryValue, InstanceCall, RungUse, Scalar, SleepCalls};
use kip_spec::{Finite, InstanceId, Millis};

use super::{place, states, until, warm};
use crate::testing::Room;

const SECOND: Duration = Duration::from_secs(1);

fn call(path: &str) -> InstanceCall {
    InstanceCall { method: CallMethod::Post, path: path.to_owned(), body: None, timeout: Millis::from_secs(5) }
}

/// Paused after 5 s, parked after 10 s.
fn sleeps(spec: &mut FunctionSpec) {
    spec.instances.max = 1;
    spec.idle.pause = Some(Millis::from_secs(5));
    spec.idle.park = RungUse::After(Millis::from_secs(10));
    spec.lifecycle.sleep =
        Some(SleepCalls { down: vec![call("/sleep?level=1")], up: vec![call("/wake_up"), call("/warm")] });
}

fn canary(expected: &str) -> Box<Canary> {
    let value = CanaryValue { pointer: "/text".to_owned(), expected: Scalar::Text(expected.to_owned()) };
    Box::new(Canary { call: call("/canary"), status: 200, values: vec![value], tolerance: Finite::default() })
}

fn paths(room: &Room) -> Vec<String> {
    room.body.called().into_iter().map(|(_, path)| path).collect()
}

fn memos(room: &Room) -> Vec<String> {
    room.body.memos().into_iter().map(|(_, memo)| memo).collect()
}

async fn parked(room: &Room) -> InstanceId {
    let instance = warm(room).await;
    until("it is parked", || states(room) == ["parked"]).await;
    instance
}

#[tokio::test]
async fn an_idle_instance_gives_its_device_memory_back_and_takes_it_before_the_next_request() {
    let room = Room::open(sleeps).await;
    let instance = parked(&room).await;
    assert!(room.body.is_paused(instance), "it gets no CPU");
    assert_eq!(paths(&room), ["/sleep?level=1"]);
    assert_eq!(memos(&room), ["on-demand unknown", "on-demand parked"]);
    let permit = place(&room).await.unwrap();
    assert_eq!((permit.start(), permit.link().instance), (StartKind::Woken, instance));
    assert!(!room.body.is_paused(instance));
    assert_eq!(paths(&room), ["/sleep?level=1", "/wake_up", "/warm"]);
    assert_eq!(memos(&room)[2..], ["on-demand unknown", "on-demand held"]);
}

#[tokio::test]
async fn a_request_that_comes_while_it_parks_waits_for_the_end_and_wakes_it() {
    let room = Room::open(sleeps).await;
    let instance = warm(&room).await;
    room.body.script(Call::Request, &[Script::After(3 * SECOND)]);
    until("it parks", || states(&room) == ["parking"]).await;
    let permit = place(&room).await.unwrap();
    assert_eq!((permit.start(), permit.link().instance), (StartKind::Woken, instance));
    assert_eq!(paths(&room), ["/sleep?level=1", "/wake_up", "/warm"]);
}

#[tokio::test]
async fn a_program_that_refuses_stays_paused_with_its_memory_and_after_three_times_is_asked_no_more() {
    let room = Room::open(sleeps).await;
    let instance = warm(&room).await;
    for time in 1..=3 {
        room.body.script(Call::Request, &[Script::Fail]);
        until("it was asked", || paths(&room).iter().filter(|path| *path == "/sleep?level=1").count() == time).await;
        until("it rests", || states(&room) == ["paused"]).await;
        assert!(room.body.is_paused(instance));
        assert_eq!(memos(&room).last().unwrap(), "on-demand held");
        drop(place(&room).await.unwrap());
    }
    let asked = paths(&room).len();
    until("it rests", || states(&room) == ["paused"]).await;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(paths(&room).len(), asked, "it is asked no more");
    assert_eq!(place(&room).await.unwrap().link().instance, instance, "it never ended");
}

#[tokio::test]
async fn one_whose_memory_nobody_knows_of_is_replaced() {
    let room = Room::open(sleeps).await;
    let instance = warm(&room).await;
    // It refuses to sleep, and to wake as well.
    room.body.script(Call::Request, &[Script::Fail, Script::Fail]);
    until("it is ended", || room.body.calls(Call::Kill) == [instance]).await;
    assert_ne!(place(&room).await.unwrap().link().instance, instance);
}

#[tokio::test]
async fn a_wake_that_fails_costs_the_instance_and_not_the_request() {
    for course in [Script::Fail, Script::Hang] {
        let room = Room::open(sleeps).await;
        let instance = parked(&room).await;
        room.body.script(Call::Request, &[course]);
        let permit = place(&room).await.unwrap();
        assert_ne!(permit.link().instance, instance, "{course:?}");
        assert_eq!(room.body.calls(Call::Kill), [instance]);
    }
}

#[tokio::test]
async fn a_wake_that_changed_the_answer_is_noticed_by_the_canary_alone() {
    let room = Room::open(|spec| {
        sleeps(spec);
        spec.canary = Some(canary("4"));
    })
    .await;
    room.body.answer(&[r#"{"text": "4"}"#]);
    let instance = parked(&room).await;
    // Of the wake: two requests to take the memory again, and the canary, whose answer is another one.
    room.body.answer(&["", "", r#"{"text": "5"}"#, r#"{"text": "4"}"#]);
    let permit = place(&room).await.unwrap();
    assert_ne!(permit.link().instance, instance);
    assert_eq!(room.body.calls(Call::Kill), [instance]);
    assert_eq!(paths(&room), ["/canary", "/sleep?level=1", "/wake_up", "/warm", "/canary", "/canary"]);
}

#[tokio::test]
async fn a_new_instance_that_answers_wrongly_serves_nobody() {
    let room = Room::open(|spec| spec.canary = Some(canary("4"))).await;
    room.body.answer(&[r#"{"text": "five"}"#]);
    let refused = place(&room).await.unwrap_err();
    assert_eq!(refused.refusal, Refusal::StartFailed(StartFailure::CanaryFailed));
    assert_eq!(refused.detail.as_deref(), Some("the canary: `/text` is \"five\" in place of \"4\""));
    room.body.answer(&[r#"{"text": "4"}"#]);
    assert!(place(&room).await.is_ok());
}

#[tokio::test]
async fn a_pause_alone_asks_no_canary() {
    let room = Room::open(|spec| {
        spec.idle.pause = Some(Millis::from_secs(5));
        spec.canary = Some(canary("4"));
    })
    .await;
    room.body.answer(&[r#"{"text": "4"}"#]);
    let instance = warm(&room).await;
    until("it sleeps", || room.body.is_paused(instance)).await;
    assert_eq!(place(&room).await.unwrap().link().instance, instance);
    assert_eq!(paths(&room), ["/canary"]);
}
