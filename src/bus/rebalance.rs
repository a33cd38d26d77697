//! How to answer rebalances: a pure step from state and event to commands.
//!
//! Partition p is *owned* only while p of **every** source topic is assigned, since one engine needs them all. Only
//! owned partitions are read: what is assigned without its siblings waits for them, so no record arrives without an
//! engine.
//!
//! The order of the commands is what ownership requires; when each is done is decided by the commit protocol
//! (`checkpoint/protocol.rs`), which holds the safety argument. The coordinator turns [`Command::Stop`] with
//! [`Command::Commit`] into a revocation, [`Command::Stop`] alone into a loss and [`Command::Start`] into an assignment
//! of that protocol, and:
//!
//! - giving up: holds [`Command::Unassign`] back, and with it the next owner, until the last checkpoint has ended;
//! - lost: commits nothing, for the next owner may be at work already;
//! - taking over: answers the group at once, and reads a partition only when its state is there, so it ignores the
//!   lists of [`Command::Assign`] and [`Command::IncrementalAssign`];
//! - leaving: closes the client when the protocol commands it, after everything is released, and not at
//!   [`Command::Close`].
//!
//! Every [`Event::Assigned`] is answered by one [`Command::Assign`] or [`Command::IncrementalAssign`], and every
//! [`Event::Revoked`] and [`Event::Lost`] by one [`Command::Unassign`], even if it is empty: the group waits for the
//! answer.

use std::collections::BTreeSet;

use super::{Partition, RebalanceProtocol, TopicIndex, TopicPartition};

/// The assignment of this member, and the partitions it works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    protocol: RebalanceProtocol,
    /// The number of source topics.
    topics: u16,
    /// The topic-partitions assigned by the group.
    assigned: BTreeSet<TopicPartition>,
    /// The partitions with an engine; exactly their topic-partitions are read.
    owned: BTreeSet<Partition>,
    /// Whether the member is leaving; then it takes no partitions.
    closing: bool,
}

/// Rebalance events of this member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The group assigns these: everything under the eager protocol, additions under the incremental one.
    Assigned(Vec<TopicPartition>),
    /// The group revokes these (everything under the eager protocol) and waits for the answer.
    Revoked(Vec<TopicPartition>),
    /// These are lost already; under the eager protocol everything.
    Lost(Vec<TopicPartition>),
    /// The member is leaving.
    Closing,
}

/// What to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Hand nothing more of these partitions out, and give them up: behind a last checkpoint if [`Command::Commit`]
    /// follows, else at once.
    Stop(Vec<Partition>),
    /// Take and commit a last checkpoint of these stopped partitions.
    Commit(Vec<Partition>),
    /// Take these partitions up: their committed offsets name their state.
    Start(Vec<Partition>),
    /// [`super::LogClient::assign`] with exactly these, in order; kept ones continue at the position of their engine.
    Assign(Vec<TopicPartition>),
    /// [`super::LogClient::incremental_assign`] with these, in order.
    IncrementalAssign(Vec<TopicPartition>),
    /// [`super::LogClient::unassign`] with these, in order.
    Unassign(Vec<TopicPartition>),
    /// [`super::LogClient::close`].
    Close,
}

impl State {
    /// A member without an assignment, in a group that reads this many topics (at least one).
    #[must_use]
    pub fn new(protocol: RebalanceProtocol, topics: u16) -> State {
        debug_assert!(topics > 0);
        State { protocol, topics, assigned: BTreeSet::new(), owned: BTreeSet::new(), closing: false }
    }

    /// The partitions with an engine.
    #[must_use]
    pub fn owned(&self) -> &BTreeSet<Partition> {
        &self.owned
    }

    /// The topic-partitions assigned by the group, with or without their siblings.
    #[must_use]
    pub fn assigned(&self) -> &BTreeSet<TopicPartition> {
        &self.assigned
    }

    /// Whether the member is leaving.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Partitions that are assigned in every topic.
    fn complete(&self) -> BTreeSet<Partition> {
        let all_topics =
            |partition: &Partition| siblings(*partition, self.topics).all(|sibling| self.assigned.contains(&sibling));
        self.assigned.iter().map(|at| at.partition).filter(all_topics).collect()
    }

    fn topic_partitions(&self, partitions: &BTreeSet<Partition>) -> Vec<TopicPartition> {
        let mut all: Vec<_> = partitions.iter().flat_map(|partition| siblings(*partition, self.topics)).collect();
        all.sort_unstable();
        all
    }
}

fn siblings(partition: Partition, topics: u16) -> impl Iterator<Item = TopicPartition> {
    (0..topics).map(move |topic| TopicPartition { topic: TopicIndex(topic), partition })
}

