//! Lets notices leave, in their order, as far as somebody allows; and says what came of the rules.
//!
//! The wall clock decides only when a notice leaves, never whether there is one.

use super::table::{PendingAlertKind, WinbackCandidate};
use super::{Group, GroupState, stage_name, status_name};
use crate::engine::Engine;
use crate::engine::clock::Class;
use crate::engine::customers::Slot;
use crate::event::{Currency, Money, Time};

/// How much may leave now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// The minute of the wall clock, counted from the epoch.
    pub minute: i64,
    /// The most alerts in that minute; no limit when absent.
    pub alerts: Option<u32>,
    /// Whether nothing may leave at all.
    pub quiet: bool,
    /// The most notices of any kind at a time.
    pub most: usize,
}

impl Allowance {
    /// Everything may leave.
    pub const ALL: Allowance = Allowance { minute: 0, alerts: None, quiet: false, most: usize::MAX };
}

/// What somebody is to be told of a customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Who.
    pub customer: String,
    /// The name of the rule.
    pub rule: String,
    /// The last qualifying event.
    pub silent_since: Time,
    /// When the silence was due.
    pub due_at: Time,
    /// What there is to tell.
    pub what: AlertKind,
}

/// What there is to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertKind {
    /// The customer is silent.
    Inactive {
        /// Orders up to the instant when it was due.
        orders: u32,
        /// Stage at that instant.
        stage: &'static str,
        /// Status at that instant.
        status: &'static str,
        /// Whether there is a complaint.
        complained: bool,
        /// Net revenue.
        revenue: Vec<Money>,
    },
    /// The customer has ordered again.
    WonBack {
        /// When.
        ordered_at: Time,
        /// For how much.
        amount: Money,
    },
}

/// What came of a rule, over all time and for both groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleParts {
    /// The rule.
    pub rule: String,
    /// Treated and held out, see [`Group`].
    pub groups: [GroupParts; 2],
}

/// What came of the silences of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupParts {
    /// Silences that were due.
    pub due: u64,
    /// Alerts that have left.
    pub sent: u64,
    /// Silences that an order ended in time.
    pub won_back: u64,
    /// What those orders brought, in minor units.
    pub revenue: std::collections::BTreeMap<Currency, i128>,
}

impl GroupParts {
    /// What was added since `before`.
    #[must_use]
    pub fn since(&self, before: &GroupParts) -> GroupParts {
        let revenue = self.revenue.iter().map(|(currency, minor)| {
            let known = before.revenue.get(currency).copied().unwrap_or(0);
            (*currency, minor - known)
        });
        GroupParts {
            due: self.due.saturating_sub(before.due),
            sent: self.sent.saturating_sub(before.sent),
            won_back: self.won_back.saturating_sub(before.won_back),
            revenue: revenue.collect(),
        }
    }
}

impl std::ops::AddAssign<&GroupParts> for GroupParts {
    fn add_assign(&mut self, other: &GroupParts) {
        self.due += other.due;
        self.sent += other.sent;
        self.won_back += other.won_back;
        for (&currency, minor) in &other.revenue {
            *self.revenue.entry(currency).or_default() += minor;
        }
    }
}

/// Adds what came of rules in another place.
pub fn add_rules(sums: &mut Vec<RuleParts>, more: &[RuleParts]) {
    for rule in more {
        match sums.iter_mut().find(|sum| sum.rule == rule.rule) {
            Some(sum) => sum.groups.iter_mut().zip(&rule.groups).for_each(|(sum, more)| *sum += more),
            None => sums.push(rule.clone()),
        }
    }
}

/// A silence that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadline {
    /// The rule.
    pub rule: String,
    /// The last qualifying event.
    pub silent_since: Time,
    /// When it is due.
    pub due_at: Time,
    /// Once time has passed this it is decided.
    pub decided_at: Time,
    /// Whether the customer is never alerted.
    pub held_out: bool,
}

