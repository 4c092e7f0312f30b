//! As whom functions run, and what one of them may take of the host beside memory and CPU.

use std::collections::BTreeMap;

use kip_engine::{InstanceUser, IsolationOptions};
use kip_spec::{Bytes, Problem};

use super::value::{Value, invalid, parse};

/// Ids below this one belong to people and services.
const FIRST: u32 = 65_536;

pub(super) fn isolation(values: &BTreeMap<&'static str, Value>) -> Result<IsolationOptions, Problem> {
    let first = parse::<u32>(values, "functions.first_id", "a number such as 1900000000")?;
    if !(FIRST..=u32::MAX - FIRST - 1).contains(&first) {
        let hint = "65,536 ids from it on belong to functions: no user and no container of this host may have them";
        return Err(invalid(format!("functions.first_id is at least {FIRST}, not {first}")).hint(hint));
    }
    let processes = parse::<u64>(values, "functions.processes", "a number such as 32768")?;
    let file_size = parse::<Bytes>(values, "functions.file_size", "a size such as 1TiB")?.0;
    if processes == 0 || file_size == 0 {
        return Err(invalid("functions.processes and functions.file_size are at least 1".to_owned()));
    }
    let user = match values["functions.user"].value.as_str() {
        "own" => InstanceUser::Own,
        "server" => InstanceUser::Server,
        name => named(name)?,
    };
    Ok(IsolationOptions { user, first, processes, file_size })
}

/// How much of a folder a version captures.
pub(super) fn code(values: &BTreeMap<&'static str, Value>) -> Result<kip_snapshot::Limits, Problem> {
    let entries = parse::<usize>(values, "functions.code_files", "a number such as 100000")?;
    Ok(kip_snapshot::Limits { bytes: parse::<Bytes>(values, "functions.code_size", "a size such as 2GiB")?.0, entries })
}

/// A user of this host, by name or number.
fn named(name: &str) -> Result<InstanceUser, Problem> {
    InstanceUser::named(name).ok_or_else(|| {
        invalid(format!("functions.user: there is no user `{name}` in /etc/passwd"))
            .hint("write a user's name or number, own for an id of its own for each function, or server")
    })
}
