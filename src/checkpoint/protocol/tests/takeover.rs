//! From the assignment to a running engine.

use super::*;

#[test]
fn reading() {
    let story = Story::reading();
    let with = |committed| story.committed(0, committed);
    let committed = |offset, metadata: &Metadata| Some(CommittedOffset { offset, metadata: metadata.to_string() });
    let foreign = |topic: &str| fail(Reason::ForeignMetadata { topic: topic.into() });
    let manifest = at_manifest(1).metadata;
    let text = |text: &str| Some(CommittedOffset { offset: 10, metadata: text.into() });
    let other_store = Metadata::Genesis { since: Time::clamped(77), store: "another".into() };
    let (was, now) = ("another".to_owned(), "store".to_owned());
    let load = Command::Load {
        partition: p(0),
        assignment: AssignmentEpoch(1),
        manifest: "p0/m1.json".into(),
        digest: "d".repeat(32),
    };
    answers_only(
        &story,
        and(
            leaving(&[]),
            vec![
                (with(nothing()), vec![Command::FindStart(p(0), AssignmentEpoch(1))]),
                (
                    with(offsets(&at_initial_commit())),
                    vec![begin(&story, EngineOrigin::Initial { since: 77 }, &at_initial_commit())],
                ),
                (with(offsets(&at_manifest(1))), vec![load]),
                (with(vec![committed(5, &other_store); 2]), fail(Reason::AnotherStore { was, now })),
                (
                    with(vec![committed(10, &manifest), None]),
                    fail(Reason::OffsetsIncomplete { topic: "sessions".into() }),
                ),
                (with(vec![text(""), committed(10, &manifest)]), foreign("orders")),
                (with(vec![committed(10, &manifest), text("mine")]), foreign("sessions")),
                (with(vec![committed(10, &manifest), committed(10, &initial())]), fail(Reason::MixedMetadata)),
                (
                    with(vec![committed(10, &manifest), committed(10, &at_manifest(2).metadata)]),
                    fail(Reason::MixedMetadata),
                ),
                (Event::Unavailable { partition: p(0), assignment: AssignmentEpoch(1) }, vec![]),
            ],
        ),
    );
}

#[test]
fn topics_at_different_offsets_are_one_state() {
    let mut story = Story::reading();
    let found = story.found(0, &Position { next: vec![3, 9_000], ..at_initial_commit() });
    let [Command::Begin { next, .. }] = &story.step(found)[..] else { panic!("expected Begin") };
    assert_eq!(next, &[3, 9_000]);
}

#[test]
fn resting() {
    let again = vec![(Event::Due, vec![Command::ReadCommitted(p(0), AssignmentEpoch(1))])];
    answers_only(&Story::resting(), and(leaving(&[]), again));
}

#[test]
fn searching() {
    let story = Story::searching();
    let initial = vec![Part { partition: p(0), position: at_initial_commit() }];
    let answers = vec![
        (story.start_found(false), vec![Command::CommitInitial(Epoch(1), initial)]),
        (story.start_found(true), fail(Reason::OffsetsExpired)),
    ];
    answers_only(&story, and(leaving(&[]), answers));
}

#[test]
fn a_search_that_was_not_answered_begins_with_the_committed_offsets() {
    let story = Story::searching().then(Event::Unavailable { partition: p(0), assignment: AssignmentEpoch(1) });
    answers_only(&story, and(leaving(&[]), vec![(Event::Due, vec![Command::ReadCommitted(p(0), AssignmentEpoch(1))])]));
}

#[test]
fn initializing() {
    let story = Story::initializing();
    let answers = vec![
        (
            story.ended(Outcome::Committed),
            vec![begin(&story, EngineOrigin::Initial { since: 77 }, &at_initial_commit())],
        ),
        (story.ended(Outcome::Aborted), vec![]),
        (story.ended(Outcome::Unknown), vec![Command::RenewProducer(Epoch(1))]),
        (story.ended(Outcome::Fenced), vec![Command::Exit]),
    ];
    answers_only(&story, and(leaving(&[Command::Abort(Epoch(1))]), answers));
}

