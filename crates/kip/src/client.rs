//! A client of a server's API: finds it by flags, environment or data directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, IF_MATCH, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full};
use kip_host::http_client::{self, Answer};
use kip_spec::{Problem, code};
use kip_wire::{Errors, ServerInfo, Status};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

use crate::arguments::Connection;
use crate::problem::Problems;

/// How long an answer of the API may take.
const LIMIT: Duration = Duration::from_secs(30);
/// The same of one that may have to pull an image first.
const PULL_LIMIT: Duration = Duration::from_secs(3 * 3_600);

/// What a running server writes into its data directory for clients.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServerFile {
    pub(crate) gateway: String,
    pub(crate) api: String,
    pub(crate) pid: u32,
}

/// Bytes of the files that are read of a data directory at most.
const LARGEST_FILE: u64 = 64 << 10;

/// The file it writes that into.
pub(crate) const FOUND: &str = "server.json";

/// A server that can be talked to.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    base: String,
    key: String,
    /// Changes are made only if the object has this revision.
    if_match: Option<u64>,
    /// How long an answer may take.
    limit: Duration,
}

/// The data directory that a command means.
pub(crate) fn data_directory(connection: &Connection) -> anyhow::Result<PathBuf> {
    let path = connection.data_dir.clone().or_else(kip_host::environment::default_data_directory);
    let path = path.ok_or_else(|| {
        Problem::new(code::DATA_DIRECTORY_UNUSABLE, "there is no home to keep a data directory in")
            .hint("name one: --data-dir DIR")
    })?;
    Ok(std::path::absolute(path)?)
}

impl Client {
    pub(crate) fn new(base: &str, key: &str) -> Self {
        Self { base: base.to_owned(), key: key.to_owned(), if_match: None, limit: LIMIT }
    }

    /// The same server, for a change of an object of this revision only, if one is given.
    pub(crate) fn comparing(&self, if_match: Option<u64>) -> Self {
        Self { if_match, ..self.clone() }
    }

    /// The same server, for a call that may pull images.
    pub(crate) fn pulling(&self) -> Self {
        Self { limit: PULL_LIMIT, ..self.clone() }
    }

    /// Finds the server without asking it anything.
    pub(crate) fn find(connection: &Connection) -> anyhow::Result<Self> {
        let data = data_directory(connection)?;
        let base = match &connection.api {
            Some(base) if base.starts_with("http") => base.clone(),
            Some(address) => format!("http://{address}"),
            None => found(&data).ok_or_else(|| nobody(&data))?.api,
        };
        let key = match &connection.key {
            Some(key) => key.clone(),
            None => {
                let key = administrator_key(&data).map_err(|_| {
                    Problem::new(code::KEY_MISSING, "a key is needed and none was found").hint(format!(
                        "give one by --key or {}, or name the server's data directory",
                        kip_host::environment::KEY
                    ))
                })?;
                // The administrator's key is for the server of its directory, not for whoever has an address.
                let own = found(&data).is_some_and(|found| authority(&found.api) == authority(&base));
                if !own {
                    let said = format!("the server at {base} is not known to be that of {}", data.display());
                    return Err(Problem::new(code::KEY_MISSING, said)
                        .cause("the administrator key of a data directory is sent to its own server only")
                        .hint(format!(
                            "give the key of that server by --key or {}; without --api the server of the data directory is asked",
                            kip_host::environment::KEY
                        ))
                        .into());
                }
                key
            }
        };
        Ok(Self { base, key, if_match: None, limit: LIMIT })
    }

    /// Who the server is.
    pub(crate) async fn status(&self) -> anyhow::Result<Status> {
        self.get("/api/v1/status").await
    }

    /// Where functions are called.
    pub(crate) async fn gateway(&self) -> anyhow::Result<String> {
        let gateway: kip_wire::Gateway = self.get("/api/v1/gateway").await?;
        Ok(gateway.gateway.to_string())
    }

