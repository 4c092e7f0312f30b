//! Weights beside the model file that are symbolic links, as caches of downloads keep them: the model's folder holds a link, and the
//! file is elsewhere. tract reads nothing outside of the folder, so they are taken into the model before.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use tract_onnx::pb::{ModelProto, TensorProto, tensor_proto};

/// Takes the weights that lie behind links into the model. Names that lead out of the folder by themselves stay as they are, and
/// are refused later.
///
/// # Errors
/// When such a file cannot be read.
pub(super) fn take_in(proto: &mut ModelProto, file: &Path) -> Result<(), String> {
    let folder = file.parent().unwrap_or_else(|| Path::new("."));
    let Some(graph) = proto.graph.as_mut() else { return Ok(()) };
    for tensor in &mut graph.initializer {
        take(tensor, folder)?;
    }
    Ok(())
}

fn take(tensor: &mut TensorProto, folder: &Path) -> Result<(), String> {
    let value = |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.clone());
    let Some(location) = value("location") else { return Ok(()) };
    let path = Path::new(&location);
    let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let link = folder.join(path);
    if !inside || !link.is_symlink() {
        return Ok(());
    }
    let number = |key: &str| value(key).and_then(|text| text.parse::<u64>().ok());
    let failed = |error: std::io::Error| format!("its weights in {location} cannot be read: {error}");
    let mut data = std::fs::File::open(&link).map_err(failed)?;
    data.seek(SeekFrom::Start(number("offset").unwrap_or(0))).map_err(failed)?;
    let mut bytes = Vec::new();
    data.take(number("length").unwrap_or(u64::MAX)).read_to_end(&mut bytes).map_err(failed)?;
    tensor.raw_data = bytes;
    tensor.external_data.clear();
    tensor.data_location = Some(tensor_proto::DataLocation::Default as i32);
    Ok(())
}
