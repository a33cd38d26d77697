//! Why a partition fails closed. Each message states what was found and what the operator has to do.

use std::fmt;

/// Why a partition is neither read nor committed until an operator acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// No offset is committed, but the store holds checkpoints of this group and partition.
    OffsetsExpired,
    /// Only some source topics of the partition have a committed offset.
    OffsetsIncomplete {
        /// A topic without one.
        topic: String,
    },
    /// The metadata of a committed offset is empty or was not written by retentiond.
    ForeignMetadata {
        /// The topic.
        topic: String,
    },
    /// The topics of the partition name different states.
    MixedMetadata,
    /// The committed offset differs from the one in the manifest.
    OffsetMoved {
        /// The topic.
        topic: String,
        /// The committed offset.
        committed: i64,
        /// The offset in the manifest.
        manifest: i64,
    },
    /// The state belongs to another group or partition.
    ForeignState,
    /// The topic was deleted and recreated.
    TopicRecreated {
        /// The topic.
        topic: String,
    },
    /// The partition count of the source topics has changed, so customers have moved between partitions.
    PartitionCountChanged {
        /// The count in the checkpoint.
        was: i32,
        /// The current count.
        now: i32,
    },
    /// The state was written to another store than the configured one.
    AnotherStore {
        /// The id of the store that holds the state.
        was: String,
        /// The id of the configured store.
        now: String,
    },
    /// The state was built with settings that cannot be changed afterwards.
    DefinitionChanged,
    /// A file of the committed state is missing.
    FileMissing {
        /// Its name.
        name: String,
    },
    /// The content of a file differs from what was written.
    FileCorrupt {
        /// Its name.
        name: String,
    },
    /// The partition did not exist when this replica started.
    PartitionAdded {
        /// The partition count at startup.
        was: i32,
    },
    /// The log holds another record at the offset of the last applied one: it was truncated and written again.
    LogTruncated,
    /// The next offset is outside the log.
    OffsetOutOfRange,
    /// A record cannot be read.
    LogDamaged,
}

impl Reason {
    /// A short name, for labels and log fields.
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
                "the group has no committed offsets for its source topics, but the store holds its checkpoints: the offsets \
                 have expired or were deleted, or the configured topics have changed. For other topics use a new \
                 kafka.group_id; otherwise commit the newest checkpoint with `retentiond rewind`, and raise \
                 offsets.retention.minutes of the brokers",
            ),
            Reason::OffsetsIncomplete { topic } => write!(
                f,
                "topic {topic:?} has no committed offset, but other source topics of the partition do: was the \
                 topic added, or were its offsets deleted? use a new kafka.group_id to start over, or `retentiond \
                 rewind` to go back to a checkpoint"
            ),
            Reason::ForeignMetadata { topic } => write!(
                f,
                "the committed offset of topic {topic:?} names no checkpoint: the offsets were reset by hand or by \
                 another program of the same group; use `retentiond rewind` to go back to a checkpoint, or a new \
                 kafka.group_id to start over"
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
                "topic {topic:?} was deleted and recreated, so its offsets refer to other records; use a new \
                 kafka.group_id to start over, or `retentiond bootstrap` from a history export"
            ),
            Reason::PartitionCountChanged { was, now } => write!(
                f,
                "the source topics had {was} partitions and now have {now}, so customers have moved between them; \
                 rebuild under a new kafka.group_id, or with `retentiond bootstrap` from a history export"
            ),
            Reason::PartitionAdded { was } => write!(
                f,
                "the partition was added to the source topics, which had {was} when this replica started, so customers \
                 have moved between partitions; rebuild under a new kafka.group_id from topics that hold the whole history, or \
                 with `retentiond bootstrap` from a history export"
            ),
            Reason::AnotherStore { was, now } => write!(
                f,
                "the committed checkpoint is in store {was}, but checkpoint.url names store {now}: a local \
                 directory of another machine? point checkpoint.url to the former store or a copy of it"
            ),
            Reason::DefinitionChanged => f.write_str(
                "the checkpoint was built with other settings of time.zone, customers or sources, which cannot be \
                 changed afterwards; undo the change, or rebuild under a new kafka.group_id",
            ),
            Reason::FileMissing { name } => write!(
                f,
                "the file {name:?} of the committed checkpoint is not in the store; point checkpoint.url to the \
                 store of the former owner, restore the file, or use `retentiond rewind`"
            ),
            Reason::FileCorrupt { name } => write!(
                f,
                "the file {name:?} of the committed checkpoint is damaged; restore it from a backup, or use \
                 `retentiond rewind` to go back to an older checkpoint"
            ),
            Reason::LogTruncated => f.write_str(
                "the log no longer holds the last applied record: it ends before it or holds another in its \
                 place: it was truncated (an unclean leader election?), or this is another cluster; point kafka.brokers \
                 to the former one, or use `retentiond rewind` to a checkpoint before that",
            ),
            Reason::OffsetOutOfRange => f.write_str(
                "the next offset is outside the log: its records were deleted before they were read, or the log was \
                 truncated; use `retentiond bootstrap` to fill the gap, or `retentiond rewind`",
            ),
            Reason::LogDamaged => f.write_str(
                "a record of the log cannot be read; an earlier log line names topic and offset; let the brokers restore \
                 the partition from another replica and start again, or use `retentiond bootstrap` to start after it",
            ),
        }
    }
}
