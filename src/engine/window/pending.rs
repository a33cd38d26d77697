//! Buffers the orders of the newest pane of a window before they are added to the arrays.
//!
//! Events come nearly in time order, so successive orders are in the same pane, leave the window in the same pane and
//! lapse in the same pane. What depends only on that pane is counted here and added to the arrays once for all of these
//! orders: when the next pane begins, and before the arrays are read.

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
    /// Number of orders; negative if more were undone than booked.
    orders: i32,
    /// Number of customers' first orders among them.
    first: i32,
    /// Number of customers' second orders among them.
    second: i32,
    gap_millis: i64,
    /// Currency of the first payment.
    currency: usize,
    /// Payments in that currency.
    paid: MoneyCell,
}

impl PendingPane {
    /// No orders and no pane.
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

    /// An empty buffer for the pane of an order.
    #[inline]
    pub fn at(panes: &OrderPanes) -> PendingPane {
        let &OrderPanes { s, leaves, lapses, lapses_leaves, before: _ } = panes;
        PendingPane { s, leaves, lapses, lapses_leaves, ..PendingPane::NONE }
    }

    /// Adds `by` times the part of an order of this pane that does not depend on its predecessors.
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

    /// Adds `by` times the payment of an order of this pane; `false` if the buffer holds another currency.
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

    /// Takes the payments and the number of their currency; `None` without payments.
    pub fn take_paid(&mut self) -> Option<(usize, MoneyCell)> {
        let paid = std::mem::take(&mut self.paid);
        (paid.orders != 0 || paid.revenue != 0).then_some((self.currency, paid))
    }

    /// Moves the counts, without payments, into the arrays.
    ///
    /// An order at s counts in `Active` for [s, s+A), in `Known` for [s, leaves(s+A)), in `Ordering` and `Twice` for
    /// [s, leaves(s)), and a first order also in `Once`. If the intervals of its predecessors reach beyond s,
    /// [`super::Before`] books the later begin.
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
