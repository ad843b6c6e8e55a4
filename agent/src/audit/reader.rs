//! Records of AppArmor's as events.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use portcullis_ebpf::{Event, abi, boottime_ns};
use portcullis_enforcer::apparmor::{self, ProfileName};
use portcullis_enforcer::{ContainerRecord, Refusals, StateDir, Tenants};
use portcullis_policy::capability::Capability;
use portcullis_policy::decide::{Cause, Operation, Verdict};
use portcullis_policy::meaning::RuleSet;
use portcullis_policy::network::Socket;
use rustix::event::epoll;
use rustix::io::Errno;
use tracing::warn;

use super::record::{Record, parse};
use super::socket::{AuditSocket, Read};

/// Records that are looked at in search of one of ours, in one call.
const MAX_OTHERS: usize = 256;
/// Containers whose rules are remembered; then all are looked up anew.
const MAX_KNOWN: usize = 1024;
/// How old that may be. What was switched meanwhile is explained by the rules before for so long.
const FRESH: Duration = Duration::from_secs(1);
/// Who a record does not say the user of.
const NOBODY_TOLD: u32 = u32::MAX;

/// The one reader of AppArmor's denials, and of what was refused before it came to that.
pub(crate) struct Denials {
    socket: AuditSocket,
    refusals: Refusals,
    /// Either of the two.
    both: OwnedFd,
    tenants: Tenants,
    known: HashMap<ProfileName, (Instant, Option<Arc<Confined>>)>,
    sequence: u64,
    lost: u64,
}

/// Why denials cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRead {
    /// Those of the kernel.
    #[error("the audit records of AppArmor cannot be read: {0}; the agent needs CAP_AUDIT_READ")]
    Audit(Errno),
    /// Those before it came to the kernel.
    #[error("what is refused before the kernel judges it cannot be read from the state directory: {0}")]
    Refusals(std::io::Error),
}

/// A container, and its rules.
struct Confined {
    record: ContainerRecord,
    rules: RuleSet,
}

impl Denials {
    /// Begins to read; names are in a state directory.
    pub(crate) fn open(state: StateDir) -> Result<Denials, NotRead> {
        let socket = AuditSocket::open().map_err(NotRead::Audit)?;
        let refusals = Refusals::open(&state).map_err(NotRead::Refusals)?;
        let both = Denials::both(&socket, &refusals).map_err(NotRead::Audit)?;
        Ok(Denials { socket, refusals, both, tenants: Tenants::of(state), known: HashMap::new(), sequence: 0, lost: 0 })
    }

