//! Messages that name the schema they were written with, as the serializers of a schema registry write them.
//!
//! <https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>: a
//! byte 0 and a number of four bytes, or a byte 1 and a GUID of sixteen, before the payload or in the header
//! `__value_schema_id`. Whatever the schema is written in, the message becomes JSON with the same names, and from then
//! on is read like any other.

mod avro;
mod protobuf;

use std::fmt;
use std::sync::Arc;

use super::{Message, Reason, Rejection};

/// The header that names the schema of the value.
pub const HEADER: &str = "__value_schema_id";

/// Which schema a message was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SchemaId {
    /// Its number in the registry.
    Number(u32),
    /// Its id in every registry.
    Guid([u8; 16]),
}

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SchemaId::Number(number) => number.fmt(f),
            SchemaId::Guid(bytes) => {
                for (i, byte) in bytes.iter().enumerate() {
                    if matches!(i, 4 | 6 | 8 | 10) {
                        f.write_str("-")?;
                    }
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }
    }
}

/// A schema as the registry keeps it, with those that it refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SchemaText {
    /// `AVRO`, `JSON` or `PROTOBUF`.
    pub kind: String,
    /// The schema itself.
    pub text: String,
    /// Names and texts of the others, those that are referred to first.
    pub references: Vec<(String, String)>,
}

/// A schema, ready to read with.
#[derive(Debug)]
pub struct Schema(Kind);

#[derive(Debug)]
enum Kind {
    Json,
    Avro(Box<avro::AvroSchema>),
    Protobuf(protobuf::ProtobufSchema),
}

impl Schema {
    /// Makes a schema ready.
    ///
    /// # Errors
    /// What keeps messages from being read with it.
    pub fn compile(schema: &SchemaText) -> Result<Schema, String> {
        Ok(Schema(match schema.kind.as_str() {
            "JSON" => Kind::Json,
            "AVRO" | "" => Kind::Avro(Box::new(avro::AvroSchema::compile(schema)?)),
            "PROTOBUF" => Kind::Protobuf(protobuf::ProtobufSchema::compile(schema)?),
            other => return Err(format!("it is written in {other:?}; supported are AVRO, JSON and PROTOBUF")),
        }))
    }
}

/// Where schemas come from. What is asked for is fetched in the background.
pub trait Schemas: fmt::Debug + Send + Sync {
    /// Whether the registry has said what a schema is, or that there is none; if not, it is asked.
    fn is_settled(&self, id: SchemaId) -> bool;

    /// What it said.
    ///
    /// # Errors
    /// Why there is no such schema.
    fn get(&self, id: SchemaId) -> Result<Arc<Schema>, String>;

    /// What keeps it from answering at the moment.
    fn last_error(&self) -> Option<String>;
}

/// A value without its frame.
struct Framed<'a> {
    id: SchemaId,
    /// What the header holds behind the id: for Protobuf, the place of the message in its file.
    aside: Option<&'a [u8]>,
    payload: &'a [u8],
}

fn id_at_front(bytes: &[u8]) -> Option<(SchemaId, &[u8])> {
    match bytes.split_first()? {
        (0, rest) => rest.split_first_chunk::<4>().map(|(id, rest)| (SchemaId::Number(u32::from_be_bytes(*id)), rest)),
        (1, rest) => rest.split_first_chunk::<16>().map(|(id, rest)| (SchemaId::Guid(*id), rest)),
        _ => None,
    }
}

fn framed<'a>(message: &Message<'a>) -> Option<Framed<'a>> {
    let payload = message.payload?;
    if let Some((id, aside)) = message.header(HEADER).and_then(id_at_front) {
        return Some(Framed { id, aside: Some(aside), payload });
    }
    let (id, payload) = id_at_front(payload)?;
    Some(Framed { id, aside: None, payload })
}

/// The schema that a message names, if it names one.
pub(super) fn schema_of(message: &Message<'_>) -> Option<SchemaId> {
    framed(message).map(|framed| framed.id)
}

/// The JSON that a message means: its own bytes, or those behind the frame, or what its schema makes of them.
pub(super) enum Unframed<'a> {
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
}

pub(super) fn unframed<'a>(
    message: &Message<'a>,
    bytes: &'a [u8],
    schemas: &dyn Schemas,
) -> Result<Unframed<'a>, Rejection> {
    let Some(Framed { id, aside, payload }) = framed(message) else { return Ok(Unframed::Borrowed(bytes)) };
    let unknown = |why| Rejection::new(Reason::UnknownSchema, format!("schema {id} of the message: {why}"));
    let schema = schemas.get(id).map_err(unknown)?;
    let unfit =
        |why: String| Rejection::new(Reason::UnfitForSchema, format!("the value is not as schema {id} says: {why}"));
    match &schema.0 {
        Kind::Json => Ok(Unframed::Borrowed(payload)),
        Kind::Avro(avro) => avro.to_json(payload).map(Unframed::Owned).map_err(unfit),
        Kind::Protobuf(protobuf) => protobuf.to_json(payload, aside).map(Unframed::Owned).map_err(unfit),
    }
}

#[cfg(test)]
mod tests;
