//! Messages as librdkafka returns them: taken from a queue in bulk, and never copied.

use std::ffi::{CStr, c_void};
use std::sync::Arc;
use std::time::Duration;
use std::{ptr, slice};

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::super::topics::TopicCache;
use super::{Failure, Handle, text_of, timeout};
use crate::bus::{Header, Partition, Record, RecordBatch, Stamp, TopicPartition};

/// A queue of librdkafka.
#[derive(Debug)]
pub(in super::super) struct Queue {
    queue: *mut rd::rd_kafka_queue_t,
    handle: Arc<Handle>,
}

// SAFETY: queues may be used from any thread.
unsafe impl Send for Queue {}

/// Consecutive messages of one topic-partition, or one that reports something else.
pub(in super::super) enum Run {
    Records(TopicPartition, KafkaBatch),
    /// Only for clients that enable it; see [`super::super::ends`] for why group members do not.
    End(TopicPartition),
    Problem {
        topic: Option<String>,
        partition: i32,
        offset: i64,
        failure: Failure,
    },
}

impl Queue {
    /// # Safety
    /// `queue` is a reference to a queue of the client `handle`, given to us.
    pub(super) unsafe fn from_raw(queue: *mut rd::rd_kafka_queue_t, handle: Arc<Handle>) -> Queue {
        Queue { queue, handle }
    }

    pub(super) fn raw(&self) -> *mut rd::rd_kafka_queue_t {
        self.queue
    }

    /// Waits until `limit` messages are available, the time is over, or a callback wakes the queue.
    pub fn fetch(&mut self, wait: Duration, limit: usize, topics: &mut TopicCache, out: &mut Vec<Run>) {
        let mut buffer: Vec<*mut rd::rd_kafka_message_t> = Vec::with_capacity(limit);
        // SAFETY: a live queue and room for `limit` pointers, of which the answer tells how many were written. Each
        // is a message that is ours to destroy.
        let messages = unsafe {
            let count = rd::rd_kafka_consume_batch_queue(self.queue, timeout(wait), buffer.as_mut_ptr(), limit);
            buffer.set_len(usize::try_from(count).unwrap_or(0));
            KafkaBatch { messages: buffer, handle: Arc::clone(&self.handle) }
        };
        messages.split_into_runs(topics, out);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: ours, not used afterwards, and its client still lives in the `Arc`.
        unsafe { rd::rd_kafka_queue_destroy(self.queue) }
    }
}

/// Messages of one topic-partition, still in librdkafka's buffers; dropping the batch frees them.
#[derive(Debug)]
pub struct KafkaBatch {
    messages: Vec<*mut rd::rd_kafka_message_t>,
    /// Keeps the client alive until the messages are destroyed.
    handle: Arc<Handle>,
}

// SAFETY: librdkafka leaves messages alone once handed out, and they may be destroyed on any thread (their shared
// buffers are counted atomically).
unsafe impl Send for KafkaBatch {}

impl KafkaBatch {
    fn message(&self, index: usize) -> &rd::rd_kafka_message_t {
        // SAFETY: every pointer in the batch is a message that lives until the batch drops.
        unsafe { &*self.messages[index] }
    }

    /// Appends the messages of a later batch of the same topic-partition.
    pub(in super::super) fn append(&mut self, mut later: KafkaBatch) {
        self.messages.append(&mut later.messages);
    }

    fn split_into_runs(mut self, topics: &mut TopicCache, out: &mut Vec<Run>) {
        let mut start = 0;
        while start < self.messages.len() {
            let (length, head) = self.run_at(start, topics);
            match head {
                Head::Records(at) if length == self.messages.len() => {
                    self.messages.shrink_to_fit();
                    return out.push(Run::Records(at, self));
                }
                Head::Records(at) => {
                    let run = &mut self.messages[start..start + length];
                    let messages = run.to_vec();
                    run.fill(ptr::null_mut()); // the new batch owns them now
                    out.push(Run::Records(at, KafkaBatch { messages, handle: Arc::clone(&self.handle) }));
                }
                Head::Other(run) => out.push(run),
            }
            start += length;
        }
    }

