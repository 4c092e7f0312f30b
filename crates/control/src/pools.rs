//! Pools: which of them can run a function, how they are shown, and what becomes of them when their engine does not answer.

use kip_engine::mounts;
use kip_fleet::room::RoomNeed;
use kip_fleet::{Event, ToPlacer};
use kip_records::decision::Decision;
use kip_spec::function::{FunctionSpec, Program};
use kip_spec::{InstanceId, Problem, code};
use kip_store::{DecisionRecord, Record};
use kip_wire::{PoolHost, PoolStatus};

use crate::control::Control;
use crate::devices;
use crate::options::PoolOptions;
use crate::shared::Shared;

impl Shared {
    /// Why a pool cannot run a function; none if it can.
    fn pool_refuses(&self, pool: &PoolOptions, spec: &FunctionSpec) -> Option<String> {
        let Program::Image(container) = &spec.program else {
            return (!pool.local).then(|| "only functions with an `image` run there".to_owned());
        };
        if spec.job.is_some() && !pool.local {
            return Some("jobs run on the local host".to_owned());
        }
        let checked = match pool.local {
            true => mounts::check(container, &pool.mounts),
            false => mounts::check_names(container, &pool.mounts),
        };
        checked.err().map(|error| error.to_string())
    }

    /// The pools in which a function cannot run, a bit each.
    pub(crate) fn barred(&self, spec: &FunctionSpec) -> u64 {
        let pools = self.options.pools.iter().enumerate().take(64);
        let refuses = |(_, pool): &(usize, &PoolOptions)| self.pool_refuses(pool, spec).is_some();
        let barred = pools.filter(refuses).fold(0u64, |bits, (number, _)| bits | 1 << number);
        // Where nothing can run it, the refusals of engines and of the ledger say more.
        if barred.count_ones() as usize == self.options.pools.len() { 0 } else { barred }
    }

    /// What an instance of a function reserves, and where it cannot be.
    pub(crate) fn need_of(&self, spec: &FunctionSpec) -> RoomNeed {
        RoomNeed { barred: self.barred(spec), ..RoomNeed::from(&spec.resources) }
    }

    /// The name of the pool that an instance is in; none where there is only one.
    pub(crate) fn pool_name(&self, pool: u16) -> Option<&str> {
        let pools = &self.options.inventory.pools;
        (pools.len() > 1).then(|| pools.get(usize::from(pool)).map(|pool| pool.name.as_str())).flatten()
    }

    /// Whether a pool is this host, or a part of it.
    pub(crate) fn is_local(&self, pool: u16) -> bool {
        self.options.pools.get(usize::from(pool)).is_none_or(|pool| pool.local)
    }

    /// The number of a pool by its name.
    pub(crate) fn pool_named(&self, name: &str) -> Option<u16> {
        let at = self.options.inventory.pools.iter().position(|pool| pool.name == name)?;
        u16::try_from(at).ok()
    }

    /// What runs the instances of a pool does not answer, or answers again.
    pub(crate) fn pool_answers(&self, pool: u16, answers: bool) {
        self.tell_placer(if answers { ToPlacer::Find { pool } } else { ToPlacer::Lose { pool } });
    }

    /// A body lost touch with an instance, or is in touch with it again: meanwhile requests go to others.
    pub(crate) fn reach(&self, instance: InstanceId, reachable: bool) {
        let Some(cell) = self.owner(instance) else { return };
        let place = cell.place_of(instance);
        let pool = self.options.inventory.pools.get(usize::from(place.pool)).map_or("local", |pool| pool.name.as_str());
        let (to, why) = match reachable {
            true => ("reachable", format!("the engine of the pool `{pool}` answers again")),
            false => ("unreachable", format!("the engine of the pool `{pool}` does not answer; requests go elsewhere")),
        };
        let version = cell.look(&cell.lock(), |core| core.instance(instance).map(|known| known.version)).flatten();
        tracing::info!(function = %cell.name(), %instance, to, why, "instance changed");
        self.recorder.record(Record::Decision(DecisionRecord {
            at: kip_host::clock::wall_millis(),
            function: cell.name().to_string(),
            version: version.map_or(0, |version| version.0),
            label: version.map(|version| cell.label(version)),
            instance: Some(instance.to_string()),
            from: None,
            to: to.to_owned(),
            why,
            detail: None,
            decision: Decision::Touch { lost: !reachable }.value(),
        }));
        cell.step(Event::Touch { instance, lost: !reachable });
    }
}

impl Control {
    /// Refuses a function that no pool can run, with what each pool has against it.
    ///
    /// # Errors
    /// `KW-4060`.
    pub fn check_pools(&self, spec: &FunctionSpec) -> Result<(), Problem> {
        let shared = &self.shared;
        let pools = shared.options.pools.iter().zip(&shared.options.inventory.pools);
        let mut refusals = Vec::new();
        for (pool, declared) in pools {
            match shared.pool_refuses(pool, spec) {
                Some(reason) => refusals.push(format!("pool `{}`: {reason}", declared.name)),
                None => return Ok(()),
            }
        }
        // A single local host has refusals of its own.
        if refusals.len() < 2 {
            return Ok(());
        }
        let message = format!("`{}` cannot run in any pool: {}", spec.name, refusals.join("; "));
        Err(Problem::new(code::NO_POOL, message)
            .hint("`kip pool ls` shows the pools; `mounts` below [[pool]] in kipwake.toml allows folders of that host"))
    }

    /// The pools in the order in which they are filled.
    pub fn pools(&self) -> Vec<PoolStatus> {
        let shared = &self.shared;
        let inventory = &shared.options.inventory;
        let granted = |pool| shared.with_placer(|placer| (placer.granted_in(pool), placer.lost().contains(&pool)));
        let status = |(number, pool): (u16, &kip_fleet::room::Pool)| {
            let ((instances, memory, cpu), lost) = granted(number);
            let options = shared.options.pools.get(usize::from(number));
            let host = |host: &kip_fleet::room::Host| PoolHost {
                cpu: host.cpu,
                memory: host.memory,
                devices: host.devices.iter().map(|device| device.name.clone()).collect(),
            };
            PoolStatus {
                name: pool.name.clone(),
                engine: options.map_or_else(|| "local".to_owned(), |options| options.engine.clone()),
                reachable: !lost,
                priority: options.map_or(0, |options| options.priority),
                price: options.and_then(|options| options.price),
                instances,
                max: pool.max,
                reserved_memory: memory,
                reserved_cpu: cpu,
                hosts: pool.hosts.iter().map(host).collect(),
            }
        };
        (0u16..).zip(&inventory.pools).map(status).collect()
    }

    /// Why no instance of this function can ever be placed here; none if one can. The placer's own rules decide.
    pub fn never_fits(&self, spec: &FunctionSpec) -> Option<String> {
        // Where there is no host at all, nothing is known: work waits for one.
        if self.shared.options.inventory.pools.iter().all(|pool| pool.hosts.is_empty()) {
            return None;
        }
        let need = self.shared.need_of(spec);
        if self.shared.with_placer(|placer| placer.could_ever(need)) {
            return None;
        }
        let kind = spec.resources.gpu.as_ref().and_then(|gpu| gpu.kind.as_deref());
        Some(devices::unmet(&self.shared.options.inventory, need, kind))
    }
}
