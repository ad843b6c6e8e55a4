//! The agent's parts, put together and kept going.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use portcullis_enforcer::{Sinks, Tcp};
use portcullis_nri_plugin::{Connection, Gate, Plugin};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info};

use crate::Error;
use crate::answers::{ConnectionTeller, Desk};
use crate::control;
use crate::doorway::Doorway;
use crate::feeder::{self, Feeder, Messages};
use crate::kubearmor::Host;
use crate::metrics::{self, Metrics};
use crate::node::Node;
use crate::reconcile::{self, Book, Inbox, Task};
use crate::sinks;
use crate::socket::Socket;
use crate::telemetry::Telemetry;
use crate::watch::{Change, Watch};

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The policies.
    pub policy_dir: PathBuf,
    /// The records of containers that doors let in.
    pub known_dir: PathBuf,
    /// Where the agent answers.
    pub control_socket: PathBuf,
    /// Where KubeArmor's clients connect.
    pub feeder_socket: PathBuf,
    /// Where others than root may.
    pub feeder_tcp: Option<Tcp>,
    /// Where events are put.
    pub sinks: Sinks,
    /// Where numbers are told to Prometheus.
    pub metrics_listen: Option<SocketAddr>,
    /// The user id that may use the sockets.
    pub uid: u32,
    /// What alerts in KubeArmor's formats say of this node.
    pub host: Host,
    /// The runtimes' sockets.
    pub nri_sockets: Vec<PathBuf>,
    /// Whether it is trouble if there is none.
    pub nri_required: bool,
    /// The program of the gate hook.
    pub gate_hook: PathBuf,
    /// The runtime started this process, and left it a connection.
    pub started_by_runtime: bool,
}

/// Threads for conversations. What blocks runs elsewhere.
const WORKER_THREADS: usize = 2;
/// Threads for what blocks: the calls of runtimes, which come one after the other from each, and answers.
const BLOCKING_THREADS: usize = 16;
/// The stack of a thread. Nothing here recurses deeper than a policy's YAML, which has a limit.
const STACK_BYTES: usize = 1 << 20;

/// The threads that a [`Service`] needs; all of the process share one heap from here on.
///
/// # Errors
/// If the system gives none.
pub fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    crate::memory::keep_small();
    let failed = |source| Error::Thread { name: "tokio", source };
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    threads.worker_threads(WORKER_THREADS).max_blocking_threads(BLOCKING_THREADS).thread_stack_size(STACK_BYTES);
    threads.enable_all().build().map_err(failed)
}

/// A running agent.
pub struct Service {
    inbox: Inbox,
    book: Book,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<(), Error>>,
    _watch: Watch,
}

