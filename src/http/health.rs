//! Liveness and readiness of the daemon, with reasons.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::event::{Time, wall_clock};

use crate::bus::TopicPartition;
use crate::status::{PartitionState, SourceStatus, TopicLag};

/// The poll loop iterates several times per second; without an iteration for this long, it counts as hanging.
const POLL_WITHIN: Duration = Duration::from_secs(30);

/// How many topic-partitions to name that have not caught up.
const NAMED: usize = 5;

/// Whether the poll loop is alive. It keeps iterating when brokers do not answer, which is no reason to restart. Before
/// the first iteration, time counts from `started`.
///
/// # Errors
/// For how long it has been hanging.
pub fn alive(source: &SourceStatus, started: Instant, now: Instant) -> Result<(), String> {
    let silent = now.saturating_duration_since(source.last_poll.unwrap_or(started));
    if silent <= POLL_WITHIN {
        return Ok(());
    }
    let what = if source.last_poll.is_some() { "has not gone round for" } else { "has not started within" };
    Err(format!("the poll loop {what} {} s; restart this process", silent.as_secs()))
}

/// The response of `/readyz`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Readiness {
    /// Whether the figures cover the whole assignment.
    pub ready: bool,
    /// Reasons for not being ready.
    pub reasons: Vec<String>,
    /// Notes for operators that do not affect readiness.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Records not applied yet; `null` until all end offsets are known.
    pub lag_events: Option<i64>,
    /// The lag of each topic.
    pub topics: Vec<TopicLag>,
}

impl Readiness {
    /// Ready once the group has made an assignment (possibly empty), all topics exist, and everything owned has since
    /// been applied to its end. `running` is whether the poll loop still publishes its status.
    #[must_use]
    pub fn new(source: &SourceStatus, topics: &[String], running: bool, now: Instant) -> Readiness {
        let mut reasons = Vec::new();
        if !running {
            reasons.push("shutting down".to_owned());
        }
        if !source.joined {
            let last_error = source.last_error.as_deref().unwrap_or("waiting for the consumer group");
            reasons.push(format!("not joined: {last_error}"));
        }
        reasons.extend(uncovered(source));
        let counts = source.partition_counts.iter().copied().chain(std::iter::repeat(None));
        for (topic, _) in topics.iter().zip(counts).filter(|(_, count)| count.is_none()) {
            reasons.push(format!("topic {topic} is missing, or the broker has not told its partitions yet"));
        }
        let (none, poor): (Vec<_>, Vec<_>) = source.poor_topics.iter().partition(|topic| topic.is_none);
        reasons.extend(none.into_iter().map(|topic| topic.warning.clone()));
        reasons.extend(source.schemas.clone());
        reasons.extend(unfinished(source));
        reasons.extend(unrouted(source));
        reasons.extend(behind(source, topics));
        let lag_events = source.positions.values().try_fold(0, |sum, position| Some(sum + position.lag()?));
        let topics = source.topic_lags(topics, now);
        let mut notes: Vec<String> = topics.iter().filter_map(lagging).collect();
        notes.extend(poor.into_iter().map(|topic| topic.warning.clone()));
        notes.extend(stale(source, now));
        notes.extend(missing(source, wall_clock()));
        if source.webhook.as_ref().is_some_and(|webhook| webhook.read().is_disabled) {
            let gone = "the webhook answered 410 Gone, so no alert is posted until a restart; the topic keeps them";
            notes.push(gone.to_owned());
        }
        Readiness { ready: reasons.is_empty(), reasons, notes, lag_events, topics }
    }
}

/// Notes topics that are behind although they had caught up; one that never had is a reason instead.
fn lagging(topic: &TopicLag) -> Option<String> {
    let seconds = topic.lag_seconds.filter(|_| topic.lagging)?;
    let records = topic.lag_events.map_or("an unknown number of".to_owned(), |records| records.to_string());
    let name = &topic.topic;
    Some(format!("topic {name} lags: {records} record(s) behind, and last read to its end {seconds:.0} s ago"))
}

/// Faults of the group as a whole. A replica that owns nothing waits until the others are known to own everything.
fn uncovered(source: &SourceStatus) -> Vec<String> {
    let coverage = &source.coverage;
    if source.joined && source.owned.is_empty() && coverage.seen < source.rebalances {
        let why = coverage.unknown.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        return vec![format!("this replica was given no partition; asking the group who owns them{why}")];
    }
    coverage.reasons.clone()
}

/// Notes that no checkpoint has been committed for too long, and why, if known.
fn stale(source: &SourceStatus, now: Instant) -> Option<String> {
    let seconds = source.checkpoints.is_stale(now).then(|| source.checkpoints.uncommitted_for(now).as_secs())?;
    let why = source.commit_error.as_deref().unwrap_or("the log may say why");
    Some(format!(
        "no checkpoint has been committed for {seconds} s although records were applied: figures are still updated, \
         but alerts and dead letters wait, and a crash would read those records again. {why}"
    ))
}

