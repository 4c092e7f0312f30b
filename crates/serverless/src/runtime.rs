//! Runtimes: those that run here, those that others replace, and the map that says so.

use std::collections::BTreeMap;
use std::str::FromStr;

use kip_spec::{Problem, code};

/// Runtimes that take the place of those that do not run here: `python2.7=python3,nodejs8=nodejs20`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeMap(BTreeMap<String, String>);

impl RuntimeMap {
    /// The runtime that is used for one of a file.
    pub fn get<'a>(&'a self, runtime: &'a str) -> &'a str {
        self.0.get(runtime).map_or(runtime, String::as_str)
    }

    /// These over others.
    #[must_use]
    pub fn over(mut self, others: Self) -> Self {
        for (from, to) in others.0 {
            self.0.entry(from).or_insert(to);
        }
        self
    }
}

impl FromStr for RuntimeMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = |pair: &str| {
            let (from, to) = pair.split_once('=').ok_or_else(|| format!("`{pair}` is not OLD=NEW"))?;
            let (from, to) = (from.trim(), to.trim());
            if !runs(to) {
                return Err(format!("`{to}` does not run here: use python3, nodejs20 or custom.debian12"));
            }
            Ok((from.to_owned(), to.to_owned()))
        };
        text.split(',').filter(|pair| !pair.trim().is_empty()).map(pair).collect::<Result<_, _>>().map(Self)
    }
}

/// Whether a runtime runs here.
pub(crate) fn runs(runtime: &str) -> bool {
    const OLD: [&str; 3] = ["nodejs4", "nodejs6", "nodejs8"];
    let custom = ["custom", "custom.debian10", "custom.debian11", "custom.debian12", "custom-container"];
    let numbered = |prefix: &str| {
        runtime.strip_prefix(prefix).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
    };
    custom.contains(&runtime)
        || numbered("python3")
        || (runtime.len() > 6 && numbered("nodejs") && !OLD.contains(&runtime))
}

/// Whether a runtime is the vendor's at all.
fn is_known(runtime: &str) -> bool {
    let families = ["python", "nodejs", "java", "go", "php", "dotnetcore", "custom"];
    families.iter().any(|family| {
        runtime
            .strip_prefix(family)
            .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.') && !rest.is_empty())
    }) || runs(runtime)
}

/// The runtime that stands in for one, if its programs have a fair chance there.
fn successor(runtime: &str) -> Option<&'static str> {
    match runtime {
        _ if runtime.starts_with("python") => Some("python3"),
        _ if runtime.starts_with("nodejs") => Some("nodejs20"),
        _ => None,
    }
}

/// What is wrong with a runtime. `all` are the runtimes of the file that do not run here, for the whole command.
pub(crate) fn refusal(runtime: &str, all: &[String], file: &str) -> Problem {
    if !is_known(runtime) {
        let message = format!("`{}` is no runtime", kip_manifest::report::shown(runtime));
        return Problem::new(code::FILE_RUNTIME, message)
            .hint("write custom.debian12, custom-container, python3.10 or nodejs20");
    }
    let message = format!("programs of {runtime} are not run here");
    let map: Vec<String> =
        all.iter().filter_map(|runtime| Some(format!("{runtime}={}", successor(runtime)?))).collect();
    let hint = match successor(runtime) {
        Some(_) => {
            format!("try another version of it: kip deploy -t {file} --runtime-map {}", map.join(","))
        }
        None => "build a program with a web server, and write `runtime: custom.debian12` with \
             `customRuntimeConfig.command`"
            .to_owned(),
    };
    Problem::new(code::FILE_RUNTIME, message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_runtimes_are_replaced_by_a_map() {
        let map: RuntimeMap = "python2.7=python3, nodejs8=nodejs20".parse().unwrap();
        assert_eq!((map.get("python2.7"), map.get("java8")), ("python3", "java8"));
        assert!("python2.7".parse::<RuntimeMap>().is_err());
        assert!("java8=java11".parse::<RuntimeMap>().unwrap_err().contains("java11"));
        for runtime in ["custom", "custom.debian11", "python3", "python3.12", "nodejs20", "custom-container"] {
            assert!(runs(runtime), "{runtime}");
        }
        for runtime in ["python2.7", "nodejs8", "nodejs", "java8", "php7.2", "custom.x", "python3x", ""] {
            assert!(!runs(runtime), "{runtime}");
        }
        let all = ["python2.7".to_owned(), "java8".to_owned(), "nodejs6".to_owned()];
        let hint = refusal("python2.7", &all, "template.yml").hint.unwrap();
        assert!(
            hint.ends_with("kip deploy -t template.yml --runtime-map python2.7=python3,nodejs6=nodejs20"),
            "{hint}"
        );
        assert!(refusal("java8", &all, "t").hint.unwrap().contains("custom.debian12"));
        assert!(refusal("cobol", &all, "t").message.contains("no runtime"));
    }
}
