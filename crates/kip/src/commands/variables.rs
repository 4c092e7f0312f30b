//! Variables of an instance that are given on the command line: `--env NAME=VALUE`, or `--env NAME` for the value that it has here.

use std::collections::BTreeMap;

use kip_spec::{Problem, code, reference};
use serde_json::{Map, Value, json};

/// As keys of a manifest. `command` is the command that they were given to.
///
/// # Errors
/// One has no name, or no value here.
pub(crate) fn given(pairs: &[String], command: &str) -> Result<Map<String, Value>, Problem> {
    let mut env = Map::new();
    for pair in pairs {
        // A name alone is taken from our environment, as references in a manifest are.
        let (name, value) = match pair.split_once('=') {
            Some((name, value)) => (name, reference::escaped(value)),
            None if kip_host::environment::read(pair).is_none() && !pair.is_empty() => {
                return Err(unset(pair, command));
            }
            None => (pair.as_str(), format!("${{{pair}}}")),
        };
        if name.is_empty() {
            return Err(nameless(pair));
        }
        env.insert(name.to_owned(), json!(value));
    }
    Ok(env)
}

/// With their values.
///
/// # Errors
/// One has no name, or no value here.
pub(crate) fn valued(pairs: &[String], command: &str) -> Result<BTreeMap<String, String>, Problem> {
    let one = |pair: &String| {
        let (name, value) = match pair.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => (pair.as_str(), kip_host::environment::read(pair).ok_or_else(|| unset(pair, command))?),
        };
        if name.is_empty() { Err(nameless(pair)) } else { Ok((name.to_owned(), value)) }
    };
    pairs.iter().map(one).collect()
}

fn unset(name: &str, command: &str) -> Problem {
    let problem = Problem::new(code::COMMAND_INPUT, format!("--env {name}: the variable is not set here"));
    problem.hint(format!("write --env {name}=VALUE, or set it before `{command}`"))
}

fn nameless(pair: &str) -> Problem {
    let problem = Problem::new(code::COMMAND_INPUT, format!("`{pair}` is not a variable"));
    problem.hint("write --env NAME=VALUE, or --env NAME for the value that it has here")
}
