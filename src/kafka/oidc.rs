//! OAUTHBEARER with tokens of an OpenID provider, using client credentials (RFC 6749, section 4.4).
//!
//! The options have librdkafka's names. librdkafka would fetch tokens with libcurl, which this build omits; instead it
//! requests one through a callback, on its own thread, never where records are polled. All clients of the process with
//! the same credentials share a token.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;

use crate::event::wall_clock;
use crate::tls::Trust;

/// Timeout of a request to the provider.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// First and longest pause after a failed request. (librdkafka asks us every 10 s.)
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(30);
/// Limit for the size of an answer.
const ANSWER_BYTES: u64 = 1 << 20;
/// Limit for the provider's error text in messages.
const ERROR_CHARS: usize = 200;

const METHOD: &str = "sasl.oauthbearer.method";
const CLIENT_ID: &str = "sasl.oauthbearer.client.id";
const CLIENT_SECRET: &str = "sasl.oauthbearer.client.secret";
const URL: &str = "sasl.oauthbearer.token.endpoint.url";
const SCOPE: &str = "sasl.oauthbearer.scope";
const EXTENSIONS: &str = "sasl.oauthbearer.extensions";
const AUTHORITIES: &str = "https.ca.location";
const OURS: [&str; 7] = [METHOD, CLIENT_ID, CLIENT_SECRET, URL, SCOPE, EXTENSIONS, AUTHORITIES];

/// Whether this module reads the option, because librdkafka does not know it in this build.
pub(super) fn is_ours(option: &str) -> bool {
    option.starts_with("https.") || option.starts_with("sasl.oauthbearer.") && option != "sasl.oauthbearer.config"
}

/// Whether a mechanism is the one with tokens.
pub(super) fn is_named(mechanism: &str) -> bool {
    mechanism.eq_ignore_ascii_case("OAUTHBEARER")
}

/// A token provider.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Provider {
    url: String,
    client_id: String,
    client_secret: String,
    scope: Option<String>,
    /// SASL extensions (KIP-342), which brokers may require besides the token.
    extensions: Vec<(String, String)>,
    /// A PEM file with the trusted authorities, instead of the system's.
    authorities: Option<String>,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("url", &self.url).field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl Provider {
    /// Reads the options; `None` if they configure no provider. The error is the option and what is wrong with it.
    pub fn of(options: &BTreeMap<&str, &str>) -> Result<Option<Provider>, (String, String)> {
        let is_oidc = options.get(METHOD).is_some_and(|method| method.eq_ignore_ascii_case("oidc"));
        if let Some(mistake) = mistakes(options, is_oidc).into_iter().next() {
            return Err(mistake);
        }
        if !is_oidc {
            return Ok(None);
        }
        let text = |option| options.get(option).map(|value| (*value).to_owned());
        Ok(Some(Provider {
            url: text(URL).unwrap_or_default(),
            client_id: text(CLIENT_ID).unwrap_or_default(),
            client_secret: text(CLIENT_SECRET).unwrap_or_default(),
            scope: text(SCOPE),
            extensions: extensions(options.get(EXTENSIONS).copied().unwrap_or_default()).unwrap_or_default(),
            authorities: text(AUTHORITIES),
        }))
    }
}

/// Mistakes in the options of this module. `is_chosen`: whether clients log in with tokens.
pub(super) fn mistakes(options: &BTreeMap<&str, &str>, is_chosen: bool) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut wrong = |option: &str, what: String| found.push((option.to_owned(), what));
    let example = format!("write {METHOD} = \"oidc\" with {CLIENT_ID}, {CLIENT_SECRET}_file and {URL}");
    for option in options.keys().filter(|option| is_ours(option)) {
        if !OURS.contains(option) {
            wrong(option, format!("is not supported; {example}"));
        } else if *option == METHOD && !is_chosen {
            wrong(
                option,
                "is set, but no token is used; write sasl.mechanism = \"OAUTHBEARER\", or remove it".to_owned(),
            );
        }
    }
    if !is_chosen || options.get("enable.sasl.oauthbearer.unsecure.jwt").is_some_and(|value| *value == "true") {
        return found;
    }
    match options.get(METHOD) {
        Some(method) if method.eq_ignore_ascii_case("oidc") => {
            for needed in [CLIENT_ID, CLIENT_SECRET, URL].into_iter().filter(|option| !options.contains_key(option)) {
                let file = if needed == CLIENT_SECRET { ", or client.secret_file" } else { "" };
                found.push((needed.to_owned(), format!("is missing, which {METHOD} = \"oidc\" needs; write it{file}")));
            }
        }
        Some(method) => found.push((METHOD.to_owned(), format!("{method:?} is not supported; {example}"))),
        None => found.push((METHOD.to_owned(), format!("is missing, which OAUTHBEARER needs; {example}"))),
    }
    if let Some(url) = options.get(URL)
        && !["https://", "http://"].iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
    {
        found.push((URL.to_owned(), "is no web address; write such as \"https://login.example.com/token\"".to_owned()));
    }
    if options.get(EXTENSIONS).is_some_and(|text| extensions(text).is_none()) {
        found.push((
            EXTENSIONS.to_owned(),
            "is no list of names and values; write \"name=value,name=value\"".to_owned(),
        ));
    }
    found
}

