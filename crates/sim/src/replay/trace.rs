//! Traces as text: a line for each request, columns by name.
//!
//! Known columns: the arrival (`t_s`, `at_ms`, `timestamp`), and the service time in a column (`service_s`, `service_ms`, `exec_s`),
//! as a constant, or by a formula of other columns.

use std::io::BufRead;

use super::request::TraceRequest;

/// How long an instance works on a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Service {
    /// As this column says, times a factor to milliseconds.
    Column {
        /// Its name.
        name: String,
        /// What one unit is worth, milliseconds.
        millis: f64,
    },
    /// The same for each.
    Constant(u64),
    /// A constant and shares of columns: `0.05 + context_tokens/8000 + 0.02*generated_tokens`, in seconds.
    Formula(Vec<Term>),
}

/// A part of a formula, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// What it is multiplied with.
    pub factor: f64,
    /// The column; none for a constant.
    pub column: Option<String>,
}

/// What is wrong with a trace or with what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// It cannot be read.
    #[error("line {line}: {cause}")]
    Unreadable {
        /// Which line, from 1.
        line: u64,
        /// Why.
        cause: String,
    },
    /// A column that is needed is not there.
    #[error("the trace has no column `{column}`; its columns are: {known}")]
    NoColumn {
        /// Which.
        column: String,
        /// Those that are there.
        known: String,
    },
    /// A value is no number of the kind that is needed.
    #[error("line {line}: `{value}` in column `{column}` is not {expected}")]
    Value {
        /// Which line, from 1.
        line: u64,
        /// Which column.
        column: String,
        /// The value.
        value: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A request comes before the one of the line above.
    #[error("line {line}: the request arrives {by_ms} ms before the one of the line above; sort the trace by arrival")]
    Unsorted {
        /// Which line, from 1.
        line: u64,
        /// By how much.
        by_ms: u64,
    },
    /// A formula is not understood.
    #[error("the formula `{formula}` is not understood at `{at}`")]
    Formula {
        /// As given.
        formula: String,
        /// Its part.
        at: String,
    },
    /// Nothing is in it.
    #[error("the trace has no requests")]
    Empty,
}

impl Service {
    /// A constant (`3s`'s milliseconds), a column's name with its unit at its end, or a formula in seconds.
    pub fn formula(text: &str) -> Result<Self, TraceError> {
        let wrong = |at: &str| TraceError::Formula { formula: text.to_owned(), at: at.trim().to_owned() };
        let mut terms = Vec::new();
        for part in text.split('+') {
            if part.trim().is_empty() {
                return Err(wrong(text));
            }
            let (mut factor, mut column) = (1.0, None);
            let mut divides = false;
            for word in part.split_inclusive(['*', '/']) {
                let (operand, next) = match word.strip_suffix(['*', '/']) {
                    Some(operand) => (operand, word.ends_with('/')),
                    None => (word, false),
                };
                let operand = operand.trim();
                match operand.parse::<f64>() {
                    Ok(number) if number.is_finite() && number > 0.0 => {
                        factor = if divides { factor / number } else { factor * number };
                    }
                    Ok(_) => return Err(wrong(operand)),
                    Err(_) if divides || column.is_some() || !is_name(operand) => return Err(wrong(part)),
                    Err(_) => column = Some(operand.to_owned()),
                }
                divides = next;
            }
            terms.push(Term { factor, column });
        }
        Ok(Self::Formula(terms))
    }
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Columns that say when a request arrives, with what one unit is worth in milliseconds.
const ARRIVALS: [(&str, f64); 4] = [("t_s", 1_000.0), ("at_s", 1_000.0), ("t_ms", 1.0), ("at_ms", 1.0)];
/// Columns that say how long a request is worked on.
const SERVICES: [(&str, f64); 4] = [("service_s", 1_000.0), ("exec_s", 1_000.0), ("service_ms", 1.0), ("exec_ms", 1.0)];

/// The requests of a trace, one by one.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    line: u64,
    text: String,
    arrival: (usize, f64),
    service: Plan,
    last: u64,
}

/// The service time with the places of its columns.
#[derive(Debug)]
enum Plan {
    Column(usize, String, f64),
    Constant(u64),
    Terms(Vec<(f64, Option<(usize, String)>)>),
}

