//! An in-memory object store.

use std::collections::BTreeMap;

use retentiond::checkpoint::protocol::Identity;

use crate::log::PartitionState;

/// Conversion of a partition's state to the content of a file and back.
pub trait Snapshots {
    type Content: Clone;
    fn epoch(state: &PartitionState) -> Self::Content;
    fn restore(content: &Self::Content) -> PartitionState;
}

/// Stores a clone as the content of a file.
pub struct Clones;

impl Snapshots for Clones {
    type Content = PartitionState;

    fn epoch(state: &PartitionState) -> PartitionState {
        state.clone()
    }

    fn restore(content: &PartitionState) -> PartitionState {
        content.clone()
    }
}

/// The content of a manifest.
#[derive(Clone)]
pub struct Manifest {
    pub identity: Identity,
    pub next: Vec<i64>,
    /// Live files, oldest first. The last one holds the state; all are required.
    pub files: Vec<String>,
}

#[derive(Clone)]
pub enum Object<S: Snapshots> {
    File(S::Content),
    Manifest(Manifest),
    /// Damaged after it was written.
    Garbage,
}

/// Create-only: names are never written twice.
pub struct Store<S: Snapshots> {
    pub id: String,
    objects: BTreeMap<String, Object<S>>,
}

/// Why nothing can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    Missing(String),
    Corrupt(String),
}

impl<S: Snapshots> Store<S> {
    pub fn new() -> Store<S> {
        Store { id: "store-1".into(), objects: BTreeMap::new() }
    }

    /// Creates an object; `false` if the name exists.
    pub fn create(&mut self, name: &str, object: Object<S>) -> bool {
        let free = !self.objects.contains_key(name);
        if free {
            self.objects.insert(name.to_owned(), object);
        }
        free
    }

    pub fn delete(&mut self, name: &str) {
        self.objects.remove(name);
    }

    pub fn damage(&mut self, name: &str) {
        self.objects.insert(name.to_owned(), Object::Garbage);
    }

    pub fn has_checkpoints(&self, partition: i32) -> bool {
        let prefix = format!("p{partition}/");
        self.objects.iter().any(|(name, object)| name.starts_with(&prefix) && matches!(object, Object::Manifest(_)))
    }

    /// Whether a manifest and all of its files exist.
    pub fn is_whole(&self, name: &str) -> bool {
        let file = |file: &String| matches!(self.objects.get(file), Some(Object::File(_)));
        self.manifest(name).is_ok_and(|manifest| manifest.files.iter().all(file))
    }

    pub fn manifest(&self, name: &str) -> Result<&Manifest, Absent> {
        match self.objects.get(name) {
            Some(Object::Manifest(manifest)) => Ok(manifest),
            Some(_) => Err(Absent::Corrupt(name.to_owned())),
            None => Err(Absent::Missing(name.to_owned())),
        }
    }

    /// The state of a manifest; all of its files must exist.
    pub fn restore(&self, name: &str) -> Result<(Manifest, PartitionState), Absent> {
        let manifest = self.manifest(name)?;
        let mut state = None;
        for file in &manifest.files {
            match self.objects.get(file) {
                Some(Object::File(content)) => state = Some(content),
                Some(_) => return Err(Absent::Corrupt(file.clone())),
                None => return Err(Absent::Missing(file.clone())),
            }
        }
        let content = state.ok_or_else(|| Absent::Corrupt(name.to_owned()))?;
        Ok((manifest.clone(), S::restore(content)))
    }
}
