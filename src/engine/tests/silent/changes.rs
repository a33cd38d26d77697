//! Rules that are added, removed and changed, and single histories with a known outcome.

use super::*;

fn one_order(customer: u8, day: i64) -> Given {
    let fact = Fact::Order(0, 100, None, None);
    Given::Sent(Sent { customer, time: Time::clamped(ORIGIN + day * DAY), fact, id: None })
}

fn after(name: &str, days: i64) -> RuleSpec {
    RuleSpec { name: name.into(), silence: SilenceRule::After(days * DAY), filter: Filter::default() }
}

/// One order of `c0`, then time passes under each spec in turn, up to a day after the origin. Returns rule and due day
/// of each alert.
fn story(steps: &[(i64, &[RuleSpec], i64)]) -> Vec<(String, i64)> {
    let mut chain = Chain::default();
    let mut told = Vec::new();
    for (i, (to, rules, settle)) in steps.iter().enumerate() {
        let mut spec = Spec::clone(&silent_spec(0, rules.to_vec()));
        (spec.inactivity.holdout, spec.inactivity.settle) = (0.0, settle * DAY);
        let spec = Arc::new(spec);
        let mut engine = if i == 0 { Engine::new(Arc::clone(&spec)) } else { chain.restore(&spec) };
        if i == 0 {
            give(&mut engine, &as_input(&one_order(0, 0)));
        }
        give(&mut engine, &as_input(&Given::Raise(0, Time::clamped(ORIGIN + to * DAY + 1))));
        told.extend(engine.release(&Allowance::ALL));
        chain.add(engine.checkpoint().unwrap());
    }
    let day = |time: Time| (time.millis() - ORIGIN) / DAY;
    told.into_iter().map(|alert| (alert.rule, day(alert.due_at))).collect()
}

#[test]
fn a_changed_rule_tells_of_nobody_twice_and_of_nothing_that_is_past() {
    let (a10, a20, b10, b20) = (after("a", 10), after("a", 20), after("b", 10), after("b", 20));
    let told = |rules: &[(&str, i64)]| rules.iter().map(|&(rule, day)| (rule.to_owned(), day)).collect::<Vec<_>>();
    let (joined, late) = ([b20, a10.clone()], [a10.clone(), b10]);
    let (none, one, longer): (&[RuleSpec], _, _) = (&[], &[a10][..], &[a20][..]);
    for (what, steps, expected) in [
        ("as it is", vec![(40, one, 2)], vec![("a", 10)]),
        ("over a restart before it is due", vec![(5, one, 2), (40, one, 2)], vec![("a", 10)]),
        ("over a restart before it is decided", vec![(11, one, 2), (40, one, 2)], vec![("a", 10)]),
        ("over a restart afterwards", vec![(13, one, 2), (40, one, 2)], vec![("a", 10)]),
        ("removed before", vec![(5, one, 2), (40, none, 2)], vec![]),
        ("added before", vec![(5, none, 2), (40, one, 2)], vec![("a", 10)]),
        ("added afterwards", vec![(11, none, 2), (40, one, 2)], vec![]),
        ("away when it was due", vec![(5, one, 2), (15, none, 2), (40, one, 2)], vec![]),
        ("away for a while before", vec![(3, one, 2), (5, none, 2), (40, one, 2)], vec![("a", 10)]),
        ("another joins it", vec![(5, one, 2), (40, &joined, 2)], vec![("a", 10), ("b", 20)]),
        ("another joins too late", vec![(11, one, 2), (40, &late, 2)], vec![("a", 10)]),
        ("longer before it is due", vec![(5, one, 2), (40, longer, 2)], vec![("a", 20)]),
        ("longer before it is decided", vec![(11, one, 2), (40, longer, 2)], vec![("a", 20)]),
        ("longer afterwards", vec![(13, one, 2), (40, longer, 2)], vec![("a", 10)]),
        ("shorter before it is due", vec![(5, longer, 2), (40, one, 2)], vec![("a", 10)]),
        ("shorter than what has passed", vec![(15, longer, 2), (40, one, 2)], vec![]),
        ("waits longer", vec![(13, one, 2), (40, one, 9)], vec![("a", 10)]),
        ("waits less", vec![(13, one, 9), (14, one, 2), (40, one, 2)], vec![("a", 10)]),
    ] {
        assert_eq!(story(&steps), told(&expected), "{what}");
    }
}

/// Alerts of a removed rule are still measured, even if no rule remains.
#[test]
fn a_removed_rules_alerts_are_still_won_back() {
    let spec = |rules: Vec<RuleSpec>| {
        let mut spec = Spec::clone(&silent_spec(0, rules));
        spec.inactivity.holdout = 0.0;
        Arc::new(spec)
    };
    let mut engine = Engine::new(spec(vec![after("a", 10)]));
    give(&mut engine, &as_input(&one_order(0, 0)));
    give(&mut engine, &as_input(&one_order(1, 12)));
    give(&mut engine, &as_input(&Given::Raise(0, Time::clamped(ORIGIN + 12 * DAY + 1))));
    assert_eq!(engine.release(&Allowance::ALL).len(), 1);
    let mut chain = Chain::default();
    chain.add(engine.checkpoint().unwrap());
    let mut engine = chain.restore(&spec(Vec::new()));
    give(&mut engine, &as_input(&one_order(0, 12)));
    give(&mut engine, &as_input(&one_order(1, 40)));
    let told = engine.release(&Allowance::ALL);
    let ordered_at = Time::clamped(ORIGIN + 12 * DAY);
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].rule.as_str(), &told[0].what),
        ("a", &AlertKind::WonBack { ordered_at, amount: money(0, 100) })
    );
    let parts = engine.inactivity();
    assert_eq!((parts.len(), parts[0].groups[0].won_back), (1, 1));
}

