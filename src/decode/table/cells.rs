//! The text of a cell, as databases, spreadsheets and data frames write it.

use crate::decode::{Reason, Rejection};

/// The content of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// An attribute or condition: text, in which only a database null is special.
    Text,
    /// A field of an event that is not an id.
    Value,
    /// An id.
    Id {
        /// Whether numbers have a decimal comma.
        has_comma: bool,
    },
}

/// Null in CSV exports of databases.
const NULL: [&str; 3] = ["\\N", "NULL", "null"];
/// Missing values of statistics packages, spreadsheets and other tools; case does not matter.
const MISSING: [&str; 13] =
    ["na", "n/a", "#n/a", "#na", "<na>", "nan", "-nan", "nat", "none", "null", "(null)", "[null]", "#n/a n/a"];
/// Results of failed spreadsheet formulas.
const FAILED: [&str; 6] = ["#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!"];
/// Largest number up to which floating point represents every whole number.
const LARGEST_EXACT: u64 = 1 << 53;

/// The text of a cell in the column `name`; `None` if it is empty. A placeholder for a missing id becomes blank text,
/// which identifies nobody.
pub(super) fn read<'a>(cell: &'a [u8], role: Role, name: &str) -> Result<Option<&'a str>, Rejection> {
    let text = plain(std::str::from_utf8(cell).map_err(|_| not_utf8())?);
    if text.is_empty() {
        return Ok(None);
    }
    let is_missing = || NULL.contains(&text) || MISSING.iter().any(|word| text.eq_ignore_ascii_case(word));
    match role {
        Role::Text => Ok(Some(text).filter(|text| !NULL.contains(text))),
        Role::Value => Ok(Some(text).filter(|_| !is_missing())),
        Role::Id { .. } if is_missing() => Ok(Some("")),
        Role::Id { has_comma } => id(text, if has_comma { ',' } else { '.' }, name).map(Some),
    }
}

fn not_utf8() -> Rejection {
    let remedy = "save the file as UTF-8, or write mapping.encoding = \"windows-1252\" (format = \"custom\")";
    Rejection::new(Reason::NotUtf8, format!("the row is not UTF-8; {remedy}"))
}

/// Text without surrounding blanks and invisible characters, and without the formula `="00123"` with which spreadsheets
/// keep text from becoming a number.
pub(super) fn plain(text: &str) -> &str {
    let text = trimmed(text);
    match text.strip_prefix("=\"").and_then(|text| text.strip_suffix('"')) {
        Some(inner) => trimmed(inner),
        None => text,
    }
}

fn trimmed(text: &str) -> &str {
    match text.as_bytes() {
        [] => text,
        [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => text,
        _ => text.trim_matches(|character: char| character.is_whitespace() || is_invisible(character)),
    }
}

/// Whether a character has no width: joiners, direction marks, soft hyphens, byte order marks.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{0}'..='\u{1f}' | '\u{7f}' | '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    )
}

/// An id without the decimals that a numeric column added.
fn id<'a>(text: &'a str, point: char, name: &str) -> Result<&'a str, Rejection> {
    if FAILED.contains(&text) {
        let what =
            format!("the cell of {name} holds the error {text} of a spreadsheet; mend its formula and export again");
        return Err(Rejection::new(Reason::InvalidId, what));
    }
    let whole = whole_part(text, point);
    let is_too_large = |whole: &str| whole.trim_start_matches('-').parse().is_ok_and(|id: u64| id > LARGEST_EXACT);
    if is_rounded(text) || whole.is_some_and(is_too_large) {
        let what = format!(
            "the cell of {name} holds a number that a spreadsheet has rounded, so digits of the id are lost; export the \
             column as text (pandas: read_csv(..., dtype=str))"
        );
        return Err(Rejection::new(Reason::InvalidId, what));
    }
    Ok(whole.unwrap_or(text))
}

/// `13085` for `13085.0`.
fn whole_part(text: &str, point: char) -> Option<&str> {
    let (whole, decimals) = text.split_once(point)?;
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let is_whole = !decimals.is_empty() && decimals.bytes().all(|byte| byte == b'0');
    (is_whole && is_digits(digits)).then_some(whole)
}

/// Whether a number has an exponent: `2.67E+12`, `1e+16`, `2.67E12`.
fn is_rounded(text: &str) -> bool {
    let Some((digits, exponent)) = text.split_once(['E', 'e']) else { return false };
    let (whole, decimals) = digits.split_once(['.', ',']).map_or((digits, None), |(whole, rest)| (whole, Some(rest)));
    let is_number = is_digits(whole) && decimals.is_none_or(is_digits);
    match exponent.strip_prefix('+') {
        Some(exponent) => is_number && is_digits(exponent),
        // Without a sign, only decimals distinguish a number from an id such as `1e5`.
        None => is_number && decimals.is_some() && is_digits(exponent),
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_id(cell: &str) -> Result<Option<&str>, Reason> {
        read(cell.as_bytes(), Role::Id { has_comma: false }, "Customer").map_err(|rejection| rejection.reason)
    }

    #[test]
    fn ids_are_as_they_were_before_a_column_of_numbers() {
        for (cell, id) in [
            ("13085.0", "13085"),
            ("13085.00", "13085"),
            ("-7.0", "-7"),
            ("9007199254740992.0", "9007199254740992"),
            ("13085.10", "13085.10"),
            ("00123", "00123"),
            ("=\"00123\"", "00123"),
            ("=\" 00123\u{a0}\"", "00123"),
            ("\u{a0}17\u{200b}", "17"),
            ("\u{feff}17\u{202f}", "17"),
            ("v1.0", "v1.0"),
            ("1.2.0", "1.2.0"),
            ("1e5", "1e5"),
            ("3e+", "3e+"),
            ("a\u{200b}b", "a\u{200b}b"),
            ("13085,0", "13085,0"),
            ("Nathan", "Nathan"),
        ] {
            assert_eq!(read_id(cell), Ok(Some(id)), "{cell:?}");
        }
        let comma = read(b"13085,0", Role::Id { has_comma: true }, "Kunde");
        assert_eq!(comma, Ok(Some("13085")));
        for cell in ["2.67E+12", "2,67E+12", "1e+16", "2.674098602081E12", "9007199254740994.0", "#REF!", "#NAME?"] {
            assert_eq!(read_id(cell), Err(Reason::InvalidId), "{cell:?}");
        }
    }

    #[test]
    fn missing_values_are_empty_cells_in_fields_and_nobody_in_ids() {
        for cell in
            ["NA", "#N/A", "N/A", "n/a", "<NA>", "NaT", "NaN", "nan", "(null)", "[NULL]", "NULL", "null", "\\N", "None"]
        {
            assert_eq!(read(cell.as_bytes(), Role::Value, "Total"), Ok(None), "{cell}");
            assert_eq!(read_id(cell), Ok(Some("")), "{cell}");
        }
        for cell in ["", " ", "\u{a0}", "\u{feff}", "=\"\""] {
            assert_eq!(read(cell.as_bytes(), Role::Value, "Total"), Ok(None), "{cell:?}");
            assert_eq!(read_id(cell), Ok(None), "{cell:?}");
        }
        // The country code of Namibia.
        assert_eq!(read(b"NA", Role::Text, "Country"), Ok(Some("NA")));
        assert_eq!(read(b"NULL", Role::Text, "Country"), Ok(None));
    }
}
