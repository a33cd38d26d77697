//! A real Kafka broker: one KRaft node on loopback, with its own data.
//!
//! ```ignore
//! let Some(broker) = support::kafka::shared_or_skip() else { return };
//! let topic = broker.create_topic(&unique("orders"), 4);
//! broker.publish(&topic, [(None, Some("customer"), Some("payload"))]);
//! ```
//!
//! [`shared_or_skip`] returns one broker for all tests of a binary; a test that stops or kills its broker starts its
//! own with [`start_or_skip`].

mod client;
mod libs;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use tempfile::TempDir;

use client::Publisher;
pub use client::{Committed, MURMUR2, Message, Record};

use super::process::{Process, Signal};
use super::skip::{Skip, or_skip};
use super::{free_port, poll_until, random, scratch, tail};

const PROPERTIES: &str = include_str!("../../../kafka/server.properties");

/// Starting takes about 2 s on an idle machine, about 4 s after SIGKILL.
const START_DEADLINE: Duration = Duration::from_secs(90);
const STOP_DEADLINE: Duration = Duration::from_secs(60);
const FORMAT_DEADLINE: Duration = Duration::from_secs(60);

/// Start quickly and use little memory: only the first compiler, the simplest garbage collector.
const JVM: [&str; 6] = [
    "-Xmx640m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
];

/// Options of a broker beyond one plain listener.
#[derive(Clone, Copy, Debug, Default)]
pub struct More<'a> {
    /// Names and protocols of further listeners, such as `("SECURE", "SASL_SSL")`.
    pub listeners: &'a [(&'static str, &'static str)],
    /// Further lines of its properties.
    pub properties: &'a str,
    /// Users whose passwords it knows from the beginning, in the syntax of `StorageTool format --add-scram`.
    pub scram: &'a [&'a str],
}

/// A broker, stopped on drop; its address and data survive [`Broker::kill`] and [`Broker::restart`].
pub struct Broker {
    admin: AdminClient<DefaultClientContext>,
    publisher: Mutex<Option<Publisher>>,
    process: Process,
    libs: &'static Path,
    port: u16,
    /// Ports of further listeners by name.
    further: BTreeMap<&'static str, u16>,
    cluster_id: String,
    dir: TempDir,
}

/// The broker that all tests of this binary share; it ends with the process.
///
/// # Errors
/// [`Skip`] without Java or Kafka's libraries.
pub fn shared() -> Result<&'static Broker, Skip> {
    static SHARED: OnceLock<Result<Broker, Skip>> = OnceLock::new();
    SHARED.get_or_init(Broker::start).as_ref().map_err(Skip::clone)
}

/// [`shared`], or a printed skip: `let Some(broker) = shared_or_skip() else { return };`
pub fn shared_or_skip() -> Option<&'static Broker> {
    or_skip(shared())
}

/// A broker for one test, or a printed skip.
pub fn start_or_skip() -> Option<Broker> {
    or_skip(Broker::start())
}

impl Broker {
    /// Starts a broker with empty data and waits until it answers.
    ///
    /// # Errors
    /// [`Skip`] without Java or Kafka's libraries. Panics if the broker does not start although they are present.
    pub fn start() -> Result<Broker, Skip> {
        Broker::start_with(More::default())
    }

    /// Like [`Broker::start`], with further options.
    ///
    /// # Errors
    /// Like [`Broker::start`].
    pub fn start_with(more: More<'_>) -> Result<Broker, Skip> {
        let libs = libs::libs()?;
        let mut clash = String::new();
        // Another process may take the port before the broker binds it.
        for _ in 0..3 {
            match Broker::start_on(libs, free_port(), free_port(), more) {
                Ok(broker) => return Ok(broker),
                Err(log) if port_taken(&log) => clash = log,
                Err(log) => panic!("the Kafka broker did not start:\n{log}"),
            }
        }
        panic!("no free port for the Kafka broker in three attempts:\n{clash}");
    }

    fn start_on(libs: &'static Path, port: u16, controller_port: u16, more: More<'_>) -> Result<Broker, String> {
        let dir = tempfile::Builder::new().prefix("kafka-").tempdir_in(scratch()).expect("a directory for the broker");
        let further: BTreeMap<_, _> = more.listeners.iter().map(|(name, _)| (*name, free_port())).collect();
        let of_each =
            |line: &dyn Fn(&str, u16) -> String| further.iter().map(|(name, port)| line(name, *port)).collect();
        let bound: String = of_each(&|name, port| format!(",{name}://127.0.0.1:{port}"));
        // By host name, which certificates need.
        let advertised: String = of_each(&|name, port| format!(",{name}://localhost:{port}"));
        let protocols: String = more.listeners.iter().map(|(name, protocol)| format!(",{name}:{protocol}")).collect();
        let properties = PROPERTIES
            .replace("{listeners}", &bound)
            .replace("{advertised}", &advertised)
            .replace("{protocols}", &protocols)
            .replace("{port}", &port.to_string())
            .replace("{controller_port}", &controller_port.to_string())
            .replace("{data}", &dir.path().join("data").display().to_string());
        let properties = properties + "\n" + more.properties;
        fs::write(dir.path().join("server.properties"), properties).expect("the broker's properties are written");
        let cluster_id = format(libs, dir.path(), more.scram)?;
        let process = launch(libs, dir.path());
        let admin = client::admin(port);
        let mut broker = Broker { admin, publisher: Mutex::new(None), process, libs, port, further, cluster_id, dir };
        broker.await_ready()?;
        Ok(broker)
    }

