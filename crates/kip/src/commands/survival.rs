//! Where the host would end server and instances together: what `kip doctor` warns of.

use std::path::Path;
use std::process::Command;

/// What the host does to a server's instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostRisk {
    /// What would happen.
    pub(crate) detail: String,
    /// What to do.
    pub(crate) hint: String,
}

/// What endangers the instances of this server.
pub(crate) fn dangers(server: u32, instances: &[u32]) -> Vec<HostRisk> {
    let Some(own) = cgroup_of(server) else { return Vec::new() };
    let others: Vec<String> = instances.iter().filter_map(|process| cgroup_of(*process)).collect();
    let mut found: Vec<HostRisk> = Vec::new();
    found.extend(unit(&own, &others, kill_mode));
    found.extend(session(&own, has_linger));
    found.extend(container());
    found
}

/// The cgroup of a process: of systemd's own hierarchy, or the only one.
fn cgroup_of(process: u32) -> Option<String> {
    cgroup_in(&std::fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?)
}

fn cgroup_in(text: &str) -> Option<String> {
    let named = text.lines().find_map(|line| line.split_once(":name=systemd:").map(|(_, path)| path));
    named.or_else(|| text.lines().find_map(|line| line.strip_prefix("0::"))).map(str::to_owned)
}

/// The path of the innermost systemd service in a cgroup's path, and its name.
fn service_in(cgroup: &str) -> Option<(&str, &str)> {
    let mut end = cgroup.len();
    while end > 0 {
        let name = cgroup[..end].rsplit('/').next().unwrap_or_default();
        if name.ends_with(".service") && !name.starts_with("user@") {
            return Some((&cgroup[..end], name));
        }
        end = end.checked_sub(name.len() + 1)?;
    }
    None
}

fn unit(own: &str, others: &[String], kill_mode: impl Fn(&str) -> Option<String>) -> Option<HostRisk> {
    let (path, name) = service_in(own)?;
    let inside = others.iter().any(|other| other == path || other.starts_with(&format!("{path}/")));
    let mode = kill_mode(name)?;
    if !inside || mode == "process" || mode == "none" {
        return None;
    }
    Some(HostRisk {
        detail: format!("stopping or restarting {name} ends all instances with the server (KillMode={mode})"),
        hint: "set KillMode=process in the unit, or have it written: kip service install".to_owned(),
    })
}

fn kill_mode(unit: &str) -> Option<String> {
    let shown = |scope: &[&str]| {
        let output = Command::new("systemctl").args(scope).args(["show", "--value", "-p", "KillMode", unit]).output();
        let text = String::from_utf8(output.ok()?.stdout).ok()?.trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    if !is_systemd_running() {
        return None;
    }
    shown(&[]).or_else(|| shown(&["--user"]))
}

/// Whether systemd is this host's service manager.
pub(crate) fn is_systemd_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn session(own: &str, has_linger: impl Fn(u32) -> bool) -> Option<HostRisk> {
    let user =
        own.split('/').find_map(|part| part.strip_prefix("user-")?.strip_suffix(".slice")?.parse::<u32>().ok())?;
    if has_linger(user) {
        return None;
    }
    let hint = "keep the user's processes: loginctl enable-linger; or run as a service: kip service install".to_owned();
    Some(HostRisk { detail: format!("a logout of user {user} may end the server and all instances"), hint })
}

fn has_linger(user: u32) -> bool {
    let names = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = names.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(user)).then_some(name)
    });
    name.is_some_and(|name| Path::new("/var/lib/systemd/linger").join(name).exists())
}

fn container() -> Option<HostRisk> {
    let inside = Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists();
    first_process(inside, std::fs::read_to_string("/proc/1/comm").ok()?.trim())
}

/// Programs that reap what they inherit.
const REAPERS: [&str; 9] =
    ["systemd", "init", "tini", "docker-init", "dumb-init", "catatonit", "s6-svscan", "runit", "podman-init"];

fn first_process(inside: bool, name: &str) -> Option<HostRisk> {
    if !inside || REAPERS.contains(&name) {
        return None;
    }
    Some(HostRisk {
        detail: format!(
            "the container's first process is {name}: when it ends, everything ends; what it inherits stays as zombies"
        ),
        hint: "run the container with an init: docker run --init".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_kills_its_group_is_a_danger_to_instances_inside_it() {
        let own = "/system.slice/kipwake.service/server";
        let mode = |mode: &'static str| move |_: &str| Some(mode.to_owned());
        let inside = ["/system.slice/kipwake.service/i-1-1-1".to_owned()];
        let outside = ["/kipwake.slice/i-1-1-1".to_owned(), "/system.slice/kipwake.service2".to_owned()];
        let danger = unit(own, &inside, mode("control-group")).unwrap();
        assert!(danger.detail.contains("kipwake.service") && danger.hint.contains("KillMode=process"), "{danger:?}");
        assert_eq!(unit(own, &outside, mode("control-group")), None);
        assert_eq!(unit(own, &inside, mode("process")), None);
        assert_eq!(unit("/user.slice/user-7.slice/session-1.scope", &inside, mode("mixed")), None);
        assert_eq!(unit("/", &inside, mode("mixed")), None);
        assert_eq!(
            service_in("/a.slice/user@7.service/app.slice/k.service"),
            Some(("/a.slice/user@7.service/app.slice/k.service", "k.service"))
        );
        assert_eq!(service_in("/a.slice/user@7.service/app.slice"), None);
    }

    #[test]
    fn a_session_without_linger_ends_with_its_user() {
        let own = "/user.slice/user-7.slice/session-1.scope";
        assert!(session(own, |_| false).unwrap().detail.contains("user 7"));
        assert_eq!(session(own, |user| user == 7), None);
        assert_eq!(session("/system.slice/k.service", |_| false), None);
    }

    #[test]
    fn containers_want_an_init() {
        assert!(first_process(true, "kip").is_some());
        assert_eq!(first_process(true, "tini"), None);
        assert_eq!(first_process(false, "kip"), None);
    }

    #[test]
    fn cgroups_of_both_kinds() {
        assert_eq!(cgroup_in("0::/a.service\n").as_deref(), Some("/a.service"));
        assert_eq!(cgroup_in("5:cpu:/x\n1:name=systemd:/b.service\n0::/\n").as_deref(), Some("/b.service"));
        assert_eq!(cgroup_in(""), None);
    }
}
