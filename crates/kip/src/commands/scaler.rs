//! `kip scaler`: what a policy would do, by the code that decides in the server.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};

use kip_control::ScalingRecord;
use kip_fleet::scaler::fc::Tracker;
use kip_fleet::scaler::kpa::Kpa as KpaState;
use kip_fleet::scaler::session::{FcLine, FcSession, KpaLine, KpaSession};
use kip_manifest::{knative, provision};
use kip_spec::scaling::{Fc, Kpa};
use kip_spec::{Finite, Millis, Problem, code};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::arguments::{History, Lines, RecordArguments, Scaler};
use crate::client::{Client, segment};
use crate::output::Output;
use crate::problem::AlreadyPrinted;

pub(crate) fn run(command: &Scaler, output: Output) -> anyhow::Result<()> {
    match command {
        Scaler::Decide(lines) => decide(open(lines)?, &mut |line| output.data((line + "\n").as_bytes())),
        Scaler::Validate(lines) => {
            let mut valid = true;
            for value in serde_json::Deserializer::from_reader(open(lines)?).into_iter::<Value>() {
                let header = value.and_then(header);
                let header =
                    header.map_err(|error| invalid("the settings are not understood").cause(error.to_string()))?;
                let checked = header.check();
                valid &= checked.is_ok();
                output.line(&validated(checked), text)?;
            }
            if valid { Ok(()) } else { Err(AlreadyPrinted.into()) }
        }
        // It asks a server.
        Scaler::History(_) | Scaler::Record(_) | Scaler::Recording { .. } => Ok(()),
    }
}

/// What policies saw, so that it can be decided again; with `-o json` also what they decided.
pub(crate) async fn history(client: &Client, options: &History, output: Output) -> anyhow::Result<()> {
    let path = format!("/api/v1/functions/{}/scaling?limit={}", segment(&options.function), options.limit);
    let records: Vec<ScalingRecord> = client.get(&path).await?;
    let mut by_policy: BTreeMap<_, Vec<ScalingRecord>> = BTreeMap::new();
    for record in records.into_iter().rev() {
        let whose = (record.mode.clone(), record.version, record.qualifier.clone());
        by_policy.entry(whose).or_default().push(record);
    }
    by_policy.values().flatten().try_for_each(|record| output.line(record, |record| record.observation.to_string()))
}

/// Starts or ends the recording of a function's decisions.
pub(crate) async fn record(client: &Client, options: &RecordArguments, output: Output) -> anyhow::Result<()> {
    let path = format!("/api/v1/functions/{}/recording", segment(&options.function));
    let function = &options.function;
    if options.stop {
        client.remove(&path).await?;
        output.remark(&format!("{function} is not recorded any more"));
    } else {
        client.post_for_nothing(&path, &json!({})).await?;
        output.remark(&format!("{function} is recorded: `kip scaler recording {function}` prints what there is"));
    }
    Ok(())
}

/// Prints what was recorded, one JSON document.
pub(crate) async fn recording(client: &Client, function: &str, output: Output) -> anyhow::Result<()> {
    let found: Value = client.get(&format!("/api/v1/functions/{}/recording", segment(function))).await?;
    output.data((found.to_string() + "\n").as_bytes())
}

fn open(lines: &Lines) -> anyhow::Result<Box<dyn BufRead>> {
    if lines.file.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let name = lines.file.display();
    let file = std::fs::File::open(&lines.file);
    let file = file.map_err(|error| invalid(format!("{name} cannot be read")).cause(error.to_string()))?;
    Ok(Box::new(BufReader::new(file)))
}

fn invalid(message: impl Into<String>) -> Problem {
    Problem::new(code::SCALING_INVALID, message)
        .hint("docs/scaling.md, docs/scaling-kpa.md and docs/scaling-fc.md show the form of the lines")
}

