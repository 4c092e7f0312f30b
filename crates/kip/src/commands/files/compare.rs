//! What a deployment of a function would change: the function, its code, its triggers and its settings beside those of the server.

use kip_serverless::DeclaredFunction;
use kip_serverless::plan::Step;
use kip_spec::secret::masked;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::archive::Archive;
use super::server;
use crate::client::{Client, segment};

/// Values that a field goes back to when a file no longer has it.
const DEFAULTS: [(&str, &str); 12] = [
    ("timeout", "3"),
    ("instanceConcurrency", "1"),
    ("description", "\"\""),
    ("environmentVariables", "{}"),
    ("layers", "[]"),
    ("instanceLifecycleConfig", "{}"),
    ("gpuConfig", "{}"),
    ("logConfig", "{}"),
    ("nasConfig", "{}"),
    ("ossMountConfig", "{}"),
    ("vpcConfig", "{}"),
    ("role", "\"\""),
];

/// The plan of a function.
#[derive(Debug, Serialize)]
pub(crate) struct FunctionPlan {
    pub(crate) function: String,
    /// The configuration.
    pub(crate) configuration: Step,
    /// Whether code is sent.
    pub(crate) code: bool,
    /// What belongs to it.
    pub(crate) parts: Vec<PartPlan>,
    /// Triggers that the file does not have, which stay.
    pub(crate) other_triggers: Vec<String>,
    /// The whole configuration that is sent.
    #[serde(skip)]
    pub(crate) config: Map<String, Value>,
}

/// A trigger, an alias or a setting.
#[derive(Debug, Serialize)]
pub(crate) struct PartPlan {
    pub(crate) kind: PartKind,
    /// The name of a trigger or an alias, or the qualifier of a setting.
    pub(crate) name: String,
    pub(crate) step: Step,
    /// What is sent.
    #[serde(skip)]
    pub(crate) body: Value,
}

/// The kind of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PartKind {
    Alias,
    Trigger,
    AsyncInvokeConfig,
    ProvisionConfig,
    ScalingConfig,
    Concurrency,
    VpcBinding,
    Domain,
    Tags,
}

impl PartKind {
    /// For people.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Alias => "alias",
            Self::Trigger => "trigger",
            Self::AsyncInvokeConfig => "asynchronous calls",
            Self::ProvisionConfig => "provisioned instances",
            Self::ScalingConfig => "scaling",
            Self::Concurrency => "the most instances",
            Self::VpcBinding => "network",
            Self::Domain => "custom domain",
            Self::Tags => "tags",
        }
    }
}

impl FunctionPlan {
    pub(crate) fn is_nothing(&self) -> bool {
        self.configuration.is_nothing() && !self.code && self.parts.iter().all(|part| part.step.is_nothing())
    }

    /// Whether something that exists becomes another one.
    pub(crate) fn touches_existing(&self) -> bool {
        let is_new = matches!(self.configuration, Step::Create);
        !is_new
            && (self.configuration.touches_existing()
                || self.code
                || self.parts.iter().any(|part| part.step.touches_existing()))
    }
}

/// Values that look like secrets are not shown, neither before nor after.
fn masked_step(step: Step) -> Step {
    let Step::Change(mut changes) = step else { return step };
    for change in &mut changes {
        let Some(name) = change.path.strip_prefix("environmentVariables.").map(str::to_owned) else { continue };
        for value in [&mut change.from, &mut change.to] {
            if let Some(text) = value.as_str() {
                *value = masked(&name, text).into_owned().into();
            }
        }
    }
    Step::Change(changes)
}

