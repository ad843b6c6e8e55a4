//! Numbers for Prometheus, at `/metrics` where `metrics.listen` says.
//!
//! [`Sample`] is what is known at one moment, [`text`] is that in OpenMetrics. Names, units and help are in [`mod@text`] and nowhere
//! else; SPECIFICATION.md has the table. No label comes from a container or a policy: the number of series is bounded by the
//! configuration.

mod process;
mod server;
mod text;

use std::sync::Arc;

use portcullis_ebpf::Kernel;
use tracing::warn;

pub(crate) use self::server::Server;

use self::process::ProcessSample;
use crate::control::{AgentStatus, Refusal};

/// What the kernel counts, since it was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct KernelSample {
    programs: u64,
    /// System calls of the host that the kernel skipped the program for.
    missed: u64,
    memory_bytes: u64,
    counts: portcullis_ebpf::abi::Stats,
}

/// All that is told at one moment.
#[derive(Debug, Clone)]
struct Sample {
    agent: AgentStatus,
    /// Nothing where nothing is loaded.
    kernel: Option<KernelSample>,
    process: ProcessSample,
}

/// Tells how the agent is.
pub(crate) type StatusTeller = Arc<dyn Fn() -> Result<AgentStatus, Refusal> + Send + Sync>;

/// Takes samples.
#[derive(Clone)]
pub(crate) struct Metrics {
    status: StatusTeller,
}

impl Metrics {
    pub(crate) fn new(status: StatusTeller) -> Metrics {
        Metrics { status }
    }

    /// The text of a sample that is taken now. Blocks for as long as files and the kernel do.
    ///
    /// # Errors
    /// Why there is none. Half of the numbers would look like a fall of the others to zero.
    fn scrape(&self) -> Result<String, String> {
        let agent = (self.status)().map_err(|refusal| refusal.message)?;
        let kernel = kernel().map_err(|error| error.to_string())?;
        let process = ProcessSample::take().map_err(|error| error.to_string())?;
        text::text(&Sample { agent, kernel, process }).map_err(|error| error.to_string())
    }
}

fn kernel() -> Result<Option<KernelSample>, portcullis_ebpf::Error> {
    let kernel = match Kernel::open() {
        Ok(kernel) => kernel,
        Err(portcullis_ebpf::Error::NotLoaded) => return Ok(None),
        Err(error) => return Err(error),
    };
    let pinned = kernel.programs()?;
    let programs = pinned.iter().filter(|program| program.attached).count() as u64;
    // Security hooks are never skipped.
    let missed = pinned.iter().map(|program| program.missed).sum();
    Ok(Some(KernelSample { programs, missed, memory_bytes: kernel.memory()?, counts: kernel.counts()? }))
}

/// Says once that whoever reaches the address reads the numbers.
fn tell_of(address: std::net::SocketAddr) {
    if !address.ip().is_loopback() {
        warn!("whoever reaches {address} reads the numbers of this node, because metrics.listen says so");
    }
}

#[cfg(test)]
mod tests;