    fn both(socket: &AuditSocket, refusals: &Refusals) -> Result<OwnedFd, Errno> {
        let both = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (number, fd) in [(0, socket.as_fd()), (1, refusals.as_fd())] {
            epoll::add(&both, fd, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
        }
        Ok(both)
    }

    /// The next event, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, NotRead> {
        for _ in 0..MAX_OTHERS {
            if let Some(text) = self.refusals.read().map_err(NotRead::Refusals)? {
                if let Some(event) = parse(&text).and_then(|record| self.event(&record)) {
                    return Ok(Some(event));
                }
                continue;
            }
            let record = match self.socket.read().map_err(NotRead::Audit)? {
                Read::Nothing => return Ok(None),
                Read::Overrun => {
                    warn!(
                        "denials came faster than they were read, or were not read for a while: the kernel does not tell how many are lost"
                    );
                    self.lost += 1;
                    continue;
                }
                Read::Avc(text) => parse(text),
                Read::Other => None,
            };
            if let Some(event) = record.and_then(|record| self.event(&record)) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Nothing for what is not a container's of ours.
    fn event(&mut self, record: &Record) -> Option<Event> {
        let profile = std::str::from_utf8(&record.profile).ok()?;
        let name = ProfileName::of_profile(profile)?;
        let confined = self.confined(&name);
        let mut event = translate(record, profile, confined.as_deref().map(|confined| &confined.rules))?;
        (event.header.slot, event.header.epoch) = name.tenancy();
        event.header.generation = confined.as_ref().map_or(0, |confined| confined.record.generation);
        if confined.is_some_and(|confined| confined.record.audited) {
            event.header.verdict = abi::AUDIT;
        }
        self.sequence += 1;
        event.header.seq = self.sequence;
        event.lost_before = std::mem::take(&mut self.lost);
        Some(event)
    }

    fn confined(&mut self, name: &ProfileName) -> Option<Arc<Confined>> {
        if let Some((looked, confined)) = self.known.get(name)
            && looked.elapsed() < FRESH
        {
            return confined.clone();
        }
        let (slot, epoch) = name.tenancy();
        let found = self.tenants.find(slot, epoch).and_then(|record| {
            let Some(record) = record else { return Ok(None) };
            Ok(self.tenants.state().rules_of(&record)?.map(|rules| Arc::new(Confined { record, rules })))
        });
        let confined = found.unwrap_or_else(|error| {
            warn!("a denial cannot be explained: {error}");
            None
        });
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(name.clone(), (Instant::now(), confined.clone()));
        confined
    }
}

impl AsFd for Denials {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.both.as_fd()
    }
}

/// The event of a record, but for the container. The rule is the one that the reference model says decides; where that says nothing
/// is denied or audited, no rule is told.
fn translate(record: &Record, profile: &str, rules: Option<&RuleSet>) -> Option<Event> {
    let op = operation(record)?;
    let (path, arg) = match op {
        abi::op::CAPABLE => (Vec::new(), [record.capability?, 0, 0]),
        abi::op::SOCKET..=abi::op::SEND => {
            let family = apparmor::socket_family(&record.family)?;
            let kind = apparmor::socket_type(&record.socket_type)?;
            (Vec::new(), [u32::from(family), u32::from(kind), record.protocol])
        }
        _ => (named(&record.name), [0; 3]),
    };
    let mut header = abi::Event {
        kind: abi::EVENT_ALERT,
        time_ns: since_boot(record.time),
        op,
        rule: abi::RULE_NONE,
        verdict: if record.denied { abi::BLOCK } else { abi::AUDIT },
        tgid: record.pid,
        tid: record.pid,
        uid: record.users.map_or(NOBODY_TOLD, |(user, _)| user),
        arg,
        comm: padded(&record.comm),
        ..abi::Event::default()
    };
    header.rule = match op {
        abi::op::MOUNT..=abi::op::PIVOT_ROOT => abi::RULE_ALIAS,
        _ => rules.map_or(abi::RULE_NONE, |rules| rule(rules, profile, &header, &path, record)),
    };
    let cut = path.len().saturating_sub(abi::PATH_MAX as usize - 1);
    header.path_cut = u32::from(cut > 0);
    let path = path[cut..].to_vec();
    header.path_len = u32::try_from(path.len()).unwrap_or(0);
    Some(Event { header, path, lost_before: 0 })
}

fn rule(rules: &RuleSet, profile: &str, header: &abi::Event, path: &[u8], record: &Record) -> u32 {
    let operation = match header.op {
        abi::op::CAPABLE => u8::try_from(header.arg[0]).ok().and_then(Capability::from_number).map(Operation::Capability),
        abi::op::SOCKET..=abi::op::SEND => {
            let [family, kind, protocol] = header.arg.map(|number| u16::try_from(number).unwrap_or(u16::MAX));
            Some(Operation::Socket(Socket { family, kind, protocol }))
        }
        abi::op::EXEC | abi::op::MAP_EXEC => Some(Operation::Exec { path: Some(path), unlinked: false }),
        abi::op::READ => Some(Operation::Read { path }),
        _ => Some(Operation::Change { path }),
    };
    let owner = record.users.is_some_and(|(user, owner)| user == owner);
    let Some(decision) = operation.map(|operation| apparmor::explain(rules, profile, &operation, owner)) else {
        return abi::RULE_NONE;
    };
    match (decision.verdict, decision.cause) {
        (Verdict::Audit | Verdict::Block, Cause::Rule(rule)) => u32::try_from(rule).unwrap_or(abi::RULE_NONE),
        (Verdict::Audit | Verdict::Block, Cause::Posture) => abi::RULE_POSTURE,
        _ => abi::RULE_NONE,
    }
}

/// `operation` of `aa_ops`; what policies have no word for is told by nobody.
fn operation(record: &Record) -> Option<u32> {
    use abi::op;
    let changes = record.mask.iter().any(|letter| b"wadc".contains(letter));
    Some(match record.operation.as_slice() {
        b"open" | b"file_perm" | b"file_inherit" | b"file_receive" if record.mask.contains(&b'c') => op::CREATE,
        b"open" | b"file_perm" | b"file_inherit" | b"file_receive" if changes => op::WRITE,
        b"open" | b"file_perm" | b"file_inherit" | b"file_receive" | b"getattr" => op::READ,
        b"mknod" => op::CREATE,
        b"mkdir" => op::MKDIR,
        b"rmdir" => op::RMDIR,
        b"unlink" => op::UNLINK,
        b"rename_src" | b"rename_dest" => op::RENAME,
        b"link" => op::LINK,
        b"symlink" => op::SYMLINK,
        b"chmod" => op::CHMOD,
        b"chown" => op::CHOWN,
        b"truncate" => op::TRUNCATE,
        b"exec" => op::EXEC,
        b"file_mmap" | b"file_mprotect" if record.mask.contains(&b'm') => op::MAP_EXEC,
        b"file_mmap" | b"file_mprotect" => op::READ,
        b"create" => op::SOCKET,
        b"connect" => op::CONNECT,
        b"bind" => op::BIND,
        b"listen" => op::LISTEN,
        b"accept" => op::ACCEPT,
        b"sendmsg" => op::SEND,
        b"capable" => op::CAPABLE,
        b"mount" => op::MOUNT,
        b"umount" => op::UMOUNT,
        b"pivotroot" => op::PIVOT_ROOT,
        _ => return None,
    })
}

/// A name as policies have it: that of a directory has no slash at its end.
fn named(name: &[u8]) -> Vec<u8> {
    match name.strip_suffix(b"/") {
        Some(directory) if !directory.is_empty() => directory.to_vec(),
        _ => name.to_vec(),
    }
}

fn padded(comm: &[u8]) -> [u8; 16] {
    let mut padded = [0; 16];
    let length = comm.len().min(padded.len() - 1);
    padded[..length].copy_from_slice(&comm[..length]);
    padded
}

/// A time of the wall clock by the boot clock, which events have.
fn since_boot(time: Duration) -> u64 {
    let now = Duration::from_nanos(boottime_ns());
    let ago = SystemTime::now().duration_since(UNIX_EPOCH + time).unwrap_or_default();
    u64::try_from(now.saturating_sub(ago).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use portcullis_policy::meaning::{Posture, Postures};
    use portcullis_policy::{Options, parse as parse_policy};

    use super::*;

    fn rules(spec: &str) -> RuleSet {
        let text = format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: p}}\nspec:\n  selector: {{matchLabels: {{app: web}}}}\n{spec}"
        );
        let parsed = parse_policy(Path::new("p.yaml"), text.as_bytes(), Options::default());
        let postures = Postures { file: Posture::Block, ..Postures::default() };
        RuleSet { rules: parsed.policies().next().unwrap().rules.clone(), postures }
    }

    fn event(fields: &str, rules: Option<&RuleSet>) -> Option<Event> {
        let text = format!("audit(1.000:1): apparmor=\"DENIED\" profile=\"P\" pid=3 comm=\"c\" {fields}");
        translate(&parse(text.as_bytes()).unwrap(), "P", rules)
    }

    #[test]
    fn a_denial_has_the_rule_that_denies() {
        let rules = rules(
            "  file:\n    matchPaths: [{path: /k}, {path: /own, ownerOnly: true}]\n  process:\n    matchPaths: [{path: /bin/nc}]\n  network:\n    matchProtocols: [{protocol: tcp}]\n  capabilities:\n    matchCapabilities: [{capability: net_raw}]\n  action: Block\n",
        );
        let field = |event: &Event| rules.rules[event.header.rule as usize].origin.field.clone();
        for (fields, op, expected) in [
            (r#"operation="open" name="/k" denied_mask="r" fsuid=0 ouid=0"#, abi::op::READ, "spec.file.matchPaths[0]"),
            (r#"operation="open" name="/k" denied_mask="wr""#, abi::op::WRITE, "spec.file.matchPaths[0]"),
            (r#"operation="mkdir" name="/k/" denied_mask="c""#, abi::op::MKDIR, "spec.file.matchPaths[0]"),
            (r#"operation="open" name="/own" denied_mask="r" fsuid=1 ouid=0"#, abi::op::READ, "spec.file.matchPaths[1]"),
            (r#"operation="exec" name="/bin/nc" denied_mask="x""#, abi::op::EXEC, "spec.process.matchPaths[0]"),
            (
                r#"operation="create" family="inet6" sock_type="stream" protocol=6"#,
                abi::op::SOCKET,
                "spec.network.matchProtocols[0]",
            ),
            (r#"operation="capable" capability=13"#, abi::op::CAPABLE, "spec.capabilities.matchCapabilities[0]"),
        ] {
            let event = event(fields, Some(&rules)).unwrap();
            assert_eq!((event.header.op, field(&event).as_str()), (op, expected), "{fields}");
            assert_eq!(event.header.verdict, abi::BLOCK);
        }
        let directory = event(r#"operation="mkdir" name="/k/" denied_mask="c""#, Some(&rules)).unwrap();
        assert_eq!((directory.path.as_slice(), directory.header.path_len), (&b"/k"[..], 2));
        let mount = event(r#"operation="mount" name="/mnt/""#, Some(&rules)).unwrap();
        assert_eq!(mount.header.rule, abi::RULE_ALIAS);
    }

    #[test]
    fn no_rule_is_guessed() {
        let listed = rules("  process:\n    matchPaths: [{path: /bin/app}]\n  action: Allow\n");
        let posture = event(r#"operation="exec" name="/bin/nc" denied_mask="x""#, Some(&listed)).unwrap();
        assert_eq!(posture.header.rule, abi::RULE_POSTURE);
        let allowed = event(r#"operation="exec" name="/bin/app" denied_mask="x""#, Some(&listed)).unwrap();
        assert_eq!(allowed.header.rule, abi::RULE_NONE, "the model denies nothing there");
        let unknown = event(r#"operation="open" name="/k" denied_mask="r""#, None).unwrap();
        assert_eq!((unknown.header.rule, unknown.header.uid), (abi::RULE_NONE, NOBODY_TOLD));
        assert_eq!(event(r#"operation="profile_replace" name="/k""#, None), None);
        assert_eq!(event(r#"operation="create" family="x" sock_type="stream""#, None), None);
    }

    #[test]
    fn a_long_name_loses_its_beginning() {
        let name = "a".repeat(abi::PATH_MAX as usize);
        let event = event(&format!("operation=\"open\" name=\"/{name}\" denied_mask=\"r\""), None).unwrap();
        assert_eq!((event.header.path_cut, event.path.len()), (1, abi::PATH_MAX as usize - 1));
    }
}
