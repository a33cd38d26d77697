//! Compares distributions and single customers with their definitions.

use super::further::{firsts, standing};
use super::*;
use crate::engine::distribution::{Distribution, DistributionParts, GAPS, Scale, order_values};

/// Times of the orders of each customer, ascending.
fn order_times(model: &Model) -> BTreeMap<u8, Vec<Time>> {
    let mut times = BTreeMap::<u8, Vec<Time>>::new();
    for sent in model.accepted.iter().filter(|sent| matches!(sent.fact, Fact::Order(..))) {
        times.entry(sent.customer).or_default().push(sent.time);
    }
    times.values_mut().for_each(|times| times.sort_unstable());
    times
}

pub(super) fn assert_distributions_equal(spec: &Spec, engines: &[Engine], model: &Model) -> Result<(), TestCaseError> {
    let orders = order_times(model);
    let instants = model.accepted.iter().step_by(4).map(|sent| sent.time.millis());
    for at in instants.flat_map(|time| [time, time + LATENESS, time + LATENESS + HOUR, time + 100 * DAY]) {
        let at = Time::clamped(at);
        let mut found = DistributionParts::default();
        engines.iter().for_each(|engine| found += &engine.distributions(at));
        let settled = at.plus(-spec.allowed_lateness).millis() / HOUR;
        let gaps_of = |times: &[Time]| {
            let counts = |pair: &&[Time]| pair[1].millis() / HOUR < settled;
            times.windows(2).filter(counts).map(|pair| pair[1].millis() - pair[0].millis()).collect::<Vec<_>>()
        };
        let all = orders.values().flat_map(|times| gaps_of(times)).collect();
        let second = orders.values().flat_map(|times| gaps_of(&times[..times.len().min(2)])).collect();
        assert_spread(&found.interpurchase.expect("nothing was folded"), GAPS, all)?;
        assert_spread(&found.second_order.expect("nothing was folded"), GAPS, second)?;
        let values = values_of_orders(spec, model);
        prop_assert!(found.order_value.keys().eq(values.keys()));
        for (currency, values) in values {
            assert_spread(&found.order_value[&currency], order_values(currency), values)?;
        }
    }
    Ok(())
}

/// Order values by currency; with merged orders, those of a day are added up.
fn values_of_orders(spec: &Spec, model: &Model) -> BTreeMap<Currency, Vec<i64>> {
    let mut orders = BTreeMap::<_, i64>::new();
    for (place, sent) in model.accepted.iter().enumerate() {
        if let Fact::Order(currency, minor, ..) | Fact::Added(currency, minor, _) = sent.fact {
            let apart = if spec.merge_orders { 0 } else { place };
            let key = (money(currency, 0).currency, sent.customer, spec.zone.day(sent.time), apart);
            *orders.entry(key).or_default() += minor;
        }
    }
    let mut values = BTreeMap::<Currency, Vec<i64>>::new();
    orders.into_iter().for_each(|((currency, ..), minor)| values.entry(currency).or_default().push(minor));
    values
}

/// Count, sum and counts up to the bounds are exact; quantiles are exact to 4 %.
fn assert_spread(found: &Distribution, scale: Scale, mut values: Vec<i64>) -> Result<(), TestCaseError> {
    values.sort_unstable();
    prop_assert_eq!(found.count, values.len() as i64);
    prop_assert_eq!(found.sum, values.iter().map(|&value| i128::from(value)).sum::<i128>());
    let upto = |bound: &i64| values.iter().filter(|&value| value <= bound).count() as i64;
    prop_assert_eq!(found.cumulative(scale), scale.iter().map(upto).collect::<Vec<_>>());
    let told =
        found.values(scale).flat_map(|(value, count)| std::iter::repeat_n(value, usize::try_from(count).unwrap()));
    let told: Vec<_> = told.collect();
    prop_assert_eq!(told.len(), values.len());
    for (told, exact) in told.into_iter().zip(values) {
        prop_assert!((told - exact).abs() * 100 <= 4 * exact, "{} instead of {}", told, exact);
    }
    Ok(())
}

