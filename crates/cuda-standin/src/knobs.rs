//! Knobs: a file of `name = value` lines that is read at every call, so that a test can turn them in the midst of things.
//!
//! | knob | what |
//! |---|---|
//! | `devices` | how many there are; 1 |
//! | `capacity` | bytes of each; 8 GiB |
//! | `context` | bytes that a context takes; 64 MiB |
//! | `rate` | bytes a second that a checkpoint or restore moves; 0 is no time at all |
//! | `fixed_ms`, `init_ms` | what each checkpoint and restore, and each `cuInit`, takes besides |
//! | `version`, `driver` | CUDA version as a number, and the driver's as text |
//! | `inject.<call>` | `<effect>[,<skip>[,<times>]]`: after `skip` calls the next `times` (all) go wrong |
//!
//! Effects: an error code; `hang` and `die` (the caller is killed) before anything was done; `hang-after` and `die-after`
//! when all was done; `corrupt` (a restore loses content) and `leak` (a checkpoint keeps half of the memory).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const GIB: u64 = 1 << 30;

/// What is to go wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Nothing,
    Code(i32),
    Hang,
    Die,
    HangAfter,
    DieAfter,
    Corrupt,
    Leak,
}

/// The directory of the stand-in, from the environment.
#[expect(clippy::disallowed_methods, reason = "it depends on no room, `host` included")]
pub(crate) fn directory() -> PathBuf {
    std::env::var_os("KIPWAKE_STANDIN_DIR").map_or_else(|| PathBuf::from("/tmp/kipwake-standin"), PathBuf::from)
}

/// The value of a knob, or a default.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    text(name).and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// The value of a knob that is text.
pub(crate) fn text(name: &str) -> Option<String> {
    find(&fs::read_to_string(directory().join("knobs")).ok()?, name)
}

pub(crate) fn capacity() -> u64 {
    number("capacity", 8 * GIB)
}

pub(crate) fn devices() -> u64 {
    number("devices", 1)
}

/// How long moving so many bytes takes here.
pub(crate) fn moving(bytes: u64) -> Duration {
    let fixed = Duration::from_millis(number("fixed_ms", 0));
    match number("rate", 0) {
        0 => fixed,
        rate => fixed + Duration::from_millis(bytes.saturating_mul(1_000) / rate),
    }
}

/// What is to go wrong with this call, counted over all processes. What happens at once happens here.
pub(crate) fn before(call: &str) -> Effect {
    let effect = effect(&directory(), call);
    match effect {
        Effect::Hang => hang(),
        Effect::Die => std::process::abort(),
        other => other,
    }
}

/// What is to go wrong when everything was done.
pub(crate) fn after(effect: Effect) {
    match effect {
        Effect::HangAfter => hang(),
        Effect::DieAfter => std::process::abort(),
        _ => {}
    }
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

fn effect(directory: &Path, call: &str) -> Effect {
    let Ok(knobs) = fs::read_to_string(directory.join("knobs")) else { return Effect::Nothing };
    let Some(value) = find(&knobs, &format!("inject.{call}")) else { return Effect::Nothing };
    let mut parts = value.split(',').map(str::trim);
    let named = parse(parts.next().unwrap_or_default());
    let skip: u64 = parts.next().and_then(|skip| skip.parse().ok()).unwrap_or(0);
    let times: u64 = parts.next().and_then(|times| times.parse().ok()).unwrap_or(u64::MAX);
    let count = crate::registry::locked(directory, || {
        let file = directory.join(format!("count.{call}"));
        let count: u64 = fs::read_to_string(&file).ok().and_then(|count| count.parse().ok()).unwrap_or(0);
        let _ = fs::write(&file, (count + 1).to_string());
        count
    });
    if count >= skip && count - skip < times { named } else { Effect::Nothing }
}

fn parse(text: &str) -> Effect {
    match text {
        "hang" => Effect::Hang,
        "die" => Effect::Die,
        "hang-after" => Effect::HangAfter,
        "die-after" => Effect::DieAfter,
        "corrupt" => Effect::Corrupt,
        "leak" => Effect::Leak,
        code => code.parse().map_or(Effect::Nothing, Effect::Code),
    }
}

fn find(knobs: &str, name: &str) -> Option<String> {
    let lines = knobs.lines().filter_map(|line| line.split_once('='));
    lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned()).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_when_they_are_due_and_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("knobs"), "rate = 5\ninject.a = 304,1,2\ninject.b = hang-after\n").unwrap();
        let all: Vec<Effect> = (0..4).map(|_| effect(folder.path(), "a")).collect();
        assert_eq!(all, [Effect::Nothing, Effect::Code(304), Effect::Code(304), Effect::Nothing]);
        assert_eq!(effect(folder.path(), "b"), Effect::HangAfter);
        assert_eq!(effect(folder.path(), "c"), Effect::Nothing);
    }

    #[test]
    fn the_last_line_of_a_knob_counts() {
        assert_eq!(find("a = 1\na = 2 \n", "a").as_deref(), Some("2"));
        assert_eq!(find("aa = 1\n", "a"), None);
    }
}
