//! How a source writes instants.

use jiff::civil::DateTime;
use jiff::fmt::temporal::DateTimeParser;
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::TimeZone;
use rust_decimal::Decimal;

use super::fields::Value;
use super::fields::excerpt;
use super::options::{OptionError, Options, TimeFormat};
use super::{Reason, Rejection};
use crate::event::{DAY, Time};

/// Smaller numbers are days since the epoch: as seconds they would all be in its first two days.
const DAYS_BELOW: i64 = 100_000;
/// 1971-01-01T00:00:00Z. A number that would be earlier is in another unit or not a time: no shop has orders from 1970.
/// Without that year, the ranges of seconds, milli-, micro- and nanoseconds do not overlap.
const EARLIEST: i64 = 365 * DAY;
const EARLIEST_MICROS: i64 = EARLIEST * 1_000;

/// 1995-01-01T00:00:00Z. A number of milliseconds or smaller units that would be earlier is something else: digits of a
/// date (`202603020800`), .NET ticks, or a Windows `FILETIME`.
const EARLIEST_FINE: i64 = 788_918_400_000;

static PARSER: DateTimeParser = DateTimeParser::new();

/// How one source writes instants, from its options.
#[derive(Debug, Clone)]
pub(super) struct Instants {
    format: TimeFormat,
    pattern: String,
    zone: Option<TimeZone>,
}

impl Instants {
    pub fn new(options: &Options) -> Result<Instants, OptionError> {
        let zone = match options.time_zone.as_deref() {
            None => None,
            Some(name) => Some(TimeZone::get(name).map_err(|_| {
                OptionError::new(
                    "time_zone",
                    format!("{name:?} is no IANA time zone; write one such as \"Europe/Oslo\""),
                )
            })?),
        };
        let pattern = options.time_pattern.clone().unwrap_or_default();
        let is_pattern = options.time_format == TimeFormat::Pattern;
        if is_pattern && pattern.is_empty() {
            let what = "is missing; write one such as \"%d.%m.%Y %H:%M:%S\", or another time_format";
            return Err(OptionError::new("time_pattern", what));
        }
        if !pattern.is_empty() && !is_pattern {
            let what = "is for time_format = \"pattern\"; write that too, or leave it out";
            return Err(OptionError::new("time_pattern", what));
        }
        if zone.is_some()
            && matches!(options.time_format, TimeFormat::EpochS | TimeFormat::EpochMs | TimeFormat::EpochUs)
        {
            let what = "means nothing to numbers since the epoch; leave it out, or write another time_format";
            return Err(OptionError::new("time_zone", what));
        }
        Ok(Instants { format: options.time_format, pattern, zone })
    }

    /// Whether the options change nothing: instants are read by [`instant`] without a zone.
    pub fn is_plain(&self) -> bool {
        self.format == TimeFormat::Auto && self.zone.is_none()
    }

    /// Whether the configuration sets a zone for instants without an offset.
    pub fn has_zone(&self) -> bool {
        self.zone.is_some()
    }

