//! Compares the reporting currency with its definition: every amount is converted on its own.

use rust_decimal::{Decimal, RoundingStrategy};

use super::further::firsts;
use super::rates::{Rate, Rates};
use super::zone::Day;
use super::*;
use crate::event::MAX_MINOR_UNITS;

/// A rate: from `day` on, one unit of a currency of the model is worth `mantissa` / 10^`scale`.
#[derive(Debug, Clone, Copy)]
struct Line {
    day: Day,
    currency: u8,
    mantissa: i64,
    scale: u32,
}

fn lines() -> impl Strategy<Value = Vec<Line>> {
    // Few days, so that some lines are on the same day, or up to half a year: some amounts are before the first line.
    let line = (prop_oneof![-5..5_i32, -5..180_i32], 0..2_u8, 1..2_000_000_i64, 0..7_u32);
    let line = line.prop_map(|(day, currency, mantissa, scale)| Line {
        day: day + Day::try_from(ORIGIN / DAY).unwrap(),
        currency,
        mantissa,
        scale,
    });
    prop::collection::vec(line, 0..12)
}

fn rates(reporting: Currency, lines: &[Line]) -> Rates {
    let line = |line: &Line| {
        (line.day, money(line.currency, 0).currency, Rate::new(line.mantissa.into(), line.scale).unwrap())
    };
    Rates::new(reporting, lines.iter().map(line))
}

/// An amount in minor units of the reporting currency.
fn worth(lines: &[Line], reporting: Currency, day: Day, currency: u8, minor: i64) -> Option<i64> {
    let amount = money(currency, minor);
    if amount.currency == reporting {
        return Some(minor);
    }
    // Of equal days, `max_by_key` returns the last.
    let latest =
        lines.iter().filter(|line| line.currency == currency && line.day <= day).max_by_key(|line| line.day)?;
    let rate = Decimal::new(latest.mantissa, latest.scale);
    let major = Decimal::new(minor, amount.currency.exponent()) * rate;
    let rounded = major.round_dp_with_strategy(reporting.exponent(), RoundingStrategy::MidpointAwayFromZero);
    let worth = i64::try_from(rounded * Decimal::from(10_i64.pow(reporting.exponent()))).ok();
    worth.filter(|&minor| minor <= MAX_MINOR_UNITS)
}

/// An accepted event with an amount, and the converted amount.
struct Converted<'a> {
    sent: &'a Sent,
    minor: i64,
}

impl Converted<'_> {
    fn book(&self, till: &mut MoneyParts) {
        let minor = i128::from(self.minor);
        match self.sent.fact {
            Fact::Order(..) => {
                till.orders += 1;
                till.revenue += minor;
            }
            Fact::Refund(..) => till.refunds += minor,
            _ => till.cancellations += minor,
        }
    }
}

/// The converted amounts, and the number of amounts of each currency without a rate.
fn convert<'a>(
    spec: &Spec,
    model: &'a Model,
    lines: &[Line],
    reporting: Currency,
) -> (Vec<Converted<'a>>, BTreeMap<Currency, u64>) {
    let (mut converted, mut unconverted) = (Vec::new(), BTreeMap::new());
    for sent in &model.accepted {
        let (Fact::Order(currency, minor, ..)
        | Fact::Refund(currency, minor)
        | Fact::Cancel(currency, minor)
        | Fact::Cost(_, currency, minor)) = sent.fact
        else {
            continue;
        };
        match worth(lines, reporting, spec.zone.day(sent.time), currency, minor) {
            Some(minor) => converted.push(Converted { sent, minor }),
            None => *unconverted.entry(money(currency, 0).currency).or_default() += 1,
        }
    }
    (converted, unconverted)
}

fn expected<'a>(spec: &Spec, window: WindowId, p: Pane, all: impl Iterator<Item = &'a Converted<'a>>) -> MoneyParts {
    let open = spec.axis(window).opens(p);
    let mut till = MoneyParts::default();
    for converted in all {
        let pane = spec.pane(window, converted.sent.time);
        let counts = open < pane && pane <= p;
        match converted.sent.fact {
            Fact::Cost(kind, ..) => add_cost(&mut till.costs, kind, converted.minor, counts, pane <= p),
            _ if counts => converted.book(&mut till),
            _ => {}
        }
    }
    till
}

