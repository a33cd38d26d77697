//! `/api/v1/customers/{id}`: one customer. The id appears only in the request and the response, nowhere else.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::routes::{Failure, Shared};
use crate::output::summary::CustomerSummary;

/// A customer, and the replica that answers.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    summary: CustomerSummary,
    /// The name of this replica.
    replica: &'a str,
}

/// The longest id that an event may carry, in bytes.
const LONGEST_ID: usize = 255;

pub(super) async fn customer(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    if let Err(refused) = shared.admit(&headers) {
        return refused.into_response();
    }
    match answer(&shared, id).await {
        Ok(summary) => {
            let answer = Answer { summary, replica: &shared.replica };
            ([(CACHE_CONTROL, "no-store")], Json(answer)).into_response()
        }
        Err(failure) => failure.into_response(),
    }
}

async fn answer(shared: &Shared, id: Result<Path<String>, PathRejection>) -> Result<CustomerSummary, Failure> {
    let Path(id) = id.map_err(|_| Failure {
        status: StatusCode::BAD_REQUEST,
        error: "the customer id is not UTF-8".to_owned(),
        hint: Some("encode the bytes of the id with %".to_owned()),
    })?;
    if id.len() > LONGEST_ID {
        return Err(Failure {
            status: StatusCode::BAD_REQUEST,
            error: format!("the customer id has {} bytes; ids have at most {LONGEST_ID}", id.len()),
            hint: None,
        });
    }
    let asked = id.clone();
    let figures = shared.ask(move |workers| workers.customer(&asked)).await?;
    let figures = figures.ok_or_else(|| match shared.elsewhere(&id) {
        Some(partition) => Failure {
            status: StatusCode::MISDIRECTED_REQUEST,
            error: format!(
                "the customer belongs to partition {partition}, which {} owns; this is the replica {}",
                shared.owner(partition),
                shared.replica
            ),
            hint: Some("ask the replica that owns it; retentiond_partition_state names its partitions".to_owned()),
        },
        None => Failure {
            status: StatusCode::NOT_FOUND,
            error: "no customer with that id has a record here".to_owned(),
            hint: Some("ids are case-sensitive; an erased customer has no record".to_owned()),
        },
    })?;
    Ok(CustomerSummary::new(id, &shared.spec, &figures, &shared.background))
}
