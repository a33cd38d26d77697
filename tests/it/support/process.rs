//! A child process that cannot outlive the test run.
//!
//! Dropping a [`Process`] kills it. But statics are not dropped, and a killed test run drops nothing. So each child has
//! a watchdog: a shell that reads from a pipe whose other end only this process holds. If the pipe closes without a
//! line, the shell kills the child and removes its files. A line on the pipe dismisses the watchdog.

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

/// Signals that tests send.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    /// SIGTERM: requests an orderly end.
    Terminate,
    /// SIGHUP: sent when a terminal is closed.
    Hangup,
    /// SIGSTOP: pauses the process, like a long pause of the machine.
    Pause,
    /// SIGCONT: continues after [`Signal::Pause`].
    Resume,
}

impl Process {
    /// Starts `command` without standard input and in its own process group, so that Ctrl-C reaches only the tests.
    /// `left` is a directory that the watchdog removes if the test run dies.
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

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if the child has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("the child can be asked");
            if self.ended.is_some() {
                self.stand_down();
            }
        }
        self.ended
    }

    /// The exit status, or `None` if the child is still running at the deadline.
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

    /// Sends SIGKILL and waits until the child is gone.
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
            // Fails only if the watchdog is already gone, which is fine.
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
