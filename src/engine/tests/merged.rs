//! Compares merged orders of one customer on one civil day with brute force: the time of the first one counts, and the
//! others add their amounts.

use super::durable::{Chain, give, input, rates};
use super::*;
use crate::engine::snapshot::{Periods, Snapshot};
use crate::engine::state::restore::RestoreError;

/// The model with the orders of a day merged, if the spec demands it.
pub(super) fn merged(spec: &Spec, model: &Model) -> Model {
    let mut merged = model.clone();
    if !spec.merge_orders {
        return merged;
    }
    let (mut of_day, mut of_currency) = (BTreeMap::new(), BTreeMap::new());
    for (place, sent) in model.accepted.iter().enumerate() {
        let Fact::Order(currency, ..) = sent.fact else { continue };
        let (day, order) = ((sent.customer, spec.zone.day(sent.time)), (sent.time, place));
        let first = of_day.entry(day).or_insert(order);
        *first = order.min(*first);
        let first = of_currency.entry((day, currency)).or_insert(order);
        *first = order.min(*first);
    }
    for (place, sent) in merged.accepted.iter_mut().enumerate() {
        let Fact::Order(currency, minor, ..) = sent.fact else { continue };
        let day = (sent.customer, spec.zone.day(sent.time));
        if of_day[&day].1 != place {
            sent.fact = Fact::Added(currency, minor, of_currency[&(day, currency)].1 == place);
        }
    }
    merged
}

fn merging(zone: &str) -> Spec {
    Spec { merge_orders: true, ..spec(zone) }
}

/// Many orders of few customers on few days.
fn busy(len: usize) -> impl Strategy<Value = Vec<Sent>> {
    let order = (0..2_u8, 0..10_000_i64, prop::option::of(prop::sample::select(vec!["web", "app", "fax"])), referrer())
        .prop_map(|(currency, minor, channel, referrer)| Fact::Order(currency, minor, channel, referrer));
    let step = prop_oneof![4 => Just(0_i64), 8 => 0..8 * HOUR, 2 => 0..2 * DAY, 1 => 0..20 * DAY];
    let late = prop_oneof![2 => Just(0_i64), 4 => 0..20 * HOUR, 3 => 0..LATENESS];
    let orders = (0..IDS, order, prop::option::weighted(0.5, 0..40_u32), step, late);
    let orders = orders
        .prop_map(|(customer, fact, id, step, late)| (Sent { customer, time: Time::clamped(late), fact, id }, step));
    history_of(prop_oneof![3 => orders, 2 => sent()], len)
}

/// Whether an erasure separates the customer's events exactly; it does not if topics are too far apart.
fn is_exact(model: &Model, sent: &Sent) -> bool {
    let at = model.watermarks[topic(sent)].map_or(sent.time, |mark| mark.max(sent.time));
    sent.fact != Fact::Erase || model.erased_at(sent) == at
}

fn assert_all_equal(spec: &Spec, engine: Engine, model: &Model) -> Result<(), TestCaseError> {
    let all = merged(spec, model);
    let mut engines = [engine];
    assert_equal(spec, &mut engines, &all)?;
    assert_segments_equal(spec, &mut engines, &all)?;
    assert_lifecycle_equal(spec, &engines, &all)?;
    assert_cohorts_equal(spec, &engines, &all)?;
    assert_totals_equal(&engines, &all)?;
    assert_distributions_equal(spec, &engines, &all)?;
    assert_customers_equal(spec, &engines, &all)
}

proptest! {
    #![proptest_config(cases(3_000))]
    #[test]
    fn merged_figures_equal_brute_force(history in busy(40), zone in 0..3_usize, restarts in prop::collection::vec(any::<bool>(), 40)) {
        let spec = Arc::new(merging(["UTC", "America/New_York", "Pacific/Apia"][zone]));
        let (mut engine, mut model, mut chain) = (Engine::new(Arc::clone(&spec)), Model::default(), Chain::default());
        for (place, sent) in history.iter().filter(|sent| sent.fact != Fact::Erase || sent.id.is_some()).enumerate() {
            if !is_exact(&model, sent) {
                continue;
            }
            send(&mut engine, &mut model, sent)?;
            if place % 5 == 4 && restarts[place] {
                if let Some(checkpoint) = engine.checkpoint() {
                    chain.add(checkpoint);
                }
                engine = chain.restore(&spec);
            }
        }
        assert_all_equal(&spec, engine, &model)?;
    }
}

