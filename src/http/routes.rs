//! The handlers of all paths.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::sync::{Mutex, watch};

use super::Service;
use super::access::{Access, Denied};
use super::alerts;
use super::customers;
use super::definitions::Definitions;
use super::health::{self, Readiness};
use super::limit::Limit;
use super::listing;
use super::page;
use super::runbook;
use super::series::SeriesQuery;
use crate::bus::partitioner::Partitioner;
use crate::engine::spec::Spec;
use crate::event::{Time, wall_clock};
use crate::output::metrics::{self, Scrape};
use crate::output::summary::{self, Background, DistributionSummary, RuleSummary, Summary};
use crate::status::SourceStatus;
use crate::worker::WorkerStatus;
use crate::worker::pool::{Overview, Stopped, Wanted, Workers};

/// The paths named in the hint of a 404.
const PATHS: &str = "/, /runbook, /metrics, /healthz, /readyz, /api/v1/summary, /api/v1/series, /api/v1/cohorts, \
/api/v1/distributions, /api/v1/winback, /api/v1/customers/{id}, /api/v1/at-risk, /api/v1/lapsed, /api/v1/alerts, \
/api/v1/definitions";

/// State shared by the handlers.
pub(super) struct Shared {
    /// The engines, queried one request at a time; `None` once the server has stopped.
    workers: Arc<Mutex<Option<Workers>>>,
    pub(super) source: watch::Receiver<SourceStatus>,
    pub(super) spec: Arc<Spec>,
    topics: Vec<String>,
    pub(super) background: Background,
    pub(super) access: Access,
    pub(super) limit: Limit,
    /// Locked during a scan of all customers.
    pub(super) scanning: Mutex<()>,
    partitioner: Partitioner,
    pub(super) replica: String,
    dashboards_url: Option<String>,
    started: Instant,
    /// The same as a wall clock time, for display.
    pub(super) started_at: Time,
}

impl Shared {
    pub(super) fn new(service: Service) -> Shared {
        Shared {
            workers: Arc::new(Mutex::new(Some(service.workers))),
            source: service.source,
            spec: service.spec,
            topics: service.topics,
            background: service.background,
            access: service.access,
            limit: Limit::new(Instant::now()),
            scanning: Mutex::new(()),
            partitioner: service.partitioner,
            replica: service.replica,
            dashboards_url: service.dashboards_url,
            started: Instant::now(),
            started_at: wall_clock(),
        }
    }

    /// Whether a query for single customers is allowed: within the rate limit and with the token.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), Denied> {
        self.limit.take(Instant::now()).map_err(Denied::TooMany)?;
        self.access.check(headers).map_err(Denied::Refused)
    }

    /// The partition of a customer, if another replica owns it.
    pub(super) fn elsewhere(&self, customer: &str) -> Option<u32> {
        let source = self.source.borrow();
        let partitions = source.partition_counts.iter().copied().reduce(|a, b| Some(a?.max(b?))).flatten()?;
        let partition = self.partitioner.partition(customer.as_bytes(), partitions);
        let is_ours = source.owned.iter().any(|owned| u32::try_from(owned.0) == Ok(partition));
        (source.joined && !is_ours).then_some(partition)
    }

    /// Describes the replica that owns a partition.
    pub(super) fn owner(&self, partition: u32) -> String {
        let source = self.source.borrow();
        let owner = i32::try_from(partition).ok().and_then(|partition| source.coverage.owners.get(&partition));
        owner.map_or_else(|| "another replica".to_owned(), |owner| format!("the replica {owner}"))
    }

    /// Drops the handle to the workers, once no request uses it.
    pub(super) async fn let_workers_go(&self) {
        self.workers.lock().await.take();
    }

    /// Queries the workers. Each query interrupts all workers, so concurrent requests wait.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Workers) -> Result<T, Stopped> + Send + 'static,
    ) -> Result<T, Failure> {
        let workers = Arc::clone(&self.workers).lock_owned().await;
        // Keep the lock in the task: if the client hangs up, the next request must wait until the workers have
        // answered.
        let answer = tokio::task::spawn_blocking(move || question(workers.as_ref().ok_or(Stopped)?));
        // The task fails only if it panics or the runtime stops.
        Ok(answer.await.unwrap_or(Err(Stopped))?)
    }

    async fn overview(&self, wanted: Wanted) -> Result<Overview, Failure> {
        self.ask(move |workers| workers.overview(wanted)).await
    }

    fn background(&self, overview: &Overview) -> Background {
        self.background_of(&overview.status)
    }

    /// The configured facts about the dataset, completed from the partitions.
    fn background_of(&self, status: &WorkerStatus) -> Background {
        Background {
            data_begin: self.background.data_begin.or(status.data_begin()),
            history_whole: self.background.history_whole || status.history_whole(),
            ..self.background
        }
    }
}

