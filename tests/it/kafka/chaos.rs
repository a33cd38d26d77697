//! Disturbances around a replica: it pauses past its session, brokers die under load, replicas join and leave, the disk
//! fills up or turns read-only. Nothing is lost or repeated.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::common::{PATIENCE, Rig, assert_equals_replay, metrics, readiness, summary};
use super::durability::{
    LAST, Line, Load, PARTITIONS, assert_dead_letters, last_orders, launch, native, next, publish,
};
use super::durability::{replay, sessions};
use super::figures::{KNOWN, assert_adds_up, wait_for_share};
use crate::support::daemon::{Daemon, Launch};
use crate::support::effort::effort;
use crate::support::history;
use crate::support::kafka::{self, Broker};
use crate::support::skip::{Need, Skip, or_skip};
use crate::support::{scratch, wait_for};

const ALL: usize = PARTITIONS as usize;

/// The messages of a test, and how many are published.
struct Shop {
    orders: Vec<Line>,
    sessions: Vec<Line>,
}

impl Shop {
    fn new() -> Shop {
        let sales = history::cdnow_master();
        Shop { orders: native(history::disorder(&sales, 0)), sessions: sessions(&sales) }
    }

    /// All of it in about this many portions.
    fn load<'a>(&'a self, broker: &'a Broker, rig: &'a Rig, portions: usize) -> Load<'a> {
        let sizes = [&self.orders, &self.sessions].map(|lines| lines.len().div_ceil(portions));
        Load { broker, rig, orders: &self.orders, sessions: &self.sessions, sizes, portions: 0 }
    }

    /// Publishes the rest, and compares the figures of these replicas, which own everything together, with a run over
    /// everything; each broken message has one dead letter.
    fn finish(&self, load: Load<'_>, replicas: &mut [Daemon]) {
        let Load { broker, rig, orders, sessions, portions, .. } = load;
        publish(broker, &rig.orders, orders);
        publish(broker, &rig.sessions, sessions);
        let last = last_orders();
        publish(broker, &rig.orders, &last);
        wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
        let whole = replay(&[&self.orders, &self.sessions, &last], LAST);
        let parts = wait_for("replicas that own everything, caught up", PATIENCE, || {
            let ready = replicas.iter().all(|replica| readiness(replica).is_some_and(|(status, _)| status == 200));
            let parts: Vec<_> = replicas.iter().map(summary).collect();
            let assigned: i64 = parts.iter().filter_map(|part| part["partitions_assigned"].as_i64()).sum();
            let done = parts.iter().all(|part| part["partitions_assigned"] == 0 || part["as_of"] == LAST);
            (ready && done && assigned == i64::from(PARTITIONS)).then_some(parts)
        });
        let parts: Vec<_> = parts.into_iter().filter(|part| part["partitions_assigned"] != 0).collect();
        match &parts[..] {
            [only] => assert_equals_replay(only, &whole),
            parts => assert_adds_up(parts, &whole),
        }
        assert_eq!(assert_dead_letters(broker, rig), portions * (ALL + 1));
    }
}

fn rig(broker: &Broker) -> Rig {
    let rig = Rig { commit_every: "200ms", more: KNOWN, ..Rig::new(broker) };
    rig.create_topics(broker, PARTITIONS);
    broker.create_topic(&rig.dead_letters, 2);
    rig
}

#[test]
fn a_replica_that_stood_still_past_its_session_commits_nothing_stale() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let (rig, shop) = (rig(broker), Shop::new());
    let rounds = 3;
    let mut load = shop.load(broker, &rig, 30 * rounds);
    let mut chance = ChaCha8Rng::seed_from_u64(21);
    let launches = ["one", "other"].map(|instance| launch(&rig, instance));
    let mut replicas = launches.each_ref().map(Launch::start);
    replicas.iter_mut().for_each(|replica| wait_for_share(replica, i64::from(PARTITIONS) / 2));
    for round in 0..rounds {
        let sleeper = round % 2;
        let before = next(broker, &rig);
        load.until_committed_beyond(&mut replicas[sleeper], &before, ALL);
        // It pauses at any point of a checkpoint.
        (0..chance.random_range(0..8)).for_each(|_| load.publish_some());
        replicas[sleeper].pause();
        // Its session ends, and the other replica takes everything over and continues.
        let before = next(broker, &rig);
        load.until_committed_beyond(&mut replicas[1 - sleeper], &before, ALL);
        replicas[sleeper].resume();
        let before = next(broker, &rig);
        load.until_committed_beyond(&mut replicas[1 - sleeper], &before, ALL);
        // The group has removed the member: it rejoins, or was fenced and exits.
        if !replicas[sleeper].runs() {
            assert_eq!(replicas[sleeper].wait_exit(PATIENCE).code(), Some(75), "{}", replicas[sleeper].stderr());
            replicas[sleeper] = launches[sleeper].start();
        }
        let share = i64::from(PARTITIONS) / 2;
        load.until_shared(&mut replicas, share);
    }
    shop.finish(load, &mut replicas);
}

