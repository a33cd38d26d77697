//! Writes a checkpoint as files, and restores an engine from files.
//!
//! Order makes a checkpoint durable: first all files, then the manifest that names them. The coordinator then commits
//! the offset that names the manifest. After a crash in between, nothing refers to the files already written.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::chain::{self, Chain};
use super::digest;
use super::manifest::{CheckpointOrigin, Definition, Expected, FileEntry, Kind, Manifest, ManifestError, VERSION};
use super::metadata::ManifestRef;
use super::rows::{self, RowsError};
use super::sections::{self, SectionsError};
use super::store::{Store, StoreError};
use crate::engine::Engine;
use crate::engine::spec::Spec;
use crate::engine::state::restore::{RestoreError, Restorer};
use crate::engine::state::{EngineCheckpoint, Scalars};

/// Number of files to fetch ahead of the one being decoded.
const FETCHED_AHEAD: usize = 6;

/// Why a checkpoint could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Customers could not be encoded.
    #[error("customers cannot be encoded: {0}")]
    Rows(#[from] RowsError),
    /// Other state could not be encoded.
    #[error("the state cannot be encoded: {0}")]
    Encode(#[from] std::io::Error),
}

/// Why a state could not be loaded. Each message names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The manifest was rejected.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The digest of a file differs from the manifest.
    #[error(
        "the file {0} is damaged: its digest differs from the manifest; go back to an older state with `retentiond rewind`"
    )]
    Digest(String),
    /// The digest is right, but the content cannot be decoded.
    #[error(
        "the file {name} cannot be read ({why}); run the version of retentiond that wrote it, or go back to an older state with `retentiond rewind`"
    )]
    File {
        /// The file.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The files do not form a consistent engine state.
    #[error(
        "the files of {name} do not belong together ({source}); go back to an older state with `retentiond rewind`"
    )]
    Restore {
        /// The manifest.
        name: String,
        /// What is wrong.
        source: RestoreError,
    },
    /// The process is shutting down.
    #[error("loading was interrupted by shutdown")]
    Ended,
}

/// An encoded checkpoint that is not yet written.
#[derive(Debug)]
pub struct Encoded {
    /// The manifest entry and content of each file.
    files: Vec<(FileEntry, Vec<u8>)>,
    manifest: Manifest,
    reference: ManifestRef,
    text: Vec<u8>,
    /// Files that this checkpoint supersedes.
    superseded: Vec<String>,
}

/// A checkpoint that was written to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenCheckpoint {
    /// The reference to commit.
    pub reference: ManifestRef,
    /// The manifest, the base of the next checkpoint.
    pub manifest: Manifest,
    /// Files of earlier checkpoints that are no longer needed once this one is committed; see [`delete`].
    pub superseded: Vec<String>,
    /// Bytes written.
    pub bytes: u64,
}

/// The path of a checkpoint's files in the group's directory, without extension.
#[must_use]
pub fn stem(partition: i32, sequence: u64, nonce: u64) -> String {
    format!("p{partition}/{sequence:010}-{nonce:016x}")
}

/// The directory of a group: its name, with bytes that are unsafe in file names escaped as =XX.
#[must_use]
pub fn group_directory(group: &str) -> String {
    let mut directory = String::new();
    for byte in group.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => directory.push(char::from(byte)),
            // A leading dot would hide the directory or name its parent.
            b'.' if !directory.is_empty() => directory.push('.'),
            _ => directory.push_str(&format!("={byte:02X}")),
        }
    }
    directory
}

