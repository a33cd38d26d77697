//! Windows per value of each dimension, such as acquisition channel or country.
//!
//! A customer belongs to the value in the earliest order. Before the first order the value is [`NONE`]; without a value
//! in the order it is [`UNKNOWN`], and for a value that is neither listed nor kept [`OTHER`].

use indexmap::IndexMap;

use super::axis::Moment;
use super::spec::Spec;
use super::state::arrays::{Visitor, escape};
use super::window::{Flow, OrderTerm, Sign, Window};
use super::{WindowId, window_ids};
use crate::event::{Attributes, MAX_DIMENSIONS};

type Hasher = foldhash::fast::FixedState;

/// Number of values kept per dimension if none are listed.
pub const KEPT_VALUES: usize = 50;

/// Value of customers without an order.
pub const NONE: &str = "none";
/// Value of customers whose first order names none.
pub const UNKNOWN: &str = "unknown";
/// Replaces values that are neither listed nor kept.
pub const OTHER: &str = "other";

/// Index of [`UNKNOWN`].
pub const UNKNOWN_PLACE: u8 = 1;
/// Index of [`OTHER`].
const OTHERS_PLACE: u8 = 2;

/// Values with a fixed index.
const FIXED: [&str; 3] = [NONE, UNKNOWN, OTHER];

/// A dimension of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DimensionSpec {
    /// Name of the attribute in events.
    pub name: String,
    /// The values to keep; if empty, the first [`KEPT_VALUES`] that occur.
    pub values: Vec<String>,
}

/// A customer's segments: for each dimension the index of the value.
pub type Profile = [u8; MAX_DIMENSIONS];

/// Profile of a customer without an order.
pub const NO_PROFILE: Profile = [0; MAX_DIMENSIONS];

/// State of a dimension, as files store it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DimensionState {
    /// Name of the dimension.
    pub name: String,
    /// The first checkpoint with this dimension. Older ones may contain another dimension of the same name.
    pub born: u64,
    /// The values by index.
    pub values: Vec<String>,
    /// Whether more values occurred than are kept.
    pub overflowed: bool,
}

#[derive(Debug, Clone)]
struct Dimension {
    name: String,
    /// See [`DimensionState::born`].
    born: u64,
    listed: bool,
    /// The windows of each value; empty until something is booked.
    values: IndexMap<String, Vec<Window>, Hasher>,
    overflowed: bool,
}

/// The windows of all segments of a partition.
#[derive(Debug, Clone)]
pub struct Segments {
    dimensions: Vec<Dimension>,
    /// Empty windows, cloned for each new value.
    blank: Vec<Window>,
}

impl Segments {
    /// Segments without bookings.
    #[must_use]
    pub fn new(spec: &Spec) -> Segments {
        let blank = window_ids(spec).map(|id| Window::new(spec.axis(id), spec.active_for(id))).collect();
        let dimension = |dimension: &DimensionSpec| {
            let names = FIXED.iter().copied().chain(dimension.values.iter().map(String::as_str));
            Dimension {
                name: dimension.name.clone(),
                born: 0,
                listed: !dimension.values.is_empty(),
                values: names.map(|name| (name.to_owned(), Vec::new())).collect(),
                overflowed: false,
            }
        };
        Segments { dimensions: spec.dimensions.iter().map(dimension).collect(), blank }
    }

    /// The state of all dimensions, for files.
    #[must_use]
    pub fn state(&self) -> Vec<DimensionState> {
        let Segments { dimensions, blank: _ } = self;
        let state = |dimension: &Dimension| {
            let Dimension { name, born, listed: _, values, overflowed } = dimension;
            let values = values.keys().cloned().collect();
            DimensionState { name: name.clone(), born: *born, values, overflowed: *overflowed }
        };
        dimensions.iter().map(state).collect()
    }

    /// Restores the dimensions of a state that are still configured; `sequence` is the first checkpoint with the
    /// others. Returns for each dimension whether it was restored.
    pub fn resume(&mut self, state: &[DimensionState], sequence: u64) -> Vec<bool> {
        let resume = |dimension: &mut Dimension| {
            let Some(state) = state.iter().find(|state| state.name == dimension.name) else {
                dimension.born = sequence;
                return false;
            };
            dimension.born = state.born;
            if !dimension.listed {
                dimension.overflowed = state.overflowed;
                let found = state.values.iter().skip(FIXED.len()).take(KEPT_VALUES);
                dimension.values.extend(found.map(|name| (name.clone(), Vec::new())));
            }
            true
        };
        self.dimensions.iter_mut().map(resume).collect()
    }

