//! The manifest of a checkpoint: the files that hold a partition's state, and the offsets that the state includes.

use serde::{Deserialize, Serialize};

use super::digest;
use super::metadata::ManifestRef;
use crate::engine::spec::Spec;
use crate::engine::state::{Needs, cohorts_key, lifecycle_key, reporting_key, window_key};
use crate::engine::window_ids;

/// The version that this program writes.
pub const VERSION: u32 = 2;
/// The oldest version that this program reads.
pub const OLDEST: u32 = 1;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Customers, in Parquet.
    Rows,
    /// Scalars and arrays.
    State,
    /// Fingerprints of events.
    Seen,
}

impl Kind {
    /// The file name extension.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Kind::Rows => "parquet",
            Kind::State => "state",
            Kind::Seen => "seen",
        }
    }
}

/// A file of the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name in the group's directory.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// The sequence number of the checkpoint that wrote it.
    pub sequence: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal.
    pub digest: String,
    /// The number of customers in it, including erased ones.
    pub rows: u64,
    /// The customer buckets that it holds completely, as runs of (first, last).
    pub full: Vec<(u32, u32)>,
}

/// Fingerprint of the last applied record of a topic-partition, to detect a truncated or replaced log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// Its offset.
    pub offset: i64,
    /// The leader epoch under which it was read; -1 if unknown.
    pub leader_epoch: i32,
    /// Its timestamp in milliseconds.
    pub time: i64,
    /// A hash of key and payload in hexadecimal.
    pub hash: String,
}

/// A topic's position in the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicEntry {
    /// The topic.
    pub name: String,
    /// Its topic id, which changes when the topic is recreated; absent if the broker has none.
    pub id: Option<String>,
    /// The next offset to read.
    pub offset: i64,
    /// The last applied record; absent before the first.
    pub anchor: Option<Anchor>,
}

/// What the engine computed when it took the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// A digest of the other fields.
    pub digest: String,
    /// The windows.
    pub windows: Vec<String>,
    /// The dimensions with their listed values.
    pub dimensions: Vec<(String, Vec<String>)>,
    /// Lifecycle stages and statuses.
    pub lifecycle: String,
    /// Cohorts.
    pub cohorts: String,
    /// The reporting currency and its rates, if configured.
    pub reporting: Option<String>,
}

impl Definition {
    /// The definition of an engine's spec.
    #[must_use]
    pub fn of(spec: &Spec) -> Definition {
        let dimensions = spec.dimensions.iter().map(|dimension| (dimension.name.clone(), dimension.values.clone()));
        let mut definition = Definition {
            digest: String::new(),
            windows: window_ids(spec).map(|window| window_key(spec, window)).collect(),
            dimensions: dimensions.collect(),
            lifecycle: lifecycle_key(spec),
            cohorts: cohorts_key(spec),
            reporting: reporting_key(spec),
        };
        definition.digest = digest(format!("{definition:?}").as_bytes());
        definition
    }
}

/// Where a checkpoint comes from: group, partition and positions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointOrigin {
    /// The consumer group.
    pub group: String,
    /// The partition.
    pub partition: i32,
    /// The number of partitions of the topics.
    pub partitions: i32,
    /// The source topics, in the order of the configuration.
    pub topics: Vec<TopicEntry>,
    /// The id of the store it was written to.
    pub store: String,
    /// Silences that were due before this time raise no alerts, in milliseconds.
    pub since: i64,
    /// The wall clock when it was written, in milliseconds; 0 in manifests of older versions.
    #[serde(default)]
    pub written: i64,
}

/// The manifest of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the format.
    pub version: u32,
    /// Where the checkpoint comes from.
    pub origin: CheckpointOrigin,
    /// The sequence number of the checkpoint.
    pub sequence: u64,
    /// The oldest checkpoint that is still needed, for each kind of file.
    pub needs: Needs,
    /// All files that belong to the state, oldest first.
    pub files: Vec<FileEntry>,
    /// What the engine computed.
    pub definition: Definition,
    /// The number of customers.
    #[serde(default)]
    pub customers: u64,
    /// The watermark of the partition in milliseconds, if any.
    #[serde(default)]
    pub watermark: Option<i64>,
}

