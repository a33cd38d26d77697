//! The lists of customers and of alerts, over HTTP.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::{Answer, Server, start_with};
use crate::engine::inactivity::release::{Alert, AlertKind};
use crate::event::{Currency, Money, Time};
use crate::http::Access;
use crate::output::alerts::json as json_of;
use crate::output::metrics::fixture::{self, Lines};

#[test]
fn customers_at_risk_are_listed_only_with_the_token() {
    let server = start_with(Access::with_token(Some("hunter2")));
    let get = |query: &str| server.get_with(&format!("/api/v1/at-risk{query}"), "Bearer hunter2");
    let nobody = get("").json();
    assert_eq!(
        (&nobody["as_of"], &nobody["total_at_risk"], &nobody["customers"]),
        (&Value::Null, &json!(0), &json!([]))
    );
    server.fill();
    let later = Lines(vec![fixture::order(8, "eve", "2026-06-20T00:00:00Z", "5.00", "EUR")]);
    server.pool.records(fixture::ORDERS, later, Time::MAX, Instant::now()).unwrap();
    let list = get("?sort=value&currency=JPY&limit=10").json();
    assert_eq!((&list["sort"], &list["currency"]), (&json!("value"), &json!("JPY")));
    // Two orders, the last on 2 May at noon: at risk after 45 days, lapsed after 90.
    let [cora] = list["customers"].as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!((&cora["customer_id"], &cora["stage"], &cora["orders"]), (&json!("cora"), &json!("repeat"), &json!(2)));
    assert_eq!(
        (&cora["first_order"], &cora["last_order"]),
        (&json!("2026-05-01T00:00:00.000Z"), &json!("2026-05-02T12:00:00.000Z"))
    );
    assert_eq!(
        (&cora["at_risk_since"], &cora["lapses_at"]),
        (&json!("2026-06-16T12:00:00.000Z"), &json!("2026-07-31T12:00:00.000Z"))
    );
    assert_eq!((&cora["complained"], &cora["currencies"]["JPY"]["net_revenue"]), (&json!(false), &json!("1500")));
    assert_eq!((&list["total_at_risk"], &list["revenue_at_risk"]), (&json!(1), &json!({"JPY": "1500"})));
    for (query, mistake) in [
        ("?limit=0", "from 1 to 10000"),
        ("?limit=10001", "from 1 to 10000"),
        ("?format=xml", "write json or csv"),
        ("?cursor=nonsense", "pass on next_cursor"),
        ("?limit=many", "write ?limit=100"),
        ("?order=value", "write ?limit=100"),
        ("", "several currencies"),
        ("?currency=USD", "nothing was paid in"),
        ("?sort=size", "write one of value"),
    ] {
        let answer = get(query);
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.json()["error"].as_str().unwrap().contains(mistake), "{query}: {}", answer.body);
    }
    let csv = get("?sort=orders&format=csv");
    assert_eq!(csv.content_type, "text/csv; charset=utf-8");
    assert_eq!(
        csv.body,
        "customer_id,stage,orders,first_order,last_order,at_risk_since,lapses_at,complained,segment_channel,\
         net_revenue_EUR,clv_EUR,net_revenue_JPY,clv_JPY\n\
         cora,repeat,2,2026-05-01T00:00:00.000Z,2026-05-02T12:00:00.000Z,2026-06-16T12:00:00.000Z,\
         2026-07-31T12:00:00.000Z,false,unknown,,,1500,6.1643835616\n"
    );
    for path in ["at-risk", "lapsed", "alerts"] {
        assert_eq!(server.get(&format!("/api/v1/{path}")).status, 401, "{path}");
    }
    server.stop();
}

/// All pages of a list, found by the `Link` header or by the cursor in the body.
fn pages(server: &Server, path: &str) -> Vec<Answer> {
    let (list, _) = path.split_once('?').unwrap();
    let mut pages = vec![server.get(path)];
    while let Some(next) = pages.last().unwrap().next.clone() {
        assert!(pages.len() < 20, "{path} does not end");
        pages.push(server.get(&format!("{list}{next}")));
    }
    pages
}

