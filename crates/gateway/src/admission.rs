//! One request: its id, its route, whether it may, and then the relay.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, LOCATION, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use kip_auth::{BodyHash, TokenClaims};
use kip_control::{Cell, Control, HttpRule};
use kip_relay::{Answer, Body, Call, Caller, Relay};
use kip_spec::function::{Cors, HttpAuth, HttpTrigger, Program};
use kip_spec::model_name::NameRewrite;
use kip_spec::origin::Names;
use kip_spec::qualifier::{QualifierError, split_name};
use kip_spec::{Problem, QualifierName, RequestId, code};
use kip_tasks::Tasks;

use crate::authorise::{Authority, Credential, Visibility, refused};
use crate::connection::fault::Fault;
use crate::connection::{Bounds, GuardedBody, REFUSED, State, is_host};
use crate::dialect::Dialect;
use crate::model::{self, ModelError};
use crate::model_names::{self, ModelNames, decoded};
use crate::origin;
use crate::place::Place;
use crate::rewrite;
use crate::route::{Route, is_ollama, route};

/// What a thread needs to answer requests.
#[derive(Debug)]
pub(crate) struct RequestHandler {
    pub(crate) control: Control,
    pub(crate) authority: Authority,
    pub(crate) relay: Relay,
    pub(crate) bounds: Bounds,
    /// Proxies whose word about callers is taken.
    pub(crate) proxies: Rc<[IpAddr]>,
    /// Names that we are called by, and pages that may call.
    pub(crate) names: Rc<Names>,
    /// What becomes of requests that nobody waits for.
    pub(crate) tasks: Tasks,
    /// Bytes that are kept to find models in, of all threads.
    pub(crate) searching: Arc<AtomicUsize>,
    /// Which functions have which further names.
    pub(crate) model_names: Rc<ModelNames>,
}

/// A function, and the qualifier with which it is called.
pub(crate) type CalledFunction = (Arc<Cell>, Option<QualifierName>);

/// Where a request came in.
#[derive(Debug, Clone)]
pub(crate) struct Inbound {
    pub(crate) peer: IpAddr,
    /// Over TLS.
    pub(crate) secure: bool,
    /// Callers need a key whatever their function says.
    pub(crate) keyed: bool,
    /// Shared with the guard of an HTTP/1 connection.
    pub(crate) state: Option<Arc<State>>,
}

