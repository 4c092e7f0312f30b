//! Writes the OpenAPI document of the API of Function Compute into `docs/api/`.

fn main() -> std::io::Result<()> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("fc.json"), kip_fc::openapi::text())
}
