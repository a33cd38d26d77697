//! Debezium's change events of a table of orders, with and without the `schema`/`payload` wrapper.
//!
//! <https://debezium.io/documentation/reference/stable/connectors/postgresql.html>. A row that is inserted, or found by
//! the snapshot, is an order; a later change of it is none, whatever changes. With `where` it is an order from the change
//! on that makes it fit. A row that says that it is cancelled cancels its order. Both need the row as it was before; a
//! database that does not tell it (`REPLICA IDENTITY` other than `FULL`) makes later changes of such a row repeat
//! themselves, which is recognised as long as duplicates are. A tombstone, behind a deletion, means nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::custom::Row;
use super::told;
use crate::decode::fields::{Fields, Value, time};
use crate::decode::options::{Deletes, FieldTexts, OptionError, Options};
use crate::decode::paths::{Paths, Slots};
use crate::decode::{Decoded, Reason, Rejection, Skip};
use crate::event::{Event, EventType, Time};

const PLACES: [&str; 7] = ["payload", "op", "before", "after", "source.ts_ms", "ts_ms", "schema"];
const PAYLOAD: usize = 0;
const OP: usize = 1;
const BEFORE: usize = 2;
const AFTER: usize = 3;
const SOURCE_TIME: usize = 4;
const SENT: usize = 5;
const SCHEMA: usize = 6;

/// What Kafka Connect calls a number of bytes and a scale.
const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";

/// A field of a Kafka Connect schema, or the schema itself.
#[derive(Deserialize)]
struct Field<'a> {
    #[serde(borrow, default)]
    field: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    parameters: Option<Parameters<'a>>,
    #[serde(borrow, default)]
    fields: Vec<Field<'a>>,
}

#[derive(Deserialize)]
struct Parameters<'a> {
    #[serde(borrow, default)]
    scale: Option<std::borrow::Cow<'a, str>>,
}

impl Field<'_> {
    fn child(&self, name: &str) -> Option<&Self> {
        self.fields.iter().find(|field| field.field.as_deref() == Some(name))
    }
}

/// A decimal number whose scale stands beside it.
#[derive(Deserialize)]
struct Scaled<'a> {
    scale: u32,
    #[serde(borrow)]
    value: std::borrow::Cow<'a, str>,
}

/// Reads changes of a table.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Debezium {
    envelope: Paths,
    row: Row,
    /// The name of the amount's column, where it stands in a row directly.
    amount_column: Option<String>,
    scale: Option<u32>,
    cancelled: Option<usize>,
    cancelled_values: Vec<String>,
    deletes: Deletes,
}

/// A change, out of its wrapper.
struct Change<'a> {
    envelope: Slots<'a>,
    schema: Option<&'a str>,
}

