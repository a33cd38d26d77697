//! Checkpoints in a bucket, through a cloud client. Needs the feature `cloud`.

use std::process::Command;

use super::common::{PATIENCE, Rig, assert_equals_replay, metrics, summary};
use super::durability::{LAST, PARTITIONS, last_orders, launch, native, publish, replay};
use super::figures::{KNOWN, wait_for_share};
use crate::support::daemon::Launch;
use crate::support::process::Process;
use crate::support::skip::{Need, Skip, or_skip};
use crate::support::{free_port, history, kafka, oracle, scratch, wait_for};

/// An in-memory S3 server: moto, a Python package.
struct Buckets {
    _server: Process,
    address: String,
}

impl Buckets {
    /// # Errors
    /// [`Skip`] without the package.
    fn start() -> Result<Buckets, Skip> {
        let python = oracle::Oracle::find()?.python().to_owned();
        let tried = Command::new(&python).args(["-c", "import moto.server"]).output();
        if !tried.as_ref().is_ok_and(|output| output.status.success()) {
            return Err(Skip {
                need: "needs the Python package moto[server] for buckets",
                because: format!("{tried:?}"),
                required_as: Need::Bucket,
            });
        }
        let port = free_port().to_string();
        let mut command = Command::new(python);
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port]).current_dir(scratch());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let buckets =
            Buckets { _server: Process::spawn(&mut command, None), address: format!("http://127.0.0.1:{port}") };
        let bucket = format!("{}/shop", buckets.address);
        wait_for("a bucket", PATIENCE, || ureq::put(&bucket).send_empty().ok());
        Ok(buckets)
    }

    /// The same command, with a bucket as the store.
    fn under(&self, launch: Launch) -> Launch {
        let settings = [
            ("RETENTIOND__CHECKPOINT__URL", "s3://shop/states/eu"),
            ("AWS_ENDPOINT", self.address.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "someone"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "us-east-1"),
        ];
        settings.into_iter().fold(launch, |launch, (name, value)| launch.env(name, value))
    }

    /// The names of all objects.
    fn names(&self) -> Vec<String> {
        let mut answer = ureq::get(format!("{}/shop?list-type=2&max-keys=1000", self.address)).call().unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let names = text.split("<Key>").skip(1);
        names.map(|rest| rest.split("</Key>").next().unwrap().to_owned()).collect()
    }
}

#[test]
fn another_machine_goes_on_with_the_state_in_the_bucket() {
    let Some(broker) = kafka::shared_or_skip() else { return };
    let Some(buckets) = or_skip(Buckets::start()) else { return };
    let rig = Rig { commit_every: "200ms", more: KNOWN, ..Rig::new(broker) };
    rig.create_topics(broker, PARTITIONS);
    let orders = native(history::disorder(&history::cdnow_sample(), 0));
    let (before, after) = orders.split_at(orders.len() / 2);
    let last = last_orders();

    publish(broker, &rig.orders, before);
    let mut one = buckets.under(launch(&rig, "one")).start();
    one.wait_ready(PATIENCE);
    wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
    // Superseded files are deleted, and every object is below the prefix.
    for orders in after.chunks(after.len() / 8 + 1) {
        publish(broker, &rig.orders, orders);
        wait_for("all offsets to be committed", PATIENCE, || rig.all_committed(broker).then_some(()));
    }
    one.kill9();
    let names = buckets.names();
    assert!(names.contains(&"states/eu/store.json".to_owned()), "{names:?}");
    assert!(names.iter().all(|name| name.starts_with("states/eu/")), "{names:?}");

    let listed = buckets.under(Launch::verb("checkpoint").arg("ls").config(rig.config("anyone"))).start();
    let mut listed = listed;
    assert_eq!(listed.wait_exit(PATIENCE).code(), Some(0), "{}", listed.stderr());
    assert!((0..PARTITIONS).all(|partition| listed.stdout().contains(&format!("p{partition}"))), "{}", listed.stdout());

    let mut other = buckets.under(launch(&rig, "other")).start();
    wait_for_share(&mut other, i64::from(PARTITIONS));
    assert!(metrics(&other).nonzero("retentiond_events_total").is_empty(), "nothing is read again");
    publish(broker, &rig.orders, &last);
    other.wait_for("the last orders", PATIENCE, |other| (summary(other)["as_of"] == LAST).then_some(()));
    assert_equals_replay(&summary(&other), &replay(&[&orders, &last], LAST));
    other.terminate();
    assert_eq!(other.wait_exit(PATIENCE).code(), Some(0), "{}", other.stderr());
}
