//! Compares an engine that is checkpointed, abandoned and restored at random moments with one that runs without
//! interruption.

use super::rates::{Rate, Rates};
use super::*;
use crate::engine::snapshot::{Periods, Snapshot};
use crate::engine::state::EngineCheckpoint;

/// The checkpoints of a partition, as its files store them.
#[derive(Default)]
pub(crate) struct Chain {
    checkpoints: Vec<EngineCheckpoint>,
}

impl Chain {
    /// Adds a checkpoint, and drops the content that no checkpoint needs any more.
    pub(super) fn add(&mut self, checkpoint: EngineCheckpoint) {
        let needs = checkpoint.needs;
        self.checkpoints.push(checkpoint);
        for checkpoint in &mut self.checkpoints {
            if checkpoint.sequence < needs.rows {
                checkpoint.rows = None;
            }
            if checkpoint.sequence < needs.arrays {
                checkpoint.arrays.clear();
            }
            if checkpoint.sequence < needs.seen {
                checkpoint.seen = None;
            }
        }
        let is_needed = |checkpoint: &EngineCheckpoint| {
            checkpoint.rows.is_some() || !checkpoint.arrays.is_empty() || checkpoint.seen.is_some()
        };
        let newest = self.checkpoints.last().map(|checkpoint| checkpoint.sequence);
        self.checkpoints.retain(|checkpoint| is_needed(checkpoint) || Some(checkpoint.sequence) == newest);
    }

    pub(super) fn restore(&self, spec: &Arc<Spec>) -> Engine {
        self.restore_topics(spec, 2)
    }

    pub(super) fn restore_topics(&self, spec: &Arc<Spec>, topics: usize) -> Engine {
        let checkpoints: Vec<_> = self.checkpoints.iter().collect();
        let topics: Vec<_> = (0..topics).map(Some).collect();
        Engine::restore(spec, &topics, &checkpoints).unwrap()
    }
}

/// An input of an engine.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    Event(usize, Event<'static>),
    Erase(usize, String, Time),
    Raise(usize, Time),
}

/// Result of an input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Answer {
    Outcome(Outcome),
    Known(bool),
    Raised,
}

/// Converts an event of the model to an input.
pub(super) fn input(sent: &Sent) -> Input {
    match sent.fact {
        Fact::Erase => Input::Erase(topic(sent), id_of(sent), sent.time),
        _ => Input::Event(topic(sent), event(sent)),
    }
}

/// A yen is worth 0.61 cents from a month after the origin on; before that there is no rate.
pub(super) fn rates(reporting: &str) -> Rates {
    let day = zone::Day::try_from(ORIGIN / DAY).unwrap() + 30;
    let [from, to] = ["JPY", reporting].map(|code| Currency::from_code(code).unwrap());
    Rates::new(to, [(day, from, Rate::new(61, 4).unwrap())])
}

pub(crate) fn give(engine: &mut Engine, input: &Input) -> Answer {
    match input {
        Input::Event(topic, event) => Answer::Outcome(engine.apply(*topic, event)),
        Input::Erase(topic, customer, time) => Answer::Known(engine.erase(*topic, customer, Some(*time))),
        Input::Raise(topic, to) => {
            engine.raise_watermark(*topic, *to);
            Answer::Raised
        }
    }
}

/// Ids of every kind: short, a UUID, long.
fn bystander(n: usize) -> String {
    match n % 3 {
        0 => format!("bystander-{n}"),
        1 => format!("0a1b2c3d-4e5f-6071-8293-{n:012x}"),
        _ => format!("a bystander with quite a long name, number {n}"),
    }
}

fn bystander_order(n: usize) -> Input {
    let amount = money((n % 2) as u8, n as i64);
    let kind = Kind::Order { id: None, amount, attributes: Attributes::default(), referred_by: None };
    let time = Time::clamped(ORIGIN - LATENESS + n as i64 * MINUTE);
    Input::Event(0, Event { customer: Cow::Owned(bystander(n)), time, kind })
}

