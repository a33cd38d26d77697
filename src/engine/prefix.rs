//! Difference arrays over panes: a figure's value at pane p is the sum of all cells up to p.
//!
//! An order changes a few cells, and nothing is scanned when time passes. The array holds the whole history and the
//! future; cells older than the history are folded into one sum.

mod store;

use std::borrow::Cow;
use std::ops::Range;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::axis::Pane;
use super::state::plain::{Plain, Reader};

pub use store::Store;

/// The differences of one pane: plain integers without padding, so that files can store a cell as its bytes.
pub trait Cell: Copy + Default + FromBytes + IntoBytes + Immutable + Plain {
    /// Type of the prefix sums, wide enough for any number of cells.
    type Sum: Copy + Default + Plain;
    /// Container of the cells.
    type Store: Store<Self>;
    /// Adds this cell to a prefix sum.
    fn add_to(&self, sum: &mut Self::Sum);
}

/// Panes per piece of an array in files.
pub const PIECE: i64 = 64;

/// Upper limit of the cells of an array: 230 years of minutes need fewer.
const MOST_CELLS: usize = 1 << 27;

/// Which of the two remembered prefix sums a query may use: a window needs one at its end and one before it opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// The pane at which a window ends.
    End = 0,
    /// The pane before a window opens.
    Opening = 1,
}

/// A prefix sum, remembered so that the next query need not start at the oldest cell.
#[derive(Debug, Clone, Copy)]
struct Memo<S> {
    upto: Pane,
    sum: S,
}

/// A difference array: cells by pane, with prefix sums.
#[derive(Debug, Clone)]
pub struct Prefix<C: Cell> {
    /// Cells of the panes from `base` on.
    cells: C::Store,
    base: Pane,
    /// Sum of the folded cells, those before `limit`.
    folded: C::Sum,
    /// Changes of panes before `limit` that are not in `folded` yet.
    early: C,
    /// Panes before this one are folded; the array never grows back beyond it.
    limit: Pane,
    memos: [Option<Memo<C::Sum>>; 2],
    /// The newest pane of the memos, [`Pane::MIN`] without one. A write to a newer pane leaves the memos valid.
    remembered: Pane,
}

impl<C: Cell> Default for Prefix<C> {
    fn default() -> Self {
        Prefix {
            cells: C::Store::default(),
            base: 0,
            folded: C::Sum::default(),
            early: C::default(),
            limit: Pane::MIN,
            memos: [None; 2],
            remembered: Pane::MIN,
        }
    }
}

/// Location of a pane's cell.
#[derive(Debug)]
pub enum PanePlace<'a, C: Cell> {
    /// In the store, at this index.
    Stored(&'a mut C::Store, usize),
    /// In the cell for changes of folded panes.
    Early(&'a mut C),
}

/// Adjacent cells that files store as one piece.
#[derive(Debug)]
pub struct Chunk<'a, C: Cell> {
    /// Number of the piece; it depends only on the panes.
    pub number: i32,
    /// Number of its first cells that are outside the array.
    pub skipped: u8,
    cells: &'a C::Store,
    range: Range<usize>,
}

impl<'a, C: Cell> Chunk<'a, C> {
    /// A hash of the cells and their position. Valid only within this process.
    #[must_use]
    pub fn hash(&self) -> u128 {
        self.cells.hash(self.range.clone(), u64::from(self.skipped))
    }

    /// Whether all cells are zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.cells.is_zero(self.range.clone())
    }

    /// Length in bytes.
    #[must_use]
    pub fn len_in_bytes(&self) -> usize {
        self.range.len() * size_of::<C>()
    }

    /// The cells as bytes.
    #[must_use]
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        self.cells.bytes(self.range.clone())
    }
}

impl<C: Cell<Store = Vec<C>>> Prefix<C> {
    /// The cell of a pane, for adding to it.
    #[inline]
    pub fn cell(&mut self, pane: Pane) -> &mut C {
        match self.place(pane) {
            PanePlace::Stored(cells, index) => &mut cells[index],
            PanePlace::Early(cell) => cell,
        }
    }

    /// An array with these cells from pane 0 on.
    #[must_use]
    pub fn from_cells(cells: Vec<C>) -> Prefix<C> {
        Prefix { cells, ..Prefix::default() }
    }

    /// The cells, without their panes.
    #[must_use]
    pub fn cells(&self) -> &[C] {
        &self.cells
    }
}

