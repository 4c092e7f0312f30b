//! The path by which earlier clients call functions of services, on the listener of the API. The gateway serves it, under the authentication
//! of the function's triggers; here a request is passed on to it.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http_body_util::{BodyExt, Full, Limited};
use kip_host::http_client;
use kip_spec::{RequestId, code};

use crate::Fc;
use crate::error::{FcError, FcResult};
use crate::signatures::head_of;

/// Bytes of a request.
const LARGEST: usize = 32 << 20;

/// Passes a request on.
pub(crate) async fn pass(State(fc): State<Fc>, request: axum::extract::Request) -> Response {
    let id = RequestId::from_bits(kip_host::random::unique());
    match passed(&fc, request).await {
        Ok(response) => response,
        Err(error) => crate::legacy::render(error, &id),
    }
}

/// To the gateway, all that comes this way is of this machine. Who is not brings a key, as on the gateway's own listeners.
fn require_key_from_outside(fc: &Fc, head: &Parts) -> FcResult<()> {
    let peer = head.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip().to_canonical());
    let is_of_this_machine =
        peer.is_some_and(|peer| peer.is_loopback()) && !head.headers.contains_key("x-forwarded-for");
    if !is_of_this_machine {
        // The gateway takes a signature once.
        match fc.signatures.is_signed(&head_of(head)) {
            Some(signed) => signed.map_err(FcError::forbidden)?,
            None => drop(fc.keys.check(kip_auth::credential(&head.headers))?),
        }
    }
    Ok(())
}

async fn passed(fc: &Fc, request: axum::extract::Request) -> FcResult<Response> {
    let (mut head, body) = request.into_parts();
    require_key_from_outside(fc, &head)?;
    if head.headers.contains_key(UPGRADE) {
        let said = format!("a WebSocket is opened on the gateway: http://{}", fc.gateway);
        return Err(FcError::refused(said));
    }
    let read = Limited::new(body, LARGEST).collect().await;
    let read = read.map_err(|_| {
        let said = format!("the body broke off, or has more than {LARGEST} bytes");
        FcError::new(code::BODY_TOO_LARGE, "EntityTooLarge", said)
    })?;
    [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].into_iter().for_each(|name| drop(head.headers.remove(name)));
    head.version = http::Version::HTTP_11;
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str()).parse();
    head.uri = target.map_err(|_| FcError::invalid("the path cannot be read"))?;
    head.extensions = http::Extensions::new();
    let request = http::Request::from_parts(head, Full::new(read.to_bytes()));
    let answer = http_client::open(&fc.gateway.to_string(), request).await;
    let answer =
        answer.map_err(|error| FcError::new(code::INSTANCE_UNREACHABLE, "InternalServerError", error.to_string()))?;
    let (mut head, body) = answer.into_parts();
    [CONNECTION, TRANSFER_ENCODING].into_iter().for_each(|name| drop(head.headers.remove(name)));
    Ok(Response::from_parts(head, Body::new(body)).into_response())
}
