//! `kip provision` and `kip advise`.

use std::time::Duration;

use kip_host::clock::boot_millis;
use kip_spec::{Millis, Problem, code};
use kip_wire::{Provision as Shown, Recommendation};
use serde_json::{Map, Value, json};

use crate::arguments::{Advise, FunctionArgument, Provision, ProvisionPut, json_or_file};
use crate::client::{Client, segment};
use crate::commands::files;
use crate::output::{Output, table};
use crate::progress::Progress;

/// How long `--wait` waits, milliseconds.
const LONGEST_WAIT: u64 = 1_800_000;

pub(crate) async fn run(client: &Client, command: &Provision, output: Output) -> anyhow::Result<()> {
    match command {
        Provision::Put(options) => {
            let whom = whom(client, &options.whom, output).await?;
            let mut body = body(options)?;
            // Without a target, what is not said stays as it is.
            if options.input.is_none() && options.target.is_none() {
                if body.as_object().is_some_and(Map::is_empty) {
                    return Err(nothing(&whom).into());
                }
                body = over(present(client, &whom).await?, body);
            }
            let mut shown: Shown = client.put(&path(&whom), &body).await?;
            if options.wait {
                shown = wait(client, &whom, output).await?;
            }
            output.result(&shown, one)
        }
        Provision::Get(argument) => {
            let whom = whom(client, argument, output).await?;
            let shown: Shown = client.get(&path(&whom)).await?;
            output.result(&shown, one)
        }
        Provision::Rm(argument) => {
            let whom = whom(client, argument, output).await?;
            let removed: Value = client.delete(&path(&whom)).await?;
            output.result(&removed, |_| {
                format!("nothing is provisioned for {} {} any more\n", whom.function, whom.qualifier)
            })
        }
        Provision::List(options) => {
            let mut all: Vec<Shown> = client.get("/api/v1/provisions").await?;
            // What was put with nothing in it is as good as not put.
            all.retain(|shown| shown.target > 0 || shown.declared || !shown.policies.is_empty());
            if options.file.template.is_some() {
                let names = files::names(client, &options.file, output).await?;
                all.retain(|shown| names.iter().any(|name| *name == shown.function.as_str()));
            }
            output.result(&all, |all| list(all))
        }
    }
}

/// A function and a qualifier of it.
struct Target {
    function: String,
    qualifier: String,
}

/// The function that is named, or the one of a file.
async fn whom(client: &Client, argument: &FunctionArgument, output: Output) -> anyhow::Result<Target> {
    let function = match &argument.function {
        Some(function) => function.clone(),
        None => match files::names(client, &argument.file, output).await?.as_slice() {
            [one] => one.clone(),
            several => {
                let message = format!("the file has {} functions: which one?", several.len());
                let hint = format!("name one: {}", several.join(", "));
                return Err(Problem::new(code::COMMAND_INPUT, message).hint(hint).into());
            }
        },
    };
    Ok(Target { function, qualifier: argument.qualifier.clone() })
}

