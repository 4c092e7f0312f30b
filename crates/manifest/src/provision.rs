//! Function Compute's provision input as JSON into a validated [`Provision`], and back out.

use kip_spec::Finite;
use kip_spec::scaling::provision::{
    FireTime, InactiveReason, MOST, Metric, Provision, ScheduledAction, Tracking, Window, shown,
};
use kip_spec::scaling::{Cron, zone};
use kip_wire::PolicyStatus;
use serde_json::{Map, Value, json};

const TARGETS: [&str; 2] = ["defaultTarget", "target"];
const TRACKING: &str = "targetTrackingPolicies";
const SCHEDULED: &str = "scheduledActions";
/// Of answers, which may come back as input.
const ANSWERS: [&str; 4] = ["current", "currentError", "functionArn", "qualifier"];
/// Policies and actions of one function.
const MOST_POLICIES: usize = 100;

/// Reads provision input: the whole of it, an object with policies alone, or a bare list of policies or actions. An error is
/// every problem found, each with its place.
pub fn read(input: &Value) -> Result<Provision, Vec<String>> {
    let mut errors = Vec::new();
    let provision = match input {
        Value::Array(items) => {
            let is_action = |item: &Value| item.get("scheduleExpression").is_some();
            let key = if items.iter().any(is_action) { SCHEDULED } else { TRACKING };
            whole(&Map::from_iter([(key.to_owned(), input.clone())]), &mut errors)
        }
        // As it stands in s.yaml.
        Value::Object(map) if map.len() == 1 && map.get("provisionConfig").is_some_and(Value::is_object) => {
            return read(&map["provisionConfig"]);
        }
        Value::Object(map) => whole(map, &mut errors),
        _ => {
            errors
                .push(format!("the input is {}: write an object with {TRACKING}, or a list of policies", kind(input)));
            Provision::default()
        }
    };
    if errors.is_empty() { Ok(provision) } else { Err(errors) }
}

fn whole(map: &Map<String, Value>, errors: &mut Vec<String>) -> Provision {
    let known = ["alwaysAllocateCPU", "alwaysAllocateGPU", TRACKING, SCHEDULED];
    let known: Vec<&str> = known.into_iter().chain(TARGETS).chain(ANSWERS).collect();
    let reader = Reader { map, place: String::new() };
    reader.only(&known, errors);
    // `target` is what it was called before; in answers it is the effective one.
    let both = TARGETS.map(|key| map.get(key));
    if both[0].is_some() && both[1].is_some() && both[0] != both[1] && !ANSWERS.iter().any(|key| map.contains_key(*key))
    {
        let [new, old] = both.map(|value| value.map(Value::to_string).unwrap_or_default());
        errors.push(format!("target: {old} is not defaultTarget, which is {new}: write one of both"));
    }
    let target = TARGETS.into_iter().find(|key| map.contains_key(*key));
    let default_target = target.map_or(0, |key| reader.count(key, errors).unwrap_or(0));
    let list = |key: &str, errors: &mut Vec<String>| match map.get(key) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) if items.len() <= MOST_POLICIES => items.clone(),
        Some(Value::Array(items)) => {
            errors.push(format!("{key}: {} are too many: {MOST_POLICIES} at most", items.len()));
            Vec::new()
        }
        Some(other) => {
            errors.push(format!("{key}: is {}: write a list", kind(other)));
            Vec::new()
        }
    };
    let mut names: Vec<String> = Vec::new();
    let mut each = |key: &str, errors: &mut Vec<String>, read: &mut dyn FnMut(&Reader<'_>, &mut Vec<String>)| {
        for (index, item) in list(key, errors).iter().enumerate() {
            let place = format!("{key}[{index}]");
            let Value::Object(map) = item else {
                errors.push(format!("{place}: is {}: write an object", kind(item)));
                continue;
            };
            let reader = Reader { map, place: format!("{place}.") };
            if let Some(name) = reader.text("name", errors) {
                if names.iter().any(|taken| taken == name) {
                    errors.push(format!("{place}.name: `{name}` is the name of another one too"));
                }
                names.push(name.to_owned());
            }
            read(&reader, errors);
        }
    };
    let (mut tracking, mut scheduled) = (Vec::new(), Vec::new());
    each(TRACKING, errors, &mut |reader, errors| tracking.extend(policy(reader, errors)));
    each(SCHEDULED, errors, &mut |reader, errors| scheduled.extend(action(reader, errors)));
    let always_allocate_cpu = reader.flag("alwaysAllocateCPU", errors).unwrap_or(true);
    let always_allocate_gpu = reader.flag("alwaysAllocateGPU", errors).unwrap_or(true);
    Provision { default_target, always_allocate_cpu, always_allocate_gpu, tracking, scheduled }
}

