//! Named tasks and threads, and what the end of each means.
//!
//! | kind | started by | it returns | it panics | it is cancelled |
//! |---|---|---|---|---|
//! | vital | [`Supervisor::vital`], [`vital_thread`](Supervisor::vital_thread) | the server ends in order | the server ends in order | as if it returned, unless the server closes |
//! | critical | [`Supervisor::critical`] | its work is done | the server ends in order | its work is left to the next server |
//! | work | [`spawn`], [`spawn_on`], [`spawn_local`], [`blocking`] | its work is done | logged with its name and counted, the server goes on | said where it is spawned |
//!
//! A vital task is a loop that the server cannot do without: the router, the timers, a writer. If one is gone while the server
//! lives on, requests wait for ever and nobody knows why; so the server ends and the next one adopts its instances. Work is
//! one piece whose failure somebody else sees: an operation of an instance has a deadline in the brain, a connection has a caller.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::runtime::{Handle, LocalOptions, LocalRuntime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Panics of tasks since the process was started.
static PANICS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The message and place of this thread's last panic, as the hook saw it.
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Tasks that panicked since the process was started.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Panics are logged from here on, with the thread's name, in place of the text that Rust writes to standard error: a standard
/// error that cannot be written must not end whoever panics.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        tracing::error!(thread = thread.name().unwrap_or("unnamed"), place, message, "panic");
        LAST_PANIC.with(|last| *last.borrow_mut() = format!("{message} ({place})"));
    }));
}

/// How a vital or critical task failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The task's name.
    pub task: Cow<'static, str>,
    /// The panic's message and place; `None` if the task returned.
    pub panic: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.panic {
            Some(message) if !message.is_empty() => write!(f, "the task `{}` panicked: {message}", self.task),
            Some(_) => write!(f, "the task `{}` panicked", self.task),
            None => write!(f, "the task `{}` returned", self.task),
        }
    }
}

/// Watches the tasks that a server cannot do without. Clones watch together.
#[derive(Debug, Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    failure: watch::Sender<Option<Failure>>,
    closing: AtomicBool,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self { inner: Arc::new(Inner { failure: watch::Sender::new(None), closing: AtomicBool::new(false) }) }
    }
}

impl Supervisor {
    /// Spawns a loop on the current runtime that must not end before [`close`](Self::close).
    pub fn vital<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let watched = self.watch(name, Kind::Vital);
        spawn_unnamed(async move {
            let _watched = watched;
            future.await;
        })
    }

    /// Spawns a piece of work on the current runtime that may end but must not panic: nobody else would see that it failed.
    pub fn critical<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let watched = self.watch(name, Kind::Critical);
        spawn_unnamed(async move {
            let _watched = watched;
            future.await;
        })
    }

    /// Starts a thread whose body must not end before [`close`](Self::close).
    ///
    /// # Errors
    /// When the operating system has no room for another thread.
    pub fn vital_thread<F>(
        &self,
        name: impl Into<Cow<'static, str>>,
        body: F,
    ) -> std::io::Result<std::thread::JoinHandle<()>>
    where
        F: FnOnce() + Send + 'static,
    {
        let name = name.into();
        let watched = self.watch(name.clone(), Kind::Vital);
        thread(&name, move || {
            let _watched = watched;
            body();
        })
    }

    /// The server ends: vital tasks may end from here on.
    pub fn close(&self) {
        self.inner.closing.store(true, Ordering::Relaxed);
    }

    /// Waits for the first failure of a vital or critical task.
    pub async fn failed(&self) -> Failure {
        let mut failure = self.inner.failure.subscribe();
        match failure.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
            Ok(Some(failure)) => failure,
            // The sender lives as long as this handle.
            _ => std::future::pending().await,
        }
    }

    fn watch(&self, name: impl Into<Cow<'static, str>>, kind: Kind) -> TaskGuard {
        TaskGuard { name: name.into(), kind, supervisor: Some(self.clone()) }
    }

    fn report(&self, failure: Failure) {
        if self.inner.closing.load(Ordering::Relaxed) {
            return;
        }
        self.inner.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(failure);
            is_first
        });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Vital,
    Critical,
    Work,
}

/// Dropped with its task, so that it sees each way in which one can end.
struct TaskGuard {
    name: Cow<'static, str>,
    kind: Kind,
    supervisor: Option<Supervisor>,
}

