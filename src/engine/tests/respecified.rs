//! An engine that goes on under another spec, against one that had it from the beginning.

use super::durable::{Chain, Input, give};
use super::*;

fn feed(engine: &mut Engine, history: &[Sent]) {
    for sent in history {
        give(engine, &Input::Event(topic(sent), event(sent)));
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
    history.iter().for_each(|sent| _ = model.send(sent));
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
        let mut exact = 0;
        for mut engine in moved(&old, &new, before, after) {
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
            let mut event = event(sent);
            if let Kind::Order { attributes, .. } = &mut event.kind {
                let mut moved = Attributes::default();
                if let Some(value) = attributes.get(0) {
                    moved.set(1, Cow::Owned(value.to_owned()));
                }
                *attributes = moved;
            }
            event
        };
        let (old, new) = (Arc::new(old), Arc::new(new));
        let (before, after) = history.split_at(at.min(history.len()));
        let mut engine = Engine::new(Arc::clone(&old));
        let mut chain = Chain::default();
        for sent in before {
            give(&mut engine, &Input::Event(topic(sent), attribute_moves(sent)));
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

    /// Stages and statuses of another definition hold from the change on.
    #[test]
    fn another_lifecycle_holds_at_once(history in history(60), at in 0..60_usize) {
        let old = spec("UTC");
        let mut new = old.clone();
        new.lifecycle.loyal_orders = 4;
        new.lifecycle.active_for = 6 * DAY;
        let (old, new) = (Arc::new(old), Arc::new(new));
        let (before, after) = history.split_at(at.min(history.len()));
        let mut expected = Engine::new(Arc::clone(&new));
        feed(&mut expected, &history);
        let changed_at = before.iter().map(|sent| sent.time).max().unwrap_or(Time::MIN);
        for engine in moved(&old, &new, before, after) {
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
        vec![Sent { customer, time, fact: Fact::Order(0, 5, Some("web")), id: None }]
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