/// Parses `name=value,name=value`; names consist of letters.
fn extensions(text: &str) -> Option<Vec<(String, String)>> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let legal = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic()) && !value.is_empty();
            legal.then(|| (name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// A token for brokers.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub value: String,
    /// The subject of the token.
    pub principal: String,
    /// Expiry in epoch milliseconds.
    pub ends: i64,
    /// SASL extensions sent with it.
    pub extensions: Vec<(String, String)>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("principal", &self.principal).field("ends", &self.ends).finish_non_exhaustive()
    }
}

/// The tokens of a provider: one at a time, fetched on request once the last one has passed half of its lifetime.
#[derive(Debug)]
pub(super) struct Tokens {
    provider: Provider,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last token, and when to fetch the next.
    token: Option<(Token, Instant)>,
    /// The last error, when to retry, and the pause after another failure.
    failure: Option<(String, Instant, Duration)>,
}

impl State {
    /// The answer that needs no request to the provider.
    fn answer(&self, now: Instant) -> Option<Result<Token, String>> {
        match (&self.token, &self.failure) {
            (Some((token, renew_at)), _) if now < *renew_at => Some(Ok(token.clone())),
            (_, Some((why, retry_at, _))) if now < *retry_at => Some(Err(why.clone())),
            _ => None,
        }
    }

    /// Records a result of the provider that arrived at `now`, `millis` by the wall clock.
    fn take(&mut self, fetched: Result<Token, String>, now: Instant, millis: i64) -> Result<Token, String> {
        match fetched {
            Ok(token) => {
                let life = Duration::from_millis(token.ends.saturating_sub(millis).max(0).unsigned_abs());
                self.failure = None;
                self.token = Some((token.clone(), now + life / 2));
                Ok(token)
            }
            Err(why) => {
                let pause = self.failure.as_ref().map_or(RETRY_FIRST, |(.., next)| *next);
                self.failure = Some((why.clone(), now + pause, (pause * 2).min(RETRY_MOST)));
                Err(why)
            }
        }
    }
}

impl Tokens {
    /// The tokens of a provider, shared by all callers.
    pub fn of(provider: Provider) -> Arc<Tokens> {
        static KNOWN: OnceLock<Mutex<Vec<Arc<Tokens>>>> = OnceLock::new();
        let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tokens) = known.iter().find(|tokens| tokens.provider == provider) {
            return Arc::clone(tokens);
        }
        let tokens = Arc::new(Tokens { provider, state: Mutex::default() });
        known.push(Arc::clone(&tokens));
        tokens
    }

    /// A token with at least half of its lifetime left. Asks the provider if there is none; concurrent callers wait,
    /// for a few seconds at most.
    ///
    /// # Errors
    /// Why there is no token. Neither result contains the secret.
    pub fn get(&self) -> Result<Token, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = state.answer(Instant::now()) {
            return answer;
        }
        let fetched = fetch(&self.provider);
        let (url, millis) = (&self.provider.url, wall_clock().millis());
        let is_news = state.failure.is_some() || state.token.is_none();
        match state.take(fetched, Instant::now(), millis) {
            Ok(token) => {
                let seconds = (token.ends - millis) / 1000;
                if is_news {
                    tracing::info!(target: "kafka", url, seconds, "got a token to log in with");
                } else {
                    tracing::debug!(target: "kafka", url, seconds, "got another token to log in with");
                }
                Ok(token)
            }
            Err(why) => {
                tracing::warn!(target: "kafka", "no token to log in with, will retry: {why}");
                Err(why)
            }
        }
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    /// Seconds.
    expires_in: Option<serde_json::Number>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Denied {
    error: String,
    error_description: String,
}

