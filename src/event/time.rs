//! Event time: whole milliseconds since 1970-01-01T00:00:00Z, without leap seconds.

use std::fmt;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimeParser;

/// One second in milliseconds.
pub const SECOND: i64 = 1_000;
/// One minute in milliseconds.
pub const MINUTE: i64 = 60 * SECOND;
/// One hour in milliseconds.
pub const HOUR: i64 = 60 * MINUTE;
/// One day of 24 hours in milliseconds.
pub const DAY: i64 = 24 * HOUR;

static PARSER: DateTimeParser = DateTimeParser::new();

/// An instant in whole milliseconds since the Unix epoch, between [`Time::MIN`] and [`Time::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

/// Why a text or number is not a valid [`Time`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// The text is not RFC 3339 with an offset.
    #[error("not an RFC 3339 time with an offset (such as 2026-01-02T03:04:05Z) nor epoch milliseconds")]
    Syntax,
    /// Before 1970 or after 2199: probably a wrong unit.
    #[error("outside the years 1970 to 2199 (epoch times are in milliseconds)")]
    Range,
}

impl Time {
    /// 1970-01-01T00:00:00Z.
    pub const MIN: Time = Time(0);
    /// 2199-12-31T23:59:59.999Z.
    pub const MAX: Time = Time(7_258_118_399_999);

    /// From milliseconds since the epoch.
    ///
    /// # Errors
    /// [`TimeError::Range`] outside [`Time::MIN`] to [`Time::MAX`].
    pub const fn from_millis(millis: i64) -> Result<Time, TimeError> {
        if millis < Time::MIN.0 || millis > Time::MAX.0 { Err(TimeError::Range) } else { Ok(Time(millis)) }
    }

    /// From milliseconds since the epoch, clamped to the valid range.
    #[must_use]
    pub fn clamped(millis: i64) -> Time {
        Time(millis.clamp(Time::MIN.0, Time::MAX.0))
    }

    /// Parses RFC 3339 text with an offset; truncates below the millisecond.
    ///
    /// # Errors
    /// [`TimeError::Syntax`] or [`TimeError::Range`].
    pub fn parse(text: &str) -> Result<Time, TimeError> {
        if let Some(time) = plain_time(text) {
            return Ok(time);
        }
        if has_offset_of_days(text) {
            return Err(TimeError::Syntax);
        }
        let stamp = PARSER.parse_timestamp(text).map_err(|_| TimeError::Syntax)?;
        // as_millisecond rounds towards zero; below zero the range check refuses anyway.
        Time::from_millis(stamp.as_millisecond())
    }

    /// Parses user input: RFC 3339 text with an offset, or epoch milliseconds.
    ///
    /// # Errors
    /// [`TimeError::Syntax`] or [`TimeError::Range`].
    pub fn parse_or_millis(text: &str) -> Result<Time, TimeError> {
        match text.parse::<i64>() {
            Ok(millis) => Time::from_millis(millis),
            Err(_) => Time::parse(text),
        }
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Seconds since the epoch, for metrics.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "epoch milliseconds are far below 2^53")]
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e3
    }

    /// Adds a signed number of milliseconds, clamped to the valid range.
    #[must_use]
    pub fn plus(self, millis: i64) -> Time {
        Time::clamped(self.0.saturating_add(millis))
    }
}

/// Whether the offset of a time is 24 hours or more, which RFC 3339 does not allow.
pub(crate) fn has_offset_of_days(text: &str) -> bool {
    let clock = text.split('[').next().unwrap_or(text);
    let Some(behind_date) = clock.get(10..) else { return false };
    let offset = behind_date.rsplit_once(['+', '-']).map(|(_, offset)| offset);
    offset.and_then(|offset| offset.get(..2)?.parse::<u8>().ok()).is_some_and(|hours| hours >= 24)
}

