//! The line above, from which a line of the same order takes the fields that it leaves empty.

use crate::decode::paths::Slots;

/// The slots that a line may leave to the line above.
#[derive(Debug, Clone, Default)]
pub(in crate::decode) struct LineSlots {
    /// Slot of the order id.
    pub order: Option<usize>,
    /// Slot of the customer id.
    pub customer: Option<usize>,
    /// Fields that every independent line has: customer, time, currency, type.
    pub own: Vec<usize>,
    /// Other fields that are the same for the whole order: conditions, attributes.
    pub others: Vec<usize>,
}

impl LineSlots {
    fn all(&self) -> impl Iterator<Item = usize> {
        self.own.iter().chain(&self.others).copied()
    }
}

/// The last complete line of a file. In exports of shops, only the first line of an order has customer, time and
/// currency.
#[derive(Debug, Default)]
pub struct Above {
    /// The order id, in its JSON notation.
    order: String,
    /// The values of the slots, in the order of [`LineSlots::all`].
    values: Vec<String>,
}

impl Above {
    /// The line with its empty fields filled in from the line above, and whether any were. A line of another order, or
    /// one that is complete, becomes the line above.
    pub(in crate::decode) fn complete<'a>(&'a mut self, line: &Slots<'a>, of: &LineSlots) -> (Slots<'a>, bool) {
        let value = |slot: usize| line.raw(slot).filter(|json| !is_blank(json));
        let order = of.order.and_then(value).unwrap_or_default();
        if order.is_empty() {
            return (*line, false);
        }
        if self.order == order && self.has_more_than(&value, of) {
            let (mut line, above): (_, &'a Above) = (*line, self);
            for (slot, value_above) in of.all().zip(&above.values) {
                if value(slot).is_none() && !value_above.is_empty() {
                    line.set(slot, value_above);
                }
            }
            return (line, true);
        }
        order.clone_into(&mut self.order);
        self.values.resize(of.own.len() + of.others.len(), String::new());
        for (slot, value_above) in of.all().zip(&mut self.values) {
            value(slot).unwrap_or_default().clone_into(value_above);
        }
        (*line, false)
    }

    /// Whether the line above has a field that this line leaves empty, and the customer does not differ.
    fn has_more_than<'a>(&self, value: &impl Fn(usize) -> Option<&'a str>, of: &LineSlots) -> bool {
        let mut own = of.own.iter().zip(&self.values);
        let is_other = |(slot, above): (&usize, &String)| {
            of.customer == Some(*slot) && value(*slot).is_some_and(|customer| customer != above)
        };
        own.clone().any(|(slot, above)| value(*slot).is_none() && !above.is_empty()) && !own.any(is_other)
    }
}

fn is_blank(json: &str) -> bool {
    json.strip_prefix('"').and_then(|text| text.strip_suffix('"')).is_some_and(|text| text.trim().is_empty())
}
