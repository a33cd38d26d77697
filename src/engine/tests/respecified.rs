//! An engine that goes on under another spec, against one that had it from the beginning.

use super::durable::{Chain, Input, assert_same, give, input};
use super::rates::{self, Rates};
use super::*;

fn feed(engine: &mut Engine, history: &[Sent]) {
    for sent in history {
        give(engine, &input(sent));
    }
}

/// Cuts an engine that was fed under `old`, and goes on under `new`. Its cuts are restored once more at the end.
fn moved(old: &Arc<Spec>, new: &Arc<Spec>, before: &[Sent], after: &[Sent]) -> [Engine; 2] {
    let mut chain = Chain::default();
    let mut engine = Engine::new(Arc::clone(old));
    for part in before.chunks(before.len().div_ceil(3).max(1)) {
        feed(&mut engine, part);
        engine.cut().into_iter().for_each(|cut| chain.add(cut));
    }
    let mut engine = chain.restore(new);
    engine.cut().into_iter().for_each(|cut| chain.add(cut));
    for part in after.chunks(after.len().div_ceil(2).max(1)) {
        feed(&mut engine, part);
        engine.cut().into_iter().for_each(|cut| chain.add(cut));
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

/// Whether the window has seen everything that its figures at pane `p` rest on.
fn has_seen(spec: &Spec, engine: &Engine, window: WindowId, p: Pane) -> bool {
    engine.since(window).is_none_or(|since| spec.is_complete(window, p, Some(since)))
}

proptest! {
    #![proptest_config(cases(300))]

    /// Windows that stay are exact, one that is added is once it has seen everything.
    #[test]
    fn a_window_added_later_becomes_exact(history in history(80), at in 0..80_usize, zone in any::<bool>()) {
        let old = spec("UTC");
        let mut new = spec(if zone { "Europe/Oslo" } else { "UTC" });
        let added = RollingSpec { name: "added".into(), period: 4 * DAY, active_for: 6 * DAY, resolution: 6 * HOUR };
        new.rolling.remove(1);
        new.rolling.insert(0, added);
        new.calendar[0].active_for_days = 40;
        let (old, new) = (Arc::new(old), Arc::new(new));
        let (before, after) = history.split_at(at.min(history.len()));
        let model = model_of(&history);
        let mut steady = Engine::new(Arc::clone(&new));
        feed(&mut steady, &history);
        let mut exact = 0;
        for mut engine in moved(&old, &new, before, after) {
            assert_same_of_all_time(&engine, &steady, &model)?;
            for window in window_ids(&new) {
                let stays = matches!(window, WindowId::Rolling(1..)) || (!zone && window != WindowId::Calendar(0));
                let stays = stays && window != WindowId::Rolling(0);
                prop_assert!(!stays || engine.since(window).is_none(), "{:?}", window);
                for p in panes_to_ask(&new, window, &model) {
                    if has_seen(&new, &engine, window, p) {
                        exact += 1;
                        let mut expected = model.figures(&new, window, p);
                        let mut found = engine.figures_of_pane(window, p).unwrap();
                        prop_assert_eq!(found.since.take(), engine.since(window));
                        found.money.retain(|_, money| *money != MoneyParts::default());
                        expected.money.retain(|_, money| *money != MoneyParts::default());
                        prop_assert_eq!(found, expected, "{:?} at pane {}", window, p);
                    }
                }
            }
        }
        prop_assert!(exact > 0 || model.accepted.is_empty());
    }

    /// Values that are listed no longer are counted with all others, as if they had never been listed.
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

    /// Dimensions that change places, or go and come back, neither mix nor rise from the dead.
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
                engine.cut().into_iter().for_each(|cut| chain.add(cut));
            }
        }
        engine.cut().into_iter().for_each(|cut| chain.add(cut));
        let mut engine = chain.restore(&new);
        feed(&mut engine, after);
        let mut expected = Engine::new(Arc::new(spec("UTC")));
        feed(&mut expected, &history);
        assert_same_segments(&spec("UTC"), &mut engine, &mut expected, &history)?;
    }

    /// Stages and statuses of another definition hold from the change on; of customers who were erased before, nothing
    /// is known.
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

/// A dimension that went and came back is another one: what old cuts say of the values is void.
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
    // So many that a later cut does not hold all of them.
    (0..250).for_each(|customer| feed(&mut engine, &order(customer, 0)));
    chain.add(engine.cut().unwrap());
    for (hours, spec) in [(1, &without), (2, &with), (3, &with)] {
        engine = chain.restore(spec);
        feed(&mut engine, &order(1, hours));
        chain.add(engine.cut().unwrap());
    }
    let window = WindowId::Rolling(0);
    for mut engine in [chain.restore(&with), engine] {
        // An earlier first order makes a customer change hands, which would show a mistaken value.
        (0..250).for_each(|customer| feed(&mut engine, &order(customer, -1)));
        let p = with.pane(window, Time::clamped(ORIGIN + 4 * HOUR));
        let by_value = engine.segment_figures(window, p).into_iter();
        let by_value: BTreeMap<_, _> =
            by_value.map(|(_, value, figures)| (value, figures.unwrap().parts.end)).collect();
        assert_eq!(by_value.get("web"), Some(&250), "{by_value:?}");
        assert!(by_value.iter().all(|(value, &customers)| value == "web" || customers == 0), "{by_value:?}");
    }
}

/// What depends on no definition is the same at once.
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

/// Goes on under each of the specs for a while; returns the engine and what its files make of it.
fn wanders(specs: &[&Spec], part: impl Fn(usize) -> Vec<Input>) -> [Engine; 2] {
    let mut chain = Chain::default();
    for (number, spec) in specs.iter().enumerate() {
        let spec = Arc::new((*spec).clone());
        let mut engine = chain.restore(&spec);
        part(number).iter().for_each(|input| _ = give(&mut engine, input));
        engine.cut().into_iter().for_each(|cut| chain.add(cut));
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
fn a_window_that_goes_and_comes_back_begins_empty() {
    let here = spec("UTC");
    let mut gone = here.clone();
    gone.rolling.remove(2);
    let [mut engine, mut again] = wanders(&[&here, &gone, &here], orders_of_day);
    let money = engine.figures(WindowId::Rolling(2), Time::clamped(ORIGIN + 3 * DAY)).unwrap().money;
    assert_eq!(money.values().map(|money| money.orders).collect::<Vec<_>>(), [4], "no yen");
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
    // A euro and three times 100 yen, at 0.01 euros and at 0.02.
    assert_eq!(told(&[&cheap, &dear], |_| 0), [("EUR", 400 + 700)]);
    assert_eq!(told(&[&cheap, &francs], |part| part), [("CHF", 4 * 300)]);
    assert_eq!(told(&[&cheap, &francs, &cheap], |part| part), [("EUR", 400 + 400)]);
    assert_eq!(told(&[&cheap, &under(None)], |part| part), []);
}

/// Before it is complete, an added window counts what is rare as far as it is known.
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
