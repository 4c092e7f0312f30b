//! Calls by minute and function, as Azure's traces of 2019 have them: a function a line with a column for each minute, or a line for
//! each function and minute. The arrivals within a minute are drawn, equally likely at each moment.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::sync::Arc;

use super::super::request::{OperationTime, TraceRequest};
use super::error::TraceError;
use super::form::Head;
use super::options::{Names, ReadOptions};
use super::service::Service;
use super::table::{decimal, millis, next_line, split};
use crate::random::Random;

const MINUTE: u64 = 60_000;

/// How long the calls of each function take, by its name.
#[derive(Debug, Clone, Default)]
pub struct Durations {
    by_function: BTreeMap<Box<str>, OperationTime>,
}

/// Columns of Azure's file of durations, and of extracts from it: quantile and name.
const QUANTILES: [(f64, [&str; 2]); 7] = [
    (0.0, ["percentile_Average_0", "dur_p0_ms"]),
    (0.01, ["percentile_Average_1", "dur_p1_ms"]),
    (0.25, ["percentile_Average_25", "dur_p25_ms"]),
    (0.5, ["percentile_Average_50", "dur_p50_ms"]),
    (0.75, ["percentile_Average_75", "dur_p75_ms"]),
    (0.99, ["percentile_Average_99", "dur_p99_ms"]),
    (1.0, ["percentile_Average_100", "dur_p100_ms"]),
];

impl Durations {
    /// Reads a file with a head: `HashFunction` or `fn`, and quantiles in milliseconds.
    ///
    /// # Errors
    /// A column is missing, or a value is no number.
    pub fn read(mut input: impl BufRead) -> Result<Self, TraceError> {
        let mut line = Vec::new();
        if !next_line(&mut input, &mut line, 1)? {
            return Err(TraceError::Empty);
        }
        let columns = split(&line);
        let key = key(&columns)?;
        let quantiles: Vec<(f64, usize)> = QUANTILES
            .iter()
            .filter_map(|(share, names)| Some((*share, columns.iter().position(|known| names.contains(&&**known))?)))
            .collect();
        if quantiles.is_empty() {
            let (column, known) = (QUANTILES[3].1[0].to_owned(), columns.join(", "));
            return Err(TraceError::NoColumn { column, known });
        }
        let (mut by_function, mut number) = (BTreeMap::new(), 1);
        while next_line(&mut input, &mut line, number + 1)? {
            number += 1;
            let fields = split(&line);
            let value = |(share, at): &(f64, usize)| {
                let text = fields.get(*at).map_or("", String::as_str);
                decimal(text.as_bytes()).map(|value| (*share, value)).ok_or_else(|| TraceError::Value {
                    line: number,
                    column: columns[*at].clone(),
                    value: text.to_owned(),
                    expected: "a number of 0 or more",
                })
            };
            let points: Vec<(f64, f64)> = quantiles.iter().map(value).collect::<Result<_, _>>()?;
            let name = fields.get(key).cloned().unwrap_or_default();
            by_function.insert(name.into_boxed_str(), OperationTime::Quantiles(Arc::from(points)));
        }
        Ok(Self { by_function })
    }
}

fn key(columns: &[String]) -> Result<usize, TraceError> {
    let known = ["HashFunction", "fn", "function", "func"];
    let found = known.iter().find_map(|name| columns.iter().position(|column| column == name));
    found.ok_or_else(|| TraceError::NoColumn { column: known[0].to_owned(), known: columns.join(", ") })
}

/// The calls, minute by minute.
#[derive(Debug)]
pub(super) struct Counts {
    /// By minute: functions with their calls.
    minutes: BTreeMap<u64, Vec<(u32, u32)>>,
    pub(super) names: Names,
    /// For all functions, or by function.
    service: Option<Service>,
    times: Vec<OperationTime>,
    together: bool,
    random: Random,
    drawn: std::vec::IntoIter<TraceRequest>,
}

impl Counts {
    pub(super) fn read(mut input: impl BufRead, head: &Head, options: &ReadOptions) -> Result<Self, TraceError> {
        let columns = &head.columns;
        let known = || columns.join(", ");
        let place = |name: &str| columns.iter().position(|column| column == name);
        let key = key(columns)?;
        let long = place("minute").zip(place("count"));
        let wide: Vec<(u64, usize)> = columns
            .iter()
            .enumerate()
            .filter_map(|(at, name)| Some((name.parse::<u64>().ok()?.saturating_sub(1), at)))
            .collect();
        if long.is_none() && wide.is_empty() {
            return Err(TraceError::NoColumn { column: "1".to_owned(), known: known() });
        }
        let service = match (&options.service, &options.durations) {
            (Some(service @ (Service::Constant(_) | Service::LogNormal { .. })), _) => Some(service.clone()),
            (_, Some(_)) => None,
            _ => {
                return Err(TraceError::NoService { form: head.form.name(), known: "functions and counts".to_owned() });
            }
        };
        let mut counts = Self {
            minutes: BTreeMap::new(),
            names: Names::default(),
            service,
            times: Vec::new(),
            together: options.functions.is_none(),
            random: Random::stream(options.seed, "counts", 0),
            drawn: Vec::new().into_iter(),
        };
        let (mut line, mut number) = (Vec::new(), 1);
        while next_line(&mut input, &mut line, number + 1)? {
            number += 1;
            if line.is_empty() {
                continue;
            }
            let fields = split(&line);
            let field = |at: usize| fields.get(at).map_or("", String::as_str);
            let count = |at: usize| {
                field(at).parse::<u32>().map_err(|_| TraceError::Value {
                    line: number,
                    column: columns.get(at).cloned().unwrap_or_default(),
                    value: field(at).to_owned(),
                    expected: "a whole number of 0 or more",
                })
            };
            let name = field(key);
            let function = counts.names.number(name);
            if counts.times.len() <= function as usize {
                let known = options.durations.as_ref().and_then(|all| all.by_function.get(name)).cloned();
                let unused = counts.service.is_some().then_some(OperationTime::Constant(0));
                let time = unused.or(known).ok_or_else(|| TraceError::Value {
                    line: number,
                    column: columns[key].clone(),
                    value: name.to_owned(),
                    expected: "among the functions of --durations",
                })?;
                counts.times.push(time);
            }
            let mut add = |minute: u64, calls: u32| {
                if calls > 0 {
                    counts.minutes.entry(minute).or_default().push((function, calls));
                }
            };
            match long {
                Some((minute, calls)) => add(u64::from(count(minute)?), count(calls)?),
                None => {
                    for (minute, at) in &wide {
                        add(*minute, count(*at)?);
                    }
                }
            }
        }
        Ok(counts)
    }
}

impl Iterator for Counts {
    type Item = TraceRequest;

    fn next(&mut self) -> Option<TraceRequest> {
        loop {
            if let Some(request) = self.drawn.next() {
                return Some(request);
            }
            let (minute, functions) = self.minutes.pop_first()?;
            let mut drawn = Vec::new();
            for (function, calls) in functions {
                for _ in 0..calls {
                    let at = minute * MINUTE + self.random.below(MINUTE);
                    let service = match &self.service {
                        Some(service) => service.draw(&mut self.random),
                        None => self.times[function as usize].draw(&mut self.random),
                    };
                    let service = service.max(1);
                    let function = if self.together { 0 } else { function };
                    drawn.push(TraceRequest { at, service, function });
                }
            }
            drawn.sort_by_key(|request| request.at);
            self.drawn = drawn.into_iter();
        }
    }
}

/// As [`millis`], for what is drawn.
pub(super) fn drawn_millis(number: f64) -> u64 {
    millis(number.max(0.0))
}
