//! Rows of tables: CSV and Parquet, with native column names or those of a mapping.

mod cells;
mod header;

use std::borrow::Cow;
use std::fmt::Write as _;

use self::cells::Role;
pub use self::header::{Again, HeaderError};
use self::header::{Column, Columns, Filled, NEEDED, is_native_instead, mapped, native};
use super::fields::{Fields, Value, excerpt};
use super::lines::{Above, Line, Lines};
use super::native::Native;
use super::options::{Encoding, OptionError, Options};
use super::paths::Slots;
use super::rules::Rules;
use super::{Decoded, Decoder, Reader, Reason, Rejection, Skip, shared};
use crate::event::{Attributes, EventType, Kind, Time};

/// File properties that cannot be detected from the content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileOptions {
    /// Separator between cells.
    pub delimiter: Option<u8>,
    /// Character encoding.
    pub encoding: Encoding,
    /// Column names of files without a header row.
    pub columns: Vec<String>,
}

impl FileOptions {
    pub(super) fn new(options: &Options) -> Result<FileOptions, OptionError> {
        let delimiter = match options.delimiter.as_deref().map(str::as_bytes) {
            None => None,
            Some(b"tab" | b"\\t") => Some(b'\t'),
            Some(&[byte]) if byte.is_ascii() && byte != b'"' && byte != b'\n' && byte != b'\r' => Some(byte),
            Some(_) => {
                let what = "must be one character of ASCII, no quote; write such as \";\" or \"\\t\"";
                return Err(OptionError::new("delimiter", what));
            }
        };
        Ok(FileOptions { delimiter, encoding: options.encoding, columns: options.columns.clone() })
    }
}

/// The meaning of a table's columns.
#[derive(Debug, Clone)]
pub struct Table {
    names: Vec<String>,
    /// Whether each column is read.
    is_used: Vec<bool>,
    /// Whether figures are computed from each column, so that it must be exact.
    is_exact: Vec<bool>,
    /// Whether each column holds ids or quantities, which are normally whole numbers.
    is_whole: Vec<bool>,
    readings: Readings,
}

/// How rows are decoded: once, or once for each source that shares the topic.
#[derive(Debug, Clone)]
enum Readings {
    One(Columns),
    Each(Vec<Columns>),
}

/// Buffer for the JSON of a row's cells while it is decoded.
#[derive(Debug, Default)]
pub struct Scratch(String);

