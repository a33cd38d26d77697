//! One run: replicas, a phase with faults, recovery, and final checks.

use std::collections::BTreeMap;

use retentiond::checkpoint::protocol::Event;

use crate::log::TOPICS;
use crate::replica::{Note, Replica};
use crate::stats::Stats;
use crate::world::{Action, Fault, Faults, World};

const TROUBLE_LASTS: i64 = 12_000;
/// After recovery, everything must be committed within this time.
const PATIENCE: i64 = 30_000;

/// Label of a run that does not finish.
pub const STANDSTILL: &str = "standstill";

/// A violation that was found.
#[derive(Debug)]
pub struct Failure {
    pub seed: u64,
    pub what: String,
    pub last_steps: String,
}

struct Run {
    world: World,
    replicas: BTreeMap<u64, Replica>,
    next_process: u64,
    slots: usize,
    is_static: bool,
    eager: bool,
    has_healed: bool,
    restarts: bool,
}

/// Runs a seed.
///
/// # Errors
/// If an invariant is violated.
pub fn run(seed: u64, fault: Option<Fault>) -> Result<Stats, Failure> {
    let mut run = Run::new(seed, fault, false);
    run.run_out();
    match run.world.violation {
        None => Ok(run.world.stats),
        Some(_) => Err(explain(seed, fault)),
    }
}

/// Repeats the run with a trace.
fn explain(seed: u64, fault: Option<Fault>) -> Failure {
    let mut run = Run::new(seed, fault, true);
    run.run_out();
    let what = run.world.violation.clone().unwrap_or_else(|| "the repeated run of the seed succeeded".into());
    Failure { seed, what, last_steps: run.world.last_steps() }
}

impl Run {
    fn new(seed: u64, fault: Option<Fault>, traces: bool) -> Run {
        let mut world = World::new(seed, fault, traces);
        let chance = &mut world.chance;
        let slots = chance.within(1..5) as usize;
        let (is_static, eager) = (chance.happens(0.5), chance.happens(0.5));
        // Some runs omit kinds of faults, so that each kind also occurs alone.
        let mut share = |most: f64| if chance.happens(0.3) { 0.0 } else { most };
        world.faults = Faults {
            crash: share(0.004),
            lose: share(0.03),
            slow: share(0.05),
            stall: share(0.1),
            store_fails: share(0.05),
        };
        world.broker.set_eager(eager);
        for slot in 0..slots {
            let after = if slot == 0 { 0 } else { world.chance.within(0..TROUBLE_LASTS / 2) };
            world.schedule(after, Action::Start(slot));
        }
        for partition in 0..world.partitions {
            world.schedule(0, Action::Produce(partition));
        }
        world.schedule(100, Action::BrokerTick);
        world.schedule(300, Action::Faults);
        world.schedule(TROUBLE_LASTS, Action::Check);
        Run {
            world,
            replicas: BTreeMap::new(),
            next_process: 0,
            slots,
            is_static,
            eager,
            has_healed: false,
            restarts: true,
        }
    }

    /// Runs until everything is consumed and committed, or an invariant is violated.
    fn run_out(&mut self) {
        let mut done = false;
        while !done && self.world.violation.is_none() {
            let Some(action) = self.world.next_action() else { break };
            match action {
                Action::Check => done = self.check(),
                other => self.act(other),
            }
        }
        if self.world.violation.is_none() {
            self.world.check_end();
        }
    }

    /// Ends the faults on the first call; later checks whether everything is done.
    fn check(&mut self) -> bool {
        if !self.has_healed {
            self.has_healed = true;
            self.world.faults = Faults::default();
            self.world.trace(|| "all faults end".into());
            for partition in 0..self.world.partitions {
                for _ in 0..3 {
                    self.world.log.produce(partition, &mut self.world.chance);
                }
            }
        } else if self.world.is_done() {
            return true;
        } else if self.world.now > TROUBLE_LASTS + PATIENCE {
            let standing: Vec<_> = self.replicas.values().map(|replica| replica.protocol.clone()).collect();
            self.world.violated(format!(
                "{STANDSTILL}: not everything is committed {PATIENCE} ms after healing: {standing:?}"
            ));
        }
        self.world.schedule(200, Action::Check);
        false
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Note(process, note) => self.deliver(process, note),
            Action::Serve { call, process, request, answer_after } => {
                self.world.serve(call, process, request, answer_after);
            }
            Action::Mark(marker) => self.world.mark(marker),
            Action::BrokerTick => {
                self.world.broker.tick(self.world.now);
                self.world.after_broker();
                self.world.schedule(100, Action::BrokerTick);
            }
            Action::Produce(partition) => {
                self.world.log.produce(partition, &mut self.world.chance);
                if !self.has_healed {
                    let after = self.world.chance.within(20..400);
                    self.world.schedule(after, Action::Produce(partition));
                }
            }
            Action::Faults => self.faults(),
            Action::Start(slot) => self.start(slot),
            Action::Check => {}
        }
    }

    fn start(&mut self, slot: usize) {
        let asleep = |replica: &&Replica| replica.slot == slot && replica.asleep_until <= self.world.now;
        if !self.restarts || self.replicas.values().any(|replica| asleep(&replica)) {
            return;
        }
        self.next_process += 1;
        let instance = self.is_static.then_some(slot);
        let mut replica = Replica::new(self.next_process, slot, instance, self.eager, self.world.delivery);
        self.world.trace(|| format!("process {} starts in slot {slot}", replica.id));
        replica.start(&mut self.world);
        self.replicas.insert(replica.id, replica);
    }

    fn deliver(&mut self, process: u64, note: Note) {
        let Some(mut replica) = self.replicas.remove(&process) else { return };
        if replica.asleep_until > self.world.now {
            self.world.schedule_at(replica.asleep_until, Action::Note(process, note));
        } else {
            replica.take_note(&mut self.world, note);
        }
        if replica.ended {
            self.world.trace(|| format!("process {process} has ended"));
            let after = self.world.chance.within(50..2_500);
            self.world.schedule(after, Action::Start(replica.slot));
        } else {
            self.count_owners(&replica);
            self.replicas.insert(process, replica);
        }
    }

    fn count_owners(&mut self, replica: &Replica) {
        let mine = replica.partitions_running();
        let theirs = self.replicas.values().any(|other| !other.partitions_running().is_disjoint(&mine));
        self.world.stats.two_owners += u64::from(theirs);
    }

    /// Occasionally a process pauses, is replaced while paused, or is asked to shut down.
    fn faults(&mut self) {
        if self.has_healed {
            return;
        }
        self.world.schedule(300, Action::Faults);
        let ids: Vec<u64> = self.replicas.keys().copied().collect();
        let Some(replica) = self.world.chance.pick(&ids).and_then(|id| self.replicas.get_mut(id)) else { return };
        let (id, slot, now) = (replica.id, replica.slot, self.world.now);
        match self.world.chance.within(0..30) {
            0..=2 => {
                let sleeps = self.world.chance.within(200..5_000);
                replica.asleep_until = replica.asleep_until.max(now + sleeps);
                self.world.stats.sleeps += 1;
                self.world.trace(|| format!("process {id} sleeps for {sleeps}"));
                if self.world.chance.happens(0.4) {
                    self.world.stats.replaced += 1;
                    self.world.schedule(100, Action::Start(slot));
                }
            }
            3 => {
                self.world.stats.closings += 1;
                self.world.schedule(0, Action::Note(id, Note::Tell(Event::Closing)));
            }
            4 if self.slots > 1 => {
                self.world.trace(|| format!("process {id} is killed"));
                self.world.stats.crashes += 1;
                self.replicas.remove(&id);
                let after = self.world.chance.within(50..4_000);
                self.world.schedule(after, Action::Start(slot));
            }
            _ => {}
        }
    }
}

