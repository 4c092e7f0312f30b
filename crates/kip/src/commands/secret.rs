//! `kip secret`. A value comes from standard input or a file: an argument would be seen by every user of the host.

use std::io::{IsTerminal, Read};

use kip_spec::named_secret::LONGEST_VALUE;
use kip_spec::{Problem, code};
use kip_wire::{SecretInfo, SecretValue};

use crate::arguments::Secret;
use crate::client::{Client, segment};
use crate::output::{Output, date, table};

pub(crate) async fn run(client: &Client, command: &Secret, output: Output) -> anyhow::Result<()> {
    match command {
        Secret::Set { name, from_file } => {
            let value = value(from_file.as_deref(), output)?;
            let set: SecretInfo = client.put(&path(name), &SecretValue { value }).await?;
            output.line(&set, |set| format!("set the secret {name}, generation {}", set.generation))?;
            for function in &set.used_by {
                output.remark(&format!("instances of {function} get it at their next start: kip rotate {function}"));
            }
            Ok(())
        }
        Secret::Ls => {
            let secrets: Vec<SecretInfo> = client.get("/api/v1/secrets").await?;
            output.result(&secrets, |secrets| {
                let row = |secret: &SecretInfo| {
                    let state = if secret.readable { "sealed" } else { "set again" };
                    let users = if secret.used_by.is_empty() { "-".to_owned() } else { secret.used_by.join(",") };
                    vec![
                        secret.name.clone(),
                        secret.generation.to_string(),
                        state.to_owned(),
                        date(secret.changed),
                        users,
                    ]
                };
                let rows: Vec<Vec<String>> = secrets.iter().map(row).collect();
                table(&["SECRET", "#GENERATION", "STATE", "CHANGED", "USED BY"], &rows)
            })
        }
        Secret::Rm(given) => {
            for name in &given.names {
                let removed: SecretInfo = client.delete(&path(name)).await?;
                output.line(&removed, |_| format!("removed the secret {name}"))?;
                if !removed.used_by.is_empty() {
                    let users = removed.used_by.join(", ");
                    output.remark(&format!("instances of {users} cannot start without it"));
                }
            }
            Ok(())
        }
    }
}

fn path(name: &str) -> String {
    format!("/api/v1/secrets/{}", segment(name))
}

fn value(file: Option<&std::path::Path>, output: Output) -> anyhow::Result<String> {
    let wrong = |what: String| Problem::new(code::SECRET_INVALID, what);
    let most = (LONGEST_VALUE + 2) as u64;
    let mut text = Vec::new();
    let read = match file {
        Some(file) => std::fs::File::open(file)
            .and_then(|opened| opened.take(most).read_to_end(&mut text))
            .map_err(|error| wrong(format!("{} cannot be read: {error}", file.display())))?,
        None => {
            if std::io::stdin().is_terminal() {
                output.remark("type the value, then Ctrl-D; it is shown while you type");
            }
            std::io::stdin()
                .take(most)
                .read_to_end(&mut text)
                .map_err(|error| wrong(format!("standard input cannot be read: {error}")))?
        }
    };
    let _ = read;
    let text = String::from_utf8(text).map_err(|_| wrong("the value is not text in UTF-8".to_owned()))?;
    let text = text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text)).unwrap_or(&text);
    Ok(text.to_owned())
}
