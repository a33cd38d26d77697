//! The metrics of alerts and win-backs.

use super::read::{Samples, major, size, total};
use super::{Metric, Scrape, counter, gauge};
use crate::engine::inactivity::Group;
use crate::engine::inactivity::release::{GroupParts, RuleParts};

/// Outcomes of the inactivity rules, counted once they are committed.
pub(super) static INACTIVITY: &[Metric] = &[
    counter(
        "retentiond_inactivity_due_total",
        &["rule", "group"],
        "Silences that were due, of customers who are alerted (treated) and of those held out (holdout).",
        |scrape, samples| {
            each_group(scrape, |rule, group, parts| samples.add([rule, group.name()], total(parts.due)));
        },
    ),
    counter("retentiond_inactivity_alerts_total", &["rule"], "Alerts on the alert topic.", |scrape, samples| {
        each_group(scrape, |rule, group, parts| {
            if group == Group::Treated {
                samples.add([rule], total(parts.sent));
            }
        });
    }),
    counter(
        "retentiond_winbacks_total",
        &["rule", "group"],
        "Due silences ended by an order within alerts.winback_within.",
        |scrape, samples| {
            each_group(scrape, |rule, group, parts| samples.add([rule, group.name()], total(parts.won_back)));
        },
    ),
    counter(
        "retentiond_winback_revenue_total",
        &["rule", "group", "currency"],
        "Revenue of the orders that ended due silences, in major units.",
        |scrape, samples| {
            each_group(scrape, |rule, group, parts| {
                for (&currency, &minor) in &parts.revenue {
                    samples.add([rule, group.name(), currency.code()], major(minor, currency));
                }
            });
        },
    ),
    gauge(
        "retentiond_inactivity_alerts_waiting",
        &[],
        "Alerts and win-backs that are decided but not sent: they wait for the next checkpoint, for alerts.quiet_hours \
         or for alerts.max_per_minute.",
        waiting,
    ),
];

/// Every configured rule, even at zero, so that the first alert is an increase; removed rules only if they have
/// outcomes.
fn each_group(scrape: &Scrape<'_>, mut show: impl FnMut(&str, Group, &GroupParts)) {
    let tally = &scrape.overview.status.tally.inactivity;
    let configured: Vec<_> = scrape.spec.inactivity.rules.iter().map(|rule| rule.name.as_str()).collect();
    let further = tally.iter().map(|parts| parts.rule.as_str()).filter(|name| !configured.contains(name));
    for rule in configured.iter().copied().chain(further) {
        let none = RuleParts::default();
        let parts = tally.iter().find(|parts| parts.rule == rule).unwrap_or(&none);
        Group::ALL.into_iter().for_each(|group| show(rule, group, &parts.groups[group as usize]));
    }
}

fn waiting(scrape: &Scrape<'_>, samples: &mut Samples) {
    let partitions = scrape.overview.status.partitions.iter();
    samples.add([], size(partitions.map(|partition| partition.waiting_alerts).sum()));
}
