//! CloudEvents 1.0 over Kafka, structured and binary; `data` is of the native or of another format.
//!
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>. What native data leave
//! out, the event's attributes supply: the customer is the `subject`, the time `time`, the type `type` (by the table
//! `types`), and the id `source` and `id` together, by which CloudEvents recognise a second copy.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::debezium::Beside;
use super::{OptionError, or_skip};
use crate::decode::fields::{Fields, Value};
use crate::decode::options::Options;
use crate::decode::paths::Paths;
use crate::decode::{Decoded, Format, Message, Reader, Reason, Rejection, Skip, Unknown};
use crate::event::EventType;

const PLACES: [&str; 10] =
    ["specversion", "id", "source", "type", "subject", "time", "data", "data_base64", "iodebeziumop", "iodebeziumtsms"];
const ID: usize = 1;
const SOURCE: usize = 2;
const TYPE: usize = 3;
const SUBJECT: usize = 4;
const TIME: usize = 5;
const DATA: usize = 6;
const DATA_BASE64: usize = 7;
const DEBEZIUM_OP: usize = 8;
const DEBEZIUM_TIME: usize = 9;

/// Reads CloudEvents.
#[derive(Debug, Clone)]
pub(in crate::decode) struct CloudEvents {
    paths: Paths,
    data: Box<Reader>,
    dimensions: Vec<String>,
    types: BTreeMap<String, EventType>,
}

/// The attributes that matter.
struct Context<'a> {
    id: Value<'a>,
    source: Value<'a>,
    event_type: Value<'a>,
    subject: Value<'a>,
    time: Value<'a>,
    /// What Debezium's converter takes out of its envelope.
    debezium_op: Value<'a>,
    debezium_time: Value<'a>,
}

impl CloudEvents {
    pub fn new(options: &Options, dimensions: &[String]) -> Result<CloudEvents, OptionError> {
        let names = || Format::ALL.map(Format::name).into_iter().filter(|name| *name != "cloudevents");
        let named = options.data.as_deref().unwrap_or("native");
        let format = Format::ALL.into_iter().find(|format| format.name() == named && *format != Format::CloudEvents);
        let Some(format) = format else {
            let what =
                format!("{named:?} is no format of data; write one of {}", names().collect::<Vec<_>>().join(", "));
            return Err(OptionError::new("data", what));
        };
        let inner = Options { data: None, ..options.clone() };
        // The table of types is read here where the data are native.
        let inner = if format == Format::Native { Options { types: BTreeMap::new(), ..inner } } else { inner };
        if let Some((option, _)) = inner.unknown_to(format).first() {
            let what = format!("means nothing to data of the format {named:?}; remove it, or write another data");
            return Err(OptionError::new(*option, what));
        }
        let own: Vec<_> = EventType::ALL.iter().map(|event_type| (event_type.name(), *event_type)).collect();
        let types = if format == Format::Native { options.types(&own)? } else { BTreeMap::new() };
        let data = Box::new(Reader::new(format, &inner, dimensions)?);
        Ok(CloudEvents { paths: Paths::of(&PLACES), data, dimensions: dimensions.to_vec(), types })
    }

    /// Whether the attributes of the event are in the headers of the message.
    pub fn is_binary(message: &Message<'_>) -> bool {
        message.header("ce_specversion").or(message.header("ce_id")).is_some()
    }

    /// What the events are called.
    pub fn known(&self) -> Vec<&str> {
        match &*self.data {
            Reader::Native(_) => self.types.keys().map(String::as_str).collect(),
            other => other.known().1,
        }
    }

    pub fn decode<'a>(&self, message: &Message<'a>, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        if CloudEvents::is_binary(message) {
            return self.binary(message, bytes);
        }
        let slots = self.paths.read(bytes)?;
        if slots.raw(0).is_none() {
            return Err(Rejection::new(
                Reason::MissingField,
                "specversion is missing, and so are ce_ headers: no CloudEvent",
            ));
        }
        let context = Context {
            id: slots.value(ID),
            source: slots.value(SOURCE),
            event_type: slots.value(TYPE),
            subject: slots.value(SUBJECT),
            time: slots.value(TIME),
            debezium_op: slots.value(DEBEZIUM_OP),
            debezium_time: slots.value(DEBEZIUM_TIME),
        };
        if let Some(data) = slots.raw(DATA) {
            return self.data(message, data.as_bytes(), context);
        }
        let Value::Text(encoded) = slots.value(DATA_BASE64) else {
            return self.data(message, b"{}", context);
        };
        let wrong = |_| Rejection::new(Reason::InvalidValue, "data_base64 is no base64");
        let data = STANDARD.decode(encoded.as_bytes()).map_err(wrong)?;
        // What is decoded lives no longer than this.
        let message = Message { payload: Some(&data), ..message.clone() };
        self.data(&message, &data, context).map(Decoded::into_owned)
    }

    fn binary<'a>(&self, message: &Message<'a>, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        let header = |name: &str| match message.header(name).map(std::str::from_utf8) {
            None => Ok(Value::Absent),
            Some(Ok(text)) => Ok(Value::Text(Cow::Borrowed(text))),
            Some(Err(_)) => Err(Rejection::new(Reason::NotUtf8, format!("the header {name} is not UTF-8"))),
        };
        let context = Context {
            id: header("ce_id")?,
            source: header("ce_source")?,
            event_type: header("ce_type")?,
            subject: header("ce_subject")?,
            time: header("ce_time")?,
            debezium_op: header("ce_iodebeziumop")?,
            debezium_time: header("ce_iodebeziumtsms")?,
        };
        self.data(message, bytes, context)
    }

    fn data<'a>(&self, message: &Message<'a>, data: &'a [u8], context: Context<'a>) -> Result<Decoded<'a>, Rejection> {
        let native = match &*self.data {
            Reader::Native(native) => native,
            Reader::Debezium(debezium) => {
                let beside = Beside { op: context.debezium_op, made: context.debezium_time.or(context.time) };
                return debezium.decode_beside(message, data, beside);
            }
            other => return other.decode(message, data, &self.dimensions),
        };
        let mut fields = Fields::default();
        or_skip!(native.fields(data, &self.dimensions, &mut fields)?);
        let named = std::mem::take(&mut fields.event_type);
        let named = if named == Value::Absent { context.event_type } else { named };
        let Some(&event_type) = named.as_text().and_then(|name| self.types.get(name)) else {
            return Ok(Decoded::Unknown(Unknown::of("type", named.into_text())));
        };
        fields.customer_id = fields.customer_id.or(context.subject);
        fields.time = fields.time.or(context.time);
        let id = match event_type {
            EventType::Order => Some(&mut fields.order_id),
            EventType::Refund => Some(&mut fields.refund_id),
            EventType::Session => Some(&mut fields.session_id),
            // Its id is the order's, and nothing else will do.
            _ => None,
        };
        if let Some(id) = id.filter(|id| **id == Value::Absent)
            && let (Some(source), Some(event)) = (context.source.as_text(), context.id.as_text())
        {
            *id = Value::Text(Cow::Owned(format!("{source}/{event}")));
        }
        if fields.customer_id != Value::Absent && native.rules().is_nobody(&fields.customer_id) {
            return Ok(Decoded::Skipped(Skip::Nobody));
        }
        native.rules().settle(&mut fields)?;
        super::event(fields, event_type)
    }
}
