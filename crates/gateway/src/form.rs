//! The field `model` of a form (RFC 7578), found part by part as the form comes. Pure.

use memchr::memmem;

/// Bytes of the head of a part.
const LONGEST_HEAD: usize = 8 << 10;
/// Bytes of a model's name; functions have shorter ones.
const LONGEST_NAME: usize = 256;
/// Bytes of a boundary (RFC 2046, section 5.1.1).
const LONGEST_BOUNDARY: usize = 70;

/// A search that goes on as more of a form comes.
#[derive(Debug)]
pub(crate) struct Form {
    /// What stands before each part but the first: a line's end, two hyphens and the boundary.
    delimiter: Vec<u8>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first part, looked through up to here.
    Preamble(usize),
    /// Behind a delimiter that ends here.
    Delimiter(usize),
    /// In the head of a part that begins here.
    Head(usize),
    /// In a part of no interest, looked through up to here.
    Other(usize),
    /// In the value that is looked for, which begins here.
    Value(usize),
}

impl Form {
    /// A search in a body of this content type, if that is a form.
    pub(crate) fn of(kind: &str) -> Option<Self> {
        Some(Self { delimiter: delimiter_of(kind)?, state: State::Preamble(0) })
    }

    /// Looks at all that was read so far: the model, or that there is none; nothing while that is open.
    pub(crate) fn next(&mut self, read: &[u8]) -> Option<Option<String>> {
        // Without a boundary every line with two hyphens would end a part.
        if self.delimiter.len() <= b"\r\n--".len() {
            return Some(None);
        }
        loop {
            self.state = match self.state {
                State::Preamble(_) if read.starts_with(&self.delimiter[2..]) => {
                    State::Delimiter(self.delimiter.len() - 2)
                }
                State::Preamble(from) | State::Other(from) => match self.delimiter_in(&read[from.min(read.len())..]) {
                    Some(at) => State::Delimiter(from + at + self.delimiter.len()),
                    None => {
                        // The beginning of a delimiter may stand at the end.
                        let seen = read.len().saturating_sub(self.delimiter.len()).max(from);
                        self.state = if matches!(self.state, State::Preamble(_)) {
                            State::Preamble(seen)
                        } else {
                            State::Other(seen)
                        };
                        return None;
                    }
                },
                State::Delimiter(end) => match &read[end..] {
                    [b'-', b'-', ..] => return Some(None),
                    // Blanks may stand between a boundary and the end of its line.
                    [b' ' | b'\t', ..] => State::Delimiter(end + 1),
                    [b'\r', b'\n', ..] => State::Head(end + 2),
                    [_, _, ..] => State::Other(end),
                    _ => return None,
                },
                State::Head(start) => {
                    let head = &read[start..];
                    match memmem::find(head, b"\r\n\r\n") {
                        Some(length) if is_model(&head[..length]) => State::Value(start + length + 4),
                        Some(length) => State::Other(start + length + 2),
                        None if head.len() > LONGEST_HEAD => return Some(None),
                        None => return None,
                    }
                }
                State::Value(start) => {
                    let value = &read[start..];
                    return match self.delimiter_in(value) {
                        Some(length) if length <= LONGEST_NAME => {
                            Some(String::from_utf8(value[..length].to_vec()).ok().map(|name| name.trim().to_owned()))
                        }
                        None if value.len() <= LONGEST_NAME + self.delimiter.len() => None,
                        _ => Some(None),
                    };
                }
            };
        }
    }

    fn delimiter_in(&self, bytes: &[u8]) -> Option<usize> {
        memmem::find(bytes, &self.delimiter)
    }
}

/// What stands before each part but the first of a body of this content type, if that is a form. Without a boundary, it is too short for one.
pub(crate) fn delimiter_of(kind: &str) -> Option<Vec<u8>> {
    let (essence, parameters) = kind.split_once(';').unwrap_or((kind, ""));
    if !essence.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters, "boundary").unwrap_or_default();
    let boundary = if boundary.len() > LONGEST_BOUNDARY { String::new() } else { boundary };
    Some(format!("\r\n--{boundary}").into_bytes())
}

