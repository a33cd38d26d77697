//! Messages of a schema registry: frames, values and schemas.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use retentiond::decode::{Decoder, Format, Message, Schema, SchemaId, SchemaText, Schemas};
use retentiond::event::Time;

use super::decode::is_sound;

/// A record with a field of every kind.
pub const AVRO: &str = r#"{"type":"record","name":"O","fields":[{"name":"type","type":"string"},
    {"name":"customer_id","type":["null","string"]},{"name":"time","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":20,"scale":2}},
    {"name":"currency","type":{"type":"enum","name":"C","symbols":["EUR","JPY"]}},
    {"name":"attributes","type":{"type":"map","values":"string"}},{"name":"tags","type":{"type":"array","items":"double"}},
    {"name":"fixed","type":{"type":"fixed","name":"F","size":3}},{"name":"day","type":{"type":"int","logicalType":"date"}},
    {"name":"nulls","type":{"type":"array","items":"null"}}]}"#;
/// The same in Protobuf.
pub const PROTOBUF: &str = r#"syntax = "proto3"; import "google/protobuf/timestamp.proto";
    message O { string type = 1; string customer_id = 2; google.protobuf.Timestamp time = 3; double amount = 4;
    map<string, string> attributes = 5; O inner = 6; repeated bytes raw = 7; oneof one { int64 a = 8; sint32 b = 9; }
    enum E { X = 0; Y = 1; } repeated E many = 10; string currency = 11; message Deep { string type = 1; } }"#;
const KINDS: [&str; 3] = ["JSON", "AVRO", "PROTOBUF"];

/// One schema of each kind, or a single one.
#[derive(Debug)]
struct Known(Vec<Arc<Schema>>);

impl Schemas for Known {
    fn is_settled(&self, _: SchemaId) -> bool {
        true
    }
    fn get(&self, id: SchemaId) -> Result<Arc<Schema>, String> {
        let place = match id {
            SchemaId::Number(number) => number as usize,
            SchemaId::Guid(bytes) => usize::from(bytes[15]),
        };
        self.0.get(place).cloned().ok_or_else(|| "there are three".to_owned())
    }
    fn last_error(&self) -> Option<String> {
        None
    }
}

fn compile(kind: &str, text: &str) -> Result<Arc<Schema>, String> {
    let text = SchemaText { kind: kind.to_owned(), text: text.to_owned(), references: Vec::new() };
    Schema::compile(&text).map(Arc::new)
}

fn decoder(schemas: Vec<Arc<Schema>>) -> Decoder {
    Decoder::new(Format::Native, vec!["channel".to_owned()]).with_schemas(Arc::new(Known(schemas)))
}

static DECODER: LazyLock<Decoder> = LazyLock::new(|| {
    let texts = ["{}", AVRO, PROTOBUF];
    let schemas = KINDS.iter().zip(texts).map(|(kind, text)| compile(kind, text));
    decoder(schemas.collect::<Result<_, _>>().unwrap_or_else(|why| panic!("{why}")))
});

fn decode(decoder: &Decoder, value: &[u8], header: Option<&[u8]>) -> bool {
    let headers = header.map(|id| (Cow::Borrowed("__value_schema_id"), Some(id))).into_iter().collect();
    let message = Message { key: None, payload: Some(value), headers, time: None };
    is_sound(decoder.decode_message(&message, Time::MAX).as_ref().ok(), value)
}

/// Decodes bytes without a frame, with the frame of each schema, and with their first bytes as the header.
pub fn framed(bytes: &[u8]) -> bool {
    let mut any = decode(&DECODER, bytes, None);
    for schema in 0..3 {
        any |= decode(&DECODER, &[&[0, 0, 0, 0, schema][..], bytes].concat(), None);
    }
    let (header, value) = bytes.split_at(bytes.len().min(17));
    any | decode(&DECODER, value, Some(header))
}

/// The input is a kind, the length of a schema in two bytes, the schema, and a value for it.
pub fn schema(bytes: &[u8]) -> bool {
    let Some((&[kind, low, high], rest)) = bytes.split_first_chunk() else { return false };
    let (text, value) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes([low, high]))));
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let Ok(schema) = compile(KINDS[usize::from(kind) % KINDS.len()], text) else { return false };
    decode(&decoder(vec![schema]), &[&[0, 0, 0, 0, 0][..], value].concat(), None)
}

/// An order in the schema [`AVRO`], written by hand: numbers are zigzag varints, texts follow their lengths.
#[allow(dead_code, reason = "a fuzzer begins with a corpus")]
pub fn avro_order() -> Vec<u8> {
    let text = |text: &[u8]| [&[text.len() as u8 * 2], text].concat();
    let mut micros = Vec::new();
    let mut zigzag = 1_767_323_045_678_000_u64 * 2;
    while zigzag >= 0x80 {
        micros.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    micros.push(zigzag as u8);
    let channel = [&[2], &text(b"channel")[..], &text(b"web"), &[0]].concat();
    // Second type of the union; 72.12 in two bytes; first symbol; one tag; three bytes; day 20,455; no nulls.
    let rest = [&[0, 1, 2, 3, 0xce, 0xbf, 0x02, 0][..]].concat();
    let parts = [text(b"order"), vec![2], text(b"c-1"), micros, text(&[0x1c, 0x2c]), vec![0], channel, rest];
    parts.concat()
}

/// The same in the schema [`PROTOBUF`]: a tag (number << 3 | 2), the length, the text.
#[allow(dead_code, reason = "a fuzzer begins with a corpus")]
pub fn protobuf_order() -> Vec<u8> {
    let text = |number: u8, text: &[u8]| [&[number << 3 | 2, text.len() as u8], text].concat();
    // seconds = 1767323045
    let time = text(3, &[0x08, 0xa5, 0xeb, 0xdc, 0xca, 0x06]);
    let amount = [&[4 << 3 | 1][..], &72.12_f64.to_le_bytes()].concat();
    let channel = text(5, &[text(1, b"channel"), text(2, b"web")].concat());
    [text(1, b"order"), text(2, b"c-1"), time, amount, channel, text(11, b"EUR")].concat()
}
