//! Compares every figure with a brute-force computation over all events that follows the definitions literally.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::inactivity::InactivitySpec;
use super::lifecycle::{LifecycleSpec, Transition};
use super::segments::DimensionSpec;
use super::spec::{CalendarSpec, RollingSpec, Spec, WindowId};
use super::zone::{Unit, Zone};
use super::*;
use crate::effort::effort;
use crate::event::{Attributes, CostKind, DAY, HOUR, MINUTE, Money};

const LATENESS: i64 = 2 * DAY;
const ORIGIN: i64 = 15_000 * DAY;

pub(crate) fn spec(zone: &str) -> Spec {
    let rolling = |name: &str, period: i64, active_for: i64, resolution: i64| RollingSpec {
        name: name.into(),
        period,
        active_for,
        resolution,
    };
    let calendar = |unit, active_for_days| CalendarSpec { unit, active_for_days: Some(active_for_days) };
    Spec {
        rolling: vec![
            rolling("equal", 3 * DAY, 3 * DAY, HOUR),
            rolling("longer", 2 * DAY, 5 * DAY, 12 * HOUR),
            rolling("coarse", 8 * DAY, 12 * DAY, DAY),
            rolling("fine", 30 * MINUTE, 50 * MINUTE, 5 * MINUTE),
        ],
        calendar: vec![
            calendar(Unit::Month, 31),
            calendar(Unit::Quarter, 95),
            calendar(Unit::Year, 400),
            calendar(Unit::Week, 11),
        ],
        zone: Zone::new(&TimeZone::get(zone).unwrap()),
        allowed_lateness: LATENESS,
        // Longer than any history here; the expiry of ids has tests of its own in `dedup`.
        dedup_for: 7_000 * DAY,
        history: None,
        topics: vec![true, false],
        dimensions: vec![DimensionSpec { name: "channel".into(), values: vec!["web".into(), "app".into()] }],
        merge_orders: false,
        lifecycle: LifecycleSpec { active_for: 10 * DAY, at_risk_cadence: 1.5, at_risk_min: 5 * HOUR, loyal_orders: 3 },
        rates: None,
        inactivity: InactivitySpec::default(),
    }
}

