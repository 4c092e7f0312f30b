//! `cargo xtask sbom`: a bill of materials of the server's binary, as CycloneDX JSON.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::command::root;
use crate::tree;

/// Writes it: `[--out FILE]`, to standard output unless a file is named.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).context("Cargo.lock cannot be read")?;
    let text = serde_json::to_string_pretty(&bill(&tree::metadata(&[])?, &checksums(&lock))?)?;
    match arguments {
        [] => println!("{text}"),
        ["--out", file] => std::fs::write(Path::new(file), text + "\n").with_context(|| format!("writing {file}"))?,
        _ => anyhow::bail!("cargo xtask sbom [--out FILE]"),
    }
    Ok(())
}

fn bill(metadata: &Value, checksums: &BTreeMap<(String, String), String>) -> Result<Value> {
    let inside = tree::crates(&["--package", "kip", "--edges", "normal"])?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut components = Vec::new();
    let mut server = Value::Null;
    for package in packages {
        let (name, version) = (text(&package["name"]), text(&package["version"]));
        if !inside.contains(&(name.clone(), format!("v{version}"))) {
            continue;
        }
        let purl = format!("pkg:cargo/{name}@{version}");
        let mut component =
            json!({ "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl });
        if let Some(licence) = package["license"].as_str() {
            component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
        }
        if let Some(sum) = checksums.get(&(name.clone(), version)) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
        }
        if name == "kip" {
            component["type"] = json!("application");
            server = component;
        } else {
            components.push(component);
        }
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": server },
        "components": components,
    }))
}

/// The checksums of a lock file, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let field = |package: &str, name: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""))?;
        line.strip_suffix('"').map(str::to_owned)
    };
    let packages = lock.split("[[package]]").skip(1);
    packages
        .filter_map(|package| {
            Some(((field(package, "name")?, field(package, "version")?), field(package, "checksum")?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crate_of_the_server_has_its_licence_and_its_checksum() {
        let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
        let bill = bill(&tree::metadata(&[]).unwrap(), &checksums(&lock)).unwrap();
        assert_eq!(bill["metadata"]["component"]["name"], "kip");
        let components = bill["components"].as_array().unwrap();
        assert!(components.len() > 100, "{}", components.len());
        for component in components {
            let ours = component["name"].as_str().unwrap().starts_with("kip-");
            assert!(component["licenses"][0]["expression"].is_string(), "{component}");
            assert_eq!(component["hashes"][0]["content"].as_str().map(str::len), (!ours).then_some(64), "{component}");
        }
    }
}
