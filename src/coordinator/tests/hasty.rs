//! A client of the in-memory log that never waits, so that a test can step through a schedule.

use std::time::Duration;

use crate::bus::memory::{MemoryBatch, MemoryClient, MemoryHandle};
use crate::bus::{GroupClient, GroupToken, LogClient, Polled, RebalanceProtocol, SourceError, Start, TopicPartition};

/// A client that never waits.
pub struct Hasty(pub MemoryClient);

impl LogClient for Hasty {
    type Batch = MemoryBatch;

    fn poll(&mut self, _wait: Duration) -> Vec<Polled<MemoryBatch>> {
        self.0.poll(Duration::ZERO)
    }

    fn protocol(&self) -> RebalanceProtocol {
        self.0.protocol()
    }

    fn assign(&mut self, partitions: &[(TopicPartition, Start)]) -> Result<(), SourceError> {
        self.0.assign(partitions)
    }

    fn incremental_assign(&mut self, partitions: &[(TopicPartition, Start)]) -> Result<(), SourceError> {
        self.0.incremental_assign(partitions)
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        self.0.unassign(partitions)
    }

    fn end_offset(&self, of: TopicPartition) -> Option<i64> {
        self.0.end_offset(of)
    }

    fn close(self, wait: Duration) {
        self.0.close(wait);
    }
}

impl GroupClient for Hasty {
    type Handle = MemoryHandle;

    fn group_token(&self) -> Result<GroupToken, SourceError> {
        self.0.group_token()
    }

    fn handle(&self) -> MemoryHandle {
        self.0.handle()
    }

    fn rejoin(&mut self) -> Result<(), SourceError> {
        self.0.rejoin()
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        self.0.pause(partitions)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        self.0.resume(partitions)
    }
}
