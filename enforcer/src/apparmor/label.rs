//! Names of profiles, and labels, which are what tasks have of them.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::PREFIX;

/// Digits of the hash in a name.
const HASH_DIGITS: usize = 32;

/// The name of the profile that a container is started with: a hash of its id, whatever the container is called. Others of its set
/// have a number behind it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProfileName(String);

impl ProfileName {
    /// That of a container.
    #[must_use]
    pub fn of(id: &str) -> ProfileName {
        let hash: String = Sha256::digest(id)[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        ProfileName(format!("{PREFIX}{hash}"))
    }

    /// That of the container which has a profile; nothing for a profile that is not ours.
    #[must_use]
    pub fn of_profile(profile: &str) -> Option<ProfileName> {
        let name = container_of(profile)?;
        let hash = &name[PREFIX.len()..];
        let is_hash = hash.len() == HASH_DIGITS && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then(|| ProfileName(name.to_owned()))
    }

    /// Slot and epoch by which events are the container's: numbers that no slot of the kernel programs has, so that both kinds of
    /// events are named in one way.
    #[must_use]
    pub fn tenancy(&self) -> (u32, u32) {
        const NO_SLOT: u32 = 1 << 31;
        let number = |from: usize| self.0.get(from..from + 8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let [slot, epoch] = [PREFIX.len(), PREFIX.len() + 8].map(|from| number(from).unwrap_or(0));
        // The greatest of all says "none" elsewhere.
        (slot >> 2 | NO_SLOT, epoch)
    }

    /// As AppArmor has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a profile is of the container's set.
    #[must_use]
    pub fn covers(&self, profile: &str) -> bool {
        container_of(profile) == Some(&self.0)
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a container's first profile, by that of any of its set; nothing for a profile that is not ours.
pub(super) fn container_of(profile: &str) -> Option<&str> {
    let hash = profile.strip_prefix(PREFIX)?.split('.').next()?;
    profile.get(..PREFIX.len() + hash.len())
}

/// A label: `profile//&profile (mode)` as the kernel shows it, or without the mode as a runtime is told it.
///
/// Engines' programs may have profiles of their own: under Debian's and Ubuntu's, crun is `crun (unconfined)`, and what it starts with
/// `no_new_privs` is stacked on that, in whichever order the kernel keeps labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label<'a>(&'a str);

impl<'a> Label<'a> {
    /// As it was read.
    #[must_use]
    pub fn new(text: &'a str) -> Label<'a> {
        let text = text.trim_end_matches(['\n', '\0']);
        Label(text.rsplit_once(" (").map_or(text, |(label, _)| label))
    }

    /// The profiles that are stacked in it.
    pub fn profiles(self) -> impl Iterator<Item = &'a str> {
        self.0.split("//&")
    }

    /// Whether one of them is of a container's set.
    #[must_use]
    pub fn has(self, name: &ProfileName) -> bool {
        self.profiles().any(|profile| name.covers(profile))
    }

    /// The same with a container's profile on top, in the place of another container's: nothing is permitted that was not before.
    #[must_use]
    pub fn with(self, name: &ProfileName) -> String {
        match self.without_ours().as_str() {
            "" | "unconfined" => name.to_string(),
            label => format!("{label}//&{name}"),
        }
    }

    /// The same without profiles of ours.
    #[must_use]
    pub fn without_ours(self) -> String {
        self.profiles().filter(|profile| container_of(profile).is_none()).collect::<Vec<_>>().join("//&")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_nothing_of_the_container_and_are_all_as_long() {
        let hostile = ProfileName::of("a\" { /** rwx, }\n//&@{x}");
        assert!(hostile.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.'));
        assert_eq!(hostile.as_str().len(), super::super::UNNAMED.len());
        assert_ne!(hostile, ProfileName::of("b"));
    }

    #[test]
    fn a_profile_leads_to_its_container_and_its_number() {
        let name = ProfileName::of("c1");
        for profile in [name.to_string(), format!("{name}.7")] {
            assert_eq!(ProfileName::of_profile(&profile), Some(name.clone()));
        }
        for profile in ["docker-default", "portcullis.", "portcullis.xyz", "portcullis.0123"] {
            assert_eq!(ProfileName::of_profile(profile), None, "{profile}");
        }
        let greatest = ProfileName(format!("{PREFIX}{}", "f".repeat(HASH_DIGITS)));
        assert!(greatest.tenancy().0 != u32::MAX && greatest.tenancy().0 > portcullis_ebpf::abi::MAX_SLOTS);
        assert_ne!(name.tenancy(), ProfileName::of("c2").tenancy());
    }

    #[test]
    fn a_label_is_ours_in_any_order_and_mode() {
        let name = ProfileName::of("c1");
        for label in [
            format!("{name} (enforce)\n"),
            format!("containers-default-0.62.2//&{name} (enforce)"),
            format!("{name}.3//&crun (mixed)"),
            format!("crun//&docker-default//&{name}\0"),
        ] {
            assert!(Label::new(&label).has(&name), "{label}");
        }
        for label in ["unconfined".to_owned(), String::new(), format!("{}0 (enforce)", name), ProfileName::of("c2").to_string()] {
            assert!(!Label::new(&label).has(&name), "{label}");
        }
    }

    #[test]
    fn a_label_is_stacked_once() {
        let name = ProfileName::of("c1");
        assert_eq!(Label::new("").with(&name), name.to_string());
        assert_eq!(Label::new("unconfined").with(&name), name.to_string());
        let stacked = Label::new("docker-default").with(&name);
        assert_eq!(stacked, format!("docker-default//&{name}"));
        assert_eq!(Label::new(&stacked).with(&name), stacked);
        assert_eq!(Label::new(&stacked).with(&ProfileName::of("c2")), format!("docker-default//&{}", ProfileName::of("c2")));
        assert_eq!(Label::new(&stacked).without_ours(), "docker-default");
        assert_eq!(Label::new(name.as_str()).without_ours(), "");
    }
}
