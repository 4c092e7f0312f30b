//! Code that a client sends before it names it: a place with credentials of its own for half an hour, as a bucket has it.
//!
//! A client asks for a place, sends one object there, and names bucket and object in CreateFunction, UpdateFunction or CreateLayerVersion.
//! Source of the interface: the shared reference on the FC 3.0 API, section 1.5.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use kip_auth::Key;
use kip_spec::account::REGION;
use kip_spec::{RequestId, code};
use kip_wire::Role;
use parking_lot::Mutex;
use ring::hmac;
use serde_json::json;

use crate::Fc;
use crate::error::{FcError, FcResult};
use crate::legacy;
use crate::request::json;

/// The bucket, and the folder of it in which all objects are.
pub(crate) const BUCKET: &str = "kipwake-uploads";
/// Bytes of an archive that is sent this way, as the vendor has it.
pub(crate) const LARGEST: u64 = 500 << 20;
/// How long a place is there, milliseconds.
const VALID: i64 = 1_800_000;
/// Places of one key at once, and of all.
const MOST_OF_KEY: usize = 20;
const MOST: usize = 100;
/// Bytes between two writes.
const PIECE: usize = 1 << 20;
/// How long nothing of a body may come.
const IDLE: Duration = Duration::from_secs(60);

/// A place for one object.
#[derive(Debug, Clone)]
struct Place {
    /// The key that asked for it.
    key: u64,
    access_id: String,
    secret: String,
    token: String,
    /// Milliseconds since 1970.
    until: i64,
    state: PlaceState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PlaceState {
    Empty,
    Writing,
    Full,
}

/// The places there are. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Uploads {
    folder: PathBuf,
    places: Arc<Mutex<BTreeMap<String, Place>>>,
}

impl Uploads {
    /// In a folder of its own; what an earlier server left there is removed.
    pub(crate) fn open(folder: PathBuf) -> std::io::Result<Self> {
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        kip_host::directory::create_private(&folder)?;
        Ok(Self { folder, places: Arc::default() })
    }

    fn file(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }

    /// Removes places whose time is over.
    fn expire(&self, now: i64) {
        let mut places = self.places.lock();
        let over: Vec<String> = places
            .iter()
            .filter(|(_, place)| place.until < now && place.state != PlaceState::Writing)
            .map(|(id, _)| id.clone())
            .collect();
        for id in over {
            places.remove(&id);
            let _ = fs::remove_file(self.file(&id));
        }
    }

    /// A place for a key, with its id.
    fn make(&self, key: u64) -> FcResult<(String, Place)> {
        let now = kip_host::clock::wall_millis();
        self.expire(now);
        let mut places = self.places.lock();
        let own = places.values().filter(|place| place.key == key).count();
        if own >= MOST_OF_KEY || places.len() >= MOST {
            let said = format!("a key has at most {MOST_OF_KEY} uploads in half an hour; try again later");
            return Err(FcError {
                retry_after: Some(60),
                ..FcError::new(code::CODE_UPLOADS, "ResourceExhausted", said)
            });
        }
        let random = || format!("{:032x}", kip_host::random::bits());
        let place = Place {
            key,
            access_id: format!("KWUP{}", random()),
            secret: random(),
            token: random(),
            until: now + VALID,
            state: PlaceState::Empty,
        };
        let id = random();
        places.insert(id.clone(), place.clone());
        Ok((id, place))
    }

    fn set(&self, id: &str, state: PlaceState) {
        if let Some(place) = self.places.lock().get_mut(id) {
            place.state = state;
        }
    }

