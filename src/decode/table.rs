//! Rows of tables: CSV and Parquet, with columns of the native names or of those that a mapping names.

mod header;

use std::borrow::Cow;
use std::fmt::Write as _;

pub use self::header::HeaderError;
use self::header::{Column, Columns, NEEDED, is_native_instead, mapped, native};
use super::fields::{Fields, Value, excerpt};
use super::lines::{Line, Lines};
use super::native::Native;
use super::options::{Encoding, OptionError, Options};
use super::paths::Slots;
use super::rules::Rules;
use super::{Decoded, Decoder, Reader, Reason, Rejection, Skip, refuse_future};
use crate::event::{Attributes, EventType, Kind, Time};

/// How files of a source are laid out, where their content does not say so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileOptions {
    /// What stands between cells.
    pub delimiter: Option<u8>,
    /// How characters are encoded.
    pub encoding: Encoding,
    /// The names of the columns, of files without a header row.
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

/// What the columns of a table mean.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Columns,
    names: Vec<String>,
    /// Which columns are read.
    is_used: Vec<bool>,
    /// Which columns figures are computed from.
    is_exact: Vec<bool>,
}

/// Keeps the JSON of a row's cells while it is decoded.
#[derive(Debug, Default)]
pub struct Scratch(String);

impl Table {
    /// Reads a header.
    ///
    /// # Errors
    /// When a column that is needed is not there, or is there twice.
    pub fn new<'n>(decoder: &Decoder, names: impl IntoIterator<Item = &'n str>) -> Result<Table, HeaderError> {
        let names: Vec<String> = names.into_iter().map(|name| clean(name).to_owned()).collect();
        let columns = match &decoder.reader {
            Reader::Custom(custom) if !is_native_instead(custom, decoder, &names) => mapped(custom, decoder, &names)?,
            Reader::Native(own) => Columns::of_native(own, decoder.dimensions(), &names)?,
            _ => native(decoder.dimensions(), &names, &NEEDED)?,
        };
        let (mut is_used, mut is_exact) = (vec![false; names.len()], vec![false; names.len()]);
        let mut note = |place: usize, exact: bool| {
            is_used[place] = true;
            is_exact[place] |= exact;
        };
        match (&columns, &decoder.reader) {
            (Columns::Native { columns, conditions, .. }, _) => {
                conditions.iter().for_each(|&(place, _)| note(place, false));
                let is_plain = |column| matches!(column, Column::Dimension(_) | Column::Score);
                columns.iter().for_each(|&(place, column)| note(place, !is_plain(column)));
            }
            (Columns::Mapped { slots, dimensions }, Reader::Custom(custom)) => {
                slots.iter().for_each(|&(place, slot)| note(place, custom.row().is_exact(slot)));
                dimensions.iter().for_each(|&(place, _)| note(place, false));
            }
            (Columns::Mapped { .. }, _) => {}
        }
        Ok(Table { columns, names, is_used, is_exact })
    }

    /// The names of the columns, as they are in the file.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether a column is read at all.
    #[must_use]
    pub fn uses(&self, column: usize) -> bool {
        self.is_used.get(column).copied().unwrap_or(false)
    }

    /// Whether figures are computed from a column, as opposed to attributes, scores and conditions.
    #[must_use]
    pub fn is_exact(&self, column: usize) -> bool {
        self.is_exact.get(column).copied().unwrap_or(false)
    }

    /// Decodes one row, given its cells by their places. Events after `latest` are refused.
    ///
    /// # Errors
    /// A [`Rejection`] that names the column and the mistake.
    pub fn decode<'a>(
        &self,
        decoder: &'a Decoder,
        cell: impl Fn(usize) -> &'a [u8],
        scratch: &'a mut Scratch,
        latest: Time,
    ) -> Result<Decoded<'a>, Rejection> {
        let mut decoded = match (&self.columns, &decoder.reader) {
            (Columns::Mapped { slots, dimensions }, Reader::Custom(custom)) => {
                let attributes = named(dimensions, &cell)?;
                custom.meaning(&fill(slots, &cell, scratch)?).map(|decoded| with(decoded, attributes))
            }
            (Columns::Native { columns, has_type, conditions }, reader) => {
                let own = if let Reader::Native(own) = reader { Some(own.as_ref()) } else { None };
                let skip = match own.and_then(Native::filter) {
                    Some(filter) => filter.check_slots(&fill(conditions, &cell, scratch)?).err(),
                    None => None,
                };
                match skip {
                    Some(skip) => Ok(Decoded::Skipped(skip)),
                    None => native_row(columns, *has_type, own, &decoder.table_rules, &cell),
                }
            }
            // A table goes with the decoder that it was made of.
            (Columns::Mapped { .. }, _) => Err(Rejection::new(Reason::InvalidRow, "the row has no columns")),
        };
        refuse_future(&mut decoded, latest);
        decoded
    }

    /// As [`Table::decode`], before lines are added up.
    ///
    /// # Errors
    /// As [`Table::decode`].
    pub fn decode_line<'a>(
        &self,
        decoder: &'a Decoder,
        cell: impl Fn(usize) -> &'a [u8],
        scratch: &'a mut Scratch,
        latest: Time,
    ) -> Result<Line<'a>, Rejection> {
        match (&self.columns, &decoder.reader) {
            (Columns::Mapped { slots, dimensions }, Reader::Custom(custom)) => {
                let attributes = named(dimensions, &cell)?;
                Ok(match custom.line_meaning(&fill(slots, &cell, scratch)?)? {
                    Line::Whole(decoded) => Line::Whole(with(decoded, attributes)),
                    Line::Part(mut line) => {
                        line.set_attributes(attributes);
                        Line::Part(line)
                    }
                })
            }
            _ => self.decode(decoder, cell, scratch, latest).map(Line::Whole),
        }
    }
}

