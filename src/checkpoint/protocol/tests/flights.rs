//! Checkpoints, their transactions, and partitions that leave during them.

use super::*;

const ONE: Epoch = Epoch(1);

fn commit(epoch: Epoch, partitions: &[i32], n: i64) -> Command {
    Command::Commit(epoch, partitions.iter().map(|&of| Part { partition: p(of), position: at_manifest(n) }).collect())
}

fn delete(n: i64) -> Command {
    Command::Delete(p(0), vec![format!("old{n}")])
}

fn given_back() -> Vec<Command> {
    vec![Command::Park(p(0)), Command::Release(vec![p(0)])]
}

fn gone(before: &[Command]) -> Vec<Command> {
    [before, &[Command::Drop(p(0)), Command::Release(vec![p(0)])]].concat()
}

fn revoked(epoch: Option<Epoch>) -> Vec<Command> {
    let mut commands = vec![Command::Stop(vec![p(0)]), Command::StartBudget(BudgetId(1))];
    commands.extend(epoch.map(|epoch| Command::BeginCheckpoint(epoch, vec![p(0)])));
    commands
}

#[test]
fn running() {
    let unread = |why| [vec![Command::Stop(vec![p(0)])], fail(why)].concat();
    let (out_of_range, damaged) = (unread(Reason::OffsetOutOfRange), unread(Reason::LogDamaged));
    answers_only(
        &Story::running(),
        vec![
            (Event::Revoked(vec![p(0)]), revoked(Some(ONE))),
            (Event::Closing, revoked(Some(ONE))),
            (Event::Lost(vec![p(0)]), gone(&[])),
            (Event::Due, vec![Command::BeginCheckpoint(ONE, vec![p(0)])]),
            (Event::OutOfRange { partition: p(0), assignment: AssignmentEpoch(1) }, out_of_range),
            (Event::LogDamaged { partition: p(0), assignment: AssignmentEpoch(1) }, damaged),
            (Event::Fenced, vec![Command::Exit]),
        ],
    );
}

#[test]
fn uploading() {
    let story = Story::uploading();
    let back = Command::RollBack(ONE, p(0));
    let unread = |why| [vec![Command::Stop(vec![p(0)]), back.clone()], fail(why)].concat();
    let (out_of_range, damaged) = (unread(Reason::OffsetOutOfRange), unread(Reason::LogDamaged));
    answers_only(
        &story,
        vec![
            (Event::Revoked(vec![p(0)]), revoked(None)),
            (Event::Closing, revoked(None)),
            (Event::Lost(vec![p(0)]), gone(std::slice::from_ref(&back))),
            (Event::OutOfRange { partition: p(0), assignment: AssignmentEpoch(1) }, out_of_range),
            (Event::LogDamaged { partition: p(0), assignment: AssignmentEpoch(1) }, damaged),
            (Event::Fenced, vec![Command::Exit]),
            (story.uploaded(0, 2), vec![commit(ONE, &[0], 2)]),
            (Event::Unchanged { epoch: ONE, partition: p(0) }, vec![]),
            (Event::UploadFailed { epoch: ONE, partition: p(0) }, vec![back]),
            (Event::NotAMember(ONE), vec![]),
        ],
    );
}

#[test]
fn committing() {
    let story = Story::committing();
    let abort = Command::Abort(ONE);
    let unread = |why| [vec![Command::Stop(vec![p(0)]), abort.clone()], fail(why)].concat();
    let (out_of_range, damaged) = (unread(Reason::OffsetOutOfRange), unread(Reason::LogDamaged));
    answers_only(
        &story,
        vec![
            (Event::Revoked(vec![p(0)]), revoked(None)),
            (Event::Closing, revoked(None)),
            (Event::Lost(vec![p(0)]), gone(&[abort])),
            (Event::OutOfRange { partition: p(0), assignment: AssignmentEpoch(1) }, out_of_range),
            (Event::LogDamaged { partition: p(0), assignment: AssignmentEpoch(1) }, damaged),
            (Event::Fenced, vec![Command::Exit]),
            (story.ended(Outcome::Committed), vec![Command::Confirm(ONE, p(0)), delete(2)]),
            (story.ended(Outcome::Aborted), vec![Command::RollBack(ONE, p(0))]),
            (story.ended(Outcome::Unknown), vec![Command::RenewProducer(ONE)]),
            (story.ended(Outcome::Fenced), vec![Command::Exit]),
        ],
    );
}

