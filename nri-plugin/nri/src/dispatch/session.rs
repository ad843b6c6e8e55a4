//! What is agreed on during one connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::events::Events;
use crate::state::{Disconnect, Session};
use crate::version::RuntimeInfo;

use super::sync::Parts;

/// How far the connection has come.
#[derive(Debug, Clone, Default)]
pub(crate) enum Progress {
    /// The runtime has not spoken yet.
    #[default]
    Connected,
    /// Configure has been answered.
    Configured(Session),
    /// The runtime has begun to say what exists: it has accepted the events.
    Synchronizing(Session),
    /// It has said all.
    Synchronized(Session),
    /// The connection is of no use any more.
    Failed(Disconnect),
}

/// What the requests of one connection share.
#[derive(Debug)]
pub(crate) struct Shared {
    progress: watch::Sender<Progress>,
    parts: Mutex<Parts>,
    /// Handlers at work.
    at_work: watch::Sender<usize>,
    /// What is subscribed to at most: narrower after a subscription was refused.
    pub(super) limit: Events,
    nobody: Arc<RuntimeInfo>,
}

impl Shared {
    pub(crate) fn new(limit: Events) -> Shared {
        let nobody = RuntimeInfo {
            name: String::new(),
            version: String::new(),
            nri: crate::version::Known::Unknown,
            request_timeout: None,
            registration_timeout: None,
        };
        Shared {
            progress: watch::Sender::default(),
            parts: Mutex::default(),
            at_work: watch::Sender::default(),
            limit,
            nobody: Arc::new(nobody),
        }
    }

    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// The first failure stays.
    pub(super) fn advance(&self, to: Progress) {
        self.progress.send_if_modified(|progress| {
            let open = !matches!(progress, Progress::Failed(_));
            if open {
                *progress = to;
            }
            open
        });
    }

    /// What was agreed on; `None` before Configure.
    pub(super) fn session(&self) -> Option<Session> {
        match &*self.progress.borrow() {
            Progress::Configured(session) | Progress::Synchronizing(session) | Progress::Synchronized(session) => {
                Some(session.clone())
            }
            Progress::Connected | Progress::Failed(_) => None,
        }
    }

    pub(super) fn runtime(&self) -> Arc<RuntimeInfo> {
        self.session().map_or_else(|| self.nobody.clone(), |session| session.runtime)
    }

    /// Counts a handler as at work until the guard is dropped.
    pub(super) fn work(&self) -> impl Drop {
        self.at_work.send_modify(|count| *count += 1);
        AtWork(self.at_work.clone())
    }

    /// Waits until no handler is at work.
    pub(crate) async fn idle(&self) {
        // The sender is in self.
        let _ = self.at_work.subscribe().wait_for(|count| *count == 0).await;
    }

    pub(super) fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct AtWork(watch::Sender<usize>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
