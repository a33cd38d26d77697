//! What the protocol is told, and what it commands.

use super::reason::Reason;
use crate::bus::Partition;
use crate::checkpoint::metadata::Metadata;

/// One spell of owning one partition. Answers about an earlier spell are recognised by it and ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AssignmentEpoch(pub u64);

/// One checkpoint and its transaction; never used twice by a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// One budget of time for giving partitions up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BudgetId(pub u64);

/// How offsets and outbox are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// In one Kafka transaction.
    ExactlyOnce,
    /// The outbox first, by an idempotent producer, then the offsets by a plain commit.
    AtLeastOnce,
}

/// What the protocol goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How offsets and outbox are committed.
    pub delivery: Delivery,
    /// The source topics' names, in the order of their indexes.
    pub topics: Vec<String>,
    /// Bytes in the outbox that force a checkpoint; at twice as many nothing more is read.
    pub outbox_limit: u64,
    /// How many [`Event::Due`] the state of a partition that was given up is kept for its return.
    pub parked_for: u32,
}

/// One committed offset as the group has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: i64,
    /// The text beside it; of bytes that are no UTF-8 the empty text.
    pub metadata: String,
}

/// The committed offset of each source topic's partition, by topic index; `None` where there is none.
pub type CommittedOffsets = Vec<Option<CommittedOffset>>;

/// A state, and how far it has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The next offset of each source topic, by topic index.
    pub next: Vec<i64>,
    /// The name of the state.
    pub metadata: Metadata,
}

/// What a state belongs to: found in a manifest, or found around us now. State is taken up only where both agree.
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
    /// How many partitions the source topics have.
    pub partition_count: i32,
    /// Hash of the settings that a state cannot be carried over from: not of windows, which come and go.
    pub definition: String,
}

/// A partition's share of a checkpoint, uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The worker's next offsets at the very moment of the checkpoint, and the manifest.
    pub position: Position,
    /// Files that are named by manifests which *this* process has uploaded or loaded as the committed one of this
    /// assignment, and no longer by this manifest. They are in excess as soon as this manifest is committed.
    pub superseded: Vec<String>,
}

/// A partition's share of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The partition.
    pub partition: Partition,
    /// The offsets to commit, each with the metadata beside it.
    pub position: Position,
}

/// Where the engine of a partition comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineOrigin {
    /// It is empty; read from the committed offsets of the initial commit.
    Initial {
        /// Silences due before this epoch millisecond raise no alerts.
        since: i64,
    },
    /// It was loaded; read from the offsets that were loaded with it.
    Loaded,
    /// It was parked; read from where it stands.
    Parked,
}