    /// The number of messages from `start` that belong together, and their kind.
    fn run_at(&self, start: usize, topics: &mut TopicCache) -> (usize, Head) {
        let first = self.message(start);
        let topic = if first.rkt.is_null() {
            None
        } else {
            // SAFETY: the message holds its topic; the name lives as long as that.
            topics.index_of(first.rkt as usize, || unsafe { CStr::from_ptr(rd::rd_kafka_topic_name(first.rkt)) })
        };
        let at = topic.map(|topic| TopicPartition { topic, partition: Partition(first.partition) });
        match (Code::from(first.err), at) {
            (Code::NoError, Some(at)) => {
                let same = |i: &usize| {
                    let next = self.message(*i);
                    next.err == first.err && next.rkt == first.rkt && next.partition == first.partition
                };
                (1 + (start + 1..self.messages.len()).take_while(same).count(), Head::Records(at))
            }
            (Code::PartitionEOF, Some(at)) => (1, Head::Other(Run::End(at))),
            (code, _) => (1, Head::Other(problem(first, code))),
        }
    }
}

enum Head {
    Records(TopicPartition),
    Other(Run),
}

fn problem(message: &rd::rd_kafka_message_t, code: Code) -> Run {
    let topic = (!message.rkt.is_null())
        // SAFETY: the message holds its topic.
        .then(|| unsafe { text_of(rd::rd_kafka_topic_name(message.rkt)) });
    let text = if code == Code::NoError {
        "a record of a topic that is not subscribed to".to_owned()
    } else {
        // SAFETY: the payload of an error is its terminated text, or null.
        unsafe { text_of(message.payload.cast()) }
    };
    Run::Problem { topic, partition: message.partition, offset: message.offset, failure: Failure { code, text } }
}

impl KafkaBatch {
    /// Drops the records before this offset.
    pub(in super::super) fn drop_before(&mut self, offset: i64) {
        let keep = self.messages.partition_point(|&message| {
            // SAFETY: a batch handed out holds only live messages.
            unsafe { (*message).offset < offset }
        });
        for message in self.messages.drain(..keep) {
            // SAFETY: a message of ours, which is in no list any more.
            unsafe { rd::rd_kafka_message_destroy(message) }
        }
    }
}

impl RecordBatch for KafkaBatch {
    fn len(&self) -> usize {
        self.messages.len()
    }

    fn get(&self, index: usize) -> Record<'_> {
        let message = self.message(index);
        let bytes = |start: *mut c_void, length: usize| {
            // SAFETY: not null, so it points to `length` bytes of the message, which live until the batch drops.
            (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast::<u8>(), length) })
        };
        Record {
            offset: message.offset,
            key: bytes(message.key, message.key_len),
            payload: bytes(message.payload, message.len),
        }
    }

    fn stamp(&self, index: usize) -> Stamp {
        let message = self.message(index);
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: a live message that was fetched, and a place to write to.
        let (time, epoch) = unsafe {
            (rd::rd_kafka_message_timestamp(message, &raw mut kind), rd::rd_kafka_message_leader_epoch(message))
        };
        let has_time = kind != rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && time >= 0;
        Stamp { time: has_time.then_some(time), leader_epoch: (epoch >= 0).then_some(epoch) }
    }

    fn headers(&self, index: usize) -> Vec<Header<'_>> {
        let message = self.message(index);
        let mut list = ptr::null_mut();
        // SAFETY: a live message, and a place to write to. librdkafka parses the headers at the first call and keeps
        // them in the message, where they live until the batch drops. That writes to the message behind a shared
        // reference, but only this thread has one: a batch is not `Sync`.
        let answer = unsafe { rd::rd_kafka_message_headers(message, &raw mut list) };
        if Code::from(answer) != Code::NoError || list.is_null() {
            return Vec::new();
        }
        // SAFETY: live headers.
        let count = unsafe { rd::rd_kafka_header_cnt(list) };
        let header = |place| {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            // SAFETY: live headers and places to write to. On success the name is terminated, and the value null or
            // `size` bytes long; both live as long as the headers.
            unsafe {
                let answer = rd::rd_kafka_header_get_all(list, place, &raw mut name, &raw mut value, &raw mut size);
                (Code::from(answer) == Code::NoError).then(|| Header {
                    name: CStr::from_ptr(name).to_string_lossy(),
                    value: (!value.is_null()).then(|| slice::from_raw_parts(value.cast::<u8>(), size)),
                })
            }
        };
        (0..count).map_while(header).collect()
    }
}

impl Drop for KafkaBatch {
    fn drop(&mut self) {
        for &message in self.messages.iter().filter(|message| !message.is_null()) {
            // SAFETY: ours, destroyed once, and before the client, which the `Arc` drops after this.
            unsafe { rd::rd_kafka_message_destroy(message) }
        }
    }
}
