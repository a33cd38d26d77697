//! Committed state survives kills, stops, and a store that rejects writes for a while.

use std::collections::BTreeMap;
use std::fs;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retentiond::event::{DAY, Time};
use serde_json::Value;

use super::common::{PATIENCE, Rig, assert_equals_replay, metrics, summary};
use super::figures::{KNOWN, assert_adds_up, wait_for_share};
use crate::support::daemon::{Daemon, Launch};
use crate::support::effort::effort;
use crate::support::history;
use crate::support::kafka::{self, Broker};
use crate::support::{cli, log, scratch, wait_for};

pub const PARTITIONS: i32 = 4;
/// After every other event.
pub const LAST: &str = "1998-07-03T00:00:00.000Z";
/// Approximate number of portions published between two kills.
const PORTIONS: usize = 20;

/// A message to publish: partition (unless the key decides), key, payload.
pub type Line = (Option<i32>, String, String);

/// Position of a message: topic, partition, offset.
type Place = (String, i32, i64);

pub fn native(messages: Vec<log::Message>) -> Vec<Line> {
    messages.into_iter().map(|message| (None, message.key, message.payload.expect("an order"))).collect()
}

/// An order of a separate customer in each partition, so that all partitions end at the same time.
pub fn last_orders() -> Vec<Line> {
    let order = |partition| {
        let customer = format!("last-{partition}");
        let order = format!(
            r#"{{"type":"order","order_id":"{customer}","customer_id":"{customer}","time":"{LAST}","amount":"1.00","currency":"USD"}}"#
        );
        (Some(partition), customer, order)
    };
    (0..PARTITIONS).map(order).collect()
}

/// Visits on the days before the sales, three in ten reported twice, in time order.
pub fn sessions(sales: &[history::Sale]) -> Vec<Line> {
    let mut chance = ChaCha8Rng::seed_from_u64(11);
    let mut sessions = Vec::new();
    for (number, sale) in sales.iter().enumerate().filter(|(number, _)| number % 2 == 0) {
        let day = Time::parse(&sale.time()).expect("a day").millis();
        let at = Time::clamped(day - chance.random_range(0..DAY));
        let customer = &sale.customer;
        let session =
            format!(r#"{{"type":"session","session_id":"s-{number}","customer_id":"{customer}","time":"{at}"}}"#);
        let copies = if chance.random_bool(0.3) { 2 } else { 1 };
        sessions.extend((0..copies).map(|_| (at.millis(), (None, customer.clone(), session.clone()))));
    }
    sessions.sort_by_key(|(at, _)| *at);
    sessions.into_iter().map(|(_, line)| line).collect()
}

pub fn publish(broker: &Broker, topic: &str, lines: &[Line]) {
    let messages = lines.iter().map(|(partition, key, payload)| (*partition, Some(key), Some(payload)));
    assert_eq!(broker.publish(topic, messages), lines.len() as u64);
}

/// The result of `replay` for these events.
pub fn replay(lines: &[&[Line]], as_of: &str) -> Value {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let text: String = lines.iter().copied().flatten().map(|(.., payload)| format!("{payload}\n")).collect();
    let events = history::write(dir.path(), "events.ndjson", text);
    let config = history::write(dir.path(), "replay.toml", KNOWN);
    cli::replay_as_daemon(&[&events], Some(&config), as_of)
}

/// A replica that stays exact whatever happens.
pub fn launch(rig: &Rig, instance: &str) -> Launch {
    rig.launch(instance).env("RETENTIOND__KAFKA__DELIVERY", "exactly_once")
}

/// The committed offsets of the group, by partition.
pub fn next(broker: &Broker, rig: &Rig) -> BTreeMap<i32, i64> {
    let committed = broker.committed(&rig.group, &rig.orders);
    committed.into_iter().map(|(partition, committed)| (partition, committed.offset)).collect()
}

/// Orders and sessions to publish, with broken messages in between.
pub struct Load<'a> {
    pub broker: &'a Broker,
    pub rig: &'a Rig,
    pub orders: &'a [Line],
    pub sessions: &'a [Line],
    /// The number of each per portion.
    pub sizes: [usize; 2],
    pub portions: usize,
}

