//! Third-party formats, read according to their published documentation.

mod cloudevents;
mod custom;
mod debezium;
mod ga4;
mod headers;
mod refunds;
mod segment;
mod shopify;
mod snowplow;
mod stripe;
mod types;

use std::borrow::Cow;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

pub(super) use cloudevents::CloudEvents;
pub(super) use custom::Custom;
pub(super) use debezium::Debezium;
pub(super) use ga4::Ga4;
pub(super) use segment::Segment;
pub(super) use shopify::Shopify;
pub(super) use snowplow::Snowplow;
pub(super) use stripe::Stripe;
pub(super) use types::constant_type;

use super::conditions::Conditions;
use super::fields::{Fields, Value};
use super::options::{Guests, OptionError, Options, Salt};
use super::paths::{MAX_SLOTS, Paths, Slots, in_each};
use super::rules::Rules;
use super::{Decoded, Rejection, Skip, Unknown};
use crate::event::{Attributes, Event, EventType, HOUR, Time};

/// An event this much older than its message is taken for a repetition.
const TOLD_BEFORE: i64 = HOUR;

/// Options that all third-party formats share.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Common {
    guests: Guests,
    salt: Option<Salt>,
    /// Dimension and slot of each attribute.
    attributes: Vec<(usize, usize)>,
    /// Currency of messages that name none.
    currency: Option<String>,
    /// How the source writes ids, instants and amounts.
    rules: Rules,
    /// Conditions that select the objects that count.
    only: Conditions,
}

impl Common {
    /// Adds the paths of the attributes: the configured ones, otherwise those of `usual`.
    fn new(
        options: &Options,
        dimensions: &[String],
        paths: &mut Paths,
        usual: impl Fn(&str) -> Option<String>,
    ) -> Result<Common, OptionError> {
        let mut attributes = Vec::new();
        if let Some(name) = options.attributes.keys().find(|name| !dimensions.contains(name)) {
            let what = format!("{name:?} is not among customers.dimensions; add it there");
            return Err(OptionError::new(format!("attributes.{name}"), what));
        }
        for (dimension, name) in dimensions.iter().enumerate() {
            if let Some(place) = options.attributes.get(name).cloned().or_else(|| usual(name)) {
                attributes.push((dimension, slot(paths, &format!("attributes.{name}"), &place)?));
            }
        }
        if options.guests == Guests::EmailHash && options.salt_file.is_none() && options.salt.is_none() {
            let what =
                "hashes need a salt, or anyone can try addresses; write salt_file, the path of a file that holds one";
            return Err(OptionError::new("guests", what));
        }
        let currency = options.currency.clone();
        if let Some(code) = currency.as_deref().filter(|code| crate::event::Currency::from_code(code).is_err()) {
            let what = format!("{code:?} is no ISO 4217 code in capitals; write one such as \"EUR\"");
            return Err(OptionError::new("currency", what));
        }
        let only = Conditions::new(options, paths)?;
        let (guests, salt) = (options.guests, options.salt.clone());
        Ok(Common { guests, salt, attributes, currency, rules: Rules::new(options)?, only })
    }

    /// Returns why `mapping.where` does not select an object, if so.
    fn chosen(&self, slots: &Slots<'_>) -> Result<(), Skip> {
        self.chosen_beside(slots, None)
    }

    /// Like [`Common::chosen`]; fields that the object lacks are looked up in `beside`, the surrounding object.
    fn chosen_beside(&self, slots: &Slots<'_>, beside: Option<&Slots<'_>>) -> Result<(), Skip> {
        if self.only.is_empty() { Ok(()) } else { self.only.check_beside(slots, beside) }
    }

