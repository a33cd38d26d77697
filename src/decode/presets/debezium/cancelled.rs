//! The column that marks an order as cancelled: a flag, a time, or one of the configured values.

use crate::decode::amounts::decimal;
use crate::decode::fields::{Value, excerpt, time};
use crate::decode::options::{OptionError, Options};
use crate::decode::paths::Slots;
use crate::decode::presets::custom::Row;
use crate::decode::{Reason, Rejection, decimals};
use crate::event::{DAY, Time};

/// In `cancelled_values`: any non-blank value.
const ANY: &str = "*";

/// Values that mean no, in lower case; so do zero and dates before 1971.
const NO: [&str; 13] = ["", "false", "f", "no", "n", "off", "null", "none", "nil", "nan", "undefined", "\0", "aa=="];

/// Values that mean yes, in lower case.
const YES: [&str; 9] = ["true", "t", "yes", "y", "on", "x", "\u{1}", "aq==", "1"];

/// The last day of the year 9999 in days, and its last second in seconds since the epoch.
const LAST_DAY: i64 = 2_932_896;
const LAST_SECOND: i64 = 253_402_300_799;

/// Whether an order is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    No,
    /// Cancelled at an unknown time.
    Yes,
    At(Time),
}

/// Reads the column.
#[derive(Debug, Clone)]
pub(super) struct Cancelled {
    column: String,
    slot: usize,
    values: Vec<String>,
}

impl Cancelled {
    pub fn new(options: &Options, row: &mut Row) -> Result<Option<Cancelled>, OptionError> {
        let Some(column) = &options.cancelled else {
            if options.cancelled_values.is_empty() {
                return Ok(None);
            }
            return Err(OptionError::new("cancelled_values", "are values of a column; write its name as cancelled"));
        };
        let slot = row.add("cancelled", column)?;
        Ok(Some(Cancelled { column: column.clone(), slot, values: options.cancelled_values.clone() }))
    }

    /// Reads the column of a row.
    pub fn read<'a>(&self, row: &Row, slots: &Slots<'a>) -> Result<State, Rejection> {
        let Some(json) = slots.raw(self.slot) else { return Ok(State::No) };
        let value = match slots.value(self.slot) {
            Value::Other(found) => decimals::unwrapped(json).unwrap_or(Value::Other(found)),
            value => value,
        };
        let text = value.as_text().unwrap_or(json).trim().to_owned();
        if !self.values.is_empty() {
            let is_listed = |known: &String| *known == text || (known == ANY && !text.is_empty());
            return Ok(if self.values.iter().any(is_listed) { State::Yes } else { State::No });
        }
        if let Some(is_cancelled) = flag(&text) {
            return Ok(if is_cancelled { State::Yes } else { State::No });
        }
        let plain = value.clone();
        let read = row.instant(value).and_then(time).or_else(|refused| time(plain).map_err(|_| refused));
        match read {
            Ok(at) if at.millis() < 365 * DAY => Ok(State::No),
            Ok(at) => Ok(State::At(at)),
            Err(refused) => Err(self.unreadable(&text, &refused)),
        }
    }

    #[cold]
    fn unreadable(&self, text: &str, refused: &Rejection) -> Rejection {
        let remedy = "if it is a state, write the values that mean cancelled as cancelled_values (\"*\": any value)";
        match refused.detail.strip_prefix("time ") {
            Some(detail) if text.starts_with(|first: char| first.is_ascii_digit()) => {
                Rejection::new(refused.reason, format!("{} {detail}; {remedy}", self.column))
            }
            _ => {
                let what = format!("{} {:?} is neither a flag nor a time; {remedy}", self.column, excerpt(text));
                Rejection::new(Reason::InvalidValue, what)
            }
        }
    }
}

/// The value of a flag; a date that means "none" is `false`. `None` for other text.
fn flag(text: &str) -> Option<bool> {
    let lower = text.to_lowercase();
    if NO.contains(&lower.as_str()) || is_no_date(&lower) {
        return Some(false);
    }
    if YES.contains(&lower.as_str()) {
        return Some(true);
    }
    let number = decimal(text)?;
    if number == rust_decimal::Decimal::ONE {
        return Some(true);
    }
    // Days or milliseconds before 1970, which databases write for an empty date: 1900-01-01 is -25567.
    let is_old = number.fract().is_zero() && number < rust_decimal::Decimal::from(-20_000);
    (number.is_zero() || is_old).then_some(false)
}

/// Whether it is a date that means "none": only zeros, before 1971, or in the year 9999.
fn is_no_date(text: &str) -> bool {
    let is_zeros = text.contains('0') && text.bytes().all(|byte| b"0-/.:+tz ".contains(&byte));
    let is_none = |year: u16| year <= 1970 || year == 9999;
    let is_infinity = text.trim_start_matches('-') == "infinity";
    is_zeros || is_infinity || year(text).is_some_and(is_none) || text.parse().is_ok_and(never_comes)
}

/// The year of text that begins with an ISO 8601 date.
fn year(text: &str) -> Option<u16> {
    let date = text.get(..10)?.as_bytes();
    let is_date = (0..10).all(|i| if matches!(i, 4 | 7) { date[i] == b'-' } else { date[i].is_ascii_digit() });
    text.get(..4).filter(|_| is_date)?.parse().ok()
}

