//! The web page. Its few files are embedded in the binary; it contacts only this daemon and gets all figures from the
//! API.

use axum::http::HeaderName;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::IntoResponse;

/// Allows only our own style, script and API; no form targets, no framing. The page inserts API data only as text, so
/// this is the second line of defence.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn document() -> impl IntoResponse {
    file("text/html; charset=utf-8", include_str!("page/index.html"))
}

pub(super) async fn style() -> impl IntoResponse {
    file("text/css; charset=utf-8", include_str!("page/style.css"))
}

pub(super) async fn script() -> impl IntoResponse {
    // One file for the browser, split for readers of the code.
    file(
        "text/javascript; charset=utf-8",
        concat!(include_str!("page/draw.js"), include_str!("page/lists.js"), include_str!("page/app.js")),
    )
}

/// Browsers must revalidate, so that the page always fits the API.
pub(super) fn file(content_type: &'static str, text: &'static str) -> ([(HeaderName, &'static str); 5], &'static str) {
    let headers = [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-cache"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text)
}
