//! Compares alerts and win-backs with a brute-force computation over all accepted events that follows the definitions
//! literally.

use super::durable::{Chain, Input, give, input};
use super::interleaved::{counted, sorted};
use super::*;
use crate::engine::inactivity::release::{Alert, AlertKind, Allowance};
use crate::engine::inactivity::{Filter, InactivitySpec, RuleSpec, SilenceRule};

const SETTLE: i64 = LATENESS;
const WITHIN: i64 = 3 * DAY;

fn rules() -> Vec<RuleSpec> {
    let rule = |name: &str, silence, filter| RuleSpec { name: name.into(), silence, filter };
    let eur = |minor| Some(money(0, minor));
    vec![
        rule("short", SilenceRule::After(30 * HOUR), Filter::default()),
        rule("often", SilenceRule::After(4 * DAY), Filter { stages: vec![2, 3], min_orders: 2, ..Filter::default() }),
        rule("pace", SilenceRule::Cadence { factor: 1.5, min: 6 * HOUR, max: 5 * DAY }, Filter::default()),
        rule("rich", SilenceRule::After(DAY), Filter { min_revenue: eur(700), ..Filter::default() }),
        rule("web", SilenceRule::After(2 * DAY), Filter { segment: vec![(0, "web".into())], ..Filter::default() }),
        rule("unseen", SilenceRule::NoSessionFor(2 * DAY), Filter::default()),
        rule("buyers unseen", SilenceRule::NoSessionFor(20 * HOUR), Filter { stages: vec![1], ..Filter::default() }),
    ]
}

pub(super) fn silent_spec(since: i64, rules: Vec<RuleSpec>) -> Arc<Spec> {
    let inactivity = InactivitySpec {
        rules,
        settle: SETTLE,
        since: Some(Time::clamped(since)),
        holdout: 0.4,
        salt: "pepper".into(),
        winback_within: WITHIN,
    };
    Arc::new(Spec { inactivity, ..spec("UTC") })
}

/// By rule and group: due, won back, and the amounts of the win-backs.
pub(super) type Counts = BTreeMap<String, [[i64; 3]; 2]>;

/// Alerts and results according to the definitions. Every step of the log has a number.
#[derive(Default)]
struct Story {
    model: Model,
    /// The step of each accepted event.
    steps: Vec<usize>,
    /// After each step: the times before which silences of orders and of sessions are decided.
    limits: Vec<[Option<i64>; 2]>,
    /// Id, time and step of each erasure.
    erased: Vec<(u8, Time, usize)>,
    settle: i64,
}

impl Story {
    fn new(spec: &Spec) -> Story {
        Story { settle: spec.inactivity.settle, ..Story::default() }
    }

    fn take(&mut self, given: &Given) -> Option<Outcome> {
        let outcome = match given {
            Given::Sent(sent @ Sent { fact: Fact::Erase, .. }) => {
                let at = self.model.erased_at(sent);
                self.model.erase(sent);
                if self.model.erased[&sent.customer].contains(&at) {
                    self.erased.push((sent.customer, at, self.limits.len()));
                }
                None
            }
            Given::Sent(sent) => {
                let outcome = self.model.send(sent);
                if outcome == Outcome::Applied {
                    self.steps.push(self.limits.len());
                }
                Some(outcome)
            }
            Given::Raise(topic, to) => {
                let mark = &mut self.model.watermarks[*topic];
                *mark = mark.map(|mark| mark.max(*to));
                None
            }
        };
        // Only the first topic drives time; each class comes from one topic.
        let settled = |mark: Option<Time>| mark.map(|mark| mark.millis() - self.settle);
        let [orders, sessions] = self.model.watermarks.map(settled);
        self.limits.push([orders, orders.and_then(|orders| Some(orders.min(sessions?)))]);
        outcome
    }

    /// The first step after which everything due at `at` is decided.
    fn decided(&self, class: usize, at: i64) -> Option<usize> {
        self.limits.iter().position(|limits| limits[class].is_some_and(|limit| limit > at))
    }

