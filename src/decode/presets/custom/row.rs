//! The fields of an object, by configured paths, or of a row of a table.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::super::{Common, Outside, in_capitals, slot};
use super::several::Several;
use crate::decode::amounts::{Amounts, absolute};
use crate::decode::fields::{Fields, Reversed, Value};
use crate::decode::lines::LineSlots;
use crate::decode::options::{FieldTexts, OptionError, Options, RECORD_KEY, RECORD_TIME};
use crate::decode::paths::{Paths, Slots};
use crate::decode::{Message, Reason, Rejection, Skip, decimals, json, key};
use crate::event::{Attributes, EventType};

/// Where a field comes from.
#[derive(Debug, Clone)]
enum FieldSource {
    Slot(usize),
    Constant(String),
    Key,
    Sent,
}

/// Fields that may be numbers as bytes in base64.
const SCALED: [&str; 7] = ["amount", "quantity", "customer_id", "order_id", "refund_id", "session_id", "referred_by"];

/// Scales of the fields in [`SCALED`] that are bytes according to the schema.
pub(in crate::decode) type Scales = [Option<i32>; SCALED.len()];

/// How the fields of an object are found and read.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Row {
    pub(super) paths: Paths,
    pub common: Common,
    origins: BTreeMap<&'static str, FieldSource>,
    pub(super) amounts: Amounts,
    /// Options that name a path, with the slot of the path.
    explicit: Vec<(String, usize)>,
    scale: Option<i32>,
    /// Paths to the fields that may be bytes with a scale, with the index of each in [`SCALED`].
    scaled: Vec<(usize, Vec<String>)>,
    /// Slot of the nanos, if the amount is the `units` of a `google.type.Money`.
    nanos: Option<usize>,
    /// First names of the paths into nested values.
    pub(super) through: Vec<String>,
    several: Several,
}

/// Context of an object.
#[derive(Debug, Clone, Copy)]
pub(in crate::decode) struct Around<'m, 'a> {
    pub message: &'m Message<'a>,
    /// Scales of fields that are bytes, from the object's schema.
    pub scales: Scales,
    /// The surrounding event, if the object is the data of one.
    pub outside: Outside<'m>,
}

impl Row {
    /// Fields that the options do not name are at the paths of `usual`.
    pub fn new(options: &Options, dimensions: &[String], usual: &FieldTexts) -> Result<Row, OptionError> {
        let mut paths = Paths::hiding_unavailable();
        let mut origins = BTreeMap::new();
        for (name, constant) in options.constants.iter() {
            if options.fields.iter().any(|(field, _)| field == name) {
                let what = "is in fields too; keep one of the two".to_owned();
                return Err(OptionError::new(format!("constants.{name}"), what));
            }
            origins.insert(name, FieldSource::Constant(constant.to_owned()));
        }
        let places = options.fields.or(usual);
        let mut through: Vec<String> = Vec::new();
        let mut explicit = Vec::new();
        for (name, place) in
            places.iter().filter(|(name, _)| !options.constants.iter().any(|(known, _)| known == *name))
        {
            let option = format!("fields.{name}");
            let is_explicit = options.fields.iter().any(|(field, _)| field == name);
            let origin = match place {
                RECORD_KEY => FieldSource::Key,
                RECORD_TIME if name == "time" => FieldSource::Sent,
                _ if place.starts_with('$') => {
                    let what = format!(
                        "{place:?} is nothing that a record has; write {RECORD_KEY:?}, {RECORD_TIME:?} (for time), a place in \
                         the message, or the value itself under constants"
                    );
                    return Err(OptionError::new(option, what));
                }
                _ => FieldSource::Slot(slot(&mut paths, &option, place)?),
            };
            if let FieldSource::Slot(slot) = origin
                && is_explicit
            {
                explicit.push((option, slot));
            }
            if let (FieldSource::Slot(_), Some((first, _))) = (&origin, place.split_once('.'))
                && !place.starts_with('/')
                && !through.iter().any(|known| known == first)
            {
                through.push(first.to_owned());
            }
            origins.insert(name, origin);
        }
        let several = Several::new(options, &mut paths, &mut explicit)?;
        let common = Common::new(options, dimensions, &mut paths, |_| None)?;
        let chosen = options.only.keys().map(|place| (format!("where.{place:?}"), place));
        for (option, place) in
            chosen.chain(options.attributes.iter().map(|(name, place)| (format!("attributes.{name}"), place)))
        {
            let slot = slot(&mut paths, &option, place)?;
            explicit.push((option, slot));
        }
        let amount = places.amount.as_deref().filter(|_| options.constants.amount.is_none());
        let nanos = match amount.and_then(|place| place.strip_suffix("units")) {
            Some(beside) if beside.ends_with(['.', '/']) => {
                Some(slot(&mut paths, "fields.amount", &format!("{beside}nanos"))?)
            }
            _ => None,
        };
        Ok(Row {
            paths,
            nanos,
            common,
            origins,
            amounts: Amounts::new(options)?,
            explicit,
            scale: options.amount_scale,
            scaled: ways(&places),
            through,
            several,
        })
    }

