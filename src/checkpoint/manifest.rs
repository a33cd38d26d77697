//! The manifest of a checkpoint: the files that hold the state of a partition, and what of the log they hold.

use serde::{Deserialize, Serialize};

use super::digest;
use super::metadata::ManifestRef;
use crate::engine::spec::Spec;
use crate::engine::state::{Needs, cohorts_key, lifecycle_key, reporting_key, window_key};
use crate::engine::window_ids;

/// The version that is written.
pub const VERSION: u32 = 2;
/// The oldest version that is read: the one before.
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
    /// How the names of such files end.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Kind::Rows => "parquet",
            Kind::State => "state",
            Kind::Seen => "seen",
        }
    }
}

/// A file that belongs to the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Where it is in the directory of the group.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// The number of the checkpoint that wrote it.
    pub sequence: u64,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal.
    pub digest: String,
    /// How many customers it holds, erased ones included.
    pub rows: u64,
    /// Which buckets of customers it holds in full: the first and the last of each run.
    pub full: Vec<(u32, u32)>,
}

/// The last record of a topic-partition that was applied, to recognise a log that was cut off or replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// Its offset.
    pub offset: i64,
    /// The leader epoch under which it was read; -1 when that is not known.
    pub leader_epoch: i32,
    /// Its timestamp in milliseconds.
    pub time: i64,
    /// A hash of key and payload in hexadecimal.
    pub hash: String,
}

/// How far a topic's partition is in the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicEntry {
    /// The topic.
    pub name: String,
    /// Its id, which another topic of that name would not have; absent when the broker tells none.
    pub id: Option<String>,
    /// The next offset to read.
    pub offset: i64,
    /// The last record applied; absent before the first.
    pub anchor: Option<Anchor>,
}

/// What the engine computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// A digest of the rest.
    pub digest: String,
    /// The windows.
    pub windows: Vec<String>,
    /// The dimensions, with the values that are listed.
    pub dimensions: Vec<(String, Vec<String>)>,
    /// Stages and statuses.
    pub lifecycle: String,
    /// Cohorts.
    pub cohorts: String,
    /// The reporting currency and its rates, where there is one.
    pub reporting: Option<String>,
}

impl Definition {
    /// That of an engine.
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

/// Whose state it is, and where its topics stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointOrigin {
    /// The consumer group.
    pub group: String,
    /// The partition.
    pub partition: i32,
    /// How many partitions the topics have.
    pub partitions: i32,
    /// The source topics, in the order of the configuration.
    pub topics: Vec<TopicEntry>,
    /// The id of the store in which it was written.
    pub store: String,
    /// From when on silences are alerted, in milliseconds.
    pub since: i64,
    /// The wall clock when it was written, in milliseconds; 0 where that was not noted yet.
    #[serde(default)]
    pub written: i64,
}

/// The manifest of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the format.
    pub version: u32,
    /// Whose state it is, and where its topics stand.
    pub origin: CheckpointOrigin,
    /// The number of the checkpoint.
    pub sequence: u64,
    /// Of each kind of file the oldest checkpoint that is still needed.
    pub needs: Needs,
    /// All files that belong to the state, oldest first.
    pub files: Vec<FileEntry>,
    /// What was computed.
    pub definition: Definition,
    /// How many customers the state has.
    #[serde(default)]
    pub customers: u64,
    /// The watermark of the partition in milliseconds, once there is one.
    #[serde(default)]
    pub watermark: Option<i64>,
}

/// What the one who loads a state knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The consumer group.
    pub group: String,
    /// The partition.
    pub partition: i32,
    /// How many partitions the topics have.
    pub partitions: i32,
    /// Names and ids of the source topics, in the order of the configuration.
    pub topics: Vec<(String, Option<String>)>,
    /// The id of the store that was opened.
    pub store: String,
}

