//! Names that rewrite: the body of a request gets the upstream's name of the model, and parameters that the name sets or strips. All other members
//! of a JSON object and all other parts of a form stay byte for byte. Pure.

use std::ops::Range;

use kip_spec::model_name::NameRewrite;
use memchr::memmem;

use crate::form::{delimiter_of, field_of};

const MODEL: &str = "model";

/// A body as it is after a rewrite; nothing where it is neither a JSON object nor a form.
pub(crate) fn rewritten(kind: &str, body: &[u8], rewrite: &NameRewrite) -> Option<Vec<u8>> {
    match delimiter_of(kind) {
        Some(delimiter) => form(body, &delimiter, rewrite),
        None => json(body, rewrite),
    }
}

/// What the value of a field becomes: a new one, or none.
enum Change {
    Stays,
    Gone,
    Becomes(String),
}

/// The fields that a rewrite sets, in the order in which they are added, as JSON.
fn settings(rewrite: &NameRewrite) -> Vec<(&str, String)> {
    let model = rewrite.model.as_ref().map(|model| (MODEL, serde_json::Value::from(model.as_str()).to_string()));
    model.into_iter().chain(rewrite.set.iter().map(|(name, value)| (name.as_str(), value.to_string()))).collect()
}

/// The change of one field; `left` are the settings that no field had yet.
fn change(name: &str, rewrite: &NameRewrite, left: &mut Vec<(&str, String)>) -> Change {
    if let Some(at) = left.iter().position(|(known, _)| *known == name) {
        return Change::Becomes(left.remove(at).1);
    }
    // One that is set and stands twice would leave it open which of the two counts.
    let is_set = rewrite.set.contains_key(name) || (name == MODEL && rewrite.model.is_some());
    if is_set || rewrite.strip.contains(name) { Change::Gone } else { Change::Stays }
}

/// A member of an object: from its key to the end of its value.
struct Member {
    key: String,
    whole: Range<usize>,
    value: usize,
}

fn json(body: &[u8], rewrite: &NameRewrite) -> Option<Vec<u8>> {
    let (members, open, close) = members(body)?;
    let mut left = settings(rewrite);
    let mut written = body[..open].to_vec();
    let mut separate = "";
    let mut add = |written: &mut Vec<u8>, bytes: &[&[u8]]| {
        written.extend_from_slice(separate.as_bytes());
        bytes.iter().for_each(|bytes| written.extend_from_slice(bytes));
        separate = ",";
    };
    for Member { key, whole, value } in members {
        match change(&key, rewrite, &mut left) {
            Change::Stays => add(&mut written, &[&body[whole]]),
            Change::Becomes(text) => add(&mut written, &[&body[whole.start..value], text.as_bytes()]),
            Change::Gone => {}
        }
    }
    for (name, value) in left {
        let key = serde_json::Value::from(name).to_string();
        add(&mut written, &[key.as_bytes(), b":", value.as_bytes()]);
    }
    written.extend_from_slice(&body[close..]);
    Some(written)
}

/// The members of an object, and where its braces are: behind the first, and at the last.
fn members(body: &[u8]) -> Option<(Vec<Member>, usize, usize)> {
    let blank = |mut at: usize| {
        while body.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        at
    };
    let open = blank(0);
    if body.get(open) != Some(&b'{') {
        return None;
    }
    let (mut members, mut at) = (Vec::new(), blank(open + 1));
    if body.get(at) == Some(&b'}') {
        return Some((members, open + 1, at));
    }
    loop {
        let start = at;
        let end = text_end(body, at)?;
        let key = serde_json::from_slice::<String>(&body[start..end]).ok()?;
        at = blank(end);
        if body.get(at) != Some(&b':') {
            return None;
        }
        let value = blank(at + 1);
        let end = value_end(body, value)?;
        members.push(Member { key, whole: start..end, value });
        at = blank(end);
        match body.get(at) {
            Some(b',') => at = blank(at + 1),
            Some(b'}') => return Some((members, open + 1, at)),
            _ => return None,
        }
    }
}

