//! Segment's specification: `track` calls of the ecommerce events, page views and `identify`.
//!
//! <https://segment.com/docs/connections/spec/ecommerce/v2/>. An order is what `Order Completed` says; a later
//! `Order Updated` of the same order changes nothing. What is refunded is `total`, which the specification of
//! `Order Refunded` shows in its example only: without it the message is rejected.

use std::collections::BTreeMap;

use super::{Common, event, or_skip, slot};
use crate::decode::fields::{Fields, Value};
use crate::decode::options::{OptionError, Options};
use crate::decode::paths::Paths;
use crate::decode::{Decoded, Rejection};
use crate::event::EventType;

const PLACES: [&str; 15] = [
    "type",
    "event",
    "userId",
    "anonymousId",
    "messageId",
    "timestamp",
    "properties.order_id",
    "properties.total",
    "properties.revenue",
    "properties.currency",
    "context.traits.email",
    "traits.email",
    "properties.email",
    "context.sessionId",
    "properties.refund_id",
];
const TYPE: usize = 0;
const EVENT: usize = 1;
const USER: usize = 2;
const ANONYMOUS: usize = 3;
const MESSAGE: usize = 4;
const TIME: usize = 5;
const ORDER: usize = 6;
const TOTAL: usize = 7;
const REVENUE: usize = 8;
const CURRENCY: usize = 9;
const EMAILS: [usize; 3] = [10, 11, 12];
const SESSION: usize = 13;
const REFUND: usize = 14;

/// Names of calls and `track` events, and what they are.
const TYPES: [(&str, EventType); 7] = [
    ("Order Completed", EventType::Order),
    ("Order Refunded", EventType::Refund),
    ("Order Cancelled", EventType::Cancel),
    ("page", EventType::Session),
    ("screen", EventType::Session),
    ("Session Started", EventType::Session),
    ("identify", EventType::Customer),
];

/// Reads Segment's messages.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Segment {
    paths: Paths,
    common: Common,
    types: BTreeMap<String, EventType>,
    /// The amount of an order, if it is to be one only.
    amount: Option<usize>,
}

impl Segment {
    pub fn new(options: &Options, dimensions: &[String]) -> Result<Segment, OptionError> {
        let mut paths = Paths::of(&PLACES);
        let common = Common::new(options, dimensions, &mut paths, |name| Some(format!("properties.{name}")))?;
        let amount = |name: &String| slot(&mut paths, "amount", &format!("properties.{name}"));
        let amount = options.amount.as_ref().map(amount).transpose()?;
        Ok(Segment { paths, common, types: options.types(&TYPES)?, amount })
    }

    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        let slots = self.paths.read(bytes)?;
        let (call, name) = (slots.value(TYPE), slots.value(EVENT));
        let called = if call.as_text() == Some("track") { &name } else { &call };
        let Some(&event_type) = called.as_text().and_then(|name| self.types.get(name)) else {
            return Ok(Decoded::Unknown);
        };
        let (user, anonymous) = (slots.value(USER), slots.value(ANONYMOUS));
        let customer = or_skip!(self.common.customer(user, anonymous, &slots.first_of(EMAILS)));
        let amount = match self.amount {
            Some(amount) => slots.value(amount),
            None => slots.first_of([TOTAL, REVENUE]),
        };
        let fields = Fields {
            customer_id: customer,
            time: slots.value(TIME),
            order_id: slots.value(ORDER).into_id(),
            refund_id: slots.value(REFUND).into_id().or(slots.value(MESSAGE)),
            session_id: slots.value(SESSION).into_id().or(slots.value(MESSAGE)),
            amount: if event_type == EventType::Order { amount } else { slots.first_of([TOTAL, REVENUE]) },
            currency: if matches!(event_type, EventType::Order | EventType::Refund | EventType::Cancel) {
                self.common.currency(slots.value(CURRENCY))
            } else {
                Value::Absent
            },
            attributes: self.common.attributes(&slots),
            ..Fields::default()
        };
        event(fields, event_type)
    }
}