    /// Reads an instant; a value that is neither text nor a number is returned unchanged.
    pub fn read<'a>(&self, value: Value<'a>) -> Result<Value<'a>, Rejection> {
        let Some(text) = value.as_text() else { return Ok(value) };
        let millis = match self.format {
            TimeFormat::Pattern => self.by_pattern(text)?,
            TimeFormat::Rfc3339 if number(text).is_some() => return Err(refused(text, "not RFC 3339")),
            TimeFormat::EpochS => self.since_epoch(text, 1_000)?,
            TimeFormat::EpochMs => self.since_epoch(text, 1_000_000)?,
            TimeFormat::EpochUs => self.since_epoch(text, 1_000_000_000)?,
            TimeFormat::Auto | TimeFormat::Rfc3339 => instant(text, self.zone.as_ref())?.millis(),
        };
        Ok(Value::Millis(millis))
    }

    /// A number since the epoch, or RFC 3339 text. `per_milli` is the number of millionths of the unit per millisecond.
    fn since_epoch(&self, text: &str, per_milli: i128) -> Result<i64, Rejection> {
        let Some(millionths) = number(text) else { return instant(text, self.zone.as_ref()).map(Time::millis) };
        let millis = i64::try_from(millionths.div_euclid(per_milli)).unwrap_or(i64::MAX);
        match (millis, Time::from_millis(millis)) {
            (0, _) => Err(refused(text, "0, which is no time")),
            (EARLIEST.., Ok(time)) => Ok(time.millis()),
            _ => Err(refused(text, "outside the years 1971 to 2199; check the unit in mapping.time_format")),
        }
    }

    fn by_pattern(&self, text: &str) -> Result<i64, Rejection> {
        let wrong = |_| refused(text, &format!("not as mapping.time_pattern = {:?} says", self.pattern));
        let parsed = strtime::parse(&self.pattern, text.trim()).map_err(wrong)?;
        let millis = if let Ok(instant) = parsed.to_timestamp() {
            instant.as_millisecond()
        } else {
            let civil =
                parsed.to_datetime().or_else(|_| parsed.to_date().map(|date| date.at(0, 0, 0, 0))).map_err(wrong)?;
            let zone = self.zone.clone().unwrap_or(TimeZone::UTC);
            zone.to_zoned_datetime(civil).map_err(wrong)?.timestamp().as_millisecond()
        };
        // As with numbers, 1970 is rejected; a zone may shift its first instant to the day before.
        if (-DAY..EARLIEST).contains(&millis) {
            return Err(refused(text, "in 1970, which is what software writes for no time"));
        }
        Ok(millis)
    }
}

/// Whether a text is `1970-01-01T00:00:00` in any zone.
#[cold]
fn is_first_midnight(text: &str) -> bool {
    let clock = text.get(11..).unwrap_or_default();
    text.starts_with("1970-01-01") && (clock.is_empty() || clock.starts_with("00:00:00"))
}

#[cold]
fn no_time(text: &str) -> Rejection {
    refused(text, "the first instant of 1970, which is what software writes for no time")
}

fn refused(text: &str, is: &str) -> Rejection {
    Rejection::new(Reason::InvalidTime, format!("time {:?} is {is}", excerpt(text)))
}

/// An instant in a common notation: RFC 3339, or a number of seconds, milli-, micro- or nanoseconds since the epoch,
/// distinguished by size. Text without an offset is in `zone`, and rejected without a zone.
#[inline]
pub(super) fn instant(text: &str, zone: Option<&TimeZone>) -> Result<Time, Rejection> {
    match Time::parse(text) {
        // The epoch itself, in any notation: software writes it for a missing time.
        Ok(Time::MIN) => Err(no_time(text)),
        Ok(time) if time.millis() < DAY && is_first_midnight(text) => Err(no_time(text)),
        Ok(time) => Ok(time),
        Err(crate::event::TimeError::Range) => Err(refused(text, "outside the years 1970 to 2199")),
        Err(crate::event::TimeError::Syntax) => other_spelling(text, zone),
    }
}

/// A number since the epoch; fast path for whole numbers.
#[inline]
pub(super) fn epoch(digits: &str) -> Result<Time, Rejection> {
    match digits.parse::<i64>().ok().and_then(by_size) {
        Some(time) => Ok(time),
        None => other_spelling(digits, None),
    }
}

/// A whole number of microseconds since the epoch. The accepted range excludes seconds and milliseconds.
pub(super) fn micros(number: i64) -> Result<Time, Rejection> {
    const LAST: i64 = Time::MAX.millis() * 1_000 + 999;
    let time = match number {
        EARLIEST_MICROS..=LAST => Time::from_millis(number / 1_000).ok(),
        _ => None,
    };
    let what = "outside the years 1971 to 2199 in microseconds since the epoch; check its unit";
    time.ok_or_else(|| refused(&number.to_string(), what))
}

