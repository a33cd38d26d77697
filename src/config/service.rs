//! `[checkpoint]` and `[http]`: where state is kept and figures are served.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::millis::Millis;
use super::options::Secret;
use super::value::address;
use crate::event::{HOUR, SECOND};

/// Default number of intervals that may pass without a committed checkpoint.
pub(super) const STALE_INTERVALS: i64 = 10;

/// `[checkpoint]`: where state is kept, and how often it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Checkpoint {
    /// A directory, `file:///path`, or a bucket, `s3://`, `gs://` or `az://`.
    pub url: String,
    /// Time between two checkpoints, and so between two commits.
    pub interval: Millis,
    /// How long obsolete files are kept, as targets for `retentiond rewind`.
    pub keep: Millis,
    /// After how long without a committed checkpoint, although records were applied, the daemon reports a fault;
    /// defaults to ten intervals.
    pub stale_after: Millis,
}

impl Default for Checkpoint {
    fn default() -> Checkpoint {
        Checkpoint {
            url: "file:///var/lib/retentiond".to_owned(),
            interval: Millis::clamped(10 * SECOND),
            keep: Millis::clamped(HOUR),
            stale_after: Millis::clamped(STALE_INTERVALS * 10 * SECOND),
        }
    }
}

/// `[http]`: metrics, API and page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address and port.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// File with the bearer token for the API of single customers; without one, that API is disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// URL of the Grafana dashboards, which the page links to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dashboards_url: Option<String>,
    /// The content of `token_file`; `None` if secrets were not loaded.
    #[serde(skip)]
    pub token: Option<Secret>,
}

impl Default for Http {
    fn default() -> Http {
        let listen = SocketAddr::from(([127, 0, 0, 1], 9736));
        Http { listen, token_file: None, dashboards_url: None, token: None }
    }
}
