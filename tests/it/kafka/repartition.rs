//! An order topic keyed by order, repartitioned by customer: the figures equal those of orders keyed by customer,
//! whatever happens to the replicas.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use retentiond::bus::partitioner::Partitioner;
use retentiond::decode::{Decoder, Format};
use retentiond::event::Time;

use super::common::{PATIENCE, Rig, assert_equals_replay, metrics, readiness, summary};
use super::durability::{LAST, Line, PARTITIONS, assert_dead_letters, native, publish, replay, sessions};
use super::figures::{KNOWN, assert_adds_up, wait_for_share};
use crate::support::daemon::{Daemon, Launch};
use crate::support::effort::effort;
use crate::support::history;
use crate::support::kafka::{self, Broker};
use crate::support::wait_for;

/// Committed offsets by topic: of the repartitioning, and of the engines.
type Progress = [BTreeMap<i32, i64>; 2];

struct Shop<'a> {
    broker: &'a Broker,
    rig: Rig,
    /// Keyed by order id.
    orders: Vec<Line>,
    sessions: Vec<Line>,
    /// Numbers of published messages and portions.
    sent: [usize; 2],
    portions: usize,
    /// The total numbers.
    of: usize,
}

/// Orders keyed by their own ids instead of their customers'.
fn keyed_by_order(lines: Vec<Line>) -> Vec<Line> {
    let keyed = |(partition, _, payload): Line| {
        let order: serde_json::Value = serde_json::from_str(&payload).unwrap();
        (partition, order["order_id"].as_str().unwrap().to_owned(), payload)
    };
    lines.into_iter().map(keyed).collect()
}

/// An order of a separate customer in each customer partition, so that all partitions end at the same time.
fn last_orders() -> Vec<Line> {
    let customer = |partition: i32| {
        let lies_there = |id: &String| {
            Partitioner::Murmur2.partition(id.as_bytes(), PARTITIONS.unsigned_abs()) == partition.unsigned_abs()
        };
        (0..).map(|n| format!("last-{n}")).find(lies_there).unwrap()
    };
    let order = |partition| {
        let customer = customer(partition);
        let order = format!(
            r#"{{"type":"order","order_id":"{customer}","customer_id":"{customer}","time":"{LAST}","amount":"1.00","currency":"USD"}}"#
        );
        (None, customer, order)
    };
    (0..PARTITIONS).map(order).collect()
}

