//! Weights beside the model file that are symbolic links, as caches of downloads keep them: the model's folder holds a link, and the
//! file is elsewhere. Runtimes read nothing outside of the folder. For tract, such weights are taken into the model before; for ONNX
//! Runtime, the model names the files behind the links, and their folder.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

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

/// The file with a tensor's weights, unless its name leads out of the folder.
fn file_of(tensor: &TensorProto, folder: &Path) -> Option<PathBuf> {
    let location = &tensor.external_data.iter().find(|entry| entry.key == "location")?.value;
    let path = Path::new(location);
    let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    inside.then(|| folder.join(path))
}

/// Whether weights lie behind links.
pub(super) fn has_links(proto: &ModelProto, file: &Path) -> bool {
    let folder = file.parent().unwrap_or_else(|| Path::new("."));
    let weights = proto.graph.iter().flat_map(|graph| &graph.initializer);
    weights.into_iter().any(|tensor| file_of(tensor, folder).is_some_and(|link| link.is_symlink()))
}

/// Names the files behind links in place of the links. Answers their folder, in which then all weights are.
///
/// # Errors
/// When a file is missing, or the files are in several folders and those behind links cannot be read.
pub(super) fn resolve(proto: &mut ModelProto, file: &Path) -> Result<PathBuf, String> {
    let folder = file.parent().unwrap_or_else(|| Path::new("."));
    let real = |path: &Path| path.canonicalize().map_err(|error| format!("{}: {error}", path.display()));
    let Some(graph) = proto.graph.as_mut() else { return real(folder) };
    let mut found = Vec::new();
    for (place, tensor) in graph.initializer.iter().enumerate() {
        if let Some(link) = file_of(tensor, folder) {
            found.push((place, real(&link)?));
        }
    }
    let first = found.first().and_then(|(_, file)| file.parent()).map(Path::to_owned);
    let Some(common) = first.filter(|first| found.iter().all(|(_, file)| file.parent() == Some(first))) else {
        take_in(proto, file)?;
        return real(folder);
    };
    for (place, file) in found {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let entries = &mut graph.initializer[place].external_data;
        entries.iter_mut().filter(|entry| entry.key == "location").for_each(|entry| entry.value.clone_from(&name));
    }
    Ok(common)
}

fn take(tensor: &mut TensorProto, folder: &Path) -> Result<(), String> {
    let Some(link) = file_of(tensor, folder) else { return Ok(()) };
    if !link.is_symlink() {
        return Ok(());
    }
    let value = |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.clone());
    let location = value("location").unwrap_or_default();
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
