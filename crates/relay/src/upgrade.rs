//! Requests for another protocol: WebSocket, the HTTP/1.1 way (RFC 6455) and the HTTP/2 way (RFC 8441). Others are not
//! understood, and a request that asks for them is an ordinary one (RFC 9110, section 7.8).

use base64::Engine as _;
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use http::request::Parts as RequestHead;
use http::response::Parts as ResponseHead;
use http::{Method, Request, StatusCode, Version};
use http_body::Body;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// How a caller asked for a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebSocketRequest {
    /// `GET` with `Upgrade`.
    Http1,
    /// `CONNECT` with `:protocol`.
    Http2,
}

/// Whether a request asks for a WebSocket. The gateway's guard asks the same of its bytes.
pub fn asked<B: Body>(request: &Request<B>) -> Option<WebSocketRequest> {
    if request.version() == Version::HTTP_2 {
        let protocol = request.extensions().get::<hyper::ext::Protocol>()?;
        let wanted = request.method() == Method::CONNECT && protocol.as_str().eq_ignore_ascii_case("websocket");
        return wanted.then_some(WebSocketRequest::Http2);
    }
    let wanted = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && request.body().is_end_stream()
        && names_upgrade(request.headers())
        && names_websocket(request.headers());
    wanted.then_some(WebSocketRequest::Http1)
}

/// Whether a call is gRPC, which needs HTTP/2 to its end.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    // Not grpc-web, which is made for HTTP/1.1.
    kind.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Whether one of the `Upgrade` headers is WebSocket's.
pub(crate) fn names_websocket(headers: &HeaderMap) -> bool {
    headers.get_all(UPGRADE).iter().any(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket"))
}

/// `Upgrade` without being named by `Connection` asks for nothing (RFC 9110, section 7.8).
fn names_upgrade(headers: &HeaderMap) -> bool {
    let tokens = headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    tokens.into_iter().any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// Makes a request that is fit for the instance ask for a WebSocket, the HTTP/1.1 way.
pub(crate) fn ask(head: &mut RequestHead, asked: WebSocketRequest) {
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(UPGRADE, WEBSOCKET);
    if asked == WebSocketRequest::Http2 {
        head.method = Method::GET;
        let mut bits = [0u8; 16];
        kip_host::random::fill(&mut bits);
        let key = base64::engine::general_purpose::STANDARD.encode(bits);
        if let Ok(key) = HeaderValue::from_str(&key) {
            head.headers.insert(SEC_WEBSOCKET_KEY, key);
        }
    }
}

/// Makes the instance's consent fit for the caller.
pub(crate) fn accepted(head: &mut ResponseHead, asked: WebSocketRequest) {
    let extra: Vec<HeaderName> = match asked {
        WebSocketRequest::Http1 => Vec::new(),
        WebSocketRequest::Http2 => {
            head.status = StatusCode::OK;
            vec![SEC_WEBSOCKET_ACCEPT]
        }
    };
    crate::headers::strip_hop_by_hop(&mut head.headers);
    for name in extra {
        head.headers.remove(name);
    }
    if asked == WebSocketRequest::Http1 {
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, WEBSOCKET);
    }
}
