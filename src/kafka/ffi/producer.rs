//! Producer calls of librdkafka, including transactions. `kafka/transactions.rs` interprets their errors.

use std::ffi::{CStr, CString, c_void};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::callbacks::Refused;
use super::{Failure, Handle, List, result_of, take_error, text_of, timeout};
use crate::bus::{GroupToken, Header};

/// Lets the partitioner choose the partition.
const UNASSIGNED: i32 = -1;

/// An error of the transactional interface.
#[derive(Debug)]
pub(in super::super) struct TransactionFailure {
    pub failure: Failure,
    /// The producer is unusable.
    pub is_fatal: bool,
    /// The transaction must be aborted.
    pub needs_abort: bool,
}

/// A message to send.
pub(in super::super) struct Message<'a> {
    pub topic: &'a CStr,
    /// `None` lets the partitioner decide.
    pub partition: Option<i32>,
    pub key: Option<&'a [u8]>,
    pub payload: Option<&'a [u8]>,
    pub headers: &'a [Header<'a>],
    /// Epoch milliseconds.
    pub time: Option<i64>,
}

impl Handle {
    pub fn init_transactions(&self, wait: Duration) -> Result<(), TransactionFailure> {
        // SAFETY: a live client; the error is freed by `take`.
        unsafe { take(rd::rd_kafka_init_transactions(self.rk, timeout(wait))) }
    }

    pub fn begin_transaction(&self) -> Result<(), TransactionFailure> {
        // SAFETY: as above.
        unsafe { take(rd::rd_kafka_begin_transaction(self.rk)) }
    }

    /// May take longer than `wait`: librdkafka passes the limit to its requests.
    pub fn send_offsets(&self, list: &List, token: &GroupToken, wait: Duration) -> Result<(), TransactionFailure> {
        let metadata = GroupMetadata::new(token)?;
        // SAFETY: a live client, a live list and live metadata, which are copied; the error is freed by `take`.
        unsafe { take(rd::rd_kafka_send_offsets_to_transaction(self.rk, list.0, metadata.0, timeout(wait))) }
    }

    pub fn commit_transaction(&self, wait: Duration) -> Result<(), TransactionFailure> {
        // SAFETY: a live client; the error is freed by `take`.
        unsafe { take(rd::rd_kafka_commit_transaction(self.rk, timeout(wait))) }
    }

    pub fn abort_transaction(&self, wait: Duration) -> Result<(), TransactionFailure> {
        // SAFETY: as above.
        unsafe { take(rd::rd_kafka_abort_transaction(self.rk, timeout(wait))) }
    }

    /// Waits until every message is delivered or refused.
    pub fn flush(&self, wait: Duration) -> Result<(), Failure> {
        // SAFETY: a live client.
        result_of(unsafe { rd::rd_kafka_flush(self.rk, timeout(wait)) })
    }

    /// The messages refused since the last call.
    pub fn take_refused(&self) -> Vec<Refused> {
        self.callbacks().take_refused()
    }

    /// Discards every queued or in-flight message; each is reported as refused.
    pub fn purge(&self) {
        let both = rd::RD_KAFKA_PURGE_F_QUEUE | rd::RD_KAFKA_PURGE_F_INFLIGHT;
        // SAFETY: a live client.
        unsafe { rd::rd_kafka_purge(self.rk, both) };
    }

    /// Serves delivery reports for at most `wait`.
    pub fn serve(&self, wait: Duration) {
        // SAFETY: a live client.
        unsafe { rd::rd_kafka_poll(self.rk, timeout(wait)) };
    }