/// What a manifest must agree with to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The consumer group.
    pub group: String,
    /// The partition.
    pub partition: i32,
    /// The number of partitions of the topics.
    pub partitions: i32,
    /// Names and ids of the source topics, in the order of the configuration.
    pub topics: Vec<(String, Option<String>)>,
    /// The id of the opened store.
    pub store: String,
}

/// Why a manifest was rejected. Each message names the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Its digest differs from the committed one.
    #[error(
        "the manifest {0} is not the one that was committed: it is damaged; go back to an older state with `retentiond rewind`"
    )]
    Digest(String),
    /// It cannot be parsed.
    #[error("the manifest {name} cannot be read ({why}); go back to an older state with `retentiond rewind`")]
    Text {
        /// The manifest.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// An unsupported version.
    #[error(
        "the manifest {name} has version {version}; this program reads {OLDEST} to {VERSION}: run the version that wrote it, or the next one"
    )]
    Version {
        /// The manifest.
        name: String,
        /// Its version.
        version: u32,
    },
    /// It belongs to another group or partition.
    #[error(
        "the manifest {name} belongs to {found}, not to {expected}: offsets of another group were committed; restore them with `retentiond rewind`"
    )]
    Foreign {
        /// The manifest.
        name: String,
        /// Group and partition in the manifest.
        found: String,
        /// The expected group and partition.
        expected: String,
    },
    /// The partition count of the topics has changed.
    #[error(
        "the topics had {before} partitions and have {now}: customers have moved between partitions; rebuild the state with `retentiond bootstrap`, or under a new kafka.group_id from topics that hold the whole history"
    )]
    Partitions {
        /// The former count.
        before: i32,
        /// The current count.
        now: i32,
    },
    /// The configured store is not the one that holds the state.
    #[error(
        "the state was written to the store {before}, but checkpoint.url names the store {now}: set it back, or copy the former store here with its store.json"
    )]
    Store {
        /// The store that the state was written to.
        before: String,
        /// The store that was opened.
        now: String,
    },
    /// A topic was deleted and recreated.
    #[error(
        "the topic {0} was recreated since the state was written, so its offsets refer to other records; start over under a new kafka.group_id"
    )]
    Recreated(String),
}

impl Manifest {
    /// Serializes the manifest; returns its bytes and their digest.
    ///
    /// # Errors
    /// Serialization of this type does not fail in practice.
    pub fn encode(&self) -> std::io::Result<(Vec<u8>, String)> {
        let bytes = serde_json::to_vec_pretty(self)?;
        let digest = digest(&bytes);
        Ok((bytes, digest))
    }

