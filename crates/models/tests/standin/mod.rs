//! A hub for tests, with the protocols of Hugging Face and of ModelScope and faults by knob. Contents of files come from a second
//! address, as they do from real hubs.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use serde_json::{Value, json};

/// Files from this size on are kept in LFS.
const LFS: usize = 1 << 10;
/// Bytes that are written at once.
const PIECE: usize = 64 << 10;

/// What goes wrong. Numbers count down with each request that they spoil.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The list has one byte more than each file.
    pub wrong_sizes: bool,
    /// So many contents have one byte flipped.
    pub flips: u32,
    /// Ranges are answered with the whole file.
    pub ignore_ranges: bool,
    /// So many requests are answered with 503 and Retry-After.
    pub unavailable: u32,
    /// So many contents end after `cut_after` bytes.
    pub cuts: u32,
    pub cut_after: usize,
    /// Contents are redirected back and forth.
    pub redirect_for_ever: bool,
    /// Pause after each piece of a content.
    pub pause: Option<Duration>,
    /// Entries of a page of a list; 0 is all.
    pub page: usize,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct RequestRecord {
    pub method: String,
    pub target: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    /// It came to the address of contents.
    pub storage: bool,
}

#[derive(Debug, Clone, Default)]
struct Repository {
    files: BTreeMap<String, Arc<Vec<u8>>>,
    gated: bool,
}

#[derive(Debug, Default)]
struct State {
    repositories: BTreeMap<String, Repository>,
    faults: Faults,
    seen: Vec<RequestRecord>,
}

/// A running hub. It ends with the process.
#[derive(Debug, Clone)]
pub struct Hub {
    state: Arc<Mutex<State>>,
    pub address: SocketAddr,
    pub storage: SocketAddr,
}

/// The token that gated models want.
pub const TOKEN: &str = "hf_stand-in-token";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

pub fn git(bytes: &[u8]) -> String {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(format!("blob {}\0", bytes.len()).as_bytes());
    context.update(bytes);
    hex(context.finish().as_ref())
}

/// Bytes that look like a model's and do not repeat soon.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

