//! Names of models are unique on a server: no two functions have one, and none is another function's own name.

use std::collections::BTreeMap;

use kip_spec::function::FunctionSpec;
use kip_spec::{Problem, code};

use crate::Api;
use crate::error::ApiResult;

/// Whether functions that are to be deployed may have their names.
pub(crate) fn require_free(api: &Api, specs: &[FunctionSpec]) -> ApiResult<()> {
    let deployed = api.control.functions();
    let others: Vec<&FunctionSpec> =
        deployed.iter().map(|info| &info.spec).filter(|spec| !specs.iter().any(|new| new.name == spec.name)).collect();
    match conflict(others.into_iter().chain(specs)) {
        None => Ok(()),
        Some((name, first, second)) => {
            let message = format!("`{first}` and `{second}` would both be called by the model name `{name}`");
            Err(Problem::new(code::MODEL_NAME_TAKEN, message)
                .hint("remove the name from `names` of one of them")
                .into())
        }
    }
}

/// The first name that two functions have, with both.
fn conflict<'a>(specs: impl Iterator<Item = &'a FunctionSpec> + Clone) -> Option<(String, String, String)> {
    let mut owners: BTreeMap<&str, &str> = specs.clone().map(|spec| (spec.name.as_str(), spec.name.as_str())).collect();
    for spec in specs {
        for name in &spec.names {
            let owner = *owners.entry(name.as_str()).or_insert(spec.name.as_str());
            if owner != spec.name.as_str() {
                return Some((name.to_string(), owner.to_owned(), spec.name.to_string()));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use kip_spec::function::Program;

    fn spec(name: &str, names: &[&str]) -> FunctionSpec {
        let program = Program::Model { path: "/m.onnx".into() };
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        FunctionSpec { names, ..FunctionSpec::new(name.parse().unwrap(), program) }
    }

    #[test]
    fn a_name_belongs_to_one_function() {
        let found = |specs: &[FunctionSpec]| conflict(specs.iter()).map(|(name, ..)| name);
        assert_eq!(found(&[spec("a", &["org/a", "a"]), spec("b", &["org/b"])]), None);
        assert_eq!(found(&[spec("a", &["org/x"]), spec("b", &["org/x"])]).as_deref(), Some("org/x"));
        assert_eq!(found(&[spec("a", &["b"]), spec("b", &[])]).as_deref(), Some("b"));
    }
}
