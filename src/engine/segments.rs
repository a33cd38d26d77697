//! Every window once more for each value of each dimension, such as acquisition channel or country.
//!
//! A customer belongs to the value that the earliest order names. Until there is an order the value is [`NONE`]; an
//! order that names none belongs to [`UNKNOWN`], one beyond the listed or kept values to [`OTHER`].

use super::axis::Moment;
use super::spec::Spec;
use super::window::{Flow, OrderTerm, Sign, Window};
use super::{WindowId, window_ids};
use crate::event::{Attributes, MAX_DIMENSIONS};

/// How many values of a dimension are kept when none are listed.
pub const KEPT_VALUES: usize = 50;

/// The value of someone without an order.
pub const NONE: &str = "none";
/// The value of an order that names none.
pub const UNKNOWN: &str = "unknown";
/// The value of everything beyond the listed or kept values.
pub const OTHER: &str = "other";

/// The names of the values with a fixed place.
const FIXED: [&str; 3] = [NONE, UNKNOWN, OTHER];

/// A dimension of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DimensionSpec {
    /// Its name, as in the events' attributes.
    pub name: String,
    /// The values to keep; the first [`KEPT_VALUES`] found when empty.
    pub values: Vec<String>,
}

/// The value of each dimension that a customer belongs to, by its place in the dimension.
pub type Profile = [u8; MAX_DIMENSIONS];

/// The profile of someone without an order.
pub const NO_PROFILE: Profile = [0; MAX_DIMENSIONS];

#[derive(Debug, Clone)]
struct Dimension {
    listed: bool,
    /// By value: its name and its windows, which are there once something is booked.
    values: Vec<(String, Vec<Window>)>,
    overflowed: bool,
}

/// The windows of every value of every dimension of a partition.
#[derive(Debug, Clone)]
pub struct Segments {
    dimensions: Vec<Dimension>,
    /// What a new value begins with.
    blank: Vec<Window>,
}

impl Segments {
    /// Nothing is booked yet.
    #[must_use]
    pub fn new(spec: &Spec) -> Segments {
        let blank = window_ids(spec).map(|id| Window::new(spec.axis(id), spec.active_for(id))).collect();
        let dimension = |dimension: &DimensionSpec| {
            let names = FIXED.iter().copied().chain(dimension.values.iter().map(String::as_str));
            Dimension {
                listed: !dimension.values.is_empty(),
                values: names.map(|name| (name.to_owned(), Vec::new())).collect(),
                overflowed: false,
            }
        };
        Segments { dimensions: spec.dimensions.iter().map(dimension).collect(), blank }
    }

    /// Whether there is no dimension.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dimensions.is_empty()
    }

    /// The profile that an order's attributes name.
    pub fn profile(&mut self, attributes: &Attributes<'_>) -> Profile {
        let mut profile = NO_PROFILE;
        for (i, dimension) in self.dimensions.iter_mut().enumerate() {
            profile[i] = dimension.place(attributes.get(i));
        }
        profile
    }

    /// The names of a profile's values, by dimension.
    pub fn names(&self, profile: Profile) -> impl Iterator<Item = &str> {
        let dimensions = self.dimensions.iter().zip(profile);
        dimensions.map(|(dimension, value)| dimension.values[usize::from(value)].0.as_str())
    }

    /// Does something with each window of a profile's values.
    pub fn each(&mut self, profile: Profile, mut book: impl FnMut(&mut Window)) {
        for (dimension, &value) in self.dimensions.iter_mut().zip(&profile) {
            let (_, windows) = &mut dimension.values[usize::from(value)];
            if windows.is_empty() {
                windows.clone_from(&self.blank);
            }
            windows.iter_mut().for_each(&mut book);
        }
    }

    /// Books an order, or takes it back.
    pub fn order(&mut self, profile: Profile, term: &OrderTerm, sign: Sign) {
        self.each(profile, |window| window.order(term, sign));
    }

    /// Books money, or takes it back.
    pub fn money(&mut self, profile: Profile, flow: Flow, currency: usize, minor: i64, at: Moment, sign: Sign) {
        self.each(profile, |window| window.money(flow, currency, minor, at, sign));
    }

    /// Every value that something was booked for: dimension, name, and the window with that index.
    pub fn windows(&mut self, index: usize) -> impl Iterator<Item = (usize, &str, &mut Window)> {
        self.dimensions.iter_mut().enumerate().flat_map(move |(i, dimension)| {
            dimension
                .values
                .iter_mut()
                .filter_map(move |(name, windows)| Some((i, name.as_str(), windows.get_mut(index)?)))
        })
    }

    /// Folds what lies before `limit` of each window, which gives the limit of a window.
    pub fn fold_before(&mut self, limit: impl Fn(WindowId) -> super::axis::Pane, spec: &Spec) {
        for (_, windows) in self.dimensions.iter_mut().flat_map(|dimension| &mut dimension.values) {
            for (id, window) in window_ids(spec).zip(windows) {
                window.fold_before(limit(id));
            }
        }
    }

    /// Of each dimension, whether a value was found that has no place of its own.
    pub fn overflowed(&self) -> impl Iterator<Item = bool> {
        self.dimensions.iter().map(|dimension| dimension.overflowed)
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let values = self.dimensions.iter().flat_map(|dimension| &dimension.values);
        values.flat_map(|(_, windows)| windows).map(Window::bytes).sum()
    }
}

impl Dimension {
    fn place(&mut self, value: Option<&str>) -> u8 {
        let Some(value) = value.filter(|&value| value != NONE) else { return 1 };
        let found = self.values.iter().position(|(name, _)| name == value);
        let place = match found {
            Some(place) => place,
            None if self.listed => 2,
            None if self.values.len() < FIXED.len() + KEPT_VALUES => {
                self.values.push((value.to_owned(), Vec::new()));
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
