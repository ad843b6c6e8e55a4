//! One connection, from its first byte to its last.

use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use ttrpc::r#async::transport::{Listener, Socket};
use ttrpc::r#async::{Client, Server};

use super::socket::Watch;
use super::{Driver, Ended};
use crate::client::{CallError, call};
use crate::dispatch::{Dispatch, Progress, Shared, services};
use crate::events::Events;
use crate::mux::{ConnId, Mux};
use crate::plugin::Plugin;
use crate::proto::{Empty, RUNTIME_SERVICE, RegisterPluginRequest};
use crate::state::{ConnectionState, Disconnect};
use crate::version::NRI_VERSION;

/// How long a runtime may take to complete the registration. Runtimes take plugins one by one, and give each five seconds;
/// with less patience than several of them a plugin can starve (containerd/nri#292).
pub const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a runtime may take from the registration to the synchronization. One that never synchronizes sends no events
/// either, but keeps the connection (NRI up to 0.6.1).
pub const SYNCHRONIZE_TIMEOUT: Duration = Duration::from_secs(60);
/// Left for the last answer to get out before a connection that failed is closed.
const LAST_WORD: Duration = Duration::from_millis(100);
/// Left for handlers at work to finish when the plugin stops.
const STOP_GRACE: Duration = Duration::from_secs(2);

impl<P: Plugin> Driver<P> {
    /// Runs one session to its end.
    pub(super) async fn session(
        &self,
        stream: UnixStream,
        watch: Option<Watch>,
        limit: Events,
        stop: &mut (impl Future<Output = ()> + Unpin + Send),
    ) -> Ended {
        let (mux, [plugin, runtime]) = match Mux::new(stream, [ConnId::PLUGIN, ConnId::RUNTIME]) {
            Ok(opened) => opened,
            Err(error) => return Ended { reason: Disconnect::Broken(error), was_synchronized: false },
        };
        let shared = Arc::new(Shared::new(limit));
        let dispatch = Arc::new(Dispatch::new(self.plugin.clone(), shared.clone(), self.pace));
        // The server wants a listener: one connection, and then none for ever.
        let connections = futures::stream::iter([Ok(plugin)]).chain(futures::stream::pending());
        let mut server = Server::new().add_listener(Listener::new(connections)).register_service(services(&dispatch));
        let mut reason = match server.start().await {
            Ok(()) => {
                let client = Client::new(Socket::new(runtime));
                let replaced = async {
                    match &watch {
                        Some(watch) => watch.replaced().await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = &mut *stop => Disconnect::Stopped,
                    reason = self.converse(&client, shared.progress()) => reason,
                    end = mux.closed() => end.map_or_else(Disconnect::Broken, |()| Disconnect::Closed),
                    () = replaced => Disconnect::SocketReplaced,
                }
            }
            Err(error) => Disconnect::RegistrationRefused(error.to_string()),
        };
        self.handle.set_client(None);
        let progress = shared.progress().borrow().clone();
        reason = explain(reason, &progress);
        match reason {
            Disconnect::Stopped => {
                let _ = tokio::time::timeout(STOP_GRACE, shared.idle()).await;
                tokio::time::sleep(LAST_WORD).await;
            }
            Disconnect::Synchronize(_) | Disconnect::Configure(_) => tokio::time::sleep(LAST_WORD).await,
            _ => {}
        }
        let dropped = mux.dropped_frames();
        if dropped > 0 {
            log::warn!("{dropped} frames came for connections that NRI does not have");
        }
        mux.close().await;
        // Never an error, says the ttrpc crate.
        let _ = server.shutdown().await;
        self.plugin.closed(&reason).await;
        Ended { reason, was_synchronized: matches!(progress, Progress::Synchronized(_)) }
    }

    /// Registers, and reports how far the runtime has come, until the session fails.
    async fn converse(&self, client: &Client, mut progress: watch::Receiver<Progress>) -> Disconnect {
        (self.report)(ConnectionState::Registering);
        let request = RegisterPluginRequest {
            plugin_name: self.identity.name().to_owned(),
            plugin_idx: self.identity.index().to_owned(),
            nri_version: NRI_VERSION.to_owned(),
        };
        let method = (RUNTIME_SERVICE, "RegisterPlugin");
        // The runtime may configure the plugin before it has answered, so progress is waited for at the same time.
        let registered = async {
            match call::<Empty>(client, method, &request, REGISTRATION_TIMEOUT).await {
                Ok(Empty {}) => pending().await,
                Err(CallError::Status { message, .. }) => Disconnect::RegistrationRefused(message),
                Err(CallError::TimedOut(time)) => Disconnect::RegistrationTimeout(time),
                // The trunk knows better why.
                Err(CallError::Failed(_)) => pending().await,
            }
        };
        tokio::select! {
            reason = registered => reason,
            reason = self.follow(client, &mut progress) => reason,
        }
    }

    async fn follow(&self, client: &Client, progress: &mut watch::Receiver<Progress>) -> Disconnect {
        let mut patience = REGISTRATION_TIMEOUT;
        let mut configured = false;
        loop {
            match tokio::time::timeout(patience, progress.changed()).await {
                Ok(Ok(())) => {}
                // The sender lives as long as the session.
                Ok(Err(_)) => return Disconnect::Closed,
                Err(_) if !configured => return Disconnect::RegistrationTimeout(REGISTRATION_TIMEOUT),
                Err(_) => return Disconnect::SynchronizeMissing(SYNCHRONIZE_TIMEOUT),
            }
            let now = progress.borrow_and_update().clone();
            let session = match &now {
                Progress::Connected => continue,
                Progress::Failed(reason) => return reason.clone(),
                Progress::Configured(session) | Progress::Synchronizing(session) | Progress::Synchronized(session) => session,
            };
            // Progress can be faster than this task, so that a step is not seen by itself.
            if !std::mem::replace(&mut configured, true) {
                patience = SYNCHRONIZE_TIMEOUT;
                (self.report)(ConnectionState::Configured(session.clone()));
            }
            if let Progress::Synchronized(session) = now {
                patience = Duration::MAX;
                self.handle.set_client(Some(client.clone()));
                (self.report)(ConnectionState::Synchronized(session));
            }
        }
    }
}

/// A connection that ends right after Configure has probably been closed for the events, see [`Disconnect::EventsRefused`].
fn explain(reason: Disconnect, progress: &Progress) -> Disconnect {
    let Disconnect::Closed = reason else { return reason };
    match progress {
        Progress::Configured(session) if !Events::BEFORE_0_10.contains(session.subscribed) => {
            Disconnect::EventsRefused(session.subscribed)
        }
        Progress::Failed(failed) => failed.clone(),
        _ => reason,
    }
}
