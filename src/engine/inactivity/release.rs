//! Releases notices in their order, within limits of the wall clock, and reports the results of the rules.
//!
//! The wall clock decides only when a notice is released, never whether there is one.

use super::table::{PendingAlertKind, WinbackCandidate};
use super::{Group, GroupState, stage_name, status_name};
use crate::engine::Engine;
use crate::engine::clock::Class;
use crate::engine::customers::Slot;
use crate::event::{Currency, Money, Time};

/// How many notices may be released now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// The minute of the wall clock since the epoch.
    pub minute: i64,
    /// Maximum number of alerts in that minute; `None` without a limit.
    pub alerts: Option<u32>,
    /// Whether nothing may be released.
    pub quiet: bool,
    /// Maximum number of notices per call.
    pub most: usize,
}

impl Allowance {
    /// No limits.
    pub const ALL: Allowance = Allowance { minute: 0, alerts: None, quiet: false, most: usize::MAX };
}

/// A released notice about a customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// The customer id.
    pub customer: String,
    /// The name of the rule.
    pub rule: String,
    /// The last qualifying event.
    pub silent_since: Time,
    /// The due time of the silence.
    pub due_at: Time,
    /// Content.
    pub what: AlertKind,
}

/// Content of a released notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertKind {
    /// The customer is silent.
    Inactive {
        /// Orders up to the due time.
        orders: u32,
        /// Stage at the due time.
        stage: &'static str,
        /// Status at the due time.
        status: &'static str,
        /// Whether the customer has complained.
        complained: bool,
        /// Net revenue by currency.
        revenue: Vec<Money>,
    },
    /// The customer has ordered again.
    WonBack {
        /// Time of the order.
        ordered_at: Time,
        /// Amount of the order.
        amount: Money,
    },
}

/// Results of a rule, over all time and for both groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleParts {
    /// Name of the rule.
    pub rule: String,
    /// Results of the treated and the held-out customers, by [`Group`].
    pub groups: [GroupParts; 2],
}

/// Results of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupParts {
    /// Silences that were due.
    pub due: u64,
    /// Alerts released.
    pub sent: u64,
    /// Silences that ended with a win-back.
    pub won_back: u64,
    /// Amounts of these orders in minor units.
    pub revenue: std::collections::BTreeMap<Currency, i128>,
}

impl GroupParts {
    /// The increase since `before`.
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

/// Adds the results of another partition, by rule.
pub fn add_rules(sums: &mut Vec<RuleParts>, more: &[RuleParts]) {
    for rule in more {
        match sums.iter_mut().find(|sum| sum.rule == rule.rule) {
            Some(sum) => sum.groups.iter_mut().zip(&rule.groups).for_each(|(sum, more)| *sum += more),
            None => sums.push(rule.clone()),
        }
    }
}

/// An undecided silence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadline {
    /// Name of the rule.
    pub rule: String,
    /// The last qualifying event.
    pub silent_since: Time,
    /// The due time.
    pub due_at: Time,
    /// It is decided once time has passed this instant.
    pub decided_at: Time,
    /// Whether the customer is never alerted.
    pub held_out: bool,
}

impl Engine {
    /// Takes out the notices that may be released, in their order.
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
            // The notices of erased customers are gone.
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

    /// Whether one more alert may be released in this minute; if so, counts it.
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

    /// Sets from when on silences count, unless the spec does.
    pub fn set_alerts_since(&mut self, since: Time) {
        let spec = std::sync::Arc::clone(&self.spec);
        self.inactivity.set_since(&spec.inactivity, since);
    }

    /// Number of alerts and win-backs to release.
    #[must_use]
    pub fn waiting_alerts(&self) -> usize {
        self.inactivity.waiting()
    }

    /// Results of each rule, including removed rules with results.
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

    /// The undecided silences of a customer, by due time.
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