    /// Adds a path.
    pub fn add(&mut self, option: &str, place: &str) -> Result<usize, OptionError> {
        slot(&mut self.paths, option, place)
    }

    pub fn read<'a>(&self, bytes: &'a [u8]) -> Result<Slots<'a>, Rejection> {
        self.paths.read(bytes)
    }

    /// Whether there are conditions.
    pub fn chooses(&self) -> bool {
        !self.common.only.is_empty()
    }

    /// Returns why `mapping.where` does not select an object, if so; `outside` may contain the fields that it refers
    /// to.
    pub(super) fn chosen(&self, slots: &Slots<'_>, outside: Outside<'_>) -> Result<Result<(), Skip>, Rejection> {
        let outside = outside.object.map(|object| self.paths.read(object)).transpose()?;
        Ok(self.common.chosen_beside(slots, outside.as_ref()))
    }

    /// Whether `mapping.where` selects the object.
    pub fn counts(&self, slots: &Slots<'_>) -> bool {
        self.common.only.hold(slots)
    }

    /// Whether the time is configured: as a field, as that of the record, or as a constant.
    pub fn has_time(&self) -> bool {
        self.origins.contains_key("time")
    }

    /// The scales of the fields that the schema declares as bytes; `way` is the path to the object.
    pub fn scales_in(&self, schema: &str, way: &[&str]) -> Scales {
        let mut scales = Scales::default();
        let Some(schema) = decimals::Schema::parse(schema) else { return scales };
        for (place, own) in &self.scaled {
            let is_wrapped = own.first().is_some_and(|first| first == "payload") && way.is_empty();
            let own = own.iter().skip(usize::from(is_wrapped)).map(String::as_str);
            scales[*place] = schema.scale(way.iter().copied().chain(own));
        }
        scales
    }

    /// The value of a field as it is in the message.
    pub fn field<'a>(&self, slots: &Slots<'a>, around: Around<'_, 'a>, name: &str) -> Result<Value<'a>, Rejection> {
        Ok(match self.origins.get(name) {
            Some(FieldSource::Slot(slot)) => match (slots.value(*slot), slots.raw(*slot)) {
                (Value::Other(found), Some(json)) => decimals::unwrapped(json).unwrap_or(Value::Other(found)),
                (value, _) => value,
            },
            Some(FieldSource::Constant(text)) => Value::Text(Cow::Owned(text.clone())),
            Some(FieldSource::Key) => around.message.key.map_or(Ok(Value::Absent), key::id)?,
            Some(FieldSource::Sent) => around.message.time.map_or(Value::Absent, |time| Value::Millis(time.millis())),
            None => Value::Absent,
        })
    }

    /// A field that is an id: text, a number, or the bytes of a number.
    fn id<'a>(&self, slots: &Slots<'a>, around: Around<'_, 'a>, name: &str) -> Result<Value<'a>, Rejection> {
        let id = decimals::number(name, self.field(slots, around, name)?, around.scale(name))?;
        Ok(without_padding(id.into_id()))
    }

    /// The attributes of the configured dimensions; see [`without_padding`].
    fn attributes<'a>(&self, slots: &Slots<'a>) -> Attributes<'a> {
        let mut attributes = self.common.attributes(slots);
        for &(dimension, slot) in &self.common.attributes {
            let plain = match slots.value(slot) {
                Value::Text(text) if text.ends_with(' ') => without_padding(Value::Text(text)),
                Value::Other(_) => slots.raw(slot).and_then(decimals::unwrapped).unwrap_or_default(),
                _ => continue,
            };
            if let Some(text) = plain.into_text() {
                attributes.set(dimension, text);
            }
        }
        attributes
    }

    /// The time, combined from all its parts.
    pub fn time<'a>(&self, slots: &Slots<'a>, around: Around<'_, 'a>) -> Result<Value<'a>, Rejection> {
        self.several.joined(self.field(slots, around, "time")?, slots)
    }

    /// Whether a field has a value in the message.
    pub fn has<'a>(&self, slots: &Slots<'a>, name: &str) -> bool {
        matches!(self.origins.get(name), Some(FieldSource::Slot(slot)) if slots.raw(*slot).is_some())
    }

    pub fn instant<'a>(&self, value: Value<'a>) -> Result<Value<'a>, Rejection> {
        self.common.rules.time(value)
    }

    /// All fields except the type, or why the message is skipped.
    pub fn fields<'a>(
        &self,
        slots: &Slots<'a>,
        around: Around<'_, 'a>,
        event_type: EventType,
    ) -> Result<Result<Fields<'a>, Skip>, Rejection> {
        Ok(match self.unpriced(slots, around)? {
            Ok(fields) => {
                let amount = self.amount(slots, around, event_type)?;
                Ok(Fields { amount: self.amounts.of_currency(amount, &fields.currency), ..fields })
            }
            Err(skip) => Err(skip),
        })
    }

    /// All fields except type and amount.
    pub(super) fn unpriced<'a>(
        &self,
        slots: &Slots<'a>,
        around: Around<'_, 'a>,
    ) -> Result<Result<Fields<'a>, Skip>, Rejection> {
        let field = |name| self.field(slots, around, name);
        let id = |name| self.id(slots, around, name);
        let customer_id = id("customer_id")?;
        if customer_id == Value::Absent && slots.lacks_unavailable() {
            return Err(unavailable());
        }
        let customer = self.common.customer(customer_id, field("anonymous_id")?, &field("email")?);
        let customer_id = match customer {
            Ok(customer) => customer,
            Err(skip) => return Ok(Err(skip)),
        };
        Ok(Ok(Fields {
            event_type: Value::Absent,
            customer_id,
            time: self.time(slots, around)?,
            order_id: id("order_id")?,
            refund_id: id("refund_id")?,
            reversed: match self.slot_of("reversed") {
                Some(slot) => Reversed::of_json(slots.raw(slot).unwrap_or_default()),
                None => Reversed::of_value(&field("reversed")?),
            },
            session_id: id("session_id")?,
            amount: Value::Absent,
            currency: in_capitals(without_padding(field("currency")?)),
            referred_by: id("referred_by")?,
            kind: without_padding(field("kind")?),
            score: field("score")?,
            attributes: self.attributes(slots),
        }))
    }

    pub(super) fn amount<'a>(
        &self,
        slots: &Slots<'a>,
        around: Around<'_, 'a>,
        event_type: EventType,
    ) -> Result<Value<'a>, Rejection> {
        let json = match self.origins.get("amount") {
            Some(FieldSource::Slot(slot)) => slots.raw(*slot),
            _ => None,
        };
        let amount = match json {
            Some(json) => decimals::amount(json, around.scale("amount").or(self.scale))?,
            None => self.field(slots, around, "amount")?,
        };
        let nanos = self.nanos.and_then(|slot| slots.value(slot).as_integer());
        let amount = match (amount.as_integer(), nanos) {
            (_, None | Some(0)) => amount,
            (units, Some(nanos)) => decimals::units_and_nanos(units.unwrap_or(0), nanos).ok_or_else(|| {
                Rejection::new(Reason::InvalidAmount, format!("amount has {nanos} nanos; a unit has 1000000000"))
            })?,
        };
        let quantity = decimals::number("quantity", self.field(slots, around, "quantity")?, around.scale("quantity"))?;
        if quantity.is_blank() && self.origins.contains_key("quantity") && !amount.is_blank() {
            let what = "quantity is missing, by which the amount is to be multiplied; write 1 where the amount is that of the \
                        whole line";
            return Err(Rejection::new(Reason::MissingField, what));
        }
        let terms = self.several.terms(slots, around.scale("amount").or(self.scale))?;
        let amount = self.amounts.read(amount, terms, quantity)?;
        // Many systems write the amounts of refunds as negative numbers.
        let goes_back = matches!(event_type, EventType::Refund | EventType::Cancel);
        Ok(if goes_back { absolute(amount) } else { amount })
    }

    /// The paths of all fields and conditions, by slot.
    pub fn places(&self) -> impl Iterator<Item = (usize, &str)> {
        self.paths.places().enumerate()
    }

    /// Options that name a path, with the slot of the path.
    pub fn explicit(&self) -> &[(String, usize)] {
        &self.explicit
    }

    /// Whether figures are computed from the field in a slot, so that it must be exact.
    pub fn is_exact(&self, slot: usize) -> bool {
        let is_it = |origin: &FieldSource| matches!(origin, FieldSource::Slot(own) if *own == slot);
        self.several.has(slot) || self.origins.iter().any(|(name, origin)| *name != "score" && is_it(origin))
    }

    /// Whether a slot holds an id.
    pub fn is_id(&self, slot: usize) -> bool {
        let names = ["customer_id", "anonymous_id", "order_id", "refund_id", "session_id", "referred_by"];
        names.iter().any(|name| self.slot_of(name) == Some(slot))
    }

    /// The slots that a line of an order may leave to the line above.
    pub(super) fn line_slots(&self) -> LineSlots {
        let slots = |names: &[&str]| names.iter().filter_map(|name| self.slot_of(name)).collect::<Vec<_>>();
        let mut own = slots(&["customer_id", "anonymous_id", "email", "time", "currency", "type"]);
        own.extend(self.several.time());
        let mut others = slots(&["referred_by"]);
        let amounts = slots(&["order_id", "refund_id", "amount", "quantity"]);
        others.extend(self.common.only.slots().filter(|slot| !own.contains(slot) && !amounts.contains(slot)));
        LineSlots { order: self.slot_of("order_id"), customer: self.slot_of("customer_id"), own, others }
    }

    /// The slot of a field that is read from the message.
    pub fn slot_of(&self, name: &str) -> Option<usize> {
        match self.origins.get(name) {
            Some(FieldSource::Slot(slot)) => Some(*slot),
            _ => None,
        }
    }

    /// The message with strings replaced by the JSON that they contain, wherever a path leads into one; `None` if there
    /// is no such string.
    #[cold]
    pub fn opened(&self, bytes: &[u8], object: &[u8]) -> Option<Vec<u8>> {
        let object = std::str::from_utf8(object).ok()?;
        json::spliced(bytes, object, &self.paths.opened(object)?)
    }

    /// Whether a path leads into a nested value.
    pub fn has_nested_places(&self) -> bool {
        self.paths.has_nested_places()
    }
}

