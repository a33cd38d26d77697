//! Processes what the group watch finds about topics and group, and checks whether messages are usable.

use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::group_watch::{Findings, Members};
use super::usage::Usage;
use super::{Coordinator, gone};
use crate::bus::{GroupClient, SourceError};
use crate::status::routing::Routing;
use crate::status::{Coverage, PoorTopic};
use crate::worker::WorkerStatus;

/// Interval of checks whether messages are usable, at first and later.
const USAGE_EVERY: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(30)];
/// When the longer interval begins.
const FIRST: Duration = Duration::from_secs(300);

impl<C: GroupClient> Coordinator<C> {
    /// Processes the findings since the last round, and rejoins the group if that may fix it.
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
                    // Earlier problems count as unsolved until the group has settled.
                    let known = std::mem::take(&mut status.coverage.reasons);
                    reasons.extend(known.into_iter().filter(|known| !reasons.contains(known)).collect::<Vec<_>>());
                }
                if let Some(counts) = counts {
                    status.partition_counts = counts;
                }
                let (seen, unknown) = match members {
                    Members::Settled => (rebalances, None),
                    Members::Moving(why) => (0, Some(why)),
                    // The last result is valid until the next rebalance.
                    Members::Unknown(why) => (status.coverage.seen, Some(why)),
                };
                status.coverage = Coverage { seen, unknown, reasons, owners };
            });
            // A rebalance since then may have fixed the problem.
            if rejoin && self.reporting.status.borrow().rebalances == rebalances {
                warn!("leaving and rejoining the group so that it assigns its partitions again");
                self.client.rejoin()?;
            }
        }
        Ok(())
    }

    /// Checks whether the messages of each topic are usable, and warns once per topic if they are not.
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
