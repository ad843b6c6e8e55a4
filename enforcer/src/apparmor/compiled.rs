//! What `apparmor_parser` made of a text, read as the kernel reads it (`security/apparmor/policy_unpack.c`, `match.c` and
//! `policy_compat.c`), so that tests can ask it what it would decide.

use std::path::Path;
use std::process::Command;

use portcullis_policy::capability::Capability;
use portcullis_policy::decide::Verdict;
use portcullis_policy::network::Socket;

use super::paths::{CHANGE, EXECUTE, MAP, Permissions, READ};

/// Compiles a text; the profiles in their order.
pub(super) fn compile(text: &str) -> Result<Vec<CompiledProfile>, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let (source, features, output) = (file("profile"), file("features"), file("output"));
    std::fs::write(&source, text).unwrap();
    std::fs::write(&features, super::features::FEATURES).unwrap();
    // Started by its path: `sbin` is in nobody's PATH but root's.
    let parser = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"].into_iter().find(|path| Path::new(path).exists());
    let parser = parser.expect("apparmor_parser is not installed; install it with: apt-get install apparmor");
    let mut command = Command::new(parser);
    command.args(["-Q", "-K", "-M"]).arg(&features).arg("-o").arg(&output).arg(&source);
    let done = command.output().unwrap();
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into_owned());
    }
    Ok(profiles(&std::fs::read(&output).unwrap()))
}

/// A profile as the kernel has it.
pub(super) struct CompiledProfile {
    pub(super) name: String,
    /// Allowed and audited, by number.
    capabilities: [u64; 2],
    policy: Dfa,
    files: Dfa,
    transitions: Vec<String>,
}

/// What happens to an execution, and which profile it leads to; `None` is the same.
pub(super) struct Execution<'a> {
    pub(super) verdict: Verdict,
    pub(super) profile: Option<&'a str>,
}

impl CompiledProfile {
    pub(super) fn file(&self, name: &[u8], owner: bool, permission: Permissions) -> Verdict {
        let state = self.files.walk(Dfa::START, name);
        let (allowed, audited, quiet) = self.files.permissions(state, owner);
        let bits = match permission {
            READ => 4,
            // Writing and appending.
            CHANGE => 2 | 8,
            MAP => 0x40,
            EXECUTE => 1,
            other => panic!("{other} is no permission"),
        };
        assert_eq!(quiet, 0, "a denial is told");
        match (allowed & bits == bits, audited & bits != 0) {
            (false, _) => Verdict::Block,
            (true, true) => Verdict::Audit,
            (true, false) => Verdict::Allow,
        }
    }

    /// Whether a new link may have this name, as far as names go.
    pub(super) fn links(&self, name: &[u8], owner: bool) -> bool {
        let state = self.files.walk(Dfa::START, name);
        let target = self.files.walk(self.files.step(state, 0), b"/x");
        let link = |state| self.files.permissions(state, owner).0 & 0x10 != 0;
        link(state) && link(target)
    }

    pub(super) fn execution(&self, name: &[u8], owner: bool) -> Execution<'_> {
        let verdict = self.file(name, owner, EXECUTE);
        let state = self.files.walk(Dfa::START, name);
        let accept = self.files.accept[state] >> if owner { 0 } else { 14 };
        let index = accept >> 10 & 0xf;
        // From 4 on it is an index into the table of names (`dfa_map_xindex`).
        let profile = (index >= 4).then(|| self.transitions[index as usize - 4].as_str());
        assert!(verdict == Verdict::Block || profile.is_some() || accept & 0x200 != 0, "it stays or it goes somewhere");
        Execution { verdict, profile }
    }

    pub(super) fn socket(&self, socket: Socket) -> Verdict {
        const CLASS: u8 = 14;
        let [family, kind] = [socket.family.to_be_bytes(), socket.kind.to_be_bytes()];
        let state = self.policy.walk(Dfa::START, &[CLASS, family[0], family[1], kind[0], kind[1]]);
        let (allowed, audited, quiet) = self.policy.permissions(state, true);
        assert_eq!(quiet, 0, "a denial is told");
        match (allowed & 0x76 == 0x76, audited != 0) {
            (false, _) => Verdict::Block,
            (true, true) => Verdict::Audit,
            (true, false) => Verdict::Allow,
        }
    }

    pub(super) fn capability(&self, capability: Capability) -> Verdict {
        let [allowed, audited] = self.capabilities.map(|mask| mask >> capability.number() & 1 != 0);
        match (allowed, audited) {
            (false, _) => Verdict::Block,
            (true, true) => Verdict::Audit,
            (true, false) => Verdict::Allow,
        }
    }
}

/// The tables of an automaton.
struct Dfa {
    accept: Vec<u32>,
    accept2: Vec<u32>,
    base: Vec<u32>,
    check: Vec<u32>,
    default: Vec<u32>,
    next: Vec<u32>,
    classes: Vec<u32>,
}

impl Dfa {
    const START: usize = 1;

    fn walk(&self, start: usize, bytes: &[u8]) -> usize {
        bytes.iter().fold(start, |state, &byte| self.step(state, byte))
    }

