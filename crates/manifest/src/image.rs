//! `image` with what belongs to it: the container that an instance is.

use std::path::Path;

use kip_spec::code;
use kip_spec::container::{Container, Mount, Network, PullPolicy};

use crate::keys;
use crate::report::{Report, shown};
use crate::section::{Field, Section};
use crate::tree::{Kind, Node};
use crate::value::{count, flag, quantity, refuse, word, wrong_type};

/// Bytes of a reference to an image.
const LONGEST: usize = 512;
/// Keys that mean something beside `image` only.
pub(crate) const BESIDE: [&str; 3] = ["entrypoint", "pull", "container"];

/// Reads the container of a function; its command was read before.
pub(crate) fn read(
    function: &Section<'_>,
    image: &Field<'_>,
    argv: Vec<String>,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<Container> {
    const POLICIES: [(&str, PullPolicy); 3] =
        [("missing", PullPolicy::Missing), ("always", PullPolicy::Always), ("never", PullPolicy::Never)];
    const NETWORKS: [(&str, Network); 2] = [("bridge", Network::Bridge), ("host", Network::Host)];
    let before = report.count();
    let reference = reference(image, report);
    let entrypoint = match function.field("entrypoint") {
        Some(field) => crate::program::command(&field, report).unwrap_or_default(),
        None => Vec::new(),
    };
    let pull = function.field("pull").and_then(|field| word(&field, &POLICIES, &[], report)).unwrap_or_default();
    let dir = function.field("dir").and_then(|field| absolute(&field, "a directory inside the container", report));
    let mut container =
        Container { image: reference.unwrap_or_default(), entrypoint, argv, pull, dir, ..Container::default() };
    if let Some(section) = function.section("container", &keys::CONTAINER, report) {
        let port = section.field("port").and_then(|field| count(&field, 1..=65_535, report));
        container.port = port.and_then(|port| u16::try_from(port).ok());
        container.user = section.field("user").and_then(|field| user(&field, report));
        container.shm = section.field("shm").and_then(|field| quantity(&field, "a size such as 256MiB", report));
        let network = section.field("network").and_then(|field| word(&field, &NETWORKS, &[], report));
        container.network = network.unwrap_or_default();
        container.hardened = section.field("hardened").is_some_and(|field| flag(&field, report));
        container.hosts = section.field("hosts").map(|field| list(&field, host, report)).unwrap_or_default();
        let mount = |text: &str| mount(text, folder);
        container.mounts = section.field("mounts").map(|field| list(&field, mount, report)).unwrap_or_default();
    }
    (report.count() == before).then_some(container)
}

/// `name`, `name:tag` or `name@sha256:…`, with a registry before the name or without.
fn reference(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    let Kind::Text(text) = &field.node.kind else {
        wrong_type(field, "the name of an image such as ghcr.io/team/ocr:3", report);
        return None;
    };
    let name = text.split('@').next().unwrap_or_default();
    let repository = name.rfind('/').map_or(name, |slash| &name[slash + 1..]).split(':').next().unwrap_or_default();
    let path = name.split('/').skip(usize::from(name.contains('/'))).collect::<String>();
    let fault = if text.is_empty() || text.len() > LONGEST {
        Some("is no name of an image")
    } else if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte)) {
        Some("has a character that no name of an image has")
    } else if repository.is_empty() || text.ends_with([':', '/', '@']) || text.contains("//") {
        Some("lacks a part")
    } else if path.split(':').next().unwrap_or_default().bytes().any(|byte| byte.is_ascii_uppercase())
        || repository.bytes().any(|byte| byte.is_ascii_uppercase())
    {
        Some("has an upper-case letter, which repositories cannot have")
    } else {
        None
    };
    if let Some(fault) = fault {
        let problem = refuse(field, code::MANIFEST_BAD_VALUE, format!("`{}` {fault}", shown(text)));
        report.add(field.node.at, problem.hint("write it as for `docker pull`: ghcr.io/team/ocr:3"));
        return None;
    }
    Some(text.clone())
}

fn absolute(field: &Field<'_>, what: &str, report: &mut Report<'_>) -> Option<String> {
    let Kind::Text(text) = &field.node.kind else {
        wrong_type(field, &format!("the path of {what}"), report);
        return None;
    };
    if !text.starts_with('/') {
        let message = format!("`{}` is not absolute", shown(text));
        let hint = "beside `image`, this is a path inside the container; build the files into the image, or mount them";
        report.add(field.node.at, refuse(field, code::MANIFEST_BAD_VALUE, message).hint(hint));
        return None;
    }
    Some(text.clone())
}

fn user(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = match &field.node.kind {
        Kind::Text(text) | Kind::Number(text) => text,
        _ => {
            wrong_type(field, "a user, or user:group", report);
            return None;
        }
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    if text.is_empty() || text.len() > 128 || !text.bytes().all(plain) {
        let message = format!("`{}` is no user", shown(text));
        let hint = "write a name or number that the image knows, or user:group";
        report.add(field.node.at, refuse(field, code::MANIFEST_BAD_VALUE, message).hint(hint));
        return None;
    }
    Some(text.clone())
}

/// A list of texts, each of which becomes a value or says what it should look like.
fn list<T>(field: &Field<'_>, read: impl Fn(&str) -> Result<T, &'static str>, report: &mut Report<'_>) -> Vec<T> {
    let Kind::List(items) = &field.node.kind else {
        wrong_type(field, "a list", report);
        return Vec::new();
    };
    let mut taken = Vec::with_capacity(items.len());
    for item in items {
        match text_of(item).map_or(Err("write text"), &read) {
            Ok(value) => taken.push(value),
            Err(hint) => {
                let message = format!("`{}` does not belong here", shown(text_of(item).unwrap_or("a map or list")));
                report.add(item.at, refuse(field, code::MANIFEST_BAD_VALUE, message).hint(hint));
            }
        }
    }
    taken
}

fn text_of(node: &Node) -> Option<&str> {
    node.scalar()
}

/// `name:address`.
fn host(text: &str) -> Result<String, &'static str> {
    const HINT: &str = "write name:address, such as db:10.0.0.7; host-gateway is the address of this host";
    let (name, address) = text.split_once(':').ok_or(HINT)?;
    let is_address = address == "host-gateway" || address.parse::<std::net::IpAddr>().is_ok();
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if is_name && is_address { Ok(text.to_owned()) } else { Err(HINT) }
}

/// `folder:path`, and `:rw` behind them for one that the container may write to.
fn mount(text: &str, folder: &Path) -> Result<Mount, &'static str> {
    const HINT: &str =
        "write folder:path, such as /srv/models:/models; with :rw behind it, the container may write to it";
    let mut parts = text.split(':');
    let (Some(source), Some(target)) = (parts.next(), parts.next()) else { return Err(HINT) };
    let writable = match (parts.next(), parts.next()) {
        (None | Some("ro"), None) => false,
        (Some("rw"), None) => true,
        _ => return Err(HINT),
    };
    if source.is_empty() || !target.starts_with('/') || target == "/" || target.split('/').any(|part| part == "..") {
        return Err(HINT);
    }
    let source = crate::program::resolve(folder, source).display().to_string();
    Ok(Mount { source, target: target.to_owned(), writable })
}
