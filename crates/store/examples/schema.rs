//! Writes the schemas of the databases into `docs/schema/`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema");
    for (name, text) in kip_store::schema::all()? {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}
