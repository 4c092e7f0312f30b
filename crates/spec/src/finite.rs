//! A number that can be compared and written down: neither infinite nor "not a number".

use std::fmt;

use serde::{Deserialize, Serialize};

/// A finite `f64`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Finite(f64);

// Without NaN, equality is reflexive.
impl Eq for Finite {}

impl Finite {
    /// A number, unless it is none.
    pub fn new(number: f64) -> Option<Self> {
        number.is_finite().then_some(Self(number))
    }

    /// From a whole number.
    pub const fn whole(number: u32) -> Self {
        Self(number as f64)
    }

    /// From a constant; what is not finite becomes 0.
    pub const fn constant(number: f64) -> Self {
        if number.is_finite() { Self(number) } else { Self(0.0) }
    }

    /// The number.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Finite {
    type Error = &'static str;

    fn try_from(number: f64) -> Result<Self, Self::Error> {
        Self::new(number).ok_or("the number is not finite")
    }
}

impl From<Finite> for f64 {
    fn from(number: Finite) -> Self {
        number.0
    }
}

impl fmt::Display for Finite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
