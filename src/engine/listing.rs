//! Lists the customers who are at risk or lapsed at an instant, in a chosen order and page by page. The table is read
//! in slices, so that events never have to wait for the whole list.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use super::customer::CustomerFigures;
use super::customers::{Key, Slot};
use super::lifecycle::Status;
use super::record::{KeyTag, Record};
use super::zone::Day;
use super::{Currency, Engine, Time};

/// Sort order: which customers come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The largest net revenue to date in a currency; in the reporting currency the total of all currencies at the
    /// rates of the day.
    Value(Currency),
    /// The most orders.
    Orders,
    /// The oldest last order.
    LastOrder,
    /// The longest time at risk.
    AtRiskSince,
    /// The next one to lapse.
    LapsesAt,
    /// The last one who lapsed.
    LapsedAt,
}

/// A position in the sort order; the next page begins after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPosition {
    /// The rank; larger ones come first.
    pub rank: i128,
    /// Equal ranks are ordered by id.
    pub id: String,
}

/// A query for a page of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuestion {
    /// Time of the status.
    pub at: Time,
    /// Status of the listed customers.
    pub status: Status,
    /// Sort order.
    pub order: Order,
    /// Maximum number of customers.
    pub limit: usize,
    /// Customers of lower rank are not needed.
    pub least: Option<i128>,
    /// Only customers after this position are listed.
    pub after: Option<Arc<ListPosition>>,
}

/// A listed customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedCustomer {
    /// Position in the sort order.
    pub place: ListPosition,
    /// Figures of the customer.
    pub figures: CustomerFigures,
}

/// The result for some of the customers. Results of slices and partitions add up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Number of customers with the status, listed or not.
    pub total: u64,
    /// Net revenue to date of these customers, in minor units.
    pub revenue: BTreeMap<Currency, i128>,
    /// Currencies without a rate on the day, which are missing in the reporting currency.
    pub unconverted: BTreeSet<Currency>,
    /// The first customers; sorted after [`Listing::add`].
    pub first: Vec<ListedCustomer>,
}

impl Listing {
    /// Adds another result and keeps the first `limit` customers of both.
    pub fn add(&mut self, more: Listing, limit: usize) {
        self.total += more.total;
        for (currency, minor) in more.revenue {
            *self.revenue.entry(currency).or_default() += minor;
        }
        self.unconverted.extend(more.unconverted);
        self.first.extend(more.first);
        self.first.sort_unstable_by(|a, b| b.place.rank.cmp(&a.place.rank).then_with(|| a.place.id.cmp(&b.place.id)));
        self.first.truncate(limit);
    }

    /// The rank below which no customer is needed any more, if there are `limit` customers.
    #[must_use]
    pub fn least(&self, limit: usize) -> Option<i128> {
        self.first.get(limit.checked_sub(1)?).map(|last| last.place.rank)
    }
}

impl ListQuestion {
    /// Whether a customer comes after the start of the page; `id` is called only if the ranks are equal.
    fn is_behind(&self, rank: i128, id: impl FnOnce() -> String) -> bool {
        let Some(after) = &self.after else { return true };
        rank < after.rank || (rank == after.rank && id() > after.id)
    }
}

impl Engine {
    /// The currencies of all payments, and the reporting currency if there is one.
    #[must_use]
    pub fn currencies(&self) -> Vec<Currency> {
        self.currencies.iter().copied().filter(|currency| self.spec.tells(*currency)).collect()
    }

    /// Whether a customer has a record whose first event is not after `since`.
    #[must_use]
    pub fn knows_since(&self, id: &str, since: Time) -> bool {
        let slot = self.customers.find(&Key::new(id));
        slot.and_then(|slot| self.customers.record(slot).seen()).is_some_and(|seen| seen <= since)
    }