/// Why a state could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadFailure {
    /// The store or the broker does not answer: trying again may help.
    Unavailable,
    /// This file does not exist.
    Missing(String),
    /// This file, or the manifest against its digest in the metadata, is not as it was written.
    Corrupt(String),
    /// The record at a topic's anchor is another than the one applied. (A record that is gone is none.)
    LogDiffers,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is committed.
    Committed,
    /// It is certain that nothing of it is or ever will be committed: it was not begun, or it was aborted, and the
    /// abort was confirmed. So for abortable errors, and where the group refused the offsets (another generation, a
    /// rebalance in progress, a member it does not know).
    Aborted,
    /// A request timed out, the connection broke, or the error says neither; also where an abort was not confirmed.
    Unknown,
    /// Another producer or another member took our name. Never retried.
    Fenced,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The group gives these partitions, of every source topic.
    Assigned(Vec<Partition>),
    /// The group takes these away and waits for [`Command::Release`].
    Revoked(Vec<Partition>),
    /// These were taken away already; others may own them.
    Lost(Vec<Partition>),
    /// The process is asked to end.
    Closing,
    /// `checkpoint.interval` has passed since the last one. Never sent twice in a row without polling the group in
    /// between, so that no checkpoint is taken in ignorance of a lost partition.
    Due,
    /// What the outboxes of all partitions hold together, open checkpoints included, has changed to this many bytes.
    Outbox(u64),
    /// The time of this budget is over.
    BudgetOver(BudgetId),
    /// The group member or the producer was fenced, outside a transaction.
    Fenced,
    /// Answers [`Command::ReadCommitted`].
    Committed {
        /// Which one.
        partition: Partition,
        /// As in the command.
        assignment: AssignmentEpoch,
        /// What the group has.
        committed: CommittedOffsets,
        /// What is found around us now.
        identity: Identity,
    },
    /// Answers [`Command::ReadCommitted`] or [`Command::FindStart`]: broker or store do not answer.
    Unavailable {
        /// Which one.
        partition: Partition,
        /// As in the command.
        assignment: AssignmentEpoch,
    },
    /// Answers [`Command::FindStart`].
    StartFound {
        /// Which one.
        partition: Partition,
        /// As in the command.
        assignment: AssignmentEpoch,
        /// Whether the store holds any manifest of this group and partition.
        has_checkpoints: bool,
        /// The configured start, resolved to an offset of each source topic.
        next: Vec<i64>,
        /// The wall clock, epoch milliseconds.
        now: i64,
    },
    /// Answers [`Command::Load`]: manifest, files and anchors are checked, and the engine stands ready in the shell.
    Loaded {
        /// Which one.
        partition: Partition,
        /// As in the command.
        assignment: AssignmentEpoch,
        /// What the manifest says it belongs to.
        manifest: Identity,
        /// The next offsets according to the manifest.
        next: Vec<i64>,
    },
    /// Answers [`Command::Load`].
    LoadFailed {
        /// Which one.
        partition: Partition,
        /// As in the command.
        assignment: AssignmentEpoch,
        /// Why.
        failure: LoadFailure,
    },
    /// The broker has no record at the offset that is to be read next.
    OutOfRange {
        /// Which one.
        partition: Partition,
        /// The assignment in which it was read.
        assignment: AssignmentEpoch,
    },
    /// The broker has a record there that cannot be read.
    LogDamaged {
        /// Which one.
        partition: Partition,
        /// The assignment in which it was read.
        assignment: AssignmentEpoch,
    },
    /// Answers [`Command::BeginCheckpoint`] and [`Command::CommitGenesis`]: the group metadata shows no membership (no
    /// member id, or a generation that is not positive). No checkpoint began, and nothing sent.
    NotAMember(Epoch),
    /// Answers [`Command::BeginCheckpoint`] for one partition: files, then the manifest, are stored and synced.
    Uploaded {
        /// As in the command.
        epoch: Epoch,
        /// Which one.
        partition: Partition,
        /// What was uploaded.
        upload: Upload,
    },
    /// Answers [`Command::BeginCheckpoint`] for one partition: since its last commit it has applied nothing, so there
    /// is no checkpoint.
    Unchanged {
        /// As in the command.
        epoch: Epoch,
        /// Which one.
        partition: Partition,
    },
    /// Answers [`Command::BeginCheckpoint`] for one partition: a file could not be stored.
    UploadFailed {
        /// As in the command.
        epoch: Epoch,
        /// Which one.
        partition: Partition,
    },
    /// Answers [`Command::Commit`] and [`Command::CommitGenesis`].
    Ended {
        /// As in the command.
        epoch: Epoch,
        /// How.
        outcome: Outcome,
    },
    /// Answers [`Command::RenewProducer`].
    ProducerRenewed(Epoch),
    /// Answers [`Command::ReadBack`].
    ReadBack {
        /// As in the command.
        epoch: Epoch,
        /// What the group has, of each partition asked for.
        committed: Vec<(Partition, CommittedOffsets)>,
    },
}

