//! Exact numbers in the JSON of Kafka Connect and Debezium: bytes in base64 with a scale, which is in the schema, in
//! the message, or in the configuration.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::fields::{Value, excerpt};
use super::json;
use super::{Reason, Rejection};

/// Schema name of Kafka Connect's decimal type.
const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
/// Accepted scales: from 10^60 down to 10^-60 of a unit.
const SCALES: std::ops::RangeInclusive<i32> = -60..=60;

/// A field of a Kafka Connect schema, or the schema itself.
#[derive(Deserialize)]
struct Field<'a> {
    #[serde(borrow, default)]
    field: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    parameters: Option<Parameters<'a>>,
    #[serde(borrow, default)]
    fields: Vec<Field<'a>>,
}

#[derive(Deserialize)]
struct Parameters<'a> {
    #[serde(borrow, default)]
    scale: Option<Cow<'a, str>>,
}

/// A decimal number with its scale: Debezium's `VariableScaleDecimal`.
#[derive(Deserialize)]
struct Scaled<'a> {
    scale: i32,
    #[serde(borrow)]
    value: Cow<'a, str>,
}

/// `google.type.Money` in JSON: whole units and nanos (billionths). Either is missing if it is zero.
#[derive(Deserialize)]
struct UnitsAndNanos<'a> {
    #[serde(borrow, default)]
    units: Option<&'a RawValue>,
    #[serde(default)]
    nanos: Option<i64>,
}

impl UnitsAndNanos<'_> {
    fn amount(&self) -> Option<Value<'static>> {
        let units = self.units.map(|units| json::scalar(units).as_integer()).or(self.nanos.map(|_| Some(0)))??;
        units_and_nanos(units, self.nanos.unwrap_or(0))
    }
}

/// The amount of whole units and nanos; `None` if the nanos amount to a unit or more.
pub(super) fn units_and_nanos(units: i64, nanos: i64) -> Option<Value<'static>> {
    let billionths = i128::from(units) * 1_000_000_000 + i128::from(nanos);
    Some(Value::Text(Cow::Owned(decimal(billionths, 9)))).filter(|_| nanos.unsigned_abs() < 1_000_000_000)
}

/// A Kafka Connect schema, which contains the scales of decimal columns.
pub(super) struct Schema<'a>(Field<'a>);

impl<'a> Schema<'a> {
    /// `None` if the JSON is not a schema.
    pub fn parse(json: &'a str) -> Option<Schema<'a>> {
        serde_json::from_str(json).ok().map(Schema)
    }

    /// The scale of a column, if it is a decimal. `way` is the path to the column.
    pub fn scale<'w>(&self, way: impl IntoIterator<Item = &'w str>) -> Option<i32> {
        let mut column = &self.0;
        for name in way {
            column = column.fields.iter().find(|field| field.field.as_deref() == Some(name))?;
        }
        let is_decimal = column.name.as_deref() == Some(DECIMAL);
        is_decimal.then(|| column.parameters.as_ref()?.scale.as_ref()?.parse().ok()).flatten()
    }
}

/// The value of a wrapper object: MongoDB's extended JSON, or a number as bytes with their scale.
pub(super) fn unwrapped(json: &str) -> Option<Value<'_>> {
    if !json.starts_with('{') {
        return None;
    }
    let scaled = || {
        let Scaled { scale, value } = serde_json::from_str::<Scaled<'_>>(json).ok()?;
        of_bytes("number", &value, scale).ok().map(without_zeros)
    };
    json::extended(json).or_else(scaled)
}

/// The value of an id or quantity. With a `scale`, text is the bytes of a number.
pub(super) fn number<'a>(field: &str, value: Value<'a>, scale: Option<i32>) -> Result<Value<'a>, Rejection> {
    match (&value, scale) {
        (Value::Text(text), Some(scale)) => of_bytes(field, text, scale)
            .map(without_zeros)
            .map_err(|rejection| Rejection::new(Reason::WrongType, rejection.detail)),
        _ => Ok(value),
    }
}

