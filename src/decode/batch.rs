//! Messages that contain several objects, each decoded separately.

use std::borrow::Cow;
use std::fmt;

use serde_json::value::RawValue;

use super::fields::excerpt;
use super::presets::CloudEvents;
use super::{Decoded, Decoder, Message, Reader, Rejection, Skip};
use crate::event::{Event, EventType};

/// One object of a message that contains several.
#[derive(Debug, Clone, PartialEq)]
pub struct Part<'a> {
    /// The result of decoding the object.
    pub decoded: Result<Decoded<'a>, Rejection>,
    /// A message in the same format that contains only this object. It becomes the dead letter if the object is
    /// rejected, so that replaying it does not count the other objects again.
    pub message: Cow<'a, [u8]>,
    /// Position in the message, counted from 1, and the number of objects.
    pub place: (usize, usize),
}

impl<'a> Part<'a> {
    /// A copy that owns its data.
    #[must_use]
    pub fn into_owned(self) -> Part<'static> {
        Part {
            decoded: self.decoded.map(Decoded::into_owned),
            message: Cow::Owned(self.message.into_owned()),
            place: self.place,
        }
    }

    /// The decoded object; a rejection names its position in the message.
    ///
    /// # Errors
    /// If the object was rejected.
    pub fn located(mut self) -> Result<Decoded<'a>, Rejection> {
        match std::mem::replace(&mut self.decoded, Ok(Decoded::Batch(Vec::new()))) {
            Err(rejection) => Err(self.locate(&rejection)),
            decoded => decoded,
        }
    }

    /// The rejection with the object's position in its detail.
    #[must_use]
    pub fn locate(&self, rejection: &Rejection) -> Rejection {
        let (place, count) = self.place;
        Rejection::new(rejection.reason, format!("object {place} of {count} in the message: {}", rejection.detail))
    }
}

/// Decodes the objects of one message. `read` returns the decoded object and a message that contains it alone. A single
/// object is decoded as the message itself.
pub(super) fn batch<'a, T>(
    objects: Vec<T>,
    mut read: impl FnMut(T) -> (Result<Decoded<'a>, Rejection>, Cow<'a, [u8]>),
) -> Result<Decoded<'a>, Rejection> {
    let count = objects.len();
    let mut parts = Vec::with_capacity(count);
    for (place, object) in (1..).zip(objects) {
        match read(object) {
            // A nested batch: its parts already have messages of their own.
            (Ok(Decoded::Batch(inner)), _) => parts.extend(inner),
            (decoded, message) => parts.push(Part { decoded, message, place: (place, count) }),
        }
    }
    match parts.len() {
        0 => Ok(Decoded::Skipped(Skip::Empty)),
        1 => parts.swap_remove(0).decoded,
        _ => Ok(Decoded::Batch(parts)),
    }
}

/// Like [`batch`], for a message that is a JSON list; `None` if it is not a list.
pub(super) fn of_list<'a>(
    bytes: &'a [u8],
    mut decode: impl FnMut(&'a [u8]) -> Result<Decoded<'a>, Rejection>,
) -> Option<Result<Decoded<'a>, Rejection>> {
    if bytes.trim_ascii_start().first() != Some(&b'[') {
        return None;
    }
    let objects: Vec<&'a RawValue> = serde_json::from_slice(bytes).ok()?;
    Some(batch(objects, |object| {
        let object = object.get().as_bytes();
        (decode(object), Cow::Borrowed(object))
    }))
}

/// `bytes` with `list` replaced by a list of `object` alone; both are slices of `bytes`.
#[allow(dead_code, reason = "for formats whose messages hold lists of events")]
pub(super) fn with_only(bytes: &[u8], list: &str, object: &str) -> Vec<u8> {
    let begin = (list.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize);
    match (bytes.get(..begin), begin.checked_add(list.len()).and_then(|end| bytes.get(end..))) {
        (Some(before), Some(after)) => [before, b"[", object.as_bytes(), b"]", after].concat(),
        // `list` is not a slice of the message.
        _ => object.as_bytes().to_vec(),
    }
}

