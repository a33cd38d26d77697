//! Compares segments, stages and cohorts with their definitions.

use super::*;

/// Time and channel of each customer's first order; of several at the same time, the first in log order.
pub(super) fn firsts(model: &Model) -> BTreeMap<u8, (Time, &'static str)> {
    let mut firsts = BTreeMap::<u8, (Time, &'static str)>::new();
    for sent in &model.accepted {
        if let Fact::Order(_, _, channel, _) = sent.fact {
            let channel = match channel {
                None => "unknown",
                Some("fax") => "other",
                Some(listed) => listed,
            };
            let first = firsts.entry(sent.customer).or_insert((sent.time, channel));
            if sent.time < first.0 {
                *first = (sent.time, channel);
            }
        }
    }
    firsts
}

pub(super) fn assert_segments_equal(spec: &Spec, engines: &mut [Engine], model: &Model) -> Result<(), TestCaseError> {
    let firsts = firsts(model);
    for window in window_ids(spec) {
        for p in panes_to_ask(spec, window, model).into_iter().step_by(3) {
            let mut found = BTreeMap::<String, WindowParts>::new();
            for engine in engines.iter_mut() {
                for (dimension, value, figures) in engine.segment_figures(window, p) {
                    prop_assert_eq!(dimension, 0);
                    *found.entry(value).or_default() += &figures.expect("nothing was folded");
                }
            }
            for value in ["none", "unknown", "other", "web", "app"] {
                let mut expected = expected_segment(spec, window, p, model, &firsts, value);
                let mut found = found.remove(value).unwrap_or_default();
                expected.money.retain(|_, money| *money != MoneyParts::default());
                found.money.retain(|_, money| *money != MoneyParts::default());
                prop_assert_eq!(&found, &expected, "{:?} {} at pane {}", window, value, p);
            }
            prop_assert!(found.is_empty());
        }
    }
    Ok(())
}

/// The figures of a segment: its customers' events from the first order on; for `none`, events before any first order.
fn expected_segment(
    spec: &Spec,
    window: WindowId,
    p: Pane,
    model: &Model,
    firsts: &BTreeMap<u8, (Time, &'static str)>,
    value: &str,
) -> WindowParts {
    let owner = |sent: &Sent| match firsts.get(&sent.customer) {
        Some((first, channel)) if sent.time >= *first => channel,
        _ => "none",
    };
    // Profiles and complaints count for the customer whenever they arrive; costs are not counted by segment.
    let counts = |sent: &&Sent| match sent.fact {
        Fact::Profile(_) | Fact::Feedback(_) => firsts.get(&sent.customer).is_some_and(|first| first.1 == value),
        Fact::Cost(..) => false,
        _ => owner(sent) == value,
    };
    let own = model.accepted.iter().filter(counts).cloned().collect();
    let mut figures = Model { accepted: own, ..Model::default() }.figures(spec, window, p);
    // A visitor counts with all visits in the segment to which the customer belongs at the pane.
    let belongs = |customer: u8| match firsts.get(&customer) {
        Some((first, channel)) if spec.pane(window, *first) <= p => *channel == value,
        _ => value == "none",
    };
    let visitors = model.panes(spec, window, |fact| matches!(fact, Fact::Session(_)));
    let open = spec.axis(window).opens(p);
    let visits = |panes: &[Pane]| panes.iter().any(|&pane| open < pane && pane <= p);
    figures.parts.visiting = visitors.iter().filter(|(c, panes)| belongs(**c) && visits(panes)).count() as i64;
    figures
}

/// Stage and status at an hour of a customer with these order times; `None` without an order so far.
pub(super) fn standing(spec: &LifecycleSpec, orders: &[Time], hour: i64) -> Option<(usize, usize)> {
    let hour_of = |time: &Time| time.millis() / HOUR;
    let so_far: Vec<_> = orders.iter().filter(|order| hour_of(order) <= hour).collect();
    let (first, last) = (so_far.first()?.millis(), so_far.last()?);
    let n = so_far.len();
    let threshold = match n {
        1 | 2 => 0.5 * spec.active_for as f64,
        _ => (spec.at_risk_cadence * (last.millis() - first) as f64 / (n - 1) as f64)
            .max(spec.at_risk_min as f64)
            .min(0.75 * spec.active_for as f64),
    };
    let silent = hour - hour_of(last);
    let status = if silent >= spec.active_for / HOUR {
        2
    } else if silent >= (threshold / HOUR as f64).ceil() as i64 {
        1
    } else {
        0
    };
    let stage = match n {
        1 => 0,
        _ if n >= spec.loyal_orders as usize && status != 2 => 2,
        _ => 1,
    };
    Some((stage, status))
}

pub(super) fn assert_lifecycle_equal(spec: &Spec, engines: &[Engine], model: &Model) -> Result<(), TestCaseError> {
    let mut orders = BTreeMap::<u8, Vec<Time>>::new();
    let mut seen = BTreeMap::<u8, Time>::new();
    for sent in &model.accepted {
        let first = seen.entry(sent.customer).or_insert(sent.time);
        *first = (*first).min(sent.time);
        if matches!(sent.fact, Fact::Order(..)) {
            orders.entry(sent.customer).or_default().push(sent.time);
        }
    }
    orders.values_mut().for_each(|times| times.sort_unstable());
    let Some((from, to)) =
        model.accepted.iter().map(|s| s.time.millis() / HOUR).fold(None, |range, hour| match range {
            None => Some((hour, hour)),
            Some((low, high)) => Some((hour.min(low), hour.max(high))),
        })
    else {
        return Ok(());
    };
    let mut transitions = [0_i64; Transition::ALL.len()];
    for hour in from - 1..to + 300 {
        let mut expected = LifecycleParts::default();
        for (customer, seen) in &seen {
            let times = orders.get(customer).map_or(&[][..], Vec::as_slice);
            let (now, before) = (standing(&spec.lifecycle, times, hour), standing(&spec.lifecycle, times, hour - 1));
            match now {
                Some((stage, status)) => expected.customers[stage][status] += 1,
                None if seen.millis() / HOUR <= hour => expected.prospects += 1,
                None => {}
            }
            pass(&mut transitions, before, now);
        }
        let at = Time::clamped(hour * HOUR + HOUR / 2);
        let mut found = LifecycleParts::default();
        engines.iter().for_each(|engine| found += &engine.lifecycle.parts(at, at.plus(HOUR)));
        expected.transitions = transitions;
        prop_assert_eq!(found, expected, "hour {}", hour);
    }
    Ok(())
}

/// Counts the transitions of one customer from one hour to the next.
fn pass(counts: &mut [i64], before: Option<(usize, usize)>, now: Option<(usize, usize)>) {
    let mut count = |transition: Transition, happened: bool| counts[transition as usize] += i64::from(happened);
    let status = |standing: Option<(usize, usize)>| standing.map(|(_, status)| status);
    let stage = |standing: Option<(usize, usize)>| standing.map(|(stage, _)| stage);
    count(Transition::FirstOrder, before.is_none() && now.is_some());
    count(Transition::ToAtRisk, status(before) == Some(0) && status(now) == Some(1));
    count(Transition::ToLapsed, status(before) == Some(1) && status(now) == Some(2));
    count(Transition::Recovered, status(before) == Some(1) && status(now) == Some(0));
    count(Transition::Reactivated, status(before) == Some(2) && status(now) == Some(0));
    count(Transition::SecondOrder, matches!(stage(before), None | Some(0)) && matches!(stage(now), Some(1 | 2)));
    count(Transition::BecameLoyal, stage(before) != Some(2) && stage(now) == Some(2));
    count(Transition::LostLoyalty, stage(before) == Some(2) && stage(now) != Some(2));
}

pub(super) fn assert_cohorts_equal(spec: &Spec, engines: &[Engine], model: &Model) -> Result<(), TestCaseError> {
    let firsts = firsts(model);
    let month = |time: Time| zone::month_of(spec.zone.day(time));
    for sent in model.accepted.iter().step_by(4) {
        let today = spec.zone.day(sent.time);
        let mut expected = BTreeMap::<(i32, i32), CohortFigures>::new();
        let mut ordered = BTreeSet::new();
        for other in model.accepted.iter().filter(|other| spec.zone.day(other.time) <= today) {
            let (Fact::Order(currency, minor, ..)
            | Fact::Added(currency, minor, _)
            | Fact::Refund(currency, minor)
            | Fact::Cancel(currency, minor)) = other.fact
            else {
                continue;
            };
            // Money returned before the first order belongs to no cohort.
            let Some((first, _)) = firsts.get(&other.customer).filter(|(first, _)| *first <= other.time) else {
                continue;
            };
            let months = (month(*first), month(other.time));
            let cell = expected.entry(months).or_default();
            let money = cell.money.entry(money(currency, 0).currency).or_default();
            match other.fact {
                Fact::Refund(..) => money.refunds += i128::from(minor),
                Fact::Cancel(..) => money.cancellations += i128::from(minor),
                Fact::Added(..) => money.revenue += i128::from(minor),
                _ => {
                    money.revenue += i128::from(minor);
                    cell.orders += 1;
                    cell.ordering += i64::from(ordered.insert((other.customer, months.1)));
                }
            }
        }
        expected.values_mut().for_each(|cell| cell.money.retain(|_, money| !money.is_nothing()));
        expected.retain(|_, cell| *cell != CohortFigures::default());
        let mut found = BTreeMap::<(i32, i32), CohortFigures>::new();
        for (months, figures) in engines.iter().flat_map(|engine| engine.cohorts(sent.time)) {
            *found.entry(months).or_default() += &figures;
        }
        prop_assert_eq!(found, expected);
    }
    Ok(())
}
