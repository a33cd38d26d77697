//! The arrays of a window for rare events: referrals, complaints and costs. Without such events they stay empty.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Selection, Sign};
use crate::engine::axis::Pane;
use crate::engine::figures::{CostParts, MoneyParts};
use crate::engine::prefix::{Cell, Edge, Prefix};
use crate::engine::state::arrays::Visitor;
use crate::engine::state::plain::plain;
use crate::event::CostKind;

/// The differences of one pane.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct SparseCustomers {
    pub referred: i32,
    pub lost_complainers: i32,
    pub costed: i32,
}

/// Prefix sums of [`SparseCustomers`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RareSum {
    pub referred: i64,
    pub lost_complainers: i64,
    pub costed: i64,
}

plain!(SparseCustomers { referred, lost_complainers, costed });
plain!(RareSum { referred, lost_complainers, costed });

impl Cell for SparseCustomers {
    type Sum = RareSum;
    type Store = Vec<SparseCustomers>;
    fn add_to(&self, sum: &mut RareSum) {
        sum.referred += i64::from(self.referred);
        sum.lost_complainers += i64::from(self.lost_complainers);
        sum.costed += i64::from(self.costed);
    }
}

/// Costs of one pane and currency, in minor units.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Costs {
    acquisition: i64,
    retention: i64,
    events: i64,
}

/// Prefix sums of [`Costs`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CostSum {
    acquisition: i128,
    retention: i128,
    events: i64,
}

plain!(Costs { acquisition, retention, events });
plain!(CostSum { acquisition, retention, events });

impl Cell for Costs {
    type Sum = CostSum;
    type Store = Vec<Costs>;
    fn add_to(&self, sum: &mut CostSum) {
        sum.acquisition += i128::from(self.acquisition);
        sum.retention += i128::from(self.retention);
        sum.events += self.events;
    }
}

/// The arrays for rare events.
#[derive(Debug, Clone, Default)]
pub(super) struct SparseCounts {
    people: Prefix<SparseCustomers>,
    /// Indexed by the engine's number of the currency.
    costs: Vec<Prefix<Costs>>,
}

impl SparseCounts {
    /// The cell of a pane, for adding to it.
    pub fn cell(&mut self, pane: Pane) -> &mut SparseCustomers {
        self.people.cell(pane)
    }

    /// Books or undoes a cost.
    pub fn cost(&mut self, kind: CostKind, currency: usize, minor: i64, pane: Pane, sign: Sign) {
        if self.costs.len() <= currency {
            self.costs.resize_with(currency + 1, Prefix::default);
        }
        let by = sign as i64;
        let cell = self.costs[currency].cell(pane);
        cell.events += by;
        match kind {
            CostKind::Acquisition => cell.acquisition += by * minor,
            CostKind::Retention => cell.retention += by * minor,
        }
    }

    /// The sums up to pane `p`.
    pub fn upto(&mut self, p: Pane, settled: Pane) -> RareSum {
        self.people.upto_from_memo(Edge::End, p, settled)
    }

    /// As [`SparseCounts::upto`], without a memo.
    pub fn upto_at(&self, p: Pane) -> RareSum {
        self.people.upto(p)
    }

    /// Adds the costs of the window (`opening`, `p`] to the money by currency.
    pub fn add_costs(&mut self, money: &mut Vec<MoneyParts>, opening: Pane, p: Pane, settled: Pane) {
        if money.len() < self.costs.len() {
            money.resize(self.costs.len(), MoneyParts::default());
        }
        for (money, costs) in money.iter_mut().zip(&mut self.costs) {
            let end = costs.upto_from_memo(Edge::End, p, settled);
            money.costs = cost_parts(&end, &costs.upto_from_memo(Edge::Opening, opening, settled));
        }
    }

    /// Folds the panes before `limit` into one sum; see [`Prefix::fold_before`].
    pub fn fold_before(&mut self, limit: Pane) {
        self.people.fold_before(limit);
        for costs in &mut self.costs {
            costs.fold_before(limit);
        }
    }

    /// Passes every array to a visitor that saves or restores it.
    pub fn show(&mut self, key: &str, visitor: &mut impl Visitor) {
        let SparseCounts { people, costs } = self;
        visitor.visit(&format!("{key}/rare"), people);
        visitor.visit_list(&format!("{key}/cost"), costs);
    }

    /// Adds other arrays, to merge two segments.
    pub fn absorb(&mut self, other: SparseCounts) {
        let SparseCounts { people, costs } = other;
        self.people.absorb(people);
        if self.costs.len() < costs.len() {
            self.costs.resize_with(costs.len(), Prefix::default);
        }
        self.costs.iter_mut().zip(costs).for_each(|(mine, theirs)| mine.absorb(theirs));
    }

    /// The counts of a selection, in other panes.
    pub fn regrouped(&self, pane: impl Fn(Pane) -> Pane, selection: &Selection) -> SparseCounts {
        let Selection { flows, ordering, visiting: _, active: _, lost } = *selection;
        let cell = |cell: &SparseCustomers| SparseCustomers {
            referred: if ordering { cell.referred } else { 0 },
            lost_complainers: if lost { cell.lost_complainers } else { 0 },
            costed: if flows { cell.costed } else { 0 },
        };
        let sum = |sum: &RareSum| RareSum {
            referred: if ordering { sum.referred } else { 0 },
            lost_complainers: if lost { sum.lost_complainers } else { 0 },
            costed: if flows { sum.costed } else { 0 },
        };
        let costs = self.costs.iter().filter(|_| flows).map(|costs| costs.regrouped(&pane, |cell| *cell, |sum| *sum));
        SparseCounts { costs: costs.collect(), people: self.people.regrouped(&pane, cell, sum) }
    }

    /// Sums of all costs, indexed by the engine's number of the currency.
    pub fn costs_to_date(&self) -> Vec<CostSum> {
        self.costs.iter().map(|costs| costs.upto(Pane::MAX)).collect()
    }

    /// Counts customers with a cost, and these costs by currency, as if before all panes. Called before any cost is
    /// booked.
    pub fn complete(&mut self, costed: i64, sums: &[CostSum]) {
        self.people.add_before_all(&RareSum { costed, ..RareSum::default() });
        if self.costs.len() < sums.len() {
            self.costs.resize_with(sums.len(), Prefix::default);
        }
        self.costs.iter_mut().zip(sums).for_each(|(costs, sum)| costs.add_before_all(sum));
    }

    /// Memory in bytes.
    pub fn bytes(&self) -> usize {
        self.people.bytes() + self.costs.iter().map(Prefix::bytes).sum::<usize>()
    }
}

fn cost_parts(end: &CostSum, open: &CostSum) -> CostParts {
    CostParts {
        acquisition: end.acquisition - open.acquisition,
        retention: end.retention - open.retention,
        to_date: end.acquisition + end.retention,
        events_to_date: end.events,
    }
}
