//! `/api/v1/at-risk` and `/api/v1/lapsed`: at-risk and lapsed customers, most important first, in pages, as JSON or
//! CSV.

mod cursor;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use self::cursor::PageCursor;
use super::limit::TooMany;
use super::paging::{self, Format, page_size};
use super::routes::{Failure, Shared, bad_question};
use crate::engine::lifecycle::Status;
use crate::engine::listing::{ListQuestion, Listing, Order};
use crate::event::Currency;
use crate::output::summary::CustomerList;
use crate::worker::pool::{Cursor, Workers};

/// An example query for error messages.
const EXAMPLE: &str = "write ?limit=100&sort=value&currency=EUR";

/// The query.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<usize>,
    sort: Option<String>,
    currency: Option<String>,
    cursor: Option<String>,
    format: Option<String>,
}

pub(super) async fn at_risk(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Response {
    list(&shared, &headers, query, Status::AtRisk).await
}

pub(super) async fn lapsed(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Response {
    list(&shared, &headers, query, Status::Lapsed).await
}

async fn list(
    shared: &Shared,
    headers: &HeaderMap,
    query: Result<Query<ListQuery>, QueryRejection>,
    status: Status,
) -> Response {
    if let Err(refused) = shared.admit(headers) {
        return refused.into_response();
    }
    // One scan at a time: a second one would only slow down both.
    let Ok(_only) = shared.scanning.try_lock() else {
        let busy = TooMany { after: Duration::from_secs(1), error: "another list of customers is being made" };
        return busy.into_response();
    };
    match answer(shared, query, status).await {
        Ok(answer) => answer,
        Err(failure) => failure.into_response(),
    }
}

async fn answer(
    shared: &Shared,
    query: Result<Query<ListQuery>, QueryRejection>,
    status: Status,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|error| bad_question(format!("{}; {EXAMPLE}", error.body_text())))?;
    let limit = page_size(query.limit).map_err(bad_question)?;
    let format = Format::parse(query.format.as_deref()).map_err(bad_question)?;
    let known = shared.ask(Workers::currencies).await?;
    let begin = query.begin(status).map_err(bad_question)?;
    let (sort, order) = query.order(status, begin.as_ref(), &known).map_err(bad_question)?;
    let currency = match order {
        Some(Order::Value(currency)) => Some(currency),
        _ => None,
    };
    // All pages use the instant of the first one; otherwise customers would move between pages.
    let now = match &begin {
        Some(cursor) => Some(cursor.at),
        None => shared.ask(Workers::status).await?.now(),
    };
    let (mut found, mut next) = (Listing::default(), None);
    if let (Some(at), Some(order)) = (now, order) {
        let after = begin.map(|cursor| Arc::new(cursor.after));
        // Read one more to know whether there is another page.
        found = scan(shared, ListQuestion { at, status, order, limit: limit + 1, least: None, after }).await?;
        if found.first.len() > limit {
            found.first.truncate(limit);
            let last = found.first.last().map(|last| last.place.clone());
            next = last.map(|after| PageCursor { status, sort: sort.to_owned(), currency, at, after }.to_text());
        }
    }
    let list = CustomerList::new(&shared.spec, &shared.background, now, (status, sort, currency), found, next);
    let name = if status == Status::Lapsed { "lapsed" } else { "at-risk" };
    let response = match format {
        Format::Json => Json(&list).into_response(),
        Format::Csv => paging::csv(list.csv(&shared.spec, &known), name)?,
    };
    // The cursor contains sort and currency.
    let limit = limit.to_string();
    let query = [("limit", limit.as_str()), ("format", if format == Format::Csv { "csv" } else { "json" })];
    Ok(paging::with_next(response, list.next_cursor.as_deref(), &query))
}

/// Scans in slices, so that other requests can run in between.
async fn scan(shared: &Shared, question: ListQuestion) -> Result<Listing, Failure> {
    let mut all = Listing::default();
    let mut cursor = Some(Cursor::START);
    while let Some(from) = cursor {
        let question = ListQuestion { least: all.least(question.limit), ..question.clone() };
        let limit = question.limit;
        let (found, next) = shared.ask(move |workers| workers.listing(question, from)).await?;
        all.add(found, limit);
        cursor = next;
    }
    Ok(all)
}

/// The names of the sort orders.
fn sorts(status: Status) -> &'static [(&'static str, Option<Order>)] {
    match status {
        Status::Lapsed => &[
            ("value", None),
            ("orders", Some(Order::Orders)),
            ("last_order", Some(Order::LastOrder)),
            ("lapsed_at", Some(Order::LapsedAt)),
        ],
        _ => &[
            ("value", None),
            ("orders", Some(Order::Orders)),
            ("last_order", Some(Order::LastOrder)),
            ("at_risk_since", Some(Order::AtRiskSince)),
            ("lapses_at", Some(Order::LapsesAt)),
        ],
    }
}

impl ListQuery {
    /// The start of the page, unless it is the first one.
    fn begin(&self, status: Status) -> Result<Option<PageCursor>, String> {
        let Some(text) = &self.cursor else { return Ok(None) };
        let cursor = PageCursor::parse(text)
            .ok_or("the cursor cannot be read; pass on next_cursor of the page before as it is")?;
        if cursor.status != status {
            return Err("the cursor belongs to the other list; ask for its first page without a cursor".to_owned());
        }
        if self.sort.as_ref().is_some_and(|sort| *sort != cursor.sort) {
            return Err(format!("the cursor belongs to sort={}; ask for the first page without a cursor", cursor.sort));
        }
        let code = cursor.currency.map(|currency| currency.code());
        if self.currency.is_some() && self.currency.as_deref() != code {
            return Err("the cursor belongs to another currency; ask for the first page without a cursor".to_owned());
        }
        Ok(Some(cursor))
    }

