//! Places that the brain offers meet tasks that are ready: claimed in one commit for all places of a moment, then each sent to
//! its instance. Nothing is sent that is not claimed on the disk, and no result is seen before it is there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::BodyExt;
use kip_control::Permit;
use kip_host::clock::{boot_millis, wall_millis};
use kip_host::failpoint::reached;
use kip_relay::{Answer, Caller, Delivery, DeliveryError, Relay};
use kip_spec::function::Protocol;
use kip_spec::{QualifierName, RequestId};
use kip_store::tasks::{Output, Step, Task, TaskNumber, TaskProgress, TaskState};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::config::Holders;
use crate::envelope::{Envelope, Head};
use crate::event::Event;
use crate::hold::{self, HeldRun};
use crate::retry_after;
use crate::shared::{Cancel, LEASE, Run, Shared};
use crate::view::{INVOCATION, id_of};
use crate::{notification, placing, progress};
use kip_queue::book::Entry;
use kip_queue::rules::{Allowance, RunOutcome, after};

/// Places that are looked at together.
const TOGETHER: usize = 256;
/// The exchange itself may take so much longer than a run: who ends a run that takes too long ends its instance first.
const AFTER: Duration = Duration::from_secs(5);
/// After a commit that failed, what was to be claimed waits this long, milliseconds.
const PAUSE: i64 = 1_000;
/// Between two questions whether a claim is on the disk.
const AGAIN: Duration = Duration::from_millis(500);

type Offers = Arc<Mutex<mpsc::Receiver<Permit>>>;

/// Starts the threads that run tasks.
pub(crate) fn start(shared: &Arc<Shared>) {
    let Some(offers) = shared.control.offers() else { return };
    let offers: Offers = Arc::new(Mutex::new(offers));
    for number in 0..shared.options.threads.max(1) {
        let (shared, offers) = (shared.clone(), offers.clone());
        let supervisor = shared.control.supervisor().clone();
        let started = supervisor.vital_thread(format!("tasks-{number}"), move || {
            let runtime = match kip_host::tasks::local_runtime() {
                Ok(runtime) => runtime,
                Err(error) => return tracing::error!(%error, "a thread that runs tasks has no runtime"),
            };
            let relay = Relay::new(shared.control.clone(), &shared.metrics);
            runtime.block_on(work(shared, relay, offers));
        });
        if let Err(error) = started {
            tracing::error!(%error, "a thread that runs tasks cannot be started");
        }
    }
}

async fn work(shared: Arc<Shared>, relay: Relay, offers: Offers) {
    loop {
        let mut permits = Vec::new();
        let some = offers.lock().await.recv_many(&mut permits, TOGETHER).await;
        if some == 0 {
            return;
        }
        claim(&shared, &relay, permits).await;
    }
}

/// A task that was taken for a place.
struct Claim {
    number: TaskNumber,
    entry: Entry,
    permit: Permit,
}

