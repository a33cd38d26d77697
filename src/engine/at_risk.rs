//! The customers at risk at an instant, the most important first; read in slices, so that nobody waits for all of them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::customer::CustomerFigures;
use super::customers::Slot;
use super::lifecycle::Status;
use super::record::{KeyTag, Record};
use super::{Currency, Engine, Time};

/// Who comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Whoever brought most net revenue to date in this currency.
    Value(Currency),
    /// Whoever ordered most often.
    Orders,
    /// Whoever ordered the longest ago.
    LastOrder,
    /// Whoever has been at risk the longest.
    AtRiskSince,
    /// Whoever lapses the soonest.
    LapsesAt,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtRiskQuestion {
    /// The instant at which the status is read.
    pub at: Time,
    /// Who comes first.
    pub order: Order,
    /// How many are wanted at most.
    pub limit: usize,
    /// Whoever ranks lower is not wanted any more.
    pub least: Option<i128>,
}

/// A customer at risk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtRiskCustomer {
    /// The rank; the largest comes first.
    pub rank: i128,
    /// The id.
    pub id: String,
    /// What is known.
    pub figures: CustomerFigures,
}

/// What some of the customers come to. Adds up over slices and partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AtRisk {
    /// How many are at risk, also those who are not among the first.
    pub total: u64,
    /// What they brought to date, in minor units.
    pub revenue: BTreeMap<Currency, i128>,
    /// The first of them; in order once [`AtRisk::add`] has put them in order.
    pub first: Vec<AtRiskCustomer>,
}

impl AtRisk {
    /// Adds others; of all together the first `limit` remain, equal ranks by id.
    pub fn add(&mut self, more: AtRisk, limit: usize) {
        self.total += more.total;
        for (currency, minor) in more.revenue {
            *self.revenue.entry(currency).or_default() += minor;
        }
        self.first.extend(more.first);
        self.first.sort_unstable_by(|a, b| b.rank.cmp(&a.rank).then_with(|| a.id.cmp(&b.id)));
        self.first.truncate(limit);
    }

    /// The rank below which nobody is wanted any more, once there are `limit` of them.
    #[must_use]
    pub fn least(&self, limit: usize) -> Option<i128> {
        self.first.get(limit.checked_sub(1)?).map(|last| last.rank)
    }
}

impl Engine {
    /// The currencies in which anything was paid, and the reporting currency if there is one.
    #[must_use]
    pub fn currencies(&self) -> Vec<Currency> {
        self.currencies.iter().copied().filter(|currency| self.spec.tells(*currency)).collect()
    }

    /// The customers at risk among `slots` slots from `from` on, and where the next slice begins.
    #[must_use]
    pub fn at_risk(&self, question: &AtRiskQuestion, from: usize, slots: usize) -> (AtRisk, Option<usize>) {
        let end = self.customers.slots();
        let until = from.saturating_add(slots).min(end);
        let mut found = AtRisk::default();
        // On top is who leaves first: the lowest rank, of equal ones the id that comes last.
        let mut first = BinaryHeap::<Reverse<(i128, Reverse<String>, Slot)>>::new();
        for slot in (from..until).filter_map(|slot| u32::try_from(slot).ok()).map(Slot) {
            let record = self.customers.record(slot);
            if !self.is_at_risk(record, question.at) {
                continue;
            }
            found.total += 1;
            for (currency, minor) in self.net_revenue_of(slot) {
                *found.revenue.entry(currency).or_default() += i128::from(minor);
            }
            let rank = self.rank(slot, record, question);
            let least = match first.peek() {
                Some(Reverse((last, ..))) if first.len() >= question.limit => question.least.max(Some(*last)),
                _ => question.least,
            };
            // Equal ranks are wanted, for the id decides among them.
            if least.is_none_or(|least| rank >= least) {
                first.push(Reverse((rank, Reverse(self.customers.id(slot)), slot)));
                if first.len() > question.limit {
                    first.pop();
                }
            }
        }
        let customer = |Reverse((rank, Reverse(id), slot))| AtRiskCustomer {
            rank,
            id,
            figures: self.customer_figures(slot, question.at),
        };
        let limit = question.limit;
        found.add(AtRisk { first: first.into_iter().map(customer).collect(), ..AtRisk::default() }, limit);
        (found, (until < end).then_some(until))
    }

    fn is_at_risk(&self, record: &Record, at: Time) -> bool {
        if record.tag == KeyTag::FREE || record.tag == KeyTag::ERASED {
            return false;
        }
        let Some((first, last)) = record.first().zip(record.newest(0)) else { return false };
        self.spec.lifecycle.standing(record.orders, first, last, at).1 == Status::AtRisk
    }

    fn rank(&self, slot: Slot, record: &Record, question: &AtRiskQuestion) -> i128 {
        let (first, last) = (record.first().unwrap_or(Time::MIN), record.newest(0).unwrap_or(Time::MIN));
        let turns = || self.spec.lifecycle.turns(record.orders, first, last);
        match question.order {
            // Whoever never paid in it stands behind those who did.
            Order::Value(wanted) => self
                .net_revenue_of(slot)
                .find(|(currency, _)| *currency == wanted)
                .map_or(i128::MIN, |(_, minor)| i128::from(minor)),
            Order::Orders => i128::from(record.orders),
            Order::LastOrder => -i128::from(last.millis()),
            Order::AtRiskSince => -i128::from(turns().0.millis()),
            Order::LapsesAt => -i128::from(turns().1.millis()),
        }
    }

