//! What the service manager is told: that the daemon serves, that its poll loop goes round, that it stops.
//!
//! The protocol of sd_notify(3): one datagram a message to the socket that `NOTIFY_SOCKET` names. Without that variable nobody is
//! told and nothing is lost.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::warn;

use crate::http::health;
use crate::source::status::SourceStatus;

/// The service manager, if there is one that wants to know.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// It ends a process that has been silent for so long.
    watchdog: Option<Duration>,
}

impl Manager {
    /// As the variables of sd_notify(3) and sd_watchdog_enabled(3) say; `process` is the number of this one. A socket that
    /// cannot be used is logged and left alone: the daemon runs all the same.
    #[must_use]
    pub fn new(variable: impl Fn(&str) -> Option<String>, process: u32) -> Manager {
        let Some(name) = variable("NOTIFY_SOCKET") else { return Manager::default() };
        let socket = address(&name).and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            // A manager that does not listen must not hold the daemon up.
            socket.set_nonblocking(true)?;
            Ok((socket, address))
        });
        let socket = socket.inspect_err(|error| warn!("NOTIFY_SOCKET is {name:?}: {error}; nobody is told")).ok();
        let ours = variable("WATCHDOG_PID").is_none_or(|id| id == process.to_string());
        let micros = variable("WATCHDOG_USEC").filter(|_| ours).and_then(|micros| micros.parse().ok());
        Manager { socket, watchdog: micros.filter(|&micros| micros > 0).map(Duration::from_micros) }
    }

    /// HTTP answers. Partitions may still be loaded and read, which may take its time and is what `/readyz` tells.
    pub fn serving(&self) {
        self.tell("READY=1");
    }

    /// The daemon stops as it was asked to.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Tells twice in every watchdog time that the poll loop goes round, for as long as it does; never ends.
    pub async fn keep_alive(&self, source: watch::Receiver<SourceStatus>) {
        let Some(every) = self.watchdog else { return std::future::pending().await };
        let started = Instant::now();
        let mut ticks = tokio::time::interval(every / 2);
        loop {
            ticks.tick().await;
            self.pulse(&source.borrow(), started, Instant::now());
        }
    }

    fn pulse(&self, source: &SourceStatus, started: Instant, now: Instant) {
        match health::alive(source, started, now) {
            Ok(()) => self.tell("WATCHDOG=1"),
            Err(why) => warn!("the service manager is not told that all is well: {why}"),
        }
    }

    fn tell(&self, message: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            warn!("the service manager was not told {message}: {error}");
        }
    }
}

/// A path, or a name of Linux's abstract namespace behind `@`.
fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(listener: &UnixDatagram) -> String {
        listener.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut bytes = [0; 64];
        let length = listener.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    fn manager(variables: &[(&str, &str)]) -> Manager {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Manager::new(find, 7)
    }

    #[test]
    fn tells_sockets_with_a_path_and_abstract_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        manager(&[("NOTIFY_SOCKET", path.to_str().unwrap())]).serving();
        assert_eq!(told(&listener), "READY=1");

        let name = format!("retentiond-test-{}", std::process::id());
        let listener = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        manager(&[("NOTIFY_SOCKET", &format!("@{name}"))]).stopping();
        assert_eq!(told(&listener), "STOPPING=1");
    }

    #[test]
    fn without_a_socket_that_works_nothing_happens() {
        for name in ["/nowhere/at/all", "/", &"x".repeat(200)] {
            manager(&[("NOTIFY_SOCKET", name)]).serving();
        }
        manager(&[]).serving();
    }

    #[test]
    fn a_manager_that_does_not_listen_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _listener = UnixDatagram::bind(&path).unwrap();
        let manager = manager(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
        for _ in 0..10_000 {
            manager.serving();
        }
    }

    #[test]
    fn the_watchdog_is_meant_for_one_process() {
        let socket = ("NOTIFY_SOCKET", "/nowhere");
        let of = |pid| manager(&[socket, ("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", pid)]).watchdog;
        assert_eq!(of("7"), Some(Duration::from_secs(3)));
        assert_eq!(of("8"), None);
        assert_eq!(manager(&[socket, ("WATCHDOG_USEC", "20")]).watchdog, Some(Duration::from_micros(20)));
        assert_eq!(manager(&[socket, ("WATCHDOG_USEC", "0")]).watchdog, None);
        assert_eq!(manager(&[socket]).watchdog, None);
    }

    #[test]
    fn a_poll_loop_that_hangs_is_not_called_well() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let manager = manager(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
        let start = Instant::now();
        let polled = SourceStatus { last_poll: Some(start), ..SourceStatus::default() };
        manager.pulse(&polled, start, start + Duration::from_secs(30));
        assert_eq!(told(&listener), "WATCHDOG=1");
        manager.pulse(&polled, start, start + Duration::from_secs(31));
        assert_eq!(listener.recv(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
