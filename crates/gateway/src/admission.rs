//! One request: its id, its route, whether it may, and then the relay.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{ALLOW, HOST, LOCATION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use kip_control::{Cell, Control};
use kip_relay::{Answer, Body, Call, Caller, Relay};
use kip_spec::function::HttpTrigger;
use kip_spec::{Problem, RequestId, code};

use crate::authorise::Authority;
use crate::route::{Route, route};

/// What a thread needs to answer requests.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) control: Control,
    pub(crate) authority: Authority,
    pub(crate) relay: Relay,
}

impl Door {
    /// Answers a request.
    pub(crate) async fn answer(&self, peer: IpAddr, mut request: Request<Incoming>) -> Answer {
        // A target in absolute form replaces what Host says (RFC 9112, section 3.2.2), for the function too.
        let authority = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        let one_host = request.headers().get_all(HOST).iter().nth(1).is_none();
        if let Some(host) = authority.filter(|_| one_host) {
            request.headers_mut().insert(HOST, host);
        }
        let id = request_id(request.headers());
        match self.admit(&request, &id, peer) {
            Ok(call) => self.relay.exchange(call, request).await,
            Err(answer) => {
                self.note_refusal(&request, &answer, &id, peer);
                *answer
            }
        }
    }

    fn admit(&self, request: &Request<Incoming>, id: &RequestId, peer: IpAddr) -> Result<Call, Box<Answer>> {
        let refuse = |problem: Problem| Box::new(kip_relay::problem(problem, id));
        if request.method() == Method::CONNECT {
            return Err(refuse(bad("CONNECT is not taken here")));
        }
        let (cell, target, prefix) = match route(request.uri(), request.headers()) {
            Route::Host { label, target } => {
                let cell = self.control.cell_by_host(&label).ok_or_else(|| refuse(self.unknown(&label)))?;
                (cell, target, None)
            }
            Route::Path { function, target, prefix } => {
                let cell = self.control.cell(&function).ok_or_else(|| refuse(self.unknown(&function)))?;
                (cell, target, Some(prefix))
            }
            Route::AddSlash { location } => return Err(Box::new(redirect(&location))),
            Route::Unknown => return Err(refuse(nothing_here(request.uri().path()))),
            Route::Bad(reason) => return Err(refuse(bad(reason))),
        };
        let caller = self.authorise(&cell, request, id)?;
        Ok(Call { cell, target, prefix, request: id.clone(), peer: Some(peer), caller })
    }

    fn authorise(
        &self,
        cell: &Arc<Cell>,
        request: &Request<Incoming>,
        id: &RequestId,
    ) -> Result<Option<Caller>, Box<Answer>> {
        let version = cell.serving();
        let HttpTrigger { auth, methods } = &version.spec.http;
        let method = request.method().as_str();
        if !methods.is_empty() && !methods.iter().any(|allowed| allowed == method) {
            let allowed = methods.join(", ");
            let problem =
                Problem::new(code::ROUTE_METHOD, format!("function `{}` does not take {method}", cell.name()))
                    .hint(format!("it takes {allowed}; trigger.http.methods says so"));
            let mut answer = kip_relay::problem(problem, id);
            if let Ok(value) = HeaderValue::from_str(&allowed) {
                answer.headers_mut().insert(ALLOW, value);
            }
            return Err(Box::new(answer));
        }
        let caller = self.authority.authorise(*auth, cell.name().as_str(), request.headers(), id)?;
        if request.headers().contains_key(UPGRADE) && is_upgrade(request.headers()) {
            let problem =
                Problem::new(code::UPGRADE_NOT_YET, "connection upgrades such as WebSocket are not forwarded yet");
            return Err(Box::new(kip_relay::problem(problem, id)));
        }
        if request
            .headers()
            .get("x-fc-invocation-type")
            .is_some_and(|kind| kind.as_bytes().eq_ignore_ascii_case(b"async"))
        {
            let problem = Problem::new(code::ASYNC_NOT_YET, "asynchronous invocations are not taken yet")
                .hint("leave out the header x-fc-invocation-type to call synchronously");
            return Err(Box::new(kip_relay::problem(problem, id)));
        }
        Ok(caller)
    }

    fn unknown(&self, name: &str) -> Problem {
        let problem = Problem::new(code::ROUTE_UNKNOWN_FUNCTION, format!("there is no function `{name}`"));
        match self.control.require(name) {
            Err(kip_control::Error::NoFunction { nearest: Some(nearest), .. }) => {
                problem.hint(format!("did you mean `{nearest}`?"))
            }
            _ => problem.hint("`kip ls` lists the functions there are, `kip deploy` adds one"),
        }
    }
}

/// `Upgrade` without being named by `Connection` asks for nothing (RFC 9110, section 7.8).
fn is_upgrade(headers: &HeaderMap) -> bool {
    let named = headers.get_all(http::header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    named.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// The caller's id if it is fit for logs, else one of ours.
fn request_id(headers: &HeaderMap) -> RequestId {
    let sent = headers.get("x-request-id").and_then(|value| value.to_str().ok());
    sent.and_then(RequestId::parse).unwrap_or_else(|| RequestId::from_bits(kip_host::random::bits()))
}

fn bad(reason: &str) -> Problem {
    Problem::new(code::BAD_REQUEST, format!("the request is not acceptable: {reason}"))
}

fn nothing_here(path: &str) -> Problem {
    Problem::new(code::ROUTE_UNKNOWN_PATH, format!("the gateway has nothing at {path}"))
        .hint("functions are at /f/{function}/… and at http://{function}.localhost; `kip ls` lists them")
}

fn redirect(location: &str) -> Answer {
    let mut answer = Response::new(Body::text(""));
    *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
    if let Ok(value) = HeaderValue::from_str(location) {
        answer.headers_mut().insert(LOCATION, value);
    }
    answer
}
