//! `[[pool]]` of `kipwake.toml`: this host, in one piece or several, and named engines.

use std::net::IpAddr;
use std::path::PathBuf;

use kip_fleet::Inventory;
use kip_fleet::room::{Host, Pool};
use kip_spec::{Bytes, MilliCpu, Millis, Problem};
use toml::Table;

use super::value::invalid;
use crate::devices::{self, Device};

/// The pool that is this host, where no other one is declared.
pub(crate) const LOCAL: &str = "local";
/// The socket of an engine on another host, where none is named.
const THERE: &str = "/var/run/docker.sock";
/// As many as an instance's need has bits for.
const MOST: usize = 64;
/// Characters of a name: it is part of the path of a socket.
const LONGEST_NAME: usize = 32;
/// How long an engine may be away until its instances count as ended.
const LOST_AFTER: Millis = Millis::from_secs(300);
const KEYS: [&str; 12] = [
    "name",
    "engine",
    "address",
    "ssh_config",
    "priority",
    "max",
    "cpu",
    "memory",
    "mounts",
    "price",
    "lost_after",
    "device",
];

/// Where the instances of a pool run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PoolEngine {
    /// On this host, as its processes or containers.
    Local,
    /// On the engine behind this socket.
    Socket(PathBuf),
    /// On an engine of another host.
    Ssh {
        /// `host` or `user@host`.
        host: String,
        port: Option<u16>,
        /// The engine's socket there.
        socket: String,
    },
}

/// A pool as it is declared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PoolSetting {
    pub(crate) name: String,
    pub(crate) engine: PoolEngine,
    /// As it was written.
    pub(crate) written: String,
    pub(crate) address: Option<IpAddr>,
    pub(crate) ssh_config: Option<PathBuf>,
    pub(crate) priority: i64,
    pub(crate) max: Option<u32>,
    pub(crate) cpu: Option<MilliCpu>,
    pub(crate) memory: Option<Bytes>,
    pub(crate) mounts: Vec<PathBuf>,
    pub(crate) price: Option<f64>,
    pub(crate) lost_after: Millis,
    pub(crate) devices: Vec<Device>,
}

impl PoolSetting {
    /// The whole of this host.
    pub(crate) fn local() -> Self {
        Self {
            name: LOCAL.to_owned(),
            engine: PoolEngine::Local,
            written: LOCAL.to_owned(),
            address: None,
            ssh_config: None,
            priority: 0,
            max: None,
            cpu: None,
            memory: None,
            mounts: Vec::new(),
            price: None,
            lost_after: LOST_AFTER,
            devices: Vec::new(),
        }
    }

    pub(crate) fn is_local(&self) -> bool {
        self.engine == PoolEngine::Local
    }

    /// In a line.
    pub(crate) fn described(&self) -> String {
        let max = self.max.map(|max| format!(", at most {max} instances")).unwrap_or_default();
        format!("{}, priority {}{max}", self.written, self.priority)
    }
}

/// Reads the list, in the order in which it is written.
pub(crate) fn read(value: &toml::Value) -> Result<Vec<PoolSetting>, Problem> {
    let list = || invalid("`pool` must be a list of tables".to_owned()).hint("write [[pool]] above each one");
    let toml::Value::Array(entries) = value else { return Err(list()) };
    let mut pools: Vec<PoolSetting> = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        let toml::Value::Table(table) = entry else { return Err(list()) };
        let pool = one(number, table)?;
        if pools.iter().any(|other| other.name == pool.name) {
            return Err(invalid(format!("two pools are called `{}`", pool.name)).hint("give each its own name"));
        }
        pools.push(pool);
    }
    if !pools.iter().any(PoolSetting::is_local) {
        if pools.iter().any(|pool| pool.name == LOCAL) {
            return Err(invalid("the pool `local` is this host: give another engine another name".to_owned())
                .hint("or write engine = \"local\""));
        }
        pools.insert(0, PoolSetting::local());
    }
    if pools.len() > MOST {
        return Err(invalid(format!("{} pools are declared; {MOST} are the most", pools.len())));
    }
    if pools.iter().filter(|pool| pool.is_local()).count() > 1 {
        let lacks = |pool: &&PoolSetting| pool.is_local() && (pool.cpu.is_none() || pool.memory.is_none());
        if let Some(pool) = pools.iter().find(lacks) {
            let message =
                format!("pool `{}`: this host is several pools, and each needs `cpu` and `memory`", pool.name);
            return Err(invalid(message).hint("for example cpu = \"4\" and memory = \"16GiB\""));
        }
    }
    // Sorting is stable: the order of the file decides between equals.
    pools.sort_by(|a, b| {
        let price = |pool: &PoolSetting| pool.price.unwrap_or(0.0);
        b.priority.cmp(&a.priority).then(price(a).total_cmp(&price(b)))
    });
    Ok(pools)
}