    fn tell(&self, spec: &Spec) -> (Vec<(usize, Alert)>, Counts) {
        let (mut alerts, mut totals) = (Vec::new(), BTreeMap::new());
        for rule in &spec.inactivity.rules {
            totals.insert(rule.name.clone(), [[0; 3]; 2]);
        }
        let model = merged::merged(spec, &self.model);
        let identities: BTreeSet<u8> = model.accepted.iter().map(|sent| sent.customer).collect();
        for identity in identities {
            let all = model.accepted.iter().zip(&self.steps).filter(|(sent, _)| sent.customer == identity);
            let mut events: Vec<(&Sent, usize)> = all.map(|(sent, &step)| (sent, step)).collect();
            events.sort_by_key(|(sent, _)| sent.time);
            for rule in &spec.inactivity.rules {
                let totals = totals.get_mut(&rule.name).unwrap();
                self.tell_one(spec, rule, identity, &events, &mut alerts, totals);
            }
        }
        (alerts, totals)
    }

    /// The silences of one identity by one rule; `events` are its events by time.
    fn tell_one(
        &self,
        spec: &Spec,
        rule: &RuleSpec,
        identity: u8,
        events: &[(&Sent, usize)],
        alerts: &mut Vec<(usize, Alert)>,
        totals: &mut [[i64; 3]; 2],
    ) {
        let class = usize::from(matches!(rule.silence, SilenceRule::NoSessionFor(_)));
        let id = identity % IDS;
        let own_erasures = || self.erased.iter().filter(|(erased, ..)| *erased == id);
        // What is undecided at the erasure of the identity is never decided.
        let end = own_erasures().map(|(_, at, _)| *at).filter(|at| *at >= events[0].0.time).min();
        let undecided_from = end.map_or(i64::MAX, |end| end.millis() - self.settle);
        let orders: Vec<i64> = events.iter().filter(|(s, _)| is_order(s)).map(|(s, _)| s.time.millis()).collect();
        let mut qualifying: Vec<i64> = if class == 0 {
            orders.clone()
        } else {
            let minute = |millis: i64| millis / MINUTE * MINUTE;
            let sessions = events.iter().filter(|(s, _)| matches!(s.fact, Fact::Session(_)));
            let sight = events[0].0.time.millis();
            let was_prospect = orders.first().is_none_or(|&first| sight < first);
            sessions.map(|(s, _)| s.time.millis()).chain(was_prospect.then_some(sight)).map(minute).collect()
        };
        qualifying.sort_unstable();
        qualifying.dedup();
        // Silences of sessions are not decided before the first session, and from then on no further than those of
        // orders.
        let begun = self.limits.iter().find(|limits| limits[class].is_some()).and_then(|limits| limits[0]);
        let begun = begun.unwrap_or(i64::MAX);
        for (i, &y) in qualifying.iter().enumerate() {
            let upto = orders.iter().filter(|&&order| order <= y).count();
            let after = match rule.silence {
                SilenceRule::After(after) | SilenceRule::NoSessionFor(after) => after,
                SilenceRule::Cadence { .. } if upto < 3 => continue,
                SilenceRule::Cadence { factor, min, max } => {
                    let pace = factor * (y - orders[0]) as f64 / (upto - 1) as f64;
                    (pace.floor() as i64).max(min).min(max)
                }
            };
            let due = y + after;
            let next = qualifying.get(i + 1).copied();
            if due < begun || next.is_some_and(|next| next <= due) || due < spec.inactivity.since.unwrap().millis() {
                continue;
            }
            let Some(step) = self.decided(class, due).filter(|_| due < undecided_from) else { continue };
            // From this step on the id is unknown. Sessions count by the minute, which may contain an erasure.
            let minute = |time: i64| if class == 0 { time } else { time / MINUTE * MINUTE };
            let begin = events.iter().map(|(sent, _)| sent.time).find(|time| minute(time.millis()) == y).unwrap();
            let gone = own_erasures().filter(|(_, at, _)| *at >= begin).map(|(.., step)| *step).min();
            let gone = gone.unwrap_or(usize::MAX);
            let known = || events.iter().filter(|(_, at)| *at <= step).map(|(sent, _)| *sent);
            let Some(what) = figures(spec, rule, &orders, due, known()) else { continue };
            let customer = format!("c{}", identity % IDS);
            let held_out = spec.inactivity.is_held_out(&customer);
            let totals = &mut totals[usize::from(held_out)];
            totals[0] += 1;
            let day = |time: i64| spec.zone.day(Time::clamped(time));
            let is_later_day = |sent: &Sent| !spec.merge_orders || day(sent.time.millis()) > day(y);
            let counts = |sent: &Sent| {
                if class == 0 { is_order(sent) && is_later_day(sent) } else { matches!(sent.fact, Fact::Session(_)) }
            };
            // Sessions of a topic that is ahead, while an erasure before them is not known yet.
            let mut then = self.model.accepted.iter().zip(&self.steps).filter(|(_, at)| **at <= step);
            let is_over = then.any(|(sent, _)| {
                let between = |(_, at, read): &(u8, Time, usize)| *read <= step && *at >= begin && *at < sent.time;
                sent.customer % IDS == id
                    && counts(sent)
                    && minute(sent.time.millis()) > y
                    && !own_erasures().any(between)
            });
            let alert = |what| Alert {
                customer: customer.clone(),
                rule: rule.name.clone(),
                silent_since: Time::clamped(y),
                due_at: Time::clamped(due),
                what,
            };
            let alerted = !held_out && !is_over && step < gone;
            if alerted {
                alerts.push((step, alert(what)));
            }
            let until = (due + spec.inactivity.winback_within).min(undecided_from.saturating_sub(1));
            let back = events.iter().find(|(s, _)| is_order(s) && (due + 1..=until).contains(&s.time.millis()));
            let Some((back, _)) = back else { continue };
            let Some(step) = self.decided(class, back.time.millis()) else { continue };
            let Fact::Order(currency, minor, ..) = back.fact else { continue };
            totals[1] += 1;
            totals[2] += if currency == 0 { minor } else { 1_000_000 * minor };
            if alerted && step < gone {
                alerts
                    .push((step, alert(AlertKind::WonBack { ordered_at: back.time, amount: money(currency, minor) })));
            }
        }
    }
}

