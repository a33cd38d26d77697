//! A broker with authentication: TLS, client certificates, SCRAM, PLAIN, OAUTHBEARER.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::json;

use super::common::{PATIENCE, Rig, readiness, summary};
use crate::support::certificates::{Authority, Signed};
use crate::support::cli::Said;
use crate::support::daemon::Daemon;
use crate::support::kafka::{Broker, More};
use crate::support::provider::Provider;
use crate::support::skip::{Skip, or_skip};
use crate::support::wait_for;

const PASSWORD: &str = "right-Pa55word";
const WRONG: &str = "wrong-Pa55word";

/// The broker of this module, and its certificate authority.
pub struct Secured {
    pub broker: Broker,
    authority: Authority,
    /// The client certificate that the broker knows.
    client: Signed,
}

pub fn secured_or_skip() -> Option<&'static Secured> {
    static SECURED: OnceLock<Result<Secured, Skip>> = OnceLock::new();
    or_skip(SECURED.get_or_init(start).as_ref().map_err(Skip::clone))
}

fn start() -> Result<Secured, Skip> {
    let authority = Authority::new("the authority of the tests");
    let server = authority.sign("broker", &["localhost"]);
    let client = authority.sign("retentiond", &[]);
    let properties = format!(
        r#"
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:alice;User:CN=retentiond;User:service
ssl.keystore.type=PEM
ssl.keystore.location={server}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
listener.name.mutual.ssl.client.auth=required
listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="{PASSWORD}" user_bob="{PASSWORD}";
listener.name.secure.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.tokens.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.tokens.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
# A connection ends with the token that it began with, unless it shows another one.
listener.name.tokens.oauthbearer.connections.max.reauth.ms=3600000
"#,
        server = server.both.display(),
        authority = authority.certificate().display(),
    );
    let scram = ["SCRAM-SHA-256", "SCRAM-SHA-512"].map(|kind| format!("{kind}=[name=alice,password={PASSWORD}]"));
    let broker = Broker::start_with(More {
        listeners: &[("SECURE", "SASL_SSL"), ("MUTUAL", "SSL"), ("TOKENS", "SASL_SSL")],
        properties: &properties,
        scram: &scram.each_ref().map(String::as_str),
    })?;
    Ok(Secured { broker, authority, client })
}

impl Secured {
    /// A rig with its own topics that connects to a listener, with these options besides those of TLS.
    pub fn rig(&self, listener: &str, options: &[(&str, &str)]) -> Rig {
        let authority = self.authority.certificate().display().to_string();
        let mut all = BTreeMap::from([("ssl.ca.location", authority.as_str()), ("broker.address.family", "v4")]);
        all.extend(options.iter().copied());
        let lines: Vec<_> = all.iter().map(|(name, value)| format!("{name:?} = {value:?}")).collect();
        Rig { brokers: self.broker.listener(listener), options: lines.join("\n"), ..Rig::new(&self.broker) }
    }

    /// As [`Secured::rig`], for SASL with this user, whose password is in a file.
    fn sasl(&self, mechanism: &str, user: &str, password: &Path) -> Rig {
        let password = password.display().to_string();
        self.rig(
            "SECURE",
            &[
                ("security.protocol", "SASL_SSL"),
                ("sasl.mechanism", mechanism),
                ("sasl.username", user),
                ("sasl.password_file", &password),
            ],
        )
    }

    pub fn password(&self, name: &str, password: &str) -> std::path::PathBuf {
        self.authority.file(name, password)
    }

    pub fn publish(&self, rig: &Rig, orders: std::ops::Range<u32>) {
        let order = |n: u32| {
            json!({"type": "order", "order_id": format!("o-{n}"), "customer_id": format!("c-{n}"),
                   "time": "2026-01-02T03:04:05Z", "amount": "1.00", "currency": "EUR"})
            .to_string()
        };
        let messages = orders.map(|n| (None, Some(format!("c-{n}")), Some(order(n))));
        self.broker.publish(&rig.orders, messages);
    }
}

/// Waits until the daemon is alive but not ready, with all of these words.
pub fn wait_for_reason(daemon: &mut Daemon, words: &[&str]) {
    daemon.wait_for(&format!("/readyz to say {words:?}"), PATIENCE, |daemon| {
        let (status, reasons) = readiness(daemon)?;
        (status == 503 && words.iter().all(|word| reasons.contains(word))).then_some(())
    });
    assert_eq!(daemon.get("/healthz").0, 200, "it is no reason to restart");
}

/// Waits until the daemon is ready and has counted this many customers with orders.
pub fn wait_for_orders(daemon: &mut Daemon, orders: u64) {
    daemon.wait_for(&format!("{orders} orders"), PATIENCE, |daemon| {
        let (status, _) = readiness(daemon)?;
        (status == 200 && summary(daemon)["windows"][0]["orders"] == orders).then_some(())
    });
}

/// `validate --sample` with the configuration of a rig whose topics contain orders.
fn sample(secured: &Secured, rig: &Rig) -> Said {
    rig.create_topics(&secured.broker, 1);
    secured.publish(rig, 0..3);
    rig.run("only", &["validate", "--sample", "10"])
}

