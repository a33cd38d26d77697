//! Schemas from a schema registry, fetched once each in the background over HTTP, and cached.
//!
//! A registry that is down causes no rejections: records wait for their schema, and readiness names the reason.

mod client;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

pub use client::{Access, Client};

use self::client::FetchError;
use crate::decode::{Schema, SchemaId, Schemas};

/// First and longest pause before a retry.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(10);
/// When to ask again for an unknown schema.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// The state of a schema.
#[derive(Debug, Clone)]
enum Entry {
    /// Requested.
    Asked,
    Ready(Arc<Schema>),
    /// Unknown or unusable: since when, and why.
    Refused(Instant, String),
}

#[derive(Debug, Default)]
struct Shared {
    entries: RwLock<HashMap<SchemaId, Entry>>,
    last_error: Mutex<Option<String>>,
}

/// The schemas of one registry.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    ask: Mutex<Option<Sender<SchemaId>>>,
    client: Client,
}

impl Registry {
    /// A registry that is queried through `client`; sends no request yet.
    #[must_use]
    pub fn new(client: Client) -> Registry {
        Registry { shared: Arc::default(), ask: Mutex::new(None), client }
    }

    fn entry(&self, id: SchemaId) -> Option<Entry> {
        self.shared.entries.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Requests a schema in the background; the first call starts the thread.
    fn ask(&self, id: SchemaId) {
        let mut ask = lock(&self.ask);
        if ask.is_none() {
            let (sender, asked) = channel();
            let (shared, client) = (Arc::clone(&self.shared), self.client.clone());
            let thread =
                thread::Builder::new().name("schemas".into()).spawn(move || fetch_all(&shared, &client, &asked));
            match thread {
                Ok(_) => *ask = Some(sender),
                Err(error) => {
                    *lock(&self.shared.last_error) =
                        Some(format!("cannot start the thread that fetches schemas: {error}"));
                    return;
                }
            }
        }
        self.shared.set(id, Entry::Asked);
        if ask.as_ref().is_none_or(|sender| sender.send(id).is_err()) {
            *ask = None;
        }
    }
}

impl Schemas for Registry {
    fn is_settled(&self, id: SchemaId) -> bool {
        match self.entry(id) {
            Some(Entry::Ready(_)) => true,
            Some(Entry::Asked) => false,
            Some(Entry::Refused(since, _)) if since.elapsed() < UNKNOWN_FOR => true,
            Some(Entry::Refused(..)) | None => {
                self.ask(id);
                false
            }
        }
    }

    fn get(&self, id: SchemaId) -> Result<Arc<Schema>, String> {
        match self.entry(id) {
            Some(Entry::Ready(schema)) => Ok(schema),
            Some(Entry::Refused(_, why)) => Err(why),
            // Callers check `is_settled` first.
            Some(Entry::Asked) | None => Err("the schema was not requested".to_owned()),
        }
    }

    fn last_error(&self) -> Option<String> {
        lock(&self.shared.last_error).clone()
    }
}

impl Shared {
    fn set(&self, id: SchemaId, entry: Entry) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).insert(id, entry);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fetches requested schemas until the channel closes; retries when the registry does not answer.
fn fetch_all(shared: &Shared, client: &Client, asked: &Receiver<SchemaId>) {
    let mut open: Vec<SchemaId> = Vec::new();
    let mut pause = RETRY_FIRST;
    loop {
        let next = if open.is_empty() {
            asked.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            asked.recv_timeout(pause)
        };
        match next {
            Ok(id) => open.push(id),
            Err(RecvTimeoutError::Timeout) => pause = (pause * 2).min(RETRY_MOST),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        open.retain(|&id| match fetch(client, id) {
            Ok(entry) => {
                shared.set(id, entry);
                false
            }
            Err(why) => {
                let text = format!("waiting for schema {id}: {why}");
                let before = lock(&shared.last_error).replace(text.clone());
                if before.as_ref() != Some(&text) {
                    tracing::warn!("{text}; trying again");
                }
                true
            }
        });
        if open.is_empty() {
            *lock(&shared.last_error) = None;
            pause = RETRY_FIRST;
        }
    }
}

fn fetch(client: &Client, id: SchemaId) -> Result<Entry, String> {
    match client.schema(id) {
        Ok(text) => Ok(match Schema::compile(&text) {
            Ok(schema) => Entry::Ready(Arc::new(schema)),
            Err(why) => Entry::Refused(Instant::now(), why),
        }),
        Err(FetchError::Unknown(why)) => Ok(Entry::Refused(Instant::now(), why)),
        Err(FetchError::Unavailable(why)) => Err(why),
    }
}