impl Table {
    /// Reads a header.
    ///
    /// # Errors
    /// If a required column is missing or appears twice.
    pub fn new<'n>(decoder: &Decoder, names: impl IntoIterator<Item = &'n str>) -> Result<Table, HeaderError> {
        let names: Vec<String> = names.into_iter().map(|name| cells::plain(name).to_owned()).collect();
        let readings = match &decoder.reader {
            Reader::Each(readers) => Readings::Each(
                readers.iter().map(|(reader, _)| columns(reader, decoder, &names)).collect::<Result<_, _>>()?,
            ),
            reader => Readings::One(columns(reader, decoder, &names)?),
        };
        let [is_used, is_exact, is_whole] = std::array::from_fn(|_| vec![false; names.len()]);
        let mut table = Table { names, is_used, is_exact, is_whole, readings };
        match (table.readings.clone(), &decoder.reader) {
            (Readings::One(columns), reader) => table.note(&columns, reader),
            (Readings::Each(all), Reader::Each(readers)) => {
                all.iter().zip(readers).for_each(|(columns, (reader, _))| table.note(columns, reader));
            }
            (Readings::Each(_), _) => {}
        }
        Ok(table)
    }

    /// Records what columns are used for.
    fn note(&mut self, columns: &Columns, reader: &Reader) {
        let mut note = |place: usize, is_exact: bool, is_whole: bool| {
            self.is_used[place] = true;
            self.is_exact[place] |= is_exact;
            self.is_whole[place] |= is_whole;
        };
        match (columns, reader.of_rows()) {
            (Columns::Native { columns, conditions, .. }, _) => {
                conditions.iter().for_each(|filled| note(filled.column, false, false));
                let is_plain = |column| matches!(column, Column::Dimension(_) | Column::Score);
                columns.iter().for_each(|&(place, column)| {
                    note(place, !is_plain(column), matches!(column.role(), Role::Id { .. }));
                });
            }
            (Columns::Mapped { slots, dimensions }, Reader::Custom(custom)) => {
                let row = custom.row();
                slots.iter().for_each(|&Filled { column, slot, role }| {
                    let is_id = matches!(role, Role::Id { .. });
                    note(column, row.is_exact(slot), is_id || row.slot_of("quantity") == Some(slot));
                });
                dimensions.iter().for_each(|&(place, _)| note(place, false, false));
            }
            (Columns::Mapped { .. }, _) => {}
        }
    }

    /// The column names, as in the file.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether a column is read.
    #[must_use]
    pub fn uses(&self, column: usize) -> bool {
        self.is_used.get(column).copied().unwrap_or(false)
    }

    /// Whether figures are computed from a column, unlike attributes, scores and conditions.
    #[must_use]
    pub fn is_exact(&self, column: usize) -> bool {
        self.is_exact.get(column).copied().unwrap_or(false)
    }

    /// Whether a column holds ids or quantities, which data frames write as floating point if some are missing.
    #[must_use]
    pub fn is_whole(&self, column: usize) -> bool {
        self.is_whole.get(column).copied().unwrap_or(false)
    }

    /// Whether a row with `count` cells is a repeated header, as in joined files.
    #[must_use]
    pub fn header_again<'a>(&self, count: usize, cell: impl Fn(usize) -> &'a [u8]) -> Again {
        header::again(&self.names, &self.is_used, count, cell)
    }

    /// Decodes a row; `cell` returns a cell by its position. Events after `latest` are rejected.
    ///
    /// # Errors
    /// A [`Rejection`] that names the column and the error.
    pub fn decode<'a>(
        &self,
        decoder: &'a Decoder,
        cell: impl Fn(usize) -> &'a [u8],
        scratch: &'a mut Scratch,
        latest: Time,
    ) -> Result<Decoded<'a>, Rejection> {
        let mut decoded = match (&self.readings, &decoder.reader) {
            (Readings::Each(all), Reader::Each(readers)) => {
                let mut found = Vec::with_capacity(all.len());
                for (columns, (reader, min_amount)) in all.iter().zip(readers) {
                    let mut scratch = Scratch::default();
                    let cell = |place: usize| -> &[u8] { cell(place) };
                    let decoded = self.decode_with(columns, reader, decoder, &cell, &mut scratch);
                    let mut decoded = decoded.map(Decoded::into_owned);
                    if let Some(min_amount) = min_amount {
                        min_amount.sift(&mut decoded, None);
                    }
                    found.push(decoded);
                }
                shared::meaning(found)
            }
            (Readings::One(columns), reader) => self.decode_with(columns, reader, decoder, &cell, scratch),
            // The decoder is not the one that the table was created with.
            (Readings::Each(_), _) => Err(no_columns()),
        };
        decoder.settle(&mut decoded, None, latest);
        decoded
    }

    fn decode_with<'a>(
        &self,
        columns: &Columns,
        reader: &'a Reader,
        decoder: &'a Decoder,
        cell: &impl Fn(usize) -> &'a [u8],
        scratch: &'a mut Scratch,
    ) -> Result<Decoded<'a>, Rejection> {
        match (columns, reader.of_rows()) {
            (Columns::Mapped { slots, dimensions }, Reader::Custom(custom)) => {
                let attributes = self.named(dimensions, cell)?;
                let slots = self.fill(slots, cell, scratch)?;
                custom.meaning(&slots).map(|decoded| with(decoded, attributes))
            }
            (Columns::Native { columns, has_type, conditions }, reader) => {
                let own = if let Reader::Native(own) = reader { Some(own.as_ref()) } else { None };
                let skip = match own.and_then(Native::filter) {
                    Some(filter) => filter.check_slots(&self.fill(conditions, cell, scratch)?).err(),
                    None => None,
                };
                match skip {
                    Some(skip) => Ok(Decoded::Skipped(skip)),
                    None => self.native_row(columns, *has_type, own, &decoder.table_rules, cell),
                }
            }
            (Columns::Mapped { .. }, _) => Err(no_columns()),
        }
    }

    /// Like [`Table::decode`], before lines are added up. Cells that a line leaves empty are taken from the line above,
    /// if it has the same order id.
    ///
    /// # Errors
    /// Like [`Table::decode`].
    pub fn decode_line<'a>(
        &self,
        decoder: &'a Decoder,
        cell: impl Fn(usize) -> &'a [u8],
        scratch: &'a mut Scratch,
        above: &'a mut Above,
        latest: Time,
    ) -> Result<Line<'a>, Rejection> {
        match (&self.readings, decoder.reader.of_rows()) {
            (Readings::One(Columns::Mapped { slots, dimensions }), Reader::Custom(custom)) => {
                let attributes = self.named(dimensions, &cell)?;
                let slots = self.fill(slots, &cell, scratch)?;
                Ok(match custom.line_meaning(&slots, above)? {
                    Line::Whole(decoded) => Line::Whole(with(decoded, attributes)),
                    Line::Part(mut line) => {
                        line.set_attributes(attributes);
                        Line::Part(line)
                    }
                    lost @ Line::Lost(..) => lost,
                })
            }
            _ => self.decode(decoder, cell, scratch, latest).map(Line::Whole),
        }
    }

    /// The text of a cell.
    fn text<'a>(
        &self,
        place: usize,
        role: Role,
        cell: &impl Fn(usize) -> &'a [u8],
    ) -> Result<Option<&'a str>, Rejection> {
        cells::read(cell(place), role, self.names.get(place).map_or("", String::as_str))
    }

    fn native_row<'a>(
        &self,
        columns: &[(usize, Column)],
        has_type: bool,
        own: Option<&'a Native>,
        rules: &Rules,
        cell: &impl Fn(usize) -> &'a [u8],
    ) -> Result<Decoded<'a>, Rejection> {
        let mut fields = Fields::default();
        for &(place, column) in columns {
            let Some(text) = self.text(place, column.role(), cell)? else { continue };
            let value = Value::Text(Cow::Borrowed(text));
            match column {
                Column::Type => fields.event_type = value,
                Column::OrderId => fields.order_id = value,
                Column::RefundId => fields.refund_id = value,
                Column::SessionId => fields.session_id = value,
                Column::CustomerId => fields.customer_id = value,
                Column::Time => fields.time = value,
                Column::Amount => fields.amount = value,
                Column::Currency => fields.currency = value,
                Column::ReferredBy => fields.referred_by = value,
                Column::Kind => fields.kind = value,
                Column::Score if text.parse::<f64>().is_ok() => fields.score = Value::Number(text),
                Column::Score => fields.score = value,
                Column::Dimension(dimension) => fields.attributes.set(dimension, Cow::Borrowed(text)),
            }
        }
        native_event(fields, has_type, own, rules)
    }

    /// Puts cells into the slots of their paths.
    fn fill<'a>(
        &self,
        slots: &[Filled],
        cell: &impl Fn(usize) -> &'a [u8],
        scratch: &'a mut Scratch,
    ) -> Result<Slots<'a>, Rejection> {
        let text = &mut scratch.0;
        text.clear();
        let mut ends = [0; super::paths::MAX_SLOTS];
        for (at, filled) in slots.iter().enumerate() {
            match self.text(filled.column, filled.role, cell)? {
                Some(value) => quote(value, text),
                // The column exists, which matters to conditions.
                None => text.push_str("null"),
            }
            ends[at] = text.len();
        }
        let (text, mut filled, mut start) = (scratch.0.as_str(), Slots::empty(), 0);
        for (&Filled { slot, .. }, end) in slots.iter().zip(ends) {
            filled.set(slot, &text[start..end]);
            start = end;
        }
        Ok(filled)
    }

    /// The attributes in columns named after a dimension.
    fn named<'a>(
        &self,
        dimensions: &[(usize, usize)],
        cell: &impl Fn(usize) -> &'a [u8],
    ) -> Result<Attributes<'a>, Rejection> {
        let mut attributes = Attributes::default();
        for &(column, dimension) in dimensions {
            if let Some(text) = self.text(column, Role::Text, cell)? {
                attributes.set(dimension, Cow::Borrowed(text));
            }
        }
        Ok(attributes)
    }
}

