//! An engine from its checkpoints, the newest first: what was found of a thing stands, older copies of it are passed
//! over.

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

/// Why no engine can be made of a state. Its files are whole, so either they do not belong together or another version
/// wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreError {
    /// A customer without a place, or with a part that cannot be read.
    Customer(u32),
    /// Two customers have the same id.
    SameCustomer,
    /// An array that is not whole, or of another shape.
    Array(String),
    /// A currency that is not known.
    Currency(String),
    /// Orders of one day were counted differently: what they would have counted is no longer known.
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

/// Where the values of a checkpoint's dimensions are among those of the engine.
#[derive(Debug, Clone)]
pub struct Places(Vec<Option<(usize, Vec<u8>)>>);

impl Places {
    /// The profile of a customer who had that one in the checkpoint. Of a dimension that the checkpoint does not have,
    /// the value is not known.
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

    /// Moves the values that orders named to the places of the engine's dimensions.
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

/// Makes an engine of its checkpoints.
#[derive(Debug)]
pub struct Restorer {
    engine: Engine,
    scalars: Scalars,
    kept: Kept,
    taken: Slots,
    shelf: RestoredArrays,
}

impl Engine {
    /// The engine that the checkpoints were made of, which are those that the last one needs, oldest first; for a
    /// `spec` that may have changed since. `topics` says of each topic of the spec which one it was, if it was there.
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
    /// Begins with the scalars of the newest checkpoint.
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

    /// Takes the next older checkpoint.
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

    /// Where the values of the dimensions of a checkpoint, by name, are in the engine.
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

    /// The number of a currency in which customers pay, by its code.
    #[must_use]
    pub fn currency(&self, code: &str) -> Option<u8> {
        let place = self.engine.currencies.iter().position(|currency| currency.code() == code)?;
        u8::try_from(place).ok()
    }

    /// Whether nothing was found of a slot so far.
    #[inline]
    #[must_use]
    pub fn wants(&self, slot: u32) -> bool {
        !self.taken.contains(slot)
    }

    /// Takes a customer, or the news that one was erased; a second one of a slot is passed over. `places`: those of its
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

    /// Notes which buckets a checkpoint holds in full.
    pub fn note_full(&mut self, sequence: u64, full: &[u32]) {
        full.iter().for_each(|&bucket| self.engine.written.buckets.note(bucket as usize, sequence));
    }

    /// Takes what a checkpoint holds of an array.
    pub fn array(&mut self, sequence: u64, array: ArrayState) {
        self.shelf.add(sequence, array);
    }

    /// Takes the fingerprints of a checkpoint.
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

    /// The engine.
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
            // All arrays are written anew, after which no older checkpoint is needed: what it says of something that
            // was there before, went and came back would be taken for its content.
            engine.written.changed = true;
        }
        engine.wind_up();
        Ok(engine)
    }
}
impl Engine {
    /// Goes on with what is known of the windows and dimensions that are still there.
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

    /// A reporting currency that is new converts what is yet to come. `before`: that of the state; of 0.1.0 it is only
    /// known which currencies there were.
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
