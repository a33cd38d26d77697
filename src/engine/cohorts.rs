//! The cohort triangle: customers by the month of their first order, with their orders and money in each month since.
//!
//! Each cohort has prefix sums by day, so the triangle is available as of any instant.

use std::collections::BTreeMap;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::axis::Moment;
use super::prefix::{Cell, Prefix};
use super::state::arrays::Visitor;
use super::state::plain::plain;
use super::window::{Flow, Sign};
use super::zone::{Day, Unit, first_of_month, month_of};

/// One day of one cohort.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct CohortDay {
    /// Customers for whom this day has their first order of the month.
    ordering: i32,
    orders: i32,
}

/// One cell of the triangle. Cells add up over partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CohortParts {
    /// Customers of the cohort with an order in the month.
    pub ordering: i64,
    /// Their orders in the month.
    pub orders: i64,
    /// Money by the engine's number of the currency.
    pub money: Vec<CohortMoney>,
}

/// The money of one currency in a cell, in minor units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CohortMoney {
    /// Amounts of the orders.
    pub revenue: i128,
    /// Refunds in the month, whenever the order was.
    pub refunds: i128,
    /// Cancellations in the month, whenever the order was.
    pub cancellations: i128,
}

impl CohortMoney {
    /// Whether all amounts are zero.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == CohortMoney::default()
    }
}

impl std::ops::AddAssign<&CohortMoney> for CohortMoney {
    fn add_assign(&mut self, other: &CohortMoney) {
        self.revenue += other.revenue;
        self.refunds += other.refunds;
        self.cancellations += other.cancellations;
    }
}

plain!(CohortDay { ordering, orders });

impl Cell for CohortDay {
    type Sum = (i64, i64);
    type Store = Vec<CohortDay>;
    fn add_to(&self, sum: &mut (i64, i64)) {
        sum.0 += i64::from(self.ordering);
        sum.1 += i64::from(self.orders);
    }
}

#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Revenue {
    minor: i64,
}

plain!(Revenue { minor });

impl Cell for Revenue {
    type Sum = i128;
    type Store = Vec<Revenue>;
    fn add_to(&self, sum: &mut i128) {
        *sum += i128::from(self.minor);
    }
}

/// Returned money of a day.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Returned {
    refunds: i64,
    cancellations: i64,
}

/// Prefix sums of [`Returned`].
#[derive(Debug, Clone, Copy, Default)]
struct ReturnedSum {
    refunds: i128,
    cancellations: i128,
}

plain!(Returned { refunds, cancellations });
plain!(ReturnedSum { refunds, cancellations });

impl Cell for Returned {
    type Sum = ReturnedSum;
    type Store = Vec<Returned>;
    fn add_to(&self, sum: &mut ReturnedSum) {
        sum.refunds += i128::from(self.refunds);
        sum.cancellations += i128::from(self.cancellations);
    }
}

/// The customers with their first order in one month.
#[derive(Debug, Clone, Default)]
pub struct Cohort {
    days: Prefix<CohortDay>,
    revenue: Vec<Prefix<Revenue>>,
    returned: Vec<Prefix<Returned>>,
}

impl Cohort {
    /// Books or undoes an order of a customer at `s`, after the order `y`.
    #[inline]
    pub fn order(&mut self, y: Option<Moment>, s: Moment, sign: Sign) {
        let by = sign as i32;
        let cell = self.days.cell(s.day);
        cell.orders += by;
        if y.is_none_or(|y| month_of(y.day) != month_of(s.day)) {
            cell.ordering += by;
        }
    }

    /// Books or undoes a payment by a customer or money returned to one.
    #[inline]
    pub fn money(&mut self, flow: Flow, currency: usize, minor: i64, at: Moment, sign: Sign) {
        let minor = minor * sign as i64;
        match flow {
            Flow::Order | Flow::Amount => of_currency(&mut self.revenue, currency).cell(at.day).minor += minor,
            Flow::Refund => of_currency(&mut self.returned, currency).cell(at.day).refunds += minor,
            Flow::Cancellation => of_currency(&mut self.returned, currency).cell(at.day).cancellations += minor,
            // [`Cohort::order`] counts orders.
            Flow::Count => {}
        }
    }

