//! `retentiond simulate`: publishes a simulated shop's orders and sessions to Kafka.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tracing::info;

use crate::event::{DAY, Time, wall_clock};
use crate::shop::publisher::{Publisher, create_topics};
use crate::shop::{Crisis, Shop, ShopSettings};

/// How often the pace is checked.
const STEP: Duration = Duration::from_millis(20);
/// How often progress is logged.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Publish realistic orders and sessions: customers with individual rates who leave eventually, late and duplicate
/// messages, refunds, complaints, referrals. Equal arguments produce equal messages.
#[derive(Debug, clap::Args)]
pub struct Simulate {
    /// The brokers, `host:port`, separated by commas.
    #[arg(long, value_name = "B", default_value = "localhost:9092")]
    brokers: String,
    /// Messages per second; 0 for as fast as the brokers accept them.
    #[arg(long, value_name = "R", default_value_t = 1000.0)]
    rate: f64,
    /// Initial number of customers; a fortieth of that arrives every day.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    customers: u64,
    /// The seed of every random draw.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Days of shop time to simulate; the last one ends now.
    #[arg(long, value_name = "D", default_value_t = 400)]
    days: u16,
    /// When the shop opens, RFC 3339 [default: so that the last day ends now].
    #[arg(long, value_name = "TIME", value_parser = super::parse_time)]
    start: Option<Time>,
    /// No new customers after the first two weeks, and all who leave come back, so that their number stays constant.
    #[arg(long, conflicts_with = "slump")]
    steady: bool,
    /// The share of customers, from 0 to 1, who silently leave at the same time, so that churn rises.
    #[arg(long, value_name = "SHARE")]
    slump: Option<f64>,
    /// How many days before the end they leave.
    #[arg(long, value_name = "D", default_value_t = 30, requires = "slump")]
    slump_days: u16,
    /// The topic for orders and everything but sessions.
    #[arg(long, default_value = "orders")]
    orders: String,
    /// The topic for sessions.
    #[arg(long, default_value = "sessions")]
    sessions: String,
    /// Create missing topics with this number of partitions.
    #[arg(long, value_name = "N")]
    partitions: Option<i32>,
    /// A librdkafka option, such as security.protocol=ssl; may be given several times.
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = parse_option)]
    options: Vec<(String, String)>,
}

fn parse_option(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Simulate {
    pub(super) fn run(self) -> Result<()> {
        if !self.rate.is_finite() || self.rate < 0.0 {
            bail!("--rate is {}; write 0 or more messages a second", self.rate);
        }
        if self.slump.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            bail!("--slump is {}; write a share from 0 to 1", self.slump.unwrap_or_default());
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        if let Some(partitions) = self.partitions {
            let options = self.options.iter().cloned();
            runtime.block_on(create_topics(&self.brokers, &[&self.orders, &self.sessions], partitions, options))?;
        }
        let stop = stop_signal(&runtime);
        let start = self.start.unwrap_or_else(|| wall_clock().plus(-i64::from(self.days) * DAY));
        let end = start.plus(i64::from(self.days) * DAY);
        let shop = Shop::new(self.settings(start, end));
        let publisher = Publisher::new(&self.brokers, &self.orders, &self.sessions, self.options.iter().cloned())?;
        let sent = self.publish(shop, end, &publisher, &stop)?;
        publisher.flush().with_context(|| format!("{sent} message(s) were queued"))?;
        info!(messages = sent, shop_time = %end, "simulation finished");
        Ok(())
    }

    fn settings(&self, start: Time, end: Time) -> ShopSettings {
        let settings = ShopSettings {
            seed: self.seed,
            start,
            initial_customers: self.customers,
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            customers_per_day: self.customers as f64 / 40.0,
            crises: self.crises(end),
            ..ShopSettings::default()
        };
        if self.steady { settings.steady() } else { settings }
    }

    fn crises(&self, end: Time) -> Vec<Crisis> {
        let at = end.plus(-i64::from(self.slump_days) * DAY);
        self.slump.map(|share| Crisis { at, share, channel: None }).into_iter().collect()
    }

    fn publish(&self, shop: Shop, end: Time, publisher: &Publisher, stop: &mpsc::Receiver<()>) -> Result<u64> {
        let began = Instant::now();
        let (mut sent, mut reported) = (0_u64, began);
        for message in shop.take_while(|message| message.emitted_at < end) {
            publisher.publish(&message)?;
            sent += 1;
            if sent.is_multiple_of(256) && reported.elapsed() > REPORT_EVERY {
                info!(messages = sent, shop_time = %message.emitted_at, "publishing");
                reported = Instant::now();
            }
            // No wait while behind the target rate, to catch up after a slow broker.
            while self.rate > 0.0 && sent as f64 > began.elapsed().as_secs_f64() * self.rate {
                if stop.recv_timeout(STEP).is_ok() {
                    return Ok(sent);
                }
            }
            if self.rate == 0.0 && stop.try_recv().is_ok() {
                return Ok(sent);
            }
        }
        Ok(sent)
    }
}

/// Sets a flag when the program is asked to stop.
fn stop_signal(runtime: &tokio::runtime::Runtime) -> mpsc::Receiver<()> {
    let (tell, told) = mpsc::sync_channel(1);
    runtime.spawn(async move {
        super::stop_requested().await;
        _ = tell.send(());
    });
    told
}
