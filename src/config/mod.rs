//! Typed settings: defaults, then the TOML file, then environment variables `RETENTIOND__SECTION__KEY`.
//!
//! [`Settings::load`] returns either valid and consistent settings, or all mistakes at once. `deploy/retentiond.toml`
//! shows every key with its default.
//!
//! Environment variables name the path to a value, with `__` between its parts and `_` for `.` and `-`:
//! `RETENTIOND__SOURCES__ORDERS__TOPIC`, `RETENTIOND__WINDOWS__0__PERIOD`,
//! `RETENTIOND__KAFKA__OPTIONS__SASL_PASSWORD_FILE` (the option `sasl.password`, from a file).

mod alerts;
mod check;
#[cfg(test)]
mod check_tests;
mod currency;
mod error;
mod figures;
mod kafka;
mod lines;
mod load;
#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod mapping_tests;
mod millis;
mod options;
mod repartition;
mod retired;
mod service;
mod shared;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use alerts::{Alerts, Filter, InactivityRule, QuietHours, SilenceSetting, Stage, Webhook};
pub use currency::{RateLine, ReportingCurrency};
pub use error::{ConfigError, ConfigErrors};
pub use figures::{CalendarSettings, Clv, Customers, Dimension, Dimensions, TimeSettings, Unit, WindowSettings};
pub use kafka::{DeadLetters, Delivery, Format, Kafka, Mapping, Partitioner, Protocol, SchemaRegistry, Source, Start};
pub use millis::Millis;
pub use options::{ClientOptions, SECRET_OPTIONS, Secret};
pub use service::{Checkpoint, Http};
pub use shared::Also;
pub use value::Zone;

use error::{Problems, key_of};
use load::{Given, Tables};

use crate::decode::LineMode;
use crate::tls::Trust;

/// The effective configuration: with all defaults, and checked. Neither `Debug` nor [`Settings::to_redacted_toml`]
/// shows a secret.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    /// The cluster, and this replica's membership in the consumer group.
    pub kafka: Kafka,
    /// Topics of events by source name; at least one drives time. Only `orders` if none is configured.
    #[serde(serialize_with = "shared::apart")]
    pub sources: BTreeMap<String, Source>,
    /// The schema registry, if messages need one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_registry: Option<SchemaRegistry>,
    /// How customers are counted.
    pub customers: Customers,
    /// Rolling windows in the order of the file.
    pub windows: Vec<WindowSettings>,
    /// Calendar windows in the order of the file.
    pub calendar: Vec<CalendarSettings>,
    /// How time advances, and how far back the figures reach.
    pub time: TimeSettings,
    /// Customer lifetime value.
    pub clv: Clv,
    /// The reporting currency and its exchange rates.
    pub currency: ReportingCurrency,
    /// Rules that say when a customer counts as silent.
    pub inactivity: Vec<InactivityRule>,
    /// What happens when a customer falls silent.
    pub alerts: Alerts,
    /// Where rejected messages go.
    pub dead_letters: DeadLetters,
    /// Where state is kept.
    pub checkpoint: Checkpoint,
    /// Where figures are served.
    pub http: Http,
}

impl Default for Settings {
    fn default() -> Settings {
        check::settings(Tables::default(), &Given::default())
    }
}