/// Fast path for `2026-01-02T03:04:05Z`, with or without three decimals; `None` for all other spellings.
fn plain_time(text: &str) -> Option<Time> {
    let (whole, rest) = text.as_bytes().split_first_chunk::<19>()?;
    let millis = match rest {
        b"Z" => 0,
        [b'.', a, b, c, b'Z'] => digits(&[*a, *b, *c])?,
        _ => return None,
    };
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', h0, h1, b':', i0, i1, b':', s0, s1] = *whole else {
        return None;
    };
    let (year, month, day) = (digits(&[y0, y1, y2, y3])?, digits(&[m0, m1])?, digits(&[d0, d1])?);
    let (hour, minute, second) = (digits(&[h0, h1])?, digits(&[i0, i1])?, digits(&[s0, s1])?);
    // Every month has these days; later days, leap seconds and invalid times take the slow path.
    let plain = (1970..=2199).contains(&year) && (1..=12).contains(&month) && (1..=28).contains(&day);
    if !plain || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // J. R. Baum, "Date algorithms" (2017), for years that begin in March: days since 0000-03-01.
    let (year, month) = if month < 3 { (year - 1, month + 12) } else { (year, month) };
    let days = day - 1 + (153 * month - 457) / 5 + 365 * year + year / 4 - year / 100 + year / 400;
    // 1970-01-01 is day 719,468 in that count.
    Some(Time((days - 719_468) * DAY + hour * HOUR + minute * MINUTE + second * SECOND + millis))
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

impl fmt::Display for Time {
    /// RFC 3339 in UTC with milliseconds: `2026-01-02T03:04:05.678Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.0) {
            Ok(stamp) => write!(f, "{stamp:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The wall clock of this machine. Only this function may turn it into an event time. Callers pass the result on; the
/// engine never calls it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the only place")]
pub fn wall_clock() -> Time {
    Time::clamped(Timestamp::now().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rfc_3339_and_truncates_below_the_millisecond() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-01-02T03:04:05.678Z", 1_767_323_045_678),
            ("2026-01-02T03:04:05.678999Z", 1_767_323_045_678),
            ("2026-01-02T05:04:05.678+02:00", 1_767_323_045_678),
            ("2026-01-02t03:04:05z", 1_767_323_045_000),
        ] {
            assert_eq!(Time::parse(text).map(Time::millis), Ok(millis), "{text}");
        }
    }

    /// Every day of 230 years in both fast spellings, and near misses, against the library.
    #[test]
    fn the_fast_path_agrees_with_the_library() {
        let by_library = |text: &str| {
            let stamp = PARSER.parse_timestamp(text).map_err(|_| TimeError::Syntax)?;
            Time::from_millis(stamp.as_millisecond())
        };
        for year in 1969..=2200 {
            for (month, day) in (0..=13).flat_map(|month| (0..=32).map(move |day| (month, day))) {
                for end in ["T00:00:00Z", "T23:59:59.999Z"] {
                    let text = format!("{year}-{month:02}-{day:02}{end}");
                    assert_eq!(Time::parse(&text), by_library(&text), "{text}");
                }
            }
        }
        for end in ["T24:00:00Z", "T23:60:00Z", "T23:59:60Z", "T23:59:61Z", "T1a:00:00Z", "T00:00:00.1Z", "T00:00:00"] {
            let text = format!("2026-01-02{end}");
            assert_eq!(Time::parse(&text), by_library(&text), "{text}");
        }
    }

    #[test]
    fn rejects_invalid_times() {
        for text in [
            "",
            "yesterday",
            "2026-01-02",
            "2026-01-02T03:04:05",
            "2026-13-02T03:04:05Z",
            "1767323045678",
            "2026-01-02T03:04:05+24:00",
        ] {
            assert_eq!(Time::parse(text), Err(TimeError::Syntax), "{text}");
        }
        for text in ["1960-01-01T00:00:00Z", "9999-01-01T00:00:00Z", "1969-12-31T23:59:59.999Z"] {
            assert_eq!(Time::parse(text), Err(TimeError::Range), "{text}");
        }
    }

    #[test]
    fn prints_milliseconds_in_utc() {
        assert_eq!(Time::clamped(1_767_323_045_678).to_string(), "2026-01-02T03:04:05.678Z");
        assert_eq!(Time::MIN.to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Time::MAX.to_string(), "2199-12-31T23:59:59.999Z");
    }
}
