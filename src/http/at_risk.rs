//! `/api/v1/at-risk`: the customers who fall silent, the most important first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::limit::TooMany;
use super::routes::{Failure, Shared, bad_question};
use crate::engine::at_risk::{AtRisk, AtRiskQuestion, Order};
use crate::event::Currency;
use crate::output::summary::AtRiskSummary;
use crate::worker::pool::{Cursor, Workers};

/// How many are listed at most, and unless told otherwise.
const MOST: usize = 1_000;
const USUAL: usize = 100;
/// The orders that can be asked for.
const SORTS: [&str; 5] = ["value", "orders", "last_order", "at_risk_since", "lapses_at"];

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AtRiskQuery {
    limit: Option<usize>,
    sort: Option<String>,
    currency: Option<String>,
}

pub(super) async fn at_risk(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: Result<Query<AtRiskQuery>, QueryRejection>,
) -> Response {
    if let Err(refused) = shared.admit(&headers) {
        return refused.into_response();
    }
    // One scan at a time: a second one would only make both slower.
    let Ok(_only) = shared.scanning.try_lock() else {
        let busy = TooMany { after: Duration::from_secs(1), error: "the list is being made for somebody else" };
        return busy.into_response();
    };
    match answer(&shared, query).await {
        Ok(summary) => ([(CACHE_CONTROL, "no-store")], Json(summary)).into_response(),
        Err(failure) => failure.into_response(),
    }
}

async fn answer(shared: &Shared, query: Result<Query<AtRiskQuery>, QueryRejection>) -> Result<AtRiskSummary, Failure> {
    let Query(query) = query
        .map_err(|error| bad_question(format!("{}; write ?limit=100&sort=value&currency=EUR", error.body_text())))?;
    let limit = query.limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        return Err(bad_question(format!("limit {limit} is not from 1 to {MOST}")));
    }
    let known = shared.ask(Workers::currencies).await?;
    let (sort, order) = query.order(&known).map_err(bad_question)?;
    let currency = match order {
        Some(Order::Value(currency)) => Some(currency),
        _ => None,
    };
    let now = shared.ask(Workers::status).await?.now();
    let found = match (now, order) {
        (Some(at), Some(order)) => scan(shared, AtRiskQuestion { at, order, limit, least: None }).await?,
        _ => AtRisk::default(),
    };
    Ok(AtRiskSummary::new(&shared.spec, &shared.background, now, (sort, currency), found))
}

/// Reads slice by slice, and lets whoever waits in between have their turn.
async fn scan(shared: &Shared, question: AtRiskQuestion) -> Result<AtRisk, Failure> {
    let mut all = AtRisk::default();
    let mut cursor = Some(Cursor::START);
    while let Some(from) = cursor {
        let question = AtRiskQuestion { least: all.least(question.limit), ..question };
        let (found, next) = shared.ask(move |workers| workers.at_risk(question, from)).await?;
        all.add(found, question.limit);
        cursor = next;
    }
    Ok(all)
}

impl AtRiskQuery {
    /// The order that is asked for; without a currency that of the reporting currency, or of the only one. There is none
    /// before anything was paid.
    fn order(&self, known: &BTreeSet<Currency>) -> Result<(&'static str, Option<Order>), String> {
        let sort = self.sort.as_deref().unwrap_or("value");
        let order = match sort {
            "value" => return Ok(("value", self.currency(known)?.map(Order::Value))),
            "orders" => ("orders", Order::Orders),
            "last_order" => ("last_order", Order::LastOrder),
            "at_risk_since" => ("at_risk_since", Order::AtRiskSince),
            "lapses_at" => ("lapses_at", Order::LapsesAt),
            other => return Err(format!("sort {other:?} is none; write one of {}", SORTS.join(", "))),
        };
        match &self.currency {
            Some(_) => Err(format!("currency belongs to sort=value, not to sort={sort}; remove it")),
            None => Ok((order.0, Some(order.1))),
        }
    }

    fn currency(&self, known: &BTreeSet<Currency>) -> Result<Option<Currency>, String> {
        let codes = || known.iter().map(|currency| currency.code()).collect::<Vec<_>>().join(", ");
        if let Some(code) = &self.currency {
            let found = known.iter().find(|currency| currency.code() == code);
            return found
                .copied()
                .map(Some)
                .ok_or_else(|| format!("nothing was paid in {code:?}; there are: {}", codes()));
        }
        let mut all = known.iter().copied();
        match (known.iter().find(|currency| currency.is_reporting()), all.next(), all.next()) {
            (Some(reporting), ..) => Ok(Some(*reporting)),
            (None, one, None) => Ok(one),
            (None, ..) => Err(format!(
                "amounts of several currencies cannot be compared; write &currency= and one of {}, configure a reporting \
                 currency, or choose another sort",
                codes()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(sort: Option<&str>, currency: Option<&str>, known: &[&str]) -> Result<Option<Order>, String> {
        let query = AtRiskQuery { limit: None, sort: sort.map(str::to_owned), currency: currency.map(str::to_owned) };
        let known = known.iter().map(|code| Currency::from_code(code).unwrap()).collect();
        query.order(&known).map(|(_, order)| order)
    }

    #[test]
    fn several_currencies_are_not_compared_unless_one_is_chosen() {
        let eur = Currency::from_code("EUR").unwrap();
        assert_eq!(order(None, None, &[]), Ok(None));
        assert_eq!(order(None, None, &["EUR"]), Ok(Some(Order::Value(eur))));
        assert_eq!(order(Some("value"), Some("EUR"), &["NOK", "EUR"]), Ok(Some(Order::Value(eur))));
        let text = order(None, None, &["NOK", "EUR"]).unwrap_err();
        assert!(text.contains("EUR, NOK"), "{text}");
        let text = order(None, Some("USD"), &["NOK"]).unwrap_err();
        assert!(text.contains("USD") && text.contains("NOK"), "{text}");
        let both = [eur, eur.as_reporting()].into_iter().collect();
        let query = AtRiskQuery { limit: None, sort: None, currency: None };
        assert_eq!(query.order(&both), Ok(("value", Some(Order::Value(eur.as_reporting())))));
        assert_eq!(order(Some("orders"), None, &["NOK", "EUR"]), Ok(Some(Order::Orders)));
        assert!(order(Some("orders"), Some("EUR"), &["EUR"]).is_err());
        let text = order(Some("size"), None, &["EUR"]).unwrap_err();
        assert!(SORTS.iter().all(|sort| text.contains(sort)), "{text}");
    }
}
