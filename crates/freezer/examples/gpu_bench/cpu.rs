//! Rungs that need no GPU: a process that gets no CPU, and one whose memory was taken besides. These figures are real on any
//! Linux, in a dry run as well, where only the sizes are smaller.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kip_host::clock::{boot_millis, monotonic_micros};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::{Value, json};

use crate::ceilings::timed;
use crate::group::Group;
use crate::unsafe_mapping::{Mapping, Pages};
use crate::unsafe_pageout::page_out;
use crate::world::{Settings, memory, note};

const LIMIT: Duration = Duration::from_secs(120);

/// What a target maps, and where: said in one line when it is ready.
pub(crate) fn serve(port: u16, file: &str, bytes: usize) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let mapping = Mapping::open(file.as_ref(), bytes)?;
    let mut pages = Pages::map(bytes)?;
    fill(pages.bytes());
    read_all(mapping.bytes());
    writeln!(stream, "{} {}", mapping.bytes().as_ptr() as usize, pages.bytes().as_ptr() as usize)?;
    let mut word = [0u8; 1];
    while stream.read(&mut word)? > 0 {
        let answer = match word[0] {
            b'f' => read_all(mapping.bytes()),
            b'a' => read_all(pages.bytes()),
            _ => 0,
        };
        stream.write_all(&[answer])?;
    }
    Ok(())
}

/// Bytes that do not compress, so that swap that compresses is not flattered.
fn fill(bytes: &mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for word in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_ne_bytes()[..word.len()]);
    }
}

/// Reads something of each page.
fn read_all(bytes: &[u8]) -> u8 {
    bytes.iter().step_by(4096).fold(0, |sum, byte| sum ^ byte)
}

/// The process that is frozen; it ends with this.
struct Target {
    child: Child,
    stream: TcpStream,
    file: usize,
    anonymous: usize,
    path: PathBuf,
}

impl Target {
    fn start(settings: &Settings, bytes: usize) -> Result<Self> {
        let path = settings.out.join("cpu-mapped.bin");
        let mut content = vec![0u8; bytes];
        fill(&mut content);
        let mut file = File::create(&path)?;
        file.write_all(&content)?;
        // A page that is still to be written cannot be given back.
        file.sync_all()?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["target", &listener.local_addr()?.port().to_string()]).arg(&path).arg(bytes.to_string());
        let child = command.stdin(Stdio::null()).spawn()?;
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        let (file, anonymous) = line.trim().split_once(' ').context("the target said nothing")?;
        Ok(Self { child, stream, file: file.parse()?, anonymous: anonymous.parse()?, path })
    }

    fn pid(&self) -> Result<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("it has ended")
    }

    /// Bytes that were ever read from a disk on its behalf.
    fn read_from_disk(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/io", self.child.id())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("read_bytes: "));
        line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0)
    }

    /// Asks for something, and answers how long that took.
    fn ask(&mut self, word: u8) -> Result<u64> {
        let begun = monotonic_micros();
        self.stream.write_all(&[word])?;
        self.answered(begun)
    }

    fn answered(&mut self, begun: u64) -> Result<u64> {
        self.stream.read_exact(&mut [0u8])?;
        Ok(monotonic_micros() - begun)
    }

    /// Takes the CPU from it, and answers how long it took until all of it rested.
    fn halt(&self, group: Option<&Group>) -> Result<u64> {
        let (done, halt_us) = timed(|| match group {
            Some(group) => Ok(group.freeze()?),
            None => {
                kill_process(self.pid()?, Signal::STOP)?;
                let end = boot_millis() + 10_000;
                while !kip_host::processes::look(self.child.id()).is_some_and(|process| process.is_stopped()) {
                    if boot_millis() > end {
                        bail!("it does not stop");
                    }
                }
                Ok(())
            }
        });
        done.map(|()| halt_us)
    }

    /// Thaws it while a request is there already, and answers how long it took from then to the first byte.
    fn first_byte(&mut self, group: Option<&Group>) -> Result<u64> {
        self.stream.write_all(b"p")?;
        // Nothing may come of it before: what is measured would be something else.
        self.stream.set_nonblocking(true)?;
        std::thread::sleep(Duration::from_millis(2));
        let early = self.stream.peek(&mut [0u8]).is_ok();
        self.stream.set_nonblocking(false)?;
        if early {
            bail!("it answered while it was frozen");
        }
        let begun = monotonic_micros();
        match group {
            Some(group) => group.thaw()?,
            None => kill_process(self.pid()?, Signal::CONT)?,
        }
        self.answered(begun)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.path);
    }
}

/// All of it. It opens no desk, so that a host without a driver can run this row alone.
pub(crate) fn run(row: &str, settings: &Settings) -> Result<()> {
    let end = boot_millis() + settings.budget * 1_000;
    let say = |case: &str, mut figures: Value| {
        figures["figures_of"] = json!("the CPU, real without a GPU");
        note(row, case, &figures);
    };
    let bytes: usize = if settings.dry { 64 << 20 } else { 1 << 30 };
    let mut target = Target::start(settings, bytes)?;
    let cycles = if settings.dry { 5 } else { 100 };
    for cycle in 1..=cycles {
        say("running", json!({"cycle": cycle, "first_us": target.ask(b'p')?}));
    }
    halted(&mut target, None, cycles, |figures| say("stopped by a signal", figures))?;
    match Group::around(target.child.id()) {
        Ok(group) => halted(&mut target, Some(&group), cycles, |figures| say("frozen by its cgroup", figures))?,
        Err(why) => say("frozen by its cgroup", json!({"skipped": why})),
    }
    let swap = fs::read_to_string("/proc/swaps").unwrap_or_default().lines().count() > 1;
    let kinds = [
        ("paged out, file mapping", target.file, b'f', "RssFile:", true),
        ("paged out, anonymous", target.anonymous, b'a', "RssAnon:", swap),
    ];
    for (case, begin, word, kind, can) in kinds {
        if !can {
            say(case, json!({"skipped": "this host has no swap"}));
            continue;
        }
        for cycle in 1..=5 {
            if boot_millis() > end {
                say(case, json!({"skipped": "no time left"}));
                break;
            }
            let warm_us = target.ask(word)?;
            let halt_us = target.halt(None)?;
            let before = memory(target.child.id(), kind);
            let descriptor = pidfd_open(target.pid()?, PidfdFlags::empty())?;
            let (done, page_out_us) = timed(|| page_out(descriptor.as_fd(), begin, bytes));
            let given_back = before.saturating_sub(memory(target.child.id(), kind));
            let first_us = target.first_byte(None)?;
            if let Err(error) = done {
                say(case, json!({"refused": error.to_string()}));
                break;
            }
            // What left the process may still lie in the page cache; what is read from the disk again did not.
            let read_before = target.read_from_disk();
            let read_all_us = target.ask(word)?;
            let from_disk = target.read_from_disk().saturating_sub(read_before);
            let figures = json!({
                "cycle": cycle, "bytes": bytes, "halt_us": halt_us, "page_out_us": page_out_us,
                "given_back": given_back, "first_us": first_us, "read_all_us": read_all_us, "from_disk": from_disk,
                "read_all_before_us": warm_us,
            });
            say(case, figures);
        }
    }
    Ok(())
}

fn halted(target: &mut Target, group: Option<&Group>, cycles: u32, say: impl Fn(Value)) -> Result<()> {
    for cycle in 1..=cycles {
        let halt_us = target.halt(group)?;
        say(json!({"cycle": cycle, "halt_us": halt_us, "first_us": target.first_byte(group)?}));
    }
    Ok(())
}
