//! Any bytes behind the frames of an Avro and a Protobuf schema.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use retentiond::decode::{Decoder, Format, Schema, SchemaId, SchemaText, Schemas};
use retentiond::event::Time;

const AVRO: &str = r#"{"type":"record","name":"O","fields":[{"name":"type","type":"string"},
    {"name":"customer_id","type":["null","string"]},{"name":"time","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":20,"scale":2}},
    {"name":"attributes","type":{"type":"map","values":"string"}},{"name":"tags","type":{"type":"array","items":"double"}}]}"#;
const PROTOBUF: &str = r#"syntax = "proto3"; message O { string type = 1; string customer_id = 2; int64 time = 3;
    double amount = 4; map<string, string> attributes = 5; O inner = 6; repeated bytes raw = 7; }"#;

#[derive(Debug)]
struct Two([Arc<Schema>; 2]);

impl Schemas for Two {
    fn is_settled(&self, _: SchemaId) -> bool {
        true
    }
    fn get(&self, id: SchemaId) -> Result<Arc<Schema>, String> {
        match id {
            SchemaId::Number(number @ 0..2) => Ok(Arc::clone(&self.0[number as usize])),
            _ => Err("there are two".to_owned()),
        }
    }
    fn trouble(&self) -> Option<String> {
        None
    }
}

static DECODER: LazyLock<Decoder> = LazyLock::new(|| {
    let compile = |(kind, text): (&str, &str)| {
        let text = SchemaText { kind: kind.to_owned(), text: text.to_owned(), references: Vec::new() };
        Arc::new(Schema::compile(&text).expect("a sound schema"))
    };
    let two = Two([("AVRO", AVRO), ("PROTOBUF", PROTOBUF)].map(compile));
    Decoder::new(Format::Native, vec!["channel".to_owned()]).with_schemas(Arc::new(two))
});

fuzz_target!(|bytes: &[u8]| {
    for schema in 0..2 {
        let value = [&[0, 0, 0, 0, schema][..], bytes].concat();
        _ = DECODER.decode(None, Some(&value), Time::MAX);
    }
    _ = DECODER.decode(None, Some(bytes), Time::MAX);
});
