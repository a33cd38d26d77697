//! The line of each key in a file.

use std::collections::BTreeMap;

use super::error::key_of;

/// The lines of keys, counted from 1, by the key as written in messages.
#[derive(Debug, Default)]
pub(super) struct KeyLines(BTreeMap<String, usize>);

impl KeyLines {
    /// Finds the tables and keys of a file. Works on lines, so it tolerates invalid TOML.
    pub(super) fn of(text: &str) -> KeyLines {
        let mut lines = KeyLines::default();
        let mut table = Vec::new();
        let mut elements = BTreeMap::<String, usize>::new();
        let mut text_end = None;
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if let Some(end) = text_end {
                text_end = Some(end).filter(|end| !line.contains(*end));
                continue;
            }
            if let Some(header) = line.strip_prefix("[[") {
                table = segments(header.split("]]").next().unwrap_or_default());
                let element = elements.entry(key_of(&table)).or_default();
                table.push(element.to_string());
                *element += 1;
                lines.add(&table, number);
            } else if let Some(header) = line.strip_prefix('[') {
                table = segments(header.split(']').next().unwrap_or_default());
                lines.add(&table, number);
            } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
                lines.add(&[table.clone(), segments(key)].concat(), number);
                text_end = ["\"\"\"", "'''"].into_iter().find(|quotes| value.matches(quotes).count() == 1);
            }
        }
        lines
    }

    /// The line of a key, or of the nearest enclosing table in the file.
    pub(super) fn line(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            if let Some(line) = self.0.get(key) {
                return Some(*line);
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }

    fn add(&mut self, path: &[String], number: usize) {
        self.0.entry(key_of(path)).or_insert(number);
    }
}

/// The parts of a dotted key, without their quotes.
fn segments(key: &str) -> Vec<String> {
    let mut segments = vec![String::new()];
    let mut quote = None;
    for character in key.trim().chars() {
        match (quote, character) {
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            (None, '.') => segments.push(String::new()),
            (None, blank) if blank.is_whitespace() => {}
            (_, other) => segments.last_mut().into_iter().for_each(|segment| segment.push(other)),
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_every_spelling() {
        let text = "# brokers = 1\n[kafka]\nbrokers = \"a\"\nstart = 2026-01-02T03:04:05Z\noptions = { \"sasl.password\" = \"x\" }\n\n\
                    [[windows]]\nname = \"a\"\n[[ windows ]]\nperiod = \"b\"\n\n[sources.orders.mapping]\nfields.time = '''\n\
                    x = 1\n'''\n\"types\" = {}\n";
        let lines = KeyLines::of(text);
        for (key, line) in [
            ("kafka.brokers", Some(3)),
            ("kafka.options.\"sasl.password\"", Some(5)),
            ("kafka.group_id", Some(2)),
            ("windows[0].name", Some(8)),
            ("windows[1].name", Some(9)),
            ("windows[1].period", Some(10)),
            ("sources.orders.mapping.fields.time", Some(13)),
            ("sources.orders.mapping.types.\"A\"", Some(16)),
            ("sources.orders.mapping.where", Some(12)),
            ("clv.window", None),
        ] {
            assert_eq!(lines.line(key), line, "{key}");
        }
        assert_eq!(KeyLines::of("[kafka").line("kafka.brokers"), Some(1));
    }
}
