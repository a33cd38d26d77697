//! Any interleaving of topics that are no further apart than events may be late gives the same figures and alerts.

use super::durable::{Chain, Input, give};
use super::silent::{Counts, silent_spec};
use super::*;
use crate::engine::inactivity::release::{Alert, AlertKind, Allowance, RuleParts};
use crate::engine::inactivity::{Filter, Group, RuleSpec, SilenceRule};
use crate::engine::snapshot::{Periods, Snapshot};

const TOPICS: usize = 3;

/// A record of a topic, with the time at which it was written.
#[derive(Debug, Clone)]
struct Logged {
    topic: usize,
    reached: i64,
    input: Input,
}

/// Events that decide alerts, and erasures that end silences, come in the one topic that drives time; the others carry
/// sessions. Without alerts, any event may come in any topic.
fn logged(sent: &Sent, reached: i64, anywhere: bool) -> Logged {
    let id = sent.id.unwrap_or(0) as usize;
    let topic = match sent.fact {
        Fact::Session(_) if anywhere => 2,
        Fact::Session(_) => 1 + id % 2,
        Fact::Profile(_) | Fact::Cost(..) if anywhere => 1,
        Fact::Erase if anywhere => id % TOPICS,
        _ => 0,
    };
    let input = match sent.fact {
        Fact::Erase => Input::Erase(topic, id_of(sent), Time::clamped(reached)),
        _ => Input::Event(topic, event(sent)),
    };
    Logged { topic, reached, input }
}

/// Histories of three topics; every topic begins before all other events.
fn log(anywhere: bool) -> impl Strategy<Value = Vec<Logged>> {
    prop::collection::vec(super::sent(), 1..60).prop_map(move |steps| {
        let begin = |topic: usize| {
            let other = if anywhere { Fact::Profile(None) } else { Fact::Session(0) };
            let fact = [Fact::Order(0, 1, None, None), other, Fact::Session(0)][topic].clone();
            let id = Some(1_000 + topic as u32 + 1);
            let sent = Sent { customer: 40 + topic as u8, time: Time::clamped(ORIGIN), fact, id };
            Logged { topic, ..logged(&sent, ORIGIN, anywhere) }
        };
        let mut all: Vec<_> = (0..TOPICS).map(begin).collect();
        let mut now = ORIGIN + LATENESS;
        for (mut sent, step) in steps {
            now += step;
            sent.time = Time::clamped(now - sent.time.millis());
            all.push(logged(&sent, now, anywhere));
        }
        all
    })
}

/// Another interleaving: the order within each topic is kept, and no topic is ahead of another one by more than the
/// lateness.
fn interleaved(log: &[Logged], choices: &[u8]) -> Vec<Logged> {
    let (begin, rest) = log.split_at(TOPICS);
    let of_topic = |topic: usize| rest.iter().filter(move |logged| logged.topic == topic);
    let mut topics: Vec<Vec<&Logged>> = (0..TOPICS).map(|topic| of_topic(topic).rev().collect()).collect();
    let mut all = begin.to_vec();
    let mut choices = choices.iter().cycle();
    while topics.iter().any(|topic| !topic.is_empty()) {
        let slowest = topics.iter().filter_map(|topic| topic.last()).map(|next| next.reached).min().unwrap();
        let may = |topic: &&mut Vec<&Logged>| topic.last().is_some_and(|next| next.reached <= slowest + LATENESS);
        let mut ready: Vec<_> = topics.iter_mut().filter(may).collect();
        let choice = usize::from(*choices.next().unwrap()) % ready.len();
        all.extend(ready[choice].pop().cloned());
    }
    all
}

fn spec_of_three(with_rules: bool, merge_orders: bool) -> Arc<Spec> {
    let rule = |name: &str, silence, filter| RuleSpec { name: name.into(), silence, filter };
    let rules = vec![
        rule("short", SilenceRule::After(30 * HOUR), Filter::default()),
        rule("often", SilenceRule::After(4 * DAY), Filter { min_orders: 2, ..Filter::default() }),
        rule("pace", SilenceRule::Cadence { factor: 1.5, min: 6 * HOUR, max: 5 * DAY }, Filter::default()),
    ];
    let spec = silent_spec(0, if with_rules { rules } else { Vec::new() });
    Arc::new(Spec { topics: vec![true, false, false], merge_orders, ..Spec::clone(&spec) })
}

