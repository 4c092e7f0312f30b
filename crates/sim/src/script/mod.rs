//! Scripts: small text files that drive a world by hand, and the transcript of what happens, which reads like a story.
//!
//! One command a line; `#` begins a remark. The language is described in `docs/simulator.md`.

mod declaration;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kip_fleet::{AliasNumber, Draw, Event, Inventory, Kind, Now, Placer, ProbeFailure, Ticket};
use kip_spec::{Bytes, InstanceId, Millis};

use crate::fate::{FateSource, OperationEnd, ScriptedFates};
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
    let fates = FateSource::Scripted(ScriptedFates::default());
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
            ["host" | "burst", settings @ ..] if self.world.cells.is_empty() => {
                let mut inventory = self.world.placer.inventory().clone();
                declaration::pool(words[0], settings, &mut inventory)?;
                self.world.placer = Placer::new(inventory);
            }
            ["quota", setting] if self.world.cells.is_empty() => {
                let mut inventory = self.world.placer.inventory().clone();
                declaration::quota(setting, &mut inventory)?;
                self.world.placer = Placer::new(inventory);
            }
            ["deploy", name, settings @ ..] => {
                let function = self.function(name).unwrap_or_else(|_| self.world.add(name));
                let (policy, takes) = declaration::read(settings)?;
                if let FateSource::Scripted(scripted) = &mut self.world.fates {
                    scripted.takes.extend(takes.into_iter().map(|(what, takes)| ((function, what), takes)));
                }
                self.world.deploy(function, policy.into());
            }
            ["arrive", name, how @ .., "as", requests] => self.arrive(name, how, &[*requests])?,
            ["arrive", name, rest @ ..] if rest.contains(&"as") => {
                let at = rest.iter().position(|word| *word == "as").unwrap_or(0);
                self.arrive(name, &rest[..at], &rest[at + 1..])?;
            }
            ["alias", name, targets @ ..] => {
                let function = self.function(name)?;
                let (targets, provisioned) = declaration::alias(&self.world.cells[function], targets)?;
                let draw = Draw::Begin(0);
                self.world
                    .step(function, Event::Alias { alias: AliasNumber(0), targets, latest: 0, provisioned, draw });
            }
            ["rotate", name] => {
                let function = self.function(name)?;
                self.world.step(function, Event::Rotate);
            }
            ["outgrows", instance] => {
                let (function, instance) = self.instance(instance)?;
                self.world.step(function, Event::Replace { instance, why: kip_fleet::Reason::Outgrown });
            }
            ["probe", instance, "ready"] => {
                self.probe(instance, |id| Event::Readiness { instance: id, ready: true })?
            }
            ["probe", instance, "unready"] => {
                self.probe(instance, |id| Event::Readiness { instance: id, ready: false })?;
            }
            ["probe", instance, "slow"] => {
                self.probe(instance, |id| Event::Unhealthy { instance: id, how: ProbeFailure::Slow })?;
            }
            ["probe", instance, "dead"] => {
                let (function, id) = self.instance(instance)?;
                self.world.ails(function, id, false);
            }
            ["restart"] => self.world.restart(),
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
            ["fail", "next", what] => self.next(what, OperationEnd::Fails)?,
            ["hang", "next", what] => self.next(what, OperationEnd::Silent { done: false })?,
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

    fn arrive(&mut self, name: &str, how: &[&str], requests: &[&str]) -> Result<(), String> {
        let function = self.function(name)?;
        let (call, stuck) = declaration::call(how)?;
        for request in requests {
            let ticket = Ticket(self.world.cells[function].next_ticket);
            self.world.trace.names.insert((function, ticket), (*request).to_owned());
            self.requests.insert((*request).to_owned(), (function, ticket));
            if let FateSource::Scripted(scripted) = &mut self.world.fates {
                scripted.stuck = stuck;
            }
            self.world.arrive(function, u64::MAX, None, call);
            self.world.run_until(self.world.now);
        }
        Ok(())
    }

    fn probe(&mut self, instance: &str, event: impl FnOnce(InstanceId) -> Event) -> Result<(), String> {
        let (function, id) = self.instance(instance)?;
        self.world.step(function, event(id));
        Ok(())
    }

    fn function(&self, name: &str) -> Result<usize, String> {
        let found = self.world.cells.iter().position(|cell| cell.name == name);
        found.ok_or_else(|| format!("there is no function {name}"))
    }

    fn instance(&self, text: &str) -> Result<(usize, InstanceId), String> {
        let (name, _) = text.split_once('/').ok_or("write an instance as f/1")?;
        let function = self.function(name)?;
        let cell = &self.world.cells[function];
        let mut ids = cell.bodies.keys();
        let id = ids.find(|id| name_of(cell, **id) == text).ok_or("there is no such instance")?;
        Ok((function, *id))
    }

    fn next(&mut self, what: &str, end: OperationEnd) -> Result<(), String> {
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
        if let FateSource::Scripted(scripted) = &mut self.world.fates {
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
                .core()
                .into_iter()
                .flat_map(|core| core.instances())
                .map(|instance| {
                    let since = Millis(now - instance.since);
                    let (name, state) = (name_of(cell, instance.id), instance.state);
                    let kept = if instance.kind == Kind::Provisioned { "kept, " } else { "" };
                    format!("{name} {kept}{state} with {} in flight for {since}", instance.in_flight)
                })
                .collect();
            let all = if instances.is_empty() { "no instances".to_owned() } else { instances.join(", ") };
            lines.push(format!("{}: {} waiting; {all}", cell.name, cell.waiting));
            let now = Now { boot: now, wall: 0 };
            let waits = cell.core().into_iter().flat_map(|core| {
                core.revisions()
                    .filter_map(|(version, _)| Some(format!("{version} waits: {}", core.waits(version, now)?)))
            });
            lines.extend(waits.map(|why| format!("{} {why}", cell.name)));
        }
        if capacity < u64::MAX {
            lines.push(format!("host: {} of {} given, {waiting} waiting for room", Bytes(reserved), Bytes(capacity)));
        }
        for device in self.world.placer.devices() {
            let (granted, memory) = (Bytes(device.granted), Bytes(device.memory));
            lines
                .push(format!("{} {} device {}: {granted} of {memory} given", device.pool, device.host, device.device));
        }
        for line in lines {
            self.world.trace.tell(now, || line);
        }
    }
}
