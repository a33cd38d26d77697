//! Event time of one partition: watermarks, lateness and horizons. Only events advance time.

use crate::event::{HOUR, Time};

/// Class of an event, by the kind of predecessors that its figures depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Orders, and all events that do not depend on predecessors.
    Orders = 0,
    /// Sessions.
    Sessions = 1,
}

/// State of one source topic, as files store it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TopicState {
    /// Largest accepted event time in milliseconds.
    pub watermark: Option<i64>,
    /// Whether it has delivered events of each class.
    pub carries: [bool; 2],
}

/// One source topic as seen by one partition.
#[derive(Debug, Clone, Copy)]
struct Topic {
    /// Largest accepted event time.
    watermark: Option<Time>,
    /// Whether its events move the partition's watermark.
    drives: bool,
    /// Whether it has delivered events of each class.
    carries: [bool; 2],
    /// Whether it was read to its end and has delivered no event since.
    is_at_end: bool,
}

/// The watermarks of one partition's topics.
#[derive(Debug, Clone)]
pub struct Clock {
    topics: Vec<Topic>,
    allowed_lateness: i64,
    /// Events move no watermark beyond this time.
    ceiling: Time,
}

impl Clock {
    /// A clock without events; `drives` states for each topic whether it moves the partition's watermark.
    #[must_use]
    pub fn new(drives: &[bool], allowed_lateness: i64) -> Clock {
        let topics = drives
            .iter()
            .map(|&drives| Topic { watermark: None, drives, carries: [false; 2], is_at_end: false })
            .collect();
        Clock { topics, allowed_lateness, ceiling: Time::MAX }
    }

    /// Whether an event is behind the watermark of its own topic by more than the allowed lateness.
    #[inline]
    #[must_use]
    pub fn is_too_late(&self, topic: usize, time: Time) -> bool {
        self.topics[topic].watermark.is_some_and(|mark| time < mark.plus(-self.allowed_lateness))
    }

    /// Notes an accepted event.
    #[inline]
    pub fn accept(&mut self, topic: usize, class: Class, time: Time) {
        let topic = &mut self.topics[topic];
        topic.carries[class as usize] = true;
        topic.is_at_end = false;
        topic.watermark = topic.watermark.max(Some(time.min(self.ceiling)));
    }

    /// Caps the watermarks at `ceiling` until the next call. A bootstrap sets it to the time from which the topics will
    /// be read, so that later events of the export do not make events of the topics too late.
    pub fn hold_at(&mut self, ceiling: Time) {
        self.ceiling = ceiling;
    }

    /// Raises the watermark of a topic that is caught up and idle. Never lowers it or sets the first one. Returns
    /// whether it moved.
    pub fn raise(&mut self, topic: usize, to: Time) -> bool {
        match &mut self.topics[topic].watermark {
            Some(mark) if *mark < to => {
                *mark = to;
                true
            }
            _ => false,
        }
    }

    /// The state of each topic, for files.
    #[must_use]
    pub fn state(&self) -> Vec<TopicState> {
        let Clock { topics, allowed_lateness: _, ceiling: _ } = self;
        let state = |&Topic { watermark, drives: _, carries, is_at_end: _ }: &Topic| TopicState {
            watermark: watermark.map(Time::millis),
            carries,
        };
        topics.iter().map(state).collect()
    }

    /// Restores the state of a topic.
    pub fn resume(&mut self, topic: usize, state: &TopicState) {
        let &TopicState { watermark, carries } = state;
        let Some(topic) = self.topics.get_mut(topic) else { return };
        topic.watermark = watermark.map(Time::clamped);
        topic.carries = carries;
    }

    /// The largest watermark of all topics.
    #[must_use]
    pub fn newest(&self) -> Option<Time> {
        self.topics.iter().filter_map(|topic| topic.watermark).max()
    }

    /// The watermark of one topic.
    #[must_use]
    pub fn topic_watermark(&self, topic: usize) -> Option<Time> {
        self.topics[topic].watermark
    }

    /// The watermark of the partition: the smallest one of the topics that drive time and have delivered an event.
    #[must_use]
    pub fn watermark(&self) -> Option<Time> {
        self.topics.iter().filter(|topic| topic.drives).filter_map(|topic| topic.watermark).min()
    }

    /// The horizon: from here on, everything is exact in any order of arrival.
    #[must_use]
    pub fn horizon(&self) -> Option<Time> {
        Some(self.watermark()?.plus(-self.allowed_lateness))
    }

    /// Topics that have delivered events of the class no longer accept any before this time. So only two predecessors
    /// before it (for sessions: one) need to be kept.
    #[inline]
    #[must_use]
    pub fn floor(&self, class: Class) -> Time {
        let carrying = self.topics.iter().filter(|topic| topic.carries[class as usize]);
        let low = carrying.filter_map(|topic| topic.watermark).min();
        low.map_or(Time::MIN, |low| low.plus(-self.allowed_lateness))
    }

