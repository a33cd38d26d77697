//! Every pair of state and event. [`answers_only`] sends every event, and requires that events without a listed answer
//! are ignored.

mod flights;
mod takeover;

use std::mem::discriminant;

use super::*;
use crate::checkpoint::metadata::{ManifestRef, Metadata};
use crate::event::Time;

const LIMIT: u64 = 1_000;

fn p(number: i32) -> Partition {
    Partition(number)
}

fn initial() -> Metadata {
    Metadata::Genesis { since: Time::clamped(77), store: "store".into() }
}

fn at_initial_commit() -> Position {
    Position { next: vec![5, 6], metadata: initial() }
}

/// The position of the n-th manifest of a partition.
fn at_manifest(n: i64) -> Position {
    Position {
        next: vec![10 * n, 100 * n],
        metadata: Metadata::State(ManifestRef { name: format!("p0/m{n}.json"), digest: "d".repeat(32) }),
    }
}

fn upload(n: i64) -> Upload {
    Upload { position: at_manifest(n), superseded: vec![format!("old{n}")] }
}

fn identity(partition: i32) -> Identity {
    Identity {
        group: "g".into(),
        partition: p(partition),
        store: "store".into(),
        topic_ids: vec!["a".into(), "b".into()],
        partition_count: 4,
        definition: "def".into(),
    }
}

fn offsets(position: &Position) -> CommittedOffsets {
    let metadata = position.metadata.to_string();
    position.next.iter().map(|&offset| Some(CommittedOffset { offset, metadata: metadata.clone() })).collect()
}

fn nothing() -> CommittedOffsets {
    vec![None, None]
}

/// A replica whose state a test builds up event by event.
#[derive(Clone)]
struct Story {
    state: State,
}

impl Story {
    fn with(delivery: Delivery) -> Story {
        let topics = vec!["orders".into(), "sessions".into()];
        Story { state: State::new(Rules { delivery, topics, outbox_limit: LIMIT, parked_for: 2 }) }
    }

    fn new() -> Story {
        Story::with(Delivery::ExactlyOnce)
    }

    fn step(&mut self, event: Event) -> Vec<Command> {
        self.state.step(event)
    }

    /// Applies an event.
    fn then(mut self, event: Event) -> Story {
        _ = self.step(event);
        self
    }

    fn assigned(self, partition: i32) -> Story {
        self.then(Event::Assigned(vec![p(partition)]))
    }

