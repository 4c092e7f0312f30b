//! The server's settings: defaults, `kipwake.toml`, environment, flags, in this order; each value knows where it comes from.

pub(crate) mod containers;
mod file;
mod functions;
mod gateway;
mod gpu_types;
pub(crate) mod models;
pub(crate) mod pools;
mod settings;
mod tasks;
mod value;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use kip_control::OverUse;
use kip_fleet::Inventory;
use kip_fleet::room::{Host, Pool, Quota, Turns};
use kip_records::cost::PriceBook;
use kip_records::{AccessLogOptions, TraceOptions};
use kip_spec::{Bytes, MilliCpu, Millis, Problem};

use self::file::FileDeclarations;
pub(crate) use self::gateway::Tls;
use self::settings::{Form, SETTINGS};
pub(crate) use self::value::{Origin, Value};
use self::value::{invalid, parse};
use crate::devices::{self, Device};

/// Where instances' memory is not declared, this share of the host's is theirs.
const HOST_SHARE_PERCENT: u64 = 90;

/// Threads of the gateway at most.
const MOST_THREADS: usize = 1_024;

/// The settings, in the data directory.
pub(crate) const FILE: &str = "kipwake.toml";

/// All settings, resolved.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    values: BTreeMap<&'static str, Value>,
    pub(crate) gateway: SocketAddr,
    pub(crate) api: SocketAddr,
    pub(crate) threads: usize,
    pub(crate) patience: Millis,
    /// What instances may take of this host.
    pub(crate) inventory: Inventory,
    pub(crate) devices: Vec<Device>,
    /// Types of devices by the vendor's.
    pub(crate) gpu_types: BTreeMap<String, String>,
    /// Where instances can be, in the order in which pools are filled: as many as the inventory has.
    pub(crate) pools: Vec<pools::PoolSetting>,
    /// Devices that are not declared are found.
    pub(crate) find_devices: bool,
    pub(crate) over_use: OverUse,
    /// Below it, shares of functions have their folders.
    pub(crate) storage: PathBuf,
    /// A library that keeps programs to their share of a device.
    pub(crate) limiter: Option<PathBuf>,
    file: PathBuf,
    pub(crate) filter: String,
    pub(crate) low: u64,
    pub(crate) reserve: u64,
    pub(crate) network: bool,
    pub(crate) retention: kip_records::Retention,
    pub(crate) access_log: Option<AccessLogOptions>,
    pub(crate) traces: Option<TraceOptions>,
    pub(crate) require_keys: Option<bool>,
    /// What time costs.
    pub(crate) prices: PriceBook,
    pub(crate) metrics: Metrics,
    pub(crate) limits: kip_gateway::Limits,
    /// Proxies whose word about callers is taken.
    pub(crate) proxies: Vec<IpAddr>,
    pub(crate) names: kip_gateway::Names,
    pub(crate) tls: Option<Tls>,
    /// What bounds tasks.
    pub(crate) tasks: kip_tasks::config::Options,
    /// What bounds deliveries.
    pub(crate) deliveries: kip_events::Options,
    /// Where the container engine is looked for, and what its containers may see of this host.
    pub(crate) containers: containers::Containers,
    /// Which images are kept, and how many.
    pub(crate) images: kip_control::ImageOptions,
    /// The model cache, hubs and downloads.
    pub(crate) models: kip_models::Options,
    /// What bounds exec sessions.
    pub(crate) exec: kip_control::ExecOptions,
    /// As whom functions run.
    pub(crate) isolation: kip_engine::IsolationOptions,
    /// How much of a function's folder a version captures.
    pub(crate) code: kip_snapshot::Limits,
}

/// What is shown at `/metrics`, and to whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metrics {
    /// Functions with series of their own.
    pub(crate) functions: usize,
    /// Without a key.
    pub(crate) open: bool,
}

/// What the command line says.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) gateway: Option<SocketAddr>,
    pub(crate) api: Option<String>,
}

