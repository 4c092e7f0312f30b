//! The section `scaling`: which policy, and what it is set to.

use std::collections::BTreeMap;

use kip_spec::function::{Idle, Instances, Resources};
use kip_spec::scaling::provision::{Metric, Provision};
use kip_spec::scaling::{Auto, Class, Fc, IdleLimit, Kpa, Scaling};
use kip_spec::{Finite, Millis, Problem, code};
use serde_json::{Map, Number, Value};

use crate::report::{Report, shown};
use crate::section::{Field, Section};
use crate::tree::{Kind, Node};
use crate::value::{count, duration, refuse, word, wrong_type};
use crate::{keys, knative, limits, provision};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Fixed,
    Fc,
    Kpa,
    Auto,
}

/// Where nobody chose a mode, nobody waits for a start within so long: as long as `idle.stop` is by default.
const KEEP: Millis = Millis::from_secs(12 * 3_600);

/// Keys that only one mode has.
const OWN: [(&str, Mode, &str); 9] = [
    ("class", Mode::Auto, "auto"),
    ("keep", Mode::Auto, "auto"),
    ("annotations", Mode::Kpa, "kpa"),
    ("config", Mode::Kpa, "kpa"),
    ("provision", Mode::Fc, "fc"),
    ("period", Mode::Fc, "fc"),
    ("hold", Mode::Fc, "fc"),
    ("coefficient", Mode::Fc, "fc"),
    ("disable_ondemand", Mode::Fc, "fc"),
];

/// Reads the section; a policy with bounds of its own says how many instances there are.
pub(crate) fn read(
    function: &Section<'_>,
    resources: &Resources,
    (instances, idle): (Instances, Idle),
    report: &mut Report<'_>,
) -> (Scaling, Instances) {
    const WORDS: [(&str, Mode); 4] =
        [("fixed", Mode::Fixed), ("fc", Mode::Fc), ("kpa", Mode::Kpa), ("auto", Mode::Auto)];
    let Some(section) = function.section("scaling", &keys::SCALING, report) else {
        let settings = Auto { keep: KEEP, ..auto(function, Class::default(), idle, report) };
        return (Scaling::Auto(Box::new(settings)), instances);
    };
    let written = section.field("mode").and_then(|field| word(&field, &WORDS, &[], report));
    let mode = written.unwrap_or(Mode::Auto);
    // Functions may choose the mode for which `defaults` holds values.
    for (key, own, name) in OWN.iter().filter(|(_, own, _)| *own != mode && !section.is_partial) {
        if let Some(field) = section.field(key).filter(|field| !field.path.starts_with("defaults.")) {
            let problem = refuse(&field, code::MANIFEST_CONTRADICTION, format!("`{key}` is a key of mode `{name}`"));
            report.add(field.key_at, problem.hint(format!("write `mode: {name}`, or leave `{key}` out")));
        }
        debug_assert!(*own != Mode::Fixed);
    }
    match mode {
        Mode::Fixed => (Scaling::Fixed, instances),
        Mode::Auto => {
            const WORDS: [(&str, Class); 3] =
                [("economy", Class::Economy), ("balanced", Class::Balanced), ("latency", Class::Latency)];
            let class = section.field("class").and_then(|field| word(&field, &WORDS, &[], report)).unwrap_or_default();
            let keep = section.field("keep").and_then(|field| duration(&field, true, report));
            let floor = if written.is_some() { Millis(0) } else { KEEP };
            let keep = keep.unwrap_or(floor);
            (Scaling::Auto(Box::new(Auto { keep, ..auto(function, class, idle, report) })), instances)
        }
        Mode::Fc => match fc(&section, resources, instances.min, report) {
            Some(fc) => {
                // Where no maximum is written, what is provisioned has room.
                let bounds = function.section("instances", &keys::INSTANCES, report);
                let written = bounds.is_some_and(|bounds| bounds.field("max").is_some());
                let most = if written { 0 } else { fc.provision.most().min(limits::MOST_INSTANCES) };
                let instances = Instances { max: instances.max.max(most), ..instances };
                (Scaling::Fc(Box::new(fc)), instances)
            }
            None => (Scaling::Fixed, instances),
        },
        Mode::Kpa => match kpa(function, &section, instances, report) {
            Some(kpa) => {
                let instances = Instances { min: kpa.min_scale, max: kpa.max_scale, ..instances };
                (Scaling::Kpa(Box::new(kpa)), instances)
            }
            None => (Scaling::Fixed, instances),
        },
    }
}

