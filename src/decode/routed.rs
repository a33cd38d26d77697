//! Events of repartitioned sources: read in any format and written in the native one, to a topic keyed by customer.
//!
//! Everything that the engine uses is preserved. The native format has no field for an event that repeats an earlier
//! message ([`Decoded::Several`]), so the object begins with `told_before`, which other readers ignore.

use std::io::Write as _;

use super::fields::{Fields, Value};
use super::{Decoded, Rejection, native};
use crate::event::{Attributes, CostKind, Event, Kind, Money, Time, decimal_text};

/// Beginning of an event that is skipped instead of rejected if it is too late.
const TOLD_BEFORE: &[u8] = b"{\"told_before\":";

/// Beginning of a cancellation that counts only if the order placed at that time did.
const IF_PLACED: &[u8] = b"{\"if_placed\":";

/// Appends a cancellation; the arguments are those of [`Decoded::Cancellation`].
pub fn encode_cancellation(event: &Event<'_>, placed: Time, dimensions: &[String], out: &mut Vec<u8>) {
    out.extend_from_slice(IF_PLACED);
    number(placed.millis(), out);
    out.push(b',');
    let begin = out.len();
    encode(event, Time::MIN, dimensions, out);
    // The object's brace is already written.
    out.remove(begin);
}

/// Appends an event as a JSON object. `told_before` is that of [`Decoded::Several`]; `dimensions` are those of the
/// decoder that read the event.
pub fn encode(event: &Event<'_>, told_before: Time, dimensions: &[String], out: &mut Vec<u8>) {
    if event.time < told_before {
        out.extend_from_slice(TOLD_BEFORE);
        number(told_before.millis(), out);
        out.push(b',');
    } else {
        out.push(b'{');
    }
    out.extend_from_slice(b"\"type\":\"");
    out.extend_from_slice(event.kind.event_type().name().as_bytes());
    out.extend_from_slice(b"\",\"customer_id\":");
    text(&event.customer, out);
    out.extend_from_slice(b",\"time\":");
    number(event.time.millis(), out);
    match &event.kind {
        Kind::Order { id, amount, attributes, referred_by } => {
            optional(b"order_id", id.as_deref(), out);
            money(amount, out);
            profile(attributes, referred_by.as_deref(), dimensions, out);
        }
        Kind::Refund { id, amount } => match event.kind.as_reversed_refund() {
            Some((id, amount)) => {
                out.extend_from_slice(b",\"reversed\":true");
                optional(b"refund_id", id, out);
                money(&amount, out);
            }
            None => {
                optional(b"refund_id", id.as_deref(), out);
                money(amount, out);
            }
        },
        Kind::Cancel { order, amount } => {
            optional(b"order_id", order.as_deref(), out);
            money(amount, out);
        }
        Kind::Session { id } => optional(b"session_id", id.as_deref(), out),
        Kind::Customer { attributes, referred_by } => profile(attributes, referred_by.as_deref(), dimensions, out),
        Kind::Feedback { kind, score } => {
            optional(b"kind", Some(kind), out);
            if let Some(score) = score.filter(|score| score.is_finite()) {
                // With a decimal point or exponent, so that it is parsed as the same number.
                _ = write!(out, ",\"score\":{score:?}");
            }
        }
        Kind::Cost { kind, amount } => {
            let kind = match kind {
                CostKind::Acquisition => "acquisition",
                CostKind::Retention => "retention",
            };
            optional(b"kind", Some(kind), out);
            money(amount, out);
        }
    }
    out.push(b'}');
}

/// Appends an erasure. A request without a time of its own gets that of its record as `time`, because the copy has
/// another timestamp.
pub fn encode_erase(customer: &str, time: Option<Time>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"erase\",\"customer_id\":");
    text(customer, out);
    if let Some(time) = time {
        out.extend_from_slice(b",\"time\":");
        number(time.millis(), out);
    }
    out.push(b'}');
}

/// Decodes the output of [`encode`] and [`encode_erase`].
pub(super) fn decode<'a>(bytes: &'a [u8], dimensions: &[String]) -> Result<Decoded<'a>, Rejection> {
    let mut fields = Fields::default();
    native::object(bytes, dimensions, &mut fields)?;
    // Accepted times are exact milliseconds, whichever unit a source's number of that size would have.
    if let Some(millis) = fields.time.as_integer() {
        fields.time = Value::Millis(millis);
    }
    Ok(match (fields.into_decoded()?, time_behind(TOLD_BEFORE, bytes)) {
        (Decoded::Event(event), None) => match time_behind(IF_PLACED, bytes) {
            Some(placed) => Decoded::Cancellation { event, placed },
            None => Decoded::Event(event),
        },
        (Decoded::Event(event), Some(told_before)) => Decoded::Several { events: vec![event], told_before },
        (decoded, _) => decoded,
    })
}

fn time_behind(prefix: &[u8], bytes: &[u8]) -> Option<Time> {
    let rest = bytes.strip_prefix(prefix)?;
    let digits = rest.split(|byte| *byte == b',').next()?;
    Time::from_millis(std::str::from_utf8(digits).ok()?.parse().ok()?).ok()
}

fn profile(attributes: &Attributes<'_>, referred_by: Option<&str>, dimensions: &[String], out: &mut Vec<u8>) {
    optional(b"referred_by", referred_by, out);
    let mut named = (0..).zip(dimensions).filter_map(|(place, name)| Some((name, attributes.get(place)?))).peekable();
    if named.peek().is_none() {
        return;
    }
    out.extend_from_slice(b",\"attributes\":");
    let mut before = b'{';
    for (name, value) in named {
        out.push(before);
        text(name, out);
        out.push(b':');
        text(value, out);
        before = b',';
    }
    out.push(b'}');
}