/// So are alerts of a rule that became longer: an order that is too early to end a silence of the new rule may end one
/// of the old rule.
#[test]
fn alerts_of_a_rule_that_changed_are_still_won_back() {
    let spec = |days| {
        let mut spec = Spec::clone(&silent_spec(0, vec![after("a", days)]));
        spec.inactivity.holdout = 0.0;
        Arc::new(spec)
    };
    let mut engine = Engine::new(spec(10));
    give(&mut engine, &as_input(&one_order(0, 0)));
    give(&mut engine, &as_input(&Given::Raise(0, Time::clamped(ORIGIN + 12 * DAY + 1))));
    assert_eq!(engine.release(&Allowance::ALL).len(), 1);
    let mut chain = Chain::default();
    chain.add(engine.checkpoint().unwrap());
    let mut engine = chain.restore(&spec(20));
    give(&mut engine, &as_input(&one_order(0, 12)));
    give(&mut engine, &as_input(&one_order(1, 30)));
    let told = engine.release(&Allowance::ALL);
    let ordered_at = Time::clamped(ORIGIN + 12 * DAY);
    let back: Vec<_> = told.iter().map(|alert| &alert.what).collect();
    assert_eq!(back, [&AlertKind::WonBack { ordered_at, amount: money(0, 100) }]);
    assert_eq!(engine.inactivity()[0].groups[0].won_back, 1);
}

/// If an earlier order arrives late, the order that arrived first turns out to end a silence.
#[test]
fn a_late_first_order_is_won_back_by_the_one_that_came_before_it() {
    let hour = |hours| RuleSpec { silence: SilenceRule::After(hours * HOUR), ..after("a", 0) };
    let mut spec = Spec::clone(&silent_spec(0, vec![hour(5)]));
    spec.inactivity.holdout = 0.0;
    let mut engine = Engine::new(Arc::new(spec));
    let order = |hours| Sent {
        customer: 0,
        time: Time::clamped(ORIGIN + hours * HOUR),
        fact: Fact::Order(0, 100 + hours, None, None),
        id: None,
    };
    for hours in [30, 10] {
        assert_eq!(engine.apply(0, &event(&order(hours))), Outcome::Applied);
    }
    give(&mut engine, &as_input(&Given::Raise(0, Time::clamped(ORIGIN + 20 * DAY))));
    let [group, _] = &engine.inactivity()[0].groups;
    assert_eq!((group.due, group.won_back), (2, 1));
    assert_eq!(group.revenue.values().copied().collect::<Vec<_>>(), [130]);
}

/// Only customers who are due are checked, and a wheel has one entry per customer, however often they order.
#[test]
fn firing_costs_what_fires() {
    let spec = silent_spec(0, vec![after("a", 10), after("b", 20)]);
    let mut engine = Engine::new(spec);
    for n in 0..20_000_i64 {
        let time = Time::clamped(ORIGIN + n * HOUR / 10);
        let sent = Sent { customer: (n % 50) as u8, time, fact: Fact::Order(0, 1, None, None), id: None };
        engine.apply(0, &event(&sent));
        assert!(engine.inactivity.entries() <= 50, "{}", engine.inactivity.entries());
    }
    assert_eq!(engine.waiting_alerts(), 0);
    assert!(engine.inactivity.table().slots().next().is_none(), "nobody is silent, so nothing is kept side_state");
}

/// An order at exactly the due time may still arrive while time is due + settle: then nothing is decided yet, and the
/// customer was never silent.
#[test]
fn nothing_is_decided_while_it_can_change() {
    let at_the_bound = |late_order: bool| {
        let mut spec = Spec::clone(&silent_spec(0, vec![after("a", 10)]));
        spec.inactivity.holdout = 0.0;
        let mut engine = Engine::new(Arc::new(spec));
        give(&mut engine, &as_input(&one_order(0, 0)));
        give(&mut engine, &as_input(&Given::Raise(0, Time::clamped(ORIGIN + 10 * DAY + SETTLE))));
        assert_eq!(engine.waiting_alerts(), 0, "it can still change");
        if late_order {
            let Given::Sent(order) = one_order(0, 10) else { return 0 };
            assert_eq!(engine.apply(0, &event(&order)), Outcome::Applied);
        }
        give(&mut engine, &as_input(&Given::Raise(0, Time::clamped(ORIGIN + 10 * DAY + SETTLE + 1))));
        engine.waiting_alerts()
    };
    assert_eq!((at_the_bound(false), at_the_bound(true)), (1, 0));
}