/// The windows with figures that are not known since the configuration was changed.
fn missing(source: &SourceStatus, now: Time) -> Vec<String> {
    let mut windows = BTreeMap::<(&str, &str), Time>::new();
    for (window, why, until) in source.missing.values().flatten().filter(|(.., until)| *until > now) {
        let last = windows.entry((window, why)).or_insert(*until);
        *last = (*last).max(*until);
    }
    let note = |((window, why), until)| {
        format!(
            "window {window}: {why}, so some of its figures are absent until {until} at the latest; see `missing` in \
             /api/v1/summary, and docs/operate/upgrade.md for how to have them at once"
        )
    };
    windows.into_iter().map(note).collect()
}

/// The partitions that are not read yet.
fn unfinished(source: &SourceStatus) -> impl Iterator<Item = String> {
    source.owned.iter().filter_map(|partition| match source.states.get(partition) {
        Some(PartitionState::Running) => None,
        Some(PartitionState::Failed(why)) => Some(format!("partition {} is not processed: {why}", partition.0)),
        Some(PartitionState::Draining) => Some(format!("partition {} is being given up", partition.0)),
        Some(PartitionState::Restoring) | None => {
            Some(format!("the state of partition {} is being loaded", partition.0))
        }
    })
}

/// The sources that this replica must route but does not, or has never routed to their end.
fn unrouted(source: &SourceStatus) -> impl Iterator<Item = String> {
    source.routers.iter().filter_map(|router| {
        let router = router.read();
        match (&router.last_error, router.lag()) {
            _ if !router.is_ours => None,
            (Some(why), _) => Some(why.clone()),
            _ if router.caught_up_at.is_some() => None,
            (None, Some(lag)) => Some(format!("catching up: {lag} record(s) of {} are not routed yet", router.topic)),
            (None, None) => Some(format!("catching up: {} has not been routed yet", router.topic)),
        }
    })
}

