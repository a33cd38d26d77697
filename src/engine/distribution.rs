//! Histograms: gaps between orders, time to the second order, order values.
//!
//! A [`Distribution`] has the exact count, sum and number of values up to each bound of a scale; single values are
//! known to one part in 64. Distributions of several engines add up.
//!
//! A gap is booked in the hour of its later order. So a late order can take it back and replace it, and all partitions
//! can count up to the same hour.

use std::collections::BTreeMap;

use super::recent::OrderPlace;
use super::state::arrays::{Numbers, Visitor};
use super::window::Sign;
use crate::event::{Currency, DAY, HOUR, Time};

/// Ascending inclusive upper bounds, as `le` of a histogram, without infinity; never empty.
pub type Scale = &'static [i64];

/// The bounds of gaps, in milliseconds.
pub static GAPS: Scale = &[
    HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    3 * DAY,
    5 * DAY,
    7 * DAY,
    10 * DAY,
    14 * DAY,
    21 * DAY,
    30 * DAY,
    45 * DAY,
    60 * DAY,
    90 * DAY,
    120 * DAY,
    180 * DAY,
    270 * DAY,
    365 * DAY,
    540 * DAY,
    730 * DAY,
];

/// The bounds of order values in major units.
const VALUES: [i64; 19] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000,
];

/// The bounds of order values in minor units, by the number of decimals of the currency.
static MINOR_VALUES: [[i64; VALUES.len()]; 5] = minor_values();

const fn minor_values() -> [[i64; VALUES.len()]; 5] {
    let mut all = [VALUES; 5];
    let mut decimals = 1;
    while decimals < all.len() {
        let mut i = 0;
        while i < VALUES.len() {
            all[decimals][i] = 10 * all[decimals - 1][i];
            i += 1;
        }
        decimals += 1;
    }
    all
}

/// The bounds of order values, in minor units of a currency.
#[must_use]
pub fn order_values(currency: Currency) -> Scale {
    // No currency has more than four decimals.
    &MINOR_VALUES[(currency.exponent() as usize).min(MINOR_VALUES.len() - 1)]
}

/// Number of parts per power of two.
const PARTS: i64 = 32;

/// The log-linear part of a value of at least 0: below 64 the value itself, above it 32 parts per power of two.
#[inline]
fn part(value: i64) -> usize {
    let shift = (63 - (value | 1).leading_zeros()).saturating_sub(PARTS.ilog2());
    (i64::from(shift) * PARTS + (value >> shift)) as usize
}

/// The middle of a part.
fn middle(part: usize) -> i64 {
    let (shift, parts) = ((part as i64 / PARTS - 1).max(0), PARTS);
    let first = (part as i64 - shift * parts) << shift;
    first + ((1 << shift) - 1) / 2
}

/// The bucket of a value: the number of its part plus the number of bounds below it. Both grow with the value, so the
/// sum is unique, and a part that contains a bound is split into two buckets.
#[inline]
fn bucket(scale: Scale, value: i64) -> usize {
    let value = value.max(0);
    part(value) + scale.partition_point(|&bound| bound < value)
}

/// A value of a bucket that is within one part in 64 of all others in it.
fn typical(scale: Scale, bucket: usize) -> i64 {
    let range = scale.iter().enumerate().take_while(|&(i, &bound)| part(bound) + i < bucket).count();
    let above = range.checked_sub(1).map_or(0, |i| scale[i] + 1);
    middle(bucket - range).clamp(above, scale.get(range).copied().unwrap_or(i64::MAX))
}

/// Values by bucket of a scale, which the caller passes to every method. Distributions add up over partitions.
#[derive(Debug, Clone, Default)]
pub struct Distribution {
    /// Number of values.
    pub count: i64,
    /// Sum of the values.
    pub sum: i128,
    /// Number of values per bucket.
    buckets: Vec<i64>,
}

impl Distribution {
    /// Adds or removes a value.
    #[inline]
    pub fn book(&mut self, scale: Scale, value: i64, sign: Sign) {
        let by = sign as i64;
        self.count += by;
        self.sum += i128::from(by * value);
        *self.bucket_mut(bucket(scale, value)) += by;
    }

    fn bucket_mut(&mut self, bucket: usize) -> &mut i64 {
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        &mut self.buckets[bucket]
    }

