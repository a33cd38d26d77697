//! `retentiond demo`: an embedded Kafka, a simulated shop in fast time, and the daemon that reads it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::mocking::MockCluster;
use tokio::sync::watch;

use crate::config::Settings;
use crate::daemon::Daemon;
use crate::engine::WindowParts;
use crate::engine::inactivity::release::{GroupParts, RuleParts};
use crate::engine::zone;
use crate::event::{DAY, Time, decimal_text};
use crate::http::{Access, BindError};
use crate::shop::publisher::Publisher;
use crate::shop::{Buying, Crisis, Shop, ShopSettings};
use crate::status::SourceStatus;
use crate::worker::pool::{Wanted, Workers};

const PARTITIONS: i32 = 4;
/// Days of history when the page opens.
const HISTORY_DAYS: i64 = 400;
/// A month of shop time passes in a minute.
const SHOP_DAYS_PER_SECOND: f64 = 0.5;
/// Days after the history at which many customers leave at once.
const CRISIS_AFTER_DAYS: i64 = 12;
/// Maximum number of unread messages: the embedded Kafka drops old ones.
const UNDER_WAY: i64 = 20_000;
const STEP: Duration = Duration::from_millis(5);
const PRINT_EVERY: Duration = Duration::from_secs(2);

/// Try it: an embedded Kafka, a simulated shop in which a month passes in a minute, and the daemon with its page and
/// metrics. Nothing to install. Stop it with Ctrl-C.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Where to serve the page and the metrics.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9736")]
    listen: SocketAddr,
    /// Stop after this many seconds.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// The seed of every random draw.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// A short active_for, so that a spike shows within two minutes; everything else has its default.
const CONFIG: &str = r#"
[kafka]
group_id = "retentiond-demo"
instance_id = "demo"
delivery = "at_least_once"
[sources.orders]
topic = "orders"
[sources.sessions]
topic = "sessions"
clock = false
[customers]
dimensions = ["channel", "country"]
active_for = "30d"
max_future = "36500d"
[[windows]]
name = "7d"
period = "7d"
active_for = "30d"
[[windows]]
name = "30d"
period = "30d"
active_for = "30d"
[[windows]]
name = "90d"
period = "90d"
[[windows]]
name = "365d"
period = "365d"
[[inactivity]]
name = "lapsing"
after = "21d"
min_orders = 2
[[inactivity]]
name = "off_pace"
cadence = 3.0
min = "7d"
max = "60d"
[alerts]
backfill = true
holdout = 0.1
[time]
history_whole = true
[currency]
reporting = "EUR"
[checkpoint]
interval = "1s"
keep = "10s"
"#;

/// Exchange rates of the shop's currencies to the reporting currency.
const RATES: &str = "\
date,currency,rate
1970-01-01,CHF,1.05
1970-01-01,DKK,0.134
1970-01-01,GBP,1.18
1970-01-01,JPY,0.00625
1970-01-01,KWD,3.03
1970-01-01,NOK,0.087
1970-01-01,PLN,0.233
1970-01-01,SEK,0.091
1970-01-01,USD,0.91
";

