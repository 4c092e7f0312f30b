//! `kip fun …`: a line of the tool `fun` in the words of `kip`.

use clap::{CommandFactory, FromArgMatches};
use kip_spec::{Problem, code};

use crate::arguments::{Arguments, Command, Connection};
use crate::output::Output;

/// Commands of the tool that are carried out here.
const KNOWN: &str = "deploy, install, build, nas init|info|sync|ls, local start|invoke, invoke, validate";

pub(crate) async fn run(connection: &Connection, words: &[String], output: Output) -> anyhow::Result<()> {
    let line = translated(words)
        .map_err(|fault| Problem::new(code::COMMAND_INPUT, fault).hint(format!("known are {KNOWN}")))?;
    let matches = Arguments::command().try_get_matches_from(std::iter::once("kip".to_owned()).chain(line))?;
    let command: Command = Arguments::from_arg_matches(&matches)?.command;
    Box::pin(super::run(connection, command, output)).await
}

/// A line of `fun` as one of `kip`.
fn translated(words: &[String]) -> Result<Vec<String>, String> {
    let mut words = words.iter().map(String::as_str).peekable();
    let command = words.next().ok_or("the line has no command")?;
    let verb = |words: &mut std::iter::Peekable<_>| words.next().unwrap_or_default();
    let mut made: Vec<String> = Vec::new();
    let mut push = |word: &str| made.push(word.to_owned());
    match command {
        "deploy" | "validate" => {
            push(if command == "deploy" { "deploy" } else { "plan" });
            while let Some(word) = words.next() {
                match word {
                    "-t" | "--template" => {
                        push("-t");
                        push(words.next().unwrap_or_default());
                    }
                    "-y" | "--assume-yes" => push("-y"),
                    // About the vendor's own ways to deploy.
                    "--use-ros" | "--only-config" | "--use-nas" => {}
                    word if word.starts_with('-') => {
                        return Err(format!("`fun {command} {word}` is not carried out here"));
                    }
                    name => {
                        push("--only");
                        push(name);
                    }
                }
            }
        }
        "install" | "build" => {
            push("install");
            while let Some(word) = words.next() {
                match word {
                    "-r" | "--runtime" | "-p" | "--package-type" => drop(words.next()),
                    "--use-docker" | "-v" | "--verbose" | "-R" | "--recursive" | "--clean" => {}
                    word => push(word),
                }
            }
        }
        "nas" => {
            let verb = verb(&mut words);
            if !["init", "info", "sync", "ls"].contains(&verb) {
                return Err(format!("`fun nas {verb}` is not carried out here"));
            }
            ["nas", verb].into_iter().chain(words).for_each(push);
        }
        "local" => {
            let verb = verb(&mut words);
            if !["start", "invoke"].contains(&verb) {
                return Err(format!("`fun local {verb}` is not carried out here"));
            }
            push("local");
            push(verb);
            while let Some(word) = words.next() {
                match word {
                    // Debuggers, and the folders of Docker.
                    "-d" | "--debug-port" | "-c" | "--config" | "--tmp-dir" => drop(words.next()),
                    word => push(word),
                }
            }
        }
        "invoke" => ["s", "invoke"].into_iter().chain(words).for_each(push),
        other => return Err(format!("`fun {other}` is not carried out here")),
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_guides_become_lines_of_kip() {
        let line = |text: &str| {
            translated(&text.split(' ').map(str::to_owned).collect::<Vec<_>>()).map(|words| words.join(" "))
        };
        for (theirs, ours) in [
            ("deploy", "deploy"),
            ("deploy classify/cat-dog -t template.yml -y", "deploy --only classify/cat-dog -t template.yml -y"),
            ("install -v", "install"),
            ("build --use-docker", "install"),
            ("nas sync -s classify -m /mnt/auto", "nas sync -s classify -m /mnt/auto"),
            ("nas ls nas://classify:/mnt/auto/", "nas ls nas://classify:/mnt/auto/"),
            ("local invoke cat-dog -e {} -d 3000", "local invoke cat-dog -e {}"),
            ("local start", "local start"),
            ("invoke cat-dog -e {}", "s invoke cat-dog -e {}"),
            ("validate -t template.yml", "plan -t template.yml"),
        ] {
            assert_eq!(line(theirs).as_deref(), Ok(ours), "{theirs}");
            let words = std::iter::once("kip").chain(ours.split(' '));
            assert!(crate::arguments::command().try_get_matches_from(words).is_ok(), "{ours}");
        }
        for wrong in ["config", "nas cp", "local x", "deploy --parameter-override x"] {
            assert!(line(wrong).is_err(), "{wrong}");
        }
    }
}
