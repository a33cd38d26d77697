//! A log that cannot be read stops its partition and no other.

use super::*;

#[test]
fn a_damaged_log_stops_its_partition_alone() {
    let world = CoordinatorRig::new(RebalanceProtocol::Eager, &[2, 2], Delivery::ExactlyOnce);
    let at = |partition| TopicPartition { topic: TopicIndex(0), partition: Partition(partition) };
    let mut member = Member::join(&world, 0, 1);
    let deadline = Instant::now() + Duration::from_secs(20);
    let publish = |partition, id| {
        world.broker.append(at(partition), None, Some(order("c", LAST, id, 100).as_bytes()), 0);
    };
    let until = |member: &mut Member, partition, offset| {
        while world.broker.committed(at(partition)) != Some(offset) {
            assert!(Instant::now() < deadline, "offset {offset} of partition {partition} is never committed");
            member.round();
        }
    };
    [0, 1].into_iter().for_each(|partition| publish(partition, 1));
    [0, 1].into_iter().for_each(|partition| until(&mut member, partition, 1));

    // The other topic of the partition stops with it.
    let sessions = TopicPartition { topic: TopicIndex(1), partition: Partition(0) };
    world.broker.damage(member.id, sessions, "topic \"sessions\" partition 0: a record at or after offset 7");
    member.round();
    [0, 1].into_iter().for_each(|partition| publish(partition, 2));
    until(&mut member, 1, 2);
    assert_eq!(world.broker.committed(at(0)), Some(1), "nothing of it is applied");
    member.coordinator.publish();
    let states = member.coordinator.reporting.status.borrow().states.clone();
    assert_eq!(states[&Partition(1)], PartitionState::Running);
    let PartitionState::Failed(why) = &states[&Partition(0)] else { panic!("{states:?}") };
    assert!(why.contains("cannot be read") && why.contains("`retentiond bootstrap`"), "{why}");
    member.leave();
}
