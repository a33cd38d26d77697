use super::RebalanceProtocol::{Eager, Incremental};
use super::*;
use crate::bus::{GroupClient, GroupHandle};

const NONE: Duration = Duration::ZERO;

fn at(topic: u16, partition: i32) -> TopicPartition {
    TopicPartition { topic: TopicIndex(topic), partition: Partition(partition) }
}

fn starts(all: &[TopicPartition], start: Start) -> Vec<(TopicPartition, Start)> {
    all.iter().map(|at| (*at, start)).collect()
}

/// Answers rebalances, reading from the start, until nothing happens; returns all other events.
fn settle(clients: &mut [&mut MemoryClient]) -> Vec<(MemberId, Polled<MemoryBatch>)> {
    let mut rest = Vec::new();
    loop {
        let mut quiet = true;
        for client in clients.iter_mut() {
            for polled in client.poll(NONE) {
                quiet = false;
                match polled {
                    Polled::Assigned(all) if client.protocol() == Eager => {
                        client.assign(&starts(&all, Start::Earliest)).unwrap();
                    }
                    Polled::Assigned(all) => client.incremental_assign(&starts(&all, Start::Earliest)).unwrap(),
                    Polled::Revoked(all) | Polled::Lost(all) => client.unassign(&all).unwrap(),
                    other => rest.push((client.id(), other)),
                }
            }
        }
        if quiet {
            return rest;
        }
    }
}

fn offsets(polled: &[(MemberId, Polled<MemoryBatch>)], place: TopicPartition) -> Vec<i64> {
    let records = polled.iter().filter_map(|(_, polled)| match polled {
        Polled::Records(at, batch) if *at == place => Some((0..batch.len()).map(|i| batch.get(i).offset)),
        _ => None,
    });
    records.flatten().collect()
}

#[test]
fn hands_out_records_in_order_in_limited_batches_and_reports_the_end_once() {
    let broker = MemoryBroker::new(Eager, &[1]);
    broker.limit_batches(2);
    for i in 0..5 {
        assert_eq!(broker.append(at(0, 0), (i > 0).then_some(b"k"), (i > 1).then_some(b"v"), i), Some(i));
    }
    let mut client = broker.join();
    let seen = settle(&mut [&mut client]);
    assert_eq!(offsets(&seen, at(0, 0)), [0, 1, 2, 3, 4]);
    assert_eq!(seen.len(), 4, "three batches and one end");
    assert!(matches!(seen[3].1, Polled::End { offset: 5, .. }));
    let Polled::Records(_, batch) = &seen[0].1 else { panic!("{seen:?}") };
    assert_eq!((batch.get(0).key, batch.get(1).key, batch.get(1).payload), (None, Some(&b"k"[..]), None));
    broker.append(at(0, 0), None, None, 9);
    assert_eq!(offsets(&settle(&mut [&mut client]), at(0, 0)), [5]);
    assert_eq!(client.end_offset(at(0, 0)), Some(6));
    assert_eq!(broker.append(at(0, 1), None, None, 0), None, "no such partition");
}

#[test]
fn begins_at_the_given_start() {
    let broker = MemoryBroker::new(Eager, &[1]);
    for time in [10, 20, 30] {
        broker.append(at(0, 0), None, None, time);
    }
    let mut client = broker.join();
    assert!(matches!(client.poll(NONE)[..], [Polled::Assigned(_)]));
    let cases =
        [(Start::Earliest, 0), (Start::Latest, 3), (Start::At(11), 1), (Start::At(31), 3), (Start::Offset(2), 2)];
    for (start, first) in cases {
        client.assign(&[(at(0, 0), start)]).unwrap();
        let id = client.id();
        let seen: Vec<_> = client.poll(NONE).into_iter().map(|polled| (id, polled)).collect();
        assert_eq!(offsets(&seen, at(0, 0)), (first..3).collect::<Vec<_>>(), "{start:?}");
    }
    assert!(matches!(client.assign(&[(at(0, 0), Start::Offset(4))]), Err(SourceError::Configuration(_))));
}

#[test]
fn shares_by_range_when_members_come_and_go() {
    for protocol in [Eager, Incremental] {
        let broker = MemoryBroker::new(protocol, &[3, 3]);
        let mut first = broker.join();
        settle(&mut [&mut first]);
        assert_eq!(broker.held(first.id()).len(), 6);
        let mut second = broker.join();
        settle(&mut [&mut first, &mut second]);
        let expected = BTreeSet::from([at(0, 0), at(0, 1), at(1, 0), at(1, 1)]);
        assert_eq!(broker.held(first.id()), expected, "{protocol:?}");
        assert_eq!(broker.held(second.id()), BTreeSet::from([at(0, 2), at(1, 2)]));
        first.close(NONE);
        settle(&mut [&mut second]);
        assert_eq!(broker.held(second.id()).len(), 6);
    }
}

/// Commits an offset as this member.
fn commit(client: &MemoryClient, at: TopicPartition, offset: i64) -> Result<(), SourceError> {
    let next = [(at, Committed { offset, metadata: Vec::new() })];
    let committed = client.handle().commit(&client.group_token()?, &next, NONE);
    committed.map_err(|error| SourceError::Unavailable(error.to_string()))
}

