//! Who falls silent, who of them is alerted, and who comes back. `docs/definitions.md` says the same in SQL.
//!
//! A silence begins at a qualifying event y and is due at y + `after` unless another one lies in (y, y + `after`]. It
//! is decided once time has passed that instant by more than `settle`; so everything due before [`State::due_to`] is
//! decided and nothing else, which is all that has to be remembered of it: what is due later follows from the records
//! ([`decide`]). [`wheel`] says whose record to look at when, [`table`] holds what is under way of the few who were due
//! lately.

pub mod decide;
mod packed;
pub mod release;
pub mod table;
pub mod wheel;

use std::collections::VecDeque;

use sha2::{Digest as _, Sha256};

use super::clock::{Class, Clock};
use super::customers::Slot;
use super::lifecycle::{Stage, Status};
use crate::event::{Money, Time};
use table::Table;
use wheel::Wheel;

/// How many orders a customer needs before the own pace counts.
const ORDERS_WITH_PACE: u32 = 3;

/// The rules, and what holds for all of them. Spans are milliseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InactivitySpec {
    /// The rules.
    pub rules: Vec<RuleSpec>,
    /// How long a due silence waits for late events.
    pub settle: i64,
    /// Silences due before this are none; `None`: whoever begins the engine says from when on.
    pub since: Option<Time>,
    /// The share of the customers that is never alerted, from 0 to below 1.
    pub holdout: f64,
    /// Chooses who is held out.
    pub salt: String,
    /// How long after the silence was due an order is a win-back.
    pub winback_within: i64,
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleSpec {
    /// The value of the label `rule`.
    pub name: String,
    /// What silence is.
    pub silence: SilenceRule,
    /// Whose silence counts.
    pub filter: Filter,
}

/// After how many milliseconds a silence is due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SilenceRule {
    /// Without an order for that long.
    After(i64),
    /// Without an order for `factor` times the own mean gap between orders, within `min` and `max`; from the third
    /// order on.
    Cadence {
        /// Multiple of the mean gap.
        factor: f64,
        /// At least.
        min: i64,
        /// At most.
        max: i64,
    },
    /// Without a session for that long; sessions count by the minute in which they begin.
    NoSessionFor(i64),
}

impl SilenceRule {
    /// Which events qualify.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            SilenceRule::After(_) | SilenceRule::Cadence { .. } => Class::Orders,
            SilenceRule::NoSessionFor(_) => Class::Sessions,
        }
    }

    /// The shortest silence that can be due.
    #[must_use]
    pub fn shortest(&self) -> i64 {
        match *self {
            SilenceRule::After(after) | SilenceRule::NoSessionFor(after) => after,
            SilenceRule::Cadence { min, .. } => min,
        }
    }

    fn longest(&self) -> i64 {
        match *self {
            SilenceRule::After(after) | SilenceRule::NoSessionFor(after) => after,
            SilenceRule::Cadence { max, .. } => max,
        }
    }

    /// After how long the silence is due that begins at `y`, the qualifying event number `rank`, `first` being the
    /// first order: for a cadence floor(factor x (y - first) / (rank - 1)), clamped.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "spans are far below 2^53 ms")]
    #[inline]
    fn after(&self, rank: u32, first: i64, y: i64) -> Option<i64> {
        match *self {
            SilenceRule::After(after) | SilenceRule::NoSessionFor(after) => Some(after),
            SilenceRule::Cadence { .. } if rank < ORDERS_WITH_PACE => None,
            SilenceRule::Cadence { factor, min, max } => {
                let pace = factor * (y - first) as f64 / f64::from(rank - 1);
                Some((pace.floor() as i64).max(min).min(max))
            }
        }
    }

    /// The text that says what a rule means: with another one it is another rule.
    fn definition(&self) -> String {
        match self {
            SilenceRule::After(after) => format!("after={after}"),
            SilenceRule::Cadence { factor, min, max } => format!("cadence={factor};min={min};max={max}"),
            SilenceRule::NoSessionFor(after) => format!("no_session_for={after}"),
        }
    }
}