#[test]
fn renewing() {
    let story = Story::renewing();
    let unread = |why| [vec![Command::Stop(vec![p(0)])], fail(why)].concat();
    let (out_of_range, damaged) = (unread(Reason::OffsetOutOfRange), unread(Reason::LogDamaged));
    answers_only(
        &story,
        vec![
            (Event::Revoked(vec![p(0)]), revoked(None)),
            (Event::Closing, revoked(None)),
            (Event::Lost(vec![p(0)]), gone(&[])),
            (Event::OutOfRange { partition: p(0), assignment: AssignmentEpoch(1) }, out_of_range),
            (Event::LogDamaged { partition: p(0), assignment: AssignmentEpoch(1) }, damaged),
            (Event::Fenced, vec![Command::Exit]),
            (Event::ProducerRenewed(ONE), vec![Command::ReadBack(ONE, vec![p(0)])]),
        ],
    );
}

#[test]
fn reading_back() {
    let story = Story::reading_back();
    let unread = |why| [vec![Command::Stop(vec![p(0)])], fail(why)].concat();
    let (out_of_range, damaged) = (unread(Reason::OffsetOutOfRange), unread(Reason::LogDamaged));
    let over = vec![Command::Drop(p(0)), Command::ReadCommitted(p(0), AssignmentEpoch(2))];
    let settled = vec![Command::Confirm(ONE, p(0)), delete(2)];
    let mut moved = at_manifest(2);
    moved.next[1] += 1;
    let foreign = vec![Some(CommittedOffset { offset: 0, metadata: String::new() }); 2];
    answers_only(
        &story,
        vec![
            (Event::Revoked(vec![p(0)]), revoked(None)),
            (Event::Closing, revoked(None)),
            (Event::Lost(vec![p(0)]), gone(&[])),
            (Event::OutOfRange { partition: p(0), assignment: AssignmentEpoch(1) }, out_of_range),
            (Event::LogDamaged { partition: p(0), assignment: AssignmentEpoch(1) }, damaged),
            (Event::Fenced, vec![Command::Exit]),
            (story.read_back(offsets(&at_manifest(2))), settled),
            (story.read_back(offsets(&at_manifest(1))), vec![Command::RollBack(ONE, p(0))]),
            (story.read_back(offsets(&at_manifest(3))), over.clone()),
            (story.read_back(offsets(&moved)), over.clone()),
            (story.read_back(nothing()), over.clone()),
            (story.read_back(foreign), over.clone()),
            (Event::ReadBack { epoch: ONE, committed: vec![] }, over),
        ],
    );
}

#[test]
fn draining_with_its_last_checkpoint_uploading() {
    let story = Story::draining();
    let back = Command::RollBack(ONE, p(0));
    let parted = [vec![back.clone()], given_back()].concat();
    answers_only(
        &story,
        vec![
            (Event::Lost(vec![p(0)]), gone(std::slice::from_ref(&back))),
            (Event::BudgetOver(BudgetId(1)), parted.clone()),
            (Event::BudgetOver(BudgetId(9)), vec![]),
            (Event::Fenced, vec![Command::Exit]),
            (story.uploaded(0, 2), vec![commit(ONE, &[0], 2)]),
            (Event::Unchanged { epoch: ONE, partition: p(0) }, given_back()),
            (Event::UploadFailed { epoch: ONE, partition: p(0) }, parted),
            (Event::NotAMember(ONE), given_back()),
        ],
    );
}

#[test]
fn draining_with_its_last_checkpoint_committing() {
    let story = Story::draining();
    let event = story.uploaded(0, 2);
    let story = story.then(event);
    answers_only(
        &story,
        vec![
            (Event::Lost(vec![p(0)]), gone(&[Command::Abort(ONE)])),
            (Event::BudgetOver(BudgetId(1)), gone(&[Command::Abort(ONE)])),
            (Event::Fenced, vec![Command::Exit]),
            (story.ended(Outcome::Committed), [vec![Command::Confirm(ONE, p(0)), delete(2)], given_back()].concat()),
            (story.ended(Outcome::Aborted), [vec![Command::RollBack(ONE, p(0))], given_back()].concat()),
            (story.ended(Outcome::Unknown), vec![Command::RenewProducer(ONE)]),
            (story.ended(Outcome::Fenced), vec![Command::Exit]),
        ],
    );
}