impl TaskGuard {
    fn work(name: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), kind: Kind::Work, supervisor: None }
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let panic = std::thread::panicking().then(|| LAST_PANIC.with(|last| std::mem::take(&mut *last.borrow_mut())));
        if let Some(message) = &panic {
            PANICS.fetch_add(1, Ordering::Relaxed);
            tracing::error!(task = %self.name, message, "a task panicked");
        }
        let failed = panic.is_some() || self.kind == Kind::Vital;
        if let Some(supervisor) = self.supervisor.take().filter(|_| failed) {
            supervisor.report(Failure { task: std::mem::take(&mut self.name), panic });
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this module is where tasks are spawned")]
fn spawn_unnamed<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}

/// Spawns work on the current runtime. The name says what it does, for logs.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let watched = TaskGuard::work(name);
    spawn_unnamed(async move {
        let _watched = watched;
        future.await
    })
}

/// Spawns work on another runtime.
pub fn spawn_on<F>(runtime: &Handle, name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let watched = TaskGuard::work(name);
    runtime.spawn(async move {
        let _watched = watched;
        future.await
    })
}

/// Spawns work on the current thread, whose runtime is a local one.
#[expect(clippy::disallowed_methods, reason = "this module is where tasks are spawned")]
pub fn spawn_local<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let watched = TaskGuard::work(name);
    tokio::task::spawn_local(async move {
        let _watched = watched;
        future.await
    })
}

/// A runtime for one thread, whose tasks need not be fit for others: [`spawn_local`] works on it.
///
/// # Errors
/// When the operating system has no room for its event queue.
pub fn local_runtime() -> std::io::Result<LocalRuntime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

/// Runs what may wait for a disk on a thread that may. None if it panicked or the runtime ended.
pub async fn blocking<F, T>(name: &'static str, work: F) -> Option<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let watched = TaskGuard::work(name);
    let watched_work = move || {
        let _watched = watched;
        work()
    };
    tokio::task::spawn_blocking(watched_work).await.ok()
}

/// Starts a thread; the name (15 characters are shown) appears in `top -H` and thread dumps.
///
/// # Errors
/// When the operating system has no room for another thread.
pub fn thread<F, T>(name: &str, body: F) -> std::io::Result<std::thread::JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_vital_task_that_ends_or_panics_is_reported_once() {
        let supervisor = Supervisor::default();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        supervisor.vital("loop", async move { drop(ended.await) });
        supervisor.critical("piece", async {});
        assert_eq!(*supervisor.inner.failure.borrow(), None, "a critical task may end");
        drop(end);
        let failure = supervisor.failed().await;
        assert_eq!(failure, Failure { task: Cow::Borrowed("loop"), panic: None });
        assert_eq!(failure.to_string(), "the task `loop` returned");
        drop(supervisor.critical("piece", async { panic!("at work") }).await);
        assert_eq!(supervisor.failed().await.task, "loop", "the first is the reason");
    }

    #[tokio::test]
    async fn a_panic_of_each_kind_is_seen_where_it_counts() {
        log_panics();
        for kind in [Kind::Vital, Kind::Critical] {
            let supervisor = Supervisor::default();
            let future = async { panic!("no way on") };
            let ended = match kind {
                Kind::Vital => supervisor.vital("loop", future),
                _ => supervisor.critical("piece", future),
            };
            assert!(ended.await.is_err());
            let panic = supervisor.failed().await.panic.expect("a panic");
            assert!(panic.starts_with("no way on (crates/host/src/tasks.rs:"), "{panic}");
        }
        let before = panics();
        assert!(spawn("work", async { panic!("a small thing") }).await.is_err());
        assert!(panics() > before);
        assert_eq!(blocking("work", || panic!("a small thing")).await, None::<()>);
        let supervisor = Supervisor::default();
        let thread = supervisor.vital_thread("writer", || panic!("disk")).unwrap();
        assert_eq!(supervisor.failed().await.task, "writer");
        assert!(thread.join().is_err());
    }

    #[tokio::test]
    async fn a_cancelled_vital_task_counts_until_the_server_closes() {
        let supervisor = Supervisor::default();
        supervisor.vital("loop", std::future::pending()).abort();
        assert_eq!(supervisor.failed().await.task, "loop");
        let supervisor = Supervisor::default();
        let task = supervisor.vital("loop", std::future::pending());
        supervisor.close();
        task.abort();
        assert!(task.await.is_err());
        assert_eq!(*supervisor.inner.failure.borrow(), None);
    }
}