/// Whose silence counts; an empty filter lets everybody through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The numbers of the stages, any of which will do; when empty all do. See [`stage_number`].
    pub stages: Vec<u8>,
    /// At least that many orders.
    pub min_orders: u32,
    /// At least that much net revenue in its currency.
    pub min_revenue: Option<Money>,
    /// The places of dimensions, and the value that each must have.
    pub segment: Vec<(usize, String)>,
}

/// The number of a stage: 0 of a prospect.
#[must_use]
pub const fn stage_number(stage: Option<Stage>) -> u8 {
    match stage {
        None => 0,
        Some(stage) => stage as u8 + 1,
    }
}

/// The name of a stage by its number.
#[must_use]
pub const fn stage_name(number: u8) -> &'static str {
    match number {
        0 => "prospect",
        1 => Stage::New.name(),
        2 => Stage::Repeat.name(),
        _ => Stage::Loyal.name(),
    }
}

/// The number of a status: 0 of a prospect.
#[must_use]
pub const fn status_number(status: Option<Status>) -> u8 {
    match status {
        None => 0,
        Some(status) => status as u8 + 1,
    }
}

/// The name of a status by its number.
#[must_use]
pub const fn status_name(number: u8) -> &'static str {
    match number {
        0 => "none",
        1 => Status::Active.name(),
        2 => Status::AtRisk.name(),
        _ => Status::Lapsed.name(),
    }
}

impl InactivitySpec {
    /// Whether a customer is never alerted, the same for all rules: the first eight bytes of SHA-256 over "holdout", 0,
    /// salt, 0, customer, read as a big-endian number, are less than `holdout` x 2^64.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share")]
    #[must_use]
    pub fn is_held_out(&self, customer: &str) -> bool {
        if self.holdout <= 0.0 {
            return false;
        }
        let mut hash = Sha256::new();
        for part in ["holdout", "\0", &self.salt, "\0", customer] {
            hash.update(part);
        }
        let head = hash.finalize().iter().take(8).fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
        head < (self.holdout * 2_f64.powi(64)) as u64
    }
}

/// Whether customers are told of or only measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// They are alerted.
    Treated = 0,
    /// They never are, for comparison.
    Holdout = 1,
}

impl Group {
    /// Both.
    pub const ALL: [Group; 2] = [Group::Treated, Group::Holdout];

    /// The value of the label `group`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Group::Treated => "treated",
            Group::Holdout => "holdout",
        }
    }

    const fn of(held_out: bool) -> Group {
        if held_out { Group::Holdout } else { Group::Treated }
    }
}

/// What came of the silences of one group, over all time.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupState {
    /// Silences that were due.
    pub due: u64,
    /// Alerts that have left.
    pub sent: u64,
    /// Silences that an order ended in time.
    pub won_back: u64,
    /// What those orders brought, by the number of the currency, in minor units.
    pub revenue: Vec<(u8, i64)>,
}

/// A rule as files hold it; one that is no longer there keeps its number.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleState {
    /// Its name.
    pub name: String,
    /// What silence is.
    pub definition: String,
    /// Whether there is such a rule.
    pub active: bool,
    /// Which events qualify: 0 orders, 1 sessions.
    pub class: u8,
    /// The shortest silence that can be due, in milliseconds.
    pub shortest: i64,
    /// Silences due before that, in epoch milliseconds, are not of this rule.
    pub since: i64,
    /// Nor are those that begin before that.
    pub from: i64,
    /// What came of it, treated and held out.
    pub groups: [GroupState; 2],
}

/// What an engine knows of silences besides what its records and [`Table`] hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Every silence of orders, and of sessions, that was due before is decided; `None` before time began.
    pub due_to: [Option<i64>; 2],
    /// The number of the next notice.
    pub number: u64,
    /// The last minute of the wall clock in which alerts left, and how many did.
    pub minute: (i64, u32),
    /// The rules; the numbers of rules are the places here.
    pub rules: Vec<RuleState>,
}

