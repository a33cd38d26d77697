//! Extracts values at known paths of a JSON document in one pass, without building a tree.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::Value;
use super::json;
use super::{Reason, Rejection};

/// Maximum number of paths per document.
pub(super) const MAX_SLOTS: usize = 40;

/// Paths in a document, each with a slot number.
#[derive(Debug, Clone, Default)]
pub(super) struct Paths {
    root: Node,
    slots: Vec<String>,
    /// The list whose elements are read one by one, if a path contains `*`.
    each: Option<Box<Each>>,
    /// Whether values equal to [`UNAVAILABLE`] count as absent.
    hides_unavailable: bool,
}

/// Debezium's placeholder for a large value that a change did not touch and the database does not send
/// (`unavailable.value.placeholder`): as text, as bytes, and as a list.
const UNAVAILABLE: [&str; 3] = [
    r#""__debezium_unavailable_value""#,
    r#""X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==""#,
    r#"["__debezium_unavailable_value"]"#,
];

/// A list of objects, and the paths inside each of them.
#[derive(Debug, Clone)]
struct Each {
    /// Path of the list.
    place: String,
    /// Slot of the list.
    list: usize,
    /// Paths relative to an element.
    inner: Paths,
    /// For each slot of `inner`, the slot among all slots.
    slots: Vec<usize>,
}

/// A node of the tree of paths.
#[derive(Debug, Clone, Default)]
struct Node {
    /// Slot of the value here, if a path ends here.
    slot: Option<usize>,
    children: Vec<(Box<str>, Node)>,
}

/// The values at the paths of [`Paths`], as JSON text; empty text if there is no value. The flags are those of
/// [`Slots::leads_through_text`] and [`Slots::lacks_unavailable`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Slots<'a>([&'a str; MAX_SLOTS], bool, bool);

impl<'a> Slots<'a> {
    pub fn empty() -> Slots<'a> {
        Slots([""; MAX_SLOTS], false, false)
    }

    /// Sets the JSON of a slot.
    pub fn set(&mut self, slot: usize, json: &'a str) {
        self.0[slot] = json;
    }

    /// The value of a slot, as text or number.
    pub fn value(&self, slot: usize) -> Value<'a> {
        json::spelled(self.0[slot])
    }

    /// The first value of these slots that is neither null nor blank text; absent if there is none.
    pub fn first_of<const N: usize>(&self, slots: [usize; N]) -> Value<'a> {
        slots
            .into_iter()
            .map(|slot| self.value(slot).unless_blank())
            .find(|value| *value != Value::Absent)
            .unwrap_or_default()
    }

    /// The slots, with the values of another document in those of `slots` that have none here.
    pub fn or(mut self, other: &Slots<'a>, slots: &[usize]) -> Slots<'a> {
        for &slot in slots {
            if self.raw(slot).is_none() {
                self.0[slot] = other.0[slot];
            }
        }
        self
    }

    /// The JSON of a slot; `None` if it is missing or null.
    pub fn raw(&self, slot: usize) -> Option<&'a str> {
        Some(self.0[slot]).filter(|json| !json.is_empty() && *json != "null")
    }

    /// Whether a path leads into text, which may contain JSON.
    pub fn leads_through_text(&self) -> bool {
        self.1
    }

    /// Whether a value was removed because the database did not send it.
    pub fn lacks_unavailable(&self) -> bool {
        self.2
    }

    /// Removes the values that the database did not send.
    fn hide_unavailable(&mut self) {
        for json in &mut self.0 {
            if json.len() >= UNAVAILABLE[0].len() && UNAVAILABLE.contains(json) {
                *json = "";
                self.2 = true;
            }
        }
    }

    /// Whether a slot has a value, null included.
    pub fn is_there(&self, slot: usize) -> bool {
        !self.0[slot].is_empty()
    }

    /// Whether the value is `true`, as a boolean or as text.
    pub fn is_true(&self, slot: usize) -> bool {
        matches!(self.0[slot], "true" | "\"true\"")
    }

    /// Whether the value is `false`, as a boolean or as text.
    pub fn is_false(&self, slot: usize) -> bool {
        matches!(self.0[slot], "false" | "\"false\"")
    }
}

impl Paths {
    /// These paths, with slots 0, 1, ... in order.
    pub fn of(places: &[&str]) -> Paths {
        let mut paths = Paths::default();
        for place in places {
            paths.add(place);
        }
        paths
    }

