//! Triggers: stored and given back exactly. HTTP triggers hold at the gateway; timers make tasks; others are only stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::response::Response;
use kip_auth::TokenPolicy;
use kip_control::{HttpTriggers, LATEST, QualifiedTrigger};
use kip_host::clock::wall_millis;
use kip_spec::function::{Cors, HttpAuth, HttpTrigger, defaults};
use kip_spec::{FunctionName, Millis, code};
use kip_store::{Change, Object, Seq, StoredTrigger};
use serde_json::{Map, Value, json};

use crate::Fc;
use crate::arn;
use crate::config::{number, object, words};
use crate::error::{FcError, FcResult};
use crate::query::{listed, page};
use crate::request::{Request, empty, json, required, text, time};

/// Triggers of a function at most, as the vendor has it.
const MOST: usize = 50;
const TYPES: [&str; 8] = ["http", "timer", "oss", "log", "mns_topic", "cdn_events", "tablestore", "eventbridge"];
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"];
/// Fields of a trigger that are kept as they were sent.
const FIELDS: [&str; 4] = ["triggerConfig", "invocationRole", "sourceArn", "description"];

/// What is stored of a trigger beside its columns.
fn fields_of(trigger: &StoredTrigger) -> Map<String, Value> {
    serde_json::from_str(&trigger.config).unwrap_or_default()
}

/// The settings of a stored trigger; none that can be read are no settings.
pub(crate) fn settings_of_stored(trigger: &StoredTrigger) -> Map<String, Value> {
    settings_of(&fields_of(trigger)).unwrap_or_default()
}

fn shown(fc: &Fc, trigger: &StoredTrigger) -> Value {
    let mut shown = json!({
        "triggerName": trigger.name,
        "triggerType": trigger.kind,
        "triggerId": format!("{:08}", trigger.id),
        "qualifier": trigger.qualifier,
        "targetArn": arn::function(trigger.function.as_str(), Some(&trigger.qualifier)),
        "status": "Ready",
        "createdTime": time(trigger.created),
        "lastModifiedTime": time(trigger.changed),
    });
    if let Value::Object(all) = &mut shown {
        all.extend(fields_of(trigger));
        if trigger.kind == "http" {
            let at = if trigger.qualifier == LATEST { String::new() } else { format!("@{}", trigger.qualifier) };
            let url = format!("http://{}/f/{}{at}/", fc.gateway, trigger.function);
            all.insert("httpTrigger".to_owned(), json!({"urlInternet": url, "urlIntranet": url}));
        }
    }
    shown
}

/// The settings of a trigger, which clients send as a text in JSON.
fn settings_of(fields: &Map<String, Value>) -> FcResult<Map<String, Value>> {
    let wrong = || FcError::invalid("triggerConfig is an object, as a text in JSON");
    match fields.get("triggerConfig") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::String(text)) if text.is_empty() => Ok(Map::new()),
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|_| wrong()),
        Some(Value::Object(object)) => Ok(object.clone()),
        Some(_) => Err(wrong()),
    }
}

fn check(kind: &str, fields: &Map<String, Value>) -> FcResult<()> {
    let settings = settings_of(fields)?;
    match kind {
        "http" => http(&settings).map(drop),
        "timer" => crate::timers::Timer::read(&settings).map(drop),
        _ => Ok(()),
    }
}

/// Who may call over HTTP. A signed caller brings a key here.
fn http(settings: &Map<String, Value>) -> FcResult<HttpTrigger> {
    let auth = match text(settings, "authType")?.unwrap_or("anonymous") {
        "anonymous" => HttpAuth::Anonymous,
        "function" => HttpAuth::Key,
        "jwt" => {
            token_policy(settings.get("authConfig"))?;
            HttpAuth::Jwt
        }
        other => return Err(FcError::invalid(format!("authType is anonymous, function or jwt, not `{other}`"))),
    };
    let methods = methods(settings)?;
    let disabled = settings.get("disableURLInternet").and_then(Value::as_bool).unwrap_or(false);
    // Nobody on this machine is on the internet: with a key the function can still be called.
    let auth = if disabled { HttpAuth::Key } else { auth };
    // Of the vendor's functions, whoever may call one may also call it asynchronously.
    let open_tasks = auth == HttpAuth::Anonymous;
    Ok(HttpTrigger { auth, methods, open_tasks, cors: cors(settings)?, ..HttpTrigger::default() })
}

/// The methods that are taken.
pub(crate) fn methods(settings: &Map<String, Value>) -> FcResult<Vec<String>> {
    let methods = words(settings, "methods")?;
    match methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
        Some(other) => Err(FcError::invalid(format!("methods are {}, not `{other}`", METHODS.join(", ")))),
        None => Ok(methods),
    }
}

