//! Recently sent alerts and win-backs, as in `/api/v1/alerts`: JSON and CSV.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::event::Time;
use crate::output::alerts::{INACTIVE, WON_BACK};
use crate::status::sent::SentAlert;

/// One page of sent messages, newest first.
#[derive(Debug, Clone, Serialize)]
pub struct AlertList {
    /// The list is complete since then: the start of this replica, or its oldest kept message.
    pub since: Time,
    /// Cursor of the next page; null on the last one.
    pub next_cursor: Option<String>,
    /// How many customers of this page are omitted because they have no record here: erased, or moved to another
    /// replica.
    pub withheld: usize,
    /// The messages.
    pub alerts: Vec<AlertEntry>,
}

/// A sent message.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AlertEntry {
    /// When it was committed.
    pub sent_at: Time,
    /// The id of the message.
    pub id: String,
    /// `inactive` or `winback`.
    pub r#type: &'static str,
    /// The content of the message: see docs/schema/alert.json.
    #[serde(flatten)]
    pub data: Map<String, Value>,
}

impl AlertEntry {
    /// Parses a sent message; `None` if this version would not write it.
    #[must_use]
    pub fn read(sent: &SentAlert) -> Option<AlertEntry> {
        #[derive(Deserialize)]
        struct Message {
            id: String,
            r#type: String,
            data: Map<String, Value>,
        }
        let message: Message = serde_json::from_slice(&sent.message).ok()?;
        let kind = match message.r#type.as_str() {
            INACTIVE => "inactive",
            WON_BACK => "winback",
            _ => return None,
        };
        Some(AlertEntry { sent_at: sent.at, id: message.id, r#type: kind, data: message.data })
    }

    /// A field of the message as text; empty if absent.
    #[must_use]
    pub fn text(&self, field: &str) -> String {
        match self.data.get(field) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Object(amounts)) => {
                let amount =
                    |(currency, sum): (&String, &Value)| format!("{} {currency}", sum.as_str().unwrap_or_default());
                amounts.iter().map(amount).collect::<Vec<_>>().join("; ")
            }
            Some(other) => other.to_string(),
        }
    }
}

/// The fields that have columns, in order.
const COLUMNS: [&str; 11] = [
    "customer_id",
    "rule",
    "silent_since",
    "due_at",
    "ordered_at",
    "orders",
    "stage",
    "status",
    "complained",
    "risk",
    "revenue",
];

impl AlertList {
    /// The messages of this page as CSV (RFC 4180) with a header.
    ///
    /// # Errors
    /// When a field cannot be written.
    pub fn csv(&self) -> Result<Vec<u8>, csv::Error> {
        let mut table = csv::Writer::from_writer(Vec::new());
        table.write_record(["sent_at", "type", "id"].into_iter().chain(COLUMNS))?;
        for alert in &self.alerts {
            let own = [alert.sent_at.to_string(), alert.r#type.to_owned(), alert.id.clone()];
            table.write_record(own.into_iter().chain(COLUMNS.map(|field| alert.text(field))))?;
        }
        table.into_inner().map_err(|error| csv::Error::from(error.into_error()))
    }
}
