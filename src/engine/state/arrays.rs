//! Saves and restores the arrays of an engine, by a key that states what they count.
//!
//! Changes since the last checkpoint are found by comparing a hash of every piece, so booking events has no extra cost.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use xxhash_rust::xxh3::xxh3_128;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::plain::plain;
use super::rotation::oldest;
use crate::engine::prefix::{Cell, Chunk, Prefix};

/// Upper limit of the arrays in a list.
const MOST_IN_LIST: usize = 256;

/// Something that files store as an array of numbers, so that only changed pieces are written.
pub trait Numbers: Sized {
    /// Converts to numbers.
    fn numbers(&self) -> Vec<i64>;
    /// The inverse of [`Numbers::numbers`]; `None` for invalid numbers.
    fn from_numbers(numbers: &[i64]) -> Option<Self>;
}

impl Numbers for i64 {
    fn numbers(&self) -> Vec<i64> {
        vec![*self]
    }

    fn from_numbers(numbers: &[i64]) -> Option<i64> {
        let &[number] = numbers else { return None };
        Some(number)
    }
}

#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Number {
    number: i64,
}

plain!(Number { number });

impl Cell for Number {
    type Sum = i128;
    type Store = Vec<Number>;
    fn add_to(&self, sum: &mut i128) {
        *sum += i128::from(self.number);
    }
}

/// Visits every array, to save or restore it.
pub trait Visitor {
    /// Saves an array, or restores it and returns `true`.
    fn visit<C: Cell>(&mut self, key: &str, array: &mut Prefix<C>) -> bool;

    /// Reports that the restored content of an array is invalid.
    fn refuse(&mut self, key: &str);

    /// The next part of all keys below a key in the restored state. Empty while saving.
    fn names(&self, key: &str) -> Vec<String>;

    /// Visits a list of arrays, whose index is the last part of the key. While restoring, extends it to its old length.
    fn visit_list<C: Cell>(&mut self, key: &str, list: &mut Vec<Prefix<C>>) {
        let len = self.len_of_list(key);
        if list.len() < len {
            list.resize_with(len, Prefix::default);
        }
        for (number, array) in list.iter_mut().enumerate() {
            self.visit(&format!("{key}/{number}"), array);
        }
    }

    /// The length of a list in the restored state.
    fn len_of_list(&self, key: &str) -> usize {
        let numbers = self.names(key).into_iter().filter_map(|name| name.parse::<usize>().ok());
        numbers.filter(|&number| number < MOST_IN_LIST).max().map_or(0, |number| number + 1)
    }

    /// Saves or restores something that is stored as numbers.
    fn visit_numbers<T: Numbers>(&mut self, key: &str, thing: &mut T) {
        let cells = thing.numbers().into_iter().map(|number| Number { number }).collect();
        let mut array = Prefix::from_cells(cells);
        if self.visit(key, &mut array) {
            let numbers: Vec<_> = array.cells().iter().map(|cell| cell.number).collect();
            match T::from_numbers(&numbers) {
                Some(restored) => *thing = restored,
                None => self.refuse(key),
            }
        }
    }

    /// As [`Visitor::visit_list`], for things that are stored as numbers.
    fn visit_numbers_list<T: Numbers + Default>(&mut self, key: &str, list: &mut Vec<T>) {
        let len = self.len_of_list(key);
        if list.len() < len {
            list.resize_with(len, T::default);
        }
        for (number, thing) in list.iter_mut().enumerate() {
            self.visit_numbers(&format!("{key}/{number}"), thing);
        }
    }
}

/// Escapes a text as a part of a key: without `/`.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('/', "%2F")
}

/// The content of one array in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayState {
    /// What the array counts.
    pub key: String,
    /// The checkpoint that last wrote it in full: pieces of older ones are invalid.
    pub born: u64,
    /// See [`Prefix::header`].
    pub header: Vec<u8>,
    /// The changed pieces; if written in full, all except those of zeros.
    pub pieces: Vec<PieceState>,
    /// The bytes of the pieces, one after another.
    pub bytes: Vec<u8>,
}

