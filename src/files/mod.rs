//! Files of events: JSON or CSV in UTF-8 or UTF-16, plain or compressed with gzip or Zstandard, or Parquet.
//!
//! The content decides how to read a file; its name matters only if the content is ambiguous.

mod compressed;
mod layout;
mod recognize;
mod unicode;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

pub use self::unicode::Windows1252;

/// Maximum size of an NDJSON line or a JSON value in bytes; a longer one indicates a broken file.
pub const MAX_LINE_BYTES: usize = 64 << 20;
/// How many bytes are inspected to detect the format.
const HEAD_BYTES: u64 = 1 << 16;
/// Maximum nesting of compressions: some tools compress files that are already compressed.
const MAX_COMPRESSIONS: usize = 3;

/// The layout of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One JSON object per line.
    Ndjson,
    /// JSON values that span lines or share one, or a list of them.
    Json,
    /// A header row and one event per row.
    Csv,
    /// Parquet columns. Read from the path, because it needs random access.
    Parquet,
    /// An empty file.
    Empty,
}

/// An open file of events.
pub struct EventFile {
    /// Its path.
    pub path: PathBuf,
    /// Its layout.
    pub layout: Layout,
    /// Its content, decompressed and in UTF-8 without a byte order mark.
    pub reader: Box<dyn BufRead + Send>,
}

/// Why a file cannot be read, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Error of the file system or a decompressor.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Not a file.
    #[error("it is a directory; name the files in it, such as {0}/*.csv")]
    Directory(String),
    /// A file name pattern that the shell did not expand.
    #[error("there is no such file; the shell expands patterns such as *.csv only outside of quotes")]
    Pattern,
    /// An unsupported kind of file.
    #[error("it is {found}; {remedy}")]
    Unsupported {
        /// Its kind.
        found: &'static str,
        /// How to convert it into a supported one.
        remedy: &'static str,
    },
}

/// Opens a file and detects compression, encoding and layout. `watch` wraps the raw file, for example for a progress
/// bar.
///
/// # Errors
/// If the file cannot be opened or read, or is of an unsupported kind.
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

/// As [`open`], for content from elsewhere; `name` is a file name in lower case.
///
/// # Errors
/// See [`open`].
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

/// Reads the first bytes; returns them with a reader of the whole content.
fn peek(mut reader: Box<dyn BufRead + Send>) -> io::Result<(Vec<u8>, Box<dyn BufRead + Send>)> {
    let mut head = Vec::new();
    reader.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
    let again = Cursor::new(head.clone());
    Ok((head, Box::new(again.chain(reader))))
}

/// Reads the next line into `line`, without the line end; `false` at the end of the file.
///
/// # Errors
/// If reading fails, or the line is too long.
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
