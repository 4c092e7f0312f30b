//! Numbers as people read them: three digits and a unit. Programs get the exact numbers.

/// Units of sizes, each 1,024 of the one before.
const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// The largest unit of which there is at least one, and how many bytes it has.
fn unit_of(bytes: u64) -> (&'static str, u64) {
    let mut found = (UNITS[0], 1);
    for (place, unit) in (0u32..).zip(UNITS) {
        let factor = 1u64 << (10 * place);
        if bytes >= factor {
            found = (unit, factor);
        }
    }
    found
}

/// Three digits of a quotient, without zeros at the end: `21.2`, `0.25`, `252`.
fn digits(value: u64, factor: u64) -> String {
    let hundredths = (u128::from(value) * 100 + u128::from(factor) / 2) / u128::from(factor.max(1));
    let text = match hundredths {
        10_000.. => ((hundredths + 50) / 100).to_string(),
        1_000.. => format!("{}.{}", (hundredths + 5) / 100, (hundredths + 5) / 10 % 10),
        _ => format!("{}.{:02}", hundredths / 100, hundredths % 100),
    };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A size: `21.2 GiB`, `512 B`.
pub fn size(bytes: u64) -> String {
    let (unit, factor) = unit_of(bytes);
    // What rounds up to the next unit is written in it.
    if factor < 1 << 40 && digits(bytes, factor) == "1024" {
        return size(factor << 10);
    }
    format!("{} {unit}", digits(bytes, factor))
}

/// A part of a size in the unit of the whole: `74.6 of 252 GiB`.
pub fn size_of(part: u64, whole: u64) -> String {
    let (unit, factor) = unit_of(whole);
    format!("{} of {} {unit}", digits(part, factor), digits(whole, factor))
}

/// A time span: `85 ms`, `1.9 s`, `2 min 5 s`, `3 h 12 min`, `5 d 3 h`.
pub fn duration(millis: u64) -> String {
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    };
    let seconds = (millis + 500) / 1_000;
    let minutes = (millis + 30_000) / 60_000;
    let hours = (millis + 1_800_000) / 3_600_000;
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..9_950 => {
            let tenths = (millis + 50) / 100;
            match tenths % 10 {
                0 => format!("{} s", tenths / 10),
                part => format!("{}.{part} s", tenths / 10),
            }
        }
        9_950..59_500 => format!("{seconds} s"),
        59_500..3_570_000 => two(seconds / 60, "min", seconds % 60, "s"),
        3_570_000..84_600_000 => two(minutes / 60, "h", minutes % 60, "min"),
        _ => two(hours / 24, "d", hours % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_and_a_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (1_023, "1023 B"),
            (1_024, "1 KiB"),
            (1_536, "1.5 KiB"),
            (195_353, "191 KiB"),
            (16 << 20, "16 MiB"),
            ((1 << 30) - 1, "1 GiB"),
            (22_748_453_640, "21.2 GiB"),
            (264_212_084 << 10, "252 GiB"),
            (3 << 40, "3 TiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
        assert_eq!(size_of(0, 22_748_453_640), "0 of 21.2 GiB");
        assert_eq!(size_of(78_201_940 << 10, 264_212_084 << 10), "74.6 of 252 GiB");
    }

    #[test]
    fn spans_have_their_two_largest_units() {
        for (millis, text) in [
            (0, "0 ms"),
            (914, "914 ms"),
            (1_914, "1.9 s"),
            (2_000, "2 s"),
            (9_960, "10 s"),
            (59_400, "59 s"),
            (59_600, "1 min"),
            (125_000, "2 min 5 s"),
            (3_599_000, "1 h"),
            (11_520_000, "3 h 12 min"),
            (442_800_000, "5 d 3 h"),
        ] {
            assert_eq!(duration(millis), text, "{millis}");
        }
    }
}