    /// The index of a value of a state; that of [`OTHER`] if it is no longer kept.
    #[must_use]
    pub fn place_of(&self, dimension: usize, value: &str) -> u8 {
        let dimension = self.dimensions.get(dimension);
        dimension
            .and_then(|dimension| dimension.values.get_index_of(value))
            .and_then(|place| u8::try_from(place).ok())
            .unwrap_or(OTHERS_PLACE)
    }

    /// Passes every array to a visitor that saves or restores it. `windows` are the keys of the windows, each with
    /// whether to pass it; `dimensions` states the same for each dimension.
    pub fn show(&mut self, windows: &[(String, bool)], dimensions: &[bool], visitor: &mut impl Visitor) {
        for (dimension, _) in self.dimensions.iter_mut().zip(dimensions).filter(|(_, shown)| **shown) {
            let root = dimension.key();
            for (name, arrays) in &mut dimension.values {
                let key = format!("{root}/{}", escape(name));
                if arrays.is_empty() && !visitor.names(&key).is_empty() {
                    arrays.clone_from(&self.blank);
                }
                show_windows(&key, windows, arrays, visitor);
            }
        }
    }

    /// Adds the windows of values that are no longer kept to [`OTHER`].
    pub fn absorb_gone(&mut self, state: &[DimensionState], windows: &[(String, bool)], visitor: &mut impl Visitor) {
        for dimension in &mut self.dimensions {
            let root = dimension.key();
            let kept: Vec<_> = dimension.values.keys().map(String::as_str).collect();
            let state = state.iter().find(|state| state.name == dimension.name);
            let gone = state.into_iter().flat_map(|state| &state.values).filter(|name| !kept.contains(&name.as_str()));
            let keys: Vec<_> = gone.map(|name| format!("{root}/{}", escape(name))).collect();
            for key in &keys {
                if visitor.names(key).is_empty() {
                    continue;
                }
                let mut gone = self.blank.clone();
                show_windows(key, windows, &mut gone, visitor);
                let others = &mut dimension.values[usize::from(OTHERS_PLACE)];
                if others.is_empty() {
                    others.clone_from(&self.blank);
                }
                others.iter_mut().zip(gone).for_each(|(window, gone)| window.absorb(gone));
            }
        }
    }

    /// Takes windows of segments of the same spec, selected by dimension and window index.
    pub fn adopt(&mut self, other: Segments, wanted: impl Fn(usize, usize) -> bool) {
        let Segments { dimensions, blank: _ } = other;
        for (i, (mine, theirs)) in self.dimensions.iter_mut().zip(dimensions).enumerate() {
            for ((_, mine), (_, theirs)) in mine.values.iter_mut().zip(theirs.values) {
                if mine.is_empty() && !theirs.is_empty() {
                    mine.clone_from(&self.blank);
                }
                for (window, (mine, theirs)) in mine.iter_mut().zip(theirs).enumerate() {
                    if wanted(i, window) {
                        *mine = theirs;
                    }
                }
            }
        }
    }

    /// The window `index` of every value of a dimension.
    pub fn windows_of(&mut self, dimension: usize, index: usize) -> impl Iterator<Item = &mut Window> {
        let values = self.dimensions.get_mut(dimension).into_iter().flat_map(|dimension| &mut dimension.values);
        values.filter_map(move |(_, windows)| windows.get_mut(index))
    }

    /// The window `index` of a value; of [`OTHER`] if the value is no longer kept.
    pub fn window_of_value(&mut self, dimension: usize, value: &str, index: usize) -> &mut Window {
        self.window_of_place(dimension, self.place_of(dimension, value), index)
    }

    /// The window `index` of the value with index `place`.
    pub fn window_of_place(&mut self, dimension: usize, place: u8, index: usize) -> &mut Window {
        let of_value = &mut self.dimensions[dimension].values[usize::from(place)];
        if of_value.is_empty() {
            of_value.clone_from(&self.blank);
        }
        &mut of_value[index]
    }

    /// The same dimensions and values without bookings.
    #[must_use]
    pub fn emptied(&self) -> Segments {
        let dimension = |dimension: &Dimension| {
            let Dimension { name, born, listed, values, overflowed } = dimension;
            let values = values.keys().map(|name| (name.clone(), Vec::new())).collect();
            Dimension { name: name.clone(), born: *born, listed: *listed, values, overflowed: *overflowed }
        };
        Segments { dimensions: self.dimensions.iter().map(dimension).collect(), blank: self.blank.clone() }
    }

