//! Customers in Parquet: columns that any tool can read, and one column that only the engine needs.
//!
//! | column | type | holds |
//! |---|---|---|
//! | `slot` | u32 | the customer's slot, which never changes; ascending and unique |
//! | `deleted` | bool | whether the customer was erased; then the id is empty and the other columns mean nothing |
//! | `customer_id` | text | |
//! | `orders`, `sessions` | u32 | number of counted orders and sessions |
//! | `first_order`, `last_order`, `order_before_last`, `third_last_order` | milliseconds, UTC | empty when there was none |
//! | `first_seen`, `last_session` | milliseconds, UTC | |
//! | `session_before`, `sessions_forgotten` | i32 minutes, bool | the last session in an earlier minute; whether older ones were discarded |
//! | `currency` | text | code of the first currency that the customer paid in; empty before any payment |
//! | `net_revenue` | i64 minor units | orders minus refunds and cancellations, in that currency |
//! | `referred_by_order`, `referred_by_profile` | bool | whether the first order or a profile update names a referrer |
//! | `complained`, `costed` | bool | whether the customer has a complaint, and recorded costs |
//! | `dimension_<name>` | text | the customer's value of the dimension |
//! | `engine` | bytes | [`crate::engine::state::rows::SideState`], for the few customers that need it |

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use arrow_array::StringArray;
use arrow_array::builder::{BinaryBuilder, BooleanBuilder, Int32Builder, Int64Builder, StringBuilder};
use arrow_array::builder::{TimestampMillisecondBuilder, UInt8Builder, UInt32Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMillisecondType, UInt8Type, UInt32Type};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, BooleanArray, DictionaryArray, PrimitiveArray, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::ChunkReader;
use parquet::schema::types::ColumnPath;

use crate::engine::record::{Known, Mark, MarkSet, Record};
use crate::engine::state::Scalars;
use crate::engine::state::restore::{RestoreError, Restorer};
use crate::engine::state::rows::{Row, Rows};
use crate::event::{MAX_DIMENSIONS, Time};

/// Rows per record batch.
const BATCH_ROWS: usize = 1 << 16;
/// Rows per row group, the unit of parallel decoding.
const GROUP_ROWS: usize = 1 << 18;
/// Approximate size of a row.
const BYTES_OF_A_ROW: usize = 56;
/// More threads do not restore faster: a single thread fills the table.
const MOST_THREADS: usize = 4;

const DIMENSION: &str = "dimension_";
const CURRENCY: &str = "currency";
const UTC: &str = "UTC";

