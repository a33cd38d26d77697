//! Recognizes unsupported kinds of files by their first bytes, with advice on how to convert them.

/// Offset of the magic number in a tar header.
const TAR_MAGIC_AT: usize = 257;
/// Text files contain no zero byte; a few bytes are enough to distinguish UTF-16 from binary data.
const BINARY_WITHIN: usize = 64;

const EXPORT: &str = "export the rows as CSV or NDJSON";

/// The kind of a file with these first bytes, and the remedy; `None` if it may be text.
pub(super) fn unsupported(head: &[u8]) -> Option<(&'static str, &'static str)> {
    const SIGNATURES: [(&[u8], &str, &str); 17] = [
        (b"PK\x03\x04", "a ZIP archive or an Excel workbook", "unzip it, or save the sheet as CSV UTF-8"),
        (b"PK\x05\x06", "an empty ZIP archive", "export again"),
        (b"\xd0\xcf\x11\xe0", "an Excel workbook of before 2007", "save the sheet as CSV UTF-8"),
        (b"BZh", "compressed with bzip2", "decompress it with bunzip2"),
        (b"\xfd7zXZ\0", "compressed with xz", "decompress it with unxz"),
        (b"\x04\x22\x4d\x18", "compressed with LZ4", "decompress it with unlz4"),
        (b"\x1f\x9d", "compressed with compress", "decompress it with uncompress"),
        (b"\xff\x06\0\0sNaPpY", "compressed with Snappy", "decompress it, or export with gzip"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "extract it with 7z x"),
        (b"ORC", "an ORC file", "export the rows as Parquet, CSV or NDJSON"),
        (b"Obj\x01", "an Avro file", "export the rows as Parquet, CSV or NDJSON"),
        (b"ARROW1", "an Arrow or Feather file", "write the rows as Parquet"),
        (
            b"SQLite format 3",
            "an SQLite database",
            "export the table: sqlite3 -header -csv FILE 'SELECT * FROM orders'",
        ),
        (b"PGDMP", "a dump of pg_dump", "export the table: psql -c \"\\copy orders TO 'orders.csv' CSV HEADER\""),
        (b"PGCOPY\n", "a binary COPY of PostgreSQL", "export with COPY ... TO ... (FORMAT csv, HEADER)"),
        (b"%PDF", "a PDF document", EXPORT),
        (b"\x80\x04\x95", "a Python pickle", "write it with to_csv or to_parquet"),
    ];
    let known = SIGNATURES.iter().find(|(magic, ..)| head.starts_with(magic));
    if let Some(&(_, found, remedy)) = known {
        return Some((found, remedy));
    }
    if head.get(TAR_MAGIC_AT..).is_some_and(|rest| rest.starts_with(b"ustar")) {
        return Some(("a tar archive", "extract it with tar -x"));
    }
    if head.starts_with(b"\xff\xfe\0\0") || head.starts_with(b"\0\0\xfe\xff") {
        return Some(("UTF-32 text", "convert it: iconv -f UTF-32 -t UTF-8"));
    }
    let start = &head[..head.len().min(BINARY_WITHIN)];
    let has_mark = start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff");
    if start.contains(&0) && !has_mark && super::unicode::utf_16_without_mark(start).is_none() {
        return Some(("a binary file of an unknown kind", "export the rows as CSV, NDJSON or Parquet"));
    }
    None
}
