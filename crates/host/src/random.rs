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

/// Fills a buffer with random bytes fit for secrets.
///
/// # Panics
/// As [`bits`].
pub fn fill(buffer: &mut [u8]) {
    getrandom::fill(buffer).expect("the operating system provides randomness");
}
