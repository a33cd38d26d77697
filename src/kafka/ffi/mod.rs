//! The only unsafe code of the program: librdkafka behind safe types that free what they own, in the right order.
//!
//! [`Handle`] is the client and must outlive everything that librdkafka hands out, so queues and batches hold an
//! `Arc` of it. librdkafka calls back on the thread that serves a queue (rebalances, errors) and, for logs, on any
//! thread. Callbacks only record events in [`Callbacks`]; the poll hands them out.
//!
//! Two pitfalls of `rd_kafka_consume_batch_queue` (librdkafka 2.12) shape this file: it waits for the whole timeout
//! unless the buffer fills, and after `rd_kafka_yield` in a callback it drops the next message. So callbacks wake the
//! queue with `rd_kafka_queue_yield` instead, and [`super::KafkaClient`] waits for one message and then takes all
//! others.
#![allow(unsafe_code)]
#![warn(clippy::undocumented_unsafe_blocks)]

mod admin;
mod callbacks;
mod list;
mod member;
mod producer;
mod queue;

use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::{mem, ptr, thread};

use rdkafka::bindings as rd;
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaRespErr};

pub(super) use self::admin::Member;
use self::callbacks::Callbacks;
pub(super) use self::callbacks::{Notice, Refused};
use self::list::entries_of;
pub(super) use self::list::{Entry, List};
pub(super) use self::producer::{Message, TransactionFailure};
pub use self::queue::KafkaBatch;
pub(super) use self::queue::{Queue, Run};
use super::oidc::Tokens;

const ERROR_TEXT_BYTES: usize = 512;

/// A timeout for librdkafka, rounded up; never negative, which would mean infinite.
fn timeout(wait: Duration) -> c_int {
    c_int::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(c_int::MAX)
}

/// The text of a C string that lives at least as long as the caller's borrow; empty for null.
///
/// # Safety
/// `text` is null or points to a terminated string that does not change during the call.
unsafe fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller guarantees the rest.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn result_of(code: RDKafkaRespErr) -> Result<(), Failure> {
    match Code::from(code) {
        Code::NoError => Ok(()),
        code => Err(Failure { code, text: code.to_string() }),
    }
}

/// An error of librdkafka.
#[derive(Debug)]
pub(super) struct Failure {
    pub code: Code,
    pub text: String,
}

/// A configuration under construction, and the tokens for its client.
pub(super) struct Conf(*mut rd::rd_kafka_conf_t, Option<Arc<Tokens>>);

impl Conf {
    pub fn new() -> Conf {
        // SAFETY: no arguments; it ends the process rather than return null.
        Conf(unsafe { rd::rd_kafka_conf_new() }, None)
    }

    /// Makes the client log in with these tokens.
    pub fn log_in_with(&mut self, tokens: Arc<Tokens>) {
        self.1 = Some(tokens);
    }

    /// Sets an option; the error describes the wrong name or value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let (Ok(name), Ok(value)) = (CString::new(name), CString::new(value)) else {
            return Err("contains a zero byte".to_owned());
        };
        let mut text = [0; ERROR_TEXT_BYTES];
        // SAFETY: a live configuration, terminated strings, and a buffer of the stated size.
        let answer = unsafe {
            rd::rd_kafka_conf_set(self.0, name.as_ptr(), value.as_ptr(), text.as_mut_ptr(), ERROR_TEXT_BYTES)
        };
        if answer == rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
            return Ok(());
        }
        // SAFETY: librdkafka terminates what it writes into the buffer.
        Err(unsafe { text_of(text.as_ptr()) })
    }
}

impl Drop for Conf {
    fn drop(&mut self) {
        // SAFETY: still ours; `Handle::open` forgets the value when librdkafka takes the pointer.
        unsafe { rd::rd_kafka_conf_destroy(self.0) }
    }
}

/// A client of the cluster. Freed on a separate thread, because that may wait for brokers.
#[derive(Debug)]
pub(super) struct Handle {
    rk: *mut rd::rd_kafka_t,
    callbacks: *mut Callbacks,
}

