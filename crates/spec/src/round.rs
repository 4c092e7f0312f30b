//! From fractions to counts: the one place where a float becomes a whole number.

/// Up to the next whole number, within what a count holds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "such casts saturate, which is what is wanted"
)]
pub fn up(number: f64) -> u32 {
    number.ceil() as u32
}

/// Down to the next whole number, within what it holds.
#[expect(clippy::cast_possible_truncation, reason = "such casts saturate, which is what is wanted")]
pub fn down(number: f64) -> i32 {
    number.floor() as i32
}

/// Up, after what binary fractions add beyond nine digits was taken off: 4.2 / 0.3 is 14, not 15.
pub fn up_decimal(number: f64) -> u32 {
    const DIGITS: f64 = 1e9;
    up((number * DIGITS).round() / DIGITS)
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts() {
        assert_eq!([super::up(1.01), super::up(-3.0), super::up(1e12)], [2, 0, u32::MAX]);
        assert_eq!([super::down(-136.67), super::down(5.9)], [-137, 5]);
        assert_eq!([super::up(4.2 / 0.3), super::up_decimal(4.2 / 0.3), super::up_decimal(1.1)], [15, 14, 2]);
    }
}