pub(super) fn is_order(sent: &Sent) -> bool {
    matches!(sent.fact, Fact::Order(..))
}

/// The content of an alert about a customer with these orders and known events; `None` if the rule's filter excludes
/// the customer.
fn figures<'a>(
    spec: &Spec,
    rule: &RuleSpec,
    orders: &[i64],
    due: i64,
    known: impl Iterator<Item = &'a Sent> + Clone,
) -> Option<AlertKind> {
    let upto: Vec<i64> = orders.iter().copied().filter(|&order| order <= due).collect();
    let count = upto.len() as u32;
    let silent_hours = |last: i64| due / HOUR - last / HOUR;
    let (stage, status) = match upto.last() {
        None => ("prospect", "none"),
        Some(&last) => {
            let life = &spec.lifecycle;
            let lapsed = silent_hours(last) * HOUR >= life.active_for;
            let own = if count < 3 {
                0.5 * life.active_for as f64
            } else {
                let mean = (last - upto[0]) as f64 / f64::from(count - 1);
                (life.at_risk_cadence * mean).max(life.at_risk_min as f64).min(0.75 * life.active_for as f64)
            };
            let at_risk = (silent_hours(last) * HOUR) as f64 >= own;
            let status = if lapsed {
                "lapsed"
            } else if at_risk {
                "at_risk"
            } else {
                "active"
            };
            let loyal = count >= life.loyal_orders && !lapsed;
            (if loyal { "loyal" } else { ["new", "repeat"][usize::from(count > 1)] }, status)
        }
    };
    let number = ["prospect", "new", "repeat", "loyal"].iter().position(|name| *name == stage).unwrap() as u8;
    let stages = &rule.filter.stages;
    if count < rule.filter.min_orders || !(stages.is_empty() || stages.contains(&number)) {
        return None;
    }
    let mut revenue = BTreeMap::<Currency, i64>::new();
    for sent in known.clone() {
        let (sign, currency, minor) = match sent.fact {
            Fact::Order(currency, minor, ..) | Fact::Added(currency, minor, _) => (1, currency, minor),
            Fact::Refund(currency, minor) | Fact::Cancel(currency, minor) => (-1, currency, minor),
            _ => continue,
        };
        *revenue.entry(money(currency, 0).currency).or_default() += sign * minor;
    }
    if let Some(least) = rule.filter.min_revenue
        && revenue.get(&least.currency).copied().unwrap_or(0) < least.minor
    {
        return None;
    }
    let of_first = known.clone().find(|sent| matches!(sent.fact, Fact::Order(..) | Fact::Added(..)));
    let segment = of_first.map_or("none", |first| match first.fact {
        Fact::Order(_, _, Some(listed @ ("web" | "app")), _) => listed,
        Fact::Order(_, _, Some(_), _) => "other",
        _ => "unknown",
    });
    if rule.filter.segment.iter().any(|(_, wanted)| wanted != segment) {
        return None;
    }
    let complained = known.clone().any(|sent| sent.fact == Fact::Feedback("complaint"));
    let revenue = revenue.into_iter().map(|(currency, minor)| Money { currency, minor }).collect();
    Some(AlertKind::Inactive { orders: count, stage, status, complained, revenue })
}