#[test]
fn draining_with_its_last_checkpoint_in_doubt() {
    let story = Story::draining();
    let event = story.uploaded(0, 2);
    let story = story.then(event).then(Event::Ended { epoch: ONE, outcome: Outcome::Unknown });
    answers_only(
        &story,
        vec![
            (Event::Lost(vec![p(0)]), gone(&[])),
            (Event::BudgetOver(BudgetId(1)), gone(&[])),
            (Event::Fenced, vec![Command::Exit]),
            (Event::ProducerRenewed(ONE), vec![Command::ReadBack(ONE, vec![p(0)])]),
        ],
    );
    let story = story.then(Event::ProducerRenewed(ONE));
    let settled = [vec![Command::Confirm(ONE, p(0)), delete(2)], given_back()].concat();
    answers_only(
        &story,
        vec![
            (Event::Lost(vec![p(0)]), gone(&[])),
            (Event::BudgetOver(BudgetId(1)), gone(&[])),
            (Event::Fenced, vec![Command::Exit]),
            (story.read_back(offsets(&at_manifest(2))), settled),
            (story.read_back(offsets(&at_manifest(1))), [vec![Command::RollBack(ONE, p(0))], given_back()].concat()),
            (story.read_back(offsets(&at_manifest(3))), gone(&[])),
        ],
    );
}

#[test]
fn a_revoked_partition_waits_for_the_checkpoint_in_flight_and_takes_a_last_one() {
    let two = Epoch(2);
    for (end, first) in [
        (Outcome::Committed, vec![Command::Confirm(ONE, p(0)), delete(2)]),
        (Outcome::Aborted, vec![Command::RollBack(ONE, p(0))]),
    ] {
        let mut story = Story::committing().then(Event::Revoked(vec![p(0)]));
        let ended = Event::Ended { epoch: ONE, outcome: end };
        assert_eq!(story.step(ended), [first, vec![Command::BeginCheckpoint(two, vec![p(0)])]].concat());
        assert_eq!(story.step(story.clone().uploaded(0, 3)), [commit(two, &[0], 3)]);
        let ended = Event::Ended { epoch: two, outcome: Outcome::Aborted };
        assert_eq!(
            story.step(ended),
            [vec![Command::RollBack(two, p(0))], given_back()].concat(),
            "the last checkpoint is not retried"
        );
    }
    let mut story = Story::uploading().then(Event::Revoked(vec![p(0)]));
    assert_eq!(
        story.step(Event::BudgetOver(BudgetId(1))),
        [vec![Command::RollBack(ONE, p(0))], given_back()].concat(),
        "abandoned before its transaction: the state is kept, and the entries return to the outbox"
    );
    assert_eq!(
        story.step(Event::Uploaded { epoch: ONE, partition: p(0), upload: upload(2) }),
        [],
        "and never committed"
    );
}

#[test]
fn an_interval_that_passes_during_a_checkpoint_is_made_up_for() {
    let mut story = Story::committing().then(Event::Due);
    let ended = story.ended(Outcome::Committed);
    assert_eq!(
        story.step(ended),
        [Command::Confirm(ONE, p(0)), delete(2), Command::BeginCheckpoint(Epoch(2), vec![p(0)])]
    );
}

#[test]
fn one_transaction_for_all_that_are_uploaded() {
    let story = Story::running_with(Delivery::ExactlyOnce, &[0, 1, 2, 3]).then(Event::Due);
    let mut story = story;
    assert_eq!(story.step(story.clone().uploaded(0, 2)), []);
    assert_eq!(story.step(Event::Unchanged { epoch: ONE, partition: p(1) }), []);
    assert_eq!(story.step(Event::UploadFailed { epoch: ONE, partition: p(2) }), [Command::RollBack(ONE, p(2))]);
    assert_eq!(story.step(story.clone().uploaded(3, 2)), [commit(ONE, &[0, 3], 2)]);
    let mut lost = story.clone();
    assert_eq!(
        lost.step(Event::Lost(vec![p(3)])),
        [Command::Abort(ONE), Command::Drop(p(3)), Command::Release(vec![p(3)])]
    );
    assert_eq!(
        lost.clone().step(story.ended(Outcome::Aborted)),
        [Command::RollBack(ONE, p(0))],
        "entries of the others return to the outbox"
    );
    assert_eq!(
        lost.step(story.ended(Outcome::Committed)),
        [Command::Confirm(ONE, p(0)), delete(2)],
        "the abort came too late"
    );
}

#[test]
fn a_lost_partition_leaves_the_checkpoint_to_the_others() {
    let mut story = Story::running_with(Delivery::ExactlyOnce, &[0, 1]).then(Event::Due);
    assert_eq!(story.step(story.clone().uploaded(0, 2)), []);
    assert_eq!(
        story.clone().step(Event::Lost(vec![p(1)])),
        [Command::RollBack(ONE, p(1)), Command::Drop(p(1)), Command::Release(vec![p(1)]), commit(ONE, &[0], 2),]
    );
    let all = story.step(Event::Lost(vec![p(0), p(1)]));
    assert!(!all.iter().any(|command| matches!(command, Command::Commit(..))), "all lost at once: {all:?}");
    assert_eq!(story.step(Event::Uploaded { epoch: ONE, partition: p(1), upload: upload(2) }), [], "too late");
}

