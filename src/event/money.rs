//! Amounts in whole minor units of an ISO 4217 currency; no float ever holds money.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

/// The largest amount of one event in minor units: a hundred thousand million euros.
///
/// Nearly a million such events fit into one 64-bit sum.
pub const MAX_MINOR_UNITS: i64 = 10_000_000_000_000;

/// The code under which everything is shown once more in the reporting currency.
pub const REPORTING: &str = "reporting";

/// An ISO 4217 currency that has minor units (so no metals and no testing codes), or the same one as the currency that
/// all others are converted into, which is kept apart from it: see [`Currency::as_reporting`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency {
    // First, so that what was converted stands behind everything that was paid.
    is_reporting: bool,
    iso: iso_currency::Currency,
}

/// How many letters there are.
const LETTERS: usize = 26;

/// The currency of each word of three letters: looked up with every amount, where the library compares code by code.
static KNOWN: LazyLock<Box<[Option<Currency>]>> = LazyLock::new(|| {
    let letters = || 'A'..='Z';
    let words =
        letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| String::from_iter([a, b, c]))));
    let iso = words.map(|word| iso_currency::Currency::from_code(&word));
    let has_decimals = |iso: &iso_currency::Currency| iso.exponent().is_some();
    iso.map(|iso| iso.filter(has_decimals).map(|iso| Currency { is_reporting: false, iso })).collect()
});

/// The place of a word of three capitals among all of them.
fn place_of(code: &str) -> Option<usize> {
    let letters: &[u8; 3] = code.as_bytes().try_into().ok()?;
    letters.iter().try_fold(0, |place, letter| {
        let number = usize::from(letter.wrapping_sub(b'A'));
        (number < LETTERS).then_some(place * LETTERS + number)
    })
}

impl Currency {
    /// From the three-letter code in capitals.
    ///
    /// # Errors
    /// [`MoneyError::UnknownCurrency`].
    pub fn from_code(code: &str) -> Result<Currency, MoneyError> {
        place_of(code).and_then(|place| KNOWN[place]).ok_or(MoneyError::UnknownCurrency)
    }

    /// The currency as the one that amounts are converted into: it has the same decimals and is called [`REPORTING`].
    #[must_use]
    pub fn as_reporting(self) -> Currency {
        Currency { is_reporting: true, ..self }
    }

    /// Whether amounts of this currency were converted into it, as opposed to paid in it.
    #[must_use]
    pub fn is_reporting(self) -> bool {
        self.is_reporting
    }

    /// The code that is shown: three letters, or [`REPORTING`].
    #[must_use]
    pub fn code(self) -> &'static str {
        if self.is_reporting { REPORTING } else { self.iso.code() }
    }

    /// The three-letter code, also of a reporting currency.
    #[must_use]
    pub fn iso_code(self) -> &'static str {
        self.iso.code()
    }

    /// How many decimals an amount in this currency has: 2 for EUR, 0 for JPY, 3 for KWD.
    #[must_use]
    pub fn exponent(self) -> u32 {
        self.iso.exponent().map_or(0, u32::from)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl serde::Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

/// An amount of one currency, in minor units; never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    /// Minor units: cents of EUR, yen of JPY.
    pub minor: i64,
    /// The currency.
    pub currency: Currency,
}

/// Why a text is no amount.
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
    /// Not a three-letter ISO 4217 code of money in circulation.
    #[error("not a three-letter ISO 4217 currency code in capitals")]
    UnknownCurrency,
}

impl Money {
    /// From decimal text in major units, such as `72.12`, exactly.
    ///
    /// Zeros beyond the currency's decimals are accepted, other digits there are refused.
    ///
    /// # Errors
    /// See [`MoneyError`].
    pub fn parse(text: &str, currency: Currency) -> Result<Money, MoneyError> {
        let exponent = currency.exponent();
        let minor = match plain_minor_units(text, exponent) {
            Some(minor) => minor,
            None => decimal_minor_units(text, exponent)?,
        };
        if minor > MAX_MINOR_UNITS { Err(MoneyError::TooLarge) } else { Ok(Money { minor, currency }) }
    }