/// Why a request has no response.
pub(super) struct Failure {
    pub status: StatusCode,
    pub error: String,
    pub hint: Option<String>,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            hint: Option<String>,
        }
        (self.status, Json(Body { error: self.error, hint: self.hint })).into_response()
    }
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Failure {
        Failure {
            status: StatusCode::SERVICE_UNAVAILABLE,
            error: stopped.to_string(),
            hint: Some("this process is shutting down".to_owned()),
        }
    }
}

pub(super) fn router(shared: &Arc<Shared>) -> Router {
    let router = Router::new()
        .route("/", get(page::document))
        .route("/style.css", get(page::style))
        .route("/app.js", get(page::script))
        .route("/runbook", get(runbook::runbook))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/v1/summary", get(summary))
        .route("/api/v1/series", get(series))
        .route("/api/v1/cohorts", get(cohorts))
        .route("/api/v1/distributions", get(distributions))
        .route("/api/v1/winback", get(winback))
        .route("/api/v1/definitions", get(definitions))
        .route("/api/v1/customers/{id}", get(customers::customer))
        .route("/api/v1/at-risk", get(listing::at_risk))
        .route("/api/v1/lapsed", get(listing::lapsed))
        .route("/api/v1/alerts", get(alerts::alerts));
    router.fallback(not_found).method_not_allowed_fallback(method_not_allowed).with_state(Arc::clone(shared))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Result<impl IntoResponse, Failure> {
    let overview = shared.overview(Wanted::OpenAndPrevious).await?;
    let source = shared.source.borrow().clone();
    let text = metrics::encode(&Scrape {
        spec: &shared.spec,
        topics: &shared.topics,
        overview: &overview,
        source: &source,
        background: &shared.background(&overview),
        now: Instant::now(),
    });
    match text {
        Ok(text) => Ok(([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text)),
        Err(error) => Err(Failure {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            error: format!("cannot encode the metrics: {error}"),
            hint: Some("this is a bug of retentiond; please report it".to_owned()),
        }),
    }
}

async fn healthz(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    match health::alive(&shared.source.borrow(), shared.started, Instant::now()) {
        Ok(()) => (StatusCode::OK, "ok".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

async fn readyz(State(shared): State<Arc<Shared>>) -> (StatusCode, Json<Readiness>) {
    let running = shared.source.has_changed().is_ok();
    let readiness = Readiness::new(&shared.source.borrow(), &shared.topics, running, Instant::now());
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}

/// The summary as in `replay`, and how much of the whole it covers.
#[derive(Serialize)]
struct ReplicaSummary {
    #[serde(flatten)]
    summary: Summary,
    /// Partitions that this replica owns.
    partitions_assigned: usize,
    /// Total number of partitions; `null` until known for every topic.
    partitions_total: Option<u32>,
    /// When the data begin, as configured or as found.
    data_begin: Option<Time>,
}

async fn summary(State(shared): State<Arc<Shared>>) -> Result<impl IntoResponse, Failure> {
    let overview = shared.overview(Wanted::All).await?;
    let background = shared.background(&overview);
    let summary = overview.snapshot.as_ref().map(|snapshot| Summary::new(&shared.spec, snapshot, &background));
    let source = shared.source.borrow();
    let answer = ReplicaSummary {
        data_begin: background.data_begin,
        summary: summary.unwrap_or_else(Summary::before_any_event),
        partitions_assigned: source.owned.len(),
        // All source topics have the same number; the daemon checks that.
        partitions_total: source.partition_counts.iter().copied().reduce(|a, b| Some(a?.max(b?))).flatten(),
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(answer)))
}

/// Only the cohort triangle of the summary.
async fn cohorts(State(shared): State<Arc<Shared>>) -> Result<impl IntoResponse, Failure> {
    let overview = shared.overview(Wanted::All).await?;
    let background = shared.background(&overview);
    let summary = overview.snapshot.as_ref().map(|snapshot| Summary::new(&shared.spec, snapshot, &background));
    let Summary { as_of, cohorts, .. } = summary.unwrap_or_else(Summary::before_any_event);
    Ok(([(CACHE_CONTROL, "no-store")], Json(serde_json::json!({"as_of": as_of, "cohorts": cohorts}))))
}

/// Only the distributions of the summary.
async fn distributions(State(shared): State<Arc<Shared>>) -> Result<impl IntoResponse, Failure> {
    let overview = shared.overview(Wanted::OpenAndPrevious).await?;
    let (at, list) = match &overview.snapshot {
        Some(snapshot) => (Some(snapshot.at), summary::distributions(&snapshot.distributions)),
        None => (None, Vec::new()),
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(Distributions { as_of: at, distributions: list })))
}

/// The response of `/api/v1/distributions`.
#[derive(Serialize)]
struct Distributions {
    as_of: Option<Time>,
    distributions: Vec<DistributionSummary>,
}

/// Only the win-backs of the summary.
async fn winback(State(shared): State<Arc<Shared>>) -> Result<impl IntoResponse, Failure> {
    let overview = shared.overview(Wanted::OpenAndPrevious).await?;
    let (at, rules) = match &overview.snapshot {
        Some(snapshot) => (Some(snapshot.at), summary::winback(&snapshot.inactivity)),
        None => (None, Vec::new()),
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(Winback { as_of: at, rules })))
}

/// The response of `/api/v1/winback`.
#[derive(Serialize)]
struct Winback {
    as_of: Option<Time>,
    rules: Vec<RuleSummary>,
}

async fn series(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<SeriesQuery>, QueryRejection>,
) -> Result<impl IntoResponse, Failure> {
    let Query(query) =
        query.map_err(|error| bad_question(format!("{}; write ?window=30d&figure=churn_ratio", error.body_text())))?;
    let status = shared.ask(Workers::status).await?;
    let now = status.now().ok_or_else(|| bad_question("there is no event yet".to_owned()))?;
    let panes = query.panes(&shared.spec, now).map_err(bad_question)?;
    let (window, list) = (panes.window, Arc::clone(&panes.list));
    let parts = shared.ask(move |workers| workers.series(window, &list)).await?;
    let background = shared.background_of(&status);
    let answer = query.answer(&shared.spec, &background, &panes, &parts).map_err(bad_question)?;
    Ok(([(CACHE_CONTROL, "no-store")], Json(answer)))
}

pub(super) fn bad_question(error: String) -> Failure {
    Failure { status: StatusCode::BAD_REQUEST, error, hint: None }
}

async fn definitions(State(shared): State<Arc<Shared>>) -> Response {
    Json(Definitions::new(&shared.spec, shared.dashboards_url.as_deref())).into_response()
}

async fn not_found(uri: Uri) -> Failure {
    Failure {
        status: StatusCode::NOT_FOUND,
        error: format!("nothing is at {}", uri.path()),
        hint: Some(format!("there are {PATHS}")),
    }
}

async fn method_not_allowed(method: Method, uri: Uri) -> Failure {
    Failure {
        status: StatusCode::METHOD_NOT_ALLOWED,
        error: format!("{} does not take {method}", uri.path()),
        hint: Some("use GET".to_owned()),
    }
}