impl<R: BufRead> Reader<R> {
    /// Reads the head. Without `service`, a column must say how long a request takes.
    pub fn new(mut input: R, service: Option<&Service>) -> Result<Self, TraceError> {
        let mut head = String::new();
        let read = input.read_line(&mut head).map_err(|error| unreadable(1, &error))?;
        if read == 0 {
            return Err(TraceError::Empty);
        }
        let names: Vec<&str> = head.trim().trim_start_matches('\u{feff}').split(',').map(str::trim).collect();
        let find = |name: &str| names.iter().position(|known| *known == name);
        let need = |name: &str| {
            find(name).ok_or_else(|| TraceError::NoColumn { column: name.to_owned(), known: names.join(", ") })
        };
        let arrival = ARRIVALS.iter().find_map(|(name, millis)| Some((find(name)?, *millis)));
        let arrival = arrival.map_or_else(|| need(ARRIVALS[0].0).map(|at| (at, ARRIVALS[0].1)), Ok)?;
        let plan = match service {
            Some(Service::Constant(millis)) => Plan::Constant(*millis),
            Some(Service::Column { name, millis }) => Plan::Column(need(name)?, name.clone(), *millis),
            Some(Service::Formula(terms)) => {
                let place = |term: &Term| {
                    let column = term.column.as_ref().map(|name| Ok((need(name)?, name.clone()))).transpose()?;
                    Ok((term.factor, column))
                };
                Plan::Terms(terms.iter().map(place).collect::<Result<_, TraceError>>()?)
            }
            None => {
                let known = SERVICES.iter().find_map(|(name, millis)| Some((find(name)?, *name, *millis)));
                let (at, name, millis) =
                    known.map_or_else(|| need(SERVICES[0].0).map(|at| (at, SERVICES[0].0, SERVICES[0].1)), Ok)?;
                Plan::Column(at, name.to_owned(), millis)
            }
        };
        Ok(Self { input, line: 1, text: String::new(), arrival, service: plan, last: 0 })
    }

    fn parse(&self) -> Result<TraceRequest, TraceError> {
        let fields = || self.text.trim_end().split(',');
        let number = |at: usize, column: &str| {
            let value = fields().nth(at).unwrap_or_default().trim();
            let wrong = || TraceError::Value {
                line: self.line,
                column: column.to_owned(),
                value: value.to_owned(),
                expected: "a number of 0 or more",
            };
            value.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0).ok_or_else(wrong)
        };
        let at = millis(number(self.arrival.0, "arrival")? * self.arrival.1);
        let service = match &self.service {
            Plan::Constant(millis) => *millis,
            Plan::Column(place, name, unit) => millis(number(*place, name)? * unit),
            Plan::Terms(terms) => {
                let mut seconds = 0.0;
                for (factor, column) in terms {
                    let value = column.as_ref().map_or(Ok(1.0), |(place, name)| number(*place, name))?;
                    seconds += factor * value;
                }
                millis(seconds * 1_000.0)
            }
        };
        if at < self.last {
            return Err(TraceError::Unsorted { line: self.line, by_ms: self.last - at });
        }
        Ok(TraceRequest { at, service: service.max(1) })
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be finite and not negative")]
fn millis(number: f64) -> u64 {
    number.round() as u64
}

fn unreadable(line: u64, error: &std::io::Error) -> TraceError {
    TraceError::Unreadable { line, cause: error.to_string() }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<TraceRequest, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.text.clear();
            self.line += 1;
            match self.input.read_line(&mut self.text) {
                Ok(0) => return None,
                Ok(_) if self.text.trim().is_empty() => {}
                Ok(_) => {
                    let request = self.parse();
                    if let Ok(request) = &request {
                        self.last = request.at;
                    }
                    return Some(request);
                }
                Err(error) => return Some(Err(unreadable(self.line, &error))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, service: Option<&Service>) -> Result<Vec<TraceRequest>, TraceError> {
        Reader::new(text.as_bytes(), service)?.collect()
    }

    #[test]
    fn columns_constants_and_formulas() {
        let text = "t_s,context_tokens,generated_tokens\n0.5,800,10\n1.25,0,0\n";
        let formula = Service::formula("0.05 + context_tokens/8000 + 0.02*generated_tokens").unwrap();
        let request = |at, service| TraceRequest { at, service };
        assert_eq!(read(text, Some(&formula)).unwrap(), [request(500, 350), request(1_250, 50)]);
        assert_eq!(read(text, Some(&Service::Constant(7))).unwrap()[0], request(500, 7));
        assert_eq!(read("at_ms,service_ms\n3,4\n\n5,0\n", None).unwrap(), [request(3, 4), request(5, 1)]);
        assert_eq!(read("t_s,model,exec_s\n1,M,32\n", None).unwrap(), [request(1_000, 32_000)]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let says = |text: &str, part: &str| {
            let error = read(text, None).unwrap_err().to_string();
            assert!(error.contains(part), "`{part}` is not in: {error}");
        };
        says("", "no requests");
        says("x,service_s\n", "no column `t_s`; its columns are: x, service_s");
        says("t_s,y\n", "no column `service_s`");
        says("t_s,service_s\n-1,2\n", "line 2: `-1` in column `arrival`");
        says("t_s,service_s\n1,2\n1,x\n", "line 3: `x` in column `service_s`");
        says("t_s,service_s\n2,2\n1,2\n", "line 3: the request arrives 1000 ms before");
        for wrong in ["", "1 +", "a*b", "1/a", "-1", "a b"] {
            assert!(Service::formula(wrong).is_err(), "{wrong}");
        }
    }
}
