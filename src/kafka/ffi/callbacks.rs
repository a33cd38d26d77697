//! Callbacks of librdkafka. They record events for the next poll, or log them.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{mem, ptr};

use rdkafka::bindings as rd;
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaRespErr};

use super::super::oidc::{Token, Tokens};
use super::{ERROR_TEXT_BYTES, Failure, entries_of, fatal_of, text_of};

/// An event recorded by a callback.
#[derive(Debug)]
pub(in super::super) enum Notice {
    Assigned(Vec<(String, i32)>),
    Revoked(Vec<(String, i32)>),
    Lost(Vec<(String, i32)>),
    Error(Failure),
    Fatal(Failure),
}

/// A message that was not delivered: its number from the producer, and the reason.
#[derive(Debug)]
pub(in super::super) struct Refused {
    pub number: usize,
    pub failure: Failure,
}

/// The opaque pointer of a client: the state shared with its callbacks.
#[derive(Debug)]
pub(super) struct Callbacks {
    /// The tokens for brokers that require them.
    tokens: Option<Arc<Tokens>>,
    notices: Mutex<Vec<Notice>>,
    /// Messages that a producer could not deliver, until it takes them.
    refused: Mutex<Vec<Refused>>,
    /// The rebalance callback answers by itself, because nothing polls any more.
    closing: AtomicBool,
}

impl Callbacks {
    /// Without recorded events.
    pub fn new(tokens: Option<Arc<Tokens>>) -> Callbacks {
        Callbacks { tokens, notices: Mutex::default(), refused: Mutex::default(), closing: AtomicBool::new(false) }
    }

