//! One window, of all customers or of a segment: what each order, session and refund adds to its difference arrays, and
//! the figures at a pane.
//!
//! Every figure is the number of customers whose interval covers pane p, or a running count. An order and its two
//! predecessors determine the customer's intervals, so a late order is inserted by removing what its successors had
//! booked and booking them again.

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

/// Money of one pane and currency, in minor units.
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
    /// The money between two panes, without costs.
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

/// Kinds of money movements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Payment of an order; counts the order too.
    Order,
    /// Part of an order's amount was returned.
    Refund,
    /// An order was cancelled and its amount returned.
    Cancellation,
    /// Only the amount of an order, where orders are counted separately.
    Amount,
    /// Only the count of an order, without its amount.
    Count,
}

impl Flow {
    /// Whether it adds to the revenue.
    #[must_use]
    pub fn is_revenue(self) -> bool {
        matches!(self, Flow::Order | Flow::Amount)
    }
}

/// An order of a customer with its two predecessors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderTerm {
    /// The order before `y`, if any.
    pub x: Option<Moment>,
    /// The order before `s`, if any.
    pub y: Option<Moment>,
    /// The order itself.
    pub s: Moment,
}

/// The panes of an [`OrderTerm`] on the axis of a window, shared by all its segments.
#[derive(Debug, Clone, Copy)]
pub struct OrderPanes {
    s: Pane,
    leaves: Pane,
    lapses: Pane,
    lapses_leaves: Pane,
    before: Option<Before>,
}

/// The panes of the order before.
#[derive(Debug, Clone, Copy)]
struct Before {
    leaves: Pane,
    lapses: Pane,
    lapses_leaves: Pane,
    gap_millis: i64,
    /// When the order before that leaves the window, if there is one.
    x_leaves: Option<Pane>,
}

impl Before {
    /// Books `by` times the part of order `s` that depends on its predecessors; [`PendingPane::book`] does the rest.
    ///
    /// For panes x <= y <= s, each column is a union of intervals that begin with an order and end later the later they
    /// begin: active [s, s+A), known (active or lost) [s, leaves(s+A)), ordering [s, leaves(s)). So s adds the part
    /// after the end of y's interval. `Twice` counts customers with two orders in the window again: for that, s adds
    /// the part after the end of x's interval. With the second order, a customer no longer belongs to `Once`.
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

/// The interval [`since`, `until`); unbounded where `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// First moment.
    pub since: Option<Moment>,
    /// First moment after the span.
    pub until: Option<Moment>,
}

impl Span {
    /// All time.
    pub const ALWAYS: Span = Span { since: None, until: None };
}

/// The part of a silence during which a customer who complained counts as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostInterval {
    /// The order before the silence.
    pub y: Moment,
    /// Start of the part: the earliest complaint, or later.
    pub since: Moment,
    /// The order that ends the silence, if any.
    pub next: Option<Moment>,
}

/// Whether to book something or to undo a booking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Book.
    Add = 1,
    /// Undo.
    Remove = -1,
}

impl Sign {
    /// The inverse.
    #[must_use]
    pub fn opposite(self) -> Sign {
        match self {
            Sign::Add => Sign::Remove,
            Sign::Remove => Sign::Add,
        }
    }
}

/// The arrays of one window, of all customers or of a segment.
#[derive(Debug, Clone)]
pub struct Window {
    axis: Axis,
    /// A: how long a customer stays active after an order.
    active_for: ActiveFor,
    people: Prefix<Counts>,
    /// Indexed by the engine's number of the currency.
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

    /// The panes of an order and its predecessors.
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

    /// Books or undoes an order, without its money.
    #[inline]
    pub fn order(&mut self, term: &OrderTerm, sign: Sign) {
        self.order_at(&self.panes(term), sign);
    }