/// An engine with state of every kind: late orders and sessions, duplicates, all types of events.
pub(crate) fn a_lively_engine() -> Engine {
    let mut engine = Engine::new(Arc::new(spec("UTC")));
    for n in 0..150 {
        give(&mut engine, &bystander_order(n % 40));
        let time = Time::clamped(ORIGIN + n as i64 * 5 * HOUR - (n as i64 * 7_919) % DAY);
        let fact = match n % 5 {
            0 => Fact::Order(0, n as i64, Some(["web", "app", "fax"][n % 3]), (n % 2 == 0).then_some("c9")),
            1 => Fact::Order(1, n as i64, None, None),
            2 => Fact::Refund(0, 5),
            3 => Fact::Cancel(1, 7),
            _ => Fact::Session(0),
        };
        let customer = (n * n % 7) as u8;
        let sent = Sent { customer, time, fact, id: Some(n as u32 / 2) };
        give(&mut engine, &input(&sent));
        give(&mut engine, &input(&Sent { customer: customer / 2, time, fact: rare::nth(n as i64), id: None }));
    }
    engine
}

#[derive(Debug, Clone)]
enum Step {
    Send,
    Erase(usize),
    /// An order of a bystander, old or new.
    Stir(usize),
    Raise(usize, i64),
    Checkpoint,
    /// Begin a checkpoint in slices, or continue it by this number of customers.
    CheckpointBitByBit(usize),
    /// A checkpoint that is rolled back.
    AbandonedCheckpoint,
    /// Everything since the last checkpoint is lost and read again.
    Restart,
}

const BYSTANDERS: usize = 200;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => Just(Step::Send),
        1 => (0..BYSTANDERS + 3).prop_map(Step::Erase),
        2 => (0..BYSTANDERS + 40).prop_map(Step::Stir),
        1 => (0..2_usize, 0..3 * DAY).prop_map(|(topic, by)| Step::Raise(topic, by)),
        5 => Just(Step::Checkpoint),
        9 => (0..150_usize).prop_map(Step::CheckpointBitByBit),
        1 => Just(Step::AbandonedCheckpoint),
        3 => Just(Step::Restart),
    ]
}

pub(super) fn assert_same(spec: &Arc<Spec>, one: &mut Engine, other: &mut Engine) -> Result<(), TestCaseError> {
    prop_assert_eq!(one.clock.state(), other.clock.state());
    prop_assert_eq!(one.tracked_customers(), other.tracked_customers());
    prop_assert_eq!(one.customers.len(), other.customers.len());
    prop_assert_eq!(one.erasures.state(), other.erasures.state());
    prop_assert_eq!((one.first_event(), one.first_order()), (other.first_event(), other.first_order()));
    prop_assert_eq!(&one.currencies, &other.currencies);
    let ids = (0..IDS).map(|customer| format!("c{customer}")).chain((0..BYSTANDERS + 40).map(bystander));
    for id in ids {
        prop_assert_eq!(one.customer(&id), other.customer(&id), "{}", id);
    }
    let now = one.clock.newest().unwrap_or(Time::MIN).millis();
    let begin = one.first_order().unwrap_or(Time::MIN);
    for back in [60 * DAY, 11 * DAY, 3 * DAY, DAY, HOUR, 0, -HOUR, -2 * DAY, -9 * DAY, -40 * DAY, -500 * DAY] {
        let at = Time::clamped(now - back);
        let snapshot = |engine: &mut Engine| {
            let mut snapshot = Snapshot::empty(spec, at, Periods::Since(begin));
            snapshot.add(engine);
            snapshot
        };
        prop_assert_eq!(snapshot(one), snapshot(other), "at {}", at);
    }
    Ok(())
}

struct Run {
    spec: Arc<Spec>,
    steady: Engine,
    durable: Engine,
    chain: Chain,
    log: Vec<(Input, Answer)>,
    /// How much of the log the written checkpoints include.
    written: usize,
    /// How much of the log the checkpoint in progress includes.
    begun: Option<usize>,
}

impl Run {
    /// Ends a checkpoint, which contains the state at its beginning.
    fn finish(&mut self) {
        if let (Some(begun), Some(checkpoint)) = (self.begun.take(), self.durable.end_checkpoint()) {
            self.chain.add(checkpoint);
            self.written = begun;
        }
    }

    fn give(&mut self, input: Input) -> Result<(), TestCaseError> {
        let answer = give(&mut self.steady, &input);
        prop_assert_eq!(give(&mut self.durable, &input), answer, "{:?}", input);
        self.log.push((input, answer));
        Ok(())
    }

    fn restart(&mut self) -> Result<(), TestCaseError> {
        self.durable = self.chain.restore(&self.spec);
        self.begun = None;
        prop_assert!(self.durable.checkpoint().is_none(), "nothing happened since");
        for (input, answer) in &self.log[self.written..] {
            prop_assert_eq!(give(&mut self.durable, input), *answer, "{:?} again", input);
        }
        assert_same(&self.spec, &mut self.durable, &mut self.steady)
    }

