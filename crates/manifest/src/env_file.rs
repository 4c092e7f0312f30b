//! Files of variables, as shells and `docker run --env-file` read them: `NAME=VALUE` a line, `#` before remarks, quotes around values with
//! blanks or several lines.

/// A fault of a file, without a word of its values: they may be secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Counts from 1.
    pub(crate) line: usize,
    pub(crate) what: &'static str,
}

/// The variables of a file, in its order.
pub(crate) fn parse(text: &str) -> Result<Vec<(String, String)>, Fault> {
    let mut variables = Vec::new();
    let text = text.trim_start_matches('\u{feff}');
    let mut rest = text;
    while !rest.is_empty() {
        let line = text[..text.len() - rest.len()].matches('\n').count() + 1;
        let fault = |what| Fault { line, what };
        let (head, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let trimmed = head.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            rest = after;
            continue;
        }
        let begin = rest.len() - rest.trim_start().len();
        let assignment = &rest[begin..];
        let assignment = assignment.strip_prefix("export ").map_or(assignment, str::trim_start);
        let equals = assignment.find(['=', '\n']).filter(|at| assignment[*at..].starts_with('='));
        let Some(equals) = equals else { return Err(fault("it is not NAME=VALUE")) };
        let name = assignment[..equals].trim();
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if !first || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(fault("the name has other characters than letters, digits and `_`, or begins with a digit"));
        }
        let value = assignment[equals + 1..].trim_start_matches([' ', '\t']);
        let (value, after) = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let (value, after) = quoted(&value[1..], quote).ok_or_else(|| fault("the quote is not closed"))?;
                let (left, after) = after.split_once('\n').unwrap_or((after, ""));
                if !left.trim().is_empty() && !left.trim_start().starts_with('#') {
                    return Err(fault("there is text behind the closing quote"));
                }
                (value, after)
            }
            _ => {
                let (value, after) = value.split_once('\n').unwrap_or((value, ""));
                let value = value.find(" #").map_or(value, |remark| &value[..remark]);
                (value.trim().to_owned(), after)
            }
        };
        variables.push((name.to_owned(), value));
        rest = after;
    }
    Ok(variables)
}

/// A value up to its closing quote, and what comes behind it. Between double quotes `\n`, `\t`, `\"` and `\\` are one character each.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            c if c == quote => return Some((value, &text[at + c.len_utf8()..])),
            '\\' if quote == '"' => match characters.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                c @ ('"' | '\\' | '$') => value.push(c),
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_shells_and_containers_read_them() {
        let text = "\u{feff}# remark\r\n\nA=1\r\nexport B = two words # remark\nC='a # b'\nD=\"x\\n\\\"y\\\" \\q\" # z\nE=\nF=a=b#c\nG=\"1\n2\"\n  _h=i";
        let read = parse(text).unwrap();
        let read: Vec<(&str, &str)> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            read,
            [
                ("A", "1"),
                ("B", "two words"),
                ("C", "a # b"),
                ("D", "x\n\"y\" \\q"),
                ("E", ""),
                ("F", "a=b#c"),
                ("G", "1\n2"),
                ("_h", "i")
            ]
        );
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn faults_name_their_line_and_no_value() {
        for (text, line) in
            [("A=1\nword\nB=2", 2), ("1A=x", 1), ("\n\nA='x\n", 3), ("A=\"x\" y", 1), ("=x", 1), ("a b=x", 1)]
        {
            assert_eq!(parse(text).unwrap_err().line, line, "{text:?}");
        }
    }
}
