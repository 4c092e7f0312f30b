//! Traces as text. Rows become requests one by one, so that a trace of any length needs little memory.
//!
//! * [`Form`]: which kinds of trace there are, and how one is recognised by its first line.
//! * `table`: rows of CSV and of JSON lines, with the columns that are needed.
//! * `counts`: requests by minute and function. `rates`: requests by the rate of each client. Both draw arrivals from a seed.

mod counts;
mod error;
mod form;
mod options;
mod order;
mod rates;
mod service;
pub(in crate::replay) mod table;
mod times;

use std::io::BufRead;

pub use error::TraceError;
pub use form::Form;
pub use options::ReadOptions;
pub use service::{Service, Term};

pub use counts::Durations;

use super::request::TraceRequest;
use crate::random::Random;
use form::Head;

/// The requests of a trace, one by one.
#[derive(Debug)]
pub struct Reader<R> {
    form: Form,
    rows: Rows<R>,
    sample: Option<(f64, Random)>,
}

#[derive(Debug)]
enum Rows<R> {
    /// A request in each line.
    Table(Box<table::Table<R>>),
    /// The same, sorted here.
    Sorted(Vec<String>, std::vec::IntoIter<TraceRequest>),
    /// Drawn by the minute.
    Counts(Box<counts::Counts>),
    /// Drawn by the window.
    Rates(Box<rates::Rates>),
}

impl<R: BufRead> Reader<R> {
    /// Reads the first line.
    ///
    /// # Errors
    /// The form is not known, or a column is missing.
    pub fn new(mut input: R, options: &ReadOptions) -> Result<Self, TraceError> {
        let mut line = Vec::new();
        table::next_line(&mut input, &mut line, 1)?;
        if line.is_empty() {
            return Err(TraceError::Empty);
        }
        let head = Head::read(&line, options.form)?;
        let form = head.form;
        let rows = match form {
            Form::AzureMinutes => Rows::Counts(Box::new(counts::Counts::read(input, &head, options)?)),
            Form::ServeGen => Rows::Rates(Box::new(rates::Rates::read(input, &head, &line, options)?)),
            _ => {
                let table = table::Table::new(input, &head, &line, options)?;
                if form.is_sorted() { Rows::Table(Box::new(table)) } else { order::sorted(table)? }
            }
        };
        let sample = options.sample.map(|share| (share, Random::stream(options.seed, "sample", 0)));
        Ok(Self { form, rows, sample })
    }

    /// Its form.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The names of the functions that have appeared so far, by their numbers.
    pub fn functions(&self) -> Vec<String> {
        match &self.rows {
            Rows::Table(table) => table.names.in_order(),
            Rows::Sorted(names, _) => names.clone(),
            Rows::Counts(counts) => counts.names.in_order(),
            Rows::Rates(rates) => rates.names.in_order(),
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<TraceRequest, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let next = match &mut self.rows {
                Rows::Table(table) => table.next(),
                Rows::Sorted(_, requests) => requests.next().map(Ok),
                Rows::Counts(counts) => counts.next().map(Ok),
                Rows::Rates(rates) => rates.next().map(Ok),
            };
            let skipped = |sample: &mut (f64, Random)| matches!(next, Some(Ok(_))) && sample.1.share() >= sample.0;
            if !self.sample.as_mut().is_some_and(skipped) {
                return next;
            }
        }
    }
}

#[cfg(test)]
mod tests;