    fn step(&mut self, step: &Step, history: &mut impl Iterator<Item = Sent>) -> Result<(), TestCaseError> {
        match *step {
            Step::Send => {
                let Some(sent) = history.next() else { return Ok(()) };
                self.give(input(&sent))
            }
            Step::Erase(n) => {
                let now = self.steady.clock.newest().unwrap_or(Time::MIN);
                let customer = n.checked_sub(3).map_or_else(|| format!("c{n}"), bystander);
                self.give(Input::Erase(n % 2, customer, now.plus(-(n as i64) * HOUR / 4)))
            }
            Step::Stir(n) => {
                let now = self.steady.clock.topic_watermark(0).unwrap_or(Time::MIN);
                let Input::Event(topic, order) = bystander_order(n) else { return Ok(()) };
                self.give(Input::Event(topic, Event { time: now, ..order }))
            }
            Step::Raise(topic, by) => {
                let mark = self.steady.clock.topic_watermark(topic).unwrap_or(Time::MIN);
                self.give(Input::Raise(topic, mark.plus(by)))
            }
            Step::CheckpointBitByBit(most) => {
                if self.begun.is_none() {
                    self.begun = self.durable.begin_checkpoint().then_some(self.log.len());
                } else if self.durable.continue_checkpoint(most) {
                    self.finish();
                }
                Ok(())
            }
            Step::Checkpoint => {
                self.finish();
                if let Some(checkpoint) = self.durable.checkpoint() {
                    self.chain.add(checkpoint);
                    self.written = self.log.len();
                }
                prop_assert!(self.durable.checkpoint().is_none(), "nothing happened since");
                Ok(())
            }
            Step::AbandonedCheckpoint => {
                let checkpoint =
                    if self.begun.take().is_some() { self.durable.end_checkpoint() } else { self.durable.checkpoint() };
                if let Some(checkpoint) = checkpoint {
                    self.durable.roll_back(&checkpoint);
                }
                Ok(())
            }
            Step::Restart => self.restart(),
        }
    }
}

proptest! {
    #![proptest_config(cases(300))]
    #[test]
    fn an_engine_from_its_live_checkpoints_equals_one_that_never_stopped(
        history in history(60),
        steps in prop::collection::vec(step(), 1..90),
        zone in 0..2_usize,
        listed in any::<bool>(),
        reporting in prop::option::of(prop::sample::select(vec!["EUR", "KWD"])),
        merge_orders in any::<bool>(),
    ) {
        let mut spec = Spec { merge_orders, ..spec(["UTC", "America/New_York"][zone]) };
        if !listed {
            spec.dimensions[0].values.clear();
        }
        spec.rates = reporting.map(rates);
        // Short enough that ids expire and old panes are folded.
        spec.dedup_for = 3 * DAY;
        spec.history = Some(60 * DAY);
        let spec = Arc::new(spec);
        let mut run = Run {
            steady: Engine::new(Arc::clone(&spec)),
            durable: Engine::new(Arc::clone(&spec)),
            spec,
            chain: Chain::default(),
            log: Vec::new(),
            written: 0,
            begun: None,
        };
        for n in 0..BYSTANDERS {
            run.give(bystander_order(n))?;
        }
        let mut history = history.into_iter();
        for step in &steps {
            run.step(step, &mut history)?;
        }
        run.step(&Step::Checkpoint, &mut history)?;
        run.restart()?;
        for sent in history {
            run.give(input(&sent))?;
        }
        let Run { spec, mut steady, mut durable, .. } = run;
        assert_same(&spec, &mut durable, &mut steady)?;
    }
}

