//! `kip key` and `kip audit`.

use kip_auth::AuditRecord;
use kip_spec::{Millis, Problem, code};
use kip_wire::{KeyAnswer, KeyInfo, KeyRotation, KeySettings};

use crate::arguments::{Audit, Key, Settings};
use crate::client::{Client, segment};
use crate::commands::requests::since;
use crate::output::{Output, date, table};
use crate::problem::warning;

/// What takes a limit away; as a list of functions, no function.
const NONE: &str = "none";
/// What takes a list of functions away.
const ALL: &str = "all";

pub(crate) async fn run(client: &Client, command: &Key, output: Output) -> anyhow::Result<()> {
    match command {
        Key::Create(create) => {
            let mut settings = settings(&create.settings)?;
            settings.name = Some(create.name.clone());
            settings.role = settings.role.or_else(|| Some("invoke".to_owned()));
            settings.access_key = create.access_key.then_some(true);
            let made: KeyAnswer = client.post("/api/v1/keys", &settings).await?;
            secret(&made, output, "made the key")
        }
        Key::Ls => {
            let keys: Vec<KeyInfo> = client.get("/api/v1/keys").await?;
            output.result(&keys, |keys| key_table(keys))
        }
        Key::Show { name } => {
            let key: KeyInfo = client.get(&path(name)).await?;
            output.result(&key, shown)
        }
        Key::Set { name, settings: given } => {
            let settings = settings(given)?;
            if serde_json::to_value(&settings)? == serde_json::json!({}) {
                return Err(wrong("nothing to change was given", "`kip key set --help` lists what there is").into());
            }
            change(client, name, &settings, output).await
        }
        Key::Rotate { name, overlap } => {
            let rotation = KeyRotation { overlap: overlap.clone() };
            let made: KeyAnswer = client.post(&format!("{}/rotate", path(name)), &rotation).await?;
            secret(&made, output, "gave a new secret to the key")
        }
        Key::Disable(given) => switch(client, &given.names, true, output).await,
        Key::Enable(given) => switch(client, &given.names, false, output).await,
        Key::Rm(given) => {
            for name in &given.names {
                let removed: serde_json::Value = client.delete(&path(name)).await?;
                output.line(&removed, |_| format!("removed the key {name}"))?;
            }
            Ok(())
        }
    }
}

fn path(name: &str) -> String {
    format!("/api/v1/keys/{}", segment(name))
}

async fn switch(client: &Client, names: &[String], disabled: bool, output: Output) -> anyhow::Result<()> {
    let settings = KeySettings { disabled: Some(disabled), ..KeySettings::default() };
    for name in names {
        change(client, name, &settings, output).await?;
    }
    Ok(())
}

async fn change(client: &Client, name: &str, settings: &KeySettings, output: Output) -> anyhow::Result<()> {
    let answer: KeyAnswer = client.patch(&path(name), settings).await?;
    answer.warnings.iter().for_each(|one| output.remark(&warning(one)));
    output.result(&answer, |answer| shown(&answer.key))
}

/// The secret alone on standard output, so that it can be caught; everything else beside it.
fn secret(made: &KeyAnswer, output: Output, what: &str) -> anyhow::Result<()> {
    made.warnings.iter().for_each(|one| output.remark(&warning(one)));
    let KeyInfo { name, role, previous_until, .. } = &made.key;
    output.remark(&format!("{what} `{name}` with the role {role}; its secret is shown this once only"));
    if let Some(until) = previous_until {
        output.remark(&format!("the earlier secret is taken until {}", date(*until)));
    }
    output.result(made, |made| {
        let secret = made.secret.clone().unwrap_or_default();
        match &made.key.access_key_id {
            // As the clients' own variables.
            Some(id) => format!("ALIBABA_CLOUD_ACCESS_KEY_ID={id}\nALIBABA_CLOUD_ACCESS_KEY_SECRET={secret}\n"),
            None => secret + "\n",
        }
    })
}

fn settings(given: &Settings) -> Result<KeySettings, Problem> {
    // A variable of the shell that is empty must not open everything.
    let names = |text: &String| match text.as_str() {
        ALL => None,
        NONE | "" => Some(Vec::new()),
        some => Some(some.split(',').map(|name| name.trim().to_owned()).collect()),
    };
    Ok(KeySettings {
        name: None,
        role: given.role.clone(),
        functions: given.functions.as_ref().map(names),
        rate: given.rate.clone().map(|rate| Some(rate).filter(|rate| rate != NONE)),
        burst: given.burst.as_deref().map(|text| count("--burst", text)).transpose()?,
        concurrency: given.concurrency.as_deref().map(|text| count("--concurrency", text)).transpose()?,
        tenant: given.tenant.clone(),
        expires: given.expires.as_deref().map(expiry).transpose()?,
        disabled: None,
        access_key: None,
    })
}

