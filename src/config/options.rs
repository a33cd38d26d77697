//! Options for librdkafka, and the redaction of secrets among them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::kafka::{access_mistakes, managed_option, option_mistake};

/// Shown in place of a secret.
pub(super) const REDACTED: &str = "***";

/// Suffix of the key that names the file with a secret option.
const FILE_SUFFIX: &str = "_file";

/// Why users cannot set an option: it is managed by the consumer or the transactions.
fn managed(option: &str) -> Option<&'static str> {
    match option {
        "transactional.id" => Some("remove it: it is kafka.group_id and kafka.instance_id joined"),
        "enable.idempotence" => Some("write kafka.delivery instead"),
        _ => managed_option(option),
    }
}

/// A secret text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    #[must_use]
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The text itself; do not pass it to anything that prints.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Reads a file without its trailing line end.
    ///
    /// # Errors
    /// What is wrong with the file, and what it should hold.
    pub fn read(path: &Path) -> Result<Secret, String> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!("cannot read {path:?} ({error}); the file must hold the secret and be readable for this user")
        })?;
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return Err(format!("{path:?} is empty; write the secret into it"));
        }
        Ok(Secret(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// Options with secret values, of librdkafka and our own.
pub const SECRET_OPTIONS: [&str; 9] = [
    "sasl.jaas.config",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
];

/// The options that name one file.
const FILE_OPTIONS: [&str; 4] =
    ["ssl.certificate.location", "ssl.key.location", "ssl.keystore.location", "ssl.crl.location"];

/// Whether the value of an option must be redacted, including unknown and misspelt options that look secret.
pub(super) fn is_secret(option: &str) -> bool {
    const PARTS: [&str; 5] = ["password", "passphrase", "secret", "token", "key.pem"];
    SECRET_OPTIONS.contains(&option)
        || option != "sasl.oauthbearer.token.endpoint.url" && PARTS.iter().any(|part| option.contains(part))
}

/// The secret option whose file the key `sasl.password_file` names.
fn secret_of_file(key: &str) -> Option<&str> {
    key.strip_suffix(FILE_SUFFIX).filter(|option| is_secret(option))
}

/// The option that an environment variable names: `SASL_PASSWORD_FILE`, in lower case, is `sasl.password_file`.
pub(super) fn option_of_variable(segment: &str) -> String {
    let dotted = segment.replace('_', ".");
    match dotted.strip_suffix(".file").filter(|option| is_secret(option)) {
        Some(option) => format!("{option}{FILE_SUFFIX}"),
        None => dotted,
    }
}

/// Options for librdkafka besides those that retentiond sets itself.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientOptions {
    /// As configured, `*_file` keys included.
    given: BTreeMap<String, String>,
    /// Secrets that came from files, by the name of their option.
    read: BTreeMap<String, Secret>,
}

impl ClientOptions {
    /// Names and values for librdkafka, secrets in clear.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let given = self.given.iter().filter(|(key, _)| secret_of_file(key).is_none());
        let given = given.map(|(key, value)| (key.as_str(), value.as_str()));
        given.chain(self.read.iter().map(|(key, secret)| (key.as_str(), secret.reveal())))
    }

    /// The value of an option for librdkafka, in clear.
    #[must_use]
    pub fn get(&self, option: &str) -> Option<&str> {
        self.given.get(option).map(String::as_str).or_else(|| self.read.get(option).map(Secret::reveal))
    }

    /// All invalid keys, with the reason.
    pub(super) fn mistakes(&self) -> Vec<(&str, String)> {
        let mut found = Vec::new();
        for (key, value) in &self.given {
            if let Some(remedy) = managed(key) {
                found.push((key.as_str(), format!("is set by retentiond; {remedy}")));
            } else if secret_of_file(key).is_some_and(|option| self.given.contains_key(option)) {
                found.push((key, "is set beside the secret itself; keep one of the two".to_owned()));
            } else if is_secret(key) && value == REDACTED {
                found.push((key, format!("is {REDACTED:?}, which stands for a secret in print; write the secret")));
            } else if secret_of_file(key).is_none()
                && let Some(why) = option_mistake(key, value)
            {
                let why =
                    if is_secret(key) { "is refused by librdkafka".to_owned() } else { format!("is wrong: {why}") };
                found.push((key, format!("{why}; write an option of librdkafka as its CONFIGURATION.md describes it")));
            }
        }
        found
    }

    /// Contradictions between security options. A secret in a file counts as set.
    pub(super) fn access_mistakes(&self) -> Vec<(String, String)> {
        let named = self.given.iter().map(|(key, value)| (secret_of_file(key).unwrap_or(key), value.as_str()));
        access_mistakes(&named.collect())
    }

    /// Reads the files named by `*_file` keys; returns the keys whose file cannot be used, with the reason.
    pub(super) fn read_secrets(&mut self) -> Vec<(String, String)> {
        let mut failed = self.unreadable_files();
        for (key, path) in &self.given {
            let Some(option) = secret_of_file(key) else { continue };
            match Secret::read(Path::new(path)) {
                Ok(secret) => drop(self.read.insert(option.to_owned(), secret)),
                Err(why) => failed.push((key.clone(), why)),
            }
        }
        failed
    }

    /// Certificate and key files that cannot be read.
    fn unreadable_files(&self) -> Vec<(String, String)> {
        let files = FILE_OPTIONS.iter().filter_map(|option| Some((*option, self.given.get(*option)?)));
        let unreadable = files.filter_map(|(option, path)| {
            let error = std::fs::File::open(path).err()?;
            Some((option.to_owned(), format!("cannot read {path:?} ({error}); write a file that this user may read")))
        });
        unreadable.collect()
    }

    fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.given.iter().map(|(key, value)| {
            let hidden = is_secret(key) && secret_of_file(key).is_none();
            (key.as_str(), if hidden { REDACTED } else { value.as_str() })
        })
    }
}

impl FromIterator<(String, String)> for ClientOptions {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(options: I) -> ClientOptions {
        ClientOptions { given: options.into_iter().collect(), read: BTreeMap::new() }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

impl Serialize for ClientOptions {
    /// With secrets redacted.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.shown())
    }
}

impl<'de> Deserialize<'de> for ClientOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ClientOptions, D::Error> {
        let values = BTreeMap::<String, Scalar>::deserialize(deserializer)?;
        Ok(values.into_iter().map(|(key, value)| (key, value.0)).collect())
    }
}

/// A value as text for librdkafka, whatever its type in TOML.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar(value.to_string()))
    }
}
