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
use http::header::ORIGIN;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use hyper_util::rt::TokioIo;
use kip_auth::{Access, Key, Keys};
use kip_relay::exec::{self, Dialect, Session, SessionRecord, SessionTarget};
use kip_spec::{InstanceId, Problem, RequestId, code};
use kip_wire::{ExecStart, ExecTerminal, Role};
use parking_lot::Mutex;
use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::Role as Side;

use crate::Fc;
use crate::error::{FcError, FcResult};
use crate::query::{self, QueryFields, decoded};
use crate::request::qualifier;
use crate::serve::authenticate;

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
    fn the_path_names_function_and_instance() {
        assert_eq!(path_of("functions/a%2Fb/instances/1-2-3/exec"), Some(("a/b".to_owned(), "1-2-3".to_owned())));
        assert_eq!(path_of("functions/a/instances"), None);
    }
}
