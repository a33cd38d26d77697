//! The checkpoint store: a local directory or a bucket. Files are created once and never changed.

use std::error::Error as _;
use std::io;
use std::path::{Path as LocalPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error as ObjectError, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};

use super::metadata::is_word;

/// The file with the id of the store.
const IDENTITY: &str = "store.json";

/// A directory or a bucket with checkpoints.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    id: String,
    url: String,
    /// Its path, if it is local.
    directory: Option<PathBuf>,
}

/// A file in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name in the store.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// When it was written, in epoch milliseconds by the clock of the store.
    pub modified: i64,
}

/// Content of [`IDENTITY`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    version: u32,
    id: String,
}

/// Why an operation on the store failed. Each message names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An unknown kind of store.
    #[error(
        "checkpoint.url {0:?} is not a store URL: write file:///directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
    )]
    Url(String),
    /// A kind of store that this build does not support.
    #[error("checkpoint.url {0:?} needs a build of retentiond with the feature `cloud`")]
    NotBuilt(String),
    /// The options for the bucket are insufficient.
    #[error("checkpoint.url {url:?} cannot be opened: {why}")]
    Open {
        /// The store.
        url: String,
        /// The reason.
        why: String,
    },
    /// The file does not exist.
    #[error(
        "{url}: the file {name} is missing; restore it from a backup, or go back to an older state with `retentiond rewind`"
    )]
    Missing {
        /// The store.
        url: String,
        /// The file.
        name: String,
    },
    /// The file exists with other content.
    #[error(
        "{url}: {name} already exists with other content: two programs write to the same place; give each group its own"
    )]
    Exists {
        /// The store.
        url: String,
        /// The file.
        name: String,
    },
    /// No space is left.
    #[error(
        "{url}: the disk is full, {name} was not written; free some space: nothing is lost, the next checkpoint tries again"
    )]
    Full {
        /// The store.
        url: String,
        /// The file.
        name: String,
    },
    /// No permission to read or write.
    #[error("{url}: {name}: {why}; give the user that runs retentiond permission to read and write there")]
    Permission {
        /// The store.
        url: String,
        /// The file.
        name: String,
        /// The error of the system.
        why: String,
    },
    /// There is no store at this URL.
    #[error("{0} is not a checkpoint store: it has no store.json; point checkpoint.url to the checkpoints")]
    Absent(String),
    /// The id of the store cannot be read.
    #[error("{url}: store.json is damaged; restore it: {{\"version\":1,\"id\":\"<the id that the manifests name>\"}}")]
    Identity {
        /// The store.
        url: String,
    },
    /// Any other error, which may be temporary.
    #[error("{url}: {name}: {source}")]
    Other {
        /// The store.
        url: String,
        /// The file.
        name: String,
        /// The error of the store.
        source: ObjectError,
    },
}

