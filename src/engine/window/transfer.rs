//! Copies the counts of a window into another one with coarser panes.
//!
//! A count at a coarse pane is the count at its last fine pane. Prefix sums up to there are equal, so the differences
//! of the fine panes are added up.

use super::{PendingPane, Window};
use crate::engine::axis::Pane;

/// Groups of counts that can be copied separately.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Selection {
    /// Counts per pane that do not depend on period and `active_for`; the same in every window.
    pub flows: bool,
    /// Ordering, repeat, returning and referred customers; the same in windows with the same period.
    pub ordering: bool,
    /// Visiting customers; the same in windows with the same period.
    pub visiting: bool,
    /// Active customers; the same in windows with the same `active_for`.
    pub active: bool,
    /// Lost customers; the same in windows with the same period and `active_for`.
    pub lost: bool,
}

impl Selection {
    /// The complement.
    #[must_use]
    pub fn rest(&self) -> Selection {
        let Selection { flows, ordering, visiting, active, lost } = *self;
        Selection { flows: !flows, ordering: !ordering, visiting: !visiting, active: !active, lost: !lost }
    }

    /// Whether no group is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Selection::default()
    }
}

impl Window {
    /// Keeps only the counts of a selection.
    pub fn keep(&mut self, selection: &Selection) {
        let kept = self.regrouped(|pane| pane, selection);
        let limit = self.people.limit();
        let Window { axis: _, active_for: _, people, tills, rare, newest } = kept;
        (self.people, self.tills, self.rare, self.newest) = (people, tills, rare, newest);
        if limit != Pane::MIN {
            self.fold_before(limit);
        }
    }

    /// Adds a selection of another window's counts; `pane` maps its panes to those of this window.
    pub fn take_over(&mut self, other: &mut Window, pane: impl Fn(Pane) -> Pane, selection: &Selection) {
        let taken = other.regrouped(pane, selection);
        self.absorb(taken);
    }

    fn regrouped(&mut self, pane: impl Fn(Pane) -> Pane, selection: &Selection) -> Window {
        self.book_newest();
        let people = self.people.regrouped(&pane, |cell| cell.selected(selection), |sum| sum.selected(selection));
        let tills = self.tills.iter().filter(|_| selection.flows);
        let tills = tills.map(|till| till.regrouped(&pane, |cell| *cell, |sum| *sum)).collect();
        let rare = self.rare.regrouped(&pane, selection);
        Window { axis: self.axis, active_for: self.active_for, people, tills, rare, newest: PendingPane::NONE }
    }

    /// Panes before this one are folded; [`Pane::MIN`] if none are.
    #[must_use]
    pub fn limit(&self) -> Pane {
        self.people.limit()
    }
}
