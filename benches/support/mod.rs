//! The orders of the benchmarks: 242 bytes of JSON each, uniformly distributed customers, event time over 405 days.

#![allow(dead_code, reason = "each benchmark uses a part")]

use std::fmt::Write;

use retentiond::event::{DAY, HOUR, Time};

/// Size of every message in bytes, typical of an order with its lines.
pub const MESSAGE_BYTES: usize = 242;
/// Time of the first order: 2023-11-14T22:13:20Z.
const START: i64 = 1_700_000_000_000;
/// Event time that a stream spans: every window shorter than a year moves through it completely, customers lapse, and a
/// window of a year moves for 40 days.
const SPAN: i64 = 405 * DAY;

/// An order as numbers.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// Index in the stream, and the order id.
    pub number: u64,
    /// Customer.
    pub customer: u64,
    /// Event time.
    pub time: Time,
    /// Amount in cents.
    pub cents: i64,
    /// Index of the channel.
    channel: u64,
    /// More random bits.
    bits: u64,
}

/// An endless stream of orders, the same in every run.
#[derive(Debug, Clone)]
pub struct Orders {
    customers: u64,
    step: i64,
    /// Percentage of orders that are up to 20 hours late.
    late_percent: u64,
    state: u64,
    next: u64,
    /// Number of values of the dimension `channel`.
    channels: u64,
    /// For the live part: number of the first order, its event time, and orders per second of event time.
    live: Option<(u64, i64, u64)>,
}

/// Names of the first channels; further ones are numbers.
const CHANNELS: [&str; 4] = ["web", "app", "store", "email"];

impl Orders {
    /// A stream whose first `per_span` orders span 405 days.
    pub fn new(customers: u64, per_span: u64, late_percent: u64) -> Orders {
        let step = (SPAN / i64::try_from(per_span.max(1)).unwrap_or(i64::MAX)).max(1);
        Orders { customers, step, late_percent, state: 88_172_645_463_325_252, next: 0, channels: 4, live: None }
    }

    /// The stream with another number of channels.
    pub fn with_channels(self, channels: u64) -> Orders {
        Orders { channels, ..self }
    }

    /// The stream with this rate from here on, in event time.
    pub fn live(self, orders_per_second: u64) -> Orders {
        Orders { live: Some((self.next, START + self.step * self.next.cast_signed(), orders_per_second)), ..self }
    }

    /// Xorshift (G. Marsaglia, "Xorshift RNGs", 2003).
    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }
}

impl Iterator for Orders {
    type Item = Order;

    fn next(&mut self) -> Option<Order> {
        let (draw, bits) = (self.random(), self.random());
        let number = self.next;
        self.next += 1;
        let on_time = match self.live {
            None => START + self.step * number.cast_signed(),
            Some((first, at, rate)) => at + ((number - first) * 1_000 / rate).cast_signed(),
        };
        let back = if bits % 100 < self.late_percent { (bits >> 8).cast_signed() % (20 * HOUR) } else { 0 };
        let cents = 1_000 + (draw >> 32).cast_signed() % 9_000;
        let (customer, channel) = (draw % self.customers, (bits >> 20) % self.channels);
        Some(Order { number, customer, time: Time::clamped(on_time - back), cents, channel, bits })
    }
}

impl Order {
    /// The customer id, which is the message key.
    pub fn customer_id(&self) -> String {
        format!("c-{:010}", self.customer)
    }

    /// The order id.
    pub fn id(&self) -> String {
        format!("o-{:012}", self.number)
    }

    /// The message: [`MESSAGE_BYTES`] bytes of native JSON, including fields that are not read.
    pub fn write_json(&self, out: &mut String) {
        out.clear();
        let channel =
            CHANNELS.get(self.channel as usize).map_or_else(|| format!("c{}", self.channel), |&name| name.into());
        _ = write!(
            out,
            r#"{{"type":"order","order_id":"{}","customer_id":"{}","time":"{}","amount":"{}.{:02}","currency":"EUR","#,
            self.id(),
            self.customer_id(),
            self.time,
            self.cents / 100,
            self.cents % 100,
        );
        _ = write!(
            out,
            r#""attributes":{{"channel":"{channel}","country":"NO"}},"items":[{{"sku":"{}"#,
            self.bits % 10
        );
        let rest = format!(r#"","qty":{},"price":"{:02}.99"}}]}}"#, 1 + self.bits % 3, self.bits % 50);
        while out.len() + rest.len() < MESSAGE_BYTES {
            out.push('7');
        }
        out.push_str(&rest);
    }
}
