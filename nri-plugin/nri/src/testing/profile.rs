//! Which runtime is played.

use std::time::Duration;

use crate::version::NriVersion;

/// A runtime with its version of NRI.
#[derive(Debug, Clone)]
pub struct Profile {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) nri: NriVersion,
    pub(super) says_nri: bool,
    pub(super) request_timeout: Duration,
    pub(super) registration_timeout: Duration,
    pub(super) config: String,
}

impl Profile {
    /// A runtime by its name, version and version of NRI.
    pub fn new(name: impl Into<String>, version: impl Into<String>, nri: NriVersion) -> Profile {
        Profile {
            name: name.into(),
            version: version.into(),
            nri,
            says_nri: nri >= NriVersion::new(0, 12, 0),
            request_timeout: Duration::from_secs(2),
            registration_timeout: Duration::from_secs(5),
            config: String::new(),
        }
    }

    /// Debian 13's containerd: NRI 0.6.1, which says no time-outs, and keeps a connection whose Synchronize failed.
    pub fn containerd_1_7() -> Profile {
        Profile::new("containerd", "1.7.24~ds1", NriVersion::new(0, 6, 1))
    }

    /// NRI 0.8: with Synchronize in parts.
    pub fn containerd_2_1() -> Profile {
        Profile::new("containerd", "2.1.9+unknown", NriVersion::new(0, 8, 0))
    }

    /// NRI 0.11: with validation, and still with StateChange.
    pub fn containerd_2_2() -> Profile {
        Profile::new("containerd", "v2.2.1", NriVersion::new(0, 11, 0))
    }

    /// NRI 0.12: with a method for each event.
    pub fn containerd_2_3() -> Profile {
        Profile::new("containerd", "v2.3.0", NriVersion::new(0, 12, 0))
    }

    /// NRI 0.11.
    pub fn cri_o_1_35() -> Profile {
        Profile::new("cri-o", "1.35.0", NriVersion::new(0, 11, 0))
    }

    /// The time for one request.
    #[must_use]
    pub fn request_timeout(mut self, time: Duration) -> Profile {
        self.request_timeout = time;
        self
    }

    /// The text that Configure carries.
    #[must_use]
    pub fn config(mut self, text: impl Into<String>) -> Profile {
        self.config = text.into();
        self
    }

    /// Leaves out the version of NRI, or says it although that version would not.
    #[must_use]
    pub fn says_nri_version(mut self, says: bool) -> Profile {
        self.says_nri = says;
        self
    }

    pub(super) fn has_own_methods(&self) -> bool {
        self.nri >= NriVersion::new(0, 12, 0)
    }

    pub(super) fn says_timeouts(&self) -> bool {
        self.nri >= NriVersion::new(0, 7, 0)
    }
}
