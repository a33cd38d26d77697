//! `retentiond explain`: explains one customer's figures through a running daemon.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Map, Value};

use super::ConfigFile;
use super::explain_event::EventQuestion;
use crate::config::{Secret, Settings};

/// Timeout for the daemon's answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The default address of a daemon.
const DEFAULT_URL: &str = "http://127.0.0.1:9736";

/// Tell what is known of one customer, or with --event what a message means. Of a customer: record, figures, stage and
/// status with their reasons, and what comes next. Exit 66: no such customer; 69: no answer, or another replica owns
/// the customer; 77: the token is missing or wrong.
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// The customer id.
    #[arg(value_name = "CUSTOMER", required_unless_present = "event", conflicts_with = "event")]
    customer: Option<String>,
    /// Where the daemon answers [default: http.listen of --config, else http://127.0.0.1:9736].
    #[arg(long, value_name = "URL", conflicts_with = "event")]
    url: Option<String>,
    /// File with the token of the daemon's API [default: http.token_file of --config].
    #[arg(long, value_name = "FILE", conflicts_with = "event")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
    /// Print the daemon's answer as it is.
    #[arg(long, conflicts_with = "event")]
    json: bool,
    #[command(flatten)]
    message: EventQuestion,
}

/// Why a customer cannot be explained. No text contains the customer id.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExplainError {
    #[error("no customer with that id is known; ids are case-sensitive, and an erased customer has no record")]
    Unknown,
    #[error("{0}. Ask that one: --url")]
    Elsewhere(String),
    #[error("{0}")]
    NotPermitted(String),
    #[error("no answer from {url}: {why}; is the daemon running, and is --url right?")]
    Unreachable { url: String, why: String },
    #[error("{url} answered {status}: {why}")]
    Refused { url: String, status: u16, why: String },
}

impl ExplainError {
    /// As sysexits.h names them.
    pub(super) fn code(&self) -> u8 {
        match self {
            ExplainError::Unknown => 66,                                         // EX_NOINPUT
            ExplainError::Elsewhere(_) | ExplainError::Unreachable { .. } => 69, // EX_UNAVAILABLE
            ExplainError::NotPermitted(_) => 77,                                 // EX_NOPERM
            ExplainError::Refused { .. } => 1,
        }
    }
}

impl Explain {
    pub(super) fn run(self) -> Result<()> {
        let Some(customer) = self.customer else { return self.message.run(&self.config) };
        let settings = match self.config.path() {
            None => None,
            path => Some(Settings::load_without_secrets(path, std::env::vars())?),
        };
        let listen = settings.as_ref().map(|settings| settings.http.listen);
        let url = self.url.clone().or_else(|| {
            listen.map(|mut address| {
                if address.ip().is_unspecified() {
                    address.set_ip(match address.ip() {
                        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
                    });
                }
                format!("http://{address}")
            })
        });
        let url = url.unwrap_or_else(|| DEFAULT_URL.to_owned());
        let token_file = self.token_file.clone().or_else(|| settings.and_then(|settings| settings.http.token_file));
        let token = token_file.map(|path| Secret::read(&path)).transpose().map_err(ExplainError::NotPermitted)?;
        let answer = ask(url.trim_end_matches('/'), &customer, token.as_ref())?;
        super::print(&if self.json { answer.to_string() } else { render(&answer) });
        Ok(())
    }
}

/// What the daemon at the URL says of the customer.
fn ask(url: &str, customer: &str, token: Option<&Secret>) -> Result<Value, ExplainError> {
    let unreachable = |why: String| ExplainError::Unreachable { url: url.to_owned(), why };
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        // The token must not wander.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .build()
        .new_agent();
    let mut request = agent.get(format!("{url}/api/v1/customers/{}", escaped(customer)));
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {}", token.reveal()));
    }
    let mut response = request.call().map_err(|error| match error {
        ureq::Error::Io(error) => unreachable(error.to_string()),
        ureq::Error::Timeout(_) => unreachable(format!("nothing within {} s", PATIENCE.as_secs())),
        ureq::Error::Tls(_) | ureq::Error::TlsRequired => unreachable("only http is spoken here".to_owned()),
        _ => unreachable("this is no address of a daemon".to_owned()),
    })?;
    let status = response.status().as_u16();
    let body = response.body_mut().read_to_string().map_err(|error| unreachable(error.to_string()))?;
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    match status {
        200 => Ok(body),
        401 | 403 => Err(ExplainError::NotPermitted(format!("{}; {}", text("error"), text("hint")))),
        404 if body["error"].is_string() => Err(ExplainError::Unknown),
        421 => Err(ExplainError::Elsewhere(text("error"))),
        _ => Err(ExplainError::Refused { url: url.to_owned(), status, why: text("error") }),
    }
}

