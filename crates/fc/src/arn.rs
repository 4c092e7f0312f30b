//! Names of resources as the vendor writes them: `acs:fc:{region}:{account}:functions/{name}`.

use kip_spec::account::{ACCOUNT, REGION};

/// A function, or a qualifier of it.
pub(crate) fn function(name: &str, qualifier: Option<&str>) -> String {
    let base = format!("acs:fc:{REGION}:{ACCOUNT}:functions/{name}");
    match qualifier {
        Some(qualifier) => format!("{base}/{qualifier}"),
        None => base,
    }
}

/// The function that a name of a resource means, whatever its region and account are.
pub(crate) fn function_of(arn: &str) -> Option<&str> {
    let mut parts = arn.splitn(5, ':');
    let is_ours = parts.next() == Some("acs") && parts.next() == Some("fc");
    let resource = parts.nth(2).filter(|_| is_ours)?;
    let rest = resource.strip_prefix("functions/")?;
    Some(rest.split('/').next().unwrap_or(rest)).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_and_read() {
        assert_eq!(function("f", None), "acs:fc:local:kipwake:functions/f");
        assert_eq!(function_of(&function("f", Some("prod"))), Some("f"));
        assert_eq!(function_of("acs:fc:cn-hangzhou:123:functions/other"), Some("other"));
        for other in ["acs:mns:cn:1:/queues/q", "acs:fc:a:b:services/s", "f", "", "acs:fc:a:b:functions/"] {
            assert_eq!(function_of(other), None, "{other}");
        }
    }
}
