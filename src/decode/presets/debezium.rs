//! Debezium's change events of a table of orders, with and without the `schema`/`payload` wrapper.
//!
//! <https://debezium.io/documentation/reference/stable/connectors/postgresql.html>. A row that is inserted, or read by
//! the snapshot, is an order; its later changes are not. With `where`, it is an order from the first change that
//! satisfies the conditions. A row that becomes cancelled cancels its order. Both need the row before the change. A
//! database that does not send it (`REPLICA IDENTITY` other than `FULL`) makes each later change of such a row repeat
//! the event, which is recognized as long as duplicates are. The tombstone that follows a deletion means nothing.
//!
//! Rows flattened by `ExtractNewRecordState` contain less: each message repeats the order and its cancellation, and an
//! event that is too late is taken for a repetition. If `where` does not select a cancelled row, its cancellation
//! counts if the order did.
//!
//! A change of the primary key arrives as a deletion and an insertion, marked by headers; neither is an event.

mod cancelled;

use super::custom::{Around, Row, Scales, without_padding};
use super::types::Types;
use super::{Outside, headers, told};
use crate::decode::fields::{Value, missing, time};
use crate::decode::options::{Deletes, FieldTexts, OptionError, Options};
use crate::decode::paths::{Paths, Slots};
use crate::decode::{Decoded, Message, Reason, Rejection, Skip, Unknown, json};
use crate::event::{EventType, Time};
use cancelled::{Cancelled, State};

const PLACES: [&str; 8] = ["payload", "op", "before", "after", "source.ts_ms", "ts_ms", "schema", "source.snapshot"];
const PAYLOAD: usize = 0;
const OP: usize = 1;
const BEFORE: usize = 2;
const AFTER: usize = 3;
const SOURCE_TIME: usize = 4;
const SENT: usize = 5;
const SCHEMA: usize = 6;
const SNAPSHOT: usize = 7;

/// Columns added to flattened rows (`add.fields = op,ts_ms,source.ts_ms`, `delete.handling.mode = rewrite`).
const ADDED: [&str; 4] = ["__op", "__deleted", "__source_ts_ms", "__ts_ms"];

/// Prefixes of paths outside the row: in the envelope, or among the attributes of a CloudEvent.
const BESIDE: [&str; 4] = ["source.", "transaction.", "op", "iodebezium"];

/// Reads changes of a table.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Debezium {
    envelope: Paths,
    row: Row,
    /// Slots of [`ADDED`].
    added: [usize; 4],
    /// Slots of the paths with a prefix of [`BESIDE`].
    beside: Vec<usize>,
    types: RowTypes,
    cancelled: Option<Cancelled>,
    deletes: Deletes,
}

/// The event type of the table's rows.
#[derive(Debug, Clone)]
enum RowTypes {
    Same(EventType),
    /// A column contains it.
    Column(Types),
}

/// A change without its wrapper.
struct Change<'m, 'a> {
    around: Around<'m, 'a>,
    envelope: Slots<'a>,
    /// Values outside the row, if paths refer to any.
    beside: Option<Slots<'a>>,
    /// Time of the change according to the connector.
    made: Value<'a>,
    /// Whether the row was read by a snapshot.
    is_snapshot: bool,
    /// Whether the row was flattened, so that its previous state is unknown.
    is_flat: bool,
    /// Whether the change is an update.
    is_update: bool,
}

impl<'a> Change<'_, 'a> {
    /// Time of the change. The connector writes it in its own notation, which need not be that of the columns.
    fn made(&self) -> Result<Value<'a>, Rejection> {
        if self.made == Value::Absent {
            return Ok(Value::Absent);
        }
        time(self.made.clone()).map(|at| Value::Millis(at.millis()))
    }
}

/// Parts of a change that another envelope contains (CloudEvents).
#[derive(Debug, Clone, Default)]
pub(in crate::decode) struct Beside<'a> {
    pub op: Value<'a>,
    pub made: Value<'a>,
    /// The attributes of that envelope as an object.
    pub object: Option<&'a [u8]>,
}

