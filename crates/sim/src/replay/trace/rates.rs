//! Rates of clients by window, as ServeGen has them. The arrivals of a client within a window are drawn as a renewal process: gaps
//! of the window's mean and coefficient of variation, by the law that the trace names (Gamma, Weibull, or else exponential).

use std::collections::BTreeMap;
use std::io::BufRead;

use super::super::request::TraceRequest;
use super::counts::drawn_millis;
use super::error::TraceError;
use super::form::Head;
use super::options::{Names, ReadOptions};
use super::service::Service;
use super::table::{decimal, next_line};
use crate::random::Random;

/// Where a trace has one window only, seconds.
const WINDOW: f64 = 600.0;

#[derive(Debug, Clone, Copy)]
enum Law {
    Gamma { shape: f64 },
    Weibull { shape: f64, mean_of_unit: f64 },
    Exponential,
}

#[derive(Debug, Clone, Copy)]
struct Client {
    number: u32,
    rate: f64,
    law: Law,
}

/// The requests, window by window.
#[derive(Debug)]
pub(super) struct Rates {
    /// By the window's beginning in milliseconds.
    windows: BTreeMap<u64, Vec<Client>>,
    pub(super) names: Names,
    length: f64,
    service: Service,
    together: bool,
    random: Random,
    drawn: std::vec::IntoIter<TraceRequest>,
}

impl Rates {
    pub(super) fn read(
        mut input: impl BufRead,
        head: &Head,
        first: &[u8],
        options: &ReadOptions,
    ) -> Result<Self, TraceError> {
        let columns = &head.columns;
        let need = |name: &str| {
            let found = columns.iter().position(|column| column == name);
            found.ok_or_else(|| TraceError::NoColumn { column: name.to_owned(), known: columns.join(", ") })
        };
        let (at, rate, cv) = (need("t_s")?, need("rate")?, need("cv")?);
        let client = columns.iter().position(|column| column == "client");
        let law = columns.iter().position(|column| matches!(column.as_str(), "dist" | "pattern" | "pat"));
        let drawn = |service: &&Service| matches!(service, Service::Constant(_) | Service::LogNormal { .. });
        let Some(service) = options.service.as_ref().filter(drawn).cloned() else {
            return Err(TraceError::NoService { form: head.form.name(), known: columns.join(", ") });
        };
        let mut rates = Self {
            windows: BTreeMap::new(),
            names: Names::default(),
            length: WINDOW * 1_000.0,
            service,
            together: options.functions.is_none(),
            random: Random::stream(options.seed, "rates", 0),
            drawn: Vec::new().into_iter(),
        };
        let (mut line, mut number, mut pending) = (first.to_vec(), 1, head.is_row);
        loop {
            if !std::mem::take(&mut pending) {
                number += 1;
                if !next_line(&mut input, &mut line, number)? {
                    break;
                }
            }
            if line.is_empty() {
                continue;
            }
            let fields: Vec<&[u8]> = line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect();
            let field = |at: usize| fields.get(at).copied().unwrap_or_default();
            let value = |at: usize| {
                decimal(field(at)).ok_or_else(|| TraceError::Value {
                    line: number,
                    column: columns.get(at).cloned().unwrap_or_default(),
                    value: String::from_utf8_lossy(field(at)).into_owned(),
                    expected: "a number of 0 or more",
                })
            };
            let (begin, rate, cv) = (value(at)? * 1_000.0, value(rate)?, value(cv)?);
            if rate <= 0.0 {
                continue;
            }
            let name = client.map_or_else(String::new, |at| String::from_utf8_lossy(field(at)).into_owned());
            let number = rates.names.number(&name);
            let law = law.map_or(&b""[..], &field);
            let law = Law::new(&String::from_utf8_lossy(law), cv);
            rates.windows.entry(drawn_millis(begin)).or_default().push(Client { number, rate, law });
        }
        let begins: Vec<u64> = rates.windows.keys().copied().collect();
        if let Some(shortest) = begins.windows(2).map(|pair| pair[1] - pair[0]).min() {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of weeks")]
            let length = shortest as f64;
            rates.length = length;
        }
        Ok(rates)
    }
}

