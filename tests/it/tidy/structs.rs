//! No struct holds everything: fields that belong together form a struct of their own.

use std::fmt::Write as _;

use super::{Source, closing_brace, sources, words};

const MAX_FIELDS: usize = 20;
/// Structs that mirror something flat which is stored or shown: its keys are its fields.
const FLAT: [(&str, &str); 3] = [
    ("Options", "the options of a source in the configuration"),
    ("People", "the head counts of a window in the API"),
    ("Scalars", "the scalars of a state in its manifest"),
];
/// Structs that are still larger, which may only shrink.
const LARGER: [(&str, usize); 1] = [("Engine", 26)];

#[test]
fn structs_stay_small() {
    let mut faults = String::new();
    let mut seen = 0;
    for file in sources() {
        for (line, name, fields) in structs(&file) {
            seen += 1;
            let larger = LARGER.iter().find(|(larger, _)| *larger == name);
            let most = larger.map_or(MAX_FIELDS, |(_, most)| *most);
            if fields > most && !FLAT.iter().any(|(flat, _)| *flat == name) {
                _ = writeln!(faults, "{}:{line}: struct {name} has {fields} fields; at most {most}", file.path);
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
    assert!(seen > 200, "only {seen} structs found; does the search still work?");
}

#[test]
fn fields_are_counted_whatever_their_types() {
    let code = "pub(crate) struct Task<F: Fn(u32) -> u32> {\n    #[serde(default, skip)]\n    pub a: BTreeMap<u8, (u8, u8)>,\n    \
                b: Box<dyn Fn(u8, u8) -> u8>,\n    c: [u8; 2]\n}\nstruct Pair(u8, u8);\nstruct Empty {}";
    let file = Source { path: "src/task.rs".to_owned(), code: code.to_owned() };
    assert_eq!(structs(&file), [(1, "Task".to_owned(), 3), (8, "Empty".to_owned(), 0)]);
}

/// Line, name and number of fields of each struct with named fields.
fn structs(file: &Source) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (at, keyword) in file.code.match_indices("struct ") {
        if file.code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let rest = &file.code[at + keyword.len()..];
        let Some(name) = words(rest).next().filter(|name| rest.starts_with(name)) else { continue };
        let Some(open) = rest.find(['{', ';']).filter(|&open| rest.as_bytes()[open] == b'{') else { continue };
        let body = &rest[open + 1..closing_brace(rest, open) - 1];
        found.push((file.code[..at].matches('\n').count() + 1, name.to_owned(), fields(body)));
    }
    found
}

/// How many fields stand between the braces of a struct: parts between commas that are in no brackets.
fn fields(body: &str) -> usize {
    let (mut depth, mut is_empty, mut count) = (0, true, 0);
    for c in body.replace("->", "").chars() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' | '>' => depth -= 1,
            ',' if depth == 0 => {
                count += usize::from(!is_empty);
                is_empty = true;
                continue;
            }
            _ => {}
        }
        is_empty &= c.is_whitespace();
    }
    count + usize::from(!is_empty)
}