/// Why a manifest is not believed. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Its bytes are others than those that were committed.
    #[error(
        "the manifest {0} is not the one that was committed: it is damaged; go back to an older state with `retentiond rewind`"
    )]
    Digest(String),
    /// Its text cannot be read.
    #[error("the manifest {name} cannot be read ({why}); go back to an older state with `retentiond rewind`")]
    Text {
        /// The manifest.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Another format.
    #[error(
        "the manifest {name} is of version {version}, this program reads {OLDEST} to {VERSION}: run the version that wrote it, or the next one"
    )]
    Version {
        /// The manifest.
        name: String,
        /// Its version.
        version: u32,
    },
    /// Somebody else's.
    #[error(
        "the manifest {name} belongs to {found}, not to {expected}: somebody committed offsets of another group; put them back with `retentiond rewind`"
    )]
    Foreign {
        /// The manifest.
        name: String,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// The topics have another number of partitions.
    #[error(
        "the topics had {before} partitions and have {now}: customers have moved between partitions; rebuild the state with `retentiond bootstrap`, or under another kafka.group_id from topics that hold everything"
    )]
    Partitions {
        /// How many there were.
        before: i32,
        /// How many there are.
        now: i32,
    },
    /// Another directory or bucket.
    #[error(
        "the state was written to the store {before}, and checkpoint.url names the store {now}: name the former one, or copy it here with its store.json"
    )]
    Store {
        /// The store in which the state was written.
        before: String,
        /// The one that was opened.
        now: String,
    },
    /// A topic was deleted and created anew.
    #[error(
        "the topic {0} was created anew since the state was written, so its offsets mean other records: begin anew under another kafka.group_id"
    )]
    Recreated(String),
}

impl Manifest {
    /// The bytes, and their digest.
    ///
    /// # Errors
    /// Never for what can be written as JSON, which this is.
    pub fn encode(&self) -> std::io::Result<(Vec<u8>, String)> {
        let bytes = serde_json::to_vec_pretty(self)?;
        let digest = digest(&bytes);
        Ok((bytes, digest))
    }

    /// Reads a manifest that was committed under that name.
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
            let why = "it names no newest state".to_owned();
            return Err(ManifestError::Text { name: name(), why });
        }
        Ok(manifest)
    }

    /// Whether it is what the one who loads it expects.
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
    fn it_survives_and_no_byte_of_it_can_change() {
        let (mut bytes, name) = named(&manifest());
        assert_eq!(Manifest::decode(&bytes, &name), Ok(manifest()));
        for at in 0..bytes.len() {
            bytes[at] ^= 4;
            assert_eq!(Manifest::decode(&bytes, &name), Err(ManifestError::Digest(name.name.clone())), "byte {at}");
            bytes[at] ^= 4;
        }
        let empty = ManifestRef { digest: String::new(), ..name };
        assert!(Manifest::decode(&bytes, &empty).is_err(), "no digest is no permission");
    }

    #[test]
    fn other_versions_and_what_is_no_manifest_are_refused() {
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
    fn what_does_not_fit_names_the_remedy() {
        let (_, name) = named(&manifest());
        assert_eq!(manifest().check(&name, &expected()), Ok(()));
        let unnamed = Expected { topics: vec![("orders".into(), None)], ..expected() };
        assert_eq!(manifest().check(&name, &unnamed), Ok(()), "not every broker knows ids");
        for (expected, words) in [
            (Expected { group: "other".into(), ..expected() }, ["group shop", "rewind"]),
            (Expected { partition: 4, ..expected() }, ["partition 3", "rewind"]),
            (Expected { partitions: 13, ..expected() }, ["12 partitions and have 13", "bootstrap"]),
            (Expected { store: "s-2".into(), ..expected() }, ["s-1", "checkpoint.url"]),
            (
                Expected { topics: vec![("orders".into(), Some("id-2".into()))], ..expected() },
                ["orders was created anew", "kafka.group_id"],
            ),
        ] {
            let error = manifest().check(&name, &expected).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }
}
