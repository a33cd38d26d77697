//! `/api/v1/alerts`: alerts and win-backs recently sent by this replica, newest first.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::paging::{self, Format, page_size};
use super::routes::{Failure, Shared, bad_question};
use crate::engine::spec::Spec;
use crate::event::Time;
use crate::output::summary::{AlertEntry, AlertList};

/// An example query for error messages.
const EXAMPLE: &str = "write ?limit=100&rule=lapsing&type=inactive";
/// The types of messages.
const TYPES: [&str; 2] = ["inactive", "winback"];

/// The query.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AlertQuery {
    limit: Option<usize>,
    rule: Option<String>,
    r#type: Option<String>,
    cursor: Option<String>,
    format: Option<String>,
}

pub(super) async fn alerts(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: Result<Query<AlertQuery>, QueryRejection>,
) -> Response {
    if let Err(refused) = shared.admit(&headers) {
        return refused.into_response();
    }
    match answer(&shared, query).await {
        Ok(answer) => answer,
        Err(failure) => failure.into_response(),
    }
}

async fn answer(shared: &Shared, query: Result<Query<AlertQuery>, QueryRejection>) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|error| bad_question(format!("{}; {EXAMPLE}", error.body_text())))?;
    let limit = page_size(query.limit).map_err(bad_question)?;
    let format = Format::parse(query.format.as_deref()).map_err(bad_question)?;
    query.check(&shared.spec).map_err(bad_question)?;
    let before = query.before().map_err(bad_question)?;
    let sent = Arc::clone(&shared.source.borrow().sent);
    let since = sent.oldest_kept().unwrap_or(shared.started_at);
    let read = sent.before(before).into_iter().filter_map(|sent| Some((sent.number, AlertEntry::read(&sent)?)));
    let mut page: Vec<_> = read.filter(|(_, alert)| query.wants(alert)).take(limit + 1).collect();
    let has_more = page.len() > limit;
    page.truncate(limit);
    let next_cursor = page.last().filter(|_| has_more).map(|(number, _)| number.to_string());
    let all: Vec<_> = page.into_iter().map(|(_, alert)| alert).collect();
    let known = known(shared, &all).await?;
    let (listed, named) = (all.len(), all.into_iter().zip(known).filter(|(_, known)| *known));
    let alerts: Vec<_> = named.map(|(alert, _)| alert).collect();
    let list = AlertList { since, next_cursor, withheld: listed - alerts.len(), alerts };
    let response = match format {
        Format::Json => Json(&list).into_response(),
        Format::Csv => paging::csv(list.csv(), "alerts")?,
    };
    let limit = limit.to_string();
    let mut again = vec![("limit", limit.as_str()), ("format", if format == Format::Csv { "csv" } else { "json" })];
    again.extend(query.rule.as_deref().map(|rule| ("rule", rule)));
    again.extend(query.r#type.as_deref().map(|kind| ("type", kind)));
    Ok(paging::with_next(response, list.next_cursor.as_deref(), &again))
}

/// Whether each customer has a record that reaches back to the silence. The record of an erased customer is gone; a
/// later one with the same id counts as another person.
async fn known(shared: &Shared, alerts: &[AlertEntry]) -> Result<Vec<bool>, Failure> {
    let silence = |alert: &AlertEntry| {
        let since = Time::parse(&alert.text("silent_since")).unwrap_or(Time::MIN);
        (alert.text("customer_id"), since)
    };
    let silences: Arc<[_]> = alerts.iter().map(silence).collect();
    shared.ask(move |workers| workers.know(&silences)).await
}

impl AlertQuery {
    fn check(&self, spec: &Spec) -> Result<(), String> {
        if let Some(kind) = self.r#type.as_deref().filter(|kind| !TYPES.contains(kind)) {
            return Err(format!("type {kind:?} does not exist; write one of {}", TYPES.join(", ")));
        }
        let mut rules = spec.inactivity.rules.iter().map(|rule| rule.name.as_str());
        match self.rule.as_deref() {
            Some(wanted) if !rules.clone().any(|rule| rule == wanted) => {
                let names: Vec<_> = rules.by_ref().collect();
                Err(format!("rule {wanted:?} is not configured; there are: {}", names.join(", ")))
            }
            _ => Ok(()),
        }
    }

    fn before(&self) -> Result<Option<u64>, String> {
        let parse = |text: &String| {
            text.parse().map_err(|_| "the cursor cannot be read; pass on next_cursor as it is".to_owned())
        };
        self.cursor.as_ref().map(parse).transpose()
    }

    fn wants(&self, alert: &AlertEntry) -> bool {
        self.rule.as_ref().is_none_or(|rule| alert.text("rule") == *rule)
            && self.r#type.as_ref().is_none_or(|kind| alert.r#type == kind)
    }
}
