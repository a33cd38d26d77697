//! The whole state of an engine as plain data for files: what changed since the last checkpoint, and an engine restored
//! from checkpoints.
//!
//! [`Engine::checkpoint`] and `show_arrays` list all fields of the engine without `..`, and so does the restorer, so
//! that a new field causes compile errors here. Each piece of state is of one of these kinds:
//!
//! | kind | examples | to add one |
//! |---|---|---|
//! | scalar, always written in full | clock, currencies | a field of [`Scalars`] |
//! | of each customer | record with marks | a field of [`super::record::Known`] and a column of the rows' file |
//! | of few customers | older orders, first complaint | a field of [`rows::SideState`], as described there |
//! | array over panes | windows, cohorts, totals | a line in `show_arrays` or in the `show` of its owner |
//! | [`arrays::Numbers`] | distributions | the same |
//! | derived from records | the wheel of deadlines | nothing: it is built again |
//! | transient | amounts without a rate | nothing: it starts empty |
//! | fingerprint | ids of orders | |
//!
//! A checkpoint contains what changed, and in full the unchanged parts that were written longest ago ([`rotation`]). So
//! old files become superseded after a while, and no file ever has to be rewritten as a whole.

pub mod arrays;
mod deeds;
mod derive;
pub mod plain;
pub mod restore;
pub mod rotation;
pub mod rows;
mod seed;
mod silences;
pub mod windows;

use super::Engine;
use super::clock::TopicState;
use super::customers::{CHUNK, Slot};
use super::dedup::{Buckets, Dedup, ShardState};
use super::erasures::ErasureState;
use super::inactivity;
use super::known::{CohortsKnown, Erased, Knowledge, LifecycleKnown, WindowKnown};
use super::segments::DimensionState;
use super::spec::{Spec, WindowId};
use super::window_ids;
use crate::event::{Currency, Time};
use arrays::{ArrayState, Marks, Visitor, escape};
use rotation::{Rotation, oldest};
use rows::{Rows, SideState};
use windows::{SegmentState, WindowState};

/// A checkpoint: what changed since the last one, as of one instant.
#[derive(Debug, Clone)]
pub struct EngineCheckpoint {
    /// The number of the checkpoint, from 1 on, ascending.
    pub sequence: u64,
    /// Small data, in full.
    pub scalars: Scalars,
    /// Customers; `None` if none changed.
    pub rows: Option<RowsState>,
    /// Arrays that changed or are due.
    pub arrays: Vec<ArrayState>,
    /// Fingerprints of both classes; `None` without new ones.
    pub seen: Option<SeenState>,
    /// The oldest checkpoints that are needed for a restore.
    pub needs: Needs,
}

/// Customers in a checkpoint.
#[derive(Debug, Clone)]
pub struct RowsState {
    /// Changed and erased customers, and all customers of the buckets in `full`.
    pub rows: Rows,
    /// Buckets that are written in full, ascending; a bucket is [`CHUNK`] slots.
    pub full: Vec<u32>,
}

/// Fingerprints in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenState {
    /// For each class how to read the fingerprints, and those of each shard.
    pub classes: [(Buckets, Vec<ShardState>); 2],
}

/// For each kind of content, the oldest checkpoint that a restore needs; 0 if it needs all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Needs {
    /// Customers.
    pub rows: u64,
    /// Arrays.
    pub arrays: u64,
    /// Fingerprints.
    pub seen: u64,
}

