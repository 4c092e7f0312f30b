//! `kipwake.toml`: a section a subject, and tables of devices, pools and types.

use std::collections::BTreeMap;
use std::path::Path;

use kip_spec::Problem;

use super::settings::{Form, SETTINGS};
use super::value::{Origin, Value, invalid};
use super::{gpu_types, pools};
use crate::devices::{self, Device};

/// What a file declares beside its settings.
#[derive(Debug)]
pub(super) struct FileDeclarations {
    pub(super) devices: Vec<Device>,
    pub(super) pools: Vec<pools::PoolSetting>,
    /// Types of devices by the vendor's.
    pub(super) gpu_types: BTreeMap<String, String>,
}

impl Default for FileDeclarations {
    fn default() -> Self {
        Self { devices: Vec::new(), pools: vec![pools::PoolSetting::local()], gpu_types: BTreeMap::new() }
    }
}

/// Reads a file: its settings into `values`, and what else it declares.
pub(super) fn read(
    file: &Path,
    text: &str,
    values: &mut BTreeMap<&'static str, Value>,
) -> Result<FileDeclarations, Problem> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        invalid(format!("{} is not valid TOML", file.display())).cause(error.to_string().trim_end().to_owned())
    })?;
    let unknown = |key: &str| {
        if ["devices", "gpu", "gpus"].contains(&key) {
            let problem = invalid(format!("{}: there is no setting `{key}`", file.display()));
            return problem.hint("write [[device]] above each device");
        }
        if key == "pools" {
            let problem = invalid(format!("{}: there is no setting `{key}`", file.display()));
            return problem.hint("write [[pool]] above each pool");
        }
        let near = SETTINGS
            .iter()
            .map(|setting| setting.key)
            .max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
        let problem = invalid(format!("{}: there is no setting `{key}`", file.display()));
        problem.hint(format!("did you mean `{}`? `kip config show` lists all", near.unwrap_or_default()))
    };
    let mut declared = FileDeclarations::default();
    for (section, content) in &table {
        let here =
            |problem: Problem| Problem { message: format!("{}: {}", file.display(), problem.message), ..problem };
        match section.as_str() {
            "device" => {
                declared.devices = devices::read(content).map_err(here)?;
                continue;
            }
            "pool" => {
                declared.pools = pools::read(content).map_err(here)?;
                continue;
            }
            "gpu_types" => {
                declared.gpu_types = gpu_types::read(content).map_err(here)?;
                continue;
            }
            _ => {}
        }
        let toml::Value::Table(content) = content else { return Err(unknown(section)) };
        for (name, value) in content {
            let key = format!("{section}.{name}");
            let setting = SETTINGS.iter().find(|setting| setting.key == key).ok_or_else(|| unknown(&key))?;
            let value = match value {
                toml::Value::String(text) => text.clone(),
                toml::Value::Integer(number) if matches!(setting.form, Form::Count | Form::Share) => number.to_string(),
                toml::Value::Float(number) if setting.form == Form::Share => number.to_string(),
                toml::Value::Boolean(switch) if setting.form == Form::Switch => switch.to_string(),
                other => {
                    let problem = invalid(format!(
                        "{}: {key} must be written as text with its unit, not as {}",
                        file.display(),
                        other.type_str()
                    ));
                    return Err(problem.hint(format!("for example {key} = \"{}\"", setting.default)));
                }
            };
            values.insert(setting.key, Value { value, origin: Origin::File { path: file.to_owned() } });
        }
    }
    Ok(declared)
}