    /// The result for the customers in `slots` slots from `from` on, and where the next slice begins.
    #[must_use]
    pub fn listing(&self, question: &ListQuestion, from: usize, slots: usize) -> (Listing, Option<usize>) {
        let end = self.customers.slots();
        let until = from.saturating_add(slots).min(end);
        let day = self.spec.zone.day(question.at);
        let mut found = Listing::default();
        // The top is the customer to drop first: the lowest rank, of equal ranks the last id.
        let mut first = BinaryHeap::<Reverse<(i128, Reverse<String>, Slot)>>::new();
        for slot in (from..until).filter_map(|slot| u32::try_from(slot).ok()).map(Slot) {
            let record = self.customers.record(slot);
            if self.status_at(record, question.at) != Some(question.status) {
                continue;
            }
            found.total += 1;
            self.add_revenue(slot, day, &mut found);
            let rank = self.rank(slot, record, question.order, day);
            let least = match first.peek() {
                Some(Reverse((last, ..))) if first.len() >= question.limit => question.least.max(Some(*last)),
                _ => question.least,
            };
            // Equal ranks are needed because the id decides between them.
            if least.is_none_or(|least| rank >= least) && question.is_behind(rank, || self.customers.id(slot)) {
                first.push(Reverse((rank, Reverse(self.customers.id(slot)), slot)));
                if first.len() > question.limit {
                    first.pop();
                }
            }
        }
        let customer = |Reverse((rank, Reverse(id), slot))| ListedCustomer {
            place: ListPosition { rank, id },
            figures: self.customer_figures(slot, question.at),
        };
        found.add(Listing { first: first.into_iter().map(customer).collect(), ..Listing::default() }, question.limit);
        (found, (until < end).then_some(until))
    }

    /// `None` for a prospect and for a slot without a customer.
    fn status_at(&self, record: &Record, at: Time) -> Option<Status> {
        if record.tag == KeyTag::FREE || record.tag == KeyTag::ERASED {
            return None;
        }
        let (first, last) = record.first().zip(record.newest(0))?;
        Some(self.spec.lifecycle.standing(record.orders, first, last, at).1)
    }

    fn add_revenue(&self, slot: Slot, day: Day, to: &mut Listing) {
        for (currency, minor) in self.net_revenue_of(slot) {
            *to.revenue.entry(currency).or_default() += i128::from(minor);
            if self.spec.rates.as_ref().is_some_and(|rates| rates.worth(currency, minor, day).is_none()) {
                to.unconverted.insert(currency);
            }
        }
        if let Some((reporting, worth)) = self.net_worth(slot, day) {
            *to.revenue.entry(reporting).or_default() += worth;
        }
    }

    fn rank(&self, slot: Slot, record: &Record, order: Order, day: Day) -> i128 {
        let (first, last) = (record.first().unwrap_or(Time::MIN), record.newest(0).unwrap_or(Time::MIN));
        let turns = || self.spec.lifecycle.turns(record.orders, first, last);
        let of_currency = |wanted| {
            let mut all = self.net_revenue_of(slot);
            all.find(|(currency, _)| *currency == wanted).map(|(_, minor)| i128::from(minor))
        };
        match order {
            // Customers who never paid in the currency come last.
            Order::Value(wanted) if wanted.is_reporting() => {
                self.net_worth(slot, day).map_or(i128::MIN, |(_, worth)| worth)
            }
            Order::Value(wanted) => of_currency(wanted).unwrap_or(i128::MIN),
            Order::Orders => i128::from(record.orders),
            Order::LastOrder => -i128::from(last.millis()),
            Order::AtRiskSince => -i128::from(turns().0.millis()),
            Order::LapsesAt => -i128::from(turns().1.millis()),
            Order::LapsedAt => i128::from(turns().1.millis()),
        }
    }

    /// Net revenue of a customer to date, by currency.
    pub(super) fn net_revenue_of(&self, slot: Slot) -> impl Iterator<Item = (Currency, i64)> {
        let all = self.net_revenue.of(slot, self.customers.record(slot));
        all.filter_map(|(number, minor)| Some((*self.currencies.get(usize::from(number))?, minor)))
    }

