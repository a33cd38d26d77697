//! How a source writes amounts: decimal and thousands separators, prices with quantities, negative amounts.

use std::borrow::Cow;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

use super::fields::{Fields, Value, excerpt, time};
use super::options::{AmountUnit, Negative, OptionError, Options};
use super::rules::Rules;
use super::{Reason, Rejection};
use crate::event::EventType;

/// How one source writes amounts, from its options.
#[derive(Debug, Clone)]
pub(super) struct Amounts {
    unit: AmountUnit,
    has_decimal_comma: bool,
    /// The separator between groups of digits.
    thousands: Option<char>,
    negative: Negative,
}

impl Amounts {
    pub fn new(options: &Options) -> Result<Amounts, OptionError> {
        let decimal = match options.decimal.as_deref() {
            None | Some(".") => '.',
            Some(",") => ',',
            Some(other) => {
                return Err(OptionError::new("decimal", format!("{other:?} is not known; write \".\" or \",\"")));
            }
        };
        let thousands = match options.thousands.as_deref() {
            None => None,
            Some("," | "." | " " | "'" | "_") => options.thousands.as_deref().and_then(|text| text.chars().next()),
            Some(other) => {
                let what = format!("{other:?} is not known; write \",\", \".\", \" \", \"'\" or \"_\"");
                return Err(OptionError::new("thousands", what));
            }
        };
        if thousands == Some(decimal) {
            let what = format!("{decimal:?} is the decimal separator too; write decimal = \",\" or another thousands");
            return Err(OptionError::new("thousands", what));
        }
        let has_decimal_comma = decimal == ',';
        Ok(Amounts { unit: options.amount_unit, has_decimal_comma, thousands, negative: options.negative })
    }

    /// Whether the decimal separator is a comma.
    pub fn has_decimal_comma(&self) -> bool {
        self.has_decimal_comma
    }

    /// The sum of `amount` and `more`, without empty terms, times the quantity if there is one.
    pub fn read<'a>(
        &self,
        amount: Value<'a>,
        more: Vec<Value<'a>>,
        quantity: Value<'a>,
    ) -> Result<Value<'a>, Rejection> {
        let mut amount = self.plain("amount", amount)?;
        for term in more {
            let term = self.plain("amount", term)?;
            if term != Value::Absent && amount != Value::Absent {
                amount = Value::Text(Cow::Owned(sum(&amount, &term)?));
            }
        }
        let quantity = self.plain("quantity", quantity)?;
        if quantity != Value::Absent && amount != Value::Absent {
            amount = Value::Text(Cow::Owned(product(&amount, &quantity)?));
        }
        match (self.unit, amount.as_text()) {
            (AmountUnit::Minor | AmountUnit::Adyen, Some(text)) => {
                minor_units(text).map(|units| units.unwrap_or(amount))
            }
            _ => Ok(amount),
        }
    }

    /// The amount in minor units, if the source's unit depends on the currency (Adyen); otherwise unchanged.
    pub fn of_currency<'a>(&self, amount: Value<'a>, currency: &Value<'_>) -> Value<'a> {
        match (amount, self.unit) {
            (Value::Units { units, exponent: None }, AmountUnit::Adyen) => {
                Value::Units { units, exponent: currency.as_text().and_then(adyen_exponent) }
            }
            (amount, _) => amount,
        }
    }

    /// The number without thousands separators and with a decimal point.
    fn plain<'a>(&self, field: &str, value: Value<'a>) -> Result<Value<'a>, Rejection> {
        let Value::Text(text) = &value else { return Ok(value) };
        let (text, whole) = (text.trim(), text.len());
        if text.is_empty() {
            return Ok(Value::Absent);
        }
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || b".-".contains(&byte)) && !text.ends_with('-');
        if is_plain && !self.has_decimal_comma && self.thousands != Some('.') {
            return Ok(if text.len() == whole { value } else { Value::Text(Cow::Owned(text.to_owned())) });
        }
        let (sign, digits) = signed(text);
        let plain = self.without_separators(digits).ok_or_else(|| self.refused(field, text))?;
        Ok(Value::Text(Cow::Owned(format!("{sign}{plain}"))))
    }

    fn without_separators(&self, digits: &str) -> Option<String> {
        let decimal = if self.has_decimal_comma { ',' } else { '.' };
        let (whole, fraction) = match digits.split_once(decimal) {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (digits, None),
        };
        let has_other_point = |part: &str| part.contains(['.', ',']);
        let whole = match self.thousands {
            Some(separator) => without_groups(whole, separator)?,
            None => whole.to_owned(),
        };
        if has_other_point(&whole) || fraction.is_some_and(has_other_point) {
            return None;
        }
        Some(fraction.map_or(whole.clone(), |fraction| format!("{whole}.{fraction}")))
    }

    fn refused(&self, field: &str, text: &str) -> Rejection {
        let decimal = if self.has_decimal_comma { ',' } else { '.' };
        let detail = match self.thousands {
            None => format!(
                "{field} {:?} has another separator than decimal = \"{decimal}\"; write decimal and thousands as the \
                 source does",
                excerpt(text)
            ),
            Some(separator) => format!(
                "{field} {:?} is not a number with decimal = \"{decimal}\" and thousands = \"{separator}\"",
                excerpt(text)
            ),
        };
        Rejection::new(Reason::InvalidAmount, detail)
    }

    /// Applies `mapping.negative` to a negative amount and returns the resulting event type: a negative order becomes a
    /// refund. `None` if the amount is zero with a sign, so that no money was returned. With `is_repeated` the refund's
    /// id is the order id alone.
    pub fn turn(
        &self,
        event_type: EventType,
        fields: &mut Fields<'_>,
        rules: &Rules,
        is_repeated: bool,
    ) -> Result<Option<EventType>, Rejection> {
        let is_money = matches!(event_type, EventType::Order | EventType::Refund | EventType::Cancel);
        if !is_money || !is_negative(&fields.amount) {
            return Ok(Some(event_type));
        }
        if self.negative == Negative::Reject {
            return match event_type {
                EventType::Order => Err(negative(&fields.amount)),
                _ => Ok(Some(event_type)),
            };
        }
        fields.amount = absolute(std::mem::take(&mut fields.amount));
        if event_type != EventType::Order {
            return Ok(Some(event_type));
        }
        if is_zero(&fields.amount) {
            return Ok(None);
        }
        if rules.is_nobody(&fields.refund_id) {
            fields.refund_id = credit_id(fields, rules, is_repeated)?;
        }
        Ok(Some(EventType::Refund))
    }
}

