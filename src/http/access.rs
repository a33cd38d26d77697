//! Access to single customers: requires the token.

use axum::Json;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use subtle::ConstantTimeEq;

use super::limit::TooMany;

/// Who may query single customers.
pub enum Access {
    /// No token is configured.
    Nobody,
    /// Requests with this token.
    Token(Token),
    /// The customers are simulated.
    Everybody,
}

impl Access {
    /// Access with the token; without one, no access.
    #[must_use]
    pub fn with_token(token: Option<&str>) -> Access {
        token.map_or(Access::Nobody, |token| Access::Token(Token(token.as_bytes().into())))
    }

    /// Whether the headers of a request grant access.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match self {
            Access::Nobody => Err(Refusal::Closed),
            Access::Everybody => Ok(()),
            Access::Token(token) => match bearer(headers) {
                None => Err(Refusal::Missing),
                Some(shown) if token.is(shown) => Ok(()),
                Some(_) => Err(Refusal::Wrong),
            },
        }
    }
}

/// A secret that cannot be printed.
pub struct Token(Box<[u8]>);

impl Token {
    /// Compares in constant time, so that the secret cannot be guessed byte by byte; its length is not secret.
    fn is(&self, shown: &[u8]) -> bool {
        self.0.ct_eq(shown).into()
    }
}

/// The token after `Bearer` in the only Authorization header; the scheme is case-insensitive (RFC 9110, 11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let value = all.next().filter(|_| all.next().is_none())?.as_bytes();
    let (scheme, shown) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| shown.trim_ascii())
}

/// Why access is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Closed,
    Missing,
    Wrong,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (error, hint) = match self {
            Refusal::Closed => {
                ("the API of single customers is closed, for no token is configured", "set http.token_file")
            }
            Refusal::Missing => ("no token was sent", "send the header Authorization: Bearer and the token"),
            Refusal::Wrong => ("the token is not valid", "send the content of the file that http.token_file names"),
        };
        let body = Json(json!({"error": error, "hint": hint}));
        // RFC 6750, section 3: include an error code only if a token was sent.
        match self {
            Refusal::Closed => (StatusCode::FORBIDDEN, body).into_response(),
            Refusal::Missing => unauthorized("Bearer realm=\"retentiond\"", body),
            Refusal::Wrong => unauthorized("Bearer realm=\"retentiond\", error=\"invalid_token\"", body),
        }
    }
}

/// Why a query for single customers is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    TooMany(TooMany),
    Refused(Refusal),
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        match self {
            Denied::TooMany(too_many) => too_many.into_response(),
            Denied::Refused(refusal) => refusal.into_response(),
        }
    }
}

fn unauthorized(challenge: &'static str, body: Json<serde_json::Value>) -> Response {
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(access: &Access, values: &[&str]) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        access.check(&headers)
    }

    #[test]
    fn the_whole_token_opens_and_nothing_else() {
        let access = Access::with_token(Some("hunter2"));
        for shown in ["Bearer hunter2", "bearer hunter2", "Bearer  hunter2 "] {
            assert_eq!(check(&access, &[shown]), Ok(()), "{shown}");
        }
        for shown in ["Bearer hunter", "Bearer hunter22", "Bearer Hunter2", "Bearer ", "Bearer hunter2 hunter2"] {
            assert_eq!(check(&access, &[shown]), Err(Refusal::Wrong), "{shown}");
        }
        for shown in [&[][..], &["Basic hunter2"], &["hunter2"], &["Bearer"], &["Bearer hunter2", "Bearer hunter2"]] {
            assert_eq!(check(&access, shown), Err(Refusal::Missing), "{shown:?}");
        }
    }

    #[test]
    fn without_a_token_access_is_denied_unless_it_is_open() {
        assert_eq!(check(&Access::with_token(None), &["Bearer "]), Err(Refusal::Closed));
        assert_eq!(check(&Access::Everybody, &[]), Ok(()));
    }
}