/// Data that are small enough to be written in full every time. Times are milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scalars {
    /// The number of the checkpoint.
    pub sequence: u64,
    /// Number of slots.
    pub slots: u32,
    /// The clock, by topic.
    pub topics: Vec<TopicState>,
    /// How to read the fingerprints of each class.
    pub dedup: [Buckets; 2],
    /// The windows.
    pub windows: Vec<WindowState>,
    /// The dimensions.
    pub dimensions: Vec<DimensionState>,
    /// The definition of stages and statuses.
    pub lifecycle: String,
    /// The definition of cohorts.
    pub cohorts: String,
    /// The currencies, by their number.
    pub currencies: Vec<CurrencyState>,
    /// The kinds of feedback that are counted separately.
    pub feedback: Vec<String>,
    /// The earliest accepted event of a clock-driving topic.
    pub first_event: Option<i64>,
    /// The earliest order.
    pub first_order: Option<i64>,
    /// The time before which panes were folded.
    pub folded_at: i64,
    /// Silences. Version 1 of the format has none.
    #[serde(default)]
    pub inactivity: inactivity::State,
    /// Number of customers with a record.
    #[serde(default)]
    pub customers: u64,
    /// Whether the data hold every order since the first one of the business.
    #[serde(default)]
    pub history_whole: bool,
    /// Erasures that may still matter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub erasures: Vec<ErasureState>,
    /// What is known of the windows of dimensions, unless it is everything.
    #[serde(default)]
    pub segments: Vec<SegmentState>,
    /// What is known of stages and statuses.
    #[serde(default)]
    pub lifecycle_known: LifecycleKnown,
    /// What is known of cohorts. Version 0.1.0 did not count returned money.
    #[serde(default)]
    pub cohorts_known: Option<CohortsKnown>,
    /// Erased customers without a record. Not written by version 0.1.0.
    #[serde(default)]
    pub erased: Option<Erased>,
    /// The reporting currency; empty without one. Not written by version 0.1.0.
    #[serde(default)]
    pub reporting: Option<String>,
}

/// A currency, as files store it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CurrencyState {
    /// The three-letter code.
    pub code: String,
    /// Whether amounts of other currencies are converted into it.
    pub reporting: bool,
}

impl CurrencyState {
    fn of(currency: Currency) -> CurrencyState {
        CurrencyState { code: currency.iso_code().to_owned(), reporting: currency.is_reporting() }
    }

    fn currency(&self) -> Option<Currency> {
        let currency = Currency::from_code(&self.code).ok()?;
        Some(if self.reporting { currency.as_reporting() } else { currency })
    }
}

/// What the engine knows of its earlier checkpoints.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    /// The number of the last checkpoint.
    sequence: u64,
    /// Whether anything changed since then.
    changed: bool,
    buckets: Rotation,
    shards: [Rotation; 2],
    marks: Marks,
    /// The checkpoint in progress.
    in_progress: Option<Box<CheckpointInProgress>>,
}

/// A checkpoint in progress, without its customers.
#[derive(Debug, Clone)]
struct CheckpointInProgress {
    checkpoint: EngineCheckpoint,
    /// Buckets that it will contain in full; `None` if it contains no customers.
    full: Option<Vec<u32>>,
    /// Customers with data in the side tables as of the instant of the checkpoint.
    side_state: Slots,
}

impl Written {
    /// Notes a change.
    #[inline]
    pub(super) fn note_change(&mut self) {
        self.changed = true;
    }
}

/// Text that defines what a window counts; windows with the same text are the same.
#[must_use]
pub fn window_key(spec: &Spec, window: WindowId) -> String {
    let active_for = spec.active_for_millis(window).map_or("period".to_owned(), |millis| millis.to_string());
    match window {
        WindowId::Rolling(i) => {
            let rolling = &spec.rolling[i];
            format!("rolling;period={};active_for={active_for};resolution={}", rolling.period, rolling.resolution)
        }
        WindowId::Calendar(i) => {
            let unit = spec.calendar[i].unit.name();
            format!("calendar;unit={unit};active_for={active_for};zone={}", escape(spec.zone.name()))
        }
    }
}

/// The code of the reporting currency; empty without one.
fn reporting_name(spec: &Spec) -> String {
    spec.rates.as_ref().map_or(String::new(), |rates| rates.reporting().iso_code().to_owned())
}

/// Text that defines stages, statuses and what an order is.
#[must_use]
pub fn lifecycle_key(spec: &Spec) -> String {
    let life = &spec.lifecycle;
    let (cadence, min) = (life.at_risk_cadence, life.at_risk_min);
    let merged = if spec.merge_orders { format!("{MERGED}{}", escape(spec.zone.name())) } else { String::new() };
    format!("active_for={};cadence={cadence};min={min};loyal={}{merged}", life.active_for, life.loyal_orders)
}

/// Precedes, in [`lifecycle_key`], the time zone by whose days orders are merged.
const MERGED: &str = ";orders_of_a_day=";

/// The zone by whose days orders are merged, according to a [`lifecycle_key`]; `None` if orders are not merged.
fn merged_by(key: &str) -> Option<&str> {
    key.split_once(MERGED).map(|(_, zone)| zone)
}