impl RequestHandler {
    /// Answers a request.
    pub(crate) async fn answer(&self, inbound: Inbound, request: Request<Incoming>) -> Response<GuardedBody> {
        let id = request_id(request.headers());
        let state = inbound.state.clone();
        if request.method().as_str() == REFUSED {
            let fault = state.as_ref().and_then(|state| state.fault());
            let problem =
                fault.map_or_else(|| bad("its method is not taken here"), |fault| fault.problem(&self.bounds));
            let answer = kip_relay::problem(problem, &id);
            let line = state.as_ref().and_then(|state| state.line());
            let (method, target) = line.unwrap_or_else(|| ("-".to_owned(), "-".to_owned()));
            self.note_refusal((&method, &target), &answer, &id, inbound.peer);
            return Dialect::Native.render(answer).map(|body| GuardedBody::new(body, None, Version::HTTP_11));
        }
        let dialect = Dialect::of(&request);
        let version = request.version();
        let upgrade = kip_relay::asked_upgrade(&request).is_some();
        // Pages of other origins are few; all others cost one look.
        let page = request.headers().contains_key(ORIGIN).then(|| request.headers().clone());
        let (mut answer, trigger) = self.exchange(&inbound, request, &id).await;
        if let Some(state) = &state {
            // What was wrong with the body is known to the guard alone.
            if let Some(fault) = state.body_fault().filter(|_| answer.body().problem().is_some()) {
                answer = kip_relay::problem(fault.problem(&self.bounds), &id);
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            if upgrade {
                state.decide(answer.status() == StatusCode::SWITCHING_PROTOCOLS);
            }
        }
        if let Some(page) = page {
            let cors = trigger.as_ref().and_then(|trigger| trigger.cors.as_ref());
            origin::allow(&self.names, cors, &page, answer.headers_mut());
        }
        dialect.render(answer).map(|body| GuardedBody::new(body, state, version))
    }

    /// The answer, and what says who may call.
    async fn exchange(
        &self,
        inbound: &Inbound,
        mut request: Request<Incoming>,
        id: &RequestId,
    ) -> (Answer, Option<Arc<HttpTrigger>>) {
        // A target in absolute form replaces what Host says (RFC 9112, section 3.2.2), for the function too.
        let authority = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        if let Some(host) = authority {
            request.headers_mut().insert(HOST, host);
        }
        match self.admitted(&mut request, id, inbound).await {
            // What it asks for instead is refused there.
            Ok((call, trigger)) => {
                let is_task = kip_tasks::is_async(request.headers()).unwrap_or(true);
                let prefix = call.prefix.clone();
                let mut answer = match is_task {
                    true => Box::pin(self.submit(call, request, id)).await,
                    // hyper moves the future of each request several times, so it must be small.
                    false => Box::pin(self.relay.exchange(call, request)).await,
                };
                if let Some(prefix) = prefix {
                    origin::keep_to_own_path(answer.headers_mut(), &prefix);
                }
                (answer, Some(trigger))
            }
            Err(answer) => {
                let sent =
                    (request.method().as_str(), request.uri().path_and_query().map_or("/", |path| path.as_str()));
                self.note_refusal(sent, &answer, id, inbound.peer);
                // Who asked first whether to send anything is spared that.
                if !request.body().is_end_stream() && !request.headers().contains_key(EXPECT) {
                    Box::pin(kip_relay::take_rest(request.body_mut())).await;
                }
                (*answer, None)
            }
        }
    }

    async fn admitted(
        &self,
        request: &mut Request<Incoming>,
        id: &RequestId,
        inbound: &Inbound,
    ) -> Result<(Call, Arc<HttpTrigger>), Box<Answer>> {
        self.check_http2(request).map_err(|fault| Box::new(kip_relay::problem(fault.problem(&self.bounds), id)))?;
        // Before anything is told, or read of somebody's body.
        let sent = self.authority.look(request);
        if inbound.keyed && !origin::is_preflight(request) {
            self.authority.require_key(&sent, id)?;
        }
        let place = match self.place(request, &sent, id, inbound).await {
            // Who has no key is not told which functions there are.
            Err(_) if inbound.keyed && origin::is_preflight(request) => {
                return Err(Box::new(origin::preflight(&self.names, None, &[], request)));
            }
            place => place?,
        };
        let HttpRule { http, owner } = place.rule(origin::method(request));
        let token = self.check_token(owner.as_deref(), &place.target, &http, (request, &sent), id, inbound).await?;
        let rewrite = place.rewrite.clone();
        let mut call = self.admit(place, &http, (request, &sent, token.is_some()), id, inbound)?;
        // What follows CONNECT is no body: it ends with the WebSocket.
        if let Some(hash) = sent.body().filter(|_| request.method() != Method::CONNECT) {
            Box::pin(self.check_body(request, &mut call, hash)).await.map_err(|problem| refused(problem, id))?;
        }
        if let Some(rewrite) = rewrite {
            Box::pin(self.rewrite(request, &mut call, &rewrite)).await.map_err(|problem| refused(problem, id))?;
        }
        if let Some(claims) = token {
            call.target = claims.apply(request.headers_mut(), &call.target);
        }
        Ok((call, http))
    }

    /// What a token of the caller says, where a trigger asks for one and the caller has no key of ours.
    async fn check_token(
        &self,
        owner: Option<&str>,
        target: &Uri,
        http: &HttpTrigger,
        (request, sent): (&Request<Incoming>, &Credential),
        id: &RequestId,
        inbound: &Inbound,
    ) -> Result<Option<TokenClaims>, Box<Answer>> {
        let asked = http.auth == HttpAuth::Jwt && !inbound.keyed && !origin::is_preflight(request);
        if !asked || matches!(sent, Credential::Ours(_) | Credential::Signed(Ok(_))) {
            return Ok(None);
        }
        let Some(policy) = owner.and_then(|owner| self.authority.tokens(owner)) else { return Ok(None) };
        let headers = request.headers().clone();
        let check = Box::pin(policy.check(&headers, target));
        check.await.map(Some).map_err(|problem| refused(problem, id))
    }

    /// Finds out where a request goes, which may take a look at its body.
    async fn place(
        &self,
        request: &mut Request<Incoming>,
        sent: &Credential,
        id: &RequestId,
        inbound: &Inbound,
    ) -> Result<Place, Box<Answer>> {
        let refuse = |problem: Problem| Box::new(kip_relay::problem(problem, id));
        if request.method() == Method::CONNECT && kip_relay::asked_upgrade(request).is_none() {
            return Err(refuse(bad("CONNECT is not taken here")));
        }
        let own = request.uri().path_and_query().cloned().map(Uri::from).unwrap_or_default();
        let sight = sent.sight();
        let served = |model: &str| match self.served(model, &sight) {
            Some(found) => found.map_err(refuse),
            None => Err(self.unknown_model(model, sent, id)),
        };
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        if let Some(domain) = host.and_then(|host| self.control.domains().find(host)) {
            return self.place_in(domain, own, request, id, inbound);
        }
        let route = route(request.uri(), request.headers());
        if matches!(route, Route::Named | Route::Model { .. } | Route::Server) {
            // Before a body is read: what holds for all models alike.
            if origin::is_preflight(request) {
                return Err(Box::new(origin::preflight(&self.names, None, &[], request)));
            }
            self.check_page(request, (sent, false), None, inbound).map_err(refuse)?;
        }
        let mut rewrite = None;
        let ((cell, qualifier), target, prefix, read) = match route {
            Route::Host { label, target } => {
                let found = self.control.cell_by_host(&label);
                let found = found.ok_or_else(|| self.unknown(&label, (request, sent), id, inbound))?;
                (found, target, None, Bytes::new())
            }
            Route::Path { function, target, prefix } => {
                let found = match self.named(&function, &sight) {
                    Some(found) => found.map_err(refuse)?,
                    None => return Err(self.unknown(&function, (request, sent), id, inbound)),
                };
                (found, target, Some(prefix), Bytes::new())
            }
            Route::Proxy { service, function, target, prefix } => {
                let found = match self.of_service(&service, &function, &sight) {
                    Some(found) => found.map_err(refuse)?,
                    None => return Err(self.unknown(&function, (request, sent), id, inbound)),
                };
                (found, target, Some(prefix), Bytes::new())
            }
            Route::Model { rest } => {
                let parts = model_names::candidates(&rest).find(|part| self.served(&decoded(part), &sight).is_some());
                let part = parts.unwrap_or_else(|| rest.split('/').next().unwrap_or_default());
                let found = served(&decoded(part))?;
                rewrite = rewrite_of(&decoded(part), &found);
                let target = own_model(&own, part, &found, rewrite.as_ref());
                (found, target, None, Bytes::new())
            }
            Route::Named => {
                if let Some(answer) = self.model_list(request, &sight) {
                    return Err(answer.map_or_else(|model| self.unknown_model(&model, sent, id), Box::new));
                }
                let (read, mut model) = Box::pin(self.model_of(request)).await.map_err(refuse)?;
                // Without a tag, Ollama means this one.
                let plain = model.strip_suffix(":latest").filter(|_| is_ollama(own.path()));
                if let Some(plain) = plain.filter(|_| self.served(&model, &sight).is_none()) {
                    model = plain.to_owned();
                }
                let found = served(&model)?;
                rewrite = rewrite_of(&model, &found);
                (found, own, None, read)
            }
            Route::Server => return Err(Box::new(self.kserve_server(request, &sight, id))),
            Route::AddSlash { location } => return Err(Box::new(redirect(&location))),
            Route::Unknown => return Err(refuse(nothing_here(request.uri().path()))),
            Route::Bad(reason) => return Err(refuse(bad(reason))),
        };
        Ok(Place { cell, qualifier, target, prefix, rewrite, read, domain: None })
    }

    /// The function that serves a model: by its own name, by a further name of its model, or by one of these with a qualifier.
    pub(crate) fn served(&self, model: &str, sight: &Visibility) -> Option<Result<CalledFunction, Problem>> {
        let exact = || Some((self.model_names.find(&self.control, model)?, None));
        let qualified = || {
            let (name, Some(qualifier)) = split_name(model) else { return None };
            let cell = self.model_names.find(&self.control, name)?;
            Some((cell, Some(qualifier.parse().ok()?)))
        };
        if self.control.cell(model).is_none()
            && let Some(found) = exact().or_else(qualified)
        {
            return Some(Ok(found));
        }
        self.named(model, sight)
    }

    /// A function of a service, which may have a qualifier behind a point: `SERVICE-FUNCTION`, else the function of that name alone.
    fn of_service(&self, service: &str, function: &str, sight: &Visibility) -> Option<Result<CalledFunction, Problem>> {
        let (service, qualifier) = service.split_once('.').map_or((service, None), |(name, at)| (name, Some(at)));
        let qualified = |name: &str| qualifier.map_or_else(|| name.to_owned(), |at| format!("{name}@{at}"));
        let joined = format!("{service}-{function}");
        let name = if self.control.cell(&joined).is_some() { joined.as_str() } else { function };
        self.named(&qualified(name), sight)
    }

    /// A function and its qualifier by `ocr`, `ocr@prod` or, where a client has escaped it, `ocr%40prod`.
    fn named(&self, name: &str, sight: &Visibility) -> Option<Result<CalledFunction, Problem>> {
        if let Some(cell) = self.control.cell(name) {
            return Some(Ok((cell, None)));
        }
        let plain = name.replace("%40", "@");
        let (function, Some(qualifier)) = split_name(&plain) else { return None };
        let cell = self.control.cell(function)?;
        if !sight.sees(&cell) && qualifier.parse::<QualifierName>().is_err() {
            // What is wrong behind a name that the caller may not know is not told.
            return None;
        }
        let unreadable = |error: QualifierError| {
            Problem::new(code::VERSION_NOT_FOUND, error.to_string())
                .hint(format!("`kip version ls {function}` and `kip alias ls {function}` list what there is"))
        };
        Some(qualifier.parse().map(|qualifier| (cell, Some(qualifier))).map_err(unreadable))
    }

    /// A caller with a key of ours has shown that it is no page of elsewhere: such pages have none.
    fn check_page(
        &self,
        request: &Request<Incoming>,
        (sent, is_named): (&Credential, bool),
        cors: Option<&Cors>,
        inbound: &Inbound,
    ) -> Result<(), Problem> {
        match sent {
            sent if sent.key().is_some() => Ok(()),
            // From this machine, on which a browser may run.
            _ if inbound.peer.is_loopback() => origin::check(&self.names, cors, request, is_named),
            _ => Ok(()),
        }
    }

    /// The model that a request in the OpenAI style names, and what was read of its body to find out.
    async fn model_of(&self, request: &mut Request<Incoming>) -> Result<(Bytes, String), Problem> {
        // Who names it outside of the body spares us the search.
        if let Some(model) = request.uri().query().and_then(model::in_query) {
            return Ok((Bytes::new(), model));
        }
        let headers = std::mem::take(request.headers_mut());
        let (read, found) = model::find(&headers, request.body_mut(), &self.bounds, &self.searching).await;
        *request.headers_mut() = headers;
        let problem = |why: &str| {
            Problem::new(code::MODEL_NOT_NAMED, format!("the request {why}"))
                .hint("send a JSON object whose `model` is the name of a function; `kip ls` lists them")
        };
        match found {
            Ok(model) => Ok((read, model)),
            Err(ModelError::NotNamed) => Err(problem("names no model")),
            Err(ModelError::TooFar) => Err(problem("names no model in the first part of its body")
                .hint("put `model` before what is large, or raise limits.model in kipwake.toml")),
            Err(ModelError::NoRoom) => Err(Problem::new(
                code::MODEL_SEARCH_FULL,
                "too many large requests are being searched for the model they are for",
            )
            .hint("try again later, put `model` first in the body, or call the function by its own address: /f/{function}/v1/…")),
            Err(ModelError::Late) => Err(Fault::BodyLate.problem(&self.bounds)),
            Err(ModelError::BrokeOff) => Err(bad("its body broke off")),
            Err(ModelError::Encoding) => Err(problem("names no model that can be read: its body is compressed in a way that the gateway does not know, or not as it says")
                .hint("compress it as gzip, deflate, zstd or br, or name the model in the query: ?model=NAME")),
        }
    }

    /// Reads the rest of a body whose hash was signed, and compares it. Nothing of another one reaches the function.
    async fn check_body(
        &self,
        request: &mut Request<Incoming>,
        call: &mut Call,
        hash: &BodyHash,
    ) -> Result<(), Problem> {
        let read = std::mem::take(&mut call.read);
        let body =
            model::raw(read, request.body_mut(), &self.bounds, &self.searching).await.map_err(|error| match error {
                ModelError::Late => Fault::BodyLate.problem(&self.bounds),
                ModelError::BrokeOff => bad("its body broke off"),
                _ => {
                    let most = kip_spec::people::size(self.bounds.model as u64);
                    Problem::new(
                        code::BODY_TOO_LARGE,
                        format!(
                            "the hash of the body is signed, and a body of more than {most} is not kept to check it"
                        ),
                    )
                    .hint("sign the request without x-acs-content-sha256, or raise limits.model in kipwake.toml")
                }
            })?;
        if !hash.is_of(&body) {
            return Err(Problem::new(code::SIGNATURE_MISMATCH, "the body is not the one that was signed"));
        }
        call.read = body;
        Ok(())
    }

    /// Reads the rest of a body and changes it as the name says by which the function was called. A request without a body stays as it is.
    async fn rewrite(
        &self,
        request: &mut Request<Incoming>,
        call: &mut Call,
        rewrite: &NameRewrite,
    ) -> Result<(), Problem> {
        let read = std::mem::take(&mut call.read);
        if rewrite.changes_nothing() || (read.is_empty() && request.body().is_end_stream()) {
            call.read = read;
            return Ok(());
        }
        let headers = std::mem::take(request.headers_mut());
        let whole = model::whole(&headers, read, request.body_mut(), &self.bounds, &self.searching).await;
        *request.headers_mut() = headers;
        let body = whole.map_err(|error| self.rewrite_problem(error))?;
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let written = rewrite::rewritten(kind, &body, rewrite).ok_or_else(|| {
            Problem::new(
                code::MODEL_REWRITE,
                "the body is neither a JSON object nor a form, and its model's name changes it",
            )
            .hint("send a JSON object or multipart/form-data, or ask for the model by a name that changes nothing")
        })?;
        let headers = request.headers_mut();
        // They speak of the body as it came.
        for name in [CONTENT_ENCODING.as_str(), "content-md5", "digest", "content-digest"] {
            headers.remove(name);
        }
        headers.insert(CONTENT_LENGTH, HeaderValue::from(written.len()));
        call.read = Bytes::from(written);
        Ok(())
    }

    fn rewrite_problem(&self, error: ModelError) -> Problem {
        match error {
            ModelError::TooFar | ModelError::NoRoom | ModelError::NotNamed => {
                let most = kip_spec::people::size(self.bounds.model as u64);
                Problem::new(code::MODEL_REWRITE_LIMIT, "the body is too large to be changed as its model's name says")
                    .cause(format!("a body that is changed is kept whole, up to limits.model ({most}), and all of them together up to 8 times as much"))
                    .hint("ask for the model by a name that changes nothing, or raise limits.model in kipwake.toml")
            }
            ModelError::Late => Fault::BodyLate.problem(&self.bounds),
            ModelError::BrokeOff => bad("its body broke off"),
            ModelError::Encoding => Problem::new(code::MODEL_REWRITE, "the body is compressed in a way that is not known, or not as it says, or is larger than limits.model when it is not compressed")
                .hint("send it without compression, or as gzip, deflate, zstd or br"),
        }
    }

    /// What the guard asks of heads of HTTP/1 and h2 leaves open.
    fn check_http2(&self, request: &Request<Incoming>) -> Result<(), Fault> {
        if request.version() != Version::HTTP_2 {
            return Ok(());
        }
        let mut hosts = request.headers().get_all(HOST).iter();
        let (host, second) = (hosts.next(), hosts.next());
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        match (authority, host) {
            _ if second.is_some() => return Err(Fault::TwoHosts),
            (None, None) => return Err(Fault::NoHost),
            (Some(authority), Some(host)) if !authority.as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
                return Err(Fault::TwoHosts);
            }
            (authority, host) => {
                let named = authority.map_or_else(|| host.map_or(&b""[..], HeaderValue::as_bytes), str::as_bytes);
                if !is_host(named) {
                    return Err(Fault::Host);
                }
            }
        }
        if request.headers().get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
            return Err(Fault::TwoLengths);
        }
        if request.headers().len() > self.bounds.head.headers {
            return Err(Fault::TooManyHeaders);
        }
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        if target > self.bounds.head.target {
            return Err(Fault::TargetTooLong);
        }
        if request.body().size_hint().lower() > self.bounds.body {
            return Err(Fault::BodyTooLarge);
        }
        Ok(())
    }

    fn admit(
        &self,
        place: Place,
        http: &HttpTrigger,
        (request, sent, has_token): (&Request<Incoming>, &Credential, bool),
        id: &RequestId,
        inbound: &Inbound,
    ) -> Result<Call, Box<Answer>> {
        let Place { cell, qualifier, target, prefix, rewrite: _, read, domain } = place;
        let version = cell.serving();
        let refuse = |problem: Problem| Box::new(kip_relay::problem(problem, id));
        let needs_key = inbound.keyed || http.auth != HttpAuth::Anonymous;
        // An open function without a declaration answers preflights itself, as it always did.
        if origin::is_preflight(request) && (http.cors.is_some() || needs_key) {
            return Err(Box::new(origin::preflight(&self.names, http.cors.as_ref(), &http.methods, request)));
        }
        if !origin::is_preflight(request) {
            let is_named = domain.is_some();
            self.check_page(request, (sent, is_named), http.cors.as_ref(), inbound).map_err(refuse)?;
        }
        let caller = self.authorise(&cell, http, (request, sent, has_token), id, inbound.keyed)?;
        // Who may not call is not told that nobody may.
        cell.require_enabled().map_err(|error| refuse(error.into()))?;
        if version.spec.lifecycle.sleep.as_ref().is_some_and(|sleep| sleep.names(target.path())) {
            let message = format!("`{}` keeps this path for the server (lifecycle.sleep)", cell.name());
            return Err(refuse(Problem::new(code::ROUTE_UNKNOWN_PATH, message)));
        }
        if version.spec.job.is_some() && !kip_tasks::is_async(request.headers()).unwrap_or(true) {
            let problem =
                Problem::new(code::JOB_NOT_CALLED, format!("`{}` is a job, and answers no calls", cell.name()));
            let hint = "run it as a task: kip job run, or the header x-fc-invocation-type: Async";
            let mut answer = kip_relay::problem(problem.hint(hint), id);
            // No method is taken without that header (RFC 9110, section 15.5.6: the list may be empty).
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(""));
            return Err(Box::new(answer));
        }
        let (peer, secure) = self.origin(inbound, request.headers());
        let blame = inbound.state.clone().map(|state| state as Arc<dyn kip_relay::BodySource>);
        let largest_body = self.bounds.body;
        // The guard keeps the time of HTTP/1.
        let body_idle = inbound.state.is_none().then_some(self.bounds.body_idle);
        let exempt = http.exempts(target.path());
        Ok(Call {
            cell,
            qualifier,
            target,
            prefix,
            read,
            request: id.clone(),
            peer: Some(peer),
            secure,
            blame,
            largest_body,
            body_idle,
            caller,
            exempt,
        })
    }

    fn authorise(
        &self,
        cell: &Arc<Cell>,
        http: &HttpTrigger,
        (request, sent, has_token): (&Request<Incoming>, &Credential, bool),
        id: &RequestId,
        keyed: bool,
    ) -> Result<Option<Caller>, Box<Answer>> {
        let HttpTrigger { auth, methods, open_tasks, .. } = http;
        // A task outlives its caller: who has no key could fill the disk.
        let is_closed =
            *auth == HttpAuth::Anonymous && !open_tasks && kip_tasks::is_async(request.headers()).unwrap_or(true);
        let auth = if keyed || is_closed { HttpAuth::Key } else { *auth };
        // Before anything is told of the function.
        let key = match self.authority.authorise(auth, cell.name().as_str(), (sent, has_token), id) {
            Err(_) if is_closed && matches!(sent, Credential::Missing | Credential::Foreign) => {
                let name = cell.name();
                let problem = Problem::new(
                    code::KEY_MISSING,
                    format!("tasks of `{name}` need a key, and none was sent"),
                )
                .hint("send a key (`kip key create NAME`), or write `trigger: {http: {tasks: anonymous}}` in kip.yaml");
                return Err(refused(problem, id));
            }
            authorised => authorised?,
        };
        // A WebSocket over HTTP/2 is what a GET begins over HTTP/1.1.
        let method = if request.method() == Method::CONNECT { "GET" } else { request.method().as_str() };
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
        key.map(|key| self.authority.admit(&key, id)).transpose()
    }

    /// Who called, and whether nobody could read along: what a named proxy in front says, else what the connection says.
    pub(crate) fn origin(&self, inbound: &Inbound, headers: &HeaderMap) -> (IpAddr, bool) {
        if !self.proxies.contains(&inbound.peer) {
            return (inbound.peer, inbound.secure);
        }
        let last = |name: &str| {
            let value = headers.get_all(name).iter().next_back()?.to_str().ok()?;
            value.rsplit(',').next().map(str::trim).map(str::to_owned)
        };
        // The last entry is the proxy's own word; those before it are the caller's.
        let peer = last("x-forwarded-for").and_then(|text| text.parse().ok()).unwrap_or(inbound.peer);
        (peer, last("x-forwarded-proto").is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")))
    }

    fn unknown_model(&self, model: &str, sent: &Credential, id: &RequestId) -> Box<Answer> {
        let told = |told| Problem {
            code: code::MODEL_UNKNOWN,
            message: format!("no function serves a model `{model}`"),
            ..told
        };
        self.missing(model, sent, id, told)
    }

    fn unknown(
        &self,
        name: &str,
        (request, sent): (&Request<Incoming>, &Credential),
        id: &RequestId,
        inbound: &Inbound,
    ) -> Box<Answer> {
        // What is asked of a web page before its key must not tell one that needs a key from one that is not there.
        if self.control.any(needs_key) {
            if origin::is_preflight(request) {
                return Box::new(origin::preflight(&self.names, None, &[], request));
            }
            if let Err(problem) = self.check_page(request, (sent, false), None, inbound) {
                return Box::new(kip_relay::problem(problem, id));
            }
        }
        self.missing(name, sent, id, |told| told)
    }

    /// The answer for a name that no function has, by what the caller may know.
    fn missing(
        &self,
        name: &str,
        sent: &Credential,
        id: &RequestId,
        as_told: impl FnOnce(Problem) -> Problem,
    ) -> Box<Answer> {
        if let Err(answer) = self.authority.tell_unknown(name, sent, id, || self.control.any(needs_key)) {
            return answer;
        }
        let sight = sent.sight();
        let problem = Problem::new(code::ROUTE_UNKNOWN_FUNCTION, format!("there is no function `{name}`"));
        let problem = match self.control.require(split_name(name).0) {
            Err(kip_control::Error::NoFunction { nearest: Some(nearest), .. })
                if self.control.cell(&nearest).is_some_and(|cell| sight.sees(&cell)) =>
            {
                problem.hint(format!("did you mean `{nearest}`?"))
            }
            _ => problem.hint("`kip ls` lists the functions there are, `kip deploy` adds one"),
        };
        Box::new(kip_relay::problem(as_told(problem), id))
    }
}