/// Position of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceState {
    /// Number of the piece.
    pub number: i32,
    /// Number of its first cells that are missing.
    pub skipped: u8,
    /// Length in bytes.
    pub len: u32,
}

/// How an array was last written.
#[derive(Debug, Clone)]
struct Mark {
    born: u64,
    /// The last checkpoint in which the array existed.
    seen: u64,
    header: u128,
    /// The number of the first piece.
    first: i32,
    /// The hashes of the pieces.
    pieces: Vec<u128>,
}

impl Mark {
    fn of<C: Cell>(array: &Prefix<C>, born: u64) -> Mark {
        let mut pieces = array.pieces().peekable();
        let first = pieces.peek().map_or(0, |piece| piece.number);
        let pieces = pieces.map(|piece| piece.hash()).collect();
        Mark { born, seen: born, header: xxh3_128(&array.header()), first, pieces }
    }

    fn hash(&self, number: i32) -> Option<u128> {
        let index = usize::try_from(i64::from(number) - i64::from(self.first)).ok()?;
        self.pieces.get(index).copied()
    }
}

/// How all arrays were last written.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    marks: HashMap<String, Mark, foldhash::fast::FixedState>,
    /// Bytes that the last checkpoint wrote because they changed, and the total.
    pace: (usize, usize),
}

impl Marks {
    /// The arrays that are due to be written in full.
    fn due(&self) -> BTreeSet<String> {
        let mut keys: Vec<_> = self.marks.iter().map(|(key, mark)| (mark.born, key)).collect();
        keys.sort_unstable();
        let born: Vec<_> = keys.iter().map(|(born, _)| *born).collect();
        let (changed, total) = self.pace;
        oldest(&born, changed, total).into_iter().map(|i| keys[i].1.clone()).collect()
    }

    /// The oldest checkpoint that a restore needs.
    #[must_use]
    pub fn needs(&self) -> Option<u64> {
        self.marks.values().map(|mark| mark.born).min()
    }

    /// Notes that a checkpoint was not written after all.
    pub fn roll_back(&mut self, checkpoint: &[ArrayState]) {
        for array in checkpoint {
            self.marks.remove(&array.key);
        }
    }

    /// A visitor that finds changes.
    pub fn saver(&mut self, sequence: u64) -> Saver<'_> {
        let due = self.due();
        self.pace = (0, 0);
        Saver { marks: self, sequence, due, checkpoint: Vec::new() }
    }
}

/// Finds changed arrays and those that are due in full.
#[derive(Debug)]
pub struct Saver<'a> {
    marks: &'a mut Marks,
    sequence: u64,
    due: BTreeSet<String>,
    checkpoint: Vec<ArrayState>,
}

impl Saver<'_> {
    /// The arrays to write. Arrays that were not visited are forgotten.
    #[must_use]
    pub fn finish(self) -> Vec<ArrayState> {
        self.marks.marks.retain(|_, mark| mark.seen == self.sequence);
        self.checkpoint
    }
}