    /// From whole units of `10^-exponent` of the currency: 7212 of exponent 2 is 72.12.
    ///
    /// # Errors
    /// See [`MoneyError`]; [`MoneyError::ExcessDecimals`] where the currency's own minor units are larger and do not divide it.
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

/// The usual spelling, digits with exactly the currency's decimals, without a detour.
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

/// Every other spelling: no point, fewer or superfluous decimals, an exponent.
fn decimal_minor_units(text: &str, exponent: u32) -> Result<i64, MoneyError> {
    use rust_decimal::Decimal;
    if text.bytes().any(|byte| !matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E')) {
        return Err(MoneyError::Syntax);
    }
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    if !unsigned.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(MoneyError::Syntax);
    }
    let whole_digits = unsigned.trim_start_matches('0').bytes().take_while(u8::is_ascii_digit).count();
    if whole_digits > 20 {
        return Err(MoneyError::TooLarge);
    }
    let parsed = if text.contains(['e', 'E']) { Decimal::from_scientific(text) } else { Decimal::from_str_exact(text) };
    let value = parsed.map_err(|e| match e {
        rust_decimal::Error::ExceedsMaximumPossibleValue => MoneyError::TooLarge,
        rust_decimal::Error::Underflow | rust_decimal::Error::ScaleExceedsMaximumPrecision(_) => {
            MoneyError::ExcessDecimals
        }
        _ => MoneyError::Syntax,
    })?;
    if value.is_sign_negative() && !value.is_zero() {
        return Err(MoneyError::Negative);
    }
    let scaled = value.checked_mul(Decimal::from(10_i64.pow(exponent))).ok_or(MoneyError::TooLarge)?;
    if !scaled.fract().is_zero() {
        return Err(MoneyError::ExcessDecimals);
    }
    i64::try_from(scaled.trunc().mantissa() / 10_i128.pow(scaled.trunc().scale())).map_err(|_| MoneyError::TooLarge)
}

impl FromStr for Currency {
    type Err = MoneyError;
    fn from_str(code: &str) -> Result<Currency, MoneyError> {
        Currency::from_code(code)
    }
}

/// Minor units as a decimal string in major units: 7212 of EUR is `72.12`.
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

    fn minor(text: &str, code: &str) -> Result<i64, MoneyError> {
        Money::parse(text, Currency::from_code(code)?).map(|money| money.minor)
    }

    #[test]
    fn a_code_is_three_capitals_of_the_library() {
        let exact = |code: &str| Currency::from_code(code).ok().map(Currency::code);
        assert_eq!(["EUR", "JPY", "KWD", "ZWL"].map(exact), [Some("EUR"), Some("JPY"), Some("KWD"), Some("ZWL")]);
        for wrong in ["", "EU", "eur", "EURO", "E[R", "\u{e9}R", "AAA", "ZZZ", "XAU", "XTS"] {
            assert_eq!(Currency::from_code(wrong), Err(MoneyError::UnknownCurrency), "{wrong}");
        }
        let known = KNOWN.iter().flatten();
        assert!(known.clone().count() > 150);
        known.for_each(|currency| assert_eq!(Currency::from_code(currency.code()), Ok(*currency)));
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
        ] {
            assert_eq!(minor(text, code), Ok(expected), "{text} {code}");
        }
    }

    #[test]
    fn refuses_what_is_no_amount() {
        use MoneyError::*;
        for (text, code, expected) in [
            ("", "EUR", Syntax),
            ("abc", "EUR", Syntax),
            ("1,50", "EUR", Syntax),
            ("1_000", "EUR", Syntax),
            (" 1.00", "EUR", Syntax),
            (".50", "EUR", Syntax),
            ("+1.00", "EUR", Syntax),
            ("NaN", "EUR", Syntax),
            ("1.00.00", "EUR", Syntax),
            ("-1.00", "EUR", Negative),
            ("-1", "JPY", Negative),
            ("1.001", "EUR", ExcessDecimals),
            ("1.5", "JPY", ExcessDecimals),
            ("1e-3", "EUR", ExcessDecimals),
            ("100000000000.01", "EUR", TooLarge),
            ("1e27", "EUR", TooLarge),
            ("99999999999999999999999999999999999999", "EUR", TooLarge),
            ("1.00", "eur", UnknownCurrency),
            ("1.00", "EURO", UnknownCurrency),
            ("1.00", "XAU", UnknownCurrency),
        ] {
            assert_eq!(minor(text, code), Err(expected), "{text} {code}");
        }
    }

    #[test]
    fn whole_units_of_any_size_become_the_currencys_own() -> Result<(), MoneyError> {
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
    fn a_reporting_currency_is_the_same_money_under_another_name() -> Result<(), MoneyError> {
        for code in ["EUR", "JPY", "KWD"] {
            let real = Currency::from_code(code)?;
            let reporting = real.as_reporting();
            assert_ne!(real, reporting);
            assert_eq!((reporting.code(), reporting.to_string().as_str()), (REPORTING, REPORTING));
            assert_eq!((reporting.iso_code(), reporting.exponent()), (code, real.exponent()));
            assert_eq!(decimal_text(7212, reporting), decimal_text(7212, real));
        }
        assert_eq!(Currency::from_code(REPORTING), Err(MoneyError::UnknownCurrency), "no event is paid in it");
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
