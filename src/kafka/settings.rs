//! How the consumer is configured: what retentiond decides, what it proposes, and what the user may choose.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::access::{is_shared_option, resolved};
use super::ffi::Conf;
use super::oidc::{self, Tokens};
use crate::bus::{RebalanceProtocol, SourceError};

/// The protocol by which the consumers of a group agree on who reads what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupProtocol {
    /// The members agree among themselves; with a static member id a restart moves no partition.
    #[default]
    Classic,
    /// The broker decides (KIP-848, Kafka 4.0 and later); dynamic members only.
    Consumer,
}

/// What a [`super::KafkaClient`] needs to know.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// Bootstrap servers: `host:port`, separated by commas.
    pub brokers: String,
    /// The consumer group.
    pub group_id: String,
    /// The static member id; `None` makes a dynamic member.
    pub instance_id: Option<String>,
    /// How the group hands out partitions.
    pub protocol: GroupProtocol,
    /// The source topics; the position is the [`crate::bus::TopicIndex`].
    pub topics: Vec<String>,
    /// More librdkafka options, by their dotted name.
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for KafkaSettings {
    /// Without the values of the options, which may be passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("group_id", &self.group_id)
            .field("instance_id", &self.instance_id)
            .field("protocol", &self.protocol)
            .field("topics", &self.topics)
            .field("options", &self.options.keys())
            .finish()
    }
}

/// What the user may override, with the reason for the value.
const DEFAULTS: [(&str, &str); 7] = [
    ("client.id", "retentiond"),
    // librdkafka waits 1000 ms before it fetches again once its queue was full: a factor of 2 to 6 in throughput.
    ("fetch.queue.backoff.ms", "5"),
    // For so long the brokers keep a question about an empty partition, and whoever starts waits for its answer (500).
    ("fetch.wait.max.ms", "50"),
    ("queued.min.messages", "200000"),
    // The bound of the memory that fetched and unread messages take: what is little stays in the caches.
    ("queued.max.messages.kbytes", "1024"),
    ("fetch.message.max.bytes", "4000000"),
    ("check.crcs", "false"),
];

/// Defaults that only the classic protocol knows; the brokers decide under the other.
const CLASSIC_DEFAULTS: [(&str, &str); 1] = [("session.timeout.ms", "10000")];

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// To be a member of the group.
    Member,
    /// To ask about the group and commit for it from outside.
    Outsider,
    /// To ask about topics alone.
    Visitor,
}

/// How long a transaction may take from its begin to its end; then the brokers abort it, and its records and offsets
/// are read by nobody until then.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How a producer of transactions works. The timeouts of messages and requests follow from that of the transaction.
const TRANSACTIONAL: [(&str, &str); 6] = [
    ("client.id", "retentiond-transactions"),
    // Where Java's producer would put a key, so that what is keyed by customer can be joined.
    ("partitioner", "murmur2_random"),
    ("linger.ms", "5"),
    // The bound of what is queued; a full queue makes the caller wait.
    ("queue.buffering.max.kbytes", "65536"),
    // A topic that is not there is said to be missing before the transaction times out for it.
    ("topic.metadata.propagation.max.ms", "3000"),
    ("log.queue", "false"),
];

/// How a producer without transactions works.
const PLAIN: [(&str, &str); 4] = [
    ("client.id", "retentiond-dead-letters"),
    ("enable.idempotence", "true"),
    ("partitioner", "murmur2_random"),
    ("log.queue", "false"),
];

/// The transactional id of an instance: the same at every start, since a new one would leave the pending transaction of
/// the last run to its timeout, and readers of its partitions waiting.
#[must_use]
pub fn transactional_id(group_id: &str, instance_id: &str) -> String {
    format!("{group_id}-{instance_id}")
}

/// What a [`super::TransactionalProducer`] needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionSettings {
    /// The cluster, and the source topics whose offsets are committed.
    pub kafka: KafkaSettings,
    /// See [`transactional_id`].
    pub transactional_id: String,
    /// How long a transaction may take from its begin to its end.
    pub timeout: Duration,
    /// Whether many messages go with each, so that they are worth compressing.
    pub is_bulk: bool,
    /// Whether each record goes in a request of its own, so that one refused for its size is refused for itself.
    pub is_single: bool,
}

