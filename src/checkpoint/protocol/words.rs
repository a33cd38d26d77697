//! Events and commands of the protocol.

use super::reason::Reason;
use crate::bus::Partition;
use crate::checkpoint::metadata::Metadata;

/// One period of owning a partition. Answers that carry an earlier epoch are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AssignmentEpoch(pub u64);

/// One checkpoint and its transaction. Unique within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// One time budget for releasing partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BudgetId(pub u64);

/// How offsets and outbox records are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// In one Kafka transaction.
    ExactlyOnce,
    /// The outbox first, by an idempotent producer, then the offsets by a plain commit.
    AtLeastOnce,
}

/// Settings of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How offsets and outbox records are committed.
    pub delivery: Delivery,
    /// Names of the source topics, by topic index.
    pub topics: Vec<String>,
    /// Bytes in the outbox that force a checkpoint; at twice as many, reading pauses.
    pub outbox_limit: u64,
    /// Number of [`Event::Due`] for which the state of a released partition is kept.
    pub parked_for: u32,
}

/// A committed offset of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: i64,
    /// Its metadata; empty if it is not valid UTF-8.
    pub metadata: String,
}

/// The committed offset of each source topic's partition, by topic index; `None` where there is none.
pub type CommittedOffsets = Vec<Option<CommittedOffset>>;

/// A state and its offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The next offset of each source topic, by topic index.
    pub next: Vec<i64>,
    /// The reference to the state.
    pub metadata: Metadata,
}

/// What a state belongs to, as recorded in a manifest or as found now. A state is used only if both agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The consumer group.
    pub group: String,
    /// The partition.
    pub partition: Partition,
    /// The id of the store.
    pub store: String,
    /// The id of each source topic, by topic index.
    pub topic_ids: Vec<String>,
    /// The partition count of the source topics.
    pub partition_count: i32,
    /// Hash of the settings that a state cannot survive a change of. Windows are not included: they may change.
    pub definition: String,
}

/// The uploaded part of one partition in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The worker's next offsets at the moment of the checkpoint, and the manifest.
    pub position: Position,
    /// Files that this manifest no longer names and that were named by manifests which *this* process uploaded, or
    /// loaded as the committed one of this assignment. They are superseded once this manifest is committed.
    pub superseded: Vec<String>,
}

/// The part of one partition in a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The partition.
    pub partition: Partition,
    /// The offsets to commit, and their metadata.
    pub position: Position,
}

/// Where the engine of a partition comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineOrigin {
    /// Empty; reads from the offsets of the initial commit.
    Initial {
        /// Silences due before this epoch millisecond raise no alerts.
        since: i64,
    },
    /// Loaded from the store; reads from the offsets in the manifest.
    Loaded,
    /// Parked; reads from its own position.
    Parked,
}

/// Why a state could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadFailure {
    /// The store or the broker did not answer; a retry may succeed.
    Unavailable,
    /// This file does not exist.
    Missing(String),
    /// This file, or the manifest, does not match its digest.
    Corrupt(String),
    /// The record at a topic's anchor differs from the applied one. (A record that was deleted is not a difference.)
    LogDiffers,
}

/// The result of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is committed.
    Committed,
    /// Certainly not committed, now or later: the transaction was not begun, or its abort was confirmed. This covers
    /// abortable errors and offsets that the group refused (stale generation, rebalance in progress, unknown member).
    Aborted,
    /// Unknown: a request timed out, the connection broke, an error left it open, or an abort was not confirmed.
    Unknown,
    /// Another producer or member has taken over our id. Never retried.
    Fenced,
}

