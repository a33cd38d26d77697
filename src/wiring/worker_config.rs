//! Translates settings into the engines' specification and the decoders.

use std::sync::Arc;

use crate::bus::partitioner::Partitioner;
use crate::config::{self, Settings, Source};
use crate::decode::{Decoder, Schemas, Tombstones};
use crate::engine::inactivity::{Filter, InactivitySpec, RuleSpec, SilenceRule, stage_number};
use crate::engine::lifecycle::{LifecycleSpec, Stage};
use crate::engine::rates::{Rate, Rates};
use crate::engine::segments::DimensionSpec;
use crate::engine::spec::{CalendarSpec, RollingSpec, Spec};
use crate::engine::zone::{self, Unit, Zone};
use crate::event::Time;
use crate::output::summary::Background;
use crate::registry::{Access, Client, Registry};
use crate::tls::Trust;
use crate::worker::WorkerConfig;

/// The configuration of the daemon's workers.
#[must_use]
pub fn new(settings: &Settings) -> WorkerConfig {
    let decoder = |(source, decoder): (&Source, Decoder)| {
        // The workers read the topic that the router writes, which has its own format.
        if source.repartition { Decoder::routed(dimensions(settings)) } else { decoder }
    };
    let decoders = settings.sources.values().zip(source_decoders(settings)).map(decoder).collect();
    WorkerConfig { spec: Arc::new(spec(settings)), decoders }
}

/// The decoder of each source's own topic. All of them share one schema registry client.
#[must_use]
pub fn source_decoders(settings: &Settings) -> Vec<Decoder> {
    let schemas = registry(settings);
    let decoder = |source| match &schemas {
        Some(schemas) => decoder(settings, source).with_schemas(Arc::clone(schemas)),
        None => decoder(settings, source),
    };
    settings.sources.values().map(decoder).collect()
}

/// A decoder for a source's messages, with the configured dimensions.
#[must_use]
pub fn decoder(settings: &Settings, source: &Source) -> Decoder {
    let own = std::iter::once((source.format, &source.mapping));
    let also = source.also.values().map(|also| (also.format, &also.mapping));
    let decoders = own.chain(also).map(|(format, mapping)| {
        let mut mapping = mapping.clone();
        if source.repartition {
            // Its keys are not customer ids, so a tombstone does not erase a customer.
            mapping.tombstones = mapping.tombstones.or(Some(Tombstones::Skip));
        }
        // Loading rejects options that do not fit; only settings built in code can get here with some.
        Decoder::with_options(format, dimensions(settings), &mapping)
            .unwrap_or_else(|_| Decoder::new(format, dimensions(settings)))
    });
    Decoder::shared(decoders.collect()).unwrap_or_else(|| Decoder::new(source.format, dimensions(settings)))
}

fn dimensions(settings: &Settings) -> Vec<String> {
    settings.customers.dimensions.0.iter().map(|dimension| dimension.name.clone()).collect()
}

/// How producers choose a customer's partition.
#[must_use]
pub fn partitioner(settings: &Settings) -> Partitioner {
    match settings.kafka.partitioner {
        config::Partitioner::Murmur2 => Partitioner::Murmur2,
        config::Partitioner::Crc32 => Partitioner::Crc32,
    }
}

/// The schema registry, if one is configured. The first request is sent when a message names a schema.
#[must_use]
pub fn registry(settings: &Settings) -> Option<Arc<dyn Schemas>> {
    let registry = settings.schema_registry.as_ref()?;
    let access = match (&registry.user, &registry.password, &registry.token) {
        (Some(user), Some(password), _) => Access::basic(user, password.reveal()),
        (.., Some(token)) => Access::bearer(token.reveal()),
        _ => Access::default(),
    };
    // Loading has rejected a file without a certificate.
    let own = || registry.ca.as_ref().and_then(|ca| Trust::of_pem(ca.reveal()).ok());
    let trust = || own().unwrap_or_else(Trust::of_system);
    Some(Arc::new(Registry::new(Client::new(&registry.url, access, registry.timeout.to_std(), trust))))
}

