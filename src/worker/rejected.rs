//! What of a batch of records enters no figure.

use crate::decode::{Part, Rejection};

/// A record that enters no figure: its place in the batch and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its index in the batch.
    pub index: usize,
    /// Why.
    pub rejection: Rejection,
    /// Where only one object of it is rejected.
    pub part: Option<RejectedPart>,
}

/// One rejected object of a record that holds several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedPart {
    /// A message that holds this object alone.
    pub message: Box<[u8]>,
    /// How many objects the record holds.
    pub of: usize,
}

impl Rejected {
    /// A record that is rejected as a whole.
    #[must_use]
    pub fn whole(index: usize, rejection: Rejection) -> Rejected {
        Rejected { index, rejection, part: None }
    }

    /// One object of a record.
    #[must_use]
    pub fn part(index: usize, part: &Part<'_>, rejection: &Rejection) -> Rejected {
        let (message, of) = (part.message.as_ref().into(), part.place.1);
        Rejected { index, rejection: part.locate(rejection), part: Some(RejectedPart { message, of }) }
    }
}
