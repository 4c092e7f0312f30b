//! The only place that rolls dice.

/// 128 random bits from the operating system, for ids.
///
/// # Panics
/// If the operating system has no randomness, which Linux does not let happen after boot.
pub fn bits() -> u128 {
    let mut bytes = [0u8; 16];
    fill(&mut bytes);
    u128::from_ne_bytes(bytes)
}

/// 128 bits that no other call gives, for ids that need not be secret: no system call but the first of a thread.
pub fn unique() -> u128 {
    thread_local! {
        static STATE: std::cell::Cell<u128> = std::cell::Cell::new(bits());
    }
    STATE.with(|state| {
        // A counter from a random start, an odd step apart, mixed so that neighbours do not look alike. Multiplying by an odd
        // number and shifting onto itself are reversible: different counts give different ids.
        let count = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        state.set(count);
        let mixed = (count ^ (count >> 67)).wrapping_mul(0xd6e8_feb8_6659_fd93_bf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 71)
    })
}

/// Fills a buffer with random bytes fit for secrets.
///
/// # Panics
/// As [`bits`].
pub fn fill(buffer: &mut [u8]) {
    getrandom::fill(buffer).expect("the operating system provides randomness");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn unique_ids_are_unique_over_threads_too() {
        let make = || (0..10_000).map(|_| unique()).collect::<Vec<_>>();
        let threads = [(); 3].map(|()| crate::tasks::thread("ids", make).unwrap());
        let all: BTreeSet<u128> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).chain(make()).collect();
        assert_eq!(all.len(), 40_000);
    }
}