/// Text that defines how amounts are converted, if they are. A change does not affect amounts that are booked already.
#[must_use]
pub fn reporting_key(spec: &Spec) -> Option<String> {
    let rates = spec.rates.as_ref()?;
    Some(format!("currency={};rates={:032x}", rates.reporting().iso_code(), rates.digest()))
}

/// Text that defines cohorts.
#[must_use]
pub fn cohorts_key(spec: &Spec) -> String {
    format!("zone={}", escape(spec.zone.name()))
}

/// Definitions that are the same in the engine and in the state from which it is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    /// The windows, by key.
    windows: Vec<(String, bool)>,
    dimensions: Vec<bool>,
    lifecycle: bool,
    cohorts: bool,
}

impl Kept {
    fn everything(spec: &Spec) -> Kept {
        Kept {
            windows: window_ids(spec).map(|window| (window_key(spec, window), true)).collect(),
            dimensions: vec![true; spec.dimensions.len()],
            lifecycle: true,
            cohorts: true,
        }
    }

    fn is_everything(&self) -> bool {
        let Kept { windows, dimensions, lifecycle, cohorts } = self;
        windows.iter().all(|(_, kept)| *kept) && dimensions.iter().all(|kept| *kept) && *lifecycle && *cohorts
    }
}

impl Engine {
    /// Notes that the log was read further, so that a checkpoint is taken even if nothing else changed.
    pub fn note_progress(&mut self) {
        self.written.note_change();
    }

    /// Takes a checkpoint of what changed since the last one and of what is due; `None` if nothing changed. The
    /// checkpoint counts as written until [`Engine::roll_back`].
    pub fn checkpoint(&mut self) -> Option<EngineCheckpoint> {
        if self.begin_checkpoint() { self.end_checkpoint() } else { None }
    }

    /// Begins a checkpoint of the current state. Everything except the customers is copied at once;
    /// [`Engine::continue_checkpoint`] copies these between events. `false` if nothing changed since the last
    /// checkpoint, or while another one is in progress.
    pub fn begin_checkpoint(&mut self) -> bool {
        if !self.written.changed || self.written.in_progress.is_some() {
            return false;
        }
        self.written.changed = false;
        self.written.sequence += 1;
        let sequence = self.written.sequence;
        let scalars = self.scalars();
        let full = self.begin_rows();
        let kept = Kept::everything(&self.spec);
        let mut marks = std::mem::take(&mut self.written.marks);
        let mut saver = marks.saver(sequence);
        self.show_arrays(&kept, &mut saver);
        let arrays = saver.finish();
        let seen = self.copy_seen();
        let needs = |rotation: &Rotation| rotation.needs().unwrap_or(sequence);
        let [orders, sessions] = &self.written.shards;
        let needs = Needs {
            rows: needs(&self.written.buckets),
            arrays: marks.needs().unwrap_or(sequence),
            seen: needs(orders).min(needs(sessions)),
        };
        self.written.marks = marks;
        let side_state = if full.is_some() { self.slots_aside() } else { Slots(Vec::new()) };
        let checkpoint = EngineCheckpoint { sequence, scalars, rows: None, arrays, seen, needs };
        self.written.in_progress = Some(Box::new(CheckpointInProgress { checkpoint, full, side_state }));
        true
    }

    /// Copies about `most` more customers. Returns whether the checkpoint has all its customers.
    pub fn continue_checkpoint(&mut self, most: usize) -> bool {
        let Some(in_progress) = self.written.in_progress.take() else { return true };
        // The side tables are read while the customer table is borrowed.
        let mut customers = std::mem::take(&mut self.customers);
        let is_done =
            customers.copy_more(most, |slot| in_progress.side_state.contains(slot), |slot| self.aside_of(Slot(slot)));
        self.customers = customers;
        self.written.in_progress = Some(in_progress);
        is_done
    }

    /// Copies the remaining customers and ends the checkpoint; `None` if none is in progress.
    pub fn end_checkpoint(&mut self) -> Option<EngineCheckpoint> {
        self.continue_checkpoint(usize::MAX);
        let CheckpointInProgress { mut checkpoint, full, side_state: _ } = *self.written.in_progress.take()?;
        let rows = self.customers.end_copy();
        checkpoint.rows = rows.zip(full).map(|(rows, full)| RowsState { rows, full });
        Some(checkpoint)
    }

