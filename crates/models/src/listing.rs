//! Which files a source has: asked of a hub, of a server, or of a folder.

use std::path::Path;
use std::time::Duration;

use http::Method;
use http::header::{CONTENT_LENGTH, ETAG, LAST_MODIFIED};

use crate::client::{Backoff, Client, CompleteAnswer, Endpoint, TryFailure, settled, shown};
use crate::digest::sha256_of;
use crate::error::Error;
use crate::hub::{AnswerError, ListedFile, Listing, MOST_FILES, huggingface, modelscope};
use crate::path::FilePath;
use crate::source::{Hub, Source};

/// Pages and folders of a listing at most.
const MOST_PAGES: usize = 10_000;

/// A source with the place where it is asked.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) source: Source,
    pub(crate) endpoint: Endpoint,
}

impl Origin {
    /// The address of a file's content.
    pub(crate) fn address(&self, commit: &str, path: &FilePath) -> String {
        let base = &self.endpoint.base;
        match &self.source {
            Source::Hub { hub: Hub::HuggingFace, repository, .. } => {
                format!("{base}{}", huggingface::file_path(repository, commit, path))
            }
            Source::Hub { hub: Hub::ModelScope, repository, .. } => {
                let revision = self.source.revision().unwrap_or_default();
                format!("{base}{}", modelscope::file_path(repository, revision, path))
            }
            Source::Url(url) => url.clone(),
            Source::Path(path) => path.display().to_string(),
            Source::Adopted(name) => name.clone(),
            #[cfg(feature = "s3")]
            Source::Bucket { .. } => crate::bucket::address(&self.source, &self.endpoint, path).unwrap_or_default(),
            #[cfg(not(feature = "s3"))]
            Source::Bucket { .. } => String::new(),
        }
    }

    /// Asks for commit, licence and files.
    pub(crate) async fn listing(&self, client: &Client, patience: Duration) -> Result<Listing, Error> {
        match &self.source {
            Source::Hub { hub: Hub::HuggingFace, repository, .. } => {
                self.of_hugging_face(client, repository, patience).await
            }
            Source::Hub { hub: Hub::ModelScope, repository, .. } => {
                self.of_modelscope(client, repository, patience).await
            }
            Source::Url(url) => self.of_address(client, url, patience).await,
            Source::Bucket { scheme, .. } if self.endpoint.base.is_empty() => Err(Error::NoStore(scheme)),
            #[cfg(feature = "s3")]
            Source::Bucket { .. } => crate::bucket::listing(&self.source, &self.endpoint, client, patience).await,
            #[cfg(not(feature = "s3"))]
            Source::Bucket { .. } => Err(Error::NoBuckets),
            // It has none but those that were adopted.
            Source::Adopted(name) => Err(Error::NotCached(name.clone())),
            Source::Path(path) => {
                let path = path.clone();
                crate::download::blocking(move || Ok(of_folder(&path)))
                    .await
                    .map_err(|error| Error::cache(Path::new(&self.source.name()), &error))?
            }
        }
    }

    async fn ask(
        &self,
        client: &Client,
        path: &str,
        repository: &str,
        patience: Duration,
    ) -> Result<CompleteAnswer, Error> {
        let address = if path.starts_with('/') { format!("{}{path}", self.endpoint.base) } else { path.to_owned() };
        let answer = client.read(&address, &self.endpoint, patience).await?;
        let hub = self.endpoint.base.clone();
        let revision = self.source.revision().unwrap_or_default().to_owned();
        let code = answer.headers.get("x-error-code").and_then(|value| value.to_str().ok()).unwrap_or_default();
        match (answer.status, code) {
            (200, _) => Ok(answer),
            (_, "GatedRepo") | (403, _) => {
                Err(Error::Gated { hub, repository: repository.to_owned(), token: self.endpoint.token.is_some() })
            }
            (_, "RevisionNotFound") => Err(Error::UnknownRevision { repository: repository.to_owned(), revision }),
            (401 | 404, _) => Err(Error::Unknown { hub, repository: repository.to_owned() }),
            (status, _) => Err(Error::Answer { address: shown(&address), reason: format!("it answers {status}") }),
        }
    }

    fn unusable(&self) -> impl Fn(AnswerError) -> Error {
        let address = self.endpoint.base.clone();
        move |error| Error::Answer { address: address.clone(), reason: error.to_string() }
    }

    async fn of_hugging_face(&self, client: &Client, repository: &str, patience: Duration) -> Result<Listing, Error> {
        let revision = self.source.revision().unwrap_or_default();
        let answer = self.ask(client, &huggingface::revision_path(repository, revision), repository, patience).await?;
        let about = huggingface::read_revision(&answer.body).map_err(self.unusable())?;
        let mut files = Vec::new();
        let mut next = Some(huggingface::tree_path(repository, &about.commit));
        for _ in 0..MOST_PAGES {
            let Some(path) = next else { break };
            let page = self.ask(client, &path, repository, patience).await?;
            files.extend(huggingface::read_tree(&page.body).map_err(self.unusable())?);
            let link = page.headers.get("link").and_then(|value| value.to_str().ok());
            next = link.and_then(huggingface::next_page).map(str::to_owned);
        }
        let files = huggingface::listing(files).map_err(self.unusable())?;
        Ok(Listing { commit: about.commit, licence: about.licence, task: about.task, files })
    }

