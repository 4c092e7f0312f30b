//! The only place that reads a clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since the host booted, suspend included. It goes on over a restart of the server; [`boot_id`] fences it.
pub fn boot_millis() -> u64 {
    #[cfg(feature = "paused-time")]
    if let Some(millis) = paused::millis() {
        return millis;
    }
    let time = clock_gettime(ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// What is added to the wall clock of this process, milliseconds.
static SHIFT: AtomicI64 = AtomicI64::new(0);

/// Lets this process believe that it is another time, so that calendars can be tried. Boot time is not touched.
pub fn pretend(wall: i64) {
    SHIFT.store(0, Ordering::Relaxed);
    SHIFT.store(wall - wall_millis(), Ordering::Relaxed);
}

/// Milliseconds since 1970. For calendars and records only: it may be stepped.
pub fn wall_millis() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "this module is where the clock is read")]
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX).saturating_add(SHIFT.load(Ordering::Relaxed))
}

/// A point in time for measuring phases of a request, in microseconds; its zero has no meaning.
pub fn monotonic_micros() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000
}

/// The kernel's id of this boot. Boot-time milliseconds of two different ids do not compare.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// This thread's boot time can be that of its runtime, which a test pauses and advances.
#[cfg(feature = "paused-time")]
pub mod paused {
    use std::cell::Cell;

    use tokio::time::Instant;

    thread_local! {
        static BEGAN: Cell<Option<(u64, Instant)>> = const { Cell::new(None) };
    }

    /// Pauses the time of the current runtime, which must be a current-thread one, and has this thread's boot time follow it.
    pub fn pause() {
        let now = super::boot_millis();
        if BEGAN.replace(None).is_none() {
            tokio::time::pause();
        }
        BEGAN.set(Some((now, instant())));
    }

    pub(super) fn millis() -> Option<u64> {
        let (began, at) = BEGAN.get()?;
        Some(began + u64::try_from(instant().duration_since(at).as_millis()).unwrap_or(u64::MAX))
    }

    #[expect(clippy::disallowed_methods, reason = "this module is where the clock is read")]
    fn instant() -> Instant {
        Instant::now()
    }
}