/// A mistake of an operator or a damaged disk, and the label of the reason it must cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    OffsetsExpired,
    ResetByHand,
    OffsetMoved,
    TopicRecreated,
    AnotherStore,
    PartitionsAdded,
    FileLost,
    FileDamaged,
}

impl Mishap {
    pub const ALL: [(Mishap, &str); 8] = [
        (Mishap::OffsetsExpired, "offsets_expired"),
        (Mishap::ResetByHand, "foreign_metadata"),
        (Mishap::OffsetMoved, "offset_moved"),
        (Mishap::TopicRecreated, "topic_recreated"),
        (Mishap::AnotherStore, "another_store"),
        (Mishap::PartitionsAdded, "partition_count_changed"),
        (Mishap::FileLost, "file_missing"),
        (Mishap::FileDamaged, "file_corrupt"),
    ];
}

/// Runs a seed to its end, stops everything, applies the mishap to every partition, and restarts.
///
/// # Errors
/// If a partition does not fail closed for the expected reason, or is committed again.
pub fn run_into(seed: u64, mishap: Mishap, label: &str) -> Result<(), String> {
    let mut run = Run::new(seed, None, false);
    run.run_out();
    let slots: Vec<usize> = run.replicas.values().map(|replica| replica.slot).collect();
    run.replicas.clear();
    run.happen(mishap);
    let world = &mut run.world;
    world.provoked = true;
    world.failures.clear();
    for slot in slots.into_iter().chain([0]) {
        world.schedule(100, Action::Start(slot));
    }
    let until = world.now + 15_000;
    while run.world.now < until && run.world.violation.is_none() {
        let Some(action) = run.world.next_action() else { break };
        run.act(action);
    }
    if let Some(violation) = run.world.violation {
        return Err(format!("seed {seed}, {mishap:?}: {violation}"));
    }
    for partition in 0..run.world.partitions {
        let mut reasons = run.world.failures.iter().filter(|(of, _)| *of == partition).peekable();
        if reasons.peek().is_none() || reasons.any(|(_, reason)| reason != label) {
            return Err(format!("seed {seed}, {mishap:?}, partition {partition}: {:?}", run.world.failures));
        }
    }
    Ok(())
}

impl Run {
    fn happen(&mut self, mishap: Mishap) {
        let world = &mut self.world;
        for partition in 0..world.partitions {
            let manifest = world.committed_manifest(partition).unwrap_or_default();
            let offsets = world.broker.offsets.get_mut(&partition);
            match (mishap, offsets) {
                (Mishap::OffsetsExpired, _) => _ = world.broker.offsets.remove(&partition),
                (Mishap::ResetByHand, Some(offsets)) => {
                    *offsets = crate::broker::Offsets { next: vec![0; TOPICS], metadata: String::new() };
                }
                (Mishap::OffsetMoved, Some(offsets)) => offsets.next[0] -= 1,
                (Mishap::TopicRecreated, _) => world.topic_id = "another".into(),
                (Mishap::AnotherStore, _) => world.store.id = "store-2".into(),
                (Mishap::PartitionsAdded, _) => world.partition_count = world.partitions + 1,
                (Mishap::FileLost, _) => {
                    let file = world.store.manifest(&manifest).ok().and_then(|found| found.files.first().cloned());
                    world.store.delete(&file.unwrap_or_default());
                }
                (Mishap::FileDamaged, _) => {
                    let file = world.store.manifest(&manifest).ok().and_then(|found| found.files.last().cloned());
                    world.store.damage(&file.unwrap_or_default());
                }
                (_, None) => {}
            }
        }
    }
}
