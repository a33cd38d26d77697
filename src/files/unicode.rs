//! Converts text from other encodings to UTF-8.

use std::io::{self, BufRead, BufReader, Read};

/// The byte order of UTF-16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endian {
    Little,
    Big,
}

/// The same text in UTF-8, without a byte order mark.
pub(super) fn to_utf8(reader: Box<dyn BufRead + Send>) -> io::Result<Box<dyn BufRead + Send>> {
    let (head, mut reader) = super::peek(reader)?;
    let endian = match head.as_slice() {
        [0xef, 0xbb, 0xbf, ..] => {
            reader.consume_exactly(3)?;
            return Ok(reader);
        }
        [0xff, 0xfe, ..] => Some(Endian::Little),
        [0xfe, 0xff, ..] => Some(Endian::Big),
        head => utf_16_without_mark(head),
    };
    match endian {
        None => Ok(reader),
        Some(endian) => {
            Ok(Box::new(BufReader::new(Utf16 { reader, endian, is_first: true, high: None, out: Output::default() })))
        }
    }
}

/// The byte order of UTF-16 text without a byte order mark, if its first characters are ASCII.
pub(super) fn utf_16_without_mark(head: &[u8]) -> Option<Endian> {
    match head {
        [0, a, 0, b, ..] if *a != 0 && *b != 0 => Some(Endian::Big),
        [a, 0, b, 0, ..] if *a != 0 && *b != 0 => Some(Endian::Little),
        _ => None,
    }
}

/// Reads and discards exactly this many bytes.
trait ConsumeExactly {
    fn consume_exactly(&mut self, bytes: u64) -> io::Result<()>;
}

impl ConsumeExactly for Box<dyn BufRead + Send> {
    fn consume_exactly(&mut self, bytes: u64) -> io::Result<()> {
        io::copy(&mut self.by_ref().take(bytes), &mut io::sink()).map(drop)
    }
}

/// A buffer of converted UTF-8.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    taken: usize,
}

impl Output {
    fn push(&mut self, character: char) {
        self.bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.taken = 0;
    }

    fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let rest = &self.bytes[self.taken..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.taken += length;
        length
    }
}

/// Converts UTF-16 to UTF-8.
struct Utf16 {
    reader: Box<dyn BufRead + Send>,
    endian: Endian,
    /// Whether the next unit may be a byte order mark.
    is_first: bool,
    /// The first half of a surrogate pair.
    high: Option<u16>,
    out: Output,
}

impl Utf16 {
    fn push(&mut self, unit: u16) -> io::Result<()> {
        if std::mem::take(&mut self.is_first) && unit == 0xfeff {
            return Ok(());
        }
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "broken UTF-16; save the file as UTF-8");
        if (0xd800..0xdc00).contains(&unit) && self.high.is_none() {
            self.high = Some(unit);
            return Ok(());
        }
        let units = self.high.take().into_iter().chain([unit]);
        for character in char::decode_utf16(units) {
            self.out.push(character.map_err(|_| broken())?);
        }
        Ok(())
    }
}

impl Read for Utf16 {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.out.is_empty() {
            self.out.clear();
            let mut chunk = [0; 8192];
            let mut filled = 0;
            while filled < chunk.len() {
                match self.reader.read(&mut chunk[filled..])? {
                    0 => break,
                    read => filled += read,
                }
            }
            if filled == 0 && self.high.is_none() {
                return Ok(0);
            }
            if filled % 2 == 1 || filled == 0 {
                let what = "the UTF-16 text ends within a character; copy the file again, or save it as UTF-8";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
            }
            for pair in chunk[..filled].chunks_exact(2) {
                let pair = [pair[0], pair[1]];
                self.push(match self.endian {
                    Endian::Little => u16::from_le_bytes(pair),
                    Endian::Big => u16::from_be_bytes(pair),
                })?;
            }
        }
        Ok(self.out.take(buffer))
    }
}

/// The characters of Windows-1252 for bytes 0x80 to 0x9f; the others are those of Latin-1.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// Converts Windows-1252, and with it Latin-1, to UTF-8.
pub struct Windows1252 {
    reader: Box<dyn BufRead + Send>,
    out: Output,
}

impl Windows1252 {
    /// Reads Windows-1252 text as UTF-8.
    #[must_use]
    pub fn new(reader: Box<dyn BufRead + Send>) -> Windows1252 {
        Windows1252 { reader, out: Output::default() }
    }
}

impl Read for Windows1252 {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.out.is_empty() {
            self.out.clear();
            let chunk = self.reader.fill_buf()?;
            let length = chunk.len();
            for &byte in chunk {
                match byte {
                    0x80..=0x9f => self.out.push(WINDOWS_1252[usize::from(byte - 0x80)]),
                    byte => self.out.push(char::from(byte)),
                }
            }
            self.reader.consume(length);
        }
        Ok(self.out.take(buffer))
    }
}