impl Store {
    /// Opens the store at a URL, or creates it with the id `new_id`, which should be random.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn open(url: &str, new_id: &str) -> Result<Store, StoreError> {
        let (objects, directory) = open_place(url)?;
        let mut store = Store { objects, id: String::new(), url: url.to_owned(), directory };
        store.id = store.identity(new_id).await?;
        Ok(store)
    }

    /// Opens an existing store for reading; creates and writes nothing.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn open_existing(url: &str) -> Result<Store, StoreError> {
        if let Some(path) = url.strip_prefix("file://")
            && !LocalPath::new(path).join(IDENTITY).exists()
        {
            return Err(StoreError::Absent(url.to_owned()));
        }
        let (objects, directory) = open_place(url)?;
        let mut store = Store { objects, id: String::new(), url: url.to_owned(), directory };
        let identity = store.get(IDENTITY).await.map_err(|error| match error {
            StoreError::Missing { url, .. } => StoreError::Absent(url),
            error => error,
        })?;
        store.id = store.read_identity(&identity)?;
        Ok(store)
    }

    /// The id of the store, which is `new_id` only if this process creates the store first.
    async fn identity(&self, new_id: &str) -> Result<String, StoreError> {
        let damaged = || StoreError::Identity { url: self.url.clone() };
        let found = match self.get(IDENTITY).await {
            Ok(bytes) => bytes,
            Err(StoreError::Missing { .. }) => {
                let identity = Identity { version: 1, id: new_id.to_owned() };
                let bytes = serde_json::to_vec(&identity).map_err(|_| damaged())?;
                match self.put(IDENTITY, bytes).await {
                    Ok(()) | Err(StoreError::Exists { .. }) => self.get(IDENTITY).await?,
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        self.read_identity(&found)
    }

    fn read_identity(&self, found: &[u8]) -> Result<String, StoreError> {
        let identity = serde_json::from_slice::<Identity>(found).ok();
        let sound = identity.filter(|identity| identity.version == 1 && is_word(&identity.id));
        sound.map(|identity| identity.id).ok_or_else(|| StoreError::Identity { url: self.url.clone() })
    }

    /// The id, unique to this store.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The URL it was opened with.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Creates a file; it is durable when this returns. Succeeds if the file exists with the same content: an earlier
    /// attempt may have succeeded although its answer was lost.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn put(&self, name: &str, content: Vec<u8>) -> Result<(), StoreError> {
        let content = Bytes::from(content);
        let payload = PutPayload::from_bytes(content.clone());
        match self.objects.put_opts(&self.path(name)?, payload, PutMode::Create.into()).await {
            Ok(_) => Ok(()),
            Err(ObjectError::AlreadyExists { .. } | ObjectError::Precondition { .. }) => {
                if self.get(name).await? == content {
                    return Ok(());
                }
                Err(StoreError::Exists { url: self.url.clone(), name: name.to_owned() })
            }
            Err(error) => Err(self.explain(name, error)),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        let read = async { self.objects.get(&self.path_or_object_error(name)?).await?.bytes().await };
        read.await.map_err(|error| self.explain(name, error))
    }

    /// Deletes a file; succeeds if it does not exist.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn delete(&self, name: &str) -> Result<(), StoreError> {
        match self.objects.delete(&self.path(name)?).await {
            Ok(()) | Err(ObjectError::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.explain(name, error)),
        }
    }

    /// The names of the files in a directory, sorted, without subdirectories.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn list(&self, directory: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.list_stored(directory).await?.into_iter().map(|stored| stored.name).collect())
    }

    /// As [`Store::list`], with length and time of each file.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn list_stored(&self, directory: &str) -> Result<Vec<Stored>, StoreError> {
        let listed = self.list_level(directory).await?.objects;
        let stored = |object: object_store::ObjectMeta| Stored {
            name: object.location.to_string(),
            bytes: object.size,
            modified: object.last_modified.timestamp_millis(),
        };
        let mut stored: Vec<_> = listed.into_iter().map(stored).collect();
        stored.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(stored)
    }

    /// The names of the directories in a directory, sorted.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn directories(&self, directory: &str) -> Result<Vec<String>, StoreError> {
        let prefixes = self.list_level(directory).await?.common_prefixes;
        let mut names: Vec<_> = prefixes.into_iter().map(|prefix| prefix.to_string()).collect();
        names.sort_unstable();
        Ok(names)
    }

    async fn list_level(&self, directory: &str) -> Result<object_store::ListResult, StoreError> {
        let prefix = self.path(directory)?;
        let listed = self.objects.list_with_delimiter(Some(&prefix)).await;
        listed.map_err(|error| self.explain(directory, error))
    }

    /// Deletes temporary files of interrupted writes from a local directory; listings do not show them. Returns their
    /// number.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn sweep_unfinished(&self, older_than: Duration) -> Result<usize, StoreError> {
        match &self.directory {
            None => Ok(0),
            Some(directory) => {
                sweep(directory, older_than).map_err(|error| self.explain_io("unfinished files", &error))
            }
        }
    }

    fn path(&self, name: &str) -> Result<Path, StoreError> {
        self.path_or_object_error(name).map_err(|error| self.explain(name, error))
    }

    fn path_or_object_error(&self, name: &str) -> Result<Path, ObjectError> {
        Ok(Path::parse(name)?)
    }

    fn explain(&self, name: &str, error: ObjectError) -> StoreError {
        let (url, name) = (self.url.clone(), name.to_owned());
        if let ObjectError::NotFound { .. } = error {
            return StoreError::Missing { url, name };
        }
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(io) = inner.downcast_ref::<io::Error>().filter(|io| is_plain(io)) {
                return self.explain_io(&name, io);
            }
            cause = inner.source();
        }
        match error {
            ObjectError::PermissionDenied { .. } | ObjectError::Unauthenticated { .. } => {
                StoreError::Permission { url, name, why: error.to_string() }
            }
            source => StoreError::Other { url, name, source },
        }
    }

    fn explain_io(&self, name: &str, error: &io::Error) -> StoreError {
        explain_io(&self.url, name, error)
    }
}