impl<'a> Load<'a> {
    /// The same load after this many portions are published.
    pub fn behind(self, portions: usize) -> Self {
        let rest = |lines: &'a [Line], size: usize| &lines[(portions * size).min(lines.len())..];
        Load {
            orders: rest(self.orders, self.sizes[0]),
            sessions: rest(self.sessions, self.sizes[1]),
            portions,
            ..self
        }
    }

    /// Publishes a portion, and one broken message per partition, so that every partition has new records.
    pub fn publish_some(&mut self) {
        let take = |lines: &mut &[Line], size: usize| lines.split_off(..size.min(lines.len())).unwrap().to_vec();
        let mut orders = take(&mut self.orders, self.sizes[0]);
        let mut sessions = take(&mut self.sessions, self.sizes[1]);
        let number = self.portions;
        let broken = |partition| (Some(partition), format!("broken-{partition}"), format!("{{broken {number}"));
        let place = number % (orders.len() + 1);
        orders.splice(place..place, (0..PARTITIONS).map(broken));
        sessions.push(broken(i32::try_from(number).unwrap() % PARTITIONS));
        publish(self.broker, &self.rig.orders, &orders);
        publish(self.broker, &self.rig.sessions, &sessions);
        self.portions += 1;
    }

    /// Publishes until this many partitions have commits beyond these.
    pub fn until_committed_beyond(&mut self, daemon: &mut Daemon, before: &BTreeMap<i32, i64>, partitions: usize) {
        wait_for(&format!("commits in {partitions} partitions beyond {before:?}"), PATIENCE, || {
            let ends = || [&self.rig.orders, &self.rig.sessions].map(|topic| self.broker.end_offsets(topic));
            if !daemon.runs() {
                std::fs::write("/tmp/kipdaemon.log", daemon.stderr()).unwrap();
                panic!("ends {:?}", ends());
            }
            self.publish_some();
            let now = next(self.broker, self.rig);
            let advanced = now.iter().filter(|(partition, next)| *next > before.get(partition).unwrap_or(&0));
            (advanced.count() >= partitions).then_some(())
        });
    }

    /// Publishes until each replica owns this many partitions, caught up or not.
    pub fn until_shared(&mut self, replicas: &mut [Daemon], share: i64) {
        wait_for(&format!("{share} partitions for each replica"), PATIENCE, || {
            self.publish_some();
            replicas.iter().all(|replica| summary(replica)["partitions_assigned"] == share).then_some(())
        });
    }
}

/// Panics unless each broken message has exactly one dead letter, and no other message has one.
pub fn assert_dead_letters(broker: &Broker, rig: &Rig) -> usize {
    let mut broken: BTreeMap<Place, Vec<u8>> = BTreeMap::new();
    for topic in [&rig.orders, &rig.sessions] {
        let records = broker.consume_all(topic).into_iter();
        let records = records.map(|record| ((topic.clone(), record.partition, record.offset), record.payload.unwrap()));
        broken.extend(records.filter(|(_, payload)| payload.starts_with(b"{broken")));
    }
    let mut dead_letters: BTreeMap<Place, Vec<(i32, i64)>> = BTreeMap::new();
    for dead_letter in broker.consume_all(&rig.dead_letters) {
        let header = |name: &str| dead_letter.header(&format!("retentiond.error.{name}")).unwrap();
        let place = (header("topic"), header("partition").parse().unwrap(), header("offset").parse().unwrap());
        assert_eq!(dead_letter.payload.as_ref(), broken.get(&place), "the dead letter of {place:?}");
        dead_letters.entry(place).or_default().push((dead_letter.partition, dead_letter.offset));
    }
    let missing: Vec<_> = broken.keys().filter(|place| !dead_letters.contains_key(place)).collect();
    let repeated: Vec<_> = dead_letters.iter().filter(|(_, found)| found.len() > 1).collect();
    assert!(
        missing.is_empty() && repeated.is_empty(),
        "of {} broken messages {} have no dead letter: {missing:?}; {} have several: {repeated:?}",
        broken.len(),
        missing.len(),
        repeated.len()
    );
    broken.len()
}