/// An event of the model.
#[derive(Debug, Clone, PartialEq)]
enum Fact {
    /// Currency, amount, channel and referrer.
    Order(u8, i64, Option<&'static str>, Option<&'static str>),
    Refund(u8, i64),
    Cancel(u8, i64),
    Session(u8),
    /// The referrer, if any.
    Profile(Option<&'static str>),
    Feedback(&'static str),
    Cost(CostKind, u8, i64),
    /// The customer is erased.
    Erase,
    /// Only in the model, with merged orders: a later order of a day, and whether it is the first in its currency.
    Added(u8, i64, bool),
}

#[derive(Debug, Clone)]
struct Sent {
    customer: u8,
    time: Time,
    fact: Fact,
    id: Option<u32>,
}

const CURRENCIES: [&str; 2] = ["EUR", "JPY"];

fn money(currency: u8, minor: i64) -> Money {
    Money { minor, currency: Currency::from_code(CURRENCIES[usize::from(currency)]).unwrap() }
}

fn event(sent: &Sent) -> Event<'static> {
    let id = sent.id.map(|id| Cow::Owned(id.to_string()));
    let kind = match sent.fact {
        Fact::Order(currency, minor, channel, referred_by) => {
            let mut attributes = Attributes::default();
            if let Some(channel) = channel {
                attributes.set(0, Cow::Borrowed(channel));
            }
            Kind::Order { id, amount: money(currency, minor), attributes, referred_by: referred_by.map(Cow::Borrowed) }
        }
        Fact::Refund(currency, minor) => Kind::Refund { id, amount: money(currency, minor) },
        Fact::Cancel(currency, minor) => Kind::Cancel { order: id, amount: money(currency, minor) },
        Fact::Session(_) => Kind::Session { id },
        Fact::Profile(referred_by) => {
            Kind::Customer { attributes: Attributes::default(), referred_by: referred_by.map(Cow::Borrowed) }
        }
        Fact::Feedback(kind) => Kind::Feedback { kind: Cow::Borrowed(kind), score: None },
        Fact::Cost(kind, currency, minor) => Kind::Cost { kind, amount: money(currency, minor) },
        Fact::Erase | Fact::Added(..) => unreachable!("no event"),
    };
    Event { customer: Cow::Owned(id_of(sent)), time: sent.time, kind }
}

fn id_of(sent: &Sent) -> String {
    format!("c{}", sent.customer)
}

/// Sends a fact to the engine and to the model, which must return the same outcome.
fn send(engine: &mut Engine, model: &mut Model, sent: &Sent) -> Result<(), TestCaseError> {
    if sent.fact == Fact::Erase {
        engine.erase(topic(sent), &id_of(sent), Some(sent.time));
        model.erase(sent);
    } else {
        prop_assert_eq!(engine.apply(topic(sent), &event(sent)), model.send(sent), "{:?}", sent);
    }
    Ok(())
}

fn topic(sent: &Sent) -> usize {
    let is_other = sent.fact == Fact::Erase && sent.id.is_some_and(|id| id.is_multiple_of(3));
    usize::from(is_other || matches!(sent.fact, Fact::Session(_)))
}

/// The type of events that can have an id.
fn type_of(fact: &Fact) -> Option<u8> {
    match fact {
        Fact::Order(..) => Some(0),
        Fact::Refund(..) => Some(1),
        Fact::Cancel(..) => Some(2),
        Fact::Session(_) => Some(3),
        Fact::Profile(_) | Fact::Feedback(_) | Fact::Cost(..) | Fact::Erase | Fact::Added(..) => None,
    }
}

/// The accepted events in log order, as an analyst would store them. Customers are identities: an id is another
/// identity after each erasure.
#[derive(Default, Clone)]
struct Model {
    accepted: Vec<Sent>,
    seen: BTreeSet<(u8, u8, u32)>,
    watermarks: [Option<Time>; 2],
    /// Times of the erasures of each id.
    erased: BTreeMap<u8, BTreeSet<Time>>,
}

/// Number of customer ids.
const IDS: u8 = 3;

impl Model {
    fn send(&mut self, sent: &Sent) -> Outcome {
        let mark = &mut self.watermarks[topic(sent)];
        let too_late = mark.is_some_and(|mark| sent.time.millis() < mark.millis() - LATENESS);
        if let (Some(kind), Some(id)) = (type_of(&sent.fact), sent.id) {
            let identity = (sent.customer, kind, id);
            if self.seen.contains(&identity) {
                return Outcome::Duplicate;
            }
            if !too_late {
                self.seen.insert(identity);
            }
        }
        if too_late {
            return Outcome::TooLate;
        }
        *mark = (*mark).max(Some(sent.time));
        self.accepted.push(Sent { customer: self.identity(sent.customer, sent.time), ..sent.clone() });
        Outcome::Applied
    }

    /// The identity of the customer of an event: id and number of its erasures before the event.
    fn identity(&self, id: u8, time: Time) -> u8 {
        id + IDS * self.erased.get(&id).map_or(0, |times| times.range(..time).count() as u8)
    }

    /// The current identity of an id.
    fn current(&self, id: u8) -> u8 {
        id + IDS * self.erased.get(&id).map_or(0, |times| times.len() as u8)
    }

    /// The effective time of an erasure: its own time, but not before the watermark of its topic; nor, if topics are
    /// further apart than events may be late, before events that can no longer be separated.
    fn erased_at(&self, sent: &Sent) -> Time {
        let at = self.watermarks[topic(sent)].map_or(sent.time, |mark| mark.max(sent.time));
        let newest = self.watermarks.iter().flatten().max().map_or(Time::MIN, |mark| mark.plus(-LATENESS));
        let limit = self.watermarks.iter().map(|mark| mark.unwrap_or(Time::MIN)).min().unwrap().max(newest);
        let whose = self.identity(sent.customer, at);
        let own = self.accepted.iter().filter(|sent| sent.customer == whose && at < limit);
        let minute = |time: Time| Time::clamped(time.millis() / MINUTE * MINUTE);
        let reaches = own.filter_map(|sent| match sent.fact {
            Fact::Order(..) => Some(sent.time).filter(|time| *time <= limit),
            Fact::Session(_) => Some(minute(sent.time))
                .filter(|minute| *minute <= limit)
                .map(|minute| minute.plus(MINUTE - 1).min(limit)),
            _ => None,
        });
        reaches.max().unwrap_or(at).max(at)
    }

