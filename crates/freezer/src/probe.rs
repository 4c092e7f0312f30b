//! A process that holds device memory: what a device proves freezing on, and what the benchmark measures.
//!
//! It knows nothing of freezing. Its calls of the driver wait while it is frozen, as those of any engine do.

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use kip_host::clock;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::driver::{Buffer, CallFailure, Context, HostBuffer};
use crate::error::Error;

/// Content is made and read in pieces of this size.
const PIECE: usize = 16 << 20;

/// What it answers to each line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeAnswer {
    /// A checksum of all that it holds.
    pub sum: u64,
    /// How long that took.
    pub took_us: u64,
    /// Why it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// Holds so many bytes and answers lines on standard input until that ends: `sum` reads everything back; `first` copies a
/// page, as the first thing after a wake; `drop` moves everything into pinned memory of the host and frees the device,
/// and `reload` brings it back, as an engine's own hook does; `managed` takes what cannot be frozen; `populate` brings in all memory of
/// its own, whose bytes are the sum that it says, and `lock` and `unlock` keep it there, 1 if that was allowed: none of the
/// three calls the driver, so they are answered while it is frozen.
///
/// # Errors
/// When standard output is closed. Errors of the driver are answers.
pub fn serve(bytes: u64) -> std::io::Result<()> {
    let mut holder = None;
    let begun = clock::monotonic_micros();
    let made = Holder::create(usize::try_from(bytes).unwrap_or(usize::MAX)).map(|made| holder = Some(made));
    say(begun, made.map(|()| 0))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let begun = clock::monotonic_micros();
        let done = match &mut holder {
            Some(holder) => holder.answer(line.trim()),
            None => Ok(0),
        };
        say(begun, done)?;
    }
    Ok(())
}

fn say(begun: u64, done: Result<u64, CallFailure>) -> std::io::Result<()> {
    let took_us = clock::monotonic_micros() - begun;
    let said = match done {
        Ok(sum) => ProbeAnswer { sum, took_us, failed: None },
        Err(failed) => ProbeAnswer { sum: 0, took_us, failed: Some(failed.to_string()) },
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(&said)?)?;
    out.flush()
}

#[derive(Debug)]
struct Holder {
    held: Option<Buffer>,
    managed: Vec<Buffer>,
    shadow: Option<HostBuffer>,
    bytes: usize,
    context: Context,
}

impl Holder {
    fn create(bytes: usize) -> Result<Self, CallFailure> {
        let context = Context::create()?;
        let held = if bytes == 0 { None } else { Some(context.allocate(bytes)?) };
        let mut piece = vec![0u8; PIECE.min(bytes)];
        for at in (0..bytes).step_by(PIECE) {
            let piece = &mut piece[..PIECE.min(bytes - at)];
            fill(piece, at as u64);
            if let Some(held) = &held {
                held.write(at, piece)?;
            }
        }
        Ok(Self { held, managed: Vec::new(), shadow: None, bytes, context })
    }

    fn answer(&mut self, line: &str) -> Result<u64, CallFailure> {
        match line {
            "sum" => self.sum(),
            "first" => self.first(),
            "drop" => self.drop_to_host(),
            "reload" => self.reload(),
            "populate" => Ok(crate::unsafe_prefault::populate()),
            "lock" => Ok(u64::from(crate::unsafe_prefault::lock(true))),
            "unlock" => Ok(u64::from(crate::unsafe_prefault::lock(false))),
            "managed" => {
                self.managed.push(self.context.allocate_managed(1 << 20)?);
                Ok(0)
            }
            _ => Ok(0),
        }
    }

    fn sum(&self) -> Result<u64, CallFailure> {
        let Some(held) = &self.held else { return Ok(0) };
        let mut piece = vec![0u8; PIECE.min(self.bytes)];
        let mut sum = 0u64;
        for at in (0..self.bytes).step_by(PIECE) {
            let piece = &mut piece[..PIECE.min(self.bytes - at)];
            held.read(at, piece)?;
            sum = sum.rotate_left(1) ^ checksum(piece);
        }
        Ok(sum)
    }

    fn first(&self) -> Result<u64, CallFailure> {
        let mut page = [0u8; 4096];
        let page = &mut page[..self.bytes.min(4096)];
        if let Some(held) = &self.held {
            held.read(0, page)?;
        }
        Ok(checksum(page))
    }

