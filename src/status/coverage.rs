//! Whether a consumer group covers its topics: every partition belongs to one member, and the partition count is the
//! same as when this replica started. Pure.
//!
//! A stable group can have partitions without an owner: a static member that restarts within its session gets back the
//! assignment of its predecessor, whatever topics it subscribes to now, and the broker sees no reason to rebalance.

use std::collections::{BTreeMap, BTreeSet};

/// A member of a group with its assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Instance id or client id, and host.
    pub name: String,
    /// Assigned topics and partitions.
    pub assigned: BTreeSet<(String, i32)>,
}

/// Topics and group at one moment.
#[derive(Debug, Clone)]
pub struct GroupView<'a> {
    /// The topics that the group reads.
    pub topics: &'a [String],
    /// The current partition count of each; `None` for a topic that does not exist.
    pub counts: &'a [Option<u32>],
    /// The partition count of each when this replica started.
    pub expected: u32,
    /// The members; `None` during a rebalance, or if the brokers do not report them.
    pub members: Option<&'a [GroupMember]>,
}

/// Faults in the coverage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Descriptions with the remedy.
    pub reasons: Vec<String>,
    /// Whether partitions have no owner, which a rebalance fixes.
    pub is_unowned: bool,
}

/// The owner of each partition of a topic.
#[must_use]
pub fn owners(topic: &str, members: &[GroupMember]) -> BTreeMap<i32, String> {
    let of = |member: &'_ GroupMember| {
        let assigned = member.assigned.iter().filter(|(of, _)| of == topic);
        assigned.map(|(_, partition)| (*partition, member.name.clone())).collect::<Vec<_>>()
    };
    members.iter().flat_map(of).collect()
}

/// The faults of a view.
#[must_use]
pub fn faults(view: &GroupView<'_>) -> Faults {
    let mut faults = Faults::default();
    faults.reasons.extend(changed(view));
    let Some(members) = view.members else { return faults };
    let (mut unowned, mut divided) = (Vec::new(), Vec::new());
    for partition in 0..i32::try_from(view.expected).unwrap_or(i32::MAX) {
        let is_there = |count: &Option<u32>| count.is_some_and(|count| i64::from(partition) < i64::from(count));
        if !view.counts.iter().all(is_there) {
            continue; // a missing topic, or one that lost partitions, is reported already
        }
        let owner =
            |topic: &String| members.iter().find(|member| member.assigned.contains(&(topic.clone(), partition)));
        let owners: Vec<_> = view.topics.iter().map(owner).collect();
        if owners.iter().any(Option::is_none) {
            unowned.push(partition);
        } else if owners.windows(2).any(|pair| pair[0] != pair[1]) {
            divided.push(partition);
        }
    }
    if !unowned.is_empty() {
        faults.is_unowned = true;
        faults.reasons.push(format!(
            "{} belong(s) to no replica: the group has {} member(s), and none has {} of {}. Replicas that see this \
             leave the group and join it again; if this persists, check that every member of the group is a replica \
             with the same [sources] (kafka-consumer-groups.sh --describe --members --verbose)",
            named(&unowned),
            members.len(),
            if unowned.len() == 1 { "it" } else { "them" },
            all(view.topics),
        ));
    }
    if !divided.is_empty() {
        faults.reasons.push(format!(
            "{} of {} belong(s) to different members of the group, so no replica processes it: {}. Make sure that every \
             member of the group is a replica with the same [sources], and that no other program uses kafka.group_id",
            named(&divided),
            all(view.topics),
            members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", "),
        ));
    }
    faults
}

/// Reports changed partition counts. Missing topics are reported elsewhere.
fn changed(view: &GroupView<'_>) -> Option<String> {
    let counts = || view.topics.iter().zip(view.counts).filter_map(|(topic, count)| Some((topic, (*count)?)));
    let first = counts().next()?.1;
    let changed: Vec<_> = counts().filter(|(_, count)| *count != view.expected).collect();
    if changed.is_empty() {
        return None;
    }
    let now: Vec<_> = changed.iter().map(|(topic, count)| format!("topic {topic} has {count}")).collect();
    let equal = if counts().all(|(_, count)| count == first) {
        ""
    } else {
        "Give all source topics equally many partitions, and rebuild"
    };
    let rebuild = if equal.is_empty() { "Rebuild" } else { equal };
    Some(format!(
        "the number of partitions has changed: {}, and this replica started with {}. Customers have moved between \
         partitions, so figures are wrong from then on, and added partitions are not processed. {rebuild} the state under \
         a new kafka.group_id from topics that hold the whole history, or with `retentiond bootstrap` from a history export",
        now.join(", "),
        view.expected,
    ))
}

