//! Reads and decodes files line by line, in file order.

use std::io::{self, BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use super::columns;
use super::rows::{Next, Row, Rows};
use super::shape::{First, Shape};
use super::values::Values;
use crate::decode::{
    Above, Again, Decoded, Decoder, Encoding, HeaderError, Line, Lines, Reason, Rejection, Scratch, Skip, Table,
};
use crate::event::Time;
use crate::files::{EventFile, Layout, Windows1252, next_line};

/// A file that could not be read to its end.
#[derive(Debug, thiserror::Error)]
#[error("{}, line {line}: {cause}", path.display())]
pub struct HistoryError {
    path: PathBuf,
    line: u64,
    cause: HistoryFault,
}

/// Why a file could not be read to its end.
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
    #[error(
        "a second header names other columns, or the same in another order, so the rows below it would be misread; split \
         the file at this line and read the parts one by one"
    )]
    OtherHeader,
    #[error(
        "the file has a header that names other columns than mapping.columns, or the same in another order; leave \
         mapping.columns out for files with a header"
    )]
    OwnHeader,
    #[error(
        "lines cannot be added up for several sources on one topic; leave mapping.lines out, or read the file with a \
         configuration that has one source"
    )]
    SharedLines,
    #[error("{0}")]
    Shape(#[from] Shape),
}

/// Receives each decoded line with its number, counted from 1.
pub type Sink<'s> = &'s mut dyn FnMut(u64, Result<Decoded<'_>, Rejection>);

/// A file that is being read.
pub(super) struct Reading<'r> {
    decoder: &'r Decoder,
    latest: Time,
    sink: Sink<'r>,
    lines: Option<Lines<'r>>,
    above: Above,
    scratch: Scratch,
    /// Number of the current line.
    pub line: u64,
    /// Whether any line was decoded without error to something other than an unknown type.
    any: bool,
}

/// Reads a file to its end and passes each decoded line to `sink`; events after `latest` are rejected. Returns the
/// number of lines.
///
/// # Errors
/// If the file cannot be read to its end.
pub fn read(file: EventFile, decoder: &Decoder, latest: Time, sink: Sink<'_>) -> Result<u64, HistoryError> {
    let EventFile { path, layout, mut reader } = file;
    if decoder.file_options().encoding == Encoding::Windows1252 && layout != Layout::Parquet {
        reader = Box::new(BufReader::new(Windows1252::new(reader)));
    }
    let lines = decoder.lines();
    let (above, scratch) = (Above::default(), Scratch::default());
    let mut reading = Reading { decoder, latest, sink, lines, above, scratch, line: 0, any: false };
    let read = match layout {
        _ if decoder.shares_lines() => Err(HistoryFault::SharedLines),
        Layout::Ndjson => reading.ndjson(reader.as_mut()),
        Layout::Json => reading.json(reader.as_mut()),
        Layout::Csv => reading.csv(reader.as_mut()),
        Layout::Empty => Ok(()),
        // The libraries panic on some damaged files instead of returning an error.
        Layout::Parquet => {
            catch_unwind(AssertUnwindSafe(|| columns::read(&path, &mut reading))).unwrap_or(Err(HistoryFault::Damaged))
        }
    };
    let line = reading.line;
    let has_columns = !decoder.file_options().columns.is_empty();
    let cause = |cause| match cause {
        HistoryFault::OtherHeader if has_columns => HistoryFault::OwnHeader,
        cause => cause,
    };
    read.map_err(|fault| HistoryError { path, line, cause: cause(fault) })?;
    reading.finish();
    Ok(line)
}

