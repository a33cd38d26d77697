//! One window of one scope: what each order, session and refund adds to the difference arrays, and the sums at a pane.
//!
//! Every figure is the number of customers whose interval covers pane p (or a running count). A customer's intervals
//! follow from each order and its two predecessors alone, so an order that arrives late is put in its place by taking
//! back what its successors had booked and booking them anew.

mod counts;
mod pending;
mod sparse;
mod to_date;
mod transfer;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::axis::{ActiveFor, Axis, Moment, Pane};
use super::figures::{CostParts, MoneyParts, Parts};
use super::prefix::{Cell, Edge, Prefix};
use super::state::arrays::Visitor;
use super::state::plain::plain;
use crate::event::CostKind;

use counts::{Cells, Column, ColumnSlice, Count, Counts, CountsSum};
use pending::PendingPane;
use sparse::{RareSum, SparseCounts};
pub use to_date::ToDate;
pub use transfer::Selection;

/// One pane's money of one currency, in minor units.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct MoneyCell {
    orders: i64,
    revenue: i64,
    refunds: i64,
    cancellations: i64,
}

/// Prefix sums of [`MoneyCell`].
#[derive(Debug, Clone, Copy, Default)]
struct MoneySum {
    orders: i64,
    revenue: i128,
    refunds: i128,
    cancellations: i128,
}

impl MoneySum {
    /// The money between two panes, costs excepted.
    fn minus(&self, other: &MoneySum) -> MoneyParts {
        MoneyParts {
            orders: self.orders - other.orders,
            revenue: self.revenue - other.revenue,
            refunds: self.refunds - other.refunds,
            cancellations: self.cancellations - other.cancellations,
            costs: CostParts::default(),
        }
    }
}

plain!(MoneyCell { orders, revenue, refunds, cancellations });
plain!(MoneySum { orders, revenue, refunds, cancellations });

impl Cell for MoneyCell {
    type Sum = MoneySum;
    type Store = Vec<MoneyCell>;
    #[inline]
    fn add_to(&self, sum: &mut MoneySum) {
        sum.orders += self.orders;
        sum.revenue += i128::from(self.revenue);
        sum.refunds += i128::from(self.refunds);
        sum.cancellations += i128::from(self.cancellations);
    }
}

/// Money that moves, by what moved it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// A customer paid an order.
    Order,
    /// Money went back for a part of an order.
    Refund,
    /// Money went back because an order was undone.
    Cancellation,
    /// What a customer paid, where orders are counted apart from what they bring.
    Amount,
    /// An order, counted apart from what it brings.
    Count,
}

impl Flow {
    /// Whether it adds to the revenue.
    #[must_use]
    pub fn is_revenue(self) -> bool {
        matches!(self, Flow::Order | Flow::Amount)
    }
}

/// An order among the orders of its customer: its time and those of its two predecessors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderTerm {
    /// The order two before, if there is one.
    pub x: Option<Moment>,
    /// The order before, if there is one.
    pub y: Option<Moment>,
    /// The order itself.
    pub s: Moment,
}

/// Where an [`OrderTerm`] lies on the axis of a window: the same for every scope of the window.
#[derive(Debug, Clone, Copy)]
pub struct OrderPanes {
    s: Pane,
    leaves: Pane,
    lapses: Pane,
    lapses_leaves: Pane,
    before: Option<Before>,
}

/// The same of the order before.
#[derive(Debug, Clone, Copy)]
struct Before {
    leaves: Pane,
    lapses: Pane,
    lapses_leaves: Pane,
    gap_millis: i64,
    /// Of the order two before, if there is one.
    x_leaves: Option<Pane>,
}

impl Before {
    /// Books `by` times what the orders before change of an order `s`; the rest is [`PendingPane::book`].
    ///
    /// With panes x <= y <= s, each is a union of intervals that begin with orders and end the later, the later they
    /// begin: active of [s, s+A), known (active or lost) of [s, leaves(s+A)), ordering of [s, leaves(s)). So s adds
    /// what lies behind the end of y's. Counted twice is who is in two of the last: there s adds what lies behind the
    /// end of x's. Who orders for the second time has ordered once no longer.
    #[inline]
    fn book(&self, s: Pane, cells: &mut impl Cells, by: i32) {
        cells.add(Column::Active, s.max(self.lapses), by);
        cells.add(Column::Known, s.max(self.lapses_leaves), by);
        cells.add(Column::Ordering, s.max(self.leaves), by);
        cells.add(Column::Twice, self.x_leaves.map_or(s, |x_leaves| s.max(x_leaves)), by);
        if self.x_leaves.is_none() && s < self.leaves {
            cells.add(Column::Once, s, -by);
            cells.add(Column::Once, self.leaves, by);
        }
    }
}