impl Debezium {
    pub fn new(options: &Options, dimensions: &[String]) -> Result<Debezium, OptionError> {
        let column = |name: &str| Some(name.into());
        let has_types = options.fields.r#type.is_some() || options.constants.r#type.is_some();
        let own_id = || if has_types { column("id") } else { None };
        let usual = FieldTexts {
            customer_id: column("customer_id"),
            order_id: column("id"),
            refund_id: own_id(),
            session_id: own_id(),
            amount: column("amount"),
            currency: column("currency"),
            ..FieldTexts::default()
        };
        let mut row = Row::new(options, dimensions, &usual)?;
        let cancelled = Cancelled::new(options, &mut row)?;
        let mut added = [0; 4];
        for (slot, name) in added.iter_mut().zip(ADDED) {
            *slot = row.add("fields", name)?;
        }
        let is_beside =
            |place: &str| BESIDE.iter().any(|begin| place == *begin || (*begin != "op" && place.starts_with(begin)));
        let beside = row.places().filter(|(_, place)| is_beside(place)).map(|(slot, _)| slot).collect();
        let types = RowTypes::new(options)?;
        Ok(Debezium { envelope: Paths::of(&PLACES), row, added, beside, types, cancelled, deletes: options.deletes })
    }

    /// Names of the operations and types.
    pub fn known(&self) -> Vec<&str> {
        let types = if let RowTypes::Column(types) = &self.types { types.known() } else { Vec::new() };
        ["c", "r", "u", "d"].into_iter().chain(types).collect()
    }

