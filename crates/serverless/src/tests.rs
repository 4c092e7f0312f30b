//! Readers over fixtures of our own, over broken files, and over the files of `KIPWAKE_TEST_FILES`.

mod broken;
mod conversion;
mod edition3;
mod field;
mod keys;
mod knative;

use std::collections::BTreeMap;
use std::path::Path;

use kip_spec::Problem;

use crate::{Project, RuntimeMap, Source};

/// Reads a text as a file of this name in a folder.
pub(crate) fn read_in(
    directory: &Path,
    file: &str,
    text: &str,
    variables: &BTreeMap<String, String>,
    map: &str,
) -> Result<Project, Vec<Problem>> {
    let runtimes: RuntimeMap = map.parse().unwrap();
    crate::read(&Source { file, text, directory, variables, gateway: "127.0.0.1:5470", runtimes: &runtimes })
}

/// Reads a text without an environment.
pub(crate) fn read(text: &str) -> Result<Project, Vec<Problem>> {
    read_in(Path::new("/project"), "s.yaml", text, &BTreeMap::new(), "")
}

/// A file with one function of fc3 that has these further lines in its props.
pub(crate) fn with(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("      {line}\n")).collect();
    format!(
        "edition: 3.0.0\nname: app\naccess: default\nresources:\n  web:\n    component: fc3\n    props:\n      region: local\n      functionName: web\n      runtime: custom.debian12\n      code: ./code\n{lines}"
    )
}