/// The topic-partitions that have never been at their end, furthest behind first. For the target of a router, the end
/// counts only once the router has caught up.
fn behind(source: &SourceStatus, topics: &[String]) -> Vec<String> {
    let filled: Vec<_> = source.routers.iter().map(|router| router.read()).filter(|router| router.is_ours).collect();
    let filled_at = |at: &TopicPartition| filled.iter().find(|router| router.into == at.topic)?.caught_up_at;
    let positions = source.positions.iter().filter(|(at, position)| {
        position.last_at_end.is_none_or(|end| filled_at(at).is_some_and(|filled| end < filled))
    });
    let mut behind: Vec<(Option<i64>, &TopicPartition)> =
        positions.map(|(at, position)| (position.lag(), at)).collect();
    behind.sort_by_key(|&(lag, at)| (std::cmp::Reverse(lag.unwrap_or(i64::MAX)), at));
    let mut reasons: Vec<String> = behind
        .iter()
        .take(NAMED)
        .map(|&(lag, at)| {
            let topic = topics.get(usize::from(at.topic.0)).map_or("?", String::as_str);
            let partition = at.partition.0;
            match lag {
                Some(lag) => format!("catching up: {topic}/{partition} is {lag} behind"),
                None => format!("catching up: {topic}/{partition} has not been read yet"),
            }
        })
        .collect();
    if behind.len() > NAMED {
        reasons.push(format!("catching up: {} more topic-partitions are behind", behind.len() - NAMED));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bus::{Partition, TopicIndex};
    use crate::status::delivery::DeliveryStatus;
    use crate::status::routing::RoutingStatus;
    use crate::status::{PoorTopic, ReadPosition};

    fn positions(list: &[(i32, Option<i64>, Option<i64>, bool)]) -> SourceStatus {
        let positions = list.iter().map(|&(partition, applied, end, at_end)| {
            let at = TopicPartition { topic: TopicIndex(0), partition: Partition(partition) };
            (at, ReadPosition { applied, end, last_at_end: at_end.then(Instant::now) })
        });
        SourceStatus {
            joined: true,
            partition_counts: vec![Some(8)],
            positions: positions.collect(),
            ..SourceStatus::default()
        }
    }

    fn reasons(source: &SourceStatus) -> Vec<String> {
        let readiness = Readiness::new(source, &["orders".to_owned()], true, Instant::now());
        assert_eq!(readiness.ready, readiness.reasons.is_empty());
        readiness.reasons
    }

    #[test]
    fn a_poll_loop_that_hangs_is_not_alive() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let never = SourceStatus::default();
        assert_eq!(alive(&never, start, at(30)), Ok(()));
        assert!(alive(&never, start, at(31)).unwrap_err().contains("has not started within 31 s"));
        let polled = SourceStatus { last_poll: Some(at(100)), last_error: Some("broker down".into()), ..never };
        assert_eq!(alive(&polled, start, at(130)), Ok(()));
        assert!(alive(&polled, start, at(131)).unwrap_err().contains("has not gone round for 31 s"));
    }

    #[test]
    fn an_empty_assignment_is_ready() {
        assert_eq!(reasons(&positions(&[])), Vec::<String>::new());
    }

    #[test]
    fn who_owns_nothing_is_ready_only_once_others_are_known_to_own_all() {
        let mut source = SourceStatus { rebalances: 1, ..positions(&[]) };
        assert_eq!(reasons(&source), ["this replica was given no partition; asking the group who owns them"]);
        source.coverage.unknown = Some("partitions are moving between a, b".to_owned());
        let asking = "this replica was given no partition; asking the group who owns them";
        assert_eq!(reasons(&source), [format!("{asking}: partitions are moving between a, b")]);
        source.coverage.seen = 1;
        assert_eq!(reasons(&source), Vec::<String>::new(), "a spare replica");
        source.coverage.reasons.push("partitions 0 to 3 belong to no replica".to_owned());
        assert_eq!(reasons(&source), ["partitions 0 to 3 belong to no replica"]);
        source.rebalances = 2;
        source.owned = vec![Partition(0)];
        source.states = [(Partition(0), PartitionState::Running)].into();
        assert_eq!(reasons(&source).len(), 1, "until a look has found it mended");
    }

    #[test]
    fn what_was_once_at_its_end_is_ready() {
        assert_eq!(reasons(&positions(&[(0, Some(5), Some(900), true)])), Vec::<String>::new());
    }

    #[test]
    fn names_why_it_has_not_joined_and_which_topic_is_missing() {
        let mut source = SourceStatus::default();
        assert_eq!(
            reasons(&source),
            [
                "not joined: waiting for the consumer group",
                "topic orders is missing, or the broker has not told its partitions yet"
            ]
        );
        source.last_error = Some("127.0.0.1:9092 refuses connections".into());
        source.partition_counts = vec![Some(3)];
        assert_eq!(reasons(&source), ["not joined: 127.0.0.1:9092 refuses connections"]);
    }

    #[test]
    fn an_endpoint_that_is_gone_is_told_and_is_no_reason() {
        let webhook = Arc::new(DeliveryStatus::default());
        let source = SourceStatus { webhook: Some(Arc::clone(&webhook)), ..positions(&[]) };
        let notes = || Readiness::new(&source, &["orders".to_owned()], true, Instant::now()).notes;
        assert_eq!(notes(), Vec::<String>::new());
        webhook.change(|webhook| webhook.is_disabled = true);
        assert!(notes().len() == 1 && notes()[0].contains("410"), "{:?}", notes());
        assert_eq!(reasons(&source), Vec::<String>::new());
    }

    #[test]
    fn a_topic_that_lags_is_noted_with_its_name_and_how_far_it_is_behind() {
        let mut source = positions(&[(0, Some(100), Some(100), true), (1, Some(70), Some(100), true)]);
        let sessions = |partition| TopicPartition { topic: TopicIndex(1), partition: Partition(partition) };
        let position = |applied, end| ReadPosition { applied, end, last_at_end: Some(Instant::now()) };
        source.positions.insert(sessions(0), position(Some(0), Some(15_800)));
        source.positions.insert(sessions(1), position(Some(2), Some(40)));
        let (topics, start) = (["orders".to_owned(), "sessions".to_owned()], Instant::now());
        let after = |seconds| Readiness::new(&source, &topics, true, start + Duration::from_secs(seconds));
        assert_eq!(after(5).notes, Vec::<String>::new(), "records may be under way for some seconds");
        let late = after(60);
        assert!(!late.reasons.iter().any(|reason| reason.contains("lag")), "{late:?}");
        assert_eq!(late.lag_events, Some(15_868));
        assert_eq!(
            late.notes,
            [
                "topic orders lags: 30 record(s) behind, and last read to its end 60 s ago",
                "topic sessions lags: 15838 record(s) behind, and last read to its end 60 s ago"
            ]
        );
        assert!(late.topics.iter().all(|topic| topic.lagging) && late.topics[1].topic == "sessions", "{late:?}");
        source.positions.insert(sessions(0), position(Some(15_800), Some(15_800)));
        source.positions.insert(sessions(1), position(Some(40), Some(40)));
        let one = Readiness::new(&source, &topics, true, start + Duration::from_secs(60));
        assert_eq!((one.topics[1].lagging, one.topics[1].lag_events), (false, Some(0)));
        assert_eq!(one.notes.len(), 1, "{one:?}");
    }

    #[test]
    fn a_topic_of_no_use_is_noted_and_is_a_reason_once_nothing_of_it_was_ever_used() {
        let poor = PoorTopic { topic: "orders".into(), warning: "3 of 3 messages".into(), is_none: false };
        let mut source = SourceStatus { poor_topics: vec![poor], ..positions(&[]) };
        let readiness = Readiness::new(&source, &["orders".to_owned()], true, Instant::now());
        assert_eq!((readiness.ready, readiness.notes), (true, vec!["3 of 3 messages".to_owned()]));
        source.poor_topics[0].is_none = true;
        assert_eq!(reasons(&source), ["3 of 3 messages"]);
    }

    #[test]
    fn checkpoints_that_are_not_committed_for_too_long_are_noted_with_the_reason() {
        let mut source = positions(&[(0, Some(5), Some(5), true)]);
        let start = Instant::now();
        let notes = |source: &SourceStatus, seconds| {
            Readiness::new(source, &["orders".to_owned()], true, start + Duration::from_secs(seconds)).notes
        };
        source.checkpoints.stale_after = Some(Duration::from_secs(100));
        assert_eq!(notes(&source, 1_000), Vec::<String>::new(), "there is nothing to commit");
        source.checkpoints.uncommitted_since = Some(start);
        source.commit_error = Some("cannot produce to topic \"dead\": gone".to_owned());
        assert_eq!(notes(&source, 100), Vec::<String>::new());
        let stale = notes(&source, 101);
        assert!(
            stale.len() == 1 && stale[0].contains("for 101 s") && stale[0].ends_with("\"dead\": gone"),
            "{stale:?}"
        );
    }

    #[test]
    fn a_window_of_which_something_is_missing_is_told_until_it_is_not() {
        let soon = wall_clock().plus(60_000);
        let why = "active_for was changed";
        let windows = |until: Time| vec![("30d".to_owned(), why, until)];
        let missing =
            [(Partition(0), windows(soon)), (Partition(1), windows(soon.plus(1))), (Partition(2), windows(Time::MIN))];
        let source = SourceStatus { missing: missing.into(), ..positions(&[]) };
        let readiness = Readiness::new(&source, &["orders".to_owned()], true, Instant::now());
        assert!(readiness.ready && readiness.notes.len() == 1, "{readiness:?}");
        assert!(readiness.notes[0].contains(&format!("30d: {why}")), "{readiness:?}");
        assert!(readiness.notes[0].contains(&soon.plus(1).to_string()), "{readiness:?}");
        let source = SourceStatus { missing: [(Partition(0), windows(Time::MIN))].into(), ..positions(&[]) };
        assert_eq!(Readiness::new(&source, &["orders".to_owned()], true, Instant::now()).notes, Vec::<String>::new());
    }

    #[test]
    fn names_those_furthest_behind() {
        let source =
            positions(&[(3, Some(5), Some(12_350), false), (4, None, Some(7), false), (5, Some(1), None, true)]);
        assert_eq!(
            reasons(&source),
            ["catching up: orders/4 has not been read yet", "catching up: orders/3 is 12345 behind"]
        );
        let many: Vec<_> = (0..8).map(|partition| (partition, Some(0), Some(10), false)).collect();
        let reasons = reasons(&positions(&many));
        assert_eq!(reasons.len(), NAMED + 1);
        assert_eq!(reasons[NAMED], "catching up: 3 more topic-partitions are behind");
    }

    #[test]
    fn a_replica_that_routes_is_ready_once_routed_events_are_applied() {
        let router = Arc::new(RoutingStatus::new("shop".into(), TopicIndex(0)));
        let mut source = positions(&[(0, Some(0), Some(0), true)]);
        source.routers.push(Arc::clone(&router));
        assert_eq!(reasons(&source), Vec::<String>::new(), "another replica routes");
        router.change(|router| router.is_ours = true);
        let position = ReadPosition { applied: Some(2), end: Some(9), last_at_end: None };
        router.change(|router| _ = router.positions.insert(Partition(0), position));
        assert_eq!(reasons(&source), ["catching up: 7 record(s) of shop are not routed yet"]);
        // The topic was at its end before anything was routed to it.
        router.change(|router| router.caught_up_at = Some(Instant::now()));
        assert_eq!(reasons(&source), ["catching up: orders/0 is 0 behind"]);
        let at = *source.positions.keys().next().unwrap();
        source.positions.get_mut(&at).unwrap().last_at_end = Some(Instant::now());
        assert_eq!(reasons(&source), Vec::<String>::new());
        router.change(|router| router.last_error = Some("no offsets".into()));
        assert_eq!(reasons(&source), ["no offsets"]);
    }

    #[test]
    fn is_not_ready_once_the_poll_loop_has_ended() {
        let readiness = Readiness::new(&positions(&[]), &["orders".to_owned()], false, Instant::now());
        assert_eq!((readiness.ready, readiness.reasons), (false, vec!["shutting down".to_owned()]));
    }
}