impl Config {
    /// Reads the settings. A file that was named must exist; the data directory's own need not.
    pub(crate) fn read(data: &Path, named: Option<&Path>, flags: &Flags) -> Result<Self, Problem> {
        let mut values: BTreeMap<&'static str, Value> =
            SETTINGS.iter().map(|s| (s.key, Value { value: s.default.to_owned(), origin: Origin::Default })).collect();
        let mut declared = FileDeclarations::default();
        let file = named.map_or_else(|| data.join(FILE), Path::to_owned);
        match std::fs::read_to_string(&file) {
            Ok(text) => declared = file::read(&file, &text, &mut values)?,
            // A data directory that cannot be is for the one who makes it to explain.
            Err(error) if named.is_none() && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            }
            Err(error) => {
                return Err(invalid(format!("{} cannot be read", file.display())).cause(error.to_string()));
            }
        }
        unknown_variables(kip_host::environment::all().map(|(name, _)| name))?;
        for setting in SETTINGS {
            let variable = format!("{}{}", kip_host::environment::PREFIX, setting.key.to_uppercase().replace('.', "_"));
            if let Some(value) = kip_host::environment::read(&variable) {
                values.insert(setting.key, Value { value, origin: Origin::Environment { variable } });
            }
        }
        if let Some(value) = kip_host::environment::read(kip_host::environment::LOG) {
            let variable = kip_host::environment::LOG.to_owned();
            values.insert("log.filter", Value { value, origin: Origin::Environment { variable } });
        }
        if let Some(address) = flags.gateway {
            values.insert(
                "server.gateway",
                Value { value: address.to_string(), origin: Origin::Flag { flag: "--gateway" } },
            );
        }
        if let Some(address) = &flags.api {
            let value = address.trim_start_matches("http://").trim_end_matches('/').to_owned();
            values.insert("server.api", Value { value, origin: Origin::Flag { flag: "--api" } });
        }
        Self::resolve(data, values, declared, file)
    }

    fn resolve(
        data: &Path,
        values: BTreeMap<&'static str, Value>,
        FileDeclarations { devices, pools, gpu_types }: FileDeclarations,
        file: PathBuf,
    ) -> Result<Self, Problem> {
        let get = |key: &'static str| &values[key].value;
        let auto = |key: &'static str| get(key) == "auto";
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let config = Self {
            gateway: parse(&values, "server.gateway", "an address such as 127.0.0.1:5470")?,
            api: parse(&values, "server.api", "an address such as 127.0.0.1:5471")?,
            threads: if auto("server.threads") {
                cores
            } else {
                parse(&values, "server.threads", "a number such as 4, or auto")?
            },
            patience: parse(&values, "server.patience", "a duration such as 30s")?,
            inventory: inventory(&values, cores, &devices, &pools)?,
            pools,
            find_devices: match get("host.devices").as_str() {
                "auto" => true,
                "none" => false,
                other => return Err(invalid(format!("host.devices is auto or none, not `{other}`"))),
            },
            limiter: match get("sharing.limiter") {
                none if none == "none" => None,
                path if is_library(Path::new(&path)) => Some(path.into()),
                path => {
                    return Err(invalid(format!(
                        "sharing.limiter names {path}, which is no library: no ELF file, or no absolute path"
                    )));
                }
            },
            over_use: match get("sharing.over_use").as_str() {
                "charge" => OverUse::Charge,
                "replace" => OverUse::Replace,
                other => return Err(invalid(format!("sharing.over_use is charge or replace, not `{other}`"))),
            },
            devices,
            gpu_types,
            file,
            filter: get("log.filter").clone(),
            low: parse::<Bytes>(&values, "disk.low", "a size such as 64MiB")?.0,
            reserve: parse::<Bytes>(&values, "disk.reserve", "a size such as 16MiB")?.0,
            network: match get("disk.network").as_str() {
                "allow" => true,
                "refuse" => false,
                other => return Err(invalid(format!("disk.network is refuse or allow, not `{other}`"))),
            },
            retention: kip_records::Retention {
                count: parse(&values, "records.count", "a number such as 100000")?,
                age: parse::<Millis>(&values, "records.age", "a duration such as 30d")?.0,
            },
            limits: gateway::limits(&values)?,
            proxies: gateway::proxies(get("server.proxies"))?,
            names: gateway::names(get("gateway.hosts"), get("gateway.origins"))?,
            tls: gateway::tls(&values)?,
            tasks: tasks::options(&values)?,
            deliveries: tasks::deliveries(&values)?,
            containers: containers::read(&values)?,
            images: containers::images(&values)?,
            models: models::options(data, &values)?,
            exec: exec(&values)?,
            isolation: functions::isolation(&values)?,
            code: functions::code(&values)?,
            access_log: gateway::access_log(data, &values)?,
            storage: data.join(&values["storage.root"].value),
            traces: gateway::traces(&values)?,
            require_keys: match auto("gateway.require_keys") {
                true => None,
                false => Some(parse(&values, "gateway.require_keys", "true, false or auto")?),
            },
            prices: prices(data, get("cost.prices"))?,
            metrics: Metrics {
                functions: parse(&values, "metrics.functions", "a number such as 1000")?,
                open: parse(&values, "metrics.open", "true or false")?,
            },
            values,
        };
        if config.threads == 0 || config.threads > MOST_THREADS {
            return Err(invalid(format!("server.threads must be at least 1 and at most {MOST_THREADS}")));
        }
        if let Err(error) = config.filter.parse::<tracing_subscriber::EnvFilter>() {
            return Err(
                invalid(format!("log.filter: `{}` is not a log filter", config.filter)).cause(error.to_string())
            );
        }
        Ok(config)
    }

    /// Gives the host these devices.
    pub(crate) fn use_devices(&mut self, devices: Vec<Device>) {
        let local = self.pools.iter().position(pools::PoolSetting::is_local).unwrap_or(0);
        if let Some(host) = self.inventory.pools.get_mut(local).and_then(|pool| pool.hosts.first_mut()) {
            host.devices = devices.iter().map(Into::into).collect();
        }
        self.devices = devices;
    }

    /// Every setting with its value and origin, by key.
    pub(crate) fn values(&self) -> BTreeMap<String, Value> {
        let origin = || Origin::File { path: self.file.clone() };
        let device = |device: &Device| {
            (format!("device.{}", device.name), Value { value: device.described(), origin: origin() })
        };
        let pool = |pool: &pools::PoolSetting| {
            (format!("pool.{}", pool.name), Value { value: pool.described(), origin: origin() })
        };
        let pools = self.pools.iter().filter(|_| self.pools.len() > 1).map(pool);
        let settings = self.values.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        settings.chain(self.devices.iter().map(device)).chain(pools).collect()
    }
}