impl Decoded<'_> {
    /// Values of the metric label `type`, one per event; none for skipped messages.
    #[must_use]
    pub fn event_types(&self) -> Vec<EventType> {
        match self {
            Decoded::Event(event) | Decoded::Cancellation { event, .. } => vec![event.kind.event_type()],
            Decoded::Several { events, .. } => events.iter().map(|event| event.kind.event_type()).collect(),
            Decoded::Erase { .. } => vec![EventType::Erase],
            Decoded::Unknown(_) => vec![EventType::Unknown],
            Decoded::Skipped(_) => Vec::new(),
            Decoded::Batch(parts) => {
                parts.iter().filter_map(|part| part.decoded.as_ref().ok()).flat_map(Decoded::event_types).collect()
            }
        }
    }

    /// The events, in message order.
    #[must_use]
    pub fn events(&self) -> Vec<&Event<'_>> {
        match self {
            Decoded::Event(event) | Decoded::Cancellation { event, .. } => vec![event],
            Decoded::Several { events, .. } => events.iter().collect(),
            Decoded::Erase { .. } | Decoded::Unknown(_) | Decoded::Skipped(_) => Vec::new(),
            Decoded::Batch(parts) => {
                parts.iter().filter_map(|part| part.decoded.as_ref().ok()).flat_map(Decoded::events).collect()
            }
        }
    }
}

impl Decoder {
    /// Decodes a list of objects, each like a message of its own; returns `otherwise` if it is not a list.
    #[cold]
    pub(super) fn read_list<'a>(
        &self,
        message: &Message<'a>,
        bytes: &'a [u8],
        otherwise: Result<Decoded<'a>, Rejection>,
    ) -> Result<Decoded<'a>, Rejection> {
        // The headers contain the id of a single event.
        if matches!(self.reader, Reader::CloudEvents(_)) && CloudEvents::is_binary(message) {
            return otherwise;
        }
        let decode = |object: &'a [u8]| {
            let message = Message { payload: Some(object), ..message.clone() };
            self.reader.decode(&message, object, &self.dimensions)
        };
        of_list(bytes, decode).unwrap_or(otherwise)
    }

    /// Explains why an object is counted as `unknown`, with the types that the format knows.
    #[must_use]
    pub fn explain_unknown(&self, unknown: &Unknown<'_>) -> String {
        let (name, known) = self.reader.known();
        let mut text = format!("{unknown} is not an event of format {name}");
        if !known.is_empty() {
            text.push_str("; known types are ");
            text.push_str(&known.join(", "));
        }
        if let Some(hint) = unknown.hint {
            text.push_str("; ");
            text.push_str(hint);
        }
        text
    }
}

/// An object that is not an event of its format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown<'a> {
    /// The field that distinguishes the objects of the format, such as `type`.
    pub field: &'static str,
    /// Its value; `None` if the field is missing.
    pub name: Option<Cow<'a, str>>,
    /// How to send or read the event instead, if known.
    pub hint: Option<&'static str>,
}

impl<'a> Unknown<'a> {
    /// An object whose `field` has the value `name`.
    #[must_use]
    pub fn of(field: &'static str, name: Option<Cow<'a, str>>) -> Unknown<'a> {
        Unknown { field, name, hint: None }
    }

    /// Adds a hint.
    #[must_use]
    pub fn with_hint(self, hint: &'static str) -> Unknown<'a> {
        Unknown { hint: Some(hint), ..self }
    }

    /// A copy that owns its data.
    #[must_use]
    pub fn into_owned(self) -> Unknown<'static> {
        Unknown { field: self.field, name: self.name.map(|name| Cow::Owned(name.into_owned())), hint: self.hint }
    }
}

