//! Where the service is: a socket for root, and TCP if the configuration says so.

use std::convert::Infallible;
#[cfg(test)]
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis_enforcer::{Protection, Tcp, Tls};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto, version};
use tracing::{debug, warn};

use super::Feeder;
use crate::Error;
use crate::socket::{ACCEPT_PAUSE, Socket};

/// Most connections at once, on the socket and on TCP each.
const MAX_CONNECTIONS: usize = 64;
/// Most calls at once on a connection.
const MAX_CALLS: u32 = 16;
/// Largest header of a call.
const MAX_HEADER_BYTES: u32 = 8 << 10;
/// Most bytes of a stream that are on their way. What a slow reader leaves there it neither gets nor is told to have lost, so it
/// is little; its queue is long.
const MAX_SENDING_BYTES: usize = 64 << 10;
/// How much of a request may come before it is looked at.
const WINDOW_BYTES: u32 = 64 << 10;
/// How long the agreement on keys may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// How soon a peer that has vanished is looked for, and how often. The kernel does, so nothing here has a timer.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_PROBES: u32 = 5;

/// All places where the service listens.
pub(crate) struct Server {
    socket: Socket,
    tcp: Option<(TcpListener, Option<TlsAcceptor>)>,
}

impl Server {
    /// Listens at `path` for whoever has the user id `uid`, and on TCP.
    pub(crate) async fn bind(path: &Path, uid: u32, tcp: Option<&Tcp>) -> Result<Server, Error> {
        let socket = Socket::bind(path, uid)?;
        let tcp = match tcp {
            None => None,
            Some(Tcp { listen, protection }) => {
                let acceptor = match protection {
                    Protection::Tls(tls) => Some(acceptor(tls)?),
                    Protection::Nothing => {
                        warn!("whoever reaches {listen} reads all alerts, because feeder.insecure says so; write feeder.tls");
                        None
                    }
                };
                let failed = |source| Error::Address { address: *listen, field: "feeder.listen", source };
                Some((TcpListener::bind(listen).await.map_err(failed)?, acceptor))
            }
        };
        Ok(Server { socket, tcp })
    }

    /// Where it listens on TCP.
    #[cfg(test)]
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// Answers for ever. All connections end with it.
    pub(crate) async fn serve(self, feeder: Feeder) {
        let Server { socket, tcp } = self;
        let on_tcp = async {
            match tcp {
                Some((listener, acceptor)) => serve_tcp(listener, acceptor, &feeder).await,
                None => std::future::pending().await,
            }
        };
        tokio::join!(serve_socket(socket, &feeder), on_tcp);
    }
}

async fn serve_socket(socket: Socket, feeder: &Feeder) {
    let mut guests = Guests::new();
    loop {
        let (stream, is_users) = socket.accept().await;
        if is_users && let Some(place) = guests.place() {
            guests.talks.spawn(converse(stream, feeder.clone(), place));
        }
    }
}

async fn serve_tcp(listener: TcpListener, acceptor: Option<TlsAcceptor>, feeder: &Feeder) {
    let mut guests = Guests::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("a connection to the feeder could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = guests.place() else { continue };
        if let Err(error) = prepare(&stream) {
            debug!("a connection to the feeder cannot be used: {error}");
            continue;
        }
        let feeder = feeder.clone();
        match acceptor.clone() {
            None => guests.talks.spawn(converse(stream, feeder, place)),
            Some(acceptor) => guests.talks.spawn(async move {
                match timeout(HANDSHAKE_PATIENCE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => converse(stream, feeder, place).await,
                    Ok(Err(error)) => debug!("a client of the feeder was refused: {error}"),
                    Err(_) => debug!("a client of the feeder did not agree on keys in time"),
                }
            }),
        };
    }
}

/// Those who are connected.
struct Guests {
    places: Arc<Semaphore>,
    talks: JoinSet<()>,
    /// The last one found no place.
    is_full: bool,
}

impl Guests {
    fn new() -> Guests {
        Guests { places: Arc::new(Semaphore::new(MAX_CONNECTIONS)), talks: JoinSet::new(), is_full: false }
    }

    /// A place for one more, if there is one. Whoever gets none is disconnected, and comes again.
    fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        while self.talks.try_join_next().is_some() {}
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        let was_full = std::mem::replace(&mut self.is_full, place.is_none());
        if self.is_full && !was_full {
            warn!("clients of the feeder are turned away until one goes: there are {MAX_CONNECTIONS} already");
        }
        place
    }
}

async fn converse(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, feeder: Feeder, place: OwnedSemaphorePermit) {
    let answer = service_fn(|request| feeder.clone().answer(request).map(Ok::<_, Infallible>));
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.max_concurrent_streams(MAX_CALLS).max_header_list_size(MAX_HEADER_BYTES).max_send_buf_size(MAX_SENDING_BYTES);
    http.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    if let Err(error) = http.serve_connection(TokioIo::new(io), answer).await {
        debug!("a conversation with a client of the feeder ended: {error}");
    }
    drop(place);
}

/// Alerts go out at once, and a peer that has vanished does not keep its place.
fn prepare(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_tcp_nodelay(stream, true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)
}

/// Lets in whoever has a certificate of the configured authorities, in TLS 1.3.
fn acceptor(tls: &Tls) -> Result<TlsAcceptor, Error> {
    let provider = Arc::new(crypto::ring::default_provider());
    let bad = |path: &Path, reason: &dyn std::fmt::Display| Error::Tls { path: path.to_owned(), reason: reason.to_string() };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, Error> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        let found = found.map_err(|error| bad(path, &error))?;
        if found.is_empty() { Err(bad(path, &"there is no certificate in it")) } else { Ok(found) }
    };
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(&tls.client_ca)? {
        authorities.add(certificate).map_err(|error| bad(&tls.client_ca, &error))?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(&provider)).build();
    let clients = clients.map_err(|error| bad(&tls.client_ca, &error))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| bad(&tls.key, &error))?;
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&version::TLS13]);
    let config = config.map_err(|error| bad(&tls.key, &error))?.with_client_cert_verifier(clients);
    let mut config =
        config.with_single_cert(certificates(&tls.certificate)?, key).map_err(|error| bad(&tls.certificate, &error))?;
    // Without it, clients of gRPC hang up.
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
