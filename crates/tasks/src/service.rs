//! Opens the room, and takes tasks in.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use kip_control::Control;
use kip_host::clock::wall_millis;
use kip_host::failpoint::reached;
use kip_records::metrics::Metrics;
use kip_store::tasks::{NewTask, SubmitOutcome, Task, TaskNumber, TaskState, TaskStore};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::commits::Commits;
use crate::config::{Configs, LATEST, LONGEST, Options};
use crate::envelope::{Call, Envelope};
use crate::error::Error;
use crate::fingerprint::{self, fingerprint};
use crate::outbox::{Outbox, TIMER};
use crate::receive::{Memory, ReceiveError, Received, gather};
use crate::results::KeptResults;
use crate::room::RoomGuard;
use crate::shared::{Cancel, Receipt, Shared, Submission, Tasks, weight};
use crate::stats::Stats;
use crate::tenant::{ANONYMOUS, TenantScope};
use crate::view::{self, generated, id_of, may_be_chosen};
use kip_queue::book::{Book, Entry};

impl Tasks {
    /// Opens the room on the current runtime: what an earlier server left is taken up, and work begins.
    ///
    /// # Errors
    /// What the store says.
    pub async fn open(
        store: Arc<dyn TaskStore>,
        control: Control,
        metrics: Metrics,
        options: Options,
    ) -> Result<Self, Error> {
        let boot = control.boot();
        let (configs, unreadable) = parse_configs(store.configs().await?);
        for object in unreadable {
            control.report(format!("{object} is stored in a form that this version cannot read, and does not hold"));
        }
        let book = Book::weighted(options.weights.clone());
        let receiving = Arc::new(Memory::for_payloads(options.payload));
        let shared = Arc::new(Shared {
            commits: Commits::new(store),
            control,
            metrics,
            server: Arc::from(options.server.as_str()),
            options,
            boot,
            book: Mutex::new(book),
            fresh: Mutex::default(),
            runs: Mutex::default(),
            configs: RwLock::new(configs),
            stats: Stats::default(),
            room: Arc::default(),
            results: KeptResults::default(),
            receiving,
            outbox: Outbox::default(),
            earlier: Notify::new(),
            watchers: Mutex::default(),
            address: OnceLock::new(),
            closing: tokio::sync::watch::Sender::new(false),
        });
        let open: Arc<dyn kip_control::OpenTasks> = shared.clone();
        shared.control.keep_for_tasks(Arc::downgrade(&open));
        crate::recover::recover(&shared).await?;
        crate::rounds::start(&shared);
        crate::dispatch::start(&shared);
        Ok(Self { shared })
    }

    /// Where instances reach the API, as `http://HOST:PORT`.
    pub fn reached_at(&self, address: String) {
        let _ = self.shared.address.set(address);
    }

    /// Begins no more work. What runs goes on until its instance or the server ends; that costs it nothing.
    pub fn close(&self) {
        self.shared.closing.send_replace(true);
    }

