//! Google Analytics 4: rows of the BigQuery export, and requests of the Measurement Protocol.
//!
//! <https://support.google.com/analytics/answer/7029846>,
//! <https://developers.google.com/analytics/devguides/collection/protocol/ga4/reference>. `purchase` is an order,
//! `refund` a refund, `session_start` a session. A refund without a value, which GA4 computes from items, is rejected.
//! Refunds, and purchases without a transaction, have no id of their own, so it is built from values that are the same
//! in every delivery: in the export from the transaction, the time in microseconds, the bundle and the amount, in a
//! request from the time and a hash of the event. A request contains up to 25 events. Events without a time happened
//! when the request was received, which is the record timestamp.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{Common, or_skip};
use crate::decode::batch::{batch, with_only};
use crate::decode::fields::{Fields, Value};
use crate::decode::instants;
use crate::decode::json::scalar;
use crate::decode::options::{OptionError, Options};
use crate::decode::paths::{Paths, Slots};
use crate::decode::{Decoded, Message, Reason, Rejection, Unknown};
use crate::event::EventType;

const PLACES: [&str; 14] = [
    "event_name",
    "event_timestamp",
    "user_id",
    "user_pseudo_id",
    "ecommerce.transaction_id",
    "ecommerce.purchase_revenue",
    "ecommerce.refund_value",
    "event_params",
    "client_id",
    "timestamp_micros",
    "events",
    "app_instance_id",
    "event_bundle_sequence_id",
    "batch_event_index",
];
const NAME: usize = 0;
const TIME: usize = 1;
const USER: usize = 2;
const PSEUDO: usize = 3;
const TRANSACTION: usize = 4;
const PURCHASE: usize = 5;
const REFUND: usize = 6;
const PARAMS: usize = 7;
const CLIENT: usize = 8;
const MICROS: usize = 9;
const EVENTS: usize = 10;
const APP: usize = 11;
const BUNDLE: usize = 12;
const INDEX: usize = 13;

const TYPES: [(&str, EventType); 3] =
    [("purchase", EventType::Order), ("refund", EventType::Refund), ("session_start", EventType::Session)];

/// An event of a Measurement Protocol request.
#[derive(Deserialize)]
struct Sent<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    timestamp_micros: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<Params<'a>>,
}

#[derive(Default, Deserialize)]
struct Params<'a> {
    #[serde(borrow, default)]
    transaction_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    currency: Option<&'a RawValue>,
    #[serde(borrow, default)]
    session_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ga_session_id: Option<&'a RawValue>,
}

/// A parameter of an exported event.
#[derive(Deserialize)]
struct Param<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: ParamValue<'a>,
}

/// The value of a parameter, in the field for its type.
#[derive(Deserialize)]
struct ParamValue<'a> {
    #[serde(borrow, default)]
    string_value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    int_value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    double_value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    float_value: Option<&'a RawValue>,
}

impl<'a> ParamValue<'a> {
    fn get(&self) -> Option<&'a RawValue> {
        let all = [self.string_value, self.int_value, self.double_value, self.float_value];
        all.into_iter().flatten().find(|raw| raw.get() != "null")
    }
}

fn value(raw: Option<&RawValue>) -> Value<'_> {
    raw.map_or(Value::Absent, scalar)
}

fn micros(value: Value<'_>) -> Result<Value<'_>, Rejection> {
    Ok(match value.as_integer() {
        Some(micros) => Value::Millis(instants::micros(micros)?.millis()),
        None => value.unless_blank(),
    })
}

/// A hash of a JSON value that ignores white space between tokens.
fn fingerprint(json: &RawValue) -> String {
    let (mut in_text, mut is_escaped) = (false, false);
    let is_token = |byte: &u8| {
        let was_in_text = in_text;
        in_text ^= *byte == b'"' && !is_escaped;
        is_escaped = was_in_text && *byte == b'\\' && !is_escaped;
        was_in_text || !byte.is_ascii_whitespace()
    };
    let tokens: Vec<u8> = json.get().bytes().filter(is_token).collect();
    super::hex(&Sha256::digest(tokens)[..8])
}

fn wrong_shape(place: &str) -> Rejection {
    Rejection::new(Reason::WrongType, format!("{place} has another shape than GA4 documents"))
}

/// Reads GA4's events.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Ga4 {
    paths: Paths,
    common: Common,
    types: BTreeMap<String, EventType>,
}

