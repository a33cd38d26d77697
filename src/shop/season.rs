//! The rhythm of the week: quiet nights, busy evenings and Sundays.
//!
//! A Poisson process with a varying rate equals one with a steady rate on a clock that runs faster in busy hours. So
//! gaps are drawn with a steady rate and converted to shop time here; no thinning is needed.

use crate::event::{DAY, HOUR, Time};

const WEEK: i64 = 7 * DAY;
const HOURS: usize = 168;

/// How busy the hours of a day (UTC) are.
const HOUR_WEIGHTS: [f64; 24] = [
    0.35, 0.22, 0.15, 0.12, 0.15, 0.25, 0.45, 0.75, 1.0, 1.15, 1.2, 1.25, 1.3, 1.2, 1.15, 1.15, 1.25, 1.4, 1.6, 1.75,
    1.8, 1.5, 1.0, 0.6,
];

/// How busy the days are, from Thursday on: the epoch began on one.
const DAY_WEIGHTS: [f64; 7] = [0.95, 0.9, 1.05, 1.25, 1.0, 0.95, 0.9];

/// Converts steady time to shop time and back; both agree at the beginning of each week.
#[derive(Debug, Clone)]
pub(super) struct Season {
    /// Steady milliseconds from the beginning of the week to that of each hour, and to the week's end.
    steady: [f64; HOURS + 1],
}

impl Season {
    #[expect(clippy::cast_precision_loss, reason = "a week in milliseconds is far below 2^53")]
    pub fn new() -> Season {
        let weight = |hour: usize| DAY_WEIGHTS[hour / 24] * HOUR_WEIGHTS[hour % 24];
        let total: f64 = (0..HOURS).map(weight).sum();
        let mut steady = [0.0; HOURS + 1];
        for hour in 0..HOURS {
            steady[hour + 1] = steady[hour] + weight(hour) / total * WEEK as f64;
        }
        Season { steady }
    }

    /// The instant after a gap of steady milliseconds. At least one millisecond passes, so that no gap, however small,
    /// can stop the shop's clock. A gap that is not finite leads to the end of time.
    pub fn after(&self, now: Time, steady_millis: f64) -> Time {
        let steady = self.to_steady(now) + steady_millis;
        if steady.is_finite() { self.to_shop(steady).max(now.plus(1)) } else { Time::MAX }
    }

    /// Steady milliseconds from one instant to another.
    pub fn between(&self, from: Time, to: Time) -> f64 {
        self.to_steady(to) - self.to_steady(from)
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "epoch milliseconds are far below 2^53, and an hour of the week below 168"
    )]
    fn to_steady(&self, time: Time) -> f64 {
        let of_week = time.millis().rem_euclid(WEEK);
        let hour = (of_week / HOUR) as usize;
        let fraction = (of_week % HOUR) as f64 / HOUR as f64;
        let within = self.steady[hour] + fraction * (self.steady[hour + 1] - self.steady[hour]);
        (time.millis() - of_week) as f64 + within
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "epoch milliseconds are far below 2^53, and the cast of a larger number saturates"
    )]
    fn to_shop(&self, steady: f64) -> Time {
        let week = (steady / WEEK as f64).floor() * WEEK as f64;
        let within = steady - week;
        let hour = self.steady.partition_point(|&begin| begin <= within).clamp(1, HOURS) - 1;
        let fraction = (within - self.steady[hour]) / (self.steady[hour + 1] - self.steady[hour]);
        Time::clamped((week + (hour as f64 + fraction) * HOUR as f64) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_and_weeks_keep_their_length() {
        let season = Season::new();
        let thursday = Time::clamped(0);
        assert_eq!(season.after(thursday, WEEK as f64), Time::clamped(WEEK));
        assert!((season.between(thursday, Time::clamped(2 * WEEK)) - 2.0 * WEEK as f64).abs() < 1e-3);
        let mut last = Time::MIN;
        for step in 0..2_000 {
            let time = Time::clamped(1_767_323_045_678 + step * 1_234_567);
            let back = season.to_shop(season.to_steady(time));
            assert!((back.millis() - time.millis()).abs() <= 1, "{time} became {back}");
            assert!(back > last);
            last = back;
        }
    }

    #[test]
    fn an_evening_hour_holds_more_than_a_night_hour() {
        let season = Season::new();
        let hour = |n: i64| season.between(Time::clamped(n * HOUR), Time::clamped((n + 1) * HOUR));
        assert!(hour(20) > 5.0 * hour(3));
    }
}