/// The first line: which policy, and how it is set.
#[derive(Debug, Deserialize)]
#[serde(tag = "policy", rename_all = "lowercase", deny_unknown_fields)]
enum Header {
    Kpa {
        #[serde(default)]
        annotations: serde_json::Map<String, Value>,
        #[serde(default)]
        config: serde_json::Map<String, Value>,
        #[serde(default)]
        container_concurrency: i64,
        #[serde(default)]
        initial_ready: u32,
        #[serde(default = "yes")]
        reachable: bool,
        /// When the scaler is made.
        #[serde(default)]
        t_ms: u64,
        /// The version was never up before, so that its first scale counts.
        #[serde(default = "yes")]
        fresh: bool,
        /// Settings as the server resolved them, instead of annotations and config.
        settings: Option<Box<Kpa>>,
        /// What the server remembered at that time: it goes on from there.
        state: Option<Box<KpaState>>,
    },
    Fc {
        #[serde(default)]
        provision: Value,
        #[serde(default = "one")]
        concurrency: u32,
        period_ms: Option<u64>,
        hold: Option<u32>,
        coefficient: Option<f64>,
        /// What tracking policies begin with, instead of what there is.
        begin: Option<u32>,
        /// Settings as the server has them, instead of all the above.
        settings: Option<Box<Fc>>,
        /// What the server remembered at that time: it goes on from there.
        state: Option<Box<Tracker>>,
        /// For `validate`: the time that is asked about.
        t: Option<String>,
    },
}

const fn yes() -> bool {
    true
}

const fn one() -> u32 {
    1
}

/// Settings; which policy they are for may be left out, for only one of both has a provision.
fn header(mut value: Value) -> serde_json::Result<Header> {
    let policy = if value.get("provision").is_some() { "fc" } else { "kpa" };
    if let Some(map) = value.as_object_mut() {
        map.entry("policy").or_insert_with(|| policy.into());
    }
    serde_json::from_value(value)
}

enum CheckOutcome {
    Kpa(Box<knative::ResolvedSettings>),
    Fc(Fc),
}

impl Header {
    fn check(&self) -> Result<Value, Vec<String>> {
        match self.resolve()? {
            CheckOutcome::Kpa(resolved) => Ok(knative::shown(&resolved)),
            CheckOutcome::Fc(fc) => {
                let (period, hold, coefficient) = (fc.period, fc.hold, fc.coefficient);
                let wall = self.wall()?;
                let standing = wall.map(|wall| provision::standing(&fc.provision, wall));
                let mut shown = json!({"period": period, "hold": hold, "coefficient": coefficient});
                shown["provision"] = provision::write(&fc.provision);
                if let Some(standing) = standing {
                    shown["policies"] = json!(standing);
                }
                Ok(shown)
            }
        }
    }

    fn wall(&self) -> Result<Option<i64>, Vec<String>> {
        let Self::Fc { t: Some(text), .. } = self else { return Ok(Some(kip_host::clock::wall_millis())) };
        let zone = kip_spec::scaling::zone::utc();
        kip_spec::scaling::zone::moment(text, &zone).map(Some).map_err(|error| vec![format!("t: {error}")])
    }

    fn resolve(&self) -> Result<CheckOutcome, Vec<String>> {
        match self {
            Self::Kpa { settings: Some(kpa), .. } => {
                let (class, unknown) = (knative::KPA.to_owned(), Vec::new());
                let kpa = Kpa::clone(kpa);
                Ok(CheckOutcome::Kpa(Box::new(knative::ResolvedSettings { class, kpa, max_scale_limit: 0, unknown })))
            }
            Self::Fc { settings: Some(fc), .. } => Ok(CheckOutcome::Fc(Fc::clone(fc))),
            Self::Kpa { annotations, config, container_concurrency, .. } => {
                // Values are strings in Knative; a number is taken for its text.
                let texts = |map: &serde_json::Map<String, Value>| {
                    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    map.iter().map(|(key, value)| (key.clone(), text(value))).collect()
                };
                let (annotations, config) = (texts(annotations), texts(config));
                let container_concurrency = *container_concurrency;
                let declared = knative::Declaration { annotations, config, container_concurrency };
                Ok(CheckOutcome::Kpa(Box::new(declared.resolve()?)))
            }
            Self::Fc { provision: input, period_ms, hold, coefficient, .. } => {
                let mut errors = Vec::new();
                let provision = provision::read(input).unwrap_or_else(|more| {
                    errors = more;
                    kip_spec::scaling::Provision::default()
                });
                let mut fc = Fc::new(provision);
                fc.period = period_ms.map_or(fc.period, Millis);
                fc.hold = hold.unwrap_or(fc.hold);
                match coefficient.map(Finite::new) {
                    Some(Some(coefficient)) => fc.coefficient = coefficient,
                    Some(None) => errors.push("coefficient: is not a number".to_owned()),
                    None => {}
                }
                errors.extend(fc.check());
                if errors.is_empty() { Ok(CheckOutcome::Fc(fc)) } else { Err(errors) }
            }
        }
    }

