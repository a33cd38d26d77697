//! Protobuf to its canonical JSON, with the names of the schema: 64-bit numbers as text, timestamps in RFC 3339.

use prost_reflect::{DescriptorPool, DynamicMessage, FileDescriptor, MessageDescriptor, SerializeOptions};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::SchemaText;

/// File name of the main schema.
const ITSELF: &str = "retentiond_schema.proto";
/// Maximum nesting depth of message types, and so the maximum number of message indexes.
const MAX_DEPTH: u64 = 32;

/// The compiled files of a schema.
#[derive(Debug)]
pub(super) struct ProtobufSchema {
    pool: DescriptorPool,
}

/// Schema files with their names.
struct Files(Vec<(String, String)>);

impl FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.iter().find(|(known, _)| known == name) {
            Some((name, text)) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

impl ProtobufSchema {
    pub fn compile(schema: &SchemaText) -> Result<ProtobufSchema, String> {
        let mut files = schema.references.clone();
        files.push((ITSELF.to_owned(), schema.text.clone()));
        let mut resolver = ChainFileResolver::new();
        resolver.add(Files(files));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(resolver);
        compiler.include_imports(true);
        compiler.open_file(ITSELF).map_err(|error| format!("it is no sound Protobuf schema ({error})"))?;
        Ok(ProtobufSchema { pool: compiler.descriptor_pool() })
    }

    /// `aside` contains the message indexes if they are in the header; otherwise they precede the payload.
    pub fn to_json(&self, payload: &[u8], aside: Option<&[u8]>) -> Result<Vec<u8>, String> {
        let (place, payload) = match aside {
            Some([]) => (vec![0], payload),
            Some(aside) => (place(aside)?.0, payload),
            None => place(payload)?,
        };
        let file = self.pool.get_file_by_name(ITSELF).ok_or("the schema is lost")?;
        let descriptor = find(&file, &place).ok_or_else(|| format!("the schema has no message at {place:?}"))?;
        let message = DynamicMessage::decode(descriptor, payload);
        let message = message.map_err(|_| "it is cut off, or holds another type".to_owned())?;
        let mut json = Vec::with_capacity(256);
        let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);
        let written = message.serialize_with_options(&mut serde_json::Serializer::new(&mut json), &options);
        written.map_err(|_| "it holds what JSON cannot say".to_owned())?;
        Ok(json)
    }
}

/// The indexes of a message type: their count, then each of them, as zigzag varints. A single 0 means the first
/// message.
fn place(bytes: &[u8]) -> Result<(Vec<usize>, &[u8]), String> {
    let cut_off = || "it is cut off in the place of its message".to_owned();
    let (count, mut rest) = zigzag(bytes).ok_or_else(cut_off)?;
    if count == 0 {
        return Ok((vec![0], rest));
    }
    if count > MAX_DEPTH {
        return Err("the place of its message is absurdly deep".to_owned());
    }
    let mut place = Vec::new();
    for _ in 0..count {
        let (number, behind) = zigzag(rest).ok_or_else(cut_off)?;
        place.push(usize::try_from(number).map_err(|_| cut_off())?);
        rest = behind;
    }
    Ok((place, rest))
}

/// A non-negative number as a zigzag varint.
fn zigzag(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0_u64;
    for (i, byte) in bytes.iter().enumerate().take(9) {
        number |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return (number & 1 == 0).then_some((number >> 1, &bytes[i + 1..]));
        }
    }
    None
}

fn find(file: &FileDescriptor, place: &[usize]) -> Option<MessageDescriptor> {
    let (first, inner) = place.split_first()?;
    let message = file.messages().nth(*first)?;
    inner.iter().try_fold(message, |message, number| message.child_messages().nth(*number))
}