#[derive(Debug, Clone)]
enum Given {
    Sent(Sent),
    Raise(usize, Time),
}

fn as_input(given: &Given) -> Input {
    match given {
        Given::Sent(sent) => input(sent),
        Given::Raise(topic, to) => Input::Raise(*topic, *to),
    }
}

/// A log: events with jumps of time between them.
fn log(history: Vec<Sent>, raises: Vec<Option<(usize, i64)>>) -> Vec<Given> {
    let mut given = Vec::new();
    let mut raises = raises.into_iter();
    let mut newest = [None::<Time>; 2];
    for mut sent in history {
        if sent.fact == Fact::Erase {
            // Erasures come in the topic that drives time.
            sent.id = None;
        } else {
            let newest = &mut newest[topic(&sent)];
            *newest = (*newest).max(Some(sent.time));
        }
        given.push(Given::Sent(sent));
        if let Some(Some((topic, by))) = raises.next()
            && let Some(mark) = newest[topic]
        {
            newest[topic] = Some(mark.plus(by));
            given.push(Given::Raise(topic, mark.plus(by)));
        }
    }
    given
}

fn raises() -> impl Strategy<Value = Vec<Option<(usize, i64)>>> {
    prop::collection::vec(prop::option::weighted(0.15, (0..2_usize, 0..5 * DAY)), 0..60)
}