impl Hub {
    pub fn start() -> Self {
        let listener = |_| TcpListener::bind("127.0.0.1:0").expect("a free port");
        let [main, storage] = [0, 1].map(listener);
        let hub = Self {
            state: Arc::default(),
            address: main.local_addr().expect("an address"),
            storage: storage.local_addr().expect("an address"),
        };
        for (listener, is_storage) in [(main, false), (storage, true)] {
            let hub = hub.clone();
            let accept = move || {
                for stream in listener.incoming().flatten() {
                    let hub = hub.clone();
                    let serve = move || drop(hub.serve(stream, is_storage));
                    drop(kip_host::tasks::thread("stand-in", serve));
                }
            };
            drop(kip_host::tasks::thread("stand-in hub", accept));
        }
        hub
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a model, or replaces it.
    pub fn add(&self, repository: &str, files: &[(&str, Vec<u8>)]) {
        let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), Arc::new(bytes.clone()))).collect();
        self.state.lock().repositories.insert(repository.to_owned(), Repository { files, gated: false });
    }

    pub fn gate(&self, repository: &str) {
        if let Some(found) = self.state.lock().repositories.get_mut(repository) {
            found.gated = true;
        }
    }

    pub fn set(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// The requests since the last look.
    pub fn seen(&self) -> Vec<RequestRecord> {
        std::mem::take(&mut self.state.lock().seen)
    }

    /// The commit of a model as it is now.
    pub fn commit(&self, repository: &str) -> String {
        let state = self.state.lock();
        let files = &state.repositories[repository].files;
        let text: String = files.iter().map(|(path, bytes)| format!("{path} {}\n", sha256(bytes))).collect();
        git(text.as_bytes())
    }

    fn serve(&self, mut stream: TcpStream, storage: bool) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut first = String::new();
        lines.read_line(&mut first)?;
        let mut words = first.split_whitespace();
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(()) };
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            lines.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        lines.read_exact(&mut body)?;
        let authorization = headers.get("authorization").cloned();
        let range = headers.get("range").cloned();
        let (method, target) = (method.to_owned(), target.to_owned());
        {
            let mut state = self.state.lock();
            state.seen.push(RequestRecord {
                method: method.clone(),
                target: target.clone(),
                range: range.clone(),
                authorization: authorization.clone(),
                storage,
            });
            if state.faults.unavailable > 0 {
                state.faults.unavailable -= 1;
                drop(state);
                return stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        }
        let answer = self.answer(&target, authorization.as_deref(), storage);
        answer.write(&mut stream, &method, range.as_deref(), &self.state)
    }

    fn answer(&self, target: &str, authorization: Option<&str>, storage: bool) -> Answer {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = unescape(path);
        let query: BTreeMap<String, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), unescape(value)))
            .collect();
        if storage {
            return self.stored(&path);
        }
        let allowed = authorization.is_some_and(|sent| sent == format!("Bearer {TOKEN}"));
        if let Some(rest) = path.strip_prefix("/api/v1/models/") {
            return self.modelscope(rest, &query, allowed);
        }
        if let Some(rest) = path.strip_prefix("/api/models/") {
            return self.hugging_face_api(rest, &query, allowed);
        }
        match path.trim_start_matches('/').split_once("/resolve/") {
            Some((repository, rest)) => self.resolve(repository, rest, allowed),
            None => Answer::error(404, ""),
        }
    }

    fn hugging_face_api(&self, rest: &str, query: &BTreeMap<String, String>, allowed: bool) -> Answer {
        let parts: Vec<&str> = rest.splitn(4, '/').collect();
        let repository = parts[..parts.len().min(2)].join("/");
        let Some(found) = self.state.lock().repositories.get(&repository).cloned() else {
            return Answer::error(401, "RepoNotFound");
        };
        if found.gated && !allowed {
            return Answer::error(403, "GatedRepo");
        }
        let commit = self.commit(&repository);
        let known = |revision: &str| revision == "main" || revision == commit;
        match parts.get(2).copied() {
            None => self.about(&repository, &found, &commit),
            Some("revision") if known(parts[3]) => self.about(&repository, &found, &commit),
            Some("tree") if known(parts[3].split('/').next().unwrap_or_default()) => {
                self.tree(&repository, &found, &commit, query)
            }
            _ => Answer::error(404, "RevisionNotFound"),
        }
    }

    fn about(&self, repository: &str, found: &Repository, commit: &str) -> Answer {
        let siblings: Vec<Value> = found.files.keys().map(|path| json!({"rfilename": path})).collect();
        Answer::json(&json!({
            "id": repository, "modelId": repository, "sha": commit, "private": false, "gated": found.gated, "disabled": false,
            "tags": ["onnx", "license:apache-2.0"], "pipeline_tag": "image-classification", "downloads": 1, "likes": 0,
            "cardData": {"license": "apache-2.0"}, "siblings": siblings
        }))
    }

    fn tree(&self, repository: &str, found: &Repository, commit: &str, query: &BTreeMap<String, String>) -> Answer {
        let Faults { wrong_sizes, page, .. } = self.state.lock().faults.clone();
        let entry = |(path, bytes): (&String, &Arc<Vec<u8>>)| {
            let size = bytes.len() + usize::from(wrong_sizes);
            let mut entry = json!({"type": "file", "path": path, "size": size, "oid": git(bytes)});
            if bytes.len() >= LFS {
                entry["oid"] = json!(git(b"pointer"));
                entry["lfs"] = json!({"oid": sha256(bytes), "size": size, "pointerSize": 130});
            }
            entry
        };
        let all: Vec<Value> = found.files.iter().map(entry).collect();
        let at: usize = query.get("cursor").and_then(|at| at.parse().ok()).unwrap_or(0);
        let end = if page == 0 { all.len() } else { (at + page).min(all.len()) };
        let mut answer = Answer::json(&Value::Array(all[at..end].to_vec()));
        if end < all.len() {
            let next = format!(
                "{}/api/models/{repository}/tree/{commit}?recursive=true&expand=false&cursor={end}",
                self.endpoint()
            );
            answer.headers.push(format!("Link: <{next}>; rel=\"next\""));
        }
        answer
    }

    fn resolve(&self, repository: &str, rest: &str, allowed: bool) -> Answer {
        let Some(found) = self.state.lock().repositories.get(repository).cloned() else {
            return Answer::error(401, "RepoNotFound");
        };
        if found.gated && !allowed {
            return Answer::error(403, "GatedRepo");
        }
        let commit = self.commit(repository);
        let Some((revision, path)) = rest.split_once('/') else { return Answer::error(404, "EntryNotFound") };
        if revision != "main" && revision != commit {
            return Answer::error(404, "RevisionNotFound");
        }
        let Some(bytes) = found.files.get(path) else {
            let mut missing = Answer::error(404, "EntryNotFound");
            missing.headers.push(format!("X-Repo-Commit: {commit}"));
            return missing;
        };
        let commit_header = format!("X-Repo-Commit: {commit}");
        if bytes.len() < LFS {
            let headers = vec![commit_header, format!("ETag: \"{}\"", git(bytes))];
            return Answer { status: 200, headers, body: bytes.clone(), content: true };
        }
        let to = match self.state.lock().faults.redirect_for_ever {
            true => format!("/{repository}/resolve/{rest}"),
            false => format!("http://{}/{repository}/{path}?signature=x", self.storage),
        };
        let headers = vec![
            commit_header,
            format!("X-Linked-Etag: \"{}\"", sha256(bytes)),
            format!("X-Linked-Size: {}", bytes.len()),
            format!("Location: {to}"),
        ];
        Answer { status: 302, headers, body: Arc::default(), content: false }
    }

    fn stored(&self, path: &str) -> Answer {
        let state = self.state.lock();
        let content = state
            .repositories
            .iter()
            .find_map(|(repository, found)| found.files.get(path.strip_prefix(&format!("/{repository}/"))?));
        match content {
            Some(bytes) => Answer {
                status: 200,
                headers: vec![format!("ETag: \"{}\"", sha256(bytes))],
                body: bytes.clone(),
                content: true,
            },
            None => Answer::error(404, ""),
        }
    }

    fn modelscope(&self, rest: &str, query: &BTreeMap<String, String>, allowed: bool) -> Answer {
        let parts: Vec<&str> = rest.split('/').collect();
        let repository = parts[..parts.len().min(2)].join("/");
        let found = self.state.lock().repositories.get(&repository).cloned();
        let Some(found) = found.filter(|found| !found.gated || allowed) else {
            let mut missing = Answer::json(
                &json!({"Code": 10_010_205_001_u64, "Success": false, "Message": "no such model", "Data": null}),
            );
            missing.status = 404;
            return missing;
        };
        let revision = query.get("Revision").map_or("master", String::as_str);
        if revision != "master" && parts.get(2) == Some(&"repo") {
            return Answer::error(404, "RevisionNotFound");
        }
        let wrong = self.state.lock().faults.wrong_sizes;
        match (parts.get(2).copied(), parts.get(3).copied()) {
            (None, _) => Answer::json(&json!({"Code": 200, "Success": true, "Data": {
                "Name": parts[1], "Path": parts[0], "License": "Apache License 2.0", "Tasks": [{"Name": "image-classification"}]}})),
            (Some("revisions"), _) => Answer::json(&json!({"Code": 200, "Success": true, "Data": {"RevisionMap": {
                "Branches": [{"Revision": "master", "CreatedAt": 1}], "Tags": []}}})),
            (Some("repo"), Some("files")) => {
                let entry = |(path, bytes): (&String, &Arc<Vec<u8>>)| {
                    json!({"Path": path, "Name": path.rsplit('/').next(), "Type": "blob", "Size": bytes.len() + usize::from(wrong),
                        "Sha256": sha256(bytes), "Revision": self.commit(&repository), "Mode": "100644", "IsLFS": bytes.len() >= LFS})
                };
                let files: Vec<Value> = found.files.iter().map(entry).collect();
                Answer::json(
                    &json!({"Code": 200, "Success": true, "Message": "", "Data": {"Files": files, "IsVisual": 0}}),
                )
            }
            (Some("repo"), None) => {
                let path = query.get("FilePath").map_or("", String::as_str);
                match found.files.get(path) {
                    Some(bytes) if bytes.len() < LFS => {
                        Answer { status: 200, headers: Vec::new(), body: bytes.clone(), content: true }
                    }
                    Some(bytes) => {
                        let to = format!("http://{}/{repository}/{path}", self.storage);
                        let headers = vec![format!("Location: {to}"), format!("X-Linked-ETag: {}", sha256(bytes))];
                        Answer { status: 302, headers, body: Arc::default(), content: false }
                    }
                    None => Answer::error(404, "EntryNotFound"),
                }
            }
            _ => Answer::error(404, ""),
        }
    }
}