/// For example `type "payment_intent.succeeded"`; long values are shortened.
impl fmt::Display for Unknown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} {:?}", self.field, excerpt(name)),
            None => write!(f, "an object without {}", self.field),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Format, Reason};
    use crate::event::Time;

    fn order(id: &str) -> String {
        format!(
            r#"{{"type":"order","customer_id":"c","order_id":"{id}","time":1767323045009,"amount":1,"currency":"EUR"}}"#
        )
    }

    fn decode(message: &str) -> Result<Decoded<'static>, Rejection> {
        let decoder = Decoder::new(Format::Native, vec![]);
        decoder.decode(None, Some(message.as_bytes()), Time::clamped(1_767_323_046_000)).map(Decoded::into_owned)
    }

    #[test]
    fn each_object_of_a_list_is_read_on_its_own_and_can_go_on_alone() {
        let message = format!(" [{}, {{\"type\":\"order\"}} ,{{\"type\":\"wish\"}},7,{}]", order("a"), order("b"));
        let Ok(Decoded::Batch(parts)) = decode(&message) else { panic!("a batch") };
        assert_eq!(parts.len(), 5);
        for part in &parts {
            let alone = std::str::from_utf8(&part.message).unwrap();
            assert_eq!(decode(alone), part.decoded, "{alone}");
        }
        assert!(matches!(&parts[0].decoded, Ok(Decoded::Event(event)) if event.kind.id() == Some("a")));
        let Err(rejection) = &parts[1].decoded else { panic!("rejected") };
        let located = parts[1].locate(rejection);
        let expected = "missing_field: object 2 of 5 in the message: customer_id is missing; if the key";
        assert!(located.to_string().starts_with(expected), "{located}");
        assert_eq!(parts[2].decoded, Ok(Decoded::Unknown(Unknown::of("type", Some("wish".into())))));
        assert_eq!(parts[3].decoded.as_ref().map_err(|rejection| rejection.reason), Err(Reason::NotAnObject));
        assert!(matches!(&parts[4].decoded, Ok(Decoded::Event(event)) if event.kind.id() == Some("b")));
    }

    #[test]
    fn a_time_ahead_of_the_clock_rejects_its_object_alone() {
        let message = format!("[{},{}]", order("a"), order("b").replace("5009,", "6001,"));
        let Ok(Decoded::Batch(parts)) = decode(&message) else { panic!("a batch") };
        assert!(parts[0].decoded.is_ok());
        assert_eq!(parts[1].decoded.as_ref().map_err(|rejection| rejection.reason), Err(Reason::InTheFuture));
    }

    #[test]
    fn lists_of_one_and_of_none_and_what_is_no_list() {
        assert_eq!(decode(&format!("[{}]", order("a"))), decode(&order("a")));
        assert_eq!(decode("[]"), Ok(Decoded::Skipped(Skip::Empty)));
        for (message, reason) in [("[", Reason::InvalidJson), ("[1,]", Reason::InvalidJson), ("7", Reason::NotAnObject)]
        {
            assert_eq!(decode(message).unwrap_err().reason, reason, "{message}");
        }
    }

    #[test]
    fn a_message_with_one_object_of_its_list_keeps_all_else() {
        let message = r#"{"a":1,"batch":[{"b":2}, {"c":3}],"d":4}"#;
        let (list, object) = (&message[15..33], &message[25..32]);
        assert_eq!((list, object), (r#"[{"b":2}, {"c":3}]"#, r#"{"c":3}"#));
        let alone = with_only(message.as_bytes(), list, object);
        assert_eq!(String::from_utf8(alone).unwrap(), r#"{"a":1,"batch":[{"c":3}],"d":4}"#);
    }

    #[test]
    fn an_unknown_type_is_named_in_few_words() {
        let long = "x".repeat(5_000);
        assert!(Unknown::of("type", Some(Cow::Borrowed(&long))).to_string().len() < 100);
        assert_eq!(Unknown::of("type", Some("a \"b\"".into())).to_string(), r#"type "a \"b\"""#);
        assert_eq!(Unknown::of("op", None).to_string(), "an object without op");
    }
}
