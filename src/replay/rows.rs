//! Reads the rows of a CSV file, with the number of the line where each begins.
//!
//! Lines are counted as in an editor: line ends in quotes and blank lines count too. A row with unbalanced quotes does
//! not affect others: reading continues in the line after the one where it begins.

use std::io::{self, BufRead, Read as _};
use std::ops::Range;

use crate::files::MAX_LINE_BYTES;

/// Maximum size of a row that spans lines; a quote still open then is taken for an error.
const MAX_QUOTED_BYTES: usize = 1 << 20;
/// Possible delimiters; among equally frequent ones, the first is chosen.
const DELIMITERS: [u8; 5] = [b',', b';', b'\t', b'|', 1];
/// Number of bytes that are examined to detect the line ends.
const HEAD_BYTES: usize = 1 << 14;

/// A row split into cells.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub text: Vec<u8>,
    pub cells: Vec<Range<usize>>,
    /// Cells that contain a quote but do not begin with one.
    pub stray_quotes: Vec<usize>,
}

impl Row {
    /// A cell without surrounding blanks; empty after the last cell.
    pub fn cell(&self, place: usize) -> &[u8] {
        self.cells.get(place).map_or(&[], |range| &self.text[range.clone()])
    }

    pub fn clear(&mut self) {
        self.text.clear();
        self.cells.clear();
        self.stray_quotes.clear();
    }

    fn is_empty(&self) -> bool {
        self.cells.iter().all(Range::is_empty)
    }
}

/// The result of reading a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A row that begins in this line.
    Row(u64),
    /// A row with unbalanced quotes that begins in this line.
    Broken(u64, Quotes),
    End,
}

/// What is wrong with the quotes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Quotes {
    #[error("a quote is opened and not closed; write quotes within a cell twice")]
    Open,
    #[error("text follows a closing quote; write quotes within a cell twice")]
    TextBehind,
}

/// Reads rows.
pub(super) struct Rows<'r> {
    reader: &'r mut dyn BufRead,
    delimiter: u8,
    /// `\n`, or `\r` if the file uses no other line end.
    line_end: u8,
    /// Number of lines read so far.
    line: u64,
    /// The lines of the current row, as in the file.
    raw: Vec<u8>,
    /// Lines to be read again.
    again: Vec<u8>,
    again_from: usize,
}

