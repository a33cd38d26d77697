//! Topic-partitions that are caught up and silent while others of their topic move on: time must not stand still there.

use std::time::Duration;

use crate::bus::TopicPartition;
use crate::event::Time;

/// What is known of one topic-partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleProgress {
    /// Which one.
    pub at: TopicPartition,
    /// Its watermark; `None` before its first event.
    pub watermark: Option<Time>,
    /// For how long it has been caught up without a record; `None` while it is behind.
    pub silent_for: Option<Duration>,
}

/// To which time the watermarks of silent topic-partitions are raised: the largest of the same topic. A topic-partition
/// that never had an event drives nothing, so it is left alone.
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
    fn only_who_is_silent_and_behind_is_raised() {
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
