//! Detects silent customers, alerts about them and measures win-backs. `docs/definitions.md` defines the same in SQL.
//!
//! A silence begins at a qualifying event y and is due at y + `after` unless another qualifying event is in (y, y +
//! `after`]. It is decided once event time has passed the due time by more than `settle`. So exactly the silences due
//! before [`State::due_to`] are decided; the others follow from the records and need no state ([`decide`]). [`wheel`]
//! schedules when to check which customer; [`table`] holds the silences and alerts in progress.

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

/// Number of orders from which a customer's own mean gap counts.
const ORDERS_WITH_PACE: u32 = 3;

/// The rules and their common settings. Durations are in milliseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InactivitySpec {
    /// The rules.
    pub rules: Vec<RuleSpec>,
    /// How long a due silence waits for late events.
    pub settle: i64,
    /// Silences due before this time do not count; `None`: the caller sets it with [`Inactivity::set_since`].
    pub since: Option<Time>,
    /// Share of customers who are never alerted, from 0 to below 1.
    pub holdout: f64,
    /// Salt of the hash that selects the hold-out.
    pub salt: String,
    /// How long after the due time an order is a win-back.
    pub winback_within: i64,
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleSpec {
    /// The value of the label `rule`.
    pub name: String,
    /// Definition of silence.
    pub silence: SilenceRule,
    /// Customers whose silence counts.
    pub filter: Filter,
}

/// Definition of silence; durations are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SilenceRule {
    /// No order for this duration.
    After(i64),
    /// No order for `factor` times the customer's mean gap between orders, limited to `min` and `max`; from the third
    /// order on.
    Cadence {
        /// Multiple of the mean gap.
        factor: f64,
        /// Minimum duration.
        min: i64,
        /// Maximum duration.
        max: i64,
    },
    /// No session for this duration; sessions count by the minute in which they begin.
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

    /// Duration after which a silence is due that begins at `y`, the order number `rank`, where `first` is the first
    /// order. For a cadence: floor(factor x (y - first) / (rank - 1)), clamped.
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

    /// Text that identifies the definition: a rule whose text changed is another rule.
    fn definition(&self) -> String {
        match self {
            SilenceRule::After(after) => format!("after={after}"),
            SilenceRule::Cadence { factor, min, max } => format!("cadence={factor};min={min};max={max}"),
            SilenceRule::NoSessionFor(after) => format!("no_session_for={after}"),
        }
    }
}

/// Customers whose silence counts; an empty filter selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Numbers of the allowed stages, see [`stage_number`]; if empty, all are allowed.
    pub stages: Vec<u8>,
    /// Minimum number of orders.
    pub min_orders: u32,
    /// Minimum net revenue in its currency.
    pub min_revenue: Option<Money>,
    /// Required values, by index of the dimension.
    pub segment: Vec<(usize, String)>,
}

/// The number of a stage; 0 for a prospect.
#[must_use]
pub const fn stage_number(stage: Option<Stage>) -> u8 {
    match stage {
        None => 0,
        Some(stage) => stage as u8 + 1,
    }
}

/// The name of a stage by number.
#[must_use]
pub const fn stage_name(number: u8) -> &'static str {
    match number {
        0 => "prospect",
        1 => Stage::New.name(),
        2 => Stage::Repeat.name(),
        _ => Stage::Loyal.name(),
    }
}

/// The number of a status; 0 for a prospect.
#[must_use]
pub const fn status_number(status: Option<Status>) -> u8 {
    match status {
        None => 0,
        Some(status) => status as u8 + 1,
    }
}

/// The name of a status by number.
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
    /// Whether a customer is never alerted, by any rule: the first eight bytes of SHA-256 over "holdout", 0, salt, 0,
    /// customer, read as a big-endian number, are less than `holdout` x 2^64.
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

/// Whether customers are alerted or only measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Customers who are alerted.
    Treated = 0,
    /// Customers who are never alerted, for comparison.
    Holdout = 1,
}

impl Group {
    /// All groups.
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

/// Results of one group, over all time.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupState {
    /// Silences that were due.
    pub due: u64,
    /// Alerts released.
    pub sent: u64,
    /// Silences that ended with a win-back.
    pub won_back: u64,
    /// Amounts of these orders in minor units, by the engine's number of the currency.
    pub revenue: Vec<(u8, i64)>,
}

/// State of a rule, as files store it; a removed rule keeps its number.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleState {
    /// Name of the rule.
    pub name: String,
    /// Definition of silence.
    pub definition: String,
    /// Whether the rule is configured.
    pub active: bool,
    /// Class of the qualifying events: 0 orders, 1 sessions.
    pub class: u8,
    /// The shortest possible silence in milliseconds.
    pub shortest: i64,
    /// Silences due before this time (epoch milliseconds) do not count for this rule.
    pub since: i64,
    /// Silences that begin before this time do not count either.
    pub from: i64,
    /// Results of the treated and the held-out customers.
    pub groups: [GroupState; 2],
}

