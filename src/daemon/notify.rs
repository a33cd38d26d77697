//! Reports to the service manager through sd_notify(3): serving, poll loop alive, stopping.

use std::io;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::watch;
use tracing::warn;

use crate::http::health;
use crate::status::SourceStatus;

/// HTTP is up. Partitions may still be restoring or catching up, which `/readyz` reports.
pub fn serving() {
    send(&NotifyState::Ready);
}

/// The daemon is shutting down.
pub fn stopping() {
    send(&NotifyState::Stopping);
}

/// Sends two keep-alives per watchdog interval while the poll loop is alive; never returns.
pub async fn keep_alive(source: watch::Receiver<SourceStatus>) {
    let Some(interval) = sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero()) else {
        return std::future::pending().await;
    };
    let started = Instant::now();
    let mut ticks = tokio::time::interval((interval / 2).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        if is_alive(&source.borrow(), started, Instant::now()) {
            // The call blocks if the service manager does not read.
            _ = tokio::task::spawn_blocking(|| send(&NotifyState::Watchdog)).await;
        }
    }
}

fn is_alive(source: &SourceStatus, started: Instant, now: Instant) -> bool {
    health::alive(source, started, now).inspect_err(|why| warn!("withholding the watchdog keep-alive: {why}")).is_ok()
}

fn send(state: &NotifyState<'_>) {
    // Without NOTIFY_SOCKET this does nothing.
    let sent: io::Result<()> = sd_notify::notify(std::slice::from_ref(state));
    if let Err(error) = sent {
        warn!("cannot notify the service manager (NOTIFY_SOCKET): {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keep_alive_is_withheld_when_the_poll_loop_hangs() {
        let start = Instant::now();
        let polled = SourceStatus { last_poll: Some(start), ..SourceStatus::default() };
        assert!(is_alive(&polled, start, start + Duration::from_secs(30)));
        assert!(!is_alive(&polled, start, start + Duration::from_secs(31)));
    }
}