/// The claims of a token that we use (RFC 7519).
#[derive(Default, Deserialize)]
#[serde(default)]
struct Claims {
    sub: Option<String>,
    /// Seconds since the epoch.
    exp: Option<f64>,
}

/// Requests a token.
fn fetch(provider: &Provider) -> Result<Token, String> {
    let url = &provider.url;
    let begun = wall_clock().millis();
    let (status, body) = ask(provider).map_err(|why| format!("the token endpoint {url} does not answer: {why}"))?;
    if status != 200 {
        let denied: Denied = serde_json::from_str(&body).unwrap_or_default();
        let said = format!("{} {}", denied.error, denied.error_description).replace(&provider.client_secret, "***");
        let said: String = said.trim().chars().filter(|c| !c.is_control()).take(ERROR_CHARS).collect();
        let said = if said.is_empty() { said } else { format!(" ({said})") };
        let remedy = match status {
            429 | 503 => "it will be asked again".to_owned(),
            400 | 401 | 403 => format!("check {CLIENT_ID}, {CLIENT_SECRET} and {SCOPE} in [kafka.options]"),
            _ => format!("check {URL} in [kafka.options]"),
        };
        return Err(format!("the token endpoint {url} answers {status}{said}; {remedy}"));
    }
    let granted: Granted = serde_json::from_str(&body)
        .map_err(|_| format!("the token endpoint {url} did not return a token; check {URL} in [kafka.options]"))?;
    token(provider, granted, begun)
}

/// Reads the token from an answer that was requested at `asked`, in epoch milliseconds.
fn token(provider: &Provider, granted: Granted, asked: i64) -> Result<Token, String> {
    let claims = claims(&granted.access_token);
    // Relative to the request, so that the clocks of provider and machine need not agree.
    let from_now =
        granted.expires_in.and_then(|seconds| seconds.as_f64()).map(|seconds| asked as f64 + seconds * 1000.0);
    let ends = from_now.or(claims.exp.map(|seconds| seconds * 1000.0)).ok_or_else(|| {
        format!(
            "the token endpoint {} gives no lifetime of the token, neither as expires_in nor as the claim exp",
            provider.url
        )
    })?;
    Ok(Token {
        value: granted.access_token,
        principal: claims.sub.filter(|sub| !sub.is_empty()).unwrap_or_else(|| provider.client_id.clone()),
        ends: ends as i64,
        extensions: provider.extensions.clone(),
    })
}

/// The claims of a JWT; empty for other tokens. Only the broker verifies them.
fn claims(token: &str) -> Claims {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok());
    payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default()
}

/// The only function that speaks HTTP.
fn ask(provider: &Provider) -> Result<(u16, String), String> {
    let mut config = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_WAIT))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("retentiond/", env!("CARGO_PKG_VERSION")));
    if provider.url.starts_with("https://") {
        let trust = match &provider.authorities {
            None => Trust::of_system(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| format!("{AUTHORITIES}: {path}: {error}"))?;
                Trust::of_pem(&text).map_err(|wrong| format!("{AUTHORITIES}: {path}: {wrong}"))?
            }
        };
        config = config.tls_config(trust.config());
    }
    let agent: ureq::Agent = config.build().into();
    let scope = provider.scope.iter().map(|scope| format!("&scope={}", escaped(scope)));
    let body = format!("grant_type=client_credentials{}", scope.collect::<String>());
    let identity = format!("{}:{}", escaped(&provider.client_id), escaped(&provider.client_secret));
    let request = agent
        .post(&provider.url)
        .header("authorization", format!("Basic {}", STANDARD.encode(identity)))
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "application/json");
    let mut answer = request.send(&body).map_err(|error| error.to_string())?;
    let text =
        answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_string().map_err(|error| error.to_string())?;
    Ok((answer.status().as_u16(), text))
}

/// Encodes a form value (RFC 6749, appendix B).
fn escaped(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    value.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests;
