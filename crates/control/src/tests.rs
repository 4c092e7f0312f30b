//! The shell in paused time, over a body without programs.

mod lifecycle;
mod looks;
mod naming;
mod rungs;

use std::time::Duration;

use kip_fleet::StartKind;
use kip_host::clock::boot_millis;
use kip_wire::InstanceInfo;

use crate::Admission;
use crate::permit::{Permit, RequestRefusal};
use crate::testing::Room;

/// Waits for a place, as a request does.
async fn place(room: &Room) -> Result<Permit, RequestRefusal> {
    match room.cell().admit(None, |_| None) {
        Admission::Granted(permit) => Ok(permit),
        Admission::Refused(refused) => Err(refused),
        Admission::Waiting(waiting) => waiting.await,
        Admission::Unloaded => panic!("it came without a qualifier"),
    }
}

/// Waits until something is so, in the time of the test.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let looking = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3_600), looking).await.unwrap_or_else(|_| panic!("never so: {what}"));
}

/// How long something takes, milliseconds of the test's time.
async fn timed<T>(work: impl Future<Output = T>) -> (T, u64) {
    let began = boot_millis();
    let done = work.await;
    (done, boot_millis() - began)
}

/// Timers are kept by the millisecond, and one may follow another.
#[track_caller]
fn assert_about(took: u64, wanted: u64) {
    assert!((wanted..=wanted + 3).contains(&took), "{took} ms in place of {wanted} ms");
}

fn states(room: &Room) -> Vec<String> {
    room.control.instances().into_iter().map(|instance: InstanceInfo| instance.state).collect()
}

/// One instance that is hot and has nothing to do.
async fn warm(room: &Room) -> kip_spec::InstanceId {
    let permit = place(room).await.expect("a place");
    assert_eq!(permit.start(), StartKind::Cold);
    permit.link().instance
}
