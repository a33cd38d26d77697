//! `mapping.where` selects the messages that count: paths, and values that must or must not be there.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap as _, SerializeSeq as _, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::fields::Value;
use super::options::{OptionError, Options};
use super::paths::{Paths, Slots, segments};
use super::presets::slot;
use super::{Rejection, Skip};
use super::{decimals, json};

/// Values that are required or forbidden at one path.
///
/// In TOML `["paid", "shipped"]`, `"paid"`, `{ not = ["test"] }` or `{ is = ["paid"], not = ["test"] }`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// One of these is required, unless the list is empty.
    pub is: Vec<String>,
    /// None of these is allowed.
    pub not: Vec<String>,
    /// Whether text at the path is a comma-separated list, as shops write tags.
    has_commas: bool,
}

impl Condition {
    /// Whether a value satisfies the condition. A missing field, null and empty text are the value "".
    fn holds(&self, json: Option<&str>) -> bool {
        let json = json.unwrap_or_default();
        match json.as_bytes().first() {
            // One matching element of a list is enough, for required and for forbidden values.
            Some(b'[') => {
                let elements: Vec<&RawValue> = serde_json::from_str(json).unwrap_or_default();
                let holds = |wanted: &String| match elements.as_slice() {
                    [] => wanted.is_empty(),
                    elements => elements.iter().any(|element| is(element.get(), wanted)),
                };
                self.decide(holds)
            }
            Some(b'"') if self.has_commas => {
                let value = json::spelled(json);
                let tags = || value.as_text().unwrap_or_default().split(',').map(str::trim);
                self.decide(|wanted| is(json, wanted) || (!wanted.is_empty() && tags().any(|tag| tag == wanted)))
            }
            _ => self.decide(|wanted| is(json, wanted)),
        }
    }

    fn decide(&self, stands: impl Fn(&String) -> bool) -> bool {
        (self.is.is_empty() || self.is.iter().any(&stands)) && !self.not.iter().any(&stands)
    }
}

/// Whether a JSON value equals the configured text.
fn is(json: &str, wanted: &str) -> bool {
    let value = json::spelled(json);
    match value.as_text() {
        // Columns of type CHAR are padded with blanks.
        Some(text) => text == wanted || text.trim_end_matches(' ') == wanted,
        None if matches!(json, "" | "null") => wanted.is_empty(),
        None => {
            json == wanted || decimals::unwrapped(json).as_ref().and_then(Value::as_text).is_some_and(|is| is == wanted)
        }
    }
}

/// Conditions on values of a message.
#[derive(Debug, Clone, Default)]
pub(super) struct Conditions(Vec<(usize, Condition)>);

impl Conditions {
    /// Reads the conditions of the options and adds their paths to `paths`.
    pub fn new(options: &Options, paths: &mut Paths) -> Result<Conditions, OptionError> {
        let mut conditions = Vec::new();
        for (place, condition) in &options.only {
            let option = format!("where.{place:?}");
            if condition.is.is_empty() && condition.not.is_empty() {
                let what = "names no value; write such as [\"paid\"] or { not = [\"test\"] }";
                return Err(OptionError::new(option, what));
            }
            let has_commas = segments(place).last().is_some_and(|name| name.eq_ignore_ascii_case("tags"));
            conditions.push((slot(paths, &option, place)?, Condition { has_commas, ..condition.clone() }));
        }
        Ok(Conditions(conditions))
    }

    /// Whether there are no conditions.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The slots of the conditions.
    pub fn slots(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|(slot, _)| *slot)
    }

    /// Whether all conditions hold.
    pub fn hold(&self, slots: &Slots<'_>) -> bool {
        self.0.iter().all(|(slot, condition)| condition.holds(slots.raw(*slot)))
    }

    /// Returns why a message is skipped if a condition does not hold. A missing field has a reason of its own, because
    /// its name may be mistyped.
    pub fn check(&self, slots: &Slots<'_>) -> Result<(), Skip> {
        self.check_beside(slots, None)
    }

    /// Like [`Conditions::check`]; fields that the message lacks are looked up in `beside`, the surrounding object.
    pub fn check_beside(&self, slots: &Slots<'_>, beside: Option<&Slots<'_>>) -> Result<(), Skip> {
        let find = |slot: usize| match beside {
            Some(beside) if !slots.is_there(slot) => beside,
            _ => slots,
        };
        if self.0.iter().all(|(slot, condition)| condition.holds(find(*slot).raw(*slot))) {
            return Ok(());
        }
        let is_absent = |(slot, condition): &(usize, Condition)| {
            !find(*slot).is_there(*slot) && !condition.is.is_empty() && !condition.holds(None)
        };
        Err(if self.0.iter().any(is_absent) { Skip::NoSuchField } else { Skip::Filtered })
    }
}