/// A stretch of time: from `since` on, and before `until`. Open where absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Its first moment.
    pub since: Option<Moment>,
    /// The first moment behind it.
    pub until: Option<Moment>,
}

impl Span {
    /// All time.
    pub const ALWAYS: Span = Span { since: None, until: None };
}

/// The silence between two orders of a customer who complained: what of it counts as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostInterval {
    /// The order that it follows.
    pub y: Moment,
    /// From when on it counts: the earliest complaint, or later.
    pub since: Moment,
    /// The order that ends it, if there is one.
    pub next: Option<Moment>,
}

/// Whether something is booked or taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Book it.
    Add = 1,
    /// Take it back.
    Remove = -1,
}

impl Sign {
    /// The other one.
    #[must_use]
    pub fn opposite(self) -> Sign {
        match self {
            Sign::Add => Sign::Remove,
            Sign::Remove => Sign::Add,
        }
    }
}

/// The arrays of one window of one scope.
#[derive(Debug, Clone)]
pub struct Window {
    axis: Axis,
    /// A: how long a customer stays active after an order.
    active_for: ActiveFor,
    people: Prefix<Counts>,
    /// By the number that the engine gave the currency.
    tills: Vec<Prefix<MoneyCell>>,
    rare: SparseCounts,
    /// Orders that are not in `people` and `tills` yet.
    newest: PendingPane,
}

impl Window {
    /// Empty arrays.
    #[must_use]
    pub fn new(axis: Axis, active_for: ActiveFor) -> Window {
        let (people, rare) = (Prefix::default(), SparseCounts::default());
        Window { axis, active_for, people, tills: Vec::new(), rare, newest: PendingPane::NONE }
    }

    /// Where an order and its predecessors lie.
    #[inline]
    #[must_use]
    pub fn panes(&self, term: &OrderTerm) -> OrderPanes {
        let axis = self.axis;
        let s = axis.pane(term.s);
        let lapses = axis.lapses(s, self.active_for);
        let before = term.y.map(|y_moment| {
            let y = axis.pane(y_moment);
            let lapses = axis.lapses(y, self.active_for);
            Before {
                leaves: axis.leaves(y),
                lapses,
                lapses_leaves: axis.leaves(lapses),
                gap_millis: term.s.time.millis() - y_moment.time.millis(),
                x_leaves: term.x.map(|x| axis.leaves(axis.pane(x))),
            }
        });
        OrderPanes { s, leaves: axis.leaves(s), lapses, lapses_leaves: axis.leaves(lapses), before }
    }

    /// Books an order, or takes it back: everything but its money.
    #[inline]
    pub fn order(&mut self, term: &OrderTerm, sign: Sign) {
        self.order_at(&self.panes(term), sign);
    }

    /// As [`Window::order`], where the panes of the term are known already.
    #[inline]
    pub fn order_at(&mut self, panes: &OrderPanes, sign: Sign) {
        let by = sign as i32;
        if panes.s > self.newest.s {
            self.begin_pane(panes);
        }
        if panes.s == self.newest.s {
            self.newest.add(panes, by);
        } else {
            self.order_of_before(panes, by);
        }
        let Some(before) = &panes.before else { return };
        // No pane of the term lies before s, and none behind the one where the silence after it leaves.
        match self.people.span(panes.s, panes.lapses_leaves) {
            Some((columns, base)) => before.book(panes.s, &mut ColumnSlice::new(columns, base), by),
            None => self.outlying_order(before, panes.s, by),
        }
    }

    #[cold]
    fn begin_pane(&mut self, panes: &OrderPanes) {
        self.book_newest();
        self.newest = PendingPane::at(panes);
        // The arrays hold all panes of these orders from here on.
        _ = self.people.place(panes.s);
        _ = self.people.place(panes.lapses_leaves);
    }

