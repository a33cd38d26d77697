//! Distributions of a summary: exact counts and sums, quantiles from a histogram with three significant digits.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::engine::distribution::{Distribution, DistributionParts, GAPS, Scale, order_values};
use crate::event::{Currency, decimal_text};

/// The quantiles and their names.
const QUANTILES: [(f64, &str); 7] =
    [(0.1, "0.1"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (0.9, "0.9"), (0.95, "0.95"), (0.99, "0.99")];
/// Precision of the histogram behind the quantiles.
const DIGITS: u8 = 3;

/// One distribution.
#[derive(Debug, Clone, Serialize)]
pub struct DistributionSummary {
    /// `interpurchase_seconds`, `time_to_second_order_seconds` or `order_value`.
    pub name: &'static str,
    /// The currency of order values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    /// Number of values.
    pub count: i64,
    /// Exact sum.
    pub sum: Quantity,
    /// Quantiles by name; null without values. Each is within 4 % of the smallest value with that share at or below it.
    pub quantiles: BTreeMap<&'static str, Option<Quantity>>,
}

/// A quantity in JSON: exact even where a float would not be.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Quantity {
    /// Seconds, as a number.
    Seconds(Box<RawValue>),
    /// Money in major units, as a decimal string.
    Amount(String),
}

/// The known distributions: all except gaps whose history is no longer kept.
#[must_use]
pub fn distributions(parts: &DistributionParts) -> Vec<DistributionSummary> {
    let gaps = [("interpurchase_seconds", &parts.interpurchase), ("time_to_second_order_seconds", &parts.second_order)];
    let gaps = gaps.into_iter().filter_map(|(name, gaps)| summary(name, None, gaps.as_ref()?, GAPS, seconds));
    let values = parts.order_value.iter().filter_map(|(&currency, values)| {
        let amount = |minor| Some(Quantity::Amount(decimal_text(minor, currency)));
        summary("order_value", Some(currency), values, order_values(currency), amount)
    });
    gaps.chain(values).collect()
}

/// `None` if the number cannot be written; sums of realistic times stay far below the limit.
fn summary(
    name: &'static str,
    currency: Option<Currency>,
    distribution: &Distribution,
    scale: Scale,
    quantity: impl Fn(i128) -> Option<Quantity>,
) -> Option<DistributionSummary> {
    let read = quantiles(distribution, scale);
    let shown = QUANTILES.iter().enumerate().map(|(i, &(_, name))| {
        let value = read.as_ref().and_then(|values| quantity(i128::from(values[i])));
        (name, value)
    });
    Some(DistributionSummary {
        name,
        currency,
        count: distribution.count,
        sum: quantity(distribution.sum)?,
        quantiles: shown.collect(),
    })
}

/// The values of [`QUANTILES`]; `None` if the distribution is empty.
fn quantiles(distribution: &Distribution, scale: Scale) -> Option<[u64; QUANTILES.len()]> {
    let mut histogram = Histogram::<u64>::new(DIGITS).ok()?;
    for (value, count) in distribution.values(scale) {
        histogram.record_n(u64::try_from(value).ok()?, u64::try_from(count).ok()?).ok()?;
    }
    (!histogram.is_empty()).then(|| QUANTILES.map(|(quantile, _)| histogram.value_at_quantile(quantile)))
}

/// Milliseconds as seconds, without trailing zeros.
fn seconds(millis: i128) -> Option<Quantity> {
    let seconds = Decimal::try_from_i128_with_scale(millis, 3).ok()?.normalize();
    RawValue::from_string(seconds.to_string()).ok().map(Quantity::Seconds)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::window::Sign;

    fn of(values: &[i64], scale: Scale) -> Distribution {
        let mut distribution = Distribution::default();
        values.iter().for_each(|&value| distribution.book(scale, value, Sign::Add));
        distribution
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn quantiles_lie_within_four_percent(
            mut values in prop::collection::vec((0..43_u32, any::<u32>()), 1..300)
                .prop_map(|list| list.into_iter().map(|(size, at)| ((u128::from(at) << size) >> 32) as i64).collect::<Vec<_>>()),
        ) {
            let found = quantiles(&of(&values, GAPS), GAPS).unwrap();
            values.sort_unstable();
            for ((_, name), found) in QUANTILES.into_iter().zip(found) {
                // The smallest value such that at least q x count are at most that: by hundredths, without floats.
                let hundredths = format!("{:0<4}", name)[2..4].parse::<usize>().unwrap();
                let rank = (values.len() * hundredths).div_ceil(100);
                let (exact, found) = (values[rank - 1], i64::try_from(found).unwrap());
                prop_assert!((found - exact).abs() * 100 <= exact * 4, "{}: {} instead of {}", name, found, exact);
            }
        }
    }

    #[test]
    fn is_shown_exactly_and_without_floats() {
        let eur = Currency::from_code("EUR").unwrap();
        let huge = i64::MAX / 1024;
        let mut gaps = of(&[1_500, 0], GAPS);
        (0..4096).for_each(|_| gaps.book(GAPS, huge, Sign::Add));
        let parts = DistributionParts {
            interpurchase: Some(gaps),
            second_order: Some(Distribution::default()),
            order_value: BTreeMap::from([(eur, of(&[1_000, 2_000, 3_005], order_values(eur)))]),
        };
        let shown = serde_json::to_string(&distributions(&parts)).unwrap();
        let sum = decimal_text(i128::from(huge) * 4096 + 1_500, Currency::from_code("KWD").unwrap());
        assert!(shown.contains(&format!("\"count\":4098,\"sum\":{}", sum.trim_end_matches('0'))), "{shown}");
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown[1]["name"], "time_to_second_order_seconds");
        assert_eq!((&shown[1]["sum"], &shown[1]["quantiles"]["0.5"]), (&0.into(), &serde_json::Value::Null));
        assert_eq!(
            (&shown[2]["currency"], &shown[2]["count"], &shown[2]["sum"]),
            (&"EUR".into(), &3.into(), &"60.05".into())
        );
        let half: f64 = shown[2]["quantiles"]["0.5"].as_str().unwrap().parse().unwrap();
        assert!((half - 20.0).abs() < 0.8, "{half}");
    }

    #[test]
    fn what_is_no_longer_known_is_left_out() {
        let parts = DistributionParts { interpurchase: None, ..DistributionParts::default() };
        let names: Vec<_> = distributions(&parts).iter().map(|distribution| distribution.name).collect();
        assert_eq!(names, ["time_to_second_order_seconds"]);
    }
}