proptest! {
    #![proptest_config(cases(1_500))]
    #[test]
    fn alerts_equal_brute_force(
        history in history(60),
        raises in raises(),
        since in 0..40 * DAY,
        quiet_end in any::<bool>(),
        merge_orders in prop::bool::weighted(0.3),
    ) {
        let spec = silent_spec(ORIGIN + since - 20 * DAY, rules());
        let spec = Arc::new(Spec { merge_orders, ..Spec::clone(&spec) });
        let mut given = log(history, raises);
        if !quiet_end {
            given.extend((0..2).map(|topic| Given::Raise(topic, Time::clamped(ORIGIN + 400 * DAY))));
        }
        let (mut engine, mut story, mut told) = (Engine::new(Arc::clone(&spec)), Story::new(&spec), Vec::new());
        for given in &given {
            let expected = story.take(given);
            let outcome = match given {
                Given::Sent(sent) if sent.fact != Fact::Erase => Some(engine.apply(topic(sent), &event(sent))),
                other => { give(&mut engine, &as_input(other)); None }
            };
            prop_assert_eq!(outcome, expected, "{:?}", given);
            told.extend(engine.release(&Allowance::ALL));
        }
        let (expected, totals) = story.tell(&spec);
        let expected: Vec<_> = expected.into_iter().map(|(_, alert)| alert).collect();
        prop_assert_eq!(sorted(&told), sorted(&expected));
        prop_assert_eq!(counted(&engine.inactivity()), totals);
        let alerts = told.iter().filter(|alert| matches!(alert.what, AlertKind::Inactive { .. })).count() as u64;
        let sent: u64 = engine.inactivity().iter().map(|rule| rule.groups[0].sent).sum();
        prop_assert_eq!((sent, engine.waiting_alerts()), (alerts, 0));
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Give this number of inputs to the engine.
    Give(usize),
    /// Take a checkpoint, with which at most this number of alerts may be released; `None`: none may.
    Checkpoint(Option<u32>),
    AbandonedCheckpoint(Option<u32>),
    /// Begin a checkpoint in slices, with the same limit of alerts, or continue it.
    CheckpointBitByBit(Option<u32>),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let most = || prop::option::of(0..3_u32);
    let step = prop_oneof![
        8 => (1..12_usize).prop_map(Step::Give),
        4 => most().prop_map(Step::Checkpoint),
        1 => most().prop_map(Step::AbandonedCheckpoint),
        4 => most().prop_map(Step::CheckpointBitByBit),
        2 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

/// A replica: alerts of written checkpoints, alerts that wait for a checkpoint, and how much of the log the checkpoints
/// include.
struct Replica {
    spec: Arc<Spec>,
    engine: Engine,
    chain: Chain,
    sent: Vec<Alert>,
    outbox: Vec<Alert>,
    at: usize,
    written: usize,
    minute: i64,
    /// The alerts of the checkpoint in progress, and how much of the log it includes.
    begun: Option<(Vec<Alert>, usize)>,
}

impl Replica {
    fn new(spec: &Arc<Spec>) -> Replica {
        Replica {
            spec: Arc::clone(spec),
            engine: Engine::new(Arc::clone(spec)),
            chain: Chain::default(),
            sent: Vec::new(),
            outbox: Vec::new(),
            at: 0,
            written: 0,
            minute: 0,
            begun: None,
        }
    }

    /// Runs the steps, one more restart and the rest of the log, and releases all alerts.
    fn run(&mut self, steps: &[Step], log: &[Given]) {
        for step in steps.iter().chain([&Step::Give(usize::MAX), &Step::Checkpoint(Some(1)), &Step::Restart]) {
            self.step(step, log);
        }
        self.step(&Step::Give(usize::MAX), log);
        while self.engine.waiting_alerts() > 0 || !self.outbox.is_empty() {
            self.step(&Step::Checkpoint(Some(2)), log);
        }
    }

    fn step(&mut self, step: &Step, log: &[Given]) {
        match *step {
            Step::Give(count) => {
                for given in log.iter().skip(self.at).take(count) {
                    give(&mut self.engine, &as_input(given));
                    self.at += 1;
                }
            }
            Step::Checkpoint(most) => self.checkpoint(most, true),
            Step::AbandonedCheckpoint(most) => self.checkpoint(most, false),
            Step::CheckpointBitByBit(most) if self.begun.is_none() => {
                self.release(most);
                if self.engine.begin_checkpoint() {
                    self.begun = Some((std::mem::take(&mut self.outbox), self.at));
                }
            }
            Step::CheckpointBitByBit(_) if self.engine.continue_checkpoint(2) => self.finish(),
            Step::CheckpointBitByBit(_) => {}
            Step::Restart => {
                self.begun = None;
                self.engine = self.chain.restore(&self.spec);
                self.at = self.written;
                self.outbox.clear();
            }
        }
    }

    fn release(&mut self, most: Option<u32>) {
        self.minute += 1;
        let allowance = Allowance { minute: self.minute, alerts: most, quiet: most.is_none(), most: 5 };
        self.outbox.extend(self.engine.release(&allowance));
    }

    fn finish(&mut self) {
        if let (Some((alerts, at)), Some(checkpoint)) = (self.begun.take(), self.engine.end_checkpoint()) {
            self.chain.add(checkpoint);
            self.written = at;
            self.sent.extend(alerts);
        }
    }

    fn checkpoint(&mut self, most: Option<u32>, is_written: bool) {
        self.finish();
        self.release(most);
        let Some(checkpoint) = self.engine.checkpoint() else { return };
        if is_written {
            self.chain.add(checkpoint);
            self.written = self.at;
            self.sent.append(&mut self.outbox);
        } else {
            self.engine.roll_back(&checkpoint);
        }
    }
}

proptest! {
    #![proptest_config(cases(600))]
    #[test]
    fn neither_restarts_nor_batches_nor_throttling_change_an_alert(
        history in history(60),
        raises in raises(),
        steps in steps(),
    ) {
        let spec = silent_spec(0, rules());
        let log = log(history, raises);
        let mut steady = Engine::new(Arc::clone(&spec));
        log.iter().for_each(|given| _ = give(&mut steady, &as_input(given)));
        let expected = steady.release(&Allowance::ALL);
        let mut replica = Replica::new(&spec);
        replica.run(&steps, &log);
        // An alert is dropped if its customer is erased while it waits, so a late release may send fewer alerts.
        let erased = log.iter().any(|given| matches!(given, Given::Sent(Sent { fact: Fact::Erase, .. })));
        if erased {
            let known: Vec<_> = sorted(&replica.sent);
            let steady_sent = sorted(&expected);
            prop_assert!(steady_sent.iter().all(|alert| known.contains(alert)));
        } else {
            prop_assert_eq!(&replica.sent, &expected);
        }
        prop_assert_eq!(counted(&replica.engine.inactivity()), counted(&steady.inactivity()));
        for customer in 0..IDS {
            let id = format!("c{customer}");
            prop_assert_eq!(replica.engine.customer(&id), steady.customer(&id));
        }
    }
}

mod changes;
mod spans;