/// Compares a function with the server.
pub(crate) async fn plan(
    client: &Client,
    function: &DeclaredFunction,
    archive: Option<&Archive>,
) -> anyhow::Result<FunctionPlan> {
    let name = function.name.as_str();
    let there = server::function(client, name).await?.map(|mut there| {
        // Answers have objects in the place of names.
        if let Some(layers) = there.get_mut("layers").and_then(Value::as_array_mut) {
            layers.iter_mut().filter(|layer| layer["arn"].is_string()).for_each(|layer| *layer = layer["arn"].take());
        }
        there
    });
    let mut config = function.config.clone();
    for (field, default) in DEFAULTS {
        let default: Value = serde_json::from_str(default)?;
        let differs = there.as_ref().and_then(|there| there.get(field)).is_some_and(|value| *value != default);
        if differs && !config.contains_key(field) {
            config.insert(field.to_owned(), default);
        }
    }
    let configuration = masked_step(Step::between(there.as_ref(), &config));
    let checksum = there.as_ref().and_then(|there| there.get("codeChecksum")).and_then(Value::as_str);
    let code = archive.is_some_and(|archive| checksum != Some(archive.checksum.as_str()));
    let mut parts = Vec::new();
    let changed = code || !configuration.is_nothing();
    for alias in &function.aliases {
        let path = server::path(name, &format!("/aliases/{}", segment(&alias.name)));
        let found = match &there {
            Some(_) => server::find(client, &path).await?,
            None => None,
        };
        let step = match (&found, &alias.version) {
            (None, _) => Step::Create,
            (Some(_), None) if changed => Step::Change(Vec::new()),
            (Some(_), None) => Step::Keep,
            (Some(found), Some(version)) => {
                let wanted = Map::from_iter([("versionId".to_owned(), version.as_str().into())]);
                Step::between(Some(found), &wanted)
            }
        };
        let body = json!({"aliasName": alias.name, "versionId": alias.version, "description": alias.description});
        parts.push(PartPlan { kind: PartKind::Alias, name: alias.name.clone(), step, body });
    }
    let triggers = match &there {
        Some(_) => server::triggers(client, name).await?,
        None => Vec::new(),
    };
    for trigger in &function.triggers {
        let mut wanted = trigger.other.clone();
        wanted.insert("triggerType".to_owned(), trigger.kind.as_str().into());
        wanted.insert("qualifier".to_owned(), trigger.qualifier.as_str().into());
        wanted.insert("triggerConfig".to_owned(), trigger.config.clone());
        let found = triggers.iter().find(|found| found["triggerName"] == trigger.name.as_str()).cloned();
        let found = found.map(|mut found| {
            // The vendor has an object as a text in JSON.
            if let Some(read) = found.get("triggerConfig").and_then(Value::as_str).map(serde_json::from_str::<Value>) {
                found.insert("triggerConfig".to_owned(), read.unwrap_or_default());
            }
            found
        });
        let step = Step::between(found.as_ref(), &wanted);
        let mut body = Value::from(wanted);
        body["triggerName"] = trigger.name.as_str().into();
        body["triggerConfig"] = trigger.config.to_string().into();
        parts.push(PartPlan { kind: PartKind::Trigger, name: trigger.name.clone(), step, body });
    }
    let named = |found: &Map<String, Value>| found["triggerName"].as_str().unwrap_or_default().to_owned();
    let is_other = |name: &String| !function.triggers.iter().any(|trigger| trigger.name == *name);
    let other_triggers = triggers.iter().map(named).filter(is_other).collect();
    settings(client, function, there.as_ref(), &mut parts).await?;
    for wanted in &function.domains {
        // Its routes are joined when it is sent: another function of the file may have changed it by then.
        let part = domain(client, name, wanted).await?;
        parts.push(PartPlan { body: wanted.clone().into(), ..part });
    }
    Ok(FunctionPlan { function: name.to_owned(), configuration, code, parts, other_triggers, config })
}

/// The custom domain of a function: its route is put among those of other functions.
pub(crate) async fn domain(client: &Client, function: &str, wanted: &Map<String, Value>) -> anyhow::Result<PartPlan> {
    let name = wanted["domainName"].as_str().unwrap_or_default().to_ascii_lowercase();
    let there = server::find(client, &crate::commands::domain::path(&name)).await?;
    let mut route = wanted.get("route").and_then(Value::as_object).cloned().unwrap_or_default();
    route.insert("functionName".to_owned(), function.into());
    let before = there.as_ref().and_then(|there| there.get("routeConfig")).map(|routes| routes["routes"].clone());
    let mut routes: Vec<Value> = before.and_then(|routes| routes.as_array().cloned()).unwrap_or_default();
    match routes.iter_mut().find(|other| other["path"] == route["path"]) {
        Some(other) => *other = route.into(),
        None => routes.push(route.into()),
    }
    let mut body = wanted.clone();
    body.remove("route");
    body.insert("domainName".to_owned(), name.as_str().into());
    body.insert("routeConfig".to_owned(), json!({"routes": routes}));
    // A private key is never shown, so it is no difference.
    let mut compared = body.clone();
    if let Some(certificate) = compared.get_mut("certConfig").and_then(Value::as_object_mut) {
        certificate.remove("privateKey");
    }
    let step = Step::between(there.as_ref(), &compared);
    Ok(PartPlan { kind: PartKind::Domain, name, step, body: body.into() })
}