impl Engine {
    /// Takes out the notices that may leave, in their order.
    pub fn release(&mut self, allowance: &Allowance) -> Vec<Alert> {
        let mut alerts = Vec::new();
        if allowance.quiet || self.inactivity.queue.is_empty() {
            return alerts;
        }
        while alerts.len() < allowance.most {
            let Some(&(number, slot)) = self.inactivity.queue.front() else { break };
            let known = self.inactivity.table.notices(slot);
            let notice = known.iter().find(|notice| notice.number == number).cloned();
            if let Some(notice) = &notice
                && matches!(notice.news, PendingAlertKind::Silent { .. })
                && !self.may_alert(allowance)
            {
                break;
            }
            self.inactivity.queue.pop_front();
            // One of a customer who was erased meanwhile is gone.
            let Some(notice) = notice else { continue };
            self.before_change(slot);
            let mut silences = self.inactivity.table.take(slot);
            silences.notices.retain(|waiting| waiting.number != number);
            self.inactivity.table.put(slot, silences);
            self.inactivity.waiting -= 1;
            self.customers.record_mut(slot);
            self.written.note_change();
            let rule = &mut self.inactivity.state.rules[usize::from(notice.rule)];
            if matches!(notice.news, PendingAlertKind::Silent { .. }) {
                rule.groups[Group::Treated as usize].sent += 1;
            }
            let rule = rule.name.clone();
            let (silent_since, due_at) = (Time::clamped(notice.since), Time::clamped(notice.due));
            let Some(what) = self.told(notice.news) else { continue };
            alerts.push(Alert { customer: self.customers.id(slot), rule, silent_since, due_at, what });
        }
        alerts
    }

    /// Whether one more alert may leave in this minute, which then counts.
    fn may_alert(&mut self, allowance: &Allowance) -> bool {
        let Some(most) = allowance.alerts else { return true };
        let (minute, left) = &mut self.inactivity.state.minute;
        if *minute != allowance.minute {
            (*minute, *left) = (allowance.minute, 0);
        }
        let may = *left < most;
        *left += u32::from(may);
        may
    }

    fn told(&self, news: PendingAlertKind) -> Option<AlertKind> {
        let money = |number: u8, minor: i64| {
            let currency = *self.currencies.get(usize::from(number))?;
            Some(Money { currency, minor })
        };
        Some(match news {
            PendingAlertKind::Silent { orders, stage, status, complained, revenue } => AlertKind::Inactive {
                orders,
                stage: stage_name(stage),
                status: status_name(status),
                complained,
                revenue: revenue.into_iter().filter_map(|(number, minor)| money(number, minor)).collect(),
            },
            PendingAlertKind::Back(WinbackCandidate { at, currency, minor }) => {
                AlertKind::WonBack { ordered_at: Time::clamped(at), amount: money(currency, minor)? }
            }
        })
    }

    /// Silences due before that are none, unless the rules say from when on they are.
    pub fn set_alerts_since(&mut self, since: Time) {
        let spec = std::sync::Arc::clone(&self.spec);
        self.inactivity.set_since(&spec.inactivity, since);
    }

    /// How many alerts and win-backs wait to leave.
    #[must_use]
    pub fn waiting_alerts(&self) -> usize {
        self.inactivity.waiting()
    }

    /// What came of each rule so far, rules that are no longer there included where something did.
    #[must_use]
    pub fn inactivity(&self) -> Vec<RuleParts> {
        let rules = self.inactivity.state.rules.iter();
        let is_told = |groups: &[GroupState; 2]| groups.iter().any(|group| *group != GroupState::default());
        let rules = rules.filter(|rule| rule.active || is_told(&rule.groups));
        rules
            .map(|rule| RuleParts { rule: rule.name.clone(), groups: rule.groups.each_ref().map(|g| self.group(g)) })
            .collect()
    }

    fn group(&self, state: &GroupState) -> GroupParts {
        let GroupState { due, sent, won_back, revenue } = state;
        let named = |&(number, minor): &(u8, i64)| Some((*self.currencies.get(usize::from(number))?, minor.into()));
        GroupParts { due: *due, sent: *sent, won_back: *won_back, revenue: revenue.iter().filter_map(named).collect() }
    }

    /// The silences of a customer that go on and are not decided yet, the first due first.
    pub(in crate::engine) fn deadlines(&self, slot: Slot) -> Vec<Deadline> {
        let held_out = self.spec.inactivity.is_held_out(&self.customers.id(slot));
        let mut deadlines = Vec::new();
        for class in [Class::Orders, Class::Sessions] {
            let from = self.inactivity.state.due_to[class as usize].unwrap_or(i64::MIN);
            self.each_silence(slot, class, from, |silent| {
                if silent.is_over || !self.would_tell(slot, &silent) {
                    return;
                }
                let due_at = Time::clamped(silent.due);
                deadlines.push(Deadline {
                    rule: self.spec.inactivity.rules[silent.rule].name.clone(),
                    silent_since: Time::clamped(silent.since),
                    due_at,
                    decided_at: due_at.plus(self.spec.inactivity.settle),
                    held_out,
                });
            });
        }
        deadlines.sort_by_key(|deadline| deadline.due_at);
        deadlines
    }
}
