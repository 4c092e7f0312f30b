//! `${NAME}` in the values of a function's environment. `${NAME:-text}` gives a text for a variable that is not set or empty, and
//! `$${` stands for `${` itself.

/// A piece of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// It stands for itself.
    Text(&'a str),
    /// It stands for a variable.
    Variable {
        /// The variable.
        name: &'a str,
        /// What stands in its place if it is not set, or is empty.
        otherwise: Option<&'a str>,
        /// The reference as it is written.
        written: &'a str,
    },
}

/// The pieces of a value, in order. What begins like a reference and is none is text.
pub fn pieces(value: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = value;
    while let Some(start) = rest.find("${") {
        let escaped = rest[..start].ends_with('$');
        let (text, from) = if escaped { (&rest[..start - 1], &rest[start..]) } else { rest.split_at(start) };
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        match (escaped, parse(from)) {
            (false, Some((piece, after))) => {
                pieces.push(piece);
                rest = after;
            }
            _ => {
                pieces.push(Piece::Text(&from[..2]));
                rest = &from[2..];
            }
        }
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

/// The names of the variables in a value.
pub fn names(value: &str) -> impl Iterator<Item = &str> {
    pieces(value).into_iter().filter_map(|piece| match piece {
        Piece::Variable { name, .. } => Some(name),
        Piece::Text(_) => None,
    })
}

/// A text written so that it stands for itself.
pub fn escaped(text: &str) -> String {
    text.replace("${", "$${")
}

fn parse(text: &str) -> Option<(Piece<'_>, &str)> {
    let end = text.find('}')?;
    let inner = &text[2..end];
    let (name, otherwise) = inner.split_once(":-").map_or((inner, None), |(name, other)| (name, Some(other)));
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let is_name = begins && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then(|| (Piece::Variable { name, otherwise, written: &text[..=end] }, &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable<'a>(name: &'a str, otherwise: Option<&'a str>, written: &'a str) -> Piece<'a> {
        Piece::Variable { name, otherwise, written }
    }

    #[test]
    fn references_are_found_and_escapes_are_none() {
        assert_eq!(
            pieces("a${B}c${D:-e f}"),
            [Piece::Text("a"), variable("B", None, "${B}"), Piece::Text("c"), variable("D", Some("e f"), "${D:-e f}")]
        );
        assert_eq!(pieces("$${A}"), [Piece::Text("${"), Piece::Text("A}")]);
        assert_eq!(
            pieces("x$${A}${B}"),
            [Piece::Text("x"), Piece::Text("${"), Piece::Text("A}"), variable("B", None, "${B}")]
        );
        for text in ["$A ${", "${1}", "${a b}", "${}", "100$", "${A"] {
            assert_eq!(names(text).count(), 0, "{text}");
        }
        assert_eq!(pieces(""), []);
    }

    #[test]
    fn an_escaped_text_stands_for_itself() {
        for text in ["${A}", "$${A}", "a$", "${${", "plain"] {
            let escaped = escaped(text);
            let back: String = pieces(&escaped)
                .into_iter()
                .map(|piece| match piece {
                    Piece::Text(text) => text,
                    Piece::Variable { written, .. } => panic!("{written} of {escaped}"),
                })
                .collect();
            assert_eq!(back, text);
        }
    }
}