#[test]
fn a_budget_removes_all_of_its_partitions_before_the_rest_is_committed() {
    let story = Story::running_with(Delivery::ExactlyOnce, &[0, 1, 2]).then(Event::Due);
    let story = story.then(Event::Revoked(vec![p(0), p(1)]));
    let (zero, two) = (story.uploaded(0, 2), story.uploaded(2, 2));
    let mut story = story.then(zero).then(two);
    assert_eq!(
        story.step(Event::BudgetOver(BudgetId(1))),
        [
            Command::RollBack(ONE, p(0)),
            Command::Park(p(0)),
            Command::Release(vec![p(0)]),
            Command::RollBack(ONE, p(1)),
            Command::Park(p(1)),
            Command::Release(vec![p(1)]),
            commit(ONE, &[2], 2),
        ]
    );
}

#[test]
fn only_the_commit_that_supersedes_a_file_deletes_it() {
    for outcome in [Outcome::Aborted, Outcome::Unknown, Outcome::Fenced] {
        let mut story = Story::committing();
        let commands = story.step(story.clone().ended(outcome));
        assert!(!commands.iter().any(|command| matches!(command, Command::Delete(..))), "{outcome:?}: {commands:?}");
    }
    let mut story = Story::committing().then(Event::Lost(vec![p(0)]));
    assert_eq!(story.step(story.clone().ended(Outcome::Committed)), [], "a new owner may need them");
}

#[test]
fn the_next_checkpoint_after_a_commit_builds_on_it() {
    let story = Story::committing();
    let ended = story.ended(Outcome::Committed);
    let story = story.then(ended).then(Event::Due);
    let event = story.uploaded(0, 3);
    let story = story.then(event);
    let event = story.ended(Outcome::Unknown);
    let mut story = story.then(event).then(Event::ProducerRenewed(Epoch(2)));
    let event = story.read_back(offsets(&at_manifest(2)));
    assert_eq!(story.step(event), [Command::RollBack(Epoch(2), p(0))], "the previous manifest is the second");
}

#[test]
fn a_plain_commit_in_doubt_needs_no_new_producer() {
    let story = Story::running_with(Delivery::AtLeastOnce, &[0]).then(Event::Due);
    let event = story.uploaded(0, 2);
    let mut story = story.then(event);
    let event = story.ended(Outcome::Unknown);
    assert_eq!(story.step(event), [Command::ReadBack(ONE, vec![p(0)])]);
    let event = story.read_back(offsets(&at_manifest(2)));
    assert_eq!(story.step(event), [Command::Confirm(ONE, p(0)), delete(2)]);
}

#[test]
fn answers_about_another_checkpoint_are_ignored() {
    let other = Epoch(99);
    for story in [
        Story::initializing(),
        Story::uploading(),
        Story::committing(),
        Story::renewing(),
        Story::reading_back(),
        Story::draining(),
    ] {
        let answers = [
            Event::NotAMember(other),
            Event::Uploaded { epoch: other, partition: p(0), upload: upload(2) },
            Event::Unchanged { epoch: other, partition: p(0) },
            Event::UploadFailed { epoch: other, partition: p(0) },
            Event::Ended { epoch: other, outcome: Outcome::Committed },
            Event::ProducerRenewed(other),
            Event::ReadBack { epoch: other, committed: vec![(p(0), nothing())] },
        ];
        for event in answers {
            let mut after = story.clone();
            assert_eq!(after.step(event.clone()), [], "{event:?}");
            assert_eq!(after.state, story.state, "{event:?}");
        }
    }
}

#[test]
fn an_initial_commit_goes_before_a_checkpoint_that_is_due() {
    let story = Story::committing().then(Event::Due).assigned(1);
    let event = story.committed(1, nothing());
    let story = story.then(event);
    let (partition, assignment) = (p(1), story.assignment(1));
    let event = Event::StartFound { partition, assignment, has_checkpoints: false, next: vec![5, 6], now: 77 };
    let mut story = story.then(event);
    let event = story.ended(Outcome::Committed);
    let initial = vec![Part { partition: p(1), position: at_initial_commit() }];
    assert_eq!(story.step(event), [Command::Confirm(ONE, p(0)), delete(2), Command::CommitInitial(Epoch(2), initial)]);
    let event = story.ended(Outcome::Aborted);
    assert_eq!(story.step(event), [Command::BeginCheckpoint(Epoch(3), vec![p(0)])]);
}
