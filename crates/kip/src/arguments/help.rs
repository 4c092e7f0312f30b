//! The help of `kip` itself: commands in groups, and what is said about a command line that is not understood.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, FromArgMatches};

use super::Arguments;

/// The commands, by what they are for. A test compares this with the commands that there are.
const GROUPS: [(&str, &[&str]); 5] = [
    (
        "Functions",
        &[
            "up", "deploy", "plan", "rollback", "version", "alias", "rollout", "invoke", "exec", "run", "ls",
            "inspect", "rm", "info", "import", "model", "preset", "layer", "domain", "s", "install", "local", "nas",
            "fun",
        ],
    ),
    ("What happens", &["ps", "top", "logs", "requests", "why", "usage", "cost", "budget"]),
    ("Work and scaling", &["task", "job", "provision", "scaler", "simulate", "bench", "advise", "rotate"]),
    ("The server", &["start", "serve", "stop", "doctor", "config", "service", "backup", "restore"]),
    ("Access and more", &["key", "secret", "audit", "device", "fit", "quota", "image", "pool", "schema", "completion"]),
];

/// Exit codes, as the help and docs/README.md have them.
const EXIT_CODES: &str =
    "Exit codes: 0 done; 1 failed; 2 the command line is wrong; 4 and 5 `invoke --fail`; 130 interrupted.
`kip run` and `kip exec` exit as their programs do. `kip COMMAND --help` has more.";

/// An option that looks less like what was typed is no suggestion.
const FARTHEST: usize = 2;

/// The command line as clap knows it, with the help in groups.
pub(crate) fn command() -> Command {
    let command = Arguments::command();
    let groups = groups(&command);
    command.help_template(format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{groups}\nOptions:\n{{options}}\n\n{EXIT_CODES}\n"
    ))
}

fn groups(command: &Command) -> String {
    let mut text = String::new();
    for (group, names) in GROUPS {
        text.push_str(&format!("{group}:\n"));
        for name in names {
            let about = command.find_subcommand(name).and_then(Command::get_about).map(ToString::to_string);
            text.push_str(&format!("  {name:<11}{}\n", about.unwrap_or_default()));
        }
        text.push('\n');
    }
    text
}

/// Reads the command line, or ends with what is wrong with it.
pub(crate) fn parse() -> Arguments {
    let words = rewritten(std::env::args_os().collect());
    let read = command().try_get_matches_from(words).and_then(|matches| Arguments::from_arg_matches(&matches));
    read.unwrap_or_else(|error| cleaned(error).exit())
}

/// `kip import FILE -o kip.yaml`: there `-o` names the file to write, unless it is a way to print.
fn rewritten(mut words: Vec<OsString>) -> Vec<OsString> {
    let is_file = |word: &OsString| word != "text" && word != "json";
    let import = words.iter().position(|word| word == "import").unwrap_or(words.len());
    for at in import..words.len().saturating_sub(1) {
        if words[at] == "-o" && is_file(&words[at + 1]) {
            words[at] = "--write".into();
        }
    }
    words
}

/// An error without a suggestion that leads astray: `--wait` is no misspelt `--api`.
fn cleaned(mut error: clap::Error) -> clap::Error {
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let text = |error: &clap::Error, kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let (given, suggested) = (text(&error, ContextKind::InvalidArg), text(&error, ContextKind::SuggestedArg));
    if let (Some(given), Some(suggested)) = (given, suggested)
        && distance(given.trim_start_matches('-'), suggested.trim_start_matches('-')) > FARTHEST
    {
        error.remove(ContextKind::SuggestedArg);
        // It would name the same option.
        error.remove(ContextKind::Usage);
    }
    error
}

/// How many characters have to be put in, left out or changed to make one word of another.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, a) in one.chars().enumerate() {
        let mut before = row[0];
        row[0] = line + 1;
        for (column, b) in other.iter().enumerate() {
            let changed = before + usize::from(a != *b);
            before = row[column + 1];
            row[column + 1] = changed.min(before + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_command_is_in_one_group() {
        let command = command();
        let shown = command.get_subcommands().filter(|command| !command.is_hide_set()).map(Command::get_name);
        // `infer` is what instances run.
        let shown: BTreeSet<&str> = shown.filter(|name| *name != "infer").collect();
        let grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        assert_eq!(grouped.iter().copied().collect::<BTreeSet<&str>>(), shown);
        assert_eq!(grouped.len(), shown.len(), "none is in two");
        command.debug_assert();
    }

    #[test]
    fn nouns_are_singular_with_their_plural_as_alias() {
        let command = command();
        for (noun, plural) in [
            ("task", "tasks"),
            ("job", "jobs"),
            ("alias", "aliases"),
            ("version", "versions"),
            ("key", "keys"),
            ("secret", "secrets"),
            ("device", "devices"),
            ("image", "images"),
        ] {
            let found = command.find_subcommand(plural).map(Command::get_name);
            assert_eq!(found, Some(noun));
        }
        // One set of verbs, whatever a verb was called before.
        for (noun, verb, earlier) in [
            ("provision", "set", "put"),
            ("provision", "show", "get"),
            ("provision", "ls", "list"),
            ("task", "rm", "purge"),
            ("key", "ls", "list"),
            ("job", "ls", "list"),
        ] {
            let found = command.find_subcommand(noun).and_then(|noun| noun.find_subcommand(earlier));
            assert_eq!(found.map(Command::get_name), Some(verb), "{noun} {earlier}");
        }
    }

    #[test]
    fn import_names_its_file_by_o() {
        let words = |line: &str| rewritten(line.split(' ').map(OsString::from).collect());
        assert_eq!(words("kip import s.yaml -o kip.yaml")[3], "--write");
        assert_eq!(words("kip --data-dir d import s.yaml -o kip.yaml")[5], "--write");
        assert_eq!(words("kip import s.yaml -o json")[3], "-o");
        assert_eq!(words("kip ls -o yaml")[2], "-o");
    }

    #[test]
    fn only_near_options_are_suggested() {
        assert_eq!((distance("wait", "api"), distance("folow", "follow"), distance("", "ab")), (3, 1, 2));
        let error = |words: &[&str]| cleaned(command().try_get_matches_from(words).unwrap_err()).to_string();
        assert!(!error(&["kip", "ls", "--wait"]).contains("similar"), "{}", error(&["kip", "ls", "--wait"]));
        assert!(error(&["kip", "logs", "f", "--folow"]).contains("--follow"));
    }
}