impl<'r> Reading<'r> {
    pub fn decoder(&self) -> &'r Decoder {
        self.decoder
    }

    fn ndjson(&mut self, reader: &mut dyn BufRead) -> Result<(), HistoryFault> {
        let (mut bytes, mut first) = (Vec::new(), First::default());
        while next_line(reader, &mut bytes)? {
            self.line += 1;
            if !bytes.trim_ascii().is_empty() {
                self.value(&bytes);
                first.note(&bytes, self.any);
            }
        }
        if self.any { Ok(()) } else { Ok(first.check()?) }
    }

    fn json(&mut self, reader: &mut dyn BufRead) -> Result<(), HistoryFault> {
        let (mut values, mut bytes, mut first) = (Values::new(reader), Vec::new(), First::default());
        while let Some(line) = values.next(&mut bytes).inspect_err(|_| self.line = self.line.max(1))? {
            self.line = line;
            self.value(&bytes);
            first.note(&bytes, self.any);
        }
        self.line = values.lines();
        if self.any { Ok(()) } else { Ok(first.check()?) }
    }

    /// Decodes a JSON value.
    fn value(&mut self, bytes: &[u8]) {
        if let Some(lines) = &mut self.lines {
            match self.decoder.decode_line(bytes, &mut self.above, self.latest) {
                Ok(Line::Part(part)) => {
                    self.any = true;
                    lines.add(self.line, *part);
                }
                Ok(Line::Whole(decoded)) => {
                    self.any |= !matches!(decoded, Decoded::Unknown(_));
                    (self.sink)(self.line, Ok(decoded));
                }
                Ok(Line::Lost(order, decoded)) => {
                    lines.lose(self.line, &order, &decoded);
                    self.any |= decoded.is_ok();
                    (self.sink)(self.line, decoded);
                }
                Err(rejection) => (self.sink)(self.line, Err(rejection)),
            }
            return;
        }
        let decoded = self.decoder.decode(None, Some(bytes), self.latest);
        self.any |= is_of_use(&decoded);
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
                        None => self.row(&table, &row)?,
                        Some(rejection) => hand_on(self.sink, line, &table, &row, Err(rejection))?,
                    }
                }
                Next::Broken(line, quotes) => {
                    self.line = line;
                    (self.sink)(line, Err(Rejection::new(Reason::InvalidRow, quotes.to_string())));
                }
                Next::End => break,
            }
        }
        self.line = rows.lines();
        Ok(())
    }

    /// Decodes a row of a table.
    pub fn row(&mut self, table: &Table, row: &Row) -> Result<(), HistoryFault> {
        let cell = |place: usize| row.cell(place);
        if let Some(lines) = &mut self.lines {
            let decoded = table.decode_line(self.decoder, cell, &mut self.scratch, &mut self.above, self.latest);
            return match decoded {
                Ok(Line::Part(part)) if part.is_wrong() && is_header_again(table, row)? => {
                    (self.sink)(self.line, Ok(Decoded::Skipped(Skip::Header)));
                    Ok(())
                }
                Ok(Line::Part(part)) => {
                    lines.add(self.line, *part);
                    Ok(())
                }
                Ok(Line::Whole(decoded)) => hand_on(self.sink, self.line, table, row, Ok(decoded)),
                Ok(Line::Lost(order, decoded)) => {
                    lines.lose(self.line, &order, &decoded);
                    hand_on(self.sink, self.line, table, row, decoded)
                }
                Err(rejection) => hand_on(self.sink, self.line, table, row, Err(rejection)),
            };
        }
        let decoded = table.decode(self.decoder, cell, &mut self.scratch, self.latest);
        hand_on(self.sink, self.line, table, row, decoded)
    }

    /// Passes on the orders whose lines were added up.
    fn finish(self) {
        let Reading { lines, latest, sink, .. } = self;
        for (line, decoded) in lines.into_iter().flat_map(|lines| lines.finish(latest)) {
            sink(line, decoded);
        }
    }
}

/// Whether a value is an event, or was skipped for a reason.
fn is_of_use(decoded: &Result<Decoded<'_>, Rejection>) -> bool {
    match decoded {
        Ok(Decoded::Unknown(_)) | Err(_) => false,
        Ok(Decoded::Batch(parts)) => parts.iter().any(|part| is_of_use(&part.decoded)),
        Ok(_) => true,
    }
}

/// Why a row does not match its header, if so.
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

/// Passes on a decoded row. A row that is not an event may be a repeated header, as joined files have them in the
/// middle.
fn hand_on(
    sink: &mut dyn FnMut(u64, Result<Decoded<'_>, Rejection>),
    line: u64,
    table: &Table,
    row: &Row,
    decoded: Result<Decoded<'_>, Rejection>,
) -> Result<(), HistoryFault> {
    let may_be_header = matches!(decoded, Err(_) | Ok(Decoded::Unknown(_) | Decoded::Skipped(_)));
    match may_be_header && is_header_again(table, row)? {
        true => sink(line, Ok(Decoded::Skipped(Skip::Header))),
        false => sink(line, decoded),
    }
    Ok(())
}

/// Whether a row repeats the header; an error if it is another header.
fn is_header_again(table: &Table, row: &Row) -> Result<bool, HistoryFault> {
    match table.header_again(row.cells.len(), |place| row.cell(place)) {
        Again::No => Ok(false),
        Again::Same => Ok(true),
        Again::Other => Err(HistoryFault::OtherHeader),
    }
}
