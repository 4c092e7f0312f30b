//! `Retry-After` of an answer: seconds, or a date (RFC 9110, section 10.2.3).

use std::time::UNIX_EPOCH;

/// No answer makes a task wait for longer, in milliseconds: a day.
const LONGEST: u64 = 86_400_000;

/// How long to wait from `now` (milliseconds since 1970), in milliseconds; nothing for what is neither seconds nor a date.
pub(crate) fn wait(text: &str, now: i64) -> Option<u64> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has are a long time all the same.
        let seconds = text.parse::<u64>().unwrap_or(u64::MAX);
        return Some(seconds.saturating_mul(1_000).min(LONGEST));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let at = i64::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()?;
    Some(u64::try_from(at.saturating_sub(now)).unwrap_or(0).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_in_all_their_forms() {
        // 1994-11-06T08:49:37Z
        let at = 784_111_777_000;
        for (text, expected) in [
            ("0", Some(0)),
            (" 12 ", Some(12_000)),
            ("31536000", Some(LONGEST)),
            ("99999999999999999999", Some(LONGEST)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7_000)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(7_000)),
            ("Sun Nov  6 08:49:37 1994", Some(7_000)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(wait(text, at - 7_000), expected, "`{text}`");
        }
    }
}