/// What is asked of tokens: an object, or a text with one in JSON.
pub(crate) fn token_policy(settings: Option<&Value>) -> FcResult<TokenPolicy> {
    let wrong = |said: String| FcError::new(code::JWT_CONFIG, "InvalidArgument", said);
    let read = match settings {
        Some(Value::Object(object)) => Some(object.clone()),
        Some(Value::String(text)) => serde_json::from_str(text).ok(),
        _ => None,
    };
    let read = read.ok_or_else(|| wrong("authConfig is an object with jwks, or a text with one in JSON".to_owned()))?;
    TokenPolicy::read(&read).map_err(|error| wrong(error.to_string()))
}

/// Which pages may call.
pub(crate) fn cors(settings: &Map<String, Value>) -> FcResult<Option<Cors>> {
    let Some(given) = object(settings, "corsConfig")?.filter(|given| !given.is_empty()) else { return Ok(None) };
    let origins = words(given, "allowOrigins")?;
    let credentials = given.get("allowCredentials").and_then(Value::as_bool).unwrap_or(false);
    if let Some(wrong) = origins.iter().find(|origin| *origin != "*" && !origin.contains("://")) {
        return Err(FcError::invalid(format!(
            "allowOrigins has origins such as https://app.example.com, or *, not `{wrong}`"
        )));
    }
    if credentials && origins.iter().any(|origin| origin == "*") {
        return Err(FcError::invalid("allowCredentials needs origins by name: browsers do not take * with it"));
    }
    let named = |name: &str| -> FcResult<Vec<String>> {
        let words = words(given, name)?;
        match words.iter().find(|word| *word != "*" && http::HeaderName::try_from(word.as_str()).is_err()) {
            Some(wrong) => Err(FcError::invalid(format!("{name}: `{wrong}` is no name of a header"))),
            None => Ok(words),
        }
    };
    // A star is what pages ask for.
    let headers = named("allowHeaders")?;
    let headers = if headers.iter().any(|header| header == "*") { Vec::new() } else { headers };
    let max_age = number(given, "maxAge", 0, 86_400)?.map_or(defaults::CORS_MAX_AGE, Millis::from_secs);
    Ok(Some(Cors { origins, headers, expose: named("exposeHeaders")?, credentials, max_age }))
}

async fn of(fc: &Fc, function: &str) -> FcResult<(FunctionName, Vec<StoredTrigger>)> {
    let name = fc.control.require(function)?.name().clone();
    let triggers = fc.control.triggers(Some(name.clone())).await?;
    Ok((name, triggers))
}

async fn find(fc: &Fc, request: &Request) -> FcResult<(FunctionName, StoredTrigger)> {
    let (name, triggers) = of(fc, request.function()).await?;
    let wanted = request.parameter(1);
    let found = triggers.into_iter().find(|trigger| trigger.name == wanted);
    let missing = || {
        let said = format!("trigger '{wanted}' does not exist in function '{name}'");
        FcError::new(code::TRIGGER_NOT_FOUND, "TriggerNotFound", said)
    };
    Ok((name.clone(), found.ok_or_else(missing)?))
}

fn kept(given: &Map<String, Value>) -> Map<String, Value> {
    FIELDS.iter().filter_map(|name| Some(((*name).to_owned(), given.get(*name)?.clone()))).collect()
}

async fn store(fc: &Fc, request: &Request, trigger: StoredTrigger) -> FcResult<Value> {
    let (function, name) = (trigger.function.clone(), trigger.name.clone());
    let object = Object::Trigger(function.clone(), name.clone());
    let change = Change::PutTrigger(Box::new(trigger));
    fc.control.change_kept(function.as_str(), object, change, request.author()).await?;
    fc.hold_http(&function).await?;
    fc.timers_changed();
    let stored = fc.control.triggers(Some(function)).await?.into_iter().find(|trigger| trigger.name == name);
    Ok(stored.map(|trigger| shown(fc, &trigger)).unwrap_or_default())
}

pub(crate) async fn create(fc: &Fc, request: &Request) -> FcResult<Response> {
    let given = request.object()?;
    let name = required(&given, "triggerName")?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.len() > 128
        || !name.bytes().all(fits)
        || name.starts_with(|first: char| first.is_ascii_digit() || first == '-')
    {
        return Err(FcError::invalid(
            "triggerName has 1 to 128 letters, digits, `_` or `-`, and does not begin with a digit or `-`",
        ));
    }
    let kind = required(&given, "triggerType")?;
    if !TYPES.contains(&kind) {
        return Err(FcError::invalid(format!("triggerType is set to an invalid value `{kind}`")));
    }
    let fields = kept(&given);
    check(kind, &fields)?;
    let (function, there) = of(fc, request.function()).await?;
    if there.iter().any(|trigger| trigger.name == name) {
        let said = format!("trigger '{name}' already exists in function '{function}'");
        return Err(FcError::new(code::TRIGGER_EXISTS, "TriggerAlreadyExists", said));
    }
    if there.len() >= MOST {
        return Err(FcError::invalid(format!("a function has at most {MOST} triggers")));
    }
    let qualifier = text(&given, "qualifier")?.filter(|text| !text.is_empty()).unwrap_or(LATEST);
    fc.view(function.as_str(), qualifier).await?;
    let now = wall_millis();
    let trigger = StoredTrigger {
        id: 0,
        function,
        name: name.to_owned(),
        kind: kind.to_owned(),
        qualifier: qualifier.to_owned(),
        config: Value::from(fields).to_string(),
        created: now,
        changed: now,
        rev: Seq(0),
    };
    Ok(json(store(fc, request, trigger).await?))
}