/// The id of a refund that was sent as a negative order. An order can have several, so time and amount are part of the
/// id; a copy of the message has the same three values.
fn credit_id(fields: &mut Fields<'_>, rules: &Rules, is_repeated: bool) -> Result<Value<'static>, Rejection> {
    let order = std::mem::take(&mut fields.order_id);
    if rules.is_nobody(&order) {
        return Ok(Value::Absent);
    }
    let order = order.into_id().into_text().unwrap_or_default();
    if is_repeated {
        return Ok(Value::Text(Cow::Owned(order.into_owned())));
    }
    let at = time(rules.time(fields.time.clone())?)?.millis();
    let amount = match &fields.amount {
        Value::Units { units, .. } => units.to_string(),
        other => {
            let text = other.as_text().unwrap_or_default();
            decimal(text).map_or_else(|| text.to_owned(), |amount| amount.normalize().to_string())
        }
    };
    Ok(Value::Text(Cow::Owned(format!("{order}/{at}/{amount}"))))
}

/// Decimals of the currencies for which Adyen deviates from ISO 4217
/// (<https://docs.adyen.com/development-resources/currency-codes>).
fn adyen_exponent(code: &str) -> Option<u32> {
    match code {
        "CLP" | "ISK" => Some(2),
        "CVE" | "IDR" => Some(0),
        _ => None,
    }
}

fn negative(amount: &Value<'_>) -> Rejection {
    let text = match amount {
        Value::Units { units, .. } => units.to_string(),
        other => excerpt(other.as_text().unwrap_or_default()).into_owned(),
    };
    let detail = format!("amount {text:?} is negative; if that is money that goes back, write negative = \"refund\"");
    Rejection::new(Reason::InvalidAmount, detail)
}

fn is_negative(amount: &Value<'_>) -> bool {
    match amount {
        Value::Units { units, .. } => *units < 0,
        other => other.as_text().is_some_and(|text| text.starts_with('-')),
    }
}

fn is_zero(amount: &Value<'_>) -> bool {
    match amount {
        Value::Units { units, .. } => *units == 0,
        other => other.as_text().and_then(decimal).is_some_and(|amount| amount.is_zero()),
    }
}

/// The amount without its sign.
pub(super) fn absolute(amount: Value<'_>) -> Value<'_> {
    match amount {
        Value::Units { units, exponent } => Value::Units { units: units.saturating_abs(), exponent },
        Value::Number(digits) => Value::Number(digits.strip_prefix('-').unwrap_or(digits)),
        Value::Text(text) => Value::Text(match text.strip_prefix('-') {
            Some(rest) => Cow::Owned(rest.to_owned()),
            None => text,
        }),
        other => other,
    }
}

/// The sign and the rest of a number, in the notations of spreadsheets and accounting systems: `-1`, `(1)`, `1-`.
fn signed(text: &str) -> (&'static str, &str) {
    if let Some(inner) = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) {
        return ("-", inner.trim());
    }
    let minus = ['-', '\u{2212}'];
    if let Some(rest) = text.strip_prefix(minus).or_else(|| text.strip_suffix(minus)) {
        return ("-", rest.trim());
    }
    ("", text.strip_prefix('+').unwrap_or(text).trim())
}

/// Digits without the separators between groups; `None` if the groups are not thousands (or lakhs).
fn without_groups(digits: &str, separator: char) -> Option<String> {
    let is_separator =
        |c: char| c == separator || (separator == ' ' && matches!(c, '\u{a0}' | '\u{202f}' | '\u{2009}'));
    let mut groups = digits.split(is_separator);
    let mut plain = groups.next()?.to_owned();
    let rest: Vec<&str> = groups.collect();
    if let Some((last, others)) = rest.split_last() {
        let is_group = |group: &&str| (2..=3).contains(&group.len()) && group.bytes().all(|byte| byte.is_ascii_digit());
        let is_first = (1..=3).contains(&plain.len()) && plain.bytes().all(|byte| byte.is_ascii_digit());
        if !is_first || last.len() != 3 || !is_group(last) || !others.iter().all(is_group) {
            return None;
        }
    }
    plain.extend(rest);
    Some(plain)
}

/// An exact decimal number, with or without an exponent.
pub(super) fn decimal(text: &str) -> Option<Decimal> {
    if text.bytes().any(|byte| !(byte.is_ascii_digit() || b".-+eE".contains(&byte))) {
        return None;
    }
    if text.contains(['e', 'E']) { Decimal::from_scientific(text).ok() } else { Decimal::from_str_exact(text).ok() }
}

/// A whole number of minor units in any notation; `None` if the text is not a number.
fn minor_units(text: &str) -> Result<Option<Value<'static>>, Rejection> {
    let too_large = || {
        let what = format!("amount {:?} is absurdly large (in minor units)", excerpt(text));
        Rejection::new(Reason::InvalidAmount, what)
    };
    let units = |units| Value::Units { units, exponent: None };
    if let Ok(whole) = text.parse() {
        return Ok(Some(units(whole)));
    }
    let fraction = Value::Other("a fraction of a minor unit");
    match decimal(text) {
        Some(exact) if exact.fract().is_zero() => exact.to_i64().map(|whole| Some(units(whole))).ok_or_else(too_large),
        Some(_) => Ok(Some(fraction)),
        // More digits than `Decimal` holds: only the magnitude matters here.
        None => match text.parse::<f64>() {
            Ok(size) if size.abs() >= 1e15 => Err(too_large()),
            Ok(size) if size.is_finite() => Ok(Some(fraction)),
            _ => Ok(None),
        },
    }
}

