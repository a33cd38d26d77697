//! Messages that name the schema they were written with, in the wire format of schema registries.
//!
//! <https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>:
//! byte 0 and a number of four bytes, or byte 1 and a GUID of sixteen, before the payload or in the header
//! `__value_schema_id`. Whatever the schema's language, the message becomes JSON with the same names and is then read
//! by the source's format.

mod avro;
mod protobuf;

use std::fmt;
use std::sync::Arc;

use super::{Message, Reason, Rejection};

/// Header with the schema id of the value.
pub const HEADER: &str = "__value_schema_id";

/// Id of the schema that a message was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SchemaId {
    /// Number in one registry.
    Number(u32),
    /// Globally unique id.
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

/// A schema as the registry stores it, with the schemas that it refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SchemaText {
    /// `AVRO`, `JSON` or `PROTOBUF`.
    pub kind: String,
    /// Source text of the schema.
    pub text: String,
    /// Names and texts of the referenced schemas; dependencies come first.
    pub references: Vec<(String, String)>,
}

/// A compiled schema.
#[derive(Debug)]
pub struct Schema(Kind);

#[derive(Debug)]
enum Kind {
    Json,
    Avro(Box<avro::AvroSchema>),
    Protobuf(protobuf::ProtobufSchema),
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// Why the schema cannot be used.
    pub fn compile(schema: &SchemaText) -> Result<Schema, String> {
        Ok(Schema(match schema.kind.as_str() {
            "JSON" => Kind::Json,
            "AVRO" | "" => Kind::Avro(Box::new(avro::AvroSchema::compile(schema)?)),
            "PROTOBUF" => Kind::Protobuf(protobuf::ProtobufSchema::compile(schema)?),
            other => return Err(format!("it is written in {other:?}; supported are AVRO, JSON and PROTOBUF")),
        }))
    }
}

/// Source of schemas. Missing schemas are fetched in the background.
pub trait Schemas: fmt::Debug + Send + Sync {
    /// Whether the registry has answered, with the schema or that it has none. If not, this requests the schema.
    fn is_settled(&self, id: SchemaId) -> bool;

    /// The schema.
    ///
    /// # Errors
    /// Why it is not available.
    fn get(&self, id: SchemaId) -> Result<Arc<Schema>, String>;

    /// The error that currently keeps the registry from answering.
    fn last_error(&self) -> Option<String>;
}

/// A value without its schema frame.
struct Framed<'a> {
    id: SchemaId,
    /// Bytes after the id in the header: for Protobuf, the indexes of the message type.
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

/// The id of the schema that a message names, if any.
pub(super) fn schema_of(message: &Message<'_>) -> Option<SchemaId> {
    framed(message).map(|framed| framed.id)
}

/// The JSON of a message: its own bytes, the bytes after the frame, or the converted payload.
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