    fn assignment(&self, partition: i32) -> AssignmentEpoch {
        self.state.owned.get(&p(partition)).map_or(AssignmentEpoch(0), |owned| owned.assignment)
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.state.numbers.epoch)
    }

    fn budget(&self) -> BudgetId {
        BudgetId(self.state.numbers.budget)
    }

    fn committed(&self, partition: i32, committed: CommittedOffsets) -> Event {
        let assignment = self.assignment(partition);
        Event::Committed { partition: p(partition), assignment, committed, identity: identity(partition) }
    }

    fn found(&self, partition: i32, position: &Position) -> Event {
        self.committed(partition, offsets(position))
    }

    fn start_found(&self, has_checkpoints: bool) -> Event {
        let assignment = self.assignment(0);
        Event::StartFound { partition: p(0), assignment, has_checkpoints, next: vec![5, 6], now: 77 }
    }

    fn loaded(&self, partition: i32, position: &Position) -> Event {
        let (assignment, next) = (self.assignment(partition), position.next.clone());
        Event::Loaded { partition: p(partition), assignment, manifest: identity(partition), next }
    }

    fn load_failed(&self, failure: LoadFailure) -> Event {
        Event::LoadFailed { partition: p(0), assignment: self.assignment(0), failure }
    }

    fn uploaded(&self, partition: i32, n: i64) -> Event {
        Event::Uploaded { epoch: self.epoch(), partition: p(partition), upload: upload(n) }
    }

    fn ended(&self, outcome: Outcome) -> Event {
        Event::Ended { epoch: self.epoch(), outcome }
    }

    fn read_back(&self, committed: CommittedOffsets) -> Event {
        Event::ReadBack { epoch: self.epoch(), committed: vec![(p(0), committed)] }
    }

    // States of partition 0 ------------------------------------------------------------------------------------------

    fn reading() -> Story {
        Story::new().assigned(0)
    }

    fn resting() -> Story {
        let story = Story::reading();
        let assignment = story.assignment(0);
        story.then(Event::Unavailable { partition: p(0), assignment })
    }

    fn searching() -> Story {
        let story = Story::reading();
        let event = story.committed(0, nothing());
        story.then(event)
    }

    /// The initial commit is being committed.
    fn initializing() -> Story {
        let story = Story::searching();
        let event = story.start_found(false);
        story.then(event)
    }

    fn loading() -> Story {
        let story = Story::reading();
        let event = story.found(0, &at_manifest(1));
        story.then(event)
    }

    /// These partitions run, each from its first manifest.
    fn running_with(delivery: Delivery, partitions: &[i32]) -> Story {
        partitions.iter().fold(Story::with(delivery), |story, &partition| {
            let story = story.assigned(partition);
            let event = story.found(partition, &at_manifest(1));
            let story = story.then(event);
            let event = story.loaded(partition, &at_manifest(1));
            story.then(event)
        })
    }

    fn running() -> Story {
        Story::running_with(Delivery::ExactlyOnce, &[0])
    }

    fn uploading() -> Story {
        Story::running().then(Event::Due)
    }

    fn committing() -> Story {
        let story = Story::uploading();
        let event = story.uploaded(0, 2);
        story.then(event)
    }

    fn renewing() -> Story {
        let story = Story::committing();
        let event = story.ended(Outcome::Unknown);
        story.then(event)
    }

    fn reading_back() -> Story {
        let story = Story::renewing();
        let event = Event::ProducerRenewed(story.epoch());
        story.then(event)
    }

    /// Revoked, and its last checkpoint is being uploaded.
    fn draining() -> Story {
        Story::running().then(Event::Revoked(vec![p(0)]))
    }

    /// Lost while its transaction was running, and assigned again.
    fn waiting() -> Story {
        Story::committing().then(Event::Lost(vec![p(0)])).assigned(0)
    }

    fn failed() -> Story {
        let story = Story::reading();
        let event = story.committed(0, vec![None, Some(CommittedOffset { offset: 1, metadata: String::new() })]);
        story.then(event)
    }

    /// One event of each kind, about partition 0 in its current assignment, the last checkpoint and the last budget.
    fn every_event(&self) -> Vec<Event> {
        let (partition, assignment, epoch) = (p(0), self.assignment(0), self.epoch());
        vec![
            Event::Assigned(vec![partition]),
            Event::Revoked(vec![partition]),
            Event::Lost(vec![partition]),
            Event::Closing,
            Event::Due,
            Event::Outbox(1),
            Event::BudgetOver(self.budget()),
            Event::Fenced,
            self.found(0, &at_manifest(1)),
            Event::Unavailable { partition, assignment },
            self.start_found(false),
            self.loaded(0, &at_manifest(1)),
            self.load_failed(LoadFailure::LogDiffers),
            Event::OutOfRange { partition, assignment },
            Event::LogDamaged { partition, assignment },
            Event::NotAMember(epoch),
            self.uploaded(0, 2),
            Event::Unchanged { epoch, partition },
            Event::UploadFailed { epoch, partition },
            self.ended(Outcome::Committed),
            Event::ProducerRenewed(epoch),
            self.read_back(offsets(&at_manifest(2))),
        ]
    }
}

/// Sends every event to a copy of the story: the listed ones get these answers, all others get none.
fn answers_only(story: &Story, answers: Vec<(Event, Vec<Command>)>) {
    for event in story.every_event() {
        if answers.iter().all(|(answered, _)| discriminant(answered) != discriminant(&event)) {
            let commands = story.clone().step(event.clone());
            assert_eq!(commands, [], "{event:?} in {:?}", story.state);
        }
    }
    for (event, commands) in answers {
        assert_eq!(story.clone().step(event.clone()), commands, "{event:?} in {:?}", story.state);
    }
}

/// How every state without an engine answers the end of a partition or of the process.
fn leaving(before: &[Command]) -> Vec<(Event, Vec<Command>)> {
    let gone = [before, &[Command::Drop(p(0)), Command::Release(vec![p(0)])]].concat();
    vec![
        (Event::Revoked(vec![p(0)]), gone.clone()),
        (Event::Lost(vec![p(0)]), gone.clone()),
        (Event::Closing, [gone, vec![Command::Close]].concat()),
        (Event::Fenced, vec![Command::Exit]),
    ]
}

fn and(mut answers: Vec<(Event, Vec<Command>)>, more: Vec<(Event, Vec<Command>)>) -> Vec<(Event, Vec<Command>)> {
    answers.extend(more);
    answers
}

fn begin(story: &Story, origin: EngineOrigin, position: &Position) -> Command {
    Command::Begin { partition: p(0), assignment: story.assignment(0), origin, next: position.next.clone() }
}

fn fail(reason: Reason) -> Vec<Command> {
    vec![Command::Drop(p(0)), Command::Fail(p(0), reason)]
}

#[test]
fn nothing_owned() {
    answers_only(
        &Story::new(),
        vec![
            (Event::Assigned(vec![p(0)]), vec![Command::ReadCommitted(p(0), AssignmentEpoch(1))]),
            (Event::Assigned(vec![]), vec![]),
            (Event::Revoked(vec![p(0)]), vec![Command::Release(vec![p(0)])]),
            (Event::Revoked(vec![]), vec![]),
            (Event::Lost(vec![p(0)]), vec![Command::Drop(p(0)), Command::Release(vec![p(0)])]),
            (Event::Lost(vec![]), vec![]),
            (Event::Closing, vec![Command::Close]),
            (Event::Fenced, vec![Command::Exit]),
        ],
    );
}

