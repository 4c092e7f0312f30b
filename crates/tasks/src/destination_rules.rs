//! Where destinations may be. This host and its links are not reached by accident or by a key that may only deploy: what listens on loopback often
//! trusts whoever can connect, and cloud hosts answer with credentials on a link-local address. Pure.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::config::Target;

/// What an operator has named (`tasks.destinations`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DestinationRules {
    /// Hosts, each with a port or for all ports.
    hosts: Vec<(String, Option<u16>)>,
    /// Folders; what is below them, too.
    folders: Vec<PathBuf>,
}

/// What is special about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Loopback,
    LinkLocal,
    Many,
}

impl Reach {
    fn of(ip: IpAddr) -> Option<Self> {
        let ip = ip.to_canonical();
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        match ip {
            // The unspecified address leads to this host.
            _ if ip.is_loopback() || ip.is_unspecified() => Some(Self::Loopback),
            _ if link_local => Some(Self::LinkLocal),
            _ if ip.is_multicast() || broadcast => Some(Self::Many),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Loopback => "this host",
            Self::LinkLocal => "a link-local address",
            Self::Many => "many hosts at once",
        }
    }
}

/// Host and port of an authority; a host in brackets is without them.
fn split(authority: &str) -> (&str, Option<u16>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, None),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

/// What a host says of itself, before anybody is asked where it is.
fn told(host: &str) -> Option<Reach> {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let is_local = name == "localhost" || name.ends_with(".localhost");
    match name.parse::<IpAddr>() {
        Ok(ip) => Reach::of(ip),
        // `inet_aton` reads 127.1, 2130706433 and 0x7f000001 as addresses.
        Err(_) if name.split('.').all(|part| part.parse::<u64>().is_ok() || part.starts_with("0x")) => {
            Some(Reach::Loopback)
        }
        Err(_) => is_local.then_some(Reach::Loopback),
    }
}

impl DestinationRules {
    /// Reads hosts, hosts with ports and folders, by commas; `none` names none.
    ///
    /// # Errors
    /// The part that is none of these.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rules = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty() && *part != "none") {
            if part.starts_with('/') {
                rules.folders.push(PathBuf::from(part));
                continue;
            }
            let bare = part.parse::<IpAddr>().is_ok();
            let (host, port) = if bare { (part, None) } else { split(part) };
            let no_port =
                !bare && port.is_none() && part.rsplit_once(':').is_some_and(|(_, rest)| !rest.ends_with(']'));
            if host.is_empty() || no_port || host.contains(['/', '@', ' ']) {
                return Err(part.to_owned());
            }
            rules.hosts.push((host.to_ascii_lowercase(), port));
        }
        Ok(rules)
    }

    fn is_named(&self, authority: &str) -> bool {
        let (host, port) = split(authority);
        let host = host.to_ascii_lowercase();
        self.hosts.iter().any(|(known, only)| *known == host && (only.is_none() || *only == port))
    }

    fn has_folder(&self, folder: &Path) -> bool {
        let plain = folder.components().all(|part| !matches!(part, std::path::Component::ParentDir));
        plain && self.folders.iter().any(|known| folder.starts_with(known))
    }

    /// Whether a destination may be set. An administrator may name this host and folders; nobody a link-local address that is not named.
    ///
    /// # Errors
    /// A sentence about why not.
    pub fn check(&self, target: &Target, is_administrator: bool) -> Result<(), String> {
        match target {
            Target::Function(_) => Ok(()),
            Target::Folder(folder) if is_administrator || self.has_folder(folder) => Ok(()),
            Target::Folder(folder) => {
                Err(format!("the folder {} is not named in tasks.destinations", folder.display()))
            }
            Target::Webhook { authority, .. } => match told(split(authority).0) {
                None => Ok(()),
                Some(Reach::Loopback) if is_administrator => Ok(()),
                Some(_) if self.is_named(authority) => Ok(()),
                Some(reach) => Err(format!("{authority} is {}, and is not named in tasks.destinations", reach.name())),
            },
        }
    }

    /// Whether a notification may go to one of the addresses that a host has now. A host that says itself that it is this one was let through when it was set.
    ///
    /// # Errors
    /// A sentence about why not.
    pub fn check_address(&self, authority: &str, ip: IpAddr) -> Result<(), String> {
        let own_word = told(split(authority).0);
        match Reach::of(ip) {
            None => Ok(()),
            Some(reach) if own_word == Some(reach) && reach == Reach::Loopback => Ok(()),
            Some(_) if self.is_named(authority) => Ok(()),
            Some(reach) => {
                Err(format!("{authority} leads to {ip}, {}, and is not named in tasks.destinations", reach.name()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(authority: &str) -> Target {
        Target::Webhook { secure: false, authority: authority.to_owned(), path: "/".to_owned() }
    }

    #[test]
    fn this_host_its_links_and_folders_are_reached_where_they_are_named() {
        let none = DestinationRules::parse("none").unwrap();
        for authority in [
            "127.0.0.1:80",
            "127.9.9.9:81",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "0.0.0.0:80",
            "localhost:80",
            "LOCALHOST.:80",
            "a.localhost:80",
            "127.1:80",
            "2130706433:80",
            "0x7f.1:80",
        ] {
            assert!(none.check(&hook(authority), false).is_err(), "{authority}");
            assert_eq!(none.check(&hook(authority), true), Ok(()), "{authority}");
        }
        for authority in ["169.254.169.254:80", "[fe80::1]:80", "224.0.0.1:80"] {
            assert!(none.check(&hook(authority), true).is_err(), "{authority}");
        }
        for authority in ["example.com:443", "10.1.2.3:80", "[2001:db8::1]:80"] {
            assert_eq!(none.check(&hook(authority), false), Ok(()), "{authority}");
        }
        let folder = Target::Folder("/srv/out/a".into());
        assert!(none.check(&folder, false).is_err() && none.check(&folder, true).is_ok());
        assert_eq!(none.check(&Target::Function("f".to_owned()), false), Ok(()));

        let rules = DestinationRules::parse("127.0.0.1:8080, ::1, hooks.internal, 169.254.1.1, /srv/out").unwrap();
        for authority in ["127.0.0.1:8080", "[::1]:80", "169.254.1.1:99"] {
            assert_eq!(rules.check(&hook(authority), false), Ok(()), "{authority}");
        }
        assert!(rules.check(&hook("127.0.0.1:8081"), false).is_err());
        assert_eq!(rules.check(&folder, false), Ok(()));
        assert!(rules.check(&Target::Folder("/srv/out/../etc".into()), false).is_err());
        assert!(rules.check(&Target::Folder("/srv/output".into()), false).is_err());
        for wrong in ["a b", "http://x/", "x:99999", ":80"] {
            assert!(DestinationRules::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_that_leads_here_later_is_not_followed() {
        let rules = DestinationRules::parse("hooks.internal").unwrap();
        let here: IpAddr = "127.0.0.1".parse().unwrap();
        assert!(rules.check_address("evil.example:80", here).is_err());
        assert!(rules.check_address("evil.example:80", "169.254.169.254".parse().unwrap()).is_err());
        assert_eq!(rules.check_address("hooks.internal:80", here), Ok(()));
        assert_eq!(rules.check_address("localhost:80", here), Ok(()));
        assert_eq!(rules.check_address("evil.example:80", "192.0.2.1".parse().unwrap()), Ok(()));
    }
}
