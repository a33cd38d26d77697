//! Counts of what happened in a run.

/// Event counts. The simulation is useful only if every kind occurs.
#[derive(Debug, Default, Clone)]
pub struct Stats {
    pub events: u64,
    pub crashes: u64,
    pub sleeps: u64,
    pub replaced: u64,
    pub closings: u64,
    pub exits: u64,
    pub lost: u64,
    pub epochs: u64,
    pub commits: u64,
    pub aborts: u64,
    pub refused: u64,
    pub unknown: u64,
    pub renewals: u64,
    pub rolled_back: u64,
    pub uploaded_in_vain: u64,
    pub parked: u64,
    pub begun_empty: u64,
    pub begun_loaded: u64,
    pub begun_parked: u64,
    pub holds: u64,
    pub deleted: u64,
    pub failed_closed: u64,
    pub static_rejoins: u64,
    pub two_owners: u64,
}

impl Stats {
    fn all(&self) -> [u64; 24] {
        let Stats { events, crashes, sleeps, replaced, closings, exits, lost, epochs, commits, aborts, .. } = *self;
        let Stats {
            refused, unknown, renewals, rolled_back, uploaded_in_vain, parked, begun_empty, begun_loaded, ..
        } = *self;
        let Stats { begun_parked, holds, deleted, failed_closed, static_rejoins, two_owners, .. } = *self;
        [
            events,
            crashes,
            sleeps,
            replaced,
            closings,
            exits,
            lost,
            epochs,
            commits,
            aborts,
            refused,
            unknown,
            renewals,
            rolled_back,
            uploaded_in_vain,
            parked,
            begun_empty,
            begun_loaded,
            begun_parked,
            holds,
            deleted,
            failed_closed,
            static_rejoins,
            two_owners,
        ]
    }

    pub fn add(&mut self, other: &Stats) {
        let [
            events,
            crashes,
            sleeps,
            replaced,
            closings,
            exits,
            lost,
            epochs,
            commits,
            aborts,
            refused,
            unknown,
            renewals,
            rolled_back,
            uploaded_in_vain,
            parked,
            begun_empty,
            begun_loaded,
            begun_parked,
            holds,
            deleted,
            failed_closed,
            static_rejoins,
            two_owners,
        ] = std::array::from_fn(|i| self.all()[i] + other.all()[i]);
        *self = Stats {
            events,
            crashes,
            sleeps,
            replaced,
            closings,
            exits,
            lost,
            epochs,
            commits,
            aborts,
            refused,
            unknown,
            renewals,
            rolled_back,
            uploaded_in_vain,
            parked,
            begun_empty,
            begun_loaded,
            begun_parked,
            holds,
            deleted,
            failed_closed,
            static_rejoins,
            two_owners,
        };
    }

    /// Whether every kind of event occurred.
    pub fn is_complete(&self) -> bool {
        self.all().iter().all(|&met| met > 0)
    }
}