/// An event from either source.
struct Found<'a> {
    event_type: EventType,
    time: Value<'a>,
    /// Distinguishes the event from others of the customer if it has no transaction.
    identity: Option<String>,
    /// Distinguishes a refund from others of its transaction.
    refund: Option<String>,
    transaction: Value<'a>,
    amount: Value<'a>,
    currency: Value<'a>,
    session: Value<'a>,
}

impl Ga4 {
    pub fn new(options: &Options, dimensions: &[String]) -> Result<Ga4, OptionError> {
        let mut paths = Paths::of(&PLACES);
        let usual = |name: &str| match name {
            "country" => Some("geo.country".to_owned()),
            "channel" => Some("traffic_source.medium".to_owned()),
            _ => None,
        };
        let common = Common::new(options, dimensions, &mut paths, usual)?;
        Ok(Ga4 { paths, common, types: options.types(&TYPES)? })
    }

    /// The names of the events.
    pub fn known(&self) -> Vec<&str> {
        self.types.keys().map(String::as_str).collect()
    }

    pub fn decode<'a>(&self, message: &Message<'a>, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        let slots = self.paths.read(bytes)?;
        or_skip!(self.common.chosen(&slots));
        let Some(list) = slots.raw(EVENTS) else { return self.exported(&slots) };
        let events: Vec<&'a RawValue> = serde_json::from_str(list).map_err(|_| wrong_shape("events"))?;
        let mut copies = HashMap::<&str, usize>::new();
        batch(events, |sent| {
            let copy = copies.entry(sent.get()).or_default();
            *copy += 1;
            let decoded = self.sent(message, &slots, sent, *copy);
            (decoded, Cow::Owned(with_only(bytes, list, sent.get())))
        })
    }

    /// Decodes an event of a request. `copy` is its number among events of the request with identical text, from 1.
    fn sent<'a>(
        &self,
        message: &Message<'a>,
        slots: &Slots<'a>,
        json: &'a RawValue,
        copy: usize,
    ) -> Result<Decoded<'a>, Rejection> {
        let sent: Sent<'a> = serde_json::from_str(json.get()).map_err(|_| wrong_shape("an event"))?;
        let Some(&event_type) = self.types.get(sent.name.as_ref()) else {
            return Ok(Decoded::Unknown(Unknown::of("name", Some(sent.name))));
        };
        let params = sent.params.unwrap_or_default();
        let told = value(sent.timestamp_micros).unless_blank().or(slots.value(MICROS));
        let received = message.time.map_or(Value::Absent, |time| Value::Millis(time.millis()));
        let at = told.as_integer().or(message.time.map(|time| time.millis().saturating_mul(1_000)));
        let is_told = told.as_integer().is_some();
        let time = micros(told)?.or(received);
        if time == Value::Absent {
            let what = "time is missing: the event has no timestamp_micros, and there is no record whose time could stand for it";
            return Err(Rejection::new(Reason::MissingField, what));
        }
        let needs_identity =
            event_type == EventType::Refund || self.common.rules.is_nobody(&value(params.transaction_id));
        let identity = at.filter(|_| needs_identity).map(|at| {
            let nth = if copy > 1 { format!("/{copy}") } else { String::new() };
            format!("{at}/{}{nth}", fingerprint(json))
        });
        let found = Found {
            event_type,
            time,
            refund: identity.clone(),
            // The record timestamp differs between deliveries.
            identity: identity.filter(|_| is_told),
            transaction: value(params.transaction_id).into_id(),
            amount: value(params.value),
            currency: value(params.currency),
            session: value(params.session_id.or(params.ga_session_id)).into_id(),
        };
        self.event(slots, found)
    }

    fn exported<'a>(&self, slots: &Slots<'a>) -> Result<Decoded<'a>, Rejection> {
        let name = slots.value(NAME);
        let Some(&event_type) = name.as_text().and_then(|name| self.types.get(name)) else {
            return Ok(Decoded::Unknown(Unknown::of("event_name", name.into_text())));
        };
        let params = match slots.raw(PARAMS) {
            Some(list) => serde_json::from_str::<Vec<Param<'a>>>(list).map_err(|_| wrong_shape("event_params"))?,
            None => Vec::new(),
        };
        let param = |key: &str| value(params.iter().find(|param| param.key == key).and_then(|param| param.value.get()));
        let own = if event_type == EventType::Refund { REFUND } else { PURCHASE };
        let amount = slots.value(own).or(param("value"));
        if event_type == EventType::Order && name.as_text() == Some("in_app_purchase") && slots.raw(own).is_none() {
            let what = "the value of in_app_purchase is in millionths of the currency, which are not read; take it out of \
                        mapping.types and send purchase events";
            return Err(Rejection::new(Reason::InvalidAmount, what));
        }
        let identity = slots.value(TIME).as_integer().map(|at| {
            let bundle = slots.value(BUNDLE);
            format!("{at}/{}", bundle.as_text().unwrap_or_default())
        });
        let refund = identity.as_ref().map(|identity| {
            let index = slots.value(INDEX);
            let [index, amount] = [index.as_text(), amount.as_text()].map(Option::unwrap_or_default);
            format!("{identity}/{index}/{amount}")
        });
        let transaction = slots.value(TRANSACTION);
        let is_named = !self.common.rules.is_nobody(&transaction);
        let found = Found {
            event_type,
            time: micros(slots.value(TIME))?,
            identity,
            refund,
            transaction: if is_named { transaction } else { param("transaction_id") }.into_id(),
            amount,
            currency: param("currency"),
            session: param("ga_session_id").into_id(),
        };
        self.event(slots, found)
    }

    fn customer<'a>(&self, slots: &Slots<'a>) -> Result<Value<'a>, crate::decode::Skip> {
        self.common.customer(slots.value(USER), slots.first_of([CLIENT, PSEUDO, APP]), &Value::Absent)
    }

    fn event<'a>(&self, slots: &Slots<'a>, found: Found<'a>) -> Result<Decoded<'a>, Rejection> {
        let customer_id = or_skip!(self.customer(slots));
        let is_named = !self.common.rules.is_nobody(&found.transaction);
        let owned = |id: Option<String>| id.map_or(Value::Absent, |id| Value::Text(Cow::Owned(id)));
        let refund_id = match (found.event_type, found.transaction.as_text(), found.refund) {
            (EventType::Refund, Some(id), Some(refund)) if is_named => owned(Some(format!("{id}/{refund}"))),
            (EventType::Refund, _, Some(refund)) if found.identity.is_some() => owned(Some(refund)),
            _ => Value::Absent,
        };
        // An event without a transaction has an id of its own.
        let transaction = if is_named { found.transaction } else { owned(found.identity) };
        let fields = Fields {
            customer_id,
            time: found.time,
            order_id: transaction,
            refund_id,
            session_id: found.session,
            amount: found.amount,
            currency: self.common.currency(found.currency),
            attributes: self.common.attributes(slots),
            ..Fields::default()
        };
        match found.event_type {
            EventType::Erase | EventType::Unknown => {
                Err(Rejection::new(Reason::InvalidValue, "an event of GA4 cannot be an erasure; change mapping.types"))
            }
            event_type => self.common.event(fields, event_type).map(Decoded::Event),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_ignores_white_space_outside_of_text_alone() {
        let of = |text: &str| fingerprint(serde_json::from_str(text).unwrap());
        assert_eq!(of(r#"{"a":"b \\", "c": "\" d" }"#), of("{ \"a\" :\n\"b \\\\\",\"c\":\"\\\" d\"}"));
        assert_ne!(of(r#"{"a":"b c"}"#), of(r#"{"a":"bc"}"#));
        assert_ne!(of(r#"{"a":"\" c"}"#), of(r#"{"a":"\"c"}"#));
        // printf '{"value":5}' | sha256sum
        assert_eq!(of("{ \"value\": 5 }"), "36060134d807a85b");
    }
}