// SAFETY: `rd_kafka_t` may be used from any thread at once, and `Callbacks` is `Sync`.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// A consumer client with our callbacks; it does not connect yet.
    pub fn new(conf: Conf) -> Result<Arc<Handle>, String> {
        Handle::open(conf, rd::rd_kafka_type_t::RD_KAFKA_CONSUMER)
    }

    /// A producer client with our callbacks; it does not connect yet.
    pub fn new_producer(conf: Conf) -> Result<Arc<Handle>, String> {
        Handle::open(conf, rd::rd_kafka_type_t::RD_KAFKA_PRODUCER)
    }

    fn open(mut conf: Conf, kind: rd::rd_kafka_type_t) -> Result<Arc<Handle>, String> {
        let tokens = conf.1.take();
        let has_tokens = tokens.is_some();
        let callbacks = Box::into_raw(Box::new(Callbacks::new(tokens)));
        let mut text = [0; ERROR_TEXT_BYTES];
        // SAFETY: a live configuration, functions of the right signatures, and an opaque pointer that is freed only
        // after `rd_kafka_destroy` returned, so no callback sees it dangle.
        let rk = unsafe {
            rd::rd_kafka_conf_set_opaque(conf.0, callbacks.cast());
            callbacks::install(conf.0, kind, has_tokens);
            rd::rd_kafka_new(kind, conf.0, text.as_mut_ptr(), ERROR_TEXT_BYTES)
        };
        if rk.is_null() {
            // SAFETY: made by `Box::into_raw` above; without a client, nothing else uses it.
            drop(unsafe { Box::from_raw(callbacks) });
            // SAFETY: librdkafka terminates what it writes into the buffer.
            return Err(unsafe { text_of(text.as_ptr()) });
        }
        mem::forget(conf); // librdkafka owns it now
        let handle = Arc::new(Handle { rk, callbacks });
        if has_tokens {
            // SAFETY: a live client with a queue for these callbacks; the error is freed by `take_error`.
            unsafe { take_error(rd::rd_kafka_sasl_background_callbacks_enable(rk)) }.map_err(|failure| failure.text)?;
        }
        Ok(handle)
    }

    fn callbacks(&self) -> &Callbacks {
        // SAFETY: lives as long as the client, which lives as long as `self`.
        unsafe { &*self.callbacks }
    }

    /// The events that callbacks recorded since the last call.
    pub fn take_notices(&self) -> Vec<Notice> {
        self.callbacks().take_notices()
    }

    /// The fatal error of the client, if any.
    pub fn fatal(&self) -> Option<Failure> {
        // SAFETY: a live client.
        unsafe { fatal_of(self.rk) }
    }

    /// Joins the group; returns the queue on which messages and events arrive.
    pub fn subscribe(self: &Arc<Handle>, topics: &List) -> Result<Queue, Failure> {
        let queue = self.consumer_queue()?;
        // SAFETY: a live client and a live list, which is copied.
        result_of(unsafe { rd::rd_kafka_subscribe(self.rk, topics.0) })?;
        Ok(queue)
    }

    /// Leaves the group, even as a static member, and joins again once all owned partitions are released.
    pub fn rejoin(&self, topics: &List) -> Result<(), Failure> {
        // SAFETY: a live client and a live list, which is copied.
        unsafe {
            result_of(rd::rd_kafka_unsubscribe(self.rk))?;
            result_of(rd::rd_kafka_subscribe(self.rk, topics.0))
        }
    }

    /// The queue on which messages and events arrive, without joining the group.
    pub fn consumer_queue(self: &Arc<Handle>) -> Result<Queue, Failure> {
        // SAFETY: a live client.
        result_of(unsafe { rd::rd_kafka_poll_set_consumer(self.rk) })?;
        // SAFETY: a live client with a group id; otherwise `rd_kafka_poll_set_consumer` had failed.
        Ok(unsafe { Queue::from_raw(rd::rd_kafka_queue_get_consumer(self.rk), Arc::clone(self)) })
    }

    /// The queue on which assigned partitions arrive, without joining the group.
    pub fn look(self: &Arc<Handle>) -> Result<Queue, Failure> {
        // SAFETY: a live client; then its consumer queue exists, or `rd_kafka_poll_set_consumer` had failed.
        unsafe {
            result_of(rd::rd_kafka_poll_set_consumer(self.rk))?;
            Ok(Queue::from_raw(rd::rd_kafka_queue_get_consumer(self.rk), Arc::clone(self)))
        }
    }

    fn new_queue(self: &Arc<Handle>) -> Queue {
        // SAFETY: a live client.
        unsafe { Queue::from_raw(rd::rd_kafka_queue_new(self.rk), Arc::clone(self)) }
    }

    /// Reads exactly these from now on; nothing if `None`.
    pub fn assign(&self, list: Option<&List>) -> Result<(), Failure> {
        // SAFETY: a live client and a live list or null; the list is copied.
        result_of(unsafe { rd::rd_kafka_assign(self.rk, list.map_or(ptr::null(), |list| list.0)) })
    }

    pub fn incremental_assign(&self, list: &List) -> Result<(), Failure> {
        // SAFETY: a live client and a live list, which is copied; the error is freed by `take_error`.
        unsafe { take_error(rd::rd_kafka_incremental_assign(self.rk, list.0)) }
    }

    pub fn incremental_unassign(&self, list: &List) -> Result<(), Failure> {
        // SAFETY: as above.
        unsafe { take_error(rd::rd_kafka_incremental_unassign(self.rk, list.0)) }
    }

    /// Commits and waits for the answer, including the first per-partition error; `None` without an answer in time.
    pub fn commit_and_wait(self: &Arc<Handle>, list: &List, wait: Duration) -> Option<Result<(), Failure>> {
        let answers = self.new_queue();
        // SAFETY: a live client, a live list (copied) and a live queue; without a callback the answer is an event.
        let sent = unsafe { rd::rd_kafka_commit_queue(self.rk, list.0, answers.raw(), None, ptr::null_mut()) };
        if let Err(failure) = result_of(sent) {
            return Some(Err(failure));
        }
        // SAFETY: a live queue.
        let event = unsafe { rd::rd_kafka_queue_poll(answers.raw(), timeout(wait)) };
        if event.is_null() {
            return None;
        }
        // SAFETY: a live event of ours; the list belongs to it and is read before it is destroyed.
        unsafe {
            let refused = entries_of(rd::rd_kafka_event_topic_partition_list(event))
                .find(|entry| entry.code != Code::NoError)
                .map(|entry| Failure {
                    code: entry.code,
                    text: format!("{} [{}]: {}", entry.topic, entry.partition, entry.code),
                });
            let answer = result_of(rd::rd_kafka_event_error(event)).and(refused.map_or(Ok(()), Err));
            rd::rd_kafka_event_destroy(event);
            Some(answer)
        }
    }

    /// Fills in the committed offsets and their metadata, excluding those of pending transactions.
    pub fn committed(&self, list: &mut List, wait: Duration) -> Result<(), Failure> {
        // SAFETY: a live client and a live list that nothing else uses.
        result_of(unsafe { rd::rd_kafka_committed(self.rk, list.0, timeout(wait)) })
    }

    /// Replaces each offset, a time in epoch milliseconds, with that of the first record at or after it.
    pub fn offsets_for_times(&self, list: &mut List, wait: Duration) -> Result<(), Failure> {
        // SAFETY: a live client and a live list that nothing else uses.
        result_of(unsafe { rd::rd_kafka_offsets_for_times(self.rk, list.0, timeout(wait)) })
    }

    /// Fills in the consumed position of each partition; negative if nothing was consumed since the assignment.
    pub fn positions(&self, list: &mut List) -> Result<(), Failure> {
        // SAFETY: a live client and a live list that nothing else uses.
        result_of(unsafe { rd::rd_kafka_position(self.rk, list.0) })
    }

    /// The end of a partition as last fetched.
    pub fn high_watermark(&self, topic: &CStr, partition: i32) -> Option<i64> {
        let (mut low, mut high) = (-1, -1);
        // SAFETY: a live client, a terminated string, and two places to write to.
        let answer = unsafe {
            rd::rd_kafka_get_watermark_offsets(self.rk, topic.as_ptr(), partition, &raw mut low, &raw mut high)
        };
        (Code::from(answer) == Code::NoError && high >= 0).then_some(high)
    }

    /// The partition count of a topic; the error may be that it does not exist.
    pub fn partition_count(&self, topic: &CStr, wait: Duration) -> Result<u32, Failure> {
        let mut metadata: *const rd::rd_kafka_metadata = ptr::null();
        // SAFETY: a live client and a terminated string; the topic is ours until it is destroyed, and the answer is
        // written only on success.
        let answer = unsafe {
            let handle = rd::rd_kafka_topic_new(self.rk, topic.as_ptr(), ptr::null_mut());
            if handle.is_null() {
                let code = Code::from(rd::rd_kafka_last_error());
                return Err(Failure { code, text: code.to_string() });
            }
            let answer = rd::rd_kafka_metadata(self.rk, 0, handle, &raw mut metadata, timeout(wait));
            rd::rd_kafka_topic_destroy(handle);
            answer
        };
        result_of(answer)?;
        // SAFETY: on success the answer is ours, and it holds `topic_cnt` topics at `topics`.
        unsafe {
            let count = if (*metadata).topic_cnt == 1 {
                let found = &*(*metadata).topics;
                result_of(found.err).map(|()| u32::try_from(found.partition_cnt).unwrap_or(0))
            } else {
                Err(Failure { code: Code::UnknownTopic, text: Code::UnknownTopic.to_string() })
            };
            rd::rd_kafka_metadata_destroy(metadata);
            count
        }
    }

    /// Serves the callbacks of a client that has not joined a group.
    pub fn serve_callbacks(&self) {
        // SAFETY: a live client.
        unsafe { rd::rd_kafka_poll(self.rk, 0) };
    }

    /// Begins to leave the group; events from now on arrive on the returned queue, until [`Handle::closed`].
    ///
    /// A pending rebalance needs no answer here: librdkafka asks again while closing, and the callback answers. A
    /// second answer could arrive after the group handler has ended, and would block for ever.
    pub fn begin_close(self: &Arc<Handle>) -> Result<Queue, Failure> {
        self.callbacks().close();
        // Not the consumer queue: librdkafka would forward it to itself and recurse endlessly.
        let queue = self.new_queue();
        // SAFETY: a live client and a live queue; the error is freed by `take_error`.
        unsafe { take_error(rd::rd_kafka_consumer_close_queue(self.rk, queue.raw())) }?;
        Ok(queue)
    }

    pub fn closed(&self) -> bool {
        // SAFETY: a live client.
        unsafe { rd::rd_kafka_consumer_closed(self.rk) != 0 }
    }

    /// Frees the client and waits up to `wait`; returns whether that is done.
    pub fn destroy(self, wait: Duration) -> bool {
        let done = self.start_destroying();
        mem::forget(self); // the thread owns the pointers now
        matches!(done.recv_timeout(wait), Err(mpsc::RecvTimeoutError::Disconnected))
    }

    /// Frees the client on another thread; the channel closes when that is done.
    fn start_destroying(&self) -> mpsc::Receiver<()> {
        struct Pointers(*mut rd::rd_kafka_t, *mut Callbacks);
        // SAFETY: only moved to the one thread that uses them.
        unsafe impl Send for Pointers {}
        let pointers = Pointers(self.rk, self.callbacks);
        let (sender, done) = mpsc::channel();
        let destroy = move || {
            let Pointers(rk, callbacks) = { pointers };
            // SAFETY: the last owner gave these away, so no queue, message or callback uses them after
            // `rd_kafka_destroy_flags`. The flag skips the consumer close, which would wait for answers to rebalances.
            unsafe {
                rd::rd_kafka_destroy_flags(rk, rd::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
                drop(Box::from_raw(callbacks));
            }
            drop(sender);
        };
        if let Err(error) = thread::Builder::new().name("kafka-destroy".to_owned()).spawn(destroy) {
            tracing::warn!(target: "kafka", %error, "no thread to free the Kafka client; its memory stays in use");
        }
        done
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.start_destroying());
    }
}

