//! Which source topic a message belongs to, without comparing names message by message.

use std::ffi::{CStr, CString};

use crate::source::{SourceError, TopicIndex};

/// The subscribed topics, and librdkafka's addresses of them as far as seen.
///
/// An address stands for its topic only while a partition of it is assigned, so [`TopicCache::forget_addresses`] must
/// be called whenever the assignment changes.
#[derive(Debug)]
pub(super) struct TopicCache {
    names: Vec<CString>,
    addresses: Vec<(usize, TopicIndex)>,
}

impl TopicCache {
    /// From the topic names, in the order of their [`TopicIndex`].
    pub fn new(names: &[String]) -> Result<TopicCache, SourceError> {
        let names: Result<Vec<_>, _> = names.iter().map(|name| CString::new(name.as_str())).collect();
        let names = names.map_err(|_| SourceError::Configuration("a topic name contains a zero byte".to_owned()))?;
        Ok(TopicCache { names, addresses: Vec::new() })
    }

    /// All names, in the order of their index.
    pub fn names(&self) -> &[CString] {
        &self.names
    }

    /// The name of a topic.
    pub fn name(&self, topic: TopicIndex) -> &CStr {
        &self.names[usize::from(topic.0)]
    }

    /// The index of a topic by name.
    pub fn index(&self, name: &[u8]) -> Option<TopicIndex> {
        let position = self.names.iter().position(|known| known.to_bytes() == name)?;
        u16::try_from(position).ok().map(TopicIndex)
    }

    /// The index of the topic at an address, whose name is asked for the first time only.
    pub fn index_of<'a>(&mut self, address: usize, name: impl FnOnce() -> &'a CStr) -> Option<TopicIndex> {
        if let Some(&(_, index)) = self.addresses.iter().find(|(known, _)| *known == address) {
            return Some(index);
        }
        let index = self.index(name().to_bytes())?;
        self.addresses.push((address, index));
        Some(index)
    }

    /// Forgets the addresses, since librdkafka may use them for other topics now.
    pub fn forget_addresses(&mut self) {
        self.addresses.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_for_a_name_once_per_address_until_told_to_forget() {
        let mut topics = TopicCache::new(&["orders".to_owned(), "sessions".to_owned()]).unwrap();
        assert_eq!(topics.index_of(7, || c"sessions"), Some(TopicIndex(1)));
        assert_eq!(topics.index_of(7, || panic!("known")), Some(TopicIndex(1)));
        assert_eq!(topics.index_of(8, || c"orders"), Some(TopicIndex(0)));
        assert_eq!(topics.index_of(9, || c"others"), None);
        topics.forget_addresses();
        assert_eq!(topics.index_of(7, || c"orders"), Some(TopicIndex(0)));
    }

    #[test]
    fn refuses_a_name_that_c_cannot_hold() {
        assert!(matches!(TopicCache::new(&["a\0b".to_owned()]), Err(SourceError::Configuration(_))));
    }
}
