//! Recognizes JSON files without events whose rows are arranged in another way.

use serde_json::{Map, Value};

/// The layout of a file without events, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Shape {
    #[error("the file is one JSON object around the list {0:?}; take the list out, such as with jq -c '.{0}[]' FILE")]
    Wrapped(String),
    #[error(
        "the file is one JSON object with a list or object for each column; write one object for each row (pandas: \
         to_json(..., orient=\"records\", lines=True))"
    )]
    ByColumn,
    #[error(
        "the file is one JSON object with an object for each row, by its index; write one object for each row in a list \
         (pandas: to_json(..., orient=\"records\", lines=True)), or take them out with jq -c '.[]' FILE"
    )]
    ByIndex,
    #[error(
        "the file is one JSON object that names the columns apart from the rows; write one object for each row (pandas: \
         to_json(..., orient=\"records\", lines=True))"
    )]
    Split,
    #[error(
        "the rows of the file are JSON lists or single values, which do not name their columns; write one object for each row (pandas: \
         to_json(..., orient=\"records\", lines=True)), or a CSV file with a header"
    )]
    Lists,
}

/// The first value of a file, kept until an event is found.
#[derive(Debug, Default)]
pub(super) struct First {
    value: Vec<u8>,
    count: u64,
}

impl First {
    /// Records one more value; `any` is whether there was an event.
    pub fn note(&mut self, value: &[u8], any: bool) {
        self.count += 1;
        if any {
            self.value.clear();
        } else if self.count == 1 {
            self.value.extend_from_slice(value);
        }
    }

    /// Returns the layout of a file without events as an error, if it is recognized.
    pub fn check(&self) -> Result<(), Shape> {
        match serde_json::from_slice(&self.value) {
            Ok(Value::Object(object)) if self.count == 1 => shape(&object).map_or(Ok(()), Err),
            Ok(Value::Array(row)) if !row.iter().any(Value::is_object) => Err(Shape::Lists),
            // A cell of the first row: the first list of a file is read value by value.
            Ok(Value::Number(_) | Value::Bool(_)) => Err(Shape::Lists),
            Ok(Value::String(text)) if !text.trim_start().starts_with(['{', '[']) => Err(Shape::Lists),
            _ => Ok(()),
        }
    }
}

fn shape(object: &Map<String, Value>) -> Option<Shape> {
    let is_plain = |value: &Value| !value.is_object() && !value.is_array();
    let is_list_of = |value: &Value, is: &dyn Fn(&Value) -> bool| {
        value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(is))
    };
    if object.contains_key("columns") && object.get("data").is_some_and(|data| is_list_of(data, &Value::is_array)) {
        return Some(Shape::Split);
    }
    if let Some((name, _)) = object.iter().find(|(_, value)| is_list_of(value, &Value::is_object)) {
        return Some(Shape::Wrapped(name.clone()));
    }
    let rows: Option<Vec<_>> = object.values().map(Value::as_object).collect();
    if let Some((first, rest)) = rows.as_deref().and_then(<[_]>::split_first) {
        let is_alike = |row: &&Map<String, Value>| row.len() == first.len() && row.keys().eq(first.keys());
        let is_table = !first.is_empty() && first.values().all(is_plain) && rest.iter().all(is_alike);
        let is_number = |key: &String| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit());
        return match (is_table, first.keys().all(is_number), object.keys().all(is_number)) {
            (false, ..) => None,
            (true, true, _) => Some(Shape::ByColumn),
            (true, false, true) => Some(Shape::ByIndex),
            // Rows by name or columns by name; in any case, several objects with the same fields are not an event.
            (true, false, false) => (!rest.is_empty()).then_some(Shape::ByIndex),
        };
    }
    let is_column = |value: &Value| is_list_of(value, &is_plain);
    (object.len() > 1 && object.values().all(is_column)).then_some(Shape::ByColumn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_laid_out_otherwise_are_named() {
        let check = |values: &[&str]| {
            let mut first = First::default();
            values.iter().for_each(|value| first.note(value.as_bytes(), false));
            first.check().err()
        };
        for (json, shape) in [
            (r#"{"orders":[{"a":1}],"page":1}"#, Some(Shape::Wrapped("orders".to_owned()))),
            (r#"{"schema":{"fields":[]},"data":[{"a":1}]}"#, Some(Shape::Wrapped("data".to_owned()))),
            (r#"{"columns":["a","b"],"index":[0],"data":[[1,2]]}"#, Some(Shape::Split)),
            (r#"{"a":{"0":1,"1":2},"b":{"0":3,"1":4}}"#, Some(Shape::ByColumn)),
            (r#"{"a":{"0":1}}"#, Some(Shape::ByColumn)),
            (r#"{"a":[1,2],"b":[3,4]}"#, Some(Shape::ByColumn)),
            (r#"{"0":{"a":1,"b":2},"1":{"a":3,"b":4}}"#, Some(Shape::ByIndex)),
            (r#"{"o-1":{"a":1,"b":2},"o-2":{"a":3,"b":4}}"#, Some(Shape::ByIndex)),
            (r#"[1,"a"]"#, Some(Shape::Lists)),
            ("1", Some(Shape::Lists)),
            (r#""a""#, Some(Shape::Lists)),
            (r#""{\"a\":1}""#, None),
            (r#"{"order":{"a":1}}"#, None),
            (r#"{"order":{"a":1},"buyer":{"b":2}}"#, None),
            (r#"{"a":1,"b":"x"}"#, None),
            ("", None),
        ] {
            assert_eq!(check(&[json]), shape, "{json}");
        }
        assert_eq!(check(&["[1,2]", "[3,4]"]), Some(Shape::Lists));
        assert_eq!(check(&[r#"{"a":[1],"b":[2]}"#, "{}"]), None);
    }
}