fn invalid(field: &Field<'_>, errors: &[String], report: &mut Report<'_>) {
    for error in errors {
        let problem = Problem::new(code::SCALING_INVALID, format!("`{}`: {error}", field.path));
        report.add(field.node.at, problem.hint("try it with `kip scaler validate`"));
    }
}

/// A key of `idle` that is written holds; the policy chooses the others.
fn auto(function: &Section<'_>, class: Class, idle: Idle, report: &mut Report<'_>) -> Auto {
    let written = function.section("idle", &keys::IDLE, report);
    let limit = |key: &'static str, value: Option<Millis>| match written.as_ref().and_then(|idle| idle.field(key)) {
        None => IdleLimit::Chosen,
        Some(_) => value.map_or(IdleLimit::Never, IdleLimit::After),
    };
    Auto { class, pause: limit("pause", idle.pause), stop: limit("stop", idle.stop), keep: Millis(0) }
}

fn fc(section: &Section<'_>, resources: &Resources, min: u32, report: &mut Report<'_>) -> Option<Fc> {
    let before = report.count();
    let mut fc = Fc::new(Provision::default());
    if let Some(field) = section.field("provision") {
        match provision::read(&json(field.node)) {
            Ok(provision) => {
                unmeasured(&provision, resources, &field, report);
                fc.provision = provision;
            }
            Err(errors) => invalid(&field, &errors, report),
        }
    }
    if let Some(period) = section.field("period").and_then(|field| duration(&field, false, report)) {
        fc.period = period;
    }
    if let Some(hold) = section.field("hold").and_then(|field| count(&field, 1..=1_000, report)) {
        fc.hold = hold;
    }
    if let Some(field) = section.field("coefficient") {
        let number = match &field.node.kind {
            Kind::Number(text) => text.parse().ok().and_then(Finite::new),
            _ => None,
        };
        match number {
            Some(number) => fc.coefficient = number,
            None => wrong_type(&field, "a number above 0 and at most 1", report),
        }
    }
    if let Some(field) = section.field("disable_ondemand") {
        match field.node.kind {
            Kind::Flag(flag) => fc.disable_ondemand = flag,
            _ => wrong_type(&field, "true or false", report),
        }
    }
    for error in fc.check() {
        let key = ["period", "hold", "coefficient"].into_iter().find(|key| error.starts_with(key));
        if let Some(field) = key.and_then(|key| section.field(key)) {
            invalid(&field, &[error], report);
        }
    }
    let empty = fc.provision.default_target == 0
        && fc.provision.tracking.iter().all(|policy| policy.min == 0)
        && fc.provision.scheduled.iter().all(|action| action.target == 0);
    if let Some(field) = section.field("disable_ondemand").filter(|_| fc.disable_ondemand && empty && min == 0) {
        let message = format!("`{}`: nothing is provisioned, and no request starts an instance", field.path);
        let problem = Problem::new(code::SCALING_SERVES_NOTHING, message);
        report.warn(field.node.at, problem.hint("provision at least one, or leave `disable_ondemand` out"));
    }
    (report.count() == before).then_some(fc)
}

/// Policies that can be followed in part only, or not at all.
fn unmeasured(provision: &Provision, resources: &Resources, field: &Field<'_>, report: &mut Report<'_>) {
    for policy in &provision.tracking {
        let (name, metric) = (&policy.name, policy.metric.name());
        let (what, hint) = match policy.metric {
            Metric::GpuMemory if resources.gpu.is_none() => {
                ("the function declares no `resources.gpu` to measure against", "declare it, or follow another metric")
            }
            Metric::Cpu if resources.cpu.is_none() => {
                ("the function declares no `resources.cpu`: one CPU counts as all there is", "declare what it may use")
            }
            _ if policy.min == 0 => (
                "with `minCapacity` 0 nothing is left to measure at zero, and it stays there",
                "write `minCapacity: 1`",
            ),
            _ => continue,
        };
        let message = format!("`{}`: policy `{name}` follows {metric}; {what}", field.path);
        report.warn(field.node.at, Problem::new(code::SCALING_NOT_MEASURED, message).hint(hint));
    }
}

