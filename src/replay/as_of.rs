//! What a history says at an instant of those figures that only an engine of that time knows.
//!
//! Windows, stages and cohorts can be read for any instant from an engine that knows everything. Alerts, win-backs and order
//! values cannot: what became of a silence rests on what was known when it was decided.

use std::collections::BTreeMap;

use super::{History, What};
use crate::engine::Engine;
use crate::engine::distribution::{Distribution, order_values};
use crate::engine::inactivity::release::{Alert, RuleParts};
use crate::engine::snapshot::Snapshot;
use crate::engine::window::Sign;
use crate::event::{Currency, HOUR, Time};

/// Figures at an instant that an engine which is further cannot tell any more.
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

    /// Lets time come up to the instant, tells the alerts that are decided by then, and notes what came of the rules.
    pub(super) fn take(&mut self, history: &History, engine: &mut Engine, tell: Option<&mut dyn FnMut(&Alert)>) {
        engine.raise_watermark(0, self.at);
        if let Some(tell) = tell {
            history.release(engine, tell, None);
        }
        self.rules = engine.inactivity();
    }

    /// Puts the figures into a snapshot of the same instant.
    pub fn correct(&self, snapshot: &mut Snapshot) {
        snapshot.inactivity.clone_from(&self.rules);
        snapshot.distributions.order_value.clone_from(&self.order_values);
    }
}

impl History {
    /// What orders brought in hours up to the one that holds `at`.
    pub(super) fn order_values(&self, at: Time) -> BTreeMap<Currency, Distribution> {
        let mut values = BTreeMap::<Currency, Distribution>::new();
        for row in self.rows.iter().filter(|row| row.time.millis() / HOUR <= at.millis() / HOUR) {
            if let What::Order { amount, .. } = row.what {
                let scale = order_values(amount.currency);
                values.entry(amount.currency).or_default().book(scale, amount.minor, Sign::Add);
            }
        }
        values
    }
}
