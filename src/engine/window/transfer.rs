//! Taking over what another window counted, in coarser panes.
//!
//! A count at a pane is that of the last finer pane in it, and the sums of differences up to there are the same, so the
//! differences of the finer panes are added up.

use super::{PendingPane, Window};
use crate::engine::axis::Pane;

/// Counts that can be taken over from a window apart from the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Selection {
    /// What happened in each pane, whoever did it; the same in every window.
    pub flows: bool,
    /// Who orders, once or more often, and who of them is new and referred: the same in windows with one period.
    pub ordering: bool,
    /// Who visits, likewise.
    pub visiting: bool,
    /// Who is active: the same in windows with one `active_for`.
    pub active: bool,
    /// Who is lost: the same in windows with one period and one `active_for`.
    pub lost: bool,
}

impl Selection {
    /// Everything that is not in this selection.
    #[must_use]
    pub fn rest(&self) -> Selection {
        let Selection { flows, ordering, visiting, active, lost } = *self;
        Selection { flows: !flows, ordering: !ordering, visiting: !visiting, active: !active, lost: !lost }
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Selection::default()
    }
}

impl Window {
    /// Keeps nothing but a selection.
    pub fn keep(&mut self, selection: &Selection) {
        let kept = self.regrouped(|pane| pane, selection);
        let limit = self.people.limit();
        let Window { axis: _, active_for: _, people, tills, rare, newest } = kept;
        (self.people, self.tills, self.rare, self.newest) = (people, tills, rare, newest);
        if limit != Pane::MIN {
            self.fold_before(limit);
        }
    }

    /// Adds a selection of what another window counted; `pane` says which pane of this window holds one of that.
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

    /// Panes before this one are folded; [`Pane::MIN`] when none are.
    #[must_use]
    pub fn limit(&self) -> Pane {
        self.people.limit()
    }
}
