//! Maps messages to source topics without comparing names for each message.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use super::ffi::List;
use crate::bus::{Committed, Partition, SourceError, TopicIndex, TopicPartition};

/// The names of the source topics by [`TopicIndex`]; clones share them.
#[derive(Debug, Clone)]
pub(super) struct TopicNames(Arc<[CString]>);

impl TopicNames {
    pub fn new(names: &[String]) -> Result<TopicNames, SourceError> {
        let names: Result<_, _> = names.iter().map(|name| CString::new(name.as_str())).collect();
        let names = names.map_err(|_| SourceError::Configuration("a topic name contains a zero byte".to_owned()))?;
        Ok(TopicNames(names))
    }

    /// All of them.
    pub fn all(&self) -> &[CString] {
        &self.0
    }

    /// The name of a topic.
    pub fn name(&self, topic: TopicIndex) -> &CStr {
        &self.0[usize::from(topic.0)]
    }

    /// The topic-partition for a topic name and partition.
    pub fn place(&self, topic: &str, partition: i32) -> Option<TopicPartition> {
        Some(TopicPartition { topic: self.index(topic.as_bytes())?, partition: Partition(partition) })
    }

    /// The index of a topic by name.
    pub fn index(&self, name: &[u8]) -> Option<TopicIndex> {
        let position = self.0.iter().position(|known| known.to_bytes() == name)?;
        u16::try_from(position).ok().map(TopicIndex)
    }

    /// All of them, to subscribe to.
    pub fn subscription(&self) -> List {
        let mut list = List::with_capacity(self.0.len());
        for name in self.all() {
            list.add(name, -1, i64::from(rdkafka::bindings::RD_KAFKA_OFFSET_INVALID));
        }
        list
    }

    /// A list of topic-partitions with offsets.
    pub fn list(&self, entries: impl ExactSizeIterator<Item = (TopicPartition, i64)>) -> List {
        let mut list = List::with_capacity(entries.len());
        for (at, offset) in entries {
            list.add(self.name(at.topic), at.partition.0, offset);
        }
        list
    }

    /// A list of topic-partitions with offsets and metadata.
    pub fn list_with_metadata(&self, next: &[(TopicPartition, Committed)]) -> List {
        let mut list = List::with_capacity(next.len());
        for (at, next) in next {
            list.add_with_metadata(self.name(at.topic), at.partition.0, next.offset, &next.metadata);
        }
        list
    }
}

/// The subscribed topics, and librdkafka's addresses of them as seen so far.
///
/// An address identifies its topic only while a partition of it is assigned, so call [`TopicCache::forget_addresses`]
/// whenever the assignment changes.
#[derive(Debug)]
pub(super) struct TopicCache {
    names: TopicNames,
    addresses: Vec<(usize, TopicIndex)>,
}

impl TopicCache {
    /// From the topic names.
    pub fn new(names: TopicNames) -> TopicCache {
        TopicCache { names, addresses: Vec::new() }
    }

    /// The names.
    pub fn names(&self) -> &TopicNames {
        &self.names
    }

    /// The index of the topic at an address; calls `name` only for a new address.
    pub fn index_of<'a>(&mut self, address: usize, name: impl FnOnce() -> &'a CStr) -> Option<TopicIndex> {
        if let Some(&(_, index)) = self.addresses.iter().find(|(known, _)| *known == address) {
            return Some(index);
        }
        let index = self.names.index(name().to_bytes())?;
        self.addresses.push((address, index));
        Some(index)
    }

    /// Forgets the addresses: librdkafka may reuse them for other topics.
    pub fn forget_addresses(&mut self) {
        self.addresses.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_for_a_name_once_per_address_until_reset() {
        let names = TopicNames::new(&["orders".to_owned(), "sessions".to_owned()]).unwrap();
        let mut topics = TopicCache::new(names);
        assert_eq!(topics.index_of(7, || c"sessions"), Some(TopicIndex(1)));
        assert_eq!(topics.index_of(7, || panic!("known")), Some(TopicIndex(1)));
        assert_eq!(topics.index_of(8, || c"orders"), Some(TopicIndex(0)));
        assert_eq!(topics.index_of(9, || c"others"), None);
        topics.forget_addresses();
        assert_eq!(topics.index_of(7, || c"orders"), Some(TopicIndex(0)));
    }

    #[test]
    fn refuses_a_name_that_c_cannot_hold() {
        assert!(matches!(TopicNames::new(&["a\0b".to_owned()]), Err(SourceError::Configuration(_))));
    }
}