/// Whether the head of a part names the field `model`; a file of that name is none.
fn is_model(head: &[u8]) -> bool {
    field_of(head).is_some_and(|name| name == "model")
}

/// The field that the head of a part names; none where the part is a file.
pub(crate) fn field_of(head: &[u8]) -> Option<String> {
    let head = std::str::from_utf8(head).ok()?;
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    });
    let (kind, parameters) = disposition?.split_once(';')?;
    let is_field = kind.trim().eq_ignore_ascii_case("form-data") && parameter(parameters, "filename").is_none();
    parameter(parameters, "name").filter(|_| is_field)
}

/// A parameter of a header's value, quoted or as a token.
fn parameter(text: &str, wanted: &str) -> Option<String> {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (name, after) = rest.split_once('=')?;
        let (value, behind) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = behind;
    }
}

/// A quoted string behind its first quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the form is cut.
    fn model(kind: &str, body: &[u8]) -> Option<Option<String>> {
        let whole = Form::of(kind).unwrap().next(body);
        for step in [1, 3, 7, 64] {
            let mut form = Form::of(kind).unwrap();
            let found = (0..=body.len()).step_by(step).chain([body.len()]).find_map(|end| form.next(&body[..end]));
            assert_eq!(found, whole, "in pieces of {step}: {}", String::from_utf8_lossy(body));
        }
        whole
    }

    fn part(head: &str, value: &str) -> String {
        format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n")
    }

    const KIND: &str = "multipart/form-data; boundary=b";

    #[test]
    fn the_field_is_found_however_it_is_written() {
        let named = Some(Some("whisper".to_owned()));
        let end = "--b--\r\n";
        for head in [
            "name=\"model\"",
            "name=model",
            "NAME=\"model\"",
            "charset=utf-8; name=model",
            "name=\"model\"\r\nContent-Type: text/plain; charset=utf-8",
            "name=\"mo\\del\"",
        ] {
            assert_eq!(model(KIND, (part(head, "whisper") + end).as_bytes()), named, "{head}");
        }
        let file = part("name=\"file\"; filename=\"a; name=model.wav\"", &"RIFF\r\n-\r\n--c".repeat(900));
        assert_eq!(model(KIND, (file + &part("name=model", "whisper") + end).as_bytes()), named);
        assert_eq!(
            model("Multipart/Form-Data; Boundary=\"b\"", (part("name=model", "whisper") + end).as_bytes()),
            named
        );
    }

    #[test]
    fn text_that_looks_like_a_form_is_text() {
        let prompt = part("name=\"prompt\"", "the form has name=\"model\"\r\n\r\nother\r\n--c\r\n");
        let body = prompt + &part("name=\"model\"", "whisper") + "--b--";
        assert_eq!(model(KIND, body.as_bytes()), Some(Some("whisper".to_owned())));
        let file = part("name=\"model\"; filename=\"model\"", "other") + "--b--";
        assert_eq!(model(KIND, file.as_bytes()), Some(None), "a file is no name");
    }

    #[test]
    fn what_names_none_is_said_to() {
        assert_eq!(model(KIND, b"--b--"), Some(None));
        assert_eq!(model(KIND, (part("name=a", "x") + "--b--").as_bytes()), Some(None));
        assert_eq!(model(KIND, part("name=model", &"x".repeat(1_000)).as_bytes()), Some(None), "longer than any name");
        assert_eq!(model("multipart/form-data", part("name=model", "x").as_bytes()), Some(None), "no boundary");
        assert_eq!(model(KIND, part("name=model", "x").as_bytes()), None, "it may go on");
        assert!(Form::of("application/json").is_none() && Form::of("multipart/mixed; boundary=b").is_none());
    }
}
