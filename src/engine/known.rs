//! From which pane on each figure of a window is known. All are always known unless the configuration changed after the
//! state was created.
//!
//! A window that is new, or has another definition, takes over the counts of old windows in panes that it can use, and
//! computes the others again from the records of the customers, which contain the first order and the newest ones.
//! Figures of a time that neither covers are unknown; they are never shown as zero.

use serde::{Deserialize, Serialize};

use super::axis::{Axis, Pane};
use super::zone::Zone;
use crate::event::Time;

/// Groups of figures that become known together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    /// Sums of events within the window: orders, sessions, money.
    Flows,
    /// First orders within the window.
    New,
    /// Sums over all time: customers to date, gaps between orders, costs to date.
    ToDate,
    /// Customers who ordered in the window, once or more often.
    Ordering,
    /// Customers with a visit in the window.
    Visiting,
    /// Customers who are active at the end.
    End,
    /// Customers who were active at the start.
    Start,
    /// Lost customers.
    Lost,
    /// Amounts in the reporting currency.
    Reporting,
}

/// Number of aspects.
const ASPECTS: usize = Aspect::Reporting as usize + 1;

/// A set of aspects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs(u16);

impl Needs {
    /// The set of these aspects.
    #[must_use]
    pub const fn of(aspects: &[Aspect]) -> Needs {
        let mut bits = 0;
        let mut i = 0;
        while i < aspects.len() {
            bits |= 1 << aspects[i] as u16;
            i += 1;
        }
        Needs(bits)
    }

    fn has(self, aspect: usize) -> bool {
        self.0 >> aspect & 1 == 1
    }
}

/// Churn and other figures that compare start and end.
pub const CHURN: Needs = Needs::of(&[Aspect::Start, Aspect::End, Aspect::Lost]);
/// Amounts within the window.
pub const FLOWS: Needs = Needs::of(&[Aspect::Flows]);
/// Amounts within the window in the reporting currency.
pub const REPORTING: Needs = Needs::of(&[Aspect::Flows, Aspect::Reporting]);

/// The aspects on which a figure depends, by its name in the summary or its metric, including money.
#[must_use]
pub fn needs(figure: &str) -> Needs {
    use Aspect::{End, Flows, Lost, New, Ordering, Start, ToDate, Visiting};
    match figure {
        "start_customers" => Needs::of(&[Start]),
        "end_customers" => Needs::of(&[End]),
        "new_customers" => Needs::of(&[New]),
        "lost_customers" | "lost_complainers" | "lost_complainer_ratio" => Needs::of(&[Lost]),
        "retained_customers" | "churn_ratio" | "retention_ratio" => Needs::of(&[Start, Lost]),
        "reactivated_customers" => Needs::of(&[End, New, Start, Lost]),
        "crr_ratio" => Needs::of(&[End, New, Start]),
        "ordering_customers" | "repeat_customers" | "returning_customers" => Needs::of(&[Ordering]),
        "repeat_ratio" | "returning_ratio" => Needs::of(&[Ordering]),
        "visiting_customers" => Needs::of(&[Visiting]),
        "conversion_ratio" => Needs::of(&[Ordering, Visiting]),
        "referred_customers" => Needs::of(&[Ordering, New]),
        "referral_ratio" => Needs::of(&[Ordering, New]),
        "purchase_frequency" => Needs::of(&[Flows, Ordering]),
        "customers_to_date" | "costed_customers" | "cost_coverage_ratio" | "lifespan_seconds" => Needs::of(&[ToDate]),
        "clv" => Needs::of(&[Flows, Ordering, ToDate]),
        "clv_after_costs" => Needs::of(&[Flows, Ordering, ToDate]),
        // Flags are always known.
        "complete" | "new_complete" => Needs::of(&[]),
        // orders, sessions and money
        _ => FLOWS,
    }
}

/// From which pane on the counts of a window are known; [`Pane::MIN`]: always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    /// Events of panes from this one on are counted.
    pub flows: Pane,
    /// First orders of panes from this one on are counted.
    pub new: Pane,
    /// Sums over all time are known at panes from this one on.
    pub to_date: Pane,
    /// Ordering customers are known at panes from this one on.
    pub ordering: Pane,
    /// Visiting customers are known at panes from this one on.
    pub visiting: Pane,
    /// Active customers are known at panes from this one on.
    pub active: Pane,
    /// Lost customers are known at panes from this one on.
    pub lost: Pane,
    /// Amounts in the reporting currency of panes from this one on are counted.
    pub reporting: Pane,
}

