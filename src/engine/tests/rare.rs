//! Compares referrals, complaints and costs with their definitions, and measures how disordered the random histories
//! are.

use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::figures::CostParts;
use super::totals::{FeedbackParts, TotalsParts};
use super::*;

/// The `n`-th fact of a long history with facts of every kind.
pub(super) fn nth(n: i64) -> Fact {
    let minor = n % 1_000;
    match n % 11 {
        1 => Fact::Profile(Some("c9")),
        3 => Fact::Feedback("complaint"),
        5 => Fact::Cost(CostKind::Acquisition, 1, minor),
        7 => Fact::Cost(CostKind::Retention, 0, minor),
        _ => Fact::Order(0, minor, Some("web"), (n % 3 == 0).then_some("c9")),
    }
}

fn names_somebody(referrer: Option<&str>) -> bool {
    !matches!(referrer, None | Some(""))
}

pub(super) fn add_cost(costs: &mut CostParts, kind: CostKind, minor: i64, within: bool, so_far: bool) {
    let of_window = match kind {
        CostKind::Acquisition => &mut costs.acquisition,
        CostKind::Retention => &mut costs.retention,
    };
    *of_window += if within { i128::from(minor) } else { 0 };
    costs.to_date += if so_far { i128::from(minor) } else { 0 };
    costs.events_to_date += i64::from(so_far);
}

impl Model {
    /// Each customer's first order, of several at the same time the first in log order: its time, and whether it names
    /// a referrer.
    fn first_orders(&self) -> BTreeMap<u8, (Time, bool)> {
        let mut firsts = BTreeMap::<u8, (Time, bool)>::new();
        for sent in &self.accepted {
            if let Fact::Order(.., referrer) = sent.fact {
                let order = (sent.time, names_somebody(referrer));
                let first = firsts.entry(sent.customer).or_insert(order);
                if order.0 < first.0 {
                    *first = order;
                }
            }
        }
        firsts
    }

    fn times(&self, wanted: impl Fn(&Fact) -> bool) -> BTreeMap<u8, Vec<Time>> {
        let mut times = BTreeMap::<u8, Vec<Time>>::new();
        for sent in self.accepted.iter().filter(|sent| wanted(&sent.fact)) {
            times.entry(sent.customer).or_default().push(sent.time);
        }
        times
    }

    fn mentions(&self) -> BTreeMap<u8, Vec<Time>> {
        self.times(|fact| matches!(fact, Fact::Profile(referrer) if names_somebody(*referrer)))
    }

    /// New customers of the window (`open`, `p`] who are referred as of `p`.
    pub(super) fn referred(&self, spec: &Spec, window: WindowId, open: Pane, p: Pane) -> i64 {
        let mentions = self.mentions();
        let mentioned = |customer: &u8| {
            mentions.get(customer).is_some_and(|times| times.iter().any(|&time| spec.pane(window, time) <= p))
        };
        let counts = |(customer, &(first, by_order)): (&u8, &(Time, bool))| {
            let pane = spec.pane(window, first);
            open < pane && pane <= p && (by_order || mentioned(customer))
        };
        self.first_orders().iter().filter(|&entry| counts(entry)).count() as i64
    }

    /// Customers active at `open`, not active at `p`, who complained in panes up to `p`.
    pub(super) fn lost_complainers(&self, spec: &Spec, window: WindowId, open: Pane, p: Pane) -> i64 {
        let orders = self.panes(spec, window, |fact| matches!(fact, Fact::Order(..)));
        let complaints = self.panes(spec, window, |fact| *fact == Fact::Feedback("complaint"));
        let a = spec.active_for(window);
        let since = |at: Pane| spec.axis(window).active_since(at, a);
        let active = |panes: &[Pane], at: Pane| panes.iter().any(|&pane| since(at) <= pane && pane <= at);
        let complained = |customer: &u8| complaints.get(customer).is_some_and(|panes| panes.iter().any(|&c| c <= p));
        let counts =
            |(customer, panes): &(&u8, &Vec<Pane>)| active(panes, open) && !active(panes, p) && complained(customer);
        orders.iter().filter(counts).count() as i64
    }

    /// Customers with both an order and a cost in panes up to `p`.
    pub(super) fn costed(&self, spec: &Spec, window: WindowId, p: Pane) -> i64 {
        let upto = |wanted: fn(&Fact) -> bool| {
            let panes = self.panes(spec, window, wanted).into_iter();
            panes.filter(|(_, panes)| panes.iter().any(|&pane| pane <= p)).map(|(c, _)| c).collect::<BTreeSet<u8>>()
        };
        let ordered = upto(|fact| matches!(fact, Fact::Order(..)));
        ordered.intersection(&upto(|fact| matches!(fact, Fact::Cost(..)))).count() as i64
    }

    fn totals(&self, hour: i64) -> TotalsParts {
        let mentions = self.mentions();
        let since = |(customer, &(first, by_order)): (&u8, &(Time, bool))| {
            let mention = mentions.get(customer).and_then(|times| times.iter().min()).copied();
            if by_order { Some(first) } else { mention.map(|mention| mention.max(first)) }
        };
        let referrals = self.first_orders().iter().filter_map(since).filter(|t| t.millis() / HOUR <= hour).count();
        let mut feedback = BTreeMap::<String, FeedbackParts>::new();
        for sent in &self.accepted {
            if let Fact::Feedback(kind) = sent.fact {
                let parts = feedback.entry(kind.to_owned()).or_default();
                parts.accepted += 1;
                parts.count += i64::from(sent.time.millis() / HOUR <= hour);
            }
        }
        TotalsParts { referrals: referrals as i64, feedback }
    }
}

