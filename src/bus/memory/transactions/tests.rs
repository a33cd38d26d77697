use super::super::MemoryBroker;
use super::*;
use crate::bus::{LogClient, Partition, Polled, RebalanceProtocol, RecordBatch, TopicIndex};

const NONE: Duration = Duration::ZERO;
const HERE: TopicPartition = TopicPartition { topic: TopicIndex(0), partition: Partition(0) };

fn committed(offset: i64, text: &str) -> Committed {
    Committed { offset, metadata: text.as_bytes().to_vec() }
}

/// Answers the pending rebalance, reading from the start.
fn answer(client: &mut MemoryClient) {
    for polled in client.poll(NONE) {
        match polled {
            Polled::Assigned(all) => {
                let starts: Vec<_> = all.into_iter().map(|at| (at, Start::Earliest)).collect();
                client.assign(&starts).unwrap();
            }
            Polled::Revoked(all) | Polled::Lost(all) => client.unassign(&all).unwrap(),
            _ => {}
        }
    }
}

fn joined(broker: &MemoryBroker) -> MemoryClient {
    let mut client = broker.join();
    answer(&mut client);
    client
}

fn dead_letter(payload: &'static [u8]) -> Outgoing<'static> {
    Outgoing { topic: "dead-letters", key: None, payload: Some(payload), headers: &[], time: Some(7) }
}

#[test]
fn a_transaction_shows_all_or_nothing_and_stable_reads_wait_for_it() {
    let broker = MemoryBroker::new(RebalanceProtocol::Eager, &[1]);
    let client = joined(&broker);
    let (token, handle) = (client.group_token().unwrap(), client.handle());
    let mut producer = broker.producer("one");
    producer.init(NONE).unwrap();
    for (text, commits) in [("first", false), ("second", true)] {
        producer.begin().unwrap();
        producer.produce(&dead_letter(text.as_bytes())).unwrap();
        producer.send_offsets(&token, &[(HERE, committed(3, text))]).unwrap();
        assert!(matches!(handle.committed(&[HERE], NONE), Err(SourceError::Unavailable(_))), "pending");
        if commits { producer.commit() } else { producer.abort() }.unwrap();
        let shown = commits.then(|| committed(3, text));
        assert_eq!(handle.committed(&[HERE], NONE), Ok(vec![shown]));
    }
    let produced = broker.produced();
    assert_eq!((produced.len(), produced[0].payload.as_deref()), (1, Some(&b"second"[..])));
}

#[test]
fn a_stale_token_is_refused_and_a_fresh_one_may_commit_any_partition() {
    let broker = MemoryBroker::new(RebalanceProtocol::Eager, &[1]);
    let mut first = joined(&broker);
    let old = first.group_token().unwrap();
    let mut second = broker.join();
    (0..2).for_each(|_| [&mut first, &mut second].into_iter().for_each(answer));
    let mut producer = broker.producer("one");
    producer.init(NONE).unwrap();
    producer.begin().unwrap();
    let refused = producer.send_offsets(&old, &[(HERE, committed(1, ""))]);
    assert!(matches!(refused, Err(TransactionError::Rejoin(_))), "{refused:?}");
    assert!(matches!(first.handle().commit(&old, &[], NONE), Err(TransactionError::Rejoin(_))));
    let not_mine = [(HERE, committed(1, "not mine"))];
    producer.send_offsets(&second.group_token().unwrap(), &not_mine).unwrap();
    producer.commit().unwrap();
    assert_eq!(broker.committed_whole(HERE), Some(committed(1, "not mine")));
    broker.kick(first.id());
    assert!(first.group_token().is_err());
}

#[test]
fn a_successor_ends_the_transaction_that_a_fault_left_pending() {
    for (fault, is_made) in [(Fault::ReplyLost, true), (Fault::RequestLost, false)] {
        let broker = MemoryBroker::new(RebalanceProtocol::Eager, &[1]);
        let client = joined(&broker);
        let mut producer = broker.producer("one");
        producer.init(NONE).unwrap();
        producer.begin().unwrap();
        producer.produce(&dead_letter(b"x")).unwrap();
        producer.send_offsets(&client.group_token().unwrap(), &[(HERE, committed(1, "cut"))]).unwrap();
        broker.inject(fault);
        assert!(matches!(producer.commit(), Err(TransactionError::Unknown(_))));
        assert!(matches!(producer.abort(), Err(TransactionError::Unknown(_))), "it is spent");
        let mut successor = broker.producer("one");
        successor.init(NONE).unwrap();
        let found = client.handle().committed(&[HERE], NONE).unwrap();
        assert_eq!(found, [is_made.then(|| committed(1, "cut"))], "{fault:?}");
        assert_eq!(broker.produced().len(), usize::from(is_made), "{fault:?}");
    }
}

#[test]
fn a_second_producer_fences_the_first_and_a_refused_commit_can_be_tried_again() {
    let broker = MemoryBroker::new(RebalanceProtocol::Eager, &[1]);
    let (mut first, mut second) = (broker.producer("one"), broker.producer("one"));
    first.init(NONE).unwrap();
    first.begin().unwrap();
    broker.inject(Fault::Refused);
    assert!(matches!(first.commit(), Err(TransactionError::Abort(_))));
    first.abort().unwrap();
    first.begin().unwrap();
    second.init(NONE).unwrap();
    assert!(matches!(first.commit(), Err(TransactionError::Fenced { by: FencedBy::Producer, .. })));
    second.begin().unwrap();
    second.commit().unwrap();
}

#[test]
fn a_paused_partition_yields_nothing_until_resumed_or_reassigned() {
    let broker = MemoryBroker::new(RebalanceProtocol::Eager, &[2]);
    let other = TopicPartition { partition: Partition(1), ..HERE };
    let mut client = joined(&broker);
    client.pause(&[HERE]).unwrap();
    let append = |n: u8| [HERE, other].iter().for_each(|at| _ = broker.append(*at, None, Some(&[n]), 0));
    let seen = |client: &mut MemoryClient| -> Vec<(TopicPartition, usize)> {
        let batch = |polled: Polled<super::super::MemoryBatch>| match polled {
            Polled::Records(at, batch) => Some((at, batch.len())),
            _ => None,
        };
        client.poll(NONE).into_iter().filter_map(batch).collect()
    };
    append(1);
    assert_eq!(seen(&mut client), [(other, 1)]);
    client.resume(&[HERE]).unwrap();
    assert_eq!(seen(&mut client), [(HERE, 1)]);
    client.pause(&[HERE, other]).unwrap();
    append(2);
    client.assign(&[(HERE, Start::Offset(1)), (other, Start::Offset(2))]).unwrap();
    assert_eq!(seen(&mut client), [(HERE, 1)], "an assignment ends the pause");
    client.unassign(&[]).unwrap();
    assert!(client.pause(&[HERE]).is_err(), "not read");
}

#[test]
fn starts_are_resolved_to_numbers_and_headers_kept() {
    let broker = MemoryBroker::new(RebalanceProtocol::Eager, &[1]);
    let header = crate::bus::Header { name: "h".into(), value: Some(b"v") };
    broker.append_with_headers(HERE, None, None, 10, std::slice::from_ref(&header));
    broker.append(HERE, None, None, 20);
    let mut client = joined(&broker);
    let starts = [Start::Earliest, Start::Latest, Start::At(15), Start::At(99), Start::Offset(1)];
    let asked = starts.map(|start| (HERE, start));
    assert_eq!(client.handle().offsets(&asked, NONE), Ok(vec![0, 2, 1, 2, 1]));
    let polled = client.poll(NONE);
    let Polled::Records(_, batch) = &polled[0] else { panic!("{polled:?}") };
    assert_eq!((batch.headers(0), batch.stamp(1).time), (vec![header], Some(20)));
}
