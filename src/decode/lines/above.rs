//! The line above, of which a line of the same order may leave fields out.

use crate::decode::paths::Slots;

/// Which slots a line may leave to the line above.
#[derive(Debug, Clone, Default)]
pub(in crate::decode) struct LineSlots {
    /// That of the order id.
    pub order: Option<usize>,
    /// That of the customer id.
    pub customer: Option<usize>,
    /// Those that every line of its own has: customer, time, currency, type.
    pub own: Vec<usize>,
    /// All others that are the same for an order: conditions, attributes.
    pub others: Vec<usize>,
}

impl LineSlots {
    fn all(&self) -> impl Iterator<Item = usize> {
        self.own.iter().chain(&self.others).copied()
    }
}

/// What the last complete line of a file says of its order. Exports of shops name customer, time and currency in the first
/// line of an order alone.
#[derive(Debug, Default)]
pub struct Above {
    /// The order id, as it is spelled.
    order: String,
    /// What stands in the slots, in the order of [`LineSlots::all`].
    values: Vec<String>,
}

impl Above {
    /// The line with what it leaves to the line above, and whether it leaves anything. A line of another order, or one that
    /// says everything itself, is the line above from now on.
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

    /// Whether this line says something of its own that the next one does not, and nothing speaks against one customer.
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
