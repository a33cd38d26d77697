//! Time, network, randomness and faults; and the invariants checked at every commit.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

use retentiond::checkpoint::metadata::{ManifestRef, Metadata};
use retentiond::checkpoint::protocol::{Delivery, Identity, Reason};
use retentiond::engine::spec::Spec;

use crate::broker::{Broker, Decided, Marker, Offsets, Reply, Request};
use crate::chance::Chance;
use crate::log::{Entry, Log, PartitionState, TOPICS};
use crate::replica::{Note, Replica, identity};
use crate::stats::Stats;
use crate::store::{Clones, Store};

const REQUEST_TIMEOUT: i64 = 800;
const JOIN_TIMEOUT: i64 = 5_000;
const TRACED_STEPS: usize = 150;

/// A rule that is broken on purpose: the simulation must detect it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The coordinators check neither epochs nor generations.
    NoFencing,
    /// A fenced process creates a new producer and continues.
    FencedIgnored,
    /// Duplicate events count.
    NoDedup,
    /// Committed offsets are read past pending transactions.
    UnstableRead,
    /// A checkpoint is reported as uploaded when its upload begins.
    UploadAfterCommit,
    /// A transaction uses the membership at its end.
    MembershipCapturedLate,
    /// A checkpoint that was rolled back is committed later.
    AbandonedCheckpointCommitted,
    /// Superseded files are deleted once the new manifest is stored.
    DeleteBeforeCommit,
    /// Entries of a checkpoint that was rolled back are dropped.
    OutboxNotReturned,
    /// An unknown outcome counts as aborted.
    UnknownTakenForAborted,
    /// A checkpoint has the offsets of the records handed out.
    OffsetsOfThePollThread,
}

impl Fault {
    pub const ALL: [Fault; 11] = [
        Fault::NoFencing,
        Fault::FencedIgnored,
        Fault::NoDedup,
        Fault::UnstableRead,
        Fault::UploadAfterCommit,
        Fault::MembershipCapturedLate,
        Fault::AbandonedCheckpointCommitted,
        Fault::DeleteBeforeCommit,
        Fault::OutboxNotReturned,
        Fault::UnknownTakenForAborted,
        Fault::OffsetsOfThePollThread,
    ];
}

#[derive(Debug)]
pub enum Action {
    /// A message to a thread of a process.
    Note(u64, Note),
    /// A request reaches the broker; the answer takes this long, or is lost.
    Serve {
        call: u64,
        process: u64,
        request: Request,
        answer_after: Option<i64>,
    },
    Mark(Marker),
    BrokerTick,
    Produce(i32),
    Faults,
    Start(usize),
    Check,
}

struct Scheduled {
    at: i64,
    order: u64,
    action: Action,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        self.order == other.order
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// Fault probabilities.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub crash: f64,
    pub lose: f64,
    pub slow: f64,
    /// The share of actions of the commit thread that are delayed.
    pub stall: f64,
    pub store_fails: f64,
}

/// The state of a partition according to the decisions of the coordinators.
pub struct Truth {
    /// A run over the committed prefix from scratch.
    reference: PartitionState,
    pub committed: Option<Offsets>,
    /// The entries expected for the prefix.
    expected: Vec<Entry>,
}

pub struct World {
    pub now: i64,
    order: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    pub chance: Chance,
    pub faults: Faults,
    pub fault: Option<Fault>,
    pub delivery: Delivery,
    pub partitions: i32,
    pub spec: Arc<Spec>,
    pub log: Log,
    pub store: Store<Clones>,
    pub broker: Broker,
    pub truth: BTreeMap<i32, Truth>,
    pub due_every: i64,
    pub stats: Stats,
    pub topic_id: String,
    pub partition_count: i32,
    /// Whether partitions are expected to fail closed.
    pub provoked: bool,
    pub failures: Vec<(i32, String)>,
    /// The caller and the delay of each call that waits for an answer.
    waiting: BTreeMap<u64, (u64, Option<i64>)>,
    next_call: u64,
    next_nonce: u64,
    traces: bool,
    trace: VecDeque<String>,
    pub violation: Option<String>,
}