/// Why a file of customers could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// Not a Parquet file, or damaged.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    /// The columns have other types.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    /// A column is missing or of another type.
    #[error("the column {0} is missing or of another type")]
    Column(&'static str),
    /// The Parquet library panics on some damage instead of returning an error.
    #[error("the file is damaged: the Parquet library panicked")]
    Panicked,
    /// A row does not fit the state.
    #[error(transparent)]
    Customer(#[from] RestoreError),
}

/// One builder per column.
struct Columns {
    slot: UInt32Builder,
    deleted: BooleanBuilder,
    customer_id: StringBuilder,
    orders: UInt32Builder,
    sessions: UInt32Builder,
    first_order: TimestampMillisecondBuilder,
    newest: [TimestampMillisecondBuilder; Record::NEWEST],
    first_seen: TimestampMillisecondBuilder,
    last_session: TimestampMillisecondBuilder,
    session_before: Int32Builder,
    sessions_forgotten: BooleanBuilder,
    currency: UInt8Builder,
    net_revenue: Int64Builder,
    marks: [BooleanBuilder; MARKS.len()],
    profile: Vec<UInt8Builder>,
    engine: BinaryBuilder,
}

/// Columns of the newest orders.
const NEWEST: [&str; Record::NEWEST] = ["last_order", "order_before_last", "third_last_order"];

/// Columns of the marks.
const MARKS: [(&str, Mark); 4] = [
    ("referred_by_order", Mark::Referred),
    ("referred_by_profile", Mark::Mentioned),
    ("complained", Mark::Complained),
    ("costed", Mark::Costed),
];

impl Columns {
    fn new(dimensions: usize) -> Columns {
        let rows = BATCH_ROWS;
        let time = || TimestampMillisecondBuilder::with_capacity(rows).with_timezone(UTC);
        Columns {
            slot: UInt32Builder::with_capacity(rows),
            deleted: BooleanBuilder::with_capacity(rows),
            customer_id: StringBuilder::with_capacity(rows, 16 * rows),
            orders: UInt32Builder::with_capacity(rows),
            sessions: UInt32Builder::with_capacity(rows),
            first_order: time(),
            newest: [time(), time(), time()],
            first_seen: time(),
            last_session: time(),
            session_before: Int32Builder::with_capacity(rows),
            sessions_forgotten: BooleanBuilder::with_capacity(rows),
            currency: UInt8Builder::with_capacity(rows),
            net_revenue: Int64Builder::with_capacity(rows),
            marks: MARKS.map(|_| BooleanBuilder::with_capacity(rows)),
            profile: (0..dimensions).map(|_| UInt8Builder::with_capacity(rows)).collect(),
            engine: BinaryBuilder::new(),
        }
    }

    fn push(&mut self, row: &Row<'_>) {
        let Row { slot, id, known, side_state } = row;
        let Known {
            orders,
            sessions,
            first,
            newest,
            last_session,
            session_before,
            sessions_forgotten,
            seen,
            profile,
            marks,
            net_revenue,
        } = known;
        let millis = |time: &Option<Time>| time.map(Time::millis);
        self.slot.append_value(*slot);
        self.deleted.append_value(id.is_none());
        self.customer_id.append_option(id.as_deref());
        self.orders.append_value(*orders);
        self.sessions.append_value(*sessions);
        self.first_order.append_option(millis(first));
        self.newest.iter_mut().zip(newest).for_each(|(column, time)| column.append_option(millis(time)));
        self.first_seen.append_option(millis(seen));
        self.last_session.append_option(millis(last_session));
        self.session_before.append_option(*session_before);
        self.sessions_forgotten.append_value(*sessions_forgotten);
        self.currency.append_option(net_revenue.map(|(number, _)| number));
        self.net_revenue.append_option(net_revenue.map(|(_, minor)| minor));
        for (column, (_, mark)) in self.marks.iter_mut().zip(MARKS) {
            column.append_value(marks.has(mark));
        }
        self.profile.iter_mut().zip(profile).for_each(|(column, place)| column.append_value(*place));
        self.engine.append_option((!side_state.is_empty()).then_some(*side_state));
    }

    /// Takes the rows so far as a record batch.
    fn finish(&mut self, schema: &Arc<Schema>, scalars: &Scalars) -> Result<RecordBatch, ArrowError> {
        let Columns {
            slot,
            deleted,
            customer_id,
            orders,
            sessions,
            first_order,
            newest: [last, before_last, third_last],
            first_seen,
            last_session,
            session_before,
            sessions_forgotten,
            currency,
            net_revenue,
            marks,
            profile,
            engine,
        } = self;
        let texts = |places: &mut UInt8Builder, texts: StringArray| -> Result<ArrayRef, ArrowError> {
            Ok(Arc::new(DictionaryArray::<UInt8Type>::try_new(places.finish(), Arc::new(texts))?))
        };
        let codes = StringArray::from_iter_values(scalars.currencies.iter().map(|currency| &currency.code));
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(slot.finish()),
            Arc::new(deleted.finish()),
            Arc::new(customer_id.finish()),
            Arc::new(orders.finish()),
            Arc::new(sessions.finish()),
            Arc::new(first_order.finish()),
            Arc::new(last.finish()),
            Arc::new(before_last.finish()),
            Arc::new(third_last.finish()),
            Arc::new(first_seen.finish()),
            Arc::new(last_session.finish()),
            Arc::new(session_before.finish()),
            Arc::new(sessions_forgotten.finish()),
            texts(currency, codes)?,
            Arc::new(net_revenue.finish()),
        ];
        columns.extend(marks.iter_mut().map(|mark| Arc::new(mark.finish()) as ArrayRef));
        for (places, dimension) in profile.iter_mut().zip(&scalars.dimensions) {
            columns.push(texts(places, StringArray::from_iter_values(&dimension.values))?);
        }
        columns.push(Arc::new(engine.finish()));
        RecordBatch::try_new(Arc::clone(schema), columns)
    }
}

