//! HTTP client of a schema registry.
//!
//! See <https://docs.confluent.io/platform/current/schema-registry/develop/api.html>; other registries offer the same
//! API.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::decode::{SchemaId, SchemaText};
use crate::tls::Trust;

/// Limit for the schemas that one schema references, directly and indirectly.
const MAX_REFERENCES: usize = 100;

/// Credentials for the registry.
#[derive(Clone, Default)]
pub enum Access {
    /// No authentication.
    #[default]
    Open,
    /// The value of the Authorization header.
    Header(String),
}

impl Access {
    /// HTTP basic authentication.
    #[must_use]
    pub fn basic(user: &str, password: &str) -> Access {
        Access::Header(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }

    /// Bearer token authentication.
    #[must_use]
    pub fn bearer(token: &str) -> Access {
        Access::Header(format!("Bearer {token}"))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Access::Header(_)) { "***" } else { "none" })
    }
}

/// A client of one registry.
#[derive(Debug, Clone)]
pub struct Client {
    url: String,
    access: Access,
    agent: ureq::Agent,
}

/// Why a schema could not be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FetchError {
    /// The registry does not have it.
    Unknown(String),
    /// The registry did not answer; retry.
    Unavailable(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    schema: String,
    #[serde(default)]
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: i64,
}

impl Client {
    /// A client for the registry at `url`; a request may take `timeout`. `trust` is called only if the URL uses TLS.
    #[must_use]
    pub fn new(url: &str, access: Access, timeout: Duration, trust: impl FnOnce() -> Trust) -> Client {
        let mut config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent("retentiond");
        if url.starts_with("https://") {
            config = config.tls_config(trust().config());
        }
        Client { url: url.trim_end_matches('/').to_owned(), access, agent: config.build().into() }
    }

    pub(super) fn schema(&self, id: SchemaId) -> Result<SchemaText, FetchError> {
        let answer = self.ask(&match id {
            SchemaId::Number(number) => format!("/schemas/ids/{number}"),
            SchemaId::Guid(_) => format!("/schemas/guids/{id}"),
        })?;
        let mut references = Vec::new();
        self.follow(&answer, &mut BTreeSet::new(), &mut references)?;
        let kind = answer.schema_type.unwrap_or_else(|| "AVRO".to_owned());
        Ok(SchemaText { kind, text: answer.schema, references })
    }

    /// Fetches the schemas that a schema references, dependencies first.
    fn follow(
        &self,
        answer: &Answer,
        seen: &mut BTreeSet<String>,
        found: &mut Vec<(String, String)>,
    ) -> Result<(), FetchError> {
        for reference in &answer.references {
            if !seen.insert(reference.name.clone()) {
                continue;
            }
            if seen.len() > MAX_REFERENCES {
                return Err(FetchError::Unknown(format!("it refers to more than {MAX_REFERENCES} others")));
            }
            let subject = escaped(&reference.subject);
            let inner = self.ask(&format!("/subjects/{subject}/versions/{}", reference.version))?;
            self.follow(&inner, seen, found)?;
            found.push((reference.name.clone(), inner.schema));
        }
        Ok(())
    }

    fn ask(&self, path: &str) -> Result<Answer, FetchError> {
        let (status, body) = self.get(path).map_err(|why| FetchError::Unavailable(format!("{}: {why}", self.url)))?;
        match status {
            200 => serde_json::from_str(&body).map_err(|_| {
                FetchError::Unavailable(format!("{}{path} did not return a schema; is it a schema registry?", self.url))
            }),
            404 => Err(FetchError::Unknown(format!("{} does not have it", self.url))),
            401 | 403 => Err(FetchError::Unavailable(format!(
                "{} answers {status}; set schema_registry.user and password_file, or token_file",
                self.url
            ))),
            other => Err(FetchError::Unavailable(format!("{} answers {other}", self.url))),
        }
    }

    /// The only function that speaks HTTP: returns status and body of a GET request.
    fn get(&self, path: &str) -> Result<(u16, String), ureq::Error> {
        let mut request =
            self.agent.get(format!("{}{path}", self.url)).header("Accept", "application/vnd.schemaregistry.v1+json");
        if let Access::Header(proof) = &self.access {
            request = request.header("Authorization", proof);
        }
        let mut answer = request.call()?;
        Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
    }
}

/// Percent-encodes a subject for use in a path.
fn escaped(subject: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    subject.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