/// What an engine knows of silences.
#[derive(Debug, Clone, Default)]
pub struct Inactivity {
    state: State,
    /// Silences due before this are none.
    since: i64,
    /// The number of each rule of the spec.
    numbers: Vec<u16>,
    bounds: Bounds,
    wheels: [Wheel; 2],
    /// Room for those whom a wheel gives.
    due: Vec<Slot>,
    table: Table,
    /// The numbers of the notices that wait to leave, and whose they are; some of them no longer exist.
    queue: VecDeque<(u64, Slot)>,
    /// How many of them do.
    waiting: usize,
}

/// What the way of an order has to know of the rules.
#[derive(Debug, Clone, Copy, Default)]
struct Bounds {
    /// Whether there is a rule on orders, and on sessions.
    has: [bool; 2],
    has_cadence: bool,
    /// The shortest silence between orders that can be due.
    shortest: i64,
    /// The longest of each.
    longest: [i64; 2],
}

impl Bounds {
    fn of(spec: &InactivitySpec) -> Bounds {
        let mut bounds = Bounds { shortest: i64::MAX, ..Bounds::default() };
        for RuleSpec { silence, .. } in &spec.rules {
            let class = silence.class() as usize;
            bounds.has[class] = true;
            bounds.longest[class] = bounds.longest[class].max(silence.longest());
            bounds.has_cadence |= matches!(silence, SilenceRule::Cadence { .. });
            if silence.class() == Class::Orders {
                bounds.shortest = bounds.shortest.min(silence.shortest());
            }
        }
        bounds
    }

    #[inline]
    fn is_off(&self) -> bool {
        self.has == [false; 2]
    }
}

impl Inactivity {
    /// Nothing happened yet.
    #[must_use]
    pub fn new(spec: &InactivitySpec) -> Inactivity {
        let mut new = Inactivity { bounds: Bounds::of(spec), ..Inactivity::default() };
        // Until somebody says so nobody is told of, rather than everybody who ever fell silent.
        new.since = spec.since.map_or(i64::MAX, Time::millis);
        new.adopt(spec, None);
        new
    }

    /// Goes on with the state of a checkpoint under rules that may have changed since, `clock` being how far time had
    /// come.
    pub fn resume(&mut self, spec: &InactivitySpec, state: State, clock: &Clock) {
        let watermark = clock.watermark();
        self.state = state;
        for class in [Class::Orders, Class::Sessions] {
            // While there was no rule nothing was decided, and of what was due meanwhile little is known.
            let had_rule = self.state.rules.iter().any(|rule| rule.active && rule.class == class as u8);
            if !had_rule {
                let begin = watermark
                    .filter(|_| clock.carried(class).is_some())
                    .map(|watermark| watermark.millis() - spec.settle);
                self.state.due_to[class as usize] = begin;
            }
        }
        self.adopt(spec, watermark);
    }

    /// Gives each rule of the spec its number; one that is new at `watermark` counts what is due from there on.
    fn adopt(&mut self, spec: &InactivitySpec, watermark: Option<Time>) {
        let mut old = std::mem::take(&mut self.state.rules);
        let was_active: Vec<_> = old.iter_mut().map(|rule| std::mem::take(&mut rule.active)).collect();
        let since = watermark.map_or(i64::MIN, Time::millis);
        self.numbers.clear();
        for RuleSpec { name, silence, .. } in &spec.rules {
            let place = old.iter().position(|rule| rule.name == *name);
            let place = place.unwrap_or_else(|| {
                old.push(RuleState { name: name.clone(), since, from: i64::MIN, ..RuleState::default() });
                old.len() - 1
            });
            let rule = &mut old[place];
            let (definition, is_known) = (silence.definition(), place < was_active.len());
            if is_known && (rule.definition != definition || !was_active[place]) {
                // Which silences were decided under the old definition: none of those that begin from here on.
                let due_to = self.state.due_to[usize::from(rule.class.min(1))].unwrap_or(i64::MIN);
                rule.from = rule.from.max(due_to.saturating_sub(rule.shortest));
                rule.since = since;
            }
            rule.active = true;
            rule.definition = definition;
            rule.class = silence.class() as u8;
            rule.shortest = silence.shortest();
            self.numbers.push(u16::try_from(place).unwrap_or(u16::MAX));
        }
        self.state.rules = old;
    }