fn optional(name: &[u8], value: Option<&str>, out: &mut Vec<u8>) {
    let Some(value) = value else { return };
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name);
    out.extend_from_slice(b"\":");
    text(value, out);
}

fn money(amount: &Money, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"amount\":\"");
    out.extend_from_slice(decimal_text(i128::from(amount.minor), amount.currency).as_bytes());
    out.extend_from_slice(b"\",\"currency\":\"");
    out.extend_from_slice(amount.currency.code().as_bytes());
    out.push(b'"');
}

fn number(value: i64, out: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    _ = write!(out, "{value}");
}

/// Appends a JSON string with quotes.
fn text(text: &str, out: &mut Vec<u8>) {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        _ = serde_json::to_writer(&mut *out, text);
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;
    use crate::decode::Decoder;
    use crate::event::{Currency, MAX_MINOR_UNITS};

    fn dimensions() -> Vec<String> {
        ["channel", "land \"quoted\"\n"].map(str::to_owned).to_vec()
    }

    /// Arbitrary text, as other formats may pass on.
    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z0-9-]{1,20}",
            "\\PC{1,12}",
            any::<Vec<char>>().prop_filter_map("not empty", |chars| {
                let text: String = chars.into_iter().take(30).collect();
                (!text.is_empty()).then_some(text)
            })
        ]
    }

    fn any_money() -> impl Strategy<Value = Money> {
        let codes = ["EUR", "USD", "JPY", "BHD", "ISK"];
        (0..=MAX_MINOR_UNITS, 0..codes.len())
            .prop_map(move |(minor, code)| Money { minor, currency: Currency::from_code(codes[code]).unwrap() })
    }

    fn any_attributes() -> impl Strategy<Value = Attributes<'static>> {
        proptest::collection::vec(proptest::option::of(any_text()), 2).prop_map(|values| {
            let mut attributes = Attributes::default();
            for (place, value) in values.into_iter().enumerate() {
                if let Some(value) = value {
                    attributes.set(place, Cow::Owned(value));
                }
            }
            attributes
        })
    }

    fn any_kind() -> impl Strategy<Value = Kind<'static>> {
        let id = || proptest::option::of(any_text().prop_map(Cow::Owned));
        prop_oneof![
            (id(), any_money(), any_attributes(), id()).prop_map(|(id, amount, attributes, referred_by)| Kind::Order {
                id,
                amount,
                attributes,
                referred_by
            }),
            (id(), any_money()).prop_map(|(id, amount)| Kind::Refund { id, amount }),
            (id(), any_money()).prop_filter_map("moves money", |(id, amount)| {
                (amount.minor > 0).then(|| Kind::reversed_refund(id.as_deref(), amount))
            }),
            (id(), any_money()).prop_map(|(order, amount)| Kind::Cancel { order, amount }),
            id().prop_map(|id| Kind::Session { id }),
            (any_attributes(), id()).prop_map(|(attributes, referred_by)| Kind::Customer { attributes, referred_by }),
            (any::<String>(), proptest::option::of(any::<f64>().prop_filter("finite", |score| score.is_finite())))
                .prop_map(|(kind, score)| Kind::Feedback { kind: Cow::Owned(kind), score }),
            (any::<bool>(), any_money()).prop_map(|(keep, amount)| Kind::Cost {
                kind: if keep { CostKind::Retention } else { CostKind::Acquisition },
                amount
            }),
        ]
    }

    fn any_event() -> impl Strategy<Value = Event<'static>> {
        let id = any_text().prop_filter("of a legal length", |id| id.len() <= crate::event::MAX_CUSTOMER_ID_BYTES);
        (id, 0..=Time::MAX.millis(), any_kind()).prop_map(|(customer, time, kind)| Event {
            customer: Cow::Owned(customer),
            time: Time::clamped(time),
            kind,
        })
    }

    proptest! {
        #[test]
        fn every_event_comes_back_as_it_was(event in any_event(), told_before in proptest::option::of(0_i64..=7_000_000_000_000)) {
            let told_before = told_before.map_or(Time::MIN, Time::clamped);
            let mut bytes = Vec::new();
            encode(&event, told_before, &dimensions(), &mut bytes);
            let decoder = Decoder::routed(dimensions());
            let decoded = decoder.decode(None, Some(&bytes), Time::MAX);
            let expected = if event.time < told_before {
                Decoded::Several { events: vec![event], told_before }
            } else {
                Decoded::Event(event)
            };
            prop_assert_eq!(decoded, Ok(expected), "{}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn an_erasure_comes_back_and_others_read_the_events_as_native() {
        let mut bytes = Vec::new();
        let decoder = Decoder::routed(dimensions());
        for time in [None, Some(Time::clamped(1_767_323_045_007))] {
            bytes.clear();
            encode_erase("anna \"a\"", time, &mut bytes);
            let erased = Decoded::Erase { customer: "anna \"a\"".into(), time };
            assert_eq!(decoder.decode(None, Some(&bytes), Time::MAX), Ok(erased));
        }
        let event =
            Event { customer: "c".into(), time: Time::clamped(1_767_323_045_005), kind: Kind::Session { id: None } };
        bytes.clear();
        encode(&event, Time::clamped(1_767_323_045_009), &[], &mut bytes);
        assert_eq!(bytes, br#"{"told_before":1767323045009,"type":"session","customer_id":"c","time":1767323045005}"#);
        let native = Decoder::new(crate::decode::Format::Native, Vec::new());
        assert_eq!(native.decode(None, Some(&bytes), Time::MAX), Ok(Decoded::Event(event)));
    }
}
