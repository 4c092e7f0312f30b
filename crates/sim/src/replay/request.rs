//! What is replayed: requests, and how instances behave.

use std::sync::Arc;

use crate::random::Random;

/// A request of a trace. Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceRequest {
    /// When it comes, from the beginning of the trace.
    pub at: u64,
    /// How long an instance works on it.
    pub service: u64,
    /// The number of its function; 0 where a trace has one.
    pub function: u32,
}

/// How long an operation takes: always the same, or drawn from a distribution. Milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub enum OperationTime {
    /// Always as long.
    Constant(u64),
    /// Points of the distribution: a share from 0 to 1 and the time that this share of operations does not exceed; both ascend.
    /// Between two points it is linear.
    Quantiles(Arc<[(f64, f64)]>),
}

impl OperationTime {
    /// The distribution of samples, each as likely. `None` without a sample.
    #[expect(clippy::cast_precision_loss, reason = "a number of samples")]
    pub fn samples(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let last = samples.len().checked_sub(1)?.max(1);
        let points = samples.iter().enumerate().map(|(index, time)| (index as f64 / last as f64, *time));
        Some(Self::Quantiles(points.collect()))
    }

    /// The mean.
    pub fn mean(&self) -> u64 {
        match self {
            Self::Constant(time) => *time,
            Self::Quantiles(points) => {
                let ends = points.first().map_or(0.0, |(share, time)| share * time)
                    + points.last().map_or(0.0, |(share, time)| (1.0 - share) * time);
                let between = points.windows(2).map(|pair| (pair[1].0 - pair[0].0) * (pair[0].1 + pair[1].1) / 2.0);
                whole(ends + between.sum::<f64>())
            }
        }
    }

    /// One operation.
    pub(super) fn draw(&self, random: &mut Random) -> u64 {
        match self {
            Self::Constant(time) => *time,
            Self::Quantiles(points) => {
                let share = random.share();
                let above = points.partition_point(|(other, _)| *other < share);
                let time = match (above.checked_sub(1).and_then(|below| points.get(below)), points.get(above)) {
                    (Some(below), Some(above)) => {
                        let part = (share - below.0) / (above.0 - below.0).max(f64::EPSILON);
                        below.1 + part * (above.1 - below.1)
                    }
                    (None, Some(only)) | (Some(only), None) => only.1,
                    (None, None) => 0.0,
                };
                whole(time)
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time of not below 0")]
fn whole(number: f64) -> u64 {
    number.max(0.0).round() as u64
}

/// How instances of the simulated function behave.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceTimes {
    /// From the decision to start one until it serves.
    pub cold: OperationTime,
    /// From the decision to wake one until it serves.
    pub wake: OperationTime,
}

impl InstanceTimes {
    /// Always the same times, milliseconds.
    pub const fn constant(cold: u64, wake: u64) -> Self {
        Self { cold: OperationTime::Constant(cold), wake: OperationTime::Constant(wake) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_distribution() {
        let points = OperationTime::Quantiles(Arc::from([(0.0, 1_000.0), (0.5, 3_000.0), (1.0, 23_000.0)]));
        assert_eq!(points.mean(), 7_500);
        let mut random = Random::stream(1, "times", 0);
        let mut draws: Vec<u64> = (0..10_000).map(|_| points.draw(&mut random)).collect();
        draws.sort_unstable();
        let [quarter, half, nine_tenths] = [2_500, 5_000, 9_000].map(|index| draws[index]);
        assert!((1_900..2_100).contains(&quarter) && (2_850..3_300).contains(&half), "{quarter} {half}");
        assert!((18_500..19_500).contains(&nine_tenths), "{nine_tenths}");
        let read = |text: &str| OperationTime::read(text.as_bytes());
        assert_eq!(read("quantile,s\n0,1\n0.5,3\n1,23\n").unwrap(), points);
        assert_eq!(read("t_s,ms\n0,4\n1,0\n2,2\n").map(|samples| samples.mean()), Ok(2));
        let wrong = read("quantile,ms\n0.5,3\n0.4,4\n").unwrap_err().to_string();
        assert!(wrong.starts_with("line 3: `0.4` in column `quantile` is not a share up to 1"), "{wrong}");
        assert!(read("x\n").is_err() && read("").is_err() && read("ms\n").is_err());
        assert_eq!(OperationTime::samples(vec![5.0]).map(|one| one.mean()), Some(5));
        assert_eq!(OperationTime::samples(vec![4.0, 0.0, 2.0]).map(|three| three.mean()), Some(2));
        assert_eq!(OperationTime::samples(Vec::new()), None);
    }
}
