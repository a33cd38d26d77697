//! Consumer configuration: fixed values, defaults, and what users may choose.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::access::{is_shared_option, resolved};
use super::ffi::Conf;
use super::oidc::{self, Tokens};
use crate::bus::{RebalanceProtocol, SourceError};

/// The protocol by which a group assigns partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupProtocol {
    /// The members decide; with static membership a restart moves no partition.
    #[default]
    Classic,
    /// The broker decides (KIP-848, Kafka 4.0 and later); dynamic members only.
    Consumer,
}

/// Settings of a [`super::KafkaClient`].
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// Bootstrap servers: `host:port`, separated by commas.
    pub brokers: String,
    /// The consumer group.
    pub group_id: String,
    /// The static member id; `None` for dynamic membership.
    pub instance_id: Option<String>,
    /// How the group assigns partitions.
    pub protocol: GroupProtocol,
    /// The source topics, by [`crate::bus::TopicIndex`].
    pub topics: Vec<String>,
    /// More librdkafka options, by dotted name.
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for KafkaSettings {
    /// Omits the values of options, which may be passwords.
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

/// Defaults that users may override, with the reason for each value.
const DEFAULTS: [(&str, &str); 7] = [
    ("client.id", "retentiond"),
    // librdkafka waits 1000 ms before it fetches again after its queue was full: a factor of 2 to 6 in throughput.
    ("fetch.queue.backoff.ms", "5"),
    // Brokers hold a fetch of an empty partition this long, and a starting client waits for the answer (default 500).
    ("fetch.wait.max.ms", "50"),
    ("queued.min.messages", "200000"),
    // Bounds the memory of prefetched messages; a small amount stays in the CPU caches.
    ("queued.max.messages.kbytes", "1024"),
    ("fetch.message.max.bytes", "4000000"),
    ("check.crcs", "false"),
];

/// Defaults for the classic protocol only; under the other one the brokers decide.
const CLASSIC_DEFAULTS: [(&str, &str); 1] = [("session.timeout.ms", "10000")];

/// The purpose of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A member of the group.
    Member,
    /// Queries and commits for the group from outside.
    Outsider,
    /// Queries about topics.
    Visitor,
}

/// The transaction timeout. After it the brokers abort a transaction; until then consumers cannot read past it.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Options of transactional producers. The timeouts of messages and requests follow from that of the transaction.
const TRANSACTIONAL: [(&str, &str); 6] = [
    ("client.id", "retentiond-transactions"),
    // The Java producer's partitioner, so that topics keyed by customer can be joined.
    ("partitioner", "murmur2_random"),
    ("linger.ms", "5"),
    // Bounds the queue; a full queue blocks the caller.
    ("queue.buffering.max.kbytes", "65536"),
    // Report a missing topic before the transaction times out.
    ("topic.metadata.propagation.max.ms", "3000"),
    ("log.queue", "false"),
];

/// Options of producers without transactions.
const PLAIN: [(&str, &str); 4] = [
    ("client.id", "retentiond-dead-letters"),
    ("enable.idempotence", "true"),
    ("partitioner", "murmur2_random"),
    ("log.queue", "false"),
];

/// The transactional id of an instance. It must not change between starts: otherwise a pending transaction of the last
/// run would block readers of its partitions until it times out.
#[must_use]
pub fn transactional_id(group_id: &str, instance_id: &str) -> String {
    format!("{group_id}-{instance_id}")
}

/// Settings of a [`super::TransactionalProducer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionSettings {
    /// The cluster, and the source topics whose offsets are committed.
    pub kafka: KafkaSettings,
    /// See [`transactional_id`].
    pub transactional_id: String,
    /// The transaction timeout.
    pub timeout: Duration,
    /// Whether transactions hold many messages, so that compression pays off.
    pub is_bulk: bool,
    /// Whether each record gets its own request, so that a record that is too large fails alone.
    pub is_single: bool,
}

/// Options of bulk producers.
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

    /// For the repartitioning of a source. The group in the settings is also the transactional id, whichever replica
    /// runs it.
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

/// Fixed values; [`managed_option`] gives the reasons.
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
            "remove it: retentiond detects ends by itself, and librdkafka miscounts positions with it"
        }
        "allow.auto.create.topics" => {
            "remove it: a topic created by a consumer would have the wrong number of partitions"
        }
        "log.queue" => "remove it: retentiond forwards the log itself",
        _ => return None,
    })
}

/// librdkafka's error for the name or value of an option, if any. Options that only our own token login reads are not
/// checked here.
#[must_use]
pub fn option_mistake(name: &str, value: &str) -> Option<String> {
    if oidc::is_ours(name) { None } else { Conf::new().set(name, value).err() }
}

impl KafkaSettings {
    /// Checks everything that can be checked without a broker, including whether certificates and keys are readable.
    ///
    /// # Errors
    /// [`SourceError::Configuration`] that names the setting.
    pub fn check(&self) -> Result<(), SourceError> {
        self.configuration(Role::Member)?;
        // The client briefly tries to connect, which is irrelevant here.
        let mut quiet = self.clone();
        quiet.options.insert("log_level".to_owned(), "2".to_owned());
        super::open(&quiet, Role::Visitor).map(drop)
    }

    /// How the group assigns partitions under the chosen protocol.
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

    /// Sets the options that apply to this client, and configures its token login.
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
                    "kafka.instance_id and kafka.protocol = \"consumer\" cannot be combined: after a crash such a \
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
                return wrong(format!("invalid topic name {topic:?}: use 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'"));
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
