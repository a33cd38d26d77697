//! Reads an object inside another one: `mapping.root`, such as `detail` for events of EventBridge.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::batch::{batch, with_only};
use super::options::{LineMode, OptionError, Options};
use super::paths::{Paths, in_each};
use super::presets::slot;
use super::reader::Reader;
use super::{Decoded, Message, Reason, Rejection, json};

/// Reads the object at one path of each message.
#[derive(Debug, Clone)]
pub(super) struct Rooted {
    place: String,
    paths: Paths,
    pub reader: Reader,
}

impl Rooted {
    /// `None` if `root` is not set.
    pub fn new(
        options: &Options,
        inner: impl FnOnce(&Options) -> Result<Reader, OptionError>,
    ) -> Result<Option<Rooted>, OptionError> {
        let Some(place) = &options.root else { return Ok(None) };
        if options.lines == LineMode::Sum {
            let what = "cannot be combined with lines = \"sum\"; write where the object lies into fields, such as \"detail.id\"";
            return Err(OptionError::new("root", what));
        }
        if in_each(place).is_some() || place.ends_with(".*") {
            let what = format!("{place:?} has a *; write the place of the list, whose objects are read one by one");
            return Err(OptionError::new("root", what));
        }
        let mut paths = Paths::default();
        slot(&mut paths, "root", place)?;
        let reader = inner(&Options { root: None, ..options.clone() })?;
        Ok(Some(Rooted { place: place.clone(), paths, reader }))
    }

    pub fn decode<'a>(
        &self,
        message: &Message<'a>,
        bytes: &'a [u8],
        dimensions: &[String],
    ) -> Result<Decoded<'a>, Rejection> {
        let slots = self.paths.read(bytes)?;
        let Some(object) = slots.raw(0) else {
            let text = std::str::from_utf8(bytes).ok().filter(|_| slots.leads_through_text());
            return match text.and_then(|text| self.paths.opened(text)) {
                Some(opened) => self.decode_owned(message, opened.as_bytes(), dimensions),
                None => Err(Rejection::new(
                    Reason::MissingField,
                    format!("{} is missing, where root in the source's mapping says that the object lies", self.place),
                )),
            };
        };
        if let Some(opened) = json::in_a_string(object).and_then(|inner| json::spliced(bytes, object, &inner)) {
            return self.decode_owned(message, &opened, dimensions);
        }
        let read = |object: &'a str| {
            let message = Message { payload: Some(object.as_bytes()), ..message.clone() };
            self.reader.decode(&message, object.as_bytes(), dimensions)
        };
        match object.as_bytes().first() {
            Some(b'{') => read(object),
            Some(b'[') => {
                let objects: Vec<&'a RawValue> = serde_json::from_str(object).unwrap_or_default();
                let each = |one: &'a RawValue| (read(one.get()), Cow::Owned(with_only(bytes, object, one.get())));
                batch(objects, each)
            }
            _ => Err(Rejection::new(Reason::NotAnObject, format!("{} must be a JSON object", self.place))),
        }
    }

    fn decode_owned(
        &self,
        message: &Message<'_>,
        bytes: &[u8],
        dimensions: &[String],
    ) -> Result<Decoded<'static>, Rejection> {
        let message = Message { payload: Some(bytes), ..message.clone() };
        self.decode(&message, bytes, dimensions).map(Decoded::into_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Decoder, Format, Skip};
    use crate::event::Time;

    const ORDER: &str = r#"{"type":"order","customer_id":"c","time":1767607200,"amount":1,"currency":"EUR"}"#;

    fn decode(root: &str, message: &str) -> Result<Decoded<'static>, Rejection> {
        let options = Options { root: Some(root.to_owned()), ..Options::default() };
        let decoder = Decoder::with_options(Format::Native, vec![], &options).unwrap();
        decoder.decode(None, Some(message.as_bytes()), Time::MAX).map(Decoded::into_owned)
    }

    #[test]
    fn the_object_is_found_where_it_lies() {
        let plain = Decoder::new(Format::Native, vec![]);
        let expected = plain.decode(None, Some(ORDER.as_bytes()), Time::MAX).map(Decoded::into_owned);
        assert!(matches!(expected, Ok(Decoded::Event(_))), "{expected:?}");
        let in_a_string = serde_json::Value::from(ORDER);
        let deeper = serde_json::Value::from(format!(r#"{{"b":{ORDER}}}"#));
        for (root, message) in [
            ("detail", format!(r#"{{"detail":{ORDER},"id":"7"}}"#)),
            ("detail", format!(r#"{{"detail":{in_a_string}}}"#)),
            ("a.b", format!(r#"{{"a":{{"b":{ORDER}}}}}"#)),
            ("a.b", format!(r#"{{"a":{deeper}}}"#)),
            ("/a.b", format!(r#"{{"a.b":{ORDER}}}"#)),
            ("rows", format!(r#"{{"rows":[{ORDER}]}}"#)),
        ] {
            assert_eq!(decode(root, &message), expected, "{root}: {message}");
        }
    }

    #[test]
    fn the_objects_of_a_list_can_go_on_alone() {
        let message = format!(r#"{{"rows":[{ORDER},{{"type":"order"}}],"x":1}}"#);
        let Ok(Decoded::Batch(parts)) = decode("rows", &message) else { panic!("a batch") };
        assert_eq!(parts.len(), 2);
        assert_eq!(String::from_utf8_lossy(&parts[1].message), r#"{"rows":[{"type":"order"}],"x":1}"#);
        assert_eq!(parts[1].decoded.as_ref().map_err(|refused| refused.reason), Err(Reason::MissingField));
    }

    #[test]
    fn what_is_not_there_is_refused_with_the_name_of_the_option() {
        let refused = decode("detail", ORDER).unwrap_err();
        assert_eq!(refused.reason, Reason::MissingField);
        assert!(refused.detail.contains("root"), "{}", refused.detail);
        assert_eq!(decode("detail", r#"{"detail":7}"#).unwrap_err().reason, Reason::NotAnObject);
        assert_eq!(decode("detail", r#"{"detail":[]}"#), Ok(Decoded::Skipped(Skip::Empty)));
        let sum = Options { root: Some("a".into()), lines: LineMode::Sum, ..Options::default() };
        assert!(Decoder::with_options(Format::Custom, vec![], &sum).is_err());
        let starred = Options { root: Some("a.*.b".into()), ..Options::default() };
        assert!(Decoder::with_options(Format::Custom, vec![], &starred).is_err());
    }
}
