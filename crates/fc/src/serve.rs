//! A request from its head to its answer: who calls, what is asked for, its body, the operation, the audit record.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, State};
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kip_auth::{Access, BodyHash, Key};
use kip_spec::{Problem, RequestId, code};

use crate::code_address;
use crate::error::{FcError, FcResult};
use crate::exec;
use crate::operations;
use crate::query::{QueryFields, decoded};
use crate::request::Request;
use crate::routes::{Match, Operation, Route, find};
use crate::sign::{self, Coverage};
use crate::signatures::{FC, Repetition, authorization, head_of, mismatch};
use crate::{Fc, PREFIX};

/// Bytes of an inline archive of 100 MiB as base64, with what is around it.
const LARGEST_CODE: usize = 144 << 20;
/// Bytes of a payload.
const LARGEST_PAYLOAD: usize = 32 << 20;
/// Bytes of any other body.
const LARGEST_BODY: usize = 1 << 20;
/// How long nothing of a body may come.
const BODY_IDLE: Duration = Duration::from_secs(60);

/// Serves any path below the prefix.
pub(crate) async fn serve(State(fc): State<Fc>, request: axum::extract::Request) -> Response {
    let id = RequestId::from_bits(kip_host::random::unique());
    let below = request.uri().path().strip_prefix(PREFIX).unwrap_or_default().trim_start_matches('/');
    if let Some(named) = exec::path_of(below).filter(|_| request.method() == http::Method::GET) {
        return exec::serve(&fc, &id, named, request).await;
    }
    let mut response = match handle(&fc, &id, request).await {
        Ok(response) => response,
        Err(error) => error.render(&id),
    };
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().entry("x-fc-request-id").or_insert(value);
    }
    response
}

