//! History up to an instant, split into the partitions whose topics continue it.
//!
//! The topics are read from some time before that instant, so that late events, and those that arrived during the
//! export, are not lost. Events in both count once: an event with an id is taken from the file and its id is
//! remembered, so that the topic's copy is a duplicate. An event without an id is taken from the topic, because its two
//! copies could not be matched.

use std::path::Path;
use std::sync::Arc;

use super::{History, HistoryError, Tally, read};
use crate::bus::partitioner::Partitioner;
use crate::decode::{Decoded, Decoder, Rejection, Skip};
use crate::engine::Engine;
use crate::engine::spec::Spec;
use crate::event::{Event, Kind, Time};
use crate::files::EventFile;

/// Where the files end and the topics begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handoff {
    /// Events from here on are taken from the topics.
    pub until: Time,
    /// The topics are read from this record time on.
    pub overlap_from: Time,
    /// Ids of events from here on are remembered.
    pub remember_from: Time,
    /// Maximum time between an event and its copy, in milliseconds.
    pub dedup_for: i64,
}

/// The source topics that continue the events of a file, by their indexes in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topics {
    /// Topic of sessions.
    pub sessions: u16,
    /// Topic of all other events.
    pub others: u16,
}

/// The histories of all partitions.
#[derive(Debug)]
pub struct Partitioned {
    partitions: Vec<History>,
    partitioner: Partitioner,
    handoff: Handoff,
    /// The newest event of the current file so far.
    newest: Option<Time>,
    /// Lines, rejections and duplicates over all partitions.
    pub tally: Tally,
    /// Number of events from the handoff on, which are taken from the topics.
    pub left: u64,
    /// Number of events without an id within the overlap, which are taken from the topics.
    pub unidentified: u64,
}

impl Partitioned {
    /// Empty histories.
    #[must_use]
    pub fn new(partitions: u32, partitioner: Partitioner, handoff: Handoff) -> Partitioned {
        Partitioned {
            partitions: (0..partitions).map(|_| History::new(handoff.dedup_for)).collect(),
            partitioner,
            handoff,
            newest: None,
            tally: Tally::default(),
            left: 0,
            unidentified: 0,
        }
    }

    /// Reads a file to its end.
    ///
    /// # Errors
    /// Like [`History::read`].
    pub fn read(&mut self, file: EventFile, decoder: &Decoder, topics: Topics) -> Result<(), HistoryError> {
        self.newest = None;
        let path = file.path.clone();
        let lines = read::read(file, decoder, Time::MAX, &mut |line, decoded| self.add(&path, line, topics, decoded))?;
        self.tally.lines += lines;
        Ok(())
    }

    fn add(&mut self, path: &Path, line: u64, topics: Topics, decoded: Result<Decoded<'_>, Rejection>) {
        match decoded {
            Ok(Decoded::Event(event)) => self.add_event(topics, &event),
            Ok(Decoded::Cancellation { event, .. }) => match self.of(&event.customer).has_order_of(&event) {
                true => self.add_event(topics, &event),
                false => *self.tally.skipped.entry(Skip::Filtered).or_default() += 1,
            },
            Ok(Decoded::Several { events, .. }) => events.iter().for_each(|event| self.add_event(topics, event)),
            Ok(Decoded::Skipped(skip)) => *self.tally.skipped.entry(skip).or_default() += 1,
            Ok(Decoded::Erase { customer, time }) => {
                if let Some(at) = time.max(self.newest) {
                    self.of(&customer).erase(&customer, at, topics.others);
                }
            }
            Ok(Decoded::Unknown(_)) => self.tally.unknown += 1,
            Ok(Decoded::Batch(parts)) => {
                parts.into_iter().for_each(|part| self.add(path, line, topics, part.located()))
            }
            Err(rejection) => self.tally.reject(path, line, rejection),
        }
    }

    fn of(&mut self, customer: &str) -> &mut History {
        let partitions = u32::try_from(self.partitions.len()).unwrap_or(u32::MAX);
        let place = self.partitioner.partition(customer.as_bytes(), partitions);
        &mut self.partitions[place as usize]
    }

    fn add_event(&mut self, topics: Topics, event: &Event<'_>) {
        self.newest = self.newest.max(Some(event.time));
        let handoff = self.handoff;
        let topic = if matches!(event.kind, Kind::Session { .. }) { topics.sessions } else { topics.others };
        let history = self.of(&event.customer);
        // The first copy in file order decides: if it is left to the topic, later ones are duplicates all the same.
        let Some(identity) = history.admit(event) else {
            self.tally.duplicates += 1;
            return;
        };
        if event.time >= handoff.until {
            self.left += 1;
        } else if identity.is_none() && event.time >= handoff.overlap_from {
            self.unidentified += 1;
        } else {
            history.push(event, topic);
            if let Some(identity) = identity.filter(|_| event.time >= handoff.remember_from) {
                history.remember(event, identity);
            }
        }
    }

    /// Number of events that count.
    #[must_use]
    pub fn len(&self) -> usize {
        self.partitions.iter().map(History::len).sum()
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partitions.iter().all(History::is_empty)
    }

    /// The history of each partition.
    #[must_use]
    pub fn into_partitions(self) -> Vec<History> {
        self.partitions
    }
}

