//! Cohorts, stages and segments of a summary.

use super::{
    Background, CohortMoney, CohortSummary, FeedbackSummary, MissingPart, SegmentSummary, StageSummary,
    TransitionSummary, WindowSummary, period_summary, rolling_summary,
};
use crate::engine::CohortFigures;
use crate::engine::cohorts::CohortMoney as CohortMoneyParts;
use crate::engine::known::{CohortsKnown, Why};
use crate::engine::lifecycle::{LifecycleParts, Stage, Status, Transition};
use crate::engine::snapshot::{Period, Snapshot};
use crate::engine::spec::Spec;
use crate::engine::totals::TotalsParts;
use crate::engine::zone::{self, month_of};
use crate::event::{Currency, decimal_text};

/// Every cell from each cohort's own month to the month of the instant, including those without an order.
pub(super) fn cohorts(spec: &Spec, snapshot: &Snapshot) -> Vec<CohortSummary> {
    let Some(triangle) = &snapshot.cohorts else { return Vec::new() };
    let today = month_of(spec.zone.day(snapshot.at));
    let nothing = CohortFigures::default();
    let mut cells = Vec::new();
    for (&(cohort, month), first) in triangle {
        // In its own month every customer of a cohort orders.
        if cohort == month {
            for later in cohort..=today {
                let figures = triangle.get(&(cohort, later)).unwrap_or(&nothing);
                cells.push(cell(cohort, later, first.ordering, figures, &snapshot.cohorts_known));
            }
        }
    }
    cells
}

fn cell(cohort: i32, month: i32, customers: i64, figures: &CohortFigures, known: &CohortsKnown) -> CohortSummary {
    let first_day = zone::date(zone::first_of_month(cohort));
    let is_known = |month: i32, from: Option<i32>| from.is_none_or(|from| month >= from);
    let (of_orders, of_returns) = (is_known(month, known.cells), is_known(month, known.returns));
    let money = |(&currency, money): (&Currency, &CohortMoneyParts)| {
        let text = |minor: i128, is_known: bool| is_known.then(|| decimal_text(minor, currency));
        let money = CohortMoney {
            revenue: text(money.revenue, of_orders),
            refunds: text(money.refunds, of_returns),
            cancellations: text(money.cancellations, of_returns),
        };
        (currency, money)
    };
    CohortSummary {
        cohort: format!("{:04}-{:02}", first_day.year(), first_day.month()),
        age_months: month - cohort,
        customers: is_known(cohort, known.sizes).then_some(customers),
        ordering_customers: of_orders.then_some(figures.ordering),
        orders: of_orders.then_some(figures.orders),
        currencies: figures.money.iter().map(money).collect(),
    }
}

/// Customers by stage and status; a loyal customer has not lapsed.
pub fn stages(parts: &LifecycleParts) -> impl Iterator<Item = StageSummary> {
    let prospects = StageSummary { stage: "prospect", status: "none", customers: parts.prospects };
    let stages = [Stage::New, Stage::Repeat, Stage::Loyal];
    let statuses = [Status::Active, Status::AtRisk, Status::Lapsed];
    let customers = parts.customers;
    let buyers = stages.into_iter().flat_map(move |stage| {
        let exists = move |status: Status| !(stage == Stage::Loyal && status == Status::Lapsed);
        statuses.into_iter().filter(move |&status| exists(status)).map(move |status| StageSummary {
            stage: stage.name(),
            status: status.name(),
            customers: customers[stage as usize][status as usize],
        })
    });
    std::iter::once(prospects).chain(buyers)
}

/// Customers by stage and status; `None` while they are not known.
#[must_use]
pub fn known_stages(snapshot: &Snapshot) -> Option<impl Iterator<Item = StageSummary>> {
    snapshot.stages_from.is_none_or(|from| snapshot.at >= from).then(|| stages(&snapshot.lifecycle))
}

/// Parts other than windows that are not known.
pub(super) fn missing(spec: &Spec, snapshot: &Snapshot) -> Vec<MissingPart> {
    const LIFECYCLE: &str = "the definition of stages and statuses was changed";
    let mut missing = Vec::new();
    if let Some(until) = snapshot.stages_from.filter(|&from| snapshot.at < from) {
        missing.push(MissingPart { part: "stages", reason: LIFECYCLE, until });
    }
    if let Some(until) = snapshot.transitions_from {
        missing.push(MissingPart { part: "transitions", reason: LIFECYCLE, until });
    }
    let first_of = |month: i32| spec.zone.first_instant(zone::first_of_month(month));
    let CohortsKnown { cells, returns, sizes: _ } = snapshot.cohorts_known;
    if let Some(until) = cells.map(first_of) {
        missing.push(MissingPart { part: "cohorts", reason: Why::Zone.text(), until });
    } else if let Some(until) = returns.map(first_of) {
        let reason = "version 0.1.0 did not count refunds and cancellations of cohorts";
        missing.push(MissingPart { part: "cohorts", reason, until });
    }
    missing
}

/// Transitions so far.
pub fn transitions(parts: &LifecycleParts) -> impl Iterator<Item = TransitionSummary> {
    let counts = parts.transitions;
    Transition::ALL.into_iter().map(move |transition| {
        let (from, to) = transition.names();
        TransitionSummary { from, to, count: counts[transition as usize] }
    })
}

/// Feedback by kind.
pub fn feedback(parts: &TotalsParts) -> impl Iterator<Item = FeedbackSummary> {
    let found = parts.feedback.iter().filter(|(_, feedback)| feedback.count != 0);
    found.map(|(kind, feedback)| FeedbackSummary { kind: kind.clone(), count: feedback.count })
}

/// The windows by dimension value.
pub(super) fn segments(spec: &Spec, snapshot: &Snapshot, background: &Background) -> Vec<SegmentSummary> {
    let mut summaries = Vec::new();
    for ((dimension, value), windows) in &snapshot.segments {
        for (place, figures) in windows.iter().enumerate() {
            let Some(figures) = figures else { continue };
            let mut window: WindowSummary = match place.checked_sub(spec.rolling.len()) {
                None => rolling_summary(spec, place, figures, snapshot.at, background),
                Some(window) => {
                    let open = snapshot.periods.iter().rfind(|period| period.window == window && !period.closed);
                    let Some(open) = open else { continue };
                    let period = Period { figures: figures.clone(), ..open.clone() };
                    period_summary(spec, &period, snapshot.at, background)
                }
            };
            // Costs are not booked by segment: omit them rather than report zero.
            window.coverage = None;
            window.currencies.values_mut().for_each(|money| money.costs = None);
            let incomplete = snapshot.segments_overflowed[*dimension].is_incomplete(value);
            let dimension = spec.dimensions[*dimension].name.clone();
            summaries.push(SegmentSummary { dimension, value: value.clone(), incomplete, window });
        }
    }
    summaries
}
