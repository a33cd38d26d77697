//! From settings to what the parts of the program take: clients, workers, topics and the store.

pub mod worker_config;

use crate::bus::Start;
use crate::checkpoint::store::{Store, StoreError};
use crate::config::{self, Settings};
use crate::coordinator::rejection_breaker::BreakerRules;
use crate::kafka::{GroupProtocol, KafkaSettings};
use crate::output::dead_letters::Topics;

/// The share of messages that cannot be used at which a source counts as read in the wrong format.
const MISREAD_SHARE: f64 = 0.9;

/// What the consumer needs to know.
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

/// When a source counts as read in the wrong format.
pub fn breaker_rules(settings: &Settings) -> BreakerRules {
    BreakerRules { messages: settings.dead_letters.stop_after.into(), share: MISREAD_SHARE }
}

/// Where the group begins in each topic. One that is filled by a router is read whole: the router begins where the
/// settings say.
pub fn starts(settings: &Settings) -> Vec<Start> {
    let of = |source: &config::Source| if source.repartition { Start::Earliest } else { start(settings.kafka.start) };
    settings.sources.values().map(of).collect()
}

/// The topics that are ours.
pub fn outputs(settings: &Settings) -> Topics {
    Topics { dead_letters: settings.dead_letters.topic.clone(), alerts: settings.alerts.topic.clone() }
}

/// Where to begin, as the source knows it.
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

/// The name of this machine, which a StatefulSet keeps over restarts.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Opens the store that the daemon uses; made where there is none.
///
/// # Errors
/// See [`StoreError`].
pub async fn open_store(settings: &Settings) -> Result<Store, StoreError> {
    Store::open(&settings.checkpoint.url, &format!("{:016x}", rand::random::<u64>())).await
}