impl History {
    /// An engine with this history that continues with the topics at `overlap_from`. The files advance its watermarks
    /// at most to that time, so they do not make any event that follows too late. `progress` is called with the number
    /// of rows applied since its last call. Silences due before `alerts_since` raise no alert, unless a rule sets
    /// another instant.
    pub fn found(
        mut self,
        spec: Arc<Spec>,
        overlap_from: Time,
        alerts_since: Time,
        mut progress: impl FnMut(u64),
    ) -> Engine {
        let mut engine = Engine::new(spec);
        engine.set_alerts_since(alerts_since);
        engine.hold_clock_at(overlap_from);
        let mut told = 0;
        self.apply_to(
            &mut engine,
            |done| {
                progress(done - told);
                told = done;
            },
            None,
        );
        let mut remembered = std::mem::take(&mut self.remembered);
        remembered.sort_unstable_by_key(|(time, ..)| *time);
        for (time, kind, identity) in remembered {
            engine.remember(kind, identity, time);
        }
        engine.hold_clock_at(Time::MAX);
        // Even an empty state has start offsets, so it must be part of the first checkpoint.
        engine.note_progress();
        engine
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Format;
    use crate::engine::Outcome;
    use crate::event::{DAY, HOUR};
    use crate::files::Layout;

    const UNTIL: i64 = 20_000 * DAY;

    fn order(id: &str, customer: &str, time: i64) -> String {
        let id = if id.is_empty() { String::new() } else { format!(r#""order_id":"{id}","#) };
        format!(r#"{{"type":"order",{id}"customer_id":"{customer}","time":{time},"amount":"1","currency":"EUR"}}"#)
    }

    fn read(lines: &[String]) -> Partitioned {
        let at = |millis: i64| Time::clamped(millis);
        let handoff = Handoff {
            until: at(UNTIL),
            overlap_from: at(UNTIL - DAY),
            remember_from: at(UNTIL - 8 * DAY),
            dedup_for: 7 * DAY,
        };
        let mut history = Partitioned::new(1, Partitioner::Murmur2, handoff);
        let reader = Box::new(std::io::Cursor::new(lines.join("\n")));
        let file = EventFile { path: "test".into(), layout: Layout::Ndjson, reader };
        history.read(file, &Decoder::new(Format::Native, vec![]), Topics { sessions: 0, others: 0 }).unwrap();
        history
    }

    fn found(history: Partitioned) -> Engine {
        let spec = super::super::tests::spec();
        history.into_partitions().remove(0).found(spec, Time::clamped(UNTIL - DAY), Time::MAX, |_| {})
    }

    fn apply(engine: &mut Engine, line: &str) -> Outcome {
        let decoder = Decoder::new(Format::Native, vec![]);
        let Decoded::Event(event) = decoder.decode(None, Some(line.as_bytes()), Time::MAX).unwrap() else { panic!() };
        engine.apply(0, &event)
    }

    #[test]
    fn files_and_topic_meet_without_gap_or_overlap() {
        let lines = [
            order("old", "a", UNTIL - 9 * DAY),
            order("a-1", "a", UNTIL - HOUR),
            order("", "a", UNTIL - 2 * HOUR),
            order("", "b", UNTIL - DAY - 1),
            order("later", "b", UNTIL),
            order("later", "b", UNTIL - HOUR),
            order("a-1", "a", UNTIL - 3 * HOUR),
        ];
        let history = read(&lines);
        assert_eq!((history.len(), history.left, history.unidentified, history.tally.duplicates), (3, 1, 1, 2));
        let mut engine = found(history);
        assert_eq!(engine.clock().watermark(), Some(Time::clamped(UNTIL - DAY)));
        for (line, outcome) in [
            // As late as is allowed at the time from which the topic is read.
            (order("late", "c", UNTIL - 2 * DAY), Outcome::Applied),
            (order("older", "c", UNTIL - 2 * DAY - 1), Outcome::TooLate),
            (order("a-1", "a", UNTIL - HOUR), Outcome::Duplicate),
            (order("", "a", UNTIL - 2 * HOUR), Outcome::Applied),
            (order("later", "b", UNTIL), Outcome::Applied),
        ] {
            assert_eq!(apply(&mut engine, &line), outcome, "{line}");
        }
        assert_eq!(engine.clock().watermark(), Some(Time::clamped(UNTIL)));
    }

    #[test]
    fn who_came_back_after_an_erasure_goes_on_under_the_id() {
        let erase = r#"{"type":"erase","customer_id":"a"}"#.to_owned();
        let lines = [
            order("1", "a", UNTIL - 9 * DAY),
            erase.clone(),
            order("2", "a", UNTIL - 8 * DAY),
            erase,
            order("3", "a", UNTIL - 7 * DAY),
            order("4", "a", UNTIL - 6 * DAY),
        ];
        let mut engine = found(read(&lines));
        assert_eq!(engine.tracked_customers(), 1);
        assert_eq!(apply(&mut engine, &order("5", "a", UNTIL + 1)), Outcome::Applied);
        assert_eq!(engine.tracked_customers(), 1, "the topic's customer is the one of the file");
        assert!(engine.customer("a").is_some());
    }
}
