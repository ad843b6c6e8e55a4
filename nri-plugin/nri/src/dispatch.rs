//! The plugin's end of the protocol: requests of the runtime become calls of handlers.
//!
//! Both dialects are served. Up to NRI 0.11 most events come as StateChange; since 0.12 each has a method of its own, and a
//! runtime falls back to StateChange when it is told UNIMPLEMENTED, and only then: any other error fails the container.

mod call;
mod handlers;
mod session;
mod sync;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use ttrpc::r#async::{MethodHandler, Service, TtrpcContext};

use crate::failure::{Code, Failure};
use crate::plugin::Plugin;
use crate::proto::{Event, PLUGIN_SERVICE};

pub(crate) use call::{IN_HANDLER, Pace};
pub(crate) use handlers::Dispatch;
pub(crate) use session::{Progress, Shared};
pub use sync::{MAX_SYNC_BYTES, MAX_SYNC_OBJECTS};

/// The methods of the service.
#[derive(Debug, Clone, Copy)]
enum Method {
    Configure,
    Synchronize,
    Shutdown,
    StateChange,
    /// The method of an event.
    Event(Event),
}

/// The service's methods by name; whatever else is called, the ttrpc crate answers with UNIMPLEMENTED.
pub(crate) fn services<P: Plugin>(dispatch: &Arc<Dispatch<P>>) -> HashMap<String, Service> {
    let mut methods: HashMap<String, Box<dyn MethodHandler + Send + Sync>> = HashMap::new();
    let mut add = |name: &str, method: Method| {
        methods.insert(name.to_owned(), Box::new(Entry { method, dispatch: dispatch.clone() }));
    };
    add("Configure", Method::Configure);
    add("Synchronize", Method::Synchronize);
    add("Shutdown", Method::Shutdown);
    add("StateChange", Method::StateChange);
    for event in crate::Events::ALL.iter() {
        add(crate::events::method_name(event), Method::Event(event));
    }
    HashMap::from([(PLUGIN_SERVICE.to_owned(), Service { methods, streams: HashMap::new() })])
}

struct Entry<P> {
    method: Method,
    dispatch: Arc<Dispatch<P>>,
}

#[async_trait]
impl<P: Plugin> MethodHandler for Entry<P> {
    async fn handler(&self, cx: TtrpcContext, request: ttrpc::Request) -> ttrpc::Result<ttrpc::Response> {
        let mut response = ttrpc::Response::new();
        match self.dispatch.handle(self.method, cx.timeout_nano, &request.payload).await {
            Ok(payload) => {
                response.set_status(ttrpc::get_status(ttrpc::Code::OK, ""));
                response.payload = payload;
            }
            Err(failure) => {
                log::warn!("{}: answered with a failure: {failure}", request.method);
                response.set_status(ttrpc::get_status(failure.code.status(), failure.message));
            }
        }
        Ok(response)
    }
}

/// Decodes a request; what does not decode is answered, not fatal.
fn decode<M: prost::Message + Default>(payload: &[u8]) -> Result<M, Failure> {
    M::decode(payload).map_err(|error| {
        Failure::new(Code::InvalidArgument, format!("the request does not decode ({error}); it is not one of NRI's"))
    })
}