    /// An order of a pane before the newest.
    #[cold]
    fn order_of_before(&mut self, panes: &OrderPanes, by: i32) {
        let mut alone = PendingPane::at(panes);
        alone.add(panes, by);
        alone.book(&mut self.people);
    }

    #[cold]
    fn outlying_order(&mut self, before: &Before, s: Pane, by: i32) {
        before.book(s, &mut self.people, by);
    }

    /// Brings everything into the arrays, for someone who reads them.
    fn book_newest(&mut self) {
        self.newest.book(&mut self.people);
        if let Some((currency, paid)) = self.newest.take_paid() {
            let cell = self.tills[currency].cell(self.newest.s);
            cell.orders += paid.orders;
            cell.revenue += paid.revenue;
        }
    }

    /// Books that a customer visits, `before` being the visit before, or takes it back; only as far as it lies within
    /// `span`.
    #[inline]
    pub fn visit(&mut self, before: Option<Moment>, at: Moment, span: Span, sign: Sign) {
        let pane = self.axis.pane(at);
        let leaves = self.axis.leaves(pane);
        let from = before.map_or(pane, |before| pane.max(self.axis.leaves(self.axis.pane(before))));
        self.visiting(from, leaves, span, sign);
    }

    /// As [`Window::visit`], for all that one visit and those before it leave of `span`.
    pub fn visits_until(&mut self, last: Moment, span: Span, sign: Sign) {
        let leaves = self.axis.leaves(self.axis.pane(last));
        self.visiting(Pane::MIN, leaves, span, sign);
    }

    #[inline]
    fn visiting(&mut self, from: Pane, until: Pane, span: Span, sign: Sign) {
        let by = sign as i32;
        let from = span.since.map_or(from, |since| from.max(self.axis.pane(since)));
        let until = span.until.map_or(until, |end| until.min(self.axis.pane(end)));
        if from < until {
            self.people.add(Column::Visiting, from, by);
            self.people.add(Column::Visiting, until, -by);
        }
    }

    /// Counts a session, or takes it back.
    #[inline]
    pub fn session(&mut self, at: Moment, sign: Sign) {
        self.people.add(Column::Sessions, self.axis.pane(at), sign as i32);
    }

    /// The pane that holds a moment.
    #[inline]
    #[must_use]
    pub fn pane(&self, at: Moment) -> Pane {
        self.axis.pane(at)
    }

    /// Books money of the currency with that number, or takes it back.
    #[inline]
    pub fn money(&mut self, flow: Flow, currency: usize, minor: i64, at: Moment, sign: Sign) {
        self.money_at(flow, currency, minor, self.axis.pane(at), sign);
    }

    /// As [`Window::money`], in a pane.
    #[inline]
    pub fn money_at(&mut self, flow: Flow, currency: usize, minor: i64, pane: Pane, sign: Sign) {
        let by = sign as i64;
        if self.tills.len() <= currency {
            self.tills.resize_with(currency + 1, Prefix::default);
        }
        if flow == Flow::Order && pane == self.newest.s && self.newest.pay(currency, minor, by) {
            return;
        }
        let cell = self.tills[currency].cell(pane);
        match flow {
            Flow::Order => {
                cell.orders += by;
                cell.revenue += by * minor;
            }
            Flow::Refund => cell.refunds += by * minor,
            Flow::Cancellation => cell.cancellations += by * minor,
            Flow::Amount => cell.revenue += by * minor,
            Flow::Count => cell.orders += by,
        }
    }

    /// Books that a customer is referred from `since` on, or takes it back: among the new ones in
    /// [max(first, since), leaves(first)).
    pub fn referred(&mut self, first: Moment, since: Moment, sign: Sign) {
        let first = self.axis.pane(first);
        let (from, until) = (first.max(self.axis.pane(since)), self.axis.leaves(first));
        if from < until {
            self.rare.cell(from).referred += sign as i32;
            self.rare.cell(until).referred -= sign as i32;
        }
    }

