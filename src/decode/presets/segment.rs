//! Calls of Segment and RudderStack: `track` calls of the ecommerce events, page views and `identify`.
//!
//! <https://segment.com/docs/connections/spec/ecommerce/v2/>, <https://www.rudderstack.com/docs/event-spec/>. `Order
//! Completed` defines an order; a later `Order Updated` changes nothing. The refunded amount is `total`, which the
//! specification of `Order Refunded` has only in its example: without it the message is rejected. Events without an id
//! are identified by `messageId`, which every delivery of a call repeats. A request of the batch endpoint contains
//! several calls. Event names are compared ignoring case, blanks and underscores, because libraries and warehouses
//! write `order_completed`, but names in `types` must match exactly.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{Common, or_skip, slot};
use crate::decode::batch::{batch, with_only};
use crate::decode::fields::{Fields, Value};
use crate::decode::options::{OptionError, Options};
use crate::decode::paths::{Paths, Slots};
use crate::decode::{Decoded, Reason, Rejection, Unknown};
use crate::event::EventType;

const PLACES: [&str; 18] = [
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
    "batch",
    "originalTimestamp",
    "sentAt",
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
const BATCH: usize = 15;
/// Time of the call: corrected for the device's clock, otherwise by that clock, otherwise when it was sent.
const TIMES: [usize; 3] = [TIME, 16, 17];

/// Names of calls and `track` events with their event types.
const TYPES: [(&str, EventType); 8] = [
    ("Order Completed", EventType::Order),
    ("Order Refunded", EventType::Refund),
    ("Order Cancelled", EventType::Cancel),
    ("Order Canceled", EventType::Cancel),
    ("page", EventType::Session),
    ("screen", EventType::Session),
    ("Session Started", EventType::Session),
    ("identify", EventType::Customer),
];

/// Names that are not read, in the form of [`plain`], and why.
const HINTS: [(&str, &str); 4] = [
    ("alias", "customers are not merged: events under the former id stay with it, so send the id that is to count"),
    ("orderupdated", "the order stays what the first message said, and edits change nothing"),
    ("completedorder", "this is version 1 of the specification; list it in mapping.types as \"order\""),
    (
        "productpurchased",
        "it names a product of an order, so it would count the order once for each; send Order Completed",
    ),
];

/// A normalized name, without case, blanks and punctuation.
fn plain(name: &str) -> String {
    name.chars().filter(|char| char.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Reads Segment's calls.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Segment {
    paths: Paths,
    common: Common,
    types: BTreeMap<String, EventType>,
    /// Event names in the form of [`plain`].
    spellings: BTreeMap<String, EventType>,
    /// Whether names may be spelled differently.
    any_spelling: bool,
    /// Slot of the configured amount of an order, if any.
    amount: Option<usize>,
    /// Slots whose values a batch may set for all its calls.
    shared: Vec<usize>,
}

impl Segment {
    pub fn new(options: &Options, dimensions: &[String]) -> Result<Segment, OptionError> {
        let mut paths = Paths::of(&PLACES);
        let common = Common::new(options, dimensions, &mut paths, |name| Some(format!("properties.{name}")))?;
        let amount = |name: &String| slot(&mut paths, "amount", &format!("properties.{name}"));
        let amount = options.amount.as_ref().map(amount).transpose()?;
        let types = options.types(&TYPES)?;
        let spellings = types.iter().map(|(name, event_type)| (plain(name), *event_type)).collect();
        // A batch may also contain fields that only the configuration refers to, such as writeKey.
        let is_shared =
            |slot: usize, place: &str| slot >= PLACES.len() || place.starts_with("context.") || place == "sentAt";
        let slots = (0..).zip(paths.places());
        let shared = slots.filter(|(slot, place)| is_shared(*slot, place)).map(|(slot, _)| slot).collect();
        Ok(Segment { paths, common, types, spellings, any_spelling: options.types.is_empty(), amount, shared })
    }

    /// The names of calls and events.
    pub fn known(&self) -> Vec<&str> {
        self.types.keys().map(String::as_str).collect()
    }

    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        let slots = self.paths.read(bytes)?;
        let Some(list) = slots.raw(BATCH).filter(|_| slots.raw(TYPE).is_none()) else { return self.call(&slots) };
        let wrong = |_| Rejection::new(Reason::WrongType, "batch is not a list of calls");
        let calls: Vec<&'a RawValue> = serde_json::from_str(list).map_err(wrong)?;
        batch(calls, |call| {
            let read = self.paths.read(call.get().as_bytes());
            let decoded = read.and_then(|own| self.call(&own.or(&slots, &self.shared)));
            (decoded, Cow::Owned(with_only(bytes, list, call.get())))
        })
    }

    /// The event type of a call.
    fn event_type<'a>(&self, slots: &Slots<'a>) -> Result<EventType, Unknown<'a>> {
        let (call, name) = (slots.value(TYPE), slots.value(EVENT));
        // Requests to the track endpoint do not contain the type.
        let is_track = call.as_text() == Some("track") || (call == Value::Absent && name != Value::Absent);
        let (field, called) = if is_track { ("event", name) } else { ("type", call) };
        let text = called.as_text().unwrap_or_default();
        if let Some(&event_type) = self.types.get(text) {
            return Ok(event_type);
        }
        let form = plain(text);
        let spelled = self.spellings.get(&form).filter(|_| is_track);
        if let Some(&event_type) = spelled.filter(|_| self.any_spelling) {
            return Ok(event_type);
        }
        let unknown = Unknown::of(field, called.into_text());
        let hint = HINTS.iter().find(|(known, _)| *known == form).map(|(_, hint)| *hint);
        Err(match spelled {
            Some(_) => unknown.with_hint("mapping.types has it in another spelling; names listed there must be exact"),
            None => Unknown { hint, ..unknown },
        })
    }

    fn call<'a>(&self, slots: &Slots<'a>) -> Result<Decoded<'a>, Rejection> {
        let event_type = match self.event_type(slots) {
            Ok(event_type) => event_type,
            Err(unknown) => return Ok(Decoded::Unknown(unknown)),
        };
        or_skip!(self.common.chosen(slots));
        let (user, anonymous) = (slots.value(USER), slots.value(ANONYMOUS));
        let customer = or_skip!(self.common.customer(user, anonymous, &self.common.email(slots, EMAILS)));
        let amount = match self.amount {
            Some(amount) => slots.value(amount),
            None => slots.first_of([TOTAL, REVENUE]),
        };
        let id = |own: usize| {
            let own = slots.value(own).into_id();
            if self.common.rules.is_nobody(&own) { slots.value(MESSAGE) } else { own }
        };
        let fields = Fields {
            customer_id: customer,
            time: slots.first_of(TIMES),
            order_id: id(ORDER),
            refund_id: id(REFUND),
            session_id: id(SESSION),
            amount: if event_type == EventType::Order { amount } else { slots.first_of([TOTAL, REVENUE]) },
            currency: if matches!(event_type, EventType::Order | EventType::Refund | EventType::Cancel) {
                self.common.currency(slots.value(CURRENCY))
            } else {
                Value::Absent
            },
            attributes: self.common.attributes(slots),
            ..Fields::default()
        };
        self.common.decoded(fields, event_type)
    }
}
