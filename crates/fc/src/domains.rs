//! Custom domains: host names whose paths lead to functions, with rules that change paths, authentication and certificates of their own.
//! Source of the interface: the shared reference on the FC 3.0 API, section 2, and the models of the official client.

use axum::response::Response;
use kip_auth::TokenPolicy;
use kip_control::{Domain, DomainRoute, LATEST, Rewrite};
use kip_host::clock::wall_millis;
use kip_host::tls::NamedCertificate;
use kip_spec::account::ACCOUNT;
use kip_spec::code;
use kip_spec::function::HttpAuth;
use kip_store::{Change, Object, Seq, StoredResource};
use serde_json::{Map, Value};

use crate::Fc;
use crate::config::object;
use crate::error::{FcError, FcResult};
use crate::query::{listed, page};
use crate::request::{Request, empty, json, qualifier, required, text, time};
use crate::triggers;

/// The kind of the resources.
const KIND: &str = "fc.domain";
/// Fields that are kept as they were sent.
const FIELDS: [&str; 8] =
    ["protocol", "routeConfig", "authConfig", "certConfig", "tlsConfig", "wafConfig", "corsConfig", "isE2B"];
/// Routes of a domain, and rules of a route, at most.
const MOST_ROUTES: usize = 100;
const MOST_RULES: usize = 50;
/// What stands in the place of a private key that is kept.
const SEALED: &str = "sealedPrivateKey";

fn invalid(said: impl Into<String>) -> FcError {
    FcError::new(code::DOMAIN_INVALID, "InvalidArgument", said)
}

fn missing(name: &str) -> FcError {
    FcError::new(code::DOMAIN_NOT_FOUND, "DomainNameNotFound", format!("domain name '{name}' does not exist"))
}

fn sealed_as(name: &str) -> String {
    format!("fc.domain/{name}")
}

fn owner(name: &str) -> String {
    format!("domain:{name}")
}

/// A name in lower case, with a star in the place of its first label perhaps.
fn check_name(name: &str) -> FcResult<String> {
    let name = name.to_ascii_lowercase();
    let plain = name.strip_prefix("*.").unwrap_or(&name);
    let fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_address = plain.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if name.len() <= 253 && plain.contains('.') && plain.split('.').all(fits) && !is_address {
        return Ok(name);
    }
    Err(invalid("domainName is a host name with a dot, such as shop.example.com or *.example.com"))
}

fn rules(rewrite: &Map<String, Value>) -> FcResult<Vec<Rewrite>> {
    type Maker = fn(&str, &str) -> Result<Rewrite, String>;
    // The vendor's order: the most special ones first.
    let kinds: [(&str, Maker); 3] =
        [("equalRules", Rewrite::equal), ("wildcardRules", Rewrite::wildcard), ("regexRules", Rewrite::regex)];
    let mut all = Vec::new();
    for (name, make) in kinds {
        let given = match rewrite.get(name) {
            None | Some(Value::Null) => continue,
            Some(Value::Array(given)) => given,
            Some(_) => return Err(invalid(format!("rewriteConfig.{name} is a list"))),
        };
        for rule in given {
            let part = |name: &str| rule[name].as_str().filter(|text| !text.is_empty() && text.len() <= 1_024);
            let pair = part("match").zip(part("replacement"));
            let (from, to) = pair.ok_or_else(|| invalid("a rule of rewriteConfig has match and replacement"))?;
            all.push(make(from, to).map_err(|said| invalid(format!("rewriteConfig.{name}: {said}")))?);
        }
    }
    if all.len() > MOST_RULES {
        return Err(invalid(format!("a route has at most {MOST_RULES} rules")));
    }
    Ok(all)
}