    /// Notes that a topic was read to its end. If it has delivered no event by then, it does not hold back the clock.
    pub fn note_end(&mut self, topic: usize) {
        if let Some(topic) = self.topics.get_mut(topic) {
            topic.is_at_end = true;
        }
    }

    /// The smallest watermark of all topics; [`Time::MIN`] while a topic without events was not read to its end.
    #[must_use]
    pub fn slowest(&self) -> Time {
        let waited_for = self.topics.iter().filter(|topic| topic.watermark.is_some() || !topic.is_at_end);
        waited_for.map(|topic| topic.watermark.unwrap_or(Time::MIN)).min().unwrap_or(Time::MIN)
    }

    /// No topic accepts an event of any class before this time.
    #[must_use]
    pub fn accepted_from(&self) -> Time {
        self.slowest().plus(-self.allowed_lateness)
    }

    /// A slower topic may still deliver an erasure that is dated before events after this time. Topics count as at most
    /// `allowed_lateness` apart; a topic that was read to its end delivers what happens now, give or take an hour.
    #[inline]
    #[must_use]
    pub fn ahead_of(&self) -> Time {
        let newest = self.newest().unwrap_or(Time::MIN);
        let come = |topic: &Topic| match topic.watermark {
            Some(mark) if topic.is_at_end => mark.max(newest.plus(-HOUR)),
            Some(mark) => mark,
            None if topic.is_at_end => newest,
            None => Time::MIN,
        };
        let slowest = self.topics.iter().map(come).min().unwrap_or(Time::MIN);
        slowest.max(newest.plus(-self.allowed_lateness))
    }

    /// The smallest watermark of the topics that have delivered events of a class.
    #[inline]
    #[must_use]
    pub fn carried(&self, class: Class) -> Option<Time> {
        let carrying = self.topics.iter().filter(|topic| topic.carries[class as usize]);
        carrying.filter_map(|topic| topic.watermark).min()
    }

    /// As [`Clock::carried`]; `time` if no topic has delivered events of the class.
    #[inline]
    #[must_use]
    pub fn of_class(&self, class: Class, time: Time) -> Time {
        self.carried(class).unwrap_or(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Time {
        Time::clamped(millis)
    }

    #[test]
    fn lateness_is_measured_against_the_topic_of_the_event() {
        let mut clock = Clock::new(&[true, true], 100);
        clock.accept(0, Class::Orders, at(1_000));
        assert!(!clock.is_too_late(0, at(900)));
        assert!(clock.is_too_late(0, at(899)));
        assert!(!clock.is_too_late(1, at(5)));
    }

    #[test]
    fn a_partition_is_as_late_as_its_latest_driving_topic() {
        let mut clock = Clock::new(&[true, true, false], 100);
        assert_eq!(clock.watermark(), None);
        clock.accept(2, Class::Sessions, at(10));
        assert_eq!(clock.watermark(), None);
        clock.accept(0, Class::Orders, at(1_000));
        assert_eq!((clock.watermark(), clock.horizon()), (Some(at(1_000)), Some(at(900))));
        clock.accept(1, Class::Orders, at(700));
        assert_eq!(clock.watermark(), Some(at(700)));
        clock.accept(1, Class::Orders, at(600));
        assert_eq!(clock.watermark(), Some(at(700)), "a watermark never goes back");
        clock.raise(1, at(950));
        assert_eq!(clock.watermark(), Some(at(950)));
    }

    #[test]
    fn a_held_clock_accepts_what_lies_behind_it() {
        let mut clock = Clock::new(&[true], 100);
        clock.hold_at(at(1_000));
        clock.accept(0, Class::Orders, at(5_000));
        assert_eq!(clock.watermark(), Some(at(1_000)));
        assert!(!clock.is_too_late(0, at(900)) && clock.is_too_late(0, at(899)));
        clock.hold_at(Time::MAX);
        clock.accept(0, Class::Orders, at(5_000));
        assert_eq!(clock.watermark(), Some(at(5_000)));
    }

    #[test]
    fn a_class_is_as_late_as_the_topics_that_carry_it() {
        let mut clock = Clock::new(&[true, false], 100);
        clock.accept(0, Class::Orders, at(1_000));
        clock.accept(1, Class::Sessions, at(300));
        assert_eq!(clock.floor(Class::Orders), at(900));
        assert_eq!(clock.floor(Class::Sessions), at(200));
        clock.raise(0, at(2_000));
        assert_eq!(clock.floor(Class::Orders), at(1_900));
    }

    #[test]
    fn old_events_are_expected_until_every_topic_has_brought_one_or_was_empty() {
        let mut clock = Clock::new(&[true, false, true], 100);
        clock.accept(0, Class::Orders, at(1_000));
        clock.accept(1, Class::Sessions, at(300));
        assert_eq!(clock.slowest(), Time::MIN);
        clock.note_end(2);
        clock.note_end(1);
        assert_eq!((clock.slowest(), clock.accepted_from()), (at(300), at(200)));
        clock.accept(2, Class::Orders, at(50));
        assert_eq!(clock.slowest(), at(50));
    }
}
