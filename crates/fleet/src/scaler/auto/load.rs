//! The load of the last minute: exact integrals of requests, and arrivals, by the second.

use serde::{Deserialize, Serialize};

/// Milliseconds of a part of the window.
pub(super) const PART: u64 = 1_000;
/// Parts of the long window.
pub(super) const LONG: usize = 60;
/// Parts of the short window.
pub(super) const SHORT: usize = 6;

/// What there was in the last parts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LoadWindow {
    /// Request-milliseconds and arrivals of each part, by its number modulo [`LONG`].
    parts: Vec<(u64, u32)>,
    /// Parts that have begun, [`LONG`] at most.
    known: usize,
    /// The number of the present part.
    part: u64,
    /// Up to when it is counted; 0 before the first time.
    at: u64,
    /// Sums over the last [`LONG`] and [`SHORT`] parts.
    long: (u64, u64),
    short: (u64, u64),
}

impl LoadWindow {
    pub(super) fn new() -> Self {
        Self { parts: Vec::new(), known: 0, part: 0, at: 0, long: (0, 0), short: (0, 0) }
    }

    /// Up to now there were so many requests.
    pub(super) fn advance(&mut self, now: u64, level: u32) {
        if self.at == 0 {
            self.parts = vec![(0, 0); LONG];
            (self.at, self.part, self.known) = (now, now / PART, 1);
        }
        while self.at < now {
            let end = ((self.at / PART + 1) * PART).min(now);
            let worked = u64::from(level) * (end - self.at);
            self.present().0 += worked;
            self.long.0 += worked;
            self.short.0 += worked;
            // Nothing is to be added for long: all parts that pass are empty.
            self.at = if level == 0 { now } else { end };
            self.turn(self.at / PART);
        }
    }

    fn present(&mut self) -> &mut (u64, u32) {
        let index = usize::try_from(self.part % LONG as u64).unwrap_or(0);
        &mut self.parts[index]
    }

    fn turn(&mut self, part: u64) {
        if part == self.part {
            return;
        }
        let passed = usize::try_from(part.saturating_sub(self.part)).unwrap_or(LONG);
        if passed >= LONG {
            self.parts.fill((0, 0));
            (self.part, self.known, self.long, self.short) = (part, LONG, (0, 0), (0, 0));
            return;
        }
        for _ in 0..passed {
            self.part += 1;
            // What leaves a window leaves its sum.
            let (worked, came) = std::mem::take(self.present());
            self.long = (self.long.0 - worked, self.long.1 - u64::from(came));
            if let Some(oldest) = self.part.checked_sub(SHORT as u64) {
                let (worked, came) = self.parts[usize::try_from(oldest % LONG as u64).unwrap_or(0)];
                self.short = (self.short.0 - worked, self.short.1 - u64::from(came));
            }
        }
        self.known = (self.known + passed).min(LONG);
    }

    pub(super) fn arrived(&mut self, requests: u32) {
        if requests > 0 && !self.parts.is_empty() {
            self.present().1 += requests;
            self.long.1 += u64::from(requests);
            self.short.1 += u64::from(requests);
        }
    }

    fn last(&self, parts: usize) -> impl Iterator<Item = (u64, u32)> {
        let count = parts.min(self.known);
        (0..count).filter_map(move |back| {
            let number = self.part.checked_sub(back as u64)?;
            self.parts.get(usize::try_from(number % LONG as u64).ok()?).copied()
        })
    }

    fn sum(&self, parts: usize) -> (u64, u64) {
        match parts {
            LONG => self.long,
            SHORT => self.short,
            _ => self.last(parts).fold((0, 0), |sum, (worked, came)| (sum.0 + worked, sum.1 + u64::from(came))),
        }
    }

    /// Milliseconds that the last parts span: the present one has just begun.
    #[expect(clippy::cast_precision_loss, reason = "a minute")]
    fn span(&self, parts: usize) -> f64 {
        let whole = parts.min(self.known).saturating_sub(1) as u64 * PART;
        (whole + self.at % PART).max(PART) as f64
    }

    /// The mean number of requests over the last parts.
    #[expect(clippy::cast_precision_loss, reason = "a minute's integral")]
    pub(super) fn mean(&self, parts: usize) -> f64 {
        self.sum(parts).0 as f64 / self.span(parts)
    }

    /// Arrivals in a millisecond over the last parts.
    #[expect(clippy::cast_precision_loss, reason = "a minute's arrivals")]
    pub(super) fn rate(&self, parts: usize) -> f64 {
        self.sum(parts).1 as f64 / self.span(parts)
    }

    /// As [`LoadWindow::rate`], less so many standard deviations of as many random arrivals.
    pub(super) fn sure_rate(&self, parts: usize, doubt: f64) -> f64 {
        let came = f64::from(self.came(parts));
        (came - doubt * came.sqrt()).max(0.0) / self.span(parts)
    }

    /// Requests that came in the last parts.
    pub(super) fn came(&self, parts: usize) -> u32 {
        self.last(parts).fold(0, |sum, (_, came)| sum.saturating_add(came))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_exact_integrals() {
        let mut window = LoadWindow::new();
        window.advance(500_250, 0);
        window.arrived(2);
        window.advance(502_250, 3);
        assert!((window.mean(LONG) - 3.0 * 2_000.0 / 2_250.0).abs() < 1e-9, "{}", window.mean(LONG));
        assert!((window.rate(SHORT) - 2.0 / 2_250.0).abs() < 1e-12);
        window.advance(508_250, 0);
        assert!(window.mean(SHORT) == 0.0 && window.came(SHORT) == 0 && window.came(LONG) == 2);
        window.advance(900_000, 0);
        assert!(window.mean(LONG) == 0.0 && window.came(LONG) == 0);
        window.advance(1_000_000, 2);
        assert!((window.mean(LONG) - 2.0).abs() < 0.05 && (window.mean(SHORT) - 2.0).abs() < 1e-9);
        // The sums that are kept are those of the parts.
        for step in 0..500u32 {
            window.advance(1_000_000 + u64::from(step) * 730, step % 7);
            window.arrived(step % 3);
            for parts in [SHORT, LONG] {
                let all = window.last(parts).fold((0, 0), |sum, (a, b)| (sum.0 + a, sum.1 + u64::from(b)));
                assert_eq!(window.sum(parts), all, "{step}");
            }
        }
    }
}