/// What instances may take of this host, and of the others that are pools.
fn inventory(
    values: &BTreeMap<&'static str, Value>,
    cores: usize,
    devices: &[Device],
    pools: &[pools::PoolSetting],
) -> Result<Inventory, Problem> {
    let auto = |key: &'static str| values[key].value == "auto";
    let limit = |key: &'static str| match values[key].value.as_str() {
        "none" => Ok(None),
        _ => parse::<u32>(values, key, "a number such as 4, or none").map(Some),
    };
    let cpu = if auto("host.cpu") {
        MilliCpu(u64::try_from(cores).unwrap_or(u64::MAX).saturating_mul(1_000))
    } else {
        parse(values, "host.cpu", "a number of cores such as 8 or 7500m, or auto")?
    };
    if cpu == MilliCpu(0) {
        return Err(invalid("host.cpu must be more than 0".to_owned()));
    }
    let memory = if auto("host.memory") {
        host_memory() / 100 * HOST_SHARE_PERCENT
    } else {
        parse::<Bytes>(values, "host.memory", "a size such as 24GiB, or auto")?.0
    };
    let host = Host { cpu: cpu.0, memory, devices: devices.iter().map(Into::into).collect() };
    let quota = Quota { cards: limit("quota.cards")?, instances: limit("quota.instances")? };
    if quota.instances == Some(0) {
        return Err(invalid("quota.instances must be at least 1, or none".to_owned()));
    }
    let turns = Turns { longest: parse::<Millis>(values, "sharing.longest_turn", "a duration such as 60s")?.0 };
    let own = Pool { name: pools::LOCAL.to_owned(), max: None, hosts: vec![host] };
    let mut inventory = Inventory { pools: vec![own], quota, turns };
    pools::add(&mut inventory, pools)?;
    Ok(inventory)
}

/// What bounds exec sessions.
fn exec(values: &BTreeMap<&'static str, Value>) -> Result<kip_control::ExecOptions, Problem> {
    let idle = parse::<Millis>(values, "exec.idle", "a duration such as 10m")?;
    let of_instance = parse(values, "exec.of_instance", "a number such as 8")?;
    let sessions = parse(values, "exec.sessions", "a number such as 64")?;
    if idle == Millis(0) {
        return Err(
            invalid("exec.idle must be more than 0".to_owned()).hint("`exec.sessions = 0` allows no exec session")
        );
    }
    Ok(kip_control::ExecOptions { of_instance, sessions, idle: idle.to_std() })
}

