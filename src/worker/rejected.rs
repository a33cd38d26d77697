//! Rejected records of a batch.

use crate::decode::{Part, Rejection};

/// A rejected record: its index in the batch, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its index in the batch.
    pub index: usize,
    /// The reason.
    pub rejection: Rejection,
    /// Set if only one object of the record is rejected.
    pub part: Option<RejectedPart>,
}

/// A rejected object of a record with several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedPart {
    /// A message with this object alone.
    pub message: Box<[u8]>,
    /// The number of objects in the record.
    pub of: usize,
}

impl Rejected {
    /// Rejects a whole record.
    #[must_use]
    pub fn whole(index: usize, rejection: Rejection) -> Rejected {
        Rejected { index, rejection, part: None }
    }

    /// Rejects one object of a record.
    #[must_use]
    pub fn part(index: usize, part: &Part<'_>, rejection: &Rejection) -> Rejected {
        let (message, of) = (part.message.as_ref().into(), part.place.1);
        Rejected { index, rejection: part.locate(rejection), part: Some(RejectedPart { message, of }) }
    }
}