impl World {
    pub fn new(seed: u64, fault: Option<Fault>, traces: bool) -> World {
        let mut chance = Chance::new(seed);
        let partitions = i32::try_from(chance.within(1..4)).unwrap_or(1);
        let delivery = if seed % 8 == 7 { Delivery::AtLeastOnce } else { Delivery::ExactlyOnce };
        let mut broker = Broker::new(partitions);
        broker.fences = fault != Some(Fault::NoFencing);
        broker.reads_stably = fault != Some(Fault::UnstableRead);
        let spec = Arc::new(crate::log::spec(seed));
        let truth = |partition| {
            let reference = PartitionState::empty(&spec, partition, vec![0; TOPICS]);
            (partition, Truth { reference, committed: None, expected: Vec::new() })
        };
        World {
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            faults: Faults::default(),
            fault,
            delivery,
            partitions,
            truth: (0..partitions).map(truth).collect(),
            log: Log::new(&spec),
            spec,
            store: Store::new(),
            broker,
            due_every: chance.within(200..700),
            chance,
            stats: Stats::default(),
            topic_id: "id".into(),
            partition_count: partitions,
            provoked: false,
            failures: Vec::new(),
            waiting: BTreeMap::new(),
            next_call: 0,
            next_nonce: 0,
            traces,
            trace: VecDeque::new(),
            violation: None,
        }
    }

    pub fn schedule(&mut self, after: i64, action: Action) {
        self.schedule_at(self.now + after, action);
    }

    pub fn schedule_at(&mut self, at: i64, action: Action) {
        self.order += 1;
        self.queue.push(Reverse(Scheduled { at, order: self.order, action }));
    }

    /// The next action; advances the time.
    pub fn next_action(&mut self) -> Option<Action> {
        let Reverse(next) = self.queue.pop()?;
        self.now = next.at;
        self.stats.events += 1;
        Some(next.action)
    }

    pub fn trace(&mut self, text: impl FnOnce() -> String) {
        if self.traces {
            if self.trace.len() == TRACED_STEPS {
                self.trace.pop_front();
            }
            self.trace.push_back(format!("{:>6} {}", self.now, text()));
        }
    }

    pub fn last_steps(&self) -> String {
        self.trace.iter().fold(String::new(), |mut text, line| {
            _ = writeln!(text, "{line}");
            text
        })
    }

