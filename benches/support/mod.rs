//! The orders that every benchmark uses: 242 bytes of JSON each, customers drawn evenly, event time over 405 days.

#![allow(dead_code, reason = "each benchmark uses a part")]

use std::fmt::Write;

use retentiond::event::{DAY, HOUR, Time};

/// Every message is this long, a usual size for an order with its lines.
pub const MESSAGE_BYTES: usize = 242;
/// When the first order happens: 2023-11-14T22:13:20Z.
const START: i64 = 1_700_000_000_000;
/// The event time that a whole stream spans: every window but those of a year moves all the way through, customers
/// lapse, and a year's window moves for 40 days.
const SPAN: i64 = 405 * DAY;

/// One order in numbers.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// Its place in the stream, which is its id.
    pub number: u64,
    /// Who ordered.
    pub customer: u64,
    /// When.
    pub time: Time,
    /// What was paid, in cents.
    pub cents: i64,
    /// By which of the channels.
    channel: u64,
    /// More random bits.
    bits: u64,
}

/// An endless stream of orders, the same in every run.
#[derive(Debug, Clone)]
pub struct Orders {
    customers: u64,
    step: i64,
    /// Of a hundred orders, so many lie up to 20 hours back.
    late_percent: u64,
    state: u64,
    next: u64,
    /// How many values the dimension `channel` has.
    channels: u64,
    /// From which order on event time runs with the clock, when that one happens, and how many come in a second.
    live: Option<(u64, i64, u64)>,
}

/// The names of the first channels; further ones are numbers.
const CHANNELS: [&str; 4] = ["web", "app", "store", "email"];

impl Orders {
    /// The stream whose first `per_span` orders span 405 days.
    pub fn new(customers: u64, per_span: u64, late_percent: u64) -> Orders {
        let step = (SPAN / i64::try_from(per_span.max(1)).unwrap_or(i64::MAX)).max(1);
        Orders { customers, step, late_percent, state: 88_172_645_463_325_252, next: 0, channels: 4, live: None }
    }

    /// The same stream with another number of channels.
    pub fn with_channels(self, channels: u64) -> Orders {
        Orders { channels, ..self }
    }

    /// The same stream, of which so many orders happen in a second of event time from here on.
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

    /// The message: [`MESSAGE_BYTES`] bytes of native JSON, fields that nobody asked for included.
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