fn route(given: &Map<String, Value>) -> FcResult<DomainRoute> {
    let path = required(given, "path").map_err(|_| invalid("a route has a path, such as /* or /login"))?;
    let stars = path.matches('*').count();
    if !path.starts_with('/') || stars > 1 || (stars == 1 && !path.ends_with('*')) {
        return Err(invalid(format!("a path begins with `/` and may end with `*`, not `{path}`")));
    }
    let function = required(given, "functionName").map_err(|_| invalid("a route has a functionName"))?;
    let asked = text(given, "qualifier")?.filter(|text| !text.is_empty() && *text != LATEST);
    Ok(DomainRoute {
        path: path.to_owned(),
        function: function.to_owned(),
        qualifier: asked.map(qualifier).transpose()?,
        methods: triggers::methods(given)?,
        rewrites: object(given, "rewriteConfig")?.map(rules).transpose()?.unwrap_or_default(),
    })
}

/// A domain as it is to hold, with what it asks of tokens.
fn read(name: &str, config: &Map<String, Value>) -> FcResult<(Domain, Option<TokenPolicy>)> {
    let protocol = text(config, "protocol")?.unwrap_or("HTTP");
    if !["HTTP", "HTTPS", "HTTP,HTTPS"].contains(&protocol) {
        return Err(invalid("protocol is HTTP, HTTPS or HTTP,HTTPS"));
    }
    let routes = match object(config, "routeConfig")?.and_then(|routes| routes.get("routes")) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(routes)) if routes.len() <= MOST_ROUTES => routes
            .iter()
            .map(|one| route(one.as_object().ok_or_else(|| invalid("a route is an object"))?))
            .collect::<FcResult<_>>()?,
        Some(_) => return Err(invalid(format!("routeConfig.routes is a list of at most {MOST_ROUTES} routes"))),
    };
    let (mut auth, mut policy) = (None, None);
    if let Some(given) = object(config, "authConfig")? {
        auth = match text(given, "authType")?.unwrap_or_default() {
            "" => None,
            "anonymous" => Some(HttpAuth::Anonymous),
            "function" => Some(HttpAuth::Key),
            "jwt" => {
                policy = Some(triggers::token_policy(given.get("authInfo"))?);
                Some(HttpAuth::Jwt)
            }
            other => return Err(invalid(format!("authType is anonymous, function or jwt, not `{other}`"))),
        };
    }
    let cors = triggers::cors(config)?;
    Ok((Domain::new(name.to_owned(), routes, auth, cors, protocol == "HTTPS"), policy))
}

/// The certificate of a domain; its private key is kept sealed.
fn certificate(fc: &Fc, name: &str, config: &Map<String, Value>) -> FcResult<Option<NamedCertificate>> {
    let Some(given) = object(config, "certConfig")? else { return Ok(None) };
    let Some(chain) = text(given, "certificate")?.filter(|chain| !chain.is_empty()) else { return Ok(None) };
    let sealed = text(given, SEALED)?.unwrap_or_default();
    let key = fc.keys.reveal_text(&sealed_as(name), sealed);
    let key = key
        .ok_or_else(|| invalid("certConfig.privateKey is required; one that another seal key sealed is sent again"))?;
    let made = NamedCertificate::read(chain, key.reveal());
    made.map(Some).map_err(|said| invalid(format!("certConfig cannot be used: {said}")))
}

async fn stored(fc: &Fc) -> FcResult<Vec<(String, Map<String, Value>)>> {
    let all = fc.control.resources(KIND).await?;
    Ok(all.into_iter().filter_map(|one| Some((one.name, serde_json::from_str(&one.config).ok()?))).collect())
}

async fn find(fc: &Fc, name: &str) -> FcResult<Map<String, Value>> {
    let wanted = name.to_ascii_lowercase();
    let found = stored(fc).await?.into_iter().find(|(known, _)| *known == wanted);
    found.map(|(_, config)| config).ok_or_else(|| missing(name))
}

fn shown(name: &str, config: &Map<String, Value>) -> Value {
    let mut shown = config.clone();
    shown.insert("domainName".to_owned(), name.into());
    shown.insert("accountId".to_owned(), ACCOUNT.into());
    shown.insert("apiVersion".to_owned(), "2023-03-30".into());
    if let Some(Value::Object(certificate)) = shown.get_mut("certConfig") {
        certificate.remove(SEALED);
    }
    shown.into()
}