    /// No paths yet; values that the database did not send will count as absent.
    pub fn hiding_unavailable() -> Paths {
        Paths { hides_unavailable: true, ..Paths::default() }
    }

    /// The paths in slot order.
    pub fn places(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().map(String::as_str)
    }

    /// Adds a path and returns its slot. A path is names separated by dots, such as `items.0.price` for the price of
    /// the first item, or, for names with dots, a JSON pointer such as `/order.total/amount` (RFC 6901). `None` if
    /// there are too many paths.
    pub fn add(&mut self, place: &str) -> Option<usize> {
        if let Some(known) = self.slots.iter().position(|known| known == place) {
            return Some(known);
        }
        if let Some((list, inside)) = in_each(place) {
            return self.add_inside(place, list, inside);
        }
        let slot = self.reserve(place)?;
        let mut node = &mut self.root;
        for segment in segments(place) {
            let at = match node.children.iter().position(|(name, _)| **name == *segment) {
                Some(at) => at,
                None => {
                    node.children.push((segment.into(), Node::default()));
                    node.children.len() - 1
                }
            };
            node = &mut node.children[at].1;
        }
        node.slot = Some(slot);
        Some(slot)
    }

    fn reserve(&mut self, place: &str) -> Option<usize> {
        let slot = self.slots.len();
        (slot < MAX_SLOTS).then(|| self.slots.push(place.to_owned())).map(|()| slot)
    }

    /// Adds a path inside each element of a list.
    fn add_inside(&mut self, place: &str, list: &str, inside: &str) -> Option<usize> {
        if self.each.is_none() {
            let slot = self.add(list)?;
            let (place, inner) = (list.to_owned(), Paths::default());
            self.each = Some(Box::new(Each { place, list: slot, inner, slots: Vec::new() }));
        }
        let slot = self.reserve(place)?;
        let each = self.each.as_mut().filter(|each| each.place == list)?;
        each.inner.add(inside)?;
        each.slots.push(slot);
        Some(slot)
    }

    /// Path of the list whose elements are read one by one, if any.
    pub fn list(&self) -> Option<&str> {
        self.each.as_ref().map(|each| each.place.as_str())
    }