pub(super) fn assert_totals_equal(engines: &[Engine], model: &Model) -> Result<(), TestCaseError> {
    let hours: BTreeSet<i64> =
        model.accepted.iter().map(|sent| sent.time.millis() / HOUR).flat_map(|hour| hour - 1..=hour + 1).collect();
    for hour in hours {
        let at = Time::clamped(hour * HOUR + HOUR / 2);
        let mut found = TotalsParts::default();
        engines.iter().for_each(|engine| found += &engine.totals.parts(at, at.plus(HOUR)));
        prop_assert_eq!(found, model.totals(hour), "hour {}", hour);
    }
    Ok(())
}

/// Histories without duplicates and disorder would prove nothing.
#[test]
fn three_in_ten_random_events_come_twice_and_three_in_ten_that_count_out_of_order() {
    let mut runner = TestRunner::deterministic();
    let (mut events, mut applied, mut twice, mut disorderly) = (0, 0, 0, 0);
    for _ in 0..500 {
        let mut model = Model::default();
        for sent in history(40).new_tree(&mut runner).unwrap().current() {
            if sent.fact == Fact::Erase {
                model.erase(&sent);
                continue;
            }
            let mark = model.watermarks[topic(&sent)];
            let outcome = model.send(&sent);
            events += 1;
            applied += u32::from(outcome == Outcome::Applied);
            twice += u32::from(outcome == Outcome::Duplicate);
            disorderly += u32::from(outcome == Outcome::Applied && Some(sent.time) < mark);
        }
    }
    let share = |count: u32, of: u32| f64::from(count) / f64::from(of);
    assert!((0.25..0.4).contains(&share(twice, events)), "{twice} of {events} come twice");
    assert!((0.25..0.35).contains(&share(disorderly, applied)), "{disorderly} of {applied} count out of order");
}

fn at(day: i64) -> Time {
    Time::clamped(ORIGIN + day * DAY)
}

fn tell(engine: &mut Engine, day: i64, fact: Fact) {
    let sent = Sent { customer: 1, time: at(day), fact, id: None };
    assert_eq!(engine.apply(topic(&sent), &event(&sent)), Outcome::Applied);
}

#[test]
fn a_first_order_that_turns_out_not_to_be_the_first_takes_its_referral_along() {
    let spec = Arc::new(spec("UTC"));
    let mut engine = Engine::new(Arc::clone(&spec));
    let referred = |engine: &mut Engine, day| engine.figures(WindowId::Rolling(2), at(day)).unwrap().parts.referred;
    tell(&mut engine, 10, Fact::Order(0, 100, Some("web"), Some("c9")));
    assert_eq!((referred(&mut engine, 10), referred(&mut engine, 18)), (1, 0));
    tell(&mut engine, 9, Fact::Order(0, 100, Some("app"), None));
    assert_eq!(referred(&mut engine, 10), 0, "the first order names nobody now");
    tell(&mut engine, 12, Fact::Profile(Some("c9")));
    assert_eq!([11, 12, 16, 17].map(|day| referred(&mut engine, day)), [0, 1, 1, 0]);
    assert_eq!(engine.totals(at(13)).referrals, 0, "a late order may still change it");
    assert_eq!(engine.totals(at(15)).referrals, 1);
}

#[test]
fn a_late_complaint_counts_in_a_silence_that_has_begun() {
    let spec = Arc::new(spec("UTC"));
    let mut engine = Engine::new(Arc::clone(&spec));
    // P and A are 3 days.
    let lost = |engine: &mut Engine, day| {
        let parts = engine.figures(WindowId::Rolling(0), at(day)).unwrap().parts;
        (parts.lost, parts.lost_complainers)
    };
    tell(&mut engine, 0, Fact::Order(0, 100, None, None));
    tell(&mut engine, 5, Fact::Profile(None));
    tell(&mut engine, 4, Fact::Feedback("complaint"));
    assert_eq!([2, 3, 4, 5, 6].map(|day| lost(&mut engine, day)), [(0, 0), (1, 0), (1, 1), (1, 1), (0, 0)]);
    tell(&mut engine, 3, Fact::Feedback("complaint"));
    assert_eq!([2, 3, 4].map(|day| lost(&mut engine, day)), [(0, 0), (1, 1), (1, 1)]);
    tell(&mut engine, 4, Fact::Order(0, 100, None, None));
    assert_eq!([3, 4, 7, 10].map(|day| lost(&mut engine, day)), [(1, 1), (0, 0), (1, 1), (0, 0)]);
}

#[test]
fn times_of_what_is_rare_are_forgotten_and_the_figures_stay() {
    let spec = Arc::new(spec("UTC"));
    let mut engine = Engine::new(Arc::clone(&spec));
    tell(&mut engine, 0, Fact::Order(0, 100, None, None));
    for fact in [Fact::Profile(Some("c9")), Fact::Feedback("complaint"), Fact::Cost(CostKind::Acquisition, 0, 5)] {
        tell(&mut engine, 1, fact);
    }
    let held = engine.extras.bytes();
    for n in 0..40_u8 {
        let other = Sent { customer: 10 + n, time: at(2 + i64::from(n)), fact: Fact::Feedback("complaint"), id: None };
        assert_eq!(engine.apply(0, &event(&other)), Outcome::Applied);
        let order = Sent { fact: Fact::Order(0, 100, None, None), ..other };
        assert_eq!(engine.apply(0, &event(&order)), Outcome::Applied);
    }
    assert!(engine.extras.bytes() <= 4 * held, "40 customers later, {} bytes after {held}", engine.extras.bytes());
    tell(&mut engine, 41, Fact::Feedback("complaint"));
    let year = engine.figures(WindowId::Calendar(2), at(41)).unwrap();
    assert_eq!((year.parts.referred, year.parts.costed, year.parts.to_date), (1, 1, 41));
}