pub(crate) async fn get(fc: &Fc, request: &Request) -> FcResult<Response> {
    let (_, trigger) = find(fc, request).await?;
    Ok(json(shown(fc, &trigger)))
}

pub(crate) async fn update(fc: &Fc, request: &Request) -> FcResult<Response> {
    let given = request.object()?;
    let (_, trigger) = find(fc, request).await?;
    let mut fields = fields_of(&trigger);
    fields.extend(kept(&given));
    check(&trigger.kind, &fields)?;
    let qualifier = text(&given, "qualifier")?.filter(|text| !text.is_empty()).unwrap_or(&trigger.qualifier).to_owned();
    fc.view(request.function(), &qualifier).await?;
    let config = Value::from(fields).to_string();
    let trigger = StoredTrigger { qualifier, config, changed: wall_millis(), ..trigger };
    Ok(json(store(fc, request, trigger).await?))
}

pub(crate) async fn remove(fc: &Fc, request: &Request) -> FcResult<Response> {
    let (function, trigger) = find(fc, request).await?;
    let object = Object::Trigger(function.clone(), trigger.name.clone());
    let change = Change::RemoveTrigger { function: function.clone(), name: trigger.name };
    fc.control.change_kept(function.as_str(), object, change, request.author()).await?;
    fc.hold_http(&function).await?;
    fc.timers_changed();
    Ok(empty())
}

pub(crate) async fn list(fc: &Fc, request: &Request) -> FcResult<Response> {
    let (_, all) = of(fc, request.function()).await?;
    let (triggers, next) = page(all, &request.query, |trigger| trigger.name.clone())?;
    Ok(json(listed("triggers", triggers.iter().map(|trigger| shown(fc, trigger)).collect(), next)))
}

impl Fc {
    /// Lets the HTTP triggers of all functions hold at the gateway, at a start.
    pub(crate) async fn hold_http_triggers(&self) -> FcResult<()> {
        let _turn = self.trigger_turn.lock().await;
        let mut by_function: BTreeMap<FunctionName, Vec<StoredTrigger>> = BTreeMap::new();
        for trigger in self.control.triggers(None).await? {
            by_function.entry(trigger.function.clone()).or_default().push(trigger);
        }
        // Of the others too: a restore may have taken their triggers away.
        for name in self.control.function_names() {
            self.hold_read(&name, &by_function.remove(&name).unwrap_or_default());
        }
        Ok(())
    }

    /// Lets the HTTP triggers of a function hold, each for its own qualifier.
    async fn hold_http(&self, function: &FunctionName) -> FcResult<()> {
        // What is read last holds last.
        let _turn = self.trigger_turn.lock().await;
        let triggers = self.control.triggers(Some(function.clone())).await?;
        self.hold_read(function, &triggers);
        Ok(())
    }

    fn hold_read(&self, function: &FunctionName, triggers: &[StoredTrigger]) {
        let Some(cell) = self.control.cell(function.as_str()) else { return };
        let (mut held, mut policies) = (Vec::new(), Vec::new());
        for trigger in triggers.iter().filter(|trigger| trigger.kind == "http") {
            let settings = settings_of_stored(trigger);
            // One that cannot be read opens nothing.
            let mut http =
                http(&settings).unwrap_or_else(|_| HttpTrigger { auth: HttpAuth::Key, ..HttpTrigger::default() });
            // Its callers may ask for asynchronous calls too, as Function Compute lets them.
            http.open_tasks = http.auth == HttpAuth::Anonymous;
            let owner = format!("{}{}", owners(function.as_str()), trigger.name);
            if http.auth == HttpAuth::Jwt {
                policies.extend(token_policy(settings.get("authConfig")).ok().map(|policy| (owner.clone(), policy)));
            }
            if let Ok(qualifier) = trigger.qualifier.parse() {
                held.push(QualifiedTrigger { qualifier, http: Arc::new(http), owner });
            }
        }
        self.keys.tokens().replace(&owners(function.as_str()), policies);
        cell.set_http_triggers(HttpTriggers::new(held));
    }
}

/// How the owners of the policies of a function's triggers begin.
pub(crate) fn owners(function: &str) -> String {
    format!("trigger:{function}/")
}
