//! What a router notes beside each offset that it commits.

use std::fmt;

/// What is noted beside the offset of a partition.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// How many events of the record at the offset have gone on.
    pub told: usize,
    /// The id of the source topic, where the brokers tell it.
    pub topic_id: Option<String>,
}

impl Note {
    /// What a person has committed says nothing, and is as good: it was done on purpose.
    pub fn parse(metadata: &[u8]) -> Note {
        let text = String::from_utf8_lossy(metadata);
        let mut parts = text.split(';');
        match (parts.next(), parts.next(), parts.next().and_then(|told| told.parse().ok()), parts.next()) {
            (Some("v1"), Some("routed"), Some(told), Some(id)) => {
                Note { told, topic_id: Some(id.to_owned()).filter(|id| !id.is_empty()) }
            }
            _ => Note::default(),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1;routed;{};{}", self.told, self.topic_id.as_deref().unwrap_or_default())
    }
}