    /// Must be called before any data of a customer change: if a checkpoint in progress does not contain the customer
    /// yet, copies it first.
    #[inline]
    pub(super) fn before_change(&mut self, slot: Slot) {
        if self.customers.is_left(slot) {
            self.copy_early(slot);
        }
    }

    #[cold]
    fn copy_early(&mut self, slot: Slot) {
        let is_aside =
            self.written.in_progress.as_ref().is_some_and(|in_progress| in_progress.side_state.contains(slot.0));
        let side_state = is_aside.then(|| self.aside_of(slot));
        self.customers.copy_early(slot, side_state.as_ref());
    }

    /// Notes that the last checkpoint was not written after all: the next one will include its content.
    pub fn roll_back(&mut self, checkpoint: &EngineCheckpoint) {
        let EngineCheckpoint { sequence, scalars: _, rows, arrays, seen, needs: _ } = checkpoint;
        let written = &mut self.written;
        written.changed = true;
        for slot in rows.iter().flat_map(|rows| rows.rows.slots()) {
            self.customers.roll_back(slot);
        }
        written.buckets.roll_back(*sequence);
        written.marks.roll_back(arrays);
        if let Some(SeenState { classes }) = seen {
            for ((dedup, rotation), (_, checkpoint)) in self.dedup.iter_mut().zip(&mut written.shards).zip(classes) {
                dedup.roll_back(checkpoint);
                rotation.roll_back(*sequence);
            }
        }
    }

    fn scalars(&self) -> Scalars {
        let Engine {
            spec,
            clock,
            customers,
            recent: _,
            extras: _,
            dedup,
            rebooking: _,
            days: _,
            erasures,
            ahead: _,
            windows: _,
            knowledge,
            segments,
            lifecycle: _,
            cohorts: _,
            totals,
            distributions: _,
            net_revenue: _,
            inactivity,
            currencies,
            unconverted: _,
            first_event,
            first_order,
            folded_at,
            history_whole,
            written,
        } = self;
        let Knowledge { windows: known, dimensions: _, lifecycle: lifecycle_known, cohorts: cohorts_known, erased } =
            knowledge;
        let windows =
            window_ids(spec).zip(known).map(|(window, known)| WindowState::new(window_key(spec, window), known));
        Scalars {
            sequence: written.sequence,
            slots: u32::try_from(customers.slots()).unwrap_or(u32::MAX),
            topics: clock.state(),
            dedup: dedup.each_ref().map(Dedup::buckets),
            windows: windows.collect(),
            dimensions: segments.state(),
            lifecycle: lifecycle_key(spec),
            cohorts: cohorts_key(spec),
            currencies: currencies.iter().copied().map(CurrencyState::of).collect(),
            feedback: totals.kinds(),
            first_event: first_event.map(Time::millis),
            first_order: first_order.map(Time::millis),
            folded_at: folded_at.millis(),
            inactivity: inactivity.state(),
            customers: customers.identified() as u64,
            history_whole: *history_whole,
            erasures: erasures.state(),
            segments: self.segments_known(),
            lifecycle_known: *lifecycle_known,
            cohorts_known: Some(*cohorts_known),
            erased: Some(*erased),
            reporting: Some(reporting_name(spec)),
        }
    }

    /// What is known of the windows of dimensions, unless it is everything.
    fn segments_known(&self) -> Vec<SegmentState> {
        let dimensions = self.spec.dimensions.iter().zip(&self.knowledge.dimensions);
        let state = |(dimension, windows): (&super::segments::DimensionSpec, &Vec<WindowKnown>)| {
            let windows = window_ids(&self.spec).zip(windows).filter(|(_, known)| !known.known.is_always());
            let windows = windows.map(|(id, known)| WindowState::new(window_key(&self.spec, id), known));
            let name = dimension.name.clone();
            windows.map(|window| SegmentState { dimension: name.clone(), window }).collect::<Vec<_>>()
        };
        dimensions.flat_map(state).collect()
    }

    /// Selects the buckets that the checkpoint contains in full, and begins the copy; `None` if no customer changed.
    fn begin_rows(&mut self) -> Option<Vec<u32>> {
        let (customers, written) = (&mut self.customers, &mut self.written);
        let changed = customers.changed();
        if changed == 0 {
            return None;
        }
        let (known, buckets) = (written.buckets.last().len(), customers.slots().div_ceil(CHUNK));
        let due = oldest(written.buckets.last(), changed, customers.slots());
        // New buckets have never been written.
        let full: Vec<_> = due.into_iter().chain(known..buckets).filter_map(|b| u32::try_from(b).ok()).collect();
        written.buckets.resize(buckets, written.sequence);
        full.iter().for_each(|&bucket| written.buckets.note(bucket as usize, written.sequence));
        customers.begin_copy(&full);
        Some(full)
    }

