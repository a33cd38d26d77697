//! Files of events: JSON or CSV in UTF-8 or UTF-16, plain or compressed with gzip or Zstandard, or Parquet.
//!
//! The content decides how a file is read; its name matters only where the content leaves it open.

mod compressed;
mod layout;
mod recognize;
mod unicode;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

pub use self::unicode::Windows1252;

/// Largest line of an NDJSON file, or value of a JSON file, in bytes; a longer one is a mistake of the file, not an event.
pub const MAX_LINE_BYTES: usize = 64 << 20;
/// How much of a file is looked at to find out what it is.
const HEAD_BYTES: u64 = 1 << 16;
/// How often a file may be compressed: some tools compress what is compressed already.
const MAX_COMPRESSIONS: usize = 3;

/// How the events lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One JSON object a line.
    Ndjson,
    /// JSON values that span lines or share one, or a list of them.
    Json,
    /// A header row and one event a row.
    Csv,
    /// Columns; read from the path, since it cannot be read from beginning to end.
    Parquet,
    /// Nothing at all.
    Empty,
}

/// An open file of events.
pub struct EventFile {
    /// Where it is.
    pub path: PathBuf,
    /// How the events lie in it.
    pub layout: Layout,
    /// Its contents, decompressed and in UTF-8 without a byte order mark.
    pub reader: Box<dyn BufRead + Send>,
}

/// A file that cannot be read, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system or a decompressor says so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Not a file.
    #[error("it is a directory; name the files in it, such as {0}/*.csv")]
    Directory(String),
    /// A pattern that nobody expanded.
    #[error("there is no such file; the shell expands patterns such as *.csv only outside of quotes")]
    Pattern,
    /// A kind of file that is not read.
    #[error("it is {found}; {remedy}")]
    Unsupported {
        /// What it is.
        found: &'static str,
        /// How to turn it into something that is read.
        remedy: &'static str,
    },
}

/// Opens a file and finds out how it is compressed, encoded and laid out. `watch` is put between the file and the
/// decompression, such as a progress bar.
///
/// # Errors
/// When the file cannot be opened or read, or is of a kind that is not read.
pub fn open<R: Read + Send + 'static>(path: &Path, watch: impl FnOnce(File) -> R) -> Result<EventFile, FileError> {
    if path.is_dir() {
        return Err(FileError::Directory(path.display().to_string()));
    }
    let file = File::open(path).map_err(|error| match path.to_string_lossy().contains(['*', '?']) {
        true if error.kind() == io::ErrorKind::NotFound => FileError::Pattern,
        _ => error.into(),
    })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let (layout, reader) = open_reader(Box::new(BufReader::with_capacity(1 << 18, watch(file))), &name)?;
    Ok(EventFile { path: path.to_owned(), layout, reader })
}

/// As [`open`], of contents that come from elsewhere; `name` is a file name in lower case.
///
/// # Errors
/// As [`open`].
pub fn open_reader(
    mut reader: Box<dyn BufRead + Send>,
    name: &str,
) -> Result<(Layout, Box<dyn BufRead + Send>), FileError> {
    for compressions in 0.. {
        let (head, rest) = peek(reader)?;
        reader = rest;
        if let Some(compression) = compressed::recognize(&head).filter(|_| compressions < MAX_COMPRESSIONS) {
            reader = compression.open(reader)?;
            continue;
        }
        if head.starts_with(b"PAR1") {
            if compressions > 0 {
                let remedy = "decompress it first: a Parquet file is read from its end";
                return Err(FileError::Unsupported { found: "a compressed Parquet file", remedy });
            }
            return Ok((Layout::Parquet, reader));
        }
        if let Some((found, remedy)) = recognize::unsupported(&head) {
            return Err(FileError::Unsupported { found, remedy });
        }
        break;
    }
    let (head, reader) = peek(unicode::to_utf8(reader)?)?;
    let is_whole = (head.len() as u64) < HEAD_BYTES;
    let stem = [".gz", ".zst"].iter().fold(name, |name, ending| name.strip_suffix(ending).unwrap_or(name));
    let layout = layout::of(&head, is_whole, stem)?;
    Ok((layout, reader))
}

/// The first bytes, and a reader of everything.
fn peek(mut reader: Box<dyn BufRead + Send>) -> io::Result<(Vec<u8>, Box<dyn BufRead + Send>)> {
    let mut head = Vec::new();
    reader.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
    let again = Cursor::new(head.clone());
    Ok((head, Box::new(again.chain(reader))))
}

/// Reads the next line without its end into `line`; `false` at the end of the file.
///
/// # Errors
/// When reading fails, or when a line is absurdly long.
pub fn next_line(reader: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let read = reader.take(MAX_LINE_BYTES as u64).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    } else if line.len() == MAX_LINE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line has more than 64 MiB; is this an NDJSON file?"));
    }
    Ok(read > 0)
}

#[cfg(test)]
mod tests;