fn one(number: usize, table: &Table) -> Result<PoolSetting, Problem> {
    let at = table.get("name").and_then(toml::Value::as_str);
    let at = at.map_or_else(|| format!("pool {}", number + 1), |name| format!("pool `{name}`"));
    let wrong = |key: &str, what: String, hint: &str| invalid(format!("{at}: {key}: {what}")).hint(hint.to_owned());
    if let Some(unknown) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(
            invalid(format!("{at}: there is no key `{unknown}`")).hint(format!("a pool has {}", KEYS.join(", ")))
        );
    }
    let text = |key: &'static str, hint: &str| match table.get(key) {
        None => Ok(None),
        Some(toml::Value::String(text)) => Ok(Some(text.as_str())),
        Some(other) => Err(wrong(key, format!("it must be text, not {}", other.type_str()), hint)),
    };
    let whole = |key: &'static str| match table.get(key) {
        None => Ok(None),
        Some(toml::Value::Integer(number)) => Ok(Some(*number)),
        Some(other) => Err(wrong(key, format!("it must be a whole number, not {other}"), "for example 10")),
    };
    let need = |key: &'static str, hint: &str| invalid(format!("{at}: `{key}` is missing")).hint(hint.to_owned());
    let example = "name = \"rack-2\"";
    let name = text("name", example)?.ok_or_else(|| need("name", example))?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(plain) {
        let hint = format!("at most {LONGEST_NAME} small letters, digits and `-`");
        return Err(wrong("name", format!("`{name}` is not a name"), &hint));
    }
    let example = "engine = \"ssh://user@host\", the path of a socket, or \"local\"";
    let written = text("engine", example)?.ok_or_else(|| need("engine", example))?;
    let engine = engine(written).map_err(|what| wrong("engine", what, example))?;
    let unit = |error: kip_spec::units::UnitError| error.to_string();
    let size = "memory = \"32GiB\"";
    let memory =
        text("memory", size)?.map(str::parse::<Bytes>).transpose().map_err(|e| wrong("memory", unit(e), size))?;
    let cores = "cpu = \"8\"";
    let cpu = text("cpu", cores)?.map(str::parse::<MilliCpu>).transpose().map_err(|e| wrong("cpu", unit(e), cores))?;
    let local = engine == PoolEngine::Local;
    if !local && (cpu.is_none() || memory.is_none()) {
        let key = if cpu.is_none() { "cpu" } else { "memory" };
        return Err(need(key, "a named engine needs `cpu` and `memory`: how much of its host instances may reserve"));
    }
    let hint = "the address of the engine's host at which ports of instances are published, such as 10.0.0.2";
    let address = text("address", hint)?.map(|text| text.parse::<IpAddr>().map_err(|_| text));
    let address =
        address.transpose().map_err(|text| wrong("address", format!("`{text}` is not an IP address"), hint))?;
    let hint = "lost_after = \"5m\"";
    let lost_after = text("lost_after", hint)?.map(str::parse::<Millis>).transpose();
    let lost_after = lost_after.map_err(|error| wrong("lost_after", unit(error), hint))?.unwrap_or(LOST_AFTER);
    let ssh_config = text("ssh_config", "the path of a file of settings for ssh")?.map(PathBuf::from);
    if ssh_config.is_some() && !matches!(engine, PoolEngine::Ssh { .. }) {
        return Err(wrong("ssh_config", "it is for engines that are reached by ssh".to_owned(), example));
    }
    let only_named = [
        ("address", address.is_some()),
        ("mounts", table.contains_key("mounts")),
        ("device", table.contains_key("device")),
    ];
    if let Some((key, _)) = only_named.iter().find(|(_, given)| local && *given) {
        let hint = "of this host: containers.mounts, and [[device]] for the devices, which the first local pool has";
        return Err(wrong(key, "it is for named engines".to_owned(), hint));
    }
    let mut mounts = Vec::new();
    for folder in text("mounts", "mounts = \"/srv/models\"")?.unwrap_or_default().split(',').map(str::trim) {
        let path = PathBuf::from(folder);
        match folder {
            "" => {}
            _ if path.is_absolute() && path.parent().is_some() => mounts.push(path),
            _ => {
                return Err(wrong(
                    "mounts",
                    format!("`{folder}` is not an absolute folder below /"),
                    "mounts = \"/srv/models\"",
                ));
            }
        }
    }
    let max = whole("max")?.map(u32::try_from).transpose();
    let max = max.map_err(|_| wrong("max", "it is too large or below 0".to_owned(), "max = 4"))?;
    let price = match table.get("price") {
        None => None,
        Some(toml::Value::Integer(price)) => Some(*price as f64),
        Some(toml::Value::Float(price)) => Some(*price),
        Some(other) => return Err(wrong("price", format!("it must be a number, not {other}"), "price = 0.8")),
    };
    if price.is_some_and(|price| !price.is_finite() || price < 0.0) {
        return Err(wrong("price", "it must be at least 0".to_owned(), "price = 0.8"));
    }
    let devices = table.get("device").map(devices::read).transpose();
    let devices = devices.map_err(|problem| Problem { message: format!("{at}: {}", problem.message), ..problem })?;
    Ok(PoolSetting {
        name: name.to_owned(),
        engine,
        written: written.to_owned(),
        address,
        ssh_config,
        priority: whole("priority")?.unwrap_or(0),
        max,
        cpu,
        memory,
        mounts,
        price,
        lost_after,
        devices: devices.unwrap_or_default(),
    })
}

