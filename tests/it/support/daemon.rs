//! The built program as a process.
//!
//! ```ignore
//! let launch = Launch::verb("run").config(&toml).http_port(free_port());
//! let mut daemon = launch.start();
//! daemon.wait_ready(Duration::from_secs(30));
//! daemon.kill9();
//! let daemon = launch.start(); // the same configuration again
//! ```

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::process::{Process, Signal};
use super::{poll_until, scratch, tail};

const REQUEST: Duration = Duration::from_secs(10);
const LARGEST_BODY: u64 = 256 << 20;

/// How to start the program; can be started any number of times.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    args: Vec<OsString>,
    config: Option<String>,
    env: Vec<(String, String)>,
    http_port: Option<u16>,
    /// Command that starts the program, if any.
    within: Vec<String>,
}

/// A running program, killed on drop. Its standard streams are redirected to files.
pub struct Daemon {
    process: Process,
    http_port: Option<u16>,
    agent: ureq::Agent,
    dir: TempDir,
}

impl Launch {
    /// `retentiond VERB`.
    pub fn verb(verb: &str) -> Launch {
        Launch::default().arg(verb)
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Launch {
        self.args.push(arg.into());
        self
    }

    /// Adds `--config FILE`, a file with this TOML text.
    pub fn config(mut self, toml: impl Into<String>) -> Launch {
        self.config = Some(toml.into());
        self
    }

    /// Starts the program through another command, which must `exec` its remaining arguments.
    pub fn within(mut self, words: &[&str]) -> Launch {
        self.within = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Sets an environment variable; `RETENTIOND__*` variables of the test run are never passed on.
    pub fn env(mut self, name: &str, value: &str) -> Launch {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets `http.listen` to this port of 127.0.0.1 ([`super::free_port`]) through the environment.
    pub fn http_port(mut self, port: u16) -> Launch {
        self.http_port = Some(port);
        self
    }

    /// Starts the program.
    pub fn start(&self) -> Daemon {
        let dir = tempfile::Builder::new().prefix("daemon-").tempdir_in(scratch()).expect("a directory for the daemon");
        const PROGRAM: &str = env!("CARGO_BIN_EXE_retentiond");
        let mut words = self.within.iter().map(String::as_str).chain([PROGRAM]);
        let mut command = Command::new(words.next().unwrap_or(PROGRAM));
        command.args(words);
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RETENTIOND__")) {
            command.env_remove(name);
        }
        command.args(&self.args);
        if let Some(toml) = &self.config {
            let path = dir.path().join("retentiond.toml");
            fs::write(&path, toml).expect("the configuration is written");
            command.arg("--config").arg(path);
        }
        if let Some(port) = self.http_port {
            command.env("RETENTIOND__HTTP__LISTEN", format!("127.0.0.1:{port}"));
        }
        // All daemons share a store, in which each group has its own directory.
        let store = scratch().join(format!("store-{}", std::process::id()));
        command.env("RETENTIOND__CHECKPOINT__URL", format!("file://{}", store.display()));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdout(File::create(dir.path().join("stdout")).expect("a file for standard output"));
        command.stderr(File::create(dir.path().join("stderr")).expect("a file for standard error"));
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(REQUEST))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .new_agent();
        let process = Process::spawn(&mut command, Some(dir.path()));
        Daemon { process, http_port: self.http_port, agent, dir }
    }
}

impl Daemon {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Address of the HTTP server, such as `127.0.0.1:9736`.
    pub fn http_addr(&self) -> String {
        format!("127.0.0.1:{}", self.http_port.expect("started with a port for HTTP"))
    }

    /// Status and body of `GET path`, whatever the status.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.try_get(path, &[])
            .unwrap_or_else(|error| panic!("GET {path}: {error}\nstandard error:\n{}", self.stderr_tail()))
    }

    /// Like [`Daemon::get`], with headers; returns connection errors.
    ///
    /// # Errors
    /// If the request fails.
    pub fn try_get(&self, path: &str, headers: &[(&str, &str)]) -> Result<(u16, String), ureq::Error> {
        let request = self.agent.get(format!("http://{}{path}", self.http_addr()));
        let request = headers.iter().fold(request, |request, &(name, value)| request.header(name, value));
        let mut answer = request.call()?;
        let body = answer.body_mut().with_config().limit(LARGEST_BODY).read_to_string()?;
        Ok((answer.status().as_u16(), body))
    }

    /// The body of `GET path` as JSON; panics unless the status is 200.
    pub fn get_json(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.get(path);
        assert!(status == 200, "GET {path}: {status}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("GET {path}: {error}: {body}"))
    }

    /// Waits until `/readyz` answers 200; panics at the deadline or if the program ends.
    pub fn wait_ready(&mut self, deadline: Duration) {
        self.wait_for("/readyz to answer 200", deadline, |daemon| {
            daemon.try_get("/readyz", &[]).is_ok_and(|(status, _)| status == 200).then_some(())
        });
    }

    /// Like [`super::wait_for`], but panics as soon as the program ends, with its standard error.
    pub fn wait_for<T>(&mut self, what: &str, deadline: Duration, probe: impl Fn(&Daemon) -> Option<T>) -> T {
        let answer = poll_until(deadline, || match probe(self) {
            Some(answer) => Some(Ok(answer)),
            None => self.process.status().map(|status| Err(format!("it ended: {status}"))),
        });
        answer
            .unwrap_or_else(|| Err(format!("{deadline:?} have passed")))
            .unwrap_or_else(|why| panic!("waited in vain for {what}: {why}"))
    }

    /// Sends SIGKILL and waits until the process is gone.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// Sends SIGTERM for an orderly shutdown; see [`Daemon::wait_exit`].
    pub fn terminate(&mut self) {
        self.process.signal(Signal::Terminate);
    }

    /// Sends SIGSTOP, like a long pause of the machine.
    pub fn pause(&mut self) {
        self.process.signal(Signal::Pause);
    }

    /// Sends SIGCONT.
    pub fn resume(&mut self) {
        self.process.signal(Signal::Resume);
    }

    /// Sends any other signal.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Whether it is still running.
    pub fn runs(&mut self) -> bool {
        self.process.status().is_none()
    }

    /// Waits for the exit status; panics at the deadline.
    pub fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        self.process.wait_exit(deadline).unwrap_or_else(|| panic!("the program did not end within {deadline:?}"))
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    fn read(&self, stream: &str) -> String {
        let bytes = fs::read(self.path(stream)).expect("the stream's file can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn path(&self, stream: &str) -> PathBuf {
        self.dir.path().join(stream)
    }

    fn stderr_tail(&self) -> String {
        tail(&self.path("stderr"), 40)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("standard error of process {}:\n{}", self.id(), self.stderr_tail());
        }
    }
}