/// # Safety
/// `error` is null or ours.
unsafe fn take_error(error: *mut rd::rd_kafka_error_t) -> Result<(), Failure> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: a live error of ours; its text is copied before it is destroyed.
    unsafe {
        let failure = Failure {
            code: Code::from(rd::rd_kafka_error_code(error)),
            text: text_of(rd::rd_kafka_error_string(error)),
        };
        rd::rd_kafka_error_destroy(error);
        Err(failure)
    }
}

/// # Safety
/// `rk` is a live client.
unsafe fn fatal_of(rk: *mut rd::rd_kafka_t) -> Option<Failure> {
    let mut text = [0; ERROR_TEXT_BYTES];
    // SAFETY: a live client and a buffer of the stated size, which librdkafka terminates.
    unsafe {
        match Code::from(rd::rd_kafka_fatal_error(rk, text.as_mut_ptr(), ERROR_TEXT_BYTES)) {
            Code::NoError => None,
            code => Some(Failure { code, text: text_of(text.as_ptr()) }),
        }
    }
}

/// Makes groups of an in-process cluster rebalance at once instead of after seconds.
#[cfg(test)]
pub(super) fn without_rebalance_delay<C: rdkafka::client::ClientContext>(owner: &rdkafka::client::Client<C>) {
    // SAFETY: a live client, made with `test.mock.num.brokers`, that owns the cluster.
    unsafe {
        let cluster = rd::rd_kafka_handle_mock_cluster(owner.native_ptr());
        assert!(!cluster.is_null(), "the client owns no in-process cluster");
        rd::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0);
        rd::rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(cluster, 100);
    }
}
