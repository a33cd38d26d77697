//! Debezium's change events of a table of orders, with and without the `schema`/`payload` wrapper.
//!
//! <https://debezium.io/documentation/reference/stable/connectors/postgresql.html>. A row that is inserted, or found by
//! the snapshot, is an order; a later change of it is none, whatever changes. With `where` it is an order from the change
//! on that makes it fit. A row that says that it is cancelled cancels its order. Both need the row as it was before; a
//! database that does not tell it (`REPLICA IDENTITY` other than `FULL`) makes later changes of such a row repeat
//! themselves, which is recognised as long as duplicates are. A tombstone, behind a deletion, means nothing.
//!
//! Rows that `ExtractNewRecordState` flattened say less: each message tells the order again, and its cancellation; what of
//! that is too late by then was told before.

use super::custom::{Around, Row};
use super::{Outside, told};
use crate::decode::fields::{Value, missing, time};
use crate::decode::options::{Deletes, FieldTexts, OptionError, Options};
use crate::decode::paths::{Paths, Slots};
use crate::decode::{Decoded, Message, Reason, Rejection, Skip, Unknown, json};
use crate::event::{Event, EventType, Time};

const PLACES: [&str; 8] = ["payload", "op", "before", "after", "source.ts_ms", "ts_ms", "schema", "source.snapshot"];
const PAYLOAD: usize = 0;
const OP: usize = 1;
const BEFORE: usize = 2;
const AFTER: usize = 3;
const SOURCE_TIME: usize = 4;
const SENT: usize = 5;
const SCHEMA: usize = 6;
const SNAPSHOT: usize = 7;

/// What is added to the columns of flattened rows (`add.fields = op,ts_ms,source.ts_ms`, `delete.handling.mode = rewrite`).
const ADDED: [&str; 4] = ["__op", "__deleted", "__source_ts_ms", "__ts_ms"];

/// Reads changes of a table.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Debezium {
    envelope: Paths,
    row: Row,
    /// The slots of [`ADDED`].
    added: [usize; 4],
    cancelled: Option<usize>,
    cancelled_values: Vec<String>,
    deletes: Deletes,
}

/// A change, out of its wrapper.
struct Change<'m, 'a> {
    around: Around<'m, 'a>,
    envelope: Slots<'a>,
    /// When it was made, as the connector says.
    made: Value<'a>,
    /// Whether the row was there before the connector was.
    is_snapshot: bool,
    /// Whether it is a row alone, whose earlier states nobody tells.
    is_flat: bool,
}

/// What stands beside a change in another envelope.
#[derive(Debug, Clone, Default)]
pub(in crate::decode) struct Beside<'a> {
    pub op: Value<'a>,
    pub made: Value<'a>,
}

impl Debezium {
    pub fn new(options: &Options, dimensions: &[String]) -> Result<Debezium, OptionError> {
        let column = |name: &str| Some(name.into());
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
        let mut added = [0; 4];
        for (slot, name) in added.iter_mut().zip(ADDED) {
            *slot = row.add("fields", name)?;
        }
        Ok(Debezium {
            envelope: Paths::of(&PLACES),
            row,
            added,
            cancelled,
            cancelled_values: options.cancelled_values.clone(),
            deletes: options.deletes,
        })
    }

    /// Whether more than key and value matters.
    pub fn wants_message(&self) -> bool {
        self.row.wants_message()
    }

