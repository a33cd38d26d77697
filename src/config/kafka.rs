//! `[kafka]`, `[sources.*]` and `[dead_letters]`: where events come from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::millis::Millis;
use super::options::{ClientOptions, Secret};
use super::shared::Also;
use super::value::{choice, no_choice, parse_instant};
pub use crate::decode::{Format, Options as Mapping};
use crate::event::Time;

/// `[kafka]`: the cluster and this replica's place in the consumer group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// Consumer group; also the first half of the transactional id.
    pub group_id: String,
    /// Where the very first start begins; later starts go on at the committed offsets.
    pub start: Start,
    /// Name of the replica: its static name in the group where it has one, and the second half of its transactional id;
    /// the host name when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Whether offsets, alerts and state move in one transaction.
    pub delivery: Delivery,
    /// How the group is coordinated.
    pub protocol: Protocol,
    /// How the producers of the events choose the partition of a key; used by `bootstrap`.
    pub partitioner: Partitioner,
    /// Any librdkafka option that retentiond does not set itself.
    pub options: ClientOptions,
}

impl Default for Kafka {
    fn default() -> Kafka {
        Kafka {
            brokers: "localhost:9092".to_owned(),
            group_id: "retentiond".to_owned(),
            start: Start::Earliest,
            instance_id: None,
            delivery: Delivery::ExactlyOnce,
            protocol: Protocol::Classic,
            partitioner: Partitioner::Murmur2,
            options: ClientOptions::default(),
        }
    }
}

impl Kafka {
    /// Whether the replica joins its group under its instance id, so that a restart within the session moves no partition.
    /// Under the brokers' own protocol it does not: after a crash they refuse a static member of it for good
    /// (`UNRELEASED_INSTANCE_ID`).
    #[must_use]
    pub fn is_static_member(&self) -> bool {
        self.protocol == Protocol::Classic
    }
}

/// Where the very first start begins in every source topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record that the broker still has.
    Earliest,
    /// Behind the newest record.
    Latest,
    /// At the first record of this time or later, by record timestamps.
    At(Time),
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Start::Earliest => f.write_str("earliest"),
            Start::Latest => f.write_str("latest"),
            Start::At(time) => time.fmt(f),
        }
    }
}

impl Serialize for Start {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Start, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "earliest" => Ok(Start::Earliest),
            "latest" => Ok(Start::Latest),
            instant => parse_instant(instant).map(Start::At).map_err(|_| {
                serde::de::Error::custom(format!(
                    "{text:?} is no place to start; write \"earliest\", \"latest\" or a time such as \
                     \"2026-01-02T03:04:05Z\""
                ))
            }),
        }
    }
}

choice! {
    /// What a crash may do to alerts and dead letters.
    Delivery {
        /// Offsets, alerts and dead letters in one transaction with the name of the state.
        ExactlyOnce = "exactly_once",
        /// Plain commits; a crash may repeat an alert, under the same id.
        AtLeastOnce = "at_least_once",
    }
}

choice! {
    /// How the consumer group is coordinated.
    Protocol {
        /// By its members, with static membership.
        Classic = "classic",
        /// By the broker (KIP-848), with dynamic membership.
        Consumer = "consumer",
    }
}

choice! {
    /// How producers choose the partition of a key.
    Partitioner {
        /// As the Java client does.
        Murmur2 = "murmur2",
        /// As librdkafka does by default.
        Crc32 = "crc32",
    }
}

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Format, D::Error> {
        let text = String::deserialize(deserializer)?;
        let names = Format::ALL.into_iter().map(Format::name);
        let found = Format::ALL.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| serde::de::Error::custom(no_choice(&text, names)))
    }
}

/// `[sources.NAME]`: a topic of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// Topic; the name of the source when absent.
    pub topic: String,
    /// What its messages look like.
    pub format: Format,
    /// Whether its events drive time.
    pub clock: bool,
    /// Whether its messages lie in the topic by something else than the customer, and are to be routed by customer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repartition: bool,
    /// The topic that they are routed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repartition_topic: Option<String>,
    /// How they are read beyond that.
    #[serde(skip_serializing_if = "is_plain")]
    pub mapping: Mapping,
    /// How other sources read the same topic, by their names.
    #[serde(skip)]
    pub also: BTreeMap<String, Also>,
}

fn is_plain(mapping: &Mapping) -> bool {
    *mapping == Mapping::default()
}

impl Default for Source {
    fn default() -> Source {
        Source {
            topic: String::new(),
            format: Format::Native,
            clock: true,
            repartition: false,
            repartition_topic: None,
            mapping: Mapping::default(),
            also: BTreeMap::new(),
        }
    }
}

impl Source {
    /// The topic whose partitions the engines read: its own, or the one that it is routed to by customer. `name` is
    /// that of the source, `group_id` the group.
    #[must_use]
    pub fn keyed_topic(&self, name: &str, group_id: &str) -> String {
        match &self.repartition_topic {
            _ if !self.repartition => self.topic.clone(),
            Some(topic) => topic.clone(),
            None => format!("{group_id}-{name}-by-customer"),
        }
    }
}

/// `[schema_registry]`: where the schemas are that messages name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchemaRegistry {
    /// Its address, `https://host:port` or `http://host:port`, with a path if it has one.
    pub url: String,
    /// Who asks, where it wants to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// File with the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// What is in that file.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// File with a bearer token, instead of user and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// What is in that file.
    #[serde(skip)]
    pub token: Option<Secret>,
    /// File with the certificates of the authorities that are trusted instead of the system's, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// What is in that file.
    #[serde(skip)]
    pub ca: Option<Secret>,
    /// How long one question may take.
    pub timeout: Millis,
}

impl Default for SchemaRegistry {
    fn default() -> SchemaRegistry {
        SchemaRegistry {
            url: String::new(),
            user: None,
            password_file: None,
            password: None,
            token_file: None,
            token: None,
            ca_file: None,
            ca: None,
            timeout: Millis::clamped(5_000),
        }
    }
}

/// `[dead_letters]`: where messages go that cannot be used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetters {
    /// Topic.
    pub topic: String,
    /// The daemon stops when nine of ten of this many consecutive messages of a source cannot be used; 0: never.
    pub stop_after: u32,
}

impl Default for DeadLetters {
    fn default() -> DeadLetters {
        DeadLetters { topic: "retention-dead-letters".to_owned(), stop_after: 1_000 }
    }
}