fn kpa(function: &Section<'_>, section: &Section<'_>, instances: Instances, report: &mut Report<'_>) -> Option<Kpa> {
    let mut texts = |key: &'static str| {
        let mut map = BTreeMap::new();
        for field in section.entries(key, report) {
            match field.node.scalar() {
                Some(text) => drop(map.insert(field.key.to_owned(), text.to_owned())),
                None => wrong_type(&field, "text or a number", report),
            }
        }
        map
    };
    let (annotations, config) = (texts("annotations"), texts("config"));
    let annotations = annotations.into_iter().map(|(key, value)| {
        if key.contains('/') { (key, value) } else { (format!("{}/{key}", knative::GROUP), value) }
    });
    let declared = knative::Declaration {
        annotations: annotations.collect(),
        config,
        container_concurrency: i64::from(instances.concurrency.hard.min(knative::MOST_CONCURRENCY)),
    };
    let place = section.field("annotations").or_else(|| section.field("config")).or_else(|| section.field("mode"))?;
    let resolved = match declared.resolve() {
        Ok(resolved) => resolved,
        Err(errors) => {
            invalid(&place, &errors, report);
            return None;
        }
    };
    if resolved.class != knative::KPA {
        let problem = Problem::new(
            code::SCALING_INVALID,
            format!("`{}`: class `{}` is not decided here", place.path, shown(&resolved.class)),
        );
        report.add(place.node.at, problem.hint(format!("leave `class` out, or write {}", knative::KPA)));
        return None;
    }
    for key in &resolved.unknown {
        let of_config = declared.config.contains_key(key);
        let field = section.field(if of_config { "config" } else { "annotations" });
        let (at, path) = field.as_ref().map_or((place.node.at, &place.path), |field| (field.node.at, &field.path));
        let mut problem = Problem::new(code::MANIFEST_UNKNOWN_KEY, format!("`{path}`: `{}` means nothing", shown(key)));
        if let Some(near) = knative::nearest(key) {
            problem = problem.hint(format!("did you mean `{near}`?"));
        }
        report.warn(at, problem);
    }
    let mut kpa = resolved.kpa;
    // The soft limit is what scaling aims at, unless a target says otherwise.
    let concurrency = instances.concurrency;
    let says = |key: &str| declared.says(key);
    if concurrency.soft < concurrency.hard
        && !says("target")
        && kpa.metric == kip_spec::scaling::kpa::Metric::Concurrency
    {
        let share = kpa.target.get() / kpa.total.get();
        let total = f64::from(concurrency.soft);
        (kpa.total, kpa.target) =
            (Finite::whole(concurrency.soft), Finite::constant((total * share).max(Kpa::LEAST_TARGET)));
    }
    // Knative's word for no limit; here there is one for everybody.
    if kpa.max_scale == 0 && says("max-scale") {
        kpa.max_scale = limits::MOST_INSTANCES;
    }
    let bounds = function.section("instances", &keys::INSTANCES, report);
    let bound = |key: &'static str| bounds.as_ref().and_then(|section| section.field(key));
    for (own, key, value, ours) in
        [("min-scale", "min", kpa.min_scale, instances.min), ("max-scale", "max", kpa.max_scale, instances.max)]
    {
        if let Some(field) = bound(key).filter(|_| says(own) && value != ours && !section.is_partial) {
            let problem =
                refuse(&field, code::MANIFEST_CONTRADICTION, format!("{ours} is not {own}, which is {value}"));
            report.add(field.node.at, problem.hint(format!("keep one of both: `{key}` or {own}")));
            return None;
        }
    }
    if !says("min-scale") {
        kpa.min_scale = kpa.min_scale.max(instances.min);
    }
    kpa.max_scale = match kpa.max_scale {
        0 => instances.max,
        max => max.min(limits::MOST_INSTANCES),
    };
    if kpa.min_scale > kpa.max_scale {
        let message = format!("min-scale, {}, is more than max-scale, {}", kpa.min_scale, kpa.max_scale);
        report.add(place.node.at, refuse(&place, code::MANIFEST_CONTRADICTION, message));
        return None;
    }
    Some(kpa)
}

/// A node as JSON, which is how provision input is read wherever it comes from.
fn json(node: &Node) -> Value {
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Flag(flag) => Value::Bool(*flag),
        Kind::Number(text) => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(number), _) => Value::Number(number.into()),
            (_, Ok(number)) => Number::from_f64(number).map_or_else(|| Value::String(text.clone()), Value::Number),
            _ => Value::String(text.clone()),
        },
        Kind::Text(text) => Value::String(text.clone()),
        Kind::List(items) => Value::Array(items.iter().map(json).collect()),
        Kind::Map(pairs) => {
            let pair = |(key, value): &(Node, Node)| (key.scalar().unwrap_or_default().to_owned(), json(value));
            Value::Object(pairs.iter().map(pair).collect::<Map<String, Value>>())
        }
    }
}
