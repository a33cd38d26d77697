//! Any JSON, by a place for each field: `format = "custom"`. Rows of tables are read the same way.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Common, event, in_capitals, or_skip, slot};
use crate::decode::fields::{Fields, Value};
use crate::decode::instants::Instants;
use crate::decode::options::{AmountUnit, FieldTexts, OptionError, Options};
use crate::decode::paths::{Paths, Slots};
use crate::decode::{Decoded, Rejection, Skip};
use crate::event::EventType;

/// Where a field comes from.
#[derive(Debug, Clone)]
enum Origin {
    Slot(usize),
    Constant(String),
}

/// How the fields of an object are found and read.
#[derive(Debug, Clone)]
pub(super) struct Row {
    paths: Paths,
    pub common: Common,
    origins: BTreeMap<&'static str, Origin>,
    instants: Instants,
    unit: AmountUnit,
    /// Slots and the values that they must hold.
    only: Vec<(usize, Vec<String>)>,
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
            origins.insert(name, Origin::Constant(constant.to_owned()));
        }
        for (name, place) in options.fields.or(usual).iter() {
            if !origins.contains_key(name) {
                let slot = slot(&mut paths, &format!("fields.{name}"), place)?;
                origins.insert(name, Origin::Slot(slot));
            }
        }
        let mut only = Vec::new();
        for (place, values) in &options.only {
            only.push((slot(&mut paths, &format!("where.{place:?}"), place)?, values.clone()));
        }
        let common = Common::new(options, dimensions, &mut paths, |_| None)?;
        Ok(Row { paths, common, origins, instants: Instants::new(options)?, unit: options.amount_unit, only })
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
        !self.only.is_empty()
    }

    /// Whether the object is one of those that count.
    pub fn counts(&self, slots: &Slots<'_>) -> bool {
        self.only.iter().all(|(slot, values)| {
            let found = slots.raw(*slot).unwrap_or_default();
            let value = slots.value(*slot);
            let found = value.as_text().unwrap_or(found);
            values.iter().any(|value| value == found)
        })
    }

    /// A field as it stands there.
    pub fn field<'a>(&self, slots: &Slots<'a>, name: &str) -> Value<'a> {
        match self.origins.get(name) {
            Some(Origin::Slot(slot)) => slots.value(*slot),
            Some(Origin::Constant(text)) => Value::Text(Cow::Owned(text.clone())),
            None => Value::Absent,
        }
    }

    /// The JSON of a field.
    pub fn raw<'a>(&self, slots: &Slots<'a>, name: &str) -> Option<&'a str> {
        match self.origins.get(name) {
            Some(Origin::Slot(slot)) => slots.raw(*slot),
            _ => None,
        }
    }

    pub fn instant<'a>(&self, value: Value<'a>) -> Result<Value<'a>, Rejection> {
        self.instants.read(value)
    }

    /// All fields but the type, or why the message is skipped.
    pub fn fields<'a>(&self, slots: &Slots<'a>) -> Result<Result<Fields<'a>, Skip>, Rejection> {
        let field = |name| self.field(slots, name);
        let customer = self.common.customer(field("customer_id"), field("anonymous_id"), &field("email"));
        let customer_id = match customer {
            Ok(customer) => customer,
            Err(skip) => return Ok(Err(skip)),
        };
        Ok(Ok(Fields {
            event_type: Value::Absent,
            customer_id,
            time: self.instants.read(field("time"))?,
            order_id: field("order_id").into_id(),
            refund_id: field("refund_id").into_id(),
            session_id: field("session_id").into_id(),
            amount: self.amount(field("amount")),
            currency: in_capitals(field("currency")),
            referred_by: field("referred_by").into_id(),
            kind: field("kind"),
            score: field("score"),
            attributes: self.common.attributes(slots),
        }))
    }

    fn amount<'a>(&self, amount: Value<'a>) -> Value<'a> {
        match (self.unit, amount.as_integer()) {
            (AmountUnit::Major, _) => amount,
            (AmountUnit::Minor, Some(units)) => Value::Units { units, exponent: None },
            (AmountUnit::Minor, None) if amount == Value::Absent => amount,
            (AmountUnit::Minor, None) => Value::Other("a fraction of a minor unit"),
        }
    }
}

/// Reads messages by places that the configuration names.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Custom {
    row: Row,
    types: BTreeMap<String, EventType>,
}

impl Custom {
    pub fn new(options: &Options, dimensions: &[String]) -> Result<Custom, OptionError> {
        let row = Row::new(options, dimensions, &native_names())?;
        let own: Vec<_> = EventType::ALL.iter().map(|event_type| (event_type.name(), *event_type)).collect();
        Ok(Custom { row, types: options.types(&own)? })
    }

    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        let slots = self.row.read(bytes)?;
        if !self.row.counts(&slots) {
            return Ok(Decoded::Skipped(Skip::Filtered));
        }
        let called = self.row.field(&slots, "type");
        let event_type = match called.as_text() {
            Some(name) => self.types.get(name).copied(),
            // A topic of orders alone needs no type.
            None if called == Value::Absent => Some(EventType::Order),
            None => None,
        };
        let Some(event_type) = event_type else { return Ok(Decoded::Unknown) };
        event(or_skip!(self.row.fields(&slots)?), event_type)
    }
}

/// Where the fields stand in the native format.
fn native_names() -> FieldTexts {
    let own = |name: &str| Some(name.to_owned());
    FieldTexts {
        r#type: own("type"),
        customer_id: own("customer_id"),
        time: own("time"),
        order_id: own("order_id"),
        refund_id: own("refund_id"),
        session_id: own("session_id"),
        amount: own("amount"),
        currency: own("currency"),
        referred_by: own("referred_by"),
        kind: own("kind"),
        score: own("score"),
        email: None,
        anonymous_id: None,
    }
}
