//! The counts of customers and orders of a window, stored by column.
//!
//! An order changes one or two figures in panes that are weeks apart. By column, the figures of sixteen panes share a
//! cache line, so an order touches far fewer lines than if each cell were stored as a whole.
//!
//! The columns are unions of intervals that all begin with orders: an order changes each of them once, without a look
//! at other intervals. [`Counts::of`] subtracts them from each other to get the reported figures, which files store.

use std::borrow::Cow;
use std::ops::{Index, IndexMut, Range};

use xxhash_rust::xxh3::Xxh3;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::engine::axis::Pane;
use crate::engine::prefix::{Cell, PanePlace, Prefix, Store};
use crate::engine::state::plain::plain;
use crate::engine::window::Selection;

/// What is counted in each pane in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Active customers: those with an order within `active_for`.
    Active,
    /// Customers with an order in the window.
    Ordering,
    /// Sum over all customers of min(2, orders in the window).
    Twice,
    /// Customers with an order in the window and only one order so far.
    Once,
    /// Customers who are active, or who lapsed in the window and have not ordered since.
    Known,
    /// Customers with a visit in the window.
    Visiting,
    /// First orders.
    New,
    /// Second orders.
    Second,
    /// All orders.
    Orders,
    /// Sessions.
    Sessions,
}

/// Number of columns.
const COLUMNS: usize = Column::Sessions as usize + 1;

/// What is reported for each pane, in the order of the fields in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// [`Column::Active`]
    Active,
    /// [`Column::Ordering`]
    Ordering,
    /// Customers with at least two orders in the window.
    Repeat,
    /// Customers with an order in the window and at least two orders so far.
    Returning,
    /// Customers who lapsed in the window and have not ordered since.
    Lost,
    /// [`Column::Visiting`]
    Visiting,
    /// [`Column::New`]
    New,
    /// [`Column::Second`]
    Second,
    /// [`Column::Orders`]
    Orders,
    /// [`Column::Sessions`]
    Sessions,
}

impl Count {
    const ALL: [Count; COLUMNS] = [
        Count::Active,
        Count::Ordering,
        Count::Repeat,
        Count::Returning,
        Count::Lost,
        Count::Visiting,
        Count::New,
        Count::Second,
        Count::Orders,
        Count::Sessions,
    ];
}

/// The differences of one pane, as files store them.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Counts {
    /// By [`Count`].
    counts: [i32; COLUMNS],
    /// Milliseconds between orders of this pane and their predecessors.
    gap_millis: i64,
}

/// Computes the reported counts from the columns. The mapping is one to one, even if numbers overflow.
fn told<T: Copy>(held: [T; COLUMNS], minus: impl Fn(T, T) -> T) -> [T; COLUMNS] {
    let mut told = held;
    let mut tell = |count: Count, column: Column, less: Column| {
        told[count as usize] = minus(held[column as usize], held[less as usize]);
    };
    tell(Count::Repeat, Column::Twice, Column::Ordering);
    tell(Count::Returning, Column::Ordering, Column::Once);
    tell(Count::Lost, Column::Known, Column::Active);
    told
}

/// Whether a count belongs to a selection.
fn is_selected(selection: &Selection, count: Count) -> bool {
    match count {
        Count::Active => selection.active,
        Count::Ordering | Count::Repeat | Count::Returning => selection.ordering,
        Count::Lost => selection.lost,
        Count::Visiting => selection.visiting,
        Count::New | Count::Second | Count::Orders | Count::Sessions => selection.flows,
    }
}

fn select<T: Copy + Default>(selection: &Selection, counts: &[T; COLUMNS]) -> [T; COLUMNS] {
    let mut selected = [T::default(); COLUMNS];
    for count in Count::ALL.into_iter().filter(|&count| is_selected(selection, count)) {
        selected[count as usize] = counts[count as usize];
    }
    selected
}

impl Counts {
    /// The counts of a selection; the others are zero.
    pub fn selected(&self, selection: &Selection) -> Counts {
        let gap_millis = if selection.flows { self.gap_millis } else { 0 };
        Counts { counts: select(selection, &self.counts), gap_millis }
    }

    fn of(held: [i32; COLUMNS], gap_millis: i64) -> Counts {
        Counts { counts: told(held, i32::wrapping_sub), gap_millis }
    }

    /// The inverse of [`told`].
    fn held(&self) -> [i32; COLUMNS] {
        let mut held = self.counts;
        let count = |count: Count| self.counts[count as usize];
        held[Column::Twice as usize] = count(Count::Ordering).wrapping_add(count(Count::Repeat));
        held[Column::Once as usize] = count(Count::Ordering).wrapping_sub(count(Count::Returning));
        held[Column::Known as usize] = count(Count::Active).wrapping_add(count(Count::Lost));
        held
    }
}