impl Debezium {
    pub fn new(options: &Options, dimensions: &[String]) -> Result<Debezium, OptionError> {
        let column = |name: &str| Some(name.to_owned());
        let usual = FieldTexts {
            customer_id: column("customer_id"),
            order_id: column("id"),
            amount: column("amount"),
            currency: column("currency"),
            ..FieldTexts::default()
        };
        let mut row = Row::new(options, dimensions, &usual)?;
        let cancelled = options.cancelled.as_ref().map(|place| row.add("cancelled", place)).transpose()?;
        if cancelled.is_none() && !options.cancelled_values.is_empty() {
            return Err(OptionError::new("cancelled_values", "are values of a column; write its name as cancelled"));
        }
        Ok(Debezium {
            envelope: Paths::of(&PLACES),
            row,
            amount_column: options.fields.or(&usual).amount,
            scale: options.amount_scale,
            cancelled,
            cancelled_values: options.cancelled_values.clone(),
            deletes: options.deletes,
        })
    }

    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        let outer = self.envelope.read(bytes)?;
        let envelope = match outer.raw(PAYLOAD) {
            Some(inner) => self.envelope.read(inner.as_bytes())?,
            None => outer,
        };
        let change = Change { envelope, schema: outer.raw(SCHEMA) };
        let op = envelope.value(OP);
        match op.as_text() {
            Some("c" | "r") => self.inserted(&change),
            Some("u") => self.updated(&change),
            Some("d") if self.deletes == Deletes::Cancel => self.deleted(&change),
            Some("d") => Ok(Decoded::Skipped(Skip::Change)),
            _ => Ok(Decoded::Unknown),
        }
    }

    fn row_at<'a>(&self, change: &Change<'a>, place: usize, name: &str) -> Result<Slots<'a>, Rejection> {
        let Some(row) = change.envelope.raw(place) else { return Err(crate::decode::fields::missing(name)) };
        self.row.read(row.as_bytes())
    }

    /// The row before the change, if the database tells it: more of it than its key.
    fn before<'a>(&self, change: &Change<'a>) -> Result<Option<Slots<'a>>, Rejection> {
        let Some(row) = change.envelope.raw(BEFORE) else { return Ok(None) };
        let row = self.row.read(row.as_bytes())?;
        Ok(self.row.raw(&row, "customer_id").or(self.row.raw(&row, "amount")).is_some().then_some(row))
    }

    fn inserted<'a>(&self, change: &Change<'a>) -> Result<Decoded<'a>, Rejection> {
        let after = self.row_at(change, AFTER, "after")?;
        if !self.row.counts(&after) {
            return Ok(Decoded::Skipped(Skip::Filtered));
        }
        let mut events = Vec::with_capacity(1);
        for event_type in [EventType::Order, EventType::Cancel] {
            if event_type == EventType::Order || self.is_cancelled(&after) {
                match self.event(change, &after, event_type)? {
                    Ok(event) => events.push(event),
                    Err(skip) => return Ok(Decoded::Skipped(skip)),
                }
            }
        }
        Ok(told(events, None))
    }

    fn updated<'a>(&self, change: &Change<'a>) -> Result<Decoded<'a>, Rejection> {
        let after = self.row_at(change, AFTER, "after")?;
        let before = self.before(change)?;
        let counts = self.row.counts(&after);
        let counted = before.as_ref().map(|before| self.row.counts(before));
        let mut wanted = Vec::new();
        if self.row.chooses() && counts && counted != Some(true) {
            wanted.push(EventType::Order);
        }
        let was_cancelled = before.as_ref().is_some_and(|before| self.is_cancelled(before));
        if self.is_cancelled(&after) && !was_cancelled {
            match counted {
                None if !counts => {
                    let what = "before does not hold the row, so whether the cancelled order ever counted is unknown; let \
                                the database tell it (PostgreSQL: ALTER TABLE ... REPLICA IDENTITY FULL)";
                    return Err(Rejection::new(Reason::MissingField, what));
                }
                Some(false) if !counts => {}
                _ => wanted.push(EventType::Cancel),
            }
        }
        let mut events = Vec::new();
        for event_type in wanted {
            match self.event(change, &after, event_type)? {
                Ok(event) => events.push(event),
                Err(skip) => return Ok(Decoded::Skipped(skip)),
            }
        }
        if events.is_empty() {
            return Ok(Decoded::Skipped(if counts { Skip::Change } else { Skip::Filtered }));
        }
        let sent = time(change.envelope.first_of([SOURCE_TIME, SENT])).ok();
        Ok(told(events, sent.filter(|_| before.is_none())))
    }

    fn deleted<'a>(&self, change: &Change<'a>) -> Result<Decoded<'a>, Rejection> {
        let Some(before) = self.before(change)? else {
            let what = "before does not hold the row, so whose order was deleted is unknown; let the database tell it \
                        (PostgreSQL: ALTER TABLE ... REPLICA IDENTITY FULL)";
            return Err(Rejection::new(Reason::MissingField, what));
        };
        if !self.row.counts(&before) {
            return Ok(Decoded::Skipped(Skip::Filtered));
        }
        if self.is_cancelled(&before) {
            return Ok(Decoded::Skipped(Skip::Change));
        }
        Ok(self.event(change, &before, EventType::Cancel)?.map_or_else(Decoded::Skipped, Decoded::Event))
    }

    fn is_cancelled(&self, row: &Slots<'_>) -> bool {
        let Some(json) = self.cancelled.and_then(|slot| row.raw(slot)) else { return false };
        let value = self.cancelled.map(|slot| row.value(slot)).unwrap_or_default();
        let text = value.as_text().unwrap_or(json);
        match self.cancelled_values.as_slice() {
            [] => !matches!(text, "false" | "0" | ""),
            values => values.iter().any(|value| value == text),
        }
    }

    fn event<'a>(
        &self,
        change: &Change<'a>,
        row: &Slots<'a>,
        event_type: EventType,
    ) -> Result<Result<Event<'a>, Skip>, Rejection> {
        let mut fields = match self.row.fields(row)? {
            Ok(fields) => fields,
            Err(skip) => return Ok(Err(skip)),
        };
        self.read_amount(change, row, &mut fields)?;
        let changed = || change.envelope.first_of([SOURCE_TIME, SENT]);
        if event_type == EventType::Cancel {
            fields.time = self.cancelled_at(row).map_or_else(changed, |at| Value::Millis(at.millis()));
        } else if fields.time == Value::Absent {
            fields.time = changed();
        }
        fields.into_event(event_type).map(Ok)
    }

    /// The time in the column that says so, if it is one.
    fn cancelled_at(&self, row: &Slots<'_>) -> Option<Time> {
        let value = self.cancelled.map(|slot| row.value(slot))?;
        let is_instant = self.cancelled_values.is_empty() && value.as_text().is_some_and(|text| text.len() > 5);
        if is_instant { time(self.row.instant(value).ok()?).ok() } else { None }
    }

    /// Amounts that are bytes and a scale, which Debezium makes of exact numbers by default.
    fn read_amount<'a>(&self, change: &Change<'a>, row: &Slots<'a>, fields: &mut Fields<'a>) -> Result<(), Rejection> {
        let Some(json) = self.row.raw(row, "amount") else { return Ok(()) };
        let (bytes, scale) = if json.starts_with('{') {
            let wrong =
                |_| Rejection::new(Reason::WrongType, "amount must be a number, text, or bytes and their scale");
            let scaled: Scaled<'_> = serde_json::from_str(json).map_err(wrong)?;
            (scaled.value, scaled.scale)
        } else if let Value::Text(text) = self.row.field(row, "amount")
            && let Some(scale) = change.schema.and_then(|schema| self.scale_in(schema)).or(self.scale)
        {
            (text, scale)
        } else {
            return Ok(());
        };
        let units = STANDARD.decode(bytes.as_bytes()).ok().and_then(|bytes| integer(&bytes));
        let wrong =
            || Rejection::new(Reason::InvalidAmount, "amount is no base64 of a whole number of at most 8 bytes");
        fields.amount = Value::Units { units: units.ok_or_else(wrong)?, exponent: Some(scale) };
        Ok(())
    }

    /// The scale of the amount's column, if the schema says that it is bytes.
    fn scale_in(&self, schema: &str) -> Option<u32> {
        let schema: Field<'_> = serde_json::from_str(schema).ok()?;
        let column = schema.child("after")?.child(self.amount_column.as_deref()?)?;
        let is_decimal = column.name.as_deref() == Some(DECIMAL);
        is_decimal.then(|| column.parameters.as_ref()?.scale.as_ref()?.parse().ok()).flatten()
    }
}

/// A big-endian number in two's complement.
fn integer(bytes: &[u8]) -> Option<i64> {
    let first = *bytes.first()?;
    let sign = if first & 0x80 == 0 { 0 } else { 0xff };
    let (above, low) = bytes.split_at(bytes.len().saturating_sub(8));
    if above.iter().any(|byte| *byte != sign) || (low[0] ^ sign) & 0x80 != 0 {
        return None;
    }
    let mut all = [sign; 8];
    all[8 - low.len()..].copy_from_slice(low);
    Some(i64::from_be_bytes(all))
}

#[cfg(test)]
mod tests {
    use super::integer;

    #[test]
    fn twos_complement_of_any_length_is_read() {
        for (bytes, number) in [
            (&[0x1c, 0x2c][..], Some(7212)),
            (&[0xff], Some(-1)),
            (&[0x00, 0xff], Some(255)),
            (&[0, 0, 0, 0, 0, 0, 0, 0, 0x1c, 0x2c], Some(7212)),
            (&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Some(i64::MAX)),
            (&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], None),
            (&[], None),
        ] {
            assert_eq!(integer(bytes), number, "{bytes:?}");
        }
    }
}