fn schema(scalars: &Scalars) -> Arc<Schema> {
    let time = || DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into()));
    let text = || DataType::Dictionary(Box::new(DataType::UInt8), Box::new(DataType::Utf8));
    let mut fields = vec![
        Field::new("slot", DataType::UInt32, false),
        Field::new("deleted", DataType::Boolean, false),
        Field::new("customer_id", DataType::Utf8, true),
        Field::new("orders", DataType::UInt32, false),
        Field::new("sessions", DataType::UInt32, false),
        Field::new("first_order", time(), true),
    ];
    fields.extend(NEWEST.map(|name| Field::new(name, time(), true)));
    fields.extend([
        Field::new("first_seen", time(), true),
        Field::new("last_session", time(), true),
        Field::new("session_before", DataType::Int32, true),
        Field::new("sessions_forgotten", DataType::Boolean, false),
        Field::new(CURRENCY, text(), true),
        Field::new("net_revenue", DataType::Int64, true),
    ]);
    fields.extend(MARKS.map(|(name, _)| Field::new(name, DataType::Boolean, false)));
    fields.extend(scalars.dimensions.iter().map(|d| Field::new(format!("{DIMENSION}{}", d.name), text(), false)));
    fields.push(Field::new("engine", DataType::Binary, true));
    Arc::new(Schema::new(fields))
}

/// Encodes customers; `scalars` must come from the same checkpoint.
///
/// # Errors
/// See [`RowsError`].
pub fn encode(rows: &Rows, scalars: &Scalars) -> Result<Vec<u8>, RowsError> {
    let schema = schema(scalars);
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::LZ4_RAW)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_created_by(format!("retentiond {}", env!("CARGO_PKG_VERSION")));
    let dimensions = scalars.dimensions.iter().map(|dimension| format!("{DIMENSION}{}", dimension.name));
    for column in dimensions.chain([CURRENCY.to_owned()]) {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), true);
    }
    let file = Vec::with_capacity(rows.len() * BYTES_OF_A_ROW);
    let mut writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties.build()))?;
    let mut columns = Columns::new(scalars.dimensions.len());
    let mut pending = 0;
    for row in rows.iter() {
        columns.push(&row);
        pending += 1;
        if pending == BATCH_ROWS {
            writer.write(&columns.finish(&schema, scalars)?)?;
            pending = 0;
        }
    }
    if pending > 0 {
        writer.write(&columns.finish(&schema, scalars)?)?;
    }
    Ok(writer.into_inner()?)
}

/// Restores the customers of a file. Newer files must be restored first.
///
/// # Errors
/// See [`RowsError`].
pub fn restore<R>(file: &R, sequence: u64, threads: usize, restorer: &mut Restorer) -> Result<(), RowsError>
where
    R: ChunkReader + Clone + 'static,
{
    let metadata = unwound(|| Ok(ArrowReaderMetadata::load(file, ArrowReaderOptions::new())?))?;
    let groups = metadata.metadata().num_row_groups();
    let threads = threads.clamp(1, MOST_THREADS).min(groups);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (sender, batches) = sync_channel(threads + 1);
        for _ in 0..threads {
            let (sender, metadata, next) = (sender.clone(), metadata.clone(), &next);
            let work = move || decode_groups(file, &metadata, groups, next, &sender);
            std::thread::Builder::new()
                .name("restore".into())
                .spawn_scoped(scope, work)
                .map_err(|error| ParquetError::External(Box::new(error)))?;
        }
        drop(sender);
        batches.into_iter().try_for_each(|batch| place(&batch?, sequence, restorer))
    })
}

type Decoded = Result<RecordBatch, RowsError>;

/// Turns a panic into an error: unreadable state must stop its partition, not the daemon.
fn unwound<T>(work: impl FnOnce() -> Result<T, RowsError>) -> Result<T, RowsError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(RowsError::Panicked))
}

/// Decodes row groups that no other thread has claimed, until the receiver is gone.
fn decode_groups<R>(
    file: &R,
    metadata: &ArrowReaderMetadata,
    groups: usize,
    next: &AtomicUsize,
    sender: &SyncSender<Decoded>,
) where
    R: ChunkReader + Clone + 'static,
{
    let decode = |group: usize| -> Result<bool, RowsError> {
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), metadata.clone());
        for batch in reader.with_row_groups(vec![group]).with_batch_size(BATCH_ROWS).build()? {
            if sender.send(Ok(batch?)).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    };
    loop {
        let group = next.fetch_add(1, Ordering::Relaxed);
        if group >= groups {
            return;
        }
        match unwound(|| decode(group)) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                // The receiver is gone if an earlier batch could not be placed.
                _ = sender.send(Err(error));
                return;
            }
        }
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a ArrayRef, RowsError> {
    batch.column_by_name(name).ok_or(RowsError::Column(name))
}

fn numbers<'a, T: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    name: &'static str,
) -> Result<&'a PrimitiveArray<T>, RowsError> {
    column(batch, name)?.as_primitive_opt().ok_or(RowsError::Column(name))
}

