//! Figures as of an instant that can only be computed by an engine that has reached just that instant.
//!
//! An engine with the whole history can compute windows, stages and cohorts as of any instant, but not alerts,
//! win-backs and order values: these depend on what was known at the time.

use std::collections::{BTreeMap, BTreeSet};

use super::{FactKind, History};
use crate::engine::Engine;
use crate::engine::distribution::{Distribution, order_values};
use crate::engine::inactivity::release::{Alert, RuleParts};
use crate::engine::snapshot::Snapshot;
use crate::engine::spec::Spec;
use crate::engine::window::Sign;
use crate::event::{Currency, HOUR, Time};

/// Figures as of an instant that an engine beyond it cannot compute.
#[derive(Debug)]
pub struct AsOf {
    pub(super) at: Time,
    pub(super) rules: Vec<RuleParts>,
    pub(super) order_values: BTreeMap<Currency, Distribution>,
}

impl AsOf {
    /// The instant.
    #[must_use]
    pub fn at(&self) -> Time {
        self.at
    }

    /// Advances the engine to the instant, passes on the alerts decided by then, and records the statistics of the
    /// rules.
    pub(super) fn take(&mut self, history: &History, engine: &mut Engine, tell: Option<&mut dyn FnMut(&Alert)>) {
        engine.raise_watermark(0, self.at);
        if let Some(tell) = tell {
            history.release(engine, tell, None);
        }
        self.rules = engine.inactivity();
    }

    /// Puts the figures into a snapshot as of the same instant.
    pub fn correct(&self, snapshot: &mut Snapshot) {
        snapshot.inactivity.clone_from(&self.rules);
        snapshot.distributions.order_value.clone_from(&self.order_values);
    }
}

impl History {
    /// Order values up to the end of the hour that contains `at`.
    pub(super) fn order_values(&self, spec: &Spec, at: Time) -> BTreeMap<Currency, Distribution> {
        let mut values = BTreeMap::<Currency, Distribution>::new();
        let mut book = |currency: Currency, minor: i64| {
            values.entry(currency).or_default().book(order_values(currency), minor, Sign::Add);
        };
        let orders = self.rows.iter().filter(|row| row.time.millis() / HOUR <= at.millis() / HOUR);
        let orders = orders.filter_map(|row| match row.what {
            FactKind::Order { amount, .. } => Some((row, amount)),
            _ => None,
        });
        if !spec.merge_orders {
            orders.for_each(|(_, amount)| book(amount.currency, amount.minor));
            return values;
        }
        let erasures = self.erasures_by_customer();
        let mut days = BTreeMap::<_, i64>::new();
        for (row, amount) in orders {
            let erased = erasures.get(&row.customer).map_or(0, |times| times.range(..row.time).count());
            let day = (row.customer, erased, spec.zone.day(row.time), amount.currency);
            *days.entry(day).or_default() += amount.minor;
        }
        days.iter().for_each(|((.., currency), minor)| book(*currency, *minor));
        values
    }

    fn erasures_by_customer(&self) -> BTreeMap<u32, BTreeSet<Time>> {
        let mut erasures = BTreeMap::<u32, BTreeSet<Time>>::new();
        for row in self.rows.iter().filter(|row| matches!(row.what, FactKind::Erase)) {
            erasures.entry(row.customer).or_default().insert(row.time);
        }
        erasures
    }
}
