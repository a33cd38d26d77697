//! The mistakes of a configuration: each names the key, what is wrong with it and what to write instead.

use std::collections::BTreeMap;
use std::fmt;

use super::lines::KeyLines;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The key as it is written, such as `windows[1].period`; the path of the file when the mistake is the whole file.
    pub key: String,
    /// The mistake and, after a semicolon, the remedy.
    pub what: String,
    /// The environment variable that set the key, if one did.
    pub variable: Option<String>,
    /// The line of the key, or of the table that lacks it, counted from 1.
    pub line: Option<usize>,
}

impl ConfigError {
    /// With its line in front.
    fn located(&self) -> String {
        self.line.map_or_else(|| self.to_string(), |line| format!("line {line}: {self}"))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)?;
        self.variable.as_ref().map_or(Ok(()), |name| write!(f, " (set by the environment variable {name})"))
    }
}

/// All mistakes of a configuration, printed one per line; never empty.
///
/// The configuration must be fixed: the program exits with 78 (`EX_CONFIG`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// The mistakes, those of single keys first.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&error.located())?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<ConfigError>,
    /// Warnings about accepted settings that do not do what they seem to.
    warnings: Vec<ConfigError>,
    /// Key to the environment variable that set it.
    variables: BTreeMap<String, String>,
    /// The lines of the file's keys.
    lines: KeyLines,
}

impl Problems {
    /// Sets the lines of the file's keys.
    pub(super) fn in_file(&mut self, text: &str) {
        self.lines = KeyLines::of(text);
    }

    /// Notes that `key` was set by an environment variable.
    pub(super) fn set_by(&mut self, key: String, variable: String) {
        self.variables.insert(key, variable);
    }

    /// Adds a mistake, unless `key` or a table or list that holds it is known to be wrong already.
    pub(super) fn add(&mut self, key: impl Into<String>, what: impl Into<String>) {
        let key = key.into();
        if self.is_wrong(&key) {
            return;
        }
        let error = self.at(key, what.into());
        self.found.push(error);
    }

    /// Adds a warning, which is no mistake.
    pub(super) fn warn(&mut self, key: String, what: &str) {
        let warning = self.at(key, what.to_owned());
        self.warnings.push(warning);
    }

    /// The texts of the warnings.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        self.warnings.iter().map(ConfigError::located)
    }

    /// Adds the variable that set the key, or its line.
    fn at(&self, key: String, what: String) -> ConfigError {
        let variable = self.variables.iter().find(|(set, _)| within(&key, set)).map(|(_, name)| name.clone());
        let line = if variable.is_some() { None } else { self.lines.line(&key) };
        ConfigError { key, what, variable, line }
    }

    /// Adds a mistake between several keys at the first of them, unless a mistake was found at, above or below
    /// any of them.
    pub(super) fn add_between(&mut self, keys: &[&str], what: impl Into<String>) {
        let below = |key: &str| self.found.iter().any(|error| within(&error.key, key));
        if let Some(first) = keys.first()
            && !keys.iter().any(|key| self.is_wrong(key) || below(key))
        {
            self.add(*first, what);
        }
    }

    /// Whether a mistake was found at `key` or at a table or list that contains it.
    pub(super) fn is_wrong(&self, key: &str) -> bool {
        self.found.iter().any(|error| within(key, &error.key))
    }

    /// `value` if there were no mistakes.
    pub(super) fn unless_any<T>(self, value: T) -> Result<T, ConfigErrors> {
        if self.found.is_empty() { Ok(value) } else { Err(ConfigErrors(self.found)) }
    }
}

/// Whether `key` is `outer` or inside it.
fn within(key: &str, outer: &str) -> bool {
    key.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A path in TOML notation: `windows[1].period`, `kafka.options."sasl.password"`.
pub(super) fn key_of<S: AsRef<str>>(path: &[S]) -> String {
    let mut key = String::new();
    for (i, segment) in path.iter().map(AsRef::as_ref).enumerate() {
        let bare = !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        if i > 0 && is_index(segment) {
            key.push_str(&format!("[{segment}]"));
            continue;
        }
        if i > 0 {
            key.push('.');
        }
        key.push_str(&if bare { segment.to_owned() } else { format!("{segment:?}") });
    }
    key
}

/// Whether a segment of a path is a position in a list.
pub(super) fn is_index(segment: &str) -> bool {
    !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_digit())
}

/// The most similar candidate, if any.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `"a", "b" or "c"`.
pub(super) fn one_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("{name:?}")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_paths_as_toml_does() {
        for (path, key) in [
            (vec!["kafka", "brokers"], "kafka.brokers"),
            (vec!["windows", "1", "period"], "windows[1].period"),
            (vec!["kafka", "options", "sasl.password"], "kafka.options.\"sasl.password\""),
            (vec!["kafka", ""], "kafka.\"\""),
        ] {
            assert_eq!(key_of(&path), key);
        }
    }

    #[test]
    fn suggests_only_what_is_near() {
        let known = ["brokers", "group_id", "start"];
        for (word, expected) in
            [("brokrs", Some("brokers")), ("Brokers", Some("brokers")), ("groupid", Some("group_id")), ("topic", None)]
        {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }

    #[test]
    fn one_mistake_hides_what_follows_from_it() {
        let mut problems = Problems::default();
        problems.add("windows[1]", "is no table");
        problems.add("windows[1].period", "is missing");
        problems.add("windows[10].period", "is missing");
        problems.add_between(&["time.history", "windows[1].period"], "is too short");
        problems.add_between(&["clv.window", "windows"], "is no window");
        let keys: Vec<String> = problems.found.into_iter().map(|error| error.key).collect();
        assert_eq!(keys, ["windows[1]", "windows[10].period"]);
    }
}
