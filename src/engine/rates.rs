//! Exchange rates to the reporting currency: exact decimals by currency and civil day.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::Xxh3Default;

use super::zone::Day;
use crate::event::{Currency, MAX_MINOR_UNITS, Money};

/// Maximum number of digits of a rate, without leading and trailing zeros.
pub const MAX_DIGITS: u32 = 20;
/// Maximum number of decimals of a rate.
pub const MAX_DECIMALS: u32 = 28;

/// A positive decimal number: `mantissa` / 10^`scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    mantissa: i128,
    scale: u32,
}

impl Rate {
    /// The rate `mantissa` / 10^`scale`: units of the reporting currency per unit of a currency. `None` unless it is
    /// positive and has at most [`MAX_DIGITS`] digits and [`MAX_DECIMALS`] decimals.
    #[must_use]
    pub fn new(mut mantissa: i128, mut scale: u32) -> Option<Rate> {
        while scale > 0 && mantissa % 10 == 0 && mantissa != 0 {
            mantissa /= 10;
            scale -= 1;
        }
        let fits = mantissa > 0 && mantissa < 10_i128.pow(MAX_DIGITS) && scale <= MAX_DECIMALS;
        fits.then_some(Rate { mantissa, scale })
    }
}

/// From day `from` on, one minor unit is worth `factor` / `divisor` minor units of the reporting currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RateStep {
    from: Day,
    /// Below 10^24: [`MAX_DIGITS`] digits, and the reporting currency has at most four decimals more.
    factor: i128,
    divisor: i128,
}

/// The rates of all currencies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rates {
    reporting: Currency,
    /// By currency, ascending by day.
    steps: BTreeMap<Currency, Vec<RateStep>>,
    digest: u128,
}

impl Rates {
    /// Rates, each valid from a civil day until the currency's next one. Of two for the same day, the later line is
    /// valid.
    #[must_use]
    pub fn new(reporting: Currency, lines: impl IntoIterator<Item = (Day, Currency, Rate)>) -> Rates {
        let mut steps = BTreeMap::<Currency, Vec<RateStep>>::new();
        for (from, currency, rate) in lines {
            let (mut factor, mut divisor) = (rate.mantissa, 10_i128.pow(rate.scale));
            match reporting.exponent().checked_sub(currency.exponent()) {
                Some(more) => factor *= 10_i128.pow(more),
                None => divisor *= 10_i128.pow(currency.exponent() - reporting.exponent()),
            }
            let of_currency = steps.entry(currency).or_default();
            let step = RateStep { from, factor, divisor };
            match of_currency.binary_search_by_key(&from, |step| step.from) {
                Ok(place) => of_currency[place] = step,
                Err(place) => of_currency.insert(place, step),
            }
        }
        let reporting = reporting.as_reporting();
        let digest = digest(reporting, &steps);
        Rates { reporting, steps, digest }
    }

    /// Identifies this set of rates.
    #[must_use]
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// The currency into which amounts are converted, under the name `reporting`.
    #[must_use]
    pub fn reporting(&self) -> Currency {
        self.reporting
    }

    /// The currencies with a rate on any day.
    pub fn currencies(&self) -> impl Iterator<Item = Currency> {
        self.steps.keys().copied()
    }

    /// The amount in minor units of the reporting currency, rounded half away from zero. `None` without a rate on or
    /// before the day, or if the result exceeds the limit of amounts.
    #[must_use]
    pub fn convert(&self, amount: Money, day: Day) -> Option<i64> {
        if amount.currency.as_reporting() == self.reporting {
            return Some(amount.minor);
        }
        let worth = self.worth(amount.currency, amount.minor, day)?;
        i64::try_from(worth).ok().filter(|minor| minor.abs() <= MAX_MINOR_UNITS)
    }

    /// As [`Rates::convert`], for a sum, which may exceed the limit of amounts. `None` also on overflow.
    #[must_use]
    pub fn worth(&self, currency: Currency, minor: i64, day: Day) -> Option<i128> {
        if currency.as_reporting() == self.reporting {
            return Some(i128::from(minor));
        }
        let steps = self.steps.get(&currency)?;
        let step = &steps[steps.partition_point(|step| step.from <= day).checked_sub(1)?];
        // For an amount at most 10^13 x 10^24, far below 2^127; a sum may be larger.
        let product = i128::from(minor).checked_mul(step.factor)?;
        let half = step.divisor / 2;
        Some(if product < 0 { (product - half) / step.divisor } else { (product + half) / step.divisor })
    }
}

