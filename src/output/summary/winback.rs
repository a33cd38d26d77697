//! Outcomes of the inactivity rules, as in `/api/v1/winback` and `replay --format json`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::engine::inactivity::Group;
use crate::engine::inactivity::release::{GroupParts, RuleParts};
use crate::event::{Currency, decimal_text};

/// The outcome of a rule over all time. Ratios with a zero denominator are null.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleSummary {
    /// The rule.
    pub rule: String,
    /// The treated group: customers with alerts.
    pub treated: GroupSummary,
    /// The holdout group: customers without alerts.
    pub holdout: GroupSummary,
    /// Win-back ratio of the treated minus that of the holdout.
    pub uplift: Option<f64>,
    /// Lower and upper bound of the 95% confidence interval of the uplift.
    pub uplift_interval: Option<(f64, f64)>,
}

/// The outcome of one group's silences.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupSummary {
    /// Silences that became due, including those whose customer was back before the decision.
    pub due: u64,
    /// Alerts sent.
    pub sent: u64,
    /// Silences ended by an order in time.
    pub won_back: u64,
    /// Won back / due.
    pub winback_ratio: Option<f64>,
    /// Revenue of those orders by currency.
    pub currencies: BTreeMap<Currency, WinbackMoney>,
}

/// The money of one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WinbackMoney {
    /// A decimal string in major units.
    pub revenue: String,
}

/// The rules, in the order of the configuration.
#[must_use]
pub fn winback(rules: &[RuleParts]) -> Vec<RuleSummary> {
    rules.iter().map(rule).collect()
}

fn rule(RuleParts { rule, groups }: &RuleParts) -> RuleSummary {
    let [treated, holdout] = [Group::Treated, Group::Holdout].map(|group| &groups[group as usize]);
    let ratio = |group: &GroupParts| (group.due > 0).then(|| share(group.won_back, group.due));
    let both = ratio(treated).zip(ratio(holdout));
    RuleSummary {
        rule: rule.clone(),
        treated: group(treated),
        holdout: group(holdout),
        uplift: both.map(|(treated, holdout)| treated - holdout),
        uplift_interval: both.map(|_| newcombe((treated.won_back, treated.due), (holdout.won_back, holdout.due))),
    }
}

fn group(parts: &GroupParts) -> GroupSummary {
    let GroupParts { due, sent, won_back, revenue } = parts;
    let money =
        |(&currency, &minor): (&Currency, &i128)| (currency, WinbackMoney { revenue: decimal_text(minor, currency) });
    GroupSummary {
        due: *due,
        sent: *sent,
        won_back: *won_back,
        winback_ratio: (*due > 0).then(|| share(*won_back, *due)),
        currencies: revenue.iter().map(money).collect(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// The 95% point of the normal distribution, two-sided.
const Z: f64 = 1.959_963_984_540_054;

/// The 95% interval of the difference of two proportions: the hybrid score interval, method 10 of R. G. Newcombe,
/// "Interval estimation for the difference between independent proportions", Statistics in Medicine 17 (1998), 873-890.
fn newcombe(one: (u64, u64), other: (u64, u64)) -> (f64, f64) {
    let (p1, p2) = (share(one.0, one.1), share(other.0, other.1));
    let ((low1, high1), (low2, high2)) = (wilson(p1, one.1), wilson(p2, other.1));
    let difference = p1 - p2;
    (difference - (p1 - low1).hypot(high2 - p2), difference + (high1 - p1).hypot(p2 - low2))
}

/// Wilson's score interval of a proportion of `n`.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn wilson(p: f64, n: u64) -> (f64, f64) {
    let n = n as f64;
    let centre = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    ((centre - half) / scale, (centre + half) / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of Newcombe's table II, method 10.
    #[test]
    fn the_interval_is_that_of_the_paper() {
        for (one, other, low, high) in [
            ((56, 70), (48, 80), 0.0524, 0.3339),
            ((9, 10), (3, 10), 0.1705, 0.8090),
            ((6, 7), (2, 7), 0.0582, 0.8062),
            ((5, 56), (0, 29), -0.0381, 0.1926),
            ((0, 10), (0, 10), -0.2775, 0.2775),
            ((10, 10), (0, 20), 0.6791, 1.0),
        ] {
            let (found_low, found_high) = newcombe(one, other);
            assert!(
                (found_low - low).abs() < 6e-5 && (found_high - high).abs() < 6e-5,
                "{one:?} {other:?}: {found_low} {found_high}"
            );
        }
    }

    #[test]
    fn nothing_due_is_no_ratio() {
        let some = GroupParts { due: 4, sent: 3, won_back: 1, ..GroupParts::default() };
        let parts = RuleParts { rule: "lapsing".into(), groups: [some, GroupParts::default()] };
        let [found] = &winback(&[parts])[..] else { panic!() };
        assert_eq!((found.treated.winback_ratio, found.holdout.winback_ratio), (Some(0.25), None));
        assert_eq!((found.uplift, found.uplift_interval), (None, None));
    }
}
