//! The metrics of routers, and of customers with events in two partitions.

use super::read::{Samples, Scrape, count, total};
use super::{Metric, counter};
use crate::decode::{Reason, Skip};
use crate::event::EventType;
use crate::status::routing::Routing;

/// Metrics of sources whose topics are not keyed by customer.
pub(super) static REPARTITION: &[Metric] = &[
    counter(
        "retentiond_repartitioned_events_total",
        &["topic"],
        "Events of the topic that this replica has repartitioned by customer, once committed.",
        |scrape, samples| {
            for router in scrape.routers() {
                samples.add([&router.topic], total(router.events));
            }
        },
    ),
    counter(
        "retentiond_split_customers_total",
        &["topic"],
        "Events of customers who were seen in another partition before, in a sample of one customer in 32. Above 0 the \
         figures are wrong: not all topics are keyed by customer id.",
        |scrape, samples| {
            for (i, topic) in scrape.topics.iter().enumerate() {
                let seen = scrape.source.split_customers.get(i).copied();
                samples.add([topic], total(seen.unwrap_or(0)));
            }
        },
    ),
];

impl Scrape<'_> {
    /// The routers of this replica, active or not.
    pub(super) fn routers(&self) -> Vec<Routing> {
        self.source.routers.iter().map(|router| router.read()).collect()
    }
}

/// Messages of unknown types, which are not routed.
pub(super) fn unknown(scrape: &Scrape<'_>, samples: &mut Samples) {
    for router in scrape.routers() {
        samples.add([&router.topic, EventType::Unknown.name()], total(router.unknown));
    }
}

/// Every reason of every routed topic.
pub(super) fn rejected(scrape: &Scrape<'_>, samples: &mut Samples) {
    for router in scrape.routers() {
        for reason in Reason::ALL.into_iter().filter(|&reason| reason != Reason::TooLate) {
            let seen = router.rejected.get(reason as usize).copied();
            samples.add([&router.topic, reason.label()], total(seen.unwrap_or(0)));
        }
    }
}

/// Every reason of every routed topic, as for rejections.
pub(super) fn skipped(scrape: &Scrape<'_>, samples: &mut Samples) {
    for router in scrape.routers() {
        for skip in Skip::ALL {
            let seen = router.skipped.get(skip as usize).copied();
            samples.add([&router.topic, skip.label()], total(seen.unwrap_or(0)));
        }
    }
}

/// Records not routed yet.
pub(super) fn lag_events(scrape: &Scrape<'_>, samples: &mut Samples) {
    for router in scrape.routers() {
        for (partition, position) in &router.positions {
            if let Some(lag) = position.lag() {
                samples.add([&router.topic, &partition.0.to_string()], count(lag));
            }
        }
    }
}

/// Dead letters committed by routers.
pub(super) fn dead_letters(scrape: &Scrape<'_>) -> u64 {
    scrape.routers().iter().map(|router| router.dead_letters).sum()
}