#[test]
fn kill9_loses_and_repeats_nothing() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let kills = effort().kills;
    let rig = Rig { commit_every: "200ms", more: KNOWN, ..Rig::new(broker) };
    rig.create_topics(broker, PARTITIONS);
    broker.create_topic(&rig.dead_letters, 2);
    let sales = history::cdnow_master();
    let (orders, sessions) = (native(history::disorder(&sales, 0)), sessions(&sales));
    let sizes = [&orders, &sessions].map(|lines| lines.len().div_ceil((kills + 1) * PORTIONS));
    let mut load = Load { broker, rig: &rig, orders: &orders, sessions: &sessions, sizes, portions: 0 };
    let mut chance = ChaCha8Rng::seed_from_u64(5);

    let launches = ["one", "other"].map(|instance| launch(&rig, instance));
    let mut replicas = launches.each_ref().map(Launch::start);
    let mut since = [BTreeMap::new(), BTreeMap::new()];
    // Kept for their logs, in case the test fails.
    let mut dead = Vec::new();
    for kill in 0..kills {
        let victim = kill % 2;
        // Waiting for all partitions includes the victim's; waiting for one may end while the other replica is still
        // starting.
        let partitions = if kill % 3 == 2 { 1 } else { PARTITIONS as usize };
        load.until_committed_beyond(&mut replicas[victim], &since[victim], partitions);
        // A commit has just ended: the kill comes at any time up to the one after the next.
        (0..chance.random_range(0..8)).for_each(|_| load.publish_some());
        replicas[victim].kill9();
        since[victim] = next(broker, &rig);
        if kill % 5 == 4 {
            // It stays down until the other replica has taken its partitions over, and must give them back.
            load.until_committed_beyond(&mut replicas[1 - victim], &since[victim], PARTITIONS as usize);
            since[victim] = next(broker, &rig);
        }
        dead.push(std::mem::replace(&mut replicas[victim], launches[victim].start()));
    }
    let Load { orders: orders_left, sessions: sessions_left, portions, .. } = load;
    publish(broker, &rig.orders, orders_left);
    publish(broker, &rig.sessions, sessions_left);
    let last = last_orders();
    publish(broker, &rig.orders, &last);

    let share = i64::from(PARTITIONS) / 2;
    replicas.iter_mut().for_each(|replica| wait_for_share(replica, share));
    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
    let whole = replay(&[&orders, &sessions, &last], LAST);
    let parts = replicas.each_ref().map(summary);
    assert!(parts.iter().all(|part| part["as_of"] == LAST), "{} and {}", parts[0]["as_of"], parts[1]["as_of"]);
    assert_adds_up(&parts, &whole);
    let dead_letters = assert_dead_letters(broker, &rig);
    assert_eq!(dead_letters, portions * (PARTITIONS as usize + 1), "after {kills} kills");

    // The commit of one replica is all that the other needs.
    let [mut heir, mut last_victim] = replicas;
    last_victim.kill9();
    wait_for_share(&mut heir, i64::from(PARTITIONS));
    assert_equals_replay(&summary(&heir), &whole);
    assert_eq!(assert_dead_letters(broker, &rig), dead_letters);
}