    /// What a function that asks for a key wants to see.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.key)
    }

    /// Who the server is, in short.
    /// Whether the server runs on this machine: its data directory is here and names its process.
    pub(crate) async fn is_on_this_machine(&self) -> bool {
        let Ok(about) = self.about().await else { return false };
        found(Path::new(&about.data_directory)).is_some_and(|found| found.pid == about.pid)
    }

    pub(crate) async fn about(&self) -> anyhow::Result<ServerInfo> {
        Ok(self.status().await?.about)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.call(Method::DELETE, path, None).await
    }

    pub(crate) async fn post<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> anyhow::Result<T> {
        self.call(Method::POST, path, Some(serde_json::to_vec(body)?)).await
    }

    pub(crate) async fn put<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> anyhow::Result<T> {
        self.call(Method::PUT, path, Some(serde_json::to_vec(body)?)).await
    }

    pub(crate) async fn patch<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> anyhow::Result<T> {
        self.call(Method::PATCH, path, Some(serde_json::to_vec(body)?)).await
    }

    /// A request without a body.
    pub(crate) async fn send<T: DeserializeOwned>(&self, method: Method, path: &str) -> anyhow::Result<T> {
        self.call(method, path, None).await
    }

    /// Bytes with headers, and the whole answer.
    pub(crate) async fn post_bytes(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Vec<u8>,
    ) -> anyhow::Result<Answer> {
        let authority = http_client::authority(&self.base)
            .map_err(|error| Problem::new(code::SERVER_UNREACHABLE, error.to_string()))?;
        let mut request = Request::builder().method(Method::POST).uri(path).header(AUTHORIZATION, self.bearer());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.header(CONTENT_TYPE, "application/octet-stream").body(Full::from(body))?;
        let called = http_client::call(authority, request, PULL_LIMIT).await;
        let answer = called.map_err(|error| self.unreachable(&error))?;
        if !(200..300).contains(&answer.status) {
            read::<serde_json::Value>(&answer)?;
        }
        Ok(answer)
    }

    /// A `POST` that is answered without a body.
    pub(crate) async fn post_for_nothing<B: Serialize + Sync>(&self, path: &str, body: &B) -> anyhow::Result<()> {
        self.answer(Method::POST, path, Some(serde_json::to_vec(body)?)).await.map(drop)
    }

    /// A `PUT` that is answered without a body.
    pub(crate) async fn put_for_nothing<B: Serialize + Sync>(&self, path: &str, body: &B) -> anyhow::Result<()> {
        self.answer(Method::PUT, path, Some(serde_json::to_vec(body)?)).await.map(drop)
    }

    /// A `DELETE` that is answered without a body.
    pub(crate) async fn remove(&self, path: &str) -> anyhow::Result<()> {
        self.answer(Method::DELETE, path, None).await.map(drop)
    }

    /// What is not JSON.
    pub(crate) async fn bytes(&self, path: &str) -> anyhow::Result<Bytes> {
        Ok(self.answer(Method::GET, path, None).await?.body)
    }

    /// The same, and whether the answer has this header.
    pub(crate) async fn marked_bytes(&self, path: &str, mark: &str) -> anyhow::Result<(bool, Bytes)> {
        let answer = self.answer(Method::GET, path, None).await?;
        Ok((answer.headers.contains_key(mark), answer.body))
    }

    /// An answer that is a success, whatever it holds.
    async fn answer(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> anyhow::Result<Answer> {
        let authority = http_client::authority(&self.base)
            .map_err(|error| Problem::new(code::SERVER_UNREACHABLE, error.to_string()))?;
        let answer = http_client::call(authority, self.request(method, path, body)?, self.limit)
            .await
            .map_err(|error| self.unreachable(&error))?;
        if !(200..300).contains(&answer.status) {
            read::<serde_json::Value>(&answer)?;
        }
        Ok(answer)
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> anyhow::Result<T> {
        let authority = http_client::authority(&self.base)
            .map_err(|error| Problem::new(code::SERVER_UNREACHABLE, error.to_string()))?;
        let answer = http_client::call(authority, self.request(method, path, body)?, self.limit)
            .await
            .map_err(|error| self.unreachable(&error))?;
        read(&answer)
    }

    fn request(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(method).uri(path).header(AUTHORIZATION, self.bearer());
        if let Some(rev) = self.if_match {
            request = request.header(IF_MATCH, format!("\"{rev}\""));
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok(request.body(Full::from(body.unwrap_or_default()))?)
    }

    /// Streams an answer of one JSON value a line until it ends.
    pub(crate) async fn lines<T: DeserializeOwned>(
        &self,
        path: &str,
        mut each: impl FnMut(T) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let authority = http_client::authority(&self.base)
            .map_err(|error| Problem::new(code::SERVER_UNREACHABLE, error.to_string()))?;
        let answer = http_client::open(authority, self.request(Method::GET, path, None)?)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let (head, mut body) = answer.into_parts();
        if !head.status.is_success() {
            let body = body.collect().await?.to_bytes();
            return read(&Answer { status: head.status.as_u16(), headers: head.headers, body });
        }
        let mut begun: Vec<u8> = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            begun.extend_from_slice(&data);
            while let Some(end) = begun.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = begun.drain(..=end).collect();
                each(serde_json::from_slice(&line)?)?;
            }
        }
        Ok(())
    }

    /// Asks for a WebSocket of this protocol, and gives the connection once the server has agreed.
    pub(crate) async fn upgrade(&self, path: &str, protocol: &'static str) -> anyhow::Result<hyper::upgrade::Upgraded> {
        let authority = http_client::authority(&self.base)
            .map_err(|error| Problem::new(code::SERVER_UNREACHABLE, error.to_string()))?;
        let mut request = self.request(Method::GET, path, None)?;
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::try_from(generate_key())?);
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        let answer = tokio::time::timeout(self.limit, http_client::upgrade(authority, request)).await;
        let answer = answer.unwrap_or(Err(http_client::Error::Timeout(self.limit)));
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        if answer.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            let (head, body) = answer.into_parts();
            let body = body.collect().await?.to_bytes();
            read::<serde_json::Value>(&Answer { status: head.status.as_u16(), headers: head.headers, body })?;
            let problem =
                Problem::new(code::SERVER_UNREACHABLE, format!("the server at {} opens no session", self.base));
            return Err(problem.hint("is it older than this program? `kip info` shows its version").into());
        }
        Ok(hyper::upgrade::on(answer).await?)
    }

    fn unreachable(&self, error: &http_client::Error) -> Problem {
        let mut cause = error.to_string();
        if let Some(source) = std::error::Error::source(error) {
            cause = format!("{cause}: {source}");
        }
        Problem::new(code::SERVER_UNREACHABLE, format!("no server answers at {}", self.base))
            .cause(cause)
            .hint("`kip serve` or `kip up DIR` starts one; --api or --data-dir names another")
    }
}

