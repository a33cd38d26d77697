//! How a source writes instants.

use jiff::fmt::strtime;
use jiff::tz::TimeZone;

use super::fields::Value;
use super::fields::excerpt;
use super::options::{OptionError, Options, TimeFormat};
use super::{Reason, Rejection};
use crate::event::{DAY, Time};

/// Numbers below this are days since the epoch: as seconds they would all lie in its first two days.
const DAYS_BELOW: i128 = 100_000;

/// Reads instants in one way.
#[derive(Debug, Clone)]
pub(super) struct Instants {
    format: TimeFormat,
    pattern: String,
    zone: TimeZone,
}

impl Instants {
    pub fn new(options: &Options) -> Result<Instants, OptionError> {
        let zone = match options.time_zone.as_deref() {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| {
                OptionError::new(
                    "time_zone",
                    format!("{name:?} is no IANA time zone; write one such as \"Europe/Oslo\""),
                )
            })?,
        };
        let pattern = options.time_pattern.clone().unwrap_or_default();
        let is_pattern = options.time_format == TimeFormat::Pattern;
        if is_pattern && pattern.is_empty() {
            let what = "is missing; write one such as \"%d.%m.%Y %H:%M:%S\", or another time_format";
            return Err(OptionError::new("time_pattern", what));
        }
        for (option, is_set) in [("time_pattern", !pattern.is_empty()), ("time_zone", options.time_zone.is_some())] {
            if is_set && !is_pattern {
                return Err(OptionError::new(
                    option,
                    "is for time_format = \"pattern\"; write that too, or leave it out",
                ));
            }
        }
        Ok(Instants { format: options.time_format, pattern, zone })
    }

    /// The instant, if it needs working out; RFC 3339 text and what is no instant at all come back as they are.
    pub fn read<'a>(&self, value: Value<'a>) -> Result<Value<'a>, Rejection> {
        let Some(text) = value.as_text() else { return Ok(value) };
        let has_digits_only = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b".-eE+".contains(&b));
        let is_number = has_digits_only && number(text).is_some();
        let millis = match self.format {
            TimeFormat::Pattern => return self.by_pattern(text).map(Value::Millis),
            TimeFormat::Rfc3339 if is_number => return Err(refused(text, "RFC 3339")),
            _ if !is_number => return Ok(value),
            TimeFormat::Auto | TimeFormat::Rfc3339 => number(text).and_then(by_size),
            TimeFormat::EpochS => number(text).map(|micros| micros.div_euclid(1_000)),
            TimeFormat::EpochMs => number(text).map(|micros| micros.div_euclid(1_000_000)),
            TimeFormat::EpochUs => number(text).map(|micros| micros.div_euclid(1_000_000_000)),
        };
        let millis = millis.and_then(|millis| i64::try_from(millis).ok());
        millis.map(Value::Millis).ok_or_else(|| refused(text, "a time since the epoch"))
    }

    fn by_pattern(&self, text: &str) -> Result<i64, Rejection> {
        let wrong = |_| refused(text, &format!("as mapping.time_pattern = {:?} says", self.pattern));
        let parsed = strtime::parse(&self.pattern, text).map_err(wrong)?;
        if let Ok(instant) = parsed.to_timestamp() {
            return Ok(instant.as_millisecond());
        }
        let civil =
            parsed.to_datetime().or_else(|_| parsed.to_date().map(|date| date.at(0, 0, 0, 0))).map_err(wrong)?;
        self.zone.to_zoned_datetime(civil).map(|zoned| zoned.timestamp().as_millisecond()).map_err(wrong)
    }
}

fn refused(text: &str, wanted: &str) -> Rejection {
    Rejection::new(Reason::InvalidTime, format!("time {:?} is not {wanted}", excerpt(text)))
}

/// A decimal number in millionths, cut off behind them.
fn number(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) || fraction.len() > 30 {
        return None;
    }
    let part: i128 = format!("{:0<6.6}", fraction).parse().ok()?;
    let millionths = whole.parse::<i64>().ok().map(i128::from)? * 1_000_000;
    Some(if text.starts_with('-') { millionths - part } else { millionths + part })
}

/// Milliseconds since the epoch of days, seconds, milli-, micro- or nanoseconds, given in millionths.
fn by_size(millionths: i128) -> Option<i128> {
    let whole = millionths.div_euclid(1_000_000);
    let last = i128::from(Time::MAX.millis());
    Some(match whole {
        0..DAYS_BELOW => whole * i128::from(DAY),
        whole if whole < 0 => return None,
        whole if whole <= last / 1_000 => millionths.div_euclid(1_000),
        whole if whole <= last => whole,
        whole if whole <= last * 1_000 => whole / 1_000,
        whole => whole / 1_000_000,
    })
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
    fn what_is_no_instant_is_refused() {
        let of = |time_format| Options { time_format, ..Options::default() };
        for (options, text) in [
            (of(TimeFormat::Auto), "-5"),
            (of(TimeFormat::Auto), "yesterday"),
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
