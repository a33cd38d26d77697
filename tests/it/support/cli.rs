//! Verbs that end by themselves.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Output and exit code of a verb.
#[derive(Clone, Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `retentiond ARGS` to its end.
pub fn run(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_retentiond"));
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RETENTIOND_")) {
        command.env_remove(name);
    }
    let Output { status, stdout, stderr } = command.args(args).output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: status.code(), stdout: text(&stdout), stderr: text(&stderr) }
}

/// The output of `replay --format json`; panics unless it succeeds.
pub fn replay_text(files: &[&Path], config: Option<&Path>, as_of: Option<&str>) -> String {
    let mut args: Vec<&OsStr> = vec![OsStr::new("replay")];
    args.extend(files.iter().map(|path| path.as_os_str()));
    args.extend([OsStr::new("--format"), OsStr::new("json")]);
    if let Some(config) = config {
        args.extend([OsStr::new("--config"), config.as_os_str()]);
    }
    if let Some(as_of) = as_of {
        args.extend([OsStr::new("--as-of"), OsStr::new(as_of)]);
    }
    let said = run(args);
    assert!(said.code == Some(0), "replay failed: {said:?}");
    said.stdout
}

/// Like [`replay_text`], parsed.
pub fn replay(files: &[&Path], config: Option<&Path>, as_of: Option<&str>) -> Value {
    let text = replay_text(files, config, as_of);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("replay printed no JSON: {error}: {text}"))
}

/// Like [`replay`], but with the order values of all events, as a daemon shows them: its `as_of` is that of the
/// partition that is furthest behind, and values cannot be removed from a distribution.
pub fn replay_as_daemon(files: &[&Path], config: Option<&Path>, as_of: &str) -> Value {
    let is_value = |entry: &&mut Value| entry["name"] == "order_value";
    let (mut figures, mut whole) = (replay(files, config, Some(as_of)), replay(files, config, None));
    let [figures_of, whole_of] =
        [&mut figures, &mut whole].map(|summary| summary["distributions"].as_array_mut().expect("a list"));
    let values = figures_of.iter_mut().filter(is_value).zip(whole_of.iter_mut().filter(is_value));
    values.for_each(|(value, whole)| *value = whole.take());
    figures
}
