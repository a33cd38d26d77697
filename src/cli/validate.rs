//! `retentiond validate`: checks a configuration, and optionally whether real messages fit it.

use anyhow::Result;

use super::ConfigFile;
use crate::bus::SourceError;
use crate::config::Settings;
use crate::offline::sample::sample;
use crate::wiring::kafka_settings;

/// Check a configuration.
#[derive(Debug, clap::Args)]
pub struct Validate {
    #[command(flatten)]
    config: ConfigFile,
    /// Also read the newest N messages of each source topic and report how they decode; joins no group and commits
    /// nothing. Exit 1 if most messages of a topic are of unknown types, skipped or rejected.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sample: Option<u32>,
}

impl Validate {
    /// Reports every mistake, including unreadable secret files. Then creates the Kafka client, which connects to
    /// nothing but reads certificates and keys.
    pub(super) fn run(self) -> Result<()> {
        let settings = Settings::load(self.config.path(), std::env::vars())?;
        kafka_settings(&settings).check()?;
        super::print(&format!(
            "The configuration is valid: {} source(s), {} rolling and {} calendar window(s), zone {}.",
            settings.sources.len(),
            settings.windows.len(),
            settings.calendar.len(),
            settings.time.zone.name()
        ));
        let Some(count) = self.sample else { return Ok(()) };
        let findings = sample(&settings, count)?;
        super::print(&findings.report());
        if let Some(fault) = findings.fault() {
            return Err(SourceError::Configuration(fault).into());
        }
        findings.useless().map_or(Ok(()), |useless| Err(anyhow::Error::msg(useless)))
    }
}