    pub fn decode<'a>(&self, message: &Message<'a>, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        self.decode_beside(message, bytes, Beside::default())
    }

    /// Decodes a change; `beside` supplies what the change itself lacks.
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
        // MongoDB's documents are JSON in a string, and so are payloads of an outbox table.
        let texts = [envelope.raw(AFTER), envelope.raw(BEFORE), outer.raw(PAYLOAD).filter(|_| is_bare)];
        for piece in texts.into_iter().flatten() {
            if let Some(bytes) = json::in_a_string(piece).and_then(|inner| json::spliced(bytes, piece, &inner)) {
                return self.decode_owned(message, &bytes, &beside);
            }
        }
        let op = envelope.value(OP).or(beside.op.clone());
        let is_flat = op == Value::Absent && envelope.raw(BEFORE).is_none() && envelope.raw(AFTER).is_none();
        if let Some(bytes) = self.opened(message, bytes, object, &envelope, is_flat) {
            return self.decode_owned(message, &bytes, &beside);
        }
        let way: &[&str] = if is_flat { &[] } else { &["after"] };
        let scales = outer.raw(SCHEMA).map_or_else(Scales::default, |schema| self.row.scales_in(schema, way));
        let change = Change {
            around: Around { message, scales, outside: Outside::default() },
            envelope,
            beside: self.beside_row(object, &beside)?,
            made: envelope.first_of([SOURCE_TIME, SENT]).or(beside.made.clone()),
            is_snapshot: op.as_text() == Some("r")
                || envelope.raw(SNAPSHOT).is_some_and(|told| !matches!(told, "false" | "\"false\"")),
            is_flat,
            is_update: op.as_text() == Some("u"),
        };
        if is_flat { self.flat(change, object) } else { self.changed(&change, op) }
    }

    /// The message with the JSON inside strings that paths lead into, or with headers that they refer to; `None` if
    /// neither occurs.
    fn opened(
        &self,
        message: &Message<'_>,
        bytes: &[u8],
        object: &[u8],
        envelope: &Slots<'_>,
        is_flat: bool,
    ) -> Option<Vec<u8>> {
        let rows = match is_flat {
            true => [Some(object), None],
            false => [AFTER, BEFORE].map(|row| envelope.raw(row).map(str::as_bytes)),
        };
        if self.row.has_nested_places()
            && let Some(opened) = rows.into_iter().flatten().find_map(|row| self.row.opened(bytes, row))
        {
            return Some(opened);
        }
        if !is_flat || message.headers.is_empty() {
            return None;
        }
        let row = self.row.read(object).ok()?;
        let absent = self.row.places().filter(|(slot, _)| !row.is_there(*slot)).map(|(_, place)| place);
        let with = headers::added(object, message, absent)?;
        json::spliced(bytes, std::str::from_utf8(object).ok()?, std::str::from_utf8(&with).ok()?)
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

    /// Values outside the row, from the envelope or the one around it.
    fn beside_row<'a>(&self, envelope: &'a [u8], beside: &Beside<'a>) -> Result<Option<Slots<'a>>, Rejection> {
        if self.beside.is_empty() {
            return Ok(None);
        }
        let own = self.row.read(envelope)?;
        Ok(Some(match beside.object {
            Some(outer) => own.or(&self.row.read(outer)?, &self.beside),
            None => own,
        }))
    }

    /// Reads a row, together with the values outside it.
    fn read_row<'a>(&self, change: &Change<'_, 'a>, row: &'a [u8]) -> Result<Slots<'a>, Rejection> {
        let row = self.row.read(row)?;
        Ok(match &change.beside {
            Some(beside) => row.or(beside, &self.beside),
            None => row,
        })
    }

    fn changed<'a>(&self, change: &Change<'_, 'a>, op: Value<'a>) -> Result<Decoded<'a>, Rejection> {
        match op.as_text() {
            Some("c" | "d") if headers::is_key_change(change.around.message) => Ok(Decoded::Skipped(Skip::Change)),
            Some("c" | "r") => self.inserted(change, self.row_at(change, AFTER, "after")?),
            Some("u") => self.updated(change),
            Some("d") if self.deletes == Deletes::Cancel => self.deleted(change, self.before(change)?),
            Some("d") => Ok(Decoded::Skipped(Skip::Change)),
            _ => Ok(Decoded::Unknown(Unknown::of("op", op.into_text()))),
        }
    }

    /// Decodes a row without envelope (`ExtractNewRecordState`). Whether an earlier message contained the same is
    /// unknown, so every message is treated as a possible repetition.
    fn flat<'a>(&self, change: Change<'_, 'a>, object: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        let row = self.row.read(object)?;
        if !self.row.has(&row, "order_id") && !self.row.has(&row, "customer_id") && !self.row.has(&row, "amount") {
            return Ok(Decoded::Unknown(Unknown::of("op", None)));
        }
        if headers::is_key_change(change.around.message) {
            return Ok(Decoded::Skipped(Skip::Change));
        }
        let [op, deleted, source_time, sent] = self.added.map(|slot| row.value(slot));
        let is_deleted = op.as_text() == Some("d") || deleted.as_text() == Some("true") || row.is_true(self.added[1]);
        let (is_snapshot, is_update) = (op.as_text() == Some("r"), op.as_text() == Some("u"));
        let change = Change { made: source_time.or(sent), is_snapshot, is_update, ..change };
        if is_deleted {
            let cancels = self.deletes == Deletes::Cancel;
            let row = self.is_whole(&row).then_some(row);
            return if cancels { self.deleted(&change, row) } else { Ok(Decoded::Skipped(Skip::Change)) };
        }
        self.inserted(&change, row)
    }

    fn row_at<'a>(&self, change: &Change<'_, 'a>, place: usize, name: &str) -> Result<Slots<'a>, Rejection> {
        let Some(row) = change.envelope.raw(place) else { return Err(missing(name)) };
        self.read_row(change, row.as_bytes())
    }

    /// The row before the change, if the database sends it.
    fn before<'a>(&self, change: &Change<'_, 'a>) -> Result<Option<Slots<'a>>, Rejection> {
        let Some(row) = change.envelope.raw(BEFORE) else { return Ok(None) };
        let row = self.read_row(change, row.as_bytes())?;
        Ok(self.is_whole(&row).then_some(row))
    }

    /// Whether a row contains more than its key.
    fn is_whole(&self, row: &Slots<'_>) -> bool {
        self.row.has(row, "customer_id") || self.row.has(row, "amount")
    }

    /// The event type of a row, or the unknown name in its type column.
    fn type_of<'a>(
        &self,
        change: &Change<'_, 'a>,
        row: &Slots<'a>,
    ) -> Result<Result<EventType, Unknown<'a>>, Rejection> {
        let types = match &self.types {
            RowTypes::Same(event_type) => return Ok(Ok(*event_type)),
            RowTypes::Column(types) => types,
        };
        let called = without_padding(self.row.field(row, change.around, "type")?);
        if called.is_blank() {
            return Ok(Ok(EventType::Order));
        }
        Ok(called.as_text().and_then(|name| types.get(name)).ok_or_else(|| Unknown::of("type", called.into_text())))
    }

    fn inserted<'a>(&self, change: &Change<'_, 'a>, after: Slots<'a>) -> Result<Decoded<'a>, Rejection> {
        let chosen = self.row.common.chosen(&after);
        let event_type = match (self.type_of(change, &after)?, chosen) {
            (Ok(event_type), _) => event_type,
            (Err(_), Err(skip)) => return Ok(Decoded::Skipped(skip)),
            (Err(unknown), Ok(())) => return Ok(Decoded::Unknown(unknown)),
        };
        // An update of an erasure request, for example to mark it as processed, requests nothing new.
        if event_type == EventType::Erase && change.is_update {
            return Ok(Decoded::Skipped(Skip::Change));
        }
        let state = self.state(&after, event_type)?;
        if let Err(skip) = chosen {
            return if change.is_flat && state != State::No {
                self.cancellation(change, &after, state)
            } else {
                Ok(Decoded::Skipped(skip))
            };
        }
        let wanted = if state == State::No { &[event_type][..] } else { &[event_type, EventType::Cancel] };
        self.tell(change, &after, wanted, state, None)
    }

    /// Builds events of these types from a row. `sent` is the time of a message that may repeat an earlier one.
    fn tell<'a>(
        &self,
        change: &Change<'_, 'a>,
        row: &Slots<'a>,
        wanted: &[EventType],
        state: State,
        sent: Option<Time>,
    ) -> Result<Decoded<'a>, Rejection> {
        let mut events = Vec::with_capacity(wanted.len());
        for event_type in wanted {
            match self.event(change, row, *event_type, state)? {
                Decoded::Event(event) => events.push(event),
                other => return Ok(other),
            }
        }
        if change.is_flat {
            return Ok(Decoded::Several { events, told_before: Time::MAX });
        }
        Ok(told(events, sent))
    }

    fn updated<'a>(&self, change: &Change<'_, 'a>) -> Result<Decoded<'a>, Rejection> {
        let after = self.row_at(change, AFTER, "after")?;
        let before = self.before(change)?;
        let event_type = match self.type_of(change, &after)? {
            Ok(event_type) => event_type,
            Err(unknown) => return Ok(Decoded::Unknown(unknown)),
        };
        let counts = self.row.counts(&after);
        let counted = match &before {
            Some(before) => Some(self.row.counts(before) && self.type_of(change, before)? == Ok(event_type)),
            None => None,
        };
        let state = self.state(&after, event_type)?;
        let was_cancelled = before.as_ref().is_some_and(|before| self.was_cancelled(before));
        let mut wanted = Vec::new();
        let may_begin = self.row.chooses() || matches!(self.types, RowTypes::Column(_));
        // Every change of a customer's profile is an event.
        if counts && (event_type == EventType::Customer || (may_begin && counted != Some(true))) {
            wanted.push(event_type);
        }
        if state != State::No && !was_cancelled {
            match counted {
                None if !counts => return self.cancellation(change, &after, state),
                Some(false) if !counts => {}
                _ => wanted.push(EventType::Cancel),
            }
        }
        if wanted.is_empty() {
            return Ok(Decoded::Skipped(if counts { Skip::Change } else { Skip::Filtered }));
        }
        let sent = time(change.made.clone()).ok();
        self.tell(change, &after, &wanted, state, sent.filter(|_| before.is_none()))
    }

    /// The cancellation of an order that `where` does not select now, if it is unknown whether it ever did.
    fn cancellation<'a>(
        &self,
        change: &Change<'_, 'a>,
        row: &Slots<'a>,
        state: State,
    ) -> Result<Decoded<'a>, Rejection> {
        // Only a column has the time of the order; the record timestamp is that of the change.
        let has_column = self.row.slot_of("time").is_some();
        let placed = if has_column { self.row.time(row, change.around)? } else { Value::Absent };
        if placed.is_blank() {
            let what = "before does not hold the row, so whether the cancelled order ever counted is unknown; let the \
                        database tell it (PostgreSQL: ALTER TABLE ... REPLICA IDENTITY FULL), or name the column that tells \
                        when the order was placed in fields.time";
            return Err(Rejection::new(Reason::MissingField, what));
        }
        let placed = time(self.row.instant(placed)?)?;
        Ok(match self.event(change, row, EventType::Cancel, state)? {
            Decoded::Event(event) => Decoded::Cancellation { event, placed },
            other => other,
        })
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
        if self.type_of(change, &before)? != Ok(EventType::Order) || self.was_cancelled(&before) {
            return Ok(Decoded::Skipped(Skip::Change));
        }
        self.event(change, &before, EventType::Cancel, State::Yes)
    }

    /// Whether and when the order in a row was cancelled.
    fn state(&self, row: &Slots<'_>, event_type: EventType) -> Result<State, Rejection> {
        match &self.cancelled {
            Some(cancelled) if event_type == EventType::Order => cancelled.read(&self.row, row),
            _ => Ok(State::No),
        }
    }

    /// Whether it was cancelled before the change. A row that could not be read then was rejected, so errors are
    /// ignored.
    fn was_cancelled(&self, before: &Slots<'_>) -> bool {
        self.state(before, EventType::Order).is_ok_and(|state| state != State::No)
    }

    fn event<'a>(
        &self,
        change: &Change<'_, 'a>,
        row: &Slots<'a>,
        event_type: EventType,
        state: State,
    ) -> Result<Decoded<'a>, Rejection> {
        let mut fields = match self.row.fields(row, change.around, event_type)? {
            Ok(fields) => fields,
            Err(skip) => return Ok(Decoded::Skipped(skip)),
        };
        let is_cancellation = event_type == EventType::Cancel && state != State::No;
        match state {
            State::At(at) if is_cancellation => fields.time = Value::Millis(at.millis()),
            _ if is_cancellation => fields.time = self.cancelled_at(change)?,
            _ if fields.time == Value::Absent => fields.time = self.made(change, event_type)?,
            _ => {}
        }
        self.row.common.decoded(fields, event_type)
    }

    /// Time of a cancellation whose row does not contain it: that of the change.
    fn cancelled_at<'a>(&self, change: &Change<'_, 'a>) -> Result<Value<'a>, Rejection> {
        if change.made != Value::Absent {
            return change.made();
        }
        match change.around.message.time {
            Some(sent) if !change.is_snapshot => Ok(Value::Millis(sent.millis())),
            _ => {
                let what = "time is missing: the row does not tell when the order was cancelled; let the connector add the \
                            time of the change (add.fields = source.ts_ms)";
                Err(Rejection::new(Reason::MissingField, what))
            }
        }
    }

    /// Time of an event whose row does not contain it.
    fn made<'a>(&self, change: &Change<'_, 'a>, event_type: EventType) -> Result<Value<'a>, Rejection> {
        let is_made = !change.is_snapshot && (change.made != Value::Absent || self.row.has_time());
        // An erasure without a time takes the record timestamp.
        if is_made || (event_type == EventType::Erase && !change.is_snapshot) {
            return change.made();
        }
        let when = if event_type == EventType::Order { "when the order was placed" } else { "when it happened" };
        let what = match (self.row.has_time(), change.is_snapshot) {
            (true, _) => {
                "time is missing: the row was found by a snapshot, and the column of fields.time is empty".to_owned()
            }
            (false, true) => format!(
                "time is missing: the row was found by a snapshot, which does not tell {when}; name the column that does in \
                 fields.time"
            ),
            (false, false) => format!(
                "time is missing: a flattened row does not tell {when}; name the column that does in fields.time"
            ),
        };
        Err(Rejection::new(Reason::MissingField, what))
    }
}

impl RowTypes {
    fn new(options: &Options) -> Result<RowTypes, OptionError> {
        let types = Types::new(options)?;
        let constant = types.constant(options)?;
        let has_column = options.fields.r#type.is_some();
        if constant.is_none() && !has_column && !options.types.is_empty() {
            return Err(OptionError::new("types", "are values of a column; write its name as fields.type"));
        }
        match constant {
            Some(other) if other != EventType::Order => {
                let is_set =
                    [("cancelled", options.cancelled.is_some()), ("deletes", options.deletes == Deletes::Cancel)];
                if let Some((option, _)) = is_set.iter().find(|(_, is_set)| *is_set) {
                    let what = format!(
                        "cancels orders, and constants.type makes every row a {}; remove one of the two",
                        other.name()
                    );
                    return Err(OptionError::new(*option, what));
                }
                Ok(RowTypes::Same(other))
            }
            None if has_column => Ok(RowTypes::Column(types)),
            _ => Ok(RowTypes::Same(EventType::Order)),
        }
    }
}
