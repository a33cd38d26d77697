//! When alerts may be sent: quiet hours, and a maximum per minute. Both delay alerts and never suppress them.

use jiff::tz::TimeZone;

use crate::bus::Partition;
use crate::config::{QuietHours, Settings};
use crate::engine::inactivity::release::Allowance;
use crate::event::{MINUTE, Time};

/// Maximum number of alerts and win-backs per checkpoint, which keeps its transaction small.
const MOST_AT_A_TIME: usize = 20_000;

/// When alerts may be sent.
#[derive(Debug, Clone)]
pub struct AlertRate {
    /// Maximum number of alerts per minute, over all partitions of the topic.
    pub max_per_minute: Option<u32>,
    /// The hours of the day in which no alerts are sent, and their time zone.
    pub quiet: Option<(QuietHours, TimeZone)>,
    /// Total number of partitions, on all replicas.
    pub partitions: u32,
}

impl AlertRate {
    /// As configured.
    #[must_use]
    pub fn new(settings: &Settings, partitions: u32) -> AlertRate {
        let quiet = settings.alerts.quiet_hours.map(|hours| (hours, settings.time.zone.rules().clone()));
        AlertRate { max_per_minute: settings.alerts.max_per_minute, quiet, partitions }
    }

    /// What a partition may send at an instant of the wall clock. `together` is the number of partitions in the
    /// checkpoint.
    #[must_use]
    pub fn allowance(&self, partition: Partition, now: Time, together: usize) -> Allowance {
        let minute = now.millis().div_euclid(MINUTE);
        Allowance {
            minute,
            alerts: self.max_per_minute.map(|most| share(most, partition, self.partitions, minute)),
            quiet: self.quiet.as_ref().is_some_and(|(hours, zone)| is_quiet(*hours, zone, now)),
            most: most(together),
        }
    }

    /// Whether a partition has used its share of a checkpoint, so that more alerts may be waiting.
    #[must_use]
    pub fn is_most(notices: usize, together: usize) -> bool {
        notices >= most(together)
    }
}

/// The share of one partition in the maximum per checkpoint.
fn most(together: usize) -> usize {
    (MOST_AT_A_TIME / together.max(1)).max(1)
}

/// The share of a partition in the alerts of a minute. All shares add up to `most`; the remainder of the division
/// rotates over the partitions from minute to minute, so that each gets its turn.
fn share(most: u32, partition: Partition, partitions: u32, minute: i64) -> u32 {
    let partitions = i64::from(partitions.max(1));
    let place = (i64::from(partition.0) + minute).rem_euclid(partitions);
    let upto = |places: i64| i64::from(most) * places / partitions;
    u32::try_from(upto(place + 1) - upto(place)).unwrap_or(0)
}

fn is_quiet(hours: QuietHours, zone: &TimeZone, now: Time) -> bool {
    let Ok(instant) = jiff::Timestamp::from_millisecond(now.millis()) else { return false };
    let local = zone.to_datetime(instant);
    let minute = u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs());
    hours.hold(minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_make_up_the_whole_in_every_minute_and_reach_everybody() {
        for (most, partitions) in [(600, 12_u32), (7, 12), (1, 3), (100, 7), (5, 1)] {
            let mut reached = vec![0; partitions as usize];
            for minute in 29_000_000..29_000_000 + i64::from(partitions) {
                let shares = (0..partitions.cast_signed()).map(|p| share(most, Partition(p), partitions, minute));
                let shares: Vec<_> = shares.collect();
                assert_eq!(shares.iter().sum::<u32>(), most, "{most} over {partitions}");
                reached.iter_mut().zip(shares).for_each(|(sum, share)| *sum += share);
            }
            assert_eq!(reached, vec![most; partitions as usize], "over as many minutes as partitions all get the same");
        }
    }

    #[test]
    fn quiet_hours_are_local_and_may_pass_midnight() {
        let quiet = |text: &str, zone: &str| AlertRate {
            max_per_minute: None,
            quiet: Some((QuietHours::parse(text).unwrap(), TimeZone::get(zone).unwrap())),
            partitions: 1,
        };
        let is_quiet =
            |alert_rate: &AlertRate, at: &str| alert_rate.allowance(Partition(0), Time::parse(at).unwrap(), 1).quiet;
        let night = quiet("21:00-08:00", "Europe/Oslo");
        for (at, expected) in [
            ("2026-07-01T18:59:59Z", false),
            ("2026-07-01T19:00:00Z", true),
            ("2026-07-02T05:59:59Z", true),
            ("2026-07-02T06:00:00Z", false),
            // In winter, local time is an hour closer to UTC.
            ("2026-01-02T06:30:00Z", true),
            ("2026-01-02T07:00:00Z", false),
        ] {
            assert_eq!(is_quiet(&night, at), expected, "{at}");
        }
        let noon = quiet("12:00-13:00", "UTC");
        assert!(is_quiet(&noon, "2026-01-02T12:30:00Z") && !is_quiet(&noon, "2026-01-02T13:00:00Z"));
    }
}
