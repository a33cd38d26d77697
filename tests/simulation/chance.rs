//! The only source of randomness of a simulation.

use std::ops::Range;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub struct Chance(ChaCha8Rng);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(ChaCha8Rng::seed_from_u64(seed))
    }

    /// True with probability `share`.
    pub fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && self.0.random::<f64>() < share
    }

    /// Uniform in a nonempty range.
    pub fn within(&mut self, range: Range<i64>) -> i64 {
        self.0.random_range(range)
    }

    /// Log-uniform between two positive numbers.
    pub fn magnitude(&mut self, from: i64, to: i64) -> i64 {
        (from as f64 * (to as f64 / from as f64).powf(self.0.random::<f64>())) as i64
    }

    /// A uniformly chosen item.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { items.get(self.0.random_range(0..items.len())) }
    }
}