/// Takes what was sent into what is kept. The private key is sealed.
fn merge(fc: &Fc, name: &str, kept: &mut Map<String, Value>, given: &Map<String, Value>) -> FcResult<()> {
    for field in FIELDS {
        let Some(value) = given.get(field) else { continue };
        let mut value = value.clone();
        if field == "certConfig"
            && let Value::Object(certificate) = &mut value
        {
            certificate.remove(SEALED);
            let private = certificate.remove("privateKey").and_then(|key| key.as_str().map(str::to_owned));
            let before = kept
                .get("certConfig")
                .filter(|before| before["certificate"] == certificate.get("certificate").cloned().unwrap_or_default());
            let sealed = match private.filter(|key| !key.is_empty()) {
                Some(key) => {
                    Some(Value::from(fc.keys.seal_text(&sealed_as(name), &key).map_err(kip_spec::Problem::from)?))
                }
                None => before.and_then(|before| before.get(SEALED).cloned()),
            };
            certificate.extend(sealed.map(|sealed| (SEALED.to_owned(), sealed)));
        }
        kept.insert(field.to_owned(), value);
    }
    Ok(())
}

/// Checks a domain against the functions there are and the caller, stores it, and lets it hold.
async fn put(fc: &Fc, request: &Request, name: &str, mut config: Map<String, Value>, is_new: bool) -> FcResult<Value> {
    let (domain, policy) = read(name, &config)?;
    let routes = config.get("routeConfig").and_then(|routes| routes["routes"].as_array().cloned()).unwrap_or_default();
    for route in &routes {
        let function = route["functionName"].as_str().unwrap_or_default();
        request.require_function(function)?;
        fc.control.require(function)?;
    }
    let certificate = certificate(fc, name, &config)?;
    let now = time(wall_millis());
    if is_new {
        config.insert("createdTime".to_owned(), now.clone().into());
    }
    config.insert("lastModifiedTime".to_owned(), now.into());
    let object = Object::Resource(KIND.to_owned(), name.to_owned());
    let resource = StoredResource {
        kind: KIND.to_owned(),
        name: name.to_owned(),
        config: Value::from(config.clone()).to_string(),
        code: None,
        rev: Seq(0),
    };
    let mut author = request.author();
    // Whoever makes it in the same moment is not overwritten.
    author.if_match = is_new.then_some(Seq(0));
    let done = fc.control.change_resource(object, Change::PutResource(Box::new(resource)), author).await;
    done.map_err(FcError::from).map_err(|error| if error.own == code::STALE { exists(name) } else { error })?;
    fc.keys.tokens().set(&owner(name), policy);
    fc.certificates.set(name, certificate);
    fc.control.domains().put(domain);
    Ok(shown(name, &config))
}

fn exists(name: &str) -> FcError {
    FcError::new(code::DOMAIN_EXISTS, "DomainNameAlreadyExists", format!("domain name '{name}' already exists"))
}

pub(crate) async fn create(fc: &Fc, request: &Request) -> FcResult<Response> {
    let given = request.object()?;
    let name = check_name(required(&given, "domainName")?)?;
    if find(fc, &name).await.is_ok() {
        return Err(exists(&name));
    }
    // The gateway has names of its own below this one.
    if let Some(label) = name.strip_suffix(".localhost")
        && fc.control.cell_by_host(label).is_some()
    {
        return Err(invalid(format!("{name} is the name of function `{label}` already")));
    }
    let mut config = Map::new();
    merge(fc, &name, &mut config, &given)?;
    config.entry("protocol").or_insert_with(|| "HTTP".into());
    Ok(json(put(fc, request, &name, config, true).await?))
}

pub(crate) async fn get(fc: &Fc, request: &Request) -> FcResult<Response> {
    let name = request.parameter(0).to_ascii_lowercase();
    Ok(json(shown(&name, &find(fc, &name).await?)))
}

pub(crate) async fn update(fc: &Fc, request: &Request) -> FcResult<Response> {
    let name = request.parameter(0).to_ascii_lowercase();
    let mut config = find(fc, &name).await?;
    merge(fc, &name, &mut config, &request.object()?)?;
    Ok(json(put(fc, request, &name, config, false).await?))
}