impl Settings {
    /// Reads the file, if any, the environment, and all secret files.
    ///
    /// # Errors
    /// All mistakes in the file, in the environment and between settings.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Settings, ConfigErrors> {
        let mut problems = Problems::default();
        let mut settings = read(file, environment, &mut problems);
        settings.read_secrets(&mut problems);
        problems.unless_any(settings)
    }

    /// Like [`Settings::load`], but opens no secret file (the rates file is not one), for subcommands that make no
    /// connections, such as `replay` and `config`.
    ///
    /// # Errors
    /// All mistakes in the file, in the environment and between settings.
    pub fn load_without_secrets(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Settings, ConfigErrors> {
        let mut problems = Problems::default();
        let settings = read(file, environment, &mut problems);
        problems.unless_any(settings)
    }

    /// The topic that the engines read for each source, in order of the sources; see [`Source::keyed_topic`].
    #[must_use]
    pub fn keyed_topics(&self) -> Vec<String> {
        self.sources.iter().map(|(name, source)| source.keyed_topic(name, &self.kafka.group_id)).collect()
    }

    /// The source with this name, or the one that consumes its shared topic; with the name of that source.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<(&str, &Source)> {
        let found = self.sources.iter().find(|(known, source)| *known == name || source.also.contains_key(name));
        found.map(|(known, source)| (known.as_str(), source))
    }

    /// The names of all sources.
    #[must_use]
    pub fn source_names(&self) -> Vec<&str> {
        let names = self.sources.iter().flat_map(|(name, source)| std::iter::once(name).chain(source.also.keys()));
        names.map(String::as_str).collect()
    }

    /// Rejects sources with `lines = "sum"`, which works only for files: in a topic, nothing marks the end of an order.
    ///
    /// # Errors
    /// Every such source.
    pub fn refuse_line_sums(&self) -> Result<(), ConfigErrors> {
        let mut problems = Problems::default();
        let also =
            self.sources.values().flat_map(|source| source.also.iter().map(|(name, also)| (name, &also.mapping)));
        let all = self.sources.iter().map(|(name, source)| (name, &source.mapping)).chain(also);
        for (name, _) in all.filter(|(_, mapping)| mapping.lines == LineMode::Sum) {
            let what = "adds up the lines of an order in a file, and a topic does not say which line is the last; add \
            them up before the topic, and keep this setting to replay and bootstrap";
            problems.add(key_of(&["sources", name, "mapping", "lines"]), what);
        }
        problems.unless_any(())
    }

    /// The configuration as TOML that can be loaded again, except that secrets are `***`. Optional keys that are not
    /// set are omitted.
    #[must_use]
    pub fn to_redacted_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| format!("# cannot be printed: {error}\n"))
    }

    /// Reads the salt files for hashes of guests' addresses. Decoding depends on them, so subcommands that read events
    /// need them even if they open no other secret.
    ///
    /// # Errors
    /// Every file that cannot be read.
    pub fn read_salts(&mut self) -> Result<(), ConfigErrors> {
        let mut problems = Problems::default();
        self.salts(&mut problems);
        problems.unless_any(())
    }

    fn salts(&mut self, problems: &mut Problems) {
        let mappings = self.sources.iter_mut().flat_map(|(name, source)| {
            let also = source.also.iter_mut().map(|(name, also)| (name, &mut also.mapping));
            std::iter::once((name, &mut source.mapping)).chain(also)
        });
        for (name, mapping) in mappings {
            if let Some(path) = &mapping.salt_file {
                let salt = secret(&key_of(&["sources", name, "mapping", "salt_file"]), path, problems);
                mapping.salt = salt.map(|salt| crate::decode::Salt::new(salt.reveal()));
            }
        }
    }

    fn read_secrets(&mut self, problems: &mut Problems) {
        self.salts(problems);
        if let Some(registry) = &mut self.schema_registry {
            let read = |key: &str, path: &Option<PathBuf>, problems: &mut Problems| {
                path.as_ref().and_then(|path| secret(&format!("schema_registry.{key}"), path, problems))
            };
            registry.password = read("password_file", &registry.password_file, problems);
            registry.token = read("token_file", &registry.token_file, problems);
            registry.ca = read("ca_file", &registry.ca_file, problems);
            if let Some(Err(wrong)) = registry.ca.as_ref().map(|ca| Trust::of_pem(ca.reveal())) {
                problems.add("schema_registry.ca_file", wrong.to_string());
            }
        }
        for (option, why) in self.kafka.options.read_secrets() {
            problems.add(key_of(&["kafka", "options", &option]), why);
        }
        if let Some(path) = &self.http.token_file {
            self.http.token = secret("http.token_file", path, problems);
        }
        if let Some(hook) = &mut self.alerts.webhook
            && !problems.is_wrong("alerts.webhook.secret_file")
        {
            hook.secret = secret("alerts.webhook.secret_file", &hook.secret_file, problems);
        }
    }
}

fn secret(key: &str, path: &Path, problems: &mut Problems) -> Option<Secret> {
    Secret::read(path).map_err(|why| problems.add(key, why)).ok()
}

fn read(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>, problems: &mut Problems) -> Settings {
    let name = file.map(|path| path.display().to_string()).unwrap_or_default();
    let text = file.and_then(|path| match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) => {
            problems.add(&name, format!("cannot be read ({error}); check the path and its permissions"));
            None
        }
    });
    let (tables, given) = load::read(text.as_deref().map(|text| (name.as_str(), text)), environment, problems);
    problems.warnings().for_each(|warning| tracing::warn!("{warning}"));
    check::check(&tables, &given, problems);
    let mut settings = check::settings(tables, &given);
    settings.currency.read_rates(problems);
    settings
}