fn flags<'a>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a BooleanArray, RowsError> {
    column(batch, name)?.as_boolean_opt().ok_or(RowsError::Column(name))
}

/// The columns of net revenue and its currency.
struct Money<'a> {
    currency: &'a PrimitiveArray<UInt8Type>,
    /// By dictionary key: the code, and the engine's number for it.
    codes: Vec<(&'a str, Option<u8>)>,
    minor: &'a PrimitiveArray<Int64Type>,
}

impl Money<'_> {
    fn of<'a>(batch: &'a RecordBatch, restorer: &Restorer) -> Result<Money<'a>, RowsError> {
        let (currency, codes) = read_texts(column(batch, CURRENCY)?).ok_or(RowsError::Column(CURRENCY))?;
        let codes = codes.into_iter().map(|code| (code, restorer.currency(code))).collect();
        Ok(Money { currency, codes, minor: numbers(batch, "net_revenue")? })
    }

    fn at(&self, row: usize) -> Result<Option<(u8, i64)>, RestoreError> {
        if !self.currency.is_valid(row) {
            return Ok(None);
        }
        let code = self.codes.get(usize::from(self.currency.value(row)));
        let &(code, number) = code.ok_or_else(|| RestoreError::Currency(String::new()))?;
        let number = number.ok_or_else(|| RestoreError::Currency(code.to_owned()))?;
        Ok(Some((number, self.minor.value(row))))
    }
}

fn place(batch: &RecordBatch, sequence: u64, restorer: &mut Restorer) -> Result<(), RowsError> {
    let times = |name| numbers::<TimestampMillisecondType>(batch, name);
    let flags = |name| flags(batch, name);
    let slot = numbers::<UInt32Type>(batch, "slot")?;
    let deleted = flags("deleted")?;
    let id = column(batch, "customer_id")?.as_string_opt::<i32>().ok_or(RowsError::Column("customer_id"))?;
    let (orders, sessions) = (numbers::<UInt32Type>(batch, "orders")?, numbers::<UInt32Type>(batch, "sessions")?);
    let [last, before_last, third_last] = [times(NEWEST[0])?, times(NEWEST[1])?, times(NEWEST[2])?];
    let (first, seen, last_session) = (times("first_order")?, times("first_seen")?, times("last_session")?);
    let session_before = numbers::<Int32Type>(batch, "session_before")?;
    let sessions_forgotten = flags("sessions_forgotten")?;
    let money = Money::of(batch, restorer)?;
    let marks = MARKS.iter().map(|&(name, mark)| Ok((flags(name)?, mark))).collect::<Result<Vec<_>, RowsError>>()?;
    let side_state = column(batch, "engine")?.as_binary_opt::<i32>().ok_or(RowsError::Column("engine"))?;
    let dimensions = dimensions(batch)?;
    let names: Vec<_> = dimensions.iter().map(|(name, _, values)| (*name, values.clone())).collect();
    let places = restorer.places(sequence, &names);
    let get = |column: &PrimitiveArray<TimestampMillisecondType>, row| {
        column.is_valid(row).then(|| Time::clamped(column.value(row)))
    };
    for row in 0..batch.num_rows() {
        let number = slot.value(row);
        if !restorer.wants(number) {
            continue;
        }
        if deleted.value(row) {
            restorer.row(number, None, &Known::default(), &[], &places)?;
            continue;
        }
        let orders = orders.value(row);
        let known = Known {
            orders,
            sessions: sessions.value(row),
            first: get(first, row),
            newest: [get(last, row), get(before_last, row), get(third_last, row)],
            last_session: get(last_session, row),
            session_before: session_before.is_valid(row).then(|| session_before.value(row)),
            sessions_forgotten: sessions_forgotten.value(row),
            seen: get(seen, row),
            profile: places.profile(|column| dimensions[column].1.value(row), orders > 0),
            marks: marks.iter().fold(MarkSet::default(), |set, (column, mark)| set.with(*mark, column.value(row))),
            net_revenue: money.at(row)?,
        };
        let id = id.is_valid(row).then(|| id.value(row)).ok_or(RestoreError::Customer(number))?;
        let side_state: &[u8] = if side_state.is_valid(row) { side_state.value(row) } else { &[] };
        restorer.row(number, Some(id), &known, side_state, &places)?;
    }
    Ok(())
}

type Dimension<'a> = (&'a str, &'a PrimitiveArray<UInt8Type>, Vec<&'a str>);

