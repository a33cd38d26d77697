//! Placeholders that software writes for a missing id: `0`, `null`, `undefined` and the like.

use super::options::Options;

/// The default placeholders, in lower case; case and surrounding blanks do not matter. Blank ids are always
/// placeholders.
pub const NOBODY: [&str; 23] = [
    "0",
    "null",
    "undefined",
    "none",
    "nil",
    "nan",
    "false",
    "true",
    "[object object]",
    "anonymous",
    "guest",
    "not_authenticated",
    "(not set)",
    "(none)",
    "na",
    "n/a",
    "#n/a",
    "<na>",
    "nat",
    "(null)",
    "[null]",
    "\\n",
    "00000000-0000-0000-0000-000000000000",
];

/// Distinguishes ids from placeholders.
#[derive(Debug, Clone)]
pub struct Nobody {
    /// The placeholders in lower case.
    words: Vec<Box<str>>,
    /// Bit set of their lengths, and their first bytes: two lookups dismiss nearly every real id.
    lengths: u64,
    firsts: [bool; 256],
    /// Whether one of them is not ASCII, which needs the slower comparison.
    is_foreign: bool,
}

impl Nobody {
    /// The placeholders of `mapping.nobody`, by default [`NOBODY`].
    #[must_use]
    pub fn new(options: &Options) -> Nobody {
        match &options.nobody {
            Some(words) => Nobody::of(words.iter().map(String::as_str)),
            None => Nobody::of(NOBODY),
        }
    }

    fn of<'w>(words: impl IntoIterator<Item = &'w str>) -> Nobody {
        let mut nobody = Nobody { words: Vec::new(), lengths: 0, firsts: [false; 256], is_foreign: false };
        for word in words {
            let word = word.trim().to_lowercase();
            let Some(first) = word.bytes().next() else { continue };
            nobody.lengths |= 1 << word.len().min(63);
            nobody.firsts[usize::from(first)] = true;
            nobody.firsts[usize::from(first.to_ascii_uppercase())] = true;
            nobody.is_foreign |= !word.is_ascii();
            nobody.words.push(word.into());
        }
        nobody
    }

    /// Whether an id is a placeholder or blank.
    #[must_use]
    #[inline]
    pub fn is(&self, id: &str) -> bool {
        let id = match id.as_bytes() {
            [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => id,
            _ => id.trim(),
        };
        match id.as_bytes() {
            [] => true,
            [first, ..] if self.firsts[usize::from(*first)] && self.lengths >> id.len().min(63) & 1 == 1 => {
                self.is_listed(id)
            }
            _ => self.is_foreign && self.is_listed(id),
        }
    }

    fn is_listed(&self, id: &str) -> bool {
        if self.is_foreign && !id.is_ascii() {
            let id = id.to_lowercase();
            return self.words.iter().any(|word| **word == *id);
        }
        self.words.iter().any(|word| word.eq_ignore_ascii_case(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_software_writes_for_no_id_is_nobody_whatever_its_case() {
        let nobody = Nobody::new(&Options::default());
        for id in [
            "",
            " ",
            "\t\n",
            "0",
            " 0 ",
            "null",
            "NULL",
            "undefined",
            "None",
            "NaN",
            "[object Object]",
            "anonymous",
            "Anonymous ",
            "(not set)",
            "guest",
            "false",
            "NA",
            "N/A",
            "#N/A",
            "<NA>",
            "NaT",
            "(null)",
            "[NULL]",
            "\\N",
            "00000000-0000-0000-0000-000000000000",
            "\u{a0}null",
        ] {
            assert!(nobody.is(id), "{id:?}");
        }
        for id in [
            "00",
            "0.",
            "c-0",
            "nullo",
            "nobody",
            "guest-9",
            "Nonette",
            "10",
            "-1",
            "ann@example.com",
            "\u{e9}",
            "(",
            "n",
        ] {
            assert!(!nobody.is(id), "{id:?}");
        }
        let long = "0".repeat(64);
        assert!(!nobody.is(&long) && nobody.is(&format!("{}null", " ".repeat(80))));
    }

    #[test]
    fn the_list_of_a_source_replaces_it() {
        let words = ["Gast".to_owned(), "\u{c9}tranger".to_owned()];
        let nobody = Nobody::new(&Options { nobody: Some(words.to_vec()), ..Options::default() });
        for id in ["gast", "GAST", "\u{e9}tranger", "\u{c9}TRANGER", "", "  "] {
            assert!(nobody.is(id), "{id:?}");
        }
        assert!(!nobody.is("0") && !nobody.is("null"));
        let none = Nobody::new(&Options { nobody: Some(vec![]), ..Options::default() });
        assert!(none.is("") && !none.is("0"), "an empty list still knows that a blank id is none");
    }
}
