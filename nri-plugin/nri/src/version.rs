//! Which version of NRI a runtime speaks, and what that version knows.
//!
//! A subscription to an event that the runtime does not know is not ignored: the runtime closes the connection. Runtimes
//! say their version of NRI since 0.12; for older ones it follows from the runtime's own version, which they always said.

use std::fmt;

use crate::events::Events;

/// The version that this crate announces when it registers.
pub const NRI_VERSION: &str = "v0.12.2";

/// A version of NRI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NriVersion {
    /// 0 so far.
    pub major: u32,
    /// What tells the versions apart.
    pub minor: u32,
    /// The third number.
    pub patch: u32,
}

impl NriVersion {
    /// A version by its numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> NriVersion {
        NriVersion { major, minor, patch }
    }

    /// Reads `v0.12.0`, `0.12.0` or any of them with a suffix; `None` for anything else, "unknown" included.
    pub fn parse(text: &str) -> Option<NriVersion> {
        let (numbers, suffix) = numbers(text)?;
        // A build that is not a release calls itself 0.0.0-unknown.
        (numbers != [0, 0, 0] || suffix.is_empty()).then(|| NriVersion::new(numbers[0], numbers[1], numbers[2]))
    }

    /// The events of this version.
    pub fn events(self) -> Events {
        if self >= NriVersion::new(0, 10, 0) { Events::ALL } else { Events::BEFORE_0_10 }
    }
}

impl fmt::Display for NriVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Where the knowledge of a runtime's version of NRI comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The runtime said it.
    Said(NriVersion),
    /// It follows from the runtime's name and version.
    Inferred(NriVersion),
    /// The runtime is none of those in the table.
    Unknown,
}

impl Known {
    /// The version, if there is one.
    pub fn version(self) -> Option<NriVersion> {
        match self {
            Known::Said(version) | Known::Inferred(version) => Some(version),
            Known::Unknown => None,
        }
    }

    /// The events that can be subscribed to without risking the connection.
    pub fn events(self) -> Events {
        self.version().map_or(Events::BEFORE_0_10, NriVersion::events)
    }
}

/// A runtime, as it introduced itself in Configure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// "containerd", "cri-o".
    pub name: String,
    /// As the runtime's build calls it.
    pub version: String,
    /// What is known of its version of NRI.
    pub nri: Known,
    /// The time for one request, where the runtime says so (since NRI 0.7).
    pub request_timeout: Option<std::time::Duration>,
    /// The time for the registration, where the runtime says so (since NRI 0.7).
    pub registration_timeout: Option<std::time::Duration>,
}

impl fmt::Display for RuntimeInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)?;
        match self.nri {
            Known::Said(version) => write!(f, " (NRI {version})"),
            Known::Inferred(version) => write!(f, " (NRI {version}, by its version)"),
            Known::Unknown => write!(f, " (NRI version unknown)"),
        }
    }
}

/// The first release of each runtime that came with a version of NRI, oldest first.
///
/// containerd: go.mod of its release tags. CRI-O: the same. Only the step to 0.10 changes which events exist.
const CONTAINERD: &[([u32; 3], NriVersion)] = &[
    ([1, 7, 0], NriVersion::new(0, 3, 0)),
    ([1, 7, 7], NriVersion::new(0, 4, 0)),
    ([1, 7, 14], NriVersion::new(0, 6, 0)),
    ([1, 7, 16], NriVersion::new(0, 6, 1)),
    ([1, 7, 26], NriVersion::new(0, 8, 0)),
    ([2, 2, 0], NriVersion::new(0, 10, 0)),
    ([2, 2, 1], NriVersion::new(0, 11, 0)),
    ([2, 3, 0], NriVersion::new(0, 12, 0)),
];
const CRI_O: &[([u32; 3], NriVersion)] = &[
    ([1, 26, 0], NriVersion::new(0, 2, 0)),
    ([1, 27, 0], NriVersion::new(0, 3, 0)),
    ([1, 29, 0], NriVersion::new(0, 5, 0)),
    ([1, 29, 2], NriVersion::new(0, 6, 0)),
    ([1, 31, 0], NriVersion::new(0, 6, 1)),
    ([1, 32, 0], NriVersion::new(0, 9, 0)),
    ([1, 34, 0], NriVersion::new(0, 10, 0)),
    ([1, 35, 0], NriVersion::new(0, 11, 0)),
];

/// What can be known of a runtime's version of NRI.
///
/// `said` is the runtime's own word, empty before NRI 0.12.
pub fn known(said: &str, runtime: &str, runtime_version: &str) -> Known {
    if let Some(version) = NriVersion::parse(said) {
        return Known::Said(version);
    }
    let table = match runtime {
        "containerd" => CONTAINERD,
        "cri-o" => CRI_O,
        _ => return Known::Unknown,
    };
    let Some((numbers, suffix)) = numbers(runtime_version) else { return Known::Unknown };
    // A release candidate may still have the NRI of the release before.
    let early = ["-alpha", "-beta", "-rc", "~alpha", "~beta", "~rc"].iter().any(|mark| suffix.starts_with(mark));
    let reached = |from: &[u32; 3]| if early { *from < numbers } else { *from <= numbers };
    let last = table.iter().take_while(|(from, _)| reached(from)).last();
    last.map_or(Known::Unknown, |(_, version)| Known::Inferred(*version))
}

/// The three leading numbers of a version and what follows them.
fn numbers(text: &str) -> Option<([u32; 3], &str)> {
    let mut rest = text.strip_prefix('v').unwrap_or(text);
    let mut numbers = [0; 3];
    for (at, number) in numbers.iter_mut().enumerate() {
        if at > 0 {
            match rest.strip_prefix('.') {
                Some(after) => rest = after,
                None if at == 2 => break,
                None => return None,
            }
        }
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        *number = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
    }
    Some((numbers, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_word_counts_first() {
        assert_eq!(known("v0.12.0", "containerd", "1.7.0"), Known::Said(NriVersion::new(0, 12, 0)));
        assert_eq!(known("0.12.3-7-gabc", "docker", "29.0.1"), Known::Said(NriVersion::new(0, 12, 3)));
        assert_eq!(known("0.0.0-unknown", "cri-o", "1.34.2"), Known::Inferred(NriVersion::new(0, 10, 0)));
        assert_eq!(known("(devel)", "docker", "29.0.1"), Known::Unknown);
    }

    #[test]
    fn versions_as_distributions_write_them() {
        for (runtime, version, minor) in [
            ("containerd", "1.7.24~ds1", Some(6)),
            ("containerd", "2.1.9+unknown", Some(8)),
            ("containerd", "v2.2.0-rc.0", Some(8)),
            ("containerd", "v2.2.0-225-ge9dc15b7a.m", Some(10)),
            ("containerd", "v2.2.1", Some(11)),
            ("containerd", "2.4.0-dev", Some(12)),
            ("containerd", "1.7.30", Some(8)),
            ("containerd", "1.6.40", None),
            ("containerd", "unknown", None),
            ("containerd", "2", None),
            ("containerd", "99999999999.0.0", None),
            ("cri-o", "1.33.8", Some(9)),
            ("cri-o", "1.35.0", Some(11)),
            ("docker", "29.1.0", None),
        ] {
            assert_eq!(known("", runtime, version).version().map(|v| v.minor), minor, "{runtime} {version}");
        }
    }

    #[test]
    fn unknown_runtimes_get_the_narrow_set() {
        assert_eq!(known("", "docker", "29").events(), Events::BEFORE_0_10);
        assert_eq!(known("", "containerd", "2.2.0").events(), Events::ALL);
    }
}
