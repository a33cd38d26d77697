//! From a file to decoded lines, in the order of the file.

use std::io::{self, BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use super::columns;
use super::rows::{Next, Row, Rows};
use super::values::Values;
use crate::decode::{Decoded, Decoder, Encoding, HeaderError, Line, Lines, Reason, Rejection, Scratch, Table};
use crate::event::Time;
use crate::source::files::{EventFile, Layout, Windows1252, next_line};

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
    Header(#[from] HeaderError),
    #[error("{0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error("{0}")]
    Arrow(#[from] arrow_schema::ArrowError),
    #[error("{0}")]
    Column(#[from] columns::ColumnError),
    #[error("the file is damaged; export it again")]
    Damaged,
    #[error("the file is one JSON object around the list {0:?}; take the list out, such as with jq -c '.{0}[]' FILE")]
    Wrapped(String),
    #[error(
        "the file is one JSON object with a list or object for each column; write one object for each row (pandas: \
         to_json(..., orient=\"records\", lines=True))"
    )]
    ByColumn,
}

/// Takes the lines of a file, with their numbers counted from 1.
pub type Sink<'s> = &'s mut dyn FnMut(u64, Result<Decoded<'_>, Rejection>);

/// A file that is being read.
pub(super) struct Reading<'r> {
    decoder: &'r Decoder,
    latest: Time,
    sink: Sink<'r>,
    lines: Option<Lines<'r>>,
    scratch: Scratch,
    /// The line that is being read.
    pub line: u64,
    /// Whether any line was an event, or nothing wrong.
    any: bool,
}

/// Reads a file to its end and hands on what each line means; events after `latest` are rejected. Returns how many lines
/// there were.
///
/// # Errors
/// When the file cannot be read to its end.
pub fn read(file: EventFile, decoder: &Decoder, latest: Time, sink: Sink<'_>) -> Result<u64, HistoryError> {
    let EventFile { path, layout, mut reader } = file;
    if decoder.file_options().encoding == Encoding::Windows1252 && layout != Layout::Parquet {
        reader = Box::new(BufReader::new(Windows1252::new(reader)));
    }
    let lines = decoder.lines();
    let mut reading = Reading { decoder, latest, sink, lines, scratch: Scratch::default(), line: 0, any: false };
    let read = match layout {
        Layout::Ndjson => reading.ndjson(reader.as_mut()),
        Layout::Json => reading.json(reader.as_mut()),
        Layout::Csv => reading.csv(reader.as_mut()),
        Layout::Empty => Ok(()),
        // The libraries panic on some damage rather than return an error.
        Layout::Parquet => {
            catch_unwind(AssertUnwindSafe(|| columns::read(&path, &mut reading))).unwrap_or(Err(HistoryFault::Damaged))
        }
    };
    let line = reading.line;
    read.map_err(|cause| HistoryError { path, line, cause })?;
    reading.finish();
    Ok(line)
}

impl<'r> Reading<'r> {
    pub fn decoder(&self) -> &'r Decoder {
        self.decoder
    }

    fn ndjson(&mut self, reader: &mut dyn BufRead) -> Result<(), HistoryFault> {
        let (mut bytes, mut only) = (Vec::new(), Vec::new());
        while next_line(reader, &mut bytes)? {
            self.line += 1;
            if !bytes.trim_ascii().is_empty() {
                self.value(&bytes);
                if self.line == 1 && !self.any {
                    only.clone_from(&bytes);
                }
            }
        }
        match self.line {
            1 if !self.any => wrapped(&only).map_or(Ok(()), Err),
            _ => Ok(()),
        }
    }

    fn json(&mut self, reader: &mut dyn BufRead) -> Result<(), HistoryFault> {
        let (mut values, mut bytes, mut only) = (Values::new(reader), Vec::new(), Vec::new());
        let mut count = 0_u64;
        while let Some(line) = values.next(&mut bytes).inspect_err(|_| self.line = self.line.max(1))? {
            self.line = line;
            self.value(&bytes);
            count += 1;
            if count == 1 && !self.any {
                only.clone_from(&bytes);
            }
        }
        self.line = values.lines();
        match count {
            1 if !self.any => wrapped(&only).map_or(Ok(()), Err),
            _ => Ok(()),
        }
    }

    /// Takes a JSON value.
    fn value(&mut self, bytes: &[u8]) {
        if let Some(lines) = &mut self.lines {
            match self.decoder.decode_line(bytes, self.latest) {
                Ok(Line::Part(part)) => {
                    self.any = true;
                    lines.add(self.line, *part);
                }
                Ok(Line::Whole(decoded)) => self.take(Ok(decoded)),
                Err(rejection) => self.take(Err(rejection)),
            }
            return;
        }
        let decoded = self.decoder.decode(None, Some(bytes), self.latest);
        self.any |= !matches!(decoded, Ok(Decoded::Unknown(_)) | Err(_));
        (self.sink)(self.line, decoded);
    }

    fn csv(&mut self, reader: &mut dyn BufRead) -> Result<(), HistoryFault> {
        self.line = 1;
        let options = self.decoder.file_options();
        let mut rows = Rows::new(reader, options.delimiter)?;
        let mut row = Row::default();
        let table = if options.columns.is_empty() {
            match rows.next(&mut row)? {
                Next::Row(line) => self.line = line,
                Next::Broken(line, quotes) => {
                    self.line = line;
                    return Err(io::Error::new(io::ErrorKind::InvalidData, quotes.to_string()).into());
                }
                Next::End => return Ok(()),
            }
            let names: Vec<_> = (0..row.cells.len()).map(|place| String::from_utf8_lossy(row.cell(place))).collect();
            Table::new(self.decoder, names.iter().map(AsRef::<str>::as_ref))?
        } else {
            Table::new(self.decoder, options.columns.iter().map(String::as_str))?
        };
        loop {
            match rows.next(&mut row)? {
                Next::Row(line) => {
                    self.line = line;
                    match misfit(&row, &table) {
                        None => self.row(&table, &row),
                        Some(_) if is_header(&row, &table) => {}
                        Some(rejection) => self.take(Err(rejection)),
                    }
                }
                Next::Broken(line, quotes) => {
                    self.line = line;
                    self.take(Err(Rejection::new(Reason::InvalidRow, quotes.to_string())));
                }
                Next::End => break,
            }
        }
        self.line = rows.lines();
        Ok(())
    }

    /// Takes a row of a table.
    pub fn row(&mut self, table: &Table, row: &Row) {
        let cell = |place: usize| row.cell(place);
        if let Some(lines) = &mut self.lines {
            match table.decode_line(self.decoder, cell, &mut self.scratch, self.latest) {
                Ok(Line::Part(part)) => lines.add(self.line, *part),
                Ok(Line::Whole(decoded)) => (self.sink)(self.line, Ok(decoded)),
                Err(_) if is_header(row, table) => {}
                Err(rejection) => (self.sink)(self.line, Err(rejection)),
            }
            return;
        }
        match table.decode(self.decoder, cell, &mut self.scratch, self.latest) {
            // Files that were joined have a header in the middle.
            Err(_) | Ok(Decoded::Unknown(_) | Decoded::Skipped(_)) if is_header(row, table) => {}
            decoded => (self.sink)(self.line, decoded),
        }
    }

    fn take(&mut self, decoded: Result<Decoded<'_>, Rejection>) {
        self.any |= !matches!(decoded, Ok(Decoded::Unknown(_)) | Err(_));
        (self.sink)(self.line, decoded);
    }

    /// Hands on the orders whose lines were added up.
    fn finish(self) {
        let Reading { lines, latest, sink, .. } = self;
        for (line, decoded) in lines.into_iter().flat_map(|lines| lines.finish(latest)) {
            sink(line, decoded);
        }
    }
}

