//! Compares an engine that is restored under another spec with one that had this spec from the beginning.

use super::durable::{Chain, Input, assert_same, give, input};
use super::figures::CostParts;
use super::known::{FLOWS, Known, Why, needs};
use super::rates::{self, Rates};
use super::*;

fn feed(engine: &mut Engine, history: &[Sent]) {
    for sent in history {
        give(engine, &input(sent));
    }
}

/// Takes checkpoints of an engine under `old` and continues under `new`. At the end, its checkpoints are restored once
/// more.
fn moved(old: &Arc<Spec>, new: &Arc<Spec>, before: &[Sent], after: &[Sent]) -> [Engine; 2] {
    let mut chain = Chain::default();
    let mut engine = Engine::new(Arc::clone(old));
    for part in before.chunks(before.len().div_ceil(3).max(1)) {
        feed(&mut engine, part);
        engine.checkpoint().into_iter().for_each(|checkpoint| chain.add(checkpoint));
    }
    let mut engine = chain.restore(new);
    engine.checkpoint().into_iter().for_each(|checkpoint| chain.add(checkpoint));
    for part in after.chunks(after.len().div_ceil(2).max(1)) {
        feed(&mut engine, part);
        engine.checkpoint().into_iter().for_each(|checkpoint| chain.add(checkpoint));
    }
    let again = chain.restore(new);
    [engine, again]
}

fn model_of(history: &[Sent]) -> Model {
    let mut model = Model::default();
    for sent in history {
        if sent.fact == Fact::Erase {
            model.erase(sent);
        } else {
            model.send(sent);
        }
    }
    model
}

/// An old and a new spec; several definitions may change at once.
fn changed() -> impl Strategy<Value = (Spec, Spec)> {
    let zones = || prop::sample::select(vec!["UTC", "UTC", "Europe/Oslo", "Asia/Kolkata", "Pacific/Apia"]);
    // For each rolling window: by how much A exceeds P, the factor of its resolution, and whether the window exists.
    let rolling = || prop::collection::vec((prop::sample::select(vec![0, 0, 1, 5]), 1..3_i64, any::<bool>()), 4);
    let calendar = || prop::collection::vec((prop::option::of(0..10_i32), any::<bool>()), 4);
    let one = move || (zones(), rolling(), calendar(), any::<bool>(), any::<bool>());
    (one(), one()).prop_map(|(old, new)| (spec_of(old), spec_of(new)))
}

