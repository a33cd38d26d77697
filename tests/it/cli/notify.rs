//! Notifications to the service manager.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::support::daemon::Launch;
use crate::support::{free_port, scratch};

/// No broker answers; the daemon serves HTTP and waits for one.
#[test]
fn the_service_manager_is_notified_of_start_life_and_stop() {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let path = dir.path().join("notify");
    let listener = UnixDatagram::bind(&path).unwrap();
    listener.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let received = || {
        let mut bytes = [0; 64];
        let length = listener.recv(&mut bytes).expect("a message within 30 s");
        String::from_utf8(bytes[..length].to_vec()).unwrap().trim_end().to_owned()
    };
    let config = format!("[kafka]\nbrokers = \"127.0.0.1:{}\"\n", free_port());
    let mut daemon = Launch::verb("run")
        .config(config)
        .http_port(free_port())
        .env("NOTIFY_SOCKET", path.to_str().unwrap())
        .env("WATCHDOG_USEC", "200000")
        .start();
    assert_eq!(received(), "READY=1");
    assert_eq!(daemon.get("/healthz").0, 200, "what is ready answers");
    for _ in 0..3 {
        assert_eq!(received(), "WATCHDOG=1");
    }
    daemon.terminate();
    let last = std::iter::repeat_with(received).find(|message| message != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
    assert_eq!(daemon.wait_exit(Duration::from_secs(60)).code(), Some(0), "{}", daemon.stderr());
}

/// A socket that cannot be used is logged; the daemon serves all the same.
#[test]
fn an_unusable_notify_socket_is_logged() {
    // A separate group, because only one process may use a group and instance id at a time.
    let config = format!("[kafka]\nbrokers = \"127.0.0.1:{}\"\ngroup_id = \"unusable-socket\"\n", free_port());
    let mut daemon =
        Launch::verb("run").config(config).http_port(free_port()).env("NOTIFY_SOCKET", "/nowhere/at/all").start();
    daemon.wait_for("/healthz to answer 200", Duration::from_secs(30), |daemon| {
        daemon.try_get("/healthz", &[]).is_ok_and(|(status, _)| status == 200).then_some(())
    });
    daemon.terminate();
    assert_eq!(daemon.wait_exit(Duration::from_secs(60)).code(), Some(0), "{}", daemon.stderr());
    assert!(daemon.stderr().contains("cannot notify the service manager"), "{}", daemon.stderr());
}
