//! `retentiond run`: the daemon.

use anyhow::Result;

use super::ConfigFile;
use crate::config::{Secret, Settings};
use crate::daemon::{Daemon, notify};
use crate::http::Access;

/// Read orders and sessions from Kafka and serve figures and metrics, until SIGTERM, SIGHUP or Ctrl-C.
#[derive(Debug, clap::Args)]
pub struct Run {
    #[command(flatten)]
    config: ConfigFile,
}

impl Run {
    pub(super) fn run(self) -> Result<()> {
        let settings = Settings::load(self.config.path(), std::env::vars())?;
        settings.refuse_line_sums()?;
        let runtime = super::runtime()?;
        let outcome = runtime.block_on(async {
            let access = Access::with_token(settings.http.token.as_ref().map(Secret::reveal));
            let daemon = Daemon::start(settings, access).await?;
            tokio::spawn(super::progress::follow(daemon.status()));
            notify::serving();
            let source = daemon.status();
            let stop = async {
                super::stop_requested_or_twice().await;
                notify::stopping();
            };
            tokio::select! {
                ended = daemon.run_until(stop) => ended,
                () = notify::keep_alive(source) => Ok(()),
            }
        });
        // A hanging librdkafka call must not keep the process from exiting.
        runtime.shutdown_background();
        outcome
    }
}