/// State of the silences that is neither in records nor in [`Table`], as files store it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// All silences of orders, and of sessions, that were due before this time are decided; `None` before the first
    /// event.
    pub due_to: [Option<i64>; 2],
    /// The number of the next notice.
    pub number: u64,
    /// The last minute of the wall clock in which alerts were released, and how many.
    pub minute: (i64, u32),
    /// The rules by number.
    pub rules: Vec<RuleState>,
}

/// The silences of a partition.
#[derive(Debug, Clone, Default)]
pub struct Inactivity {
    state: State,
    /// Silences due before this time do not count.
    since: i64,
    /// The number of each rule of the spec.
    numbers: Vec<u16>,
    bounds: Bounds,
    wheels: [Wheel; 2],
    /// Buffer for the customers that a wheel returns.
    due: Vec<Slot>,
    table: Table,
    /// Numbers and customers of the notices to release; some of these no longer exist.
    queue: VecDeque<(u64, Slot)>,
    /// Number of notices that still exist.
    waiting: usize,
}

/// Summary of the rules, for a quick check of every order.
#[derive(Debug, Clone, Copy, Default)]
struct Bounds {
    /// Whether there is a rule about orders, and about sessions.
    has: [bool; 2],
    has_cadence: bool,
    /// The shortest possible silence between orders.
    shortest: i64,
    /// The longest possible silence, of orders and of sessions.
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
    /// No silences.
    #[must_use]
    pub fn new(spec: &InactivitySpec) -> Inactivity {
        let mut new = Inactivity { bounds: Bounds::of(spec), ..Inactivity::default() };
        // Until [`Inactivity::set_since`] no silence counts, so that not every customer who ever fell silent is
        // alerted.
        new.since = spec.since.map_or(i64::MAX, Time::millis);
        new.adopt(spec, None);
        new
    }

    /// Restores the state of a checkpoint; the rules may have changed since. `clock` is that of the checkpoint.
    pub fn resume(&mut self, spec: &InactivitySpec, state: State, clock: &Clock) {
        let watermark = clock.watermark();
        self.state = state;
        for class in [Class::Orders, Class::Sessions] {
            // Without a rule nothing was decided, and little is known of the silences that were due during that time.
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

    /// Assigns a number to each rule of the spec. A new rule counts silences that are due from `watermark` on.
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
                // Silences may have been decided under the old definition, but none that begin from here on.
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

    /// The state, for files.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.clone()
    }

    /// Sets from when on silences count, unless the spec does.
    pub fn set_since(&mut self, spec: &InactivitySpec, since: Time) {
        self.since = spec.since.unwrap_or(since).millis();
    }

    /// Number of entries in the wheels.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.wheels.iter().map(Wheel::entries).sum()
    }

    /// The silences and alerts in progress.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Restores the silences of a customer.
    pub fn restore(&mut self, slot: Slot, silences: table::Silences) {
        self.table.put(slot, silences);
    }

    /// Removes a customer.
    pub fn remove(&mut self, slot: Slot) {
        self.waiting -= self.table.take(slot).notices.len();
    }

    /// Takes back an order, which may have ended a silence.
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

    /// As [`Inactivity::retract`], for the only order at a time in epoch milliseconds.
    pub fn retract_at(&mut self, slot: Slot, at: i64) {
        let silences = self.table.get(slot);
        let ended = silences.open.iter().filter_map(|open| open.back);
        if let Some(order) = silences.winback_candidates.iter().copied().chain(ended).find(|order| order.at == at) {
            self.retract(slot, order);
        }
    }

    /// Number of notices to release.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// The time from which all events of a class have to be known, if any.
    fn known_from(&self, class: Class) -> Option<i64> {
        let [orders, sessions] = self.state.due_to;
        match class {
            // The number of orders is also needed when a silence of sessions was due.
            Class::Orders => orders.into_iter().chain(sessions).min(),
            Class::Sessions => sessions,
        }
    }

    /// Events of the class from this time on must be kept; `floor` is the time from which they may still arrive.
    #[inline]
    #[must_use]
    pub fn retention(&self, class: Class, floor: Time) -> Time {
        if self.bounds.is_off() {
            return floor;
        }
        self.known_from(class).map_or(floor, |from| floor.min(Time::clamped(from)))
    }

    /// Approximate memory in bytes.
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

    /// Any SHA-256 gives the same bytes: `printf 'holdout\0salt\0c-1' | sha256sum`.
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
