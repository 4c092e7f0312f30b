//! Between a request and its handler: the key it brings, whether its role and its functions allow this, and the audit record.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{Extension, FromRequestParts, Query, RawPathParams, Request, State};
use axum::http::header::{CONNECTION, ETAG, EXPECT, HOST, IF_MATCH, ORIGIN};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use kip_auth::{Access, Key, Keys};
use kip_host::clock::wall_millis;
use kip_spec::limiter::Slot;
use kip_spec::origin::{is_of_this_machine, is_own_page, name_of};
use kip_spec::{Code, Problem, code};
use kip_store::{Author, Seq};
use kip_tasks::tenant::TenantScope;
use kip_wire::Role;
use parking_lot::Mutex;
use serde::Serialize;

use crate::error::{ApiError, ApiResult};
use crate::exec::SessionAudit;
use crate::{Api, bad_request};

/// Refusals of one kind to one key are recorded once in so many milliseconds: a caller must not be able to fill the record.
const REFUSALS_APART: i64 = 60_000;

/// The name under which refusals of keys are counted that the server does not know. No key can have it.
pub(crate) const UNKNOWN_KEY: &str = "@unknown";

/// When a key was last refused something, by key, action and code.
pub(crate) type Refusals = HashMap<(u64, &'static str, Code), i64>;

/// The address that a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Who asks. Handlers that change something say here what that was.
#[derive(Debug, Clone)]
pub(crate) struct Requester {
    key: Arc<Key>,
    peer: IpAddr,
    object: Arc<Mutex<Option<String>>>,
    /// The revision that the caller read, by `If-Match`.
    if_match: Option<Seq>,
}

impl Requester {
    /// The functions that may be shown, if not all.
    pub(crate) fn only(&self) -> Option<Vec<String>> {
        self.key.only()
    }

    /// Whose the key is.
    pub(crate) fn tenant(&self) -> &str {
        self.key.tenant()
    }

    /// The tenants that the caller sees. `named` is the tenant that it asks for.
    pub(crate) fn tenant_scope(&self, named: Option<&str>) -> TenantScope {
        self.key.tenants(named)
    }

    /// The key's name.
    pub(crate) fn name(&self) -> &str {
        self.key.name()
    }

    /// Whether a function may be shown.
    pub(crate) fn sees(&self, function: &str) -> bool {
        self.key.sees(function)
    }

    /// Whether everything may be shown.
    pub(crate) fn sees_all(&self) -> bool {
        self.key.only().is_none()
    }

    /// Whether the caller is an administrator of the server.
    pub(crate) fn is_administrator(&self) -> bool {
        self.has_role(Role::Admin)
    }

    /// Whether the caller has a role.
    pub(crate) fn has_role(&self, role: Role) -> bool {
        self.key.allows(Access { role, function: None }).is_ok()
    }

    /// What keeps the record of the caller's sessions.
    pub(crate) fn session_record(&self, keys: Keys) -> Arc<SessionAudit> {
        Arc::new(SessionAudit::new(keys, self.key.clone(), self.peer.to_string()))
    }

    /// A text of ours about functions, in which those that may not be shown have no names.
    pub(crate) fn without_foreign(&self, api: &Api, text: &str) -> String {
        if self.sees_all() {
            return text.to_owned();
        }
        let hide = |(number, part): (usize, &str)| match number % 2 {
            0 => part.to_owned(),
            _ if !self.sees(part) && api.control.cell(part).is_some() => "another function".to_owned(),
            _ => format!("`{part}`"),
        };
        text.split('`').enumerate().map(hide).collect()
    }

    /// Whether a function may be touched by a caller whose role is this one at least.
    pub(crate) fn require_function(&self, function: &str) -> ApiResult<()> {
        let access = Access { role: Role::Invoke, function: Some(function) };
        Ok(self.key.allows(access).map_err(Problem::from)?)
    }

    /// The caller of a change.
    pub(crate) fn author(&self) -> Author {
        Author { by: self.name().to_owned(), if_match: self.if_match }
    }

    /// Names what a change is about, for the audit record.
    pub(crate) fn changes(&self, object: impl Into<String>) {
        *self.object.lock() = Some(object.into());
    }

    fn object(&self) -> Option<String> {
        self.object.lock().clone()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Requester {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let who = parts.extensions.get::<Self>().cloned();
        who.ok_or_else(|| Problem::new(kip_spec::code::KEY_MISSING, "a key is needed and none was sent").into())
    }
}

/// Lets a request with a key in, whatever its role: even what is not there is not shown without a key.
pub(crate) async fn authenticate(State(api): State<Api>, mut request: Request, next: Next) -> ApiResult<Response> {
    let peer = peer_of(&request);
    let sent = kip_auth::credential(request.headers());
    let key = match api.keys.check(sent) {
        Ok(key) => key,
        Err(problem) => {
            if sent.is_some() {
                api.metrics.key_refused(&UNKNOWN_KEY.into(), "unknown");
                tokio::time::sleep(api.failures.note(peer)).await;
            }
            // A caller without a key keeps no connection.
            let mut refused = ApiError::from(problem).into_response();
            refused.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return Ok(refused);
        }
    };
    let if_match = if_match(request.headers())?;
    request.extensions_mut().insert(Requester { key, peer, object: Arc::default(), if_match });
    Ok(next.run(request).await)
}

fn peer_of(request: &Request) -> IpAddr {
    request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip())
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

/// The name by which a request comes. A target in absolute form replaces what `Host` says.
fn host_of(request: &Request) -> Option<&str> {
    request.uri().authority().map(Authority::as_str).or_else(|| text(request.headers(), HOST))
}

/// A page of elsewhere has no business here, whatever key a browser may send for it, and at facades neither.
pub(crate) async fn refuse_foreign_page(request: Request, next: Next) -> ApiResult<Response> {
    let own = host_of(&request).unwrap_or_default();
    match text(request.headers(), ORIGIN).filter(|origin| !is_own_page(origin, own) && !is_of_this_machine(origin)) {
        None => Ok(next.run(request).await),
        Some(origin) => {
            Err(Problem::new(code::ORIGIN_REFUSED, format!("web pages of `{origin}` may not call the API"))
                .hint("call it from a program, or from a page that is served from this machine")
                .into())
        }
    }
}

/// A page whose own name was made to mean this machine sends no foreign `Origin`, but it comes by its name, and has no key.
pub(crate) async fn refuse_foreign_name(State(api): State<Api>, request: Request, next: Next) -> ApiResult<Response> {
    let foreign =
        host_of(&request).filter(|host| peer_of(&request).to_canonical().is_loopback() && !api.names.takes_host(host));
    match foreign {
        Some(host) if api.keys.check(kip_auth::credential(request.headers())).is_err() => {
            let name = name_of(host);
            Err(Problem::new(code::HOST_UNKNOWN, format!("this server is not called `{name}`"))
                .hint(format!(
                    "call it by its address, send a key, or allow the name in kipwake.toml: gateway.hosts = \"{name}\""
                ))
                .into())
        }
        _ => Ok(next.run(request).await),
    }
}

/// The revision in `If-Match`, as `ETag` gave it. `*` asks for any.
fn if_match(headers: &HeaderMap) -> ApiResult<Option<Seq>> {
    let Some(value) = headers.get(IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    match text.trim_matches('"').parse() {
        Ok(rev) => Ok(Some(Seq(rev))),
        Err(_) => Err(bad_request(format!("If-Match: `{text}` is not a revision: it is a number, as ETag gives it"))),
    }
}

/// An answer with the object's revision as `ETag`.
pub(crate) fn tagged<T: Serialize>(rev: Seq, answer: T) -> Response {
    ([(ETAG, format!("\"{rev}\""))], Json(answer)).into_response()
}

/// Changes of one object, which compare its revision if the caller names one.
pub(crate) const COMPARED: [&str; 15] = [
    "function.deploy",
    "function.remove",
    "function.rollback",
    "version.publish",
    "version.remove",
    "alias.put",
    "alias.remove",
    "rollout.start",
    "provision.put",
    "provision.remove",
    "key.change",
    "key.rotate",
    "key.remove",
    "secret.put",
    "secret.remove",
];

/// What one entry of the table asks for.
#[derive(Debug, Clone)]
pub(crate) struct RouteAccess {
    pub(crate) api: Api,
    pub(crate) role: Role,
    pub(crate) action: Option<&'static str>,
    pub(crate) of_function: bool,
    /// Fields of the query that need a higher role.
    pub(crate) flags: &'static [(&'static str, Role)],
    /// It gives a function work, which the limits of the key count.
    pub(crate) works: bool,
    /// It opens a session, which keeps its own record and goes on after the answer.
    pub(crate) session: bool,
}

/// Lets a request through to its handler if its key may, and keeps the audit record of what changes something.
pub(crate) async fn guard(
    State(gate): State<RouteAccess>,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    Extension(who): Extension<Requester>,
    request: Request,
    next: Next,
) -> Response {
    // A path that cannot be read is refused by the handler, which reads it too.
    let object = parameters.ok().and_then(|all| all.iter().next().map(|(_, value)| value.to_owned()));
    let function = object.as_deref().filter(|_| gate.of_function);
    let asked = gate.flags.iter().filter(|(name, _)| asks_for(request.uri(), name));
    let role = asked.map(|(_, role)| *role).max().unwrap_or(gate.role).max(gate.role);
    let allowed = who.key.allows(Access { role, function }).map_err(Problem::from);
    // Held until the answer is made.
    let place = if gate.works && allowed.is_ok() { gate.admit(&who.key) } else { Ok(None) };
    let (allowed, _place) = match place {
        Ok(place) => (allowed, place),
        Err(problem) => (Err(problem), None),
    };
    let named = function.filter(|_| !who.sees_all()).map(str::to_owned);
    let next = async |request| unhinted(next.run(request).await, named);
    let Some(action) = gate.action else {
        let Err(problem) = allowed else { return next(request).await };
        // Who asked first whether to send a body sends none now.
        if gate.works && !request.headers().contains_key(EXPECT) {
            kip_tasks::drain(&mut request.into_body()).await;
        }
        return ApiError::from(problem).into_response();
    };
    let object = object.unwrap_or_default();
    if let Err(problem) = allowed {
        gate.note_refusal(&who, action, object, problem.code).await;
        return ApiError::from(problem).into_response();
    }
    if who.if_match.is_some() && !COMPARED.contains(&action) {
        return bad_request("If-Match is not taken here: this is no change of one object").into_response();
    }
    if gate.session {
        return next(request).await;
    }
    // As a task of its own: a caller that leaves takes neither the change nor the end of its record along.
    let work = async move {
        let record = gate.begin(&who, action, &object).await;
        let response = next(request).await;
        let result = match response.extensions().get::<Code>() {
            Some(code) => code.to_string(),
            None if response.status().is_success() => "done".to_owned(),
            None => response.status().as_u16().to_string(),
        };
        gate.end(record, who.object().unwrap_or(object), result).await;
        response
    };
    kip_store::detached("change through the API", work).await
}

/// An answer that a function does not exist, without the names that are near: a key for some functions may not see them.
fn unhinted(response: Response, function: Option<String>) -> Response {
    match (response.extensions().get::<Code>(), function) {
        (Some(code), Some(name)) if *code == code::FUNCTION_NOT_FOUND => {
            ApiError::from(kip_control::Error::NoFunction { name, nearest: None }).into_response()
        }
        _ => response,
    }
}

/// Whether a query asks for something: it names the field, and does not say `false`. One that cannot be read is refused by the handler.
fn asks_for(uri: &Uri, field: &str) -> bool {
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default();
    pairs.iter().any(|(name, value)| name == field && value != "false")
}

impl RouteAccess {
    fn admit(&self, key: &Key) -> Result<Option<Slot>, Problem> {
        key.admit(|| kip_host::clock::monotonic_micros().saturating_mul(1_000)).map_err(|refusal| {
            self.api.metrics.key_refused(key.name(), refusal.limit);
            refusal.problem
        })
    }

    /// A change is not held up by a disk that takes no record of it: it is in the log at least.
    async fn begin(&self, who: &Requester, action: &str, object: &str) -> Option<i64> {
        let begun = self.api.keys.audit_begin(&who.key, action, object, who.peer.to_string()).await;
        begun
            .inspect_err(
                |error| tracing::error!(%error, key = %who.key.name(), action, object, "not in the audit record"),
            )
            .ok()
    }

    async fn end(&self, record: Option<i64>, object: String, result: String) {
        let Some(record) = record else { return };
        if let Err(error) = self.api.keys.audit_end(record, object, result).await {
            tracing::error!(%error, "the result of a change is not in the audit record");
        }
    }

    async fn note_refusal(&self, who: &Requester, action: &'static str, object: String, code: Code) {
        let now = wall_millis();
        {
            let mut refusals = self.api.refusals.lock();
            refusals.retain(|_, at| now - *at < REFUSALS_APART);
            if refusals.insert((who.key.id(), action, code), now).is_some() {
                return;
            }
        }
        let record = self.begin(who, action, &object).await;
        self.end(record, object, code.to_string()).await;
    }
}
