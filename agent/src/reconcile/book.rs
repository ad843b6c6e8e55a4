//! What the reconciler has done and what it could not do, for `portcullis status`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Most containers whose failures are told one by one; all are tried again.
const MAX_TROUBLES: usize = 4096;

/// What came of reading the policies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Counts how often policies were read.
    pub generation: u64,
    /// Policies in force.
    pub policies: usize,
    /// Things wrong with policy files.
    pub problems: usize,
    /// Containers that were looked at.
    pub containers: usize,
    /// Of them, those whose rules changed.
    pub changed: usize,
    /// Of them, those that keep what they had because something failed; they are tried again.
    pub failed: usize,
    /// How long all of it took.
    pub milliseconds: u64,
}

/// A container whose policies are not up to date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    /// Its id.
    pub id: String,
    /// Its name, if the failure told it.
    pub name: String,
    /// Why, as a sentence.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it failed first, in seconds since 1970.
    pub since: u64,
}

/// The reconciler's account.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book(Arc<Mutex<Page>>);

/// What stands in it now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page {
    /// Counts how often policies were read.
    pub(crate) generation: u64,
    /// When they were read last, in seconds since 1970.
    pub(crate) read_at: u64,
    pub(crate) policies: usize,
    pub(crate) problems: usize,
    /// Why they could not be read the last time.
    pub(crate) unreadable: Option<String>,
    pub(crate) troubles: BTreeMap<String, Trouble>,
    /// Containers that were stopped and have tasks left.
    pub(crate) leaving: usize,
}

impl Book {
    /// A copy of it.
    pub(crate) fn page(&self) -> Page {
        self.lock().clone()
    }

    pub(super) fn policies_read(&self, policies: usize, problems: usize) -> u64 {
        let mut page = self.lock();
        page.generation += 1;
        (page.read_at, page.policies, page.problems, page.unreadable) = (seconds_since_1970(), policies, problems, None);
        page.generation
    }

    pub(super) fn policies_unreadable(&self, error: &str) {
        self.lock().unreadable = Some(error.to_owned());
    }

    pub(super) fn well(&self, id: &str) {
        self.lock().troubles.remove(id);
    }

    /// How often it has failed now.
    pub(super) fn failed(&self, id: &str, name: &str, error: &str) -> u32 {
        let mut page = self.lock();
        if page.troubles.len() >= MAX_TROUBLES && !page.troubles.contains_key(id) {
            return 1;
        }
        let trouble = page.troubles.entry(id.to_owned()).or_insert_with(|| Trouble {
            id: id.to_owned(),
            name: String::new(),
            error: String::new(),
            attempts: 0,
            since: seconds_since_1970(),
        });
        if !name.is_empty() {
            name.clone_into(&mut trouble.name);
        }
        error.clone_into(&mut trouble.error);
        trouble.attempts = trouble.attempts.saturating_add(1);
        trouble.attempts
    }

    pub(super) fn leaving(&self, count: usize) {
        self.lock().leaving = count;
    }

    fn lock(&self) -> MutexGuard<'_, Page> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