impl Service {
    /// Brings all containers up to date, and begins to listen.
    ///
    /// # Errors
    /// If the control socket cannot be made, or the system gives no thread.
    pub async fn start<N: Node>(
        node: Arc<N>,
        settings: &Settings,
        telemetry: Telemetry,
        messages: Messages,
    ) -> Result<Service, Error> {
        let socket = Socket::bind(&settings.control_socket, settings.uid)?;
        // An agent that is not there is a door that is not watched: a port that is taken must not have that done.
        let bound = feeder::Server::bind(&settings.feeder_socket, settings.uid, settings.feeder_tcp.as_ref()).await;
        let feeder_trouble = bound.as_ref().err().map(ToString::to_string);
        if let Some(trouble) = &feeder_trouble {
            error!("nobody can follow alerts in KubeArmor's protocol: {trouble}");
        }
        let (numbers, metrics_trouble) = match settings.metrics_listen {
            None => (None, None),
            Some(address) => match metrics::Server::bind(address).await {
                Ok(server) => (Some(server), None),
                Err(error) => (None, Some(error.to_string())),
            },
        };
        if let Some(trouble) = &metrics_trouble {
            error!("nobody can read metrics: {trouble}");
        }
        // Blocks, with nothing else to do yet. What changes meanwhile is told afterwards: the watch begins before the reading.
        let (early, changes) = std::sync::mpsc::channel();
        let watch = Watch::start(&settings.policy_dir, &settings.known_dir, move |change| drop(early.send(change)))?;
        let first = Arc::clone(&node);
        let started = tokio::task::spawn_blocking(move || reconcile::start(first)).await;
        let (inbox, book) = started.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        forward(changes, inbox.clone(), telemetry.clone())?;

        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut connections: Vec<ConnectionTeller> = Vec::new();
        let sockets: &[PathBuf] = match settings.started_by_runtime {
            // The one connection there is has no path.
            true => &settings.nri_sockets[..settings.nri_sockets.len().min(1)],
            false => &settings.nri_sockets,
        };
        for socket in sockets {
            let doorway = Doorway { node: Arc::clone(&node), inbox: inbox.clone(), is_only_one: sockets.len() == 1 };
            let plugin = Plugin::new(Arc::new(doorway), Gate::new(&settings.gate_hook));
            let connection = Connection::prepare(plugin, socket)?;
            connections.push(Box::new(connection.status()));
            let mut stopped = stopped.clone();
            tasks.spawn(async move {
                let stop = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
                connection.run(stop).await.map_err(Error::RuntimeLeft)
            });
        }
        let sinks = sinks::start(&settings.sinks, &settings.host, &telemetry, &stopped, &mut tasks)?;
        let feeder = Feeder::new(telemetry.clone(), messages, settings.host.clone());
        let desk = Desk {
            node,
            inbox: inbox.clone(),
            book: book.clone(),
            telemetry,
            connections,
            nri_required: settings.nri_required,
            feeder_trouble,
            metrics_trouble,
            sinks,
            started_at: reconcile::seconds_since_1970(),
        };
        let desk = Arc::new(desk);
        let asked = Arc::clone(&desk);
        let metrics = Metrics::new(Arc::new(move || asked.status()));
        let tell_numbers = async move {
            match numbers {
                Some(server) => server.serve(metrics).await,
                None => std::future::pending().await,
            }
        };
        let mut stopped = stopped.clone();
        let feed = async move {
            match bound {
                Ok(server) => server.serve(feeder).await,
                Err(_) => std::future::pending().await,
            }
        };
        tasks.spawn(async move {
            tokio::select! {
                () = control::serve(socket, desk) => {}
                () = feed => {}
                () = tell_numbers => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
            Ok(())
        });
        Ok(Service { inbox, book, stop, tasks, _watch: watch })
    }

    /// Policies in force and containers in trouble, in a phrase.
    #[must_use]
    pub fn summary(&self) -> String {
        let page = self.book.page();
        format!("{} policies (generation {}), {} containers not up to date", page.policies, page.generation, page.troubles.len())
    }

    /// Reads the policies now; returns when every container has been brought to them.
    pub async fn reload(&self) {
        let (send, outcome) = tokio::sync::oneshot::channel();
        self.inbox.send(Task::Reload(Some(send)));
        // How it went has been logged, and is in the status.
        drop(outcome.await);
    }

    /// Waits for a part to end, which none does by itself but a connection that the runtime made.
    ///
    /// # Errors
    /// Why it ended.
    pub async fn ended(&mut self) -> Result<(), Error> {
        match self.tasks.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Some(Err(_)) | None => Ok(()),
        }
    }

    /// Ends all conversations in good order. What is in force stays in force.
    pub async fn stop(mut self) {
        info!("stopping; what is in force stays in force");
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Passes what the watch tells to the reconciler, which was not there yet when the watch began, and to who keeps visibilities.
fn forward(changes: std::sync::mpsc::Receiver<Change>, inbox: Inbox, telemetry: Telemetry) -> Result<(), Error> {
    // Who came before the watch began.
    telemetry.records_changed(None);
    let pass = move || {
        for change in changes {
            match change {
                Change::Policies => {
                    // Also told when events were lost.
                    telemetry.records_changed(None);
                    inbox.send(Task::Reload(None));
                }
                Change::Known(ids) => {
                    telemetry.records_changed(Some(ids.clone()));
                    inbox.send(Task::Recorded(ids));
                }
                Change::Left(ids) => telemetry.records_changed(Some(ids)),
            }
        }
    };
    let failed = |source| Error::Thread { name: "changes", source };
    std::thread::Builder::new().name("changes".to_owned()).spawn(pass).map(drop).map_err(failed)
}

#[cfg(test)]
mod tests;
