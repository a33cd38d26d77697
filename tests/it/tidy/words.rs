//! One vocabulary: words that were replaced by the field's stay out of code and documents.

use std::fmt::Write as _;

use super::{documents, read, rust_files};

/// Words that `docs/glossary.md` replaces, and what to say. Each part of an identifier counts as a word.
const RETIRED: [(&str, &str); 19] = [
    ("blueprint", "worker configuration"),
    ("buried", "dead-lettered"),
    ("bury", "add a dead letter"),
    ("courier", "webhook task"),
    ("cuts", "checkpoints"),
    ("doomed", "pending deletes"),
    ("flood", "rejection breaker"),
    ("glimpse", "probe"),
    ("lane", "partition reader or key queue"),
    ("lanes", "partition readers or key queues"),
    ("obey", "execute"),
    ("plant", "clients"),
    ("seam", "handoff offsets"),
    ("sightings", "key placement"),
    ("tenure", "owned partition, progress or session"),
    ("trouble", "error"),
    ("troubles", "errors"),
    ("unborn", "initializing"),
    ("vault", "store tasks"),
];

#[test]
fn retired_words_stay_out() {
    let mut faults = String::new();
    let files = rust_files("src").into_iter().chain(documents());
    for path in files.filter(|path| !path.ends_with("CHANGELOG.md")) {
        for (number, line) in read(&path).lines().enumerate() {
            for (word, instead) in retired(line) {
                _ = writeln!(faults, "{path}:{}: say {instead:?} instead of {word:?}: {}", number + 1, line.trim());
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn a_retired_word_is_found_in_prose_and_in_identifiers() {
    for line in ["the vault", "a Vault.", "self.vault_of", "CourierVault", "VAULT"] {
        assert!(retired(line).any(|(word, _)| word == "vault"), "{line}");
    }
    for line in ["a planted tree", "replant", "execute", "shortcuts", "plants"] {
        assert_eq!(retired(line).next(), None, "{line}");
    }
}

fn retired(line: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let words: Vec<_> = parts(line).collect();
    RETIRED.into_iter().filter(move |(word, _)| words.iter().any(|part| part == word))
}

/// The words of a line in lower case; identifiers are split at `_` and before capitals.
fn parts(line: &str) -> impl Iterator<Item = String> {
    line.split(|c: char| !c.is_alphanumeric()).flat_map(|word| {
        let mut parts = vec![String::new()];
        let mut before_is_lower = false;
        for c in word.chars() {
            if c.is_uppercase() && before_is_lower {
                parts.push(String::new());
            }
            before_is_lower = c.is_lowercase();
            parts.last_mut().unwrap().extend(c.to_lowercase());
        }
        parts
    })
}
