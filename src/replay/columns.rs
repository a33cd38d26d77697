//! Orders in Parquet: columns named as in a CSV header, of any type that exports use.
//!
//! A cell is converted to the text that CSV would contain, so that one decoder handles both. Text is used unchanged,
//! whole numbers as digits (an amount in major units, a time since the epoch), decimals exactly, timestamps and dates
//! as instants (in the source's `time_zone` if they have no zone, by default UTC). Floating-point amounts and times are
//! rejected, because their exact values are lost. Ids and quantities may be floating point: data frames convert whole
//! numbers so if some are missing.

use std::fmt::Display;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::read::{HistoryFault, Reading};
use super::rows::Row;
use crate::decode::Table;
use crate::event::{DAY, SECOND, Time};

/// Number of rows decoded at once.
const BATCH_ROWS: usize = 8192;

/// A column of an unsupported type.
#[derive(Debug, thiserror::Error)]
#[error("column {name} is of the type {found}; {remedy}")]
pub(super) struct ColumnError {
    name: String,
    found: DataType,
    remedy: &'static str,
}

/// Reads the rows of a file; `reading` counts them as lines.
pub(super) fn read(path: &Path, reading: &mut Reading<'_>) -> Result<(), HistoryFault> {
    // Ignore the writer's Arrow types: dictionaries and views are then read as plain text.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(File::open(path)?, options)?;
    let fields = builder.schema().fields();
    let decoder = reading.decoder();
    let all = Table::new(decoder, fields.iter().map(|field| field.name().as_str()))?;
    let chosen: Vec<usize> = (0..fields.len()).filter(|&place| all.uses(place)).collect();
    for &place in &chosen {
        check(fields[place].name(), fields[place].data_type(), all.is_exact(place) && !all.is_whole(place))?;
    }
    // The batches contain only the chosen columns, so their positions differ from those in the file.
    let table = Table::new(decoder, chosen.iter().map(|&place| fields[place].name().as_str()))?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), chosen);
    let is_civil = decoder.has_time_zone();
    let mut row = Row::default();
    for batch in builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()? {
        let batch = batch?;
        for at in 0..batch.num_rows() {
            reading.line += 1;
            row.clear();
            for column in batch.columns() {
                let start = row.text.len();
                write_cell(column, at, is_civil, &mut row.text);
                row.cells.push(start..row.text.len());
            }
            reading.row(&table, &row)?;
        }
    }
    Ok(())
}

fn check(name: &str, found: &DataType, is_exact: bool) -> Result<(), ColumnError> {
    let error = |remedy| Err(ColumnError { name: name.to_owned(), found: found.clone(), remedy });
    match found {
        DataType::Float16 | DataType::Float32 | DataType::Float64 if is_exact => {
            error("what floating point has rounded cannot be read exactly: write it as DECIMAL, a whole number or text")
        }
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale)
            if *scale >= 0 =>
        {
            Ok(())
        }
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Binary
        | DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Date64
        | DataType::Timestamp(..) => Ok(()),
        _ => error("write it as text, a number or a timestamp"),
    }
}