    /// Queues a copy of a message; `number` is returned if it is refused.
    pub fn produce(&self, message: &Message<'_>, number: usize) -> Result<(), Failure> {
        use rd::rd_kafka_vtype_t as kind;
        let mut headers = Headers::new(message.headers)?;
        let bytes = |bytes: Option<&[u8]>| rd::rd_kafka_vu_s__bindgen_ty_1 {
            // An empty slice is an empty value, not an absent one: its pointer is not null.
            mem: rd::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
                ptr: bytes.map_or(ptr::null_mut(), |bytes| bytes.as_ptr().cast_mut().cast::<c_void>()),
                size: bytes.map_or(0, <[u8]>::len),
            },
        };
        type Value = rd::rd_kafka_vu_s__bindgen_ty_1;
        let arguments = [
            (kind::RD_KAFKA_VTYPE_TOPIC, Value { cstr: message.topic.as_ptr() }),
            (kind::RD_KAFKA_VTYPE_PARTITION, Value { i32_: message.partition.unwrap_or(UNASSIGNED) }),
            (kind::RD_KAFKA_VTYPE_MSGFLAGS, Value { i: rd::RD_KAFKA_MSG_F_COPY }),
            (kind::RD_KAFKA_VTYPE_KEY, bytes(message.key)),
            (kind::RD_KAFKA_VTYPE_VALUE, bytes(message.payload)),
            // Zero means now.
            (kind::RD_KAFKA_VTYPE_TIMESTAMP, Value { i64_: message.time.unwrap_or(0) }),
            (kind::RD_KAFKA_VTYPE_OPAQUE, Value { ptr: number as *mut c_void }),
            (kind::RD_KAFKA_VTYPE_HEADERS, Value { headers: headers.0 }),
        ];
        let arguments = arguments.map(|(vtype, u)| rd::rd_kafka_vu_t { vtype, u });
        // SAFETY: a live client and arguments of the kinds that they say they are, valid during the call: topic, key
        // and value are copied. The headers become librdkafka's unless the call fails.
        unsafe {
            take_error(rd::rd_kafka_produceva(self.rk, arguments.as_ptr(), arguments.len()))?;
        }
        headers.0 = ptr::null_mut();
        Ok(())
    }
}

/// Headers of a message; freed unless handed over to librdkafka.
struct Headers(*mut rd::rd_kafka_headers_t);

impl Headers {
    fn new(headers: &[Header<'_>]) -> Result<Headers, Failure> {
        let length = |bytes: &[u8]| isize::try_from(bytes.len()).unwrap_or(isize::MAX);
        // SAFETY: it ends the process rather than return null.
        let all = Headers(unsafe { rd::rd_kafka_headers_new(headers.len()) });
        for header in headers {
            let name = header.name.as_bytes();
            let (value, size) = match header.value {
                Some(value) => (value.as_ptr().cast::<c_void>(), length(value)),
                None => (ptr::null(), 0),
            };
            // SAFETY: live headers, and bytes of the stated lengths, which are copied.
            result_of(unsafe { rd::rd_kafka_header_add(all.0, name.as_ptr().cast(), length(name), value, size) })?;
        }
        Ok(all)
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: ours, since `Handle::produce` takes the pointer out when librdkafka takes the headers over.
            unsafe { rd::rd_kafka_headers_destroy(self.0) }
        }
    }
}

/// A [`GroupToken`] in librdkafka's form.
struct GroupMetadata(*mut rd::rd_kafka_consumer_group_metadata_t);

impl GroupMetadata {
    fn new(token: &GroupToken) -> Result<GroupMetadata, TransactionFailure> {
        let text = |text: &str| {
            CString::new(text).map_err(|_| TransactionFailure {
                failure: Failure { code: Code::InvalidArgument, text: "a name contains a zero byte".to_owned() },
                is_fatal: false,
                needs_abort: false,
            })
        };
        let (group, member) = (text(token.group_id())?, text(token.member_id())?);
        let instance = token.instance_id().map(text).transpose()?;
        let instance = instance.as_ref().map_or(ptr::null(), |instance| instance.as_ptr());
        // SAFETY: terminated strings, which are copied; the last may be null. It ends the process rather than return
        // null.
        Ok(GroupMetadata(unsafe {
            rd::rd_kafka_consumer_group_metadata_new_with_genid(
                group.as_ptr(),
                token.generation(),
                member.as_ptr(),
                instance,
            )
        }))
    }
}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        // SAFETY: ours, and not used afterwards.
        unsafe { rd::rd_kafka_consumer_group_metadata_destroy(self.0) }
    }
}

/// # Safety
/// `error` is null or ours.
unsafe fn take(error: *mut rd::rd_kafka_error_t) -> Result<(), TransactionFailure> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: a live error of ours; its text is copied before it is destroyed.
    unsafe {
        let failure = TransactionFailure {
            failure: Failure {
                code: Code::from(rd::rd_kafka_error_code(error)),
                text: text_of(rd::rd_kafka_error_string(error)),
            },
            is_fatal: rd::rd_kafka_error_is_fatal(error) != 0,
            needs_abort: rd::rd_kafka_error_txn_requires_abort(error) != 0,
        };
        rd::rd_kafka_error_destroy(error);
        Err(failure)
    }
}