/// The price book that a setting names, the built-in one where it names none.
fn prices(data: &Path, file: &str) -> Result<PriceBook, Problem> {
    if file == "none" {
        return Ok(PriceBook::function_compute());
    }
    let file = data.join(file);
    let wrong = |why: String| {
        invalid(format!("cost.prices: {} is no price book", file.display()))
            .cause(why)
            .hint("`kip cost book` prints one to start from")
    };
    let text = std::fs::read_to_string(&file).map_err(|error| wrong(error.to_string()))?;
    crate::commands::cost::read_book(&text).map_err(wrong)
}

/// Whether the loader could load a file into a program.
fn is_library(path: &Path) -> bool {
    let mut head = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut head));
    path.is_absolute() && read.is_ok() && head == *b"\x7fELF"
}

/// Refuses a variable that is nearly a setting's: it would be overlooked.
fn unknown_variables(names: impl Iterator<Item = String>) -> Result<(), Problem> {
    /// Likeness from which a name is taken for a misspelt one.
    const ALIKE: f64 = 0.9;
    let variable = |setting: &self::settings::Setting| {
        format!("{}{}", kip_host::environment::PREFIX, setting.key.to_uppercase().replace('.', "_"))
    };
    let known: Vec<String> = SETTINGS.iter().map(variable).collect();
    for name in names.filter(|name| name.starts_with(kip_host::environment::PREFIX)) {
        // What this project's tests are told is no setting of a server that they start.
        let is_of_tests = name.starts_with("KIPWAKE_TEST_");
        if is_of_tests || known.contains(&name) || kip_host::environment::OWN.contains(&name.as_str()) {
            continue;
        }
        let likeness = |known: &&String| strsim::jaro_winkler(known, &name);
        let near = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        if let Some(near) = near.filter(|near| likeness(near) >= ALIKE) {
            return Err(invalid(format!("there is no setting for the variable `{name}`"))
                .hint(format!("did you mean `{near}`? `kip config show` lists the settings")));
        }
    }
    Ok(())
}

fn host_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    // A host that does not say has room for little.
    kib.map_or(1 << 30, |kib| kib << 10)
}