impl<'a> Shop<'a> {
    fn new(broker: &'a Broker, sales: &[history::Sale], of: usize) -> Shop<'a> {
        let rig = Rig { commit_every: "200ms", more: KNOWN, ..Rig::new(broker) };
        rig.create_topics(broker, PARTITIONS);
        broker.create_topic(&rig.dead_letters, 2);
        let orders = keyed_by_order(native(history::disorder(sales, 0)));
        Shop { broker, rig, orders, sessions: sessions(sales), sent: [0, 0], portions: 0, of }
    }

    fn launch(&self, instance: &str) -> Launch {
        let launch = self.rig.launch(instance).env("RETENTIOND__KAFKA__DELIVERY", "exactly_once");
        launch.env("RETENTIOND__SOURCES__ORDERS__REPARTITION", "true")
    }

    /// For a load of a year and a half in a minute, during which partitions differ by days.
    fn patient(launch: Launch) -> Launch {
        let launch = launch.env("RETENTIOND__CUSTOMERS__ALLOWED_LATENESS", "60d");
        launch.env("RETENTIOND__CUSTOMERS__DEDUP_FOR", "60d")
    }

    fn keyed_topic(&self) -> String {
        format!("{}-orders-by-customer", self.rig.group)
    }

    /// Publishes a portion, and one broken message per partition.
    fn publish_some(&mut self) {
        let number = self.portions;
        let mut portions = [&self.orders, &self.sessions].into_iter().zip(&mut self.sent).map(|(lines, sent)| {
            let portion = lines[*sent..].iter().take(lines.len().div_ceil(self.of)).cloned().collect::<Vec<_>>();
            *sent += portion.len();
            portion
        });
        let (mut orders, mut sessions) = (portions.next().unwrap(), portions.next().unwrap());
        let broken = |partition| (Some(partition), format!("broken-{partition}"), format!("{{broken {number}"));
        let place = number % (orders.len() + 1);
        orders.splice(place..place, (0..PARTITIONS).map(broken));
        sessions.push(broken(i32::try_from(number).unwrap() % PARTITIONS));
        publish(self.broker, &self.rig.orders, &orders);
        publish(self.broker, &self.rig.sessions, &sessions);
        self.portions += 1;
    }

    fn progress(&self) -> Progress {
        let next = |group: &str, topic: &str| {
            let committed = self.broker.committed(group, topic);
            committed.into_iter().map(|(partition, committed)| (partition, committed.offset)).collect()
        };
        let router = format!("{}-orders-router", self.rig.group);
        [next(&router, &self.rig.orders), next(&self.rig.group, &self.keyed_topic())]
    }

    /// Publishes until every partition is repartitioned and applied beyond these.
    fn until_beyond(&mut self, daemon: &mut Daemon, before: &Progress) {
        // The replicas create the topic.
        self.wait_for_topic(daemon);
        wait_for(&format!("progress beyond {before:?}"), PATIENCE, || {
            assert!(daemon.runs(), "{}", daemon.stderr());
            self.publish_some();
            let now = self.progress();
            let beyond = now.iter().zip(before).all(|(now, before)| {
                let advanced = now.iter().filter(|(partition, next)| *next > before.get(partition).unwrap_or(&0));
                advanced.count() == PARTITIONS as usize
            });
            beyond.then_some(())
        });
    }

    fn wait_for_topic(&self, daemon: &mut Daemon) {
        let topic = self.keyed_topic();
        let is_there = |daemon: &Daemon| daemon.stderr().contains("joining the group");
        daemon.wait_for(&format!("topic {topic}"), PATIENCE, |daemon| is_there(daemon).then_some(()));
    }

    /// Whether everything is repartitioned, applied and committed.
    fn is_all_committed(&self) -> bool {
        let topic = self.keyed_topic();
        let ends = [self.broker.end_offsets(&self.rig.orders), self.broker.end_offsets(&topic)];
        let sessions = self.broker.end_offsets(&self.rig.sessions);
        let of_sessions = self.broker.committed(&self.rig.group, &self.rig.sessions);
        // A transaction marker follows the last record of a topic written in transactions.
        let is_there = |progress: &BTreeMap<i32, i64>, ends: &BTreeMap<i32, i64>, marks: i64| {
            ends.iter().all(|(partition, end)| end - progress.get(partition).unwrap_or(&0) <= marks)
        };
        let [routed, applied] = self.progress();
        is_there(&routed, &ends[0], 0)
            && is_there(&applied, &ends[1], 1)
            && sessions.iter().all(|(partition, end)| of_sessions.get(partition).map_or(0, |next| next.offset) == *end)
    }

    /// Publishes the rest, and compares the figures of the replicas with a run over everything.
    fn finish(&mut self, replicas: &mut [Daemon]) {
        let [orders, sessions] = self.sent;
        publish(self.broker, &self.rig.orders, &self.orders[orders..]);
        publish(self.broker, &self.rig.sessions, &self.sessions[sessions..]);
        let last = last_orders();
        publish(self.broker, &self.rig.orders, &last);
        let mut before = Progress::default();
        wait_for("everything to be routed and committed", PATIENCE, || {
            let now = self.progress();
            if now != before {
                let topics = [&self.rig.orders, &self.keyed_topic(), &self.rig.sessions];
                eprintln!("committed {now:?}, ends {:?}", topics.map(|topic| self.broker.end_offsets(topic)));
                replicas.iter().for_each(|replica| eprintln!("{:?}", readiness(replica)));
                before = now;
            }
            self.is_all_committed().then_some(())
        });
        // First the cause, then its consequences.
        self.assert_each_event_once(&last);
        assert_eq!(assert_dead_letters(self.broker, &self.rig), self.portions * (PARTITIONS as usize + 1));
        let whole = replay(&[&self.orders, &self.sessions, &last], LAST);
        let parts = wait_for("replicas that own everything, caught up", PATIENCE, || {
            let ready = replicas.iter().all(|replica| readiness(replica).is_some_and(|(status, _)| status == 200));
            let parts: Vec<_> = replicas.iter().map(summary).collect();
            let assigned: i64 = parts.iter().filter_map(|part| part["partitions_assigned"].as_i64()).sum();
            let done = parts.iter().all(|part| part["partitions_assigned"] == 0 || part["as_of"] == LAST);
            (ready && done && assigned == i64::from(PARTITIONS)).then_some(parts)
        });
        let parts: Vec<_> = parts.into_iter().filter(|part| part["partitions_assigned"] != 0).collect();
        match &parts[..] {
            [only] => assert_equals_replay(only, &whole),
            parts => assert_adds_up(parts, &whole),
        }
    }

    /// The committed copies are the orders, each as often as it was sent, keyed by customer.
    fn assert_each_event_once(&self, last: &[Line]) {
        let decoder = Decoder::new(Format::Native, ["channel", "country"].map(str::to_owned).to_vec());
        let meaning = |payload: &[u8]| format!("{:?}", decoder.decode(None, Some(payload), Time::MAX).unwrap());
        let without_attributes = |text: String| text.split("attributes").next().unwrap_or_default().to_owned();
        let mut sent: BTreeMap<String, i64> = BTreeMap::new();
        for (.., payload) in self.orders.iter().chain(last) {
            *sent.entry(without_attributes(meaning(payload.as_bytes()))).or_default() += 1;
        }
        for record in self.broker.consume_all(&self.keyed_topic()) {
            let partition = Partitioner::Murmur2.partition(&record.key.clone().unwrap(), PARTITIONS.unsigned_abs());
            assert_eq!(record.partition.unsigned_abs(), partition, "{record:?}");
            assert_eq!(record.json()["customer_id"].as_str(), Some(record.key_text().as_str()));
            *sent.entry(without_attributes(meaning(&record.payload.unwrap()))).or_default() -= 1;
        }
        let wrong: Vec<_> = sent.iter().filter(|(_, left)| **left != 0).collect();
        assert!(wrong.is_empty(), "not routed (above 0) or routed twice (below 0): {wrong:?}");
    }
}

#[test]
fn kill9_routes_nothing_twice_and_loses_nothing() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let kills = effort().repartition_kills;
    let mut shop = Shop::new(broker, &history::cdnow_master(), 20 * (kills + 1));
    let mut chance = ChaCha8Rng::seed_from_u64(31);
    let launches = ["one", "other"].map(|instance| Shop::patient(shop.launch(instance)));
    let mut replicas = launches.each_ref().map(Launch::start);
    let mut since: [Progress; 2] = Default::default();
    let mut dead = Vec::new();
    for kill in 0..kills {
        let victim = kill % 2;
        // Progress of all partitions includes the victim's, and that of the replica that repartitions.
        shop.until_beyond(&mut replicas[victim], &since[victim]);
        (0..chance.random_range(0..6)).for_each(|_| shop.publish_some());
        replicas[victim].kill9();
        since[victim] = shop.progress();
        if kill % 3 == 2 {
            // It stays down until the other replica has taken over its partitions and the repartitioning.
            let before = since[victim].clone();
            shop.until_beyond(&mut replicas[1 - victim], &before);
            since[victim] = shop.progress();
        }
        dead.push(std::mem::replace(&mut replicas[victim], launches[victim].start()));
    }
    replicas.iter_mut().for_each(|replica| wait_for_share(replica, i64::from(PARTITIONS) / 2));
    shop.finish(&mut replicas);
    let routers =
        replicas.iter().chain(&dead).filter(|replica| replica.stderr().contains("routing by customer")).count();
    assert!(routers >= 2, "only {routers} of {kills} killed replicas and two more ever routed");
}