#[test]
fn lists_are_paged_through_at_the_instant_of_the_first_page() {
    let server = start_with(Access::Everybody);
    server.fill();
    let order = |id: u32, customer: &str, day: u32| {
        fixture::order(id, customer, &format!("2026-06-{day:02}T00:00:00Z"), "5.00", "EUR")
    };
    let send = |orders: Vec<String>| {
        server.pool.records(fixture::ORDERS, Lines(orders), Time::MAX, Instant::now()).unwrap();
    };
    send((1..=7).map(|n| order(100 + n, &format!("c-{n}"), n)).collect());
    send(vec![fixture::order(200, "eve", "2026-09-20T00:00:00Z", "5.00", "EUR")]);
    let ids = |answer: &Answer| -> Vec<String> {
        let list = answer.json()["customers"].as_array().unwrap().clone();
        list.iter().map(|one| one["customer_id"].as_str().unwrap().to_owned()).collect()
    };
    // Customers lapse 90 days after their order in June, so all have by 20 September.
    let all = server.get("/api/v1/lapsed?sort=lapsed_at");
    assert_eq!(ids(&all)[..7], ["c-7", "c-6", "c-5", "c-4", "c-3", "c-2", "c-1"]);
    let body = all.json();
    let total = body["total_lapsed"].as_u64().unwrap();
    assert_eq!((total, &body["next_cursor"]), (ids(&all).len() as u64, &Value::Null));
    assert_eq!(body["customers"][0]["lapsed_at"], "2026-09-05T00:00:00.000Z");
    assert!(body["customers"][0].get("lapses_at").is_none() && body.get("total_at_risk").is_none());
    for sort in ["lapsed_at", "orders", "last_order", "value&currency=EUR"] {
        let whole = ids(&server.get(&format!("/api/v1/lapsed?sort={sort}")));
        let paged = pages(&server, &format!("/api/v1/lapsed?limit=3&sort={sort}"));
        assert_eq!(paged.iter().flat_map(ids).collect::<Vec<_>>(), whole, "{sort}");
        assert!(paged.iter().all(|page| page.json()["total_lapsed"] == total));
    }
    let csv: Vec<_> = pages(&server, "/api/v1/lapsed?limit=3&sort=orders&format=csv");
    let headers: Vec<_> = csv.iter().map(|page| page.body.lines().next().unwrap()).collect();
    assert!(headers.len() > 2 && headers.iter().all(|header| *header == headers[0]), "{headers:?}");
    assert_eq!(csv.iter().map(|page| page.body.lines().count() as u64 - 1).sum::<u64>(), total);

    // A customer who orders between two pages is no longer lapsed; all others keep their places.
    let first = server.get("/api/v1/lapsed?limit=3&sort=lapsed_at");
    let as_of = first.json()["as_of"].clone();
    send(vec![fixture::order(201, "c-3", "2026-09-25T00:00:00Z", "5.00", "EUR")]);
    let next = server.get(&format!("/api/v1/lapsed{}", first.next.unwrap()));
    assert_eq!(
        (ids(&next)[..3].to_vec(), next.json()["as_of"].clone()),
        (vec!["c-4".into(), "c-2".into(), "c-1".into()], as_of)
    );
    let cursor = next.json()["next_cursor"].as_str().map(str::to_owned);
    if let Some(cursor) = cursor {
        assert_eq!(server.get(&format!("/api/v1/at-risk?cursor={cursor}")).status, 400, "of the other list");
    }
    server.stop();
}

#[test]
fn alerts_that_were_sent_are_listed_the_newest_first() {
    let server = start_with(Access::Everybody);
    server.fill();
    let sent = Arc::clone(&server.source.borrow().sent);
    let none = server.get("/api/v1/alerts").json();
    assert_eq!((&none["alerts"], &none["withheld"], &none["next_cursor"]), (&json!([]), &json!(0), &Value::Null));
    let alert = |customer: &str, silent_since: &str, what: AlertKind| Alert {
        customer: customer.into(),
        rule: "lapsing".into(),
        silent_since: Time::parse(silent_since).unwrap(),
        due_at: Time::parse("2026-06-09T00:00:00Z").unwrap(),
        what,
    };
    let eur = Money { minor: 8_050, currency: Currency::from_code("EUR").unwrap() };
    let inactive =
        || AlertKind::Inactive { orders: 3, stage: "repeat", status: "at_risk", complained: false, revenue: vec![eur] };
    let back = AlertKind::WonBack { ordered_at: Time::parse("2026-06-12T00:00:00Z").unwrap(), amount: eur };
    let messages = [
        alert("anna", "2026-04-25T00:00:00Z", inactive()),
        // She has no record, and the other's record begins after the silence: both were erased.
        alert("gone", "2026-04-25T00:00:00Z", inactive()),
        alert("cora", "2020-01-01T00:00:00Z", inactive()),
        alert("anna", "2026-04-25T00:00:00Z", back),
    ];
    sent.add(Time::clamped(1_000), messages.iter().map(|alert| json_of(alert, "/retentiond/test")));
    let list = server.get("/api/v1/alerts").json();
    let [won_back, fell_silent] = list["alerts"].as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!((&won_back["type"], &won_back["ordered_at"]), (&json!("winback"), &json!("2026-06-12T00:00:00.000Z")));
    assert_eq!((&fell_silent["type"], &fell_silent["customer_id"]), (&json!("inactive"), &json!("anna")));
    assert_eq!((&fell_silent["revenue"], &fell_silent["risk"]), (&json!({"EUR": "80.50"}), &json!("medium")));
    assert_eq!((&fell_silent["sent_at"], &list["withheld"]), (&json!("1970-01-01T00:00:01.000Z"), &json!(2)));
    let page = pages(&server, "/api/v1/alerts?limit=1&rule=lapsing");
    let counts: Vec<_> = page.iter().map(|page| page.json()["alerts"].as_array().unwrap().len()).collect();
    assert_eq!(counts, [1, 0, 0, 1], "a page of withheld ones is empty and not the last");
    let csv = server.get("/api/v1/alerts?type=inactive&format=csv");
    let lines: Vec<_> = csv.body.lines().collect();
    assert!(lines[0].starts_with("sent_at,type,id,customer_id,rule,silent_since,"), "{lines:?}");
    assert!(
        lines[1].starts_with("1970-01-01T00:00:01.000Z,inactive,") && lines[1].ends_with(",false,medium,80.50 EUR"),
        "{lines:?}"
    );
    for (query, mistake) in
        [("type=lost", "write one of inactive, winback"), ("rule=x", "there are: lapsing"), ("cursor=x", "cursor")]
    {
        let answer = server.get(&format!("/api/v1/alerts?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.json()["error"].as_str().unwrap().contains(mistake), "{}", answer.body);
    }
    server.stop();
}
