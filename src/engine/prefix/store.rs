//! Containers for the cells of an array. The default is a `Vec`; a cell type may choose another layout.

use std::borrow::Cow;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use zerocopy::IntoBytes;

use super::Cell;

/// Cells by index. Whatever the layout in memory, files store one cell after another.
pub trait Store<C: Cell>: Clone + Default {
    /// `len` cells of zeros.
    fn zeros(len: usize) -> Self;

    /// Number of cells.
    fn len(&self) -> usize;

    /// Whether there are no cells.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends zeros up to a length of `len`, which is at least the current one.
    fn grow(&mut self, len: usize);

    /// Inserts `missing` zeros before the first cell.
    fn grow_front(&mut self, missing: usize);

    /// Removes the first `gone` cells.
    fn truncate_front(&mut self, gone: usize);

    /// Adds a range of cells to a prefix sum.
    fn add_to(&self, range: Range<usize>, sum: &mut C::Sum);

    /// Reads a cell.
    fn get(&self, index: usize) -> C;

    /// Replaces a cell.
    fn set(&mut self, index: usize, cell: C);

    /// Whether all cells of a range are zero.
    fn is_zero(&self, range: Range<usize>) -> bool;

    /// A hash of a range of cells. It depends on the layout, so it is valid only within this process.
    fn hash(&self, range: Range<usize>, seed: u64) -> u128;

    /// A range of cells in the layout of files.
    fn bytes(&self, range: Range<usize>) -> Cow<'_, [u8]>;

    /// Memory in bytes.
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
