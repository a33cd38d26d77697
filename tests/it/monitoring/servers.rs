//! Prometheus and Alertmanager with the project's own files, on their own ports and without delays.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::read;
use crate::support::process::Process;
use crate::support::skip::{Need, Skip};
use crate::support::{free_port, scratch, tail, wait_for};

const START: Duration = Duration::from_secs(60);
const RULES: [&str; 3] = ["rules.yml", "targets.yml", "alerts.yml"];

/// Both servers, stopped on drop.
pub struct Servers {
    prometheus: u16,
    alertmanager: u16,
    agent: ureq::Agent,
    _processes: [Process; 2],
    dir: TempDir,
}

/// # Errors
/// [`Skip`] unless both are installed.
pub fn find() -> Result<(), Skip> {
    for program in ["prometheus", "promtool", "prometheus-alertmanager"] {
        if let Err(error) = Command::new(program).arg("--version").output() {
            return Err(Skip {
                need: "needs Prometheus and Alertmanager, of Debian's packages prometheus and prometheus-alertmanager",
                because: format!("{program}: {error}"),
                required_as: Need::Prometheus,
            });
        }
    }
    Ok(())
}

impl Servers {
    /// Starts both. Prometheus scrapes the daemon at `target` as the job in `deploy/prometheus/prometheus.yml`, imports
    /// `history` (OpenMetrics), and evaluates the rules in `deploy/` every second; alerts fire without waiting.
    pub fn start(target: &str, history: &str) -> Servers {
        let dir = tempfile::Builder::new().prefix("prometheus-").tempdir_in(scratch()).unwrap();
        let (prometheus, alertmanager) = (free_port(), free_port());
        for name in RULES {
            fs::write(dir.path().join(name), hurried(&read(&format!("deploy/prometheus/{name}")))).unwrap();
        }
        let config = read("deploy/prometheus/prometheus.yml").replace("15s", "1s");
        let config = replaced(&config, "127.0.0.1:9736", target);
        let config = replaced(&config, "127.0.0.1:9093", &format!("127.0.0.1:{alertmanager}"));
        fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        fs::write(dir.path().join("alertmanager.yml"), read("deploy/alertmanager/alertmanager.yml")).unwrap();
        import(dir.path(), history);
        let log = |name: &str| File::create(dir.path().join(name)).unwrap();
        let mut command = Command::new("prometheus");
        command
            .current_dir(dir.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--storage.tsdb.retention.time=10y"])
            .arg(format!("--web.listen-address=127.0.0.1:{prometheus}"))
            .stdout(log("prometheus.out"))
            .stderr(log("prometheus.log"));
        let first = Process::spawn(&mut command, Some(dir.path()));
        let mut command = Command::new("prometheus-alertmanager");
        command
            .current_dir(dir.path())
            .args(["--config.file=alertmanager.yml", "--storage.path=alerts", "--cluster.listen-address="])
            .arg(format!("--web.listen-address=127.0.0.1:{alertmanager}"))
            .stdout(log("alertmanager.out"))
            .stderr(log("alertmanager.log"));
        let second = Process::spawn(&mut command, Some(dir.path()));
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(20)))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .new_agent();
        let servers = Servers { prometheus, alertmanager, agent, _processes: [first, second], dir };
        for (name, port) in [("prometheus", prometheus), ("alertmanager", alertmanager)] {
            let ready = || servers.get(port, "/-/ready", &[]).filter(|(status, _)| *status == 200);
            let log = tail(&servers.dir.path().join(format!("{name}.log")), 20);
            wait_for(&format!("{name} to be ready\n{log}"), START, ready);
        }
        servers
    }

    fn get(&self, port: u16, path: &str, query: &[(&str, &str)]) -> Option<(u16, String)> {
        let request = self.agent.get(format!("http://127.0.0.1:{port}{path}"));
        let mut answer = request.query_pairs(query.iter().copied()).call().ok()?;
        Some((answer.status().as_u16(), answer.body_mut().read_to_string().ok()?))
    }

    /// The current samples of a query: labels and value.
    ///
    /// # Errors
    /// The error that Prometheus returns.
    pub fn query(&self, query: &str) -> Result<Vec<(Value, f64)>, String> {
        let (_, body) = self.get(self.prometheus, "/api/v1/query", &[("query", query)]).ok_or("no answer")?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let samples = answer["data"]["result"].as_array().ok_or("no vector")?;
        let number = |sample: &Value| sample["value"][1].as_str().and_then(|text| text.parse().ok());
        Ok(samples.iter().map(|sample| (sample["metric"].clone(), number(sample).expect("a number"))).collect())
    }

    /// The alerts that Alertmanager has received.
    pub fn received(&self) -> Vec<Value> {
        let (status, body) = self.get(self.alertmanager, "/api/v2/alerts", &[]).expect("Alertmanager answers");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("a list of alerts")
    }
}

/// The rules without delays: each group is evaluated every second, and no alert waits as pending.
fn hurried(rules: &str) -> String {
    let line = |line: &str| match line.trim_start() {
        rest if rest.starts_with("for: ") => line.replace(rest, "for: 0s"),
        rest if rest.starts_with("interval: ") => line.replace(rest, "interval: 1s"),
        _ => line.to_owned(),
    };
    rules.lines().map(|text| line(text) + "\n").collect()
}

fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "the configuration has changed; so must this test: {old}");
    text.replace(old, new)
}

/// Imports a history into the data directory of a Prometheus that is not running yet.
fn import(dir: &Path, history: &str) {
    fs::write(dir.join("history.om"), history).unwrap();
    let import = ["tsdb", "create-blocks-from", "--max-block-duration=744h", "openmetrics", "history.om", "data"];
    let output = Command::new("promtool").current_dir(dir).args(import).output().expect("promtool runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
