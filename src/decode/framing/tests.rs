use std::borrow::Cow;
use std::collections::BTreeMap;

use apache_avro::types::{Record, Value};
use apache_avro::writer::datum::GenericDatumWriter;

use super::*;
use crate::decode::{Decoded, Decoder, Format};
use crate::event::{Kind, Time};

/// Schemas by id, all available.
#[derive(Debug, Default)]
struct Known(BTreeMap<SchemaId, Arc<Schema>>);

impl Schemas for Known {
    fn is_settled(&self, _: SchemaId) -> bool {
        true
    }
    fn get(&self, id: SchemaId) -> Result<Arc<Schema>, String> {
        self.0.get(&id).cloned().ok_or_else(|| "the registry does not have it".to_owned())
    }
    fn last_error(&self) -> Option<String> {
        None
    }
}

const GUID: [u8; 16] = [0x0d, 0xd4, 0x47, 0x4b, 0x0a, 0x2e, 0x4c, 0x9e, 0x9a, 0x31, 1, 2, 3, 4, 5, 6];

const AVRO: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
    {"name":"type","type":{"type":"enum","name":"Type","symbols":["order","refund"]}},
    {"name":"order_id","type":"string"},
    {"name":"customer_id","type":["null","string"],"default":null},
    {"name":"time","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"amount","type":["null",{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}]},
    {"name":"currency","type":"string"},
    {"name":"attributes","type":{"type":"map","values":"string"}},
    {"name":"lines","type":{"type":"array","items":"shop.Line"}}]}"#;
const LINE: &str = r#"{"type":"record","name":"Line","namespace":"shop","fields":[{"name":"sku","type":"string"}]}"#;

const PROTOBUF: &str = r#"syntax = "proto3";
    package shop;
    import "google/protobuf/timestamp.proto";
    import "line.proto";
    message Other { string x = 1; }
    message Envelope {
        message Order {
            string type = 1;
            string order_id = 2;
            string customer_id = 3;
            google.protobuf.Timestamp time = 4;
            string amount = 5;
            string currency = 6;
            map<string, string> attributes = 7;
            repeated Line lines = 8;
        }
    }"#;
const LINE_PROTO: &str = "syntax = \"proto3\"; package shop; message Line { string sku = 1; int64 cents = 2; }";

fn avro() -> SchemaText {
    SchemaText { kind: "AVRO".into(), text: AVRO.into(), references: vec![("shop.Line".into(), LINE.into())] }
}

fn protobuf() -> SchemaText {
    let references = vec![("line.proto".into(), LINE_PROTO.into())];
    SchemaText { kind: "PROTOBUF".into(), text: PROTOBUF.into(), references }
}

fn decoder() -> Decoder {
    let json = SchemaText { kind: "JSON".into(), text: "{}".into(), references: vec![] };
    let known = [
        (SchemaId::Number(1), json),
        (SchemaId::Number(7), avro()),
        (SchemaId::Guid(GUID), avro()),
        (SchemaId::Number(8), protobuf()),
    ];
    let compile = |(id, text)| (id, Arc::new(Schema::compile(&text).unwrap()));
    let known = Known(known.into_iter().map(compile).collect());
    Decoder::new(Format::Native, vec!["channel".into()]).with_schemas(Arc::new(known))
}

fn avro_order() -> Vec<u8> {
    let references = [LINE];
    let (schema, others) = apache_avro::Schema::parse_str_with_list(AVRO, references).unwrap();
    let all: Vec<_> = others.iter().chain([&schema]).collect();
    let mut order = Record::new(&schema).unwrap();
    order.put("type", Value::Enum(0, "order".into()));
    order.put("order_id", "o-1");
    order.put("customer_id", Value::Union(1, Box::new(Value::String("c-1".into()))));
    order.put("time", Value::TimestampMicros(1_767_323_045_678_901));
    order.put("amount", Value::Union(1, Box::new(Value::Decimal(7212_u16.to_be_bytes().into()))));
    order.put("currency", "EUR");
    order.put("attributes", Value::Map([("channel".to_owned(), Value::String("web".into()))].into()));
    order.put("lines", Value::Array(vec![Value::Record(vec![("sku".into(), Value::String("s".into()))])]));
    let writer = GenericDatumWriter::builder(&schema).schemata(all).unwrap().build().unwrap();
    let mut bytes = Vec::new();
    writer.write_value(&mut bytes, order).unwrap();
    bytes
}