fn assert_windows(
    spec: &Spec,
    engines: &mut [Engine],
    model: &Model,
    converted: &[Converted<'_>],
) -> Result<(), TestCaseError> {
    let reporting = spec.rates.as_ref().unwrap().reporting();
    let firsts = firsts(model);
    let owner = |sent: &Sent| match firsts.get(&sent.customer) {
        Some((first, channel)) if sent.time >= *first => channel,
        _ => "none",
    };
    for window in window_ids(spec) {
        for p in panes_to_ask(spec, window, model).into_iter().step_by(2) {
            let mut sum = WindowParts::default();
            let mut segments = BTreeMap::<String, MoneyParts>::new();
            for engine in engines.iter_mut() {
                sum += &engine.figures_of_pane(window, p).expect("nothing was folded");
                for (_, value, figures) in engine.segment_figures(window, p) {
                    let till = figures.expect("nothing was folded").money.remove(&reporting).unwrap_or_default();
                    *segments.entry(value).or_default() += &till;
                }
            }
            let found = sum.money.remove(&reporting).unwrap_or_default();
            prop_assert_eq!(found, expected(spec, window, p, converted.iter()), "{:?} at pane {}", window, p);
            prop_assert_eq!(&sum, &model.figures(spec, window, p), "the other currencies, {:?} {}", window, p);
            for value in ["none", "unknown", "other", "web", "app"] {
                // Costs are not split by segment.
                let of_segments = converted.iter().filter(|converted| !matches!(converted.sent.fact, Fact::Cost(..)));
                let own = of_segments.filter(|converted| owner(converted.sent) == value);
                let found = segments.remove(value).unwrap_or_default();
                prop_assert_eq!(found, expected(spec, window, p, own), "{:?} {} at pane {}", window, value, p);
            }
        }
    }
    Ok(())
}

fn assert_cohorts(
    spec: &Spec,
    engines: &[Engine],
    model: &Model,
    converted: &[Converted<'_>],
) -> Result<(), TestCaseError> {
    let reporting = spec.rates.as_ref().unwrap().reporting();
    let firsts = firsts(model);
    let month = |time: Time| zone::month_of(spec.zone.day(time));
    for sent in model.accepted.iter().step_by(4) {
        let today = spec.zone.day(sent.time);
        let mut expected = BTreeMap::<(i32, i32), i128>::new();
        for other in converted.iter().filter(|other| spec.zone.day(other.sent.time) <= today) {
            if matches!(other.sent.fact, Fact::Order(..)) {
                let months = (month(firsts[&other.sent.customer].0), month(other.sent.time));
                *expected.entry(months).or_default() += i128::from(other.minor);
            }
        }
        expected.retain(|_, revenue| *revenue != 0);
        let mut found = BTreeMap::<(i32, i32), i128>::new();
        for (months, figures) in engines.iter().flat_map(|engine| engine.cohorts(sent.time)) {
            if let Some(money) = figures.money.get(&reporting).filter(|money| money.revenue != 0) {
                *found.entry(months).or_default() += money.revenue;
            }
        }
        prop_assert_eq!(found, expected, "as of {}", sent.time);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(600))]
    #[test]
    fn every_amount_counts_once_more_in_the_reporting_currency(
        history in history(40),
        lines in lines(),
        zone in 0..3_usize,
        reporting in 0..3_usize,
        parts in 1..3_usize,
    ) {
        let reporting = Currency::from_code(["EUR", "KWD", "JPY"][reporting]).unwrap();
        let mut spec = spec(["UTC", "America/New_York", "Pacific/Apia"][zone]);
        spec.rates = Some(rates(reporting, &lines));
        let spec = Arc::new(spec);
        let mut engines: Vec<_> = (0..parts).map(|_| Engine::new(Arc::clone(&spec))).collect();
        let mut models: Vec<_> = (0..parts).map(|_| Model::default()).collect();
        for sent in &history {
            let part = usize::from(sent.customer) % parts;
            send(&mut engines[part], &mut models[part], sent)?;
        }
        let accepted = models.into_iter().flat_map(|model| model.accepted).collect();
        let all = Model { accepted, ..Model::default() };
        let (converted, unconverted) = convert(&spec, &all, &lines, reporting);
        assert_windows(&spec, &mut engines, &all, &converted)?;
        assert_cohorts(&spec, &engines, &all, &converted)?;
        let mut counted = BTreeMap::<Currency, u64>::new();
        for (currency, amounts) in engines.iter_mut().flat_map(Engine::take_unconverted) {
            *counted.entry(currency).or_default() += amounts;
        }
        prop_assert_eq!(counted, unconverted);
        prop_assert!(engines.iter_mut().all(|engine| engine.take_unconverted().is_empty()), "counted once");
    }
}
