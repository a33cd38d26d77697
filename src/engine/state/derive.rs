//! Which counts a window that is new or redefined takes over from the windows of a state.

use crate::engine::axis::{ActiveFor, Axis, Pane, Resolution};
use crate::engine::known::{Known, Why};
use crate::engine::spec::{Spec, WindowId};
use crate::engine::window::{Selection, Window};
use crate::engine::zone::{Unit, Zone};
use crate::event::MINUTE;

use super::arrays::{Visitor, escape};

/// Definition of a window, according to its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Definition {
    pub axis: Axis,
    pub active_for: ActiveFor,
    /// The escaped name of the zone; only of calendar windows.
    zone: Option<String>,
}

impl Definition {
    /// Parses a key; `None` for an unknown format.
    pub fn parse(key: &str) -> Option<Definition> {
        let (kind, fields) = key.split_once(';')?;
        let field = |name: &str| {
            fields.split(';').find_map(|field| field.split_once('=').filter(|(key, _)| *key == name)).map(|(_, v)| v)
        };
        let millis = |name: &str| field(name)?.parse::<i64>().ok();
        let panes = |millis: i64, of: i64| i32::try_from(millis / of.max(1)).ok();
        match kind {
            "rolling" => {
                let resolution = millis("resolution")?;
                let axis = Axis::Rolling {
                    resolution: Resolution::of_minutes(panes(resolution, MINUTE)?),
                    period: panes(millis("period")?, resolution)?,
                };
                let active_for = ActiveFor::Panes(panes(millis("active_for")?, resolution)?);
                Some(Definition { axis, active_for, zone: None })
            }
            "calendar" => {
                let unit = Unit::ALL.into_iter().find(|unit| Some(unit.name()) == field("unit"))?;
                let active_for = match field("active_for")? {
                    "period" => ActiveFor::Period,
                    _ => ActiveFor::Panes(panes(millis("active_for")?, crate::event::DAY)?),
                };
                Some(Definition { axis: Axis::Calendar(unit), active_for, zone: Some(field("zone")?.to_owned()) })
            }
            _ => None,
        }
    }

    /// The definition of a window of a spec.
    pub fn of(spec: &Spec, window: WindowId) -> Definition {
        let axis = spec.axis(window);
        let zone = matches!(axis, Axis::Calendar(_)).then(|| escape(spec.zone.name()));
        Definition { axis, active_for: spec.active_for(window), zone }
    }

    /// The counts of `other` that can be taken over, if any.
    fn takes(&self, other: &Definition, zone: &Zone) -> Option<(Selection, Regroup)> {
        let regroup = Regroup::new(self, other, zone)?;
        let same_period = match (self.axis, other.axis) {
            (Axis::Rolling { .. }, Axis::Rolling { .. }) => span(self.axis) == span(other.axis),
            (mine, theirs) => mine == theirs,
        };
        let same_active = match (self.active_for, other.active_for) {
            _ if regroup == Regroup::IntoDays => false,
            (ActiveFor::Panes(mine), ActiveFor::Panes(theirs)) => {
                i64::from(mine) * i64::from(minutes(self.axis)) == i64::from(theirs) * i64::from(minutes(other.axis))
            }
            (mine, theirs) => mine == theirs && same_period,
        };
        let selection = Selection {
            flows: true,
            ordering: same_period,
            visiting: same_period,
            active: same_active,
            lost: same_period && same_active,
        };
        Some((selection, regroup))
    }

    /// What was changed, if this window replaces one of `others`.
    pub fn change<'a>(&self, others: impl Iterator<Item = &'a Definition> + Clone) -> Why {
        let same_period = |other: &&Definition| match (self.axis, other.axis) {
            (Axis::Calendar(mine), Axis::Calendar(theirs)) => mine == theirs,
            (Axis::Rolling { .. }, Axis::Rolling { .. }) => span(self.axis) == span(other.axis),
            _ => false,
        };
        let same = others.clone().filter(same_period);
        if same.clone().any(|other| other.axis == self.axis && other.zone == self.zone) {
            Why::ActiveFor
        } else if same.clone().any(|other| other.zone != self.zone) {
            Why::Zone
        } else if same.count() > 0 {
            Why::Resolution
        } else {
            Why::Added
        }
    }
}

/// Length of a pane in minutes; a day for a calendar window.
fn minutes(axis: Axis) -> i32 {
    match axis {
        Axis::Rolling { resolution, .. } => resolution.minutes(),
        Axis::Calendar(_) => 24 * 60,
    }
}

/// Length of the period of a rolling window in minutes.
fn span(axis: Axis) -> Option<i64> {
    match axis {
        Axis::Rolling { resolution, period } => Some(i64::from(resolution.minutes()) * i64::from(period)),
        Axis::Calendar(_) => None,
    }
}

/// How the panes of an old window map to those of a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Regroup {
    /// A new pane consists of this number of old ones.
    Coarser(i32),
    /// A new pane is a civil day.
    IntoDays,
}

impl Regroup {
    fn new(into: &Definition, from: &Definition, zone: &Zone) -> Option<Regroup> {
        match (into.axis, from.axis) {
            (Axis::Rolling { resolution: into, .. }, Axis::Rolling { resolution: from, .. }) => {
                (into.minutes() % from.minutes() == 0).then(|| Regroup::Coarser(into.minutes() / from.minutes()))
            }
            (Axis::Calendar(_), Axis::Calendar(_)) => (into.zone == from.zone).then_some(Regroup::Coarser(1)),
            (Axis::Calendar(_), Axis::Rolling { resolution, .. }) => {
                zone.days_begin_at_multiples_of(resolution.minutes()).then_some(Regroup::IntoDays)
            }
            (Axis::Rolling { .. }, Axis::Calendar(_)) => None,
        }
    }