async fn handle(fc: &Fc, id: &RequestId, request: axum::extract::Request) -> FcResult<Response> {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path().strip_prefix(PREFIX).unwrap_or_default().trim_start_matches('/').to_owned();
    // The address is the key: clients fetch code by a plain GET.
    if let Some(sha256) = path.strip_prefix(code_address::PATH) {
        return code_address::serve(fc, sha256, head.uri.query().unwrap_or_default()).await;
    }
    let admitted = admit(fc, &head, &path, id);
    if admitted.is_err() && !head.headers.contains_key(EXPECT) {
        // A caller that is still sending would lose the answer with the connection.
        kip_tasks::drain(&mut body).await;
    }
    let Admission { key, route, parameters } = admitted?;
    let (_upload, body) = receive(fc, route, &head.headers, body).await?;
    if is_signed(&head.headers) {
        let sent = head.headers.get(sign::CONTENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !BodyHash::new(sent).is_of(&body) {
            return Err(mismatch("the body is not the one that was signed").into());
        }
    }
    let peer = head.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let query = QueryFields::read(head.uri.query().unwrap_or_default());
    let Parts { headers, .. } = head;
    let request = Request { id: id.clone(), key, peer, parameters, query, headers, body };
    run(fc, route, request).await
}

/// A request whose caller may do what it asks for.
struct Admission {
    key: Arc<Key>,
    route: &'static Route,
    /// Decoded.
    parameters: Vec<String>,
}

/// Finds out who calls, what is asked for, and whether the caller may, before anything of a body is read.
fn admit(fc: &Fc, head: &Parts, path: &str, id: &RequestId) -> FcResult<Admission> {
    let key = authenticate(fc, head)?;
    let (route, parameters) = match find(&head.method, path) {
        Match::Route(route, parameters) => (route, parameters),
        Match::Refused(why) => return Err(FcError::refused(why)),
        Match::OtherMethod => {
            let message = format!("{} is not taken at {}", head.method, head.uri.path());
            return Err(FcError::new(code::API_METHOD, "PathNotSupported", message));
        }
        Match::Unknown => {
            let message = format!("there is nothing at {}", head.uri.path());
            return Err(FcError::new(code::API_UNKNOWN_PATH, "PathNotSupported", message));
        }
    };
    tracing::debug!(operation = route.name, key = %key.name(), request = id.as_str(), "API of Function Compute");
    let mut parameters: Vec<String> = parameters.iter().map(|part| decoded(part, false)).collect();
    if route.path.starts_with("functions/") {
        // `service$function` is how functions of services are shown; a name of ours has no such letter.
        parameters[0] = parameters[0].replacen('$', "-", 1);
    }
    let function = route.path.starts_with("functions/").then(|| parameters[0].clone());
    let access = Access { role: route.role, function: function.as_deref() };
    key.allows(access).map_err(Problem::from)?;
    Ok(Admission { key, route, parameters })
}

/// Carries out an operation. A change runs as a task of its own: a caller that leaves takes neither the change nor its record along.
async fn run(fc: &Fc, route: &'static Route, request: Request) -> FcResult<Response> {
    let Some(action) = route.action else { return operations::carry_out(fc, route.operation, &request).await };
    let fc = fc.clone();
    let work = async move {
        let peer = request.peer.map(|peer: IpAddr| peer.to_string()).unwrap_or_default();
        let object = match request.parameters.first() {
            Some(function) => function.clone(),
            None => operations::subject(&request),
        };
        let record = fc.keys.audit_begin(&request.key, action, &object, peer).await;
        let record = record.inspect_err(|error| tracing::error!(%error, action, object, "not in the audit record"));
        let done = operations::carry_out(&fc, route.operation, &request).await;
        let result = match &done {
            Ok(_) => "done".to_owned(),
            Err(error) => error.own.to_string(),
        };
        if let Ok(record) = record
            && let Err(error) = fc.keys.audit_end(record, object, result).await
        {
            tracing::error!(%error, "the result of a change is not in the audit record");
        }
        done
    };
    kip_store::detached("change through the API of Function Compute", work).await
}

fn is_signed(headers: &HeaderMap) -> bool {
    authorization(headers).is_some_and(|(scheme, _)| scheme == sign::SCHEME)
}

/// The key that a request is signed with, or that it brings.
pub(crate) fn authenticate(fc: &Fc, head: &Parts) -> FcResult<Arc<Key>> {
    match authorization(&head.headers) {
        Some((sign::SCHEME, parameters)) => {
            fc.signatures.acs3(&head_of(head), parameters, Coverage::Request).map_err(FcError::forbidden)
        }
        // The scheme leaves the command out of what it signs: each signature opens one session.
        Some((FC, parameters)) if is_exec(head) => {
            fc.signatures.scheme_fc(&head_of(head), parameters, Repetition::Once).map_err(FcError::forbidden)
        }
        Some(("acs" | FC, _)) => Err(FcError::denied(
            "this signature is of an earlier scheme; use ACS3-HMAC-SHA256, which current clients use by themselves",
        )),
        _ => {
            let sent = kip_auth::credential(&head.headers);
            if sent.is_none() {
                return Err(FcError::denied(
                    "the request has no Authorization: sign it with an access-key pair (kip key create NAME --access-key)",
                ));
            }
            fc.keys.check(sent).map_err(FcError::forbidden)
        }
    }
}

fn is_exec(head: &Parts) -> bool {
    let below = head.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    exec::path_of(below.trim_start_matches('/')).is_some()
}

/// Reads a body. Of those that may hold code, only few at a time.
async fn receive(
    fc: &Fc,
    route: &Route,
    headers: &HeaderMap,
    mut body: axum::body::Body,
) -> FcResult<(Option<tokio::sync::OwnedSemaphorePermit>, Bytes)> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let limit = match route.operation {
        Operation::CreateFunction | Operation::UpdateFunction | Operation::CreateLayerVersion => LARGEST_CODE,
        Operation::InvokeFunction => LARGEST_PAYLOAD,
        _ => LARGEST_BODY,
    };
    let too_large =
        || FcError::new(code::BODY_TOO_LARGE, "EntityTooLarge", format!("the body has more than {limit} bytes"));
    if declared.is_some_and(|declared| declared > limit) {
        if !headers.contains_key(EXPECT) {
            kip_tasks::drain(&mut body).await;
        }
        return Err(too_large());
    }
    let large = limit == LARGEST_CODE && declared.is_none_or(|declared| declared > LARGEST_BODY);
    let upload = if large { fc.turns.clone().acquire_owned().await.ok() } else { None };
    let mut body = Limited::new(body, limit);
    let mut bytes = Vec::new();
    loop {
        let frame = tokio::time::timeout(BODY_IDLE, body.frame()).await;
        let frame = frame.map_err(|_| FcError::invalid("nothing of the request's body arrived for a minute"))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => too_large(),
            None => FcError::invalid("the body of the request broke off"),
        })?;
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok((upload, bytes.into()))
}