/// The JSON schema of `kipwake.toml`.
pub(crate) fn schema() -> serde_json::Value {
    let mut sections: BTreeMap<&str, serde_json::Map<String, serde_json::Value>> = BTreeMap::new();
    for setting in SETTINGS {
        let Some((section, name)) = setting.key.split_once('.') else { continue };
        let kind = match setting.form {
            Form::Count => serde_json::json!(["string", "integer"]),
            Form::Share => serde_json::json!(["string", "number"]),
            Form::Switch => serde_json::json!(["string", "boolean"]),
            _ => serde_json::json!("string"),
        };
        let entry = serde_json::json!({"type": kind, "default": setting.default, "description": setting.about});
        sections.entry(section).or_default().insert(name.to_owned(), entry);
    }
    let mut properties: serde_json::Map<String, serde_json::Value> = sections
        .into_iter()
        .map(|(section, entries)| {
            let value = serde_json::json!({"type": "object", "additionalProperties": false, "properties": entries});
            (section.to_owned(), value)
        })
        .collect();
    properties.insert("device".to_owned(), devices::schema());
    properties.insert("gpu_types".to_owned(), gpu_types::schema());
    properties.insert("pool".to_owned(), pools::schema());
    serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kipwake.toml",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

#[cfg(test)]
mod tests {
    use kip_spec::code;

    use super::*;

    fn read(text: &str) -> Result<Config, Problem> {
        let data = tempfile::tempdir().unwrap();
        std::fs::write(data.path().join("kipwake.toml"), text).unwrap();
        Config::read(data.path(), None, &Flags::default())
    }

    #[test]
    fn later_layers_win_and_each_value_knows_its_origin() {
        let data = tempfile::tempdir().unwrap();
        std::fs::write(data.path().join("kipwake.toml"), "[server]\ngateway = \"127.0.0.1:7001\"\nthreads = 3\n")
            .unwrap();
        let flags = Flags { gateway: Some("127.0.0.1:7002".parse().unwrap()), api: None };
        let config = Config::read(data.path(), None, &flags).unwrap();
        assert_eq!((config.gateway.port(), config.threads), (7002, 3));
        assert_eq!(config.values()["server.gateway"].origin, Origin::Flag { flag: "--gateway" });
        assert!(matches!(config.values()["server.threads"].origin, Origin::File { .. }));
        assert_eq!(config.values()["server.api"].origin, Origin::Default);
    }

    #[test]
    fn mistakes_are_named_with_a_way_out() {
        for (text, said) in [
            ("[server]\ngatewy = \"127.0.0.1:1\"", "did you mean `server.gateway`"),
            ("[server]\npatience = 30", "must be written as text with its unit"),
            ("[server]\npatience = \"30\"", "has no unit"),
            ("[server]\ngateway = \"nowhere\"", "is not an address"),
            ("[server]\nthreads = 0", "at least 1"),
            ("server = 1", "there is no setting `server`"),
            ("[log]\nfilter = \"=x=\"", "is not a log filter"),
            ("[", "is not valid TOML"),
            ("[host]\ncpu = \"many\"", "is not a number of cores"),
            ("[quota]\ncards = \"few\"", "is not a number"),
            ("[quota]\ninstances = 0", "at least 1"),
            ("[metrics]\nopen = \"perhaps\"", "is not true or false"),
            ("[metrics]\nfunctions = true", "must be written as text"),
            ("[gateway]\naccess_log_size = \"64\"", "has no unit"),
            ("[[device]]\nname = \"gpu0\"\nmemory = \"24\"", "has no unit"),
            ("[limits]\nhead = \"1B\"", "leave room for a request"),
            ("[limits]\ntarget = \"1MiB\"", "at most 63KiB"),
            ("[limits]\nidle = \"soon\"", "is not a duration"),
            ("[server]\nproxies = \"front\"", "is not an address"),
            ("[tls]\nlisten = \"127.0.0.1:0\"", "are needed together"),
            ("[traces]\nendpoint = \"collector\"", "is not an address"),
            ("[traces]\nshare = 2", "from 0 to 1"),
            ("[images]\nsize = \"much\"", "images.size"),
            ("[images]\nkeep = \"a b\"", "is not the name of an image"),
            ("[[devices]]\nname = \"gpu0\"", "there is no setting `devices`"),
        ] {
            let problem = read(text).unwrap_err();
            let shown = format!("{problem} {}", problem.hint.clone().unwrap_or_default());
            assert!(shown.contains(said), "{text}: {shown}");
            assert_eq!(problem.code, code::CONFIG_INVALID);
        }
    }

    #[test]
    fn what_instances_may_take_is_one_inventory() {
        let text = "[host]\ncpu = \"2.5\"\nmemory = \"8GiB\"\n[quota]\ncards = 1\n\
                    [[device]]\nname = \"gpu0\"\nmemory = \"24GiB\"\ntype = \"L4\"\n";
        let config = read(text).unwrap();
        let host = &config.inventory.pools[0].hosts[0];
        assert_eq!((host.cpu, host.memory, host.devices.len()), (2_500, 8 << 30, 1));
        assert_eq!(config.inventory.quota, Quota { cards: Some(1), instances: None });
        assert_eq!(config.values()["device.gpu0"].value, "24GiB, type L4");
    }

    #[test]
    fn the_access_log_is_off_unless_it_has_a_place() {
        assert!(read("").unwrap().access_log.is_none());
        let stderr = read("[gateway]\naccess_log = \"stderr\"\naccess_log_query = true").unwrap().access_log.unwrap();
        assert_eq!((stderr.target, stderr.query), (kip_records::AccessLogTarget::Stderr, true));
        let file = read("[gateway]\naccess_log = \"logs/a\"").unwrap().access_log.unwrap();
        let kip_records::AccessLogTarget::File { path, most } = file.target else { panic!("{file:?}") };
        assert!(path.is_absolute() && path.ends_with("logs/a") && most == 64 << 20 && !file.query, "{path:?}");
    }

    /// The example of docs/devices.md is read as it stands.
    #[test]
    fn the_example_in_the_docs_is_right() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/devices.md");
        let text = std::fs::read_to_string(page).unwrap();
        let example = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let config = read(example).unwrap();
        assert_eq!(config.inventory.pools[0].hosts[0].devices.len(), 2);
        assert_eq!(config.inventory.quota, Quota { cards: Some(2), instances: Some(40) });
    }

    #[test]
    fn a_named_file_must_exist() {
        let data = tempfile::tempdir().unwrap();
        assert!(Config::read(data.path(), Some(Path::new("/nowhere.toml")), &Flags::default()).is_err());
        assert!(Config::read(data.path(), None, &Flags::default()).is_ok());
    }
}