    /// What files hold.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.clone()
    }

    /// Silences due before that are none, unless the rules say from when on they are.
    pub fn set_since(&mut self, spec: &InactivitySpec, since: Time) {
        self.since = spec.since.unwrap_or(since).millis();
    }

    /// How many entries the wheels hold.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.wheels.iter().map(Wheel::entries).sum()
    }

    /// What is under way, of each customer.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Puts back what is under way of a customer.
    pub fn restore(&mut self, slot: Slot, silences: table::Silences) {
        self.table.put(slot, silences);
    }

    /// Forgets a customer.
    pub fn remove(&mut self, slot: Slot) {
        self.waiting -= self.table.take(slot).notices.len();
    }

    /// Takes an order back, which may have ended a silence.
    pub fn retract(&mut self, slot: Slot, order: table::WinbackCandidate) {
        let mut silences = self.table.take(slot);
        if let Some(place) = silences.winback_candidates.iter().position(|known| *known == order) {
            silences.winback_candidates.remove(place);
        }
        for open in silences.open.iter_mut().filter(|open| open.back == Some(order)) {
            open.back = None;
            silences.winback_candidates.iter().for_each(|&other| _ = open.see(other));
        }
        self.table.put(slot, silences);
    }

    /// As [`Inactivity::retract`], of the only order at a time, in epoch milliseconds.
    pub fn retract_at(&mut self, slot: Slot, at: i64) {
        let silences = self.table.get(slot);
        let ended = silences.open.iter().filter_map(|open| open.back);
        if let Some(order) = silences.winback_candidates.iter().copied().chain(ended).find(|order| order.at == at) {
            self.retract(slot, order);
        }
    }

    /// How many notices wait to leave.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// From when on everything about events of a class has to be known, if that matters.
    fn known_from(&self, class: Class) -> Option<i64> {
        let [orders, sessions] = self.state.due_to;
        match class {
            // How many orders there were when a silence of sessions was due is asked too.
            Class::Orders => orders.into_iter().chain(sessions).min(),
            Class::Sessions => sessions,
        }
    }

    /// Until when the events of a class must be kept, `floor` being from when on some may still come in.
    #[inline]
    #[must_use]
    pub fn retention(&self, class: Class, floor: Time) -> Time {
        if self.bounds.is_off() {
            return floor;
        }
        self.known_from(class).map_or(floor, |from| floor.min(Time::clamped(from)))
    }

    /// Bytes of memory held, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let wheels: usize = self.wheels.iter().map(Wheel::bytes).sum();
        let due = self.due.capacity() * size_of::<Slot>();
        wheels + due + self.table.bytes() + self.queue.capacity() * size_of::<(u64, Slot)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes are those of any other SHA-256: `printf 'holdout\0salt\0c-1' | sha256sum`.
    #[test]
    fn who_is_held_out_follows_from_salt_and_customer() {
        let spec = |holdout: f64| InactivitySpec { holdout, salt: "salt".into(), ..InactivitySpec::default() };
        let share = (0..10_000).filter(|i| spec(0.1).is_held_out(&format!("c-{i}"))).count();
        assert!((900..1_100).contains(&share), "{share}");
        assert!(!spec(0.0).is_held_out("c-1") && spec(0.999_999).is_held_out("c-1"));
        let other = InactivitySpec { salt: "another".into(), ..spec(0.5) };
        assert!((0..100).any(|i| other.is_held_out(&i.to_string()) != spec(0.5).is_held_out(&i.to_string())));
    }

    #[test]
    fn a_pace_needs_three_orders_and_stays_within_its_bounds() {
        let cadence = SilenceRule::Cadence { factor: 1.5, min: 100, max: 1_000 };
        assert_eq!(cadence.after(2, 0, 500), None);
        assert_eq!(cadence.after(3, 0, 501), Some(375));
        assert_eq!(cadence.after(4, 0, 100), Some(100));
        assert_eq!(cadence.after(3, 0, 100_000), Some(1_000));
    }
}