fn needs_key(cell: &Cell) -> bool {
    cell.is_guarded()
}

/// The caller's id if it is fit for logs, else one of ours.
fn request_id(headers: &HeaderMap) -> RequestId {
    let sent = headers.get("x-request-id").and_then(|value| value.to_str().ok());
    sent.and_then(RequestId::parse).unwrap_or_else(|| RequestId::from_bits(kip_host::random::unique()))
}

/// What the name by which a function is called does to the request.
fn rewrite_of(name: &str, (cell, qualifier): &CalledFunction) -> Option<NameRewrite> {
    let version = cell.serving();
    let rewrites = &version.spec.rewrites;
    if rewrites.is_empty() {
        return None;
    }
    let plain = if qualifier.is_some() { split_name(name).0 } else { name };
    rewrites.get(name).or_else(|| rewrites.get(plain)).cloned()
}

/// A path in KServe's style with the name that the model's server knows. The built-in one knows its function's name, others what they
/// were started with; none knows qualifiers.
fn own_model(target: &Uri, part: &str, (cell, qualifier): &CalledFunction, rewrite: Option<&NameRewrite>) -> Uri {
    let is_built_in = matches!(cell.serving().spec.program, Program::Model { .. });
    let name = decoded(part);
    let upstream = rewrite.and_then(|rewrite| rewrite.model.as_deref());
    let escaped = upstream.map(kip_spec::escape::escaped);
    let own = match is_built_in {
        true => cell.name().as_str(),
        false if escaped.is_some() => escaped.as_deref().unwrap_or_default(),
        false if qualifier.is_some() => split_name(&name).0,
        false => return target.clone(),
    };
    let text = target.to_string();
    text.replacen(part, own, 1).parse().unwrap_or_else(|_| target.clone())
}

pub(crate) fn bad(reason: &str) -> Problem {
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