#[test]
fn initializing_after_a_failed_commit() {
    let initial = vec![Part { partition: p(0), position: at_initial_commit() }];
    for failure in [Event::Ended { epoch: Epoch(1), outcome: Outcome::Aborted }, Event::NotAMember(Epoch(1))] {
        let answers = vec![(Event::Due, vec![Command::CommitInitial(Epoch(2), initial.clone())])];
        answers_only(&Story::initializing().then(failure), and(leaving(&[]), answers));
    }
}

#[test]
fn an_initial_commit_in_doubt_is_decided_by_what_the_group_has() {
    let story = Story::initializing().then(Event::Ended { epoch: Epoch(1), outcome: Outcome::Unknown });
    let mut story = story;
    assert_eq!(story.step(Event::ProducerRenewed(Epoch(1))), [Command::ReadBack(Epoch(1), vec![p(0)])]);
    let begun = vec![begin(&story, EngineOrigin::Initial { since: 77 }, &at_initial_commit())];
    assert_eq!(story.clone().step(story.read_back(offsets(&at_initial_commit()))), begun);
    assert_eq!(story.clone().step(story.read_back(nothing())), [], "retried later");
    assert_eq!(
        story.clone().step(story.read_back(offsets(&at_manifest(3)))),
        [Command::Drop(p(0)), Command::ReadCommitted(p(0), AssignmentEpoch(2))],
        "another process has committed"
    );
}

#[test]
fn loading() {
    let story = Story::loading();
    let found = |change: fn(&mut Identity)| {
        let mut manifest = identity(0);
        change(&mut manifest);
        Event::Loaded { partition: p(0), assignment: AssignmentEpoch(1), manifest, next: at_manifest(1).next }
    };
    let moved =
        Event::Loaded { partition: p(0), assignment: AssignmentEpoch(1), manifest: identity(0), next: vec![10, 99] };
    let narrow =
        Event::Loaded { partition: p(0), assignment: AssignmentEpoch(1), manifest: identity(0), next: vec![10] };
    let answers = vec![
        (story.loaded(0, &at_manifest(1)), vec![begin(&story, EngineOrigin::Loaded, &at_manifest(1))]),
        (moved, fail(Reason::OffsetMoved { topic: "sessions".into(), committed: 100, manifest: 99 })),
        (narrow, fail(Reason::DefinitionChanged)),
        (found(|it| it.group = "h".into()), fail(Reason::ForeignState)),
        (found(|it| it.partition = Partition(1)), fail(Reason::ForeignState)),
        (found(|it| it.store = "s".into()), fail(Reason::AnotherStore { was: "s".into(), now: "store".into() })),
        (found(|it| it.topic_ids[1] = "c".into()), fail(Reason::TopicRecreated { topic: "sessions".into() })),
        (found(|it| it.topic_ids.truncate(1)), fail(Reason::DefinitionChanged)),
        (found(|it| it.partition_count = 3), fail(Reason::PartitionCountChanged { was: 3, now: 4 })),
        (found(|it| it.definition = "old".into()), fail(Reason::DefinitionChanged)),
        (story.load_failed(LoadFailure::Unavailable), vec![]),
        (story.load_failed(LoadFailure::Missing("f".into())), fail(Reason::FileMissing { name: "f".into() })),
        (story.load_failed(LoadFailure::Corrupt("f".into())), fail(Reason::FileCorrupt { name: "f".into() })),
        (story.load_failed(LoadFailure::LogDiffers), fail(Reason::LogTruncated)),
    ];
    answers_only(&story, and(leaving(&[]), answers));
    let mut later = story.clone().then(story.load_failed(LoadFailure::Unavailable));
    assert_eq!(later.step(Event::Due), [Command::ReadCommitted(p(0), AssignmentEpoch(1))]);
}

#[test]
fn failed() {
    answers_only(&Story::failed(), leaving(&[]));
}