    fn net_revenue_of(&self, slot: Slot) -> impl Iterator<Item = (Currency, i64)> {
        let all = self.net_revenue.of(slot, self.customers.record(slot));
        let named = all.filter_map(|(number, minor)| Some((*self.currencies.get(usize::from(number))?, minor)));
        named.filter(|(currency, _)| self.spec.tells(*currency))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::engine::tests::spec;
    use crate::event::{Attributes, DAY, Event, HOUR, Kind, Money};

    /// Who ordered when and for how much.
    type Orders = Vec<(u8, i64, i64)>;

    fn money(customer: u8, minor: i64) -> Money {
        // Every fifth pays in another currency.
        Money { minor, currency: Currency::from_code(if customer.is_multiple_of(5) { "NOK" } else { "EUR" }).unwrap() }
    }

    fn engine(orders: &Orders) -> Engine {
        let mut engine = Engine::new(Arc::new(spec("UTC")));
        for (customer, hours, minor) in orders {
            let event = Event {
                customer: Cow::Owned(format!("customer-{customer}")),
                time: Time::clamped(15_000 * DAY + hours * HOUR),
                kind: Kind::Order {
                    id: None,
                    amount: money(*customer, *minor),
                    attributes: Attributes::default(),
                    referred_by: None,
                },
            };
            engine.apply(0, &event);
        }
        engine
    }

    fn read(engine: &Engine, order: Order, at: Time, limit: usize, slots: usize) -> AtRisk {
        let (mut all, mut from) = (AtRisk::default(), Some(0));
        while let Some(next) = from {
            let question = AtRiskQuestion { at, order, limit, least: all.least(limit) };
            let found = engine.at_risk(&question, next, slots);
            all.add(found.0, limit);
            from = found.1;
        }
        all
    }

    proptest! {
        /// As many as the difference arrays count, the first of them by a plain sort, and whatever the slices are.
        #[test]
        fn the_first_of_all_at_risk(
            orders in prop::collection::vec((0..200_u8, 0..600_i64, 0..4_i64), 1..400),
            after in 0..400_i64,
            limit in 1..60_usize,
            slots in 1..300_usize,
        ) {
            let mut orders = orders;
            orders.sort_by_key(|(_, hours, _)| *hours);
            let engine = engine(&orders);
            let at = Time::clamped(15_000 * DAY + (300 + after) * HOUR);
            let eur = Currency::from_code("EUR").unwrap();
            let everybody = read(&engine, Order::Orders, at, usize::MAX, usize::MAX);
            let counted: i64 = engine.lifecycle(at).customers.iter().map(|of_stage| of_stage[Status::AtRisk as usize]).sum();
            // The arrays know who had not ordered yet by then; the records only hold the newest orders.
            if orders.iter().all(|(_, hours, _)| *hours <= 300 + after) {
                prop_assert_eq!(i64::try_from(everybody.total).unwrap(), counted);
            }
            prop_assert_eq!(everybody.first.len() as u64, everybody.total);
            let value = |customer: &AtRiskCustomer| {
                customer.figures.net_revenue.iter().find(|(currency, _)| *currency == eur).map(|(_, minor)| *minor)
            };
            let total: i64 = everybody.first.iter().filter_map(value).sum();
            prop_assert_eq!(everybody.revenue.get(&eur).copied().unwrap_or(0), i128::from(total));
            let ranked = |key: &dyn Fn(&AtRiskCustomer) -> i64| {
                let mut all: Vec<_> = everybody.first.iter().map(|one| (std::cmp::Reverse(key(one)), one.id.clone())).collect();
                all.sort();
                all.into_iter().map(|(_, id)| id).take(limit).collect::<Vec<_>>()
            };
            let turns = |one: &AtRiskCustomer| one.figures.turns.unwrap();
            for (order, expected) in [
                (Order::Value(eur), ranked(&|one| value(one).unwrap_or(i64::MIN))),
                (Order::Orders, ranked(&|one| one.figures.orders.into())),
                (Order::LastOrder, ranked(&|one| -one.figures.last_order.unwrap().millis())),
                (Order::AtRiskSince, ranked(&|one| -turns(one).0.millis())),
                (Order::LapsesAt, ranked(&|one| -turns(one).1.millis())),
            ] {
                let found = read(&engine, order, at, limit, slots);
                prop_assert_eq!((found.total, &found.revenue), (everybody.total, &everybody.revenue));
                let ids: Vec<_> = found.first.into_iter().map(|one| one.id).collect();
                prop_assert_eq!(ids, expected, "{:?}", order);
            }
            for one in &everybody.first {
                let (at_risk, lapses) = turns(one);
                prop_assert!(at_risk <= at && at < lapses, "{:?}", one);
            }
        }
    }
}