fn policy(reader: &Reader<'_>, errors: &mut Vec<String>) -> Option<Tracking> {
    const KEYS: [&str; 8] =
        ["name", "startTime", "endTime", "timeZone", "metricType", "metricTarget", "minCapacity", "maxCapacity"];
    reader.only(&KEYS, errors);
    let window = reader.window(errors);
    let place = &reader.place;
    let metric = reader.text("metricType", errors).and_then(|name| {
        let metric = Metric::ALL.into_iter().find(|metric| metric.name().eq_ignore_ascii_case(name));
        if metric.is_none() {
            let names = Metric::ALL.map(Metric::name).join(", ");
            errors.push(format!("{place}metricType: `{name}` is not known: write one of {names}"));
        }
        metric
    });
    let target = reader.number("metricTarget", errors).and_then(|target| {
        let ratio = target > 0.0 && target <= 1.0;
        if !ratio {
            errors.push(format!("{place}metricTarget: {target} is not a ratio above 0 and at most 1"));
        }
        Finite::new(target).filter(|_| ratio)
    });
    let (min, max) = (reader.count("minCapacity", errors), reader.count("maxCapacity", errors));
    let (min, max) = (min?, max?);
    if min > max {
        errors.push(format!("{place}minCapacity: {min} is more than maxCapacity, {max}"));
    }
    let name = reader.map.get("name")?.as_str()?.to_owned();
    Some(Tracking { name, window: window?, metric: metric?, target: target?, min, max })
}

fn action(reader: &Reader<'_>, errors: &mut Vec<String>) -> Option<ScheduledAction> {
    reader.only(&["name", "startTime", "endTime", "timeZone", "scheduleExpression", "target"], errors);
    let window = reader.window(errors);
    let target = reader.count("target", errors);
    let text = reader.text("scheduleExpression", errors)?;
    let inner = |word: &str| {
        let (name, rest) = text.trim().split_once('(')?;
        rest.strip_suffix(')').filter(|_| name.trim().eq_ignore_ascii_case(word))
    };
    let zone = window.as_ref().map_or_else(zone::utc, |window| window.zone().clone());
    let when = match (inner("cron"), inner("at")) {
        (_, Some(time)) => zone::moment(time.trim(), &zone).map(FireTime::At).map_err(|error| error.to_string()),
        (cron, None) => cron.unwrap_or(text).parse::<Cron>().map(FireTime::Cron).map_err(|error| error.to_string()),
    };
    let when = when.map_err(|error| errors.push(format!("{}scheduleExpression: {error}", reader.place))).ok();
    let name = reader.map.get("name")?.as_str()?.to_owned();
    Some(ScheduledAction { name, window: window?, when: when?, target: target? })
}

struct Reader<'a> {
    map: &'a Map<String, Value>,
    place: String,
}

impl<'a> Reader<'a> {
    fn only(&self, known: &[&str], errors: &mut Vec<String>) {
        for key in self.map.keys().filter(|key| !known.contains(&key.as_str())) {
            let like = known.iter().max_by(|a, b| strsim::jaro(a, key).total_cmp(&strsim::jaro(b, key)));
            let like = like.filter(|like| strsim::jaro(like, key) > 0.8);
            let hint = like.map(|like| format!(": did you mean `{like}`?")).unwrap_or_default();
            errors.push(format!("{}{key}: there is no such key{hint}", self.place));
        }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn needed(&self, key: &str, errors: &mut Vec<String>) -> Option<&'a Value> {
        let value = self.get(key);
        if value.is_none() {
            errors.push(format!("{}{key}: is missing", self.place));
        }
        value
    }

