//! What terminals do with text that others wrote.

use std::borrow::Cow;

/// Whether a terminal does something for a character in place of showing it. Those that turn the direction of text around are among them.
pub fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON escapes the control characters of ASCII; terminals obey others too. Line ends stay.
pub fn json(text: &str) -> Cow<'_, str> {
    let escaped = |c: char| match c {
        '\n' => "\n".to_owned(),
        c if is_obeyed(c) => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    match text.chars().any(|c| c != '\n' && is_obeyed(c)) {
        true => text.chars().map(escaped).collect::<String>().into(),
        false => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_the_same_value_and_obeys_nobody() {
        let value = "a\u{9b}31m\u{202e}b\u{7f}\tc ä";
        let text = json(&format!("{{\"path\":\"{}\"}}\n", value.replace('\t', "\\t"))).into_owned();
        assert!(!text.trim_end().chars().any(is_obeyed), "{text:?}");
        assert_eq!(text, "{\"path\":\"a\\u009b31m\\u202eb\\u007f\\tc ä\"}\n");
    }
}