/// The id as a part of a path (RFC 3986, section 2.3).
fn escaped(id: &str) -> String {
    let mut path = String::new();
    for byte in id.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => path.push(char::from(byte)),
            // A lone dot would be taken for a step in the path.
            _ => _ = write!(path, "%{byte:02X}"),
        }
    }
    path
}

/// The fields that are explained in words; other fields, from daemons of other versions, are listed unchanged.
const TOLD: [&str; 17] = [
    "id",
    "stage",
    "status",
    "as_of",
    "at_risk_at",
    "lapses_at",
    "first_order",
    "last_order",
    "orders",
    "sessions",
    "last_session",
    "referred",
    "complained",
    "segments",
    "currencies",
    "deadlines",
    "replica",
];

fn render(answer: &Value) -> String {
    let Some(fields) = answer.as_object() else { return answer.to_string() };
    let text = |name: &str| fields.get(name).map(plain).unwrap_or_default();
    let mut out = format!("customer {} as of {}\n\n", text("id"), text("as_of"));
    let mut line = |name: &str, told: String| _ = writeln!(out, "  {name:<14}{told}");
    line("stage", format!("{}: {}", text("stage"), stage_reason(fields)));
    line("status", format!("{}: {}", text("status"), status_reason(fields)));
    if fields.get("first_order").is_some_and(Value::is_string) {
        line(
            "orders",
            format!("{}, the first {}, the last {}", text("orders"), text("first_order"), text("last_order")),
        );
    } else {
        line("orders", "none".to_owned());
    }
    match fields.get("last_session").is_some_and(Value::is_string) {
        true => line("sessions", format!("{}, the last {}", text("sessions"), text("last_session"))),
        false => line("sessions", "none".to_owned()),
    }
    for (currency, money) in fields.get("currencies").and_then(Value::as_object).into_iter().flatten() {
        let clv = match &money["clv"] {
            Value::Null => "none yet (it takes two orders, and the window clv.window)".to_owned(),
            clv => plain(clv),
        };
        line("money", format!("{currency} {} net to date, lifetime value {clv}", plain(&money["net_revenue"])));
    }
    for (dimension, value) in fields.get("segments").and_then(Value::as_object).into_iter().flatten() {
        line("segment", format!("{dimension} = {}, from the earliest order", plain(value)));
    }
    for (name, told) in [("referred", "somebody referred the customer"), ("complained", "there is a complaint")] {
        if fields.get(name) == Some(&Value::Bool(true)) {
            line(name, format!("yes, {told}"));
        }
    }
    let next = what_comes(fields);
    if !next.is_empty() {
        out.push_str("\nwithout a further order or session\n");
        next.iter().for_each(|line| _ = writeln!(out, "  {line}"));
    }
    if fields.contains_key("replica") {
        _ = writeln!(out, "\nanswered by the replica {}", text("replica"));
    }
    let further = fields.iter().filter(|(name, _)| !TOLD.contains(&name.as_str()));
    for (name, value) in further {
        _ = writeln!(out, "\n{name}");
        list(&mut out, value, 1);
    }
    out
}

/// What comes if nothing happens, in the order of time.
fn what_comes(fields: &Map<String, Value>) -> Vec<String> {
    let time = |value: &Value| value.as_str().map(str::to_owned);
    let as_of = fields.get("as_of").and_then(time).unwrap_or_default();
    let mut next: Vec<(String, String)> = Vec::new();
    for (name, what) in [("at_risk_at", "at risk"), ("lapses_at", "lapsed")] {
        // Instants are written alike, so that their order is that of the texts.
        next.extend(fields.get(name).and_then(time).filter(|at| *at > as_of).map(|at| (at, what.to_owned())));
    }
    for deadline in fields.get("deadlines").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| plain(&deadline[name]);
        let alert = match deadline["held_out"] {
            Value::Bool(true) => "no alert, for the customer belongs to the hold-out group".to_owned(),
            _ => format!("the alert is decided once time has passed {}", text("decided_at")),
        };
        let what = format!("silent by the rule {:?}, since {}; {alert}", text("rule"), text("silent_since"));
        next.push((text("due_at"), what));
    }
    next.sort();
    next.into_iter().map(|(at, what)| format!("{at}  {what}")).collect()
}

