//! Any JSON, by a place for each field: `format = "custom"`. Rows of tables are read the same way.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{Common, Outside, in_capitals, or_skip, slot};
use crate::decode::amounts::{Amounts, absolute};
use crate::decode::batch::{batch, with_only};
use crate::decode::fields::{Fields, Reversed, Value};
use crate::decode::lines::{Above, Line, LineSlots, OrderLine};
use crate::decode::options::{FieldTexts, LineMode, OptionError, Options, RECORD_KEY, RECORD_TIME};
use crate::decode::paths::{Paths, Slots};
use crate::decode::rules::Rules;
use crate::decode::{Decoded, Message, Reason, Rejection, Skip, Unknown, decimals, json, key};
use crate::event::{EventType, Time};

mod lists;
mod several;

use lists::element_of;
use several::Several;

/// Where a field comes from.
#[derive(Debug, Clone)]
enum FieldSource {
    Slot(usize),
    Constant(String),
    Key,
    Sent,
}

/// How the fields of an object are found and read.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Row {
    paths: Paths,
    pub common: Common,
    origins: BTreeMap<&'static str, FieldSource>,
    amounts: Amounts,
    /// The places that the options name, and which option does.
    explicit: Vec<(String, usize)>,
    scale: Option<i32>,
    /// The slot of the billionths beside an amount that is the `units` of a `google.type.Money`.
    nanos: Option<usize>,
    /// The names on the way to the amount, where it stands in the object.
    amount_way: Vec<String>,
    /// The first names on the way to fields that stand deeper in the object.
    through: Vec<String>,
    several: Several,
}

/// What surrounds an object.
#[derive(Debug, Clone, Copy)]
pub(in crate::decode) struct Around<'m, 'a> {
    pub message: &'m Message<'a>,
    /// The scale of amounts that are bytes, from the schema of the object.
    pub scale: Option<i32>,
    /// What the event says that the object is the data of.
    pub outside: Outside<'m>,
}