#[test]
fn the_eager_group_waits_for_every_answer_and_the_incremental_one_moves_only_what_changes() {
    let broker = MemoryBroker::new(Eager, &[2]);
    let mut first = broker.join();
    settle(&mut [&mut first]);
    let mut second = broker.join();
    assert!(second.poll(NONE).is_empty(), "the first member has not answered");
    broker.append(at(0, 0), None, None, 0);
    let polled = first.poll(NONE);
    assert!(matches!(&polled[..], [Polled::Revoked(all)] if all.len() == 2), "{polled:?}");
    assert!(first.poll(NONE).is_empty(), "no records until it answers");
    commit(&first, at(0, 0), 7).unwrap();
    first.unassign(&[]).unwrap();
    assert!(matches!(&second.poll(NONE)[..], [Polled::Assigned(all)] if all[..] == [at(0, 1)]));
    assert_eq!(broker.committed(at(0, 0)), Some(7), "committed between the revocation and its answer");

    let broker = MemoryBroker::new(Incremental, &[2]);
    let mut first = broker.join();
    settle(&mut [&mut first]);
    let mut second = broker.join();
    assert!(
        matches!(&second.poll(NONE)[..], [Polled::Assigned(all)] if all.is_empty()),
        "an empty assignment confirms the join"
    );
    second.incremental_assign(&[]).unwrap();
    assert!(matches!(&first.poll(NONE)[..], [Polled::Revoked(all)] if all[..] == [at(0, 1)]));
    first.unassign(&[at(0, 1)]).unwrap();
    assert!(matches!(&second.poll(NONE)[..], [Polled::Assigned(all)] if all[..] == [at(0, 1)]));
}

#[test]
fn an_expelled_member_loses_everything_commits_nothing_and_rejoins() {
    for protocol in [Eager, Incremental] {
        let broker = MemoryBroker::new(protocol, &[2]);
        let (mut first, mut second) = (broker.join(), broker.join());
        settle(&mut [&mut first, &mut second]);
        broker.kick(first.id());
        settle(&mut [&mut second]);
        assert_eq!(broker.held(second.id()).len(), 2, "the other member takes over before the first learns of it");
        let refused = commit(&first, at(0, 0), 1);
        assert!(matches!(refused, Err(SourceError::Unavailable(_))), "{refused:?}");
        assert_eq!(broker.committed(at(0, 0)), None);
        let polled = first.poll(NONE);
        assert!(matches!(&polled[..], [Polled::Lost(all)] if all[..] == [at(0, 0)]), "{polled:?}");
        first.unassign(&[at(0, 0)]).unwrap();
        settle(&mut [&mut first, &mut second]);
        assert_eq!((broker.held(first.id()).len(), broker.held(second.id()).len()), (1, 1));
        commit(&first, at(0, 0), 1).unwrap();
        assert_eq!(broker.committed(at(0, 0)), Some(1));
    }
}

#[test]
fn a_crashed_member_keeps_its_partitions_until_it_is_removed() {
    let broker = MemoryBroker::new(Incremental, &[2]);
    let (mut first, mut second) = (broker.join(), broker.join());
    settle(&mut [&mut first, &mut second]);
    let id = first.id();
    drop(first);
    settle(&mut [&mut second]);
    assert_eq!(broker.held(second.id()).len(), 1);
    broker.forget_member(id);
    settle(&mut [&mut second]);
    assert_eq!(broker.held(second.id()).len(), 2);
}

#[test]
fn refuses_what_librdkafka_refuses() {
    let broker = MemoryBroker::new(Incremental, &[2]);
    let (mut first, mut second) = (broker.join(), broker.join());
    settle(&mut [&mut first, &mut second]);
    let wrong = |answer| matches!(answer, Err(SourceError::Configuration(_)));
    assert!(wrong(first.incremental_assign(&[(at(0, 1), Start::Earliest)])), "assigned to another member");
    assert!(wrong(first.incremental_assign(&[(at(0, 0), Start::Earliest)])), "twice");
    assert!(wrong(first.unassign(&[at(0, 1)])), "never assigned");
}

#[test]
fn brings_injected_errors_and_wakes_a_waiting_poll() {
    let broker = MemoryBroker::new(Eager, &[1]);
    let mut client = broker.join();
    settle(&mut [&mut client]);
    let id = client.id();
    broker.last_error(id, "no broker");
    assert!(matches!(&client.poll(NONE)[..], [Polled::Error(text)] if text == "no broker"));
    broker.fatal(id, SourceError::Fenced("other".to_owned()));
    assert!(matches!(&client.poll(NONE)[..], [Polled::Fatal(SourceError::Fenced(_))]));
    assert!(client.poll(NONE).is_empty());
    let waiting = std::thread::spawn(move || client.poll(Duration::from_secs(60)).len());
    broker.append(at(0, 0), None, None, 0);
    assert_eq!(waiting.join().unwrap(), 2, "the record and the end, long before the minute is over");
}
