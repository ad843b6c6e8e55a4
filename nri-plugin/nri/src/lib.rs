#![doc = include_str!("../README.md")]

pub mod adjust;
mod client;
mod dispatch;
mod events;
mod failure;
mod handle;
pub mod mux;
mod plugin;
pub mod proto;
mod state;
mod stub;
#[cfg(feature = "testing")]
pub mod testing;
pub mod version;

pub use dispatch::{MAX_SYNC_BYTES, MAX_SYNC_OBJECTS};
pub use events::Events;
pub use failure::{Code, Failure};
pub use handle::{RuntimeHandle, UPDATE_TIMEOUT, UpdateError};
pub use plugin::{Answer, Configuration, Context, Creation, Plugin, Verdict};
pub use state::{ConnectionState, Disconnect, Session};
pub use stub::{
    DEFAULT_SOCKET, Identity, IdentityError, REGISTRATION_TIMEOUT, SYNCHRONIZE_TIMEOUT, Stub, StubBuilder, StubError,
};
pub use version::RuntimeInfo;