/// A name as one segment of a path, so that whatever was typed reaches the server as it is and is refused by name there.
///
/// `service$function`, as Function Compute shows functions of services, is the function `service-function`.
pub(crate) fn segment(name: &str) -> String {
    let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if let Some((service, function)) = name.split_once('$').filter(|(one, other)| is_plain(one) && is_plain(other)) {
        return format!("{service}-{function}");
    }
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

/// What the data directory says about the server that holds it. What a server left that was killed is not believed: somebody else may have its
/// port by now, and would be sent the key.
pub(crate) fn found(data: &Path) -> Option<ServerFile> {
    let text = kip_host::directory::read_regular(&data.join(FOUND), LARGEST_FILE).ok()?;
    let file: ServerFile = serde_json::from_slice(&text).ok()?;
    kip_host::directory::is_held_by(data, file.pid).then_some(file)
}

/// The administrator key in a data directory.
pub(crate) fn administrator_key(data: &Path) -> std::io::Result<String> {
    let text = kip_host::directory::read_regular_text(&kip_auth::administrator_file(data), LARGEST_FILE)?;
    Ok(text.trim().to_owned())
}

/// Host and port of an address, by which two can be compared.
fn authority(address: &str) -> String {
    let address = address.trim_start_matches("http://").trim_end_matches('/');
    address.replace("localhost:", "127.0.0.1:")
}

/// A user's name by its id, as `/etc/passwd` has it.
pub(crate) fn user_name(id: u32) -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let of_line = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        (fields.nth(1)?.parse() == Ok(id)).then_some(name)
    };
    users.lines().find_map(of_line)
}