    /// Records a violation; the first one counts.
    pub fn violated(&mut self, what: String) {
        self.trace(|| format!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    // Chance and faults ---------------------------------------------------------------------------------------------

    pub fn crashes(&mut self) -> bool {
        let share = self.faults.crash;
        self.chance.happens(share)
    }

    pub fn store_fails(&mut self) -> bool {
        let share = self.faults.store_fails;
        self.chance.happens(share)
    }

    fn delay(&mut self, usual: i64, slow: i64) -> i64 {
        let share = self.faults.slow;
        if self.chance.happens(share) { self.chance.within(usual..slow) } else { self.chance.within(1..usual) }
    }

    pub fn thread_delay(&mut self) -> i64 {
        self.delay(4, 1_500)
    }

    pub fn commit_delay(&mut self) -> i64 {
        let share = self.faults.stall;
        if self.chance.happens(share) { self.chance.within(300..2_400) } else { self.thread_delay() }
    }

    pub fn upload_delay(&mut self) -> i64 {
        self.delay(60, 1_500)
    }

    pub fn nonce(&mut self) -> u64 {
        self.next_nonce += 1;
        self.next_nonce
    }

    // The network ----------------------------------------------------------------------------------------------------

    /// Sends a request. The caller always gets an answer, at least a timeout.
    pub fn call(&mut self, process: u64, request: Request) -> u64 {
        self.next_call += 1;
        let call = self.next_call;
        let lose = self.faults.lose;
        let timeout = if matches!(request, Request::Join { .. }) { JOIN_TIMEOUT } else { REQUEST_TIMEOUT };
        // Nothing protects against a plain commit that arrives after its sender has given up.
        let slowest = if matches!(request, Request::CommitOffsets(..)) { timeout / 2 } else { 2_000 };
        let (there, back) = (self.delay(12, slowest), self.delay(12, 2_000));
        let answer_after = (!self.chance.happens(lose)).then_some(back);
        if !self.chance.happens(lose) {
            self.schedule(there, Action::Serve { call, process, request, answer_after });
        }
        self.schedule(timeout, Action::Note(process, Note::Reply(call, Reply::TimedOut)));
        call
    }

    pub fn serve(&mut self, call: u64, process: u64, request: Request, answer_after: Option<i64>) {
        if !matches!(request, Request::Heartbeat(_)) {
            self.trace(|| format!("  broker: of process {process}: {request:?}"));
        }
        self.waiting.insert(call, (process, answer_after));
        if let Some(reply) = self.broker.serve(self.now, call, request) {
            self.answer(call, reply);
        }
        self.after_broker();
    }

    pub fn mark(&mut self, marker: Marker) {
        self.broker.mark(marker);
        if self.chance.happens(0.2) {
            let again = self.delay(30, 2_000);
            self.schedule(again, Action::Mark(marker));
        }
    }

    fn answer(&mut self, call: u64, reply: Reply) {
        if let Some((process, Some(after))) = self.waiting.remove(&call) {
            self.schedule(after, Action::Note(process, Note::Reply(call, reply)));
        }
    }

    /// Delivers everything that the broker produced besides its answer.
    pub fn after_broker(&mut self) {
        for (call, reply) in std::mem::take(&mut self.broker.joined) {
            self.answer(call, reply);
        }
        for marker in std::mem::take(&mut self.broker.markers) {
            let after = self.delay(30, 2_000);
            self.schedule(after, Action::Mark(marker));
        }
        for decided in std::mem::take(&mut self.broker.decided) {
            self.check_commit(decided);
        }
    }

    // What must be true ----------------------------------------------------------------------------------------------

    pub fn identity(&self, partition: i32) -> Identity {
        identity(&self.store.id, &self.topic_id, self.partition_count, partition)
    }

    /// Deletes files, and checks that no committed manifest needs them.
    pub fn delete(&mut self, names: &[String]) {
        for name in names {
            self.trace(|| format!("  store: delete {name}"));
            self.stats.deleted += 1;
            self.store.delete(name);
        }
        for partition in 0..self.partitions {
            if let Some(name) = self.committed_manifest(partition)
                && !self.store.is_whole(&name)
                && !self.provoked
            {
                self.violated(format!("a file that the committed manifest {name} needs was deleted"));
            }
        }
    }

    pub fn committed_manifest(&self, partition: i32) -> Option<String> {
        let committed = self.truth.get(&partition)?.committed.as_ref()?;
        match committed.metadata.parse() {
            Ok(Metadata::State(ManifestRef { name, .. })) => Some(name),
            _ => None,
        }
    }

    pub fn may_begin_empty(&mut self, replica: &Replica, partition: i32) {
        let owns = replica.client.membership().is_some_and(|membership| self.broker.owns(membership, partition));
        if owns && self.committed_manifest(partition).is_some() {
            self.violated(format!("process {} begins partition {partition} empty, though it has state", replica.id));
        }
    }

    pub fn failed_closed(&mut self, replica: &Replica, partition: i32, reason: &Reason) {
        self.stats.failed_closed += 1;
        self.failures.push((partition, reason.label().to_owned()));
        // A process that wakes up after a pause may need files that a newer owner has deleted.
        let owns = replica.client.membership().is_some_and(|membership| self.broker.owns(membership, partition));
        if owns && !self.provoked {
            self.violated(format!("process {} fails closed over {partition} without cause: {reason}", replica.id));
        }
    }

    /// Checks a decision of the coordinators: offsets, state and entries agree, and equal a run over the prefix from
    /// scratch.
    fn check_commit(&mut self, decided: Decided) {
        self.trace(|| format!("  broker: committed {:?}", decided.offsets));
        let mut entries: BTreeMap<i32, Vec<Entry>> = BTreeMap::new();
        for entry in decided.entries {
            entries.entry(entry.partition()).or_default().push(entry);
        }
        for (partition, offsets) in decided.offsets {
            if self.provoked {
                self.violated(format!("partition {partition} was committed despite inconsistent state"));
            }
            let entries = entries.remove(&partition).unwrap_or_default();
            if let Err(fault) = self.check_partition(partition, &offsets, entries) {
                self.violated(format!("partition {partition} at {offsets:?}: {fault}"));
            }
        }
        if self.delivery == Delivery::ExactlyOnce && !entries.is_empty() {
            self.violated(format!("entries were committed without their offsets: {entries:?}"));
        }
    }

    fn check_partition(&mut self, partition: i32, offsets: &Offsets, mut entries: Vec<Entry>) -> Result<(), String> {
        let Some(truth) = self.truth.get_mut(&partition) else { return Err("there is no such partition".into()) };
        let former = truth.committed.replace(offsets.clone());
        let metadata: Metadata = offsets
            .metadata
            .parse()
            .map_err(|foreign: retentiond::checkpoint::metadata::MetadataError| foreign.to_string())?;
        let Metadata::State(ManifestRef { name, .. }) = metadata else {
            truth.reference.next.clone_from(&offsets.next);
            return former.map_or(Ok(()), |former| Err(format!("a second initial commit, after {former:?}")));
        };
        let former = former.ok_or("no initial commit before")?;
        if former.next.iter().zip(&offsets.next).any(|(former, next)| next < former) {
            return Err(format!("it was at {former:?} already"));
        }
        let (manifest, state) = self.store.restore(&name).map_err(|absent| format!("{absent:?}"))?;
        if manifest.next != offsets.next || state.next != offsets.next {
            return Err(format!("the manifest is at {:?}, the state at {:?}", manifest.next, state.next));
        }
        let mut expected = truth.reference.advance(&self.log, &offsets.next);
        if let Some(difference) = state.difference(&truth.reference) {
            return Err(difference);
        }
        truth.expected.extend(expected.iter().cloned());
        // An alert may have been released with a rolled-back checkpoint, before its customer was erased.
        expected.retain(|entry| !self.log.is_of_the_erased(entry));
        entries.retain(|entry| !self.log.is_of_the_erased(entry));
        expected.sort();
        entries.sort();
        if self.delivery == Delivery::ExactlyOnce && entries != expected {
            return Err(format!("committed with it {entries:?}, instead of {expected:?}"));
        }
        Ok(())
    }

    /// Whether everything is consumed, committed and visible.
    pub fn is_done(&self) -> bool {
        (0..self.partitions).all(|partition| {
            let Some(committed) = self.truth[&partition].committed.as_ref() else { return false };
            let behind = |(topic, &next): (usize, &i64)| self.log.at_or_after(topic, partition, next).is_some();
            self.broker.offsets.get(&partition) == Some(committed) && !committed.next.iter().enumerate().any(behind)
        }) && (self.delivery == Delivery::AtLeastOnce || self.count(&self.broker.topic) >= self.count(&self.expected()))
    }

    /// The number of entries that must be produced.
    fn count(&self, entries: &[Entry]) -> usize {
        entries.iter().filter(|entry| !self.log.is_of_the_erased(entry)).count()
    }

    fn expected(&self) -> Vec<Entry> {
        let mut expected: Vec<Entry> = self.truth.values().flat_map(|truth| truth.expected.iter().cloned()).collect();
        expected.sort();
        expected
    }

    /// Checks that the alerts of a rule do not depend on other rules: a run with each rule alone gives the same alerts.
    fn check_rules_alone(&self, partition: i32, ends: &[i64], entries: &[Entry]) -> Result<(), String> {
        let silent = |entries: &[Entry]| -> Vec<Entry> {
            let mut silent: Vec<_> =
                entries.iter().filter(|entry| matches!(entry, Entry::Silent { .. })).cloned().collect();
            silent.sort();
            silent
        };
        let mut alone = Vec::new();
        for rule in &self.spec.inactivity.rules {
            let mut spec = Spec::clone(&self.spec);
            spec.inactivity.rules = vec![rule.clone()];
            let mut state = PartitionState::empty(&Arc::new(spec), partition, vec![0; TOPICS]);
            alone.extend(state.advance(&self.log, ends));
        }
        let (alone, together) = (silent(&alone), silent(entries));
        if alone == together {
            return Ok(());
        }
        let lost: Vec<_> = alone.iter().filter(|entry| !together.contains(entry)).collect();
        let added: Vec<_> = together.iter().filter(|entry| !alone.contains(entry)).collect();
        Err(format!("partition {partition}: together the rules lose {lost:?} and add {added:?}"))
    }

    /// Final checks: the last states against a run from scratch, and the topic against the expected entries.
    pub fn check_end(&mut self) {
        let mut whole = Vec::new();
        for partition in 0..self.partitions {
            let mut reference = PartitionState::empty(&self.spec, partition, vec![0; TOPICS]);
            let ends: Vec<i64> = (0..TOPICS).map(|topic| self.log.end(topic, partition)).collect();
            let entries = reference.advance(&self.log, &ends);
            if let Err(difference) = self.check_rules_alone(partition, &ends, &entries) {
                self.violated(difference);
            }
            whole.extend(entries);
            let state = self.committed_manifest(partition).map(|name| self.store.restore(&name));
            match state {
                Some(Ok((_, state))) => {
                    if let Some(difference) = state.difference(&reference) {
                        self.violated(format!("in the end, partition {partition}: {difference}"));
                    }
                }
                Some(Err(absent)) => self.violated(format!("in the end, partition {partition}: {absent:?}")),
                None if whole.is_empty() => {}
                None => self.violated(format!("in the end, partition {partition} has no state")),
            }
        }
        // Whether an alert is released before its customer is erased depends on the timing of checkpoints.
        whole.retain(|entry| !self.log.is_of_the_erased(entry));
        whole.sort();
        if whole.windows(2).any(|pair| pair[0] == pair[1]) {
            self.violated("the reference run produces an entry twice".into());
        }
        let mut seen = self.broker.topic.clone();
        seen.retain(|entry| !self.log.is_of_the_erased(entry));
        seen.sort();
        if self.delivery == Delivery::AtLeastOnce {
            seen.dedup();
        }
        if seen != whole {
            let missing: Vec<&Entry> = whole.iter().filter(|entry| !seen.contains(entry)).collect();
            let wrong: Vec<&Entry> = seen.iter().filter(|entry| !whole.contains(entry)).collect();
            let counts = (seen.len(), whole.len());
            self.violated(format!("in the end, the topic lacks {missing:?}, has {wrong:?} too much; {counts:?}"));
        }
        self.stats.static_rejoins += self.broker.static_rejoins;
    }
}