    fn step(&self, mut state: usize, byte: u8) -> usize {
        const DIFFERENTIAL: u32 = 0x8000_0000;
        let class = self.classes.get(usize::from(byte)).copied().unwrap_or(u32::from(byte));
        loop {
            let base = self.base[state];
            let at = (base & 0x00ff_ffff) as usize + class as usize;
            if self.check.get(at).is_some_and(|&owner| owner as usize == state) {
                return self.next[at] as usize;
            }
            state = self.default[state] as usize;
            if base & DIFFERENTIAL == 0 {
                return state;
            }
        }
    }

    /// Allowed, audited and quiet.
    fn permissions(&self, state: usize, owner: bool) -> (u32, u32, u32) {
        let shift = if owner { 0 } else { 14 };
        let (accept, accept2) = (self.accept[state] >> shift, self.accept2[state] >> shift);
        (accept & 0x7f, accept2 & 0x7f, accept2 >> 7 & 0x7f)
    }

    fn read(blob: &[u8]) -> Dfa {
        const MAGIC: [u8; 4] = 0x1b5e_783d_u32.to_be_bytes();
        let start = blob.windows(4).position(|word| word == MAGIC).expect("a DFA has its magic number");
        let blob = &blob[start..];
        let word = |at: usize| u32::from_be_bytes(blob[at..at + 4].try_into().unwrap());
        let half = |at: usize| u16::from_be_bytes(blob[at..at + 2].try_into().unwrap());
        let mut tables = vec![Vec::new(); 10];
        let mut at = word(4) as usize;
        let end = word(8) as usize;
        while at < end {
            let (id, width, length) = (half(at) as usize, half(at + 2) as usize, word(at + 8) as usize);
            let data = at + 12;
            let entry = |index: usize| match width {
                1 => u32::from(blob[data + index]),
                2 => u32::from(half(data + 2 * index)),
                _ => word(data + 4 * index),
            };
            tables[id] = (0..length).map(entry).collect();
            at = (data + length * width).next_multiple_of(8);
        }
        let mut take = |id: usize| std::mem::take(&mut tables[id]);
        Dfa {
            accept: take(1),
            base: take(2),
            check: take(3),
            default: take(4),
            classes: take(5),
            accept2: take(7),
            next: take(8),
        }
    }
}

/// An item of the stream that the parser writes.
#[derive(Debug, PartialEq, Eq)]
enum Item {
    Number(u32),
    Name(String),
    Text(String),
    Blob(Vec<u8>),
    Other,
}

fn profiles(stream: &[u8]) -> Vec<CompiledProfile> {
    let items = items(stream);
    let starts: Vec<usize> = (0..items.len()).filter(|&at| items[at] == Item::Name("profile".to_owned())).collect();
    let ends = starts.iter().skip(1).copied().chain([items.len()]);
    starts.iter().zip(ends).map(|(&start, end)| profile(&items[start..end])).collect()
}

fn profile(items: &[Item]) -> CompiledProfile {
    let place = |name: &str| items.iter().position(|item| *item == Item::Name(name.to_owned()));
    let numbers = |from: usize| -> Vec<u32> {
        let after = items[from + 1..].iter().skip_while(|item| **item == Item::Other);
        after.map_while(|item| if let Item::Number(number) = item { Some(*number) } else { None }).collect()
    };
    // The flags of paths, and then the lower halves of what is allowed, audited and quiet.
    let low = numbers(place("path_flags").unwrap());
    let high = numbers(place("caps64").unwrap());
    let mask = |index: usize| u64::from(high[index]) << 32 | u64::from(low[index + 1]);
    assert_eq!((low[3], high[2]), (0, 0), "a denial is told");
    let mut blobs = items.iter().filter_map(|item| if let Item::Blob(blob) = item { Some(blob) } else { None });
    let texts = |items: &[Item]| -> Vec<String> {
        items.iter().filter_map(|item| if let Item::Text(text) = item { Some(text.clone()) } else { None }).collect()
    };
    let name = texts(items).swap_remove(0);
    let (policy, files) = (Dfa::read(blobs.next().unwrap()), Dfa::read(blobs.next().unwrap()));
    let transitions = place("xtable").map_or(Vec::new(), |at| texts(&items[at..]));
    CompiledProfile { name, capabilities: [mask(0), mask(1)], policy, files, transitions }
}

fn items(stream: &[u8]) -> Vec<Item> {
    let mut items = Vec::new();
    let mut at = 0;
    let mut take = |count: usize| {
        at += count;
        stream.get(at - count..at)
    };
    while let Some(&[code]) = take(1) {
        let mut number = |bytes: usize| take(bytes).unwrap().iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.strip_suffix(b"\0").unwrap_or(bytes)).into_owned();
        let item = match code {
            0..=3 => Item::Number(number(1 << code) as u32),
            4 | 5 => {
                let length = number(2) as usize;
                let text = text(take(length).unwrap());
                if code == 4 { Item::Name(text) } else { Item::Text(text) }
            }
            6 => {
                let length = number(4) as usize;
                Item::Blob(take(length).unwrap().to_vec())
            }
            11 => {
                number(2);
                Item::Other
            }
            7..=12 => Item::Other,
            other => panic!("{other} begins no item"),
        };
        items.push(item);
    }
    items
}