/// The meaning of the columns for a source.
fn columns(reader: &Reader, decoder: &Decoder, names: &[String]) -> Result<Columns, HeaderError> {
    match reader.of_rows() {
        Reader::Custom(custom) if !is_native_instead(custom, decoder, names) => mapped(custom, decoder, names),
        Reader::Native(own) => Columns::of_native(own, decoder.dimensions(), names),
        _ => native(decoder.dimensions(), names, &NEEDED),
    }
}

fn no_columns() -> Rejection {
    Rejection::new(Reason::InvalidRow, "the row has no columns")
}

impl Decoder {
    /// File properties of the source.
    #[must_use]
    pub fn file_options(&self) -> &FileOptions {
        &self.files
    }

    /// Adds up the lines of orders, if the source's files have several per order.
    #[must_use]
    pub fn lines(&self) -> Option<Lines<'_>> {
        match &self.reader {
            Reader::Custom(custom) if custom.adds_lines() => Some(Lines::new(custom, self.min_amount)),
            _ => None,
        }
    }

    /// Whether lines would have to be added up for several sources, which is not supported.
    #[must_use]
    pub fn shares_lines(&self) -> bool {
        let adds_lines = |reader: &Reader| matches!(reader, Reader::Custom(custom) if custom.adds_lines());
        matches!(&self.reader, Reader::Each(readers) if readers.iter().any(|(reader, _)| adds_lines(reader)))
    }

    /// Like [`Decoder::decode`], for a line of a file before lines are added up. Fields that a line leaves empty are
    /// taken from the line above, if it has the same order id.
    ///
    /// # Errors
    /// Like [`Decoder::decode`].
    pub fn decode_line<'a>(&self, bytes: &'a [u8], above: &'a mut Above, latest: Time) -> Result<Line<'a>, Rejection> {
        match &self.reader {
            Reader::Custom(custom) => custom.line(bytes, above),
            _ => self.decode(None, Some(bytes), latest).map(Line::Whole),
        }
    }

    /// Whether instants without an offset have a configured zone instead of UTC.
    #[must_use]
    pub fn has_time_zone(&self) -> bool {
        match self.reader.of_rows() {
            Reader::Custom(custom) => custom.rules().has_time_zone(),
            _ => self.table_rules.has_time_zone(),
        }
    }
}