    /// Net revenue of a customer to date in the reporting currency, at the rates of a day. Currencies without a rate on
    /// that day are left out; `None` if all are, or without a reporting currency.
    ///
    /// This is not the sum of the orders at the rates of their own days, which would have to be stored for every
    /// customer.
    pub(super) fn net_worth(&self, slot: Slot, day: Day) -> Option<(Currency, i128)> {
        let rates = self.spec.rates.as_ref()?;
        let worths = self.net_revenue_of(slot).filter_map(|(currency, minor)| rates.worth(currency, minor, day));
        Some((rates.reporting(), worths.reduce(|sum, more| sum.saturating_add(more))?))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::engine::rates::{Rate, Rates};
    use crate::engine::spec::Spec;
    use crate::engine::tests::spec;
    use crate::event::{Attributes, DAY, Event, HOUR, Kind, Money};

    /// Customer, time and amount of each order.
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

    fn ask(engine: &Engine, question: &ListQuestion, slots: usize) -> Listing {
        let (mut all, mut from) = (Listing::default(), Some(0));
        while let Some(next) = from {
            let question = ListQuestion { least: all.least(question.limit), ..question.clone() };
            let found = engine.listing(&question, next, slots);
            all.add(found.0, question.limit);
            from = found.1;
        }
        all
    }

    fn question(status: Status, order: Order, at: Time, limit: usize) -> ListQuestion {
        ListQuestion { at, status, order, limit, least: None, after: None }
    }

    /// All pages; each begins after the last customer of the one before.
    fn pages(engine: &Engine, mut question: ListQuestion, slots: usize) -> Vec<Listing> {
        let mut pages = Vec::new();
        loop {
            let page = ask(engine, &question, slots);
            let last = page.first.last().map(|last| Arc::new(last.place.clone()));
            pages.push(page);
            let Some(last) = last else { return pages };
            question.after = Some(last);
        }
    }

    fn ids(listing: &Listing) -> impl Iterator<Item = String> {
        listing.first.iter().map(|one| one.place.id.clone())
    }

    proptest! {
        /// The list has as many customers as the difference arrays count, sorted, whatever the sizes of slices and
        /// pages.
        #[test]
        fn all_of_a_status_page_by_page(
            orders in prop::collection::vec((0..200_u8, 0..600_i64, 0..4_i64), 1..400),
            after in 0..4_000_i64,
            limit in 1..60_usize,
            slots in 1..300_usize,
            status in prop::sample::select(vec![Status::AtRisk, Status::Lapsed]),
        ) {
            let mut orders = orders;
            orders.sort_by_key(|(_, hours, _)| *hours);
            let engine = engine(&orders);
            let at = Time::clamped(15_000 * DAY + (300 + after) * HOUR);
            let eur = Currency::from_code("EUR").unwrap();
            let everybody = ask(&engine, &question(status, Order::Orders, at, usize::MAX), usize::MAX);
            let counted: i64 = engine.lifecycle(at).customers.iter().map(|of_stage| of_stage[status as usize]).sum();
            // The arrays know who had not ordered yet at that time; the records contain only the newest orders.
            if orders.iter().all(|(_, hours, _)| *hours <= 300 + after) {
                prop_assert_eq!(i64::try_from(everybody.total).unwrap(), counted);
            }
            prop_assert_eq!(everybody.first.len() as u64, everybody.total);
            let value = |customer: &ListedCustomer| {
                customer.figures.net_revenue.iter().find(|(currency, _)| *currency == eur).map(|(_, minor)| *minor)
            };
            let total: i64 = everybody.first.iter().filter_map(value).sum();
            prop_assert_eq!(everybody.revenue.get(&eur).copied().unwrap_or(0), i128::from(total));
            let ranked = |key: &dyn Fn(&ListedCustomer) -> i64| {
                let mut all: Vec<_> =
                    everybody.first.iter().map(|one| (std::cmp::Reverse(key(one)), one.place.id.clone())).collect();
                all.sort();
                all.into_iter().map(|(_, id)| id).collect::<Vec<_>>()
            };
            let turns = |one: &ListedCustomer| one.figures.turns.unwrap();
            for (order, expected) in [
                (Order::Value(eur), ranked(&|one| value(one).unwrap_or(i64::MIN))),
                (Order::Orders, ranked(&|one| one.figures.orders.into())),
                (Order::LastOrder, ranked(&|one| -one.figures.last_order.unwrap().millis())),
                (Order::AtRiskSince, ranked(&|one| -turns(one).0.millis())),
                (Order::LapsesAt, ranked(&|one| -turns(one).1.millis())),
                (Order::LapsedAt, ranked(&|one| turns(one).1.millis())),
            ] {
                let pages = pages(&engine, question(status, order, at, limit), slots);
                for page in &pages {
                    prop_assert_eq!((page.total, &page.revenue), (everybody.total, &everybody.revenue));
                }
                let found: Vec<_> = pages.iter().flat_map(ids).collect();
                prop_assert_eq!(found, expected, "{:?}", order);
            }
            for one in &everybody.first {
                let (at_risk, lapses) = turns(one);
                let expected = if at < lapses { Status::AtRisk } else { Status::Lapsed };
                prop_assert!(at_risk <= at && status == expected, "{:?}", one);
            }
        }
    }

    #[test]
    fn the_reporting_currency_compares_what_was_paid_in_others() {
        let currency = |code: &str| Currency::from_code(code).unwrap();
        let rate = |mantissa, scale| Rate::new(mantissa, scale).unwrap();
        let lines = [(0, currency("NOK"), rate(1, 1)), (15_010, currency("NOK"), rate(2, 1))];
        let spec = Spec { rates: Some(Rates::new(currency("EUR"), lines)), ..spec("UTC") };
        let mut engine = Engine::new(Arc::new(spec));
        let order = |customer: &'static str, minor, code| Event {
            customer: Cow::Borrowed(customer),
            time: Time::clamped(15_000 * DAY),
            kind: Kind::Order {
                id: None,
                amount: Money { minor, currency: currency(code) },
                attributes: Attributes::default(),
                referred_by: None,
            },
        };
        // b is worth 10.00 and 20.00 euros by the day, c 9.00 and 14.00, d has no rate.
        for (customer, minor, code) in
            [("a", 1_500, "EUR"), ("b", 10_000, "NOK"), ("c", 400, "EUR"), ("c", 5_000, "NOK"), ("d", 9_999_999, "SEK")]
        {
            engine.apply(0, &order(customer, minor, code));
        }
        let reporting = currency("EUR").as_reporting();
        let silent = |at: Time| {
            let (first, last) = (Time::clamped(15_000 * DAY), Time::clamped(15_000 * DAY));
            engine.spec().lifecycle.standing(1, first, last, at).1
        };
        let lapsed = Time::clamped(15_400 * DAY);
        assert_eq!(silent(lapsed), Status::Lapsed);
        let list = ask(&engine, &question(Status::Lapsed, Order::Value(reporting), lapsed, 9), usize::MAX);
        assert_eq!(ids(&list).collect::<Vec<_>>(), ["b", "a", "c", "d"]);
        let worth = |one: &ListedCustomer| one.figures.net_revenue.iter().find(|(of, _)| *of == reporting).copied();
        let worths: Vec<_> = list.first.iter().map(|one| worth(one).map(|(_, minor)| minor)).collect();
        assert_eq!(worths, [Some(2_000), Some(1_500), Some(1_400), None]);
        assert_eq!(list.revenue[&reporting], 4_900);
        assert_eq!(list.unconverted, BTreeSet::from([currency("SEK")]));
        let euros = ask(&engine, &question(Status::Lapsed, Order::Value(currency("EUR")), lapsed, 9), usize::MAX);
        assert_eq!(ids(&euros).collect::<Vec<_>>(), ["a", "c", "b", "d"]);
        // An earlier day has another rate.
        assert_eq!(engine.net_worth(Slot(1), 15_009), Some((reporting, 1_000)));
    }
}