/// Whether a number since the epoch is the last day of the year 9999, or infinity (Debezium writes about 2^63 for it).
fn never_comes(number: i64) -> bool {
    let is_last = |per_second: i64| (LAST_SECOND - 86_399..=LAST_SECOND).contains(&(number / per_second));
    number == LAST_DAY || [1, 1_000, 1_000_000].into_iter().any(is_last) || number > 9_200_000_000_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::options::FieldTexts;

    fn read(options: &Options, json: &str) -> Result<State, Rejection> {
        let mut row = Row::new(options, &[], &FieldTexts::default()).unwrap();
        let cancelled = Cancelled::new(options, &mut row).unwrap().unwrap();
        let object = format!("{{\"c\":{json}}}");
        cancelled.read(&row, &row.read(object.as_bytes()).unwrap())
    }

    fn column() -> Options {
        Options { cancelled: Some("c".into()), ..Options::default() }
    }

    #[test]
    fn flags_and_empty_dates_in_every_spelling() {
        for json in [
            "null",
            "false",
            "0",
            "0.0",
            "-0",
            "0E-10",
            r#""""#,
            r#"" ""#,
            r#""N""#,
            r#""n  ""#,
            r#""f""#,
            r#""FALSE""#,
            r#""No""#,
            r#""0""#,
            r#""0.00""#,
            r#""off""#,
            r#""NULL""#,
            r#""\u0000""#,
            r#""AA==""#,
            r#"{"scale":0,"value":"AA=="}"#,
            r#""1970-01-01T00:00:00Z""#,
            r#""1970-01-01 01:00:00""#,
            r#""1900-01-01""#,
            r#""0000-00-00 00:00:00""#,
            r#""0000-00-00""#,
            r#""00000000""#,
            r#""00.00.0000""#,
            r#""0001-01-01T00:00:00""#,
            r#""1753-01-01T00:00:00Z""#,
            "-719162",
            "-62135596800000",
            r#"{"$date":0}"#,
            r#"{"$numberInt":"0"}"#,
            r#"{"$date":"1970-01-01T00:00:00Z"}"#,
            r#""9999-12-31 23:59:59""#,
            r#""infinity""#,
            "2932896",
            "253402214400000",
            "253402300799999999",
            "9223372036825200000",
        ] {
            assert_eq!(read(&column(), json), Ok(State::No), "{json}");
        }
        for json in [
            "true",
            "1",
            "1.0",
            r#""Y""#,
            r#""y ""#,
            r#""t""#,
            r#""TRUE""#,
            r#""Yes""#,
            r#""1""#,
            r#""on""#,
            r#""X""#,
            r#""\u0001""#,
            r#""AQ==""#,
            r#"{"scale":0,"value":"AQ=="}"#,
        ] {
            assert_eq!(read(&column(), json), Ok(State::Yes), "{json}");
        }
    }

    #[test]
    fn dates_tell_when() {
        let at = |text: &str| Ok(State::At(Time::parse(text).unwrap()));
        let oslo = Options { time_zone: Some("Europe/Oslo".into()), ..column() };
        let micros = Options { time_format: crate::decode::options::TimeFormat::EpochUs, ..column() };
        for (options, json, expected) in [
            (column(), "20458", "2026-01-05T00:00:00Z"),
            (column(), "1767582245000", "2026-01-05T03:04:05Z"),
            (column(), "1767582245000000", "2026-01-05T03:04:05Z"),
            (column(), r#""2026-01-05T03:04:05Z""#, "2026-01-05T03:04:05Z"),
            (column(), r#"{"$date":1767582245000}"#, "2026-01-05T03:04:05Z"),
            (oslo.clone(), r#""2026-01-05 04:04:05""#, "2026-01-05T03:04:05Z"),
            (oslo, r#""2026-01-05""#, "2026-01-04T23:00:00Z"),
            (micros, "20458", "2026-01-05T00:00:00Z"),
        ] {
            assert_eq!(read(&options, json), at(expected), "{json}");
        }
    }

    #[test]
    fn what_is_neither_is_refused_with_the_remedy() {
        for (json, reason, part) in [
            (r#""paid""#, Reason::InvalidValue, "cancelled_values"),
            ("[]", Reason::InvalidValue, "neither a flag nor a time"),
            ("3", Reason::InvalidTime, "cancelled_values"),
            ("-1", Reason::InvalidValue, "cancelled_values"),
            ("-500", Reason::InvalidValue, "cancelled_values"),
            (r#""1001-55""#, Reason::InvalidTime, "cancelled_values"),
            ("412.50", Reason::InvalidTime, "c \"412.50\""),
            (r#""2026-01-05""#, Reason::InvalidTime, "time_zone"),
            (r#""05/01/2026""#, Reason::InvalidTime, "time_pattern"),
        ] {
            let refused = read(&column(), json).unwrap_err();
            assert_eq!(refused.reason, reason, "{json}: {}", refused.detail);
            assert!(refused.detail.contains(part), "{json}: {}", refused.detail);
        }
    }

    #[test]
    fn listed_values_are_compared_without_padding() {
        let listed = |values: &[&str]| Options {
            cancelled_values: values.iter().map(|value| (*value).to_owned()).collect(),
            ..column()
        };
        for (values, json, expected) in [
            (&["cancelled"][..], r#""cancelled ""#, State::Yes),
            (&["cancelled"], r#""paid""#, State::No),
            (&["5"], "5", State::Yes),
            (&["true"], "true", State::Yes),
            (&["*"], r#""changed my mind""#, State::Yes),
            (&["*"], r#""  ""#, State::No),
            (&["*"], "null", State::No),
        ] {
            assert_eq!(read(&listed(values), json), Ok(expected), "{values:?}: {json}");
        }
    }
}