    fn session(&self) -> anyhow::Result<Session> {
        let resolved = self.resolve().map_err(|errors| invalid("the policy is not valid").cause(errors.join("\n")))?;
        Ok(match (resolved, self) {
            (CheckOutcome::Kpa(resolved), Self::Kpa { state: Some(state), initial_ready, reachable, .. }) => {
                let state = KpaState::clone(state);
                Session::Kpa(Box::new(KpaSession::resume(resolved.kpa, state, *initial_ready, *reachable)))
            }
            (CheckOutcome::Fc(fc), Self::Fc { state: Some(state), concurrency, .. }) => {
                Session::Fc(Box::new(FcSession::resume(fc, *concurrency, Tracker::clone(state))))
            }
            (CheckOutcome::Kpa(resolved), Self::Kpa { initial_ready, reachable, t_ms, fresh, .. }) => {
                if resolved.class != knative::KPA {
                    let message = format!("`{}` is not a class that is decided here", resolved.class);
                    return Err(invalid(message).hint(format!("leave `class` out, or write {}", knative::KPA)).into());
                }
                Session::Kpa(Box::new(KpaSession::new(resolved.kpa, *t_ms, *initial_ready, *reachable, *fresh)))
            }
            (CheckOutcome::Fc(fc), Self::Fc { concurrency, begin, .. }) => {
                Session::Fc(Box::new(FcSession::new(fc, *concurrency, *begin)))
            }
            _ => return Err(invalid("the first line is not a policy").into()),
        })
    }
}

enum Session {
    Kpa(Box<KpaSession>),
    Fc(Box<FcSession>),
}

impl Session {
    /// The answer is in the order of its fields, not of the alphabet.
    fn line(&mut self, line: Value) -> Result<Option<String>, String> {
        let text = |error: serde_json::Error| error.to_string();
        match self {
            Self::Kpa(session) => {
                let line: KpaLine = serde_json::from_value(line).map_err(text)?;
                let decision = session.line(&line).map_err(|error| error.to_string())?;
                decision.as_ref().map(serde_json::to_string).transpose().map_err(text)
            }
            Self::Fc(session) => {
                let line: FcLine = serde_json::from_value(line).map_err(text)?;
                let decision = session.line(&line).map_err(|error| error.to_string())?;
                serde_json::to_string(&decision).map(Some).map_err(text)
            }
        }
    }
}

/// Decides line by line. A line with a `policy` begins anew.
fn decide(input: impl BufRead, answer: &mut dyn FnMut(String) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut session: Option<Session> = None;
    for (index, text) in input.lines().enumerate() {
        let text = text?;
        if text.trim().is_empty() {
            continue;
        }
        let wrong = |error: String| invalid(format!("line {} is not understood", index + 1)).cause(error);
        let line: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if line.get("policy").is_some() {
            let header: Header = serde_json::from_value(line).map_err(|error| wrong(error.to_string()))?;
            session = Some(header.session()?);
            continue;
        }
        let Some(session) = session.as_mut() else {
            return Err(wrong("the first line must be a policy, such as {\"policy\":\"kpa\"}".to_owned()).into());
        };
        if let Some(decision) = session.line(line).map_err(wrong)? {
            answer(decision)?;
        }
    }
    match session {
        Some(_) => Ok(()),
        None => {
            Err(invalid("there is no line").cause("the first line is a policy, such as {\"policy\":\"kpa\"}").into())
        }
    }
}

fn validated(checked: Result<Value, Vec<String>>) -> Value {
    match checked {
        Ok(settings) => json!({"valid": true, "settings": settings}),
        Err(errors) => json!({"valid": false, "errors": errors}),
    }
}

