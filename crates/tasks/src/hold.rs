//! Runs that may take hours are held by a process of their own each ([`crate::holder`]): here they are started, waited for, taken
//! up by the next server, and ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kip_control::{Permit, RequestRecord};
use kip_host::clock::wall_millis;
use kip_relay::Delivery;
use kip_spec::InstanceId;
use kip_store::tasks::{Output, Task, TaskNumber, TaskProgress, TaskReader};
use tokio::sync::oneshot;

use crate::config::{Holders, LATEST};
use crate::dispatch::{finish, meaning};
use crate::envelope::Envelope;
use crate::holder::{Order, Outcome, living};
use crate::notification;
use crate::shared::{Cancel, Run, Shared};
use kip_queue::rules::RunOutcome;

/// Between two looks for an outcome: quick at first, for most runs are short after all.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Keeps an instance's idle connections from being in the way of a holder's, which is closed when it is over.
const HOLDER: u64 = u64::MAX;

/// A run that is held. Dropping it leaves the process to itself.
pub(crate) struct HeldRun {
    folder: PathBuf,
    child: Option<Child>,
}

/// A run whose process was started, until its caller has it: a caller that left meanwhile leaves no process behind.
struct StartedRun(Option<HeldRun>);

impl Drop for StartedRun {
    fn drop(&mut self) {
        if let Some(mut held) = self.0.take() {
            held.kill();
        }
    }
}

/// Has a run held by a process. Files are written and the process is started away from the runtime's threads.
pub(crate) async fn begin(
    holders: &Holders,
    permit: &Permit,
    delivery: &Delivery,
    (number, epoch): (TaskNumber, u32),
) -> std::io::Result<HeldRun> {
    if permit.link().takes_one() {
        permit.link().keep(HOLDER);
    }
    let head = kip_relay::compose(permit, delivery);
    let headers =
        head.headers.iter().filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
    let order = Order {
        address: permit.link().endpoint.to_string(),
        method: head.method.to_string(),
        path: head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        headers: headers.filter(|(name, _)| name != "content-length").collect(),
        limit: u64::try_from(delivery.limit.as_millis()).unwrap_or(u64::MAX),
    };
    let (holders, folder, body) = (holders.clone(), holders.folder_of(number, epoch), delivery.request.body().clone());
    let start = move || start(&holders, folder, &order, &body).map(|held| StartedRun(Some(held)));
    let started = kip_host::tasks::blocking("start of a held run", start).await;
    let mut started = started.ok_or_else(|| std::io::Error::other("the server ends"))??;
    started.0.take().ok_or_else(|| std::io::Error::other("the run was taken"))
}

fn start(holders: &Holders, folder: PathBuf, order: &Order, body: &[u8]) -> std::io::Result<HeldRun> {
    kip_host::directory::create_private(&holders.folder)?;
    kip_host::directory::create_private(&folder)?;
    kip_host::directory::write_unsynced(&folder.join("body"), body)?;
    kip_host::directory::write_unsynced(&folder.join("order"), &serde_json::to_vec(order)?)?;
    let mut command = Command::new(&holders.program);
    command.arg(&holders.command).arg(&folder).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Its own group: what ends the server by a signal to its group is not for it.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    Ok(HeldRun { folder, child: Some(command.spawn()?) })
}

impl HeldRun {
    /// What an earlier server left of a run: a process that lives, or its outcome.
    pub(crate) fn of_task(holders: &Holders, task: &Task) -> Option<Self> {
        let folder = holders.folder_of(task.number, task.now.epoch);
        let there = folder.join("outcome").exists() || living(&folder).is_some();
        there.then_some(Self { folder, child: None })
    }

