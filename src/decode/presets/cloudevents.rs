//! CloudEvents 1.0 over Kafka, in structured and binary mode; `data` has the native or another format.
//!
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>. The event's
//! attributes supply what native data lack: `subject` is the customer, `time` the time, `type` the type (through
//! `types`), and `source` with `id`, by which CloudEvents identifies duplicates, the id. Custom data without a type
//! take that of the event. In both, conditions can refer to attributes too.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::debezium::Beside;
use super::{OptionError, Outside, or_skip};
use crate::decode::fields::{self, Fields, Value};
use crate::decode::native::Native;
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
    /// Whether `types` is not configured, so that types have their native names in any case.
    has_own_types: bool,
    /// Whether there are conditions, which may refer to any attribute.
    has_conditions: bool,
}

/// The attributes of an event that are used.
struct Context<'a> {
    id: Value<'a>,
    source: Value<'a>,
    event_type: Value<'a>,
    subject: Value<'a>,
    time: Value<'a>,
    /// Extension attributes of Debezium's converter, which moves them out of its envelope.
    debezium_op: Value<'a>,
    debezium_time: Value<'a>,
    /// All attributes as an object, if there are conditions.
    all: Option<Cow<'a, [u8]>>,
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
        if options.root.is_some() {
            let what = "is not for CloudEvents, whose object is data; with data = \"custom\" name places inside it, such as \
                        \"order.total\"";
            return Err(OptionError::new("root", what));
        }
        let inner = Options { data: None, ..with_own_type(options) };
        // For native data, the table of types is applied here.
        let inner = if format == Format::Native { Options { types: BTreeMap::new(), ..inner } } else { inner };
        if let Some((option, _)) = inner.unknown_to(format).first() {
            let what = format!("means nothing to data of the format {named:?}; remove it, or write another data");
            return Err(OptionError::new(*option, what));
        }
        let own: Vec<_> = EventType::ALL.iter().map(|event_type| (event_type.name(), *event_type)).collect();
        let types = if format == Format::Native { options.types(&own)? } else { BTreeMap::new() };
        let data = Box::new(Reader::new(format, &inner, dimensions)?);
        let (has_own_types, has_conditions) = (options.types.is_empty(), !options.only.is_empty());
        let paths = Paths::of(&PLACES);
        Ok(CloudEvents { paths, data, dimensions: dimensions.to_vec(), types, has_own_types, has_conditions })
    }

    /// Whether the attributes are in the headers of the message (binary mode).
    pub fn is_binary(message: &Message<'_>) -> bool {
        message.header("ce_specversion").or(message.header("ce_id")).is_some()
    }

    /// The type names of the events.
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
            all: self.has_conditions.then_some(Cow::Borrowed(bytes)),
        };
        if let Some(data) = slots.raw(DATA) {
            return self.data(message, data.as_bytes(), context);
        }
        let Value::Text(encoded) = slots.value(DATA_BASE64) else {
            return self.data(message, b"{}", context);
        };
        let wrong = |_| Rejection::new(Reason::InvalidValue, "data_base64 is no base64");
        let data = STANDARD.decode(encoded.as_bytes()).map_err(wrong)?;
        // `data` is dropped with this function, so the result must own its data.
        let message = Message { payload: Some(&data), ..message.clone() };
        self.data(&message, &data, context).map(Decoded::into_owned)
    }

    fn binary<'a>(&self, message: &Message<'a>, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        let header = |name: &str| match message.header(name).map(std::str::from_utf8) {
            None => Ok(Value::Absent),
            Some(Ok(text)) => Ok(Value::Text(unquoted(text))),
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
            all: self.has_conditions.then(|| Cow::Owned(attributes(message))),
        };
        self.data(message, bytes, context)
    }

    fn data<'a>(&self, message: &Message<'a>, data: &'a [u8], context: Context<'a>) -> Result<Decoded<'a>, Rejection> {
        match &*self.data {
            Reader::Native(native) => self.native(native, message, data, context),
            Reader::Debezium(debezium) => {
                let made = context.debezium_time.or(context.time);
                let beside = Beside { op: context.debezium_op, made, object: None };
                match context.all {
                    None => debezium.decode_beside(message, data, beside),
                    Some(all) => {
                        let beside = Beside { object: Some(&all), ..beside };
                        debezium.decode_beside(message, data, beside).map(Decoded::into_owned)
                    }
                }
            }
            Reader::Custom(custom) => {
                let outside = Outside { event_type: context.event_type.as_text(), object: context.all.as_deref() };
                custom.decode_inside(message, data, outside)
            }
            other => other.decode(message, data, &self.dimensions),
        }
    }

    fn native<'a>(
        &self,
        native: &Native,
        message: &Message<'a>,
        data: &'a [u8],
        context: Context<'a>,
    ) -> Result<Decoded<'a>, Rejection> {
        let mut fields = Fields::default();
        or_skip!(native.fields(data, context.all.as_deref(), &self.dimensions, &mut fields)?);
        native.fill_in(message.key, message.time, &mut fields)?;
        let named = std::mem::take(&mut fields.event_type);
        let Some(event_type) = self.event_type(&named, &context.event_type) else {
            return Ok(Decoded::Unknown(Unknown::of("type", named.or(context.event_type).into_text())));
        };
        // A field that the options take from the record has no fallback.
        if !native.takes_key() {
            fields.customer_id = fields.customer_id.or(context.subject);
        }
        if !native.wants_time() {
            fields.time = fields.time.or(context.time);
        }
        let id = match event_type {
            EventType::Order => Some(&mut fields.order_id),
            EventType::Refund => Some(&mut fields.refund_id),
            EventType::Session => Some(&mut fields.session_id),
            // A cancellation carries the id of its order, which cannot be derived.
            _ => None,
        };
        if let Some(id) = id.filter(|id| native.rules().is_nobody(id))
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

    /// The type of native data, by its name in `types` or in the native format; otherwise that of the event.
    fn event_type(&self, in_data: &Value<'_>, of_event: &Value<'_>) -> Option<EventType> {
        let listed = |name: &Value<'_>| name.as_text().and_then(|name| self.types.get(name)).copied();
        let native = |name: &Value<'_>| name.as_text().and_then(fields::event_type);
        let in_data_known = listed(in_data).or_else(|| native(in_data).filter(|known| *known != EventType::Unknown));
        let of_event_native = || if self.has_own_types { native(of_event) } else { None };
        in_data_known.or_else(|| listed(of_event)).or_else(of_event_native)
    }
}

