//! Folders of other programs with models, read as they are: the cache of Hugging Face's client, that of ModelScope's, Ollama's store, and plain folders.
//! Nothing in them is trusted: names are checked, and a file that a link leads out of its folder makes its model refused.
//!
//! All calls block: they are for threads that may.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::digest::sha256_of;
use crate::path::FilePath;
use crate::source::is_word;

/// Models of one folder at most, files of one model, and folders that are looked through.
const MOST_MODELS: usize = 10_000;
const MOST_FILES: usize = 20_000;
/// Bytes of a manifest or a reference.
const LARGEST_TEXT: u64 = 1 << 20;
/// Hexadecimal digits of a commit, and of git's id of a content.
const COMMIT: usize = 40;
/// Those of a SHA-256.
const SHA256: usize = 64;
const OLLAMA_REGISTRY: &str = "registry.ollama.ai";

/// A model as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundModel {
    /// The source without a revision.
    pub(crate) source: String,
    pub(crate) commit: String,
    pub(crate) revisions: Vec<String>,
    pub(crate) files: Vec<FoundFile>,
}

/// A file of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundFile {
    pub(crate) path: FilePath,
    /// The file itself: no link.
    pub(crate) place: PathBuf,
    pub(crate) size: u64,
    /// SHA-256 and git's id, as far as the name of the file says them. Nothing of it is checked yet.
    pub(crate) sha256: Option<String>,
    pub(crate) git: Option<String>,
}

/// Something that looks like a model and is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefusedModel {
    pub(crate) place: PathBuf,
    pub(crate) why: String,
}

/// What a folder has.
#[derive(Debug, Default)]
pub(crate) struct FolderModels {
    pub(crate) models: Vec<FoundModel>,
    pub(crate) refused: Vec<RefusedModel>,
}

type Refusal = String;

/// Looks a folder through. A link to it is followed, once.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn look(folder: &Path) -> io::Result<FolderModels> {
    let root = fs::canonicalize(folder)?;
    if !root.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is no folder"));
    }
    let mut found = FolderModels::default();
    for hub in [root.join("hub"), root.clone()] {
        for repository in folders(&hub) {
            if repository.file_name().is_some_and(|name| name.to_string_lossy().starts_with("models--")) {
                hugging_face(&repository, &mut found);
            }
        }
    }
    for store in [root.join("models"), root.clone()] {
        if store.join("manifests").is_dir() && store.join("blobs").is_dir() {
            ollama(&store, &mut found);
        }
    }
    for hub in [root.join("hub").join("models"), root.join("models"), root.join("hub"), root.clone()] {
        modelscope(&hub, &mut found);
    }
    if found.models.is_empty() && found.refused.is_empty() {
        let whole = plain(&root, &root).map(|files| FoundModel {
            source: root.display().to_string(),
            commit: fingerprint(&files),
            revisions: Vec::new(),
            files,
        });
        found.take(&root, whole);
    }
    Ok(found)
}

impl FolderModels {
    fn take(&mut self, place: &Path, model: Result<FoundModel, Refusal>) {
        match model {
            Ok(model) if model.files.is_empty() => {}
            Ok(model) if self.models.len() >= MOST_MODELS => {
                let why = format!("the folder has more than {MOST_MODELS} models");
                self.refused.push(RefusedModel { place: PathBuf::from(model.source), why });
            }
            Ok(model) => {
                let same = |known: &FoundModel| known.source == model.source && known.commit == model.commit;
                if !self.models.iter().any(same) {
                    self.models.push(model);
                }
            }
            Err(why) => self.refused.push(RefusedModel { place: place.to_owned(), why }),
        }
    }
}

/// The folders in a folder, sorted; links are none.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .take(MOST_MODELS)
        .collect();
    found.sort();
    found
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// A small text file, not through a link.
fn text(path: &Path) -> Option<String> {
    kip_host::directory::read_regular_text(path, LARGEST_TEXT).ok()
}

