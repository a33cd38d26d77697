//! Progress bars on standard error, where that is a terminal; log lines are written above them, not through them.

use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::watch;

use crate::status::{PartitionState, SourceStatus};

/// How often a bar is redrawn without progress.
const TICK: Duration = Duration::from_millis(100);

/// All bars of this process; none is drawn if standard error is not a terminal.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Standard error for log lines, which are written above the bars.
pub(super) struct AboveBars;

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A bar towards `len`.
pub(super) fn bar(len: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar());
    let bar = BARS.add(ProgressBar::new(len).with_style(style));
    bar.enable_steady_tick(TICK);
    bar
}

/// Shows progress while a daemon loads state or catches up; ends with the source.
pub(super) async fn follow(mut status: watch::Receiver<SourceStatus>) {
    if !io::stderr().is_terminal() {
        return;
    }
    let mut shown: Option<(Stage, ProgressBar)> = None;
    loop {
        let (stage, done, of) = stage(&status.borrow_and_update());
        if shown.as_ref().is_some_and(|(before, _)| *before != stage)
            && let Some((_, bar)) = shown.take()
        {
            bar.finish_and_clear();
        }
        if shown.is_none() && stage != Stage::Idle {
            shown = Some((stage, bar(of, stage.template())));
        }
        if let Some((_, bar)) = &shown {
            bar.set_length(bar.length().unwrap_or(of).max(of));
            bar.set_position((bar.length().unwrap_or(of) - of) + done);
        }
        if status.changed().await.is_err() {
            break;
        }
    }
    if let Some((_, bar)) = shown {
        bar.finish_and_clear();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Loading,
    CatchingUp,
}

impl Stage {
    fn template(self) -> &'static str {
        match self {
            Stage::Idle => "",
            Stage::Loading => "loading the state of partitions {wide_bar} {pos}/{len}",
            Stage::CatchingUp => "catching up {wide_bar} {pos}/{len} {per_sec} {eta}",
        }
    }
}

/// The current stage, how much is done, and the total: partitions, or records not yet applied when the stage began. The
/// progress of records is derived from the remaining ones.
fn stage(status: &SourceStatus) -> (Stage, u64, u64) {
    if !status.joined || status.has_caught_up() {
        return (Stage::Idle, 0, 0);
    }
    let is = |wanted: &PartitionState| status.states.values().filter(|state| *state == wanted).count() as u64;
    let restoring = is(&PartitionState::Restoring);
    if restoring > 0 {
        let running = is(&PartitionState::Running);
        return (Stage::Loading, running, running + restoring);
    }
    let left: i64 = status.positions.values().filter_map(crate::status::ReadPosition::lag).sum();
    match u64::try_from(left) {
        Ok(left) if left > 0 => (Stage::CatchingUp, 0, left),
        _ => (Stage::Idle, 0, 0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::bus::{Partition, TopicIndex, TopicPartition};
    use crate::status::ReadPosition;

    #[test]
    fn tells_loading_from_catching_up_and_both_from_being_there() {
        let mut status = SourceStatus::default();
        assert_eq!(stage(&status), (Stage::Idle, 0, 0), "not joined yet");
        status.joined = true;
        status.owned = vec![Partition(0), Partition(1)];
        status.states =
            [(Partition(0), PartitionState::Running), (Partition(1), PartitionState::Restoring)].into_iter().collect();
        assert_eq!(stage(&status), (Stage::Loading, 1, 2));
        status.states.insert(Partition(1), PartitionState::Running);
        let at = |partition| TopicPartition { topic: TopicIndex(0), partition: Partition(partition) };
        let position = |applied, end, last_at_end| ReadPosition { applied: Some(applied), end: Some(end), last_at_end };
        status.positions =
            [(at(0), position(5, 5, Some(Instant::now()))), (at(1), position(40, 100, None))].into_iter().collect();
        assert_eq!(stage(&status), (Stage::CatchingUp, 0, 60));
        status.positions.insert(at(1), position(100, 100, Some(Instant::now())));
        assert_eq!(stage(&status), (Stage::Idle, 0, 0));
    }
}
