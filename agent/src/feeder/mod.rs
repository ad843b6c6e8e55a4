//! KubeArmor's gRPC service, so that its clients work with this agent as they are.
//!
//! `feeder.LogService` as in `proto/feeder.proto`, and `grpc.health.v1.Health`. A stream of alerts begins with those that nobody
//! has got yet, as `portcullis events` does. Each subscriber has a queue of its own with a limit; one that is too slow loses its
//! oldest alerts, which the log tells with their number. What is no alert, `WatchLogs` tells in the same way: what is executed, and
//! accesses, each from a queue of its own.

mod codec;
mod health;
mod losses;
mod messages;
mod server;

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;
use tonic::server::{Grpc, ServerStreamingService};
use tracing::debug;

pub use self::messages::Messages;
pub(crate) use self::server::Server;

use self::codec::Encoded;
use self::losses::Losses;
use crate::alerts::Format;
use crate::alerts::fanout::{Fanout, Item, Next, Subscription};
use crate::kubearmor::{Host, NonceMessage, ReplyMessage, RequestMessage};
use crate::logs::Log;
use crate::telemetry::Telemetry;

/// Most streams at once. A client of KubeArmor's has three.
const MAX_SUBSCRIBERS: usize = 100;
/// Longest request: a filter, or the name of a service.
const MAX_REQUEST_BYTES: usize = 4096;

/// What the service tells.
#[derive(Clone)]
pub(crate) struct Feeder {
    telemetry: Telemetry,
    messages: Messages,
    host: Arc<Host>,
    places: Arc<Semaphore>,
    subscribers: Arc<AtomicU64>,
}

/// Encoded messages. An answer of one message is a stream of one.
type Answer = BoxStream<'static, Result<Bytes, Status>>;

impl Feeder {
    pub(crate) fn new(telemetry: Telemetry, messages: Messages, host: Host) -> Feeder {
        let places = Arc::new(Semaphore::new(MAX_SUBSCRIBERS));
        Feeder { telemetry, messages, host: Arc::new(host), places, subscribers: Arc::default() }
    }

    /// Answers a call.
    fn answer(self, request: Request<Incoming>) -> BoxFuture<'static, Response<Body>> {
        match request.uri().path() {
            "/feeder.LogService/HealthCheck" => call(request, |NonceMessage { nonce }| Ok(one(echo(nonce)))),
            "/feeder.LogService/WatchAlerts" => call(request, move |asked: RequestMessage| self.watch_alerts(&asked.filter)),
            "/feeder.LogService/WatchLogs" => call(request, move |asked: RequestMessage| self.watch_logs(&asked.filter)),
            "/feeder.LogService/WatchMessages" => call(request, move |_: RequestMessage| self.watch_messages()),
            "/grpc.health.v1.Health/Check" => call(request, |asked| health::check(&asked).map(one)),
            "/grpc.health.v1.Health/Watch" => call(request, move |asked| self.watch_health(&asked)),
            _ => ready(Status::unimplemented("there is no such method here").into_http()).boxed(),
        }
    }

    fn watch_alerts(&self, filter: &str) -> Result<Answer, Status> {
        match filter {
            "all" | "policy" => {
                Ok(self.subscriber()?.follow("alerts", &self.telemetry.alerts, |alert| alert.rendered(Format::Feeder)))
            }
            // To KubeArmor's clients this says that such a filter wants none.
            _ => Ok(stream::empty().boxed()),
        }
    }

    fn watch_messages(&self) -> Result<Answer, Status> {
        let host = Arc::clone(&self.host);
        Ok(self.subscriber()?.follow("messages", &self.messages.fanout, move |line| line.encoded(&host)))
    }

    fn watch_logs(&self, filter: &str) -> Result<Answer, Status> {
        match filter {
            "all" | "system" => {
                let (subscriber, encode) = (self.subscriber()?, |log: &Log| log.rendered(Format::Feeder));
                let executions = subscriber.follow("logs", &self.telemetry.logs, encode);
                let accesses = subscriber.follow("accesses", &self.telemetry.accesses, encode);
                Ok(stream::select(executions, accesses).boxed())
            }
            _ => Ok(stream::empty().boxed()),
        }
    }

    fn watch_health(&self, asked: &health::HealthCheckRequest) -> Result<Answer, Status> {
        let rest = silent(self.place()?);
        Ok(one(health::watch(asked)).chain(rest).boxed())
    }

    /// A place among the subscribers.
    fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let full = |_| Status::resource_exhausted(format!("there are {MAX_SUBSCRIBERS} subscribers already; try again"));
        Arc::clone(&self.places).try_acquire_owned().map_err(full)
    }

    fn subscriber(&self) -> Result<Subscriber, Status> {
        let place = Arc::new(self.place()?);
        Ok(Subscriber { number: self.subscribers.fetch_add(1, Ordering::Relaxed), place })
    }
}

/// Who has a place, for as long as anything of its stream is left.
struct Subscriber {
    number: u64,
    place: Arc<OwnedSemaphorePermit>,
}

impl Subscriber {
    /// Everything that is published from now on, and what nobody has got yet.
    fn follow<T: Item>(&self, what: &'static str, fanout: &Fanout<T>, encode: impl Fn(&T) -> Bytes + Send + 'static) -> Answer {
        let Subscriber { number, place } = self;
        debug!("subscriber {number} reads {what}");
        let losses = Losses::new(*number, what);
        let reader = Reader { items: fanout.subscribe(), losses, encode, _place: Arc::clone(place) };
        stream::unfold(reader, |mut reader| async move { Some((Ok(reader.next().await), reader)) }).boxed()
    }
}

/// What a subscriber reads of one kind.
struct Reader<T: Item, F> {
    items: Subscription<T>,
    losses: Losses,
    encode: F,
    _place: Arc<OwnedSemaphorePermit>,
}

impl<T: Item, F: Fn(&T) -> Bytes> Reader<T, F> {
    async fn next(&mut self) -> Bytes {
        loop {
            match self.items.next().await {
                Next::Lost(lost) => self.losses.add(lost),
                Next::Item(item) => {
                    self.losses.tell_in_time();
                    return (self.encode)(&item);
                }
            }
        }
    }
}

fn echo(nonce: i32) -> Bytes {
    ReplyMessage { retval: nonce }.encode_to_vec().into()
}

fn one(message: Bytes) -> Answer {
    stream::iter([Ok(message)]).boxed()
}

/// Nothing, for as long as the other end wants.
fn silent(place: OwnedSemaphorePermit) -> Answer {
    let never = async move {
        let _place = place;
        std::future::pending().await
    };
    stream::once(never).boxed()
}

/// Decodes a request and answers it.
fn call<Q, F>(request: Request<Incoming>, handler: F) -> BoxFuture<'static, Response<Body>>
where
    Q: Message + Default + 'static,
    F: Fn(Q) -> Result<Answer, Status> + Send + 'static,
{
    let mut grpc = Grpc::new(Encoded::<Q>::default()).max_decoding_message_size(MAX_REQUEST_BYTES);
    async move { grpc.server_streaming(Handler(handler), request).await }.boxed()
}

/// A function, as tonic wants it.
struct Handler<F>(F);

impl<Q, F: Fn(Q) -> Result<Answer, Status>> ServerStreamingService<Q> for Handler<F> {
    type Response = Bytes;
    type ResponseStream = Answer;
    type Future = Ready<Result<tonic::Response<Answer>, Status>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        ready((self.0)(request.into_inner()).map(tonic::Response::new))
    }
}

#[cfg(test)]
mod tests;