    /// Writes down the run as the request that it was.
    pub(crate) async fn record(
        &self,
        shared: &Shared,
        function: &str,
        ran: &TaskProgress,
        envelope: Option<&Envelope>,
        (ended, output): (&RunOutcome, Option<&Output>),
    ) {
        let instance = ran.instance.as_deref().and_then(|instance| instance.parse().ok());
        let instance = match instance {
            Some(instance) => shared.control.instance(instance).await,
            None => None,
        };
        let took = wall_millis().saturating_sub(ran.started).max(0).unsigned_abs().saturating_mul(1_000);
        let (status, outcome) = match ended {
            RunOutcome::Well { status } => (*status, "done"),
            RunOutcome::Error { status, .. } if *status > 0 => (*status, "done"),
            RunOutcome::Error { .. } | RunOutcome::Crashed { .. } => (0, "broken"),
            RunOutcome::NoRoom { .. } => (0, "refused"),
            RunOutcome::Stopped => (0, "left"),
        };
        let number = self.folder.file_name().and_then(run_of).map(|(number, _)| TaskNumber(number));
        let keyed = envelope.is_some_and(|envelope| envelope.key.is_some());
        let tenant = number.filter(|_| keyed).and_then(|number| Some(shared.book().entry(number)?.tenant.to_string()));
        let qualifier = number.and_then(|number| Some(shared.book().entry(number)?.qualifier.to_string()));
        shared.control.recorder().request(RequestRecord {
            id: envelope.map(|envelope| envelope.request.clone()).unwrap_or_default(),
            at: ran.started,
            function: function.to_owned(),
            label: instance.as_ref().map(|instance| instance.label.clone()),
            qualifier: qualifier.filter(|qualifier| qualifier != LATEST),
            version: instance.as_ref().map(|instance| instance.version.0),
            instance: ran.instance.as_deref().map(str::to_owned),
            method: envelope.map(|envelope| envelope.call.method.clone()).unwrap_or_default(),
            path: envelope.map(|envelope| envelope.call.path.clone()).unwrap_or_default(),
            status,
            code: None,
            start: None,
            queue_us: 0,
            first_byte_us: took,
            total_us: took,
            bytes: output.map_or(0, |output| output.body.len() as u64),
            bytes_in: fs::metadata(self.folder.join("body")).map_or(0, |body| body.len()),
            kind: None,
            peak_memory: instance.and_then(|instance| instance.peak_memory),
            outcome: outcome.to_owned(),
            key: envelope.and_then(|envelope| envelope.key.clone()),
            tenant,
        });
    }

