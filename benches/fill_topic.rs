//! Fills a topic with orders, for `benches/pipeline` and similar scripts: `cargo bench --bench fill_topic -- BROKERS
//! TOPIC PARTITIONS ORDERS CUSTOMERS [CHANNELS [HISTORY ORDERS_PER_SECOND]]`. With a rate, HISTORY orders that span 405
//! days are sent at once and then ORDERS at that rate, whose event time advances with the clock. With `BROKERS TOPIC
//! lines` it sends the lines of its input as they arrive: key, tab, value.

#![allow(clippy::print_stdout, missing_docs, reason = "a helper of a script")]

mod support;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use retentiond::shop::publisher::create_topics;

use support::{MESSAGE_BYTES, Order, Orders};

const FLUSH_WAIT: Duration = Duration::from_secs(120);
/// Shortest pause of a paced stream.
const PAUSE: Duration = Duration::from_millis(2);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [brokers, topic, mode] = args.as_slice()
        && mode == "lines"
    {
        return send_lines(brokers, topic);
    }
    let [brokers, topic, partitions, orders, customers, further @ ..] = args.as_slice() else {
        bail!("usage: fill_topic BROKERS TOPIC PARTITIONS ORDERS CUSTOMERS [CHANNELS [HISTORY ORDERS_PER_SECOND]]");
    };
    let number = |text: &String| text.parse::<u64>().with_context(|| format!("{text:?} is no number"));
    let channels = further.first().map_or(Ok(4), number)?;
    let (orders, customers) = (number(orders)?, number(customers)?);
    let live = match further.get(1..) {
        Some([history, rate]) => Some((number(history)?, number(rate)?)),
        _ => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(create_topics(brokers, &[topic.as_str()], partitions.parse()?, std::iter::empty()))?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("linger.ms", if live.is_some() { "5" } else { "50" })
        .set("batch.size", "1000000")
        .set("compression.codec", "lz4")
        .set("queue.buffering.max.messages", "500000")
        .create()?;
    let mut json = String::with_capacity(MESSAGE_BYTES);
    let mut send_order = |order: Order| {
        order.write_json(&mut json);
        if json.len() != MESSAGE_BYTES {
            bail!("{} bytes instead of {MESSAGE_BYTES}: {json}", json.len());
        }
        send(&producer, topic, &order.customer_id(), &json)
    };
    let (at_once, rate) = live.unwrap_or((orders, 0));
    let mut stream = Orders::new(customers, at_once, 0).with_channels(channels);
    stream.by_ref().take(usize::try_from(at_once)?).try_for_each(&mut send_order)?;
    if live.is_some() {
        let begun = Instant::now();
        for order in stream.live(rate).take(usize::try_from(orders)?) {
            let due = begun + Duration::from_secs_f64((order.number - at_once) as f64 / rate as f64);
            // Orders that are due within a pause are sent together, as the front ends of a shop do.
            while let Some(wait) = due.checked_duration_since(Instant::now()).filter(|wait| *wait > PAUSE) {
                producer.poll(wait);
            }
            send_order(order)?;
        }
    }
    producer.flush(FLUSH_WAIT).context("not everything was delivered")?;
    println!("{json}");
    Ok(())
}

fn send_lines(brokers: &str, topic: &str) -> Result<()> {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("linger.ms", "0").create()?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let (key, value) = line.split_once('\t').context("a line is a key, a tab and a value")?;
        send(&producer, topic, key, value)?;
    }
    producer.flush(FLUSH_WAIT).context("not everything was delivered")
}

fn send(producer: &BaseProducer, topic: &str, key: &str, json: &str) -> Result<()> {
    loop {
        match producer.send(BaseRecord::to(topic).key(key).payload(json)) {
            Ok(()) => break,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
    producer.poll(Duration::ZERO);
    Ok(())
}
