//! Files of events: NDJSON or CSV, plain or compressed with gzip or Zstandard, or Parquet.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Largest line of an NDJSON file in bytes; a longer one is a mistake of the file, not an event.
const MAX_LINE_BYTES: usize = 64 << 20;

/// How the events lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One JSON object a line.
    Ndjson,
    /// A header row and one order a row.
    Csv,
    /// Columns; read from the path, since it cannot be read from beginning to end.
    Parquet,
}

/// An open file of events.
pub struct EventFile {
    /// Where it is.
    pub path: PathBuf,
    /// How the events lie in it.
    pub layout: Layout,
    /// Its contents, decompressed.
    pub reader: Box<dyn BufRead + Send>,
}

/// Opens a file; the name's endings say how it is compressed and laid out, the first byte where they do not. `watch`
/// is put between the file and the decompression, such as a progress bar.
///
/// # Errors
/// When the file cannot be opened or read.
pub fn open<R: Read + Send + 'static>(path: &Path, watch: impl FnOnce(File) -> R) -> io::Result<EventFile> {
    let file = watch(File::open(path)?);
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let (stem, decompressed): (&str, Box<dyn Read + Send>) = if let Some(stem) = name.strip_suffix(".gz") {
        (stem, Box::new(flate2::read::MultiGzDecoder::new(file)))
    } else if let Some(stem) = name.strip_suffix(".zst") {
        (stem, Box::new(zstd::Decoder::new(file)?))
    } else {
        (&name, Box::new(file))
    };
    let mut reader: Box<dyn BufRead + Send> = Box::new(BufReader::with_capacity(1 << 18, decompressed));
    let layout = match stem.rsplit_once('.').map(|(_, ending)| ending) {
        Some("csv") => Layout::Csv,
        Some("parquet" | "pq") if stem == name => Layout::Parquet,
        Some("ndjson" | "jsonl" | "json") => Layout::Ndjson,
        _ => sniff(reader.as_mut())?,
    };
    Ok(EventFile { path: path.to_owned(), layout, reader })
}

fn sniff(reader: &mut dyn BufRead) -> io::Result<Layout> {
    let begin = reader.fill_buf()?;
    if begin.starts_with(b"PAR1") {
        return Ok(Layout::Parquet);
    }
    let first = begin.iter().find(|byte| !byte.is_ascii_whitespace());
    Ok(if first == Some(&b'{') { Layout::Ndjson } else { Layout::Csv })
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
mod tests {
    use std::io::Write;

    use super::*;

    fn lines_of(path: &Path) -> (Layout, Vec<String>) {
        let mut file = open(path, |file| file).unwrap();
        let (mut line, mut lines) = (Vec::new(), Vec::new());
        while next_line(file.reader.as_mut(), &mut line).unwrap() {
            lines.push(String::from_utf8(line.clone()).unwrap());
        }
        (file.layout, lines)
    }

    #[test]
    fn reads_every_compression_and_layout() {
        let dir = tempfile::tempdir().unwrap();
        let text = b"{\"a\":1}\r\n{\"b\":2}\n\n{\"c\":3}";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text).unwrap();
        let files = [
            ("plain.ndjson", text.to_vec()),
            ("packed.ndjson.gz", gzip.finish().unwrap()),
            ("packed.jsonl.zst", zstd::encode_all(&text[..], 1).unwrap()),
            ("nameless", text.to_vec()),
        ];
        for (name, bytes) in files {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let expected = ["{\"a\":1}", "{\"b\":2}", "", "{\"c\":3}"].map(str::to_owned).to_vec();
            assert_eq!(lines_of(&path), (Layout::Ndjson, expected), "{name}");
        }
        let table = dir.path().join("orders");
        std::fs::write(&table, "customer_id,time\n").unwrap();
        assert_eq!(lines_of(&table).0, Layout::Csv);
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broken.ndjson.gz");
        std::fs::write(&path, b"\x1f\x8b no gzip").unwrap();
        let mut file = open(&path, |file| file).unwrap();
        assert!(next_line(file.reader.as_mut(), &mut Vec::new()).is_err());
        assert!(open(&dir.path().join("absent.csv"), |file| file).is_err());
    }
}