fn digest(reporting: Currency, steps: &BTreeMap<Currency, Vec<RateStep>>) -> u128 {
    let mut hash = Xxh3Default::new();
    hash.update(reporting.iso_code().as_bytes());
    for (currency, steps) in steps {
        hash.update(currency.iso_code().as_bytes());
        for RateStep { from, factor, divisor } in steps {
            hash.update(&from.to_le_bytes());
            hash.update(&factor.to_le_bytes());
            hash.update(&divisor.to_le_bytes());
        }
    }
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rust_decimal::{Decimal, RoundingStrategy};

    use super::*;

    fn currency(code: &str) -> Currency {
        Currency::from_code(code).unwrap()
    }

    fn money(minor: i64, code: &str) -> Money {
        Money { minor, currency: currency(code) }
    }

    #[test]
    fn a_rate_is_above_zero_and_has_no_more_digits_than_are_exact() {
        for (mantissa, scale, holds) in [
            (1, 0, true),
            (0, 0, false),
            (0, 5, false),
            (-1, 2, false),
            (1, 28, true),
            (1, 29, false),
            (10, 29, true),
            (10_i128.pow(20) - 1, 0, true),
            (10_i128.pow(20), 0, false),
            (10_i128.pow(20), 1, true),
        ] {
            assert_eq!(Rate::new(mantissa, scale).is_some(), holds, "{mantissa} / 10^{scale}");
        }
        assert_eq!(Rate::new(9200, 4), Rate::new(92, 2));
    }

    #[test]
    fn a_rate_holds_from_its_day_until_the_next() {
        let rate = |mantissa| Rate::new(mantissa, 1).unwrap();
        let lines = [(20, currency("USD"), rate(20)), (10, currency("USD"), rate(5)), (20, currency("USD"), rate(30))];
        let rates = Rates::new(currency("EUR"), lines);
        for (day, expected) in [(9, None), (10, Some(50)), (19, Some(50)), (20, Some(300)), (99_999, Some(300))] {
            assert_eq!(rates.convert(money(100, "USD"), day), expected, "{day}");
        }
        assert_eq!(rates.convert(money(100, "EUR"), 9), Some(100), "the reporting currency needs no rate");
        assert_eq!(rates.convert(money(100, "CHF"), 20), None);
        assert_eq!(rates.reporting().code(), "reporting");
        let digest = |lines: &[(Day, Currency, Rate)]| Rates::new(currency("EUR"), lines.iter().copied()).digest();
        assert_eq!(rates.digest(), digest(&lines), "of the same rates");
        assert_ne!(rates.digest(), digest(&lines[..2]), "of others");
    }

    #[test]
    fn halves_are_rounded_away_from_zero_and_minor_units_are_those_of_the_currencies() {
        for (minor, from, mantissa, scale, to, expected) in [
            (1, "USD", 5, 1, "EUR", Some(1)),
            (1, "USD", 49, 2, "EUR", Some(0)),
            (3, "USD", 5, 1, "EUR", Some(2)),
            (-3, "USD", 5, 1, "EUR", Some(-2)),
            (100, "JPY", 61, 4, "EUR", Some(61)),
            (1, "JPY", 5, 3, "EUR", Some(1)),
            (61, "EUR", 16_393, 2, "JPY", Some(100)),
            (1234, "KWD", 3, 0, "EUR", Some(370)),
            (1, "JPY", 99_999_999_999_999_999_999, 20, "CLF", Some(10_000)),
            (MAX_MINOR_UNITS, "USD", 1, 0, "EUR", Some(MAX_MINOR_UNITS)),
            (MAX_MINOR_UNITS, "USD", 101, 2, "EUR", None),
            (MAX_MINOR_UNITS, "JPY", 99_999_999_999_999_999_999, 0, "CLF", None),
        ] {
            let rates = Rates::new(currency(to), [(0, currency(from), Rate::new(mantissa, scale).unwrap())]);
            assert_eq!(rates.convert(money(minor, from), 0), expected, "{minor} {from} at {mantissa} / 10^{scale}");
        }
    }

    proptest! {
        #[test]
        fn equals_a_decimal_library(minor in 0..1_000_000_000_i64, mantissa in 1..1_000_000_000_i128, scale in 0..9_u32,
                                    codes in (0..4_usize, 0..4_usize)) {
            let codes = (["EUR", "JPY", "KWD", "CLF"][codes.0], ["USD", "KRW", "BHD", "UYW"][codes.1]);
            let (from, to) = (currency(codes.0), currency(codes.1));
            let rates = Rates::new(to, [(0, from, Rate::new(mantissa, scale).unwrap())]);
            let major = Decimal::from(minor) / Decimal::from(10_i64.pow(from.exponent()));
            let worth = major * Decimal::try_from_i128_with_scale(mantissa, scale).unwrap();
            let rounded = worth.round_dp_with_strategy(to.exponent(), RoundingStrategy::MidpointAwayFromZero);
            let expected = i64::try_from(rounded * Decimal::from(10_i64.pow(to.exponent()))).ok();
            let expected = expected.filter(|&minor| minor <= MAX_MINOR_UNITS);
            prop_assert_eq!(rates.convert(Money { minor, currency: from }, 0), expected);
        }
    }
}