#[cold]
fn other_spelling(text: &str, zone: Option<&TimeZone>) -> Result<Time, Rejection> {
    let trimmed = text.trim();
    if let Some(millionths) = number(trimmed) {
        if millionths == 0 {
            return Err(refused(text, "0, which is no time"));
        }
        let whole = millionths.div_euclid(1_000_000);
        let seconds = i128::from(DAYS_BELOW)..=i128::from(Time::MAX.millis() / 1_000);
        let time = match i64::try_from(millionths.div_euclid(1_000)) {
            // Only seconds have a significant fraction.
            Ok(millis) if seconds.contains(&whole) && millis >= EARLIEST => Time::from_millis(millis).ok(),
            // Days have no fraction: such a number is an amount or a spreadsheet date.
            _ if whole < i128::from(DAYS_BELOW) && millionths % 1_000_000 != 0 => None,
            _ => i64::try_from(whole).ok().and_then(by_size),
        };
        let what = "no time since the epoch: neither seconds of the years 1971 to 2199 nor milli-, micro- or nanoseconds of \
                    1995 to 2199. For dates written as digits set time_format = \"pattern\" and time_pattern in the source's \
                    mapping (formats native, debezium and custom)";
        return time.ok_or_else(|| refused(text, what));
    }
    let lower = trimmed.to_ascii_uppercase();
    let bare = [" UTC", " GMT", "UTC", " Z", "Z"].iter().find_map(|zone| lower.strip_suffix(zone));
    let (civil, zone) = match bare {
        Some(bare) => (trimmed.get(..bare.len()).unwrap_or(trimmed), Some(&TimeZone::UTC)),
        None => (trimmed, zone),
    };
    if crate::event::has_offset_of_days(trimmed) {
        return Err(refused(text, "no time: its offset is a day or more"));
    }
    if let Some(stamp) = at_24_hours(trimmed, zone) {
        return stamp.and_then(|millis| Time::from_millis(millis).ok()).ok_or_else(|| no_zone_or_time(text, zone));
    }
    let with_offset =
        PARSER.parse_timestamp(trimmed).or_else(|_| rfc2822::DateTimeParser::new().parse_timestamp(trimmed));
    let with_offset = match (with_offset, civil.rsplit_once(' ')) {
        // A blank before the offset, as many languages print times.
        (Err(_), Some((clock, offset))) if offset.starts_with(['+', '-']) => {
            PARSER.parse_timestamp(format!("{}{offset}", clock.trim_end()))
        }
        (with_offset, _) => with_offset,
    };
    let civil = PARSER.parse_datetime(civil);
    let is_first_midnight = civil.as_ref().is_ok_and(|civil| *civil == jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0));
    let stamp = match (with_offset, civil, zone) {
        (Ok(stamp), ..) => stamp,
        (Err(_), Ok(civil), Some(zone)) => {
            let zoned = zone.to_zoned_datetime(civil);
            zoned.map_err(|_| refused(text, "outside the years 1970 to 2199"))?.timestamp()
        }
        (Err(_), Ok(_), None) => return Err(no_zone_or_time(text, None)),
        (Err(_), Err(_), _) => return Err(no_zone_or_time(text, Some(&TimeZone::UTC))),
    };
    if is_first_midnight || stamp.as_millisecond() == 0 {
        return Err(no_time(text));
    }
    Time::from_millis(stamp.as_millisecond()).map_err(|_| refused(text, "outside the years 1970 to 2199"))
}

/// `2026-01-05T24:00:00`, midnight at the end of a day (ISO 8601), with anything after it. `None` for other text,
/// `Some(None)` if it is not a valid instant.
fn at_24_hours(text: &str, zone: Option<&TimeZone>) -> Option<Option<i64>> {
    let (date, rest) = (text.get(..10)?, text.get(10..)?);
    let rest = rest.strip_prefix(['T', 't', ' '])?.strip_prefix("24:00")?;
    let rest = rest.strip_prefix(":00").unwrap_or(rest);
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches('0'),
        None => rest,
    };
    let midnight = || -> Option<i64> {
        let offset = rest.trim_start();
        let offset = if ["UTC", "GMT", "Z"].iter().any(|utc| offset.eq_ignore_ascii_case(utc)) { "Z" } else { offset };
        let next = date.parse::<jiff::civil::Date>().ok()?.tomorrow().ok()?;
        match (offset, zone) {
            ("", Some(zone)) => Some(zone.to_zoned_datetime(DateTime::from(next)).ok()?.timestamp().as_millisecond()),
            ("", None) => None,
            _ => Some(PARSER.parse_timestamp(format!("{next}T00:00:00{offset}")).ok()?.as_millisecond()),
        }
    };
    Some(midnight())
}

