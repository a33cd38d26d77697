//! What a router notes beside each offset that it commits.

use std::fmt;

/// What is noted beside the offset of a partition.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct OffsetNote {
    /// How many events of the record at the offset have gone on.
    pub events_done: usize,
    /// The id of the source topic, where the brokers tell it.
    pub topic_id: Option<String>,
}

impl OffsetNote {
    /// What a person has committed says nothing, and is as good: it was done on purpose.
    pub fn parse(metadata: &[u8]) -> OffsetNote {
        let text = String::from_utf8_lossy(metadata);
        let mut parts = text.split(';');
        match (parts.next(), parts.next(), parts.next().and_then(|events_done| events_done.parse().ok()), parts.next())
        {
            (Some("v1"), Some("routed"), Some(events_done), Some(id)) => {
                OffsetNote { events_done, topic_id: Some(id.to_owned()).filter(|id| !id.is_empty()) }
            }
            _ => OffsetNote::default(),
        }
    }
}

impl fmt::Display for OffsetNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1;routed;{};{}", self.events_done, self.topic_id.as_deref().unwrap_or_default())
    }
}
