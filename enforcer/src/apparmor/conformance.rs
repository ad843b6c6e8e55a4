//! The conformance corpus on profiles as the real parser compiles them. What the kernel asks of a profile for each operation
//! is written down here, from the hooks in its `security/apparmor/lsm.c`; the profile's answer is its tables'.

use std::path::{Path, PathBuf};

use portcullis_policy::Support;
use portcullis_policy::decide::Verdict;
use portcullis_policy::expectation::{self, Case, Expectation, FileCall, FileKind, Op};
use portcullis_policy::meaning::{Class, RuleSet};
use portcullis_policy::select::Mode;
use sha2::{Digest, Sha256};

use super::compiled::{CompiledProfile, compile};
use super::paths::{CHANGE, EXECUTE, READ};
use super::text::WRITES;
use super::{Generated, Variant, generate, report};

/// Cases that end otherwise under AppArmor, which the report of their policies says.
const OTHERWISE: &[&str] = &[
    // Sockets have no protocols.
    "udp: ping is ICMP",
    "icmp: ping",
    "icmp: ping, version 6",
    "icmp: other raw protocols",
    "sctp, dccp and packet: SCTP, one to one",
    // There is no hook for these.
    "a path stands for itself alone: its times stay",
    // What is renamed is judged by its own names, and only as a file.
    "a path of an executable: it gets no other name",
    // A removed file has its last name.
    "an allow-list of executables that blocks: a removed one has no name to be listed by",
    "an allow-list of executables that audits: a removed one",
    "what lies below a name: its directory does not move",
    "what lies below a name: its parent does not move",
    // A link is judged by its new name.
    "names of audited files: linking it is told",
];

/// A profile and what the corpus says of its container.
struct Container<'a> {
    document: &'a Expectation,
    generated: &'a Generated,
    profiles: &'a [CompiledProfile],
}

impl Container<'_> {
    fn verdict(&self, case: &Case) -> Verdict {
        let profile = case.source.as_ref().map_or(&self.profiles[0], |source| {
            let source = self.document.leads(source, false);
            self.profile(self.profiles[0].execution(&source, true).profile.unwrap_or(&self.generated.name))
        });
        match &case.op {
            Op::File { call: FileCall::Read, path, .. } => {
                let path = self.document.leads(path, false);
                profile.file(&self.name(&path, None), self.owns(&path, case), READ)
            }
            // No hook: `apparmor_inode_setattr` does not exist.
            Op::File { call: FileCall::Utimes, .. } => Verdict::Allow,
            Op::File { call, path, to: None } => {
                let path = self.document.leads(path, call.keeps_last_link());
                // Who makes a file owns it (`common_perm_create`).
                profile.file(&self.name(&path, Some(*call)), call.creates() || self.owns(&path, case), CHANGE)
            }
            Op::File { call, path, to: Some(to) } => {
                let (old, new) = (self.document.leads(path, true), self.document.leads(to, true));
                let owner = self.owns(&old, case);
                let to = if self.name(&old, None).ends_with(b"/") { [&new[..], b"/"].concat() } else { new };
                let old = self.name(&old, None);
                if *call == FileCall::Rename {
                    // `apparmor_path_rename` asks to read and change the old name, and to change the new one.
                    let read = profile.file(&old, owner, READ);
                    let read = if read == Verdict::Block { Verdict::Block } else { Verdict::Allow };
                    return read.max(profile.file(&old, owner, CHANGE)).max(profile.file(&to, owner, CHANGE));
                }
                // `profile_path_link`: nothing by the new name that the old one has not.
                let allowed = |name: &[u8], permission| profile.file(name, owner, permission) != Verdict::Block;
                let more = [READ, CHANGE, EXECUTE].into_iter().any(|of| allowed(&to, of) && !allowed(&old, of));
                if more || !profile.links(&to, owner) { Verdict::Block } else { profile.file(&to, owner, CHANGE) }
            }
            Op::Exec(path) | Op::ExecDeleted(path) => {
                let path = self.document.leads(path, false);
                profile.execution(&path, self.owns(&path, case)).verdict
            }
            // Its dentry is a root without a parent, which `dentry_path` calls `/`.
            Op::Memfd => profile.execution(b"/", true).verdict,
            Op::Socket(_, socket) => profile.socket(*socket),
            Op::Capability(capability) => profile.capability(*capability),
            // No hook knows which call the task is in.
            Op::Syscall { .. } => Verdict::Allow,
        }
    }

    fn profile(&self, name: &str) -> &CompiledProfile {
        self.profiles.iter().find(|profile| profile.name == name).expect("a profile leads to one that there is")
    }

    /// The name that AppArmor is shown.
    fn name(&self, path: &[u8], call: Option<FileCall>) -> Vec<u8> {
        let declared = self.document.files.iter().any(|file| file.path == path && file.kind == FileKind::Dir);
        let above = self.document.files.iter().any(|file| file.path.starts_with(&[path, b"/"].concat()));
        let is_directory = declared || above || matches!(call, Some(FileCall::Mkdir | FileCall::Rmdir));
        if is_directory && path != b"/" { [path, b"/"].concat() } else { path.to_vec() }
    }

    fn owns(&self, path: &[u8], case: &Case) -> bool {
        self.document.owner(path) == case.uid
    }
}

