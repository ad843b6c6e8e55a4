//! Profiles as text.

use std::fmt::{self, Write as _};

use portcullis_policy::capability::Capability;

use super::Sources;
use super::aare::{ByteSet, Element, Sequence};
use super::language::everything;
use super::paths::{Access, CHANGE, EXECUTE, Effect, MAP, PathRules, Permissions, READ};
use super::sockets::NetworkRule;

/// The hash of what is written for the conformance corpus: a build that writes otherwise has another, and a test that says which.
pub(super) const WRITES: &str = "8194411b9af3ea489032569528c69316";

/// The rules of a profile.
pub(super) struct Profile {
    /// The source class whose tasks it confines.
    pub(super) class: u32,
    pub(super) paths: PathRules,
    pub(super) network: Vec<NetworkRule>,
    /// `None` is every capability.
    pub(super) capabilities: Vec<(Effect, Option<Capability>)>,
}

/// The name of the profile of a source class.
pub(super) fn profile_name(name: &str, class: u32) -> String {
    if class == 0 { name.to_owned() } else { format!("{name}.{class}") }
}

/// All profiles of a set as the parser reads them.
pub(super) fn write(name: &str, profiles: &[Profile], sources: &Sources, names_paths: bool) -> String {
    let mut text = String::new();
    for profile in profiles {
        Written { profile, name, sources, names_paths }.write(&mut text).expect("a string takes whatever is written to it");
    }
    text
}

struct Written<'a> {
    profile: &'a Profile,
    name: &'a str,
    sources: &'a Sources,
    names_paths: bool,
}

impl Written<'_> {
    fn write(&self, text: &mut String) -> fmt::Result {
        let name = profile_name(self.name, self.profile.class);
        // As the engines' own profiles have it: descriptors from outside the container, and files that are removed, have a path.
        writeln!(text, "profile \"{name}\" flags=(attach_disconnected,mediate_deleted) {{")?;
        writeln!(text, "  signal,\n  ptrace,")?;
        if !self.names_paths {
            writeln!(text, "  mount,\n  umount,\n  pivot_root,")?;
        }
        for rule in &self.profile.network {
            let space = if rule.sockets.is_empty() { "" } else { " " };
            writeln!(text, "  {}network{space}{},", prefix(rule.effect), rule.sockets)?;
        }
        for (effect, capability) in &self.profile.capabilities {
            match capability {
                Some(capability) => writeln!(text, "  {}capability {capability},", prefix(*effect))?,
                None => writeln!(text, "  {}capability,", prefix(*effect))?,
            }
        }
        // Locks are no operation of policies. Code is mapped from wherever it may be read, but for what is denied below.
        writeln!(text, "  \"{}\" km,", everything())?;
        for ((effect, name), access) in &self.profile.paths {
            match self.other_name(*effect, name, *access) {
                OtherName::None => self.path_rule(text, *effect, name, "", *access)?,
                OtherName::Directory => self.path_rule(text, *effect, name, "{,/}", *access)?,
                OtherName::File => {}
            }
        }
        writeln!(text, "}}")
    }

    /// Whether the same is said of the name of a directory and of a file, which is one line: of two with a long common beginning
    /// the parser takes minutes to make one expression. What may be executed stays apart: a rule without wildcards outweighs others.
    fn other_name(&self, effect: Effect, name: &Sequence, access: Access) -> OtherName {
        let same = |other: Sequence| {
            (access.owner | access.other) & EXECUTE == 0 && self.profile.paths.get(&(effect, other)) == Some(&access)
        };
        let slash = Element::One(ByteSet::SLASH);
        match name.elements() {
            [file @ .., last] if *last == slash && !file.is_empty() && same(file.into()) => OtherName::File,
            elements if same(Sequence::from(elements).then(slash)) => OtherName::Directory,
            _ => OtherName::None,
        }
    }

    fn path_rule(&self, text: &mut String, effect: Effect, sequence: &Sequence, end: &str, access: Access) -> fmt::Result {
        let Access { owner, other } = access;
        let lines = [("", owner & other), ("owner ", owner & !other), ("other ", other & !owner)];
        for (who, permissions) in lines.into_iter().filter(|(_, permissions)| *permissions != 0) {
            write!(text, "  {}{who}\"{sequence}{end}\" ", prefix(effect))?;
            self.permissions(text, effect, sequence, permissions)?;
            writeln!(text, ",")?;
        }
        Ok(())
    }

    fn permissions(&self, text: &mut String, effect: Effect, sequence: &Sequence, permissions: Permissions) -> fmt::Result {
        for (permission, written) in [(READ, "r"), (CHANGE, "wl"), (MAP, "m")] {
            if permissions & permission != 0 {
                text.write_str(written)?;
            }
        }
        if permissions & EXECUTE == 0 {
            return Ok(());
        }
        if effect == Effect::Deny {
            return text.write_str("x");
        }
        let class = sequence.as_literal().map_or(0, |path| self.sources.class(&path));
        if class == self.profile.class {
            text.write_str("ix")
        } else {
            write!(text, "px -> \"{}\"", profile_name(self.name, class))
        }
    }
}

/// The rule that says the same of the other name that a path has.
enum OtherName {
    /// There is none.
    None,
    /// The one with a slash at its end.
    Directory,
    /// The one without.
    File,
}

/// A denial is told with `audit`: by itself, `deny` is silent.
fn prefix(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "",
        Effect::Audit => "audit ",
        Effect::Deny => "audit deny ",
    }
}
