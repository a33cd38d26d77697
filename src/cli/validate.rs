//! `retentiond validate`: is this configuration sound?

use anyhow::Result;

use super::ConfigFile;
use crate::config::Settings;

/// Check a configuration.
#[derive(Debug, clap::Args)]
pub struct Validate {
    #[command(flatten)]
    config: ConfigFile,
}

impl Validate {
    /// Names every mistake; files that hold secrets must be readable too.
    pub(super) fn run(self) -> Result<()> {
        let settings = Settings::load(self.config.path(), std::env::vars())?;
        super::print(&format!(
            "The configuration is sound: {} source(s), {} rolling and {} calendar window(s), zone {}.",
            settings.sources.len(),
            settings.windows.len(),
            settings.calendar.len(),
            settings.time.zone.name()
        ));
        Ok(())
    }
}
