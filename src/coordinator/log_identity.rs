//! Checks whether the log is still the one that a state was computed from, by its last applied record (the anchor).

use std::sync::Arc;
use std::time::Duration;

use crate::bus::{Record, SourceError, Start, TopicPartition};
use crate::checkpoint::manifest::Anchor;
use crate::kafka::{KafkaAdmin, ProbedRecord};
use crate::worker::{LastRecord, hash};

/// Timeout of a request.
const WAIT: Duration = Duration::from_secs(10);

/// What the log contains at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probed {
    /// This record.
    Record(LastRecord),
    /// Nothing, because retention deleted it, which is harmless.
    Gone,
    /// Nothing, because the log ends before it.
    Beyond,
}

/// Reads the record at an offset.
pub type LogProbe = Arc<dyn Fn(TopicPartition, i64) -> Result<Probed, SourceError> + Send + Sync>;

/// Reads the record at an offset from the cluster.
///
/// # Errors
/// If the brokers do not answer.
pub fn look(admin: &KafkaAdmin, at: TopicPartition, offset: i64) -> Result<Probed, SourceError> {
    // One request each: librdkafka answers only once per topic-partition in a request.
    let bound = |start: Start| Ok(admin.offsets(&[(at, start)], WAIT)?.first().copied().unwrap_or_default());
    if offset < bound(Start::Earliest)? {
        return Ok(Probed::Gone);
    }
    if offset >= bound(Start::Latest)? {
        return Ok(Probed::Beyond);
    }
    let found = admin.probe_records(&[(at, offset)], 1, WAIT)?;
    match found.get(&at).and_then(|records| records.first()) {
        Some(record) if record.offset == offset => Ok(Probed::Record(last_record(record))),
        Some(_) => Ok(Probed::Gone),
        None => Err(SourceError::Unavailable(format!("the record at offset {offset} cannot be read yet"))),
    }
}

/// The properties of a record from which its anchor is made.
pub(crate) fn last_record(record: &ProbedRecord) -> LastRecord {
    let whole = Record { offset: record.offset, key: record.key.as_deref(), payload: record.payload.as_deref() };
    LastRecord { offset: record.offset, stamp: record.stamp, hash: hash(whole) }
}

/// The anchor of a record.
pub(crate) fn anchor(last: LastRecord) -> Anchor {
    Anchor {
        offset: last.offset,
        leader_epoch: last.stamp.leader_epoch.unwrap_or(-1),
        time: last.stamp.time.unwrap_or(-1),
        hash: format!("{:016x}", last.hash),
    }
}

/// Whether the log can be the one that the anchor was taken from.
#[must_use]
pub fn fits(anchored: &Anchor, look: Probed) -> bool {
    match look {
        Probed::Gone => true,
        Probed::Beyond => false,
        Probed::Record(record) => {
            let found = anchor(record);
            let same_epoch =
                found.leader_epoch == anchored.leader_epoch || found.leader_epoch < 0 || anchored.leader_epoch < 0;
            same_epoch && (found.time, &found.hash) == (anchored.time, &anchored.hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Stamp;

    #[test]
    fn another_record_in_the_place_of_the_last_is_another_log() {
        let stamp = Stamp { time: Some(5), leader_epoch: Some(3) };
        let record = LastRecord { offset: 41, stamp, hash: 0xab };
        let known = anchor(record);
        assert!(fits(&known, Probed::Record(record)) && fits(&known, Probed::Gone) && !fits(&known, Probed::Beyond));
        let without_epoch = LastRecord { stamp: Stamp { leader_epoch: None, ..stamp }, ..record };
        assert!(fits(&known, Probed::Record(without_epoch)) && fits(&anchor(without_epoch), Probed::Record(record)));
        for other in [
            LastRecord { hash: 0xac, ..record },
            LastRecord { stamp: Stamp { time: Some(6), ..stamp }, ..record },
            LastRecord { stamp: Stamp { leader_epoch: Some(4), ..stamp }, ..record },
        ] {
            assert!(!fits(&known, Probed::Record(other)), "{other:?}");
        }
    }
}