    fn drop_to_host(&mut self) -> Result<u64, CallFailure> {
        let Some(held) = &self.held else { return Ok(0) };
        if self.shadow.is_none() {
            self.shadow = Some(self.context.pinned(self.bytes)?);
        }
        if let Some(shadow) = &mut self.shadow {
            held.read(0, shadow.bytes())?;
        }
        self.held = None;
        Ok(0)
    }

    fn reload(&mut self) -> Result<u64, CallFailure> {
        let Some(shadow) = &mut self.shadow else { return Ok(0) };
        let held = self.context.allocate(self.bytes)?;
        held.write(0, shadow.bytes())?;
        self.held = Some(held);
        Ok(0)
    }
}

/// Fills with bytes that do not compress and differ from piece to piece.
fn fill(piece: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for word in piece.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bytes = state.to_ne_bytes();
        word.copy_from_slice(&bytes[..word.len()]);
    }
}

fn checksum(piece: &[u8]) -> u64 {
    piece.chunks(8).fold(0, |sum, word| {
        let mut bytes = [0u8; 8];
        bytes[..word.len()].copy_from_slice(word);
        (sum ^ u64::from_ne_bytes(bytes)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// How a probe process is started.
#[derive(Debug, Clone)]
pub struct ProbeOptions {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables beside those of the caller.
    pub environment: Vec<(String, String)>,
    /// Whether it is killed when it is dropped. Otherwise it ends by itself, for its standard input ends, which is the only
    /// way for one that may have been restored and could not be emptied.
    pub kill_on_drop: bool,
}

/// A probe process, from outside. Retire it before it is killed if it was ever restored.
#[derive(Debug)]
pub struct Probe {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// What making it took, initialisation of CUDA and filling included.
    pub made_in: Duration,
}

impl Probe {
    /// Starts one on a device and waits until it holds what it is to hold.
    ///
    /// # Errors
    /// When it cannot be started, or the device has no room.
    pub async fn start(options: &ProbeOptions, device: Option<&str>, limit: Duration) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::Probe(error.to_string());
        let mut command = Command::new(&options.program);
        command.args(&options.arguments).envs(options.environment.iter().map(|(name, value)| (name, value)));
        command.env("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
        if let Some(device) = device {
            command.env("CUDA_VISIBLE_DEVICES", device);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(options.kill_on_drop);
        let mut child = command.spawn().map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Probe("it has no pipes".to_owned()));
        };
        let lines = BufReader::new(stdout).lines();
        let mut probe = Self { child, stdin, lines, made_in: Duration::ZERO };
        let made = probe.read(limit).await?;
        probe.made_in = Duration::from_micros(made.took_us);
        Ok(probe)
    }

    /// Its process id; 0 when it has ended.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Tells it something and waits for what it says. After an error it must not be told anything more.
    ///
    /// # Errors
    /// When it ended, does not answer in time, or its driver refused.
    pub async fn tell(&mut self, word: &str, limit: Duration) -> Result<ProbeAnswer, Error> {
        let line = format!("{word}\n");
        self.stdin.write_all(line.as_bytes()).await.map_err(|error| Error::Probe(error.to_string()))?;
        self.read(limit).await
    }

    async fn read(&mut self, limit: Duration) -> Result<ProbeAnswer, Error> {
        let line = tokio::time::timeout(limit, self.lines.next_line()).await;
        let line = line.map_err(|_| Error::Probe(format!("it did not answer within {limit:?}")))?;
        let line = line.ok().flatten().ok_or_else(|| Error::Probe("it ended".to_owned()))?;
        let said: ProbeAnswer = serde_json::from_str(&line).map_err(|error| Error::Probe(error.to_string()))?;
        match &said.failed {
            Some(failed) => Err(Error::Probe(failed.clone())),
            None => Ok(said),
        }
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// When it is not gone in time.
    pub async fn kill(mut self, limit: Duration) -> Result<(), Error> {
        let _ = self.child.start_kill();
        match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Probe(format!("it was killed and is still there after {limit:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_byte_changes_the_sum() {
        let mut piece = vec![0u8; 1003];
        fill(&mut piece, 5);
        let whole = checksum(&piece);
        for at in [0, 7, 8, 500, 1002] {
            piece[at] ^= 1;
            assert_ne!(checksum(&piece), whole, "{at}");
            piece[at] ^= 1;
        }
        assert_eq!(checksum(&piece), whole);
        let mut other = vec![0u8; 1003];
        fill(&mut other, 6);
        assert_ne!(other, piece);
    }
}
