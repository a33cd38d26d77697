//! The start of a page as text for URLs. It contains the previous page's last customer and that customer's rank, so
//! pages neither repeat nor miss customers whose rank does not change. It is valid on every replica.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::engine::lifecycle::Status;
use crate::engine::listing::ListPosition;
use crate::event::{Currency, Time};

/// The version of the text; cursors of other versions are rejected.
const VERSION: u8 = 1;
/// Maximum length of the text: ids have at most 255 bytes.
const LONGEST: usize = 4_096;

/// The start of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageCursor {
    pub status: Status,
    pub sort: String,
    pub currency: Option<Currency>,
    /// The instant of the first page.
    pub at: Time,
    pub after: ListPosition,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    v: u8,
    lapsed: bool,
    sort: String,
    /// The ISO code, and whether it is the reporting currency.
    currency: Option<(String, bool)>,
    at: i64,
    /// As text, because JSON numbers of this size are not exact everywhere.
    rank: String,
    id: String,
}

impl PageCursor {
    pub(super) fn to_text(&self) -> String {
        let text = Text {
            v: VERSION,
            lapsed: self.status == Status::Lapsed,
            sort: self.sort.clone(),
            currency: self.currency.map(|currency| (currency.iso_code().to_owned(), currency.is_reporting())),
            at: self.at.millis(),
            rank: self.after.rank.to_string(),
            id: self.after.id.clone(),
        };
        // Cannot fail: the struct contains only texts and numbers.
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&text).unwrap_or_default())
    }

    /// Parses a cursor; `None` for anything that [`PageCursor::to_text`] did not write.
    pub(super) fn parse(text: &str) -> Option<PageCursor> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(Some(text).filter(|text| text.len() <= LONGEST)?).ok()?;
        let text: Text = serde_json::from_slice(&bytes).ok()?;
        let currency = match &text.currency {
            None => None,
            Some((code, false)) => Some(Currency::from_code(code).ok()?),
            Some((code, true)) => Some(Currency::from_code(code).ok()?.as_reporting()),
        };
        (text.v == VERSION).then_some(PageCursor {
            status: if text.lapsed { Status::Lapsed } else { Status::AtRisk },
            sort: text.sort,
            currency,
            at: Time::from_millis(text.at).ok()?,
            after: ListPosition { rank: text.rank.parse().ok()?, id: text.id },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read_back(id in "\\PC{1,60}", rank in any::<i128>(), at in 0..4_000_000_000_000_i64,
                                         currency in prop::option::of((0..3_usize, any::<bool>())), lapsed in any::<bool>()) {
            let currency = currency.map(|(code, reporting)| {
                let currency = Currency::from_code(["EUR", "JPY", "KWD"][code]).unwrap();
                if reporting { currency.as_reporting() } else { currency }
            });
            let status = if lapsed { Status::Lapsed } else { Status::AtRisk };
            let cursor = PageCursor { status, sort: "value".into(), currency, at: Time::clamped(at), after: ListPosition { rank, id } };
            let text = cursor.to_text();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{text}");
            prop_assert_eq!(PageCursor::parse(&text), Some(cursor));
            prop_assert_eq!(PageCursor::parse(&text[..text.len() - 1]), None);
        }

        #[test]
        fn anything_else_is_refused(text in "\\PC{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(PageCursor::parse(&text), None);
            prop_assert_eq!(PageCursor::parse(&BASE64_URL_SAFE_NO_PAD.encode(bytes)), None);
        }
    }
}
