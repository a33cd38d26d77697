//! One attempt: a POST of an unchanged message with the headers of Standard Webhooks.

use std::sync::Arc;
use std::time::Duration;

use ureq::unversioned::transport::DefaultConnector;

use super::address::{Forbidden, Guard};
use super::policy::{Outcome, retry_after};
use super::signature::Keys;
use crate::event::wall_clock;
use crate::tls::Trust;

/// How much of a response is read, so that the connection can be reused.
const ANSWER_BYTES: u64 = 1 << 16;
/// The media type of alerts.
const CONTENT_TYPE: &str = "application/cloudevents+json";

/// Where alerts are posted. Clones share connections.
#[derive(Clone)]
pub struct Endpoint {
    agent: ureq::Agent,
    url: Arc<str>,
    keys: Keys,
}

/// The message of one attempt.
#[derive(Debug, Clone, Copy)]
pub struct Post<'a> {
    /// The event id.
    pub id: &'a str,
    /// The media type; CloudEvents when absent.
    pub content_type: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
}

impl Endpoint {
    /// An endpoint at a URL; does not connect yet. `timeout` covers a whole attempt including name resolution.
    /// Certificates are checked against the system's trust store (`SSL_CERT_FILE` overrides it).
    #[must_use]
    pub fn new(url: &str, keys: Keys, timeout: Duration, allow_private: bool) -> Endpoint {
        let guard = Guard {
            allow_private,
            #[cfg(test)]
            resolve_to: None,
        };
        Endpoint::guarded(url, keys, timeout, guard, Trust::of_system)
    }

    fn guarded(url: &str, keys: Keys, timeout: Duration, guard: Guard, trust: impl FnOnce() -> Trust) -> Endpoint {
        let mut config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // A proxy would resolve the name itself and so bypass the guard.
            .proxy(None)
            .max_idle_connections_per_host(16)
            .user_agent(concat!("retentiond/", env!("CARGO_PKG_VERSION")));
        if url.starts_with("https://") {
            config = config.tls_config(trust().config());
        }
        let agent = ureq::Agent::with_parts(config.build(), DefaultConnector::default(), guard);
        Endpoint { agent, url: url.into(), keys }
    }

    /// Posts and waits for the outcome. Every attempt gets its own signature, with the time of the attempt.
    #[must_use]
    pub fn post(&self, post: &Post<'_>) -> Outcome {
        let now = wall_clock().millis() / 1000;
        let request = self
            .agent
            .post(&*self.url)
            .header("content-type", post.content_type.unwrap_or(CONTENT_TYPE))
            .header("webhook-id", post.id)
            .header("webhook-timestamp", now.to_string())
            .header("webhook-signature", self.keys.sign(post.id, now, post.body));
        match request.send(post.body) {
            Ok(mut answer) => {
                let asked = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
                let asked = asked.and_then(|value| retry_after(value, now.unsigned_abs()));
                // Drain the body so that the connection can be reused; one beyond the limit closes it.
                _ = answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_vec();
                Outcome::Answered { status: answer.status().as_u16(), retry_after: asked }
            }
            Err(ureq::Error::Timeout(_)) => Outcome::TimedOut,
            Err(ureq::Error::Io(error)) if error.get_ref().is_some_and(|inner| inner.is::<Forbidden>()) => {
                Outcome::Forbidden(error.to_string())
            }
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
