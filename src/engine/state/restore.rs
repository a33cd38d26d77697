//! Restores an engine from its checkpoints, newest first: the first copy found of anything is used, older ones are
//! ignored.

use std::fmt;
use std::sync::Arc;

use super::arrays::{ArrayState, RestoredArrays};
use super::rows::SideState;
use super::windows::{SegmentState, WindowState};
use super::{
    CurrencyState, EngineCheckpoint, Kept, Scalars, SeenState, Slots, cohorts_key, lifecycle_key, merged_by, window_key,
};
use crate::engine::ahead::{Deed, DeedKind};
use crate::engine::customers::{CHUNK, Customers, Slot};
use crate::engine::dedup::SHARDS;
use crate::engine::known::{Change, CohortsKnown, Erased, Why};
use crate::engine::record::Known;
use crate::engine::segments::{NO_PROFILE, Profile, UNKNOWN_PLACE};
use crate::engine::spec::Spec;
use crate::engine::zone::month_of;
use crate::engine::{Engine, window_ids};
use crate::event::Time;

/// Why an engine cannot be restored. The files are intact, so they do not belong together or another version wrote
/// them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreError {
    /// A customer whose slot does not exist, or whose data cannot be read.
    Customer(u32),
    /// Two customers have the same id.
    SameCustomer,
    /// An array that is incomplete or of another shape.
    Array(String),
    /// An unknown currency.
    Currency(String),
    /// The setting that merges orders of one day was changed, but the single orders are no longer known.
    MergedOrders,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Customer(slot) => write!(f, "the customer in slot {slot} cannot be read"),
            RestoreError::SameCustomer => f.write_str("two customers have the same id"),
            RestoreError::Array(key) => write!(f, "the array {key} is not whole or of another shape"),
            RestoreError::Currency(code) => write!(f, "there is no currency {code}"),
            RestoreError::MergedOrders => f.write_str(
                "customers.merge_orders_within was changed, or time.zone while it is set, and the state does not hold the \
                 orders one by one; put the value back, or build the state anew under another kafka.group_id",
            ),
        }
    }
}

impl std::error::Error for RestoreError {}

/// Maps the values of a checkpoint's dimensions to those of the engine.
#[derive(Debug, Clone)]
pub struct Places(Vec<Option<(usize, Vec<u8>)>>);

impl Places {
    /// Converts a profile of the checkpoint; in a dimension that the checkpoint does not have, the value is unknown.
    #[inline]
    #[must_use]
    pub fn profile(&self, in_checkpoint: impl Fn(usize) -> u8, has_ordered: bool) -> Profile {
        let mut profile = NO_PROFILE;
        for (place, dimension) in profile.iter_mut().zip(&self.0) {
            *place = match dimension {
                Some((column, places)) => {
                    places.get(usize::from(in_checkpoint(*column))).copied().unwrap_or(UNKNOWN_PLACE)
                }
                None if has_ordered => UNKNOWN_PLACE,
                None => 0,
            };
        }
        profile
    }

    /// Moves the attributes of orders to the engine's dimensions.
    fn move_attributes(&self, deeds: &mut [Deed]) {
        for deed in deeds {
            let DeedKind::Order(_, Some(named)) = &mut deed.what else { continue };
            let mut in_checkpoint = std::mem::take(&mut named.attributes);
            for (attribute, dimension) in named.attributes.iter_mut().zip(&self.0) {
                *attribute = dimension.as_ref().and_then(|(column, _)| in_checkpoint.get_mut(*column)?.take());
            }
        }
    }
}

/// Builds an engine from its checkpoints.
#[derive(Debug)]
pub struct Restorer {
    engine: Engine,
    scalars: Scalars,
    kept: Kept,
    taken: Slots,
    shelf: RestoredArrays,
}

impl Engine {
    /// Restores an engine from the checkpoints that the last one needs, oldest first, under a `spec` that may have
    /// changed. `topics` maps each topic of the spec to its index in the checkpoints, if it was there.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub fn restore(
        spec: &Arc<Spec>,
        topics: &[Option<usize>],
        checkpoints: &[&EngineCheckpoint],
    ) -> Result<Engine, RestoreError> {
        let Some(newest) = checkpoints.last() else { return Ok(Engine::new(Arc::clone(spec))) };
        let mut restorer = Restorer::new(spec, topics, newest.scalars.clone())?;
        for checkpoint in checkpoints.iter().rev() {
            restorer.add(checkpoint)?;
        }
        restorer.finish()
    }
}

