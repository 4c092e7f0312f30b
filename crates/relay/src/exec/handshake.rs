//! The answer to a request for a WebSocket, and the connection behind it.

use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use kip_spec::{Problem, code};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Whether a request can open a session.
///
/// # Errors
/// It asks for no WebSocket, or for one of another version.
pub fn is_asked<B: Body>(request: &Request<B>) -> Result<(), Problem> {
    let refused = |cause: &str| {
        Problem::new(code::EXEC_REQUEST, "an exec session is a WebSocket, and the request asks for none")
            .cause(cause)
            .hint("use kip exec, or a client of WebSockets (RFC 6455, HTTP/1.1)")
    };
    if crate::upgrade::asked(request).is_none() {
        return Err(refused("it lacks `Connection: upgrade` and `Upgrade: websocket`"));
    }
    let headers = request.headers();
    let version = headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    if version != Some(b"13") || !headers.contains_key(SEC_WEBSOCKET_KEY) {
        return Err(refused("it lacks Sec-WebSocket-Key, or Sec-WebSocket-Version is not 13"));
    }
    Ok(())
}

/// The head of the answer that makes the connection a WebSocket. `protocol` is named in it if the client names it.
pub fn accept(headers: &HeaderMap, protocol: Option<&'static str>) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::try_from(derive_accept_key(key)) {
        answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    let named = |protocol: &str| {
        let lists = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        lists.into_iter().flat_map(|list| list.split(',')).any(|name| name.trim() == protocol)
    };
    if let Some(protocol) = protocol.filter(|protocol| named(protocol)) {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    response
}
