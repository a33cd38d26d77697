//! A shop on the daemon's HTTP server, without Kafka: two years of orders with attributes that contain markup.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use retentiond::bus::{Header, Partition, Record, RecordBatch, Stamp, TopicIndex, TopicPartition};
use retentiond::engine::Engine;
use retentiond::event::Time;
use retentiond::http::{self, Access, Service};
use retentiond::status::{PartitionState, SourceStatus};
use retentiond::wiring::worker_config;
use retentiond::worker::pool::Pool;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use crate::support::history::write;
use crate::support::log::settings;
use crate::support::scratch;

/// Values that would run, or look different, if the page interpreted them as markup.
pub const HOSTILE: [&str; 5] = [
    "<img src=x onerror=\"window.hacked=1\">",
    "\"><script>window.hacked=2</script>",
    "javascript:window.hacked=3",
    "&lt;b&gt;bold&lt;/b&gt;",
    "' onmouseover='window.hacked=4",
];

const DAY: i64 = 86_400_000;
/// 2024-01-01.
const BEGIN: i64 = 1_704_067_200_000;
const DAYS: i64 = 830;

/// The default windows.
pub const USUAL: &str =
    "[customers]\ndimensions = [\"channel\"]\n[time]\nzone = \"Europe/Oslo\"\nhistory_whole = true\n";

/// Sixteen windows with long names.
pub fn many_windows() -> String {
    let windows = (1..=16).map(|i| format!("[[windows]]\nname = \"an_unusually_long_name_{i}\"\nperiod = \"{i}d\"\n"));
    format!("{USUAL}{}", windows.collect::<String>())
}

struct Lines(Vec<String>);

impl RecordBatch for Lines {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, index: usize) -> Record<'_> {
        let offset = i64::try_from(index).expect("a short batch");
        Record { offset, key: None, payload: Some(self.0[index].as_bytes()) }
    }

    fn stamp(&self, _: usize) -> Stamp {
        Stamp { time: None, leader_epoch: None }
    }

    fn headers(&self, _: usize) -> Vec<Header<'_>> {
        Vec::new()
    }
}

/// The running server.
pub struct Shop {
    _runtime: Runtime,
    pub address: SocketAddr,
    pub source: watch::Sender<SourceStatus>,
    pool: Pool<Lines>,
    _stop: oneshot::Sender<()>,
}

impl Shop {
    /// A server with these settings and without events.
    pub fn open(toml: &str) -> Shop {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let dir = tempfile::tempdir_in(scratch()).unwrap();
        let settings = settings(Some(&write(dir.path(), "retentiond.toml", toml)));
        let config = Arc::new(worker_config::new(&settings));
        let (reports, _) = mpsc::channel();
        let pool = Pool::start(&config, 1, &reports).unwrap();
        let (source, status) = watch::channel(SourceStatus {
            joined: true,
            partition_counts: vec![Some(1)],
            owned: vec![Partition(0)],
            states: [(Partition(0), PartitionState::Running)].into(),
            last_poll: Some(Instant::now()),
            ..SourceStatus::default()
        });
        let service = Service {
            workers: pool.workers(),
            source: status,
            spec: Arc::clone(&config.spec),
            topics: vec!["orders".to_owned()],
            background: worker_config::background(&settings, None),
            access: Access::with_token(Some("open sesame")),
            partitioner: retentiond::bus::partitioner::Partitioner::Murmur2,
            replica: "replica-1".to_owned(),
            dashboards_url: Some("https://grafana.example.com/".to_owned()),
        };
        let listener = runtime.block_on(http::bind(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        runtime.spawn(http::serve(listener, service, async move { _ = stopped.await }));
        let engine = Box::new(Engine::new(Arc::clone(&config.spec)));
        pool.begin(Partition(0), engine, vec![0]).unwrap();
        Shop { _runtime: runtime, address, source, pool, _stop: stop }
    }

    /// More than two years of 240 customers, some of whom go silent, in two currencies.
    pub fn fill(&self) {
        let mut orders = Vec::new();
        for customer in 0..240_i64 {
            let (first, gap) = (customer * 3, 12 + customer % 37);
            let last = if customer % 4 == 0 { first + 9 * gap } else { DAYS };
            let days = (first..last.min(DAYS)).step_by(usize::try_from(gap).unwrap());
            orders.extend(days.enumerate().map(|(n, day)| (BEGIN + day * DAY + customer * 60_000, customer, n)));
        }
        orders.sort_unstable();
        let lines = orders.iter().map(|&(at, customer, n)| {
            let channel = HOSTILE[usize::try_from(customer).unwrap() % HOSTILE.len()];
            let currency = if customer % 5 == 0 { "USD" } else { "EUR" };
            json!({"type": "order", "order_id": format!("{customer}-{n}"), "customer_id": format!("c{customer}"), "time": at,
                "amount": format!("{}.{:02}", 20 + customer % 80, (customer * 7 + at / DAY) % 100), "currency": currency,
                "attributes": {"channel": channel}})
            .to_string()
        });
        let at = TopicPartition { topic: TopicIndex(0), partition: Partition(0) };
        self.pool.records(at, Lines(lines.collect()), Time::MAX, Instant::now()).unwrap();
        self.pool.wait_until_applied().unwrap();
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub fn get(&self, path: &str) -> Value {
        let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
        let mut answer = agent.get(self.url(path)).call().unwrap();
        let body = answer.body_mut().read_to_string().unwrap();
        serde_json::from_str(&body).unwrap()
    }
}
