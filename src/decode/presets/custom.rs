//! Any JSON, with a configured path for each field: `format = "custom"`. Rows of tables are read the same way.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::types::Types;
use super::{Outside, headers, or_skip};
use crate::decode::amounts::Amounts;
use crate::decode::batch::{batch, with_only};
use crate::decode::fields::{Reversed, Value};
use crate::decode::lines::{Above, Line, LineSlots, OrderLine};
use crate::decode::options::{FieldTexts, LineMode, OptionError, Options};
use crate::decode::paths::Slots;
use crate::decode::rules::Rules;
use crate::decode::{Decoded, Message, Rejection, Skip, Unknown, json};
use crate::event::{EventType, Time};

mod lists;
mod row;
mod several;

use lists::element_of;
pub(in crate::decode) use row::{Around, Row, Scales, without_padding};

/// Reads messages by configured paths.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Custom {
    row: Row,
    types: Types,
    /// The type of every message, if it is constant.
    constant: Option<EventType>,
    /// Whether the options say where the type is.
    has_type: bool,
    repeats: bool,
    lines: LineMode,
    /// Slots of Kafka Connect's wrapper, `schema` and `payload`, unless paths lead through it.
    wrapper: Option<[usize; 2]>,
    /// Slot of the schema, if paths lead through `payload`.
    schema: Option<usize>,
    /// Slots of the columns that Debezium adds to flattened rows: the operation, and whether the row was deleted.
    row_change: [usize; 2],
    /// A list of which `fields.order_id` reads one element only: path, slot, index of the element.
    single: Option<(String, usize, usize)>,
    line_slots: LineSlots,
}

/// A message and the object in it that is read.
struct Object<'m, 'a> {
    around: Around<'m, 'a>,
    whole: &'a [u8],
    slots: Slots<'a>,
}

impl Custom {
    pub fn new(options: &Options, dimensions: &[String]) -> Result<Custom, OptionError> {
        let mut row = Row::new(options, dimensions, &native_names())?;
        let types = Types::new(options)?;
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
            constant: types.constant(options)?,
            types,
            has_type: options.fields.r#type.is_some() || options.constants.r#type.is_some(),
            repeats: options.repeats,
            lines: options.lines,
            wrapper,
            schema,
            row_change,
            single,
        })
    }

    /// The names of the types.
    pub fn known(&self) -> Vec<&str> {
        self.types.known()
    }

    pub fn decode<'a>(&self, message: &Message<'a>, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        self.decode_inside(message, bytes, Outside::default())
    }

    /// Decodes the data of a surrounding event.
    pub fn decode_inside<'a>(
        &self,
        message: &Message<'a>,
        bytes: &'a [u8],
        outside: Outside<'_>,
    ) -> Result<Decoded<'a>, Rejection> {
        let mut slots = self.row.read(bytes)?;
        let mut json = bytes;
        let mut scales = Scales::default();
        if let Some([schema, payload]) = self.wrapper
            && slots.is_there(schema)
            && let Some(inner) = slots.raw(payload)
        {
            if let Some(text) = json::in_a_string(inner) {
                return self.decode_owned(message, text.as_bytes(), outside);
            }
            if inner.starts_with('{') {
                scales = slots.raw(schema).map(|schema| self.row.scales_in(schema, &[])).unwrap_or_default();
                (slots, json) = (self.row.read(inner.as_bytes())?, inner.as_bytes());
            }
        } else if let Some(schema) = self.schema.and_then(|schema| slots.raw(schema)) {
            scales = self.row.scales_in(schema, &[]);
        }
        if let Some(bytes) = self.with_headers(message, bytes, json, &slots) {
            return self.decode_owned(message, &bytes, outside);
        }
        if slots.leads_through_text()
            && let Some(bytes) = self.row.opened(bytes, json)
        {
            return self.decode_owned(message, &bytes, outside);
        }
        self.objects(&Object { around: Around { message, scales, outside }, whole: bytes, slots })
    }

    /// The message with the headers that paths refer to added to the row; `None` if there are none.
    fn with_headers(&self, message: &Message<'_>, bytes: &[u8], object: &[u8], slots: &Slots<'_>) -> Option<Vec<u8>> {
        if message.headers.is_empty() {
            return None;
        }
        let absent = self.row.places().filter(|(slot, _)| !slots.is_there(*slot)).map(|(_, place)| place);
        let with = headers::added(object, message, absent)?;
        json::spliced(bytes, std::str::from_utf8(object).ok()?, std::str::from_utf8(&with).ok()?)
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

    /// Decodes the object itself, or each element of its list.
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
        if headers::is_key_change(around.message) {
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

    /// The type of an object, or the unknown name that it has.
    fn called<'a>(
        &self,
        slots: &Slots<'a>,
        around: Around<'_, 'a>,
    ) -> Result<Result<EventType, Unknown<'a>>, Rejection> {
        if let Some(event_type) = self.constant {
            return Ok(Ok(event_type));
        }
        let called = without_padding(self.row.field(slots, around, "type")?);
        let own = called.as_text().and_then(|name| self.types.get(name));
        if let (None, Some(name)) = (own, around.outside.event_type)
            && (called == Value::Absent || !self.has_type)
        {
            let unknown = || Unknown::of("type", Some(Cow::Owned(name.to_owned())));
            return Ok(self.types.get(name).ok_or_else(unknown));
        }
        let event_type = match called.as_text() {
            Some(_) => own,
            // A topic that contains only orders needs no type.
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

    /// How the source writes values.
    pub fn rules(&self) -> &Rules {
        &self.row.common.rules
    }

    /// Whether rows without a type column are orders, refunds or cancellations.
    pub fn has_orders_alone(&self) -> bool {
        self.constant
            .is_none_or(|constant| matches!(constant, EventType::Order | EventType::Refund | EventType::Cancel))
    }

    /// Whether the lines of a file are added up.
    pub fn adds_lines(&self) -> bool {
        self.lines == LineMode::Sum
    }

    /// Decodes the cells of a row.
    pub fn meaning<'a>(&self, slots: &Slots<'a>) -> Result<Decoded<'a>, Rejection> {
        self.one(slots, Around { message: &Message::default(), scales: Scales::default(), outside: Outside::default() })
    }

    /// Like [`Custom::decode`], for a line of a file.
    pub fn line<'a>(&self, bytes: &'a [u8], above: &'a mut Above) -> Result<Line<'a>, Rejection> {
        if !self.adds_lines() {
            return self.decode(&Message { payload: Some(bytes), ..Message::default() }, bytes).map(Line::Whole);
        }
        if self.row.paths.list().is_some() {
            // Lines with a list are decoded like messages.
            return self.decode(&Message { payload: Some(bytes), ..Message::default() }, bytes).map(Line::Whole);
        }
        let slots = self.row.read(bytes)?;
        match slots.leads_through_text().then(|| self.row.opened(bytes, bytes)).flatten() {
            Some(opened) => self.line_meaning(&self.row.read(&opened)?, above).map(Line::into_owned),
            None => self.line_meaning(&slots, above),
        }
    }

    /// Like [`Custom::meaning`], for a line of a file.
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
        let around = Around { message: &Message::default(), scales: Scales::default(), outside: Outside::default() };
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
                // Whether it is a refund is known only from the total.
                let amount = self.row.amount(slots, around, EventType::Order);
                let amount = amount.map(|amount| self.amounts().of_currency(amount, &fields.currency));
                OrderLine::new(fields, amount, event_type, is_below).map(|line| Line::Part(Box::new(line)))
            }
            _ => self.meaning(slots).map(Line::Whole),
        }
    }
}

/// The field names of the native format.
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
