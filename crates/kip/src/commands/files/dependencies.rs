//! What `kip install` put beside the code of a function, as variables of the function.

use kip_serverless::DeclaredFunction;
use serde_json::{Value, json};

/// Variables by which a program finds what is installed beside its code; those that the file sets stay, or come first.
pub(crate) fn add_variables(function: &mut DeclaredFunction) {
    let Some(folder) = function.code.as_ref().map(|code| code.path.join(".fun")) else { return };
    let is_python =
        function.config.get("runtime").and_then(Value::as_str).is_some_and(|name| name.starts_with("python"));
    let mut made: Vec<(&str, String)> = Vec::new();
    if is_python && folder.join("python").is_dir() {
        made.push(("PYTHONUSERBASE", "/code/.fun/python".to_owned()));
    }
    let arch = format!("{}-linux-gnu", std::env::consts::ARCH);
    let libraries = [format!("usr/lib/{arch}"), "usr/lib".to_owned(), format!("lib/{arch}"), "lib".to_owned()];
    let there = libraries.iter().filter(|path| folder.join("root").join(path).is_dir());
    let there: Vec<String> = there.map(|path| format!("/code/.fun/root/{path}")).collect();
    if !there.is_empty() {
        made.push(("LD_LIBRARY_PATH", there.join(":")));
    }
    if made.is_empty() {
        return;
    }
    let variables = function.config.entry("environmentVariables").or_insert_with(|| json!({}));
    for (name, value) in made {
        let before = variables[name].as_str().unwrap_or_default();
        let value = match (name, before.is_empty()) {
            (_, true) => value,
            ("LD_LIBRARY_PATH", false) => format!("{before}:{value}"),
            (_, false) => continue,
        };
        variables[name] = value.into();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;

    /// The function of a template with these variables.
    pub(crate) fn function(directory: &Path, variables: &str) -> DeclaredFunction {
        let text = format!(
            "ROSTemplateFormatVersion: '2015-09-01'\nTransform: 'Aliyun::Serverless-2018-04-03'\nResources:\n  s:\n    Type: 'Aliyun::Serverless::Service'\n    Properties: {{NasConfig: Auto}}\n    f:\n      Type: 'Aliyun::Serverless::Function'\n      Properties: {{Handler: index.handler, Runtime: python3, CodeUri: ./code, EnvironmentVariables: {{{variables}}}}}\n"
        );
        let (variables, runtimes) = Default::default();
        let source = kip_serverless::Source {
            file: "template.yml",
            text: &text,
            directory,
            variables: &variables,
            gateway: "g",
            runtimes: &runtimes,
        };
        kip_serverless::read(&source).unwrap().functions.remove(0)
    }

    #[test]
    fn a_program_finds_what_is_installed_beside_its_code() {
        let folder = tempfile::tempdir().unwrap();
        let none = function(folder.path(), "A: b");
        let mut same = none.clone();
        add_variables(&mut same);
        assert_eq!(same.config, none.config);
        std::fs::create_dir_all(folder.path().join("code/.fun/python")).unwrap();
        std::fs::create_dir_all(folder.path().join("code/.fun/root/usr/lib")).unwrap();
        let mut found = function(folder.path(), "LD_LIBRARY_PATH: /x");
        add_variables(&mut found);
        let variables = &found.config["environmentVariables"];
        assert_eq!(variables["PYTHONUSERBASE"], "/code/.fun/python");
        assert_eq!(variables["LD_LIBRARY_PATH"], "/x:/code/.fun/root/usr/lib");
        let mut own = function(folder.path(), "PYTHONUSERBASE: /mnt/auto/python");
        add_variables(&mut own);
        assert_eq!(own.config["environmentVariables"]["PYTHONUSERBASE"], "/mnt/auto/python");
    }
}