/// What keeps us from looking into a data directory.
fn closed_to_us(data: &Path, error: &std::io::Error) -> Option<Problem> {
    use std::os::unix::fs::MetadataExt;
    if error.kind() != std::io::ErrorKind::PermissionDenied {
        return None;
    }
    let owner = std::fs::metadata(data).ok().map(|metadata| metadata.uid());
    let owner = owner.map(|id| match user_name(id) {
        Some(name) => format!(": it belongs to user {name}"),
        None => format!(": it belongs to the user with id {id}"),
    });
    let message = format!("permission denied on the data directory {}{}", data.display(), owner.unwrap_or_default());
    let hint = "run the command as that user, give --api and --key, or name your own directory: --data-dir DIR";
    Some(Problem::new(code::DATA_DIRECTORY_UNUSABLE, message).hint(hint))
}

fn nobody(data: &Path) -> Problem {
    if let Some(problem) = std::fs::read_dir(data).err().and_then(|error| closed_to_us(data, &error)) {
        return problem;
    }
    if let Some(owner) = kip_host::directory::owner(data) {
        let message = format!("the server of {} (process {owner}) is just starting or stopping", data.display());
        return Problem::new(code::SERVER_UNREACHABLE, message).hint(
            "try again in a moment: one that stops waits for requests in flight, for `server.patience` at most; \
             `kip stop` waits for it and ends what it leaves",
        );
    }
    Problem::new(code::SERVER_UNREACHABLE, format!("no server runs on the data directory {}", data.display()))
        .hint("`kip serve` or `kip up DIR` starts one; --api or --data-dir names another")
}

fn read<T: DeserializeOwned>(answer: &Answer) -> anyhow::Result<T> {
    if (200..300).contains(&answer.status) {
        return Ok(serde_json::from_slice(&answer.body)?);
    }
    match serde_json::from_slice::<Errors>(&answer.body) {
        Ok(errors) if errors.errors.is_empty() => Err(errors.error.into()),
        Ok(errors) => Err(Problems(errors.errors).into()),
        Err(_) => match of_vendor(answer) {
            Some(problem) => Err(problem.into()),
            None => {
                anyhow::bail!("the server answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body))
            }
        },
    }
}

/// An error of the API of Function Compute, which has our code in a header.
fn of_vendor(answer: &Answer) -> Option<Problem> {
    let code = answer.headers.get("x-kip-error")?.to_str().ok()?.parse().ok()?;
    let body: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    let message = body.get("Message")?.as_str()?;
    // What is to be done stands behind the last semicolon there.
    Some(match message.rsplit_once("; ") {
        Some((message, hint)) => Problem::new(code, message).hint(hint),
        None => Problem::new(code, message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_another_user_is_said_to_be_that() {
        let folder = tempfile::tempdir().unwrap();
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let problem = closed_to_us(folder.path(), &denied).unwrap();
        assert_eq!(problem.code, code::DATA_DIRECTORY_UNUSABLE);
        assert!(problem.message.contains("permission denied") && problem.message.contains("belongs to"), "{problem:?}");
        assert!(closed_to_us(folder.path(), &std::io::Error::from(std::io::ErrorKind::NotFound)).is_none());
        assert_eq!(user_name(0).as_deref(), Some("root"));
    }
}
