//! A command as one line of text, for records.

/// Bytes of a command in a record.
const LONGEST: usize = 1_024;

/// The words with blanks between them; a word that is not plain stands in quotes, and nothing in it can end the line.
pub fn command_line(words: &[String]) -> String {
    let plain = |word: &str| {
        let fits = |c: char| c.is_alphanumeric() || "-_./:=,@+%".contains(c);
        !word.is_empty() && word.chars().all(fits)
    };
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        if plain(word) {
            line.push_str(word);
        } else {
            line.push('\'');
            for character in word.chars() {
                match character {
                    '\'' => line.push_str("'\\''"),
                    c if c.is_control() => line.extend(c.escape_default()),
                    c => line.push(c),
                }
            }
            line.push('\'');
        }
        if line.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
            line.truncate(end);
            line.push('…');
            return line;
        }
    }
    line
}