#[test]
fn brokers_that_die_under_load_lose_and_repeat_nothing() {
    let Some(mut broker) = kafka::start_or_skip() else { return };
    let (rig, shop) = (rig(&broker), Shop::new());
    let rounds = 3;
    let portions = 20 * rounds;
    let mut replicas = ["one", "other"].map(|instance| launch(&rig, instance).start());
    let mut chance = ChaCha8Rng::seed_from_u64(22);
    let mut published = 0;
    for _ in 0..rounds {
        let mut load = shop.load(&broker, &rig, portions).behind(published);
        let before = next(&broker, &rig);
        let [one, _] = &mut replicas;
        load.until_committed_beyond(one, &before, ALL);
        (0..chance.random_range(0..8)).for_each(|_| load.publish_some());
        published = load.portions;
        broker.kill();
        broker.restart();
    }
    shop.finish(shop.load(&broker, &rig, portions).behind(published), &mut replicas);
    for replica in &mut replicas {
        assert!(replica.runs(), "an outage is no reason to end: {}", replica.stderr());
    }
}

/// Joins and leaves of up to four replicas.
fn churn(kafka: &'static str, times: usize) {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let rig = Rig { kafka, ..rig(broker) };
    let shop = Shop::new();
    let mut load = shop.load(broker, &rig, 20 * times);
    let mut chance = ChaCha8Rng::seed_from_u64(23);
    let launches = ["one", "two", "three", "four"].map(|instance| launch(&rig, instance));
    // Running replicas, and all that ever ran.
    let mut running: Vec<(usize, Daemon)> = vec![(0, launches[0].start())];
    let mut gone = Vec::new();
    for _ in 0..times {
        let absent: Vec<usize> = (0..4).filter(|n| running.iter().all(|(running, _)| running != n)).collect();
        let joins = running.len() == 1 || (running.len() < 4 && chance.random_bool(0.5));
        if joins {
            let who = absent[chance.random_range(0..absent.len())];
            running.push((who, launches[who].start()));
        } else {
            let (_, mut leaver) = running.remove(chance.random_range(0..running.len()));
            if chance.random_bool(0.5) {
                leaver.terminate();
                assert_eq!(leaver.wait_exit(PATIENCE).code(), Some(0), "{}", leaver.stderr());
            } else {
                leaver.kill9();
            }
            gone.push(leaver);
        }
        (0..chance.random_range(0..10)).for_each(|_| load.publish_some());
        // Do not always wait for a stable group: the next change may come during a rebalance.
        if chance.random_bool(0.5) {
            let before = next(broker, &rig);
            load.until_committed_beyond(&mut running[0].1, &before, ALL);
        }
    }
    let mut running: Vec<Daemon> = running.into_iter().map(|(_, daemon)| daemon).collect();
    shop.finish(load, &mut running);
}

#[test]
fn replicas_that_come_and_go_lose_and_repeat_nothing() {
    churn("", effort().churn);
}

#[test]
fn replicas_that_come_and_go_by_the_brokers_own_protocol_lose_and_repeat_nothing() {
    churn("protocol = \"consumer\"", effort().churn);
}

/// A separate file system for a daemon, in its own mount namespace.
struct Disk {
    mountpoint: tempfile::TempDir,
}

impl Disk {
    /// # Errors
    /// [`Skip`] if namespaces are unavailable.
    fn new() -> Result<Disk, Skip> {
        let mountpoint = tempfile::tempdir_in(scratch()).unwrap();
        let disk = Disk { mountpoint };
        let mut tried = Command::new("unshare");
        tried.args(["--map-root-user", "--mount", "sh", "-c", &disk.mount("true")]);
        match tried.output() {
            Ok(output) if output.status.success() => Ok(disk),
            outcome => Err(Skip {
                need: "needs `unshare` with user namespaces to give a daemon a small disk",
                because: format!("{outcome:?}"),
                required_as: Need::Namespaces,
            }),
        }
    }

    fn mount(&self, then: &str) -> String {
        format!("mount -t tmpfs -o size=2m tmpfs '{}' && {then}", self.mountpoint.path().display())
    }

    /// The same command, with the disk.
    fn under(&self, launch: Launch) -> Launch {
        let url = format!("file://{}", self.mountpoint.path().display());
        let shell = ["unshare", "--map-root-user", "--mount", "sh", "-c", &self.mount("exec \"$@\""), "sh"];
        launch.within(&shell).env("RETENTIOND__CHECKPOINT__URL", &url)
    }