/// Conditions for formats that do not read their messages with [`Paths`].
#[derive(Debug, Clone)]
pub(super) struct Filter {
    paths: Paths,
    conditions: Conditions,
}

impl Filter {
    /// The filter of the options; `None` without conditions.
    pub fn new(options: &Options) -> Result<Option<Box<Filter>>, OptionError> {
        let mut paths = Paths::default();
        let conditions = Conditions::new(options, &mut paths)?;
        Ok((!conditions.is_empty()).then(|| Box::new(Filter { paths, conditions })))
    }

    /// The paths of the conditions, by slot.
    pub fn places(&self) -> impl Iterator<Item = (usize, &str)> {
        self.paths.places().enumerate()
    }

    /// Like [`Filter::check`], for values that have already been extracted.
    pub fn check_slots(&self, slots: &Slots<'_>) -> Result<(), Skip> {
        self.conditions.check(slots)
    }

    /// Returns why a message is skipped, if it is. Fields that it lacks are looked up in `around`, the surrounding
    /// object.
    pub fn check(&self, bytes: &[u8], around: Option<&[u8]>) -> Result<Result<(), Skip>, Rejection> {
        let slots = self.paths.read(bytes)?;
        if slots.leads_through_text()
            && let Some(opened) = std::str::from_utf8(bytes).ok().and_then(|json| self.paths.opened(json))
        {
            return self.check(opened.as_bytes(), around);
        }
        let around = around.map(|around| self.paths.read(around)).transpose()?;
        Ok(self.conditions.check_beside(&slots, around.as_ref()))
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.not.is_empty() {
            let mut list = serializer.serialize_seq(Some(self.is.len()))?;
            self.is.iter().try_for_each(|value| list.serialize_element(value))?;
            return list.end();
        }
        let mut table = serializer.serialize_map(None)?;
        if !self.is.is_empty() {
            table.serialize_entry("is", &self.is)?;
        }
        table.serialize_entry("not", &self.not)?;
        table.end()
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Condition, D::Error> {
        deserializer.deserialize_any(Reading { tables: true, lists: true })
    }
}

/// Deserializes a condition: a table of two lists, a list, or one value, depending on what is allowed here.
struct Reading {
    tables: bool,
    lists: bool,
}

impl<'de> Visitor<'de> for Reading {
    type Value = Condition;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.tables, self.lists) {
            (true, _) => "a list of values such as [\"paid\"], or { not = [\"test\"] }",
            (false, true) => "a list of values",
            (false, false) => "text, a whole number or a boolean",
        })
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<Condition, E> {
        Ok(Condition { is: vec![value.to_owned()], ..Condition::default() })
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Condition, E> {
        self.visit_str(&value.to_string())
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Condition, E> {
        self.visit_str(&value.to_string())
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Condition, E> {
        self.visit_str(&value.to_string())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Condition, A::Error> {
        if !self.lists {
            return Err(de::Error::invalid_type(de::Unexpected::Seq, &self));
        }
        let mut is = Vec::new();
        while let Some(value) = list.next_element_seed(Reading { tables: false, lists: false })? {
            is.extend(value.is);
        }
        Ok(Condition { is, ..Condition::default() })
    }
    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Condition, A::Error> {
        if !self.tables {
            return Err(de::Error::invalid_type(de::Unexpected::Map, &self));
        }
        let mut condition = Condition::default();
        while let Some(key) = table.next_key::<String>()? {
            let values = table.next_value_seed(Reading { tables: false, lists: true })?.is;
            match key.as_str() {
                "is" => condition.is = values,
                "not" => condition.not = values,
                other => return Err(de::Error::unknown_field(other, &["is", "not"])),
            }
        }
        Ok(condition)
    }
}

impl<'de> DeserializeSeed<'de> for Reading {
    type Value = Condition;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Condition, D::Error> {
        deserializer.deserialize_any(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(toml: &str) -> Options {
        toml::from_str(&format!("[where]\n{toml}")).unwrap()
    }

    fn check(toml: &str, message: &str) -> Result<(), Skip> {
        Filter::new(&options(toml)).unwrap().unwrap().check(message.as_bytes(), None).unwrap()
    }

    #[test]
    fn values_must_stand_there_or_must_not() {
        for (toml, message, expected) in [
            ("s = [\"paid\", \"shipped\"]", r#"{"s":"paid"}"#, Ok(())),
            ("s = \"paid\"", r#"{"s":"paid"}"#, Ok(())),
            ("s = [\"paid\"]", r#"{"s":"open"}"#, Err(Skip::Filtered)),
            ("s = [\"paid\"]", r#"{"state":"paid"}"#, Err(Skip::NoSuchField)),
            ("s = [\"paid\"]", r#"{"s":null}"#, Err(Skip::Filtered)),
            ("s = { not = [\"test\"] }", r#"{"s":"paid"}"#, Ok(())),
            ("s = { not = [\"test\"] }", r#"{}"#, Ok(())),
            ("s = { not = \"test\" }", r#"{"s":"test"}"#, Err(Skip::Filtered)),
            ("test = { not = [true] }", r#"{"test":true}"#, Err(Skip::Filtered)),
            ("test = false", r#"{"test":false}"#, Ok(())),
            ("n = [7]", r#"{"n":7}"#, Ok(())),
            ("n = [7]", r#"{"n":"7"}"#, Ok(())),
            ("s = [\"\"]", r#"{}"#, Ok(())),
            ("s = [\"\"]", r#"{"s":null}"#, Ok(())),
            ("s = [\"\"]", r#"{"s":""}"#, Ok(())),
            ("s = { not = [\"\"] }", r#"{"s":null}"#, Err(Skip::Filtered)),
            ("s = { not = [\"\"] }", r#"{"s":"x"}"#, Ok(())),
            ("tags = [\"vip\"]", r#"{"tags":["new","vip"]}"#, Ok(())),
            ("tags = [\"vip\"]", r#"{"tags":[]}"#, Err(Skip::Filtered)),
            ("tags = { not = [\"test\"] }", r#"{"tags":["new","test"]}"#, Err(Skip::Filtered)),
            ("tags = { not = [\"test\"] }", r#"{"tags":[]}"#, Ok(())),
            ("\"c.tags\" = { not = [\"staff\"] }", r#"{"c":{"tags":"vip, staff"}}"#, Err(Skip::Filtered)),
            ("\"c.tags\" = { not = [\"staff\"] }", r#"{"c":{"tags":"vip, staffing"}}"#, Ok(())),
            ("\"c.tags\" = { not = [\"staff\"] }", r#"{"c":{"tags":""}}"#, Ok(())),
            ("tags = [\"vip\"]", r#"{"tags":"new,vip"}"#, Ok(())),
            ("tags = [\"new, vip\"]", r#"{"tags":"new, vip"}"#, Ok(())),
            ("tags = { not = [\"\"] }", r#"{"tags":"new,"}"#, Ok(())),
            ("city = [\"Bern\"]", r#"{"city":"Bern, Wabern"}"#, Err(Skip::Filtered)),
            ("s = { is = [\"a\", \"b\"], not = [\"b\"] }", r#"{"s":"b"}"#, Err(Skip::Filtered)),
            ("s = \"a\"\n\"o.t\" = { not = [\"x\"] }", r#"{"s":"a","o":{"t":"x"}}"#, Err(Skip::Filtered)),
            ("s = \"a\"\n\"o.t\" = { not = [\"x\"] }", r#"{"s":"a","o":{"t":"y"}}"#, Ok(())),
        ] {
            assert_eq!(check(toml, message), expected, "{toml}: {message}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_and_the_rest_survives_being_printed() {
        for toml in ["s = { nt = [\"a\"] }", "s = [[\"a\"]]", "s = 1.5", "s = { not = { not = [\"a\"] } }"] {
            let read = toml::from_str::<Options>(&format!("[where]\n{toml}"));
            assert!(read.is_err() || Filter::new(&read.unwrap()).is_err(), "{toml}");
        }
        assert!(Filter::new(&options("s = []")).is_err());
        for toml in ["s = [\"a\", \"b\"]", "s = { not = [\"a\"] }", "s = { is = [\"a\"], not = [\"b\"] }"] {
            let read = options(toml);
            let printed = toml::to_string(&read).unwrap();
            assert_eq!(toml::from_str::<Options>(&printed).unwrap(), read, "{printed}");
        }
    }
}