    fn copy_seen(&mut self) -> Option<SeenState> {
        if self.dedup.iter().all(Dedup::is_written) {
            return None;
        }
        let sequence = self.written.sequence;
        let [orders, sessions] = &mut self.dedup;
        let [of_orders, of_sessions] = &mut self.written.shards;
        let class = |dedup: &mut Dedup, rotation| (dedup.buckets(), dedup.take_fresh(rotation, sequence));
        Some(SeenState { classes: [class(orders, of_orders), class(sessions, of_sessions)] })
    }

    /// Passes every array in `kept` to a visitor that saves or restores it.
    fn show_arrays(&mut self, kept: &Kept, visitor: &mut impl Visitor) {
        let Engine {
            spec,
            clock: _,
            customers: _,
            recent: _,
            extras: _,
            dedup: _,
            rebooking: _,
            days: _,
            erasures: _,
            ahead: _,
            windows,
            knowledge: _,
            segments,
            lifecycle,
            cohorts,
            totals,
            distributions,
            net_revenue: _,
            inactivity: _,
            currencies: _,
            unconverted: _,
            first_event: _,
            first_order: _,
            folded_at: _,
            history_whole: _,
            written: _,
        } = self;
        for (window, (key, _)) in windows.iter_mut().zip(&kept.windows).filter(|(_, (_, kept))| *kept) {
            window.show(&format!("window/{key}"), visitor);
        }
        segments.show(&kept.windows, &kept.dimensions, visitor);
        if kept.lifecycle {
            lifecycle.show(&format!("lifecycle/{}", lifecycle_key(spec)), visitor);
        }
        if kept.cohorts {
            cohorts.show(&format!("cohorts/{}", cohorts_key(spec)), visitor);
        }
        totals.show("totals", visitor);
        distributions.show("distributions", visitor);
    }

    /// Customers with data in the side tables.
    fn slots_aside(&self) -> Slots {
        let mut side_state = Slots(vec![0; self.customers.slots().div_ceil(64)]);
        let rare = self.extras.slots().chain(self.net_revenue.slots()).chain(self.inactivity.table().slots());
        let rare = rare.chain(self.ahead.slots()).chain(self.days.slots());
        self.recent.slots().chain(self.rebooking.slots()).chain(rare).for_each(|slot| _ = side_state.insert(slot.0));
        side_state
    }

    /// The data of a customer in the side tables.
    fn aside_of(&self, slot: Slot) -> SideState {
        let (orders, sessions) = self.recent.of(slot);
        SideState {
            orders: orders.to_vec(),
            sessions: sessions.to_vec(),
            rebooking: self.rebooking.of(slot).to_vec(),
            extras: self.extras.of(slot),
            further: self.net_revenue.further(slot).to_vec(),
            silences: self.inactivity.table().get(slot),
            ahead: self.ahead.of(slot).to_vec(),
            days: self.days.of(slot).to_vec(),
        }
    }

    /// Restores what [`Engine::aside_of`] returned.
    fn put_aside(&mut self, slot: Slot, side_state: SideState) {
        let SideState { orders, sessions, rebooking, extras, further, silences, ahead, days } = side_state;
        self.days.restore(slot, days);
        self.ahead.restore(slot, ahead);
        self.recent.restore(slot, orders, sessions);
        self.rebooking.restore(slot, rebooking);
        self.extras.restore(slot, extras);
        self.net_revenue.restore(slot, further);
        self.inactivity.restore(slot, silences);
    }
}

/// A set of slots.
#[derive(Debug, Clone)]
struct Slots(Vec<u64>);

impl Slots {
    fn contains(&self, slot: u32) -> bool {
        self.0.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    /// Adds a slot. Returns whether it is new.
    fn insert(&mut self, slot: u32) -> bool {
        let is_new = !self.contains(slot);
        if let Some(word) = self.0.get_mut(slot as usize / 64) {
            *word |= 1 << (slot % 64);
        }
        is_new
    }
}

const _: () = assert!(cfg!(target_endian = "little"), "files hold the cells of arrays as they lie in memory");