#[test]
fn a_router_that_stood_still_past_its_time_routes_nothing_twice() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let mut shop = Shop::new(broker, &history::cdnow_sample(), 60);
    let launches = ["one", "other"].map(|instance| Shop::patient(shop.launch(instance)));
    let mut replicas = launches.each_ref().map(Launch::start);
    replicas.iter_mut().for_each(|replica| wait_for_share(replica, i64::from(PARTITIONS) / 2));
    for round in 0..2 {
        let before = shop.progress();
        shop.until_beyond(&mut replicas[0], &before);
        let routes = |replica: &Daemon| {
            let lag = metrics(replica).nonzero("retentiond_repartitioned_events_total");
            (!lag.is_empty() && replica.stderr().contains("routing by customer")).then_some(())
        };
        let router = (0..2).find(|&n| routes(&replicas[n]).is_some()).expect("one of them routes");
        // Probably during a transaction.
        (0..3).for_each(|_| shop.publish_some());
        replicas[router].pause();
        let before = shop.progress();
        shop.until_beyond(&mut replicas[1 - router], &before);
        replicas[router].resume();
        let before = shop.progress();
        shop.until_beyond(&mut replicas[1 - router], &before);
        if !replicas[router].runs() {
            assert_eq!(replicas[router].wait_exit(PATIENCE).code(), Some(75), "{}", replicas[router].stderr());
            replicas[router] = launches[router].start();
        }
        replicas.iter_mut().for_each(|replica| wait_for_share(replica, i64::from(PARTITIONS) / 2));
        assert!(round < 2);
    }
    shop.finish(&mut replicas);
}

