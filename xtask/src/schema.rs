//! The committed JSON Schema of `kip.yaml`.

use anyhow::{Context, Result, bail};

use crate::command::root;

/// Compares the file with what the present code describes, or writes it.
pub(crate) fn run(write: bool) -> Result<()> {
    let path = root().join("docs/schema/kip.schema.json");
    let present = serde_json::to_string_pretty(&kip_manifest::schema())? + "\n";
    if write {
        std::fs::write(&path, &present).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    let committed = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    if committed != present {
        bail!("docs/schema/kip.schema.json is out of date: run `cargo xtask schema --write`");
    }
    println!("schema: docs/schema/kip.schema.json is the present one");
    Ok(())
}
