//! Sessions in instances: a program that runs beside a function's own, over a WebSocket.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use hyper_util::rt::TokioIo;
use kip_auth::{Key, Keys};
use kip_control::ExecPlace;
use kip_relay::exec::{self, Dialect, Session, SessionRecord, SessionTarget};
use kip_spec::{InstanceId, QualifierName};
use kip_wire::{EXEC_PROTOCOL, ExecServerMessage, Role};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio_tungstenite::tungstenite::protocol::Role as Side;

use crate::error::ApiResult;
use crate::extract::{Path, Query};
use crate::guard::Requester;
use crate::{Api, bad_request};

/// Where a session is to be.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecQuery {
    /// In this instance; without one an instance is chosen, woken or started.
    instance: Option<String>,
    /// The version or alias whose instance is chosen; without one the version that serves.
    qualifier: Option<String>,
}

/// Answers with a WebSocket, over which a session is opened.
pub(crate) async fn exec(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
    Query(query): Query<ExecQuery>,
    mut request: Request,
) -> ApiResult<Response> {
    exec::is_asked(&request)?;
    let cell = api.control.require(&name)?;
    let instance = query.instance.map(|text| text.parse::<InstanceId>()).transpose();
    let instance = instance.map_err(|error| bad_request(error.to_string()))?;
    let qualifier = query.qualifier.map(|text| text.parse::<QualifierName>()).transpose();
    let qualifier = qualifier.map_err(|error| bad_request(error.to_string()))?;
    // Now, and not when its program starts: a client that says nothing takes a place as well.
    let place = api.control.exec_place()?;
    let target = SessionTarget { cell, qualifier, instance, operates: who.has_role(Role::Operate) };
    let record = who.session_record(api.keys.clone());
    let upgrade = hyper::upgrade::on(&mut request);
    let response = exec::accept(request.headers(), Some(EXEC_PROTOCOL)).map(|()| Body::empty());
    kip_host::tasks::spawn("exec session", async move {
        match upgrade.await {
            Ok(upgraded) => session(&api, TokioIo::new(upgraded), (place, target), record).await,
            Err(error) => tracing::debug!(%error, "a client left before its exec session began"),
        }
    });
    Ok(response)
}

async fn session(
    api: &Api,
    io: TokioIo<hyper::upgrade::Upgraded>,
    (place, target): (ExecPlace, SessionTarget),
    record: Arc<SessionAudit>,
) {
    let mut socket = exec::socket(io, Side::Server).await;
    let started = async {
        let start = tokio::select! {
            start = exec::start_of(&mut socket) => start?,
            // One that says nothing does not hold up the end of the server.
            _ = place.must_end() => return Err(kip_control::Error::ShuttingDown.into()),
        };
        let waits = async |instance: Option<InstanceId>| {
            let instance = instance.map(|instance| instance.to_string());
            exec::say(&mut socket, &ExecServerMessage::Waiting { instance }).await;
        };
        Session::open(&api.control, (place, target), start, record, waits).await
    };
    match started.await {
        Ok(session) => session.carry(socket, Dialect::Native).await,
        Err(problem) => exec::refuse(socket, problem).await,
    }
}

/// Sessions of a key in the audit record.
#[derive(Debug)]
pub(crate) struct SessionAudit {
    keys: Keys,
    key: Arc<Key>,
    peer: String,
    number: Mutex<Option<i64>>,
}

impl SessionAudit {
    pub(crate) fn new(keys: Keys, key: Arc<Key>, peer: String) -> Self {
        Self { keys, key, peer, number: Mutex::new(None) }
    }
}

#[async_trait]
impl SessionRecord for SessionAudit {
    async fn begin(&self, object: String) {
        match self.keys.audit_begin(&self.key, ACTION, &object, self.peer.clone()).await {
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

/// What sessions are called in the audit record.
pub(crate) const ACTION: &str = "function.exec";
