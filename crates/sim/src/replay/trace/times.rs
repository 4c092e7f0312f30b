//! The times of an operation as a file: samples, or points of their distribution.

use std::io::BufRead;

use super::super::request::OperationTime;
use super::error::TraceError;
use super::table;

impl OperationTime {
    /// Reads a CSV file with a head: the columns `quantile` (from 0 to 1, ascending) and `ms` or `s`, or a column `ms` or `s` of samples.
    ///
    /// # Errors
    /// A column is missing, or a value is no number or does not ascend.
    pub fn read(mut input: impl BufRead) -> Result<Self, TraceError> {
        let mut line = Vec::new();
        if !table::next_line(&mut input, &mut line, 1)? {
            return Err(TraceError::Empty);
        }
        let columns = table::split(&line);
        let find = |name: &str| columns.iter().position(|column| column == name);
        let (at, unit) = find("ms")
            .map(|at| (at, 1.0))
            .or_else(|| Some((find("s")?, 1_000.0)))
            .ok_or_else(|| TraceError::NoColumn { column: "ms".to_owned(), known: columns.join(", ") })?;
        let (quantile, mut points, mut number) = (find("quantile"), Vec::<(f64, f64)>::new(), 1);
        while table::next_line(&mut input, &mut line, number + 1)? {
            number += 1;
            if line.is_empty() {
                continue;
            }
            let fields = table::split(&line);
            let field = |at: usize| fields.get(at).map_or("", String::as_str);
            let wrong = |at: usize, expected: &'static str| TraceError::Value {
                line: number,
                column: columns[at].clone(),
                value: field(at).to_owned(),
                expected,
            };
            let value =
                |at: usize| table::decimal(field(at).as_bytes()).ok_or_else(|| wrong(at, "a number of 0 or more"));
            let time = value(at)? * unit;
            let share = match quantile {
                Some(quantile) => {
                    let share = value(quantile)?;
                    let ascends = points.last().is_none_or(|(last, shorter)| share > *last && time >= *shorter);
                    if share > 1.0 || !ascends {
                        return Err(wrong(quantile, "a share up to 1, above the one before and with no shorter time"));
                    }
                    share
                }
                None => 0.0,
            };
            points.push((share, time));
        }
        match quantile {
            Some(_) if points.is_empty() => Err(TraceError::Empty),
            Some(_) => Ok(Self::Quantiles(points.into())),
            None => Self::samples(points.into_iter().map(|(_, time)| time).collect()).ok_or(TraceError::Empty),
        }
    }
}