/// Writes a cell as CSV would contain it; nothing for null. With `is_civil`, instants without a zone are written as
/// date and time of day.
fn write_cell(column: &ArrayRef, row: usize, is_civil: bool, out: &mut Vec<u8>) {
    if column.is_null(row) {
        return;
    }
    macro_rules! plain {
        ($kind:ty) => {
            _ = write!(out, "{}", column.as_primitive::<$kind>().value(row))
        };
    }
    macro_rules! millis {
        ($kind:ty, $each:expr) => {{
            let millis: i64 = $each(i64::from(column.as_primitive::<$kind>().value(row)));
            let has_zone = matches!(column.data_type(), DataType::Timestamp(_, Some(_)));
            match Time::from_millis(millis) {
                Ok(time) if is_civil && !has_zone => _ = write!(out, "{}", time.to_string().trim_end_matches('Z')),
                // Not as a number, whose unit would be guessed from its size.
                Ok(time) => _ = write!(out, "{time}"),
                Err(_) => _ = write!(out, "{millis} ms since the epoch"),
            }
        }};
    }
    match column.data_type() {
        DataType::Utf8 => out.extend_from_slice(column.as_string::<i32>().value(row).as_bytes()),
        DataType::LargeUtf8 => out.extend_from_slice(column.as_string::<i64>().value(row).as_bytes()),
        DataType::Binary => out.extend_from_slice(column.as_binary::<i32>().value(row)),
        DataType::Boolean => _ = write!(out, "{}", column.as_boolean().value(row)),
        DataType::Int8 => plain!(Int8Type),
        DataType::Int16 => plain!(Int16Type),
        DataType::Int32 => plain!(Int32Type),
        DataType::Int64 => plain!(Int64Type),
        DataType::UInt8 => plain!(UInt8Type),
        DataType::UInt16 => plain!(UInt16Type),
        DataType::UInt32 => plain!(UInt32Type),
        DataType::UInt64 => plain!(UInt64Type),
        DataType::Float32 => {
            let value = column.as_primitive::<Float32Type>().value(row);
            write_float(value, value.into(), 24, out);
        }
        DataType::Float64 => {
            let value = column.as_primitive::<Float64Type>().value(row);
            write_float(value, value, 53, out);
        }
        DataType::Decimal32(_, scale) => {
            write_decimal(column.as_primitive::<Decimal32Type>().value(row).into(), *scale, out);
        }
        DataType::Decimal64(_, scale) => {
            write_decimal(column.as_primitive::<Decimal64Type>().value(row).into(), *scale, out);
        }
        DataType::Decimal128(_, scale) => {
            write_decimal(column.as_primitive::<Decimal128Type>().value(row), *scale, out);
        }
        DataType::Date32 => millis!(Date32Type, |days: i64| days.saturating_mul(DAY)),
        DataType::Date64 => millis!(Date64Type, |millis: i64| millis),
        DataType::Timestamp(unit, _) => match unit {
            TimeUnit::Second => millis!(TimestampSecondType, |seconds: i64| seconds.saturating_mul(SECOND)),
            TimeUnit::Millisecond => millis!(TimestampMillisecondType, |millis: i64| millis),
            TimeUnit::Microsecond => millis!(TimestampMicrosecondType, |micros: i64| micros.div_euclid(1_000)),
            TimeUnit::Nanosecond => millis!(TimestampNanosecondType, |nanos: i64| nanos.div_euclid(1_000_000)),
        },
        // `check` rejected other types.
        _ => {}
    }
}

/// Writes a floating-point number. NaN, with which data frames write null, becomes nothing. A number beyond the
/// precision of the type, in bits, gets an exponent, because its last digits may be lost.
fn write_float(value: impl Display, size: f64, precision: i32, out: &mut Vec<u8>) {
    if size.is_nan() {
        return;
    }
    let is_exact = size.abs() <= 2_f64.powi(precision);
    _ = if is_exact { write!(out, "{value}") } else { write!(out, "{size:.1E}") };
}