/// The engine after a log, with the alerts that it released. It is restarted now and then and reads everything since
/// the last checkpoint again.
fn read(spec: &Arc<Spec>, log: &[Logged], restart_every: usize) -> (Engine, Vec<Alert>) {
    let (mut engine, mut chain, mut told) = (Engine::new(Arc::clone(spec)), Chain::default(), Vec::new());
    for (n, logged) in log.iter().enumerate() {
        give(&mut engine, &logged.input);
        told.extend(engine.release(&Allowance::ALL));
        if n % restart_every == restart_every - 1 {
            engine.checkpoint().into_iter().for_each(|checkpoint| chain.add(checkpoint));
            engine = chain.restore_topics(spec, TOPICS);
        }
    }
    let end = log.iter().map(|logged| logged.reached).max().unwrap() + 100 * DAY;
    for topic in 0..TOPICS {
        give(&mut engine, &Input::Raise(topic, Time::clamped(end)));
    }
    told.extend(engine.release(&Allowance::ALL));
    (engine, told)
}

fn assert_same_figures(
    spec: &Arc<Spec>,
    log: &[Logged],
    one: &mut Engine,
    other: &mut Engine,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(one.tracked_customers(), other.tracked_customers());
    prop_assert_eq!((one.first_event(), one.first_order()), (other.first_event(), other.first_order()));
    for id in 0..IDS {
        let customer = |engine: &Engine| {
            let mut found = engine.customer(&format!("c{id}"));
            found.iter_mut().for_each(|found| found.net_revenue.sort());
            found
        };
        prop_assert_eq!(customer(one), customer(other), "{}", id);
    }
    let begin = one.first_order().unwrap_or(Time::MIN);
    for reached in log.iter().step_by(3).map(|logged| logged.reached).chain([ORIGIN + 300 * DAY]) {
        let snapshot = |engine: &mut Engine| {
            let mut snapshot = Snapshot::empty(spec, Time::clamped(reached), Periods::Since(begin));
            snapshot.add(engine);
            let windows = snapshot.rolling.iter_mut().chain(snapshot.segments.values_mut().flatten()).flatten();
            for window in windows.chain(snapshot.periods.iter_mut().map(|period| &mut period.figures)) {
                // A currency of another event may be listed with zeros, which are never shown.
                window.money.retain(|_, money| *money != MoneyParts::default());
            }
            snapshot
        };
        prop_assert_eq!(snapshot(one), snapshot(other), "at {}", reached);
    }
    Ok(())
}

/// Alerts as sorted texts; the order of a customer's currencies does not matter.
pub(super) fn sorted(alerts: &[Alert]) -> Vec<String> {
    let mut texts: Vec<String> = alerts
        .iter()
        .cloned()
        .map(|mut alert| {
            if let AlertKind::Inactive { revenue, .. } = &mut alert.what {
                revenue.sort_by_key(|money| money.currency);
            }
            format!("{alert:?}")
        })
        .collect();
    texts.sort();
    texts
}

pub(super) fn counted(rules: &[RuleParts]) -> Counts {
    let group = |rule: &RuleParts, group: Group| {
        let parts = &rule.groups[group as usize];
        let minor = |(currency, minor): (&Currency, &i128)| match currency.code() {
            "EUR" => *minor as i64,
            _ => 1_000_000 * *minor as i64,
        };
        [parts.due as i64, parts.won_back as i64, parts.revenue.iter().map(minor).sum()]
    };
    rules.iter().map(|rule| (rule.rule.clone(), Group::ALL.map(|of| group(rule, of)))).collect()
}

proptest! {
    #![proptest_config(cases(1_500))]
    #[test]
    fn every_interleaving_of_topics_gives_the_same_figures(
        log in log(true),
        choices in prop::collection::vec(any::<u8>(), 1..60),
        restart_every in 1..30_usize,
        merge_orders in any::<bool>(),
    ) {
        let spec = spec_of_three(false, merge_orders);
        let (mut expected, _) = read(&spec, &log, usize::MAX);
        let (mut found, _) = read(&spec, &interleaved(&log, &choices), restart_every);
        assert_same_figures(&spec, &log, &mut expected, &mut found)?;
        prop_assert_eq!(found.erasures.state(), vec![], "all of them are past");
        prop_assert_eq!(found.customers.len(), found.tracked_customers());
    }

    /// Whether an erased customer is alerted may depend on when the erasure is read. All other alerts and all counts
    /// are the same.
    #[test]
    fn every_interleaving_of_topics_gives_the_same_alerts(
        log in log(false),
        choices in prop::collection::vec(any::<u8>(), 1..60),
        restart_every in 1..30_usize,
        merge_orders in any::<bool>(),
    ) {
        let spec = spec_of_three(true, merge_orders);
        let (mut expected, expected_alerts) = read(&spec, &log, usize::MAX);
        let (mut found, alerts) = read(&spec, &interleaved(&log, &choices), restart_every);
        assert_same_figures(&spec, &log, &mut expected, &mut found)?;
        prop_assert_eq!(counted(&found.inactivity()), counted(&expected.inactivity()));
        // Here erasures come in the topic that drives time, so they are read after all earlier alerts.
        prop_assert_eq!(sorted(&alerts), sorted(&expected_alerts));
    }
}