type Definitions = (&'static str, Vec<(i64, i64, bool)>, Vec<(Option<i32>, bool)>, bool, bool);

fn spec_of((zone, rolling, calendar, lifecycle, channel): Definitions) -> Spec {
    let mut spec = spec(zone);
    spec.rolling[3] = RollingSpec { name: "like".into(), period: 3 * DAY, active_for: 8 * DAY, resolution: 2 * HOUR };
    for (window, (more, coarser, _)) in spec.rolling.iter_mut().zip(&rolling) {
        window.resolution *= coarser;
        window.period = (window.period / window.resolution).max(1) * window.resolution;
        window.active_for = (window.active_for / window.resolution).max(1) * window.resolution + more * 2 * DAY;
        window.active_for = window.active_for.max(window.period);
    }
    for (window, (days, _)) in spec.calendar.iter_mut().zip(&calendar) {
        window.active_for_days = days.map(|days| window.unit.longest() + days);
    }
    // At least one window remains.
    let kept: Vec<_> = rolling.iter().map(|(_, _, kept)| *kept).collect();
    spec.rolling = spec
        .rolling
        .into_iter()
        .zip(kept)
        .enumerate()
        .filter(|(i, (_, k))| *i == 0 || *k)
        .map(|(_, (w, _))| w)
        .collect();
    spec.calendar = spec.calendar.into_iter().zip(&calendar).filter(|(_, (_, kept))| *kept).map(|(w, _)| w).collect();
    if lifecycle {
        spec.lifecycle.loyal_orders = 4;
        spec.lifecycle.active_for = 6 * DAY;
    }
    if !channel {
        spec.dimensions.clear();
    }
    spec
}

/// The figures of a window that are plain sums, by their names in the summary.
type Read = fn(&Parts) -> i128;
const SUMS: [(&str, Read); 16] = [
    ("start_customers", |parts| parts.start.into()),
    ("end_customers", |parts| parts.end.into()),
    ("new_customers", |parts| parts.new.into()),
    ("lost_customers", |parts| parts.lost.into()),
    ("ordering_customers", |parts| parts.ordering.into()),
    ("repeat_customers", |parts| parts.repeat.into()),
    ("returning_customers", |parts| parts.returning.into()),
    ("visiting_customers", |parts| parts.visiting.into()),
    ("orders", |parts| parts.orders.into()),
    ("sessions", |parts| parts.sessions.into()),
    ("referred_customers", |parts| parts.referred.into()),
    ("lost_complainers", |parts| parts.lost_complainers.into()),
    ("customers_to_date", |parts| parts.to_date.into()),
    ("costed_customers", |parts| parts.costed.into()),
    ("lifespan_seconds", |parts| parts.repeaters.into()),
    ("lifespan_seconds", |parts| parts.gap_millis),
];

/// Asserts that every known figure equals the expected one. Returns the number of known figures.
fn assert_known_equal(found: &WindowParts, expected: &WindowParts, what: &str) -> Result<usize, TestCaseError> {
    let mut known = 0;
    for (figure, read) in SUMS {
        if found.missing.knows(needs(figure)) {
            known += 1;
            prop_assert_eq!(read(&found.parts), read(&expected.parts), "{} of {}", figure, what);
        }
    }
    let currencies: BTreeSet<_> = found.money.keys().chain(expected.money.keys()).copied().collect();
    for currency in currencies {
        let of = |parts: &WindowParts| parts.money.get(&currency).copied().unwrap_or_default();
        let (mut found_money, mut expected_money) = (of(found), of(expected));
        for money in [&mut found_money, &mut expected_money] {
            if !found.missing.knows(FLOWS) {
                let costs = CostParts { acquisition: 0, retention: 0, ..money.costs };
                *money = MoneyParts { costs, ..MoneyParts::default() };
            }
            if !found.missing.knows(needs("customers_to_date")) {
                money.costs = CostParts { to_date: 0, events_to_date: 0, ..money.costs };
            }
        }
        prop_assert_eq!(found_money, expected_money, "{} of {}", currency, what);
    }
    Ok(known)
}

/// Compares the cells of cohorts that are known.
fn assert_cohorts_known(engine: &Engine, steady: &Engine, at: Time, sizes: bool) -> Result<(), TestCaseError> {
    let from = engine.knowledge().cohorts.cells.unwrap_or(i32::MIN);
    let cells = |engine: &Engine| {
        let cells = engine.cohorts(at).into_iter().filter(|((_, month), _)| *month >= from);
        cells.collect::<BTreeMap<_, _>>()
    };
    prop_assert_eq!(cells(engine), cells(steady));
    let size = |engine: &Engine| {
        let own = engine.cohorts(at).into_iter().filter(|((cohort, month), _)| cohort == month);
        own.map(|((cohort, _), cell)| (cohort, cell.ordering)).collect::<BTreeMap<_, _>>()
    };
    if sizes {
        prop_assert_eq!(size(engine), size(steady));
    }
    Ok(())
}

/// Compares stages where they are known, and transitions since they are counted.
fn assert_lifecycle_known(engine: &Engine, steady: &Engine, model: &Model, erased: bool) -> Result<(), TestCaseError> {
    let known = engine.knowledge().lifecycle;
    let counted = |engine: &Engine, at: Time| engine.lifecycle(at).transitions;
    let since = known.transitions.map(|newest| Time::clamped((newest / HOUR + 1) * HOUR + LATENESS));
    for sent in model.accepted.iter().step_by(3) {
        for later in [0, HOUR, 2 * DAY, 7 * DAY, 30 * DAY] {
            let at = sent.time.plus(later);
            let (found, expected) = (engine.lifecycle(at), steady.lifecycle(at));
            if known.customers.is_none_or(|from| at.millis() >= from) {
                prop_assert_eq!((found.customers, found.prospects), (expected.customers, expected.prospects), "{}", at);
            }
            if !erased && since.is_none_or(|since| at >= since) {
                let before = since.map_or([0; Transition::ALL.len()], |since| counted(steady, since));
                let expected: Vec<_> = expected.transitions.iter().zip(before).map(|(now, then)| now - then).collect();
                prop_assert_eq!(found.transitions.to_vec(), expected, "at {}", at);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(600))]

    /// Whatever changes and whenever: every figure that is shown equals the one over all events, at every pane.
    #[test]
    fn after_any_change_every_figure_is_right_or_missing(
        history in history(80),
        at in 0..80_usize,
        (old, new) in changed(),
    ) {
        let (old, new) = (Arc::new(old), Arc::new(new));
        let (before, after) = history.split_at(at.min(history.len()));
        let model = model_of(&history);
        let mut steady = Engine::new(Arc::clone(&new));
        feed(&mut steady, &history);
        let erased = before.iter().any(|sent| sent.fact == Fact::Erase);
        // A new dimension knows only the attributes of later orders.
        let is_new = old.dimensions.is_empty() && !new.dimensions.is_empty();
        let mut told = Engine::new(Arc::clone(&new));
        for (number, sent) in history.iter().enumerate() {
            let mut sent = sent.clone();
            if let (Fact::Order(_, _, channel, _), true) = (&mut sent.fact, is_new && number < before.len()) {
                *channel = None;
            }
            give(&mut told, &input(&sent));
        }
        for mut engine in moved(&old, &new, before, after) {
            assert_same_of_all_time(&engine, &told, &model)?;
            for window in window_ids(&new) {
                for p in panes_to_ask(&new, window, &model) {
                    let found = engine.figures_of_pane(window, p).unwrap();
                    let expected = model.figures(&new, window, p);
                    assert_known_equal(&found, &expected, &format!("{window:?} at pane {p}"))?;
                }
                for p in panes_to_ask(&new, window, &model).into_iter().step_by(5) {
                    let expected: BTreeMap<_, _> = told
                        .segment_figures(window, p)
                        .into_iter()
                        .map(|(_, value, figures)| (value, figures.unwrap()))
                        .collect();
                    let mut found: BTreeMap<_, _> = engine
                        .segment_figures(window, p)
                        .into_iter()
                        .map(|(_, value, figures)| (value, figures.unwrap()))
                        .collect();
                    for (value, expected) in expected {
                        let Some(found) = found.remove(&value) else {
                            // Nothing was booked for the value, and earlier figures are unknown.
                            let known = engine.knowledge().dimensions[0][engine.index(window)].known;
                            prop_assert!(known != Known::ALWAYS || expected == WindowParts::default(), "{}", value);
                            continue;
                        };
                        assert_known_equal(&found, &expected, &format!("{value} of {window:?} at pane {p}"))?;
                    }
                }
            }
            for sent in model.accepted.iter().step_by(7) {
                assert_cohorts_known(&engine, &steady, sent.time.plus(20 * DAY), !erased)?;
            }
            assert_lifecycle_known(&engine, &steady, &model, erased)?;
        }
    }

    /// Values that are no longer listed count as `other`, as if they had never been listed.
    #[test]
    fn a_value_listed_no_longer_is_one_of_the_others(history in history(60), at in 0..60_usize) {
        let old = spec("UTC");
        let mut new = old.clone();
        new.dimensions[0].values.remove(1);
        let (old, new) = (Arc::new(old), Arc::new(new));
        let (before, after) = history.split_at(at.min(history.len()));
        let mut expected = Engine::new(Arc::clone(&new));
        feed(&mut expected, &history);
        for mut engine in moved(&old, &new, before, after) {
            assert_same_segments(&new, &mut engine, &mut expected, &history)?;
        }
    }

    /// Dimensions that are reordered, or removed and added again, keep their values apart and do not get old ones back.
    #[test]
    fn dimensions_change_places(history in history(60), at in 0..60_usize) {
        let mut old = spec("UTC");
        old.dimensions.insert(0, DimensionSpec { name: "unused".into(), values: Vec::new() });
        let mut new = spec("UTC");
        new.dimensions.push(DimensionSpec { name: "added".into(), values: Vec::new() });
        let attribute_moves = |sent: &Sent| {
            let mut input = input(sent);
            if let Input::Event(_, Event { kind: Kind::Order { attributes, .. }, .. }) = &mut input {
                let mut moved = Attributes::default();
                if let Some(value) = attributes.get(0) {
                    moved.set(1, Cow::Owned(value.to_owned()));
                }
                *attributes = moved;
            }
            input
        };
        let (old, new) = (Arc::new(old), Arc::new(new));
        let (before, after) = history.split_at(at.min(history.len()));
        let mut engine = Engine::new(Arc::clone(&old));
        let mut chain = Chain::default();
        for sent in before {
            give(&mut engine, &attribute_moves(sent));
            if sent.customer == 0 {
                engine.checkpoint().into_iter().for_each(|checkpoint| chain.add(checkpoint));
            }
        }
        engine.checkpoint().into_iter().for_each(|checkpoint| chain.add(checkpoint));
        let mut engine = chain.restore(&new);
        feed(&mut engine, after);
        let mut expected = Engine::new(Arc::new(spec("UTC")));
        feed(&mut expected, &history);
        assert_same_segments(&spec("UTC"), &mut engine, &mut expected, &history)?;
    }

    /// A new definition of stages and statuses applies from the change on; customers who were erased before are
    /// unknown.
    #[test]
    fn another_lifecycle_holds_at_once(history in history(60), at in 0..60_usize) {
        let old = spec("UTC");
        let mut new = old.clone();
        new.lifecycle.loyal_orders = 4;
        new.lifecycle.active_for = 6 * DAY;
        let (old, new) = (Arc::new(old), Arc::new(new));
        let (before, after) = history.split_at(at.min(history.len()));
        let before: Vec<_> = before.iter().filter(|sent| sent.fact != Fact::Erase).cloned().collect();
        let history = [&before, after].concat();
        let mut expected = Engine::new(Arc::clone(&new));
        feed(&mut expected, &history);
        let changed_at = before.iter().map(|sent| sent.time).max().unwrap_or(Time::MIN);
        for engine in moved(&old, &new, &before, after) {
            for sent in history.iter().filter(|sent| sent.time >= changed_at) {
                for later in [HOUR, 2 * DAY, 7 * DAY, 30 * DAY] {
                    let at = sent.time.plus(later);
                    let (found, expected) = (engine.lifecycle(at), expected.lifecycle(at));
                    prop_assert_eq!((found.customers, found.prospects), (expected.customers, expected.prospects));
                }
            }
        }
    }
}

/// A dimension that was removed and added again is another one: the values in old checkpoints are invalid.
#[test]
fn a_dimension_that_comes_back_begins_anew() {
    let with = Arc::new(spec("UTC"));
    let mut without = spec("UTC");
    without.dimensions.clear();
    let without = Arc::new(without);
    let order = |customer: u8, hours: i64| {
        let time = Time::clamped(ORIGIN + hours * HOUR);
        vec![Sent { customer, time, fact: Fact::Order(0, 5, Some("web"), None), id: None }]
    };
    let mut chain = Chain::default();
    let mut engine = Engine::new(Arc::clone(&with));
    // Enough customers that a later checkpoint does not contain all of them.
    (0..250).for_each(|customer| feed(&mut engine, &order(customer, 0)));
    chain.add(engine.checkpoint().unwrap());
    for (hours, spec) in [(1, &without), (2, &with), (3, &with)] {
        engine = chain.restore(spec);
        feed(&mut engine, &order(1, hours));
        chain.add(engine.checkpoint().unwrap());
    }
    let window = WindowId::Rolling(0);
    for mut engine in [chain.restore(&with), engine] {
        // An earlier first order moves a customer to another segment, which would reveal a wrong value.
        (0..250).for_each(|customer| feed(&mut engine, &order(customer, -1)));
        let p = with.pane(window, Time::clamped(ORIGIN + 4 * HOUR));
        let by_value = engine.segment_figures(window, p).into_iter();
        let by_value: BTreeMap<_, _> =
            by_value.map(|(_, value, figures)| (value, figures.unwrap().parts.end)).collect();
        assert_eq!(by_value.get("web"), Some(&250), "{by_value:?}");
        assert!(by_value.iter().all(|(value, &customers)| value == "web" || customers == 0), "{by_value:?}");
    }
}

/// Orders and sessions of three customers, over too long a time for the engine to keep all of them.
fn steady_shop() -> Vec<Input> {
    let sent = |n: i64| Sent {
        customer: (n % 3) as u8,
        time: Time::clamped(ORIGIN + n * 30 * HOUR),
        fact: if n % 4 == 3 { Fact::Session(0) } else { Fact::Order((n % 2) as u8, 100 + n, Some("web"), None) },
        id: None,
    };
    (0..360).map(|n| input(&sent(n))).collect()
}

fn respecified(old: &Spec, new: &Spec) -> Engine {
    let [_, engine] = wanders(&[old, new], |part| if part == 0 { steady_shop() } else { Vec::new() });
    engine
}

/// Figures that do not depend on a changed `active_for` stay known; the others become known at some time.
#[test]
fn another_active_for_leaves_the_flows_alone() {
    let old = spec("UTC");
    let mut new = old.clone();
    new.rolling.iter_mut().for_each(|window| window.active_for *= 2);
    new.calendar.iter_mut().for_each(|window| window.active_for_days = window.active_for_days.map(|days| days + 9));
    let mut engine = respecified(&old, &new);
    let mut steady = Engine::new(Arc::new(new.clone()));
    steady_shop().iter().for_each(|input| _ = give(&mut steady, input));
    let now = engine.clock.newest().unwrap();
    for window in window_ids(&new) {
        for back in [0, 3, 40, 80] {
            let p = new.pane(window, now.plus(-back * DAY));
            let (found, expected) =
                (engine.figures_of_pane(window, p).unwrap(), steady.figures_of_pane(window, p).unwrap());
            assert_eq!(found.money, expected.money);
            assert_known_equal(&found, &expected, "a window").unwrap();
            for figure in ["orders", "sessions", "new_customers", "repeat_ratio", "visiting_customers", "revenue"] {
                assert!(found.missing.knows(needs(figure)), "{figure} of {window:?} {back} days ago");
            }
            assert!(back > 0 || found.missing.knows(needs("end_customers")), "{window:?}");
            let is_short = matches!(window, WindowId::Rolling(_));
            assert!(back < 40 || !is_short || !found.missing.knows(needs("churn_ratio")), "{window:?}");
        }
        assert_eq!(engine.knowledge().windows[engine.index(window)].change.unwrap().why, Why::ActiveFor);
    }
}

/// A coarser resolution changes no figure, and a new window takes over the counts of other windows from before it
/// existed.
#[test]
fn a_window_takes_over_what_finer_ones_counted() {
    let old = spec("UTC");
    let mut new = old.clone();
    new.rolling[0].resolution = 3 * HOUR;
    new.rolling.push(RollingSpec { name: "added".into(), period: 5 * DAY, active_for: 5 * DAY, resolution: HOUR });
    let mut engine = respecified(&old, &new);
    let mut steady = Engine::new(Arc::new(new.clone()));
    steady_shop().iter().for_each(|input| _ = give(&mut steady, input));
    assert_eq!(engine.knowledge().windows[0].known, Known::ALWAYS);
    let added = WindowId::Rolling(4);
    for hours in [0, 100, 1000] {
        let p = new.pane(added, engine.clock.newest().unwrap()) - hours;
        let (found, expected) = (engine.figures_of_pane(added, p).unwrap(), steady.figures_of_pane(added, p).unwrap());
        assert!(assert_known_equal(&found, &expected, "the added window").unwrap() >= 6);
        assert_eq!((found.parts.orders, found.money), (expected.parts.orders, expected.money));
    }
}

/// Days of the other zone begin at whole hours, so their flows are known.
#[test]
fn another_zone_keeps_what_happened() {
    let (old, new) = (spec("UTC"), spec("America/New_York"));
    let mut engine = respecified(&old, &new);
    let mut steady = Engine::new(Arc::new(new.clone()));
    steady_shop().iter().for_each(|input| _ = give(&mut steady, input));
    for (index, window) in window_ids(&new).enumerate().skip(4) {
        assert_eq!(engine.knowledge().windows[index].change.unwrap().why, Why::Zone);
        let day = new.pane(window, engine.clock.newest().unwrap());
        for p in [day, day - 9, day - 33] {
            let (found, expected) =
                (engine.figures_of_pane(window, p).unwrap(), steady.figures_of_pane(window, p).unwrap());
            assert!(found.missing.knows(FLOWS));
            assert_eq!((found.parts.orders, found.parts.sessions), (expected.parts.orders, expected.parts.sessions));
            assert_eq!(found.money, expected.money);
        }
    }
}

/// Compares figures that depend on no definition.
fn assert_same_of_all_time(one: &Engine, other: &Engine, model: &Model) -> Result<(), TestCaseError> {
    for at in model.accepted.iter().step_by(5).map(|sent| sent.time.plus(LATENESS)) {
        prop_assert_eq!(one.totals(at), other.totals(at), "at {}", at);
        prop_assert_eq!(one.distributions(at), other.distributions(at), "at {}", at);
    }
    for id in (0..IDS).map(|customer| format!("c{customer}")) {
        prop_assert_eq!(one.customer(&id), other.customer(&id), "{}", id);
    }
    Ok(())
}

fn assert_same_segments(
    spec: &Spec,
    one: &mut Engine,
    other: &mut Engine,
    history: &[Sent],
) -> Result<(), TestCaseError> {
    for window in window_ids(spec) {
        for p in panes_to_ask(spec, window, &model_of(history)).into_iter().step_by(3) {
            let figures = |engine: &mut Engine| {
                let figures = engine.segment_figures(window, p).into_iter().filter(|(dimension, ..)| *dimension == 0);
                let figures = figures.map(|(_, value, figures)| {
                    let mut figures = figures.unwrap();
                    figures.money.retain(|_, money| *money != MoneyParts::default());
                    (value, figures)
                });
                let nothing = WindowParts::default();
                figures.filter(|(_, figures)| *figures != nothing).collect::<BTreeMap<_, _>>()
            };
            prop_assert_eq!(figures(one), figures(other), "{:?} at pane {}", window, p);
        }
    }
    Ok(())
}

/// Runs an engine under each of the specs in turn; returns it, and the one restored from its checkpoints.
fn wanders(specs: &[&Spec], part: impl Fn(usize) -> Vec<Input>) -> [Engine; 2] {
    let mut chain = Chain::default();
    for (number, spec) in specs.iter().enumerate() {
        let spec = Arc::new((*spec).clone());
        let mut engine = chain.restore(&spec);
        part(number).iter().for_each(|input| _ = give(&mut engine, input));
        engine.checkpoint().into_iter().for_each(|checkpoint| chain.add(checkpoint));
        if number + 1 == specs.len() {
            return [engine, chain.restore(&spec)];
        }
    }
    unreachable!("there is a last spec")
}

/// Four orders of a day, of 100 minor units: on the first day one in euros and three in yen, later all in euros.
fn orders_of_day(day: usize) -> Vec<Input> {
    let order = |n: u8| Sent {
        customer: n,
        time: Time::clamped(ORIGIN + day as i64 * DAY + i64::from(n) * HOUR),
        fact: Fact::Order(u8::from(day == 0 && n > 0), 100, Some(["web", "app"][usize::from(n % 2)]), None),
        id: None,
    };
    (0..4).map(order).map(|sent| input(&sent)).collect()
}

#[test]
fn a_window_that_comes_back_takes_over_what_others_counted() {
    let here = spec("UTC");
    let mut gone = here.clone();
    gone.rolling.remove(2);
    let [mut engine, mut again] = wanders(&[&here, &gone, &here], orders_of_day);
    let figures = engine.figures(WindowId::Rolling(2), Time::clamped(ORIGIN + 3 * DAY)).unwrap();
    // The other windows counted while this one was removed.
    assert_eq!(figures.money.values().map(|money| money.orders).collect::<Vec<_>>(), [9, 3]);
    assert!(figures.missing.knows(FLOWS));
    assert_same(&Arc::new(here), &mut engine, &mut again).unwrap();
}

#[test]
fn a_value_that_is_listed_again_begins_empty() {
    let here = spec("UTC");
    let mut gone = here.clone();
    gone.dimensions[0].values.remove(1);
    let [mut engine, mut again] = wanders(&[&here, &gone, &here], orders_of_day);
    let figures =
        engine.segment_figures(WindowId::Calendar(2), here.pane(WindowId::Calendar(2), engine.clock.newest().unwrap()));
    let orders: BTreeMap<_, _> =
        figures.into_iter().map(|(_, value, parts)| (value, parts.unwrap().parts.orders)).collect();
    assert_eq!(orders.values().sum::<i64>(), 12, "{orders:?}");
    assert_eq!(orders["other"], 6, "{orders:?}");
    assert_same(&Arc::new(here), &mut engine, &mut again).unwrap();
}

#[test]
fn what_is_booked_in_a_reporting_currency_stays_and_another_one_begins_empty() {
    let under = |reporting: Option<Rates>| Spec { rates: reporting, ..spec("UTC") };
    let [yen, euro, franc] = ["JPY", "EUR", "CHF"].map(|code| Currency::from_code(code).unwrap());
    let day = zone::Day::try_from(ORIGIN / DAY).unwrap();
    let rate = |to, from, mantissa| under(Some(Rates::new(to, [(day, from, rates::Rate::new(mantissa, 2).unwrap())])));
    let (cheap, dear, francs) = (rate(euro, yen, 1), rate(euro, yen, 2), rate(franc, euro, 300));
    let told = |specs: &[&Spec], of_day: fn(usize) -> usize| {
        let [engine, again] = wanders(specs, |part| orders_of_day(of_day(part)));
        let [one, other] = [engine, again].map(|mut engine| {
            let figures = engine.figures(WindowId::Rolling(2), engine.clock.newest().unwrap()).unwrap();
            let reporting = figures.money.into_iter().filter(|(currency, _)| currency.is_reporting());
            reporting.map(|(currency, money)| (currency.iso_code(), money.revenue)).collect::<Vec<_>>()
        });
        assert_eq!(one, other);
        one
    };
    // One euro and three times 100 yen, at 0.01 and at 0.02 euros.
    assert_eq!(told(&[&cheap, &dear], |_| 0), [("EUR", 400 + 700)]);
    assert_eq!(told(&[&cheap, &francs], |part| part), [("CHF", 4 * 300)]);
    assert_eq!(told(&[&cheap, &francs, &cheap], |part| part), [("EUR", 400 + 400)]);
    assert_eq!(told(&[&cheap, &under(None)], |part| part), []);
}

/// A new window counts rare events as far as they are known, before it is complete.
#[test]
fn what_is_rare_is_known_in_a_window_added_later() {
    let without = Spec { rolling: spec("UTC").rolling.split_off(1), ..spec("UTC") };
    let with = spec("UTC");
    let facts = [
        (0, Fact::Order(0, 100, Some("web"), Some("c9"))),
        (1, Fact::Feedback("complaint")),
        (2, Fact::Cost(CostKind::Retention, 0, 7)),
    ];
    let sent = |(day, fact)| Sent { customer: 1, time: Time::clamped(ORIGIN + day * DAY), fact, id: None };
    let first: Vec<_> = facts.into_iter().map(|fact| input(&sent(fact))).collect();
    for mut engine in wanders(&[&without, &with], |part| if part == 0 { first.clone() } else { Vec::new() }) {
        // P and A are 3 days.
        let mut at = |day: i64| engine.figures(WindowId::Rolling(0), Time::clamped(ORIGIN + day * DAY)).unwrap();
        let (young, old) = (at(2), at(4));
        assert_eq!((young.parts.new, young.parts.referred), (1, 1));
        assert_eq!((old.parts.lost, old.parts.lost_complainers), (1, 1));
        assert_eq!((old.parts.to_date, old.parts.costed), (1, 1));
        assert_eq!(old.money.values().map(|money| money.costs.to_date).collect::<Vec<_>>(), [7]);
    }
}