/// Behind the quote that ends a text.
fn text_end(body: &[u8], start: usize) -> Option<usize> {
    if body.get(start) != Some(&b'"') {
        return None;
    }
    let mut at = start + 1;
    loop {
        match body.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Behind a value, whatever it is; what it holds is left to whoever reads it.
fn value_end(body: &[u8], start: usize) -> Option<usize> {
    match body.get(start)? {
        b'"' => text_end(body, start),
        b'{' | b'[' => {
            let (mut depth, mut at) = (0_u32, start);
            loop {
                match body.get(at)? {
                    b'"' => {
                        at = text_end(body, at)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        _ => {
            let length =
                body[start..].iter().position(|byte| matches!(byte, b',' | b'}') || byte.is_ascii_whitespace())?;
            (length > 0).then_some(start + length)
        }
    }
}

/// Parts keep their heads and contents; a part that is set gets another content.
fn form(body: &[u8], delimiter: &[u8], rewrite: &NameRewrite) -> Option<Vec<u8>> {
    let mut left: Vec<(&str, String)> =
        settings(rewrite).into_iter().map(|(name, value)| (name, plain(value))).collect();
    let dashes = delimiter.get(2..).filter(|dashes| dashes.len() > 2)?;
    let mut rest = match body.starts_with(dashes) {
        true => &body[dashes.len()..],
        false => &body[memmem::find(body, delimiter)? + delimiter.len()..],
    };
    let mut written = Vec::with_capacity(body.len());
    loop {
        if rest.starts_with(b"--") {
            break;
        }
        let line = memmem::find(rest, b"\r\n")?;
        if !rest[..line].iter().all(|byte| matches!(byte, b' ' | b'\t')) {
            return None;
        }
        let part = &rest[line + 2..];
        let end = memmem::find(part, delimiter)?;
        let (part, after) = (&part[..end], &part[end + delimiter.len()..]);
        let head = memmem::find(part, b"\r\n\r\n")? + 4;
        let named = field_of(&part[..head - 4]);
        let change = named.map_or(Change::Stays, |name| change(&name, rewrite, &mut left));
        let content = match &change {
            Change::Stays => Some(&part[head..]),
            Change::Becomes(text) => Some(text.as_bytes()),
            Change::Gone => None,
        };
        if let Some(content) = content {
            [dashes, b"\r\n", &part[..head], content, b"\r\n"]
                .iter()
                .for_each(|bytes| written.extend_from_slice(bytes));
        }
        rest = after;
    }
    for (name, value) in left {
        let head = format!("\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        [dashes, head.as_bytes()].iter().for_each(|bytes| written.extend_from_slice(bytes));
    }
    [dashes, b"--\r\n"].iter().for_each(|bytes| written.extend_from_slice(bytes));
    Some(written)
}

/// A value as a form has it: a text without its quotes.
fn plain(json: String) -> String {
    serde_json::from_str::<String>(&json).unwrap_or(json)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rewrite() -> NameRewrite {
        NameRewrite {
            model: Some("org/real".to_owned()),
            set: [("temperature".to_owned(), json!(0)), ("kwargs".to_owned(), json!({"think": false}))].into(),
            strip: ["logprobs".to_owned()].into(),
        }
    }

    fn json_of(body: &str) -> Option<String> {
        rewritten("application/json", body.as_bytes(), &rewrite()).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn members_that_are_not_named_stay_byte_for_byte() {
        let body = r#" { "messages" : [ {"role":"user", "content":"}\"]\\"} ] ,"logprobs":{"a":[1]}, "m\u006fdel" :"fast", "n":1.50e3,"big":12345678901234567890123 } "#;
        let expected = r#" {"messages" : [ {"role":"user", "content":"}\"]\\"} ],"m\u006fdel" :"org/real","n":1.50e3,"big":12345678901234567890123,"kwargs":{"think":false},"temperature":0} "#;
        assert_eq!(json_of(body).as_deref(), Some(expected));
        assert_eq!(json_of("{}").as_deref(), Some(r#"{"model":"org/real","kwargs":{"think":false},"temperature":0}"#));
        // What is set wins, and stands once.
        let twice = json_of(r#"{"model":"a","temperature":1,"model":"b","temperature":2}"#).unwrap();
        assert_eq!(twice, r#"{"model":"org/real","temperature":0,"kwargs":{"think":false}}"#);
        let read: Value = serde_json::from_str(&twice).unwrap();
        assert_eq!(read["model"], "org/real");
    }

    #[test]
    fn what_is_no_object_is_not_rewritten() {
        for body in
            ["", "[]", "{", r#"{"a"}"#, r#"{"a":}"#, r#"{"a":1"#, r#"{"a":1,}"#, r#"{"a":"b"#, r#"{a:1}"#, "null"]
        {
            assert_eq!(json_of(body), None, "{body}");
        }
    }

    #[test]
    fn parts_of_a_form_stay_byte_for_byte() {
        let kind = "multipart/form-data; boundary=xyz";
        let body = "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\r\n\0\r\n--xy\r\n\r\n--xyz  \r\ncontent-disposition: form-data; name=model\r\n\r\nfast\r\n--xyz\r\nContent-Disposition: form-data; name=\"logprobs\"\r\n\r\n5\r\n--xyz--\r\n";
        let expected = "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\r\n\0\r\n--xy\r\n\r\n--xyz\r\ncontent-disposition: form-data; name=model\r\n\r\norg/real\r\n--xyz\r\nContent-Disposition: form-data; name=\"kwargs\"\r\n\r\n{\"think\":false}\r\n--xyz\r\nContent-Disposition: form-data; name=\"temperature\"\r\n\r\n0\r\n--xyz--\r\n";
        let written = rewritten(kind, body.as_bytes(), &rewrite()).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), expected);
        for broken in ["", "--xyz", "--xyz\r\n", "--xyz\r\nno head\r\n--xyz--", "--xyz\r\na: b\r\n\r\nc"] {
            assert_eq!(rewritten(kind, broken.as_bytes(), &rewrite()), None, "{broken:?}");
        }
        assert_eq!(rewritten("multipart/form-data", body.as_bytes(), &rewrite()), None);
    }
}