/// Whether the report of the document's policies says that something of the case's class is not done.
fn is_told(document: &Expectation, set: &RuleSet, case: &Case) -> bool {
    // Second names of a file are a matter of process rules too.
    let classes: &[Class] = match case.op {
        Op::File { .. } => &[Class::File, Class::Process],
        Op::Exec(_) | Op::ExecDeleted(_) | Op::Memfd => &[Class::Process],
        Op::Socket(..) => &[Class::Network],
        Op::Capability(_) => &[Class::Capability],
        Op::Syscall { .. } => &[Class::Syscall],
    };
    let origins: Vec<_> = set.rules.iter().filter(|rule| classes.contains(&rule.class)).map(|rule| &rule.origin).collect();
    let mut reports = document.policies.iter().flat_map(report);
    reports.any(|report| origins.contains(&&report.origin) && report.support != Support::Full)
}

#[test]
fn cases_end_as_expected_or_the_report_says_that_they_do_not() {
    let (mut cases, mut calls, mut otherwise) = (0, 0, Vec::new());
    for document in corpus() {
        let selection = document.select(&[]);
        let set = document.rules(&selection);
        if selection.mode == Mode::Disabled {
            continue;
        }
        let variant = Variant { audited: selection.mode == Mode::Audited, no_new_privileges: false };
        let generated = generate(&set, variant).unwrap();
        let profiles = compile(&generated.text).unwrap_or_else(|error| panic!("{error}\n{}", generated.text));
        let container = Container { document: &document, generated: &generated, profiles: &profiles };
        for case in &document.cases {
            let is_call = matches!(case.op, Op::Syscall { .. });
            *(if is_call { &mut calls } else { &mut cases }) += 1;
            if container.verdict(case) != case.expect {
                let name = format!("{}: {}", document.name, case.name);
                assert!(is_told(&document, &set, case), "{name}: no rule is reported as partial");
                // Their rules are reported as not enforced at all, all of them.
                if !is_call {
                    otherwise.push(name);
                }
            }
        }
    }
    assert_eq!(otherwise, OTHERWISE);
    let specification = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../SPECIFICATION.md")).unwrap();
    let told = format!("{} of {cases} cases end otherwise under AppArmor", otherwise.len());
    assert!(specification.contains(&told), "SPECIFICATION.md does not say: {told}");
    assert!(specification.contains(&format!("its {calls} cases of system calls")), "{calls} cases of system calls");
}

/// A build that writes otherwise finds nothing of what another has kept.
#[test]
fn what_is_kept_by_the_rules_is_what_would_be_written() {
    let mut hasher = Sha256::new();
    for document in corpus() {
        let set = document.rules(&document.select(&[]));
        for (audited, no_new_privileges) in [(false, false), (true, false), (false, true)] {
            hasher.update(generate(&set, Variant { audited, no_new_privileges }).unwrap().text);
        }
    }
    let digest: String = hasher.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(WRITES, digest, "the profiles of the corpus are others: put the right one into text.rs");
}

fn corpus() -> Vec<Expectation> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance");
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files.iter().flat_map(|file| expectation::parse(file, &std::fs::read(file).unwrap()).unwrap()).collect()
}
