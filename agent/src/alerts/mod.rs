//! Denials and audited operations on their way to whoever asks for them.
//!
//! The kernel's ring has one reader. While the agent runs it is the agent, which names each alert and passes it on to any number
//! of readers; without an agent, `portcullis events` reads the ring itself. Both write the same lines ([`mod@line`]), or KubeArmor's.

mod alert;
pub mod clock;
pub(crate) mod fanout;
pub mod line;
mod names;
mod process;
mod pump;

use portcullis_enforcer::StateDir;

pub use self::alert::{Alert, Format};
pub use self::names::Names;
pub use self::process::ProcessFacts;

use self::fanout::Fanout;
use self::pump::Reading;
use crate::Error;
use crate::kubearmor::Host;

/// The alerts of this host, for any number of readers.
#[derive(Debug, Clone, Default)]
pub struct Alerts {
    pub(crate) fanout: Fanout<Alert>,
    reading: Reading,
}

impl Alerts {
    /// From the kernel's ring, named by the records of a state directory of this host. While another process reads the ring, or nothing is
    /// loaded, it is tried again. By default, alerts come from nowhere.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn from_kernel(state: StateDir, host: Host) -> Result<Alerts, Error> {
        let alerts = Alerts::default();
        pump::start(Names::new(state, host), alerts.fanout.clone(), alerts.reading.clone())?;
        Ok(alerts)
    }

    /// Why none are read now.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.reading.trouble()
    }
}
