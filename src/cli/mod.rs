//! The subcommands, one file each.

mod bootstrap;
mod checkpoint;
mod config;
mod demo;
mod dlq;
mod explain;
mod explain_event;
mod progress;
mod replay;
mod rewind;
mod run;
mod simulate;
mod table;
mod validate;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::bus::SourceError;
use crate::config::{ConfigErrors, Format, Settings};
use crate::event::Time;

/// Exact churn, retention and lifetime figures from a stream of orders.
#[derive(Debug, Parser)]
#[command(name = "retentiond", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to log, such as `debug` or `info,kafka=debug` [default: info].
    #[arg(long, global = true, env = "RETENTIOND_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Try it: embedded Kafka, a simulated shop in fast time, the daemon and its page on 127.0.0.1:9736.
    Demo(demo::Demo),
    /// Run the daemon.
    Run(run::Run),
    /// Compute the figures of event files, without Kafka.
    Replay(replay::Replay),
    /// List dead letters, or send them back to their topics after a fix.
    Dlq(dlq::Dlq),
    /// Explain one customer's figures through a running daemon, or how one message decodes.
    Explain(explain::Explain),
    /// Build the first checkpoints from a history export, for topics that keep only recent events.
    Bootstrap(bootstrap::Bootstrap),
    /// List or verify the checkpoints in the store.
    #[command(subcommand_required = true)]
    Checkpoint(checkpoint::Checkpoint),
    /// Reset the group to an older checkpoint while no replica runs.
    Rewind(rewind::Rewind),
    /// Publish a simulated shop's orders and sessions to Kafka.
    Simulate(simulate::Simulate),
    /// Check a configuration: exit 0 if it is valid, else 78 with a list of all mistakes.
    Validate(validate::Validate),
    /// Print the effective configuration, secrets redacted.
    Config(config::Config),
}

/// Runs the subcommand.
///
/// # Errors
/// When the subcommand fails; see [`exit_code`].
pub fn run(cli: Cli) -> Result<()> {
    match cli.verb {
        Verb::Demo(demo) => demo.run(),
        Verb::Run(run) => run.run(),
        Verb::Replay(replay) => replay.run(),
        Verb::Dlq(dlq) => dlq.run(),
        Verb::Bootstrap(bootstrap) => bootstrap.run(),
        Verb::Checkpoint(checkpoint) => checkpoint.run(),
        Verb::Rewind(rewind) => rewind.run(),
        Verb::Simulate(simulate) => simulate.run(),
        Verb::Validate(validate) => validate.run(),
        Verb::Explain(explain) => explain.run(),
        Verb::Config(config) => config.run(),
    }
}

/// `--config FILE`.
#[derive(Debug, clap::Args)]
pub struct ConfigFile {
    /// The configuration file (TOML); without one, defaults and environment variables apply.
    #[arg(long = "config", value_name = "FILE")]
    path: Option<PathBuf>,
}

impl ConfigFile {
    fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Loads the settings with secrets.
    fn load(&self, without_secrets: bool) -> Result<Settings, ConfigErrors> {
        if without_secrets { self.load_without_secrets() } else { Settings::load(self.path(), std::env::vars()) }
    }

    /// Loads the settings without secrets, for subcommands that make no connections: no secret file is opened.
    fn load_without_secrets(&self) -> Result<Settings, ConfigErrors> {
        Settings::load_without_secrets(self.path(), std::env::vars())
    }
}

/// 78 (`EX_CONFIG`) if the configuration or the cluster must be changed, 75 (`EX_TEMPFAIL`) if another instance took
/// over, 1 otherwise.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<SourceError>() {
        Some(SourceError::Configuration(_)) => 78,
        Some(SourceError::Fenced(_)) => 75,
        Some(SourceError::Unavailable(_)) => 1,
        None if error.is::<ConfigErrors>() => 78,
        None => error.downcast_ref::<explain::ExplainError>().map_or(1, explain::ExplainError::code),
    }
}

/// Prints an error to standard error.
#[expect(clippy::print_stderr, reason = "the final error of the program")]
pub fn print_error(error: &anyhow::Error) {
    eprintln!("retentiond: {error:#}");
}

/// Logs to standard error: text on a terminal, JSON otherwise.
pub fn start_logging(filter: Option<&str>) {
    let filter = EnvFilter::builder().parse_lossy(filter.unwrap_or("info"));
    let terminal = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| progress::AboveBars);
    if terminal {
        log.with_target(false).init();
    } else {
        log.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    }
}

/// Parses RFC 3339 or epoch milliseconds.
fn parse_time(text: &str) -> Result<Time, String> {
    Time::parse_or_millis(text).map_err(|error| error.to_string())
}

/// Parses the name of a message format.
fn parse_format(text: &str) -> Result<Format, String> {
    let names = || Format::ALL.map(Format::name).join(", ");
    Format::ALL.into_iter().find(|format| format.name() == text).ok_or_else(|| format!("write one of {}", names()))
}

/// Prints a result to standard output. A closed pipe (`| head`) is not an error. A full disk is, and ends the program
/// with 74 (`EX_IOERR`), because a truncated result looks like a complete one.
fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let printed = writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush());
    match printed {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            print_error(&anyhow::Error::new(error).context("cannot write to standard output"));
            std::process::exit(74);
        }
        _ => {}
    }
}

/// Makes a write beyond the file size limit (`ulimit -f`, systemd's `LimitFSIZE`) fail with an error that names the
/// file, instead of ending the process with SIGXFSZ.
pub fn survive_file_size_limit() {
    /// The number on all Linux architectures except MIPS.
    const SIGXFSZ: i32 = 25;
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
    let _within = runtime.enter();
    // The handler stays for the life of the process, even without the runtime and the stream.
    _ = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(SIGXFSZ));
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// As [`stop_requested`], but a second request exits immediately; records since the last checkpoint are then read
/// again.
async fn stop_requested_or_twice() {
    stop_requested().await;
    tokio::spawn(async {
        stop_requested().await;
        tracing::warn!("second stop request: exiting immediately");
        std::process::exit(1);
    });
}

/// Completes when the program is asked to stop: by SIGTERM, Ctrl-C, or SIGHUP (closed terminal).
async fn stop_requested() {
    use tokio::signal::unix::{SignalKind, signal};
    let [term, interrupt, hangup] =
        [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    // Without handlers the signals end the process, which also stops it.
    let (Ok(mut term), Ok(mut interrupt), Ok(mut hangup)) = (term, interrupt, hangup) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {
            tracing::info!("SIGHUP: shutting down; configuration changes take effect at the next start");
        }
    }
}
