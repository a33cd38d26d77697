//! From a file to decoded lines, in the order of the file.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use super::columns;
use crate::decode::{CsvColumns, CsvHeaderError, Decoded, Decoder, Rejection};
use crate::event::Time;
use crate::source::files::{EventFile, Layout, next_line};

/// A file that cannot be read to its end.
#[derive(Debug, thiserror::Error)]
#[error("{}, line {line}: {cause}", path.display())]
pub struct HistoryError {
    path: PathBuf,
    line: u64,
    cause: HistoryFault,
}

/// Why a file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum HistoryFault {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Csv(#[from] csv::Error),
    #[error("{0}")]
    Header(#[from] CsvHeaderError),
    #[error("{0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error("{0}")]
    Arrow(#[from] arrow_schema::ArrowError),
    #[error("{0}")]
    Column(#[from] columns::ColumnError),
    #[error("the file is damaged; export it again")]
    Damaged,
}

/// Takes the lines of a file, with their numbers counted from 1.
pub(super) type Sink<'s> = &'s mut dyn FnMut(u64, Result<Decoded<'_>, Rejection>);

/// Reads a file to its end; events after `latest` are rejected. Returns how many lines there were.
pub(super) fn read(file: EventFile, decoder: &Decoder, latest: Time, sink: Sink<'_>) -> Result<u64, HistoryError> {
    let EventFile { path, layout, reader } = file;
    let mut line = 0;
    let read = match layout {
        Layout::Ndjson => read_ndjson(&mut line, reader, decoder, latest, sink),
        Layout::Csv => read_csv(&mut line, reader, decoder, latest, sink),
        // The libraries panic on some damage rather than return an error.
        Layout::Parquet => catch_unwind(AssertUnwindSafe(|| columns::read(&path, &mut line, decoder, latest, sink)))
            .unwrap_or(Err(HistoryFault::Damaged)),
    };
    read.map_err(|cause| HistoryError { path, line, cause })?;
    Ok(line)
}

fn read_ndjson(
    line: &mut u64,
    mut reader: Box<dyn io::BufRead + Send>,
    decoder: &Decoder,
    latest: Time,
    sink: Sink<'_>,
) -> Result<(), HistoryFault> {
    let mut bytes = Vec::new();
    while next_line(reader.as_mut(), &mut bytes)? {
        *line += 1;
        if !bytes.trim_ascii().is_empty() {
            sink(*line, decoder.decode(None, Some(&bytes), latest));
        }
    }
    Ok(())
}

fn read_csv(
    line: &mut u64,
    reader: Box<dyn io::BufRead + Send>,
    decoder: &Decoder,
    latest: Time,
    sink: Sink<'_>,
) -> Result<(), HistoryFault> {
    let mut table = csv::ReaderBuilder::new().flexible(true).from_reader(reader);
    *line = 1;
    let columns = CsvColumns::from_header(table.headers()?, decoder.dimensions())?;
    let mut row = csv::ByteRecord::new();
    while table.read_byte_record(&mut row)? {
        *line = row.position().map_or(*line + 1, csv::Position::line);
        sink(*line, columns.decode(&row, latest));
    }
    Ok(())
}