/// Inputs of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The group assigned these partitions, of every source topic.
    Assigned(Vec<Partition>),
    /// The group revokes these partitions and waits for [`Command::Release`].
    Revoked(Vec<Partition>),
    /// These partitions were lost; others may own them already.
    Lost(Vec<Partition>),
    /// Shutdown was requested.
    Closing,
    /// `checkpoint.interval` has passed. Never sent twice without polling the group in between, so that no checkpoint
    /// begins while a loss of partitions is still unnoticed.
    Due,
    /// The outboxes of all partitions together, open checkpoints included, now hold this many bytes.
    Outbox(u64),
    /// This budget is used up.
    BudgetOver(BudgetId),
    /// The group member or the producer was fenced outside a transaction.
    Fenced,
    /// Answers [`Command::ReadCommitted`].
    Committed {
        /// The partition.
        partition: Partition,
        /// As in the command.
        assignment: AssignmentEpoch,
        /// The committed offsets of the group.
        committed: CommittedOffsets,
        /// The current identity.
        identity: Identity,
    },
    /// Answers [`Command::ReadCommitted`] or [`Command::FindStart`]: the broker or the store did not answer.
    Unavailable {
        /// The partition.
        partition: Partition,
        /// As in the command.
        assignment: AssignmentEpoch,
    },
    /// Answers [`Command::FindStart`].
    StartFound {
        /// The partition.
        partition: Partition,
        /// As in the command.
        assignment: AssignmentEpoch,
        /// Whether the store holds a manifest of this group and partition.
        has_checkpoints: bool,
        /// The configured start, as an offset of each source topic.
        next: Vec<i64>,
        /// The wall clock, epoch milliseconds.
        now: i64,
    },
    /// Answers [`Command::Load`]: manifest, files and anchors are checked, and the coordinator holds the engine.
    Loaded {
        /// The partition.
        partition: Partition,
        /// As in the command.
        assignment: AssignmentEpoch,
        /// The identity in the manifest.
        manifest: Identity,
        /// The next offsets in the manifest.
        next: Vec<i64>,
    },
    /// Answers [`Command::Load`].
    LoadFailed {
        /// The partition.
        partition: Partition,
        /// As in the command.
        assignment: AssignmentEpoch,
        /// The reason.
        failure: LoadFailure,
    },
    /// The broker has no record at the next offset.
    OutOfRange {
        /// The partition.
        partition: Partition,
        /// The assignment in which it was read.
        assignment: AssignmentEpoch,
    },
    /// The broker has a record at the next offset that cannot be read.
    LogDamaged {
        /// The partition.
        partition: Partition,
        /// The assignment in which it was read.
        assignment: AssignmentEpoch,
    },
    /// Answers [`Command::BeginCheckpoint`] and [`Command::CommitInitial`]: the group metadata shows no membership (no
    /// member id, or a generation that is not positive). No checkpoint began, and nothing was sent.
    NotAMember(Epoch),
    /// Answers [`Command::BeginCheckpoint`] for one partition: its files, then its manifest, are stored durably.
    Uploaded {
        /// As in the command.
        epoch: Epoch,
        /// The partition.
        partition: Partition,
        /// Offsets, manifest and superseded files.
        upload: Upload,
    },
    /// Answers [`Command::BeginCheckpoint`] for one partition: nothing was applied since its last commit, so it takes
    /// no checkpoint.
    Unchanged {
        /// As in the command.
        epoch: Epoch,
        /// The partition.
        partition: Partition,
    },
    /// Answers [`Command::BeginCheckpoint`] for one partition: a file could not be stored.
    UploadFailed {
        /// As in the command.
        epoch: Epoch,
        /// The partition.
        partition: Partition,
    },
    /// Answers [`Command::Commit`] and [`Command::CommitInitial`].
    Ended {
        /// As in the command.
        epoch: Epoch,
        /// The result.
        outcome: Outcome,
    },
    /// Answers [`Command::RenewProducer`].
    ProducerRenewed(Epoch),
    /// Answers [`Command::ReadBack`].
    ReadBack {
        /// As in the command.
        epoch: Epoch,
        /// The committed offsets of each requested partition.
        committed: Vec<(Partition, CommittedOffsets)>,
    },
}

