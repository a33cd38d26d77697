//! The oracle: SQL over the same events, in Python with DuckDB, which shares no code with the program.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

use super::scratch;
use super::skip::{Need, Skip, or_skip};

const ORACLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/oracle.py");
const ALERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/alerts.py");
const COMPARE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/compare.py");

/// The order in which the program applied the events.
#[derive(Clone, Copy, Debug)]
pub enum Order<'a> {
    /// In file order.
    Log,
    /// Sorted by time; `summary` is the output of `replay`.
    Time { summary: &'a Path },
}

/// A Python that has the package `duckdb`.
#[derive(Clone, Debug)]
pub struct Oracle {
    python: PathBuf,
}

/// The oracle, or a printed skip: `let Some(oracle) = find_or_skip() else { return };`
pub fn find_or_skip() -> Option<&'static Oracle> {
    static FOUND: OnceLock<Result<Oracle, Skip>> = OnceLock::new();
    or_skip(FOUND.get_or_init(Oracle::find).as_ref().map_err(Skip::clone))
}

impl Oracle {
    /// Uses `RETENTIOND_PYTHON` if it is set, otherwise the first of `target/oracle-venv`, `.venv` and `python3` that
    /// works.
    ///
    /// # Errors
    /// [`Skip`] if none of them can import `duckdb`.
    pub fn find() -> Result<Oracle, Skip> {
        let candidates = match env::var_os("RETENTIOND_PYTHON") {
            Some(python) => vec![PathBuf::from(python)],
            None => vec![
                // The scratch directory is inside the target directory.
                scratch().with_file_name("oracle-venv").join("bin/python"),
                Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python"),
                PathBuf::from("python3"),
            ],
        };
        let has_duckdb = |python: &PathBuf| {
            let tried = Command::new(python).args(["-c", "import duckdb"]).output();
            tried.is_ok_and(|output| output.status.success())
        };
        match candidates.iter().find(|python| has_duckdb(python)) {
            Some(python) => Ok(Oracle { python: python.clone() }),
            None => Err(Skip {
                need: "needs Python with the package duckdb to run the SQL oracle",
                because: format!("tried {candidates:?}"),
                required_as: Need::Oracle,
            }),
        }
    }

    /// The Python that has the package.
    pub fn python(&self) -> &Path {
        &self.python
    }

    /// The figures of the events (NDJSON or CSV) as of each time, limited to the parts (named in
    /// `tests/oracle/README.md`): an array with one element per time.
    pub fn oracle(&self, events: &Path, config: &Value, parts: &[&str], as_of: &[&str]) -> Value {
        let dir = tempfile::tempdir_in(scratch()).expect("a directory for the oracle");
        let config = write(dir.path(), "config.json", config);
        let mut command = Command::new(&self.python);
        command.arg(ORACLE).arg("--events").arg(events).arg("--config").arg(config);
        command.args(["--parts", &parts.join(",")]);
        for time in as_of {
            command.args(["--as-of", time]);
        }
        let output = run(&mut command);
        assert!(output.status.success(), "the oracle failed: {}", said(&output));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("the oracle printed no JSON: {error}\n{}", said(&output)))
    }

    /// Panics if the oracle's alerts differ from the program's (NDJSON), or, given a summary of `replay`, the
    /// statistics of the rules; returns how many alerts, win-backs and held-out silences were compared.
    pub fn compare_alerts(&self, events: &Path, config: &Value, program: &Path, order: Order<'_>) -> [u64; 3] {
        let dir = tempfile::tempdir_in(scratch()).expect("a directory for the comparison");
        let mut command = Command::new(&self.python);
        command.arg(ALERTS).arg("--events").arg(events).arg("--config").arg(write(dir.path(), "config.json", config));
        command.arg("--program").arg(program);
        match order {
            Order::Log => command.arg("--log-order"),
            Order::Time { summary } => command.arg("--summary").arg(summary),
        };
        let output = run(&mut command);
        assert!(output.status.success(), "the program's alerts differ from SQL's:\n{}", said(&output));
        let stdout = String::from_utf8_lossy(&output.stdout);
        let last = stdout.trim().lines().last().expect("a count");
        let numbers: Vec<u64> = last.split(' ').filter_map(|word| word.parse().ok()).collect();
        [numbers[0], numbers[1], numbers[2]]
    }

    /// Panics with every difference between the oracle's figures and the program's; returns how many were compared.
    pub fn compare(&self, oracle: &Value, program: &Value) -> u64 {
        let dir = tempfile::tempdir_in(scratch()).expect("a directory for the comparison");
        let mut command = Command::new(&self.python);
        command.arg(COMPARE);
        command.arg(write(dir.path(), "oracle.json", oracle)).arg(write(dir.path(), "program.json", program));
        let output = run(&mut command);
        assert!(output.status.success(), "the program's figures differ from SQL's:\n{}", said(&output));
        let stdout = String::from_utf8_lossy(&output.stdout);
        let compared = stdout.trim().lines().last().and_then(|line| line.split_once(" figures compared"));
        compared.and_then(|(count, _)| count.parse().ok()).expect("a count of the figures")
    }
}

fn write(dir: &Path, name: &str, value: &Value) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, value.to_string()).expect("the oracle's input is written");
    path
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