fn stage_reason(fields: &Map<String, Value>) -> String {
    let orders = fields.get("orders").and_then(Value::as_u64).unwrap_or(0);
    match fields.get("stage").and_then(Value::as_str) {
        Some("prospect") => "seen, and no order".to_owned(),
        Some("new") => "one order".to_owned(),
        Some("repeat") => format!("{orders} orders; loyal from customers.loyal_orders on, and not while lapsed"),
        Some("loyal") => format!("{orders} orders, at least customers.loyal_orders, and not lapsed"),
        _ => "this version does not know why".to_owned(),
    }
}

fn status_reason(fields: &Map<String, Value>) -> String {
    let text = |name: &str| fields.get(name).map(plain).unwrap_or_default();
    match fields.get("status").and_then(Value::as_str) {
        Some("none") => "whoever never ordered has none".to_owned(),
        Some("active") => format!(
            "ordered lately; without an order at risk from {}, lapsed from {}",
            text("at_risk_at"),
            text("lapses_at")
        ),
        Some("at_risk") => format!(
            "silent for longer than usual since {}; without an order lapsed from {}",
            text("at_risk_at"),
            text("lapses_at")
        ),
        Some("lapsed") => format!("no order within customers.active_for, since {}", text("lapses_at")),
        _ => "this version does not know why".to_owned(),
    }
}

/// A text without its quotes, anything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Anything, one value a line.
fn list(out: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Object(fields) => {
                        let parts: Vec<_> =
                            fields.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
                        _ = writeln!(out, "{indent}{}", parts.join(", "));
                    }
                    other => _ = writeln!(out, "{indent}{}", plain(other)),
                }
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::Object(_) | Value::Array(_) => {
                        _ = writeln!(out, "{indent}{name}");
                        list(out, value, depth + 1);
                    }
                    other => _ = writeln!(out, "{indent}{name} {}", plain(other)),
                }
            }
        }
        other => _ = writeln!(out, "{indent}{}", plain(other)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn says_what_is_known_and_why_and_lists_what_it_does_not_know() {
        let text = render(&json!({
            "id": "c-1", "stage": "repeat", "status": "at_risk", "as_of": "2026-05-02T00:00:00.000Z",
            "at_risk_at": "2026-04-28T00:00:00.000Z", "lapses_at": "2026-07-24T00:00:00.000Z",
            "first_order": "2025-12-20T00:00:00.000Z", "last_order": "2026-04-25T00:00:00.000Z", "orders": 3, "sessions": 0,
            "last_session": null, "referred": false, "complained": true, "segments": {"channel": "web"},
            "currencies": {"EUR": {"net_revenue": "80.50", "clv": null}},
            "deadlines": [
                {"rule": "late", "silent_since": "2026-04-25T00:00:00.000Z", "due_at": "2026-08-01T00:00:00.000Z",
                 "decided_at": "2026-08-02T00:00:00.000Z", "held_out": true},
                {"rule": "lapsing", "silent_since": "2026-04-25T00:00:00.000Z", "due_at": "2026-06-09T00:00:00.000Z",
                 "decided_at": "2026-06-10T00:00:00.000Z", "held_out": false}
            ],
            "replica": "shop-2", "later": {"a": {"b": 1}}
        }));
        for part in [
            "customer c-1 as of 2026-05-02T00:00:00.000Z",
            "stage         repeat: 3 orders",
            "status        at_risk: silent for longer than usual since 2026-04-28T00:00:00.000Z; without an order \
             lapsed from 2026-07-24T00:00:00.000Z",
            "orders        3, the first 2025-12-20T00:00:00.000Z, the last 2026-04-25T00:00:00.000Z",
            "sessions      none",
            "money         EUR 80.50 net to date, lifetime value none yet",
            "segment       channel = web",
            "complained    yes",
            "\nwithout a further order or session\n  2026-06-09T00:00:00.000Z  silent by the rule \"lapsing\", since \
             2026-04-25T00:00:00.000Z; the alert is decided once time has passed 2026-06-10T00:00:00.000Z\n  \
             2026-07-24T00:00:00.000Z  lapsed\n  2026-08-01T00:00:00.000Z  silent by the rule \"late\", since \
             2026-04-25T00:00:00.000Z; no alert, for the customer belongs to the hold-out group\n",
            "\nanswered by the replica shop-2\n",
            "later\n  a\n    b 1\n",
        ] {
            assert!(text.contains(part), "{part}\nin\n{text}");
        }
        assert!(!text.contains("referred"), "{text}");
    }

    #[test]
    fn an_id_is_one_step_of_the_path() {
        assert_eq!(escaped("c-1_~"), "c-1_~");
        assert_eq!(escaped("../a b?ü"), "%2E%2E%2Fa%20b%3F%C3%BC");
    }
}