    fn text(&self, key: &str, errors: &mut Vec<String>) -> Option<&'a str> {
        let value = self.needed(key, errors)?;
        let text = value.as_str().filter(|text| !text.is_empty());
        if text.is_none() {
            let is = if value.as_str() == Some("") { "empty" } else { kind(value) };
            errors.push(format!("{}{key}: is {is}: write a text", self.place));
        }
        text
    }

    fn number(&self, key: &str, errors: &mut Vec<String>) -> Option<f64> {
        let value = self.needed(key, errors)?;
        let number = value.as_f64().or_else(|| value.as_str()?.parse().ok());
        if number.is_none() {
            errors.push(format!("{}{key}: is {}: write a number", self.place, kind(value)));
        }
        number
    }

    fn count(&self, key: &str, errors: &mut Vec<String>) -> Option<u32> {
        let value = self.needed(key, errors)?;
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        let count = number.and_then(|number| u32::try_from(number).ok()).filter(|count| *count <= MOST);
        if count.is_none() {
            errors.push(format!("{}{key}: {value} is not a whole number from 0 to {MOST}", self.place));
        }
        count
    }

    fn flag(&self, key: &str, errors: &mut Vec<String>) -> Option<bool> {
        let value = self.get(key)?;
        if !value.is_boolean() {
            errors.push(format!("{}{key}: is {}: write true or false", self.place, kind(value)));
        }
        value.as_bool()
    }

    fn window(&self, errors: &mut Vec<String>) -> Option<Window> {
        let name = self.get("timeZone").map_or(Some(""), Value::as_str).unwrap_or("?");
        let unbounded = Window::new(None, None, name);
        let unbounded = unbounded.map_err(|error| errors.push(format!("{}timeZone: {error}", self.place))).ok()?;
        let mut edge = |key: &str| -> Result<Option<i64>, ()> {
            let Some(value) = self.get(key).filter(|value| value.as_str() != Some("")) else { return Ok(None) };
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let moment = zone::moment(&text, unbounded.zone());
            moment.map(Some).map_err(|error| errors.push(format!("{}{key}: {error}", self.place)))
        };
        let (start, end) = (edge("startTime"), edge("endTime"));
        let (start, end) = (start.ok()?, end.ok()?);
        if let (Some(start), Some(end)) = (start, end)
            && start >= end
        {
            let (start, end) = (shown(start), shown(end));
            errors.push(format!("{}endTime: {end} is not after startTime, {start}", self.place));
        }
        Window::new(start, end, name).ok()
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Which policies and actions count at a moment, in the order of the input.
pub fn standing(provision: &Provision, wall: i64) -> Vec<PolicyStatus> {
    let standing = |name: &str, inactive: Option<InactiveReason>| {
        let why = inactive.map(|inactive| inactive.to_string());
        PolicyStatus { name: name.to_owned(), active: why.is_none(), why }
    };
    let tracking = provision.tracking.iter().map(|policy| standing(&policy.name, policy.window.outside(wall)));
    let actions = provision.scheduled.iter().enumerate();
    tracking.chain(actions.map(|(at, action)| standing(&action.name, provision.standing(at, wall).err()))).collect()
}

/// The input that reads as this.
pub fn write(provision: &Provision) -> Value {
    let window = |window: &Window| {
        let mut map = Map::new();
        let edges = [("startTime", window.start), ("endTime", window.end)];
        edges.into_iter().for_each(|(key, edge)| drop(edge.map(|at| map.insert(key.to_owned(), shown(at).into()))));
        if !window.zone_name().is_empty() {
            map.insert("timeZone".to_owned(), window.zone_name().into());
        }
        map
    };
    let with = |name: &str, rest: Map<String, Value>, more: Value| {
        let mut map = Map::from_iter([("name".to_owned(), name.into())]);
        map.extend(rest);
        map.extend(more.as_object().cloned().unwrap_or_default());
        Value::Object(map)
    };
    let tracking = provision.tracking.iter().map(|policy| {
        let (metric, target) = (policy.metric.name(), policy.target);
        let more =
            json!({"metricType": metric, "metricTarget": target, "minCapacity": policy.min, "maxCapacity": policy.max});
        with(&policy.name, window(&policy.window), more)
    });
    let scheduled = provision.scheduled.iter().map(|action| {
        let expression = match &action.when {
            FireTime::Cron(cron) => format!("cron({cron})"),
            FireTime::At(at) => format!("at({})", shown(*at)),
        };
        with(&action.name, window(&action.window), json!({"scheduleExpression": expression, "target": action.target}))
    });
    json!({
        "defaultTarget": provision.default_target,
        "alwaysAllocateCPU": provision.always_allocate_cpu,
        "alwaysAllocateGPU": provision.always_allocate_gpu,
        TRACKING: tracking.collect::<Vec<_>>(),
        SCHEDULED: scheduled.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy that is published as an example, of July 2024.
    fn july() -> Value {
        json!({
            "name": "demo", "startTime": "2024-07-01T16:00:00.000Z", "endTime": "2024-07-30T16:00:00.000Z",
            "metricType": "ProvisionedConcurrencyUtilization", "metricTarget": 0.3, "minCapacity": 0, "maxCapacity": 13,
        })
    }

    fn evening() -> Value {
        json!({
            "name": "evening", "startTime": "2024-07-01T00:00:00", "endTime": "2024-08-01T00:00:00",
            "timeZone": "Asia/Shanghai", "scheduleExpression": "cron(0 0 20 * * *)", "target": 5,
        })
    }

    #[test]
    fn all_forms_of_input() {
        let forms = [
            json!([july()]),
            json!({TRACKING: [july()]}),
            json!({"target": 1, TRACKING: [july()], SCHEDULED: [evening()]}),
        ];
        let read: Vec<Provision> = forms.iter().map(|form| read(form).expect("valid")).collect();
        assert_eq!([0, 1, 2].map(|at| read[at].tracking.len()), [1, 1, 1]);
        assert_eq!([0, 1, 2].map(|at| read[at].default_target), [0, 0, 1]);
        let action = &read[2].scheduled[0];
        assert_eq!(action.window.start.map(shown).as_deref(), Some("2024-06-30T16:00:00Z"));
        let again = super::read(&write(&read[2])).expect("what is written can be read");
        assert_eq!(again, read[2]);
        assert_eq!(super::read(&json!([evening()])).expect("valid").scheduled.len(), 1);
    }

    #[test]
    fn what_is_refused() {
        let changed = |base: Value, key: &str, value: Value| {
            let mut base = base;
            base[key] = value;
            base
        };
        let rows = [
            (json!([changed(july(), "metricType", json!("Luck"))]), "metricType: `Luck` is not known"),
            (json!([changed(july(), "metricTarget", json!(30))]), "metricTarget: 30 is not a ratio"),
            (json!([changed(july(), "minCapacity", json!(20))]), "minCapacity: 20 is more than maxCapacity, 13"),
            (json!([changed(july(), "endTime", json!("2024-06-01T00:00:00Z"))]), "is not after startTime"),
            (
                json!([changed(july(), "timeZone", json!("Mars/Olympus"))]),
                "timeZone: `Mars/Olympus` is not a time zone",
            ),
            (
                json!([changed(july(), "maxCapcity", json!(1))]),
                "maxCapcity: there is no such key: did you mean `maxCapacity`?",
            ),
            (json!([july(), july()]), "[1].name: `demo` is the name of another one too"),
            (json!([changed(evening(), "scheduleExpression", json!("cron(0 0 4 30 2 *)"))]), "never fires"),
            (json!([changed(evening(), "scheduleExpression", json!("at(soon)"))]), "`soon` is not a time"),
            (json!([changed(evening(), "target", json!(-1))]), "target: -1 is not a whole number"),
            (json!({"defaultTarget": 1, "target": 2}), "target: 2 is not defaultTarget, which is 1"),
            (json!({"provisionConfig": {"defaultTarget": -1}}), "defaultTarget: -1 is not a whole number"),
            (json!([changed(july(), "name", json!(""))]), "name: is empty: write a text"),
            (json!([changed(july(), "startTime", json!(1234))]), "startTime: `1234` is not a time"),
            (json!([changed(july(), "wholly", json!(1))]), "wholly: there is no such key"),
            (json!({"defaultTarget": 10_001}), "defaultTarget: 10001 is not a whole number from 0 to 10000"),
            (json!("demo"), "the input is a text"),
            (json!({TRACKING: {}}), "targetTrackingPolicies: is an object: write a list"),
        ];
        for (input, message) in rows {
            let errors = read(&input).expect_err(message).join("\n");
            assert!(errors.contains(message), "{input}: {errors}");
        }
    }
}
