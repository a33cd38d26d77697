//! Shared by the integration tests: a real Kafka broker, the daemon as a process, the SQL oracle, and polling with
//! deadlines.
//!
//! Every process started here ends with the test run, even if that is killed: see [`process`].

pub mod certificates;
pub mod cli;
pub mod daemon;
pub mod damage;
pub mod effort;
pub mod history;
pub mod hook;
pub mod kafka;
pub mod log;
pub mod metrics;
pub mod oracle;
pub mod process;
pub mod provider;
pub mod registry;
pub mod skip;

use std::collections::HashSet;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Polls `probe` until it returns a value, with growing pauses of at most 100 ms; panics with `what` at the deadline.
pub fn wait_for<T>(what: &str, deadline: Duration, probe: impl FnMut() -> Option<T>) -> T {
    poll_until(deadline, probe).unwrap_or_else(|| panic!("waited {deadline:?} in vain for {what}"))
}

/// Like [`wait_for`], but returns `None` at the deadline. Polls at least once.
pub fn poll_until<T>(deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(answer) = probe() {
            return Some(answer);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// A name that no other call returns, in this process or another, for topics, groups and transactional ids.
pub fn unique(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{stem}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// An unused port of 127.0.0.1, which this process returns only once.
///
/// It is below the range for outgoing connections, so that a client's connection cannot take it while a broker
/// restarts, nor connect to itself.
pub fn free_port() -> u16 {
    const RANGE: std::ops::Range<u16> = 12_000..32_000;
    static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut taken = TAKEN.lock().unwrap();
    let taken = taken.get_or_insert_default();
    for _ in 0..1_000 {
        let port = RANGE.start + (random() % RANGE.len() as u64) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && taken.insert(port) {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1 in {RANGE:?}");
}

/// A random number, different in each call and each run.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// The directory inside the target directory for files that tests keep between runs.
pub fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// The last `lines` lines of a file, for failure messages.
pub fn tail(path: &Path, lines: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
