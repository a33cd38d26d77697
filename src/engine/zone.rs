//! Civil days in a time zone. A table of the zone's offsets saves calls of a time-zone library for every event.

use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::event::{DAY, MINUTE, SECOND, Time};

/// A civil date as the number of days since 1970-01-01.
pub type Day = i32;

/// The offsets of one zone from [`Time::MIN`] to [`Time::MAX`].
#[derive(Debug, Clone)]
pub struct Zone {
    /// The IANA name.
    name: String,
    /// Start (epoch milliseconds) and offset (milliseconds east of UTC) of each period, ascending.
    offsets: Vec<(i64, i64)>,
}

impl Zone {
    /// Coordinated universal time.
    #[must_use]
    pub fn utc() -> Zone {
        Zone { name: "UTC".into(), offsets: vec![(i64::MIN, 0)] }
    }

    /// The table of a zone of the time-zone database.
    #[must_use]
    pub fn new(zone: &TimeZone) -> Zone {
        let origin = Timestamp::UNIX_EPOCH;
        let millis = |seconds: i32| i64::from(seconds) * SECOND;
        let mut offsets = vec![(i64::MIN, millis(zone.to_offset(origin).seconds()))];
        for transition in zone.following(origin) {
            let at = transition.timestamp().as_millisecond();
            if at > Time::MAX.millis() {
                break;
            }
            let offset = millis(transition.offset().seconds());
            if offsets.last().is_none_or(|&(_, last)| last != offset) {
                offsets.push((at, offset));
            }
        }
        Zone { name: zone.iana_name().unwrap_or("UTC").to_owned(), offsets }
    }

    /// The IANA name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The civil date at an instant.
    #[must_use]
    pub fn day(&self, time: Time) -> Day {
        let offset = match self.offsets.as_slice() {
            [(_, only)] => *only,
            all => all[all.partition_point(|&(from, _)| from <= time.millis()) - 1].1,
        };
        day_number((time.millis() + offset).div_euclid(DAY))
    }

    /// Whether every civil day begins at a multiple of `minutes` since the epoch.
    #[must_use]
    pub fn days_begin_at_multiples_of(&self, minutes: i32) -> bool {
        let pane = i64::from(minutes.max(1)) * MINUTE;
        let changes = self.offsets.iter().skip(1).map(|&(from, _)| from);
        let offsets = self.offsets.iter().map(|&(_, offset)| offset);
        DAY % pane == 0 && changes.chain(offsets).all(|millis| millis % pane == 0)
    }

    /// The first instant whose civil date is `day`, or a later date if the zone skipped `day`.
    #[must_use]
    pub fn first_instant(&self, day: Day) -> Time {
        let midnight = i64::from(day) * DAY;
        let ends = self.offsets.iter().skip(1).map(|&(from, _)| from).chain([i64::MAX]);
        for (&(from, offset), end) in self.offsets.iter().zip(ends) {
            let at = (midnight - offset).max(from);
            if at < end {
                return Time::clamped(at);
            }
        }
        Time::MAX
    }
}

fn day_number(days: i64) -> Day {
    // [`Time::MAX`] is day 84,005; an offset adds at most one.
    Day::try_from(days).unwrap_or(Day::MAX)
}

/// The civil date of a day, for output.
#[must_use]
pub fn date(day: Day) -> Date {
    let epoch = Date::constant(1970, 1, 1);
    epoch.checked_add(jiff::Span::new().days(day)).unwrap_or(epoch)
}

/// The number of a civil date.
#[must_use]
pub fn number(date: Date) -> Day {
    day_number(date.duration_since(Date::constant(1970, 1, 1)).as_hours() / 24)
}

/// The kinds of calendar period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// An ISO week: seven days from a Monday.
    Week,
    /// A calendar month.
    Month,
    /// Three months from January, April, July or October.
    Quarter,
    /// A calendar year.
    Year,
}

impl Unit {
    /// Every unit.
    pub const ALL: [Unit; 4] = [Unit::Week, Unit::Month, Unit::Quarter, Unit::Year];

    /// The name in the configuration and in the label `window`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Unit::Week => "week",
            Unit::Month => "month",
            Unit::Quarter => "quarter",
            Unit::Year => "year",
        }
    }

    /// Months per period; `None` for a week.
    const fn months(self) -> Option<i32> {
        match self {
            Unit::Week => None,
            Unit::Month => Some(1),
            Unit::Quarter => Some(3),
            Unit::Year => Some(12),
        }
    }

    /// Days of the longest period.
    #[must_use]
    pub const fn longest(self) -> Day {
        match self {
            Unit::Week => 7,
            Unit::Month => 31,
            Unit::Quarter => 92,
            Unit::Year => 366,
        }
    }

    /// The first day of the period that contains `day`.
    #[must_use]
    pub fn first_day(self, day: Day) -> Day {
        let Some(length) = self.months() else { return monday(day) };
        let months = month_of(day);
        first_of_month(months - months.rem_euclid(length))
    }

    /// The first day after the period that contains `day`.
    #[inline]
    #[must_use]
    pub fn next_period(self, day: Day) -> Day {
        let table = &NEXT_PERIODS[self as usize];
        match usize::try_from(day).ok().and_then(|day| table.get(day)) {
            Some(&next) => next,
            None => self.find_next_period(day),
        }
    }

    fn find_next_period(self, day: Day) -> Day {
        let Some(length) = self.months() else { return monday(day) + 7 };
        let months = month_of(day);
        first_of_month(months - months.rem_euclid(length) + length)
    }
}

