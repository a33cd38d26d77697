//! Random sets of rules of every kind, with durations from a minute to two years and gaps in the same range: rules must
//! not affect each other, however different they are.

use super::*;

const LONGEST: i64 = 730 * DAY;

/// From a minute to two years, with all magnitudes equally likely.
fn span() -> impl Strategy<Value = i64> {
    let magnitudes = (LONGEST as f64 / MINUTE as f64).ln();
    (0.0..1.0).prop_map(move |x: f64| (MINUTE as f64 * (magnitudes * x).exp()) as i64)
}

fn silence() -> impl Strategy<Value = SilenceRule> {
    let bounds = (span(), span()).prop_map(|(one, other)| (one.min(other), one.max(other)));
    prop_oneof![
        4 => span().prop_map(SilenceRule::After),
        2 => (0.1..4.0, bounds).prop_map(|(factor, (min, max))| SilenceRule::Cadence { factor, min, max }),
        2 => span().prop_map(SilenceRule::NoSessionFor),
    ]
}

fn filter() -> impl Strategy<Value = Filter> {
    let value = prop::sample::select(vec!["web", "app", "other", "unknown", "none"]);
    prop_oneof![
        6 => Just(Filter::default()),
        1 => prop::sample::subsequence(vec![0, 1, 2, 3], 1..4)
            .prop_map(|stages| Filter { stages, ..Filter::default() }),
        1 => (1..5_u32).prop_map(|min_orders| Filter { min_orders, ..Filter::default() }),
        1 => (0..2_u8, 0..20_000_i64)
            .prop_map(|(currency, minor)| Filter { min_revenue: Some(money(currency, minor)), ..Filter::default() }),
        1 => value.prop_map(|value| Filter { segment: vec![(0, value.into())], ..Filter::default() }),
    ]
}

fn any_rules(most: usize) -> impl Strategy<Value = Vec<RuleSpec>> {
    let rules = prop::collection::vec((silence(), filter()), 1..=most);
    rules.prop_map(|rules| {
        let named = rules.into_iter().enumerate();
        named.map(|(i, (silence, filter))| RuleSpec { name: format!("rule {i}"), silence, filter }).collect()
    })
}

fn wide_spec() -> impl Strategy<Value = InactivitySpec> {
    let settle = prop_oneof![Just(LATENESS), (LATENESS..20 * DAY)];
    (any_rules(6), settle, span(), prop::sample::select(vec![0.0, 0.4])).prop_map(
        |(rules, settle, winback_within, holdout)| InactivitySpec {
            rules,
            settle,
            since: Some(Time::MIN),
            holdout,
            salt: "pepper".into(),
            winback_within,
        },
    )
}

/// Long windows with fine panes would take most of the time.
fn slim(inactivity: InactivitySpec) -> Arc<Spec> {
    let mut slim = Spec { inactivity, ..spec("UTC") };
    slim.rolling.retain(|window| window.name == "coarse");
    slim.calendar.clear();
    Arc::new(slim)
}

fn wide_history(len: usize) -> impl Strategy<Value = Vec<Sent>> {
    let step = prop_oneof![1 => Just(0), 6 => span()];
    history_of((sent(), step).prop_map(|((sent, _), step)| (sent, step)), len)
}

/// Moves time far beyond the end of the log.
fn the_end() -> [Given; 2] {
    [0, 1].map(|topic| Given::Raise(topic, Time::clamped(ORIGIN + 200 * LONGEST)))
}

fn names_nobody_erased(log: &[Given]) -> bool {
    !log.iter().any(|given| matches!(given, Given::Sent(Sent { fact: Fact::Erase, .. })))
}

fn of_rule(alerts: &[Alert], rule: &str) -> Vec<String> {
    let of: Vec<_> = alerts.iter().filter(|alert| alert.rule == rule).cloned().collect();
    sorted(&of)
}

proptest! {
    #![proptest_config(cases(1_500))]
    #[test]
    fn any_rules_over_any_gaps_equal_brute_force(
        history in wide_history(60),
        raises in raises(),
        inactivity in wide_spec(),
        is_quiet in prop::bool::weighted(0.2),
    ) {
        let spec = slim(inactivity);
        let mut given = log(history, raises);
        if !is_quiet {
            given.extend(the_end());
        }
        let (mut engine, mut story, mut told) = (Engine::new(Arc::clone(&spec)), Story::new(&spec), Vec::new());
        for given in &given {
            story.take(given);
            give(&mut engine, &as_input(given));
            told.extend(engine.release(&Allowance::ALL));
        }
        let (expected, totals) = story.tell(&spec);
        let expected: Vec<_> = expected.into_iter().map(|(_, alert)| alert).collect();
        prop_assert_eq!(sorted(&told), sorted(&expected));
        prop_assert_eq!(counted(&engine.inactivity()), totals);
    }
}

proptest! {
    #![proptest_config(cases(600))]
    #[test]
    fn any_rules_over_restarts_equal_brute_force(
        history in wide_history(60),
        raises in raises(),
        inactivity in wide_spec(),
        steps in steps(),
    ) {
        let spec = slim(inactivity);
        let mut log = log(history, raises);
        log.extend(the_end());
        let mut story = Story::new(&spec);
        log.iter().for_each(|given| _ = story.take(given));
        let (expected, totals) = story.tell(&spec);
        let expected: Vec<_> = expected.into_iter().map(|(_, alert)| alert).collect();
        let mut replica = Replica::new(&spec);
        replica.run(&steps, &log);
        let sent = sorted(&replica.sent);
        // An alert that waits while its customer is erased is never released.
        if names_nobody_erased(&log) {
            prop_assert_eq!(&sent, &sorted(&expected));
        } else {
            prop_assert!(sent.iter().all(|alert| sorted(&expected).contains(alert)));
        }
        prop_assert_eq!(counted(&replica.engine.inactivity()), totals);
    }
}