impl Decoder {
    /// How files of the source are laid out.
    #[must_use]
    pub fn file_options(&self) -> &FileOptions {
        &self.files
    }

    /// What adds up the lines of orders, if the source says that files have such.
    #[must_use]
    pub fn lines(&self) -> Option<Lines<'_>> {
        match &self.reader {
            Reader::Custom(custom) if custom.adds_lines() => Some(Lines::new(custom)),
            _ => None,
        }
    }

    /// As [`Decoder::decode`], of a line of a file before lines are added up.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn decode_line<'a>(&self, bytes: &'a [u8], latest: Time) -> Result<Line<'a>, Rejection> {
        match &self.reader {
            Reader::Custom(custom) => custom.line(bytes),
            _ => self.decode(None, Some(bytes), latest).map(Line::Whole),
        }
    }

    /// Whether instants without an offset are of a zone of their own, as opposed to UTC.
    #[must_use]
    pub fn has_time_zone(&self) -> bool {
        match &self.reader {
            Reader::Custom(custom) => custom.rules().has_time_zone(),
            _ => self.table_rules.has_time_zone(),
        }
    }
}

fn clean(name: &str) -> &str {
    name.trim().trim_start_matches('\u{feff}').trim()
}

/// A cell's text; `None` where nothing stands or what databases write for null.
fn text_of(cell: &[u8]) -> Result<Option<&str>, Rejection> {
    match cell {
        b"" | b"\\N" | b"NULL" | b"null" => Ok(None),
        cell => std::str::from_utf8(cell).map(Some).map_err(|_| {
            let remedy = "save the file as UTF-8, or write mapping.encoding = \"windows-1252\" (format = \"custom\")";
            Rejection::new(Reason::NotUtf8, format!("the row is not UTF-8; {remedy}"))
        }),
    }
}

/// Whether a spreadsheet has rounded an id: `2.6741E+12`.
fn is_rounded(text: &str) -> bool {
    let Some((digits, exponent)) = text.split_once("E+") else { return false };
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b',')
        && is_number(exponent)
}

fn refuse_rounded(field: &str, text: &str) -> Result<(), Rejection> {
    if is_rounded(text) {
        let what = format!("{field} is a number that a spreadsheet has rounded; export the column as text");
        return Err(Rejection::new(Reason::InvalidId, what));
    }
    Ok(())
}

fn native_row<'a>(
    columns: &[(usize, Column)],
    has_type: bool,
    own: Option<&'a Native>,
    rules: &Rules,
    cell: &impl Fn(usize) -> &'a [u8],
) -> Result<Decoded<'a>, Rejection> {
    let mut fields = Fields::default();
    for &(place, column) in columns {
        let Some(text) = text_of(cell(place))? else { continue };
        let value = Value::Text(Cow::Borrowed(text));
        match column {
            Column::Type => fields.event_type = value,
            Column::OrderId => {
                refuse_rounded("order_id", text)?;
                fields.order_id = value;
            }
            Column::RefundId => fields.refund_id = value,
            Column::SessionId => fields.session_id = value,
            Column::CustomerId => {
                refuse_rounded("customer_id", text)?;
                fields.customer_id = value;
            }
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

/// Puts cells where the values of a message would be.
fn fill<'a>(
    slots: &[(usize, usize)],
    cell: &impl Fn(usize) -> &'a [u8],
    scratch: &'a mut Scratch,
) -> Result<Slots<'a>, Rejection> {
    let text = &mut scratch.0;
    text.clear();
    let mut ends = [0; super::paths::MAX_SLOTS];
    for (at, &(column, _)) in slots.iter().enumerate() {
        match text_of(cell(column))? {
            Some(value) => quote(value, text),
            // The column is there, which matters to conditions.
            None => text.push_str("null"),
        }
        ends[at] = text.len();
    }
    let (text, mut filled, mut start) = (scratch.0.as_str(), Slots::empty(), 0);
    for (&(_, slot), end) in slots.iter().zip(ends) {
        filled.set(slot, &text[start..end]);
        start = end;
    }
    Ok(filled)
}

/// Appends a text as JSON.
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

/// The attributes of columns that are named as a dimension.
fn named<'a>(dimensions: &[(usize, usize)], cell: &impl Fn(usize) -> &'a [u8]) -> Result<Attributes<'a>, Rejection> {
    let mut attributes = Attributes::default();
    for &(column, dimension) in dimensions {
        if let Some(text) = text_of(cell(column))? {
            attributes.set(dimension, Cow::Borrowed(text));
        }
    }
    Ok(attributes)
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
