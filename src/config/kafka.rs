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

/// `[kafka]`: the cluster, and this replica's membership in the consumer group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// Brokers, `host:port`, separated by commas.
    pub brokers: String,
    /// Consumer group; also the first half of the transactional id.
    pub group_id: String,
    /// Where the very first start begins; later starts resume from the committed offsets.
    pub start: Start,
    /// Name of the replica: its static member id, if it has one, and the second half of its transactional id. Defaults
    /// to the host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Whether offsets, alerts and state are committed in one transaction.
    pub delivery: Delivery,
    /// How the group is coordinated.
    pub protocol: Protocol,
    /// The partitioner of the events' producers; used by `bootstrap`.
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
    /// Whether the replica is a static member, so that a restart within the session timeout moves no partitions. Not
    /// with the `consumer` protocol: after a crash, brokers reject its static members permanently
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
    /// After the newest record.
    Latest,
    /// At the first record with this timestamp or a later one.
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
    /// The delivery guarantee for alerts and dead letters.
    Delivery {
        /// Offsets, alerts, dead letters and the reference to the state in one transaction.
        ExactlyOnce = "exactly_once",
        /// Plain commits; a crash may repeat an alert with the same id.
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
        /// The default of the Java client.
        Murmur2 = "murmur2",
        /// The default of librdkafka.
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
    /// The format of its messages.
    pub format: Format,
    /// Whether its events drive time.
    pub clock: bool,
    /// Whether the topic is not keyed by customer, so that its events must be routed by customer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repartition: bool,
    /// The topic to route them to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repartition_topic: Option<String>,
    /// Options of the format.
    #[serde(skip_serializing_if = "is_plain")]
    pub mapping: Mapping,
    /// How other sources read the same topic, by source name.
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
    /// The topic that the engines read: its own, or the one that it is routed to. `name` is the name of the source,
    /// `group_id` the group.
    #[must_use]
    pub fn keyed_topic(&self, name: &str, group_id: &str) -> String {
        match &self.repartition_topic {
            _ if !self.repartition => self.topic.clone(),
            Some(topic) => topic.clone(),
            None => format!("{group_id}-{name}-by-customer"),
        }
    }
}

/// `[schema_registry]`: the registry with the schemas that messages refer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchemaRegistry {
    /// URL, `https://host:port` or `http://host:port`, optionally with a path.
    pub url: String,
    /// User name, if it requires authentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// File with the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The content of that file.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// File with a bearer token, instead of user and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The content of that file.
    #[serde(skip)]
    pub token: Option<Secret>,
    /// PEM file with certificates of authorities to trust instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The content of that file.
    #[serde(skip)]
    pub ca: Option<Secret>,
    /// Timeout of one request.
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

/// `[dead_letters]`: where rejected messages go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetters {
    /// Topic.
    pub topic: String,
    /// The daemon stops when nine tenths of this many consecutive messages of a source are rejected; 0 disables this.
    pub stop_after: u32,
}

impl Default for DeadLetters {
    fn default() -> DeadLetters {
        DeadLetters { topic: "retention-dead-letters".to_owned(), stop_after: 1_000 }
    }
}
