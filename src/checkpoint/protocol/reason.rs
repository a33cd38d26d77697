//! Why a partition fails closed. Each text names what was found and what a person has to do about it.

use std::fmt;

/// Why a partition is neither read nor committed until a person has done something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// No offset is committed, yet the store holds checkpoints of this group and partition.
    OffsetsExpired,
    /// An offset is committed for some source topics of the partition only.
    OffsetsIncomplete {
        /// The name of a topic without one.
        topic: String,
    },
    /// The text beside a committed offset is empty or somebody else's.
    ForeignMetadata {
        /// The name of the topic.
        topic: String,
    },
    /// The topics of the partition name different states.
    MixedMetadata,
    /// The committed offset is not the one that the state was taken at.
    OffsetMoved {
        /// The name of the topic.
        topic: String,
        /// What is committed.
        committed: i64,
        /// What the manifest says.
        manifest: i64,
    },
    /// The state belongs to another group or partition.
    ForeignState,
    /// The topic was deleted and made anew.
    TopicRecreated {
        /// The name of the topic.
        topic: String,
    },
    /// The source topics have another number of partitions than the state was made for, so customers have moved.
    PartitionCountChanged {
        /// The number that the state was made for.
        was: i32,
        /// The number now.
        now: i32,
    },
    /// The state lies in another store than the configured one.
    AnotherStore {
        /// The id of the store that the state was written to.
        was: String,
        /// The id of the configured store.
        now: String,
    },
    /// The state was made under settings that cannot be changed afterwards.
    DefinitionChanged,
    /// A file that the committed state needs is not there.
    FileMissing {
        /// Its name.
        name: String,
    },
    /// A file is there, but not as it was written.
    FileCorrupt {
        /// Its name.
        name: String,
    },
    /// The partition did not exist when this replica started.
    PartitionAdded {
        /// How many there were then.
        was: i32,
    },
    /// The log holds another record than the last one applied: it was cut off and written anew.
    LogTruncated,
    /// The offset to read lies outside the log.
    OffsetOutOfRange,
    /// A record of the log cannot be read.
    LogDamaged,
}

impl Reason {
    /// A short name of the reason, for a label or a log field.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Reason::OffsetsExpired => "offsets_expired",
            Reason::OffsetsIncomplete { .. } => "offsets_incomplete",
            Reason::ForeignMetadata { .. } => "foreign_metadata",
            Reason::MixedMetadata => "mixed_metadata",
            Reason::OffsetMoved { .. } => "offset_moved",
            Reason::ForeignState => "foreign_state",
            Reason::TopicRecreated { .. } => "topic_recreated",
            Reason::PartitionCountChanged { .. } => "partition_count_changed",
            Reason::PartitionAdded { .. } => "partition_added",
            Reason::AnotherStore { .. } => "another_store",
            Reason::DefinitionChanged => "definition_changed",
            Reason::FileMissing { .. } => "file_missing",
            Reason::FileCorrupt { .. } => "file_corrupt",
            Reason::LogTruncated => "log_truncated",
            Reason::OffsetOutOfRange => "offset_out_of_range",
            Reason::LogDamaged => "log_damaged",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::OffsetsExpired => f.write_str(
                "the group has no committed offset of its source topics, yet the store holds its checkpoints: the offsets \
                 have expired or were deleted, or the sources have other topics now. For other topics use a new \
                 kafka.group_id; else commit the newest checkpoint with `retentiond rewind`, and raise \
                 offsets.retention.minutes of the brokers",
            ),
            Reason::OffsetsIncomplete { topic } => write!(
                f,
                "no offset is committed for topic {topic:?}, but for other source topics of the partition: was the \
                 topic added, or were its offsets deleted? use a new kafka.group_id to begin anew, or `retentiond \
                 rewind` to go back to a checkpoint"
            ),
            Reason::ForeignMetadata { topic } => write!(
                f,
                "the committed offset of topic {topic:?} names no checkpoint: the offsets were reset by hand or by \
                 another program of the same group; use `retentiond rewind` to go back to a checkpoint, or a new \
                 kafka.group_id to begin anew"
            ),
            Reason::MixedMetadata => f.write_str(
                "the committed offsets of the source topics name different checkpoints: some were reset by hand; use \
                 `retentiond rewind` to go back to one checkpoint",
            ),
            Reason::OffsetMoved { topic, committed, manifest } => write!(
                f,
                "offset {committed} is committed for topic {topic:?}, but its checkpoint was taken at {manifest}: the \
                 offset was moved by hand; use `retentiond rewind`"
            ),
            Reason::ForeignState => f.write_str(
                "the committed checkpoint belongs to another group or partition; use `retentiond rewind` to go back to \
                 one of this partition",
            ),
            Reason::TopicRecreated { topic } => write!(
                f,
                "topic {topic:?} was deleted and made anew, so its offsets mean other records; use a new \
                 kafka.group_id to begin anew, or `retentiond bootstrap` from a history export"
            ),
            Reason::PartitionCountChanged { was, now } => write!(
                f,
                "the source topics had {was} partitions and now have {now}, so customers have moved between them; \
                 rebuild under a new kafka.group_id, or with `retentiond bootstrap` from a history export"
            ),
            Reason::PartitionAdded { was } => write!(
                f,
                "the partition was added to the source topics, which had {was} when this replica started, so customers \
                 have moved between partitions; rebuild under a new kafka.group_id from topics that hold everything, or \
                 with `retentiond bootstrap` from a history export"
            ),
            Reason::AnotherStore { was, now } => write!(
                f,
                "the committed checkpoint lies in store {was}, and checkpoint.url leads to store {now}: a local \
                 directory of another machine? let checkpoint.url lead to the former store or to a copy of it"
            ),
            Reason::DefinitionChanged => f.write_str(
                "the checkpoint was made under other settings of time.zone, customers or sources that cannot be \
                 changed afterwards; undo the change, or rebuild under a new kafka.group_id",
            ),
            Reason::FileMissing { name } => write!(
                f,
                "the file {name:?} of the committed checkpoint is not in the store; let checkpoint.url lead to the \
                 store that the former owner wrote, bring the file back, or use `retentiond rewind`"
            ),
            Reason::FileCorrupt { name } => write!(
                f,
                "the file {name:?} of the committed checkpoint is damaged; bring it back from a copy, or use \
                 `retentiond rewind` to go back to an older checkpoint"
            ),
            Reason::LogTruncated => f.write_str(
                "the log no longer holds the record that was applied last but ends before it or has another in its \
                 place: it was truncated (an unclean leader election?), or it is another cluster's; let kafka.brokers \
                 lead to the former one, or use `retentiond rewind` to a checkpoint before that",
            ),
            Reason::OffsetOutOfRange => f.write_str(
                "the next offset lies outside the log: its records were deleted before they were read, or the log was \
                 truncated; use `retentiond bootstrap` to fill the gap, or `retentiond rewind`",
            ),
            Reason::LogDamaged => f.write_str(
                "a record of the log cannot be read; the log before it names topic and offset. let the brokers restore \
                 the partition from another replica and start again, or use `retentiond bootstrap` to begin behind it",
            ),
        }
    }
}
