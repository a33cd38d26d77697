//! What is known of windows, as files store it.

use crate::engine::axis::{ActiveFor, Axis, Pane};
use crate::engine::known::{Change, Known, Why, WindowKnown};
use crate::event::Time;

/// A window, as files store it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WindowState {
    /// The definition, see [`super::window_key`].
    pub key: String,
    /// Format of version 0.1.0: from when on the window has counted everything, if it was added to an existing state.
    pub since: Option<i64>,
    /// The panes from which its counts are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Known>,
    /// The change that made counts unknown.
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

    /// What is known. A window that version 0.1.0 added knows everything after its beginning.
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

/// What is known of a window of a dimension, as files store it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SegmentState {
    /// Name of the dimension.
    pub dimension: String,
    /// What is known of the window.
    #[serde(flatten)]
    pub window: WindowState,
}