    /// Parses a manifest and checks it against the committed reference.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn decode(bytes: &[u8], named: &ManifestRef) -> Result<Manifest, ManifestError> {
        let name = || named.name.clone();
        if named.digest.is_empty() || !digest(bytes).starts_with(&named.digest) {
            return Err(ManifestError::Digest(name()));
        }
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let text = |error: serde_json::Error| ManifestError::Text { name: name(), why: error.to_string() };
        let Versioned { version } = serde_json::from_slice(bytes).map_err(text)?;
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(ManifestError::Version { name: name(), version });
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(text)?;
        let newest = manifest.files.iter().filter(|file| file.kind == Kind::State).map(|file| file.sequence).max();
        if newest.is_none_or(|newest| newest > manifest.sequence) {
            let why = "it names no state file of this checkpoint or an earlier one".to_owned();
            return Err(ManifestError::Text { name: name(), why });
        }
        Ok(manifest)
    }

    /// Checks that the manifest belongs to this group, partition and store.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn check(&self, named: &ManifestRef, expected: &Expected) -> Result<(), ManifestError> {
        let CheckpointOrigin { group, partition, partitions, topics, store, since: _, written: _ } = &self.origin;
        if (group, *partition) != (&expected.group, expected.partition) {
            let whose = |group: &str, partition: i32| format!("partition {partition} of the group {group}");
            return Err(ManifestError::Foreign {
                name: named.name.clone(),
                found: whose(group, *partition),
                expected: whose(&expected.group, expected.partition),
            });
        }
        if *partitions != expected.partitions {
            return Err(ManifestError::Partitions { before: *partitions, now: expected.partitions });
        }
        if *store != expected.store {
            return Err(ManifestError::Store { before: store.clone(), now: expected.store.clone() });
        }
        for topic in topics {
            let now = expected.topics.iter().find(|(name, _)| *name == topic.name).and_then(|(_, id)| id.as_ref());
            if let (Some(before), Some(now)) = (&topic.id, now)
                && before != now
            {
                return Err(ManifestError::Recreated(topic.name.clone()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let anchor = Anchor { offset: 41, leader_epoch: 3, time: 5, hash: "ab".into() };
        let topic = TopicEntry { name: "orders".into(), id: Some("id-1".into()), offset: 42, anchor: Some(anchor) };
        let file = FileEntry {
            name: "p3/0000000001-aa.state".into(),
            kind: Kind::State,
            sequence: 1,
            bytes: 5,
            digest: digest(b"x"),
            rows: 0,
            full: vec![(0, 3)],
        };
        Manifest {
            version: VERSION,
            origin: CheckpointOrigin {
                group: "shop".into(),
                partition: 3,
                partitions: 12,
                topics: vec![topic],
                store: "s-1".into(),
                since: 0,
                written: 0,
            },
            sequence: 1,
            needs: Needs::default(),
            files: vec![file],
            definition: Definition {
                reporting: None,
                digest: "d".into(),
                windows: vec![],
                dimensions: vec![],
                lifecycle: String::new(),
                cohorts: String::new(),
            },
            customers: 0,
            watermark: None,
        }
    }

    fn expected() -> Expected {
        Expected {
            group: "shop".into(),
            partition: 3,
            partitions: 12,
            topics: vec![("orders".into(), Some("id-1".into()))],
            store: "s-1".into(),
        }
    }

    fn named(manifest: &Manifest) -> (Vec<u8>, ManifestRef) {
        let (bytes, digest) = manifest.encode().unwrap();
        (bytes, ManifestRef { name: "p3/0000000001-aa.json".into(), digest: digest[..32].into() })
    }

    #[test]
    fn round_trips_and_detects_every_changed_byte() {
        let (mut bytes, name) = named(&manifest());
        assert_eq!(Manifest::decode(&bytes, &name), Ok(manifest()));
        for at in 0..bytes.len() {
            bytes[at] ^= 4;
            assert_eq!(Manifest::decode(&bytes, &name), Err(ManifestError::Digest(name.name.clone())), "byte {at}");
            bytes[at] ^= 4;
        }
        let empty = ManifestRef { digest: String::new(), ..name };
        assert!(Manifest::decode(&bytes, &empty).is_err(), "an empty digest is rejected");
    }

    #[test]
    fn other_versions_and_malformed_manifests_are_refused() {
        let (bytes, name) = named(&Manifest { version: VERSION + 1, ..manifest() });
        let version = ManifestError::Version { name: name.name.clone(), version: VERSION + 1 };
        assert_eq!(Manifest::decode(&bytes, &name), Err(version));
        for text in ["", "{}", "{\"version\":1}", "[1]"] {
            let name = ManifestRef { name: "x".into(), digest: digest(text.as_bytes()) };
            assert!(matches!(Manifest::decode(text.as_bytes(), &name), Err(ManifestError::Text { .. })), "{text}");
        }
        let (bytes, name) = named(&Manifest { files: vec![], ..manifest() });
        assert!(matches!(Manifest::decode(&bytes, &name), Err(ManifestError::Text { .. })));
    }

    #[test]
    fn mismatches_name_the_remedy() {
        let (_, name) = named(&manifest());
        assert_eq!(manifest().check(&name, &expected()), Ok(()));
        let unnamed = Expected { topics: vec![("orders".into(), None)], ..expected() };
        assert_eq!(manifest().check(&name, &unnamed), Ok(()), "some brokers have no topic ids");
        for (expected, words) in [
            (Expected { group: "other".into(), ..expected() }, ["group shop", "rewind"]),
            (Expected { partition: 4, ..expected() }, ["partition 3", "rewind"]),
            (Expected { partitions: 13, ..expected() }, ["12 partitions and have 13", "bootstrap"]),
            (Expected { store: "s-2".into(), ..expected() }, ["s-1", "checkpoint.url"]),
            (
                Expected { topics: vec![("orders".into(), Some("id-2".into()))], ..expected() },
                ["orders was recreated", "kafka.group_id"],
            ),
        ] {
            let error = manifest().check(&name, &expected).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }
}
