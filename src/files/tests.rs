use std::io::Write;

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn utf_16(text: &str, big: bool, mark: bool) -> Vec<u8> {
    let mark = mark.then_some(0xfeff);
    let units = mark.into_iter().chain(text.encode_utf16());
    units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
}

fn open_bytes(name: &str, bytes: Vec<u8>) -> Result<(Layout, String), FileError> {
    let (layout, mut reader) = open_reader(Box::new(Cursor::new(bytes)), name)?;
    let mut text = String::new();
    reader.read_to_string(&mut text)?;
    Ok((layout, text))
}

const LINES: &str = "{\"a\":\"ö😀\"}\r\n{\"b\":2}\n\n{\"c\":3}";

#[test]
fn compression_and_encoding_are_detected_for_any_name() {
    let plain = LINES.as_bytes();
    let (first, second) = plain.split_at(7);
    let marked = ["\u{feff}".as_bytes(), plain].concat();
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let padding = vec![0; 100_000];
    for (what, bytes) in [
        ("plain", plain.to_vec()),
        ("gzip", gzip(plain)),
        ("zstd", zstd(plain)),
        ("gzip members", [gzip(first), gzip(second)].concat()),
        ("gzip with padding", [gzip(plain), padding.clone()].concat()),
        ("gzip members with padding between", [gzip(first), padding, gzip(second)].concat()),
        ("zstd frames", [zstd(first), zstd(second)].concat()),
        ("gzip in gzip", gzip(&gzip(plain))),
        ("mark", marked.clone()),
        ("gzip of mark", gzip(&marked)),
        ("little", utf_16(LINES, false, true)),
        ("big", utf_16(LINES, true, true)),
        ("little without mark", utf_16(LINES, false, false)),
        ("big without mark", utf_16(LINES, true, false)),
        ("gzip of little", gzip(&utf_16(LINES, false, true))),
    ] {
        for name in ["orders", "orders.csv", "orders.ndjson.gz", "orders.zst"] {
            let (layout, text) = open_bytes(name, bytes.clone()).unwrap();
            assert_eq!((layout, text.as_str()), (Layout::Ndjson, LINES), "{what} as {name}");
        }
    }
    let long = "é€😀x".repeat(20_000);
    assert_eq!(open_bytes("x", utf_16(&long, false, true)).unwrap().1, long, "pairs of units span buffers");
}

#[test]
fn the_layout_follows_from_the_content() {
    for (name, text, layout) in [
        ("a.csv", "customer_id,time\n", Layout::Csv),
        ("a.json", "customer_id,time\n", Layout::Csv),
        ("a.json", "[order id],time\n[1],2\n", Layout::Json),
        ("a.csv", "[order id],time\n[1],2\n", Layout::Csv),
        ("a.ndjson", "broken\n{\"a\":1}\n", Layout::Ndjson),
        ("a", "{\"a\":1}", Layout::Ndjson),
        ("a", "\n {\"a\":1}\n{\"a\":2}", Layout::Ndjson),
        ("a", "{\"a\":1\n{\"a\":2}\n", Layout::Ndjson),
        ("a", "{\"a\":\n{\"a\":2}}\n", Layout::Json),
        ("a", "{\n  \"a\": 1\n}\n{\n  \"a\": 2\n}\n", Layout::Json),
        ("a", "{\"a\":1}{\"a\":2}\n", Layout::Json),
        ("a", "{\"a\":1},\n{\"a\":2}\n", Layout::Json),
        ("a.csv", "[{\"a\":1}]", Layout::Json),
        ("a", "[]", Layout::Json),
        ("a", "[\n]", Layout::Json),
        ("a.csv", "", Layout::Empty),
        ("a", " \r\n\n", Layout::Empty),
    ] {
        assert_eq!(open_bytes(name, text.into()).unwrap().0, layout, "{name}: {text:?}");
    }
}

#[test]
fn unsupported_files_are_named_with_a_remedy() {
    let mut tar = vec![b'x'; 600];
    tar[257..262].copy_from_slice(b"ustar");
    for (bytes, words) in [
        (b"PK\x03\x04rest".to_vec(), ["Excel workbook", "CSV UTF-8"]),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec(), ["before 2007", "CSV UTF-8"]),
        (b"BZh91AY".to_vec(), ["bzip2", "bunzip2"]),
        (b"\xfd7zXZ\0rest".to_vec(), ["xz", "unxz"]),
        (b"Obj\x01rest".to_vec(), ["Avro", "Parquet"]),
        (b"ORCrest".to_vec(), ["ORC", "Parquet"]),
        (gzip(&tar), ["tar archive", "tar -x"]),
        (gzip(b"PAR1rest"), ["compressed Parquet", "decompress"]),
        (b"<?xml version=\"1.0\"?>".to_vec(), ["XML", "CSV"]),
        (b"-- MySQL dump 10.13".to_vec(), ["SQL script", "COPY"]),
        (b"INSERT INTO orders VALUES (1)".to_vec(), ["SQL script", "COPY"]),
        (b"a\0\0\0b\0\0\0".to_vec(), ["binary", "CSV"]),
        (b"\xff\xfe\0\0a\0\0\0".to_vec(), ["UTF-32", "iconv"]),
        (b"PGDMP".to_vec(), ["pg_dump", "copy"]),
    ] {
        let error = open_bytes("orders.csv", bytes.clone()).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let error = open(dir.path(), |file| file).err().unwrap().to_string();
    assert!(error.contains("is a directory") && error.contains("/*.csv"), "{error}");
    let error = open(&dir.path().join("*.csv"), |file| file).err().unwrap().to_string();
    assert!(error.contains("outside of quotes"), "{error}");
}

#[test]
fn damaged_files_are_errors() {
    for bytes in [
        b"\x1f\x8b no gzip".to_vec(),
        gzip(LINES.as_bytes())[..20].to_vec(),
        [gzip(LINES.as_bytes()), b"rubbish".to_vec()].concat(),
        b"\x28\xb5\x2f\xfd no zstd".to_vec(),
        utf_16(LINES, false, true)[..7].to_vec(),
        b"\xff\xfe\0\xd8a\0".to_vec(),
    ] {
        assert!(open_bytes("orders.ndjson.gz", bytes.clone()).is_err(), "{bytes:?}");
    }
    assert!(open(Path::new("/nowhere/absent.csv"), |file| file).is_err());
}

#[test]
fn windows_1252_becomes_utf_8() {
    let bytes = b"caf\xe9 \x80 \x93x\x94".to_vec();
    let mut text = String::new();
    Windows1252::new(Box::new(Cursor::new(bytes))).read_to_string(&mut text).unwrap();
    assert_eq!(text, "café € “x”");
}
