//! Checks topics and group from outside: after each rebalance, every minute, and every few seconds while something is
//! wrong. It has its own thread, because its requests wait for brokers.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::debug;

use crate::bus::SourceError;
use crate::kafka::{GroupState, KafkaAdmin, KafkaSettings, partition_counts};
use crate::status::SourceStatus;
use crate::status::coverage::{self, Faults, GroupView};

/// Interval of checks.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Interval while something is wrong or the group rebalances.
const LOOK_SOON: Duration = Duration::from_secs(3);
/// Timeout of a request.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How often to check for a rebalance.
const STEP: Duration = Duration::from_millis(200);
/// Pause after a rejoin before the next one; it doubles each time, up to the maximum.
const REJOIN_AGAIN: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(600)];

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// Number of rebalances of this replica before the check.
    pub rebalances: u64,
    /// Number of partitions of each topic; `None` if the brokers did not answer.
    pub counts: Option<Vec<Option<u32>>>,
    /// Whether the members of the group are known and partitions are settled.
    pub members: Members,
    /// What is wrong.
    pub reasons: Vec<String>,
    /// The owner of each partition, as far as known.
    pub owners: BTreeMap<i32, String>,
    /// Whether to leave and rejoin the group.
    pub rejoin: bool,
}

/// The state of the group's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Members {
    /// The group is stable.
    Settled,
    /// The group rebalances, so partitions that this replica does not own may have no owner.
    Moving(String),
    /// The group coordinator did not answer.
    Unknown(String),
}

impl Members {
    fn of(group: &Result<GroupState, SourceError>) -> Members {
        match group {
            Ok(group) if group.is_stable() => Members::Settled,
            Ok(group) if group.members.is_empty() => {
                Members::Moving(format!("the coordinator knows no member of the group ({})", group.state))
            }
            Ok(group) => Members::Moving(format!("partitions are moving between {}", group.names())),
            Err(error) => Members::Unknown(error.to_string()),
        }
    }
}

/// Starts the thread; it ends with `stop`, or when the findings have no receiver any more.
///
/// # Errors
/// If the operating system cannot start a thread.
pub fn start(
    kafka: KafkaSettings,
    expected: u32,
    status: watch::Receiver<SourceStatus>,
    tell: Sender<Findings>,
    stop: Receiver<()>,
) -> Result<(), SourceError> {
    let mut watch = Watch { kafka, expected, admin: None, patience: Patience::default() };
    let run = move || watch.run(&status, &tell, &stop);
    let thread = std::thread::Builder::new().name("watch".into()).spawn(run);
    thread.map(drop).map_err(|error| SourceError::Unavailable(format!("no thread to watch the group: {error}")))
}

struct Watch {
    kafka: KafkaSettings,
    expected: u32,
    admin: Option<KafkaAdmin>,
    patience: Patience,
}

