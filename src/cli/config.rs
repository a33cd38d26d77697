//! `retentiond config`: the effective configuration.

use anyhow::Result;

use super::ConfigFile;

/// Print the effective configuration, secrets redacted.
#[derive(Debug, clap::Args)]
pub struct Config {
    #[command(flatten)]
    config: ConfigFile,
}

impl Config {
    pub(super) fn run(self) -> Result<()> {
        super::print(&self.config.load_without_secrets()?.to_redacted_toml());
        Ok(())
    }
}