    /// Books that a customer who complained is lost, or takes it back: in
    /// [max(y+A, since), min(leaves(y+A), next order)).
    pub fn lost_complainer(&mut self, silence: &LostInterval, sign: Sign) {
        let lapses = self.axis.lapses(self.axis.pane(silence.y), self.active_for);
        let from = lapses.max(self.axis.pane(silence.since));
        let leaves = self.axis.leaves(lapses);
        let until = silence.next.map_or(leaves, |next| leaves.min(self.axis.pane(next)));
        if from < until {
            self.rare.cell(from).lost_complainers += sign as i32;
            self.rare.cell(until).lost_complainers -= sign as i32;
        }
    }

    /// Books that a customer has both an order and a cost from `since` on, or takes it back.
    pub fn costed(&mut self, since: Moment, sign: Sign) {
        self.rare.cell(self.axis.pane(since)).costed += sign as i32;
    }

    /// Books a cost in the currency with that number, or takes it back.
    pub fn cost(&mut self, kind: CostKind, currency: usize, minor: i64, at: Moment, sign: Sign) {
        self.rare.cost(kind, currency, minor, self.axis.pane(at), sign);
    }

    /// The additive parts of the window that ends with pane `p`; `None` when the arrays no longer reach back that far.
    /// `settled`: the newest pane that is expected not to change any more.
    pub fn parts(&mut self, p: Pane, settled: Pane) -> Option<Parts> {
        self.book_newest();
        let opening = self.axis.opens(p);
        if opening < self.people.oldest() {
            return None;
        }
        let end = self.people.upto_from_memo(Edge::End, p, settled);
        let open = self.people.upto_from_memo(Edge::Opening, opening, settled);
        let tills = self.tills.iter_mut().map(|till| {
            let end = till.upto_from_memo(Edge::End, p, settled);
            let open = till.upto_from_memo(Edge::Opening, opening, settled);
            end.minus(&open)
        });
        let mut money = tills.collect();
        self.rare.add_costs(&mut money, opening, p, settled);
        Some(parts(&end, &open, &self.rare.upto(p, settled), money))
    }

    /// Folds what lies before `limit` into one sum; see [`Prefix::fold_before`].
    pub fn fold_before(&mut self, limit: Pane) {
        self.book_newest();
        self.people.fold_before(limit);
        for till in &mut self.tills {
            till.fold_before(limit);
        }
        self.rare.fold_before(limit);
    }

    /// Shows every array to someone who saves or restores them.
    pub fn show(&mut self, key: &str, visitor: &mut impl Visitor) {
        self.book_newest();
        // The axis and A are the definition, which is in the key.
        let Window { axis: _, active_for: _, people, tills, rare, newest: _ } = self;
        visitor.visit(&format!("{key}/people"), people);
        visitor.visit_list(&format!("{key}/till"), tills);
        rare.show(key, visitor);
    }

    /// Adds the window of customers who are to be counted together with these from now on.
    pub fn absorb(&mut self, mut other: Window) {
        self.book_newest();
        other.book_newest();
        let Window { axis: _, active_for: _, people, tills, rare, newest: _ } = other;
        self.people.absorb(people);
        if self.tills.len() < tills.len() {
            self.tills.resize_with(tills.len(), Prefix::default);
        }
        self.tills.iter_mut().zip(tills).for_each(|(mine, theirs)| mine.absorb(theirs));
        self.rare.absorb(rare);
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.people.bytes() + self.tills.iter().map(Prefix::bytes).sum::<usize>() + self.rare.bytes()
    }
}

fn parts(end: &CountsSum, open: &CountsSum, rare: &RareSum, money: Vec<MoneyParts>) -> Parts {
    Parts {
        start: open[Count::Active],
        end: end[Count::Active],
        new: end[Count::New] - open[Count::New],
        lost: end[Count::Lost],
        ordering: end[Count::Ordering],
        repeat: end[Count::Repeat],
        returning: end[Count::Returning],
        visiting: end[Count::Visiting],
        orders: end[Count::Orders] - open[Count::Orders],
        sessions: end[Count::Sessions] - open[Count::Sessions],
        referred: rare.referred,
        lost_complainers: rare.lost_complainers,
        to_date: end[Count::New],
        costed: rare.costed,
        repeaters: end[Count::Second],
        gap_millis: i128::from(end.gap_millis),
        money,
    }
}
