//! HTTP for whoever scrapes: one address, one path.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{Metrics, tell_of};
use crate::Error;
use crate::socket::ACCEPT_PAUSE;

/// Where it answers.
const PATH: &str = "/metrics";
/// Most connections at once; one more is hung up on.
const MAX_CONNECTIONS: usize = 16;
/// Largest head of a request.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// How long the head of a request may take.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may last, with all its requests.
const MAX_CONNECTION: Duration = Duration::from_secs(600);
/// The type of the text.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Listens.
pub(crate) struct Server {
    listener: TcpListener,
}

impl Server {
    pub(crate) async fn bind(address: SocketAddr) -> Result<Server, Error> {
        let failed = |source| Error::Address { address, field: "metrics.listen", source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        tell_of(address);
        Ok(Server { listener })
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers for ever. All connections end with it.
    pub(crate) async fn serve(self, metrics: Metrics) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        // A sample blocks: one at a time, however many ask.
        let turn = Arc::new(Semaphore::new(1));
        let mut talks = JoinSet::new();
        loop {
            while talks.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => drop(talks.spawn(converse(stream, metrics.clone(), Arc::clone(&turn), place))),
                    Err(_) => debug!("somebody who asked for metrics was turned away: there are {MAX_CONNECTIONS} already"),
                },
                Err(error) => {
                    warn!("a connection for metrics could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn converse(stream: TcpStream, metrics: Metrics, turn: Arc<Semaphore>, _place: OwnedSemaphorePermit) {
    let answer = service_fn(move |request| {
        let (metrics, turn) = (metrics.clone(), Arc::clone(&turn));
        async move { Ok::<_, Infallible>(answer(&request, metrics, turn).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).max_buf_size(MAX_HEAD_BYTES);
    if let Ok(Err(error)) = timeout(MAX_CONNECTION, http.serve_connection(TokioIo::new(stream), answer)).await {
        debug!("a conversation about metrics ended: {error}");
    }
}

async fn answer(request: &Request<Incoming>, metrics: Metrics, turn: Arc<Semaphore>) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH {
        return plain(StatusCode::NOT_FOUND, format!("there is only {PATH} here\n"));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "numbers can only be read\n");
        response.headers_mut().insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    // Never closed: the guard only waits.
    let _turn = turn.acquire().await;
    match tokio::task::spawn_blocking(move || metrics.scrape()).await {
        Ok(Ok(text)) => respond(StatusCode::OK, OPEN_METRICS, text),
        Ok(Err(why)) => {
            warn!("no metrics can be told: {why}");
            plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
        }
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the agent is stopping\n"),
    }
}

fn plain(status: StatusCode, text: impl Into<String>) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text.into())
}

fn respond(status: StatusCode, content: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content));
    response
}