    /// Cuts short what still runs, so that it is written down and not found as a crash, and waits a moment for that.
    pub async fn closed(&self) {
        for run in self.shared.runs.lock().values_mut() {
            if let Some(cancel) = run.cancel.take() {
                let _ = cancel.send(Cancel::Leave);
            }
        }
        const LIMIT: Duration = Duration::from_secs(3);
        let over = async {
            while !self.shared.runs.lock().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(LIMIT, over).await;
    }

    /// Takes a task. When this returns it is on the disk and will be run.
    ///
    /// # Errors
    /// Any of [`Error`]; nothing is stored then, except after a failure of the disk, where it may be.
    pub async fn submit(&self, submission: Submission) -> Result<Receipt, Error> {
        self.submit_up_to(submission, self.shared.options.payload).await
    }

    /// The same with another limit for the payload, bytes.
    pub(crate) async fn submit_up_to(&self, mut submission: Submission, largest: usize) -> Result<Receipt, Error> {
        self.shared.control.require(&submission.function)?.require_enabled()?;
        if let Some(qualifier) = &submission.qualifier {
            let cell = self.shared.control.require(&submission.function)?;
            submission.qualifier = Some(self.shared.control.task_qualifier(&cell, qualifier).await?);
        }
        let (new, envelope, room) = self.shared.prepare(submission, largest)?;
        let shared = self.shared.clone();
        let unit = self.shared.commits.unit("accept task", move |store| async move {
            let accepted = shared.accept(store.as_ref(), new, envelope).await;
            // From here on the book counts it.
            drop(room);
            accepted
        });
        unit.await
    }

    /// Waits until there is news of a task, at most so long.
    pub async fn news(&self, number: TaskNumber, limit: Duration) {
        let notify = {
            let mut watchers = self.shared.watchers.lock();
            // Those that nobody waits for any more.
            watchers.retain(|_, notify| Arc::strong_count(notify) > 1);
            watchers.entry(number).or_default().clone()
        };
        let _ = tokio::time::timeout(limit, notify.notified()).await;
    }

    /// The number of a function's task by its id.
    ///
    /// # Errors
    /// [`Error::Unknown`].
    pub async fn number(&self, scope: &TenantScope, function: &str, id: &str) -> Result<TaskNumber, Error> {
        Ok(self.stored(scope, function, id).await?.number)
    }

    /// A function's task by its id, as stored.
    pub(crate) async fn stored(&self, scope: &TenantScope, function: &str, id: &str) -> Result<Task, Error> {
        let unknown = || Error::Unknown { function: function.to_owned(), id: id.to_owned() };
        let store = self.shared.read();
        let tenant = match scope {
            TenantScope::All => None,
            TenantScope::One(tenant) => Some(tenant.to_string()),
            TenantScope::None => return Err(unknown()),
        };
        let number = match generated(id) {
            Some(number) => number,
            None => match &store.find(function.to_owned(), tenant, id.to_owned()).await?[..] {
                [] => return Err(unknown()),
                [(_, number)] => *number,
                several => {
                    let tenants = several.iter().map(|(tenant, _)| tenant.clone()).collect();
                    return Err(Error::Ambiguous { function: function.to_owned(), id: id.to_owned(), tenants });
                }
            },
        };
        let task = store.task(number).await?.filter(|task| &*task.function == function && scope.includes(&task.tenant));
        task.filter(|task| task.id.is_none() == generated(id).is_some()).ok_or_else(unknown)
    }
}

impl Shared {
    /// Settles how a submission is to be run.
    fn prepare(
        self: &Arc<Self>,
        submission: Submission,
        largest: usize,
    ) -> Result<(NewTask, Envelope, RoomGuard), Error> {
        let Submission { function, qualifier, id, idempotency, payload, .. } = submission;
        let cell = self.control.require(&function)?;
        if self.is_closing() || self.control.is_closing() {
            return Err(kip_control::Error::ShuttingDown.into());
        }
        let wrong = |text: String| Err(Error::Submission(text));
        if let Some(id) = id.as_deref().filter(|id| !may_be_chosen(id)) {
            let shown: String = id.chars().take(64).collect();
            return wrong(format!(
                "`{shown}` is no task id: a letter or `_`, then letters, digits, `_` and `-`, at most 128; `t` and a number is ours"
            ));
        }
        if idempotency.as_ref().is_some_and(|key| key.is_empty() || key.len() > 255) {
            return wrong("an idempotency key has 1 to 255 characters".to_owned());
        }
        if submission.order.as_ref().is_some_and(|key| key.is_empty() || key.len() > 255) {
            return wrong("an ordering key has 1 to 255 characters".to_owned());
        }
        if submission.priority.is_some_and(|priority| priority > 9) {
            return wrong("a priority is a number from 0 (first) to 9".to_owned());
        }
        if submission.retries.is_some_and(|retries| retries > crate::config::MOST_RETRIES) {
            return wrong(format!("retries are 0 to {}", crate::config::MOST_RETRIES));
        }
        let longest = Duration::from_secs(LONGEST);
        if submission.max_age.is_some_and(|age| age.is_zero()) {
            return wrong("its maximum age is more than nothing".to_owned());
        }
        if [submission.delay, submission.max_age].into_iter().flatten().any(|time| time > longest) {
            return wrong(format!("delay and maximum age are at most {} days", LONGEST / crate::config::DAY));
        }
        if payload.len() > largest {
            return Err(Error::TooLarge { bytes: Some(payload.len() as u64), limit: largest });
        }
        let qualifier = qualifier.unwrap_or_else(|| LATEST.to_owned());
        let config = self.config(cell.name().as_str(), &qualifier);
        let version = cell.serving();
        if let Some(why) = self.control.never_fits(&version.spec) {
            return Err(Error::NeverFits { function, why });
        }
        let job = version.spec.job.as_ref();
        // However it was asked for, a job is given its input and nothing else.
        let call = submission.call.filter(|_| job.is_none()).unwrap_or_else(|| Call::event(None));
        let now = wall_millis();
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let age = submission.max_age.unwrap_or_else(|| Duration::from_secs(config.max_async_event_age_in_seconds));
        let run_at = now.saturating_add(submission.delay.map_or(0, millis));
        let earlier_fingerprint = fingerprint::earlier(&call, &payload);
        let fingerprint = fingerprint(&qualifier, &call, &payload);
        let kind = match job {
            Some(_) => view::JOB,
            None if config.async_task || submission.stateful => view::TASK,
            None => view::INVOCATION,
        };
        let retries = job.map_or(config.max_async_retry_attempts, |job| job.retries);
        let envelope = Envelope {
            request: submission.request,
            key: submission.key,
            call,
            retries: submission.retries.unwrap_or(retries),
            timeout: job.map_or_else(|| config.timeout_in_seconds.saturating_mul(1_000), |job| job.timeout.0),
            destinations: config.destination_config,
            exits: job.map(|job| job.exits.clone()),
            due: submission.due,
            depth: submission.depth,
        };
        let new = NewTask {
            function: Arc::from(cell.name().as_str()),
            function_id: version.function,
            qualifier: Arc::from(qualifier),
            tenant: Arc::from(submission.tenant.as_deref().unwrap_or(ANONYMOUS)),
            id,
            key: idempotency,
            fingerprint,
            earlier_fingerprint,
            kind,
            priority: submission.priority.unwrap_or(5),
            order: submission.order.map(Arc::from),
            created: now,
            run_at,
            // Its age counts from when it may run.
            expires_at: run_at.saturating_add(millis(age)),
            envelope: serde_json::to_string(&envelope).unwrap_or_default(),
            payload,
        };
        let (waiting, overall) = {
            let book = self.book();
            (book.counts(&new.function).queued(), book.queued())
        };
        let options = &self.options;
        let of_function = format!("for function `{function}`");
        for (waiting, limit, of_what) in
            [(waiting, options.per_function, of_function), (overall, options.overall, "in all".to_owned())]
        {
            if waiting >= limit {
                return Err(Error::Full { waiting, limit, of_what });
            }
        }
        let room = self.reserve(&new)?;
        Ok((new, envelope, room))
    }