pub(super) fn assert_customers_equal(spec: &Spec, engines: &[Engine], model: &Model) -> Result<(), TestCaseError> {
    let (orders, firsts) = (order_times(model), firsts(model));
    for id in 0..IDS {
        // The current identity of the id.
        let customer = model.current(id);
        let own: Vec<_> = model.accepted.iter().filter(|sent| sent.customer == customer).collect();
        let found: Vec<_> = engines.iter().filter_map(|engine| engine.customer(&format!("c{id}"))).collect();
        prop_assert_eq!(found.len(), usize::from(!own.is_empty()), "who did nothing is unknown");
        let Some(found) = found.first() else { continue };
        let times = orders.get(&customer).map_or(&[][..], Vec::as_slice);
        let sessions = || own.iter().filter(|sent| matches!(sent.fact, Fact::Session(_)));
        prop_assert_eq!((found.orders as usize, found.sessions as usize), (times.len(), sessions().count()));
        prop_assert_eq!((found.first_order, found.last_order), (times.first().copied(), times.last().copied()));
        prop_assert_eq!(found.last_session, sessions().map(|sent| sent.time).max());
        let at_now = standing(&spec.lifecycle, times, found.now.millis() / HOUR);
        prop_assert_eq!(found.standing.map(|(stage, status)| (stage as usize, status as usize)), at_now);
        let channel = firsts.get(&customer).map_or("none", |(_, channel)| channel);
        prop_assert_eq!(found.segments.iter().map(String::as_str).collect::<Vec<_>>(), [channel]);
        let first_order = own.iter().filter(|sent| matches!(sent.fact, Fact::Order(..))).min_by_key(|sent| sent.time);
        let names = |sent: &&&Sent| matches!(sent.fact, Fact::Order(_, _, _, Some(by)) | Fact::Profile(Some(by)) if !by.is_empty());
        let in_profile = own.iter().any(|sent| matches!(sent.fact, Fact::Profile(_)) && names(&sent));
        prop_assert_eq!(found.referred, first_order.as_ref().is_some_and(names) || in_profile);
        prop_assert_eq!(found.complained, own.iter().any(|sent| sent.fact == Fact::Feedback("complaint")));
        let mut net = BTreeMap::<Currency, i64>::new();
        for sent in own {
            let (currency, by) = match sent.fact {
                Fact::Order(currency, minor, _, _) | Fact::Added(currency, minor, _) => (currency, minor),
                Fact::Refund(currency, minor) | Fact::Cancel(currency, minor) => (currency, -minor),
                _ => continue,
            };
            *net.entry(money(currency, 0).currency).or_default() += by;
        }
        prop_assert_eq!(found.net_revenue.iter().copied().collect::<BTreeMap<_, _>>(), net);
    }
    Ok(())
}

fn order(customer: u8, millis: i64, currency: u8) -> Sent {
    Sent { customer, time: Time::clamped(ORIGIN + millis), fact: Fact::Order(currency, 100, None, None), id: None }
}

#[test]
fn settled_hours_are_folded_and_what_still_changes_in_them_counts() {
    let mut folding = spec("UTC");
    folding.history = Some(40 * DAY);
    let (mut folded, mut kept) = (Engine::new(Arc::new(folding)), Engine::new(Arc::new(spec("UTC"))));
    let mut both = |topic: usize, sent: &Sent| {
        for engine in [&mut folded, &mut kept] {
            assert_eq!(engine.apply(topic, &event(sent)), Outcome::Applied);
        }
        (folded.distributions(sent.time), kept.distributions(sent.time))
    };
    for n in 0..3_000_i64 {
        let sent = order((n * n % 7) as u8, n * 3 * HOUR - (n * 7_919) % DAY, 0);
        let (folded, kept) = both(0, &sent);
        assert_eq!(folded, kept, "{}", sent.time);
        assert!(folded.interpurchase.is_some_and(|gaps| n < 100 || gaps.count > n / 2));
    }
    // A topic that begins long after the other one: its orders are in folded hours.
    let now = Time::clamped(ORIGIN + 3_000 * 3 * HOUR);
    for (day, customer) in [(100, 8), (101, 8), (101, 9), (103, 8), (102, 8)] {
        both(1, &order(customer, day * DAY, 1));
    }
    assert_eq!(folded.distributions(now), kept.distributions(now));
    let early = folded.distributions(now.plus(-20 * DAY));
    assert_eq!((early.interpurchase, early.second_order), (None, None), "no longer known");
    assert_eq!(early.order_value, kept.distributions(now).order_value);
    assert!(folded.state_bytes() < kept.state_bytes());
}

#[test]
fn nothing_is_left_of_an_erased_customers_money() {
    let mut engine = Engine::new(Arc::new(spec("UTC")));
    engine.apply(0, &event(&order(1, 0, 0)));
    engine.apply(0, &event(&order(1, HOUR, 1)));
    assert_eq!(engine.customer("c1").unwrap().net_revenue.len(), 2);
    assert!(engine.erase(0, "c1", None));
    assert_eq!(engine.customer("c1"), None);
    // The next customer gets the same slot.
    engine.apply(0, &event(&order(2, DAY, 0)));
    assert_eq!(engine.customer("c2").unwrap().net_revenue, [(money(0, 0).currency, 100)]);
    let spread = engine.distributions(Time::clamped(ORIGIN + 100 * DAY));
    assert_eq!(spread.interpurchase.unwrap().count, 1, "what happened stays counted");
}