    /// Money by currency, up to and including a day.
    fn money_upto(&self, day: Day) -> Vec<CohortMoney> {
        let currencies = self.revenue.len().max(self.returned.len());
        let of = |currency: usize| {
            let ReturnedSum { refunds, cancellations } =
                self.returned.get(currency).map_or_else(ReturnedSum::default, |returned| returned.upto(day));
            let revenue = self.revenue.get(currency).map_or(0, |revenue| revenue.upto(day));
            CohortMoney { revenue, refunds, cancellations }
        };
        (0..currencies).map(of).collect()
    }
}

#[inline]
fn of_currency<C: Cell>(list: &mut Vec<Prefix<C>>, currency: usize) -> &mut Prefix<C> {
    if list.len() <= currency {
        list.resize_with(currency + 1, Prefix::default);
    }
    &mut list[currency]
}

/// All cohorts of a partition, by the month of the first order (counted from January of year 0).
#[derive(Debug, Clone, Default)]
pub struct Cohorts(BTreeMap<i32, Cohort>);

impl Cohorts {
    /// The cohort of a first order.
    #[inline]
    pub fn of(&mut self, first: Moment) -> &mut Cohort {
        self.0.entry(month_of(first.day)).or_default()
    }

    /// The triangle as of a day: every cell with orders or money, by cohort month and month, both counted from January
    /// of year 0.
    #[must_use]
    pub fn parts(&self, today: Day) -> BTreeMap<(i32, i32), CohortParts> {
        let mut triangle = BTreeMap::new();
        for (&month, cohort) in &self.0 {
            let mut from = first_of_month(month);
            let (mut before, mut money_before) = ((0, 0), Vec::new());
            while from <= today {
                let last = (Unit::Month.next_period(from) - 1).min(today);
                let (upto, money) = (cohort.days.upto(last), cohort.money_upto(last));
                let within = |(currency, now): (usize, &CohortMoney)| {
                    let then: CohortMoney = money_before.get(currency).copied().unwrap_or_default();
                    CohortMoney {
                        revenue: now.revenue - then.revenue,
                        refunds: now.refunds - then.refunds,
                        cancellations: now.cancellations - then.cancellations,
                    }
                };
                let parts = CohortParts {
                    ordering: upto.0 - before.0,
                    orders: upto.1 - before.1,
                    money: money.iter().enumerate().map(within).collect(),
                };
                if parts.orders != 0 || parts.money.iter().any(|money| !money.is_nothing()) {
                    triangle.insert((month, month_of(from)), parts);
                }
                (before, money_before) = (upto, money);
                from = Unit::Month.next_period(from);
            }
        }
        triangle
    }

    /// Passes every array to a visitor that saves or restores it.
    pub fn show(&mut self, key: &str, visitor: &mut impl Visitor) {
        for month in visitor.names(key).iter().filter_map(|name| name.parse().ok()) {
            self.0.entry(month).or_default();
        }
        for (month, cohort) in &mut self.0 {
            let Cohort { days, revenue, returned } = cohort;
            visitor.visit(&format!("{key}/{month}/days"), days);
            visitor.visit_list(&format!("{key}/{month}/revenue"), revenue);
            visitor.visit_list(&format!("{key}/{month}/returned"), returned);
        }
    }

    /// Memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let cohort = |cohort: &Cohort| {
            let money = cohort.revenue.iter().map(Prefix::bytes).chain(cohort.returned.iter().map(Prefix::bytes));
            cohort.days.bytes() + money.sum::<usize>()
        };
        self.0.values().map(cohort).sum()
    }
}
