//! `retentiond dlq`: lists and replays dead letters.

use anyhow::Result;
use clap::Subcommand;
use comfy_table::{Table, presets};

use super::ConfigFile;
use crate::config::Settings;
use crate::event::Time;
use crate::offline::dlq::{self, Choice, Report};

/// List dead letters, or send them back to their topics after a fix. Only dead letters written by replicas of
/// kafka.group_id; each group has its own position in the topic.
#[derive(Debug, clap::Args)]
pub struct Dlq {
    #[command(subcommand)]
    verb: DlqVerb,
}

#[derive(Debug, Subcommand)]
enum DlqVerb {
    /// Count the dead letters that have not been replayed, by reason and topic.
    Ls {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        chosen: Chosen,
    },
    /// Send dead letters back to their original topics and partitions, each once; another call continues after them.
    Replay {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        chosen: Chosen,
        /// Maximum number of dead letters to replay.
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        /// Only show what would be done.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Selects dead letters; the others stay for another call.
#[derive(Debug, clap::Args)]
struct Chosen {
    /// Only dead letters with this reason, such as invalid_json; may be given several times.
    #[arg(long = "reason", value_name = "R")]
    reasons: Vec<String>,
    /// Only dead letters from this topic; may be given several times.
    #[arg(long = "topic", value_name = "T")]
    topics: Vec<String>,
    /// Only messages whose log time is this or later, RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = super::parse_time)]
    since: Option<Time>,
    /// Only messages whose log time is earlier than this.
    #[arg(long, value_name = "TIME", value_parser = super::parse_time)]
    until: Option<Time>,
}

impl Chosen {
    fn choice(self, limit: Option<u64>) -> Choice {
        let millis = |time: Option<Time>| time.map(Time::millis);
        let (since, until) = (millis(self.since), millis(self.until));
        Choice { reasons: self.reasons, topics: self.topics, since, until, limit }
    }
}

impl Dlq {
    pub(super) fn run(self) -> Result<()> {
        let (config, choice, is_dry, verb) = match self.verb {
            DlqVerb::Ls { config, chosen } => (config, chosen.choice(None), true, "could go back"),
            DlqVerb::Replay { config, chosen, limit, dry_run } => {
                (config, chosen.choice(limit), dry_run, if dry_run { "would go back" } else { "went back" })
            }
        };
        let settings = Settings::load(config.path(), std::env::vars())?;
        let report = if is_dry { dlq::look(&settings, &choice)? } else { dlq::replay(&settings, &choice)? };
        super::print(&render(&report, verb, &settings.kafka.group_id));
        Ok(())
    }
}

fn render(report: &Report, verb: &str, group: &str) -> String {
    let others = match report.others {
        0 => String::new(),
        others => format!("Skipped {others} dead letter(s) of other groups.\n"),
    };
    if report.counts.is_empty() {
        return format!("No dead letters.\n{others}");
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["reason", "topic", verb, "stay", "cannot go back", "newest"]);
    for ((reason, topic), count) in &report.counts {
        let newest = count.newest.map_or_else(String::new, |millis| Time::clamped(millis).to_string());
        let [back, stay, lost] = [count.back, count.stay, count.lost].map(|count| count.to_string());
        table.add_row([reason.clone(), topic.clone(), back, stay, lost, newest]);
    }
    let mut text = format!("{table}\n\n{} {verb}.\n{others}", report.back());
    if report.unnamed > 0 {
        text.push_str(&format!(
            "{} name no group because version 0.1 wrote them; they count as those of {group:?}. If several groups \
             share the topic, replay them with only one of them.\n",
            report.unnamed
        ));
    }
    for topic in &report.missing {
        text.push_str(&format!("Topic {topic:?} does not exist, so its dead letters stay.\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offline::dlq::Count;

    #[test]
    fn shows_what_was_done_by_reason_and_topic() {
        let mut report = Report::default();
        assert_eq!(render(&report, "went back", "g"), "No dead letters.\n");
        let key = ("invalid_json".to_owned(), "orders".to_owned());
        report.counts.insert(key, Count { back: 3, stay: 1, lost: 2, newest: Some(0) });
        report.missing.push("gone".to_owned());
        (report.others, report.unnamed) = (7, 2);
        let text = render(&report, "went back", "g");
        let row = text.lines().find(|line| line.contains("invalid_json")).unwrap();
        let cells: Vec<_> = row.split_whitespace().collect();
        assert_eq!(cells, ["invalid_json", "orders", "3", "1", "2", "1970-01-01T00:00:00.000Z"]);
        assert!(
            text.contains("7 dead letter(s) of other groups")
                && text.contains("2 name no group")
                && text.contains("\"g\""),
            "{text}"
        );
        assert!(text.contains("3 went back.") && text.contains("\"gone\" does not exist"), "{text}");
    }
}