    fn erase(&mut self, sent: &Sent) {
        let at = self.erased_at(sent);
        let times = self.erased.entry(sent.customer).or_default();
        let first = self.watermarks[topic(sent)].map_or(sent.time, |mark| mark.max(sent.time));
        if times.range(first..=at).next().is_some() {
            return;
        }
        times.insert(at);
        let mut accepted = std::mem::take(&mut self.accepted);
        for sent in accepted.iter_mut() {
            sent.customer = self.identity(sent.customer % IDS, sent.time);
        }
        self.accepted = accepted;
    }

    /// The panes of each customer's events of one kind.
    fn panes(&self, spec: &Spec, window: WindowId, wanted: impl Fn(&Fact) -> bool) -> BTreeMap<u8, Vec<Pane>> {
        let mut panes = BTreeMap::<u8, Vec<Pane>>::new();
        for sent in self.accepted.iter().filter(|sent| wanted(&sent.fact)) {
            panes.entry(sent.customer).or_default().push(spec.pane(window, sent.time));
        }
        panes
    }

    fn figures(&self, spec: &Spec, window: WindowId, p: Pane) -> WindowParts {
        let orders = self.panes(spec, window, |fact| matches!(fact, Fact::Order(..)));
        let sessions = self.panes(spec, window, |fact| matches!(fact, Fact::Session(_)));
        let (a, open) = (spec.active_for(window), spec.axis(window).opens(p));
        let count = |wanted: &dyn Fn(&[Pane]) -> bool| orders.values().filter(|panes| wanted(panes)).count() as i64;
        let within =
            |panes: &[Pane], after: Pane, upto: Pane| panes.iter().filter(|&&o| after < o && o <= upto).count();
        let active = |panes: &[Pane], at: Pane| within(panes, spec.axis(window).active_since(at, a) - 1, at) > 0;
        let total = |panes: &BTreeMap<u8, Vec<Pane>>| panes.values().map(|o| within(o, open, p)).sum::<usize>() as i64;
        let parts = Parts {
            start: count(&|o| active(o, open)),
            end: count(&|o| active(o, p)),
            new: count(&|o| o.iter().min().is_some_and(|&first| open < first && first <= p)),
            lost: count(&|o| active(o, open) && !active(o, p)),
            ordering: count(&|o| within(o, open, p) >= 1),
            repeat: count(&|o| within(o, open, p) >= 2),
            returning: count(&|o| within(o, open, p) >= 1 && within(o, Pane::MIN, p) >= 2),
            visiting: sessions.values().filter(|o| within(o, open, p) > 0).count() as i64,
            orders: total(&orders),
            sessions: total(&sessions),
            referred: self.referred(spec, window, open, p),
            lost_complainers: self.lost_complainers(spec, window, open, p),
            to_date: count(&|o| within(o, Pane::MIN, p) >= 1),
            costed: self.costed(spec, window, p),
            repeaters: count(&|o| within(o, Pane::MIN, p) >= 2),
            gap_millis: self.gaps(spec, window, p),
            money: Vec::new(),
        };
        WindowParts { parts, money: self.money(spec, window, open, p), ..WindowParts::default() }
    }

    /// Sum over all customers of the time from the first to the last order, of orders in panes up to `p`.
    fn gaps(&self, spec: &Spec, window: WindowId, p: Pane) -> i128 {
        let mut times = BTreeMap::<u8, Vec<i64>>::new();
        for sent in self.accepted.iter().filter(|sent| matches!(sent.fact, Fact::Order(..))) {
            if spec.pane(window, sent.time) <= p {
                times.entry(sent.customer).or_default().push(sent.time.millis());
            }
        }
        times.values().map(|t| i128::from(t.iter().max().unwrap() - t.iter().min().unwrap())).sum()
    }

    fn money(&self, spec: &Spec, window: WindowId, open: Pane, p: Pane) -> BTreeMap<Currency, MoneyParts> {
        let mut money = BTreeMap::<Currency, MoneyParts>::new();
        for sent in &self.accepted {
            let pane = spec.pane(window, sent.time);
            let counts = open < pane && pane <= p;
            let (Fact::Order(currency, minor, ..)
            | Fact::Added(currency, minor, _)
            | Fact::Refund(currency, minor)
            | Fact::Cancel(currency, minor)
            | Fact::Cost(_, currency, minor)) = sent.fact
            else {
                continue;
            };
            let till = money.entry(self::money(currency, minor).currency).or_default();
            match sent.fact {
                Fact::Cost(kind, ..) => add_cost(&mut till.costs, kind, minor, counts, pane <= p),
                _ if !counts => {}
                Fact::Order(..) => {
                    till.orders += 1;
                    till.revenue += i128::from(minor);
                }
                Fact::Added(_, _, is_first) => {
                    till.orders += i64::from(is_first);
                    till.revenue += i128::from(minor);
                }
                Fact::Refund(..) => till.refunds += i128::from(minor),
                _ => till.cancellations += i128::from(minor),
            }
        }
        money
    }
}

fn referrer() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![None, None, Some(""), Some("c9")])
}