impl Restorer {
    /// Starts with the scalars of the newest checkpoint.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub fn new(spec: &Arc<Spec>, topics: &[Option<usize>], scalars: Scalars) -> Result<Restorer, RestoreError> {
        if merged_by(&scalars.lifecycle) != merged_by(&lifecycle_key(spec)) {
            return Err(RestoreError::MergedOrders);
        }
        let mut engine = Engine::new(Arc::clone(spec));
        let state = scalars.clone();
        let Scalars {
            sequence,
            slots,
            topics: marks,
            dedup,
            windows,
            dimensions,
            lifecycle,
            cohorts,
            currencies,
            feedback,
            first_event,
            first_order,
            folded_at,
            inactivity,
            customers: _,
            history_whole,
            erasures,
            segments,
            lifecycle_known,
            cohorts_known,
            erased,
            reporting,
        } = state;
        engine.customers = Customers::with_slots(slots as usize);
        for (topic, mark) in topics.iter().enumerate().filter_map(|(topic, was)| Some((topic, marks.get((*was)?)?))) {
            engine.clock.resume(topic, mark);
        }
        engine.dedup.iter_mut().zip(dedup).for_each(|(dedup, buckets)| dedup.resume(buckets));
        let known = |state: CurrencyState| state.currency().ok_or(RestoreError::Currency(state.code));
        engine.currencies = currencies.into_iter().map(known).collect::<Result<_, _>>()?;
        engine.totals.resume(feedback);
        engine.first_event = first_event.map(Time::clamped);
        engine.first_order = first_order.map(Time::clamped);
        engine.folded_at = Time::clamped(folded_at);
        engine.inactivity.resume(&spec.inactivity, inactivity, &engine.clock);
        engine.history_whole = history_whole;
        engine.erasures.resume(&erasures);
        let of_window = |key: &String| windows.iter().find(|window| window.key == *key);
        let keys: Vec<_> = window_ids(spec).map(|window| window_key(spec, window)).collect();
        let newest = engine.clock.newest().map(Time::millis);
        engine.resume_knowledge(&keys, &windows, &segments);
        engine.knowledge.lifecycle = lifecycle_known;
        let next = newest.map(|newest| month_of(spec.zone.day(Time::clamped(newest))) + 1);
        engine.knowledge.cohorts = cohorts_known.unwrap_or(CohortsKnown { returns: next, ..CohortsKnown::default() });
        engine.knowledge.erased = erased.unwrap_or(Erased { order: newest, session: newest });
        engine.note_reporting(reporting.as_deref());
        let kept = Kept {
            windows: keys
                .into_iter()
                .map(|key| (of_window(&key).is_some(), key))
                .map(|(kept, key)| (key, kept))
                .collect(),
            dimensions: engine.segments.resume(&dimensions, sequence + 1),
            lifecycle: lifecycle == lifecycle_key(spec),
            cohorts: cohorts == cohorts_key(spec),
        };
        engine.written.sequence = sequence;
        engine.written.buckets.resize((slots as usize).div_ceil(CHUNK), 0);
        engine.written.shards.iter_mut().for_each(|shards| shards.resize(SHARDS, 0));
        let taken = Slots(vec![0; (slots as usize).div_ceil(64)]);
        Ok(Restorer { engine, scalars, kept, taken, shelf: RestoredArrays::default() })
    }

    /// Adds the next older checkpoint.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub fn add(&mut self, checkpoint: &EngineCheckpoint) -> Result<(), RestoreError> {
        let EngineCheckpoint { sequence, scalars, rows, arrays, seen, needs: _ } = checkpoint;
        if let Some(rows) = rows {
            let dimensions: Vec<_> = scalars
                .dimensions
                .iter()
                .map(|dimension| (dimension.name.as_str(), dimension.values.iter().map(String::as_str).collect()))
                .collect();
            let places = self.places(*sequence, &dimensions);
            for row in rows.rows.iter() {
                let mut known = row.known;
                known.profile = places.profile(|column| row.known.profile[column], known.orders > 0);
                self.row(row.slot, row.id.as_deref(), &known, row.side_state, &places)?;
            }
            self.note_full(*sequence, &rows.full);
        }
        arrays.iter().for_each(|array| self.array(*sequence, array.clone()));
        seen.iter().for_each(|seen| self.seen(*sequence, seen));
        Ok(())
    }

    /// Maps the values of the dimensions of a checkpoint, given by name, to those of the engine.
    #[must_use]
    pub fn places(&self, sequence: u64, dimensions: &[(&str, Vec<&str>)]) -> Places {
        let state = self.engine.segments.state();
        let place = |(number, own): (usize, &crate::engine::segments::DimensionState)| {
            let same = |(name, _): &(&str, _)| *name == own.name && sequence >= own.born;
            let column = dimensions.iter().position(same)?;
            let place = |value: &&str| self.engine.segments.place_of(number, value);
            Some((column, dimensions[column].1.iter().map(place).collect()))
        };
        Places(state.iter().enumerate().map(place).collect())
    }

    /// The number of a payment currency, by code.
    #[must_use]
    pub fn currency(&self, code: &str) -> Option<u8> {
        let place = self.engine.currencies.iter().position(|currency| currency.code() == code)?;
        u8::try_from(place).ok()
    }

    /// Whether a slot was not found yet.
    #[inline]
    #[must_use]
    pub fn wants(&self, slot: u32) -> bool {
        !self.taken.contains(slot)
    }

    /// Adds a customer, or marks an erased one; ignores a slot that was found before. `places`: those of its
    /// checkpoint.
    ///
    /// # Errors
    /// See [`RestoreError`].
    #[inline]
    pub fn row(
        &mut self,
        slot: u32,
        id: Option<&str>,
        known: &Known,
        side_state: &[u8],
        places: &Places,
    ) -> Result<(), RestoreError> {
        if !self.taken.insert(slot) {
            return Ok(());
        }
        let Some(id) = id else { return Ok(()) };
        if !self.engine.customers.place(slot, id, known) {
            return Err(RestoreError::Customer(slot));
        }
        if !side_state.is_empty() {
            let mut side_state = SideState::decode(side_state).ok_or(RestoreError::Customer(slot))?;
            places.move_attributes(&mut side_state.ahead);
            self.engine.put_aside(Slot(slot), side_state);
        }
        Ok(())
    }

    /// Notes which buckets a checkpoint contains in full.
    pub fn note_full(&mut self, sequence: u64, full: &[u32]) {
        full.iter().for_each(|&bucket| self.engine.written.buckets.note(bucket as usize, sequence));
    }

    /// Adds an array of a checkpoint.
    pub fn array(&mut self, sequence: u64, array: ArrayState) {
        self.shelf.add(sequence, array);
    }

    /// Adds the fingerprints of a checkpoint.
    pub fn seen(&mut self, sequence: u64, seen: &SeenState) {
        let Engine { dedup, written, .. } = &mut self.engine;
        for ((dedup, rotation), (buckets, shards)) in dedup.iter_mut().zip(&mut written.shards).zip(&seen.classes) {
            for shard in shards {
                if shard.full {
                    rotation.note(usize::from(shard.shard), sequence);
                }
                shard.seen.iter().for_each(|&fingerprint| dedup.remember(fingerprint, buckets.width));
            }
        }
    }

    /// Returns the engine.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub fn finish(self) -> Result<Engine, RestoreError> {
        let Restorer { mut engine, scalars, kept, taken: _, mut shelf } = self;
        if !engine.customers.index_all() {
            return Err(RestoreError::SameCustomer);
        }
        engine.show_arrays(&kept, &mut shelf);
        engine.segments.absorb_gone(&scalars.dimensions, &kept.windows, &mut shelf);
        engine.lifecycle.keep_silent_to(engine.knowledge.lifecycle.transitions);
        if !kept.is_everything() {
            engine.respecify(&kept, &scalars, &mut shelf);
        }
        let (marks, damaged) = shelf.finish();
        if let Some(key) = damaged {
            return Err(RestoreError::Array(key));
        }
        if kept.is_everything() && engine.segments.state() == scalars.dimensions {
            engine.written.marks = marks;
        } else {
            // All arrays are written again, so that no older checkpoint is needed. Otherwise the old content of
            // something that was removed and added again would be taken for its current content.
            engine.written.changed = true;
        }
        engine.wind_up();
        Ok(engine)
    }
}
impl Engine {
    /// Restores what is known of the windows and dimensions that are kept.
    fn resume_knowledge(&mut self, keys: &[String], windows: &[WindowState], segments: &[SegmentState]) {
        let Engine { spec, knowledge, .. } = self;
        for (index, (id, key)) in window_ids(spec).zip(keys).enumerate() {
            let (axis, active_for) = (spec.axis(id), spec.active_for(id));
            let known = |state: &WindowState| state.known(axis, active_for, |time| spec.pane(id, time));
            let of_window = windows.iter().find(|window| window.key == *key).map(known).unwrap_or_default();
            knowledge.windows[index] = of_window;
            for (dimension, of_dimension) in spec.dimensions.iter().zip(&mut knowledge.dimensions) {
                let is_same = |state: &&SegmentState| state.dimension == dimension.name && state.window.key == *key;
                let state = segments.iter().find(is_same);
                of_dimension[index] = state.map_or(of_window, |state| known(&state.window));
            }
        }
    }

    /// Notes that a new reporting currency converts only future amounts. `before`: the one of the state; for version
    /// 0.1.0 only its list of currencies is known.
    fn note_reporting(&mut self, before: Option<&str>) {
        let Some(newest) = self.clock.newest() else { return };
        let Some(reporting) = self.spec.rates.as_ref().map(|rates| rates.reporting()) else { return };
        let goes_on = match before {
            Some(before) => before == reporting.iso_code(),
            None => self.currencies.contains(&reporting),
        };
        if goes_on {
            return;
        }
        let change = Change { at: newest.millis(), why: Why::Reporting };
        for (index, id) in window_ids(&self.spec).enumerate() {
            let pane = self.spec.pane(id, newest) + 1;
            let of_dimensions = self.knowledge.dimensions.iter_mut().map(|windows| &mut windows[index]);
            for window in std::iter::once(&mut self.knowledge.windows[index]).chain(of_dimensions) {
                window.known.reporting = window.known.reporting.max(pane);
                window.change = window.change.max(Some(change));
            }
        }
    }
}