/// Waits until there are as many instances as wanted.
async fn wait(client: &Client, whom: &Target, output: Output) -> anyhow::Result<Shown> {
    let begun = boot_millis();
    let mut progress = Progress::new(output);
    loop {
        let now: Shown = client.get(&path(whom)).await?;
        if now.current == now.target {
            return Ok(now);
        }
        if boot_millis().saturating_sub(begun) > LONGEST_WAIT {
            let message = format!("{} of {} provisioned instances are there", now.current, now.target);
            let hint = format!("`kip why {}` shows the decisions", whom.function);
            let problem = Problem::new(code::PROVISION_LATE, message).cause(now.current_error.unwrap_or(now.why));
            return Err(problem.hint(hint).into());
        }
        progress.say(&format!("{} of {} provisioned instances are there", now.current, now.target));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn path(whom: &Target) -> String {
    format!("/api/v1/functions/{}/provision?qualifier={}", segment(&whom.function), segment(&whom.qualifier))
}

fn nothing(whom: &Target) -> Problem {
    let hint =
        format!("write --target, a policy, or --input; `kip provision rm {}` takes away what was put", whom.function);
    Problem::new(code::SCALING_INVALID, "there is nothing to put").hint(hint)
}

/// What is provisioned now, as it would be put; nothing if nothing is.
async fn present(client: &Client, whom: &Target) -> anyhow::Result<Value> {
    match client.get::<Shown>(&path(whom)).await {
        Ok(shown) => {
            let Shown { input, period, hold, coefficient, .. } = shown;
            let own = json!({"period": period.to_string(), "hold": hold, "coefficient": coefficient});
            Ok(over(input, own))
        }
        Err(error) if crate::problem::of(&error).iter().any(|problem| problem.code == code::NO_PROVISION) => {
            Ok(Value::Object(Map::new()))
        }
        Err(error) => Err(error),
    }
}

/// An object with another one's keys over its own.
fn over(mut base: Value, keys: Value) -> Value {
    if let (Value::Object(base), Value::Object(keys)) = (&mut base, keys) {
        base.extend(keys);
    }
    base
}

/// The input that the options say.
fn body(options: &ProvisionPut) -> anyhow::Result<Value> {
    let mut body = match &options.input {
        Some(text) => json_or_file(text)?,
        None => Value::Object(Map::new()),
    };
    let lists = [
        ("targetTrackingPolicies", &options.target_tracking_policies),
        ("scheduledActions", &options.scheduled_actions),
    ];
    let mut extra = Map::new();
    for (key, text) in lists {
        let Some(text) = text else { continue };
        let value = json_or_file(text)?;
        // Wrapped, or bare.
        match value {
            Value::Object(map) if map.contains_key(key) => extra.extend(map),
            list => drop(extra.insert(key.to_owned(), list)),
        }
    }
    let flags = [
        ("defaultTarget", options.target.map(Value::from)),
        ("alwaysAllocateCPU", options.always_allocate_cpu.map(Value::from)),
        ("alwaysAllocateGPU", options.always_allocate_gpu.map(Value::from)),
        ("period", options.period.map(|period| Value::from(period.to_string()))),
        ("hold", options.hold.map(Value::from)),
        ("coefficient", options.coefficient.map(Value::from)),
    ];
    extra.extend(flags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    if extra.is_empty() {
        return Ok(body);
    }
    // A bare list is one of policies or of actions.
    if let Value::Array(items) = &body {
        let actions = items.iter().any(|item| item.get("scheduleExpression").is_some());
        let key = if actions { "scheduledActions" } else { "targetTrackingPolicies" };
        body = Value::Object(Map::from_iter([(key.to_owned(), json!(items))]));
    }
    if let Value::Object(map) = &mut body {
        if extra.contains_key("defaultTarget") {
            map.remove("target");
        }
        map.extend(extra);
    }
    Ok(body)
}

fn one(shown: &Shown) -> String {
    let Shown { function, qualifier, target, current, why, .. } = shown;
    let from = from(shown);
    let mut text = format!("{function} {qualifier}: {target} wanted, {current} there; {why}\nfrom: {from}\n");
    if let Some(error) = &shown.current_error {
        text.push_str(&format!("fewer than wanted: {error}\n"));
    }
    if let Some(reminder) = &shown.reminder {
        text.push_str(&format!("reminder: {reminder}\n"));
    }
    for policy in &shown.policies {
        let state = policy.why.as_deref().map_or_else(|| "active".to_owned(), |why| format!("inactive: {why}"));
        text.push_str(&format!("  {}: {state}\n", policy.name));
    }
    let Shown { period, hold, coefficient, .. } = shown;
    text.push_str(&format!("looked at every {period}, hold {hold}, coefficient {coefficient}\n"));
    text
}

/// Where it comes from.
fn from(shown: &Shown) -> &'static str {
    match (shown.declared, shown.overrides) {
        (true, _) => "kip.yaml",
        (false, true) => "put, over kip.yaml",
        (false, false) => "put",
    }
}

fn list(all: &[Shown]) -> String {
    let policies = |shown: &Shown| {
        let each = shown.policies.iter().map(|policy| match &policy.why {
            None => format!("{} (active)", policy.name),
            Some(why) => format!("{} (inactive: {why})", policy.name),
        });
        let text = each.collect::<Vec<_>>().join(", ");
        if text.is_empty() { "-".to_owned() } else { text }
    };
    let row = |shown: &Shown| {
        vec![
            shown.function.to_string(),
            shown.qualifier.clone(),
            from(shown).to_owned(),
            shown.target.to_string(),
            shown.current.to_string(),
            policies(shown),
            shown.current_error.clone().or_else(|| shown.reminder.clone()).unwrap_or_else(|| shown.why.clone()),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    table(&["FUNCTION", "QUALIFIER", "FROM", "#TARGET", "#CURRENT", "POLICIES", "WHY"], &rows)
}

pub(crate) async fn advise(client: &Client, options: &Advise, output: Output) -> anyhow::Result<()> {
    let advised: Recommendation =
        client.get(&format!("/api/v1/functions/{}/advice", segment(&options.function))).await?;
    output.result(&advised, |advised| {
        let measured = &advised.measured;
        let long = |millis: Option<u64>| millis.map_or_else(|| "-".to_owned(), |millis| Millis(millis).to_string());
        let mut text = format!(
            "measured: {} starts, {} requests; a request takes {}, the longest {}; {} at once at most\n",
            measured.starts,
            measured.requests,
            long(measured.service_ms),
            long(measured.longest_ms),
            measured.peak_in_flight
        );
        for (beside, millis) in &measured.start_ms {
            let who = match beside {
                1 => "one alone",
                4 => "two to four at once",
                _ => "more at once",
            };
            text.push_str(&format!("a start takes {}, {who}\n", Millis(*millis)));
        }
        if advised.advice.is_empty() {
            text.push_str("nothing to advise\n");
        }
        for advice in &advised.advice {
            text.push_str(&format!("{}: {} → {}\n    {}\n", advice.setting, advice.now, advice.better, advice.why));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(change: impl FnOnce(&mut ProvisionPut)) -> ProvisionPut {
        let file = crate::arguments::FileArguments::default();
        let whom = FunctionArgument { function: Some("f".to_owned()), file, qualifier: "LATEST".to_owned() };
        let mut put = ProvisionPut {
            whom,
            input: None,
            target: None,
            target_tracking_policies: None,
            scheduled_actions: None,
            always_allocate_cpu: None,
            always_allocate_gpu: None,
            period: None,
            hold: None,
            coefficient: None,
            wait: false,
        };
        change(&mut put);
        put
    }

    #[test]
    fn wrapped_bare_inline_and_by_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("provision.json");
        std::fs::write(&file, r#"{"targetTrackingPolicies": [{"name": "p"}]}"#).expect("written");
        let file = file.to_string_lossy().into_owned();
        let wanted = json!({"defaultTarget": 1, "targetTrackingPolicies": [{"name": "p"}]});
        for text in [file.as_str(), r#"[{"name": "p"}]"#, r#"{"targetTrackingPolicies": [{"name": "p"}]}"#] {
            let options = put(|put| (put.target, put.target_tracking_policies) = (Some(1), Some(text.to_owned())));
            assert_eq!(body(&options).expect("valid"), wanted, "{text}");
        }
        let whole = put(|put| (put.target, put.input) = (Some(1), Some(r#"[{"name": "p"}]"#.to_owned())));
        assert_eq!(body(&whole).expect("valid"), wanted);
    }
}
