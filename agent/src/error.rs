use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the agent does not run. Each says what to do where there is something to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is one already.
    #[error(
        "an agent is running already, as {who}; there is one for each host (lock {}): stop it first, or leave this one",
        lock.display()
    )]
    AlreadyRunning {
        /// The other's process.
        who: String,
        /// What it holds.
        lock: PathBuf,
    },
    /// The agent does not see what the runtimes see.
    #[error(
        "the agent is not in the host's mount namespace, in which container runtimes run: what it arms would be wrong; start it without options that give it another one (in a unit: PrivateTmp=, ProtectSystem=, ProtectHome=, PrivateDevices=, ReadOnlyPaths= and their like)"
    )]
    MountNamespace,
    /// A file, directory or socket can't be used.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried, e.g. `lock`.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// An address can't be listened on.
    #[error("cannot listen on {address}, which {field} names: {source}; under systemd it needs contrib/systemd/tcp.conf")]
    Address {
        /// The address.
        address: SocketAddr,
        /// The field of the configuration.
        field: &'static str,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A file of the feeder's TLS can't be used.
    #[error("{} cannot be used for the feeder's TLS: {reason}; it has to be PEM", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The system gives no thread.
    #[error("the thread `{name}` cannot be started: {source}; raise the limit of tasks")]
    Thread {
        /// What it was to do.
        name: &'static str,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Policies, state, configuration or kernel.
    #[error(transparent)]
    Enforcer(#[from] portcullis_enforcer::Error),
    /// The runtime that started this process left no usable connection.
    #[error(transparent)]
    Nri(#[from] nri::StubError),
    /// The runtime that started this process has closed the connection.
    #[error("the runtime that started the agent has left: {0}")]
    RuntimeLeft(nri::Disconnect),
}
