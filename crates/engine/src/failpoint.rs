//! Points at which a test can have the server killed: between two steps of an operation. Built in only with the feature
//! `failpoints`, which tests of the real binary switch on.

/// Kills the server, as `kill -9` would, if the variable `KIPWAKE_FAIL_POINT` names this point.
#[cfg(feature = "failpoints")]
pub(crate) fn reached(point: &str) {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| kip_host::environment::read(kip_host::environment::FAIL_POINT));
    if chosen.as_deref() == Some(point) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

/// Nothing, in a build for use.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn reached(_: &str) {}