/// The specification that the engines compute.
#[must_use]
pub fn spec(settings: &Settings) -> Spec {
    let rolling = settings.windows.iter().map(|window| RollingSpec {
        name: window.name.clone(),
        period: window.period,
        active_for: window.active_for,
        resolution: window.resolution,
    });
    let calendar = settings.calendar.iter().map(|window| CalendarSpec {
        unit: match window.unit {
            config::Unit::Week => Unit::Week,
            config::Unit::Month => Unit::Month,
            config::Unit::Quarter => Unit::Quarter,
            config::Unit::Year => Unit::Year,
        },
        active_for_days: window.active_for_days.map(|days| i32::try_from(days).unwrap_or(i32::MAX / 8)),
    });
    let dimensions = settings
        .customers
        .dimensions
        .0
        .iter()
        .map(|dimension| DimensionSpec { name: dimension.name.clone(), values: dimension.values.clone() });
    Spec {
        rolling: rolling.collect(),
        calendar: calendar.collect(),
        zone: Zone::new(settings.time.zone.rules()),
        allowed_lateness: settings.customers.allowed_lateness.get(),
        dedup_for: settings.customers.dedup_for.get(),
        history: Some(settings.time.history.get()),
        topics: settings.sources.values().map(|source| source.clock).collect(),
        dimensions: dimensions.collect(),
        merge_orders: settings.customers.merge_orders_within.is_some(),
        lifecycle: LifecycleSpec {
            active_for: settings.customers.active_for.get(),
            at_risk_cadence: settings.customers.at_risk_cadence,
            at_risk_min: settings.customers.at_risk_min.get(),
            loyal_orders: settings.customers.loyal_orders,
        },
        rates: rates(settings),
        inactivity: inactivity(settings),
    }
}

/// The inactivity rules, and when their alerts are sent.
fn inactivity(settings: &Settings) -> InactivitySpec {
    let stage = |stage: &config::Stage| match stage {
        config::Stage::Prospect => stage_number(None),
        config::Stage::New => stage_number(Some(Stage::New)),
        config::Stage::Repeat => stage_number(Some(Stage::Repeat)),
        config::Stage::Loyal => stage_number(Some(Stage::Loyal)),
    };
    let dimensions = &settings.customers.dimensions.0;
    let place = |name: &String| dimensions.iter().position(|dimension| dimension.name == *name);
    let rule = |rule: &config::InactivityRule| RuleSpec {
        name: rule.name.clone(),
        silence: match rule.silence {
            config::SilenceSetting::After(after) => SilenceRule::After(after.get()),
            config::SilenceSetting::Cadence { factor, min, max } => {
                SilenceRule::Cadence { factor, min: min.get(), max: max.get() }
            }
            config::SilenceSetting::NoSessionFor(after) => SilenceRule::NoSessionFor(after.get()),
        },
        filter: Filter {
            stages: rule.filter.stages.iter().map(stage).collect(),
            min_orders: rule.filter.min_orders,
            min_revenue: rule.filter.min_revenue,
            segment: rule
                .filter
                .segment
                .iter()
                .filter_map(|(name, value)| Some((place(name)?, value.clone())))
                .collect(),
        },
    };
    let alerts = &settings.alerts;
    InactivitySpec {
        rules: settings.inactivity.iter().map(rule).collect(),
        settle: alerts.settle.get(),
        since: if alerts.backfill { Some(Time::MIN) } else { alerts.since },
        holdout: alerts.holdout,
        salt: alerts.salt.clone(),
        winback_within: alerts.winback_within.get(),
    }
}

/// The exchange rates to the reporting currency, if one is configured.
fn rates(settings: &Settings) -> Option<Rates> {
    let lines = settings.currency.rates.iter().filter_map(|line| {
        let rate = Rate::new(line.rate.mantissa(), line.rate.scale())?;
        Some((zone::number(line.date), line.currency, rate))
    });
    settings.currency.reporting.map(|reporting| Rates::new(reporting, lines))
}

/// The specification for files: one sorted topic with its complete history.
#[must_use]
pub fn replay_spec(settings: &Settings) -> Spec {
    let mut spec = Spec { history: None, topics: vec![true], ..spec(settings) };
    spec.inactivity.since = settings.alerts.since.or(Some(Time::MIN));
    spec
}

/// Facts about the dataset. `first_event` is the begin of the data unless `time.data_begin` is set.
#[must_use]
pub fn background(settings: &Settings, first_event: Option<Time>) -> Background {
    let clv_window = settings.clv.window.as_ref();
    Background {
        data_begin: settings.time.data_begin.or(first_event),
        history_whole: settings.time.history_whole,
        clv_window: clv_window.and_then(|name| settings.windows.iter().position(|window| window.name == *name)),
    }
}