fn sent() -> impl Strategy<Value = (Sent, i64)> {
    let fact = prop_oneof![
        8 => (0..2_u8, 0..10_000_i64, prop::option::of(prop::sample::select(vec!["web", "app", "fax"])), referrer())
            .prop_map(|(currency, minor, channel, referrer)| Fact::Order(currency, minor, channel, referrer)),
        1 => (0..2_u8, 0..10_000_i64).prop_map(|(currency, minor)| Fact::Refund(currency, minor)),
        1 => (0..2_u8, 0..10_000_i64).prop_map(|(currency, minor)| Fact::Cancel(currency, minor)),
        4 => Just(Fact::Session(0)),
        2 => prop::sample::select(vec![None, Some(""), Some("c8"), Some("c9")]).prop_map(Fact::Profile),
        2 => prop::sample::select(vec!["complaint", "complaint", "praise", "Complaint", "other"])
            .prop_map(Fact::Feedback),
        2 => (any::<bool>(), 0..2_u8, 0..10_000_i64).prop_map(|(keeps, currency, minor)| {
            Fact::Cost(if keeps { CostKind::Retention } else { CostKind::Acquisition }, currency, minor)
        }),
        1 => Just(Fact::Erase),
    ];
    // Steps from zero to weeks, so that every figure lapses now and then; lateness from zero to too much.
    let step = prop_oneof![3 => Just(0_i64), 6 => 0..HOUR, 3 => 0..2 * DAY, 1 => 0..40 * DAY];
    let late = prop_oneof![2 => Just(0_i64), 1 => 0..HOUR, 6 => 0..LATENESS, 1 => LATENESS..LATENESS + DAY];
    // Few ids for many events, so that some ids occur again in other events.
    let id = prop::option::weighted(0.8, 0..25_u32);
    (0..IDS, fact, id, step, late).prop_map(|(customer, fact, id, step, late)| {
        // The time is the lateness for now; `history` turns steps into times.
        (Sent { customer, time: Time::clamped(late), fact, id }, step)
    })
}

/// Events in log order, out of order in time, with duplicates.
fn history(len: usize) -> impl Strategy<Value = Vec<Sent>> {
    history_of(sent(), len)
}

/// As `history`, for given events, each with the step of time before it.
fn history_of(sent: impl Strategy<Value = (Sent, i64)>, len: usize) -> impl Strategy<Value = Vec<Sent>> {
    let again = prop::option::weighted(0.4, any::<prop::sample::Index>());
    prop::collection::vec((sent, again), 1..len).prop_map(|steps| {
        let mut now = ORIGIN;
        let mut history = Vec::<Sent>::new();
        for ((mut sent, step), again) in steps {
            now += step;
            sent.time = Time::clamped(now - sent.time.millis());
            let identified = |sent: &&Sent| sent.id.is_some() && type_of(&sent.fact).is_some();
            let lately: Vec<_> = history.iter().rev().filter(identified).take(3).cloned().collect();
            history.push(match again {
                Some(index) if !lately.is_empty() => index.get(&lately).clone(),
                _ => sent,
            });
        }
        history
    })
}

/// The share that runs all histories that the effort of the tests demands.
const FIGURES: u32 = 3_000;

/// `share` / [`FIGURES`] of the histories that the effort of the tests demands, at least one.
fn cases(share: u32) -> ProptestConfig {
    let cases = u64::from(share) * u64::from(effort().histories) / u64::from(FIGURES);
    let cases = u32::try_from(cases).unwrap_or(u32::MAX).max(1);
    ProptestConfig { max_shrink_iters: 500, ..ProptestConfig::with_cases(cases) }
}