/// Settings or errors for people.
fn text(validated: &Value) -> String {
    if let Some(errors) = validated["errors"].as_array() {
        return errors.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n");
    }
    let line = |(key, value): (&String, &Value)| match value {
        Value::Array(all) if key == "unknown" => {
            let all: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
            format!("unknown, and without effect: {}", all.join(", "))
        }
        Value::String(text) => format!("{key}: {text}"),
        other => format!("{key}: {other}"),
    };
    validated["settings"].as_object().into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(lines: &str) -> anyhow::Result<Vec<Value>> {
        let mut answers = Vec::new();
        decide(lines.as_bytes(), &mut |answer| {
            answers.push(serde_json::from_str(&answer)?);
            Ok(())
        })?;
        Ok(answers)
    }

    #[test]
    fn both_policies_decide_in_one_stream() {
        let lines = r#"{"policy":"kpa","annotations":{"autoscaling.knative.dev/target":"13.333333333333334","autoscaling.knative.dev/target-utilization-percentage":"75","autoscaling.knative.dev/target-burst-capacity":"100"},"container_concurrency":0,"initial_ready":1,"reachable":true}
            {"t_ms":0,"ready":1,"stable":50,"panic":50}

            {"policy":"fc","provision":{"targetTrackingPolicies":[{"name":"p","startTime":"2024-07-01T00:00:00Z","endTime":"2024-07-30T00:00:00Z","metricType":"ProvisionedConcurrencyUtilization","metricTarget":0.3,"minCapacity":1,"maxCapacity":10}]},"concurrency":1,"period_ms":60000,"hold":1,"coefficient":1}
            {"t":"2024-07-02T00:00:00Z","utilization":0.6,"current":2}
            {"t":"2024-07-02T00:01:00Z","in_flight":1.2,"current":4}"#;
        let answers = decided(lines).expect("valid");
        let kpa = &answers[0];
        assert_eq!(
            (&kpa["desired"], &kpa["panic"], &kpa["excess_burst_capacity"]),
            (&json!(5), &json!(true), &json!(-137))
        );
        assert_eq!([&answers[1]["target"], &answers[2]["target"]], [&json!(4), &json!(4)]);
    }

    #[test]
    fn a_first_line_may_bring_what_was_remembered() {
        let declared = knative::Declaration::default().resolve().expect("valid");
        let state = KpaState::new(&declared.kpa, 0, 7, true);
        let kpa = json!({"policy": "kpa", "settings": declared.kpa, "state": state, "initial_ready": 7});
        let policy =
            r#"[{"name":"p","metricType":"CPUUtilization","metricTarget":0.5,"minCapacity":0,"maxCapacity":9}]"#;
        let fc = Fc::new(provision::read(&serde_json::from_str(policy).expect("JSON")).expect("valid"));
        let mut tracker = Tracker::new(&fc.provision);
        tracker.begin(Some(6));
        let fc = json!({"policy": "fc", "settings": fc, "state": tracker});
        let lines = format!(
            "{kpa}\n{}\n{fc}\n{}",
            r#"{"t_ms":2000,"ready":7,"stable":0,"panic":0}"#,
            r#"{"t":"2024-07-02T00:00:00Z","calendar":true,"current":2}"#
        );
        let answers = decided(&lines).expect("valid");
        assert_eq!((&answers[0]["desired"], &answers[0]["panic"]), (&json!(7), &json!(true)));
        assert_eq!(answers[1]["target"], 6);
    }

    #[test]
    fn what_is_not_understood_names_its_line() {
        let error = |lines: &str| decided(lines).expect_err(lines).to_string();
        assert!(error("").contains("there is no line"));
        assert!(error("{\"t_ms\":0}").contains("line 1"));
        assert!(error("{\"policy\":\"kpa\"}\n{\"t_ms\":0,\"stable\":1}").contains("line 2"));
        assert!(error("{\"policy\":\"kpa\"}\n{\"t_ms\":0,\"redy\":1}").contains("line 2"));
        assert!(
            error("{\"policy\":\"kpa\",\"annotations\":{\"autoscaling.knative.dev/class\":\"x.org\"}}")
                .contains("x.org")
        );
    }
}
