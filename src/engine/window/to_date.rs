//! The counts of a window since the beginning of the data. They are the same in all windows, whatever their panes. A
//! window that is added later takes them from another window, because erased customers cannot be counted again.

use super::sparse::{CostSum, RareSum};
use super::{Count, CountsSum, Window};
use crate::engine::axis::Pane;

/// Counts since the beginning of the data.
#[derive(Debug, Clone, Default)]
pub struct ToDate {
    new: i64,
    second: i64,
    gap_millis: i64,
    costed: i64,
    /// Indexed by the engine's number of the currency.
    costs: Vec<CostSum>,
}

impl ToDate {
    /// The counts without costs, which are not counted by segment.
    #[must_use]
    pub fn of_people(&self) -> ToDate {
        ToDate { costed: 0, costs: Vec::new(), ..self.clone() }
    }
}

impl std::ops::AddAssign<&ToDate> for ToDate {
    fn add_assign(&mut self, other: &ToDate) {
        self.new += other.new;
        self.second += other.second;
        self.gap_millis += other.gap_millis;
    }
}

impl Window {
    /// The counts of this window.
    #[must_use]
    pub fn to_date(&mut self) -> ToDate {
        self.book_newest();
        let people = self.people.upto(Pane::MAX);
        let RareSum { costed, .. } = self.rare.upto_at(Pane::MAX);
        ToDate {
            new: people[Count::New],
            second: people[Count::Second],
            gap_millis: people.gap_millis,
            costed,
            costs: self.rare.costs_to_date(),
        }
    }

    /// Adds what this window lacks of `all`, as if before all panes.
    pub fn complete(&mut self, all: &ToDate) {
        let own = self.to_date();
        let mut missing = CountsSum::default();
        missing[Count::New] = all.new - own.new;
        missing[Count::Second] = all.second - own.second;
        missing.gap_millis = all.gap_millis - own.gap_millis;
        self.people.add_before_all(&missing);
        self.rare.complete(all.costed - own.costed, &all.costs);
    }
}