    /// The archive that a key sent; `object` ends with the id of its place.
    pub(crate) async fn take(&self, key: &Key, bucket: &str, object: &str) -> FcResult<Bytes> {
        if bucket != BUCKET {
            return Err(FcError::refused(format!(
                "the bucket `{bucket}` is not read here: send the code as code.zipFile, or let `s` upload it"
            )));
        }
        let id = object.rsplit('/').next().unwrap_or_default().to_owned();
        self.expire(kip_host::clock::wall_millis());
        let is_there =
            self.places.lock().get(&id).is_some_and(|place| place.key == key.id() && place.state == PlaceState::Full);
        let missing = || {
            FcError::new(
                code::CODE_ARCHIVE,
                "InvalidArgument",
                format!("there is no object `{object}` in bucket `{bucket}`: upload it again"),
            )
        };
        if !is_there {
            return Err(missing());
        }
        let file = self.file(&id);
        let read = kip_host::tasks::blocking("read upload", move || fs::read(file)).await;
        Ok(read.and_then(Result::ok).ok_or_else(missing)?.into())
    }
}

/// Gives a client a place: `GET /2016-08-15/tempBucketToken`.
pub(crate) async fn token(State(fc): State<Fc>, request: axum::extract::Request) -> Response {
    let id = RequestId::from_bits(kip_host::random::unique());
    let (head, _) = request.into_parts();
    let made = legacy::authenticate(&fc, &head, Role::Deploy, None).and_then(|key| fc.places.make(key.id()));
    match made {
        Err(error) => legacy::render(error, &id),
        Ok((place, Place { access_id, secret, token, until, .. })) => json(json!({
            "credentials": {
                "AccessKeyId": access_id, "AccessKeySecret": secret, "SecurityToken": token,
                "Expiration": crate::request::time(until),
            },
            "ossRegion": REGION,
            "ossBucket": BUCKET,
            "objectName": format!("{BUCKET}/{place}"),
        })),
    }
}

/// The text that a client of buckets signs. A date of its own header stands in the place of `Date`.
fn canonical(method: &str, bucket: &str, path: &str, headers: &HeaderMap) -> String {
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    let mut own: Vec<&str> =
        headers.keys().map(http::HeaderName::as_str).filter(|name| name.starts_with("x-oss-")).collect();
    own.sort_unstable();
    let own: String = own.iter().map(|name| format!("{name}:{}\n", value(name))).collect();
    let date = if value("x-oss-date").is_empty() { value("date") } else { value("x-oss-date") };
    format!("{method}\n{}\n{}\n{date}\n{own}/{bucket}{path}", value("content-md5"), value("content-type"))
}

/// Checks that the credentials of the place signed a request.
fn admit(place: &Place, head: &Parts) -> FcResult<()> {
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mismatch = |said: &str| FcError::new(code::FC_SIGNATURE, "SignatureDoesNotMatch", said);
    let sent = text("authorization").strip_prefix("OSS ").and_then(|sent| sent.split_once(':'));
    let (access_id, signature) = sent.ok_or_else(|| mismatch("Authorization is OSS ID:SIGNATURE"))?;
    let signature = BASE64_STANDARD.decode(signature).map_err(|_| mismatch("the signature is not base64"))?;
    if access_id != place.access_id || text("x-oss-security-token") != place.token {
        return Err(mismatch("the credentials are not those of this object"));
    }
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, place.secret.as_bytes());
    let path = crate::query::decoded(head.uri.path(), false);
    let signed = canonical(head.method.as_str(), BUCKET, &path, &head.headers);
    hmac::verify(&key, signed.as_bytes(), &signature)
        .map_err(|_| mismatch("the signature is not that of this request"))?;
    let date = if text("x-oss-date").is_empty() { text("date") } else { text("x-oss-date") };
    legacy::require_recent(date)
}

/// Takes an object: `PUT /ACCOUNT/kipwake-uploads/ID`.
pub(crate) async fn put(
    State(fc): State<Fc>,
    Path((_, id)): Path<(String, String)>,
    request: axum::extract::Request,
) -> Response {
    let request_id = RequestId::from_bits(kip_host::random::unique());
    match receive(&fc.places, &id, request).await {
        Ok(()) => [("x-oss-request-id", request_id.as_str())].into_response(),
        Err(error) => xml(error, &request_id),
    }
}

async fn receive(uploads: &Uploads, id: &str, request: axum::extract::Request) -> FcResult<()> {
    let (head, mut body) = request.into_parts();
    let admitted = begin(uploads, id, &head);
    if admitted.is_err() {
        kip_tasks::drain(&mut body).await;
    }
    admitted?;
    let written = write(uploads, id, body).await;
    uploads.set(id, if written.is_ok() { PlaceState::Full } else { PlaceState::Empty });
    if written.is_err() {
        let _ = fs::remove_file(uploads.file(id));
    }
    written
}