impl Demo {
    pub(super) fn run(self) -> Result<()> {
        let cluster = MockCluster::new(1).context("cannot start the embedded Kafka")?;
        for topic in ["orders", "sessions", "retention-dead-letters", "retention-alerts"] {
            cluster.create_topic(topic, PARTITIONS, 1).context("cannot create the topics of the embedded Kafka")?;
        }
        let brokers = cluster.bootstrap_servers();
        let directory = std::env::temp_dir().join(format!("retentiond-demo-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let settings = settings(&directory, &brokers, self.listen)?;
        let shop_settings = shop(self.seed);
        let runtime = super::runtime()?;
        let outcome = runtime.block_on(async {
            let daemon = Daemon::start(settings, Access::Everybody).await;
            let daemon = daemon.map_err(|error| match error.downcast_ref::<BindError>() {
                Some(bind) => anyhow::Error::msg(bind.with_option("--listen")),
                None => error,
            })?;
            let (stop_shop, shop_stops) = mpsc::channel::<()>();
            let publisher = Publisher::new(&brokers, "orders", "sessions", std::iter::empty())?;
            let status = daemon.status();
            let shop = std::thread::Builder::new()
                .name("shop".into())
                .spawn(move || publish(shop_settings, &publisher, &status, &shop_stops))?;
            greet(daemon.address());
            let printer = tokio::spawn(print_figures(daemon.workers()));
            let ran = daemon.run_until(self.until()).await;
            printer.abort();
            drop(stop_shop);
            ran.and(shop.join().unwrap_or(Ok(())))
        });
        runtime.shutdown_background();
        _ = std::fs::remove_dir_all(&directory);
        outcome
    }

    async fn until(&self) {
        match self.seconds {
            None => super::stop_requested().await,
            Some(seconds) => {
                tokio::select! {
                    () = super::stop_requested() => {}
                    () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
                }
            }
        }
    }
}

fn settings(directory: &Path, brokers: &str, listen: SocketAddr) -> Result<Settings> {
    let (file, rates) = (directory.join("demo.toml"), directory.join("rates.csv"));
    std::fs::write(&file, CONFIG)?;
    std::fs::write(&rates, RATES)?;
    let environment = [
        ("RETENTIOND__CURRENCY__RATES_FILE".to_owned(), rates.display().to_string()),
        ("RETENTIOND__CHECKPOINT__URL".to_owned(), format!("file://{}", directory.join("state").display())),
        ("RETENTIOND__KAFKA__BROKERS".to_owned(), brokers.to_owned()),
        ("RETENTIOND__HTTP__LISTEN".to_owned(), listen.to_string()),
    ];
    let settings = Settings::load(Some(&file), environment.into_iter());
    Ok(settings?)
}

/// A shop for everyday needs: with weekly orders and few who leave, a tenth of the customers is lost in a usual month
/// with the short active_for. In the default shop half would be, which would hide any increase.
fn shop(seed: u64) -> ShopSettings {
    let defaults = ShopSettings::default();
    let crisis = defaults.start.plus((HISTORY_DAYS + CRISIS_AFTER_DAYS) * DAY);
    let buying = Buying {
        days_between_orders: 8.0,
        rate_shape: 5.0,
        dropout_alpha: 1.5,
        dropout_beta: 90.0,
        ..Buying::default()
    };
    ShopSettings {
        seed,
        customers_per_day: 8.0,
        initial_customers: 1_000,
        buying,
        crises: vec![Crisis { at: crisis, share: 0.35, channel: None }],
        ..defaults
    }
}

/// Publishes the history as fast as it is read, then at the rate of the demo, until asked to stop.
fn publish(
    settings: ShopSettings,
    publisher: &Publisher,
    status: &watch::Receiver<SourceStatus>,
    stop: &mpsc::Receiver<()>,
) -> Result<()> {
    let live = settings.start.plus(HISTORY_DAYS * DAY);
    let mut live_since = None;
    for (sent, message) in (1_i64..).zip(Shop::new(settings)) {
        publisher.publish(&message)?;
        let shop_days = (message.emitted_at.millis() - live.millis()) as f64 / DAY as f64;
        let due = Duration::from_secs_f64(shop_days.max(0.0) / SHOP_DAYS_PER_SECOND);
        loop {
            let too_many = sent % 500 == 0 && sent - applied(&status.borrow()) > UNDER_WAY;
            let too_early = shop_days > 0.0 && live_since.get_or_insert_with(Instant::now).elapsed() < due;
            if !too_many && !too_early {
                break;
            }
            if !matches!(stop.recv_timeout(STEP), Err(mpsc::RecvTimeoutError::Timeout)) {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn applied(status: &SourceStatus) -> i64 {
    status.positions.values().filter_map(|position| position.applied).sum()
}

fn greet(address: SocketAddr) {
    super::print(&format!(
        "A shop opens. Its first {HISTORY_DAYS} days are read at once; then a month passes in a minute.\n\
         After about {} seconds many customers silently stop ordering; churn rises over the following simulated month.\n\n\
         \x20 page     http://{address}/\n\
         \x20 metrics  http://{address}/metrics\n\
         \x20 summary  http://{address}/api/v1/summary\n\n\
         shop day      active     new    lost  churn 7d  churn 30d  repeat 30d  orders 7d      revenue 7d  alerts  won back",
        (CRISIS_AFTER_DAYS as f64 / SHOP_DAYS_PER_SECOND) as i64
    ));
}

async fn print_figures(workers: Workers) {
    let mut ticks = tokio::time::interval(PRINT_EVERY);
    let mut last = None;
    loop {
        ticks.tick().await;
        let asked = workers.clone();
        let overview = tokio::task::spawn_blocking(move || asked.overview(Wanted::OpenAndPrevious)).await;
        let Ok(Ok(overview)) = overview else { return };
        let Some(snapshot) = overview.snapshot else { continue };
        let [Some(week), Some(month), ..] = snapshot.rolling.as_slice() else { continue };
        if last.replace(snapshot.at) != Some(snapshot.at) {
            super::print(&line(snapshot.at, week, month, &snapshot.inactivity));
        }
    }
}

fn line(at: Time, week: &WindowParts, month: &WindowParts, rules: &[RuleParts]) -> String {
    let treated = |count: fn(&GroupParts) -> u64| rules.iter().map(|rule| count(&rule.groups[0])).sum::<u64>();
    let percent = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{:.1} %", 100.0 * ratio));
    let revenue = week.money.iter().find(|(currency, _)| currency.is_reporting());
    let revenue = revenue.map_or_else(String::new, |(&currency, money)| {
        format!("{} {}", decimal_text(money.revenue, currency), currency.iso_code())
    });
    format!(
        "{}  {:>8}  {:>6}  {:>6}  {:>8}  {:>9}  {:>10}  {:>9}  {:>14}  {:>6}  {:>8}",
        zone::date(zone::Zone::utc().day(at)),
        week.parts.end,
        week.parts.new,
        week.parts.lost,
        percent(week.parts.churn_ratio()),
        percent(month.parts.churn_ratio()),
        percent(month.parts.repeat_ratio()),
        week.parts.orders,
        revenue,
        treated(|group| group.sent),
        treated(|group| group.won_back),
    )
}