/// What a producer of many messages does otherwise.
const BULK: [(&str, &str); 3] =
    [("compression.type", "lz4"), ("linger.ms", "20"), ("queue.buffering.max.messages", "200000")];

impl TransactionSettings {
    /// For one instance of a group, with a timeout of 10 s.
    #[must_use]
    pub fn new(kafka: &KafkaSettings, instance_id: &str) -> TransactionSettings {
        let transactional_id = transactional_id(&kafka.group_id, instance_id);
        TransactionSettings {
            kafka: kafka.clone(),
            transactional_id,
            timeout: TRANSACTION_TIMEOUT,
            is_bulk: false,
            is_single: false,
        }
    }

    /// For the router of a source, whose group the settings name: that is the transactional id too, whichever replica it
    /// runs on.
    #[must_use]
    pub fn of_router(kafka: &KafkaSettings) -> TransactionSettings {
        let transactional_id = kafka.group_id.clone();
        TransactionSettings {
            kafka: kafka.clone(),
            transactional_id,
            timeout: TRANSACTION_TIMEOUT,
            is_bulk: true,
            is_single: false,
        }
    }

    pub(super) fn configuration(&self) -> Result<Conf, SourceError> {
        self.kafka.check_names()?;
        let mut conf = Conf::new();
        self.kafka.set_options(&mut conf, is_shared_option)?;
        for (name, value) in TRANSACTIONAL.iter().chain(BULK.iter().filter(|_| self.is_bulk)) {
            set(&mut conf, name, value)?;
        }
        if self.is_single {
            set(&mut conf, "batch.num.messages", "1")?;
        }
        set(&mut conf, "bootstrap.servers", &self.kafka.brokers)?;
        set(&mut conf, "transactional.id", &self.transactional_id)?;
        set(&mut conf, "transaction.timeout.ms", &self.timeout.as_millis().to_string())?;
        Ok(conf)
    }
}

/// Fixed values, for the reasons that [`managed_option`] gives.
const FIXED: [(&str, &str); 7] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("isolation.level", "read_committed"),
    ("enable.partition.eof", "false"),
    ("allow.auto.create.topics", "false"),
    ("log.queue", "false"),
];

/// Why a librdkafka option cannot be set by the user; `None` when it can.
#[must_use]
pub fn managed_option(name: &str) -> Option<&'static str> {
    Some(match name {
        "bootstrap.servers" | "metadata.broker.list" => "write kafka.brokers instead",
        "group.id" => "write kafka.group_id instead",
        "group.instance.id" => "write kafka.instance_id instead",
        "group.protocol" => "write kafka.protocol instead",
        "group.remote.assignor" | "partition.assignment.strategy" => {
            "remove it: it is always range, so that partition p of every topic goes to the same replica"
        }
        "enable.auto.commit" | "auto.commit.enable" | "auto.commit.interval.ms" => {
            "remove it: offsets are committed with the state they belong to, never by a timer"
        }
        "enable.auto.offset.store" | "offset.store.method" => {
            "remove it: offsets are committed with the state they belong to, never by reading alone"
        }
        "auto.offset.reset" => "write kafka.start for the first run: a lost position must stop the partition",
        "isolation.level" => "remove it: only committed records count",
        "enable.partition.eof" => {
            "remove it: retentiond finds the ends by itself, librdkafka miscounts positions with it"
        }
        "allow.auto.create.topics" => "remove it: a topic created by reading would have the wrong number of partitions",
        "log.queue" => "remove it: retentiond forwards the log itself",
        _ => return None,
    })
}

/// What librdkafka says against the name or the value of an option, if anything. Of those that it leaves to our own log-in
/// it is not asked.
#[must_use]
pub fn option_mistake(name: &str, value: &str) -> Option<String> {
    if oidc::is_ours(name) { None } else { Conf::new().set(name, value).err() }
}