/// Prefix sums of [`Counts`].
#[derive(Debug, Clone, Copy, Default)]
pub struct CountsSum {
    /// By [`Count`].
    counts: [i64; COLUMNS],
    /// See [`Counts::gap_millis`].
    pub gap_millis: i64,
}

plain!(Counts { counts, gap_millis });
plain!(CountsSum { counts, gap_millis });

impl CountsSum {
    /// The counts of a selection; the others are zero.
    pub fn selected(&self, selection: &Selection) -> CountsSum {
        let gap_millis = if selection.flows { self.gap_millis } else { 0 };
        CountsSum { counts: select(selection, &self.counts), gap_millis }
    }
}

impl Index<Count> for CountsSum {
    type Output = i64;
    fn index(&self, count: Count) -> &i64 {
        &self.counts[count as usize]
    }
}

impl IndexMut<Count> for CountsSum {
    fn index_mut(&mut self, count: Count) -> &mut i64 {
        &mut self.counts[count as usize]
    }
}

impl Cell for Counts {
    type Sum = CountsSum;
    type Store = Columns;
    fn add_to(&self, sum: &mut CountsSum) {
        for (sum, &count) in sum.counts.iter_mut().zip(&self.counts) {
            *sum += i64::from(count);
        }
        sum.gap_millis += self.gap_millis;
    }
}

/// The cells of a window by column. All columns share one allocation, so that few cache lines are read.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    /// All columns one after another, `room` entries each, in the order of [`Column`].
    counts: Vec<i32>,
    gap_millis: Vec<i64>,
    /// Capacity of each column.
    room: usize,
}

impl Columns {
    #[inline]
    fn column(&self, column: usize, range: Range<usize>) -> &[i32] {
        let first = column * self.room;
        &self.counts[first + range.start..first + range.end]
    }

    #[inline]
    fn count_mut(&mut self, column: Column, index: usize) -> &mut i32 {
        count_mut(&mut self.counts, self.room, self.gap_millis.len(), column, index)
    }

    /// Moves the cells from index `gone` on to index `missing`, after zeros, with a capacity of `room` per column.
    fn rearrange(&mut self, room: usize, gone: usize, missing: usize) {
        let kept = gone..self.gap_millis.len();
        let mut counts = vec![0; COLUMNS * room];
        for (column, place) in counts.chunks_exact_mut(room.max(1)).enumerate() {
            place[missing..missing + kept.len()].copy_from_slice(self.column(column, kept.clone()));
        }
        (self.counts, self.room) = (counts, room);
    }
}

/// A count in a column of `len` cells with the capacity `room`.
#[inline]
fn count_mut(counts: &mut [i32], room: usize, len: usize, column: Column, index: usize) -> &mut i32 {
    // Beyond `len` are unused cells, then the next column.
    assert!(index < len, "a pane behind the last cell");
    &mut counts[column as usize * room + index]
}

impl Store<Counts> for Columns {
    fn zeros(len: usize) -> Columns {
        Columns { counts: vec![0; COLUMNS * len], gap_millis: vec![0; len], room: len }
    }

    #[inline]
    fn len(&self) -> usize {
        self.gap_millis.len()
    }

    fn grow(&mut self, len: usize) {
        if len > self.room {
            self.rearrange(len.max(2 * self.room), 0, 0);
        }
        self.gap_millis.resize(len, 0);
    }

    fn grow_front(&mut self, missing: usize) {
        self.rearrange(missing + self.len(), 0, missing);
        self.gap_millis.splice(0..0, std::iter::repeat_n(0, missing));
    }

    fn truncate_front(&mut self, gone: usize) {
        let kept = self.len() - gone;
        if self.room > 2 * kept {
            self.rearrange(kept, gone, 0);
        } else {
            // The capacity will be needed again soon.
            for column in self.counts.chunks_exact_mut(self.room.max(1)) {
                column.copy_within(gone..gone + kept, 0);
                column[kept..].fill(0);
            }
        }
        self.gap_millis.drain(..gone);
    }

    fn add_to(&self, range: Range<usize>, sum: &mut CountsSum) {
        let held = |column| self.column(column, range.clone()).iter().map(|&count| i64::from(count)).sum::<i64>();
        let told = told(std::array::from_fn(held), i64::wrapping_sub);
        sum.counts.iter_mut().zip(told).for_each(|(sum, told)| *sum += told);
        sum.gap_millis += self.gap_millis[range].iter().sum::<i64>();
    }

