//! A child process that cannot outlive the test run.
//!
//! Dropping a [`Process`] kills it. Statics are not dropped, and a killed test run drops nothing, so a watchdog stands
//! beside each child: a shell that reads from a pipe whose other end only this process holds. When that end closes
//! without a word, the shell kills the child and removes what it left. A line on the pipe stands it down.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::poll_until;

const WATCHDOG: &str = r#"
if read -r line; then exit 0; fi
kill -s KILL "$1" 2>/dev/null
tries=0
while kill -s 0 "$1" 2>/dev/null && [ "$tries" -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.05
done
if [ -n "$2" ]; then rm -rf -- "$2"; fi
"#;

/// A running or ended child.
pub struct Process {
    child: Child,
    watchdog: Child,
    ended: Option<ExitStatus>,
}

/// What a test may tell a running child.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    /// SIGTERM: please end.
    Terminate,
    /// SIGHUP: what a terminal that is closed sends.
    Hangup,
    /// SIGSTOP: stands still without ending, as a long pause of the machine would.
    Pause,
    /// SIGCONT: goes on after [`Signal::Pause`].
    Resume,
}

impl Process {
    /// Starts `command` without standard input and in a process group of its own, so that a Ctrl-C reaches the tests
    /// alone. `left` is a directory to remove if the test run dies before it can.
    pub fn spawn(command: &mut Command, left: Option<&Path>) -> Process {
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program()));
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog", &child.id().to_string()])
            .arg(left.unwrap_or(Path::new("")))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        Process { child, watchdog, ended: None }
    }

    /// The operating system's number of the child.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status once the child has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("the child can be asked");
            if self.ended.is_some() {
                self.stand_down();
            }
        }
        self.ended
    }

    /// The exit status, or none if the child still runs at the deadline.
    pub fn wait_exit(&mut self, deadline: Duration) -> Option<ExitStatus> {
        poll_until(deadline, || self.status())
    }

    /// Sends `signal` to the child unless it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.status().is_some() {
            return;
        }
        let name = match signal {
            Signal::Terminate => "TERM",
            Signal::Hangup => "HUP",
            Signal::Pause => "STOP",
            Signal::Resume => "CONT",
        };
        let command = format!("kill -s {name} {}", self.id());
        let sent = Command::new("sh").args(["-c", &command]).status().expect("sh runs");
        assert!(sent.success(), "cannot send {signal:?} to process {}", self.id());
    }

    /// SIGKILL, and waits until the child is gone.
    pub fn kill(&mut self) -> ExitStatus {
        if let Some(status) = self.status() {
            return status;
        }
        self.child.kill().expect("the child can be killed");
        let status = self.child.wait().expect("the child can be awaited");
        self.ended = Some(status);
        self.stand_down();
        status
    }

    fn stand_down(&mut self) {
        if let Some(mut pipe) = self.watchdog.stdin.take() {
            // Fails only if the watchdog is gone already, which is as good.
            let _ = pipe.write_all(b"done\n");
            drop(pipe);
            let _ = self.watchdog.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
