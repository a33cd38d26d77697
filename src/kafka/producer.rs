//! The producer without transactions: at-least-once delivery, with the same security options as every other client.

use std::ffi::CString;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode as Code;

use super::errors;
use super::ffi::{Failure, Handle, Message, Notice};
use super::settings::KafkaSettings;
use crate::bus::SourceError;
use crate::bus::transaction::Outgoing;

/// Wait between attempts while the queue is full.
const QUEUE_STEP: Duration = Duration::from_millis(100);

/// Why a record was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whether the record is too large, so that a retry cannot help.
    pub is_too_large: bool,
    /// The error of the client.
    pub text: String,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal { is_too_large: failure.code == Code::MessageSizeTooLarge, text: failure.text }
    }
}

/// An idempotent producer that uses the Java client's partitioner.
pub struct PlainProducer(Arc<Handle>);

impl fmt::Debug for PlainProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainProducer")
    }
}

impl PlainProducer {
    /// A producer that connects with the first record.
    ///
    /// # Errors
    /// [`SourceError::Configuration`] if librdkafka refuses the settings.
    pub fn new(settings: &KafkaSettings) -> Result<PlainProducer, SourceError> {
        let handle = Handle::new_producer(settings.plain_producer()?);
        handle.map(PlainProducer).map_err(|text| SourceError::Configuration(format!("kafka: {text}")))
    }

    /// Queues a copy of a record, waiting until `deadline` while the queue is full. `number` is returned if it is
    /// refused.
    ///
    /// # Errors
    /// If it is refused at once.
    pub fn send(&self, record: &Outgoing<'_>, number: usize, deadline: Instant) -> Result<(), Refusal> {
        let topic = CString::new(record.topic).map_err(|_| Refusal {
            is_too_large: false,
            text: "the name of the topic contains a zero byte".to_owned(),
        })?;
        let Outgoing { key, payload, headers, time, .. } = *record;
        let message = Message { topic: &topic, partition: None, key, payload, headers, time };
        loop {
            match self.0.produce(&message, number) {
                Err(failure) if failure.code == Code::QueueFull && Instant::now() < deadline => {
                    self.0.serve(QUEUE_STEP)
                }
                outcome => return outcome.map_err(Refusal::from),
            }
        }
    }

    /// Waits until every record is delivered or refused.
    ///
    /// # Errors
    /// If some are neither after `wait`. A recent error of brokers or connection is included, because it says more.
    pub fn flush(&self, wait: Duration) -> Result<(), Refusal> {
        let outcome = self.0.flush(wait);
        let mut reasons = self.0.take_notices().into_iter().rev().filter_map(|notice| match notice {
            Notice::Error(reason) if reason.code != Code::AllBrokersDown => Some(errors::explained(&reason)),
            Notice::Fatal(reason) => Some(reason.text),
            _ => None,
        });
        outcome.map_err(|failure| Refusal {
            is_too_large: false,
            text: reasons.next().map_or(failure.text.clone(), |reason| format!("{}: {reason}", failure.text)),
        })
    }

    /// The numbers and reasons of the records refused since the last call, including those dropped by `forget`.
    #[must_use]
    pub fn take_refused(&self) -> Vec<(usize, Refusal)> {
        self.0.take_refused().into_iter().map(|refused| (refused.number, refused.failure.into())).collect()
    }

    /// Drops the records that are not delivered yet.
    pub fn forget(&self) {
        self.0.purge();
    }
}
