//! What looks like a secret: it is not passed on unasked, and is masked wherever it would be shown.
//!
//! This is a guess by names and by the forms that well-known secrets have. It does not replace a place for secrets.

use std::borrow::Cow;

/// What is shown in the place of a secret.
pub const MASK: &str = "***";

/// Words of a name, between `_`, `-` and `.`, that stand for a secret.
const WORDS: [&str; 18] = [
    "APIKEY",
    "AUTH",
    "AUTHORIZATION",
    "BEARER",
    "COOKIE",
    "CREDENTIAL",
    "CREDENTIALS",
    "CREDS",
    "DSN",
    "JWT",
    "KEY",
    "KEYS",
    "PASS",
    "PASSPHRASE",
    "PAT",
    "PRIVATE",
    "PWD",
    "SIGNATURE",
];
/// The same, where a word only has to end so: `GITHUBTOKEN`, `PGPASSWORD`.
const ENDINGS: [&str; 7] = ["TOKEN", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "APIKEY", "ACCESSKEY"];
/// The beginnings of well-known secrets.
const BEGINNINGS: [&str; 18] = [
    "AIza",
    "AKIA",
    "ASIA",
    "LTAI",
    "dckr_pat_",
    "eyJ",
    "gho_",
    "ghp_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "gsk_",
    "hf_",
    "kw_",
    "npm_",
    "nvapi-",
    "sk-",
    "xoxb-",
];
/// A well-known beginning counts with so many characters behind it.
const LEAST_BEHIND: usize = 12;

/// Whether a variable or key of this name holds a secret, as far as its name says.
pub fn is_name(name: &str) -> bool {
    // The shell's own folder names.
    if matches!(name, "PWD" | "OLDPWD") {
        return false;
    }
    name.split(['_', '-', '.', ' ']).any(|word| {
        let word = word.to_ascii_uppercase();
        WORDS.contains(&word.as_str()) || ENDINGS.iter().any(|ending| word.ends_with(ending))
    })
}

/// Whether a value is a secret by its form, or holds one: a URL with a password in it.
pub fn is_value(value: &str) -> bool {
    value.contains("-----BEGIN ") || value.split(is_delimiter).any(is_token) || !user_parts(value).is_empty()
}

/// The value of a variable as it may be shown.
pub fn masked<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    if value.is_empty() {
        return Cow::Borrowed(value);
    }
    if is_name(name) || value.contains("-----BEGIN ") {
        return Cow::Borrowed(MASK);
    }
    masked_text(value)
}

/// A text in which what looks like a secret is masked: words of the known forms, passwords in URLs, and what stands behind a name
/// that says so (`HF_TOKEN: …`, `--api-key=…`, `--api-key …`).
pub fn masked_text(text: &str) -> Cow<'_, str> {
    let lines: Vec<Cow<'_, str>> = text.split('\n').map(masked_line).collect();
    if lines.iter().all(|line| matches!(line, Cow::Borrowed(_))) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(lines.join("\n"))
}

/// A path of a URL in which segments and values of the known forms are masked, however they are escaped.
pub fn masked_path(path: &str) -> Cow<'_, str> {
    let ends = |c: char| is_delimiter(c) || matches!(c, '/' | '#' | '@' | '|' | '~');
    // Nearly all paths: one look.
    if !path.contains('%') && !BEGINNINGS.iter().any(|beginning| path.contains(beginning)) {
        return Cow::Borrowed(path);
    }
    let mut masked = String::with_capacity(path.len());
    let mut changed = false;
    for piece in path.split_inclusive(ends) {
        let word = piece.strip_suffix(ends).unwrap_or(piece);
        let plain = crate::escape::unescaped(word);
        if String::from_utf8_lossy(&plain).split(ends).any(is_token) {
            masked.push_str(MASK);
            masked.push_str(&piece[word.len()..]);
            changed = true;
        } else {
            masked.push_str(piece);
        }
    }
    if changed { Cow::Owned(masked) } else { Cow::Borrowed(path) }
}

/// Words of a command in which what looks like a secret is masked: `--api-key` hides the word behind it.
pub fn masked_words(words: &[String]) -> Vec<String> {
    let mut named = false;
    let mask = |word: &String| {
        let hidden =
            std::mem::replace(&mut named, word.starts_with('-') && !word.contains('=') && is_name_in_text(word));
        if hidden && !word.starts_with('-') { MASK.to_owned() } else { masked_text(word).into_owned() }
    };
    words.iter().map(mask).collect()
}