    /// Number of values up to each bound of the scale.
    #[must_use]
    pub fn cumulative(&self, scale: Scale) -> Vec<i64> {
        let (mut sum, mut from) = (0, 0);
        let upto = |(i, &bound): (usize, &i64)| {
            let to = (part(bound) + i + 1).min(self.buckets.len());
            sum += self.buckets.get(from..to).map_or(0, |buckets| buckets.iter().sum());
            from = to;
            sum
        };
        scale.iter().enumerate().map(upto).collect()
    }

    /// Values and their counts, ascending; each represents those within one part in 64 of it.
    pub fn values(&self, scale: Scale) -> impl Iterator<Item = (i64, i64)> {
        let filled = self.buckets.iter().enumerate().filter(|(_, count)| **count != 0);
        filled.map(move |(bucket, &count)| (typical(scale, bucket), count))
    }

    fn bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<i64>()
    }
}

/// Low and high half of the sum, then the buckets; the count is their sum.
impl Numbers for Distribution {
    fn numbers(&self) -> Vec<i64> {
        let Distribution { count: _, sum, buckets } = self;
        let halves = [*sum as i64, (*sum >> 64) as i64];
        halves.into_iter().chain(buckets.iter().copied()).collect()
    }

    fn from_numbers(numbers: &[i64]) -> Option<Distribution> {
        let (&[low, high], buckets) = numbers.split_first_chunk()?;
        let sum = i128::from(high) << 64 | i128::from(low.cast_unsigned());
        Some(Distribution { count: buckets.iter().sum(), sum, buckets: buckets.to_vec() })
    }
}

/// Trailing empty buckets do not matter.
impl PartialEq for Distribution {
    fn eq(&self, other: &Distribution) -> bool {
        let filled = |of: &Distribution| of.buckets.iter().rposition(|&count| count != 0).map_or(0, |last| last + 1);
        let (mine, theirs) = (&self.buckets[..filled(self)], &other.buckets[..filled(other)]);
        (self.count, self.sum) == (other.count, other.sum) && mine == theirs
    }
}

impl Eq for Distribution {}

impl std::ops::AddAssign<&Distribution> for Distribution {
    fn add_assign(&mut self, other: &Distribution) {
        self.count += other.count;
        self.sum += other.sum;
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, theirs)| *mine += theirs);
    }
}

/// The gaps whose later order is in one hour.
#[derive(Debug, Clone, Default)]
struct Hour {
    /// Sum in milliseconds.
    sum: i64,
    /// Number of gaps per bucket, ascending by bucket, without zeros.
    buckets: Vec<(u16, i32)>,
}

impl Hour {
    /// Books gaps that are sorted by bucket.
    fn book(&mut self, gaps: &[Gap]) {
        self.sum += gaps.iter().map(|gap| gap.sum).sum::<i64>();
        let mut merged = Vec::with_capacity(self.buckets.len() + gaps.len());
        let mut known = self.buckets.iter().copied().peekable();
        let mut booked = gaps.iter().map(|gap| (gap.bucket(), gap.by())).peekable();
        while let Some(&(number, _)) = [known.peek(), booked.peek()].into_iter().flatten().min_by_key(|at| at.0) {
            let mut count = known.next_if(|at| at.0 == number).map_or(0, |at| at.1);
            while let Some((_, by)) = booked.next_if(|at| at.0 == number) {
                count += by;
            }
            if count != 0 {
                merged.push((number, count));
            }
        }
        self.buckets = merged;
    }

    fn add_to(&self, sum: &mut Distribution) {
        sum.sum += i128::from(self.sum);
        for &(bucket, count) in &self.buckets {
            sum.count += i64::from(count);
            *sum.bucket_mut(usize::from(bucket)) += i64::from(count);
        }
    }
}

/// The sum, then pairs of bucket and count.
impl Numbers for Hour {
    fn numbers(&self) -> Vec<i64> {
        let Hour { sum, buckets } = self;
        let pairs = buckets.iter().flat_map(|&(bucket, count)| [i64::from(bucket), i64::from(count)]);
        std::iter::once(*sum).chain(pairs).collect()
    }

