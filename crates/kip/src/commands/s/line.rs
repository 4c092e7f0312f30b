//! A command line of the tool `s`: `s [RESOURCE] COMMAND [VERB] [FLAGS]`, flags in kebab or camel case.

use std::collections::BTreeMap;

/// Commands of the tool.
const COMMANDS: [&str; 18] = [
    "deploy",
    "plan",
    "info",
    "invoke",
    "remove",
    "version",
    "alias",
    "provision",
    "scaling",
    "concurrency",
    "instance",
    "logs",
    "layer",
    "local",
    "build",
    "sync",
    "session",
    "list",
];
/// Commands that have verbs.
const WITH_VERBS: [&str; 8] = ["version", "alias", "provision", "scaling", "concurrency", "instance", "layer", "local"];
/// Flags without a value.
const SWITCHES: [&str; 10] =
    ["assume-yes", "tail", "wait", "help", "debug", "allow-actions", "skip-actions", "silent", "verbose", "use-local"];
/// Switches that may have `true` or `false` behind them.
const MAYBE: [&str; 4] = ["skip-push", "always-allocate-cpu", "always-allocate-gpu", "disable-ondemand"];
/// Flags for a part of a deployment, which may name the part of it.
const PARTS: [&str; 2] = ["function", "trigger"];
/// Other spellings.
const OTHER: [(&str, &str); 15] = [
    ("y", "assume-yes"),
    ("yes", "assume-yes"),
    ("t", "template"),
    ("a", "access"),
    ("e", "event"),
    ("f", "event-file"),
    ("ac", "always-allocate-cpu"),
    ("ag", "always-allocate-gpu"),
    ("s", "start-time"),
    ("vw", "version-weight"),
    ("stateful-async-invocation-id", "async-task-id"),
    ("o", "output"),
    ("invocationtype", "invocation-type"),
    ("alwaysallocatecpu", "always-allocate-cpu"),
    ("alwaysallocategpu", "always-allocate-gpu"),
];

/// A line that was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// The key of a resource of the file, if one stands before the command.
    pub(crate) resource: Option<String>,
    pub(crate) command: String,
    /// `put` of `provision put`.
    pub(crate) verb: Option<String>,
    flags: BTreeMap<String, String>,
}

impl CommandLine {
    /// Reads the words behind `s`.
    pub(crate) fn read(words: &[String]) -> Result<Self, String> {
        let mut line = Self::default();
        let mut plain: Vec<&str> = Vec::new();
        let mut words = words.iter().map(String::as_str).peekable();
        while let Some(word) = words.next() {
            let is_flag =
                word.starts_with('-') && word.len() > 1 && !word[1..].starts_with(|c: char| c.is_ascii_digit());
            if !is_flag {
                plain.push(word);
                continue;
            }
            let (name, joined) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word, None),
            };
            let name = flag_name(name);
            // `-f` is a file of events for `invoke`, and nothing else has it.
            let value = match joined {
                Some(value) => value,
                None if SWITCHES.contains(&name.as_str()) => "true".to_owned(),
                None if MAYBE.contains(&name.as_str()) => {
                    words.next_if(|next| ["true", "false"].contains(next)).unwrap_or("true").to_owned()
                }
                None if PARTS.contains(&name.as_str()) => {
                    words.next_if(|next| !next.starts_with('-')).unwrap_or("true").to_owned()
                }
                None => words.next().ok_or_else(|| format!("`{word}` needs a value"))?.to_owned(),
            };
            line.flags.insert(name, value);
        }
        let mut plain = plain.into_iter();
        let first = plain.next().ok_or_else(|| "the line has no command".to_owned())?;
        let command = if COMMANDS.contains(&first) {
            first
        } else {
            line.resource = Some(first.to_owned());
            plain.next().ok_or_else(|| format!("`{first}` is no command of `s`"))?
        };
        line.command = command.to_owned();
        if WITH_VERBS.contains(&command) {
            line.verb = plain.next().map(str::to_owned);
        }
        // `kip s invoke NAME`, and what else may name a resource.
        if let Some(name) = plain.next() {
            line.resource.get_or_insert_with(|| name.to_owned());
        }
        Ok(line)
    }

    /// The value of a flag.
    pub(crate) fn flag(&self, name: &str) -> Option<&str> {
        self.flags.get(name).map(String::as_str)
    }

    /// Whether a switch is on.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.flag(name).is_some_and(|value| value != "false")
    }
}

/// A flag in kebab case, by its one name.
fn flag_name(word: &str) -> String {
    let bare = word.trim_start_matches('-');
    let other = |name: &str| OTHER.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| (*ours).to_owned());
    if let Some(name) = other(bare).or_else(|| other(&bare.to_lowercase())) {
        return name;
    }
    let mut made = String::new();
    for letter in bare.chars() {
        if letter.is_ascii_uppercase() && !made.is_empty() && !made.ends_with('-') {
            made.push('-');
        }
        made.push(letter.to_ascii_lowercase());
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> CommandLine {
        CommandLine::read(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn lines_of_the_guides() {
        let line = read("deploy --skip-push true -t s.yaml -y");
        assert_eq!((line.command.as_str(), line.flag("template")), ("deploy", Some("s.yaml")));
        assert!(line.has("assume-yes") && line.resource.is_none());
        let line = read(
            "provision put --target 1 --targetTrackingPolicies ./provision.json --qualifier LATEST -t s.yaml -a ACCESS",
        );
        assert_eq!((line.command.as_str(), line.verb.as_deref()), ("provision", Some("put")));
        assert_eq!(line.flag("target-tracking-policies"), Some("./provision.json"));
        let line = read("web alias publish --alias-name prod --version-id 2 --vw={\"1\":0.2}");
        assert_eq!((line.resource.as_deref(), line.flag("version-weight")), (Some("web"), Some("{\"1\":0.2}")));
        let line = read("provision put --alwaysAllocateCPU --ag false --target 0");
        assert!(line.has("always-allocate-cpu") && !line.has("always-allocate-gpu"));
        assert_eq!(read("invoke web -e {}").resource.as_deref(), Some("web"));
        assert!(read("deploy --function -y").has("assume-yes") && read("deploy --function code -y").resource.is_none());
        assert!(CommandLine::read(&[]).is_err());
        assert!(CommandLine::read(&["web".to_owned()]).is_err());
        assert!(CommandLine::read(&["deploy".to_owned(), "-t".to_owned()]).is_err());
    }
}