    /// The events recorded since the last call.
    pub fn take_notices(&self) -> Vec<Notice> {
        mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The messages refused since the last call.
    pub fn take_refused(&self) -> Vec<Refused> {
        mem::take(&mut *self.refused.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on the rebalance callback answers by itself, because nothing polls any more.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

/// Sets all callbacks for this kind of client; the opaque pointer of the configuration must be a [`Callbacks`]. Token
/// callbacks run on a thread of librdkafka once enabled, so that a slow provider does not block polling.
///
/// # Safety
/// `conf` is a live configuration, and its opaque pointer stays valid until its client is destroyed.
pub(super) unsafe fn install(conf: *mut rd::rd_kafka_conf_t, kind: rd::rd_kafka_type_t, has_tokens: bool) {
    // SAFETY: a live configuration and functions of the right signatures.
    unsafe {
        match kind {
            rd::rd_kafka_type_t::RD_KAFKA_CONSUMER => rd::rd_kafka_conf_set_rebalance_cb(conf, Some(on_rebalance)),
            rd::rd_kafka_type_t::RD_KAFKA_PRODUCER => rd::rd_kafka_conf_set_dr_msg_cb(conf, Some(on_delivery)),
        }
        if has_tokens {
            rd::rd_kafka_conf_enable_sasl_queue(conf, 1);
            rd::rd_kafka_conf_set_oauthbearer_token_refresh_cb(conf, Some(on_token_wanted));
        }
        rd::rd_kafka_conf_set_error_cb(conf, Some(on_error));
        rd::rd_kafka_conf_set_log_cb(conf, Some(on_log));
    }
}

/// Records an event and wakes the poll.
///
/// # Safety
/// Called from a callback of the live client `rk` with its opaque pointer.
unsafe fn note(rk: *mut rd::rd_kafka_t, opaque: *mut c_void, notice: Notice) {
    // SAFETY: the opaque pointer is that of `Handle::new`, freed only after the client.
    let callbacks = unsafe { &*opaque.cast::<Callbacks>() };
    callbacks.notices.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
    // SAFETY: a live client; null without a group, otherwise a reference that we give back.
    unsafe {
        let queue = rd::rd_kafka_queue_get_consumer(rk);
        if !queue.is_null() {
            rd::rd_kafka_queue_yield(queue);
            rd::rd_kafka_queue_destroy(queue);
        }
    }
}

unsafe extern "C" fn on_rebalance(
    rk: *mut rd::rd_kafka_t,
    code: RDKafkaRespErr,
    list: *mut rd::rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
) {
    // SAFETY: librdkafka calls with a live client, its opaque pointer, and a list that lives during the call.
    unsafe {
        if (*opaque.cast::<Callbacks>()).closing.load(Ordering::Acquire) {
            // While closing, librdkafka accepts this as the answer under every protocol. It would block for ever after
            // the group handler has ended, which can still happen between the two calls; so closing runs on its own
            // thread.
            if rd::rd_kafka_consumer_closed(rk) == 0 {
                rd::rd_kafka_assign(rk, ptr::null());
            }
            return;
        }
        let partitions = entries_of(list).map(|entry| (entry.topic.to_owned(), entry.partition)).collect();
        let notice = match Code::from(code) {
            Code::AssignPartitions => Notice::Assigned(partitions),
            Code::RevokePartitions if rd::rd_kafka_assignment_lost(rk) == 0 => Notice::Revoked(partitions),
            _ => Notice::Lost(partitions),
        };
        note(rk, opaque, notice);
    }
}

unsafe extern "C" fn on_error(rk: *mut rd::rd_kafka_t, code: c_int, reason: *const c_char, opaque: *mut c_void) {
    let code = RDKafkaRespErr::try_from(code).map_or(Code::Unknown, Code::from);
    // SAFETY: librdkafka calls with a live client, its opaque pointer, and a terminated text.
    unsafe {
        let failure = Failure { code, text: text_of(reason) };
        let notice = match fatal_of(rk) {
            Some(fatal) if code == Code::Fatal => Notice::Fatal(fatal),
            _ => Notice::Error(failure),
        };
        note(rk, opaque, notice);
    }
}

/// The opaque value of a message is its number, not a pointer.
unsafe extern "C" fn on_delivery(_: *mut rd::rd_kafka_t, message: *const rd::rd_kafka_message_t, opaque: *mut c_void) {
    // SAFETY: librdkafka calls with a message that lives during the call and the client's opaque pointer, which is that
    // of `Handle::open`.
    let (message, callbacks) = unsafe { (&*message, &*opaque.cast::<Callbacks>()) };
    let code = Code::from(message.err);
    if code == Code::NoError {
        return;
    }
    // SAFETY: a message of a delivery report, whose text is terminated or null.
    let text = unsafe { text_of(rd::rd_kafka_message_produce_errstr(message)) };
    let text = if text.is_empty() { code.to_string() } else { text };
    let refused = Refused { number: message._private as usize, failure: Failure { code, text } };
    callbacks.refused.lock().unwrap_or_else(PoisonError::into_inner).push(refused);
}

/// May block as long as the provider takes, which is bounded. A failure comes back as an authentication error, and
/// librdkafka asks again after 10 s.
unsafe extern "C" fn on_token_wanted(rk: *mut rd::rd_kafka_t, _: *const c_char, opaque: *mut c_void) {
    // SAFETY: the opaque pointer is that of `Handle::open`, freed only after the client.
    let Some(tokens) = &unsafe { &*opaque.cast::<Callbacks>() }.tokens else { return };
    // SAFETY: librdkafka calls with a live client.
    if let Err(why) = tokens.get().and_then(|token| unsafe { set_token(rk, &token) }) {
        let why = CString::new(why.replace('\0', " ")).unwrap_or_default();
        // SAFETY: a live client and a terminated text, which is copied.
        unsafe { rd::rd_kafka_oauthbearer_set_token_failure(rk, why.as_ptr()) };
    }
}

/// # Safety
/// `rk` is a live client.
unsafe fn set_token(rk: *mut rd::rd_kafka_t, token: &Token) -> Result<(), String> {
    let text = |text: &str| CString::new(text).map_err(|_| "the token contains a zero byte".to_owned());
    let (value, principal) = (text(&token.value)?, text(&token.principal)?);
    let extensions = token.extensions.iter().flat_map(|(name, value)| [text(name), text(value)]);
    let extensions = extensions.collect::<Result<Vec<_>, _>>()?;
    let mut pointers: Vec<*const c_char> = extensions.iter().map(|text| text.as_ptr()).collect();
    let mut error = [0; ERROR_TEXT_BYTES];
    // SAFETY: a live client, terminated texts that live during the call and are copied, and a buffer of the stated size,
    // which librdkafka terminates.
    unsafe {
        let answer = rd::rd_kafka_oauthbearer_set_token(
            rk,
            value.as_ptr(),
            token.ends,
            principal.as_ptr(),
            pointers.as_mut_ptr(),
            pointers.len(),
            error.as_mut_ptr(),
            ERROR_TEXT_BYTES,
        );
        match Code::from(answer) {
            Code::NoError => Ok(()),
            _ => Err(format!("the token cannot be used: {}", text_of(error.as_ptr()))),
        }
    }
}

unsafe extern "C" fn on_log(_: *const rd::rd_kafka_t, level: c_int, facility: *const c_char, text: *const c_char) {
    // SAFETY: librdkafka calls with terminated texts.
    let (facility, text) = unsafe { (text_of(facility), text_of(text)) };
    match level {
        ..=3 => tracing::error!(target: "kafka", facility, "{text}"),
        4 => tracing::warn!(target: "kafka", facility, "{text}"),
        5 | 6 => tracing::info!(target: "kafka", facility, "{text}"),
        _ => tracing::debug!(target: "kafka", facility, "{text}"),
    }
}