    fn from_numbers(numbers: &[i64]) -> Option<Hour> {
        let (&sum, rest) = numbers.split_first()?;
        let (pairs, []) = rest.as_chunks() else { return None };
        let pair = |&[bucket, count]: &[i64; 2]| Some((u16::try_from(bucket).ok()?, i32::try_from(count).ok()?));
        let buckets = pairs.iter().map(pair).collect::<Option<Vec<_>>>()?;
        buckets.is_sorted_by(|one, next| one.0 < next.0).then_some(Hour { sum, buckets })
    }
}

/// A gap that was booked or undone.
#[derive(Debug, Clone, Copy)]
struct Gap {
    /// From the highest bit: the hour of the later order, the bucket, and whether the gap is undone. One number sorts
    /// faster than three.
    place: u64,
    /// Milliseconds; negative if the gap is undone.
    sum: i64,
}

impl Gap {
    #[inline]
    fn new(hour: u32, millis: i64, sign: Sign) -> Gap {
        // The largest possible gap, from 1970 to 2199, is in bucket 1257.
        let bucket = bucket(GAPS, millis) as u64;
        let taken_back = u64::from(sign == Sign::Remove);
        Gap { place: u64::from(hour) << 32 | bucket << 1 | taken_back, sum: sign as i64 * millis }
    }

    fn hour(&self) -> i64 {
        (self.place >> 32).cast_signed()
    }

    fn bucket(&self) -> u16 {
        (self.place >> 1) as u16
    }

    fn by(&self) -> i32 {
        if self.place & 1 == 0 { 1 } else { -1 }
    }
}

/// Number of gaps that are buffered before they are merged into their hours: merging many at once into a sorted list is
/// cheaper.
const GATHERED: usize = 4096;

/// Gaps by the hour of their later order; old hours are folded into one sum.
#[derive(Debug, Clone, Default)]
struct Gaps {
    hours: BTreeMap<i64, Hour>,
    /// Gaps that are not in `hours` yet.
    gathered: Vec<Gap>,
    folded: Distribution,
}

impl Gaps {
    /// Books or undoes the gap between two orders; hours before `folded_before` are folded.
    #[inline]
    fn book(&mut self, earlier: Time, later: Time, folded_before: i64, sign: Sign) {
        let millis = later.millis() - earlier.millis();
        let hour = hour(later);
        if hour < folded_before {
            return self.folded.book(GAPS, millis, sign);
        }
        // The end of the year 2199 is hour 2,016,143.
        self.gathered.push(Gap::new(hour as u32, millis, sign));
        if self.gathered.len() >= GATHERED {
            self.settle();
        }
    }

    /// Merges the buffered gaps into their hours.
    fn settle(&mut self) {
        self.gathered.sort_unstable_by_key(|gap| gap.place);
        for gaps in self.gathered.chunk_by(|one, next| one.hour() == next.hour()) {
            self.hours.entry(gaps[0].hour()).or_default().book(gaps);
        }
        self.gathered.clear();
    }

    fn before(&self, hour: i64) -> Distribution {
        let mut sum = self.folded.clone();
        self.hours.range(..hour).for_each(|(_, hour)| hour.add_to(&mut sum));
        for gap in self.gathered.iter().filter(|gap| gap.hour() < hour) {
            sum.count += i64::from(gap.by());
            sum.sum += i128::from(gap.sum);
            *sum.bucket_mut(usize::from(gap.bucket())) += i64::from(gap.by());
        }
        sum
    }

    fn fold_before(&mut self, hour: i64) {
        self.settle();
        let kept = self.hours.split_off(&hour);
        for settled in std::mem::replace(&mut self.hours, kept).values() {
            settled.add_to(&mut self.folded);
        }
    }

    /// Passes every array to a visitor. Hours before `folded_before` are gone, even if an older file still contains
    /// them.
    fn show(&mut self, key: &str, folded_before: i64, visitor: &mut impl Visitor) {
        self.settle();
        let Gaps { hours, gathered: _, folded } = self;
        visitor.visit_numbers(&format!("{key}/folded"), folded);
        let key = format!("{key}/hours");
        let found = visitor.names(&key).into_iter().filter_map(|name| name.parse().ok());
        for hour in found.filter(|&hour| hour >= folded_before) {
            hours.entry(hour).or_default();
        }
        for (number, hour) in hours {
            visitor.visit_numbers(&format!("{key}/{number}"), hour);
        }
    }

