//! Where a session starts to read each partition of its source.

use super::Route;
use super::offset_note::OffsetNote;
use super::partition_reader::RecordPosition;
use super::session::{ANSWER_WAIT, End, FROM, INTO, place};
use crate::bus::{Committed, GroupHandle, Start};

/// Where reading begins, and whether this is the first session ever.
pub(super) fn begins<H: GroupHandle>(
    handle: &H,
    route: &Route,
    readers: usize,
    topic_id: Option<&str>,
) -> Result<(Vec<RecordPosition>, bool), End> {
    let all: Vec<_> = (0..readers).map(|number| place(FROM, number)).collect();
    let committed = handle.committed(&all, ANSWER_WAIT)?;
    let ask = |start: Start| {
        let question: Vec<_> = all.iter().map(|at| (*at, start)).collect();
        handle.offsets(&question, ANSWER_WAIT)
    };
    let at = |offset: i64| RecordPosition { offset, events_done: 0 };
    if committed.iter().all(Option::is_none) {
        let into = (0..route.partitions as usize).map(|number| (place(INTO, number), Start::Latest));
        if handle.offsets(&into.collect::<Vec<_>>(), ANSWER_WAIT)?.iter().any(|end| *end > 0) {
            return Err(End::Broken(route.lost_offsets()));
        }
        return Ok((ask(route.start)?.into_iter().map(at).collect(), true));
    }
    // All partitions are committed together, so those without an offset were added to the topic since.
    let fresh = if committed.iter().any(Option::is_none) { ask(Start::Earliest)? } else { Vec::new() };
    let begin = |(number, committed): (usize, &Option<Committed>)| {
        let Some(committed) = committed else { return Ok(at(fresh[number])) };
        let note = OffsetNote::parse(&committed.metadata);
        match (&note.topic_id, topic_id) {
            (Some(then), Some(now)) if then != now => Err(End::Broken(route.other_topic())),
            _ => Ok(RecordPosition { offset: committed.offset, events_done: note.events_done }),
        }
    };
    Ok((committed.iter().enumerate().map(begin).collect::<Result<_, End>>()?, false))
}