/// A snapshot of the engine, without segments and currencies that are all zero.
fn told(spec: &Spec, engine: &mut Engine, at: Time) -> Snapshot {
    let mut told = Snapshot::empty(spec, at, Periods::Since(engine.first_order().unwrap_or(Time::MIN)));
    told.add(engine);
    for window in told.segments.values_mut().flatten().flatten() {
        window.money.retain(|_, money| *money != MoneyParts::default());
    }
    let is_something = |window: &WindowParts| *window != WindowParts::default();
    told.segments.retain(|_, windows| windows.iter().flatten().any(is_something));
    told
}

proptest! {
    #![proptest_config(cases(1_000))]
    #[test]
    fn the_order_of_arrival_changes_nothing(history in busy(30), reporting in any::<bool>(), seed in any::<u64>()) {
        let mut spec = merging("Europe/Oslo");
        // Long enough that no order of arrival makes an event late.
        spec.allowed_lateness = 2_000 * DAY;
        spec.rates = reporting.then(|| rates("EUR"));
        let spec = Arc::new(spec);
        // Of several orders at one time, and of several events of one id, the first to arrive counts.
        let mut times = BTreeSet::new();
        let plain = |sent: &&Sent| sent.fact != Fact::Erase;
        let given: Vec<_> = history.iter().filter(plain).filter(|sent| times.insert((sent.customer, sent.time))).collect();
        let unidentified = |sent: &Sent| Sent { id: None, ..sent.clone() };
        let mut shuffled: Vec<_> = given.iter().map(|sent| unidentified(sent)).collect();
        let mut state = seed;
        for place in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            shuffled.swap(place, (state >> 33) as usize % (place + 1));
        }
        let (mut one, mut other) = (Engine::new(Arc::clone(&spec)), Engine::new(Arc::clone(&spec)));
        // Currencies are listed in the order of their first use.
        for (customer, currency) in (0..IDS).flat_map(|customer| [(customer, 0), (customer, 1)]) {
            let time = Time::clamped(ORIGIN - DAY);
            let refund = Sent { customer, time, fact: Fact::Refund(currency, 1), id: None };
            [&mut one, &mut other].into_iter().for_each(|engine| _ = give(engine, &input(&refund)));
        }
        given.iter().for_each(|sent| _ = give(&mut one, &input(&unidentified(sent))));
        shuffled.iter().for_each(|sent| _ = give(&mut other, &input(sent)));
        for customer in 0..IDS {
            let id = format!("c{customer}");
            prop_assert_eq!(one.customer(&id), other.customer(&id));
        }
        let now = one.clock.newest().unwrap_or(Time::MIN).millis();
        for back in [20 * DAY, 3 * DAY, DAY, 5 * HOUR, HOUR, 0, -DAY, -9 * DAY] {
            let at = Time::clamped(now - back);
            prop_assert_eq!(told(&spec, &mut one, at), told(&spec, &mut other, at), "at {}", at);
        }
    }
}

proptest! {
    #![proptest_config(cases(1_000))]
    #[test]
    fn a_merged_order_counts_once_in_the_reporting_currency(history in busy(40)) {
        let spec = Arc::new(Spec { rates: Some(rates("EUR")), ..merging("America/New_York") });
        let (mut engine, mut model) = (Engine::new(Arc::clone(&spec)), Model::default());
        for sent in history.iter().filter(|sent| sent.fact != Fact::Erase) {
            send(&mut engine, &mut model, sent)?;
        }
        let reporting = spec.rates.as_ref().unwrap().reporting();
        let rates = spec.rates.as_ref().unwrap();
        let mut converted = Vec::new();
        for sent in &model.accepted {
            if let Fact::Order(currency, minor, ..) = sent.fact
                && let Some(minor) = rates.convert(money(currency, minor), spec.zone.day(sent.time))
            {
                converted.push((sent, i128::from(minor)));
            }
        }
        let mut firsts = BTreeMap::<_, Time>::new();
        for (sent, _) in &converted {
            let first = firsts.entry((sent.customer, spec.zone.day(sent.time))).or_insert(sent.time);
            *first = sent.time.min(*first);
        }
        for window in window_ids(&spec) {
            for p in panes_to_ask(&spec, window, &model).into_iter().step_by(3) {
                let open = spec.axis(window).opens(p);
                let within = |time: Time| (open + 1..=p).contains(&spec.pane(window, time));
                let revenue: i128 = converted.iter().filter(|(sent, _)| within(sent.time)).map(|(_, minor)| minor).sum();
                let orders = firsts.values().filter(|first| within(**first)).count() as i64;
                let found = engine.figures_of_pane(window, p).unwrap().money.get(&reporting).cloned().unwrap_or_default();
                prop_assert_eq!((found.orders, found.revenue), (orders, revenue), "{:?} at pane {}", window, p);
            }
        }
    }
}