    /// Builds the event.
    fn event<'a>(&self, mut fields: Fields<'a>, event_type: EventType) -> Result<Event<'a>, Rejection> {
        self.rules.settle(&mut fields)?;
        fields.into_event(event_type)
    }

    /// Builds the event of a configurable type, which may be an erasure.
    fn decoded<'a>(&self, mut fields: Fields<'a>, event_type: EventType) -> Result<Decoded<'a>, Rejection> {
        self.rules.settle(&mut fields)?;
        event(fields, event_type)
    }

    /// Whether the attribute of a dimension has a path.
    pub(in crate::decode) fn reads_attribute(&self, dimension: usize) -> bool {
        self.attributes.iter().any(|(known, _)| *known == dimension)
    }

    /// Whether events without a customer id are skipped.
    pub(in crate::decode) fn drops_guests(&self) -> bool {
        self.guests == Guests::Drop
    }

    fn attributes<'a>(&self, slots: &Slots<'a>) -> Attributes<'a> {
        let mut attributes = Attributes::default();
        for &(dimension, slot) in &self.attributes {
            match slots.value(slot) {
                Value::Text(text) if !text.is_empty() => attributes.set(dimension, text),
                Value::Number(digits) => attributes.set(dimension, Cow::Borrowed(digits)),
                _ => {
                    if let Some(boolean @ ("true" | "false")) = slots.raw(slot) {
                        attributes.set(dimension, Cow::Borrowed(boolean));
                    }
                }
            }
        }
        attributes
    }

    /// The customer id of an event. Without one, `guests` decides who the customer is.
    fn customer<'a>(&self, id: Value<'a>, anonymous: Value<'a>, email: &Value<'a>) -> Result<Value<'a>, Skip> {
        let (id, anonymous) = (id.into_id(), anonymous.into_id());
        // Some languages write false for a missing value.
        let is_nobody = |value: &Value<'_>| self.rules.is_nobody(value) || *value == Value::Other("a boolean");
        if !is_nobody(&id) {
            return Ok(id);
        }
        let guest = if id == Value::Absent { Skip::Guest } else { Skip::Nobody };
        match self.guests {
            Guests::AnonymousId if !is_nobody(&anonymous) => Ok(anonymous),
            Guests::EmailHash if !is_nobody(email) => match (email, &self.salt) {
                (Value::Text(email), Some(salt)) => Ok(Value::Text(Cow::Owned(email_hash(&salt.0, email)))),
                _ => Err(guest),
            },
            _ => Err(guest),
        }
    }

    /// The first e-mail address that is not a placeholder.
    fn email<'a, const N: usize>(&self, slots: &Slots<'a>, emails: [usize; N]) -> Value<'a> {
        let mut addresses = emails.into_iter().map(|slot| slots.value(slot));
        addresses.find(|address| !self.rules.is_nobody(address)).unwrap_or_default()
    }

    fn currency<'a>(&self, named: Value<'a>) -> Value<'a> {
        match (named.unless_blank(), &self.currency) {
            (Value::Absent, Some(code)) => Value::Text(Cow::Owned(code.clone())),
            (named, _) => in_capitals(named),
        }
    }
}

/// The event around an object.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::decode) struct Outside<'m> {
    /// The type of the event.
    pub event_type: Option<&'m str>,
    /// The event itself, if there are conditions.
    pub object: Option<&'m [u8]>,
}

