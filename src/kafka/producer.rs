//! The producer without transactions: at least once, under the same options of security as every other client.

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

/// How long a full queue is waited for at a time.
const QUEUE_STEP: Duration = Duration::from_millis(100);

/// Why a record is not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whether it is for its size, which no further attempt changes.
    pub is_too_large: bool,
    /// What was said.
    pub text: String,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal { is_too_large: failure.code == Code::MessageSizeTooLarge, text: failure.text }
    }
}

/// An idempotent producer that places a key where Java's would.
pub struct PlainProducer(Arc<Handle>);

impl fmt::Debug for PlainProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainProducer")
    }
}

impl PlainProducer {
    /// A producer that talks to nobody before the first record.
    ///
    /// # Errors
    /// [`SourceError::Configuration`] when librdkafka refuses the settings.
    pub fn new(settings: &KafkaSettings) -> Result<PlainProducer, SourceError> {
        let handle = Handle::new_producer(settings.plain_producer()?);
        handle.map(PlainProducer).map_err(|text| SourceError::Configuration(format!("kafka: {text}")))
    }

    /// Queues a copy of a record, for which a full queue is waited for until `deadline`; `number` comes back with its refusal.
    ///
    /// # Errors
    /// When it is refused at once.
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
    /// When some are neither at the end of `wait`; what the brokers or the connection said lately says more than that.
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

    /// The numbers of the records that were refused since the last call, and why. Also of such that were forgotten.
    #[must_use]
    pub fn take_refused(&self) -> Vec<(usize, Refusal)> {
        self.0.take_refused().into_iter().map(|refused| (refused.number, refused.failure.into())).collect()
    }

    /// Gives up what is not delivered yet.
    pub fn forget(&self) {
        self.0.purge();
    }
}
