//! As whom functions run, and what one of them may take of the host beside memory and CPU.

use std::collections::BTreeMap;
use std::path::Path;

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
    let read = |file: &str| std::fs::read_to_string(Path::new("/etc").join(file)).unwrap_or_default();
    lookup(name, &read("passwd"), &read("group")).ok_or_else(|| {
        invalid(format!("functions.user: there is no user `{name}` in /etc/passwd"))
            .hint("write a user's name or number, own for an id of its own for each function, or server")
    })
}

fn lookup(name: &str, passwd: &str, group: &str) -> Option<InstanceUser> {
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<&str>>()).find(|fields| {
        fields.first() == Some(&name) || (name.parse::<u32>().is_ok() && fields.get(2) == Some(&name))
    })?;
    let (uid, gid) = (entry.get(2)?.parse().ok()?, entry.get(3)?.parse().ok()?);
    let member = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let own = fields.get(3)?.split(',').any(|member| Some(&member) == entry.first());
        if own { fields.get(2)?.parse().ok() } else { None }
    };
    Some(InstanceUser::Named { uid, gid, groups: group.lines().filter_map(member).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_by_number_with_its_groups() {
        let (passwd, group) =
            ("root:x:0:0::/root:/bin/sh\nai:x:1001:1002::/:/bin/sh\n", "video:x:44:ai,eve\nx:x:9:eve\n");
        let expected = InstanceUser::Named { uid: 1_001, gid: 1_002, groups: vec![44] };
        assert_eq!(lookup("ai", passwd, group), Some(expected.clone()));
        assert_eq!(lookup("1001", passwd, group), Some(expected));
        assert_eq!(lookup("eve", passwd, group), None);
    }
}