/// Applies an event; returns the new state and the commands.
#[must_use]
pub fn step(state: &State, event: Event) -> (State, Vec<Command>) {
    let mut next = state.clone();
    let commands = match event {
        Event::Assigned(given) => assigned(state, &mut next, given),
        Event::Revoked(taken) => taken_away(state, &mut next, &taken, Fate::Revoked),
        Event::Lost(taken) => taken_away(state, &mut next, &taken, Fate::Lost),
        Event::Closing => closing(state, &mut next),
    };
    (next, commands)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Revoked,
    Lost,
}

fn assigned(state: &State, next: &mut State, given: Vec<TopicPartition>) -> Vec<Command> {
    if state.protocol == RebalanceProtocol::Eager {
        next.assigned.clear();
    }
    next.assigned.extend(given);
    next.owned = if state.closing { BTreeSet::new() } else { next.complete() };
    let stopped: BTreeSet<Partition> = state.owned.difference(&next.owned).copied().collect();
    let started: BTreeSet<Partition> = next.owned.difference(&state.owned).copied().collect();
    let mut commands = give_up(&stopped, Fate::Revoked);
    if !started.is_empty() {
        commands.push(Command::Start(started.iter().copied().collect()));
    }
    commands.push(match state.protocol {
        RebalanceProtocol::Eager => Command::Assign(next.topic_partitions(&next.owned)),
        RebalanceProtocol::Incremental => Command::IncrementalAssign(next.topic_partitions(&started)),
    });
    commands
}

fn taken_away(state: &State, next: &mut State, taken: &[TopicPartition], fate: Fate) -> Vec<Command> {
    match state.protocol {
        RebalanceProtocol::Eager => next.assigned.clear(),
        RebalanceProtocol::Incremental => next.assigned.retain(|at| !taken.contains(at)),
    }
    next.owned = if state.closing { BTreeSet::new() } else { next.complete() };
    let stopped: BTreeSet<Partition> = state.owned.difference(&next.owned).copied().collect();
    let mut commands = give_up(&stopped, fate);
    commands.push(Command::Unassign(state.topic_partitions(&stopped)));
    commands
}

fn closing(state: &State, next: &mut State) -> Vec<Command> {
    next.closing = true;
    next.owned.clear();
    let mut commands = give_up(&state.owned, Fate::Revoked);
    if !state.owned.is_empty() {
        commands.push(Command::Unassign(state.topic_partitions(&state.owned)));
    }
    if !state.closing {
        commands.push(Command::Close);
    }
    commands
}