impl Visitor for Saver<'_> {
    fn visit<C: Cell>(&mut self, key: &str, array: &mut Prefix<C>) -> bool {
        let old = self.marks.marks.get(key);
        // Two windows may have the same definition and share a key; one copy is enough.
        let full = self.due.remove(key) || old.is_none();
        let born = old.filter(|_| !full).map_or(self.sequence, |old| old.born);
        let header = array.header();
        let mut mark = Mark { born, seen: self.sequence, header: xxh3_128(&header), first: 0, pieces: Vec::new() };
        let mut checkpoint = ArrayState { key: key.to_owned(), born, header, pieces: Vec::new(), bytes: Vec::new() };
        let mut wanted = Vec::new();
        for piece in array.pieces() {
            let Chunk { number, skipped, .. } = piece;
            let (hash, len) = (piece.hash(), piece.len_in_bytes());
            if mark.pieces.is_empty() {
                mark.first = number;
            }
            mark.pieces.push(hash);
            let before = old.and_then(|old| old.hash(number));
            self.marks.pace.1 += len;
            let changed = before != Some(hash);
            let is_wanted = match before {
                Some(_) if !full => changed,
                _ => !piece.is_zero(),
            };
            if is_wanted {
                self.marks.pace.0 += if changed { len } else { 0 };
                checkpoint.pieces.push(PieceState { number, skipped, len: len as u32 });
                wanted.push(piece);
            }
        }
        // A single allocation, because the pieces are large.
        checkpoint.bytes.reserve_exact(wanted.iter().map(Chunk::len_in_bytes).sum());
        wanted.iter().for_each(|piece| checkpoint.bytes.extend_from_slice(&piece.bytes()));
        if full || !checkpoint.pieces.is_empty() || old.is_none_or(|old| old.header != mark.header) {
            self.checkpoint.push(checkpoint);
        }
        self.marks.marks.insert(key.to_owned(), mark);
        false
    }

    fn refuse(&mut self, _: &str) {}

    fn names(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
}

#[derive(Debug, Default)]
struct Stored {
    born: u64,
    header: Vec<u8>,
    /// By number: the number of missing cells, and the bytes of the others.
    pieces: BTreeMap<i32, (u8, Vec<u8>)>,
    /// Whether the checkpoint that wrote it in full was added.
    whole: bool,
}

/// Assembles arrays from checkpoints.
#[derive(Debug, Default)]
pub struct RestoredArrays {
    stored: BTreeMap<String, Stored>,
    marks: Marks,
    damaged: Option<String>,
}

impl RestoredArrays {
    /// Adds an array of a checkpoint; newest checkpoint first.
    pub fn add(&mut self, sequence: u64, array: ArrayState) {
        let ArrayState { key, born, header, pieces, bytes } = array;
        let stored = self.stored.entry(key).or_insert_with(|| Stored { born, header, ..Stored::default() });
        if stored.born != born {
            return;
        }
        stored.whole |= sequence == born;
        let mut rest = bytes.as_slice();
        for PieceState { number, skipped, len } in pieces {
            let Some((bytes, behind)) = rest.split_at_checked(len as usize) else { return };
            rest = behind;
            stored.pieces.entry(number).or_insert_with(|| (skipped, bytes.to_vec()));
        }
    }

    /// How the restored arrays were last written, and the key of an array that could not be restored.
    #[must_use]
    pub fn finish(self) -> (Marks, Option<String>) {
        (self.marks, self.damaged)
    }
}

impl Visitor for RestoredArrays {
    fn visit<C: Cell>(&mut self, key: &str, array: &mut Prefix<C>) -> bool {
        let Some(stored) = self.stored.get(key) else { return false };
        let pieces = stored.pieces.iter().map(|(&number, (skipped, bytes))| (number, *skipped, bytes.as_slice()));
        match Prefix::from_pieces(&stored.header, pieces).filter(|_| stored.whole) {
            Some(restored) => {
                *array = restored;
                self.marks.marks.insert(key.to_owned(), Mark::of(array, stored.born));
                true
            }
            None => {
                self.refuse(key);
                false
            }
        }
    }

    fn refuse(&mut self, key: &str) {
        self.damaged = Some(key.to_owned());
    }

    fn names(&self, key: &str) -> Vec<String> {
        let prefix = format!("{key}/");
        let below = self.stored.range(prefix.clone()..).map_while(|(key, _)| key.strip_prefix(&prefix));
        let mut names: Vec<_> = below.filter_map(|rest| rest.split('/').next()).map(str::to_owned).collect();
        names.dedup();
        names
    }
}