async fn settings(
    client: &Client,
    function: &DeclaredFunction,
    there: Option<&Map<String, Value>>,
    parts: &mut Vec<PartPlan>,
) -> anyhow::Result<()> {
    let name = function.name.as_str();
    let mut wanted: Vec<(PartKind, &str, String, Value)> = Vec::new();
    if let Some((qualifier, body)) = &function.asynchronous {
        wanted.push((PartKind::AsyncInvokeConfig, "async-invoke-config", qualifier.clone(), body.clone()));
    }
    for (qualifier, body) in &function.provisions {
        wanted.push((PartKind::ProvisionConfig, "provision-config", qualifier.clone(), body.clone()));
    }
    if let Some(body) = &function.scaling {
        wanted.push((PartKind::ScalingConfig, "scaling-config", "LATEST".to_owned(), body.clone()));
    }
    if let Some(most) = function.concurrency {
        wanted.push((PartKind::Concurrency, "concurrency", String::new(), json!({"reservedConcurrency": most})));
    }
    for (kind, at, qualifier, body) in wanted {
        let path = server::path(name, &format!("/{at}?qualifier={}", segment(&qualifier)));
        let found = match there {
            Some(_) => server::find(client, &path).await?,
            None => None,
        };
        let fields = body.as_object().cloned().unwrap_or_default();
        // A target of nothing is as good as none.
        let says_nothing = kind == PartKind::ProvisionConfig && fields.values().all(|value| *value == json!(0));
        let is_there =
            found.as_ref().is_some_and(|found| found.get("target").is_some_and(|target| *target != json!(0)));
        let step = if says_nothing && !is_there { Step::Keep } else { Step::between(found.as_ref(), &fields) };
        // An object without a target stands for none.
        let step = match (step, found.as_ref().map(|found| found.contains_key("functionArn"))) {
            (Step::Change(_), Some(false)) => Step::Create,
            (step, _) => step,
        };
        parts.push(PartPlan { kind, name: qualifier, step, body });
    }
    for network in &function.networks {
        let bound = match there {
            Some(_) => client.get::<Value>(&server::path(name, "/vpc-bindings")).await?,
            None => Value::Null,
        };
        let is_bound = bound["vpcIds"].as_array().is_some_and(|ids| ids.contains(&json!(network)));
        let step = if is_bound { Step::Keep } else { Step::Create };
        parts.push(PartPlan {
            kind: PartKind::VpcBinding,
            name: network.clone(),
            step,
            body: json!({"vpcId": network}),
        });
    }
    if !function.tags.is_empty() {
        let list = there.and_then(|there| there.get("tags")).and_then(Value::as_array).cloned().unwrap_or_default();
        let own: Map<String, Value> = list
            .iter()
            .filter_map(|tag| {
                let key = tag["key"].as_str().or_else(|| tag["Key"].as_str())?;
                let value = if tag["value"].is_null() { &tag["Value"] } else { &tag["value"] };
                Some((key.to_owned(), value.clone()))
            })
            .collect();
        let wanted = function.tags.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
        let step = Step::between(there.map(|_| &own), &wanted);
        let body = function.tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        parts.push(PartPlan { kind: PartKind::Tags, name: String::new(), step, body });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kip_serverless::plan::FieldChange;

    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let change = |path: &str| FieldChange { path: path.to_owned(), from: "old".into(), to: "sk-123456".into() };
        let step = Step::Change(vec![change("environmentVariables.API_KEY"), change("environmentVariables.MODE")]);
        let Step::Change(changes) = masked_step(step) else { panic!("it is a change") };
        assert!(!changes[0].to.to_string().contains("123456"), "{changes:?}");
        assert_eq!(changes[1].from, "old");
    }
}