#[test]
fn ended() {
    for last in [Event::Closing, Event::Fenced] {
        answers_only(&Story::new().then(last.clone()), vec![]);
        let story = Story::renewing().then(Event::Fenced);
        answers_only(&story, vec![]);
    }
}

#[test]
fn closing_takes_nothing_on_and_ends_once_all_is_given_back() {
    let mut story = Story::running_with(Delivery::ExactlyOnce, &[0, 1]).assigned(2);
    let (epoch, budget) = (Epoch(1), BudgetId(1));
    assert_eq!(
        story.step(Event::Closing),
        [
            Command::Drop(p(2)),
            Command::Stop(vec![p(0), p(1)]),
            Command::StartBudget(budget),
            Command::Release(vec![p(2)]),
            Command::BeginCheckpoint(epoch, vec![p(0), p(1)]),
        ]
    );
    assert_eq!(story.step(Event::Assigned(vec![p(3)])), [Command::Release(vec![p(3)])]);
    assert_eq!(story.step(Event::Closing), [], "closing twice has no effect");
    assert_eq!(story.step(Event::Due), []);
    let unchanged = Event::Unchanged { epoch, partition: p(0) };
    assert_eq!(story.step(unchanged), [Command::Park(p(0)), Command::Release(vec![p(0)])]);
    assert_eq!(
        story.step(Event::BudgetOver(budget)),
        [Command::RollBack(epoch, p(1)), Command::Park(p(1)), Command::Release(vec![p(1)]), Command::Close]
    );
}

#[test]
fn a_full_outbox_forces_a_checkpoint_and_a_fuller_one_stops_reading() {
    let mut story = Story::running();
    assert_eq!(story.step(Event::Outbox(LIMIT - 1)), []);
    assert_eq!(story.step(Event::Outbox(LIMIT)), [Command::BeginCheckpoint(Epoch(1), vec![p(0)])]);
    assert_eq!(story.step(Event::Outbox(2 * LIMIT)), [Command::Pause], "the checkpoint is in flight");
    assert_eq!(story.step(Event::Outbox(3 * LIMIT)), [], "already paused");
    assert_eq!(story.step(Event::Outbox(LIMIT)), [], "not below the limit yet");
    let failed = Event::UploadFailed { epoch: Epoch(1), partition: p(0) };
    assert_eq!(story.step(failed), [Command::RollBack(Epoch(1), p(0))]);
    assert_eq!(story.step(Event::Outbox(2 * LIMIT)), [], "no forced checkpoint until the next is due");
    assert_eq!(story.step(Event::Due), [Command::BeginCheckpoint(Epoch(2), vec![p(0)])]);
    assert_eq!(story.step(Event::Outbox(LIMIT - 1)), [Command::Resume]);
}

#[test]
fn phases_shown_to_operators() {
    let phase = |story: Story| story.state.partitions().map(|(_, phase)| phase).collect::<Vec<_>>();
    for restoring in [
        Story::reading(),
        Story::resting(),
        Story::searching(),
        Story::initializing(),
        Story::loading(),
        Story::waiting(),
    ] {
        assert_eq!(phase(restoring), [PartitionPhase::Restoring]);
    }
    assert_eq!(phase(Story::running()), [PartitionPhase::Running]);
    assert_eq!(phase(Story::draining()), [PartitionPhase::Draining]);
    assert_eq!(phase(Story::failed()), [PartitionPhase::Failed]);
}

#[test]
fn every_reason_names_its_remedy() {
    let text = || "x".to_owned();
    let reasons = [
        Reason::OffsetsExpired,
        Reason::OffsetsIncomplete { topic: text() },
        Reason::ForeignMetadata { topic: text() },
        Reason::MixedMetadata,
        Reason::OffsetMoved { topic: text(), committed: 1, manifest: 2 },
        Reason::ForeignState,
        Reason::TopicRecreated { topic: text() },
        Reason::PartitionCountChanged { was: 1, now: 2 },
        Reason::PartitionAdded { was: 1 },
        Reason::AnotherStore { was: text(), now: text() },
        Reason::DefinitionChanged,
        Reason::FileMissing { name: text() },
        Reason::FileCorrupt { name: text() },
        Reason::LogTruncated,
        Reason::OffsetOutOfRange,
        Reason::LogDamaged,
    ];
    let remedies = ["`retentiond rewind`", "`retentiond bootstrap`", "kafka.group_id", "checkpoint.url"];
    let mut labels: Vec<_> = reasons.iter().map(Reason::label).collect();
    for reason in &reasons {
        let shown = reason.to_string();
        assert!(remedies.iter().any(|remedy| shown.contains(remedy)), "{shown}");
    }
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), reasons.len(), "labels are unique");
}