impl Row {
    /// Fields that the options do not name stand where `usual` says.
    pub fn new(options: &Options, dimensions: &[String], usual: &FieldTexts) -> Result<Row, OptionError> {
        let mut paths = Paths::default();
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
            amount_way: amount.map_or(Vec::new(), |place| place.split('.').map(str::to_owned).collect()),
            through,
            several,
        })
    }

    /// The slot of one more place.
    pub fn add(&mut self, option: &str, place: &str) -> Result<usize, OptionError> {
        slot(&mut self.paths, option, place)
    }

    pub fn read<'a>(&self, bytes: &'a [u8]) -> Result<Slots<'a>, Rejection> {
        self.paths.read(bytes)
    }

    /// Whether the messages are chosen at all.
    pub fn chooses(&self) -> bool {
        !self.common.only.is_empty()
    }

    /// Why an object is passed over that `mapping.where` does not choose; `outside` may hold what it asks for.
    fn chosen(&self, slots: &Slots<'_>, outside: Outside<'_>) -> Result<Result<(), Skip>, Rejection> {
        let outside = outside.object.map(|object| self.paths.read(object)).transpose()?;
        Ok(self.common.chosen_beside(slots, outside.as_ref()))
    }

    /// Whether the object is one of those that count.
    pub fn counts(&self, slots: &Slots<'_>) -> bool {
        self.common.only.hold(slots)
    }

    /// Whether the time is that of a field, of the record, or the same for all.
    pub fn has_time(&self) -> bool {
        self.origins.contains_key("time")
    }

    /// Whether a field comes from the record rather than its value.
    pub fn wants_message(&self) -> bool {
        self.origins.values().any(|origin| matches!(origin, FieldSource::Sent))
    }

    /// The scale of the amount, if the schema of an object says that it is bytes; `way` leads to the object.
    pub fn scale_in(&self, schema: &str, way: &[&str]) -> Option<i32> {
        let wrapped = self.amount_way.first().is_some_and(|first| first == "payload") && way.is_empty();
        let own = self.amount_way.iter().skip(usize::from(wrapped)).map(String::as_str);
        decimals::scale_in(schema, way.iter().copied().chain(own))
    }

    /// A field as it stands there.
    pub fn field<'a>(&self, slots: &Slots<'a>, around: Around<'_, 'a>, name: &str) -> Result<Value<'a>, Rejection> {
        Ok(match self.origins.get(name) {
            Some(FieldSource::Slot(slot)) => match (slots.value(*slot), slots.raw(*slot)) {
                (Value::Other(found), Some(json)) => json::extended(json).unwrap_or(Value::Other(found)),
                (value, _) => value,
            },
            Some(FieldSource::Constant(text)) => Value::Text(Cow::Owned(text.clone())),
            Some(FieldSource::Key) => around.message.key.map_or(Ok(Value::Absent), key::id)?,
            Some(FieldSource::Sent) => around.message.time.map_or(Value::Absent, |time| Value::Millis(time.millis())),
            None => Value::Absent,
        })
    }

    /// Whether anything stands at the place of a field.
    pub fn has<'a>(&self, slots: &Slots<'a>, name: &str) -> bool {
        matches!(self.origins.get(name), Some(FieldSource::Slot(slot)) if slots.raw(*slot).is_some())
    }

    pub fn instant<'a>(&self, value: Value<'a>) -> Result<Value<'a>, Rejection> {
        self.common.rules.time(value)
    }

    /// All fields but the type, or why the message is skipped.
    pub fn fields<'a>(
        &self,
        slots: &Slots<'a>,
        around: Around<'_, 'a>,
        event_type: EventType,
    ) -> Result<Result<Fields<'a>, Skip>, Rejection> {
        Ok(match self.unpriced(slots, around)? {
            Ok(fields) => Ok(Fields { amount: self.amount(slots, around, event_type)?, ..fields }),
            Err(skip) => Err(skip),
        })
    }

    /// All fields but type and amount.
    fn unpriced<'a>(&self, slots: &Slots<'a>, around: Around<'_, 'a>) -> Result<Result<Fields<'a>, Skip>, Rejection> {
        let field = |name| self.field(slots, around, name);
        let customer = self.common.customer(field("customer_id")?, field("anonymous_id")?, &field("email")?);
        let customer_id = match customer {
            Ok(customer) => customer,
            Err(skip) => return Ok(Err(skip)),
        };
        Ok(Ok(Fields {
            event_type: Value::Absent,
            customer_id,
            time: self.several.joined(field("time")?, slots)?,
            order_id: field("order_id")?.into_id(),
            refund_id: field("refund_id")?.into_id(),
            reversed: match self.slot_of("reversed") {
                Some(slot) => Reversed::of_json(slots.raw(slot).unwrap_or_default()),
                None => Reversed::of_value(&field("reversed")?),
            },
            session_id: field("session_id")?.into_id(),
            amount: Value::Absent,
            currency: in_capitals(field("currency")?),
            referred_by: field("referred_by")?.into_id(),
            kind: field("kind")?,
            score: field("score")?,
            attributes: self.common.attributes(slots),
        }))
    }

    fn amount<'a>(
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
            Some(json) => decimals::amount(json, around.scale.or(self.scale))?,
            None => self.field(slots, around, "amount")?,
        };
        let nanos = self.nanos.and_then(|slot| slots.value(slot).as_integer());
        let amount = match (amount.as_integer(), nanos) {
            (_, None | Some(0)) => amount,
            (units, Some(nanos)) => decimals::units_and_nanos(units.unwrap_or(0), nanos).ok_or_else(|| {
                Rejection::new(Reason::InvalidAmount, format!("amount has {nanos} nanos; a unit has 1000000000"))
            })?,
        };
        let quantity = self.field(slots, around, "quantity")?;
        if quantity.is_blank() && self.origins.contains_key("quantity") && !amount.is_blank() {
            let what = "quantity is missing, by which the amount is to be multiplied; write 1 where the amount is that of the \
                        whole line";
            return Err(Rejection::new(Reason::MissingField, what));
        }
        let terms = self.several.terms(slots, around.scale.or(self.scale))?;
        let amount = self.amounts.read(amount, terms, quantity)?;
        // Many systems write what goes back as a negative amount.
        let goes_back = matches!(event_type, EventType::Refund | EventType::Cancel);
        Ok(if goes_back { absolute(amount) } else { amount })
    }

    /// The places of all fields and conditions.
    pub fn places(&self) -> impl Iterator<Item = (usize, &str)> {
        self.paths.places().enumerate()
    }

    /// The places that the options name, and which option does.
    pub fn explicit(&self) -> &[(String, usize)] {
        &self.explicit
    }

    /// Whether a slot is that of a field which figures are computed from.
    pub fn is_exact(&self, slot: usize) -> bool {
        let is_it = |origin: &FieldSource| matches!(origin, FieldSource::Slot(own) if *own == slot);
        self.several.has(slot) || self.origins.iter().any(|(name, origin)| *name != "score" && is_it(origin))
    }

    /// Whether a slot is that of an id.
    pub fn is_id(&self, slot: usize) -> bool {
        let names = ["customer_id", "anonymous_id", "order_id", "refund_id", "session_id", "referred_by"];
        names.iter().any(|name| self.slot_of(name) == Some(slot))
    }

    /// The slots that a line of an order may leave to the line above.
    fn line_slots(&self) -> LineSlots {
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

    /// The message with the JSON that places of its object lead through in place of the text that it was put into;
    /// `None` where there is no such text.
    #[cold]
    pub fn opened(&self, bytes: &[u8], object: &[u8]) -> Option<Vec<u8>> {
        let object = std::str::from_utf8(object).ok()?;
        json::spliced(bytes, object, &self.paths.opened(object)?)
    }

    /// Whether a place leads through another value than the object itself.
    pub fn has_nested_places(&self) -> bool {
        self.paths.has_nested_places()
    }
}

