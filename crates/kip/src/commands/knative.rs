//! Files with Services of Knative: they are deployed as a kip.yaml would be, and what of them has no effect is said.

use std::collections::BTreeMap;
use std::path::Path;

use kip_serverless::{KnativeFile, is_knative, read_knative};

use crate::output::Output;
use crate::problem::Problems;

/// Reads such a file.
///
/// # Errors
/// Every problem of it.
pub(crate) fn read(file: &Path, text: &str) -> Result<KnativeFile, Problems> {
    read_knative(&file.display().to_string(), text).map_err(Problems)
}

/// Says what of a file has no effect. Gives the names of revisions by function; nothing for other files.
///
/// # Errors
/// Every problem of the file.
pub(crate) fn tell(path: &Path, output: Output) -> anyhow::Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    if !is_knative(&text) {
        return Ok(BTreeMap::new());
    }
    let found = read(path, &text)?;
    for key in found.without_effect() {
        output.remark(&format!("{}:{} {} has no effect: {}", path.display(), key.line, key.path, key.note));
    }
    for other in &found.others {
        output.remark(&format!("{other} is left out: only Services are deployed, and kubectl is not answered yet"));
    }
    let named = |service: kip_serverless::KnativeService| Some((service.name, service.revision?));
    Ok(found.services.into_iter().filter_map(named).collect())
}