#[test]
fn answers_about_a_former_assignment_are_ignored() {
    let former = Story::loading();
    let old: Vec<Event> = former.every_event();
    let about_an_assignment = |event: &Event| {
        matches!(
            event,
            Event::Committed { .. }
                | Event::Unavailable { .. }
                | Event::StartFound { .. }
                | Event::Loaded { .. }
                | Event::LoadFailed { .. }
                | Event::OutOfRange { .. }
                | Event::LogDamaged { .. }
        )
    };
    let again = |story: Story| story.then(Event::Lost(vec![p(0)])).assigned(0);
    let reading = again(Story::reading());
    let searching = {
        let event = reading.committed(0, nothing());
        reading.clone().then(event)
    };
    let loading = {
        let event = reading.found(0, &at_manifest(1));
        reading.clone().then(event)
    };
    let running = {
        let event = loading.loaded(0, &at_manifest(1));
        loading.clone().then(event)
    };
    for story in [reading, searching, loading, running] {
        for event in old.iter().filter(|event| about_an_assignment(event)) {
            let mut after = story.clone();
            assert_eq!(after.step(event.clone()), [], "{event:?}");
            assert_eq!(after.state, story.state, "{event:?}");
        }
    }
}

#[test]
fn waiting_for_a_transaction_of_a_former_assignment() {
    let story = Story::waiting();
    let read = vec![Command::ReadCommitted(p(0), AssignmentEpoch(2))];
    let answers = vec![
        (story.ended(Outcome::Committed), read.clone()),
        (story.ended(Outcome::Aborted), read.clone()),
        (story.ended(Outcome::Unknown), vec![Command::RenewProducer(Epoch(1))]),
        (story.ended(Outcome::Fenced), vec![Command::Exit]),
    ];
    answers_only(&story, and(leaving(&[]), answers));
    let mut renewing = story.clone().then(story.ended(Outcome::Unknown));
    assert_eq!(renewing.step(Event::ProducerRenewed(Epoch(1))), read, "nothing is left to decide");
}

/// Parked after the commit of its second manifest.
fn parked() -> Story {
    let story = Story::draining();
    let event = story.uploaded(0, 2);
    let story = story.then(event);
    let event = story.ended(Outcome::Committed);
    story.then(event)
}

#[test]
fn an_own_parked_state_is_taken_up_again() {
    let story = parked().assigned(0);
    let answers = vec![
        (story.found(0, &at_manifest(2)), vec![begin(&story, EngineOrigin::Parked, &at_manifest(2))]),
        (
            story.found(0, &at_manifest(3)),
            vec![
                Command::Drop(p(0)),
                Command::Load {
                    partition: p(0),
                    assignment: AssignmentEpoch(2),
                    manifest: "p0/m3.json".into(),
                    digest: "d".repeat(32),
                },
            ],
        ),
        (
            story.found(0, &at_initial_commit()),
            vec![Command::Drop(p(0)), begin(&story, EngineOrigin::Initial { since: 77 }, &at_initial_commit())],
        ),
        (story.committed(0, nothing()), vec![Command::Drop(p(0)), Command::FindStart(p(0), AssignmentEpoch(2))]),
    ];
    answers_only(&story, and(leaving(&[]), answers));
    let mut moved = at_manifest(2);
    moved.next[0] -= 1;
    let commands = story.clone().step(story.found(0, &moved));
    assert_eq!(commands[0], Command::Drop(p(0)), "the offsets must agree as well: {commands:?}");
    let mut elsewhere = identity(0);
    elsewhere.topic_ids[0] = "new".into();
    let committed = offsets(&at_manifest(2));
    let event = Event::Committed { partition: p(0), assignment: AssignmentEpoch(2), committed, identity: elsewhere };
    assert_eq!(story.clone().step(event)[0], Command::Drop(p(0)), "so must the identity");
}

#[test]
fn a_parked_state_is_used_once() {
    let story = parked().assigned(0);
    let event = story.found(0, &at_manifest(2));
    let story = story.then(event).then(Event::Lost(vec![p(0)])).assigned(0);
    let commands = story.clone().step(story.found(0, &at_manifest(2)));
    assert!(matches!(commands[..], [Command::Load { .. }]), "{commands:?}");
}

#[test]
fn a_parked_state_expires() {
    let mut story = parked();
    assert_eq!(story.step(Event::Due), []);
    assert_eq!(story.step(Event::Due), []);
    assert_eq!(story.step(Event::Due), [Command::Drop(p(0))]);
    assert_eq!(story.step(Event::Due), []);
}