impl KafkaSettings {
    /// Checks everything that can be checked without a broker: also whether certificates and keys can be read.
    ///
    /// # Errors
    /// [`SourceError::Configuration`] that names the setting.
    pub fn check(&self) -> Result<(), SourceError> {
        self.configuration(Role::Member)?;
        // The client tries to connect for the moment that it lives: whether it can is not what is checked.
        let mut quiet = self.clone();
        quiet.options.insert("log_level".to_owned(), "2".to_owned());
        super::open(&quiet, Role::Visitor).map(drop)
    }

    /// How the group hands out partitions under the chosen protocol.
    #[must_use]
    pub fn rebalance_protocol(&self) -> RebalanceProtocol {
        match self.protocol {
            GroupProtocol::Classic => RebalanceProtocol::Eager,
            GroupProtocol::Consumer => RebalanceProtocol::Incremental,
        }
    }

    /// The librdkafka configuration of a consumer client.
    pub(super) fn configuration(&self, role: Role) -> Result<Conf, SourceError> {
        self.check_names()?;
        let mut conf = Conf::new();
        let classic = self.protocol == GroupProtocol::Classic;
        let defaults = DEFAULTS.iter().chain(CLASSIC_DEFAULTS.iter().filter(|_| classic && role == Role::Member));
        for (name, value) in defaults.filter(|(name, _)| !self.options.contains_key(*name)) {
            set(&mut conf, name, value)?;
        }
        self.set_options(&mut conf, |_| true)?;
        for (name, value) in FIXED {
            set(&mut conf, name, value)?;
        }
        set(&mut conf, "bootstrap.servers", &self.brokers)?;
        if role != Role::Visitor {
            set(&mut conf, "group.id", &self.group_id)?;
        }
        if role == Role::Member {
            if let Some(instance_id) = &self.instance_id {
                set(&mut conf, "group.instance.id", instance_id)?;
            }
            if classic {
                set(&mut conf, "partition.assignment.strategy", "range")?;
            } else {
                set(&mut conf, "group.protocol", "consumer")?;
                set(&mut conf, "group.remote.assignor", "range")?;
            }
        }
        Ok(conf)
    }

    /// The librdkafka configuration of a producer without transactions.
    pub(super) fn plain_producer(&self) -> Result<Conf, SourceError> {
        let mut conf = Conf::new();
        self.set_options(&mut conf, is_shared_option)?;
        for (name, value) in PLAIN {
            set(&mut conf, name, value)?;
        }
        set(&mut conf, "bootstrap.servers", &self.brokers)?;
        Ok(conf)
    }

