//! The HTTP server: `/metrics`, health, the API and the page. It has no state of its own: every response is computed
//! from the workers and the poll loop's status at the time of the request.

mod access;
mod alerts;
mod customers;
mod definitions;
pub mod health;
mod limit;
mod listing;
mod page;
mod paging;
mod routes;
mod runbook;
mod series;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use access::Access;
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::bus::partitioner::Partitioner;
use crate::engine::spec::Spec;
use crate::output::summary::Background;
use crate::status::SourceStatus;
use crate::worker::pool::Workers;

/// How long requests in progress may take once the server stops.
const GRACE: Duration = Duration::from_secs(3);

/// The sources of the responses.
pub struct Service {
    /// The engines.
    pub workers: Workers,
    /// The status of the poll loop; the sender lives as long as the loop.
    pub source: watch::Receiver<SourceStatus>,
    /// The specification of the engines.
    pub spec: Arc<Spec>,
    /// The source topics, in the order of the configuration.
    pub topics: Vec<String>,
    /// Configured facts about the dataset; without a configured begin, it is found from the events.
    pub background: Background,
    /// Who may query single customers.
    pub access: Access,
    /// Where the Grafana dashboards are.
    pub dashboards_url: Option<String>,
    /// The partitioner of the producers.
    pub partitioner: Partitioner,
    /// The name of this replica.
    pub replica: String,
}

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.with_option("http.listen"))]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The error of the operating system.
    pub source: io::Error,
}

impl BindError {
    /// The error with a remedy that names the option for the address.
    #[must_use]
    pub fn with_option(&self, option: &str) -> String {
        let BindError { address, source } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => format!("{address} is in use; set {option}, or stop the other process"),
            io::ErrorKind::PermissionDenied => {
                format!("this user may not listen on {address}; set {option} to a port above 1023")
            }
            io::ErrorKind::AddrNotAvailable => format!("{address} is no address of this machine; set {option}"),
            _ => format!("cannot listen on {address} ({source}); set {option}"),
        }
    }
}

/// Binds the port first, so that an error shows before anything else is started.
///
/// # Errors
/// When the address cannot be bound; with a remedy.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { address, source })
}

/// All routes. The router keeps its handle to the workers while it lives; [`serve`] drops it.
pub fn router(service: Service) -> Router {
    routes::router(&Arc::new(routes::Shared::new(service)))
}

/// Serves requests until `shutdown`, then finishes those in progress for at most three seconds (and until the workers
/// have answered). Drops all handles to the workers, even if a client keeps its connection open, so their threads can
/// be joined.
///
/// # Errors
/// When the listener fails permanently.
pub async fn serve(
    listener: TcpListener,
    service: Service,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let shared = Arc::new(routes::Shared::new(service));
    let (stop, stopping) = oneshot::channel();
    let server = axum::serve(listener, routes::router(&shared)).with_graceful_shutdown(async move {
        shutdown.await;
        _ = stop.send(());
    });
    let deadline = async move {
        _ = stopping.await;
        tokio::time::sleep(GRACE).await;
    };
    let result = tokio::select! {
        result = server.into_future() => result,
        () = deadline => Ok(()),
    };
    shared.let_workers_go().await;
    result
}