proptest! {
    #![proptest_config(cases(600))]
    /// The alerts of a rule depend only on that rule, even while others are added, changed and removed.
    #[test]
    fn rules_that_come_and_go_change_nothing_about_one_that_stays(
        history in wide_history(60),
        raises in raises(),
        inactivity in wide_spec(),
        others in prop::collection::vec((1..20_usize, any_rules(5)), 1..5),
    ) {
        let alone = slim(InactivitySpec { rules: vec![inactivity.rules[0].clone()], ..inactivity.clone() });
        let mut log = log(history, raises);
        log.extend(the_end());
        let mut steady = Engine::new(Arc::clone(&alone));
        log.iter().for_each(|given| _ = give(&mut steady, &as_input(given)));
        let expected = steady.release(&Allowance::ALL);
        let stays = RuleSpec { name: "stays".into(), ..inactivity.rules[0].clone() };
        let with = |mut rules: Vec<RuleSpec>| {
            let place = rules.len() / 2;
            rules.insert(place, stays.clone());
            slim(InactivitySpec { rules, ..inactivity.clone() })
        };
        let mut replica = Replica::new(&with(inactivity.rules.clone()));
        for (count, rules) in others {
            replica.step(&Step::Give(count), &log);
            replica.step(&Step::Checkpoint(None), &log);
            replica.spec = with(rules);
            replica.step(&Step::Restart, &log);
        }
        replica.step(&Step::Give(usize::MAX), &log);
        let renamed: Vec<_> = expected.into_iter().map(|alert| Alert { rule: "stays".into(), ..alert }).collect();
        if names_nobody_erased(&log) {
            let told = replica.engine.release(&Allowance::ALL);
            prop_assert_eq!(of_rule(&told, "stays"), sorted(&renamed));
        }
        let counts = |engine: &Engine, rule: &str| counted(&engine.inactivity()).remove(rule);
        prop_assert_eq!(counts(&replica.engine, "stays"), counts(&steady, &inactivity.rules[0].name));
    }
}

/// A customer who comes back after the shorter silence was due falls silent again before the longer one is due.
#[test]
fn a_shorter_rule_is_not_missed_while_a_longer_one_waits() {
    let day = |text: &str| Time::parse(&format!("2024-{text}T00:00:00Z")).unwrap();
    let after = |name: &str, days| RuleSpec {
        name: name.into(),
        silence: SilenceRule::After(days * DAY),
        filter: Filter::default(),
    };
    let mut spec = Spec::clone(&silent_spec(0, vec![after("short", 14), after("long", 90)]));
    (spec.inactivity.holdout, spec.inactivity.winback_within) = (0.0, 30 * DAY);
    let mut engine = Engine::new(Arc::new(spec));
    for (customer, at) in [(0, "01-01"), (1, "02-20"), (0, "02-25"), (1, "03-20"), (1, "12-01")] {
        let sent = Sent { customer, time: day(at), fact: Fact::Order(0, 100, None, None), id: None };
        assert_eq!(engine.apply(0, &event(&sent)), Outcome::Applied);
    }
    let told: Vec<_> = engine
        .release(&Allowance::ALL)
        .into_iter()
        .map(|alert| (alert.customer, alert.rule, alert.due_at.to_string()[..10].to_owned()))
        .collect();
    let of = |customer: &str, rule: &str| -> Vec<_> {
        told.iter().filter(|(who, by, _)| (who.as_str(), by.as_str()) == (customer, rule)).map(|(.., at)| at).collect()
    };
    assert_eq!(of("c0", "short"), ["2024-01-15", "2024-03-10"]);
    assert_eq!(of("c0", "long"), ["2024-05-25"]);
    // The event that advances time is the customer's own order: the silence counts, but causes no alert.
    assert!(of("c1", "short").is_empty() && of("c1", "long").is_empty());
    let due = engine.inactivity().into_iter().map(|rule| rule.groups[0].due).collect::<Vec<_>>();
    assert_eq!(due, [4, 2]);
}

/// Each return after a silence leaves an entry in the wheel, which is removed by the time the longest silence would be
/// due.
#[test]
fn returns_after_a_silence_gather_few_entries() {
    let after = |name: &str, days| RuleSpec {
        name: name.into(),
        silence: SilenceRule::After(days * DAY),
        filter: Filter::default(),
    };
    let (customers, every, longest) = (20, 16, 160);
    let mut engine = Engine::new(silent_spec(0, vec![after("short", 10), after("long", longest)]));
    for round in 0..200_i64 {
        for customer in 0..customers {
            let time = Time::clamped(ORIGIN + round * every * DAY + i64::from(customer) * HOUR);
            let sent = Sent { customer, time, fact: Fact::Order(0, 1, None, None), id: None };
            engine.apply(0, &event(&sent));
        }
        engine.release(&Allowance::ALL);
        let most = (longest / every + 2) as usize * usize::from(customers);
        assert!(engine.inactivity.entries() <= most, "{} entries in round {round}", engine.inactivity.entries());
    }
}
