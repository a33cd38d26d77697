//! Latency of records from poll to apply, on the clock of this machine.

use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Bucket bounds of [`Latency::cumulative`].
pub const BOUNDS: [Duration; 15] = [
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// Larger latencies are recorded as this.
const LONGEST: Duration = Duration::from_secs(600);
/// Significant digits: a record may count for a bound that it exceeds by less than a thousandth.
const DIGITS: u8 = 3;

/// Latencies since the process started. Clones share their counts until one of them changes.
#[derive(Debug, Clone, Default)]
pub struct Latency {
    /// In microseconds; `None` before the first record.
    histogram: Option<Arc<Histogram<u64>>>,
    sum: Duration,
}

impl Latency {
    /// Records the latency of a number of records.
    pub fn record(&mut self, took: Duration, records: usize) {
        if records == 0 {
            return;
        }
        if self.histogram.is_none() {
            self.histogram = Histogram::new_with_bounds(1, micros(LONGEST), DIGITS).ok().map(Arc::new);
        }
        if let Some(histogram) = &mut self.histogram {
            Arc::make_mut(histogram).saturating_record_n(micros(took), records as u64);
        }
        self.sum = self.sum.saturating_add(took.saturating_mul(u32::try_from(records).unwrap_or(u32::MAX)));
    }

    /// The number of records.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, |histogram| histogram.len())
    }

    /// The sum of all latencies.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The number of records within each of [`BOUNDS`].
    #[must_use]
    pub fn cumulative(&self) -> [u64; BOUNDS.len()] {
        let Some(histogram) = &self.histogram else { return [0; BOUNDS.len()] };
        BOUNDS.map(|bound| histogram.count_between(0, micros(bound)))
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_every_record_up_to_its_bounds() {
        let mut latency = Latency::default();
        latency.record(Duration::from_micros(900), 3);
        latency.record(Duration::ZERO, 0);
        let shown = latency.clone();
        latency.record(Duration::from_millis(1), 2);
        latency.record(Duration::from_millis(40), 5);
        latency.record(Duration::from_secs(7_200), 1);
        assert_eq!((shown.count(), shown.sum()), (3, Duration::from_micros(2_700)), "a clone does not change");
        assert_eq!(latency.count(), 11);
        assert_eq!(latency.sum(), Duration::from_micros(7_200_000_000 + 200_000 + 2_000 + 2_700));
        let cumulative = latency.cumulative();
        let upto =
            |millis| cumulative[BOUNDS.iter().position(|&bound| bound == Duration::from_millis(millis)).unwrap()];
        assert_eq!([upto(1), upto(25), upto(50), upto(60_000)], [5, 5, 10, 10]);
    }
}
