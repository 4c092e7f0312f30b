//! Points at which a test can have the server killed: between two steps of an operation. Built in only with the feature
//! `failpoints`, which tests of the real binary switch on.

/// Kills the server, as `kill -9` would, if the variable `KIPWAKE_FAIL_POINT` names this point. `panic: ` before the name
/// makes the caller panic instead.
#[cfg(feature = "failpoints")]
pub fn reached(point: &str) {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| crate::environment::read(crate::environment::FAIL_POINT));
    let Some(chosen) = chosen.as_deref() else { return };
    assert!(chosen.strip_prefix("panic: ") != Some(point), "the test chose the fail point `{point}`");
    if chosen == point {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

/// Nothing, in a build for use.
#[cfg(not(feature = "failpoints"))]
pub fn reached(_: &str) {}

/// Whether a test has no devices and pretends that containers got theirs: `KIPWAKE_TEST_CARDS` is `pretended`. Only with the feature
/// `failpoints`; a build for use always verifies.
#[cfg(feature = "failpoints")]
pub fn cards_are_pretended() -> bool {
    crate::environment::read("KIPWAKE_TEST_CARDS").is_some_and(|value| value == "pretended")
}

/// Never, in a build for use.
#[cfg(not(feature = "failpoints"))]
pub fn cards_are_pretended() -> bool {
    false
}

/// Waits, if the variable is `delay MILLIS: ` and this point: an operation that takes longer than it does on this machine.
#[cfg(feature = "failpoints")]
pub async fn delay(point: &str) {
    let chosen = crate::environment::read(crate::environment::FAIL_POINT);
    let asked = chosen.as_deref().and_then(|chosen| chosen.strip_prefix("delay ")?.split_once(": "));
    if let Some((millis, chosen)) = asked
        && let (Ok(millis), true) = (millis.parse(), chosen == point)
    {
        tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
    }
}

/// Nothing, in a build for use.
#[cfg(not(feature = "failpoints"))]
#[expect(clippy::unused_async, reason = "the other build waits")]
pub async fn delay(_: &str) {}