    pub fn decode<'a>(&self, message: &Message<'a>, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        self.decode_beside(message, bytes, Beside::default())
    }

    /// Decodes a change; what it does not say itself stands beside it.
    pub fn decode_beside<'a>(
        &self,
        message: &Message<'a>,
        bytes: &'a [u8],
        beside: Beside<'a>,
    ) -> Result<Decoded<'a>, Rejection> {
        let outer = self.envelope.read(bytes)?;
        let is_bare = outer.raw(OP).is_none() && outer.raw(BEFORE).is_none() && outer.raw(AFTER).is_none();
        let (envelope, object) = match outer.raw(PAYLOAD) {
            Some(inner) if is_bare && inner.starts_with('{') => {
                (self.envelope.read(inner.as_bytes())?, inner.as_bytes())
            }
            _ => (outer, bytes),
        };
        // MongoDB's documents are JSON in a string, and so are messages of an outbox.
        let texts = [envelope.raw(AFTER), envelope.raw(BEFORE), outer.raw(PAYLOAD).filter(|_| is_bare)];
        for piece in texts.into_iter().flatten() {
            if let Some(bytes) = json::in_a_string(piece).and_then(|inner| json::spliced(bytes, piece, &inner)) {
                return self.decode_owned(message, &bytes, &beside);
            }
        }
        let op = envelope.value(OP).or(beside.op.clone());
        let is_flat = op == Value::Absent && envelope.raw(BEFORE).is_none() && envelope.raw(AFTER).is_none();
        let way: &[&str] = if is_flat { &[] } else { &["after"] };
        if self.row.has_nested_places() {
            let rows = if is_flat {
                [Some(object), None]
            } else {
                [AFTER, BEFORE].map(|row| envelope.raw(row).map(str::as_bytes))
            };
            if let Some(bytes) = rows.into_iter().flatten().find_map(|row| self.row.opened(bytes, row)) {
                return self.decode_owned(message, &bytes, &beside);
            }
        }
        let scale = outer.raw(SCHEMA).and_then(|schema| self.row.scale_in(schema, way));
        let change = Change {
            around: Around { message, scale, outside: Outside::default() },
            envelope,
            made: envelope.first_of([SOURCE_TIME, SENT]).or(beside.made.clone()),
            is_snapshot: op.as_text() == Some("r")
                || envelope.raw(SNAPSHOT).is_some_and(|told| !matches!(told, "false" | "\"false\"")),
            is_flat,
        };
        if is_flat { self.flat(change, object) } else { self.changed(&change, op) }
    }

    fn decode_owned(
        &self,
        message: &Message<'_>,
        bytes: &[u8],
        beside: &Beside<'_>,
    ) -> Result<Decoded<'static>, Rejection> {
        let message = Message { payload: Some(bytes), ..message.clone() };
        self.decode_beside(&message, bytes, beside.clone()).map(Decoded::into_owned)
    }

    fn changed<'a>(&self, change: &Change<'_, 'a>, op: Value<'a>) -> Result<Decoded<'a>, Rejection> {
        match op.as_text() {
            Some("c" | "r") => self.inserted(change, self.row_at(change, AFTER, "after")?),
            Some("u") => self.updated(change),
            Some("d") if self.deletes == Deletes::Cancel => self.deleted(change, self.before(change)?),
            Some("d") => Ok(Decoded::Skipped(Skip::Change)),
            _ => Ok(Decoded::Unknown(Unknown::of("op", op.into_text()))),
        }
    }

    /// A row without its envelope (`ExtractNewRecordState`). Nobody tells whether an earlier message told the same, so each
    /// tells it again.
    fn flat<'a>(&self, change: Change<'_, 'a>, object: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        let row = self.row.read(object)?;
        if !self.row.has(&row, "order_id") && !self.row.has(&row, "customer_id") && !self.row.has(&row, "amount") {
            return Ok(Decoded::Unknown(Unknown::of("op", None)));
        }
        let [op, deleted, source_time, sent] = self.added.map(|slot| row.value(slot));
        let is_deleted = op.as_text() == Some("d") || deleted.as_text() == Some("true") || row.is_true(self.added[1]);
        let is_snapshot = op.as_text() == Some("r");
        let change = Change { made: source_time.or(sent), is_snapshot, ..change };
        if is_deleted {
            let cancels = self.deletes == Deletes::Cancel;
            return if cancels { self.deleted(&change, Some(row)) } else { Ok(Decoded::Skipped(Skip::Change)) };
        }
        self.inserted(&change, row)
    }

    fn row_at<'a>(&self, change: &Change<'_, 'a>, place: usize, name: &str) -> Result<Slots<'a>, Rejection> {
        let Some(row) = change.envelope.raw(place) else { return Err(missing(name)) };
        self.row.read(row.as_bytes())
    }

    /// The row before the change, if the database tells it: more of it than its key.
    fn before<'a>(&self, change: &Change<'_, 'a>) -> Result<Option<Slots<'a>>, Rejection> {
        let Some(row) = change.envelope.raw(BEFORE) else { return Ok(None) };
        let row = self.row.read(row.as_bytes())?;
        Ok((self.row.has(&row, "customer_id") || self.row.has(&row, "amount")).then_some(row))
    }

    fn inserted<'a>(&self, change: &Change<'_, 'a>, after: Slots<'a>) -> Result<Decoded<'a>, Rejection> {
        if let Err(skip) = self.row.common.chosen(&after) {
            return Ok(Decoded::Skipped(skip));
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
        if change.is_flat {
            return Ok(Decoded::Several { events, told_before: Time::MAX });
        }
        Ok(told(events, None))
    }

    fn updated<'a>(&self, change: &Change<'_, 'a>) -> Result<Decoded<'a>, Rejection> {
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
        let sent = time(change.made.clone()).ok();
        Ok(told(events, sent.filter(|_| before.is_none())))
    }

    fn deleted<'a>(&self, change: &Change<'_, 'a>, before: Option<Slots<'a>>) -> Result<Decoded<'a>, Rejection> {
        let Some(before) = before else {
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
        change: &Change<'_, 'a>,
        row: &Slots<'a>,
        event_type: EventType,
    ) -> Result<Result<Event<'a>, Skip>, Rejection> {
        let mut fields = match self.row.fields(row, change.around, event_type)? {
            Ok(fields) => fields,
            Err(skip) => return Ok(Err(skip)),
        };
        if event_type == EventType::Cancel {
            let made = || change.made.clone();
            fields.time = self.cancelled_at(row).map_or_else(made, |at| Value::Millis(at.millis()));
        } else if fields.time == Value::Absent {
            fields.time = self.made(change)?;
        }
        self.row.common.event(fields, event_type).map(Ok)
    }

    /// When a row was made that does not say so itself.
    fn made<'a>(&self, change: &Change<'_, 'a>) -> Result<Value<'a>, Rejection> {
        if !change.is_snapshot && (change.made != Value::Absent || self.row.has_time()) {
            return Ok(change.made.clone());
        }
        let what = match (self.row.has_time(), change.is_snapshot) {
            (true, _) => "time is missing: the row was found by a snapshot, and the column of fields.time is empty",
            (false, true) => {
                "time is missing: the row was found by a snapshot, which does not tell when the order was placed; name the \
                 column that does in fields.time"
            }
            (false, false) => {
                "time is missing: a flattened row does not tell when the order was placed; name the column that does in \
                 fields.time"
            }
        };
        Err(Rejection::new(Reason::MissingField, what))
    }

    /// The time in the column that says so, if it is one.
    fn cancelled_at(&self, row: &Slots<'_>) -> Option<Time> {
        let value = self.cancelled.map(|slot| row.value(slot))?;
        let is_instant = self.cancelled_values.is_empty() && value.as_text().is_some_and(|text| text.len() > 5);
        if is_instant { time(self.row.instant(value).ok()?).ok() } else { None }
    }
}
