//! As much of the BPF type format as is needed: which functions a kernel has, and how an object lays out its structures.
//!
//! Format: Documentation/bpf/btf.rst. The input is the kernel's or our own build's, and is checked all the same: an error, not
//! a panic, is what a damaged file gives.

use std::collections::{HashMap, HashSet};

use crate::Error;

/// Largest type section that is read; the kernels of 2026 have 6 MiB.
const MAX_BYTES: usize = 256 << 20;

const MAGIC: u16 = 0xeb9f;

/// Kinds of types, include/uapi/linux/btf.h.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const ENUM64: u32 = 19;
    pub(super) const LAST: u32 = 19;
}

/// Type information of a kernel or an object.
pub(crate) struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

/// A function or typedef that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) id: u32,
    prototype: u32,
}

/// A type as it lies in the file.
#[derive(Clone, Copy)]
struct Type<'a> {
    id: u32,
    name: u32,
    kind: u32,
    entries: usize,
    /// Size or referenced type.
    size_or_type: u32,
    /// Members, enumerators and the like.
    #[cfg_attr(not(test), expect(dead_code, reason = "only layouts are made of them, and only tests compare those"))]
    rest: &'a [u8],
}

impl<'a> Btf<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Btf<'a>, Error> {
        let bad = |what: &str| Error::Btf(what.to_owned());
        if bytes.len() > MAX_BYTES {
            return Err(bad("it is larger than any kernel's"));
        }
        if bytes.len() < 24 || bytes[..2] != MAGIC.to_ne_bytes() {
            return Err(bad("it does not begin as it should"));
        }
        let word = |at: usize| u32_at(bytes, at).map(|value| value as usize).ok_or_else(|| bad("it is cut short"));
        let section = |offset: usize, length: usize| -> Result<&'a [u8], Error> {
            let start = word(4)?.checked_add(offset).ok_or_else(|| bad("an offset is too large"))?;
            let end = start.checked_add(length).ok_or_else(|| bad("a length is too large"))?;
            bytes.get(start..end).ok_or_else(|| bad("a section lies outside of it"))
        };
        Ok(Btf { types: section(word(8)?, word(12)?)?, strings: section(word(16)?, word(20)?)? })
    }

    fn types(&self) -> Types<'a> {
        Types { rest: self.types, next_id: 1 }
    }

    fn string(&self, offset: u32) -> &'a str {
        let text = self.strings.get(offset as usize..).unwrap_or_default();
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        std::str::from_utf8(&text[..end]).unwrap_or_default()
    }

    /// Which of the wanted functions and typedefs there are, and what they refer to. One pass: a kernel has 150,000 types.
    /// A tracepoint `x` is the typedef `btf_trace_x`.
    pub(crate) fn find(&self, wanted: &HashSet<&str>) -> HashMap<String, Found> {
        self.types()
            .filter(|t| t.kind == kind::FUNC || t.kind == kind::TYPEDEF)
            .map(|t| (self.string(t.name), Found { id: t.id, prototype: t.size_or_type }))
            .filter(|(name, _)| wanted.contains(name))
            .map(|(name, found)| (name.to_owned(), found))
            .collect()
    }

    /// How many arguments a function has.
    pub(crate) fn arguments(&self, function: Found) -> Option<usize> {
        self.types().find(|t| t.id == function.prototype && t.kind == kind::FUNC_PROTO).map(|t| t.entries)
    }

    /// Size of a structure, and the offset and name of each member, in bytes.
    #[cfg(test)]
    pub(crate) fn layout(&self, name: &str) -> Option<(u32, Vec<(String, u32)>)> {
        let found = self.types().find(|t| t.kind == kind::STRUCT && self.string(t.name) == name)?;
        let members = found
            .rest
            .chunks_exact(12)
            .filter_map(|m| Some((self.string(u32_at(m, 0)?).to_owned(), (u32_at(m, 8)? & 0xff_ffff) / 8)))
            .collect();
        Some((found.size_or_type, members))
    }

    /// Names of the variables in a data section, such as `.maps`.
    #[cfg(test)]
    pub(crate) fn variables(&self, section: &str) -> Vec<String> {
        let Some(found) = self.types().find(|t| t.kind == kind::DATASEC && self.string(t.name) == section) else {
            return Vec::new();
        };
        let ids: HashSet<u32> = found.rest.chunks_exact(12).filter_map(|v| u32_at(v, 0)).collect();
        self.types().filter(|t| ids.contains(&t.id)).map(|t| self.string(t.name).to_owned()).collect()
    }

    /// The enumerators of every enumeration.
    #[cfg(test)]
    pub(crate) fn enumerators(&self) -> HashMap<String, u32> {
        let values = |t: Type<'a>| t.rest.chunks_exact(8).filter_map(|v| Some((u32_at(v, 0)?, u32_at(v, 4)?)));
        self.types()
            .filter(|t| t.kind == kind::ENUM)
            .flat_map(values)
            .map(|(name, value)| (self.string(name).to_owned(), value))
            .collect()
    }
}

/// Walks the types; ends at the first that is damaged.
struct Types<'a> {
    rest: &'a [u8],
    next_id: u32,
}

impl<'a> Iterator for Types<'a> {
    type Item = Type<'a>;

    fn next(&mut self) -> Option<Type<'a>> {
        let info = u32_at(self.rest, 4)?;
        let (kind, entries) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
        let each = match kind {
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12,
            kind::ENUM | kind::FUNC_PROTO => 8,
            _ => 0,
        };
        let once = match kind {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => 12,
            0 | kind::LAST.. if kind != kind::ENUM64 => return None,
            _ => 0,
        };
        let end = 12 + each * entries + once;
        let rest = self.rest.get(12..end)?;
        let found =
            Type { id: self.next_id, name: u32_at(self.rest, 0)?, kind, entries, size_or_type: u32_at(self.rest, 8)?, rest };
        self.rest = &self.rest[end..];
        self.next_id += 1;
        Some(found)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_type_information_is_an_error() {
        for bytes in [&b""[..], &[0x9f, 0xeb], &[0u8; 24], &[0xff; 64]] {
            assert!(Btf::parse(bytes).is_err());
        }
        let mut header = vec![0x9f, 0xeb, 1, 0];
        for word in [24u32, 0, u32::MAX, 0, 0] {
            header.extend(word.to_ne_bytes());
        }
        assert!(Btf::parse(&header).is_err());
    }

    #[test]
    fn an_unknown_kind_ends_the_walk() {
        let mut header = vec![0x9f, 0xeb, 1, 0];
        for word in [24u32, 0, 12, 12, 1] {
            header.extend(word.to_ne_bytes());
        }
        for word in [0u32, 30 << 24, 0] {
            header.extend(word.to_ne_bytes());
        }
        header.push(0);
        let btf = Btf::parse(&header).expect("a whole header");
        assert_eq!(btf.types().count(), 0);
    }

    #[test]
    fn the_running_kernel_has_its_scheduler() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            eprintln!("skipped: this kernel has no type information");
            return;
        };
        let btf = Btf::parse(&bytes).expect("the kernel's own");
        let found = btf.find(&HashSet::from(["do_exit", "btf_trace_sched_process_exit", "no_such_function"]));
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(btf.arguments(found["do_exit"]), Some(1));
    }
}