/// Outputs of the protocol, in order. All commands of a step are started before the group is polled again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// On a load task: a *stable* read (one that waits for pending transactions) of the committed offsets of all source
    /// topics of the partition, in one request, and of the current [`Identity`]. Answer with [`Event::Committed`] or
    /// [`Event::Unavailable`]. Until [`Command::Begin`] the partition is assigned but paused.
    ReadCommitted(Partition, AssignmentEpoch),
    /// On a load task: check whether the store lists a manifest of this group and partition, and resolve the configured
    /// start to offsets. Answer with [`Event::StartFound`] or [`Event::Unavailable`].
    FindStart(Partition, AssignmentEpoch),
    /// Capture the group metadata now, on the poll thread; then, on the commit thread, commit only these positions with
    /// that metadata, in a transaction or by a plain commit. Answer with [`Event::Ended`] or [`Event::NotAMember`].
    CommitInitial(Epoch, Vec<Part>),
    /// On a load task: load the manifest (check its digest), files and anchors, and keep the engine under this
    /// assignment. Answer with [`Event::Loaded`] or [`Event::LoadFailed`].
    Load {
        /// The partition.
        partition: Partition,
        /// Repeated in the answer.
        assignment: AssignmentEpoch,
        /// The name of the manifest.
        manifest: String,
        /// The prefix of its digest.
        digest: String,
    },
    /// Hand the engine to its worker, assign (or seek to) *the engine's* offsets, and resume.
    Begin {
        /// The partition.
        partition: Partition,
        /// The assignment, for [`Event::OutOfRange`] and [`Event::LogDamaged`].
        assignment: AssignmentEpoch,
        /// The origin of the engine.
        origin: EngineOrigin,
        /// The committed offsets. A parked engine ([`EngineOrigin::Parked`]) may be ahead of them.
        next: Vec<i64>,
    },
    /// Pause these partitions and hand out no more of their records; records already handed out are still applied.
    Stop(Vec<Partition>),
    /// Capture the group metadata *now*, on the poll thread, and keep it for this checkpoint. Then queue the checkpoint
    /// to the workers, after everything handed out. Each worker copies its changes together with its next offsets and
    /// closes the outbox: the entries so far belong to the checkpoint, and the worker keeps them until
    /// [`Command::Confirm`] or [`Command::RollBack`]. Then the worker continues. The upload task stores the files and
    /// then the manifest, under new names. Answer for each partition with [`Event::Uploaded`], [`Event::Unchanged`] or
    /// [`Event::UploadFailed`], or once with [`Event::NotAMember`].
    BeginCheckpoint(Epoch, Vec<Partition>),
    /// On the commit thread: begin a transaction, produce the outbox entries of this checkpoint for these partitions,
    /// send the offsets with the metadata *captured by this checkpoint*, and commit. Answer with [`Event::Ended`].
    ///
    /// With [`Delivery::AtLeastOnce`]: produce, wait for the deliveries, then let the *poll thread* commit through the
    /// consumer. A plain commit uses the current membership, so it must never be sent after [`Command::Abort`]; only
    /// the thread that runs the steps can guarantee that.
    Commit(Epoch, Vec<Part>),
    /// The commit thread sends no further request of this transaction, and aborts it if still possible.
    /// [`Event::Ended`] follows in any case with the actual outcome. Forget the captured metadata.
    Abort(Epoch),
    /// On the commit thread: drop the producer and everything it has queued, create a new one with the same
    /// transactional id, and call `init_transactions`, which ends the old transaction. Retry until it succeeds. Answer
    /// with [`Event::ProducerRenewed`] or [`Event::Fenced`].
    RenewProducer(Epoch),
    /// As [`Command::ReadCommitted`] without the identity. Retry until it succeeds. Answer with [`Event::ReadBack`].
    ReadBack(Epoch, Vec<Partition>),
    /// The checkpoint of this partition is committed: remove its outbox entries. The next checkpoint holds the changes
    /// since this one.
    Confirm(Epoch, Partition),
    /// The checkpoint of this partition will never be committed: return its entries to the *front* of the outbox, in
    /// order, and treat what it copied as changed again. Ignore an upload in progress.
    RollBack(Epoch, Partition),
    /// Delete these files of the partition in the background. A failure only leaves garbage.
    Delete(Partition, Vec<String>),
    /// After everything queued, stop the engine, but keep it and its outbox.
    Park(Partition),
    /// Discard the engine with its outbox and open checkpoint, whether running, parked or loaded, and the list of its
    /// files. Cancel an upload in progress.
    Drop(Partition),
    /// Give these partitions back to the group: once all partitions of a revocation are released, answer it.
    Release(Vec<Partition>),
    /// Report why the partition is not processed. It stays assigned and paused.
    Fail(Partition, Reason),
    /// The outbox is full: pause all partitions, and those that begin later, until [`Command::Resume`].
    Pause,
    /// Resume everything that [`Command::Pause`] paused.
    Resume,
    /// Send [`Event::BudgetOver`] when the time for releasing partitions is over, well before the group's timeout.
    StartBudget(BudgetId),
    /// Leave the group and shut down in order.
    Close,
    /// Exit at once with code 75; commit nothing, delete nothing.
    Exit,
}
