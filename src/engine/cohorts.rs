//! The cohort triangle: customers by the calendar month of their first order, and what they did in each month since.
//!
//! Each cohort has day-by-day sums, so the triangle can be read off at any instant.

use std::collections::BTreeMap;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::axis::Moment;
use super::prefix::{Cell, Prefix};
use super::state::arrays::Visitor;
use super::state::plain::plain;
use super::window::Sign;
use super::zone::{Day, Unit, first_of_month, month_of};

/// One day of one cohort.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct CohortDay {
    /// Customers whose first order of the month this is.
    ordering: i32,
    orders: i32,
}

/// One cell of the triangle. Adds up over partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CohortParts {
    /// Customers of the cohort with an order in the month.
    pub ordering: i64,
    /// Their orders in the month.
    pub orders: i64,
    /// What these brought, in minor units, by the number of the currency.
    pub revenue: Vec<i128>,
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

/// The customers whose first order lies in one month.
#[derive(Debug, Clone, Default)]
pub struct Cohort {
    days: Prefix<CohortDay>,
    revenue: Vec<Prefix<Revenue>>,
}

impl Cohort {
    /// Books that one of them ordered at `s`, after the order `y`; or takes it back.
    #[inline]
    pub fn order(&mut self, y: Option<Moment>, s: Moment, sign: Sign) {
        let by = sign as i32;
        let cell = self.days.cell(s.day);
        cell.orders += by;
        if y.is_none_or(|y| month_of(y.day) != month_of(s.day)) {
            cell.ordering += by;
        }
    }

    /// Books what an order of one of them brought, or takes it back.
    #[inline]
    pub fn money(&mut self, currency: usize, minor: i64, at: Moment, sign: Sign) {
        if self.revenue.len() <= currency {
            self.revenue.resize_with(currency + 1, Prefix::default);
        }
        self.revenue[currency].cell(at.day).minor += minor * sign as i64;
    }
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

    /// The triangle as of a day: every cell with something in it, by cohort month and month, both counted from January
    /// of year 0.
    #[must_use]
    pub fn parts(&self, today: Day) -> BTreeMap<(i32, i32), CohortParts> {
        let mut triangle = BTreeMap::new();
        for (&month, cohort) in &self.0 {
            let mut from = first_of_month(month);
            let (mut before, mut revenue_before) = ((0, 0), vec![0; cohort.revenue.len()]);
            while from <= today {
                let last = (Unit::Month.next_period(from) - 1).min(today);
                let upto = cohort.days.upto(last);
                let revenue: Vec<_> = cohort.revenue.iter().map(|revenue| revenue.upto(last)).collect();
                let within = |(now, then): (&i128, &i128)| now - then;
                let parts = CohortParts {
                    ordering: upto.0 - before.0,
                    orders: upto.1 - before.1,
                    revenue: revenue.iter().zip(&revenue_before).map(within).collect(),
                };
                if parts.orders != 0 {
                    triangle.insert((month, month_of(from)), parts);
                }
                (before, revenue_before) = (upto, revenue);
                from = Unit::Month.next_period(from);
            }
        }
        triangle
    }

    /// Shows every array to someone who saves or restores them.
    pub fn show(&mut self, key: &str, visitor: &mut impl Visitor) {
        for month in visitor.names(key).iter().filter_map(|name| name.parse().ok()) {
            self.0.entry(month).or_default();
        }
        for (month, cohort) in &mut self.0 {
            let Cohort { days, revenue } = cohort;
            visitor.visit(&format!("{key}/{month}/days"), days);
            visitor.visit_list(&format!("{key}/{month}/revenue"), revenue);
        }
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let cohort = |cohort: &Cohort| cohort.days.bytes() + cohort.revenue.iter().map(Prefix::bytes).sum::<usize>();
        self.0.values().map(cohort).sum()
    }
}
