//! Inspects the store of a group: the manifests of each partition, damaged files, and files that no manifest names.

use std::collections::BTreeSet;
use std::fmt;

use super::digest;
use super::files::group_directory;
use super::manifest::{Manifest, ManifestError};
use super::metadata::ManifestRef;
use super::store::{Store, StoreError, Stored};

/// A manifest in the store.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name in the group's directory, and its full digest.
    pub reference: ManifestRef,
    /// When it was written, epoch milliseconds.
    pub written: i64,
    /// Its content, if it can be read.
    pub manifest: Result<Manifest, ManifestError>,
}

/// The checkpoints of one partition in the store.
#[derive(Debug, Clone)]
pub struct PartitionCheckpoints {
    /// The partition.
    pub partition: i32,
    /// Its manifests, the newest first.
    pub entries: Vec<Entry>,
    /// Files in the group's directory that no readable manifest names. A crash left them, or their manifest was
    /// deleted.
    pub orphans: Vec<Stored>,
}

/// Damage to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// The file does not exist.
    Missing,
    /// The file has this many bytes, which differs from the manifest.
    Length(u64),
    /// The digest differs from the manifest.
    Digest,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Missing => f.write_str("missing"),
            Damage::Length(bytes) => write!(f, "damaged: it has {bytes} bytes"),
            Damage::Digest => f.write_str("damaged: the digest differs"),
        }
    }
}

/// Lists the checkpoints of every partition of a group, in order.
///
/// # Errors
/// See [`StoreError`].
pub async fn shelves(store: &Store, group: &str) -> Result<Vec<PartitionCheckpoints>, StoreError> {
    let directory = group_directory(group);
    let directories = store.directories(&directory).await?;
    let number = |name: &String| name.rsplit('/').next()?.strip_prefix('p')?.parse::<i32>().ok();
    let mut partitions: Vec<i32> = directories.iter().filter_map(number).collect();
    partitions.sort_unstable();
    let mut shelves = Vec::with_capacity(partitions.len());
    for partition in partitions {
        shelves.push(shelf(store, group, partition).await?);
    }
    Ok(shelves)
}

/// Lists the checkpoints of one partition; empty if there are none.
///
/// # Errors
/// See [`StoreError`].
pub async fn shelf(store: &Store, group: &str, partition: i32) -> Result<PartitionCheckpoints, StoreError> {
    let directory = group_directory(group);
    let within = |stored: Stored| {
        let name = stored.name.strip_prefix(&format!("{directory}/")).map(str::to_owned);
        name.map(|name| Stored { name, ..stored })
    };
    let listed = store.list_stored(&format!("{directory}/p{partition}")).await?;
    let (manifests, mut orphans): (Vec<_>, Vec<_>) =
        listed.into_iter().filter_map(within).partition(|stored| stored.name.ends_with(".json"));
    let mut entries = Vec::with_capacity(manifests.len());
    for stored in manifests {
        match entry(store, &directory, &stored).await {
            Ok(entry) => entries.push(entry),
            // A running replica may delete old files while we list them.
            Err(StoreError::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let sequence = |entry: &Entry| entry.manifest.as_ref().map_or(0, |manifest| manifest.sequence);
    entries.sort_by_key(|entry| std::cmp::Reverse((entry.written, sequence(entry))));
    let named: BTreeSet<&str> = entries
        .iter()
        .filter_map(|entry| entry.manifest.as_ref().ok())
        .flat_map(|manifest| manifest.files.iter().map(|file| file.name.as_str()))
        .collect();
    orphans.retain(|stored| !named.contains(stored.name.as_str()));
    Ok(PartitionCheckpoints { partition, entries, orphans })
}

async fn entry(store: &Store, directory: &str, stored: &Stored) -> Result<Entry, StoreError> {
    let text = store.get(&format!("{directory}/{}", stored.name)).await?;
    let reference = ManifestRef { name: stored.name.clone(), digest: digest(&text) };
    let manifest = Manifest::decode(&text, &reference);
    let recorded = manifest.as_ref().map_or(0, |manifest| manifest.origin.written);
    let written = if recorded > 0 { recorded } else { stored.modified };
    Ok(Entry { reference, written, manifest })
}

/// Reads all files of a manifest and returns the damaged ones by name.
///
/// # Errors
/// See [`StoreError`].
pub async fn damages(store: &Store, manifest: &Manifest) -> Result<Vec<(String, Damage)>, StoreError> {
    let directory = group_directory(&manifest.origin.group);
    let mut damages = Vec::new();
    for file in &manifest.files {
        let damage = match store.get(&format!("{directory}/{}", file.name)).await {
            Ok(bytes) if bytes.len() as u64 != file.bytes => Some(Damage::Length(bytes.len() as u64)),
            Ok(bytes) => (digest(&bytes) != file.digest).then_some(Damage::Digest),
            Err(StoreError::Missing { .. }) => Some(Damage::Missing),
            Err(error) => return Err(error),
        };
        damages.extend(damage.map(|damage| (file.name.clone(), damage)));
    }
    Ok(damages)
}
