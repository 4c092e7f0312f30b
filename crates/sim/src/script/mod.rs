//! Scripts: small text files that drive a world by hand, and the transcript of what happens, which reads like a story.
//!
//! One command a line; `#` begins a remark. The language is described in `docs/simulator.md`.

mod declaration;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kip_fleet::{Call, Event, Inventory, Ticket};
use kip_spec::{Bytes, InstanceId, Millis};

use crate::fate::{End, Fates, Scripted};
use crate::trace::{Detail, name_of};
use crate::world::World;

/// A line that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

impl std::fmt::Display for ScriptError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for ScriptError {}

struct Stage {
    world: World,
    /// Requests by the names the script gave them.
    requests: BTreeMap<String, (usize, Ticket)>,
}

/// Plays a script and gives its transcript.
///
/// # Errors
/// When a line is not understood, or a rule of the simulator is broken.
pub fn play(script: &str) -> Result<String, ScriptError> {
    let fates = Fates::Scripted(Scripted::default());
    let world = World::new(Vec::new(), Inventory::of_memory(u64::MAX), fates, Detail::Story);
    let mut stage = Stage { world, requests: BTreeMap::new() };
    let mut transcript = String::new();
    for (number, line) in (1..).zip(script.lines()) {
        let line = line.trim_end();
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.is_empty() || line.starts_with('#') {
            let _ = writeln!(transcript, "{line}");
            continue;
        }
        stage.command(&words).map_err(|problem| ScriptError { line: number, problem })?;
        let _ = writeln!(transcript, "> {line}");
        for told in stage.world.trace.lines.drain(..) {
            let _ = writeln!(transcript, "{told}");
        }
        if let Some(failure) = &stage.world.failure {
            let problem = format!("{}: {}\n{transcript}", failure.invariant, failure.detail);
            return Err(ScriptError { line: number, problem });
        }
    }
    Ok(transcript)
}

impl Stage {
    fn command(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["host", size] if self.world.cells.is_empty() => {
                let size = size.strip_prefix("memory=").ok_or("write host memory=8GiB")?;
                let capacity: Bytes = size.parse().map_err(|error| format!("{error}"))?;
                self.world.placer = kip_fleet::Placer::new(Inventory::of_memory(capacity.0));
            }
            ["deploy", name, settings @ ..] => {
                let function = self.function(name).unwrap_or_else(|_| self.world.add(name));
                let (policy, takes) = declaration::read(settings)?;
                if let Fates::Scripted(scripted) = &mut self.world.fates {
                    scripted.takes.extend(takes.into_iter().map(|(what, takes)| ((function, what), takes)));
                }
                self.world.deploy(function, policy.into());
            }
            ["arrive", name, "as", requests @ ..] => {
                let function = self.function(name)?;
                for request in requests {
                    let ticket = Ticket(self.world.cells[function].next_ticket);
                    self.world.trace.names.insert((function, ticket), (*request).to_owned());
                    self.requests.insert((*request).to_owned(), (function, ticket));
                    self.world.arrive(function, u64::MAX, None, Call::default());
                    self.world.run_until(self.world.now);
                }
            }
            ["leave", requests @ ..] => {
                for request in requests {
                    let (function, ticket) = *self.requests.get(*request).ok_or("there is no such request")?;
                    self.world.leave(function, ticket);
                }
            }
            ["advance", time] => {
                let time: Millis = time.parse().map_err(|error| format!("{error}"))?;
                self.world.run_until(self.world.now.saturating_add(time.0));
            }
            ["fail", "next", what] => self.next(what, End::Fails)?,
            ["hang", "next", what] => self.next(what, End::Silent { done: false })?,
            ["die", instance] => {
                let (function, id) = self.instance(instance)?;
                self.world.dies(function, id);
            }
            ["show"] => self.show(),
            ["remove", name] => {
                let function = self.function(name)?;
                self.world.step(function, Event::Remove);
            }
            ["shutdown"] => {
                for function in 0..self.world.cells.len() {
                    self.world.step(function, Event::Shutdown);
                }
            }
            _ => return Err(format!("`{}` is not a command", words.join(" "))),
        }
        // What takes no time happens before the next command.
        self.world.run_until(self.world.now);
        Ok(())
    }

    fn function(&self, name: &str) -> Result<usize, String> {
        let found = self.world.cells.iter().position(|cell| cell.name == name);
        found.ok_or_else(|| format!("there is no function {name}"))
    }

    fn instance(&self, text: &str) -> Result<(usize, InstanceId), String> {
        let (name, sequence) = text.split_once('/').ok_or("write an instance as f/1")?;
        let function = self.function(name)?;
        let mut ids = self.world.cells[function].bodies.keys();
        let id = ids.find(|id| id.sequence.to_string() == sequence).ok_or("there is no such instance")?;
        Ok((function, *id))
    }

    fn next(&mut self, what: &str, end: End) -> Result<(), String> {
        let what = match what {
            "start" => "start",
            "initialize" => "initialize",
            "pause" => "pause",
            "park" => "park",
            "spill" => "spill",
            "resume" => "resume",
            "stop" => "stop",
            "kill" => "kill",
            other => return Err(format!("`{other}` is not an operation")),
        };
        if let Fates::Scripted(scripted) = &mut self.world.fates {
            scripted.next.push((what, end));
        }
        Ok(())
    }

    fn show(&mut self) {
        let (reserved, capacity, waiting) = self.world.placer.ledger();
        let now = self.world.now;
        let mut lines = Vec::new();
        for cell in &self.world.cells {
            let instances: Vec<String> = cell
                .core
                .iter()
                .flat_map(|core| core.instances())
                .map(|instance| {
                    let since = Millis(now - instance.since);
                    let (name, state) = (name_of(cell, instance.id), instance.state);
                    format!("{name} {state} with {} in flight for {since}", instance.in_flight)
                })
                .collect();
            let all = if instances.is_empty() { "no instances".to_owned() } else { instances.join(", ") };
            lines.push(format!("{}: {} waiting; {all}", cell.name, cell.waiting));
        }
        if capacity < u64::MAX {
            lines.push(format!("host: {} of {} given, {waiting} waiting for room", Bytes(reserved), Bytes(capacity)));
        }
        for line in lines {
            self.world.trace.tell(now, || line);
        }
    }
}