    fn get(&self, index: usize) -> Counts {
        Counts::of(std::array::from_fn(|column| self.counts[column * self.room + index]), self.gap_millis[index])
    }

    fn set(&mut self, index: usize, cell: Counts) {
        self.gap_millis[index] = cell.gap_millis;
        for (column, count) in cell.held().into_iter().enumerate() {
            self.counts[column * self.room + index] = count;
        }
    }

    fn is_zero(&self, range: Range<usize>) -> bool {
        (0..COLUMNS).all(|column| self.column(column, range.clone()).iter().all(|&count| count == 0))
            && self.gap_millis[range].iter().all(|&millis| millis == 0)
    }

    fn hash(&self, range: Range<usize>, seed: u64) -> u128 {
        let mut hash = Xxh3::with_seed(seed);
        for column in 0..COLUMNS {
            hash.update(self.column(column, range.clone()).as_bytes());
        }
        hash.update(self.gap_millis[range].as_bytes());
        hash.digest128()
    }

    fn bytes(&self, range: Range<usize>) -> Cow<'_, [u8]> {
        let mut bytes = Vec::with_capacity(range.len() * size_of::<Counts>());
        range.for_each(|index| bytes.extend_from_slice(self.get(index).as_bytes()));
        Cow::Owned(bytes)
    }

    fn memory(&self) -> usize {
        self.counts.capacity() * size_of::<i32>() + self.gap_millis.capacity() * size_of::<i64>()
    }
}

/// Cells to which the bookings of an order are added.
pub trait Cells {
    /// Adds to a count at a pane.
    fn add(&mut self, column: Column, pane: Pane, by: i32);
    /// Adds to [`Counts::gap_millis`] at a pane.
    fn add_gap(&mut self, pane: Pane, millis: i64);
}

impl Cells for Prefix<Counts> {
    #[inline]
    fn add(&mut self, column: Column, pane: Pane, by: i32) {
        match self.place(pane) {
            PanePlace::Stored(columns, index) => *columns.count_mut(column, index) += by,
            PanePlace::Early(cell) => {
                let mut held = cell.held();
                held[column as usize] += by;
                *cell = Counts::of(held, cell.gap_millis);
            }
        }
    }

    fn add_gap(&mut self, pane: Pane, millis: i64) {
        match self.place(pane) {
            PanePlace::Stored(columns, index) => columns.gap_millis[index] += millis,
            PanePlace::Early(cell) => cell.gap_millis += millis,
        }
    }
}

/// Columns that contain all panes to which the caller adds.
#[derive(Debug)]
pub struct ColumnSlice<'a> {
    counts: &'a mut [i32],
    gap_millis: &'a mut [i64],
    room: usize,
    /// The pane of the first cell.
    base: Pane,
}

impl<'a> ColumnSlice<'a> {
    /// Columns whose first cell belongs to pane `base`.
    #[inline]
    pub fn new(columns: &'a mut Columns, base: Pane) -> ColumnSlice<'a> {
        let Columns { counts, gap_millis, room } = columns;
        ColumnSlice { counts, gap_millis, room: *room, base }
    }

    /// The index of a pane; out of range for a pane before the first.
    #[inline]
    fn index(&self, pane: Pane) -> usize {
        pane.wrapping_sub(self.base) as usize
    }
}

impl Cells for ColumnSlice<'_> {
    #[inline]
    fn add(&mut self, column: Column, pane: Pane, by: i32) {
        let index = self.index(pane);
        *count_mut(self.counts, self.room, self.gap_millis.len(), column, index) += by;
    }