    async fn of_modelscope(&self, client: &Client, repository: &str, patience: Duration) -> Result<Listing, Error> {
        let revision = self.source.revision().unwrap_or_default();
        let (mut files, mut roots, mut seen) = (Vec::new(), vec![String::new()], 0);
        while let Some(root) = roots.pop() {
            seen += 1;
            if seen > MOST_PAGES {
                break;
            }
            let answer =
                self.ask(client, &modelscope::files_path(repository, revision, &root), repository, patience).await?;
            let (found, folders) = modelscope::read_files(&answer.body).map_err(self.unusable())?;
            // A list that was cut off lacks files of its folders: those are asked for one by one.
            let is_empty =
                |folder: &String| !found.iter().any(|file| file.path.as_str().starts_with(&format!("{folder}/")));
            roots.extend(folders.into_iter().filter(|folder| *folder != root && is_empty(folder)));
            files.extend(found);
        }
        let files = modelscope::listing(files).map_err(self.unusable())?;
        // A hub that does not describe its models still has their files.
        let about = self.ask(client, &modelscope::about_path(repository), repository, patience).await.ok();
        let (licence, task) = about.and_then(|answer| modelscope::read_about(&answer.body).ok()).unwrap_or_default();
        Ok(Listing { commit: modelscope::commit_of(&files), licence, task, files })
    }

    async fn of_address(&self, client: &Client, url: &str, patience: Duration) -> Result<Listing, Error> {
        let mut waits = Backoff::new(patience);
        let head = loop {
            let tried = async { settled(client.send(Method::HEAD, url, &self.endpoint, &[]).await?) };
            match tried.await {
                Ok(answer) => break answer,
                Err(TryFailure::Never(error)) => return Err(error),
                Err(TryFailure::Later { reason, wait }) => waits.pause(url, reason, wait).await?,
            }
        };
        let answer = |reason: String| Error::Answer { address: shown(url), reason };
        match head.status().as_u16() {
            200 => {}
            401 | 403 => return Err(Error::Gated { hub: shown(url), repository: shown(url), token: false }),
            404 => return Err(Error::Unknown { hub: shown(url), repository: shown(url) }),
            status => return Err(answer(format!("it answers {status}"))),
        }
        let text = |name| head.headers().get(name).and_then(|value| value.to_str().ok());
        let size = text(CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let size: u64 = size.ok_or_else(|| answer("it does not say the size of the file".to_owned()))?;
        let name = shown(url).rsplit('/').next().map(percent_decoded).unwrap_or_default();
        let path = FilePath::new(if name.is_empty() { "model" } else { &name })?;
        let version = text(ETAG).or_else(|| text(LAST_MODIFIED)).unwrap_or_default();
        let commit = sha256_of(format!("{size} {version}").as_bytes())[..40].to_owned();
        Ok(Listing { commit, licence: None, task: None, files: vec![ListedFile { path, size, digest: None }] })
    }
}

fn percent_decoded(text: &str) -> String {
    String::from_utf8_lossy(&kip_spec::escape::unescaped(text)).into_owned()
}

/// The files of a folder, or the one file. Links are followed to files, never to folders.
fn of_folder(path: &Path) -> Result<Listing, Error> {
    let failed = |path: &Path, error: &std::io::Error| Error::cache(path, error);
    let mut files = Vec::new();
    let data = std::fs::metadata(path).map_err(|error| failed(path, &error))?;
    if data.is_file() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        files.push(ListedFile { path: FilePath::new(&name)?, size: data.len(), digest: None });
    }
    let mut folders = if data.is_dir() { vec![path.to_owned()] } else { Vec::new() };
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|error| failed(&folder, &error))? {
            let entry = entry.map_err(|error| failed(&folder, &error))?;
            let (found, kind) = (entry.path(), entry.file_type().map_err(|error| failed(&folder, &error))?);
            let Ok(data) = std::fs::metadata(&found) else { continue };
            if files.len() + folders.len() > MOST_FILES {
                let reason = format!("it has more than {MOST_FILES} files");
                return Err(Error::Answer { address: path.display().to_string(), reason });
            }
            if kind.is_dir() {
                folders.push(found);
            } else if data.is_file() {
                let relative = found.strip_prefix(path).unwrap_or(&found).to_string_lossy().into_owned();
                files.push(ListedFile { path: FilePath::new(&relative)?, size: data.len(), digest: None });
            }
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    // The commit comes of the contents, which are read when they are copied.
    Ok(Listing { commit: String::new(), licence: None, task: None, files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_listed_with_files_behind_links() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("m/onnx")).unwrap();
        std::fs::write(folder.path().join("blob"), "12345").unwrap();
        std::fs::write(folder.path().join("m/config.json"), "{}").unwrap();
        std::os::unix::fs::symlink("../../blob", folder.path().join("m/onnx/model.onnx")).unwrap();
        std::os::unix::fs::symlink("..", folder.path().join("m/up")).unwrap();
        let listing = of_folder(&folder.path().join("m")).unwrap();
        let seen: Vec<_> = listing.files.iter().map(|file| (file.path.as_str(), file.size)).collect();
        assert_eq!(seen, [("config.json", 2), ("onnx/model.onnx", 5)]);
        assert_eq!(of_folder(&folder.path().join("blob")).unwrap().size(), 5);
        assert!(of_folder(&folder.path().join("none")).is_err());
    }

    #[test]
    fn names_in_addresses_are_decoded() {
        assert_eq!(percent_decoded("a%20b%2Fc%"), "a b/c%");
    }
}