impl Watch {
    fn run(&mut self, status: &watch::Receiver<SourceStatus>, tell: &Sender<Findings>, stop: &Receiver<()>) {
        let (mut last, mut due) = (0, Instant::now());
        while stop.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
            let rebalances = {
                let status = status.borrow();
                if status.joined { status.rebalances } else { 0 }
            };
            if rebalances == 0 || (rebalances == last && Instant::now() < due) {
                continue;
            }
            last = rebalances;
            let (looked, is_settled) = self.look(rebalances);
            due = Instant::now() + if is_settled { LOOK_EVERY } else { LOOK_SOON };
            if tell.send(looked).is_err() {
                return;
            }
        }
    }

    /// Runs a check; also returns whether everything is in order, so that the next check can wait.
    fn look(&mut self, rebalances: u64) -> (Findings, bool) {
        let counts = partition_counts(&self.kafka, ANSWER_WAIT);
        let group = self.describe();
        if let Err(error) = counts.as_ref().map(drop).and(group.as_ref().map(drop)) {
            debug!("the group is not looked at: {error}");
        }
        let state = Members::of(&group);
        let members = group.as_ref().ok().filter(|group| group.is_stable()).map(|group| group.members.as_slice());
        let (topics, expected) = (self.kafka.topics.as_slice(), self.expected);
        let unknown = vec![Some(expected); topics.len()];
        let known = counts.as_deref().unwrap_or(&unknown);
        let Faults { reasons, is_unowned } = coverage::faults(&GroupView { topics, counts: known, expected, members });
        let owners = members.zip(topics.first()).map(|(members, topic)| coverage::owners(topic, members));
        let owners = owners.unwrap_or_default();
        let rejoin = self.patience.is_over(is_unowned, Instant::now());
        let is_settled = reasons.is_empty() && state == Members::Settled;
        (Findings { rebalances, counts: counts.ok(), members: state, reasons, owners, rejoin }, is_settled)
    }

    fn describe(&mut self) -> Result<GroupState, SourceError> {
        let admin = match self.admin.take() {
            Some(admin) => admin,
            None => KafkaAdmin::new(&self.kafka)?,
        };
        let state = admin.describe_group(ANSWER_WAIT);
        self.admin = Some(admin);
        state
    }
}

/// Decides when to rejoin a group in which partitions have no owner: after two checks in a row, and then with growing
/// pauses, because it costs every replica a rebalance.
#[derive(Debug, Default)]
struct Patience {
    is_suspicious: bool,
    /// Earliest time of the next rejoin, and the current pause.
    pause: Option<(Instant, Duration)>,
}

impl Patience {
    fn is_over(&mut self, is_unowned: bool, now: Instant) -> bool {
        let was_suspicious = std::mem::replace(&mut self.is_suspicious, is_unowned);
        if !is_unowned || !was_suspicious || self.pause.is_some_and(|(until, _)| now < until) {
            return false;
        }
        let [first, most] = REJOIN_AGAIN;
        let wait = self.pause.map_or(first, |(_, wait)| (wait * 2).min(most));
        self.pause = Some((now + wait, wait));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::status::coverage::GroupMember;

    #[test]
    fn only_a_stable_group_is_settled() {
        let member = GroupMember { name: "a at /10.0.0.1".to_owned(), assigned: BTreeSet::new() };
        let of = |state: &str, members: &[GroupMember]| {
            Members::of(&Ok(GroupState { state: state.to_owned(), members: members.to_vec() }))
        };
        assert_eq!(of("Stable", std::slice::from_ref(&member)), Members::Settled);
        // librdkafka has no names for "Assigning" and "Reconciling", states of the newer group protocol.
        for state in ["Unknown", "PreparingRebalance", "CompletingRebalance"] {
            let moving = Members::Moving("partitions are moving between a at /10.0.0.1".to_owned());
            assert_eq!(of(state, std::slice::from_ref(&member)), moving, "{state}");
        }
        let nobody = Members::Moving("the coordinator knows no member of the group (Dead)".to_owned());
        assert_eq!(of("Dead", &[]), nobody);
        let refused = Members::of(&Err(SourceError::Unavailable("refused".to_owned())));
        assert_eq!(refused, Members::Unknown("refused".to_owned()));
    }

    #[test]
    fn a_group_is_joined_anew_at_the_second_look_and_then_ever_more_rarely() {
        let (mut patience, start) = (Patience::default(), Instant::now());
        let mut at = |seconds, is_unowned| patience.is_over(is_unowned, start + Duration::from_secs(seconds));
        assert!(!at(0, true), "it may be over in a moment");
        assert!(at(3, true));
        assert!(!at(6, true) && !at(32, true));
        assert!(at(33, true), "after 30 s");
        assert!(!at(92, true) && at(93, true), "after 60 s");
        assert!(!at(3_000, false) && !at(4_000, true), "mended, and again");
        assert!(at(4_003, true));
    }
}