impl<C: Cell> Prefix<C> {
    /// Location of the cell of a pane, for adding to it.
    #[inline]
    pub fn place(&mut self, pane: Pane) -> PanePlace<'_, C> {
        if pane <= self.remembered {
            self.forget_from(pane);
        }
        let index = i64::from(pane) - i64::from(self.base);
        match usize::try_from(index) {
            Ok(index) if index < self.cells.len() => PanePlace::Stored(&mut self.cells, index),
            _ => self.outlying_place(pane),
        }
    }

    /// All cells and the pane of the first one, for adding to the panes from `first` to `last`. `None` if one of these
    /// is outside the array or if a memo covers them.
    #[inline]
    pub fn span(&mut self, first: Pane, last: Pane) -> Option<(&mut C::Store, Pane)> {
        if first <= self.remembered || first < self.base || last < first {
            return None;
        }
        let there = (last.abs_diff(self.base) as usize) < self.cells.len();
        there.then_some((&mut self.cells, self.base))
    }

    #[cold]
    fn outlying_place(&mut self, pane: Pane) -> PanePlace<'_, C> {
        if pane < self.limit {
            return PanePlace::Early(&mut self.early);
        }
        if self.cells.is_empty() {
            self.base = pane;
        }
        if pane < self.base {
            // Grow by half of the current length, so that a run of ever older panes stays cheap.
            let slack = Pane::try_from(self.cells.len() / 2).unwrap_or(0);
            let base = pane.saturating_sub(slack).max(self.limit);
            self.cells.grow_front(self.base.abs_diff(base) as usize);
            self.base = base;
        }
        let index = pane.abs_diff(self.base) as usize;
        if index >= self.cells.len() {
            self.cells.grow(index + 1);
        }
        PanePlace::Stored(&mut self.cells, index)
    }

    #[cold]
    fn forget_from(&mut self, pane: Pane) {
        for memo in &mut self.memos {
            memo.take_if(|memo| memo.upto >= pane);
        }
        self.remembered = self.memos.iter().flatten().map(|memo| memo.upto).max().unwrap_or(Pane::MIN);
    }

    /// Sum of all cells up to and including pane `p`, which is not before the folded panes.
    #[must_use]
    pub fn upto(&self, p: Pane) -> C::Sum {
        self.sum_after(None, p)
    }

    /// As [`Prefix::upto`], but starts from the memo of this edge. Panes up to `settled` are not expected to change any
    /// more, so the sum up to there is remembered.
    pub fn upto_from_memo(&mut self, edge: Edge, p: Pane, settled: Pane) -> C::Sum {
        let usable = |memo: &Memo<C::Sum>| memo.upto <= p;
        let mut start = self.memos[edge as usize].filter(usable);
        let keep = p.min(settled);
        if keep >= self.limit && start.is_none_or(|memo| memo.upto < keep) {
            start = Some(Memo { upto: keep, sum: self.sum_after(start, keep) });
            self.memos[edge as usize] = start;
            self.remembered = self.remembered.max(keep);
        }
        self.sum_after(start, p)
    }

    fn sum_after(&self, memo: Option<Memo<C::Sum>>, p: Pane) -> C::Sum {
        let (mut sum, from) = match memo {
            Some(memo) => (memo.sum, memo.upto.saturating_add(1)),
            None => {
                let mut sum = self.folded;
                self.early.add_to(&mut sum);
                (sum, self.base)
            }
        };
        let index = |pane: Pane| (i64::from(pane) - i64::from(self.base)).clamp(0, self.cells.len() as i64) as usize;
        let (from, to) = (index(from), index(p.saturating_add(1)));
        if from < to {
            self.cells.add_to(from..to, &mut sum);
        }
        sum
    }

    /// Folds all panes before `limit` into one sum. Queries and changes at or after it stay exact.
    pub fn fold_before(&mut self, limit: Pane) {
        if limit <= self.limit {
            return;
        }
        self.early.add_to(&mut self.folded);
        self.early = C::default();
        let gone = (i64::from(limit) - i64::from(self.base)).clamp(0, self.cells.len() as i64) as usize;
        self.cells.add_to(0..gone, &mut self.folded);
        self.cells.truncate_front(gone);
        self.base = self.base.max(limit);
        self.limit = limit;
        self.memos = [None; 2];
        self.remembered = Pane::MIN;
    }

    /// What files store besides the cells: position, length and the folded sums.
    #[must_use]
    pub fn header(&self) -> Vec<u8> {
        // Memos can be computed again.
        let Prefix { cells, base, folded, early, limit, memos: _, remembered: _ } = self;
        let mut header = Vec::new();
        (i64::from(*base), cells.len() as i64).put(&mut header);
        i64::from(*limit).put(&mut header);
        folded.put(&mut header);
        early.put(&mut header);
        header
    }

    /// The cells in pieces of [`PIECE`] panes.
    pub fn pieces(&self) -> impl Iterator<Item = Chunk<'_, C>> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let pane = i64::from(self.base) + from as i64;
            let (piece, skipped) = (pane.div_euclid(PIECE), pane.rem_euclid(PIECE));
            let range = from..self.cells.len().min(from + (PIECE - skipped) as usize);
            if range.is_empty() {
                return None;
            }
            from = range.end;
            Some(Chunk { number: i32::try_from(piece).ok()?, skipped: skipped as u8, cells: &self.cells, range })
        })
    }

    /// Restores the array from [`Prefix::header`] and [`Prefix::pieces`]; missing pieces are zero. `None` if they do
    /// not belong to an array of this type.
    #[must_use]
    pub fn from_pieces<'a>(header: &[u8], pieces: impl Iterator<Item = (i32, u8, &'a [u8])>) -> Option<Prefix<C>> {
        let mut reader = Reader::new(header);
        let (base, len) = <(i64, i64)>::take(&mut reader)?;
        let (base, limit) = (Pane::try_from(base).ok()?, Pane::try_from(i64::take(&mut reader)?).ok()?);
        let folded = C::Sum::take(&mut reader)?;
        let early = C::take(&mut reader)?;
        reader.end()?;
        let len = usize::try_from(len).ok().filter(|&len| len <= MOST_CELLS)?;
        let mut cells = C::Store::zeros(len);
        for (piece, skipped, bytes) in pieces {
            if bytes.len() % size_of::<C>() != 0 {
                return None;
            }
            let first = i64::from(piece) * PIECE + i64::from(skipped) - i64::from(base);
            // A piece may begin before the array if its first cells were folded after it was written.
            for (i, bytes) in (first..).zip(bytes.chunks_exact(size_of::<C>())) {
                if let Some(i) = usize::try_from(i).ok().filter(|&i| i < len) {
                    cells.set(i, C::read_from_bytes(bytes).ok()?);
                }
            }
        }
        Some(Prefix { cells, base, folded, early, limit, ..Prefix::default() })
    }

    /// The same changes in coarser panes; `pane` maps a pane of this array to the pane of the result that contains it.
    /// `cell` and `sum` select the wanted fields. The folded sum comes before all panes of the result.
    #[must_use]
    pub fn regrouped(
        &self,
        pane: impl Fn(Pane) -> Pane,
        cell: impl Fn(&C) -> C,
        sum: impl Fn(&C::Sum) -> C::Sum,
    ) -> Prefix<C> {
        let mut all_before = self.folded;
        self.early.add_to(&mut all_before);
        let mut regrouped = Prefix { folded: sum(&all_before), ..Prefix::default() };
        for (from, index) in (self.base..).zip(0..self.cells.len()) {
            if !self.cells.is_zero(index..index + 1) {
                regrouped.add(pane(from), &cell(&self.cells.get(index)));
            }
        }
        regrouped
    }

    /// Panes before this one are folded; [`Pane::MIN`] if none are.
    #[must_use]
    pub fn limit(&self) -> Pane {
        self.limit
    }

    /// Adds another array over the same panes, to merge two segments.
    pub fn absorb(&mut self, mut other: Prefix<C>) {
        let limit = self.limit.max(other.limit);
        self.fold_before(limit);
        other.fold_before(limit);
        let Prefix { cells, base, folded, early, limit: _, memos: _, remembered: _ } = other;
        self.folded.plus(&folded);
        early.add_to(&mut self.folded);
        for (pane, index) in (base..).zip(0..cells.len()) {
            if !cells.is_zero(index..index + 1) {
                self.add(pane, &cells.get(index));
            }
        }
    }

    fn add(&mut self, pane: Pane, by: &C) {
        match self.place(pane) {
            PanePlace::Stored(cells, index) => {
                let mut cell = cells.get(index);
                cell.plus(by);
                cells.set(index, cell);
            }
            PanePlace::Early(cell) => cell.plus(by),
        }
    }

    /// Adds to every prefix sum, as if before all panes.
    pub fn add_before_all(&mut self, sum: &C::Sum) {
        self.folded.plus(sum);
        self.memos = [None; 2];
        self.remembered = Pane::MIN;
    }

    /// The oldest pane that can be queried.
    #[must_use]
    pub fn oldest(&self) -> Pane {
        self.limit.saturating_sub(1)
    }

    /// Memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.cells.memory()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use proptest::test_runner::TestCaseResult;

    use super::*;

    /// A cell type whose figures all derive from one number.
    pub trait Probe: Cell {
        /// Adds to the number at a pane.
        fn add(prefix: &mut Prefix<Self>, pane: Pane, by: i32);
        /// The number from which all figures of a sum derive; `None` if they contradict each other.
        fn total(sum: &Self::Sum) -> Option<i64>;
    }

    #[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
    #[repr(C)]
    struct One {
        one: i32,
    }

    crate::engine::state::plain::plain!(One { one });

    impl Cell for One {
        type Sum = i64;
        type Store = Vec<One>;
        fn add_to(&self, sum: &mut i64) {
            *sum += i64::from(self.one);
        }
    }

    impl Probe for One {
        fn add(prefix: &mut Prefix<One>, pane: Pane, by: i32) {
            prefix.cell(pane).one += by;
        }

        fn total(sum: &i64) -> Option<i64> {
            Some(*sum)
        }
    }

    #[derive(Debug, Clone)]
    pub enum Op {
        Add(Pane, i32),
        Ask(Edge, Pane, Pane),
        Fold(Pane),
        /// Write to files and restore.
        Travel,
    }

    fn travelled<C: Cell>(prefix: &Prefix<C>) -> Prefix<C> {
        let pieces: Vec<_> = prefix.pieces().collect();
        let mut worth_keeping = Vec::new();
        for piece in &pieces {
            let bytes = piece.bytes();
            assert_eq!(bytes.len(), piece.len_in_bytes());
            assert!(usize::from(piece.skipped) + bytes.len() / size_of::<C>() <= PIECE as usize);
            assert_eq!(piece.is_zero(), bytes.iter().all(|&byte| byte == 0));
            if !piece.is_zero() {
                worth_keeping.push((piece.number, piece.skipped, bytes));
            }
        }
        let kept = worth_keeping.iter().map(|(number, skipped, bytes)| (*number, *skipped, &**bytes));
        let back = Prefix::from_pieces(&prefix.header(), kept).unwrap();
        assert!(back.pieces().map(|piece| piece.hash()).eq(pieces.iter().map(Chunk::hash)));
        back
    }

    pub fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (-40..200_i32, -3..4_i32).prop_map(|(pane, by)| Op::Add(pane, by)),
            4 => (any::<bool>(), -40..220_i32, -40..220_i32).prop_map(|(end, p, settled)| {
                Op::Ask(if end { Edge::End } else { Edge::Opening }, p, settled)
            }),
            1 => (-40..100_i32).prop_map(Op::Fold),
            1 => Just(Op::Travel),
        ]
    }

    /// Compares the sums of an array with those of a map.
    pub fn compare_with_map<C: Probe>(ops: Vec<Op>) -> TestCaseResult {
        let mut prefix = Prefix::<C>::default();
        let mut model = BTreeMap::<Pane, i64>::new();
        let mut limit = Pane::MIN;
        for op in ops {
            match op {
                Op::Add(pane, by) => {
                    C::add(&mut prefix, pane, by);
                    *model.entry(pane).or_default() += i64::from(by);
                }
                Op::Ask(edge, p, settled) if p >= limit.saturating_sub(1) => {
                    let expected: i64 = model.range(..=p).map(|(_, by)| by).sum();
                    prop_assert_eq!(C::total(&prefix.upto(p)), Some(expected));
                    prop_assert_eq!(C::total(&prefix.upto_from_memo(edge, p, settled)), Some(expected));
                }
                Op::Ask(..) => {}
                Op::Fold(at) => {
                    prefix.fold_before(at);
                    limit = limit.max(at);
                }
                Op::Travel => prefix = travelled(&prefix),
            }
        }
        Ok(())
    }

    pub type Changes = Vec<(Pane, i32)>;

    pub fn changes() -> impl Strategy<Value = Changes> {
        prop::collection::vec((-300..300_i32, -3..4_i32), 0..30)
    }

    /// Compares an array that absorbed another one with an array that got the changes of both.
    pub fn compare_absorbed<C: Probe>(mine: &Changes, theirs: &Changes, limits: (Pane, Pane)) -> TestCaseResult {
        let [mut one, mut other, mut both] = [(); 3].map(|()| Prefix::<C>::default());
        for (changes, prefix) in [(mine, &mut one), (theirs, &mut other)] {
            for &(pane, by) in changes {
                C::add(prefix, pane, by);
                C::add(&mut both, pane, by);
            }
        }
        one.fold_before(limits.0);
        other.fold_before(limits.1);
        one.absorb(other);
        for p in limits.0.max(limits.1)..400 {
            prop_assert!(C::total(&one.upto(p)).is_some());
            prop_assert_eq!(C::total(&one.upto(p)), C::total(&both.upto(p)));
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn sums_equal_a_plain_map(ops in prop::collection::vec(op(), 1..80)) {
            compare_with_map::<One>(ops)?;
        }
    }

    proptest! {
        #[test]
        fn an_array_absorbs_another(
            mine in changes(),
            theirs in changes(),
            limits in (-200..200_i32, -200..200_i32),
        ) {
            compare_absorbed::<One>(&mine, &theirs, limits)?;
        }
    }
}