impl Default for Known {
    fn default() -> Known {
        Known::ALWAYS
    }
}

impl Known {
    /// Everything is always known.
    pub const ALWAYS: Known = Known {
        flows: Pane::MIN,
        new: Pane::MIN,
        to_date: Pane::MIN,
        ordering: Pane::MIN,
        visiting: Pane::MIN,
        active: Pane::MIN,
        lost: Pane::MIN,
        reporting: Pane::MIN,
    };

    /// Whether everything is always known.
    #[must_use]
    pub fn is_always(&self) -> bool {
        *self == Known::ALWAYS
    }

    /// The unknown aspects of the window that ends with pane `p`, and when they will be known.
    #[must_use]
    pub fn missing(&self, axis: Axis, zone: &Zone, p: Pane) -> Missing {
        if self.is_always() {
            return Missing::default();
        }
        let mut missing = Missing::default();
        let mut set = |aspect: Aspect, from: Pane| {
            if p < from {
                missing.0[aspect as usize] = Some(axis.first_instant(from, zone));
            }
        };
        // Sums within the window begin with pane `opens(p) + 1`, customers at the start are those of pane `opens(p)`.
        let within = |from: Pane| if from == Pane::MIN { from } else { axis.leaves(from - 1) };
        let at_start = |from: Pane| if from == Pane::MIN { from } else { axis.leaves(from) };
        set(Aspect::Flows, within(self.flows));
        set(Aspect::New, within(self.new));
        set(Aspect::ToDate, self.to_date);
        set(Aspect::Ordering, self.ordering);
        set(Aspect::Visiting, self.visiting);
        set(Aspect::End, self.active);
        set(Aspect::Start, at_start(self.active));
        set(Aspect::Lost, self.lost);
        set(Aspect::Reporting, within(self.reporting));
        missing
    }
}

/// The unknown aspects of a window at a pane, and when they will be known, by [`Aspect`]. A sum over partitions is
/// unknown if a part is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Missing([Option<Time>; ASPECTS]);

impl Missing {
    /// When all aspects of a figure will be known; `None` if they are known now.
    #[must_use]
    pub fn until(&self, needs: Needs) -> Option<Time> {
        let needed = self.0.iter().enumerate().filter(|&(aspect, _)| needs.has(aspect));
        needed.filter_map(|(_, until)| *until).max()
    }

    /// Whether a figure is known.
    #[must_use]
    pub fn knows(&self, needs: Needs) -> bool {
        self.until(needs).is_none()
    }

    /// When everything will be known; `None` if it is known now.
    #[must_use]
    pub fn last(&self) -> Option<Time> {
        self.0.iter().flatten().max().copied()
    }
}

impl std::ops::AddAssign<&Missing> for Missing {
    fn add_assign(&mut self, other: &Missing) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine = (*mine).max(*theirs));
    }
}

/// What was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// `active_for` of the window.
    ActiveFor,
    /// The resolution.
    Resolution,
    /// The zone of civil days.
    Zone,
    /// The window is new.
    Added,
    /// The dimension or some of its values are new.
    Dimension,
    /// The reporting currency is new.
    Reporting,
}

impl Why {
    /// The changed setting and its change, as text for users.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Why::ActiveFor => "active_for was changed",
            Why::Resolution => "the resolution was changed",
            Why::Zone => "time.zone was changed",
            Why::Added => "the window was added",
            Why::Dimension => "the dimension or one of its values was added",
            Why::Reporting => "the reporting currency was added",
        }
    }
}

/// A change of the configuration after the state was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// The newest event time before the change, in milliseconds.
    pub at: i64,
    /// What was changed.
    pub why: Why,
}

/// What is known of a window of all customers or of a dimension, and why not everything is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowKnown {
    /// The panes from which it is known.
    pub known: Known,
    /// The last change of the configuration that made figures unknown.
    pub change: Option<Change>,
}

