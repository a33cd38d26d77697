//! The cost of decoding an order in each format, with messages of equal size: `cargo bench --bench decode`.
//!
//! Times are CPU times of the thread, so that other load on the machine hardly matters.

#![allow(clippy::expect_used, clippy::panic, missing_docs, reason = "a benchmark")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use retentiond::decode::{Decoded, Decoder, Format};
use retentiond::event::Time;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Approximate message size in bytes: an order with a few lines.
const BYTES: usize = 2_048;

const NATIVE: &str = r#"{"type":"order","order_id":"820982911946154508","customer_id":"115310627314723954","time":"2026-01-02T03:04:05.678Z","amount":"374.97","currency":"USD","attributes":{"channel":"web","country":"US"},"lines":[LINES]}"#;
const SEGMENT: &str = r#"{"anonymousId":"507f191e810c19729de860ea","channel":"browser","context":{"app":{"name":"InitechGlobal","version":"545"},"campaign":{"name":"TPS","source":"Newsletter","medium":"email"},"ip":"8.8.8.8","library":{"name":"analytics.js","version":"2.11.1"},"locale":"en-US"},"event":"Order Completed","integrations":{"All":true},"messageId":"022bb90c-bbac-11e4-8dfc-aa07a5b093db","originalTimestamp":"2026-01-02T03:04:00.000Z","properties":{"order_id":"820982911946154508","total":374.97,"subtotal":364.97,"revenue":364.97,"shipping":10,"tax":0,"currency":"USD","channel":"web","products":[LINES]},"receivedAt":"2026-01-02T03:04:06.000Z","sentAt":"2026-01-02T03:04:05.900Z","timestamp":"2026-01-02T03:04:05.678Z","type":"track","userId":"115310627314723954","version":"1.1"}"#;
const SHOPIFY: &str = r#"{"id":820982911946154508,"admin_graphql_api_id":"gid:\/\/shopify\/Order\/820982911946154508","app_id":null,"browser_ip":null,"buyer_accepts_marketing":true,"cancel_reason":null,"cancelled_at":null,"cart_token":null,"checkout_id":null,"closed_at":null,"confirmed":true,"contact_email":"jon@example.com","created_at":"2026-01-02T03:04:05-05:00","currency":"USD","current_subtotal_price":"364.97","current_total_price":"374.97","email":"jon@example.com","financial_status":"paid","fulfillment_status":null,"name":"No. 9999","note":null,"number":234,"order_number":1234,"processed_at":"2026-01-02T03:04:05-05:00","source_name":"web","subtotal_price":"364.97","tags":"","taxes_included":false,"test":false,"token":"123456abcd","total_discounts":"20.00","total_line_items_price":"389.97","total_price":"374.97","total_tax":"0.00","updated_at":"2026-01-02T03:04:07-05:00","user_id":null,"customer":{"id":115310627314723954,"email":"john@example.com","state":"disabled","currency":"USD"},"shipping_address":{"first_name":"Steve","country":"United States","country_code":"US"},"refunds":[],"line_items":[LINES]}"#;
const STRIPE: &str = r#"{"id":"evt_3MmlLrLkdIwHu7ix0snN0B15","object":"event","api_version":"2024-06-20","created":1767323046,"data":{"object":{"id":"ch_3MmlLrLkdIwHu7ix0snN0B15","object":"charge","amount":37497,"amount_captured":37497,"amount_refunded":0,"balance_transaction":"txn_3MmlLrLkdIwHu7ix0uke3Ezy","billing_details":{"email":"jon@example.com","name":null,"phone":null},"captured":true,"created":1767323045,"currency":"usd","customer":"cus_NcFjfNGFVRXR2a","disputed":false,"livemode":true,"metadata":{"channel":"web"},"paid":true,"payment_intent":"pi_3MmlLrLkdIwHu7ix0snN0B15","receipt_email":null,"refunded":false,"status":"succeeded","level3":[LINES]}},"livemode":true,"pending_webhooks":0,"request":{"id":null},"type":"charge.succeeded"}"#;
const CLOUDEVENTS: &str = r#"{"specversion":"1.0","id":"3f1c","source":"/shop/checkout","type":"order","subject":"115310627314723954","time":"2026-01-02T03:04:05.678Z","datacontenttype":"application/json","data":{"order_id":"820982911946154508","amount":"374.97","currency":"USD","attributes":{"channel":"web","country":"US"},"lines":[LINES]}}"#;
const DEBEZIUM: &str = r#"{"before":null,"after":{"id":820982911946154508,"customer_id":115310627314723954,"placed_at":1767323045678901,"amount":"374.97","currency":"USD","status":"paid","channel":"web","lines":[LINES]},"source":{"version":"3.0.0.Final","connector":"postgresql","name":"shop","ts_ms":1767323045700,"snapshot":"false","db":"shop","sequence":"[null,\"24023128\"]","schema":"public","table":"orders","txId":555,"lsn":24023128,"xmin":null},"op":"c","ts_ms":1767323045900,"transaction":null}"#;
const GA4: &str = r#"{"event_date":"20260102","event_timestamp":"1767323045678901","event_name":"purchase","event_params":[{"key":"currency","value":{"string_value":"USD"}},{"key":"transaction_id","value":{"string_value":"820982911946154508"}},{"key":"ga_session_id","value":{"int_value":"1767322000"}},{"key":"value","value":{"double_value":374.97}}],"user_id":"115310627314723954","user_pseudo_id":"1234567890.1767300000","device":{"category":"desktop","language":"en-us"},"geo":{"country":"United States"},"traffic_source":{"name":"(direct)","medium":"web","source":"(direct)"},"platform":"WEB","ecommerce":{"total_item_quantity":"3","purchase_revenue_in_usd":374.97,"purchase_revenue":374.97,"transaction_id":"820982911946154508"},"items":[LINES]}"#;
const SNOWPLOW: &str = r#"{"app_id":"shop","platform":"web","collector_tstamp":"2026-01-02T03:04:06.000Z","event":"unstruct","event_id":"022bb90c-bbac-11e4-8dfc-aa07a5b093db","event_name":"snowplow_ecommerce_action","user_id":"115310627314723954","domain_userid":"507f191e810c19729de860ea","domain_sessionid":"f0a0","derived_tstamp":"2026-01-02T03:04:05.678Z","geo_country":"US","mkt_medium":"web","unstruct_event_com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1":{"type":"transaction"},"contexts_com_snowplowanalytics_snowplow_ecommerce_transaction_1":[{"transaction_id":"820982911946154508","revenue":374.97,"currency":"USD","payment_method":"card","total_quantity":3,"tax":0,"shipping":10}],"contexts_com_snowplowanalytics_snowplow_ecommerce_product_1":[LINES]}"#;
const LINE: &str = r#"{"product_id":"507f1f77bcf86cd799439011","sku":"45790-32","name":"Monopoly: 3rd Edition","price":"19.00","quantity":1,"category":"Games","taxable":true}"#;

const MESSAGES: [(Format, &str); 9] = [
    (Format::Native, NATIVE),
    (Format::Segment, SEGMENT),
    (Format::Shopify, SHOPIFY),
    (Format::Stripe, STRIPE),
    (Format::CloudEvents, CLOUDEVENTS),
    (Format::Debezium, DEBEZIUM),
    (Format::Ga4, GA4),
    (Format::Snowplow, SNOWPLOW),
    (Format::Custom, NATIVE),
];

/// A message with as many lines as fit into [`BYTES`], padded with blanks.
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
    for (format, template) in MESSAGES {
        let message = message(template);
        assert_eq!(message.len(), BYTES);
        let decoder = Decoder::new(format, vec!["channel".to_owned()]);
        let decoded = decoder.decode(None, Some(message.as_bytes()), Time::MAX);
        assert!(matches!(decoded, Ok(Decoded::Event(_))), "{}: {decoded:?}", format.name());
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