/// Why a row does not fit its header.
fn misfit(row: &Row, table: &Table) -> Option<Rejection> {
    let (cells, columns) = (row.cells.len(), table.names().len());
    let is_surplus = (columns..cells).any(|place| !row.cell(place).is_empty());
    let is_short = (cells..columns).any(|place| !table.names()[place].is_empty());
    if is_surplus || is_short {
        let remedy = "put cells that hold the delimiter, such as \"1,234.50\", in quotes";
        let what = format!("the row has {cells} cells, the header {columns}; {remedy}");
        return Some(Rejection::new(Reason::InvalidRow, what));
    }
    let stray = row.stray_quotes.iter().find(|place| table.uses(**place))?;
    let what = format!(
        "the cell of {} holds a quote though it does not begin with one; put it in quotes and write the quote twice",
        table.names()[*stray]
    );
    Some(Rejection::new(Reason::InvalidRow, what))
}

fn is_header(row: &Row, table: &Table) -> bool {
    let cell = |place: usize| {
        let cell = row.cell(place);
        cell.strip_prefix("\u{feff}".as_bytes()).unwrap_or(cell)
    };
    let names = table.names();
    row.cells.len() == names.len() && names.iter().enumerate().all(|(place, name)| cell(place) == name.as_bytes())
}

/// What is wrong with a file that is one object and not an event.
fn wrapped(bytes: &[u8]) -> Option<HistoryFault> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes).ok()?;
    let is_list_of_objects = |value: &serde_json::Value| {
        value.as_array().is_some_and(|list| list.first().is_some_and(|first| first.is_object()))
    };
    let is_number = |key: &String| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit());
    let is_by_column = |value: &serde_json::Value| match value {
        serde_json::Value::Object(rows) => !rows.is_empty() && rows.keys().all(is_number),
        serde_json::Value::Array(rows) => !rows.is_empty() && !rows.iter().any(|row| row.is_object() || row.is_array()),
        _ => false,
    };
    if object.len() > 1 && object.values().all(is_by_column) {
        return Some(HistoryFault::ByColumn);
    }
    object.iter().find(|(_, value)| is_list_of_objects(value)).map(|(name, _)| HistoryFault::Wrapped(name.clone()))
}