/// Whether we know a remedy for the error.
fn is_plain(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | PermissionDenied)
}

fn explain_io(url: &str, name: &str, error: &io::Error) -> StoreError {
    let (url, name) = (url.to_owned(), name.to_owned());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { url, name },
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            StoreError::Permission { url, name, why: error.to_string() }
        }
        _ => StoreError::Open { url, why: format!("{name}: {error}") },
    }
}

type Opened = (Arc<dyn ObjectStore>, Option<PathBuf>);

fn open_place(url: &str) -> Result<Opened, StoreError> {
    match url.split_once("://") {
        Some(("file", path)) if path.starts_with('/') => open_directory(url, LocalPath::new(path)),
        Some(("s3" | "gs" | "az", _)) => Ok((open_bucket(url)?, None)),
        _ => Err(StoreError::Url(url.to_owned())),
    }
}

fn open_directory(url: &str, path: &LocalPath) -> Result<Opened, StoreError> {
    std::fs::create_dir_all(path).map_err(|error| explain_io(url, "the directory", &error))?;
    let open = LocalFileSystem::new_with_prefix(path);
    let store = open.map_err(|error| StoreError::Open { url: url.to_owned(), why: error.to_string() })?;
    // Without fsync a file may be empty after a power failure although the offset that names it was committed.
    Ok((Arc::new(store.with_fsync(true)), Some(path.to_owned())))
}

#[cfg(feature = "cloud")]
fn open_bucket(url: &str) -> Result<Arc<dyn ObjectStore>, StoreError> {
    use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
    use object_store::azure::MicrosoftAzureBuilder;
    use object_store::gcp::GoogleCloudStorageBuilder;
    use object_store::prefix::PrefixStore;

    let prefix = url.splitn(4, '/').nth(3).unwrap_or_default().to_owned();
    let opened = match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("s3") => AmazonS3Builder::from_env()
            .with_url(url)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .build()
            .map(|store| Arc::new(PrefixStore::new(store, prefix)) as Arc<dyn ObjectStore>),
        Some("gs") => GoogleCloudStorageBuilder::from_env()
            .with_url(url)
            .build()
            .map(|store| Arc::new(PrefixStore::new(store, prefix)) as Arc<dyn ObjectStore>),
        _ => MicrosoftAzureBuilder::from_env()
            .with_url(url)
            .build()
            .map(|store| Arc::new(PrefixStore::new(store, prefix)) as Arc<dyn ObjectStore>),
    };
    opened.map_err(|error| StoreError::Open { url: url.to_owned(), why: error.to_string() })
}

#[cfg(not(feature = "cloud"))]
fn open_bucket(url: &str) -> Result<Arc<dyn ObjectStore>, StoreError> {
    Err(StoreError::NotBuilt(url.to_owned()))
}

