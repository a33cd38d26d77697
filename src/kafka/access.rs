//! How clients connect to the brokers: the options that all of them share, and checks across these options.

use std::collections::BTreeMap;

use super::oidc::{self, Provider};

/// Makes librdkafka search the usual paths of distributions for the system's certificates: its statically linked
/// OpenSSL knows no path of this system.
pub(super) const SYSTEM_AUTHORITIES: &str = "probe";

/// The supported SASL mechanisms.
const MECHANISMS: &str = "\"SCRAM-SHA-512\", \"SCRAM-SHA-256\", \"PLAIN\" or \"OAUTHBEARER\"";

/// Whether consumers and producers share the option, which says how to connect to the brokers. Excludes
/// `socket.timeout.ms`, which must not exceed the timeouts of transactions and messages.
pub(super) fn is_shared_option(name: &str) -> bool {
    const SHARED: [&str; 8] =
        ["security.", "sasl.", "ssl.", "https.", "enable.s", "socket.", "broker.address", "reconnect."];
    name == "debug" || (name != "socket.timeout.ms" && SHARED.iter().any(|prefix| name.starts_with(prefix)))
}

/// The options to pass to librdkafka, and the token provider, if one is configured.
pub(super) fn resolved<'a>(
    options: impl Iterator<Item = (&'a String, &'a String)>,
) -> Result<(impl Iterator<Item = (&'a str, &'a str)>, Option<Provider>), String> {
    let plain: BTreeMap<&str, &str> = options.map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let provider = Provider::of(&plain).map_err(|(option, what)| format!("{option:?}: {what}"))?;
    let certificates =
        speaks_tls(&plain) && !["ssl.ca.location", "ssl.ca.pem"].iter().any(|key| plain.contains_key(key));
    let authorities = certificates.then_some(("ssl.ca.location", SYSTEM_AUTHORITIES));
    Ok((plain.into_iter().filter(|(name, _)| !oidc::is_ours(name)).chain(authorities), provider))
}

fn protocol<'a>(options: &BTreeMap<&str, &'a str>) -> &'a str {
    options.get("security.protocol").copied().unwrap_or("plaintext")
}

fn speaks_tls(options: &BTreeMap<&str, &str>) -> bool {
    protocol(options).to_lowercase().ends_with("ssl")
}

fn mechanism<'a>(options: &BTreeMap<&str, &'a str>) -> Option<(&'static str, &'a str)> {
    ["sasl.mechanism", "sasl.mechanisms"].into_iter().find_map(|name| Some((name, *options.get(name)?)))
}

