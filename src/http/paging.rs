//! Shared by all lists: page length, JSON or CSV, and the link to the next page.

use std::fmt::Write as _;

use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, LINK};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::routes::Failure;

/// Maximum and default number of entries per page.
const MOST: usize = 10_000;
const USUAL: usize = 100;

/// The format of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Csv,
}

impl Format {
    pub(super) fn parse(text: Option<&str>) -> Result<Format, String> {
        match text {
            None | Some("json") => Ok(Format::Json),
            Some("csv") => Ok(Format::Csv),
            Some(other) => Err(format!("format {other:?} does not exist; write json or csv")),
        }
    }
}

/// The number of entries on the page.
pub(super) fn page_size(limit: Option<usize>) -> Result<usize, String> {
    let limit = limit.unwrap_or(USUAL);
    if (1..=MOST).contains(&limit) { Ok(limit) } else { Err(format!("limit {limit} is not from 1 to {MOST}")) }
}

/// A CSV file with this name.
pub(super) fn csv(text: Result<Vec<u8>, csv::Error>, name: &str) -> Result<Response, Failure> {
    let text = text.map_err(|error| Failure {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        error: format!("cannot write the list as CSV: {error}"),
        hint: Some("this is a bug of retentiond; please report it".to_owned()),
    })?;
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.csv\"")),
    ];
    Ok((headers, text).into_response())
}

/// Adds the link to the next page, if there is one (RFC 8288). It is relative to the request, so that it works behind a
/// proxy; `query` are the parameters to repeat.
pub(super) fn with_next(mut response: Response, next: Option<&str>, query: &[(&str, &str)]) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(next) = next {
        let mut link = format!("<?cursor={next}");
        for (name, value) in query {
            _ = write!(link, "&{name}={}", escaped(value));
        }
        link.push_str(">; rel=\"next\"");
        // Plain ASCII, so it is a valid header.
        headers.extend(HeaderValue::try_from(link).ok().map(|link| (LINK, link)));
    }
    response
}

/// Percent-encodes a text for a URL.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