fn engine(text: &str) -> Result<PoolEngine, String> {
    if text == LOCAL {
        return Ok(PoolEngine::Local);
    }
    let Some(rest) = text.strip_prefix("ssh://") else {
        let path = PathBuf::from(text.strip_prefix("unix://").unwrap_or(text));
        return match path.is_absolute() {
            true => Ok(PoolEngine::Socket(path)),
            false => Err(format!("`{text}` is neither local, nor the path of a socket, nor ssh://")),
        };
    };
    let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().map_err(|_| format!("`{port}` is not a port"))?)),
        None => (host, None),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    if host.is_empty() || host.starts_with('-') || !host.bytes().all(plain) {
        return Err(format!("`{host}` is not a host"));
    }
    let is_path = |path: &str| path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    if !is_path(path) {
        return Err(format!("`{path}` is not the path of a socket"));
    }
    let socket = if path.trim_matches('/').is_empty() { THERE } else { path };
    Ok(PoolEngine::Ssh { host: host.to_owned(), port, socket: socket.to_owned() })
}

/// Puts the pools into the inventory, whose only pool is this host.
///
/// # Errors
/// Two devices with one name.
pub(super) fn add(inventory: &mut Inventory, pools: &[PoolSetting]) -> Result<(), Problem> {
    let Some(own) = inventory.pools.first().and_then(|pool| pool.hosts.first()).cloned() else { return Ok(()) };
    let mut devices = Some(own.devices.clone());
    let pool = |setting: &PoolSetting| {
        let host = Host {
            cpu: setting.cpu.map_or(own.cpu, |cpu| cpu.0),
            memory: setting.memory.map_or(own.memory, |memory| memory.0),
            devices: match setting.is_local() {
                true => devices.take().unwrap_or_default(),
                false => setting.devices.iter().map(Into::into).collect(),
            },
        };
        Pool { name: setting.name.clone(), max: setting.max, hosts: vec![host] }
    };
    inventory.pools = pools.iter().map(pool).collect();
    let mut names: Vec<&str> = inventory
        .pools
        .iter()
        .flat_map(|pool| &pool.hosts)
        .flat_map(|host| &host.devices)
        .map(|d| d.name.as_str())
        .collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let message = format!("two devices are called `{}`", pair[0]);
        return Err(invalid(message).hint("a name stands for one device, whichever pool it is in"));
    }
    Ok(())
}