/// The file that an entry of a model is, itself or by links that stay below `inside`.
fn resolved(entry: &Path, inside: &Path) -> Result<(PathBuf, u64), Refusal> {
    let place = fs::canonicalize(entry).map_err(|error| format!("{}: {error}", entry.display()))?;
    if !place.starts_with(inside) {
        return Err(format!("{} leads out of the folder, to {}", entry.display(), place.display()));
    }
    let data = fs::symlink_metadata(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    if !data.is_file() {
        return Err(format!("{} is no regular file", entry.display()));
    }
    Ok((place, data.len()))
}

/// All files below a folder, at their paths. Links to files are followed as long as they stay below `inside`; hidden entries are left out.
fn walk(folder: &Path, inside: &Path) -> Result<Vec<FoundFile>, Refusal> {
    let (mut files, mut left) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = left.pop() {
        let entries = fs::read_dir(&next).map_err(|error| format!("{}: {error}", next.display()))?;
        for entry in entries {
            let entry = entry.map_err(|error| format!("{}: {error}", next.display()))?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(|error| error.to_string())?);
            if name_of(&path).starts_with('.') {
                continue;
            }
            if files.len() + left.len() > MOST_FILES {
                return Err(format!("{} has more than {MOST_FILES} files", folder.display()));
            }
            if kind.is_dir() {
                left.push(path);
                continue;
            }
            let (place, size) = resolved(&path, inside)?;
            let relative = path.strip_prefix(folder).map_err(|error| error.to_string())?;
            let relative = relative.to_str().ok_or_else(|| format!("{} is no text", path.display()))?;
            let path = FilePath::new(relative).map_err(|error| error.to_string())?;
            files.push(FoundFile { path, place, size, sha256: None, git: None });
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

fn plain(folder: &Path, inside: &Path) -> Result<Vec<FoundFile>, Refusal> {
    walk(folder, inside)
}

/// What stands for a commit where there is none: paths and sizes.
fn fingerprint(files: &[FoundFile]) -> String {
    let line = |file: &FoundFile| format!("{} {}\n", file.path, file.size);
    sha256_of(files.iter().map(line).collect::<String>().as_bytes())[..COMMIT].to_owned()
}

/// `models--org--name`: contents in `blobs`, links to them in `snapshots/COMMIT`, names of commits in `refs`.
fn hugging_face(repository: &Path, found: &mut FolderModels) {
    let name = name_of(repository);
    let parts: Vec<&str> = name.split("--").skip(1).collect();
    if parts.is_empty() || parts.len() > 2 || !parts.iter().all(|part| is_word(part)) {
        let why = "its name is none of a repository".to_owned();
        found.refused.push(RefusedModel { place: repository.to_owned(), why });
        return;
    }
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in walk(&repository.join("refs"), repository).unwrap_or_default() {
        if let Some(commit) =
            text(&file.place).map(|text| text.trim().to_owned()).filter(|commit| is_hex(commit, COMMIT))
        {
            names.entry(commit).or_default().push(file.path.to_string());
        }
    }
    for snapshot in folders(&repository.join("snapshots")) {
        let commit = name_of(&snapshot);
        if !is_hex(&commit, COMMIT) {
            continue;
        }
        let files = walk(&snapshot, repository).map(|files| files.into_iter().map(named_by_blob).collect());
        let model = files.map(|files| FoundModel {
            source: format!("hf:{}", parts.join("/")),
            revisions: names.get(&commit).cloned().unwrap_or_default(),
            commit,
            files,
        });
        found.take(&snapshot, model);
    }
}

/// The client names large contents by their SHA-256 and small ones by git's id.
fn named_by_blob(file: FoundFile) -> FoundFile {
    let name = name_of(&file.place);
    let sha256 = is_hex(&name, SHA256).then(|| name.clone());
    let git = is_hex(&name, COMMIT).then_some(name);
    FoundFile { sha256, git, ..file }
}

/// `owner/model` with the client's list of files beside them.
fn modelscope(hub: &Path, found: &mut FolderModels) {
    const MARKS: [&str; 3] = [".msc", ".mv", ".mdl"];
    for owner in folders(hub) {
        if !is_word(&name_of(&owner)) {
            continue;
        }
        for model in folders(&owner) {
            // Where a name has a point, the client writes three low lines.
            let name = name_of(&model).replace("___", ".");
            if !is_word(&name) || !MARKS.iter().any(|mark| model.join(mark).exists()) {
                continue;
            }
            let source = format!("modelscope:{}/{name}", name_of(&owner));
            let files = walk(&model, &model);
            let whole =
                files.map(|files| FoundModel { source, commit: fingerprint(&files), revisions: Vec::new(), files });
            found.take(&model, whole);
        }
    }
}

/// A manifest of Ollama, as far as it is needed.
#[derive(Debug, Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: u64,
}

/// `manifests/HOST/NAMESPACE/NAME/TAG`, and contents by their digests in `blobs`.
fn ollama(store: &Path, found: &mut FolderModels) {
    let manifests = store.join("manifests");
    let mut names = BTreeSet::new();
    for host in folders(&manifests) {
        for namespace in folders(&host) {
            for name in folders(&namespace) {
                let tags = fs::read_dir(&name).into_iter().flatten().flatten();
                names.extend(tags.filter(|tag| tag.file_type().is_ok_and(|kind| kind.is_file())).map(|tag| tag.path()));
            }
        }
    }
    for place in names.into_iter().take(MOST_MODELS) {
        let model = of_manifest(store, &manifests, &place);
        found.take(&place, model);
    }
}

fn of_manifest(store: &Path, manifests: &Path, place: &Path) -> Result<FoundModel, Refusal> {
    let parts: Vec<String> = place
        .strip_prefix(manifests)
        .map_err(|error| error.to_string())?
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    let [host, namespace, name, tag] = parts.as_slice() else { return Err("it is no manifest".to_owned()) };
    if ![namespace, name, tag].into_iter().all(|part| is_word(part)) {
        return Err("its name is none of a model".to_owned());
    }
    let text = text(place).ok_or_else(|| "the manifest cannot be read".to_owned())?;
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|error| format!("the manifest cannot be read: {error}"))?;
    let mut files = Vec::new();
    for layer in manifest.layers {
        let path = match layer.media_type.as_str() {
            "application/vnd.ollama.image.model" => format!("{name}-{tag}.gguf"),
            "application/vnd.ollama.image.projector" => format!("mmproj-{name}-{tag}.gguf"),
            _ => continue,
        };
        let sha256 = layer.digest.strip_prefix("sha256:").filter(|digest| is_hex(digest, SHA256));
        let sha256 = sha256.ok_or_else(|| "a layer has no SHA-256".to_owned())?.to_owned();
        let blobs = store.join("blobs");
        let (place, size) = resolved(&blobs.join(format!("sha256-{sha256}")), &blobs)?;
        if size != layer.size {
            return Err(format!("{} has {size} bytes, and the manifest names {}", place.display(), layer.size));
        }
        let path = FilePath::new(&path).map_err(|error| error.to_string())?;
        if files.iter().any(|known: &FoundFile| known.path == path) {
            return Err("it has two files of one kind".to_owned());
        }
        files.push(FoundFile { path, place, size, sha256: Some(sha256), git: None });
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    let prefix = match (host.as_str(), namespace.as_str()) {
        (OLLAMA_REGISTRY, "library") => String::new(),
        (OLLAMA_REGISTRY, namespace) => format!("{namespace}/"),
        (host, namespace) => format!("{host}/{namespace}/"),
    };
    Ok(FoundModel {
        source: format!("ollama:{prefix}{name}:{tag}"),
        commit: sha256_of(text.as_bytes())[..COMMIT].to_owned(),
        revisions: Vec::new(),
        files,
    })
}
