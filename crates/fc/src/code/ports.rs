//! Whether a program can learn the port that it is given: by its command and its files.
//!
//! A program that names its configured port and none of the variables that say one listens there whatever it is told, as the vendor's samples do.
//! Then the port is a resource, and programs with the same port take turns. A program that names neither may start another one that reads it.

use std::fs;
use std::path::Path;

/// The variables.
const VARIABLES: [&[u8]; 3] = [b"FC_SERVER_PORT", b"FC_CUSTOM_LISTEN_PORT", b"PORT"];
/// Of more than so many bytes or files it is assumed that some name one.
const MOST_BYTES: u64 = 64 << 20;
const MOST_FILES: usize = 20_000;

/// Whether a program may read its port. If not, its command or a file of it names the configured port, and nothing names a variable.
pub(crate) fn reads_port(argv: &[String], tree: &Path, port: u64) -> bool {
    let mut search = Search { number: port.to_string().into_bytes(), ..Search::default() };
    let mut named = |word: &String| {
        let path = Path::new(word);
        // A program of the host that the command names by its path.
        let is_outside = path.is_absolute() && !path.starts_with(tree) && path.is_file();
        search.text(word.as_bytes()) || (is_outside && search.file(path))
    };
    argv.iter().any(&mut named) || search.below(tree) || !search.named
}

#[derive(Debug, Default)]
struct Search {
    /// The configured port, in digits.
    number: Vec<u8>,
    /// Whether it was found.
    named: bool,
    bytes: u64,
    files: usize,
}

impl Search {
    fn below(&mut self, folder: &Path) -> bool {
        // What cannot be read may name one.
        let Ok(entries) = fs::read_dir(folder) else { return true };
        for entry in entries.flatten() {
            let path = entry.path();
            // The bootstraps of other runtimes are ours.
            if entry.file_name() == crate::bootstrap::FOLDER {
                continue;
            }
            // A link leads to what is looked at where it is.
            let Ok(kind) = entry.file_type() else { return true };
            let found = if kind.is_dir() { self.below(&path) } else { kind.is_file() && self.file(&path) };
            if found {
                return true;
            }
        }
        false
    }

    fn file(&mut self, path: &Path) -> bool {
        self.files += 1;
        self.bytes += fs::metadata(path).map_or(MOST_BYTES, |metadata| metadata.len());
        if self.files > MOST_FILES || self.bytes > MOST_BYTES {
            return true;
        }
        fs::read(path).map_or(true, |bytes| self.text(&bytes))
    }

    /// Whether a text names a variable. That it names the port is kept.
    fn text(&mut self, text: &[u8]) -> bool {
        let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
        self.named |= memchr::memmem::find_iter(text, &self.number).any(|at| {
            let before = at.checked_sub(1).and_then(|before| text.get(before));
            !is_digit(before) && !is_digit(text.get(at + self.number.len()))
        });
        names_variable(text)
    }
}

/// Whether a text has one of the names as a whole word.
fn names_variable(text: &[u8]) -> bool {
    let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let mut rest = text;
    let mut before = None;
    // Each name ends with the same four letters: one search finds all candidates.
    while let Some(at) = memchr::memmem::find(rest, b"PORT") {
        let end = at + 4;
        let whole = VARIABLES.iter().any(|name| {
            let begin = end.checked_sub(name.len());
            begin.is_some_and(|begin| {
                let left = if begin == 0 { before.as_ref() } else { rest.get(begin - 1) };
                rest[begin..end] == **name && !is_part(left) && !is_part(rest.get(end))
            })
        });
        if whole {
            return true;
        }
        // The name's beginning may lie before what is left: a candidate is never cut, since the next one begins behind this one.
        before = rest.get(end - 1).copied();
        rest = &rest[end..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_words() {
        for yes in [
            "int(os.environ['FC_SERVER_PORT'])",
            "process.env.PORT || 9000",
            "PORT",
            "listen $PORT;",
            "x_PORT FC_CUSTOM_LISTEN_PORT",
            "IMPORT PORT",
        ] {
            assert!(names_variable(yes.as_bytes()), "{yes}");
        }
        for no in [
            "",
            "SERVER_PORT",
            "MY_PORT=1",
            "PORTS",
            "IMPORT",
            "SO_REUSEPORT",
            "port = 9000",
            "PORT_1",
            "FC_SERVER_PORTS",
        ] {
            assert!(!names_variable(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn commands_and_files_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let none = ["python3".to_owned(), "app.py".to_owned()];
        fs::write(folder.path().join("app.py"), "HTTPServer(('0.0.0.0', 9000), Handler)").unwrap();
        assert!(!reads_port(&none, folder.path(), 9_000));
        assert!(reads_port(&none, folder.path(), 900), "it is another number");
        assert!(reads_port(&none, folder.path(), 8_000), "it names neither: what it starts may read one");
        assert!(!reads_port(&["serve".to_owned(), "--port=8000".to_owned()], folder.path(), 8_000));
        assert!(reads_port(
            &["sh".to_owned(), "-c".to_owned(), "serve --port ${PORT}".to_owned()],
            folder.path(),
            9_000
        ));
        fs::create_dir(folder.path().join(crate::bootstrap::FOLDER)).unwrap();
        fs::write(folder.path().join(crate::bootstrap::FOLDER).join("python.py"), "FC_SERVER_PORT").unwrap();
        assert!(!reads_port(&none, folder.path(), 9_000), "ours is none of the program");
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::write(outside.path(), b"\x7fELF getenv\0PORT\0").unwrap();
        assert!(reads_port(&[outside.path().display().to_string()], folder.path(), 9_000), "a program of the host");
        fs::create_dir(folder.path().join("lib")).unwrap();
        fs::write(folder.path().join("lib/server.py"), "os.environ.get(\"PORT\")").unwrap();
        assert!(reads_port(&none, folder.path(), 9_000));
    }
}
