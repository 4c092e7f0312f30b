//! What a core was handed and what it decided, so that all of it can be decided again: a snapshot and the steps after it. The steps are
//! bounded: when half of them are there, a new snapshot begins, and the oldest half goes.

use serde::{Deserialize, Serialize};

use crate::{CoreHost, Effect, Event, Now};

/// Steps after a snapshot; a recording has up to two times as many.
pub const STEPS: usize = 4_000;

/// A recording of a function.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recording {
    /// The half before, and the present one.
    parts: Vec<RecordedPart>,
}

/// A snapshot and the steps after it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct RecordedPart {
    snapshot: CoreHost,
    steps: Vec<RecordedStep>,
}

/// What was handed in, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedStep {
    /// When.
    pub now: Now,
    /// What.
    pub event: Event,
    /// What was decided.
    pub effects: Vec<Effect>,
}

/// A recording that was decided again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Steps that led to the same decisions.
    pub steps: usize,
    /// Decisions of these.
    pub decisions: usize,
    /// The first step that led to something else, and what that was.
    pub divergence: Option<Box<(RecordedStep, Vec<Effect>)>>,
}

impl Recording {
    /// From here on.
    pub(crate) fn begin(snapshot: CoreHost) -> Self {
        Self { parts: vec![RecordedPart { snapshot, steps: Vec::new() }] }
    }

    /// Adds a step. True if a new snapshot is due.
    pub(crate) fn note(&mut self, now: Now, event: Event, effects: &[Effect]) -> bool {
        let Some(part) = self.parts.last_mut() else { return false };
        part.steps.push(RecordedStep { now, event, effects: effects.to_vec() });
        part.steps.len() >= STEPS
    }

    /// A new half begins with this.
    pub(crate) fn turn(&mut self, snapshot: CoreHost) {
        if self.parts.len() > 1 {
            self.parts.remove(0);
        }
        self.parts.push(RecordedPart { snapshot, steps: Vec::new() });
    }

    /// Steps that are recorded.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.steps.len()).sum()
    }

    /// Whether nothing was recorded yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From when to when it is, milliseconds since 1970.
    pub fn span(&self) -> Option<(i64, i64)> {
        let mut times = self.parts.iter().flat_map(|part| &part.steps).map(|step| step.now.wall);
        let first = times.next()?;
        Some((first, times.next_back().unwrap_or(first)))
    }

    /// Decides all of it again, up to the first difference.
    pub fn replay(&self) -> Replayed {
        let mut replayed = Replayed { steps: 0, decisions: 0, divergence: None };
        let mut effects = Vec::new();
        for part in &self.parts {
            // What the snapshot leaves out is derived anew.
            let mut host = part.snapshot.clone();
            for step in &part.steps {
                effects.clear();
                host.step(step.now, step.event.clone(), &mut effects);
                if effects != step.effects {
                    replayed.divergence = Some(Box::new((step.clone(), effects)));
                    return replayed;
                }
                replayed.steps += 1;
                replayed.decisions += effects.len();
            }
        }
        replayed
    }
}
