//! Where a request goes: to a function, by one of its names or by a route of a custom domain.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Uri};
use hyper::body::Incoming;
use kip_control::{Cell, Domain, HttpRule};
use kip_relay::Answer;
use kip_spec::function::HttpTrigger;
use kip_spec::model_name::NameRewrite;
use kip_spec::{Problem, QualifierName, RequestId, code};

use crate::admission::{Inbound, RequestHandler, bad};

/// Where a request goes.
pub(crate) struct Place {
    pub(crate) cell: Arc<Cell>,
    pub(crate) qualifier: Option<QualifierName>,
    pub(crate) target: Uri,
    pub(crate) prefix: Option<String>,
    /// What the name that was asked for does to the body.
    pub(crate) rewrite: Option<NameRewrite>,
    /// What was read of its body already.
    pub(crate) read: Bytes,
    /// The custom domain by whose name it came, with the methods that its route takes.
    pub(crate) domain: Option<(Arc<Domain>, Vec<String>)>,
}

impl Place {
    /// What holds for a request: who may call, and how, and whose policy of tokens is asked.
    pub(crate) fn rule(&self, method: &str) -> HttpRule {
        let declared = || HttpRule { http: Arc::new(self.cell.serving().spec.http.clone()), owner: None };
        let triggers = self.cell.http_triggers();
        let asked = || match &self.qualifier {
            // There is nothing to open: who may call the function is told so.
            Some(QualifierName::Alias(alias)) if !self.cell.has_alias(alias.as_str()) => None,
            asked => asked.as_ref(),
        };
        let own = triggers.map_or_else(declared, |triggers| triggers.rule(asked(), method));
        let Some((domain, methods)) = &self.domain else { return own };
        let mut http = HttpTrigger::clone(&own.http);
        http.auth = domain.auth.unwrap_or(http.auth);
        if !methods.is_empty() {
            http.methods = methods.clone();
        }
        if domain.cors.is_some() {
            http.cors = domain.cors.clone();
        }
        let owner = if domain.auth.is_some() { Some(format!("domain:{}", domain.name)) } else { own.owner };
        HttpRule { http: Arc::new(http), owner }
    }
}

impl RequestHandler {
    /// Where a request goes that came by the name of a custom domain.
    pub(crate) fn place_in(
        &self,
        domain: Arc<Domain>,
        own: Uri,
        request: &Request<Incoming>,
        id: &RequestId,
        inbound: &Inbound,
    ) -> Result<Place, Box<Answer>> {
        let refuse = |problem: Problem| Box::new(kip_relay::problem(problem, id));
        if domain.https_only && !self.origin(inbound, request.headers()).1 {
            let said = format!("`{}` is served over HTTPS only", domain.name);
            return Err(refuse(Problem::new(code::DOMAIN_PATH, said).hint("call it with https://")));
        }
        let path = own.path();
        let missing = || {
            let said = format!("`{}` has no route for {path}", domain.name);
            refuse(Problem::new(code::DOMAIN_PATH, said).hint("a route for `/*` takes every path"))
        };
        let route = domain.route(path).ok_or_else(missing)?;
        let gone = || {
            let said =
                format!("a route of `{}` leads to function `{}`, which is not there", domain.name, route.function);
            refuse(Problem::new(code::ROUTE_UNKNOWN_FUNCTION, said))
        };
        let cell = self.control.cell(&route.function).ok_or_else(gone)?;
        let query = own.query().map(|query| format!("?{query}")).unwrap_or_default();
        let target = format!("{}{query}", route.rewritten(path));
        let target =
            target.parse().map_err(|_| refuse(bad("its path cannot be rewritten by the rules of its domain")))?;
        let (qualifier, methods) = (route.qualifier.clone(), route.methods.clone());
        Ok(Place {
            cell,
            qualifier,
            target,
            prefix: None,
            rewrite: None,
            read: Bytes::new(),
            domain: Some((domain.clone(), methods)),
        })
    }
}