/// Encodes a checkpoint. CPU-bound, no I/O. `before` is the manifest of the previous checkpoint; `nonce` is random.
///
/// # Errors
/// See [`WriteError`].
pub fn encode(
    spec: &Spec,
    origin: CheckpointOrigin,
    checkpoint: &EngineCheckpoint,
    before: Option<&Manifest>,
    nonce: u64,
) -> Result<Encoded, WriteError> {
    let stem = stem(origin.partition, checkpoint.sequence, nonce);
    let entry = |kind: Kind, bytes: &[u8], rows: usize, full: Vec<(u32, u32)>| FileEntry {
        name: format!("{stem}.{}", kind.extension()),
        kind,
        sequence: checkpoint.sequence,
        bytes: bytes.len() as u64,
        digest: digest(bytes),
        rows: rows as u64,
        full,
    };
    let mut files = Vec::new();
    if let Some(rows) = &checkpoint.rows {
        let bytes = rows::encode(&rows.rows, &checkpoint.scalars)?;
        files.push((entry(Kind::Rows, &bytes, rows.rows.len(), runs(&rows.full)), bytes));
    }
    let bytes = sections::encode_state(&checkpoint.scalars, &checkpoint.arrays)?;
    files.push((entry(Kind::State, &bytes, 0, Vec::new()), bytes));
    if let Some(seen) = &checkpoint.seen {
        let bytes = sections::encode_seen(seen)?;
        files.push((entry(Kind::Seen, &bytes, 0, Vec::new()), bytes));
    }
    let known = before.map_or(&[][..], |before| &before.files);
    let new = files.iter().map(|(entry, _)| entry.clone()).collect();
    let Chain { live, superseded } = chain::extend(known, new, checkpoint.needs);
    let manifest = Manifest {
        version: VERSION,
        origin,
        sequence: checkpoint.sequence,
        needs: checkpoint.needs,
        files: live,
        definition: Definition::of(spec),
        customers: checkpoint.scalars.customers,
        watermark: watermark(spec, &checkpoint.scalars),
    };
    let (text, digest) = manifest.encode()?;
    let reference = ManifestRef { name: format!("{stem}.json"), digest };
    let superseded = superseded.into_iter().map(|file| file.name).collect();
    Ok(Encoded { files, manifest, reference, text, superseded })
}

/// The watermark of the partition in milliseconds: the smallest among clock-driving topics that have had an event.
fn watermark(spec: &Spec, scalars: &Scalars) -> Option<i64> {
    let driving = scalars.topics.iter().zip(&spec.topics).filter(|(_, drives)| **drives);
    driving.filter_map(|(topic, _)| topic.watermark).min()
}

/// Writes an encoded checkpoint: its files, then its manifest.
///
/// # Errors
/// See [`WriteError`]. Files written before the error stay in the store, unreferenced.
pub async fn upload(store: &Store, encoded: Encoded) -> Result<WrittenCheckpoint, WriteError> {
    let Encoded { files, manifest, reference, text, superseded } = encoded;
    let directory = group_directory(&manifest.origin.group);
    let mut bytes = text.len() as u64;
    for (entry, content) in files {
        bytes += entry.bytes;
        store.put(&format!("{directory}/{}", entry.name), content).await?;
    }
    store.put(&format!("{directory}/{}", reference.name), text).await?;
    Ok(WrittenCheckpoint { reference, manifest, superseded, bytes })
}

/// [`encode`] and [`upload`].
///
/// # Errors
/// See [`WriteError`].
pub async fn write_checkpoint(
    store: &Store,
    spec: &Spec,
    origin: CheckpointOrigin,
    checkpoint: &EngineCheckpoint,
    before: Option<&Manifest>,
    nonce: u64,
) -> Result<WrittenCheckpoint, WriteError> {
    upload(store, encode(spec, origin, checkpoint, before, nonce)?).await
}

/// Deletes superseded files and old manifests, named relative to the group's directory.
///
/// # Errors
/// See [`StoreError`]; the remaining files are still tried.
pub async fn delete(store: &Store, group: &str, superseded: &[String]) -> Result<(), StoreError> {
    let directory = group_directory(group);
    let mut result = Ok(());
    for name in superseded {
        result = store.delete(&format!("{directory}/{name}")).await.and(result);
    }
    result
}

/// Reads and checks a manifest.
///
/// # Errors
/// See [`LoadError`].
pub async fn load_manifest(store: &Store, named: &ManifestRef, expected: &Expected) -> Result<Manifest, LoadError> {
    let directory = group_directory(&expected.group);
    let text = store.get(&format!("{directory}/{}", named.name)).await?;
    let manifest = Manifest::decode(&text, named)?;
    manifest.check(named, expected)?;
    Ok(manifest)
}

/// Loads the state that a manifest names into an engine with the given spec. Decodes files on the calling thread, and
/// customers on up to `threads` additional threads.
///
/// # Errors
/// See [`LoadError`].
pub async fn load(
    store: &Store,
    named: &ManifestRef,
    expected: &Expected,
    spec: &Arc<Spec>,
    threads: usize,
) -> Result<(Engine, Manifest), LoadError> {
    let manifest = load_manifest(store, named, expected).await?;
    let was = |(name, _): &(String, _)| manifest.origin.topics.iter().position(|topic| topic.name == *name);
    let topics: Vec<_> = expected.topics.iter().map(was).collect();
    let mut files = newest_first(&manifest);
    let mut fetched = Fetcher::new(store, &group_directory(&expected.group));
    let mut restorer = None;
    loop {
        while fetched.len() < FETCHED_AHEAD
            && let Some(file) = files.pop_front()
        {
            fetched.fetch(file);
        }
        let Some((file, bytes)) = fetched.next().await? else { break };
        if digest(&bytes) != file.digest {
            return Err(LoadError::Digest(file.name));
        }
        read_file(&file, bytes, &mut restorer, spec, &topics, threads)?;
    }
    let whole = |source| LoadError::Restore { name: named.name.clone(), source };
    let restorer = restorer.ok_or_else(|| LoadError::File { name: named.name.clone(), why: "no state".into() })?;
    Ok((restorer.finish().map_err(whole)?, manifest))
}