/// What to do, one after the other. All commands of one step are begun before the group is polled again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// On a load task: a *stable* read (one that waits for pending transactions) of the committed offsets of all source
    /// topics' partitions, in one request; and of the [`Identity`] around us. Answer with [`Event::Committed`] or
    /// [`Event::Unavailable`]. Until [`Command::Begin`] the partition is assigned, but paused.
    ReadCommitted(Partition, AssignmentEpoch),
    /// On a load task: look whether the store lists a manifest of this group and partition, and resolve the configured
    /// start to offsets. Answer with [`Event::StartFound`] or [`Event::Unavailable`].
    FindStart(Partition, AssignmentEpoch),
    /// Capture the group metadata now, on the poll thread; then on the commit thread a transaction (or plain commit) of
    /// these positions alone, with that metadata. Answer with [`Event::Ended`] or [`Event::NotAMember`].
    CommitInitial(Epoch, Vec<Part>),
    /// On a load task: load manifest (check its digest), files and anchors; keep the engine under this assignment.
    /// Answer with [`Event::Loaded`] or [`Event::LoadFailed`].
    Load {
        /// Which one.
        partition: Partition,
        /// To be told in the answer.
        assignment: AssignmentEpoch,
        /// The name of the manifest.
        manifest: String,
        /// What its digest begins with.
        digest: String,
    },
    /// Give the engine to the worker; assign (or seek to) the offsets *that the engine says*, and resume.
    Begin {
        /// Which one.
        partition: Partition,
        /// The assignment in which it is read, for [`Event::OutOfRange`] and [`Event::LogDamaged`].
        assignment: AssignmentEpoch,
        /// Where the engine comes from.
        origin: EngineOrigin,
        /// The committed offsets. For [`EngineOrigin::Parked`] the engine may stand further.
        next: Vec<i64>,
    },
    /// Pause these and hand nothing more of them out; what was handed out will be applied.
    Stop(Vec<Partition>),
    /// Capture the group metadata *now*, on the poll thread, and keep it under this checkpoint; then queue the
    /// checkpoint to the workers, behind everything handed out. Each worker copies what has changed together with its
    /// next offsets, closes the outbox (the entries so far belong to the checkpoint, and the worker keeps them until
    /// [`Command::Confirm`] or [`Command::RollBack`]), and goes on. The upload task then stores the files, and after
    /// them the manifest, under new names. Answer for each partition with [`Event::Uploaded`], [`Event::Unchanged`] or
    /// [`Event::UploadFailed`], or once with [`Event::NotAMember`].
    BeginCheckpoint(Epoch, Vec<Partition>),
    /// On the commit thread: begin a transaction, produce the outbox entries of this checkpoint of these partitions,
    /// send the offsets with the metadata *captured by this checkpoint*, commit. Answer with [`Event::Ended`].
    ///
    /// With [`Delivery::AtLeastOnce`]: produce, wait for the deliveries, then let the *poll thread* commit by the
    /// member. A plain commit shows the membership of the moment, so it must never be sent after [`Command::Abort`];
    /// only the thread that takes the steps can be sure of that.
    Commit(Epoch, Vec<Part>),
    /// The commit thread does not go on to the next request of this transaction, and aborts it if that is still
    /// possible. [`Event::Ended`] comes in any case, and tells what really happened. The shell forgets the metadata.
    Abort(Epoch),
    /// On the commit thread: drop the producer with all it has queued, make a new one under the same transactional id,
    /// `init_transactions` (which ends the old transaction one way or the other); again until it works. Answer with
    /// [`Event::ProducerRenewed`], or [`Event::Fenced`].
    RenewProducer(Epoch),
    /// As [`Command::ReadCommitted`] without the identity; again until it works. Answer with [`Event::ReadBack`].
    ReadBack(Epoch, Vec<Partition>),
    /// The checkpoint of this partition is committed: its outbox entries are gone for good, and the next checkpoint
    /// holds what changed since this one.
    Confirm(Epoch, Partition),
    /// The checkpoint of this partition will never be committed: its entries return to the *front* of the outbox, in
    /// order, and what it had copied counts as changed again. An upload under way is of no use any more.
    RollBack(Epoch, Partition),
    /// Delete these files of the partition, in the background; failures only leave garbage.
    Delete(Partition, Vec<String>),
    /// Take the engine and its outbox out of work, but keep both, behind everything queued.
    Park(Partition),
    /// Forget the engine with its outbox and open checkpoint, whether at work, parked or loaded, and what was known of
    /// its files. An upload under way is cancelled.
    Drop(Partition),
    /// The group may have these back: once all partitions of a revocation are released, answer it.
    Release(Vec<Partition>),
    /// Say why the partition is not processed. It stays assigned and paused.
    Fail(Partition, Reason),
    /// Too much waits in the outbox: pause all partitions, and those that begin, until [`Command::Resume`].
    Pause,
    /// Resume all that [`Command::Pause`] has paused.
    Resume,
    /// Send [`Event::BudgetOver`] when the time for giving partitions up is over: well within the group's patience.
    StartBudget(BudgetId),
    /// Leave the group and end in order.
    Close,
    /// End at once with exit code 75; commit nothing, delete nothing.
    Exit,
}