/// `partition 3`, `partitions 0 to 3`, or `partitions 0, 2 and 5 more`.
fn named(partitions: &[i32]) -> String {
    const NAMED: usize = 5;
    match partitions {
        [one] => format!("partition {one}"),
        [first, .., last] if usize::try_from(last - first + 1) == Ok(partitions.len()) => {
            format!("partitions {first} to {last}")
        }
        _ => {
            let shown: Vec<_> = partitions.iter().take(NAMED).map(i32::to_string).collect();
            let more = partitions.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("partitions {}{more}", shown.join(", "))
        }
    }
}

fn all(topics: &[String]) -> String {
    topics.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, assigned: &[(&str, i32)]) -> GroupMember {
        let assigned = assigned.iter().map(|(topic, partition)| ((*topic).to_owned(), *partition)).collect();
        GroupMember { name: name.to_owned(), assigned }
    }

    fn found(counts: &[Option<u32>], members: Option<&[GroupMember]>) -> Faults {
        let topics = ["orders".to_owned(), "sessions".to_owned()];
        faults(&GroupView { topics: &topics, counts, expected: 2, members })
    }

    const FULL: [Option<u32>; 2] = [Some(2); 2];

    #[test]
    fn a_group_that_owns_everything_has_no_faults() {
        let a = member("a", &[("orders", 0), ("sessions", 0)]);
        let b = member("b", &[("orders", 1), ("sessions", 1), ("another", 1)]);
        assert_eq!(owners("orders", &[a.clone(), b.clone()]), [(0, "a".to_owned()), (1, "b".to_owned())].into());
        assert_eq!(found(&FULL, Some(&[a, b, member("c", &[])])), Faults::default());
        assert_eq!(found(&FULL, None), Faults::default(), "the members are unknown");
    }

    #[test]
    fn unowned_partitions_are_named_and_request_a_rebalance() {
        let stale = found(&FULL, Some(&[member("a", &[("orders-old", 0), ("orders-old", 1)])]));
        assert!(stale.is_unowned);
        assert_eq!(stale.reasons.len(), 1);
        assert!(stale.reasons[0].starts_with("partitions 0 to 1 belong(s) to no replica"), "{stale:?}");
        assert!(stale.reasons[0].contains("1 member(s)") && stale.reasons[0].contains("orders and sessions"));
        let added = found(&FULL, Some(&[member("a", &[("orders", 0), ("orders", 1), ("sessions", 1)])]));
        assert!(added.is_unowned && added.reasons[0].starts_with("partition 0 belong"), "{added:?}");
    }

    #[test]
    fn a_partition_with_two_owners_is_named_without_a_rebalance() {
        let a = member("a at /10.0.0.1", &[("orders", 0), ("orders", 1), ("sessions", 0)]);
        let faults = found(&FULL, Some(&[a, member("b at /10.0.0.2", &[("sessions", 1)])]));
        assert!(!faults.is_unowned && faults.reasons.len() == 1, "{faults:?}");
        for part in ["partition 1 of orders and sessions", "a at /10.0.0.1, b at /10.0.0.2", "kafka.group_id"] {
            assert!(faults.reasons[0].contains(part), "{part} in {faults:?}");
        }
    }

    #[test]
    fn added_partitions_are_named_with_the_remedy() {
        let members = [member("a", &[("orders", 0), ("orders", 1), ("orders", 2), ("sessions", 0), ("sessions", 1)])];
        let one = found(&[Some(3), Some(2)], Some(&members));
        assert!(!one.is_unowned && one.reasons.len() == 1, "{one:?}");
        for part in ["topic orders has 3", "started with 2", "Give all source topics equally many", "kafka.group_id"] {
            assert!(one.reasons[0].contains(part), "{part} in {one:?}");
        }
        let both = found(&[Some(3), Some(3)], Some(&members));
        assert!(both.reasons[0].contains("topic sessions has 3") && both.reasons[0].contains("Rebuild the state"));
        assert_eq!(found(&[None, Some(2)], Some(&members)), Faults::default(), "a missing topic is reported elsewhere");
    }

    #[test]
    fn long_lists_are_abbreviated() {
        assert_eq!(named(&[1, 3, 5, 7, 9, 11, 13]), "partitions 1, 3, 5, 7, 9 and 2 more");
        assert_eq!(named(&[4, 5, 6]), "partitions 4 to 6");
    }
}
