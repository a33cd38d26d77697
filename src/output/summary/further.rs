//! Cohorts, stages and segments of a summary.

use super::{
    Background, CohortMoney, CohortSummary, FeedbackSummary, SegmentSummary, StageSummary, TransitionSummary,
    WindowSummary, period_summary, rolling_summary,
};
use crate::engine::CohortFigures;
use crate::engine::lifecycle::{LifecycleParts, Stage, Status, Transition};
use crate::engine::snapshot::{Period, Snapshot};
use crate::engine::spec::Spec;
use crate::engine::totals::TotalsParts;
use crate::engine::zone::{self, month_of};
use crate::event::decimal_text;

/// Every cell from each cohort's own month to the month of the instant, also those without an order.
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
                cells.push(cell(cohort, later - cohort, first.ordering, figures));
            }
        }
    }
    cells
}

fn cell(cohort: i32, age_months: i32, customers: i64, figures: &CohortFigures) -> CohortSummary {
    let first_day = zone::date(zone::first_of_month(cohort));
    let money = figures
        .revenue
        .iter()
        .map(|(&currency, &revenue)| (currency, CohortMoney { revenue: decimal_text(revenue, currency) }));
    CohortSummary {
        cohort: format!("{:04}-{:02}", first_day.year(), first_day.month()),
        age_months,
        customers,
        ordering_customers: figures.ordering,
        orders: figures.orders,
        currencies: money.collect(),
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

/// Passages so far.
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

/// The windows of every value of every dimension.
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
            // Costs are not booked by segment: nothing is said rather than zero.
            window.coverage = None;
            window.currencies.values_mut().for_each(|money| money.costs = None);
            let dimension = spec.dimensions[*dimension].name.clone();
            summaries.push(SegmentSummary { dimension, value: value.clone(), window });
        }
    }
    summaries
}
