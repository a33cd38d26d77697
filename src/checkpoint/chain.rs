//! Decides which files of a partition are still needed. Pure.
//!
//! A checkpoint states, for each kind of file, the oldest sequence number that is still needed: everything older has
//! been rewritten since. The decision depends on nothing else, so every replica deletes a file at the same checkpoint.

use super::manifest::{FileEntry, Kind};
use crate::engine::state::Needs;

/// The files of a partition after a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Files that are still needed, oldest first.
    pub live: Vec<FileEntry>,
    /// Files that are no longer needed once the checkpoint is committed.
    pub superseded: Vec<FileEntry>,
}

/// Splits the files of the previous manifest and of a new checkpoint into live and superseded ones.
#[must_use]
pub fn extend(before: &[FileEntry], new: Vec<FileEntry>, needs: Needs) -> Chain {
    let newest_state = new.iter().chain(before).filter(|file| file.kind == Kind::State).map(|file| file.sequence).max();
    let is_live = |file: &FileEntry| match file.kind {
        Kind::Rows => file.sequence >= needs.rows,
        // The newest state file is always needed: it holds the scalars.
        Kind::State => file.sequence >= needs.arrays || Some(file.sequence) == newest_state,
        Kind::Seen => file.sequence >= needs.seen,
    };
    let (mut live, superseded): (Vec<_>, Vec<_>) = before.iter().cloned().chain(new).partition(is_live);
    live.sort_by_key(|file| (file.sequence, file.kind));
    Chain { live, superseded }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::engine::state::rotation::{LAP, Rotation, oldest};

    fn file(kind: Kind, sequence: u64) -> FileEntry {
        let name = format!("{kind:?}{sequence}");
        FileEntry { name, kind, sequence, bytes: 1, digest: String::new(), rows: 0, full: Vec::new() }
    }

    /// Items of one kind that change over time, and the files that hold them.
    #[derive(Default)]
    struct Things {
        truth: BTreeMap<usize, u64>,
        rotation: Rotation,
        files: BTreeMap<u64, BTreeMap<usize, u64>>,
    }

    impl Things {
        /// Changes some items and takes a checkpoint; `false` if no file was written.
        fn checkpoint(&mut self, sequence: u64, changed: &BTreeSet<usize>) -> bool {
            if changed.is_empty() {
                return false;
            }
            let due = oldest(self.rotation.last(), changed.len(), self.truth.len());
            changed.iter().for_each(|&thing| _ = self.truth.insert(thing, sequence));
            let known = self.rotation.last().len();
            let len = self.truth.keys().max().map_or(0, |max| max + 1);
            self.rotation.resize(len, sequence);
            due.iter().for_each(|&thing| self.rotation.note(thing, sequence));
            let written = changed.iter().copied().chain(due).chain(known..len);
            self.files.insert(sequence, written.filter_map(|t| Some((t, *self.truth.get(&t)?))).collect());
            true
        }
    }

    proptest! {
        #[test]
        fn live_files_hold_everything_and_are_few(
            steps in prop::collection::vec(prop::collection::btree_set(0..300_usize, 0..12), 1..300),
        ) {
            let kinds = [Kind::Rows, Kind::State, Kind::Seen];
            let mut things = kinds.map(|_| Things::default());
            let mut live = Vec::<FileEntry>::new();
            for (sequence, changed) in (1..).zip(&steps) {
                let mut new = Vec::new();
                for (i, (things, kind)) in things.iter_mut().zip(kinds).enumerate() {
                    let own = changed.iter().copied().filter(|thing| thing % (i + 1) == 0).collect();
                    if things.checkpoint(sequence, &own) {
                        new.push(file(kind, sequence));
                    }
                }
                let [rows, arrays, seen] = things.each_ref().map(|things| things.rotation.needs().unwrap_or(sequence));
                let before = live.len() + new.len();
                let chain = extend(&live, new, Needs { rows, arrays, seen });
                prop_assert_eq!(chain.live.len() + chain.superseded.len(), before);
                live = chain.live;
                prop_assert!(live.len() <= 256, "{} files", live.len());
                prop_assert!(live.iter().all(|file| sequence - file.sequence < 3 * LAP as u64));
                for (things, kind) in things.iter().zip(kinds) {
                    let own = live.iter().filter(|file| file.kind == kind).map(|file| &things.files[&file.sequence]);
                    let mut restored = BTreeMap::new();
                    own.for_each(|file| restored.extend(file.clone()));
                    prop_assert_eq!(&restored, &things.truth);
                }
            }
        }
    }

    #[test]
    fn the_newest_scalars_are_always_live() {
        let needs = Needs { rows: 9, arrays: 9, seen: 9 };
        let chain = extend(&[file(Kind::State, 3), file(Kind::State, 4), file(Kind::Rows, 4)], Vec::new(), needs);
        assert_eq!(chain.live, [file(Kind::State, 4)]);
        assert_eq!(chain.superseded, [file(Kind::State, 3), file(Kind::Rows, 4)]);
    }
}
