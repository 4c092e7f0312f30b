//! A shell in an instance, as `s instance exec` and the console have it: a WebSocket under the signature scheme `FC`, with the error shape of
//! the interface's version 2.0. Output comes in binary messages whose first byte is 1 or 2, what a client sends is standard input. The session is
//! that of `kip exec`.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use http::header::{CONTENT_TYPE, DATE, ORIGIN};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use hyper_util::rt::TokioIo;
use kip_auth::{Access, Key, Keys};
use kip_relay::exec::{self, Dialect, Session, SessionRecord, SessionTarget};
use kip_spec::{InstanceId, Problem, RequestId, code};
use kip_wire::{ExecStart, ExecTerminal, Role};
use parking_lot::Mutex;
use ring::hmac;
use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::Role as Side;

use crate::Fc;
use crate::error::{FcError, FcResult};
use crate::query::{self, QueryFields, decoded};
use crate::request::qualifier;
use crate::serve::{authenticate, replayed};

/// The scheme, which signs neither the query nor the body.
pub(crate) const SCHEME: &str = "FC";
/// A terminal whose size nobody says.
const USUAL: ExecTerminal = ExecTerminal { columns: 80, rows: 24 };

/// The function and the instance of a path below the prefix, if it is one of an exec.
pub(crate) fn path_of(path: &str) -> Option<(String, String)> {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["functions", function, "instances", instance, "exec"] => {
            Some((decoded(function, false), decoded(instance, false)))
        }
        _ => None,
    }
}

/// Serves a request for a session. Errors have the shape of version 2.0.
pub(crate) async fn serve(fc: &Fc, id: &RequestId, named: (String, String), request: Request) -> Response {
    open(fc, named, request).await.unwrap_or_else(|error| {
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = json!({"ErrorCode": error.code, "ErrorMessage": error.message, "RequestId": id.as_str()});
        let mut response = (status, Json(body)).into_response();
        if let Ok(value) = HeaderValue::from_str(&error.own.to_string()) {
            response.headers_mut().insert("x-kip-error", value);
        }
        response
    })
}

async fn open(fc: &Fc, (function, instance): (String, String), request: Request) -> FcResult<Response> {
    let (head, body) = request.into_parts();
    if head.headers.contains_key(ORIGIN) && !is_own_page(&head) {
        return Err(Problem::new(code::ORIGIN_REFUSED, "web pages of other origins may not open a session").into());
    }
    let key = authenticate(fc, &head)?;
    key.allows(Access { role: Role::Deploy, function: Some(&function) }).map_err(Problem::from)?;
    let mut request = Request::from_parts(head, body);
    exec::is_asked(&request)?;
    let cell = fc.control.require(&function)?;
    let fields = QueryFields::read(request.uri().query().unwrap_or_default());
    let command = query::pairs(request.uri().query().unwrap_or_default());
    let command: Vec<String> =
        command.into_iter().filter(|(name, _)| name == "command").map(|(_, word)| word).collect();
    let start = ExecStart {
        command: if command.is_empty() { vec!["sh".to_owned()] } else { command },
        terminal: fields.flag("tty").then_some(USUAL),
        input: fields.flag("stdin"),
        ..ExecStart::default()
    };
    let instance: InstanceId = instance.parse().map_err(|_| {
        let message = format!("there is no instance '{instance}'");
        FcError::from(Problem::new(code::INSTANCE_NOT_FOUND, message))
    })?;
    let qualifier = fields.get("qualifier").map(qualifier).transpose()?;
    let target = SessionTarget {
        cell,
        qualifier,
        instance: Some(instance),
        operates: key.allows(Access { role: Role::Operate, function: None }).is_ok(),
    };
    let place = fc.control.exec_place()?;
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip().to_string());
    let record = SessionAudit { keys: fc.keys.clone(), key, peer: peer.unwrap_or_default(), number: Mutex::default() };
    let (control, record) = (fc.control.clone(), Arc::new(record));
    // In a task of its own: a client that leaves now does not leave a program behind that nobody ends.
    let opening = async move { Session::open(&control, (place, target), start, record, async |_| {}).await };
    let session = kip_store::detached("open exec session", opening).await?;
    let upgrade = hyper::upgrade::on(&mut request);
    let response = exec::accept(request.headers(), None).map(|()| Body::empty());
    kip_host::tasks::spawn("exec session", async move {
        match upgrade.await {
            Ok(upgraded) => {
                let socket = exec::socket(TokioIo::new(upgraded), Side::Server).await;
                session.carry(socket, Dialect::FunctionCompute).await;
            }
            Err(error) => tracing::debug!(%error, "a client left before its exec session began"),
        }
    });
    Ok(response)
}