/// The number without trailing zeros after the decimal point.
fn without_zeros(number: Value<'static>) -> Value<'static> {
    match number {
        Value::Text(text) if text.contains('.') => {
            Value::Text(Cow::Owned(text.trim_end_matches('0').trim_end_matches('.').to_owned()))
        }
        other => other,
    }
}

/// The amount in the JSON value `json`. With a `scale`, text is the bytes of a number. Any other text is returned
/// unchanged.
pub(super) fn amount<'a>(json: &'a str, scale: Option<i32>) -> Result<Value<'a>, Rejection> {
    let plain = json::spelled(json);
    if json.starts_with('{') {
        if let Ok(Scaled { scale, value }) = serde_json::from_str::<Scaled<'a>>(json) {
            return of_bytes("amount", &value, scale);
        }
        if let Ok(money) = serde_json::from_str::<UnitsAndNanos<'a>>(json)
            && let Some(amount) = money.amount()
        {
            return Ok(amount);
        }
        let wrong = || Rejection::new(Reason::WrongType, "amount must be a number, text, or bytes and their scale");
        return json::extended(json).ok_or_else(wrong);
    }
    match (plain, scale) {
        (Value::Text(text), Some(scale)) => of_bytes("amount", &text, scale),
        (Value::Text(text), None) if looks_like_bytes(&text) => {
            let what = format!(
                "amount {:?} looks like the bytes of a number (decimal.handling.mode = \"precise\") whose scale no schema \
                 tells; write amount_scale in the source's mapping, or let the connector write text \
                 (decimal.handling.mode = \"string\")",
                excerpt(&text)
            );
            Err(Rejection::new(Reason::InvalidAmount, what))
        }
        (plain, _) => Ok(plain),
    }
}

fn looks_like_bytes(text: &str) -> bool {
    // Words such as "free" are valid base64 too.
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphabetic())
        && text.bytes().skip(1).all(|byte| byte.is_ascii_lowercase());
    !is_word
        && text.bytes().any(|byte| byte.is_ascii_alphabetic() || b"+/=".contains(&byte))
        && text.parse::<f64>().is_err()
        && STANDARD.decode(text).is_ok_and(|bytes| (1..=16).contains(&bytes.len()))
}

fn of_bytes(field: &str, text: &str, scale: i32) -> Result<Value<'static>, Rejection> {
    let wrong = |what: &str| Rejection::new(Reason::InvalidAmount, format!("{field} {:?} {what}", excerpt(text)));
    let bytes = STANDARD.decode(text.as_bytes()).ok().and_then(|bytes| integer(&bytes));
    let units = bytes.ok_or_else(|| wrong("is no base64 of a whole number of at most 16 bytes"))?;
    if !SCALES.contains(&scale) {
        return Err(wrong(&format!("has the scale {scale}, which is beyond any amount")));
    }
    Ok(Value::Text(Cow::Owned(decimal(units, scale))))
}