fn begin(uploads: &Uploads, id: &str, head: &Parts) -> FcResult<()> {
    uploads.expire(kip_host::clock::wall_millis());
    let mut places = uploads.places.lock();
    let missing =
        || FcError::new(code::FC_SIGNATURE, "AccessDenied", "there is no place for this object: ask for one again");
    let place = places.get_mut(id).ok_or_else(missing)?;
    admit(place, head)?;
    let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > LARGEST) {
        return Err(too_large());
    }
    if place.state == PlaceState::Writing {
        return Err(FcError::new(code::CODE_UPLOADS, "OperationConflict", "the object is being written"));
    }
    place.state = PlaceState::Writing;
    Ok(())
}

fn too_large() -> FcError {
    FcError::new(code::BODY_TOO_LARGE, "EntityTooLarge", format!("the archive has more than {LARGEST} bytes"))
}

async fn write(uploads: &Uploads, id: &str, mut body: axum::body::Body) -> FcResult<()> {
    let failed = |error: std::io::Error| {
        FcError::new(code::STORE_FAILED, "InternalError", format!("the object cannot be written: {error}"))
    };
    let path = uploads.file(id);
    let made = kip_host::tasks::blocking("make upload", move || File::create(path)).await;
    let ending = || std::io::Error::other("the server is about to end");
    let mut file = made.unwrap_or_else(|| Err(ending())).map_err(failed)?;
    let (mut piece, mut total) = (Vec::with_capacity(PIECE), 0_u64);
    loop {
        let frame = tokio::time::timeout(IDLE, body.frame()).await;
        let frame = frame.map_err(|_| FcError::invalid("nothing of the object arrived for a minute"))?;
        let is_over = frame.is_none();
        if let Some(frame) = frame {
            let frame = frame.map_err(|_| FcError::invalid("the object broke off"))?;
            let Ok(data) = frame.into_data() else { continue };
            total += data.len() as u64;
            if total > LARGEST {
                return Err(too_large());
            }
            piece.extend_from_slice(&data);
        }
        if is_over || piece.len() >= PIECE {
            let written = kip_host::tasks::blocking("write upload", move || {
                file.write_all(&piece)?;
                piece.clear();
                Ok((file, piece))
            });
            (file, piece) = written.await.unwrap_or_else(|| Err(ending())).map_err(failed)?;
        }
        if is_over {
            return Ok(());
        }
    }
}

/// An error as clients of buckets read it.
fn xml(error: FcError, request: &RequestId) -> Response {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{}</Code><Message>{}</Message><RequestId>{}</RequestId></Error>\n",
        error.code,
        escaped(&error.message),
        request.as_str()
    );
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let own = error.own.to_string();
    (status, [(CONTENT_TYPE.as_str(), "application/xml"), ("x-kip-error", own.as_str())], text).into_response()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_text_has_the_bucket_and_its_own_date() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("x-oss-security-token", "t"), ("x-oss-date", "D"), ("date", "other"), ("content-type", "T")]
        {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let text = canonical("PUT", "b", "/1/x", &headers);
        assert_eq!(text, "PUT\n\nT\nD\nx-oss-date:D\nx-oss-security-token:t\n/b/1/x");
    }

    #[test]
    fn a_key_has_only_so_many_places() {
        let folder = tempfile::tempdir().unwrap();
        let uploads = Uploads::open(folder.path().join("uploads")).unwrap();
        for _ in 0..MOST_OF_KEY {
            uploads.make(1).unwrap();
        }
        assert_eq!(uploads.make(1).unwrap_err().own, code::CODE_UPLOADS);
        assert!(uploads.make(2).is_ok(), "another key has places of its own");
        uploads.expire(kip_host::clock::wall_millis() + VALID + 1);
        assert!(uploads.make(1).is_ok(), "their time is over");
    }
}
