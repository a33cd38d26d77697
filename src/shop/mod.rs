//! A simulated shop: produces the messages that a real one would send.
//!
//! [`Shop`] is a pure, seeded, endless iterator: it opens no connections and reads no clock. The subcommands `simulate`
//! and `demo` send its messages at their own rate.
//!
//! A newcomer arrives, perhaps with a profile and a referrer, has a few sessions, orders (`purchase`), and after each
//! order either leaves or plans the next one. Customers who left may come back, or request erasure. Each customer has
//! one step on the agenda at a time, so memory depends on current customers and pending messages, not on past ones. All
//! facts go through the `outbox`, which delays and duplicates some of them.

mod chance;
mod fact;
mod market;
mod outbox;
mod people;
pub mod publisher;
mod purchase;
mod queue;
mod season;
mod settings;
#[cfg(test)]
mod tests;

use chance::{Chance, Tempers};
use fact::{CustomerId, Fact, FactKind};
pub use market::Channel;
use outbox::Outbox;
use people::{Customer, People, Step};
use queue::Queue;
use season::Season;
pub use settings::{Buying, Crisis, ShopSettings};

use crate::event::{DAY, HOUR, MINUTE, Time};

/// The initial customers arrive over two whole weeks.
const OPENING: i64 = 14 * DAY;
/// Share of newcomers with a profile before their first order.
const REGISTERED: f64 = 0.6;
/// Share of customers leaving in a crisis who also complain.
const CRISIS_COMPLAINTS: f64 = 0.15;

/// The topic of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Everything but sessions.
    Orders,
    /// Sessions.
    Sessions,
}

/// One message on the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The topic it belongs to.
    pub stream: Stream,
    /// The shop time at which it reaches the bus; never less than that of the message before,
    /// and always later than the event's own time.
    pub emitted_at: Time,
    /// The message key: the customer id.
    pub key: String,
    /// One event in native JSON; absent for a tombstone, which erases the customer.
    pub payload: Option<String>,
}

/// A simulated shop: an iterator over its messages in the order they reach the bus.
///
/// It ends only at [`Time::MAX`], or when no newcomer is to come and the last customer has left.
#[derive(Debug, Clone)]
pub struct Shop {
    settings: ShopSettings,
    chance: Chance,
    tempers: Tempers,
    season: Season,
    people: People,
    agenda: Queue<Task>,
    outbox: Outbox,
    founders_left: u64,
    arrivals: u64,
    orders: u64,
    sessions: u64,
}

/// A task on the agenda.
#[derive(Debug, Clone, Copy)]
enum Task {
    /// One of the initial customers arrives.
    Founder,
    /// A newcomer arrives.
    Newcomer,
    /// The crisis of this number strikes.
    Crisis(usize),
    /// The customer in this slot takes the next step.
    Step(usize),
}

impl Shop {
    /// Opens a shop.
    #[must_use]
    pub fn new(settings: ShopSettings) -> Shop {
        let mut shop = Shop {
            chance: Chance::new(settings.seed),
            tempers: Tempers::new(&settings.buying),
            season: Season::new(),
            people: People::default(),
            agenda: Queue::new(),
            outbox: Outbox::new(&settings),
            founders_left: settings.initial_customers,
            arrivals: 0,
            orders: 0,
            sessions: 0,
            settings,
        };
        for (number, crisis) in shop.settings.crises.iter().enumerate() {
            shop.agenda.push(crisis.at.max(shop.settings.start), Task::Crisis(number));
        }
        shop.await_founder(shop.settings.start);
        shop.await_newcomer(shop.settings.start);
        shop
    }

    fn run(&mut self, now: Time, ticket: u64, task: Task) {
        match task {
            Task::Founder => {
                self.arrive(now);
                self.await_founder(now);
            }
            Task::Newcomer => {
                self.arrive(now);
                self.await_newcomer(now);
            }
            Task::Crisis(number) => self.strike(now, number),
            Task::Step(slot) => {
                if let Some(customer) = self.people.take(slot, ticket) {
                    self.step(now, slot, customer);
                }
            }
        }
    }

    /// The next of `n` uniform points in the rest of the opening: the smallest of `n` uniform draws.
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
    fn await_founder(&mut self, now: Time) {
        if self.founders_left > 0 {
            let left = self.season.between(now, self.settings.start.plus(OPENING));
            let share = 1.0 - self.chance.unit().powf(1.0 / self.founders_left as f64);
            self.founders_left -= 1;
            self.agenda.push(self.season.after(now, left * share), Task::Founder);
        }
    }

    fn await_newcomer(&mut self, now: Time) {
        let rate = self.settings.customers_per_day;
        if rate > 0.0 && rate.is_finite() {
            let gap = self.chance.wait(days(1.0 / rate));
            self.agenda.push(self.season.after(now, gap), Task::Newcomer);
        }
    }

    fn arrive(&mut self, now: Time) {
        self.arrivals += 1;
        let slot = self.people.reserve();
        let mut customer = Customer::draw(&mut self.chance, &self.tempers, CustomerId(self.arrivals), now);
        if self.chance.happens(self.settings.referrals) {
            customer.referrer = self.people.anyone_active(&mut self.chance);
        }
        if self.chance.happens(REGISTERED) {
            let referrer = customer.referrer.take();
            self.tell(&customer, now, FactKind::Profile { place: customer.place, referrer });
        }
        if self.chance.happens(self.settings.window_shoppers) {
            let visits = self.few(5);
            self.appoint(slot, customer, now, Step::Stroll(visits));
        } else {
            let first = now.plus(self.chance.within(10 * MINUTE..DAY));
            self.lead_to_order(now, slot, customer, first);
        }
    }