fn order_at(id: u32, topic: usize, day: i64) -> Input {
    let sent = Sent {
        customer: 1,
        time: Time::clamped(ORIGIN + day * DAY),
        fact: if topic == 0 { Fact::Order(0, 100, Some("web"), None) } else { Fact::Session(0) },
        id: Some(id),
    };
    Input::Event(topic, event(&sent))
}

/// Sessions of another topic that are older than the erasure, but read after it, do not bring the customer back.
#[test]
fn what_is_older_than_the_erasure_brings_nobody_back() {
    let spec = Arc::new(spec("UTC"));
    for sessions_first in [true, false] {
        let mut engine = Engine::new(Arc::clone(&spec));
        let sessions =
            |engine: &mut Engine| (1..30).for_each(|day| _ = give(engine, &order_at(1, 1, day).with_id(day)));
        if sessions_first {
            sessions(&mut engine);
        }
        give(&mut engine, &order_at(1, 0, 0));
        give(&mut engine, &Input::Erase(0, "c1".into(), Time::clamped(ORIGIN + 40 * DAY)));
        give(&mut engine, &Input::Raise(0, Time::clamped(ORIGIN + 90 * DAY)));
        assert_eq!(engine.tracked_customers(), 0);
        if !sessions_first {
            assert_eq!(engine.customers.len(), 1, "sessions from before may still come");
            sessions(&mut engine);
        }
        assert_eq!((engine.tracked_customers(), engine.customer("c1")), (0, None), "{sessions_first}");
        let at = Time::clamped(ORIGIN + 29 * DAY);
        let figures = engine.figures(WindowId::Rolling(2), at).unwrap().parts;
        assert_eq!((figures.sessions, figures.visiting), (8, 1), "{sessions_first}");
        assert_eq!(engine.lifecycle(at).prospects, 0);
        give(&mut engine, &Input::Raise(1, Time::clamped(ORIGIN + 90 * DAY)));
        assert_eq!((engine.customers.len(), engine.erasures.state().len()), (0, 0), "nothing is left of the customer");
    }
}

impl Input {
    /// The same event with another id.
    fn with_id(self, number: i64) -> Input {
        match self {
            Input::Event(topic, Event { customer, time, kind: Kind::Session { .. } }) => Input::Event(
                topic,
                Event { customer, time, kind: Kind::Session { id: Some(number.to_string().into()) } },
            ),
            other => other,
        }
    }
}

/// A redelivered order is a duplicate even if its customer was erased in between, and even for the next customer of the
/// id.
#[test]
fn a_copy_across_an_erasure_is_a_copy() {
    let mut engine = Engine::new(Arc::new(spec("UTC")));
    let erase = |day: i64| Input::Erase(0, "c1".into(), Time::clamped(ORIGIN + day * DAY));
    let outcomes: Vec<_> = [order_at(1, 0, 0), erase(1), order_at(1, 0, 2), order_at(2, 0, 3), order_at(1, 0, 1)]
        .iter()
        .filter_map(|input| match give(&mut engine, input) {
            super::durable::Answer::Outcome(outcome) => Some(outcome),
            _ => None,
        })
        .collect();
    assert_eq!(outcomes, [Outcome::Applied, Outcome::Duplicate, Outcome::Applied, Outcome::Duplicate]);
    assert_eq!(engine.customer("c1").unwrap().orders, 1);
}

/// Several erasures of one id, read in any order, and one that is dated after everything.
#[test]
fn erasures_of_one_id_divide_its_events_by_time() {
    let spec = Arc::new(spec("UTC"));
    let day = |day: i64| Time::clamped(ORIGIN + day * DAY);
    let erase = |at: i64| Input::Erase(1, "c1".into(), day(at).plus(HOUR));
    let mut all: Vec<Vec<Input>> = Vec::new();
    for erasures in [[0, 1, 9], [9, 1, 0], [1, 9, 0]] {
        for first in [true, false] {
            let orders = (0..3).map(|n| order_at(n, 0, i64::from(n)));
            let erasures = erasures.into_iter().map(erase);
            all.push(if first { erasures.chain(orders).collect() } else { orders.chain(erasures).collect() });
        }
    }
    for inputs in all {
        let mut engine = Engine::new(Arc::clone(&spec));
        inputs.iter().for_each(|input| _ = give(&mut engine, input));
        assert_eq!(engine.tracked_customers(), 0, "{inputs:?}");
        let figures = engine.figures(WindowId::Rolling(0), day(2)).unwrap().parts;
        assert_eq!((figures.new, figures.end, figures.repeat, figures.orders), (3, 3, 0, 3), "{inputs:?}");
        give(&mut engine, &order_at(7, 0, 10));
        assert_eq!(engine.customer("c1").unwrap().orders, 1);
    }
}