/// Whether the page that asks is one of this machine's.
fn is_own_page(head: &Parts) -> bool {
    let text = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    kip_spec::origin::is_of_this_machine(text(ORIGIN))
}

/// Checks a signature of the scheme `FC`: the key that it is made with.
///
/// # Errors
/// It is not that of this request, or the request is old or was sent before.
pub(crate) fn check_signature(fc: &Fc, head: &Parts, parameters: &str) -> FcResult<Arc<Key>> {
    let wrong = |message: &str| FcError::new(code::FC_SIGNATURE, "SignatureNotMatch", message);
    let (access_id, sent) =
        parameters.trim().split_once(':').ok_or_else(|| wrong("Authorization is FC ACCESS-KEY-ID:SIGNATURE"))?;
    let (key, secret) = fc.keys.pair(access_id).ok_or_else(|| {
        FcError::new(code::FC_SIGNATURE, "InvalidAccessKeyID", "the access-key id is not known to this server")
    })?;
    let signature = base64::engine::general_purpose::STANDARD.decode(sent);
    let signature = signature.map_err(|_| wrong("the signature is not base64"))?;
    let text = canonical(head);
    let checked = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    if hmac::verify(&checked, text.as_bytes(), &signature).is_err() {
        return Err(wrong("the signature is not that of this request and this access key"));
    }
    let date = head.headers.get(DATE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let at = jiff::fmt::rfc2822::parse(date).map_err(|_| {
        FcError::new(
            code::FC_SIGNATURE,
            "MissingRequiredHeader",
            "date is a time such as Sun, 29 Nov 2026 12:00:00 GMT",
        )
    })?;
    // The scheme has no nonce, and leaves the command out of what it signs: each signature opens one session.
    replayed(fc, &key, sent, at.timestamp().as_second())?;
    fc.keys.use_pair(&key).map_err(|problem| FcError { status: 403, ..FcError::from(problem) })?;
    Ok(key)
}

/// The text that is signed: method, three headers, the headers of the vendor, and the path.
fn canonical(head: &Parts) -> String {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().trim().to_owned();
    let header = |name: &str| head.headers.get(name).map(text).unwrap_or_default();
    let own = head.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-fc-"));
    let mut own: Vec<String> = own.map(|(name, value)| format!("{name}:{}\n", text(value))).collect();
    own.sort();
    let (md5, kind, date) = (header("content-md5"), header(CONTENT_TYPE.as_str()), header(DATE.as_str()));
    format!("{}\n{md5}\n{kind}\n{date}\n{}{}", head.method, own.concat(), decoded(head.uri.path(), false))
}

/// Sessions of a key in the audit record.
#[derive(Debug)]
struct SessionAudit {
    keys: Keys,
    key: Arc<Key>,
    peer: String,
    number: Mutex<Option<i64>>,
}

#[async_trait]
impl SessionRecord for SessionAudit {
    async fn begin(&self, object: String) {
        match self.keys.audit_begin(&self.key, "fc.InstanceExec", &object, self.peer.clone()).await {
            Ok(number) => *self.number.lock() = Some(number),
            Err(error) => tracing::error!(%error, object, "an exec session is not in the audit record"),
        }
    }

    async fn end(&self, object: String, result: String) {
        let Some(number) = *self.number.lock() else { return };
        if let Err(error) = self.keys.audit_end(number, object, result).await {
            tracing::error!(%error, "the end of an exec session is not in the audit record");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_no_query_and_a_decoded_path() {
        let request = http::Request::builder()
            .uri("/2023-03-30/functions/a%2Db/instances/1-2-3/exec?command=ls")
            .header("date", "Sun, 29 Nov 2026 12:00:00 GMT")
            .header("x-fc-b", "2")
            .header("x-fc-a", " 1 ")
            .header("content-type", "application/json")
            .body(())
            .unwrap();
        let (head, ()) = request.into_parts();
        let expected = "GET\n\napplication/json\nSun, 29 Nov 2026 12:00:00 GMT\nx-fc-a:1\nx-fc-b:2\n/2023-03-30/functions/a-b/instances/1-2-3/exec";
        assert_eq!(canonical(&head), expected);
        assert_eq!(path_of("functions/a%2Fb/instances/1-2-3/exec"), Some(("a/b".to_owned(), "1-2-3".to_owned())));
        assert_eq!(path_of("functions/a/instances"), None);
    }
}
