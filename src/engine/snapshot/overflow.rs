//! Finds values with missing customers in dimensions without a list of values: each engine keeps the first values that
//! it finds, and counts customers of all others as `other`.

use std::collections::BTreeMap;

use crate::engine::Engine;
use crate::engine::segments::OTHER;

/// The engines with more values of a dimension than they keep. Adds up over engines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overflow {
    /// Number of these engines.
    engines: u32,
    /// How many of them keep a value.
    keeping: BTreeMap<String, u32>,
}

impl Overflow {
    /// Whether there are such engines.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.engines > 0
    }

    /// Whether an engine counts customers of a value as `other`; for `other` itself, whether it includes customers of a
    /// value that another engine keeps.
    #[must_use]
    pub fn is_incomplete(&self, value: &str) -> bool {
        if value == OTHER {
            return self.keeping.values().any(|&keeping| keeping < self.engines);
        }
        self.keeping.get(value).copied().unwrap_or(0) < self.engines
    }
}

impl std::ops::AddAssign<&Overflow> for Overflow {
    fn add_assign(&mut self, other: &Overflow) {
        self.engines += other.engines;
        for (value, keeping) in &other.keeping {
            *self.keeping.entry(value.clone()).or_default() += keeping;
        }
    }
}

/// Adds one engine, for all dimensions.
pub(super) fn note(sum: &mut [Overflow], engine: &Engine) {
    for (dimension, (sum, overflowed)) in sum.iter_mut().zip(engine.segments_overflowed()).enumerate() {
        if overflowed {
            let keeping = engine.segments.kept(dimension).map(|value| (value.to_owned(), 1)).collect();
            *sum += &Overflow { engines: 1, keeping };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overflow(values: &[&str]) -> Overflow {
        Overflow { engines: 1, keeping: values.iter().map(|value| ((*value).to_owned(), 1)).collect() }
    }

    #[test]
    fn what_every_overflowed_engine_keeps_is_whole() {
        let mut sum = Overflow::default();
        assert!(!sum.is_any() && !sum.is_incomplete("web") && !sum.is_incomplete(OTHER));
        sum += &overflow(&["none", "unknown", OTHER, "web", "app"]);
        assert!(sum.is_any() && !sum.is_incomplete("web") && !sum.is_incomplete(OTHER));
        assert!(sum.is_incomplete("fax"), "an engine without overflow keeps it");
        sum += &overflow(&["none", "unknown", OTHER, "web", "fax"]);
        let incomplete = ["none", "unknown", OTHER, "web", "app", "fax"].map(|value| sum.is_incomplete(value));
        assert_eq!(incomplete, [false, false, true, false, true, true]);
    }
}