    /// Bootstrap servers for clients, such as `127.0.0.1:9092`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Bootstrap server of a further listener, by host name.
    pub fn listener(&self, name: &str) -> String {
        format!("localhost:{}", self.further[name])
    }

    /// Contents of its log so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// Path of the broker's log file.
    pub fn log_path(&self) -> PathBuf {
        log_path(self.dir.path())
    }

    /// Stops the broker in an orderly way (SIGTERM).
    pub fn stop(&mut self) {
        // A paused process would not handle the signal.
        self.resume();
        self.process.signal(Signal::Terminate);
        let ended = self.process.wait_exit(STOP_DEADLINE);
        assert!(ended.is_some(), "the broker did not stop within {STOP_DEADLINE:?}:\n{}", self.log_tail());
    }

    /// Kills the broker (SIGKILL). After the next start it refuses clients for about 3 s, until its old session with
    /// the controller has expired.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Restarts the broker with the same address and data; stops it first if it is running.
    pub fn restart(&mut self) {
        self.stop();
        self.process = launch(self.libs, self.dir.path());
        if let Err(log) = self.await_ready() {
            panic!("the Kafka broker did not start again:\n{log}");
        }
    }

    /// Pauses the broker (SIGSTOP): connections stay open, but nothing answers.
    pub fn pause(&mut self) {
        self.process.signal(Signal::Pause);
    }

    /// Continues after [`Broker::pause`] (SIGCONT).
    pub fn resume(&mut self) {
        self.process.signal(Signal::Resume);
    }

    /// Waits until this broker, not another one on the same port, answers for its cluster.
    fn await_ready(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        let ready = poll_until(START_DEADLINE, || {
            if let Some(status) = self.process.status() {
                return Some(Err(format!("it ended: {status}")));
            }
            let client = self.admin.inner();
            let metadata = client.fetch_metadata(None, Duration::from_millis(250)).ok()?;
            let ours = || client.fetch_cluster_id(Duration::from_millis(250)).as_ref() == Some(&self.cluster_id);
            let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            let led = partitions.all(|partition| partition.leader() >= 0);
            (!metadata.brokers().is_empty() && led && ours()).then_some(Ok(()))
        });
        ready
            .unwrap_or_else(|| Err(format!("it did not answer within {:?}", begun.elapsed())))
            .map_err(|why| format!("{why}\n{}", self.log_tail()))
    }

    fn log_tail(&self) -> String {
        tail(&self.log_path(), 40)
    }
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("kafka.log")
}

fn port_taken(log: &str) -> bool {
    log.contains("Address already in use")
}

/// Writes the id of a new cluster into the data directory, and returns it.
fn format(libs: &Path, dir: &Path, scram: &[&str]) -> Result<String, String> {
    let cluster_id = new_cluster_id();
    let mut command = java(libs, dir);
    command.args(["kafka.tools.StorageTool", "format", "-t", &cluster_id, "-c"]).arg(dir.join("server.properties"));
    for user in scram {
        command.args(["--add-scram", user]);
    }
    let ended = Process::spawn(&mut command, Some(dir)).wait_exit(FORMAT_DEADLINE);
    match ended {
        Some(status) if status.success() => Ok(cluster_id),
        ended => Err(format!("formatting its storage ended with {ended:?}\n{}", tail(&log_path(dir), 40))),
    }
}

/// A random 128-bit number in Kafka's notation: URL-safe base64 without padding.
fn new_cluster_id() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = u128::from(random()) << 64 | u128::from(random());
    // 21 digits of 6 bits, then the last 2 bits followed by 4 zeros. A leading dash would look like an option.
    let digits = (0..21).map(|place| bits >> (122 - 6 * place)).chain([bits << 4]);
    let text: String = digits.map(|digit| char::from(ALPHABET[(digit & 63) as usize])).collect();
    format!("k{}", &text[1..])
}

fn launch(libs: &Path, dir: &Path) -> Process {
    Process::spawn(java(libs, dir).arg("kafka.Kafka").arg(dir.join("server.properties")), Some(dir))
}

/// `java` with Kafka's class path; all output is appended to the broker's log.
fn java(libs: &Path, dir: &Path) -> Command {
    let log = OpenOptions::new().create(true).append(true).open(log_path(dir)).expect("the broker's log opens");
    let mut class_path = libs.as_os_str().to_owned();
    class_path.push("/*");
    let mut command = Command::new("java");
    command.args(JVM).arg("-cp").arg(class_path);
    command.stdout(Stdio::from(log.try_clone().expect("the log's handle can be shared"))).stderr(log);
    command
}