/// Mistakes in the security options that show without a broker: the option, and what is wrong with the remedy. Of a
/// secret, only its presence matters.
#[must_use]
pub fn access_mistakes(options: &BTreeMap<&str, &str>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut wrong = |option: &str, what: String| found.push((option.to_owned(), what));
    let protocol = protocol(options);
    let is_sasl = protocol.to_lowercase().starts_with("sasl");
    match mechanism(options) {
        None if is_sasl => {
            wrong("sasl.mechanism", format!("is missing, which {protocol} needs; write {MECHANISMS}"));
        }
        Some((option, mechanism)) if !is_sasl => wrong(
            option,
            format!(
                "is {mechanism:?}, but security.protocol is {protocol:?}, so the client does not log in; \
                 write security.protocol = \"SASL_SSL\""
            ),
        ),
        Some((option, mechanism)) => match mechanism.to_uppercase().as_str() {
            "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512" => {
                for needed in ["sasl.username", "sasl.password"].into_iter().filter(|key| !options.contains_key(key)) {
                    let file = if needed == "sasl.password" { ", or sasl.password_file" } else { "" };
                    wrong(needed, format!("is missing, which sasl.mechanism = {mechanism:?} needs; write it{file}"));
                }
            }
            "OAUTHBEARER" => {}
            _ => wrong(option, format!("{mechanism:?} is not built in; write {MECHANISMS}")),
        },
        None => {}
    }
    let certificate = ["ssl.certificate.location", "ssl.certificate.pem"].iter().any(|key| options.contains_key(key));
    let key = ["ssl.key.location", "ssl.key.pem"].iter().any(|key| options.contains_key(key));
    if certificate != key && speaks_tls(options) {
        let (there, missing) = if key { ("key", "certificate") } else { ("certificate", "key") };
        let missing = format!("ssl.{missing}.location");
        wrong(&missing, format!("is missing, which ssl.{there}.location needs; write the path of a PEM file"));
    }
    found.extend(oidc::mistakes(options, is_sasl && mechanism(options).is_some_and(|(_, name)| oidc::is_named(name))));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(options: &[(&str, &str)]) -> Vec<String> {
        let found = access_mistakes(&options.iter().copied().collect());
        found.into_iter().map(|(option, what)| format!("{option}: {what}")).collect()
    }

    #[test]
    fn conflicting_options_are_named() {
        let sasl = ("security.protocol", "SASL_SSL");
        let oauth = ("sasl.mechanism", "OAUTHBEARER");
        let oidc = ("sasl.oauthbearer.method", "oidc");
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
        let cases: [Case<'_>; 12] = [
            (&[], &[]),
            (&[("security.protocol", "SSL")], &[]),
            (&[sasl], &["sasl.mechanism: is missing, which SASL_SSL needs"]),
            (&[("sasl.mechanism", "PLAIN")], &["sasl.mechanism: is \"PLAIN\", but security.protocol is \"plaintext\""]),
            (&[sasl, ("sasl.mechanisms", "GSSAPI")], &["sasl.mechanisms: \"GSSAPI\" is not built in"]),
            (
                &[sasl, ("sasl.mechanism", "SCRAM-SHA-512")],
                &["sasl.username: is missing", "sasl.password: is missing, which sasl.mechanism"],
            ),
            (&[("ssl.key.location", "k.pem"), ("security.protocol", "ssl")], &["ssl.certificate.location: is missing"]),
            (&[("ssl.certificate.pem", "k.pem"), ("security.protocol", "ssl")], &["ssl.key.location: is missing"]),
            (&[sasl, oauth], &["sasl.oauthbearer.method: is missing"]),
            (&[sasl, oauth, ("enable.sasl.oauthbearer.unsecure.jwt", "true")], &[]),
            (
                &[sasl, oauth, oidc],
                &[
                    "sasl.oauthbearer.client.id: is missing",
                    "sasl.oauthbearer.client.secret: is missing",
                    "sasl.oauthbearer.token.endpoint.url: is missing",
                ],
            ),
            (
                &[sasl, ("sasl.oauthbearer.method", "oidc"), ("sasl.mechanism", "X")],
                &["sasl.mechanism: \"X\" is not", "sasl.oauthbearer.method: is set, but"],
            ),
        ];
        for (options, expected) in cases {
            let found = mistakes(options);
            assert_eq!(found.len(), expected.len(), "{options:?}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with(expected), "{options:?}: {found}");
            }
        }
    }

    #[test]
    fn the_system_s_authorities_are_the_default() {
        let authorities = |options: &[(&str, &str)]| {
            let options: BTreeMap<String, String> =
                options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let (passed, provider) = resolved(options.iter()).unwrap();
            assert_eq!(provider, None);
            passed.filter(|(name, _)| *name == "ssl.ca.location").map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(authorities(&[]), Vec::<String>::new());
        assert_eq!(authorities(&[("security.protocol", "SASL_SSL")]), [SYSTEM_AUTHORITIES]);
        assert_eq!(authorities(&[("security.protocol", "ssl"), ("ssl.ca.location", "/ca.pem")]), ["/ca.pem"]);
        assert_eq!(authorities(&[("security.protocol", "ssl"), ("ssl.ca.pem", "text")]), Vec::<String>::new());
    }

    #[test]
    fn consumers_and_producers_share_connection_options() {
        for shared in ["sasl.password", "ssl.ca.location", "security.protocol", "socket.keepalive.enable", "debug"] {
            assert!(is_shared_option(shared), "{shared}");
        }
        for own in ["socket.timeout.ms", "fetch.wait.max.ms", "session.timeout.ms", "enable.auto.commit"] {
            assert!(!is_shared_option(own), "{own}");
        }
    }
}