    fn pane(self, from: &Definition, zone: &Zone, pane: Pane) -> Pane {
        match self {
            Regroup::Coarser(panes) => pane.div_euclid(panes),
            Regroup::IntoDays => zone.day(from.axis.first_instant(pane, zone)),
        }
    }
}

/// A window of a state, with what is known of it.
#[derive(Debug, Clone)]
pub(super) struct Old {
    pub key: String,
    pub definition: Definition,
    pub known: Known,
}

/// Which counts a new window takes over from which windows of a state.
#[derive(Debug, Default)]
pub(super) struct Plan {
    sources: Vec<(usize, Selection, Regroup)>,
}

impl Plan {
    /// Chooses, for every part, the window that knows most. `limit`: the first pane of each old window that is not
    /// folded. `known` is what is known of the parts if they are computed from records, and becomes what is known of
    /// all.
    pub fn new(new: &Definition, olds: &[Old], limit: impl Fn(usize) -> Pane, zone: &Zone, known: &mut Known) -> Plan {
        let mut plan = Plan::default();
        for part in PARTS {
            let mut best: Option<(usize, Regroup, Known)> = None;
            for (number, old) in olds.iter().enumerate() {
                let Some((selection, regroup)) = new.takes(&old.definition, zone) else { continue };
                if !part.is_in(&selection) {
                    continue;
                }
                let mut taken = *known;
                part.take(&mut taken, &old.known, limit(number), |pane| regroup.pane(&old.definition, zone, pane));
                if best.as_ref().is_none_or(|(.., best)| part.known(&taken) < part.known(best)) {
                    best = Some((number, regroup, taken));
                }
            }
            // Records may reach back further than the old counts.
            if let Some((number, regroup, taken)) = best.filter(|(.., taken)| part.known(taken) <= part.known(known)) {
                *known = taken;
                match plan.sources.iter_mut().find(|(source, ..)| *source == number) {
                    Some((_, selection, _)) => part.add_to(selection),
                    None => {
                        let mut selection = Selection::default();
                        part.add_to(&mut selection);
                        plan.sources.push((number, selection, regroup));
                    }
                }
            }
        }
        plan
    }

    /// All counts that are taken over.
    pub fn selection(&self) -> Selection {
        let mut all = Selection::default();
        for (_, selection, _) in &self.sources {
            PARTS.into_iter().filter(|part| part.is_in(selection)).for_each(|part| part.add_to(&mut all));
        }
        all
    }

    /// Adds the old counts to a window without them; `windows` are those of the state.
    pub fn take_over(&self, into: &mut Window, olds: &[Old], windows: &mut [Window], zone: &Zone) {
        for (number, selection, regroup) in &self.sources {
            let (old, window) = (&olds[*number], &mut windows[*number]);
            into.take_over(window, |pane| regroup.pane(&old.definition, zone, pane), selection);
        }
    }
}

/// The parts of a [`Selection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Flows,
    Ordering,
    Visiting,
    Active,
    Lost,
}

const PARTS: [Part; 5] = [Part::Flows, Part::Ordering, Part::Visiting, Part::Active, Part::Lost];

impl Part {
    fn is_in(self, selection: &Selection) -> bool {
        match self {
            Part::Flows => selection.flows,
            Part::Ordering => selection.ordering,
            Part::Visiting => selection.visiting,
            Part::Active => selection.active,
            Part::Lost => selection.lost,
        }
    }

    fn add_to(self, selection: &mut Selection) {
        let part = match self {
            Part::Flows => &mut selection.flows,
            Part::Ordering => &mut selection.ordering,
            Part::Visiting => &mut selection.visiting,
            Part::Active => &mut selection.active,
            Part::Lost => &mut selection.lost,
        };
        *part = true;
    }

    fn known(self, known: &Known) -> Pane {
        match self {
            Part::Flows => known.flows,
            Part::Ordering => known.ordering,
            Part::Visiting => known.visiting,
            Part::Active => known.active,
            Part::Lost => known.lost,
        }
    }

    /// Sets what is known of this part if it is taken over from a window of which `old` is known and whose panes before
    /// `limit` are folded.
    fn take(self, known: &mut Known, old: &Known, limit: Pane, pane: impl Fn(Pane) -> Pane) {
        let always = |from: Pane, map: &dyn Fn(Pane) -> Pane| if from == Pane::MIN { from } else { map(from) };
        // The count at a pane is the count at its last old pane.
        let at = |from: Pane| always(from, &|from| pane(from)).max(always(limit, &|limit| pane(limit - 1)));
        // All old panes of a pane must be known.
        let within = |from: Pane| always(from.max(limit), &|from| pane(from - 1) + 1);
        match self {
            Part::Flows => {
                known.flows = within(old.flows);
                known.new = within(old.new);
                known.reporting = within(old.reporting);
                known.to_date = at(old.to_date);
            }
            Part::Ordering => known.ordering = at(old.ordering),
            Part::Visiting => known.visiting = at(old.visiting),
            Part::Active => known.active = at(old.active),
            Part::Lost => known.lost = at(old.lost),
        }
    }
}

/// Loads the arrays of all windows of a state below a key.
pub(super) fn load(olds: &[Old], root: &str, visitor: &mut impl Visitor) -> Vec<Window> {
    let window = |old: &Old| {
        let mut window = Window::new(old.definition.axis, old.definition.active_for);
        window.show(&format!("{root}/{}", old.key), visitor);
        window
    };
    olds.iter().map(window).collect()
}