#[test]
fn scram_over_tls_works_once_the_password_is_right_and_says_so_until_then() {
    let Some(secured) = secured_or_skip() else { return };
    let password = secured.password("scram-password", WRONG);
    let rig = secured.sasl("SCRAM-SHA-256", "alice", &password);
    rig.create_topics(&secured.broker, 2);
    secured.publish(&rig, 0..30);
    let launch = rig.launch("only");
    let mut daemon = launch.start();
    wait_for_reason(&mut daemon, &["sasl.password", "SCRAM-SHA-256", &rig.brokers]);
    let attempts = || secured.broker.log().matches("authentication").count();
    let before = attempts();
    daemon.wait_for("more attempts", PATIENCE, |_| (attempts() > before + 2).then_some(()));
    wait_for_reason(&mut daemon, &["sasl.password"]);
    daemon.terminate();
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0), "{}", daemon.stderr());
    assert!(daemon.stderr().contains("sasl.password") && !daemon.stderr().contains(WRONG), "{}", daemon.stderr());

    secured.password("scram-password", &format!("{PASSWORD}\n"));
    let mut daemon = launch.start();
    wait_for_orders(&mut daemon, 30);
    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(&secured.broker).then_some(()));
    assert!(!daemon.stderr().contains(PASSWORD), "{}", daemon.stderr());
}

#[test]
fn plain_and_the_longer_scram_work_too_and_a_wrong_password_is_told() {
    let Some(secured) = secured_or_skip() else { return };
    let (right, wrong) = (secured.password("right", PASSWORD), secured.password("wrong", WRONG));
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        let said = sample(secured, &secured.sasl(mechanism, "alice", &right));
        assert!(said.code == Some(0) && said.stdout.contains("3 order"), "{said:?}");
        let said = sample(secured, &secured.sasl(mechanism, "alice", &wrong));
        assert_eq!(said.code, Some(1), "{said:?}");
        for part in ["authentication", "sasl.mechanism, sasl.username and sasl.password"] {
            assert!(said.stderr.contains(part), "{part}: {said:?}");
        }
        assert!(!format!("{said:?}").contains(WRONG), "{said:?}");
    }
}

#[test]
fn certificates_of_both_sides_are_looked_at() {
    let Some(secured) = secured_or_skip() else { return };
    let (certificate, key) = (&secured.client.certificate, &secured.client.key);
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let ours = [("ssl.certificate.location", certificate.as_str()), ("ssl.key.location", key.as_str())];
    let ssl = ("security.protocol", "SSL");
    let rig = |options: &[(&str, &str)]| secured.rig("MUTUAL", &[&[ssl], options].concat());

    let both = rig(&ours);
    let said = sample(secured, &both);
    assert!(said.code == Some(0) && said.stdout.contains("3 order"), "{said:?}");
    let mut daemon = both.launch("only").start();
    wait_for_orders(&mut daemon, 3);

    let stranger = Authority::new("nobody knows me");
    let theirs = stranger.sign("retentiond", &[]);
    let (certificate, key) = (theirs.certificate.display().to_string(), theirs.key.display().to_string());
    let unknown = [("ssl.certificate.location", certificate.as_str()), ("ssl.key.location", key.as_str())];
    let stranger = stranger.certificate().display().to_string();
    let cases = [
        ("without a certificate of ours", vec![], "ssl.certificate.location"),
        ("with one that another authority signed", unknown.to_vec(), "ssl.certificate.location"),
        ("trusting another authority", [&ours[..], &[("ssl.ca.location", &stranger)]].concat(), "ssl.ca.location"),
        ("trusting the system's authorities", [&ours[..], &[("ssl.ca.location", "probe")]].concat(), "ssl.ca.location"),
    ];
    for (what, options, remedy) in cases {
        let said = sample(secured, &rig(&options));
        assert!(said.code == Some(1) && said.stderr.contains(remedy), "{what}: {said:?}");
    }
    let absent = rig(&[ours[0], ("ssl.key.location", "/nowhere/key.pem")]);
    let said = absent.run("only", &["validate"]);
    assert!(said.code == Some(78) && said.stderr.contains("ssl.key.location"), "without asking anybody: {said:?}");
}

#[test]
fn who_may_not_read_is_told_which_right_is_missing() {
    let Some(secured) = secured_or_skip() else { return };
    let rig = secured.sasl("PLAIN", "bob", &secured.password("bob", PASSWORD));
    let said = sample(secured, &rig);
    assert_eq!(said.code, Some(78), "{said:?}");
    for part in ["Describe", "Read", &rig.orders] {
        assert!(said.stderr.contains(part), "{part}: {said:?}");
    }
}

#[test]
fn tokens_of_a_provider_are_fetched_and_renewed_and_a_provider_that_is_down_is_waited_for() {
    let Some(secured) = secured_or_skip() else { return };
    let provider = Provider::start("service", Duration::from_secs(6));
    provider.set_down(true);
    let secret = secured.password("client-secret", provider.secret());
    let (url, secret) = (provider.url(), secret.display().to_string());
    let rig = secured.rig(
        "TOKENS",
        &[
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "OAUTHBEARER"),
            ("sasl.oauthbearer.method", "oidc"),
            ("sasl.oauthbearer.client.id", "retentiond"),
            ("sasl.oauthbearer.client.secret_file", &secret),
            ("sasl.oauthbearer.token.endpoint.url", &url),
            ("sasl.oauthbearer.scope", "kafka"),
        ],
    );
    rig.create_topics(&secured.broker, 2);
    secured.publish(&rig, 0..10);
    let mut daemon = rig.launch("only").start();
    wait_for_reason(&mut daemon, &[&url, "answers 503"]);
    provider.set_down(false);
    wait_for_orders(&mut daemon, 10);

    // Long enough for every connection to outlive its first token and renew it twice.
    let issued = provider.issued();
    daemon.wait_for("tokens to be renewed", PATIENCE, |_| (provider.issued() > issued + 3).then_some(()));
    secured.publish(&rig, 10..20);
    wait_for_orders(&mut daemon, 20);
    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(&secured.broker).then_some(()));
    daemon.terminate();
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0), "{}", daemon.stderr());
    let said = daemon.stderr();
    assert!(!said.contains(provider.secret()) && !said.contains("eyJ"), "neither secret nor token is told: {said}");
}
