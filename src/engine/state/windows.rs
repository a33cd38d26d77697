//! What is known of windows, as files hold it.

use crate::engine::axis::{ActiveFor, Axis, Pane};
use crate::engine::known::{Change, Known, Why, WindowKnown};
use crate::event::Time;

/// A window as files hold it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WindowState {
    /// Its definition.
    pub key: String,
    /// As version 0.1.0 has it: from when on it has seen everything, if it was added to an engine that had seen some
    /// already.
    pub since: Option<i64>,
    /// From which panes on it is known what it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Known>,
    /// Why that is not always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
}

impl WindowState {
    pub(super) fn new(key: String, known: &WindowKnown) -> WindowState {
        let &WindowKnown { known, change } = known;
        let partly = !known.is_always();
        let since = change.filter(|_| partly).map(|change| change.at + 1);
        WindowState { key, since, known: partly.then_some(known), change: change.filter(|_| partly) }
    }

    /// What is known. Of a window that version 0.1.0 added, all that lies behind its beginning.
    pub(super) fn known(&self, axis: Axis, active_for: ActiveFor, pane: impl Fn(Time) -> Pane) -> WindowKnown {
        if let Some(known) = self.known {
            return WindowKnown { known, change: self.change };
        }
        let Some(since) = self.since else { return WindowKnown::default() };
        let at = pane(Time::clamped(since));
        let (left, lapses) = (axis.leaves(at), axis.lapses(at, active_for));
        let known = Known {
            flows: at + 1,
            new: at + 1,
            to_date: at,
            ordering: left,
            visiting: left,
            active: lapses,
            lost: axis.leaves(lapses),
            reporting: Pane::MIN,
        };
        WindowKnown { known, change: Some(Change { at: since - 1, why: Why::Added }) }
    }
}

/// What is known of a window of the values of a dimension, as files hold it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SegmentState {
    /// The name of the dimension.
    pub dimension: String,
    /// What is known of the window.
    #[serde(flatten)]
    pub window: WindowState,
}