    /// Waits for the outcome.
    pub(crate) async fn outcome(&mut self) -> (Outcome, Bytes) {
        let mut pause = FIRST_PAUSE;
        loop {
            // Looked at first: the outcome is there before the process is gone.
            let over = match &mut self.child {
                Some(child) => child.try_wait().map_or(true, |ended| ended.is_some()),
                None => living(&self.folder).is_none(),
            };
            // An answer may be large.
            let folder = self.folder.clone();
            let there = folder.join("outcome").exists();
            if there
                && let Some(Some(outcome)) =
                    kip_host::tasks::blocking("answer of a held run", move || read(&folder)).await
            {
                return outcome;
            }
            if over {
                let detail = "the process that held the exchange ended".to_owned();
                return (Outcome::BrokeOff(detail), Bytes::new());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    /// Ends the process, and with it the connection to the instance.
    pub(crate) fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        } else if let Some(process) = living(&self.folder)
            && let Some(process) = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
    }

    /// Its outcome is on the disk elsewhere.
    pub(crate) fn forget(mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn read(folder: &Path) -> Option<(Outcome, Bytes)> {
    let outcome = serde_json::from_slice(&fs::read(folder.join("outcome")).ok()?).ok()?;
    Some((outcome, Bytes::from(fs::read(folder.join("answer")).unwrap_or_default())))
}

/// The instances on which runs of an earlier server go on that are held, one for each run: their places must be taken before anything is
/// decided about them.
///
/// # Errors
/// What the store says.
pub async fn instances(store: &dyn TaskReader, holders: &Holders) -> Result<Vec<InstanceId>, kip_store::Error> {
    let mut held = Vec::new();
    for entry in fs::read_dir(&holders.folder).into_iter().flatten().flatten() {
        let Some((number, epoch)) = run_of(&entry.file_name()) else { continue };
        let task = store.task(TaskNumber(number)).await?;
        let runs = |task: &Task| task.now.epoch == epoch && !task.now.state.is_terminal();
        let Some(task) = task.filter(|task| runs(task) && HeldRun::of_task(holders, task).is_some()) else { continue };
        held.extend(task.now.instance.as_deref().and_then(|instance| instance.parse::<InstanceId>().ok()));
    }
    Ok(held)
}

/// The task and epoch that a folder is of.
fn run_of(name: &std::ffi::OsStr) -> Option<(u64, u32)> {
    let (number, epoch) = name.to_str()?.split_once('-')?;
    Some((number.parse().ok()?, epoch.parse().ok()?))
}

/// What an outcome means for the task.
pub(crate) fn ended(
    outcome: Outcome,
    answer: Bytes,
    most: usize,
    timeout: u64,
) -> (RunOutcome, Option<kip_store::tasks::Output>) {
    match outcome {
        Outcome::Answered { status, headers, cut } => {
            let header = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
            let cut = cut || answer.len() > most;
            meaning(status, header, answer.slice(..answer.len().min(most)), cut)
        }
        Outcome::NotSent(detail) => (RunOutcome::NoRoom { detail, retry_after: None }, None),
        Outcome::BrokeOff(detail) => (RunOutcome::Crashed { detail }, None),
        Outcome::TooLong => (timed_out(timeout), None),
    }
}

/// A run that took longer than it may, milliseconds.
pub(crate) fn timed_out(limit: u64) -> RunOutcome {
    let detail = format!("it took longer than {}", kip_spec::Millis(limit));
    RunOutcome::Error { status: 0, kind: "FunctionTimeout", detail, retry_after: None, exit: None }
}

/// Takes up a run that an earlier server left. It is in the book as running.
pub(crate) fn resume(shared: &Arc<Shared>, task: Task, mut held: HeldRun) {
    let (cancel, cancelled) = oneshot::channel();
    let mut permit = task.now.instance.as_deref().and_then(|instance| shared.control.take_held(instance));
    if let Some(permit) = &mut permit {
        permit.outlives();
    }
    let (brake, link) = (permit.as_ref().map(Permit::brake), permit.as_ref().map(|permit| permit.link().clone()));
    let run = Run { epoch: task.now.epoch, brake, link: link.clone(), cancel: Some(cancel) };
    shared.runs.lock().insert(task.number, run);
    let shared = shared.clone();
    drop(kip_host::tasks::spawn("task of an earlier server", async move {
        let number = task.number;
        let envelope = notification::envelope(&task);
        let most = shared.options.result;
        let timeout = envelope.as_ref().map_or(0, |envelope| envelope.timeout);
        let result = tokio::select! {
            biased;
            Ok(why) = cancelled => match why {
                Cancel::Leave => None,
                Cancel::Stop => {
                    held.kill();
                    Some((RunOutcome::Stopped, None))
                }
            },
            (outcome, answer) = held.outcome() => {
                if matches!(outcome, Outcome::TooLong) {
                    shared.too_long(number);
                }
                Some(ended(outcome, answer, most, timeout))
            }
        };
        if let (Some((RunOutcome::Stopped, _)), Some(link)) = (&result, link) {
            drop(permit.take());
            link.gone().await;
        }
        if let Some((ended, output)) = result {
            held.record(&shared, &task.function, &task.now, envelope.as_ref(), (&ended, output.as_ref())).await;
            finish(&shared, number, task.now.epoch, &task.now, ended, output, envelope.as_ref()).await;
            held.forget();
        } else if let Some(permit) = permit.take() {
            permit.leave_to_next();
        }
        // Its place is given back once all is written down.
        drop(permit);
        let mut runs = shared.runs.lock();
        if runs.get(&number).is_some_and(|run| run.epoch == task.now.epoch) {
            runs.remove(&number);
        }
    }));
}

/// Ends what is held for tasks that do not run any more.
pub(crate) fn sweep(holders: &Holders, runs: impl Fn(u64, u32) -> bool) {
    for entry in fs::read_dir(&holders.folder).into_iter().flatten().flatten() {
        if run_of(&entry.file_name()).is_none_or(|(number, epoch)| !runs(number, epoch)) {
            let mut held = HeldRun { folder: entry.path(), child: None };
            held.kill();
            held.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_caller_that_leaves_while_its_run_is_started_leaves_no_process() {
        let data = tempfile::tempdir().unwrap();
        let program = data.path().join("holder");
        fs::write(&program, "#!/bin/sh\nexec sleep 600\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let holders = Holders { program, command: "hold".to_owned(), folder: data.path().join("held") };
        let order = Order {
            address: "127.0.0.1:1".to_owned(),
            method: "POST".to_owned(),
            path: "/".to_owned(),
            headers: Vec::new(),
            limit: 1,
        };
        let held = start(&holders, holders.folder_of(TaskNumber(1), 1), &order, b"work").unwrap();
        let process = held.child.as_ref().map(Child::id).unwrap();
        let is_there = || std::path::Path::new(&format!("/proc/{process}")).exists();
        assert!(is_there());
        drop(StartedRun(Some(held)));
        assert!(!is_there(), "it was killed and its end was taken");
        assert_eq!(fs::read(holders.folder_of(TaskNumber(1), 1).join("body")).unwrap(), b"work");
    }
}
