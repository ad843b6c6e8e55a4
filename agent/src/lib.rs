//! The agent: the one long-lived process of Portcullis.
//!
//! What is in force, the kernel holds; new containers, the gate hook arms. The agent is what knows that something *changed*: a
//! policy file, a container that a runtime announces, starts or stops (the NRI plugin), an alert. It brings
//! running containers to new policies, tells the gate hook who is coming, and passes alerts on. When it is gone, what is armed
//! stays armed, and what nobody can tell the gate hook is refused.
//!
//! ```text
//! policy directory ─ watch ─┐                       ┌─ node (enforcer): refresh, adopt, gone
//! known containers ─ watch ─┼─> reconcile (1 thread) ┤
//! SIGHUP, `reload` ─────────┘                       └─ book: what failed, for the status
//! runtimes ─ NRI plugin ─ doorway ─> node: expect, start      (in the call; the runtime waits)
//! kernel rings ─ telemetry (1 thread) ─> fanouts ─┬─> control socket ─> portcullis events
//!                                                 ├─> feeder (gRPC) ─> karmor, relay
//!                                                 └─> sinks ─> file, OTLP
//! log ─ messages ─> fanout ─────────────────────> feeder
//! status, kernel counters ─ metrics ────────────> Prometheus
//! ```

#![warn(missing_docs)]

pub mod alerts;
mod answers;
mod audit;
pub mod control;
mod doorway;
mod error;
mod feeder;
mod instance;
mod json;
pub mod kubearmor;
pub mod logs;
mod memory;
mod metrics;
pub mod node;
mod ocsf;
pub mod processes;
mod reconcile;
mod run;
pub mod service;
mod sinks;
mod socket;
mod systemd;
mod telemetry;
mod watch;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod schemas;

pub use answers::policy_table;
pub use error::Error;
pub use feeder::Messages;
pub use run::{AgentOptions, run};
pub use telemetry::Telemetry;