/// The options with a constant type replaced by its native name, if `types` lists it.
fn with_own_type(options: &Options) -> Options {
    let mut options = options.clone();
    if let Some(called) = options.constants.r#type.as_deref().and_then(|name| options.types.get(name)) {
        options.constants.r#type = Some(called.as_str().into());
    }
    options
}

/// The text of a header. Kafka Connect's JSON converter puts it in quotes.
fn unquoted(text: &str) -> Cow<'_, str> {
    if text.len() < 2 || !text.starts_with('"') {
        return Cow::Borrowed(text);
    }
    serde_json::from_str(text).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// The attributes in the headers of a message, as a JSON object.
fn attributes(message: &Message<'_>) -> Vec<u8> {
    let text = |bytes: &Option<&[u8]>| {
        bytes.and_then(|bytes| std::str::from_utf8(bytes).ok().map(|text| unquoted(text).into_owned()))
    };
    let named = |(name, value): &(Cow<'_, str>, Option<&[u8]>)| match name.as_ref() {
        "content-type" => Some(("datacontenttype".to_owned(), text(value)?)),
        name => Some((name.strip_prefix("ce_")?.to_owned(), text(value)?)),
    };
    let attributes: BTreeMap<String, String> = message.headers.iter().filter_map(named).collect();
    serde_json::to_vec(&attributes).unwrap_or_default()
}