pub(crate) async fn remove(fc: &Fc, request: &Request) -> FcResult<Response> {
    let name = request.parameter(0).to_ascii_lowercase();
    let config = find(fc, &name).await?;
    let routes = config.get("routeConfig").and_then(|routes| routes["routes"].as_array().cloned()).unwrap_or_default();
    for route in &routes {
        request.require_function(route["functionName"].as_str().unwrap_or_default())?;
    }
    let object = Object::Resource(KIND.to_owned(), name.clone());
    let change = Change::RemoveResource { kind: KIND.to_owned(), name: name.clone() };
    fc.control.change_resource(object, change, request.author()).await?;
    fc.control.domains().remove(&name);
    fc.certificates.set(&name, None);
    fc.keys.tokens().set(&owner(&name), None);
    Ok(empty())
}

pub(crate) async fn list(fc: &Fc, request: &Request) -> FcResult<Response> {
    let (rows, next) = page(stored(fc).await?, &request.query, |(name, _)| name.clone())?;
    let rows = rows.iter().map(|(name, config)| shown(name, config)).collect();
    Ok(json(listed("customDomains", rows, next)))
}

impl Fc {
    /// Lets the domains hold at the gateway, at a start. One that cannot be read is left out and said.
    pub(crate) async fn hold_domains(&self) -> FcResult<()> {
        for (name, config) in stored(self).await? {
            match read(&name, &config) {
                Ok((domain, policy)) => {
                    self.keys.tokens().set(&owner(&name), policy);
                    self.control.domains().put(domain);
                }
                Err(error) => tracing::warn!(name, error = error.message, "a custom domain does not hold"),
            }
            match certificate(self, &name, &config) {
                Ok(certificate) => self.certificates.set(&name, certificate),
                Err(error) => {
                    tracing::warn!(name, error = error.message, "the certificate of a custom domain is not used")
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(config: Value) -> Option<String> {
        read("a.example", config.as_object().unwrap()).err().map(|error| error.message)
    }

    #[test]
    fn names_are_host_names() {
        assert_eq!(check_name("Shop.Example.com").unwrap(), "shop.example.com");
        assert_eq!(check_name("*.example.com").unwrap(), "*.example.com");
        for wrong in ["", "localhost", "a b.c", "127.0.0.1", "a..b", "-a.b", "*.com*", "a.*.b", "http://a.b", "a.b:80"]
        {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn routes_and_rules_are_checked() {
        let routes = |route: Value| json!({"routeConfig": {"routes": [route]}});
        let rules = |rules: Value| routes(json!({"path": "/*", "functionName": "f", "rewriteConfig": rules}));
        assert_eq!(
            faults(routes(json!({"path": "/*", "functionName": "f", "qualifier": "prod", "methods": ["GET"]}))),
            None
        );
        assert_eq!(faults(rules(json!({"regexRules": [{"match": "^/a/(.*)", "replacement": "/$1"}]}))), None);
        assert_eq!(faults(json!({})), None, "a domain may have no routes yet");
        for wrong in [
            routes(json!({"functionName": "f"})),
            routes(json!({"path": "/*"})),
            routes(json!({"path": "a", "functionName": "f"})),
            routes(json!({"path": "/*/x", "functionName": "f"})),
            routes(json!({"path": "/*", "functionName": "f", "methods": ["GOT"]})),
            routes(json!({"path": "/*", "functionName": "f", "qualifier": "a b"})),
            rules(json!({"regexRules": [{"match": "(", "replacement": "/"}]})),
            rules(json!({"equalRules": [{"match": "/a"}]})),
            rules(json!({"wildcardRules": {}})),
            json!({"protocol": "FTP"}),
            json!({"authConfig": {"authType": "basic"}}),
            json!({"authConfig": {"authType": "jwt", "authInfo": "{}"}}),
            json!({"corsConfig": {"allowOrigins": "x"}}),
        ] {
            assert!(faults(wrong.clone()).is_some(), "{wrong}");
        }
    }
}
