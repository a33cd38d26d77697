//! What the watch over topics and group finds, taken to heart by the poll loop.

use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::group_watch::{Findings, Members};
use super::usage::Usage;
use super::{Coordinator, gone};
use crate::bus::{GroupClient, SourceError};
use crate::status::routing::Routing;
use crate::status::{Coverage, PoorTopic};
use crate::worker::WorkerStatus;

/// How often it is looked whether messages are of use, in the first minutes and later.
const USAGE_EVERY: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(30)];
/// How long the first minutes are.
const FIRST: Duration = Duration::from_secs(300);

impl<C: GroupClient> Coordinator<C> {
    /// Takes note of what was found since the last round, and joins the group anew where that mends it.
    pub(super) fn take_findings(&mut self) -> Result<(), SourceError> {
        while let Ok(looked) = self.inputs.findings.try_recv() {
            let Findings { rebalances, counts, members, mut reasons, owners, rejoin } = looked;
            for reason in &reasons {
                if !self.reporting.status.borrow().coverage.reasons.contains(reason) {
                    error!("{reason}");
                }
            }
            self.reporting.status.send_modify(|status| {
                if members != Members::Settled {
                    // What was wrong is so until the group is seen at rest.
                    let known = std::mem::take(&mut status.coverage.reasons);
                    reasons.extend(known.into_iter().filter(|known| !reasons.contains(known)).collect::<Vec<_>>());
                }
                if let Some(counts) = counts {
                    status.partition_counts = counts;
                }
                let (seen, unknown) = match members {
                    Members::Settled => (rebalances, None),
                    Members::Moving(why) => (0, Some(why)),
                    // What was known holds until the next rebalance.
                    Members::Unknown(why) => (status.coverage.seen, Some(why)),
                };
                status.coverage = Coverage { seen, unknown, reasons, owners };
            });
            // What was found before the last rebalance may be mended by it.
            if rejoin && self.reporting.status.borrow().rebalances == rebalances {
                warn!("leaving the group and joining it again, so that it hands out its partitions anew");
                self.client.rejoin()?;
            }
        }
        Ok(())
    }

    /// Looks whether the messages of each topic are of any use, and says so once of each where they are not.
    pub(super) fn look_at_usage(&mut self) -> Result<(), SourceError> {
        let every = USAGE_EVERY[usize::from(self.timers.begun.elapsed() > FIRST)];
        if self.timers.last_usage.is_some_and(|last| last.elapsed() < every) {
            return Ok(());
        }
        self.timers.last_usage = Some(Instant::now());
        let worked = self.pool.workers().status().map_err(gone)?;
        let routers: Vec<_> = self.reporting.status.borrow().routers.iter().map(|router| router.read()).collect();
        let poor: Vec<_> =
            (0..self.rules.topics.len()).filter_map(|topic| self.poor_topic(topic, &worked, &routers)).collect();
        let known = self.reporting.status.borrow().poor_topics.clone();
        for new in poor.iter().filter(|new| !known.iter().any(|known| known.topic == new.topic)) {
            if self.reporting.warned_poor.insert(new.topic.clone()) {
                warn!("{}", new.warning);
            }
        }
        if poor != known {
            self.reporting.status.send_modify(|status| status.poor_topics = poor);
        }
        Ok(())
    }

    fn poor_topic(&self, topic: usize, worked: &WorkerStatus, routers: &[Routing]) -> Option<PoorTopic> {
        let router = routers.iter().find(|router| router.is_ours && usize::from(router.into.0) == topic);
        let (name, usage) = match router {
            Some(router) => (router.topic.as_str(), Usage::of_router(router)),
            None => (self.rules.topics.get(topic)?.as_str(), Usage::of_tally(&worked.tally, topic)),
        };
        let has_watermark = |watermarks: &[Option<_>]| watermarks.get(topic).is_some_and(Option::is_some);
        let used_before = worked.partitions.iter().any(|partition| has_watermark(&partition.topic_watermarks));
        let source = self.rules.sources.get(topic).map_or("NAME", String::as_str);
        usage.is_poor(used_before).then(|| PoorTopic {
            topic: name.to_owned(),
            warning: usage.warning(name, source),
            is_none: usage.is_none(used_before),
        })
    }
}
