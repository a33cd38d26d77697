//! What an order costs in several formats, at the same size: `cargo bench --bench decode`.
//!
//! Times are CPU time of the thread, so that a busy machine disturbs them little.

#![allow(clippy::expect_used, clippy::panic, missing_docs, reason = "a benchmark")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use retentiond::decode::{Decoder, Format};
use retentiond::event::Time;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Every message is about this long, in bytes: an order with a few lines.
const BYTES: usize = 2_048;

const NATIVE: &str = r#"{"type":"order","order_id":"820982911946154508","customer_id":"115310627314723954","time":"2026-01-02T03:04:05.678Z","amount":"374.97","currency":"USD","attributes":{"channel":"web","country":"US"},"lines":[LINES]}"#;
const SEGMENT: &str = r#"{"anonymousId":"507f191e810c19729de860ea","channel":"browser","context":{"app":{"name":"InitechGlobal","version":"545"},"campaign":{"name":"TPS","source":"Newsletter","medium":"email"},"ip":"8.8.8.8","library":{"name":"analytics.js","version":"2.11.1"},"locale":"en-US"},"event":"Order Completed","integrations":{"All":true},"messageId":"022bb90c-bbac-11e4-8dfc-aa07a5b093db","originalTimestamp":"2026-01-02T03:04:00.000Z","properties":{"order_id":"820982911946154508","total":374.97,"subtotal":364.97,"revenue":364.97,"shipping":10,"tax":0,"currency":"USD","channel":"web","products":[LINES]},"receivedAt":"2026-01-02T03:04:06.000Z","sentAt":"2026-01-02T03:04:05.900Z","timestamp":"2026-01-02T03:04:05.678Z","type":"track","userId":"115310627314723954","version":"1.1"}"#;
const SHOPIFY: &str = r#"{"id":820982911946154508,"admin_graphql_api_id":"gid:\/\/shopify\/Order\/820982911946154508","app_id":null,"browser_ip":null,"buyer_accepts_marketing":true,"cancel_reason":null,"cancelled_at":null,"cart_token":null,"checkout_id":null,"closed_at":null,"confirmed":true,"contact_email":"jon@example.com","created_at":"2026-01-02T03:04:05-05:00","currency":"USD","current_subtotal_price":"364.97","current_total_price":"374.97","email":"jon@example.com","financial_status":"paid","fulfillment_status":null,"name":"No. 9999","note":null,"number":234,"order_number":1234,"processed_at":"2026-01-02T03:04:05-05:00","source_name":"web","subtotal_price":"364.97","tags":"","taxes_included":false,"test":false,"token":"123456abcd","total_discounts":"20.00","total_line_items_price":"389.97","total_price":"374.97","total_tax":"0.00","updated_at":"2026-01-02T03:04:07-05:00","user_id":null,"customer":{"id":115310627314723954,"email":"john@example.com","state":"disabled","currency":"USD"},"shipping_address":{"first_name":"Steve","country":"United States","country_code":"US"},"refunds":[],"line_items":[LINES]}"#;
const LINE: &str = r#"{"product_id":"507f1f77bcf86cd799439011","sku":"45790-32","name":"Monopoly: 3rd Edition","price":"19.00","quantity":1,"category":"Games","taxable":true}"#;

/// As many lines as fit into [`BYTES`], and blanks.
fn message(template: &str) -> String {
    let room = BYTES - (template.len() - "LINES".len());
    let lines = vec![LINE; (room + 1) / (LINE.len() + 1)].join(",");
    format!("{:<BYTES$}", template.replace("LINES", &lines))
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode 2 KB");
    group.throughput(Throughput::Bytes(BYTES as u64)).sampling_mode(SamplingMode::Flat);
    for (format, template) in
        [(Format::Native, NATIVE), (Format::Segment, SEGMENT), (Format::Shopify, SHOPIFY), (Format::Custom, NATIVE)]
    {
        let message = message(template);
        assert_eq!(message.len(), BYTES);
        let decoder = Decoder::new(format, vec!["channel".to_owned()]);
        group.bench_function(format.name(), |bencher| {
            bencher.iter_custom(|count| {
                let begun = cpu_time();
                for _ in 0..count {
                    let payload = black_box(Some(message.as_bytes()));
                    black_box(decoder.decode(None, payload, Time::MAX)).expect("an order");
                }
                cpu_time() - begun
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(2_000));
    targets = decode
}
criterion_main!(benches);
