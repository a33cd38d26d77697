//! Kafka's libraries: fetched once per target directory, by the first test process that needs them.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::support::process::Process;
use crate::support::skip::{Need, Skip};
use crate::support::{scratch, tail};

const POM: &str = include_str!("../../../kafka/pom.xml");
const POM_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/pom.xml");
const FETCH_DEADLINE: Duration = Duration::from_secs(300);
const OLDEST_JAVA: u32 = 17;

/// The directory of the jars.
///
/// # Errors
/// [`Skip`] without a suitable Java, or if the jars are missing and cannot be fetched.
pub fn libs() -> Result<&'static Path, Skip> {
    static LIBS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = LIBS.get_or_init(|| need_java().and_then(|()| fetch_once()));
    found.as_deref().map_err(|because| Skip {
        need: "needs java and mvn to run a real Kafka broker",
        because: because.clone(),
        required_as: Need::Kafka,
    })
}

fn need_java() -> Result<(), String> {
    let output = Command::new("java").arg("-version").output().map_err(|error| format!("java: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    // openjdk version "17.0.15" 2025-04-15
    let version = text.split('"').nth(1).unwrap_or_default();
    match version.split(['.', '-']).next().unwrap_or_default().parse::<u32>() {
        Ok(major) if major >= OLDEST_JAVA => Ok(()),
        _ => Err(format!("java {OLDEST_JAVA} or newer; found: {}", text.lines().next().unwrap_or("nothing"))),
    }
}

fn fetch_once() -> Result<PathBuf, String> {
    let cache = scratch();
    let libs = cache.join(directory_name());
    fs::create_dir_all(cache).expect("the cache directory can be made");
    let lock = File::create(cache.join("kafka-libs.lock")).expect("the cache's lock file opens");
    lock.lock().expect("the cache can be locked");
    // The directory is created by a rename, so it is complete if it exists.
    if !libs.is_dir() {
        fetch(cache, &libs)?;
    }
    Ok(libs)
}

/// Kafka's version, for people, and a hash of the whole pom.
fn directory_name() -> String {
    let version = POM.split_once("<kafka.version>").and_then(|(_, rest)| rest.split_once("</")).map(|(text, _)| text);
    let mut hasher = DefaultHasher::new();
    POM.hash(&mut hasher);
    format!("kafka-libs-{}-{:08x}", version.expect("the pom names Kafka's version"), hasher.finish() as u32)
}

fn fetch(cache: &Path, libs: &Path) -> Result<(), String> {
    let staging = tempfile::Builder::new().prefix("kafka-fetch-").tempdir_in(cache).expect("a directory for the jars");
    let jars = staging.path().join("libs");
    let log = staging.path().join("mvn.log");
    let output = File::create(&log).expect("a log for mvn opens");
    let mut command = Command::new("mvn");
    command.args(["-q", "-B", "-f", POM_PATH, "dependency:copy-dependencies"]);
    command.arg(format!("-DoutputDirectory={}", jars.display()));
    command.stdout(output.try_clone().expect("the log's handle can be shared")).stderr(output);
    // Checked first, because a missing program is a skip and not a failure.
    Command::new("mvn").arg("-v").output().map_err(|error| format!("mvn: {error}"))?;
    match Process::spawn(&mut command, Some(staging.path())).wait_exit(FETCH_DEADLINE) {
        Some(status) if status.success() => {
            fs::rename(&jars, libs).expect("the jars can be moved into the cache");
            Ok(())
        }
        Some(_) => Err(format!("mvn cannot fetch Kafka: {}", tail(&log, 3))),
        None => Err(format!("mvn could not fetch Kafka within {FETCH_DEADLINE:?}")),
    }
}