impl<'r> Rows<'r> {
    /// Detects the line ends, a line such as `sep=;`, and the delimiter unless it is given.
    pub fn new(reader: &'r mut dyn BufRead, delimiter: Option<u8>) -> io::Result<Rows<'r>> {
        let mut rows = Rows {
            reader,
            delimiter: delimiter.unwrap_or(b','),
            line_end: b'\n',
            line: 0,
            raw: Vec::new(),
            again: Vec::new(),
            again_from: 0,
        };
        (&mut *rows.reader).take(HEAD_BYTES as u64).read_to_end(&mut rows.again)?;
        if rows.again.contains(&b'\r') && !rows.again.contains(&b'\n') {
            rows.line_end = b'\r';
        }
        let mut header = Vec::new();
        while rows.append_line(&mut header)? {
            rows.line += 1;
            if header.trim_ascii().is_empty() {
                header.clear();
                continue;
            }
            if let Some(named) = separator_line(header.trim_ascii()) {
                rows.delimiter = delimiter.unwrap_or(named);
                return Ok(rows);
            }
            rows.delimiter = delimiter.unwrap_or_else(|| likely_delimiter(&header));
            rows.line -= 1;
            rows.read_again(&header);
            break;
        }
        Ok(rows)
    }

    /// Number of lines read so far.
    pub fn lines(&self) -> u64 {
        self.line
    }

    /// Reads the next non-blank row.
    pub fn next(&mut self, row: &mut Row) -> io::Result<Next> {
        loop {
            self.raw.clear();
            let mut raw = std::mem::take(&mut self.raw);
            let is_line = self.append_line(&mut raw);
            self.raw = raw;
            if !is_line? {
                return Ok(Next::End);
            }
            self.line += 1;
            let begin = self.line;
            if self.raw.contains(&b'"') {
                if let Err(quotes) = self.split_quoted(row)? {
                    return Ok(Next::Broken(begin, quotes));
                }
            } else {
                self.split_plain(row);
            }
            if !row.is_empty() {
                return Ok(Next::Row(begin));
            }
        }
    }

    /// Appends the next line with its line end; `false` at the end of the file.
    fn append_line(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        let before = line.len();
        let waiting = &self.again[self.again_from..];
        if !waiting.is_empty() {
            let end = waiting.iter().position(|byte| *byte == self.line_end);
            let length = end.map_or(waiting.len(), |end| end + 1);
            line.extend_from_slice(&waiting[..length]);
            self.again_from += length;
            if end.is_some() {
                return Ok(true);
            }
        }
        let mut limited = (&mut *self.reader).take(MAX_LINE_BYTES as u64);
        limited.read_until(self.line_end, line)?;
        if line.len() - before >= MAX_LINE_BYTES {
            let what = "a line has more than 64 MiB; is this a CSV file?";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(line.len() > before)
    }

    /// Appends lines up to the next one with a quote, or up to the maximum size; `false` at the end of the file.
    fn append_to_next_quote(&mut self) -> io::Result<bool> {
        let mut raw = std::mem::take(&mut self.raw);
        let before = raw.len();
        let outcome = loop {
            let start = raw.len();
            match self.append_line(&mut raw) {
                Ok(true) => self.line += 1,
                Ok(false) => break Ok(raw.len() > before),
                Err(error) => break Err(error),
            }
            if raw[start..].contains(&b'"') || raw.len() >= MAX_QUOTED_BYTES {
                break Ok(true);
            }
        };
        self.raw = raw;
        outcome
    }

    /// Puts lines back, to be read again.
    fn read_again(&mut self, lines: &[u8]) {
        self.again = [lines, &self.again[self.again_from..]].concat();
        self.again_from = 0;
    }

    fn split_plain(&mut self, row: &mut Row) {
        row.clear();
        std::mem::swap(&mut row.text, &mut self.raw);
        let mut start = 0;
        for (at, byte) in row.text.iter().enumerate() {
            if *byte == self.delimiter {
                row.cells.push(trimmed(&row.text, start..at));
                start = at + 1;
            }
        }
        row.cells.push(trimmed(&row.text, start..row.text.len()));
    }

    /// Splits a row with quotes, appending lines as needed. If the quotes are unbalanced, all lines after the first are
    /// put back.
    fn split_quoted(&mut self, row: &mut Row) -> io::Result<Result<(), Quotes>> {
        let first_line = self.raw.len();
        let begin = self.line;
        let quotes = loop {
            match split(&self.raw, self.delimiter, row) {
                Ok(()) => return Ok(Ok(())),
                Err(Quotes::Open) if self.raw.len() < MAX_QUOTED_BYTES => {
                    if !self.append_to_next_quote()? {
                        break Quotes::Open;
                    }
                }
                Err(quotes) => break quotes,
            }
        };
        let rest = self.raw.split_off(first_line);
        self.read_again(&rest);
        self.line = begin;
        Ok(Err(quotes))
    }
}

/// The delimiter in a line such as `sep=;`, which Excel writes and reads.
fn separator_line(line: &[u8]) -> Option<u8> {
    let line = line.strip_prefix(b"\"").and_then(|line| line.strip_suffix(b"\"")).unwrap_or(line);
    match line {
        [b's' | b'S', b'e' | b'E', b'p' | b'P', b'=', delimiter] => Some(*delimiter),
        // The tab was trimmed.
        [b's' | b'S', b'e' | b'E', b'p' | b'P', b'='] => Some(b'\t'),
        _ => None,
    }
}

/// The most frequent delimiter in a header, outside of quotes.
fn likely_delimiter(header: &[u8]) -> u8 {
    let mut counts = [0_usize; DELIMITERS.len()];
    let mut is_quoted = false;
    for byte in header {
        is_quoted ^= *byte == b'"';
        if let Some(place) = DELIMITERS.iter().position(|delimiter| delimiter == byte).filter(|_| !is_quoted) {
            counts[place] += 1;
        }
    }
    let most = counts.into_iter().max().unwrap_or(0);
    counts.iter().position(|count| *count == most).map_or(b',', |place| DELIMITERS[place])
}

/// A range of a text without surrounding blanks.
fn trimmed(text: &[u8], range: Range<usize>) -> Range<usize> {
    let cell = &text[range.clone()];
    let start = cell.len() - cell.trim_ascii_start().len();
    let kept = cell.trim_ascii().len();
    range.start + start..range.start + start + kept
}

/// Splits a row that contains quotes.
fn split(raw: &[u8], delimiter: u8, row: &mut Row) -> Result<(), Quotes> {
    row.clear();
    let mut at = 0;
    loop {
        let blank = |byte: &u8| byte.is_ascii_whitespace() && *byte != delimiter;
        let quote = at + raw[at..].iter().take_while(|byte| blank(byte)).count();
        let start = row.text.len();
        // A formula such as ="00123" is quoted text.
        let quote = if raw[quote..].starts_with(b"=\"") { quote + 1 } else { quote };
        if raw.get(quote) == Some(&b'"') {
            at = unquote(raw, quote + 1, &mut row.text).ok_or(Quotes::Open)?;
            at += raw[at..].iter().take_while(|byte| blank(byte)).count();
            if raw.get(at).is_some_and(|byte| *byte != delimiter) {
                return Err(Quotes::TextBehind);
            }
        } else {
            let length = raw[at..].iter().position(|byte| *byte == delimiter).unwrap_or(raw.len() - at);
            let cell = &raw[at..at + length];
            if cell.contains(&b'"') {
                row.stray_quotes.push(row.cells.len());
            }
            row.text.extend_from_slice(cell);
            at += length;
        }
        let cell = trimmed(&row.text, start..row.text.len());
        row.cells.push(cell);
        if at >= raw.len() {
            return Ok(());
        }
        at += 1;
    }
}

/// Appends quoted text; returns the position after its closing quote, if there is one.
fn unquote(raw: &[u8], mut at: usize, text: &mut Vec<u8>) -> Option<usize> {
    loop {
        let length = raw[at..].iter().position(|byte| *byte == b'"')?;
        text.extend_from_slice(&raw[at..at + length]);
        at += length + 1;
        if raw.get(at) != Some(&b'"') {
            return Some(at);
        }
        text.push(b'"');
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows as `LINE:cell|cell`, those with unbalanced quotes as `LINE!`.
    fn rows(text: &str) -> Vec<String> {
        let mut reader = text.as_bytes();
        let mut rows = Rows::new(&mut reader, None).unwrap();
        let (mut row, mut found) = (Row::default(), Vec::new());
        loop {
            match rows.next(&mut row).unwrap() {
                Next::Row(line) => {
                    let cells = (0..row.cells.len()).map(|place| String::from_utf8_lossy(row.cell(place)).into_owned());
                    found.push(format!("{line}:{}", cells.collect::<Vec<_>>().join("|")));
                }
                Next::Broken(line, _) => found.push(format!("{line}!")),
                Next::End => return found,
            }
        }
    }

    #[test]
    fn lines_are_counted_as_an_editor_does() {
        for (text, expected) in [
            ("a,b\n1,2\n", &["1:a|b", "2:1|2"][..]),
            ("a,b\r\n\r\n1, 2 \r\n", &["1:a|b", "3:1|2"]),
            ("\n\na,b\n\n,\n1,2", &["3:a|b", "6:1|2"]),
            ("a\tb\r1\t2\r", &["1:a|b", "2:1|2"]),
            ("a;b\n\"x\ny\";2\n3;4\n", &["1:a|b", "2:x\ny|2", "4:3|4"]),
            ("a;b\r\n\"x\r\n\r\n\r\ny\";2\r\n3;4", &["1:a|b", "2:x\r\n\r\n\r\ny|2", "6:3|4"]),
            ("sep=;\r\na;b\r\n1,5;2\r\n", &["2:a|b", "3:1,5|2"]),
            ("\"sep=,\"\na,b\n", &["2:a|b"]),
            ("sep=\t\na\tb\n", &["2:a|b"]),
            ("\"a,a\"|b\n1|2\n", &["1:a,a|b", "2:1|2"]),
            ("a,b\n \"x \"\"y\"\"\" ,\"\"\n", &["1:a|b", "2:x \"y\"|"]),
            ("a,b\n=\"00123\",=\"1,2\"\n\"=\"\"7\"\"\",=8\n", &["1:a|b", "2:00123|1,2", "3:=\"7\"|=8"]),
        ] {
            assert_eq!(rows(text), expected, "{text:?}");
        }
    }

    #[test]
    fn broken_quotes_take_no_other_row_along() {
        for (text, expected) in [
            ("a,b\n\"1,2\n3,4\n5,6\n", &["1:a|b", "2!", "3:3|4", "4:5|6"][..]),
            ("a,b\n\"1,2\n3,\"4\"\n5,6\n", &["1:a|b", "2!", "3:3|4", "4:5|6"]),
            ("a,b\n\"1\"x,2\n3,4\n", &["1:a|b", "2!", "3:3|4"]),
            ("a,b\n3,4\n1,\"2", &["1:a|b", "2:3|4", "3!"]),
        ] {
            assert_eq!(rows(text), expected, "{text:?}");
        }
        let long = format!("a,b\n\"1,2\n{}3,4\n", "7,8\n".repeat(1 << 19));
        let found = rows(&long);
        assert_eq!((found.len(), found[1].as_str(), found[2].as_str()), (2 + (1 << 19) + 1, "2!", "3:7|8"));
        assert_eq!(found.last().unwrap(), &format!("{}:3|4", 3 + (1 << 19)));
    }

    #[test]
    fn quotes_within_plain_cells_are_noted() {
        let mut reader = &b"a,b\n5\" pipe,\"x\"\n"[..];
        let mut rows = Rows::new(&mut reader, None).unwrap();
        let mut row = Row::default();
        rows.next(&mut row).unwrap();
        assert_eq!(rows.next(&mut row).unwrap(), Next::Row(2));
        assert_eq!((row.cell(0), row.cell(1), row.stray_quotes.as_slice()), (&b"5\" pipe"[..], &b"x"[..], &[0][..]));
    }
}
