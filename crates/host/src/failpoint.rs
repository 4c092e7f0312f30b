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