impl Law {
    fn new(name: &str, cv: f64) -> Self {
        let cv = cv.clamp(0.05, 50.0);
        match () {
            () if name.starts_with("Gamma") => Self::Gamma { shape: 1.0 / (cv * cv) },
            () if name.starts_with("Weibull") => {
                let shape = weibull_shape(cv);
                Self::Weibull { shape, mean_of_unit: gamma(1.0 + 1.0 / shape) }
            }
            () => Self::Exponential,
        }
    }

    /// A gap with the mean 1.
    fn gap(self, random: &mut Random) -> f64 {
        match self {
            Self::Exponential => exponential(random),
            Self::Weibull { shape, mean_of_unit } => exponential(random).powf(1.0 / shape) / mean_of_unit,
            Self::Gamma { shape } => gamma_draw(shape, random) / shape,
        }
    }
}

fn exponential(random: &mut Random) -> f64 {
    -(1.0 - random.share()).ln()
}

/// Marsaglia and Tsang, "A simple method for generating gamma variables", 2000.
fn gamma_draw(shape: f64, random: &mut Random) -> f64 {
    if shape < 1.0 {
        return gamma_draw(shape + 1.0, random) * (1.0 - random.share()).powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = random.normal();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - random.share()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// The shape at which a Weibull distribution has this coefficient of variation, found by halving: it falls with the shape.
fn weibull_shape(cv: f64) -> f64 {
    let (mut low, mut high) = (0.1, 25.0);
    for _ in 0..60 {
        let shape: f64 = (low + high) / 2.0;
        let mean = gamma(1.0 + 1.0 / shape);
        let spread = (gamma(1.0 + 2.0 / shape) / (mean * mean) - 1.0).max(0.0).sqrt();
        if spread > cv { low = shape } else { high = shape }
    }
    (low + high) / 2.0
}

/// The gamma function above 1, by Lanczos' approximation (g = 7, n = 9; error below 1e-13).
fn gamma(x: f64) -> f64 {
    const WEIGHTS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let (mut sum, mut step) = (WEIGHTS[0], x);
    for weight in &WEIGHTS[1..] {
        step += 1.0;
        sum += weight / step;
    }
    let t = x + 7.5;
    std::f64::consts::TAU.sqrt() * t.powf(x + 0.5) * (-t).exp() * sum
}

impl Iterator for Rates {
    type Item = TraceRequest;

    fn next(&mut self) -> Option<TraceRequest> {
        loop {
            if let Some(request) = self.drawn.next() {
                return Some(request);
            }
            let (begin, clients) = self.windows.pop_first()?;
            let mut drawn = Vec::new();
            for client in clients {
                // A client's process is under way when the window begins.
                let mean = 1_000.0 / client.rate;
                let mut at = client.law.gap(&mut self.random) * mean * self.random.share();
                while at < self.length {
                    let function = if self.together { 0 } else { client.number };
                    let service = self.service.draw(&mut self.random).max(1);
                    drawn.push(TraceRequest { at: begin + drawn_millis(at), service, function });
                    at += client.law.gap(&mut self.random) * mean;
                }
            }
            drawn.sort_by_key(|request| request.at);
            // Rounding may bring the last one to the next window's first millisecond; it stays in this one.
            self.drawn = drawn.into_iter();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_have_the_mean_and_the_variation_that_were_asked_for() {
        assert!((gamma(5.0) - 24.0).abs() < 1e-9 && (gamma(1.5) - 0.886_226_925_452_758).abs() < 1e-12);
        let mut random = Random::stream(3, "gaps", 0);
        for (name, cv) in [("Gamma", 2.5), ("Gamma", 0.6), ("Weibull", 1.8), ("Poisson", 1.0)] {
            let law = Law::new(name, cv);
            let gaps: Vec<f64> = (0..200_000).map(|_| law.gap(&mut random)).collect();
            let count = 200_000.0;
            let mean = gaps.iter().sum::<f64>() / count;
            let spread = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count).sqrt() / mean;
            assert!((mean - 1.0).abs() < 0.03 && (spread / cv - 1.0).abs() < 0.05, "{name} {cv}: {mean} {spread}");
        }
    }
}