/// Stops engines, and commits their work unless another member may own it already.
fn give_up(stopped: &BTreeSet<Partition>, fate: Fate) -> Vec<Command> {
    let partitions: Vec<Partition> = stopped.iter().copied().collect();
    match fate {
        _ if partitions.is_empty() => Vec::new(),
        Fate::Revoked => vec![Command::Stop(partitions.clone()), Command::Commit(partitions)],
        Fate::Lost => vec![Command::Stop(partitions)],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::RebalanceProtocol::{Eager, Incremental};
    use super::*;

    const TOPICS: u16 = 2;

    fn at(topic: u16, partition: i32) -> TopicPartition {
        TopicPartition { topic: TopicIndex(topic), partition: Partition(partition) }
    }

    /// These partitions of both topics.
    fn both(partitions: &[i32]) -> Vec<TopicPartition> {
        let mut all: Vec<_> = (0..TOPICS).flat_map(|t| partitions.iter().map(move |p| at(t, *p))).collect();
        all.sort_unstable();
        all
    }

    fn numbers(partitions: &[i32]) -> Vec<Partition> {
        partitions.iter().copied().map(Partition).collect()
    }

    fn after(protocol: RebalanceProtocol, events: &[Event]) -> State {
        events.iter().fold(State::new(protocol, TOPICS), |state, event| step(&state, event.clone()).0)
    }

    fn commands(protocol: RebalanceProtocol, before: &[Event], event: Event) -> Vec<Command> {
        step(&after(protocol, before), event).1
    }

    fn owning(partitions: &[i32]) -> Vec<Event> {
        vec![Event::Assigned(both(partitions))]
    }

    #[test]
    fn empty_state_every_event() {
        for protocol in [Eager, Incremental] {
            let answer = match protocol {
                Eager => Command::Assign(both(&[0, 1])),
                Incremental => Command::IncrementalAssign(both(&[0, 1])),
            };
            let start = Command::Start(numbers(&[0, 1]));
            assert_eq!(commands(protocol, &[], Event::Assigned(both(&[0, 1]))), [start, answer]);
            assert_eq!(commands(protocol, &[], Event::Revoked(vec![])), [Command::Unassign(vec![])]);
            assert_eq!(commands(protocol, &[], Event::Lost(vec![])), [Command::Unassign(vec![])]);
            assert_eq!(commands(protocol, &[], Event::Closing), [Command::Close]);
        }
    }

    #[test]
    fn owning_state_every_event_eager() {
        let before = owning(&[0, 1]);
        let (stop, commit) = (Command::Stop(numbers(&[0, 1])), Command::Commit(numbers(&[0, 1])));
        let unassign = Command::Unassign(both(&[0, 1]));
        let taken = || both(&[0, 1]);
        assert_eq!(
            commands(Eager, &before, Event::Revoked(taken())),
            [stop.clone(), commit.clone(), unassign.clone()],
            "stop, commit, and only then release"
        );
        assert_eq!(commands(Eager, &before, Event::Lost(taken())), [stop.clone(), unassign.clone()], "no commit");
        assert_eq!(commands(Eager, &before, Event::Closing), [stop, commit, unassign, Command::Close]);
        assert_eq!(
            commands(Eager, &before, Event::Assigned(both(&[1, 2]))),
            [
                Command::Stop(numbers(&[0])),
                Command::Commit(numbers(&[0])),
                Command::Start(numbers(&[2])),
                Command::Assign(both(&[1, 2])),
            ],
            "an assignment names everything; kept partitions are neither stopped nor started"
        );
    }

    #[test]
    fn owning_state_every_event_incremental() {
        let before = owning(&[0, 1]);
        assert_eq!(
            commands(Incremental, &before, Event::Assigned(both(&[2]))),
            [Command::Start(numbers(&[2])), Command::IncrementalAssign(both(&[2]))]
        );
        let (stop, commit, unassign) =
            (Command::Stop(numbers(&[1])), Command::Commit(numbers(&[1])), Command::Unassign(both(&[1])));
        assert_eq!(
            commands(Incremental, &before, Event::Revoked(both(&[1]))),
            [stop.clone(), commit, unassign.clone()]
        );
        assert_eq!(commands(Incremental, &before, Event::Lost(both(&[1]))), [stop, unassign]);
        let all = numbers(&[0, 1]);
        assert_eq!(
            commands(Incremental, &before, Event::Closing),
            [Command::Stop(all.clone()), Command::Commit(all), Command::Unassign(both(&[0, 1])), Command::Close]
        );
    }

    #[test]
    fn partly_assigned_state_every_event() {
        for protocol in [Eager, Incremental] {
            let before = [Event::Assigned(vec![at(0, 0)])];
            assert!(after(protocol, &before).owned().is_empty(), "the sibling is missing");
            assert_eq!(commands(protocol, &before, Event::Revoked(vec![at(0, 0)])), [Command::Unassign(vec![])]);
            assert_eq!(commands(protocol, &before, Event::Lost(vec![at(0, 0)])), [Command::Unassign(vec![])]);
            assert_eq!(commands(protocol, &before, Event::Closing), [Command::Close]);
        }
        let before = [Event::Assigned(vec![at(0, 0)])];
        assert_eq!(
            commands(Incremental, &before, Event::Assigned(vec![at(1, 0)])),
            [Command::Start(numbers(&[0])), Command::IncrementalAssign(both(&[0]))],
            "once its sibling arrives, both are read"
        );
        assert_eq!(commands(Eager, &before, Event::Assigned(vec![at(1, 0)])), [Command::Assign(vec![])]);
    }

    #[test]
    fn a_partition_that_loses_a_sibling_is_released_in_every_topic() {
        let before = owning(&[0, 1]);
        assert_eq!(
            commands(Incremental, &before, Event::Revoked(vec![at(1, 0)])),
            [Command::Stop(numbers(&[0])), Command::Commit(numbers(&[0])), Command::Unassign(both(&[0]))]
        );
        let state = after(Incremental, &[before[0].clone(), Event::Revoked(vec![at(1, 0)])]);
        assert_eq!(state.owned().iter().copied().collect::<Vec<_>>(), numbers(&[1]));
        assert!(state.assigned().contains(&at(0, 0)), "still assigned, and waiting for its sibling");
        assert_eq!(step(&state, Event::Revoked(vec![at(0, 0)])).1, [Command::Unassign(vec![])]);
    }

    #[test]
    fn closing_state_every_event() {
        for protocol in [Eager, Incremental] {
            let before = [owning(&[0]), vec![Event::Closing]].concat();
            let nothing = match protocol {
                Eager => Command::Assign(vec![]),
                Incremental => Command::IncrementalAssign(vec![]),
            };
            assert_eq!(commands(protocol, &before, Event::Assigned(both(&[0, 1]))), [nothing], "takes no partitions");
            assert_eq!(commands(protocol, &before, Event::Revoked(both(&[0]))), [Command::Unassign(vec![])]);
            assert_eq!(commands(protocol, &before, Event::Lost(both(&[0]))), [Command::Unassign(vec![])]);
            assert_eq!(commands(protocol, &before, Event::Closing), [], "closes once");
        }
    }

    fn topic_partitions() -> impl Strategy<Value = Vec<TopicPartition>> {
        prop::collection::vec((0..TOPICS, 0..4_i32).prop_map(|(topic, partition)| at(topic, partition)), 0..8)
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            4 => topic_partitions().prop_map(Event::Assigned),
            3 => topic_partitions().prop_map(Event::Revoked),
            2 => topic_partitions().prop_map(Event::Lost),
            1 => Just(Event::Closing),
        ];
        prop::collection::vec(event, 0..24)
    }

    /// A model of engines and client that executes the commands; panics if their order is unsafe.
    #[derive(Default)]
    struct GroupModel {
        running: BTreeSet<Partition>,
        /// Stopped in this step and not yet committed.
        stopped: BTreeSet<Partition>,
        read: BTreeSet<TopicPartition>,
    }

    impl GroupModel {
        fn apply(&mut self, event: &Event, commands: &[Command]) {
            self.stopped.clear();
            for command in commands {
                match command {
                    Command::Stop(all) => {
                        for partition in all {
                            assert!(self.running.remove(partition), "{partition:?} stopped, but was not running");
                            self.stopped.insert(*partition);
                        }
                    }
                    Command::Commit(all) => {
                        assert!(!matches!(event, Event::Lost(_)), "committed what was lost");
                        for partition in all {
                            assert!(self.stopped.contains(partition), "{partition:?} committed, but not just stopped");
                        }
                    }
                    Command::Start(all) => {
                        for partition in all {
                            assert!(self.running.insert(*partition), "{partition:?} started twice");
                        }
                    }
                    Command::Assign(all) => {
                        let before = std::mem::replace(&mut self.read, all.iter().copied().collect());
                        self.assert_no_engine_runs(before.difference(&self.read));
                    }
                    Command::IncrementalAssign(all) => {
                        for place in all {
                            assert!(self.read.insert(*place), "librdkafka refuses to assign {place:?} twice");
                        }
                    }
                    Command::Unassign(all) => {
                        for place in all {
                            assert!(self.read.remove(place), "librdkafka refuses to unassign {place:?} when it is not");
                        }
                        self.assert_no_engine_runs(all.iter());
                    }
                    Command::Close => assert!(self.running.is_empty() && self.read.is_empty()),
                }
            }
        }

        fn assert_no_engine_runs<'a>(&self, places: impl Iterator<Item = &'a TopicPartition>) {
            for place in places {
                assert!(!self.running.contains(&place.partition), "{place:?} released while its engine is running");
            }
        }
    }

    /// The assignment, tracked independently of the code under test.
    fn expected_assignment(
        protocol: RebalanceProtocol,
        before: &BTreeSet<TopicPartition>,
        event: &Event,
    ) -> BTreeSet<TopicPartition> {
        let mut assigned = before.clone();
        match (protocol, event) {
            (Eager, Event::Assigned(all)) => assigned = all.iter().copied().collect(),
            (Eager, Event::Revoked(_) | Event::Lost(_)) => assigned.clear(),
            (Incremental, Event::Assigned(added)) => assigned.extend(added),
            (Incremental, Event::Revoked(taken) | Event::Lost(taken)) => {
                for place in taken {
                    assigned.remove(place);
                }
            }
            (_, Event::Closing) => {}
        }
        assigned
    }

    proptest! {
        #[test]
        fn any_sequence_of_events_keeps_the_rules(eager in any::<bool>(), events in events()) {
            let protocol = if eager { Eager } else { Incremental };
            let mut state = State::new(protocol, TOPICS);
            let (mut world, mut given, mut closing) = (GroupModel::default(), BTreeSet::new(), false);
            for event in events {
                let (next, commands) = step(&state, event.clone());
                world.apply(&event, &commands);
                let answers = commands.iter().filter(|command| match event {
                    Event::Assigned(_) => matches!(command, Command::Assign(_) | Command::IncrementalAssign(_)),
                    Event::Revoked(_) | Event::Lost(_) => matches!(command, Command::Unassign(_)),
                    Event::Closing => false,
                });
                prop_assert_eq!(answers.count(), usize::from(event != Event::Closing), "one answer to the group");
                state = next;
                given = expected_assignment(protocol, &given, &event);
                closing |= event == Event::Closing;
                // Both topics, written out.
                let whole = |p: &i32| !closing && given.contains(&at(0, *p)) && given.contains(&at(1, *p));
                let owned: BTreeSet<Partition> = (0..4).filter(whole).map(Partition).collect();
                prop_assert_eq!(&state.owned, &owned);
                prop_assert_eq!(&world.running, &owned);
                let read: BTreeSet<_> = owned.iter().flat_map(|p| [at(0, p.0), at(1, p.0)]).collect();
                prop_assert_eq!(&world.read, &read, "exactly the partitions with an engine are read");
            }
        }
    }
}