    fn bytes(&self) -> usize {
        let hour = |hour: &Hour| size_of::<(i64, Hour)>() + hour.buckets.capacity() * size_of::<(u16, i32)>();
        let gathered = self.gathered.capacity() * size_of::<Gap>();
        self.hours.values().map(hour).sum::<usize>() + gathered + self.folded.bytes()
    }
}

/// How long hours are kept, beyond twice the lateness: a replica reports at the time of its slowest partition.
const KEPT_BEHIND_HORIZON: i64 = 8 * DAY;
/// Minimum number of hours to fold at once.
const FOLDED_AT_ONCE: i64 = 24;

/// The distributions of a partition.
#[derive(Debug, Clone, Default)]
pub struct Distributions {
    interpurchase: Gaps,
    second_order: Gaps,
    /// Indexed by the engine's number of the currency.
    order_value: Vec<Distribution>,
    /// Hours before this are folded.
    folded_before: i64,
}

impl Distributions {
    /// Books an order at `at` between its neighbours: their gap is replaced by two. If the order is the first or second
    /// one of its customer, the time to the second order changes.
    #[inline]
    pub fn order(&mut self, place: &OrderPlace, at: Time) {
        self.book_order(place, at, Sign::Add);
    }

    /// Undoes an order between these neighbours.
    pub fn retract_order(&mut self, place: &OrderPlace, at: Time) {
        self.book_order(place, at, Sign::Remove);
    }

    #[inline]
    fn book_order(&mut self, place: &OrderPlace, at: Time, sign: Sign) {
        let folded = self.folded_before;
        let &OrderPlace { z, s, y, x, .. } = place;
        if let Some(y) = y {
            self.interpurchase.book(y, at, folded, sign);
        }
        if let Some(s) = s {
            if let Some(y) = y {
                self.interpurchase.book(y, s, folded, sign.opposite());
            }
            self.interpurchase.book(at, s, folded, sign);
        }
        let (before, after) = match (x, y) {
            (None, None) => (s.zip(z), s.map(|s| (at, s))),
            (None, Some(y)) => (s.map(|s| (y, s)), Some((y, at))),
            (Some(_), _) => (None, None),
        };
        if let Some((first, second)) = before {
            self.second_order.book(first, second, folded, sign.opposite());
        }
        if let Some((first, second)) = after {
            self.second_order.book(first, second, folded, sign);
        }
    }

    /// Books or undoes an order value in minor units; `number` is the engine's number of the currency.
    #[inline]
    pub fn money(&mut self, number: usize, currency: Currency, minor: i64, sign: Sign) {
        if number >= self.order_value.len() {
            self.order_value.resize_with(number + 1, Distribution::default);
        }
        self.order_value[number].book(order_values(currency), minor, sign);
    }

    /// Folds hours that are more than `allowed_lateness` and eight days before the horizon, a day of them at once.
    #[inline]
    pub fn fold(&mut self, horizon: Time, allowed_lateness: i64) {
        let limit = hour(horizon.plus(-allowed_lateness - KEPT_BEHIND_HORIZON));
        if limit >= self.folded_before + FOLDED_AT_ONCE {
            self.interpurchase.fold_before(limit);
            self.second_order.fold_before(limit);
            self.folded_before = limit;
        }
    }

    /// The distributions with gaps before the hour of `horizon`; `currencies` by their numbers.
    #[must_use]
    pub fn parts(&self, horizon: Time, currencies: &[Currency]) -> DistributionParts {
        let before = hour(horizon);
        let gaps = |gaps: &Gaps| (before >= self.folded_before).then(|| gaps.before(before));
        let values = currencies.iter().copied().zip(&self.order_value).filter(|(_, values)| values.count > 0);
        DistributionParts {
            interpurchase: gaps(&self.interpurchase),
            second_order: gaps(&self.second_order),
            order_value: values.map(|(currency, values)| (currency, values.clone())).collect(),
        }
    }

