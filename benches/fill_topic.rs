//! Fills a topic with orders for `benches/pipeline`, which calls it:
//! `cargo bench --bench fill_topic -- BROKERS TOPIC PARTITIONS ORDERS CUSTOMERS`.

#![allow(clippy::print_stdout, missing_docs, reason = "a helper of a script")]

mod support;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use retentiond::output::publisher::create_topics;

use support::{MESSAGE_BYTES, Orders};

const FLUSH_WAIT: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [brokers, topic, partitions, orders, customers] = args.as_slice() else {
        bail!("usage: fill_topic BROKERS TOPIC PARTITIONS ORDERS CUSTOMERS");
    };
    let (orders, customers): (u64, u64) = (orders.parse()?, customers.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(create_topics(brokers, &[topic.as_str()], partitions.parse()?, std::iter::empty()))?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("linger.ms", "50")
        .set("batch.size", "1000000")
        .set("compression.codec", "lz4")
        .set("queue.buffering.max.messages", "500000")
        .create()?;
    let mut json = String::with_capacity(MESSAGE_BYTES);
    for order in Orders::new(customers, orders, 0).take(usize::try_from(orders)?) {
        order.write_json(&mut json);
        if json.len() != MESSAGE_BYTES {
            bail!("{} bytes instead of {MESSAGE_BYTES}: {json}", json.len());
        }
        send(&producer, topic, &order.customer_id(), &json)?;
    }
    producer.flush(FLUSH_WAIT).context("not everything was delivered")?;
    println!("{json}");
    Ok(())
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
