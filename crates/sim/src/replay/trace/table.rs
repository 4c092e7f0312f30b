//! A request in each line: CSV, or JSON lines.

use std::io::BufRead;

use jiff::Timestamp;
use jiff::civil::DateTime;

use super::super::request::TraceRequest;
use super::error::TraceError;
use super::form::{Form, Head};
use super::options::{Names, ReadOptions};
use super::service::Service;
use crate::random::Random;

/// Columns that say when a request arrives, with what one unit is worth in milliseconds.
const ARRIVALS: [(&str, f64); 4] = [("t_s", 1_000.0), ("at_s", 1_000.0), ("t_ms", 1.0), ("at_ms", 1.0)];
/// Columns that say how long a request is worked on.
const SERVICES: [(&str, f64); 4] = [("service_s", 1_000.0), ("exec_s", 1_000.0), ("service_ms", 1.0), ("exec_ms", 1.0)];
/// Columns that say whose request it is.
const FUNCTIONS: [&str; 7] = ["function", "functionName", "func", "fn", "model", "Model", "client"];

/// When a request comes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Arrival {
    /// A number in this unit, milliseconds.
    Number(f64),
    /// A date and a time.
    Date,
    /// A number in this unit that says when the request was over, milliseconds.
    End(f64),
}

/// The service time with the places of its columns.
#[derive(Debug)]
enum Plan {
    Column(usize, f64),
    Drawn(Service),
    Terms(Vec<(f64, Option<usize>)>),
    /// Microseconds from the arrival to the end, less those of waiting.
    Phases(usize, usize),
}

/// Rows one by one.
#[derive(Debug)]
pub(super) struct Table<R> {
    input: R,
    line: u64,
    text: Vec<u8>,
    pending: bool,
    json: Option<Vec<String>>,
    /// Where the fields of the present line are.
    fields: Vec<(u32, u32)>,
    values: Vec<Option<String>>,
    columns: Vec<String>,
    most: usize,
    arrival: (usize, Arrival),
    plan: Plan,
    function: Option<usize>,
    pub(super) names: Names,
    form: Form,
    /// Dates count from the first one.
    origin: Option<f64>,
    last: Option<u64>,
    list: std::vec::IntoIter<serde_json::Value>,
    random: Random,
}

/// Reads a line without its end. Empty at the end of the input.
pub(in crate::replay) fn next_line(
    input: &mut impl BufRead,
    line: &mut Vec<u8>,
    number: u64,
) -> Result<bool, TraceError> {
    line.clear();
    let unreadable = |error: std::io::Error| TraceError::Unreadable { line: number, cause: error.to_string() };
    let read = input.read_until(b'\n', line).map_err(unreadable)?;
    while line.last().is_some_and(|end| matches!(end, b'\n' | b'\r')) {
        line.pop();
    }
    Ok(read > 0)
}

/// The fields of a line without quotes.
pub(in crate::replay) fn split(line: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(line).split(',').map(|field| field.trim().to_owned()).collect()
}