#[test]
fn a_backlog_in_uneven_partitions_goes_on_in_the_order_of_time() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let mut shop = Shop::new(broker, &history::cdnow_sample(), 1);
    // Most are in one partition; another one begins half a year later.
    let count = shop.orders.len();
    for (number, (partition, ..)) in shop.orders.iter_mut().enumerate() {
        let of_order = number % 20; // copies of an order are not in their order any more where they lie apart
        *partition = Some(match of_order {
            0 => 1,
            1 => 2,
            2 if number > count / 3 => 3,
            _ => 0,
        });
    }
    let mut first_copies = std::collections::BTreeSet::new();
    shop.orders.retain(|(_, id, _)| first_copies.insert(id.clone()));
    shop.publish_some();
    let mut daemon = shop.launch("only").start();
    daemon.wait_ready(PATIENCE);
    let late = metrics(&daemon).get("retentiond_events_late_total");
    assert_eq!(late, Some(0.0), "no event is too late for what lies in other partitions");
    let routed = metrics(&daemon).nonzero("retentiond_repartitioned_events_total");
    assert_eq!(routed.values().sum::<f64>(), shop.orders.len() as f64);
    shop.finish(std::slice::from_mut(&mut daemon));
    let metrics = metrics(&daemon);
    assert_eq!(metrics.nonzero("retentiond_split_customers_total"), BTreeMap::new());
    let lag: Vec<_> = (0..PARTITIONS)
        .map(|partition| {
            metrics.get(&format!("retentiond_lag_events{{partition=\"{partition}\",topic=\"{}\"}}", shop.rig.orders))
        })
        .collect();
    assert_eq!(lag, [Some(0.0); PARTITIONS as usize]);
    daemon.terminate();
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0), "{}", daemon.stderr());
}

#[test]
fn customers_in_two_partitions_are_told_and_so_is_the_remedy() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let mut shop = Shop::new(broker, &history::cdnow_sample(), 1);
    shop.publish_some();
    let mut daemon = shop.rig.launch("only").start();
    daemon.wait_ready(PATIENCE);
    daemon.wait_for("a line in the log", PATIENCE, |daemon| {
        let stderr = daemon.stderr();
        let line = stderr.lines().find(|line| line.contains("was seen in topic"))?;
        assert!(line.contains("repartition = true") && line.contains(&shop.rig.orders), "{line}");
        Some(())
    });
    let split = metrics(&daemon).nonzero("retentiond_split_customers_total");
    assert!(split.contains_key(&format!("topic=\"{}\"", shop.rig.orders)), "{split:?}");
    assert!(daemon.runs(), "it is no reason to end");
}