/// Deletes files named like `x.parquet#1`, which a crash during a write leaves.
fn sweep(directory: &LocalPath, older_than: Duration) -> io::Result<usize> {
    let mut swept = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_unfinished = name
            .to_str()
            .and_then(|name| name.rsplit_once('#'))
            .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
        if entry.file_type()?.is_dir() {
            swept += sweep(&entry.path(), older_than)?;
        } else if is_unfinished && is_older(&entry, older_than)? {
            std::fs::remove_file(entry.path())?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Another replica may still be writing a recent file. A file that has just disappeared needs no deletion.
fn is_older(entry: &std::fs::DirEntry, than: Duration) -> io::Result<bool> {
    match entry.metadata().and_then(|metadata| metadata.modified()) {
        Ok(modified) => Ok(modified.elapsed().is_ok_and(|age| age >= than)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn url(directory: &TempDir) -> String {
        format!("file://{}", directory.path().display())
    }

    async fn open(directory: &TempDir) -> Store {
        Store::open(&url(directory), "id-1").await.unwrap()
    }

    #[tokio::test]
    async fn a_store_has_one_identity() {
        let directory = TempDir::new().unwrap();
        assert_eq!(open(&directory).await.id(), "id-1");
        let again = Store::open(&url(&directory), "id-2").await.unwrap();
        assert_eq!(again.id(), "id-1", "the first id stays");
        fs::write(directory.path().join("store.json"), "{}").unwrap();
        let error = Store::open(&url(&directory), "id-2").await.unwrap_err();
        assert!(error.to_string().contains("store.json is damaged"), "{error}");
    }

    #[tokio::test]
    async fn a_file_is_created_once() {
        let directory = TempDir::new().unwrap();
        let store = open(&directory).await;
        store.put("group/p0/a.state", b"one".to_vec()).await.unwrap();
        store.put("group/p0/a.state", b"one".to_vec()).await.unwrap();
        let error = store.put("group/p0/a.state", b"two".to_vec()).await.unwrap_err();
        assert!(matches!(error, StoreError::Exists { .. }), "{error}");
        assert_eq!(store.get("group/p0/a.state").await.unwrap().as_ref(), b"one");
        store.put("group/p0/b.state", Vec::new()).await.unwrap();
        assert_eq!(store.list("group/p0").await.unwrap(), ["group/p0/a.state", "group/p0/b.state"]);
        store.delete("group/p0/a.state").await.unwrap();
        store.delete("group/p0/a.state").await.unwrap();
        let error = store.get("group/p0/a.state").await.unwrap_err();
        assert!(error.to_string().contains("a.state is missing"), "{error}");
    }

    #[tokio::test]
    async fn sweeping_deletes_only_files_of_interrupted_writes() {
        let directory = TempDir::new().unwrap();
        let store = open(&directory).await;
        store.put("g/p0/a.state", b"one".to_vec()).await.unwrap();
        for name in ["g/p0/a.parquet#1", "g/p0/a.parquet#12", "store.json#1"] {
            fs::write(directory.path().join(name), "half").unwrap();
        }
        fs::write(directory.path().join("g/notes#today"), "mine").unwrap();
        assert_eq!(store.list("g/p0").await.unwrap(), ["g/p0/a.state"], "listings do not show them");
        assert_eq!(store.sweep_unfinished(Duration::ZERO).unwrap(), 3);
        assert_eq!(store.sweep_unfinished(Duration::ZERO).unwrap(), 0);
        assert!(directory.path().join("g/notes#today").exists() && directory.path().join("g/p0/a.state").exists());
    }

    #[test]
    fn a_full_or_read_only_disk_says_so() {
        let explain = |kind: io::ErrorKind| explain_io("file:///x", "a.state", &io::Error::from(kind)).to_string();
        assert!(explain(io::ErrorKind::StorageFull).contains("the disk is full"));
        assert!(explain(io::ErrorKind::ReadOnlyFilesystem).contains("permission to read and write"));
    }

    #[tokio::test]
    async fn a_full_disk_is_recognized_inside_a_store_error() {
        let store = open(&TempDir::new().unwrap()).await;
        let inner = io::Error::from(io::ErrorKind::StorageFull);
        let error = ObjectError::Generic { store: "LocalFileSystem", source: Box::new(inner) };
        assert!(matches!(store.explain("a", error), StoreError::Full { .. }));
    }

    #[tokio::test]
    async fn invalid_urls_are_explained() {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        for (url, words) in [
            (format!("{}/file", url(&directory)), "cannot be opened"),
            ("file://relative".into(), "is not a store URL"),
            ("ftp://x/y".into(), "is not a store URL"),
            ("/var/lib".into(), "is not a store URL"),
        ] {
            let error = Store::open(&url, "id").await.unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(StoreError::NotBuilt("s3://bucket/x".into()).to_string().contains("`cloud`"));
        #[cfg(not(feature = "cloud"))]
        assert!(matches!(Store::open("s3://bucket/x", "id").await, Err(StoreError::NotBuilt(_))));
    }
}
