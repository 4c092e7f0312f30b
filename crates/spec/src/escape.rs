//! Bytes of addresses that are written in %-form (RFC 3986, section 2.1).

/// The bytes that a text stands for. A `%` without two digits stands for itself.
pub fn unescaped(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let value = digit(0).zip(digit(1)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match value.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// A text as one part of a path: all bytes but letters, digits and `-._~` in %-form.
pub fn escaped(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => written.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => written.push(char::from(byte)),
            _ => written.push_str(&format!("%{byte:02X}")),
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_digits_are_a_byte_and_all_else_stands_for_itself() {
        for (text, bytes) in
            [("a%2Fb", "a/b"), ("%c3%A9", "é"), ("100%", "100%"), ("%2", "%2"), ("%+f%zz", "%+f%zz"), ("%252F", "%2F")]
        {
            assert_eq!(unescaped(text), bytes.as_bytes(), "{text}");
            assert_eq!(unescaped(&escaped(bytes)), bytes.as_bytes(), "{bytes}");
        }
        assert_eq!(escaped("Qwen/Qwen3 8.B"), "Qwen%2FQwen3%208.B");
    }
}