fn unescape(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let value = after
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match value.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<String>,
    body: Arc<Vec<u8>>,
    /// A file's content, which faults spoil.
    content: bool,
}

impl Answer {
    fn json(value: &Value) -> Self {
        let headers = vec!["Content-Type: application/json".to_owned()];
        Self { status: 200, headers, body: Arc::new(value.to_string().into_bytes()), content: false }
    }

    fn error(status: u16, code: &str) -> Self {
        let mut answer = Self::json(&json!({"error": code}));
        answer.status = status;
        answer.headers.push(format!("X-Error-Code: {code}"));
        answer.headers.push(format!("X-Error-Message: {code}"));
        answer
    }

    fn write(
        mut self,
        stream: &mut TcpStream,
        method: &str,
        range: Option<&str>,
        state: &Mutex<State>,
    ) -> std::io::Result<()> {
        let (mut cut, mut pause) = (usize::MAX, None);
        if self.content && method == "GET" {
            let faults = &mut state.lock().faults;
            pause = faults.pause;
            if faults.flips > 0 {
                faults.flips -= 1;
                let mut bytes = self.body.as_ref().clone();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                self.body = Arc::new(bytes);
            }
            if faults.cuts > 0 {
                faults.cuts -= 1;
                cut = faults.cut_after;
            }
        }
        let total = self.body.len();
        let (mut start, mut end) = (0, total);
        let asked = range.filter(|_| self.content && !state.lock().faults.ignore_ranges);
        if let Some((from, to)) = asked.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) {
            start = from.parse().unwrap_or(0);
            end = to.parse().map_or(total, |to: usize| to + 1).min(total);
            if start >= total {
                let head = format!(
                    "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{total}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
                return stream.write_all(head.as_bytes());
            }
            self.status = 206;
            self.headers.push(format!("Content-Range: bytes {start}-{}/{total}", end - 1));
        }
        if self.content {
            self.headers.push("Accept-Ranges: bytes".to_owned());
        }
        let mut head =
            format!("HTTP/1.1 {} Answer\r\nContent-Length: {}\r\nConnection: close\r\n", self.status, end - start);
        self.headers.iter().for_each(|header| head.push_str(&format!("{header}\r\n")));
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        if method == "HEAD" {
            return Ok(());
        }
        let end = end.min(start.saturating_add(cut));
        for piece in self.body[start..end].chunks(PIECE) {
            stream.write_all(piece)?;
            if let Some(pause) = pause {
                std::thread::sleep(pause);
            }
        }
        Ok(())
    }
}
