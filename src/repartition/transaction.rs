//! The open transaction of a session: routed events, dead letters and the offsets after them.

use std::collections::BTreeSet;
use std::time::Instant;

use super::clients::Clients;
use super::offset_note::OffsetNote;
use super::partition_reader::{Item, ItemKind, PartitionReader};
use super::session::{End, FROM, Session, ended, place};
use crate::bus::transaction::{Outgoing, TransactionError, Transactions};
use crate::bus::{Committed, GroupToken, Header};
use crate::decode::{Reason, Skip};
use crate::output::dead_letters::too_large_even_cut_off;
use crate::worker::note_type;

/// How often a record may be refused because of its size: as an event, as a dead letter, and as a dead letter that was
/// truncated again and again.
const REFUSALS: u32 = 5;

/// The open transaction.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) begun: Instant,
    /// The reader and the record offset of each message produced.
    pub(super) sent: Vec<(usize, i64)>,
    pub(super) bytes: usize,
}

/// Counts of the open transaction; they are published when it commits.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) events: u64,
    pub(super) dead_letters: u64,
    pub(super) unknown: u64,
    pub(super) unknown_types: BTreeSet<String>,
    pub(super) rejected: [u64; Reason::ALL.len()],
    pub(super) skipped: [u64; Skip::ALL.len()],
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            events: 0,
            dead_letters: 0,
            unknown: 0,
            unknown_types: BTreeSet::new(),
            rejected: [0; Reason::ALL.len()],
            skipped: [0; Skip::ALL.len()],
        }
    }
}

impl<P: Clients> Session<'_, P> {
    pub(super) fn open(&mut self) -> Result<(), End> {
        if self.open.is_none() {
            self.producer.begin().map_err(|error| ended(&error))?;
            self.open = Some(Open { begun: Instant::now(), sent: Vec::new(), bytes: 0 });
        }
        Ok(())
    }

    pub(super) fn produce(&mut self, reader: usize, item: &Item) -> Result<(), End> {
        let produced = match &item.kind {
            ItemKind::Event { partition, key, bytes } => {
                self.counts.events += 1;
                let (key, payload) = bytes.split_at(*key);
                let record = Outgoing {
                    topic: &self.route.into,
                    key: Some(key),
                    payload: Some(payload),
                    headers: &[],
                    time: None,
                };
                self.producer.produce_to(Some(*partition), &record).map(|()| bytes.len())
            }
            ItemKind::DeadLetter(dead_letter, reason) => {
                self.counts.dead_letters += 1;
                self.counts.rejected[*reason as usize] += 1;
                let header = |(name, value): &'_ (String, Option<Vec<u8>>)| (name.clone(), value.clone());
                let own: Vec<_> = dead_letter.headers.iter().map(header).collect();
                let headers = own.iter().map(|(name, value)| Header { name: name.into(), value: value.as_deref() });
                let record = Outgoing {
                    topic: &self.route.dead_letters,
                    key: dead_letter.key.as_deref(),
                    payload: dead_letter.payload.as_deref(),
                    headers: &headers.collect::<Vec<_>>(),
                    time: dead_letter.time,
                };
                self.producer.produce(&record).map(|()| dead_letter.bytes())
            }
            ItemKind::Skipped(skip) => {
                self.counts.skipped[*skip as usize] += 1;
                return Ok(());
            }
            ItemKind::Unknown(name) => {
                self.counts.unknown += 1;
                note_type(&mut self.counts.unknown_types, name);
                return Ok(());
            }
            ItemKind::Nothing => return Ok(()),
        };
        // Record it before checking the result: a refusal may refer to this message.
        if let Some(open) = &mut self.open {
            open.sent.push((reader, item.offset));
        }
        match produced {
            Ok(bytes) => self.open.iter_mut().for_each(|open| open.bytes += bytes),
            Err(error) => return Err(self.failed(&error)),
        }
        Ok(())
    }

    /// Commits the produced messages together with the offsets after them.
    pub(super) fn commit(&mut self) -> Result<(), End> {
        let Session { readers, merge, topic_id, .. } = self;
        let next = |(number, reader): (usize, &mut PartitionReader<_>)| {
            reader.is_done(merge);
            let metadata = OffsetNote { events_done: reader.next.events_done, topic_id: topic_id.clone() }
                .to_string()
                .into_bytes();
            (place(FROM, number), Committed { offset: reader.next.offset, metadata })
        };
        let next: Vec<_> = readers.iter_mut().enumerate().map(next).collect();
        let token = GroupToken::of_nobody(&self.route.group);
        let committed = self.producer.send_offsets(&token, &next).and_then(|()| self.producer.commit());
        committed.map_err(|error| self.failed(&error))?;
        self.open = None;
        self.last_commit = Instant::now();
        let counts = std::mem::take(&mut self.counts);
        self.status.change(|status| {
            status.events += counts.events;
            status.dead_letters += counts.dead_letters;
            status.unknown += counts.unknown;
            counts.unknown_types.iter().for_each(|name| note_type(&mut status.unknown_types, name));
            add(&mut status.rejected, &counts.rejected);
            add(&mut status.skipped, &counts.skipped);
        });
        Ok(())
    }

    /// Maps a failed call to the end of the session; the next session resumes from the committed offsets.
    pub(super) fn failed(&mut self, error: &TransactionError) -> End {
        match error {
            TransactionError::TooLargeTogether(_) => self.clients.send_singly(),
            TransactionError::TooLarge { indexes, .. } => {
                let sent = self.open.as_ref().map(|open| open.sent.as_slice()).unwrap_or_default();
                for record in indexes.iter().filter_map(|&index| sent.get(index)) {
                    let refusals = self.oversized.entry(*record).or_default();
                    *refusals += 1;
                    if *refusals > REFUSALS {
                        return End::Broken(too_large_even_cut_off(&self.route.dead_letters));
                    }
                }
            }
            _ => {}
        }
        ended(error)
    }
}

fn add(sums: &mut Vec<u64>, more: &[u64]) {
    sums.resize(sums.len().max(more.len()), 0);
    sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}