fn at(hours: i64) -> Time {
    Time::clamped(ORIGIN + hours * HOUR)
}

fn order(hours: i64, currency: u8, minor: i64, channel: &'static str) -> Sent {
    Sent { customer: 1, time: at(hours), fact: Fact::Order(currency, minor, Some(channel), None), id: None }
}

#[test]
fn the_first_order_of_a_civil_day_stands_whenever_it_arrives() {
    let mut engine = Engine::new(Arc::new(merging("UTC")));
    for sent in [order(20, 0, 300, "web"), order(15, 1, 50, "app"), order(9, 0, 200, "app"), order(30, 0, 10, "web")] {
        assert_eq!(engine.apply(0, &event(&sent)), Outcome::Applied);
    }
    let customer = engine.customer("c1").unwrap();
    assert_eq!((customer.orders, customer.first_order, customer.last_order), (2, Some(at(9)), Some(at(30))));
    assert_eq!(customer.segments, ["app"], "as the first order says");
    let day = engine.figures(WindowId::Rolling(0), at(30)).unwrap();
    assert_eq!((day.parts.orders, day.parts.repeat, day.parts.ordering), (2, 1, 1));
    let [eur, jpy] = [0, 1].map(|currency| day.money[&money(currency, 0).currency]);
    assert_eq!(((eur.orders, eur.revenue), (jpy.orders, jpy.revenue)), ((2, 510), (1, 50)));
    let before = engine.figures(WindowId::Rolling(0), at(8)).unwrap();
    assert_eq!((before.parts.orders, before.money[&money(0, 0).currency].orders), (0, 0));
    let values = engine.distributions(at(30)).order_value;
    assert_eq!((values[&money(0, 0).currency].count, values[&money(0, 0).currency].sum), (2, 510));
}

#[test]
fn days_are_those_of_the_zone() {
    for (zone, orders) in [("UTC", 2), ("Europe/Oslo", 1), ("America/New_York", 1)] {
        let mut engine = Engine::new(Arc::new(merging(zone)));
        // 23:00 and 00:30 UTC.
        let (late, early) = (order(23, 0, 1, "web"), Sent { time: at(24).plus(HOUR / 2), ..order(24, 0, 1, "web") });
        [late, early].iter().for_each(|sent| _ = engine.apply(0, &event(sent)));
        assert_eq!(engine.customer("c1").unwrap().orders, orders, "{zone}");
    }
}

#[test]
fn a_state_that_counted_orders_differently_is_refused() {
    let (apart, together) = (Arc::new(spec("UTC")), Arc::new(merging("UTC")));
    let elsewhere = Arc::new(merging("Europe/Oslo"));
    for (before, after) in [(&apart, &together), (&together, &apart), (&together, &elsewhere)] {
        let mut engine = Engine::new(Arc::clone(before));
        engine.apply(0, &event(&order(0, 0, 1, "web")));
        let checkpoint = engine.checkpoint().unwrap();
        assert!(Engine::restore(before, &[Some(0), Some(1)], &[&checkpoint]).is_ok());
        let refused = Engine::restore(after, &[Some(0), Some(1)], &[&checkpoint]).unwrap_err();
        assert_eq!(refused, RestoreError::MergedOrders);
    }
}