    /// The requested sort order, or that of the cursor. The currency defaults to the reporting currency or to the only
    /// one; there is none before the first payment.
    fn order(
        &self,
        status: Status,
        begin: Option<&PageCursor>,
        known: &BTreeSet<Currency>,
    ) -> Result<(&'static str, Option<Order>), String> {
        let wanted = begin.map(|cursor| cursor.sort.as_str()).or(self.sort.as_deref()).unwrap_or("value");
        let sorts = sorts(status);
        let Some(&(sort, order)) = sorts.iter().find(|(name, _)| *name == wanted) else {
            let names: Vec<_> = sorts.iter().map(|(name, _)| *name).collect();
            return Err(format!("sort {wanted:?} does not exist; write one of {}", names.join(", ")));
        };
        if let Some(order) = order {
            return match &self.currency {
                Some(_) => Err(format!("currency belongs to sort=value, not to sort={sort}; remove it")),
                None => Ok((sort, Some(order))),
            };
        }
        let code = begin.and_then(|cursor| cursor.currency).map(|currency| currency.code().to_owned());
        let currency = currency(code.as_deref().or(self.currency.as_deref()), known)?;
        Ok((sort, currency.map(Order::Value)))
    }
}

/// The currency in which values are compared.
fn currency(wanted: Option<&str>, known: &BTreeSet<Currency>) -> Result<Option<Currency>, String> {
    let codes = || known.iter().map(|currency| currency.code()).collect::<Vec<_>>().join(", ");
    if let Some(code) = wanted {
        let found = known.iter().find(|currency| currency.code() == code);
        return found.copied().map(Some).ok_or_else(|| format!("nothing was paid in {code:?}; there are: {}", codes()));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::listing::ListPosition;
    use crate::event::Time;

    fn query(sort: Option<&str>, currency: Option<&str>) -> ListQuery {
        ListQuery { sort: sort.map(str::to_owned), currency: currency.map(str::to_owned), ..ListQuery::default() }
    }

    fn order(sort: Option<&str>, currency: Option<&str>, known: &[&str]) -> Result<Option<Order>, String> {
        let known = known.iter().map(|code| Currency::from_code(code).unwrap()).collect();
        query(sort, currency).order(Status::AtRisk, None, &known).map(|(_, order)| order)
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
        let by_value = query(None, None).order(Status::AtRisk, None, &both);
        assert_eq!(by_value, Ok(("value", Some(Order::Value(eur.as_reporting())))));
        assert_eq!(order(Some("orders"), None, &["NOK", "EUR"]), Ok(Some(Order::Orders)));
        assert!(order(Some("orders"), Some("EUR"), &["EUR"]).is_err());
    }

    #[test]
    fn each_list_names_the_orders_that_it_can_be_in() {
        for status in [Status::AtRisk, Status::Lapsed] {
            let text = query(Some("size"), None).order(status, None, &BTreeSet::new()).unwrap_err();
            assert!(sorts(status).iter().all(|(sort, _)| text.contains(sort)), "{text}");
            for (sort, _) in sorts(status) {
                assert_eq!(query(Some(sort), None).order(status, None, &BTreeSet::new()).unwrap().0, *sort);
            }
        }
        let lapses = |status| query(Some("lapses_at"), None).order(status, None, &BTreeSet::new());
        assert!(lapses(Status::AtRisk).is_ok() && lapses(Status::Lapsed).is_err());
    }

    #[test]
    fn a_cursor_goes_on_with_its_own_list_and_no_other() {
        let eur = Currency::from_code("EUR").unwrap();
        let after = ListPosition { rank: 8_050, id: "c-1".to_owned() };
        let cursor =
            PageCursor { status: Status::AtRisk, sort: "value".into(), currency: Some(eur), at: Time::MIN, after };
        let text = cursor.to_text();
        let ask = |sort: Option<&str>, currency: Option<&str>, status| {
            ListQuery { cursor: Some(text.clone()), ..query(sort, currency) }.begin(status)
        };
        for (sort, currency) in [(None, None), (Some("value"), None), (Some("value"), Some("EUR"))] {
            assert_eq!(ask(sort, currency, Status::AtRisk), Ok(Some(cursor.clone())));
        }
        assert!(ask(None, None, Status::Lapsed).unwrap_err().contains("other list"));
        assert!(ask(Some("orders"), None, Status::AtRisk).unwrap_err().contains("sort=value"));
        assert!(ask(None, Some("NOK"), Status::AtRisk).unwrap_err().contains("another currency"));
        let known = [eur, Currency::from_code("NOK").unwrap()].into_iter().collect();
        let order = query(None, None).order(Status::AtRisk, Some(&cursor), &known);
        assert_eq!(order, Ok(("value", Some(Order::Value(eur)))), "the cursor's own currency");
        let other = ListQuery { cursor: Some("nonsense".to_owned()), ..ListQuery::default() };
        assert!(other.begin(Status::AtRisk).unwrap_err().contains("next_cursor"));
    }
}