fn native_event<'a>(
    mut fields: Fields<'a>,
    has_type: bool,
    own: Option<&'a Native>,
    rules: &Rules,
) -> Result<Decoded<'a>, Rejection> {
    if let Some(text) = fields.amount.as_text().filter(|text| text.contains(',')) {
        let what = format!(
            "amount {:?} has a comma; name the separators with mapping.decimal and mapping.thousands (format = \"custom\")",
            excerpt(text)
        );
        return Err(Rejection::new(Reason::InvalidAmount, what));
    }
    if let Some(currency) = own.and_then(|own| own.constants().1).filter(|_| fields.currency == Value::Absent) {
        fields.currency = Value::Text(Cow::Borrowed(currency));
    }
    if fields.customer_id != Value::Absent && rules.is_nobody(&fields.customer_id) {
        return Ok(Decoded::Skipped(Skip::Nobody));
    }
    rules.settle(&mut fields)?;
    if has_type {
        return fields.into_decoded();
    }
    match own.and_then(|own| own.constants().0) {
        Some(name) => {
            fields.event_type = Value::Text(Cow::Borrowed(name));
            fields.into_decoded()
        }
        None => fields.into_event(EventType::Order).map(Decoded::Event),
    }
}

/// Appends a text as a JSON string.
fn quote(value: &str, json: &mut String) {
    json.push('"');
    for character in value.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            control if control < ' ' => _ = write!(json, "\\u{:04x}", control as u32),
            other => json.push(other),
        }
    }
    json.push('"');
}

fn with<'a>(mut decoded: Decoded<'a>, more: Attributes<'a>) -> Decoded<'a> {
    if let Decoded::Event(event) = &mut decoded
        && let Kind::Order { attributes, .. } | Kind::Customer { attributes, .. } = &mut event.kind
    {
        add(attributes, more);
    }
    decoded
}

pub(super) fn add<'a>(attributes: &mut Attributes<'a>, more: Attributes<'a>) {
    for dimension in 0..crate::event::MAX_DIMENSIONS {
        if let Some(value) = more.get(dimension) {
            attributes.set(dimension, Cow::Owned(value.to_owned()));
        }
    }
}