/// The panes at which figures may change, with their neighbours: those of events, of leaving the window and of lapsing.
fn panes_to_ask(spec: &Spec, window: WindowId, model: &Model) -> BTreeSet<Pane> {
    let a = spec.active_for(window);
    let axis = spec.axis(window);
    let mut panes = BTreeSet::new();
    for sent in &model.accepted {
        let pane = spec.pane(window, sent.time);
        for edge in [pane, axis.leaves(pane), axis.lapses(pane, a), axis.leaves(axis.lapses(pane, a))] {
            panes.extend([edge - 1, edge, edge + 1]);
        }
    }
    panes
}

fn assert_equal(spec: &Spec, engines: &mut [Engine], model: &Model) -> Result<(), TestCaseError> {
    for window in window_ids(spec) {
        for p in panes_to_ask(spec, window, model) {
            let mut sum = WindowParts::default();
            for engine in engines.iter_mut() {
                sum += &engine.figures_of_pane(window, p).expect("nothing was folded");
            }
            let expected = model.figures(spec, window, p);
            prop_assert_eq!(&sum, &expected, "{:?} at pane {}", window, p);
        }
    }
    Ok(())
}

pub(crate) mod durable;
mod further;
mod interleaved;
mod merged;
mod rare;
mod reporting;
mod respecified;
mod silent;
mod spread;
use further::{assert_cohorts_equal, assert_lifecycle_equal, assert_segments_equal};
use rare::{add_cost, assert_totals_equal};
use spread::{assert_customers_equal, assert_distributions_equal};

proptest! {
    #![proptest_config(cases(FIGURES))]
    #[test]
    fn figures_equal_brute_force(history in history(40), zone in 0..4_usize, parts in 1..4_usize) {
        let zone = ["UTC", "Europe/Oslo", "America/New_York", "Pacific/Apia"][zone];
        let spec = Arc::new(spec(zone));
        let mut engines: Vec<_> = (0..parts).map(|_| Engine::new(Arc::clone(&spec))).collect();
        let mut models: Vec<_> = (0..parts).map(|_| Model::default()).collect();
        for sent in &history {
            let part = usize::from(sent.customer) % parts;
            send(&mut engines[part], &mut models[part], sent)?;
        }
        let erased = models.iter().flat_map(|model| model.erased.clone()).collect();
        let accepted = models.into_iter().flat_map(|model| model.accepted).collect();
        let all = Model { accepted, erased, ..Model::default() };
        assert_equal(&spec, &mut engines, &all)?;
        assert_segments_equal(&spec, &mut engines, &all)?;
        assert_lifecycle_equal(&spec, &engines, &all)?;
        assert_cohorts_equal(&spec, &engines, &all)?;
        assert_totals_equal(&engines, &all)?;
        assert_distributions_equal(&spec, &engines, &all)?;
        assert_customers_equal(&spec, &engines, &all)?;
    }
}

#[test]
fn an_erased_customer_is_lost_in_due_time_and_a_new_one_afterwards() {
    let spec = Arc::new(spec("UTC"));
    let mut engine = Engine::new(Arc::clone(&spec));
    let order = |id: u32, day: i64| Sent {
        customer: 1,
        time: Time::clamped(ORIGIN + day * DAY),
        fact: Fact::Order(0, 100, None, None),
        id: Some(id),
    };
    assert_eq!(engine.apply(0, &event(&order(1, 0))), Outcome::Applied);
    assert!(engine.erase(0, "c1", None));
    assert!(!engine.erase(0, "c1", None));
    assert_eq!(engine.tracked_customers(), 0);
    assert_eq!(engine.apply(0, &event(&order(1, 0))), Outcome::Duplicate);
    assert_eq!(engine.tracked_customers(), 0, "a redelivered order brings nobody back");
    assert_eq!(engine.apply(0, &event(&order(2, 1))), Outcome::Applied);
    let at = |day: i64| Time::clamped(ORIGIN + day * DAY);
    let figures = engine.figures(WindowId::Rolling(0), at(1)).unwrap().parts;
    assert_eq!((figures.new, figures.end, figures.orders), (2, 2, 2));
    let later = engine.figures(WindowId::Rolling(0), at(4)).unwrap().parts;
    assert_eq!((later.start, later.lost), (2, 2));
}

