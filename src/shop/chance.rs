//! The only source of randomness, and the draws from it.

use std::ops::Range;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Beta, Distribution, Exp1, Gamma, StandardNormal};

use super::settings::Buying;
use crate::event::DAY;

/// A seeded stream of random numbers (ChaCha with 8 rounds).
#[derive(Debug, Clone)]
pub(super) struct Chance(ChaCha8Rng);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(ChaCha8Rng::seed_from_u64(seed))
    }

    /// True with probability `share`.
    pub fn happens(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        self.0.random()
    }

    /// Uniform in a range that is not empty.
    pub fn within(&mut self, range: Range<i64>) -> i64 {
        self.0.random_range(range)
    }

    /// The time to the next event of a Poisson process, given the mean of these times.
    pub fn wait(&mut self, mean: f64) -> f64 {
        let unit: f64 = self.0.sample(Exp1);
        unit * mean
    }

    /// Lognormal with the given median.
    pub fn around(&mut self, median: f64, sigma: f64) -> f64 {
        let z: f64 = self.0.sample(StandardNormal);
        median * (sigma * z).exp()
    }

    /// A random item by weight; `None` if all weights are zero.
    pub fn pick<T>(&mut self, items: &'static [T], weight: impl Fn(&T) -> i64) -> Option<&'static T> {
        let total = items.iter().map(&weight).sum::<i64>().max(1);
        let mut rest = self.within(0..total);
        items.iter().find(|item| {
            rest -= weight(item);
            rest < 0
        })
    }
}

/// Distributions of the order rate and the dropout probability, drawn once per customer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tempers {
    rates: Option<Gamma<f64>>,
    mean_rate: f64,
    dropouts: Option<Beta<f64>>,
    mean_dropout: f64,
}

impl Tempers {
    /// With invalid parameters (zero, negative, NaN) all customers are average.
    #[expect(clippy::cast_precision_loss, reason = "a day in milliseconds is far below 2^53")]
    pub fn new(buying: &Buying) -> Tempers {
        let rate = 1.0 / (buying.days_between_orders * DAY as f64);
        let mean_rate = if rate.is_finite() { rate.max(0.0) } else { 0.0 };
        let (alpha, beta) = (buying.dropout_alpha, buying.dropout_beta);
        Tempers {
            rates: Gamma::new(buying.rate_shape, mean_rate / buying.rate_shape).ok(),
            mean_rate,
            dropouts: Beta::new(alpha, beta).ok(),
            mean_dropout: alpha / (alpha + beta),
        }
    }

    /// Orders per millisecond.
    pub fn rate(&self, chance: &mut Chance) -> f64 {
        let rate = self.rates.map_or(self.mean_rate, |rates| rates.sample(&mut chance.0));
        if rate.is_finite() { rate } else { self.mean_rate }
    }

    /// The probability of leaving after an order.
    pub fn dropout(&self, chance: &mut Chance) -> f64 {
        self.dropouts.map_or(self.mean_dropout, |dropouts| dropouts.sample(&mut chance.0))
    }
}
