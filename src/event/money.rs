//! Amounts in minor units of an ISO 4217 currency. Money is never a float.

use std::fmt;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

use super::Currency;

/// The largest amount of one event in minor units: 100 billion euros.
///
/// Nearly a million such events fit into a 64-bit sum.
pub const MAX_MINOR_UNITS: i64 = 10_000_000_000_000;

/// How far, in minor units, an amount may be from a whole minor unit to be taken for it: the error of arithmetic with
/// binary fractions.
const NOISE: Decimal = Decimal::from_parts(1, 0, 0, false, 9);

/// How to treat digits beyond the currency's decimals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// Reject the amount.
    #[default]
    Exact,
    /// Round to the nearest minor unit, halves up.
    HalfUp,
}

/// An amount in minor units of a currency; negative only for a reversed refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    /// Minor units: cents of EUR, yen of JPY.
    pub minor: i64,
    /// The currency.
    pub currency: Currency,
}

/// Why a text is not a valid amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a decimal number.
    #[error("not a decimal number such as \"72.12\"")]
    Syntax,
    /// Below zero.
    #[error("negative; money that goes back is a refund event")]
    Negative,
    /// More than [`MAX_MINOR_UNITS`].
    #[error("absurdly large (more than {MAX_MINOR_UNITS} minor units)")]
    TooLarge,
    /// More decimals than the currency has.
    #[error("has more decimals than the currency")]
    ExcessDecimals,
    /// Not a known ISO 4217 currency code.
    #[error("not a three-letter ISO 4217 currency code in capitals")]
    UnknownCurrency,
}

impl Money {
    /// Parses decimal text in major units, such as `72.12`, exactly.
    ///
    /// Accepts zeros beyond the currency's decimals, and rounding errors of binary fractions (`19.990000000000002`);
    /// rejects other digits there.
    ///
    /// # Errors
    /// See [`MoneyError`].
    pub fn parse(text: &str, currency: Currency) -> Result<Money, MoneyError> {
        Money::parse_with(text, currency, Rounding::Exact)
    }

    /// As [`Money::parse`]; `rounding` decides how to treat digits beyond the currency's decimals.
    ///
    /// # Errors
    /// See [`MoneyError`].
    pub fn parse_with(text: &str, currency: Currency, rounding: Rounding) -> Result<Money, MoneyError> {
        let exponent = currency.exponent();
        let minor = match plain_minor_units(text, exponent) {
            Some(minor) => minor,
            None => decimal_minor_units(text, exponent, rounding)?,
        };
        if minor > MAX_MINOR_UNITS { Err(MoneyError::TooLarge) } else { Ok(Money { minor, currency }) }
    }

    /// From units of `10^-exponent` of the currency: 7212 with exponent 2 is 72.12.
    ///
    /// # Errors
    /// See [`MoneyError`]; [`MoneyError::ExcessDecimals`] if the result is not a whole minor unit.
    pub fn from_units(units: i64, exponent: u32, currency: Currency) -> Result<Money, MoneyError> {
        if units < 0 {
            return Err(MoneyError::Negative);
        }
        let step = |by: u32| 10_i64.checked_pow(by).ok_or(MoneyError::TooLarge);
        let own = currency.exponent();
        let minor = if exponent <= own {
            units.checked_mul(step(own - exponent)?).ok_or(MoneyError::TooLarge)?
        } else {
            let step = step(exponent - own)?;
            if units % step != 0 {
                return Err(MoneyError::ExcessDecimals);
            }
            units / step
        };
        if minor > MAX_MINOR_UNITS { Err(MoneyError::TooLarge) } else { Ok(Money { minor, currency }) }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", decimal_text(i128::from(self.minor), self.currency), self.currency)
    }
}

/// Fast path for digits with exactly the currency's decimals.
fn plain_minor_units(text: &str, exponent: u32) -> Option<i64> {
    let bytes = text.as_bytes();
    let decimals = exponent as usize;
    let point = bytes.len().checked_sub(decimals + 1)?;
    if decimals == 0 || point == 0 || bytes[point] != b'.' || bytes.len() > 17 {
        return None;
    }
    let mut minor = 0_i64;
    for (i, byte) in bytes.iter().enumerate() {
        if i != point {
            minor = minor * 10 + i64::from(byte.is_ascii_digit().then(|| byte - b'0')?);
        }
    }
    Some(minor)
}