/// Reads messages by places that the configuration names.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Custom {
    row: Row,
    types: BTreeMap<String, EventType>,
    /// Whether the types have the names that events have here, whose case does not matter.
    has_own_types: bool,
    /// Whether the options say where the type is found.
    has_type: bool,
    repeats: bool,
    lines: LineMode,
    /// The slots of what Kafka Connect wraps an object in: its schema and itself, where no place leads through them.
    wrapper: Option<[usize; 2]>,
    /// The slot of the schema, where places lead through `payload`.
    schema: Option<usize>,
    /// The slots of what Debezium adds to flattened rows: the operation, and whether the row was deleted.
    row_change: [usize; 2],
    /// A list of which the order id reads one element alone: its place, its slot, the number of the element.
    single: Option<(String, usize, usize)>,
    line_slots: LineSlots,
}

/// A message, and the object in it that is read.
struct Object<'m, 'a> {
    around: Around<'m, 'a>,
    whole: &'a [u8],
    slots: Slots<'a>,
}

impl Custom {
    pub fn new(options: &Options, dimensions: &[String]) -> Result<Custom, OptionError> {
        let mut row = Row::new(options, dimensions, &native_names())?;
        let own: Vec<_> = EventType::ALL.iter().map(|event_type| (event_type.name(), *event_type)).collect();
        let leads_in = |row: &Row, name: &str| row.through.iter().any(|first| first == name);
        let in_payload = leads_in(&row, "payload");
        let schema = if in_payload { Some(row.add("fields.amount", "schema")?) } else { None };
        let is_wrapped = !in_payload && !leads_in(&row, "schema");
        let wrapper = if is_wrapped {
            Some([row.add("fields.amount", "schema")?, row.add("fields.amount", "payload")?])
        } else {
            None
        };
        let change = |row: &mut Row, name: &str| {
            row.add("fields", &if in_payload { format!("payload.{name}") } else { name.to_owned() })
        };
        let row_change = [change(&mut row, "__op")?, change(&mut row, "__deleted")?];
        let single = match options.fields.order_id.as_deref().and_then(element_of) {
            Some((list, number)) => Some((list.to_owned(), row.add("fields.order_id", list)?, number)),
            None => None,
        };
        Ok(Custom {
            line_slots: row.line_slots(),
            row,
            types: options.types(&own)?,
            has_own_types: options.types.is_empty(),
            has_type: options.fields.r#type.is_some() || options.constants.r#type.is_some(),
            repeats: options.repeats,
            lines: options.lines,
            wrapper,
            schema,
            row_change,
            single,
        })
    }

    /// Whether more than key and value matters.
    pub fn wants_message(&self) -> bool {
        self.row.wants_message()
    }

    /// What the types are called.
    pub fn known(&self) -> Vec<&str> {
        self.types.keys().map(String::as_str).collect()
    }