fn number(field: &str, value: &Value<'_>, to: &str) -> Result<Decimal, Rejection> {
    value.as_text().and_then(decimal).ok_or_else(|| {
        let shown = value.as_text().map_or_else(|| "something else".to_owned(), |text| format!("{:?}", excerpt(text)));
        Rejection::new(Reason::InvalidAmount, format!("{field} must be a number to be {to}, not {shown}"))
    })
}

fn sum(amount: &Value<'_>, term: &Value<'_>) -> Result<String, Rejection> {
    let [amount, term] = [number("amount", amount, "added up")?, number("amount", term, "added up")?];
    let sum = amount.checked_add(term).map(|sum| sum.to_string());
    sum.ok_or_else(|| Rejection::new(Reason::InvalidAmount, "amount is a sum with too many digits to be exact"))
}

fn product(amount: &Value<'_>, quantity: &Value<'_>) -> Result<String, Rejection> {
    let amount = number("amount", amount, "multiplied")?;
    let quantity = number("quantity", quantity, "multiplied")?;
    let product = amount.checked_mul(quantity).ok_or_else(|| {
        Rejection::new(Reason::InvalidAmount, "amount times quantity has too many digits to be exact")
    })?;
    // Zero keeps the sign of the product, so that `turn` recognizes a negative order of amount zero.
    let is_negative = amount.is_sign_negative() != quantity.is_sign_negative();
    Ok(format!("{}{}", if is_negative { "-" } else { "" }, product.abs().normalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(decimal: &str, thousands: Option<&str>) -> Amounts {
        Amounts::new(&Options {
            decimal: Some(decimal.to_owned()),
            thousands: thousands.map(str::to_owned),
            ..Options::default()
        })
        .unwrap()
    }

    fn read(amounts: &Amounts, text: &str) -> Option<String> {
        let read = amounts.read(Value::Text(text.into()), Vec::new(), Value::Absent);
        read.ok().map(|value| value.as_text().unwrap_or_default().to_owned())
    }

    #[test]
    fn separators_are_read_as_configured_and_in_no_other_way() {
        for (decimal, thousands, text, plain) in [
            (".", None, "1234.50", Some("1234.50")),
            (".", None, "1,234.50", None),
            (".", Some(","), "1,234.50", Some("1234.50")),
            (".", Some(","), "12,34,567.5", Some("1234567.5")),
            (".", Some(","), "1234.50", Some("1234.50")),
            (".", Some(","), "1,23", None),
            (".", Some(","), "1234,567", None),
            (",", None, "12,5", Some("12.5")),
            (",", None, "1.234,50", None),
            (",", Some("."), "1.234,50", Some("1234.50")),
            (",", Some("."), "-1.234.567", Some("-1234567")),
            (",", Some("."), "1.2", None),
            (",", Some(" "), "1\u{202f}234,50", Some("1234.50")),
            (".", Some("'"), "1'234.50", Some("1234.50")),
            (".", None, "(12.50)", Some("-12.50")),
            (".", None, "12.50-", Some("-12.50")),
            (".", None, "\u{2212}12.50", Some("-12.50")),
            (".", None, " 12.50 ", Some("12.50")),
            (".", None, "  -12.50\n", Some("-12.50")),
        ] {
            let found = read(&amounts(decimal, thousands), text);
            assert_eq!(found.as_deref(), plain, "{text:?} with {decimal:?} and {thousands:?}");
        }
    }

    #[test]
    fn whole_minor_units_are_read_however_they_are_spelled() {
        for (text, units) in [("4130", 4130), ("4130.0", 4130), ("4130.00", 4130), ("4.13E3", 4130), ("-4130", -4130)] {
            assert_eq!(minor_units(text), Ok(Some(Value::Units { units, exponent: None })), "{text}");
        }
        let fraction = Ok(Some(Value::Other("a fraction of a minor unit")));
        assert_eq!(minor_units("4130.5"), fraction);
        assert_eq!(minor_units("0.1000000000000000055511151231257827"), fraction);
        assert_eq!(minor_units("abc"), Ok(None));
        for text in ["1e30", "1e400", "99999999999999999999999999999999"] {
            assert!(minor_units(text).unwrap_err().detail.contains("large"), "{text}");
        }
    }

    #[test]
    fn a_quantity_multiplies_exactly() {
        let amounts = amounts(".", None);
        for (amount, quantity, product) in [
            ("2.55", "6", "15.3"),
            ("27.5", "-1", "-27.5"),
            ("0.001", "1000", "1"),
            ("0", "-3", "-0"),
            ("-2", "-2", "4"),
        ] {
            let read = amounts.read(Value::Text(amount.into()), Vec::new(), Value::Number(quantity)).unwrap();
            assert_eq!(read.as_text(), Some(product));
        }
        assert!(amounts.read(Value::Text("1".into()), Vec::new(), Value::Text("six".into())).is_err());
    }
}