impl Around<'_, '_> {
    /// The scale of a field that is bytes.
    fn scale(&self, name: &str) -> Option<i32> {
        SCALED.iter().position(|known| *known == name).and_then(|place| self.scales[place])
    }
}

/// Paths to the fields that may be bytes with a scale.
fn ways(places: &FieldTexts) -> Vec<(usize, Vec<String>)> {
    let own = places.iter().filter(|(_, place)| !place.starts_with(['/', '$']));
    own.filter_map(|(name, place)| {
        let known = SCALED.iter().position(|known| *known == name)?;
        Some((known, place.split('.').map(str::to_owned).collect()))
    })
    .collect()
}

/// Text without the blanks that pad columns of type CHAR.
pub(in crate::decode) fn without_padding(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Text(Cow::Borrowed(text)) => Value::Text(Cow::Borrowed(text.trim_end_matches(' '))),
        Value::Text(Cow::Owned(text)) if text.ends_with(' ') => {
            Value::Text(Cow::Owned(text.trim_end_matches(' ').to_owned()))
        }
        other => other,
    }
}

#[cold]
fn unavailable() -> Rejection {
    let what = "customer_id is missing, and the message holds __debezium_unavailable_value where the database did not send a \
                value; let it send whole rows (PostgreSQL: ALTER TABLE ... REPLICA IDENTITY FULL)";
    Rejection::new(Reason::MissingField, what)
}
