//! Named tasks and threads. A panic in a task is caught by the runtime and does not end the server.

use std::future::Future;

use tokio::runtime::{Handle, LocalOptions, LocalRuntime};
use tokio::task::JoinHandle;

/// Spawns a task on the current runtime. The name says what it does, for traces and thread dumps.
#[expect(clippy::disallowed_methods, reason = "this module is where tasks are spawned")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let _ = name;
    tokio::spawn(future)
}

/// Spawns a task on another runtime.
pub fn spawn_on<F>(runtime: &Handle, name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let _ = name;
    runtime.spawn(future)
}

/// Spawns a task on the current thread, whose runtime is a local one.
#[expect(clippy::disallowed_methods, reason = "this module is where tasks are spawned")]
pub fn spawn_local<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let _ = name;
    tokio::task::spawn_local(future)
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
    let _ = name;
    tokio::task::spawn_blocking(work).await.ok()
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