impl<R: BufRead> Table<R> {
    pub(super) fn new(mut input: R, head: &Head, first: &[u8], options: &ReadOptions) -> Result<Self, TraceError> {
        let json = head.form.is_json();
        let mut columns = head.columns.clone();
        let mut list = Vec::new();
        if json && (first.starts_with(b"[") || matches!(head.form, Form::Requests | Form::Tasks)) {
            list = whole_list(&mut input, first)?;
            columns = list
                .first()
                .and_then(serde_json::Value::as_object)
                .map(|row| row.keys().cloned().collect())
                .unwrap_or_default();
            if list.is_empty() {
                return Err(TraceError::Empty);
            }
        }
        let find = |name: &str| columns.iter().position(|known| known == name);
        let known = || columns.join(", ");
        let need =
            |name: &str| find(name).ok_or_else(|| TraceError::NoColumn { column: name.to_owned(), known: known() });
        let arrival = match head.form {
            Form::AzureLlm => (need("TIMESTAMP")?, Arrival::Date),
            Form::AzureFunctions => (need("end_timestamp")?, Arrival::End(1_000.0)),
            Form::BurstGpt => (need("Timestamp")?, Arrival::Number(1_000.0)),
            Form::Mooncake => (need("timestamp")?, Arrival::Number(1.0)),
            Form::Requests => (need("at")?, Arrival::Number(1.0)),
            Form::Tasks => (find("firstStartedTime").map_or_else(|| need("startedTime"), Ok)?, Arrival::Number(1.0)),
            _ => {
                let known = ARRIVALS.iter().find_map(|(name, millis)| Some((find(name)?, *millis)));
                let (at, unit) = known.map_or_else(|| need(ARRIVALS[0].0).map(|at| (at, ARRIVALS[0].1)), Ok)?;
                (at, Arrival::Number(unit))
            }
        };
        let plan = match (&options.service, head.form) {
            (Some(service @ (Service::Constant(_) | Service::LogNormal { .. })), _) => Plan::Drawn(service.clone()),
            (Some(Service::Column { name, millis }), _) => Plan::Column(need(name)?, *millis),
            (Some(Service::Formula(terms)), _) => {
                let place = |term: &super::Term| Ok((term.factor, term.column.as_deref().map(need).transpose()?));
                Plan::Terms(terms.iter().map(place).collect::<Result<_, TraceError>>()?)
            }
            (None, Form::Requests) => Plan::Phases(need("total_us")?, need("queue_us")?),
            (None, Form::Tasks) => Plan::Column(need("durationMs")?, 1.0),
            (None, Form::AzureFunctions) => Plan::Column(need("duration")?, 1_000.0),
            (None, Form::BurstGpt) if find("Elapsed_time").is_some() => Plan::Column(need("Elapsed_time")?, 1_000.0),
            (None, Form::AzureLlm | Form::BurstGpt | Form::Mooncake) => {
                return Err(TraceError::NoService { form: head.form.name(), known: known() });
            }
            (None, _) => {
                let known = SERVICES.iter().find_map(|(name, millis)| Some((find(name)?, *millis)));
                let (at, unit) = known.map_or_else(|| need(SERVICES[0].0).map(|at| (at, SERVICES[0].1)), Ok)?;
                Plan::Column(at, unit)
            }
        };
        let function = match &options.functions {
            None => None,
            Some(Some(name)) => Some(need(name)?),
            Some(None) => Some(FUNCTIONS.iter().find_map(|name| find(name)).map_or_else(|| need("function"), Ok)?),
        };
        let service = match &plan {
            Plan::Column(at, _) => *at,
            Plan::Drawn(_) => 0,
            Plan::Terms(terms) => terms.iter().filter_map(|(_, at)| *at).max().unwrap_or(0),
            Plan::Phases(one, other) => *one.max(other),
        };
        let most = arrival.0.max(service).max(function.unwrap_or(0));
        Ok(Self {
            input,
            line: 1,
            text: if head.is_row { first.to_vec() } else { Vec::new() },
            pending: head.is_row && list.is_empty(),
            json: json.then(|| columns.clone()),
            fields: Vec::new(),
            values: vec![None; columns.len()],
            columns,
            most,
            arrival,
            plan,
            function,
            names: Names::default(),
            form: head.form,
            origin: None,
            last: None,
            list: list.into_iter(),
            random: Random::stream(options.seed, "service", 0),
        })
    }

