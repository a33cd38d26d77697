//! The orders of a window's newest pane, on their way into the arrays.
//!
//! Events come nearly in the order of time, so one order after another lies in the same pane, leaves the window in the
//! same pane and lapses in the same pane. What follows from that pane alone is counted here and added to the arrays
//! once for all of them: when the next pane begins, and before anybody reads.

use super::counts::{Cells, Column};
use super::{MoneyCell, OrderPanes};
use crate::engine::axis::Pane;

/// Orders of one pane that are not in the arrays yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct PendingPane {
    /// The pane; [`Pane::MIN`] before the first order.
    pub s: Pane,
    leaves: Pane,
    lapses: Pane,
    lapses_leaves: Pane,
    /// All of them; fewer than none where some were taken back.
    orders: i32,
    /// Of them the first of their customers.
    first: i32,
    /// Of them the second of their customers.
    second: i32,
    gap_millis: i64,
    /// The currency of the first payment.
    currency: usize,
    /// What was paid in that currency.
    paid: MoneyCell,
}

impl PendingPane {
    /// No order.
    pub const NONE: PendingPane = PendingPane {
        s: Pane::MIN,
        leaves: Pane::MIN,
        lapses: Pane::MIN,
        lapses_leaves: Pane::MIN,
        orders: 0,
        first: 0,
        second: 0,
        gap_millis: 0,
        currency: 0,
        paid: MoneyCell { orders: 0, revenue: 0, refunds: 0, cancellations: 0 },
    };

    /// None yet, of the pane of an order.
    #[inline]
    pub fn at(panes: &OrderPanes) -> PendingPane {
        let &OrderPanes { s, leaves, lapses, lapses_leaves, before: _ } = panes;
        PendingPane { s, leaves, lapses, lapses_leaves, ..PendingPane::NONE }
    }

    /// Counts an order of this pane `by` times: all that its predecessors do not change.
    #[inline]
    pub fn add(&mut self, panes: &OrderPanes, by: i32) {
        self.orders += by;
        match panes.before {
            None => self.first += by,
            Some(before) => {
                self.second += if before.x_leaves.is_none() { by } else { 0 };
                self.gap_millis += i64::from(by) * before.gap_millis;
            }
        }
    }

    /// Counts the payment of an order of this pane `by` times; `false` where one in another currency came before.
    #[inline]
    pub fn pay(&mut self, currency: usize, minor: i64, by: i64) -> bool {
        if self.paid.orders == 0 && self.paid.revenue == 0 {
            self.currency = currency;
        }
        let counts = self.currency == currency;
        if counts {
            self.paid.orders += by;
            self.paid.revenue += by * minor;
        }
        counts
    }

    /// Takes what was paid, and the number of its currency; `None` when that is nothing.
    pub fn take_paid(&mut self) -> Option<(usize, MoneyCell)> {
        let paid = std::mem::take(&mut self.paid);
        (paid.orders != 0 || paid.revenue != 0).then_some((self.currency, paid))
    }

    /// Adds what was counted to the arrays, payments excepted, and counts from none again.
    ///
    /// An order at s is in [s, s+A) of the active, in [s, leaves(s+A)) of the known, and in [s, leaves(s)) of the
    /// ordering, of those counted twice and, being the first, of those who ordered once; where its predecessors reach
    /// beyond s, [`super::Before`] says what begins later instead.
    pub fn book(&mut self, cells: &mut impl Cells) {
        let PendingPane { s, leaves, lapses, lapses_leaves, orders, first, second, gap_millis, .. } = *self;
        (self.orders, self.first, self.second, self.gap_millis) = (0, 0, 0, 0);
        if (orders, first, second, gap_millis) == (0, 0, 0, 0) {
            return;
        }
        cells.add(Column::Active, lapses, -orders);
        cells.add(Column::Known, lapses_leaves, -orders);
        cells.add(Column::Ordering, leaves, -orders);
        cells.add(Column::Twice, leaves, -orders);
        cells.add(Column::Orders, s, orders);
        if first != 0 {
            for column in [Column::Active, Column::Known, Column::Ordering, Column::Twice, Column::Once, Column::New] {
                cells.add(column, s, first);
            }
            cells.add(Column::Once, leaves, -first);
        }
        cells.add(Column::Second, s, second);
        cells.add_gap(s, gap_millis);
    }
}
