//! The limit on open files: each instance and each connection needs a few.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

static AT_START: OnceLock<Rlimit> = OnceLock::new();

/// What this process was started with, before [`raise_open_files`]: programs that it starts should get the same, because
/// some look through all numbers up to the limit.
pub fn open_files_at_start() -> Rlimit {
    *AT_START.get_or_init(|| getrlimit(Resource::Nofile))
}

/// Raises the limit as far as it may be, and says how far that is.
pub fn raise_open_files() -> u64 {
    let before = open_files_at_start();
    let _ = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_remembers_what_was_before() {
        let before = getrlimit(Resource::Nofile).current;
        assert!(raise_open_files() >= before.unwrap_or(u64::MAX));
        assert_eq!(open_files_at_start().current, before);
    }
}