fn is_delimiter(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '"' | '\'' | ',' | ';' | '=' | ':' | '(' | ')' | '[' | ']' | '{' | '}' | '<' | '>' | '&' | '?')
}

fn is_token(word: &str) -> bool {
    BEGINNINGS.iter().any(|beginning| {
        word.strip_prefix(beginning).is_some_and(|rest| {
            rest.len() >= LEAST_BEHIND
                && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        })
    })
}

/// Where `user:password` stands in URLs.
fn user_parts(text: &str) -> Vec<std::ops::Range<usize>> {
    let authority = |(found, _): (usize, &str)| {
        let begin = found + 3;
        let end = text[begin..].find(|c: char| matches!(c, '/' | '?' | '#' | '"' | '\'') || c.is_whitespace());
        let authority = &text[begin..end.map_or(text.len(), |end| begin + end)];
        let (user, _) = authority.rsplit_once('@')?;
        let is_secret = user.contains(':') && !user.contains("${");
        is_secret.then_some(begin..begin + user.len())
    };
    text.match_indices("://").filter_map(authority).collect()
}

fn masked_line(line: &str) -> Cow<'_, str> {
    let mut places = secrets_of(line);
    places.extend(user_parts(line));
    // A URL behind a name may be in both lists: the larger place counts.
    places.sort_by_key(|place| (place.start, std::cmp::Reverse(place.end)));
    let mut end_of_last = 0;
    places.retain(|place| {
        let fresh = place.start >= end_of_last;
        end_of_last = end_of_last.max(place.end);
        fresh
    });
    if places.is_empty() {
        return Cow::Borrowed(line);
    }
    let mut result = line.to_owned();
    // From behind, so that places stay true.
    places.into_iter().rev().for_each(|place| result.replace_range(place, MASK));
    Cow::Owned(result)
}

/// Whether a word within a text names a secret. `auth: key` of a manifest does not: a name alone has to be written as a variable or an
/// option is, or to be one of the words that mean nothing else.
fn is_name_in_text(word: &str) -> bool {
    let bare = word.trim_start_matches('-');
    let like_variable = bare.contains(['_', '-']) || !bare.bytes().any(|byte| byte.is_ascii_lowercase());
    let upper = bare.to_ascii_uppercase();
    is_name(bare) && (like_variable || ENDINGS.iter().any(|ending| upper.ends_with(ending)))
}

/// Where in a line secrets stand: tokens, and values behind a name that says so.
fn secrets_of(line: &str) -> Vec<std::ops::Range<usize>> {
    let mut places = Vec::new();
    let mut named = false;
    let mut at = 0;
    while at < line.len() {
        let rest = &line[at..];
        let length = rest.find(is_delimiter).unwrap_or(rest.len());
        let word = &rest[..length];
        if length > 0 {
            let is_flag = word.starts_with("--");
            if is_token(word) {
                places.push(at..at + length);
                named = false;
            } else if named && !is_flag {
                // A reference is no secret, and a quoted value goes to its end.
                let end = value_end(line, at);
                if !word.starts_with('$') && !matches!(word, "null" | "true" | "false") && word != MASK {
                    places.push(at..end);
                }
                named = false;
                at = end;
                continue;
            } else {
                let after = rest[length..].trim_start_matches(['"', '\'']);
                let assigned = after.trim_start().starts_with(['=', ':']);
                named = is_name_in_text(word) && (assigned || (is_flag && after.starts_with(' ')));
            }
            at += length;
            continue;
        }
        let c = rest.chars().next().map_or(1, char::len_utf8);
        // What separates a name from its value leaves the name in force, an end of a list does not.
        if rest.starts_with([',', ';', '}', ']', ')', '{', '[']) {
            named = false;
        }
        at += c;
    }
    places
}

