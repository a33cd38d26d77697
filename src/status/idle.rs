//! Advances the watermark of topic-partitions that are caught up and silent while others of their topic progress.

use std::time::Duration;

use crate::bus::TopicPartition;
use crate::event::Time;

/// Progress of one topic-partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleProgress {
    /// The topic-partition.
    pub at: TopicPartition,
    /// Its watermark; `None` before its first event.
    pub watermark: Option<Time>,
    /// How long it has been caught up without a record; `None` while it lags.
    pub silent_for: Option<Duration>,
}

/// The watermarks to raise, and to which time: the largest watermark of the same topic. A topic-partition that never
/// had an event does not hold the clock back, so it is left alone.
#[must_use]
pub fn raises(all: &[IdleProgress], idle_after: Duration) -> Vec<(TopicPartition, Time)> {
    let largest = |topic| all.iter().filter(|other| other.at.topic == topic).filter_map(|other| other.watermark).max();
    let raise = |one: &IdleProgress| {
        let idle = one.silent_for.is_some_and(|silent| silent >= idle_after);
        let to = largest(one.at.topic)?;
        (idle && one.watermark.is_some_and(|mark| mark < to)).then_some((one.at, to))
    };
    all.iter().filter_map(raise).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Partition, TopicIndex};

    #[test]
    fn only_silent_partitions_that_lag_are_raised() {
        let one = |topic, partition, watermark: Option<i64>, silent: Option<u64>| IdleProgress {
            at: TopicPartition { topic: TopicIndex(topic), partition: Partition(partition) },
            watermark: watermark.map(Time::clamped),
            silent_for: silent.map(Duration::from_secs),
        };
        let all = [
            one(0, 0, Some(100), Some(600)),
            one(0, 1, Some(900), Some(600)),
            one(0, 2, Some(100), Some(599)),
            one(0, 3, Some(100), None),
            one(0, 4, None, Some(600)),
            one(1, 0, Some(50), Some(600)),
        ];
        assert_eq!(raises(&all, Duration::from_secs(600)), [(all[0].at, Time::clamped(900))]);
    }
}
