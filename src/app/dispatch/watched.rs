//! What the watch over topics and group finds, taken to heart by the poll loop.

use tracing::{error, warn};

use super::Dispatcher;
use crate::app::watch::Looked;
use crate::source::status::Coverage;
use crate::source::{GroupClient, SourceError};

impl<C: GroupClient> Dispatcher<C> {
    /// Takes note of what was found since the last round, and joins the group anew where that mends it.
    pub(super) fn take_looks(&mut self) -> Result<(), SourceError> {
        while let Ok(looked) = self.looks.try_recv() {
            let Looked { rebalances, counts, reasons, rejoin } = looked;
            for reason in &reasons {
                if !self.status.borrow().coverage.reasons.contains(reason) {
                    error!("{reason}");
                }
            }
            self.status.send_modify(|status| {
                if let Some(counts) = counts {
                    status.partition_counts = counts;
                }
                status.coverage = Coverage { seen: rebalances, reasons };
            });
            // What was found before the last rebalance may be mended by it.
            if rejoin && self.status.borrow().rebalances == rebalances {
                warn!("leaving the group and joining it again, so that it hands out its partitions anew");
                self.client.rejoin()?;
            }
        }
        Ok(())
    }
}
