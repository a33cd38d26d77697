//! Durations in text form: `90d`, `1h 30m`, `500ms`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::event::{DAY, HOUR, MINUTE, SECOND};

/// The units from the longest to the shortest, each with its length in milliseconds.
const UNITS: [(&str, i64); 6] = [("w", 7 * DAY), ("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", 1)];

/// A length of time in whole milliseconds, never negative and at most [`Millis::MAX`]. A day is 24 hours exactly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(i64);

impl Millis {
    /// Zero.
    pub const ZERO: Millis = Millis(0);
    /// A hundred years of 365 days.
    pub const MAX: Millis = Millis(36_500 * DAY);

    /// From milliseconds, clamped to [`Millis::ZERO`]..=[`Millis::MAX`].
    #[must_use]
    pub const fn clamped(millis: i64) -> Millis {
        if millis < 0 {
            Millis::ZERO
        } else if millis > Millis::MAX.0 {
            Millis::MAX
        } else {
            Millis(millis)
        }
    }

    /// From whole days of 24 hours.
    #[must_use]
    pub const fn days(days: u16) -> Millis {
        Millis::clamped(days as i64 * DAY)
    }

    /// Milliseconds.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// As a standard duration.
    #[must_use]
    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.unsigned_abs())
    }

    /// Parses whole numbers with units `w d h m s ms`, such as `1h 30m`.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Millis, String> {
        let bad = |what: &str| Err(format!("{text:?} {what}"));
        let mut rest = text.trim();
        if rest.is_empty() {
            return bad("is no duration; write a number and a unit, such as \"30d\" or \"1h 30m\"");
        }
        if let Some(positive) = rest.strip_prefix('-') {
            return bad(&format!("is negative; write {:?}", positive.trim()));
        }
        let mut total = 0_i64;
        while !rest.is_empty() {
            let (digits, tail) = split_at_first(rest, |c| !c.is_ascii_digit());
            let (unit, tail) = split_at_first(tail.trim_start(), |c| !c.is_alphabetic());
            if digits.is_empty() || tail.starts_with(['.', ',']) {
                return bad("is no duration; write whole numbers with units, such as \"30d\" or \"1h 30m\"");
            }
            let Some((_, length)) = UNITS.iter().find(|(name, _)| *name == unit) else {
                return bad(&wrong_unit(digits, unit));
            };
            let part = digits.parse::<i64>().ok().and_then(|count| count.checked_mul(*length));
            match part.and_then(|part| total.checked_add(part)).filter(|sum| *sum <= Millis::MAX.0) {
                Some(sum) => total = sum,
                None => return bad(&format!("is too long; write at most \"{}\"", Millis::MAX)),
            }
            rest = tail.trim_start();
        }
        Ok(Millis(total))
    }
}

fn wrong_unit(digits: &str, unit: &str) -> String {
    let lower = unit.to_lowercase();
    if unit.is_empty() {
        return format!("is no duration; write \"{digits}d\" (the units are w, d, h, m, s and ms)");
    }
    if lower.starts_with("mo") || lower.starts_with('y') || unit == "M" {
        return "is no duration, for months and years vary in length; write days, such as \"30d\" or \"365d\"".into();
    }
    let spelt_out = [("w", "weeks"), ("d", "days"), ("h", "hours"), ("m", "minutes"), ("s", "seconds")];
    match spelt_out.iter().find(|(_, name)| name.starts_with(&lower)) {
        Some((short, _)) => format!("has the unknown unit {unit:?}; write \"{digits}{short}\""),
        None => format!("has the unknown unit {unit:?}; the units are w, d, h, m, s and ms"),
    }
}

fn split_at_first(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

impl fmt::Display for Millis {
    /// Days, hours, minutes, seconds and milliseconds without zeros: `1h 30m`; `0s` for none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        let mut separator = "";
        for (unit, length) in &UNITS[1..] {
            let count = rest / length;
            rest %= length;
            if count > 0 {
                write!(f, "{separator}{count}{unit}")?;
                separator = " ";
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Millis, D::Error> {
        deserializer.deserialize_str(MillisVisitor)
    }
}

struct MillisVisitor;

impl Visitor<'_> for MillisVisitor {
    type Value = Millis;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Millis, E> {
        Millis::parse(text).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Millis, E> {
        Err(E::custom(format!("{number} is no duration; write \"{}d\"", number.unsigned_abs())))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Millis, E> {
        Err(E::custom(format!("{number} is no duration; write \"{number}d\"")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for (text, millis, printed) in [
            ("90d", 90 * DAY, "90d"),
            ("1h 30m", 90 * MINUTE, "1h 30m"),
            ("1h30m", 90 * MINUTE, "1h 30m"),
            (" 90 m ", 90 * MINUTE, "1h 30m"),
            ("500ms", 500, "500ms"),
            ("2w", 14 * DAY, "14d"),
            ("1500ms", 1500, "1s 500ms"),
            ("24h", DAY, "1d"),
            ("0d", 0, "0s"),
            ("36500d", 36_500 * DAY, "36500d"),
        ] {
            let parsed = Millis::parse(text);
            assert_eq!(parsed.clone().map(Millis::get), Ok(millis), "{text}");
            assert_eq!(parsed.map(|p| p.to_string()), Ok(printed.to_owned()), "{text}");
        }
    }

    #[test]
    fn explains_what_it_refuses() {
        let units = "the units are w, d, h, m, s and ms";
        let vary = "is no duration, for months and years vary in length; write days, such as \"30d\" or \"365d\"";
        let whole = "is no duration; write whole numbers with units, such as \"30d\" or \"1h 30m\"";
        for (text, what) in [
            ("", "is no duration; write a number and a unit, such as \"30d\" or \"1h 30m\"".to_owned()),
            ("30", format!("is no duration; write \"30d\" ({units})")),
            ("-1d", "is negative; write \"1d\"".to_owned()),
            ("1 month", vary.to_owned()),
            ("6mo", vary.to_owned()),
            ("1M", vary.to_owned()),
            ("1y", vary.to_owned()),
            ("30days", "has the unknown unit \"days\"; write \"30d\"".to_owned()),
            ("30D", "has the unknown unit \"D\"; write \"30d\"".to_owned()),
            ("5min", "has the unknown unit \"min\"; write \"5m\"".to_owned()),
            ("5 parsec", format!("has the unknown unit \"parsec\"; {units}")),
            ("1.5h", whole.to_owned()),
            ("soon", whole.to_owned()),
            ("36501d", "is too long; write at most \"36500d\"".to_owned()),
            ("99999999999999999999d", "is too long; write at most \"36500d\"".to_owned()),
        ] {
            assert_eq!(Millis::parse(text), Err(format!("{text:?} {what}")), "{text}");
        }
    }

    #[test]
    fn every_whole_millisecond_survives_a_round_trip() {
        let mut millis = 1_i64;
        while millis < Millis::MAX.get() {
            let printed = Millis::clamped(millis).to_string();
            assert_eq!(Millis::parse(&printed).map(Millis::get), Ok(millis), "{printed}");
            millis = millis * 3 + 1;
        }
    }
}