    /// Whether there are no dimensions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dimensions.is_empty()
    }

    /// The profile of an order's attributes.
    pub fn profile(&mut self, attributes: &Attributes<'_>) -> Profile {
        // Built in a register: a load of four bytes that were just stored one by one would have to wait for the stores.
        let places = self.dimensions.iter_mut().enumerate();
        let profile =
            places.fold(0, |so_far, (i, dimension)| so_far | u32::from(dimension.place(attributes.get(i))) << (8 * i));
        profile.to_le_bytes()
    }

    /// The values of a profile, by dimension.
    pub fn names(&self, profile: Profile) -> impl Iterator<Item = &str> {
        let dimensions = self.dimensions.iter().zip(profile);
        dimensions
            .filter_map(|(dimension, value)| dimension.values.get_index(usize::from(value)))
            .map(|(name, _)| name.as_str())
    }

    /// Calls `book` with each window of a profile's segments.
    pub fn each(&mut self, profile: Profile, mut book: impl FnMut(&mut Window)) {
        self.of(profile).into_iter().flatten().flatten().for_each(&mut book);
    }

    /// The windows of a profile's segments, by dimension.
    #[inline]
    pub fn of(&mut self, profile: Profile) -> [Option<&mut [Window]>; MAX_DIMENSIONS] {
        let mut all = [const { None }; MAX_DIMENSIONS];
        for ((dimension, &value), windows) in self.dimensions.iter_mut().zip(&profile).zip(&mut all) {
            let of_value = &mut dimension.values[usize::from(value)];
            if of_value.is_empty() {
                of_value.clone_from(&self.blank);
            }
            *windows = Some(of_value.as_mut_slice());
        }
        all
    }

    /// Books or undoes an order.
    pub fn order(&mut self, profile: Profile, term: &OrderTerm, sign: Sign) {
        self.each(profile, |window| window.order(term, sign));
    }

    /// Books or undoes money.
    pub fn money(&mut self, profile: Profile, flow: Flow, currency: usize, minor: i64, at: Moment, sign: Sign) {
        self.each(profile, |window| window.money(flow, currency, minor, at, sign));
    }

    /// Every value with bookings: dimension, name and the window `index`.
    pub fn windows(&mut self, index: usize) -> impl Iterator<Item = (usize, &str, &mut Window)> {
        self.dimensions.iter_mut().enumerate().flat_map(move |(i, dimension)| {
            dimension
                .values
                .iter_mut()
                .filter_map(move |(name, windows)| Some((i, name.as_str(), windows.get_mut(index)?)))
        })
    }

    /// Folds the panes before `limit`, which is given per window.
    pub fn fold_before(&mut self, limit: impl Fn(WindowId) -> super::axis::Pane, spec: &Spec) {
        for (_, windows) in self.dimensions.iter_mut().flat_map(|dimension| &mut dimension.values) {
            for (id, window) in window_ids(spec).zip(windows) {
                window.fold_before(limit(id));
            }
        }
    }

    /// For each dimension, whether a value occurred that is not kept.
    pub fn overflowed(&self) -> impl Iterator<Item = bool> {
        self.dimensions.iter().map(|dimension| dimension.overflowed)
    }

    /// The values of a dimension, including the fixed ones.
    pub fn kept(&self, dimension: usize) -> impl Iterator<Item = &str> {
        self.dimensions.get(dimension).into_iter().flat_map(|dimension| dimension.values.keys().map(String::as_str))
    }

    /// Memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let values = self.dimensions.iter().flat_map(|dimension| &dimension.values);
        values.flat_map(|(_, windows)| windows).map(Window::bytes).sum()
    }
}

fn show_windows(key: &str, keys: &[(String, bool)], windows: &mut [Window], visitor: &mut impl Visitor) {
    for (window, (name, _)) in windows.iter_mut().zip(keys).filter(|(_, (_, shown))| *shown) {
        window.show(&format!("{key}/{name}"), visitor);
    }
}

impl Dimension {
    fn key(&self) -> String {
        format!("segment/{}@{}", escape(&self.name), self.born)
    }

    fn place(&mut self, value: Option<&str>) -> u8 {
        let Some(value) = value.filter(|&value| value != NONE) else { return 1 };
        let found = self.values.get_index_of(value);
        let place = match found {
            Some(place) => place,
            None if self.listed => 2,
            None if self.values.len() < FIXED.len() + KEPT_VALUES => {
                self.values.insert(value.to_owned(), Vec::new());
                self.values.len() - 1
            }
            None => {
                self.overflowed = true;
                2
            }
        };
        u8::try_from(place).unwrap_or(2)
    }
}