/// Nothing is written without changes, little with few changes, and old checkpoints become superseded.
#[test]
fn checkpoints_are_small_and_the_chain_stays_short() {
    let spec = Arc::new(spec("UTC"));
    let mut engine = Engine::new(Arc::clone(&spec));
    assert!(engine.checkpoint().is_none());
    let customers = 64 * 500;
    for n in 0..customers {
        give(&mut engine, &bystander_order(n));
    }
    let first = engine.checkpoint().unwrap();
    assert_eq!(first.rows.as_ref().unwrap().rows.len(), customers);
    assert!(engine.checkpoint().is_none());
    let mut chain = Chain::default();
    chain.add(first);
    for n in 0..400 {
        let Input::Event(topic, order) = bystander_order(n * 7) else { return };
        let now = engine.clock.newest().unwrap();
        let Kind::Order { amount, attributes, .. } = order.kind else { return };
        let kind = Kind::Order { id: Some(n.to_string().into()), amount, attributes, referred_by: None };
        give(&mut engine, &Input::Event(topic, Event { customer: order.customer, time: now, kind }));
        let checkpoint = engine.checkpoint().unwrap();
        let rows = checkpoint.rows.as_ref().unwrap();
        assert!(rows.rows.len() <= 64 * 500_usize.div_ceil(state::rotation::LAP) + 1, "{}", rows.rows.len());
        assert!(rows.rows.iter().is_sorted_by_key(|row| row.slot));
        let newest = checkpoint.sequence;
        chain.add(checkpoint);
        assert!(newest - chain.checkpoints[0].sequence < state::rotation::LAP as u64 + 2);
        let files = chain.checkpoints.iter().map(|checkpoint| {
            usize::from(checkpoint.rows.is_some())
                + usize::from(!checkpoint.arrays.is_empty())
                + usize::from(checkpoint.seen.is_some())
        });
        assert!(files.sum::<usize>() <= 256);
    }
    assert_same(&spec, &mut chain.restore(&spec), &mut engine).unwrap();
}

#[test]
fn an_abandoned_checkpoint_is_part_of_the_next() {
    let spec = Arc::new(spec("UTC"));
    let mut engine = Engine::new(Arc::clone(&spec));
    give(&mut engine, &bystander_order(1));
    let mut chain = Chain::default();
    chain.add(engine.checkpoint().unwrap());
    give(&mut engine, &bystander_order(2));
    give(&mut engine, &Input::Erase(0, bystander(1), Time::MIN));
    let abandoned = engine.checkpoint().unwrap();
    engine.roll_back(&abandoned);
    chain.add(engine.checkpoint().unwrap());
    let mut restored = chain.restore(&spec);
    assert!(restored.customers.find(&Key::new(&bystander(1))).is_none(), "erased");
    assert_same(&spec, &mut restored, &mut engine).unwrap();
}

#[test]
fn an_erased_id_leaves_the_checkpoints_in_a_lap() {
    let spec = Arc::new(spec("UTC"));
    let mut engine = Engine::new(Arc::clone(&spec));
    let mut chain = Chain::default();
    for n in 0..BYSTANDERS {
        give(&mut engine, &bystander_order(n));
    }
    chain.add(engine.checkpoint().unwrap());
    give(&mut engine, &Input::Erase(0, bystander(2), Time::MIN));
    let named = |chain: &Chain| {
        let rows = chain.checkpoints.iter().filter_map(|checkpoint| checkpoint.rows.as_ref());
        rows.flat_map(|rows| rows.rows.iter()).filter(|row| row.id.as_deref() == Some(&bystander(2))).count()
    };
    for n in 0..state::rotation::LAP {
        give(&mut engine, &bystander_order(3 + n % 2));
        chain.add(engine.checkpoint().unwrap());
    }
    assert_eq!(named(&chain), 0);
}

/// Every row of a checkpoint shows the customer at the beginning of the checkpoint, whatever happens later.
#[test]
fn a_checkpoint_that_is_made_bit_by_bit_holds_one_instant() {
    let spec = Arc::new(spec("UTC"));
    let mut engine = Engine::new(Arc::clone(&spec));
    for n in 0..BYSTANDERS {
        give(&mut engine, &bystander_order(n));
    }
    engine.checkpoint().unwrap();
    for n in (0..BYSTANDERS).step_by(2) {
        give(&mut engine, &bystander_order(n));
    }
    give(&mut engine, &Input::Erase(0, bystander(6), Time::MIN));
    let mut at_once = engine.clone();
    let expected = at_once.checkpoint().unwrap();
    assert!(engine.begin_checkpoint());
    assert!(!engine.begin_checkpoint(), "one at a time");
    // Backwards, so that most customers change before their turn; a new customer gets the slot of an erased one.
    for n in (0..BYSTANDERS + 20).rev() {
        give(&mut engine, &bystander_order(n));
        if n % 9 == 0 {
            give(&mut engine, &Input::Erase(0, bystander(n + 3), Time::MIN));
        }
        assert!(n != 120 || !engine.continue_checkpoint(3), "some are left to the end");
    }
    let checkpoint = engine.end_checkpoint().unwrap();
    let (rows, expected) = (checkpoint.rows.unwrap().rows, expected.rows.unwrap().rows);
    assert!(0 < rows.in_turn() && rows.in_turn() < rows.len(), "some were copied early, some in their turn");
    assert!(rows.iter().eq(expected.iter()));
}