/// Days in the tables below: to the year 2243, later than the end of any order's intervals.
const TABLE_DAYS: Day = 100_000;

/// The first day after the period of each day, by unit. Every order needs about ten of them.
static NEXT_PERIODS: LazyLock<[Box<[Day]>; 4]> =
    LazyLock::new(|| Unit::ALL.map(|unit| (0..TABLE_DAYS).map(|day| unit.find_next_period(day)).collect()));

/// The month of each day, see [`month_of`].
static MONTHS: LazyLock<Box<[i32]>> = LazyLock::new(|| (0..TABLE_DAYS).map(find_month).collect());

/// The Monday of the week that contains a day; 1970-01-01 was a Thursday.
fn monday(day: Day) -> Day {
    day - (day + 3).rem_euclid(7)
}

/// The month that contains a day, counted from January of year 0.
#[inline]
#[must_use]
pub fn month_of(day: Day) -> i32 {
    match usize::try_from(day).ok().and_then(|day| MONTHS.get(day)) {
        Some(&month) => month,
        None => find_month(day),
    }
}

fn find_month(day: Day) -> i32 {
    let (year, month) = civil(day);
    year * 12 + month - 1
}

/// Year and month (1 to 12) of a day number: the proleptic Gregorian calendar in eras of 400 years that begin
/// on 1 March (H. Hinnant, "chrono-compatible low-level date algorithms", 2021, `civil_from_days`).
fn civil(day: Day) -> (i32, i32) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i32::from(month <= 2), month)
}

/// The first day of a month that is counted from January of year 0 (same source, `days_from_civil`).
#[must_use]
pub fn first_of_month(months: i32) -> Day {
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> Zone {
        Zone::new(&TimeZone::get(name).unwrap())
    }

    /// The day according to the time-zone library.
    fn day_by_library(name: &str, time: Time) -> Day {
        let stamp = Timestamp::from_millisecond(time.millis()).unwrap();
        number(stamp.to_zoned_datetime(TimeZone::get(name).unwrap()).date())
    }

    const ZONES: [&str; 7] = [
        "UTC",
        "Europe/Oslo",
        "America/New_York",
        "Asia/Kolkata",
        "Pacific/Apia",
        "Pacific/Kwajalein",
        "America/Sao_Paulo",
    ];

    #[test]
    fn days_agree_with_the_time_zone_library() {
        for name in ZONES {
            let zone = zone(name);
            for step in 0..20_000 {
                let time = Time::clamped(step * 363_456_789);
                assert_eq!(zone.day(time), day_by_library(name, time), "{name} {time}");
            }
        }
    }

    #[test]
    fn the_first_instant_of_a_day_is_where_its_date_begins() {
        for name in ZONES {
            let zone = zone(name);
            for day in (1..30_000).step_by(7).chain(15_330..15_345) {
                let first = zone.first_instant(day);
                assert!(zone.day(first) >= day, "{name} {day}");
                assert!(zone.day(first.plus(-1)) < day, "{name} {day}");
            }
        }
    }

    #[test]
    fn samoa_skipped_a_date() {
        let zone = zone("Pacific/Apia");
        let skipped = number(Date::constant(2011, 12, 30));
        assert_eq!(zone.first_instant(skipped), zone.first_instant(skipped + 1));
    }

    #[test]
    fn periods_agree_with_the_calendar_library() {
        for day in 0..60_000 {
            let date = date(day);
            assert_eq!(number(date), day);
            let first = number(date.first_of_month());
            let monday = number(date) - i32::from(date.weekday().to_monday_zero_offset());
            assert_eq!((Unit::Week.first_day(day), Unit::Week.next_period(day)), (monday, monday + 7));
            assert_eq!(Unit::Month.first_day(day), first);
            assert_eq!(Unit::Month.next_period(day), number(date.last_of_month()) + 1);
            assert_eq!(Unit::Year.first_day(day), number(date.first_of_year()));
            assert_eq!(Unit::Year.next_period(day), number(date.last_of_year()) + 1);
            let quarter = Date::constant(date.year(), (date.month() - 1) / 3 * 3 + 1, 1);
            assert_eq!(Unit::Quarter.first_day(day), number(quarter));
            assert_eq!(month_of(day), i32::from(date.year()) * 12 + i32::from(date.month()) - 1);
        }
    }
}
