//! The way between cores. They exchange values only, and never while a lock of another is held.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{CoreNumber, FromPlacer, ToPlacer};

/// A value on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// To the placer.
    ToPlacer(ToPlacer),
    /// To a function.
    ToFunction {
        /// Which.
        function: CoreNumber,
        /// What.
        message: FromPlacer,
    },
}

/// Messages in the order in which they were posted. The shell takes one at a time and steps its receiver.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Router {
    messages: VecDeque<Message>,
}

impl Router {
    /// Adds a message at the end.
    pub fn post(&mut self, message: Message) {
        self.messages.push_back(message);
    }

    /// Takes the oldest message.
    pub fn take(&mut self) -> Option<Message> {
        self.messages.pop_front()
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}
