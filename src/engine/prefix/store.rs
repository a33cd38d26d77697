//! What the cells of an array are held in: one behind another, unless their type says otherwise.

use std::borrow::Cow;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use zerocopy::IntoBytes;

use super::Cell;

/// Cells by index. However they are held, files see them one behind another.
pub trait Store<C: Cell>: Clone + Default {
    /// That many cells of zeros.
    fn zeros(len: usize) -> Self;

    /// How many cells there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends cells of zeros until there are `len`, which is not less than there are.
    fn grow(&mut self, len: usize);

    /// Puts that many cells of zeros before the first.
    fn grow_front(&mut self, missing: usize);

    /// Takes the first `gone` cells away.
    fn truncate_front(&mut self, gone: usize);

    /// Adds a range of cells to a prefix sum.
    fn add_to(&self, range: Range<usize>, sum: &mut C::Sum);

    /// One cell.
    fn get(&self, index: usize) -> C;

    /// Replaces one cell.
    fn set(&mut self, index: usize, cell: C);

    /// Whether a range of cells is all zeros.
    fn is_zero(&self, range: Range<usize>) -> bool;

    /// A hash of a range of cells. It depends on how they are held, so it is worth nothing outside of this process.
    fn hash(&self, range: Range<usize>, seed: u64) -> u128;

    /// A range of cells as files hold it.
    fn bytes(&self, range: Range<usize>) -> Cow<'_, [u8]>;

    /// Bytes of memory held.
    fn memory(&self) -> usize;
}

impl<C: Cell> Store<C> for Vec<C> {
    fn zeros(len: usize) -> Vec<C> {
        vec![C::default(); len]
    }

    #[inline]
    fn len(&self) -> usize {
        self.len()
    }

    fn grow(&mut self, len: usize) {
        self.resize(len, C::default());
    }

    fn grow_front(&mut self, missing: usize) {
        self.splice(0..0, std::iter::repeat_n(C::default(), missing));
    }

    fn truncate_front(&mut self, gone: usize) {
        self.drain(..gone);
    }

    fn add_to(&self, range: Range<usize>, sum: &mut C::Sum) {
        for cell in &self[range] {
            cell.add_to(sum);
        }
    }

    fn get(&self, index: usize) -> C {
        self[index]
    }

    fn set(&mut self, index: usize, cell: C) {
        self[index] = cell;
    }

    fn is_zero(&self, range: Range<usize>) -> bool {
        self[range].as_bytes().iter().all(|&byte| byte == 0)
    }

    fn hash(&self, range: Range<usize>, seed: u64) -> u128 {
        xxh3_128_with_seed(self[range].as_bytes(), seed)
    }

    fn bytes(&self, range: Range<usize>) -> Cow<'_, [u8]> {
        Cow::Borrowed(self[range].as_bytes())
    }

    fn memory(&self) -> usize {
        self.capacity() * size_of::<C>()
    }
}