    /// Sets those of the options that this client shall have, and lets it log in as they say.
    fn set_options(&self, conf: &mut Conf, is_wanted: impl Fn(&str) -> bool) -> Result<(), SourceError> {
        let wrong = |what: String| SourceError::Configuration(format!("kafka.options: {what}"));
        let wanted = self.options.iter().filter(|(name, _)| is_wanted(name));
        let (options, provider) = resolved(wanted).map_err(wrong)?;
        for (name, value) in options {
            if let Some(reason) = managed_option(name) {
                return Err(wrong(format!("{name:?} cannot be set: {reason}")));
            }
            set(conf, name, value)?;
        }
        if let Some(provider) = provider {
            conf.log_in_with(Tokens::of(provider));
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), SourceError> {
        let wrong = |text: String| Err(SourceError::Configuration(text));
        if self.brokers.trim().is_empty() {
            return wrong("kafka.brokers is empty".to_owned());
        }
        if self.group_id.is_empty() {
            return wrong("kafka.group_id is empty".to_owned());
        }
        match &self.instance_id {
            Some(id) if id.is_empty() => return wrong("kafka.instance_id is empty".to_owned()),
            Some(_) if self.protocol == GroupProtocol::Consumer => {
                return wrong(
                    "kafka.instance_id and kafka.protocol = \"consumer\" exclude each other: after a crash such a \
                     member never gets its id back (UNRELEASED_INSTANCE_ID). Use the classic protocol, or no id"
                        .to_owned(),
                );
            }
            _ => {}
        }
        if self.topics.is_empty() || self.topics.len() > usize::from(u16::MAX) {
            return wrong(format!("there must be 1 to {} source topics, not {}", u16::MAX, self.topics.len()));
        }
        for (i, topic) in self.topics.iter().enumerate() {
            // Also keeps out a leading ^, which would subscribe to every topic that matches.
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if topic.is_empty() || topic.len() > 249 || !topic.bytes().all(legal) {
                return wrong(format!("{topic:?} is no topic name: 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'"));
            }
            if self.topics[..i].contains(topic) {
                return wrong(format!("topic {topic:?} is the source of two streams; each needs its own"));
            }
        }
        Ok(())
    }
}

fn set(conf: &mut Conf, name: &str, value: &str) -> Result<(), SourceError> {
    conf.set(name, value).map_err(|text| SourceError::Configuration(format!("kafka.options: {name:?}: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> KafkaSettings {
        KafkaSettings {
            brokers: "localhost:9092".to_owned(),
            group_id: "retentiond".to_owned(),
            instance_id: Some("retentiond-0".to_owned()),
            protocol: GroupProtocol::Classic,
            topics: vec!["orders".to_owned(), "sessions".to_owned()],
            options: BTreeMap::new(),
        }
    }

    fn mistake(change: impl FnOnce(&mut KafkaSettings)) -> String {
        let mut settings = settings();
        change(&mut settings);
        match settings.check() {
            Err(SourceError::Configuration(text)) => text,
            other => panic!("no mistake found: {other:?}"),
        }
    }

    #[test]
    fn accepts_both_protocols_and_overridden_defaults() {
        let mut settings = settings();
        settings.options.insert("session.timeout.ms".to_owned(), "45000".to_owned());
        settings.options.insert("fetch.queue.backoff.ms".to_owned(), "100".to_owned());
        assert_eq!(settings.check(), Ok(()));
        settings.options.clear();
        settings.protocol = GroupProtocol::Consumer;
        settings.instance_id = None;
        assert_eq!(settings.check(), Ok(()));
    }

    #[test]
    fn names_a_wrong_option_and_what_is_wrong_with_it() {
        let set = |name: &str, value: &str| {
            let (name, value) = (name.to_owned(), value.to_owned());
            mistake(|settings| drop(settings.options.insert(name, value)))
        };
        assert!(set("no.such.option", "1").contains("no.such.option"));
        let text = set("fetch.wait.max.ms", "soon");
        assert!(text.contains("fetch.wait.max.ms"), "{text}");
        let text = set("client.rack", "a\0b");
        assert!(text.contains("client.rack"), "{text}");
    }

    #[test]
    fn refuses_every_managed_option_and_says_why() {
        let own = ["bootstrap.servers", "group.id", "group.instance.id", "group.protocol", "group.remote.assignor"];
        for name in own.into_iter().chain(["partition.assignment.strategy"]).chain(FIXED.map(|(name, _)| name)) {
            let reason = managed_option(name).unwrap_or_else(|| panic!("{name} is not managed"));
            let text = mistake(|settings| drop(settings.options.insert(name.to_owned(), "x".to_owned())));
            assert!(text.contains(name) && text.contains(reason), "{text}");
        }
        for (name, _) in DEFAULTS.iter().chain(&CLASSIC_DEFAULTS) {
            assert_eq!(managed_option(name), None, "{name} is only a default");
        }
    }

    #[test]
    fn refuses_impossible_settings() {
        assert!(mistake(|s| s.brokers.clear()).contains("kafka.brokers"));
        assert!(mistake(|s| s.group_id.clear()).contains("kafka.group_id"));
        assert!(mistake(|s| s.instance_id = Some(String::new())).contains("kafka.instance_id"));
        assert!(mistake(|s| s.protocol = GroupProtocol::Consumer).contains("UNRELEASED_INSTANCE_ID"));
        assert!(mistake(|s| s.topics.clear()).contains("source topics"));
        assert!(mistake(|s| s.topics[0] = "^orders.*".to_owned()).contains("^orders"));
        assert!(mistake(|s| s.topics[1] = "orders".to_owned()).contains("two streams"));
    }

    #[test]
    fn never_prints_the_value_of_an_option() {
        let mut settings = settings();
        settings.options.insert("sasl.password".to_owned(), "hunter2".to_owned());
        let text = format!("{settings:?}");
        assert!(text.contains("sasl.password") && !text.contains("hunter2"), "{text}");
    }
}