    /// The JSON of the list whose elements are read one by one, and its elements; `None` if no path contains `*`.
    pub fn elements<'a>(&self, slots: &Slots<'a>) -> Result<Option<(&'a str, Vec<&'a RawValue>)>, Rejection> {
        let Some(each) = &self.each else { return Ok(None) };
        let Some(list) = slots.raw(each.list) else { return Ok(Some(("", Vec::new()))) };
        let wrong = |_| Rejection::new(Reason::WrongType, format!("{} must be a list of objects", each.place));
        serde_json::from_str(list).map(|elements| Some((list, elements))).map_err(wrong)
    }

    /// The slots of one element, together with those outside the list.
    pub fn with_element<'a>(&self, slots: &Slots<'a>, element: &'a RawValue) -> Result<Slots<'a>, Rejection> {
        let mut slots = *slots;
        if let Some(each) = &self.each {
            let found = each.inner.read(element.get().as_bytes())?;
            for (inner, outer) in each.slots.iter().enumerate() {
                slots.0[*outer] = found.0[inner];
            }
            slots.1 |= found.1;
        }
        if self.hides_unavailable {
            slots.hide_unavailable();
        }
        Ok(slots)
    }

    /// Extracts the values from an object.
    pub fn read<'a>(&self, bytes: &'a [u8]) -> Result<Slots<'a>, Rejection> {
        let mut slots = Slots::empty();
        let seed = Walk { node: &self.root, slots: &mut slots };
        // With text that is known to be UTF-8, the parser does not check each string again.
        let read = match std::str::from_utf8(bytes) {
            Ok(text) => walk(serde_json::Deserializer::from_str(text), seed),
            Err(_) => walk(serde_json::Deserializer::from_slice(bytes), seed),
        };
        json::checked(bytes, read)?;
        slots.1 |= self.each.as_ref().is_some_and(|each| slots.0[each.list].starts_with('"'));
        if self.hides_unavailable {
            slots.hide_unavailable();
        }
        Ok(slots)
    }

    /// Whether a slot belongs to a path inside each element of a list.
    pub fn is_inside(&self, slot: usize) -> bool {
        self.each.as_ref().is_some_and(|each| each.slots.contains(&slot))
    }

    /// Whether a path leads into a nested value.
    pub fn has_nested_places(&self) -> bool {
        self.each.is_some() || self.root.children.iter().any(|(_, child)| !child.children.is_empty())
    }

    /// The JSON with strings replaced by the JSON that they contain, wherever a path leads into one; `None` if there is
    /// no such string.
    pub fn opened(&self, json: &str) -> Option<String> {
        self.opened_below(&self.root, json)
    }

    fn opened_below(&self, node: &Node, json: &str) -> Option<String> {
        let inner = self.each.as_ref().filter(|each| node.slot == Some(each.list)).map(|each| &each.inner);
        if node.children.is_empty() && inner.is_none() {
            return None;
        }
        if json.starts_with('"') {
            let text = json::in_a_string(json)?;
            serde_json::from_str::<IgnoredAny>(&text).ok()?;
            return Some(self.opened_below(node, &text).unwrap_or(text));
        }
        let child = |name: &str| node.children.iter().find(|(known, _)| **known == *name).map(|(_, child)| child);
        let mut pieces: Vec<(&str, String)> = Vec::new();
        if json.starts_with('[') {
            let elements: Vec<&RawValue> = serde_json::from_str(json).ok()?;
            for (index, element) in elements.into_iter().enumerate() {
                let own = child(&index.to_string()).and_then(|child| self.opened_below(child, element.get()));
                let opened = own.or_else(|| inner?.opened(element.get()));
                pieces.extend(opened.map(|opened| (element.get(), opened)));
            }
        } else {
            for (name, value) in serde_json::from_str::<json::Members<'_>>(json).ok()?.0 {
                let opened = child(&name).and_then(|child| self.opened_below(child, value.get()));
                pieces.extend(opened.map(|opened| (value.get(), opened)));
            }
        }
        // Backwards, so that the positions of earlier pieces stay valid.
        pieces.iter().rev().try_fold(None, |text: Option<String>, (piece, with)| {
            let begin = (piece.as_ptr() as usize).checked_sub(json.as_ptr() as usize)?;
            let mut text = text.unwrap_or_else(|| json.to_owned());
            text.replace_range(begin..begin + piece.len(), with);
            Some(Some(text))
        })?
    }
}

/// Splits a path inside each element of a list (`lines.*.id`) into the path of the list and the path inside an element.
pub(super) fn in_each(place: &str) -> Option<(&str, &str)> {
    if place.starts_with('/') { None } else { place.split_once(".*.") }
}

/// The names that make up a path.
pub(super) fn segments(place: &str) -> Vec<String> {
    match place.strip_prefix('/') {
        Some(pointer) => pointer.split('/').map(|name| name.replace("~1", "/").replace("~0", "~")).collect(),
        None => place.split('.').map(str::to_owned).collect(),
    }
}

fn walk<'de, R: serde_json::de::Read<'de>>(
    mut json: serde_json::Deserializer<R>,
    seed: Walk<'_, '_, 'de>,
) -> serde_json::Result<bool> {
    let is_object = seed.deserialize(&mut json)?;
    json.end().map(|()| is_object)
}

/// Extracts the values below a node; returns whether the document is an object.
struct Walk<'p, 's, 'de> {
    node: &'p Node,
    slots: &'s mut Slots<'de>,
}

impl<'de> Walk<'_, '_, 'de> {
    /// Extracts the value of a node with the given reader.
    fn take<E: serde::de::Error>(
        &mut self,
        node: &Node,
        read: impl FnOnce(Walk<'_, '_, 'de>) -> Result<Option<&'de RawValue>, E>,
    ) -> Result<(), E> {
        let raw = read(Walk { node, slots: self.slots })?;
        if let (Some(slot), Some(raw)) = (node.slot, raw) {
            self.slots.0[slot] = raw.get();
            if !node.children.is_empty() {
                // Other paths lead into this value.
                let inner = Walk { node, slots: self.slots };
                walk(serde_json::Deserializer::from_str(raw.get()), inner).map_err(E::custom)?;
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_, 'de> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_, 'de> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<bool, A::Error> {
        let node = self.node;
        while let Some(child) = map.next_key_seed(Name(node))? {
            match child {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(child) => self.take(child, |inner| match inner.node.slot {
                    Some(_) => map.next_value().map(Some),
                    None => map.next_value_seed(inner).map(|_| None),
                })?,
            }
        }
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<bool, A::Error> {
        let node = self.node;
        for index in 0_usize.. {
            let child = node.children.iter().find(|(name, _)| name.parse() == Ok(index)).map(|(_, child)| child);
            let Some(child) = child else {
                if list.next_element::<IgnoredAny>()?.is_none() {
                    break;
                }
                continue;
            };
            let mut more = false;
            self.take(child, |inner| {
                let raw = match inner.node.slot {
                    Some(_) => list.next_element()?,
                    None => {
                        more = list.next_element_seed(inner)?.is_some();
                        None
                    }
                };
                more |= raw.is_some();
                Ok(raw)
            })?;
            if !more {
                break;
            }
        }
        Ok(false)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }
    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }
    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }
    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }
    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        self.slots.1 |= text.trim_ascii_start().starts_with(['{', '[', '"']);
        Ok(false)
    }
    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }
}

