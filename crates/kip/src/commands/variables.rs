//! Variables of an instance that are given on the command line: `--env NAME=VALUE`, or `--env NAME` for the value that it has here.

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
                let problem = Problem::new(code::COMMAND_INPUT, format!("--env {pair}: the variable is not set here"));
                return Err(problem.hint(format!("write --env {pair}=VALUE, or set it before `{command}`")));
            }
            None => (pair.as_str(), format!("${{{pair}}}")),
        };
        if name.is_empty() {
            let problem = Problem::new(code::COMMAND_INPUT, format!("`{pair}` is not a variable"));
            return Err(problem.hint("write --env NAME=VALUE, or --env NAME for the value that it has here"));
        }
        env.insert(name.to_owned(), json!(value));
    }
    Ok(env)
}