/// The list in the schema of `kipwake.toml`.
pub(super) fn schema() -> serde_json::Value {
    let text = |description: &str| serde_json::json!({"type": "string", "description": description});
    serde_json::json!({
        "type": "array",
        "maxItems": MOST,
        "description": "where instances can be; without any, this host",
        "items": {
            "type": "object",
            "additionalProperties": false,
            "required": ["name", "engine"],
            "properties": {
                "name": {"type": "string", "pattern": "^[a-z0-9-]+$", "maxLength": LONGEST_NAME, "description": "what it is called"},
                "engine": text("local, the path of an engine's socket, or ssh://user@host:port/path/of/the/socket"),
                "address": text("the address of the engine's host at which ports of instances are published; ssh carries them if left out"),
                "ssh_config": text("a file of settings for ssh in place of the user's"),
                "priority": {"type": "integer", "default": 0, "description": "pools with a larger one are filled first"},
                "max": {"type": "integer", "minimum": 0, "description": "instances in it at most"},
                "cpu": text("cores that instances may reserve"),
                "memory": text("memory that instances may reserve"),
                "mounts": text("folders of that host, by commas, below which folders may be mounted"),
                "price": {"type": "number", "minimum": 0, "description": "the price of an instance for an hour; of pools with the same priority the cheaper one is filled first"},
                "lost_after": {"type": "string", "default": LOST_AFTER.to_string(), "description": "how long the engine may be away until its instances count as ended"},
                "device": devices::schema(),
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<PoolSetting>, Problem> {
        let table: Table = text.parse().unwrap();
        read(&table["pool"])
    }

    #[test]
    fn pools_are_in_the_order_in_which_they_are_filled() {
        let text = "[[pool]]\nname = \"dear\"\nengine = \"/run/a.sock\"\ncpu = \"4\"\nmemory = \"8GiB\"\nprice = 2\n\
                    [[pool]]\nname = \"cheap\"\nengine = \"unix:///run/b.sock\"\ncpu = \"4\"\nmemory = \"8GiB\"\nprice = 0.5\nmax = 3\n\
                    [[pool.device]]\nname = \"far0\"\nmemory = \"24GiB\"\n\
                    [[pool]]\nname = \"first\"\nengine = \"ssh://kip@rack:2222/run/podman/podman.sock\"\ncpu = \"4\"\nmemory = \"8GiB\"\npriority = 5\n";
        let pools = parsed(text).unwrap();
        let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
        assert_eq!(names, ["first", "local", "cheap", "dear"]);
        let engine = PoolEngine::Ssh {
            host: "kip@rack".to_owned(),
            port: Some(2222),
            socket: "/run/podman/podman.sock".to_owned(),
        };
        assert_eq!(pools[0].engine, engine);
        let mut inventory = Inventory::of_memory(1 << 30);
        add(&mut inventory, &pools).unwrap();
        assert_eq!(inventory.pools[1].hosts[0].memory, 1 << 30);
        assert_eq!((inventory.pools[2].max, inventory.pools[2].hosts[0].devices[0].name.as_str()), (Some(3), "far0"));
    }

    #[test]
    fn mistakes_are_named() {
        let named = |rest: &str| format!("[[pool]]\nname = \"a\"\nengine = \"/a.sock\"\n{rest}");
        for (text, said) in [
            ("pool = 1".to_owned(), "list of tables"),
            ("[[pool]]\nengine = \"local\"".to_owned(), "`name` is missing"),
            ("[[pool]]\nname = \"a\"".to_owned(), "`engine` is missing"),
            ("[[pool]]\nname = \"A b\"\nengine = \"local\"".to_owned(), "is not a name"),
            ("[[pool]]\nname = \"a\"\nengine = \"tcp://h:1\"".to_owned(), "nor ssh://"),
            ("[[pool]]\nname = \"a\"\nengine = \"ssh://-oProxyCommand=x\"".to_owned(), "is not a host"),
            (named(""), "`cpu` is missing"),
            (named("cpu = \"1\"\nmemory = \"1\""), "memory"),
            (named("cpu = \"1\"\nmemory = \"1GiB\"\nmax = -1"), "below 0"),
            (named("cpu = \"1\"\nmemory = \"1GiB\"\nmounts = \"srv\""), "not an absolute folder"),
            (named("cpu = \"1\"\nmemory = \"1GiB\"\nssh_config = \"/x\""), "reached by ssh"),
            (named("prise = 1"), "no key `prise`"),
            ("[[pool]]\nname = \"a\"\nengine = \"local\"\nmounts = \"/x\"".to_owned(), "for named engines"),
            (
                "[[pool]]\nname = \"a\"\nengine = \"local\"\n[[pool]]\nname = \"b\"\nengine = \"local\"".to_owned(),
                "several pools",
            ),
        ] {
            let problem = parsed(&text).unwrap_err();
            let shown = format!("{problem} {}", problem.hint.clone().unwrap_or_default());
            assert!(shown.contains(said), "{text}: {shown}");
        }
    }
}
