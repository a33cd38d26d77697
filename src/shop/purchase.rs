//! An order and its consequences: refunds, feedback, costs, and whether the customer stays.

use super::Shop;
use super::fact::{FactKind, Sum};
use super::market::Channel;
use super::people::Customer;
use crate::event::{DAY, HOUR, MINUTE, Time};

/// Share of orders that a voucher pays in full.
const FREE: f64 = 0.002;
/// Spread of one customer's order values (sigma of the lognormal distribution).
const BASKET_SIGMA: f64 = 0.4;
/// Share of refunded orders that draw a complaint.
const REFUND_COMPLAINTS: f64 = 0.2;
/// Share of orders that draw praise.
const PRAISE: f64 = 0.02;
/// Share of complaining customers who leave although they would have stayed otherwise.
const COMPLAINT_DROPOUT: f64 = 0.4;
/// Share of orders with a retention cost.
const RETENTION_COSTS: f64 = 0.04;

impl Shop {
    pub(super) fn order(&mut self, now: Time, slot: usize, mut customer: Customer) {
        self.orders += 1;
        let (order, place) = (self.orders, customer.place);
        let paid = if self.chance.happens(FREE) {
            Sum { minor: 0, market: place.market }
        } else {
            self.euros(&customer, customer.basket, BASKET_SIGMA)
        };
        let referrer = customer.referrer.take();
        self.tell(&customer, now, FactKind::Order { order, paid, place, referrer });
        customer.orders += 1;

        let refunded = self.chance.happens(self.settings.refunds);
        if refunded {
            self.refund(now, &customer, order, paid);
        } else if self.chance.happens(self.settings.cancellations) {
            let at = now.plus(self.chance.within(10 * MINUTE..DAY));
            self.tell(&customer, at, FactKind::Cancel { order, returned: paid });
        }
        self.spend(now, &customer);
        let complains = self.give_feedback(now, &customer, refunded);

        let dropout = customer.dropout + if complains { (1.0 - customer.dropout) * COMPLAINT_DROPOUT } else { 0.0 };
        if self.chance.happens(dropout) {
            self.leave(now, slot, customer);
        } else {
            self.plan_order(now, slot, customer);
        }
    }

    /// Refunds within 14 days: three fifths in full, a quarter in part, the rest in two parts.
    fn refund(&mut self, now: Time, customer: &Customer, order: u64, paid: Sum) {
        let first_at = now.plus(self.chance.within(HOUR..10 * DAY));
        let form = self.chance.unit();
        let returned = if form < 0.6 { paid } else { self.part_of(paid) };
        self.tell(customer, first_at, FactKind::Refund { order, part: 1, returned });
        if form >= 0.85 && returned.minor < paid.minor {
            let second_at = first_at.plus(self.chance.within(HOUR..4 * DAY));
            let returned = self.part_of(Sum { minor: paid.minor - returned.minor, ..paid });
            self.tell(customer, second_at, FactKind::Refund { order, part: 2, returned });
        }
    }

    /// Between one fifth and four fifths of an amount.
    fn part_of(&mut self, sum: Sum) -> Sum {
        let percent = self.chance.within(20..80);
        Sum { minor: (sum.minor.saturating_mul(percent) / 100).max(sum.minor.min(1)), ..sum }
    }

    fn spend(&mut self, now: Time, customer: &Customer) {
        if customer.orders == 1 && customer.place.channel == Channel::Ads {
            let spent = self.euros(customer, 9.0, 0.5);
            self.tell(customer, now, FactKind::Acquisition { spent });
        }
        if self.chance.happens(RETENTION_COSTS) {
            let spent = self.euros(customer, 3.0, 0.4);
            let at = now.plus(self.chance.within(DAY..7 * DAY));
            self.tell(customer, at, FactKind::Retention { spent });
        }
    }

    /// Whether the customer complains.
    fn give_feedback(&mut self, now: Time, customer: &Customer, refunded: bool) -> bool {
        let share = self.settings.complaints.max(if refunded { REFUND_COMPLAINTS } else { 0.0 });
        let complains = self.chance.happens(share);
        if complains || self.chance.happens(PRAISE) {
            let at = now.plus(self.chance.within(HOUR..10 * DAY));
            self.tell(customer, at, if complains { FactKind::Complaint } else { FactKind::Praise });
        }
        complains
    }

    /// About this many euros, in the customer's currency.
    fn euros(&mut self, customer: &Customer, median: f64, sigma: f64) -> Sum {
        let market = customer.place.market;
        Sum { minor: market.minor_units(self.chance.around(median, sigma)), market }
    }
}