/// SHA-256 of the salt followed by the trimmed lower-case address, in hexadecimal.
fn email_hash(salt: &str, email: &str) -> String {
    let digest = Sha256::new().chain_update(salt).chain_update(email.trim().to_lowercase()).finalize();
    hex(&digest)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A currency code in upper case.
fn in_capitals(code: Value<'_>) -> Value<'_> {
    match code {
        Value::Text(code) if code.bytes().any(|byte| byte.is_ascii_lowercase()) => {
            Value::Text(Cow::Owned(code.to_ascii_uppercase()))
        }
        other => other,
    }
}

/// Adds the path of an option and returns its slot.
pub(super) fn slot(paths: &mut Paths, option: &str, place: &str) -> Result<usize, OptionError> {
    if place.is_empty() || (!place.starts_with('/') && place.split('.').any(str::is_empty)) {
        let what =
            format!("{place:?} is no place in a message; write names with dots between them, such as \"order.total\"");
        return Err(OptionError::new(option, what));
    }
    if let (Some((list, inside)), known) = (in_each(place), paths.list())
        && (inside.contains(".*.") || known.is_some_and(|known| known != list))
    {
        let what = format!("{place:?} is in another list than the places before it; one list of a message can be read");
        return Err(OptionError::new(option, what));
    }
    paths.add(place).ok_or_else(|| {
        OptionError::new(option, format!("is one place too many; at most {MAX_SLOTS} can be read, so leave some out"))
    })
}

/// Normalizes instants that documentation of shops and warehouses calls ISO 8601: RFC 3339, also with a blank for "T",
/// with " UTC" for the offset, or without an offset, which means UTC.
fn in_utc(value: Value<'_>) -> Value<'_> {
    let Value::Text(text) = &value else { return value };
    let trimmed = text.strip_suffix(" UTC").unwrap_or(text);
    let rest = trimmed.get(19..);
    let has_offset = trimmed.ends_with(['Z', 'z']) || rest.is_some_and(|rest| rest.contains(['+', '-']));
    let is_usual = has_offset && trimmed.as_bytes().get(10) != Some(&b' ');
    if rest.is_none() || is_usual {
        value
    } else {
        let zone = if has_offset { "" } else { "Z" };
        Value::Text(Cow::Owned(format!("{}{zone}", trimmed.replacen(' ', "T", 1))))
    }
}

/// The events of one message. Those that happened long before it was sent are taken for repetitions.
fn told<'a>(mut events: Vec<Event<'a>>, sent: Option<Time>) -> Decoded<'a> {
    let told_before = sent.map_or(Time::MIN, |sent| sent.plus(-TOLD_BEFORE));
    match events.pop() {
        Some(event) if events.is_empty() && event.time >= told_before => Decoded::Event(event),
        Some(last) => {
            events.push(last);
            Decoded::Several { events, told_before }
        }
        None => Decoded::Unknown(Unknown::of("event", None)),
    }
}

/// Builds an event or an erasure.
fn event(fields: Fields<'_>, event_type: EventType) -> Result<Decoded<'_>, Rejection> {
    match event_type {
        EventType::Erase => fields.into_erasure(),
        EventType::Unknown => Ok(Decoded::Unknown(Unknown::of("type", None))),
        _ => fields.into_event(event_type).map(Decoded::Event),
    }
}

/// The value, or a return from the function because the message is skipped.
macro_rules! or_skip {
    ($customer:expr) => {
        match $customer {
            Ok(customer) => customer,
            Err(skip) => return Ok(Decoded::Skipped(skip)),
        }
    };
}
use or_skip;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_hashed_as_sql_would() {
        // printf 'pepperann@example.com' | sha256sum
        let expected = "831740710d6a8225c6ad8e71610353afdfcf9f6a3caa448dc11ab17a513081c2";
        let hash = email_hash("pepper", " Ann@Example.COM ");
        assert_eq!(hash, email_hash("pepper", "ann@example.com"));
        assert_ne!(hash, email_hash("salt", "ann@example.com"));
        assert_eq!(hash, expected);
    }

    #[test]
    fn iso_8601_without_an_offset_is_utc() {
        for (text, utc) in [
            ("2026-01-02 03:04:05.678", "2026-01-02T03:04:05.678Z"),
            ("2026-01-02T03:04:05", "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05-05:00", "2026-01-02T03:04:05-05:00"),
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
            ("2026-01-02 03:04:05.678000+00:00", "2026-01-02T03:04:05.678000+00:00"),
            ("2026-01-02 03:04:05.678 UTC", "2026-01-02T03:04:05.678Z"),
            ("2026-01-02 03:04:05Z", "2026-01-02T03:04:05Z"),
            ("2026", "2026"),
        ] {
            assert_eq!(in_utc(Value::Text(text.into())), Value::Text(utc.into()));
        }
    }
}