#[test]
fn a_restart_goes_on_from_the_checkpoint() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig { commit_every: "200ms", more: KNOWN, ..Rig::new(broker) };
    rig.create_topics(broker, PARTITIONS);
    let orders = native(history::disorder(&history::cdnow_sample(), 0));
    let (before, after) = orders.split_at(orders.len() / 2);
    let last = last_orders();
    let launch = launch(&rig, "only");

    publish(broker, &rig.orders, before);
    let mut daemon = launch.start();
    daemon.wait_ready(PATIENCE);
    let first = summary(&daemon);
    assert_equals_replay(&first, &replay(&[before], first["as_of"].as_str().expect("there were events")));
    daemon.terminate();
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0), "{}", daemon.stderr());
    assert!(rig.all_committed(broker));

    // There is nothing left to read.
    for (partition, next) in next(broker, &rig) {
        broker.delete_records_before(&rig.orders, partition, next);
    }
    publish(broker, &rig.orders, after);
    publish(broker, &rig.orders, &last);
    let mut daemon = launch.start();
    daemon.wait_ready(PATIENCE);
    let second = summary(&daemon);
    assert_eq!(second["as_of"], LAST);
    assert_equals_replay(&second, &replay(&[&orders, &last], LAST));
    let events = format!("retentiond_events_total{{topic=\"{}\",type=\"order\"}}", rig.orders);
    assert_eq!(metrics(&daemon).get(&events), Some((after.len() + last.len()) as f64));
    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
}

#[test]
fn a_store_that_takes_nothing_holds_commits_but_not_figures() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig { commit_every: "200ms", more: KNOWN, ..Rig::new(broker) };
    rig.create_topics(broker, PARTITIONS);
    let orders = native(history::disorder(&history::cdnow_sample(), 0));
    let (before, after) = orders.split_at(orders.len() / 2);
    let last = last_orders();
    let store = tempfile::tempdir_in(scratch()).unwrap();
    let url = format!("file://{}", store.path().display());
    let launch = launch(&rig, "only").env("RETENTIOND__CHECKPOINT__URL", &url);

    publish(broker, &rig.orders, before);
    let mut daemon = launch.start();
    daemon.wait_ready(PATIENCE);
    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
    let committed = next(broker, &rig);

    // A file in place of the group's directory stops even root, who ignores permissions.
    let (group, away) = (store.path().join(&rig.group), store.path().join("away"));
    fs::rename(&group, &away).unwrap();
    fs::write(&group, "").unwrap();
    let broken: Vec<Line> = (0..PARTITIONS).map(|p| (Some(p), format!("broken-{p}"), "{broken".to_owned())).collect();
    publish(broker, &rig.orders, &broken);
    publish(broker, &rig.orders, after);
    publish(broker, &rig.orders, &last);
    let failures = |daemon: &Daemon, partition| {
        daemon.stderr().matches(&format!("the checkpoint of partition {partition} failed")).count()
    };
    daemon.wait_for("figures that go on, and two failures in each partition", PATIENCE, |daemon| {
        let failed = (0..PARTITIONS).all(|partition| failures(daemon, partition) >= 2);
        (failed && summary(daemon)["as_of"] == LAST).then_some(())
    });
    let whole = replay(&[&orders, &last], LAST);
    assert_equals_replay(&summary(&daemon), &whole);
    assert_eq!(next(broker, &rig), committed, "nothing is committed that is not in the store");
    assert!(broker.consume_all(&rig.dead_letters).is_empty(), "letters come with the offsets, or they come twice");

    fs::remove_file(&group).unwrap();
    fs::rename(&away, &group).unwrap();
    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
    assert_eq!(assert_dead_letters(broker, &rig), broken.len());
    daemon.kill9();
    let mut daemon = launch.start();
    daemon.wait_ready(PATIENCE);
    assert_equals_replay(&summary(&daemon), &whole);
    assert!(metrics(&daemon).nonzero("retentiond_events_total").is_empty(), "nothing is read again");
    assert_eq!(assert_dead_letters(broker, &rig), broken.len());
}