/// `units` times `10^-scale`.
fn decimal(units: i128, scale: i32) -> String {
    let places = usize::try_from(scale.max(0)).unwrap_or(0);
    let zeros = usize::try_from(-scale.min(0)).unwrap_or(0);
    let digits = format!("{:0width$}{}", units.unsigned_abs(), "0".repeat(zeros), width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let sign = if units < 0 { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// A big-endian number in two's complement.
fn integer(bytes: &[u8]) -> Option<i128> {
    const SIZE: usize = size_of::<i128>();
    let first = *bytes.first()?;
    let sign = if first & 0x80 == 0 { 0 } else { 0xff };
    let (above, low) = bytes.split_at(bytes.len().saturating_sub(SIZE));
    if above.iter().any(|byte| *byte != sign) || (low[0] ^ sign) & 0x80 != 0 {
        return None;
    }
    let mut all = [sign; SIZE];
    all[SIZE - low.len()..].copy_from_slice(low);
    Some(i128::from_be_bytes(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twos_complement_of_any_length_is_read() {
        let most = [&[0x7f][..], &[0xff; 15]].concat();
        for (bytes, number) in [
            (&[0x1c, 0x2c][..], Some(7212)),
            (&[0xff], Some(-1)),
            (&[0x00, 0xff], Some(255)),
            (&[0, 0, 0, 0, 0, 0, 0, 0, 0x1c, 0x2c], Some(7212)),
            (&most, Some(i128::MAX)),
            (&[&[0, 0xff][..], &[0; 15]].concat(), None),
            (&[], None),
        ] {
            assert_eq!(integer(bytes), number, "{bytes:?}");
        }
    }

    #[test]
    fn amounts_in_every_encoding() {
        for (json, scale, expected) in [
            (r#""HCw=""#, Some(2), "72.12"),
            (r#""AtE=""#, Some(-1), "7210"),
            (r#"{"scale":-1,"value":"AtE="}"#, None, "7210"),
            (r#"{"scale":2,"value":"HCw="}"#, Some(4), "72.12"),
            (r#""CwF0""#, Some(4), "72.1268"),
            (r#"{"scale":30,"value":"BoCqZDkRWSdtOs4AAAA="}"#, None, "8.053063680000000000000000000000"),
            (r#""/w==""#, Some(2), "-0.01"),
            (r#""AA==""#, Some(2), "0.00"),
            (r#""72.12""#, None, "72.12"),
            ("72.12", Some(2), "72.12"),
            (r#"{"$numberDecimal":"72.12"}"#, None, "72.12"),
            (r#"{"$numberInt":"7"}"#, None, "7"),
            (r#""1e3""#, None, "1e3"),
        ] {
            let read = amount(json, scale);
            let text = read.as_ref().ok().and_then(Value::as_text);
            if json.contains("BoCq") {
                assert!(text.is_some_and(|text| text.len() > 30), "{read:?}");
            } else {
                assert_eq!(text, Some(expected), "{json} {scale:?}: {read:?}");
            }
        }
        for (json, scale, part) in [
            (r#""HCw=""#, None, "amount_scale"),
            (r#""72,12""#, Some(2), "no base64"),
            (r#""AAAAAAAAAAAAAAAAAAAAAAE=AAAA""#, Some(2), "no base64"),
            (r#"{"scale":99,"value":"HCw="}"#, None, "scale 99"),
            (r#"{"net":1}"#, None, "bytes and their scale"),
        ] {
            let detail = amount(json, scale).unwrap_err().detail;
            assert!(detail.contains(part), "{json}: {detail}");
        }
    }

    #[test]
    fn the_schema_says_how_small_the_units_are() {
        let schema = r#"{"type":"struct","fields":[{"field":"after","fields":[
            {"field":"amount","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}},
            {"field":"note","type":"string"}]}]}"#;
        let schema = Schema::parse(schema).unwrap();
        assert_eq!(schema.scale(["after", "amount"]), Some(2));
        assert_eq!(schema.scale(["after", "note"]), None);
        assert_eq!(schema.scale(["amount"]), None);
        assert!(Schema::parse("null").is_none());
    }

    #[test]
    fn ids_in_bytes_are_numbers_without_zeros_behind_the_point() {
        for (json, expected) in [
            (r#"{"scale":0,"value":"HCw="}"#, Some("7212")),
            (r#"{"scale":2,"value":"HCA="}"#, Some("72")),
            (r#"{"scale":-2,"value":"SA=="}"#, Some("7200")),
            (r#"{"$numberLong":"7"}"#, Some("7")),
            (r#"{"scale":0,"value":"?"}"#, None),
            (r#"{"value":"HCw="}"#, None),
        ] {
            assert_eq!(unwrapped(json).as_ref().and_then(Value::as_text), expected, "{json}");
        }
        let read = |text: &'static str, scale| number("order_id", Value::Text(text.into()), scale);
        assert_eq!(read("HCw=", Some(0)), Ok(Value::Text("7212".into())));
        assert_eq!(read("HCw=", None), Ok(Value::Text("HCw=".into())), "text without a scale is text");
        assert!(read("72-12", Some(0)).unwrap_err().detail.starts_with("order_id"));
    }
}
