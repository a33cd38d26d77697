//! Rejects lists inside a message of which the configuration would read, or count, only one object.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{Custom, Object};
use crate::decode::paths::Slots;
use crate::decode::{Reason, Rejection};
use crate::event::EventType;

impl Custom {
    /// Rejects a list whose objects have separate amounts but share one id: only the first would count.
    pub(super) fn check_ids<'a>(&self, object: &Object<'_, 'a>, elements: &[&'a RawValue]) -> Result<(), Rejection> {
        let is_inside = |name: &str| self.row.slot_of(name).is_some_and(|slot| self.row.paths.is_inside(slot));
        if !is_inside("amount") || elements.len() < 2 {
            return Ok(());
        }
        let mut counts = BTreeMap::new();
        for element in elements {
            let slots = self.row.paths.with_element(&object.slots, element)?;
            let Ok(event_type) = self.called(&slots, object.around)? else { continue };
            let name = match event_type {
                EventType::Order | EventType::Cancel => "order_id",
                EventType::Refund => "refund_id",
                _ => continue,
            };
            let is_shared = !is_inside(name) && !self.row.field(&slots, object.around, name)?.is_blank();
            if is_shared && self.row.chosen(&slots, object.around.outside)?.is_ok() {
                *counts.entry((event_type.name(), name)).or_insert(0) += 1;
            }
        }
        match counts.into_iter().find(|(_, count)| *count > 1) {
            None => Ok(()),
            Some(((event_type, name), count)) => Err(Rejection::new(
                Reason::InvalidValue,
                format!(
                    "{count} objects of {} have amounts of their own but one {name}, so all but the first would count as \
                     duplicates; write a place inside the list as fields.{name}, or the total of the {event_type} as \
                     fields.amount",
                    self.row.paths.list().unwrap_or_default()
                ),
            )),
        }
    }

    /// Rejects a list with further objects after the one that the configuration reads.
    pub(super) fn check_single(&self, slots: &Slots<'_>) -> Result<(), Rejection> {
        let Some((list, slot, number)) = &self.single else { return Ok(()) };
        let objects: Vec<&RawValue> =
            slots.raw(*slot).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        match objects.len() {
            count if count > number + 1 => Err(Rejection::new(
                Reason::InvalidValue,
                format!(
                    "{list} holds {count} objects, of which fields.order_id = \"{list}.{number}...\" reads one alone; write \
                     \"{list}.*...\" there and for the other fields to read each of them"
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// Splits a path inside one element of a list (`lines.0.id`) into the path of the list and the index of the element.
pub(super) fn element_of(place: &str) -> Option<(&str, usize)> {
    let names: Vec<&str> = if place.starts_with('/') { Vec::new() } else { place.split('.').collect() };
    let at = names.iter().skip(1).position(|name| name.bytes().all(|byte| byte.is_ascii_digit()))? + 1;
    let list = names[..at].join(".").len();
    Some((&place[..list], names[at].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_inside_one_element_is_told_from_others() {
        assert_eq!(element_of("data.0.id"), Some(("data", 0)));
        assert_eq!(element_of("a.rows.12.order.id"), Some(("a.rows", 12)));
        for place in ["id", "0.id", "data.id", "/data/0/id", "data.*.id"] {
            assert_eq!(element_of(place), None, "{place}");
        }
    }
}
