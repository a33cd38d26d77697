//! The additive parts of a window's figures, and the figures that follow from their sums over partitions.

use std::ops::AddAssign;

/// The parts of one window that are sums over customers or events, so that the parts of partitions add up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// S: customers active at the last pane before the window.
    pub start: i64,
    /// E: customers active at the window's end.
    pub end: i64,
    /// N: customers whose first order ever is in the window.
    pub new: i64,
    /// L: customers active at the start and not at the end.
    pub lost: i64,
    /// Customers with an order in the window.
    pub ordering: i64,
    /// Customers with two or more orders in the window.
    pub repeat: i64,
    /// Customers with an order in the window and two or more orders ever.
    pub returning: i64,
    /// Customers with a session in the window.
    pub visiting: i64,
    /// Orders in the window.
    pub orders: i64,
    /// Sessions in the window.
    pub sessions: i64,
    /// New customers who are referred as of the window's end.
    pub referred: i64,
    /// Lost customers with a complaint up to the window's end.
    pub lost_complainers: i64,
    /// Customers with an order up to the window's end.
    pub to_date: i64,
    /// Customers with an order and a cost up to the window's end; not counted by segment.
    pub costed: i64,
    /// Customers with two or more orders up to the window's end.
    pub repeaters: i64,
    /// Sum of the gaps between successive orders up to the window's end, in milliseconds.
    pub gap_millis: i128,
    /// Money by the number of the currency, which every engine assigns on its own.
    pub money: Vec<MoneyParts>,
}

/// The money of one currency in a window, in minor units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MoneyParts {
    /// Orders paid in this currency.
    pub orders: i64,
    /// Amounts of these orders.
    pub revenue: i128,
    /// Refunded amounts.
    pub refunds: i128,
    /// Amounts of cancelled orders.
    pub cancellations: i128,
    /// Amounts spent on customers.
    pub costs: CostParts,
}

/// The costs of one currency, in minor units; not counted by segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CostParts {
    /// Spent in the window to win customers.
    pub acquisition: i128,
    /// Spent in the window to keep customers.
    pub retention: i128,
    /// Spent up to the window's end, for any purpose.
    pub to_date: i128,
    /// Number of `cost` events up to the window's end.
    pub events_to_date: i64,
}

impl AddAssign<&CostParts> for CostParts {
    fn add_assign(&mut self, other: &CostParts) {
        self.acquisition += other.acquisition;
        self.retention += other.retention;
        self.to_date += other.to_date;
        self.events_to_date += other.events_to_date;
    }
}

impl MoneyParts {
    /// Whether the window has no orders and no amounts in the currency.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        let moved = [self.revenue, self.refunds, self.cancellations, self.costs.acquisition, self.costs.retention];
        self.orders == 0 && moved == [0; 5]
    }

    /// Revenue minus refunds and cancellations.
    #[must_use]
    pub fn net(&self) -> i128 {
        self.revenue - self.refunds - self.cancellations
    }
}

impl AddAssign<&MoneyParts> for MoneyParts {
    fn add_assign(&mut self, other: &MoneyParts) {
        self.orders += other.orders;
        self.revenue += other.revenue;
        self.refunds += other.refunds;
        self.cancellations += other.cancellations;
        self.costs += &other.costs;
    }
}

impl AddAssign<&Parts> for Parts {
    fn add_assign(&mut self, other: &Parts) {
        self.start += other.start;
        self.end += other.end;
        self.new += other.new;
        self.lost += other.lost;
        self.ordering += other.ordering;
        self.repeat += other.repeat;
        self.returning += other.returning;
        self.visiting += other.visiting;
        self.orders += other.orders;
        self.sessions += other.sessions;
        self.referred += other.referred;
        self.lost_complainers += other.lost_complainers;
        self.to_date += other.to_date;
        self.costed += other.costed;
        self.repeaters += other.repeaters;
        self.gap_millis += other.gap_millis;
        if self.money.len() < other.money.len() {
            self.money.resize(other.money.len(), MoneyParts::default());
        }
        for (mine, theirs) in self.money.iter_mut().zip(&other.money) {
            *mine += theirs;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn ratio(numerator: i64, denominator: i64) -> Option<f64> {
    (denominator != 0).then(|| numerator as f64 / denominator as f64)
}

impl Parts {
    /// S - L.
    #[must_use]
    pub fn retained(&self) -> i64 {
        self.start - self.lost
    }

    /// E - N - retained: customers who came back and were inactive at the start.
    #[must_use]
    pub fn reactivated(&self) -> i64 {
        self.end - self.new - self.retained()
    }

    /// L / S (attrition).
    #[must_use]
    pub fn churn_ratio(&self) -> Option<f64> {
        ratio(self.lost, self.start)
    }

    /// retained / S.
    #[must_use]
    pub fn retention_ratio(&self) -> Option<f64> {
        ratio(self.retained(), self.start)
    }

    /// (E - N) / S: the classic customer retention rate, which counts win-backs as kept and may exceed 1.
    #[must_use]
    pub fn crr_ratio(&self) -> Option<f64> {
        ratio(self.end - self.new, self.start)
    }

    /// repeat / ordering.
    #[must_use]
    pub fn repeat_ratio(&self) -> Option<f64> {
        ratio(self.repeat, self.ordering)
    }

    /// returning / ordering: the returning customer rate of shop platforms.
    #[must_use]
    pub fn returning_ratio(&self) -> Option<f64> {
        ratio(self.returning, self.ordering)
    }

    /// ordering / visiting; may exceed 1.
    #[must_use]
    pub fn conversion_ratio(&self) -> Option<f64> {
        ratio(self.ordering, self.visiting)
    }

    /// referred / new.
    #[must_use]
    pub fn referral_ratio(&self) -> Option<f64> {
        ratio(self.referred, self.new)
    }

    /// Lost customers with a complaint / lost customers.
    #[must_use]
    pub fn lost_complainer_ratio(&self) -> Option<f64> {
        ratio(self.lost_complainers, self.lost)
    }

    /// Customers with a known cost / all customers with an order.
    #[must_use]
    pub fn cost_coverage_ratio(&self) -> Option<f64> {
        ratio(self.costed, self.to_date)
    }

    /// orders / ordering.
    #[must_use]
    pub fn purchase_frequency(&self) -> Option<f64> {
        ratio(self.orders, self.ordering)
    }

    /// Mean time between first and last order of the customers with at least two orders, in seconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a mean for display")]
    pub fn lifespan_seconds(&self) -> Option<f64> {
        (self.repeaters != 0).then(|| self.gap_millis as f64 / 1e3 / self.repeaters as f64)
    }
}
