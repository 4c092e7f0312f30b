//! The Funfile of a project: the lines that install what its functions need.

use std::path::PathBuf;

use kip_spec::{Problem, code};

/// A step of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Instruction {
    /// Packages of Python: the arguments of `pip install`.
    Pip(Vec<String>),
    /// Packages of the system, by name.
    Apt(Vec<String>),
    /// Packages of Node: the arguments of `npm install`.
    Npm(Vec<String>),
    /// A command of the shell.
    Run(String),
    /// Files, and where they go.
    Copy { from: Vec<PathBuf>, to: PathBuf },
    /// A variable of the steps behind it.
    Environment(String, String),
}

/// What a Funfile says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Funfile {
    /// The runtime that it is for.
    pub(super) runtime: Option<String>,
    /// With the line of each.
    pub(super) steps: Vec<(usize, Instruction)>,
}

/// Reads a Funfile. `file` names it in errors.
pub(super) fn read(file: &str, text: &str) -> Result<Funfile, Problem> {
    let mut found = Funfile::default();
    for (line, text) in joined(text) {
        let fault = |said: String, hint: &str| Problem::new(code::FUNFILE, format!("{file}:{line}: {said}")).hint(hint);
        let wrong = |said: String, hint: &str| Err(fault(said, hint));
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((&text, ""));
        let rest = rest.trim();
        match word.to_ascii_uppercase().as_str() {
            "RUNTIME" => found.runtime = Some(rest.to_owned()),
            "RUN" if rest.is_empty() => {
                return wrong("RUN has no command".to_owned(), "write RUN fun-install pip install NAME");
            }
            "RUN" => {
                for step in commands(rest) {
                    let step = step.map_err(|said| fault(said, "write fun-install pip|apt-get|npm install NAME"))?;
                    found.steps.push((line, step));
                }
            }
            "COPY" | "ADD" => {
                let mut words = words(rest);
                let to = words.pop().map(PathBuf::from);
                match to {
                    Some(to) if !words.is_empty() => {
                        let from = words.into_iter().map(PathBuf::from).collect();
                        found.steps.push((line, Instruction::Copy { from, to }));
                    }
                    _ => return wrong(format!("{word} needs files and a place"), "write COPY model ./model"),
                }
            }
            "ENV" => {
                let pair = rest.split_once('=').or_else(|| rest.split_once(char::is_whitespace));
                let Some((name, value)) = pair else {
                    return wrong("ENV needs a name and a value".to_owned(), "write ENV NAME=VALUE");
                };
                let value = value.trim().trim_matches('"').to_owned();
                found.steps.push((line, Instruction::Environment(name.trim().to_owned(), value)));
            }
            // Of images, which are not built here.
            "WORKDIR" | "MAINTAINER" | "LABEL" | "USER" => {}
            other => {
                return wrong(
                    format!("`{other}` is no instruction of a Funfile here"),
                    "known are RUNTIME, RUN, COPY and ENV",
                );
            }
        }
    }
    Ok(found)
}

/// Lines without comments, those that end with `\` joined to the next.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut all: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('#') || (line.is_empty() && !goes_on) {
            continue;
        }
        let (part, more) = line.strip_suffix('\\').map_or((line, false), |part| (part.trim_end(), true));
        match all.last_mut().filter(|_| goes_on) {
            Some((_, before)) => {
                before.push(' ');
                before.push_str(part);
            }
            None => all.push((number + 1, part.to_owned())),
        }
        goes_on = more;
    }
    all
}

/// The words of a line, as a shell cuts them: quotes hold words together.
fn words(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let (mut word, mut quote, mut begun) = (String::new(), None, false);
    for letter in text.chars() {
        match (quote, letter) {
            (Some(open), letter) if open == letter => quote = None,
            (None, '"' | '\'') => (quote, begun) = (Some(letter), true),
            (None, letter) if letter.is_whitespace() => {
                if begun || !word.is_empty() {
                    all.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            _ => word.push(letter),
        }
    }
    if begun || !word.is_empty() {
        all.push(word);
    }
    all
}

/// The commands of a RUN. A line with a command that is not `fun-install` is one command of the shell, if nothing in it is.
fn commands(text: &str) -> Vec<Result<Instruction, String>> {
    let parts: Vec<&str> = text.split("&&").map(str::trim).collect();
    if parts.iter().all(|part| !is_install(part)) {
        return vec![Ok(Instruction::Run(text.to_owned()))];
    }
    let one = |part: &&str| if is_install(part) { install(part) } else { Ok(Instruction::Run((*part).to_owned())) };
    parts.iter().map(one).collect()
}

fn is_install(part: &str) -> bool {
    part.split_whitespace().next() == Some("fun-install")
}

fn install(part: &str) -> Result<Instruction, String> {
    let words = words(part);
    let (kind, rest) = match words.get(1..) {
        Some([kind, verb, rest @ ..]) if verb == "install" => (kind.as_str(), rest),
        _ => return Err(format!("`{part}` installs nothing")),
    };
    let rest: Vec<String> = rest.to_vec();
    if rest.is_empty() && kind != "npm" {
        return Err(format!("`{part}` names no package"));
    }
    match kind {
        "pip" | "pip3" | "pip2" => Ok(Instruction::Pip(rest)),
        "apt-get" | "apt" => Ok(Instruction::Apt(rest.into_iter().filter(|word| !word.starts_with('-')).collect())),
        "npm" => Ok(Instruction::Npm(rest)),
        other => Err(format!("`fun-install {other}` is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instructions_of_a_funfile_are_read() {
        let text = "# what classify needs
RUNTIME python3
WORKDIR /code
ENV PIP_INDEX_URL=https://index.example
RUN fun-install pip install tensorflow==1.8.0 \\
    'numpy<2'
RUN fun-install apt-get install -y libgl1 && fun-install npm install
RUN ./build.sh && echo done
COPY model ./model
";
        let found = read("Funfile", text).unwrap();
        assert_eq!(found.runtime.as_deref(), Some("python3"));
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            found.steps,
            [
                (4, Instruction::Environment("PIP_INDEX_URL".to_owned(), "https://index.example".to_owned())),
                (5, Instruction::Pip(words("tensorflow==1.8.0 numpy<2"))),
                (7, Instruction::Apt(words("libgl1"))),
                (7, Instruction::Npm(Vec::new())),
                (8, Instruction::Run("./build.sh && echo done".to_owned())),
                (9, Instruction::Copy { from: vec!["model".into()], to: "./model".into() }),
            ]
        );
    }

    #[test]
    fn a_line_that_cannot_be_carried_out_is_named() {
        for (text, said) in [
            ("RUNTIME python3\nEXPOSE 80", "Funfile:2: `EXPOSE`"),
            ("RUN", "Funfile:1: RUN has no command"),
            ("RUN fun-install gem install x", "`fun-install gem`"),
            ("RUN fun-install pip install", "names no package"),
            ("COPY x", "needs files and a place"),
            ("ENV X", "a name and a value"),
        ] {
            let problem = read("Funfile", text).unwrap_err();
            assert!(problem.code == code::FUNFILE && problem.message.contains(said), "{text}: {problem:?}");
        }
    }
}