    /// Finds the fields of the next row. False at the end.
    fn advance(&mut self) -> Result<bool, TraceError> {
        if let Some(columns) = &self.json {
            let row = match self.list.next() {
                Some(row) => row,
                None if matches!(self.form, Form::Requests | Form::Tasks) => return Ok(false),
                None => loop {
                    if !std::mem::take(&mut self.pending) {
                        self.line += 1;
                        if !next_line(&mut self.input, &mut self.text, self.line)? {
                            return Ok(false);
                        }
                    }
                    if !self.text.trim_ascii().is_empty() {
                        let wrong = |error: serde_json::Error| TraceError::Unreadable {
                            line: self.line,
                            cause: format!("not a JSON object: {error}"),
                        };
                        break serde_json::from_slice(&self.text).map_err(wrong)?;
                    }
                },
            };
            for (value, column) in self.values.iter_mut().zip(columns) {
                *value = row.get(column).map(|value| match value {
                    serde_json::Value::String(text) => text.clone(),
                    other => other.to_string(),
                });
            }
            return Ok(true);
        }
        loop {
            if !std::mem::take(&mut self.pending) {
                self.line += 1;
                if !next_line(&mut self.input, &mut self.text, self.line)? {
                    return Ok(false);
                }
            }
            if self.text.trim_ascii().is_empty() {
                continue;
            }
            self.fields.clear();
            if self.text.contains(&b'"') {
                quoted(&self.text, &mut self.fields);
            } else {
                let mut from = 0;
                for (at, byte) in self.text.iter().enumerate() {
                    if *byte == b',' {
                        self.fields.push((short(from), short(at)));
                        from = at + 1;
                        if self.fields.len() > self.most {
                            break;
                        }
                    }
                }
                if self.fields.len() <= self.most {
                    self.fields.push((short(from), short(self.text.len())));
                }
            }
            return Ok(true);
        }
    }

    fn field(&self, at: usize) -> &[u8] {
        if self.json.is_some() {
            return self.values.get(at).and_then(Option::as_deref).unwrap_or_default().as_bytes();
        }
        let place = self.fields.get(at).and_then(|(from, to)| self.text.get(*from as usize..*to as usize));
        place.unwrap_or_default().trim_ascii()
    }

    fn wrong(&self, at: usize, expected: &'static str) -> TraceError {
        TraceError::Value {
            line: self.line,
            column: self.columns.get(at).cloned().unwrap_or_default(),
            value: String::from_utf8_lossy(self.field(at)).into_owned(),
            expected,
        }
    }

    fn number(&self, at: usize) -> Result<f64, TraceError> {
        decimal(self.field(at)).ok_or_else(|| self.wrong(at, "a number of 0 or more"))
    }

    fn date(&self, at: usize) -> Result<f64, TraceError> {
        let wrong = || self.wrong(at, "a date and time such as 2023-11-16 18:15:46.680");
        let text = std::str::from_utf8(self.field(at)).map_err(|_| wrong())?;
        let zoned = text.parse::<Timestamp>().ok().map(|at| at.as_nanosecond());
        let civil = || {
            let date = text.parse::<DateTime>().ok()?;
            Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_nanosecond())
        };
        #[expect(clippy::cast_precision_loss, reason = "fractions of a microsecond do not matter")]
        zoned.or_else(civil).map(|nanos| nanos as f64 / 1e6).ok_or_else(wrong)
    }

    fn request(&mut self) -> Result<TraceRequest, TraceError> {
        let service = match &self.plan {
            Plan::Drawn(service) => service.draw(&mut self.random),
            Plan::Column(at, unit) => millis(self.number(*at)? * unit),
            Plan::Terms(terms) => {
                let mut seconds = 0.0;
                for (factor, column) in terms {
                    seconds += factor * column.map_or(Ok(1.0), |at| self.number(at))?;
                }
                millis(seconds * 1_000.0)
            }
            Plan::Phases(total, queue) => millis((self.number(*total)? - self.number(*queue)?).max(0.0) / 1_000.0),
        };
        let service = service.max(1);
        let at = match self.arrival {
            (at, Arrival::Number(unit)) => self.number(at)? * unit,
            (at, Arrival::Date) => self.date(at)?,
            // A request that began before the trace came at its beginning.
            (at, Arrival::End(unit)) => (self.number(at)? * unit - to_float(service)).max(0.0),
        };
        let at = match self.arrival.1 {
            // Dates have a beginning far away; those that are not sorted are settled when all are known.
            Arrival::Date => {
                let origin = *self.origin.get_or_insert(at);
                if at < origin {
                    return Err(TraceError::Unsorted { line: self.line, by_ms: millis(origin - at) });
                }
                millis(at - origin)
            }
            _ => millis(at),
        };
        if self.form.is_sorted() {
            if let Some(last) = self.last.filter(|last| at < *last) {
                return Err(TraceError::Unsorted { line: self.line, by_ms: last - at });
            }
            self.last = Some(at);
        }
        let function = match self.function {
            None => 0,
            Some(place) => {
                let name = String::from_utf8_lossy(self.field(place)).into_owned();
                self.names.number(&name)
            }
        };
        Ok(TraceRequest { at, service, function })
    }
}