fn count(flag: &str, text: &str) -> Result<Option<u32>, Problem> {
    if text == NONE {
        return Ok(None);
    }
    let number = text.parse().map_err(|_| wrong(&format!("{flag}: `{text}` is not a number"), "write 4, or none"));
    number.map(Some)
}

/// A time as milliseconds since 1970; a duration as it is, for the server's clock to count from.
fn expiry(text: &str) -> Result<Option<String>, Problem> {
    if text == "never" || text == NONE {
        return Ok(None);
    }
    if text.parse::<Millis>().is_ok() {
        return Ok(Some(text.to_owned()));
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| {
        let hint = "write 30d, 2027-01-01T00:00:00Z or never";
        wrong(&format!("--expires: `{text}` is neither a duration nor a time"), hint)
    })?;
    Ok(Some(time.as_millisecond().to_string()))
}

fn wrong(what: &str, hint: &str) -> Problem {
    Problem::new(code::KEY_INVALID, what).hint(hint)
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn functions(key: &KeyInfo) -> String {
    match key.functions.as_deref() {
        None => ALL.to_owned(),
        Some([]) => NONE.to_owned(),
        Some(some) => some.join(","),
    }
}

fn rate(key: &KeyInfo) -> String {
    match (key.rate, key.burst) {
        (Some(rate), Some(burst)) => format!("{rate} burst {burst}"),
        _ => "-".to_owned(),
    }
}

fn key_table(keys: &[KeyInfo]) -> String {
    let row = |key: &KeyInfo| {
        vec![
            key.name.clone(),
            key.role.to_string(),
            key.state.clone(),
            functions(key),
            rate(key),
            or_dash(key.concurrency),
            key.tenant.clone(),
            or_dash(key.expires.map(date)),
            or_dash(key.last_use.map(date)),
        ]
    };
    let rows: Vec<Vec<String>> = keys.iter().map(row).collect();
    table(&["KEY", "ROLE", "STATE", "FUNCTIONS", "RATE", "#IN FLIGHT", "TENANT", "EXPIRES", "LAST USE"], &rows)
}

fn shown(key: &KeyInfo) -> String {
    let lines = [
        ("key", format!("{} (number {})", key.name, key.id)),
        ("access key id", or_dash(key.access_key_id.clone())),
        ("role", key.role.to_string()),
        ("state", key.state.clone()),
        ("functions", functions(key)),
        ("rate", rate(key)),
        ("in flight", or_dash(key.concurrency)),
        ("tenant", key.tenant.clone()),
        ("made", date(key.created)),
        ("expires", key.expires.map_or_else(|| "never".to_owned(), date)),
        ("last use", or_dash(key.last_use.map(date))),
        ("new secret", or_dash(key.rotated.map(date))),
        ("old secret until", or_dash(key.previous_until.map(date))),
    ];
    lines.iter().map(|(name, value)| format!("{name:<17} {value}\n")).collect()
}

pub(crate) async fn audit(client: &Client, options: &Audit, output: Output) -> anyhow::Result<()> {
    let since = options.since.as_deref().map(since).transpose()?;
    let mut path = format!("/api/v1/audit?limit={}", options.limit);
    let given = [
        ("key", &options.by),
        ("action", &options.action),
        ("object", &options.object),
        ("result", &options.result),
        ("since", &since),
        ("before", &options.before.map(|number| number.to_string())),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", segment(value)));
        }
    }
    let records: Vec<AuditRecord> = client.get(&path).await?;
    output.result(&records, |records| {
        let row = |record: &AuditRecord| {
            let AuditRecord { at, key, action, object, peer, result, .. } = record.clone();
            vec![date(at), key, action, object, peer, result]
        };
        let rows: Vec<Vec<String>> = records.iter().map(row).collect();
        table(&["TIME", "KEY", "ACTION", "OBJECT", "FROM", "RESULT"], &rows)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiries_are_durations_times_or_never() {
        assert_eq!(expiry("30d").unwrap().as_deref(), Some("30d"));
        assert_eq!(expiry("1970-01-01T00:00:01Z").unwrap().as_deref(), Some("1000"));
        assert_eq!(expiry("never").unwrap(), None);
        assert_eq!(expiry("30").unwrap_err().code, code::KEY_INVALID);
        assert_eq!((count("--burst", "none").unwrap(), count("--burst", "7").unwrap()), (None, Some(7)));
        assert_eq!(count("--burst", "-1").unwrap_err().code, code::KEY_INVALID);
    }
}
