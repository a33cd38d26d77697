//! Whether the log still is the one that a state was made of: the last record applied must be where it was.

use std::sync::Arc;
use std::time::Duration;

use crate::bus::{Record, SourceError, Start, TopicPartition};
use crate::checkpoint::manifest::Anchor;
use crate::kafka::{KafkaAdmin, ProbedRecord};
use crate::worker::{LastRecord, hash};

/// How long one look may take.
const WAIT: Duration = Duration::from_secs(10);

/// What stands where a record was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probed {
    /// This record.
    Record(LastRecord),
    /// Nothing: retention deleted it, which is no harm.
    Gone,
    /// The log ends before.
    Beyond,
}

/// Looks at the record of an offset.
pub type LogProbe = Arc<dyn Fn(TopicPartition, i64) -> Result<Probed, SourceError> + Send + Sync>;

/// Looks at the record of an offset in the cluster.
///
/// # Errors
/// When the brokers do not answer.
pub fn look(admin: &KafkaAdmin, at: TopicPartition, offset: i64) -> Result<Probed, SourceError> {
    // One after the other: librdkafka answers for a topic-partition once in a request.
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

/// What of a record a manifest keeps.
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

/// Whether a log may be the one of an anchor.
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