    pub fn decode<'a>(&self, message: &Message<'a>, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        self.decode_inside(message, bytes, Outside::default())
    }

    /// The same, of the data of an event.
    pub fn decode_inside<'a>(
        &self,
        message: &Message<'a>,
        bytes: &'a [u8],
        outside: Outside<'_>,
    ) -> Result<Decoded<'a>, Rejection> {
        let mut slots = self.row.read(bytes)?;
        let mut json = bytes;
        let mut scale = None;
        if let Some([schema, payload]) = self.wrapper
            && slots.is_there(schema)
            && let Some(inner) = slots.raw(payload)
        {
            if let Some(text) = json::in_a_string(inner) {
                return self.decode_owned(message, text.as_bytes(), outside);
            }
            if inner.starts_with('{') {
                scale = slots.raw(schema).and_then(|schema| self.row.scale_in(schema, &[]));
                (slots, json) = (self.row.read(inner.as_bytes())?, inner.as_bytes());
            }
        } else if let Some(schema) = self.schema.and_then(|schema| slots.raw(schema)) {
            scale = self.row.scale_in(schema, &[]);
        }
        if slots.leads_through_text()
            && let Some(bytes) = self.row.opened(bytes, json)
        {
            return self.decode_owned(message, &bytes, outside);
        }
        self.objects(&Object { around: Around { message, scale, outside }, whole: bytes, slots })
    }

    fn decode_owned(
        &self,
        message: &Message<'_>,
        bytes: &[u8],
        outside: Outside<'_>,
    ) -> Result<Decoded<'static>, Rejection> {
        let message = Message { payload: Some(bytes), ..message.clone() };
        self.decode_inside(&message, bytes, outside).map(Decoded::into_owned)
    }

    /// The object itself, or each of the list in it.
    fn objects<'a>(&self, object: &Object<'_, 'a>) -> Result<Decoded<'a>, Rejection> {
        let Some((list, elements)) = self.row.paths.elements(&object.slots)? else {
            return self.one(&object.slots, object.around);
        };
        if elements.is_empty() {
            return Ok(Decoded::Skipped(Skip::Empty));
        }
        self.check_ids(object, &elements)?;
        let read = |element: &'a RawValue| {
            let alone = with_only(object.whole, list, element.get());
            let decoded = self.row.paths.with_element(&object.slots, element).and_then(|slots| {
                match slots.leads_through_text().then(|| self.row.opened(&alone, &alone)).flatten() {
                    Some(opened) => self.decode_owned(object.around.message, &opened, object.around.outside),
                    None => self.one(&slots, object.around),
                }
            });
            (decoded, Cow::Owned(alone))
        };
        batch(elements, read)
    }

    fn one<'a>(&self, slots: &Slots<'a>, around: Around<'_, 'a>) -> Result<Decoded<'a>, Rejection> {
        or_skip!(self.row.chosen(slots, around.outside)?);
        let [op, deleted] = self.row_change.map(|slot| slots.value(slot));
        if op.as_text() == Some("d") || deleted.as_text() == Some("true") || slots.is_true(self.row_change[1]) {
            return Ok(Decoded::Skipped(Skip::Change));
        }
        self.check_single(slots)?;
        let event_type = match self.called(slots, around)? {
            Ok(event_type) => event_type,
            Err(unknown) => return Ok(Decoded::Unknown(unknown)),
        };
        let mut fields = or_skip!(self.row.fields(slots, around, event_type)?);
        let is_repeated = self.repeats || op != Value::Absent;
        let Some(event_type) = self.row.amounts.turn(event_type, &mut fields, self.rules(), is_repeated)? else {
            return Ok(Decoded::Skipped(Skip::NoMoney));
        };
        Ok(match self.row.common.decoded(fields, event_type)? {
            Decoded::Event(event) if self.repeats || op.as_text() == Some("u") => {
                Decoded::Several { events: vec![event], told_before: Time::MAX }
            }
            decoded => decoded,
        })
    }

    /// The type of an object, or what it is called that is none.
    fn called<'a>(
        &self,
        slots: &Slots<'a>,
        around: Around<'_, 'a>,
    ) -> Result<Result<EventType, Unknown<'a>>, Rejection> {
        let called = self.row.field(slots, around, "type")?;
        let own = called.as_text().and_then(|name| self.event_type(name));
        if let (None, Some(name)) = (own, around.outside.event_type)
            && (called == Value::Absent || !self.has_type)
        {
            let unknown = || Unknown::of("type", Some(Cow::Owned(name.to_owned())));
            return Ok(self.event_type(name).ok_or_else(unknown));
        }
        let event_type = match called.as_text() {
            Some(_) => own,
            // A topic of orders alone needs no type.
            None if called == Value::Absent => Some(EventType::Order),
            None => None,
        };
        Ok(event_type.ok_or_else(|| Unknown::of("type", called.into_text())))
    }

    pub fn row(&self) -> &Row {
        &self.row
    }

    pub fn amounts(&self) -> &Amounts {
        &self.row.amounts
    }

    /// How values are spelled.
    pub fn rules(&self) -> &Rules {
        &self.row.common.rules
    }

    /// Whether rows without a column for their type are about money.
    pub fn has_orders_alone(&self) -> bool {
        match self.row.origins.get("type") {
            Some(FieldSource::Constant(name)) => {
                matches!(self.event_type(name), Some(EventType::Order | EventType::Refund | EventType::Cancel))
            }
            _ => true,
        }
    }

    /// Whether lines of a file are added up.
    pub fn adds_lines(&self) -> bool {
        self.lines == LineMode::Sum
    }

    /// What the cells of a row mean.
    pub fn meaning<'a>(&self, slots: &Slots<'a>) -> Result<Decoded<'a>, Rejection> {
        self.one(slots, Around { message: &Message::default(), scale: None, outside: Outside::default() })
    }

    /// As [`Custom::decode`], of a line of a file.
    pub fn line<'a>(&self, bytes: &'a [u8], above: &'a mut Above) -> Result<Line<'a>, Rejection> {
        if !self.adds_lines() {
            return self.decode(&Message { payload: Some(bytes), ..Message::default() }, bytes).map(Line::Whole);
        }
        if self.row.paths.list().is_some() {
            // The objects of a list are read as the daemon reads them.
            return self.decode(&Message { payload: Some(bytes), ..Message::default() }, bytes).map(Line::Whole);
        }
        let slots = self.row.read(bytes)?;
        match slots.leads_through_text().then(|| self.row.opened(bytes, bytes)).flatten() {
            Some(opened) => self.line_meaning(&self.row.read(&opened)?, above).map(Line::into_owned),
            None => self.line_meaning(&slots, above),
        }
    }

    /// As [`Custom::meaning`], of a line of a file.
    pub fn line_meaning<'a>(&self, slots: &Slots<'a>, above: &'a mut Above) -> Result<Line<'a>, Rejection> {
        if !self.adds_lines() {
            return self.meaning(slots).map(Line::Whole);
        }
        let (slots, is_below) = above.complete(slots, &self.line_slots);
        let found = self.line_of_order(&slots, is_below);
        let is_lost = matches!(found, Err(_) | Ok(Line::Whole(Decoded::Skipped(Skip::Guest | Skip::Nobody))));
        let order = self.row.slot_of("order_id").map_or(Value::Absent, |slot| slots.value(slot).into_id());
        match (found, order) {
            (Ok(Line::Whole(decoded)), Value::Text(order)) if is_lost => Ok(Line::Lost(order, Ok(decoded))),
            (Err(rejection), Value::Text(order)) => Ok(Line::Lost(order, Err(rejection))),
            (found, _) => found,
        }
    }

    fn line_of_order<'a>(&self, slots: &Slots<'a>, is_below: bool) -> Result<Line<'a>, Rejection> {
        let around = Around { message: &Message::default(), scale: None, outside: Outside::default() };
        let has_lines = |event_type| matches!(event_type, EventType::Order | EventType::Refund | EventType::Cancel);
        match self.called(slots, around)? {
            Ok(event_type) if has_lines(event_type) && self.row.counts(slots) => {
                let mut fields = match self.row.unpriced(slots, around)? {
                    Ok(fields) => fields,
                    Err(skip) => return Ok(Line::Whole(Decoded::Skipped(skip))),
                };
                if fields.reversed != Reversed::No {
                    return self.meaning(slots).map(Line::Whole);
                }
                self.row.common.rules.settle(&mut fields)?;
                // Whether something goes back is known of the sum alone.
                let amount = self.row.amount(slots, around, EventType::Order);
                OrderLine::new(fields, amount, event_type, is_below).map(|line| Line::Part(Box::new(line)))
            }
            _ => self.meaning(slots).map(Line::Whole),
        }
    }

    fn event_type(&self, name: &str) -> Option<EventType> {
        let in_any_case =
            || self.types.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, known)| known);
        self.types.get(name).or_else(|| if self.has_own_types { in_any_case() } else { None }).copied()
    }
}

/// Where the fields stand in the native format.
fn native_names() -> FieldTexts {
    let own = |name: &str| Some(name.into());
    FieldTexts {
        r#type: own("type"),
        customer_id: own("customer_id"),
        time: own("time"),
        order_id: own("order_id"),
        refund_id: own("refund_id"),
        reversed: own("reversed"),
        session_id: own("session_id"),
        amount: own("amount"),
        quantity: None,
        currency: own("currency"),
        referred_by: own("referred_by"),
        kind: own("kind"),
        score: own("score"),
        email: None,
        anonymous_id: None,
    }
}