/// The dimension columns: name, index of each customer's value, and the values.
fn dimensions(batch: &RecordBatch) -> Result<Vec<Dimension<'_>>, RowsError> {
    let schema = batch.schema_ref();
    let named = schema.fields().iter().zip(batch.columns());
    let dimensions = named.filter_map(|(field, column)| Some((field.name().strip_prefix(DIMENSION)?, column)));
    let read = |(name, column)| {
        let (places, values) = read_texts(column).ok_or(RowsError::Column(DIMENSION))?;
        Ok((name, places, values))
    };
    dimensions.take(MAX_DIMENSIONS).map(read).collect()
}

/// A dictionary column: the key of each row, and the texts.
fn read_texts(column: &ArrayRef) -> Option<(&PrimitiveArray<UInt8Type>, Vec<&str>)> {
    let dictionary = column.as_dictionary_opt::<UInt8Type>()?;
    let values = dictionary.values().as_string_opt::<i32>()?;
    Some((dictionary.keys(), values.iter().map(Option::unwrap_or_default).collect()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::engine::state::EngineCheckpoint;
    use crate::engine::tests::durable::{Input, a_lively_engine, give};
    use crate::engine::tests::spec;

    fn restored(checkpoint: &EngineCheckpoint, threads: usize) -> Result<crate::engine::Engine, RowsError> {
        let rows = checkpoint.rows.as_ref().unwrap();
        let file = Bytes::from(encode(&rows.rows, &checkpoint.scalars)?);
        let mut restorer = Restorer::new(&Arc::new(spec("UTC")), &[Some(0), Some(1)], checkpoint.scalars.clone())?;
        restore(&file, checkpoint.sequence, threads, &mut restorer)?;
        checkpoint.arrays.iter().for_each(|array| restorer.array(checkpoint.sequence, array.clone()));
        checkpoint.seen.iter().for_each(|seen| restorer.seen(checkpoint.sequence, seen));
        Ok(restorer.finish()?)
    }

    #[test]
    fn every_customer_survives() {
        let mut engine = a_lively_engine();
        give(&mut engine, &Input::Erase(0, "c1".into(), Time::MIN));
        // No event from before the erasure follows.
        let later = engine.clock().newest().unwrap().plus(10 * crate::event::DAY);
        (0..2).for_each(|topic| _ = give(&mut engine, &Input::Raise(topic, later)));
        let checkpoint = engine.checkpoint().unwrap();
        let rows: Vec<_> = checkpoint.rows.as_ref().unwrap().rows.iter().collect();
        assert!(rows.iter().any(|row| row.id.is_none()) && rows.iter().any(|row| !row.side_state.is_empty()));
        for threads in [1, 3] {
            let mut again = restored(&checkpoint, threads).unwrap();
            // Raise the watermarks, so that the next checkpoint contains the whole, only bucket.
            give(&mut again, &Input::Erase(0, "nobody".into(), Time::MIN));
            give(&mut again, &Input::Raise(0, Time::MAX));
            give(&mut again, &Input::Erase(0, "c2".into(), Time::MAX));
            give(&mut engine, &Input::Erase(0, "c2".into(), Time::MAX));
            let (again, before) =
                (again.checkpoint().unwrap().rows.unwrap(), engine.checkpoint().unwrap().rows.unwrap());
            assert_eq!(again.full, before.full);
            assert!(again.rows.iter().eq(before.rows.iter()));
            give(&mut engine, &Input::Raise(0, Time::MAX));
            engine = restored(&checkpoint, threads).unwrap();
        }
    }

    #[test]
    fn malformed_files_are_refused() {
        let checkpoint = a_lively_engine().checkpoint().unwrap();
        let file = encode(&checkpoint.rows.as_ref().unwrap().rows, &checkpoint.scalars).unwrap();
        for bytes in [&b""[..], b"PAR1", &file[..file.len() - 1], &file[1..]] {
            let mut restorer = Restorer::new(&Arc::new(spec("UTC")), &[], checkpoint.scalars.clone()).unwrap();
            assert!(restore(&Bytes::copy_from_slice(bytes), 1, 1, &mut restorer).is_err());
        }
    }

    #[test]
    fn a_slot_beyond_the_table_is_refused() {
        let mut checkpoint = a_lively_engine().checkpoint().unwrap();
        checkpoint.scalars.slots = 1;
        let error = restored(&checkpoint, 1).unwrap_err();
        assert!(matches!(error, RowsError::Customer(RestoreError::Customer(_))), "{error}");
    }
}
