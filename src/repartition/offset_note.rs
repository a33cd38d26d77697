//! The metadata that a router commits with each offset.

use std::fmt;

/// The metadata of a partition's offset.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct OffsetNote {
    /// How many events of the record at the offset are already routed.
    pub events_done: usize,
    /// The id of the source topic, if the brokers report it.
    pub topic_id: Option<String>,
}

impl OffsetNote {
    /// Parses committed metadata. An offset committed by an operator has none of ours; it is accepted as deliberate.
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