#[cold]
fn no_zone_or_time(text: &str, zone: Option<&TimeZone>) -> Rejection {
    match zone {
        None => {
            let what = "without an offset; write in the source's mapping which zone it is in, such as \
                        time_zone = \"Europe/Oslo\" or time_zone = \"UTC\"";
            refused(text, what)
        }
        Some(_) => {
            let what = "not an RFC 3339 time with an offset (such as 2026-01-02T03:04:05Z) nor a number since the epoch; for \
                        other spellings set time_format = \"pattern\" and time_pattern in the source's mapping (formats native, \
                        debezium and custom)";
            refused(text, what)
        }
    }
}

/// A decimal number in millionths; further digits are dropped.
fn number(text: &str) -> Option<i128> {
    let first = text.strip_prefix('-').unwrap_or(text).bytes().next()?;
    if !first.is_ascii_digit() || !text.bytes().all(|byte| byte.is_ascii_digit() || b".-eE+".contains(&byte)) {
        return None;
    }
    let value =
        if text.contains(['e', 'E']) { Decimal::from_scientific(text) } else { text.parse::<Decimal>() }.ok()?;
    let millionths = value.trunc_with_scale(6);
    Some(millionths.mantissa() * 10_i128.pow(6 - millionths.scale().min(6)))
}

