//! Avro to JSON: names as in the schema, decimals as decimal text, instants in RFC 3339, days as their first instant in
//! UTC.

use std::collections::HashMap;
use std::io::Write as _;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::{Schema, util};
use jiff::Timestamp;

use super::SchemaText;

/// Limit of one value's length: the reader allocates that much up front, and a damaged message may claim any length.
const MAX_BYTES: usize = 64 << 20;

/// A schema with the schemas that it refers to.
#[derive(Debug)]
pub(super) struct AvroSchema {
    schema: Schema,
    references: Vec<Schema>,
}

impl AvroSchema {
    pub fn compile(schema: &SchemaText) -> Result<AvroSchema, String> {
        util::max_allocation_bytes(MAX_BYTES);
        let references = schema.references.iter().map(|(_, text)| text.as_str());
        let parsed = Schema::parse_str_with_list(&schema.text, references);
        let (schema, references) = parsed.map_err(|error| format!("it is no sound Avro schema ({error})"))?;
        let schema = AvroSchema { schema, references };
        if schema.is_recursive(&schema.schema, &schema.names(), &mut Vec::new()) {
            // A value of a few kilobytes could be nested deeply enough to overflow the stack.
            return Err("it contains itself; retentiond reads no such schemas".to_owned());
        }
        Ok(schema)
    }

    /// The named schemas by their full names.
    fn names(&self) -> HashMap<String, &Schema> {
        let mut names = HashMap::new();
        for schema in self.references.iter().chain([&self.schema]) {
            collect(schema, &mut names);
        }
        names
    }

    fn is_recursive(&self, schema: &Schema, names: &HashMap<String, &Schema>, above: &mut Vec<String>) -> bool {
        match schema {
            Schema::Ref { name } => {
                let name = name.fullname(None);
                above.contains(&name) || names.get(&name).is_some_and(|known| self.is_recursive(known, names, above))
            }
            Schema::Record(record) => {
                above.push(record.name.fullname(None));
                let found = record.fields.iter().any(|field| self.is_recursive(&field.schema, names, above));
                above.pop();
                found
            }
            Schema::Array(array) => self.is_recursive(&array.items, names, above),
            Schema::Map(map) => self.is_recursive(&map.types, names, above),
            Schema::Union(union) => union.variants().iter().any(|variant| self.is_recursive(variant, names, above)),
            _ => false,
        }
    }

    pub fn to_json(&self, mut bytes: &[u8]) -> Result<Vec<u8>, String> {
        let all: Vec<&Schema> = self.references.iter().chain([&self.schema]).collect();
        let reader = GenericDatumReader::builder(&self.schema).writer_schemata(all).and_then(|builder| builder.build());
        // The library's error may contain the value, so it is not repeated.
        let reader = reader.map_err(|_| "the schema cannot be resolved".to_owned())?;
        let value = reader.read_value(&mut bytes).map_err(|_| "it ends too early or holds another type".to_owned())?;
        if !bytes.is_empty() {
            return Err(format!("{} byte(s) are left over", bytes.len()));
        }
        let mut json = Vec::with_capacity(256);
        write(&value, &self.schema, &self.names(), &mut json).map_err(|error| error.to_string())?;
        Ok(json)
    }
}

fn collect<'s>(schema: &'s Schema, names: &mut HashMap<String, &'s Schema>) {
    match schema {
        Schema::Record(record) => {
            names.insert(record.name.fullname(None), schema);
            record.fields.iter().for_each(|field| collect(&field.schema, names));
        }
        Schema::Enum(symbols) => drop(names.insert(symbols.name.fullname(None), schema)),
        Schema::Fixed(fixed) => drop(names.insert(fixed.name.fullname(None), schema)),
        Schema::Array(array) => collect(&array.items, names),
        Schema::Map(map) => collect(&map.types, names),
        Schema::Union(union) => union.variants().iter().for_each(|variant| collect(variant, names)),
        _ => {}
    }
}

