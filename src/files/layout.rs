//! Detects the layout of a text file.

use serde::de::IgnoredAny;

use super::{FileError, Layout};

/// Detects the layout from the first bytes; `is_whole` if there are no others. `name` is the file name in lower case,
/// without the extension of a compression.
pub(super) fn of(head: &[u8], is_whole: bool, name: &str) -> Result<Layout, FileError> {
    let text = head.trim_ascii_start();
    let Some(&first) = text.first() else {
        return Ok(if is_whole { Layout::Empty } else { Layout::Csv });
    };
    let is_named = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    match first {
        b'{' => Ok(of_objects(text, is_whole)),
        b'[' if is_list(text) || is_named(&[".json", ".ndjson", ".jsonl"]) => Ok(Layout::Json),
        b'<' => Err(FileError::Unsupported {
            found: "XML or HTML, perhaps an error page or an old Excel export",
            remedy: "export the rows as CSV or NDJSON",
        }),
        _ if is_sql(text) => Err(FileError::Unsupported {
            found: "an SQL script",
            remedy: "export the table's rows: COPY ... TO ... (FORMAT csv, HEADER), or mysql --batch",
        }),
        // A broken line must not make the rest look like CSV rows.
        _ if is_named(&[".json", ".ndjson", ".jsonl"]) && text.split(|byte| *byte == b'\n').any(is_object) => {
            Ok(Layout::Ndjson)
        }
        _ => Ok(Layout::Csv),
    }
}

fn is_object(line: &[u8]) -> bool {
    line.trim_ascii_start().first() == Some(&b'{')
}

/// Whether the text begins a JSON list, rather than a CSV column name in brackets.
fn is_list(text: &[u8]) -> bool {
    matches!(text[1..].trim_ascii_start().first(), None | Some(b'{' | b'[' | b']'))
}

fn is_sql(text: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&text[..text.len().min(64)]).to_ascii_uppercase();
    ["-- ", "--\n", "/*", "INSERT INTO ", "CREATE TABLE ", "DROP TABLE ", "COPY "]
        .iter()
        .any(|sql| start.starts_with(sql))
}

/// Either one object per line, or objects that span lines or share one.
fn of_objects(text: &[u8], is_whole: bool) -> Layout {
    let has_line_end = text.contains(&b'\n');
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or(text);
    let mut values = serde_json::Deserializer::from_slice(line).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => {
            let rest = line[values.byte_offset()..].trim_ascii();
            match rest.first() {
                Some(b'{' | b',') => Layout::Json,
                _ => Layout::Ndjson,
            }
        }
        Some(Err(error)) if error.is_eof() && has_line_end => of_broken_line(text, is_whole),
        _ => Layout::Ndjson,
    }
}

/// The first line is an incomplete object: the object continues on the next line, or the line is broken.
fn of_broken_line(text: &[u8], is_whole: bool) -> Layout {
    match serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>().next() {
        Some(Ok(_)) => Layout::Json,
        Some(Err(error)) if error.is_eof() => {
            let other_begins = text.split(|byte| *byte == b'\n').skip(1).any(|line| line.first() == Some(&b'{'));
            if other_begins && is_whole { Layout::Ndjson } else { Layout::Json }
        }
        _ => Layout::Ndjson,
    }
}