    #[inline]
    fn add_gap(&mut self, pane: Pane, millis: i64) {
        let index = self.index(pane);
        self.gap_millis[index] += millis;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::prefix::tests::{Probe, changes, compare_absorbed, compare_with_map, op};

    const ALL: [Column; COLUMNS] = [
        Column::Active,
        Column::Ordering,
        Column::Twice,
        Column::Once,
        Column::Known,
        Column::Visiting,
        Column::New,
        Column::Second,
        Column::Orders,
        Column::Sessions,
    ];

    /// Each column holds another multiple, so that swapped columns are noticed.
    impl Probe for Counts {
        fn add(prefix: &mut Prefix<Counts>, pane: Pane, by: i32) {
            for column in ALL {
                prefix.add(column, pane, by * multiple(column));
            }
            prefix.add_gap(pane, i64::from(by));
        }

        fn total(sum: &CountsSum) -> Option<i64> {
            let total = sum.gap_millis;
            let expected = told(ALL.map(|column| i64::from(multiple(column)) * total), i64::wrapping_sub);
            (sum.counts == expected).then_some(total)
        }
    }

    /// Squares, so that the difference of any two columns is unique.
    fn multiple(column: Column) -> i32 {
        (column as i32 + 2).pow(2)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn sums_equal_a_plain_map(ops in prop::collection::vec(op(), 1..80)) {
            compare_with_map::<Counts>(ops)?;
        }
    }

    proptest! {
        #[test]
        fn what_is_told_and_what_is_held_are_one_to_one(told in people()) {
            let there_and_back = Counts::of(told.held(), told.gap_millis);
            prop_assert_eq!(there_and_back.as_bytes(), told.as_bytes());
        }
    }

    #[derive(Debug, Clone)]
    enum Change {
        Grow(usize),
        GrowFront(usize),
        TruncateFront(usize),
        Set(usize, Counts),
    }

    fn people() -> impl Strategy<Value = Counts> {
        // The sum of two fits into an `i32`.
        let counts = prop::array::uniform10(prop_oneof![Just(0), i32::MIN / 2..=i32::MAX / 2]);
        (counts, -1_000_000_000_000..1_000_000_000_000_i64)
            .prop_map(|(counts, gap_millis)| Counts { counts, gap_millis })
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            1 => (0..90_usize).prop_map(Change::Grow),
            1 => (0..20_usize).prop_map(Change::GrowFront),
            1 => (0..20_usize).prop_map(Change::TruncateFront),
            6 => (0..200_usize, people()).prop_map(|(index, cell)| Change::Set(index, cell)),
        ]
    }

    fn make<S: Store<Counts>>(changes: &[Change]) -> S {
        let mut cells = S::zeros(5);
        for change in changes {
            match *change {
                Change::Grow(by) => cells.grow(cells.len() + by),
                Change::GrowFront(by) => cells.grow_front(by),
                Change::TruncateFront(by) => cells.truncate_front(by.min(cells.len())),
                Change::Set(index, cell) if index < cells.len() => cells.set(index, cell),
                Change::Set(..) => {}
            }
        }
        cells
    }

    proptest! {
        #[test]
        fn an_array_absorbs_another(
            mine in changes(),
            theirs in changes(),
            limits in (-200..200_i32, -200..200_i32),
        ) {
            compare_absorbed::<Counts>(&mine, &theirs, limits)?;
        }

        #[test]
        fn columns_are_to_files_what_rows_are(
            changes in prop::collection::vec(change(), 0..40),
            ends in (0..200_usize, 0..200_usize),
            changed in (any::<prop::sample::Index>(), 0..=COLUMNS),
        ) {
            let (mut columns, rows) = (make::<Columns>(&changes), make::<Vec<Counts>>(&changes));
            prop_assert_eq!(Store::len(&columns), rows.len());
            let range = ends.0.min(ends.1).min(rows.len())..ends.0.max(ends.1).min(rows.len());
            prop_assert_eq!(columns.bytes(range.clone()), rows.bytes(range.clone()));
            prop_assert_eq!(columns.is_zero(range.clone()), rows.is_zero(range.clone()));
            let [mut by_column, mut by_row] = [CountsSum::default(); 2];
            columns.add_to(range.clone(), &mut by_column);
            rows.add_to(range.clone(), &mut by_row);
            prop_assert_eq!(by_column.counts, by_row.counts);
            prop_assert_eq!(by_column.gap_millis, by_row.gap_millis);
            if !range.is_empty() {
                let hash = columns.hash(range.clone(), 0);
                prop_assert_ne!(hash, columns.hash(range.clone(), 1));
                let index = range.start + changed.0.index(range.len());
                match changed.1 {
                    COLUMNS => columns.gap_millis[index] ^= 1,
                    column => columns.counts[column * columns.room + index] ^= 1,
                }
                prop_assert_ne!(hash, columns.hash(range, 0));
            }
        }
    }

    #[test]
    fn a_cell_lies_in_files_as_it_always_did() {
        let cell = Counts { counts: std::array::from_fn(|column| column as i32 + 1), gap_millis: -2 };
        let mut expected: Vec<u8> = (1..=10_i32).flat_map(i32::to_le_bytes).collect();
        expected.extend((-2_i64).to_le_bytes());
        let mut columns = Columns::zeros(1);
        columns.set(0, cell);
        assert_eq!(columns.bytes(0..1), expected);
    }
}