/// The same order in Protobuf's wire format, written by hand: a tag (number << 3 | 2), the length, the text.
fn protobuf_order() -> Vec<u8> {
    let text = |number: u8, text: &[u8]| [&[number << 3 | 2, u8::try_from(text.len()).unwrap()], text].concat();
    // seconds = 1767323045, nanos = 678000000
    let time = [0x08, 0xa5, 0xeb, 0xdc, 0xca, 0x06, 0x10, 0x80, 0xeb, 0xa5, 0xc3, 0x02];
    let channel = [text(1, b"channel"), text(2, b"web")].concat();
    let line = [text(1, b"s"), vec![0x10, 0x0c]].concat();
    [
        text(1, b"order"),
        text(2, b"o-1"),
        text(3, b"c-1"),
        text(4, &time),
        text(5, b"72.12"),
        text(6, b"EUR"),
        text(7, &channel),
        text(8, &line),
    ]
    .concat()
}

fn read(payload: &[u8], header: Option<&[u8]>) -> Result<Decoded<'static>, Rejection> {
    let headers = header.map(|id| (Cow::Borrowed("__value_schema_id"), Some(id))).into_iter().collect();
    let message = Message { key: None, payload: Some(payload), headers, time: None };
    decoder().decode_message(&message, Time::MAX).map(Decoded::into_owned)
}

fn assert_is_the_order(decoded: Result<Decoded<'_>, Rejection>, what: &str) {
    let Ok(Decoded::Event(event)) = decoded else { panic!("{what}: {decoded:?}") };
    assert_eq!(event.customer, "c-1", "{what}");
    assert_eq!(event.time.to_string(), "2026-01-02T03:04:05.678Z", "{what}");
    let Kind::Order { id, amount, attributes, .. } = event.kind else { panic!("{what}") };
    assert_eq!((id.as_deref(), amount.to_string().as_str()), (Some("o-1"), "72.12 EUR"), "{what}");
    assert_eq!(attributes.get(0), Some("web"), "{what}");
}

#[test]
fn the_same_order_is_read_in_every_encoding_and_frame() {
    let json = br#"{"type":"order","order_id":"o-1","customer_id":"c-1","time":"2026-01-02T03:04:05.678Z","amount":"72.12","currency":"EUR","attributes":{"channel":"web"}}"#;
    let number = |id: u8| [0, 0, 0, 0, id];
    let guid = [&[1][..], &GUID].concat();
    assert_is_the_order(read(json, None), "no frame");
    assert_is_the_order(read(&[&number(1)[..], json].concat(), None), "JSON");
    assert_is_the_order(read(&[&number(7)[..], &avro_order()].concat(), None), "Avro");
    assert_is_the_order(read(&[&guid[..], &avro_order()].concat(), None), "Avro by GUID");
    assert_is_the_order(read(&avro_order(), Some(&guid)), "Avro by header");
    // Envelope.Order, the first message inside the second of the file: indexes [1, 0], preceded by their count, all
    // zigzag.
    let place = [4, 2, 0];
    assert_is_the_order(read(&[&number(8)[..], &place, &protobuf_order()].concat(), None), "Protobuf");
    assert_is_the_order(read(&protobuf_order(), Some(&[&number(8)[..], &place].concat())), "Protobuf by header");
}

#[test]
fn what_does_not_fit_its_schema_is_refused() {
    let avro = [&[0, 0, 0, 0, 7][..], &avro_order()].concat();
    let protobuf = [&[0, 0, 0, 0, 8, 4, 2, 0][..], &protobuf_order()].concat();
    let reason = |bytes: &[u8]| read(bytes, None).unwrap_err().reason;
    assert_eq!(reason(&[0, 0, 0, 0, 9, b'{', b'}']), Reason::UnknownSchema);
    assert_eq!(reason(&[&avro[..], &[0]].concat()), Reason::UnfitForSchema, "a byte too many");
    for len in 5..avro.len() {
        assert_eq!(reason(&avro[..len]), Reason::UnfitForSchema, "{len} bytes of Avro");
    }
    assert_eq!(reason(&[0, 0, 0, 0, 8, 2, 40]), Reason::UnfitForSchema, "no such message");
    assert_eq!(reason(&protobuf[..protobuf.len() - 1]), Reason::UnfitForSchema);
    // A single 0 selects the first message, which has none of the fields.
    assert_eq!(reason(&[0, 0, 0, 0, 8, 0]), Reason::MissingField);
    assert_eq!(reason(&[0, 0, 0]), Reason::InvalidJson, "too short for a frame");
}

#[test]
fn schemas_that_cannot_be_read_with_say_why() {
    let compile = |kind: &str, text: &str| {
        Schema::compile(&SchemaText { kind: kind.into(), text: text.into(), references: vec![] }).unwrap_err()
    };
    assert!(compile("XML", "").contains("supported are AVRO"));
    assert!(compile("AVRO", "{").contains("no sound Avro schema"));
    assert!(compile("PROTOBUF", "message {").contains("no sound Protobuf schema"));
    let list = r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#;
    assert!(compile("AVRO", list).contains("contains itself"));
}

#[test]
fn a_guid_is_written_as_usual() {
    assert_eq!(SchemaId::Guid(GUID).to_string(), "0dd4474b-0a2e-4c9e-9a31-010203040506");
}
