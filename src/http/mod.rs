//! What people and machines may ask: `/metrics`, health, the API and the page. Holds no state of its own: every answer
//! is read off the workers and the poll loop at the moment of the question.

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

/// How long answers that are under way may take once the server is to stop.
const GRACE: Duration = Duration::from_secs(3);

/// What the answers are read off.
pub struct Service {
    /// The engines.
    pub workers: Workers,
    /// The poll loop; its sender lives as long as the loop does.
    pub source: watch::Receiver<SourceStatus>,
    /// What the engines compute.
    pub spec: Arc<Spec>,
    /// The source topics, by their place in the configuration.
    pub topics: Vec<String>,
    /// What the settings say about the data as a whole; without a configured beginning it is found from the events.
    pub background: Background,
    /// Who may ask about single customers.
    pub access: Access,
    /// Where the Grafana dashboards are.
    pub dashboards_url: Option<String>,
    /// How the producers of the events choose partitions.
    pub partitioner: Partitioner,
    /// The name of this replica.
    pub replica: String,
}

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.with_option("http.listen"))]
pub struct BindError {
    /// Where it was to listen.
    pub address: SocketAddr,
    /// What the operating system says.
    pub source: io::Error,
}

impl BindError {
    /// What is wrong, and what to do about it with the option that says where to listen.
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

/// Takes the port, so that a mistake shows before anything else is started.
///
/// # Errors
/// With the address and what to do about it.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { address, source })
}

/// All routes. The router keeps its handle to the workers for as long as it lives; [`serve`] lets go of it.
pub fn router(service: Service) -> Router {
    routes::router(&Arc::new(routes::Shared::new(service)))
}

/// Answers requests until `shutdown`, then finishes those under way, for at most three seconds (and until the workers
/// have answered what they were asked). No handle to the workers is left behind, also where a client keeps its
/// connection open, so their threads can be joined.
///
/// # Errors
/// When the listener fails for good.
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