async fn claim(shared: &Arc<Shared>, relay: &Relay, permits: Vec<Permit>) {
    let mut claims = Vec::new();
    let mut functions = BTreeSet::new();
    for permit in permits {
        let name = permit.cell().name().clone();
        // A job runs what was deployed last, though an instance of what was before may still be there.
        let outdated =
            permit.link().version.spec.job.is_some() && permit.link().version.id != permit.cell().serving().id;
        let version = permit.link().version.id;
        let leaves = shared.is_closing() || outdated;
        let taken = if leaves { None } else { placing::take_for(shared, permit.cell(), version) };
        permit.cell().offer_taken(version);
        functions.insert(name);
        // Nobody needs the place: dropping it gives it back.
        let Some((number, entry)) = taken else { continue };
        let permit = permit.of(entry.qualifier.parse().ok().filter(|asked| *asked != QualifierName::Latest));
        claims.push(Claim { number, entry, permit });
    }
    let now = wall_millis();
    let steps: Vec<Step> = claims.iter().map(|claim| claim.step(shared, now)).collect();
    if !steps.is_empty() {
        reached("task: before claim");
        let sent = steps.clone();
        match shared.commits.unit("claim tasks", move |store| async move { store.advance_all(sent).await }).await {
            Ok(stepped) => {
                reached("task: claimed");
                for ((claim, step), stepped) in claims.into_iter().zip(steps).zip(stepped) {
                    if stepped.applied {
                        begin(shared, relay, claim, step.to, stepped.order);
                    } else {
                        // It was stopped in this moment, or is of an earlier function of the name: its row says what it is.
                        settle(shared, claim.number, None);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, tasks = claims.len(), "tasks may not be claimed");
                claims.into_iter().zip(steps).for_each(|(claim, step)| settle(shared, claim.number, Some(step.to)));
            }
        }
    }
    functions.iter().for_each(|name| shared.report(name.as_str()));
}

/// Finds out what became of a task whose claim was not applied, or may have been: `claim` is what it would be then. It is out of the
/// book's queues until that is known. Its place was given back, so that a claim that is on the disk after all is one without room.
pub(crate) fn settle(shared: &Arc<Shared>, number: TaskNumber, claim: Option<TaskProgress>) {
    let shared = shared.clone();
    drop(kip_host::tasks::spawn("unsettled claim", async move {
        loop {
            match shared.read().task(number).await {
                Ok(Some(task)) => return settled(&shared, &task, claim).await,
                // Forgotten, which only what is over can be.
                Ok(None) => {
                    return shared.book().settle(number, |entry| entry.state = TaskState::Stopped, wall_millis());
                }
                Err(error) => tracing::warn!(task = number.0, %error, "it is not known yet whether a task is claimed"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }));
}

async fn settled(shared: &Arc<Shared>, task: &Task, claim: Option<TaskProgress>) {
    let now = wall_millis();
    let is_claimed = |claim: &TaskProgress| {
        (claim.epoch, claim.boot, &claim.server) == (task.now.epoch, task.now.boot, &task.now.server)
    };
    match claim.filter(is_claimed) {
        Some(claim) => {
            shared.book().settle(
                task.number,
                |entry| (entry.state, entry.epoch) = (task.now.state, task.now.epoch),
                now,
            );
            let detail = "it is not known in time that it was claimed".to_owned();
            let ended = RunOutcome::NoRoom { detail, retry_after: None };
            let envelope = notification::envelope(task);
            finish(shared, task.number, task.now.epoch, &claim, ended, None, envelope.as_ref()).await;
        }
        None => {
            let waits = matches!(task.now.state, TaskState::Enqueued | TaskState::Retrying);
            let pause = |run_at: i64| if waits { run_at.max(now + PAUSE) } else { run_at };
            let back = |entry: &mut Entry| {
                // What is further than the row was when it was read stays.
                if entry.epoch <= task.now.epoch && !entry.state.is_terminal() {
                    (entry.state, entry.epoch, entry.run_at) = (task.now.state, task.now.epoch, pause(task.now.run_at));
                }
            };
            shared.book().settle(task.number, back, now);
            shared.report(&task.function);
            shared.earlier.notify_one();
        }
    }
}

impl Claim {
    fn step(&self, shared: &Shared, now: i64) -> Step {
        let version = &self.permit.link().version;
        let instance = self.permit.link().instance.to_string();
        let to = TaskProgress {
            state: TaskState::Running,
            epoch: self.entry.epoch + 1,
            server: shared.server.clone(),
            boot: shared.boot,
            revision: version.id.0,
            lease_until: boot_millis() + LEASE,
            started: now,
            instance: Some(Arc::from(instance.as_str())),
            ..self.entry.progressed()
        };
        let events = vec![Event::Dequeued.at(now), Event::became(&to).at(now)];
        Step {
            number: self.number,
            function: Some(version.function),
            from: self.entry.state,
            epoch: self.entry.epoch,
            to,
            events,
            output: None,
            deliveries: Vec::new(),
        }
    }
}

/// The claim is on the disk: the task runs.
fn begin(shared: &Arc<Shared>, relay: &Relay, claim: Claim, to: TaskProgress, order: u64) {
    let (cancel, cancelled) = oneshot::channel();
    let (brake, link) = (claim.permit.brake(), claim.permit.link().clone());
    let run = Run { epoch: to.epoch, brake: Some(brake), link: Some(link.clone()), cancel: Some(cancel) };
    shared.runs.lock().insert(claim.number, run);
    shared.applied(claim.number, &to, order);
    shared.halt_if_stopping(claim.number, to.epoch);
    let (shared, relay) = (shared.clone(), relay.clone());
    drop(kip_host::tasks::spawn_local("task", async move {
        let number = claim.number;
        let epoch = to.epoch;
        if let Some((ended, output, envelope, held)) = run_one(&shared, &relay, claim, &to, cancelled).await {
            if matches!(ended, RunOutcome::Stopped) {
                // Its place is given back: the program is asked to end, and may take its grace.
                link.gone().await;
            }
            finish(&shared, number, epoch, &to, ended, output, envelope.as_deref()).await;
            if let Some(held) = held {
                held.forget();
            }
        }
        let mut runs = shared.runs.lock();
        if runs.get(&number).is_some_and(|run| run.epoch == epoch) {
            runs.remove(&number);
        }
    }));
}

impl Shared {
    /// Ends a run: the instance first, so that it is given nothing new; then the exchange, which gives its place back.
    pub(crate) fn halt(&self, number: TaskNumber) {
        let mut runs = self.runs.lock();
        let Some(run) = runs.get_mut(&number) else { return };
        let Some(cancel) = run.cancel.take() else { return };
        if let Some(brake) = &run.brake {
            brake.pull();
        }
        let _ = cancel.send(Cancel::Stop);
    }

    /// A run has taken too long: its instance is to be given nothing new and to end, or its place would be another's while the program
    /// still works. To be called while the place is held.
    pub(crate) fn too_long(&self, number: TaskNumber) {
        let runs = self.runs.lock();
        if let Some(brake) = runs.get(&number).and_then(|run| run.brake.as_ref()) {
            brake.pull();
        }
    }

    /// The same for one that was told to stop before its run was known.
    fn halt_if_stopping(&self, number: TaskNumber, epoch: u32) {
        let stopping = {
            let book = self.book();
            book.entry(number).is_some_and(|entry| entry.state == TaskState::Stopping && entry.epoch == epoch)
        };
        if stopping {
            self.halt(number);
        }
    }
}

type Outcome = (RunOutcome, Option<Output>, Option<Arc<Envelope>>, Option<HeldRun>);

async fn run_one(
    shared: &Arc<Shared>,
    relay: &Relay,
    claim: Claim,
    to: &TaskProgress,
    cancelled: oneshot::Receiver<Cancel>,
) -> Option<Outcome> {
    let Claim { number, entry, permit } = claim;
    let no_room = |detail: String| RunOutcome::NoRoom { detail, retry_after: None };
    let (envelope, payload) = match shared.work_of(number).await {
        Ok(Some(work)) => work,
        Ok(None) => {
            let kind = "TaskUnreadable";
            let detail = "what it was to be run with is gone".to_owned();
            return Some((
                RunOutcome::Error { status: 0, kind, detail, retry_after: None, exit: None },
                None,
                None,
                None,
            ));
        }
        Err(error) => return Some((no_room(error.to_string()), None, None, None)),
    };
    let id = id_of(number, entry.id.as_deref());
    let delivery = match delivery(shared, &permit, &envelope, payload, (&id, number), to) {
        Ok(delivery) => delivery,
        Err(detail) => {
            let ended = RunOutcome::Error { status: 0, kind: "TaskUnreadable", detail, retry_after: None, exit: None };
            return Some((ended, None, Some(envelope), None));
        }
    };
    // What holds a run speaks HTTP/1.1.
    let holdable = permit.link().version.spec.protocol != Some(Protocol::Http2);
    if let Some(holders) = shared.options.holders.as_ref().filter(|_| holdable && entry.kind != INVOCATION) {
        let mut permit = permit;
        permit.outlives();
        let outcome = run_held(shared, holders, (&permit, &delivery), (number, to), envelope, cancelled).await;
        if outcome.is_none() {
            permit.leave_to_next();
        }
        return outcome;
    }
    let limit = delivery.limit;
    let delivery = Delivery { limit: limit.saturating_add(AFTER), ..delivery };
    let late = async {
        tokio::time::sleep(limit).await;
        shared.too_long(number);
    };
    let exchange = async {
        match relay.deliver(permit, delivery).await {
            Ok(answer) => read(answer, shared.options.result).await,
            Err(DeliveryError::NotSent { detail }) => (no_room(detail), None),
            Err(DeliveryError::BrokeOff { detail }) => (RunOutcome::Crashed { detail }, None),
            Err(DeliveryError::TooLong) => (hold::timed_out(envelope.timeout), None),
        }
    };
    tokio::select! {
        biased;
        Ok(why) = cancelled => {
            let ended = match why {
                Cancel::Stop => RunOutcome::Stopped,
                Cancel::Leave => no_room("the server was stopped".to_owned()),
            };
            Some((ended, None, Some(envelope), None))
        }
        // The place is given back once this has been seen.
        () = late => Some((hold::timed_out(envelope.timeout), None, Some(envelope), None)),
        (ended, output) = exchange => {
            let ended = match ended {
                // The server takes its instances down: no fault of the task.
                RunOutcome::Crashed { detail } if shared.is_closing() => no_room(detail),
                ended => ended,
            };
            Some((ended, output, Some(envelope), None))
        }
    }
}

/// The same by way of a process that outlives this server. None if the run goes on without us.
async fn run_held(
    shared: &Shared,
    holders: &Holders,
    (permit, delivery): (&Permit, &Delivery),
    (number, to): (TaskNumber, &TaskProgress),
    envelope: Arc<Envelope>,
    cancelled: oneshot::Receiver<Cancel>,
) -> Option<Outcome> {
    let no_room = |detail: String| RunOutcome::NoRoom { detail, retry_after: None };
    let mut held = match hold::begin(holders, permit, delivery, (number, to.epoch)).await {
        Ok(held) => held,
        Err(error) => {
            let detail = format!("the process that is to hold its exchange cannot be started: {error}");
            return Some((no_room(detail), None, Some(envelope), None));
        }
    };
    let (ended, output) = tokio::select! {
        biased;
        Ok(why) = cancelled => match why {
            Cancel::Leave => return None,
            Cancel::Stop => {
                held.kill();
                (RunOutcome::Stopped, None)
            }
        },
        (outcome, answer) = held.outcome() => {
            if matches!(outcome, crate::holder::Outcome::TooLong) {
                shared.too_long(number);
            }
            hold::ended(outcome, answer, shared.options.result, envelope.timeout)
        }
    };
    let ended = match ended {
        RunOutcome::Crashed { detail } if shared.is_closing() => no_room(detail),
        ended => ended,
    };
    held.record(shared, permit.cell().name().as_str(), to, Some(&envelope), (&ended, output.as_ref())).await;
    Some((ended, output, Some(envelope), Some(held)))
}

fn delivery(
    shared: &Shared,
    permit: &Permit,
    envelope: &Envelope,
    payload: Bytes,
    (id, number): (&str, TaskNumber),
    to: &TaskProgress,
) -> Result<Delivery, String> {
    let call = &envelope.call;
    let mut request = Request::builder().method(call.method.as_str()).uri(&call.path);
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    let length = payload.len();
    let mut request = request.body(payload).map_err(|error| error.to_string())?;
    request.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    let host = call.origin.host.as_deref().and_then(|host| HeaderValue::from_str(host).ok());
    let host = host.unwrap_or(HeaderValue::from_static("localhost"));
    request.headers_mut().insert(http::header::HOST, host);
    let mut ours = Vec::new();
    let mut add = |name: &'static str, value: String| {
        ours.extend(HeaderValue::try_from(value).map(|value| (HeaderName::from_static(name), value)));
    };
    add("x-fc-invocation-type", "Async".to_owned());
    add("x-fc-async-task-id", id.to_owned());
    add("x-kip-task-id", id.to_owned());
    add("x-kip-task-attempt", (to.errors + to.crashes + 1).to_string());
    add("x-kip-task-epoch", to.epoch.to_string());
    if let Some(due) = envelope.due {
        let due = jiff::Timestamp::from_millisecond(due).map(|due| due.to_string());
        add("x-kip-task-due", due.unwrap_or_default());
    }
    if let Some(address) = progress::address(shared, number, to.epoch) {
        add("x-kip-task-progress", address);
    }
    let id = RequestId::parse(&envelope.request).unwrap_or_else(|| RequestId::from_bits(kip_host::random::unique()));
    let tenant = shared.book().entry(number).map(|entry| entry.tenant.clone()).unwrap_or_default();
    let caller = envelope.key.as_deref().map(|key| Caller { key: key.into(), tenant, operates: false, slot: None });
    Ok(Delivery {
        cell: permit.cell().clone(),
        request,
        ours,
        id,
        caller,
        peer: call.origin.peer,
        secure: call.origin.secure,
        prefix: call.origin.prefix.clone(),
        limit: Duration::from_millis(envelope.timeout),
    })
}

/// Takes an answer and says what it means.
async fn read(answer: Answer, most: usize) -> (RunOutcome, Option<Output>) {
    let (head, mut body) = answer.into_parts();
    let mut bytes = BytesMut::new();
    let mut cut = false;
    loop {
        match body.frame().await {
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                let room = most.saturating_sub(bytes.len());
                cut |= data.len() > room;
                bytes.extend_from_slice(&data[..data.len().min(room)]);
            }
            Some(Err(error)) => return (RunOutcome::Crashed { detail: error.to_string() }, None),
            None => break,
        }
    }
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    meaning(head.status.as_u16(), text, bytes.freeze(), cut)
}

/// The header in which the runner of a job says how the program ended.
pub const EXIT: &str = "x-job-exit-code";

/// The header in which the runner of a job says that it was asked to end before the program had ended. A task that is stopped does not
/// read it: this is the end of an instance with its server, and the work is not done, whatever the program's exit code is.
pub const INTERRUPTED: &str = "x-job-interrupted";

/// What an answer means for the task.
pub(crate) fn meaning<'a>(
    status: u16,
    header: impl Fn(&str) -> Option<&'a str>,
    body: Bytes,
    cut: bool,
) -> (RunOutcome, Option<Output>) {
    let content_type = header("content-type").map(str::to_owned);
    let told = header("x-fc-status").and_then(|status| status.parse::<u16>().ok());
    let retry_after = header("retry-after").and_then(|value| retry_after::wait(value, wall_millis()));
    let output = Output { head: serde_json::to_string(&Head { status, content_type, cut }).unwrap_or_default(), body };
    let failed = told.map_or(status >= 400, |told| !(200..300).contains(&told));
    let said = || {
        let text = String::from_utf8_lossy(&output.body[..output.body.len().min(500)]).into_owned();
        let told = told.map(|told| format!(" with x-fc-status {told}")).unwrap_or_default();
        format!("the function answered {status}{told}: {}", text.trim())
    };
    let exit = header(EXIT).and_then(|code| code.parse::<u8>().ok());
    let ended = match status {
        429 => RunOutcome::NoRoom { detail: said(), retry_after },
        _ if exit.is_some() && header(INTERRUPTED).is_some() => {
            let detail =
                "its program was asked to end before its work was done, because its instance was stopped".to_owned();
            RunOutcome::NoRoom { detail, retry_after: None }
        }
        _ if failed && exit.is_some() => {
            let told: serde_json::Value = serde_json::from_slice(&output.body).unwrap_or_default();
            let detail = match (told["error"].as_str(), told["signal"].as_i64()) {
                (Some(why), _) => why.to_owned(),
                (None, Some(signal)) => format!("the program was ended by signal {signal}"),
                (None, None) => format!("the program ended with exit code {}", exit.unwrap_or_default()),
            };
            RunOutcome::Error { status, kind: "ProgramFailed", detail, retry_after, exit }
        }
        _ if failed => {
            RunOutcome::Error { status, kind: "UnhandledInvocationError", detail: said(), retry_after, exit }
        }
        _ => RunOutcome::Well { status },
    };
    (ended, Some(output))
}

/// Writes down how a run ended, for as long as there is hope.
pub(crate) async fn finish(
    shared: &Arc<Shared>,
    number: TaskNumber,
    epoch: u32,
    ran: &TaskProgress,
    ended: RunOutcome,
    output: Option<Output>,
    envelope: Option<&Envelope>,
) {
    let mut fits = None;
    loop {
        let (entry, waiting) = {
            let book = shared.book();
            let Some(entry) = book.entry(number).filter(|entry| entry.epoch == epoch).cloned() else { return };
            let waiting = book.counts(&entry.function).retrying;
            (entry, waiting)
        };
        let now = wall_millis();
        let from = TaskProgress {
            server: ran.server.clone(),
            boot: ran.boot,
            revision: ran.revision,
            instance: ran.instance.clone(),
            ..entry.progressed()
        };
        let allowed = Allowance {
            retries: envelope.map_or(0, |envelope| envelope.retries),
            expires_at: if shared.is_closing() { i64::MAX } else { entry.expires_at },
        }
        .after(&ended, envelope.and_then(|envelope| envelope.exits.as_ref()));
        let dice = u64::try_from(kip_host::random::unique() >> 64).unwrap_or_default();
        let to = after(&from, &ended, allowed, now, waiting, dice);
        let kept = output.clone().filter(|_| to.state.is_terminal());
        let kept = kept.map(|output| match fits.get_or_insert_with(|| fit(shared, &entry, &output)) {
            true => output,
            false => without_body(output),
        });
        let step = Step {
            number,
            function: None,
            from: entry.state,
            epoch,
            events: vec![Event::became(&to).at(now)],
            output: kept,
            deliveries: envelope.map_or_else(Vec::new, |envelope| notification::caused(envelope, &to)),
            to,
        };
        reached("task: answered");
        match shared.advance(step).await {
            Ok(true) => return reached("task: ended"),
            // It was told to stop in this moment; the book knows that soon.
            Ok(false) => match shared.read().task(number).await {
                Ok(Some(task)) if task.now.epoch == epoch && !task.now.state.is_terminal() => {
                    shared.book().settle(number, |entry| entry.state = task.now.state, now);
                }
                _ => return,
            },
            Err(error) => {
                tracing::warn!(task = number.0, %error, "the result of a task is not written down yet");
                if !passes(&error) {
                    // The next start finds it running and counts a crash.
                    return;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

/// Takes room for a result that is to be kept.
fn fit(shared: &Shared, entry: &Entry, output: &Output) -> bool {
    let bytes = output.body.len() as u64;
    let taken = shared.results.take((&entry.function, &entry.tenant), bytes, &shared.options);
    if let Err(setting) = taken {
        tracing::warn!(function = %entry.function, tenant = %entry.tenant, setting, "a result is not kept: the limit is reached");
    }
    taken.is_ok()
}

/// An answer of which the head is kept alone.
fn without_body(output: Output) -> Output {
    let head = Head { cut: true, ..crate::view::head_of(&output) };
    Output { head: serde_json::to_string(&head).unwrap_or(output.head), body: Bytes::new() }
}

/// Whether it may go better later: a full disk is emptied, a failed one stays failed.
fn passes(error: &crate::Error) -> bool {
    match error {
        crate::Error::Busy => true,
        crate::Error::Control(kip_control::Error::Store(error)) => matches!(error, kip_store::Error::Full { .. }),
        _ => false,
    }
}