/// All other spellings: no point, fewer or superfluous decimals, an exponent.
fn decimal_minor_units(text: &str, exponent: u32, rounding: Rounding) -> Result<i64, MoneyError> {
    let text = text.trim();
    if text.bytes().any(|byte| !matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E')) {
        return Err(MoneyError::Syntax);
    }
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    if !unsigned.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(MoneyError::Syntax);
    }
    let spelled_out = if text.contains(['e', 'E']) { Some(without_exponent(text)?) } else { None };
    let text = spelled_out.as_deref().unwrap_or(text);
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let whole_digits = unsigned.trim_start_matches('0').bytes().take_while(u8::is_ascii_digit).count();
    if whole_digits > 20 {
        return Err(MoneyError::TooLarge);
    }
    // Digits after the 28th are rounded away, far below the noise limit.
    let value = text.parse::<Decimal>().map_err(|e| match e {
        rust_decimal::Error::ExceedsMaximumPossibleValue => MoneyError::TooLarge,
        rust_decimal::Error::Underflow | rust_decimal::Error::ScaleExceedsMaximumPrecision(_) => {
            MoneyError::ExcessDecimals
        }
        _ => MoneyError::Syntax,
    })?;
    let scaled = value.checked_mul(Decimal::from(10_i64.pow(exponent))).ok_or(MoneyError::TooLarge)?;
    let nearest = scaled.round_dp_with_strategy(0, rust_decimal::RoundingStrategy::MidpointAwayFromZero);
    let is_noise = (scaled - nearest).abs() <= NOISE;
    if value.is_sign_negative() && !(nearest.is_zero() && is_noise) {
        return Err(MoneyError::Negative);
    }
    if !is_noise && rounding == Rounding::Exact {
        return Err(MoneyError::ExcessDecimals);
    }
    nearest.to_i64().ok_or(MoneyError::TooLarge)
}

/// Rewrites a number with an exponent without it.
fn without_exponent(text: &str) -> Result<String, MoneyError> {
    let (sign, unsigned) = text.strip_prefix('-').map_or(("", text), |unsigned| ("-", unsigned));
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).ok_or(MoneyError::Syntax)?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    let power = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if [digits.as_str(), power].iter().any(|part| part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(MoneyError::Syntax);
    }
    if digits.bytes().all(|byte| byte == b'0') {
        return Ok(format!("{sign}0"));
    }
    // An exponent with that many digits exceeds any amount, or makes it zero.
    let power = power.parse::<i64>().unwrap_or(i64::MAX).min(1 << 32);
    let point = i64::try_from(whole.len()).unwrap_or(0) + if exponent.starts_with('-') { -power } else { power };
    Ok(match usize::try_from(point) {
        Err(_) if point < -60 => format!("{sign}0"),
        Err(_) | Ok(0) => {
            let zeros = usize::try_from(-point).unwrap_or(0);
            format!("{sign}0.{}{digits}", "0".repeat(zeros))
        }
        Ok(point) if point < digits.len() => format!("{sign}{}.{}", &digits[..point], &digits[point..]),
        Ok(point) if point > 1_000 => return Err(MoneyError::TooLarge),
        Ok(point) => format!("{sign}{digits}{}", "0".repeat(point - digits.len())),
    })
}

