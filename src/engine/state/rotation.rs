//! Selects unchanged content that is written in full again, always what was written longest ago, so that old files
//! become superseded.

/// Number of checkpoints in which all content of a kind is written in full, so that a restore needs no more files of
/// that kind: with three kinds fewer than 256.
pub const LAP: usize = 80;

/// For each thing of a kind, the number of the checkpoint that last wrote it in full.
#[derive(Debug, Clone, Default)]
pub struct Rotation(Vec<u64>);

impl Rotation {
    /// Grows to `len` things; new ones count as written at `sequence`.
    pub fn resize(&mut self, len: usize, sequence: u64) {
        if len > self.0.len() {
            self.0.resize(len, sequence);
        }
    }

    /// Notes that a checkpoint contains a thing in full, unless a later one does.
    pub fn note(&mut self, thing: usize, sequence: u64) {
        if let Some(last) = self.0.get_mut(thing) {
            *last = sequence.max(*last);
        }
    }

    /// Notes that a checkpoint was not written after all.
    pub fn roll_back(&mut self, sequence: u64) {
        // Their earlier numbers are lost, so all checkpoints are needed until they are written again.
        self.0.iter_mut().filter(|last| **last == sequence).for_each(|last| *last = 0);
    }

    /// The number of the last full checkpoint of each thing.
    #[must_use]
    pub fn last(&self) -> &[u64] {
        &self.0
    }

    /// The oldest checkpoint that a restore needs, if there are things.
    #[must_use]
    pub fn needs(&self) -> Option<u64> {
        self.0.iter().copied().min()
    }
}

/// The things that are due, ascending: those written longest ago. Their share of all is `changed` / `total`, and at
/// least 1 / [`LAP`].
#[must_use]
pub fn oldest(last: &[u64], changed: usize, total: usize) -> Vec<usize> {
    if last.is_empty() {
        return Vec::new();
    }
    let in_proportion = (last.len() as u128 * changed as u128).div_ceil(total.max(1) as u128);
    let count = usize::try_from(in_proportion).unwrap_or(last.len()).max(last.len().div_ceil(LAP)).min(last.len());
    let mut due: Vec<_> = (0..last.len()).collect();
    due.select_nth_unstable_by_key(count - 1, |&thing| (last[thing], thing));
    due.truncate(count);
    due.sort_unstable();
    due
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However much changes and however many things are added, old checkpoints are not needed for long.
        #[test]
        fn nothing_is_older_than_a_lap(
            begin in 0..3_000_usize,
            steps in prop::collection::vec((0..3_usize, 0..2_000_usize), 300),
        ) {
            let mut rotation = Rotation::default();
            rotation.resize(begin, 1);
            for (sequence, (grow, changed)) in (2..).zip(steps) {
                let len = rotation.last().len();
                let due = oldest(rotation.last(), changed, 100_000);
                prop_assert!(due.len() * 100_000 >= len * changed);
                prop_assert!(due.len() <= len.div_ceil(LAP).max((len * changed).div_ceil(100_000)));
                prop_assert!(due.is_sorted());
                due.into_iter().for_each(|thing| rotation.note(thing, sequence));
                rotation.resize(len + grow, sequence);
                if let Some(needs) = rotation.needs() {
                    prop_assert!(sequence - needs < LAP as u64 + 2, "{needs} at {sequence}");
                }
            }
        }
    }

    #[test]
    fn those_written_longest_ago_are_due() {
        assert_eq!(oldest(&[5, 3, 9, 3], 0, 10), [1]);
        assert_eq!(oldest(&[5, 3, 9, 3], 5, 10), [1, 3]);
        assert_eq!(oldest(&[5, 3, 9, 3], 20, 10), [0, 1, 2, 3]);
        assert_eq!(oldest(&[], 20, 10), [0_usize; 0]);
    }
}
