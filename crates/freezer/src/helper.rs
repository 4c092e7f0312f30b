//! The helper process: `kip gpu-helper`. It initialises CUDA once, makes no context, and does what it is told, one thing
//! after the other, over the socket that is its standard input.
//!
//! Its server kills it when it does not answer in time. When the server itself is gone, it finishes what it is at, for
//! that is better for the instance than to break off, and ends itself at the deadline of that if it cannot.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use kip_host::{clock, tasks};

use crate::driver::{CallFailure, Driver, Nvml};
use crate::report::Report;
use crate::wire::{Answer, Ask, HelperReady, Reply, Request};

/// Boot time until which the present work is wanted. Before the first request nothing is.
static WANTED_UNTIL: AtomicU64 = AtomicU64::new(0);

/// Serves until the other end of standard input is closed.
///
/// # Errors
/// When standard input is not a socket.
pub fn serve() -> std::io::Result<()> {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut answers = socket.try_clone()?;
    // One request may wait while one is worked on; the server sends no more.
    let (sender, requests) = sync_channel(1);
    tasks::thread("gpu-requests", move || take(&socket, &sender))?;
    let begun = clock::monotonic_micros();
    let mut desk = Machine::open();
    let hello = HelperReady { hello: std::process::id(), took_us: clock::monotonic_micros() - begun };
    write(&mut answers, &hello)?;
    work(&requests, &mut desk, &mut answers)
}

/// Reads requests. At the end of them the process ends: by itself when its present work is done, else at its deadline.
fn take(socket: &UnixStream, sender: &SyncSender<Request>) {
    let lines = BufReader::new(socket).lines();
    let requests = lines.map_while(Result::ok).filter_map(|line| serde_json::from_str::<Request>(&line).ok());
    for request in requests {
        WANTED_UNTIL.store(clock::boot_millis() + request.deadline_ms, Ordering::Relaxed);
        if sender.send(request).is_err() {
            return;
        }
    }
    let left = WANTED_UNTIL.load(Ordering::Relaxed).saturating_sub(clock::boot_millis());
    // The main thread returns from `work` as soon as it can, and that ends the process before this does.
    sender_is_gone(sender);
    std::thread::sleep(Duration::from_millis(left));
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}

/// Tells the main thread that no more requests come. The sender itself lives on in the thread that waits.
fn sender_is_gone(sender: &SyncSender<Request>) {
    let end = Request { id: END, deadline_ms: 0, ask: Ask::Report };
    let _ = sender.try_send(end);
}

/// The number of the request that means that there are no more.
const END: u64 = u64::MAX;

fn work(requests: &Receiver<Request>, machine: &mut Machine, answers: &mut UnixStream) -> std::io::Result<()> {
    while let Ok(request) = requests.recv() {
        if request.id == END {
            break;
        }
        let begun = clock::monotonic_micros();
        let answer = machine.answer(request.ask);
        let reply = Reply { id: request.id, took_us: clock::monotonic_micros() - begun, answer };
        if write(answers, &reply).is_err() {
            // The server is gone.
            break;
        }
    }
    Ok(())
}

fn write<T: serde::Serialize>(to: &mut UnixStream, value: &T) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// The libraries of this host, as far as they are there.
#[derive(Debug)]
struct Machine {
    driver: Result<Driver, String>,
    initialized: Result<(), CallFailure>,
    nvml: Result<Nvml, String>,
}

impl Machine {
    fn open() -> Self {
        let driver = Driver::open();
        // A driver that cannot freeze is not woken up for nothing.
        let initialized = match &driver {
            Ok(driver) if driver.missing().is_empty() => driver.initialize(),
            _ => Ok(()),
        };
        Self { driver, initialized, nvml: Nvml::open() }
    }

    fn answer(&mut self, ask: Ask) -> Answer {
        if ask == Ask::Report {
            return Answer::Report(Box::new(self.report()));
        }
        let driver = match &self.driver {
            Ok(driver) => driver,
            Err(why) => return Answer::NoDriver(why.clone()),
        };
        if let Err(failed) = &self.initialized {
            return Answer::Failed(failed.clone());
        }
        let result = match ask {
            Ask::Report => Ok(Answer::Done),
            Ask::State { pid } => driver.state(pid).map(Answer::State),
            Ask::RestoreThread { pid } => driver.restore_thread(pid).map(Answer::RestoreThread),
            Ask::Act { call, pid, timeout_ms } => driver.act(call, pid, timeout_ms).map(|()| Answer::Done),
        };
        result.unwrap_or_else(Answer::Failed)
    }

    fn report(&self) -> Report {
        let mut report = Report::default();
        match &self.driver {
            Ok(driver) => {
                report.cuda = driver.version();
                report.symbols_missing = driver.missing().into_iter().map(str::to_owned).collect();
            }
            Err(why) => report.cuda_missing = Some(why.clone()),
        }
        report.cuda_failed = self.initialized.as_ref().err().map(ToString::to_string);
        match &self.nvml {
            Ok(nvml) => {
                report.driver = nvml.driver().ok();
                match nvml.devices() {
                    Ok(devices) => report.devices = devices,
                    Err(failed) => report.nvml_missing = Some(failed.to_string()),
                }
            }
            Err(why) => report.nvml_missing = Some(why.clone()),
        }
        report
    }
}