/// The newest state file first, because it holds the scalars; then all files from newest to oldest.
fn newest_first(manifest: &Manifest) -> VecDeque<FileEntry> {
    let mut files: Vec<_> = manifest.files.clone();
    let newest = files.iter().filter(|file| file.kind == Kind::State).map(|file| file.sequence).max();
    let is_first = |file: &FileEntry| file.kind == Kind::State && Some(file.sequence) == newest;
    files.sort_by_key(|file| (!is_first(file), std::cmp::Reverse(file.sequence)));
    files.into()
}

/// Restores one file into the engine.
fn read_file(
    file: &FileEntry,
    bytes: Bytes,
    restorer: &mut Option<Restorer>,
    spec: &Arc<Spec>,
    topics: &[Option<usize>],
    threads: usize,
) -> Result<(), LoadError> {
    let unreadable = |why: String| LoadError::File { name: file.name.clone(), why };
    let section = |error: SectionsError| unreadable(error.to_string());
    match (file.kind, restorer) {
        (Kind::State, restorer) => {
            let (scalars, arrays) = sections::decode_state(&bytes).map_err(section)?;
            let restorer = match restorer {
                Some(restorer) => restorer,
                None => {
                    let new = Restorer::new(spec, topics, scalars).map_err(|error| unreadable(error.to_string()))?;
                    restorer.insert(new)
                }
            };
            arrays.into_iter().for_each(|array| restorer.array(file.sequence, array));
        }
        (Kind::Rows, Some(restorer)) => {
            let full: Vec<u32> = file.full.iter().flat_map(|&(first, last)| first..=last).collect();
            restorer.note_full(file.sequence, &full);
            rows::restore(&bytes, file.sequence, threads, restorer).map_err(|error| unreadable(error.to_string()))?;
        }
        (Kind::Seen, Some(restorer)) => {
            restorer.seen(file.sequence, &sections::decode_seen(&bytes).map_err(section)?);
        }
        (_, None) => return Err(unreadable("it comes before the newest state".to_owned())),
    }
    Ok(())
}

/// Downloads files ahead of time, in order.
struct Fetcher {
    store: Store,
    directory: String,
    fetched: VecDeque<(FileEntry, JoinHandle<Result<Bytes, StoreError>>)>,
}

impl Fetcher {
    fn new(store: &Store, directory: &str) -> Fetcher {
        Fetcher { store: store.clone(), directory: directory.to_owned(), fetched: VecDeque::new() }
    }

    fn len(&self) -> usize {
        self.fetched.len()
    }

    fn fetch(&mut self, file: FileEntry) {
        let (store, name) = (self.store.clone(), format!("{}/{}", self.directory, file.name));
        self.fetched.push_back((file, tokio::spawn(async move { store.get(&name).await })));
    }

    async fn next(&mut self) -> Result<Option<(FileEntry, Bytes)>, LoadError> {
        let Some((file, bytes)) = self.fetched.pop_front() else { return Ok(None) };
        let bytes = bytes.await.map_err(|_| LoadError::Ended)??;
        Ok(Some((file, bytes)))
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.fetched.iter().for_each(|(_, task)| task.abort());
    }
}

/// Compresses ascending numbers into runs of (first, last).
fn runs(numbers: &[u32]) -> Vec<(u32, u32)> {
    let mut runs = Vec::<(u32, u32)>::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_runs() {
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[3]), [(3, 3)]);
        assert_eq!(runs(&[0, 1, 2, 5, 7, 8]), [(0, 2), (5, 5), (7, 8)]);
    }

    #[test]
    fn group_names_cannot_escape_their_directory() {
        for (group, directory) in [
            ("retentiond", "retentiond"),
            ("shop.eu-1_x", "shop.eu-1_x"),
            ("..", "=2E."),
            (".hidden", "=2Ehidden"),
            ("a/b", "a=2Fb"),
            ("köln#1", "k=C3=B6ln=231"),
        ] {
            assert_eq!(group_directory(group), directory);
        }
    }
}