/// The newest order and session of customers who were erased and removed, in milliseconds: sums still count them,
/// records no longer do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erased {
    /// The newest order.
    pub order: Option<i64>,
    /// The newest session.
    pub session: Option<i64>,
}

/// What is known of all figures of an engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Knowledge {
    /// By window.
    pub windows: Vec<WindowKnown>,
    /// By dimension and window.
    pub dimensions: Vec<Vec<WindowKnown>>,
    /// Of stages and statuses.
    pub lifecycle: LifecycleKnown,
    /// Of cohorts.
    pub cohorts: CohortsKnown,
    /// Removed customers whom sums still count.
    pub erased: Erased,
}

/// The instants from which stages and statuses are known; `None`: always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LifecycleKnown {
    /// Numbers of customers are known from this instant on, in milliseconds.
    pub customers: Option<i64>,
    /// Transitions are counted after this hour, in milliseconds.
    pub transitions: Option<i64>,
}

/// The months from which cohorts are known, counted from January of year 0; `None`: always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CohortsKnown {
    /// Cells of months from this one on, in any cohort.
    pub cells: Option<i32>,
    /// Refunds and cancellations of months from this one on.
    pub returns: Option<i32>,
    /// Sizes of cohorts from this month on.
    pub sizes: Option<i32>,
}

impl std::ops::AddAssign<&CohortsKnown> for CohortsKnown {
    fn add_assign(&mut self, other: &CohortsKnown) {
        self.cells = self.cells.max(other.cells);
        self.returns = self.returns.max(other.returns);
        self.sizes = self.sizes.max(other.sizes);
    }
}

impl Knowledge {
    /// The knowledge of an engine that reads all events.
    #[must_use]
    pub fn whole(windows: usize, dimensions: usize) -> Knowledge {
        let windows = vec![WindowKnown::default(); windows];
        Knowledge { dimensions: vec![windows.clone(); dimensions], windows, ..Knowledge::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::axis::Resolution;
    use crate::engine::zone::Unit;
    use crate::event::{HOUR, MINUTE};

    fn within() -> Axis {
        Axis::Rolling { resolution: Resolution::of_minutes(60), period: 24 }
    }

    fn hours(hours: i32) -> Option<Time> {
        Some(Time::clamped(i64::from(hours) * HOUR))
    }

    #[test]
    fn flows_are_known_once_the_window_begins_with_a_known_pane() {
        let known = Known { flows: 100, active: 90, ..Known::ALWAYS };
        let missing = |p| known.missing(within(), &Zone::utc(), p);
        // (p - 24, p] begins with pane p - 23.
        assert_eq!(missing(122).until(FLOWS), hours(123));
        assert_eq!(missing(123).until(FLOWS), None);
        assert_eq!(missing(113).until(needs("start_customers")), hours(114));
        assert_eq!(missing(114).until(needs("churn_ratio")), None);
        assert_eq!(missing(90).until(needs("end_customers")), None);
        assert_eq!(missing(89).until(needs("crr_ratio")), hours(114));
        assert!(Known::ALWAYS.missing(within(), &Zone::utc(), Pane::MIN + 1).last().is_none());
    }

    #[test]
    fn calendar_periods_are_known_as_a_whole() {
        // The 10th of January 1970 and the 31st.
        let known = Known { flows: 9, active: 30, ..Known::ALWAYS };
        let missing = |p| known.missing(Axis::Calendar(Unit::Month), &Zone::utc(), p);
        assert_eq!(missing(30).until(FLOWS), Some(Time::clamped(31 * 1440 * MINUTE)));
        assert_eq!(missing(31).last(), None);
    }

    #[test]
    fn partitions_know_together_what_each_of_them_knows() {
        let zone = Zone::utc();
        let mut one = Known { ordering: 5, ..Known::ALWAYS }.missing(within(), &zone, 3);
        one += &Known { ordering: 7, visiting: 4, ..Known::ALWAYS }.missing(within(), &zone, 3);
        assert_eq!(one.until(needs("repeat_ratio")), hours(7));
        assert_eq!(one.until(needs("visiting_customers")), hours(4));
        assert_eq!(one.until(needs("conversion_ratio")), hours(7));
        assert_eq!(one.last(), hours(7));
    }
}