    /// Passes every array to a visitor that saves or restores it.
    pub fn show(&mut self, key: &str, visitor: &mut impl Visitor) {
        let Distributions { interpurchase, second_order, order_value, folded_before } = self;
        visitor.visit_numbers(&format!("{key}/folded_before"), folded_before);
        interpurchase.show(&format!("{key}/interpurchase"), *folded_before, visitor);
        second_order.show(&format!("{key}/second_order"), *folded_before, visitor);
        visitor.visit_numbers_list(&format!("{key}/order_value"), order_value);
    }

    /// Memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let values: usize = self.order_value.iter().map(Distribution::bytes).sum();
        self.interpurchase.bytes() + self.second_order.bytes() + values
    }
}

fn hour(time: Time) -> i64 {
    time.millis() / HOUR
}

/// The distributions at one instant. They add up over partitions; the sum is unknown if a part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistributionParts {
    /// Milliseconds between successive orders of a customer, on the scale [`GAPS`]; `None` if an engine's history does
    /// not reach back that far.
    pub interpurchase: Option<Distribution>,
    /// Milliseconds from the first order of a customer to the second, with the same scale and rule.
    pub second_order: Option<Distribution>,
    /// Order values in minor units, each on the scale of its currency ([`order_values`]).
    pub order_value: BTreeMap<Currency, Distribution>,
}

/// Known and empty.
impl Default for DistributionParts {
    fn default() -> DistributionParts {
        DistributionParts {
            interpurchase: Some(Distribution::default()),
            second_order: Some(Distribution::default()),
            order_value: BTreeMap::new(),
        }
    }
}

impl std::ops::AddAssign<&DistributionParts> for DistributionParts {
    fn add_assign(&mut self, other: &DistributionParts) {
        add_known(&mut self.interpurchase, other.interpurchase.as_ref());
        add_known(&mut self.second_order, other.second_order.as_ref());
        for (&currency, values) in &other.order_value {
            *self.order_value.entry(currency).or_default() += values;
        }
    }
}

fn add_known(sum: &mut Option<Distribution>, more: Option<&Distribution>) {
    match (sum.as_mut(), more) {
        (Some(so_far), Some(more)) => *so_far += more,
        _ => *sum = None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values around every bound and power of two, and some between them.
    fn telling_values(scale: Scale) -> Vec<i64> {
        let powers = (0..42).map(|power| 1_i64 << power);
        let edges = powers.chain(scale.iter().copied()).flat_map(|edge| [edge - 1, edge, edge + 1, edge + edge / 3]);
        let mut values: Vec<_> = edges.chain(0..200).collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    #[test]
    fn buckets_grow_with_the_value_and_tell_it_to_one_part_in_64() {
        for scale in [GAPS, order_values(Currency::from_code("EUR").unwrap())] {
            let mut last = 0;
            for value in telling_values(scale) {
                let found = bucket(scale, value);
                assert!(found >= last && found <= usize::from(u16::MAX), "{value}");
                last = found;
                let typical = typical(scale, found);
                assert_eq!(bucket(scale, typical), found, "{value}: {typical} lies elsewhere");
                assert!((typical - value).abs() * 64 <= value, "{value}: {typical} is too far away");
            }
        }
    }

    #[test]
    fn counts_up_to_a_bound_are_exact() {
        for scale in [GAPS, order_values(Currency::from_code("JPY").unwrap())] {
            let values = telling_values(scale);
            let mut distribution = Distribution::default();
            values.iter().for_each(|&value| distribution.book(scale, value, Sign::Add));
            distribution.book(scale, 77, Sign::Add);
            distribution.book(scale, 77, Sign::Remove);
            let upto = |bound: &i64| values.iter().filter(|&value| value <= bound).count() as i64;
            assert_eq!(distribution.cumulative(scale), scale.iter().map(upto).collect::<Vec<_>>());
            assert_eq!(distribution.count, values.len() as i64);
            assert_eq!(distribution.sum, values.iter().map(|&value| i128::from(value)).sum::<i128>());
        }
    }

    #[test]
    fn bounds_of_order_values_are_those_of_the_major_unit() {
        for (code, first, last) in [("JPY", 1, 1_000_000), ("EUR", 100, 100_000_000), ("KWD", 1_000, 1_000_000_000)] {
            let scale = order_values(Currency::from_code(code).unwrap());
            assert_eq!((scale[0], scale[scale.len() - 1]), (first, last), "{code}");
        }
    }
}