fn write(value: &Value, schema: &Schema, names: &HashMap<String, &Schema>, json: &mut Vec<u8>) -> std::io::Result<()> {
    if let Schema::Ref { name } = schema
        && let Some(known) = names.get(&name.fullname(None))
    {
        return write(value, known, names, json);
    }
    match (value, schema) {
        (Value::Union(place, value), Schema::Union(union)) => {
            let variant = usize::try_from(*place).ok().and_then(|place| union.variants().get(place));
            write(value, variant.unwrap_or(&Schema::Null), names, json)
        }
        (Value::Record(fields), Schema::Record(record)) => {
            json.push(b'{');
            for (i, ((name, value), field)) in fields.iter().zip(&record.fields).enumerate() {
                if i > 0 {
                    json.push(b',');
                }
                text(name, json)?;
                json.push(b':');
                write(value, &field.schema, names, json)?;
            }
            json.push(b'}');
            Ok(())
        }
        (Value::Array(items), Schema::Array(array)) => {
            json.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    json.push(b',');
                }
                write(item, &array.items, names, json)?;
            }
            json.push(b']');
            Ok(())
        }
        (Value::Map(entries), Schema::Map(map)) => {
            json.push(b'{');
            for (i, (name, value)) in entries.iter().enumerate() {
                if i > 0 {
                    json.push(b',');
                }
                text(name, json)?;
                json.push(b':');
                write(value, &map.types, names, json)?;
            }
            json.push(b'}');
            Ok(())
        }
        (Value::Decimal(decimal), Schema::Decimal(of)) => {
            let bytes = Vec::<u8>::try_from(decimal).unwrap_or_default();
            text(&decimal_text(&bytes, of.scale), json)
        }
        _ => scalar(value, json),
    }
}

fn scalar(value: &Value, json: &mut Vec<u8>) -> std::io::Result<()> {
    match value {
        Value::Boolean(value) => write!(json, "{value}"),
        Value::Int(value) => write!(json, "{value}"),
        Value::Long(value) => write!(json, "{value}"),
        Value::Float(value) if value.is_finite() => write!(json, "{value}"),
        Value::Double(value) if value.is_finite() => write!(json, "{value}"),
        Value::String(value) | Value::Enum(_, value) => text(value, json),
        Value::Uuid(value) => text(&value.to_string(), json),
        Value::BigDecimal(value) => text(&value.to_string(), json),
        Value::Date(days) => instant(Timestamp::from_second(i64::from(*days) * 86_400), json),
        Value::TimestampMillis(millis) => instant(Timestamp::from_millisecond(*millis), json),
        Value::TimestampMicros(micros) => instant(Timestamp::from_microsecond(*micros), json),
        Value::TimestampNanos(nanos) => instant(Timestamp::from_nanosecond(i128::from(*nanos)), json),
        Value::LocalTimestampMillis(number)
        | Value::LocalTimestampMicros(number)
        | Value::LocalTimestampNanos(number)
        | Value::TimeMicros(number) => write!(json, "{number}"),
        Value::TimeMillis(number) => write!(json, "{number}"),
        // Bytes and similar types are not fields of events.
        _ => json.write_all(b"null"),
    }
}

fn text(value: &str, json: &mut Vec<u8>) -> std::io::Result<()> {
    serde_json::to_writer(json, value).map_err(std::io::Error::other)
}

fn instant(instant: Result<Timestamp, jiff::Error>, json: &mut Vec<u8>) -> std::io::Result<()> {
    match instant {
        Ok(instant) => text(&instant.to_string(), json),
        Err(_) => json.write_all(b"null"),
    }
}

/// A big-endian number in two's complement, times `10^-scale`. Numbers beyond 128 bits are not amounts and become text
/// that is rejected as one.
fn decimal_text(bytes: &[u8], scale: usize) -> String {
    let sign = if bytes.first().is_some_and(|first| first & 0x80 != 0) { 0xff } else { 0 };
    if bytes.len() > 16 {
        return "beyond 128 bits".to_owned();
    }
    let mut all = [sign; 16];
    all[16 - bytes.len()..].copy_from_slice(bytes);
    let number = i128::from_be_bytes(all);
    let digits = format!("{:0width$}", number.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let minus = if number < 0 { "-" } else { "" };
    if fraction.is_empty() { format!("{minus}{whole}") } else { format!("{minus}{whole}.{fraction}") }
}