/// Formats minor units as decimal text in major units: 7212 of EUR is `72.12`.
#[must_use]
pub fn decimal_text(minor: i128, currency: Currency) -> String {
    let exponent = currency.exponent() as usize;
    let digits = format!("{:0width$}", minor.unsigned_abs(), width = exponent + 1);
    let (major, fraction) = digits.split_at(digits.len() - exponent);
    let sign = if minor < 0 { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{major}") } else { format!("{sign}{major}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::REPORTING;

    fn minor(text: &str, code: &str) -> Result<i64, MoneyError> {
        Money::parse(text, Currency::from_code(code)?).map(|money| money.minor)
    }

    #[test]
    fn reads_amounts_of_every_exponent() {
        for (text, code, expected) in [
            ("72.12", "EUR", 7212),
            ("0.00", "EUR", 0),
            ("0", "EUR", 0),
            ("-0.00", "EUR", 0),
            ("72", "EUR", 7200),
            ("72.1", "EUR", 7210),
            ("72.1200", "EUR", 7212),
            ("0072.12", "EUR", 7212),
            ("1.5e2", "EUR", 15000),
            ("7212", "JPY", 7212),
            ("7212.0", "JPY", 7212),
            ("1.234", "KWD", 1234),
            ("1.2345", "CLF", 12345),
            ("100000000000.00", "EUR", MAX_MINOR_UNITS),
            ("5.00", "VEF", 500),
            ("5", "BYR", 5),
            ("19.990000000000002", "EUR", 1999),
            ("19.989999999999998", "EUR", 1999),
            ("0.1000000000000000055511151231257827", "EUR", 10),
            ("1.9990000000000002e1", "EUR", 1999),
            ("-0.0000000000000001", "EUR", 0),
            (" 72.12\n", "EUR", 7212),
            ("7.212E1", "EUR", 7212),
            ("7212e-2", "EUR", 7212),
            ("72120000000000000000000000000000e-30", "EUR", 7212),
            ("1E-30", "EUR", 0),
            ("0e400", "EUR", 0),
        ] {
            assert_eq!(minor(text, code), Ok(expected), "{text} {code}");
        }
    }

    #[test]
    fn halves_are_rounded_up_if_rounding_is_allowed() {
        for (text, code, expected) in [
            ("225.1250", "USD", Ok(22513)),
            ("225.1249", "USD", Ok(22512)),
            ("20.37566", "USD", Ok(2038)),
            ("0.004", "EUR", Ok(0)),
            ("1E-30", "EUR", Ok(0)),
            ("5e-3", "EUR", Ok(1)),
            ("99.5", "JPY", Ok(100)),
            ("72.12", "EUR", Ok(7212)),
            ("-0.004", "EUR", Err(MoneyError::Negative)),
            ("abc", "EUR", Err(MoneyError::Syntax)),
        ] {
            let currency = Currency::from_code(code).unwrap();
            let rounded = Money::parse_with(text, currency, Rounding::HalfUp).map(|money| money.minor);
            assert_eq!(rounded, expected, "{text} {code}");
        }
    }

    #[test]
    fn rejects_invalid_amounts() {
        use MoneyError::*;
        for (text, code, expected) in [
            ("", "EUR", Syntax),
            ("abc", "EUR", Syntax),
            ("1,50", "EUR", Syntax),
            ("1_000", "EUR", Syntax),
            (".50", "EUR", Syntax),
            ("+1.00", "EUR", Syntax),
            ("NaN", "EUR", Syntax),
            ("1.00.00", "EUR", Syntax),
            ("-1.00", "EUR", Negative),
            ("-1", "JPY", Negative),
            ("1.001", "EUR", ExcessDecimals),
            ("1.5", "JPY", ExcessDecimals),
            ("1e-3", "EUR", ExcessDecimals),
            ("19.99000001", "EUR", ExcessDecimals),
            ("-0.001", "EUR", Negative),
            ("100000000000.01", "EUR", TooLarge),
            ("1e27", "EUR", TooLarge),
            ("1e30", "EUR", TooLarge),
            ("1e400", "EUR", TooLarge),
            ("1e99999999999999999999", "EUR", TooLarge),
            ("1e", "EUR", Syntax),
            ("1e2e3", "EUR", Syntax),
            ("99999999999999999999999999999999999999", "EUR", TooLarge),
            ("1.00", "eur", UnknownCurrency),
            ("1.00", "EURO", UnknownCurrency),
            ("1.00", "XAU", UnknownCurrency),
        ] {
            assert_eq!(minor(text, code), Err(expected), "{text} {code}");
        }
    }

    #[test]
    fn units_of_any_exponent_convert_to_minor_units() -> Result<(), MoneyError> {
        use MoneyError::*;
        for (units, exponent, code, expected) in [
            (7212, 2, "EUR", Ok(7212)),
            (72, 0, "EUR", Ok(7200)),
            (7_212_000, 5, "EUR", Ok(7212)),
            (7_212_001, 5, "EUR", Err(ExcessDecimals)),
            (500, 2, "ISK", Ok(5)),
            (501, 2, "ISK", Err(ExcessDecimals)),
            (-1, 2, "EUR", Err(Negative)),
            (MAX_MINOR_UNITS + 1, 2, "EUR", Err(TooLarge)),
            (i64::MAX, 0, "EUR", Err(TooLarge)),
            (1, 99, "EUR", Err(TooLarge)),
        ] {
            let money = Money::from_units(units, exponent, Currency::from_code(code)?);
            assert_eq!(money.map(|money| money.minor), expected, "{units} of exponent {exponent}, {code}");
        }
        Ok(())
    }

    #[test]
    fn a_reporting_currency_differs_only_in_its_code() -> Result<(), MoneyError> {
        for code in ["EUR", "JPY", "KWD"] {
            let real = Currency::from_code(code)?;
            let reporting = real.as_reporting();
            assert_ne!(real, reporting);
            assert_eq!((reporting.code(), reporting.to_string().as_str()), (REPORTING, REPORTING));
            assert_eq!((reporting.iso_code(), reporting.exponent()), (code, real.exponent()));
            assert_eq!(decimal_text(7212, reporting), decimal_text(7212, real));
        }
        assert_eq!(Currency::from_code(REPORTING), Err(MoneyError::UnknownCurrency), "events cannot use it");
        Ok(())
    }

    #[test]
    fn prints_minor_units_as_decimals() -> Result<(), MoneyError> {
        for (units, code, text) in [
            (7212, "EUR", "72.12"),
            (5, "EUR", "0.05"),
            (-5, "EUR", "-0.05"),
            (0, "EUR", "0.00"),
            (7212, "JPY", "7212"),
            (1234, "KWD", "1.234"),
        ] {
            assert_eq!(decimal_text(units, Currency::from_code(code)?), text);
        }
        Ok(())
    }
}
