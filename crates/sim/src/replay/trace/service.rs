//! How long an instance works on a request: as a column says, a constant, or a formula of columns.

use kip_spec::Millis;

use super::error::TraceError;
use crate::random::Random;

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
    /// Drawn from a log-normal distribution: `lognormal:3s:0.5`.
    LogNormal {
        /// Its mean, milliseconds.
        mean: u64,
        /// Its coefficient of variation.
        cv: f64,
    },
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

impl Service {
    /// A time that needs no columns, milliseconds; 0 where columns say it.
    pub(super) fn draw(&self, random: &mut Random) -> u64 {
        match self {
            Self::Constant(time) => *time,
            Self::LogNormal { mean, cv } => lognormal(*mean, *cv, random),
            Self::Column { .. } | Self::Formula(_) => 0,
        }
    }

    /// A duration (`3s`), a distribution (`lognormal:3s:0.5`, by mean and coefficient of variation), or a formula in seconds.
    ///
    /// # Errors
    /// It is none of them.
    pub fn formula(text: &str) -> Result<Self, TraceError> {
        let wrong = |at: &str| TraceError::Formula { formula: text.to_owned(), at: at.trim().to_owned() };
        if let Ok(time) = text.parse::<Millis>() {
            return Ok(Self::Constant(time.0));
        }
        if let Some(rest) = text.strip_prefix("lognormal:") {
            let parsed = rest.split_once(':').and_then(|(mean, cv)| {
                let cv = cv.trim().parse::<f64>().ok().filter(|cv| (0.0..=100.0).contains(cv))?;
                Some(Self::LogNormal { mean: mean.trim().parse::<Millis>().ok()?.0, cv })
            });
            return parsed.ok_or_else(|| wrong(rest));
        }
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

/// A draw from a log-normal distribution, milliseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "times")]
pub(super) fn lognormal(mean: u64, cv: f64, random: &mut Random) -> u64 {
    let spread = (1.0 + cv * cv).ln();
    ((mean as f64).ln() - spread / 2.0 + spread.sqrt() * random.normal()).exp().round() as u64
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_formula_is_refused() {
        let drawn = Service::LogNormal { mean: 3_000, cv: 0.5 };
        assert_eq!(Service::formula("lognormal:3s:0.5"), Ok(drawn));
        let mut random = Random::stream(1, "service", 0);
        let mean = (0..50_000).map(|_| lognormal(3_000, 0.5, &mut random)).sum::<u64>() / 50_000;
        assert!((2_960..3_040).contains(&mean), "{mean}");
        for wrong in ["", "lognormal:3s", "lognormal:x:1", "1 +", "a*b", "1/a", "-1", "a b"] {
            assert!(Service::formula(wrong).is_err(), "{wrong}");
        }
    }
}