#[test]
fn a_copy_of_the_event_that_moved_time_on_is_a_copy() {
    let mut short = spec("UTC");
    short.dedup_for = 3 * DAY;
    let mut engine = Engine::new(Arc::new(short));
    let order = |id: u32, day: i64| Sent {
        customer: 1,
        time: Time::clamped(ORIGIN + day * DAY),
        fact: Fact::Order(0, 100, None, None),
        id: Some(id),
    };
    for (sent, outcome) in [
        (order(1, 0), Outcome::Applied),
        (order(2, 30), Outcome::Applied),
        (order(2, 30), Outcome::Duplicate),
        (order(2, 29), Outcome::Duplicate),
        (order(1, 0), Outcome::TooLate),
    ] {
        assert_eq!(engine.apply(0, &event(&sent)), outcome, "{sent:?}");
    }
}

#[test]
fn a_value_that_only_later_orders_name_takes_no_place() {
    let mut unlisted = spec("UTC");
    unlisted.dimensions[0].values.clear();
    let mut engine = Engine::new(Arc::new(unlisted));
    let mut order = |customer: u8, hour: i64, channel: &str| {
        let time = Time::clamped(ORIGIN + hour * HOUR);
        let sent = Sent { customer, time, fact: Fact::Order(0, 100, None, None), id: None };
        let mut event = event(&sent);
        if let Kind::Order { attributes, .. } = &mut event.kind {
            attributes.set(0, channel.to_owned().into());
        }
        assert_eq!(engine.apply(0, &event), Outcome::Applied);
    };
    order(1, 0, "web");
    (1..=60).for_each(|hour| order(1, hour, &format!("channel {hour}")));
    order(2, 61, "app");
    let p = engine.spec().pane(WindowId::Rolling(0), Time::clamped(ORIGIN + 61 * HOUR));
    let found = engine.segment_figures(WindowId::Rolling(0), p);
    let names: Vec<_> = found.iter().filter(|(dimension, ..)| *dimension == 0).map(|(_, name, _)| name).collect();
    assert_eq!(names, ["none", "web", "app"]);
    assert!(!engine.segments_overflowed().any(|overflowed| overflowed));
}

#[test]
fn a_series_equals_the_figures_of_its_panes_and_reaches_into_the_future() {
    let spec = Arc::new(spec("Europe/Oslo"));
    let (mut engine, mut model) = (Engine::new(Arc::clone(&spec)), Model::default());
    for n in 0..400_i64 {
        let time = Time::clamped(ORIGIN + n * 7 * HOUR - (n * 7_919) % DAY);
        let sent = Sent { customer: (n * n % 7) as u8, time, fact: rare::nth(n), id: None };
        assert_eq!(engine.apply(0, &event(&sent)), model.send(&sent));
    }
    for window in window_ids(&spec) {
        let (from, to) =
            (spec.pane(window, Time::clamped(ORIGIN)), spec.pane(window, Time::clamped(ORIGIN + 200 * DAY)));
        let step = usize::try_from((to - from) / 50).unwrap().max(1);
        for ask_twice in 0..2 {
            let series = engine.series(window, from, to);
            for (p, figures) in (from..).zip(&series).step_by(step) {
                assert_eq!(figures.as_ref(), Some(&model.figures(&spec, window, p)), "{window:?} {p} {ask_twice}");
            }
        }
        let last = engine.series(window, to, to);
        assert_eq!(last[0].as_ref().unwrap().parts.end, model.figures(&spec, window, to).parts.end);
    }
}

#[test]
fn folded_history_changes_no_figure_that_can_still_be_asked_for() {
    let mut folded_spec = spec("UTC");
    folded_spec.history = Some(40 * DAY);
    let (folding, keeping) = (Arc::new(folded_spec), Arc::new(spec("UTC")));
    let (mut folded, mut kept) = (Engine::new(Arc::clone(&folding)), Engine::new(Arc::clone(&keeping)));
    for n in 0..3_000_i64 {
        let time = Time::clamped(ORIGIN + n * 3 * HOUR - (n * 7_919) % DAY);
        let sent = Sent { customer: (n * n % 7) as u8, time, fact: rare::nth(n), id: None };
        for engine in [&mut folded, &mut kept] {
            assert_eq!(engine.apply(0, &event(&sent)), Outcome::Applied);
        }
        if n % 50 == 0 {
            for window in window_ids(&folding) {
                let figures = folded.figures(window, time);
                assert!(figures.is_some());
                assert_eq!(figures, kept.figures(window, time), "{window:?} {time}");
            }
        }
    }
    assert!(folded.state_bytes() < kept.state_bytes() / 2);
    assert_eq!(folded.figures(WindowId::Rolling(0), Time::clamped(ORIGIN + 50 * DAY)), None);
}