fn write_decimal(value: i128, scale: i8, out: &mut Vec<u8>) {
    let places = usize::from(scale.unsigned_abs());
    let sign = if value < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = places + 1);
    let (whole, decimals) = digits.split_at(digits.len() - places);
    let point = if places > 0 { "." } else { "" };
    _ = write!(out, "{sign}{whole}{point}{decimals}");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
    use parquet::arrow::ArrowWriter;

    use super::super::History;
    use super::*;
    use crate::decode::{Decoded, Decoder, FieldTexts, Format, Options};
    use crate::files;

    fn write(columns: Vec<(&str, ArrayRef)>) -> tempfile::TempPath {
        let file = tempfile::Builder::new().suffix(".parquet").tempfile().unwrap();
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = ArrowWriter::try_new(file.reopen().unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        file.into_temp_path()
    }

    fn read(path: &Path) -> Result<History, super::super::HistoryError> {
        let mut history = History::new(7 * crate::event::DAY);
        let file = files::open(path, |file| file).unwrap();
        history.read(file, &Decoder::new(Format::Native, vec!["channel".into()]), Time::MAX)?;
        Ok(history)
    }

    fn columns(amount: ArrayRef) -> Vec<(&'static str, ArrayRef)> {
        vec![
            ("customer_id", Arc::new(Int64Array::from(vec![7, 8, 9]))),
            ("time", Arc::new(TimestampMicrosecondArray::from(vec![1_000_001, 2_000_000, 3_000_000]))),
            ("amount", amount),
            ("currency", Arc::new(StringArray::from(vec![Some("EUR"), Some("EUR"), None]))),
            ("channel", Arc::new(StringArray::from(vec!["web", "app", "web"]))),
            ("colour", Arc::new(StringArray::from(vec!["red", "red", "red"]))),
        ]
    }

    #[test]
    fn columns_of_many_types_are_orders() {
        let amount = Decimal128Array::from(vec![7_212, 5, 1]).with_precision_and_scale(12, 2).unwrap();
        let history = read(&write(columns(Arc::new(amount)))).unwrap();
        assert_eq!((history.len(), history.tally.lines), (2, 3));
        assert!(history.tally.examples[0].rejection.to_string().contains("currency is missing"));
        let events: Vec<_> = history.events().map(|event| (event.customer.into_owned(), event.time.millis())).collect();
        assert_eq!(events, [("7".to_owned(), 1_000), ("8".to_owned(), 2_000)]);
    }

    #[test]
    fn a_mapping_names_columns_and_the_zone_of_timestamps() {
        let name = |name: &str| Some(name.into());
        let options = Options {
            fields: FieldTexts { time: name("at"), amount: name("total"), ..FieldTexts::default() },
            constants: FieldTexts { currency: name("EUR"), ..FieldTexts::default() },
            time_zone: Some("Europe/Oslo".to_owned()),
            ..Options::default()
        };
        let decoder = Decoder::with_options(Format::Custom, vec![], &options).unwrap();
        let total = Decimal128Array::from(vec![7_212]).with_precision_and_scale(12, 2).unwrap();
        let seconds = 1_767_323_045;
        let path = write(vec![
            ("customer_id", Arc::new(Int64Array::from(vec![7]))),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![seconds * 1_000_000]))),
            ("total", Arc::new(total)),
        ]);
        let mut found = Vec::new();
        let file = files::open(&path, |file| file).unwrap();
        crate::replay::read(file, &decoder, Time::MAX, &mut |line, decoded| {
            let Ok(Decoded::Event(event)) = decoded else { panic!("{decoded:?}") };
            found.push((line, event.customer.into_owned(), event.time.millis()));
        })
        .unwrap();
        assert_eq!(found, [(1, "7".to_owned(), (seconds - 3_600) * 1_000)]);
    }

    #[test]
    fn floating_point_is_refused_where_figures_are_exact() {
        let error = read(&write(columns(Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0]))))).unwrap_err().to_string();
        assert!(error.contains("column amount is of the type Float64") && error.contains("DECIMAL"), "{error}");
    }

    #[test]
    fn ids_that_a_data_frame_made_floating_point_are_whole_numbers() {
        let amount = Decimal128Array::from(vec![100, 100, 100]).with_precision_and_scale(12, 2).unwrap();
        let mut all = columns(Arc::new(amount));
        all[0].1 = Arc::new(Float64Array::from(vec![Some(13085.0), None, Some(2.674e17)]));
        all[3].1 = Arc::new(StringArray::from(vec!["EUR"; 3]));
        let history = read(&write(all)).unwrap();
        let customers: Vec<_> = history.events().map(|event| event.customer.into_owned()).collect();
        assert_eq!(customers, ["13085"]);
        let reasons: Vec<_> = history.tally.examples.iter().map(|line| line.rejection.to_string()).collect();
        assert!(reasons[0].contains("customer_id is missing"), "{reasons:?}");
        assert!(reasons[1].contains("customer_id holds a number that a spreadsheet has rounded"), "{reasons:?}");
    }

    #[test]
    fn decimals_keep_every_digit() {
        for (value, scale, text) in [(5, 2, "0.05"), (-7_212, 2, "-72.12"), (12, 0, "12"), (0, 3, "0.000")] {
            let mut out = Vec::new();
            write_decimal(value, scale, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
