//! Translates settings into the configuration of clients, workers, topics and the store.

pub mod worker_config;

use crate::bus::Start;
use crate::checkpoint::store::{Store, StoreError};
use crate::config::{self, Settings};
use crate::coordinator::rejection_breaker::BreakerRules;
use crate::kafka::{GroupProtocol, KafkaSettings};
use crate::output::dead_letters::Topics;

/// Share of rejected messages at which a source is assumed to be read in the wrong format.
const MISREAD_SHARE: f64 = 0.9;

/// The settings of the consumer.
pub fn kafka_settings(settings: &Settings) -> KafkaSettings {
    let protocol = match settings.kafka.protocol {
        config::Protocol::Classic => GroupProtocol::Classic,
        config::Protocol::Consumer => GroupProtocol::Consumer,
    };
    let own_name = || settings.kafka.instance_id.clone().or_else(host_name);
    let instance_id = if settings.kafka.is_static_member() { own_name() } else { None };
    KafkaSettings {
        brokers: settings.kafka.brokers.clone(),
        group_id: settings.kafka.group_id.clone(),
        instance_id,
        protocol,
        topics: settings.keyed_topics(),
        options: settings.kafka.options.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}

/// When to assume that a source is read in the wrong format.
pub fn breaker_rules(settings: &Settings) -> BreakerRules {
    BreakerRules { messages: settings.dead_letters.stop_after.into(), share: MISREAD_SHARE }
}

/// Where the group starts in each topic. A topic filled by a router is read from its beginning; the router itself
/// starts where the settings say.
pub fn starts(settings: &Settings) -> Vec<Start> {
    let of = |source: &config::Source| if source.repartition { Start::Earliest } else { start(settings.kafka.start) };
    settings.sources.values().map(of).collect()
}

/// The topics that the daemon writes to.
pub fn outputs(settings: &Settings) -> Topics {
    Topics { dead_letters: settings.dead_letters.topic.clone(), alerts: settings.alerts.topic.clone() }
}

/// Translates the configured start.
#[must_use]
pub fn start(start: config::Start) -> Start {
    match start {
        config::Start::Earliest => Start::Earliest,
        config::Start::Latest => Start::Latest,
        config::Start::At(time) => Start::At(time.millis()),
    }
}

/// The name of this replica.
pub fn replica(settings: &Settings) -> String {
    settings.kafka.instance_id.clone().or_else(host_name).unwrap_or_default()
}

/// The host name, which a StatefulSet keeps across restarts.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Opens the store of the daemon, and creates it if needed.
///
/// # Errors
/// See [`StoreError`].
pub async fn open_store(settings: &Settings) -> Result<Store, StoreError> {
    Store::open(&settings.checkpoint.url, &format!("{:016x}", rand::random::<u64>())).await
}
