//! Lists of topic-partitions, with the results that librdkafka writes into them.

use std::ffi::{CStr, c_int};
use std::{ptr, slice};

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaErrorCode as Code;

/// A list of topic-partitions with offsets.
pub(in super::super) struct List(pub(super) *mut rd::rd_kafka_topic_partition_list_t);

// SAFETY: only its owner uses it, and it belongs to no client.
unsafe impl Send for List {}

/// One entry of a [`List`].
pub(in super::super) struct Entry<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub metadata: Option<&'a [u8]>,
    pub code: Code,
}

impl List {
    pub fn with_capacity(capacity: usize) -> List {
        // SAFETY: it ends the process rather than return null.
        List(unsafe { rd::rd_kafka_topic_partition_list_new(c_int::try_from(capacity).unwrap_or(0)) })
    }

    pub fn add(&mut self, topic: &CStr, partition: i32, offset: i64) {
        // SAFETY: a live list and a terminated string, which is copied; the new element is valid until the next `add`.
        unsafe { (*rd::rd_kafka_topic_partition_list_add(self.0, topic.as_ptr(), partition)).offset = offset }
    }

    /// As [`List::add`], with the metadata of the offset.
    pub fn add_with_metadata(&mut self, topic: &CStr, partition: i32, offset: i64, metadata: &[u8]) {
        self.add(topic, partition, offset);
        if metadata.is_empty() {
            return; // librdkafka sends absent metadata as an empty string
        }
        // SAFETY: the list is live and its last element is the one just added, whose metadata is null. The bytes come
        // from librdkafka's own allocator, since the list frees them; it ends the process rather than return null.
        unsafe {
            let bytes = rd::rd_kafka_mem_malloc(ptr::null_mut(), metadata.len());
            ptr::copy_nonoverlapping(metadata.as_ptr(), bytes.cast::<u8>(), metadata.len());
            let last = usize::try_from((*self.0).cnt).unwrap_or(1) - 1;
            let element = &mut *(*self.0).elems.add(last);
            element.metadata = bytes;
            element.metadata_size = metadata.len();
        }
    }

    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        // SAFETY: a live list, borrowed for as long as the entries are.
        unsafe { entries_of(self.0) }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: ours, and not used afterwards.
        unsafe { rd::rd_kafka_topic_partition_list_destroy(self.0) }
    }
}

/// The entries of a list.
///
/// # Safety
/// `list` is null or lives, unchanged, for `'a`.
pub(super) unsafe fn entries_of<'a>(
    list: *const rd::rd_kafka_topic_partition_list_t,
) -> impl Iterator<Item = Entry<'a>> {
    let elements: &'a [rd::rd_kafka_topic_partition_t] = if list.is_null() {
        &[]
    } else {
        // SAFETY: `elems` points to `cnt` elements; it may be null only when there are none.
        unsafe {
            match usize::try_from((*list).cnt) {
                Ok(count) if count > 0 => slice::from_raw_parts((*list).elems, count),
                _ => &[],
            }
        }
    };
    elements.iter().map(|element| Entry {
        // SAFETY: the topic is a terminated string that lives as long as the list.
        topic: unsafe { CStr::from_ptr(element.topic) }.to_str().unwrap_or_default(),
        partition: element.partition,
        offset: element.offset,
        // SAFETY: the metadata belongs to the list and has the stated size.
        metadata: (!element.metadata.is_null())
            .then(|| unsafe { slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size) }),
        code: Code::from(element.err),
    })
}
