//! What a window counts from the beginning of all data. It is the same in all windows, whatever their panes, so a
//! window that is added later takes over what the others know: of customers who were erased nothing else tells it.

use super::sparse::{CostSum, RareSum};
use super::{Count, CountsSum, Window};
use crate::engine::axis::Pane;

/// All that was counted so far.
#[derive(Debug, Clone, Default)]
pub struct ToDate {
    new: i64,
    second: i64,
    gap_millis: i64,
    costed: i64,
    /// By the number of the currency.
    costs: Vec<CostSum>,
}

impl ToDate {
    /// The same without costs, which are not counted by segment.
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
    /// What is counted so far.
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

    /// Counts what is missing of `all` as if it lay before all panes.
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