impl<R: BufRead> Iterator for Table<R> {
    type Item = Result<TraceRequest, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
            // What was refused, or has not begun, is not work for an instance.
            if matches!(self.form, Form::Requests | Form::Tasks) && self.field(self.arrival.0).is_empty() {
                continue;
            }
            return Some(self.request());
        }
    }
}

/// All of a list: a JSON array, an object with one, or an object in each line.
fn whole_list(input: &mut impl BufRead, first: &[u8]) -> Result<Vec<serde_json::Value>, TraceError> {
    let mut all = first.to_vec();
    all.push(b'\n');
    let unreadable = |cause: String| TraceError::Unreadable { line: 1, cause };
    input.read_to_end(&mut all).map_err(|error| unreadable(error.to_string()))?;
    let mut rows = Vec::new();
    for value in serde_json::Deserializer::from_slice(&all).into_iter::<serde_json::Value>() {
        let value = value.map_err(|error| TraceError::Unreadable {
            line: error.line() as u64,
            cause: format!("not JSON: {error}"),
        })?;
        match value {
            serde_json::Value::Array(list) => rows.extend(list),
            serde_json::Value::Object(mut object) => match object.remove("tasks") {
                Some(serde_json::Value::Array(list)) => rows.extend(list),
                _ => rows.push(serde_json::Value::Object(object)),
            },
            _ => return Err(unreadable("not a list of objects".to_owned())),
        }
    }
    Ok(rows)
}

fn short(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Fields in which commas may stand between quotes.
fn quoted(text: &[u8], fields: &mut Vec<(u32, u32)>) {
    let (mut from, mut inside) = (0, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'"' => inside = !inside,
            b',' if !inside => {
                fields.push(unquoted(text, from, at));
                from = at + 1;
            }
            _ => {}
        }
    }
    fields.push(unquoted(text, from, text.len()));
}

fn unquoted(text: &[u8], from: usize, to: usize) -> (u32, u32) {
    let quotes = to >= from + 2 && text[from] == b'"' && text[to - 1] == b'"';
    if quotes { (short(from + 1), short(to - 1)) } else { (short(from), short(to)) }
}

/// A number that is finite and not below 0. Those of up to 15 digits without an exponent are read at once.
pub(in crate::replay) fn decimal(text: &[u8]) -> Option<f64> {
    const POWERS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    let (mut digits, mut point, mut value) = (0usize, None, 0u64);
    for byte in text {
        match byte {
            b'0'..=b'9' if digits < 15 => {
                value = value * 10 + u64::from(byte - b'0');
                digits += 1;
            }
            b'.' if point.is_none() => point = Some(digits),
            _ => {
                let number = std::str::from_utf8(text).ok()?.parse::<f64>().ok()?;
                return (number.is_finite() && number >= 0.0).then_some(number);
            }
        }
    }
    if digits == 0 {
        return None;
    }
    // Both are exact, so the quotient is the nearest number.
    Some(to_float(value) / POWERS[digits - point.unwrap_or(digits)])
}

#[expect(clippy::cast_precision_loss, reason = "fewer than 52 bits")]
fn to_float(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be finite and not negative")]
pub(super) fn millis(number: f64) -> u64 {
    number.round() as u64
}
