//! How a trace is to be read, and what is kept between its rows.

use std::collections::BTreeMap;

use super::counts::Durations;
use super::form::Form;
use super::service::Service;

/// How a trace is to be read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// How long a request takes; without it a column must say so.
    pub service: Option<Service>,
    /// Its form; without it the first line tells.
    pub form: Option<Form>,
    /// Requests of different functions are kept apart, by the column of this name, or the usual one.
    pub functions: Option<Option<String>>,
    /// The share of the requests that are kept, drawn one by one.
    pub sample: Option<f64>,
    /// For traces that have rates or counts in place of arrivals.
    pub seed: u64,
    /// How long the requests of each function take, for traces of counts.
    pub durations: Option<Durations>,
}

/// Numbers for the names of functions, in the order in which they appear.
#[derive(Debug, Default)]
pub(super) struct Names {
    numbers: BTreeMap<Box<str>, u32>,
}

impl Names {
    pub(super) fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        self.numbers.insert(name.into(), number);
        number
    }

    pub(super) fn in_order(&self) -> Vec<String> {
        let mut all: Vec<(&Box<str>, &u32)> = self.numbers.iter().collect();
        all.sort_by_key(|(_, number)| **number);
        all.into_iter().map(|(name, _)| name.to_string()).collect()
    }
}