/// Finds the child node with a name.
struct Name<'p>(&'p Node);

impl<'de, 'p> DeserializeSeed<'de> for Name<'p> {
    type Value = Option<&'p Node>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<'p> Visitor<'_> for Name<'p> {
    type Value = Option<&'p Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.children.iter().find(|(child, _)| **child == *name).map(|(_, node)| node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(places: &[&str], json: &str) -> Vec<String> {
        let paths = Paths::of(places);
        let slots = paths.read(json.as_bytes()).unwrap();
        (0..places.len()).map(|slot| slots.0[slot].to_owned()).collect()
    }

    #[test]
    fn values_are_found_at_any_depth_and_in_lists() {
        let json = r#"{"x":[1,{"y":2}],"a":{"b":{"c":"d\"e"},"skip":{"b":1}},"items":[{"price":"1.50"},{"price":3}],"n":null}"#;
        let places = ["a.b.c", "items.0.price", "items.1.price", "items.2.price", "n", "none", "x.1", "x.1.y"];
        assert_eq!(found(&places, json), [r#""d\"e""#, "\"1.50\"", "3", "", "null", "", r#"{"y":2}"#, "2"]);
    }

    #[test]
    fn the_elements_of_a_list_are_read_one_by_one() {
        let mut paths = Paths::default();
        let slots = ["at", "rows.*.id", "rows.*.price.total"].map(|place| paths.add(place).unwrap());
        assert_eq!(paths.add("others.*.id"), None, "one list is read");
        assert_eq!(paths.list(), Some("rows"));
        let json = r#"{"rows":[{"id":1,"price":{"total":"2"}},{"id":3}],"at":4}"#;
        let read = paths.read(json.as_bytes()).unwrap();
        let (list, elements) = paths.elements(&read).unwrap().unwrap();
        assert_eq!(list, &json[8..49]);
        let inside = |element: &&'static RawValue| paths.with_element(&read, element).unwrap();
        let found: Vec<_> = elements.iter().map(inside).map(|element| slots.map(|slot| element.0[slot])).collect();
        assert_eq!(found, [["4", "1", "\"2\""], ["4", "3", ""]]);
        let refused = paths.read(br#"{"rows":{"id":1}}"#).and_then(|read| paths.elements(&read).map(|_| ()));
        assert_eq!(refused.unwrap_err().to_string(), "wrong_type: rows must be a list of objects");
        assert!(Paths::of(&["a"]).elements(&read).unwrap().is_none());
    }

    #[test]
    fn pointers_reach_names_with_dots_and_slashes() {
        let json = r#"{"order.total":{"a/b":7},"a":{"~":8}}"#;
        assert_eq!(found(&["/order.total/a~1b", "/a/~0"], json), ["7", "8"]);
    }

    #[test]
    fn what_is_no_object_or_no_json_is_refused() {
        let paths = Paths::of(&["a.b"]);
        for (bytes, reason) in [
            (&b"[1]"[..], "not_an_object"),
            (b"7", "not_an_object"),
            (b"null", "not_an_object"),
            (b"{\"a\":{\"b\":1}", "invalid_json"),
            (b"{} {}", "invalid_json"),
            (b"{\"a\":\"\xff\"}", "not_utf8"),
        ] {
            let error = paths.read(bytes).unwrap_err();
            assert_eq!(error.reason.label(), reason, "{}", String::from_utf8_lossy(bytes));
        }
        assert!(paths.read(b"{\"a\":7,\"b\":[[[]]]}").is_ok(), "another type on the way is an absent value");
    }
}