    fn step(&mut self, now: Time, slot: usize, customer: Customer) {
        match customer.step {
            Step::Stroll(left) => {
                self.visit(&customer, now);
                if left > 1 {
                    let gap = self.chance.wait(days(3.0));
                    self.appoint(slot, customer, self.season.after(now, gap), Step::Stroll(left - 1));
                } else {
                    self.people.release(slot);
                }
            }
            Step::Browse => {
                self.visit(&customer, now);
                self.browse_or_lead(now, slot, customer);
            }
            Step::Lead(left) => {
                self.visit(&customer, now);
                let order_at = customer.order_at;
                match left {
                    0 | 1 => self.appoint(slot, customer, order_at, Step::Order),
                    2 => {
                        let last = order_at.plus(-self.chance.within(MINUTE..25 * MINUTE));
                        self.appoint(slot, customer, last.max(now), Step::Lead(1));
                    }
                    _ => {
                        let half = now.plus((order_at.millis() - now.millis()) / 2);
                        self.appoint(slot, customer, half, Step::Lead(left - 1));
                    }
                }
            }
            Step::Order => self.order(now, slot, customer),
            Step::Return => {
                let order_at = now.plus(self.chance.within(10 * MINUTE..DAY));
                self.lead_to_order(now, slot, customer, order_at);
            }
        }
    }

    /// Plans the next order; a customer whose next order is years away counts as gone.
    fn plan_order(&mut self, now: Time, slot: usize, mut customer: Customer) {
        let gap = self.chance.wait(1.0 / customer.rate);
        if gap.is_nan() || gap > days(2.0 * 365.0) {
            return self.leave(now, slot, customer);
        }
        customer.order_at = self.season.after(now, gap);
        self.plan_leads(now, &mut customer);
        self.browse_or_lead(now, slot, customer);
    }

    fn browse_or_lead(&mut self, now: Time, slot: usize, customer: Customer) {
        let gap = self.chance.wait(days(self.settings.buying.days_between_browsing));
        let browse_at = self.season.after(now, gap);
        if browse_at < customer.lead_at {
            self.appoint(slot, customer, browse_at, Step::Browse);
        } else {
            self.appoint(slot, customer, customer.lead_at.max(now), Step::Lead(customer.leads));
        }
    }

    fn lead_to_order(&mut self, now: Time, slot: usize, mut customer: Customer, order_at: Time) {
        customer.order_at = order_at;
        self.plan_leads(now, &mut customer);
        self.appoint(slot, customer, customer.lead_at, Step::Lead(customer.leads));
    }

    /// Plans one session just before the order, and up to two earlier ones.
    fn plan_leads(&mut self, now: Time, customer: &mut Customer) {
        customer.leads = self.few(4);
        let longest = if customer.leads > 1 { 30 * HOUR } else { 25 * MINUTE };
        customer.lead_at = customer.order_at.plus(-self.chance.within(MINUTE..longest)).max(now);
    }

    /// Leaves after an order, perhaps not permanently.
    fn leave(&mut self, now: Time, slot: usize, customer: Customer) {
        if self.chance.happens(self.settings.win_backs) {
            let back = now.plus(self.chance.within(100 * DAY..400 * DAY));
            self.appoint(slot, customer, back, Step::Return);
        } else {
            self.leave_for_good(now, slot, &customer);
        }
    }

    /// Erases long after the last refund was sent: a later event would create a new customer with the same id.
    fn leave_for_good(&mut self, now: Time, slot: usize, customer: &Customer) {
        if self.chance.happens(self.settings.erasures) {
            let tombstone = self.chance.happens(0.5);
            let at = now.plus(self.chance.within(30 * DAY..60 * DAY));
            self.tell(customer, at, FactKind::Erase { tombstone });
        }
        self.people.release(slot);
    }

    fn strike(&mut self, now: Time, number: usize) {
        let Some(crisis) = self.settings.crises.get(number).copied() else { return };
        for slot in 0..self.people.slots() {
            let Some(customer) = self.people.take_active(slot, crisis.channel) else { continue };
            if !self.chance.happens(crisis.share) {
                self.people.put(slot, customer);
                continue;
            }
            if self.chance.happens(CRISIS_COMPLAINTS) {
                let at = now.plus(self.chance.within(MINUTE..DAY));
                self.tell(&customer, at, FactKind::Complaint);
            }
            self.leave_for_good(now, slot, &customer);
        }
    }

    fn visit(&mut self, customer: &Customer, now: Time) {
        self.sessions += 1;
        self.tell(customer, now, FactKind::Session { session: self.sessions });
    }

    fn tell(&mut self, customer: &Customer, time: Time, what: FactKind) {
        self.outbox.send(&mut self.chance, Fact { customer: customer.id, time, what });
    }

    fn appoint(&mut self, slot: usize, mut customer: Customer, at: Time, step: Step) {
        customer.step = step;
        customer.ticket = self.agenda.push(at, Task::Step(slot));
        self.people.put(slot, customer);
    }

    /// Uniform from 1 to `end - 1`.
    fn few(&mut self, end: i64) -> u8 {
        u8::try_from(self.chance.within(1..end)).unwrap_or(1)
    }
}

impl Iterator for Shop {
    type Item = Published;

    fn next(&mut self) -> Option<Published> {
        loop {
            // A task creates only facts at its own time or later, so nothing can precede a message before it.
            match (self.outbox.next_at(), self.agenda.next_at()) {
                (Some(message), Some(task)) if message <= task => return self.outbox.receive(),
                (_, None) => return self.outbox.receive(),
                (_, Some(_)) => {
                    let (now, ticket, task) = self.agenda.pop()?;
                    self.run(now, ticket, task);
                }
            }
        }
    }
}

/// Days in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "a day in milliseconds is far below 2^53")]
fn days(days: f64) -> f64 {
    days * DAY as f64
}
