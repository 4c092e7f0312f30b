//! The events of a task as text in its row: a line for each, `number at value`. A line that begins with `+` has the number behind that of
//! the line before, because the numbers of one step are only known to the database. Lines from before events were values are
//! `at Word {detail}`.

use super::model::{NewEvent, StoredEvent};

/// The lines of one step but for the first number, which the database puts in front.
pub(super) fn lines(events: &[NewEvent]) -> String {
    let mut text = String::new();
    for event in events {
        if !text.is_empty() {
            text.push('+');
        }
        text += &format!(" {} {}\n", event.at, event.value);
    }
    text
}

/// The events of a text.
pub(super) fn read(text: &str) -> Vec<StoredEvent> {
    let mut events: Vec<StoredEvent> = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ' ');
        let (first, second, third) = (parts.next(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let first = first.unwrap_or_default();
        let next = events.last().map_or(1, |last| last.number) + 1;
        events.push(match second.parse() {
            Ok(at) => StoredEvent { number: first.parse().unwrap_or(next), at, value: third.to_owned() },
            Err(_) => StoredEvent { number: next, at: first.parse().unwrap_or_default(), value: value(second, third) },
        });
    }
    events
}

/// A word and its detail as the value that they are now.
fn value(word: &str, detail: &str) -> String {
    let word = serde_json::Value::from(word);
    format!("{{{word}:{}}}", if detail.is_empty() { "null" } else { detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back_and_those_of_earlier_versions_too() {
        let event = |number, at, value: &str| StoredEvent { number, at, value: value.to_owned() };
        let new = |at, value: &str| NewEvent { at, value: value.to_owned() };
        let text = format!(
            "5 Dequeued\n7 Running {{\"epoch\":1}}\n4{}9{}",
            lines(&[new(10, "\"a b\""), new(11, "{\"b\":1}")]),
            lines(&[new(12, "\"c\"")])
        );
        let expected = [
            event(2, 5, "{\"Dequeued\":null}"),
            event(3, 7, "{\"Running\":{\"epoch\":1}}"),
            event(4, 10, "\"a b\""),
            event(5, 11, "{\"b\":1}"),
            event(9, 12, "\"c\""),
        ];
        assert_eq!(read(&text), expected);
        assert_eq!(lines(&[]), "");
    }
}
