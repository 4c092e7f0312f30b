//! What rows share: settings, time left, helpers, probes, and one line of JSON for each thing measured.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use kip_freezer::journal::{Member, NullJournal};
use kip_freezer::probe::{Probe, ProbeOptions};
use kip_freezer::report::Device;
use kip_freezer::tree::{self, FreezeOutcome, Limits, Order, Times, WakeOutcome};
use kip_freezer::{DeviceLocks, Options};
use kip_host::clock;
use kip_spec::InstanceId;
use serde_json::{Value, json};

const GIB: u64 = 1 << 30;
/// How long anything of a probe may take: making 48 GiB of content is the longest.
pub(crate) const PROBE_LIMIT: Duration = Duration::from_secs(180);

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub(crate) out: PathBuf,
    /// Seconds for all of it, or for one row.
    pub(crate) budget: u64,
    pub(crate) dry: bool,
    pub(crate) torch: Option<PathBuf>,
}

impl Settings {
    pub(crate) fn parse(words: &[&str]) -> Result<Self> {
        let mut settings = Self { budget: 540, ..Self::default() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| anyhow!("{word} needs a value"));
            match *word {
                "--out" => settings.out = PathBuf::from(value()?),
                "--budget" => settings.budget = value()?.parse().context("--budget")?,
                "--torch" => settings.torch = Some(PathBuf::from(value()?)),
                "--dry-run" => settings.dry = true,
                other => bail!("there is no option {other}"),
            }
        }
        Ok(settings)
    }

    /// The same for a row.
    pub(crate) fn arguments(&self, budget: u64) -> Vec<String> {
        let mut words = vec!["--out".to_owned(), self.out.display().to_string()];
        words.extend(["--budget".to_owned(), budget.to_string()]);
        if let Some(torch) = &self.torch {
            words.extend(["--torch".to_owned(), torch.display().to_string()]);
        }
        if self.dry {
            words.push("--dry-run".to_owned());
        }
        words
    }
}

/// A row at work.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) row: String,
    pub(crate) desk: DeviceLocks,
    pub(crate) device: Device,
    until: u64,
}

impl World {
    pub(crate) async fn open(row: &str, settings: &Settings) -> Result<Self> {
        let desk = DeviceLocks::open(helper()?).await?;
        let report = desk.report().await?;
        if let Some(why) = report.cannot_freeze() {
            bail!("nothing can be measured: {why}");
        }
        let device = report.devices.into_iter().next().context("there is no device")?;
        let until = clock::boot_millis() + settings.budget * 1_000;
        Ok(Self { settings: settings.clone(), row: row.to_owned(), desk, device, until })
    }

    /// A size of the plan in bytes; in a dry run as many MiB.
    pub(crate) fn size(&self, gib: u64) -> u64 {
        if self.settings.dry { gib << 20 } else { gib * GIB }
    }

    pub(crate) fn cycles(&self) -> u32 {
        if self.settings.dry { 2 } else { 10 }
    }

    /// Whether there is time for work on so many bytes; if not, that is written down.
    pub(crate) fn has_time(&self, case: &str, bytes: u64) -> bool {
        // Making the content, then the slowest speed that is known of a driver.
        let needed = 3_000 + bytes * 3_000 / GIB;
        let fits = clock::boot_millis() + needed < self.until;
        if !fits {
            self.note(case, &json!({"skipped": "no time left"}));
        }
        fits
    }

    /// One thing that was measured.
    pub(crate) fn note(&self, case: &str, what: &Value) {
        note(&self.row, case, what);
    }

    pub(crate) async fn probe(&self, bytes: u64) -> Result<Probe> {
        let program = std::env::current_exe()?;
        let arguments = vec!["probe".into(), bytes.to_string().into()];
        let options = ProbeOptions { program, arguments, environment: Vec::new(), kill_on_drop: false };
        Ok(Probe::start(&options, Some(&self.device.uuid), PROBE_LIMIT).await?)
    }

    pub(crate) async fn order(&self, processes: &[u32]) -> Result<Order> {
        let members = tree::find(&self.desk, processes, Duration::from_secs(5)).await?;
        if members.is_empty() {
            bail!("the driver sees no CUDA process");
        }
        let devices = vec![self.device.uuid.clone()];
        let bytes = tree::held(&self.desk, &members, &devices).await?.unwrap_or(0);
        Ok(Order {
            instance: InstanceId { boot: 0, core: 0, sequence: 0 },
            operation: 0,
            members,
            devices,
            bytes,
            was_restored: false,
            limits: generous(),
        })
    }

    pub(crate) async fn freeze(&self, desk: &DeviceLocks, order: &Order) -> Result<(Times, Option<u64>)> {
        match tree::freeze(desk, order, &NullJournal).await {
            FreezeOutcome::Parked { times, residue } => Ok((times, residue)),
            FreezeOutcome::Unlocked(error) => Err(anyhow!(error).context("not frozen, goes on")),
            FreezeOutcome::MustDie(error) => Err(anyhow!(error).context("lost in the freeze")),
        }
    }

    pub(crate) async fn wake(&self, desk: &DeviceLocks, order: &Order) -> Result<Times> {
        match tree::wake(desk, order, &NullJournal).await {
            WakeOutcome::Awake { times, .. } => Ok(times),
            WakeOutcome::Parked(error) => Err(anyhow!(error).context("not woken, parked as before")),
            WakeOutcome::MustDie(error) => Err(anyhow!(error).context("lost in the wake")),
        }
    }

    /// Ends a probe that may have been restored: emptied first, then killed.
    pub(crate) async fn end(&self, probe: Probe, was_restored: bool) -> Result<()> {
        let mut order = Order { members: Member::now(probe.pid()).into_iter().collect(), ..self.nobody() };
        order.was_restored = was_restored;
        let _ = tree::retire(&self.desk, &order, &NullJournal).await;
        Ok(probe.kill(PROBE_LIMIT).await?)
    }

    /// What is used on the device, by anybody.
    pub(crate) async fn used(&self) -> Result<u64> {
        let report = self.desk.report().await?;
        Ok(report.devices.iter().find(|device| device.uuid == self.device.uuid).map_or(0, |device| device.memory.used))
    }

    fn nobody(&self) -> Order {
        Order {
            instance: InstanceId { boot: 0, core: 0, sequence: 0 },
            operation: 0,
            members: Vec::new(),
            devices: vec![self.device.uuid.clone()],
            bytes: 0,
            was_restored: false,
            limits: generous(),
        }
    }
}

/// A measurement is to see how long things take, so limits are far out.
fn generous() -> Limits {
    let minute = Duration::from_secs(60);
    Limits {
        lock: minute / 2,
        checkpoint: minute,
        restore: minute,
        unlock: minute / 2,
        look: minute / 2,
        ..Limits::default()
    }
}

/// This program as a helper.
pub(crate) fn helper() -> Result<Options> {
    let mut options = Options::new(std::env::current_exe()?);
    options.arguments = vec!["helper".to_owned()];
    options.start_limit = Duration::from_secs(60);
    Ok(options)
}

/// One thing that was measured in a row.
pub(crate) fn note(row: &str, case: &str, what: &Value) {
    let mut line = json!({"row": row, "case": case});
    if let (Some(line), Some(what)) = (line.as_object_mut(), what.as_object()) {
        line.extend(what.clone());
    }
    println!("{line}");
}

/// Memory of a process by its name in `status` (`VmRSS:` is what is resident), in bytes.
pub(crate) fn memory(process: u32, kind: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(kind)).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1_024
}