    async fn accept(&self, store: &dyn TaskStore, new: NewTask, envelope: Envelope) -> Result<Receipt, Error> {
        let entry = Entry {
            id: new.id.as_deref().map(Arc::from),
            function: new.function.clone(),
            function_id: new.function_id.0,
            step: 0,
            qualifier: new.qualifier.clone(),
            tenant: new.tenant.clone(),
            priority: new.priority,
            kind: new.kind,
            order: new.order.clone(),
            size: weight(new.payload.len() as u64, &new.envelope),
            created: new.created,
            expires_at: new.expires_at,
            state: TaskState::Enqueued,
            epoch: 0,
            run_at: new.run_at,
            started: 0,
            errors: 0,
            crashes: 0,
            refusals: 0,
        };
        let (id, key, payload) = (new.id.clone(), new.key.clone(), new.payload.clone());
        reached("task: before accept");
        let accepted = store.accept(new).await?;
        reached("task: accepted");
        let number = accepted.number();
        match accepted {
            SubmitOutcome::New(_) => {}
            SubmitOutcome::Known(_) => {
                let known = store.task(number).await?;
                let first = known.as_ref().and_then(crate::notification::envelope).map(|envelope| envelope.request);
                let id = known.map_or_else(|| id_of(number, id.as_deref()), |task| id_of(number, task.id.as_deref()));
                return Ok(Receipt { number, id, request: first.unwrap_or(envelope.request), known: true });
            }
            SubmitOutcome::Conflict(_) => {
                let known = store.task(number).await?.and_then(|task| task.id);
                let id = id.or(key).unwrap_or_default();
                return Err(Error::Conflict { id, task: id_of(number, known.as_deref()) });
            }
        }
        let (function, tenant) = (entry.function.clone(), entry.tenant.clone());
        let request = envelope.request.clone();
        self.keep_fresh(number, Arc::new(envelope), payload);
        self.book().admit(number, entry, wall_millis());
        self.stats.accepted(&function, &tenant);
        self.report(&function);
        self.earlier.notify_one();
        Ok(Receipt { number, id: id_of(number, id.as_deref()), request, known: false })
    }
}

/// Configurations from the disk, and the names of those that cannot be read.
pub(crate) fn parse_configs(rows: Vec<(String, String, String)>) -> (Configs, Vec<String>) {
    let (mut configs, mut unreadable) = (Configs::new(), Vec::new());
    for (function, qualifier, text) in rows.into_iter().filter(|(_, qualifier, _)| qualifier != TIMER) {
        match serde_json::from_str(&text) {
            Ok(config) => drop(configs.insert((function, qualifier), config)),
            Err(error) => unreadable.push(format!("the asynchronous configuration {function}/{qualifier} ({error})")),
        }
    }
    (configs, unreadable)
}

impl Shared {
    /// Takes room for a payload, if its tenant and all together stay within their limits.
    pub(crate) fn reserve(self: &Arc<Self>, new: &NewTask) -> Result<RoomGuard, Error> {
        let bytes = weight(new.payload.len() as u64, &new.envelope);
        // The order of these two locks is this one wherever both are held.
        let book = self.book();
        let mut taken = self.room.taken.lock();
        let overall = book.queued_bytes() + taken.overall;
        let own = book.queued_bytes_of(&new.tenant) + taken.by_tenant.get(&new.tenant).copied().unwrap_or_default();
        let of_tenant = format!("for tenant `{}`", new.tenant);
        let of_tenant = match &*new.tenant {
            ANONYMOUS => {
                (own, self.options.anonymous_bytes, "of callers without a key".to_owned(), "tasks.anonymous_bytes")
            }
            _ => (own, self.options.tenant_bytes, of_tenant, "tasks.tenant_bytes"),
        };
        for (waiting, limit, of_what, setting) in
            [of_tenant, (overall, self.options.overall_bytes, "in all".to_owned(), "tasks.waiting_bytes")]
        {
            if waiting.saturating_add(bytes) > limit {
                let bytes = new.payload.len() as u64;
                return Err(Error::FullOfBytes { waiting, bytes, limit, of_what, setting });
            }
        }
        if bytes > 0 {
            taken.overall += bytes;
            *taken.by_tenant.entry(new.tenant.clone()).or_default() += bytes;
        }
        Ok(RoomGuard { room: self.room.clone(), tenant: new.tenant.clone(), bytes })
    }
}

impl Tasks {
    /// Receives the body of a submission, behind what was read of it already. `declared` is its length where the caller said it; `idle`
    /// is how long nothing of it may come, where the connection does not keep that time itself.
    ///
    /// # Errors
    /// [`ReceiveError`], before anything is read of a body that is declared too large.
    pub async fn receive<B>(
        &self,
        declared: Option<u64>,
        read: &[u8],
        body: &mut B,
        idle: Option<Duration>,
    ) -> Result<Received, ReceiveError>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let limit = self.shared.options.payload;
        gather(&self.shared.receiving, limit, (declared, read), body, idle).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_that_cannot_be_read_are_named() {
        let row = |qualifier: &str, text: &str| ("f".to_owned(), qualifier.to_owned(), text.to_owned());
        let rows = vec![row("LATEST", "{}"), row("v1", r#"{"newer": 1}"#), row(TIMER, "spoilt")];
        let (configs, unreadable) = parse_configs(rows);
        assert_eq!(configs.len(), 1);
        assert_eq!(unreadable.len(), 1, "{unreadable:?}");
        assert!(unreadable[0].contains("f/v1"), "{unreadable:?}");
    }
}