    /// As [`Window::order`], with the panes already computed.
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
        // All panes of the term are between `s` and `lapses_leaves`.
        match self.people.span(panes.s, panes.lapses_leaves) {
            Some((columns, base)) => before.book(panes.s, &mut ColumnSlice::new(columns, base), by),
            None => self.outlying_order(before, panes.s, by),
        }
    }

    #[cold]
    fn begin_pane(&mut self, panes: &OrderPanes) {
        self.book_newest();
        self.newest = PendingPane::at(panes);
        // Make the arrays cover all panes that these orders may touch.
        _ = self.people.place(panes.s);
        _ = self.people.place(panes.lapses_leaves);
    }

    /// Books an order of a pane older than the newest one.
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

    /// Moves the pending orders into the arrays, before these are read.
    fn book_newest(&mut self) {
        self.newest.book(&mut self.people);
        if let Some((currency, paid)) = self.newest.take_paid() {
            let cell = self.tills[currency].cell(self.newest.s);
            cell.orders += paid.orders;
            cell.revenue += paid.revenue;
        }
    }

    /// Books or undoes a customer's visit, where `before` is the visit before it; only the part within `span`.
    #[inline]
    pub fn visit(&mut self, before: Option<Moment>, at: Moment, span: Span, sign: Sign) {
        let pane = self.axis.pane(at);
        let leaves = self.axis.leaves(pane);
        let from = before.map_or(pane, |before| pane.max(self.axis.leaves(self.axis.pane(before))));
        self.visiting(from, leaves, span, sign);
    }

    /// As [`Window::visit`], for all visits up to `last` together.
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

    /// Books or undoes a session.
    #[inline]
    pub fn session(&mut self, at: Moment, sign: Sign) {
        self.people.add(Column::Sessions, self.axis.pane(at), sign as i32);
    }

    /// The pane that contains a moment.
    #[inline]
    #[must_use]
    pub fn pane(&self, at: Moment) -> Pane {
        self.axis.pane(at)
    }

    /// Books or undoes money; `currency` is the engine's number of the currency.
    #[inline]
    pub fn money(&mut self, flow: Flow, currency: usize, minor: i64, at: Moment, sign: Sign) {
        self.money_at(flow, currency, minor, self.axis.pane(at), sign);
    }

    /// As [`Window::money`], for a pane.
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

    /// Books or undoes that a new customer is referred from `since` on, which counts in [max(first, since),
    /// leaves(first)).
    pub fn referred(&mut self, first: Moment, since: Moment, sign: Sign) {
        let first = self.axis.pane(first);
        let (from, until) = (first.max(self.axis.pane(since)), self.axis.leaves(first));
        if from < until {
            self.rare.cell(from).referred += sign as i32;
            self.rare.cell(until).referred -= sign as i32;
        }
    }

    /// Books or undoes that a customer who complained is lost, which counts in [max(y+A, since), min(leaves(y+A), next
    /// order)).
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

    /// Books or undoes that a customer has both an order and a cost from `since` on.
    pub fn costed(&mut self, since: Moment, sign: Sign) {
        self.rare.cell(self.axis.pane(since)).costed += sign as i32;
    }

    /// Books or undoes a cost; `currency` is the engine's number of the currency.
    pub fn cost(&mut self, kind: CostKind, currency: usize, minor: i64, at: Moment, sign: Sign) {
        self.rare.cost(kind, currency, minor, self.axis.pane(at), sign);
    }

    /// The additive figures of the window that ends with pane `p`; `None` if the history does not reach back that far.
    /// Panes up to `settled` are not expected to change any more.
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

    /// Folds the panes before `limit` into one sum; see [`Prefix::fold_before`].
    pub fn fold_before(&mut self, limit: Pane) {
        self.book_newest();
        self.people.fold_before(limit);
        for till in &mut self.tills {
            till.fold_before(limit);
        }
        self.rare.fold_before(limit);
    }

    /// Passes every array to a visitor that saves or restores it.
    pub fn show(&mut self, key: &str, visitor: &mut impl Visitor) {
        self.book_newest();
        // The axis and A belong to the definition of the window, which is part of the key.
        let Window { axis: _, active_for: _, people, tills, rare, newest: _ } = self;
        visitor.visit(&format!("{key}/people"), people);
        visitor.visit_list(&format!("{key}/till"), tills);
        rare.show(key, visitor);
    }

    /// Adds the arrays of another window, to merge two segments.
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

    /// Memory in bytes.
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