/// The end of a value that begins here: of a quoted one the quote, else the next blank or end of a list.
fn value_end(line: &str, at: usize) -> usize {
    let rest = &line[at..];
    let quote = line[..at].chars().next_back().filter(|c| matches!(c, '"' | '\''));
    let end = match quote {
        Some(quote) => rest.find(quote),
        None => rest.find(|c: char| c.is_whitespace() || matches!(c, ',' | '}' | ']' | '"' | '\'')),
    };
    at + end.unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known() {
        for name in [
            "HF_TOKEN",
            "OPENAI_API_KEY",
            "AWS_SECRET_ACCESS_KEY",
            "PGPASSWORD",
            "DB_PASS",
            "GITHUB_PAT",
            "DATABASE_DSN",
            "api-key",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "HUGGING_FACE_HUB_TOKEN",
            "X_AUTH",
            "password",
            "NPM_AUTHTOKEN",
            "HF_TOKEN_PATH",
        ] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "PATH",
            "HF_HOME",
            "TOKENIZERS_PARALLELISM",
            "CUDA_VISIBLE_DEVICES",
            "OMP_NUM_THREADS",
            "PWD",
            "KEYBOARD",
            "AUTHOR",
            "PASSIVE",
            "COMPASS_HOME",
            "MAX_NEW_TOKENS",
        ] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn forms_of_secrets_are_known() {
        for value in [
            "sk-proj-0123456789abcdef",
            "hf_0123456789abcdefXYZ",
            "AKIAIOSFODNN7EXAMPLE",
            "https://u:p@host/x",
            "-----BEGIN PRIVATE KEY-----",
            "postgres://me:word@db:5432/x",
            "Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc",
        ] {
            assert!(is_value(value), "{value}");
        }
        for value in
            ["/models/hf_cache", "http://proxy:3128", "sk-learn", "a:b@c", "https://user@host/", "https://${U}:${P}@h/"]
        {
            assert!(!is_value(value), "{value}");
        }
    }

    #[test]
    fn values_are_masked_by_name_and_by_form() {
        assert_eq!(masked("HF_TOKEN", "abc"), "***");
        assert_eq!(masked("HF_TOKEN", ""), "");
        assert_eq!(masked("HF_HOME", "/models"), "/models");
        assert_eq!(masked("HTTPS_PROXY", "http://u:p@proxy:3128"), "http://***@proxy:3128");
        assert_eq!(masked("EXTRA", "x hf_0123456789abcdefXYZ y"), "x *** y");
    }

    #[test]
    fn segments_of_paths_are_masked() {
        let key = format!("kw_{:064x}", 7);
        for (path, expected) in [
            (format!("/f/x/{key}"), "/f/x/***"),
            (format!("/f/x/{key}/y?a={key}&b=1"), "/f/x/***/y?a=***&b=1"),
            (format!("/f/x/kw%5F{:064x}/y", 7), "/f/x/***/y"),
            (format!("/f/x/a%2F{key}"), "/f/x/***"),
            (format!("/f/x/u:{key}@h"), "/f/x/u:***@h"),
            ("/f/x/hf_0123456789abcdefXYZ".to_owned(), "/f/x/***"),
            ("/f/kw_short/hf_x/a%20b".to_owned(), "/f/kw_short/hf_x/a%20b"),
        ] {
            assert_eq!(masked_path(&path), expected);
        }
    }

    #[test]
    fn words_of_commands_are_masked_by_the_option_before_them() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let masked = |text: &str| masked_words(&words(text)).join(" ");
        assert_eq!(masked("serve --api-key abc --port 8 --token=x"), "serve --api-key *** --port 8 --token=***");
        assert_eq!(masked("serve --key --verbose x"), "serve --key --verbose x");
        assert_eq!(masked("true --token hf_0123456789abcdefXYZ"), "true --token ***");
    }

    #[test]
    fn documents_keep_all_but_their_secrets() {
        for (text, expected) in [
            ("env: {HF_TOKEN: abc, LANG: C}", "env: {HF_TOKEN: ***, LANG: C}"),
            ("    OPENAI_API_KEY: \"a b c\"  # mine", "    OPENAI_API_KEY: \"***\"  # mine"),
            ("{\"env\":{\"DB_PASSWORD\":\"x,y\",\"A\":\"1\"}}", "{\"env\":{\"DB_PASSWORD\":\"***\",\"A\":\"1\"}}"),
            ("    HF_TOKEN: ${HF_TOKEN}", "    HF_TOKEN: ${HF_TOKEN}"),
            ("run: serve --api-key abc --port 8", "run: serve --api-key *** --port 8"),
            ("run: [serve, --api-key=abc, --port]", "run: [serve, --api-key=***, --port]"),
            ("run: serve sk-0123456789abcdef", "run: serve ***"),
            ("A: https://u:p@h/ B: https://v:q@i/", "A: https://***@h/ B: https://***@i/"),
            ("trigger: {http: {auth: key}}\nkeys: 3", "trigger: {http: {auth: key}}\nkeys: 3"),
            ("plain text", "plain text"),
        ] {
            assert_eq!(masked_text(text), expected);
        }
    }
}