/// The instant of a whole number of days, seconds, milli-, micro- or nanoseconds since the epoch, distinguished by
/// size.
fn by_size(number: i64) -> Option<Time> {
    const LAST: i64 = Time::MAX.millis();
    let millis = match number {
        ..=0 => return None,
        1..DAYS_BELOW => number * DAY,
        DAYS_BELOW..=7_258_118_399 => number * 1_000,
        7_258_118_400..=LAST => number,
        _ if number <= LAST * 1_000 => number / 1_000,
        _ => number / 1_000_000,
    };
    let earliest = if number <= LAST / 1_000 { EARLIEST } else { EARLIEST_FINE };
    (millis >= earliest).then(|| Time::from_millis(millis).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::fields;

    fn read(options: &Options, value: Value<'_>) -> Result<String, Rejection> {
        let value = Instants::new(options).unwrap().read(value)?;
        fields::time(value).map(|time| time.to_string())
    }

    #[test]
    fn each_format_reads_the_same_instant() {
        let of = |time_format| Options { time_format, ..Options::default() };
        let pattern = Options {
            time_pattern: Some("%d.%m.%Y %H:%M:%S".into()),
            time_zone: Some("Europe/Oslo".into()),
            ..of(TimeFormat::Pattern)
        };
        let with_offset = Options { time_pattern: Some("%Y-%m-%d %H:%M:%S %z".into()), ..of(TimeFormat::Pattern) };
        let oslo = Options { time_zone: Some("Europe/Oslo".into()), ..Options::default() };
        for (options, text) in [
            (of(TimeFormat::Auto), "1767323045"),
            (of(TimeFormat::Auto), "1767323045000"),
            (of(TimeFormat::Auto), "1767323045000000"),
            (of(TimeFormat::Auto), "1767323045000000000"),
            (of(TimeFormat::Auto), "2026-01-02T03:04:05Z"),
            (of(TimeFormat::Rfc3339), "2026-01-02T04:04:05+01:00"),
            (of(TimeFormat::EpochS), "1767323045.0"),
            (of(TimeFormat::EpochMs), "1767323045000"),
            (of(TimeFormat::EpochUs), "1767323045000999"),
            (of(TimeFormat::EpochUs), "2026-01-02T03:04:05Z"),
            (of(TimeFormat::Auto), "1767323045.0"),
            (of(TimeFormat::Auto), "1.767323045E9"),
            (of(TimeFormat::Auto), "1.767323045E12"),
            (of(TimeFormat::Auto), "2026-01-02 03:04:05 UTC"),
            (of(TimeFormat::Auto), "2026-01-02 03:04:05.000 UTC"),
            (of(TimeFormat::Auto), "2026-01-02T03:04:05 GMT"),
            (of(TimeFormat::Auto), "2026-01-02 03:04:05Z"),
            (of(TimeFormat::Auto), "2026-01-02 03:04:05 +0000"),
            (of(TimeFormat::Auto), "2026-01-01 22:04:05 -0500"),
            (of(TimeFormat::Auto), "2026-01-02 03:04:05 +0000 UTC"),
            (of(TimeFormat::Auto), "2026-01-02 04:04:05+01"),
            (of(TimeFormat::Auto), " 2026-01-02T04:04:05+0100"),
            (of(TimeFormat::Auto), "Fri, 02 Jan 2026 03:04:05 +0000"),
            (of(TimeFormat::Auto), "2026-01-02T04:04:05+01:00[Europe/Oslo]"),
            (oslo.clone(), "2026-01-02T04:04:05"),
            (oslo.clone(), "2026-01-02 04:04:05.000"),
            (oslo.clone(), "2026-01-02T03:04:05Z"),
            (oslo, "1767323045"),
            (pattern, "02.01.2026 04:04:05"),
            (with_offset, "2026-01-02 01:04:05 -0200"),
        ] {
            let read = read(&options, Value::Text(text.into()));
            assert_eq!(read.as_deref(), Ok("2026-01-02T03:04:05.000Z"), "{text} as {:?}", options.time_format);
        }
        assert_eq!(read(&of(TimeFormat::EpochS), Value::Number("1767323045.678")).unwrap(), "2026-01-02T03:04:05.678Z");
        assert_eq!(read(&of(TimeFormat::Auto), Value::Number("20455")).unwrap(), "2026-01-02T00:00:00.000Z");
    }

    #[test]
    fn days_begin_and_end_at_midnight() {
        let oslo = Options { time_zone: Some("Europe/Oslo".into()), ..Options::default() };
        for (options, text, expected) in [
            (Options::default(), "2026-01-05T24:00:00Z", "2026-01-06T00:00:00.000Z"),
            (Options::default(), "2026-12-31 24:00:00.000+01:00", "2026-12-31T23:00:00.000Z"),
            (Options::default(), "2026-02-28T24:00:00 UTC", "2026-03-01T00:00:00.000Z"),
            (oslo.clone(), "2026-01-05T24:00", "2026-01-05T23:00:00.000Z"),
            (oslo.clone(), "2026-07-05", "2026-07-04T22:00:00.000Z"),
            (oslo, "2026-03-29T02:30:00", "2026-03-29T01:30:00.000Z"),
        ] {
            assert_eq!(read(&options, Value::Text(text.into())).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn numbers_never_mean_1970() {
        let seconds = |number: i64| by_size(number).map(Time::millis);
        assert_eq!(seconds(EARLIEST / 1_000), Some(EARLIEST));
        assert_eq!(seconds(7_258_118_399), Some(7_258_118_399_000));
        for (number, millis) in [
            (EARLIEST_FINE, EARLIEST_FINE),
            (Time::MAX.millis(), Time::MAX.millis()),
            (EARLIEST_FINE * 1_000, EARLIEST_FINE),
            (EARLIEST_FINE * 1_000_000, EARLIEST_FINE),
            (1_767_323_045_678_999, 1_767_323_045_678),
            (1_767_323_045_678_999_999, 1_767_323_045_678),
            (365, EARLIEST),
        ] {
            assert_eq!(by_size(number).map(Time::millis), Some(millis), "{number}");
        }
        for number in [-5, 0, 1, 364, 86_400, 20_000_000, 7_258_118_400, EARLIEST - 1, EARLIEST * 1_000 - 1, i64::MAX] {
            assert_eq!(by_size(number), None, "{number}");
        }
        let (ticks, filetime) = (639_080_352_000_000_000, 134_168_112_000_000_000);
        for number in [ticks, filetime, 202_603_020_800, 260_302_080_000, 20_260_302_080_000, 20_260_302_080_000_000] {
            assert_eq!(by_size(number), None, "{number}");
        }
    }

    #[test]
    fn microseconds_are_told_from_seconds_and_milliseconds() {
        assert_eq!(micros(1_772_438_400_123_456).map(Time::millis), Ok(1_772_438_400_123));
        assert_eq!(micros(EARLIEST_MICROS).map(Time::millis), Ok(EARLIEST));
        for number in [0, 1, -1, 1_772_438_400, 1_772_438_400_123, EARLIEST_MICROS - 1, i64::MAX] {
            assert_eq!(micros(number).map_err(|rejection| rejection.reason), Err(Reason::InvalidTime), "{number}");
        }
    }

    #[test]
    fn a_refusal_names_the_way_out() {
        for (text, remedy) in [
            ("2026-01-05T10:00:00", "time_zone = "),
            ("2026-01-05 10:00", "time_zone = "),
            ("2026-01-05", "time_zone = "),
            ("2026-01-05T24:00:00", "time_zone = "),
            ("20260105", "time_pattern"),
            ("05/01/2026 10:00", "time_pattern"),
            ("yesterday", "time_pattern"),
            ("0", "no time"),
            ("0000-00-00 00:00:00", "time_pattern"),
            ("1970-01-01T00:00:00Z", "no time"),
            ("1970-01-01 00:00:00 UTC", "no time"),
            ("1970-01-01 00:00:00Z", "no time"),
            ("1970-01-01T01:00:00+01:00", "no time"),
            ("1970-01-01T00:00:00-05:00", "no time"),
            ("Thu, 01 Jan 1970 00:00:00 +0000", "no time"),
            ("0001-01-01T00:00:00Z", "1970 to 2199"),
        ] {
            let rejection = read(&Options::default(), Value::Text(text.into())).unwrap_err();
            assert_eq!(rejection.reason, Reason::InvalidTime, "{text}");
            assert!(rejection.detail.contains(remedy), "{text}: {}", rejection.detail);
        }
        let pattern = |pattern: &str, zone: &str| Options {
            time_format: TimeFormat::Pattern,
            time_pattern: Some(pattern.to_owned()),
            time_zone: Some(zone.to_owned()),
            ..Options::default()
        };
        let in_zone = |zone: &str| Options { time_zone: Some(zone.to_owned()), ..Options::default() };
        for (options, text) in [
            (pattern("%d.%m.%Y %H:%M", "UTC"), "01.01.1970 00:00"),
            (pattern("%d.%m.%Y %H:%M", "Europe/Oslo"), "01.01.1970 00:00"),
            (pattern("%d.%m.%Y", "America/New_York"), "01.01.1970"),
            (pattern("%d.%m.%y", "UTC"), "02.03.70"),
            (pattern("%s", "UTC"), "0"),
            (in_zone("UTC"), "1970-01-01"),
            (in_zone("America/New_York"), "1970-01-01 00:00:00"),
        ] {
            let rejection = read(&options, Value::Text(text.into())).unwrap_err();
            assert!(rejection.detail.contains("no time"), "{text}: {}", rejection.detail);
        }
        let seconds = Options { time_format: TimeFormat::EpochMs, ..Options::default() };
        let rejection = read(&seconds, Value::Number("1767323045")).unwrap_err();
        assert!(rejection.detail.contains("time_format"), "{}", rejection.detail);
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        let of = |time_format| Options { time_format, ..Options::default() };
        for (options, text) in [
            (of(TimeFormat::Auto), "-5"),
            (of(TimeFormat::Auto), "yesterday"),
            (of(TimeFormat::Auto), "2026-01-02T03:04:05+24:00"),
            (of(TimeFormat::Auto), "2026-01-02 03:04:05 -2400"),
            (of(TimeFormat::Rfc3339), "1767323045000"),
            (of(TimeFormat::EpochS), "1767323045000000000000"),
            (of(TimeFormat::EpochMs), "1767323045000000000"),
            (Options { time_pattern: Some("%Y".into()), ..of(TimeFormat::Pattern) }, "26-01"),
        ] {
            let refused = read(&options, Value::Text(text.into())).unwrap_err();
            assert_eq!(refused.reason, Reason::InvalidTime, "{text}");
        }
    }
}
