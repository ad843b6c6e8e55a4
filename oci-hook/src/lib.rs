//! portcullis-hook: the door through which an OCI runtime's containers come in.
//!
//! The runtime runs it at `createRuntime`, when the container's init exists and waits, and at `poststop`. The hook finds out
//! who the container is, without asking any daemon, and calls the enforcer; what it can't find out is an error and never a
//! guess. It decides nothing about policies.
//!
//! portcullis-runtime ([`carrier`]) is another program of this crate: the runtime that engines run where AppArmor enforces. Where Podman
//! does not, the hook does a part of its work, at `precreate`.

pub mod args;
pub mod bundle;
pub mod carrier;
pub mod enforcement;
pub mod identity;
mod progress;
pub mod run;
pub mod state;