    /// The path of the daemon's disk from outside.
    fn of(&self, daemon: &Daemon) -> PathBuf {
        let inside = self.mountpoint.path().strip_prefix("/").unwrap();
        Path::new("/proc").join(daemon.id().to_string()).join("root").join(inside)
    }

    /// Makes a directory on the daemon's disk read-only, or writable again. Not the whole disk: the daemon holds its
    /// lock there.
    fn set_read_only(&self, daemon: &Daemon, directory: &str, on: bool) {
        let path = self.mountpoint.path().join(directory).display().to_string();
        let script = if on { "mount --bind \"$1\" \"$1\" && mount -o remount,ro,bind \"$1\"" } else { "umount \"$1\"" };
        let mut command = Command::new("nsenter");
        command.args(["--user", "--mount", "--preserve-credentials", "--target", &daemon.id().to_string()]);
        let output = command.args(["sh", "-c", script, "sh", &path]).output().expect("nsenter runs");
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn a_full_or_read_only_disk_holds_commits_but_not_figures() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let Some(disk) = or_skip(Disk::new()) else { return };
    let rig = Rig { commit_every: "200ms", more: KNOWN, ..Rig::new(broker) };
    rig.create_topics(broker, PARTITIONS);
    let orders = native(history::disorder(&history::cdnow_sample(), 0));
    let parts: Vec<&[Line]> = orders.chunks(orders.len() / 3 + 1).collect();
    let last = last_orders();
    publish(broker, &rig.orders, parts[0]);
    let mut daemon = disk.under(launch(&rig, "only")).start();
    daemon.wait_ready(PATIENCE);
    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));

    let filler = disk.of(&daemon).join("filler");
    let fill = || {
        let mut file = std::fs::File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 512]).is_ok() {}
    };
    for (trouble, words, lines) in [("full", "the disk is full", parts[1]), ("read-only", "Read-only", parts[2])] {
        let before = next(broker, &rig);
        match trouble {
            "full" => fill(),
            _ => disk.set_read_only(&daemon, &rig.group, true),
        }
        let seen = daemon.stderr().matches(words).count();
        publish(broker, &rig.orders, lines);
        if trouble == "read-only" {
            publish(broker, &rig.orders, &last);
        }
        daemon.wait_for(&format!("the {trouble} disk to be told, and figures that go on"), PATIENCE, |daemon| {
            let told = daemon.stderr().matches(words).count() >= seen + 2;
            let applied =
                metrics(daemon).get(&format!("retentiond_events_total{{topic=\"{}\",type=\"order\"}}", rig.orders));
            let sent: i64 = broker.end_offsets(&rig.orders).values().sum();
            (told && applied == Some(sent as f64)).then_some(())
        });
        assert_eq!(next(broker, &rig), before, "nothing is committed that is not on the {trouble} disk");
        match trouble {
            "full" => std::fs::remove_file(&filler).unwrap(),
            _ => disk.set_read_only(&daemon, &rig.group, false),
        }
        wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
    }
    assert_equals_replay(&summary(&daemon), &replay(&[&orders, &last], LAST));
    daemon.terminate();
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0), "{}", daemon.stderr());
}

#[test]
fn a_second_signal_ends_it_at_once_and_safely() {
    let Some(mut broker) = kafka::start_or_skip() else { return };
    let rig = rig(&broker);
    let orders = native(history::disorder(&history::cdnow_sample(), 0));
    let (before, after) = orders.split_at(orders.len() / 2);
    let last = last_orders();
    publish(&broker, &rig.orders, before);
    let launch = launch(&rig, "only");
    let mut daemon = launch.start();
    daemon.wait_ready(PATIENCE);
    // With paused brokers, an orderly stop would use its whole budget.
    publish(&broker, &rig.orders, after);
    broker.pause();
    daemon.terminate();
    daemon.wait_for("the first signal to be heard", PATIENCE, |daemon| {
        daemon.stderr().contains("stopping").then_some(())
    });
    assert!(daemon.runs());
    daemon.terminate();
    assert_eq!(daemon.wait_exit(Duration::from_secs(2)).code(), Some(1), "{}", daemon.stderr());
    broker.resume();
    publish(&broker, &rig.orders, &last);
    let mut daemon = launch.start();
    daemon.wait_ready(PATIENCE);
    daemon.wait_for("the last orders", PATIENCE, |daemon| (summary(daemon)["as_of"] == LAST).then_some(()));
    assert_equals_replay(&summary(&daemon), &replay(&[&orders, &last], LAST));
}
